"""The arguments of a comparison: what was given, and its values in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.testing.program import is_array


class Arguments:
    """Parameters and the rest, with the values that JAX gives them as it is configured now.

    Args:
        args: params and the rest, pytrees of arrays.

    Raises:
        TypeError: where parameters are not floating.
    """

    def __init__(self, args: tuple):
        given, self.tree = jax.tree.flatten(args[0])
        self._given = [a if is_array(a) else jax.device_put(a) for a in given]
        for leaf in self._given:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    "params: expected arrays of floating numbers, which derivatives are taken in, "
                    f"got {leaf.dtype}; convert them with .astype(float)"
                )
        self._rest = args[1:]
        self.dtypes = [jax.dtypes.canonicalize_dtype(a.dtype) for a in self._given]
        self.given_dtypes = [a.dtype for a in self._given]
        self.leaves = [
            np.asarray(a).astype(d) for a, d in zip(self._given, self.dtypes, strict=True)
        ]
        self._wide_rest = jax.tree.map(_widened, self._rest)

    def theta(self) -> np.ndarray:
        """The parameters as one vector, float64."""
        return np.concatenate([np.zeros(0), *(a.astype(np.float64).ravel() for a in self.leaves)])

    def traceable(self, wide: bool) -> tuple:
        """Params and the rest as NumPy arrays, in float64 or in the dtype in which JAX has them."""
        leaves = [a.astype(np.float64) if wide else a for a in self.leaves]
        rest = self._wide_rest if wide else self._rest
        return (jax.tree.unflatten(self.tree, leaves), *jax.tree.map(_as_numpy, rest))

    def concrete(self, factor: float, wide: bool) -> tuple:
        """Params, multiplied, and the rest as arrays of the kind that was given, NumPy or JAX."""
        leaves = []
        for given, leaf in zip(self._given, self.leaves, strict=True):
            scaled = leaf.astype(np.float64) * factor
            leaves.append(_alike(scaled.astype(np.float64 if wide else given.dtype), given))
        rest = jax.tree.map(_alike, self._wide_rest, self._rest) if wide else self._rest
        return (jax.tree.unflatten(self.tree, leaves), *rest)


def _widened(leaf: Any) -> Any:
    """An array as float64, with the value that it has in JAX now."""
    if not is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(leaf.dtype)).astype(np.float64)


def _alike(leaf: Any, given: Any) -> Any:
    """An array of JAX where one was given. `jnp.asarray` would compile a program for each shape."""
    return jax.device_put(leaf) if isinstance(given, jax.Array) else leaf


def _as_numpy(leaf: Any) -> Any:
    if not is_array(leaf) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf
    return np.asarray(leaf)
