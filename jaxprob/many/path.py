"""Paths: one model over a range of penalties, each fit started from its neighbours'.

The penalty λ acts as l2 = (1 - r) λ and l1 = r λ: r = 0 is ridge, r = 1 the lasso, what is between
the elastic net.

Source: Zou and Hastie, Regularization and variable selection via the elastic net, JRSS B 67, 2005;
Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via coordinate
descent, Journal of Statistical Software 33, 2010, section 2.5 (the largest penalty).
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Model, Status, Trait
from jaxprob.data.arrays import OneWarning
from jaxprob.fit import Fit, check_data_of, solve
from jaxprob.fit.report import flat_params, parameter_names
from jaxprob.many.engine.arguments import make_lanes
from jaxprob.many.engine.neighbours import Grid, fit_grid
from jaxprob.problem.problem import Problem, Rows
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Solver

_SMALLEST = 1e-4  # penalty of a path, as a part of the largest
_RIDGE = 1e-3  # the share of l1 by which the largest penalty of ridge is found, as glmnet does


@dataclass(frozen=True)
class Path:
    """Fits over a range of penalties.

    Attributes:
        fits: one a lane, in the order of `values`.
        values: (m,) λ.
        l1_ratio: r, the share of λ that is l1.
    """

    fits: Fit
    values: np.ndarray
    l1_ratio: float

    def coefficients(self) -> np.ndarray:
        """(m, p) the penalised parameters, zeros where they were shrunk to nothing."""
        return flat_params(self.fits.params)[:, self._penalised()]

    def num_nonzero(self) -> np.ndarray:
        """(m,) how many of the penalised parameters are not zero."""
        return np.count_nonzero(self.coefficients(), axis=1)

    def names(self) -> tuple[str, ...]:
        """(p,) of the penalised parameters."""
        every = parameter_names(
            self.fits.params, self.fits.feature_names, batch=1, model=self.fits.model
        )
        return tuple(n for n, p in zip(every, self._penalised(), strict=True) if p)

    def _penalised(self) -> np.ndarray:
        params = jax.tree.map(lambda a: a[0], self.fits.params)
        return np.asarray(ravel_pytree(self.fits.model.geometry.penalised(params))[0])  # pyright: ignore[reportOptionalCall]

    def __str__(self) -> str:
        nonzero, lik = self.num_nonzero(), np.asarray(self.fits.log_likelihood)
        lines = [f"{'penalty':>11}  nonzero  log-likelihood  status"]
        lines += [
            f"{v:>11.4g} {k:>8} {ll:>15.4f}  {Status(int(s)).name}"
            for v, k, ll, s in zip(self.values, nonzero, lik, self.fits.status, strict=True)
        ]
        return "\n".join(lines)


def path(
    model: Model,
    x: Any,
    y: Any,
    *,
    values: Any = None,
    l1_ratio: float = 0.0,
    num_values: int = 100,
    smallest: float | None = None,
    weights: Any = None,
    offset: Any = None,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Path:
    """Fit a model for each of many penalties.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features; scale them first, as one penalty acts on all.
        y: (n,), as the model has it.
        values: (m,) penalties λ ≥ 0 in any order; l2 = (1 - r) λ and l1 = r λ. Evenly spaced in
            log λ from the largest that matters where None.
        l1_ratio: r, between 0 (ridge) and 1 (lasso).
        num_values: m, where values is None.
        smallest: the last of them, as a part of the first; 1e-4 with l1 and 1e-7 without, whose
            first is a thousand times larger, where None.
        weights: (n,) of the examples.
        offset: as of `jaxprob.fit`.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A Path.

    Raises:
        ValueError: as `jaxprob.fit`, and for a ratio outside [0, 1] or no values.
        TypeError: as `jaxprob.fit`.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], [0, 0, 1, 0, 1]
        >>> lasso = path(logistic.model(), x, y, l1_ratio=1.0, num_values=5, smallest=0.1)
        >>> lasso.num_nonzero().tolist()
        [0, 1, 1, 1, 1]
    """
    if not (isinstance(l1_ratio, int | float) and 0 <= l1_ratio <= 1):
        raise ValueError(f"l1_ratio: expected a number from 0 to 1, got {l1_ratio!r}")
    rows = {"x": x, "y": y, "weights": weights, "offset": offset}
    with OneWarning():
        if values is None:
            settings = {"l1_ratio": l1_ratio, "num_values": num_values, "smallest": smallest}
            values = penalties(model, **rows, **settings)
        else:
            values = np.array(values)
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"values: expected shape (m,), at least one, got {values.shape}")
        l2 = values * (1 - l1_ratio) if l1_ratio < 1 else None
        l1 = values * l1_ratio if l1_ratio > 0 else None
        lanes, schema = make_lanes(model, rows | {"l2": l2, "l1": l1})
    grid = Grid(lanes.base, {name: np.asarray(a) for name, a in lanes.own.items()}, values, None)
    fits, _ = fit_grid(grid, solver, schema, memory_budget=memory_budget, progress=progress)
    return Path(fits, values, float(l1_ratio))


def penalties(
    model: Model,
    x: Any,
    y: Any,
    *,
    l1_ratio: float = 0.0,
    num_values: int = 100,
    smallest: float | None = None,
    weights: Any = None,
    offset: Any = None,
) -> np.ndarray:
    """Penalties worth a look, evenly spaced in their logarithm, the largest first.

    The first is the least by which all penalised parameters are zero; for ridge, where none is,
    that of an elastic net with a thousandth of l1.

    Args:
        model: with penalised parameters.
        x: (n, d) features.
        y: (n,), as the model has it.
        l1_ratio: between 0 and 1.
        num_values: m ≥ 1.
        smallest: the last, as a part of the first, between 0 and 1; 1e-4 with l1 and 1e-7 without
            where None.
        weights: (n,) of the examples.
        offset: as of `jaxprob.fit`.

    Returns:
        (m,).

    Raises:
        ValueError: for a model without penalised parameters, and numbers out of range.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-1.0], [1.0]], [0, 1]
        >>> penalties(logistic.model(), x, y, l1_ratio=1.0, num_values=3).tolist()
        [1.0, 0.01, 0.0001]
    """
    if num_values < 1:
        raise ValueError(f"num_values: expected at least 1, got {num_values}")
    smallest = _SMALLEST * (1 if l1_ratio > 0 else _RIDGE) if smallest is None else smallest
    if not 0 < smallest < 1:
        raise ValueError(f"smallest: expected a number between 0 and 1, got {smallest}")
    if Trait.PENALISED not in model.offers:
        raise ValueError(f"model: {model.name} has no parameters that a penalty makes sense for")
    data = check_data_of(model, x, y, weights, offset)
    problem = Problem(Rows(*data[:4]), None, None, model, False, None)
    steepest = float(_steepest(problem, _null(problem)))
    largest = steepest / max(l1_ratio, _RIDGE)
    if not (math.isfinite(largest) and largest > 0):
        raise ValueError("x: expected features that the labels depend on, got a gradient of zero")
    return largest * np.logspace(0, math.log10(smallest), num_values)


def _null(problem: Problem) -> np.ndarray:
    """(p,) the optimum among parameters whose penalised entries are zero."""
    bare = replace(problem, data=problem.data._replace(x=problem.data.x[:, :0]))
    bare = replace(bare, model=replace(bare.model, certificates=None))
    theta = np.array(problem.start())
    penalised = _mask(problem)
    theta[penalised] = 0.0
    if not penalised.all():
        theta[~penalised] = solve(bare).result.theta
    return theta


@eager_jit
def _steepest(problem: Problem, theta: Array) -> Array:
    """() the largest derivative in a penalised parameter."""
    _, grad = problem.value_and_grad(theta)
    return jnp.max(jnp.where(problem.mask(), jnp.abs(grad), 0.0))


def _mask(problem: Problem) -> np.ndarray:
    """(p,) bool."""
    return np.asarray(problem.mask())
