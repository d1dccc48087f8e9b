"""Ten thousand fits of which some cannot succeed: does each come back right, or say why not?

    python -m experiments.fault_lanes --num-lanes 10000

makes as many logistic regressions, 60 × 4 with weights, and spoils some: in 1 % each the classes
are separated, quasi-separated, a column repeats another, or a class has no example of positive
weight; in 0.5 % each a feature is NaN, or all weights are zero. All are fitted in one call. Counted
are the codes against what was done to the lane; each healthy lane is fitted again by Newton's
method in NumPy, in a loop in float64; and the time is set against that of the same lanes unspoiled.
"""

import time
from collections import Counter
from typing import NamedTuple

import jax
import matplotlib as mpl
import numpy as np

import jaxprob as jp
from experiments import _common
from jaxprob import Status
from jaxprob.many import plots
from jaxprob.models import logistic

N, D = 60, 4
MARGIN = 0.3
FAULTS = {
    "separated": (0.01, Status.SEPARATED),
    "quasi-separated": (0.01, Status.SEPARATED),
    "rank-deficient": (0.01, Status.SINGULAR),
    "misses a class": (0.01, Status.CLASS_ABSENT),
    "holds a NaN": (0.005, Status.INVALID_INPUT),
    "has no weight": (0.005, Status.NO_DATA),
}
AGREE = 1e-8  # relative to 1 + |θ|


class Lanes(NamedTuple):
    """Data of many regressions."""

    x: np.ndarray  # (B, N, D)
    y: np.ndarray  # (B, N)
    weights: np.ndarray  # (B, N)


def healthy(size: int, seed: int) -> Lanes:
    """Overlapping classes: noise beyond what separates 60 points in 4 dimensions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, N, D))
    slope = rng.normal(size=(size, D)) / 2
    z = np.einsum("bnd,bd->bn", x, slope)
    y = (rng.uniform(size=(size, N)) < 1 / (1 + np.exp(-z))).astype(np.int32)
    # Four points of both classes at mirrored places keep every lane from being separated.
    x[:, 4:8], y[:, :4], y[:, 4:8] = x[:, :4], 0, 1
    return Lanes(x, y, rng.integers(1, 4, (size, N)) / 2)


def spoiled(lanes: Lanes, seed: int) -> tuple[Lanes, np.ndarray]:
    """The lanes with faults in some, and which one each has: "" for none."""
    rng = np.random.default_rng([seed, 1])
    x, y, weights = (a.copy() for a in lanes)
    size = len(x)
    kind = np.full(size, "", dtype="U20")
    free = rng.permutation(size)
    for name, (share, _) in FAULTS.items():
        count = max(1, round(share * size))
        chosen, free = free[:count], free[count:]
        kind[chosen] = name
        for i in chosen:
            _SPOIL[name](x[i], y[i], weights[i])
    return Lanes(x, y, weights), kind


def _separate(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    y[:] = x[:, 0] > 0
    x[:, 0] += np.where(y == 1, MARGIN, -MARGIN)


def _almost_separate(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    """A dummy that only ones have: its coefficient runs off, whatever the others say."""
    x[:, 0] = 0
    x[np.flatnonzero(y == 1)[:8], 0] = 1


def _repeat(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    x[:, 1] = 2 * x[:, 0]


def _lose_a_class(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    weights[y == 1] = 0


def _lose_a_number(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    x[7, 2] = np.nan


def _lose_all_weight(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    weights[:] = 0


_SPOIL = dict(
    zip(
        FAULTS,
        (_separate, _almost_separate, _repeat, _lose_a_class, _lose_a_number, _lose_all_weight),
        strict=True,
    )
)


def by_newton(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D + 1,) the weights and the bias, by Newton's method in NumPy."""
    a = np.hstack([x, np.ones((len(x), 1))])
    theta = np.zeros(a.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-a @ theta))
        step = np.linalg.solve((a.T * (weights * p * (1 - p))) @ a, a.T @ (weights * (y - p)))
        theta = theta + step / max(1.0, np.max(np.abs(a @ step)) / 5)
        if np.max(np.abs(step)) < 1e-13 * (1 + np.max(np.abs(theta))):
            break
    return theta


def timed(lanes: Lanes, repeats: int) -> tuple[jp.Fit, float]:
    """The fits, and the median seconds after a warm-up."""
    model, seconds = logistic.model(), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        fits = jp.fit_many(model, lanes.x, lanes.y, weights=lanes.weights)
        jax.block_until_ready(fits.params)
        seconds.append(time.perf_counter() - start)
    return fits, float(np.median(seconds[1:]))


def main() -> int:
    """Spoil, fit, count; 1 unless every lane is right."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--num-lanes", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5, help="of each timing (5)")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")

    whole = healthy(args.num_lanes, args.seed)
    lanes, kind = spoiled(whole, args.seed)
    _, before = timed(whole, args.repeats)
    fits, seconds = timed(lanes, args.repeats)
    status = np.asarray(fits.status)
    expected = np.array([FAULTS[k][1] if k else Status.CONVERGED for k in kind])

    rows = []
    for name in ("", *FAULTS):
        mine = kind == name
        got = Counter(Status(int(s)).name for s in status[mine])
        right = int(np.sum(status[mine] == expected[mine]))
        rows.append([name or "healthy", int(mine.sum()), right, str(dict(got))])
    _common.table("Lanes, by what was done to them", ["fault", "lanes", "right", "codes"], rows)

    good = np.flatnonzero(kind == "")
    theta = np.hstack([fits.params.weights, np.asarray(fits.params.bias)[:, None]])
    apart = np.empty(len(good))
    for j, i in enumerate(_common.progress(good, "loop in float64", len(good))):
        exact = by_newton(*(a[i] for a in lanes))
        apart[j] = np.max(np.abs(theta[i] - exact) / (1 + np.abs(exact)))
    numbers = {
        "lanes": args.num_lanes,
        "right": int(np.sum(status == expected)),
        "healthy lanes": len(good),
        "largest difference to the loop": float(apart.max()),
        "not finite in healthy lanes": int(np.sum(~np.isfinite(theta[good]))),
        "seconds": seconds,
        "seconds without faults": before,
        "ratio": seconds / before,
        "statuses": {s.name: c for s, c in fits.report().counts.items()},
    }
    _common.table("All", ["what", "value"], [[k, v] for k, v in numbers.items() if k != "statuses"])
    ax = plots.statuses(fits)
    print(_common.save_figure(ax.figure, args.out, "fault_lanes"))
    print(_common.record("fault_lanes", args.out, numbers))
    wrong = args.num_lanes - numbers["right"]
    return int(wrong > 0 or not apart.max() <= AGREE)


if __name__ == "__main__":
    raise SystemExit(main())
