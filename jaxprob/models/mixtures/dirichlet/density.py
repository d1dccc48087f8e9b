"""The densities of a Dirichlet-process mixture's components."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jaxprob.models.mixtures.dirichlet import normal_wishart, sticks
from jaxprob.models.mixtures.dirichlet.parameters import Params, of_components
from jaxprob.numerics.components import over_blocks
from jaxprob.numerics.passes import at_a_time

_BLOCK_ELEMENTS = 25_000  # examples × components that are looked at at a time


def expected(params: Params, x: Array) -> Array:
    """(T, n) ρ of equation D.10."""
    log_weights = of_components(sticks.expected_log_weights(params.sticks), params)
    return log_weights[:, None] + normal_wishart.expected_log_density(params.components, x)


def log_predictive(params: Params, x: Array) -> Array:
    """(T, n) the terms of equation D.12."""
    log_weights = of_components(sticks.log_expected_weights(params.sticks), params)
    return log_weights[:, None] + normal_wishart.log_predictive(params.components, x)


def total_over_blocks(
    fn: Callable[[Array, Array], Any], params: Params, x: Array, weights: Array | None
) -> Any:
    """The sum of a function of examples and weights over blocks that stay in the cache."""
    block = max(1, at_a_time(_BLOCK_ELEMENTS) // len(params.means))
    return over_blocks(fn, x, weights, block)
