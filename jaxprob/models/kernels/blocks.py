"""Blocks of points and of queries, for sums over all their pairs."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.numerics.passes import at_a_time

_QUERIES = 512  # at a time


_PAIRS = 1 << 19  # at a time: 4 MiB in float64 for each temporary array


CAREFUL = 1 << 17  # coordinates at a time, of what is done query by query


class Block(NamedTuple):
    """Points: coordinates (b, d), weights (b,), numbers (b,)."""

    x: Array
    w: Array
    index: Array


class Kind(NamedTuple):
    """What sums are of."""

    kernel: str
    own: bool  # without that of a point and itself
    order: int
    full: bool  # whether A is a matrix

    def pairs(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """The entries of a second moment: those of the lower triangle, or of the diagonal."""
        i, j = np.tril_indices(d) if self.full else (np.arange(d), np.arange(d))
        return i, j


def num_sums(kind: Kind, d: int) -> int:
    """How many sums `_fast` makes for each query."""
    return (1, 2 + d, 1 + d + len(kind.pairs(d)[0]))[kind.order]


def sizes(m: int, n: int, width: int) -> tuple[int, int]:
    """How many queries and points to take at a time, as even as they come."""
    rows = even(m, _QUERIES)
    return rows, even(n, max(1, at_a_time(_PAIRS) // (rows * width)))


def even(num: int, most: int) -> int:
    """As many as fit evenly into so many, and at most so many."""
    return -(-num // -(-num // most))


def numbers(num: int) -> Array:
    """(num,) 0, 1, 2, ..."""
    return jnp.arange(num, dtype=jnp.int32)


def padded(a: Array, rows: int) -> Array:
    """Blocks (., rows, ...) of an array, with its last entry again for what is missing."""
    missing = -len(a) % rows
    a = jnp.concatenate([a, jnp.broadcast_to(a[-1:], (missing, *a.shape[1:]))]) if missing else a
    return a.reshape(-1, rows, *a.shape[1:])


def blocked(points: Block, rows: int) -> Block:
    """Blocks of points; what fills the last one up has no weight."""
    w = jnp.pad(points.w, (0, -len(points.w) % rows)).reshape(-1, rows)
    return Block(padded(points.x, rows), w, padded(points.index, rows))
