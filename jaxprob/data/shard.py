"""Rows spread over devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxprob.data.arrays import OneWarning, as_array
from jaxprob.data.checks import Data, check_length
from jaxprob.data.schema import Schema, feature_names


def shard(
    x: Any, y: Any, weights: Any = None, offset: Any = None, *, mesh: Mesh | None = None
) -> Data:
    """Spread the examples over all devices, as equal parts of consecutive rows.

    Where n is not a multiple of the number of devices, rows of zeros with weight 0 are added at the
    end, so that every result is that of the n examples.

    Args:
        x: (n, d).
        y: (n,).
        weights: (n,), ones where None.
        offset: (n,) or (n, K), or None.
        mesh: with one axis; all devices of the default backend where None.

    Returns:
        Data whose arrays have n rounded up to a multiple of the number of devices as length;
        weights are always given.

    Raises:
        ValueError: for a mesh of several axes.

    Example:
        >>> shard([[1.0], [2.0]], [0, 1]).weights.tolist()
        [1.0, 1.0]
    """
    if mesh is None:
        mesh = Mesh(np.array(jax.devices()), ("rows",), axis_types=(AxisType.Auto,))
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh: expected one axis, got {mesh.axis_names}")
    names = feature_names(x)
    with OneWarning():
        x = as_array("x", x, shape="(n, d)", ndim=2)
        y = as_array("y", y, shape="(n,)", ndim=1)
        n = x.shape[0]
        check_length("y", y, n)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        weights = np.ones(n, dtype) if weights is None else weights
        weights = as_array("weights", weights, shape="(n,)", ndim=1)
        if offset is not None:
            offset = as_array("offset", offset, shape="(n,)", ndim=np.ndim(offset))
    added = -n % mesh.size
    place = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))

    def spread(a: Any) -> Array:
        if added:
            a = jnp.pad(a, [(0, added)] + [(0, 0)] * (a.ndim - 1))
        return jax.device_put(a, place)

    offset = None if offset is None else spread(offset)
    return Data(spread(x), spread(y), spread(weights), offset, Schema(x.shape[1], names))
