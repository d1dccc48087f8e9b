"""What a forest says of examples by the trees that have not seen them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxprob.contract import (
    Status,
)
from jaxprob.models.trees import decision_tree
from jaxprob.models.trees.decision_tree import (
    Params,
    log_of_shares,
    weighted,
)
from jaxprob.models.trees.parameters import as_labels
from jaxprob.models.trees.settings import FOREST_SMOOTHING, check_forest
from jaxprob.runtime.compilation import compiled


class OutOfBag(NamedTuple):
    """What trees say of examples that they were not grown on.

    Attributes:
        log_likelihood: () Σ_i c_i log p_oob(y_i|x_i), nats, over examples that some tree has not
            seen.
        weight: () of these.
        log_proba: (n, K) log p_oob; NaN for examples that every tree has seen.
        status: () int32, a Status: INVALID_INPUT, with NaN in all else, where the trees were grown
            on something else, CONVERGED otherwise.
    """

    log_likelihood: Array
    weight: Array
    log_proba: Array
    status: Array


def draws(key: Array, weights: Array) -> Array:
    """How often a bootstrap sample has each example, of those with positive weight.

    Args:
        key: a typed PRNG key.
        weights: (n,) c_i ≥ 0.

    Returns:
        (n,) m_i of the dtype of the weights: their sum is the number of positive weights.

    Example:
        >>> draws(jax.random.key(0), jnp.array([0.0, 3.0, 0.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    n = weights.shape[0]
    some = weights > 0
    rank = jnp.cumsum(some) - 1
    count = rank[-1] + 1
    drawn = jax.random.randint(key, (n,), 0, jnp.maximum(count, 1))
    counts = (jnp.arange(n) < count).astype(weights.dtype)
    times = jnp.zeros_like(weights).at[drawn].add(counts)
    return jnp.where(some, times[jnp.maximum(rank, 0)], 0.0)


def out_of_bag(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    seed: int = 0,
    smoothing: float = FOREST_SMOOTHING,
) -> OutOfBag:
    """How well the trees predict the examples that they were not grown on (equation 3.28).

    Args:
        params: of `grow` with `bootstrap`, T in front.
        x: (n, d) floating: the examples that the forest was grown on, all of them.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0, the same as when it was grown.
        seed: the same as when it was grown.
        smoothing: a of each leaf.

    Returns:
        OutOfBag. What is a ValueError outside of `jit` and `vmap` is its status inside.

    Raises:
        ValueError: for data, weights or a seed with which the leaves of some tree would weigh
            something else, and for a forest grown without `bootstrap`.

    Example:
        >>> from jaxprob.models import random_forest as rf
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]] * 5), jnp.array([0, 0, 1, 1] * 5)
        >>> params = rf.grow(x, y, num_classes=2, num_trees=20, depth=1).params
        >>> out = out_of_bag(params, x, y)
        >>> float(out.weight), bool(jnp.exp(out.log_likelihood / out.weight) > 0.9)
        (20.0, True)
    """
    num_trees = params.feature.shape[0]
    check_forest(num_trees, seed, True)
    x, y = jnp.asarray(x), jnp.asarray(y)
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else jnp.asarray(weights, x.dtype)
    keys = jax.random.split(jax.random.key(seed), num_trees)
    found, agrees = _out_of_bag(params, x, y, c, keys, smoothing)
    if not isinstance(agrees, Tracer) and not agrees.all():
        raise ValueError(
            f"seed, x, y, weights: expected those that the forest was grown on, but tree "
            f"{int(jnp.argmin(agrees))} of {num_trees} has other weights in its leaves than seed "
            f"{seed} draws; pass the data and the seed that it was grown with, for which bootstrap "
            "must have been True"
        )
    return found


@compiled()
def _out_of_bag(
    params: Params, x: Array, y: Array, c: Array, keys: Array, smoothing: float
) -> tuple[OutOfBag, Array]:
    """What the trees say, and (T,) whether each was grown on what its key draws."""
    k = params.counts.shape[-1]
    labels = as_labels(y, k)

    def add(so_far: tuple[Array, Array], one: tuple[Params, Array]) -> tuple[Any, Array]:
        tree, key = one
        sums, times = so_far
        drawn = draws(bootstrap_key(key), c)
        out = (drawn == 0).astype(x.dtype)
        counts = tree.counts[tree.feature.shape[0] :]
        again = jnp.zeros_like(counts).at[decision_tree.leaf(tree, x), labels].add(c * drawn)
        slack = jnp.finfo(counts.dtype).eps ** 0.5  # of sums in another order
        agrees = jnp.all(jnp.abs(again - counts) <= slack * counts)
        return (sums + out[:, None] * proba(tree, x, smoothing), times + out), agrees

    zero = jnp.zeros((x.shape[0], k), x.dtype), jnp.zeros_like(c)
    (sums, times), agrees = jax.lax.scan(add, zero, (params, keys))
    log_p = log_of_shares(sums / times[:, None])
    known = jnp.where(times > 0, c, 0.0)
    sound = jnp.all(agrees)
    value, weight = weighted(own(log_p, y), known), jnp.sum(known)
    value, weight, log_p = (jnp.where(sound, a, jnp.nan) for a in (value, weight, log_p))
    status = jnp.where(sound, jnp.int32(Status.CONVERGED), jnp.int32(Status.INVALID_INPUT))
    return OutOfBag(value, weight, log_p, status), agrees


def bootstrap_key(key: Array) -> Array:
    """That of a tree's sample; levels of the tree fold in their own numbers."""
    return jax.random.fold_in(key, 2**31)


def proba(tree: Params, x: Array, smoothing: float) -> Array:
    """(n, K) of one tree."""
    return jnp.exp(decision_tree.predict_log_proba(tree, x, smoothing=smoothing))


def own(log_p: Array, y: Array) -> Array:
    """(n,) of the labels."""
    return jnp.take_along_axis(log_p, jnp.asarray(y, jnp.int32)[:, None], axis=1)[:, 0]
