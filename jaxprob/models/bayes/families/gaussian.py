r"""Normal features, independent within a class.

A Gaussian for each class k and feature j has mean μ_kj and scale σ_kj = e^(s_kj). With m_ik ≥ 0 the
share that example i has in class k, N_k = Σ_i m_ik, x̄_k the weighted mean and
S_k = Σ_i m_ik (x_i - x̄_k)² the scatter, Q_k = S_k + N_k (x̄_k - μ_k)² is all that the
log-likelihood sees:

    ℓ = -Σ_k (Q_k / 2σ_k² + N_k log σ_k + N_k log(2π) / 2)                               (3.1)
    ∂ℓ/∂μ = N (x̄ - μ) / σ²,      ∂ℓ/∂s = Q / σ² - N                                     (3.2)
    -∂²ℓ/∂μ² = N / σ²,   -∂²ℓ/∂μ∂s = 2 N (x̄ - μ) / σ²,   -∂²ℓ/∂s² = 2 Q / σ²           (3.3)

so the maximum is μ = x̄, σ² = S / N. With ν examples more, at a distance of s₀ from the mean, it is
σ² = (S + ν s₀²) / (N + ν): the maximum a posteriori under the prior σ^(-ν) e^(-ν s₀² / 2σ²).

Source: Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3; Chan, Golub and
LeVeque, Algorithms for computing the sample variance, American Statistician 37, 1983.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics import moments, total
from jaxprob.numerics.control import only_if
from jaxprob.numerics.products import matmul

_ROUNDING = 8.0  # times ε times a mean: a standard deviation as small is none
_FAR = 16.0  # squared distance of a class mean from the centre, in variances: 1 digit is lost


class Scales(NamedTuple):
    """Parameters of Gaussians: `mean` (K, d), and `log_scale` (K, d), or (d,) if they share it."""

    mean: Array
    log_scale: Array


class Moments(NamedTuple):
    """What Gaussians need to know of the examples."""

    weight: Array  # (K,) N
    mean: Array  # (K, d) x̄, zero where there is no example
    scatter: Array  # (K, d) S


@dataclass(frozen=True)
class Gaussian:
    """Normal features, independent within a class (3.1).

    Attributes:
        columns: of x; all where None.
        shared_scale: whether all classes have the same scales.
        prior_count: ν, of examples at a distance of `prior_scale` from the mean of each class.
        prior_scale: s₀, in the unit of the features.
    """

    columns: tuple[int, ...] | None = None
    shared_scale: bool = False
    prior_count: float = 0.0
    prior_scale: float = 1.0

    smoothed = False
    expected = "finite numbers"

    def valid(self, x: Any, xp: Any) -> Any:
        """All that is finite."""
        return xp.ones((), bool)

    def init(self, num_features: int, num_classes: int, dtype: Any) -> Scales:
        """Standard normal ones."""
        mean = jnp.zeros((num_classes, num_features), dtype)
        return Scales(mean, mean[0] if self.shared_scale else mean)

    def width(self, params: Scales) -> int:
        """As many as means."""
        return params.mean.shape[1]

    def names(self, columns: list[str]) -> list[list[str]]:
        """Means, then scales."""
        return [[f"{c} mean" for c in columns], [f"{c} log scale" for c in columns]]

    def canonical(self, params: Scales) -> Scales:
        """As they are."""
        return params

    def log_probs(self, params: Scales, x: Array) -> Array:
        """(n, K), one class after another."""
        half = x.shape[1] * math.log(2 * math.pi) / 2

        def of_class(own: Scales) -> Array:
            z = (x - own.mean[None, :]) * jnp.exp(-own.log_scale)[None, :]
            squares = matmul(z * z, jnp.ones(x.shape[1], x.dtype))  # as fast as it gets
            return -squares / 2 - jnp.sum(own.log_scale) - half

        return jax.lax.map(of_class, Scales(params.mean, self._each(params))).T

    def constant(self, x: Array) -> Array:
        """None."""
        return jnp.zeros(x.shape[0], x.dtype)

    def statistics(self, x: Array, member: Array) -> Moments:
        """Weights, means and scatter."""
        return Moments(total(member), *_mean_and_scatter(x, member))

    def merge(self, a: Moments, b: Moments) -> Moments:
        """By Chan's formula."""
        weight = a.weight + b.weight
        share = (b.weight / jnp.where(weight > 0, weight, 1.0))[:, None]
        apart = b.mean - a.mean
        scatter = a.scatter + b.scatter + a.weight[:, None] * share * apart**2
        return Moments(weight, a.mean + share * apart, scatter)

    def _squares(self, params: Scales, known: Moments) -> Array:
        """(K, d) Q."""
        return known.scatter + known.weight[:, None] * (known.mean - params.mean) ** 2

    def log_likelihood(self, params: Scales, statistics: Moments) -> Array:
        """Equation 3.1."""
        n = statistics.weight[:, None]
        log_scale = self._each(params)
        scaled = self._squares(params, statistics) * jnp.exp(-2 * log_scale)
        return -jnp.sum(scaled / 2 + n * (log_scale + math.log(2 * math.pi) / 2))

    def grad(self, params: Scales, statistics: Moments) -> Scales:
        """Equation 3.2."""
        precision, n = jnp.exp(-2 * self._each(params)), statistics.weight[:, None]
        by_mean = n * (statistics.mean - params.mean) * precision
        by_scale = self._squares(params, statistics) * precision - n
        return Scales(by_mean, self._gathered(by_scale))

    def curve(self, params: Scales, statistics: Moments, along: Scales) -> Scales:
        """Equation 3.3."""
        precision, n = jnp.exp(-2 * self._each(params)), statistics.weight[:, None]
        mixed = 2 * n * (statistics.mean - params.mean) * precision
        squares = 2 * self._squares(params, statistics) * precision
        along_scale = self._each(along)
        by_mean = _times(n * precision, along.mean) + _times(mixed, along_scale)
        by_scale = _times(mixed, along.mean) + _times(squares, along_scale)
        return Scales(by_mean, self._gathered(by_scale))

    def _each(self, params: Scales) -> Array:
        """(K, d) the logarithms of the scales."""
        return jnp.broadcast_to(params.log_scale, params.mean.shape)

    def _gathered(self, by_scale: Array) -> Array:
        return jnp.sum(by_scale, axis=0) if self.shared_scale else by_scale

    def log_prior(self, params: Scales) -> Array:
        """-ν (s + s₀² / 2σ²)."""
        spread = self.prior_scale**2 * jnp.exp(-2 * params.log_scale)
        return -self.prior_count * jnp.sum(params.log_scale + spread / 2)

    def estimate(self, statistics: Moments) -> tuple[Scales, Array, Scales]:
        """Means and variances; there is no maximum where one is zero, but for rounding."""
        weight, scatter = statistics.weight[:, None], statistics.scatter
        if self.shared_scale:
            weight, scatter = jnp.sum(weight), jnp.sum(scatter, axis=0)
        scatter = scatter + self.prior_count * self.prior_scale**2
        variance = scatter / jnp.where(weight > 0, weight + self.prior_count, 1.0)
        least = (_ROUNDING * jnp.finfo(variance.dtype).eps * statistics.mean) ** 2
        least = jnp.max(least, axis=0) if self.shared_scale else least
        flat = (variance <= least) & (weight > 0)
        tiny = jnp.finfo(variance.dtype).tiny
        log_scale = jnp.log(jnp.where(variance > 0, variance, jnp.where(flat, tiny, 1.0))) / 2
        direction = Scales(jnp.zeros_like(statistics.mean), -flat.astype(variance.dtype))
        return Scales(statistics.mean, log_scale), jnp.any(flat), direction

    def sample(self, params: Scales, key: Array, y: Array, x: Array) -> Array:
        """Normal variates."""
        scale = jnp.exp(self._each(params))
        noise = jax.random.normal(key, (len(y), params.mean.shape[1]), params.mean.dtype)
        return params.mean[y] + scale[y] * noise


@jax.custom_jvp
def _mean_and_scatter(x: Array, member: Array) -> tuple[Array, Array]:
    """(K, d) each, from one pass; the scatter from another one where a class is far from all."""
    centre, weight = _centre(x), total(member)[:, None]
    first, second = moments(x, centre, member)
    mean = first / jnp.where(weight > 0, weight, 1.0)
    scatter = jnp.maximum(second - first * mean, 0.0)
    far = jnp.any(first * mean > _FAR * scatter)

    def again(mean: Array) -> Array:
        def of_class(k: Array) -> Array:
            first, second = moments(x, centre + mean[k], member[:, k, None])
            rest = second - first**2 / jnp.where(weight[k, 0] > 0, weight[k, 0], 1.0)
            lost = rest <= _ROUNDING * jnp.finfo(x.dtype).eps * second  # nothing but rounding
            return jnp.where(lost, 0.0, rest)[0]

        return jax.lax.map(of_class, jnp.arange(len(mean)))

    scatter = only_if(far, again, scatter, mean)
    return jnp.where(weight > 0, centre[None, :] + mean, 0.0), scatter


@_mean_and_scatter.defjvp
def _(primals: tuple, tangents: tuple):
    (x, member), (dx, dm) = primals, tangents
    mean, scatter = _mean_and_scatter(x, member)
    centre, weight = _centre(x), total(member)[:, None]
    some, apart = jnp.where(weight > 0, weight, 1.0), mean - centre[None, :]
    first, second = moments(x, centre, dm)
    d_weight = jnp.sum(dm, axis=0)[:, None]
    changed = first - d_weight * apart  # Σ dm (x - mean)
    by_x = matmul(member.T, dx)
    by_square = matmul(member.T, x * dx) - mean * by_x
    d_scatter = second - 2 * apart * first + d_weight * apart**2 + 2 * by_square
    return (mean, scatter), ((changed + by_x) / some, d_scatter)


def _centre(x: Array) -> Array:
    """(d,) somewhere among the examples."""
    return jax.lax.stop_gradient(jnp.mean(x[:: max(1, x.shape[0] // 1024)], axis=0))


def _times(a: Array, v: Array) -> Array:
    """The product, zero where v is, also where a has overflowed."""
    return jnp.where(v == 0, 0.0, a * v)
