"""Newton's method for the fits in which nothing goes wrong: one loop, which compiles fast.

A program that holds all that may happen in a fit takes seconds to compile, and what happens in
nearly every one is a few Newton steps, some halved, and a proof at the end. This holds no more than
that, and each part of it once: a pass over the data, a Hessian and its inverse, and a bound. Where
it does not lead to CONVERGED, because the classes are separated, columns depend on each other, or
a Hessian has to be mended, it says so, and `jaxprob.solvers.newton` has to be run in its place.

Between Hessians the inverse B of the last one, whose origin is θ₀, is corrected by what each move s
and change of the gradient y = g(θ + s) - g(θ) say of the curvature (BFGS):

    B' = (I - s yᵀ / sᵀy) B (I - y sᵀ / sᵀy) + s sᵀ / sᵀy

Source: Nocedal and Wright, Numerical Optimization, 2nd edition, 2006, equation 6.17.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Status
from jaxprob.numerics.linalg import Inverse, plain_inverse, row_sums
from jaxprob.numerics.passes import count, total
from jaxprob.numerics.products import vdot
from jaxprob.problem.problem import Problem
from jaxprob.solvers.driver import (
    Result,
    Solver,
    no_optimum,
    no_verdict,
    slack,
    tolerance,
    with_status,
)
from jaxprob.solvers.newton import Newton

_MOST_PARAMS = 128
_MOST_STEPS = 12
_MOST_TRIALS = 20  # with one Hessian
_MOVES = {"float64": 4, "float32": 10}  # with one Hessian, before another one
_BEYOND = {"float64": 1e-4, "float32": 1e-2}  # the tolerance: what moves aim at
_CLOSE = 1e-3  # nats for examples of weight one: what is proved, is proved of short steps
_PRECISE = 1e-6  # of the tolerance: eight digits of a parameter in float64
_ARMIJO = 1e-4
_NOISE = 2**10  # as in `jaxprob.solvers.linesearch`


def suits(solver: Solver, problem: Problem) -> bool:
    """Whether a concrete problem is one for which this may do."""
    return (
        solver.takes_plain_steps
        and problem.shards is None
        and problem.l1 is None
        and not problem.firth
        and 0 < problem.num_params() <= _MOST_PARAMS
        and jax.default_backend() == "cpu"
    )


class _At(NamedTuple):
    """Where the run is, what is known there, and what it tries next."""

    theta: Array  # (p,)
    value: Array  # (), infinite before the first pass
    grad: Array  # (p,)
    step: Array  # (p,), to try next
    promise: Array  # (), the slope along the step, negated
    inverse: Inverse  # of the last Hessian
    origin: Array  # (p,), where that is from
    metric: Array  # (p, p), the inverse, corrected
    course: Array  # (3,) int32, a `_Course`


class _Course(NamedTuple):
    """How far a run is: in one array, which takes less to compile than three."""

    trials: Array  # with this Hessian
    steps: Array  # how many Hessians there were that did not show the optimum to be there
    stage: Array  # one of those below


_FAR, _NEAR, _DONE, _LOST = range(4)


def plain_newton(
    solver: Newton, problem: Problem, theta: Array, steps: Array, most_steps: Array
) -> Result:
    """Newton's method without safeguards.

    Args:
        solver: of which the tolerance counts.
        problem: for which `suits` is true.
        theta: (p,) where to start.
        steps: () int32, how many have been taken.
        most_steps: () int32, how many may be.

    Returns:
        A Result, whose status is CONVERGED; what the data say where they have no optimum; STALLED
        where it is near, but that is not proved, perhaps for want of a Hessian from there;
        MAX_STEPS where nothing is known.
    """
    problem, c = problem.prepared(), problem.example_weights()
    unit = jnp.minimum(total(c) / jnp.maximum(count(c > 0), 1), 1)
    theta = problem.canonical(theta)
    zero, nothing = jnp.zeros((), theta.dtype), jnp.zeros_like(theta)
    empty, due = jnp.zeros(2 * theta.shape, theta.dtype), jnp.int32(_MOVES[theta.dtype.name])
    start = _At(
        theta=theta,
        value=zero + jnp.inf,
        grad=nothing,
        step=nothing,
        promise=zero,
        inverse=Inverse(empty, nothing, nothing + 1, zero),
        origin=theta,
        metric=empty,
        course=jnp.stack(_Course(due, steps, jnp.int32(_FAR))),
    )

    def enough(value: Array) -> Array:
        return tolerance(solver.tol, value, unit)

    proved = no_optimum(problem)
    hopeless = proved.status != Status.MAX_STEPS
    most = jnp.where(hopeless, steps, jnp.minimum(most_steps, _MOST_STEPS))  # one look, then lost
    body = partial(_tried, problem, enough, _CLOSE * unit, most)
    at = jax.lax.while_loop(lambda at: _Course(*at.course).stage < _DONE, body, start)
    gap, course = _gap(problem, at), _Course(*at.course)
    evidence = no_verdict(theta)._replace(gap=gap)
    evidence = with_status(evidence, gap <= enough(at.value), Status.CONVERGED)
    evidence = with_status(evidence, course.stage == _DONE, Status.STALLED)
    hopeless &= jnp.isfinite(at.value)
    evidence = jax.tree.map(partial(jnp.where, hopeless), proved, evidence)
    taken = jnp.where(hopeless, steps, course.steps)
    return Result(at.theta, at.value, at.grad, evidence, taken, None)


def _gap(problem: Problem, at: _At) -> Array:
    """A bound on the distance to the optimum, or an estimate where nothing can be proved."""
    proofs = problem.certificates
    if proofs is None:
        gap = vdot(at.grad, at.inverse.solve(at.grad)) / 2
        is_done = _Course(*at.course).stage == _DONE
        return jnp.where(is_done & ~at.inverse.singular(), gap, jnp.inf)
    apart, moved = jnp.zeros_like(at.value), at.theta - at.origin
    return proofs.chord_bound(problem, at.theta, at.value, at.grad, moved, at.inverse, apart)


def _tried(problem: Problem, enough: Any, close: Array, most: Array, at: _At) -> _At:
    """After a trial: there if it is good, else about to try half of it."""
    theta = at.theta + at.step
    value, grad = problem.value_and_grad(theta)
    lower = value <= at.value - _ARMIJO * at.promise + slack(at.value)
    flat = vdot(grad, at.step) <= (1 - 2 * _ARMIJO) * at.promise
    lower |= flat & (value <= at.value + _NOISE * slack(at.value))

    def moved(at: _At) -> _At:
        return _moved(problem, enough(value), close, most, at, theta, value, grad)

    def stayed(at: _At) -> _At:
        trials, steps, stage = at.course
        lost = (trials >= _MOST_TRIALS) | ~jnp.isfinite(at.value)
        stage = jnp.where(stage == _NEAR, _DONE, jnp.where(lost, _LOST, stage))
        course = jnp.stack(_Course(trials + 1, steps, stage))
        return at._replace(step=at.step / 2, promise=at.promise / 2, course=course)

    return jax.lax.cond(lower & jnp.isfinite(value), moved, stayed, at)


def _moved(
    problem: Problem,
    enough: Array,
    close: Array,
    most: Array,
    at: _At,
    theta: Array,
    value: Array,
    grad: Array,
) -> _At:
    """At a new point, and about to try the step from there."""
    dtype, course, has_proofs = theta.dtype.name, _Course(*at.course), problem.certificates
    aim = 2 * _BEYOND[dtype] * enough
    due = course.trials >= _MOVES[dtype]
    if not has_proofs:
        due |= at.promise <= aim
    due &= course.stage == _FAR

    def looked() -> tuple[Inverse, Array, Array]:
        inverse = plain_inverse(problem.hess(theta))
        return inverse, inverse.matrix / jnp.outer(inverse.scale, inverse.scale), theta

    def kept() -> tuple[Inverse, Array, Array]:
        return at.inverse, _updated(at.metric, at.step, grad - at.grad), at.origin

    inverse, metric, origin = jax.lax.cond(due, looked, kept)
    step = -row_sums(metric, grad)
    left = -vdot(grad, step)
    is_near = left <= jnp.minimum(jnp.where(due, enough, aim if has_proofs else -1.0), close)
    done = (course.stage == _NEAR) | (is_near & (left <= 2 * _PRECISE * enough))
    steps = course.steps + (due & ~is_near)
    lost = (steps > most) | ~jnp.isfinite(left)
    stage = jnp.where(lost, _LOST, jnp.where(done, _DONE, jnp.where(is_near, _NEAR, _FAR)))
    course = _Course(jnp.where(due, 1, course.trials + 1), steps, stage)
    return _At(theta, value, grad, step, left, inverse, origin, metric, jnp.stack(course))


def _updated(inverse: Array, move: Array, change: Array) -> Array:
    """The BFGS update of the inverse (p, p) of a Hessian; itself where there is no curvature."""
    solved, curvature = row_sums(inverse, change), vdot(move, change)
    usable = curvature > 0
    rho = jnp.where(usable, 1 / jnp.where(usable, curvature, 1.0), 0.0)
    part = (rho * (1 + rho * vdot(change, solved)) / 2) * move - rho * solved
    return inverse + part[:, None] * move[None, :] + move[:, None] * part[None, :]
