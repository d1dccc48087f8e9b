r"""L-BFGS on all rows, preconditioned by the exact Hessian of some of them.

For n much larger than p, one Hessian costs more than the rest of the fit. So a sample of the rows
is fitted first, itself by L-BFGS, in the metric of a Hessian of a part of it at the start. Its
optimum θ₀ is the start on all rows, and its Hessian H_S(θ₀), scaled to all rows, the metric M
there. With m rows M differs from H by about √(p/m), and a step, one pass over the data, shrinks the
error by that factor.

The proof of convergence needs no further Hessian. Rows left out only add curvature, and that of the
sample changes by no more than e^ρ, ρ the largest change of a logit since θ₀, so with n/m = s

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
from jax.scipy.linalg import cho_solve

from jaxprob.models.base import Evidence, Status
from jaxprob.models.certificates import KL_HALF
from jaxprob.solvers.driver import State, blank, slack, tolerance, with_status
from jaxprob.solvers.linalg import Factor, factorise, no_factor
from jaxprob.solvers.linesearch import Move, backtrack
from jaxprob.solvers.problem import Problem

_ROWS_PER_PARAM = 100
_PARTS = 4  # of the sample, of which the first Hessian, far from the optimum, takes one
_STEPS = 16  # on the sample with one Hessian
_MOST_HESSIANS = 8
_IDLE_STEPS = 4
_RIDGE = 1e-2  # on SᵀY of unit diagonal, which is no Gram matrix where the curvature changes
_STALE = 0.25  # the asymmetry of SᵀY, zero under one Hessian, at which curvature has changed


class Sample(NamedTuple):
    """The sum of several problems, each on a part of some rows, stacked."""

    parts: Problem

    def part(self, i: Array | int) -> Problem:
        """One of the problems."""
        return jax.tree.map(lambda a: a[i], self.parts)

    def num_parts(self) -> int:
        """How many there are."""
        return self.parts.data.x.shape[0]

    def value_and_grad(self, theta: Array) -> tuple[Array, Array]:
        """The sum of the objectives () and its gradient (p,)."""
        values, grads = jax.lax.map(lambda part: part.value_and_grad(theta), self.parts)
        return jnp.sum(values), jnp.sum(grads, axis=0)

    def penalty(self, theta: Array) -> Array:
        """None beside l2."""
        return jnp.zeros((), theta.dtype)

    def hess(self, theta: Array, count: Array) -> Array:
        """The Hessian (p, p) of the sum as the first few parts see it."""
        zero = jnp.zeros((len(theta), len(theta)), theta.dtype)
        total = jax.lax.fori_loop(0, count, lambda i, h: h + self.part(i).hess(theta), zero)
        return total * (self.num_parts() / count).astype(theta.dtype)

    def logit_range(self, step: Array) -> Array:
        """The furthest that a step moves a logit of any part."""
        proofs = self.parts.model.certificates
        assert proofs is not None  # see `LBFGS._prove`
        return jnp.max(jax.lax.map(lambda part: proofs.logit_range(step, part), self.parts))


class Fixed(NamedTuple):
    """What the sample gives."""

    sample: Sample
    anchor: Array  # (p,), θ₀
    metric: Factor  # of M
    ratio: Array  # (), s
    proper: Array  # (), whether rounding left the metric as it was computed


class Pairs(NamedTuple):
    """The last moves s and changes y of the gradient, newest last, sᵀy = 1; zeros if unused."""

    moves: Array  # (memory, p)
    changes: Array  # (memory, p)
    solved: Array  # (memory, p), M⁻¹ y

    def inverse(self, v: Array, solved: Array) -> Array:
        """The inverse Hessian that the metric and all pairs make, times v, given M⁻¹ v.

        With S the moves and Y = H S the changes it is the block BFGS update

            S (SᵀY)⁻¹ Sᵀ + (I - S (SᵀY)⁻¹ Yᵀ) M⁻¹ (I - Y (SᵀY)⁻¹ Sᵀ),

        which minimises exactly over the span of S, as conjugate gradients do; the usual recursion
        meets only the newest pair exactly, and takes half as many steps again. Where curvature
        changed so much that SᵀY is not positive, it is M⁻¹.
        """
        s, y = self.moves, self.changes
        products = s @ y.T
        ridge = jnp.where(jnp.diag(products) > 0, _RIDGE, 1.0).astype(v.dtype)
        lower = jnp.linalg.cholesky(products + jnp.diag(ridge), symmetrize_input=True)
        alpha = cho_solve((lower, True), s @ v)
        w = solved - alpha @ self.solved
        inverse = w + (alpha - cho_solve((lower, True), y @ w)) @ s
        return jnp.where(jnp.all(jnp.isfinite(inverse)), inverse, solved)

    def updated(self, move: Array, change: Array, solved: Array, good: Array) -> "Pairs":
        """With one more pair and M⁻¹ times its change, if it is good and has curvature.

        Older pairs that see another Hessian than it does are dropped.
        """
        curvature = jnp.vdot(move, change)
        keep = good & (curvature > 0)
        newest = jnp.stack([move, change, solved])[:, None]
        newest = newest / jnp.sqrt(jnp.where(keep, curvature, 1.0))
        asymmetry = jnp.abs(self.moves @ newest[1, 0] - self.changes @ newest[0, 0])
        stale = keep & (asymmetry > _STALE)
        old = jnp.where(stale[:, None], 0.0, jnp.stack(self))
        return Pairs(*jnp.where(keep, jnp.concatenate([old[:, 1:], newest], axis=1), old))


def _no_pairs(memory: int, theta: Array) -> Pairs:
    return Pairs(*jnp.zeros((3, memory, len(theta)), theta.dtype))


class At(NamedTuple):
    """Where an L-BFGS run is: a point, M⁻¹ g there, the pairs, and what the last step promised."""

    move: Move
    solved: Array  # (p,)
    pairs: Pairs
    promise: Array  # (), the slope along the step, negated; infinite before the first


def _step(objective: Problem | Sample, metric: Factor, at: At) -> At:
    """One L-BFGS step. From an unknown value, which is infinite, it only looks."""
    old = at.move
    step = -at.pairs.inverse(old.grad, at.solved)
    slope = jnp.vdot(old.grad, step)
    new = backtrack(objective, old.theta, old.value, old.grad, step, slope)
    solved = metric.solve(new.grad)
    known = jnp.isfinite(old.value)
    pairs = at.pairs.updated(
        new.theta - old.theta, new.grad - old.grad, solved - at.solved, new.accepted & known
    )
    return At(new, solved, pairs, jnp.where(known, -slope, jnp.inf))


class Memory(NamedTuple):
    """L-BFGS's own: M⁻¹ g, the pairs, and how the bound and the objective have come along."""

    solved: Array  # (p,)
    pairs: Pairs
    bound: Array  # (), on f - f*, were its conditions met
    idle: Array  # (), steps without progress


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tol"],
    meta_fields=["max_steps", "memory", "sample_rows", "sample_dtype"],
)
@dataclass(frozen=True)
class LBFGS:
    """Settings of `lbfgs`."""

    tol: Array | float | None
    max_steps: int
    memory: int
    sample_rows: int | None
    sample_dtype: str | None

    takes_l1 = False
    needs_proof = True

    def prepare(self, problem: Problem, theta: Array) -> tuple[Fixed, Array]:
        """Fit a sample of the rows, and keep its Hessian."""
        n, d = problem.data.x.shape
        rows = _ROWS_PER_PARAM * (d + 1) if self.sample_rows is None else self.sample_rows
        parts = problem.sample(rows, _PARTS)
        ratio = jnp.asarray(n / parts.data.y.size, theta.dtype)
        sample = Sample(parts if self.sample_dtype is None else parts.astype(self.sample_dtype))
        theta = problem.canonical(theta)
        anchor, start, metric = self._fit(sample, theta.astype(sample.parts.data.x.dtype))
        proper = metric.untouched() & ~metric.singular()
        metric = jax.tree.map(lambda a: a.astype(theta.dtype), metric)
        metric = metric._replace(scale=metric.scale * jnp.sqrt(ratio))
        start = jnp.where(jnp.all(jnp.isfinite(start)), start.astype(theta.dtype), theta)
        return Fixed(sample, anchor, metric, ratio, proper), start

    def _fit(self, sample: Sample, theta: Array) -> tuple[Array, Array, Factor]:
        """L-BFGS with a few Hessians: where the last one is from, a better point, its factor.

        Fitting the sample more closely than its optimum is to that of all rows would be wasted.
        """
        close = jnp.asarray(1e-2 * len(theta), theta.dtype)

        def unfinished(carry: tuple[At, Array]) -> Array:
            at, count = carry
            return (count < _STEPS) & (at.promise > close) & at.move.accepted

        def with_new_metric(carry: tuple[At, Array, Factor, Array]) -> tuple:
            at, _, _, k = carry
            anchor, move = at.move.theta, at.move._replace(accepted=jnp.ones((), bool))
            metric = factorise(sample.hess(anchor, jnp.where(k == 0, 1, sample.num_parts())))
            none = _no_pairs(self.memory, anchor)
            at = At(move, metric.solve(move.grad), none, jnp.full_like(at.promise, jnp.inf))
            at, _ = jax.lax.while_loop(
                unfinished,
                lambda c: (_step(sample, metric, c[0]), c[1] + 1),
                (at, jnp.zeros((), jnp.int32)),
            )
            fitted = (k > 0) & ((at.promise <= close) | ~at.move.accepted)
            return at, anchor, metric, jnp.where(fitted, _MOST_HESSIANS, k + 1)

        infinite = jnp.asarray(jnp.inf, theta.dtype)
        move = Move(theta, infinite, jnp.zeros_like(theta), jnp.ones((), bool), infinite)
        at = At(move, jnp.zeros_like(theta), _no_pairs(self.memory, theta), infinite)
        at, anchor, metric, _ = jax.lax.while_loop(
            lambda c: c[3] < _MOST_HESSIANS,
            with_new_metric,
            (at, theta, no_factor(theta), jnp.zeros((), jnp.int32)),
        )
        return anchor, at.move.theta, metric

    def init(self, problem: Problem, fixed: Fixed, theta: Array) -> State:
        """Nothing known yet."""
        infinite = jnp.asarray(jnp.inf, theta.dtype)
        pairs = _no_pairs(self.memory, theta)
        return blank(
            theta, Memory(jnp.zeros_like(theta), pairs, infinite, jnp.zeros((), jnp.int32))
        )

    def step(self, problem: Problem, fixed: Fixed, state: State, k: Array) -> State:
        """Move along the quasi-Newton direction, then bound the distance to the optimum."""
        memory, one = state.memory, jnp.ones((), state.theta.dtype)
        old = Move(state.theta, state.value, state.grad, one > 0, one)
        at = _step(problem, fixed.metric, At(old, memory.solved, memory.pairs, one))
        new = at.move
        bound = KL_HALF * fixed.ratio * jnp.vdot(new.grad, at.solved)
        falls = (new.value < state.value - slack(state.value)) | (k == 0)
        idle = jnp.where(falls, 0, memory.idle + 1)
        stuck = ~new.accepted | ((idle >= _IDLE_STEPS) & ~(bound < memory.bound / 2))
        evidence = self._prove(problem, fixed, new, bound, state.evidence)
        evidence = with_status(evidence, stuck, Status.STALLED)
        memory = Memory(at.solved, at.pairs, bound, idle)
        return State(new.theta, new.value, new.grad, evidence, memory)

    def finish(self, problem: Problem, fixed: Fixed, state: State) -> State:
        """Nothing to add."""
        return state._replace(theta=problem.canonical(state.theta))

    def _prove(
        self, problem: Problem, fixed: Fixed, at: Move, bound: Array, evidence: Evidence
    ) -> Evidence:
        """CONVERGED where the bound is small and its conditions are met."""
        proofs = problem.model.certificates
        small = (bound <= tolerance(self.tol, at.value)) & fixed.proper
        if proofs is None:
            return with_status(evidence._replace(gap=bound), small, Status.CONVERGED)

        def proved() -> Array:
            moved = (at.theta - fixed.anchor).astype(fixed.anchor.dtype)
            factor = jnp.exp(fixed.sample.logit_range(moved)).astype(bound.dtype)
            decrement = factor * bound / KL_HALF
            even = decrement <= proofs.least_mass(at.theta, problem) / 4  # every |e| <= 1/2
            return jnp.where(even, factor * bound, jnp.inf)

        gap = jax.lax.cond(small, proved, lambda: jnp.full_like(bound, jnp.inf))
        close = gap <= tolerance(self.tol, at.value)
        return with_status(evidence._replace(gap=gap), close, Status.CONVERGED)


def lbfgs(
    *,
    tol: Array | float | None = None,
    max_steps: int = 200,
    memory: int = 5,
    sample_rows: int | None = None,
    sample_dtype: str | None = None,
) -> LBFGS:
    """L-BFGS in the metric of a sample of the rows, for `jaxprob.fit(..., solver=...)`.

    Args:
        tol: stop when the bound on f - f* is below it, in nats; 1e-12 in float64 and 1e-4 in
            float32 where None, and never below the rounding of the objective.
        max_steps: at most so many steps, each a pass over the data.
        memory: how many past steps to keep.
        sample_rows: how many rows give the start and the metric; 100 per feature where None.
        sample_dtype: in which to compute the metric, "float32" or "float64"; that of the data where
            None. In float32 it takes half the time, and is useless for badly conditioned data.

    Returns:
        A solver.

    Example:
        >>> lbfgs(memory=10).memory
        10
    """
    return LBFGS(tol, max_steps, memory, sample_rows, sample_dtype)
