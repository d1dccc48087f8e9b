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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import _common
from experiments._designs import KINDS, MAX_EXAMPLES, design
from experiments._oracle import Verdict, relative_margins, separated_lp

__all__ = ["design", "main", "separated_lp"]


class Trial(NamedTuple):
    """One design, what is true of it, and the status and direction (K, d + bias) of the fit."""

    kind: str
    seed: int
    num_classes: int
    data: tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]
    verdict: Verdict
    status: str | None = None
    direction: np.ndarray | None = None


def _fit_together(trials: list[Trial], dtype: str) -> list[Trial]:
    """Fit designs of one width, number of classes and bias in one call, padded with weight zero."""
    import jax

    import jaxprob as jp
    from jaxprob.models import logistic, softmax

    num_classes, (x, _, _, bias) = trials[0].num_classes, trials[0].data
    binary = num_classes == 2
    model = (
        logistic.model(bias=bias)
        if binary
        else softmax.model(num_classes, parameterisation="reference", bias=bias)
    )
    xs = np.zeros((len(trials), MAX_EXAMPLES, x.shape[1]), dtype)
    ys = np.zeros((len(trials), MAX_EXAMPLES), np.int32)
    cs = np.zeros((len(trials), MAX_EXAMPLES), dtype)
    for lane, trial in enumerate(trials):
        x, y, weights, _ = trial.data
        xs[lane, : len(y)], ys[lane, : len(y)] = x, y
        cs[lane, : len(y)] = 1.0 if weights is None else weights
    fits = jax.jit(jax.vmap(lambda x, y, c: jp.fit(model, x, y, weights=c)))(xs, ys, cs)
    slopes = np.asarray(fits.direction.weights, dtype=float).reshape(len(trials), -1, x.shape[1])
    if bias:
        constant = np.asarray(fits.direction.bias, dtype=float).reshape(len(trials), -1, 1)
        slopes = np.concatenate([slopes, constant], axis=2)
    reference = np.zeros_like(slopes[:, :1])
    # Logistic regression models class 1 against class 0, softmax regression all against the last.
    directions = np.concatenate([reference, slopes] if binary else [slopes, reference], axis=1)
    return [
        trial._replace(status=jp.Status(int(status)).name, direction=direction)
        for trial, status, direction in zip(trials, fits.status, directions, strict=True)
    ]


def _fit_all(trials: list[Trial], dtype: str) -> list[Trial]:
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        x, _, _, bias = trial.data
        groups.setdefault((trial.num_classes, x.shape[1], bias), []).append(trial)
    batches = _common.progress(groups.values(), "fits, by shape", len(groups))
    return [trial for batch in batches for trial in _fit_together(batch, dtype)]


def _unproved(trial: Trial, dtype: str) -> bool:
    """Whether a fit says SEPARATED and its direction shows no separation, rounding aside."""
    if trial.status != "SEPARATED" or trial.direction is None:
        return False
    x, y, weights, bias = trial.data
    least, greatest = relative_margins(x, y, bias, weights, trial.direction)
    epsilon = float(np.finfo(dtype).eps)
    return not (least >= -1024 * epsilon and greatest > math.sqrt(epsilon))


def _row(kind: str, trials: list[Trial], dtype: str) -> dict[str, Any]:
    fitted = [t for t in trials if t.status is not None]
    return {
        "kind": kind,
        "designs": len(trials),
        "separated": sum(t.verdict.separated for t in trials),
        "complete": sum(t.verdict.complete for t in trials),
        "not exact": sum(not t.verdict.exact for t in trials),
        "by LP": sum(bool(t.verdict.lp_separated) for t in trials),
        "LP differs": sum(t.verdict.lp_separated != t.verdict.separated for t in trials),
        "by fit": sum(t.status == "SEPARATED" for t in fitted),
        "fit differs": sum((t.status == "SEPARATED") != t.verdict.separated for t in fitted),
        "falsely converged": sum(t.status == "CONVERGED" and t.verdict.separated for t in fitted),
        "unproved": sum(_unproved(t, dtype) for t in fitted),
    }


def _disagreement(trial: Trial, dtype: str) -> dict[str, Any] | None:
    fit_differs = trial.status and (trial.status == "SEPARATED") != trial.verdict.separated
    lp_differs = trial.verdict.lp_separated != trial.verdict.separated
    if not (fit_differs or lp_differs or _unproved(trial, dtype)):
        return None
    x, y, weights, bias = trial.data
    least = greatest = math.nan
    if trial.direction is not None:
        least, greatest = relative_margins(x, y, bias, weights, trial.direction)
    return {
        "kind": trial.kind,
        "seed": trial.seed,
        "classes": trial.num_classes,
        "exactly": ("overlapping", "quasi-complete", "complete")[
            trial.verdict.separated + trial.verdict.complete
        ],
        "LP": trial.verdict.lp_separated,
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
    parser.add_argument("--no-fit", action="store_true", help="only the LP and exact arithmetic")
    args = parser.parse_args()

    trials, seconds = [], 0.0
    plan = _plan(args.num_designs, args.seed)
    for kind, seed, num_classes in _common.progress(plan, "exact arithmetic", args.num_designs):
        x, y, weights, bias = data = design(kind, seed, num_classes)
        start = time.perf_counter()
        verdict = separated_lp(x, y, num_classes, bias, weights)
        seconds += time.perf_counter() - start
        trials.append(Trial(kind, seed, num_classes, data, verdict))
    if not args.no_fit:
        trials = _fit_all(trials, args.dtype)

    rows = [_row(kind, [t for t in trials if t.kind == kind], args.dtype) for kind in KINDS]
    rows.append(_row("all", trials, args.dtype))
    found = [d for t in trials if (d := _disagreement(t, args.dtype)) is not None]
    _common.table("Separated designs", list(rows[0]), [list(row.values()) for row in rows])
    if found:
        _common.table("Disagreements", list(found[0]), [list(d.values()) for d in found])
    numbers = {
        "by_kind": rows,
        "disagreements": found,
        "statuses": Counter(t.status for t in trials if t.status is not None),
        "oracle_seconds": seconds,
        "dtype": args.dtype,
    }
    print(_common.record("separation", Path(args.out), numbers))
    return int(rows[-1]["fit differs"] + rows[-1]["unproved"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
