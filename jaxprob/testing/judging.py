"""Do derivatives that were computed in different ways agree, and if not, what is wrong?"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.testing.kinks import Slopes

_ALLOWED = 16.0  # times ε times the rounding scale,
_GROWTH = 2.0  # and so much more for each √n: a sum of n terms in a row walks at random
_ROOM = 2.0**8  # for what is on the way to a number that the dtype can hold
_ALLOWED_NUMERICAL = 1e3  # times the error that the extrapolation estimates for itself

Leaves = list[tuple[str, tuple[slice, ...], tuple[int, ...]]]


class Check(NamedTuple):
    """The worst coordinate of one leaf, or block of a Hessian, at one point."""

    point: str
    leaf: str
    index: tuple[int, ...]
    hand: float
    automatic: float
    numerical: float
    ulps: float
    """|hand - automatic| in units in the last place of the latter."""
    relative: float
    """|hand - automatic| / rounding scale: relative to the size of the summands."""
    dtype: str
    """In which the hand-derived value was computed."""
    fault: str
    """What is wrong, in words; empty where all agree."""
    note: str = ""
    """Where in this leaf there is no derivative, but a kink or a jump; empty where there is one."""


class Report(NamedTuple):
    """All checks of one function."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(not c.fault for c in self.checks)

    def __str__(self) -> str:
        head = ("point", "dtype", "leaf", "worst at", "hand", "automatic", "numerical", "ulps")
        rows = [(*head, "relative", "")] + [
            (
                *(c.point, c.dtype, c.leaf, str(list(c.index))),
                *(f"{v:.10g}" for v in (c.hand, c.automatic, c.numerical)),
                *(f"{v:.2g}" for v in (c.ulps, c.relative)),
                tell(c),
            )
            for c in self.checks
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def tell(check: Check) -> str:
    """Fault and note."""
    return "; ".join(text for text in (check.fault or "ok", check.note) if text)


class Found(NamedTuple):
    """Derivatives at one point or at many: arrays of one shape, but for value and terms."""

    value: Any  # () or (points,)
    automatic: Any
    rounding: Any
    slopes: Slopes
    terms: int  # of the longest sum

    def at(self, i: int) -> "Found":
        """At one of many points."""
        slopes = Slopes(*(a[i] for a in self.slopes))
        return Found(self.value[i], self.automatic[i], self.rounding[i], slopes, self.terms)


def multiple(terms: int) -> float:
    """Of ε times the rounding scale, what rounding may do."""
    return _ALLOWED + _GROWTH * float(np.sqrt(terms))


def doubted(found: Found) -> np.ndarray:
    """Whether numerical derivatives differ from the automatic ones, or from one another."""
    return ~(_doubt(found) <= 1) | found.slopes.doubted


def disagrees(found: Found, hand: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Whether hand-derived derivatives differ from the automatic ones."""
    return ~(_excess(found, hand.astype(np.float64), dtype) <= 1)


def _excess(found: Found, hand: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """How far the hand-derived one is from the automatic one, in units of what rounding allows."""
    info = jnp.finfo(dtype)
    allowed = multiple(found.terms) * float(info.eps) * found.rounding
    # What underflows in the dtype is lost: a float of the smallest size for each summand, say.
    return np.abs(hand - found.automatic) / (allowed + 2.0**20 * float(info.tiny))


def _doubt(found: Found) -> np.ndarray:
    """How far the numerical one is from the automatic one, in units of what its error allows."""
    return np.abs(found.automatic - found.slopes.value) / _allowed_numerically(found)


def _allowed_numerically(found: Found) -> np.ndarray:
    rounding = multiple(found.terms) * np.finfo(float).eps * found.rounding
    return _ALLOWED_NUMERICAL * found.slopes.error + rounding + np.finfo(float).tiny


def coarsest(*dtypes: Any) -> np.dtype:
    """That of floating dtypes with the fewest digits, none with more than float64."""
    floating = [np.dtype(d) for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    narrow = [d for d in floating if d.itemsize <= 8]
    return max(narrow, key=lambda d: float(jnp.finfo(d).eps), default=np.dtype(np.float64))


def name_leaves(params: Any, order: int) -> Leaves:
    """Name, place in the flat derivative, and shape of each leaf, or pair of leaves."""
    singles, start = [], 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path).lstrip(".") or "params"
        singles.append((name, (slice(start, start + np.size(leaf)),), np.shape(leaf)))
        start += np.size(leaf)
    singles = [s for s in singles if s[1][0].start < s[1][0].stop]
    if order == 1:
        return singles
    return [
        (f"{a} × {b}", place_a + place_b, (*shape_a, *shape_b))
        for a, place_a, shape_a in singles
        for b, place_b, shape_b in singles
    ]


def judge(
    point: str, leaves: Leaves, found: Found, hand: np.ndarray, dtype: np.dtype
) -> list[Check]:
    """The worst coordinate of each leaf.

    Args:
        point: its name.
        leaves: as `name_leaves` has them.
        found: the derivatives there.
        hand: the hand-derived one.
        dtype: what it was computed in.
    """
    largest = float(jnp.finfo(dtype).max) / _ROOM
    beyond = (found.rounding > largest) | (np.abs(found.value) > largest)
    hand = hand.astype(np.float64)
    # Where no number of the dtype could be right, a result that is none is not wrong.
    hand = np.where(~np.isfinite(hand) & beyond, found.automatic, hand)
    checks = []
    with np.errstate(all="ignore"):
        for name, place, shape in leaves:
            there = found._replace(
                automatic=found.automatic[place],
                rounding=found.rounding[place],
                slopes=Slopes(*(a[place] for a in found.slopes)),
            )
            checks.append(_check(point, name, shape, there, hand[place], dtype))
    return checks


def _check(
    point: str, leaf: str, shape: tuple, found: Found, hand: np.ndarray, dtype: np.dtype
) -> Check:
    slopes, excess, doubt = found.slopes, _excess(found, hand, dtype), _doubt(found)
    between = _is_between(found, hand, dtype)
    # NaN compares false: what is not known to agree does not.
    wrong = ~(excess <= 1) & ~between
    doubtful = ~((doubt <= 1) | np.isinf(slopes.error) | slopes.kink | slopes.jump)
    only_doubtful = np.any(doubtful) and not np.any(wrong)
    size = np.where(doubtful, doubt, 0.0) if only_doubtful else np.where(between, 0.0, excess)
    at = np.unravel_index(np.argmax(np.where(np.isnan(size), np.inf, size)), size.shape)
    index = _index(shape, size, at)
    automatic, difference = float(found.automatic[at]), abs(float(hand[at] - found.automatic[at]))
    return Check(
        point,
        leaf,
        index,
        float(hand[at]),
        automatic,
        float(slopes.value[at]),
        difference / float(np.spacing(np.abs(np.asarray(automatic, dtype)))),
        difference / max(float(found.rounding[at]), float(jnp.finfo(dtype).tiny)),
        dtype.name,
        _fault(wrong, doubtful, hand, found),
        _note(leaf, shape, slopes, at),
    )


def _is_between(found: Found, hand: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Whether a derivative at a kink is one of those between left and right."""
    slopes = found.slopes
    least, most = np.minimum(slopes.left, slopes.right), np.maximum(slopes.left, slopes.right)
    room = multiple(found.terms) * float(jnp.finfo(dtype).eps) * found.rounding
    room += _ALLOWED_NUMERICAL * np.maximum(slopes.left_error, slopes.right_error)
    return slopes.kink & (least - room <= hand) & (hand <= most + room)


def _fault(wrong: np.ndarray, doubtful: np.ndarray, hand: np.ndarray, found: Found) -> str:
    """What is wrong with a leaf, in words, with a guess at the reason where one is obvious."""
    if not np.any(wrong | doubtful):
        return ""
    automatic, numerical = found.automatic, found.slopes.value
    if not np.all(np.isfinite(hand)) or not np.all(np.isfinite(automatic)):
        return "not finite"
    smooth = ~(found.slopes.kink | found.slopes.jump)
    supported = np.abs(hand - numerical) <= _allowed_numerically(found)
    if np.any(doubtful) and np.all(supported | ~smooth):
        return "automatic and numerical differ, and the numerical supports the hand-derived one"
    if not np.any(wrong):
        return "automatic and numerical differ: a wrong derivative rule inside fn?"
    if not np.any(wrong & ~found.slopes.kink):
        return "hand-derived is no subgradient"
    return "hand-derived and automatic differ" + _guess(hand[smooth], automatic[smooth])


def _guess(hand: np.ndarray, automatic: np.ndarray) -> str:
    large = np.abs(automatic) > 1e-6 * np.max(np.abs(automatic))
    ratios = hand[large] / automatic[large]
    if ratios.size and np.ptp(ratios) <= 1e-6 * abs(ratios[0]) and abs(ratios[0] - 1) > 1e-6:
        return f"; hand-derived is {ratios[0]:.6g} times the automatic"
    close = partial(np.allclose, rtol=1e-6, atol=0)
    if not close(hand, automatic) and close(np.sort(hand.ravel()), np.sort(automatic.ravel())):
        return "; the same entries in another order: a transposed block?"
    return ""


def _note(leaf: str, shape: tuple, slopes: Slopes, worst: Any) -> str:
    """A kink and a jump of a leaf, in words: where it is worst, or the largest."""
    notes = []
    for what, where in (("kink", slopes.kink), ("jump", slopes.jump)):
        if not np.any(where):
            continue
        size = np.where(where, np.abs(slopes.right - slopes.left), -1.0)
        at = worst if where[worst] else np.unravel_index(np.argmax(size), size.shape)
        index, more = _index(shape, where, at), int(np.sum(where)) - 1
        name = leaf + str(list(index)) * bool(index) + f" (and {more} more)" * (more > 0)
        sides = f"left derivative {slopes.left[at]:.6g}, right derivative {slopes.right[at]:.6g}"
        told = {"kink": f"{sides}; a subgradient is between", "jump": "there is no derivative"}
        notes.append(f"{what} at leaf {name}: {told[what]}")
    return "; ".join(notes)


def _index(shape: tuple, derivative: np.ndarray, at: Any) -> tuple[int, ...]:
    """The index in a leaf, or in a pair of leaves, of an entry of the derivative."""
    return tuple(
        int(i) for i in np.unravel_index(int(np.ravel_multi_index(at, derivative.shape)), shape)
    )
