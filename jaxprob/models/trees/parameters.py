"""The parameters of a tree: questions, and the weights of classes that came to each node."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.trees import restricted
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled

_SURE = 0.75  # a probability above which 1 - p has digits that p has not


class Params(NamedTuple):
    """A complete tree of depth D: node i is split into nodes 2i + 1 (left) and 2i + 2.

    Where a tree ends before, its node is not split: the threshold is infinite and everything goes
    left, down to the last level. For many trees with the trees in front.

    Attributes:
        feature: (2^D - 1,) int32 the column that a node asks for.
        threshold: (2^D - 1,) up to which x goes left.
        missing_right: (2^D - 1,) int32, 1 where a missing entry goes right. With an infinite
            threshold too: the question is whether the entry is missing.
        counts: (2^(D+1) - 1, K) weights of the classes among the examples of a node.
    """

    feature: Array
    threshold: Array
    missing_right: Array
    counts: Array

    @property
    def depth(self) -> int:
        """How many questions lead to a leaf, at most."""
        return (self.feature.shape[-1] + 1).bit_length() - 1

    @property
    def is_split(self) -> Array:
        """(..., 2^D - 1) bool, which nodes ask a question."""
        return (self.threshold < jnp.inf) | (self.missing_right > 0)


@compiled()
def leaf(params: Params, x: Array) -> Array:
    """Which of the 2^D last nodes each example comes to.

    Args:
        params: Params.
        x: (n, d) floating, NaN where an entry is missing.

    Returns:
        (n,) int32 in 0..2^D-1.

    Example:
        >>> from jaxprob.models import decision_tree as dt
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1])
        >>> leaf(dt.grow(x, y, num_classes=2, depth=1).params, x).tolist()
        [0, 0, 1, 1]
    """
    rows = jnp.arange(x.shape[0], dtype=jnp.int32)

    def further(_: int, node: Array) -> Array:
        value = x[rows, params.feature[node]]
        right = (value > params.threshold[node]).astype(jnp.int32)
        return 2 * node + 1 + jnp.where(jnp.isnan(value), params.missing_right[node], right)

    last = jax.lax.fori_loop(0, params.depth, further, jnp.zeros_like(rows))
    return last - params.feature.shape[-1]


def log_of_shares(p: Array) -> Array:
    """Logarithms of probabilities, those near 1 from the sum of the others, which has more digits.

    Args:
        p: (..., K) that sum to one.

    Returns:
        (..., K), nats.

    Example:
        >>> log_of_shares(jnp.array([1e-9, 1.0])).tolist()[1] == float(jnp.float32(-1e-9))
        True
    """
    others = matmul(p, 1 - jnp.eye(p.shape[-1], dtype=p.dtype))
    sure = p > _SURE
    return jnp.where(
        sure, jnp.log1p(-jnp.where(sure, others, 0.0)), jnp.log(jnp.where(sure, 1.0, p))
    )


def log_proba(counts: Array, smoothing: float) -> Array:
    """(..., K) equation 3.23."""
    count = counts + smoothing
    return log_of_shares(count / jnp.sum(count, axis=-1, keepdims=True))


def leaf_log_proba(params: Params, smoothing: float) -> Array:
    """(2^D, K) of the last nodes."""
    return log_proba(params.counts[params.feature.shape[-1] :], smoothing)


def maximal(counts: Array) -> Array:
    """(...) the log-likelihood of nodes (equation 3.24)."""
    n = jnp.sum(counts, axis=-1, keepdims=True)
    some = counts > 0
    return jnp.sum(
        counts * jnp.log(jnp.where(some, counts / jnp.where(n > 0, n, 1.0), 1.0)), axis=-1
    )


def divergence(part: Array, whole: Array) -> Array:
    """(...) one of the sums of equation 3.25."""
    some = part > 0
    n, of = jnp.sum(part, axis=-1, keepdims=True), jnp.sum(whole, axis=-1, keepdims=True)
    ratio = (part / jnp.where(n > 0, n, 1.0)) * (of / jnp.where(whole > 0, whole, 1.0))
    return jnp.sum(part * jnp.log(jnp.where(some, ratio, 1.0)), axis=-1)


def with_questions(params: Params, keep: Array) -> Params:
    """The tree with the questions of some of its nodes; all goes left where none is left."""
    counts = restricted(params.counts, keep)
    return Params(
        jnp.where(keep, params.feature, 0),
        jnp.where(keep, params.threshold, jnp.inf),
        jnp.where(keep, params.missing_right, 0),
        counts,
    )


def as_labels(y: Array, num_classes: int) -> Array:
    """As int32, none of which is out of range: such data has a status of its own."""
    return jnp.clip(jnp.asarray(y), 0, num_classes - 1).astype(jnp.int32)
