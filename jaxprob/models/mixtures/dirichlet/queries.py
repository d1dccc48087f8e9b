"""What the approximate posterior of a Dirichlet-process mixture says."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxprob.data.arrays import check_columns
from jaxprob.models.mixtures.dirichlet import normal_wishart
from jaxprob.models.mixtures.dirichlet.density import expected
from jaxprob.models.mixtures.dirichlet.parameters import Params
from jaxprob.models.mixtures.dirichlet.steps import statistics
from jaxprob.numerics import softmax
from jaxprob.runtime.compilation import compiled


@compiled()
def responsibilities(params: Params, x: Array) -> Array:
    """The probabilities r_k(x) that examples belong to each component (equation D.10).

    Args:
        params: Params.
        x: (n, d) floating.

    Returns:
        (n, T), with rows that add up to one.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [2.0]])
        >>> responsibilities(dm.init(None, x, num_components=1), x).tolist()
        [[1.0], [1.0]]
    """
    return softmax(expected(params, x).T)


def marginal(params: Params, columns: Sequence[int]) -> Params:
    """What is fitted of some of the columns.

    Args:
        params: Params.
        columns: which, in this order.

    Returns:
        Params, whose density is the marginal one.

    Raises:
        ValueError: where a column does not exist or is named twice.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> params = dm.init(None, jnp.array([[0.0], [2.0]]), num_components=1, alpha=1.0)
        >>> marginal(params, [0]).means.tolist()
        [[1.0]]
    """
    index = check_columns("columns", columns, params.means.shape[1])
    return params._replace(components=normal_wishart.marginal(params.components, index))


def expected_counts(params: Params, x: Array, weights: Array | None = None) -> Array:
    """The numbers N_k of examples that each component is expected to have.

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        (T,), which add up to the sum of the weights.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [2.0]])
        >>> expected_counts(dm.init(None, x, num_components=1), x).tolist()
        [2.0]
    """
    return statistics(params, x, weights)[1].weight


def num_used(
    params: Params, x: Array, weights: Array | None = None, *, threshold: float = 1.0
) -> Array:
    """The number of components in use: those with N_k of at least a threshold.

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        threshold: in examples; one where not given.

    Returns:
        () int32.

    Raises:
        ValueError: for a threshold that is no positive number, or one that no component can reach
            since all weights together do not.

    Example:
        >>> from jaxprob.models import dirichlet_mixture as dm
        >>> x = jnp.array([[0.0], [9.0]])
        >>> int(num_used(dm.init(None, x, num_components=2), x, threshold=0.9))
        2
    """
    if not threshold > 0:
        raise ValueError(f"threshold: expected a positive number of examples, got {threshold}")
    if weights is not None and not isinstance(weights, Tracer):
        most = float(jnp.sum(weights))
        if not threshold < most:
            raise ValueError(
                f"threshold: expected less than the {most:g} examples that the weights sum to, got "
                f"{threshold}; jp.data.normalised_weights(weights) sums to the number of examples"
            )
    return jnp.sum(expected_counts(params, x, weights) >= threshold, dtype=jnp.int32)
