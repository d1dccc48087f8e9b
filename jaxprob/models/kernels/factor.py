"""How wide kernels are, and the matrix that says so."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


class Bandwidth(NamedTuple):
    """How wide the kernels are.

    Attributes:
        log_scale: (1,) one for all columns, or (d,).
        lower: (d(d-1)/2,) of A, row by row; (0,) where A is diagonal.
    """

    log_scale: Array
    lower: Array


def inverse_factor(bandwidth: Bandwidth, d: int) -> Array:
    """The matrix A that differences are multiplied by.

    Args:
        bandwidth: Bandwidth.
        d: number of columns.

    Returns:
        (d, d) lower triangular, or (d,) where it is diagonal.

    Raises:
        ValueError: for the bandwidth of another number of columns.

    Example:
        >>> inverse_factor(Bandwidth(jnp.zeros(2), jnp.array([3.0])), 2).tolist()
        [[1.0, 0.0], [3.0, 1.0]]
    """
    scales, below = bandwidth.log_scale.shape, bandwidth.lower.shape
    if scales not in ((1,), (d,)) or below not in ((0,), (d * (d - 1) // 2,)):
        raise ValueError(
            f"bandwidth: expected that of {d} columns, with log_scale of shape (1,) or ({d},) and "
            f"lower of shape (0,) or ({d * (d - 1) // 2},), got {scales} and {below}"
        )
    scale = jnp.broadcast_to(jnp.exp(-bandwidth.log_scale), (d,))
    if bandwidth.lower.shape[0] == 0:
        return scale
    return jnp.diag(scale).at[np.tril_indices(d, -1)].set(bandwidth.lower)
