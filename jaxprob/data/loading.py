"""Host arrays on their way to a device: copied and checked in one read, large ones by threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array

_ALIGNMENT = 64  # bytes, that XLA wants of the memory it is given
_CHUNK = 2**17  # entries, which stay in a core's cache between the copy and the check
_LARGE = 2**24  # bytes from which on threads are worth their start


def to_device(host: np.ndarray) -> Array:
    """A copy on JAX's default device; `jax.numpy.array` compiles a program for each shape.

    Args:
        host: any array of numbers.

    Returns:
        An array of the same dtype.

    Example:
        >>> to_device(np.arange(3.0, dtype="float32")).tolist()
        [0.0, 1.0, 2.0]
    """
    return load([host])[0][0]


def load(
    hosts: list[np.ndarray | None],
    *,
    check: Callable[..., Any] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> tuple[list[Array | None], list[Any]]:
    """Copies on JAX's default device.

    NumPy asks for memory in huge pages, which makes the first copy of a large array several times
    faster than JAX's; a CPU device takes it as it is, if it is aligned.

    Args:
        hosts: arrays with a first axis of one length, or None.
        check: of chunks of rows of all arrays, as they are copied; not called for other devices.
        meanwhile: what to do while large arrays are copied; not called for small ones.

    Returns:
        The arrays, and what `check` said of each chunk.

    Example:
        >>> arrays, found = load([np.ones((3, 2), "float32")], check=lambda x: bool(x.all()))
        >>> arrays[0].shape, found
        ((3, 2), [True])
    """
    size = sum(host.nbytes for host in hosts if host is not None)
    if jax.default_backend() != "cpu":
        arrays = [None if host is None else jax.device_put(host) for host in hosts]
        if meanwhile is not None and size >= _LARGE:
            meanwhile()  # transfers do not wait
        return arrays, []
    targets = [None if host is None else _aligned(host) for host in hosts]
    given = [(h, t) for h, t in zip(hosts, targets, strict=True) if h is not None and t is not None]
    n, entries = len(given[0][0]), max(host.size for host, _ in given)
    step = max(1, n * _CHUNK // max(entries, 1))

    def copy(start: int) -> Any:
        rows = slice(start, start + step)
        for host, target in given:
            np.copyto(target[rows], host[rows])
        if check is not None:
            return check(*(None if target is None else target[rows] for target in targets))
        return None

    if size < _LARGE:
        found = [copy(start) for start in range(0, n, step)]
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
            copies = [threads.submit(copy, start) for start in range(0, n, step)]
            if meanwhile is not None:
                meanwhile()
            found = [one.result() for one in copies]
    return [None if t is None else jax.device_put(t, may_alias=True) for t in targets], found


def _aligned(host: np.ndarray) -> np.ndarray:
    """Memory of the shape and dtype of an array, at an address that XLA takes."""
    memory = np.empty(host.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + host.nbytes].view(host.dtype).reshape(host.shape)
