"""The Gamma function and its relatives against mpmath, for small and for large arguments."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.special import digamma
from tolerances import EPS

from jaxprob.numerics import gammas

pytestmark = pytest.mark.digits

ARGUMENTS = np.concatenate([np.logspace(-6, 8, 57), np.linspace(0.5, 12, 47)])


def exact(order, z):
    """The derivative of so high an order of log Γ."""
    with mpmath.workdps(40):
        each = (
            mpmath.loggamma(v) if order == 0 else mpmath.psi(order - 1, v) for v in map(float, z)
        )
        return np.array([float(v) for v in each])


@pytest.mark.parametrize(
    ("order", "function"), list(enumerate([gammas.log_gamma, gammas.digamma, gammas.trigamma]))
)
def test_derivatives_of_the_gamma_function_have_all_digits(order, function, dtype):
    z = ARGUMENTS.astype(dtype)
    expected = exact(order, z)
    near = 1 + np.abs(expected) if order < 2 else np.abs(expected)  # the first two have zeros
    np.testing.assert_array_less(np.abs(function(jnp.asarray(z)) - expected), 8 * EPS[dtype] * near)
    slope, expected = jax.vmap(jax.grad(function))(jnp.asarray(z)), exact(order + 1, z)
    near = 1 + np.abs(expected) if order < 1 else np.abs(expected)
    np.testing.assert_array_less(np.abs(slope - expected), 8 * EPS[dtype] * near)


def test_where_gammas_end():
    assert gammas.digamma(jnp.array([0.0, jnp.inf])).tolist() == [-np.inf, np.inf]
    assert gammas.trigamma(jnp.array([0.0, jnp.inf])).tolist() == [np.inf, 0.0]
    assert np.isnan(gammas.digamma(jnp.nan))
    assert np.isnan(gammas.trigamma(jnp.nan))


@pytest.mark.parametrize("a", [1e-8, 0.5, 3.0, 11.0])
def test_the_beta_function_has_all_digits(a, dtype):
    """By mpmath, and its derivatives."""
    for b in (1e-3, 1.0, 7.0, 9.99, 10.01, 25.0, 1e4):
        a, b = (float(np.asarray(v, dtype)) for v in (a, b))
        with mpmath.workdps(60):
            expected = float(mpmath.log(mpmath.beta(a, b)))
            size = sum(float(abs(mpmath.loggamma(v))) for v in (a, b))
        one, two = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
        assert abs(float(gammas.log_beta(one, two)) - expected) <= 8 * EPS[dtype] * (1 + size)
        slope = jax.grad(gammas.log_beta, argnums=(0, 1))(one, two)
        expected = digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)
        scale = 16 * EPS[dtype] * (1 + abs(digamma(a)) + abs(digamma(b)))
        np.testing.assert_allclose(slope, expected, rtol=0, atol=scale)
