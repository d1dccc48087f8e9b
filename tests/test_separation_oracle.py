"""The oracle for separation against known verdicts, brute force, and changes that alter nothing."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from experiments import _oracle
from experiments._designs import KINDS, MAX_EXAMPLES, design
from experiments._oracle import farkas, relative_margins, separated_lp

OVERLAPPING, QUASI_COMPLETE, COMPLETE = (False, False), (True, False), (True, True)

# name: (x, y, K, bias, weights, what is true)
KNOWN = {
    "intervals apart": ([[0], [1], [2], [3]], [0, 0, 1, 1], 2, True, None, COMPLETE),
    "intervals touch in a tie": ([[0], [1], [1], [2]], [0, 0, 1, 1], 2, True, None, QUASI_COMPLETE),
    "intervals overlap": ([[0], [2], [1], [3]], [0, 0, 1, 1], 2, True, None, OVERLAPPING),
    "apart, but not through the origin": ([[1], [2], [3], [4]], [0, 0, 1, 1], 2, False, None,
                                          OVERLAPPING),
    "apart through the origin": ([[-1], [2]], [0, 1], 2, False, None, COMPLETE),
    "one point inside": ([[0], [1], [2], [3], [1]], [0, 0, 1, 1, 1], 2, True, None, QUASI_COMPLETE),
    "one point beyond": ([[0], [1], [2], [3], [0.5]], [0, 0, 1, 1, 1], 2, True, None, OVERLAPPING),
    "beyond by 2^-50": ([[0], [1], [1 - 2**-50], [2]], [0, 0, 1, 1], 2, True, None, OVERLAPPING),
    "apart by 2^-50": ([[0], [1 - 2**-50], [1], [2]], [0, 0, 1, 1], 2, True, None, COMPLETE),
    "every point has both labels": ([[0], [0], [1], [1]], [0, 1, 0, 1], 2, True, None, OVERLAPPING),
    "one of two points has both": ([[0], [0], [1], [1]], [0, 1, 1, 1], 2, True, None,
                                   QUASI_COMPLETE),
    "an indicator seen with one label": ([[0, 0], [1, 0], [0, 0], [1, 0], [0, 1]], [0, 0, 1, 1, 1],
                                         2, True, None, QUASI_COMPLETE),
    "exclusive or": ([[0, 0], [1, 1], [0, 1], [1, 0]], [0, 0, 1, 1], 2, True, None, OVERLAPPING),
    "rank-deficient, overlapping": ([[0, 0], [2, 4], [1, 2], [3, 6]], [0, 0, 1, 1], 2, True, None,
                                    OVERLAPPING),
    "rank-deficient, separated": ([[0, 0], [1, 2], [2, 4]], [0, 0, 1], 2, True, None, COMPLETE),
    "constant features": ([[1], [1], [1]], [0, 1, 1], 2, True, None, OVERLAPPING),
    "a row of zeros, no bias": ([[0], [-1], [1]], [1, 0, 1], 2, False, None, QUASI_COMPLETE),
    "nothing but zeros, no bias": ([[0], [0]], [0, 1], 2, False, None, OVERLAPPING),
    "one class only": ([[0], [1]], [1, 1], 2, True, None, COMPLETE),
    "one class only, no bias, both sides": ([[-1], [1]], [1, 1], 2, False, None, OVERLAPPING),
    "the overlap has weight zero": ([[0], [1], [2], [3]], [0, 1, 0, 1], 2, True, [1, 1, 0, 1],
                                    COMPLETE),
    "the overlap weighs 1e-300": ([[0], [1], [2], [3]], [0, 1, 0, 1], 2, True, [1, 1, 1e-300, 1],
                                  OVERLAPPING),
    "more features than examples": ([[1, 5, 2], [3, 1, 1], [2, 2, 7]], [0, 1, 0], 2, True, None,
                                    COMPLETE),
    "three intervals: the middle class has no halfline": (
        [[0], [1], [2], [3], [4], [5]], [0, 0, 1, 1, 2, 2], 3, True, None, COMPLETE),
    "three classes, two overlap": ([[0], [2], [1], [3], [9], [9]], [0, 0, 1, 1, 2, 2], 3, True,
                                   None, QUASI_COMPLETE),
    "three classes in a cycle": ([[0], [1], [2], [0], [1], [2]], [0, 1, 2, 1, 2, 0], 3, True, None,
                                 OVERLAPPING),
    "three corners": ([[0, 0], [1, 0], [0, 1]], [0, 1, 2], 3, True, None, COMPLETE),
    "one of three is absent, the others overlap": (
        [[0], [2], [1], [3]], [0, 0, 2, 2], 3, True, None, QUASI_COMPLETE),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_verdicts(name):
    x, y, num_classes, bias, weights, truth = KNOWN[name]
    verdict = separated_lp(x, np.array(y), num_classes, bias, weights)
    assert (verdict.separated, verdict.complete) == truth
    assert verdict.exact


def test_a_margin_of_a_last_digit_escapes_the_float_lp():
    """The reason for exact arithmetic, and the proof that the two answers are independent."""
    x, y, *_ = KNOWN["beyond by 2^-50"]
    verdict = separated_lp(x, np.array(y), 2, True)
    assert verdict.lp_separated
    assert not verdict.separated


# --- Brute force ---


def _rows_by_definition(x, y, num_classes, bias):
    """Rows of A in coordinates of all K classes less the last, from logits of basis vectors."""
    width = x.shape[1] + bias
    rows = []
    for values, label in zip(x.tolist(), y, strict=True):
        point = [Fraction(v) for v in values] + [Fraction(1)] * bias
        for k in range(num_classes):
            if k == label:
                continue
            row = []
            for entry in range((num_classes - 1) * width):
                logits = [Fraction(0)] * num_classes
                logits[entry // width] = point[entry % width]
                row.append(logits[label] - logits[k])
            rows.append(row)
    return rows


def _dot(row, v):
    return sum(a * b for a, b in zip(row, v, strict=True))


def _orthogonal(rows):
    """The vector orthogonal to p-1 rows in p = 1, 2 or 3 dimensions, zero if they are dependent."""
    if len(rows) == 0:
        return [Fraction(1)]
    if len(rows) == 1:
        (a, b) = rows[0]
        return [-b, a]
    (a, b, c), (d, e, f) = rows
    return [b * f - c * e, c * d - a * f, a * e - b * d]


def _brute_force(rows):
    """Separated, complete: by every extreme ray of the cone A v ≥ 0, for A of full column rank."""
    p = len(rows[0])
    rays = [
        [sign * e for e in _orthogonal(chosen)]
        for chosen in itertools.combinations(rows, p - 1)
        for sign in (1, -1)
    ]
    feasible = [v for v in rays if any(v) and all(_dot(row, v) >= 0 for row in rows)]
    interior = [sum(entries) for entries in zip(*feasible, strict=True)] or [Fraction(0)] * p
    return bool(feasible), all(_dot(row, interior) > 0 for row in rows)


@pytest.mark.parametrize(
    ("d", "num_classes", "bias"),
    [(1, 2, False), (1, 2, True), (2, 2, False), (2, 2, True), (3, 2, False), (1, 3, False),
     (1, 4, False)],
)  # fmt: skip
def test_against_all_extreme_rays(d, num_classes, bias):
    """In up to three dimensions, on integers (many ties) and on floats with all their digits."""
    rng = np.random.default_rng([d, num_classes, bias])
    seen = set()
    for case in range(45):
        n = int(rng.integers(2, 4 + 2 * d))
        x = rng.integers(-2, 3, size=(n, d)).astype(float) if case % 3 else rng.normal(size=(n, d))
        y = rng.integers(num_classes, size=n)
        rows = _rows_by_definition(x, y, num_classes, bias)
        if np.linalg.matrix_rank(np.array(rows, dtype=float)) < len(rows[0]):
            continue
        verdict = separated_lp(x, y, num_classes, bias)
        assert (verdict.separated, verdict.complete) == _brute_force(rows)
        assert verdict.exact
        seen.add((verdict.separated, verdict.complete))
    assert {OVERLAPPING, COMPLETE} <= seen


# --- Witnesses ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_directions_prove_separation(kind, num_classes):
    """The direction, in units of x, has the margins that the verdict says, in Fractions."""
    for seed in range(6):
        x, y, weights, bias = design(kind, seed, num_classes)
        verdict = separated_lp(x, y, num_classes, bias, weights)
        assert verdict.exact
        if not verdict.separated:
            assert verdict.direction is None
            continue
        assert verdict.direction.shape == (num_classes, x.shape[1] + bias)
        kept = np.full(len(y), True) if weights is None else weights > 0
        flat = verdict.direction[:-1].ravel().tolist()
        margins = [_dot(r, flat) for r in _rows_by_definition(x[kept], y[kept], num_classes, bias)]
        assert min(margins) >= 0
        assert max(margins) > 0
        assert verdict.complete == (min(margins) > 0)
        least, greatest = relative_margins(x, y, bias, weights, verdict.direction)
        assert (least > 0) == verdict.complete
        assert 0 <= least <= greatest <= 1 + 1e-12


def test_relative_margins_of_directions_that_prove_nothing():
    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    least, greatest = relative_margins(x, y, True, None, np.array([[0.0, 0.0], [1.0, -1.5]]))
    assert least < -0.1 < 0.1 < greatest
    assert np.isnan(relative_margins(x, y, True, None, np.zeros((2, 2)))).all()
    assert np.isnan(relative_margins(x, y, True, None, np.full((2, 2), np.nan))).all()


def test_farkas_alternatives_multiply_out():
    rng = np.random.default_rng(0)
    solvable = 0
    for _ in range(200):
        p, m = rng.integers(1, 5), rng.integers(1, 7)
        matrix = rng.integers(-3, 4, size=(p, m)).astype(object)
        rhs = rng.integers(-3, 4, size=p).astype(object)
        found, witness = farkas(matrix, rhs)
        if found:
            solvable += 1
            assert np.all(witness[:-1] >= 0)
            assert witness[-1] > 0
            assert np.all(matrix @ witness[:-1] == witness[-1] * rhs)
        else:
            assert np.all(witness @ matrix <= 0)
            assert witness @ rhs > 0
    assert 40 < solvable < 160


def test_a_false_witness_is_not_called_exact(monkeypatch):
    monkeypatch.setattr(_oracle, "farkas", lambda m, b: (False, 1 + 0 * b))
    assert not separated_lp([[0], [2], [1], [3]], np.array([0, 0, 1, 1]), 2, True).exact
    monkeypatch.setattr(_oracle, "farkas", lambda m, b: (True, np.append(0 * m[0], 1)))
    assert not separated_lp([[0], [1], [2], [3]], np.array([0, 0, 1, 1]), 2, True).exact


# --- Changes that cannot alter the answer ---


@pytest.mark.parametrize("kind", KINDS)
def test_invariances(kind):
    rng = np.random.default_rng(1)
    for seed, num_classes in [(100, 2), (101, 3)]:
        x, y, weights, bias = design(kind, seed, num_classes)
        weights = np.ones(len(y)) if weights is None else weights
        truth = separated_lp(x, y, num_classes, bias, weights)[:2]
        order, names = rng.permutation(len(y)), rng.permutation(num_classes)
        twice = np.arange(len(y)).repeat(2)
        beside = np.hstack([x, x[:, :1]])
        scaled = x * 2.0 ** rng.integers(-20, 20, size=x.shape[1]) * rng.choice([-1, 1])
        same = [
            (x[order], y[order], bias, weights[order]),
            (x, names[y], bias, weights),
            (x, y, bias, 2.0**-40 * weights),
            (x[twice], y[twice], bias, weights[twice]),
            (beside, y, bias, weights),
            (scaled, y, bias, weights),
            (np.vstack([x, -9 * x]), np.append(y, y), bias, np.append(weights, 0 * weights)),
            (np.hstack([x, np.ones((len(y), 1))]), y, bias, weights) if bias else
            (x * 2.0 ** rng.integers(-9, 9, size=(len(y), 1)), y, bias, weights),
        ]  # fmt: skip
        for index, (x_, y_, bias_, weights_) in enumerate(same):
            got = separated_lp(x_, y_, num_classes, bias_, weights_)
            assert got[:2] == truth, (seed, index)
            assert got.exact


# --- The designs, and errors ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_designs_are_as_promised(kind, num_classes):
    for seed in range(12):
        x, y, weights, bias = design(kind, seed, num_classes)
        assert x.dtype == np.float64
        assert y.dtype == np.int64
        assert 5 <= len(y) == len(x) <= MAX_EXAMPLES
        assert 1 <= x.shape[1] <= 6
        assert isinstance(bias, bool)
        np.testing.assert_array_equal(x, x.astype(np.float32))
        kept = y if weights is None else y[weights > 0]
        assert set(kept) == set(range(num_classes))
        again = design(kind, seed, num_classes)
        np.testing.assert_array_equal(x, again[0])
        np.testing.assert_array_equal(y, again[1])


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_has_a_trivial_answer(kind):
    truths = [separated_lp(*_arguments(kind, seed)).separated for seed in range(30)]
    assert 0.15 < np.mean(truths) < 0.9


def _arguments(kind, seed):
    x, y, weights, bias = design(kind, seed)
    return x, y, 2, bias, weights


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": [1.0, 2.0]}, "x, y, weights: expected shapes"),
        ({"x": [[np.nan], [1.0]]}, "x: expected finite"),
        ({"y": np.array([0, 2])}, "y: expected integers in 0..1"),
        ({"y": np.array([0.5, 1])}, "y: expected integers in 0..1"),
        ({"weights": [0.0, 0.0]}, "weights: expected"),
        ({"weights": [1.0, -1.0]}, "weights: expected"),
        ({"num_classes": 1}, "y: expected"),
    ],
)
def test_bad_arguments(changes, match):
    arguments = {"x": [[0.0], [1.0]], "y": np.array([0, 1]), "num_classes": 2, "bias": True}
    with pytest.raises(ValueError, match=match):
        separated_lp(**(arguments | changes))


def test_bad_designs():
    with pytest.raises(ValueError, match="kind: expected one of"):
        design("nice", 0)
    with pytest.raises(ValueError, match="num_classes: expected at least 2"):
        design("gaussian", 0, 1)
