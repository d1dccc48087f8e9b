"""The examples of a problem, and where they are."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

_CORE_CACHE = 1 << 18  # bytes, of one core


_SHARED_CACHE = 1 << 23  # a part of that of all cores


_OUT_OF_CACHE = 1 << 27  # far more than that: what is left of one read is gone at the next


class Rows(NamedTuple):
    """The data of n examples."""

    x: Array  # (n, d)
    y: Array | None  # (n,), None where the model is a density of x alone
    weights: Array | None  # (n,)
    offset: Array | None  # (n,) or (n, K)

    @property
    def examples(self) -> tuple[Array, ...]:
        """What the functions of a model take as examples."""
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def extras(self) -> dict[str, Array]:
        """Keywords for the functions of a model."""
        return {} if self.offset is None else {"offset": self.offset}


class Known(NamedTuple):
    """What is known of a problem before it is looked at: its information near some point."""

    theta: Array  # (p,)
    information: Array  # (p, p), minus the Hessian of the log-likelihood
    spread: Array  # (), log of how many times that at theta it is at most


class Shards(NamedTuple):
    """Rows spread over the devices of one mesh axis."""

    mesh: Mesh
    axis: str

    @property
    def count(self) -> int:
        """How many devices."""
        return self.mesh.shape[self.axis]


def block_bytes(x: Any, shards: Shards | None) -> int | None:
    """The size of the blocks in which a concrete matrix is best read, see `fused_pass`.

    Args:
        x: (n, d) array, or its shape and dtype where it will be on the default device.
        shards: where its rows are, if on several devices.
    """
    platform = next(iter(x.devices())).platform if isinstance(x, Array) else jax.default_backend()
    if platform != "cpu":
        return None
    if shards is not None:
        return _CORE_CACHE
    return _SHARED_CACHE if x.size * x.dtype.itemsize >= _OUT_OF_CACHE else None


def take(data: Rows, index: Array | np.ndarray) -> Rows:
    """The rows of an index."""
    return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), data)
