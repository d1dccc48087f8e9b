"""What a fit says of itself."""

from enum import IntEnum
from typing import Any, NamedTuple

from jax import Array


class Status(IntEnum):
    """What a fit found out; one number per fit, so that it can come out of `jit` and `vmap`.

    Precedence: where several hold, the one named first is reported:
    INVALID_INPUT, NO_DATA, NON_FINITE, CLASS_ABSENT, SEPARATED, SINGULAR, COLLAPSED, CONVERGED,
    STALLED, MAX_STEPS, and of training BEST_HELD_OUT, DIVERGED, TRAINED.

    Example:
        >>> int(Status.CONVERGED), Status(4).name
        (0, 'SINGULAR')
    """

    CONVERGED = 0
    """The distance `gap` to the optimal objective, proved or estimated, is below the tolerance."""
    MAX_STEPS = 1
    """The steps ran out first: raise `max_steps`, or take another solver."""
    STALLED = 2
    """No step improves the objective beyond rounding, and the bound is above the tolerance."""
    SEPARATED = 3
    """No finite maximum exists; `direction` proves it. Add a penalty."""
    SINGULAR = 4
    """The maximum is not unique: some columns are linearly dependent. Drop one, or add `l2`."""
    CLASS_ABSENT = 5
    """A class has no example of positive weight, so its parameters have no finite maximum."""
    NO_DATA = 6
    """All weights are zero."""
    INVALID_INPUT = 7
    """Data out of range that only the run could see: inside the caller's `jit` or `vmap`."""
    COLLAPSED = 8
    """A density has shrunk onto a point, where the likelihood has no bound."""
    NON_FINITE = 9
    """The objective or its gradient overflowed; the parameters are the last where it had not."""
    TRAINED = 10
    """Training ran as long as it was asked to; nothing is proved about an optimum."""
    BEST_HELD_OUT = 11
    """The score of held-out examples rises no more; the parameters are the best by it."""
    DIVERGED = 12
    """Training led to where the objective is not finite; the parameters are the last before."""


def is_usable(status: Any) -> Any:
    """Whether a fit counts, in a bootstrap or a cross-validation: it ended as it was meant to.

    Args:
        status: a `Status`, or an array of them.

    Returns:
        Bool, of the same shape.

    Example:
        >>> [bool(is_usable(s)) for s in (Status.CONVERGED, Status.TRAINED, Status.SEPARATED)]
        [True, True, False]
    """
    usable = Status.CONVERGED, Status.TRAINED, Status.BEST_HELD_OUT
    return (status == usable[0]) | (status == usable[1]) | (status == usable[2])


class Evidence(NamedTuple):
    """A verdict and what proves it. Status MAX_STEPS means: no verdict yet."""

    status: Array  # () int32, a Status
    gap: Array  # () float, bound on f - f*, nats
    direction: Array  # (p,) float, direction of separation, or zeros
