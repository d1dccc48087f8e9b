"""Arrays from what people have: lists, NumPy, JAX, DataFrames of any library."""

import sys
import warnings
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.data.loading import to_device
from jaxprob.data.schema import feature_names
from jaxprob.data.tables import numbers_of

_HINTS = {
    "O": "a numeric array: convert or encode its text and missing entries first",
    "U": "numbers: encode text as 0..K-1, as numpy.unique(y, return_inverse=True) does",
    "S": "numbers: encode text as 0..K-1, as numpy.unique(y, return_inverse=True) does",
    "T": "numbers: encode text as 0..K-1, as numpy.unique(y, return_inverse=True) does",
    "c": "real numbers: the model is not defined for complex ones",
    "M": "numbers: turn dates into a number of days or the like",
    "m": "numbers: divide the differences of time by a unit",
    "V": "a plain numeric array, not one of records",
}


def as_array(name: str, value: Any, *, shape: str, ndim: int) -> Array:
    """A JAX array of numbers, of the given number of axes; tracers and JAX arrays pass through.

    Args:
        name: of the argument, for the message of an error.
        value: array, nested list, Series or DataFrame.
        shape: what is expected, in words, such as "(n, d)".
        ndim: the number of its axes.

    Returns:
        The array in the dtype that JAX gives it; integers and bools stay what they are.

    Raises:
        TypeError: for text, objects, complex, half-precision or sparse input, and dates.
        ValueError: for another number of axes, ragged lists, or masked entries.

    Example:
        >>> as_array("y", [0, 1], shape="(n,)", ndim=1).shape
        (2,)
    """
    checked = check_array(name, value, shape=shape, ndim=ndim)
    return checked if isinstance(checked, Array) else to_device(checked)


def check_array(name: str, value: Any, *, shape: str, ndim: int) -> Array | np.ndarray:
    """What `as_array` makes of a value, with what is not yet on a device still on the host.

    Args:
        name: of the argument, for the message of an error.
        value: array, nested list, Series or DataFrame.
        shape: what is expected, in words, such as "(n, d)".
        ndim: the number of its axes.

    Returns:
        The array; one of NumPy has the dtype that JAX will give it, and may be the caller's own.

    Raises:
        TypeError: as `as_array`.
        ValueError: as `as_array`.

    Example:
        >>> check_array("y", [0, 1], shape="(n,)", ndim=1).dtype
        dtype('int32')
    """
    if isinstance(value, Array):
        _check_dtype(name, value.dtype)
        return _check_axes(name, value, shape, ndim)
    if hasattr(value, "toarray") or hasattr(value, "todense"):
        raise TypeError(
            f"{name}: expected a dense array {shape}, got the sparse {type(value).__name__}; "
            f"pass {name}.toarray() or {name}.todense()"
        )
    if np.ma.isMaskedArray(value) and np.ma.is_masked(value):
        raise ValueError(f"{name}: expected no masked entries; drop or fill them first")
    try:
        host = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected an array {shape}, got rows of different lengths"
        ) from error
    of_objects = host.dtype == object and host.ndim == ndim
    if of_objects:
        host = numbers_of(name, value, feature_names(value))
    if not host.dtype.isnative:
        host = host.astype(host.dtype.newbyteorder("="))
    _check_dtype(name, host.dtype)
    _check_axes(name, host, shape, ndim)
    typed = hasattr(value, "dtype") or hasattr(value, "columns")  # a list promises no precision
    if host.dtype == np.float64 and not _in_float64():
        with np.errstate(over="ignore"):  # to inf, which the check of the values names
            rounded = host.astype(np.float32)
        exact = name == "y" or of_objects  # labels, counts and the like, which lose nothing
        loses = not (exact and np.array_equal(rounded, host, equal_nan=True))
        if typed and loses:
            with OneWarning() as told:
                told.names[name] = None
        host = rounded
    if name == "y":
        host = _host_labels(host)
    if host.dtype.kind in "iu" and host.dtype.itemsize > 4 and not _in_float64():
        low, high = (host.min(), host.max()) if host.size else (0, 0)
        if not -(2**31) <= low <= high < 2**31:
            raise ValueError(f"{name}: expected values within int32, got {low} to {high}")
        host = host.astype(np.int32)
    return host


_TOLD: ContextVar["OneWarning | None"] = ContextVar("told", default=None)


class OneWarning:
    """Inside, arguments that are rounded to float32 are noted; at the end one warning names all.

    Inside of another one it is that one.
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}  # in order

    def __enter__(self) -> "OneWarning":
        outer = _TOLD.get()
        self._token = _TOLD.set(self) if outer is None else None
        return outer or self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._token is None:
            return
        _TOLD.reset(self._token)
        if self.names and kind is None:
            every, one = " and ".join(self.names), len(self.names) == 1
            warnings.warn(
                f"{every} {'is' if one else 'are'} float64, but JAX is in float32 mode, so "
                f"{'it is' if one else 'they are'} rounded to float32. To compute in float64, call "
                'jax.config.update("jax_enable_x64", True) before that',
                UserWarning,
                stacklevel=_levels_up(),
            )


def _host_labels(host: np.ndarray) -> np.ndarray:
    """Labels that int32 holds exactly, as int32: one program then serves every dtype."""
    with np.errstate(invalid="ignore"):
        narrow = host.astype(np.int32)
    return narrow if np.array_equal(narrow, host) else host


def _in_float64() -> bool:
    return jnp.result_type(float) == np.float64


def _levels_up() -> int:
    """The `stacklevel` at which this package was called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("jaxprob."):
        level, frame = level + 1, frame.f_back
    return level


def _check_dtype(name: str, dtype: Any) -> None:
    is_integer = jnp.issubdtype(dtype, jnp.integer) and dtype.kind != "m"  # NumPy counts those
    if is_integer or dtype in (bool, np.float32, np.float64):
        return
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        raise TypeError(f"{name}: expected numbers, got {dtype}")
    if not jnp.issubdtype(dtype, jnp.floating) and dtype.kind in _HINTS:
        raise TypeError(f"{name}: expected {_HINTS[dtype.kind]}; got dtype {dtype}")
    raise TypeError(
        f"{name}: expected float32 or float64, integers or bools, got {dtype}; "
        f'pass {name}.astype("float32")'
    )


def _check_axes(name: str, value: Any, shape: str, ndim: int) -> Any:
    if value.ndim != ndim:
        hint = "; for one feature pass x.reshape(-1, 1)" if (name, value.ndim) == ("x", 1) else ""
        hint = "; pass y.ravel()" if name == "y" and value.ndim == 2 else hint
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}{hint}")
    return value


def check_columns(name: str, columns: Any, num_columns: int) -> np.ndarray:
    """Different columns, by their numbers.

    Args:
        name: of the argument, for the message of an error.
        columns: a list of integers.
        num_columns: how many there are to choose from.

    Returns:
        (len(columns),) integers.

    Raises:
        ValueError: for none, for what is no list of integers, does not exist or is named twice.

    Example:
        >>> check_columns("columns", [2, 0], 3).tolist()
        [2, 0]
    """
    index = np.asarray(columns)
    if index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        raise ValueError(f"{name}: expected a list of column numbers, got {columns!r}")
    if index.min() < 0 or index.max() >= num_columns or len(np.unique(index)) < len(index):
        raise ValueError(
            f"{name}: expected different columns among 0..{num_columns - 1}, got {columns!r}"
        )
    return index
