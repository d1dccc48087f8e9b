"""Settings that the variational fit and the sampler share."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprob.contract.settings import is_number


def check_alpha(alpha: Any, alpha_prior: Any) -> tuple[float | None, tuple[float, float]]:
    """The concentration, checked.

    Args:
        alpha: α > 0, or None where it is learned.
        alpha_prior: shape and rate > 0 of its Gamma density.

    Returns:
        The same as floats.

    Raises:
        ValueError: for what is none of that.

    Example:
        >>> check_alpha(None, (2, 1))
        (None, (2.0, 1.0))
    """
    if alpha is not None and not _is_positive(alpha):
        raise ValueError(f"alpha: expected a positive number, or None to learn it, got {alpha!r}")
    is_pair = isinstance(alpha_prior, tuple | list) and len(alpha_prior) == 2
    if not (is_pair and all(map(_is_positive, alpha_prior))):
        raise ValueError(
            f"alpha_prior: expected two positive numbers, shape and rate, got {alpha_prior!r}"
        )
    shape, rate = map(float, alpha_prior)
    return None if alpha is None else float(alpha), (shape, rate)


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def check_key(key: Any) -> None:
    """Raise unless it is a typed PRNG key.

    Args:
        key: what the user gave.

    Raises:
        TypeError: for what is none.

    Example:
        >>> check_key(jax.random.key(0))
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key: expected a typed PRNG key, such as jax.random.key(0), got {key!r}")
