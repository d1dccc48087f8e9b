r"""Derivatives from values alone: differences, extrapolated to a step of zero.

With D(h) = (f(x + h v) - f(x - h v)) / 2h = f' + a₂h² + a₄h⁴ + ..., Richardson's table

    T_k0 = D(h/2^k),    T_kj = T_k,j-1 + (T_k,j-1 - T_k-1,j-1) / (4^j - 1)

removes one power after the other. (f(x + h v) - f(x)) / h has odd powers, too, so that 2^j takes
the place of 4^j. The entry that agrees best with its neighbours is the result, and its disagreement
with them, plus the rounding of f, the estimate of its error. As neighbours may agree by chance, the
worst of three successive disagreements counts.

Source: Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software 4,
1982.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

LEVELS = 12
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
        steps = scale[j] / 4 * 2.0 ** -jnp.arange(LEVELS, dtype=scale.dtype)
        ends = jax.vmap(lambda t: fn(x.at[j].add(t)))(jnp.concatenate([steps, -steps]))
        high, low = ends[:LEVELS], ends[LEVELS:]
        steps = steps.reshape((LEVELS,) + (1,) * (ends.ndim - 1))
        size = jnp.maximum(jnp.abs(high) + jnp.abs(low), jnp.broadcast_to(rounding, high.shape))
        noise = jnp.finfo(ends.dtype).eps * size / steps
        return extrapolated((high - low) / (2 * steps), noise, 4, jnp)

    value, error = jax.lax.map(along, jnp.arange(len(x)))
    return jnp.moveaxis(value, 0, -1), jnp.moveaxis(error, 0, -1)


def extrapolated(quotients: Any, noise: Any, base: int, xp: Any) -> tuple[Any, Any]:
    """Richardson's table of difference quotients.

    Args:
        quotients: (levels, ...), each with half the step of the one before.
        noise: (levels, ...) what rounding does to them.
        base: 4 where errors have even powers of the step alone, otherwise 2.
        xp: `numpy` or `jax.numpy`.

    Returns:
        The limit and an estimate of its error, each (...). The error is infinite where no quotients
        are finite.

    Example:
        >>> import numpy as np
        >>> steps = 0.5 ** np.arange(LEVELS)
        >>> value, error = extrapolated((np.exp(steps) - 1) / steps, 1e-16 / steps, 2, np)
        >>> bool(abs(value - 1) < error < 1e-11)
        True
    """
    column = quotients
    values, errors = [], []
    for j in range(1, _ORDERS):
        finer = column[1:] + (column[1:] - column[:-1]) / (base**j - 1)
        noise = noise[1:] * (1 + 2 / (base**j - 1))
        wrong = xp.maximum(xp.abs(finer - column[1:]), xp.abs(finer - column[:-1])) + noise
        wrong = xp.where(xp.isfinite(finer), wrong, xp.inf)
        around = xp.concatenate([wrong[:1], wrong, wrong[-1:]])
        values.append(finer)
        errors.append(xp.maximum(wrong, xp.maximum(around[:-2], around[2:])))
        column = finer
    value, error = xp.concatenate(values), xp.concatenate(errors)
    best = xp.argmin(error, axis=0)[None]
    return (
        xp.take_along_axis(value, best, axis=0)[0],
        xp.take_along_axis(error, best, axis=0)[0],
    )
