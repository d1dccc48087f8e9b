"""Is the verdict SEPARATED right? Fits on nasty small designs against exact arithmetic.

    python -m experiments.separation --num-designs 2000

makes eleven kinds of small designs, most with a fair share of separated and of overlapping classes,
and counts where a linear programme in floating point (HiGHS) and `jaxprob.fit` without a penalty
disagree with exact arithmetic. Each disagreement is listed; `design(kind, seed, num_classes)` makes
its data again. The directions that prove SEPARATED are checked in exact arithmetic too.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxprob as jp
from experiments import _common
from experiments._designs import KINDS, MAX_EXAMPLES, design
from experiments._oracle import Verdict, relative_margins, separated_lp
from jaxprob.models import logistic, softmax

__all__ = ["design", "main", "separated_lp"]


class Design(NamedTuple):
    """A design, and what makes it again."""

    kind: str
    seed: int
    num_classes: int
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    bias: bool


class Trial(NamedTuple):
    """What is true of a design, and what the fit says: a status, and a direction (K, d + bias).

    `margins` are the least and greatest of the direction, in exact arithmetic; None where the fit
    does not say SEPARATED.
    """

    design: Design
    verdict: Verdict
    status: str
    margins: tuple[float, float] | None

    @property
    def differs(self) -> bool:
        """Whether the fit says SEPARATED where the classes are not, or does not where they are."""
        return (self.status == jp.Status.SEPARATED.name) != self.verdict.separated

    @property
    def lp_differs(self) -> bool:
        """Whether the linear programme in floating point is wrong or gives no answer."""
        return self.verdict.lp_separated != self.verdict.separated


def _fit_together(designs: list[Design], dtype: str) -> list[tuple[str, np.ndarray]]:
    """Status and direction of designs of one width, K and bias: one call, padded by weight zero."""
    _, _, num_classes, x, _, _, bias = designs[0]
    binary = num_classes == 2
    model = (
        logistic.model(bias=bias)
        if binary
        else softmax.model(num_classes, parameterisation="reference", bias=bias)
    )
    lanes = len(designs)
    xs = np.zeros((lanes, MAX_EXAMPLES, x.shape[1]), dtype)
    ys = np.zeros((lanes, MAX_EXAMPLES), np.int32)
    cs = np.zeros((lanes, MAX_EXAMPLES), dtype)
    for lane, (_, _, _, x, y, weights, _) in enumerate(designs):
        xs[lane, : len(y)], ys[lane, : len(y)] = x, y
        cs[lane, : len(y)] = 1.0 if weights is None else weights

    @jax.jit
    @jax.vmap
    def verdict(x: jax.Array, y: jax.Array, weights: jax.Array) -> tuple[jax.Array, Any]:
        fit = jp.fit(model, x, y, weights=weights)
        return fit.status, fit.direction

    statuses, direction = verdict(xs, ys, cs)
    slopes = np.asarray(direction.weights).reshape(lanes, -1, xs.shape[2])
    if bias:
        constant = np.asarray(direction.bias).reshape(lanes, -1, 1)
        slopes = np.concatenate([slopes, constant], axis=2)
    reference = np.zeros_like(slopes[:, :1])
    # Logistic regression models class 1 against class 0, softmax regression all against the last.
    directions = np.concatenate([reference, slopes] if binary else [slopes, reference], axis=1)
    names = [jp.Status(int(status)).name for status in statuses]
    return list(zip(names, directions, strict=True))


def _fit_all(designs: list[Design], dtype: str) -> list[tuple[str, np.ndarray]]:
    """Status and direction of each design, in order."""
    groups: dict[tuple, list[int]] = {}
    for i, d in enumerate(designs):
        groups.setdefault((d.num_classes, d.x.shape[1], d.bias), []).append(i)
    found = {}
    for members in _common.progress(groups.values(), "fits, by shape", len(groups)):
        fits = _fit_together([designs[i] for i in members], dtype)
        found.update(zip(members, fits, strict=True))
    return [found[i] for i in range(len(designs))]


def _trial(d: Design, verdict: Verdict, status: str, direction: np.ndarray) -> Trial:
    margins = None
    if status == jp.Status.SEPARATED.name:
        margins = relative_margins(d.x, d.y, d.bias, d.weights, direction)
    return Trial(d, verdict, status, margins)


def _unproved(trial: Trial, dtype: str) -> bool:
    """Whether the direction of a fit that says SEPARATED has no such margins, rounding aside."""
    if trial.margins is None:
        return False
    least, greatest = trial.margins
    epsilon = float(np.finfo(dtype).eps)
    return not (least >= -1024 * epsilon and greatest > math.sqrt(epsilon))


def _row(kind: str, trials: list[Trial], dtype: str) -> dict[str, Any]:
    converged = [t for t in trials if t.status == jp.Status.CONVERGED.name]
    return {
        "kind": kind,
        "designs": len(trials),
        "separated": sum(t.verdict.separated for t in trials),
        "complete": sum(t.verdict.complete for t in trials),
        "not exact": sum(not t.verdict.exact for t in trials),
        "by LP": sum(bool(t.verdict.lp_separated) for t in trials),
        "LP differs": sum(t.lp_differs for t in trials),
        "by fit": sum(t.margins is not None for t in trials),
        "fit differs": sum(t.differs for t in trials),
        "converged falsely": sum(t.verdict.separated for t in converged),
        "unproved": sum(_unproved(t, dtype) for t in trials),
    }


def _disagreement(trial: Trial) -> dict[str, Any]:
    d, verdict = trial.design, trial.verdict
    truth = ("overlapping", "quasi-complete", "complete")[verdict.separated + verdict.complete]
    least, greatest = (None, None) if trial.margins is None else trial.margins
    return {
        "kind": d.kind,
        "seed": d.seed,
        "classes": d.num_classes,
        "exactly": truth,
        "LP": verdict.lp_separated,
        "fit": trial.status,
        "least margin": least,
        "greatest margin": greatest,
    }


def _plan(num_designs: int, seed: int) -> Iterable[tuple[str, int, int]]:
    """(kind, seed, K): the kinds in turn, half of them with two classes."""
    for i in range(num_designs):
        yield tuple(KINDS)[i % len(KINDS)], seed + i, (2, 3, 2, 3, 2, 4)[i // len(KINDS) % 6]


def main() -> int:
    """Judge the designs asked for; 1 if a fit contradicts exact arithmetic, otherwise 0."""
    parser = _common.parser("SEPARATED, judged in exact arithmetic on nasty small designs.")
    parser.add_argument("--num-designs", type=int, default=2000)
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    designs = [Design(*key, *design(*key)) for key in _plan(args.num_designs, args.seed)]
    start = time.perf_counter()
    verdicts = [
        separated_lp(d.x, d.y, d.num_classes, d.bias, d.weights)
        for d in _common.progress(designs, "exact arithmetic", len(designs))
    ]
    seconds = time.perf_counter() - start
    fits = _fit_all(designs, args.dtype)
    trials = [_trial(d, v, *fit) for d, v, fit in zip(designs, verdicts, fits, strict=True)]

    rows = [_row(kind, [t for t in trials if t.design.kind == kind], args.dtype) for kind in KINDS]
    rows.append(_row("all", trials, args.dtype))
    found = [
        _disagreement(t) for t in trials if t.differs or t.lp_differs or _unproved(t, args.dtype)
    ]
    _common.table("Separated designs", list(rows[0]), [list(row.values()) for row in rows])
    if found:
        _common.table("Disagreements", list(found[0]), [list(d.values()) for d in found])
    numbers = {
        "by_kind": rows,
        "disagreements": found,
        "statuses": dict(Counter(t.status for t in trials)),
        "oracle_seconds": seconds,
        "dtype": args.dtype,
    }
    print(_common.record("separation", args.out, numbers))
    return int(rows[-1]["fit differs"] + rows[-1]["unproved"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
