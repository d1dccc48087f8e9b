r"""Dirichlet-process mixtures of normal densities: as many components as the data ask for.

    x_i ~ N(μ_k, Λ_k⁻¹) with probability π_k,        μ_k, Λ_k ~ the prior of equation D.1
    π_k = v_k Π_{j<k} (1 - v_j),        v_k ~ Beta(1, α),        α a number or ~ Gamma(s₁, s₂)

The posterior is approached by densities q that are products: of one for each v_k, for α, for each
component, and for the component that each example is from, of which there are T (`num_components`;
the last takes what is left, v_T = 1). Let ρ_ik be what q expects of the log-density of example i in
component k. Then, with the best q for the examples' components, r_ik, put in,

    ρ_ik = E[log π_k] + E[log N(x_i; μ_k, Λ_k⁻¹)],        r_ik = exp(ρ_ik) / Σ_j exp(ρ_ij)  (D.10)
    ELBO = Σ_i c_i log Σ_k exp(ρ_ik) - KL(q(v, α, μ, Λ) ‖ p(v, α, μ, Λ)) ≤ log p(x)         (D.11)

with weights c_i. The first term, `bound`, is a sum over examples as a log-likelihood is; the second
is `log_prior`. A step of coordinate ascent has the shape of expectation-maximisation: the sums

    N_k = Σ_i c_i r_ik,    f_k = Σ_i c_i r_ik (x_i - p_k),
    S_k = Σ_i c_i r_ik (x_i - p_k) (x_i - p_k)ᵀ

about some points p_k, then the best density for the sticks, then that for α, and that for each
component (equations D.2, D.8): no part lowers the ELBO. With the sums held fixed the gradient of
`bound` is that of Σ_k N_k E[log π_k] + Σ_ik c_i r_ik E[log N(x_i; μ_k, Λ_k⁻¹)], since r is best.

What is fitted is q; the parameters are free numbers, so gradients can climb the ELBO, too. The
density of the model is that of the next example, a mixture of Student densities:

    p(x | x_1..x_n) ≈ Σ_k E[π_k] St(x; η_k, m_k, Ψ_k (κ_k + 1) / (κ_k η_k)),
    η_k = ν_k - d + 1                                                                     (D.12)

Sticks are broken for the larger components first, those of larger κ_k, and for the last component
last. Where the components at places k and k + 1 < T, with n and m examples, change places, with t
examples after them, the bound for the best sticks given E[α] rises by

    log (E[α] + m + t) - log (E[α] + n + t)                                               (D.13)

so no step loses by a new order.

A fit ends at a maximum near its start; compare several (`jaxprob.many.restarts`). A component that
nothing is in has the prior. `gibbs` draws from the posterior itself, which is wider than q.

The prior's location and scale are those of the examples unless they are given (equation D.17), so
that the result does not depend on the units of the columns, nor on where their zero is.

Source: Blei and Jordan, Variational inference for Dirichlet process mixtures, Bayesian Analysis 1,
2006; Bishop, Pattern Recognition and Machine Learning, 2006, section 10.2; Ishwaran and James,
Gibbs sampling methods for stick-breaking priors, JASA 96, 2001 (the truncation).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Bound,
    Expectation,
    Geometry,
    Model,
    Predictions,
    Prior,
    Status,
    Variables,
)
from jaxprob.contract.settings import whole_number
from jaxprob.models.mixtures import gaussian_mixture
from jaxprob.models.mixtures.dirichlet import normal_wishart, priors, sticks
from jaxprob.models.mixtures.dirichlet.density import expected, log_predictive, total_over_blocks
from jaxprob.models.mixtures.dirichlet.gibbs import Samples as Samples
from jaxprob.models.mixtures.dirichlet.gibbs import gibbs as gibbs
from jaxprob.models.mixtures.dirichlet.gibbs import gibbs_log_density as gibbs_log_density
from jaxprob.models.mixtures.dirichlet.parameters import Params as Params
from jaxprob.models.mixtures.dirichlet.parameters import of_components, places
from jaxprob.models.mixtures.dirichlet.parameters import parameter_names as parameter_names
from jaxprob.models.mixtures.dirichlet.priors import DEFAULT, BaseMeasure, Moments
from jaxprob.models.mixtures.dirichlet.priors import weakly_informative as weakly_informative
from jaxprob.models.mixtures.dirichlet.queries import expected_counts as expected_counts
from jaxprob.models.mixtures.dirichlet.queries import marginal as marginal
from jaxprob.models.mixtures.dirichlet.queries import num_used as num_used
from jaxprob.models.mixtures.dirichlet.queries import responsibilities as responsibilities
from jaxprob.models.mixtures.dirichlet.settings import check_alpha
from jaxprob.models.mixtures.dirichlet.steps import about as about
from jaxprob.models.mixtures.dirichlet.steps import grad_of_statistics as grad_of_statistics
from jaxprob.models.mixtures.dirichlet.steps import maximise as maximise
from jaxprob.models.mixtures.dirichlet.steps import statistics as statistics
from jaxprob.models.mixtures.gaussian_mixture import STARTS, Statistics
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import shares, weighted_total
from jaxprob.runtime.compilation import compiled


@compiled("num_components", "prior", "alpha", "alpha_prior", "start")
def init(
    key: Array | None,
    x: Array,
    weights: Array | None = None,
    *,
    num_components: int,
    prior: BaseMeasure = DEFAULT,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
    start: str = "k-means++",
) -> Params:
    """What a Gaussian mixture says that starts at examples far from each other.

    The last component, whose stick is all that is left, is the smallest one, and empty if it has
    less than half of an equal share.

    Args:
        key: a typed PRNG key; a fixed one where None.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        num_components: T.
        prior: of the components.
        alpha: α, or None where it is learned.
        alpha_prior: s₁ and s₂.
        start: "k-means++", or "random" for examples drawn with the same probability.

    Returns:
        Params in the dtype of x.

    Example:
        >>> init(None, jnp.array([[0.0], [9.0]]), num_components=2).weights.shape
        (2,)
    """
    near = gaussian_mixture.init(key, x, weights, num_components=num_components, start=start)
    _, sums = gaussian_mixture.statistics(near, x, weights)
    order = jnp.argsort(-sums.weight)
    points, sums = near.means[order], jax.tree.map(lambda a: a[order], sums)
    few = sums.weight[-1] * num_components * 2 < jnp.sum(sums.weight)
    sums = jax.tree.map(lambda a: a.at[-1].set(jnp.where(few, 0.0, a[-1])), sums)
    d = x.shape[1]
    second = sums.second.reshape(-1, d, d)  # a mixture in one column has (T, 1)
    moments = priors.moments_of(prior, x, weights)
    sums = Statistics(sums.weight, sums.first, second)
    both = jax.tree.map(lambda a: jnp.concatenate([a, jnp.zeros_like(a)]), sums)  # or of nothing
    points = jnp.concatenate([points, points])
    updated, regular = normal_wishart.update(prior, points, *both, moments=moments)

    def with_scale(a: Array) -> Array:
        """One that has no scale is found by the first step."""
        some, none = jnp.split(a, 2)
        return jnp.where(regular[:num_components].reshape(-1, *([1] * (a.ndim - 1))), some, none)

    components = jax.tree.map(with_scale, updated)
    of_alpha = jnp.log(jnp.asarray([] if alpha is not None else alpha_prior, x.dtype))
    by_place = sums.weight[places(components.log_count)]
    broken = sticks.update(by_place, sticks.mean_alpha(of_alpha, alpha))
    of_alpha = of_alpha if alpha is not None else sticks.update_concentration(broken, alpha_prior)
    return Params(broken, of_alpha, components)


@compiled()
def log_prob(params: Params, x: Array) -> Array:
    """The log-density of one example, given those that were fitted (equation D.12).

    Args:
        params: Params.
        x: (d,) floating.

    Returns:
        (), nats.

    Example:
        >>> params = init(None, jnp.array([[0.0], [2.0]]), num_components=1)
        >>> round(float(jnp.exp(log_prob(params, jnp.ones(1)))), 4)
        0.2757
    """
    return logsumexp(log_predictive(params, x[None])[:, 0])


@compiled()
def log_likelihood(params: Params, x: Array, weights: Array | None = None) -> Array:
    """The log-likelihood Σ_i c_i log p(x_i) of n further examples (equation D.12).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        (), nats.

    Example:
        >>> params = init(None, jnp.array([[0.0], [2.0]]), num_components=1)
        >>> round(float(log_likelihood(params, jnp.ones((2, 1)))), 4)
        -2.5771
    """

    def of_block(x: Array, c: Array) -> Array:
        return weighted_total(c, shares(log_predictive(params, x))[1])

    return total_over_blocks(of_block, params, x, weights)


@compiled()
def bound(params: Params, x: Array, weights: Array | None = None) -> Array:
    """The part Σ_i c_i log Σ_k exp(ρ_ik) of the ELBO that examples have (equation D.11).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        (), nats.

    Example:
        >>> x = jnp.array([[0.0], [2.0]])
        >>> round(float(bound(init(None, x, num_components=1), x)), 4)
        -3.5779
    """

    def of_block(x: Array, c: Array) -> Array:
        return weighted_total(c, shares(expected(params, x))[1])

    return total_over_blocks(of_block, params, x, weights)


@compiled("prior", "alpha", "alpha_prior")
def log_prior(
    params: Params,
    moments: Moments | None = None,
    *,
    prior: BaseMeasure = DEFAULT,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
) -> Array:
    """Minus the divergence of q from the prior (equations D.5, D.9, D.11).

    Args:
        params: Params.
        moments: of the examples, where the prior follows them.
        prior: of the components.
        alpha: α, or None where it is learned.
        alpha_prior: s₁ and s₂.

    Returns:
        (), nats, at most 0.

    Example:
        >>> x = jnp.array([[0.0], [2.0]])
        >>> round(float(log_prior(init(None, x, num_components=1), priors.moments(x))), 4)
        -0.5422
    """
    of_sticks = sticks.divergence(params.sticks, params.concentration, alpha, alpha_prior)
    return -of_sticks - jnp.sum(normal_wishart.divergence(prior, params.components, moments))


def elbo(
    params: Params,
    x: Array,
    weights: Array | None = None,
    *,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
    location: Any = None,
    mean_count: float = 1.0,
    scale: Any = None,
    degrees: float | None = None,
) -> Array:
    """The evidence lower bound (equation D.11), which `jaxprob.fit` maximises.

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        alpha: as of `model`, as is what follows.
        alpha_prior: s₁ and s₂.
        location: m₀.
        mean_count: κ₀.
        scale: Ψ₀.
        degrees: ν₀.

    Returns:
        (), nats.

    Raises:
        ValueError: as `model`.

    Example:
        >>> x = jnp.array([[0.0], [2.0]])
        >>> round(float(elbo(init(None, x, num_components=1), x)), 4)
        -4.1201
    """
    alpha, alpha_prior = check_alpha(alpha, alpha_prior)
    prior = normal_wishart.prior(
        location=location, mean_count=mean_count, scale=scale, degrees=degrees
    )
    return _elbo(params, x, weights, prior=prior, alpha=alpha, alpha_prior=alpha_prior)


@compiled("prior", "alpha", "alpha_prior")
def _elbo(
    params: Params,
    x: Array,
    weights: Array | None,
    *,
    prior: BaseMeasure,
    alpha: float | None,
    alpha_prior: tuple[float, float],
) -> Array:
    moments = priors.moments_of(prior, x, weights)
    against = log_prior(params, moments, prior=prior, alpha=alpha, alpha_prior=alpha_prior)
    return bound(params, x, weights) + against


@compiled("num")
def sample(params: Params, key: Array, num: int) -> Array:
    """Draw further examples (equation D.12).

    Args:
        params: Params.
        key: a typed PRNG key.
        num: how many.

    Returns:
        (num, d) of the parameters' dtype.

    Example:
        >>> params = init(None, jnp.array([[0.0], [2.0]]), num_components=1)
        >>> sample(params, jax.random.key(0), 3).shape
        (3, 1)
    """
    of_component, of_example = jax.random.split(key)
    log_weights = of_components(sticks.log_expected_weights(params.sticks), params)
    index = jax.random.categorical(of_component, log_weights, shape=(num,))
    return normal_wishart.draw(params.components, of_example, index)


@compiled()
def predict_log_proba(params: Params, x: Array) -> Array:
    """The log-probabilities log r_k(x) that examples belong to each component (equation D.10).

    Args:
        params: Params.
        x: (n, d) floating.

    Returns:
        (n, T), nats.

    Example:
        >>> x = jnp.array([[0.0], [9.0]])
        >>> params = init(None, x, num_components=2)
        >>> jnp.argmax(predict_log_proba(params, x), axis=1).tolist()
        [1, 0]
    """
    joint = expected(params, x).T
    return joint - logsumexp(joint)[:, None]


def model(
    num_components: int,
    *,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
    location: Any = None,
    mean_count: float = 1.0,
    scale: Any = None,
    degrees: float | None = None,
    start: str = "k-means++",
) -> Model:
    """A Dirichlet-process mixture of normal densities for `jaxprob.fit`, a density of x alone.

    Args:
        num_components: T, the most components that there can be.
        alpha: α > 0: the larger, the more components; learned where None.
        alpha_prior: s₁, s₂ > 0, shape and rate of the Gamma density of α where it is learned.
        location: m₀, where components are expected: a number, or a tuple with one for each column;
            the mean of the examples where None.
        mean_count: κ₀ > 0: how many examples of a component its expected mean counts for.
        scale: Ψ₀ of the inverse Wishart density of a component's covariance: a number for that
            times the identity, a tuple for its diagonal, or a tuple of its rows; the covariance of
            the examples where None.
        degrees: ν₀ > d - 1, how many examples of a component Ψ₀ counts for; d where None.
        start: where to start: "k-means++", or "random" for examples at random.

    Returns:
        A Model; two of them with the same settings are equal. `weakly_informative` has the numbers
        that location and scale stand for.

    Raises:
        ValueError: for fewer than one component, and what is none of the above.

    Example:
        >>> import jaxprob as jp
        >>> x = jnp.concatenate([jnp.arange(10.0), 100 + jnp.arange(10.0)])[:, None]
        >>> [int(num_used(jp.fit(model(5), x).params, x)) for x in (x, x / 1000)]
        [2, 2]
    """
    num_components = whole_number("num_components", num_components, least=1)
    if start not in STARTS:
        raise ValueError(f"start: expected one of {STARTS}, got {start!r}")
    alpha, alpha_prior = check_alpha(alpha, alpha_prior)
    prior = normal_wishart.prior(
        location=location, mean_count=mean_count, scale=scale, degrees=degrees
    )
    settings = {"prior": prior, "alpha": alpha, "alpha_prior": alpha_prior}
    return Model(
        name="Dirichlet-process mixture",
        variables=Variables.density(x=priors.features_of(prior)),
        init=Bind(init, num_components=num_components, start=start, **settings),
        log_prob=log_prob,
        objective=Bound(bound, reported=log_likelihood),
        predict=Predictions(components=predict_log_proba, sample=sample),
        prior=Prior(Bind(log_prior, **settings), priors.moments if prior.follows else None),
        routes=(Expectation(statistics, grad_of_statistics, Bind(maximise, **settings), about),),
        geometry=Geometry(names=parameter_names, columns=num_components),
        words=_REASONS,
    )


_REASONS = (
    (
        Status.COLLAPSED,
        "a component's scale is lost in the rounding of the data; raise scale, or center the data",
    ),
    *priors.REASONS,
)
