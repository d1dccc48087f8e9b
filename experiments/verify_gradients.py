"""Are the derivatives that were derived by hand right? A table for every model.

    python -m experiments.verify_gradients                       # all models of the library
    python -m experiments.verify_gradients mymodule:mymodel      # and yours

MODULE:FUNCTION names a function without arguments that returns a `jaxprob.contract.Model`, or a
tuple (fn, hand_grad, *args) as `jaxprob.testing.assert_gradients_match` takes it.

Each hand-derived gradient and Hessian is compared with `jax.grad` and `jax.hessian` and with a
numerical derivative: at random parameters, at fitted ones, and at both times 0, 1/1024, 8 and 64,
in float64 and in float32, with weights and offsets. "ulps" is the worst difference in units in the
last place, "relative" relative to the size of the summands. The exit status is 1 if any of them is
wrong.
"""

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxprob as jp
from experiments import _common
from jaxprob.contract import Model, Trait
from jaxprob.models import (
    gaussian_mixture,
    kernel_density,
    linear,
    logistic,
    naive_bayes,
    poisson,
    softmax,
)
from jaxprob.testing import Report, compare_gradients, compare_hessians

MODELS: dict[str, Callable[[], Model]] = {
    "logistic": logistic.model,
    "logistic, no bias": lambda: logistic.model(bias=False),
    "softmax, K = 3": lambda: softmax.model(3),
    "softmax, K = 3, no bias": lambda: softmax.model(3, bias=False),
    "softmax, K = 3, symmetric": lambda: softmax.model(3, parameterisation="symmetric"),
    "linear": linear.model,
    "Poisson": poisson.model,
    "naive Bayes, three families": lambda: naive_bayes.model(
        3,
        [
            naive_bayes.Gaussian((0, 3)),
            naive_bayes.Bernoulli((1,)),
            naive_bayes.Categorical(3, (2,)),
        ],
    ),
    "naive Bayes, multinomial": lambda: naive_bayes.model(3, naive_bayes.Multinomial()),
    **{
        f"Gaussian mixture, {covariance}": partial(
            gaussian_mixture.model, 3, covariance, prior_count=1.0
        )
        for covariance in gaussian_mixture.COVARIANCES
    },
    "Gaussian mixture, gaps": partial(gaussian_mixture.model, 3, prior_count=1.0, missing=True),
    **{
        f"kernel density, {bandwidth}": partial(kernel_density.model, bandwidth=bandwidth)
        for bandwidth in kernel_density.BANDWIDTHS
    },
}
COLUMNS = (
    "model",
    "derivative",
    "parameters",
    "dtype",
    "worst leaf",
    "ulps",
    "relative",
    "verdict",
)


def random_data(model: Model, seed: int, n: int = 40, d: int = 4) -> tuple:
    """Parameters, examples (x,) or (x, y), weights and, where the model takes one, an offset."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.standard_normal((n, d)))
    if model.variables.x.missing:
        x = jnp.where(jnp.asarray(rng.uniform(size=x.shape) < 0.2), jnp.nan, x)
    examples = (x,)
    if model.variables.y is not None:
        y = rng.permutation(np.arange(n) % (model.variables.num_classes or 3))
        examples = x, jnp.asarray(y, model.variables.y.dtype(x.dtype))
    params = jax.tree.map(
        lambda a: jnp.asarray(rng.standard_normal(a.shape)),
        model.init(jax.random.key(seed), *examples),
    )
    if model.variables.y is not None and not model.variables.is_conditional:
        x, _ = model.predict.sample(params, jax.random.key(seed), jnp.ones((n, d)))  # pyright: ignore[reportOptionalCall]
        examples = x, *examples[1:]
    offset = None
    if model.variables.get("offset") is not None:
        columns = model.variables.offset_columns
        shape = (n,) if columns is None else (n, columns)
        offset = jnp.asarray(rng.standard_normal(shape))
    return params, examples, jnp.asarray(rng.exponential(size=n)), offset


def reports(
    model: Model, params: Any, examples: tuple, weights: Any = None, offset: Any = None
) -> Iterable[tuple[str, Report]]:
    """The reports on a model's hand-derived gradient and Hessian, as far as it has them."""
    extra = {} if offset is None else {"offset": offset}
    args = params, examples, weights, extra
    # Far out, autodiff loses digits of sums of kernels; and 64 times the parameters leave inverse
    # covariances with entries from 1e-80 to 1e80, which no sweep can deal with.
    hard = Trait.SUM in model.offers and not model.variables.x.missing

    def value(params: Any, examples: tuple, weights: Any, extra: dict) -> Any:
        return model.objective.log_likelihood(params, *examples, weights, **extra)

    if model.objective.grad is not None:
        gradient = model.objective.grad

        def hand_grad(params: Any, examples: tuple, weights: Any, extra: dict) -> Any:
            return gradient(params, *examples, weights, **extra)

        yield "gradient", compare_gradients(value, hand_grad, *args, hard=hard)
    if model.objective.information is not None:
        information = model.objective.information

        def hand_hessian(params: Any, examples: tuple, weights: Any, extra: dict) -> Any:
            return -information(params, *examples, weights, **extra)

        yield "Hessian", compare_hessians(value, hand_hessian, *args, hard=hard)


def rows(name: str, derivative: str, parameters: str, report: Report) -> list[dict[str, Any]]:
    """A row for each dtype of a report: its worst check."""
    found = []
    for dtype in sorted({c.dtype for c in report.checks}, reverse=True):
        checks = [c for c in report.checks if c.dtype == dtype]
        worst = max(checks, key=lambda c: (bool(c.fault), c.relative))
        cells = (
            *(name, derivative, parameters, dtype, f"{worst.leaf} {list(worst.index)}"),
            *(worst.ulps, worst.relative, worst.fault or f"{len(checks)} ok"),
        )
        found.append(dict(zip(COLUMNS, cells, strict=True)) | {"ok": not worst.fault})
    return found


def verify_model(name: str, model: Model, seed: int) -> list[dict[str, Any]]:
    """The rows of a model, at random and at fitted parameters, given in float32."""
    params, examples, weights, offset = random_data(model, seed)
    l2 = None if model.geometry.penalised is None else 1.0
    fitted = jp.fit(model, *examples, weights=weights, offset=offset, l2=l2).params
    found = []
    for where, at in (("random", params), ("fitted", fitted)):
        args = jax.tree.map(_as_float32, (at, examples, weights, offset))
        for derivative, report in reports(model, *args):
            found += rows(name, derivative, where, report)
    return found


def named(target: str) -> Any:
    """What the function named MODULE:FUNCTION returns."""
    module, _, function = target.partition(":")
    if not function:
        raise SystemExit(f"expected MODULE:FUNCTION, such as mymodels:poisson, got {target}")
    try:
        return getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"{target}: {error}") from error


def main() -> int:
    """Verify all models and print their table; 1 if a derivative is wrong, otherwise 0."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("targets", nargs="*", metavar="MODULE:FUNCTION", help="yours")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    models: dict[str, Any] = {name: make() for name, make in MODELS.items()}
    models |= {target: named(target) for target in args.targets}
    found: list[dict[str, Any]] = []
    for name, model in _common.progress(models.items(), "models"):
        if isinstance(model, Model):
            found += verify_model(name, model, args.seed)
        else:
            found += rows(name, "gradient", "given", compare_gradients(*model))
    _common.table("Hand-derived derivatives", COLUMNS, [list(r.values())[:-1] for r in found])
    wrong = sum(not row["ok"] for row in found)
    print(
        f"{len(found) - wrong} of {len(found)} agree with autodiff and with a numerical derivative"
    )
    print(f"numbers: {_common.record('verify_gradients', args.out, found)}")
    return int(wrong > 0)


def _as_float32(a: Any) -> Any:
    return a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a


if __name__ == "__main__":
    raise SystemExit(main())
