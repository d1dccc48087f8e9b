"""What a fitted Gaussian mixture says of entries that were not observed."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.data.arrays import check_columns
from jaxprob.models.mixtures.gaussian.density import log_joint
from jaxprob.models.mixtures.gaussian.parameters import (
    Params,
    factor_matrices,
    is_diagonal,
    of_covariance,
)
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import (
    conditional_moments,
    inverse_factor,
    shares,
)
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled


@compiled()
def fill_in(params: Params, x: Array) -> Array:
    """The examples, with what the mixture expects of the entries that are missing (equation 3.13).

    Args:
        params: Params.
        x: (n, d) floating, NaN where an entry was not observed.

    Returns:
        (n, d), in which observed entries are as they were.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.array([[0.0, 5.0]]), jnp.zeros((1, 2)),
        ...                 jnp.zeros((1, 1)))
        >>> fill_in(params, jnp.array([[1.0, jnp.nan]])).tolist()
        [[1.0, 5.0]]
    """
    *_, away, _ = conditional_moments(x, params.means, factor_matrices(params))
    member, _ = shares(log_joint(params, x, missing=True))
    expected = jnp.sum(member[:, None] * (params.means[:, :, None] + away), axis=0)
    return jnp.where(jnp.isnan(x), expected.T, x)


def marginal(params: Params, columns: Sequence[int]) -> Params:
    """The mixture that some of the columns have.

    Args:
        params: Params.
        columns: which, in this order.

    Returns:
        Params of a mixture with full covariances, or diagonal ones if these are.

    Example:
        >>> params = Params(jnp.zeros(1), jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)),
        ...                 jnp.zeros((1, 1)))
        >>> marginal(params, [1]).means.tolist()
        [[2.0]]
    """
    index = check_columns("columns", columns, params.means.shape[1])
    return _marginal(params, columns=tuple(index.tolist()))


@compiled("columns")
def _marginal(params: Params, *, columns: tuple[int, ...]) -> Params:
    index = np.array(columns)
    means = params.means[:, index]
    if is_diagonal(params):
        log_scale = jnp.broadcast_to(params.log_scale, params.means.shape)[:, index]
        return Params(params.logits, means, log_scale, params.lower)
    covariance = params.covariances[:, index[:, None], index[None, :]]
    return of_covariance(params.logits, means, covariance, "full")


def conditional(params: Params, columns: Sequence[int], values: Array) -> Params:
    """The mixture that the other columns have, given some: p(x_a | x_b) (equation 3.13).

    Args:
        params: Params.
        columns: b, those that are given.
        values: (len(b),) what they are.

    Returns:
        Params of a mixture of the columns that are not given, in their order.

    Raises:
        ValueError: where nothing is left, or a column does not exist or is named twice.

    Example:
        >>> params = Params(jnp.zeros(2), jnp.array([[0.0, -1.0], [4.0, 1.0]]), jnp.zeros((2, 2)),
        ...                 jnp.zeros((2, 1)))
        >>> [round(float(p), 3) for p in conditional(params, [0], jnp.array([1.0])).weights]
        [0.982, 0.018]
    """
    d = params.means.shape[1]
    given = check_columns("columns", columns, d)
    if len(given) == d:
        raise ValueError(f"columns: expected fewer than {d}, so that some are left, got {columns}")
    values = jnp.asarray(values, params.means.dtype)
    return _conditional(params, values, columns=tuple(given.tolist()))


@compiled("columns")
def _conditional(params: Params, values: Array, *, columns: tuple[int, ...]) -> Params:
    given = np.array(columns)
    rest = np.setdiff1d(np.arange(params.means.shape[1]), given)
    logits = log_joint(_marginal(params, columns=columns), values[None], missing=False)[:, 0]
    away = values[None, :] - params.means[:, given]
    precision = factor_matrices(params)
    precision = matmul(precision.mT, precision)
    root = inverse_factor(precision[:, rest[:, None], rest[None, :]])
    covariance = matmul(root.mT, root)
    pull = jnp.sum(precision[:, rest[:, None], given[None, :]] * away[:, None, :], axis=-1)
    means = params.means[:, rest] - jnp.sum(covariance * pull[:, None, :], axis=-1)
    return of_covariance(logits - logsumexp(logits), means, covariance, "full")
