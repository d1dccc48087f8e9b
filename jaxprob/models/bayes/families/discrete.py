r"""Features that are counted: zeros and ones, a few values, or numbers of things.

With m_ik ≥ 0 the share that example i has in class k. **Categorical**, logits z_kjv of the values
v = 0, ..., M_j - 1 of feature j, p = softmax(z_kj), and counts C_kjv = Σ_i m_ik 1{x_ij = v}.
**Multinomial**, counts of d things, their total given: logits z_kj, p = softmax(z_k),
C_kj = Σ_i m_ik x_ij. With C the counts that share one softmax, N = Σ_v C_v:

    ℓ = Σ_v C_v log p_v,     ∂ℓ/∂z = C - N p,     -∂²ℓ/∂z∂zᵀ = N (diag p - p pᵀ)         (3.4)

**Bernoulli**, logit z_kj of feature j, is the categorical one of two values whose first logit is 0.

The maximum is p = C / N. With α examples more of each value it is p = (C + α) / (N + α M), the
smoothing of Laplace: the maximum a posteriori under a Dirichlet prior Π_v p_v^α.

Source: Bishop, Pattern Recognition and Machine Learning, 2006, sections 2.1, 2.2 and 2.4.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.numerics import log_sigmoid, log_softmax, rmatvec, total
from jaxprob.numerics.products import matmul, vdot


class Logits(NamedTuple):
    """Parameters of Bernoulli (K, d), multinomial (K, d) and categorical features (K, ΣM)."""

    logits: Array


class Counts(NamedTuple):
    """What the discrete families need to know of the examples."""

    weight: Array  # (K,) N
    count: Array  # (K, d), (K, 2, d) or (K, ΣM)
    constant: Array  # () Σ of what does not depend on parameters, nats


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
        return matmul(x, params.logits.T) + jnp.sum(log_sigmoid(-params.logits), axis=1)[None, :]

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
        return matmul(x, log_softmax(params.logits).T)

    def constant(self, x: Array) -> Array:
        """The logarithm of the multinomial coefficient."""
        every = jax.lax.lgamma(jnp.sum(x, axis=1) + 1)
        return every - jnp.sum(jax.lax.lgamma(x + 1), axis=1)

    def statistics(self, x: Array, member: Array) -> Counts:
        """The counts in each class."""
        constant = vdot(total(member.T), self.constant(x))
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
