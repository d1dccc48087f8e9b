"""What mixtures of normal densities need of n examples and K components.

Both functions first do what is fast, for which the examples are centred once for all components.
Rounding then grows with how far a component is from the centre, in units of its own width; where
that would show, they do it again with the examples centred for each component.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.numerics.control import if_any
from jaxprob.numerics.passes import total
from jaxprob.numerics.products import einsum, matmul

_UNROLLED = 8  # columns, up to which triangular products are written out
_LOSS = {"float64": 1e-10, "float32": 1e-4}  # relative, that rounding may make of a result


@jax.custom_jvp
def mahalanobis(x: Array, means: Array, factors: Array) -> Array:
    """The squared distances ‖A_k (x_i - μ_k)‖² of examples from components.

    Args:
        x: (n, d) floating.
        means: (K, d) μ.
        factors: (K, d, d) lower triangular A, with AᵀA the inverse of a covariance; or (K, d) its
            diagonal.

    Returns:
        (K, n).

    Example:
        >>> mahalanobis(jnp.ones((1, 2)), jnp.zeros((1, 2)), 2 * jnp.ones((1, 2))).tolist()
        [[8.0]]
    """
    d = x.shape[1]
    if factors.ndim == 2:
        away = x.T[None] - means[:, :, None]
        return jnp.sum((away * factors[:, :, None]) ** 2, axis=1)
    if d <= _UNROLLED:
        away = [x[None, :, j] - means[:, j, None] for j in range(d)]
        rows = (sum(away[j] * factors[:, e, j, None] for j in range(e + 1)) for e in range(d))
        return sum(z**2 for z in rows)  # pyright: ignore[reportReturnType]
    center = jnp.mean(x, axis=0)
    far = jnp.max(jnp.sqrt(jnp.sum((x - center[None, :]) ** 2, axis=1)))
    steep = jnp.max(jnp.sqrt(jnp.sum(factors**2, axis=(1, 2))))
    lossy = ~(jnp.finfo(x.dtype).eps * far * steep <= _LOSS[x.dtype.name])

    def each(x: Array, means: Array, factors: Array) -> Array:
        def one(of: tuple[Array, Array]) -> Array:
            mean, factor = of
            return jnp.sum(matmul(x - mean[None, :], factor.T) ** 2, axis=1)

        return jax.lax.map(one, (means, factors))

    def together() -> Array:
        k = len(means)
        shift = jnp.sum(factors * (means - center[None, :])[:, None, :], axis=2)
        z = matmul(factors.reshape(k * d, d), (x - center[None, :]).T).reshape(k, d, -1)
        return jnp.sum((z - shift[:, :, None]) ** 2, axis=1)

    return if_any(lossy, each, together(), x, means, factors)


@mahalanobis.defjvp
def _mahalanobis_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, means, factors = primals
    dx, dmeans, dfactors = tangents
    away, daway = x[None] - means[:, None], dx[None] - dmeans[:, None]  # (K, n, d)
    if factors.ndim == 2:
        z = away * factors[:, None]
        dz = daway * factors[:, None] + away * dfactors[:, None]
    else:
        z = einsum("knd,ked->kne", away, factors)
        dz = einsum("knd,ked->kne", daway, factors)
        dz += einsum("knd,ked->kne", away, dfactors)
    return mahalanobis(x, means, factors), 2 * jnp.sum(z * dz, axis=-1)


@jax.custom_jvp
def shares(joint: Array) -> tuple[Array, Array]:
    """To which component each example belongs, and what they add up to.

    Args:
        joint: (K, n) log π_k p_k(x_i).

    Returns:
        (K, n) r_ik = π_k p_k(x_i) / p(x_i), and (n,) log p(x_i).

    Example:
        >>> r, log_p = shares(jnp.log(jnp.array([[0.25], [0.75]])))
        >>> [round(float(p), 4) for p in r[:, 0]], abs(round(float(log_p[0]), 4))
        ([0.25, 0.75], 0.0)
    """
    found = _shares(joint)
    # Where joint is so large that its rounding is more than a nat, a compiler that computes it once
    # for the maximum and once more to subtract that from may find all of it far from the maximum.
    lost = ~jnp.all(jnp.abs(found[1]) < jnp.inf)
    return if_any(lost, _shares, found, joint)


def _shares(joint: Array) -> tuple[Array, Array]:
    top = jnp.max(joint, axis=0)
    top = jnp.where(jnp.abs(top) < jnp.inf, top, 0.0)
    part = jnp.exp(joint - top[None, :])
    whole = jnp.sum(part, axis=0)
    return part * (1 / whole)[None, :], top + jnp.log(whole)


@shares.defjvp
def _shares_jvp(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (joint,), (djoint,) = primals, tangents
    r, log_p = shares(joint)
    mine = jnp.where(r > 0, r * djoint, 0.0)  # the derivative of -∞ may be anything
    dlog_p = jnp.sum(mine, axis=0)
    return (r, log_p), (mine - r * dlog_p[None, :], dlog_p)


@jax.custom_jvp
def outer_moments(member: Array, x: Array, means: Array) -> tuple[Array, Array]:
    """First and second moments of examples about each component's mean.

    Args:
        member: (K, n) how much of each example belongs to each component.
        x: (n, d) floating.
        means: (K, d) μ.

    Returns:
        (K, d) Σ_i r_ik (x_i - μ_k), and (K, d, d) Σ_i r_ik (x_i - μ_k) (x_i - μ_k)ᵀ.

    Example:
        >>> first, second = outer_moments(jnp.ones((1, 2)), jnp.array([[1.0], [3.0]]),
        ...                               jnp.array([[1.0]]))
        >>> first.tolist(), second.tolist()
        ([[2.0]], [[[4.0]]])
    """
    d = x.shape[1]
    i, j = np.tril_indices(d)
    center = jnp.mean(x, axis=0)  # that of all lanes, whose columns are the same then
    away = x - center[None, :]
    columns = jnp.concatenate([jnp.ones_like(x[:, :1]), away, away[:, i] * away[:, j]], axis=1)
    sums = matmul(member, columns)
    delta = means - center[None, :]
    count, total, pairs = sums[:, 0, None], sums[:, 1 : d + 1], sums[:, d + 1 :]
    first = total - count * delta
    crossed = total[:, i] * delta[:, j] + delta[:, i] * first[:, j]
    lower = pairs - crossed
    second = jnp.zeros((len(means), d, d), x.dtype).at[:, i, j].set(lower).at[:, j, i].set(lower)
    raw, left = pairs[:, i == j], lower[:, i == j]
    lossy = jnp.any(jnp.finfo(x.dtype).eps * raw > _LOSS[x.dtype.name] * left)

    def each(member: Array, x: Array, means: Array) -> tuple[Array, Array]:
        def one(of: tuple[Array, Array]) -> tuple[Array, Array]:
            share, mean = of
            own = x - mean[None, :]
            return matmul(share, own), matmul((own * share[:, None]).T, own)

        return jax.lax.map(one, (member, means))

    return if_any(lossy, each, (first, second), member, x, means)


@outer_moments.defjvp
def _outer_moments_jvp(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    member, x, means = primals
    dmember, dx, dmeans = tangents
    away, daway = x[None] - means[:, None], dx[None] - dmeans[:, None]  # (K, n, d)
    dfirst = einsum("kn,knd->kd", dmember, away) + einsum("kn,knd->kd", member, daway)
    half = einsum("kn,knd,kne->kde", member, daway, away)
    dsecond = einsum("kn,knd,kne->kde", dmember, away, away) + half + half.mT
    return outer_moments(member, x, means), (dfirst, dsecond)


@jax.custom_jvp
def squared_moments(member: Array, x: Array, means: Array) -> tuple[Array, Array]:
    """First moments and sums of squares of examples about each component's mean.

    Args:
        member: (K, n) how much of each example belongs to each component.
        x: (n, d) floating.
        means: (K, d) μ.

    Returns:
        (K, d) Σ_i r_ik (x_i - μ_k), and (K, d) Σ_i r_ik (x_i - μ_k)², entry by entry.

    Example:
        >>> first, second = squared_moments(jnp.ones((1, 2)), jnp.array([[1.0], [3.0]]),
        ...                                 jnp.array([[1.0]]))
        >>> first.tolist(), second.tolist()
        ([[2.0]], [[4.0]])
    """
    d, center = x.shape[1], jnp.mean(x, axis=0)
    away, delta = x - center[None, :], means - center[None, :]
    sums = matmul(member, jnp.concatenate([jnp.ones_like(x[:, :1]), away, away**2], axis=1))
    count, total, raw = sums[:, 0, None], sums[:, 1 : d + 1], sums[:, d + 1 :]
    first = total - count * delta
    second = raw - (total + first) * delta
    lossy = jnp.any(jnp.finfo(x.dtype).eps * raw > _LOSS[x.dtype.name] * second)

    def each(member: Array, x: Array, means: Array) -> tuple[Array, Array]:
        def one(of: tuple[Array, Array]) -> tuple[Array, Array]:
            share, mean = of
            own = x - mean[None, :]
            return matmul(share, own), matmul(share, own**2)

        return jax.lax.map(one, (member, means))

    return if_any(lossy, each, (first, second), member, x, means)


@squared_moments.defjvp
def _squared_moments_jvp(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    member, x, means = primals
    dmember, dx, dmeans = tangents
    away, daway = x[None] - means[:, None], dx[None] - dmeans[:, None]  # (K, n, d)
    dfirst = einsum("kn,knd->kd", dmember, away) + einsum("kn,knd->kd", member, daway)
    dsecond = einsum("kn,knd->kd", dmember, away**2)
    dsecond += 2 * einsum("kn,knd->kd", member, away * daway)
    return squared_moments(member, x, means), (dfirst, dsecond)


def overall_moments(
    x: Array,
    weights: Array | None,
    moments: Callable[[Array, Array, Array], tuple[Array, Array]] = outer_moments,
) -> tuple[Array, Array, Array]:
    """The total weight of examples, their mean, and their second moment about it.

    Args:
        x: (n, d) floating.
        weights: (n,) c; one each where None.
        moments: `outer_moments`, or `squared_moments`.

    Returns:
        (), (d,), and (d, d) or (d,).

    Example:
        >>> weight, mean, second = overall_moments(jnp.array([[1.0], [3.0]]), None)
        >>> float(weight), mean.tolist(), second.tolist()
        (2.0, [2.0], [[2.0]])
    """
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    weight = jnp.sum(c)
    count = jnp.where(weight > 0, weight, 1.0)
    center = jnp.mean(x, axis=0)
    near = center + matmul(c, x - center[None, :]) / count  # with the rounding of a long sum
    first, second = (a[0] for a in moments(c[None, :], x, near[None, :]))
    shift = first / count
    lost = first * shift if second.ndim == 1 else first[:, None] * shift[None, :]
    return weight, near + shift, second - lost


def over_blocks(
    fn: Callable[[Array, Array], Any], x: Array, weights: Array | None, block: int
) -> Any:
    """The sum of a function of examples and weights over blocks that stay in the cache.

    Args:
        fn: (block of examples, their weights) -> a tree of arrays, which add up over examples.
        x: (n, d) floating.
        weights: (n,) c; one each where None.
        block: how many examples at a time; up to twice as many are looked at at once.

    Returns:
        The tree.

    Example:
        >>> float(over_blocks(lambda x, c: jnp.sum(x[:, 0] * c), jnp.ones((7, 1)), None, 3))
        7.0
    """
    n, d = x.shape
    c = jnp.ones(n, x.dtype) if weights is None else weights
    if n <= 2 * block:
        return fn(x, c)
    whole = n - n % block

    def step(so_far: Any, some: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, fn(*some)), None

    last = fn(x[whole:], c[whole:]) if whole < n else None
    blocks = x[:whole].reshape(-1, block, d), c[:whole].reshape(-1, block)
    shapes = jax.eval_shape(fn, blocks[0][0], blocks[1][0])
    start = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), shapes) if last is None else last
    return jax.lax.scan(step, start, blocks)[0]


def weighted_total(c: Array, values: Array) -> Array:
    """Σ_i c_i v_i, whatever v is where c is zero.

    Args:
        c: (n,) weights.
        values: (n,) v.

    Returns:
        ().

    Example:
        >>> float(weighted_total(jnp.array([2.0, 0.0]), jnp.array([1.0, jnp.nan])))
        2.0
    """
    return total(jnp.where(c > 0, c * values, 0.0))


def conditional_moments(
    x: Array, means: Array, factors: Array
) -> tuple[Array, Array, Array, Array]:
    """What the observed entries of examples say about all of them, under each component.

    By sweeping the inverse covariance on the entries that are missing.

    Args:
        x: (n, d) floating, NaN where an entry is missing.
        means: (K, d) μ.
        factors: (K, d, d) lower triangular A, with AᵀA the inverse of a covariance.

    Returns:
        (K, n) half the log-determinant of the inverse covariance of the observed entries; (K, n)
        their squared distance; (K, d, n) how far the expected entries are from the mean;
        (K, d, d, n) the covariance of the missing entries, zero elsewhere.

    Example:
        >>> x = jnp.array([[3.0, jnp.nan]])
        >>> factors = jnp.array([[[1.0, 0.0], [-0.5, 1.0]]])
        >>> *_, away, spread = conditional_moments(x, jnp.zeros((1, 2)), factors)
        >>> away[0, :, 0].tolist(), spread[0, :, :, 0].tolist()
        ([3.0, 1.5], [[0.0, 0.0], [0.0, 1.0]])
    """
    d = x.shape[1]
    unseen = jnp.isnan(x).T[None]  # (1, d, n)
    away = jnp.where(unseen, 0.0, x.T[None] - means[:, :, None])
    diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
    half_log_det = jnp.sum(jnp.log(diagonal), axis=1)[:, None]
    swept = jnp.broadcast_to(matmul(factors.mT, factors)[..., None], (len(means), d, d, len(x)))
    for j in range(d):
        pivot, row, column = swept[:, j, j], swept[:, j], swept[:, :, j]
        new = swept - column[:, :, None] * row[:, None] / pivot[:, None, None]
        new = new.at[:, j].set(row / pivot[:, None])
        new = new.at[:, :, j].set(-column / pivot[:, None]).at[:, j, j].set(1 / pivot)
        missing = unseen[:, j]
        swept = jnp.where(missing[:, None, None], new, swept)
        half_log_det = half_log_det - jnp.where(missing, jnp.log(pivot) / 2, 0.0)
    product = jnp.sum(swept * away[:, None], axis=2)  # (K, d, n)
    squares = jnp.sum(away * jnp.where(unseen, 0.0, product), axis=1)
    away = jnp.where(unseen, -product, away)
    both = unseen[:, :, None] & unseen[:, None]
    return half_log_det, squares, away, jnp.where(both, swept, 0.0)


def moved(points: Array, step: Array, noise: Array) -> Array:
    """Points after a step, at least to the next number where rounding would leave them in place.

    Far from zero the steps of a slow run are smaller than the spacing of numbers: it would stand
    still, though many of them together lead far.

    Args:
        points: of any shape, floating.
        step: of the same shape.
        noise: of the same shape, what rounding makes of a step of zero.

    Returns:
        Of the same shape.

    Example:
        >>> points = jnp.array([1e4, 1e4], "float32")
        >>> (moved(points, jnp.array([1e-4, 1e-9]), jnp.array([1e-6, 1e-6])) > points).tolist()
        [True, False]
    """
    new = points + step
    towards = jnp.where(step > 0, jnp.inf, -jnp.inf).astype(points.dtype)
    stuck = (new == points) & (jnp.abs(step) > noise)
    spacing = jnp.nextafter(*jax.lax.stop_gradient((points, towards))) - points
    return jnp.where(stuck, points + jax.lax.stop_gradient(spacing), new)


@partial(jax.jit, inline=True)
def inverse_factor(covariance: Array) -> Array:
    """Lower triangular A with AᵀA the inverse of a positive definite matrix.

    In plain operations, since the matrices are many and small.

    Args:
        covariance: (..., d, d) symmetric.

    Returns:
        (..., d, d); NaN where it is not positive definite.

    Example:
        >>> inverse_factor(jnp.array([[4.0]])).tolist()
        [[0.5]]
    """
    d = covariance.shape[-1]
    index = jnp.arange(d)

    def column(j: Array, lower: Array) -> Array:
        own = jax.lax.dynamic_index_in_dim(lower, j, -2, keepdims=False)
        rest = jax.lax.dynamic_index_in_dim(covariance, j, -1, keepdims=False)
        rest = rest - jnp.sum(lower * own[..., None, :], axis=-1)
        pivot = jax.lax.dynamic_index_in_dim(rest, j, -1, keepdims=True)
        below = jnp.broadcast_to(index >= j, rest.shape)
        new = jnp.where(below, rest, 0.0) / jnp.sqrt(pivot)
        return jnp.where(jnp.broadcast_to(index == j, lower.shape), new[..., :, None], lower)

    lower = jax.lax.fori_loop(0, d, column, jnp.zeros_like(covariance))
    return inverse_of_lower(lower)


@partial(jax.jit, inline=True)
def inverse_of_lower(lower: Array) -> Array:
    """The inverse of lower triangular matrices, in plain operations.

    Args:
        lower: (..., d, d).

    Returns:
        (..., d, d).

    Example:
        >>> inverse_of_lower(jnp.array([[2.0, 0.0], [1.0, 1.0]])).tolist()
        [[0.5, 0.0], [-0.5, 1.0]]
    """
    d = lower.shape[-1]
    eye, index = jnp.eye(d, dtype=lower.dtype), jnp.arange(d)

    def row(e: Array, inverse: Array) -> Array:
        own = jax.lax.dynamic_index_in_dim(lower, e, -2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(own, e, -1, keepdims=True)
        so_far = jnp.sum(own[..., :, None] * inverse, axis=-2)
        new = (jnp.broadcast_to(eye[e], so_far.shape) - so_far) / pivot
        is_row = jnp.broadcast_to((index == e)[:, None], inverse.shape)
        return jnp.where(is_row, new[..., None, :], inverse)

    return jax.lax.fori_loop(0, d, row, jnp.zeros_like(lower))
