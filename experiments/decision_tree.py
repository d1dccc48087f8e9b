"""Decision trees and forests: how deep, how many, what pruning saves, what missing entries cost.

    python -m experiments.decision_tree

takes the breast cancer data that scikit-learn ships (569 × 30) and splits it thirty times at
random into halves to grow on, quarters to prune with, and quarters to judge by. All trees are grown
in one call, lanes of weights on columns that are sorted once. Drawn are

- the log-likelihood of the last quarter against the depth: of trees as grown, pruned with the
  second quarter, and pruned by BIC, which needs none;
- that of a forest against its number of trees, with what it says of itself, out of bag;
- what happens when entries go missing: trees that send them where they gain more, against the mean
  of the column in their place, when all are as likely to be missing, and when large ones are;
- what the questions of each feature gain;

and, in a picture of its own, the tree of all examples, pruned by BIC, which is printed as well.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_breast_cancer

import jaxprob as jp
from experiments import _common
from jaxprob.models import decision_tree as dt
from jaxprob.models import random_forest as rf

SPLITS = 30
DEPTHS = range(1, 7)
OF_GAPS = 4  # depth
TREES = (1, 2, 5, 10, 20, 50, 100)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
SHOWN = 10
WAYS = "as grown", "pruned with others", "pruned by BIC"
COLOURS = "tab:blue", "tab:orange", "tab:green"


def splits(n: int, seed: int) -> tuple[np.ndarray, ...]:
    """(splits, n) weights three times: to grow on, to prune with, to judge by."""
    rng = np.random.default_rng(seed)
    part = rng.permuted(np.tile(np.arange(n) * 4 // n, (SPLITS, 1)), axis=1)
    return (part < 2).astype(float), (part == 2).astype(float), (part == 3).astype(float)


@partial(jax.jit, static_argnames="depth")
def _grown(x: jax.Array, y: jax.Array, weights: jax.Array, depth: int) -> dt.Params:
    """Trees, one for each weighting."""

    def one(c: jax.Array) -> dt.Params:
        return dt.grow(x, y, c, num_classes=2, depth=depth).params

    return jax.vmap(one)(weights)


def depths(x: jax.Array, y: jax.Array, parts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """By way: (depths, splits) log-likelihoods of the last parts, per example."""
    grow, prune, judge = map(jnp.asarray, parts)
    deep = _grown(x, y, grow, DEPTHS[-1])

    def values(tree: dt.Params, c: jax.Array, test: jax.Array) -> jax.Array:
        ways = tree, dt.prune(tree, x, y, c), dt.prune_bic(tree)
        return jnp.stack([dt.log_likelihood(way, x, y, test) for way in ways]) / jnp.sum(test)

    each = jax.jit(jax.vmap(values))
    cut = jax.vmap(dt.limited, (0, None))
    found = [each(cut(deep, depth), prune, judge) for depth in DEPTHS]
    return {way: np.asarray(found)[:, :, w] for w, way in enumerate(WAYS)}


def numbers_of_trees(x: jax.Array, y: jax.Array, parts: tuple[np.ndarray, ...]) -> list[list]:
    """Rows: trees, and log-likelihoods per example, out of bag and of the last part."""
    grow, _, judge = (jnp.asarray(part[0]) for part in parts)
    forest = rf.grow(x, y, grow, num_classes=2, num_trees=TREES[-1]).params
    rows = []
    for count in TREES:
        some = jax.tree.map(lambda a, count=count: a[:count], forest)
        test = rf.log_likelihood(some, x, y, judge) / jnp.sum(judge)
        rows.append([count, float(test)])
    out = rf.out_of_bag(forest, x, y, grow)
    rows[-1].append(float(out.log_likelihood / out.weight))
    return rows


def gaps(x: np.ndarray, y: jax.Array, parts: tuple[np.ndarray, ...], seed: int) -> list[list]:
    """Rows by share: log-likelihoods of trees with gaps and with means, for two kinds of gaps."""
    grow, _, judge = map(jnp.asarray, parts)
    rng = np.random.default_rng(seed)
    luck = rng.uniform(size=x.shape)
    ranks = np.argsort(np.argsort(x, axis=0), axis=0) / len(x)
    rows = []
    for share in SHARES:
        row: list = [share]
        for chance in (np.full(x.shape, share), np.minimum(2 * share * ranks, 1.0)):
            holes = np.where(luck < chance, np.nan, x)
            filled = np.where(np.isnan(holes), np.nanmean(holes, axis=0), holes)
            row += [judged_by_bic(jnp.asarray(z), y, grow, judge) for z in (holes, filled)]
        rows.append(row)
    return rows


def judged_by_bic(x: jax.Array, y: jax.Array, grow: jax.Array, judge: jax.Array) -> float:
    """The mean log-likelihood per example of trees pruned by BIC."""
    trees = jax.vmap(dt.prune_bic)(_grown(x, y, grow, OF_GAPS))
    each = jax.vmap(lambda tree, c: dt.log_likelihood(tree, x, y, c) / jnp.sum(c))(trees, judge)
    return float(jnp.mean(each))


def draw(
    ways: dict[str, np.ndarray],
    forest: list[list],
    missing: list[list],
    gains: dict[str, np.ndarray],
    names: list[str],
    out: Any,
) -> None:
    """Four panels."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    for (way, values), colour in zip(ways.items(), COLOURS, strict=True):
        error = values.std(axis=1, ddof=1) / np.sqrt(SPLITS)
        axes[0, 0].errorbar(
            DEPTHS, values.mean(axis=1), 2 * error, fmt="o-", color=colour, label=way, capsize=2
        )
    axes[0, 0].set(title="trees, nats per held-out example", xlabel="depth")
    counts = [row[0] for row in forest]
    axes[0, 1].plot(counts, [row[1] for row in forest], "o-", label="held out")
    axes[0, 1].axhline(forest[-1][2], color="black", ls="--", label="out of bag, all trees")
    axes[0, 1].set(title="a forest, nats per example", xlabel="trees", xscale="log")
    labels = "anywhere: gaps", "anywhere: means", "large ones: gaps", "large ones: means"
    for column, label in enumerate(labels, start=1):
        style = ("o-", "o--")[(column - 1) % 2]
        colour = COLOURS[(column - 1) // 2]
        values = [row[column] for row in missing]
        axes[1, 0].plot(SHARES, values, style, color=colour, label=label)
    axes[1, 0].set(title="missing entries, nats per held-out example", xlabel="share missing")
    order = np.argsort(gains["forest"])[-SHOWN:]
    at = np.arange(SHOWN)
    for k, (name, values) in enumerate(gains.items()):
        axes[1, 1].barh(at + 0.4 * k, values[order], height=0.4, label=name, color=COLOURS[k])
    axes[1, 1].set_yticks(at + 0.2, [names[j] for j in order], fontsize=8)
    axes[1, 1].set(title="what questions of a feature gain", xlabel="nats")
    for ax in axes.ravel():
        ax.legend(fontsize=8)
    print(_common.save_figure(figure, out, "decision_tree"))
    plt.close(figure)


def main() -> int:
    """Split, grow, prune, hide, draw."""
    args = _common.parser(__doc__ or "").parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    import matplotlib.pyplot as plt

    data: Any = load_breast_cancer()
    names, classes = [str(name) for name in data.feature_names], [str(c) for c in data.target_names]
    x, y = jnp.asarray(data.data), jnp.asarray(data.target, jnp.int32)
    parts = splits(len(y), args.seed)
    ways = depths(x, y, parts)
    rows = [[d, *(float(v[i].mean()) for v in ways.values())] for i, d in enumerate(DEPTHS)]
    _common.table("Trees, nats per held-out example", ["depth", *WAYS], rows)
    forest = numbers_of_trees(x, y, parts)
    columns = ["trees", "held out", "out of bag"]
    _common.table("A forest, nats per example", columns, [[*row, None][:3] for row in forest])
    missing = gaps(np.asarray(x), y, parts, args.seed)
    columns = ["share missing", "anywhere: gaps", "means", "large ones: gaps", "means"]
    _common.table("Trees pruned by BIC, nats per held-out example", columns, missing)
    whole = dt.prune_bic(dt.grow(x, y, num_classes=2, depth=DEPTHS[-1]).params)
    print(dt.describe(whole, names, classes))
    picture = jp.plots.tree(whole, feature_names=names, class_names=classes)
    print(_common.save_figure(picture.figure, args.out, "decision_tree_picture"))
    plt.close("all")
    every = rf.grow(x, y, num_classes=2).params
    gains = {
        "tree": np.asarray(dt.feature_gain(whole, len(names))),
        "forest": np.asarray(rf.feature_gain(every, len(names))),
    }
    draw(ways, forest, missing, gains, names, args.out)
    numbers = {
        "depths": rows,
        "forest": forest,
        "missing": missing,
        "gains": {k: dict(zip(names, v.tolist(), strict=True)) for k, v in gains.items()},
    }
    print(f"numbers: {_common.record('decision_tree', args.out, numbers)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
