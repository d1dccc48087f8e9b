"""Trees grown level by level: histograms of all nodes, and from these the best split of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.binning import Binned, middle

_OWN_PROGRAM = 2  # levels, the last ones, that are compiled each by itself
_ROUNDING = 4  # of the weight of a node, in units of eps: gains that differ by less are equal


class Level(NamedTuple):
    """Splits of the nodes of a level; see `jaxprob.models.decision_tree.Params`."""

    feature: Array  # (nodes,) int32
    threshold: Array  # (nodes,)
    missing_right: Array  # (nodes,) int32
    counts: Array  # (nodes, K)


class _Best(NamedTuple):
    """The best split of each node: by one column, or by any."""

    gain: Array  # (nodes,) nats; minus infinity where there is none
    bin: Array  # (nodes,) the last that goes left
    following: Array  # (nodes,) the next bin in which the node has something
    missing_right: Array  # (nodes,) int32


def grown(
    columns: Binned,
    y: Array,
    weights: Array,
    key: Array | None,
    *,
    num_classes: int,
    depth: int,
    min_leaf_weight: float,
    min_gain: float,
    max_features: int | None,
) -> tuple[list[Level], Array]:
    """A tree, by levels.

    Args:
        columns: of `binned`.
        y: (n,) int32 in 0..K-1.
        weights: (n,) floating.
        key: of the columns that a node may be split by; None where it is any.
        num_classes: K.
        depth: how many levels of splits.
        min_leaf_weight: of either side of a split.
        min_gain: of a split, nats.
        max_features: how many columns a node may be split by; any where None.

    Returns:
        The levels; and (2^depth, K) the weights of the classes below the last one.

    Example:
        >>> from jaxprob.models.trees.binning import binned
        >>> rules = dict(depth=1, min_leaf_weight=1.0, min_gain=0.0, max_features=None)
        >>> columns, y = binned(jnp.array([[1.0], [4.0]])), jnp.array([0, 1])
        >>> levels, leaves = grown(columns, y, jnp.ones(2), None, num_classes=2, **rules)
        >>> levels[0].threshold.tolist(), leaves.tolist()
        ([2.5], [[1.0, 0.0], [0.0, 1.0]])
    """
    d, n = columns.codes.shape
    eps = jnp.finfo(weights.dtype).eps
    rows = jnp.arange(n, dtype=jnp.int32)

    def of_level(level: Array | int, node: Array, can_split: Array) -> tuple[Array, Array, Level]:
        """The nodes of the next level that examples go to, which may split, and what is asked."""
        counts = _counts(node, y, weights, len(can_split), num_classes)
        chosen = None
        if max_features is not None and max_features < d:
            assert key is not None
            chosen = _some(jax.random.fold_in(key, level), len(can_split), d, max_features)
        tolerance = _ROUNDING * eps * jnp.sum(counts, axis=1)
        feature, best = _best(columns, y, weights, node, chosen, counts, tolerance, min_leaf_weight)
        can_split &= best.gain > jnp.maximum(min_gain, tolerance)
        feature = jnp.where(can_split, feature, 0)
        threshold = middle(columns.high[feature, best.bin], columns.low[feature, best.following])
        threshold = jnp.where(can_split, threshold, jnp.inf)
        missing_right = jnp.where(can_split, best.missing_right, 0)
        missing = columns.num_codes - 1
        last = jnp.where(can_split, best.bin, missing)
        code = columns.codes.reshape(-1)[feature[node] * n + rows].astype(jnp.int32)
        right = jnp.where(
            code == missing, missing_right[node], (code > last[node]).astype(jnp.int32)
        )
        asked = Level(feature, threshold, missing_right, counts)
        return 2 * node + right, jnp.repeat(can_split, 2), asked

    # The first levels are one program, as wide as the last of them: that costs little time, and the
    # compiler much less.
    alike = max(1, depth - _OWN_PROGRAM)
    width = 2 ** (alike - 1)

    def step(state: tuple[Array, Array], level: Array) -> tuple[tuple[Array, Array], Level]:
        node, can_split = state
        node, can_split, asked = of_level(level, node, can_split[:width])
        return (node, can_split), asked

    start = jnp.zeros(n, jnp.int32), jnp.arange(2 * width) == 0
    (node, can_split), first = jax.lax.scan(step, start, jnp.arange(alike))
    levels = [jax.tree.map(lambda a, i=i: a[i, : 2**i], first) for i in range(alike)]
    for level in range(alike, depth):
        node, can_split, asked = of_level(level, node, can_split)
        levels.append(asked)
    return levels, _counts(node, y, weights, 2**depth, num_classes)


def _counts(node: Array, y: Array, weights: Array, num_nodes: int, num_classes: int) -> Array:
    """(nodes, K) the weight of each class in each node."""
    sums = jnp.zeros(num_nodes * num_classes, weights.dtype)
    return sums.at[node * num_classes + y].add(weights).reshape(num_nodes, num_classes)


def _some(key: Array, num_nodes: int, d: int, max_features: int) -> Array:
    """(nodes, max_features) columns of each node, in order."""
    order = jnp.argsort(jax.random.uniform(key, (num_nodes, d)), axis=1)
    return jnp.sort(order[:, :max_features], axis=1).astype(jnp.int32)


def _best(
    columns: Binned,
    y: Array,
    weights: Array,
    node: Array,
    chosen: Array | None,
    counts: Array,
    tolerance: Array,
    min_leaf_weight: float,
) -> tuple[Array, _Best]:
    """(nodes,) the column to split each node by, and how; the first of those that are as good."""
    (d, n), (num_nodes, num_classes) = columns.codes.shape, counts.shape
    by_row = None if chosen is None else columns.codes.T.reshape(-1)

    def by_one(slot: Array) -> _Best:
        if chosen is None or by_row is None:
            codes = columns.codes[slot]
        else:
            codes = by_row[jnp.arange(n) * d + chosen[:, slot][node]]
        cell = (codes.astype(jnp.int32) * num_classes + y) * num_nodes + node
        shape = columns.num_codes, num_classes, num_nodes
        sums = jnp.zeros(shape, weights.dtype).reshape(-1).at[cell].add(weights)
        return _best_cut(sums.reshape(shape), columns.gaps, tolerance, min_leaf_weight)

    slots = d if chosen is None else chosen.shape[1]
    together = None if jax.default_backend() == "cpu" else slots
    each = jax.lax.map(by_one, jnp.arange(slots), batch_size=together)
    good = each.gain >= jnp.max(each.gain, axis=0, keepdims=True) - tolerance[None, :]
    slot = jnp.argmax(good, axis=0)
    nodes = jnp.arange(num_nodes)
    best = jax.tree.map(lambda a: a[slot, nodes], each)
    return slot.astype(jnp.int32) if chosen is None else chosen[nodes, slot], best


def _best_cut(sums: Array, gaps: Array, tolerance: Array, min_leaf_weight: float) -> _Best:
    """The best split of each node by one column, from (codes, K, nodes) weights."""
    missing = sums[-1]
    below = jnp.cumsum(sums[:-1], axis=0)
    above = below[-1:] - below
    per_bin = jnp.sum(sums[:-1], axis=1)
    known_left = jnp.sum(below, axis=1)
    bins = jnp.arange(len(below), dtype=jnp.int32)[:, None]
    total = below[-1] + missing

    def with_missing(right: Array, so_far: tuple[Array, ...]) -> tuple[Array, ...]:
        to_right = jnp.asarray(right, sums.dtype)
        gain = _gain(
            below + ((1 - to_right) * missing)[None],
            above + (to_right * missing)[None],
            total,
            min_leaf_weight,
        )
        # Without this, "is it missing?" could be asked with a threshold below all values.
        gain = jnp.where(known_left > 0, gain, -jnp.inf)
        top = jnp.max(gain, axis=0)
        first = jnp.min(jnp.where(gain >= (top - tolerance)[None, :], bins, len(bins)), axis=0)
        old, at, side = so_far
        better = top > old + tolerance
        return (
            jnp.where(better, top, old),
            jnp.where(better, first, at),
            jnp.where(better, right, side),
        )

    nothing = jnp.full(sums.shape[2], -jnp.inf, sums.dtype)
    zero = jnp.zeros(sums.shape[2], jnp.int32)
    gain, at, side = jax.lax.fori_loop(
        0, 1 + gaps.astype(jnp.int32), with_missing, (nothing, zero, zero)
    )
    # Infinity is above the last bin, where only what is missing goes to the right.
    later = jnp.where((bins > at[None, :]) & (per_bin > 0), bins, len(bins))
    following = jnp.min(later, axis=0)
    none_missing = jnp.sum(missing, axis=0) == 0
    left = jnp.take_along_axis(known_left, at[None, :], axis=0)[0]
    heavier = (2 * left < jnp.sum(total, axis=0)).astype(jnp.int32)
    return _Best(gain, at, following, jnp.where(none_missing, heavier, side))


def _gain(left: Array, right: Array, total: Array, min_leaf_weight: float) -> Array:
    """(bins, nodes) the gain of each cut (equation 3.25), minus infinity if it is not allowed."""
    weight = jnp.sum(total, axis=0)
    # The share of a class in a side is compared with that in the node: gains that are small beside
    # the entropies keep their digits.
    inverse_share = weight[None, :] / _or_one(total)

    def of_side(a: Array) -> tuple[Array, Array]:
        own = jnp.sum(a, axis=1)
        ratio = a * (1 / _or_one(own))[:, None, :] * inverse_share[None]
        return own, jnp.sum(a * jnp.log(jnp.where(a > 0, ratio, 1.0)), axis=1)

    (w_left, of_left), (w_right, of_right) = of_side(left), of_side(right)
    smaller = jnp.minimum(w_left, w_right)
    allowed = (smaller >= min_leaf_weight) & (smaller > 0)
    return jnp.where(allowed, of_left + of_right, -jnp.inf)


def _or_one(a: Array) -> Array:
    return jnp.where(a > 0, a, 1.0)
