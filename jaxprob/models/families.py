r"""Densities of a block of features, one for each class: the parts that naive Bayes is made of.

Each is an exponential family, so what a maximum needs are sums over the examples. With m_ik ≥ 0 the
share that example i has in class k (its weight where that is its label, else 0), N_k = Σ_i m_ik:

**Gaussian**, mean μ_kj and scale σ_kj = e^(s_kj) of each feature. With x̄_k the weighted mean and
S_k = Σ_i m_ik (x_i - x̄_k)² the scatter, Q_k = S_k + N_k (x̄_k - μ_k)² is all that the
log-likelihood sees:

    ℓ = -Σ_k (Q_k / 2σ_k² + N_k log σ_k + N_k log(2π) / 2)                               (3.1)
    ∂ℓ/∂μ = N (x̄ - μ) / σ²,      ∂ℓ/∂s = Q / σ² - N                                     (3.2)
    -∂²ℓ/∂μ² = N / σ²,   -∂²ℓ/∂μ∂s = 2 N (x̄ - μ) / σ²,   -∂²ℓ/∂s² = 2 Q / σ²           (3.3)

so the maximum is μ = x̄, σ² = S / N. With ν examples more, at a distance of s₀ from the mean, it is
σ² = (S + ν s₀²) / (N + ν): the maximum a posteriori under the prior σ^(-ν) e^(-ν s₀² / 2σ²).

**Categorical**, logits z_kjv of the values v = 0, ..., M_j - 1 of feature j, p = softmax(z_kj), and
counts C_kjv = Σ_i m_ik 1{x_ij = v}. **Multinomial**, counts of d things, their total given: logits
z_kj, p = softmax(z_k), C_kj = Σ_i m_ik x_ij. With C the counts that share one softmax, N = Σ_v C_v:

    ℓ = Σ_v C_v log p_v,     ∂ℓ/∂z = C - N p,     -∂²ℓ/∂z∂zᵀ = N (diag p - p pᵀ)         (3.4)

**Bernoulli**, logit z_kj of feature j, is the categorical one of two values whose first logit is 0.

The maximum is p = C / N. With α examples more of each value it is p = (C + α) / (N + α M), the
smoothing of Laplace: the maximum a posteriori under a Dirichlet prior Π_v p_v^α.

Source: Bishop, Pattern Recognition and Machine Learning, 2006, sections 2.1-2.4; Chan, Golub and
LeVeque, Algorithms for computing the sample variance, American Statistician 37, 1983 (merging).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.numerics import log_sigmoid, log_softmax, moments, rmatvec, total
from jaxprob.numerics.control import only_if

_ROUNDING = 8.0  # times ε times a mean: a standard deviation as small is none
_FAR = 16.0  # squared distance of a class mean from the centre, in variances: 1 digit is lost


class Scales(NamedTuple):
    """Parameters of Gaussians: `mean` (K, d), and `log_scale` (K, d), or (d,) if they share it."""

    mean: Array
    log_scale: Array


class Logits(NamedTuple):
    """Parameters of Bernoulli (K, d), multinomial (K, d) and categorical features (K, ΣM)."""

    logits: Array


class Moments(NamedTuple):
    """What Gaussians need to know of the examples."""

    weight: Array  # (K,) N
    mean: Array  # (K, d) x̄, zero where there is no example
    scatter: Array  # (K, d) S


class Counts(NamedTuple):
    """What the discrete families need to know of the examples."""

    weight: Array  # (K,) N
    count: Array  # (K, d), (K, 2, d) or (K, ΣM)
    constant: Array  # () Σ of what does not depend on parameters, nats


class Family(Protocol):
    """A density for each class of some of the columns of x; hashable settings."""

    @property
    def columns(self) -> tuple[int, ...] | None:
        """Of x; all where None."""
        ...

    @property
    def smoothed(self) -> bool:
        """Whether a class without examples has a maximum too."""
        ...

    @property
    def expected(self) -> str:
        """What the entries of x must be, in words."""
        ...

    def valid(self, x: Any, xp: Any) -> Any:
        """(n, d) bool, or () if all are: which entries can be."""
        ...

    def init(self, num_features: int, num_classes: int, dtype: Any) -> Any:
        """Parameters of the most even densities."""
        ...

    def width(self, params: Any) -> int:
        """How many columns of x the parameters are for."""
        ...

    def names(self, columns: list[str]) -> list[list[str]]:
        """For each leaf of the parameters what the entries of a row are called."""
        ...

    def canonical(self, params: Any) -> Any:
        """Of the parameters with the same density, those whose logits sum to zero."""
        ...

    def log_probs(self, params: Any, x: Array) -> Array:
        """(n, K) the log-densities, nats, without what no class and no parameter changes."""
        ...

    def constant(self, x: Array) -> Array:
        """(n,) what `log_probs` leaves out, nats."""
        ...

    def statistics(self, x: Array, member: Array) -> Any:
        """What a maximum needs to know of examples (n, d), and the share (n, K) in each class."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """The statistics of two sets of examples together."""
        ...

    def log_likelihood(self, params: Any, statistics: Any) -> Array:
        """Σ_ik m_ik log p_k(x_i), nats."""
        ...

    def grad(self, params: Any, statistics: Any) -> Any:
        """Its derivatives (3.2, 3.4)."""
        ...

    def curve(self, params: Any, statistics: Any, along: Any) -> Any:
        """Minus its Hessian (3.3, 3.4), times a tree like the parameters."""
        ...

    def log_prior(self, params: Any) -> Array:
        """Of the maximum a posteriori, up to a constant, nats."""
        ...

    def estimate(self, statistics: Any) -> tuple[Any, Array, Any]:
        """The maximum a posteriori; () whether none is finite, and along what it rises for ever."""
        ...

    def sample(self, params: Any, key: Array, y: Array, x: Array) -> Array:
        """(n, d) features of examples of given classes; x as it is for what the model is given."""
        ...


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
            squares = (z * z) @ jnp.ones(x.shape[1], x.dtype)  # as fast as it gets
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


class _Counted:
    """What the discrete families share."""

    smoothing: float

    @property
    def smoothed(self) -> bool:
        """Whether α is positive."""
        return self.smoothing > 0

    def width(self, params: Logits) -> int:
        """As many as logits."""
        return params.logits.shape[1]

    def constant(self, x: Array) -> Array:
        """None."""
        return jnp.zeros(x.shape[0], x.dtype)

    def merge(self, a: Counts, b: Counts) -> Counts:
        """The sum."""
        return Counts(a.weight + b.weight, a.count + b.count, a.constant + b.constant)


@dataclass(frozen=True)
class Bernoulli(_Counted):
    """Features that are 0 or 1, independent within a class (3.4).

    Attributes:
        columns: of x; all where None.
        smoothing: α, of examples more of each value in each class.
    """

    columns: tuple[int, ...] | None = None
    smoothing: float = 1.0

    expected = "zeros and ones"

    def valid(self, x: Any, xp: Any) -> Any:
        """(n, d)."""
        return (x == 0) | (x == 1)

    def init(self, num_features: int, num_classes: int, dtype: Any) -> Logits:
        """Halves."""
        return Logits(jnp.zeros((num_classes, num_features), dtype))

    def names(self, columns: list[str]) -> list[list[str]]:
        """Logits of a one."""
        return [columns]

    def canonical(self, params: Logits) -> Logits:
        """As they are."""
        return params

    def log_probs(self, params: Logits, x: Array) -> Array:
        """(n, K)."""
        return x @ params.logits.T + jnp.sum(log_sigmoid(-params.logits), axis=1)[None, :]

    def statistics(self, x: Array, member: Array) -> Counts:
        """The counts of zeros and of ones; as a difference, none would be a few by rounding."""
        both = jnp.stack([rmatvec(1 - x, member), rmatvec(x, member)], axis=1)
        return Counts(total(member), both, jnp.zeros((), x.dtype))

    def log_likelihood(self, params: Logits, statistics: Counts) -> Array:
        """Equation 3.4."""
        ones, zeros = self._both(statistics)
        return jnp.sum(ones * log_sigmoid(params.logits) + zeros * log_sigmoid(-params.logits))

    def _both(self, known: Counts) -> tuple[Array, Array]:
        return known.count[:, 1], known.count[:, 0]

    def grad(self, params: Logits, statistics: Counts) -> Logits:
        """Equation 3.4."""
        ones, zeros = self._both(statistics)
        z = params.logits
        return Logits(ones * jax.nn.sigmoid(-z) - zeros * jax.nn.sigmoid(z))

    def curve(self, params: Logits, statistics: Counts, along: Logits) -> Logits:
        """Equation 3.4."""
        z = params.logits
        variance = jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
        return Logits(statistics.weight[:, None] * variance * along.logits)

    def log_prior(self, params: Logits) -> Array:
        """α (log p + log(1 - p))."""
        z = params.logits
        return self.smoothing * jnp.sum(log_sigmoid(z) + log_sigmoid(-z))

    def estimate(self, statistics: Counts) -> tuple[Logits, Array, Logits]:
        """Shares; there is no finite maximum where a value is never seen."""
        ones, zeros = (a + self.smoothing for a in self._both(statistics))
        alone = statistics.weight[:, None] > 0
        never, always = (ones <= 0) & alone, (zeros <= 0) & alone
        least = jnp.finfo(ones.dtype).eps * (ones + zeros)
        ones, zeros = (jnp.where(a > 0, a, jnp.where(alone, least, 1.0)) for a in (ones, zeros))
        direction = always.astype(ones.dtype) - never
        return Logits(jnp.log(ones) - jnp.log(zeros)), jnp.any(never | always), Logits(direction)

    def sample(self, params: Logits, key: Array, y: Array, x: Array) -> Array:
        """Zeros and ones."""
        z = params.logits[y]
        return (jax.random.logistic(key, z.shape, z.dtype) < z).astype(z.dtype)


@dataclass(frozen=True)
class Multinomial(_Counted):
    """Counts of d things, such as words of a text, given how many there are in all (3.4).

    Attributes:
        columns: of x; all where None.
        smoothing: α, added to the count of each thing in each class.
    """

    columns: tuple[int, ...] | None = None
    smoothing: float = 1.0

    expected = "counts, of at least 0"

    def valid(self, x: Any, xp: Any) -> Any:
        """(n, d)."""
        return x >= 0

    def init(self, num_features: int, num_classes: int, dtype: Any) -> Logits:
        """Even ones."""
        return Logits(jnp.zeros((num_classes, num_features), dtype))

    def names(self, columns: list[str]) -> list[list[str]]:
        """One logit each."""
        return [columns]

    def canonical(self, params: Logits) -> Logits:
        """Centred."""
        return Logits(params.logits - jnp.mean(params.logits, axis=1, keepdims=True))

    def log_probs(self, params: Logits, x: Array) -> Array:
        """(n, K)."""
        return x @ log_softmax(params.logits).T

    def constant(self, x: Array) -> Array:
        """The logarithm of the multinomial coefficient."""
        every = jax.lax.lgamma(jnp.sum(x, axis=1) + 1)
        return every - jnp.sum(jax.lax.lgamma(x + 1), axis=1)

    def statistics(self, x: Array, member: Array) -> Counts:
        """The counts in each class."""
        constant = jnp.vdot(total(member.T), self.constant(x))
        return Counts(total(member), rmatvec(x, member), constant)

    def log_likelihood(self, params: Logits, statistics: Counts) -> Array:
        """Equation 3.4."""
        return jnp.sum(statistics.count * log_softmax(params.logits)) + statistics.constant

    def grad(self, params: Logits, statistics: Counts) -> Logits:
        """Equation 3.4."""
        return Logits(score(params.logits, statistics.count))

    def curve(self, params: Logits, statistics: Counts, along: Logits) -> Logits:
        """Equation 3.4."""
        return Logits(curve(params.logits, statistics.count, along.logits))

    def log_prior(self, params: Logits) -> Array:
        """α Σ log p."""
        return self.smoothing * jnp.sum(log_softmax(params.logits))

    def estimate(self, statistics: Counts) -> tuple[Logits, Array, Logits]:
        """Shares; there is no finite maximum where a thing is never seen."""
        logits, lacking = _shares(statistics.count + self.smoothing)
        return Logits(logits), jnp.any(lacking > 0), Logits(-lacking)

    def sample(self, params: Logits, key: Array, y: Array, x: Array) -> Array:
        """As many things as there are in x (n, d), dealt anew."""
        p = jax.nn.softmax(params.logits)
        dtype = params.logits.dtype
        return jax.random.multinomial(key, jnp.sum(x, axis=1), p[y], dtype=dtype)


@dataclass(frozen=True)
class Categorical(_Counted):
    """Features with a few values 0, ..., M - 1 each, independent within a class (3.4).

    A value that no example has gets its share by the smoothing. One beyond M - 1 has density 0.

    Attributes:
        num_categories: M, or one for each column.
        columns: of x; all where None.
        smoothing: α, of examples more of each value in each class.
    """

    num_categories: int | tuple[int, ...]
    columns: tuple[int, ...] | None = None
    smoothing: float = 1.0

    expected = "integers from 0 up to the number of categories less 1"

    def _sizes(self, num_features: int) -> np.ndarray:
        """(d,) M_j."""
        return np.broadcast_to(np.asarray(self.num_categories, np.int32), num_features)

    def valid(self, x: Any, xp: Any) -> Any:
        """(n, d)."""
        return (x >= 0) & (x < self._sizes(x.shape[1])[None, :]) & (x == xp.floor(x))

    def init(self, num_features: int, num_classes: int, dtype: Any) -> Logits:
        """Even ones."""
        return Logits(jnp.zeros((num_classes, int(self._sizes(num_features).sum())), dtype))

    def width(self, params: Logits) -> int:
        """As many as have categories."""
        return self._width(params.logits)

    def _width(self, flat: Array) -> int:
        own = self.num_categories
        return len(own) if isinstance(own, tuple) else flat.shape[1] // own

    def _places(self, num_features: int) -> tuple[np.ndarray, np.ndarray]:
        """Column and value of each of the logits (ΣM,)."""
        sizes = self._sizes(num_features)
        return np.repeat(np.arange(len(sizes)), sizes), np.concatenate(
            [np.arange(m) for m in sizes]
        )

    def _table(self, flat: Array, fill: float) -> Array:
        """(K, d, M) from (K, ΣM), filled up where a column has fewer values."""
        column, value = self._places(self._width(flat))
        index = np.full((column[-1] + 1, value.max() + 1), len(column))
        index[column, value] = np.arange(len(column))
        return flat.at[:, index].get(mode="fill", fill_value=fill)

    def _flat(self, table: Array) -> Array:
        """The inverse of `_table`."""
        column, value = self._places(table.shape[1])
        return table[:, column, value]

    def _log_p(self, params: Logits) -> Array:
        """(K, ΣM)."""
        return self._flat(log_softmax(self._table(params.logits, -jnp.inf)))

    def names(self, columns: list[str]) -> list[list[str]]:
        """Each value of each column."""
        column, value = self._places(len(columns))
        return [[f"{columns[j]} = {v}" for j, v in zip(column, value, strict=True)]]

    def canonical(self, params: Logits) -> Logits:
        """Centred, column by column."""
        z = params.logits
        one = jnp.sum(self._table(jnp.ones_like(z), 0.0), axis=2, keepdims=True)
        table = self._table(z, 0.0)
        return Logits(self._flat(table - jnp.sum(table, axis=2, keepdims=True) / one))

    def _index(self, x: Array) -> Array:
        """(n, d) of the logits, one too many for what is no category."""
        sizes = self._sizes(x.shape[1])
        first = np.cumsum(sizes) - sizes
        index = x.astype(jnp.int32) + jnp.asarray(first)[None, :]
        return jnp.where(self.valid(x, jnp), index, int(sizes.sum()))

    def log_probs(self, params: Logits, x: Array) -> Array:
        """(n, K)."""
        table, index = self._log_p(params).T, self._index(x).T

        def with_column(j: Array, sums: Array) -> Array:
            return sums + table.at[index[j]].get(mode="fill", fill_value=-jnp.inf)

        none = jnp.zeros((x.shape[0], table.shape[1]), table.dtype)
        return jax.lax.fori_loop(0, x.shape[1], with_column, none)

    def statistics(self, x: Array, member: Array) -> Counts:
        """The counts of each value."""
        index, size = self._index(x).T, int(self._sizes(x.shape[1]).sum())

        def with_column(j: Array, counts: Array) -> Array:
            return counts + jax.ops.segment_sum(member, index[j], size)

        none = jnp.zeros((size, member.shape[1]), member.dtype)
        count = jax.lax.fori_loop(0, x.shape[1], with_column, none)
        return Counts(total(member), count.T, jnp.zeros((), x.dtype))

    def log_likelihood(self, params: Logits, statistics: Counts) -> Array:
        """Equation 3.4."""
        return jnp.sum(statistics.count * self._log_p(params))

    def grad(self, params: Logits, statistics: Counts) -> Logits:
        """Equation 3.4."""
        logits, count = self._table(params.logits, -jnp.inf), self._table(statistics.count, 0.0)
        return Logits(self._flat(score(logits, count)))

    def curve(self, params: Logits, statistics: Counts, along: Logits) -> Logits:
        """Equation 3.4."""
        logits, count = self._table(params.logits, -jnp.inf), self._table(statistics.count, 0.0)
        return Logits(self._flat(curve(logits, count, self._table(along.logits, 0.0))))

    def log_prior(self, params: Logits) -> Array:
        """α Σ log p."""
        return self.smoothing * jnp.sum(self._log_p(params))

    def estimate(self, statistics: Counts) -> tuple[Logits, Array, Logits]:
        """Shares; there is no finite maximum where a value is never seen."""
        count = self._table(statistics.count + self.smoothing, 0.0)
        log_count, lacking = _logs(count, jnp.sum(count, axis=2, keepdims=True))
        log_count, lacking = self._flat(log_count), self._flat(lacking)
        return self.canonical(Logits(log_count)), jnp.any(lacking > 0), Logits(-lacking)

    def sample(self, params: Logits, key: Array, y: Array, x: Array) -> Array:
        """Values."""
        z = self._table(params.logits, -jnp.inf)[y]
        return jax.random.categorical(key, z).astype(z.dtype)


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
            return (second - first**2 / jnp.where(weight[k, 0] > 0, weight[k, 0], 1.0))[0]

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
    by_x = member.T @ dx
    by_square = member.T @ (x * dx) - mean * by_x
    d_scatter = second - 2 * apart * first + d_weight * apart**2 + 2 * by_square
    return (mean, scatter), ((changed + by_x) / some, d_scatter)


def _centre(x: Array) -> Array:
    """(d,) somewhere among the examples."""
    return jax.lax.stop_gradient(jnp.mean(x[:: max(1, x.shape[0] // 1024)], axis=0))


def score(logits: Array, count: Array) -> Array:
    """The derivative of Σ_v C_v log p_v in the logits (equation 3.4).

    Args:
        logits: (..., M) of p = softmax.
        count: (..., M) C.

    Returns:
        (..., M), nats.

    Example:
        >>> score(jnp.zeros(2), jnp.array([1.0, 3.0])).tolist()
        [-1.0, 1.0]
    """
    return count - jnp.sum(count, axis=-1, keepdims=True) * jax.nn.softmax(logits)


def curve(logits: Array, count: Array, v: Array) -> Array:
    """Minus the Hessian of Σ_v C_v log p_v in the logits, times v (equation 3.4).

    Of p_k (v_k - Σ_j p_j v_j) the part with j = k cancels, so it is left out of both sums: all
    digits are kept where p_k is near 1.

    Args:
        logits: (..., M) of p = softmax.
        count: (..., M) C.
        v: (..., M).

    Returns:
        (..., M), nats.

    Example:
        >>> curve(jnp.zeros(2), jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0])).tolist()
        [1.0, -1.0]
    """
    p = jax.nn.softmax(logits)
    every = jnp.sum(count, axis=-1, keepdims=True)
    return every * p * (v * _of_others(p) - _of_others(p * v))


def _times(a: Array, v: Array) -> Array:
    """The product, zero where v is, also where a has overflowed."""
    return jnp.where(v == 0, 0.0, a * v)


def _of_others(a: Array) -> Array:
    """Σ_{j≠k} a_j over the last axis, without a difference."""
    last = a.ndim - 1
    before = jax.lax.cumsum(a, last)
    after = jax.lax.cumsum(a, last, reverse=True)
    none = jnp.zeros_like(a[..., :1])
    before = jnp.concatenate([none, before[..., :-1]], axis=last)
    return before + jnp.concatenate([after[..., 1:], none], axis=last)


def _shares(count: Array) -> tuple[Array, Array]:
    """Centred logits of C / N over the last axis, and 1 where nothing is counted but elsewhere."""
    log_count, lacking = _logs(count, jnp.sum(count, axis=-1, keepdims=True))
    return log_count - jnp.mean(log_count, axis=-1, keepdims=True), lacking


def _logs(count: Array, every: Array) -> tuple[Array, Array]:
    """Logarithms of C; of as little as rounding leaves of N where C is 0, and 1 there, else 0.

    The likelihood is then as near its supremum as rounding can tell.
    """
    lacking = (count <= 0) & (every > 0)
    least = jnp.finfo(count.dtype).eps * jnp.where(every > 0, every, 1.0)
    filled = jnp.where(every > 0, jnp.where(lacking, least, count), 1.0)
    return jnp.log(filled), lacking.astype(count.dtype)


def columns_of(family: Family, x: Any) -> Any:
    """The columns of x (..., d) that a family describes, without a copy where they are all.

    Args:
        family: such as `Gaussian()`.
        x: (..., d).

    Returns:
        (..., d of the family).

    Example:
        >>> columns_of(Gaussian(columns=(1,)), np.eye(2)).tolist()
        [[0.0], [1.0]]
    """
    columns = family.columns
    if columns is None or columns == tuple(range(x.shape[-1])):
        return x
    if columns == tuple(range(columns[0], columns[-1] + 1)):
        return x[..., columns[0] : columns[-1] + 1]
    return x[..., np.asarray(columns)]


def check_columns(families: tuple[Family, ...], num_columns: int) -> None:
    """Raise a ValueError unless x has the columns that families describe.

    Args:
        families: some.
        num_columns: of x.

    Example:
        >>> check_columns((Gaussian((1,)),), 2)
    """
    beyond = [c for family in families for c in family.columns or () if c >= num_columns]
    if beyond:
        raise ValueError(f"x: expected at least {max(beyond) + 1} columns, got {num_columns}")
    for family in families:
        sizes = getattr(family, "num_categories", 1)
        columns = num_columns if family.columns is None else len(family.columns)
        if isinstance(sizes, tuple) and len(sizes) != columns:
            raise ValueError(f"x: expected {len(sizes)} columns of categories, got {columns}")


def check_families(families: Any) -> tuple[Any, ...]:
    """Families as a tuple, their settings checked; no two describe the same column.

    Args:
        families: some, or one.

    Returns:
        A tuple of them.

    Raises:
        TypeError: for what is no family.
        ValueError: for none, for columns that overlap or are no integers from 0 on, and for
            negative smoothing.

    Example:
        >>> check_families([Gaussian()])
        (Gaussian(columns=None, shared_scale=False, prior_count=0.0, prior_scale=1.0),)
    """
    kinds = Gaussian, Bernoulli, Multinomial, Categorical
    some = (families,) if isinstance(families, kinds) else tuple(families)
    if not some:
        raise ValueError("features: expected at least one family, such as Gaussian(), got none")
    for family in some:
        if not isinstance(family, kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"features: expected one of {names}, got {family!r}")
        _check_settings(family)
    columns = [family.columns for family in some]
    if len(some) > 1:
        if None in columns:
            raise ValueError("features: expected columns for each of several families, got None")
        every = [c for block in columns for c in block]  # pyright: ignore[reportOptionalIterable]
        twice = sorted({c for c in every if every.count(c) > 1})
        if twice:
            raise ValueError(f"features: expected each column in one family, got {twice} in two")
    return some


def _check_settings(family: Any) -> None:
    name = type(family).__name__
    columns = family.columns
    if columns is not None:
        whole = isinstance(columns, tuple) and all(type(c) is int and c >= 0 for c in columns)
        if not (whole and columns and len(set(columns)) == len(columns)):
            raise ValueError(
                f"columns of {name}: expected a tuple of different integers from 0 on, "
                f"got {columns!r}"
            )
    for setting in ("smoothing", "prior_count", "prior_scale"):
        value = getattr(family, setting, 0.0)
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise ValueError(f"{setting} of {name}: expected a number of at least 0, got {value!r}")
    if isinstance(family, Categorical):
        given = family.num_categories
        sizes = given if isinstance(given, tuple) else (given,)
        if not sizes or any(type(m) is not int or m < 1 for m in sizes):
            raise ValueError(f"num_categories: expected integers of at least 1, got {given!r}")
        if isinstance(given, tuple) and columns is not None and len(given) != len(columns):
            raise ValueError(
                f"num_categories: expected one for each of {len(columns)} columns, got {len(given)}"
            )
