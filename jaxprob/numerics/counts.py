"""Poisson probabilities that keep their digits where counts are large.

Of log p(y) = y z - e^z - log y! the terms are some y log y, and their sum is some log y: of a
million counts nothing is left in float32. So what depends on z is taken about its best value,
log y:

    log p(y) = -y φ(z - log y) - (log y! - y log y + y),        φ(t) = e^t - 1 - t

of which no term is larger than it has to be. Stirling's series gives the last one, of small counts
a table.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.gammas import stirling_remainder

_NEAR = 0.5  # of t, where the series has all digits
_TERMS = 16
_LARGE = 10  # counts, from which on Stirling's series has all digits
_SMALL = [math.lgamma(k + 1) - k * math.log(k or 1) + k for k in range(_LARGE)]


@jax.custom_jvp
def poisson_misfit(y: Array, z: Array) -> Array:
    """The divergence y log(y / μ) - y + μ of a rate μ = e^z from the best one, y.

    Args:
        y: counts, floating.
        z: logarithms of rates, of the same shape.

    Returns:
        Nats, as they are; half of the deviance.

    Example:
        >>> poisson_misfit(jnp.array([0.0, 1.0]), jnp.array([0.0, 0.0])).tolist()
        [1.0, 0.0]
    """
    some = y > 0
    t = z - jnp.log(jnp.where(some, y, 1.0))
    near = jnp.where(jnp.abs(t) < _NEAR, t, 0.0)
    series = jnp.zeros_like(near)
    for k in reversed(range(_TERMS)):
        series = series * near + 1 / math.factorial(k + 2)
    phi = jnp.where(jnp.abs(t) < _NEAR, near**2 * series, jnp.expm1(t) - t)
    return jnp.where(some, y * phi, jnp.exp(z))


@poisson_misfit.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (y, z), (_, dz) = primals, tangents  # counts have no derivative
    return poisson_misfit(y, z), (jnp.exp(z) - y) * dz


def poisson_log_prob(y: Array, z: Array) -> Array:
    """The log-probability y z - e^z - log y! of counts.

    Args:
        y: counts, floating.
        z: logarithms of rates, of the same shape.

    Returns:
        Nats, as they are.

    Example:
        >>> round(float(poisson_log_prob(jnp.array(2.0), jnp.array(0.0))), 4)
        -1.6931
    """
    return -(poisson_misfit(y, z) + _at_best(jax.lax.stop_gradient(y)))


def _at_best(y: Array) -> Array:
    """Minus the log-probability of y where its rate is y: log y! - y log y + y."""
    large = jnp.maximum(y, _LARGE)
    by_series = jnp.log(2 * math.pi * large) / 2 + stirling_remainder(large)
    small = jnp.asarray(_SMALL, y.dtype)[jnp.clip(y, 0, _LARGE - 1).astype(jnp.int32)]
    return jnp.where(y < _LARGE, small, by_series)
