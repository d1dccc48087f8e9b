r"""Draws from the posterior of a Dirichlet-process mixture itself: collapsed Gibbs sampling.

Sticks, means and precisions are integrated out; what is left is in which component each example
is. Given the others, of which n_k are in component k, example i is in it with probability

    p(z_i = k | z_-i, x) ∝ n_k p(x_i | those in k),        or in a new one ∝ α p(x_i)      (D.14)

with the Student densities of equation D.4. A sweep draws this for every example in turn. Then α is
drawn, with an auxiliary η, from what the number K of components says of it:

    η ~ Beta(α + 1, n),        α ~ Gamma(s₁ + K - u, s₂ - log η)
    u = 0 with odds (s₁ + K - 1) : n (s₂ - log η), else 1                                  (D.15)

Scale matrices are kept as inverses, which an example changes by a matrix of rank one, and computed
anew with every sweep. The density of the next example, given a draw of z and α, is

    Σ_k n_k / (n + α) p(x | those in k) + α / (n + α) p(x)                                 (D.16)

Source: Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000,
algorithm 3; Escobar and West, Bayesian density estimation and inference using mixtures, JASA 90,
1995, section 6.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Variables
from jaxprob.contract.settings import whole_number
from jaxprob.data.arrays import check_array
from jaxprob.data.checks import check_data
from jaxprob.models.mixtures.dirichlet import normal_wishart, priors
from jaxprob.models.mixtures.dirichlet.normal_wishart import Components
from jaxprob.models.mixtures.dirichlet.priors import BaseMeasure, Moments, NormalWishart
from jaxprob.models.mixtures.dirichlet.settings import check_alpha, check_key
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import inverse_of_lower, outer_moments
from jaxprob.numerics.products import matmul, vdot

_MOST = 50  # components, where not said


class Samples(NamedTuple):
    """Draws from the posterior, one a sweep.

    Attributes:
        assignments: (S, n) int32, in which component each example is; the numbers mean nothing.
        num_components: (S,) int32, how many have examples.
        alpha: (S,).
        full: (S,) whether, during the sweep, some example found no room for a component of its own:
            draws are then from a posterior with at most so many. Raise `max_components`.
    """

    assignments: Array
    num_components: Array
    alpha: Array
    full: Array


class _State(NamedTuple):
    """What the examples in each of M places say."""

    assignments: Array  # (n,)
    count: Array  # (M,)
    means: Array  # (M, d)
    inverse: Array  # (M, d, d) of Ψ
    half_log_det: Array  # (M,) ½ log |Ψ|
    full: Array  # ()


def gibbs(
    key: Array,
    x: Any,
    *,
    num_steps: int = 1000,
    num_burn: int = 1000,
    max_components: int | None = None,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
    location: Any = None,
    mean_count: float = 1.0,
    scale: Any = None,
    degrees: float | None = None,
) -> Samples:
    """Draw from the posterior by collapsed Gibbs sampling (equations D.14, D.15).

    All examples start in one component. Compiled once for a shape and settings.

    Args:
        key: a typed PRNG key.
        x: (n, d) features.
        num_steps: S, sweeps that are kept.
        num_burn: sweeps before, that are not.
        max_components: M, room for how many; n, but at most 50, where None.
        alpha: as of `dirichlet_mixture.model`, as is what follows.
        alpha_prior: s₁ and s₂.
        location: m₀.
        mean_count: κ₀.
        scale: Ψ₀.
        degrees: ν₀.

    Returns:
        Samples.

    Raises:
        ValueError: as `dirichlet_mixture.model`, and for data or numbers of steps that make no
            sense.
        TypeError: for a key that is none.

    Example:
        >>> x = [[0.0], [1.0], [50.0], [51.0]]
        >>> found = gibbs(jax.random.key(0), x, num_steps=50, num_burn=50,
        ...               scale=1.0, mean_count=0.01)
        >>> z = found.assignments[-1]
        >>> bool(z[0] == z[2]), bool(found.full.any())
        (False, False)
    """
    check_key(key)
    alpha, alpha_prior = check_alpha(alpha, alpha_prior)
    prior = priors.prior(location=location, mean_count=mean_count, scale=scale, degrees=degrees)
    x = check_data(x, None, variables=Variables.density(priors.features_of(prior))).x
    num_steps = whole_number("num_steps", num_steps, least=1)
    num_burn = whole_number("num_burn", num_burn, least=0)
    most = min(len(x), _MOST) if max_components is None else max_components
    most = whole_number("max_components", most, least=1)
    return _run(
        key, x, prior=prior, num_steps=num_steps, num_burn=num_burn, most=most,
        alpha=alpha, alpha_prior=alpha_prior,
    )  # fmt: skip


def gibbs_log_density(
    samples: Samples,
    x: Any,
    queries: Any,
    *,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
    location: Any = None,
    mean_count: float = 1.0,
    scale: Any = None,
    degrees: float | None = None,
) -> Array:
    """The log-density of the next example, averaged over draws (equation D.16).

    Args:
        samples: of `gibbs`; `jax.tree.map(lambda a: a[::10], samples)` is every tenth.
        x: (n, d) features, those that `gibbs` had.
        queries: (m, d) where.
        alpha: as `gibbs` had it, as is what follows.
        alpha_prior: unused here: the draws have α.
        location: m₀.
        mean_count: κ₀.
        scale: Ψ₀.
        degrees: ν₀.

    Returns:
        (m,), nats.

    Raises:
        ValueError: as `gibbs`.

    Example:
        >>> x = [[0.0], [1.0], [50.0], [51.0]]
        >>> found = gibbs(jax.random.key(0), x, num_steps=50, num_burn=50)
        >>> gibbs_log_density(found, x, [[0.5]]).shape
        (1,)
    """
    check_alpha(alpha, alpha_prior)
    prior = priors.prior(location=location, mean_count=mean_count, scale=scale, degrees=degrees)
    x = check_data(x, None, variables=Variables.density(priors.features_of(prior))).x
    queries = check_array("queries", queries, shape="(m, d)", ndim=2).astype(x.dtype)
    if queries.shape[1] != x.shape[1]:
        raise ValueError(f"queries: expected {x.shape[1]} columns, got shape {queries.shape}")
    if samples.assignments.shape[1] != len(x):
        raise ValueError(
            f"samples: expected draws for the {len(x)} examples of x, got ones for "
            f"{samples.assignments.shape[1]}"
        )
    most = int(jnp.max(samples.assignments)) + 1
    return _log_density(samples, x, queries, prior=prior, most=most)


@partial(
    jax.jit, static_argnames=["prior", "num_steps", "num_burn", "most", "alpha", "alpha_prior"]
)
def _run(
    key: Array,
    x: Array,
    *,
    prior: BaseMeasure,
    num_steps: int,
    num_burn: int,
    most: int,
    alpha: float | None,
    alpha_prior: tuple[float, float],
) -> Samples:
    n, d = x.shape
    moments = priors.moments_of(prior, x, None)
    table = _log_constants(prior, n, d, x.dtype)
    first = alpha_prior[0] / alpha_prior[1] if alpha is None else alpha

    def sweep(carry: tuple[Array, Array, Array], key: Array) -> tuple[tuple, Samples]:
        assignments, points, alpha_now = carry
        of_sweep, of_alpha = jax.random.split(key)
        state = _fresh(prior, moments, x, assignments, points)
        state = _sweep(of_sweep, x, state, table, jnp.log(alpha_now), base)
        used = jnp.sum(state.count > 0, dtype=jnp.int32)
        if alpha is None:
            alpha_now = _draw_alpha(of_alpha, alpha_now, used, n, alpha_prior)
        kept = Samples(state.assignments, used, alpha_now, state.full)
        return (state.assignments, state.means, alpha_now), kept

    base = priors.for_columns(prior, d, x.dtype, moments)
    start = (
        jnp.zeros(n, jnp.int32),
        jnp.broadcast_to(base.location, (most, d)),
        jnp.asarray(first, x.dtype),
    )
    _, every = jax.lax.scan(sweep, start, jax.random.split(key, num_burn + num_steps))
    return jax.tree.map(lambda a: a[num_burn:], every)


def _log_constants(prior: BaseMeasure, n: int, d: int, dtype: Any) -> Array:
    """(n + 1,) what does not depend on x in equation D.4, with |Ψ| apart, by examples."""
    count = np.arange(n + 1.0)
    kappa, degrees = prior.mean_count + count, prior.degrees_at(d) + count
    gammas = [math.lgamma((v + 1) / 2) - math.lgamma((v + 1 - d) / 2) for v in degrees]
    made = np.array(gammas) - d / 2 * np.log(math.pi * (kappa + 1) / kappa)
    return jnp.asarray(made, dtype)


def _components(
    prior: BaseMeasure, moments: Moments | None, x: Array, assignments: Array, points: Array
) -> tuple[Array, Components]:
    """(M,) how many examples are in each of M places, and what they make of the prior."""
    places = jnp.arange(len(points))
    member = (assignments[None, :] == places[:, None]).astype(x.dtype)
    count = jnp.sum(member, axis=1)
    parts = count, *outer_moments(member, x, points)
    return count, normal_wishart.update(prior, points, *parts, moments)[0]


def _fresh(
    prior: BaseMeasure, moments: Moments | None, x: Array, assignments: Array, points: Array
) -> _State:
    """The state that belongs to assignments; points are near the means."""
    d = x.shape[1]
    count, q = _components(prior, moments, x, assignments, points)
    factor = normal_wishart.factors(q)
    degrees = prior.degrees_at(d) + count
    half = d / 2 * jnp.log(degrees) + jnp.sum(q.log_scale, axis=1)
    inverse = matmul(factor.mT, factor) / degrees[:, None, None]
    return _State(assignments, count, q.means, inverse, half, jnp.zeros((), bool))


def _sweep(
    key: Array, x: Array, state: _State, table: Array, log_alpha: Array, base: NormalWishart
) -> _State:
    """Every example drawn once, in turn (equation D.14)."""
    n = len(x)
    root = inverse_of_lower(base.root)
    empty = base.location, matmul(root.T, root), jnp.asarray(base.log_det / 2, x.dtype)

    def with_change(state: _State, k: Array, row: Array, sign: int) -> _State:
        """With one example more, or less, in a place."""
        kappa = base.count + state.count[k]
        away = row - state.means[k]
        along = matmul(state.inverse[k], away)
        pull = sign * kappa / (kappa + sign)
        grown = pull * vdot(away, along)
        mean = state.means[k] + sign * away / (kappa + sign)
        inverse = state.inverse[k] - pull / (1 + grown) * along[:, None] * along[None, :]
        half = state.half_log_det[k] + jnp.log1p(grown) / 2
        count = state.count[k] + sign
        made = mean, inverse, half
        mean, inverse, half = (jnp.where(count > 0, a, b) for a, b in zip(made, empty, strict=True))
        return state._replace(
            count=state.count.at[k].set(count),
            means=state.means.at[k].set(mean),
            inverse=state.inverse.at[k].set(inverse),
            half_log_det=state.half_log_det.at[k].set(half),
        )

    def one(state: _State, of: tuple[Array, Array, Array]) -> tuple[_State, None]:
        i, row, u = of
        state = with_change(state, state.assignments[i], row, -1)
        away = row[None, :] - state.means
        squares = jnp.sum(jnp.sum(state.inverse * away[:, None, :], axis=-1) * away, axis=-1)
        kappa, degrees = base.count + state.count, base.degrees + state.count
        log_p = table[state.count.astype(jnp.int32)] - state.half_log_det
        log_p = log_p - (degrees + 1) / 2 * jnp.log1p(kappa / (kappa + 1) * squares)
        is_empty = state.count == 0
        is_new = is_empty & (jnp.cumsum(is_empty) == 1)
        log_count = jnp.log(jnp.where(is_empty, 1.0, state.count))
        log_p = log_p + jnp.where(is_new, log_alpha, jnp.where(is_empty, -jnp.inf, log_count))
        sums = jnp.cumsum(jnp.exp(log_p - jnp.max(log_p)))
        k = jnp.sum(sums <= u * sums[-1], dtype=jnp.int32)  # u < 1: never past what can be
        state = with_change(state, k, row, 1)
        return state._replace(
            assignments=state.assignments.at[i].set(k), full=state.full | ~jnp.any(is_new)
        ), None

    u = jax.random.uniform(key, (n,), x.dtype)
    return jax.lax.scan(one, state, (jnp.arange(n), x, u))[0]


def _draw_alpha(
    key: Array, alpha: Array, used: Array, n: int, alpha_prior: tuple[float, float]
) -> Array:
    """α, given how many components there are (equation D.15)."""
    first, second = alpha_prior
    keys = jax.random.split(key, 4)
    mine = jax.random.loggamma(keys[0], alpha + 1)
    theirs = jax.random.loggamma(keys[1], jnp.asarray(n, alpha.dtype))
    rate = second - (mine - jnp.logaddexp(mine, theirs))
    shape = first + used - 1
    is_more = jax.random.uniform(keys[2], (), alpha.dtype) * (shape + n * rate) < shape
    return jax.random.gamma(keys[3], shape + is_more) / rate


@partial(jax.jit, static_argnames=["prior", "most"])
def _log_density(
    samples: Samples, x: Array, queries: Array, *, prior: BaseMeasure, most: int
) -> Array:
    moments = priors.moments_of(prior, x, None)
    base = priors.for_columns(prior, x.shape[1], x.dtype, moments)
    points = jnp.broadcast_to(base.location, (most + 1, x.shape[1]))

    def one(so_far: Array, of: tuple[Array, Array]) -> tuple[Array, None]:
        assignments, alpha = of
        count, q = _components(prior, moments, x, assignments, points)
        share = count.at[most].set(alpha) / (len(x) + alpha)  # nothing is in the last place
        log_share = jnp.log(jnp.where(share > 0, share, 1.0))
        each = normal_wishart.log_predictive(q, queries) + log_share[:, None]
        each = jnp.where(share[:, None] > 0, each, -jnp.inf)
        return jnp.logaddexp(so_far, logsumexp(each.T)), None

    start = jnp.full(len(queries), -jnp.inf, x.dtype)
    total, _ = jax.lax.scan(one, start, (samples.assignments, samples.alpha))
    return total - math.log(len(samples.alpha))
