r"""Log-densities of kernel estimates, their gradients, and how well they predict each other.

With points x_j of weights w_j ≥ 0, W = Σ_j w_j, and a kernel K (`jaxprob.models.kernels.kernel`),

    p(x) = |det A| / W · Σ_j w_j K(A (x - x_j))                                            (K.1)
    ∇ log p(x) = 2 Aᵀ Σ_j r_j φ'(s_j) z_j,    z_j = A (x - x_j),  s_j = ‖z_j‖²,  φ = log K (K.2)
    r_j = w_j K(z_j) / Σ_l w_l K(z_l)

A is lower triangular with exp(-log_scale) on its diagonal and `lower` below, row by row, as that
of a `gaussian_mixture`; or diagonal. What one point says about the others is no part of the
leave-one-out log-likelihood, which has a maximum in the bandwidth for that reason:

    ℓ(A) = Σ_i w_i log p_{-i}(x_i),    p_{-i}(x) = |det A| / (W - w_i) Σ_{j≠i} w_j K(A (x - x_j))
                                                                                           (K.3)
For the Gaussian kernel, with r_ij the shares of the points in p_{-i}(x_i), and z_ij = A (x_i - x_j)

    M = Σ_i w_i Σ_{j≠i} r_ij z_ij z_ijᵀ
    ∂ℓ/∂log_scale_e = (M A⁻ᵀ)_ee A_ee - W,        ∂ℓ/∂A_ef = -(M A⁻ᵀ)_ef,  e > f           (K.4)

a bandwidth that columns share having the sum of their derivatives.

The sums are those of all pairs, in blocks of queries and points whose size does not depend on how
many there are. In a block first comes what is fast: coordinates z relative to the queries' centre;
plain sums; distances as matrix products where float64 has digits to spare; moments about the
centre, moved to each query. Where rounding would show, as the queries are far from each other in
units of the bandwidth, or where all terms of a query underflow, the block is done again query by
query, with differences taken first and all terms relative to the largest.

Source: Silverman, Density Estimation for Statistics and Data Analysis, 1986, sections 3.4.4 and
4.2; Duin, IEEE Transactions on Computers C-25, 1976; Habbema, Hermans and van den Broek, COMPSTAT
1974 (leave-one-out).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.models.kernels.arguments import check_factor, check_points
from jaxprob.models.kernels.blocks import (
    CAREFUL,
    Block,
    Kind,
    blocked,
    even,
    num_sums,
    numbers,
    padded,
    sizes,
)
from jaxprob.models.kernels.distances import coordinates, exact_distances, pairwise_products
from jaxprob.models.kernels.factor import Bandwidth, inverse_factor
from jaxprob.models.kernels.kernel import (
    COMPACT,
    check_kernel,
    log_kernel_slope,
    log_normaliser,
    log_shape,
    shape,
    shape_slope,
)
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import inverse_of_lower
from jaxprob.numerics.control import if_any
from jaxprob.numerics.nearest import squared_distances
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled

_UNROLLED = 8  # columns, up to which a squared distance is written out
_PRODUCTS = 3  # columns, from which on distances as matrix products are faster
_LARGE = 80.0  # whose exponential is finite
_LOSS = {"float64": 1e-11, "float32": 1e-4}  # that rounding may make of a logarithm


def log_density(
    queries: Array,
    points: Array,
    factor: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
) -> Array:
    """The log-density log p of a kernel estimate (equation K.1).

    Args:
        queries: (m, d) floating, where.
        points: (n, d).
        factor: A, (d, d) lower triangular with a positive diagonal, or (d,) its diagonal.
        weights: (n,) w_j ≥ 0; one each where None.
        kernel: one of `KERNELS`.

    Returns:
        (m,), nats; -∞ where no point reaches with a compact kernel. Derivatives of any order in all
        arrays but those that a kink forbids.

    Example:
        >>> x = jnp.array([[0.0], [2.0]])
        >>> round(float(log_density(jnp.array([[1.0]]), x, jnp.ones(1))[0]), 4)
        -1.4189
    """
    _check(queries, points, factor, weights, kernel)
    return _log_density(queries, points, factor, weights, kernel=kernel)


@compiled("kernel")
def _log_density(
    queries: Array, points: Array, factor: Array, weights: Array | None, *, kernel: str
) -> Array:
    w = _or_ones(weights, points)
    head = _log_det(factor) - log_normaliser(kernel, points.shape[1]) - jnp.log(jnp.sum(w))
    return _log_sums(queries, points, w, factor, kernel, False) + head


def grad_log_density(
    queries: Array,
    points: Array,
    factor: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
) -> Array:
    """The gradient of the log-density in the query, derived by hand (equation K.2).

    Args:
        queries: (m, d) floating, where.
        points: (n, d).
        factor: A, (d, d) lower triangular with a positive diagonal, or (d,) its diagonal.
        weights: (n,) w_j ≥ 0; one each where None.
        kernel: one of `KERNELS`.

    Returns:
        (m, d), nats per unit of each column; zero where the density is zero all around.

    Example:
        >>> grad_log_density(jnp.array([[1.5]]), jnp.array([[0.0]]), jnp.ones(1)).tolist()
        [[-1.5]]
    """
    _check(queries, points, factor, weights, kernel)
    return _grad_log_density(queries, points, factor, weights, kernel=kernel)


@compiled("kernel")
def _grad_log_density(
    queries: Array, points: Array, factor: Array, weights: Array | None, *, kernel: str
) -> Array:
    w = _or_ones(weights, points)
    pull = in_blocks(queries, points, w, factor, kernel, False, 1)[1]
    pull = pull * factor[None, :] if factor.ndim == 1 else matmul(pull, factor)
    return 2 * pull


def leave_one_out(
    bandwidth: Bandwidth,
    points: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
    images: Sequence[Array] = (),
) -> Array:
    """The leave-one-out log-likelihood (equation K.3).

    Args:
        bandwidth: Bandwidth.
        points: (n, d) floating, at least two of them with a positive weight.
        weights: (n,) w_j ≥ 0; one each where None.
        kernel: one of `KERNELS`.
        images: each (n, d), where the points are in mirrors: p_{-i} is the sum over all of these.

    Returns:
        (), nats; -∞ where no other point reaches some point of positive weight.

    Example:
        >>> bandwidth = Bandwidth(jnp.zeros(1), jnp.zeros(0))
        >>> round(float(leave_one_out(bandwidth, jnp.array([[0.0], [0.0]]))), 4)
        -1.8379
    """
    check_points(points, weights)
    check_kernel(kernel)
    return _leave_one_out(bandwidth, points, weights, tuple(images), kernel=kernel)


@compiled("kernel")
def _leave_one_out(
    bandwidth: Bandwidth, points: Array, weights: Array | None, images: tuple, *, kernel: str
) -> Array:
    w, factor = _or_ones(weights, points), inverse_factor(bandwidth, points.shape[1])
    every = [_log_sums(seen, points, w, factor, kernel, True) for seen in (points, *images)]
    log_sums = logsumexp(jnp.stack(every, axis=1)) if images else every[0]
    return _predicted(log_sums, w, factor, kernel)


def leave_one_out_and_grad(
    bandwidth: Bandwidth, points: Array, weights: Array | None = None
) -> tuple[Array, Bandwidth]:
    """`leave_one_out` of the Gaussian kernel with its gradient, from one pass (equation K.4).

    Args:
        bandwidth: Bandwidth.
        points: (n, d) floating, at least two of them with a positive weight.
        weights: (n,) w_j ≥ 0; one each where None.

    Returns:
        () nats, and Bandwidth, nats per unit of each entry.

    Example:
        >>> bandwidth = Bandwidth(jnp.zeros(1), jnp.zeros(0))
        >>> value, grad = leave_one_out_and_grad(bandwidth, jnp.array([[0.0], [2.0]]))
        >>> round(float(value), 4), grad.log_scale.tolist()
        (-5.8379, [6.0])
    """
    check_points(points, weights)
    return _by_hand(bandwidth, points, _or_ones(weights, points))


@jax.custom_jvp
@compiled()
def _by_hand(bandwidth: Bandwidth, points: Array, w: Array) -> tuple[Array, Bandwidth]:
    d = points.shape[1]
    order = jnp.argsort(points[:, 0])  # what is done at a time is then near its centre
    points, w = (jnp.take(a, order, axis=0) for a in (points, w))
    factor = inverse_factor(bandwidth, d)
    log_sums, moments = in_blocks(points, points, w, factor, "gaussian", True, 2)
    counts = w[:, None] > 0
    moments = jnp.sum(jnp.where(counts, w[:, None] * moments, 0.0), axis=0)
    diagonal, below = moments, bandwidth.lower
    if factor.ndim == 2:
        i, j = np.tril_indices(d)
        square = jnp.zeros((d, d), w.dtype).at[i, j].set(moments).at[j, i].set(moments)
        product = matmul(square, inverse_of_lower(factor).T)
        diagonal = jnp.diagonal(product) * jnp.diagonal(factor)
        below = -product[np.tril_indices(d, -1)]
    of_scale = diagonal - jnp.sum(w)
    if bandwidth.log_scale.shape[0] < d:
        of_scale = jnp.sum(of_scale, keepdims=True)
    return _predicted(log_sums, w, factor, "gaussian"), Bandwidth(of_scale, below)


@_by_hand.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    return _by_hand(*primals), jax.jvp(jax.value_and_grad(leave_one_out), primals, tangents)[1]


def _predicted(log_sums: Array, w: Array, factor: Array, kernel: str) -> Array:
    """Equation K.3 from log Σ_{j≠i} w_j k(s_ij)."""
    head = _log_det(factor) - log_normaliser(kernel, factor.shape[0])
    each = log_sums - jnp.log(without_each(w)) + head
    return jnp.sum(jnp.where(w > 0, w * jnp.where(w > 0, each, 0.0), 0.0))


def without_each(w: Array) -> Array:
    """The sums (n,) of all weights but one, also where that one is nearly all.

    Args:
        w: (n,) ≥ 0.

    Returns:
        (n,).

    Example:
        >>> without_each(jnp.array([8.0, 1.0, 2.0])).tolist()
        [3.0, 10.0, 9.0]
    """
    nothing = jnp.zeros(1, w.dtype)
    before = jnp.concatenate([nothing, jnp.cumsum(w)[:-1]])
    after = jnp.concatenate([jnp.cumsum(w[::-1])[-2::-1], nothing])
    return before + after


def _log_det(factor: Array) -> Array:
    return jnp.sum(jnp.log(factor if factor.ndim == 1 else jnp.diagonal(factor)))


def _check(queries: Any, points: Any, factor: Any, weights: Any, kernel: Any) -> None:
    check_points(points, weights, queries)
    check_factor(factor, points.shape[1])
    check_kernel(kernel)


def _or_ones(weights: Array | None, points: Array) -> Array:
    return jnp.ones(points.shape[0], points.dtype) if weights is None else weights


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _log_sums(
    queries: Array, points: Array, w: Array, factor: Array, kernel: str, own: bool
) -> Array:
    """The sums log Σ_j w_j k(s_ij), without j = i where `own`."""
    return in_blocks(queries, points, w, factor, kernel, own, 0)[0]


@_log_sums.defjvp
def _(kernel: str, own: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    value = _log_sums(*primals, kernel, own)
    relative = partial(_relative_sums, value, kernel=kernel, own=own)
    whole, change = jax.jvp(relative, primals, tangents)
    empty = value == -jnp.inf  # and stays so
    return value, jnp.where(empty, 0.0, change / jnp.where(empty, 1.0, whole))


@compiled("kernel", "own")
def _relative_sums(
    value: Array, queries: Array, points: Array, w: Array, factor: Array, *, kernel: str, own: bool
) -> Array:
    """The sums over exp(value), in operations that JAX differentiates without keeping pairs."""
    d = points.shape[1]
    rows, columns = sizes(len(queries), len(points), 1 if d <= _UNROLLED else d)
    blocks = blocked(Block(points, w, numbers(len(points))), columns)

    @jax.checkpoint
    def of_pairs(q: Array, index: Array, value: Array, factor: Array, block: Block) -> Array:
        if d <= _UNROLLED:
            s = exact_distances(block.x, q, factor)
        else:
            away = q[None] - block.x[:, None]
            z = away * factor[None, None] if factor.ndim == 1 else matmul(away, factor.T)
            s = jnp.sum(z**2, axis=-1)
        value = jnp.where(value == -jnp.inf, 0.0, value)
        if kernel in COMPACT:
            k = shape(s, kernel) * jnp.exp(-value)[None, :]
        else:
            log_k = log_shape(s, kernel) - value[None, :]
            lost = (block.w[:, None] == 0) & (log_k > _LARGE)  # ∞ times zero is no zero
            lost |= own & (block.index[:, None] == index[None, :])
            k = jnp.exp(jnp.where(lost, -jnp.inf, log_k))
        if own:
            k = jnp.where(block.index[:, None] == index[None, :], 0.0, k)
        return jnp.sum(k * block.w[:, None], axis=0)

    @jax.checkpoint
    def of_queries(some: tuple[Array, Array, Array], factor: Array, blocks: Block) -> Array:
        def step(so_far: Array, block: Block) -> tuple[Array, None]:
            return so_far + of_pairs(*some, factor, block), None

        return jax.lax.scan(step, jnp.zeros_like(some[2]), blocks)[0]

    some = tuple(padded(a, rows) for a in (queries, numbers(len(queries)), value))
    return jax.lax.map(lambda s: of_queries(s, factor, blocks), some).ravel()[: len(queries)]


@compiled("kernel", "own", "order")
def in_blocks(
    queries: Array, points: Array, w: Array, factor: Array, kernel: str, own: bool, order: int
) -> tuple[Array, Array]:
    """The sums (m,) log Σ_j w_j k(s_ij), and moments (m, .) of z_ij relative to these sums.

    Moments of order 0 are none, of order 1 (m, d) Σ_j w_j k'(s_ij) z_ij / Σ_j w_j k(s_ij), of order
    2 (m, d(d+1)/2) Σ_j w_j k(s_ij) z_ij z_ijᵀ / Σ_j w_j k(s_ij), or (m, d) its diagonal if A has
    nothing else.
    """
    m, (n, d) = len(queries), points.shape
    rows, columns = sizes(m, n, 1)
    heaviest = jnp.max(w)
    blocks = blocked(Block(points, w / heaviest, numbers(n)), columns)
    kind = Kind(kernel, own, order, factor.ndim == 2)
    eps, tiny = jnp.finfo(points.dtype).eps, jnp.finfo(points.dtype).tiny
    products = d >= _PRODUCTS and points.dtype == jnp.float64
    products &= kernel in ("gaussian", "epanechnikov")  # the root of a rounding error is large
    exact = kernel == "tophat" and d <= _UNROLLED  # rounding must not decide what is at the edge

    def of_queries(some: tuple[Array, Array]) -> tuple[Array, Array]:
        q, index = some
        seen = jnp.all(jnp.isfinite(q), axis=1)
        center = jnp.sum(jnp.where(seen[:, None], q, 0.0), axis=0) / jnp.maximum(jnp.sum(seen), 1)
        zq = coordinates(q, center, factor)
        if order == 1 and kernel == "exponential":  # its slope is infinite at a point
            return _careful(q, index, blocks, factor, kind=kind)

        def step(so_far: Array, block: Block) -> tuple[Array, None]:
            zx = coordinates(block.x, center, factor)
            if exact:
                s = exact_distances(block.x, q, factor)
            else:
                s = pairwise_products(zx, zq) if products else squared_distances(zx, zq)
            return so_far + _fast(s, zx, index, block, kind), None

        start = jnp.zeros((num_sums(kind, d), len(q)), q.dtype)
        sums = jax.lax.scan(step, start, blocks)[0]
        quick = _about_queries(sums, zq, kind)
        if exact:
            return quick
        far = jnp.max(jnp.where(seen, jnp.sum(zq**2, axis=0), 0.0))
        loss = eps * (far if products or order == 2 else 4 * jnp.sqrt(far))
        again = loss > _LOSS[q.dtype.name]
        if kernel not in COMPACT:
            again |= jnp.any(sums[0] < 8 * n * (tiny / eps))
        return if_any(again, partial(_careful, kind=kind), quick, q, index, blocks, factor)

    log_sums, moments = jax.lax.map(of_queries, (padded(queries, rows), padded(numbers(m), rows)))
    moments = moments.reshape(log_sums.size, moments.shape[-1])
    return log_sums.ravel()[:m] + jnp.log(heaviest), moments[:m]


def _fast(s: Array, zx: Array, index: Array, block: Block, kind: Kind) -> Array:
    """Sums (., b) over a block of points with columns zx (d, b), at squared distances (b, b)."""
    k = shape(s, kind.kernel)
    if kind.own:
        k = jnp.where(block.index[:, None] == index[None, :], 0.0, k)
    if kind.order == 2:
        i, j = kind.pairs(len(zx))
        features = jnp.concatenate([jnp.ones_like(zx[:1]), zx, zx[i] * zx[j]])
        return matmul(features * block.w[None, :], k)
    whole = jnp.sum(k * block.w[:, None], axis=0)[None]
    if kind.order == 0:
        return whole
    features = jnp.concatenate([jnp.ones_like(zx[:1]), zx])
    return jnp.concatenate([whole, matmul(features * block.w[None], shape_slope(s, kind.kernel))])


def _about_queries(sums: Array, zq: Array, kind: Kind) -> tuple[Array, Array]:
    """What `in_blocks` wants, (b,) and (b, .), from sums about the centre."""
    d, whole = len(zq), sums[0]
    if kind.order == 0:
        return jnp.log(whole), jnp.zeros((len(whole), 0), whole.dtype)
    if kind.order == 1:
        moved = zq * sums[1][None, :] - sums[2:]
    else:
        first, second = sums[1 : d + 1], sums[d + 1 :]
        i, j = kind.pairs(d)
        away = zq * whole[None, :] - first
        moved = second - first[i] * zq[j] + zq[i] * away[j]
    return jnp.log(whole), (moved / jnp.where(whole == 0, 1.0, whole)[None, :]).T


def _careful(
    q: Array, index: Array, blocks: Block, factor: Array, *, kind: Kind
) -> tuple[Array, Array]:
    """What `in_blocks` wants, (b,) and (b, .), one query at a time."""
    d = q.shape[1]
    flat = Block(blocks.x.reshape(-1, d), blocks.w.ravel(), blocks.index.ravel())
    blocks = blocked(flat, even(len(flat.w), max(1, CAREFUL // d)))
    i, j = kind.pairs(d)

    def of_query(one: tuple[Array, Array]) -> tuple[Array, Array]:
        def step(so_far: tuple, block: Block) -> tuple[tuple, None]:
            top, whole, moments = so_far
            away = one[0][None, :] - block.x
            z = away * factor[None, :] if factor.ndim == 1 else matmul(away, factor.T)
            s = jnp.sum(z**2, axis=1)
            counts = (block.w > 0) & (block.index != one[1]) if kind.own else block.w > 0
            w = jnp.where(counts, block.w, 0.0)
            if kind.kernel in COMPACT:
                new, k, v = top, shape(s, kind.kernel), shape_slope(s, kind.kernel)
            else:
                log_k = jnp.where(counts, log_shape(s, kind.kernel), -jnp.inf)
                new = jnp.maximum(top, jnp.max(log_k))
                k = jnp.exp(log_k - jnp.where(new == -jnp.inf, 0.0, new))
                v = k * log_kernel_slope(s, kind.kernel)
            keep = jnp.where(new == top, 1.0, jnp.exp(top - new))
            whole = whole * keep + jnp.sum(w * k)
            if kind.order == 1:
                moments = moments * keep + jnp.sum((w * v)[:, None] * z, axis=0)
            elif kind.order == 2:
                weighted = z * (w * k)[:, None]
                more = matmul(weighted.T, z)[i, j] if kind.full else jnp.sum(weighted * z, axis=0)
                moments = moments * keep + more
            return (new, whole, moments), None

        top = jnp.full((), 0.0 if kind.kernel in COMPACT else -jnp.inf, q.dtype)
        size = (0, d, len(i))[kind.order]
        start = top, jnp.zeros((), q.dtype), jnp.zeros(size, q.dtype)
        (top, whole, moments), _ = jax.lax.scan(step, start, blocks)
        return jnp.log(whole) + top, moments / jnp.where(whole == 0, 1.0, whole)

    return jax.lax.map(of_query, (q, index))
