"""Sums and differences of two numbers, with what rounding leaves."""

from jax import Array


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The sum a + b as a rounded part and its exact rounding error.

    Args:
        a: floating, any shape.
        b: of the same shape and dtype.

    Returns:
        (s, e) with s = fl(a + b) and s + e = a + b exactly, barring overflow.

    Example:
        >>> import jax.numpy as jnp
        >>> s, e = two_sum(jnp.float32(1e8), jnp.float32(1.0))
        >>> float(s), float(e)
        (100000000.0, 1.0)

    References:
        Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B.
    """
    s = a + b
    virtual = s - a
    return s, (a - (s - virtual)) + (b - virtual)


def two_diff(a: Array, b: Array) -> tuple[Array, Array]:
    """The difference a - b as a rounded part and its exact rounding error.

    Args:
        a: floating, any shape.
        b: of the same shape and dtype.

    Returns:
        (d, e) with d = fl(a - b) and d + e = a - b exactly, barring overflow.

    Example:
        >>> import jax.numpy as jnp
        >>> d, e = two_diff(jnp.float32(1e8), jnp.float32(-1.0))
        >>> float(d), float(e)
        (100000000.0, 1.0)
    """
    return two_sum(a, -b)
