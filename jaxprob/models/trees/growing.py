"""Trees grown level by level: the first ones from histograms, the others from orders of columns.

`jaxprob.models.trees.histograms` finds the best cut of few nodes with many examples; here is the
search for others. A level costs the same whatever the number of its nodes: the examples of a node
are next to each other in the order of every column, so that all cuts of all nodes come from one
running sum of each class. Splitting a node moves those that go left to the front of it, in every
order.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.binning import middle
from jaxprob.models.trees.columns import Columns, in_order, levels_in_bins
from jaxprob.models.trees.cuts import (
    ROUNDING,
    Cut,
    allowed,
    at,
    by_class,
    itself,
    over_classes,
    running,
    sides,
    together,
)
from jaxprob.models.trees.histograms import Examples, Nodes, best_in_bins


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
    order: Array | None  # (d, n) int32 examples, node by node, and in a node as the column has them
    number: Array  # (n,) int32 of the node of each example
    leaf: Array  # (n,) int32 the same among all 2^depth nodes
    can_split: Array  # (nodes,) bool
    asked: _Question  # of the complete tree
    in_bins: Array  # () bool, whether histograms are still the faster way


class _Places(NamedTuple):
    """Which places of an order belong to which node: the same in all columns."""

    number: Array  # (n,) int32
    first: Array  # (n,) bool, whether its node begins here
    last: Array  # (n,) int32, where its node ends


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
        columns: of `columns_of`.
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
        >>> from jaxprob.models.trees.columns import columns_of
        >>> rules = dict(depth=1, min_leaf_weight=0.0, min_gain=0.0, max_features=None)
        >>> columns, y = columns_of(jnp.array([[1.0], [4.0]])), jnp.array([0, 1])
        >>> tree = grown(columns, y, jnp.ones(2), None, num_classes=2, **rules)
        >>> tree.threshold.tolist(), tree.counts[1:].tolist()
        ([2.5], [[1.0, 0.0], [0.0, 1.0]])
    """
    n, d = columns.values.shape
    most_nodes = min(2 ** (depth - 1), n)  # with a question, in a level
    eps = jnp.finfo(weights.dtype).eps
    rows = jnp.arange(n, dtype=jnp.int32)
    data = Examples(columns, y, weights)

    def step(num_nodes: int, keys: Array | None, level: _Level) -> _Level:
        number = level.number
        total = jnp.zeros((num_classes, num_nodes), weights.dtype).at[y, number].add(weights)
        weight = over_classes(itself, total)
        tolerance = ROUNDING * eps * weight
        leaf = jnp.zeros(num_nodes, jnp.int32).at[number].set(level.leaf)
        can_split = level.can_split[:num_nodes]
        chosen = None
        if max_features is not None and max_features < d:
            assert key is not None
            drawn = jax.random.fold_in(key, level.depth)
            chosen = _some(drawn, 2 ** (depth - 1), leaf, d, max_features)
        least = jnp.where(can_split, jnp.maximum(min_gain, tolerance), jnp.inf)
        # Nodes of one class have nothing to gain.
        aim = jnp.where(jnp.sum(total > 0, axis=0) > 1, least, jnp.inf)
        nodes = Nodes(number, jnp.max(number) + 1, chosen, total, tolerance, aim)
        in_bins = level.in_bins
        if level.order is None or keys is None:
            most = _worth(depth - level.depth, columns.order is None)
            feature, best, share = best_in_bins(data, nodes, min_leaf_weight, most)
            in_bins = share <= most
        else:
            places = _places(level.order, number, num_nodes)
            feature, best = _best(data, keys, level.order, places, nodes, min_leaf_weight)
        split = best.gain > least
        question = _question(columns, weights, number, feature, best, weight, split)
        index = jnp.where(split, 2**level.depth - 1 + leaf, 2**depth)  # where there is no node
        asked = jax.tree.map(lambda a, b: a.at[index].set(b, mode="drop"), level.asked, question)

        feature, threshold, missing_right = (a[number] for a in question)
        value = columns.values[rows, feature]
        right = jnp.where(jnp.isnan(value), missing_right, (value > threshold).astype(jnp.int32))
        order = level.order
        if order is not None:
            order = _parted(order, places, number, right, num_nodes)
        before = jnp.cumsum(split, dtype=jnp.int32) - split
        can_split = split[number]
        number = number + before[number] + right
        can_split = jnp.zeros(most_nodes, bool).at[number].set(can_split, mode="drop")
        leaf = 2 * level.leaf + right
        new = _Level(level.depth + 1, order, number, leaf, can_split, asked, in_bins)
        if order is not None:
            return new
        old = level._replace(in_bins=in_bins)
        return jax.tree.map(lambda a, b: jnp.where(in_bins, a, b), new, old)

    def goes_on(levels: int, level: _Level) -> Array:
        return (level.depth < levels) & jnp.any(level.can_split)

    def in_orders(level: _Level) -> _Level:
        # Each column in one piece: entries of a transposed array are a row apart.
        keys = jax.lax.map(lambda j: columns.keys[:, j], jnp.arange(d))
        order = jax.lax.map(in_order, keys) if columns.order is None else columns.order

        def finish(level: _Level) -> _Level:
            own = order if columns.bins is None else _by_node(order, level.number)
            last = jax.lax.while_loop(
                partial(goes_on, depth),
                partial(step, most_nodes, keys),
                level._replace(order=own),
            )
            return last._replace(order=None)

        return jax.lax.while_loop(partial(goes_on, depth), finish, level)

    inner = 2**depth - 1
    none = _Question(
        jnp.zeros(inner, jnp.int32),
        jnp.full(inner, jnp.inf, columns.values.dtype),
        jnp.zeros(inner, jnp.int32),
    )
    root = jnp.zeros(n, jnp.int32)
    can_split, yes = jnp.arange(most_nodes) == 0, jnp.ones((), bool)
    level = _Level(jnp.int32(0), None, root, root, can_split, none, yes)
    if columns.bins is None:
        level = in_orders(level)
    else:
        levels = levels_in_bins(n, num_classes, depth)
        level = jax.lax.while_loop(
            lambda level: goes_on(levels, level) & level.in_bins,
            partial(step, 2 ** (levels - 1), None),
            level,
        )
        if levels < depth or columns.bins.inside is not None:
            # No loop: XLA would sort before it in any case.
            rest = level
            level = jax.lax.cond(goes_on(depth, rest), lambda: in_orders(rest), lambda: rest)
    leaf = level.leaf << (depth - level.depth)
    counts = _counts(leaf, y, weights, depth, num_classes)
    return Grown(level.asked.feature, level.asked.threshold, level.asked.missing_right, counts)


def _worth(levels: Array, has_to_sort: bool) -> Array:
    """() the share of entries up to which looking into bins is faster than orders of columns.

    An entry in a bin takes as long as six entries in order on a level, and sorting as two.
    """
    return (1 + 2 * has_to_sort / levels) / 6


def _by_node(order: Array, number: Array) -> Array:
    """The orders of columns, node by node."""
    n = len(number)
    low = max(1, (n - 1).bit_length())
    place = jnp.arange(n, dtype=jnp.int32)

    def one(rows: Array) -> Array:
        key = at(number, rows)
        if 2 * low > 31:
            return at(rows, jax.lax.sort((key, place), num_keys=2, is_stable=False)[1])
        return at(rows, jax.lax.sort((key << low) | place, is_stable=False) & ((1 << low) - 1))

    return jax.lax.map(one, order, batch_size=together(len(order)))


def _counts(leaf: Array, y: Array, weights: Array, depth: int, num_classes: int) -> Array:
    """(2^(D+1) - 1, K) the weight of each class in each node of the complete tree."""
    last = jnp.zeros((2**depth, num_classes), weights.dtype).at[leaf, y].add(weights)
    levels = [last]
    for _ in range(depth):
        levels.append(levels[-1][0::2] + levels[-1][1::2])
    return jnp.concatenate(levels[::-1])


def _some(key: Array, num_nodes: int, at: Array, d: int, max_features: int) -> Array:
    """(nodes, max_features) columns of each node, in order."""
    luck = jax.random.uniform(key, (num_nodes, d))[at]
    return jnp.sort(jnp.argsort(luck, axis=1)[:, :max_features], axis=1).astype(jnp.int32)


def _places(order: Array, number: Array, num_nodes: int) -> _Places:
    number = number[order[0]]
    place = jnp.arange(len(number), dtype=jnp.int32)
    first = jnp.concatenate([jnp.ones(1, bool), number[1:] != number[:-1]])
    last = jnp.zeros(num_nodes, jnp.int32).at[number].max(place)
    return _Places(number, first, last[number])


def _best(
    data: Examples,
    keys: Array,
    order: Array,
    places: _Places,
    nodes: Nodes,
    min_leaf_weight: float,
) -> tuple[Array, Cut]:
    """(nodes,) the column to split each node by, and how; the first of those that are as good."""
    (d, n), chosen, tolerance = order.shape, nodes.chosen, nodes.tolerance

    def by_one(slot: Array) -> Cut:
        if chosen is None:
            rows = order[slot]
            own = at(keys[slot], rows)
        else:
            column = chosen[:, slot][places.number]
            rows = at(order, column, jnp.arange(n))
            own = at(keys, column, rows)
        mass = by_class(data.y, data.weights, rows, len(nodes.total))
        return _best_cut(mass, own, places, data.columns.gaps, tolerance, min_leaf_weight)

    slots = d if chosen is None else chosen.shape[1]
    each = jax.lax.map(by_one, jnp.arange(slots), batch_size=together(slots))
    good = each.gain >= jnp.max(each.gain, axis=0, keepdims=True) - tolerance[None, :]
    slot, every = jnp.argmax(good, axis=0).astype(jnp.int32), jnp.arange(len(tolerance))
    best = jax.tree.map(lambda a: a[slot, every], each)
    return slot if chosen is None else chosen[every, slot], best


def _best_cut(
    mass: Array,
    keys: Array,
    places: _Places,
    gaps: Array,
    tolerance: Array,
    min_leaf_weight: float,
) -> Cut:
    """The best split of each node by one column, from what is at each place of its order."""
    n, num_nodes = len(keys), len(tolerance)
    place = jnp.arange(n, dtype=jnp.int32)
    below = running(mass, places.first)
    total = jax.lax.map(lambda a: at(a, places.last), below)
    known = ~jnp.isnan(keys)
    # Without the sum, "is it missing?" could be asked with a threshold below all values.
    ends = known & (keys != jnp.roll(keys, -1)) & (over_classes(itself, below) > 0)
    slack = at(tolerance, places.number)

    def with_missing_left() -> Array:
        known_at = jnp.where(known, place, 0)
        last = at(jnp.zeros(num_nodes, jnp.int32).at[places.number].max(known_at), places.number)
        return jax.lax.map(lambda a: a[1] - (at(a[0], last) - a[0]), (below, total))

    def better(missing_left: Array, so_far: Cut) -> Cut:
        left = jax.lax.cond(missing_left > 0, with_missing_left, lambda: below)
        gain = jnp.where(ends, allowed(sides(left, total), min_leaf_weight), -jnp.inf)
        top = jnp.full(num_nodes, -jnp.inf, gain.dtype).at[places.number].max(gain)
        good = gain >= at(top, places.number) - slack
        first = jnp.full(num_nodes, n - 1, jnp.int32)
        first = first.at[places.number].min(jnp.where(good, place, n - 1))
        new = Cut(top, at(keys, first), jnp.full(num_nodes, 1 - missing_left, jnp.int32))
        is_better = top >= so_far.gain - tolerance
        return jax.tree.map(lambda a, b: jnp.where(is_better, a, b), new, so_far)

    none = jnp.zeros(num_nodes, jnp.int32)
    lowest = jnp.full(num_nodes, -jnp.inf, mass.dtype)
    nothing = Cut(lowest, lowest.astype(keys.dtype), none)
    return jax.lax.fori_loop(0, 1 + gaps.astype(jnp.int32), better, nothing)


def _question(
    columns: Columns,
    weights: Array,
    number: Array,
    feature: Array,
    best: Cut,
    weight: Array,
    split: Array,
) -> _Question:
    """What nodes ask: thresholds are halfway between examples of positive weight."""
    rows = jnp.arange(len(number))
    column = feature[number]
    key, value = columns.keys[rows, column], columns.values[rows, column]
    left = key <= best.key[number]
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
    middle_of = at(begin + lefts, places.number)

    def one(rows: Array) -> Array:
        goes = at(right, rows)
        rights = running(goes[None], places.first)[0]
        to = jnp.where(goes > 0, middle_of + rights - 1, place - rights)
        return jnp.zeros_like(rows).at[to].set(rows, mode="promise_in_bounds", unique_indices=True)

    return jax.lax.map(one, order, batch_size=together(len(order)))
