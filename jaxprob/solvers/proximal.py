r"""Proximal Newton: for an l1 penalty, whose optimum has exact zeros.

From θ, with gradient g and Hessian H of the smooth part, the step minimises

    gᵀδ + ½ δᵀHδ + l1 ‖w + δ_w‖₁

by coordinate descent, each coordinate a soft threshold; it is halved until the objective falls.
Where features are nearly collinear, as uncentred ones are with the bias, coordinate descent alone
crawls. So each sweep is followed by the Newton step of this quadratic among the coordinates that
are not zero, with their signs held, as far as the first that would change its sign.

Source: Lee, Sun and Saunders, Proximal Newton-type methods for minimizing composite functions, SIAM
Journal on Optimization 24, 2014; Friedman, Hastie and Tibshirani, Regularization paths for
generalized linear models via coordinate descent, Journal of Statistical Software 33, 2010; Lee,
Battle, Raina and Ng, Efficient sparse coding algorithms, Advances in Neural Information Processing
Systems 19, 2006.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Point, Status, Trait
from jaxprob.models.regression.certificates import together
from jaxprob.numerics.linalg import factorise
from jaxprob.numerics.products import matmul, vdot
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import (
    State,
    blank,
    is_undecided,
    no_verdict,
    slack,
    tolerance,
    with_status,
)
from jaxprob.solvers.linesearch import backtrack
from jaxprob.solvers.settings import check_count, check_tolerance

_IDLE_STEPS = 4
_MOST_SWEEPS = 200


class ProximalMemory(NamedTuple):
    """The next step, what it promises, and for how many steps nothing improved."""

    move: Array
    slope: Array
    idle: Array


@partial(jax.tree_util.register_dataclass, data_fields=["tol"], meta_fields=["max_steps"])
@dataclass(frozen=True)
class Proximal:
    """Settings of `proximal`."""

    tol: Array | float | None
    max_steps: int

    recentres = True
    sums = True
    needs = Trait.SMOOTH | Trait.PENALISED
    takes_known = False
    takes_start = True
    takes_l1 = True
    proof = None
    takes_plain_steps = False
    trains = False

    def prepare(self, problem: Problem, theta: Array) -> tuple[None, Array]:
        """Nothing to prepare."""
        return None, problem.canonical(theta)

    def init(self, problem: Problem, fixed: None, theta: Array) -> State:
        """No step: step 0 goes nowhere and looks."""
        zero = jnp.zeros((), theta.dtype)
        return blank(theta, ProximalMemory(jnp.zeros_like(theta), zero, jnp.zeros((), jnp.int32)))

    def start(self, problem: Problem, fixed: None, theta: Array, known: Known | None) -> State:
        """The state after step 0."""
        return self.step(problem, fixed, self.init(problem, fixed, theta), jnp.int32(0))

    def step(self, problem: Problem, fixed: None, state: State, k: Array) -> State:
        """Move along the proximal Newton step, then compute the next one and what it proves."""
        old = state.memory
        start = state.theta, state.value, state.grad
        undecided = is_undecided(state)
        new = backtrack(problem, *start, old.move, old.slope, smooth=False, wanted=undecided)
        h = problem.curvature(new.theta)  # l1 decides where the likelihood is flat
        move = _quadratic_minimiser(problem, new.theta, new.grad, h)
        slope = vdot(new.grad, move) + problem.penalty(new.theta + move)
        slope = slope - problem.penalty(new.theta)
        proofs = problem.certificates
        if proofs is None:
            evidence = no_verdict(new.theta)._replace(gap=-slope)
        else:
            factor = factorise(h)
            at = Point(new.theta, new.value, new.grad, h, jnp.ones((), bool))
            gap = together(*proofs.bound(problem, at, move, factor))
            evidence = no_verdict(new.theta)._replace(gap=gap)
        close = evidence.gap <= tolerance(self.tol, new.value, problem.unit())
        falls = (new.value < state.value - slack(state.value)) | (k == 0)
        idle = jnp.where(falls, 0, old.idle + 1)
        stuck = ~new.accepted | ((idle >= _IDLE_STEPS) & ~(evidence.gap < state.evidence.gap / 2))
        evidence = with_status(evidence, ~jnp.all(jnp.isfinite(h)), Status.NON_FINITE)
        evidence = with_status(evidence, close, Status.CONVERGED)
        evidence = with_status(evidence, stuck, Status.STALLED)
        return State(new.theta, new.value, new.grad, evidence, ProximalMemory(move, slope, idle))

    def newton_step(self, state: State) -> Array:
        """The next step."""
        return state.memory.move

    def finish(self, problem: Problem, fixed: None, state: State) -> State:
        """Nothing to add."""
        return state


def _quadratic_minimiser(problem: Problem, theta: Array, grad: Array, h: Array) -> Array:
    """The step that minimises the quadratic model with its l1 term, to rounding."""
    diagonal = jnp.diag(h)
    curvature = jnp.where(diagonal > 0, diagonal, 1.0)
    shrinkage = problem.shrinkage()
    threshold = shrinkage / curvature
    eps = jnp.finfo(theta.dtype).eps

    def coordinate(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, slope, most = carry  # slope = grad + H (w - theta)
        to = w[j] - slope[j] / curvature[j]
        to = jnp.sign(to) * jnp.maximum(jnp.abs(to) - threshold[j], 0.0)
        change = to - w[j]
        gain = jnp.abs(change) * jnp.sqrt(curvature[j])
        return w.at[j].set(to), slope + h[j] * change, jnp.maximum(most, gain)

    def among_nonzero(w: Array) -> Array:
        """The minimiser with the signs of w, or the point on the way where one changes."""
        sign = jnp.where(shrinkage > 0, jnp.sign(w), 0.0)
        active = (shrinkage == 0) | (w != 0)
        inside = jnp.where(active[:, None] & active[None, :], h, 0.0)
        regular = jnp.where(active, jnp.sqrt(eps) * curvature, 1.0)
        slope = jnp.where(active, grad + matmul(h, w - theta) + shrinkage * sign, 0.0)
        step = -factorise(inside + jnp.diag(regular)).solve(slope)
        room = jnp.where(sign * step < 0, -w / jnp.where(step == 0, 1.0, step), jnp.inf)
        length = jnp.minimum(1.0, jnp.min(room))
        new = jnp.where(room <= length, 0.0, w + length * step)
        return jnp.where(jnp.all(jnp.isfinite(new)), new, w)

    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, _, count = carry
        w = among_nonzero(w)
        zero = jnp.zeros((), theta.dtype)
        slope = grad + matmul(h, w - theta)
        w, _, most = jax.lax.fori_loop(0, len(theta), coordinate, (w, slope, zero))
        return w, most, count + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        w, most, count = carry
        size = jnp.sqrt(jnp.sum(curvature * w**2))
        return (most > 4 * eps * size) & (count < _MOST_SWEEPS)

    start = (theta, jnp.asarray(jnp.inf, theta.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, sweep, start)[0] - theta


def proximal(*, tol: Array | float | None = None, max_steps: int = 100) -> Proximal:
    """Proximal Newton, for `jaxprob.fit(..., l1=..., solver=...)`.

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
        >>> proximal(max_steps=20).max_steps
        20
    """
    return Proximal(check_tolerance("tol", tol), check_count("max_steps", max_steps, least=0))
