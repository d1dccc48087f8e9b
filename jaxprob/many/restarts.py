"""Restarts: one model from many starting points, all of them returned.

A convex objective has one minimum, and every start must end there: a check of solver and data.
Others may have several; the fit with the best objective is then the one to take, and how often it
was found says how far to trust it.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Model
from jaxprob.fit import Fit, check_data_of
from jaxprob.many.engine.keys import check_key
from jaxprob.many.fitting import fit_many
from jaxprob.problem.problem import Rows
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Solver


@dataclass(frozen=True)
class Restarts:
    """Fits of one problem from several starts.

    Attributes:
        fits: one a lane; `fits.report()` says which failed.
        objective: (B,) nats, what was minimised: minus the objective of each fit.
    """

    fits: Fit
    objective: np.ndarray

    @property
    def best(self) -> Fit:
        """The fit with the least objective, of those that converged where some did."""
        return self.fits.lane(self._best())

    def times_found(self, *, within: float | None = None) -> int:
        """How many of the converged runs ended as good as the best.

        Args:
            within: nats; where None, as close as the runs can tell: by what was left to gain in
                both (their `gap`) and the rounding of the objective.
        """
        return int(np.sum(as_good(self.fits, within=within)))

    def _best(self) -> int:
        good = np.asarray(self.fits.usable)
        known = np.where(np.isnan(self.objective), np.inf, self.objective)
        return int(np.argmin(np.where(good, known, np.inf) if good.any() else known))

    def __str__(self) -> str:
        good = int(np.sum(np.asarray(self.fits.usable)))
        return (
            f"{len(self.objective):,} starts, {good:,} converged, {self.times_found():,} of them "
            f"to the best objective, {self.objective[self._best()]:.6f} nats"
        )


def as_good(fits: Fit, *, within: float | None = None) -> np.ndarray:
    """Which of many fits of one problem ended as good as the best, as far as they can tell.

    A fit with gap g is within g of its maximum, and its objective f is rounded; so a fit i and the
    best one, b, may have the same maximum where

        f_b - f_i ≤ 2 (g_i + g_b) + 4 ε (|f_i| + |f_b|)

    twice the gaps since those of mixtures are estimates.

    Args:
        fits: of one problem, from several starts.
        within: nats, in place of the right-hand side.

    Returns:
        (B,) bool, False for those that did not converge.

    Example:
        >>> import jaxprob as jp
        >>> fits = jp.many.fit_many(jp.models.logistic.model(), [[1.0], [2.0], [3.0]], [0, 0, 1],
        ...                         l2=np.array([1.0, 1.0, 9.0]))
        >>> as_good(fits).tolist()
        [True, True, False]
    """
    objective, gap = np.asarray(fits.objective, np.float64), np.asarray(fits.gap, np.float64)
    good = np.asarray(fits.usable) & np.isfinite(objective)
    if not good.any():
        return good
    best = np.argmax(np.where(good, objective, -np.inf))
    gap = np.where(np.isfinite(gap), gap, 0.0)  # infinite where a search cannot know it
    rounding = 4 * float(jnp.finfo(fits.objective.dtype).eps) * np.abs(objective)
    slack = 2 * gap + rounding
    allowed = slack + slack[best] if within is None else within
    return good & (objective[best] - objective <= allowed)


def restarts(
    model: Model,
    x: Any,
    y: Any,
    key: Array,
    *,
    num_starts: int = 10,
    scale: float | None = None,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Restarts:
    """Fit a model from several starting points.

    Each is what the model starts from, under a key of its own, plus normal noise.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features.
        y: (n,), as the model has it; None for a density of x alone.
        key: a typed PRNG key.
        num_starts: B.
        scale: the standard deviation of the noise in each parameter; where None, none for models
            that start elsewhere with every key, and 1 for others.
        weights: (n,) of the examples.
        offset: as of `jaxprob.fit`.
        l2: () ≥ 0.
        l1: () ≥ 0.
        firth: as of `jaxprob.fit`.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        Restarts, with the best of the fits and all others.

    Raises:
        ValueError: as `jaxprob.fit`, and for no starts or a scale that is no positive number.
        TypeError: as `jaxprob.fit`, and for a key that is none.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> found = restarts(logistic.model(), x, y, jax.random.key(0), num_starts=4, l2=1.0)
        >>> found.times_found(within=1e-3)
        4
    """
    check_key(key)
    if num_starts < 1:
        raise ValueError(f"num_starts: expected at least 1, got {num_starts}")
    if scale is not None and not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"scale: expected a finite number of at least 0, got {scale}")
    data = check_data_of(model, x, y, weights, offset)
    keys = jax.random.split(key, max(2, num_starts))
    starts = _starts(Rows(*data[:4]), keys, scale, model=model)
    fits = fit_many(
        model,
        data.x,
        data.y,
        weights=data.weights,
        offset=data.offset,
        l2=l2,
        l1=l1,
        firth=firth,
        init=jax.tree.map(lambda a: a[:num_starts], starts),
        solver=solver,
        memory_budget=memory_budget,
        progress=progress,
    )
    fits = replace(fits, schema=data.schema)
    return Restarts(fits, -np.asarray(fits.objective))


@partial(eager_jit, static_argnames=["model"])
def _starts(rows: Rows, keys: Array, scale: Any, *, model: Model) -> Any:
    """Where the model starts with each key, and noise about it.

    Without a scale that is one where the model starts at the same place with every key, else zero.
    """

    def start(key: Array) -> Any:
        return model.init(key, *rows.examples, weights=rows.weights, **rows.extras)

    own, noise = jax.vmap(jax.random.split, out_axes=1)(keys)
    flat = jax.vmap(lambda key: ravel_pytree(start(key))[0])(own)
    back = ravel_pytree(start(own[0]))[1]
    if scale is None:
        scale = jnp.all(flat[0] == flat[1]).astype(flat.dtype)
    away = jax.vmap(lambda key: jax.random.normal(key, flat.shape[1:], flat.dtype))(noise)
    return jax.vmap(back)(flat + scale * away)
