r"""What a fit would have been on other data: derivatives of the optimum, without a refit.

At the optimum of f(θ) = -Σ_i c_i log p_i(θ) + l2/2 ‖w‖² the gradient vanishes, so by the implicit
function theorem, with H the Hessian of f and g_i = ∇ log p_i,

    dθ/dc_i = H⁻¹ g_i                            the influence of example i on the parameters
    dθ/dl2 = -H⁻¹ w                              (w: the penalised parameters, zeros elsewhere)
    Σ_i c_i² H⁻¹ g_i g_iᵀ H⁻¹                    the infinitesimal jackknife's covariance of θ

Without example i the optimum is approximately one Newton step away,

    θ₋ᵢ ≈ θ - c_i (H - c_i H_i)⁻¹ g_i,           H_i = -∇² log p_i

which is exact to second order in what the example matters. A bootstrap replicate with weights c'
is approximately θ + Σ_i (c'_i - c_i) dθ/dc_i.

All of this is of an optimum: a fit that has none, such as a separated one, is an error that says
so, and NaN for a lane among many.

Source: Jaeckel, The infinitesimal jackknife, Bell Laboratories, 1972; Cook and Weisberg, Residuals
and Influence in Regression, 1982; Rad and Maleki, A scalable estimate of the out-of-sample
prediction error via approximate leave-one-out cross-validation, JRSS B 82, 2020.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Trait
from jaxprob.data.centring import less
from jaxprob.fit import Fit, Source, check_data_of
from jaxprob.fit.verdicts import check_optimum, has_optimum
from jaxprob.numerics.linalg import Factor, factorise
from jaxprob.numerics.products import all_digits, matmul, vdot
from jaxprob.problem.problem import Problem, Rows
from jaxprob.runtime.compilation import eager_jit

_ROWS = 256  # whose Hessians are in memory at a time


class LeaveOneOut(NamedTuple):
    """What is expected without each of the examples."""

    params: Any
    """The parameters without example i, as entry i of each leaf."""
    log_prob: Array
    """(n,) nats, of example i under the parameters without it."""


def influence(fit: Fit) -> Any:
    """The derivative of the parameters in the weight of each example, dθ/dc_i = H⁻¹ g_i.

    Args:
        fit: converged, from `jaxprob.fit` or `jaxprob.fit_many`, without l1.

    Returns:
        Params whose leaves have the examples as first axis; lanes before them for many fits.

    Raises:
        ValueError: with l1, where the optimum has no derivative, and for one fit without optimum.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> influence(jp.fit(jp.models.logistic.model(), x, y, l2=1.0)).weights.shape
        (5, 1)
    """
    return _over_lanes(fit, lambda one, problem: _unraveled(problem, _influence(problem, one)))


def infinitesimal_jackknife(fit: Fit) -> Array:
    """The covariance of the parameters that the infinitesimal jackknife estimates.

    It is the sandwich H⁻¹ (Σ_i c_i² g_i g_iᵀ) H⁻¹, right also where the model is not, and what the
    bootstrap's covariance tends to.

    Args:
        fit: converged, from `jaxprob.fit` or `jaxprob.fit_many`, without l1.

    Returns:
        (p, p) in the order of `jax.flatten_util.ravel_pytree(params)`, or (B, p, p).

    Raises:
        ValueError: with l1, where the optimum has no derivative, and for one fit without optimum.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> infinitesimal_jackknife(jp.fit(jp.models.logistic.model(), x, y, l2=1.0)).shape
        (2, 2)
    """
    return _over_lanes(fit, lambda one, problem: _covariance(problem, one))


def leave_one_out(fit: Fit) -> LeaveOneOut:
    """What each example's log-probability would be, had the model been fitted without it.

    One Newton step per example, from the fit of all; the sum of `log_prob` estimates how well the
    model does on new data.

    Args:
        fit: converged, from `jaxprob.fit` or `jaxprob.fit_many`, without l1.

    Returns:
        A LeaveOneOut; for many fits with the lanes in front.

    Raises:
        ValueError: with l1, where the optimum has no derivative, and for one fit without optimum.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> loo = leave_one_out(jp.fit(jp.models.logistic.model(), x, y, l2=1.0))
        >>> bool(loo.log_prob.sum() < -3)
        True
    """

    def of_one(one: Array, problem: Problem) -> LeaveOneOut:
        theta, log_prob = _without_each(problem, one)
        return LeaveOneOut(_unraveled(problem, theta), log_prob)

    return _over_lanes(fit, of_one)


def l2_gradient(fit: Fit, x: Any, y: Any, *, weights: Any = None, offset: Any = None) -> Array:
    """The derivative in l2 of the log-likelihood of other examples: -(∇ log-lik)ᵀ H⁻¹ w.

    Args:
        fit: converged, from `jaxprob.fit` or `jaxprob.fit_many`, with l2 and without l1.
        x: (m, d) features of the validation examples.
        y: (m,), as the model has it; None for a density of x alone.
        weights: (m,) of the validation examples.
        offset: (m,) or (m, K).

    Returns:
        (), or (B,) for many fits: nats per unit of l2. Positive where more penalty is better.

    Raises:
        ValueError: for a fit without l2, or with l1, for one that has no optimum, and for other
            columns than were fitted.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> result = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
        >>> l2_gradient(result, [[0.5], [-1.5]], [1, 1]).shape
        ()
    """
    if fit.l2 is None:
        raise ValueError("fit: expected one with l2, got l2=None")
    model = fit.model
    data = check_data_of(model, x, y, weights, offset, fit.schema)

    def of_one(theta: Array, problem: Problem) -> Array:
        return _l2_gradient(problem, theta, Rows(*data[:4]))

    return _over_lanes(fit, of_one)


_NEEDS = Trait.SUM | Trait.LIKELIHOOD | Trait.SMOOTH


def _over_lanes(fit: Fit, fn: Callable[[Array, Problem], Any]) -> Any:
    """A function of parameters and problem for one fit, or for each of many."""
    if fit.l1 is not None:
        raise ValueError("fit: expected one without l1, which has no derivative at the optimum")
    if fit.firth:
        raise ValueError("fit: expected one without Firth's penalty, which has another Hessian")
    model = fit.model
    if _NEEDS not in model.offers:
        raise ValueError(
            f"fit: expected one of a model whose likelihood is a sum of terms of one example each, "
            f"with derivatives, got {model.name}"
        )
    if fit.source is None:
        raise ValueError(
            "fit: expected one that refers to its data, got one that has passed through a JAX "
            "transformation after it was made"
        )
    check_optimum(fit)
    if jnp.ndim(fit.status) == 0:
        return _call(fn, fit)
    lanes = [_call(fn, fit.lane(i)) for i in range(len(fit.status))]
    good = has_optimum(fit.status, fit.gap)

    def together(*leaves: Array) -> Array:
        every = jnp.stack(leaves)
        return jnp.where(good.reshape(-1, *([1] * (every.ndim - 1))), every, jnp.nan)

    return jax.tree.map(together, *lanes)


def _call(fn: Callable[[Array, Problem], Any], fit: Fit) -> Any:
    source = fit.source
    assert isinstance(source, Source)
    problem = source.problem(fit.l2)
    return fn(problem.centred(fit.params), problem)


def _unraveled(problem: Problem, theta: Array) -> Any:
    return jax.vmap(problem.reported)(theta)


@jax.jit
def _factor(problem: Problem, theta: Array) -> Factor:
    with all_digits():
        return factorise(problem.hess(theta))


@eager_jit
def _l2_gradient(problem: Problem, theta: Array, others: Rows) -> Array:
    others = others._replace(x=less(others.x, problem.centre))
    alone = replace(problem.model, prior=None)
    other = Problem(others, None, None, alone, False, None)
    _, grad = other.value_and_grad(theta)  # of minus the log-likelihood
    w = jnp.where(problem.mask(), theta, 0.0)
    return vdot(grad, _factor(problem, theta).solve(w))


@jax.jit
def _scores(problem: Problem, theta: Array) -> Array:
    """(n, p) the gradients g_i of the log-probabilities."""
    log_prob = partial(_log_prob, problem)
    with all_digits():
        scores = jax.vmap(jax.grad(log_prob), (None, 0))(theta, _examples(problem))
        if problem.model.prior_follows:  # the prior follows the examples, too
            scores += _by_prior(problem, theta)
    return scores


def _by_prior(problem: Problem, theta: Array) -> Array:
    """(n, p) the derivatives of the gradient of the log-prior in the weights."""

    def slope(weights: Array) -> Array:
        rows = problem.data._replace(weights=weights)
        return jax.grad(replace(problem, data=rows).log_prior)(theta)

    return jax.jacrev(slope)(problem.example_weights()).T


def _examples(problem: Problem) -> tuple[tuple[Array, ...], Array | None]:
    data = problem.data
    return data.examples, data.offset


def _log_prob(
    problem: Problem, theta: Array, example: tuple[tuple[Array, ...], Array | None]
) -> Array:
    values, offset = example
    keywords = {} if offset is None else {"offset": offset}
    return problem.model.log_prob(problem.unravel(theta), *values, **keywords)


@jax.jit
def _influence(problem: Problem, theta: Array) -> Array:
    """(n, p)."""
    solve = _factor(problem, theta).solve
    moved = jax.vmap(solve)(_scores(problem, theta))
    return jax.vmap(problem.canonical)(moved)


@jax.jit
def _covariance(problem: Problem, theta: Array) -> Array:
    weighted = _influence(problem, theta) * problem.example_weights()[:, None]
    back = problem.back()
    weighted = weighted if back is None else matmul(weighted, back.T)
    return matmul(weighted.T, weighted)


@jax.jit
def _without_each(problem: Problem, theta: Array) -> tuple[Array, Array]:
    with all_digits():
        hess = problem.hess(theta)

    def without(example: tuple) -> tuple[Array, Array]:
        row, c, score = example
        log_prob = partial(_log_prob, problem, example=row)
        rest = hess + c * jax.hessian(log_prob)(theta)
        moved = theta - problem.canonical(factorise(rest).solve(c * score))
        return moved, log_prob(moved)

    rows = _examples(problem), problem.example_weights(), _scores(problem, theta)
    with all_digits():
        return jax.lax.map(without, rows, batch_size=_ROWS)
