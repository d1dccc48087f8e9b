"""What a model is, and what a diagnosis can say: the types that models, solvers and `fit` share."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax import Array


class Status(IntEnum):
    """What a fit found out; one number per fit, so that it can come out of `jit` and `vmap`.

    Precedence: where several hold, the one named first is reported:
    INVALID_INPUT, NO_DATA, NON_FINITE, CLASS_ABSENT, SEPARATED, SINGULAR, COLLAPSED, CONVERGED,
    STALLED, MAX_STEPS.

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


class Evidence(NamedTuple):
    """A verdict and what proves it. Status MAX_STEPS means: no verdict yet."""

    status: Array  # () int32, a Status
    gap: Array  # () float, bound on f - f*, nats
    direction: Array  # (p,) float, direction of separation, or zeros


class Point(NamedTuple):
    """A vector of parameters, and what is known there."""

    theta: Array  # (p,)
    value: Array  # (), the objective
    grad: Array  # (p,), of its smooth part
    hess: Array  # (p, p), of its smooth part
    wanted: Array | bool  # () whether it matters how tight the bound is; False if it never does


class Estimate(NamedTuple):
    """A maximum that is a formula, and whether it is one."""

    params: Any
    status: Array  # () int32, a Status
    direction: Any  # like params, along which the likelihood rises for ever, or zeros


class Choice(NamedTuple):
    """What a search among choices found, rather than numbers that a gradient leads to."""

    params: Any
    status: Array  # () int32, a Status
    gap: Array  # () nats to the best of the choices: zero if all were tried, infinite if unknown


class ClosedForm(NamedTuple):
    """How a maximum follows from sums over the examples."""

    statistics: Callable[..., Any]
    """(x, y, weights) -> what the likelihood knows of the examples."""
    merge: Callable[[Any, Any], Any]
    """The statistics of two sets of examples together."""
    estimate: Callable[[Any], Estimate]
    """statistics -> the maximum."""
    log_likelihood_and_grad: Callable[..., tuple[Array, Any]]
    """(params, statistics) -> (), and a tree like the parameters."""


class ExpectationMaximisation(NamedTuple):
    """How an expected maximum follows from sums over the examples, given parameters."""

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


class Features(NamedTuple):
    """What entries of x a model is defined for, beyond that they are finite."""

    valid: Callable[..., Any]
    """(x, xp) -> () bool, xp being `jax.numpy`, or `numpy` for arrays of NumPy."""
    expected: Callable[..., str]
    """(x, numpy) -> in words what was expected where, and what is there."""
    missing: bool = False
    """Whether NaN stands for an entry that was not observed."""
    suffice: Callable[..., Any] | None = None
    """(x, weights or None, xp) -> () bool: whether the examples of positive weight, taken together,
    determine what the model needs of every column; always where None. A lane whose examples do not
    is SINGULAR."""
    lacking: Callable[..., str] | None = None
    """(x, weights or None, names of the columns or None) -> in words what the examples lack."""


class Labels(NamedTuple):
    """y holds class labels 0, ..., num_classes - 1."""

    num_classes: int


class Bind:
    """A function with keyword settings bound, equal to another by value.

    Unlike a closure, a lambda or `functools.partial`, two of them made in two places compare and
    hash equal, so a compiled program that takes one as a static argument is compiled once.

    Args:
        fn: a function defined at the top level of a module.
        **settings: hashable keyword arguments.

    Example:
        >>> Bind(int, base=2) == Bind(int, base=2), Bind(int, base=2)("101")
        (True, 5)
    """

    __slots__ = ("__weakref__", "fn", "settings")  # jax.jit wants the first

    fn: Callable[..., Any]
    settings: Mapping[str, Any]

    def __init__(self, fn: Callable[..., Any], **settings: Any):
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "settings", MappingProxyType(settings))
        hash(self)  # an unhashable setting fails here, with its own name in the traceback

    def __setattr__(self, name: str, value: Any):
        raise AttributeError("Bind is immutable")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function, with its settings."""
        return self.fn(*args, **self.settings, **kwargs)

    def _key(self) -> tuple:
        return self.fn, tuple(sorted(self.settings.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bind) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        settings = "".join(f", {k}={v!r}" for k, v in self.settings.items())
        return f"Bind({self.fn.__module__}.{self.fn.__qualname__}{settings})"

    def __reduce__(self):
        return _rebuild, (self.fn, dict(self.settings))


def _rebuild(fn: Callable[..., Any], settings: dict[str, Any]) -> Bind:
    return Bind(fn, **settings)


class Certificates(NamedTuple):
    """What a model can prove about a fit; each takes the problem that the solver sees."""

    bound: Callable[..., tuple[Array, Array]]
    """(problem, point, step, factor) -> a bound on f - f*, from a Newton step, and what rounding
    can hide from it; () nats each."""
    chord_bound: Callable[..., Array]
    """(problem, theta, value, grad, moved, factor) -> (): the same, from an older Hessian."""
    separation: Callable[..., tuple[Array, Array]]
    """(problem, theta, step) -> () whether the classes are found separated; (p,) the direction."""
    absent: Callable[..., Array]
    """(problem,) -> (): whether a class without examples leaves no finite maximum."""
    logit_range: Callable[..., Array]
    """(step, problem) -> (): the Hessian changes by at most e to this along the step."""
    least_mass: Callable[..., Array]
    """(theta, problem) -> (): the smallest weight times probability of any outcome."""
    noise: Callable[..., Array]
    """(problem, theta, value, factor) -> (), nats: what rounding can hide from other bounds."""


class Model(NamedTuple):
    """A model: functions of a parameter pytree, bundled for `jaxprob.fit`.

    Static: compares and hashes by value. `None` in an optional field means that the model has no
    such thing; gradient and information then come from `jax.grad` and `jax.hessian`.
    """

    name: str
    labels: Labels | None
    """What y is; None for a density of x alone, whose functions take no y."""
    init: Callable[..., Any]
    """(key or None, x, y, weights=None) -> parameters to start from."""
    log_prob: Callable[..., Array]
    log_likelihood: Callable[..., Array]
    grad_log_likelihood: Callable[..., Any] | None = None
    log_likelihood_and_grad: Callable[..., tuple[Array, Any]] | None = None
    information: Callable[..., Array] | None = None
    sample: Callable[..., Array] | None = None
    predict_log_proba: Callable[..., Array] | None = None
    penalised: Callable[[Any], Any] | None = None
    """params -> the same tree of booleans: which entries l1 and l2 act on."""
    canonical: Callable[[Any], Any] | None = None
    """params -> params: the linear projection that picks one of several equivalent parameters."""
    certificates: Certificates | None = None
    """What the model can prove about a fit."""
    extras: tuple[str, ...] = ()
    """Per-example keyword arguments besides `weights`, such as "offset"."""
    offset_columns: int | None = None
    """The columns of an offset (n, K); None where it is (n,)."""
    features: Features | None = None
    """What x may hold; any finite numbers where None."""
    log_prior: Callable[..., Array] | None = None
    """params -> (), nats, up to a constant: added to the log-likelihood that a fit maximises. Takes
    the `hyperparameters` as a last argument where the model has some."""
    closed_form: ClosedForm | None = None
    """The maximum, where it is a formula."""
    choose: Callable[..., Choice] | None = None
    """(x, y, weights) -> what is best among choices, or what a search among them finds: for models
    that have no gradient, such as trees."""
    bound: Callable[..., Array] | None = None
    """(params, x, y, weights) -> (), nats: what stands in for the log-likelihood in a fit, a sum
    over examples. With `log_prior`, minus the divergence from the prior, it is the evidence lower
    bound."""
    log_density: Callable[..., Array] | None = None
    """(params, *queries, x, y, weights) -> (m,) nats: for a model whose density is made of the
    examples. Its `log_prob`, `sample` and `predict_log_proba` take these as their last arguments,
    too, and its log-likelihood leaves each example out of its own density."""
    unbounded: Callable[..., Array] | None = None
    """(*examples, weights) -> () bool, whether the examples alone say that the likelihood has no
    bound, since a density can shrink onto points: such fits are COLLAPSED."""
    em: ExpectationMaximisation | None = None
    """The steps of expectation-maximisation, where there is something latent to expect."""
    parameter_names: Callable[..., tuple[str, ...]] | None = None
    """(params, names of the features or None) -> (p,); made from those of the leaves where None."""
    columns: int | None = None
    """How many numbers for each example a pass holds; as many as parameters for each feature where
    None, as with logits."""
    joint: bool = False
    """Whether it is a density of x and y together: then there is no model without features."""
    reasons: tuple[tuple[Status, str], ...] = ()
    """What a status means for this model, where the general words say too little."""
    recentred: Callable[[Any, Array], Any] | None = None
    """(params, shift (d,)) -> the parameters that features x - shift have in place of x, for a
    model that a shift of its features only reparametrises, linearly."""
    hyperparameters: Callable[..., Any] | None = None
    """(x, y, weights) -> what the prior takes from the examples, such as their location and scale,
    so that a fit does not depend on units; None where the prior is fixed."""


def num_classes(model: Model) -> int | None:
    """How many labels there are, None for a density of x alone."""
    return None if model.labels is None else model.labels.num_classes


def hyperparameters(model: Model, *examples: Array, weights: Array | None) -> tuple:
    """The last arguments of `log_prior` and `em.maximise`: what the prior takes from the examples.

    Args:
        model: a Model.
        *examples: x, and y where there are labels.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        One tree, or nothing where the model's prior is fixed, or where there is none.

    Example:
        >>> from jaxprob.models import logistic
        >>> hyperparameters(logistic.model(), jax.numpy.ones((2, 1)), weights=None)
        ()
    """
    if model.hyperparameters is None or model.log_prior is None:
        return ()
    return (model.hyperparameters(*examples, weights),)


def value_and_grad(model: Model) -> Callable[..., tuple[Array, Any]]:
    """What a fit maximises, and its gradient in one call, hand-derived where there is one."""
    if model.bound is not None:
        return jax.value_and_grad(model.bound)
    return model.log_likelihood_and_grad or jax.value_and_grad(model.log_likelihood)
