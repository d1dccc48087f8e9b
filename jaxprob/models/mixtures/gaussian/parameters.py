"""Parameters of Gaussian mixtures: logits, means, and factors of inverse covariances."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.numerics import softmax
from jaxprob.numerics.components import (
    inverse_factor,
    inverse_of_lower,
)
from jaxprob.numerics.products import matmul


class Params(NamedTuple):
    """What is fitted.

    Attributes:
        logits: (K,) z, up to a constant.
        means: (K, d).
        log_scale: (K, d); (1, d) where covariances are tied, (K, 1) where they are spherical.
        lower: (K, d(d-1)/2) of A, row by row; (1, d(d-1)/2) tied; (K, 0) without correlations.

    `weights` and `covariances` are what people want to see of them; for many fits with the lanes in
    front.
    """

    logits: Array
    means: Array
    log_scale: Array
    lower: Array

    @property
    def weights(self) -> Array:
        """The probabilities π (..., K) of the components."""
        return softmax(self.logits)

    @property
    def covariances(self) -> Array:
        """The covariances Σ (..., K, d, d)."""
        root = inverse_of_lower(factor_matrices(self))
        return matmul(root, root.mT)


def canonical(params: Params) -> Params:
    """Of the parameters with the same density, those whose finite logits sum to zero.

    Args:
        params: Params.

    Returns:
        Params.

    Example:
        >>> params = Params(jnp.array([1.0, 3.0]), *[jnp.zeros((2, 1))] * 2, jnp.zeros((2, 0)))
        >>> canonical(params).logits.tolist()
        [-1.0, 1.0]
    """
    z = params.logits
    finite = z > -jnp.inf
    mean = jnp.sum(jnp.where(finite, z, 0.0)) / jnp.sum(finite)
    return params._replace(logits=z - mean)


def parameter_names(params: Params, feature_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """A name for each parameter, in the order of `jax.flatten_util.ravel_pytree`.

    Args:
        params: of one fit.
        feature_names: of the columns of x, or None.

    Returns:
        (p,), such as "component 0: x1 mean".

    Example:
        >>> params = Params(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))
        >>> parameter_names(params, None)
        ('component 0', 'component 0: x0 mean', 'component 0: x0 log scale')
    """
    k, d = params.means.shape
    x = feature_names or tuple(f"x{j}" for j in range(d))
    components = [f"component {i}" for i in range(k)]
    rows = [f"{name}: " for name in components] if len(params.log_scale) == k else [""]
    scaled = x if params.log_scale.shape[1] == d else ("",)
    below = zip(*np.tril_indices(d, -1), strict=True) if params.lower.shape[1] else ()
    pairs = [f"{x[e]} on {x[j]}" for e, j in below]
    return (
        *components,
        *(f"{name}: {column} mean" for name in components for column in x),
        *(f"{row}{column} log scale".replace("  ", " ") for row in rows for column in scaled),
        *(f"{row}{pair}" for row in rows for pair in pairs),
    )


def is_diagonal(params: Params) -> bool:
    """Whether columns are independent within a component."""
    return params.lower.shape[-1] == 0


def sharing(params: Params) -> tuple[bool, bool]:
    """Whether components share their covariance, and columns their scale."""
    k, d = params.means.shape
    rows, columns = params.log_scale.shape
    return rows < k, columns < d


def factor_diagonals(params: Params) -> Array:
    """(..., K, d) the diagonals of A."""
    return jnp.exp(-jnp.broadcast_to(params.log_scale, params.means.shape))


def factor_matrices(params: Params) -> Array:
    """(..., K, d, d) the matrices A."""
    diagonal = factor_diagonals(params)
    d = diagonal.shape[-1]
    eye = jnp.eye(d, dtype=bool)
    factor = jnp.where(jnp.broadcast_to(eye, (*diagonal.shape, d)), diagonal[..., None], 0.0)
    if is_diagonal(params):
        return factor
    lower = jnp.broadcast_to(params.lower, (*params.means.shape[:-1], params.lower.shape[-1]))
    e, j = np.tril_indices(d, -1)
    return factor.at[..., e, j].set(lower)


def of_covariance(logits: Array, means: Array, covariance: Array, kind: str) -> Params:
    """Parameters with covariances (K, d, d), or (1, d, d) that all components start with."""
    k, d = means.shape
    rows = 1 if kind == "tied" else k
    if kind in ("full", "tied"):
        factor = jnp.broadcast_to(inverse_factor(covariance), (rows, d, d))
        lower = factor[:, *np.tril_indices(d, -1)]
        return Params(logits, means, -jnp.log(diagonal(factor)), lower)
    variance = jnp.broadcast_to(diagonal(covariance), (k, d))
    variance = jnp.mean(variance, axis=1, keepdims=True) if kind == "spherical" else variance
    return Params(logits, means, jnp.log(variance) / 2, jnp.zeros((k, 0), means.dtype))


def summed_where_shared(each: Array, like: Array) -> Array:
    """The sum over components and columns that share a parameter."""
    each = jnp.sum(each, axis=0, keepdims=True) if len(like) < len(each) else each
    narrow = like.shape[1] < each.shape[1]
    return jnp.sum(each, axis=1, keepdims=True) if narrow else each


def diagonal(matrices: Array) -> Array:
    """The diagonals (..., d) of matrices (..., d, d)."""
    return jnp.diagonal(matrices, axis1=-2, axis2=-1)


def or_one(a: Array) -> Array:
    """The same numbers, ones in place of those that are not positive."""
    return jnp.where(a > 0, a, 1.0)
