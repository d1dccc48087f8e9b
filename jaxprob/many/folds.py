"""Which examples are held out together: folds, stratified, grouped, repeated."""

from typing import Any

import jax
import numpy as np
from jax import Array

from jaxprob.many.engine.keys import check_key


def folds(
    y: Any,
    key: Array,
    *,
    num_folds: int = 5,
    repeats: int = 1,
    stratified: bool = True,
    groups: Any = None,
) -> np.ndarray:
    """Assign each example to one of K folds, several times over.

    Args:
        y: (n,) labels, or anything where folds are not stratified.
        key: a typed PRNG key.
        num_folds: K.
        repeats: R, how many assignments.
        stratified: whether each fold has its share of every class: as many as the others or one
            less, of each class and in all.
        groups: (n,) of any type, such as a person's name; examples of a group stay together, and
            folds are about equally large. Classes are left to chance then.

    Returns:
        (R, n) int32, 0..K-1.

    Raises:
        ValueError: for fewer than two folds, more of them than examples or groups, and a length of
            groups other than n.
        TypeError: for a key that is none.

    Example:
        >>> folds([0, 0, 0, 1, 1, 1], jax.random.key(0), num_folds=3).shape
        (1, 6)
    """
    check_key(key)
    y = np.asarray(y)
    n = len(y)
    if num_folds < 2:
        raise ValueError(f"num_folds: expected at least 2, got {num_folds}")
    if num_folds > n:
        raise ValueError(
            f"num_folds: expected at most one for each of {n} examples, got {num_folds}"
        )
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    seeds = np.asarray(jax.random.key_data(jax.random.split(key, repeats)))
    generators = [np.random.default_rng(seed) for seed in seeds]
    if groups is not None:
        _, group = check_groups(groups, n)
        if group.max() + 1 < num_folds:
            raise ValueError(
                f"num_folds: expected at most one for each of {group.max() + 1} groups, "
                f"got {num_folds}"
            )
        return np.stack([_grouped(rng, group, num_folds) for rng in generators])
    return np.stack([_dealt(rng, y if stratified else None, n, num_folds) for rng in generators])


def check_groups(groups: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """What groups there are, and to which of them each example belongs.

    Args:
        groups: (n,) of any type that sorts.
        n: the number of examples.

    Returns:
        (G,) sorted, and (n,) 0..G-1.

    Raises:
        ValueError: for another shape, and missing entries.
        TypeError: for types that do not sort together.

    Example:
        >>> names, member = check_groups(["b", "a", "b"], 3)
        >>> names.tolist(), member.tolist()
        (['a', 'b'], [1, 0, 1])
    """
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups: expected shape ({n},), one of each example, got {groups.shape}")
    by_one = groups.dtype == object
    missing = [_is_missing(g) for g in groups] if by_one else groups != groups
    if np.any(missing):
        i = np.argmax(missing)
        raise ValueError(
            f"groups: expected one of each example, got {groups[i]} for example {i}; drop such "
            "examples, or give them a group of their own"
        )
    try:
        return np.unique(groups, return_inverse=True)
    except TypeError as error:
        kinds = sorted({type(g).__name__ for g in groups})
        raise TypeError(
            f"groups: expected values that sort together, got some of {', '.join(kinds)}"
        ) from error


def _is_missing(value: Any) -> bool:
    """Whether it is None, or does not equal itself, as NaN and what libraries have for it."""
    try:
        return value is None or not bool(value == value)
    except TypeError:  # pandas.NA, of which nothing is known
        return True


def _dealt(rng: np.random.Generator, y: np.ndarray | None, n: int, num_folds: int) -> np.ndarray:
    """Like cards: in random order, class after class where they are stratified."""
    order = rng.permutation(n)
    if y is not None:
        order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(n, np.int32)
    fold[order] = (np.arange(n) + rng.integers(num_folds)) % num_folds
    return fold


def _grouped(rng: np.random.Generator, group: np.ndarray, num_folds: int) -> np.ndarray:
    """The largest group first, each to the fold that is smallest so far."""
    sizes = np.bincount(group)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    total, fold = np.zeros(num_folds, int), np.empty(len(sizes), np.int32)
    for g in order:
        fold[g] = np.argmin(total)
        total[fold[g]] += sizes[g]
    return fold[group]
