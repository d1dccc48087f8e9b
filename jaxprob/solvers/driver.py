"""The one loop that runs every solver, and what comes out of it."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Evidence, Status, Trait
from jaxprob.numerics.control import only_if
from jaxprob.problem.problem import Known, Problem

_NEAR = 0.5  # that a Newton step may move one logit against another without raising doubt


class State(NamedTuple):
    """What every solver carries: where it is, and what is known there."""

    theta: Array  # (p,)
    value: Array  # (), the objective with its penalties
    grad: Array  # (p,), of its smooth part
    evidence: Evidence
    memory: Any  # the solver's own


class Progress(NamedTuple):
    """Where a run is."""

    state: State
    k: Array  # () int32, the next step
    num_steps: Array  # () int32, that moved so far


class Trace(NamedTuple):
    """The course of a fit: entry k after step k, NaN beyond the last."""

    value: Array  # (max_steps + 1,)
    grad_norm: Array  # (max_steps + 1,), largest entry


class Result(NamedTuple):
    """Where a run ended."""

    theta: Array
    value: Array
    grad: Array
    evidence: Evidence
    num_steps: Array
    trace: Trace | None


class Solver(Protocol):
    """How to minimise a `Problem`: a hashable value whose arrays are traced.

    `prepare` computes once what does not change during the run. `init` knows nothing yet: its value
    is infinite. Step 0 looks at the start, later ones move and look; each leaves its verdict in
    `state.evidence`, where MAX_STEPS means: go on. `finish` may improve a converged result.
    """

    @property
    def max_steps(self) -> int:
        """At most so many steps."""
        ...

    @property
    def needs(self) -> Trait:
        """What a problem has to offer."""
        ...

    @property
    def takes_l1(self) -> bool:
        """Whether it can deal with an l1 penalty."""
        ...

    @property
    def takes_known(self) -> bool:
        """Whether what is known before, of the same problem, is of use to it."""
        ...

    @property
    def takes_start(self) -> bool:
        """Whether it matters where it starts."""
        ...

    @property
    def recentres(self) -> bool:
        """Whether its steps are the same, but for rounding, in features less their centre."""
        ...

    @property
    def sums(self) -> bool:
        """Whether it sees the examples through weighted sums, where those without weight vanish."""
        ...

    @property
    def proof(self) -> Trait | None:
        """What a problem offers of which the exact Hessian is asked where a verdict is open."""
        ...

    @property
    def takes_plain_steps(self) -> bool:
        """Whether `jaxprob.solvers.plain_newton` finds what it would, where nothing goes wrong."""
        ...

    @property
    def trains(self) -> bool:
        """Whether a run that ends without a verdict has done what it was asked to."""
        ...

    def prepare(self, problem: Problem, theta: Array) -> tuple[Any, Array]:
        """What stays fixed during the run, and where to start."""
        ...

    def init(self, problem: Problem, fixed: Any, theta: Array) -> State:
        """The state before anything was computed."""
        ...

    def start(self, problem: Problem, fixed: Any, theta: Array, known: Known | None) -> State:
        """The state after step 0, for a program that takes no other; with what is known before."""
        ...

    def step(self, problem: Problem, fixed: Any, state: State, k: Array) -> State:
        """The state after step k = 0, 1, ..."""
        ...

    def newton_step(self, state: State) -> Array | None:
        """(p,) the last Newton step considered, None from a solver that makes none."""
        ...

    def finish(self, problem: Problem, fixed: Any, state: State) -> State:
        """The state to report."""
        ...


def tolerance(tol: Array | float | None, value: Array, unit: Array | float) -> Array:
    """The gap at which a fit has converged: `tol`, or the resolution of the objective.

    Two evaluations of f cannot tell less apart than the rounding of either. A tolerance is in nats
    of examples of weight one: of a part of that where their weights are less, see `Problem.unit`.
    """
    eps = jnp.finfo(value.dtype).eps
    wanted = unit * (DEFAULT_TOL[value.dtype.name] if tol is None else tol)
    resolution = jnp.maximum(wanted, eps / 2 * (unit + jnp.abs(value)))
    return jnp.where(jnp.isfinite(value), resolution, -1.0)  # nothing is close to infinity


DEFAULT_TOL = {"float64": 1e-12, "float32": 1e-4}


def slack(value: Array) -> Array:
    """What rounding may add to an objective without its having increased."""
    return 4 * jnp.finfo(value.dtype).eps * jnp.abs(value)


def no_verdict(theta: Array) -> Evidence:
    """Nothing known yet."""
    return Evidence(
        jnp.int32(Status.MAX_STEPS), jnp.asarray(jnp.inf, theta.dtype), jnp.zeros_like(theta)
    )


def blank(theta: Array, memory: Any) -> State:
    """A state that knows only where it is."""
    infinite = jnp.asarray(jnp.inf, theta.dtype)
    return State(theta, infinite, jnp.zeros_like(theta), no_verdict(theta), memory)


def with_status(evidence: Evidence, where: Array, status: Status) -> Evidence:
    """The evidence with another status where the condition holds and none is given yet."""
    open_ = evidence.status == Status.MAX_STEPS
    return evidence._replace(status=jnp.where(open_ & where, jnp.int32(status), evidence.status))


def is_undecided(state: State) -> Array:
    """Whether there is no verdict yet; where there is one, a step of many lanes need do nothing."""
    return state.evidence.status == Status.MAX_STEPS


def is_unproved(evidence: Evidence) -> Array:
    """Whether a run ended without knowing anything about the optimum."""
    return (evidence.status == Status.MAX_STEPS) | (evidence.status == Status.STALLED)


def wants_proof(solver: Solver, problem: Problem) -> bool:
    """Whether the exact Hessian is asked where the solver's own verdict is open."""
    return solver.proof is not None and solver.proof in problem.offers


def advance(
    solver: Solver, problem: Problem, fixed: Any, progress: Progress, proved: Evidence
) -> Progress:
    """One step of a run, the same for every driver: a program of its own, or one of many lanes.

    Args:
        solver: how to minimise.
        problem: what.
        fixed: what `solver.prepare` has made.
        progress: where the run is.
        proved: what the data alone say, see `no_optimum`; `no_verdict` for nothing new.
    """
    old, k, num_steps = progress
    state = checked(problem, solver.step(problem, fixed, old, k), proved)
    counts = (k > 0) & (solver.trains | jnp.any(state.theta != old.theta))  # else it only looked
    return Progress(state, k + 1, num_steps + counts)


def is_open(solver: Solver, state: State, k: Array) -> Array:
    """Whether a run goes on with step k."""
    return is_undecided(state) & (k <= solver.max_steps)


def no_optimum(problem: Problem) -> Evidence:
    """Why the data have no finite optimum; MAX_STEPS if unknown.

    Such as CLASS_ABSENT for a class without examples, COLLAPSED for a density that can shrink onto
    points.
    """
    proofs, data, open_ = problem.certificates, problem.data, jnp.int32(Status.MAX_STEPS)
    infinite = jnp.asarray(jnp.inf, data.x.dtype)
    none = jnp.zeros(problem.num_params(), data.x.dtype)
    if problem.model.objective.unbounded is not None:
        unbounded = problem.model.objective.unbounded(*data.examples, data.weights, **data.extras)
        return Evidence(jnp.where(unbounded, jnp.int32(Status.COLLAPSED), open_), infinite, none)
    if proofs is None:
        return Evidence(open_, infinite, none)
    status, direction = proofs.hopeless(problem)
    return Evidence(status, infinite, direction)


def checked(problem: Problem, state: State, proved: Evidence) -> State:
    """The state, with the verdicts NON_FINITE where its value is, and what is proved of the data.

    With Firth's penalty the value is infinite where the information is singular.
    """
    infinite = Status.SINGULAR if problem.firth else Status.NON_FINITE
    finite = jnp.isfinite(state.value)
    old = state.evidence
    hopeless = proved.status != Status.MAX_STEPS
    status = jnp.where(hopeless, proved.status, old.status)
    status = jnp.where(finite, status, jnp.int32(infinite))
    gap = jnp.where(hopeless | ~finite, jnp.inf, old.gap)
    given = hopeless & jnp.any(proved.direction != 0)
    direction = jnp.where(given, proved.direction, old.direction)
    return state._replace(evidence=Evidence(status, gap, direction))


def is_doubtful(solver: Solver, problem: Problem, state: State) -> Array:
    """Whether it looks as if there might be no finite optimum: a Newton step moves logits far.

    Where the classes are separated, it moves some example's by one or more.
    """
    proofs, step = problem.certificates, solver.newton_step(state)
    if proofs is None or step is None or problem.penalised:
        return jnp.zeros((), bool)
    unproved = is_undecided(state) & jnp.isinf(state.evidence.gap)
    zero = jnp.zeros((), state.theta.dtype)
    far = only_if(unproved, lambda step: proofs.logit_range(step, problem), zero, step)
    return unproved & ~(far <= _NEAR) & ~problem.shrunk()


def may_doubt(solver: Solver, problem: Problem) -> bool:
    """Whether a run might have to look for directions of separation."""
    if problem.certificates is None or problem.penalised:
        return False

    def step(problem: Problem) -> Array | None:
        theta = jnp.zeros(problem.num_params(), problem.data.x.dtype)
        fixed, theta = solver.prepare(problem.prepared(), theta)
        return solver.newton_step(solver.init(problem, fixed, theta))

    return jax.eval_shape(step, problem) is not None


def seek(solver: Solver, problem: Problem, state: State) -> State:
    """Look for a direction of separation, and leave the verdict SEPARATED where there is one."""
    proofs, step = problem.certificates, solver.newton_step(state)
    if proofs is None or step is None or problem.penalised:
        return state
    found, direction = proofs.separation(problem, state.theta, step)
    old = state.evidence
    return state._replace(
        evidence=Evidence(
            jnp.where(found, jnp.int32(Status.SEPARATED), old.status),
            jnp.where(found, jnp.inf, old.gap),
            jnp.where(found, direction, old.direction),
        )
    )


def run(
    solver: Solver,
    problem: Problem,
    theta: Array,
    *,
    proved: Evidence | None = None,
    trace: bool = False,
) -> Result:
    """Run a solver until its evidence gives a verdict or the steps run out.

    Every third step it is asked whether there is an optimum at all, if that is in doubt.

    Args:
        solver: any `Solver`.
        problem: what to minimise.
        theta: (p,) where to start.
        proved: what the data alone say; `no_optimum` where None.
        trace: whether to keep the course of the run.

    Returns:
        A Result; its status is never an exception.
    """
    problem = problem.prepared()
    fixed, theta = solver.prepare(problem, theta)
    proved = no_optimum(problem) if proved is None else proved
    empty = jnp.full(solver.max_steps + 1, jnp.nan, theta.dtype)

    def unfinished(carry: tuple[Progress, Trace | None]) -> Array:
        progress, _ = carry
        return is_open(solver, progress.state, progress.k)

    def body(carry: tuple[Progress, Trace | None]) -> tuple[Progress, Trace | None]:
        (_, k, _), course = carry
        progress = advance(solver, problem, fixed, carry[0], proved)
        state = progress.state
        doubtful = is_doubtful(solver, problem, state) & (k % 3 == 2)
        state = only_if(doubtful, lambda state: seek(solver, problem, state), state, state)
        if course is not None:
            course = Trace(
                course.value.at[k].set(state.value),
                course.grad_norm.at[k].set(jnp.max(jnp.abs(state.grad))),
            )
        return progress._replace(state=state), course

    zero = jnp.zeros((), jnp.int32)
    course = Trace(empty, empty) if trace else None
    start = Progress(solver.init(problem, fixed, theta), zero, zero), course
    (state, _, steps), course = jax.lax.while_loop(unfinished, body, start)
    state = solver.finish(problem, fixed, state)
    return Result(state.theta, state.value, state.grad, state.evidence, steps, course)
