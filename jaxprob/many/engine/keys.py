"""Keys of random numbers, as arguments."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def check_key(key: Any) -> Array:
    """The key, if it is one.

    Args:
        key: what the user gave.

    Returns:
        The key.

    Raises:
        TypeError: for what is no typed PRNG key.

    Example:
        >>> check_key(jax.random.key(0)).shape
        ()
    """
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key: expected a typed PRNG key, such as jax.random.key(0), got {key!r}")
    if key.shape != ():
        raise ValueError(f"key: expected a single key, got shape {key.shape}")
    return key
