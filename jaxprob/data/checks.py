"""Checks on the data of a fit: by value where there are values, by shape for tracers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.contract import Variables
from jaxprob.data.arrays import OneWarning, check_array
from jaxprob.data.labels import encoded
from jaxprob.data.loading import load
from jaxprob.data.schema import Schema, feature_names
from jaxprob.numerics.passes import total
from jaxprob.runtime.compilation import eager_jit


class Data(NamedTuple):
    """The data of a fit, checked."""

    x: Array  # (n, d) floating
    y: Array | None  # (n,), None where the model has none
    weights: Array | None  # (n,) of x's dtype
    offset: Array | None  # (n,) or (n, K) of x's dtype
    schema: Schema

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns of a DataFrame; None where there were none."""
        return self.schema.features


class Violations(NamedTuple):
    """What is wrong with values, each () bool of JAX or NumPy."""

    x: Any  # an entry is not finite
    y: Any  # not what it can be
    weights: Any  # negative or not finite
    offset: Any  # not finite
    no_weight: Any  # all weights are zero

    @property
    def invalid(self) -> Any:
        """Whether any value is out of its range."""
        return self.x | self.y | self.weights | self.offset


def violations(
    x: Any,
    y: Any,
    weights: Any,
    offset: Any,
    *,
    variables: Variables,
    xp: Any = jnp,
) -> Violations:
    """What is wrong with the values of the data, in one read of them; for use inside `jit`.

    Args:
        x: (n, d) floating.
        y: (n,) of any dtype, None where there is none.
        weights: (n,), or None.
        offset: (n,) or (n, K), or None.
        variables: what they can be.
        xp: `jax.numpy`, or `numpy` for arrays of NumPy.

    Returns:
        Violations, five () bools.

    Example:
        >>> from jaxprob.contract import Classes
        >>> variables, x = Variables.conditional(Classes(2)), jnp.ones((2, 1))
        >>> bool(violations(x, jnp.array([0, 2]), None, None, variables=variables).y)
        True
    """
    no = xp.zeros((), bool)
    some = np.any if xp is np else _any
    features = variables.x
    known = xp.where(xp.isnan(x), 0, x) if features.missing else x
    bad_x = _some_not_finite(known) if xp is np else xp.isnan(xp.sum(known * 0))  # 0 · inf is nan
    if features.valid is not None:
        bad_x = bad_x | ~features.valid(x, xp)
    bad_y = no if y is None or variables.y is None else variables.y.bad(y, xp)
    return Violations(
        x=bad_x,
        y=bad_y,
        weights=no if weights is None else some(~((weights >= 0) & xp.isfinite(weights))),
        offset=no if offset is None else some(~xp.isfinite(offset)),
        no_weight=no if weights is None else ~some(weights != 0),
    )


def _any(a: Array) -> Array:
    """As `jnp.any`, by sums, which are faster for many lanes."""
    return jnp.sum(total(a.astype(jnp.float32))) > 0


def _some_not_finite(a: np.ndarray) -> np.bool:
    """Whether an entry is infinite or NaN; one sum, unless it overflows, is twice as fast."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.sum(a)
    return ~np.isfinite(total) and ~np.all(np.isfinite(a))


def suffice(x: Any, weights: Any, *, variables: Variables, xp: Any = jnp) -> Any:
    """Whether the examples, taken together, determine what a model needs of every column.

    Args:
        x: (n, d) floating.
        weights: (n,), or None.
        variables: what they can be.
        xp: `jax.numpy`, or `numpy` for arrays of NumPy.

    Returns:
        () bool.

    Example:
        >>> bool(suffice(jnp.ones((2, 1)), None, variables=Variables.density()))
        True
    """
    if variables.x.suffice is None:
        return xp.ones((), bool)
    return variables.x.suffice(x, weights, xp)


def _all_seen(
    x: Any, y: Any, weights: Any, offset: Any, *, variables: Variables
) -> tuple[Violations, Any]:
    found = violations(x, y, weights, offset, variables=variables)
    return found, suffice(x, weights, variables=variables)


_seen = eager_jit(_all_seen, static_argnames=["variables"])


def check_data(
    x: Any,
    y: Any,
    weights: Any = None,
    offset: Any = None,
    *,
    variables: Variables,
    meanwhile: Callable[[Data], None] | None = None,
    fitted: Schema | None = None,
) -> Data:
    """Check the data of a fit before anything is computed.

    Shapes and dtypes always; values where all arguments are concrete. Inside a caller's `jit` or
    `vmap` values are left to `violations`.

    Args:
        x: (n, d) features.
        y: (n,), None for a model of x alone.
        weights: (n,), or None.
        offset: (n,) or (n, K), or None.
        variables: of the model.
        meanwhile: what to do, given Data of `jax.ShapeDtypeStruct`s, while large host arrays are
            copied.
        fitted: of a fit that is asked about these data: columns are put in its order, and labels
            are those that it knows.

    Returns:
        Data in the dtype of x, labels as int32.

    Raises:
        ValueError: for wrong shapes and values, naming argument, expected and got.
        TypeError: for arguments of the wrong type.

    Example:
        >>> from jaxprob.contract import Classes
        >>> variables = Variables.conditional(Classes(2))
        >>> check_data([[1.0], [2.0]], [True, False], variables=variables).y.tolist()
        [1, 0]
    """
    with OneWarning():
        x = x if fitted is None else fitted.columns(x)
        names, classes = feature_names(x), None if fitted is None else fitted.classes
        x = check_array("x", x, shape="(n, d)", ndim=2)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.result_type(float))
        n = x.shape[0]
        if n == 0:
            raise ValueError(f"x: expected at least one example, got shape {x.shape}")
        check_is_wanted(y, variables)
        if y is not None:
            if fitted is not None:
                y = fitted.codes(y)
            elif variables.num_classes is not None:
                y, classes = encoded(y, variables.num_classes)
            y = check_array("y", y, shape="(n,)", ndim=1)
            check_length("y", y, n)
        if weights is not None:
            weights = check_array("weights", weights, shape="(n,)", ndim=1).astype(x.dtype)
            check_length("weights", weights, n)
        if offset is not None:
            offset = _check_offset(offset, n, variables).astype(x.dtype)
    arrays, schema = (x, y, weights, offset), Schema(x.shape[1], names, classes)

    def check() -> None:
        _check_values(*arrays, variables=variables, schema=schema)

    def prepare() -> None:
        if meanwhile is not None and not any(isinstance(a, Array) for a in arrays):
            shapes: Any = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays)
            meanwhile(Data(*shapes, schema=schema))

    x, y, weights, offset = load(list(arrays), check=check, meanwhile=prepare)
    if variables.y is not None:
        y = variables.y.cast(y, x.dtype, jnp)
    return Data(x, y, weights, offset, schema)


def _check_values(
    x: Any,
    y: Any,
    weights: Any,
    offset: Any,
    *,
    variables: Variables,
    schema: Schema,
) -> None:
    """Raise a ValueError for values out of range, unless one of the arrays is a tracer.

    By NumPy where it can read all of them in place, which needs no program.
    """
    arrays = x, y, weights, offset
    if any(isinstance(a, Tracer) for a in arrays):
        return
    views = [host_view(a) for a in arrays]
    if all(a is None or v is not None for a, v in zip(arrays, views, strict=True)):
        found = violations(*views, variables=variables, xp=np)
        enough = any(found) or suffice(views[0], views[2], variables=variables, xp=np)
    else:
        found, enough = jax.device_get(_seen(*load(list(arrays)), variables=variables))
    if any(found):
        _raise(found, Data(x, y, weights, offset, schema), variables)
    if not enough:
        host = None if weights is None else np.asarray(weights)
        assert variables.x.lacking is not None  # it has said that they do not suffice
        raise ValueError(variables.x.lacking(np.asarray(x), host, schema.features))


def host_view(a: Any) -> np.ndarray | None:
    """The array as NumPy sees it in place, None where it cannot."""
    if isinstance(a, Array) and {d.platform for d in a.devices()} == {"cpu"}:
        return np.asarray(a) if len(a.devices()) == 1 else None
    return a if isinstance(a, np.ndarray) else None


def check_is_wanted(y: Any, variables: Variables) -> None:
    """Raise a ValueError unless there is a y just where the model has one."""
    if variables.y is None and y is not None:
        raise ValueError(
            f"y: expected none, since the model is a density of x alone, got {type(y).__name__}"
        )
    if variables.y is not None and y is None:
        raise ValueError(f"y: expected {variables.y.words} of shape (n,), got None")


def check_length(name: str, value: Any, n: int) -> None:
    """Raise a ValueError unless there is an entry for each of n examples."""
    if value.shape[0] != n:
        raise ValueError(
            f"{name}: expected one entry for each of the {n} rows of x, got {value.shape[0]}"
        )


def check_takes_offset(variables: Variables) -> None:
    """Raise a ValueError unless the model takes an offset."""
    if variables.get("offset") is None:
        raise ValueError("offset: expected none, since the model takes no offset, got one")


def _check_offset(offset: Any, n: int, variables: Variables) -> Any:
    check_takes_offset(variables)
    columns = variables.offset_columns
    shape = "(n,)" if columns is None else f"(n, {columns}), an entry for each class"
    offset = check_array("offset", offset, shape=shape, ndim=1 if columns is None else 2)
    check_length("offset", offset, n)
    if columns is not None and offset.shape[1] != columns:
        raise ValueError(f"offset: expected shape {shape}, got {offset.shape}")
    return offset


def _raise(found: Violations, data: Data, variables: Variables) -> None:
    """Raise for the first violation, with the offending entry."""
    if found.x:
        x = np.asarray(data.x)
        may_miss = variables.x.missing
        bad = np.isinf(x) if may_miss else ~np.isfinite(x)
        if not bad.any():
            assert variables.x.expected is not None  # what else should be wrong
            raise ValueError(f"x: {variables.x.expected(x, np)}")
        row, column = np.argwhere(bad)[0]
        name = "" if data.feature_names is None else f" ({data.feature_names[column]})"
        raise ValueError(
            f"x: expected finite numbers{' or NaN' if may_miss else ''}, got {x[row, column]} in "
            f"row {row}, column {column}{name}; drop such rows, or fill them in"
        )
    if found.y:
        assert variables.y is not None  # what else should be wrong
        raise ValueError(f"y: {variables.y.expected(np.asarray(data.y))}")
    if found.weights:
        w = np.asarray(data.weights)
        bad = w[~(np.isfinite(w) & (w >= 0))][0]
        raise ValueError(f"weights: expected finite numbers of at least 0, got {bad}")
    if found.offset:
        o = np.asarray(data.offset)
        raise ValueError(f"offset: expected finite numbers, got {o[~np.isfinite(o)][0]}")
    raise ValueError("weights: expected a positive sum, got zeros only")


def check_scalar(name: str, value: Any, *, dtype: Any) -> Array:
    """A number of at least zero, such as a penalty; a tracer passes unseen.

    Args:
        name: of the argument, for the message of an error.
        value: a real number or () array.
        dtype: of the result.

    Returns:
        () of that dtype.

    Raises:
        TypeError: for what is no number.
        ValueError: for an array with axes, negative or non-finite numbers.

    Example:
        >>> float(check_scalar("l2", 1, dtype="float32"))
        1.0
    """
    kind = "?" if not hasattr(value, "__float__") else np.dtype(jnp.result_type(value)).kind
    if isinstance(value, bool | str | bytes) or kind not in "iuf":
        raise TypeError(f"{name}: expected a number, got {value!r} of type {type(value).__name__}")
    if np.shape(value) != ():
        hint = "; for many values use jax.vmap" if np.ndim(value) == 1 else ""
        raise ValueError(f"{name}: expected a single number, got shape {np.shape(value)}{hint}")
    if not isinstance(value, Tracer) and not 0 <= float(value) < float("inf"):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    if not isinstance(value, Tracer) and float(value) > float(jnp.finfo(dtype).max):
        raise ValueError(f"{name}: expected a number within {jnp.dtype(dtype).name}, got {value}")
    if isinstance(value, Tracer):
        return jnp.asarray(value, dtype)
    return jax.device_put(np.asarray(float(value), dtype))  # no program for each dtype it comes in
