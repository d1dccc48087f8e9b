"""The nearest of many points, exactly: by blocks on any device, or by a tree on the host.

Distances are sums of squares of differences, so that near ones are exact, in units of a power of
two about as large as the points are, so that no square is too small or too large. In a block they
are ordered in float32, which is fast, a few more than wanted are looked at again in float64, and
where rounding could have hidden one, the block is sorted in float64.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.numerics.control import if_any
from jaxprob.numerics.passes import at_a_time

_PAIRS = 1 << 19  # at a time
_MORE = 8  # than wanted, in float32
_UNROLLED = 8  # columns


def squared_distances(a: Array, b: Array) -> Array:
    """The squared distances of all pairs, with differences taken first.

    Args:
        a: (d, m) columns.
        b: (d, n) columns.

    Returns:
        (m, n).

    Example:
        >>> squared_distances(jnp.array([[0.0]]), jnp.array([[1.0, 3.0]])).tolist()
        [[1.0, 9.0]]
    """

    def of_columns(a: Array, b: Array) -> Array:
        squares = [(a[j][:, None] - b[j][None, :]) ** 2 for j in range(len(a))]
        return reduce(jnp.add, squares)

    if len(a) <= _UNROLLED:
        return of_columns(a, b)
    rest = -len(a) % _UNROLLED
    parts = [jnp.pad(z, ((0, rest), (0, 0))).reshape(-1, _UNROLLED, z.shape[1]) for z in (a, b)]

    def step(so_far: Array, some: list[Array]) -> tuple[Array, None]:
        return so_far + of_columns(*some), None

    start = jnp.zeros((a.shape[1], b.shape[1]), a.dtype)
    return jax.lax.scan(step, start, parts)[0]


def unit_of(points: Array, live: Array | None = None) -> Array:
    """A power of two about as large as the largest coordinate, in which no digit is lost.

    Args:
        points: (n, d) floating.
        live: (n,) bool, which points there are; all where None.

    Returns:
        (), one where all coordinates are zero.

    Example:
        >>> float(unit_of(jnp.array([[3.0], [-5.0]])))
        4.0
    """
    size = jnp.abs(points)
    size = size if live is None else jnp.where(live[:, None], size, 0.0)
    largest = jnp.max(size, initial=0.0)
    power = jnp.floor(jnp.log2(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)))
    return jnp.ldexp(jnp.ones((), points.dtype), power.astype(jnp.int32))


@partial(jax.jit, static_argnames=["num", "own"])
def nearest(
    queries: Array, points: Array, num: int, live: Array | None = None, *, own: bool = False
) -> tuple[Array, Array]:
    """The nearest points of each query, in blocks of bounded memory.

    Args:
        queries: (m, d) floating.
        points: (n, d).
        num: how many, at most n.
        live: (n,) bool, which points there are; all where None.
        own: whether queries are the points, and none is its own neighbour.

    Returns:
        (m, num) distances in increasing order, ∞ where there are no more points; and (m, num) int32
        which points these are.

    Raises:
        ValueError: for queries with other columns than the points, and for more than these are.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [5.0]])
        >>> distance, index = nearest(x, x, 1, own=True)
        >>> distance.ravel().tolist(), index.ravel().tolist()
        ([1.0, 1.0, 4.0], [1, 0, 1])
    """
    _check(queries, points, num)
    m, n = len(queries), len(points)
    unit = unit_of(points, live)
    queries, points = queries / unit, points / unit
    rows = max(1, min(m, at_a_time(_PAIRS) // n))
    most = min(num + _MORE, n)
    columns = points.T

    def of_block(some: tuple[Array, Array]) -> tuple[Array, Array]:
        q, number = some
        squared = squared_distances(q.T, columns)
        lost = jnp.zeros((1, n), bool) if live is None else ~live[None, :]
        if own:
            lost = lost | (number[:, None] == jnp.arange(n)[None, :])
        squared = jnp.where(lost, jnp.inf, squared)
        # Seen from the largest, few are so small or so large that float32 has no number for them.
        largest = jnp.max(jnp.where(jnp.isfinite(squared), squared, 0.0), axis=1, keepdims=True)
        narrow = (squared / jnp.where(largest > 0, largest, 1.0)).astype(jnp.float32)
        # Were its slices seen through, XLA would sort whole rows instead; and it cannot compile a
        # barrier around both at once.
        key, index = map(jax.lax.optimization_barrier, jax.lax.top_k(-narrow, most))
        exact = jnp.take_along_axis(squared, index, axis=1)
        exact, index = jax.lax.sort((exact, index), num_keys=1)
        found = exact[:, :num], index[:, :num]
        if squared.dtype == jnp.float32 or most == n:
            return found
        hidden = jnp.any((key[:, -1] == key[:, num - 1]) & (key[:, -1] > -jnp.inf))
        return if_any(hidden, _sorted, found, squared)

    def _sorted(squared: Array) -> tuple[Array, Array]:
        number = jax.lax.broadcasted_iota(jnp.int32, squared.shape, 1)
        found, index = jax.lax.sort((squared, number), num_keys=1)
        return found[:, :num], index[:, :num]

    missing = -m % rows
    number = jnp.arange(m + missing, dtype=jnp.int32)
    padded = jnp.pad(queries, ((0, missing), (0, 0)))
    blocks = padded.reshape(-1, rows, queries.shape[1]), number.reshape(-1, rows)
    squared, index = jax.lax.map(of_block, blocks)
    return unit * jnp.sqrt(squared.reshape(-1, num)[:m]), index.reshape(-1, num)[:m]


def nearest_by_tree(
    queries: np.ndarray, points: np.ndarray, num: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest points of each query by SciPy's k-d tree, on all cores of the host.

    Args:
        queries: (m, d) floating.
        points: (n, d).
        num: how many, at most n.

    Returns:
        (m, num) distances in increasing order, and (m, num) which points these are.

    Raises:
        ValueError: as `nearest`.

    Example:
        >>> nearest_by_tree(np.array([[0.2]]), np.array([[0.0], [1.0]]), 1)[1].tolist()
        [[0]]
    """
    _check(queries, points, num)
    from scipy.spatial import KDTree  # SciPy is a dependency of jax itself

    tree = KDTree(points, leafsize=32, balanced_tree=False)
    which: Any = np.arange(1, num + 1)  # a list has its axis also for one
    found: Any = tree.query(queries, which, workers=-1)
    return found


def _check(queries: Any, points: Any, num: int) -> None:
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise ValueError(
            "queries: expected an array of two axes with as many columns as the points, got shape "
            f"{queries.shape} and points of {points.shape}"
        )
    if not 1 <= num <= len(points):
        raise ValueError(
            f"num: expected from 1 to {len(points)}, how many points there are, got {num}"
        )
