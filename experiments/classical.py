"""Are the classical models fast? Against scikit-learn and others, on the same data in one process.

    python -m experiments.classical                   # everything
    python -m experiments.classical --only mixtures   # one part
    python -m experiments.classical --quick           # tiny sizes: does it run?

Parts: naive_bayes (Gaussian, one fit of many examples; and a thousand resamples in one call against
a loop over scikit-learn, of which a part is run and its time scaled); mixtures (a step of EM from
one start; and a hundred starts of one to eight components, in one call against a pool of processes,
with scikit-learn's tolerance of 1e-3 nats per example); dirichlet (a mixture of a Dirichlet
process: so many steps from the same start, and until the bound changes as little); kernels (exact
log-densities; the bandwidth by leaving out, against statsmodels; a grid by Fourier transforms,
against KDEpy; and memory); neighbours (log-densities); trees (one of depth 6,
both of all thresholds; and a forest of a hundred, against one on all cores).

Times are medians after a warm-up, ours and theirs in turn. Each row says how far the parameters of
the two are apart, relative to their size, or for the search of mixtures by how many nats our best
run is worse than theirs, and for trees by what share the log-likelihood of other examples is worse
than theirs. Both are given NumPy's arrays, and naive Bayes is given JAX's in a row of
its own. Without scikit-learn's additions to variances.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from sklearn.naive_bayes import GaussianNB

import jaxprob as jp
from experiments import _common, _dirichlet, _kernels, _mixtures, _neighbours, _trees
from experiments.benchmark import in_turn
from jaxprob.many import fit_many
from jaxprob.models import naive_bayes

ONE = (500_000, 20)
MANY = (1_000, 5_000, 20)
LOOP = 100  # resamples that scikit-learn is run on
TARGETS = {"one": 3.0, "many": None}


def examples(n: int, d: int, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) normal features whose means and scales depend on one of three classes, and these."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n).astype(np.int32)
    means, scales = rng.standard_normal((3, d)), rng.uniform(0.5, 2.0, (3, d))
    x = means[y] + scales[y] * rng.standard_normal((n, d))
    return x.astype(dtype), y


def theirs(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> list[np.ndarray]:
    """Shares of the classes, means and variances."""
    fit = GaussianNB(var_smoothing=0.0).fit(x, y, weights)
    return [fit.class_prior_, fit.theta_, fit.var_]


def ours(params: Any) -> list[np.ndarray]:
    """The same of our parameters."""
    part = params.features[0]
    logits = np.asarray(params.class_logits, float)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return [shares, np.asarray(part.mean), np.exp(2 * np.asarray(part.log_scale, float))]


def apart(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The largest difference, relative to 1 or what it is of."""
    pairs = zip(a, b, strict=True)
    return float(max(np.max(np.abs(p - q) / np.maximum(1.0, np.abs(q))) for p, q in pairs))


def one_fit(n: int, d: int, dtype: str, seed: int, repeats: int) -> list[list]:
    """Rows of a single fit."""
    x, y = examples(n, d, dtype, seed)
    on_device = jax.device_put((x, y))
    model, kept = naive_bayes.model(3), {}

    def fit(name: str, x: Any, y: Any) -> None:
        kept[name] = jax.block_until_ready(jp.fit(model, x, y)).params

    calls: dict[str, Callable[[], Any]] = {
        "NumPy's arrays": partial(fit, "NumPy's arrays", x, y),
        "JAX's arrays": partial(fit, "JAX's arrays", *on_device),
        "theirs": lambda: kept.update(theirs=theirs(x, y)),
    }
    seconds = in_turn(calls, repeats)
    return [
        [
            f"one fit, {n:,} × {d}, {dtype}, {name}",
            seconds["theirs"],
            seconds[name],
            seconds["theirs"] / seconds[name],
            TARGETS["one"],
            apart(ours(kept[name]), kept["theirs"]),
        ]
        for name in ("NumPy's arrays", "JAX's arrays")
    ]


def many_fits(lanes: int, n: int, d: int, seed: int, repeats: int) -> list[list]:
    """A row of resamples of one data set."""
    x, y = examples(n, d, "float64", seed)
    weights = np.random.default_rng(seed + 1).multinomial(n, np.full(n, 1 / n), size=lanes)
    weights = weights.astype(float)
    model, kept = naive_bayes.model(3), {}
    some = weights[:LOOP]

    def all_of_ours() -> None:
        kept["ours"] = jax.block_until_ready(fit_many(model, x, y, weights=weights)).params

    def some_of_theirs() -> None:
        kept["theirs"] = [theirs(x, y, w) for w in some]

    seconds = in_turn({"jaxprob": all_of_ours, "loop": some_of_theirs}, repeats)
    scaled = seconds["loop"] * lanes / len(some)
    stacked = [np.stack(parts) for parts in zip(*kept["theirs"], strict=True)]
    mine = [a[: len(some)] for a in ours(kept["ours"])]
    label = f"{lanes:,} resamples, {n:,} × {d}, float64, loop of {len(some)}, scaled"
    took = seconds["jaxprob"]
    return [[label, scaled, took, scaled / took, TARGETS["many"], apart(mine, stacked)]]


def naive_bayes_rows(args: argparse.Namespace) -> list[list]:
    """The part naive_bayes."""
    one, many = ((500, 3), (20, 100, 3)) if args.quick else (ONE, MANY)
    rows = []
    for dtype in ("float64", "float32"):
        rows += one_fit(*one, dtype, args.seed, args.repeats)
    return rows + many_fits(*many, args.seed, args.repeats)


def mixture_rows(args: argparse.Namespace) -> list[list]:
    """The part mixtures."""
    step = (1_000, 3, 2) if args.quick else _mixtures.ITERATION
    search = (200, 2, 2, 3) if args.quick else _mixtures.SEARCH
    dtypes = "float64", "float32"
    rows = [_mixtures.iteration(*step, dtype, args.seed, args.repeats) for dtype in dtypes]
    return rows + [_mixtures.search(*search, dtype, args.seed) for dtype in dtypes]


def dirichlet_rows(args: argparse.Namespace) -> list[list]:
    """The part dirichlet."""
    size = (500, 2, 4) if args.quick else _dirichlet.FIT
    repeats = min(3, args.repeats)
    return [
        row
        for dtype in ("float64", "float32")
        for row in _dirichlet.fits(*size, dtype, args.seed, repeats)
    ]


def kernel_rows(args: argparse.Namespace) -> list[list]:
    """The part kernels."""
    exact = (500, 100) if args.quick else _kernels.EXACT
    few = (60, 2) if args.quick else _kernels.BANDWIDTH
    many = 5_000 if args.quick else _kernels.BINNED
    memory = (2_000, 500) if args.quick else _kernels.MEMORY
    rows = [_kernels.exact(*exact, d, args.seed, min(5, args.repeats)) for d in (1, 2, 6)]
    rows.append(_kernels.bandwidth(*few, args.seed, args.repeats))
    rows += _kernels.binned(many, args.seed, args.repeats)
    return [*rows, _kernels.memory(*memory, args.seed)]


def neighbour_rows(args: argparse.Namespace) -> list[list]:
    """The part neighbours."""
    sizes = (500, 100) if args.quick else _neighbours.DENSITY
    return [_neighbours.density(*sizes, d, args.seed, args.repeats) for d in (1, 2, 6)]


def tree_rows(args: argparse.Namespace) -> list[list]:
    """The part trees."""
    one, seeds = ((1_000, 6), 1) if args.quick else (_trees.ONE, _trees.SEEDS)
    many = (500, 6, 5) if args.quick else _trees.MANY
    dtypes = "float64", "float32"
    rows = [
        _trees.one_tree(*one, classes, dtype, range(args.seed, args.seed + seeds), args.repeats)
        for classes in (2, 3)
        for dtype in dtypes
    ]
    return rows + [_trees.forest(*many, 2, dtype, args.seed) for dtype in dtypes]


PARTS = {
    "naive_bayes": naive_bayes_rows,
    "mixtures": mixture_rows,
    "dirichlet": dirichlet_rows,
    "kernels": kernel_rows,
    "neighbours": neighbour_rows,
    "trees": tree_rows,
}


def main() -> int:
    """Run, show, record."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--quick", action=argparse.BooleanOptionalAction, help="tiny sizes")
    parser.add_argument("--repeats", type=int, default=9, help="of each call (9)")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part, or several")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    columns = ["what", "peer s", "jaxprob s", "times as fast", "target", "apart"]

    def rows_of(name: str) -> list[dict[str, Any]]:
        return [dict(zip(columns, row, strict=True)) for row in PARTS[name](args)]

    parts = {name: partial(rows_of, name) for name in args.only or PARTS}
    _common.run_parts("classical", args.out, parts, quick=args.quick)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
