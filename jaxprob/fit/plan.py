"""From arguments to a problem, and the solvers for the shape of it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxprob.contract import Model, Trait
from jaxprob.data import Data, check_scalar
from jaxprob.data.centring import centred
from jaxprob.data.checks import host_view
from jaxprob.fit.arguments import check_penalties, check_solver, default_for, start_from
from jaxprob.problem.problem import Problem, Rows, Shards, block_bytes
from jaxprob.runtime.buckets import bucket, filled
from jaxprob.solvers.driver import Solver
from jaxprob.solvers.lbfgs import lbfgs
from jaxprob.solvers.newton import newton

_EXPLICIT = AxisType.Explicit
_MANY_ROWS = 100  # per parameter of a class: from here on a Hessian of some rows is enough
_MUCH_WORK = 2e7  # operations of a Hessian below which it is cheaper than thinking about it


_USUAL_STEPS = 100


class Plan(NamedTuple):
    """What to solve, where to start if not where the model does, and solvers to try in turn."""

    given: Problem
    problem: Problem  # the same, with rows filled up to a size that programs are shared for
    theta: Array | None
    solvers: list[Solver]
    traced: bool


def plan(
    model: Model,
    data: Data,
    *,
    l2: Any,
    l1: Any,
    firth: bool,
    solver: Solver | None,
    init: Any,
    key: Any = None,
) -> Plan:
    """What `fit` will do with data, or with data of which only the shapes are known."""
    l2 = None if l2 is None else check_scalar("l2", l2, dtype=data.x.dtype)
    l1 = None if l1 is None else check_scalar("l1", l1, dtype=data.x.dtype)
    check_penalties(model, l2, l1, firth=firth)
    rows = Rows(data.x, data.y, data.weights, data.offset)
    traced = has_tracer((rows, l2, l1, init, solver, key))
    rows: Rows = rows if traced else jax.tree.map(_on_auto_mesh, rows)
    positive = not traced and any(p is not None and float(p) > 0 for p in (l2, l1))
    apart = Trait.SUM in model.offers
    shards = _shards(rows.x) if apart and not traced else None
    blocks = None if traced else block_bytes(rows.x, shards)
    problem = Problem(rows, l2, l1, model, positive, shards, blocks, firth, key=key)
    if problem.num_params() == 0:
        raise ValueError(
            f"x: expected at least one feature, since this {model.name} has no other parameters, "
            f"got shape {rows.x.shape}"
        )
    solvers = (
        solvers_for(problem, traced=traced) if solver is None else [check_solver(solver, problem)]
    )
    given = problem
    if not traced:
        given = recentred(problem, solvers)
        problem = in_bucket(given, solvers)
    theta = None if init is None else start_from(problem, init)
    return Plan(given, problem, theta, solvers, traced)


def recentred(problem: Problem, solvers: Sequence[Solver]) -> Problem:
    """The problem in features less their centre, where they are far from zero.

    Args:
        problem: as it was given.
        solvers: that are to solve it.

    Returns:
        The same problem where the model, or a step of a solver, would be another.
    """
    same = all(one.recentres for one in solvers)
    if not (same and problem.can_recentre):
        return problem
    x, centre = centred(problem.data.x)
    return replace(problem, data=problem.data._replace(x=x), centre=centre)


def in_bucket(problem: Problem, solvers: Sequence[Solver]) -> Problem:
    """The problem with rows without weight, up to a size for which there may be a program.

    Args:
        problem: of concrete arrays, or of `jax.ShapeDtypeStruct`s.
        solvers: that are to solve it.

    Returns:
        The same problem where more rows would make a difference, or cost too much.
    """
    data = problem.data
    n, d = data.x.shape
    size = bucket(n, d * data.x.dtype.itemsize)
    apart = problem.shards is None and Trait.SUM in problem.offers
    if not (apart and all(one.sums for one in solvers)) or (size == n and data.weights is not None):
        return problem
    if isinstance(data.x, jax.ShapeDtypeStruct):
        weights = jax.ShapeDtypeStruct((n,), data.x.dtype)
        rows = data._replace(weights=weights if data.weights is None else data.weights)
        more = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), rows)
        return replace(problem, data=more)
    if any(host_view(a) is None for a in data if a is not None):
        return problem  # on an accelerator
    weights = np.ones(n, data.x.dtype) if data.weights is None else np.asarray(data.weights)
    more = data._replace(weights=None)
    if size > n:
        more = jax.tree.map(lambda a: filled(np.asarray(a), size), more)
    more = more._replace(weights=filled(weights, size, 0))
    return replace(problem, data=jax.device_put(more, may_alias=True))


def work_of(problem: Problem, solver: Solver, count: int = 1) -> float:
    """How many numbers are looked at, roughly, in so many fits, for each hundred of most steps.

    Infinitely many where a solver trains, whose steps are passes over all batches.

    Args:
        problem: one of them.
        solver: that is to solve it.
        count: how many there are.
    """
    if solver.trains:
        return math.inf
    columns = problem.model.geometry.columns or problem.model.variables.num_classes or 1
    return count * problem.data.x.size * columns * max(solver.max_steps / _USUAL_STEPS, 1)


def solvers_for(problem: Problem, *, traced: bool) -> list[Solver]:
    """Solvers to try in turn, the fastest for the shape of the data first."""
    default = default_for(problem)
    n, d = problem.data.x.shape
    is_small = n < _MANY_ROWS * (d + 1) or n * problem.num_params() ** 2 < _MUCH_WORK
    some_do = Trait.SUM in problem.offers and not problem.firth
    if default == newton() and Trait.CURVED not in problem.offers:
        return [lbfgs()]
    if traced or is_small or not some_do or default != newton():
        return [default]
    return [lbfgs(sample_dtype="float32", max_steps=40), lbfgs(max_steps=40), default]


def _on_auto_mesh(a: Array) -> Array:
    """The same buffers, seen on a mesh whose axes are Auto: nothing moves."""
    sharding = a.sharding
    if not isinstance(sharding, NamedSharding) or _EXPLICIT not in sharding.mesh.axis_types:
        return a
    devices, names = sharding.mesh.devices, sharding.mesh.axis_names
    assert devices is not None  # of a concrete array
    mesh = Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.device_put(a, NamedSharding(mesh, sharding.spec))


def _shards(x: Array) -> Shards | None:
    """Where the rows of a concrete array are, if on several devices along one mesh axis."""
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding) or sharding.num_devices == 1:
        return None
    spec, mesh = (*sharding.spec, None), sharding.mesh
    axis = spec[0][0] if isinstance(spec[0], tuple) and len(spec[0]) == 1 else spec[0]
    whole_rows = all(s is None for s in spec[1:])
    if not (isinstance(mesh, Mesh) and isinstance(axis, str) and whole_rows):
        return None
    return Shards(mesh, axis)


def has_tracer(tree: Any) -> bool:
    """Whether a leaf of a tree is not known yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
