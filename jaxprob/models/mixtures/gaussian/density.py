"""The densities of a Gaussian mixture's components, and passes over examples in blocks."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxprob.models.mixtures.gaussian.parameters import (
    Params,
    factor_diagonals,
    factor_matrices,
    is_diagonal,
)
from jaxprob.numerics import log_softmax
from jaxprob.numerics.components import (
    conditional_moments,
    mahalanobis,
    over_blocks,
)
from jaxprob.numerics.passes import at_a_time

_BLOCK_ELEMENTS = 25_000  # examples × components that are looked at at a time


def log_joint(params: Params, x: Array, missing: bool) -> Array:
    """(K, n) log π_k + log N(x_i; μ_k, Σ_k)."""
    log_weights = log_softmax(params.logits)[:, None]
    if missing:
        half_log_det, squares, *_ = conditional_moments(x, params.means, factor_matrices(params))
        observed = jnp.sum(~jnp.isnan(x), axis=1).astype(x.dtype)[None, :]
    else:
        factor = factor_diagonals(params) if is_diagonal(params) else factor_matrices(params)
        squares = mahalanobis(x, params.means, factor)
        half_log_det = -jnp.sum(jnp.broadcast_to(params.log_scale, params.means.shape), axis=1)
        half_log_det, observed = half_log_det[:, None], x.shape[1]
    constant = math.log(2 * math.pi) / 2 * observed
    return log_weights + half_log_det - constant - squares / 2


def total_over_blocks(
    fn: Callable[[Array, Array], Any],
    params: Params,
    x: Array,
    weights: Array | None,
    missing: bool,
) -> Any:
    """The sum of a function of examples and weights over blocks that stay in the cache."""
    each = len(params.logits) * (x.shape[1] ** 2 if missing else 1)
    return over_blocks(fn, x, weights, max(1, at_a_time(_BLOCK_ELEMENTS) // each))
