"""Control flow for lanes of a `jax.vmap` that do not all need the same."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")


def only_if(needed: Array | bool, compute: Callable[..., T], otherwise: T, *operands: Any) -> T:
    """What `compute` returns where it is needed.

    `jax.lax.cond` under `jax.vmap` computes both branches for every lane; this computes nothing
    where no lane needs it. What does not depend on the operands may be computed all the same: XLA
    moves it out of the loop that this is.

    Args:
        needed: () bool.
        compute: operands -> what is like `otherwise`.
        otherwise: what to return where it is not needed.
        *operands: trees of arrays.

    Returns:
        The one or the other.

    Example:
        >>> float(only_if(jnp.array(False), jnp.exp, jnp.array(2.0), jnp.array(0.0)))
        2.0
    """

    def body(carry: tuple) -> tuple:
        _, operands, _ = carry
        changed = jax.tree.map(jnp.zeros_like, operands)
        return jnp.zeros((), bool), changed, compute(*operands)

    start = jnp.asarray(needed), operands, otherwise
    return jax.lax.while_loop(lambda carry: carry[0], body, start)[2]
