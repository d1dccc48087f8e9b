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

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import (
    Bind,
    Expectation,
    Geometry,
    Likelihood,
    Model,
    Predictions,
    Prior,
    Status,
    Variables,
)
from jaxprob.contract.settings import number, whole_number
from jaxprob.models.mixtures.gaussian.density import log_joint, total_over_blocks
from jaxprob.models.mixtures.gaussian.features import features
from jaxprob.models.mixtures.gaussian.parameters import Params as Params
from jaxprob.models.mixtures.gaussian.parameters import canonical as canonical
from jaxprob.models.mixtures.gaussian.parameters import (
    factor_matrices,
    is_diagonal,
)
from jaxprob.models.mixtures.gaussian.parameters import parameter_names as parameter_names
from jaxprob.models.mixtures.gaussian.queries import conditional as conditional
from jaxprob.models.mixtures.gaussian.queries import fill_in as fill_in
from jaxprob.models.mixtures.gaussian.queries import marginal as marginal
from jaxprob.models.mixtures.gaussian.starts import around, centers_for
from jaxprob.models.mixtures.gaussian.steps import about as about
from jaxprob.models.mixtures.gaussian.steps import column_variances as column_variances
from jaxprob.models.mixtures.gaussian.steps import maximise as maximise
from jaxprob.models.mixtures.gaussian.steps import of_statistics as of_statistics
from jaxprob.models.mixtures.gaussian.steps import prior_scatter
from jaxprob.models.mixtures.gaussian.steps import statistics as statistics
from jaxprob.models.mixtures.gaussian.sums import Statistics as Statistics
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import (
    inverse_of_lower,
    shares,
    weighted_total,
)
from jaxprob.numerics.products import einsum
from jaxprob.runtime.compilation import compiled

COVARIANCES = ("full", "tied", "diagonal", "spherical")
STARTS = ("k-means++", "random")


@compiled("num_components", "covariance", "missing", "start")
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
    first = centers_for(key, x, weights, num_components, covariance, missing, start)
    return around(first, jnp.int32(num_components), covariance)


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
    settings = {"covariance": covariance, "missing": missing, "start": start}
    return _padded_init(key, x, weights, counts=tuple(counts), **settings)


@compiled("counts", "covariance", "missing", "start")
def _padded_init(
    key: Array | None,
    x: Array,
    weights: Array | None,
    *,
    counts: tuple[int, ...],
    covariance: str,
    missing: bool,
    start: str,
) -> Params:
    first = centers_for(key, x, weights, max(counts), covariance, missing, start)
    numbers = jnp.asarray(counts, jnp.int32)
    return jax.vmap(lambda active: around(first, active, covariance))(numbers)


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
    return logsumexp(log_joint(params, x[None], missing)[:, 0])


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
        return weighted_total(c, shares(log_joint(params, x, missing))[1])

    return total_over_blocks(of_block, params, x, weights, missing)


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


@compiled("prior_count", "prior_scale")
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
    extra = prior_scatter(variances, d, prior_count, prior_scale).astype(log_scale.dtype)
    squares = jnp.sum(jnp.exp(-2 * log_scale) * extra[None, :])
    if not is_diagonal(params):
        _, j = np.tril_indices(d, -1)
        squares += jnp.sum(params.lower**2 * extra[None, j])
    return -prior_count * jnp.sum(log_scale) - squares / 2


@compiled("num")
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
    root = inverse_of_lower(factor_matrices(params))
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
    joint = log_joint(params, x, missing).T
    return joint - logsumexp(joint)[:, None]


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
    num_components = whole_number("num_components", num_components, least=1)
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance: expected one of {COVARIANCES}, got {covariance!r}")
    if start not in STARTS:
        raise ValueError(f"start: expected one of {STARTS}, got {start!r}")
    prior_count = number("prior_count", prior_count)
    if prior_scale is not None:
        prior_scale = number("prior_scale", prior_scale, positive=True)
    prior = {"prior_count": prior_count, "prior_scale": prior_scale}
    own = {"missing": bool(missing)}
    follows = prior_count > 0 and prior_scale is None
    return Model(
        name="Gaussian mixture",
        variables=Variables.density(
            x=features(covariance, bool(missing), prior_count > 0, follows)
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
