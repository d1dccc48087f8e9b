"""Parts of complete trees: which questions to keep, and what is left then."""

import jax.numpy as jnp
from jax import Array


def best_subtree(is_split: Array, value: Array, price: Array | float) -> Array:
    """Which questions the best part of a tree keeps, from the leaves up.

    Args:
        is_split: (2^D - 1,) bool, nodes with a question.
        value: (2^(D+1) - 1,) what each node is worth as a leaf.
        price: () of a question.

    Returns:
        (2^D - 1,) bool: a question is kept if what follows is worth more, and those before it are.

    Example:
        >>> value = jnp.array([0.0, 1.0, 2.0])
        >>> best_subtree(jnp.array([True]), value, 1.0).tolist()
        [True]
        >>> best_subtree(jnp.array([True]), value, 3.0).tolist()
        [False]
    """
    depth = (len(is_split) + 1).bit_length() - 1
    worth = [slice(2**level - 1, 2 ** (level + 1) - 1) for level in range(depth + 1)]
    best, kept = value[worth[depth]], []
    for level in reversed(range(depth)):
        further = best[0::2] + best[1::2] - price
        keep = is_split[worth[level]] & (further > value[worth[level]])
        best = jnp.where(keep, further, value[worth[level]])
        kept.insert(0, keep)
    for level in range(1, depth):
        kept[level] &= jnp.repeat(kept[level - 1], 2)
    return jnp.concatenate(kept)


def restricted(counts: Array, keep: Array) -> Array:
    """The weights of nodes when only some questions are asked: others send everything left.

    Args:
        counts: (2^(D+1) - 1, K).
        keep: (2^D - 1,) bool, none of which is below one that is not kept.

    Returns:
        (2^(D+1) - 1, K).

    Example:
        >>> restricted(jnp.array([[3.0], [1.0], [2.0]]), jnp.array([False])).tolist()
        [[3.0], [3.0], [0.0]]
    """
    depth = (len(keep) + 1).bit_length() - 1
    levels = [counts[:1]]
    for level in range(depth):
        first, nodes = 2**level - 1, 2**level
        asked = keep[first : first + nodes, None]
        below = counts[2 * first + 1 : 2 * first + 1 + 2 * nodes]
        left = jnp.where(asked, below[0::2], levels[-1])
        right = jnp.where(asked, below[1::2], 0.0)
        levels.append(jnp.stack([left, right], axis=1).reshape(2 * nodes, -1))
    return jnp.concatenate(levels)
