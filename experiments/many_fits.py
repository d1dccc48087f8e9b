"""Are many fits in one call fast? Against the fastest peers, on the same data in one process.

    python -m experiments.many_fits                 # everything, some minutes
    python -m experiments.many_fits --only shared   # one part
    python -m experiments.many_fits --quick         # tiny sizes: does it run?

Parts: shared (bootstrap weights over one data matrix, against a pool of scikit-learn processes),
softmax (the same with four classes), own (a data matrix for each lane, against loops over
scikit-learn and statsmodels, against glmax, and against Newton's method written by hand in Numba),
path (penalties × folds, against LogisticRegressionCV), tail (a few lanes need many more steps than
the others: the time should follow the sum of the steps), memory (peak of very many resamples),
compilations.

Times are medians, ours and theirs in turn. Ours are of calls that have been made for some time
before: many fits get programs that are better optimised once these are worth the seconds that they
take to compile. Peers that take longer than ten seconds run once. scikit-learn keeps its default
tolerance, and of its two solvers the faster one counts. Each row says whether our largest gradient,
over the lanes that are healthy, is no larger than theirs, and whether the two solutions agree; both
are computed in float64 by NumPy.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from experiments import _common
from experiments._peers import (
    Solutions,
    from_theta,
    glmax_lanes,
    quality,
    scikit_learn_loop,
    scikit_learn_path,
    scikit_learn_pool,
    statsmodels_loop,
    with_ones,
)
from experiments.benchmark import in_turn, logistic_data, softmax_data

SOLVERS = ("lbfgs", "newton-cholesky")  # of scikit-learn
AGREE = 0.05  # nats: scikit-learn stops at a mean gradient of 1e-4, up to 0.03 from the optimum
MAX_STEPS = 10_000
_SETTLED = 25.0  # seconds
TARGETS = {
    "1,000 × 20, float64": 25.0,
    "1,000 × 20, float32": 60.0,
    "5,000 × 30, float64": 15.0,
    "5,000 × 30, float32": 40.0,
    "softmax": 25.0,
    "scikit-learn newton-cholesky, loop": 60.0,
    "statsmodels newton, loop": 15.0,
    "glmax, filter_vmap": 3.0,
    "Numba newton": 1.5,
    "path": 15.0,
    "tail": 2.0,
}
"""The least peer's time / ours; of the tail the most that a step may cost, times a usual one."""


class Sizes(NamedTuple):
    """How large everything is."""

    lanes: int
    shared: tuple[tuple[int, int], ...]  # (n, d)
    softmax: tuple[int, int, int]  # n, d, K
    own: tuple[int, int, int]  # B, n, d
    loop: int  # lanes of `own` that a loop over a peer runs; its time is scaled
    path: tuple[int, int, int, int]  # n, d, penalties, folds
    tail: tuple[int, int, int, int]  # B, of which are slow, n, d
    memory: tuple[int, int, int]  # B, n, d
    compilations: tuple[int, int, int]  # B, n, d


FULL = Sizes(
    lanes=1_000,
    shared=((1_000, 20), (5_000, 30)),
    softmax=(2_000, 20, 4),
    own=(10_000, 200, 8),
    loop=500,
    path=(20_000, 50, 100, 10),
    tail=(2_000, 20, 1_000, 20),
    memory=(100_000, 1_000, 20),
    compilations=(2_000, 1_013, 17),
)
QUICK = Sizes(
    lanes=20,
    shared=((100, 3),),
    softmax=(150, 2, 3),
    own=(20, 60, 2),
    loop=5,
    path=(200, 3, 4, 3),
    tail=(40, 2, 100, 3),
    memory=(50, 100, 3),
    compilations=(20, 101, 3),
)


class Context(NamedTuple):
    """What the parts are called with."""

    sizes: Sizes
    seed: int
    repeats: int
    workers: int


def settled_in_turn(
    calls: dict[str, Callable[[], Any]], context: Context, repeats: int | None = None
) -> dict[str, float]:
    """Median seconds of each call, after ours have got the best programs that they will have."""
    for name, call in calls.items():
        start = time.perf_counter()
        while name.startswith("jaxprob") and time.perf_counter() - start < _SETTLED:
            call()
            if context.sizes is QUICK:
                break
    return in_turn(calls, context.repeats if repeats is None else repeats)


def resamples(lanes: int, n: int, dtype: str, seed: int) -> np.ndarray:
    """(B, n) how often each example is drawn in each bootstrap sample."""
    rng = np.random.default_rng(seed + 1)
    return rng.multinomial(n, np.full(n, 1 / n), size=lanes).astype(dtype)


def ours(fits: Any) -> Solutions:
    """The parameters of many fits."""
    coef, bias = np.asarray(fits.params.weights), np.asarray(fits.params.bias)
    if bias.ndim == 1:
        return Solutions(coef[:, None], bias[:, None])
    zero = np.zeros_like(bias[:, :1])  # the class of reference, the last one
    return Solutions(
        np.concatenate([coef, np.zeros_like(coef[:, :1])], axis=1),
        np.concatenate([bias, zero], axis=1),
    )


def wait(fits: Any) -> Any:
    """The fits, when they are there."""
    import jax

    return jax.block_until_ready(fits)


def is_healthy(fits: Any) -> np.ndarray:
    """(B,) whether a finite optimum exists and was found."""
    from jaxprob import Status

    return np.asarray(fits.status) == Status.CONVERGED


def row(
    label: str,
    peer: str,
    seconds: tuple[float, float],
    target: float | None,
    data: tuple,
    fits: Any,
    theirs: Solutions,
) -> dict[str, Any]:
    """One comparison: times, and how good both solutions are.

    Args:
        label: of the data.
        peer: its name.
        seconds: the peer's and ours.
        target: the least ratio of the two; None where it does not count.
        data: x, y, weights and l2, as `quality` takes them.
        fits: ours.
        theirs: of the first lanes at least.
    """
    count = len(theirs.coef)
    x, y, weights, l2 = data
    lanes = (
        x[:count] if x.ndim == 3 else x,
        y[:count] if y.ndim == 2 else y,
    )
    lanes_own = tuple(None if a is None else a[:count] for a in (weights, l2))
    mine = Solutions(*(a[:count] for a in ours(fits)))
    a, b = (quality(*lanes, s, *lanes_own) for s in (mine, theirs))
    good = is_healthy(fits)[:count]
    mine, theirs = mine.centred(), theirs.centred()
    apart = float(np.abs(b.value - a.value)[good].max(initial=0))
    slope, their_slope = (float(q.grad_norm[good].max(initial=0)) for q in (a, b))
    pairs = zip(mine, theirs, strict=True)
    return {
        "data": label,
        "dtype": x.dtype.name,
        "peer": peer,
        "peer s": seconds[0],
        "jaxprob s": seconds[1],
        "peer / jaxprob": seconds[0] / seconds[1],
        "target": target,
        "healthy": f"{good.sum():,} of {count:,}",
        "peer's gradient": their_slope,
        "our gradient": slope,
        "no larger": slope <= their_slope,
        "parameters apart": max(float(np.abs(m - t)[good].max(initial=0)) for m, t in pairs),
        "nats apart": apart,
        "agree": apart <= AGREE,
    }


def bootstrap_rows(
    part: str, label: str, model: Any, x: np.ndarray, y: np.ndarray, context: Context, seed: int
) -> list[dict]:
    """Fits of resamples against scikit-learn's two solvers in a pool; the faster one counts."""
    from joblib import Parallel

    from jaxprob.many import fit_many

    weights = resamples(context.sizes.lanes, len(x), x.dtype.name, seed)
    kept: dict[str, Any] = {}
    with Parallel(n_jobs=context.workers) as pool:
        scikit_learn_pool(pool, x, y, weights[: 4 * context.workers], SOLVERS[0])  # starts it
        calls: dict[str, Callable[[], Any]] = {
            "jaxprob": lambda: kept.update(ours=wait(fit_many(model, x, y, weights=weights)))
        }
        for solver in SOLVERS:
            calls[solver] = lambda solver=solver: kept.update(
                {solver: scikit_learn_pool(pool, x, y, weights, solver)}
            )
        seconds = settled_in_turn(calls, context)
    fastest = min(SOLVERS, key=lambda solver: seconds[solver])
    return [
        row(
            label,
            f"scikit-learn {solver}, {context.workers} processes",
            (seconds[solver], seconds["jaxprob"]),
            TARGETS.get(part, 1.0)
            if solver == fastest
            else None,  # 1 for the tiny sizes of --quick
            (x, y, weights, None),
            kept["ours"],
            kept[solver],
        )
        for solver in SOLVERS
    ]


def shared_part(context: Context) -> list[dict]:
    """Logistic regression without a penalty, bootstrap weights over one data matrix."""
    from jaxprob.models import logistic

    rows = []
    for n, d in context.sizes.shared:
        for dtype in ("float64", "float32"):
            x, y = logistic_data(n, d, dtype, context.seed)
            label = f"{context.sizes.lanes:,} weights, {n:,} × {d}"
            part = f"{n:,} × {d}, {dtype}"
            rows += bootstrap_rows(part, label, logistic.model(), x, y, context, context.seed)
    return rows


def softmax_part(context: Context) -> list[dict]:
    """The same with several classes."""
    from jaxprob.models import softmax

    n, d, k = context.sizes.softmax
    x, y = softmax_data(n, d, k, context.seed)
    label = f"{context.sizes.lanes:,} weights, {n:,} × {d}, K = {k}"
    return bootstrap_rows("softmax", label, softmax.model(k), x, y, context, context.seed)


def own_data(lanes: int, n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(B, n, d) Gaussian features and (B, n) labels, log-odds of standard deviation 2 in a lane."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((lanes, n, d))
    slopes = rng.standard_normal((lanes, d, 1)) * 2 / np.sqrt(d)
    chance = 1 / (1 + np.exp(-((x @ slopes)[..., 0] + 0.3)))
    return x, (rng.random((lanes, n)) < chance).astype(np.int32)


def own_part(context: Context) -> list[dict]:
    """Lanes with their own data."""
    import jax.numpy as jnp

    from experiments._numba_newton import fit_lanes
    from jaxprob.many import fit_many
    from jaxprob.models import logistic

    sizes, kept = context.sizes, {}
    lanes, n, d = sizes.own
    x, y = own_data(lanes, n, d, context.seed)
    few_x, few_y = x[: sizes.loop], y[: sizes.loop]
    glmax_x, glmax_y = jnp.asarray(with_ones(x)), jnp.asarray(y, x.dtype)
    fit_glmax = glmax_lanes()
    peers: dict[str, Callable[[], Solutions]] = {
        "scikit-learn newton-cholesky, loop": lambda: scikit_learn_loop(
            few_x, few_y, "newton-cholesky"
        ),
        "statsmodels newton, loop": lambda: statsmodels_loop(few_x, few_y),
        "glmax, filter_vmap": lambda: from_theta(np.asarray(fit_glmax(glmax_x, glmax_y))),
        "Numba newton": lambda: from_theta(fit_lanes(x, y)[0]),
    }
    calls: dict[str, Callable[[], Any]] = {
        "jaxprob": lambda: kept.update(ours=wait(fit_many(logistic.model(), x, y)))
    }
    for name, call in peers.items():
        calls[name] = lambda name=name, call=call: kept.update({name: call()})
    for name in ("glmax, filter_vmap", "Numba newton"):
        calls[name]()  # compiles
    seconds = settled_in_turn(calls, context)
    rows = []
    for name in peers:
        scale = lanes / len(kept[name].coef)
        scaled = "" if scale == 1 else f" ({sizes.loop:,} lanes, time × {scale:g})"
        rows.append(
            row(
                f"{lanes:,} of {n:,} × {d}",
                name + scaled,
                (scale * seconds[name], seconds["jaxprob"]),
                TARGETS[name],
                (x, y, None, None),
                kept["ours"],
                kept[name],
            )
        )
    return rows


def path_fits(
    x: np.ndarray, y: np.ndarray, splits: list, penalties: np.ndarray
) -> tuple[Any, np.ndarray]:
    """All folds with all penalties, and the fits of all examples on the way.

    Returns:
        Fits, the folds of the first penalty first; (folds, penalties) mean held-out loss, nats.
    """
    from jaxprob.many import cross_validate
    from jaxprob.models import logistic

    fold = np.empty(len(y), np.int32)
    for k, (_, held_out) in enumerate(splits):
        fold[held_out] = k
    cv = cross_validate(logistic.model(), x, y, folds=fold, l2=penalties)
    wait(cv.fits)
    return cv.fits, -np.asarray(cv.scores.log_likelihood)[:, 0].T


def fold_weights(n: int, splits: list) -> np.ndarray:
    """(folds, n) 1 for the examples that a fold is fitted to, 0 for those that it leaves out."""
    weights = np.zeros((len(splits), n))
    for one, (fitted_to, _) in zip(weights, splits, strict=True):
        one[fitted_to] = 1
    return weights


def path_part(context: Context) -> list[dict]:
    """Penalties × folds."""
    import jax
    from sklearn.model_selection import StratifiedKFold

    n, d, num_penalties, folds = context.sizes.path
    x, y = logistic_data(n, d, "float64", context.seed)
    penalties = np.logspace(4, -4, num_penalties)
    splits = list(StratifiedKFold(folds).split(x, y))
    kept: dict[str, Any] = {}
    calls: dict[str, Callable[[], Any]] = {
        "jaxprob": lambda: kept.update(ours=path_fits(x, y, splits, penalties))
    }
    for solver in SOLVERS:
        calls[solver] = lambda solver=solver: kept.update(
            {solver: scikit_learn_path(x, y, splits, penalties, solver, context.workers)}
        )
    few = np.arange(min(n, 50 * folds))
    few_splits = list(StratifiedKFold(folds).split(few, y[few]))
    scikit_learn_path(x[few], y[few], few_splits, penalties[:2], SOLVERS[0], context.workers)
    seconds = settled_in_turn(calls, context, 1)
    fastest = min(SOLVERS, key=lambda solver: seconds[solver])
    weights = np.repeat(fold_weights(n, splits), num_penalties, axis=0)
    l2 = np.tile(penalties, folds)
    fits, losses = kept["ours"]
    order = np.arange(num_penalties * folds).reshape(num_penalties, folds).T.ravel()
    fits = jax.tree.map(lambda a: a[order], fits)  # as theirs: a fold's penalties together
    rows = []
    for solver in SOLVERS:
        theirs, their_losses = kept[solver]
        made = row(
            f"{num_penalties} penalties × {folds} folds, {n:,} × {d}",
            f"LogisticRegressionCV {solver}",
            (seconds[solver], seconds["jaxprob"]),
            TARGETS["path"] if solver == fastest else None,
            (x, y, weights, l2),
            fits,
            theirs,
        )
        made["held-out loss apart"] = float(np.abs(losses - their_losses).max())
        rows.append(made)
    return rows


def tail_part(context: Context) -> list[dict]:
    """A few lanes that need many more steps: the time against the sum of the lanes' own steps.

    Newton's method takes few steps from anywhere, so the lanes that start far away are those of
    gradient descent. What keeps Newton's method busy is data that are almost separated: all
    examples that contradict a direction have a weight of 1e-10.
    """
    import jax.numpy as jnp
    import optax

    import jaxprob as jp
    from jaxprob.many import fit_many
    from jaxprob.models import logistic

    lanes, num_slow, n, d = context.sizes.tail
    x, y = logistic_data(n, d, "float64", context.seed)
    weights = resamples(lanes, n, "float64", context.seed)
    rng = np.random.default_rng(context.seed + 2)
    slow = np.zeros(lanes, bool)
    slow[rng.choice(lanes, num_slow, replace=False)] = True
    away = rng.standard_normal((lanes, d))
    away *= 800 * slow[:, None] / np.linalg.norm(away, axis=1, keepdims=True)
    model = logistic.model()
    best = jp.fit(model, x, y).params
    wrong = (x @ np.asarray(best.weights) + float(best.bias) > 0) != y
    almost = np.where(slow[:, None] & wrong, 1e-10, 1.0) * weights
    rate = 5.0 / n
    descent = jp.solvers.gradient(optax.sgd, learning_rate=rate, max_steps=MAX_STEPS)
    run = partial(fit_many, model, x, y)
    far, start = (
        logistic.Params(jnp.asarray(weights), jnp.zeros(lanes)) for weights in (away, 0 * away)
    )
    cases = {
        f"gradient descent, {num_slow} start far away": (
            lambda: run(weights=weights, init=start, solver=descent),
            lambda: run(weights=weights, init=far, solver=descent),
        ),
        f"newton, {num_slow} almost separated": (
            lambda: run(weights=weights, init=start),
            lambda: run(weights=almost, init=start),
        ),
    }
    rows = []
    for name, (alike, mixed) in cases.items():
        kept: dict[str, Any] = {}
        calls: dict[str, Callable[[], Any]] = {
            "jaxprob alike": lambda run=alike, kept=kept: kept.update(alike=wait(run())),
            "jaxprob mixed": lambda run=mixed, kept=kept: kept.update(mixed=wait(run())),
        }
        alike_seconds, mixed_seconds = settled_in_turn(calls, context, 1).values()
        steps = {key: np.asarray(fits.num_steps) for key, fits in kept.items()}
        usual = float(np.median(steps["mixed"][~slow]))
        of_slow = float(np.median(steps["mixed"][slow]))
        expected = alike_seconds / steps["alike"].sum() * steps["mixed"].sum()
        rows.append(
            {
                "lanes": f"{lanes:,} of {n:,} × {d}, {name}",
                "usual steps": usual,
                "of the slow": of_slow,
                "times as many": of_slow / usual,
                "lane-steps without": int(steps["alike"].sum()),
                "lane-steps": int(steps["mixed"].sum()),
                "s without": alike_seconds,
                "s": mixed_seconds,
                "s / (lane-steps × one's s)": mixed_seconds / expected,
                "target": TARGETS["tail"],
                "healthy": f"{is_healthy(kept['mixed']).sum():,} of {lanes:,}",
            }
        )
    return rows


_MEMORY = """
import sys, time
import jaxprob as jp, jax, numpy as np
jp.use_all_cores(); jax.config.update("jax_enable_x64", True)
lanes, n, d, seed = map(int, sys.argv[1:5])
from experiments.benchmark import logistic_data
from jaxprob.many import bootstrap
x, y = logistic_data(n, d, sys.argv[5], seed)
def peak():
    with open("/proc/self/status") as file:
        return next(int(l.split()[1]) / 1024 for l in file if l.startswith("VmHWM"))
jax.block_until_ready(jp.fit(jp.models.logistic.model(), x, y).params)
before = peak()
start = time.perf_counter()
key = jax.random.key(seed)
fits = bootstrap(jp.models.logistic.model(), x, y, key, num_replicates=lanes).fits
jax.block_until_ready(fits)
seconds = time.perf_counter() - start
results = sum(a.nbytes for a in jax.tree.leaves(fits)) / 2**20
healthy = int((np.asarray(fits.status) == jp.Status.CONVERGED).sum())
print(before, peak(), results, seconds, healthy)
"""


def memory_part(context: Context) -> list[dict]:
    """Peak memory of very many resamples, whose weights are made on the way, in its own process.

    VmHWM and not ru_maxrss, which a process inherits from the one that started it.
    """
    lanes, n, d = context.sizes.memory
    rows = []
    for dtype in ("float64", "float32"):
        out = _python(_MEMORY, lanes, n, d, context.seed, dtype)
        before, peak, results, seconds, healthy = map(float, out.split())
        rows.append(
            {
                "data": f"{lanes:,} resamples, {n:,} × {d}",
                "dtype": dtype,
                "peak before, MiB": before,
                "peak, MiB": peak,
                "beyond it, MiB": peak - before,
                "of which the results, MiB": results,
                "s, compilation included": seconds,
                "healthy": f"{healthy:,.0f} of {lanes:,}",
            }
        )
    return rows


def compilation_part(context: Context) -> list[dict]:
    """Programs compiled for calls with new weights."""
    import jax

    from jaxprob.many import fit_many
    from jaxprob.models import logistic

    count = [0]

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        del duration_secs, kwargs
        count[0] += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    lanes, n, d = context.sizes.compilations
    x, y = logistic_data(n, d, "float64", context.seed)

    def compiled(seed: int) -> int:
        before = count[0]
        wait(fit_many(logistic.model(), x, y, weights=resamples(lanes, n, "float64", seed)))
        return count[0] - before

    programs = [compiled(context.seed + i) for i in range(10)]
    label = f"{lanes:,} weights, {n:,} × {d}"
    return [
        {"call": f"{label}: the first", "programs": programs[0], "target": None},
        {"call": "the second, with new weights", "programs": programs[1], "target": 0},
        {"call": "eight more, with new weights", "programs": sum(programs[2:]), "target": 0},
    ]


def _python(code: str, *args: Any) -> str:
    call = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


PARTS: dict[str, Callable[[Context], list[dict]]] = {
    "shared": shared_part,
    "softmax": softmax_part,
    "own": own_part,
    "path": path_part,
    "tail": tail_part,
    "memory": memory_part,
    "compilations": compilation_part,
}


def draw(numbers: dict[str, Any], out: Any) -> None:
    """How many times as fast as each peer, with the targets."""
    import matplotlib.pyplot as plt

    parts = [part for part in PARTS if part in numbers and part not in _NOT_DRAWN]
    rows = [(part, row) for part in parts for row in numbers[part]["rows"] if row["target"]]
    if not rows:
        return
    figure, ax = plt.subplots(figsize=(10, 1 + 0.45 * len(rows)), layout="constrained")
    places = np.arange(len(rows))[::-1]
    ratios = np.array([row["peer / jaxprob"] for _, row in rows])
    colours = [f"C{parts.index(part)}" for part, _ in rows]
    ax.barh(places, ratios - 1, left=1, color=colours, height=0.7)
    for place, ratio, (_, one) in zip(places, ratios, rows, strict=True):
        ax.plot([one["target"]] * 2, [place - 0.45, place + 0.45], color="black", lw=2)
        ax.text(max(ratio, 1.0) * 1.05, place, f"{ratio:.3g} ×", va="center", fontsize="small")
    labels = [f"{r['data']}, {r['dtype']}\n{r['peer']}" for _, r in rows]
    ax.set_yticks(places, labels, fontsize="x-small")
    ax.axvline(1.0, color="grey", lw=1)
    ax.set(xscale="log", xlabel="peer's time / jaxprob's; black lines: targets")
    ax.margins(x=0.15)
    _common.save_figure(figure, out, "many_fits")
    plt.close(figure)


_NOT_DRAWN = ("tail", "memory", "compilations")


_TIMES = ("data", "dtype", "peer", "peer s", "jaxprob s", "peer / jaxprob", "target")


def _show(part: str, rows: list[dict]) -> None:
    """Print rows; comparisons as two tables, which are too wide as one."""
    names = list(rows[0])
    tables = {part: names}
    if "peer" in names:
        solutions = [*_TIMES[:3], *(name for name in names if name not in _TIMES)]
        tables = {part: list(_TIMES), f"{part}: the solutions": solutions}
    for title, columns in tables.items():
        _common.table(title, columns, [[row[c] for c in columns] for row in rows])


def _parser() -> argparse.ArgumentParser:
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; times mean nothing")
    parser.add_argument("--repeats", type=int, default=2, help="of each timing (2)")
    return parser


def main() -> None:
    """Run the parts asked for, print their tables, write many_fits.json and a picture."""
    args = _parser().parse_args()

    import jax
    import joblib
    import matplotlib as mpl

    import jaxprob as jp

    jp.use_all_cores()
    jax.config.update("jax_enable_x64", True)
    mpl.use("Agg")
    sizes, repeats = (QUICK, 1) if args.quick else (FULL, args.repeats)
    context = Context(sizes, args.seed, repeats, joblib.cpu_count())
    parts = {name: partial(PARTS[name], context) for name in args.only or PARTS}
    draw(_common.run_parts("many_fits", args.out, parts, _show, quick=args.quick), args.out)


if __name__ == "__main__":
    main()
