"""Fits of concrete arrays: solvers tried in turn, each a compiled program."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxprob.contract import Evidence, Status
from jaxprob.fit.outcome import Outcome, outcome_of
from jaxprob.fit.plan import in_bucket, solvers_for
from jaxprob.problem.problem import Problem
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Result, Solver, is_unproved, run, wants_proof
from jaxprob.solvers.hosted import compile_look, newton_from_host, suits
from jaxprob.solvers.newton import judge


def solve(problem: Problem) -> Outcome:
    """What is found of a concrete problem by the solvers for its shape.

    Args:
        problem: what to minimise.

    Returns:
        An Outcome.
    """
    solvers = solvers_for(problem, traced=False)
    return first_that_converges(solvers, in_bucket(problem, solvers), None, False)


def compile_ahead(problem: Problem, theta: Array | None, solver: Solver, *, trace: bool) -> None:
    """Compile what `first_that_converges` will call first, for arrays of these shapes."""
    if suits(solver, problem) and not trace:
        compile_look(problem)
    else:
        run_alone.compile(solver, problem, theta, trace=trace)


def first_that_converges(
    solvers: Sequence[Solver], problem: Problem, theta: Array | None, trace: bool
) -> Outcome:
    """What the first of some solvers finds that converges, else the last."""
    if len(solvers) == 1 and not trace and suits(solvers[0], problem):
        outcome = _by_host(solvers[0], problem, theta)
        if outcome is not None:
            return outcome
    for solver in solvers[:-1]:
        outcome = run_alone(solver, problem, theta, trace=trace)
        if int(outcome.result.evidence.status) == Status.CONVERGED:
            return outcome
    outcome = run_alone(solvers[-1], problem, theta, trace=trace)
    unproved = bool(is_unproved(outcome.result.evidence)) and wants_proof(solvers[-1], problem)
    return _certify(solvers[-1], problem, outcome) if unproved else outcome


def _by_host(solver: Any, problem: Problem, theta: Array | None) -> Outcome | None:
    """What a few Newton steps find, None where that is not enough."""
    found = newton_from_host(solver, problem, theta)
    if found is None:
        return None
    result = found.result
    if problem.centre is not None:
        return _reported(solver, problem, result)
    return jax.device_put(
        Outcome(
            result,
            problem.unravel(result.theta),
            problem.unravel(result.evidence.direction),
            found.log_likelihood,
            -result.value,
            np.max(np.abs(result.grad), initial=0.0),
            found.num_examples,
            found.total_weight,
        )
    )


_reported = eager_jit(outcome_of)


@partial(eager_jit, static_argnames=["trace"])
def run_alone(solver: Solver, problem: Problem, theta: Array | None, *, trace: bool) -> Outcome:
    """What a solver finds, by one program."""
    problem = problem.prepared()
    theta = problem.start_for(solver) if theta is None else theta
    return outcome_of(solver, problem, run(solver, problem, theta, trace=trace))


@eager_jit
def _certify(solver: Solver, problem: Problem, outcome: Outcome) -> Outcome:
    """Replace the evidence of a solver that proves nothing by that of the exact Hessian."""
    result = outcome.result
    evidence = exact_evidence(solver, problem, result)
    return outcome._replace(
        result=result._replace(evidence=evidence), direction=problem.reported(evidence.direction)
    )


def exact_evidence(solver: Solver, problem: Problem, result: Result) -> Evidence:
    """What the exact Hessian proves where a run ended."""
    return judge(problem, result, getattr(solver, "tol", None))
