"""One model for each group of examples: a gene, a shop, a neuron.

Groups differ in size. They are filled up with examples of weight zero to a few sizes, powers of
two, so that at most half of all that is computed is waste; those of a size are fitted in one call,
and each size is a program to compile.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.contract import Model, Status
from jaxprob.fit import Fit, Source, check_data_of
from jaxprob.many.fitting import fit_many
from jaxprob.many.folds import check_groups
from jaxprob.problem.problem import Rows
from jaxprob.solvers.driver import Solver

_LEAST = 8  # rows


class _Members(NamedTuple):
    """What the groups were fitted to."""

    model: Model
    data: Rows
    order: np.ndarray  # (n,) rows, group after group
    starts: np.ndarray  # (G + 1,)

    def lane(self, i: int) -> Source:
        """The rows of one group."""
        i = i % (len(self.starts) - 1)
        index = self.order[self.starts[i] : self.starts[i + 1]]
        return Source(self.model, *jax.tree.map(lambda a: a[index], self.data))


@dataclass(frozen=True)
class Groups:
    """A fit for each group.

    Attributes:
        fits: one a lane, in the order of `values`.
        values: (G,) what the groups are called, sorted.
        sizes: (G,) how many examples each has.
    """

    fits: Fit
    values: np.ndarray
    sizes: np.ndarray

    def __getitem__(self, value: Any) -> Fit:
        found = np.flatnonzero(self.values == value)
        if len(found) != 1:
            raise KeyError(value)
        return self.fits.lane(int(found[0]))

    def failures(self) -> list[str]:
        """Which groups' fits did not converge, and why."""
        return [
            f"{self.values[f.lane]}: {f.status.name}: {f.reason}"
            for f in self.fits.report().failures
        ]

    def __str__(self) -> str:
        status = np.asarray(self.fits.status)
        lines = [
            f"{len(self.values):,} groups of {self.sizes.min():,} to {self.sizes.max():,} examples"
        ]
        kinds, counts = np.unique(status, return_counts=True)
        lines += [
            f"  {Status(int(k)).name:<13} {c:>9,}" for k, c in zip(kinds, counts, strict=True)
        ]
        failures = self.failures()
        lines += failures[:_SHOWN]
        if len(failures) > _SHOWN:
            lines.append(f"… and {len(failures) - _SHOWN:,} more in .failures()")
        return "\n".join(lines)


_SHOWN = 10


def fit_groups(
    model: Model,
    x: Any,
    y: Any,
    groups: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Groups:
    """Fit a model to each group of examples on its own.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features.
        y: (n,), as the model has it; None for a density of x alone.
        groups: (n,) of any type that sorts: to which group each example belongs.
        weights: (n,) of the examples.
        offset: as of `jaxprob.fit`.
        l2: () ≥ 0, or (G,), one for each group in sorted order.
        l1: () ≥ 0, or (G,).
        firth: whether to add Firth's penalty, as `jaxprob.fit` does.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        Groups; `groups["name"]` is the Fit of one. A group that lacks a class, or is separated, has
        that status.

    Raises:
        ValueError: as `jaxprob.fit`, and unless there is a group for each example.
        TypeError: as `jaxprob.fit`, and for groups that do not sort together.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 2, [0, 0, 1, 0, 1, 1, 1, 0, 1, 0]
        >>> shops = fit_groups(logistic.model(), x, y, ["north"] * 5 + ["south"] * 5, l2=1.0)
        >>> bool(shops["north"].params.weights[0] > 0 > shops["south"].params.weights[0])
        True
    """
    data = check_data_of(model, x, y, weights, offset)
    n = data.x.shape[0]
    values, member = check_groups(groups, n)
    sizes = np.bincount(member)
    own = {"l2": l2, "l1": l1}
    for name, penalty in own.items():
        if penalty is not None and np.ndim(penalty) > 0 and np.shape(penalty) != values.shape:
            raise ValueError(
                f"{name}: expected a number, or one for each of {len(values)} groups, "
                f"got shape {np.shape(penalty)}"
            )
    order = np.argsort(member, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows = Rows(*(None if a is None else np.asarray(a) for a in data[:4]))  # pyright: ignore[reportArgumentType]
    padded = _filled_up(sizes)

    def penalties_of(some: np.ndarray) -> dict[str, Any]:
        return {k: p if np.ndim(p) == 0 else np.asarray(p)[some] for k, p in own.items()}

    parts, index = [], []
    for size in np.unique(padded):
        some = np.flatnonzero(padded == size)
        parts.append(
            fit_many(
                model,
                **_filled(rows, order, starts[some], sizes[some], size),
                **penalties_of(some),
                firth=firth,
                solver=solver,
                memory_budget=memory_budget,
                progress=progress,
            )
        )
        index.append(some)
    back = np.argsort(np.concatenate(index))
    fits = jax.tree.map(lambda *a: jnp.concatenate(a)[back], *parts)
    source = _Members(model, Rows(*data[:4]), order, starts)
    fits = replace(fits, source=source, schema=data.schema)
    return Groups(fits, values, sizes)


def _filled_up(sizes: np.ndarray) -> np.ndarray:
    """(G,) powers of two, as few different ones as fill all groups to less than twice their sum."""
    padded = np.maximum(_LEAST, 2 ** np.ceil(np.log2(sizes)).astype(int))
    for size, larger in zip(*_neighbours(padded), strict=True):
        merged = np.where(padded == size, larger, padded)
        if merged.sum() <= 2 * sizes.sum():
            padded = merged
    return padded


def _neighbours(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = np.unique(padded)
    return every[:-1], every[1:]


def _filled(
    rows: Rows, order: np.ndarray, starts: np.ndarray, sizes: np.ndarray, size: int
) -> dict[str, Any]:
    """The rows of some groups (G, size, ...), those beyond a group's own without weight."""
    inside = np.arange(size) < sizes[:, None]
    index = order[np.where(inside, starts[:, None] + np.arange(size), starts[:, None])]
    weights = inside.astype(rows.x.dtype)
    if rows.weights is not None:
        weights = weights * np.asarray(rows.weights)[index]
    given = {"x": rows.x, "y": rows.y, "offset": rows.offset}
    return {k: None if a is None else np.asarray(a)[index] for k, a in given.items()} | {
        "weights": weights
    }
