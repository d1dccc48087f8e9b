r"""The best cut of each node from histograms: between bins, and inside those that may hide it.

With L_k the weight of class k left of a cut, R_k that right of it, and n_k their sum, the gain
(equation 3.25) is

    G = Σ_k g_k - W,   g_k = L_k log(L_k/n_k) + R_k log(R_k/n_k),   W = L log(L/n) + R log(R/n)

A cut inside a bin moves s_k, between 0 and the weight b_k of the class in the bin, from right to
left. g_k is convex, so it is below its chord; W is convex in Σ_k s_k, so it is above its tangent at
the lower edge. So with Δ the difference between the edges no cut inside gains more than

    G(lower edge) + Σ_k max(0, Δg_k - W' b_k),   W' = log(L/n) - log(R/n) at the lower edge

and, from the upper edge, not more than G there + Σ_k max(0, W' b_k - Δg_k) with W' there. Where
the lesser of the two is below the best cut at an edge, of any column, nobody has to look. The
examples of the other bins are sorted, as many at a time as there is room for.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.binning import Bins, room_for
from jaxprob.models.trees.columns import Columns, in_order
from jaxprob.models.trees.cuts import (
    Cut,
    allowed,
    at,
    by_class,
    counted,
    itself,
    or_one,
    over_classes,
    running,
    sides,
    together,
)

_LANES = 8  # nodes whose histograms are looked at together
_BOUND_ROUNDING = 64  # of a bound, in units of the tolerance of gains


class Examples(NamedTuple):
    """What is looked at.

    Attributes:
        columns: with bins.
        y: (n,) int32 in 0..K-1.
        weights: (n,).
    """

    columns: Columns
    y: Array
    weights: Array


class Nodes(NamedTuple):
    """Of a level.

    Attributes:
        number: (n,) int32 of the node of each example.
        used: () int32 how many there are.
        chosen: (nodes, slots) int32 the columns that each may be split by; any where None.
        total: (K, nodes) weights of the classes.
        tolerance: (nodes,) by how much gains differ that are equal.
        least: (nodes,) a gain that the best cut has to have; infinite where it does not matter.
    """

    number: Array
    used: Array
    chosen: Array | None
    total: Array
    tolerance: Array
    least: Array


class _Tops(NamedTuple):
    """The best cuts so far, with missing entries on the right and on the left."""

    top: Array  # (2, ...) the largest gain
    key: Array  # (2, ...) of the first cut that is as good
    own: Array  # (2, ...) the gain of that


class _Edges(NamedTuple):
    """Histograms of one column, or of all, in blocks of nodes side by side."""

    tops: _Tops  # (2, blocks, lanes)
    ceiling: Array  # (blocks, codes, lanes) no cut inside gains more
    below: Array  # (blocks, K, codes, lanes) weights of what is in lower bins
    missing: Array  # (blocks, K, lanes)


class _Batch(NamedTuple):
    """Examples of bins that have to be looked into; those of a bin have the same group."""

    row: Array  # (room,) int32
    slot: Array  # (room,) int32
    group: Array  # (room,) int32: where they are once sorted; `room` where there is none


def lanes(num_nodes: int) -> int:
    """How many nodes are side by side in a block.

    Args:
        num_nodes: a power of two.

    Returns:
        At most as many.

    Example:
        >>> lanes(2)
        2
    """
    return min(_LANES, num_nodes)


def best_in_bins(
    examples: Examples, nodes: Nodes, min_leaf_weight: float, most: Array | float = 1.0
) -> tuple[Array, Cut, Array]:
    """The best split of each node, the same as that of a search through all cuts.

    Args:
        examples: Examples.
        nodes: Nodes, a power of two of them.
        min_leaf_weight: of either side.
        most: () what share of all entries may have to be looked into.

    Returns:
        (nodes,) the column to split each node by, the first of those that are as good; how; and
        the share of all entries that have to be looked into, about. Where it is more than `most`
        only the cuts between bins were looked at.

    Example:
        >>> from jaxprob.models.trees.binning import apart
        >>> x, y, zero = jnp.array([[1.0], [4.0]]), jnp.array([0, 1]), jnp.zeros(2, jnp.int32)
        >>> columns = Columns(x, x, jnp.array(False), apart(x), None)
        >>> data = Examples(columns, y, jnp.ones(2))
        >>> none = jnp.zeros(1)
        >>> nodes = Nodes(zero, jnp.int32(1), None, jnp.ones((2, 1)), none, none)
        >>> feature, cut, share = best_in_bins(data, nodes, 0.0)
        >>> feature.tolist(), cut.key.tolist(), float(share)
        ([0], [1.0], 0.0)
    """
    bins = _bins(examples)
    d = len(bins.codes)
    slots = jnp.arange(d if nodes.chosen is None else nodes.chosen.shape[1], dtype=jnp.int32)
    num_nodes = len(nodes.tolerance)

    def one(slot: Array) -> _Edges:
        return _edges(examples, nodes, slot, min_leaf_weight)

    edges = jax.lax.map(one, slots, batch_size=together(len(slots)))
    tops = jax.tree.map(
        lambda a: jnp.swapaxes(a, 0, 1).reshape(2, len(slots), num_nodes), edges.tops
    )
    share = jnp.zeros((), examples.weights.dtype)
    if bins.inside is not None:
        tops, share = _inside(examples, nodes, edges, tops, min_leaf_weight, most)
    is_better = tops.top[1] >= tops.top[0] - nodes.tolerance[None]
    gain, key = (jnp.where(is_better, a[1], a[0]) for a in (tops.top, tops.key))
    good = gain >= jnp.max(gain, axis=0, keepdims=True) - nodes.tolerance[None]
    slot, every = jnp.argmax(good, axis=0).astype(jnp.int32), jnp.arange(num_nodes)
    right = 1 - is_better.astype(jnp.int32)
    best = Cut(gain[slot, every], key[slot, every], right[slot, every])
    return slot if nodes.chosen is None else nodes.chosen[every, slot], best, share


def _edges(examples: Examples, nodes: Nodes, slot: Array, min_leaf_weight: float) -> _Edges:
    """The cuts between bins of one column."""
    bins, number, dtype = _bins(examples), nodes.number, examples.weights.dtype
    num_codes, num_classes, num_nodes = bins.last.shape[1], *nodes.total.shape
    width = lanes(num_nodes)
    blocks = num_nodes // width
    code = _codes(bins, nodes, slot)
    cell = ((number // width * num_codes + code) * num_classes + examples.y) * width
    sums = jnp.zeros(num_nodes * num_codes * num_classes, dtype)
    sums = sums.at[cell + number % width].add(examples.weights, mode="promise_in_bounds")
    sums = sums.reshape(blocks, num_codes, num_classes, width)
    total = nodes.total.reshape(num_classes, blocks, width)
    tolerance = nodes.tolerance.reshape(blocks, width)
    column = slot[None] if nodes.chosen is None else nodes.chosen[:, slot].reshape(blocks, width)

    def of_block(block: Array, edges: _Edges) -> _Edges:
        known, missing = sums[block, :-1], sums[block, -1]

        def add(so_far: Array, new: Array) -> tuple[Array, Array]:
            return so_far + new, so_far

        most, below = jax.lax.scan(add, jnp.zeros_like(missing), known)
        below = jnp.moveaxis(jnp.concatenate([below, most[None]]), 1, 0)  # (K, codes, lanes)
        whole = jnp.broadcast_to(total[:, block, None], below.shape)
        last = bins.last[column if nodes.chosen is None else column[block], :-1].T
        some = over_classes(itself, below)[1:] > 0

        def with_missing(side: Array, so_far: tuple[_Tops, Array]) -> tuple[_Tops, Array]:
            tops, ceiling = so_far
            left = below + jnp.where(side > 0, missing, 0.0)[:, None]
            gain, bound = _gains(left, whole, min_leaf_weight)
            # Without this, "is it missing?" could be asked with a threshold below all values.
            gain = jnp.where(some, gain, -jnp.inf)
            top = jnp.max(gain, axis=0)
            good = gain >= (top - tolerance[block])[None]
            place = jnp.argmax(good, axis=0)[None]
            key = jnp.take_along_axis(jnp.broadcast_to(last, gain.shape), place, axis=0)[0]
            own = jnp.take_along_axis(gain, place, axis=0)[0]
            new = _Tops(top, key, own)
            tops = jax.tree.map(lambda a, b: a.at[side, block].set(b), tops, new)
            return tops, jnp.maximum(ceiling, bound)

        none = jnp.full((num_codes - 1, width), -jnp.inf, dtype)
        tops, ceiling = jax.lax.fori_loop(
            0, 1 + examples.columns.gaps.astype(jnp.int32), with_missing, (edges.tops, none)
        )
        return _Edges(
            tops,
            edges.ceiling.at[block, :-1].set(ceiling),
            edges.below.at[block].set(below),
            edges.missing.at[block].set(missing),
        )

    nothing = jnp.full((2, blocks, width), -jnp.inf, dtype)
    start = _Edges(
        _Tops(nothing, -nothing.astype(bins.last.dtype), nothing),
        jnp.full((blocks, num_codes, width), -jnp.inf, dtype),
        jnp.zeros((blocks, num_classes, num_codes, width), dtype),
        jnp.zeros((blocks, num_classes, width), dtype),
    )
    return jax.lax.fori_loop(0, (nodes.used + width - 1) // width, of_block, start)


def _gains(left: Array, total: Array, min_leaf_weight: float) -> tuple[Array, Array]:
    """(codes - 1, lanes) gains above each bin, and what no cut inside of it exceeds."""
    each = sides(left, total)
    raw = over_classes(itself, each.terms)
    log_left, log_right = (
        jnp.log(or_one(a) / or_one(each.weight)) for a in (each.left, each.right)
    )
    separate = each.terms + left * log_left[None] + (total - left) * log_right[None]
    slope = log_left - log_right
    moved = left[:, 1:] - left[:, :-1]
    rise = separate[:, 1:] - separate[:, :-1]
    up = over_classes(lambda a, b: jnp.maximum(a - slope[:-1] * b, 0), rise, moved)
    down = over_classes(lambda a, b: jnp.maximum(slope[1:] * b - a, 0), rise, moved)
    sound = (each.left > 0) & (each.right > 0)  # where W has a tangent
    bound = jnp.minimum(
        jnp.where(sound[:-1], raw[:-1] + up, jnp.inf), jnp.where(sound[1:], raw[1:] + down, jnp.inf)
    )
    bound = jnp.where(over_classes(itself, moved) > 0, bound, -jnp.inf)
    return allowed(each, min_leaf_weight)[1:], bound


def _inside(
    examples: Examples,
    nodes: Nodes,
    edges: _Edges,
    tops: _Tops,
    min_leaf_weight: float,
    most: Array | float,
) -> tuple[_Tops, Array]:
    """The best cuts, with those inside of bins unless these have too much of the weight."""
    num_slots, blocks, num_codes, width = edges.ceiling.shape
    num_nodes = blocks * width
    least = jnp.maximum(jnp.max(tops.top, axis=(0, 1)), nodes.least)
    least = least - _BOUND_ROUNDING * nodes.tolerance
    candidate = edges.ceiling >= least.reshape(1, blocks, 1, width)
    column = jnp.arange(num_slots)[:, None] if nodes.chosen is None else nodes.chosen.T
    bins = _bins(examples)
    assert bins.inside is not None
    inner = bins.inside[jnp.broadcast_to(column, (num_slots, num_nodes))]
    inner = inner.reshape(num_slots, blocks, width, num_codes)
    candidate &= jnp.swapaxes(inner, 2, 3)
    some = jnp.any(candidate, axis=2).reshape(num_slots, num_nodes)
    each = over_classes(itself, jnp.moveaxis(edges.below, 2, 0))
    each = jnp.diff(each, axis=2, append=0.0)  # the last code is never looked into
    share = jnp.sum(jnp.where(candidate, each, 0.0)) / (num_slots * jnp.sum(nodes.total))
    share = jnp.where(bins.has_room, share, jnp.inf)
    turns = jnp.where(share > most, 0, jnp.sum(some, axis=0))
    slots = jnp.argsort(~some, axis=0, stable=True).astype(jnp.int32)  # first those to look into
    last_turn = jnp.max(turns)
    candidate = jnp.pad(candidate.reshape(num_slots, -1), ((0, 1), (0, 0)))  # and one of none
    room = room_for(len(nodes.number))
    place = jnp.arange(room, dtype=jnp.int32)
    rows = jnp.arange(len(nodes.number), dtype=jnp.int32)

    def cell_of(row: Array, slot: Array) -> Array:
        code = _codes_of(bins, nodes, slot, row)
        number = at(nodes.number, row)
        return (number // width * num_codes + code) * width + number % width

    def fill(state: Any) -> Any:
        turn, done, used, batch, _ = state
        slot = jnp.where(turn < turns, slots[turn], num_slots)
        own = at(slot, nodes.number)
        real = jnp.minimum(own, num_slots - 1)
        cell = cell_of(rows, real)
        asked = at(candidate, own, cell) & (examples.weights > 0)
        count = jnp.zeros(num_nodes * num_codes, jnp.int32)
        count = count.at[cell].add(asked.astype(jnp.int32), mode="promise_in_bounds")
        count = jnp.where(count > 1, count, 0)
        after = counted(count)
        before = after - count
        fits = (count > 0) & (before >= done) & (after - done <= room - used)
        end = jnp.max(jnp.where(fits, after, done))
        taken = asked & at(fits, cell)
        to = jnp.where(taken, used + counted(taken) - 1, room)
        row = batch.row.at[to].set(rows, mode="drop", unique_indices=True)
        new = (place >= used) & (place < used + end - done)
        slot = jnp.where(new, at(real, row), batch.slot)
        group = jnp.where(new, used - done + at(before, cell_of(row, slot)), batch.group)
        all_in = end == after[-1]
        turn = turn + all_in
        return turn, jnp.where(all_in, 0, end), used + end - done, _Batch(row, slot, group), ~all_in

    def batch_of(state: Any) -> Any:
        turn, done, tops = state
        zero = jnp.zeros(room, jnp.int32)
        empty = _Batch(zero, zero, zero + room)
        turn, done, _, batch, _ = jax.lax.while_loop(
            lambda state: (state[0] < last_turn) & ~state[4],
            fill,
            (turn, done, jnp.int32(0), empty, jnp.zeros((), bool)),
        )
        return turn, done, _looked_into(examples, nodes, edges, tops, batch, min_leaf_weight)

    start = jnp.int32(0), jnp.int32(0), tops
    return jax.lax.while_loop(lambda state: state[0] < last_turn, batch_of, start)[2], share


def _looked_into(
    examples: Examples,
    nodes: Nodes,
    edges: _Edges,
    tops: _Tops,
    batch: _Batch,
    min_leaf_weight: float,
) -> _Tops:
    """The best cuts, with those between examples of a batch."""
    num_slots, num_nodes = tops.top.shape[1:]
    room, width = len(batch.row), edges.ceiling.shape[3]
    key = at(examples.columns.keys, batch.row, _column(nodes, batch.slot, batch.row))
    order = in_order(key, batch.group, (room - 1).bit_length() + 1)
    row, slot, group, key = (at(a, order) for a in (*batch, key))
    number = at(nodes.number, row)
    code = _codes_of(_bins(examples), nodes, slot, row)
    where = slot, number // width
    lane = number % width
    classes = jnp.arange(len(nodes.total))[:, None]
    first = group != jnp.roll(group, 1)
    below = running(by_class(examples.y, examples.weights, row, len(classes)), first)
    below = below + edges.below[(*where, classes, code, lane)]
    missing = edges.missing[(*where, classes, lane)]
    total = nodes.total[:, number]
    cuts = (key != jnp.roll(key, -1)) & (group == jnp.roll(group, -1)) & (group < room)
    to = slot * num_nodes + number
    slack = nodes.tolerance[number]

    def with_missing(side: Array, tops: _Tops) -> _Tops:
        gain = allowed(sides(below + jnp.where(side > 0, missing, 0.0), total), min_leaf_weight)
        gain = jnp.where(cuts, gain, -jnp.inf)
        old = jax.tree.map(lambda a: a[side].reshape(-1), tops)
        top = old.top.at[to].max(gain)
        stays = old.own >= top - jnp.tile(nodes.tolerance, num_slots)
        good = cuts & (gain >= top[to] - slack)
        kept = jnp.where(stays, old.key, jnp.inf)
        new = kept.at[to].min(jnp.where(good, key, jnp.inf))
        own = jnp.where(stays & (new == kept), old.own, -jnp.inf)
        own = own.at[to].max(jnp.where(good & (key == new[to]), gain, -jnp.inf))
        found = _Tops(top, new, own)
        return jax.tree.map(lambda a, b: a.at[side].set(b.reshape(a.shape[1:])), tops, found)

    return jax.lax.fori_loop(0, 1 + examples.columns.gaps.astype(jnp.int32), with_missing, tops)


def _bins(examples: Examples) -> Bins:
    bins = examples.columns.bins
    assert bins is not None
    return bins


def _column(nodes: Nodes, slot: Array, row: Array) -> Array:
    """The column that a slot of the node of an example is."""
    return slot if nodes.chosen is None else at(nodes.chosen, at(nodes.number, row), slot)


def _codes_of(bins: Bins, nodes: Nodes, slot: Array, row: Array) -> Array:
    """(m,) int32 codes of examples, each in a column of its own."""
    return at(bins.codes, _column(nodes, slot, row), row).astype(jnp.int32)


def _codes(bins: Bins, nodes: Nodes, slot: Array) -> Array:
    """(n,) int32 codes of all examples in one slot."""
    if nodes.chosen is None:
        return bins.codes[slot].astype(jnp.int32)
    return _codes_of(bins, nodes, slot, jnp.arange(len(nodes.number), dtype=jnp.int32))
