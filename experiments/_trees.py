"""Parts of `classical` about trees, against scikit-learn."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

import jaxprob as jp
from experiments.benchmark import in_turn
from jaxprob.models import decision_tree, random_forest

ONE = (100_000, 20)
MANY = (100_000, 20, 100)
DEPTH = 6
SEEDS = 6  # data sets over which the log-likelihoods are compared: one tree is much chance
TARGETS = {"one": 3.0, "many": 1.0}


def examples(n: int, d: int, k: int, dtype: str, seed: int) -> tuple[Any, ...]:
    """Features and labels, and as many that are held out."""
    informative = max(3, d // 2)
    made: Any = make_classification(
        2 * n, d, n_informative=informative, n_classes=k, random_state=seed
    )
    x, y = made[0].astype(dtype), made[1].astype(np.int32)
    return x[:n], y[:n], x[n:], y[n:]


def judged(tree: Any, data: tuple[Any, ...], k: int) -> float:
    """The held-out log-likelihood of a tree of scikit-learn, its leaves smoothed as ours are."""
    x, y, other_x, other_y = data
    counts = np.full((tree.tree_.node_count, k), decision_tree.SMOOTHING)
    np.add.at(counts, (tree.apply(x.astype(np.float32)), y), 1.0)
    p = counts / counts.sum(axis=1, keepdims=True)
    return float(np.mean(np.log(p[tree.apply(other_x.astype(np.float32)), other_y])))


def worse(ours: float, theirs: float) -> float:
    """By what share of theirs our log-likelihood is below it."""
    return (theirs - ours) / abs(theirs)


def one_tree(n: int, d: int, k: int, dtype: str, seeds: Iterable[int], repeats: int) -> list:
    """A row of single trees."""
    sets = [examples(n, d, k, dtype, seed) for seed in seeds]
    kept: dict[str, Any] = {}

    def ours(data: tuple[Any, ...] = sets[0]) -> None:
        fit = jp.fit(decision_tree.model(k, DEPTH), data[0], data[1])
        kept["ours"] = jax.block_until_ready(fit).params

    def theirs(data: tuple[Any, ...] = sets[0]) -> None:
        tree = DecisionTreeClassifier(criterion="log_loss", max_depth=DEPTH, random_state=0)
        kept["theirs"] = tree.fit(data[0], data[1])

    calls: dict[str, Callable[[], Any]] = {"jaxprob": ours, "scikit-learn": theirs}
    seconds = in_turn(calls, repeats)
    apart = []
    for data in sets:
        ours(data)
        theirs(data)
        other = jnp.asarray(data[2]), jnp.asarray(data[3])
        mine = float(decision_tree.log_likelihood(kept["ours"], *other)) / n
        apart.append(worse(mine, judged(kept["theirs"], data, k)))
    label = f"a tree of depth {DEPTH}, {n:,} × {d}, K = {k}, {dtype}"
    took, peer = seconds["jaxprob"], seconds["scikit-learn"]
    return [label, peer, took, peer / took, TARGETS["one"], float(np.mean(apart))]


def forest(n: int, d: int, trees: int, k: int, dtype: str, seed: int) -> list:
    """A row of forests, each run once after a warm-up."""
    x, y, other_x, other_y = examples(n, d, k, dtype, seed)

    def ours() -> Any:
        fit = jp.fit(random_forest.model(k, trees, DEPTH, seed=seed), x, y)
        return jax.block_until_ready(fit).params

    ours()
    begin = time.perf_counter()
    made = ours()
    took = time.perf_counter() - begin
    begin = time.perf_counter()
    peer = RandomForestClassifier(
        trees, criterion="log_loss", max_depth=DEPTH, random_state=seed, n_jobs=-1
    ).fit(x, y)
    theirs_took = time.perf_counter() - begin
    log_p = random_forest.predict_log_proba(made, jnp.asarray(other_x))
    rows = np.arange(n)
    mine = float(np.mean(np.asarray(log_p)[rows, other_y]))
    theirs = float(np.mean(np.log(peer.predict_proba(other_x)[rows, other_y])))
    label = f"a forest of {trees} trees of depth {DEPTH}, {n:,} × {d}, K = {k}, {dtype}"
    row = [label, theirs_took, took, theirs_took / took, TARGETS["many"]]
    return [*row, worse(mine, theirs)]
