r"""Nearest-neighbour classification: the classes of the k nearest examples.

The model, with examples (x_j, y_j) of weights c_j, and r_k(x) the least distance within which they
weigh k or more, so that weights are repeats:

    p(y = m | x) = (a + Σ_j c_j 1{‖x - x_j‖ ≤ r_k(x), y_j = m})
                   / (K a + Σ_j c_j 1{‖x - x_j‖ ≤ r_k(x)})                                (3.21)

All that are as far as the k-th are counted. The smoothing a > 0 is that of a Dirichlet prior, and
keeps probabilities of classes that no neighbour has above zero. It is what Bayes' rule makes of the
nearest-neighbour densities of the classes, all within the ball of r_k. The fit chooses the k with
the largest log-likelihood of labels whose examples are left out, with all of their weight:

    ℓ(k) = Σ_i c_i log p_{-i}(y_i | x_i; k),        k = 1, ..., max_neighbours            (3.22)

Distances are Euclidean: bring columns to scales that can be compared.

A factor that all weights have in common makes another model: k examples weigh k, and a counts as
that many. Bring weights that add up to one to the number of examples first, by
`jaxprob.data.normalised_weights(weights)`.

Source: Fix and Hodges, USAF School of Aviation Medicine report 4, 1951; Hastie, Tibshirani and
Friedman, The Elements of Statistical Learning, 2009, sections 13.3 and 2.3.2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Chosen,
    Classes,
    Geometry,
    LeaveOneOut,
    Model,
    Predictions,
    Search,
    Status,
    Variables,
)
from jaxprob.contract.settings import number, whole_number
from jaxprob.models.kernels.arguments import (
    check_enough,
    check_labels,
    check_number,
    check_points,
)
from jaxprob.numerics.nearest import nearest, unit_of
from jaxprob.runtime.compilation import compiled

_ROUNDING = 64  # times that of one number: of what neighbours weigh together
_TIES = 16  # further neighbours that are looked at, which may be as far away as the last


class Params(NamedTuple):
    """What is fitted.

    Attributes:
        num_neighbours: () int32, k.
    """

    num_neighbours: Array


def init(
    key: Array | None,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    max_neighbours: int = 50,
) -> Params:
    """About √n neighbours.

    Args:
        key: not used: the same with every key.
        x: (n, d) floating.
        y: (n,) labels.
        weights: (n,) c_i ≥ 0; not used.
        max_neighbours: k at most.

    Returns:
        Params.

    Example:
        >>> int(init(None, jnp.zeros((9, 1)), jnp.zeros(9, int)).num_neighbours)
        3
    """
    del key, y, weights
    check_number("max_neighbours", max_neighbours, least=1)
    return Params(jnp.int32(max(1, min(max_neighbours, round(math.sqrt(len(x)))))))


def log_prob(
    params: Params,
    x: Array,
    y: Array,
    points: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    smoothing: float = 0.5,
) -> Array:
    """The log-probability log p(y|x) of the label of one example (equation 3.21).

    Args:
        params: Params.
        x: (d,) floating.
        y: () its label.
        points: (n, d) the examples that vote.
        labels: (n,) theirs.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        num_classes: K.
        smoothing: a.

    Returns:
        () nats; NaN where the examples weigh less than k.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for other shapes and labels, and where all examples are known to weigh less than
            k.

    Example:
        >>> x, y, k = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 1, 1]), Params(jnp.int32(2))
        >>> round(float(log_prob(k, jnp.array([0.4]), 0, x, y, num_classes=2, smoothing=0.0)), 4)
        -0.6931
    """
    _check(params, points, labels, weights, num_classes, smoothing)
    if jnp.shape(x) != points.shape[1:]:
        raise ValueError(f"x: expected shape {points.shape[1:]}, got {jnp.shape(x)}")
    votes_of = points, labels, weights
    return _log_prob(params, x, y, votes_of, num_classes=num_classes, smoothing=smoothing)


@compiled("num_classes", "smoothing")
def _log_prob(
    params: Params, x: Array, y: Array, votes_of: tuple, *, num_classes: int, smoothing: float
) -> Array:
    points, labels, weights = votes_of
    c = jnp.ones(len(points), x.dtype) if weights is None else weights
    squared = jnp.sum(((x[None, :] - points) / unit_of(points, c > 0)) ** 2, axis=1)
    order = jnp.argsort(squared)
    squared, c, labels = squared[order], c[order], labels[order]
    enough = (jnp.cumsum(c) >= _least(params.num_neighbours, c)) & (c > 0)
    radius = jnp.where(jnp.any(enough), squared[jnp.argmax(enough)], jnp.nan)
    votes = jnp.where(squared <= radius, c, 0.0)
    own = jnp.sum(jnp.where(labels == y, votes, 0.0))
    value = jnp.log(own + smoothing) - jnp.log(jnp.sum(votes) + num_classes * smoothing)
    return jnp.where(jnp.isnan(radius), jnp.nan, value)


def predict_log_proba(
    params: Params,
    queries: Array,
    points: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    smoothing: float = 0.5,
    max_neighbours: int = 50,
) -> Array:
    """The log-probabilities of all classes for many examples (equation 3.21).

    Args:
        params: Params.
        queries: (m, d) floating.
        points: (n, d) the examples that vote.
        labels: (n,) theirs.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        num_classes: K.
        smoothing: a.
        max_neighbours: how many neighbours are looked for, and 16 more, which may be as far away as
            the last: k is at most that, or with weights below one, what that many weigh.

    Returns:
        (m, K) nats; NaN where k neighbours are not found.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for other shapes and labels, and where all examples, or as many as are looked
            for, are known to weigh less than k.

    Example:
        >>> x, y, k = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 1, 1]), Params(jnp.int32(2))
        >>> predict_log_proba(k, jnp.array([[0.4]]), x, y, num_classes=2).shape
        (1, 2)
    """
    _check(params, points, labels, weights, num_classes, smoothing, queries=queries)
    check_number("max_neighbours", max_neighbours, least=1)
    num = min(max_neighbours + _TIES, len(points))
    if weights is None:
        check_enough(params.num_neighbours, num, None, most="max_neighbours")
    votes_of, settings = (points, labels, weights), {"smoothing": smoothing, "num": num}
    return _log_proba(params, queries, votes_of, num_classes=num_classes, **settings)


@compiled("num_classes", "smoothing", "num")
def _log_proba(
    params: Params, queries: Array, votes_of: tuple, *, num_classes: int, smoothing: float, num: int
) -> Array:
    points, labels, weights = votes_of
    c = jnp.ones(len(points), points.dtype) if weights is None else weights
    distance, index = nearest(queries, points, num, c > 0)
    votes = _votes(params.num_neighbours, distance, index, labels, c, num_classes)
    return _log_shares(votes, smoothing)


def log_density(
    params: Params,
    queries: Array,
    query_labels: Array,
    points: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    smoothing: float = 0.5,
    max_neighbours: int = 50,
) -> Array:
    """The log-probabilities log p(y|x) of the labels of many examples (equation 3.21).

    Args:
        params: Params.
        queries: (m, d) floating.
        query_labels: (m,) theirs.
        points: (n, d) the examples that vote.
        labels: (n,) theirs.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        num_classes: K.
        smoothing: a.
        max_neighbours: as of `predict_log_proba`.

    Returns:
        (m,) nats.

    Example:
        >>> x, y, k = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 1, 1]), Params(jnp.int32(1))
        >>> log_density(k, x, y, x, y, num_classes=2, smoothing=0.0).tolist()
        [0.0, 0.0, 0.0]
    """
    settings = {"smoothing": smoothing, "max_neighbours": max_neighbours}
    log_p = predict_log_proba(
        params, queries, points, labels, weights, num_classes=num_classes, **settings
    )
    check_labels("query_labels", query_labels, len(queries), num_classes)
    return jnp.take_along_axis(log_p, query_labels[:, None], axis=1)[:, 0]


def log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    smoothing: float = 0.5,
    max_neighbours: int = 50,
) -> Array:
    """The leave-one-out log-likelihood Σ_i c_i log p_{-i}(y_i|x_i) (equation 3.22).

    Args:
        params: Params.
        x: (n, d) floating.
        y: (n,) labels.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        smoothing: a.
        max_neighbours: as of `predict_log_proba`.

    Returns:
        () nats.

    Example:
        >>> x, y, k = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([1, 1, 1]), Params(jnp.int32(1))
        >>> float(log_likelihood(k, x, y, num_classes=2, smoothing=0.0))
        0.0
    """
    settings = {"smoothing": smoothing, "max_neighbours": max_neighbours}
    _check(params, x, y, weights, num_classes, smoothing, name="x")
    check_number("max_neighbours", max_neighbours, least=1)
    numbers = params.num_neighbours[None]
    return _left_out(numbers, x, y, weights, num_classes=num_classes, **settings)[0]


def choose(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    smoothing: float = 0.5,
    max_neighbours: int = 50,
) -> Chosen:
    """The number of neighbours with the largest log-likelihood (equation 3.22).

    Args:
        x: (n, d) floating.
        y: (n,) labels.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        smoothing: a.
        max_neighbours: k at most.

    Returns:
        Chosen; its status is NON_FINITE where examples weigh too little for any k.

    Example:
        >>> x, y = jnp.arange(6.0)[:, None], jnp.array([0, 0, 0, 1, 1, 1])
        >>> int(choose(x, y, num_classes=2).params.num_neighbours)
        2
    """
    settings = {"smoothing": smoothing, "max_neighbours": max_neighbours}
    check_points(x, weights, name="x", labels=y, num_classes=num_classes)
    check_number("max_neighbours", max_neighbours, least=1)
    numbers = jnp.arange(1, max(1, min(max_neighbours, len(x) - 1)) + 1, dtype=jnp.int32)
    value = _left_out(numbers, x, y, weights, num_classes=num_classes, **settings)
    best = jnp.argmax(jnp.where(jnp.isnan(value), -jnp.inf, value))
    known = jnp.isfinite(value[best])
    status = jnp.where(known, jnp.int32(Status.CONVERGED), jnp.int32(Status.NON_FINITE))
    gap = jnp.where(known, 0.0, jnp.inf).astype(x.dtype)
    return Chosen(Params(numbers[best]), status, gap)


@compiled("num_classes", "smoothing", "max_neighbours")
def sample(
    params: Params,
    key: Array,
    queries: Array,
    points: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    smoothing: float = 0.5,
    max_neighbours: int = 50,
) -> Array:
    """Draw a label for each example (equation 3.21).

    Args:
        params: Params.
        key: a typed PRNG key.
        queries: (m, d) floating.
        points: (n, d) the examples that vote.
        labels: (n,) theirs.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        num_classes: K.
        smoothing: a.
        max_neighbours: as of `predict_log_proba`.

    Returns:
        (m,) int32.

    Example:
        >>> x, y, k = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([1, 1, 1]), Params(jnp.int32(2))
        >>> sample(k, jax.random.key(0), x, x, y, num_classes=2, smoothing=0.0).tolist()
        [1, 1, 1]
    """
    settings = {"smoothing": smoothing, "max_neighbours": max_neighbours}
    log_p = predict_log_proba(
        params, queries, points, labels, weights, num_classes=num_classes, **settings
    )
    return jax.random.categorical(key, log_p).astype(jnp.int32)


def model(num_classes: int, *, smoothing: float = 0.5, max_neighbours: int = 50) -> Model:
    """Nearest-neighbour classification for `jaxprob.fit`, which chooses k by leaving examples out.

    Args:
        num_classes: K, at least 2.
        smoothing: a > 0, what each class counts before anything is seen.
        max_neighbours: k at most, at least 1.

    Returns:
        A Model; two of them with the same settings are equal. Its `log_prob`, `log_density`,
        `predict_log_proba` and `sample` want the examples, their labels, and their weights if any,
        as their last arguments.

    Raises:
        ValueError: for what is none of the above.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]], [0, 0, 0, 1, 1, 1]
        >>> int(jp.fit(model(2), x, y).params.num_neighbours)
        2
    """
    num_classes = whole_number("num_classes", num_classes, least=2)
    max_neighbours = whole_number("max_neighbours", max_neighbours, least=1)
    smoothing = number("smoothing", smoothing, positive=True)
    alike = {"num_classes": num_classes, "smoothing": smoothing}
    own = alike | {"max_neighbours": max_neighbours}
    return Model(
        name="Nearest-neighbour classifier",
        variables=Variables.conditional(Classes(num_classes)),
        init=Bind(init, max_neighbours=max_neighbours),
        log_prob=Bind(log_prob, **alike),
        objective=LeaveOneOut(
            Bind(log_likelihood, **own), density=Bind(log_density, **own), smooth=False
        ),
        predict=Predictions(classes=Bind(predict_log_proba, **own), sample=Bind(sample, **own)),
        routes=(Search(Bind(choose, **own)),),
        geometry=Geometry(columns=1),
        words=(
            (
                Status.NON_FINITE,
                "examples weigh less than one together with their neighbours; weights that add up "
                "to one are brought to the number of examples by "
                "jaxprob.data.normalised_weights",
            ),
        ),
    )


def _check(
    params: Params,
    points: Array,
    labels: Array,
    weights: Array | None,
    num_classes: int,
    smoothing: float,
    *,
    queries: Array | None = None,
    name: str = "points",
) -> None:
    """Raise unless examples can vote."""
    check_number("num_classes", num_classes, least=2)
    check_points(points, weights, queries, name=name, labels=labels, num_classes=num_classes)
    check_enough(params.num_neighbours, len(points), weights)
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing: expected a number of at least zero, got {smoothing!r}")


def _votes(
    k: Array, distance: Array, index: Array, labels: Array, c: Array, num_classes: int
) -> Array:
    """(m, K) what the neighbours of each class weigh, NaN where they weigh less than k together."""
    own = jnp.where(jnp.isfinite(distance), jnp.take(c, index), 0.0)
    enough = jnp.cumsum(own, axis=1) >= _least(k, own)
    radius = jnp.take_along_axis(distance, jnp.argmax(enough, axis=1)[:, None], axis=1)
    radius = jnp.where(jnp.any(enough, axis=1, keepdims=True), radius, jnp.nan)
    own, of = jnp.where(distance <= radius, own, 0.0), jnp.take(labels, index)
    votes = [jnp.sum(jnp.where(of == m, own, 0.0), axis=1) for m in range(num_classes)]
    return jnp.where(jnp.isnan(radius), jnp.nan, jnp.stack(votes, axis=1))


def _least(k: Array, c: Array) -> Array:
    """What neighbours have to weigh, to rounding."""
    return k * (1 - _ROUNDING * jnp.finfo(c.dtype).eps)


def _log_shares(votes: Array, smoothing: float) -> Array:
    whole = jnp.sum(votes, axis=1, keepdims=True) + votes.shape[1] * smoothing
    return jnp.log(votes + smoothing) - jnp.log(whole)


@compiled("num_classes", "smoothing", "max_neighbours")
def _left_out(
    numbers: Array,
    x: Array,
    y: Array,
    weights: Array | None,
    *,
    num_classes: int,
    smoothing: float,
    max_neighbours: int,
) -> Array:
    """The log-likelihoods of some k."""
    c = jnp.ones(len(x), x.dtype) if weights is None else weights
    num = max(1, min(max_neighbours + _TIES, len(x) - 1))
    distance, index = nearest(x, x, num, c > 0, own=True)

    def of_number(k: Array) -> Array:
        votes = _votes(k, distance, index, y, c, num_classes)
        each = jnp.take_along_axis(_log_shares(votes, smoothing), y[:, None], axis=1)[:, 0]
        return jnp.sum(jnp.where(c > 0, c * each, 0.0))

    return jax.lax.map(of_number, numbers)
