"""Memory that a CPU device takes as it is."""

import math
from typing import Any

import numpy as np

_ALIGNMENT = 64  # bytes, that XLA wants of the memory it is given


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory at an address that a CPU device takes as it is, without a copy.

    Args:
        shape: of the array.
        dtype: of its entries, which are not set.

    Returns:
        An array for `jax.device_put(array, may_alias=True)`.

    Example:
        >>> aligned((3, 2), "float32").shape
        (3, 2)
    """
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)
