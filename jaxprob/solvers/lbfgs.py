r"""L-BFGS on all rows, preconditioned by the exact Hessian of some of them.

For n much larger than p, one Hessian costs more than the rest of the fit. So Newton's method runs
on a few rows first. Its optimum is the start, and its Hessian H_S(θ₀), scaled to all rows, is the
metric M in which L-BFGS works. With m rows M differs from H by about √(p/m), and a step, one pass
over the data, shrinks the error by that factor.

The proof of convergence needs no further Hessian. Rows left out only add curvature, and that of the
subset changes by no more than e^ρ, ρ the largest change of a logit since θ₀, so with n/m = s

    H ⪰ e^(-ρ) M / s,        f - f* ≤ 0.614 e^ρ s gᵀM⁻¹g.

Where that bound stays too weak, the run ends STALLED or MAX_STEPS, and `jaxprob.fit` asks the exact
Hessian.

Source: Byrd, Chin, Neveitt and Nocedal, On the use of stochastic Hessian information in
optimization methods for machine learning, SIAM Journal on Optimization 21, 2011; Schnabel,
Quasi-Newton methods using multiple secant equations, University of Colorado CU-CS-247-83, 1983.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.base import Status
from jaxprob.models.certificates import KL_HALF
from jaxprob.solvers.driver import State, blank, slack, tolerance, with_status
from jaxprob.solvers.linalg import Factor, factorise
from jaxprob.solvers.linesearch import backtrack
from jaxprob.solvers.problem import Problem

_ROWS_PER_PARAM = 100
_CHORDS = 6  # steps with one Hessian of the subset
_IDLE_STEPS = 4
_MOST_ROUNDS = 8


class Fixed(NamedTuple):
    """What the subset of the rows gives."""

    subset: Problem
    anchor: Array  # (p,), θ₀
    metric: Factor  # of M
    ratio: Array  # (), s
    proper: Array  # (), whether rounding left the metric as it was computed


class Memory(NamedTuple):
    """The last pairs of moves and changes of the gradient, newest last, scaled; zeros if unused."""

    moves: Array  # (memory, p)
    changes: Array  # (memory, p)
    idle: Array  # ()


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tol"],
    meta_fields=["max_steps", "memory", "subset_rows", "subset_dtype"],
)
@dataclass(frozen=True)
class LBFGS:
    """Settings of `lbfgs`."""

    tol: Array | float | None
    max_steps: int
    memory: int
    subset_rows: int | None
    subset_dtype: str | None

    takes_l1 = False
    needs_proof = True

    def prepare(self, problem: Problem, theta: Array) -> tuple[Fixed, Array]:
        """Fit a subset of the rows, and keep its Hessian."""
        n, d = problem.data.x.shape
        rows = _ROWS_PER_PARAM * (d + 1) if self.subset_rows is None else self.subset_rows
        subset = problem.subset(min(n, rows))
        ratio = n / subset.data.x.shape[0]
        theta = problem.canonical(theta)
        if self.subset_dtype is not None:
            subset = subset.astype(self.subset_dtype)
        anchor, start, metric = _fit_subset(subset, theta.astype(subset.data.x.dtype))
        proper = metric.untouched()
        root = jnp.sqrt(ratio)
        metric = Factor(
            metric.lower.astype(theta.dtype),
            (metric.scale * root).astype(theta.dtype),
            metric.ridge.astype(theta.dtype),
        )
        finite = jnp.all(jnp.isfinite(start))
        start = jnp.where(finite, start.astype(theta.dtype), theta)
        return Fixed(subset, anchor, metric, jnp.asarray(ratio, theta.dtype), proper), start

    def init(self, problem: Problem, fixed: Fixed, theta: Array) -> State:
        """Nothing known yet."""
        none = jnp.zeros((self.memory, len(theta)), theta.dtype)
        return blank(theta, Memory(none, none, jnp.zeros((), jnp.int32)))

    def step(self, problem: Problem, fixed: Fixed, state: State, k: Array) -> State:
        """Move along the quasi-Newton direction, then bound the distance to the optimum."""
        memory = state.memory
        move = -_inverse(fixed.metric, memory, state.grad)
        slope = jnp.vdot(state.grad, move)
        new = backtrack(problem, state.theta, state.value, state.grad, move, slope)
        s, y = new.theta - state.theta, new.grad - state.grad
        curvature = jnp.vdot(s, y)
        keep = new.accepted & (k > 0) & (curvature > 0)
        root = jnp.sqrt(jnp.where(keep, curvature, 1.0))

        def remember(old: Array, new: Array) -> Array:
            return jnp.where(keep, jnp.roll(old, -1, axis=0).at[-1].set(new / root), old)

        moves, changes = remember(memory.moves, s), remember(memory.changes, y)
        gap, close = self._bound(problem, fixed, new.theta, new.value, new.grad)
        falls = (new.value < state.value - slack(state.value)) | (k == 0)
        idle = jnp.where(falls, 0, memory.idle + 1)
        stuck = ~new.accepted | ((idle >= _IDLE_STEPS) & ~(gap < state.evidence.gap / 2))
        evidence = with_status(state.evidence._replace(gap=gap), close, Status.CONVERGED)
        evidence = with_status(evidence, stuck, Status.STALLED)
        return State(new.theta, new.value, new.grad, evidence, Memory(moves, changes, idle))

    def finish(self, problem: Problem, fixed: Fixed, state: State) -> State:
        """Nothing to add."""
        return state._replace(theta=problem.canonical(state.theta))

    def _bound(
        self, problem: Problem, fixed: Fixed, theta: Array, value: Array, grad: Array
    ) -> tuple[Array, Array]:
        """A bound on f - f*, and whether it and its condition hold to the tolerance."""
        proofs = problem.model.certificates
        if proofs is None:
            gap = jnp.vdot(grad, fixed.metric.solve(grad)) / 2
            return gap, gap <= tolerance(self.tol, value)
        moved = (theta - fixed.anchor).astype(fixed.anchor.dtype)
        rho = proofs.logit_range(moved, fixed.subset).astype(theta.dtype)
        decrement = jnp.exp(rho) * fixed.ratio * jnp.vdot(grad, fixed.metric.solve(grad))
        gap = KL_HALF * decrement

        def holds() -> Array:
            return decrement <= proofs.least_mass(theta, problem) / 4  # every |e| <= 1/2

        small = (gap <= tolerance(self.tol, value)) & fixed.proper
        return gap, jax.lax.cond(small, holds, lambda: jnp.zeros((), bool))


class _Subset(NamedTuple):
    theta: Array
    value: Array
    grad: Array
    anchor: Array
    factor: Factor
    decrement: Array


def _fit_subset(problem: Problem, theta: Array) -> tuple[Array, Array, Factor]:
    """Newton's method with a few steps for each Hessian: a point, a better one, the factor there.

    Fitting the subset more closely than its optimum is to that of all rows would be wasted.
    """
    p, zero = len(theta), jnp.zeros((), theta.dtype)
    unknown = Factor(jnp.eye(p, dtype=theta.dtype), jnp.ones_like(theta), zero)
    infinite = jnp.asarray(jnp.inf, theta.dtype)

    def chord(_: Array, s: _Subset) -> _Subset:
        move = -s.factor.solve(s.grad)
        slope = jnp.vdot(s.grad, move)
        new = backtrack(problem, s.theta, s.value, s.grad, move, slope)
        return s._replace(theta=new.theta, value=new.value, grad=new.grad, decrement=-slope)

    def body(carry: tuple[_Subset, Array]) -> tuple[_Subset, Array]:
        s, k = carry
        # The first round has no Hessian yet: its one chord goes nowhere and finds the gradient.
        s = jax.lax.fori_loop(0, jnp.where(k == 0, 1, _CHORDS), chord, s)
        far = (k == 0) | (s.decrement > 1e-3 * p)
        fresh = jax.lax.cond(far, lambda: factorise(problem.hess(s.theta)), lambda: s.factor)
        anchor = jnp.where(far, s.theta, s.anchor)
        stop = jnp.where(far, k + 1, _MOST_ROUNDS)
        return s._replace(factor=fresh, anchor=anchor), stop

    start = _Subset(theta, infinite, jnp.zeros_like(theta), theta, unknown, infinite)
    s, _ = jax.lax.while_loop(
        lambda c: c[1] < _MOST_ROUNDS, body, (start, jnp.zeros((), jnp.int32))
    )
    return s.anchor, s.theta, s.factor


def _inverse(metric: Factor, memory: Memory, v: Array) -> Array:
    """The inverse Hessian that the metric and all remembered pairs make, times a vector.

    With S the moves and Y = H S the changes it is the block BFGS update

        S (SᵀY)⁻¹ Sᵀ + (I - S (SᵀY)⁻¹ Yᵀ) M⁻¹ (I - Y (SᵀY)⁻¹ Sᵀ),

    which minimises exactly over the span of S, as conjugate gradients do; the usual recursion
    meets only the newest pair exactly, and takes half as many steps again.
    """
    s, y = memory.moves, memory.changes
    products = s @ y.T
    unused = jnp.diag(products) <= 0
    gram = (products + products.T) / 2 + jnp.diag(unused.astype(v.dtype))
    pairs = factorise(gram)
    alpha = pairs.solve(s @ v)
    w = metric.solve(v - alpha @ y)
    inverse = w + (alpha - pairs.solve(y @ w)) @ s
    plain = metric.solve(v)
    return jnp.where(jnp.vdot(v, inverse) > 0, inverse, plain)


def lbfgs(
    *,
    tol: Array | float | None = None,
    max_steps: int = 200,
    memory: int = 3,
    subset_rows: int | None = None,
    subset_dtype: str | None = None,
) -> LBFGS:
    """L-BFGS in the metric of a subset of the rows, for `jaxprob.fit(..., solver=...)`.

    Args:
        tol: stop when the bound on f - f* is below it, in nats; 1e-8 in float64 and 1e-4 in
            float32 where None, and never below the rounding of the objective.
        max_steps: at most so many steps, each a pass over the data.
        memory: how many past steps to keep.
        subset_rows: how many rows give the start and the metric; 100 per feature where None.
        subset_dtype: in which to compute the metric, "float32" or "float64"; that of the data where
            None. In float32 it takes half the time, and is useless for badly conditioned data.

    Returns:
        A solver.

    Example:
        >>> lbfgs(memory=5).memory
        5
    """
    return LBFGS(tol, max_steps, memory, subset_rows, subset_dtype)
