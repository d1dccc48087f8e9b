"""How sure is a classifier of handwritten digits? A thousand fits to resampled images.

    python -m experiments.bootstrap_digits --num-replicates 1000

takes the 1,797 images that scikit-learn ships, 8 × 8 pixels summed to 4 × 4, holds a quarter out,
and fits softmax regression with l2 to resamples of the others: all replicates in one call. It
compares three standard errors of each coefficient (of the bootstrap, of the infinitesimal
jackknife, and by the inverse Hessian, which trusts the model), and draws how coefficients, held-out
accuracy and the probabilities of the least certain image vary.
"""

import time
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import jaxprob as jp
from experiments import _common
from jaxprob import sensitivity
from jaxprob.fit.report import flat_params, parameter_names
from jaxprob.many import bootstrap, plots
from jaxprob.many.resampling import SCHEMES
from jaxprob.models import softmax

CLASSES = 10
QUANTILES = (0.05, 0.5, 0.95)


def digits(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Features of training and held-out images, scaled by the former, their labels, and names."""
    bundle: Any = load_digits()
    x = bundle.images.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(-1, 16)
    order = np.random.default_rng(seed).permutation(len(x))
    cut = len(x) * 3 // 4
    train, test = order[:cut], order[cut:]
    centre, scale = x[train].mean(axis=0), x[train].std(axis=0)
    x = (x - centre) / np.where(scale > 0, scale, 1.0)
    names = [f"row {i}, column {j}" for i in range(4) for j in range(4)]
    return x[train], bundle.target[train], x[test], bundle.target[test], names


def standard_errors(boot: jp.many.Bootstrap, l2: float) -> dict[str, np.ndarray]:
    """(p,) three estimates of the standard error of each parameter."""
    fit = boot.fit
    hess = np.asarray(fit.information)
    mask = ravel_pytree(fit.model.geometry.penalised(fit.params))[0]  # pyright: ignore[reportOptionalCall]
    return {
        "bootstrap": flat_params(boot.statistics()).std(axis=0, ddof=1),
        "infinitesimal jackknife": np.sqrt(np.diag(sensitivity.infinitesimal_jackknife(fit))),
        "inverse Hessian": np.sqrt(np.diag(np.linalg.pinv(hess + l2 * np.diag(mask)))),
    }


def main() -> int:
    """Resample, compare, draw."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--num-replicates", type=int, default=1000)
    parser.add_argument("--l2", type=float, default=1.0)
    parser.add_argument("--scheme", choices=SCHEMES, default="multinomial")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    import matplotlib.pyplot as plt

    x, y, test_x, test_y, pixels = digits(args.seed)
    model = softmax.model(CLASSES, parameterisation="symmetric")
    start = time.perf_counter()
    boot = bootstrap(
        model,
        x,
        y,
        jax.random.key(args.seed),
        num_replicates=args.num_replicates,
        scheme=args.scheme,
        l2=args.l2,
    )
    seconds = time.perf_counter() - start
    print(boot.fits.report())

    log_proba = jax.jit(jax.vmap(lambda p: model.predict.log_proba(p, test_x)))  # pyright: ignore[reportOptionalCall]
    p = np.exp(log_proba(boot.statistics()))
    accuracy = (p.argmax(axis=2) == test_y[None, :]).mean(axis=1)
    here = np.exp(model.predict.log_proba(boot.fit.params, test_x))  # pyright: ignore[reportOptionalCall]
    least = int(np.argmin(here.max(axis=1)))

    errors = standard_errors(boot, args.l2)
    ratios = {name: np.quantile(e / errors["bootstrap"], QUANTILES) for name, e in errors.items()}
    _common.table(
        "Standard errors, as a part of the bootstrap's",
        ["estimate", *(f"{q:.0%} quantile" for q in QUANTILES)],
        [[name, *map(float, q)] for name, q in ratios.items()],
    )
    middle = float(np.mean(here.argmax(axis=1) == test_y))
    low, high = np.quantile(accuracy, [0.025, 0.975])
    print(f"held-out accuracy {middle:.4f}, of the replicates {low:.4f} to {high:.4f} (95 %)")

    names = parameter_names(boot.fit.params, tuple(pixels))
    spread = errors["bootstrap"] / np.abs(flat_params(boot.fit.params, batch=0)[0])
    shown = [boot_name(i) for i in np.argsort(spread)[:3]]
    axes = plots.distributions(boot, names=shown)
    for ax, i in zip(axes, np.argsort(spread)[:3], strict=True):
        ax.set_xlabel(f"digit {names[i]}")
    print(_common.save_figure(axes[0].figure, args.out, "bootstrap_digits_coefficients"))

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.hist(accuracy, bins=25, color="tab:blue")
    left.axvline(middle, color="black", label="the fit")
    left.set(xlabel="held-out accuracy", ylabel="replicates")
    left.legend()
    names_of = [str(k) for k in range(CLASSES)]
    right.boxplot(p[:, least, :], tick_labels=names_of, whis=(2.5, 97.5), showfliers=False)
    right.set(xlabel="digit", ylabel=f"probability, for image of a {test_y[least]}")
    print(_common.save_figure(figure, args.out, "bootstrap_digits"))
    plt.close("all")

    numbers = {
        "replicates": args.num_replicates,
        "converged": int(np.sum(boot.used)),
        "seconds": seconds,
        "accuracy": middle,
        "accuracy of replicates": [low, high],
        "standard errors, as a part of the bootstrap's": ratios,
    }
    print(_common.record("bootstrap_digits", args.out, numbers))
    return 0


def boot_name(i: int) -> str:
    """The name of a parameter as a bootstrap of arrays without names has it."""
    per_class = 16
    if i < CLASSES * per_class:
        return f"{i // per_class}: x{i % per_class}"
    return f"{i - CLASSES * per_class}: bias"


if __name__ == "__main__":
    raise SystemExit(main())
