"""Kernel densities of checked arguments, each as one program (equations 3.14 and 3.15)."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.kernels import kernel as kernels
from jaxprob.models.kernels import sums
from jaxprob.models.kernels.factor import Bandwidth, inverse_factor
from jaxprob.models.kernels.mirrors import Bounds, folded, images_of, inside
from jaxprob.models.kernels.queries import matrix
from jaxprob.numerics import logsumexp
from jaxprob.numerics.components import inverse_of_lower
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled


@compiled("kernel", "bounds")
def of_one(
    params: Bandwidth,
    x: Array,
    points: Array,
    weights: Array | None,
    *,
    kernel: str,
    bounds: Bounds,
) -> Array:
    """The log-density of one example, as it is defined."""
    d = points.shape[1]
    c = jnp.ones(len(points), x.dtype) if weights is None else weights
    factor = matrix(params, d)
    images = jnp.stack([image[0] for image in images_of(x[None, :], bounds)])
    z = matmul(images[:, None, :] - points[None, :, :], factor.T)
    squared = jnp.sum(z**2, axis=-1)
    head = jnp.sum(jnp.log(jnp.diagonal(factor))) - kernels.log_normaliser(kernel, d)
    if kernel in kernels.COMPACT:
        log_sum = jnp.log(jnp.sum(c[None, :] * kernels.shape(squared, kernel)))
    else:
        log_sum = logsumexp((jnp.log(c)[None, :] + kernels.log_shape(squared, kernel)).ravel())
    value = log_sum + head - jnp.log(jnp.sum(c))
    return jnp.where(inside(x[None, :], bounds)[0], value, -jnp.inf)


@compiled("kernel", "bounds")
def of_many(
    params: Bandwidth,
    queries: Array,
    points: Array,
    weights: Array | None,
    *,
    kernel: str,
    bounds: Bounds,
) -> Array:
    """The log-densities of many examples, in blocks."""
    factor = inverse_factor(params, points.shape[1])
    each = [
        sums.log_density(image, points, factor, weights, kernel=kernel)
        for image in images_of(queries, bounds)
    ]
    together = each[0] if len(each) == 1 else logsumexp(jnp.stack(each, axis=1))
    return jnp.where(inside(queries, bounds), together, -jnp.inf)


@compiled("kernel", "bounds")
def of_the_others(
    params: Bandwidth, x: Array, weights: Array | None, *, kernel: str, bounds: Bounds
) -> Array:
    """The leave-one-out log-likelihood."""
    images = images_of(x, bounds)[1:]
    return sums.leave_one_out(params, x, weights, kernel=kernel, images=images)


@compiled("kernel")
def gradient(
    params: Bandwidth, queries: Array, points: Array, weights: Array | None, *, kernel: str
) -> Array:
    """The gradient of the log-densities in the queries."""
    factor = inverse_factor(params, points.shape[1])
    return sums.grad_log_density(queries, points, factor, weights, kernel=kernel)


@compiled("num", "kernel", "bounds")
def drawn(
    params: Bandwidth,
    key: Array,
    points: Array,
    weights: Array | None,
    *,
    num: int,
    kernel: str,
    bounds: Bounds,
) -> Array:
    """Examples drawn from the density."""
    d, dtype = points.shape[1], points.dtype
    which, direction, length = jax.random.split(key, 3)
    share = None if weights is None else weights / jnp.sum(weights)
    centers = points[jax.random.choice(which, len(points), (num,), p=share)]
    z = jax.random.normal(direction, (num, d), dtype)
    if kernel != "gaussian":
        squared = jnp.sum(z**2, axis=1)
        if kernel == "exponential":
            radius = jax.random.gamma(length, float(d), (num,), dtype)
        elif kernel == "tophat":
            radius = jax.random.uniform(length, (num,), dtype) ** (1 / d)
        else:
            radius = jnp.sqrt(jax.random.beta(length, d / 2, 2.0, (num,), dtype))
        z = z * (radius / jnp.sqrt(squared))[:, None]
    root = inverse_of_lower(matrix(params, d))
    return folded(centers + matmul(z, root.T), bounds)
