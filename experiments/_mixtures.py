"""Parts of `classical` about mixtures, against scikit-learn."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import jaxprob as jp
from experiments.benchmark import in_turn
from jaxprob.many import mixture_search
from jaxprob.models import gaussian_mixture
from jaxprob.solvers import em

ITERATION = (100_000, 10, 10)
STEPS = 10
SEARCH = (5_000, 4, 8, 100)
PER_EXAMPLE = 1e-3  # nats: scikit-learn's tolerance
TARGETS = {"float64": 4.0, "float32": 6.0, "search": 15.0}


def points(n: int, d: int, k: int, seed: int) -> np.ndarray:
    """(n, d) draws from k normal densities with covariances of their own, not far apart."""
    rng = np.random.default_rng(seed)
    means = 2 * rng.standard_normal((k, d))
    turns = 0.3 * rng.standard_normal((k, d, d)) + np.eye(d)
    of = rng.integers(0, k, n)
    return means[of] + np.einsum("nd,nde->ne", rng.standard_normal((n, d)), turns[of])


def iteration(n: int, d: int, k: int, dtype: str, seed: int, repeats: int) -> list:
    """A row: the time of a step, from runs of one and of more, from one start."""
    x = points(n, d, k, seed).astype(dtype)
    model = gaussian_mixture.model(k)
    start = jax.jit(model.init)(jax.random.key(seed), jnp.asarray(x))
    same: dict[str, Any] = {
        "weights_init": np.asarray(start.weights),
        "means_init": np.asarray(start.means),
        "precisions_init": np.linalg.inv(np.asarray(start.covariances)),
    }
    kept: dict[str, Any] = {}
    taken: dict[int, int] = {}

    def ours(steps: int) -> None:
        fit = jp.fit(model, x, init=start, solver=em(tol=0.0, max_steps=steps))
        kept["ours"] = jax.block_until_ready(fit.params)
        taken[steps] = int(fit.num_steps)

    def theirs(steps: int) -> None:
        peer = GaussianMixture(k, tol=0.0, max_iter=steps, reg_covar=0.0, **same)
        kept["theirs"] = peer.fit(x)

    calls: dict[str, Callable[[], Any]] = {
        f"{name} {steps}": partial(call, steps)
        for steps in (1, 1 + STEPS)
        for name, call in (("jaxprob", ours), ("scikit-learn", theirs))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seconds = in_turn(calls, repeats)
    if any(asked != got for asked, got in taken.items()):
        raise RuntimeError(f"expected so many steps, got others: {taken}")
    each = {
        name: (seconds[f"{name} {1 + STEPS}"] - seconds[f"{name} 1"]) / STEPS
        for name in ("jaxprob", "scikit-learn")
    }
    mine, peer = kept["ours"], kept["theirs"]
    pairs = (mine.means, peer.means_), (mine.covariances, peer.covariances_)
    apart = max(float(np.max(np.abs(np.asarray(a) - b))) for a, b in pairs)
    label = f"a step of EM, {n:,} × {d}, K = {k}, full, {dtype}"
    took, theirs_took = each["jaxprob"], each["scikit-learn"]
    return [label, theirs_took, took, theirs_took / took, TARGETS[dtype], apart]


def search(n: int, d: int, most: int, starts: int, dtype: str, seed: int) -> list:
    """A row: all starts of all numbers of components, ours in one call, theirs in a pool.

    "apart" is by how many nats our best run of a number is worse than theirs, at most.
    """
    x = points(n, d, 5, seed).astype(dtype)
    solver = em(tol=PER_EXAMPLE * n)
    sizes = range(1, most + 1)

    def ours() -> Any:
        key = jax.random.key(seed)
        found = mixture_search(x, key, components=sizes, num_starts=starts, solver=solver)
        return found.log_likelihood[0].max(axis=1)

    def one(k: int, start: int) -> float:
        return GaussianMixture(k, tol=PER_EXAMPLE, random_state=start).fit(x).score(x) * n

    ours()
    begin = time.perf_counter()
    best = ours()
    took = time.perf_counter() - begin
    with Parallel(n_jobs=-1) as pool:
        pool(delayed(one)(2, s) for s in range(4))  # the pool's own start
        begin = time.perf_counter()
        found = pool(delayed(one)(k, s) for k in sizes for s in range(starts))
        theirs_took = time.perf_counter() - begin
    theirs = np.array(list(found), float).reshape(most, starts).max(axis=1)
    label = f"{starts} starts × {most} numbers of components, {n:,} × {d}, {dtype}"
    row = [label, theirs_took, took, theirs_took / took, TARGETS["search"]]
    return [*row, float(np.max(theirs - best))]
