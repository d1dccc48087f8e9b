"""Parameters of a Dirichlet-process mixture's approximate posterior."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.models.mixtures.dirichlet import sticks
from jaxprob.models.mixtures.dirichlet.normal_wishart import Components


class Params(NamedTuple):
    """What is fitted: the densities q of equation D.11.

    Attributes:
        sticks: (T - 1, 2) log a, log b of v ~ Beta(a, b), in the order in which they are broken.
        concentration: (2,) log w₁, log w₂ of α ~ Gamma(w₁, w₂); (0,) where α is a number.
        components: normal-inverse-Wishart densities of means and precisions.

    The properties are what people want to see; for many fits with the lanes in front.
    """

    sticks: Array
    concentration: Array
    components: Components

    @property
    def weights(self) -> Array:
        """The expected probabilities E[π] (..., T) of the components."""
        return jnp.exp(of_components(sticks.log_expected_weights(self.sticks), self))

    @property
    def means(self) -> Array:
        """The expected means (..., T, d)."""
        return self.components.means

    @property
    def covariances(self) -> Array:
        """The inverse of the expected precisions (..., T, d, d)."""
        return self.components.covariances

    @property
    def alpha(self) -> Array:
        """The expected α (...), where it is learned."""
        if self.concentration.shape[-1] == 0:
            raise ValueError("alpha: it is a number of the model's, and has not been learned")
        return jnp.exp(self.concentration[..., 0] - self.concentration[..., 1])


def parameter_names(params: Params, feature_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """A name for each parameter, in the order of `jax.flatten_util.ravel_pytree`.

    Args:
        params: of one fit.
        feature_names: of the columns of x, or None.

    Returns:
        (p,), such as "component 0: x1 mean".

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> parameter_names(dm.init(None, jnp.zeros((2, 1)), num_components=1), None)[2]
        'component 0: x0 mean'
    """
    t, d = params.means.shape
    x = feature_names or tuple(f"x{j}" for j in range(d))
    every = [f"component {k}: " for k in range(t)]
    pairs = [f"{x[e]} on {x[j]}" for e, j in zip(*np.tril_indices(d, -1), strict=True)]
    return (
        *(f"stick {k}: log {name}" for k in range(t - 1) for name in ("taken", "left")),
        *(f"alpha: log {name}" for name in ("shape", "rate")[: len(params.concentration)]),
        *(f"{name}{column} mean" for name in every for column in x),
        *(f"{name}log count" for name in every),
        *(f"{name}log degrees" for name in every),
        *(f"{name}{column} log scale" for name in every for column in x),
        *(f"{name}{pair}" for name in every for pair in pairs),
    )


def places(log_count: Array) -> Array:
    """(..., T) which component's stick is broken when: the larger ones first, the last one last."""
    last = jnp.full_like(log_count[..., -1:], -jnp.inf)
    return jnp.argsort(-jnp.concatenate([log_count[..., :-1], last], axis=-1), axis=-1)


def of_components(by_place: Array, params: Params) -> Array:
    """(..., T) what belongs to sticks, for the components that have them."""
    place = jnp.argsort(places(params.components.log_count), axis=-1)
    return jnp.take_along_axis(by_place, place, axis=-1)
