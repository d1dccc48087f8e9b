r"""The curvature of the leave-one-out log-likelihood of Gaussian kernels, derived by hand.

With u_ij = x_i - x_j, z_ij = A u_ij, and r_ij the share of x_j in p_{-i}(x_i), the derivatives of
log K(z_ij) in log_scale_e and in A_ef, e > f, are

    g_e = A_ee z_e u_e,        g_ef = -z_e u_f
    ∂g_e/∂log_scale_e = -A_ee z_e u_e - A_ee² u_e²,   ∂g_e/∂A_ef = A_ee u_e u_f,
    ∂g_ef/∂A_ef' = -u_f u_f',       all others zero                                       (K.10)

and, since ∂r_ij = r_ij (g_ij - Σ_k r_ik g_ik), the information is

    -∇² ℓ = -Σ_i w_i ( Cov_{r_i}[g] + E_{r_i}[∂g] )                                       (K.11)

the covariance being that over j ≠ i. Where columns share a bandwidth, rows and columns are summed.
Covariances are those about means. Where all kernels are so far away from some x_i that rounding
would show in the shares, these are found again, relative to the largest.

Source: differentiate equation K.4 of `jaxprob.models.kernels.sums`.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.models.kernels.arguments import check_points
from jaxprob.models.kernels.factor import Bandwidth, inverse_factor
from jaxprob.models.kernels.sums import in_blocks, leave_one_out
from jaxprob.numerics.components import inverse_of_lower
from jaxprob.numerics.control import if_any
from jaxprob.numerics.passes import at_a_time
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled

_ELEMENTS = 1 << 18  # of an array, at a time
_ROWS = 512
_FEW = 4  # columns, up to which a matrix product is slower than its sums
_FAR = -30.0  # the logarithm of a sum, from which on down its rounding shows


class _Block(NamedTuple):
    """Points (b, d), their weights (b,) and numbers (b,); what fills a block up has no weight."""

    x: Array
    w: Array
    index: Array


class _Known(NamedTuple):
    """Of each i (b,): log Σ_j w_j k_ij as the sum of two parts, and (b, p) E g."""

    top: Array
    rest: Array
    mean: Array


class _Shape(NamedTuple):
    """What a matrix A looks like: (e, f) its entries below the diagonal, none if it is diagonal."""

    matrix: Array
    below: tuple[np.ndarray, np.ndarray]


def leave_one_out_information(
    bandwidth: Bandwidth, points: Array, weights: Array | None = None
) -> Array:
    """Minus the Hessian of `leave_one_out` with the Gaussian kernel (equation K.11).

    Args:
        bandwidth: Bandwidth.
        points: (n, d) floating, at least two of them with a positive weight.
        weights: (n,) w_j ≥ 0; one each where None.

    Returns:
        (p, p), in the order of `ravel_pytree(bandwidth)`.

    Example:
        >>> bandwidth = Bandwidth(jnp.zeros(1), jnp.zeros(0))
        >>> leave_one_out_information(bandwidth, jnp.array([[0.0], [2.0]])).tolist()
        [[16.0]]
    """
    check_points(points, weights)
    return _by_hand(bandwidth, points, jnp.ones_like(points[:, 0]) if weights is None else weights)


@jax.custom_jvp
@compiled()
def _by_hand(bandwidth: Bandwidth, points: Array, w: Array) -> Array:
    (n, d), largest = points.shape, jnp.max(w)
    order = jnp.argsort(points[:, 0])  # what is done at a time is then near each other
    points, w = jnp.take(points, order, axis=0), jnp.take(w, order) / largest
    factor = inverse_factor(bandwidth, d)
    full = factor.ndim == 2
    e, f = np.tril_indices(d, -1) if full else (np.zeros(0, int), np.zeros(0, int))
    shape = _Shape(factor if full else jnp.diag(factor), (e, f))
    num, rows = d + len(e), min(n, _ROWS)
    all_points = _Block(points, w, jnp.arange(n, dtype=jnp.int32))
    inner = _blocked(all_points, min(n, max(1, at_a_time(_ELEMENTS) // (num * rows))))

    def careful(some: _Block, inner: _Block, matrix: Array) -> _Known:
        return _careful(some, inner, _Shape(matrix, shape.below))

    def of_queries(so_far: tuple, some: tuple[_Block, _Known]) -> tuple[tuple, None]:
        block, quick = some
        again = jnp.any((quick.top < _FAR) & (block.w > 0))
        exact = if_any(again, careful, quick, block, inner, shape.matrix)
        return jax.tree.map(jnp.add, so_far, _moments(block, exact, inner, shape)), None

    start = jnp.zeros((num, num), w.dtype), jnp.zeros((d, d), w.dtype), jnp.zeros(num, w.dtype)
    outer = _blocked((all_points, _quick(points, w, factor, shape)), rows)
    (covariance, spread, mean), _ = jax.lax.scan(of_queries, start, outer)
    if full:
        row, column = np.concatenate([np.arange(d), e]), np.concatenate([np.arange(d), f])
        sign = jnp.concatenate([-jnp.diagonal(shape.matrix), jnp.ones(len(e), w.dtype)])
        product = sign[:, None] * sign[None, :] * spread[column[:, None], column[None, :]]
        curved = jnp.where(row[:, None] == row[None, :], product, 0.0)
    else:
        curved = jnp.diag(mean)
    information = curved + jnp.diag(mean.at[d:].set(0.0)) - covariance
    if bandwidth.log_scale.shape[0] < d:
        information = jnp.sum(information, keepdims=True)
    return information * largest


@_by_hand.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _by_hand(*primals), jax.jvp(_by_autodiff, primals, tangents)[1]


@jax.jit
def _by_autodiff(bandwidth: Bandwidth, points: Array, w: Array) -> Array:
    theta, unravel = ravel_pytree(bandwidth)
    return -jax.hessian(lambda theta: leave_one_out(unravel(theta), points, w))(theta)


def _quick(points: Array, w: Array, factor: Array, shape: _Shape) -> _Known:
    """What the pass of the gradient knows of each i."""
    (n, d), (e, f) = points.shape, shape.below
    log_sums, moments = in_blocks(points, points, w, factor, "gaussian", True, 2)
    steep = jnp.diagonal(shape.matrix)
    if factor.ndim == 1:
        return _Known(log_sums, jnp.zeros_like(w), moments)  # A z u is z² without correlations
    i, j = np.tril_indices(d)
    square = jnp.zeros((n, d, d), w.dtype).at[:, i, j].set(moments).at[:, j, i].set(moments)
    with_u = matmul(square, inverse_of_lower(shape.matrix).T)  # E z uᵀ
    of_scale = jnp.diagonal(with_u, axis1=1, axis2=2) * steep[None, :]
    mean = jnp.concatenate([of_scale, -with_u[:, e, f]], axis=1)
    return _Known(log_sums, jnp.zeros_like(w), mean)


def _careful(some: _Block, inner: _Block, shape: _Shape) -> _Known:
    """The same, differences being taken first, relative to the largest term."""

    def look(so_far: tuple, block: _Block) -> tuple[tuple, None]:
        top, whole, first = so_far
        _, g, log_k = _pairs(some, block, shape)
        new = jnp.maximum(top, jnp.max(log_k, axis=0))
        k = jnp.exp(log_k - jnp.where(new == -jnp.inf, 0.0, new)[None, :])
        keep = jnp.where(new == top, 1.0, jnp.exp(top - new))
        more = jnp.stack([jnp.sum(k * v, axis=0) for v in g])
        return (new, whole * keep + jnp.sum(k, axis=0), first * keep[None, :] + more), None

    num, b, dtype = some.x.shape[1] + len(shape.below[0]), len(some.w), some.x.dtype
    nothing = jnp.full(b, -jnp.inf, dtype), jnp.zeros(b, dtype), jnp.zeros((num, b), dtype)
    (top, whole, first), _ = jax.lax.scan(look, nothing, inner)
    return _Known(top, jnp.log(whole), (first / whole[None, :]).T)


def _moments(
    some: _Block, known: _Known, inner: _Block, shape: _Shape
) -> tuple[Array, Array, Array]:
    """Sums over a block of i: of w_i Cov[g], w_i E u uᵀ (zero without correlations), w_i E g."""
    d, (num, full) = some.x.shape[1], (known.mean.shape[1], len(shape.below[0]) > 0)
    counts, mean = some.w > 0, known.mean.T
    top = jnp.where(counts, known.top, 0.0)
    scale = jnp.where(counts, some.w, 0.0)

    def add(so_far: tuple, block: _Block) -> tuple[tuple, None]:
        u, g, log_k = _pairs(some, block, shape)
        # XLA may round log_k otherwise than where the sums are from: no share is more than all.
        log_share = jnp.minimum(log_k - top[None, :] - known.rest[None, :], 0.0)
        share = jnp.exp(jnp.where(counts[None, :], log_share, -jnp.inf))
        share = share * scale[None, :]
        away = [v - m[None, :] for v, m in zip(g, mean, strict=True)]
        covariance, spread = so_far
        spread = spread + _products(u, share) if full else spread
        return (covariance + _products(away, share), spread), None

    start = jnp.zeros((num, num), some.x.dtype), jnp.zeros((d, d), some.x.dtype)
    (covariance, spread), _ = jax.lax.scan(add, start, inner)
    weighted = jnp.where(counts[None, :], some.w[None, :] * mean, 0.0)
    return covariance, spread, jnp.sum(weighted, axis=1)


def _pairs(some: _Block, block: _Block, shape: _Shape) -> tuple[list[Array], list[Array], Array]:
    """Differences u, derivatives g, and log (w_j k(z)), (b, b) each, with i along the rows."""
    matrix, (e, f), d = shape.matrix, shape.below, some.x.shape[1]
    u = [some.x[None, :, k] - block.x[:, None, k] for k in range(d)]
    used: Callable[[int], range] = (lambda k: range(k + 1)) if len(e) else lambda k: range(k, k + 1)
    z = [reduce(jnp.add, [matrix[k, m] * u[m] for m in used(k)]) for k in range(d)]
    g = [matrix[k, k] * z[k] * u[k] for k in range(d)]
    g += [-z[k] * u[m] for k, m in zip(e, f, strict=True)]
    half = reduce(jnp.add, [v * v for v in z]) / 2
    own = block.index[:, None] == some.index[None, :]
    return u, g, jnp.where(own, -jnp.inf, jnp.log(block.w)[:, None] - half)


def _products(some: list[Array], share: Array) -> Array:
    """(k, k) the sums of shares times products, of arrays (b, b)."""
    num = len(some)
    if num > _FEW:
        rows = jnp.stack(some).reshape(num, -1)
        return matmul(rows * share.reshape(1, -1), rows.T)
    i, j = np.tril_indices(num)
    sums = [jnp.sum(share * some[a] * some[b], axis=0) for a, b in zip(i, j, strict=True)]
    sums = jnp.sum(jnp.stack(sums), axis=1)
    return jnp.zeros((num, num), share.dtype).at[i, j].set(sums).at[j, i].set(sums)


def _blocked(tree: Any, rows: int) -> Any:
    """Blocks of so many rows; what fills the last one up is zero."""

    def padded(a: Array) -> Array:
        width = [(0, -len(a) % rows)] + [(0, 0)] * (a.ndim - 1)
        return jnp.pad(a, width).reshape(-1, rows, *a.shape[1:])

    return jax.tree.map(padded, tree)
