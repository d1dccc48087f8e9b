"""A model: what is assumed of examples, bundled for fits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from jax import Array

from jaxprob.contract.objective import Objective, likelihood_of
from jaxprob.contract.proofs import Certificates
from jaxprob.contract.routes import Route
from jaxprob.contract.status import Status
from jaxprob.contract.traits import Trait
from jaxprob.contract.variables import Variables

R = TypeVar("R")


@dataclass(frozen=True)
class Prior:
    """What is added to an objective, the logarithm of a prior density up to a constant."""

    log_prob: Callable[..., Array]
    """params -> (), nats. Takes the `hyperparameters` as a last argument where there are some."""
    hyperparameters: Callable[..., Any] | None = None
    """(x, y, weights) -> what it takes from the examples, such as their location and scale, so that
    a fit does not depend on units."""


@dataclass(frozen=True)
class Predictions:
    """What a fitted model says of examples."""

    classes: Callable[..., Array] | None = None
    """(params, x) -> (n, K) log-probabilities of the labels."""
    components: Callable[..., Array] | None = None
    """(params, x) -> (n, K) log-probabilities of what is latent."""
    mean: Callable[..., Array] | None = None
    """(params, x) -> (n,) the mean of y."""
    sample: Callable[..., Any] | None = None
    """(params, key, x) -> y drawn for each row of x; (params, key, num) for a density of x."""

    @property
    def log_proba(self) -> Callable[..., Array] | None:
        """Of what an example belongs to: a class, or a component."""
        return self.classes or self.components


@dataclass(frozen=True)
class Geometry:
    """What the parameters are like."""

    penalised: Callable[[Any], Any] | None = None
    """params -> the same tree of booleans: which entries l1 and l2 act on."""
    canonical: Callable[[Any], Any] | None = None
    """params -> params: the linear projection that picks one of several equivalent parameters."""
    recentred: Callable[[Any, Array], Any] | None = None
    """(params, shift (d,)) -> the parameters that features x - shift have in place of x, for a
    model that a shift of its features only reparametrises, linearly."""
    names: Callable[..., tuple[str, ...]] | None = None
    """(params, names of the features or None) -> (p,); made from those of the leaves where None."""
    columns: int | None = None
    """How many numbers for each example a pass holds; as many as parameters for each feature where
    None, as with logits."""


@dataclass(frozen=True)
class Model:
    """A model: functions of a parameter pytree, bundled for `jaxprob.fit`.

    Static: compares and hashes by value. Functions are those at the top level of a module, with
    settings bound by `Bind`. What is None, the model has not.
    """

    name: str
    variables: Variables
    """What an example is."""
    init: Callable[..., Any]
    """(key or None, x, y, weights=None) -> parameters to start from. Takes the keyword `offset`
    where examples have one."""
    log_prob: Callable[..., Array]
    """(params, x, y) -> (), nats, of one example. The specification."""
    objective: Objective = None  # pyright: ignore[reportAssignmentType]
    """What a fit raises; the sum of `log_prob` over the examples where none is given."""
    predict: Predictions = Predictions()
    prior: Prior | None = None
    routes: tuple[Route, ...] = ()
    """Short cuts to the maximum, the best first."""
    geometry: Geometry = Geometry()
    certificates: Certificates | None = None
    """What can be proved about a fit."""
    words: tuple[tuple[Status, str], ...] = ()
    """What a status means for this model, where the general words say too little."""

    def __post_init__(self) -> None:
        if self.objective is None:
            object.__setattr__(self, "objective", likelihood_of(self.log_prob))

    @cached_property
    def offers(self) -> Trait:
        """What can be done with it; a problem may offer less."""
        traits = self.objective.traits
        for route in self.routes:
            traits |= route.trait
        if self.geometry.penalised is not None:
            traits |= Trait.PENALISED
        return traits if self.certificates is None else traits | Trait.PROVED

    def route(self, kind: type[R]) -> R | None:
        """The short cut of a kind, None where there is none."""
        return next((route for route in self.routes if isinstance(route, kind)), None)

    def hyperparameters(self, *examples: Array, weights: Array | None) -> tuple:
        """The last arguments of the prior, and of steps of an expectation.

        Args:
            *examples: x, and y where there is one.
            weights: (n,) c_i ≥ 0; one each where None.

        Returns:
            One tree, or nothing where the prior is fixed, or where there is none.

        Example:
            >>> from jaxprob.models import logistic
            >>> logistic.model().hyperparameters(None, None, weights=None)
            ()
        """
        if self.prior is None or self.prior.hyperparameters is None:
            return ()
        return (self.prior.hyperparameters(*examples, weights),)

    def log_probs(
        self, params: Any, *examples: Array, made_of: tuple = (), **extras: Array
    ) -> Array:
        """The log-probabilities (n,) of examples, nats.

        Args:
            params: of the model.
            *examples: x, and y where there is one.
            made_of: (*examples, weights) where the density is made of others.
            **extras: such as offset.
        """
        return self.objective.each(self.log_prob, params, examples, made_of, extras)

    @property
    def prior_follows(self) -> bool:
        """Whether the prior takes something from the examples."""
        return self.prior is not None and self.prior.hyperparameters is not None
