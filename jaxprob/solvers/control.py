"""Control flow for lanes of a `jax.vmap` that do not all need the same."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")


def only_if(needed: Array | bool, compute: Callable[[], T], otherwise: T) -> T:
    """What `compute` returns where it is needed.

    `jax.lax.cond` under `jax.vmap` computes both branches for every lane; this computes nothing
    where no lane needs it.

    Args:
        needed: () bool.
        compute: without arguments, returning what is like `otherwise`.
        otherwise: what to return where it is not needed.

    Returns:
        The one or the other.

    Example:
        >>> float(only_if(jnp.array(False), lambda: jnp.array(1.0), jnp.array(2.0)))
        2.0
    """
    _, result = jax.lax.while_loop(
        lambda carry: carry[0],
        lambda _: (jnp.zeros((), bool), compute()),
        (jnp.asarray(needed), otherwise),
    )
    return result
