"""A tree as people see it: nodes, and in words what leads to them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Node(NamedTuple):
    """A node that something leads to."""

    condition: str
    """What sends an example here from the node before."""
    weight: float
    counts: np.ndarray  # (K,)
    depth: int
    children: tuple[int, ...]
    """Left and right, or nothing for a leaf."""


def nodes_of(
    params: Any, feature_names: Sequence[str] | None = None, *, missing: bool = False
) -> dict[int, Node]:
    """The nodes of one tree that ends where it ends, by their number in the complete one.

    Args:
        params: `jaxprob.models.decision_tree.Params`.
        feature_names: of the columns; x0, x1, ... where None.
        missing: whether conditions say where missing entries go.

    Returns:
        Nodes by number, each before its children.

    Raises:
        ValueError: for several trees, or too few names.

    Example:
        >>> from jaxprob.models.trees.decision_tree import Params
        >>> counts = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        >>> params = Params(np.zeros(1, int), np.array([0.5]), np.zeros(1, int), counts)
        >>> [node.condition for node in nodes_of(params).values()]
        ['all', 'x0 ≤ 0.5', 'x0 > 0.5']
    """
    feature, threshold, missing_right, counts = (np.asarray(leaf) for leaf in params)
    if feature.ndim != 1:
        raise ValueError(f"params: expected one tree, got trees of shape {feature.shape[:-1]}")
    is_split = np.asarray(params.is_split)
    asked = feature[is_split]
    if feature_names is not None and asked.size and asked.max() >= len(feature_names):
        raise ValueError(
            f"feature_names: expected one for each of at least {asked.max() + 1} columns, "
            f"got {len(feature_names)}"
        )
    found: dict[int, Node] = {}

    def visit(index: int, condition: str, depth: int) -> None:
        inner = index < len(is_split) and bool(is_split[index])
        children = (2 * index + 1, 2 * index + 2) if inner else ()
        own = counts[index]
        found[index] = Node(condition, float(own.sum()), own, depth, children)
        if inner:
            j = int(feature[index])
            name = f"x{j}" if feature_names is None else str(feature_names[j])
            right = bool(missing_right[index]) if missing else None
            words = _words(name, float(threshold[index]), right)
            for child, condition in zip(children, words, strict=True):
                visit(child, condition, depth + 1)

    visit(0, "all", 0)
    return found


def _words(name: str, threshold: float, missing_right: bool | None) -> tuple[str, str]:
    """What goes left, and what right; None for nothing about missing entries."""
    if threshold == np.inf:
        return f"{name} known", f"{name} missing"
    left, right = f"{name} ≤ {threshold:.4g}", f"{name} > {threshold:.4g}"
    if missing_right is None:
        return left, right
    return (left, f"{right} or missing") if missing_right else (f"{left} or missing", right)
