"""Fits of concrete arrays: solvers tried in turn, each a compiled program."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Evidence, Status
from jaxprob.fit.outcome import Outcome, outcome_of
from jaxprob.fit.plan import in_bucket, solvers_for, work_of
from jaxprob.problem.problem import Problem
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import DEFAULT_TOL, Result, Solver, is_unproved, run, wants_proof
from jaxprob.solvers.newton import judge, newton
from jaxprob.solvers.plain_newton import plain_newton, suits

_ATTEMPTS = 2  # of plain Newton steps, the last one from where the optimum seems to be


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
    work = work_of(problem, solver)
    if suits(solver, problem) and not trace:
        _by_plain_newton.compile(work, *_plain_arguments(solver, problem, theta))
    else:
        run_alone.compile(work, solver, problem, theta, trace=trace)


def first_that_converges(
    solvers: Sequence[Solver], problem: Problem, theta: Array | None, trace: bool
) -> Outcome:
    """What the first of some solvers finds that converges, else the last."""
    if len(solvers) == 1 and not trace and suits(solvers[0], problem):
        outcome = _outcome_if_plain(solvers[0], problem, theta)
        if outcome is not None:
            return outcome
    for solver in solvers[:-1]:
        outcome = _run_alone(solver, problem, theta, trace)
        if int(outcome.result.evidence.status) == Status.CONVERGED:
            return outcome
    outcome = _run_alone(solvers[-1], problem, theta, trace)
    open_ = bool(is_unproved(jax.device_get(outcome.result.evidence)))
    unproved = open_ and wants_proof(solvers[-1], problem)
    return _certify(solvers[-1], problem, outcome) if unproved else outcome


def _outcome_if_plain(solver: Any, problem: Problem, theta: Array | None) -> Outcome | None:
    """What plain Newton steps find, None where they are not enough."""
    steps = 0
    program = _by_plain_newton.for_work(work_of(problem, solver))
    for _ in range(_ATTEMPTS):
        outcome = program(*_plain_arguments(solver, problem, theta, steps))
        status = int(outcome.result.evidence.status)
        if status == Status.MAX_STEPS:
            return None
        if status != Status.STALLED:
            return outcome
        theta, steps = outcome.result.theta, int(outcome.result.num_steps)
    return None


def _plain_arguments(solver: Any, problem: Problem, theta: Array | None, steps: int = 0) -> tuple:
    """Those of `_by_plain_newton`, one program for all tolerances, starts and numbers of steps."""
    dtype = np.dtype(problem.data.x.dtype)
    tol = DEFAULT_TOL[dtype.name] if solver.tol is None else solver.tol
    taken = np.array([steps, solver.max_steps], np.int32)
    start = np.zeros(problem.num_params(), dtype) if theta is None else theta
    return np.asarray(tol, dtype), taken, problem, start, np.bool(theta is None)


@eager_jit
def _by_plain_newton(
    tol: Array, steps: Array, problem: Problem, theta: Array, is_start: Array
) -> Outcome:
    """What plain Newton steps find, by one small program."""
    solver = replace(newton(), tol=tol)
    theta = jnp.where(is_start, problem.start(), theta)
    return outcome_of(solver, problem, plain_newton(solver, problem, theta, *steps))


def _run_alone(solver: Solver, problem: Problem, theta: Array | None, trace: bool) -> Outcome:
    return run_alone.for_work(work_of(problem, solver))(solver, problem, theta, trace=trace)


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
