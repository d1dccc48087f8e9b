r"""Kernels: densities in d dimensions that depend on the distance from their centre only.

With s = ‖u‖² the squared distance in units of the bandwidth, and V_d = π^(d/2) / Γ(d/2 + 1) the
volume of the unit ball,

    K(u) = k(s) / c,    c = ∫ k(‖u‖²) du
    gaussian        k = exp(-s/2)           c = (2π)^(d/2)
    epanechnikov    k = (1 - s)₊            c = V_d · 2 / (d + 2)
    tophat          k = 1{s < 1}            c = V_d
    exponential     k = exp(-√s)            c = V_d · d!

since ∫ k du = d V_d ∫₀^∞ k(r²) r^(d-1) dr. All have k(0) = 1, and their conventions are those of
`sklearn.neighbors.KernelDensity`.

Source: Silverman, Density Estimation for Statistics and Data Analysis, 1986, section 4.2.1;
Wand and Jones, Kernel Smoothing, 1995, section 4.5.
"""

import math

import jax.numpy as jnp
from jax import Array

KERNELS = ("gaussian", "epanechnikov", "tophat", "exponential")
COMPACT = ("epanechnikov", "tophat")
"""Those that are zero from a distance of one bandwidth on."""


def check_kernel(kernel: str) -> None:
    """Raise unless there is such a kernel.

    Args:
        kernel: its name.

    Raises:
        ValueError: for another one.

    Example:
        >>> check_kernel("gaussian")
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel: expected one of {KERNELS}, got {kernel!r}")


def log_normaliser(kernel: str, d: int) -> float:
    """The logarithm log c of the integral of a kernel's shape k.

    Args:
        kernel: one of KERNELS.
        d: number of dimensions, at least 1.

    Returns:
        log c, nats.

    Raises:
        ValueError: for another kernel.

    Example:
        >>> round(log_normaliser("epanechnikov", 1), 6) == round(math.log(4 / 3), 6)
        True
    """
    check_kernel(kernel)
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return {
        "gaussian": d / 2 * math.log(2 * math.pi),
        "epanechnikov": ball + math.log(2 / (d + 2)),
        "tophat": ball,
        "exponential": ball + math.lgamma(d + 1),
    }[kernel]


def log_kernel(squared: Array, kernel: str, d: int) -> Array:
    """The log-density log K of a kernel at a squared distance.

    Args:
        squared: s ≥ 0, any shape.
        kernel: one of KERNELS.
        d: number of dimensions.

    Returns:
        Of the shape of s, nats; -∞ outside of the support of a compact kernel.

    Raises:
        ValueError: for another kernel.

    Example:
        >>> round(float(log_kernel(jnp.array(0.0), "gaussian", 1)), 4)
        -0.9189
    """
    return log_shape(squared, kernel) - log_normaliser(kernel, d)


def log_kernel_slope(squared: Array, kernel: str) -> Array:
    """The derivative d log K / ds of a log-kernel in the squared distance.

    Args:
        squared: s ≥ 0, any shape.
        kernel: one of KERNELS.

    Returns:
        Of the shape of s. Zero at s = 0 for the exponential kernel, which has a kink there: its
        gradient in u, twice this times u, is then the mean of those around. NaN outside of the
        support of a compact kernel.

    Raises:
        ValueError: for another kernel.

    Example:
        >>> float(log_kernel_slope(jnp.array(0.5), "epanechnikov"))
        -2.0
    """
    check_kernel(kernel)
    if kernel in COMPACT:
        inside = squared < 1
        return jnp.where(inside, shape_slope(squared, kernel) / shape(squared, kernel), jnp.nan)
    return {"gaussian": _half, "exponential": _over_root}[kernel](squared)


def log_shape(squared: Array, kernel: str) -> Array:
    """The logarithm log k of a kernel that is 1 at its centre.

    Args:
        squared: s ≥ 0, any shape.
        kernel: one of KERNELS.

    Returns:
        Of the shape of s.

    Raises:
        ValueError: for another kernel.

    Example:
        >>> float(log_shape(jnp.array(4.0), "exponential"))
        -2.0
    """
    check_kernel(kernel)
    if kernel in COMPACT:
        return jnp.log(shape(squared, kernel))
    return {"gaussian": lambda s: -s / 2, "exponential": lambda s: -_root(s)}[kernel](squared)


def shape(squared: Array, kernel: str) -> Array:
    """A kernel k that is 1 at its centre.

    Args:
        squared: s ≥ 0, any shape.
        kernel: one of KERNELS.

    Returns:
        Of the shape of s.

    Raises:
        ValueError: for another kernel.

    Example:
        >>> shape(jnp.array([0.0, 0.25, 1.0]), "epanechnikov").tolist()
        [1.0, 0.75, 0.0]
    """
    if kernel == "tophat":
        return jnp.where(squared < 1, 1.0, jnp.where(squared >= 1, 0.0, squared))  # or NaN
    if kernel == "epanechnikov":
        return jnp.where(squared >= 1, 0.0, 1 - squared)
    return jnp.exp(log_shape(squared, kernel))


def shape_slope(squared: Array, kernel: str) -> Array:
    """The derivative dk/ds of `shape`.

    Args:
        squared: s ≥ 0, any shape.
        kernel: one of KERNELS.

    Returns:
        Of the shape of s; at a kink as `log_kernel_slope` has it, and zero on a boundary.

    Raises:
        ValueError: for another kernel.

    Example:
        >>> shape_slope(jnp.array([0.5, 2.0]), "epanechnikov").tolist()
        [-1.0, 0.0]
    """
    if kernel == "tophat":
        return jnp.zeros_like(squared)
    if kernel == "epanechnikov":
        return jnp.where(squared < 1, -jnp.ones_like(squared), 0.0)
    return shape(squared, kernel) * log_kernel_slope(squared, kernel)


def _root(s: Array) -> Array:
    """√s, of which the derivative at zero is zero."""
    return jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1.0)), s)  # not 0: NaN stays


def _half(s: Array) -> Array:
    return jnp.full_like(s, -0.5)


def _over_root(s: Array) -> Array:
    return jnp.where(s > 0, -0.5 / jnp.sqrt(jnp.where(s > 0, s, 1.0)), 0.0)
