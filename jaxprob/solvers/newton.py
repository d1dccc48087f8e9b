"""Newton's method, damped: an exact Hessian each step, and a proof at the end.

From θ, with gradient g and Hessian H, the step is δ = -H⁻¹g (iteratively reweighted least squares),
halved until the objective falls. It converges from every start where a finite optimum exists,
quadratically in the end, and never increases the objective beyond rounding on any input. Each
Hessian costs n p² operations, so this is the method for small p, or for n not much larger than p.
A Hessian is used for further, cheap moves while these make fast progress: each corrects it by what
the gradients of the moves so far say of the curvature (`quasi_newton`), and is left behind by a new
Hessian where that does not help.

Source: Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5; Kelley, Iterative Methods for
Linear and Nonlinear Equations, 1995, section 5.4.3 (Shamanskii).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Evidence, Point, Status, Trait
from jaxprob.models.regression.certificates import together
from jaxprob.numerics.control import only_if
from jaxprob.numerics.linalg import Factor, factorise, no_factor
from jaxprob.numerics.products import vdot
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import (
    Result,
    State,
    blank,
    checked,
    is_doubtful,
    is_undecided,
    no_optimum,
    no_verdict,
    seek,
    slack,
    tolerance,
    with_status,
)
from jaxprob.solvers.linesearch import Move
from jaxprob.solvers.quasi_newton import At, no_pairs, step
from jaxprob.solvers.settings import check_count, check_tolerance

_MOST_MOVES = 10  # with one Hessian
_FEW_MOVES = 4  # where another Hessian is cheap
_CHEAP = 24  # parameters for each logit
_BEYOND = {"float64": 1e-4, "float32": 1e-2}  # the tolerance: what moves aim at
_GOOD_RATIO = 1 / 4  # of gᵀH⁻¹g, from one move to the next: else the Hessian has changed too much
_NEAR_ENOUGH = 2  # times the tolerance: a larger decrement promises no bound that is small enough
_IDLE_STEPS = 4  # without progress, in the objective or in the bound, before a run has stalled


class NewtonMemory(NamedTuple):
    """Newton's own: the last Hessian, what it promised, and idle steps."""

    factor: Factor
    origin: Array  # (p,), where the Hessian is from
    spread: Array  # (), log of how many times the one there it is at most
    is_given: Array  # () bool, whether it was known before and is still to be tried
    newton_step: Array  # (p,), -H⁻¹g where the Hessian is from
    decrement: Array  # (), gᵀH⁻¹g / 2 there
    idle: Array  # () for how many steps nothing improved


@partial(jax.tree_util.register_dataclass, data_fields=["tol"], meta_fields=["max_steps"])
@dataclass(frozen=True)
class Newton:
    """Settings of `newton`."""

    tol: Array | float | None
    max_steps: int

    recentres = True
    sums = True
    needs = Trait.SMOOTH
    takes_known = True
    takes_start = True
    takes_l1 = False
    proof = Trait.CURVED
    takes_plain_steps = True
    trains = False

    def prepare(self, problem: Problem, theta: Array) -> tuple[None, Array]:
        """Nothing to prepare."""
        return None, problem.canonical(theta)

    def init(self, problem: Problem, fixed: None, theta: Array) -> State:
        """No step, from an unknown value: step 0 goes nowhere and finds it."""
        infinite, zero = jnp.asarray(jnp.inf, theta.dtype), jnp.zeros((), theta.dtype)
        nothing, idle = jnp.zeros_like(theta), jnp.zeros((), jnp.int32)
        memory = NewtonMemory(no_factor(theta), theta, zero, idle > 0, nothing, infinite, idle)
        return blank(theta, memory)

    def start(self, problem: Problem, fixed: None, theta: Array, known: Known | None) -> State:
        """The value at the start, and what the known information proves there."""
        value, grad = problem.value_and_grad(theta)
        state = self.init(problem, fixed, theta)._replace(value=value, grad=grad)
        if known is None:
            return state
        factor = factorise(problem.regular(known.theta, known.information))
        yes = jnp.ones((), bool)
        memory = state.memory._replace(
            factor=factor, origin=known.theta, spread=known.spread, is_given=yes
        )
        state = state._replace(memory=memory)
        here = Move(theta, value, grad, yes, jnp.ones_like(value))
        return state._replace(evidence=_verdict_of_chords(problem, state, here, self.tol))

    def step(self, problem: Problem, fixed: None, state: State, k: Array) -> State:
        """Compute the Hessian and what it proves, then move with it; step 0 only finds a value.

        A Hessian that is known is tried first.
        """
        look, needed = partial(self._look, problem), is_undecided(state) & (k > 0)
        needed &= ~state.memory.is_given
        seen = only_if(needed, look, (state.evidence, state.memory), state)
        new = self._moved(problem, state, seen)
        return new._replace(memory=new.memory._replace(is_given=jnp.zeros((), bool)))

    def _look(self, problem: Problem, state: State) -> tuple[Evidence, NewtonMemory]:
        """The Hessian here, and what it proves."""
        hess = problem.hess(state.theta)
        factor = factorise(hess, is_undecided(state))
        step = -factor.solve(state.grad)
        decrement = -vdot(state.grad, step) / 2
        at = Point(state.theta, state.value, state.grad, hess, jnp.zeros((), bool))
        evidence = _verdict(problem, at, factor, self.tol, decrement)
        is_idle = state.memory.idle >= _IDLE_STEPS
        stuck = is_idle & ~(decrement < state.memory.decrement / 2)
        evidence = with_status(evidence, stuck, Status.STALLED)
        no, none, idle = jnp.zeros((), bool), jnp.zeros_like(decrement), state.memory.idle
        return evidence, NewtonMemory(factor, state.theta, none, no, step, decrement, idle)

    def _moved(self, problem: Problem, state: State, seen: tuple[Evidence, NewtonMemory]) -> State:
        """The state after the moves, and what is proved there by the same Hessian."""
        evidence, memory = seen
        old = state._replace(evidence=evidence, memory=memory)
        new = _moves(problem, old, self.tol)
        known = _verdict_of_chords(problem, old, new, self.tol)
        undecided = is_undecided(old)
        evidence = jax.tree.map(partial(jnp.where, undecided), known, evidence)
        failed = undecided & ~new.accepted & ~memory.is_given  # a given one was only a try
        evidence = with_status(evidence, failed, Status.STALLED)
        falls = new.value < old.value - slack(old.value)
        memory = memory._replace(idle=jnp.where(falls, 0, memory.idle + 1))
        return State(new.theta, new.value, new.grad, evidence, memory)

    def newton_step(self, state: State) -> Array:
        """The one at the last Hessian: a chord says nothing of what moves for ever."""
        return state.memory.newton_step

    def finish(self, problem: Problem, fixed: None, state: State) -> State:
        """Take the step that proved convergence: it squares the error, for one more pass.

        By what is left of the gradient: the objective no longer tells the two points apart. A
        ridge may have moved the run along what `canonical` removes.
        """
        solve = state.memory.factor.solve
        step = solve(state.grad)
        theta = problem.canonical(state.theta - step)
        value, grad = problem.value_and_grad(theta)
        nearer = vdot(grad, solve(grad)) < vdot(state.grad, step)
        good = (state.evidence.status == Status.CONVERGED) & nearer & jnp.isfinite(value)
        return state._replace(
            theta=jnp.where(good, theta, problem.canonical(state.theta)),
            value=jnp.where(good, value, state.value),
            grad=jnp.where(good, grad, state.grad),
        )


def _beyond(problem: Problem, tol: Array | float | None, value: Array) -> Array:
    """Of gᵀH⁻¹g, twice the gap to first order: what moves aim at."""
    return 2 * _BEYOND[value.dtype.name] * tolerance(tol, value, problem.unit())


def _moves(problem: Problem, state: State, tol: Array | float | None) -> Move:
    """The Newton step, and quasi-Newton ones from there, while each squares what the last left."""
    factor, undecided = state.memory.factor, is_undecided(state)
    most = _most_moves(problem, state.theta)

    def left(at: At) -> Array:
        return vdot(at.move.grad, at.solved)

    def move(carry: tuple[At, Array, Array]) -> tuple[At, Array, Array]:
        at, _, count = carry
        new = step(problem, factor, at, undecided)
        accepted = new.move.accepted | (count > 0)  # the first move decides
        return new._replace(move=new.move._replace(accepted=accepted)), left(at), count + 1

    def useful(carry: tuple[At, Array, Array]) -> Array:
        at, before, count = carry
        enough = _beyond(problem, tol, at.move.value)
        again = at.move.accepted & (left(at) > enough) & (left(at) < _GOOD_RATIO * before)
        again &= jnp.isfinite(state.value)  # step 0 knows no Hessian
        return undecided & ((count == 0) | (again & (count < most)))

    one, infinite = jnp.ones((), state.theta.dtype), jnp.asarray(jnp.inf, state.theta.dtype)
    start = Move(state.theta, state.value, state.grad, jnp.ones((), bool), one)
    pairs = no_pairs(most, state.theta)
    at = At(start, factor.solve(state.grad), pairs, infinite)
    return jax.lax.while_loop(useful, move, (at, infinite, jnp.zeros((), jnp.int32)))[0].move


def _most_moves(problem: Problem, theta: Array) -> int:
    """How many moves a Hessian is used for: about as many as it costs itself, or as there are."""
    columns = max(1, len(theta) // max(1, problem.data.x.shape[-1]))
    few = theta.dtype == jnp.float64 and len(theta) <= _CHEAP * columns
    return _FEW_MOVES if few else _MOST_MOVES


def _verdict_of_chords(
    problem: Problem, old: State, new: Move, tol: Array | float | None
) -> Evidence:
    """CONVERGED where the Hessian before the moves is enough to prove it."""
    certificates, nothing = problem.certificates, no_verdict(new.theta)
    if certificates is None:
        return nothing
    factor, enough = old.memory.factor, tolerance(tol, new.value, problem.unit())

    def prove(new: Move) -> Array:
        moved = new.theta - old.memory.origin
        spread = old.memory.spread
        return certificates.chord_bound(
            problem, new.theta, new.value, new.grad, moved, factor, spread
        )

    near = vdot(new.grad, factor.solve(new.grad)) <= _beyond(problem, tol, new.value)
    near &= jnp.isfinite(old.value) & is_undecided(old)
    bound = only_if(near, prove, jnp.full_like(new.value, jnp.inf), new)
    is_good = bound <= enough
    return with_status(
        nothing._replace(gap=jnp.where(is_good, bound, jnp.inf)), is_good, Status.CONVERGED
    )


def _verdict(
    problem: Problem, at: Point, factor: Factor, tol: Array | float | None, decrement: Array
) -> Evidence:
    """What can be proved with the exact Hessian, where that may be enough or is wanted anyway."""
    certificates, enough = problem.certificates, tolerance(tol, at.value, problem.unit())
    if certificates is None:
        gap = whole = decrement  # to first order, and no bound
        noise = jnp.zeros_like(gap)
    else:
        at = at._replace(wanted=at.wanted | (decrement <= _NEAR_ENOUGH * enough))
        infinite = jnp.full_like(at.value, jnp.inf)
        gap, noise = only_if(
            at.wanted,
            lambda at: certificates.bound(problem, at, -factor.solve(at.grad), factor),
            (infinite, infinite),
            at,
        )
        whole = factor.beyond(together(gap, noise))
    evidence = no_verdict(at.theta)._replace(gap=whole)
    overflow = ~jnp.all(jnp.isfinite(factor.lower))
    evidence = with_status(evidence, overflow, Status.NON_FINITE)
    evidence = with_status(evidence, (gap <= enough) & factor.singular(), Status.SINGULAR)
    evidence = with_status(evidence, evidence.gap <= enough, Status.CONVERGED)
    drowned = (noise > enough) & (gap <= noise / 4) & jnp.isfinite(noise) & ~factor.singular()
    return with_status(evidence, drowned, Status.STALLED)  # no step can help


def judge(
    problem: Problem,
    result: Result,
    tol: Array | float | None,
) -> Evidence:
    """What the exact Hessian proves where a run ended, its own verdict where that is nothing."""
    hess = problem.hess(result.theta)
    factor = factorise(hess)
    step = -factor.solve(result.grad)
    decrement = -vdot(result.grad, step) / 2
    at = Point(result.theta, result.value, result.grad, hess, jnp.ones((), bool))
    evidence = _verdict(problem, at, factor, tol, decrement)
    zero = jnp.zeros((), jnp.int32)
    none = jnp.zeros_like(decrement)
    memory = NewtonMemory(factor, result.theta, none, zero > 0, step, decrement, zero)
    state = State(*at[:3], evidence, memory)
    state = checked(problem, state, no_optimum(problem))
    solver = newton(tol=tol)
    doubtful = is_doubtful(solver, problem, state)
    evidence = only_if(doubtful, lambda state: seek(solver, problem, state), state, state).evidence
    open_ = evidence.status == Status.MAX_STEPS
    return evidence._replace(status=jnp.where(open_, result.evidence.status, evidence.status))


def newton(*, tol: Array | float | None = None, max_steps: int = 100) -> Newton:
    """Newton's method with a line search, for `jaxprob.fit(..., solver=...)`.

    Args:
        tol: stop when the bound on f - f* is below it, in nats; 1e-12 in float64 and 1e-4 in
            float32 where None, and never below the rounding of the objective.
        max_steps: at most so many steps.

    Returns:
        A solver.

    Raises:
        ValueError: for a negative number of steps, or a tolerance that is negative or NaN.
        TypeError: for what is no number.

    Example:
        >>> newton(max_steps=20).max_steps
        20
    """
    return Newton(check_tolerance("tol", tol), check_count("max_steps", max_steps, least=0))
