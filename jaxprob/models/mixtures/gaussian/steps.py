"""Expectation-maximisation for Gaussian mixtures: sums of what is expected, and their maximum."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import (
    Status,
)
from jaxprob.models.mixtures.gaussian.density import log_joint, total_over_blocks
from jaxprob.models.mixtures.gaussian.parameters import (
    Params,
    diagonal,
    factor_diagonals,
    factor_matrices,
    is_diagonal,
    sharing,
    summed_where_shared,
)
from jaxprob.models.mixtures.gaussian.sums import Statistics, about_new_means, mean_and_variances
from jaxprob.numerics.components import (
    conditional_moments,
    inverse_factor,
    moved,
    outer_moments,
    shares,
    squared_moments,
    weighted_total,
)
from jaxprob.numerics.products import einsum, matmul
from jaxprob.runtime.compilation import compiled


@compiled("missing")
def statistics(
    params: Params, x: Array, weights: Array | None = None, *, missing: bool = False
) -> tuple[Array, Statistics]:
    """The log-likelihood, and the sums N, m, S of equation 3.11; those of batches add up.

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        missing: whether NaN stands for an entry that was not observed.

    Returns:
        () nats, and Statistics.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> statistics(params, jnp.array([[1.0], [2.0]]))[1].first.tolist()
        [[3.0]]
    """
    moments = squared_moments if is_diagonal(params) else outer_moments

    def of_block(x: Array, c: Array) -> tuple[Array, Statistics]:
        member, each = shares(log_joint(params, x, missing))
        member = member if weights is None else member * c[None, :]
        weight = jnp.sum(member, axis=1)
        if missing:
            _, _, away, spread = conditional_moments(x, params.means, factor_matrices(params))
            first = einsum("kn,kdn->kd", member, away)
            second = einsum("kn,kdn,ken->kde", member, away, away)
            second += einsum("kn,kden->kde", member, spread)
            second = diagonal(second) if is_diagonal(params) else second
        else:
            first, second = moments(member, x, params.means)
        return weighted_total(c, each), Statistics(weight, first, second)

    return total_over_blocks(of_block, params, x, weights, missing)


def of_statistics(params: Params, known: Statistics) -> Params:
    """The gradient of the log-likelihood from sums at the same parameters (equation 3.11).

    Args:
        params: Params.
        known: Statistics.

    Returns:
        Params.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> known = Statistics(jnp.ones(1), 2 * jnp.ones((1, 1)), 4 * jnp.ones((1, 1)))
        >>> of_statistics(params, known).log_scale.tolist()
        [[3.0]]
    """
    weight, first, second = known
    others = 1 - jnp.eye(len(weight), dtype=weight.dtype)  # 1 - π_k as a sum: it may be tiny
    share = params.weights
    of_logits = weight * matmul(others, share) - share * matmul(others, weight)
    if is_diagonal(params):
        factor = factor_diagonals(params)
        of_scale = factor**2 * second - weight[:, None]
        below = params.lower
        of_means = factor**2 * first
    else:
        factor = factor_matrices(params)
        of_means = jnp.sum(factor * jnp.sum(factor * first[:, None, :], axis=-1)[..., None], axis=1)
        product = matmul(factor, second)
        of_scale = diagonal(product) * diagonal(factor) - weight[:, None]
        below = -product[:, *np.tril_indices(factor.shape[-1], -1)]
    empty = weight[:, None] == 0  # whatever the factor is
    of_means, of_scale, below = (jnp.where(empty, 0.0, a) for a in (of_means, of_scale, below))
    return Params(
        of_logits,
        of_means,
        summed_where_shared(of_scale, params.log_scale),
        summed_where_shared(below, params.lower),
    )


def maximise(
    params: Params,
    known: Statistics,
    variances: Array | None = None,
    *,
    prior_count: float = 0.0,
    prior_scale: float | None = None,
) -> tuple[Params, Array]:
    """The next parameters of expectation-maximisation (equation 3.12).

    Args:
        params: Params with which the sums were made.
        known: Statistics.
        variances: (d,) s² of the columns, where the prior follows them.
        prior_count: ν.
        prior_scale: s₀, or None where the prior follows the columns.

    Returns:
        Params, and () int32: COLLAPSED, or MAX_STEPS where there is something to go on with.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> known = statistics(params, jnp.array([[1.0], [3.0]]))[1]
        >>> maximise(params, known)[0].means.tolist()
        [[2.0]]
    """
    eps, d = jnp.finfo(params.means.dtype).eps, params.means.shape[1]
    all_of_it = jnp.sum(known.weight)
    alive = known.weight > eps * all_of_it
    count = jnp.where(alive, known.weight, 1.0)
    step = jnp.where(alive[:, None], known.first / count[:, None], 0.0)
    scatter = jnp.where(
        alive.reshape(-1, *([1] * (known.second.ndim - 1))), about_new_means(known), 0.0
    )
    is_tied, is_spherical = sharing(params)
    if is_tied:
        scatter, count = jnp.sum(scatter, axis=0, keepdims=True), all_of_it[None]
        alive = jnp.ones(1, bool)
    count = count + prior_count
    extra = prior_scatter(variances, d, prior_count, prior_scale).astype(scatter.dtype)
    if is_diagonal(params):
        variance = (scatter + extra[None, :]) / count[:, None]
        variance = jnp.mean(variance, axis=1, keepdims=True) if is_spherical else variance
        pivots, lower = variance, params.lower
    else:
        covariance = (scatter + jnp.diag(extra)[None]) / count[:, None, None]
        factor = inverse_factor(covariance)
        variance, pivots = diagonal(covariance), 1 / diagonal(factor) ** 2
        lower = factor[:, *np.tril_indices(d, -1)]
    deviation = jnp.sqrt(jnp.broadcast_to(variance, step.shape))
    means = moved(params.means, step, 8 * eps * deviation)
    share = known.weight / jnp.where(all_of_it > 0, all_of_it, 1.0)
    away = means - matmul(share, means)[None, :]
    spread = matmul(share, away**2 + jnp.broadcast_to(variance, away.shape))
    spread = jnp.mean(spread, keepdims=True) if is_spherical else spread
    narrow = ~(pivots > eps * spread[None, :]) | ~(pivots > 8 * d * eps * variance)
    collapsed = jnp.any(narrow & alive[:, None])
    status = jnp.where(collapsed, jnp.int32(Status.COLLAPSED), jnp.int32(Status.MAX_STEPS))
    log_scale = jnp.where(alive[:, None], jnp.log(pivots) / 2, params.log_scale)
    lower = jnp.where(alive[:, None], lower, params.lower)
    return Params(jnp.log(share), means, log_scale, lower), status


def about(params: Params, known: Statistics, new: Params) -> Statistics:
    """The same sums about the means of other parameters.

    Args:
        params: Params with which the sums were made.
        known: Statistics.
        new: Params.

    Returns:
        Statistics.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> known = Statistics(jnp.ones(1), 2 * jnp.ones((1, 1)), 4 * jnp.ones((1, 1)))
        >>> about(params, known, params._replace(means=jnp.array([[2.0]]))).second.tolist()
        [[0.0]]
    """
    weight, first, second = known
    away = params.means - new.means
    moved = first + weight[:, None] * away
    if second.ndim == 2:
        return Statistics(weight, moved, second + (first + moved) * away)
    crossed = first[:, :, None] * away[:, None, :] + away[:, :, None] * moved[:, None, :]
    return Statistics(weight, moved, second + crossed)


def column_variances(x: Array, weights: Array | None = None, *, missing: bool = False) -> Array:
    """The variances of the columns, which the prior follows where it has no scale of its own.

    Args:
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        missing: whether NaN stands for an entry that was not observed.

    Returns:
        (d,) Σ_i c_i (x_ij - m_j)² / Σ_i c_i, over the entries that were observed.

    Example:
        >>> column_variances(jnp.array([[1.0], [3.0]])).tolist()
        [1.0]
    """
    return mean_and_variances(x, weights, missing)[1]


def prior_scatter(
    variances: Array | None, d: int, prior_count: float, prior_scale: float | None
) -> Array:
    """(d,) ν s², what the prior adds to the diagonal of a component's scatter."""
    if prior_count == 0:
        return jnp.zeros(d)
    if prior_scale is not None:
        return jnp.full(d, prior_count * prior_scale**2)
    if variances is None:
        raise ValueError(
            "prior_scale: expected a number, or the variances of the columns "
            "(`Prior.hyperparameters`), which the prior follows, got neither"
        )
    return prior_count * variances
