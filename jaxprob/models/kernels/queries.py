"""What a kernel density says beyond the density of a point: marginals, conditionals, grids."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.data.arrays import check_columns
from jaxprob.models import kernels
from jaxprob.models.kernels import Bandwidth as Params
from jaxprob.models.kernels import Grid
from jaxprob.models.kernels import inverse_factor as factor_of
from jaxprob.models.kernels.arguments import (
    check_points,
    check_positive,
)
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import inverse_factor, inverse_of_lower
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled


def of_bandwidth(bandwidth: Any) -> Params:
    """The parameters that a bandwidth stands for.

    Args:
        bandwidth: h > 0, a number; (d,) one for each column; or (d, d), the covariance of Gaussian
            kernels: h² is that of a number.

    Returns:
        Params in the bandwidth's dtype.

    Raises:
        ValueError: for another shape, what is not positive and finite, and what is no covariance.

    Example:
        >>> of_bandwidth(jnp.array([1.0, 2.0])).log_scale.shape
        (2,)
    """
    h = jnp.asarray(bandwidth)
    h = h if jnp.issubdtype(h.dtype, jnp.floating) else h.astype(jnp.result_type(float))
    if h.ndim > 2 or (h.ndim == 2 and h.shape[0] != h.shape[1]):
        raise ValueError(f"bandwidth: expected shape (), (d,) or (d, d), got {h.shape}")
    if h.ndim < 2:
        check_positive("bandwidth", h)
        return Params(jnp.log(jnp.atleast_1d(h)), jnp.zeros(0, h.dtype))
    check_positive("bandwidth: the diagonal of a covariance", jnp.diagonal(h))
    params = _of_covariance(h)
    if not isinstance(h, Tracer):
        known = np.asarray(h)
        root = np.sqrt(np.diag(known))
        apart = np.abs(known - known.T) / (root[:, None] * root[None, :])
        if not np.all(apart <= np.sqrt(np.finfo(known.dtype).eps)):
            raise ValueError(f"bandwidth: expected a symmetric matrix, got {known.tolist()}")
        if not all(np.all(np.isfinite(np.asarray(a))) for a in params):
            raise ValueError(
                f"bandwidth: expected a positive definite covariance, got {known.tolist()}"
            )
    return params


@compiled("d")
def covariance(params: Params, d: int) -> Array:
    """The covariance (AᵀA)⁻¹ of Gaussian kernels; of others it is a multiple of this.

    Args:
        params: Params.
        d: number of columns.

    Returns:
        (d, d).

    Example:
        >>> covariance(of_bandwidth(2.0), 2).round(4).tolist()
        [[4.0, 0.0], [0.0, 4.0]]
    """
    root = inverse_of_lower(matrix(params, d))
    return matmul(root, root.T)


def marginal(params: Params, points: Array, columns: Sequence[int]) -> tuple[Params, Array]:
    """The density of some columns, with Gaussian kernels.

    Args:
        params: Params.
        points: (n, d) the examples that the density is made of.
        columns: which, in the order wanted.

    Returns:
        Params, and the points (n, len(columns)) of a kernel density with the same weights.

    Raises:
        ValueError: where a column does not exist or is named twice.

    Example:
        >>> marginal(of_bandwidth(1.0), jnp.array([[0.0, 1.0], [2.0, 3.0]]), [1])[1].tolist()
        [[1.0], [3.0]]
    """
    check_points(points)
    index = check_columns("columns", columns, points.shape[1])
    return _marginal(params, points, columns=tuple(index.tolist()))


@compiled("columns")
def _marginal(params: Params, points: Array, *, columns: tuple[int, ...]) -> tuple[Params, Array]:
    index = np.array(columns)
    some = covariance(params, points.shape[1])[index[:, None], index[None, :]]
    return _of_covariance(some), points[:, index]


def conditional(
    params: Params,
    points: Array,
    columns: Sequence[int],
    values: Array,
    weights: Array | None = None,
) -> tuple[Params, Array, Array]:
    """The density of the other columns, given some, with Gaussian kernels: p(x_a | x_b).

    It is a kernel density again. With H the covariance of the kernels, and c'_j the weights,

        c'_j ∝ c_j N(x_b; x_jb, H_bb),   x'_j = x_ja + H_ab H_bb⁻¹ (x_b - x_jb),
        H' = H_aa - H_ab H_bb⁻¹ H_ba                                                      (3.17)

    Args:
        params: Params.
        points: (n, d) the examples that the density is made of.
        columns: b, those that are given.
        values: (len(b),) what they are.
        weights: (n,) c_j ≥ 0; one each where None.

    Returns:
        Params, points (n, a) and weights (n,), which add up to one, of the columns that are not
        given, in their order.

    Raises:
        ValueError: where nothing is left, or a column does not exist or is named twice.

    Example:
        >>> x = jnp.array([[0.0, -1.0], [4.0, 1.0]])
        >>> _, points, c = conditional(of_bandwidth(1.0), x, [0], jnp.array([1.0]))
        >>> points.tolist(), [round(float(w), 3) for w in c]
        ([[-1.0], [1.0]], [0.982, 0.018])
    """
    check_points(points, weights)
    d = points.shape[1]
    given = check_columns("columns", columns, d)
    if len(given) == d:
        raise ValueError(f"columns: expected fewer than {d}, so that some are left, got {columns}")
    values = jnp.asarray(values, points.dtype)
    if values.shape != given.shape:
        raise ValueError(f"values: expected shape {given.shape}, as columns, got {values.shape}")
    return _conditional(params, points, values, weights, columns=tuple(given.tolist()))


@compiled("columns")
def _conditional(
    params: Params,
    points: Array,
    values: Array,
    weights: Array | None,
    *,
    columns: tuple[int, ...],
) -> tuple[Params, Array, Array]:
    d, given = points.shape[1], np.array(columns)
    rest = np.setdiff1d(np.arange(d), given)
    away = values[None, :] - points[:, given]
    spread = covariance(params, d)
    factor = inverse_factor(spread[given[:, None], given[None, :]])
    z = matmul(away, factor.T)
    log_shares = -jnp.sum(z**2, axis=1) / 2
    log_shares = log_shares if weights is None else log_shares + jnp.log(weights)
    across = matmul(spread[rest[:, None], given[None, :]], factor.T)
    moved = points[:, rest] + matmul(z, across.T)
    left = spread[rest[:, None], rest[None, :]] - matmul(across, across.T)
    return _of_covariance(left), moved, jnp.exp(log_shares - logsumexp(log_shares))


def on_grid(
    params: Params,
    points: Array,
    weights: Array | None = None,
    *,
    tolerance: float = 1e-6,
    shape: tuple[int, ...] | None = None,
) -> Grid:
    """The density with Gaussian kernels on a grid around the points, by Fourier transforms.

    For one to three columns; `interpolate` gives the density between. The cost is that of reading
    the points and of transforming the grid. With a shape it can be called inside of `jax.jit`.

    Args:
        params: Params.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        tolerance: the error, relative to the peak of one kernel (equation K.9).
        shape: (d,) how many cells, instead of what the tolerance wants.

    Returns:
        Grid.

    Raises:
        ValueError: for more than three columns.

    Example:
        >>> grid = on_grid(of_bandwidth(1.0), jnp.array([[0.0]]))
        >>> round(float(grid.density.max()), 4)
        0.3989
    """
    check_points(points, weights)
    d = points.shape[1]
    if d > 3:
        raise ValueError(f"points: expected at most 3 columns, got {d}; use log_density")
    factor = factor_of(params, d)
    if shape is None:
        shape = kernels.grid_shape(points, factor, tolerance=tolerance)
    return kernels.binned_density(points, factor, weights, shape=shape)


def check_one(x: Any, d: int) -> None:
    """Raise unless it is one example."""
    if jnp.shape(x) != (d,):
        raise ValueError(f"x: expected shape ({d},), as points have columns, got {jnp.shape(x)}")


def matrix(params: Params, d: int) -> Array:
    """(d, d) the matrix A."""
    factor = factor_of(params, d)
    return jnp.diag(factor) if factor.ndim == 1 else factor


def _of_covariance(spread: Array) -> Params:
    """The parameters of Gaussian kernels with some covariance (d, d)."""
    h = jnp.sqrt(jnp.diagonal(spread))
    return of_spread(spread / h[:, None] / h[None, :], h)


def of_spread(correlation: Array, h: Array) -> Params:
    """The same, from correlations (d, d) and standard deviations (d,): units change nothing."""
    factor = inverse_factor(correlation) / h[None, :]
    return Params(-jnp.log(jnp.diagonal(factor)), factor[np.tril_indices(len(h), -1)])
