"""What many fits keep of the caller's arrays: copies, or of what is too large to copy, digests.

A Fit may be asked for more later, which has to be about the data that were fitted, and NumPy's
arrays can be changed in place. So the arrays of the lanes are copied; above `_MOST_COPIED` bytes in
all they stay where they are, and a digest for each stretch of lanes tells when they have changed.
"""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from jaxprob.data.loading import copied

_MOST_COPIED = 1 << 30  # bytes of all arrays together
_STRETCH = 1 << 20  # bytes, or one lane


class Seal(NamedTuple):
    """Digests of an array that is the caller's."""

    name: str
    lanes: int  # in each stretch
    digests: tuple[int, ...]

    def check(self, array: np.ndarray, i: int) -> None:
        """Raise a ValueError if the array has changed where a lane is.

        Args:
            array: (B, ...), the one that was sealed.
            i: the lane, also from the end.
        """
        stretch = i % len(array) // self.lanes
        if _digest(array, stretch, self.lanes) != self.digests[stretch]:
            raise ValueError(
                f"{self.name}: expected the array that was fitted, got one that has changed since "
                f"(lane {i}); what is larger than {_MOST_COPIED >> 20} MiB is not copied, so pass "
                "a copy, or ask before changing it"
            )


def kept(
    own: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arrays of lanes, safe from changes of the caller's unless they are too large to copy.

    Args:
        own: arrays (B, ...) of NumPy or JAX, by name.
        given: what the caller gave for them.

    Returns:
        The arrays, copied where they may be the caller's memory, and the names of those that are
        still.

    Example:
        >>> weights = np.ones((2, 3))
        >>> own, lent = kept({"weights": weights}, {"weights": weights})
        >>> weights[0, 0] = 7
        >>> own["weights"][0].tolist(), lent
        ([1.0, 1.0, 1.0], ())
    """
    lent = tuple(name for name, a in own.items() if _may_be_lent(a, given.get(name)))
    if sum(own[name].nbytes for name in lent) > _MOST_COPIED:
        return dict(own), lent
    return {name: copied(a) if name in lent else a for name, a in own.items()}, ()


def _may_be_lent(array: Any, given: Any) -> bool:
    if not isinstance(array, np.ndarray) or given is None:
        return False
    if isinstance(given, np.ndarray):
        return np.may_share_memory(array, given)
    return not isinstance(given, Array | list | tuple)  # a DataFrame may be a view of an array


def seals(own: Mapping[str, Any], lent: tuple[str, ...]) -> tuple[Seal, ...]:
    """Seals of the arrays that are the caller's.

    Args:
        own: arrays (B, ...) by name.
        lent: which of them.

    Returns:
        One for each.

    Example:
        >>> weights = np.ones((2, 3))
        >>> (seal,) = seals({"weights": weights}, ("weights",))
        >>> seal.check(weights, 1)
    """
    return tuple(_sealed(name, own[name]) for name in lent)


def _sealed(name: str, array: np.ndarray) -> Seal:
    lanes = max(1, _STRETCH // max(1, array[0].nbytes))
    count = -(-len(array) // lanes)
    return Seal(name, lanes, tuple(_digest(array, k, lanes) for k in range(count)))


def _digest(array: np.ndarray, stretch: int, lanes: int) -> int:
    some = array[stretch * lanes : (stretch + 1) * lanes]
    return zlib.crc32(np.ascontiguousarray(some).data)
