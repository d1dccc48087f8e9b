r"""L-BFGS on all rows, preconditioned by the exact Hessian of some of them.

For n much larger than p, one Hessian costs more than the rest of the fit. So Newton's method runs
on a few rows first, its first Hessian taken from yet fewer. Its optimum is the start, and its
Hessian H_S(θ₀), scaled to all rows, is the metric M in which L-BFGS works. With m rows M differs
from H by about √(p/m), and a step, one pass over the data, shrinks the error by that factor.

The proof of convergence needs no further Hessian. Rows left out only add curvature, and that of the
subset changes by no more than e^ρ, ρ the largest change of a logit since θ₀, so with n/m = s

    H ⪰ e^(-ρ) M / s,        f - f* ≤ 0.614 e^ρ s gᵀM⁻¹g,

as long as no |e_ik| exceeds 1/2, which one more pass at the end makes sure of (see
`jaxprob.models.certificates`).
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
_COARSE = 4  # times fewer rows for the first Hessian, far from the optimum
_CHORDS = 6  # steps with one Hessian of the subset
_IDLE_STEPS = 4
_MOST_ROUNDS = 10


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
        proper = metric.untouched() & ~metric.singular()
        root = jnp.sqrt(ratio)
        metric = Factor(
            metric.lower.astype(theta.dtype),
            (metric.scale * root).astype(theta.dtype),
            metric.ridge.astype(theta.dtype),
        )
        finite = jnp.all(jnp.isfinite(start))
        start = jnp.where(finite, start.astype(theta.dtype), theta)
        ratio = jnp.asarray(ratio, theta.dtype)
        return Fixed(subset, anchor, metric, ratio, proper), start

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
    """Where the fit of the subset is; value and gradient are unknown at first in each stage."""

    theta: Array
    value: Array
    grad: Array
    decrement: Array
    anchor: Array
    factor: Factor


class _Staged(NamedTuple):
    """One problem until `fine` is true, another from then on, as `backtrack` sees them."""

    first: Problem
    second: Problem
    fine: Array

    def value_and_grad(self, theta: Array) -> tuple[Array, Array]:
        return jax.lax.cond(self.fine, self.second.value_and_grad, self.first.value_and_grad, theta)

    def penalty(self, theta: Array) -> Array:
        return self.second.penalty(theta)


def _fit_subset(problem: Problem, theta: Array) -> tuple[Array, Array, Factor]:
    """Newton's method with a few steps for each Hessian: a point, a better one, the factor there.

    The first three Hessians are of yet fewer rows, and so are the steps before the third. Fitting
    the subset more closely than its optimum is to that of all rows would be wasted.
    """
    p, zero = len(theta), jnp.zeros((), theta.dtype)
    coarse = problem.subset(-(-problem.data.x.shape[0] // _COARSE))
    share = problem.data.x.shape[0] / coarse.data.x.shape[0]
    infinite = jnp.asarray(jnp.inf, theta.dtype)
    close = jnp.asarray(1e-2 * p, theta.dtype)

    def chord(fine: Array, carry: tuple[_Subset, Array]) -> tuple[_Subset, Array]:
        s, count = carry
        move = -s.factor.solve(s.grad)
        slope = jnp.vdot(s.grad, move)
        staged = _Staged(coarse, problem, fine)
        new = backtrack(staged, s.theta, s.value, s.grad, move, slope)
        # Where the gradient was unknown, the step was zero and has only found it.
        decrement = jnp.where(jnp.isinf(s.value), infinite, -slope)
        s = s._replace(theta=new.theta, value=new.value, grad=new.grad, decrement=decrement)
        return s, count + 1

    def body(carry: tuple[_Subset, Array]) -> tuple[_Subset, Array]:
        s, k = carry
        fine = k >= 3
        most = jnp.where(fine, _CHORDS, jnp.where(k == 0, 1, 2))
        s, _ = jax.lax.while_loop(
            lambda c: (c[1] < most) & (c[0].decrement > close),
            partial(chord, fine),
            (s, jnp.zeros((), jnp.int32)),
        )
        far = (k <= 3) | (s.decrement > close)

        def new_factor() -> Factor:
            hess = jax.lax.cond(fine, problem.hess, coarse.hess, s.theta)
            return factorise(hess * jnp.where(k == 2, share, 1.0))  # for all rows from then on

        s = s._replace(
            value=jnp.where(k == 2, infinite, s.value),
            grad=jnp.where(k == 2, 0.0, s.grad),
            decrement=infinite,
            anchor=jnp.where(far, s.theta, s.anchor),
            factor=jax.lax.cond(far, new_factor, lambda: s.factor),
        )
        return s, jnp.where(far, k + 1, _MOST_ROUNDS)

    unknown = Factor(jnp.eye(p, dtype=theta.dtype), jnp.ones_like(theta), zero)
    start = _Subset(theta, infinite, jnp.zeros_like(theta), infinite, theta, unknown)
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
        tol: stop when the bound on f - f* is below it, in nats; 1e-9 in float64 and 1e-4 in
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
