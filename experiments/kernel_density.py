"""Kernel densities: how wide the kernels should be, and what a density can be asked.

    python -m experiments.kernel_density

takes Engel's data of 235 households (yearly income and expenditure on food, in francs, which
statsmodels ships), both as logarithms, and

- compares bandwidths: rules of thumb, and the one that leaving each example out chooses, by the
  log-likelihood of an example that is left out, for each kernel and kind of bandwidth;
- resamples the households three hundred times, all fits in one call: how sure is the bandwidth?
- compares the density of sunspots in a year, reflected at zero, with the plain one;
- draws the joint density, and that of the expenditure given some incomes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from statsmodels.datasets import engel, sunspots

import jaxprob as jp
from experiments import _common
from jaxprob.many import bootstrap
from jaxprob.models import kernel_density as kd

REPLICATES = 300
INCOMES = (500, 900, 1500, 2500)


def compare(x: jax.Array) -> tuple[list[list], dict[str, jp.Fit]]:
    """Rows: what was done, bandwidths, nats of a left-out example; and the fits by name."""
    n, rows, fits = len(x), [], {}
    rules = {
        "Scott": kd.scott(x),
        "Silverman": kd.silverman(x),
        "improved Sheather-Jones": jnp.stack([kd.isj(column)[0] for column in x.T]),
    }
    for name, h in rules.items():
        value = float(kd.log_likelihood(kd.of_bandwidth(h), x)) / n
        rows.append([f"gaussian, {name}", *map(float, h), value, "a rule"])
    for kernel in ("gaussian", "exponential", "epanechnikov"):
        for kind in ("scalar", "diagonal", "full"):
            fit = jp.fit(kd.model(kernel, kind), x)
            spread = np.sqrt(np.diag(kd.covariance(fit.params, 2)))
            name = f"{kernel}, {kind}"
            status = jp.Status(int(fit.status)).name
            rows.append([f"{name}, leaving out", *spread, float(fit.log_likelihood) / n, status])
            fits[name] = fit
    return rows, fits


def resampled(x: jax.Array, seed: int) -> np.ndarray:
    """(B, 2) bandwidths of resamples whose fits converged."""
    key = jax.random.key(seed)
    made = bootstrap(kd.model(), x, None, key, num_replicates=REPLICATES, progress=False)
    print(made.fits.report())
    return np.exp(np.asarray(made.fits.params.log_scale))[np.asarray(made.used)]


def draw(x: jax.Array, fits: dict[str, jp.Fit], out: Any) -> None:
    """Four panels."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    params = fits["gaussian, full"].params
    low, high = np.asarray(x.min(axis=0)) - 0.5, np.asarray(x.max(axis=0)) + 0.5
    income, food = (np.linspace(a, b, 160) for a, b in zip(low, high, strict=True))
    grid = jnp.asarray(np.stack(np.meshgrid(income, food), axis=-1).reshape(-1, 2))
    log_p = np.asarray(kd.log_density(params, grid, x)).reshape(160, 160)
    ax = axes[0, 0]
    levels = log_p.max() + np.arange(-8.0, 0.5)
    ax.contour(np.exp(income), np.exp(food), log_p, levels=levels, cmap="Greys", linewidths=0.8)
    ax.plot(*np.exp(np.asarray(x)).T, ".", ms=4)
    ax.set(xscale="log", yscale="log", xlabel="income, francs", ylabel="food, francs")
    ax.set(title="log-density, full bandwidth")
    ax = axes[0, 1]
    for value in INCOMES:
        at = jnp.log(jnp.array([float(value)]))
        given, points, shares = kd.conditional(params, x, [0], at)
        p = jnp.exp(kd.log_density(given, jnp.asarray(food)[:, None], points, shares))
        ax.plot(np.exp(food), p, label=f"income {value}")
    ax.set(xscale="log", xlabel="food, francs", title="density of log food, given the income")
    ax.legend(fontsize=8)
    ax = axes[1, 0]
    profile = np.geomspace(0.03, 1.0, 80)
    likelihood = jax.jit(lambda h, one: kd.log_likelihood(kd.of_bandwidth(h), one) / len(one))
    for column, name in enumerate(("income", "food")):
        one = x[:, column : column + 1]
        marks = {"o": kd.silverman(one)[0], "^": kd.isj(one[:, 0])[0]}
        ax.semilogx(profile, [likelihood(h, one) for h in profile], color=f"C{column}", label=name)
        for mark, h in marks.items():
            ax.plot(float(h), likelihood(h, one), mark, color=f"C{column}")
    ax.plot([], [], "ko", label="Silverman")
    ax.plot([], [], "k^", label="improved Sheather-Jones")
    ax.set(title="nats of a left-out logarithm, alone", xlabel="bandwidth", ylim=(-1.1, None))
    ax.legend(fontsize=8)
    ax = axes[1, 1]
    spots: Any = sunspots.load_pandas().data
    activity = jnp.asarray(spots[["SUNACTIVITY"]].to_numpy())
    at = jnp.linspace(-20.0, 200.0, 441)[:, None]
    for bounds, name in ((None, "plain"), ((0.0, None), "reflected at zero")):
        fit = jp.fit(kd.model(bounds=bounds), activity)
        own = None if bounds is None else (bounds,)
        p = np.exp(np.asarray(kd.log_density(fit.params, at, activity, bounds=own)))
        mass = np.trapezoid(p[at[:, 0] >= 0], dx=0.5)
        ax.plot(at[:, 0], p, label=f"{name}: {mass:.3f} above zero")
    ax.plot(activity[:, 0], np.zeros(len(activity)), "|", color="k", ms=8)
    ax.set(title="sunspots in a year", ylim=(0, None))
    ax.legend(fontsize=8)
    for ax in axes[0]:
        ax.xaxis.set_minor_formatter("")
    axes[0, 0].yaxis.set_minor_formatter("")
    print(_common.save_figure(figure, out, "kernel_density"))
    plt.close(figure)


def main() -> int:
    """Compare, resample, draw."""
    args = _common.parser(__doc__ or "").parse_args()
    jax.config.update("jax_enable_x64", True)
    mpl.use("agg")
    data: Any = engel.load_pandas().data
    x = jnp.log(jnp.asarray(data[["income", "foodexp"]].to_numpy()))
    rows, fits = compare(x)
    columns = ["what", "bandwidth, income", "bandwidth, food", "nats of a left-out example", "how"]
    _common.table("Bandwidths for the logarithms of income and food", columns, rows)
    bandwidths = resampled(x, args.seed)
    low, high = np.quantile(bandwidths, [0.05, 0.95], axis=0)
    spread = [
        [n, float(a), float(b)] for n, a, b in zip(("income", "food"), low, high, strict=True)
    ]
    _common.table(f"Bandwidths of {len(bandwidths)} resamples", ["column", "5 %", "95 %"], spread)
    draw(x, fits, args.out)
    numbers = {
        "bandwidths": [dict(zip(columns, row, strict=True)) for row in rows],
        "resamples": {"used": len(bandwidths), "quantiles 5 %, 95 %": [low, high]},
    }
    print(f"numbers: {_common.record('kernel_density', args.out, numbers)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
