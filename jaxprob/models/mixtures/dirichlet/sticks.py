r"""Stick-breaking: the probabilities of components, under a Dirichlet process of T of them.

    π_k = v_k Π_{j<k} (1 - v_j),    v_k ~ Beta(1, α) for k < T,    v_T = 1                 (D.6)
    α ~ Gamma(s₁, s₂), with rate s₂, or a number

The densities that stand in for the posterior are v_k ~ Beta(a_k, b_k) and α ~ Gamma(w₁, w₂), with

    E[log v] = ψ(a) - ψ(a + b),        E[log (1 - v)] = ψ(b) - ψ(a + b)                    (D.7)

With N_k examples in component k, each of the two has its maximum, given the other, at

    a_k = 1 + N_k,    b_k = E[α] + Σ_{j>k} N_j
    w₁ = s₁ + T - 1,  w₂ = s₂ - Σ_{k<T} E[log (1 - v_k)],    E[α] = w₁ / w₂                (D.8)

Their divergence from the prior, where α is learned, is

    Σ_k (-log B(a_k, b_k) + (a_k - 1) E[log v_k] + (b_k - E[α]) E[log (1 - v_k)] - E[log α])
    + (w₁ - s₁) ψ(w₁) - log Γ(w₁) + log Γ(s₁) + s₁ (log w₂ - log s₂) + w₁ (s₂ - w₂) / w₂    (D.9)

Source: Blei and Jordan, Variational inference for Dirichlet process mixtures, Bayesian Analysis 1,
2006, sections 3 and 5 and appendix (the prior on the scaling parameter); Sethuraman, A constructive
definition of Dirichlet priors, Statistica Sinica 4, 1994.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics import log_sigmoid
from jaxprob.numerics.gammas import digamma, log_beta, log_gamma, trigamma


def expected_log_weights(sticks: Array) -> Array:
    """E[log π] (equations D.6, D.7).

    Args:
        sticks: (T - 1, 2) log a, log b.

    Returns:
        (T,).

    Example:
        >>> [round(float(w), 4) for w in expected_log_weights(jnp.zeros((1, 2)))]
        [-1.0, -1.0]
    """
    taken, left = _expected_logs(sticks)
    return _along(taken, left)


def log_expected_weights(sticks: Array) -> Array:
    """Logarithms of E[π], which add up to one (equation D.6).

    Args:
        sticks: (..., T - 1, 2) log a, log b.

    Returns:
        (..., T).

    Example:
        >>> jnp.exp(log_expected_weights(jnp.zeros((2, 2)))).tolist()
        [0.5, 0.25, 0.25]
    """
    log_odds = sticks[..., 0] - sticks[..., 1]
    return _along(log_sigmoid(log_odds), log_sigmoid(-log_odds))


def grad_expected(sticks: Array, weight: Array) -> Array:
    """The gradient of Σ_k N_k E[log π_k], derived by hand from equation D.7.

    With M_k = Σ_{j>k} N_j:

        ∂/∂log a = a (N ψ'(a) - (N + M) ψ'(a + b)),    ∂/∂log b = b (M ψ'(b) - (N + M) ψ'(a + b))

    Args:
        sticks: (T - 1, 2) log a, log b.
        weight: (T,) N.

    Returns:
        (T - 1, 2), nats per unit.

    Example:
        >>> slope = grad_expected(jnp.zeros((1, 2)), jnp.array([1.0, 1.0]))
        >>> [round(float(s), 4) for s in slope[0]]
        [0.3551, 0.3551]
    """
    n, m = weight[:-1], _after(weight)
    a, b = jnp.exp(sticks[:, 0]), jnp.exp(sticks[:, 1])
    of_a, of_b, of_both = trigamma(jnp.stack([a, b, a + b]))
    whole = (n + m) * of_both
    return jnp.stack([a * (n * of_a - whole), b * (m * of_b - whole)], axis=1)


def update(weight: Array, mean_alpha: Array | float) -> Array:
    """The sticks that so many examples lead to, given E[α] (equation D.8).

    Args:
        weight: (T,) N.
        mean_alpha: () E[α].

    Returns:
        (T - 1, 2) log a, log b.

    Example:
        >>> jnp.exp(update(jnp.array([1.0, 2.0, 1.0]), 1.0)).round(4).tolist()
        [[2.0, 4.0], [3.0, 2.0]]
    """
    return jnp.stack([jnp.log1p(weight[:-1]), jnp.log(mean_alpha + _after(weight))], axis=1)


def update_concentration(sticks: Array, alpha_prior: tuple[float, float]) -> Array:
    """The density of α that the sticks lead to (equation D.8).

    Args:
        sticks: (T - 1, 2) log a, log b.
        alpha_prior: s₁ and s₂.

    Returns:
        (2,) log w₁, log w₂.

    Example:
        >>> jnp.exp(update_concentration(jnp.zeros((1, 2)), (1.0, 1.0))).round(4).tolist()
        [2.0, 2.0]
    """
    shape = jnp.asarray(alpha_prior[0] + len(sticks), sticks.dtype)
    rate = alpha_prior[1] - jnp.sum(_expected_logs(sticks)[1])
    return jnp.log(jnp.stack([shape, rate]))


def mean_alpha(concentration: Array, alpha: float | None) -> Array | float:
    """E[α], or the number that it is.

    Args:
        concentration: (2,) log w₁, log w₂; (0,) where α is a number.
        alpha: that, or None.

    Returns:
        ().

    Example:
        >>> mean_alpha(jnp.zeros(0), 2.0)
        2.0
    """
    return jnp.exp(concentration[0] - concentration[1]) if alpha is None else alpha


def divergence(
    sticks: Array,
    concentration: Array,
    alpha: float | None,
    alpha_prior: tuple[float, float],
) -> Array:
    """The Kullback-Leibler divergence of sticks and α from their prior (equation D.9).

    Args:
        sticks: (T - 1, 2) log a, log b.
        concentration: (2,) log w₁, log w₂; (0,) where α is a number.
        alpha: that, or None.
        alpha_prior: s₁ and s₂.

    Returns:
        (), nats.

    Example:
        >>> one = jnp.log(jnp.array([[2.0, 1.0]]))
        >>> round(float(divergence(one, jnp.zeros(0), 1.0, (1.0, 1.0))), 4)
        0.1931
    """
    a, b = jnp.exp(sticks[:, 0]), jnp.exp(sticks[:, 1])
    taken, left = _expected_logs(sticks)
    mean, log_mean = mean_alpha(concentration, alpha), math.log(alpha or 1.0)
    of_alpha = jnp.zeros((), sticks.dtype)
    if alpha is None:
        shape, rate = jnp.exp(concentration[0]), jnp.exp(concentration[1])
        log_mean = digamma(shape) - concentration[1]
        first, second = alpha_prior
        of_alpha = (shape - first) * digamma(shape) - log_gamma(shape) + math.lgamma(first)
        of_alpha += first * (concentration[1] - math.log(second)) + shape * (second / rate - 1)
    each = (a - 1) * taken + (b - mean) * left - log_beta(a, b) - log_mean
    return jnp.sum(each) + of_alpha


def _expected_logs(sticks: Array) -> tuple[Array, Array]:
    """(T - 1,) each of equation D.7."""
    a, b = jnp.exp(sticks[:, 0]), jnp.exp(sticks[:, 1])
    of_a, of_b, whole = digamma(jnp.stack([a, b, a + b]))
    return of_a - whole, of_b - whole


def _along(taken: Array, left: Array) -> Array:
    """(..., T) logs of what each takes of what is left, the last one all of it."""
    nothing = jnp.zeros_like(left, shape=(*left.shape[:-1], 1))
    before = jnp.concatenate([nothing, jnp.cumsum(left, axis=-1)], axis=-1)
    return before + jnp.concatenate([taken, nothing], axis=-1)


def _after(weight: Array) -> Array:
    """(T - 1,) Σ_{j>k} N_j."""
    return jax.lax.cumsum(weight, reverse=True)[1:]
