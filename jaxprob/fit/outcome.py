"""What is reported of a run, in the parameters of the features as they were given."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Status
from jaxprob.data.schema import Schema
from jaxprob.fit.result import Fit, Kept, Source
from jaxprob.models.regression.certificates import together
from jaxprob.numerics.passes import count, total
from jaxprob.numerics.products import vdot
from jaxprob.problem.problem import Problem
from jaxprob.solvers.driver import Result, Solver, slack, tolerance, wants_proof, with_status


class Outcome(NamedTuple):
    """What a compiled run hands back."""

    result: Result
    params: Any
    direction: Any
    log_likelihood: Array
    objective: Array
    grad_norm: Array
    num_examples: Array
    total_weight: Array


def outcome_of(solver: Solver, problem: Problem, result: Result) -> Outcome:
    """What is reported of a run."""
    params, result = _rounded(solver, problem, result)
    if solver.trains and not wants_proof(solver, problem):
        evidence = with_status(result.evidence, jnp.bool(True), Status.TRAINED)
        result = result._replace(evidence=evidence)
    theta = result.theta
    return Outcome(
        result,
        params,
        problem.reported(result.evidence.direction),
        problem.reported_likelihood(theta, problem.penalties(theta) - result.value),
        -result.value,
        jnp.max(jnp.abs(conditions(problem, theta, result.grad)), initial=0.0),
        count(problem.example_weights() > 0),
        total(problem.example_weights()),
    )


def _rounded(solver: Solver, problem: Problem, result: Result) -> tuple[Any, Result]:
    """The parameters of the features as given, and the result there: rounding has moved them.

    Where the slope is zero, by a square of what was moved. Where that is much, the difference of
    the values says it better.
    """
    params = problem.reported(result.theta)
    if problem.centre is None:
        return params, result
    theta = problem.centred(params)
    value, grad = problem.value_and_grad(theta)
    evidence = result.evidence
    value = value + problem.penalty(theta)
    cost = _cost(problem, theta, value, theta - result.theta)
    grown = jnp.maximum(value - result.value, 0.0) + slack(value)
    gap = jnp.minimum(together(evidence.gap, cost), evidence.gap + grown)
    enough = tolerance(getattr(solver, "tol", None), value, problem.unit())
    lost = (evidence.status == Status.CONVERGED) & ~(jnp.minimum(cost, grown) <= enough)
    status = jnp.where(lost, jnp.int32(Status.STALLED), evidence.status)
    evidence = evidence._replace(gap=gap, status=status)
    return params, result._replace(theta=theta, value=value, grad=grad, evidence=evidence)


def _cost(problem: Problem, theta: Array, value: Array, moved: Array) -> Array:
    """What a small move away from where the slope is zero costs, () nats.

    By δ at most, every logit, of which models with proofs know the cost; of others, half of the
    curvature along the move.
    """
    proofs = problem.model.certificates
    if proofs is not None:
        size = jnp.max(jnp.abs(moved), initial=0.0)
        return proofs.shift_cost(problem, theta, value, size)
    _, change = jax.jvp(lambda theta: problem.value_and_grad(theta)[1], (theta,), (moved,))
    return jnp.maximum(vdot(moved, change), 0.0) / 2


def conditions(problem: Problem, theta: Array, grad: Array) -> Array:
    """(p,) zero at the optimum: the gradient, or with l1 the least of its subgradients' steps."""
    if problem.l1 is None:
        return grad
    moved = theta - grad
    return theta - jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - problem.shrinkage(), 0.0)


def report_of(
    problem: Problem,
    outcome: Outcome,
    schema: Schema,
    source: Source | None,
    kept: Kept | None = None,
) -> Fit:
    """The Fit that says what was found."""
    result = outcome.result
    return Fit(
        params=outcome.params,
        status=result.evidence.status,
        log_likelihood=outcome.log_likelihood,
        objective=outcome.objective,
        gap=result.evidence.gap,
        grad_norm=outcome.grad_norm,
        num_steps=result.num_steps,
        direction=outcome.direction,
        num_examples=outcome.num_examples,
        total_weight=outcome.total_weight,
        l2=problem.l2,
        l1=problem.l1,
        trace=result.trace,
        kept=kept,
        model=problem.model,
        schema=schema,
        firth=problem.firth,
        source=source,
    )
