"""Checks of what people call with examples that a density is made of.

Shapes and dtypes always; values where they are known, that is outside of `jax.jit` and the like.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

_ROUNDING = 1e-5  # of a sum of weights in float32
_REMEDY = "pass jaxprob.data.normalised_weights(weights), which add up to the number of examples"


def check_rows(name: str, value: Any, *, columns: int | None = None, of: str = "points") -> None:
    """Raise unless it is an array of examples.

    Args:
        name: of the argument.
        value: what came.
        columns: how many there should be, any number where None.
        of: the argument that has as many.

    Raises:
        TypeError: for what is no array of floating-point numbers.
        ValueError: for another shape.

    Example:
        >>> check_rows("queries", jnp.ones((2, 1)), columns=1)
    """
    _check_floating(name, value)
    if value.ndim != 2:
        hint = f"; for one column pass {name}.reshape(-1, 1)" if value.ndim == 1 else ""
        raise ValueError(f"{name}: expected an array of two axes, got shape {value.shape}{hint}")
    if columns is not None and value.shape[1] != columns:
        raise ValueError(
            f"{name}: expected {columns} column{'s' * (columns != 1)}, as in {of}, got shape "
            f"{value.shape}"
        )


def check_points(
    points: Any,
    weights: Any = None,
    queries: Any = None,
    *,
    name: str = "points",
    labels: Any = None,
    num_classes: int | None = None,
) -> None:
    """Raise unless these are examples, their weights and labels, and queries about them.

    Args:
        points: (n, d) floating, n ≥ 1.
        weights: (n,) ≥ 0 and finite, of which one at least is positive; or None.
        queries: (m, d), or None.
        name: of the first argument.
        labels: (n,) integers from 0 to K - 1, or None.
        num_classes: K.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for another shape or other values.

    Example:
        >>> check_points(jnp.ones((2, 1)), jnp.ones(2), jnp.ones((5, 1)))
    """
    check_rows(name, points)
    n, d = points.shape
    if n == 0 or d == 0:
        raise ValueError(f"{name}: expected at least one example and column, got {points.shape}")
    if queries is not None:
        check_rows("queries", queries, columns=d, of=name)
    if weights is not None:
        _check_array("weights", weights)
        _check_length("weights", weights, n)
        if not isinstance(weights, Tracer):
            known = np.asarray(weights)
            if not (np.all(known >= 0) and np.all(np.isfinite(known)) and np.any(known > 0)):
                raise ValueError(
                    "weights: expected finite numbers of at least zero, one of them positive, got "
                    f"{known.min()} to {known.max()}"
                )
    if labels is not None and num_classes is not None:
        check_labels("labels", labels, n, num_classes)


def check_values(values: Any, weights: Any) -> None:
    """Raise unless these are numbers and their weights.

    Args:
        values: (n,) floating, n ≥ 1.
        weights: (n,) ≥ 0 and finite, of which one at least is positive; or None.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for another shape or other values.

    Example:
        >>> check_values(jnp.ones(2), None)
    """
    _check_floating("values", values)
    if values.ndim != 1:
        raise ValueError(
            f"values: expected one column, of shape (n,), got {values.shape}; pass one at a time"
        )
    check_points(values[:, None], weights, name="values")


def check_labels(name: str, labels: Any, n: int, num_classes: int) -> None:
    """Raise unless these are labels.

    Args:
        name: of the argument.
        labels: (n,) integers from 0 to K - 1.
        n: how many.
        num_classes: K.

    Raises:
        TypeError: for what is no array of integers.
        ValueError: for another shape or other values.

    Example:
        >>> check_labels("labels", jnp.array([0, 1]), 2, 2)
    """
    if not hasattr(labels, "dtype") or not jnp.issubdtype(labels.dtype, jnp.integer):
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"{name}: expected an array of integers, got {got}")
    _check_length(name, labels, n)
    if not isinstance(labels, Tracer) and n:
        known = np.asarray(labels)
        if known.min() < 0 or known.max() >= num_classes:
            raise ValueError(
                f"{name}: expected integers from 0 to {num_classes - 1}, got {known.min()} to "
                f"{known.max()}"
            )


def check_number(name: str, value: Any, *, least: int) -> None:
    """Raise unless it is an integer, or an array of them, of at least some size.

    Args:
        name: of the argument.
        value: what came.
        least: the smallest that is fine.

    Raises:
        ValueError: for anything else.

    Example:
        >>> check_number("num_neighbours", 3, least=1)
    """
    wanted = f"{name}: expected an integer of at least {least}, got {value!r}"
    if isinstance(value, Tracer):
        whole = jnp.issubdtype(value.dtype, jnp.integer)
        known = np.full((), least)
    else:
        known = np.asarray(value)
        whole = known.dtype.kind in "iu"
    if not whole or np.any(known < least):
        raise ValueError(wanted)


def check_enough(
    num_neighbours: Any, n: int, weights: Any, *, most: str = "the number of examples"
) -> None:
    """Raise where k examples are known not to be there.

    Args:
        num_neighbours: k.
        n: how many examples there are.
        weights: (n,) theirs; one each where None.
        most: what n is, in words.

    Raises:
        ValueError: where they weigh less than k together.

    Example:
        >>> check_enough(3, 3, None)
    """
    if isinstance(num_neighbours, Tracer) or isinstance(weights, Tracer):
        return
    k = np.max(np.asarray(num_neighbours))
    if weights is None and k > n:
        raise ValueError(f"num_neighbours: expected at most {n}, by {most}, got {k}")
    if weights is None:
        return
    whole = np.sum(np.asarray(weights), dtype=float)
    if k > whole * (1 + _ROUNDING):
        raise ValueError(
            f"weights: expected {k} or more together, so that there are {k} neighbours, got "
            f"{whole:g}; {_REMEDY}"
        )


def check_factor(factor: Any, d: int) -> None:
    """Raise unless differences of examples can be multiplied by it.

    Args:
        factor: A, (d, d), or (d,) its diagonal.
        d: number of columns.

    Raises:
        TypeError: for what is no array of floating-point numbers.
        ValueError: for another shape.

    Example:
        >>> check_factor(jnp.ones(2), 2)
    """
    _check_floating("factor", factor)
    if factor.shape not in ((d,), (d, d)):
        raise ValueError(f"factor: expected shape ({d},) or ({d}, {d}), got {factor.shape}")


def check_positive(name: str, value: Any) -> None:
    """Raise where a number, or one of an array, is known not to be positive and finite.

    Args:
        name: of the argument.
        value: what came.

    Raises:
        ValueError: for zero, negative numbers, infinity and NaN.

    Example:
        >>> check_positive("tolerance", 1e-6)
    """
    if isinstance(value, Tracer):
        return
    known = np.asarray(value)
    if known.dtype.kind not in "fiu" or not np.all((known > 0) & np.isfinite(known)):
        raise ValueError(f"{name}: expected positive and finite numbers, got {value!r}")


def _check_array(name: str, value: Any) -> None:
    if not isinstance(value, Array | np.ndarray):
        raise TypeError(
            f"{name}: expected an array, got {type(value).__name__}; pass jax.numpy.asarray({name})"
        )


def _check_floating(name: str, value: Any) -> None:
    _check_array(name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected floating-point numbers, got {value.dtype}; pass {name}.astype(float)"
        )


def _check_length(name: str, value: Any, n: int) -> None:
    if value.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), one for each example, got {value.shape}")
