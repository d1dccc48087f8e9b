"""What is shared by the lanes of a call, and what is each lane's own: checked arguments."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Classes, Features, Model, Variables
from jaxprob.data import check_array, check_data, check_scalar
from jaxprob.data.arrays import OneWarning
from jaxprob.data.checks import check_takes_offset
from jaxprob.data.labels import encoded
from jaxprob.data.schema import Schema
from jaxprob.fit import check_penalties, key_data
from jaxprob.many.engine.keeping import kept
from jaxprob.many.engine.lanes import Lanes
from jaxprob.problem.problem import Problem, Rows


def make_lanes(
    model: Model,
    given: Mapping[str, Any],
    init: Any = None,
    in_axes: Mapping[str, int | None] | None = None,
    *,
    key: Any = None,
    firth: bool = False,
) -> tuple[Lanes, Schema]:
    """Check arguments of `fit_many`, and tell what is shared and what is each lane's own.

    Args:
        model: a Model.
        given: by name, as the keywords of `fit_many`.
        init: parameters, shared or with a lane axis, or None.
        in_axes: as of `fit_many`.
        key: for where lanes start, one for all or (B,), or None.
        firth: whether to add Firth's penalty.

    Returns:
        Lanes, and the Schema of the data.
    """
    with OneWarning():
        lanes, schema = _lanes(model, given, init, in_axes, firth=firth)
        return (lanes if key is None else _with_keys(lanes, key)), schema


def _with_keys(lanes: Lanes, key: Any) -> Lanes:
    """Each lane with a key of its own."""
    many = np.shape(key) == (lanes.size,)
    data = key_data(key, (lanes.size,) if many else ())
    if not many:
        data = jax.random.key_data(jax.random.split(key, lanes.size))
    return lanes._replace(own={**lanes.own, "key": np.asarray(data)})


def _lanes(
    model: Model,
    given: Mapping[str, Any],
    init: Any,
    in_axes: Mapping[str, int | None] | None,
    *,
    firth: bool,
) -> tuple[Lanes, Schema]:
    classes = None
    if given["y"] is not None and model.variables.num_classes is not None:
        y, classes = encoded(given["y"], model.variables.num_classes)
        given = {**given, "y": y}
    in_axes = in_axes or {}
    unknown = set(in_axes) - set(given) - {"init"}
    if unknown:
        raise ValueError(f"in_axes: expected names among {sorted(given)}, got {sorted(unknown)}")
    variables = model.variables
    columns = variables.offset_columns
    axes = {"x": 2, "y": 1, "weights": 1, "offset": 1 if columns is None else 2, "l2": 0, "l1": 0}
    own: dict[str, Any] = {}
    for name, ndim in axes.items():
        axis = _lane_axis(name, given[name], ndim, in_axes)
        if axis is not None:
            shape = f"{_SHAPES[name]} with a lane axis"
            if ndim == 0:
                own[name] = _numbers(name, given[name], shape)
                continue
            array = check_array(name, given[name], shape=shape, ndim=ndim + 1)
            own[name] = _in_front(array, axis)
    shared = {name: value for name, value in given.items() if name not in own}
    sizes = {name: len(a) for name, a in own.items()}
    x = own["x"] if "x" in own else check_array("x", shared["x"], shape="(n, d)", ndim=2)
    n, d = x.shape[-2:]
    for name in ("y", "weights", "offset"):
        if name in own and own[name].shape[1] != n:
            got = own[name].shape[1]
            raise ValueError(f"{name}: expected one entry for each of the {n} rows of x, got {got}")
    if "offset" in own:
        _check_own_offset(model, own["offset"])
    data = check_data(
        np.zeros((n, d), x.dtype) if "x" in own else shared["x"],
        np.zeros(n, np.int32) if "y" in own and variables.y is not None else given["y"],
        shared.get("weights"),
        shared.get("offset"),
        variables=_of_shared(variables, own),
    )
    dtype = data.x.dtype
    if "y" in own and variables.y is not None:
        own["y"] = variables.y.cast(own["y"], dtype, np)
    check_penalties(model, given["l2"], given["l1"], firth=firth)
    penalties = {}
    for name in ("l2", "l1"):
        if name in own:
            own[name] = _check_penalties(name, own[name], dtype)
        elif shared[name] is not None:
            penalties[name] = check_scalar(name, shared[name], dtype=dtype)
    rows = Rows(
        None if "x" in own else data.x,  # pyright: ignore[reportArgumentType]
        None if "y" in own else data.y,
        data.weights,
        data.offset,
    )
    values = [own.get(name, penalties.get(name)) for name in ("l2", "l1")]
    penalised = any(v is not None and bool(np.all(np.asarray(v) > 0)) for v in values)
    base = Problem(
        rows, penalties.get("l2"), penalties.get("l1"), model, penalised, None, firth=firth
    )
    whole = replace(base, data=Rows(data.x, data.y, None, None))
    if whole.num_params() == 0:
        raise ValueError(
            f"x: expected at least one feature, since this {model.name} has no other parameters, "
            f"got shape {x.shape}"
        )
    if init is not None:
        theta = _check_init(whole, init, in_axes)
        own["theta"] = theta
        if theta.ndim == 2:
            sizes["init"] = len(theta)
    if not sizes:
        raise ValueError(
            "fit_many: expected at least one argument with a lane axis, such as weights of shape "
            "(B, n), got none; for one fit use jaxprob.fit"
        )
    if len(set(sizes.values())) > 1:
        raise ValueError(f"fit_many: expected as many lanes in every argument, got {sizes}")
    size = next(iter(sizes.values()))
    if size == 0:
        raise ValueError("fit_many: expected at least one lane, got 0")
    if init is not None and own["theta"].ndim == 1:
        own["theta"] = np.broadcast_to(own["theta"], (size, len(own["theta"])))
    own, lent = kept(own, given)
    return Lanes(base, own, size, lent=lent), replace(data.schema, classes=classes)


_SHAPES = {
    "x": "(n, d)",
    "y": "(n,)",
    "weights": "(n,)",
    "offset": "(n,) or (n, K)",
    "l2": "()",
    "l1": "()",
}


def _lane_axis(name: str, value: Any, ndim: int, in_axes: Mapping[str, int | None]) -> int | None:
    """Where the lane axis of an argument is, None where it has none."""
    if value is None:
        return None
    if name in in_axes:
        return _checked_axis(name, ndim, in_axes[name])
    try:
        have = value.ndim if hasattr(value, "ndim") else np.ndim(value)
    except ValueError:
        return None  # ragged: the check of a shared argument says so
    return 0 if have == ndim + 1 else None


def _checked_axis(name: str, ndim: int, axis: Any) -> int | None:
    """The axis that the user named, of an argument that has so many without it."""
    if axis is None:
        return None
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"in_axes: expected a number or None for {name}, got {axis!r}")
    if not -ndim - 1 <= axis <= ndim:
        raise ValueError(f"in_axes: expected an axis of {name} below {ndim + 1}, got {axis}")
    return int(axis)


def _in_front(array: Any, axis: int) -> Any:
    """With the lane axis in front; on a CPU as NumPy sees it, in place."""
    if axis != 0:
        own = isinstance(array, Array)
        array = jnp.moveaxis(array, axis, 0) if own else np.moveaxis(array, axis, 0)
    on_cpu = isinstance(array, Array) and {d.platform for d in array.devices()} == {"cpu"}
    return np.asarray(array) if on_cpu else array


def _numbers(name: str, values: Any, shape: str) -> np.ndarray:
    host = np.asarray(values)
    if host.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected numbers, got dtype {host.dtype}")
    if host.ndim != 1:
        raise ValueError(f"{name}: expected shape {shape}, got {host.shape}")
    return host


def _check_penalties(name: str, host: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = host.astype(dtype)
    bad = host[~(np.isfinite(cast) & (host >= 0))]
    if len(bad):
        within = f" within {np.dtype(dtype).name}" if np.isfinite(bad[0]) and bad[0] > 0 else ""
        raise ValueError(f"{name}: expected finite numbers of at least 0{within}, got {bad[0]}")
    return cast


def _of_shared(variables: Variables, own: Mapping[str, Any]) -> Variables:
    """What is checked of the arguments that lanes share: nothing of those that they have alone."""
    free = {"x": Features(), "y": Classes(1)}

    def some(each: tuple) -> tuple:
        return tuple((n, free[n] if n in own and n in free else of) for n, of in each)

    return Variables(some(variables.of), some(variables.given))


def _check_own_offset(model: Model, offset: Any) -> None:
    check_takes_offset(model.variables)
    columns = model.variables.offset_columns
    if columns is not None and offset.shape[2] != columns:
        raise ValueError(
            f"offset: expected {columns} columns, an entry for each class, got {offset.shape}"
        )


def _check_init(problem: Problem, init: Any, in_axes: Mapping[str, int | None]) -> np.ndarray:
    """(p,) or (B, p) from parameters, checked against what the model expects."""
    template = problem.template()
    shapes = jax.tree.map(lambda leaf: leaf.shape, template)
    try:
        leaves = jax.tree.map(lambda t, a: _reals(a).astype(t.dtype), template, init)
    except (ValueError, TypeError) as error:
        raise ValueError(f"init: expected parameters of shapes {shapes}, got {init!r}") from error
    pairs = list(zip(jax.tree.leaves(template), jax.tree.leaves(leaves), strict=True))
    axis = None
    if any(a.ndim > t.ndim for t, a in pairs) or "init" in in_axes:
        axes = {t.ndim: _checked_axis("init", t.ndim, in_axes.get("init", 0)) for t, _ in pairs}
        axis = next(iter(axes.values()))
    if axis is None and all(a.shape == t.shape for t, a in pairs):
        return np.concatenate([np.ravel(a) for _, a in pairs])
    if axis is not None and all(a.ndim == t.ndim + 1 for t, a in pairs):
        moved = [(t, np.moveaxis(a, axis, 0)) for t, a in pairs]
        same = len({len(a) for _, a in moved}) == 1
        if same and all(a.shape[1:] == t.shape for t, a in moved):
            return np.concatenate([a.reshape(len(a), -1) for _, a in moved], axis=1)
    got = jax.tree.map(np.shape, leaves)
    raise ValueError(
        f"init: expected parameters of shapes {shapes}, or with a lane axis, got {got}"
    )


def _reals(a: Any) -> np.ndarray:
    a = np.asarray(a)
    if a.dtype.kind not in "iuf":
        raise TypeError(f"expected real numbers, got {a.dtype}")
    return a
