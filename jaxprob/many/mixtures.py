"""How many components, and of what shape: mixtures from many starts, compared.

Each number of components and kind of covariance is fitted from several starts, as lanes of one call
for each kind: fewer components than the most are padded with components without weight. For each,
the run that converged to the highest objective counts:

    BIC    p log n - 2 ℓ                          p free parameters, ℓ the log-likelihood
    ICL    BIC - 2 Σ_i c_i Σ_k r_ik log r_ik      which also wants components that can be told apart
    AIC    2 p - 2 ℓ

with n = Σ_i c_i, weights being repeats; lower is better. Weights that sum to less than two examples
are refused: log n would be no penalty. Runs that collapsed, or went on to their last step, are
counted; and how many are as good as the best, as far as their gaps and rounding can tell.

Source: Schwarz, Estimating the dimension of a model, Annals of Statistics 6, 1978; Biernacki,
Celeux and Govaert, Assessing a mixture model for clustering with the integrated completed
likelihood, IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 2000; McLachlan and
Peel, Finite Mixture Models, 2000, chapter 6.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Status
from jaxprob.data.loading import picked
from jaxprob.fit import Fit, Source, check_data_of
from jaxprob.many.engine.keys import check_key
from jaxprob.many.fitting import fit_many
from jaxprob.many.restarts import as_good
from jaxprob.models import gaussian_mixture
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Solver

CRITERIA = ("bic", "icl", "aic")
_TWO = 1.999  # examples, but for the rounding of a sum of weights


@dataclass(frozen=True, repr=False)
class MixtureSearch:
    """Mixtures of several sizes and kinds, from several starts; prints as a table.

    Attributes:
        covariances: (V,) the kinds.
        components: (M,) the numbers of components.
        fits: (V,) one a kind, each of M S lanes: `fits[v].report()`; components beyond the number
            of a lane have no weight.
        log_likelihood: (V, M, S) nats, of every run.
        status: (V, M, S) of every run.
        bic, icl, aic: (V, M), of the best runs; NaN where none converged.
        num_params: (V, M).
        num_examples: n, the sum of the weights.
    """

    covariances: tuple[str, ...]
    components: tuple[int, ...]
    fits: tuple[Fit, ...]
    log_likelihood: np.ndarray
    status: np.ndarray
    bic: np.ndarray
    icl: np.ndarray
    aic: np.ndarray
    num_params: np.ndarray
    num_examples: float

    def best(self, criterion: str = "bic") -> Fit:
        """The run that is best by a criterion, as one fit without padding.

        Args:
            criterion: "bic", "icl" or "aic".

        Raises:
            ValueError: for another, or where no run converged.
        """
        if criterion not in CRITERIA:
            raise ValueError(f"criterion: expected one of {CRITERIA}, got {criterion!r}")
        values = getattr(self, criterion)
        if np.isnan(values).all():
            raise ValueError("best: no run converged; see .fits[0].report()")
        v, m = np.unravel_index(np.nanargmin(values), values.shape)
        return self.fit(self.covariances[v], self.components[m])

    def fit(self, covariance: str, num_components: int) -> Fit:
        """The best run of one kind and size that converged, without padding.

        Args:
            covariance: one of `covariances`.
            num_components: one of `components`.

        Raises:
            ValueError: where there is none.
        """
        if covariance not in self.covariances or num_components not in self.components:
            raise ValueError(
                f"fit: expected one of {self.covariances} with one of {self.components} "
                f"components, got {covariance!r} with {num_components}"
            )
        v, m = self.covariances.index(covariance), self.components.index(num_components)
        lane = _best(self.fits[v], m, self.status.shape[2])
        if lane is None:
            raise ValueError(f"fit: no run with {num_components} {covariance} components converged")
        return _trimmed(self.fits[v].lane(lane), num_components)

    def __str__(self) -> str:
        shape = self.status.shape
        lines = [
            f"{shape[2]:,} starts of each mixture",
            "covariance  components  log-likelihood  parameters          BIC          ICL"
            "   converged  collapsed  as good",
        ]
        for v, m in np.ndindex(*shape[:2]):
            status, values = self.status[v, m], self.log_likelihood[v].ravel()
            lane = _best(self.fits[v], m, shape[2])
            top = math.nan if lane is None else values[lane]
            good = status == Status.CONVERGED
            same = int(np.sum(as_good(_runs(self.fits[v], m, shape[2]))))
            marks = "".join(
                f" {name.upper()}" for name in CRITERIA if (v, m) == _lowest(getattr(self, name))
            )
            lines.append(
                f"{self.covariances[v]:<10} {self.components[m]:>11} {top:>15.2f} "
                f"{self.num_params[v, m]:>11} {self.bic[v, m]:>12.2f} {self.icl[v, m]:>12.2f} "
                f"{int(good.sum()):>11} {int(np.sum(status == Status.COLLAPSED)):>10} "
                f"{same:>8}" + (f"  ← best{marks}" if marks else "")
            )
        most = int(self.num_params.max())
        if self.num_examples <= most < self.fits[0].num_examples[0]:
            lines.append(
                f"The weights count as repeats and sum to {self.num_examples:g} examples, no more "
                f"than the {most} parameters; see jp.data.normalised_weights."
            )
        return "\n".join(lines)

    __repr__ = __str__


def mixture_search(
    x: Any,
    key: Array,
    *,
    components: Iterable[int] = range(1, 9),
    covariances: Iterable[str] = ("full",),
    num_starts: int = 10,
    weights: Any = None,
    prior_count: float = 0.0,
    prior_scale: float | None = None,
    missing: bool = False,
    start: str = "k-means++",
    solver: Solver | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> MixtureSearch:
    """Fit Gaussian mixtures of several sizes and kinds from several starts, and compare them.

    Args:
        x: (n, d) features.
        key: a typed PRNG key, for the starts.
        components: numbers of components.
        covariances: kinds, of "full", "tied", "diagonal" and "spherical".
        num_starts: S, of each.
        weights: (n,) of the examples, which count as repeats.
        prior_count: as of `jaxprob.models.gaussian_mixture.model`.
        prior_scale: as there.
        missing: whether NaN stands for an entry that was not observed.
        start: "k-means++" or "random".
        solver: how to maximise; expectation-maximisation where None.
        memory_budget: as of `fit_many`.
        progress: as of `fit_many`.

    Returns:
        A MixtureSearch: print it, and take its `best()`.

    Raises:
        ValueError: as `jaxprob.fit`, for no starts, kinds or numbers of components, and for weights
            that sum to less than two examples.
        TypeError: as `jaxprob.fit`, and for a key that is none.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
        >>> x[:100] += 8
        >>> found = mixture_search(x, jax.random.key(0), components=(1, 2, 3), num_starts=4)
        >>> found.best().params.means.shape
        (2, 2)
    """
    check_key(key)
    counts, kinds = tuple(components), tuple(covariances)
    if not counts or not kinds:
        raise ValueError("components, covariances: expected at least one of each, got none")
    if num_starts < 1:
        raise ValueError(f"num_starts: expected at least 1, got {num_starts}")
    settings: dict[str, Any] = {"missing": missing, "start": start}
    settings |= {"prior_count": prior_count, "prior_scale": prior_scale}
    for count in counts:
        gaussian_mixture.model(count, kinds[0], **settings)  # its checks
    models = [gaussian_mixture.model(max(counts), kind, **settings) for kind in kinds]
    data = check_data_of(models[0], x, None, weights)
    n = num_effective(data.x, data.weights)
    keys = jax.random.split(key, num_starts)
    fits, values, statuses, icl = [], [], [], []
    shape = len(counts), num_starts
    for kind, model in zip(kinds, models, strict=True):
        init = _starts(
            keys, data.x, data.weights, counts=counts, covariance=kind, missing=missing, start=start
        )
        found = fit_many(
            model,
            data.x,
            weights=data.weights,
            init=init,
            solver=solver,
            memory_budget=memory_budget,
            progress=progress,
        )
        fits.append(replace(found, schema=data.schema))
        values.append(np.asarray(found.log_likelihood).reshape(shape))
        statuses.append(np.asarray(found.status).reshape(shape))
        icl.append([_entropy_of(found, m, num_starts, data) for m in range(len(counts))])
    d = data.x.shape[1]
    params = np.array([[_num_params(kind, k, d) for k in counts] for kind in kinds])
    lanes = [[_best(of, m, num_starts) for m in range(len(counts))] for of in fits]
    top = np.array([
        [math.nan if lane is None else float(of.flat[lane]) for lane in row]
        for of, row in zip(values, lanes, strict=True)
    ])  # fmt: skip
    bic = params * math.log(n) - 2 * top
    return MixtureSearch(
        kinds,
        counts,
        tuple(fits),
        np.stack(values),
        np.stack(statuses),
        bic,
        bic + 2 * np.array(icl),
        2 * params - 2 * top,
        params,
        n,
    )


def num_effective(x: Array, weights: Array | None) -> float:
    """How many examples there are for a criterion: weights count as repeats.

    Args:
        x: (n, d).
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        Σ_i c_i.

    Raises:
        ValueError: for weights that sum to less than two examples, of which the logarithm is hardly
            a penalty.

    Example:
        >>> num_effective(jnp.zeros((3, 1)), jnp.array([1.0, 2.0, 4.0]))
        7.0
    """
    if weights is None:
        return float(len(x))
    n = float(np.sum(np.asarray(weights), dtype=np.float64))
    if not n > _TWO:
        raise ValueError(
            f"weights: expected a sum of at least two examples, since they count as repeats, got "
            f"{n:g}; jp.data.normalised_weights(weights) sums to the number of examples"
        )
    return n


@partial(eager_jit, static_argnames=["counts", "covariance", "missing", "start"])
def _starts(keys: Array, x: Array, weights: Array | None, **settings: Any) -> Any:
    """(M S, ...) parameters, one size after the other."""

    def of_key(key: Array) -> Any:
        return gaussian_mixture.padded_init(key, x, weights, **settings)

    each = jax.vmap(of_key, out_axes=1)(keys)
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), each)


def _runs(fits: Fit, m: int, num_starts: int) -> Fit:
    """Of all runs of a kind, those of one size."""
    some = slice(m * num_starts, (m + 1) * num_starts)
    return jax.tree.map(lambda a: np.asarray(a)[some], fits)


def _best(fits: Fit, m: int, num_starts: int) -> int | None:
    """Which lane has the run of a size that converged to the highest objective."""
    runs = _runs(fits, m, num_starts)
    values = np.asarray(runs.objective)
    good = (np.asarray(runs.status) == Status.CONVERGED) & np.isfinite(values)
    return m * num_starts + int(np.argmax(np.where(good, values, -np.inf))) if good.any() else None


def _lowest(values: np.ndarray) -> tuple[int, ...] | None:
    if np.isnan(values).all():
        return None
    return tuple(int(i) for i in np.unravel_index(np.nanargmin(values), values.shape))


def _num_params(covariance: str, k: int, d: int) -> int:
    """What is free: probabilities sum to one."""
    of_covariance = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diagonal": k * d,
        "spherical": k,
    }[covariance]
    return k - 1 + k * d + of_covariance


def _entropy_of(fits: Fit, m: int, num_starts: int, data: Any) -> float:
    """Σ_i c_i of the entropy of component given example, for the best run of a size."""
    lane = _best(fits, m, num_starts)
    if lane is None:
        return math.nan
    params = picked(fits.params, lane)
    return float(_entropy(params, data.x, data.weights, log_r=fits.model.predict.components))


@partial(eager_jit, static_argnames=["log_r"])
def _entropy(params: Any, x: Array, weights: Array | None, *, log_r: Any) -> Array:
    log_p = log_r(params, x)
    each = -jnp.sum(jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * log_p, 0.0), axis=1)
    return jnp.sum(each if weights is None else weights * each)


def _trimmed(fit: Fit, k: int) -> Fit:
    """A fit whose first k components are all that there is."""
    own = fit.model.init.settings
    prior = {} if fit.model.prior is None else dict(fit.model.prior.log_prob.settings)
    model = gaussian_mixture.model(
        k, own["covariance"], missing=own["missing"], start=own["start"], **prior
    )

    def cut(params: Any) -> Any:
        tied = params.log_scale.shape[0] < len(params.logits)
        scale, lower = params.log_scale, params.lower
        return gaussian_mixture.Params(
            params.logits[:k],
            params.means[:k],
            scale if tied else scale[:k],
            lower if tied else lower[:k],
        )

    source = fit.source
    assert isinstance(source, Source)
    return replace(
        fit,
        params=cut(fit.params),
        direction=cut(fit.direction),
        model=model,
        source=source._replace(model=model),
    )
