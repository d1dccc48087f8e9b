"""Control flow for lanes of a `jax.vmap` that do not all need the same."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

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


def if_any(needed: Array, compute: Callable[..., T], otherwise: T, *operands: Any) -> T:
    """What `compute` returns where it is needed; computed for all lanes if one needs it.

    For what is hardly ever needed: no lane then costs anything, and operands are not copied, as
    they are by `only_if`. There is no derivative: for use in functions with a rule of their own.

    Args:
        needed: () bool.
        compute: operands -> what is like `otherwise`.
        otherwise: what to return where it is not needed.
        *operands: trees of arrays.

    Returns:
        The one or the other.

    Example:
        >>> double = lambda x: if_any(x > 1, lambda x: 2 * x, x, x)
        >>> jax.vmap(double)(jnp.array([1.0, 3.0])).tolist()
        [1.0, 6.0]
    """

    @custom_vmap
    def choose(needed: Array, otherwise: T, operands: tuple) -> T:
        return jax.lax.cond(needed, lambda: compute(*operands), lambda: otherwise)

    @choose.def_vmap
    def _(
        axis_size: int, is_batched: tuple, needed: Array, otherwise: T, operands: tuple
    ) -> tuple[T, T]:
        def lanes(tree: Any, batched: Any) -> Any:
            shape = (axis_size,)
            return jax.tree.map(
                lambda a, is_own: a if is_own else jnp.broadcast_to(a, shape + jnp.shape(a)),
                tree,
                batched,
            )

        needed, otherwise = lanes(needed, is_batched[0]), lanes(otherwise, is_batched[1])
        axes = jax.tree.map(lambda is_own: 0 if is_own else None, is_batched[2])

        def all_lanes(needed: Array, otherwise: T, operands: tuple) -> T:
            made = jax.vmap(lambda operands: compute(*operands), in_axes=(axes,))(operands)

            def pick(new: Array, old: Array) -> Array:
                return jnp.where(needed.reshape(-1, *([1] * (new.ndim - 1))), new, old)

            return jax.tree.map(pick, made, otherwise)

        some = if_any(jnp.any(needed), all_lanes, otherwise, needed, otherwise, operands)
        return some, jax.tree.map(lambda _: True, otherwise)

    return choose(needed, otherwise, operands)
