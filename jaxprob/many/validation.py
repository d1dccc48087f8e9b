r"""Cross-validation: each model judged on examples it has not seen.

The examples are dealt into K folds, R times over. For each repeat and fold, and for each of m
penalties, a model is fitted to the other folds, as one lane of m R K, and scored on its own:

    log-likelihood    (1/C) Σ_i c_i log p(y_i|x_i), C = Σ_i c_i           in nats per example
                      log p(x_i) for a density of x alone, which has no other score
    accuracy          (1/C) Σ_i c_i [y_i is the most probable class]
    Brier             (1/C) Σ_i c_i Σ_k (p_k(x_i) - [y_i = k])²           half of it for two classes
    calibration       in bins of the predicted probability, how often what was predicted is true:
                      of class 1 for two classes, of the most probable class for more

Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, 2009,
section 7.10; Brier, Verification of forecasts expressed in terms of probability, 1950; Guo et al.,
On calibration of modern neural networks, ICML 2017 (the expected calibration error).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Model, Status, Trait, is_usable
from jaxprob.data.loading import picked, to_device
from jaxprob.fit import Fit, check_data_of, check_firth
from jaxprob.fit.verdicts import reason
from jaxprob.many.engine.arguments import make_lanes
from jaxprob.many.engine.keys import check_key
from jaxprob.many.engine.neighbours import Grid, fit_grid
from jaxprob.many.folds import folds as assign
from jaxprob.numerics.passes import total
from jaxprob.numerics.products import matmul
from jaxprob.problem.problem import Problem, Rows
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Solver


class Calibration(NamedTuple):
    """Predicted probabilities against what came true, by bins of the former."""

    weight: Array  # (..., bins) Σ c of the examples in the bin
    predicted: Array  # (..., bins) their mean predicted probability, NaN where there are none
    observed: Array  # (..., bins) how often it was true, NaN where there are none

    def error(self) -> Array:
        """(...) the expected calibration error: the mean of |observed - predicted|."""
        gap = jnp.where(self.weight > 0, jnp.abs(self.observed - self.predicted), 0.0)
        return jnp.sum(self.weight * gap, axis=-1) / jnp.sum(self.weight, axis=-1)


class Scores(NamedTuple):
    """What each fold's model makes of that fold, (m, R, K); without m for a single penalty."""

    log_likelihood: Array  # nats per example
    accuracy: Array
    brier: Array
    calibration: Calibration


@dataclass(frozen=True)
class CrossValidation:
    """Fits to all folds but one, and their scores on that one.

    Attributes:
        fits: one a lane, in the order of the scores' axes.
        whole: fitted to all examples, one for each penalty.
        scores: NaN where a fold's fit did not converge, and where nothing is there to score.
        folds: (R, n) to which fold each example belongs.
        weight: (R, K) of the examples of each fold.
        l2, l1: the penalties.
    """

    fits: Fit
    whole: Fit
    scores: Scores
    folds: np.ndarray
    weight: np.ndarray
    l2: Any
    l1: Any

    @property
    def used(self) -> np.ndarray:
        """(m, R, K) or (R, K) bool: the folds that count, those with a score."""
        return ~np.isnan(np.asarray(self.scores.log_likelihood))

    def mean(self, score: str = "log_likelihood") -> np.ndarray:
        """(m,) or (): the mean of a score over the folds whose fit converged.

        Args:
            score: "log_likelihood", "accuracy" or "brier".
        """
        values = self._values(score)
        count = self.used.sum(axis=(-2, -1))
        total = np.where(self.used, values, 0.0).sum(axis=(-2, -1))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def standard_error(self, score: str = "log_likelihood") -> np.ndarray:
        """(m,) or (): the standard error of that mean, as if folds were independent.

        Args:
            score: "log_likelihood", "accuracy" or "brier".
        """
        values, count = self._values(score), self.used.sum(axis=(-2, -1))
        away = np.where(self.used, values - self.mean(score)[..., None, None], 0.0)
        squares = (away**2).sum(axis=(-2, -1))
        return np.sqrt(np.where(count > 1, squares / (count - 1.0) / np.maximum(count, 1), np.nan))

    def best(self, score: str = "log_likelihood") -> int:
        """The penalty with the best mean score, among those all of whose folds have one.

        Folds whose examples have no weight are left out.

        Args:
            score: "log_likelihood", "accuracy" or "brier".

        Raises:
            ValueError: for a single penalty, or where no penalty has a fit in every fold.
        """
        return int(np.nanargmax(self._comparable(score)))

    def simplest(self, score: str = "log_likelihood") -> int:
        """The largest penalty whose mean score is within one standard error of the best.

        Args:
            score: "log_likelihood", "accuracy" or "brier".
        """
        means, best = self._comparable(score), self.best(score)
        good = means >= means[best] - self.standard_error(score)[best]
        size = sum(np.asarray(p, float) for p in (self.l2, self.l1) if p is not None)
        return int(np.argmax(np.where(good, size, -np.inf)))

    def failures(self) -> list[str]:
        """Which folds do not count, and why."""
        lines = []
        for at in np.argwhere(~self.used):
            lane = np.ravel_multi_index(at, self.used.shape)
            status = Status(int(self.fits.status[lane]))
            which = f"penalty {at[0]}, " if len(at) == 3 else ""
            if not is_usable(status):
                why = f"{status.name}: {reason(self.fits.model, status)}"
                why += " (in the other folds)" * (status == Status.CLASS_ABSENT)
            elif self.weight[*at[-2:]] == 0:
                why = "not scored: its examples have weight zero"
            else:
                why = "not scored: an example has no probability under the fit"
            lines.append(f"{which}repeat {at[-2]}, fold {at[-1]}: {why}")
        return lines

    def _values(self, score: str) -> np.ndarray:
        names = ("log_likelihood", "accuracy", "brier")
        if score not in names:
            raise ValueError(f"score: expected one of {names}, got {score!r}")
        return np.asarray(getattr(self.scores, score))

    def _comparable(self, score: str) -> np.ndarray:
        """(m,) larger is better, NaN where a fold is missing that has examples."""
        if self.used.ndim == 2:
            raise ValueError("best: expected several penalties to choose from, got one")
        complete = (self.used | (self.weight == 0)).all(axis=(-2, -1))
        means = np.where(complete, self.mean(score), np.nan)
        if np.isnan(means).all():
            raise ValueError("best: no penalty has a fit in every fold:\n" + self._failed())
        return -means if score == "brier" else means

    def _failed(self) -> str:
        failures = self.failures()
        more = [f"… and {len(failures) - _SHOWN} more in .failures()"] * (len(failures) > _SHOWN)
        return "\n".join(failures[:_SHOWN] + more)

    def __str__(self) -> str:
        repeats, num_folds = self.used.shape[-2:]
        converged = int(np.sum(np.asarray(self.fits.usable)))
        unscored = converged - int(self.used.sum())
        lines = [
            f"{num_folds}-fold cross-validation"
            + (f", {repeats} times" if repeats > 1 else "")
            + f": {converged:,} of {self.used.size:,} fits converged"
            + (f", {unscored:,} of them without a score" if unscored else "")
        ]
        errors_of_folds = np.asarray(self.scores.calibration.error())
        known = ~np.isnan(errors_of_folds)
        with np.errstate(invalid="ignore"):
            error = np.sum(np.where(known, errors_of_folds, 0.0), (-2, -1)) / known.sum((-2, -1))
        error = np.atleast_1d(error)
        names = ("log_likelihood", "accuracy", "brier")
        means = [np.atleast_1d(self.mean(name)) for name in names]
        errors = np.atleast_1d(self.standard_error())
        penalty = [("l2", self.l2), ("l1", self.l1)]
        penalty = [(n, np.broadcast_to(p, errors.shape)) for n, p in penalty if p is not None]
        head = "".join(f"{name:>10} " for name, _ in penalty)
        lines.append(f"{head}log-likelihood  std. error   accuracy      Brier  calibration error")
        for i, row in enumerate(zip(*means, errors, error, strict=True)):
            ll, accuracy, brier, se, ece = row
            own = "".join(f"{p[i]:>10.4g} " for _, p in penalty)
            lines.append(
                f"{own}{ll:>14.5f} {se:>11.5f} {accuracy:>10.4f} {brier:>10.5f} {ece:>18.4f}"
            )
        if not self.used.all():
            lines.append(self._failed())
        return "\n".join(lines)


_SHOWN = 10
_MODELS = 8  # scored at a time


def cross_validate(
    model: Model,
    x: Any,
    y: Any,
    key: Array | None = None,
    *,
    num_folds: int = 5,
    repeats: int = 1,
    stratified: bool = True,
    groups: Any = None,
    folds: Any = None,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    num_bins: int = 10,
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> CrossValidation:
    """Fit a model to all folds but one, for each of them, and score it on that one.

    A class that is missing from the other folds is no error: that fit has status CLASS_ABSENT, its
    scores are NaN, and `failures()` and the printed table say so.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features.
        y: (n,), as the model has it; None for a density of x alone.
        key: a typed PRNG key, for dealing the examples into folds; None where `folds` is given.
        num_folds: K.
        repeats: R, how often they are dealt anew.
        stratified: whether each fold gets its share of every class, where y is labels.
        groups: (n,) of any type: examples of a group stay together.
        folds: (n,) or (R, n) the fold of each example, 0..K-1, instead of dealing them.
        weights: (n,) of the examples, in fits and scores.
        offset: as of `jaxprob.fit`.
        l2: () ≥ 0, or (m,) to compare.
        l1: () ≥ 0, or (m,).
        firth: as of `jaxprob.fit`; scores are of the likelihood.
        num_bins: of predicted probabilities, for calibration.
        solver: how to minimise.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A CrossValidation; print it.

    Raises:
        ValueError: as `jaxprob.fit`, and for folds, repeats or bins that cannot be.
        TypeError: as `jaxprob.fit`, and for a key that is none.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 4, [0, 0, 1, 0, 1, 1, 0, 1, 0, 1] * 2
        >>> cv = cross_validate(logistic.model(), x, y, jax.random.key(0), l2=np.array([0.1, 10.0]))
        >>> cv.scores.accuracy.shape, cv.best()
        ((2, 1, 5), 1)
    """
    if folds is None:
        check_key(key)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    data = check_data_of(model, x, y, weights, offset)
    if folds is None:
        options = {"num_folds": num_folds, "stratified": stratified, "groups": groups}
        has_classes = model.variables.num_classes is not None
        labels = data.y if has_classes else np.zeros(len(data.x), np.int32)
        fold = assign(labels, key, repeats=repeats, **options)  # pyright: ignore[reportArgumentType]
    else:
        fold = _given_folds(folds, len(data.x))
        repeats, num_folds = len(fold), int(fold.max()) + 1
    several = any(p is not None and np.ndim(p) > 0 for p in (l2, l1))
    check_firth(firth, l1)
    rows = Rows(*data[:4])
    base = Problem(rows, None, None, model, False, None, firth=firth)
    tables, values = {}, np.zeros(1)
    if not (l2 is None and l1 is None):
        given = {"x": data.x, "y": data.y, "weights": data.weights, "offset": data.offset}
        penalties = {n: p if p is None else np.atleast_1d(p) for n, p in (("l2", l2), ("l1", l1))}
        lanes, _ = make_lanes(model, given | penalties, firth=firth)
        base, tables = lanes.base, {name: np.asarray(a) for name, a in lanes.own.items()}
        values = np.sum([np.asarray(a, float) for a in tables.values()], axis=0)
    whole, fits = fit_grid(
        Grid(base, tables, values, fold),
        solver,
        data.schema,
        memory_budget=memory_budget,
        progress=progress,
    )
    assert fits is not None
    m = len(values)
    scores = _scores(fits, rows, fold, (m, repeats, num_folds), num_bins)
    if not several:
        scores, whole = picked(scores, 0), whole.lane(0)
    l2, l1 = (p if p is None else np.array(p)[()] for p in (l2, l1))
    c = None if data.weights is None else np.asarray(data.weights)
    weight = np.stack([np.bincount(f, c, minlength=num_folds) for f in fold])
    return CrossValidation(fits, whole, scores, fold, weight, l2, l1)


def _given_folds(folds: Any, n: int) -> np.ndarray:
    """(R, n) int32, checked."""
    given = np.asarray(folds)
    fold = np.atleast_2d(given)
    if fold.ndim != 2 or fold.shape[1] != n or not len(fold):
        raise ValueError(f"folds: expected shape ({n},) or (R, {n}), got {given.shape}")
    if fold.dtype.kind not in "iu" or fold.min() < 0:
        raise ValueError(f"folds: expected integers from 0 on, got dtype {fold.dtype}")
    count = int(fold.max()) + 1
    if count < 2 or any(len(np.unique(f)) != count for f in fold):
        raise ValueError("folds: expected at least two, numbered from 0, each with examples")
    return fold.astype(np.int32)


def _scores(
    fits: Fit, data: Rows, fold: np.ndarray, shape: tuple[int, int, int], num_bins: int
) -> Scores:
    """Each fold's score by the models that have not seen it, those of a fold at once."""
    m, repeats, num_folds = shape
    most = max(np.bincount(f, minlength=num_folds).max() for f in fold)
    params = jax.tree.map(
        lambda a: np.asarray(a).reshape(m, repeats, num_folds, *a.shape[1:]), fits.params
    )
    devices = jax.local_devices()
    copies = [jax.device_put(data, device) for device in devices]
    parts = []
    for i, (r, k) in enumerate(np.ndindex(repeats, num_folds)):
        index = np.flatnonzero(fold[r] == k)
        live = np.arange(most) < len(index)
        index = np.resize(index, most)
        of_fold = jax.tree.map(lambda a, r=r, k=k: a[:, r, k], params)
        own = jax.device_put((of_fold, index, live), devices[i % len(devices)])
        parts.append(_score(fits.model, copies[i % len(devices)], *own, num_bins=num_bins))
    good = is_usable(np.asarray(fits.status)).reshape(shape)

    def together(*folds: np.ndarray) -> Array:
        every = np.stack(folds, axis=1).reshape(*shape, *folds[0].shape[1:])
        known = good.reshape(*shape, *([1] * (every.ndim - 3)))
        return to_device(np.where(known, every, every.dtype.type(np.nan)))

    return jax.tree.map(together, *jax.device_get(parts))


@partial(eager_jit, static_argnames=["model", "num_bins"])
def _score(
    model: Model, data: Rows, params: Any, index: Array, live: Array, *, num_bins: int
) -> Scores:
    """The scores of several models on some rows."""
    rows = jax.tree.map(lambda a: a[index], data)
    c = live.astype(data.x.dtype)
    c = c if rows.weights is None else c * rows.weights
    keywords = {} if rows.offset is None else {"offset": rows.offset}
    all_of_it, others = total(c), ()
    if Trait.SUM not in model.offers:
        weights = jnp.ones(len(data.x), c.dtype) if data.weights is None else data.weights
        others = *data.examples, weights.at[index].set(0.0)

    def mean(a: Array) -> Array:
        return total(jnp.where(c > 0, c * a, 0.0)) / all_of_it

    def of_density(params: Any) -> Scores:
        none, empty = jnp.full((), jnp.nan, c.dtype), jnp.zeros(num_bins, c.dtype)
        each = model.log_probs(params, *rows.examples, made_of=others, **keywords)
        return Scores(mean(each), none, none, Calibration(empty, empty / 0, empty / 0))

    def of_classes(params: Any) -> Scores:
        assert rows.y is not None
        assert model.predict.classes is not None
        log_p = model.predict.classes(params, rows.x, *others, **keywords)
        log_prob, squares, likely, predicted, true = _judged(log_p, rows.y)
        bin_of = jnp.clip(jnp.floor(predicted * num_bins).astype(jnp.int32), 0, num_bins - 1)
        in_bin = jnp.where(bin_of[None, :] == jnp.arange(num_bins)[:, None], c, 0.0)
        each = jnp.stack([jnp.ones_like(c), predicted, true.astype(c.dtype)], axis=1)
        weight, predicted, true = matmul(in_bin, each).T
        some = jnp.where(weight > 0, weight, jnp.nan)
        return Scores(
            mean(log_prob),
            mean((likely == rows.y).astype(c.dtype)),
            mean(squares),
            Calibration(weight, predicted / some, true / some),
        )

    of_one = of_density if model.predict.classes is None else of_classes
    return jax.lax.map(of_one, params, batch_size=_MODELS)


def _judged(log_p: Array, y: Array) -> tuple[Array, ...]:
    """Of each example: log p of its class, Brier's score, the most probable class; p, whether so.

    p is the probability that is to be calibrated.
    """
    if log_p.shape[1] == 2:  # by columns, which are two short vectors no more
        first, second = log_p[:, 0], log_p[:, 1]
        one = y == 1
        predicted = jnp.exp(second)
        likely = (second > first).astype(y.dtype)
        other = jnp.exp(jnp.where(one, first, second))  # what the other class was given
        return jnp.where(one, second, first), other**2, likely, predicted, one
    p = jnp.exp(log_p)
    hit = y[:, None] == jnp.arange(log_p.shape[1])[None, :]
    likely = jnp.argmax(log_p, axis=1)
    squares = jnp.sum((p - hit) ** 2, axis=1)
    log_prob = jnp.sum(jnp.where(hit, log_p, 0.0), axis=1)
    return log_prob, squares, likely, jnp.max(p, axis=1), likely == y
