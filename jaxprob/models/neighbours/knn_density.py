r"""Nearest-neighbour densities: how far the k-th nearest example is.

The model, with examples x_j of weights c_j, W = Σ_j c_j, and V_d = π^(d/2) / Γ(d/2 + 1) the volume
of the unit ball in d dimensions:

    log p(x) = log k - log W - log V_d - d log r_k(x) - log Z                             (3.18)

where r_k(x) is the least distance within which examples weigh k or more, so that weights are
repeats. Where x is an example that occurs k times or more, r_k is zero: then r is the distance to
the nearest other one, and k what examples weigh up to there.

Without log Z this is the textbook's estimate, which is no density: its integral diverges, since it
falls like r^-d. Z is its integral over the box of the examples, so that p is one there; the
likelihoods of different k can then be compared, as those of the estimate cannot: by E log p̂ = log p
+ log k - ψ(k), it promises most with the least k. The fit chooses the k with the largest
log-likelihood of examples left out of their own density (with all of their weight):

    ℓ(k) = Σ_i c_i log p_{-i}(x_i; k),       k = 2, ..., max_neighbours                   (3.19)

k = 1 has Z = ∞. Z is found from 8,192 fixed points, half of them even in the box, half as from a
kernel density, and has a relative error of about a hundredth.

The entropy of the density that examples are drawn from, without the bias of its terms, is

    H = ψ(W) - ψ(k) + log V_d + d/W Σ_i c_i log r_k(x_i)                                  (3.20)

with r_k the distance among the others.

A factor that all weights have in common makes another density: k examples weigh k. Where they add
up to one, no example has two neighbours, and there is none: bring such weights to the number of
examples first, by `jaxprob.data.normalised_weights(weights)`.

Source: Loftsgaarden and Quesenberry, Annals of Mathematical Statistics 36, 1965; Silverman, Density
Estimation for Statistics and Data Analysis, 1986, section 5.2; Kozachenko and Leonenko, Problems of
Information Transmission 23, 1987; Kraskov, Stögbauer and Grassberger, Physical Review E 69, 2004
(digamma functions of the entropy).
"""

import math
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.scipy.special import digamma, ndtri

from jaxprob.contract import Bind, Chosen, Geometry, LeaveOneOut, Model, Search, Status, Variables
from jaxprob.contract.settings import whole_number
from jaxprob.models import kernels
from jaxprob.models.kernels.arguments import check_enough, check_number, check_points
from jaxprob.numerics.control import if_any
from jaxprob.numerics.nearest import nearest, nearest_by_tree, squared_distances, unit_of
from jaxprob.numerics.passes import at_a_time
from jaxprob.runtime.compilation import compiled

_TREE_COLUMNS = 12  # up to which a tree is faster than all pairs
_PAIRS = 1 << 19  # at a time
_ROUNDING = 64  # times that of one number: of what neighbours weigh together
_LOOKED_AT = 4096  # points in the box, and as many near the examples


class Params(NamedTuple):
    """What is fitted.

    Attributes:
        num_neighbours: () int32, k.
        log_mass: () log Z; zero for the textbook's estimate.
    """

    num_neighbours: Array
    log_mass: Array


def init(
    key: Array | None, x: Array, weights: Array | None = None, *, max_neighbours: int = 50
) -> Params:
    """About √n neighbours, and Z for them.

    Args:
        key: not used: the same with every key.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        max_neighbours: k at most.

    Returns:
        Params in the dtype of x.

    Example:
        >>> int(init(None, jnp.arange(9.0)[:, None]).num_neighbours)
        3
    """
    del key
    check_points(x, weights, name="x")
    check_number("max_neighbours", max_neighbours, least=1)
    k = max(1, min(max_neighbours, round(math.sqrt(len(x)))))
    if k == 1:
        return of_neighbours(1, x.dtype)
    masses = _log_masses(x, _or_ones(weights, x), jnp.array([k]), max_neighbours)
    return Params(jnp.int32(k), masses[0])


def of_neighbours(num_neighbours: Any, dtype: Any = float) -> Params:
    """The parameters of the textbook's estimate, which is no density.

    Args:
        num_neighbours: k, an integer of at least 1.
        dtype: of what is computed.

    Returns:
        Params.

    Raises:
        ValueError: for another number.

    Example:
        >>> float(of_neighbours(5).log_mass)
        0.0
    """
    check_number("num_neighbours", num_neighbours, least=1)
    return Params(jnp.asarray(num_neighbours, jnp.int32), jnp.zeros((), dtype))


def log_prob(params: Params, x: Array, points: Array, weights: Array | None = None) -> Array:
    """The log-density log p(x) of one example (equation 3.18).

    Args:
        params: Params.
        x: (d,) floating.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.

    Returns:
        () nats; NaN where the examples weigh less than k, or none is at a distance from x.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for other shapes, and where all examples are known to weigh less than k.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> round(float(log_prob(of_neighbours(2), jnp.array([0.5]), x)), 4)
        -0.4055
    """
    check_points(points, weights)
    check_enough(params.num_neighbours, len(points), weights)
    if jnp.shape(x) != points.shape[1:]:
        raise ValueError(f"x: expected shape {points.shape[1:]}, got {jnp.shape(x)}")
    return _log_prob(params, x, points, weights)


@compiled()
def _log_prob(params: Params, x: Array, points: Array, weights: Array | None) -> Array:
    c = _or_ones(weights, points)
    unit = unit_of(points, c > 0)
    distance = unit * jnp.sqrt(jnp.sum(((x[None, :] - points) / unit) ** 2, axis=1))
    distance = jnp.where(c > 0, distance, jnp.inf)
    order = jnp.argsort(distance)
    mass = jnp.cumsum(c[order])
    found = _reached(distance[order][None], mass[None], params.num_neighbours)[0]
    apart = jnp.min(jnp.where(distance > 0, distance, jnp.inf))
    within = jnp.sum(jnp.where(distance <= apart, c, 0.0))
    k = jnp.where(found == 0, within, params.num_neighbours.astype(x.dtype))
    radius = jnp.where(found == 0, jnp.where(jnp.isinf(apart), jnp.nan, apart), found)
    return _log_p(k, radius, jnp.sum(c), len(x)) - params.log_mass


def log_density(
    params: Params,
    queries: Array,
    points: Array,
    weights: Array | None = None,
    *,
    max_neighbours: int | None = None,
) -> Array:
    """The log-densities log p(x) of many examples (equation 3.18).

    Up to 12 columns are searched by a k-d tree of SciPy, where all arrays are known and on the
    host; otherwise all pairs are looked at, in blocks of bounded memory.

    Args:
        params: Params.
        queries: (m, d) floating.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        max_neighbours: inside of `jax.jit`, how many neighbours are looked for: k is at most that,
            or with weights below one, what that many weigh.

    Returns:
        (m,) nats; NaN as in `log_prob`, and where more than `max_neighbours` would be needed.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: where k is traced, and there is no `max_neighbours`; for other shapes, and where
            all examples are known to weigh less than k.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> round(float(log_density(of_neighbours(2), jnp.array([[0.5]]), x)[0]), 4)
        -0.4055
    """
    check_points(points, weights, queries)
    check_enough(params.num_neighbours, len(points), weights)
    traced = any(isinstance(a, Tracer) for a in (*params, queries, points, weights))
    if max_neighbours is None:
        if traced:
            raise ValueError("max_neighbours: expected a number inside of jax.jit, got None")
        max_neighbours = _needed(int(params.num_neighbours), weights)
    check_number("max_neighbours", max_neighbours, least=1)
    num = min(max_neighbours, len(points))
    c = _or_ones(weights, points)
    if not traced and points.shape[1] <= _TREE_COLUMNS and _on_host(points):
        live = np.flatnonzero(np.asarray(c) > 0)
        num = min(num, len(live))
        if num == 0:
            return jnp.full(len(queries), jnp.nan, points.dtype)
        distance, index = nearest_by_tree(np.asarray(queries), np.asarray(points)[live], num)
        distance, index = jnp.asarray(distance, points.dtype), jnp.asarray(live[index])
    else:
        distance, index = nearest(queries, points, num, c > 0)
    return _of_distances(params, distance, index, queries, points, c)


def log_likelihood(
    params: Params, x: Array, weights: Array | None = None, *, max_neighbours: int = 50
) -> Array:
    """The leave-one-out log-likelihood Σ_i c_i log p_{-i}(x_i) (equation 3.19).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        max_neighbours: how many neighbours are looked for, see `log_density`.

    Returns:
        () nats.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> round(float(log_likelihood(of_neighbours(1), x)), 4)
        -4.852
    """
    check_points(x, weights, name="x")
    check_number("max_neighbours", max_neighbours, least=1)
    c = _or_ones(weights, x)
    each = _left_out(x, c, params.num_neighbours[None], max_neighbours)[0]
    return jnp.sum(jnp.where(c > 0, c * (each - params.log_mass), 0.0))


def choose(x: Array, weights: Array | None = None, *, max_neighbours: int = 50) -> Chosen:
    """The number of neighbours with the largest log-likelihood (equation 3.19).

    Args:
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        max_neighbours: k at most.

    Returns:
        Chosen; its status is NON_FINITE where a column is constant, examples are not apart, or they
        weigh too little for any k.

    Example:
        >>> int(choose(jnp.arange(9.0)[:, None]).params.num_neighbours)
        8
    """
    check_points(x, weights, name="x")
    check_number("max_neighbours", max_neighbours, least=2)
    c = _or_ones(weights, x)
    numbers = jnp.arange(2, max(2, min(max_neighbours, len(x) - 1)) + 1, dtype=jnp.int32)
    each = _left_out(x, c, numbers, max_neighbours)
    masses = _log_masses(x, c, numbers, max_neighbours)
    value = jnp.sum(jnp.where(c[None, :] > 0, c[None, :] * (each - masses[:, None]), 0.0), axis=1)
    best = jnp.argmax(jnp.where(jnp.isfinite(value), value, -jnp.inf))
    known = jnp.isfinite(value[best])
    status = jnp.where(known, jnp.int32(Status.CONVERGED), jnp.int32(Status.NON_FINITE))
    gap = jnp.where(known, 0.0, jnp.inf).astype(x.dtype)
    return Chosen(Params(numbers[best], masses[best]), status, gap)


def entropy(x: Array, weights: Array | None = None, *, num_neighbours: int = 3) -> Array:
    """The entropy of the density that examples were drawn from (equation 3.20).

    Args:
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        num_neighbours: k.

    Returns:
        () nats. Examples that occur k times or more count as in `log_prob`. NaN where all others
        of some example weigh less than k.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for other shapes, for a number below 1, and where all examples are known to
            weigh less than k.

    Example:
        >>> x = jax.random.uniform(jax.random.key(0), (2000, 1))
        >>> abs(float(entropy(x))) < 0.1
        True
    """
    check_points(x, weights, name="x")
    check_number("num_neighbours", num_neighbours, least=1)
    check_enough(num_neighbours, len(x) - 1, weights)
    c, d = _or_ones(weights, x), x.shape[1]
    num = len(x) if isinstance(weights, Tracer) else _needed(num_neighbours, weights)
    distance, index = nearest(x, x, max(1, min(num, len(x) - 1)), c > 0, own=True)
    k, radius = _ball(jnp.int32(num_neighbours), distance, index, x, x, c, own=True)
    whole = jnp.sum(c)
    each = d * jnp.log(radius) - digamma(k)
    mean = jnp.sum(jnp.where(c > 0, c * each, 0.0)) / whole
    return digamma(whole) + _log_ball(d) + mean


def model(max_neighbours: int = 50) -> Model:
    """A nearest-neighbour density for `jaxprob.fit`, which chooses k by leaving each example out.

    Args:
        max_neighbours: k at most, at least 2.

    Returns:
        A Model; two of them with the same settings are equal. Its `log_prob` and `log_density` want
        the examples, and their weights if any, as their last arguments.

    Raises:
        ValueError: for fewer than 2.

    Example:
        >>> import jaxprob as jp
        >>> result = jp.fit(model(), [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
        >>> int(result.params.num_neighbours)
        6
    """
    own = {"max_neighbours": whole_number("max_neighbours", max_neighbours, least=2)}
    return Model(
        name="Nearest-neighbour density",
        variables=Variables.density(),
        init=Bind(init, **own),
        log_prob=log_prob,
        objective=LeaveOneOut(
            Bind(log_likelihood, **own), density=Bind(log_density, **own), smooth=False
        ),
        routes=(Search(Bind(choose, **own)),),
        geometry=Geometry(columns=1),
        words=(
            (
                Status.NON_FINITE,
                "no number of neighbours gives a density: a column is constant, examples coincide, "
                "or weigh less than two together with their neighbours; weights that add up to one "
                "are brought to the number of examples by jaxprob.data.normalised_weights",
            ),
        ),
    )


def _or_ones(weights: Array | None, points: Array) -> Array:
    return jnp.ones(len(points), points.dtype) if weights is None else weights


def _needed(k: int, weights: Array | None) -> int:
    """How many neighbours surely weigh k."""
    if weights is None:
        return k
    w = np.asarray(weights)
    least = np.min(w, where=w > 0, initial=np.inf)
    return k if least >= 1 else math.ceil(min(k / least, len(w)))


def _on_host(a: Any) -> bool:
    return not isinstance(a, Array) or next(iter(a.devices())).platform == "cpu"


def _log_ball(d: int) -> float:
    """The logarithm of V_d."""
    return kernels.log_normaliser("tophat", d)


def _log_p(k: Array, radius: Array, whole: Array, d: int) -> Array:
    return jnp.log(k) - jnp.log(whole) - _log_ball(d) - d * jnp.log(radius)


def _reached(distance: Array, mass: Array, k: Array) -> Array:
    """(m,) the least of increasing distances (m, num) within which the mass (m, num) is k."""
    least = k.astype(mass.dtype) * (1 - _ROUNDING * jnp.finfo(mass.dtype).eps)
    enough = (mass >= least) & jnp.isfinite(distance)
    first = jnp.argmax(enough, axis=1)
    found = jnp.take_along_axis(distance, first[:, None], axis=1)[:, 0]
    return jnp.where(jnp.any(enough, axis=1), found, jnp.nan)


def _ball(
    k: Array, distance: Array, index: Array, queries: Array, points: Array, c: Array, *, own: bool
) -> tuple[Array, Array]:
    """What examples weigh within some distance of each query (m,), and that distance (m,)."""
    mass = jnp.cumsum(jnp.take(c, index), axis=1)
    radius = _reached(distance, mass, k)
    quick = jnp.full(len(queries), k, points.dtype), radius
    apart = partial(_next, own=own)
    return if_any(jnp.any(radius == 0), apart, quick, *quick, queries, points, c)


def _next(
    k: Array, radius: Array, queries: Array, points: Array, c: Array, *, own: bool
) -> tuple[Array, Array]:
    """The same, with the nearest distance that is not zero where the distance is zero."""
    (m, d), n = queries.shape, len(points)
    rows, unit = max(1, min(m, at_a_time(_PAIRS) // n)), unit_of(points, c > 0)

    def of_block(some: tuple[Array, Array]) -> tuple[Array, Array]:
        q, number = some
        squared = squared_distances(q.T / unit, points.T / unit)
        lost = (c == 0)[None, :] | (own & (number[:, None] == jnp.arange(n)[None, :]))
        squared = jnp.where(lost, jnp.inf, squared)
        least = jnp.min(jnp.where(squared > 0, squared, jnp.inf), axis=1)
        within = jnp.sum(jnp.where(squared <= least[:, None], c[None, :], 0.0), axis=1)
        return within, jnp.where(jnp.isinf(least), jnp.nan, unit * jnp.sqrt(least))

    missing = -m % rows
    number = jnp.arange(m + missing).reshape(-1, rows)
    blocks = jnp.pad(queries, ((0, missing), (0, 0))).reshape(-1, rows, d)
    within, least = (a.ravel()[:m] for a in jax.lax.map(of_block, (blocks, number)))
    return jnp.where(radius == 0, within, k), jnp.where(radius == 0, least, radius)


@compiled()
def _of_distances(
    params: Params, distance: Array, index: Array, queries: Array, points: Array, c: Array
) -> Array:
    k, radius = _ball(params.num_neighbours, distance, index, queries, points, c, own=False)
    return _log_p(k, radius, jnp.sum(c), points.shape[1]) - params.log_mass


@compiled("most")
def _left_out(x: Array, c: Array, numbers: Array, most: int) -> Array:
    """(K, n) the log-density of each example under the others, without Z."""
    distance, index = nearest(x, x, max(1, min(most, len(x) - 1)), c > 0, own=True)
    rest = jnp.sum(c) - c

    def of_number(k: Array) -> Array:
        within, radius = _ball(k, distance, index, x, x, c, own=True)
        return _log_p(within, radius, rest, x.shape[1])

    return jax.lax.map(of_number, numbers)


def _box(x: Array, c: Array) -> tuple[Array, Array]:
    """The least and the largest of each column (d,)."""
    counts = (c > 0)[:, None]
    low = jnp.min(jnp.where(counts, x, jnp.inf), axis=0)
    return low, jnp.max(jnp.where(counts, x, -jnp.inf), axis=0)


@compiled("most")
def _log_masses(x: Array, c: Array, numbers: Array, most: int) -> Array:
    """(K,) log Z, by importance sampling.

    From points that are even in the box, and as many that are near examples and inside.
    """
    (low, high), d = _box(x, c), x.shape[1]
    even = jnp.asarray(_evenly(d + 1), x.dtype)
    in_box = low[None, :] + even[:, :d] * (high - low)[None, :]
    h = kernels.silverman(x, c)
    share = jnp.cumsum(c) / jnp.sum(c)
    center = x[jnp.searchsorted(share, even[:, d] * share[-1])]
    near = center + h[None, :] * ndtri(even[:, :d])
    at = jnp.concatenate([in_box, near])
    log_near = kernels.log_density(at, x, 1 / h, c)
    log_even = -jnp.sum(jnp.log(high - low))
    log_q = jnp.logaddexp(log_near, log_even) - math.log(2)
    inside = jnp.all((at >= low[None, :]) & (at <= high[None, :]), axis=1)
    distance, index = nearest(at, x, min(most, len(x)), c > 0)

    def of_number(k: Array) -> Array:
        within, radius = _ball(k, distance, index, at, x, c, own=False)
        log_p = _log_p(within, radius, jnp.sum(c), d)
        return jax.nn.logsumexp(jnp.where(inside, log_p - log_q, -jnp.inf)) - math.log(len(at))

    return jax.lax.map(of_number, numbers)


@lru_cache(maxsize=64)
def _evenly(d: int) -> np.ndarray:
    """(4096, d) points that fill the unit cube evenly."""
    from scipy.stats.qmc import Halton  # SciPy is a dependency of jax itself

    return Halton(d, rng=np.random.default_rng(0)).random(_LOOKED_AT)
