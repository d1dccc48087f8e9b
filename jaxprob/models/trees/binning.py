"""Columns as small integers, so that the sums of a column's values are a histogram of 256 cells."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.cuts import at

MOST_BINS = 255  # of values: with one for missing entries a code is a byte
_SAMPLE = 20_000  # examples of which quantiles are taken
_QUANTILES = 127  # that have codes of their own: with those between them and one, a byte
_ROOM = 8  # the part of all examples that at most may be between two quantiles


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
    low, high = jax.lax.map(partial(_bins, max_bins=max_bins), _sample(x, 0).T)
    codes = jax.lax.map(lambda column: _codes(*column), (x.T, low, high))
    return Binned(codes, low, high, jnp.any(codes == max_bins))


class Bins(NamedTuple):
    """Columns as codes of which each question between two of them is one of the column.

    Attributes:
        codes: (d, n) uint8.
        last: (d, codes) up to which keys may have a code; infinite for the last two.
        inside: (d, codes) bool, whether keys of one code may differ; None where none do.
    """

    codes: Array
    last: Array
    inside: Array | None


def apart(x: Array) -> Bins:
    """Values at 127 quantiles, and what is between two of them, in bins of their own.

    So a value that is as frequent as a bin shares none, and there is room to look into each of the
    others.

    Args:
        x: (n, d) floating, NaN where an entry is missing.

    Returns:
        Bins of 256 codes. The largest is that of missing entries; the others are even between
        quantiles, and odd at them.

    Example:
        >>> bins = apart(jnp.array([[3.0], [1.0], [jnp.nan], [3.0]]))
        >>> bins.codes.tolist(), bins.last[0, :4].tolist()
        ([[3, 1, 255, 3]], [0.9999999403953552, 1.0, 2.999999761581421, 3.0])
    """
    n, most = len(x), room_for(len(x))

    def again(state: tuple[Any, ...]) -> tuple[Any, ...]:
        seed = state[1]
        edges = jax.lax.map(partial(_bins, max_bins=_QUANTILES), _sample(x, seed).T)[1]
        codes, fullest = jax.lax.map(lambda column: _codes_apart(*column), (x.T, edges))
        return jnp.max(fullest), seed + 1, codes, edges

    # A sample may be unlucky.
    start = jnp.int32(n + 1), jnp.int32(0), jnp.zeros(x.shape[::-1], jnp.uint8)
    edges = jnp.zeros((x.shape[1], _QUANTILES + 1), x.dtype)
    _, _, codes, edges = jax.lax.while_loop(lambda s: s[0] > most, again, (*start, edges))
    below = jnp.nextafter(edges, -jnp.inf)
    below = jnp.where(edges == jnp.inf, jnp.inf, below)
    last = jnp.stack([below, edges], axis=2).reshape(len(edges), -1)
    inside = jnp.broadcast_to(jnp.arange(last.shape[1]) % 2 == 0, last.shape)
    return Bins(codes, last, inside)


def room_for(n: int) -> int:
    """More examples than are between two quantiles of n, unless their sample was unlucky.

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


def _sample(x: Array, seed: Array | int) -> Array:
    """Examples of which quantiles are taken, one from each part of the data."""
    if len(x) <= _SAMPLE:
        return x
    place = jnp.arange(_SAMPLE) + jax.random.uniform(jax.random.key(seed), (_SAMPLE,))
    return x[jnp.minimum((place * (len(x) / _SAMPLE)).astype(jnp.int32), len(x) - 1)]


def _bins(column: Array, max_bins: int) -> tuple[Array, Array]:
    """(bins + 1,) the smallest and largest value of each bin."""
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
    low = jnp.where(some, values[jnp.minimum(first, n - 1)], jnp.inf)
    high = jnp.where(some, values[last], jnp.inf)
    of_missing = jnp.full(1, jnp.inf, column.dtype)
    return jnp.concatenate([low, of_missing]), jnp.concatenate([high, of_missing])


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


def _codes(column: Array, low: Array, high: Array) -> Array:
    """(n,) uint8 the bin of each value."""
    edges = middle(high[:-2], low[1:-1])  # an edge without a bin above it is infinite
    code = _count_below(edges, column)
    return jnp.where(jnp.isnan(column), len(low) - 1, code).astype(jnp.uint8)


def _codes_apart(column: Array, edges: Array) -> tuple[Array, Array]:
    """(n,) uint8 codes, and how many examples the fullest bin has between two edges."""
    code = _count_below(edges[:-1], column)
    code = 2 * code + (column == at(edges, code))
    code = jnp.where(jnp.isnan(column), 2 * len(edges) - 1, code)
    count = jnp.zeros(2 * len(edges), jnp.int32).at[code].add(1, mode="promise_in_bounds")
    return code.astype(jnp.uint8), jnp.max(count[::2])


def _count_below(edges: Array, column: Array) -> Array:
    """(n,) int32 how many edges are below each value, found by quarters."""
    rounds = 1
    while 4**rounds <= len(edges):
        rounds += 1
    edges = jnp.pad(edges, (0, 4**rounds - len(edges)), constant_values=jnp.inf)
    code = jnp.zeros(column.shape, jnp.int32)
    for step in (4**r for r in reversed(range(rounds))):
        above = [(column > at(edges, code + (step * q - 1))) for q in (1, 2, 3)]
        code = code + step * sum(a.astype(jnp.int32) for a in above)
    return code
