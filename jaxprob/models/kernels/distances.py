"""Squared distances between points, as accurate or as fast as can be."""

from collections.abc import Iterable
from functools import reduce

import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.products import matmul


def coordinates(x: Array, center: Array, factor: Array) -> Array:
    """The columns A (x - c), (d, b)."""
    away = (x - center[None, :]).T
    return away * factor[:, None] if factor.ndim == 1 else matmul(factor, away)


def _sum(terms: Iterable[Array]) -> Array:
    return reduce(jnp.add, terms)


def exact_distances(x: Array, q: Array, factor: Array) -> Array:
    """The squared distances (b, b) ‖A (q - x)‖² of a few columns, with differences taken first."""
    away = [q[None, :, j] - x[:, j, None] for j in range(x.shape[1])]
    if factor.ndim == 1:
        return _sum((a * factor[j]) ** 2 for j, a in enumerate(away))
    return _sum(_sum(away[j] * factor[e, j] for j in range(e + 1)) ** 2 for e in range(x.shape[1]))


def pairwise_products(zx: Array, zq: Array) -> Array:
    """The squared distances (b, b) of columns, as one matrix product."""
    left = jnp.concatenate([zx, jnp.ones_like(zx[:1]), jnp.sum(zx**2, axis=0)[None]])
    right = jnp.concatenate([-2 * zq, jnp.sum(zq**2, axis=0)[None], jnp.ones_like(zq[:1])])
    return matmul(left.T, right)
