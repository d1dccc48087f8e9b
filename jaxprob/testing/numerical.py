r"""Derivatives from values alone: central differences, extrapolated to a step of zero.

With D(h) = (f(x + h v) - f(x - h v)) / 2h = f' + a₂h² + a₄h⁴ + ..., Richardson's table

    T_k0 = D(h/2^k),    T_kj = T_k,j-1 + (T_k,j-1 - T_k-1,j-1) / (4^j - 1)

removes one power after the other. The entry that agrees best with its neighbours is the result, and
its disagreement with them, plus the rounding of f, the estimate of its error. As neighbours
may agree by chance, the worst of three successive disagreements counts.

Source: Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software 4,
1982.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

_LEVELS = 12
_ORDERS = 6


def numerical_jacobian(
    fn: Callable[[Array], Array], x: Array, scale: Array, rounding: Array | float = 0.0
) -> tuple[Array, Array]:
    """The derivative of a function along each coordinate, and an estimate of its error.

    Args:
        fn: (p,) -> an array of any shape.
        x: (p,) floating.
        scale: (p,) over which the function changes; the largest step is a quarter of it.
        rounding: of the shape of fn(x), the size of its summands where these cancel: what rounding
            does to it is in proportion to that.

    Returns:
        Derivative and error, each the shape of fn(x) with an axis of p appended.

    Example:
        >>> value, error = numerical_jacobian(lambda x: x[0] ** 2, jnp.array([3.0]), jnp.ones(1))
        >>> bool(abs(value[0] - 6) < 1e-3)
        True
    """

    def along(j: Array) -> tuple[Array, Array]:
        return _derivative(lambda t: fn(x.at[j].add(t)), scale[j] / 4, rounding)

    value, error = jax.lax.map(along, jnp.arange(len(x)))
    return jnp.moveaxis(value, 0, -1), jnp.moveaxis(error, 0, -1)


def _derivative(
    fn: Callable[[Array], Array], largest: Array, rounding: Array | float
) -> tuple[Array, Array]:
    steps = largest * 2.0 ** -jnp.arange(_LEVELS, dtype=largest.dtype)
    ends = jax.vmap(fn)(jnp.concatenate([steps, -steps]))
    high, low = ends[:_LEVELS], ends[_LEVELS:]
    shape = (_LEVELS,) + (1,) * (ends.ndim - 1)
    column = (high - low) / (2 * steps.reshape(shape))
    size = jnp.maximum(jnp.abs(high) + jnp.abs(low), jnp.broadcast_to(rounding, high.shape))
    noise = jnp.finfo(ends.dtype).eps * size / steps.reshape(shape)
    values, errors = [], []
    for j in range(1, _ORDERS):
        finer = column[1:] + (column[1:] - column[:-1]) / (4**j - 1)
        noise = noise[1:] * (1 + 2 / (4**j - 1))
        wrong = jnp.maximum(jnp.abs(finer - column[1:]), jnp.abs(finer - column[:-1])) + noise
        wrong = jnp.where(jnp.isfinite(finer), wrong, jnp.inf)
        around = jnp.concatenate([wrong[:1], wrong, wrong[-1:]])
        values.append(finer)
        errors.append(jnp.maximum(wrong, jnp.maximum(around[:-2], around[2:])))
        column = finer
    value, error = jnp.concatenate(values), jnp.concatenate(errors)
    best = jnp.argmin(error, axis=0, keepdims=True)
    return (
        jnp.take_along_axis(value, best, axis=0)[0],
        jnp.take_along_axis(error, best, axis=0)[0],
    )
