"""The data of a fit as the solvers see them: features less what is common to all of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.data.checks import host_view
from jaxprob.numerics.centring import centre_of
from jaxprob.runtime.compilation import eager_jit

_seen = eager_jit(centre_of)


def centred(x: Any) -> tuple[Any, Any]:
    """Features less their centre, where they are far from zero against their spread.

    Args:
        x: (n, d) floating; of a `jax.ShapeDtypeStruct` nothing is known.

    Returns:
        (n, d) and the centre (d,); x itself and None where that is not needed. In a caller's `jit`
        or `vmap` it always is.

    Example:
        >>> x, centre = centred(jnp.array([[2020.0], [2022.0]]))
        >>> x.ravel().tolist(), centre.tolist()
        ([-1.0, 1.0], [2021.0])
    """
    if isinstance(x, jax.ShapeDtypeStruct):
        return x, None
    if isinstance(x, Tracer):
        # Whatever it is, the fit is the same, and so is its derivative.
        centre = jax.lax.stop_gradient(centre_of(x)[0])
        return x - centre[None, :], centre
    view = host_view(x)
    centre, is_far = jax.device_get(_seen(x)) if view is None else centre_of(view, np)
    if not is_far:
        return x, None
    if view is None:
        return x - centre[None, :], jnp.asarray(centre)
    return jax.device_put(view - centre[None, :]), jnp.asarray(centre, x.dtype)


def less(x: Array, centre: Array | None) -> Array:
    """Features less a centre that is known.

    Args:
        x: (n, d).
        centre: (d,), or None where nothing is to be subtracted.

    Returns:
        (n, d).

    Example:
        >>> less(jnp.array([[3.0]]), jnp.array([1.0])).tolist()
        [[2.0]]
    """
    return x if centre is None else x - centre[None, :]
