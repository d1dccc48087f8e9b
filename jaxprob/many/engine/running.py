"""Run checked lanes to a Fit of arrays, with a progress bar, and nothing lost on an interrupt."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Status
from jaxprob.data.loading import load, to_device
from jaxprob.data.schema import UNNAMED, Schema
from jaxprob.fit import Fit, Source, check_solver, solve
from jaxprob.many.engine.keeping import Seal, seals
from jaxprob.many.engine.lanes import Ending, Lanes, with_parts
from jaxprob.many.engine.schedule import Run, default_budget, in_blocks, in_phases, layout, smaller
from jaxprob.problem.problem import Problem
from jaxprob.solvers.driver import Solver

_SOME = 256  # lanes, of which the mean is where all start
_WORTH_A_FIT = 32  # lanes, from which on a fit of their mean is made


class LanesSource(NamedTuple):
    """What many fits were made from."""

    lanes: Lanes
    seals: tuple[Seal, ...] = ()
    """Of arrays of the caller's, who may have changed them."""

    def lane(self, i: int) -> Source:
        """What one of them was made from."""
        for seal in self.seals:
            seal.check(self.lanes.own[seal.name], i)
        problem = self.lanes.problem(i)
        return Source(problem.model, *problem.data, problem.centre)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `fit_many`: `fits` holds the lanes that were finished.

    The others have status MAX_STEPS, counts of zero, and NaN for everything else.
    """

    def __init__(self, fits: Fit) -> None:
        super().__init__("interrupted; the lanes that were finished are in .fits of this exception")
        self.fits = fits


def run(
    lanes: Lanes,
    solver: Solver,
    schema: Schema = UNNAMED,
    *,
    start: Array | None = None,
    phases: Callable[[Run], Iterator[np.ndarray]] | None = None,
    typical: int = 1,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Fit:
    """Fit lanes that have been checked.

    Args:
        lanes: what to fit.
        solver: how to minimise.
        schema: of the data.
        start: (p,) where all lanes start that have no "theta"; the fit of their mean where None.
        phases: which lanes to run one after the other, known as it goes; all at once where None.
        typical: how many lanes a phase has.
        memory_budget: bytes that a block of lanes may take.
        progress: whether to show a progress bar.
    """
    budget = default_budget() if memory_budget is None else _check_budget(memory_budget)
    problem = lanes.problem(0)
    check_solver(solver, problem)
    if start is None and "theta" not in lanes.own and solver.takes_start:
        start = _common_start(lanes)
    shape = layout(lanes, problem.num_params(), budget)
    lanes = in_blocks(lanes, problem.num_params(), shape)
    small = smaller(shape, lanes.size)
    if phases is not None:
        shape, small = in_phases(shape, typical)
    work = Run(lanes, solver, start, shape, small)
    try:
        with _bar(lanes.size, progress) as bar:
            for some in [np.arange(lanes.size)] if phases is None else phases(work):
                for done in work.go(some):
                    bar.update(done - bar.n)
                    bar.set_postfix(work.statuses())
    except KeyboardInterrupt:
        if work.found is None:
            raise
        raise Interrupted(_fit(lanes, problem, work.found, schema)) from None
    assert work.found is not None  # there is at least one lane
    return _fit(lanes, problem, work.found, schema)


def _check_budget(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"memory_budget: expected a number of bytes, got {value!r}")
    if not value >= 1:
        raise ValueError(f"memory_budget: expected a positive number of bytes, got {value}")
    return int(min(value, 2**62))


def _fit(lanes: Lanes, problem: Problem, found: Ending, schema: Schema) -> Fit:
    leaves, tree = jax.tree.flatten(found)
    found = jax.tree.unflatten(tree, load(leaves))

    def each(name: str) -> Array | None:
        shared = getattr(lanes.base, name)
        if shared is None and name not in lanes.own:
            return None
        dtype = problem.data.x.dtype
        each = np.asarray(lanes.own.get(name, shared), dtype)
        return to_device(np.broadcast_to(each, lanes.size))

    return Fit(
        params=found.params,
        status=found.status,
        log_likelihood=found.log_likelihood,
        objective=found.objective,
        gap=found.gap,
        grad_norm=found.grad_norm,
        num_steps=found.num_steps,
        direction=found.direction,
        num_examples=found.num_examples,
        total_weight=found.total_weight,
        l2=each("l2"),
        l1=each("l1"),
        trace=None,
        kept=None,
        model=problem.model,
        schema=schema,
        firth=problem.firth,
        source=LanesSource(lanes, seals(lanes.own, lanes.lent)),
    )


class _NoBar:
    """What a progress bar is where there is none."""

    n = 0

    def update(self, count: int) -> None:
        """Nothing."""

    def set_postfix(self, counts: Mapping[str, int]) -> None:
        """Nothing."""


@contextmanager
def _bar(total: int, wanted: bool | None) -> Iterator[Any]:
    try:
        from tqdm import tqdm
    except ImportError:
        if wanted:
            raise ImportError(
                "progress: the bar is drawn by tqdm, which is not installed: pip install tqdm"
            ) from None
        yield _NoBar()
        return
    disable = None if wanted is None else not wanted  # None: where there is no terminal
    with tqdm(total=total, unit="fit", disable=disable, delay=0 if wanted else 2) as bar:
        yield bar


def _common_start(lanes: Lanes) -> Array | None:
    """(p,) the fit of the mean of some lanes, where that is likely to be near all of them."""
    own, base = lanes.own, lanes.base
    if lanes.size < _WORTH_A_FIT or base.data.x is None or {"y", "key"} & set(own):
        return None
    parts: dict[str, Array] = {}
    dtype = base.data.x.dtype
    if lanes.draw is None:
        some = np.linspace(0, lanes.size - 1, min(lanes.size, _SOME)).astype(int)
        for name, a in own.items():
            chosen = np.asarray(a[some], dtype)
            good = np.isfinite(chosen).reshape(len(some), -1).all(axis=1)
            if not good.any():
                return None
            middle = np.median if name in ("l2", "l1") else np.mean
            parts[name] = jnp.asarray(middle(chosen[good], axis=0), dtype)
    outcome = solve(with_parts(base, parts))
    if int(outcome.result.evidence.status) != Status.CONVERGED:
        return None
    return outcome.result.theta
