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
`jaxprob.models.regression.certificates`).
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

from jaxprob.contract import Evidence, Status, Trait
from jaxprob.models.regression.certificates import KL_HALF, together
from jaxprob.numerics.control import only_if
from jaxprob.numerics.linalg import Factor, Inverse, invert, no_inverse
from jaxprob.numerics.products import vdot
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import State, blank, slack, tolerance, with_status
from jaxprob.solvers.linesearch import Move, all_finite
from jaxprob.solvers.quasi_newton import At, no_pairs, step, unknown
from jaxprob.solvers.settings import check_count, check_tolerance

_ROWS_PER_PARAM = 100
_PARTS = 4  # of the sample, of which the first Hessian, far from the optimum, takes one
_STEPS = 16  # on the sample with one Hessian
_MOST_HESSIANS = 8
_ENOUGH = -1  # instead of their number
_IDLE_STEPS = 4


class Fixed(NamedTuple):
    """The problem on the sample, and by how much it has fewer rows."""

    sample: Problem
    ratio: Array  # (), s

    def hess(self, theta: Array, count: Array) -> Array:
        """The Hessian (p, p) of the sample as the first few of its parts see it."""
        zero, parts = jnp.zeros((len(theta), len(theta)), theta.dtype), self.num_parts()

        def add(i: Array, total: Array) -> Array:
            return total + self.sample.part(i, parts).hess(theta)

        return jax.lax.fori_loop(0, count, add, zero) * (parts / count).astype(theta.dtype)

    def num_parts(self) -> int:
        """As many as wanted, if there are so many rows."""
        return min(_PARTS, self.sample.rows_per_device())


class Metric(NamedTuple):
    """The Hessian of the sample, scaled to all rows."""

    factor: Factor | Inverse  # of M
    anchor: Array  # (p,), θ₀, where it is from
    excess: Array  # () by how much rounding may have made it too large; infinite if that is unknown


class Objective(NamedTuple):
    """The sum over all rows, or as it looks from the sample."""

    problem: Problem
    fixed: Fixed
    on_all: Array  # () bool

    def value_and_grad(self, theta: Array) -> tuple[Array, Array]:
        """The smooth part of the objective () and its gradient (p,)."""

        def on_sample(theta: Array) -> tuple[Array, Array]:
            sample, ratio = self.fixed
            narrow = theta.astype(sample.data.x.dtype)
            value, grad = sample.value_and_grad(narrow)
            return ratio * value.astype(theta.dtype), ratio * grad.astype(theta.dtype)

        nothing = jnp.zeros((), theta.dtype), jnp.zeros_like(theta)
        seen = only_if(~self.on_all, on_sample, nothing, theta)
        return only_if(self.on_all, self.problem.value_and_grad, seen, theta)

    def penalty(self, theta: Array) -> Array:
        """None beside l2."""
        return jnp.zeros((), theta.dtype)


class LBFGSMemory(NamedTuple):
    """L-BFGS's own: where it is, the metric, and how the bound has come along."""

    at: At
    metric: Metric
    hessians: Array  # () int32, so far; _ENOUGH once the sample is fitted
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

    recentres = True
    sums = True
    needs = Trait.SMOOTH
    takes_known = False
    takes_start = True
    takes_l1 = False
    proof = Trait.CURVED
    takes_plain_steps = False
    trains = False

    def prepare(self, problem: Problem, theta: Array) -> tuple[Fixed, Array]:
        """Draw a sample of the rows."""
        n, d = problem.data.x.shape
        rows = _ROWS_PER_PARAM * (d + 1) if self.sample_rows is None else self.sample_rows
        sample = problem.sample(rows, _PARTS)
        ratio = jnp.asarray(n / len(sample.data.x), theta.dtype)
        sample = sample if self.sample_dtype is None else sample.astype(self.sample_dtype)
        return Fixed(sample, ratio), problem.canonical(theta)

    def init(self, problem: Problem, fixed: Fixed, theta: Array) -> State:
        """Nothing known yet."""
        infinite, zero = jnp.asarray(jnp.inf, theta.dtype), jnp.zeros((), jnp.int32)
        metric = Metric(no_inverse(theta), theta, infinite)
        at = unknown(theta, self.memory)
        return blank(theta, LBFGSMemory(at, metric, zero, infinite, zero))

    def start(self, problem: Problem, fixed: Fixed, theta: Array, known: Known | None) -> State:
        """The state after step 0."""
        return self.step(problem, fixed, self.init(problem, fixed, theta), jnp.int32(0))

    def step(self, problem: Problem, fixed: Fixed, state: State, k: Array) -> State:
        """Move along the quasi-Newton direction, then bound the distance to the optimum.

        Step 0 fits the sample, and looks at all rows where that ended.
        """
        old = state.memory

        def round_(carry: tuple[At, Metric, Array, Array]) -> tuple[At, Metric, Array, Array]:
            at, metric, hessians, _ = carry
            on_all = hessians == _ENOUGH
            at, metric = only_if(
                ~on_all,
                lambda at: self._with_new_metric(fixed, at, hessians),
                (at, metric),
                at,
            )
            objective = Objective(problem, fixed, on_all)
            close = fixed.ratio * jnp.asarray(1e-2 * len(state.theta), state.theta.dtype)

            def unfinished(carry: tuple[At, Array]) -> Array:
                at, count = carry
                going = (count < _STEPS) & (at.promise > close) & at.move.accepted
                return jnp.where(on_all, count == 0, going)

            at, _ = jax.lax.while_loop(
                unfinished,
                lambda c: (step(objective, metric.factor, c[0]), c[1] + 1),
                (at, jnp.zeros((), jnp.int32)),
            )
            fitted = (hessians > 0) & ((at.promise <= close) | ~at.move.accepted)
            last = fitted | (hessians == _MOST_HESSIANS - 1)
            start = jnp.where(all_finite(at.move.theta), at.move.theta, state.theta)
            afresh = partial(unknown, memory=self.memory)
            at = only_if(last & ~on_all, afresh, at, start)
            hessians = jnp.where(on_all | last, _ENOUGH, hessians + 1)
            return at, metric, hessians, on_all

        at, metric, hessians, _ = jax.lax.while_loop(
            lambda carry: ~carry[3],
            round_,
            (old.at, old.metric, old.hessians, jnp.zeros((), bool)),
        )
        new = at.move
        bound = KL_HALF * fixed.ratio * vdot(new.grad, at.solved)
        falls = (new.value < state.value - slack(state.value)) | (k == 0)
        idle = jnp.where(falls, 0, old.idle + 1)
        stuck = ~new.accepted | ((idle >= _IDLE_STEPS) & ~(bound < old.bound / 2))
        evidence = self._prove(problem, fixed, metric, new, bound, state.evidence)
        evidence = with_status(evidence, stuck, Status.STALLED)
        memory = LBFGSMemory(at, metric, hessians, bound, idle)
        return State(new.theta, new.value, new.grad, evidence, memory)

    def _with_new_metric(self, fixed: Fixed, at: At, hessians: Array) -> tuple[At, Metric]:
        """The Hessian of one part of the sample at first, then of all of them, at this point."""
        sample, theta = fixed.sample, at.move.theta
        count = jnp.where(hessians == 0, 1, fixed.num_parts())
        factor = invert(fixed.hess(theta.astype(sample.data.x.dtype), count))
        proper = factor.untouched() & ~factor.singular()
        excess = factor.beyond(jnp.ones((), factor.scale.dtype))
        factor = jax.tree.map(lambda a: a.astype(theta.dtype), factor)
        factor = factor._replace(scale=factor.scale * jnp.sqrt(fixed.ratio))
        move = at.move._replace(accepted=jnp.ones((), bool))
        none = no_pairs(self.memory, theta)
        at = At(move, factor.solve(move.grad), none, jnp.full_like(at.promise, jnp.inf))
        excess = jnp.where(proper, excess, jnp.inf).astype(theta.dtype)
        return at, Metric(factor, theta, excess)

    def newton_step(self, state: State) -> None:
        """None is made."""

    def finish(self, problem: Problem, fixed: Fixed, state: State) -> State:
        """Nothing to add."""
        return state._replace(theta=problem.canonical(state.theta))

    def _prove(
        self,
        problem: Problem,
        fixed: Fixed,
        metric: Metric,
        at: Move,
        bound: Array,
        evidence: Evidence,
    ) -> Evidence:
        """CONVERGED where the bound is small and its conditions are met."""
        proofs = problem.certificates
        bound = bound * metric.excess
        enough = tolerance(self.tol, at.value, problem.unit())
        small = bound <= enough
        if proofs is None:
            return with_status(evidence._replace(gap=bound), small, Status.CONVERGED)

        def proved(theta: Array) -> Array:
            moved = (theta - metric.anchor).astype(fixed.sample.data.x.dtype)
            factor = jnp.exp(proofs.logit_range(moved, fixed.sample)).astype(bound.dtype)
            decrement = factor * bound / KL_HALF
            even = decrement <= proofs.least_mass(theta, problem) / 4  # every |e| <= 1/2
            hidden = fixed.ratio * proofs.noise(problem, theta, at.value, metric.factor)
            return jnp.where(even, together(factor * bound, factor * hidden), jnp.inf)

        gap = only_if(small, proved, jnp.full_like(bound, jnp.inf), at.theta)
        close = gap <= enough
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

    Raises:
        ValueError: for a negative number of steps, of rows or of past steps, or a tolerance that is
            negative or NaN, and for another dtype.
        TypeError: for what is no number.

    Example:
        >>> lbfgs(memory=10).memory
        10
    """
    check_count("max_steps", max_steps, least=0)
    check_count("memory", memory, least=1)
    if sample_rows is not None:
        check_count("sample_rows", sample_rows, least=1)
    if sample_dtype not in (None, "float32", "float64"):
        raise ValueError(
            f'sample_dtype: expected "float32", "float64" or None, got {sample_dtype!r}'
        )
    return LBFGS(check_tolerance("tol", tol), max_steps, memory, sample_rows, sample_dtype)
