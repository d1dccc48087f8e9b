"""Lanes: many problems that share some of their parts, and the programs that run a block of them.

A lane is a problem of its own, and what vmap makes of the code of one fit is the code of all: a
block of lanes takes a step at a time, and hands back those that are not finished when few are left,
so that the time follows the sum of the lanes' steps, and not the slowest lane's.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxprob.contract import Bind, Status
from jaxprob.data import suffice, violations
from jaxprob.data.loading import to_device
from jaxprob.fit import outcome_of, recentred
from jaxprob.numerics.centring import centre_of
from jaxprob.numerics.passes import total
from jaxprob.problem.problem import Known, Problem
from jaxprob.runtime.compilation import EagerJit, eager_jit
from jaxprob.solvers.driver import (
    Progress,
    Result,
    Solver,
    advance,
    checked,
    is_doubtful,
    is_open,
    is_unproved,
    no_optimum,
    no_verdict,
    run,
    seek,
    wants_proof,
)
from jaxprob.solvers.newton import judge
from jaxprob.solvers.plain_newton import plain_newton

_STEPS = 6  # that a block takes at a time, before lanes in doubt are looked at
_LEFT = 4  # a block is handed back when at most this part of its lanes is unfinished
_FEW = 8  # lanes, which are run to their end
_CERTAIN_STEPS = 3  # before separation is suspected
_DATA = ("x", "y", "weights", "offset")
_OTHERS = ("l2", "l1", "centre", "key")


class Lanes(NamedTuple):
    """Problems that differ in some of their parts."""

    base: Problem
    """What they share. Parts that each lane has of its own are None there."""
    own: Mapping[str, Any]
    """Arrays (B, ...), by name: parts of the lanes, or what `draw` makes them of."""
    size: int
    """B."""
    draw: Bind | None = None
    """(base, extra, own of one lane) -> its parts by name; `own` as it is where None."""
    extra: Any = None
    """Arrays that `draw` needs for all lanes."""
    lent: tuple[str, ...] = ()
    """Which of the arrays are the caller's, who may change them."""

    @property
    def dtype(self) -> Any:
        """In which dtype the lanes are fitted, also where features are integers."""
        dtype = self.own["x"].dtype if "x" in self.own else self.base.data.x.dtype
        return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)

    def take(self, name: str, index: Any) -> Any:
        """Entries of one of the arrays, in the dtype that the problems have."""
        taken = self.own[name][index]
        if name == "y":
            support = self.base.model.variables.y
            assert support is not None  # else there would be none
            return taken.astype(support.dtype(self.dtype), copy=False)
        is_number = name in _DATA or self.draw is None or taken.dtype.kind == "f"
        is_number &= name != "key"
        return taken.astype(self.dtype, copy=False) if is_number else taken

    def problem(self, i: int) -> Problem:
        """The problem of one lane."""
        own = {name: _on_device(self.take(name, i)) for name in self.own}
        if self.draw is not None:
            own = _drawn(self.base, self.extra, own, draw=self.draw)
        return with_parts(self.base, own)

    @property
    def common(self) -> "Common":
        """What all lanes share."""
        return Common(self.base, self.extra)

    def recentred(self, solver: Solver) -> "Lanes":
        """The lanes in features less their centre, where these are far from zero."""
        if not (self.base.can_recentre and solver.recentres):
            return self
        if "x" in self.own:
            assert self.draw is None  # what is drawn shares x
            is_far = centre_of(np.asarray(self.own["x"]), np)[1]
            return self._replace(draw=Bind(_recentred)) if is_far else self
        lanes = self._replace(base=recentred(self.base, [solver]))
        if lanes.base.centre is None or "theta" not in self.own:
            return lanes
        problem = lanes.problem(0)
        starts = jax.vmap(lambda theta: problem.centred(problem.unravel(theta)))(self.own["theta"])
        return lanes._replace(own={**self.own, "theta": np.asarray(starts)})


class Common(NamedTuple):
    """What all lanes share: of their problems, and for drawing these."""

    base: Problem
    extra: Any


class Ending(NamedTuple):
    """What is kept of a lane."""

    theta: Array  # (p,)
    params: Any
    direction: Any
    status: Array
    log_likelihood: Array
    objective: Array
    gap: Array
    grad_norm: Array
    num_steps: Array
    num_examples: Array
    total_weight: Array


class Block(NamedTuple):
    """What a program hands back, for each of its lanes."""

    progress: Progress
    is_open: Array  # () bool, whether the run goes on
    doubtful: Array  # () bool, whether it may be separated
    unproved: Array  # () bool, whether it ended without a proof
    found: Ending


@partial(eager_jit, static_argnames=["draw"])
def _drawn(base: Problem, extra: Any, own: Any, *, draw: Bind) -> dict[str, Any]:
    """The parts of one lane."""
    return draw(base, extra, own)


def _on_device(a: Any) -> Array:
    return a if isinstance(a, Array) else to_device(np.asarray(a))


def with_parts(base: Problem, parts: Mapping[str, Any]) -> Problem:
    """The problem of one lane."""
    data = base.data._replace(**{name: parts[name] for name in _DATA if name in parts})
    others = {name: parts[name] for name in _OTHERS if name in parts}
    return replace(base, data=data, **others)


def _recentred(base: Problem, extra: Any, own: dict[str, Array]) -> dict[str, Any]:
    """The parts of a lane in its features less their centre."""
    del extra
    centre, _ = centre_of(own["x"])
    parts = own | {"x": own["x"] - centre[None, :], "centre": centre}
    if "theta" in own:
        problem = with_parts(base, parts)
        parts["theta"] = problem.centred(problem.unravel(own["theta"]))
    return parts


def _is_none(a: Any) -> bool:
    return a is None


class _Batch(NamedTuple):
    """The problems of a block of lanes, as `vmap` takes them."""

    problems: Problem
    axes: Problem
    starts: Array | None  # (p,) or (L, p); the model's own where None
    start_axis: int | None
    known: Known | None  # of each lane

    def map(self, fn: Callable[..., Any], *lanes: Any) -> Any:
        """Call a function with each lane's problem, and what each of the trees has for it."""
        return jax.vmap(fn, in_axes=(self.axes, *(0 for _ in lanes)))(self.problems, *lanes)

    def map_in_turn(self, fn: Callable[..., Any], *lanes: Any) -> Any:
        """The same, one lane after another on a CPU, where lanes differ much in what they need."""
        if jax.default_backend() != "cpu":
            return self.map(fn, *lanes)
        shared, tree = jax.tree.flatten(self.problems, is_leaf=_is_none)
        own = [axis == 0 for axis in jax.tree.leaves(self.axes, is_leaf=_is_none)]

        def one(lane: tuple[list[Array], tuple]) -> Any:
            parts, rest = iter(lane[0]), lane[1]
            leaves = [next(parts) if o else a for a, o in zip(shared, own, strict=True)]
            return fn(jax.tree.unflatten(tree, leaves), *rest)

        parts = [a for a, o in zip(shared, own, strict=True) if o]
        return jax.lax.map(one, (parts, lanes))

    def map_from_start(
        self, solver: Solver, fn: Callable[[Problem, Array], Any], *, in_turn: bool
    ) -> Any:
        """Call a function with each lane's problem, prepared, and where it starts."""
        each, shared = (self.starts, None) if self.start_axis == 0 else (None, self.starts)

        def one(problem: Problem, theta: Array | None) -> Any:
            problem = problem.prepared()
            theta = shared if theta is None else theta
            return fn(problem, problem.start_for(solver) if theta is None else theta)

        return (self.map_in_turn if in_turn else self.map)(one, each)


def _batch(
    draw: Bind | None, common: Common, own: Mapping[str, Array], start: Array | None
) -> _Batch:
    base = common.base
    parts: dict[str, Any] = (
        dict(own) if draw is None else jax.vmap(draw, in_axes=(None, None, 0))(*common, own)
    )
    starts, known = parts.pop("theta", None), parts.pop("known", None)
    problems = with_parts(base, parts)
    none = jax.tree.map(lambda _: None, base)
    axes = with_parts(none, {name: 0 for name in parts})
    if starts is None:
        return _Batch(problems, axes, start, None, known)
    return _Batch(problems, axes, starts, 0, known)


def _first(
    solver: Solver, draw: Bind | None, common: Common, own: Any, start: Array | None, live: Array
) -> Progress:
    """Look at where the lanes of a block start, and at their data."""
    del live
    batch = _batch(draw, common, own, start)
    unchecked = set(_DATA) & set(own)

    def look(problem: Problem, theta: Array | None, known: Known | None) -> Progress:
        problem = problem.prepared()
        theta = problem.start_for(solver) if theta is None else theta
        fixed, theta = solver.prepare(problem, theta)
        state = solver.start(problem, fixed, theta, known)
        state = checked(problem, state, no_optimum(problem))
        status = _of_data(problem, unchecked, state.evidence.status)
        state = state._replace(evidence=state.evidence._replace(status=status))
        return Progress(state, jnp.int32(1), jnp.int32(0))

    axes = batch.axes, batch.start_axis, 0
    return jax.vmap(look, in_axes=axes)(batch.problems, batch.starts, batch.known)


def _plain(
    solver: Any, draw: Bind | None, common: Common, own: Any, start: Array | None, live: Array
) -> Ending:
    """Try plain Newton steps on the lanes of a block, one after another.

    What that leaves open has no verdict, nor has what is wrong with the data of a lane.
    """
    del live
    batch = _batch(draw, common, own, start)
    unchecked = set(_DATA) & set(own)

    def one(problem: Problem, theta: Array) -> Ending:
        result = plain_newton(solver, problem, theta, jnp.int32(0), jnp.int32(solver.max_steps))
        evidence, open_ = result.evidence, jnp.int32(Status.MAX_STEPS)
        decided = _of_data(problem, unchecked, open_) == open_
        decided &= evidence.status != Status.STALLED
        evidence = evidence._replace(status=jnp.where(decided, evidence.status, open_))
        return _found(solver, problem, result._replace(evidence=evidence))

    return batch.map_from_start(solver, one, in_turn=True)


def _whole(
    solver: Solver, draw: Bind | None, common: Common, own: Any, start: Array | None, live: Array
) -> Ending:
    """Run lanes to their end, in turn if they take steps, by a program that holds a step once."""
    del live
    batch = _batch(draw, common, own, start)
    unchecked = set(_DATA) & set(own)

    def one(problem: Problem, theta: Array) -> Ending:
        open_ = jnp.int32(Status.MAX_STEPS)
        proved, status = no_optimum(problem), _of_data(problem, unchecked, open_)
        status = jnp.where(status == open_, proved.status, status)
        result = run(solver, problem, theta, proved=proved._replace(status=status))
        evidence = result.evidence
        evidence = evidence._replace(status=jnp.where(status == open_, evidence.status, status))
        return _found(solver, problem, result._replace(evidence=evidence))

    return batch.map_from_start(solver, one, in_turn=solver.max_steps > 0)


def _of_data(problem: Problem, unchecked: Container[str], status: Array) -> Array:
    """() int32: the status, or what is wrong with the lane's own data."""
    data, variables = problem.data, problem.model.variables
    rows = [a if a is None or n in unchecked else a[:0] for n, a in data._asdict().items()]
    bad = violations(*rows, variables=variables)
    no_weight = total(problem.example_weights()) == 0
    enough = suffice(data.x, data.weights, variables=variables)
    status = jnp.where(enough, status, jnp.int32(Status.SINGULAR))
    status = jnp.where(no_weight, jnp.int32(Status.NO_DATA), status)
    return jnp.where(bad.invalid, jnp.int32(Status.INVALID_INPUT), status)


def _rest(
    solver: Solver, draw: Bind | None, common: Common, own: Any, progress: Progress, live: Array
) -> Block:
    """Go on with the lanes of a block until few are left."""
    batch = _batch(draw, common, own, None)

    def prepare(problem: Problem, theta: Array) -> tuple[tuple | None, Any]:
        problem = problem.prepared()
        return problem.hyperparameters, solver.prepare(problem, theta)[0]

    prepared = batch.map(prepare, progress.state.theta)
    alive = jnp.sum(live)  # a block may be filled up: what is gathered must go on
    quota = jnp.where(alive > _FEW, alive // _LEFT, 0)
    raises_doubt = solver.newton_step(progress.state) is not None
    most_steps = _STEPS if raises_doubt else solver.max_steps

    def unfinished(progress: Progress) -> Array:
        return jax.vmap(partial(is_open, solver))(progress.state, progress.k) & live

    def going(carry: tuple[Progress, Array]) -> Array:
        progress, count = carry
        return (jnp.sum(unfinished(progress)) > quota) & (count < most_steps)

    def step(carry: tuple[Progress, Array]) -> tuple[Progress, Array]:
        progress, count = carry

        def one(problem: Problem, prepared: Any, progress: Progress, is_open: Array) -> Progress:
            found, fixed = prepared
            problem = replace(problem, hyperparameters=found)
            new = advance(solver, problem, fixed, progress, no_verdict(progress.state.theta))
            return jax.tree.map(partial(jnp.where, is_open), new, progress)

        return batch.map(one, prepared, progress, unfinished(progress)), count + 1

    progress, _ = jax.lax.while_loop(going, step, (progress, jnp.zeros((), jnp.int32)))

    def end(problem: Problem, prepared: Any, progress: Progress) -> Block:
        (found, fixed), (state, k, _) = prepared, progress
        problem = replace(problem, hyperparameters=found)
        goes_on = is_open(solver, state, k)
        is_late = k > _CERTAIN_STEPS  # before, a step may be long because the start is far away
        doubtful = is_doubtful(solver, problem, state) & goes_on & is_late
        result = _ended(solver, problem, fixed, progress)
        unproved = ~goes_on & is_unproved(result.evidence) & wants_proof(solver, problem)
        return Block(progress, goes_on, doubtful, unproved, _found(solver, problem, result))

    return batch.map(end, prepared, progress)


def _ended(solver: Solver, problem: Problem, fixed: Any, progress: Progress) -> Result:
    last = solver.finish(problem, fixed, progress.state)
    return Result(last.theta, last.value, last.grad, last.evidence, progress.num_steps, None)


def _found(solver: Solver, problem: Problem, result: Result) -> Ending:
    made = outcome_of(solver, problem, result)
    evidence = made.result.evidence
    return Ending(
        made.result.theta,
        made.params,
        made.direction,
        evidence.status,
        made.log_likelihood,
        made.objective,
        evidence.gap,
        made.grad_norm,
        result.num_steps,
        made.num_examples,
        made.total_weight,
    )


def _seek(
    solver: Solver, draw: Bind | None, common: Common, own: Any, progress: Progress, live: Array
) -> Progress:
    """Look for directions of separation."""
    del live
    batch = _batch(draw, common, own, None)

    def one(problem: Problem, progress: Progress) -> Progress:
        return progress._replace(state=seek(solver, problem, progress.state))

    return batch.map_in_turn(one, progress)


def _judge(
    solver: Solver, draw: Bind | None, common: Common, own: Any, progress: Progress, live: Array
) -> Ending:
    """Ask the exact Hessian about lanes that ended without a proof."""
    del live
    batch = _batch(draw, common, own, None)

    def one(problem: Problem, progress: Progress) -> Ending:
        problem = problem.prepared()
        fixed, _ = solver.prepare(problem, progress.state.theta)
        result = _ended(solver, problem, fixed, progress)
        evidence = judge(problem, result, getattr(solver, "tol", None))
        return _found(solver, problem, result._replace(evidence=evidence))

    return batch.map_in_turn(one, progress)


class Shape(NamedTuple):
    """How the lanes of a call are laid out: over devices, in turn, and side by side."""

    devices: int
    turns: int
    lanes: int

    @property
    def size(self) -> int:
        """How many lanes a call takes."""
        return self.devices * self.turns * self.lanes


def _laid_out(
    program: Callable[..., Any],
    solver: Solver,
    draw: Bind | None,
    shape: Shape,
    common: Common,
    own: Any,
    start: Any,
    live: Array,
    *,
    own_start: bool,
) -> Any:
    """Run a program on each block of lanes: the blocks of a device in turn."""

    def on_device(common: Common, own: Any, start: Any, live: Array) -> Any:
        block_of = partial(program, solver, draw, common)
        lanes = (own, start, live) if own_start else (own, live)
        call = block_of if own_start else lambda own, live: block_of(own, start, live)
        if shape.turns == 1:
            return call(*lanes)
        blocks = jax.tree.map(lambda a: a.reshape(shape.turns, shape.lanes, *a.shape[1:]), lanes)
        out = jax.lax.map(lambda block: call(*block), blocks)
        return jax.tree.map(lambda a: a.reshape(shape.turns * shape.lanes, *a.shape[2:]), out)

    if shape.devices == 1:
        return on_device(common, own, start, live)
    lanes, everywhere = PartitionSpec("lanes"), PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=mesh_of(shape.devices),
        in_specs=(everywhere, lanes, lanes if own_start else everywhere, lanes),
        out_specs=lanes,
        check_vma=False,
    )(common, own, start, live)


def mesh_of(num_devices: int) -> Mesh:
    """So many local devices, in a row."""
    devices = jax.local_devices()[:num_devices]
    return jax.make_mesh((num_devices,), ("lanes",), (AxisType.Auto,), devices=devices)


def _program(block: Callable[..., Any], *, own_start: bool = True) -> EagerJit:
    """A compiled program for all lanes of a call, from what it does with a block of them."""

    def program(
        solver: Solver,
        common: Common,
        own: Any,
        start: Any,
        live: Array,
        *,
        draw: Bind | None,
        shape: Shape,
    ) -> Any:
        return _laid_out(block, solver, draw, shape, common, own, start, live, own_start=own_start)

    program.__name__, program.__doc__ = block.__name__, block.__doc__
    return eager_jit(program, static_argnames=["draw", "shape"])


first = _program(_first, own_start=False)
"""Look at lanes that share where they start, (p,) or None, or have it as a part "theta"."""
plain = _program(_plain, own_start=False)
"""Try whether a few Newton steps are enough."""
whole = _program(_whole, own_start=False)
"""Run lanes to their end that raise no doubt, and want no proof."""
rest = _program(_rest)
"""Go on with lanes."""
proofs = _program(_seek)
"""Look whether lanes in doubt are separated."""
proved = _program(_judge)
"""What is found of lanes that ended without a proof of their own."""
