"""Host arrays on their way to a device, large ones by threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.runtime.memory import aligned

_LARGE = 2**24  # bytes from which on threads are worth their start
_MOST_THREADS = 4


def to_device(host: np.ndarray) -> Array:
    """A copy on JAX's default device; `jax.numpy.array` compiles a program for each shape.

    Args:
        host: any array of numbers.

    Returns:
        An array of the same dtype.

    Example:
        >>> to_device(np.arange(3.0, dtype="float32")).tolist()
        [0.0, 1.0, 2.0]
    """
    return load([host])[0]


def picked(tree: Any, index: Any) -> Any:
    """Entries of all arrays of a tree, by NumPy: JAX compiles a program for each shape.

    Args:
        tree: of arrays that share their first axis.
        index: a number, a slice or an array of numbers.

    Returns:
        The same tree, of arrays on JAX's default device, those of JAX in their dtype, whether or
        not float64 is enabled where this is called; by JAX for arrays that are traced.

    Example:
        >>> [a.tolist() for a in picked((np.arange(3), np.eye(3)), 1)]
        [1, [0.0, 1.0, 0.0]]
    """
    leaves, structure = jax.tree.flatten(tree)
    if any(isinstance(a, Tracer) for a in leaves):
        return jax.tree.map(lambda a: a[index], tree)
    host = [np.asarray(a) for a in leaves]
    dtypes = [jax.dtypes.canonicalize_dtype(a.dtype) for a in host]
    dtypes = [a.dtype if isinstance(a, Array) else t for a, t in zip(leaves, dtypes, strict=True)]
    with jax.enable_x64(True):
        chosen = load([np.asarray(a[index], t) for a, t in zip(host, dtypes, strict=True)])
    return jax.tree.unflatten(structure, chosen)


def copied(host: np.ndarray) -> np.ndarray:
    """A copy in NumPy's memory, as fast as the machine makes one.

    Args:
        host: any array of numbers.

    Returns:
        An array of the same shape and dtype, its axes in their order in memory.

    Example:
        >>> copied(np.arange(3)).tolist()
        [0, 1, 2]
    """
    target = aligned(host.shape, host.dtype)
    if host.nbytes >= _LARGE:
        _copy_by_threads([(target, host)], _nothing)
    else:
        np.copyto(target, host)
    return target


def _nothing() -> None:
    """What to do if nothing is to be done."""


def load(
    arrays: list[Any],
    *,
    check: Callable[[], None] = _nothing,
    meanwhile: Callable[[], None] = _nothing,
) -> list[Any]:
    """Copies of NumPy's arrays on JAX's default device.

    NumPy asks for memory in huge pages, which makes the first copy of a large array several times
    faster than JAX's; a CPU device takes it as it is, if it is aligned.

    Args:
        arrays: of NumPy; what is none, such as an array of JAX or None, passes through.
        check: what to do first, but while large arrays are being copied already; it may raise.
        meanwhile: what to do then, while large arrays are copied; not called for small ones.

    Returns:
        A list like `arrays`.

    Example:
        >>> one, none = load([np.ones((3, 2), "float32"), None])
        >>> one.shape, none
        ((3, 2), None)
    """
    is_host = [isinstance(a, np.ndarray) for a in arrays]
    large = sum(a.nbytes for a, here in zip(arrays, is_host, strict=True) if here) >= _LARGE
    if jax.default_backend() == "cpu":
        pairs_of = zip(arrays, is_host, strict=True)
        targets = [aligned(a.shape, a.dtype) if here else a for a, here in pairs_of]
        pairs = [(t, a) for t, a, here in zip(targets, arrays, is_host, strict=True) if here]
        if large:
            _copy_by_threads(pairs, lambda: (check(), meanwhile()))
        else:
            check()
            for pair in pairs:
                np.copyto(*pair)
        return [
            jax.device_put(t, may_alias=True) if here else t
            for t, here in zip(targets, is_host, strict=True)
        ]
    put = [jax.device_put(a) if here else a for a, here in zip(arrays, is_host, strict=True)]
    check()  # transfers do not wait
    if large:
        meanwhile()
    return put


def _copy_by_threads(
    pairs: list[tuple[np.ndarray, np.ndarray]], meanwhile: Callable[[], Any]
) -> None:
    """Copy each pair's second array into its first, as many parts at a time as there are cores."""
    count = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as threads:
        copies = []
        for target, host in pairs:
            step = max(1, -(-len(host) // count))
            parts = (slice(start, start + step) for start in range(0, len(host), step))
            copies += [threads.submit(np.copyto, target[part], host[part]) for part in parts]
        meanwhile()
        for one in copies:
            one.result()
