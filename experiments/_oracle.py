"""An oracle for separation: does a logistic or softmax likelihood have a finite maximum?

It has, unless some direction v separates the classes: with a row (e_{y_i} - e_k) (x) [x_i, 1] of A
for every example i of positive weight and every class k ≠ y_i, A v ≥ 0 and A v ≠ 0 (remarks on
equation 1.10). By Stiemke's theorem either such a v exists, or some α > 0 has Aᵀα = 0. Separation
is complete if A v > 0; by Gordan's theorem either such a v exists, or some α ≥ 0, α ≠ 0 has
Aᵀα = 0. Every float is a rational number, so both questions have exact answers: a simplex method in
integers finds v or α, and multiplying the witness out proves it. Meant for small designs.

References:
    Albert and Anderson (1984), On the existence of maximum likelihood estimates in logistic
    regression models, section 2. Konis (2007), Linear programming algorithms for detecting
    separated data in binary logistic regression models, chapter 4. Edmonds (1967), Systems of
    distinct representatives and linear algebra (pivoting without fractions).
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog


class Verdict(NamedTuple):
    """What is true of a design, and what a linear programme in floating point says of it.

    `direction` is (K, d + bias), exact Fractions with zeros for the last class, or None where
    nothing separates. `exact` says that the witnesses of `separated` and `complete` were multiplied
    out in integers and hold. `lp_separated` is None where HiGHS gave no answer.
    """

    separated: bool
    complete: bool
    direction: np.ndarray | None
    exact: bool
    lp_separated: bool | None


def _margin_rows(features: np.ndarray, y: np.ndarray, num_classes: int) -> np.ndarray:
    """A, (n (K-1), (K-1) D) for features (n, D): the last class is the reference, at zero."""
    n, width = features.shape
    rows = np.zeros((n, num_classes, num_classes, width), dtype=features.dtype)
    for i, label in enumerate(y):
        rows[i, :, label] += features[i]
        for k in range(num_classes):
            rows[i, k, k] -= features[i]
    others = np.arange(num_classes) != y[:, None]
    return rows[others][:, :-1].reshape(n * (num_classes - 1), (num_classes - 1) * width)


def _integer_columns(features: np.ndarray) -> tuple[np.ndarray, list[Fraction]]:
    """Integers without a common factor per column, and the factor that each column was scaled by.

    Positive factors of columns change v, not whether it exists.
    """
    columns, scales = [], []
    for column in features.T.tolist():
        ratios = [Fraction(value) for value in column]
        denominator = math.lcm(*(ratio.denominator for ratio in ratios))
        integers = [int(ratio * denominator) for ratio in ratios]
        divisor = math.gcd(*integers) or 1
        columns.append([value // divisor for value in integers])
        scales.append(Fraction(denominator, divisor))
    return np.array(columns, dtype=object).T.reshape(features.shape), scales


def _distinct_rows(rows: np.ndarray) -> np.ndarray:
    """The rows up to positive factors, each once: the same inequalities, fewer of them."""
    reduced = {tuple(v // (math.gcd(*row) or 1) for v in row) for row in rows.tolist()}
    return np.array(sorted(reduced), dtype=object).reshape(-1, rows.shape[1])


def farkas(matrix: np.ndarray, rhs: np.ndarray) -> tuple[bool, np.ndarray]:
    """Exactly one of two: M α = b for some α ≥ 0, or Mᵀu ≤ 0 and bᵀu > 0 for some u.

    The first phase of the simplex method in integers: no rounding, and Bland's rule, so it ends.
    All entries share one denominator, the last pivot, and every division is exact.

    Args:
        matrix: (p, m) object array of Python integers, M.
        rhs: (p,) object array of Python integers, b.

    Returns:
        (True, (t α, t)) of shape (m + 1,) with an integer t > 0, or (False, u) of shape (p,).

    Example:
        >>> farkas(np.array([[1, -1]], dtype=object), np.array([-3], dtype=object))
        (True, array([0, 3, 1], dtype=object))
        >>> farkas(np.array([[1, 2]], dtype=object), np.array([-3], dtype=object))
        (False, array([-1], dtype=object))
    """
    num_rows, num_columns = matrix.shape
    sign = np.where(rhs < 0, -1, 1).astype(object)
    artificial = np.eye(num_rows, dtype=int).astype(object)
    table = np.hstack([sign[:, None] * matrix, artificial, (sign * rhs)[:, None]])
    costs = -table.sum(axis=0)
    costs[num_columns:-1] = 0
    table = np.vstack([table, costs])
    basis = np.arange(num_columns, num_columns + num_rows)
    denominator = 1
    while len(candidates := np.flatnonzero(table[-1, :num_columns] < 0)):
        entering = candidates[0]
        rising = np.flatnonzero(table[:-1, entering] > 0)
        steps = [Fraction(table[r, -1], table[r, entering]) for r in rising]
        leaving = min(zip(steps, basis[rising], rising, strict=True))[2]
        pivot_row, pivot = table[leaving].copy(), table[leaving, entering]
        table = (pivot * table - np.outer(table[:, entering], pivot_row)) // denominator
        table[leaving] = pivot_row
        basis[leaving], denominator = entering, pivot
    if table[-1, -1] == 0:
        solution = np.zeros(num_columns + num_rows, dtype=int).astype(object)
        solution[basis] = table[:-1, -1]
        return True, np.append(solution[:num_columns], denominator)
    return False, sign * (denominator - table[-1, num_columns:-1])


def _exact_verdict(rows: np.ndarray) -> tuple[bool, bool, np.ndarray | None, bool]:
    """(separated, complete, v, witnesses hold) for distinct integer rows of A."""
    zero = np.zeros(rows.shape[1], dtype=int).astype(object)
    overlap, witness = farkas(rows.T, -rows.sum(axis=0))
    if overlap:
        alpha = witness[:-1] + witness[-1]
        return False, False, None, bool(np.all(alpha > 0) and np.all(rows.T @ alpha == 0))
    v = -witness
    proved = bool(np.all(rows @ v >= 0) and np.any(rows @ v > 0))
    touching, witness = farkas(
        np.vstack([rows.T, np.ones(len(rows), dtype=int).astype(object)]), np.append(zero, 1)
    )
    if touching:
        alpha = witness[:-1]
        held = np.all(alpha >= 0) and np.any(alpha > 0) and np.all(rows.T @ alpha == 0)
        return True, False, v, bool(proved and held)
    v = -witness[:-1]
    return True, True, v, bool(proved and np.all(rows @ v > 0))


def _lp_verdict(rows: np.ndarray) -> bool | None:
    """Maximise the sum of margins A v over A v ≥ 0, |v| ≤ 1, in floats; A scaled by both sides."""
    rows = rows / np.maximum(np.abs(rows).max(axis=0), np.finfo(float).tiny)
    size = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(size > 0, size, 1.0)
    result = linprog(-rows.sum(axis=0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
    return bool(-result.fun > 1e-6) if result.status == 0 else None


def _with_bias(x: np.ndarray, bias: bool) -> np.ndarray:
    return np.hstack([x, np.ones((len(x), int(bias)))])


def separated_lp(
    x: np.ndarray, y: np.ndarray, num_classes: int, bias: bool, weights: np.ndarray | None = None
) -> Verdict:
    """Whether the classes are separated, decided in exact arithmetic and, apart, by a float LP.

    Args:
        x: (n, d) floating.
        y: (n,) integers in 0..K-1.
        num_classes: K ≥ 2.
        bias: whether the model has a constant term.
        weights: (n,) floating ≥ 0, or None; examples of weight zero say nothing.

    Returns:
        A Verdict.

    Raises:
        ValueError: for values out of range, shapes that do not fit, or no positive weight.

    Example:
        >>> verdict = separated_lp(np.array([[0.0], [1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1]),
        ...                        num_classes=2, bias=True)
        >>> verdict.separated, verdict.complete, verdict.exact, verdict.lp_separated
        (True, False, True, True)
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y)
    kept = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or kept.shape != y.shape:
        raise ValueError(
            f"x, y, weights: expected shapes (n, d), (n,), (n,), got {x.shape}, {y.shape}, "
            f"{kept.shape}"
        )
    if not np.all(np.isfinite(x)):
        raise ValueError("x: expected finite values, got NaN or infinity")
    if not (np.all(kept >= 0) and np.any(kept > 0)):
        raise ValueError("weights: expected values ≥ 0 and one > 0, got otherwise")
    if num_classes < 2 or not np.all(np.isin(y, np.arange(num_classes))):
        raise ValueError(f"y: expected integers in 0..{num_classes - 1}, got {np.unique(y)}")
    features, labels = _with_bias(x, bias)[kept > 0], y[kept > 0]
    integers, scales = _integer_columns(features)
    rows = _distinct_rows(_margin_rows(integers, labels, num_classes))
    separated, complete, v, exact = _exact_verdict(rows)
    direction = None
    if v is not None:
        direction = np.vstack([v.reshape(num_classes - 1, -1) * scales, [[0] * len(scales)]])
    lp_separated = _lp_verdict(_margin_rows(features, labels, num_classes))
    return Verdict(separated, complete, direction, exact, lp_separated)


def relative_margins(
    x: np.ndarray,
    y: np.ndarray,
    bias: bool,
    weights: np.ndarray | None,
    direction: np.ndarray,
) -> tuple[float, float]:
    """Least and greatest margin of a direction, in exact arithmetic, relative to ‖row‖ ‖direction‖.

    Both norms are taken after every column is divided by its greatest entry.

    Args:
        x: (n, d) floating.
        y: (n,) integers in 0..K-1.
        bias: whether the model has a constant term.
        weights: (n,) floating ≥ 0, or None.
        direction: (K, d + bias) floating or Fractions; it proves separation if the least is ≥ 0 and
            the greatest > 0.

    Returns:
        Two floats; NaN where the direction is zero or not finite.

    Example:
        >>> x, y = np.array([[-2.0], [0.0], [1.0]]), np.array([0, 1, 1])
        >>> least, greatest = relative_margins(x, y, False, None, np.array([[0.0], [1.0]]))
        >>> round(least, 3), round(greatest, 3)
        (0.0, 1.0)
    """
    kept = np.ones(len(y), dtype=bool) if weights is None else weights > 0
    features, labels, num_classes = _with_bias(x, bias)[kept], y[kept], len(direction)
    size = np.abs(features).max(axis=0)
    length = float(np.linalg.norm((direction[:-1] - direction[-1]).astype(float) * size))
    if not (np.isfinite(length) and length > 0):
        return math.nan, math.nan
    exact = np.array([[Fraction(v) for v in row] for row in features.tolist()], dtype=object)
    v = np.array([[Fraction(e) for e in row] for row in direction.tolist()], dtype=object)
    rows = _margin_rows(exact, labels, num_classes)
    scaled = rows.astype(float) / np.tile(np.where(size > 0, size, 1.0), num_classes - 1)
    norms = np.linalg.norm(scaled, axis=1)
    margins = (rows @ (v[:-1] - v[-1]).ravel()).astype(float) / np.where(norms > 0, norms, 1.0)
    return float(margins.min() / length), float(margins.max() / length)
