"""Fit a model: check the data, build the problem, run a solver, say what was found."""

from functools import partial
from typing import Any

from jax import Array

from jaxprob.contract import Model
from jaxprob.data import Data, check_data
from jaxprob.fit.arguments import key_data
from jaxprob.fit.eager import compile_ahead, first_that_converges
from jaxprob.fit.outcome import report_of
from jaxprob.fit.plan import plan
from jaxprob.fit.result import Fit, Source
from jaxprob.fit.traced import traced_fit
from jaxprob.solvers.driver import Solver


def fit(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    init: Any = None,
    key: Array | None = None,
    trace: bool = False,
) -> Fit:
    """Fit a model by (penalised) maximum likelihood, and find out how good the fit is.

    Minimises -Σ_i c_i log p(y_i|x_i) + l2/2 ‖w‖² + l1 ‖w‖₁ over the parameters, the penalties on
    those that the model calls penalised (weights, not bias). l2 is 1/C of scikit-learn. The
    logarithm of a model's own prior, such as the smoothing of naive Bayes, is added to the
    likelihood; models of x and y together have the joint density in place of p(y|x), and models of
    x alone, such as mixtures, take no y.

    Works inside `jax.jit`, `jax.vmap` and `jax.grad`; derivatives with respect to x, weights,
    offset and penalties are those of the optimum, by the implicit function theorem. Arrays sharded
    over devices stay where they are.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features; a JAX or NumPy array, list, or DataFrame of any library.
        y: (n,) labels 0..K-1, counts or numbers, as the model has it; none for a density of x
            alone.
        weights: (n,) c_i ≥ 0 of the examples, which count as so many repeated rows, in errors and
            criteria, too; one each where None. For probabilities or relative weights pass
            `jaxprob.data.normalised_weights(weights)`.
        offset: added to the logits: (n,) for logistic, (n, K) for softmax regression.
        l2: () ≥ 0.
        l1: () ≥ 0; needs `solver=jaxprob.solvers.proximal()`, the default then.
        firth: whether to add Firth's penalty ½ log det I(θ) to the log-likelihood, with which the
            maximum is finite also where classes are separated or absent. `gap` is then an estimate.
        solver: how to minimise; chosen by the model and the shape of the data where None.
        init: parameters to start from; the model's own where None.
        key: a typed PRNG key, for models that start at random, such as networks; the start that a
            model has without one where None.
        trace: whether to keep objective and gradient norm after each step in `Fit.trace`.

    Returns:
        A Fit. What only the run can find out is its `status`, never an exception.

    Raises:
        ValueError: before any computation, for what can be seen in the arguments: shapes, NaN or
            infinite values, labels outside 0..K-1, negative weights or penalties, and the like.
        TypeError: for arguments of the wrong type.

    Example:
        >>> from jaxprob.models import logistic
        >>> from jaxprob.contract import Status
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> result = fit(logistic.model(), x, y, l2=1.0)
        >>> Status(int(result.status)).name, round(float(result.params.weights[0]), 3)
        ('CONVERGED', 0.633)
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model: expected one such as jaxprob.models.logistic.model(), got {model!r}"
        )
    planned = partial(
        plan, model, l2=l2, l1=l1, firth=firth, solver=solver, init=init, key=key_data(key)
    )

    def compile_first(shapes: Data) -> None:
        _, problem, theta, solvers, traced = planned(shapes)
        if not traced:
            compile_ahead(problem, theta, solvers[0], trace=trace)

    data = check_data(
        x,
        y,
        weights,
        offset,
        variables=model.variables,
        meanwhile=compile_first,
    )
    exact, problem, theta, solvers, traced = planned(data)
    if traced:
        return traced_fit(problem, theta, solvers[0], data.schema, trace)
    outcome = first_that_converges(solvers, problem, theta, trace)
    source = Source(model, *exact.data, exact.centre, problem)
    return report_of(problem, outcome, data.schema, source)
