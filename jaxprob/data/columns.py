"""What the examples of positive weight, taken together, say of each column."""

from typing import Any

import jax.numpy as jnp


def observed(x: Any, weights: Any = None, *, xp: Any = jnp) -> Any:
    """Which entries are numbers, in examples of positive weight.

    Args:
        x: (n, d) floating, NaN where an entry was not observed.
        weights: (n,) c_i ≥ 0; one each where None.
        xp: `jax.numpy`, or `numpy` for arrays of NumPy.

    Returns:
        (n, d) bool.

    Example:
        >>> observed(jnp.array([[1.0, jnp.nan], [2.0, 3.0]]), jnp.array([1.0, 0.0])).tolist()
        [[True, False], [False, False]]
    """
    seen = ~xp.isnan(x)
    return seen if weights is None else seen & (weights > 0)[:, None]


def varying(x: Any, weights: Any = None, *, xp: Any = jnp) -> Any:
    """Which columns have two different observed entries in examples of positive weight.

    Args:
        x: (n, d) floating, NaN where an entry was not observed.
        weights: (n,) c_i ≥ 0; one each where None.
        xp: `jax.numpy`, or `numpy` for arrays of NumPy.

    Returns:
        (d,) bool.

    Example:
        >>> varying(jnp.array([[1.0, 5.0], [2.0, 5.0]])).tolist()
        [True, False]
    """
    seen = observed(x, weights, xp=xp)
    least = xp.min(xp.where(seen, x, xp.inf), axis=0)
    return xp.max(xp.where(seen, x, -xp.inf), axis=0) > least


def column_name(column: int, names: tuple[str, ...] | None) -> str:
    """A column as messages call it.

    Args:
        column: its index.
        names: of all columns, or None.

    Returns:
        Such as "column 1 (age)".

    Example:
        >>> column_name(1, ("sex", "age"))
        'column 1 (age)'
    """
    return f"column {column}" + ("" if names is None else f" ({names[column]})")
