"""The map: every method so far, fitted to one data set, in one picture and one table.

    python -m experiments.map

takes two of the measurements of 178 wines from three growers that scikit-learn ships (flavanoids
and colour intensity, standardised), and fits

- densities of the measurements: a mixture of normal densities, one of a Dirichlet process, kernels,
  nearest neighbours;
- the grower, given the measurements: softmax regression (and logistic regression, for one grower
  against the others), naive Bayes, a tree, a forest, nearest neighbours.

Each is judged by the log-likelihood of held-out wines: ten folds, all fits of a method in one call.
The picture has the fits to all wines. A method stands alone in its half of the table: densities and
probabilities of growers are not on one scale.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_wine

import jaxprob as jp
from experiments import _common
from jaxprob import models as m
from jaxprob.contract import Trait
from jaxprob.many import cross_validate

COLUMNS = ["flavanoids", "color_intensity"]
FOLDS = 10
COLOURS = "tab:blue", "tab:orange", "tab:green"
SIDE = 140

DENSITIES: dict[str, m.Model] = {
    "Gaussian mixture, 3": m.gaussian_mixture.model(3, prior_count=1.0, prior_scale=0.3),
    "Dirichlet-process mixture": m.dirichlet_mixture.model(8, scale=0.3, degrees=4.0),
    "kernel density, full": m.kernel_density.model(bandwidth="full"),
    "nearest neighbours": m.knn_density.model(40),
}
CLASSIFIERS: dict[str, m.Model] = {
    "logistic, one grower or not": m.logistic.model(),
    "softmax regression": m.softmax.model(3),
    "naive Bayes": m.naive_bayes.model(3),
    "decision tree": m.decision_tree.model(3, depth=3, min_leaf_weight=5.0),
    "random forest": m.random_forest.model(3, 100, depth=4),
    "nearest neighbours, classes": m.knn_classifier.model(3, max_neighbours=40),
}


def labels_for(model: m.Model, y: np.ndarray) -> np.ndarray:
    """The growers; the first or not where a model has two classes."""
    assert model.variables.y is not None
    return (y == 0).astype(np.int32) if model.variables.num_classes == 2 else y


def judge(name: str, model: m.Model, x: np.ndarray, y: np.ndarray | None, seed: int) -> list:
    """A row: what held-out wines say, and the fit to all."""
    begin = time.perf_counter()
    penalty: Any = {"l2": 1.0} if model.geometry.penalised is not None else {}
    key = jax.random.key(seed)
    cv = cross_validate(
        model, x, y, key, num_folds=FOLDS, stratified=y is not None, progress=False, **penalty
    )
    seconds = time.perf_counter() - begin
    accuracy = None if y is None else float(cv.mean("accuracy"))
    status = jp.Status(int(cv.whole.status)).name
    error = float(cv.standard_error())
    return [name, float(cv.mean()), error, accuracy, int(cv.used.sum()), status, seconds, cv.whole]


def grid(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """Coordinates along both axes, and all pairs of them."""
    low, high = x.min(axis=0) - 0.4, x.max(axis=0) + 0.4
    first, second = (np.linspace(a, b, SIDE) for a, b in zip(low, high, strict=True))
    pairs = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    return first, second, jnp.asarray(pairs)


def draw(x: np.ndarray, y: np.ndarray, fits: dict[str, jp.Fit], rows: list[list], out: Any) -> None:
    """Densities, decision regions, and held-out log-likelihoods."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb

    first, second, at = grid(x)
    figure, axes = plt.subplots(3, 4, figsize=(15, 11), layout="constrained")
    panels = iter(axes.ravel())
    for name, model in DENSITIES.items():
        ax, fit = next(panels), fits[name]
        made_of = () if Trait.SUM in model.offers else (jnp.asarray(x),)
        log_p = jax.jit(partial(model.log_probs, made_of=made_of))(fit.params, at)
        p = np.exp(np.asarray(log_p)).reshape(SIDE, SIDE)
        top = np.nanquantile(p, 0.998)  # that of neighbours has narrow peaks
        ax.contourf(first, second, np.minimum(p, top), levels=12, cmap="Greys")
        ax.scatter(*x.T, c=np.array(COLOURS)[y], s=7)
        ax.set(title=name, xticks=[], yticks=[])
    for name, model in CLASSIFIERS.items():
        ax, fit, own = next(panels), fits[name], labels_for(model, y)
        rest = () if Trait.SUM in model.offers else (jnp.asarray(x), jnp.asarray(own))
        log_p = model.predict.log_proba(fit.params, at, *rest)  # pyright: ignore[reportOptionalCall]
        p = np.exp(np.asarray(log_p))
        two = p.shape[1] == 2
        shades = [to_rgb(c) for c in (("grey", COLOURS[0]) if two else COLOURS)]
        ax.imshow(
            (p @ np.array(shades)).reshape(SIDE, SIDE, 3),
            extent=(first[0], first[-1], second[0], second[-1]),
            origin="lower",
            aspect="auto",
            alpha=0.55,
        )
        ax.scatter(*x.T, c=np.array(COLOURS)[y], s=7, edgecolors="k", linewidths=0.3)
        ax.set(title=name, xticks=[], yticks=[])
    for some, title in ((DENSITIES, "densities"), (CLASSIFIERS, "growers")):
        ax, own = next(panels), [row for row in rows if row[0] in some]
        ax.errorbar([r[1] for r in own], range(len(own)), xerr=[r[2] for r in own], fmt="ko")
        for i, row in enumerate(own):
            ax.text(row[1], i - 0.12, row[0], ha="center", va="bottom", fontsize=9)
        ax.set(title=f"{title}: nats of a held-out wine", yticks=[], ylim=(len(own) - 0.5, -0.7))
        ax.margins(x=0.25)
    print(_common.save_figure(figure, out, "map"))
    plt.close(figure)


def main() -> int:
    """Fit all, show, draw."""
    args = _common.parser(__doc__ or "").parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    data: Any = load_wine()
    x = data.data[:, [data.feature_names.index(name) for name in COLUMNS]]
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), data.target.astype(np.int32)
    rows, fits = [], {}
    methods = [(name, model, None) for name, model in DENSITIES.items()]
    methods += [(name, model, labels_for(model, y)) for name, model in CLASSIFIERS.items()]
    for name, model, own in _common.progress(methods, "map"):
        *row, fits[name] = judge(name, model, x, own, args.seed)
        rows.append(row)
    columns = ["method", "nats, held out", "± s.e.", "accuracy", "folds", "fit to all", "seconds"]
    for title, some in (("Densities", DENSITIES), ("Growers", CLASSIFIERS)):
        _common.table(title, columns, [row for row in rows if row[0] in some])
    draw(x, y, fits, rows, args.out)
    numbers = [dict(zip(columns, row, strict=True)) for row in rows]
    print(f"numbers: {_common.record('map', args.out, numbers)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
