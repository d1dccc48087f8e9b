r"""Decision trees with class probabilities, grown by likelihood.

The model: questions of one feature each lead x to a leaf, and the leaf knows how likely the K
classes are. With n_k the weight of class k among the examples of the leaf, n their sum, and a prior
of a examples of each class (`smoothing`; Dirichlet, of which this is the posterior mean):

    p(y=k|x) = (n_k + a) / (n + K a),        n_k that of the leaf of x                    (3.23)

A question is "x_j ≤ t?": yes goes left, no goes right, and a missing entry (NaN) where the question
says. Without a prior a node has the maximal log-likelihood, and splitting it into parts L and R
gains, in nats,

    ℓ(n) = Σ_k n_k log(n_k / n)                                                           (3.24)
    G = ℓ(L) + ℓ(R) - ℓ(n)
      = Σ_k L_k log((L_k/L) / (n_k/n)) + Σ_k R_k log((R_k/R) / (n_k/n))                   (3.25)

With the entropy H, ℓ(n) = -n H(n_1/n, ..., n_K/n), so the gain is n times the information gain: how
much the question says about the class. (Its right hand side is a sum of divergences from the node's
shares, which keeps its digits where ℓ would cancel.)

A tree is grown greedily, level by level: each node is split by the question with the largest gain,
of those with enough weight on both sides, and with missing entries on the side where they gain
more. The candidates are all cuts between values that differ, or with `max_bins` those between bins.
(Of many examples most cuts are never looked at: a bound on the gain of all cuts inside a bin tells
that they are no better than one at an edge; see `jaxprob.models.trees.histograms`.)
Among equally good ones (to rounding) the first feature, and the lowest threshold, is taken. Finding
the best tree of all is NP-hard; what a fit returns is CONVERGED in that every node has its best
question.

Weights count examples, and so do `smoothing` and `min_leaf_weight`, while `min_gain` is in nats of
all examples. Without these three a common factor of the weights changes nothing; with one of them
weights that sum to one or less, as if all examples were one, have the status INVALID_INPUT.

Pruning goes from the leaves up, with values V of the nodes as leaves and a price c of a split:

    best(i) = max(V_i, best(left of i) + best(right of i) - c)                            (3.26)

V is the log-likelihood of other examples and c = 0 in `prune`. In `prune_bic` it is ℓ(n), and c is
half of log n for each parameter more: K - 1 probabilities, and a threshold.

Source: equations 3.23-3.26 of the project's mathematics; Breiman, Friedman, Olshen and Stone,
Classification and Regression Trees, 1984; Quinlan, C4.5, 1993 (information gain); Ke et al.,
LightGBM, NIPS 2017 (bins); Mehta, Agrawal and Rissanen, SLIQ, EDBT 1996 (orders of the columns);
Hyafil and Rivest, Information Processing Letters 5, 1976.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Chosen,
    Classes,
    Likelihood,
    Model,
    Predictions,
    Search,
    Variables,
)
from jaxprob.models.trees import Columns, columns_of, grown, nodes_of
from jaxprob.models.trees import best_subtree as best_subtree
from jaxprob.models.trees.parameters import Params as Params
from jaxprob.models.trees.parameters import as_labels, divergence, leaf_log_proba, log_proba
from jaxprob.models.trees.parameters import leaf as leaf
from jaxprob.models.trees.parameters import log_of_shares as log_of_shares
from jaxprob.models.trees.settings import MAY_MISS as MAY_MISS
from jaxprob.models.trees.settings import MOST_LEVELS as MOST_LEVELS
from jaxprob.models.trees.settings import REASONS as REASONS
from jaxprob.models.trees.settings import REMEDY as REMEDY
from jaxprob.models.trees.settings import SMOOTHING as SMOOTHING
from jaxprob.models.trees.settings import check_max_features as check_max_features
from jaxprob.models.trees.settings import check_settings as check_settings
from jaxprob.models.trees.settings import status_of as status_of
from jaxprob.models.trees.settings import too_light as too_light
from jaxprob.models.trees.settings import weighted as weighted
from jaxprob.models.trees.simplifying import limited as limited
from jaxprob.models.trees.simplifying import prune as prune
from jaxprob.models.trees.simplifying import prune_bic as prune_bic
from jaxprob.runtime.compilation import compiled


def init(
    key: Array | None,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    num_classes: int,
    depth: int = 6,
) -> Params:
    """A tree that asks nothing: the classes are as likely as they are frequent.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating; only its dtype matters.
        y: (n,) labels in 0..K-1; none of any where None.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        depth: D.

    Returns:
        Params.

    Example:
        >>> init(None, jnp.zeros((3, 2)), jnp.array([0, 1, 1]), num_classes=2).counts[0].tolist()
        [1.0, 2.0]
    """
    del key
    every = jnp.zeros(num_classes, x.dtype)
    if y is not None:
        c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
        every = every.at[as_labels(y, num_classes)].add(c)
    inner = 2**depth - 1
    leftmost = jnp.array([2**level - 1 for level in range(depth + 1)])
    return Params(
        jnp.zeros(inner, jnp.int32),
        jnp.full(inner, jnp.inf, x.dtype),
        jnp.zeros(inner, jnp.int32),
        jnp.zeros((2 * inner + 1, num_classes), x.dtype).at[leftmost].set(every[None, :]),
    )


@compiled()
def log_prob(params: Params, x: Array, y: Array, *, smoothing: float = SMOOTHING) -> Array:
    """The log-probability of the label of one example (equation 3.23).

    Args:
        params: Params.
        x: (d,) floating, NaN where an entry is missing.
        y: () label in 0..K-1, any integer dtype.
        smoothing: a.

    Returns:
        (), nats; minus infinity where nothing is smoothed and the leaf has none of the class.

    Example:
        >>> params = init(None, jnp.zeros((3, 2)), jnp.array([0, 1, 1]), num_classes=2)
        >>> round(float(jnp.exp(log_prob(params, jnp.zeros(2), 1, smoothing=0.0))), 4)
        0.6667
    """
    return predict_log_proba(params, x[None], smoothing=smoothing)[0, jnp.asarray(y, jnp.int32)]


@compiled()
def log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    smoothing: float = SMOOTHING,
) -> Array:
    """The log-likelihood Σ_i c_i log p(y_i|x_i) of n examples (equation 3.23).

    Args:
        params: Params.
        x: (n, d) floating, NaN where an entry is missing.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        smoothing: a.

    Returns:
        (), nats.

    Example:
        >>> params = init(None, jnp.zeros((3, 2)), jnp.array([0, 1, 1]), num_classes=2)
        >>> x, y = jnp.zeros((1, 2)), jnp.array([1])
        >>> round(float(log_likelihood(params, x, y, smoothing=0.0)), 4)
        -0.4055
    """
    each = leaf_log_proba(params, smoothing)[leaf(params, x), jnp.asarray(y, jnp.int32)]
    return weighted(each, weights)


@compiled()
def predict_log_proba(params: Params, x: Array, *, smoothing: float = SMOOTHING) -> Array:
    """The log-probabilities of all classes for each example (equation 3.23).

    Args:
        params: Params.
        x: (n, d) floating, NaN where an entry is missing.
        smoothing: a.

    Returns:
        (n, K), nats.

    Example:
        >>> params = init(None, jnp.zeros((3, 2)), jnp.array([0, 1, 1]), num_classes=2)
        >>> jnp.exp(predict_log_proba(params, jnp.zeros((1, 2)), smoothing=0.0)).round(4).tolist()
        [[0.33329999446868896, 0.666700005531311]]
    """
    return leaf_log_proba(params, smoothing)[leaf(params, x)]


@compiled()
def sample(params: Params, key: Array, x: Array, *, smoothing: float = SMOOTHING) -> Array:
    """Draw labels y_i from the probabilities of their leaves (equation 3.23).

    Args:
        params: Params.
        key: a typed PRNG key.
        x: (n, d) floating, NaN where an entry is missing.
        smoothing: a.

    Returns:
        (n,) int32 in 0..K-1.

    Example:
        >>> params = init(None, jnp.zeros((3, 2)), jnp.array([1, 1, 1]), num_classes=2)
        >>> sample(params, jax.random.key(0), jnp.zeros((2, 2)), smoothing=0.0).tolist()
        [1, 1]
    """
    log_p = predict_log_proba(params, x, smoothing=smoothing)
    return jax.random.categorical(key, log_p, axis=-1).astype(jnp.int32)


def grow(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    depth: int = 6,
    min_leaf_weight: float = 0.0,
    min_gain: float = 0.0,
    smoothing: float = SMOOTHING,
    max_bins: int | None = None,
    max_features: int | None = None,
    key: Array | None = None,
) -> Chosen:
    """Grow a tree: the best question for each node (equation 3.25).

    With `vmap` over weights a column is sorted once, and each weighting grows its tree.

    Args:
        x: (n, d) floating, NaN where an entry is missing.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        depth: D.
        min_leaf_weight: on both sides of a question, at least; anything positive where zero.
        min_gain: of a question, nats: more than this.
        smoothing: a, of the probabilities of the leaves; only the status depends on it.
        max_bins: of a column, from 2 to 255: its values are told apart at so many quantiles only.
        max_features: how many columns, drawn for each node, may be asked for; any where None.
        key: a typed PRNG key with which they are drawn; a fixed one where None.

    Returns:
        Chosen of Params, with status INVALID_INPUT where the weights sum to one or less and a
        setting counts examples, CLASS_ABSENT where a class has no weight and nothing is smoothed,
        CONVERGED otherwise.

    Raises:
        ValueError: for settings out of their ranges.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1])
        >>> params = grow(x, y, num_classes=2, depth=1).params
        >>> float(params.threshold[0]), params.counts[1:].tolist()
        (3.0, [[2.0, 0.0], [0.0, 2.0]])
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    check_settings(num_classes, depth, min_leaf_weight, min_gain, smoothing, max_bins)
    check_max_features(max_features, x.shape[-1])
    rules = {
        "num_classes": num_classes,
        "depth": depth,
        "min_leaf_weight": float(min_leaf_weight),
        "min_gain": float(min_gain),
        "max_features": max_features,
    }
    params = _grow(x, y, weights, key, max_bins=max_bins, **rules)
    unknown = jnp.asarray(jnp.inf, params.counts.dtype)
    is_light = too_light(weights, smoothing, min_leaf_weight, min_gain)
    return Chosen(params, status_of(params.counts[0], smoothing, is_light), unknown)


def feature_gain(params: Params, num_features: int) -> Array:
    """What the questions of each feature gain together, in the log-likelihood (equation 3.25).

    Args:
        params: Params.
        num_features: d.

    Returns:
        (d,), nats: of the examples that the tree was grown on, with the probabilities that fit them
        best. Their sum is what the tree gains over its root.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1])
        >>> feature_gain(grow(x, y, num_classes=2, depth=1).params, 1).round(4).tolist()
        [2.772599935531616]
    """
    inner = params.feature.shape[-1]
    left, right, node = params.counts[1::2], params.counts[2::2], params.counts[:inner]
    gain = divergence(left, node) + divergence(right, node)
    gain = jnp.where(params.is_split, gain, 0.0)
    return jnp.zeros(num_features, gain.dtype).at[params.feature].add(gain)


def describe(
    params: Params,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    smoothing: float = SMOOTHING,
    missing: bool = False,
) -> str:
    """A tree as text.

    Args:
        params: of one tree.
        feature_names: of the columns; x0, x1, ... where None.
        class_names: of the classes; numbers where None.
        smoothing: a.
        missing: whether to say where missing entries go.

    Returns:
        A line for each node: what leads there, the weight of its examples, and, for leaves, the
        probabilities of the classes (equation 3.23).

    Raises:
        ValueError: for many trees, and for another number of names.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1])
        >>> params = grow(x, y, num_classes=2, depth=1).params
        >>> print(describe(params, ["age"], ["young", "old"], smoothing=0.0))
        all: 4
        ├─ age ≤ 3: 2, young 1.000, old 0.000
        └─ age > 3: 2, young 0.000, old 1.000
    """
    k = params.counts.shape[-1]
    if class_names is not None and len(class_names) != k:
        raise ValueError(f"class_names: expected {k} names, got {len(class_names)}")
    names = [f"class {j}" for j in range(k)] if class_names is None else list(class_names)
    lines: list[str] = []
    found = nodes_of(params, feature_names, missing=missing)
    log_p = log_proba(params.counts, smoothing)

    def write(index: int, lead: str, below: str) -> None:
        node = found[index]
        text = f"{lead}{node.condition}: {node.weight:g}"
        if not node.children:
            p = jnp.exp(log_p[index]).tolist()
            text += "".join(f", {name} {share:.3f}" for name, share in zip(names, p, strict=True))
        lines.append(text)
        for child in node.children:
            last = child == node.children[-1]
            write(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))

    write(0, "", "")
    return "\n".join(lines)


def model(
    num_classes: int,
    depth: int = 6,
    *,
    min_leaf_weight: float = 0.0,
    min_gain: float = 0.0,
    smoothing: float = SMOOTHING,
    max_bins: int | None = None,
) -> Model:
    """A decision tree for `jaxprob.fit`, which grows it. NaN in x is a missing entry.

    Args:
        num_classes: K.
        depth: D, how many questions lead to a leaf at most; up to 16, in memory for 2^D leaves.
        min_leaf_weight: on both sides of a question, at least; anything positive where zero.
        min_gain: of a question, nats: more than this.
        smoothing: a, as how many examples of each class count in each leaf beforehand.
        max_bins: of a column, from 2 to 255: its values are told apart at so many quantiles only,
            so that few examples in a tail may share a bin with others. All where None.

    Returns:
        A Model; two of them with the same settings are equal.

    Raises:
        ValueError: for settings out of their ranges.

    Example:
        >>> model(3).variables.num_classes, model(3) == model(3, depth=6)
        (3, True)
    """
    check_settings(num_classes, depth, min_leaf_weight, min_gain, smoothing, max_bins)
    shape = {"num_classes": num_classes, "depth": depth}
    rules = {"min_leaf_weight": float(min_leaf_weight), "min_gain": float(min_gain)}
    prior = {"smoothing": float(smoothing)}
    return Model(
        name="Decision tree",
        variables=Variables.conditional(Classes(num_classes), x=MAY_MISS),
        init=Bind(init, **shape),
        log_prob=Bind(log_prob, **prior),
        objective=Likelihood(Bind(log_likelihood, **prior), smooth=False),
        predict=Predictions(classes=Bind(predict_log_proba, **prior), sample=Bind(sample, **prior)),
        routes=(Search(Bind(grow, max_bins=max_bins, **shape, **rules, **prior)),),
        words=REASONS,
    )


def of_columns(
    columns: Columns, y: Array, weights: Array, key: Array | None, **rules: Any
) -> Params:
    """A tree from sorted columns: what trees of one forest share.

    Args:
        columns: of `jaxprob.models.trees.columns_of`.
        y: (n,) int32 labels in 0..K-1.
        weights: (n,) c_i ≥ 0.
        key: with which the columns of each node are drawn, where not all are asked for.
        **rules: of `jaxprob.models.trees.grown`.

    Returns:
        Params.

    Example:
        >>> columns, y = columns_of(jnp.array([[1.0], [4.0]])), jnp.array([0, 1])
        >>> rules = dict(depth=1, min_leaf_weight=0.0, min_gain=0.0, max_features=None)
        >>> of_columns(columns, y, jnp.ones(2), None, num_classes=2, **rules).threshold.tolist()
        [2.5]
    """
    return Params(*grown(columns, y, weights, key, **rules))


_STATIC = "num_classes", "depth", "min_leaf_weight", "min_gain", "max_features", "max_bins"


@compiled(*_STATIC)
@partial(jax.jit, static_argnames=_STATIC)  # under `vmap`, too, one program
def _grow(
    x: Array,
    y: Array,
    weights: Array | None,
    key: Array | None,
    *,
    num_classes: int,
    max_features: int | None,
    max_bins: int | None,
    **rules: Any,
) -> Params:
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights.astype(x.dtype)
    key = jax.random.key(0) if key is None and max_features is not None else key
    own = {"num_classes": num_classes, "max_features": max_features, **rules}
    columns = columns_of(x, max_bins, num_classes=num_classes, depth=rules["depth"])
    return of_columns(columns, as_labels(y, num_classes), c, key, **own)
