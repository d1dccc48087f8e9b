"""How many digits are right? Log-probabilities, gradients and curvatures against exact arithmetic.

    python -m experiments.accuracy

compares jaxprob with JAX, optax, SciPy and the textbook formula, and with distrax, numpyro and
scikit-learn where they are installed, in float32 and float64, on two questions:

- binary: log-probability of both labels given log-odds from 0.01 to the last normal result;
- softmax: ten classes, one of them ahead of Gaussian noise, the label being that one or another.

An error is in units in the last place (ULP) of the exact result; 0.5 is correctly rounded, and from
2^23 (float32) or 2^52 (float64) on no digit is right. Of a gradient or Hessian it is that of the
worst entry. Where the exact result is below the smallest normal number it is left out.

Derivatives of JAX functions are automatic ones; those of SciPy are y - σ(z) and -σ(z) (1 - σ(z)),
of scikit-learn its own. Written to --out: accuracy.json (worst and mean of each method, and the
input of the worst), accuracy_float32.png and accuracy_float64.png (error against the logit).
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import scipy.special

from experiments import _common, _exact
from jaxprob.numerics import logspace

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

QUANTITIES = ("value", "gradient", "curvature")
DTYPES = ("float32", "float64")
PEER_COLOURS = ("#9ecae1", "#2171b5", "#a1d99b", "#238b45", "#dd1c77", "#fec44f", "#d95f0e")
NUM_LOGITS, NUM_ROWS, NUM_CLASSES = 4000, 800, 10
Function = Callable[..., Any]  # of labels and logits


class Method(NamedTuple):
    """One way to the log-probability of labels y given logits, its gradient and its Hessian."""

    name: str
    value: Function | None
    gradient: Function | None
    curvature: Function | None


class Case(NamedTuple):
    """Inputs, the exact results of each of QUANTITIES, and what an error is plotted against."""

    name: str
    y: np.ndarray
    z: np.ndarray
    distance: np.ndarray
    exact: tuple[np.ndarray, np.ndarray, np.ndarray]
    methods: list[Method]


def binary_case(dtype: str, seed: int) -> Case:
    """Labels 0 and 1 at log-odds of either sign."""
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-2, np.log10(_reach(dtype)), NUM_LOGITS)
    z = (size * rng.choice([-1, 1], NUM_LOGITS)).astype(dtype)
    y = rng.integers(2, size=NUM_LOGITS).astype(np.int32)
    sign = 2 * y - 1
    margin = (sign * z).astype(dtype)
    exact = (_exact.log_sigmoid(margin), sign * _exact.sigmoid(-margin), -_exact.variance(z))
    return Case("binary", y, z, abs(z), exact, _binary_methods(dtype))


def softmax_case(dtype: str, seed: int) -> Case:
    """One of the classes ahead by a given distance; the label is that class, or any."""
    rng = np.random.default_rng(seed)
    lead = 10 ** rng.uniform(-2, np.log10(_reach(dtype)), NUM_ROWS)
    winner, any_class = rng.integers(NUM_CLASSES, size=(2, NUM_ROWS))
    z = rng.normal(size=(NUM_ROWS, NUM_CLASSES))
    z[np.arange(NUM_ROWS), winner] += lead
    y = np.where(rng.random(NUM_ROWS) < 0.5, winner, any_class).astype(np.int32)
    z = z.astype(dtype)
    exact = _exact.softmax(z)
    log_p = np.take_along_axis(exact.log_p, y[:, None], axis=-1)[:, 0]
    results = (log_p, _exact.score(exact, y), _exact.hessian(exact))
    return Case("softmax", y, z, lead, results, _softmax_methods(dtype))


def _reach(dtype: str) -> float:
    """How far logits go: exp(-reach) is just a normal number."""
    return 0.98 * -float(np.log(np.finfo(dtype).tiny))


def _binary_methods(dtype: str) -> list[Method]:
    def optax_log_prob(y: Any, z: Any) -> Any:
        return -optax.losses.sigmoid_binary_cross_entropy(z, y.astype(z.dtype))

    def textbook(y: Any, z: Any) -> Any:
        p = 1 / (1 + jnp.exp(-z))
        return y * jnp.log(p) + (1 - y) * jnp.log(1 - p)

    methods = [
        _elementwise("jaxprob", logspace.bernoulli_log_prob),
        Method(
            "jaxprob, derived by hand",
            None,
            jax.jit(logspace.bernoulli_score),
            jax.jit(lambda y, z: -logspace.bernoulli_variance(z)),
        ),
        _elementwise("jax.nn", lambda y, z: jax.nn.log_sigmoid(jnp.where(y == 1, z, -z))),
        _elementwise("optax", optax_log_prob),
    ]
    if distrax := _optional("distrax"):
        methods.append(
            _elementwise("distrax", lambda y, z: distrax.Bernoulli(logits=z).log_prob(y))
        )
    if numpyro := _optional("numpyro.distributions"):
        methods.append(_elementwise("numpyro", lambda y, z: numpyro.BernoulliLogits(z).log_prob(y)))
    if losses := _optional("sklearn._loss"):
        methods.append(_sklearn_binary(losses.HalfBinomialLoss(), dtype))
    expit = scipy.special.expit
    methods.append(
        Method(
            "scipy",
            lambda y, z: scipy.special.log_expit(np.where(y == 1, z, -z)),
            lambda y, z: y.astype(z.dtype) - expit(z),
            lambda y, z: -expit(z) * (1 - expit(z)),
        )
    )
    return [*methods, _elementwise("textbook", textbook)]


def _elementwise(name: str, log_prob: Function) -> Method:
    """A method of JAX on (n,) logits, with automatic derivatives."""
    gradient = jax.grad(lambda y, z: log_prob(y, z).sum(), argnums=1)
    curvature = jax.grad(lambda y, z: gradient(y, z).sum(), argnums=1)
    return Method(name, jax.jit(log_prob), jax.jit(gradient), jax.jit(curvature))


def _sklearn_binary(loss: Any, dtype: str) -> Method:
    def prepared(function: Callable, y: np.ndarray, z: np.ndarray) -> Any:
        return function(y_true=y.astype(dtype), raw_prediction=z)

    return Method(
        "scikit-learn",
        lambda y, z: -prepared(loss.loss, y, z),
        lambda y, z: -prepared(loss.gradient_hessian, y, z)[0],
        lambda y, z: -prepared(loss.gradient_hessian, y, z)[1],
    )


def _softmax_methods(dtype: str) -> list[Method]:
    def hand(compensated: bool) -> Function:
        return jax.jit(lambda y, z: logspace.categorical_score(y, z, compensated=compensated))

    def ours(compensated: bool) -> Function:
        return lambda y, z: logspace.categorical_log_prob(y, z, compensated=compensated)

    methods = [
        _rowwise("jaxprob", ours(False)),
        _rowwise("jaxprob, compensated", ours(True)),
        Method("jaxprob, derived by hand", None, hand(False), None),
        Method("jaxprob, by hand, compensated", None, hand(True), None),
        _rowwise("jax.nn", lambda y, z: jax.nn.log_softmax(z)[y]),
        _rowwise(
            "optax",
            lambda y, z: -optax.losses.softmax_cross_entropy_with_integer_labels(z, y),
        ),
    ]
    if distrax := _optional("distrax"):
        methods.append(_rowwise("distrax", lambda y, z: distrax.Categorical(logits=z).log_prob(y)))
    if numpyro := _optional("numpyro.distributions"):
        methods.append(_rowwise("numpyro", lambda y, z: numpyro.CategoricalLogits(z).log_prob(y)))
    if losses := _optional("sklearn._loss"):
        methods.append(_sklearn_softmax(losses.HalfMultinomialLoss(n_classes=NUM_CLASSES), dtype))
    textbook = _rowwise("textbook", lambda y, z: jnp.log(jnp.exp(z[y]) / jnp.exp(z).sum()))
    return [*methods, _scipy_softmax(), textbook]


def _rowwise(name: str, log_prob: Function) -> Method:
    """A method of JAX on one row of logits, with automatic derivatives."""
    functions = (log_prob, jax.grad(log_prob, argnums=1), jax.hessian(log_prob, argnums=1))
    return Method(name, *(jax.jit(jax.vmap(f)) for f in functions))


def _sklearn_softmax(loss: Any, dtype: str) -> Method:
    def prepared(function: Callable, y: np.ndarray, z: np.ndarray) -> Any:
        return function(y_true=y.astype(dtype), raw_prediction=z)

    return Method(
        "scikit-learn",
        lambda y, z: -prepared(loss.loss, y, z),
        lambda y, z: -prepared(loss.gradient, y, z),
        None,  # it has the diagonal only
    )


def _scipy_softmax() -> Method:
    special = scipy.special

    def value(y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return z[np.arange(len(y)), y] - special.logsumexp(z, axis=-1)

    def gradient(y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.eye(z.shape[-1], dtype=z.dtype)[y] - special.softmax(z, axis=-1)

    def curvature(_: np.ndarray, z: np.ndarray) -> np.ndarray:
        p = special.softmax(z, axis=-1)
        return p[:, :, None] * (p[:, None, :] - np.eye(z.shape[-1], dtype=z.dtype))

    return Method("scipy", value, gradient, curvature)


def _optional(name: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def errors(case: Case, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """ULP of the worst entry of each input, by method and quantity; nan where left out."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for method in _common.progress(case.methods, f"{case.name} {dtype}"):
        found[method.name] = {}
        for quantity, exact in zip(QUANTITIES, case.exact, strict=True):
            function = getattr(method, quantity)
            if function is not None:
                computed = np.asarray(function(case.y, case.z)).reshape(exact.shape)
                found[method.name][quantity] = _worst_entries(computed, exact, dtype)
    return found


def _worst_entries(computed: np.ndarray, exact: np.ndarray, dtype: str) -> np.ndarray:
    if computed.dtype != dtype:
        raise TypeError(f"expected a result in {dtype}, got {computed.dtype}")
    normal = abs(_exact.to_float64(exact)) >= NUM_CLASSES * np.finfo(dtype).tiny
    off = np.where(normal, _exact.ulps(computed, exact), -1.0).reshape(len(exact), -1).max(axis=1)
    return np.where(off < 0, np.nan, off)


def summary(case: Case, found: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Worst and mean error of each method and quantity, and the input of the worst."""
    rows = []
    for name, by_quantity in found.items():
        for quantity, off in by_quantity.items():
            at = int(np.nanargmax(off))
            rows.append(
                {
                    "case": case.name,
                    "dtype": str(case.z.dtype),
                    "method": name,
                    "quantity": quantity,
                    "worst": off[at],
                    "mean": np.nanmean(off),
                    "worst at": {"label": case.y[at], "logits": case.z[at]},
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print worst / mean of each method, a table for each case and dtype."""
    for case in dict.fromkeys((row["case"], row["dtype"]) for row in rows):
        here = [row for row in rows if (row["case"], row["dtype"]) == case]
        cells = {(row["method"], row["quantity"]): _cell(row) for row in here}
        names = dict.fromkeys(row["method"] for row in here)
        lines = [[name, *(cells.get((name, q)) for q in QUANTITIES)] for name in names]
        _common.table(f"{' '.join(case)}: worst / mean ULP", ["method", *QUANTITIES], lines)


def _cell(row: dict[str, Any]) -> str:
    if not np.isfinite(row["worst"]):
        return "nan or infinite"
    none_right = row["worst"] >= 1 / np.finfo(row["dtype"]).eps
    worst = "no digit right" if none_right else f"{row['worst']:.3g}"
    return f"{worst} / {row['mean']:.3g}"


def draw(results: list[tuple[Case, dict[str, dict[str, np.ndarray]]]], dtype: str) -> Any:
    """Worst error in bins of the logit: a row of panels for each case."""
    figure, axes = plt.subplots(len(results), len(QUANTITIES), figsize=(15, 8.5), sharey=True)
    names = dict.fromkeys(name for _, found in results for name in found)
    styles = _styles([name for name in names if "hand" not in name])  # the same curves again
    for row, (case, found) in zip(axes, results, strict=True):
        for axis, quantity in zip(row, QUANTITIES, strict=True):
            for name, by_quantity in found.items():
                if quantity in by_quantity and name in styles:
                    x, y = _envelope(case.distance, by_quantity[quantity], dtype)
                    axis.loglog(x, y, **styles[name])
            _decorate(axis, case.name, quantity, dtype)
    for axis in axes[:, 0]:
        axis.set_ylabel("worst error in the bin (ULP)")
    handles = {
        h.get_label(): h for a in axes.flat for h in a.get_lines() if h.get_label()[0] != "_"
    }
    figure.legend(handles.values(), handles.keys(), ncols=9, loc="lower center", frameon=False)
    figure.suptitle(f"Error of log-probabilities and their derivatives, {dtype}")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return figure


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """Ours black and on top; peers coloured, each thinner than the last so that all can be seen."""
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        if name.startswith("jaxprob"):
            line = "--" if "compensated" in name else "-"
            look = {"color": "black", "linestyle": line, "linewidth": 2, "zorder": 3}
        else:
            peers = sum(not other.startswith("jaxprob") for other in styles)
            look = {"color": PEER_COLOURS[peers], "linewidth": 6 - 0.75 * peers}
        styles[name] = {"label": name, **look}
    return styles


def _envelope(x: np.ndarray, off: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The worst error in each of 50 bins of equal width in log x."""
    edges = np.geomspace(x.min(), x.max() * 1.0001, 51)
    inside = np.digitize(x, edges) - 1
    capped = np.minimum(off, 1 / np.finfo(dtype).eps)
    worst = [np.nanmax(capped[inside == i], initial=0.05) for i in range(50)]
    kept = [i for i in range(50) if np.isfinite(off[inside == i]).any()]
    return np.sqrt(edges[:-1] * edges[1:])[kept], np.array(worst)[kept]


def _decorate(axis: Any, case: str, quantity: str, dtype: str) -> None:
    limit = 1 / np.finfo(dtype).eps
    axis.axhline(limit, color="tab:red", linewidth=0.8, linestyle=":")
    axis.text(1.2e-2, limit, "no digit right", va="bottom", fontsize=8, color="tab:red")
    axis.set_ylim(0.2, limit * 8)
    axis.set_title(f"{case}: {quantity}")
    axis.set_xlabel("|log-odds|" if case == "binary" else "lead of one class (nats)")
    axis.grid(alpha=0.3)


def main() -> None:
    """Measure, print, record and draw."""
    args = _common.parser(__doc__ or "").parse_args()
    rows = []
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            cases = [make(dtype, args.seed) for make in (binary_case, softmax_case)]
            results = [(case, errors(case, dtype)) for case in cases]
        rows += [row for case, found in results for row in summary(case, found)]
        print(_common.save_figure(draw(results, dtype), args.out, f"accuracy_{dtype}"))
    show(rows)
    print(_common.record("accuracy", args.out, rows))


if __name__ == "__main__":
    main()
