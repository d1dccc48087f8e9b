"""Which penalty? Paths of ridge, elastic net and lasso, and cross-validation, on real data.

    python -m experiments.penalty_path

takes the breast cancer data that scikit-learn ships (569 × 30), scales the features, fits logistic
regression for a hundred penalties of each kind, and cross-validates all of them: 10 folds × 100
penalties in one call. It prints the best penalty, the simplest within one standard error, and for
ridge the one that the derivative of the held-out likelihood leads to; and draws the coefficients
along the paths with the chosen penalty, and the scores.
"""

import time
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

import jaxprob as jp
from experiments import _common
from jaxprob.many import choose_l2, cross_validate, path, plots
from jaxprob.models import logistic

RATIOS = {"ridge": 0.0, "elastic net": 0.5, "lasso": 1.0}


def main() -> int:
    """Fit the paths, validate, draw."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--num-values", type=int, default=100, help="of each path (100)")
    parser.add_argument("--num-folds", type=int, default=10)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    import matplotlib.pyplot as plt

    bundle: Any = load_breast_cancer(as_frame=True)
    table: pd.DataFrame = (bundle.data - bundle.data.mean()) / bundle.data.std(ddof=0)
    y, model, key = np.asarray(bundle.target), logistic.model(), jax.random.key(args.seed)
    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    rows, numbers = [], {}
    for column, (name, ratio) in enumerate(_common.progress(RATIOS.items(), "paths", len(RATIOS))):
        start = time.perf_counter()
        found = path(model, table, y, l1_ratio=ratio, num_values=args.num_values)
        middle = time.perf_counter()
        values = found.values
        cv = cross_validate(
            model,
            table,
            y,
            key,
            num_folds=args.num_folds,
            l2=values * (1 - ratio) if ratio < 1 else None,
            l1=values * ratio if ratio > 0 else None,
        )
        end = time.perf_counter()
        best, simplest = cv.best(), cv.simplest()
        for label, i in (("best", best), ("within one error", simplest)):
            mean, error = float(cv.mean()[i]), float(cv.standard_error()[i])
            nonzero = int(found.num_nonzero()[i])
            accuracy = float(cv.mean("accuracy")[i])
            rows.append([name, label, float(values[i]), nonzero, mean, error, accuracy])
        converged = np.mean(np.asarray(cv.fits.status) == jp.Status.CONVERGED)
        numbers[name] = {
            "best": float(values[best]),
            "simplest": float(values[simplest]),
            "nats": float(cv.mean()[best]),
            "converged": float(converged),
            "seconds for the path": middle - start,
            "seconds for cross-validation": end - middle,
        }
        plots.coefficients(found, chosen=float(values[simplest]), ax=axes[0, column])
        axes[0, column].set_title(name)
        plots.scores(cv, ax=axes[1, column])
    choice = choose_l2(model, table, y, key, num_folds=args.num_folds)
    rows.append(["ridge", "by derivative", choice.l2, 30, choice.log_likelihood, None, None])
    numbers["by derivative"] = {"l2": choice.l2, "nats": choice.log_likelihood}
    columns = ["penalty", "choice", "λ", "not zero", "nats per example", "error", "accuracy"]
    _common.table("Penalties", columns, rows)
    print(choice)
    print(_common.save_figure(figure, args.out, "penalty_path"))
    plt.close(figure)
    print(_common.record("penalty_path", args.out, numbers))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
