"""Columns as small integers, so that the sums of a column's values are a histogram of 256 cells."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.cuts import at

MOST_BINS = 255  # of values: with one for missing entries a code is a byte
_SAMPLE = 20_000  # examples of which quantiles are taken
_SAMPLE_APART = 4_000  # the same, where a bin need not be as good
_TRIES = 8  # samples
_ROOM = 8  # the part of all examples that a bin may have


class Binned(NamedTuple):
    """Columns as codes: a value's bin, or the last code where it is missing.

    Attributes:
        codes: (d, n) uint8.
        low: (d, bins + 1) the smallest value of a bin that was seen; infinite where there is none.
        high: (d, bins + 1) the largest.
        gaps: () bool whether anything is missing.
    """

    codes: Array
    low: Array
    high: Array
    gaps: Array

    @property
    def num_codes(self) -> int:
        """How many codes there are, that of missing entries included."""
        return self.low.shape[1]


def binned(x: Array, max_bins: int = MOST_BINS) -> Binned:
    """Each column in bins of about as many examples each, or of one value each if these are few.

    Columns with up to `max_bins` different values have a bin for each. Others are cut at quantiles
    of the examples, whatever their weights are; a value as frequent as a bin has one of its own. Of
    more than 20,000 examples those of 20,000 are taken, one from each part of the data.

    Args:
        x: (n, d) floating, NaN where an entry is missing.
        max_bins: from 2 to 255.

    Returns:
        Binned. Bin b holds what is above `middle(high[b - 1], low[b])` and not above
        `middle(high[b], low[b + 1])`.

    Example:
        >>> columns = binned(jnp.array([[3.0], [1.0], [jnp.nan], [3.0]]), 2)
        >>> columns.codes.tolist(), columns.low.tolist()
        ([[1, 0, 2, 1]], [[1.0, 3.0, inf]])
    """
    bins: Any = partial(_bins, max_bins=max_bins)
    low, _, high = jax.lax.map(bins, _sample(x, 0, _SAMPLE).T)
    edges = middle(high[:, :-2], low[:, 1:-1])  # an edge without a bin above it is infinite
    codes = jax.lax.map(lambda a: _codes(a[0], a[1], max_bins), (x.T, edges))
    return Binned(codes, low, high, jnp.any(codes == max_bins))


class Bins(NamedTuple):
    """Columns as codes of which each question between two of them is one of the column.

    Attributes:
        codes: (d, n) uint8.
        last: (d, codes) up to which keys have a code; infinite for the last two.
        inside: (d, codes) bool, whether keys of one code may differ; None where none do.
        has_room: () bool, whether no bin in which they may has more than `room_for` examples.
    """

    codes: Array
    last: Array
    inside: Array | None
    has_room: Array


def apart(x: Array) -> Bins:
    """Columns in 255 bins, where a value that is as frequent as two bins shares none with others.

    So there is room to look into each bin in which values differ.

    Args:
        x: (n, d) floating, NaN where an entry is missing.

    Returns:
        Bins of 256 codes, the largest for missing entries.

    Example:
        >>> bins = apart(jnp.array([[3.0], [1.0], [jnp.nan], [3.0]]))
        >>> bins.codes.tolist(), bins.last[0, :4].tolist()
        ([[3, 1, 255, 3]], [0.9999999403953552, 1.0, 2.999999761581421, 3.0])
    """
    n, d = x.shape
    room = room_for(n)

    def again(state: tuple[Any, ...]) -> tuple[Any, ...]:
        seed = state[0]
        last = jax.lax.map(_apart, _sample(x, seed, _SAMPLE_APART).T)
        inside = jnp.pad(last, ((0, 0), (1, 0)), constant_values=-jnp.inf)[:, :-1]
        inside = inside < _before(last)
        each = jnp.arange(d), last
        codes = jax.lax.map(lambda a: _codes(x[:, a[0]], a[1][:-2], MOST_BINS), each)
        # In a loop of its own: XLA would find the codes a second time for their histogram.
        fullest = jax.lax.map(lambda a: _most(*a), (codes, inside))
        return seed + 1, Bins(codes, last, inside, jnp.max(fullest) <= room)

    # A sample may be unlucky, but not every time unless entries are infinite.
    edges = jnp.zeros((d, MOST_BINS + 1), x.dtype)
    none = jnp.zeros((d, n), jnp.uint8), edges, edges > 0
    start = jnp.int32(0), Bins(*none, jnp.zeros((), bool))
    return jax.lax.while_loop(lambda state: ~state[1].has_room & (state[0] < _TRIES), again, start)[
        1
    ]


def room_for(n: int) -> int:
    """More examples than a bin has in which values differ, unless the sample was unlucky.

    Args:
        n: how many examples there are.

    Returns:
        How many may be.

    Example:
        >>> room_for(10)
        10
    """
    return min(n, max(1024, n // _ROOM))


def middle(a: Array, b: Array) -> Array:
    """Halfway between a < b, or a where no number is between them.

    Args:
        a: floating.
        b: of the same shape; infinity stays so.

    Returns:
        Numbers of at least a, below b.

    Example:
        >>> float(middle(jnp.array(1.0), jnp.array(4.0)))
        2.5
    """
    half = a / 2 + b / 2
    return jnp.where((half < b) | (b == jnp.inf), half, a)


def _sample(x: Array, seed: Array | int, size: int) -> Array:
    """Examples of which quantiles are taken, one from each part of the data."""
    n = len(x)
    if n <= size:
        return x
    place = jnp.arange(size) + jax.random.uniform(jax.random.key(seed), (size,))
    return x[jnp.minimum((place * (n / size)).astype(jnp.int32), n - 1)]


def _apart(column: Array) -> Array:
    """(256,) up to where bins go: pairs of quantiles, or a value that is there often by itself."""
    low, middle, high = _bins(column, MOST_BINS // 2)
    return jnp.stack([jnp.where(low == high, _before(low), middle), high], axis=1).reshape(-1)


def _before(a: Array) -> Array:
    """The next number below; below 0 that with all its digits, since others are taken for 0."""
    least = -jnp.finfo(a.dtype).tiny
    return jnp.where(a == jnp.inf, a, jnp.where(a == 0, least, jnp.nextafter(a, -jnp.inf)))


def _bins(column: Array, max_bins: int) -> tuple[Array, Array, Array]:
    """(bins + 1,) the smallest, the middle and the largest value of each bin."""
    values = _sorted(column)
    n = len(values)
    seen = jnp.sum(values < jnp.inf)
    new = (values[1:] > values[:-1]) & (values[1:] < jnp.inf)
    rank = jnp.cumsum(new)
    slot = jnp.where(new & (rank < max_bins), rank, max_bins)
    each = jnp.full(max_bins + 1, n).at[slot].set(jnp.arange(1, n))[1:max_bins]
    few = jnp.sum(new) < max_bins
    cuts = jnp.where(few, each, _quantiles(values, seen, max_bins))
    cuts = jnp.minimum(cuts, seen)
    first = jnp.concatenate([jnp.zeros(1, cuts.dtype), cuts])
    last = jnp.concatenate([cuts, seen[None]]) - 1
    some = first < seen  # where a cut is there twice, low is above high and both are at the cut
    at = jnp.stack([first, (first + last) // 2, last])
    edges = jnp.where(some, values[jnp.clip(at, 0, n - 1)], jnp.inf)
    low, middle, high = jnp.pad(edges, ((0, 0), (0, 1)), constant_values=jnp.inf)  # of missing ones
    return low, middle, high


def _quantiles(values: Array, seen: Array, max_bins: int) -> Array:
    """(bins - 1,) places to cut sorted values: below a quantile, or above it if it was there."""
    place = (jnp.arange(1, max_bins) * (seen / max_bins)).astype(jnp.int32)
    quantile = values[jnp.minimum(place, len(values) - 1)]
    again = jnp.concatenate([jnp.zeros(1, bool), quantile[1:] == quantile[:-1]])
    below, above = (jnp.searchsorted(values, quantile, side) for side in ("left", "right"))
    return jnp.where(again | (below == 0), above, below)


def _sorted(column: Array) -> Array:
    """In order, with infinity for what is missing.

    Integers that are in the same order are sorted, for which there is a much faster program.
    """
    column = jnp.where(jnp.isnan(column), jnp.inf, jnp.where(column == 0, 0.0, column))
    bits = jnp.finfo(column.dtype).bits
    integer = jnp.dtype(f"int{bits}")
    most = jnp.iinfo(integer).max

    def turned(a: Array) -> Array:
        return a ^ ((a >> (bits - 1)) & most)

    keys = turned(jax.lax.bitcast_convert_type(column, integer))
    return jax.lax.bitcast_convert_type(turned(jax.lax.sort(keys, is_stable=False)), column.dtype)


def _codes(column: Array, edges: Array, missing: int) -> Array:
    """(n,) uint8 how many edges are below each value, found by quarters."""
    rounds = 1
    while 4**rounds <= len(edges):
        rounds += 1
    edges = jnp.pad(edges, (0, 4**rounds - len(edges)), constant_values=jnp.inf)
    code = jnp.zeros(column.shape, jnp.int32)
    for step in (4**r for r in reversed(range(rounds))):
        above = [(column > at(edges, code + (step * q - 1))) for q in (1, 2, 3)]
        code = code + step * sum(a.astype(jnp.int32) for a in above)
    return jnp.where(jnp.isnan(column), missing, code).astype(jnp.uint8)


def _most(codes: Array, inside: Array) -> Array:
    """() how many examples the fullest bin has in which values may differ."""
    count = jnp.zeros(len(inside), jnp.int32)
    count = count.at[codes.astype(jnp.int32)].add(1, mode="promise_in_bounds")
    return jnp.max(jnp.where(inside, count, 0)[:-1])
