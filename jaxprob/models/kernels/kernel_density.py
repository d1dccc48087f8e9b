r"""Kernel density estimates: a density that is made of the examples.

The model, with examples x_j of weights c_j, W = Σ_j c_j, and a kernel K, which is itself a density:

    p(x) = |det A| / W · Σ_j c_j K(A (x - x_j))                                           (3.14)

A is lower triangular, with exp(-s_e) on its diagonal, s the `log_scale`, and what is below in
`lower`, row by row, as in a Gaussian mixture: AᵀA is the inverse of the kernels' covariance (for
the Gaussian one). Bandwidths are scalar, diagonal or full. The kernels, with r = ‖A (x - x_j)‖:

    gaussian  exp(-r²/2),   epanechnikov  (1 - r²)₊,   tophat  1{r < 1},   exponential  exp(-r)

The examples are data, which `log_prob` is given again: they are no parameters. Under its own
density each would be likeliest with no bandwidth at all, so the log-likelihood that a fit maximises
leaves each one out of its own density:

    ℓ(s, A) = Σ_i c_i log p_{-i}(x_i),   p_{-i}(x) = |det A| / (W - c_i) Σ_{j≠i} c_j K(A (x - x_j))
                                                                                          (3.15)
which estimates the expected log-density of new examples, and with it the Kullback-Leibler
divergence from the truth. An example of weight c_i is left out with all of its weight, so that the
resamples of a bootstrap do not find themselves again. With the Gaussian kernel, r_ij the share of
x_j in p_{-i}(x_i), and z_ij = A (x_i - x_j),

    M = Σ_i c_i Σ_{j≠i} r_ij z_ij z_ijᵀ
    ∂ℓ/∂s_e = (M A⁻ᵀ)_ee A_ee - W,        ∂ℓ/∂A_ef = -(M A⁻ᵀ)_ef,  e > f                  (3.16)

In the bandwidth ℓ may have several maxima. A fit looks at the multiples of Silverman's rule, over
all of the range that maxima can be in (`jaxprob.models.kernels.start`), and climbs from the best. A
scalar bandwidth, as one of a single column, is then that of the highest maximum, unless one is as
narrow as a step of that search; a diagonal or full one is that of a maximum near the best multiple,
and `Fit.gap` is the distance to that maximum, to second order.

What repeats favours narrow kernels. Where each example coincides with another one, or where each
does so in a column that has a bandwidth of its own, ℓ has no bound, and the fit is COLLAPSED. Data
rounded to some width may have one near a quarter of it, that of a density of spikes: right, but
hardly what is wanted. Then take the bandwidth from `isj` or another rule, or spread the examples
over what was rounded away, x + width · (u - 1/2) with u uniform in (0, 1), before they are fitted.

Weights are repeats in (3.15), so that a common factor of all weights multiplies ℓ and leaves the
density alone.

Where columns have bounds, kernels are reflected there: p(x) is the sum of (3.14) over x and its
mirror images, and zero outside. With two bounds in a column, what is further out than one width is
lost. That of the top-hat kernel is constant but for jumps, so its likelihood (3.15) has no gradient
that leads anywhere: take the bandwidth from a rule, or compare some by `log_likelihood`.

Rules for the bandwidth and estimates on a grid are in `jaxprob.models.kernels`, and here by name.

Source: Silverman, Density Estimation for Statistics and Data Analysis, 1986, sections 2.10, 3.4.4
and 4.2; Duin, IEEE Transactions on Computers C-25, 1976 (leave-one-out likelihood).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Features,
    Geometry,
    LeaveOneOut,
    Model,
    Predictions,
    Status,
    Variables,
)
from jaxprob.models import kernels
from jaxprob.models.kernels import Bandwidth as Params
from jaxprob.models.kernels import Grid as Grid
from jaxprob.models.kernels import density
from jaxprob.models.kernels import interpolate as interpolate
from jaxprob.models.kernels import isj as isj
from jaxprob.models.kernels import scott as scott
from jaxprob.models.kernels import silverman as silverman
from jaxprob.models.kernels.arguments import (
    check_number,
    check_points,
)
from jaxprob.models.kernels.kernel import check_kernel
from jaxprob.models.kernels.mirrors import (
    Bounds,
    checked_bounds,
    expected,
    images_of,
    valid,
)
from jaxprob.models.kernels.naming import parameter_names as parameter_names
from jaxprob.models.kernels.queries import check_one, of_spread
from jaxprob.models.kernels.queries import conditional as conditional
from jaxprob.models.kernels.queries import covariance as covariance
from jaxprob.models.kernels.queries import marginal as marginal
from jaxprob.models.kernels.queries import of_bandwidth as of_bandwidth
from jaxprob.models.kernels.queries import on_grid as on_grid
from jaxprob.models.kernels.start import best_multiple, coincide
from jaxprob.numerics.products import matmul

BANDWIDTHS = ("scalar", "diagonal", "full")


def init(
    key: Array | None,
    x: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
    bandwidth: str = "diagonal",
    bounds: Bounds = None,
) -> Params:
    """The multiple of Silverman's rule that predicts examples best (equation K.12).

    Args:
        key: not used: the same start with every key.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".
        bandwidth: "scalar", "diagonal" or "full".
        bounds: of the columns, see `model`.

    Returns:
        Params in the dtype of x; a full bandwidth is in proportion to the covariance.

    Example:
        >>> init(None, jnp.array([[0.0], [1.0], [2.0]])).log_scale.shape
        (1,)
    """
    del key
    check_points(x, weights, name="x")
    x, weights = jax.lax.stop_gradient((x, weights))
    h = silverman(x, weights)
    h = jnp.where(h == 0, 1.0, h)  # of a constant column, which is reported as such
    if bandwidth == "full":
        rule = of_spread(_correlation(x, weights), h)
    elif bandwidth == "scalar":
        rule = Params(jnp.mean(jnp.log(h), keepdims=True), jnp.zeros(0, x.dtype))
    else:
        rule = Params(jnp.log(h), jnp.zeros(0, x.dtype))
    images = images_of(x, checked_bounds(bounds))[1:]
    return best_multiple(rule, x, weights, images, kernel=kernel)


def log_prob(
    params: Params,
    x: Array,
    points: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
    bounds: Bounds = None,
) -> Array:
    """The log-density log p(x) of one example (equation 3.14).

    Args:
        params: Params.
        x: (d,) floating.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".
        bounds: of the columns, see `model`.

    Returns:
        () nats; -∞ where no kernel reaches.

    Example:
        >>> params = of_bandwidth(1.0)
        >>> round(float(log_prob(params, jnp.array([1.0]), jnp.array([[0.0], [2.0]]))), 4)
        -1.4189
    """
    check_points(points, weights)
    check_kernel(kernel)
    check_one(x, points.shape[1])
    bounds = checked_bounds(bounds)
    return density.of_one(params, x, points, weights, kernel=kernel, bounds=bounds)


def log_density(
    params: Params,
    queries: Array,
    points: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
    bounds: Bounds = None,
) -> Array:
    """The log-densities log p(x) of many examples (equation 3.14), in blocks of bounded memory.

    Args:
        params: Params.
        queries: (m, d) floating.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".
        bounds: of the columns, see `model`.

    Returns:
        (m,) nats; -∞ where no kernel reaches.

    Example:
        >>> x = jnp.array([[0.0], [2.0]])
        >>> round(float(log_density(of_bandwidth(1.0), jnp.array([[1.0]]), x)[0]), 4)
        -1.4189
    """
    check_points(points, weights, queries)
    check_kernel(kernel)
    bounds = checked_bounds(bounds)
    return density.of_many(params, queries, points, weights, kernel=kernel, bounds=bounds)


def grad_log_density(
    params: Params,
    queries: Array,
    points: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
) -> Array:
    """The gradient of the log-density log p in x, derived by hand (equation K.2).

    Args:
        params: Params.
        queries: (m, d) floating, where.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".

    Returns:
        (m, d) nats per unit of each column; zero where the density is zero all around.

    Example:
        >>> x, at = jnp.array([[0.0]]), jnp.array([[1.5]])
        >>> grad_log_density(of_bandwidth(1.0), at, x).tolist()
        [[-1.5]]
    """
    check_points(points, weights, queries)
    check_kernel(kernel)
    return density.gradient(params, queries, points, weights, kernel=kernel)


def log_likelihood(
    params: Params,
    x: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
    bounds: Bounds = None,
) -> Array:
    """The leave-one-out log-likelihood Σ_i c_i log p_{-i}(x_i) (equation 3.15).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".
        bounds: of the columns, see `model`.

    Returns:
        () nats; -∞ where no other example reaches some example.

    Example:
        >>> round(float(log_likelihood(of_bandwidth(1.0), jnp.array([[0.0], [0.0]]))), 4)
        -1.8379
    """
    check_points(x, weights, name="x")
    check_kernel(kernel)
    bounds = checked_bounds(bounds)
    return density.of_the_others(params, x, weights, kernel=kernel, bounds=bounds)


def grad_log_likelihood(
    params: Params,
    x: Array,
    weights: Array | None = None,
) -> Params:
    """The gradient of `log_likelihood` with the Gaussian kernel, derived by hand (equation 3.16).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        Params, nats per unit of each.

    Example:
        >>> grad_log_likelihood(of_bandwidth(1.0), jnp.array([[0.0], [2.0]])).log_scale.tolist()
        [6.0]
    """
    return log_likelihood_and_grad(params, x, weights)[1]


def log_likelihood_and_grad(
    params: Params, x: Array, weights: Array | None = None, *, block_bytes: int | None = None
) -> tuple[Array, Params]:
    """`log_likelihood` and `grad_log_likelihood`, from one pass over all pairs (equation 3.16).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.
        block_bytes: not used: blocks are those of the pairs.

    Returns:
        () and Params, nats.

    Example:
        >>> value, grad = log_likelihood_and_grad(of_bandwidth(1.0), jnp.array([[0.0], [2.0]]))
        >>> round(float(value), 4), grad.log_scale.tolist()
        (-5.8379, [6.0])
    """
    del block_bytes
    return kernels.leave_one_out_and_grad(params, x, weights)


def information(params: Params, x: Array, weights: Array | None = None) -> Array:
    """Minus the Hessian of `log_likelihood` with the Gaussian kernel, by hand (equation K.11).

    Args:
        params: Params.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        (p, p), in the order of `ravel_pytree(params)`.

    Example:
        >>> information(of_bandwidth(1.0), jnp.array([[0.0], [2.0]])).tolist()
        [[16.0]]
    """
    return kernels.leave_one_out_information(params, x, weights)


def sample(
    params: Params,
    key: Array,
    num: int,
    points: Array,
    weights: Array | None = None,
    *,
    kernel: str = "gaussian",
    bounds: Bounds = None,
) -> Array:
    """Draw examples from the density (equation 3.14).

    Args:
        params: Params.
        key: a typed PRNG key.
        num: how many.
        points: (n, d) the examples that the density is made of.
        weights: (n,) c_j ≥ 0 of these; one each where None.
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".
        bounds: of the columns, see `model`.

    Returns:
        (num, d) of the dtype of the points.

    Example:
        >>> sample(of_bandwidth(1.0), jax.random.key(0), 3, jnp.array([[0.0], [2.0]])).shape
        (3, 1)
    """
    check_points(points, weights)
    check_kernel(kernel)
    check_number("num", num, least=0)
    bounds = checked_bounds(bounds)
    return density.drawn(params, key, points, weights, num=num, kernel=kernel, bounds=bounds)


def model(kernel: str = "gaussian", bandwidth: str = "diagonal", *, bounds: Any = None) -> Model:
    """A kernel density for `jaxprob.fit`, which chooses the bandwidth by leaving each example out.

    Args:
        kernel: "gaussian", "epanechnikov", "tophat" or "exponential".
        bandwidth: "scalar", "diagonal" or "full".
        bounds: where kernels are reflected: a pair (lowest, highest) for each column, None where
            there is no such bound; or one such pair for all columns. At most 6 columns can have
            two bounds.

    Returns:
        A Model; two of them with the same settings are equal. Its `log_prob`, `log_density` and
        `sample` want the examples, and their weights if any, as their last arguments.

    Raises:
        ValueError: for what is none of the above.

    Example:
        >>> import jaxprob as jp
        >>> x = [[0.0], [0.5], [1.0], [3.0], [3.5]]
        >>> result = jp.fit(model(), x)
        >>> round(float(jnp.exp(result.params.log_scale)[0]), 3)
        0.572
    """
    check_kernel(kernel)
    if bandwidth not in BANDWIDTHS:
        raise ValueError(f"bandwidth: expected one of {BANDWIDTHS}, got {bandwidth!r}")
    bounds = checked_bounds(bounds)
    own = {"kernel": kernel, "bounds": bounds}
    by_hand = kernel == "gaussian" and bounds is None
    return Model(
        name="Kernel density",
        variables=Variables.density(
            x=None
            if bounds is None
            else Features(Bind(valid, bounds=bounds), Bind(expected, bounds=bounds))
        ),
        init=Bind(init, bandwidth=bandwidth, **own),
        log_prob=Bind(log_prob, **own),
        objective=LeaveOneOut(
            Bind(log_likelihood, **own),
            density=Bind(log_density, **own),
            grad=grad_log_likelihood if by_hand else None,
            value_and_grad=log_likelihood_and_grad if by_hand else None,
            information=information if by_hand else None,
            unbounded=Bind(coincide, by_column=bandwidth != "scalar"),
        ),
        predict=Predictions(sample=Bind(sample, **own)),
        geometry=Geometry(names=parameter_names, columns=1),
        words=_REASONS,
    )


_NARROW = (
    "the bandwidth has no best value: a column is constant or follows from others, fewer than two "
    "examples differ, or nothing but a top-hat kernel's jumps would change the likelihood"
)
_TIED = (
    "the bandwidth has no best value: each example coincides with another one, all together or in "
    "a column with a bandwidth of its own, so that zero is the best; take a rule such as isj, or "
    "add noise as wide as what the data are rounded to"
)
_REASONS = (
    (Status.COLLAPSED, _TIED),
    (Status.NON_FINITE, _NARROW),
    (Status.MAX_STEPS, _NARROW),
    (Status.SINGULAR, _NARROW),
)


def _correlation(x: Array, weights: Array | None) -> Array:
    """(d, d) of the columns, each measured in its largest deviation from its mean."""
    c = jnp.ones(len(x), x.dtype) if weights is None else weights
    share = c / jnp.sum(c)
    away = x - jnp.sum(share[:, None] * x, axis=0)[None, :]
    away = away / jnp.max(jnp.abs(away), axis=0)[None, :]
    spread = matmul((share[:, None] * away).T, away)
    root = jnp.sqrt(jnp.diagonal(spread))
    return spread / root[:, None] / root[None, :]
