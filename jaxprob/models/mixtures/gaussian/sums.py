"""What the steps of a Gaussian mixture need to know of the examples."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxprob.models.mixtures.gaussian.parameters import or_one
from jaxprob.numerics.components import (
    overall_moments,
    squared_moments,
)


class Statistics(NamedTuple):
    """All that a step needs to know of the examples, about the means that they were made with."""

    weight: Array  # (K,) N
    first: Array  # (K, d) m
    second: Array  # (K, d, d) S, or (K, d) its diagonal


def about_new_means(known: Statistics) -> Array:
    """(K, d, d), or (K, d): S - m mᵀ / N, the scatter about the means that follow from the sums."""
    count = or_one(known.weight)[:, None]
    shift = known.first / count
    if known.second.ndim == 2:
        return known.second - known.first * shift
    return known.second - known.first[:, :, None] * shift[:, None, :]


def mean_and_variances(x: Array, weights: Array | None, missing: bool) -> tuple[Array, Array]:
    """(d,) each, of the entries that were observed."""
    if not missing:
        weight, mean, second = overall_moments(x, weights, squared_moments)
        return mean, second / or_one(weight)
    seen = ~jnp.isnan(x)
    c = seen.astype(x.dtype) if weights is None else jnp.where(seen, weights[:, None], 0.0)
    count = or_one(jnp.sum(c, axis=0))
    near = jnp.sum(c * jnp.where(seen, x, 0.0), axis=0) / count
    away = jnp.where(seen, x - near[None, :], 0.0)
    shift = jnp.sum(c * away, axis=0) / count
    return near + shift, jnp.sum(c * (away - shift[None, :]) ** 2, axis=0) / count
