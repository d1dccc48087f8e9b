"""Fits inside of a caller's `jit`, `vmap` or `grad`."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from jaxprob.contract import Status, Trait
from jaxprob.data import suffice, violations
from jaxprob.data.schema import Schema
from jaxprob.fit.eager import exact_evidence
from jaxprob.fit.outcome import conditions, outcome_of, report_of
from jaxprob.fit.plan import recentred
from jaxprob.fit.result import Fit, Kept, null_of
from jaxprob.numerics import linalg
from jaxprob.numerics.control import only_if
from jaxprob.numerics.products import all_digits
from jaxprob.problem.problem import Problem
from jaxprob.runtime.programs import SHELF, Program
from jaxprob.solvers.driver import Result, Solver, is_unproved, run, wants_proof


def traced_fit(
    problem: Problem,
    theta: Array | None,
    solver: Solver,
    schema: Schema,
    trace: bool,
) -> Fit:
    """The fit as part of the caller's program: differentiable, and with all checks at run time.

    Args:
        problem: of which some arrays are tracers.
        theta: (p,) where to start, of the features as they are; where the model does if None.
        solver: how to minimise.
        schema: of the data.
        trace: whether to keep the course of the run.

    Returns:
        A Fit; a program of its own where the caller transforms it outside of `jit`.
    """
    SHELF.use(cast(Program, _program))
    with all_digits():
        return _with_auto_axes(
            partial(_program, schema=schema, trace=trace), problem, theta, solver
        )


def _with_auto_axes(
    fn: Callable[..., Fit], problem: Problem, theta: Array | None, solver: Solver
) -> Fit:
    """Call a function on arrays of a mesh with Explicit axes as if its axes were Auto."""
    mesh = jax.typeof(problem.data.x).sharding.mesh
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    explicit = [name for name, kind in types if kind == AxisType.Explicit]
    if not explicit:
        return fn(problem, theta, solver)
    everywhere = PartitionSpec()
    with jax.sharding.use_abstract_mesh(mesh):
        auto = jax.sharding.auto_axes(fn, axes=tuple(explicit), out_sharding=everywhere)
        return auto(problem, theta, solver)  # pyright: ignore[reportCallIssue]


@partial(jax.jit, static_argnames=["schema", "trace"])
def _program(
    problem: Problem,
    begin: Array | None,
    solver: Solver,
    *,
    schema: Schema,
    trace: bool,
) -> Fit:
    problem = problem.prepared()
    params = None if begin is None else problem.unravel(begin)
    problem = recentred(problem, [solver])
    start = problem.start_for(solver) if params is None else problem.centred(params)

    def unmet(theta: Array) -> Array:
        """Zero at the optimum; regular there, also along what `canonical` removes."""
        _, grad = problem.value_and_grad(theta)
        return conditions(problem, theta, grad) + theta - problem.canonical(theta)

    def optimum(_: Callable | None, theta: Array) -> tuple[Array, Result]:
        result = run(solver, problem, theta, trace=trace)
        if wants_proof(solver, problem):
            prove = partial(exact_evidence, solver, problem)
            evidence = only_if(is_unproved(result.evidence), prove, result.evidence, result)
            result = result._replace(evidence=evidence)
        # Integers have no tangents that custom_root could handle: they travel as floats.
        return result.theta, jax.tree.map(lambda a: a.astype(theta.dtype), result)

    def tangent_solve(linear: Callable[[Array], Array], v: Array) -> Array:
        matrix = jax.vmap(linear, out_axes=1)(jnp.eye(len(v), dtype=v.dtype))
        return linalg.solve(matrix, v)

    if Trait.SMOOTH not in problem.offers:
        theta, found = _chosen(solver, problem, start, trace=trace)
    else:
        theta, found = jax.lax.custom_root(unmet, start, optimum, tangent_solve, has_aux=True)
    evidence = found.evidence._replace(status=found.evidence.status.astype(jnp.int32))
    steps = found.num_steps.astype(jnp.int32)
    result: Result = found._replace(theta=theta, evidence=evidence, num_steps=steps)
    data, model = problem.data, problem.model
    bad = violations(*data, variables=model.variables)
    enough = suffice(data.x, data.weights, variables=model.variables)
    status = jnp.where(enough, result.evidence.status, jnp.int32(Status.SINGULAR))
    status = jnp.where(bad.no_weight, jnp.int32(Status.NO_DATA), status)
    penalties = [p for p in (problem.l2, problem.l1) if p is not None]
    sensible = [(p >= 0) & jnp.isfinite(p) for p in penalties]
    invalid = bad.invalid | ~jnp.all(jnp.stack(sensible)) if sensible else bad.invalid
    status = jnp.where(invalid, jnp.int32(Status.INVALID_INPUT), status)
    value = problem.objective(theta)
    outcome = outcome_of(solver, problem, result)._replace(
        log_likelihood=problem.reported_likelihood(theta, value),
        objective=value - problem.penalties(theta),
    )
    evidence = outcome.result.evidence
    status = jnp.where(status == result.evidence.status, evidence.status, status)
    evidence = evidence._replace(status=status)
    outcome = outcome._replace(result=outcome.result._replace(evidence=evidence))
    information = problem.information(theta) if Trait.CURVED in problem.offers else None
    kept = Kept(information, problem.back(), null_of(problem))
    return report_of(problem, outcome, schema, None, kept)


def _chosen(solver: Solver, problem: Problem, theta: Array, *, trace: bool) -> tuple[Array, Result]:
    """What a search finds, which has no derivative."""

    @jax.custom_jvp
    def search(problem: Problem, theta: Array) -> Result:
        return run(solver, problem, theta, trace=trace)

    @search.defjvp
    def _(primals: tuple, tangents: tuple) -> Any:
        name = problem.model.name
        raise TypeError(f"fit: {name} is chosen rather than computed, and has no derivative")

    found = search(problem, theta)
    return found.theta, found
