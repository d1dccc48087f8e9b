"""What a status and a gap say of a fit, in words: for summaries, reports and messages of errors.

A gap is about the maximum of the whole objective only where that is proved: by the certificates of
a model whose objective is convex, by a formula, or by a search that compared all choices. Else it
is an estimate, and about a maximum near the start.
"""

import math
from typing import Any

import jax

from jaxprob.contract import Model, Status, Trait

_WORDS = {
    Status.MAX_STEPS: ("the steps ran out", "raise the solver's max_steps"),
    Status.STALLED: (
        "no step improves the objective beyond rounding",
        "scale the features, or compute in float64",
    ),
    Status.SEPARATED: (
        "the classes can be separated, so there is no finite maximum",
        "add l2, or firth=True",
    ),
    Status.SINGULAR: (
        "the maximum is not unique: columns are linearly dependent",
        "drop some, or add l2",
    ),
    Status.CLASS_ABSENT: (
        "a class has no example of positive weight",
        "leave that class out, or add firth=True",
    ),
    Status.NO_DATA: ("all weights are zero", "give some example a positive one"),
    Status.INVALID_INPUT: (
        "y, weights or features are out of their range",
        "jaxprob.fit outside of jax.jit says which",
    ),
    Status.COLLAPSED: ("a density has shrunk onto a point", "drop what is constant"),
    Status.TRAINED: (
        "training ran as long as it was asked to, and nothing is proved",
        "take another solver where an optimum is wanted",
    ),
    Status.BEST_HELD_OUT: (
        "the score of held-out examples rises no more",
        "leave held_out away where an optimum is wanted",
    ),
    Status.DIVERGED: (
        "training led to where the objective is not finite",
        "lower the learning rate, or scale the features",
    ),
    Status.NON_FINITE: ("the objective overflowed", "scale the features"),
}
_NO_PENALTY = {
    Status.SEPARATED: "",
    Status.SINGULAR: "drop some",
    Status.CLASS_ABSENT: "leave that class out",
}


def reason(model: Model, status: Status) -> str:
    """Why a fit did not converge, and what to do.

    Args:
        model: what was fitted; it may have words of its own.
        status: any but CONVERGED.

    Returns:
        Such as "the steps ran out; raise the solver's max_steps".

    Example:
        >>> from jaxprob.models import logistic
        >>> reason(logistic.model(), Status.SINGULAR)
        'the maximum is not unique: columns are linearly dependent; drop some, or add l2'
    """
    of_model = dict(model.words)
    if status in of_model:
        return of_model[status]
    what, remedy = _WORDS[status]
    if Trait.PENALISED not in model.offers:
        remedy = _NO_PENALTY.get(status, remedy)
    return f"{what}; {remedy}" if remedy else what


def has_optimum(status: Any, gap: Any) -> Any:
    """Whether parameters are those of an optimum, so that derivatives there say what they should.

    Args:
        status: a `Status`, or an array of them.
        gap: nats, of the same shape.

    Returns:
        Bool: converged, or stopped by rounding where an optimum is known to be near.

    Example:
        >>> has_optimum(Status.STALLED, 1e-9), has_optimum(Status.STALLED, math.inf)
        (True, False)
    """
    return (status == Status.CONVERGED) | ((status == Status.STALLED) & (gap < math.inf))


def check_optimum(fit: Any) -> None:
    """Raise a ValueError unless one fit is at an optimum.

    Args:
        fit: one Fit, or many, which pass.

    Raises:
        ValueError: with the status, and what to do.

    Example:
        >>> import jaxprob as jp
        >>> check_optimum(jp.fit(jp.models.logistic.model(), [[0.0], [1.0], [2.0]], [0, 1, 0]))
    """
    if fit.status.ndim or has_optimum(*jax.device_get((fit.status, fit.gap))):
        return
    status = Status(int(fit.status))
    known = "" if status != Status.STALLED else ", and how far a maximum is, is not known"
    raise ValueError(
        f"fit: expected one at an optimum, got status {status.name}: {reason(fit.model, status)}"
        f"{known}"
    )


def is_of_the_whole(model: Model, gap: float, *, firth: bool, penalised: bool = False) -> bool:
    """Whether a gap is proved, and about the maximum of the whole objective.

    Args:
        model: what was fitted.
        gap: nats.
        firth: whether with Firth's penalty, which is not convex.
        penalised: whether with l1 or l2.

    Returns:
        False where it is estimated, or about a maximum near the start.

    Example:
        >>> from jaxprob.models import gaussian_mixture, logistic
        >>> [is_of_the_whole(logistic.model(), 1e-9, firth=firth) for firth in (False, True)]
        [True, False]
        >>> is_of_the_whole(gaussian_mixture.model(2), 1e-9, firth=False)
        False
    """
    without = Trait(0) if penalised else Trait.FORMULA
    compared = bool((Trait.SEARCH | without) & model.offers)
    return (gap == 0 and compared) or (Trait.PROVED in model.offers and not firth)


def closeness(model: Model, gap: float, *, firth: bool, penalised: bool = False) -> str:
    """What a gap says, in words.

    Args:
        model: what was fitted.
        gap: nats.
        firth: whether with Firth's penalty.
        penalised: whether with l1 or l2.

    Returns:
        Such as "proved to be within 1.0e-09 nats of the maximum".

    Example:
        >>> from jaxprob.models import gaussian_mixture, logistic
        >>> closeness(logistic.model(), 1e-9, firth=False)
        'proved to be within 1.0e-09 nats of the maximum'
        >>> closeness(gaussian_mixture.model(2), 1e-9, firth=False)
        'estimated to be within 1.0e-09 nats of a maximum near the start'
    """
    proved = is_of_the_whole(model, gap, firth=firth, penalised=penalised)
    if Trait.SEARCH in model.offers:
        rest = "all were compared" if proved else "there may be better ones that were not tried"
        return f"the best of the choices that the model compares; {rest}"
    if proved and Trait.PROVED not in model.offers:
        return "the maximum is a formula; nothing but rounding is between it and this"
    if not math.isfinite(gap):
        return "how far the maximum is, is not known"
    known, where = (
        ("proved", "the maximum") if proved else ("estimated", "a maximum near the start")
    )
    return f"{known} to be within {gap:.1e} nats of {where}"
