"""Columns, and the examples in the order of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees.binning import binned


class Columns(NamedTuple):
    """What trees ask about: values, and which of them a question can tell apart.

    Attributes:
        values: (d, n) floating, NaN where an entry is missing.
        keys: (d, n) the values, or numbers of their bins; NaN where an entry is missing.
        order: (d, n) int32 the examples by increasing keys, those without one last.
        gaps: () bool whether anything is missing.
    """

    values: Array
    keys: Array
    order: Array
    gaps: Array


def sorted_columns(x: Array, max_bins: int | None = None) -> Columns:
    """Columns of which each value, or each bin, can be told from the others.

    Args:
        x: (n, d) floating, NaN where an entry is missing.
        max_bins: of a column, as in `jaxprob.models.trees.binned`; each value is a bin where None.

    Returns:
        Columns.

    Example:
        >>> sorted_columns(jnp.array([[3.0], [1.0], [jnp.nan], [2.0]])).order.tolist()
        [[1, 3, 0, 2]]
    """
    values = keys = x.T
    missing = jnp.isnan(values)
    if max_bins is not None:
        codes = binned(x, max(2, min(max_bins, len(x)))).codes  # there are no more values
        keys = jnp.where(missing, jnp.nan, codes.astype(x.dtype))
    return Columns(values, keys, jax.lax.map(_order, keys), jnp.any(missing))


def _order(keys: Array) -> Array:
    """(n,) int32 what sorts them, NaN last.

    Some bits at a time, the lowest first, next to which the place fits in one integer: integers
    alone are sorted several times as fast as pairs.
    """
    n = len(keys)
    turned = _as_integers(keys)
    bits = jnp.iinfo(turned.dtype).bits
    low = max(1, (n - 1).bit_length())
    place = jnp.arange(n, dtype=turned.dtype)
    order = jnp.arange(n, dtype=jnp.int32)
    for done in range(0, bits, bits - low):
        some = turned[order] >> done  # what does not fit is shifted out
        at = jax.lax.sort((some << low) | place, is_stable=False) & ((1 << low) - 1)
        order = order[at.astype(jnp.int32)]
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
