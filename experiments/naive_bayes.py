"""A generative and a discriminative classifier of the same data: who learns faster, who is surer.

    python -m experiments.naive_bayes

takes the breast cancer data that scikit-learn ships (569 × 30) and fits Gaussian naive Bayes and
logistic regression, with an l2 penalty, to random parts of the training examples: ten sizes, 200
parts of each, all fits of a model in one call. Ng and Jordan (On discriminative vs. generative
classifiers, NIPS 2001) found that naive Bayes gets to its own, worse, limit with fewer examples.
Drawn are accuracy and log-likelihood of the held-out examples against the size of the part, and how
far predicted probabilities can be believed: features that are counted as independent, but are not,
make naive Bayes much too sure.

Then come features of several kinds in one model: a survey (statsmodels' `fair`) with numbers,
answers on a scale and occupations, cross-validated as all Gaussian and as what they are.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import statsmodels.api as sm
from sklearn.datasets import load_breast_cancer

import jaxprob as jp
from experiments import _common
from jaxprob.contract import Model
from jaxprob.many import CrossValidation, cross_validate, fit_many
from jaxprob.models import logistic, naive_bayes

SIZES = (10, 14, 20, 30, 45, 70, 110, 170, 260, 379)
PARTS = 200
HELD_OUT = 190
NAMES = "naive Bayes", "logistic regression"
COLOURS = "tab:orange", "tab:blue"
OF_SURVEY = "tab:orange", "tab:red", "tab:blue"


def examples(seed: int) -> tuple[np.ndarray, ...]:
    """Training features and labels, and those held out; scaled by all of the former."""
    data: Any = load_breast_cancer()
    x, y = np.asarray(data.data), np.asarray(data.target)
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    scaled = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    return scaled[train], y[train], scaled[test], y[test]


def parts(n: int, seed: int) -> np.ndarray:
    """(sizes × parts, n) weights, 1 for the examples of a part."""
    rng = np.random.default_rng(seed)
    ranks = rng.permuted(np.tile(np.arange(n), (len(SIZES) * PARTS, 1)), axis=1)
    return (ranks < np.repeat(SIZES, PARTS)[:, None]).astype(float)


def judged(model: Model, fits: jp.Fit, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """(sizes, parts) accuracy and mean held-out log-likelihood; NaN where a fit is none."""
    log_p = jax.vmap(model.predict.log_proba, (0, None))(fits.params, jnp.asarray(x))  # pyright: ignore[reportArgumentType]
    right = np.asarray(log_p)[:, np.arange(len(y)), y].mean(axis=1)
    hits = (np.argmax(log_p, axis=2) == y).mean(axis=1)
    good = np.asarray(fits.status) == jp.Status.CONVERGED
    shape = len(SIZES), PARTS
    return {
        "accuracy": np.where(good, hits, np.nan).reshape(shape),
        "log-likelihood": np.where(good, right, np.nan).reshape(shape),
    }


def survey() -> tuple[np.ndarray, np.ndarray]:
    """(6366, 8) answers of three kinds, and whether there was an affair."""
    table: Any = sm.datasets.fair.load_pandas().data
    x = np.asarray(table.drop(columns="affairs"), float)
    x[:, [0, 4, 6, 7]] -= 1  # scales from 1 on
    x[:, 5] = np.searchsorted(np.unique(x[:, 5]), x[:, 5])
    return x, np.asarray(table["affairs"] > 0, int)


def mixed(key: jax.Array) -> dict[str, CrossValidation]:
    """The survey cross-validated, as Gaussian features and as what they are; and its regression."""
    x, y = survey()
    sizes = x.max(axis=0).astype(int) + 1
    scales = (0, 4, 5, 6, 7)
    several = [
        naive_bayes.Gaussian((1, 2, 3)),
        naive_bayes.Categorical(tuple(int(sizes[j]) for j in scales), scales),
    ]
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    return {
        "naive Bayes, all Gaussian": cross_validate(naive_bayes.model(2), x, y, key, num_folds=10),
        "naive Bayes, scales as categories": cross_validate(
            naive_bayes.model(2, several), x, y, key, num_folds=10
        ),
        "logistic regression": cross_validate(logistic.model(), scaled, y, key, num_folds=10),
    }


def scores_of(cv: CrossValidation) -> list[float]:
    """Means over the folds: log-likelihood, accuracy, Brier's score, calibration error."""
    s = cv.scores
    error = np.asarray(s.calibration.error())
    return [float(np.mean(a)) for a in (s.log_likelihood, s.accuracy, s.brier, error)]


def calibration(ax: Any, cv: CrossValidation, name: str, colour: str) -> None:
    """How often it was true, against the predicted probability, over all folds."""
    bins = cv.scores.calibration
    weight = np.asarray(bins.weight).sum(axis=(0, 1))
    some = weight > 0
    predicted, observed = (
        np.nansum(np.asarray(a * bins.weight), axis=(0, 1))[some] / weight[some]
        for a in (bins.predicted, bins.observed)
    )
    ax.plot(predicted, observed, "o-", color=colour, label=name)


def curve(ax: Any, values: np.ndarray, name: str, colour: str) -> None:
    """Median and middle half over the parts, against their size."""
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=1)
    ax.fill_between(SIZES, low, high, color=colour, alpha=0.2)
    ax.plot(SIZES, middle, "o-", color=colour, label=name)
    ax.set(xscale="log", xlabel="examples in the part")


def main() -> int:
    """Fit all parts, cross-validate, draw."""
    parser = _common.parser(__doc__ or "")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    import matplotlib.pyplot as plt

    x, y, test, test_y = examples(args.seed)
    prior = naive_bayes.Gaussian(prior_count=1.0)  # a scale of 1, as the features are scaled
    models = naive_bayes.model(2, prior), logistic.model()
    weights = parts(len(y), args.seed)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    rows, numbers = [], {}
    for name, model, colour in zip(NAMES, models, COLOURS, strict=True):
        l2 = 1.0 if model.geometry.penalised is not None else None
        start = time.perf_counter()
        fits = fit_many(model, x, y, weights=weights, l2=l2)
        seconds = time.perf_counter() - start
        print(f"{name}, in {seconds:.1f} s: {fits.report()}")
        scores = judged(model, fits, test, test_y)
        for ax, values in zip(axes, scores.values(), strict=False):
            curve(ax, values, name, colour)
        for size, hits, nats in zip(SIZES, *scores.values(), strict=True):
            rows.append(
                [name, size, int(np.isfinite(hits).sum()), *map(np.nanmedian, (hits, nats))]
            )
        numbers[name] = {"statuses": {s.name: c for s, c in fits.report().counts.items()}}
    axes[0].set(title="held-out accuracy", ylim=(0.8, 1.0))
    axes[1].set(title="held-out log-likelihood, nats per example", ylim=(-4.0, 0.0))
    kinds = mixed(jax.random.key(args.seed))
    for (name, cv), colour in zip(
        kinds.items(), ("tab:orange", "tab:red", "tab:blue"), strict=True
    ):
        calibration(axes[2], cv, name, colour)
    axes[2].plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes[2].set(title="survey: is what is predicted so often true?")
    axes[2].set(xlabel="predicted probability of an affair", ylabel="share of those who had one")
    for ax in axes:
        ax.legend(fontsize=8)
    columns = ["model", "examples", "fits", "accuracy", "log-likelihood"]
    _common.table("Medians over the parts of the training examples", columns, rows)
    kinds = [[name, *scores_of(cv)] for name, cv in kinds.items()]
    columns = ["survey, as", "log-likelihood", "accuracy", "Brier", "calibration error"]
    _common.table("Ten folds", columns, kinds)
    print(_common.save_figure(figure, args.out, "naive_bayes"))
    plt.close(figure)
    numbers |= {"parts": rows, "survey": kinds}
    print(_common.record("naive_bayes", args.out, numbers))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
