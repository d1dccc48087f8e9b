"""Labels of any kind, and the numbers 0, ..., K - 1 that stand for them."""

from typing import Any

import jax
import numpy as np

_MOST_SHOWN = 6
_REMEDY = "drop such rows"


def encoded(y: Any, num: int) -> tuple[Any, tuple[Any, ...] | None]:
    """Labels as numbers, where they are none of 0, ..., K - 1, and there are K different ones.

    Args:
        y: labels of any shape: text, numbers, bools, or categories of a DataFrame's column.
        num: K.

    Returns:
        int32 of that shape, and the labels that 0, ..., K - 1 stand for, in increasing order, or in
        that of categories. What is numbers already comes back as it is, with None; so do arrays of
        JAX, and numbers that are no labels, about which other checks say more.

    Raises:
        ValueError: for text of other than K different labels, and where some are missing.

    Example:
        >>> codes, classes = encoded(["no", "yes", "no"], 2)
        >>> codes.tolist(), classes
        ([0, 1, 0], ('no', 'yes'))
    """
    if isinstance(y, jax.Array):
        return y, None
    categories = getattr(getattr(y, "dtype", None), "categories", None)
    if categories is not None and hasattr(y, "cat") and hasattr(y.cat, "codes"):  # pandas
        return _of_categories(np.asarray(y.cat.codes), categories.tolist(), num)
    try:
        host = np.asarray(y)
    except ValueError:  # rows of different lengths, which another check names
        return y, None
    kind = host.dtype.kind
    if kind == "O" and all(isinstance(a, bool | np.bool) for a in host.ravel()):
        host, kind = host.astype(bool), "b"
    if kind == "b":
        return host, (False, True) if num == 2 else None
    if kind in "iuf":
        return _of_numbers(y, host, num)
    if kind not in "OUST":
        return y, None  # dates and the like: a dtype that is refused
    return _of_text(y, host, num)


def of_known(y: Any, classes: tuple[Any, ...]) -> np.ndarray:
    """Numbers for labels that a fit has seen.

    Args:
        y: (m,) labels.
        classes: what 0, ..., K - 1 stand for.

    Returns:
        (m,) int32.

    Raises:
        ValueError: for a label that is none of these.

    Example:
        >>> of_known(["yes", "no"], ("no", "yes")).tolist()
        [1, 0]
    """
    number = {label: k for k, label in enumerate(classes)}
    codes = [number.get(label, -1) for label in np.asarray(y).tolist()]
    if -1 in codes:
        row = codes.index(-1)
        raise ValueError(
            f"y: expected labels that were fitted, {_shown(classes)}, got "
            f"{np.asarray(y).tolist()[row]!r} in row {row}"
        )
    return np.array(codes, np.int32)


def _of_categories(codes: np.ndarray, categories: list, num: int) -> tuple[Any, tuple | None]:
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise ValueError(f"y: expected labels, got a missing one in row {row}; {_REMEDY}")
    if categories == list(range(num)):
        return codes.astype(np.int32), None
    if len(categories) != num:
        raise ValueError(
            f"y: expected {num} categories, one for each class, got {len(categories)}: "
            f"{_shown(categories)}; pass y.cat.remove_unused_categories() if some are not used"
        )
    return codes.astype(np.int32), tuple(categories)


def _of_numbers(y: Any, host: np.ndarray, num: int) -> tuple[Any, tuple | None]:
    with np.errstate(invalid="ignore"):
        if host.size == 0 or (host.min() >= 0 and host.max() < num):
            return y, None
        whole = bool(np.all(np.isfinite(host) & (host == np.floor(host))))
    if not whole:
        return y, None
    classes, codes = np.unique(host, return_inverse=True)
    if len(classes) != num:
        return y, None
    return codes.reshape(host.shape).astype(np.int32), tuple(classes.tolist())


def _of_text(y: Any, host: np.ndarray, num: int) -> tuple[Any, tuple | None]:
    entries = host.ravel().tolist()
    text = [isinstance(a, str | bytes) for a in entries]
    if not any(text):
        return y, None
    if not all(text):
        row = text.index(False)
        raise ValueError(
            f"y: expected text throughout, got {entries[row]!r} in row {row}; {_REMEDY}"
        )
    classes, codes = np.unique(
        host.astype(str) if host.dtype == object else host, return_inverse=True
    )
    if len(classes) != num:
        raise ValueError(
            f"y: expected {num} different labels, one for each class, got {len(classes)}: "
            f"{_shown(classes.tolist())}; make the model for as many, or pass a categorical column "
            "that names all of them"
        )
    return codes.reshape(host.shape).astype(np.int32), tuple(classes.tolist())


def _shown(classes: Any) -> str:
    first = [repr(c) for c in classes[:_MOST_SHOWN]]
    return ", ".join([*first, "..."] if len(classes) > _MOST_SHOWN else first)
