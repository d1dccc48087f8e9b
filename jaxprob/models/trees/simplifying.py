"""Smaller trees from large ones: pruned, cut off at a depth, or chosen by BIC."""

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxprob.contract.settings import whole_number
from jaxprob.models.trees import best_subtree
from jaxprob.models.trees.parameters import (
    Params,
    as_labels,
    leaf,
    log_proba,
    maximal,
    with_questions,
)
from jaxprob.models.trees.settings import REMEDY, SMOOTHING, rounding_of


def prune(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    smoothing: float = SMOOTHING,
) -> Params:
    """The part of a tree, from its root on, with the largest log-likelihood of other examples.

    A question that does not raise it goes (equation 3.26 with no price).

    Args:
        params: Params.
        x: (n, d) floating: examples that the tree was not grown on.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        smoothing: a.

    Returns:
        Params of the same shapes.

    Example:
        >>> from jaxprob.models import decision_tree as dt
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1])
        >>> params = dt.grow(x, y, num_classes=2, depth=1).params
        >>> bool(prune(params, x, 1 - y).is_split.any()), bool(prune(params, x, y).is_split.any())
        (False, True)
    """
    k = params.counts.shape[-1]
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    last = jnp.zeros((2**params.depth, k), x.dtype).at[leaf(params, x), as_labels(y, k)].add(c)
    levels = [last]
    while len(levels[0]) > 1:
        levels.insert(0, levels[0][0::2] + levels[0][1::2])
    new = jnp.concatenate(levels)
    log_p = log_proba(params.counts, smoothing)
    value = jnp.sum(jnp.where(new > 0, new * log_p, 0.0), axis=1)
    return with_questions(params, best_subtree(params.is_split, value, 0.0))


def limited(params: Params, depth: int) -> Params:
    """The first levels of a tree: the same as a tree that is grown to this depth only.

    Args:
        params: Params.
        depth: how many questions lead to a leaf, at most.

    Returns:
        Params of the same shapes.

    Raises:
        ValueError: for a negative depth.

    Example:
        >>> from jaxprob.models import decision_tree as dt
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 1, 0, 1])
        >>> params = dt.grow(x, y, num_classes=2, depth=2).params
        >>> [int(limited(params, depth).is_split.sum()) for depth in (0, 1, 2)]
        [0, 1, 2]
    """
    depth = whole_number("depth", depth, least=0)
    return with_questions(
        params, params.is_split & (jnp.arange(params.feature.shape[-1]) < 2**depth - 1)
    )


def prune_bic(params: Params, *, count_thresholds: bool = True) -> Params:
    """The part of a tree, from its root on, with the best Bayesian information criterion.

    Each split has its price: half of log n for each of the K - 1 probabilities that it adds, and
    for its threshold, n being the weight of all examples (equation 3.26). Which feature it asks for
    is not counted, nor is the prior of the leaves.

    Args:
        params: Params.
        count_thresholds: whether a threshold is a parameter.

    Returns:
        Params of the same shapes. Inside `jit` and `vmap` their counts are NaN for what is a
        ValueError outside.

    Raises:
        ValueError: for a tree of weights that sum to one or less: a split would cost nothing.

    Example:
        >>> from jaxprob.models import decision_tree as dt
        >>> x, y = jnp.arange(8.0)[:, None], jnp.array([0, 1, 0, 0, 1, 1, 1, 1])
        >>> params = prune_bic(dt.grow(x, y, num_classes=2, depth=3).params)
        >>> int(params.is_split.sum())
        1
    """
    counts = params.counts
    each = (counts.shape[-1] - 1 + count_thresholds) / 2
    n = jnp.sum(counts[0])
    is_light = jnp.any(params.is_split) & (n <= 1 + rounding_of(n.dtype))
    if not isinstance(is_light, Tracer) and is_light:
        raise ValueError(
            f"params: expected a tree of weights that sum to more than one example, got {n:g}, "
            f"whose logarithm prices nothing; {REMEDY}"
        )
    price = each * jnp.log(jnp.where(n > 0, n, 1.0))
    kept = with_questions(params, best_subtree(params.is_split, maximal(counts), price))
    return kept._replace(counts=jnp.where(is_light, jnp.nan, kept.counts))
