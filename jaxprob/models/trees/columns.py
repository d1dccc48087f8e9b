"""Columns, and the examples in the order of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.binning import MOST_BINS, Bins, apart, binned

_MANY = 2**14  # examples: a search of fewer is fast, and compiles faster, without histograms


class Columns(NamedTuple):
    """What trees ask about: values, and which of them a question can tell apart.

    Attributes:
        values: (n, d) floating, NaN where an entry is missing.
        keys: (n, d) the values, or numbers of their bins; NaN where an entry is missing.
        gaps: () bool whether anything is missing.
        bins: of the keys, with which the first levels of a tree are grown; None where none are.
        order: (d, n) int32 the examples by increasing keys, those without one last, with which
            other levels are grown; None where each tree is to sort them if it needs them.
    """

    values: Array
    keys: Array
    gaps: Array
    bins: Bins | None
    order: Array | None


def columns_of(
    x: Array,
    max_bins: int | None = None,
    *,
    num_classes: int = 2,
    depth: int = 1,
    many: bool = False,
) -> Columns:
    """Columns of which each value, or each bin, can be told from the others.

    Args:
        x: (n, d) floating, NaN where an entry is missing.
        max_bins: of a column, as in `jaxprob.models.trees.binned`; each value is a bin where None.
        num_classes: K.
        depth: D.
        many: whether many trees are grown from them, so that they are sorted in any case.

    Returns:
        Columns, with what growing to this depth takes.

    Example:
        >>> columns_of(jnp.array([[3.0], [1.0], [jnp.nan], [2.0]])).order.tolist()
        [[1, 3, 0, 2]]
    """
    keys, missing = x, jnp.isnan(x)
    levels = levels_in_bins(len(x), num_classes, depth)
    bins = order = None
    if max_bins is not None:
        codes, low, *_ = binned(x, max(2, min(max_bins, len(x))))  # there are no more values
        keys = jnp.where(missing, jnp.nan, codes.T.astype(x.dtype))
        if levels:
            last = jnp.broadcast_to(jnp.arange(low.shape[1], dtype=x.dtype), low.shape)
            bins = Bins(codes, last, None, jnp.ones((), bool))
    elif levels:
        bins = apart(x)
    if many or not levels:
        order = jax.lax.map(in_order, keys.T)
    return Columns(x, keys, jnp.any(missing), bins, order)


def levels_in_bins(n: int, num_classes: int, depth: int) -> int:
    """How many levels to grow with histograms: those with fewer of their cells than examples.

    Args:
        n: how many examples there are.
        num_classes: K.
        depth: D.

    Returns:
        At most D; none of few examples, and none on accelerators, where that was not measured.

    Example:
        >>> [levels_in_bins(n, 2, 12) for n in (1_000, 20_000, 100_000)]
        [0, 6, 8]
    """
    if n < _MANY or jax.default_backend() != "cpu":
        return 0
    return min(depth, (n // (num_classes * (MOST_BINS + 1))).bit_length())


def in_order(keys: Array, group: Array | None = None, group_bits: int = 0) -> Array:
    """What sorts keys, NaN last.

    Some bits at a time, the lowest first, next to which the place fits in one integer: integers
    alone are sorted several times as fast as pairs.

    Args:
        keys: (n,) floating.
        group: (n,) int32, at least 0, to sort by first; all are one group where None.
        group_bits: how many bits a group has at most.

    Returns:
        (n,) int32.

    Example:
        >>> in_order(jnp.array([3.0, 1.0, 2.0]), jnp.array([1, 1, 0]), 1).tolist()
        [2, 1, 0]
    """
    n = len(keys)
    turned = _as_integers(keys)
    bits = jnp.iinfo(turned.dtype).bits
    low = max(1, (n - 1).bit_length())
    step = bits - low
    place = jnp.arange(n, dtype=turned.dtype)
    order = jnp.arange(n, dtype=jnp.int32)
    for done in range(0, bits + group_bits, step):
        some = jnp.zeros_like(turned)
        if done < bits:
            some = turned[order] >> done  # what does not fit is shifted out
        if group is not None and bits < done + step:
            of_group = group[order].astype(turned.dtype)
            some |= of_group << (bits - done) if done < bits else of_group >> (done - bits)
        sorted_ = jax.lax.sort((some << low) | place, is_stable=False) & ((1 << low) - 1)
        order = order[sorted_.astype(jnp.int32)]
    return order


def _as_integers(keys: Array) -> Array:
    """Unsigned integers in the same order, the largest for NaN."""
    keys = jnp.where(keys == 0, 0.0, keys)  # 0 is as large as -0
    bits = max(32, jnp.finfo(keys.dtype).bits)
    unsigned = jnp.dtype(f"uint{bits}")
    pattern = jax.lax.bitcast_convert_type(keys.astype(f"float{bits}"), unsigned)
    sign = jnp.asarray(1 << (bits - 1), unsigned)
    turned = jnp.where(pattern >= sign, ~pattern, pattern | sign)
    return jnp.where(jnp.isnan(keys), jnp.asarray(jnp.iinfo(unsigned).max, unsigned), turned)
