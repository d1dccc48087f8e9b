"""Fits that start from their neighbours': one model for a range of penalties, with folds left out.

The fits to all examples come first: some penalties, the knots, and then the others, from
polynomials through their neighbours. Folds follow, coarse to fine. Each starts where the fit to all
examples is, moved by what leaving the fold out has changed at its neighbours; and with information
between that of its own examples at two knots, which costs one look at the rows of each fold, so
that hardly any lane needs a Hessian of its own.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec

from jaxprob.contract import Bind, Status
from jaxprob.data.loading import picked, to_device
from jaxprob.data.schema import UNNAMED, Schema
from jaxprob.fit import Fit, default_solver, recentred, solve
from jaxprob.many.engine.lanes import Lanes, mesh_of, with_parts
from jaxprob.many.engine.running import Interrupted, LanesSource, run
from jaxprob.many.engine.schedule import Run, is_much_work
from jaxprob.numerics.products import einsum
from jaxprob.problem.problem import Known, Problem
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Solver

_PER_KNOT = 8  # penalties
_LEAST_KNOTS = 4
_DEGREE = 5
_DEGREE_L1 = 1  # coefficients have kinks where others become zero
_KNOWN_BYTES = 1 << 28  # of all information that is kept


class Grid(NamedTuple):
    """Penalties × parts of the examples: part 0 is all of them, each other one lacks a fold."""

    base: Problem
    """What is shared; penalties are None there where there is a table of them."""
    tables: dict[str, np.ndarray]
    """(m,) l2 and l1, those that differ."""
    values: np.ndarray
    """(m,) by which penalties are near each other."""
    folds: np.ndarray | None
    """(R, n) the fold of each example, 0..K-1; None without folds."""

    @property
    def num_folds(self) -> int:
        """K."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    @property
    def num_parts(self) -> int:
        """1 + R K."""
        return 1 + (0 if self.folds is None else len(self.folds) * self.num_folds)


def fit_grid(
    grid: Grid,
    solver: Solver | None,
    schema: Schema = UNNAMED,
    *,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> tuple[Fit, Fit | None]:
    """Fit a model for each penalty to all examples, and to those outside of each fold.

    Args:
        grid: checked.
        solver: how to minimise; the default one where None.
        schema: of the data.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A Fit of arrays (m,), and one (m R K,), None without folds.
    """
    has_l1 = "l1" in grid.tables or grid.base.l1 is not None
    has_l2 = "l2" in grid.tables or grid.base.l2 is not None
    if solver is None:
        settings = {"has_l1": has_l1, "has_l2": has_l2, "firth": grid.base.firth}
        solver = default_solver(grid.base.model, **settings)
    grid = grid._replace(base=recentred(grid.base, [solver]))
    m = len(grid.values)
    fold = np.indices((m, grid.num_parts - 1)).reshape(2, -1) + [[0], [1]]
    whole = np.stack([np.arange(m), np.zeros(m, int)])
    penalty, part = np.concatenate([whole, fold], axis=1).astype(np.int32)
    warm = Neighbours(grid, _start(grid, solver, len(part)), _DEGREE_L1 if has_l1 else _DEGREE)
    own = {
        "penalty": penalty,
        "part": part,
        "knot": warm.knot[penalty],
        "share": warm.share[penalty],
        "theta": np.repeat(warm.start[None], len(part), axis=0),
    }
    num_folds = np.asarray(grid.num_folds, np.int32)
    extra = {"folds": grid.folds, "num_folds": num_folds, "tables": grid.tables}
    lanes = Lanes(grid.base, own, len(part), Bind(_lane), jax.tree.map(to_device, extra))
    known = warm.first_known() if solver.takes_known else None

    def some(fits: Fit, lanes_of: slice) -> Fit:
        tables = {name: table[penalty] for name, table in grid.tables.items()}
        chosen = picked(replace(fits, **tables), lanes_of)
        taken = {name: a[lanes_of] for name, a in own.items()}
        source = LanesSource(lanes._replace(own=taken, size=len(taken["part"])))
        return replace(chosen, source=source)

    try:
        fits = run(
            lanes._replace(extra=lanes.extra | {"known": known}),
            solver,
            schema,
            phases=warm.phases,
            typical=len(warm.levels[0]) * max(1, grid.num_parts - 1),
            memory_budget=memory_budget,
            progress=progress,
        )
    except Interrupted as stop:
        raise Interrupted(some(stop.fits, slice(None))) from None
    return some(fits, slice(m)), None if grid.folds is None else some(fits, slice(m, None))


def _start(grid: Grid, solver: Solver, size: int) -> np.ndarray:
    """(p,) the fit with the penalty in the middle, where that saves time, or the model's start."""
    if not (solver.takes_known or is_much_work(grid.base, size)):
        return np.asarray(grid.base.start())
    middle = np.argsort(grid.values, kind="stable")[len(grid.values) // 2]
    problem = with_parts(grid.base, picked(grid.tables, middle))
    outcome = solve(problem)
    good = int(outcome.result.evidence.status) == Status.CONVERGED
    return np.asarray(outcome.result.theta if good else problem.start())


def _lane(base: Problem, extra: Any, own: dict[str, Array]) -> dict[str, Any]:
    """The parts of one lane: its penalties, the weights without its fold, and where it starts."""
    parts: dict[str, Any] = {name: table[own["penalty"]] for name, table in extra["tables"].items()}
    if extra["folds"] is not None:
        repeat, fold = jnp.divmod(own["part"] - 1, extra["num_folds"])
        left_out = (extra["folds"][repeat] == fold) & (own["part"] > 0)
        parts["weights"] = jnp.where(left_out, 0.0, base.example_weights())
    if extra.get("known") is not None:
        theta, information, spread = extra["known"]
        one, part, share = own["knot"], own["part"], own["share"]
        next_one = jnp.minimum(one + 1, len(theta) - 1)
        mean = (1 - share) * information[one, part] + share * information[next_one, part]
        parts["known"] = Known(theta[one], mean, spread[one])
    return parts | {"theta": own["theta"]}


class Neighbours:
    """Where lanes start by what is known when their turn comes."""

    def __init__(self, grid: Grid, start: np.ndarray, degree: int) -> None:
        self.grid, self.start, self.degree = grid, start, degree
        order = np.argsort(grid.values, kind="stable")
        self.levels = [order[level] for level in _levels(len(order))]
        first = self.levels[0]
        each = start.itemsize * grid.num_parts * len(start) ** 2
        self.knots = first[_evenly(len(first), min(len(first), _KNOWN_BYTES // max(1, each)))]
        self.knot, self.share = np.zeros(len(order), np.int32), np.zeros(len(order), start.dtype)
        if len(self.knots) > 1:
            logs = _logs(grid.values)
            s = logs[self.knots]
            self.knot[:] = np.clip(np.searchsorted(s, logs, "right") - 1, 0, len(s) - 2)
            low, high = s[self.knot], s[self.knot + 1]
            self.share[:] = (logs - low) / np.where(high > low, high - low, 1.0)

    def first_known(self) -> Known | None:
        """The information where the first lanes start, for all knots; None if all is too much."""
        if len(self.knots) == 0:
            return None
        alone = len(self.grid.values) == 1  # and what is known of folds is known for good
        known = _known(self.grid, self.start[None], alone)
        return Known(*picked(known, np.zeros(len(self.knots), int)))

    def phases(self, work: Run) -> Iterator[np.ndarray]:
        """The lanes to run next; their starts are set."""
        m, parts = len(self.grid.values), self.grid.num_parts
        every, theta = np.arange(m), work.lanes.own["theta"]
        guess = np.repeat(self.start[None], m, axis=0)
        first, *others = self.levels
        yield first
        if others:
            if work.common.extra["known"] is not None:
                self._look_at_knots(work)
            rest = np.sort(np.concatenate(others))
            theta[rest] = self._guess(work, every, rest, guess, np.zeros_like(guess))
            yield rest
        whole, good = work.parameters(every)
        whole = np.where(good[:, None], whole, self.start)
        folds = np.arange(m, m * parts).reshape(m, parts - 1)
        for level in self.levels if parts > 1 else ():
            for lanes in folds.T:
                theta[lanes[level]] = self._guess(work, lanes, level, whole, whole)
            yield folds[level].ravel()

    def _guess(
        self, work: Run, lanes: np.ndarray, at: np.ndarray, guess: np.ndarray, base: np.ndarray
    ) -> np.ndarray:
        """(q, p) from what lanes (m,) have found beyond the base (m, p); else a guess (m, p)."""
        found, good = work.parameters(lanes)
        good = np.flatnonzero(good)
        if len(good) < 2:
            return guess[at]
        logs = _logs(self.grid.values)
        return base[at] + between(logs[good], found[good] - base[good], logs[at], self.degree)

    def _look_at_knots(self, work: Run) -> None:
        """Find the information of all parts at the knots, where their fits have converged."""
        found, good = work.parameters(self.knots)
        points = np.where(good[:, None], found, self.start)
        work.share(work.common.extra | {"known": _known(self.grid, points, True)})


def _known(grid: Grid, points: np.ndarray, of_folds: bool) -> Known:
    """The information of each part at some points (k, p); zeros for those with folds if unasked."""
    devices = len(jax.local_devices())
    padded = np.resize(points, (-(-len(points) // devices) * devices, points.shape[1]))
    index, live = _rows_of_folds(grid) if of_folds else (None, None)
    information = np.asarray(_information(grid.base, padded, index, live, devices=devices))
    information = information[: len(points)]
    lacking = grid.num_parts - information.shape[1]
    information = np.pad(information, [(0, 0), (0, lacking), (0, 0), (0, 0)])
    at = to_device(points)
    return Known(at, to_device(information), _apart(grid.base, at))


@eager_jit
def _apart(base: Problem, points: Array) -> Array:
    """(k,) log of how many times that at a point the information at the next one is at most."""
    proofs, steps = base.certificates, jnp.diff(points, axis=0, append=points[-1:])
    if proofs is None:
        return jnp.zeros(len(points), points.dtype)
    return jax.vmap(proofs.logit_range, in_axes=(0, None))(steps, base)


def _rows_of_folds(grid: Grid) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(R, K, most) the rows of each fold, filled up with others; which of them are its own."""
    if grid.folds is None:
        return None, None
    rows = [[np.flatnonzero(fold == k) for k in range(grid.num_folds)] for fold in grid.folds]
    most = max(len(index) for folds in rows for index in folds)
    live = [[np.arange(most) < len(index) for index in folds] for folds in rows]
    index = [[np.resize(index, most) for index in folds] for folds in rows]
    return np.array(index, np.int32), np.array(live)


@partial(eager_jit, static_argnames=["devices"])
def _information(
    base: Problem, points: Array, index: Array | None, live: Array | None, *, devices: int
) -> Array:
    """(k, P, p, p): at each point that of all examples, and that of all but each fold."""

    def at_points(base: Problem, points: Array, index: Any, live: Any) -> Array:
        def of_rows(rows: tuple[Array, Array]) -> Array:
            return jax.vmap(base.rows(*rows).information)(points)

        if index is None:
            return jax.vmap(base.information)(points)[:, None]
        repeats, num_folds, most = index.shape
        held_out = jax.lax.map(of_rows, (index.reshape(-1, most), live.reshape(-1, most)))
        held_out = held_out.reshape(repeats, num_folds, *held_out.shape[1:])
        others = 1.0 - jnp.eye(num_folds, dtype=held_out.dtype)
        rest = einsum("jk,rk...->rj...", others, held_out)
        rest = rest.reshape(-1, *rest.shape[2:])
        return jnp.concatenate([jnp.sum(held_out[0], axis=0)[None], rest]).swapaxes(0, 1)

    if devices == 1:
        return at_points(base, points, index, live)
    own, everywhere = PartitionSpec("lanes"), PartitionSpec()
    return jax.shard_map(
        at_points,
        mesh=mesh_of(devices),
        in_specs=(everywhere, own, everywhere, everywhere),
        out_specs=own,
        check_vma=False,
    )(base, points, index, live)


def _levels(m: int) -> list[np.ndarray]:
    """Positions among m sorted values: knots, both ends among them, then what halves the gaps."""
    known = _evenly(m, min(m, max(_LEAST_KNOTS, math.ceil(m / _PER_KNOT) + 1)))
    levels = [known]
    while len(known) < m:
        between_them = np.unique((known[:-1] + known[1:]) // 2)
        levels.append(np.setdiff1d(between_them, known))
        known = np.union1d(known, between_them)
    return levels


def _evenly(m: int, count: int) -> np.ndarray:
    """So many of m positions, both ends among them if there are two."""
    return np.unique(np.round(np.linspace(0, m - 1, count)).astype(int))


def _logs(values: np.ndarray) -> np.ndarray:
    """(m,) log λ, of 0 that of the least other."""
    least = np.min(values[values > 0], initial=np.inf)
    return np.log(np.maximum(values, least if np.isfinite(least) else 1.0))


def between(knots: np.ndarray, theta: np.ndarray, at: np.ndarray, degree: int) -> np.ndarray:
    """Polynomials through the nearest knots.

    Args:
        knots: (k,) where it is known, in any order.
        theta: (k, p) what is known.
        at: (q,) where to guess.
        degree: of the polynomials, less where there are fewer knots.

    Returns:
        (q, p).
    """
    s, kept = np.unique(knots, return_index=True)
    theta = theta[kept]
    count = min(degree + 1, len(s))
    first = np.clip(np.searchsorted(s, at) - count // 2, 0, len(s) - count)
    index = first[:, None] + np.arange(count)
    near = s[index]
    shares = np.ones_like(near)
    for i in range(count):
        for j in range(count):
            if i != j:
                shares[:, i] *= (at - near[:, j]) / (near[:, i] - near[:, j])
    return np.einsum("qi,qip->qp", shares, theta[index])
