"""Examples far from each other, from which components of a mixture can start."""

import jax
import jax.numpy as jnp
from jax import Array


def spread_out(key: Array, x: Array, weights: Array, num: int, scale: Array | None = None) -> Array:
    """Draw examples with probabilities proportional to the squared distance from those drawn.

    The k-means++ rule of Arthur and Vassilvitskii (2007). The first ones are drawn as they would be
    if fewer were asked for.

    Args:
        key: a typed PRNG key.
        x: (n, d) floating.
        weights: (n,) c ≥ 0, by which the probabilities are multiplied.
        num: how many.
        scale: (d,) units of the columns, in which distances are measured; ones where None.

    Returns:
        (num, d).

    Example:
        >>> x = jnp.array([[0.0], [0.0], [5.0]])
        >>> sorted(spread_out(jax.random.key(0), x, jnp.ones(3), 2).ravel().tolist())
        [0.0, 5.0]
    """
    n = len(x)
    unit = jnp.ones_like(x[0]) if scale is None else scale

    def one(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centers, nearest = carry
        chance = jnp.where(i == 0, weights, weights * nearest)
        chance = jnp.where(jnp.any(chance > 0), chance, weights)  # all are drawn: again
        u = jax.random.uniform(jax.random.fold_in(key, i), (), x.dtype)
        sums = jnp.cumsum(chance)
        drawn = jnp.minimum(jnp.searchsorted(sums, u * sums[-1], side="right"), n - 1)
        distance = jnp.sum(((x - x[drawn][None, :]) / unit[None, :]) ** 2, axis=1)
        return centers.at[i].set(x[drawn]), jnp.minimum(nearest, distance)

    start = jnp.zeros((num, x.shape[1]), x.dtype), jnp.full(n, jnp.inf, x.dtype)
    return jax.lax.fori_loop(0, num, one, start)[0]
