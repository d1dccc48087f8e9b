"""Where the fit of a Gaussian mixture starts: at examples far from each other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.mixtures.gaussian.parameters import Params, diagonal, of_covariance, or_one
from jaxprob.models.mixtures.gaussian.sums import Statistics, about_new_means, mean_and_variances
from jaxprob.numerics import log_softmax
from jaxprob.numerics.components import (
    mahalanobis,
    outer_moments,
)
from jaxprob.numerics.seeding import spread_out

_LEAST_SPREAD = 1e-3  # of the start, relative to that around the centers


_LEAST_SHARE = 1e-2  # of a component at the start, relative to an equal one


class _First(NamedTuple):
    """Examples to start from, and what to measure distances from them by."""

    centers: Array  # (K, d)
    x: Array  # (n, d) without gaps
    weights: Array  # (n,)
    variances: Array  # (d,) of the columns, ones for columns that are constant


def centers_for(
    key: Array | None,
    x: Array,
    weights: Array | None,
    num: int,
    covariance: str,
    missing: bool,
    start: str,
) -> _First:
    """Examples to start from, far from each other in units of the columns' standard deviations."""
    key = jax.random.key(0) if key is None else key
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    mean, variances = mean_and_variances(x, weights, missing)
    x = jnp.where(jnp.isnan(x), mean[None, :], x) if missing else x
    if covariance == "spherical":  # columns have one unit
        variances = jnp.full_like(variances, jnp.mean(variances))
    variances = or_one(variances)
    if start == "k-means++":
        centers = spread_out(key, x, c, num, jnp.sqrt(variances))
    else:
        u = jax.random.uniform(key, c.shape, x.dtype)
        order = jnp.argsort(jnp.where(c > 0, u, 2.0))
        centers = x[jnp.resize(order[:num], (num,))]
    return _First(centers, x, c, variances)


def around(first: _First, active: Array, covariance: str) -> Params:
    """What is nearest to each of the first centers, with the covariance within all of them."""
    centers, x, c, variances = first
    index = jnp.arange(len(centers))
    scale = jnp.broadcast_to(1 / jnp.sqrt(variances), centers.shape)
    distance = mahalanobis(x, centers, scale)
    nearest = jnp.argmin(jnp.where(index[:, None] < active, distance, jnp.inf), axis=0)
    member = jnp.where(nearest[None, :] == index[:, None], c[None, :], 0.0)
    sums = Statistics(jnp.sum(member, axis=1), *outer_moments(member, x, centers))
    weight = or_one(jnp.sum(c))
    within = jnp.sum(about_new_means(sums), axis=0) / weight
    spread = jnp.where(diagonal(within) > 0, diagonal(within), variances)
    within += jnp.diag(_LEAST_SPREAD * spread)
    least = _LEAST_SHARE * weight / active.astype(x.dtype)  # none dies at once
    logits = jnp.where(index < active, jnp.log(sums.weight + least), -jnp.inf)
    means = centers + sums.first / or_one(sums.weight)[:, None]
    return of_covariance(log_softmax(logits), means, within[None], covariance)
