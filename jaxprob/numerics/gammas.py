r"""The Gamma function and its relatives, for positive arguments.

The derivatives of log Γ are series where z is large, to which the recurrence leads from anywhere:

    ψ(z)  = log u - 1/(2u) - Σ_j B_2j / (2j u^2j) - Σ_{k<10} 1/(z+k),         u = z + 10     (G.1)
    ψ'(z) = 1/u + 1/(2u²) + Σ_j B_2j / u^(2j+1)   + Σ_{k<10} 1/(z+k)²                        (G.2)

with Bernoulli's numbers B_2j up to j = 7, which leaves errors below rounding. Those of JAX are as
exact and take any argument, but `polygamma` is a hundred operations to compile, and reflections for
negative arguments as many: a third of what a Dirichlet-process mixture compiled.

Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 6.3.18, 6.4.12, 6.3.6.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln, polygamma

_LARGE = 10.0  # from which on the series have all digits
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


@jax.custom_jvp
@jax.jit
def log_gamma(z: Array) -> Array:
    """Log Γ(z).

    Args:
        z: positive.

    Returns:
        As z is.

    Example:
        >>> round(float(log_gamma(jnp.array(4.0))), 4)
        1.7918
    """
    return gammaln(z)


@jax.custom_jvp
@jax.jit  # so that it is traced once for each shape
def digamma(z: Array) -> Array:
    """The derivative ψ(z) of log Γ(z) (equation G.1).

    Args:
        z: positive.

    Returns:
        As z is.

    Example:
        >>> round(float(digamma(jnp.array(1.0))), 4)
        -0.5772
    """
    u = z + _LARGE
    of_small = jnp.sum(1 / _steps(z), axis=-1)
    divided = [b / (2 * j + 2) for j, b in enumerate(_BERNOULLI)]
    return jnp.log(u) - 1 / (2 * u) - _series(divided, u) - of_small


@jax.custom_jvp
@jax.jit
def trigamma(z: Array) -> Array:
    """The second derivative ψ'(z) of log Γ(z) (equation G.2).

    Args:
        z: positive.

    Returns:
        As z is.

    Example:
        >>> round(float(trigamma(jnp.array(1.0))), 4)
        1.6449
    """
    u = z + _LARGE
    of_small = jnp.sum(1 / _steps(z) ** 2, axis=-1)
    return 1 / u + 1 / (2 * u * u) + _series(_BERNOULLI, u) / u + of_small


def _steps(z: Array) -> Array:
    """(..., 10) z, z + 1 and so on."""
    steps = jnp.arange(int(_LARGE), dtype=z.dtype)
    return z[..., None] + steps.reshape(*[1] * z.ndim, -1)


def _series(terms: Sequence[float], u: Array) -> Array:
    """Σ_j terms_j / u^(2j), j from 1."""
    square, value = 1 / (u * u), jnp.zeros_like(u)
    for term in reversed(terms):
        value = (value + term) * square
    return value


@log_gamma.defjvp
def _log_gamma_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return log_gamma(z), digamma(z) * dz


@digamma.defjvp
def _digamma_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return digamma(z), trigamma(z) * dz


@trigamma.defjvp
def _trigamma_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return trigamma(z), polygamma(2, z) * dz


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
    remainder = stirling_remainder(jnp.stack([safe, small + safe]))
    by_series = remainder[0] - remainder[1]
    by_series += small - small * jnp.log(safe) - (small + safe - 0.5) * ratio
    of_small, of_large, of_both = log_gamma(jnp.stack([small, large, small + large]))
    return of_small + jnp.where(large < _LARGE, of_large - of_both, by_series)


@log_beta.defjvp
def _log_beta_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    of_a, of_b, whole = digamma(jnp.stack([a, b, a + b]))
    return log_beta(a, b), (of_a - whole) * da + (of_b - whole) * db


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
