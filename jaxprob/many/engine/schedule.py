"""Run lanes: which of them go together into which block, and what becomes of them."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxprob.contract import Status
from jaxprob.fit.plan import work_of
from jaxprob.many.engine import lanes as programs
from jaxprob.many.engine.lanes import Block, Ending, Lanes, Shape, mesh_of
from jaxprob.problem.problem import Problem
from jaxprob.solvers.driver import Progress, Solver, may_doubt, wants_proof
from jaxprob.solvers.plain_newton import suits

_ELEMENTS = 1 << 16  # of an array (L, n) of a block of lanes that share x, on a CPU
_SHARED_LANES = 64  # in such a block, or more: each forms the products of the columns anew
_EXPECTED = 1 << 19  # the same, where no products of columns are formed
_OWN_BYTES = 1 << 19  # of the data of a block of lanes that do not, on a CPU: its cache
_BLOCK_ELEMENTS = 1 << 14  # of rows × lanes
_LEAST_BLOCK = 64  # rows
_GPU_LANES = 1 << 14
_LEAST = 8  # lanes in a block
_PHASE_LANES = 8  # in a small block, where lanes come by the dozen
_MANY_LANES = 1000  # of which some are likely to be gathered
_SMALLER = 4  # times, that a block of them is then: often a few are left
_CALL_ELEMENTS = 1 << 26  # of the data of all lanes of a call: what passes between two looks
_MUCH_WORK = 1e7  # from here on programs are worth more seconds of compilation
_CALL_BYTES = 1 << 28  # of the factors of all lanes of a call
_COPIES = 8  # of a lane's rows, that a step holds at a time


class Call(NamedTuple):
    """A program at work on some lanes."""

    lanes: np.ndarray
    result: Any
    keep: Callable[[np.ndarray, Any], None]


class Pool:
    """Lanes that wait to be gathered into a block."""

    def __init__(self) -> None:
        self._parts: deque[tuple[np.ndarray, Progress]] = deque()
        self.size = 0

    def put(self, lanes: np.ndarray, progress: Progress, chosen: np.ndarray) -> None:
        """Add the chosen ones of some lanes."""
        index = np.flatnonzero(chosen)
        if len(index):
            self._parts.append((lanes[index], _at(progress, index)))
            self.size += len(index)

    def take(self, count: int) -> tuple[np.ndarray, Progress]:
        """Remove so many lanes, or all."""
        taken, have = [], 0
        while self._parts and have < count:
            lanes, progress = self._parts.popleft()
            rest = count - have
            if len(lanes) > rest:
                self._parts.appendleft((lanes[rest:], _at(progress, slice(rest, None))))
                lanes, progress = lanes[:rest], _at(progress, slice(rest))
            taken.append((lanes, progress))
            have += len(lanes)
        self.size -= have
        lanes = np.concatenate([part[0] for part in taken])
        progress = jax.tree.map(lambda *a: np.concatenate(a), *(part[1] for part in taken))
        return lanes, progress


def _at(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda a: np.asarray(a)[index], tree)


def default_budget() -> int:
    """A quarter of the memory of the device, in bytes."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] // 4
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def layout(lanes: Lanes, num_params: int, budget: int) -> Shape:
    """How many lanes go side by side, so that what a step touches stays in cache, and in memory.

    Args:
        lanes: what to run.
        num_params: p.
        budget: bytes that a call may use.
    """
    data, own = lanes.base.data, lanes.own
    x = own.get("x", data.x)
    n, d = x.shape[-2:]
    model = lanes.base.model
    columns = model.geometry.columns or max(1, num_params // max(1, d))
    item = np.dtype(lanes.dtype).itemsize
    rows = n * (columns * _COPIES + (d if "x" in own else 1))
    bytes_each = item * (rows + 4 * num_params**2)
    on_cpu = jax.default_backend() == "cpu"
    devices = len(jax.local_devices())
    if not on_cpu:
        side = _GPU_LANES
    elif "x" in own:
        side = _OWN_BYTES // (item * n * (d + 2))
    elif model.objective.information is None:
        side = _EXPECTED // (n * columns)
    else:
        side = max(_SHARED_LANES, _ELEMENTS // (n * columns))
    most = max(1, budget // (devices * bytes_each))
    side = int(np.clip(side, min(_LEAST, most), most))
    elements = n * (columns + (d if "x" in own else 0))
    calls_size = min(_CALL_ELEMENTS // elements, _CALL_BYTES // (item * 4 * num_params**2), most)
    calls_size = max(side, calls_size)
    total = -(-lanes.size // devices)
    side = min(side, total)
    num_calls = -(-total // calls_size)
    turns = -(-total // (num_calls * side))
    side = -(-total // (num_calls * turns))
    return Shape(devices, turns, side)


def smaller(shape: Shape, size: int) -> Shape:
    """The shape for gathered lanes, of so many in all; there is no third, as each is compiled."""
    part = _SMALLER if size >= _MANY_LANES else 1
    return shape._replace(turns=1, lanes=-(-shape.lanes // part))


def in_phases(shape: Shape, size: int) -> tuple[Shape, Shape]:
    """Shapes for phases of about so many lanes: in even blocks, and in small ones."""
    shape = shape._replace(turns=1)
    blocks = -(-size // (2 * shape.size))
    even = -(-size // (blocks * shape.devices))
    return shape._replace(lanes=even), shape._replace(lanes=min(even, _PHASE_LANES))


def in_blocks(lanes: Lanes, num_params: int, shape: Shape) -> Lanes:
    """The lanes, whose passes over shared rows go by blocks that stay in a core's own cache.

    On a CPU in float64 with one logit for each example: else a pass as a whole is faster.
    """
    n, d = lanes.base.data.x.shape if "x" not in lanes.own else (0, 1)
    block = max(_LEAST_BLOCK, _BLOCK_ELEMENTS // shape.lanes)
    one_logit = num_params // max(1, d) == 1
    on_cpu = jax.default_backend() == "cpu"
    if not (on_cpu and one_logit and lanes.dtype == np.float64 and n > 2 * block):
        return lanes
    block_bytes = block * max(1, d) * np.dtype(lanes.dtype).itemsize
    return lanes._replace(base=replace(lanes.base, block_bytes=block_bytes))


_PREPARED: set[Any] = set()
_COMPACT_SECONDS: dict[Any, float] = {}
_WORTH_COMPILING = 3.0  # seconds, about as long as the programs for any lane take to compile
_WORTH_OPTIMISING = 8.0  # the same, where they are better optimised


class Run:
    """A run of all lanes: what is found so far, and what is still to do."""

    def __init__(
        self, lanes: Lanes, solver: Solver, start: Array | None, shape: Shape, small: Shape
    ) -> None:
        self.lanes, self.shape, self.small, lane = lanes, shape, small, lanes.problem(0)
        self._everywhere = None
        if shape.devices > 1:
            self._everywhere = NamedSharding(mesh_of(shape.devices), PartitionSpec())
        shared = lanes.common, start, solver
        self.common, self.start, self.solver = jax.device_put(shared, self._everywhere)
        self.work = work_of(lane, solver, lanes.size)
        self.is_large = is_much_work(lane, lanes.size)
        self.worth = _WORTH_OPTIMISING if self.is_large else _WORTH_COMPILING
        self.compact = self._compact(lane)
        self.tries_compact = self.compact is not None
        self.waiting, self.left, self.done = np.arange(0), np.arange(0), 0
        self.ready, self.doubtful, self.unproved = Pool(), Pool(), Pool()
        self.found: Ending | None = None
        self.is_done = np.zeros(lanes.size, bool)

    def statuses(self) -> dict[str, int]:
        """How many lanes ended how so far."""
        if self.found is None:
            return {}
        kinds, counts = np.unique(self.found.status[self.is_done], return_counts=True)
        return {Status(int(k)).name: int(c) for k, c in zip(kinds, counts, strict=True)}

    def share(self, extra: Any) -> None:
        """Let lanes be drawn by something else from now on, of the same shapes."""
        self.common = self.common._replace(extra=jax.device_put(extra, self._everywhere))

    def parameters(self, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, p) what was found for some lanes, and (B,) whether that is the optimum."""
        if self.found is None:
            return np.zeros((len(lanes), 0)), np.zeros(len(lanes), bool)
        good = self.is_done[lanes] & (self.found.status[lanes] == Status.CONVERGED)
        return np.asarray(self.found.theta)[lanes], good

    def go(self, lanes: np.ndarray) -> Iterator[int]:
        """Run some lanes to their end; the number of lanes done so far, after each call."""
        self.waiting, self.tries_compact = lanes, self.compact is not None
        at_work: deque[Call] = deque()
        started = time.perf_counter()
        while True:
            if not (len(self.waiting) or at_work) and len(self.left):
                self.waiting, self.left, self.tries_compact = self.left, self.waiting, False
            while len(at_work) < 2 and (call := self._next_call(idle=not at_work)) is not None:
                at_work.append(call)
            if not at_work:
                return
            call = at_work.popleft()
            call.keep(call.lanes, call.result)
            if self.tries_compact:
                now = time.perf_counter()
                self.tries_compact = self._note(now - started) < self.worth
                started = now
            yield self.done

    def _next_call(self, *, idle: bool) -> Call | None:
        """Full blocks first; others only when there is nothing that could fill them."""
        for full in (True, False):
            for pool, program, keep in (
                (self.doubtful, programs.proofs, self._keep_proofs),
                (self.unproved, programs.proved, self._keep_found),
                (self.ready, programs.rest, self._keep_block),
            ):
                if pool.size >= (self.small.size if full else 1):
                    return self._gathered(program, pool, keep)
            if len(self.waiting) and self.tries_compact:
                return self._in_one()
            if len(self.waiting):
                return self._fresh()
            if not idle:
                return None
        return None

    def _compact(self, problem: Problem) -> Any:
        """The one program that does for most lanes, or for all; None where there is none.

        It compiles in a fraction of the time that the programs for any lane take together, and
        takes one lane after another.
        """
        at_once = not (wants_proof(self.solver, problem) or may_doubt(self.solver, problem))
        if at_once and self.solver.max_steps == 0:
            self.worth = math.inf
            return programs.whole
        spent = _COMPACT_SECONDS.get(self._key(), 0.0)
        if spent >= self.worth or jax.default_backend() != "cpu":
            return None
        if suits(self.solver, problem):
            return programs.plain
        return programs.whole if at_once and not self.is_large else None

    def _note(self, seconds: float) -> float:
        """Add what the compact program took to what it has taken; the first time, to compile it."""
        before = _COMPACT_SECONDS.get(self._key())
        spent = 0.0 if before is None else before + seconds
        _COMPACT_SECONDS[self._key()] = spent
        return spent

    def _key(self) -> tuple:
        """Equal for runs that the same programs do for."""
        arrays = jax.tree.leaves(self.common), self.lanes.own.values()
        shared, own = (tuple((np.shape(a), a.dtype) for a in some) for some in arrays)
        own = tuple((shape[1:], dtype) for shape, dtype in own)
        structure = jax.tree.structure((self.common, self.solver))
        return structure, self.lanes.draw, self.small, self.is_large, shared, own

    def _prepare(self, started: Progress) -> None:
        """Compile what goes on with gathered lanes, lest that happens in some later call only."""
        key = self._key()
        if key not in _PREPARED:
            index = np.arange(self.small.size)
            some = jax.device_put(_at(jax.device_get(started), index), _spread(self.small))
            self._call(programs.rest, self.small, index[:0], self._own(index, self.small), some)
            _PREPARED.add(key)

    def _in_one(self) -> Call:
        """Lanes from their start to their end, but for those that plain steps do not do for."""
        index, self.waiting = self.waiting[: self.shape.size], self.waiting[self.shape.size :]
        own = self._own(index, self.shape)
        is_plain = self.compact is programs.plain
        result = self._call(self.compact, self.shape, index, own, self.start, hasty=is_plain)
        keep = self._keep_decided if is_plain else self._keep_found
        return Call(index, result, keep)

    def _fresh(self) -> Call:
        shape = self.shape if 2 * len(self.waiting) > self.shape.size else self.small
        index, self.waiting = self.waiting[: shape.size], self.waiting[shape.size :]
        own = self._own(index, shape)
        started = self._call(programs.first, shape, index, own, self.start)
        result = self._call(programs.rest, shape, index, own, started)
        if self.small != self.shape and self.lanes.size >= _MANY_LANES:
            self._prepare(started)
        return Call(index, result, self._keep_block)

    def _gathered(self, program: Any, pool: Pool, keep: Callable[..., None]) -> Call:
        shape = self.shape if pool.size >= self.shape.size else self.small
        index, progress = pool.take(shape.size)
        padded = _at(progress, _padded(np.arange(len(index)), shape.size))
        padded = jax.device_put(padded, _spread(shape))
        result = self._call(program, shape, index, self._own(index, shape), padded)
        return Call(index, result, keep)

    def _own(self, index: np.ndarray, shape: Shape) -> dict[str, Any]:
        own = {name: self._take(name, index, shape.size) for name in self.lanes.own}
        return jax.device_put(own, _spread(shape))

    def _call(
        self,
        program: Any,
        shape: Shape,
        index: np.ndarray,
        own: Any,
        start: Any,
        *,
        hasty: bool = False,
    ) -> Any:
        live = np.arange(shape.size) < len(index)
        keywords = {"draw": self.lanes.draw, "shape": shape}
        optimised = self.is_large and not hasty
        call = program.optimised if optimised else program.for_work(self.work)
        return call(self.solver, self.common, own, start, live, **keywords)

    def _take(self, name: str, index: np.ndarray, size: int) -> Any:
        """The lanes of one array, the last one repeated to fill the block."""
        whole = len(index) == size and bool(np.all(np.diff(index) == 1))
        some = slice(index[0], index[0] + size) if whole else _padded(index, size)
        return self.lanes.take(name, some)

    def _keep_proofs(self, index: np.ndarray, progress: Progress) -> None:
        progress = jax.device_get(progress)
        self.ready.put(index, progress, np.ones(len(index), bool))

    def _keep_block(self, index: np.ndarray, block: Block) -> None:
        count = len(index)
        flags = block.is_open, block.doubtful, block.unproved
        goes_on, doubtful, unproved = (a[:count] for a in jax.device_get(flags))
        if (goes_on | unproved).any():
            progress = jax.device_get(block.progress)
            self.ready.put(index, progress, goes_on & ~doubtful)
            self.doubtful.put(index, progress, goes_on & doubtful)
            self.unproved.put(index, progress, unproved)
        self._keep(index, block.found, ~goes_on & ~unproved)

    def _keep_decided(self, index: np.ndarray, found: Ending) -> None:
        decided = np.asarray(found.status)[: len(index)] != Status.MAX_STEPS
        self._keep(index, found, decided)
        self.left = np.append(self.left, index[~decided])

    def _keep_found(self, index: np.ndarray, found: Ending) -> None:
        self._keep(index, found, np.ones(len(index), bool))

    def _keep(self, index: np.ndarray, found: Ending, ended: np.ndarray) -> None:
        found = jax.device_get(found)
        if self.found is None:
            blank = jax.tree.map(lambda a: _blank(a, self.lanes.size), found)
            blank.status[:] = Status.MAX_STEPS
            self.found = blank
        ended = np.flatnonzero(ended)
        jax.tree.map(lambda a, new: a.__setitem__(index[ended], new[ended]), self.found, found)
        self.is_done[index[ended]] = True
        self.done += len(ended)


def _spread(shape: Shape) -> Any:
    """Where the lanes of a call are."""
    if shape.devices == 1:
        return None
    return NamedSharding(mesh_of(shape.devices), PartitionSpec("lanes"))


def is_much_work(problem: Problem, count: int) -> bool:
    """Whether a pass over so many problems is worth a program that is better optimised."""
    return count * problem.data.x.size * (problem.model.variables.num_classes or 1) >= _MUCH_WORK


def _blank(a: np.ndarray, size: int) -> np.ndarray:
    """Nothing found yet, for all lanes."""
    if a.dtype.kind == "f":
        return np.full((size, *a.shape[1:]), np.nan, a.dtype)
    return np.zeros((size, *a.shape[1:]), a.dtype)


def _padded(index: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([index, np.full(size - len(index), index[-1])])
