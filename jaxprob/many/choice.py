r"""The choice of l2 by cross-validation: a grid first, then the root of the derivative.

With θ_k(λ) the fit without fold k, the mean held-out log-likelihood is
L(λ) = 1/K Σ_k ℓ_k(θ_k(λ)) / C_k, and by the implicit function theorem, H_k the Hessian of fit k and
w the penalised parameters,

    dL/d(log λ) = -λ/K Σ_k ∇ℓ_k(θ_k)ᵀ H_k⁻¹ w_k / C_k

A grid finds the best of many values, as L may have several maxima; between its neighbours the
derivative is brought to zero by Brent's method, each time with K fits.

Source: Bengio, Gradient-based optimization of hyperparameters, Neural Computation 12, 2000.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jax import Array

from jaxprob.contract import Model
from jaxprob.fit import Fit, check_data_of, fit
from jaxprob.many.path import penalties
from jaxprob.many.validation import CrossValidation, cross_validate
from jaxprob.solvers.driver import Solver
from jaxprob.uncertainty.sensitivity import l2_gradient


@dataclass(frozen=True)
class Choice:
    """The penalty under which held-out examples are most probable.

    Attributes:
        l2: the penalty.
        fit: of all examples with it.
        log_likelihood: nats per held-out example, the mean over folds.
        derivative: of that in log l2; zero but for rounding unless `at_end`.
        at_end: whether it is the smallest or largest value that was looked at.
        grid: the cross-validation of the grid.
    """

    l2: float
    fit: Fit
    log_likelihood: float
    derivative: float
    at_end: bool
    grid: CrossValidation

    def __str__(self) -> str:
        where = ", at the end of the values looked at" if self.at_end else ""
        return (
            f"l2 = {self.l2:.6g}{where}: {self.log_likelihood:.6f} nats per held-out example "
            f"(derivative in log l2: {self.derivative:.1e})"
        )


def choose_l2(
    model: Model,
    x: Any,
    y: Any,
    key: Array,
    *,
    values: Any = None,
    num_folds: int = 5,
    repeats: int = 1,
    stratified: bool = True,
    groups: Any = None,
    weights: Any = None,
    offset: Any = None,
    tol: float = 1e-3,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Choice:
    """Choose l2 so that held-out examples are as probable as can be.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features; scale them first, as one penalty acts on all.
        y: (n,), as the model has it.
        key: a typed PRNG key, for dealing the examples into folds.
        values: (m,) > 0, the grid to start from; 25 over eight decades where None.
        num_folds: K.
        repeats: R, how often they are dealt anew.
        stratified: whether each fold gets its share of every class.
        groups: (n,) of any type: examples of a group stay together.
        weights: (n,) of the examples, in fits and scores.
        offset: as of `jaxprob.fit`.
        tol: to what relative precision l2 is wanted.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A Choice.

    Raises:
        ValueError: as `cross_validate`, and for values or a tolerance that are not positive.
        TypeError: as `cross_validate`.

    Example:
        >>> import jax
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 8, [0, 0, 1, 0, 1, 1, 0, 1, 0, 1] * 4
        >>> choice = choose_l2(logistic.model(), x, y, jax.random.key(0))
        >>> choice.at_end, 1 < choice.l2 < 1000
        (False, True)
    """
    if not tol > 0:
        raise ValueError(f"tol: expected a positive number, got {tol}")
    data = check_data_of(model, x, y, weights, offset)
    if values is None:
        rows = {"weights": data.weights, "offset": data.offset}
        values = penalties(model, data.x, data.y, num_values=25, smallest=1e-8, **rows)  # pyright: ignore[reportArgumentType]
    values = np.sort(np.asarray(values, float))
    if values.ndim != 1 or len(values) == 0 or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(f"values: expected positive numbers (m,), got {values}")
    shared = {
        "num_folds": num_folds,
        "repeats": repeats,
        "stratified": stratified,
        "groups": groups,
        "weights": data.weights,
        "offset": data.offset,
        "solver": solver,
        "memory_budget": memory_budget,
        "progress": progress,
    }
    dtype = data.x.dtype
    grid = cross_validate(model, data.x, data.y, key, l2=values.astype(dtype), **shared)
    found: dict[float, tuple[float, float]] = {}

    def derivative(log_l2: float) -> float:
        if log_l2 in found:
            return found[log_l2][1]
        cv = cross_validate(model, data.x, data.y, key, l2=float(np.exp(log_l2)), **shared)
        slope = _derivative(cv, data)
        found[log_l2] = float(cv.mean()), slope
        return slope

    at = _root(derivative, np.log(values), grid.best(), tol)
    score, slope = found[at]
    l2 = float(np.exp(at))
    whole = fit(
        model, data.x, data.y, weights=data.weights, offset=data.offset, l2=l2, solver=solver
    )
    named = partial(replace, schema=data.schema)
    whole, grid = named(whole), replace(grid, fits=named(grid.fits), whole=named(grid.whole))
    at_end = bool(at in (np.log(values[0]), np.log(values[-1])))
    return Choice(l2, whole, score, slope, at_end, grid)


def _derivative(cv: CrossValidation, data: Any) -> float:
    """dL/d(log l2) of a cross-validation with one penalty."""
    slopes, most = [], max(int(np.bincount(fold).max()) for fold in cv.folds)
    x, weights = np.asarray(data.x), None if data.weights is None else np.asarray(data.weights)
    for lane, (r, k) in enumerate(np.ndindex(*cv.used.shape)):
        if not cv.used[r, k]:
            continue
        index = np.flatnonzero(cv.folds[r] == k)
        c = np.zeros(most, x.dtype)
        c[: len(index)] = 1.0 if weights is None else weights[index]
        index = np.resize(index, most)  # all folds of one size, and with one program
        y, offset = (None if a is None else np.asarray(a)[index] for a in (data.y, data.offset))
        slope = l2_gradient(cv.fits.lane(lane), x[index], y, weights=c, offset=offset)
        slopes.append(float(slope) * float(cv.l2) / float(c.sum()))
    return float(np.mean(slopes)) if slopes else np.nan


def _root(derivative: Callable[[float], float], s: np.ndarray, best: int, tol: float) -> float:
    """Where the derivative changes its sign next to the best of the values; an end if nowhere."""
    from scipy.optimize import brentq  # a dependency of jax itself; it takes a while to import

    at, slope = s[best], derivative(s[best])
    step = 1 if slope > 0 else -1
    for other in s[best + step :: step] if 0 <= best + step < len(s) else []:
        ahead = derivative(other)
        if not np.isfinite(slope * ahead):
            return at
        if slope * ahead <= 0:
            low, high = sorted((float(at), float(other)))
            return brentq(derivative, low, high, xtol=tol / 2)  # pyright: ignore[reportReturnType]
        at, slope = other, ahead
    return at
