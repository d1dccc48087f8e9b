"""Settings of models: numbers of Python or NumPy, as Python's own, which compare by value."""

import math
from numbers import Integral, Real
from typing import Any


def whole_number(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """A whole number, such as of classes.

    Args:
        name: of the argument, for the message of an error.
        value: what the user gave.
        least: the smallest that makes sense.
        most: the largest, None where there is none.

    Returns:
        The number, as an int.

    Raises:
        ValueError: for what is no integer, and for one out of range.

    Example:
        >>> import numpy as np
        >>> whole_number("num_classes", np.int64(3), least=2)
        3
    """
    whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if whole is None or whole < least or (most is not None and whole > most):
        limit = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name}: expected an integer of at least {least}{limit}, got {value!r}")
    return whole


def is_number(value: Any) -> bool:
    """Whether it is a finite number of Python or NumPy.

    Args:
        value: anything.

    Returns:
        True or False.

    Example:
        >>> is_number(1), is_number(True), is_number(float("nan"))
        (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def number(name: str, value: Any, *, positive: bool = False) -> float:
    """A finite number of at least zero, such as of smoothing.

    Args:
        name: of the argument, for the message of an error.
        value: what the user gave.
        positive: whether zero is not enough.

    Returns:
        The number, as a float.

    Raises:
        ValueError: for what is none.

    Example:
        >>> number("smoothing", 1)
        1.0
    """
    if not (is_number(value) and (value > 0 or (value == 0 and not positive))):
        wanted = "a positive number" if positive else "a number of at least 0"
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)
