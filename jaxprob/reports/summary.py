"""A fit as a table for people: coefficients with their errors, and how far to believe them."""

import math
import textwrap
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Status, Trait
from jaxprob.fit import Fit, Source
from jaxprob.fit.report import parameter_names
from jaxprob.fit.verdicts import closeness, has_optimum, reason
from jaxprob.uncertainty.criteria import aic, bic

_SHOWN_DIRECTION = 3
_ROUNDING = 1e-5  # of a sum of weights in float32
_LITTLE = (
    "The weights add up to {:.3g}, no more than one example. They are taken as repeated rows, so "
    "errors are those of so little data, and there is no BIC; for probabilities or relative "
    "weights pass jaxprob.data.normalised_weights(weights)."
)


@dataclass(frozen=True, repr=False)
class Summary:
    """The numbers of `summary`; prints as a table.

    Attributes:
        names: (p,) of the parameters.
        coefficient, standard_error, z, p_value, lower, upper: (p,) float64; NaN where there is
            none to give.
        level: of the interval from lower to upper.
        num_examples: of positive weight.
        total_weight: n, the sum of their weights: how many rows they stand for.
        num_params: k; what a symmetric softmax does not identify is not counted.
        log_likelihood, null_log_likelihood: nats; NaN where there is no model without features.
        mcfadden_r2, aic, bic: 1 - ll/null, 2k - 2 ll, k log n - 2 ll; NaN where the log-likelihood
            of these parameters is not its maximum, and BIC where n ≤ 1.
        status: a `Status`.
        evidence: the status and what proves it, in words.
        notes: what else a reader must know.
    """

    title: str
    names: tuple[str, ...]
    coefficient: np.ndarray
    standard_error: np.ndarray
    z: np.ndarray
    p_value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    level: float
    num_examples: int
    total_weight: float
    num_params: int
    log_likelihood: float
    null_log_likelihood: float
    mcfadden_r2: float
    aic: float
    bic: float
    status: Status
    evidence: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        facts = [
            ("examples", f"{self.num_examples:,}", "log-likelihood", f"{self.log_likelihood:.6g}"),
            ("parameters", f"{self.num_params:,}", "null", _cell(self.null_log_likelihood, ".6g")),
            ("AIC", _cell(self.aic, ".6g"), "McFadden R²", _cell(self.mcfadden_r2, ".4f")),
            ("BIC", _cell(self.bic, ".6g"), "status", self.status.name),
        ]
        if not math.isclose(self.total_weight, self.num_examples, rel_tol=_ROUNDING):
            facts.insert(1, ("their weight", f"{self.total_weight:,.6g}", "", ""))
        percent = f"{100 * self.level:g} %"
        head = ("", "coefficient", "std. error", "z", "p", f"{percent} from", "to")
        rows = [head] + [
            (
                name,
                *(_cell(v, ".5g") for v in (b, se)),
                _cell(z, ".3f"),
                "<1e-16" if p < 1e-16 else _cell(p, ".3g"),
                *(_cell(v, ".5g") for v in (low, high)),
            )
            for name, b, se, z, p, low, high in zip(
                self.names,
                self.coefficient,
                self.standard_error,
                self.z,
                self.p_value,
                self.lower,
                self.upper,
                strict=True,
            )
        ]
        lines = _aligned(rows)
        rule = "─" * max(map(len, lines))
        top = [f"{a:<12}{b:>12}    {c:<16}{d:>14}".rstrip() for a, b, c, d in facts]
        sentences = [f"{self.status.name}: {self.evidence}", *self.notes]
        words = [textwrap.fill(s, max(72, len(rule))) for s in sentences]
        return "\n".join([self.title, rule, *top, rule, lines[0], rule, *lines[1:], rule, *words])

    __repr__ = __str__


def summary(fit: Fit, *, level: float = 0.95) -> Summary:
    r"""Coefficients, standard errors and tests of a fit, and how far its maximum is proved.

    Standard errors are the roots of the diagonal of I⁻¹, I the information at the parameters
    (equations 1.10, 2.11), plus l2 where it acts and what a prior adds; z is coefficient / error, p
    the two-sided tail of the standard normal.

    Args:
        fit: one fit, made by `jaxprob.fit` outside of transformations, or inside of them.
        level: of the interval, between 0 and 1.

    Returns:
        A Summary; print it.

    Raises:
        ValueError: for many fits at once, or a level outside (0, 1).

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> table = summary(jp.fit(jp.models.logistic.model(), x, y))
        >>> table.names, table.status.name
        (('x0', 'bias'), 'CONVERGED')
    """
    if np.shape(fit.status) != ():
        raise ValueError(
            f"fit: expected one fit, got fits of shape {np.shape(fit.status)}; "
            "pick one with fits.lane(i)"
        )
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    status = Status(int(fit.status))
    theta = np.asarray(ravel_pytree(fit.params)[0], np.float64)
    error, note = _standard_errors(fit, status)
    projection = _projection(fit)
    count = round(np.trace(projection))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = theta / error
    tail = [math.erfc(abs(v) / math.sqrt(2)) if np.isfinite(v) else math.nan for v in z]
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    value, null = float(fit.log_likelihood), float(fit.null_log_likelihood)
    is_maximum = has_optimum(status, float(fit.gap)) or status is Status.SINGULAR
    maximised = Trait.LIKELIHOOD | Trait.SMOOTH in fit.model.offers
    of_criteria = value if maximised and is_maximum else math.nan
    n = float(fit.total_weight)
    names = parameter_names(fit.params, fit.feature_names, model=fit.model)
    return Summary(
        title=f"{fit.model.name}{_penalties(fit)}",
        names=names,
        coefficient=theta,
        standard_error=error,
        z=z,
        p_value=np.array(tail),
        lower=theta - reach,
        upper=theta + reach,
        level=level,
        num_examples=int(fit.num_examples),
        total_weight=n,
        num_params=count,
        log_likelihood=value,
        null_log_likelihood=null,
        mcfadden_r2=1 - value / null if null and is_maximum else math.nan,
        aic=aic(of_criteria, count),
        bic=float(bic(of_criteria, count, n)),
        status=status,
        evidence=_evidence(fit, status, names),
        notes=(*note, _LITTLE.format(n)) if n > 0 and math.isnan(bic(0.0, 1, n)) else note,
    )


def _cell(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        row[0].ljust(widths[0])
        + "".join(cell.rjust(w + 2) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def _penalties(fit: Fit) -> str:
    given = [f"{n} = {float(v):g}" for n, v in (("l2", fit.l2), ("l1", fit.l1)) if v is not None]
    return f", {', '.join(given)}" if given else ""


def _positive(value: Any) -> bool:
    return value is not None and float(value) > 0


def _projection(fit: Fit) -> np.ndarray:
    """(p, p) onto the parameters that the likelihood tells apart."""
    theta, unravel = ravel_pytree(fit.params)
    canonical = fit.model.geometry.canonical
    if canonical is None:
        return np.eye(len(theta))
    eye = jnp.eye(len(theta), dtype=theta.dtype)
    rows = [ravel_pytree(canonical(unravel(row)))[0] for row in eye]
    return np.asarray(rows, np.float64)


def _standard_errors(fit: Fit, status: Status) -> tuple[np.ndarray, tuple[str, ...]]:
    """(p,) and what to say about them."""
    size = sum(np.size(a) for a in jax.tree.leaves(fit.params))
    none = np.full(size, np.nan)
    offers = fit.model.offers
    if Trait.SMOOTH not in offers:
        return none, ("Standard errors do not exist for choices.",)
    if Trait.SUM not in offers:
        return none, (
            "The terms of a leave-one-out likelihood depend on each other, so its curvature gives "
            "no standard errors; jaxprob.many.bootstrap does.",
        )
    if Trait.LIKELIHOOD not in offers:
        return none, ("The parameters are those of a posterior, which says how sure it is.",)
    if _positive(fit.l1):
        return none, ("Standard errors do not exist for l1, which picks and shrinks at once.",)
    if not has_optimum(status, float(fit.gap)):
        return none, (
            "Standard errors need a unique finite maximum, and a fit that has reached it.",
        )
    (h, back), notes = fit.centred_information, ()
    h = np.asarray(h, np.float64)
    if _positive(fit.l2):
        penalised = fit.model.geometry.penalised
        assert penalised is not None
        assert fit.l2 is not None
        mask = np.asarray(ravel_pytree(penalised(fit.params))[0], np.float64)
        h = h + np.diag(mask * float(fit.l2))
        notes = (
            "With l2, coefficients are shrunk; errors are those of the penalised likelihood (of a "
            "normal prior of variance 1/l2).",
        )
    if fit.model.prior is not None:
        if fit.model.prior_follows and fit.source is None:
            return none, ("The prior follows the data, to which this fit no longer refers.",)
        of_prior = _curvature(fit)
        h = h - of_prior
        if of_prior.any():
            notes = ("Errors are those of the posterior, of likelihood and prior together.",)
    keep = _projection(fit)
    h = h + (np.eye(size) - keep) * (np.max(np.diag(h), initial=0.0) or 1.0)
    scale = np.sqrt(np.where(np.diag(h) > 0, np.diag(h), 1.0))
    try:
        inverse = np.linalg.inv(h / np.outer(scale, scale)) / np.outer(scale, scale)
    except np.linalg.LinAlgError:
        return none, ("The information is singular: some columns are linearly dependent.",)
    keep = keep if back is None else np.matmul(np.asarray(back, np.float64), keep)
    variance = np.diag(np.linalg.multi_dot([keep, inverse, keep.T]))
    with np.errstate(invalid="ignore"):
        return np.sqrt(variance), notes


def _curvature(fit: Fit) -> np.ndarray:
    """(p, p) the Hessian of the log-prior."""
    model, source, (theta, unravel) = fit.model, fit.source, ravel_pytree(fit.params)
    prior = model.prior
    assert prior is not None
    found = ()
    if model.prior_follows:
        assert isinstance(source, Source)
        found = model.hyperparameters(*source.rows.examples, weights=source.weights)

    def log_prior(theta: Array) -> Array:
        return prior.log_prob(unravel(theta), *found)

    return np.asarray(jax.hessian(log_prior)(theta), np.float64)


def _evidence(fit: Fit, status: Status, names: tuple[str, ...]) -> str:
    gap, steps = float(fit.gap), int(fit.num_steps)
    penalised = fit.l2 is not None or fit.l1 is not None
    close = closeness(fit.model, gap, firth=fit.firth, penalised=penalised)
    after = f", after {steps} step{'s' * (steps != 1)}" if steps else ""
    if status is Status.CONVERGED:
        return f"{close}{after}."
    words = reason(fit.model, status)
    if status is Status.SEPARATED and status not in dict(fit.model.words):
        v = np.asarray(ravel_pytree(fit.direction)[0], np.float64)
        largest = [i for i in np.argsort(-np.abs(v))[:_SHOWN_DIRECTION] if v[i]]
        along = ", ".join(f"{v[i]:+.2g} × {names[i]}" for i in largest)
        return f"{words}. Fit.direction proves it, mostly {along}."
    if status in (Status.MAX_STEPS, Status.STALLED):
        words += after
    if status in (Status.MAX_STEPS, Status.STALLED) and math.isfinite(gap):
        words += f". {close.capitalize()}"
    return words + "."
