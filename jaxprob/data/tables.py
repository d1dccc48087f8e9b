"""Tables and columns of objects as numbers: entries are looked at one by one."""

from numbers import Complex, Number
from typing import Any

import numpy as np


def numbers_of(name: str, value: Any, names: tuple[str, ...] | None) -> np.ndarray:
    """What has no dtype of numbers as a whole, as float64; missing entries are NaN.

    A table whose columns are of several dtypes, of nullable integers or bools, of categories that
    are numbers, or of Python's objects.

    Args:
        name: of the argument, for the message of an error.
        value: (n, d) or (n,): a DataFrame or Series of any library, or an array of objects.
        names: of the columns, None where there are none.

    Returns:
        An array of the same shape.

    Raises:
        TypeError: where an entry is no number, with its place.

    Example:
        >>> numbers_of("x", np.array([[1, True], [2.5, None]], object), None).tolist()
        [[1.0, 1.0], [2.5, nan]]
    """
    shape = np.shape(value)
    if len(shape) != 2:
        return _column(name, value, "")
    columns = np.empty(shape)
    for j in range(shape[1]):
        called = f", column {j}" + ("" if names is None else f" ({names[j]})")
        columns[:, j] = _column(name, _taken(value, j), called)
    return columns


def _taken(value: Any, j: int) -> Any:
    """A column, by its place."""
    if hasattr(value, "iloc"):  # pandas
        return value.iloc[:, j]
    if hasattr(value, "column"):  # pyarrow
        return value.column(j)
    if hasattr(value, "columns"):  # polars, and others that name their columns
        return value[value.columns[j]]
    return np.asarray(value)[:, j]


def _column(name: str, value: Any, called: str) -> np.ndarray:
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype) and getattr(dtype, "kind", "") in tuple("biuf"):
        return value.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' nullable numbers
    host = np.asarray(value)
    if host.dtype.kind in "biuf":
        return host.astype(np.float64)
    if host.dtype.kind != "O":
        raise TypeError(
            f"{name}: expected numbers, got dtype {host.dtype}{called.replace(',', ' in', 1)}; "
            "encode text as numbers, as pandas.get_dummies does, and turn dates into days"
        )
    out = np.empty(host.shape)
    for row, entry in enumerate(host):
        if isinstance(entry, Number | np.bool) and not _is_complex(entry):
            out[row] = float(entry)  # pyright: ignore[reportArgumentType]
        elif entry is None or type(entry).__name__ in ("NAType", "NaTType"):
            out[row] = np.nan
        else:
            raise TypeError(
                f"{name}: expected numbers, got {entry!r} in row {row}{called}; encode text as "
                "numbers, as pandas.get_dummies does, and drop or fill in what is missing"
            )
    return out


def _is_complex(entry: Any) -> bool:
    return isinstance(entry, Complex) and not hasattr(entry, "__float__")
