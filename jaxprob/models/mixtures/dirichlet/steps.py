"""Coordinate ascent for Dirichlet-process mixtures: sums of what is expected, and their maximum."""

import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Status,
)
from jaxprob.models.mixtures import gaussian_mixture
from jaxprob.models.mixtures.dirichlet import normal_wishart, sticks
from jaxprob.models.mixtures.dirichlet.density import expected, total_over_blocks
from jaxprob.models.mixtures.dirichlet.parameters import Params, places
from jaxprob.models.mixtures.dirichlet.priors import DEFAULT, BaseMeasure, Moments
from jaxprob.models.mixtures.gaussian_mixture import Statistics
from jaxprob.numerics.components import outer_moments, shares, weighted_total
from jaxprob.runtime.compilation import compiled


@compiled()
def statistics(params: Params, x: Array, weights: Array | None = None) -> tuple[Array, Statistics]:
    """`bound`, and the sums N, f, S about the components' means; those of batches add up.

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        () nats, and Statistics.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [2.0]])
        >>> statistics(dm.init(None, x, num_components=1), x)[1].weight.tolist()
        [2.0]
    """

    def of_block(x: Array, c: Array) -> tuple[Array, Statistics]:
        member, each = shares(expected(params, x))
        member = member if weights is None else member * c[None, :]
        first, second = outer_moments(member, x, params.means)
        return weighted_total(c, each), Statistics(jnp.sum(member, axis=1), first, second)

    return total_over_blocks(of_block, params, x, weights)


def grad_of_statistics(params: Params, known: Statistics) -> Params:
    """The gradient of `bound`, derived by hand: see `normal_wishart` and `sticks`.

    Args:
        params: Params with which the sums were made.
        known: Statistics.

    Returns:
        Params, nats per unit of each parameter.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [2.0]])
        >>> params = dm.init(None, x, num_components=1, prior=BaseMeasure(0.0, scale=1.0))
        >>> slope = grad_of_statistics(params, statistics(params, x)[1])
        >>> round(float(slope.components.means[0, 0]), 4)
        0.5455
    """
    return Params(
        sticks.grad_expected(params.sticks, known.weight[places(params.components.log_count)]),
        jnp.zeros_like(params.concentration),
        normal_wishart.grad_expected(params.components, *known),
    )


def maximise(
    params: Params,
    known: Statistics,
    moments: Moments | None = None,
    *,
    prior: BaseMeasure = DEFAULT,
    alpha: float | None = None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
) -> tuple[Params, Array]:
    """A step of coordinate ascent: sticks, then α, and the components (equations D.2, D.8).

    Args:
        params: Params with which the sums were made.
        known: Statistics.
        moments: of all examples, where the prior follows them.
        prior: of the components.
        alpha: α, or None where it is learned.
        alpha_prior: s₁ and s₂.

    Returns:
        Params, and () int32: COLLAPSED, or MAX_STEPS where there is something to go on with.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [3.0]])
        >>> params = dm.init(None, x, num_components=1)
        >>> maximise(params, statistics(params, x)[1], dm.priors.moments(x))[0].means.tolist()
        [[1.5]]
    """
    components, regular = normal_wishart.update(prior, params.means, *known, moments)
    by_place = known.weight[places(components.log_count)]
    broken = sticks.update(by_place, sticks.mean_alpha(params.concentration, alpha))
    of_alpha = params.concentration
    if alpha is None:
        of_alpha = sticks.update_concentration(broken, alpha_prior)
    status = jnp.where(jnp.all(regular), jnp.int32(Status.MAX_STEPS), jnp.int32(Status.COLLAPSED))
    return Params(broken, of_alpha, components), status


def about(params: Params, known: Statistics, new: Params) -> Statistics:
    """The same sums about the means of other parameters.

    Args:
        params: Params with which the sums were made.
        known: Statistics.
        new: Params.

    Returns:
        Statistics.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [3.0]])
        >>> params = dm.init(None, x, num_components=1, prior=BaseMeasure(0.0, scale=1.0))
        >>> about(params, statistics(params, x)[1], params).first.tolist()
        [[1.0]]
    """
    return gaussian_mixture.about(params.components, known, new.components)  # pyright: ignore[reportArgumentType]
