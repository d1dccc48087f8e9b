"""One model for each group: who had an affair, by the occupations of both partners.

    python -m experiments.per_group

takes the 6,366 answers to a survey of 1974 that statsmodels ships (Fair, A theory of extramarital
affairs, Journal of Political Economy 86, 1978): logistic regression of having had an affair on four
features, for each of the pairs of occupations on its own, all in one call. Small groups are
separated, or all gave one answer; these say so, and with Firth's penalty they are finite. Drawn are
the coefficients of each group with their intervals, and how the fits ended.
"""

import time
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import statsmodels.api as sm

import jaxprob as jp
from experiments import _common
from jaxprob.many import fit_groups, plots
from jaxprob.models import logistic

FEATURES = ["rate_marriage", "age", "yrs_married", "religious"]


def survey() -> tuple[Any, np.ndarray, np.ndarray]:
    """Features scaled to mean 0 and standard deviation 1, answers, and pairs of occupations."""
    table: Any = sm.datasets.fair.load_pandas().data
    x = table[FEATURES]
    pairs = [
        f"{int(a)} × {int(b)}"
        for a, b in zip(table["occupation"], table["occupation_husb"], strict=True)
    ]
    return (x - x.mean()) / x.std(ddof=0), np.asarray(table["affairs"] > 0, int), np.array(pairs)


def errors(fit: jp.Fit) -> np.ndarray:
    """(d,) standard errors of the weights."""
    covariance = np.linalg.pinv(np.asarray(fit.information))
    return np.sqrt(np.diag(covariance))[: len(FEATURES)]


def main() -> int:
    """Fit each group, without and with Firth's penalty; draw."""
    parser = _common.parser(__doc__ or "")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    import matplotlib.pyplot as plt

    x, y, pairs = survey()
    model = logistic.model()
    start = time.perf_counter()
    plain = fit_groups(model, x, y, pairs)
    firth = fit_groups(model, x, y, pairs, firth=True)
    seconds = time.perf_counter() - start
    print(plain)
    print("with Firth's penalty:")
    print(firth)

    weights = np.asarray(firth.fits.params.weights)
    error = np.stack([errors(firth.fits.lane(i)) for i in range(len(firth.values))])
    rows = [
        [value, int(size), jp.Status(int(status)).name, *map(float, w)]
        for value, size, status, w in zip(
            plain.values, plain.sizes, plain.fits.status, weights, strict=True
        )
    ]
    columns = ["occupations", "answers", "without a penalty", *FEATURES]
    _common.table("Coefficients with Firth's penalty", columns, rows)

    figure, axes = plt.subplots(1, 5, figsize=(18, 8), layout="constrained")
    at, good = np.arange(len(rows)), np.asarray(plain.fits.status) == jp.Status.CONVERGED
    found = np.asarray(firth.fits.status) == jp.Status.CONVERGED
    for j, (ax, name) in enumerate(zip(axes[:4], FEATURES, strict=True)):
        kinds = (good, "tab:blue", "finite"), (~good & found, "tab:red", "not finite")
        for some, colour, label in kinds:
            ax.errorbar(
                weights[some, j],
                at[some],
                xerr=1.96 * error[some, j],
                fmt="o",
                markersize=4,
                linewidth=1,
                color=colour,
                label=f"without a penalty {label}",
            )
        ax.axvline(0, color="grey", linewidth=1)
        ax.set(title=name, xlim=(-5, 5), yticks=at if j == 0 else [], xlabel="log-odds per sd")
    axes[0].set_yticklabels([f"{r[0]} ({r[1]:,})" for r in rows], fontsize=7)
    axes[0].set_ylabel("occupations, hers × his (answers)")
    axes[0].legend(fontsize=7)
    plots.statuses(plain.fits, ax=axes[4])
    axes[4].set_title("fits without a penalty")
    print(_common.save_figure(figure, args.out, "per_group"))
    plt.close(figure)
    numbers = {
        "groups": len(rows),
        "sizes": [int(plain.sizes.min()), int(plain.sizes.max())],
        "statuses": {s.name: c for s, c in plain.fits.report().counts.items()},
        "statuses with Firth's penalty": {s.name: c for s, c in firth.fits.report().counts.items()},
        "seconds, both": seconds,
    }
    print(_common.record("per_group", args.out, numbers))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
