"""Parameters of naive Bayes, and the sums that they follow from."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxprob.models.bayes.families import (
    Family,
)


class Params(NamedTuple):
    """What is fitted: `class_logits` (K,), and parameters of each block of features."""

    class_logits: Array
    features: tuple[Any, ...]


class Statistics(NamedTuple):
    """All that a fit needs to know of the examples: sums over each class."""

    weight: Array  # (K,) N
    features: tuple[Any, ...]


def canonical(params: Params, *, features: tuple[Family, ...]) -> Params:
    """Of the parameters with the same density, those whose logits sum to zero.

    Args:
        params: Params.
        features: families of blocks of columns.

    Returns:
        Params.

    Example:
        >>> params = Params(jnp.array([1.0, 3.0]), ())
        >>> canonical(params, features=()).class_logits.tolist()
        [-1.0, 1.0]
    """
    z = params.class_logits
    parts = zip(features, params.features, strict=True)
    return Params(z - jnp.mean(z), tuple(family.canonical(own) for family, own in parts))


def parameter_names(
    params: Params, feature_names: tuple[str, ...] | None, *, features: tuple[Family, ...]
) -> tuple[str, ...]:
    """A name for each parameter, in the order of `jax.flatten_util.ravel_pytree`.

    Args:
        params: of one fit.
        feature_names: of the columns of x, or None.
        features: families of blocks of columns.

    Returns:
        (p,), such as "class 0: x1 mean".

    Example:
        >>> from jaxprob.models import naive_bayes as nb
        >>> params = nb.init(None, jnp.zeros((1, 1)), num_classes=2, features=(nb.Bernoulli(),))
        >>> parameter_names(params, ("wet",), features=(nb.Bernoulli(),))
        ('class 0', 'class 1', 'class 0: wet', 'class 1: wet')
    """
    classes = [f"class {k}" for k in range(len(params.class_logits))]
    names = list(classes)
    for family, part in zip(features, params.features, strict=True):
        columns = family.columns or range(family.width(part))
        own = [feature_names[j] if feature_names else f"x{j}" for j in columns]
        for leaf, columns_of_leaf in zip(part, family.names(own), strict=True):
            rows = [""] if jnp.ndim(leaf) == 1 else [f"{name}: " for name in classes]
            names += [f"{row}{column}" for row in rows for column in columns_of_leaf]
    return tuple(names)
