"""What trees and forests are asked for, checked, and what a status means for them."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Features,
    Status,
)
from jaxprob.contract.settings import number, whole_number
from jaxprob.models.trees import MOST_BINS
from jaxprob.numerics import total

MOST_LEVELS = 16


SMOOTHING = 0.5
FOREST_SMOOTHING = 0.1


def check_settings(
    num_classes: Any,
    depth: Any,
    min_leaf_weight: Any,
    min_gain: Any,
    smoothing: Any,
    max_bins: Any,
) -> None:
    """Refuse settings that no tree has.

    Args:
        num_classes: K.
        depth: D.
        min_leaf_weight: on both sides of a question.
        min_gain: of a question.
        smoothing: a.
        max_bins: of a column, or None.

    Raises:
        ValueError: naming the setting.

    Example:
        >>> check_settings(2, 6, 1.0, 0.0, 0.5, 255)
    """
    whole_number("num_classes", num_classes, least=2)
    whole_number("depth", depth, least=1, most=MOST_LEVELS)
    whole_number("max_bins", MOST_BINS if max_bins is None else max_bins, least=2, most=MOST_BINS)
    numbers = (
        ("min_leaf_weight", min_leaf_weight),
        ("min_gain", min_gain),
        ("smoothing", smoothing),
    )
    for name, value in numbers:
        number(name, value)


def check_max_features(max_features: Any, d: float = math.inf) -> None:
    """Refuse a number of columns that no node can choose from.

    Args:
        max_features: an integer, or None for any.
        d: how many columns there are.

    Raises:
        ValueError: for fewer than one, or more than there are.

    Example:
        >>> check_max_features(None)
    """
    if max_features is not None:
        whole_number("max_features", max_features, least=1)
        if max_features > d:
            raise ValueError(
                f"max_features: expected at most the {d} columns of x, got {max_features}"
            )


def weighted(each: Array, weights: Array | None) -> Array:
    """Σ_i c_i v_i, whatever v is where c is zero.

    Args:
        each: (n,) v.
        weights: (n,) c; ones where None.

    Returns:
        ().

    Example:
        >>> float(weighted(jnp.array([-jnp.inf, 2.0]), jnp.array([0.0, 1.0])))
        2.0
    """
    if weights is None:
        return total(each)
    return total(jnp.where(weights > 0, weights * each, 0.0))


def too_light(weights: Array | None, *settings: float) -> Array:
    """Whether examples count for so little together that settings in examples make no sense.

    Args:
        weights: (n,) c_i ≥ 0; one each where None.
        *settings: that count examples, or nats of all of them; it does not matter if all are zero.

    Returns:
        () bool: whether several examples sum to one or less (to rounding), or one to less.

    Example:
        >>> [bool(too_light(jnp.array(c), 0.5)) for c in ([0.5, 0.5], [0.0, 1.0], [1.0, 0.5])]
        [True, False, False]
    """
    if weights is None or not any(settings):
        return jnp.zeros((), bool)
    total, slack = jnp.sum(weights), rounding_of(weights.dtype)
    most = jnp.where(jnp.sum(weights > 0) > 1, 1 + slack, 1 - slack)
    return (total > 0) & (total <= most)


def status_of(counts: Array, smoothing: float, is_light: Array | bool = False) -> Array:
    """What became of a tree, from the weights of the classes at its root.

    Args:
        counts: (K,).
        smoothing: a.
        is_light: () what `too_light` says.

    Returns:
        () int32, a Status.

    Example:
        >>> Status(int(status_of(jnp.array([1.0, 0.0]), 0.0))).name
        'CLASS_ABSENT'
    """
    absent = jnp.any(counts <= 0) & (smoothing == 0)
    status = jnp.where(absent, jnp.int32(Status.CLASS_ABSENT), jnp.int32(Status.CONVERGED))
    return jnp.where(is_light, jnp.int32(Status.INVALID_INPUT), status)


def _any(x: Any, xp: Any) -> Any:
    """() true: that entries are finite or missing is seen to by the caller."""
    del x
    return xp.ones((), bool)


def _expected(x: Any, xp: Any) -> str:
    """Never asked for."""
    del x, xp
    return "expected finite numbers or NaN"


MAY_MISS = Features(_any, _expected, missing=True)


REMEDY = "scale them, such as with jaxprob.data.normalised_weights"


REASONS = (
    (Status.CLASS_ABSENT, "a class has no example of positive weight; add smoothing, or drop it"),
    (
        Status.INVALID_INPUT,
        "labels, weights or features are out of their range, or the weights sum to one example or "
        f"less, beside which smoothing, min_leaf_weight and min_gain make no sense: {REMEDY}, or "
        "set these to 0",
    ),
)


def rounding_of(dtype: Any) -> float:
    """What a sum of weights that should be one may be off by."""
    return float(jnp.finfo(dtype).eps) ** 0.5


def check_forest(num_trees: Any, seed: Any, bootstrap: Any) -> None:
    """Refuse settings that no forest has.

    Args:
        num_trees: T.
        seed: of everything random.
        bootstrap: whether trees are grown on bootstrap samples.

    Raises:
        ValueError: for fewer than one tree, and a negative seed.
        TypeError: for a `bootstrap` that is no bool.

    Example:
        >>> check_forest(100, 0, True)
    """
    whole_number("num_trees", num_trees, least=1)
    whole_number("seed", seed, least=0)
    if not isinstance(bootstrap, bool):
        raise TypeError(f"bootstrap: expected True or False, got {bootstrap!r}")
