"""Newton steps from Hessians that may be badly scaled, singular, or not quite positive."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap, sequential_vmap
from jax.scipy.linalg import solve_triangular

from jaxprob.numerics.products import matmul

_LARGE = 256  # parameters
_THREADED = 112  # rows, from which on the linear algebra library uses threads for a factor
_BLOCK = 16  # columns
_ROUNDS = 3  # of `triangular_root`
_MOST_ROUNDING = 0.5  # of the curvature along some direction, beyond which it says nothing


class Factor(NamedTuple):
    """A Cholesky factor L of D^(-1/2) H D^(-1/2) + ridge, D the diagonal of H."""

    lower: Array  # (p, p)
    scale: Array  # (p,), D^(1/2)
    ridge: Array  # ()
    inverse: Array  # (p, p), of L

    def solve(self, v: Array) -> Array:
        """(H + ridge D)⁻¹ v for v (p,)."""
        return matmul(matmul(self.inverse, v / self.scale), self.inverse) / self.scale

    def last_pivot(self) -> Array:
        """NaN where there is no factor."""
        return self.lower[-1, -1]

    def singular(self) -> Array:
        """Whether some direction has no curvature beyond rounding."""
        return _singular(_diagonal(self.lower) ** 2, self.ridge)

    def untouched(self) -> Array:
        """Whether the ridge is as small as it gets."""
        return _untouched(self.scale, self.ridge)

    def largest(self) -> Array:
        """At least the largest eigenvalue of the inverse of D^(-1/2) H D^(-1/2) + ridge."""
        return jnp.sum(self.inverse**2)

    def beyond(self, square: Array) -> Array:
        """What vᵀH⁻¹v is at most, from vᵀ(H + ridge D)⁻¹v; infinite if that is unknown."""
        return _beyond(square, self.largest(), self.scale, self.ridge)


class Inverse(NamedTuple):
    """The inverse of D^(-1/2) H D^(-1/2) + ridge, D the diagonal of H."""

    matrix: Array  # (p, p)
    pivots: Array  # (p,), squares of the diagonal of a Cholesky factor
    scale: Array  # (p,), D^(1/2)
    ridge: Array  # ()

    def solve(self, v: Array) -> Array:
        """(H + ridge D)⁻¹ v for v (p,)."""
        return row_sums(self.matrix, v / self.scale) / self.scale

    def last_pivot(self) -> Array:
        """NaN where there is no inverse."""
        return self.pivots[-1]

    def singular(self) -> Array:
        """Whether some direction has no curvature beyond rounding."""
        return _singular(self.pivots, self.ridge)

    def untouched(self) -> Array:
        """Whether the ridge is as small as it gets."""
        return _untouched(self.scale, self.ridge)

    def largest(self) -> Array:
        """At least the largest eigenvalue of the inverse of D^(-1/2) H D^(-1/2) + ridge."""
        return jnp.sum(_diagonal(self.matrix))

    def beyond(self, square: Array) -> Array:
        """What vᵀH⁻¹v is at most, from vᵀ(H + ridge D)⁻¹v; infinite if that is unknown."""
        return _beyond(square, self.largest(), self.scale, self.ridge)


T = TypeVar("T", Factor, Inverse)


def _singular(pivots: Array, ridge: Array) -> Array:
    return jnp.min(pivots) <= 16 * len(pivots) * jnp.finfo(pivots.dtype).eps + ridge


def _untouched(scale: Array, ridge: Array) -> Array:
    return ridge <= 2 * _least_ridge(len(scale), scale.dtype)


def _beyond(square: Array, largest: Array, scale: Array, ridge: Array) -> Array:
    """From the largest eigenvalue of the inverse, or what is larger.

    Sums of squares, scaled to be at most one, are off by some ε each; as a matrix, by some ε √p.
    """
    rounding = 4 * jnp.finfo(scale.dtype).eps * len(scale) ** 0.5
    share = largest * (ridge + rounding)
    return jnp.where(share < _MOST_ROUNDING, square / (1 - share), jnp.inf)


def _least_ridge(size: int, dtype: jnp.dtype) -> Array:
    return jnp.asarray(2 * size * jnp.finfo(dtype).eps, dtype)


def row_sums(a: Array, v: Array) -> Array:
    """(p,) the product of a small matrix and a vector, which compiles faster than others."""
    return jnp.sum(a * v[None, :], axis=1)


def _diagonal(a: Array) -> Array:
    """(p,), by a sum, which compiles faster than a gather."""
    return jnp.sum(jnp.where(jnp.eye(len(a), dtype=bool), a, 0.0), axis=1)


def no_factor(theta: Array) -> Factor:
    """That of the identity: what a run starts with that knows no Hessian yet."""
    eye = jnp.eye(len(theta), dtype=theta.dtype)
    ridge = jnp.zeros((), theta.dtype)
    return Factor(eye, jnp.ones_like(theta), ridge, eye)


def no_inverse(theta: Array) -> "Inverse | Factor":
    """As `no_factor`, of the type that `invert` returns."""
    if len(theta) >= _LARGE:
        return no_factor(theta)
    one = jnp.ones_like(theta)
    eye = jnp.eye(len(theta), dtype=theta.dtype)
    return Inverse(eye, one, one, jnp.zeros((), theta.dtype))


def cholesky(a: Array, needed: Array | bool = True) -> tuple[Array, Array]:
    """The lower Cholesky factor of a matrix (p, p), and its inverse.

    The threads of the linear algebra library stay busy for 25 ms or more after each call that uses
    them, and what XLA computes meanwhile with its own takes twice as long. It uses them for factors
    of large matrices and for triangular systems from p = 40 or so on. So on a CPU a large matrix is
    halved, and its parts are taken in narrow blocks of columns; and inverses are put together from
    products of ever larger blocks.

    Args:
        a: (p, p), of which the lower triangle is read.
        needed: () bool; where it is false, anything may be returned.

    Returns:
        (p, p), full of NaN in the last row where a is not positive definite; its inverse.

    Example:
        >>> cholesky(jnp.array([[4.0, 0.0], [2.0, 5.0]]))[0].tolist()
        [[2.0, 0.0], [1.0, 2.0]]
    """
    if len(a) < _THREADED:
        lower = _cholesky(a, jnp.asarray(needed))
        return lower, _inverse_of_lower(lower)
    return jax.lax.platform_dependent(a, cpu=_in_halves, default=_in_one)


def _in_one(a: Array) -> tuple[Array, Array]:
    lower = jnp.linalg.cholesky(a, symmetrize_input=False)
    return lower, solve_triangular(lower, jnp.eye(len(a), dtype=a.dtype), lower=True)


@custom_vmap
def _cholesky(a: Array, needed: Array) -> Array:
    plain = partial(jnp.linalg.cholesky, symmetrize_input=False)
    return jax.lax.cond(needed, plain, lambda a: a, a)


@_cholesky.def_vmap
def _cholesky_rule(axis_size: int, in_batched: list[bool], a: Array, needed: Array):
    """On a CPU one by one: calls of the library for many matrices wait for each other for ever."""
    if not in_batched[0]:
        a = jnp.broadcast_to(a, (axis_size, *a.shape))
    if not in_batched[1]:
        needed = jnp.broadcast_to(needed, (axis_size, *jnp.shape(needed)))

    def one_by_one(a: Array, needed: Array) -> Array:
        return jax.lax.map(lambda lane: _cholesky(*lane), (a, needed))

    def at_once(a: Array, needed: Array) -> Array:
        del needed
        return jnp.linalg.cholesky(a, symmetrize_input=False)

    return jax.lax.platform_dependent(a, needed, cpu=one_by_one, default=at_once), True


def inverse_of_upper(upper: Array) -> Array:
    """R⁻¹ of an upper triangular matrix (p, p); not finite where it has none."""
    return _inverse_of_lower(upper.T).T if len(upper) else upper


def _inverse_of_lower(lower: Array) -> Array:
    """L⁻¹, from the inverses of small blocks on the diagonal, joined two by two."""
    p, above = len(lower), (len(lower) - 1).bit_length()  # p <= 2**above
    width = 3 if 3 * 2**above >= 4 * p and above > 1 else 2  # blocks: 2 or 3 times a power of 2
    count = max(1, 2**above // (4 if width == 3 else 2))
    rest = width * count - p
    filled = jnp.pad(lower, (0, rest)) + jnp.diag(
        jnp.pad(jnp.zeros(p, lower.dtype), (0, rest), constant_values=1)
    )

    def blocks(below: int, width: int, count: int) -> Array:
        """(count, width, width), of every pair of columns of blocks the first, so far below."""
        step = (1 + below) * width
        return jnp.stack(
            [
                filled[i + below * width : i + step, i : i + width]
                for i in range(0, len(filled), step)
            ]
        )

    inverse = _inverse_of_small(blocks(0, width, count))
    while count > 1:
        count //= 2
        first, second = inverse[::2], inverse[1::2]
        corner = matmul(-second, matmul(blocks(1, width, count), first))
        top = jnp.concatenate([first, jnp.zeros_like(first)], axis=2)
        inverse = jnp.concatenate([top, jnp.concatenate([corner, second], axis=2)], axis=1)
        width *= 2
    return inverse[0, :p, :p]


def _inverse_of_small(lower: Array) -> Array:
    """L⁻¹ of matrices (m, q, q), row by row."""
    rows: list[Array] = []
    for i, unit in enumerate(jnp.eye(lower.shape[1], dtype=lower.dtype)):
        known = sum(lower[:, i, j, None] * row for j, row in enumerate(rows))
        rows.append((unit[None, :] - known) / lower[:, i, i, None])
    return jnp.stack(rows, axis=1)


@sequential_vmap
def eigh(a: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of a symmetric matrix (p, p), of many one after another."""
    values, vectors = jnp.linalg.eigh(a)
    return values, vectors


@sequential_vmap
def svd(a: Array) -> tuple[Array, Array, Array]:
    """Singular values and vectors U, s, Vᵀ of a matrix (p, q), of many one after another."""
    left, values, right = jnp.linalg.svd(a, full_matrices=False)
    return left, values, right


@sequential_vmap
def _solve(a: Array, v: Array) -> Array:
    return jnp.linalg.solve(a, v)


def solve(a: Array, v: Array) -> Array:
    """a⁻¹ v for (p, p) and (p,), for many one after another; it can be differentiated."""
    return jax.lax.custom_linear_solve(
        lambda w: matmul(a, w),
        v,
        solve=lambda _, v: _solve(a, v),
        transpose_solve=lambda _, v: _solve(a.T, v),
    )


def triangular_root(a: Array) -> Array:
    """An upper triangular R (q, q) with RᵀR = aᵀa for a (n, q), with the digits that aᵀa loses.

    By products alone, where Householder's reflections would use the linear algebra library for
    every lane: a Cholesky factor of aᵀa, plus what rounding may take, is good enough to make the
    columns nearly orthogonal, and those of the rest are, the third time to rounding. A direction
    in which a is zero ends at some q ε.

    Args:
        a: (n, q).

    Returns:
        (q, q).

    Example:
        >>> triangular_root(jnp.array([[3.0], [4.0]])).round(4).tolist()
        [[5.0]]

    References:
        Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, Shifted Cholesky QR for computing the
        QR factorization of ill-conditioned matrices, SIAM Journal on Scientific Computing 42, 2020.
    """
    most = jnp.max(jnp.abs(a), axis=0, initial=0.0)
    some = jnp.where(most > 0, most, 1.0)
    a = a / some[None, :]
    lengths = jnp.sqrt(jnp.sum(a**2, axis=0))
    a = a / jnp.where(lengths > 0, lengths, 1.0)[None, :]
    eye = jnp.eye(a.shape[1], dtype=a.dtype)
    root, ridge = eye, 4 * len(eye) * jnp.finfo(a.dtype).eps
    for _ in range(_ROUNDS):
        lower, inverse = cholesky(matmul(a.T, a) + ridge * eye)
        a, root = matmul(a, inverse.T), matmul(lower.T, root)
    return root * (lengths * most)[None, :]


def _in_halves(a: Array) -> tuple[Array, Array]:
    half = len(a) // 2
    if half < _LARGE:
        return _in_blocks(a)
    first, first_inverse = _in_halves(a[:half, :half])
    below = matmul(a[half:, :half], first_inverse.T)
    last, last_inverse = _in_halves(a[half:, half:] - matmul(below, below.T))
    zero = jnp.zeros((half, len(a) - half), a.dtype)
    inverse_below = matmul(-last_inverse, matmul(below, first_inverse))
    return (
        jnp.block([[first, zero], [below, last]]),
        jnp.block([[first_inverse, zero], [inverse_below, last_inverse]]),
    )


def _in_blocks(a: Array) -> tuple[Array, Array]:
    p, width = len(a), _BLOCK
    size = -(-p // width) * width
    rows = jnp.arange(size)
    a = jnp.pad(a, (0, size - p)) + jnp.diag((rows >= p).astype(a.dtype))

    def with_block(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        lower, inverse = carry
        start = k * width
        known = jax.lax.dynamic_slice(lower, (start, 0), (width, size))
        block = jax.lax.dynamic_slice(a, (0, start), (size, width)) - matmul(lower, known.T)
        head = jax.lax.dynamic_slice(block, (start, 0), (width, width))
        head = _cholesky(head, jnp.ones((), bool))
        head_inverse = _inverse_of_lower(head)
        below = (rows >= start + width)[:, None]
        block = jnp.where(below, matmul(block, head_inverse.T), 0.0)
        block = jax.lax.dynamic_update_slice(block, head, (start, 0))
        unit = (rows[None, :] - start == jnp.arange(width)[:, None]).astype(a.dtype)
        own = matmul(head_inverse, unit - matmul(known, inverse))
        return (
            jax.lax.dynamic_update_slice(lower, block, (0, start)),
            jax.lax.dynamic_update_slice(inverse, own, (start, 0)),
        )

    none = jnp.zeros_like(a)
    lower, inverse = jax.lax.fori_loop(0, size // width, with_block, (none, none))
    return lower[:p, :p], inverse[:p, :p]


def factorise(h: Array, needed: Array | bool = True) -> Factor:
    """Factorise a Hessian, adding as little as makes it positive definite, up to powers of 100.

    Of a semidefinite one, that is a ridge of the size of rounding.

    Args:
        h: (p, p), symmetric.
        needed: () bool; where it is false, anything may be returned.

    Returns:
        A Factor; full of NaN where h is not finite.
    """

    def attempt(scaled: Array, scale: Array, ridge: Array, needed: Array) -> Factor:
        lower, inverse = cholesky(scaled, needed)
        return Factor(lower, scale, ridge, inverse)

    start = no_factor(h[0])
    return _regularised(h, attempt, start._replace(lower=jnp.full_like(h, jnp.nan)), needed)


def invert(h: Array) -> "Inverse | Factor":
    """As `factorise`, for fits that solve often and factorise seldom.

    The first use of the linear algebra library takes 0.1 s, which is spared where p is small.

    Args:
        h: (p, p), symmetric.

    Returns:
        An Inverse, full of NaN where h is not finite; from p = 256 on a Factor.
    """
    if len(h) >= _LARGE:
        return factorise(h)

    def attempt(scaled: Array, scale: Array, ridge: Array, needed: Array) -> Inverse:
        del needed
        return Inverse(*_gauss_jordan(scaled), scale, ridge)

    one, eye = jnp.ones_like(h[0]), jnp.eye(len(h), dtype=h.dtype)
    return _regularised(h, attempt, Inverse(eye, jnp.nan * one, one, jnp.zeros((), h.dtype)))


def plain_inverse(h: Array) -> Inverse:
    """The inverse of a positive definite Hessian without a ridge: a small program.

    Args:
        h: (p, p), symmetric.

    Returns:
        An Inverse, full of NaN where h is not positive definite.

    Example:
        >>> plain_inverse(jnp.array([[4.0, 0.0], [0.0, 1.0]])).solve(jnp.ones(2)).tolist()
        [0.25, 1.0]
    """
    diagonal = _diagonal(h)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, jnp.nan))
    scaled = h / (scale[:, None] * scale[None, :])
    return Inverse(*_gauss_jordan(scaled), scale, jnp.zeros((), h.dtype))


def _gauss_jordan(a: Array) -> tuple[Array, Array]:
    """The inverse of a positive definite matrix, in its place, and its pivots; else NaN."""
    index = jnp.arange(len(a))

    def step(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, pivots = carry
        row = jax.lax.dynamic_index_in_dim(a, k, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, keepdims=False)
        pivot = jnp.where(pivot > 0, pivot, jnp.nan)
        here = index == k
        row = jnp.where(here, 1.0, row) / pivot
        column = jnp.where(here, -1.0, a[:, k])
        swept = jnp.where(here[None, :], 0.0, jnp.where(here[:, None], 0.0, a))
        return swept - column[:, None] * row[None, :], jnp.where(here, pivot, pivots)

    return jax.lax.fori_loop(0, len(a), step, (a, jnp.zeros_like(a[0])))


def _regularised(h: Array, attempt: Callable[..., T], untried: T, needed: Array | bool = True) -> T:
    """The first attempt that does not fail, on h with unit diagonal and ever larger ridges."""
    diagonal = _diagonal(h)
    scale = jnp.sqrt(jnp.where(diagonal == 0, 1.0, jnp.abs(diagonal)))
    scaled = h / (scale[:, None] * scale[None, :])
    eye = jnp.eye(len(scale), dtype=h.dtype)
    # No eigenvalue is below minus this; of a semidefinite matrix none is below zero.
    most = jnp.maximum(1.0, jnp.max(jnp.sum(jnp.abs(scaled), axis=1)))
    possible = jnp.isfinite(jnp.sum(h)) & needed

    def again(made: T) -> T:
        ridge = 100 * made.ridge
        return attempt(scaled + ridge * eye, scale, ridge, failed(made))

    def failed(made: T) -> Array:
        return possible & jnp.isnan(made.last_pivot()) & (made.ridge < most)

    ridge = _least_ridge(len(scale), h.dtype) / 100
    return jax.lax.while_loop(failed, again, untried._replace(scale=scale, ridge=ridge))
