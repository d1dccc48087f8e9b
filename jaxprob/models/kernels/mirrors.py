"""Bounds of columns, at which kernels are reflected.

A density reflected at the bounds of its columns is the sum of a kernel estimate over a point and
its mirror images, inside of the bounds, and zero outside. With two bounds in a column, what is
further out than one width is lost.

Source: Silverman, Density Estimation for Statistics and Data Analysis, 1986, section 2.10.
"""

import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

_MOST_IMAGES = 729

Bounds = tuple[tuple[float | None, float | None], ...] | None
"""(lowest, highest) of each column, None where there is no such; or one such pair for all."""


def checked_bounds(bounds: Any) -> Bounds:
    """Bounds as pairs of numbers, which compare by value.

    Args:
        bounds: a pair (lowest, highest) for each column, None where there is no such bound; or one
            such pair for all columns; or None.

    Returns:
        A tuple of pairs, None where there is no bound at all.

    Raises:
        ValueError: for what is no such pair, and for more than 6 columns with two bounds.

    Example:
        >>> checked_bounds((0, None)), checked_bounds([(0, 1), (None, 2)])
        (((0.0, None),), ((0.0, 1.0), (None, 2.0)))
    """
    if bounds is None:
        return None
    wanted = "bounds: expected a pair (lowest, highest), or one for each column"
    try:
        pairs = tuple(bounds)
        one = len(pairs) == 2 and not any(isinstance(b, tuple | list) for b in pairs)
        pairs = tuple((low, high) for low, high in ((pairs,) if one else pairs))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}, got {bounds!r}") from error
    made, images = [], 1
    for pair in pairs:
        low, high = (-math.inf if b is None else float(b) for b in pair)
        high = math.inf if pair[1] is None else high
        if not low < high:
            raise ValueError(f"bounds: expected the lowest below the highest, got {pair}")
        ends = tuple(None if math.isinf(b) else b for b in (low, high))
        made.append(ends)
        images *= 3 - ends.count(None)
    if images > _MOST_IMAGES:
        raise ValueError(f"bounds: expected at most {_MOST_IMAGES} mirror images, got {images}")
    return None if images == 1 else tuple(made)


def images_of(x: Array, bounds: Bounds) -> list[Array]:
    """Examples, and where they are in the mirrors of each bound.

    Args:
        x: (m, d) floating.
        bounds: of the columns.

    Returns:
        Arrays (m, d), the first of which is x.

    Example:
        >>> [a.tolist() for a in images_of(jnp.array([[1.0]]), ((0.0, 3.0),))]
        [[[1.0]], [[-1.0]], [[5.0]]]
    """
    if bounds is None:
        return [x]
    choices = [
        (None, *(b for b in pair if b is not None)) for pair in _of_columns(bounds, x.shape[1])
    ]
    made = []
    for mirrors in itertools.product(*choices):
        columns = [x[:, e] if at is None else 2 * at - x[:, e] for e, at in enumerate(mirrors)]
        made.append(jnp.stack(columns, axis=1))
    return made


def inside(x: Array, bounds: Bounds) -> Array:
    """Whether examples are inside of the bounds.

    Args:
        x: (m, d) floating.
        bounds: of the columns.

    Returns:
        (m,) bool.

    Example:
        >>> inside(jnp.array([[1.0], [-1.0]]), ((0.0, None),)).tolist()
        [True, False]
    """
    low, high = _ends(bounds, x.shape[1])
    dtype = x.dtype
    above = x >= jnp.asarray(low, dtype)[None, :]
    return jnp.all(above & (x <= jnp.asarray(high, dtype)[None, :]), axis=1)


def folded(x: Array, bounds: Bounds) -> Array:
    """Examples reflected at the bounds as often as they are beyond one.

    Args:
        x: (m, d) floating.
        bounds: of the columns.

    Returns:
        (m, d), inside of the bounds.

    Example:
        >>> folded(jnp.array([[-1.0], [9.5]]), ((0.0, 3.0),)).tolist()
        [[1.0], [2.5]]
    """
    columns = []
    for e, (low, high) in enumerate(_of_columns(bounds, x.shape[1])):
        column = x[:, e]
        if low is not None and high is not None:
            beyond = jnp.mod(column - low, 2 * (high - low))
            column = low + jnp.minimum(beyond, 2 * (high - low) - beyond)
        elif low is not None:
            column = low + jnp.abs(column - low)
        elif high is not None:
            column = high - jnp.abs(column - high)
        columns.append(column)
    return jnp.stack(columns, axis=1)


def valid(x: Any, xp: Any, *, bounds: Bounds) -> Any:
    """Whether all examples are inside of the bounds.

    Args:
        x: (n, d) floating.
        xp: `jax.numpy`, or `numpy` for arrays of NumPy.
        bounds: of the columns.

    Returns:
        () bool.

    Example:
        >>> bool(valid(np.array([[1.0], [-1.0]]), np, bounds=((0.0, None),)))
        False
    """
    low, high = _ends(bounds, x.shape[1])
    low, high = xp.asarray(low, x.dtype)[None, :], xp.asarray(high, x.dtype)[None, :]
    return xp.all((x >= low) & (x <= high))


def expected(x: Any, xp: Any, *, bounds: Bounds) -> str:
    """In words, which example is outside of the bounds.

    Args:
        x: (n, d) floating.
        xp: `numpy`.
        bounds: of the columns.

    Returns:
        What was expected, and the first that is not so.

    Example:
        >>> expected(np.array([[1.0], [-1.0]]), np, bounds=((0.0, None),))
        'expected numbers from 0.0 to inf, got -1.0 in row 1, column 0'
    """
    low, high = (end.astype(x.dtype) for end in _ends(bounds, x.shape[1]))
    row, column = xp.argwhere((x < low[None, :]) | (x > high[None, :]))[0]
    got = f"got {x[row, column]} in row {row}, column {column}"
    return f"expected numbers from {low[column]} to {high[column]}, {got}"


def _of_columns(bounds: Bounds, d: int) -> tuple[tuple[float | None, float | None], ...]:
    """One pair for each column."""
    if bounds is None:
        return ((None, None),) * d
    if len(bounds) not in (1, d):
        raise ValueError(f"bounds: expected one pair, or one for each of {d} columns, got {bounds}")
    return bounds * d if len(bounds) < d else bounds


def _ends(bounds: Bounds, d: int) -> tuple[np.ndarray, np.ndarray]:
    """(d,) the lowest and highest of each column."""
    pairs = _of_columns(bounds, d)
    low = [-math.inf if b is None else b for b, _ in pairs]
    return np.array(low), np.array([math.inf if b is None else b for _, b in pairs])
