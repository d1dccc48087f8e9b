"""Checks of what solvers are made with."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def check_count(name: str, value: Any, *, least: int) -> int:
    """A whole number, such as of steps.

    Args:
        name: of the argument, for the message of an error.
        value: what the user gave.
        least: the smallest that makes sense.

    Returns:
        The number.

    Raises:
        TypeError: for what is no integer.
        ValueError: for a smaller one.

    Example:
        >>> check_count("max_steps", 20, least=0)
        20
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def check_tolerance(name: str, value: Any) -> Any:
    """A tolerance of at least zero, or None; what is traced passes unseen.

    Args:
        name: of the argument, for the message of an error.
        value: a number, an array of them, or None.

    Returns:
        The value.

    Raises:
        TypeError: for what is no number.
        ValueError: for a negative one, and NaN.

    Example:
        >>> check_tolerance("tol", 1e-9)
        1e-09
    """
    if value is None or isinstance(value, Tracer):
        return value
    kind = np.dtype(jnp.result_type(value)).kind if hasattr(value, "__float__") else "?"
    if isinstance(value, bool | str) or kind not in "iuf":
        raise TypeError(f"{name}: expected a number, or None, got {value!r}")
    if not np.all(np.asarray(value) >= 0):
        raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    return value
