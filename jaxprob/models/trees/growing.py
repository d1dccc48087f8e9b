"""Trees grown level by level, from the examples of each node in the order of each column.

A level costs the same whatever the number of its nodes: the examples of a node are next to each
other in the order of every column, so that all cuts of all nodes come from one running sum of each
class. Splitting a node moves those that go left to the front of it, in every order.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.binning import middle
from jaxprob.models.trees.columns import Columns

_ROUNDING = 4  # of the weight of a node, in units of eps: gains that differ by less are equal


class Grown(NamedTuple):
    """A complete tree; see `jaxprob.models.decision_tree.Params`."""

    feature: Array  # (2^D - 1,) int32
    threshold: Array  # (2^D - 1,)
    missing_right: Array  # (2^D - 1,) int32
    counts: Array  # (2^(D+1) - 1, K)


class _Question(NamedTuple):
    """What nodes ask."""

    feature: Array  # (nodes,) int32
    threshold: Array  # (nodes,)
    missing_right: Array  # (nodes,) int32


class _Level(NamedTuple):
    """Where the examples are. Nodes of a level that have examples are numbered from the left."""

    depth: Array  # () int32
    order: Array  # (d, n) int32 examples, node by node, and within a node as the column has them
    number: Array  # (n,) int32 of the node of each example
    leaf: Array  # (n,) int32 the same among all 2^depth nodes
    can_split: Array  # (nodes,) bool
    asked: _Question  # of the complete tree


class _Places(NamedTuple):
    """Which places of an order belong to which node: the same in all columns."""

    number: Array  # (n,) int32
    first: Array  # (n,) bool, whether its node begins here
    last: Array  # (n,) int32, where its node ends


class _Cut(NamedTuple):
    """The best split of each node: by one column, or by any."""

    gain: Array  # (nodes,) nats; minus infinity where there is none
    place: Array  # (nodes,) int32, of the last example that goes left
    missing_right: Array  # (nodes,) int32


def grown(
    columns: Columns,
    y: Array,
    weights: Array,
    key: Array | None,
    *,
    num_classes: int,
    depth: int,
    min_leaf_weight: float,
    min_gain: float,
    max_features: int | None,
) -> Grown:
    """A tree, level by level, until no node can be split.

    Args:
        columns: of `sorted_columns`.
        y: (n,) int32 in 0..K-1.
        weights: (n,) floating.
        key: of the columns that a node may be split by; None where it is any.
        num_classes: K.
        depth: D, how many levels of splits at most.
        min_leaf_weight: of either side of a split.
        min_gain: of a split, nats.
        max_features: how many columns a node may be split by; any where None.

    Returns:
        Grown.

    Example:
        >>> from jaxprob.models.trees.columns import sorted_columns
        >>> rules = dict(depth=1, min_leaf_weight=0.0, min_gain=0.0, max_features=None)
        >>> columns, y = sorted_columns(jnp.array([[1.0], [4.0]])), jnp.array([0, 1])
        >>> tree = grown(columns, y, jnp.ones(2), None, num_classes=2, **rules)
        >>> tree.threshold.tolist(), tree.counts[1:].tolist()
        ([2.5], [[1.0, 0.0], [0.0, 1.0]])
    """
    d, n = columns.order.shape
    num_nodes = min(2 ** (depth - 1), n)  # with a question, in a level
    eps = jnp.finfo(weights.dtype).eps
    rows = jnp.arange(n, dtype=jnp.int32)

    def step(level: _Level) -> _Level:
        number, places = level.number, _places(level, num_nodes)
        weight = jnp.zeros(num_nodes, weights.dtype).at[number].add(weights)
        tolerance = _ROUNDING * eps * weight
        at = jnp.zeros(num_nodes, jnp.int32).at[number].set(level.leaf)
        chosen = None
        if max_features is not None and max_features < d:
            assert key is not None
            drawn = jax.random.fold_in(key, level.depth)
            chosen = _some(drawn, 2 ** (depth - 1), at, d, max_features)

        def cut(rows: Array, keys: Array) -> _Cut:
            mass = _by_class(y, weights, rows, num_classes)
            return _best_cut(mass, keys, places, columns.gaps, tolerance, min_leaf_weight)

        feature, best = _best(columns, level.order, places, chosen, tolerance, cut)
        split = level.can_split & (best.gain > jnp.maximum(min_gain, tolerance))
        question = _question(columns, weights, level, feature, best, weight, split)
        index = jnp.where(split, 2**level.depth - 1 + at, 2**depth)  # where there is no node
        asked = jax.tree.map(lambda a, b: a.at[index].set(b, mode="drop"), level.asked, question)

        feature, threshold, missing_right = (a[number] for a in question)
        value = columns.values[feature, rows]
        right = jnp.where(jnp.isnan(value), missing_right, (value > threshold).astype(jnp.int32))
        order = _parted(level.order, places, number, right, num_nodes)
        before = jnp.cumsum(split, dtype=jnp.int32) - split
        can_split = split[number]
        number = number + before[number] + right
        can_split = jnp.zeros(num_nodes, bool).at[number].set(can_split, mode="drop")
        return _Level(level.depth + 1, order, number, 2 * level.leaf + right, can_split, asked)

    def goes_on(level: _Level) -> Array:
        return (level.depth < depth) & jnp.any(level.can_split)

    inner = 2**depth - 1
    none = _Question(
        jnp.zeros(inner, jnp.int32),
        jnp.full(inner, jnp.inf, columns.values.dtype),
        jnp.zeros(inner, jnp.int32),
    )
    root = jnp.zeros(n, jnp.int32)
    start = _Level(jnp.int32(0), columns.order, root, root, jnp.arange(num_nodes) == 0, none)
    last = jax.lax.while_loop(goes_on, step, start)
    leaf = last.leaf << (depth - last.depth)
    return Grown(*last.asked, _counts(leaf, y, weights, depth, num_classes))


def _counts(leaf: Array, y: Array, weights: Array, depth: int, num_classes: int) -> Array:
    """(2^(D+1) - 1, K) the weight of each class in each node of the complete tree."""
    level = jnp.arange(depth + 1, dtype=jnp.int32)[:, None]
    node = (1 << level) - 1 + (leaf[None] >> (depth - level))
    none = jnp.zeros((2 ** (depth + 1) - 1, num_classes), weights.dtype)
    return none.at[node, y[None]].add(jnp.broadcast_to(weights, node.shape))


def _some(key: Array, num_nodes: int, at: Array, d: int, max_features: int) -> Array:
    """(nodes, max_features) columns of each node, in order."""
    luck = jax.random.uniform(key, (num_nodes, d))[at]
    return jnp.sort(jnp.argsort(luck, axis=1)[:, :max_features], axis=1).astype(jnp.int32)


def _places(level: _Level, num_nodes: int) -> _Places:
    number = level.number[level.order[0]]
    place = jnp.arange(len(number), dtype=jnp.int32)
    first = jnp.concatenate([jnp.ones(1, bool), number[1:] != number[:-1]])
    last = jnp.zeros(num_nodes, jnp.int32).at[number].max(place)
    return _Places(number, first, last[number])


def _best(
    columns: Columns,
    order: Array,
    places: _Places,
    chosen: Array | None,
    tolerance: Array,
    cut: Any,
) -> tuple[Array, _Cut]:
    """(nodes,) the column to split each node by, and how; the first of those that are as good."""
    d, n = order.shape

    def by_one(slot: Array) -> _Cut:
        if chosen is None:
            rows, keys = order[slot], columns.keys[slot]
            return cut(rows, _at(keys, rows))
        column = chosen[:, slot][places.number]
        rows = _at(order, column, jnp.arange(n))
        return cut(rows, _at(columns.keys, column, rows))

    slots = d if chosen is None else chosen.shape[1]
    each = jax.lax.map(by_one, jnp.arange(slots), batch_size=_together(slots))
    good = each.gain >= jnp.max(each.gain, axis=0, keepdims=True) - tolerance[None, :]
    slot = jnp.argmax(good, axis=0)
    nodes = jnp.arange(len(slot))
    best = jax.tree.map(lambda a: a[slot, nodes], each)
    return slot.astype(jnp.int32) if chosen is None else chosen[nodes, slot], best


def _together(count: int) -> int | None:
    """How many columns at a time: on a CPU one, which stays in the cache."""
    return None if jax.default_backend() == "cpu" else count


def _by_class(y: Array, weights: Array, rows: Array, num_classes: int) -> Array:
    """(K, n) the weight of each example, in its class."""
    return jnp.where(_at(y, rows)[None] == jnp.arange(num_classes)[:, None], _at(weights, rows), 0)


def _best_cut(
    mass: Array,
    keys: Array,
    places: _Places,
    gaps: Array,
    tolerance: Array,
    min_leaf_weight: float,
) -> _Cut:
    """The best split of each node by one column, from what is at each place of its order."""
    n, num_nodes = len(keys), len(tolerance)
    place = jnp.arange(n, dtype=jnp.int32)
    below = _running(mass, places.first)
    total = jax.lax.map(lambda a: _at(a, places.last), below)
    known = ~jnp.isnan(keys)
    # Without the sum, "is it missing?" could be asked with a threshold below all values.
    ends = known & (keys != jnp.roll(keys, -1)) & (_over_classes(_itself, below) > 0)
    slack = _at(tolerance, places.number)

    def with_missing_left() -> Array:
        at = jnp.where(known, place, 0)
        last = _at(jnp.zeros(num_nodes, jnp.int32).at[places.number].max(at), places.number)
        return jax.lax.map(lambda a: a[1] - (_at(a[0], last) - a[0]), (below, total))

    def better(missing_left: Array, so_far: _Cut) -> _Cut:
        left = jax.lax.cond(missing_left > 0, with_missing_left, lambda: below)
        gain = jnp.where(ends, _gain(left, total, min_leaf_weight), -jnp.inf)
        top = jnp.full(num_nodes, -jnp.inf, gain.dtype).at[places.number].max(gain)
        good = gain >= _at(top, places.number) - slack
        at = jnp.full(num_nodes, n - 1, jnp.int32)
        at = at.at[places.number].min(jnp.where(good, place, n - 1))
        new = _Cut(top, at, jnp.full(num_nodes, 1 - missing_left, jnp.int32))
        is_better = top >= so_far.gain - tolerance
        return jax.tree.map(lambda a, b: jnp.where(is_better, a, b), new, so_far)

    none = jnp.zeros(num_nodes, jnp.int32)
    nothing = _Cut(jnp.full(num_nodes, -jnp.inf, mass.dtype), none, none)
    return jax.lax.fori_loop(0, 1 + gaps.astype(jnp.int32), better, nothing)


def _gain(left: Array, total: Array, min_leaf_weight: float) -> Array:
    """(n,) the gain of each cut (equation 3.25), minus infinity if it is not allowed."""
    w_left, w_right, weight = _over_classes(lambda a, b: (a, b - a, b), left, total)
    # The share of a class in a side is compared with that in the node: gains that are small beside
    # the entropies keep their digits.
    inverse = 1 / _or_one(total)
    of_left, of_right = weight / _or_one(w_left), weight / _or_one(w_right)
    right = total - left
    in_left = jnp.where(left > 0, left * of_left[None] * inverse, 1.0)
    in_right = jnp.where(right > 0, right * of_right[None] * inverse, 1.0)
    gain = _over_classes(_itself, left * jnp.log(in_left) + right * jnp.log(in_right))
    smaller = jnp.minimum(w_left, w_right)
    return jnp.where((smaller >= min_leaf_weight) & (smaller > 0), gain, -jnp.inf)


def _over_classes(of_class: Callable[..., Any], *a: Array) -> Any:
    """The sum of a function of the rows of arrays (K, n).

    One by one, since XLA's own sum over few long rows takes 50 times as long.
    """
    zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_class, *(b[0] for b in a)))

    def add(so_far: Any, rows: tuple[Array, ...]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, of_class(*rows)), None

    return jax.lax.scan(add, zero, a)[0]


def _itself(a: Array) -> Array:
    return a


def _question(
    columns: Columns,
    weights: Array,
    level: _Level,
    feature: Array,
    best: _Cut,
    weight: Array,
    split: Array,
) -> _Question:
    """What nodes ask: thresholds are halfway between examples of positive weight."""
    number, rows = level.number, jnp.arange(len(level.number))
    column = feature[number]
    key, value = columns.keys[column, rows], columns.values[column, rows]
    left = key <= columns.keys[feature, level.order[feature, best.place]][number]
    missing = jnp.isnan(key)
    none = jnp.full(len(feature), jnp.inf, value.dtype)

    def least(some: Array, value: Array) -> Array:
        return none.at[number].min(jnp.where(some & (weights > 0), value, jnp.inf))

    def weight_of(some: Array) -> Array:
        return jnp.zeros_like(weight).at[number].add(jnp.where(some, weights, 0.0))

    # Infinity is above the last value, where only what is missing goes to the right.
    threshold = middle(-least(left, -value), least(~left & ~missing, value))
    heavier = (2 * weight_of(left) < weight).astype(jnp.int32)
    missing_right = jnp.where(weight_of(missing) > 0, best.missing_right, heavier)
    return _Question(
        jnp.where(split, feature, 0),
        jnp.where(split, threshold, jnp.inf),
        jnp.where(split, missing_right, 0),
    )


def _parted(order: Array, places: _Places, number: Array, right: Array, num_nodes: int) -> Array:
    """The orders after a split: in each node those that go left come first."""
    n = order.shape[1]
    place = jnp.arange(n, dtype=jnp.int32)
    begin = jnp.full(num_nodes, n, jnp.int32).at[places.number].min(place)
    lefts = jnp.zeros(num_nodes, jnp.int32).at[number].add(1 - right)
    middle_of = _at(begin + lefts, places.number)

    def one(rows: Array) -> Array:
        goes = _at(right, rows)
        rights = _running(goes[None], places.first)[0]
        to = jnp.where(goes > 0, middle_of + rights - 1, place - rights)
        return jnp.zeros_like(rows).at[to].set(rows, mode="promise_in_bounds", unique_indices=True)

    return jax.lax.map(one, order, batch_size=_together(len(order)))


def _running(a: Array, first: Array) -> Array:
    """(K, n) sums from the first place of each node on: in blocks side by side, then over them."""
    k, n = a.shape
    size = math.isqrt(n)
    blocks = -(-n // size)
    pad = blocks * size - n
    a = jnp.moveaxis(jnp.pad(a, ((0, 0), (0, pad))).reshape(k, blocks, size), 2, 0)
    goes_on = jnp.pad(~first, (0, pad)).reshape(blocks, size).T.astype(a.dtype)

    def within(so_far: tuple[Array, Array], new: tuple[Array, Array]) -> tuple[Any, Any]:
        both = so_far[0] * new[1][None] + new[0], so_far[1] * new[1]
        return both, both

    def over(so_far: Array, new: tuple[Array, Array]) -> tuple[Array, Array]:
        return so_far * new[1] + new[0], so_far

    zero = jnp.zeros((k, blocks), a.dtype), jnp.ones(blocks, a.dtype)
    _, (inner, open_) = jax.lax.scan(within, zero, (a, goes_on))
    _, before = jax.lax.scan(over, jnp.zeros(k, a.dtype), (inner[-1].T, open_[-1]))

    def joined(i: Array) -> Array:
        return (inner[:, i] + before[:, i][None] * open_).T.reshape(-1)[:n]

    return jax.lax.map(joined, jnp.arange(k))


def _at(a: Array, *index: Array) -> Array:
    return a.at[index].get(mode="promise_in_bounds")


def _or_one(a: Array) -> Array:
    return jnp.where(a > 0, a, 1.0)
