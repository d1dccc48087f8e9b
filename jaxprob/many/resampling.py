r"""Bootstrap: the same model on reweighted examples, as lanes that share the data.

A resample is a vector of multiplicities m: example i counts c_i m_i times. So the data are never
copied, shapes never change, and all replicates are fitted in one call. The multiplicities are
drawn on the device, a block of lanes at a time, and never stored.

    multinomial   m ~ Multinomial(n, 1/n): n examples drawn with replacement (Efron)
    poisson       m_i ~ Poisson(1) independently: the same for large n
    bayesian      m ~ n Dirichlet(1, ..., 1): no example is ever lost (Rubin)

An example with its weight is drawn as one. Those of weight zero are as good as not
there: n counts the others. Rows that are observations of their own, though alike, are not a weight
here: repeat them (`numpy.repeat`).

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 14; Rubin, The
Bayesian bootstrap, Annals of Statistics 9, 1981.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Bind, Model
from jaxprob.fit import Fit, default_solver, fit
from jaxprob.fit.report import flat_params, parameter_names
from jaxprob.fit.verdicts import check_optimum, has_optimum
from jaxprob.many.engine.keys import check_key
from jaxprob.many.engine.lanes import Lanes
from jaxprob.many.engine.running import run
from jaxprob.problem.problem import Problem
from jaxprob.solvers.driver import Solver
from jaxprob.uncertainty.sensitivity import influence

SCHEMES = ("multinomial", "poisson", "bayesian")
METHODS = ("percentile", "basic", "bca")
_MOST_COUNT = 20  # Poisson(1) exceeds it once in 10²⁰ draws


class Interval(NamedTuple):
    """Limits of a confidence interval."""

    lower: Any
    upper: Any


@dataclass(frozen=True)
class Bootstrap:
    """A fit, and fits of resamples of its examples.

    Attributes:
        fit: of the examples as they are.
        fits: of the resamples, one a lane; `fits.report()` says which failed.
        scheme: how they were drawn.
    """

    fit: Fit
    fits: Fit
    scheme: str

    @property
    def used(self) -> Array:
        """(B,) bool: the replicates that count, those converged or trained."""
        return self.fits.usable

    def statistics(self, statistic: Callable[[Any], Any] | None = None) -> Any:
        """A function of the parameters of each replicate that counts, (number used, ...).

        Args:
            statistic: params -> array or tree of arrays; the parameters themselves where None.
        """
        kept = jax.tree.map(lambda a: a[np.asarray(self.used)], self.fits.params)
        return kept if statistic is None else jax.vmap(statistic)(kept)

    def standard_error(self, statistic: Callable[[Any], Any] | None = None) -> Any:
        """The standard deviation over replicates of a function of the parameters.

        Args:
            statistic: params -> array or tree of arrays; the parameters themselves where None.
        """
        return jax.tree.map(lambda a: jnp.std(a, axis=0, ddof=1), self.statistics(statistic))

    def bias(self, statistic: Callable[[Any], Any] | None = None) -> Any:
        """The mean over replicates less what the fit gives.

        Args:
            statistic: params -> array or tree of arrays; the parameters themselves where None.

        Raises:
            ValueError: where the fit itself has no optimum.
        """
        check_optimum(self.fit)
        here = self.fit.params if statistic is None else statistic(self.fit.params)
        return jax.tree.map(lambda a, b: jnp.mean(a, axis=0) - b, self.statistics(statistic), here)

    def interval(
        self,
        statistic: Callable[[Any], Any] | None = None,
        *,
        level: float = 0.95,
        method: str = "bca",
    ) -> Interval:
        """A confidence interval for each entry of a function of the parameters.

        Percentile: the quantiles of the replicates. Basic: these, reflected at the estimate. BCa:
        the quantiles corrected for bias and for skewness, the latter from the influence of each
        example on the statistic, by its derivative.

        Args:
            statistic: params -> array or tree of arrays; the parameters themselves where None.
            level: of confidence, between 0 and 1.
            method: "percentile", "basic" or "bca".

        Returns:
            An Interval of two trees like what the statistic returns.

        Raises:
            ValueError: for another method, a level outside (0, 1), when no replicate converged, and
                where the fit itself has no optimum, but for percentiles.
        """
        if method not in METHODS:
            raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level}")
        if not bool(jnp.any(self.used)):
            raise ValueError(f"fits: expected some that converged, got\n{self.fits.report()}")
        if method != "percentile":
            check_optimum(self.fit)
        statistic = _itself if statistic is None else statistic
        here, back = ravel_pytree(statistic(self.fit.params))
        draws = flat_params(self.statistics(statistic))
        estimate = np.asarray(here)
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "bca":
            shares = _bca_levels(draws, estimate, self._acceleration(statistic), tails)
            limits = [_quantiles(draws, share) for share in shares]
        else:
            limits = [np.quantile(draws, tail, axis=0) for tail in tails]
        if method == "basic":
            limits = [2 * estimate - limits[1], 2 * estimate - limits[0]]
        return Interval(*(back(jnp.asarray(limit, here.dtype)) for limit in limits))

    def _acceleration(self, statistic: Callable[[Any], Any]) -> np.ndarray:
        """(m,) skewness / 6 of the influence of the examples on the statistic."""
        c = self.fit.source.weights  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        moved = influence(self.fit)
        if c is not None:
            moved = jax.tree.map(lambda a: a * c.reshape(-1, *([1] * (a.ndim - 1))), moved)

        def along(tangent: Any) -> Array:
            return ravel_pytree(jax.jvp(statistic, (self.fit.params,), (tangent,))[1])[0]

        u = np.asarray(jax.vmap(along)(moved), np.float64)
        squares = (u**2).sum(axis=0)
        return (u**3).sum(axis=0) / (6 * np.where(squares > 0, squares, 1.0) ** 1.5)

    def __str__(self) -> str:
        count, total = int(jnp.sum(self.used)), len(self.fits.status)
        lines = [f"{self.scheme} bootstrap: {count:,} of {total:,} replicates converged"]
        if not has_optimum(self.fit.status, self.fit.gap):
            lines += [f"of all examples: {self.fit.report()}"]
        if not count:
            return "\n".join([*lines, f"of resamples: {self.fits.report()}"])
        try:
            interval, note = self.interval(), []
        except ValueError:  # of what has no derivative, such as with l1
            interval, note = self.interval(method="percentile"), ["intervals are percentiles"]
        return "\n".join([*lines, *table_of(self.fit, self.standard_error(), interval), *note])


def table_of(fit: Fit, error: Any, interval: Interval) -> list[str]:
    """Lines with each parameter, its standard error and its 95 % limits."""
    names = parameter_names(fit.params, fit.feature_names, model=fit.model)
    columns = (ravel_pytree(tree)[0] for tree in (fit.params, error, *interval))
    width = max(map(len, names))
    return [
        f"{'':<{width}}  coefficient  std. error   95 % from          to",
        *(
            f"{name:<{width}}  {t:>11.5g} {e:>11.5g} {a:>11.5g} {b:>11.5g}"
            for name, t, e, a, b in zip(names, *columns, strict=True)
        ),
    ]


def _itself(params: Any) -> Any:
    return params


def _bca_levels(
    draws: np.ndarray, estimate: np.ndarray, acceleration: np.ndarray, tails: np.ndarray
) -> list[np.ndarray]:
    """The quantiles to take in place of the tails, for each entry."""
    normal = NormalDist()
    below = (draws < estimate).mean(axis=0) + (draws == estimate).mean(axis=0) / 2
    least = 1 / (2 * len(draws))
    shift = np.array([normal.inv_cdf(float(np.clip(p, least, 1 - least))) for p in below])

    def corrected(tail: float) -> np.ndarray:
        z = shift + normal.inv_cdf(tail)
        moved = shift + z / (1 - acceleration * z)
        return np.array([normal.cdf(float(v)) for v in moved])

    return [corrected(float(tail)) for tail in tails]


def _quantiles(draws: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return np.array([np.quantile(column, q) for column, q in zip(draws.T, shares, strict=True)])


def bootstrap(
    model: Model,
    x: Any,
    y: Any,
    key: Array,
    *,
    num_replicates: int = 1000,
    scheme: str = "multinomial",
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Bootstrap:
    """Fit a model to its examples, and to many resamples of them.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features.
        y: (n,), as the model has it; None for a density of x alone.
        key: a typed PRNG key.
        num_replicates: B.
        scheme: "multinomial", "poisson" or "bayesian", see the module.
        weights: (n,) of the examples, by which the multiplicities are multiplied.
        offset: as of `jaxprob.fit`.
        l2: () ≥ 0.
        l1: () ≥ 0.
        firth: as of `jaxprob.fit`.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A Bootstrap, with standard errors and intervals.

    Raises:
        ValueError: as `jaxprob.fit`, and for another scheme or no replicates.
        TypeError: as `jaxprob.fit`, and for a key that is none.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 8, [0, 0, 1, 0, 1, 1, 0, 1] * 5
        >>> boot = bootstrap(logistic.model(), x, y, jax.random.key(0), num_replicates=50)
        >>> low, high = boot.interval()
        >>> bool(low.weights[0] < boot.fit.params.weights[0] < high.weights[0])
        True
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme: expected one of {SCHEMES}, got {scheme!r}")
    if num_replicates < 1:
        raise ValueError(f"num_replicates: expected at least 1, got {num_replicates}")
    check_key(key)
    penalties = {"l2": l2, "l1": l1, "firth": firth}
    base = fit(model, x, y, weights=weights, offset=offset, solver=solver, **penalties)
    keys = np.asarray(jax.random.key_data(jax.random.split(key, num_replicates)))
    draw = Bind(_multiplied, scheme=scheme, impl=str(jax.random.key_impl(key)))
    live = live_of(base)
    extra = None if live.all() else jnp.asarray(live)
    lanes = Lanes(problem_of(base), {"key": keys}, num_replicates, draw, extra)
    fits = resampled(base, lanes, solver, memory_budget, progress)
    return Bootstrap(base, fits, scheme)


def problem_of(base: Fit) -> Problem:
    """The problem that a fit solved."""
    source: Any = base.source
    penalised = any(p is not None and float(p) > 0 for p in (base.l2, base.l1))
    problem = source.problem(base.l2)
    return replace(problem, l1=base.l1, penalised=penalised, firth=base.firth)


def resampled(
    base: Fit,
    lanes: Lanes,
    solver: Solver | None,
    memory_budget: int | None,
    progress: bool | None,
) -> Fit:
    """Fits of reweighted examples, which start from the fit of all."""
    start = lanes.base.centred(base.params) if bool(base.usable) else None
    if solver is None:
        has_l1, has_l2 = base.l1 is not None, base.l2 is not None
        solver = default_solver(base.model, has_l1=has_l1, has_l2=has_l2, firth=base.firth)
    return run(
        lanes,
        solver,
        base.schema,
        start=start,
        memory_budget=memory_budget,
        progress=progress,
    )


def live_of(base: Fit) -> np.ndarray:
    """(n,) bool: the examples of positive weight."""
    source: Any = base.source
    if source.weights is None:
        return np.ones(source.x.shape[0], bool)
    return np.asarray(source.weights) > 0


def multiplicities(
    key: Array,
    n: int,
    *,
    scheme: str = "multinomial",
    dtype: Any = None,
    live: Array | None = None,
) -> Array:
    """How often each of n examples occurs in a resample.

    Args:
        key: a typed PRNG key.
        n: the number of examples.
        scheme: "multinomial", "poisson" or "bayesian".
        dtype: of the result; JAX's default where None.
        live: (n,) bool, which of them there are, all where None; the others never occur.

    Returns:
        (n,) floating.

    Example:
        >>> float(multiplicities(jax.random.key(0), 5).sum())
        5.0
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    count = n if live is None else jnp.sum(live)
    if scheme == "multinomial":
        drawn, once = jax.random.randint(key, (n,), 0, count), jnp.ones(n, dtype)
        if live is not None:
            drawn = jnp.argsort(~live)[drawn]
            once = (jnp.arange(n) < count).astype(dtype)
        return jnp.zeros(n, dtype).at[drawn].add(once, mode="promise_in_bounds")
    if scheme == "poisson":
        u = jax.random.uniform(key, (n,), dtype)
        m: Any = sum((u > limit).astype(dtype) for limit in _poisson_cdf(dtype))
        return m if live is None else jnp.where(live, m, 0.0)
    spacing = jax.random.exponential(key, (n,), dtype)
    spacing = spacing if live is None else jnp.where(live, spacing, 0.0)
    return spacing * (count / jnp.sum(spacing))


def _poisson_cdf(dtype: Any) -> np.ndarray:
    """P(m ≤ k) of Poisson(1) for k = 0, 1, ..., while it is below 1."""
    terms = np.exp(-1.0) / np.cumprod([1, *range(1, _MOST_COUNT)], dtype=float)
    cdf = np.cumsum(terms)
    return cdf[cdf < 1 - np.finfo(dtype).eps]


def _multiplied(
    base: Problem, live: Array | None, own: dict[str, Array], *, scheme: str, impl: str
) -> dict[str, Array]:
    """The weights of one replicate."""
    key = jax.random.wrap_key_data(own["key"], impl=impl)
    x = base.data.x
    m = multiplicities(key, x.shape[0], scheme=scheme, dtype=x.dtype, live=live)
    return {"weights": m if base.data.weights is None else m * base.data.weights}
