"""Newton steps from Hessians that may be badly scaled, singular, or not quite positive."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve


class Factor(NamedTuple):
    """A Cholesky factor of D^(-1/2) H D^(-1/2) + ridge, D the diagonal of H."""

    lower: Array  # (p, p)
    scale: Array  # (p,), D^(1/2)
    ridge: Array  # ()

    def solve(self, v: Array) -> Array:
        """(H + ridge D)⁻¹ v for v (p,)."""
        return cho_solve((self.lower, True), v / self.scale) / self.scale

    def singular(self) -> Array:
        """Whether some direction has no curvature beyond rounding."""
        floor = 16 * len(self.scale) * jnp.finfo(self.scale.dtype).eps
        return jnp.min(jnp.diag(self.lower)) ** 2 <= floor + self.ridge

    def untouched(self) -> Array:
        """Whether the ridge is as small as it gets."""
        return self.ridge <= 2 * _least_ridge(len(self.scale), self.lower.dtype)


def _least_ridge(size: int, dtype: jnp.dtype) -> Array:
    return jnp.asarray(2 * size * jnp.finfo(dtype).eps, dtype)


def factorise(h: Array) -> Factor:
    """Factorise a positive semidefinite Hessian, adding as little as rounding makes necessary.

    Args:
        h: (p, p), symmetric.

    Returns:
        A Factor; full of NaN where h is not finite.
    """
    diagonal = jnp.diag(h)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    scaled = h / (scale[:, None] * scale[None, :])
    eye = jnp.eye(len(scale), dtype=h.dtype)

    def attempt(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        ridge = 100 * carry[0]
        return ridge, jnp.linalg.cholesky(scaled + ridge * eye, symmetrize_input=False)

    def failed(carry: tuple[Array, Array]) -> Array:
        ridge, lower = carry
        return jnp.isnan(lower[-1, -1]) & (ridge < 1.0)

    untried = _least_ridge(len(scale), h.dtype) / 100, jnp.full_like(h, jnp.nan)
    ridge, lower = jax.lax.while_loop(failed, attempt, untried)
    return Factor(lower, scale, ridge)
