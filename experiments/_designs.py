"""Small designs for which it is not obvious whether a likelihood fit has a finite maximum.

Eleven ways to be nasty, for logistic and softmax regression. Every value is a multiple of a power
of two with few bits, exact in float32 too: ties, duplicates and linear relations between columns
hold exactly, not up to a rounding that would decide the answer.
"""

from collections.abc import Callable

import numpy as np

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
    """Integers off a boundary and on it, where the label is drawn among the winners."""
    x = rng.integers(-3, 4, size=(n, d))
    logits = x @ rng.integers(-1, 2, size=(d, num_classes)) + rng.integers(-1, 2, size=num_classes)
    winner = logits == logits.max(axis=1, keepdims=True)
    y = np.argmax(winner * rng.uniform(0.5, 1.0, size=winner.shape), axis=1)
    return x.astype(float), _flip(rng, y, num_classes, 0.7), None


def _integer_ties(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    x = rng.integers(-2, 3, size=(n, d)).astype(float)
    return x, _labels(rng, x, num_classes, rng.choice([0.2, 1.0])), None


def _binary_features(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Indicators, the rare ones often seen with a single label."""
    x = (rng.random((n, d)) < rng.choice([0.2, 0.5, 0.8], size=d)).astype(float)
    return x, _labels(rng, x, num_classes, rng.choice([0.2, 1.0])), None


def _duplicates(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    points = _features(rng, n // 3 + 2, d)
    copies = rng.integers(len(points), size=n)
    y = _labels(rng, points, num_classes, rng.choice([0.0, 1.0]))[copies]
    return points[copies], _flip(rng, y, num_classes, 0.8), None


def _rank_deficient(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Columns spanned by fewer; sometimes one is constant, as the bias is."""
    width = max(d, 2)
    rank = int(rng.integers(1, width))
    x = _features(rng, n, rank) @ rng.integers(-2, 3, size=(rank, width)).astype(float)
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


def _near_ties(rng: np.random.Generator, n: int, d: int, num_classes: int) -> _Sample:
    """Ties broken by 2^-10 or 2^-20: a maximum, or its absence, that is hard to see in floats."""
    x, y, weights = _quasi_complete(rng, n, d, num_classes)
    return x + 2.0 ** rng.choice([-10, -20]) * rng.integers(-1, 2, size=x.shape), y, weights


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
    "near ties": _near_ties,
}
MAX_EXAMPLES = 40
WIDTHS = (1, 2, 4, 6)  # few, because a fit is compiled once per shape


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
        ((7, 2), dtype('float64'), dtype('int64'), None, False)
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
    rng = np.random.default_rng([seed, list(KINDS).index(kind), num_classes])
    while True:
        n = int(rng.integers(max(5, 3 * num_classes), MAX_EXAMPLES + 1))
        d = int(rng.choice(WIDTHS))
        x, y, weights = KINDS[kind](rng, n, d, num_classes)
        if len(np.unique(y if weights is None else y[weights > 0])) == num_classes:
            return x, y.astype(np.int64), weights, bool(rng.random() < 0.75)
