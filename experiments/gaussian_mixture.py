"""Mixtures of normal densities: how many components, what EM does, what a mixture can be asked.

    python -m experiments.gaussian_mixture

takes the iris measurements that scikit-learn ships (150 × 4, their species unused) and

- fits one to eight components of four kinds from twenty starts each, all starts and numbers of a
  kind in one call, and compares them by BIC and ICL;
- follows expectation-maximisation, gradient descent by L-BFGS, and Newton's method from one start:
  how far each is from the maximum, against its steps;
- hides every fifth entry, fits the rest, and compares what the mixture expects of the hidden ones
  with their column's mean;
- draws the joint density of petal length and width, and that of the width given some lengths.
"""

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_iris

import jaxprob as jp
from experiments import _common
from jaxprob.many import MixtureSearch, mixture_search
from jaxprob.models import gaussian_mixture as gm
from jaxprob.solvers import em, lbfgs, newton

STARTS = 20
SIZES = range(1, 9)
HIDDEN = 0.2
LENGTH, WIDTH = 2, 3
COLOURS = "tab:blue", "tab:orange", "tab:green", "tab:red"
NAMES = "sepal length", "sepal width", "petal length", "petal width"


def course(x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """By solver: nats that are missing to the maximum after each step, from one start."""
    model = gm.model(3)
    start = model.init(jax.random.key(seed), jnp.asarray(x))
    best = jp.fit(model, x, init=start, solver=em(tol=1e-18, max_steps=10_000))
    found = {}
    for name, solver in (
        ("EM", em(tol=1e-9)),
        ("L-BFGS", lbfgs(max_steps=200)),
        ("Newton", newton()),
    ):
        fit = jp.fit(model, x, init=start, solver=solver, trace=True)
        assert fit.trace is not None
        values = np.asarray(fit.trace.value)
        found[name] = float(best.log_likelihood) + values[np.isfinite(values)]
    return found


def hidden(x: np.ndarray, seed: int) -> list[list]:
    """Rows by column: the error of what is expected of hidden entries, and of the column's mean."""
    rng = np.random.default_rng(seed)
    holes = rng.uniform(size=x.shape) < HIDDEN
    seen = np.where(holes, np.nan, x)
    fit = jp.fit(gm.model(3, missing=True, prior_count=1.0, prior_scale=0.3), seen)
    expected = np.asarray(gm.fill_in(fit.params, jnp.asarray(seen)))
    made = []
    for j, name in enumerate(NAMES):
        of = holes[:, j]
        errors = [np.sqrt(np.mean((guess - x[of, j]) ** 2)) for guess in
                  (expected[of, j], np.nanmean(seen[:, j]))]  # fmt: skip
        made.append([name, int(of.sum()), *map(float, errors)])
    return made


def draw(search: MixtureSearch, ways: dict[str, np.ndarray], x: np.ndarray, out: Any) -> None:
    """Four panels."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    for v, kind in enumerate(search.covariances):
        axes[0, 0].plot(search.components, search.bic[v], "o-", color=COLOURS[v], label=kind)
        axes[0, 0].plot(search.components, search.icl[v], ":", color=COLOURS[v])
    axes[0, 0].set(title="BIC, and ICL (dotted): lower is better", xlabel="components")
    for name, left in ways.items():
        some = np.maximum(left, 1e-12)
        axes[0, 1].semilogy(np.arange(len(some)), some, ".-", label=name)
    axes[0, 1].set(title="nats to the maximum, from one start", xlabel="step", ylim=(1e-10, None))
    pair = search.fit("full", 3)
    params = gm.marginal(pair.params, [LENGTH, WIDTH])
    length, width = np.linspace(0.5, 7.5, 150), np.linspace(-0.2, 3.0, 150)
    grid = np.stack(np.meshgrid(length, width), axis=-1).reshape(-1, 2)
    log_p = jax.vmap(gm.log_prob, (None, 0))(params, jnp.asarray(grid)).reshape(150, 150)
    of = np.argmax(pair.model.predict.log_proba(pair.params, jnp.asarray(x)), axis=1)  # pyright: ignore[reportOptionalCall]
    axes[1, 0].contour(length, width, log_p, levels=np.arange(-8, 4), cmap="Greys", linewidths=0.8)
    axes[1, 0].scatter(x[:, LENGTH], x[:, WIDTH], c=of, cmap="viridis", s=12)
    axes[1, 0].set(title="log-density of two of four columns, three components")
    axes[1, 0].set(xlabel="petal length, cm", ylabel="petal width, cm")
    for value in (1.5, 4.5, 5.0, 6.0):
        given = gm.conditional(params, [0], jnp.array([value]))
        density = jnp.exp(jax.vmap(gm.log_prob, (None, 0))(given, jnp.asarray(width)[:, None]))
        axes[1, 1].plot(width, density, label=f"length {value} cm")
    axes[1, 1].set(title="density of the width, given the length", xlabel="petal width, cm")
    for ax in (axes[0, 0], axes[0, 1], axes[1, 1]):
        ax.legend(fontsize=8)
    print(_common.save_figure(figure, out, "gaussian_mixture"))
    plt.close(figure)


def main() -> int:
    """Search, follow, hide, draw."""
    args = _common.parser(__doc__ or "").parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    data: Any = load_iris()
    x = np.asarray(data.data)
    key = jax.random.key(args.seed)
    search = mixture_search(x, key, components=SIZES, covariances=gm.COVARIANCES, num_starts=STARTS)
    print(search)
    ways = course(x, args.seed)
    _common.table(
        "From one start",
        ["solver", "steps", "nats to the maximum of EM"],
        [[name, len(left) - 1, float(left[-1])] for name, left in ways.items()],
    )
    errors = hidden(x, args.seed)
    columns = ["column, cm", "hidden entries", "error by the mixture", "by the column's mean"]
    _common.table("Every fifth entry hidden", columns, errors)
    draw(search, ways, x, args.out)
    numbers = {
        "components": list(SIZES),
        "bic": dict(zip(search.covariances, search.bic, strict=True)),
        "icl": dict(zip(search.covariances, search.icl, strict=True)),
        "statuses": {
            kind: {s.name: c for s, c in fits.report().counts.items()}
            for kind, fits in zip(search.covariances, search.fits, strict=True)
        },
        "courses": ways,
        "hidden": [dict(zip(columns, row, strict=True)) for row in errors],
    }
    print(f"numbers: {_common.record('gaussian_mixture', args.out, numbers)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
