"""What a fit raises."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jaxprob.contract.bind import Bind
from jaxprob.contract.traits import Trait
from jaxprob.numerics.passes import total


@dataclass(frozen=True)
class Objective:
    """What a fit raises, a function of (params, *examples, weights=None).

    Its gradient and its curvature come from `jax.grad` and `jax.hessian` where they are None.
    """

    value: Callable[..., Array]
    """-> (), nats."""
    grad: Callable[..., Any] | None = None
    """-> a tree like the parameters: derived by hand."""
    value_and_grad: Callable[..., tuple[Array, Any]] | None = None
    """-> both, from one pass over the examples."""
    information: Callable[..., Array] | None = None
    """-> (p, p), minus the matrix of second derivatives."""
    smooth: bool = True
    """Whether there are derivatives."""
    unbounded: Callable[..., Array] | None = None
    """(*examples, weights, **extras) -> () bool, whether the examples alone say that there is no
    maximum, since a density can shrink onto points: such fits are COLLAPSED."""

    @property
    def traits(self) -> Trait:
        """What can be done with it."""
        return Trait.SMOOTH if self.smooth else Trait(0)

    @property
    def log_likelihood(self) -> Callable[..., Array]:
        """The log-likelihood that is reported, () nats."""
        return self.value

    def each(
        self,
        log_prob: Callable[..., Array],
        params: Any,
        examples: tuple,
        made_of: tuple,
        extras: Any,
    ) -> Array:
        """The log-probabilities (n,) of examples."""
        del made_of
        return jax.vmap(lambda one, more: log_prob(params, *one, **more))(examples, extras)

    def evaluated(self) -> Callable[..., tuple[Array, Any]]:
        """Value and gradient in one call, derived by hand where they are."""
        return self.value_and_grad or jax.value_and_grad(self.value)


@dataclass(frozen=True)
class Likelihood(Objective):
    """The log-likelihood Σ_i c_i log p_i."""

    @property
    def traits(self) -> Trait:
        """What can be done with it."""
        return super().traits | Trait.SUM | Trait.LIKELIHOOD


@dataclass(frozen=True)
class LeaveOneOut(Objective):
    """The log-density of each example, made of all the others.

    `log_prob` of such a model, and what it predicts, take (*examples, weights) as their last
    arguments, too.
    """

    density: Callable[..., Array] = field(kw_only=True)
    """(params, *queries, *examples, weights) -> (m,) nats."""

    def each(
        self,
        log_prob: Callable[..., Array],
        params: Any,
        examples: tuple,
        made_of: tuple,
        extras: Any,
    ) -> Array:
        """The log-probabilities (n,) of examples."""
        del log_prob
        return self.density(params, *examples, *made_of, **extras)


@dataclass(frozen=True)
class Bound(Objective):
    """A sum over examples that stands in for the log-likelihood.

    With a prior, which is then minus the divergence from it, it is the evidence lower bound.
    """

    reported: Callable[..., Array] = field(kw_only=True)
    """The log-likelihood at the parameters, () nats."""

    @property
    def traits(self) -> Trait:
        """What can be done with it."""
        return super().traits | Trait.SUM

    @property
    def log_likelihood(self) -> Callable[..., Array]:
        """The log-likelihood that is reported, () nats."""
        return self.reported


def likelihood_of(log_prob: Callable[..., Array]) -> Likelihood:
    """The likelihood of independent examples, with derivatives by JAX.

    Args:
        log_prob: (params, *example) -> (), nats, a function at the top level of a module, or a
            `Bind` of one.

    Returns:
        A Likelihood, equal to others of the same function.

    Example:
        >>> from jaxprob.models import logistic
        >>> likelihood_of(logistic.log_prob) == likelihood_of(logistic.log_prob)
        True
    """
    return Likelihood(Bind(_summed, log_prob=log_prob))


def _summed(
    params: Any, *arguments: Any, log_prob: Callable[..., Array], weights: Any = None, **more: Any
) -> Array:
    examples = arguments
    if weights is None:  # the last argument, unless it is a keyword
        *examples, weights = arguments
    names = tuple(more)

    def of_one(example: tuple, extras: tuple) -> Array:
        return log_prob(params, *example, **dict(zip(names, extras, strict=True)))

    each = jax.vmap(of_one)(tuple(examples), tuple(more.values()))
    return total(each if weights is None else weights * each)
