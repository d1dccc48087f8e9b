r"""Normal densities of which neither mean nor covariance is known: the conjugate family.

A component k of a mixture has a normal-inverse-Wishart density, of its mean μ and precision Λ:

    Λ ~ Wishart(ν, Ψ⁻¹),        μ | Λ ~ N(m, (κ Λ)⁻¹),        ν > d - 1                    (D.1)

Ψ is the scale matrix of the inverse Wishart density of Λ⁻¹. It is kept as AᵀA = ν Ψ⁻¹ = E[Λ], with
A lower triangular and exp(-s_e) on its diagonal. Examples of total weight N, with first and second
moments f and S about some point p, turn the prior (m₀, κ₀, ν₀, Ψ₀) into

    κ = κ₀ + N,    ν = ν₀ + N,    m = m₀ + (N (p - m₀) + f) / κ
    Ψ = Ψ₀ + S_m + κ₀ (m - m₀) (m - m₀)ᵀ,    S_m the second moment about m                 (D.2)

in which nothing is divided by N: without examples it is the prior, exactly. Expectations, with
ψ the digamma function, and the density that the next example has (a Student density with
η = ν - d + 1 degrees of freedom):

    E[log N(x; μ, Λ⁻¹)] = -d/2 log 2π + ½ Σ_{e<d} (ψ((ν-e)/2) - log ν/2) - Σ_e s_e
                          - d/(2κ) - ½ ‖A (x - m)‖²                                        (D.3)
    log p(x) = log Γ((η+d)/2) - log Γ(η/2) - d/2 log(πν (κ+1)/κ) - Σ_e s_e
               - (η+d)/2 log(1 + κ/(κ+1) ‖A (x - m)‖² / ν)                                 (D.4)

The divergence of one such density from the prior is, with L₀ L₀ᵀ = Ψ₀ and Γ_d, ψ_d the
multivariate functions,

    ½ (d (κ₀/κ - 1 + log κ/κ₀) + κ₀ ‖A (m - m₀)‖² + ‖A L₀‖² - ν d + ν₀ (log |Ψ| - log |Ψ₀|))
    + log Γ_d(ν₀/2) - log Γ_d(ν/2) + (ν - ν₀)/2 ψ_d(ν/2)                                   (D.5)

Source: DeGroot, Optimal Statistical Decisions, 1970, section 9.10; Bishop, Pattern Recognition and
Machine Learning, 2006, section 10.2 and appendix B; Murphy, Conjugate Bayesian analysis of the
Gaussian distribution, 2007, section 9.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.models.mixtures.dirichlet.priors import BaseMeasure as BaseMeasure
from jaxprob.models.mixtures.dirichlet.priors import Moments as Moments
from jaxprob.models.mixtures.dirichlet.priors import NormalWishart as NormalWishart
from jaxprob.models.mixtures.dirichlet.priors import for_columns as for_columns
from jaxprob.models.mixtures.dirichlet.priors import prior as prior
from jaxprob.numerics.components import inverse_factor, inverse_of_lower, mahalanobis, moved
from jaxprob.numerics.gammas import digamma, log_beta, log_gamma, trigamma
from jaxprob.numerics.products import einsum, matmul


class Components(NamedTuple):
    """Normal-inverse-Wishart densities (equation D.1), one for each of T components.

    Attributes:
        means: (T, d) m.
        log_count: (T,) log κ.
        log_degrees: (T,) log(ν - d + 1).
        log_scale: (T, d) s.
        lower: (T, d(d-1)/2) what is below the diagonal of A, row by row.
    """

    means: Array
    log_count: Array
    log_degrees: Array
    log_scale: Array
    lower: Array

    @property
    def covariances(self) -> Array:
        """The inverse E[Λ]⁻¹ = Ψ / ν (..., T, d, d) of the expected precisions."""
        root = inverse_of_lower(factors(self))
        return matmul(root, root.mT)


def factors(q: Components) -> Array:
    """The matrices A (..., T, d, d).

    Args:
        q: Components.

    Returns:
        (..., T, d, d) lower triangular.

    Example:
        >>> one = Components(jnp.zeros((1, 2)), *[jnp.zeros(1)] * 2, jnp.zeros((1, 2)),
        ...                  jnp.array([[3.0]]))
        >>> factors(one).tolist()
        [[[1.0, 0.0], [3.0, 1.0]]]
    """
    d = q.log_scale.shape[-1]
    made = jnp.zeros((*q.log_scale.shape, d), q.log_scale.dtype)
    e, j = np.tril_indices(d, -1)
    made = made.at[..., np.arange(d), np.arange(d)].set(jnp.exp(-q.log_scale))
    return made.at[..., e, j].set(q.lower)


def expected_log_density(q: Components, x: Array) -> Array:
    """What is expected of the log-density of examples in each component (equation D.3).

    Args:
        q: Components.
        x: (n, d) floating.

    Returns:
        (T, n), nats.

    Example:
        >>> one = Components(jnp.zeros((1, 1)), *[jnp.zeros(1)] * 2, jnp.zeros((1, 1)),
        ...                  jnp.zeros((1, 0)))
        >>> round(float(expected_log_density(one, jnp.zeros((1, 1)))[0, 0]), 4)
        -2.0541
    """
    d = x.shape[1]
    constant = d / 2 * math.log(2 * math.pi)
    offset = _half_log_det(q.log_degrees, d) - jnp.sum(q.log_scale, axis=1)
    offset = offset - constant - d / 2 * jnp.exp(-q.log_count)
    return offset[:, None] - mahalanobis(x, q.means, factors(q)) / 2


def grad_expected(q: Components, weight: Array, first: Array, second: Array) -> Components:
    """The gradient of Σ_i r_ik E[log N(x_i; μ_k, Λ_k⁻¹)], derived by hand from equation D.3.

    With N, f, S of the examples that belong to a component, about its m:

        ∂/∂m = AᵀA f,    ∂/∂A_ej = -(A S)_ej,  e > j,    ∂/∂s_e = (A S)_ee A_ee - N
        ∂/∂log κ = N d / (2κ),    ∂/∂log η = N η/2 Σ_{e<d} (½ ψ'((ν-e)/2) - 1/ν)

    Args:
        q: Components.
        weight: (T,) N.
        first: (T, d) f.
        second: (T, d, d) S.

    Returns:
        Components, nats per unit.

    Example:
        >>> one = Components(jnp.zeros((1, 1)), *[jnp.zeros(1)] * 2, jnp.zeros((1, 1)),
        ...                  jnp.zeros((1, 0)))
        >>> ones = jnp.ones((1, 1, 1))
        >>> made = grad_expected(one, ones[0, 0], 2 * ones[0], 4 * ones)
        >>> made.means.tolist(), made.log_count.tolist(), made.log_scale.tolist()
        ([[2.0]], [0.5], [[3.0]])
    """
    d = q.means.shape[1]
    factor = factors(q)
    seen = jnp.sum(factor * first[:, None, :], axis=-1)
    of_means = jnp.sum(factor * seen[..., None], axis=1)
    product = matmul(factor, second)
    diagonal = jnp.diagonal(product, axis1=-2, axis2=-1)
    of_scale = diagonal * jnp.exp(-q.log_scale) - weight[:, None]
    below = -product[:, *np.tril_indices(d, -1)]
    empty = weight[:, None] == 0  # whatever the factor is
    of_means, of_scale, below = (jnp.where(empty, 0.0, a) for a in (of_means, of_scale, below))
    free = jnp.exp(q.log_degrees)
    slope = jnp.sum(trigamma(_halves(free, d)), axis=-1) / 2 - d / (free + (d - 1))
    return Components(
        of_means,
        weight * d / 2 * jnp.exp(-q.log_count),
        weight * free / 2 * slope,
        of_scale,
        below,
    )


def update(
    prior: BaseMeasure,
    points: Array,
    weight: Array,
    first: Array,
    second: Array,
    moments: Moments | None = None,
) -> tuple[Components, Array]:
    """The posterior of each component, given moments of its examples (equation D.2).

    Args:
        prior: BaseMeasure.
        points: (T, d) about which the moments are.
        weight: (T,) N.
        first: (T, d) f.
        second: (T, d, d) S.
        moments: of all examples, where the prior follows them.

    Returns:
        Components, and (T,) whether each scale matrix is one beyond rounding.

    Example:
        >>> zero = jnp.zeros((1, 1, 1))
        >>> q, _ = update(BaseMeasure(0.0, scale=3.0), zero[0], 2 + zero[0, 0], zero[0], 6 + zero)
        >>> round(float(jnp.exp(q.log_count[0])), 4), round(float(q.covariances[0, 0, 0]), 4)
        (3.0, 3.0)
    """
    d = points.shape[1]
    base = for_columns(prior, d, points.dtype, moments)
    count, degrees = base.count + weight, base.degrees + weight
    away = points - base.location[None, :]
    shift = (weight[:, None] * away + first) / count[:, None]  # m - m₀
    means = base.location[None, :] + shift
    back = away - shift  # p - m
    there = first + weight[:, None] * back
    about = second + first[:, :, None] * back[:, None, :] + back[:, :, None] * there[:, None, :]
    scale = base.scale[None] + (about + about.mT) / 2
    scale = scale + base.count * shift[:, :, None] * shift[:, None, :]
    covariance = scale / degrees[:, None, None]
    factor = inverse_factor(covariance)
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    eps = jnp.finfo(points.dtype).eps
    nearby = moved(points, -back, 8 * eps * jnp.sqrt(variance))
    means = jnp.where(means == points, nearby, means)
    regular = jnp.all(1 / diagonal**2 > 8 * d * eps * variance, axis=1)
    made = Components(
        means,
        jnp.log(count),
        jnp.log(weight + (base.degrees - (d - 1))),
        -jnp.log(diagonal),
        factor[:, *np.tril_indices(d, -1)],
    )
    return made, regular


def divergence(prior: BaseMeasure, q: Components, moments: Moments | None = None) -> Array:
    """The Kullback-Leibler divergence of each density from the prior (equation D.5).

    Args:
        prior: BaseMeasure.
        q: Components.
        moments: of all examples, where the prior follows them.

    Returns:
        (T,), nats.

    Example:
        >>> one = Components(jnp.ones((1, 1)), *[jnp.zeros(1)] * 2, jnp.zeros((1, 1)),
        ...                  jnp.zeros((1, 0)))
        >>> round(float(divergence(BaseMeasure(0.0, scale=1.0), one)[0]), 5)
        0.5
    """
    d = q.means.shape[1]
    base = for_columns(prior, d, q.means.dtype, moments)
    factor, free = factors(q), jnp.exp(q.log_degrees)
    degrees = free + (d - 1)
    log_ratio = q.log_count - math.log(base.count)
    of_means = d * (jnp.expm1(-log_ratio) + log_ratio)
    away = q.means - base.location[None, :]
    of_means += base.count * jnp.sum(jnp.sum(factor * away[:, None, :], axis=-1) ** 2, axis=-1)
    trace = jnp.sum(matmul(factor, base.root) ** 2, axis=(1, 2))
    log_det = d * jnp.log(degrees) + 2 * jnp.sum(q.log_scale, axis=1)
    halves = _halves(free, d)
    theirs = sum(math.lgamma((base.degrees - e) / 2) for e in range(d))
    gammas = theirs - jnp.sum(log_gamma(halves), axis=-1)
    gammas += (degrees - base.degrees) / 2 * jnp.sum(digamma(halves), axis=-1)
    return (of_means + trace - degrees * d + base.degrees * (log_det - base.log_det)) / 2 + gammas


def log_predictive(q: Components, x: Array) -> Array:
    """The log-density of the next example in each component (equation D.4).

    Args:
        q: Components.
        x: (n, d) floating.

    Returns:
        (T, n), nats.

    Example:
        >>> one = Components(jnp.zeros((1, 1)), *[jnp.zeros(1)] * 2, jnp.zeros((1, 1)),
        ...                  jnp.zeros((1, 0)))
        >>> round(float(jnp.exp(log_predictive(one, jnp.zeros((1, 1))))[0, 0]), 4)
        0.2251
    """
    d = x.shape[1]
    free = jnp.exp(q.log_degrees)
    degrees = free + (d - 1)
    log_share = -jnp.log1p(jnp.exp(-q.log_count))  # log κ/(κ+1)
    gammas = math.lgamma(d / 2) - log_beta(free / 2, jnp.full_like(free, d / 2))
    offset = gammas - d / 2 * (jnp.log(math.pi * degrees) - log_share)
    offset = offset - jnp.sum(q.log_scale, axis=1)
    ratio = (jnp.exp(log_share) / degrees)[:, None] * mahalanobis(x, q.means, factors(q))
    return offset[:, None] - ((free + d) / 2)[:, None] * jnp.log1p(ratio)


def marginal(q: Components, index: np.ndarray) -> Components:
    """What is known of some columns: the scale matrix of these, and fewer degrees of freedom.

    Args:
        q: Components.
        index: (e,) columns.

    Returns:
        Components of e columns.

    Example:
        >>> two = Components(jnp.array([[1.0, 2.0]]), *[jnp.zeros(1)] * 2, jnp.zeros((1, 2)),
        ...                  jnp.zeros((1, 1)))
        >>> marginal(two, np.array([1])).means.tolist()
        [[2.0]]
    """
    d, e = q.means.shape[1], len(index)
    free = jnp.exp(q.log_degrees)
    shrunk = (free + (d - 1)) / (free + (e - 1))
    scale = q.covariances[:, index[:, None], index[None, :]] * shrunk[:, None, None]
    factor = inverse_factor(scale)
    return Components(
        q.means[:, index],
        q.log_count,
        q.log_degrees,
        -jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)),
        factor[:, *np.tril_indices(e, -1)],
    )


def draw(q: Components, key: Array, index: Array) -> Array:
    """Draw an example from each of some components (equation D.4).

    Args:
        q: Components.
        key: a typed PRNG key.
        index: (num,) of which component.

    Returns:
        (num, d).

    Example:
        >>> one = Components(jnp.zeros((1, 2)), *[jnp.zeros(1)] * 2, jnp.zeros((1, 2)),
        ...                  jnp.zeros((1, 1)))
        >>> draw(one, jax.random.key(0), jnp.zeros(3, int)).shape
        (3, 2)
    """
    d, dtype = q.means.shape[1], q.means.dtype
    of_noise, of_width = jax.random.split(key)
    free = jnp.exp(q.log_degrees)
    noise = jax.random.normal(of_noise, (len(index), d), dtype)
    log_gamma = jax.random.loggamma(of_width, free[index] / 2, dtype=dtype)
    log_width = jnp.log((free + (d - 1)) / 2) + jnp.log1p(jnp.exp(-q.log_count))
    width = jnp.exp((log_width[index] - log_gamma) / 2)
    root = inverse_of_lower(factors(q))
    return q.means[index] + width[:, None] * einsum("nij,nj->ni", root[index], noise)


def _half_log_det(log_degrees: Array, d: int) -> Array:
    """(T,) ½ Σ_e (ψ((ν-e)/2) - log ν/2)."""
    free = jnp.exp(log_degrees)
    log_half = jnp.log((free + (d - 1)) / 2)
    return jnp.sum(digamma(_halves(free, d)) - log_half[:, None], axis=-1) / 2


def _halves(free: Array, d: int) -> Array:
    """(T, d) (ν - e) / 2."""
    return (free[:, None] + jnp.arange(d, dtype=free.dtype)[None, :]) / 2
