"""A few sizes for arrays of any length, so that they share compiled programs.

A program is compiled for the shapes of its arguments, which takes a second or more, where the
examples of most fits take milliseconds. So rows are filled up, without weight, to one of four sizes
an octave: 3 % to 25 % of them are computed in vain. Arrays so large that this costs more than a
program stay as they are.
"""

from typing import Any

import numpy as np

from jaxprob.runtime.memory import aligned

_LEAST = 16  # rows
_PER_OCTAVE = 4
_MOST_BYTES = 1 << 25  # of what is filled up


def bucket(n: int, bytes_each: int) -> int:
    """How many rows to have instead of n.

    Args:
        n: rows.
        bytes_each: of one row.

    Returns:
        A number that n is at most; n itself where the rows are many.

    Example:
        >>> [bucket(n, 64) for n in (3, 500, 1000, 1100)], bucket(10**7 + 1, 64)
        ([16, 512, 1024, 1280], 10000001)
    """
    if n * bytes_each > _MOST_BYTES:
        return n
    if n <= _LEAST:
        return _LEAST
    step = 2 ** (n - 1).bit_length() // (2 * _PER_OCTAVE)
    return -(-n // step) * step


def filled(a: np.ndarray, size: int, value: Any = None) -> np.ndarray:
    """An array with as many rows, those beyond its own all of one value.

    Args:
        a: (n, ...).
        size: at least n.
        value: of the rows that are added; that of the first, which is as good as any, where None.

    Returns:
        (size, ...), a copy.

    Example:
        >>> filled(np.array([1, 2]), 4).tolist(), filled(np.array([1, 2]), 4, 0).tolist()
        ([1, 2, 1, 1], [1, 2, 0, 0])
    """
    out = aligned((size, *a.shape[1:]), a.dtype)
    out[: len(a)] = a
    out[len(a) :] = a[0] if value is None else value
    return out
