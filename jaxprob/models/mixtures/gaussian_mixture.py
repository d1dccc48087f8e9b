r"""Mixtures of normal densities.

The model, with K components of probabilities π, means μ_k and covariances Σ_k:

    p(x) = Σ_k π_k N(x; μ_k, Σ_k),        π = softmax(z)                                  (3.8)
    log N(x; μ, Σ) = -d/2 log 2π - Σ_e s_e - ½ ‖A (x - μ)‖²,    Σ⁻¹ = Aᵀ A                (3.9)

A is lower triangular, with exp(-s_e) on its diagonal, s the `log_scale`, and what is below in
`lower`, row by row: exp(s_e) is the standard deviation of x_e given the columns before it. All
parameters are free numbers, so gradients and expectation-maximisation see the same problem.
Covariances are full, shared by all components (tied), diagonal, or spherical.

An example belongs to component k with probability r_k, and the log-likelihood with weights c_i has
a gradient that depends on the examples through the sums N_k, m_k, S_k only:

    r_k(x) = π_k N(x; μ_k, Σ_k) / p(x)                                                    (3.10)
    N_k = Σ_i c_i r_ik,    m_k = Σ_i c_i r_ik (x_i - μ_k),
    S_k = Σ_i c_i r_ik (x_i - μ_k) (x_i - μ_k)ᵀ
    ∂/∂z_k = N_k - N π_k,             ∂/∂μ_k = AᵀA m_k
    ∂/∂A_ej = -(A S_k)_ej,  e > j,    ∂/∂s_e = (A S_k Aᵀ)_ee - N_k                        (3.11)

with (A S_k)_ee A_ee for (A S_k Aᵀ)_ee in general, the derivative in one entry of A. Parameters that
components or columns share have the sum of their derivatives. A step of expectation-maximisation
goes to the maximum of the expected log-likelihood, which never lowers the log-likelihood:

    π_k = N_k / N,    μ_k ← μ_k + m_k / N_k,    Σ_k = S_k / N_k - m_k m_kᵀ / N_k²         (3.12)

A prior of ν examples at a distance of s₀ from the mean in every direction makes Σ_k of it
(N_k Σ_k + ν s₀² I) / (N_k + ν), which bounds the likelihood: without, a component can shrink onto a
point, and there is no maximum (COLLAPSED). Where s₀ is not given it is each column's standard
deviation, diag(s²) in place of s₀² I, so that the result does not depend on units. What a run finds
is a maximum near its start; compare several (`jaxprob.many.restarts`). Components without weight
(logit -∞) stay so.

Entries that were not observed are NaN, where the model says `missing`: the density is then that of
the observed ones, and S_k has the conditional covariance of the others. With Λ = Σ⁻¹, u the
entries that are missing and o the others, given component k,

    E[x_u | x_o] = μ_u - Λ_uu⁻¹ Λ_uo (x_o - μ_o),        Cov[x_u | x_o] = Λ_uu⁻¹           (3.13)

Source: equations 3.8-3.13 of the project's mathematics; Dempster, Laird and Rubin, Journal of the
Royal Statistical Society B 39, 1977; McLachlan and Peel, Finite Mixture Models, 2000, chapter 3;
Little and Rubin, Statistical Analysis with Missing Data, 2019, section 11.2.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import (
    Bind,
    Expectation,
    Features,
    Geometry,
    Likelihood,
    Model,
    Predictions,
    Prior,
    Status,
    Variables,
)
from jaxprob.data.arrays import check_columns
from jaxprob.data.columns import column_name, observed, varying
from jaxprob.numerics import log_softmax, logsumexp, softmax
from jaxprob.numerics.components import (
    conditional_moments,
    inverse_factor,
    inverse_of_lower,
    mahalanobis,
    moved,
    outer_moments,
    over_blocks,
    overall_moments,
    shares,
    squared_moments,
    weighted_total,
)
from jaxprob.numerics.passes import at_a_time
from jaxprob.numerics.products import einsum, matmul
from jaxprob.numerics.seeding import spread_out
from jaxprob.runtime.compilation import compiled

COVARIANCES = ("full", "tied", "diagonal", "spherical")
STARTS = ("k-means++", "random")
_LEAST_SPREAD = 1e-3  # of the start, relative to that around the centers
_LEAST_SHARE = 1e-2  # of a component at the start, relative to an equal one
_BLOCK_ELEMENTS = 25_000  # examples × components that are looked at at a time


class Params(NamedTuple):
    """What is fitted.

    Attributes:
        logits: (K,) z, up to a constant.
        means: (K, d).
        log_scale: (K, d); (1, d) where covariances are tied, (K, 1) where they are spherical.
        lower: (K, d(d-1)/2) of A, row by row; (1, d(d-1)/2) tied; (K, 0) without correlations.

    `weights` and `covariances` are what people want to see of them; for many fits with the lanes in
    front.
    """

    logits: Array
    means: Array
    log_scale: Array
    lower: Array

    @property
    def weights(self) -> Array:
        """The probabilities π (..., K) of the components."""
        return softmax(self.logits)

    @property
    def covariances(self) -> Array:
        """The covariances Σ (..., K, d, d)."""
        root = inverse_of_lower(_matrices(self))
        return matmul(root, root.mT)


class Statistics(NamedTuple):
    """All that a step needs to know of the examples, about the means that they were made with."""

    weight: Array  # (K,) N
    first: Array  # (K, d) m
    second: Array  # (K, d, d) S, or (K, d) its diagonal


def init(
    key: Array | None,
    x: Array,
    weights: Array | None = None,
    *,
    num_components: int,
    covariance: str = "full",
    missing: bool = False,
    start: str = "k-means++",
) -> Params:
    """Examples that are far from each other, and what is nearest to each.

    Args:
        key: a typed PRNG key; a fixed one where None.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        num_components: K.
        covariance: "full", "tied", "diagonal" or "spherical".
        missing: whether NaN stands for an entry that was not observed.
        start: "k-means++", or "random" for examples drawn with the same probability.

    Returns:
        Params in the dtype of x.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [10.0], [11.0]])
        >>> sorted(init(None, x, num_components=2).means.ravel().tolist())
        [0.5, 10.5]
    """
    first = _first(key, x, weights, num_components, covariance, missing, start)
    return _around(first, jnp.int32(num_components), covariance)


def padded_init(
    key: Array | None,
    x: Array,
    weights: Array | None = None,
    *,
    counts: Sequence[int],
    covariance: str = "full",
    missing: bool = False,
    start: str = "k-means++",
) -> Params:
    """Starts with several numbers of components, padded with components without weight.

    Args:
        key: a typed PRNG key; a fixed one where None.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        counts: (M,) numbers of components; K is the largest.
        covariance: "full", "tied", "diagonal" or "spherical".
        missing: whether NaN stands for an entry that was not observed.
        start: "k-means++" or "random".

    Returns:
        Params with M in front. The first components of each are those that count.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [10.0], [11.0]])
        >>> padded_init(None, x, counts=(1, 2)).weights.shape
        (2, 2)
    """
    first = _first(key, x, weights, max(counts), covariance, missing, start)
    numbers = jnp.asarray(counts, jnp.int32)
    return jax.vmap(lambda active: _around(first, active, covariance))(numbers)


@compiled("missing")
def log_prob(params: Params, x: Array, *, missing: bool = False) -> Array:
    """The log-density of one example (equation 3.8), of its observed entries if some are missing.

    Args:
        params: Params.
        x: (d,) floating.
        missing: whether NaN stands for an entry that was not observed.

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 1)))
        >>> round(float(jnp.exp(log_prob(params, jnp.zeros(2)))), 4)
        0.1592
    """
    return logsumexp(_joint(params, x[None], missing)[:, 0])


@compiled("missing")
def log_likelihood(
    params: Params, x: Array, weights: Array | None = None, *, missing: bool = False
) -> Array:
    """The log-likelihood Σ_i c_i log p(x_i) of n examples (equation 3.8).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        missing: whether NaN stands for an entry that was not observed.

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> round(float(log_likelihood(params, jnp.array([[1.0], [-1.0]]))), 4)
        -2.8379
    """

    def of_block(x: Array, c: Array) -> Array:
        return weighted_total(c, shares(_joint(params, x, missing))[1])

    return _over_blocks(of_block, params, x, weights, missing)


def grad_log_likelihood(
    params: Params, x: Array, weights: Array | None = None, *, missing: bool = False
) -> Params:
    """The gradient of the log-likelihood, derived by hand (equation 3.11).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        missing: whether NaN stands for an entry that was not observed.

    Returns:
        Params, nats per unit of each parameter.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> grad_log_likelihood(params, jnp.array([[2.0]])).means.tolist()
        [[2.0]]
    """
    return log_likelihood_and_grad(params, x, weights, missing=missing)[1]


@compiled("missing")
def log_likelihood_and_grad(
    params: Params,
    x: Array,
    weights: Array | None = None,
    *,
    missing: bool = False,
    block_bytes: int | None = None,
) -> tuple[Array, Params]:
    """The log-likelihood and its gradient from one pass (equations 3.8, 3.11).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        missing: whether NaN stands for an entry that was not observed.
        block_bytes: unused: blocks of examples are as large as the components want.

    Returns:
        () nats, and Params.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> value, grad = log_likelihood_and_grad(params, jnp.array([[2.0]]))
        >>> round(float(value), 4), grad.log_scale.tolist()
        (-2.9189, [[3.0]])
    """
    del block_bytes
    value, sums = statistics(params, x, weights, missing=missing)
    return value, of_statistics(params, sums)


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
    moments = squared_moments if _is_diagonal(params) else outer_moments

    def of_block(x: Array, c: Array) -> tuple[Array, Statistics]:
        member, each = shares(_joint(params, x, missing))
        member = member if weights is None else member * c[None, :]
        weight = jnp.sum(member, axis=1)
        if missing:
            _, _, away, spread = conditional_moments(x, params.means, _matrices(params))
            first = einsum("kn,kdn->kd", member, away)
            second = einsum("kn,kdn,ken->kde", member, away, away)
            second += einsum("kn,kden->kde", member, spread)
            second = _diagonal(second) if _is_diagonal(params) else second
        else:
            first, second = moments(member, x, params.means)
        return weighted_total(c, each), Statistics(weight, first, second)

    return _over_blocks(of_block, params, x, weights, missing)


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
    if _is_diagonal(params):
        factor = _diagonals(params)
        of_scale = factor**2 * second - weight[:, None]
        below = params.lower
        of_means = factor**2 * first
    else:
        factor = _matrices(params)
        of_means = jnp.sum(factor * jnp.sum(factor * first[:, None, :], axis=-1)[..., None], axis=1)
        product = matmul(factor, second)
        of_scale = _diagonal(product) * _diagonal(factor) - weight[:, None]
        below = -product[:, *np.tril_indices(factor.shape[-1], -1)]
    empty = weight[:, None] == 0  # whatever the factor is
    of_means, of_scale, below = (jnp.where(empty, 0.0, a) for a in (of_means, of_scale, below))
    return Params(
        of_logits, of_means, _shared(of_scale, params.log_scale), _shared(below, params.lower)
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
        alive.reshape(-1, *([1] * (known.second.ndim - 1))), _about_new_means(known), 0.0
    )
    is_tied, is_spherical = _kind(params)
    if is_tied:
        scatter, count = jnp.sum(scatter, axis=0, keepdims=True), all_of_it[None]
        alive = jnp.ones(1, bool)
    count = count + prior_count
    extra = _prior_scatter(variances, d, prior_count, prior_scale).astype(scatter.dtype)
    if _is_diagonal(params):
        variance = (scatter + extra[None, :]) / count[:, None]
        variance = jnp.mean(variance, axis=1, keepdims=True) if is_spherical else variance
        pivots, lower = variance, params.lower
    else:
        covariance = (scatter + jnp.diag(extra)[None]) / count[:, None, None]
        factor = inverse_factor(covariance)
        variance, pivots = _diagonal(covariance), 1 / _diagonal(factor) ** 2
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


def log_prior(
    params: Params,
    variances: Array | None = None,
    *,
    prior_count: float,
    prior_scale: float | None = None,
) -> Array:
    """The logarithm of the prior that `maximise` has, up to a constant.

    Args:
        params: Params.
        variances: (d,) s² of the columns, where the prior follows them.
        prior_count: ν.
        prior_scale: s₀, or None where the prior follows the columns.

    Returns:
        (), nats: Σ_k -ν (Σ_e s_e + ½ s₀² ‖A‖²), of each covariance that there is; with
        Σ_ej A_ej² s_j² where the prior follows the columns.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> float(log_prior(params, prior_count=2.0, prior_scale=1.0))
        -1.0
    """
    d = params.means.shape[-1]
    rows = params.log_scale.shape[0]
    log_scale = jnp.broadcast_to(params.log_scale, (rows, d))
    extra = _prior_scatter(variances, d, prior_count, prior_scale).astype(log_scale.dtype)
    squares = jnp.sum(jnp.exp(-2 * log_scale) * extra[None, :])
    if not _is_diagonal(params):
        _, j = np.tril_indices(d, -1)
        squares += jnp.sum(params.lower**2 * extra[None, j])
    return -prior_count * jnp.sum(log_scale) - squares / 2


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
    return _mean_and_variances(x, weights, missing)[1]


def sample(params: Params, key: Array, num: int) -> Array:
    """Draw examples (equation 3.8).

    Args:
        params: Params.
        key: a typed PRNG key.
        num: how many.

    Returns:
        (num, d) of the parameters' dtype.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 1)))
        >>> sample(params, jax.random.key(0), 3).shape
        (3, 2)
    """
    of_component, of_noise = jax.random.split(key)
    means = params.means
    k = jax.random.categorical(of_component, params.logits, shape=(num,))
    noise = jax.random.normal(of_noise, (num, means.shape[1]), means.dtype)
    root = inverse_of_lower(_matrices(params))
    return means[k] + einsum("nij,nj->ni", root[k], noise)


@compiled("missing")
def predict_log_proba(params: Params, x: Array, *, missing: bool = False) -> Array:
    """The log-probabilities log r_k(x) that examples belong to each component (equation 3.10).

    Args:
        params: Params.
        x: (n, d) floating.
        missing: whether NaN stands for an entry that was not observed.

    Returns:
        (n, K), nats.

    Example:
        >>> params = Params(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)),
        ...                 jnp.zeros((2, 0)))
        >>> p = jnp.exp(predict_log_proba(params, jnp.array([[0.0], [1.0]])))
        >>> [round(float(q), 4) for q in p[:, 1]]
        [0.5, 0.8808]
    """
    joint = _joint(params, x, missing).T
    return joint - logsumexp(joint)[:, None]


@compiled()
def fill_in(params: Params, x: Array) -> Array:
    """The examples, with what the mixture expects of the entries that are missing (equation 3.13).

    Args:
        params: Params.
        x: (n, d) floating, NaN where an entry was not observed.

    Returns:
        (n, d), in which observed entries are as they were.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.array([[0.0, 5.0]]), jnp.zeros((1, 2)),
        ...                 jnp.zeros((1, 1)))
        >>> fill_in(params, jnp.array([[1.0, jnp.nan]])).tolist()
        [[1.0, 5.0]]
    """
    *_, away, _ = conditional_moments(x, params.means, _matrices(params))
    member, _ = shares(_joint(params, x, missing=True))
    expected = jnp.sum(member[:, None] * (params.means[:, :, None] + away), axis=0)
    return jnp.where(jnp.isnan(x), expected.T, x)


def marginal(params: Params, columns: Sequence[int]) -> Params:
    """The mixture that some of the columns have.

    Args:
        params: Params.
        columns: which, in this order.

    Returns:
        Params of a mixture with full covariances, or diagonal ones if these are.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)),
        ...                 jnp.zeros((1, 1)))
        >>> marginal(params, [1]).means.tolist()
        [[2.0]]
    """
    index = check_columns("columns", columns, params.means.shape[1])
    means = params.means[:, index]
    if _is_diagonal(params):
        log_scale = jnp.broadcast_to(params.log_scale, params.means.shape)[:, index]
        return Params(params.logits, means, log_scale, params.lower)
    covariance = params.covariances[:, index[:, None], index[None, :]]
    return _of_covariance(params.logits, means, covariance, "full")


def conditional(params: Params, columns: Sequence[int], values: Array) -> Params:
    """The mixture that the other columns have, given some: p(x_a | x_b) (equation 3.13).

    Args:
        params: Params.
        columns: b, those that are given.
        values: (len(b),) what they are.

    Returns:
        Params of a mixture of the columns that are not given, in their order.

    Raises:
        ValueError: where nothing is left, or a column does not exist or is named twice.

    Example:
        >>> params = Params(jnp.zeros(2), jnp.array([[0.0, -1.0], [4.0, 1.0]]), jnp.zeros((2, 2)),
        ...                 jnp.zeros((2, 1)))
        >>> [round(float(p), 3) for p in conditional(params, [0], jnp.array([1.0])).weights]
        [0.982, 0.018]
    """
    d = params.means.shape[1]
    given = check_columns("columns", columns, d)
    rest = np.setdiff1d(np.arange(d), given)
    if not len(rest):
        raise ValueError(f"columns: expected fewer than {d}, so that some are left, got {columns}")
    values = jnp.asarray(values, params.means.dtype)
    logits = _joint(marginal(params, list(given)), values[None], missing=False)[:, 0]
    away = values[None, :] - params.means[:, given]
    precision = _matrices(params)
    precision = matmul(precision.mT, precision)
    root = inverse_factor(precision[:, rest[:, None], rest[None, :]])
    covariance = matmul(root.mT, root)
    pull = jnp.sum(precision[:, rest[:, None], given[None, :]] * away[:, None, :], axis=-1)
    means = params.means[:, rest] - jnp.sum(covariance * pull[:, None, :], axis=-1)
    return _of_covariance(logits - logsumexp(logits), means, covariance, "full")


def canonical(params: Params) -> Params:
    """Of the parameters with the same density, those whose finite logits sum to zero.

    Args:
        params: Params.

    Returns:
        Params.

    Example:
        >>> params = Params(jnp.array([1.0, 3.0]), *[jnp.zeros((2, 1))] * 2, jnp.zeros((2, 0)))
        >>> canonical(params).logits.tolist()
        [-1.0, 1.0]
    """
    z = params.logits
    finite = z > -jnp.inf
    mean = jnp.sum(jnp.where(finite, z, 0.0)) / jnp.sum(finite)
    return params._replace(logits=z - mean)


def parameter_names(params: Params, feature_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """A name for each parameter, in the order of `jax.flatten_util.ravel_pytree`.

    Args:
        params: of one fit.
        feature_names: of the columns of x, or None.

    Returns:
        (p,), such as "component 0: x1 mean".

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> parameter_names(params, None)
        ('component 0', 'component 0: x0 mean', 'component 0: x0 log scale')
    """
    k, d = params.means.shape
    x = feature_names or tuple(f"x{j}" for j in range(d))
    components = [f"component {i}" for i in range(k)]
    rows = [f"{name}: " for name in components] if len(params.log_scale) == k else [""]
    scaled = x if params.log_scale.shape[1] == d else ("",)
    below = zip(*np.tril_indices(d, -1), strict=True) if params.lower.shape[1] else ()
    pairs = [f"{x[e]} on {x[j]}" for e, j in below]
    return (
        *components,
        *(f"{name}: {column} mean" for name in components for column in x),
        *(f"{row}{column} log scale".replace("  ", " ") for row in rows for column in scaled),
        *(f"{row}{pair}" for row in rows for pair in pairs),
    )


def model(
    num_components: int,
    covariance: str = "full",
    *,
    prior_count: float = 0.0,
    prior_scale: float | None = None,
    missing: bool = False,
    start: str = "k-means++",
) -> Model:
    """A mixture of normal densities for `jaxprob.fit`, a density of x alone.

    Args:
        num_components: K.
        covariance: "full", "tied" (one for all components), "diagonal" or "spherical".
        prior_count: ν ≥ 0, as how many examples the prior of each covariance counts; with a
            positive one no component can collapse.
        prior_scale: s₀ > 0, how far these are from the mean, in the unit of the features; each
            column's standard deviation where None.
        missing: whether NaN stands for an entry that was not observed.
        start: where to start: "k-means++", or "random" for examples at random.

    Returns:
        A Model; two of them with the same settings are equal.

    Raises:
        ValueError: for fewer than one component, and what is none of the above.

    Example:
        >>> import jaxprob as jp
        >>> x = [[0.0], [1.0], [2.0], [10.0], [12.0], [14.0]]
        >>> result = jp.fit(model(2), x)
        >>> [round(float(mean), 2) for mean in sorted(result.params.means[:, 0])]
        [1.0, 12.0]
    """
    if type(num_components) is not int or num_components < 1:
        raise ValueError(
            f"num_components: expected an integer of at least 1, got {num_components!r}"
        )
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance: expected one of {COVARIANCES}, got {covariance!r}")
    if start not in STARTS:
        raise ValueError(f"start: expected one of {STARTS}, got {start!r}")
    if not (isinstance(prior_count, int | float) and 0 <= prior_count < math.inf):
        raise ValueError(f"prior_count: expected a number of at least 0, got {prior_count!r}")
    if prior_scale is not None:
        if not (isinstance(prior_scale, int | float) and 0 < prior_scale < math.inf):
            raise ValueError(f"prior_scale: expected a positive number, got {prior_scale!r}")
        prior_scale = float(prior_scale)
    prior = {"prior_count": float(prior_count), "prior_scale": prior_scale}
    own = {"missing": bool(missing)}
    follows = prior_count > 0 and prior_scale is None
    return Model(
        name="Gaussian mixture",
        variables=Variables.density(
            x=_features(covariance, bool(missing), prior_count > 0, follows)
        ),
        init=Bind(init, num_components=num_components, covariance=covariance, start=start, **own),
        log_prob=Bind(log_prob, **own),
        objective=Likelihood(
            Bind(log_likelihood, **own),
            grad=Bind(grad_log_likelihood, **own),
            value_and_grad=Bind(log_likelihood_and_grad, **own),
        ),
        predict=Predictions(components=Bind(predict_log_proba, **own), sample=sample),
        prior=Prior(Bind(log_prior, **prior), Bind(column_variances, **own) if follows else None)
        if prior_count
        else None,
        routes=(
            Expectation(Bind(statistics, **own), of_statistics, Bind(maximise, **prior), about),
        ),
        geometry=Geometry(canonical=canonical, names=parameter_names, columns=num_components),
        words=_REASONS,
    )


_REASONS = (
    (
        Status.COLLAPSED,
        "a component has shrunk onto a point or a plane; add prior_count, or use fewer components",
    ),
    (
        Status.SINGULAR,
        "a column was never observed with positive weight, or two never together, or the prior "
        "follows a column that is constant; drop it, or see the arguments of the model",
    ),
)


def _features(covariance: str, missing: bool, has_prior: bool, follows: bool) -> Features | None:
    """What x may hold, and what examples must determine together."""
    if not (missing or follows):
        return None
    settings = {
        "together": missing and covariance in ("full", "tied") and not has_prior,
        "spread": follows,
        "each": covariance != "spherical",
    }
    return Features(
        _any,
        _expected,
        missing=missing,
        suffice=Bind(_suffice, **settings),
        lacking=Bind(_lacking, **settings),
    )


def _any(x: Any, xp: Any) -> Any:
    """() True: there is nothing that an entry cannot be."""
    return xp.ones((), bool)


def _expected(x: Any, xp: Any) -> str:
    """Never asked for."""
    return "expected finite numbers or NaN"


def _suffice(x: Any, weights: Any, xp: Any, *, together: bool, spread: bool, each: bool) -> Any:
    """() whether examples of positive weight determine means, correlations, and the prior."""
    seen = observed(x, weights, xp=xp)
    enough = xp.all(xp.any(seen, axis=0))
    if together:
        enough = enough & xp.all(_pairs(seen, xp))
    if spread:
        varies = varying(x, weights, xp=xp)
        enough = enough & (xp.all(varies) if each else xp.any(varies))
    return enough


def _pairs(seen: Any, xp: Any) -> Any:
    """(d, d) whether two columns are observed together."""
    ones = seen.astype(xp.float32)  # a sum of ones may stop growing, but not be zero
    return (np.matmul(ones.T, ones) if xp is np else matmul(ones.T, ones)) > 0


def _lacking(x: Any, weights: Any, names: Any, *, together: bool, spread: bool, each: bool) -> str:
    seen = observed(x, weights, xp=np)
    never = ~seen.any(axis=0)
    if never.any():
        name = column_name(int(never.argmax()), names)
        return (
            f"x: expected an observed entry in every column, in an example of positive weight, got "
            f"none in {name}; drop it"
        )
    if together and not (pairs := _pairs(seen, np)).all():
        i, j = (column_name(int(k), names) for k in np.argwhere(~pairs)[0])
        return (
            f"x: expected every two columns to be observed together in some example, since "
            f"covariances are full, got none with {i} and {j}; use covariance='diagonal', drop "
            "one, or add prior_count"
        )
    name = column_name(int((~varying(x, weights, xp=np)).argmax()), names)
    which = name if each else "every column"
    return (
        f"x: expected columns that vary, since the prior follows them, got {which}, constant; drop "
        "it, or give prior_scale"
    )


def _prior_scatter(
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
            "(`Model.hyperparameters`), which the prior follows, got neither"
        )
    return prior_count * variances


def _is_diagonal(params: Params) -> bool:
    return params.lower.shape[-1] == 0


def _kind(params: Params) -> tuple[bool, bool]:
    """Whether components share their covariance, and columns their scale."""
    k, d = params.means.shape
    rows, columns = params.log_scale.shape
    return rows < k, columns < d


def _diagonals(params: Params) -> Array:
    """(..., K, d) the diagonals of A."""
    return jnp.exp(-jnp.broadcast_to(params.log_scale, params.means.shape))


def _matrices(params: Params) -> Array:
    """(..., K, d, d) the matrices A."""
    diagonal = _diagonals(params)
    d = diagonal.shape[-1]
    eye = jnp.eye(d, dtype=bool)
    factor = jnp.where(jnp.broadcast_to(eye, (*diagonal.shape, d)), diagonal[..., None], 0.0)
    if _is_diagonal(params):
        return factor
    lower = jnp.broadcast_to(params.lower, (*params.means.shape[:-1], params.lower.shape[-1]))
    e, j = np.tril_indices(d, -1)
    return factor.at[..., e, j].set(lower)


def _joint(params: Params, x: Array, missing: bool) -> Array:
    """(K, n) log π_k + log N(x_i; μ_k, Σ_k)."""
    log_weights = log_softmax(params.logits)[:, None]
    if missing:
        half_log_det, squares, *_ = conditional_moments(x, params.means, _matrices(params))
        observed = jnp.sum(~jnp.isnan(x), axis=1).astype(x.dtype)[None, :]
    else:
        factor = _diagonals(params) if _is_diagonal(params) else _matrices(params)
        squares = mahalanobis(x, params.means, factor)
        half_log_det = -jnp.sum(jnp.broadcast_to(params.log_scale, params.means.shape), axis=1)
        half_log_det, observed = half_log_det[:, None], x.shape[1]
    constant = math.log(2 * math.pi) / 2 * observed
    return log_weights + half_log_det - constant - squares / 2


def _over_blocks(
    fn: Callable[[Array, Array], Any],
    params: Params,
    x: Array,
    weights: Array | None,
    missing: bool,
) -> Any:
    """The sum of a function of examples and weights over blocks that stay in the cache."""
    each = len(params.logits) * (x.shape[1] ** 2 if missing else 1)
    return over_blocks(fn, x, weights, max(1, at_a_time(_BLOCK_ELEMENTS) // each))


def _about_new_means(known: Statistics) -> Array:
    """(K, d, d), or (K, d): S - m mᵀ / N, the scatter about the means that follow from the sums."""
    count = _or_one(known.weight)[:, None]
    shift = known.first / count
    if known.second.ndim == 2:
        return known.second - known.first * shift
    return known.second - known.first[:, :, None] * shift[:, None, :]


def _of_covariance(logits: Array, means: Array, covariance: Array, kind: str) -> Params:
    """Parameters with covariances (K, d, d), or (1, d, d) that all components start with."""
    k, d = means.shape
    rows = 1 if kind == "tied" else k
    if kind in ("full", "tied"):
        factor = jnp.broadcast_to(inverse_factor(covariance), (rows, d, d))
        lower = factor[:, *np.tril_indices(d, -1)]
        return Params(logits, means, -jnp.log(_diagonal(factor)), lower)
    variance = jnp.broadcast_to(_diagonal(covariance), (k, d))
    variance = jnp.mean(variance, axis=1, keepdims=True) if kind == "spherical" else variance
    return Params(logits, means, jnp.log(variance) / 2, jnp.zeros((k, 0), means.dtype))


class _First(NamedTuple):
    """Examples to start from, and what to measure distances from them by."""

    centers: Array  # (K, d)
    x: Array  # (n, d) without gaps
    weights: Array  # (n,)
    variances: Array  # (d,) of the columns, ones for columns that are constant


def _first(
    key: Array | None,
    x: Array,
    weights: Array | None,
    num: int,
    covariance: str,
    missing: bool,
    start: str,
) -> _First:
    """Examples to start from, far from each other in units of the columns' standard deviations."""
    key = jax.random.key(0) if key is None else key
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    mean, variances = _mean_and_variances(x, weights, missing)
    x = jnp.where(jnp.isnan(x), mean[None, :], x) if missing else x
    if covariance == "spherical":  # columns have one unit
        variances = jnp.full_like(variances, jnp.mean(variances))
    variances = _or_one(variances)
    if start == "k-means++":
        centers = spread_out(key, x, c, num, jnp.sqrt(variances))
    else:
        u = jax.random.uniform(key, c.shape, x.dtype)
        order = jnp.argsort(jnp.where(c > 0, u, 2.0))
        centers = x[jnp.resize(order[:num], (num,))]
    return _First(centers, x, c, variances)


def _around(first: _First, active: Array, covariance: str) -> Params:
    """What is nearest to each of the first centers, with the covariance within all of them."""
    centers, x, c, variances = first
    index = jnp.arange(len(centers))
    scale = jnp.broadcast_to(1 / jnp.sqrt(variances), centers.shape)
    distance = mahalanobis(x, centers, scale)
    nearest = jnp.argmin(jnp.where(index[:, None] < active, distance, jnp.inf), axis=0)
    member = jnp.where(nearest[None, :] == index[:, None], c[None, :], 0.0)
    sums = Statistics(jnp.sum(member, axis=1), *outer_moments(member, x, centers))
    weight = _or_one(jnp.sum(c))
    within = jnp.sum(_about_new_means(sums), axis=0) / weight
    spread = jnp.where(_diagonal(within) > 0, _diagonal(within), variances)
    within += jnp.diag(_LEAST_SPREAD * spread)
    least = _LEAST_SHARE * weight / active.astype(x.dtype)  # none dies at once
    logits = jnp.where(index < active, jnp.log(sums.weight + least), -jnp.inf)
    means = centers + sums.first / _or_one(sums.weight)[:, None]
    return _of_covariance(log_softmax(logits), means, within[None], covariance)


def _mean_and_variances(x: Array, weights: Array | None, missing: bool) -> tuple[Array, Array]:
    """(d,) each, of the entries that were observed."""
    if not missing:
        weight, mean, second = overall_moments(x, weights, squared_moments)
        return mean, second / _or_one(weight)
    seen = ~jnp.isnan(x)
    c = seen.astype(x.dtype) if weights is None else jnp.where(seen, weights[:, None], 0.0)
    count = _or_one(jnp.sum(c, axis=0))
    near = jnp.sum(c * jnp.where(seen, x, 0.0), axis=0) / count
    away = jnp.where(seen, x - near[None, :], 0.0)
    shift = jnp.sum(c * away, axis=0) / count
    return near + shift, jnp.sum(c * (away - shift[None, :]) ** 2, axis=0) / count


def _shared(each: Array, like: Array) -> Array:
    """The sum over components and columns that share a parameter."""
    each = jnp.sum(each, axis=0, keepdims=True) if len(like) < len(each) else each
    narrow = like.shape[1] < each.shape[1]
    return jnp.sum(each, axis=1, keepdims=True) if narrow else each


def _diagonal(matrices: Array) -> Array:
    return jnp.diagonal(matrices, axis1=-2, axis2=-1)


def _or_one(a: Array) -> Array:
    return jnp.where(a > 0, a, 1.0)
