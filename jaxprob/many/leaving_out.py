"""Jackknife: the same model without each of its examples in turn, as lanes that share the data.

An example with its weight is left out as one; those of weight zero are as good as not there.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Bind, Model
from jaxprob.fit import Fit, fit
from jaxprob.many.engine.lanes import Lanes
from jaxprob.many.resampling import Interval, live_of, problem_of, resampled, table_of
from jaxprob.problem.problem import Problem
from jaxprob.solvers.driver import Solver


@dataclass(frozen=True)
class Jackknife:
    """A fit, and the fits without each of its examples.

    Attributes:
        fit: of all examples.
        fits: without example i, in lane i; `fits.report()` says which failed.
    """

    fit: Fit
    fits: Fit

    def bias(self) -> Any:
        """(n - 1) (mean of the fits less the fit), as parameters; NaN unless all converged."""
        n = self.fit.num_examples
        return jax.tree.map(
            lambda a, b: (n - 1) * (jnp.mean(a, axis=0) - b), self._values(), self.fit.params
        )

    def standard_error(self) -> Any:
        """√((n - 1) times the variance of the fits), as parameters; NaN unless all converged."""
        n = self.fit.num_examples
        return jax.tree.map(lambda a: jnp.sqrt(n - 1.0) * jnp.std(a, axis=0), self._values())

    def interval(self, *, level: float = 0.95) -> Interval:
        """The parameters plus or minus standard errors, by Student's t with n - 1 degrees.

        Args:
            level: of confidence, between 0 and 1.

        Raises:
            ValueError: for a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level}")
        from scipy.stats import t  # a dependency of jax itself; it takes a while to import

        times = float(t.ppf((1 + level) / 2, max(1, int(self.fit.num_examples) - 1)))
        here, error = self.fit.params, self.standard_error()
        lower = jax.tree.map(lambda a, e: a - times * e, here, error)
        return Interval(lower, jax.tree.map(lambda a, e: a + times * e, here, error))

    def __str__(self) -> str:
        good, live = np.asarray(self.fits.usable), live_of(self.fit)
        lines = [f"jackknife: {np.sum(good & live):,} of {np.sum(live):,} fits converged"]
        if not good[live].all():
            lines += [f"no standard errors: {self.fits.report()}"]
        return "\n".join([*lines, *table_of(self.fit, self.standard_error(), self.interval())])

    def _values(self) -> Any:
        """Of the fits without an example that counts."""
        live = live_of(self.fit)
        good = np.asarray(self.fits.usable)[live]

        def values(a: Array) -> Array:
            return jnp.where(good.reshape(-1, *([1] * (a.ndim - 1))), a[live], jnp.nan)

        return jax.tree.map(values, self.fits.params)


def jackknife(
    model: Model,
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Jackknife:
    """Fit a model to its examples, and without each of them in turn.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features.
        y: (n,), as the model has it; None for a density of x alone.
        weights: (n,) of the examples.
        offset: as of `jaxprob.fit`.
        l2: () ≥ 0.
        l1: () ≥ 0.
        firth: as of `jaxprob.fit`.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A Jackknife, with bias, standard errors and intervals; print it.

    Raises:
        ValueError: as `jaxprob.fit`.
        TypeError: as `jaxprob.fit`.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 4, [0, 0, 1, 0, 1, 1, 0, 1, 0, 1] * 2
        >>> len(jackknife(logistic.model(), x, y).fits.status)
        20
    """
    penalties = {"l2": l2, "l1": l1, "firth": firth}
    base = fit(model, x, y, weights=weights, offset=offset, solver=solver, **penalties)
    problem = problem_of(base)
    n = problem.data.x.shape[0]
    lanes = Lanes(problem, {"left_out": np.arange(n, dtype=np.int32)}, n, Bind(_without))
    return Jackknife(base, resampled(base, lanes, solver, memory_budget, progress))


def _without(base: Problem, extra: None, own: dict[str, Array]) -> dict[str, Array]:
    """The weights without one example."""
    there = jnp.arange(base.data.x.shape[0]) != own["left_out"]
    return {"weights": jnp.where(there, base.example_weights(), 0.0)}
