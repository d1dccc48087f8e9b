"""Gradient descent as in the textbook, against Newton's method and L-BFGS.

    python -m experiments.descent

θ ← θ - α ∇f(θ) (equations 1.6 and 2.8) for a range of learning rates α, all of them in one vmapped
program, on two real data sets: breast cancer (logistic regression) and wine (softmax regression),
features scaled, penalty l2 = 1. α is given as a multiple of 1/L, where L bounds the largest
eigenvalue of the Hessian anywhere: descent converges for α < 2/L, and the gap shrinks by about
(1 - α λ)² a step in the end, λ the smallest eigenvalue at the optimum. The picture shows the
distance to the optimal log-likelihood, which Newton's method proves to 1e-10 nats, against steps
and seconds.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_breast_cancer, load_wine

import jaxprob as jp
from experiments import _common
from jaxprob.contract import Model
from jaxprob.models import logistic, softmax
from jaxprob.problem.problem import Problem, Rows

RATES = (0.1, 0.3, 1.0, 1.9, 2.5)  # times 1/L
L2 = 1.0
CLOSE = 1e-6  # nats


def problems() -> dict[str, tuple[Model, Any, Any]]:
    """Name -> model, features and labels."""
    found = {}
    for name, load, model in (
        ("breast cancer, logistic", load_breast_cancer, logistic.model()),
        ("wine, softmax", load_wine, softmax.model(3, parameterisation="symmetric")),
    ):
        data: Any = load()
        x = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
        found[name] = model, jnp.asarray(x), jnp.asarray(data.target)
    return found


def curvature(model: Model, x: Any, y: Any, params: Any) -> tuple[float, float]:
    """L, a bound on the Hessian's largest eigenvalue, and λ, its smallest at the parameters."""
    ones = jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)
    share = 0.25 if len(np.unique(y)) == 2 else 0.5  # of p(1 - p), of diag(p) - p pᵀ
    bound = share * jnp.linalg.eigvalsh(ones.T @ ones)[-1] + L2
    problem = Problem(Rows(x, y, None, None), jnp.asarray(L2), None, model, True, None)
    theta = ravel_pytree(params)[0]
    return float(bound), float(jnp.linalg.eigvalsh(problem.hess(theta))[0])


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and its seconds when it is already compiled: the median of five."""
    result, seconds = jax.block_until_ready(call()), []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def run(model: Model, x: Any, y: Any, max_steps: int) -> dict[str, Any]:
    """The course of each method, its seconds, and what was expected of it."""
    optimum = jp.fit(model, x, y, l2=L2, solver=jp.solvers.newton(tol=1e-10))
    assert jp.Status(int(optimum.status)) is jp.Status.CONVERGED, optimum
    best = float(optimum.log_likelihood) - L2 / 2 * float(jnp.sum(optimum.params.weights**2))
    largest, smallest = curvature(model, x, y, optimum.params)

    @jax.jit
    @jax.vmap
    def descend(rate: jax.Array) -> Any:
        solver = jp.solvers.gradient(optax.sgd, learning_rate=rate, max_steps=max_steps)
        return jp.fit(model, x, y, l2=L2, solver=solver, trace=True)

    rates = jnp.asarray(RATES) / largest
    fits, all_seconds = timed(lambda: descend(rates))
    courses = {}
    for i, multiple in enumerate(RATES):
        trace = jax.tree.map(lambda a, i=i: a[i], fits.trace)
        # All rates run together, so one of them is given its share of the time.
        courses[f"descent, α = {multiple:g}/L"] = _course(trace, best, all_seconds / len(RATES)) | {
            "status": jp.Status(int(fits.status[i])).name,
            "expected factor": max(abs(1 - multiple * smallest / largest), abs(1 - multiple)) ** 2,
        }
    for name, solver in (("Newton", jp.solvers.newton()), ("L-BFGS", jp.solvers.lbfgs())):
        fit, seconds = timed(lambda s=solver: jp.fit(model, x, y, l2=L2, solver=s, trace=True))
        courses[name] = _course(fit.trace, best, seconds) | {
            "status": jp.Status(int(fit.status)).name,
            "expected factor": None,
        }
    return {"L": largest, "λ": smallest, "courses": courses}


def _course(trace: Any, best: float, seconds: float) -> dict[str, Any]:
    """Gap after each step, its last factor, and the first step within CLOSE."""
    value = np.asarray(trace.value)
    value = value[~np.isnan(value)]
    gap = value + best
    near = np.flatnonzero(gap <= CLOSE)
    settled = gap[(gap > 1e-9) & np.isfinite(gap)][-20:]
    factor = (settled[-1] / settled[0]) ** (1 / (len(settled) - 1)) if len(settled) > 2 else None
    return {
        "gap": gap,
        "steps": len(gap) - 1,
        "seconds": seconds,
        f"steps to {CLOSE:g}": int(near[0]) if len(near) else None,
        "factor": factor,
    }


def draw(results: dict[str, Any], out: Any) -> Any:
    """Gap against steps and seconds, a row for each data set."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(results), 2, figsize=(12, 9), layout="constrained")
    for (name, result), (left, right) in zip(results.items(), axes, strict=True):
        for label, course in result["courses"].items():
            gap = np.clip(np.where(np.isfinite(course["gap"]), course["gap"], np.nan), 1e-12, 1e6)
            style = "-" if label.startswith("descent") else ".-"
            seconds = course["seconds"] * np.arange(len(gap)) / max(1, len(gap) - 1)
            left.plot(gap, style, label=label)
            right.plot(1e3 * seconds, gap, style, label=label)
        for ax, unit in ((left, "steps"), (right, "milliseconds")):
            ax.set(xscale="symlog", yscale="log", xlabel=unit, title=name)
            ax.set(ylabel="nats below the maximum", ylim=(1e-12, 1e6))
        right.set_xscale("log")
        left.legend(fontsize="small")
    return _common.save_figure(figure, out, "descent")


def main() -> None:
    """Run all methods on both data sets, print a table, draw the picture."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--max-steps", type=int, default=2000, help="of descent (2000)")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    mpl.use("Agg")
    results = {
        name: run(*problem, args.max_steps)
        for name, problem in _common.progress(problems().items(), "data sets")
    }
    for name, result in results.items():
        columns = ("method", "steps", f"steps to {CLOSE:g}", "factor", "expected factor", "status")
        rows = [
            [label, *(course[c] for c in columns[1:]), 1e3 * course["seconds"]]
            for label, course in result["courses"].items()
        ]
        title = f"{name}: L = {result['L']:.4g}, λ = {result['λ']:.4g}"
        _common.table(title, (*columns, "milliseconds"), rows)
    print(f"picture: {draw(results, args.out)}")
    print(f"numbers: {_common.record('descent', args.out, results)}")


if __name__ == "__main__":
    main()
