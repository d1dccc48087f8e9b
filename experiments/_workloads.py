"""What `devices` times: calls of the library, each with what it returns, and some of peers."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxprob as jp
from experiments import _mixtures, _trees
from experiments.benchmark import logistic_data, softmax_data
from experiments.many_fits import own_data, resamples
from jaxprob.many import fit_many, mixture_search, path
from jaxprob.models import (
    decision_tree,
    dirichlet_mixture,
    gaussian_mixture,
    kernel_density,
    knn_density,
    logistic,
    naive_bayes,
    random_forest,
    softmax,
)
from jaxprob.solvers import em

STEPS = 20  # of expectation-maximisation
NEIGHBOURS = 10
LOOP = 100  # resamples that a pool of scikit-learn's fits is given


class Outcome(NamedTuple):
    """What is compared between devices, how many fits there were, and how many have converged."""

    values: Any
    fits: int | None = None
    converged: int | None = None


class Workload(NamedTuple):
    """Sizes, what makes a call of given sizes, dtype and seed, and the same of a peer.

    A peer's call returns by how much its time is to be multiplied.
    """

    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    label: str
    ours: Callable[..., Callable[[], Outcome]]
    theirs: Callable[..., Callable[[], float]] | None = None


def _of_fits(fits: Any, values: Any) -> Outcome:
    status = np.asarray(fits.status)
    return Outcome(values, status.size, int((status == jp.Status.CONVERGED).sum()))


def _logistic(n: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y = map(jnp.asarray, logistic_data(n, d, dtype, seed))

    def run() -> Outcome:
        fit = jp.fit(logistic.model(), x, y, l2=1.0)
        return _of_fits(fit, fit.params)

    return run


def _logistic_peer(n: int, d: int, dtype: str, seed: int) -> Callable[[], float]:
    from sklearn.linear_model import LogisticRegression

    x, y = logistic_data(n, d, dtype, seed)

    def run() -> float:
        LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-8).fit(x, y)
        return 1.0

    return run


def _softmax(n: int, d: int, k: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y = softmax_data(n, d, k, seed)
    x, y = jnp.asarray(x.astype(dtype)), jnp.asarray(y)

    def run() -> Outcome:
        fit = jp.fit(softmax.model(k), x, y, l2=1.0)
        return _of_fits(fit, fit.params)

    return run


def _shared(lanes: int, n: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y = map(jnp.asarray, logistic_data(n, d, dtype, seed))
    weights = jnp.asarray(resamples(lanes, n, dtype, seed))

    def run() -> Outcome:
        fits = fit_many(logistic.model(), x, y, weights=weights, l2=1.0, progress=False)
        return _of_fits(fits, fits.params)

    return run


def _shared_peer(lanes: int, n: int, d: int, dtype: str, seed: int) -> Callable[[], float]:
    from joblib import Parallel, delayed
    from sklearn.linear_model import LogisticRegression

    x, y = logistic_data(n, d, dtype, seed)
    weights = resamples(min(lanes, LOOP), n, dtype, seed)

    def one(w: np.ndarray) -> Any:
        return LogisticRegression(C=1.0, solver="newton-cholesky").fit(x, y, w).coef_

    def run() -> float:
        Parallel(n_jobs=-1)(delayed(one)(w) for w in weights)
        return lanes / len(weights)

    return run


def _own(lanes: int, n: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y = own_data(lanes, n, d, seed)
    x, y = jnp.asarray(x.astype(dtype)), jnp.asarray(y)

    def run() -> Outcome:
        fits = fit_many(logistic.model(), x, y, l2=1.0, progress=False)
        return _of_fits(fits, fits.params)

    return run


def _path(n: int, d: int, penalties: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y = map(jnp.asarray, logistic_data(n, d, dtype, seed))
    values = np.geomspace(1e3, 1e-2, penalties)

    def run() -> Outcome:
        fits = path(logistic.model(), x, y, values=values, progress=False).fits
        return _of_fits(fits, fits.params)

    return run


def _bayes(n: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y = logistic_data(n, d, dtype, seed)
    x, y = jnp.asarray(x), jnp.asarray(y)

    def run() -> Outcome:
        fit = jp.fit(naive_bayes.model(2), x, y)
        return _of_fits(fit, fit.params)

    return run


def _bayes_peer(n: int, d: int, dtype: str, seed: int) -> Callable[[], float]:
    from sklearn.naive_bayes import GaussianNB

    x, y = logistic_data(n, d, dtype, seed)

    def run() -> float:
        GaussianNB(var_smoothing=0.0).fit(x, y)
        return 1.0

    return run


def _em(n: int, d: int, k: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x = jnp.asarray(_mixtures.points(n, d, k, seed).astype(dtype))
    model, solver = gaussian_mixture.model(k), em(tol=0.0, max_steps=STEPS)
    start = _start(model, _mixtures.points(n, d, k, seed), dtype, seed)

    def run() -> Outcome:
        fit = jp.fit(model, x, init=start, solver=solver)
        return Outcome([fit.params.means, fit.params.covariances])

    return run


def _start(model: Any, x: np.ndarray, dtype: str, seed: int) -> Any:
    """Parameters to start from, found in float64, so that both dtypes start from the same."""
    start = jax.jit(model.init)(jax.random.key(seed), jnp.asarray(x))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), start)


def _em_peer(n: int, d: int, k: int, dtype: str, seed: int) -> Callable[[], float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = _mixtures.points(n, d, k, seed).astype(dtype)
    means = x[np.random.default_rng(seed).choice(n, k, replace=False)]
    root = np.broadcast_to(np.linalg.inv(np.cov(x.T)), (k, d, d)).astype(dtype)
    same: Any = {"weights_init": np.full(k, 1 / k, dtype), "means_init": means}

    def run() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            settings: Any = {"tol": 0.0, "max_iter": STEPS, "init_params": "random"}
            GaussianMixture(k, precisions_init=root, **same, **settings).fit(x)
        return 1.0

    return run


def _search(n: int, d: int, most: int, starts: int, dtype: str, seed: int) -> Callable:
    x = jnp.asarray(_mixtures.points(n, d, 5, seed).astype(dtype))
    solver = em(tol=_mixtures.PER_EXAMPLE * n)
    sizes, key = range(1, most + 1), jax.random.key(seed)

    def run() -> Outcome:
        settings: Any = {"num_starts": starts, "solver": solver, "progress": False}
        found = mixture_search(x, key, components=sizes, **settings)
        converged = int((found.status == jp.Status.CONVERGED).sum())
        return Outcome(found.log_likelihood[0].max(axis=1) / n, found.status.size, converged)

    return run


def _dirichlet(n: int, d: int, t: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x = _mixtures.points(n, d, 6, seed).astype(dtype)
    settings = dirichlet_mixture.weakly_informative(_mixtures.points(n, d, 6, seed))
    model = dirichlet_mixture.model(t, alpha=1 / t, **settings)
    start = _start(model, _mixtures.points(n, d, 6, seed), dtype, seed)
    x, solver = jnp.asarray(x), em(tol=0.0, max_steps=STEPS)

    def run() -> Outcome:
        fit = jp.fit(model, x, init=start, solver=solver)
        return Outcome(fit.objective / n)

    return run


def _kernels(n: int, m: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, q = (jnp.asarray(_spread(a, d, seed + i).astype(dtype)) for i, a in enumerate((n, m)))
    params, density = kernel_density.of_bandwidth(0.3), jax.jit(kernel_density.log_density)
    return lambda: Outcome(density(params, q, x))


def _spread(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + 3.0 * (rng.random(n) < 0.3)[:, None]


def _kernels_peer(n: int, m: int, d: int, dtype: str, seed: int) -> Callable[[], float]:
    from joblib import Parallel, cpu_count, delayed
    from sklearn.neighbors import KernelDensity

    x, q = (_spread(a, d, seed + i).astype(dtype) for i, a in enumerate((n, m)))
    fitted = KernelDensity(bandwidth=0.3).fit(x)

    def run() -> float:
        parts = np.array_split(q, cpu_count())
        Parallel(n_jobs=-1)(delayed(fitted.score_samples)(part) for part in parts)
        return 1.0

    return run


def _neighbours(n: int, m: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, q = (jnp.asarray(_spread(a, d, seed + i).astype(dtype)) for i, a in enumerate((n, m)))
    params = knn_density.of_neighbours(NEIGHBOURS)
    return lambda: Outcome(knn_density.log_density(params, q, x))


def _neighbours_peer(n: int, m: int, d: int, dtype: str, seed: int) -> Callable[[], float]:
    from sklearn.neighbors import NearestNeighbors

    x, q = (_spread(a, d, seed + i).astype(dtype) for i, a in enumerate((n, m)))

    def run() -> float:
        NearestNeighbors(n_neighbors=NEIGHBOURS, n_jobs=-1).fit(x).kneighbors(q)
        return 1.0

    return run


def _tree(n: int, d: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y, *other = map(jnp.asarray, _trees.examples(n, d, 3, dtype, seed))

    def run() -> Outcome:
        fit = jp.fit(decision_tree.model(3, _trees.DEPTH), x, y)
        return Outcome(decision_tree.log_likelihood(fit.params, *other) / n)

    return run


def _tree_peer(n: int, d: int, dtype: str, seed: int) -> Callable[[], float]:
    from sklearn.tree import DecisionTreeClassifier

    x, y, *_ = _trees.examples(n, d, 3, dtype, seed)

    def run() -> float:
        DecisionTreeClassifier(criterion="log_loss", max_depth=_trees.DEPTH).fit(x, y)
        return 1.0

    return run


def _forest(n: int, d: int, trees: int, dtype: str, seed: int) -> Callable[[], Outcome]:
    x, y, other_x, other_y = map(jnp.asarray, _trees.examples(n, d, 3, dtype, seed))
    model = random_forest.model(3, trees, _trees.DEPTH, seed=seed)
    assert model.predict.log_proba is not None
    predict = jax.jit(model.predict.log_proba)

    def run() -> Outcome:
        log_p = predict(jp.fit(model, x, y).params, other_x)
        return Outcome(jnp.mean(jnp.take_along_axis(log_p, other_y[:, None], axis=1)))

    return run


def _forest_peer(n: int, d: int, trees: int, dtype: str, seed: int) -> Callable[[], float]:
    from sklearn.ensemble import RandomForestClassifier

    x, y, *_ = _trees.examples(n, d, 3, dtype, seed)

    def run() -> float:
        settings: Any = {"criterion": "log_loss", "max_depth": _trees.DEPTH, "n_jobs": -1}
        RandomForestClassifier(trees, **settings).fit(x, y)
        return 1.0

    return run


def _search_peer(n: int, d: int, most: int, starts: int, dtype: str, seed: int) -> Callable:
    from joblib import Parallel, delayed
    from sklearn.mixture import GaussianMixture

    x = _mixtures.points(n, d, 5, seed).astype(dtype)
    some = max(1, starts // 10)

    def one(k: int, start: int) -> float:
        fit = GaussianMixture(k, tol=_mixtures.PER_EXAMPLE, random_state=start).fit(x)
        return float(fit.lower_bound_)

    def run() -> float:
        calls = (delayed(one)(k, s) for k in range(1, most + 1) for s in range(some))
        Parallel(n_jobs=-1)(calls)
        return starts / some

    return run


_BOOTSTRAP = "{:,} bootstrap fits, {:,} × {}"
_KERNELS = "kernel density, {:,} points × {:,} queries, d = {}"
_NEIGHBOURS = f"{NEIGHBOURS}-neighbour density, {{:,}} points × {{:,}} queries, d = {{}}"

WORKLOADS = {
    "logistic": Workload(
        (200_000, 200), (300, 3), "logistic regression, {:,} × {}", _logistic, _logistic_peer
    ),
    "softmax": Workload(
        (50_000, 100, 10), (200, 3, 3), "softmax regression, {:,} × {}, K = {}", _softmax
    ),
    "shared": Workload((1_000, 1_000, 20), (20, 100, 3), _BOOTSTRAP, _shared, _shared_peer),
    "shared-long": Workload((2_000, 5_000, 30), (30, 100, 3), _BOOTSTRAP, _shared, _shared_peer),
    "own": Workload(
        (10_000, 200, 8), (20, 60, 2), "{:,} fits with data of their own, {} × {}", _own
    ),
    "path": Workload((20_000, 50, 100), (200, 3, 4), "ridge path, {:,} × {}, {} penalties", _path),
    "bayes": Workload(
        (500_000, 20), (300, 3), "Gaussian naive Bayes, {:,} × {}", _bayes, _bayes_peer
    ),
    "em": Workload(
        (100_000, 10, 10),
        (300, 2, 2),
        f"{STEPS} steps of EM, {{:,}} × {{}}, K = {{}}, full",
        _em,
        _em_peer,
    ),
    "search": Workload(
        (5_000, 4, 8, 100),
        (200, 2, 2, 3),
        "mixtures of {2} sizes, {3} starts, {0:,} × {1}",
        _search,
        _search_peer,
    ),
    "dirichlet": Workload(
        (20_000, 5, 20),
        (200, 2, 4),
        f"{STEPS} steps of a Dirichlet process, {{:,}} × {{}}, T = {{}}",
        _dirichlet,
    ),
    "kernels": Workload((20_000, 5_000, 6), (300, 50, 2), _KERNELS, _kernels, _kernels_peer),
    "kernels-large": Workload((200_000, 50_000, 2), (400, 60, 2), _KERNELS, _kernels),
    "neighbours": Workload(
        (20_000, 5_000, 6), (300, 50, 2), _NEIGHBOURS, _neighbours, _neighbours_peer
    ),
    "tree": Workload(
        (100_000, 20), (300, 8), f"tree of depth {_trees.DEPTH}, {{:,}} × {{}}", _tree, _tree_peer
    ),
    "forest": Workload(
        (100_000, 20, 100),
        (300, 8, 5),
        f"forest, depth {_trees.DEPTH}, {{:,}} × {{}}, {{}} trees",
        _forest,
        _forest_peer,
    ),
}


def apart(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The largest difference, relative to 1 or the size of b; infinities of a sign agree."""
    worst = 0.0
    for one, other in zip(a, b, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        with np.errstate(invalid="ignore"):
            off = np.abs(one - other) / np.maximum(1.0, np.abs(other))
        off = np.where(one == other, 0.0, off)
        worst = max(worst, math.inf if np.isnan(off).any() else float(off.max(initial=0.0)))
    return worst
