r"""Random forests: the mean of decision trees that were grown on resampled examples.

The model: T trees, each with its class probabilities p_t(y|x) (equation 3.23), and

    p(y=k|x) = 1/T Σ_t p_t(y=k|x)                                                         (3.27)

Each tree is grown (3.25) on a bootstrap sample, and each of its nodes may ask for a few columns
only, drawn for it: trees that differ have a mean that varies less than any of them. The mean is
also less sure than they are, so less is added to the leaves than to those of a single tree.

With weights c_i, a bootstrap sample is drawn from the examples of positive weight, as many as there
are, all with the same probability; example i then has weight c_i times how often it was drawn. So
examples without weight are as if they were not there, and a weight is what it is in every other
model: how much an example counts, not how probable it is to be drawn.

An example that a tree was not grown on, for 1/e of all trees, tells how good that tree is. The mean
over these trees alone is the example's out-of-bag probability, and needs no other data:

    p_oob(y_i|x_i) = mean of p_t(y_i|x_i) over t with m_ti = 0                            (3.28)

with m_ti how often tree t has drawn example i. They are drawn again, from the seed; the weights in
the leaves of a tree tell whether they are those that it was grown on.

Source: equations 3.27-3.28 of the project's mathematics; Breiman, Bagging predictors, Machine
Learning 24, 1996, and Random forests, Machine Learning 45, 2001.
"""

import math
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
from jaxprob.models.trees import columns_of, decision_tree
from jaxprob.models.trees.decision_tree import (
    MAY_MISS,
    REASONS,
    Params,
    check_max_features,
    check_settings,
    log_of_shares,
    of_columns,
    status_of,
    too_light,
    weighted,
)
from jaxprob.models.trees.out_of_bag import OutOfBag as OutOfBag
from jaxprob.models.trees.out_of_bag import bootstrap_key, own, proba
from jaxprob.models.trees.out_of_bag import draws as draws
from jaxprob.models.trees.out_of_bag import out_of_bag as out_of_bag
from jaxprob.models.trees.parameters import as_labels
from jaxprob.models.trees.settings import FOREST_SMOOTHING, check_forest
from jaxprob.runtime.compilation import compiled

SMOOTHING = FOREST_SMOOTHING
_AT_A_TIME = 16  # trees that an accelerator grows side by side


def init(
    key: Array | None,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    num_classes: int,
    depth: int = 6,
    num_trees: int = 100,
) -> Params:
    """Trees that ask nothing: the classes are as likely as they are frequent.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating; only its dtype matters.
        y: (n,) labels in 0..K-1; none of any where None.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        depth: D.
        num_trees: T.

    Returns:
        Params with T in front.

    Example:
        >>> x, y = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
        >>> init(None, x, y, num_classes=2, num_trees=5).counts.shape
        (5, 127, 2)
    """
    one = decision_tree.init(key, x, y, weights, num_classes=num_classes, depth=depth)
    return jax.tree.map(lambda a: jnp.broadcast_to(a[None], (num_trees, *a.shape)), one)


@compiled()
def log_prob(params: Params, x: Array, y: Array, *, smoothing: float = SMOOTHING) -> Array:
    """The log-probability of the label of one example (equation 3.27).

    Args:
        params: Params with T in front.
        x: (d,) floating, NaN where an entry is missing.
        y: () label in 0..K-1, any integer dtype.
        smoothing: a of each leaf.

    Returns:
        (), nats.

    Example:
        >>> x, y = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
        >>> params = init(None, x, y, num_classes=2, num_trees=5)
        >>> round(float(jnp.exp(log_prob(params, x[0], 1, smoothing=0.0))), 4)
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
    """The log-likelihood Σ_i c_i log p(y_i|x_i) of n examples (equation 3.27).

    Args:
        params: Params with T in front.
        x: (n, d) floating, NaN where an entry is missing.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        smoothing: a of each leaf.

    Returns:
        (), nats.

    Example:
        >>> x, y = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
        >>> params = init(None, x, y, num_classes=2, num_trees=5)
        >>> round(float(log_likelihood(params, x[:1], y[1:2], smoothing=0.0)), 4)
        -0.4055
    """
    log_p = predict_log_proba(params, x, smoothing=smoothing)
    return weighted(own(log_p, y), weights)


@compiled()
def predict_log_proba(params: Params, x: Array, *, smoothing: float = SMOOTHING) -> Array:
    """The log-probabilities of all classes for each example (equation 3.27).

    Args:
        params: Params with T in front.
        x: (n, d) floating, NaN where an entry is missing.
        smoothing: a of each leaf.

    Returns:
        (n, K), nats.

    Example:
        >>> params = init(None, jnp.zeros((3, 2)), num_classes=2, num_trees=5)
        >>> jnp.exp(predict_log_proba(params, jnp.zeros((1, 2)))).tolist()
        [[0.5, 0.5]]
    """
    num_trees = params.feature.shape[0]

    def add(so_far: Array, tree: Params) -> tuple[Array, None]:
        return so_far + proba(tree, x, smoothing), None

    zero = jnp.zeros((x.shape[0], params.counts.shape[-1]), x.dtype)
    return log_of_shares(jax.lax.scan(add, zero, params)[0] / num_trees)


@compiled()
def sample(params: Params, key: Array, x: Array, *, smoothing: float = SMOOTHING) -> Array:
    """Draw labels y_i from the mean of the trees' probabilities (equation 3.27).

    Args:
        params: Params with T in front.
        key: a typed PRNG key.
        x: (n, d) floating, NaN where an entry is missing.
        smoothing: a of each leaf.

    Returns:
        (n,) int32 in 0..K-1.

    Example:
        >>> x, y = jnp.zeros((3, 2)), jnp.array([1, 1, 1])
        >>> params = init(None, x, y, num_classes=2, num_trees=5)
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
    num_trees: int = 100,
    depth: int = 6,
    max_features: int | None = None,
    bootstrap: bool = True,
    seed: int = 0,
    min_leaf_weight: float = 0.0,
    min_gain: float = 0.0,
    smoothing: float = SMOOTHING,
    max_bins: int | None = None,
) -> Chosen:
    """Grow all trees, from columns that are sorted once.

    On a CPU one tree is grown after the other, where it stays in the cache; elsewhere sixteen at a
    time.

    Args:
        x: (n, d) floating, NaN where an entry is missing.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        num_trees: T.
        depth: D.
        max_features: how many columns, drawn for each node, may be asked for; √d where None,
            rounded down.
        bootstrap: whether each tree is grown on a bootstrap sample, or on all examples.
        seed: of everything random.
        min_leaf_weight: on both sides of a question, at least; anything positive where zero.
        min_gain: of a question, nats: more than this.
        smoothing: a, of the probabilities of the leaves; only the status depends on it.
        max_bins: of a column, from 2 to 255: its values are told apart at so many quantiles only.

    Returns:
        Chosen of Params with T in front, with status INVALID_INPUT where the weights sum to one or
        less and a setting counts examples, CLASS_ABSENT where a class has no weight and nothing is
        smoothed, CONVERGED otherwise.

    Raises:
        ValueError: for settings out of their ranges.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]] * 5), jnp.array([0, 0, 1, 1] * 5)
        >>> params = grow(x, y, num_classes=2, num_trees=10, depth=1).params
        >>> [round(p, 2) for p in jnp.exp(predict_log_proba(params, jnp.zeros((1, 1))))[0].tolist()]
        [0.99, 0.01]
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    check_settings(num_classes, depth, min_leaf_weight, min_gain, smoothing, max_bins)
    check_forest(num_trees, seed, bootstrap)
    d = x.shape[-1]
    max_features = max(1, math.isqrt(d)) if max_features is None else max_features
    check_max_features(max_features, d)
    params = _grow(
        x,
        y,
        weights,
        jax.random.key(seed),
        num_classes=num_classes,
        num_trees=num_trees,
        bootstrap=bootstrap,
        max_bins=max_bins,
        depth=depth,
        max_features=max_features,
        min_leaf_weight=float(min_leaf_weight),
        min_gain=float(min_gain),
    )
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    every = jnp.zeros(num_classes, x.dtype).at[as_labels(y, num_classes)].add(c)
    unknown = jnp.asarray(jnp.inf, x.dtype)
    is_light = too_light(weights, smoothing, min_leaf_weight, min_gain)
    return Chosen(params, status_of(every, smoothing, is_light), unknown)


def feature_gain(params: Params, num_features: int) -> Array:
    """What the questions of each feature gain together, in the mean over trees (equation 3.25).

    Args:
        params: Params with T in front.
        num_features: d.

    Returns:
        (d,), nats: of the examples that the trees were grown on.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]] * 5), jnp.array([0, 0, 1, 1] * 5)
        >>> params = grow(x, y, num_classes=2, num_trees=10, depth=1, bootstrap=False).params
        >>> feature_gain(params, 1).round(2).tolist()
        [13.859999656677246]
    """
    each = jax.vmap(partial(decision_tree.feature_gain, num_features=num_features))(params)
    return jnp.mean(each, axis=0)


def model(
    num_classes: int,
    num_trees: int = 100,
    depth: int = 6,
    *,
    max_features: int | None = None,
    bootstrap: bool = True,
    seed: int = 0,
    min_leaf_weight: float = 0.0,
    min_gain: float = 0.0,
    smoothing: float = SMOOTHING,
    max_bins: int | None = None,
) -> Model:
    """A random forest for `jaxprob.fit`, which grows it. NaN in x is a missing entry.

    Args:
        num_classes: K.
        num_trees: T.
        depth: D, how many questions lead to a leaf at most; up to 16.
        max_features: how many columns, drawn for each node, may be asked for; √d where None.
        bootstrap: whether each tree is grown on a bootstrap sample, or on all examples.
        seed: of everything random.
        min_leaf_weight: on both sides of a question, at least; anything positive where zero.
        min_gain: of a question, nats: more than this.
        smoothing: a, as how many examples of each class count in each leaf beforehand.
        max_bins: of a column, from 2 to 255: its values are told apart at so many quantiles only.

    Returns:
        A Model; two of them with the same settings are equal.

    Raises:
        ValueError: for settings out of their ranges.

    Example:
        >>> model(3).variables.num_classes, model(3) == model(3, num_trees=100)
        (3, True)
    """
    check_settings(num_classes, depth, min_leaf_weight, min_gain, smoothing, max_bins)
    check_forest(num_trees, seed, bootstrap)
    check_max_features(max_features)
    shape = {"num_classes": num_classes, "depth": depth, "num_trees": num_trees}
    rules = {
        "max_features": max_features,
        "bootstrap": bootstrap,
        "seed": seed,
        "min_leaf_weight": float(min_leaf_weight),
        "min_gain": float(min_gain),
        "max_bins": max_bins,
    }
    prior = {"smoothing": float(smoothing)}
    return Model(
        name="Random forest",
        variables=Variables.conditional(Classes(num_classes), x=MAY_MISS),
        init=Bind(init, **shape),
        log_prob=Bind(log_prob, **prior),
        objective=Likelihood(Bind(log_likelihood, **prior), smooth=False),
        predict=Predictions(classes=Bind(predict_log_proba, **prior), sample=Bind(sample, **prior)),
        routes=(Search(Bind(grow, **shape, **rules, **prior)),),
        words=REASONS,
    )


_STATIC = (
    *("num_classes", "num_trees", "bootstrap", "max_bins", "depth", "max_features"),
    *("min_leaf_weight", "min_gain"),
)


@compiled(*_STATIC)
@partial(jax.jit, static_argnames=_STATIC)  # under `vmap`, too, one program
def _grow(
    x: Array,
    y: Array,
    weights: Array | None,
    key: Array,
    *,
    num_classes: int,
    num_trees: int,
    bootstrap: bool,
    max_bins: int | None,
    **rules: Any,
) -> Params:
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights.astype(x.dtype)
    depth, y = rules["depth"], as_labels(y, num_classes)
    columns = columns_of(x, max_bins, num_classes=num_classes, depth=depth, many=True)

    def one(key: Array) -> Params:
        own = c * draws(bootstrap_key(key), c) if bootstrap else c
        return of_columns(columns, y, own, key, num_classes=num_classes, **rules)

    size = None if jax.default_backend() == "cpu" else min(_AT_A_TIME, num_trees)
    return jax.lax.map(one, jax.random.split(key, num_trees), batch_size=size)
