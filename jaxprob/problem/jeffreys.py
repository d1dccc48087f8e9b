r"""Firth's penalty: half the log-determinant of the information, which keeps every maximum finite.

The objective is f(θ) - ½ log det I(θ), I the information (equations 1.10, 2.11): minus the log
posterior under Jeffreys' prior. What is added to the gradient of f is

    -½ ∂/∂θ_j log det I = -½ tr(I⁻¹ ∂I/∂θ_j)

the derivative of ½ ⟨A, I(θ)⟩ with A = I⁻¹ held fixed, so one backward pass through the information
gives all of it. As an example is predicted better and better, its part of I vanishes, and with
separated classes so does det I: no coefficient can run off. It also removes the first-order bias of
maximum likelihood. Where parameters are redundant, I is completed by a projector on the directions
in which the likelihood is flat, which leaves the determinant on the others.

Source: Firth, Bias reduction of maximum likelihood estimates, Biometrika 80, 1993; Heinze and
Schemper, A solution to the problem of separation in logistic regression, Statistics in Medicine 21,
2002.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.linalg import cholesky
from jaxprob.numerics.products import matmul


def half_log_det(problem: Any, theta: Array) -> tuple[Array, Array]:
    """Half the log-determinant of the information, and its gradient.

    Args:
        problem: a `jaxprob.solvers.Problem`.
        theta: (p,).

    Returns:
        (), -inf where the information is singular; (p,).
    """
    info, pull_back = jax.vjp(problem.information, theta)
    if problem.model.geometry.canonical is not None:
        eye = jnp.eye(len(theta), dtype=theta.dtype)
        info = info + eye - jax.vmap(problem.canonical)(eye)
    value, inverse = log_det_and_inverse(info)
    (grad,) = pull_back(inverse / 2)
    return value / 2, grad


@jax.custom_jvp
def log_det_and_inverse(a: Array) -> tuple[Array, Array]:
    """The log-determinant of a symmetric matrix (p, p), and its inverse.

    Args:
        a: (p, p), positive semidefinite.

    Returns:
        (), and (p, p); -inf, and zeros, where it is singular to rounding.
    """
    eye = jnp.eye(len(a), dtype=bool)
    diagonal = jnp.sum(jnp.where(eye, a, 0.0), axis=1)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    scales = scale[:, None] * scale[None, :]
    lower, inverse = cholesky(a / scales)
    pivots = jnp.sum(jnp.where(eye, lower, 0.0), axis=1)
    least = _LEAST * len(a) * jnp.finfo(a.dtype).eps
    regular = jnp.all(diagonal > 0) & jnp.all(pivots**2 > least)
    value = 2 * jnp.sum(jnp.log(jnp.where(regular, pivots * scale, 1.0)))
    inverse = jnp.where(regular, inverse, 0.0)
    return jnp.where(regular, value, -jnp.inf), matmul(inverse.T, inverse) / scales


@log_det_and_inverse.defjvp
def _derivatives(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    value, inverse = log_det_and_inverse(*primals)
    moved = matmul(inverse, tangents[0])
    return (value, inverse), (jnp.trace(moved), matmul(-moved, inverse))


_LEAST = 4  # times the rounding of p products: what is left of a pivot that is zero
