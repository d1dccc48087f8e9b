"""Newton steps from Hessians that may be badly scaled, singular, or not quite positive."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular

_LARGE = 256  # parameters
_BLOCK = 16  # columns


class Factor(NamedTuple):
    """A Cholesky factor L of D^(-1/2) H D^(-1/2) + ridge, D the diagonal of H."""

    lower: Array  # (p, p)
    scale: Array  # (p,), D^(1/2)
    ridge: Array  # ()
    inverse: Array | None  # (p, p), of L, where p is large

    def solve(self, v: Array) -> Array:
        """(H + ridge D)⁻¹ v for v (p,)."""
        if self.inverse is None:
            return cho_solve((self.lower, True), v / self.scale) / self.scale
        return ((self.inverse @ (v / self.scale)) @ self.inverse) / self.scale

    def singular(self) -> Array:
        """Whether some direction has no curvature beyond rounding."""
        floor = 16 * len(self.scale) * jnp.finfo(self.scale.dtype).eps
        return jnp.min(_diagonal(self.lower)) ** 2 <= floor + self.ridge

    def untouched(self) -> Array:
        """Whether the ridge is as small as it gets."""
        return self.ridge <= 2 * _least_ridge(len(self.scale), self.lower.dtype)


def _least_ridge(size: int, dtype: jnp.dtype) -> Array:
    return jnp.asarray(2 * size * jnp.finfo(dtype).eps, dtype)


def _diagonal(a: Array) -> Array:
    """(p,), by a sum, which compiles faster than a gather."""
    return jnp.sum(jnp.where(jnp.eye(len(a), dtype=bool), a, 0.0), axis=1)


def no_factor(theta: Array) -> Factor:
    """That of the identity: what a run starts with that knows no Hessian yet."""
    eye = jnp.eye(len(theta), dtype=theta.dtype)
    ridge = jnp.zeros((), theta.dtype)
    return Factor(eye, jnp.ones_like(theta), ridge, eye if len(theta) >= _LARGE else None)


def cholesky(a: Array) -> tuple[Array, Array | None]:
    """The lower Cholesky factor of a matrix (p, p), and if p is large its inverse.

    On a CPU a large matrix is halved, and its parts are taken in narrow blocks of columns. The
    threads of the linear algebra library, which it uses for large matrices only, stay busy for
    25 ms after each call, and what XLA computes meanwhile with its own takes twice as long.

    Args:
        a: (p, p), of which the lower triangle is read.

    Returns:
        (p, p), full of NaN in the last row where a is not positive definite; its inverse or None.

    Example:
        >>> cholesky(jnp.array([[4.0, 0.0], [2.0, 5.0]]))[0].tolist()
        [[2.0, 0.0], [1.0, 2.0]]
    """
    if len(a) < _LARGE:
        return jnp.linalg.cholesky(a, symmetrize_input=False), None
    return jax.lax.platform_dependent(a, cpu=_in_halves, default=_in_one)


def _in_one(a: Array) -> tuple[Array, Array]:
    lower = jnp.linalg.cholesky(a, symmetrize_input=False)
    return lower, solve_triangular(lower, jnp.eye(len(a), dtype=a.dtype), lower=True)


def _in_halves(a: Array) -> tuple[Array, Array]:
    half = len(a) // 2
    if half < _LARGE:
        return _in_blocks(a)
    first, first_inverse = _in_halves(a[:half, :half])
    below = a[half:, :half] @ first_inverse.T
    last, last_inverse = _in_halves(a[half:, half:] - below @ below.T)
    zero = jnp.zeros((half, len(a) - half), a.dtype)
    inverse_below = -last_inverse @ (below @ first_inverse)
    return (
        jnp.block([[first, zero], [below, last]]),
        jnp.block([[first_inverse, zero], [inverse_below, last_inverse]]),
    )


def _in_blocks(a: Array) -> tuple[Array, Array]:
    p, width = len(a), _BLOCK
    size = -(-p // width) * width
    rows = jnp.arange(size)
    a = jnp.pad(a, (0, size - p)) + jnp.diag((rows >= p).astype(a.dtype))
    eye = jnp.eye(width, dtype=a.dtype)

    def with_block(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        lower, inverse = carry
        start = k * width
        known = jax.lax.dynamic_slice(lower, (start, 0), (width, size))
        block = jax.lax.dynamic_slice(a, (0, start), (size, width)) - lower @ known.T
        head = jax.lax.dynamic_slice(block, (start, 0), (width, width))
        head = jnp.linalg.cholesky(head, symmetrize_input=False)
        head_inverse = jax.vmap(partial(solve_triangular, head, lower=True))(eye).T
        below = (rows >= start + width)[:, None]
        block = jnp.where(below, block @ head_inverse.T, 0.0)
        block = jax.lax.dynamic_update_slice(block, head, (start, 0))
        unit = (rows[None, :] - start == jnp.arange(width)[:, None]).astype(a.dtype)
        own = head_inverse @ (unit - known @ inverse)
        return (
            jax.lax.dynamic_update_slice(lower, block, (0, start)),
            jax.lax.dynamic_update_slice(inverse, own, (start, 0)),
        )

    none = jnp.zeros_like(a)
    lower, inverse = jax.lax.fori_loop(0, size // width, with_block, (none, none))
    return lower[:p, :p], inverse[:p, :p]


def factorise(h: Array) -> Factor:
    """Factorise a positive semidefinite Hessian, adding as little as rounding makes necessary.

    Args:
        h: (p, p), symmetric.

    Returns:
        A Factor; full of NaN where h is not finite.
    """
    diagonal = _diagonal(h)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    scaled = h / (scale[:, None] * scale[None, :])
    eye = jnp.eye(len(scale), dtype=h.dtype)

    def attempt(factor: Factor) -> Factor:
        ridge = 100 * factor.ridge
        lower, inverse = cholesky(scaled + ridge * eye)
        return Factor(lower, scale, ridge, inverse)

    def failed(factor: Factor) -> Array:
        return jnp.isnan(factor.lower[-1, -1]) & (factor.ridge < 1.0)

    untried = no_factor(scale)._replace(
        lower=jnp.full_like(h, jnp.nan), ridge=_least_ridge(len(scale), h.dtype) / 100
    )
    return jax.lax.while_loop(failed, attempt, untried)
