"""Weights of examples: repeated rows, or made such from what is known up to a factor."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.data.arrays import check_array
from jaxprob.runtime.compilation import eager_jit


def normalised_weights(weights: Any) -> Any:
    """Scale weights so that they add up to the number of examples whose weight is positive.

    A fit takes weights as repeated rows: twice the weights are twice the data, with errors smaller
    by √2. Weights that are known up to a factor, such as probabilities or relative weights, are
    made such by this: the examples count as many as they are, some of them more than others.

    Args:
        weights: (n,) ≥ 0, or with lanes (B, n): the last axis is that of the examples, and each
            lane is scaled by itself. An array of JAX, NumPy, a list or a Series.

    Returns:
        Of the same shape: of JAX for an array of JAX, else of NumPy; in JAX's default dtype where
        the weights are integers. Inside `jit` and `vmap` nothing is checked: NaN where a sum is
        zero, of which the status of a fit is INVALID_INPUT.

    Raises:
        ValueError: for other shapes, negative or non-finite weights, and zeros only.
        TypeError: for what is no array of numbers.

    Example:
        >>> normalised_weights([0.25, 0.75, 0.0]).tolist()
        [0.5, 1.5, 0.0]
        >>> normalised_weights([[1.0, 3.0], [8.0, 8.0]]).tolist()
        [[0.5, 1.5], [1.0, 1.0]]
    """
    ndim = 2 if np.ndim(weights) == 2 else 1
    c = check_array("weights", weights, shape="(n,) or (B, n)", ndim=ndim)
    if not jnp.issubdtype(c.dtype, jnp.floating):
        c = c.astype(jnp.result_type(float))
    if isinstance(c, Tracer):
        return _normalised(c, jnp)
    host = np.asarray(c)
    wrong = ~(np.isfinite(host) & (host >= 0))
    if wrong.any():
        raise ValueError(
            f"weights: expected finite numbers of at least 0, got {host[wrong][0]}; drop such "
            "examples, or give them weight 0"
        )
    if host.shape[-1] == 0 or not np.all(np.any(host > 0, axis=-1)):
        raise ValueError("weights: expected a positive sum in each lane, got zeros only")
    return _compiled(c) if isinstance(c, Array) else _normalised(host, np)


def _normalised(c: Any, xp: Any) -> Any:
    share = c / xp.max(c, axis=-1, keepdims=True)  # whose sum does not overflow
    count = xp.sum(c > 0, axis=-1, keepdims=True).astype(c.dtype)
    return share * (count / xp.sum(share, axis=-1, keepdims=True))


_compiled = eager_jit(lambda c: _normalised(c, jnp))
