"""Is the verdict SEPARATED right? Fits on nasty small designs against exact arithmetic.

A logistic or softmax likelihood has a finite maximum unless some direction v separates the classes:
with a row (e_{y_i} - e_k) (x) [x_i, 1] of A for every weighted example i and every class k ≠ y_i,
A v ≥ 0 and A v ≠ 0 (remarks on equation 1.10). By Stiemke's theorem either such a v exists or some
α > 0 has Aᵀα = 0. Every float is a rational number, so the question has an exact answer: a simplex
method in integers finds v or α, and multiplying the witness out proves it.

    python -m experiments.separation --num-designs 2000

fits ten kinds of designs, most of them with a fair share of either answer, and counts disagreements
between exact arithmetic, a linear programme in floating point (HiGHS), and `jaxprob.fit`.

References:
    Albert and Anderson (1984), On the existence of maximum likelihood estimates in logistic
    regression models, section 2. Konis (2007), Linear programming algorithms for detecting
    separated data in binary logistic regression models, chapter 4. Edmonds (1967), Systems of
    distinct representatives and linear algebra (pivoting without fractions).
"""

import math
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog

#from experiments import _common

# --- Designs -------------------------------------------------------------------------------------
# Every value is a multiple of a power of two with few bits, exact in float32 too: ties, duplicates
# and linear relations between columns hold exactly, not up to a rounding that would decide.

_Sample = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def _features(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return np.round(rng.normal(size=(n, d)) * 256) / 256


def _labels(rng: np.random.Generator, x: np.ndarray, num_classes: int, noise: float) -> np.ndarray:
    """Labels of a random softmax model whose log-odds are divided by `noise`."""
    logits = x @ rng.normal(size=(x.shape[1], num_classes)) + 0.5 * rng.normal(size=num_classes)
    return np.argmax(logits + noise * rng.gumbel(size=logits.shape), axis=1)


def _flip(rng: np.random.Generator, y: np.ndarray, num_classes: int, chance: float) -> np.ndarray:
    """With probability `chance`, one example gets another label."""
    y = y.copy()
    i = rng.integers(len(y))
    y[i] = (y[i] + (rng.random() < chance) * rng.integers(1, num_classes)) % num_classes
    return y


def _gaussian(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    x = _features(rng, n, d)
    return x, _labels(rng, x, num_classes, rng.choice([0.2, 1.0, 4.0])), None


def _complete(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    x = _features(rng, n, d)
    return x, _flip(rng, _labels(rng, x, num_classes, 0.0), num_classes, 0.5), None


def _quasi_complete(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Integers on both sides of a boundary and on it, where the label is drawn among the winners."""
    x = rng.integers(-3, 4, size=(n, d))
    logits = x @ rng.integers(-1, 2, size=(d, num_classes)) + rng.integers(-1, 2, size=num_classes)
    winner = logits == logits.max(axis=1, keepdims=True)
    y = np.argmax(winner * rng.uniform(0.5, 1.0, size=winner.shape), axis=1)
    return x.astype(float), _flip(rng, y, num_classes, 0.4), None


def _integer_ties(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    x = rng.integers(-2, 3, size=(n, d)).astype(float)
    return x, _labels(rng, x, num_classes, rng.choice([0.2, 1.0])), None


def _binary_features(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Indicators, the rare ones often seen with a single label."""
    x = (rng.random((n, d)) < rng.choice([0.1, 0.5, 0.9], size=d)).astype(float)
    return x, _labels(rng, x, num_classes, rng.choice([0.2, 1.0])), None


def _duplicates(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    points = _features(rng, n // 3 + 2, d)
    copies = rng.integers(len(points), size=n)
    y = _labels(rng, points, num_classes, rng.choice([0.0, 0.5]))[copies]
    return points[copies], _flip(rng, y, num_classes, 0.6), None


def _rank_deficient(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Columns spanned by fewer; sometimes one is constant, as the bias is."""
    rank = rng.integers(1, d + 1)
    x = _features(rng, n, rank) @ rng.integers(-2, 3, size=(rank, d + 1)).astype(float)
    if rng.random() < 0.3:
        x[:, -1] = 1.0
    return x, _flip(rng, _labels(rng, x, num_classes, 0.0), num_classes, 0.7), None


def _any_plain(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    plain = (_gaussian, _complete, _quasi_complete, _duplicates)
    return plain[rng.integers(len(plain))](rng, n, d, num_classes)


def _scaled_columns(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Columns times 2^13, 1 or 2^-13: about 1e4, 1 and 1e-4, but exact."""
    x, y, weights = _any_plain(rng, n, d, num_classes)
    return x * 2.0 ** rng.choice([-13, 0, 13], size=x.shape[1]), y, weights


def _scaled_row(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    x, y, weights = _any_plain(rng, n, d, num_classes)
    x[rng.integers(n)] *= 1000.0
    return x, y, weights


def _zero_weights(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Some wrong labels, each of weight zero (no evidence at all) or 2^-10 (little, but enough)."""
    x, y, _ = (_complete, _quasi_complete)[rng.integers(2)](rng, n, d, num_classes)
    weights = rng.choice([0.0, 0.25, 1.0, 3.0], p=[0.1, 0.3, 0.3, 0.3], size=n)
    wrong = rng.choice(n, size=rng.integers(1, 4), replace=False)
    y[wrong] = (y[wrong] + 1) % num_classes
    weights[wrong] = rng.choice([0.0, 0.0, 2.0**-10], size=len(wrong))
    return x, y, weights


KINDS: dict[str, Callable[[np.random.Generator, int, int, int], _Sample]] = {
    "gaussian": _gaussian,
    "complete": _complete,
    "quasi-complete": _quasi_complete,
    "integer ties": _integer_ties,
    "binary features": _binary_features,
    "duplicates": _duplicates,
    "rank-deficient": _rank_deficient,
    "scaled columns": _scaled_columns,
    "scaled row": _scaled_row,
    "zero weights": _zero_weights,
}
MAX_EXAMPLES = 40


def design(
    kind: str, seed: int, num_classes: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]:
    """A small design of which it is not obvious whether a likelihood fit has a finite maximum.

    The kind names how it was made, not the answer: "complete" is complete separation with, half of
    the time, one label flipped.

    Args:
        kind: one of `KINDS`.
        seed: any integer ≥ 0; the same arguments give the same design.
        num_classes: K ≥ 2.

    Returns:
        x (n, d) float64, y (n,) int64 in 0..K-1, weights (n,) float64 or None, and whether the
        model has a bias; n ≤ 40, d ≤ 6, and every class has an example of positive weight.

    Raises:
        ValueError: for an unknown kind or fewer than two classes.

    Example:
        >>> x, y, weights, bias = design("integer ties", seed=1)
        >>> x.shape, x.dtype, y.dtype, weights, bias
        ((30, 2), dtype('float64'), dtype('int64'), None, True)
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
    rng = np.random.default_rng([seed, list(KINDS).index(kind), num_classes])
    while True:
        n = int(rng.integers(max(5, 3 * num_classes), MAX_EXAMPLES + 1))
        d = int(rng.integers(1, 6))
        x, y, weights = KINDS[kind](rng, n, d, num_classes)
        if len(np.unique(y if weights is None else y[weights > 0])) == num_classes:
            return x, y.astype(np.int64), weights, bool(rng.random() < 0.75)


# --- The oracle ----------------------------------------------------------------------------------


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
