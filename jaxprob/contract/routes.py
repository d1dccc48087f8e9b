"""Short cuts to a maximum that a model knows itself, each for a solver of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax import Array

from jaxprob.contract.traits import Trait


class Estimate(NamedTuple):
    """A maximum that is a formula, and whether it is one."""

    params: Any
    status: Array  # () int32, a Status
    direction: Any  # like params, along which the likelihood rises for ever, or zeros


@dataclass(frozen=True)
class Formula:
    """A maximum that is a formula of sums over the examples; by `jaxprob.solvers.closed_form`."""

    statistics: Callable[..., Any]
    """(x, y, weights) -> what the likelihood knows of the examples. Takes the keyword `offset`
    where examples have one, and, of models that can be recentred, `centre` (d,): what x is less."""
    merge: Callable[[Any, Any], Any]
    """The statistics of two sets of examples together."""
    estimate: Callable[[Any], Estimate]
    """statistics -> the maximum."""
    log_likelihood_and_grad: Callable[..., tuple[Array, Any]]
    """(params, statistics) -> (), and a tree like the parameters."""

    trait = Trait.FORMULA


@dataclass(frozen=True)
class Expectation:
    """Steps to the maximum of what is expected of the examples; by `jaxprob.solvers.em`."""

    statistics: Callable[..., tuple[Array, Any]]
    """(params, x, weights) -> the log-likelihood (), and sums of what is expected of each example,
    which add up over parts of the examples."""
    grad: Callable[[Any, Any], Any]
    """(params, statistics) -> the gradient of the log-likelihood, a tree like the parameters."""
    maximise: Callable[..., tuple[Any, Array]]
    """(params, statistics) -> the next parameters, and () int32 a Status: MAX_STEPS if it is fine
    to go on from there. Takes the model's `hyperparameters` as a last argument where it has some.
    """
    about: Callable[[Any, Any, Any], Any]
    """(params, statistics, other params) -> the statistics as seen from the others: what differs is
    from where they are measured, not what is expected."""

    trait = Trait.EXPECTATION


class Chosen(NamedTuple):
    """What a search among choices found, rather than numbers that a gradient leads to."""

    params: Any
    status: Array  # () int32, a Status
    gap: Array  # () nats to the best of the choices: zero if all were tried, infinite if unknown


@dataclass(frozen=True)
class Search:
    """A search among choices, such as the cuts of a tree; by `jaxprob.solvers.choice`."""

    search: Callable[..., Chosen]
    """(x, y, weights) -> what is best among the choices, or what a search among them finds."""

    trait = Trait.SEARCH


Route = Formula | Expectation | Search
