"""Fit, verify, summarise and plot: logistic and softmax regression on real data.

    python -m experiments.quickstart                                     # breast cancer and digits
    python -m experiments.quickstart --data FILE.csv --target COLUMN     # your own table

The first line takes the two data sets that scikit-learn ships. The second takes a CSV file with a
header: one column of classes (numbers or text, two or more), all others numbers. Features are
scaled to mean 0 and standard deviation 1; a quarter of the examples is held out. For each data set
it

1. fits without a penalty, where a separation of the classes is found and proved if there is one,
2. fits with the penalty l2 and prints a summary,
3. verifies the hand-derived gradient and Hessian at the fitted parameters,
4. writes pictures of the held-out predictions, and all numbers as JSON.
"""

import argparse
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits

import jaxprob as jp
from experiments import _common
from experiments.verify_gradients import reports
from jaxprob.contract import Model
from jaxprob.models import logistic, softmax

MOST_CLASSES = 100
SHOWN_LINES = 24
VERIFIED = (200, 8)  # examples and features: enough for every term of a derivative


class Data(NamedTuple):
    """A classification problem, split."""

    name: str
    train: pd.DataFrame
    train_y: np.ndarray
    test: pd.DataFrame
    test_y: np.ndarray
    class_names: list[str]


def bundled(seed: int) -> list[Data]:
    """Breast cancer (569 × 30, 2 classes) and digits (1,797 × 64, 10 classes)."""
    found = []
    for name, load in (("breast_cancer", load_breast_cancer), ("digits", load_digits)):
        table: Any = load(as_frame=True)
        classes = [str(c) for c in table.target_names]
        found.append(split(name, table.data, np.asarray(table.target), classes, seed))
    return found


def from_csv(path: Path, target: str, seed: int) -> Data:
    """The user's own table, or a SystemExit that says what is wrong with it and where."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from error
    if target not in table.columns:
        names = ", ".join(map(str, table.columns))
        raise SystemExit(f"{path}: no column {target!r}; there are: {names}")
    labels, features = pd.Series(table[target]), table.drop(columns=target)
    if features.shape[1] == 0:
        raise SystemExit(f"{path}: no columns besides {target!r} to predict from")
    empty = np.asarray(labels.isna())
    if empty.any():
        raise SystemExit(f"{path}: column {target!r} is empty in line {_line(empty)}")
    for column in features.columns:
        cells = pd.Series(features[column])
        numbers = np.asarray(pd.to_numeric(cells, errors="coerce"), float)
        bad = ~np.isfinite(numbers)
        if bad.any():
            cell = cells.iloc[int(np.argmax(bad))]
            shown = repr(cell) if isinstance(cell, str) else str(cell)
            what = "is empty" if pd.isna(cell) else f"holds {shown}, not a finite number,"
            raise SystemExit(
                f"{path}: column {column!r} {what} in line {_line(bad)}. Fill or drop such lines, "
                "and encode text as numbers, with pandas.get_dummies for instance"
            )
        features[column] = numbers
    classes, y = np.unique(labels.astype(str).to_numpy(str), return_inverse=True)
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise SystemExit(
            f"{path}: column {target!r} has {len(classes)} distinct values; expected classes, "
            f"2 to {MOST_CLASSES} of them"
        )
    return split(path.stem, features, y, [str(c) for c in classes], seed)


def _line(bad: np.ndarray) -> int:
    """The line of the file where a column is bad first; the header is line 1."""
    return int(np.argmax(bad)) + 2


def split(
    name: str, features: pd.DataFrame, y: np.ndarray, class_names: list[str], seed: int
) -> Data:
    """Three quarters to fit, one to judge, of every class; scaled by the former."""
    rng = np.random.default_rng(seed)
    test = np.zeros(len(y), bool)
    for k in range(len(class_names)):
        members = rng.permutation(np.flatnonzero(y == k))
        test[members[: len(members) // 4]] = True
    values = features.to_numpy(float)
    spread = values[~test].std(axis=0)
    scaled = (values - values[~test].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    train, held_out = (pd.DataFrame(scaled[at], columns=features.columns) for at in (~test, test))
    return Data(name, train, y[~test], held_out, y[test], class_names)


def model_for(data: Data) -> Model:
    """Logistic regression for two classes, softmax regression for more."""
    count = len(data.class_names)
    if count == 2:
        return logistic.model()
    return softmax.model(count, parameterisation="symmetric")


def run(data: Data, l2: float, out: Path) -> dict[str, Any]:
    """Everything for one data set; its numbers."""
    model = model_for(data)
    n, d = data.train.shape
    print(f"\n━━ {data.name}: {n} examples, {d} features, {len(data.class_names)} classes ━━")

    bare = jp.summary(jp.fit(model, data.train, data.train_y))
    sentence = f"Without a penalty: {bare.status.name}, {bare.evidence}"
    print("\n" + textwrap.fill(sentence, 100) + "\n")

    fit = jp.fit(model, data.train, data.train_y, l2=l2, trace=True)
    table = str(jp.summary(fit))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"quickstart_{data.name}_summary.txt"
    path.write_text(table + "\n", encoding="utf-8")
    lines = table.splitlines()
    if len(lines) > 2 * SHOWN_LINES:
        lines = [*lines[:SHOWN_LINES], f"… {len(lines) - SHOWN_LINES} more lines in {path}"]
    print("\n".join(lines))

    checks = verify(data, model, l2)
    log_p = np.asarray(_log_proba(fit, data.test))
    hit = np.argmax(log_p, axis=1) == data.test_y
    numbers = {
        "status": jp.Status(int(fit.status)).name,
        "status without penalty": bare.status.name,
        "log-likelihood": float(fit.log_likelihood),
        "gap": float(fit.gap),
        "gradient norm": float(fit.grad_norm),
        "steps": int(fit.num_steps),
        "held-out accuracy": float(hit.mean()),
        "held-out nats per example": float(-log_p[np.arange(len(hit)), data.test_y].mean()),
        "derivatives": checks,
    }
    print(
        f"\nheld out: {len(hit)} examples, {numbers['held-out accuracy']:.1%} right, "
        f"{numbers['held-out nats per example']:.4f} nats per example"
    )
    print(f"pictures: {draw(fit, data, out)}")
    return numbers


def verify(data: Data, model: Model, l2: float) -> list[dict[str, Any]]:
    """Hand-derived derivatives on some of the data, at the parameters fitted to them."""
    n, d = VERIFIED
    x, y = data.train.to_numpy()[:n, :d], data.train_y[:n]
    params = jp.fit(model, x, y, l2=l2).params
    rows = []
    for derivative, report in reports(model, params, (jnp.asarray(x), jnp.asarray(y))):
        worst = max(report.checks, key=lambda c: (bool(c.fault), c.relative))
        rows.append(
            {
                "derivative": derivative,
                "worst leaf": worst.leaf,
                "hand-derived": worst.hand,
                "automatic": worst.automatic,
                "numerical": worst.numerical,
                "relative": worst.relative,
                "verdict": worst.fault or f"{len(report.checks)} checks ok",
            }
        )
    _common.table("Verified", list(rows[0]), [list(row.values()) for row in rows])
    return rows


def draw(fit: jp.Fit, data: Data, out: Path) -> Path:
    """Course of the fit, boundary, probabilities, calibration and confusion in one picture."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    figure.suptitle(f"{data.name}: {fit.model.name}")
    x, y = data.test, data.test_y
    jp.plots.convergence(fit, [axes[0, 0], axes[0, 1]])
    axes[0, 0].set_title("course of the fit")
    two = strongest(fit)
    jp.plots.decision_boundary(
        fit, x, y, features=two, class_names=data.class_names, ax=axes[0, 2]
    ).set_title("the two strongest features")
    jp.plots.probabilities(fit, x, y, ax=axes[1, 0]).set_title("held out: probability of the truth")
    jp.plots.calibration(fit, x, y, ax=axes[1, 1]).set_title("held out: calibration")
    jp.plots.confusion_matrix(fit, x, y, class_names=data.class_names, ax=axes[1, 2]).set_title(
        "held out: confusion"
    )
    path = _common.save_figure(figure, out, f"quickstart_{data.name}")
    plt.close(figure)
    return path


def strongest(fit: jp.Fit) -> tuple[int, int]:
    """The two features with the largest weights; one twice where there is only one."""
    size = np.abs(np.atleast_2d(np.asarray(fit.params.weights))).max(axis=0)
    order = np.argsort(-size)
    return int(order[0]), int(order[min(1, len(order) - 1)])


def _log_proba(fit: jp.Fit, features: pd.DataFrame) -> Any:
    assert fit.model.predict.log_proba is not None
    return fit.model.predict.log_proba(fit.params, jnp.asarray(features.to_numpy()))


def main() -> None:
    """Run the main job."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--data", type=Path, metavar="FILE.csv", help="a table with a header")
    parser.add_argument("--target", metavar="COLUMN", help="the column of --data with the classes")
    parser.add_argument("--l2", type=_penalty, default=1.0, help="the penalty, 1/C (1.0)")
    args = parser.parse_args()
    if (args.data is None) != (args.target is None):
        parser.error("--data and --target belong together")
    jax.config.update("jax_enable_x64", True)
    mpl.use("Agg")
    problems = (
        bundled(args.seed) if args.data is None else [from_csv(args.data, args.target, args.seed)]
    )
    numbers = {data.name: run(data, args.l2, args.out) for data in problems}
    print(f"\nnumbers: {_common.record('quickstart', args.out, numbers)}")


def _penalty(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


if __name__ == "__main__":
    main()
