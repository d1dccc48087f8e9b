"""Newton's method, damped: an exact Hessian each step, and a proof at the end.

From θ, with gradient g and Hessian H, the step is δ = -H⁻¹g (iteratively reweighted least squares),
halved until the objective falls. It converges from every start where a finite optimum exists,
quadratically in the end, and never increases the objective beyond rounding on any input. Each
Hessian costs n p² operations, so this is the method for small p, or for n not much larger than p.
A Hessian is used for further, cheap moves while each leaves a quarter of the last one's promise or
less: from an error e, Newton's move leaves e², and each further one a factor e less.

Source: Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5; Kelley, Iterative Methods for
Linear and Nonlinear Equations, 1995, section 5.4.3 (Shamanskii).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.base import Evidence, Status
from jaxprob.solvers.driver import State, blank, no_verdict, slack, tolerance, with_status
from jaxprob.solvers.linalg import Factor, factorise, no_factor
from jaxprob.solvers.linesearch import Move, backtrack
from jaxprob.solvers.problem import Problem

_MOST_MOVES = 4  # with one Hessian
_IDLE_STEPS = 4  # without progress, in the objective or in the bound, before a run has stalled


class Memory(NamedTuple):
    """Newton's own: the factor of the Hessian, and for how many steps nothing improved."""

    factor: Factor
    idle: Array


@partial(jax.tree_util.register_dataclass, data_fields=["tol"], meta_fields=["max_steps"])
@dataclass(frozen=True)
class Newton:
    """Settings of `newton`."""

    tol: Array | float | None
    max_steps: int

    takes_l1 = False
    needs_proof = False

    def prepare(self, problem: Problem, theta: Array) -> tuple[None, Array]:
        """Nothing to prepare."""
        return None, problem.canonical(theta)

    def init(self, problem: Problem, fixed: None, theta: Array) -> State:
        """No step, from an unknown value: step 0 goes nowhere and looks."""
        return blank(theta, Memory(no_factor(theta), jnp.zeros((), jnp.int32)))

    def step(self, problem: Problem, fixed: None, state: State, k: Array) -> State:
        """Move with the Hessian at hand, then compute the next one and what it proves."""
        new = _moves(problem, state)
        factor = factorise(problem.hess(new.theta))
        evidence = judge(problem, new.theta, new.value, new.grad, factor, self.tol, k % 3 == 2)
        falls = (new.value < state.value - slack(state.value)) | (k == 0)
        idle = jnp.where(falls, 0, state.memory.idle + 1)
        stuck = ~new.accepted | ((idle >= _IDLE_STEPS) & ~(evidence.gap < state.evidence.gap / 2))
        evidence = with_status(evidence, stuck, Status.STALLED)
        return State(new.theta, new.value, new.grad, evidence, Memory(factor, idle))

    def finish(self, problem: Problem, fixed: None, state: State) -> State:
        """Take the step that proved convergence: it squares the error, for one more pass.

        By what is left of the gradient: the objective no longer tells the two points apart.
        """
        solve = state.memory.factor.solve
        step = solve(state.grad)
        theta = state.theta - step
        value, grad = problem.value_and_grad(theta)
        nearer = jnp.vdot(grad, solve(grad)) < jnp.vdot(state.grad, step)
        good = (state.evidence.status == Status.CONVERGED) & nearer & jnp.isfinite(value)
        return state._replace(
            theta=jnp.where(good, theta, state.theta),
            value=jnp.where(good, value, state.value),
            grad=jnp.where(good, grad, state.grad),
        )


def _moves(problem: Problem, state: State) -> Move:
    """The Newton step, and further ones with the same Hessian while they promise ever less."""
    factor = state.memory.factor

    def move(carry: tuple[Move, Array, Array, Array]) -> tuple[Move, Array, Array, Array]:
        at, _, promise, count = carry
        step = -factor.solve(at.grad)
        slope = jnp.vdot(at.grad, step)
        new = backtrack(problem, at.theta, at.value, at.grad, step, slope)
        new = new._replace(accepted=new.accepted | (count > 0))  # the first move decides
        return new, promise, -slope, count + 1

    def useful(carry: tuple[Move, Array, Array, Array]) -> Array:
        at, before, promise, count = carry
        again = at.accepted & (promise < before / 4) & (promise > slack(at.value))
        return (count == 0) | (again & (count < _MOST_MOVES))

    infinite = jnp.asarray(jnp.inf, state.theta.dtype)
    one = jnp.ones((), state.theta.dtype)
    start = Move(state.theta, state.value, state.grad, jnp.ones((), bool), one)
    carry = (start, infinite, infinite, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(useful, move, carry)[0]


def judge(
    problem: Problem,
    theta: Array,
    value: Array,
    grad: Array,
    factor: Factor,
    tol: Array | float | None,
    thorough: Array | bool = True,
) -> Evidence:
    """What can be proved at theta with the exact Hessian there."""
    certificates = problem.model.certificates
    if certificates is None:
        # Half the Newton decrement: the gap to first order, an estimate and no bound.
        gap = jnp.vdot(grad, factor.solve(grad)) / 2
        evidence = no_verdict(theta)._replace(gap=gap)
    else:
        step = -factor.solve(grad)
        evidence = certificates.diagnose(problem, theta, grad, step, factor.solve, thorough)
    overflow = ~jnp.all(jnp.isfinite(factor.lower))
    evidence = with_status(evidence, overflow, Status.NON_FINITE)
    close = evidence.gap <= tolerance(tol, value)
    evidence = with_status(evidence, close & factor.singular(), Status.SINGULAR)
    return with_status(evidence, close, Status.CONVERGED)


def newton(*, tol: Array | float | None = None, max_steps: int = 100) -> Newton:
    """Newton's method with a line search, for `jaxprob.fit(..., solver=...)`.

    Args:
        tol: stop when the bound on f - f* is below it, in nats; 1e-12 in float64 and 1e-4 in
            float32 where None, and never below the rounding of the objective.
        max_steps: at most so many steps.

    Returns:
        A solver.

    Example:
        >>> newton(max_steps=20).max_steps
        20
    """
    return Newton(tol, max_steps)
