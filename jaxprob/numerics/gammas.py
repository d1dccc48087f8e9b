"""The Beta function, for arguments of which one may be large."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, gammaln

_LARGE = 10.0  # from which on the series has all digits
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


@jax.custom_jvp
def log_beta(a: Array, b: Array) -> Array:
    """Log B(a, b) = log Γ(a) + log Γ(b) - log Γ(a + b).

    Where the larger one is large, the difference of its two terms is that of Stirling's series,
    in which what is large cancels (`jax.scipy.special.betaln` has six digits there).

    Args:
        a: positive.
        b: positive, of the same shape.

    Returns:
        As they are.

    Example:
        >>> float(log_beta(jnp.array(1.0), jnp.array(1e8))) / float(jnp.log(1e8))
        -1.0
    """
    small, large = jnp.minimum(a, b), jnp.maximum(a, b)
    safe = jnp.maximum(large, _LARGE)
    ratio = jnp.log1p(small / safe)
    by_series = stirling_remainder(safe) - stirling_remainder(small + safe)
    by_series += small - small * jnp.log(safe) - (small + safe - 0.5) * ratio
    directly = gammaln(large) - gammaln(small + large)
    return gammaln(small) + jnp.where(large < _LARGE, directly, by_series)


@log_beta.defjvp
def _log_beta_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    whole = digamma(a + b)
    return log_beta(a, b), (digamma(a) - whole) * da + (digamma(b) - whole) * db


def stirling_remainder(z: Array) -> Array:
    """Log Γ(z) - (z - ½) log z + z - ½ log 2π, for z ≥ 10.

    Args:
        z: floating.

    Returns:
        As z is.

    Example:
        >>> round(float(stirling_remainder(jnp.array(10.0))), 6)
        0.008331
    """
    square, value = 1 / (z * z), jnp.zeros_like(z)
    for term in reversed(_STIRLING):
        value = value * square + term
    return value / z
