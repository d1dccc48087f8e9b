"""What a fit found: parameters, their status, and the evidence for it."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.contract import Model, Status, Trait, is_usable
from jaxprob.data.loading import picked
from jaxprob.data.schema import UNNAMED, Schema
from jaxprob.fit import asking
from jaxprob.fit.arguments import default_for
from jaxprob.fit.report import Report, report
from jaxprob.numerics import linalg
from jaxprob.numerics.products import all_digits, matmul
from jaxprob.problem.problem import Problem, Rows
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import Result, Trace, run
from jaxprob.solvers.newton import Newton
from jaxprob.solvers.plain_newton import plain_newton, suits


class ManySources(Protocol):
    """What many fits were made from."""

    def lane(self, i: int) -> "Source":
        """What one of them was made from."""
        ...


class Source(NamedTuple):
    """What a fit was made from, so that more can be asked of it later: arrays that none changes."""

    model: Model
    x: Array
    y: Array | None
    weights: Array | None
    offset: Array | None
    centre: Array | None = None
    """(d,) what has been subtracted from x."""
    shared: Problem | None = None
    """The problem with rows for which there are programs, where there is one."""

    @property
    def rows(self) -> Rows:
        """The data."""
        return Rows(*self[1:5])

    def problem(self, l2: Array | None = None) -> Problem:
        """What the data make, without penalties but perhaps l2."""
        return Problem(self.rows, l2, None, self.model, False, None, centre=self.centre)

    def bare(self) -> Problem:
        """The same without penalties, of any number of rows, for what adds up over them."""
        rows = self.rows if self.shared is None else self.shared.data
        return Problem(rows, None, None, self.model, False, None, centre=self.centre)


class Kept(NamedTuple):
    """What is computed with a fit inside of `jit` and `vmap`, where the data are gone later."""

    information: Array | None  # (p, p), of features less their centre; None for choices
    back: Array | None  # (p, p), from parameters of these to those of the features
    null_log_likelihood: Array  # ()


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Fit:
    """A fitted model: parameters, and the evidence that they are right. Arrays are leaves.

    Attributes:
        params: the model's parameters; those at which the run ended, whatever the status.
        status: () int32, a `Status`.
        log_likelihood: () nats, without penalties.
        objective: () nats, what was maximised: the log-likelihood, or the evidence lower bound of
            models that have one, less penalties and with the logarithm of the prior.
        gap: () nats, how far the objective is from its maximum; infinite where nothing is known.
            For models with certificates (logistic, softmax and Poisson regression) a proved bound
            that holds in spite of rounding, zero for formulas and for searches that compared all
            choices. Otherwise, with latent variables, Firth's penalty, densities made of the
            examples and models of your own without certificates, it is an estimate, and about a
            maximum near the start.
        grad_norm: () largest entry of the gradient of the objective; with l1, of what a proximal
            gradient step changes. NaN for models without a gradient.
        num_steps: () int32.
        direction: Params v along which the likelihood rises for ever, where status is SEPARATED;
            zeros otherwise.
        num_examples: () int32, of positive weight.
        total_weight: () the sum of the weights: how many rows the examples stand for.
        l2, l1: () the penalties, None where there were none.
        trace: the course of the run, where `fit` was asked for it.
        model: the model, static.
        firth: whether Firth's penalty was used, static.
        schema: what the columns and classes are called, static.

    `information` and `null_log_likelihood` are computed when first asked for, from the data, of
    which a concrete fit keeps a copy where they were no arrays of JAX; inside `jit` and `vmap` they
    are computed with the fit.
    """

    params: Any
    status: Array
    log_likelihood: Array
    objective: Array
    gap: Array
    grad_norm: Array
    num_steps: Array
    direction: Any
    num_examples: Array
    total_weight: Array
    l2: Array | None
    l1: Array | None
    trace: Trace | None
    kept: Kept | None
    model: Model = field(repr=False)
    schema: Schema = UNNAMED
    firth: bool = False
    source: Source | ManySources | None = field(default=None, repr=False, compare=False)
    cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def information(self) -> Array:
        """Minus the Hessian of the log-likelihood at the parameters (equations 1.10, 2.11)."""
        matrix, back = self.centred_information
        if back is None:
            return matrix
        there = linalg.solve(back, jnp.eye(len(back), dtype=back.dtype))
        return matmul(there.T, matmul(matrix, there))

    @property
    def centred_information(self) -> tuple[Array, Array | None]:
        """Minus the Hessian (p, p) in parameters of features less their centre.

        And the matrix (p, p) that makes the parameters of these; None where nothing was subtracted.
        There the digits are that `information` has lost where features are far from zero.
        """
        if Trait.SMOOTH not in self.model.offers:
            raise ValueError(f"information: {self.model.name} is chosen, and has no derivative")
        if self.kept is not None:
            return self.kept.information, self.kept.back  # pyright: ignore[reportReturnType]
        if "information" not in self.cache:
            problem = self._source("information").bare()
            self.cache["information"] = _information(problem, self.params)
        return self.cache["information"]

    @property
    def null_log_likelihood(self) -> Array:
        """The log-likelihood () of the same model without its features, nats.

        NaN for a density of the features, joint or alone.
        """
        if self.kept is not None:
            return self.kept.null_log_likelihood
        if "null" not in self.cache:
            self.cache["null"] = _null(self._source("null_log_likelihood").bare())
        return self.cache["null"]

    def __repr__(self) -> str:
        if not isinstance(self.status, Tracer) and jnp.ndim(self.status) == 1:
            numbers, counts = np.unique(np.asarray(self.status), return_counts=True)
            each = zip(numbers, counts, strict=True)
            said = ", ".join(f"{count:,} {Status(int(number)).name}" for number, count in each)
            return f"Fit({len(self.status):,} fits of {self.model.name}: {said})"
        shown = {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.repr}
        if not isinstance(self.status, Tracer) and jnp.shape(self.status) == ():
            shown["status"] = Status(int(self.status)).name
        return f"Fit({', '.join(f'{name}={value}' for name, value in shown.items())})"

    def _source(self, name: str) -> Source:
        if self.source is None:
            raise ValueError(
                f"{name}: this Fit has passed through a JAX transformation after it was made, and "
                "no longer refers to its data; ask for it before, or in the transformed function"
            )
        if not isinstance(self.source, Source):
            raise ValueError(f"{name}: expected one fit, got many; ask for fits.lane(i).{name}")
        return self.source

    def __getstate__(self) -> dict[str, Any]:
        """For pickles: no examples, but those that the density is made of."""
        state = self.__dict__ | {"cache": {}}
        if Trait.SUM in self.model.offers:
            state |= {"source": None, "kept": kept_of(self)}
        return state

    def __copy__(self) -> "Fit":
        return self

    def __deepcopy__(self, memo: Any) -> "Fit":
        return self

    def lane(self, i: int) -> "Fit":
        """One of many fits.

        Args:
            i: which.
        """
        if jnp.ndim(self.status) != 1:
            raise ValueError(f"lane: expected many fits, got shape {jnp.shape(self.status)}")
        if not -len(self.status) <= i < len(self.status):
            raise IndexError(f"lane: expected one of {len(self.status)} fits, got {i}")
        one = picked(self, i)
        many = self.source
        source = None if many is None or isinstance(many, Source) else many.lane(i)
        return replace(one, source=source)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns of a DataFrame; None where there were none."""
        return self.schema.features

    @property
    def usable(self) -> Array:
        """Bool: whether it counts, as converged or as trained; one for each of many fits."""
        return is_usable(self.status)

    @property
    def classes(self) -> np.ndarray | None:
        """The labels (K,) that the columns of `predict_proba` are of; None without classes."""
        num = self.model.variables.num_classes
        if num is None:
            return None
        return np.arange(num) if self.schema.classes is None else np.array(self.schema.classes)

    def predict(self, x: Any, *, offset: Any = None) -> Any:
        """The most probable label of each example; its component for mixtures, the mean of numbers.

        Args:
            x: (n, d) features, with the columns that were fitted; those of a DataFrame are put in
                their order.
            offset: as of the fit; zero where None.

        Returns:
            (n,), or (B, n) for many fits: labels as they were when fitted, in an array of NumPy
            where they were text or other numbers than 0, ..., K - 1. Inside of `jax.jit` these
            numbers, and -1 where probabilities are NaN.

        Raises:
            ValueError: for other columns than were fitted, entries that are not finite, and where
                probabilities are NaN, as those of a lane whose input was invalid.
            TypeError: for a model that is a density alone.
        """
        return asking.predicted(self, x, offset)

    def predict_log_proba(self, x: Any, *, offset: Any = None) -> Array:
        """The log-probabilities of the classes, or components, of each example.

        Args:
            x: as of `predict`.
            offset: as of `predict`.

        Returns:
            (n, K) nats, or (B, n, K) for many fits; columns are of `classes`.
        """
        return asking.log_proba(self, x, offset)

    def predict_proba(self, x: Any, *, offset: Any = None) -> Array:
        """The probabilities of the classes, or components, of each example.

        Args:
            x: as of `predict`.
            offset: as of `predict`.

        Returns:
            (n, K), or (B, n, K) for many fits; columns are of `classes`.
        """
        return asking.proba(self, x, offset)

    def log_prob(self, x: Any, y: Any = None, *, offset: Any = None) -> Array:
        """The log-probability of each example under the fit.

        Args:
            x: as of `predict`.
            y: (n,) as of the fit; none for a density of x alone.
            offset: as of `predict`.

        Returns:
            (n,) nats, or (B, n) for many fits.
        """
        return asking.log_probs(self, x, y, offset)

    def score(self, x: Any, y: Any = None, *, weights: Any = None, offset: Any = None) -> Array:
        """The mean log-probability of an example: the higher, the better.

        Args:
            x: as of `predict`.
            y: as of `log_prob`.
            weights: (n,) ≥ 0; one each where None.
            offset: as of `predict`.

        Returns:
            () nats, or (B,) for many fits.
        """
        return asking.score(self, x, y, weights, offset)

    def sample(
        self, key: Array, x: Any = None, *, num: int | None = None, offset: Any = None
    ) -> Any:
        """Draw from the fitted model.

        Args:
            key: a typed PRNG key: `jax.random.key(0)`.
            x: as of `predict`, for each row of which y is drawn, or x and y for a model of both;
                none for a density of x alone.
            num: how many draws, for each row of x where there is one.
            offset: as of `predict`.

        Returns:
            y (n,), or (num, n), as numbers; a pair (x, y) for a model of both; x (num, d) for a
            density. With a lane axis in front for many fits.
        """
        return asking.drawn(self, key, x, num, offset)

    def report(self) -> Report:
        """How many fits ended how, and why some did not converge; print it."""
        return report(self)

    def tree_flatten(self) -> tuple[tuple, tuple]:
        """Arrays as leaves; the reference to the data is dropped."""
        return tuple(getattr(self, n) for n in _LEAVES), tuple(getattr(self, n) for n in _STATIC)

    @classmethod
    def tree_unflatten(cls, static: tuple, leaves: tuple) -> "Fit":
        """The inverse of `tree_flatten`."""
        return cls(*leaves, *static)


_MOST_INFORMATION = 1_000  # parameters


def kept_of(fit: Fit) -> Kept | None:
    """What a summary needs to know of the data, of one fit of a moderate size."""
    one = isinstance(fit.source, Source)
    if fit.kept is not None or not one or Trait.SMOOTH not in fit.model.offers:
        return fit.kept
    if sum(jnp.size(a) for a in jax.tree.leaves(fit.params)) > _MOST_INFORMATION:
        return None
    return Kept(*fit.centred_information, fit.null_log_likelihood)


_STATIC = ("model", "schema", "firth")


_LEAVES = tuple(f.name for f in fields(Fit) if f.name not in (*_STATIC, "source", "cache"))


@jax.jit
def _information(problem: Problem, params: Any) -> tuple[Array, Array | None]:
    with all_digits():
        return problem.information(problem.centred(params)), problem.back()


def _null(problem: Problem) -> Array:
    """The log-likelihood () of the same model without its features, of concrete arrays."""
    model = problem.model
    if not (model.variables.is_conditional and Trait.SMOOTH in model.offers):
        return null_of(problem)
    bare = replace(
        problem,
        data=problem.data._replace(x=problem.data.x[:, :0]),
        model=replace(model, certificates=None),
        centre=None,
    )
    solver = default_for(bare)
    if suits(solver, bare):
        found = _plain_null(solver, bare)
        if int(found.evidence.status) == Status.CONVERGED:
            return -found.value
    return null_of(problem)


@eager_jit
def _plain_null(solver: Newton, bare: Problem) -> Result:
    most = jnp.int32(solver.max_steps)
    return plain_newton(solver, bare, bare.start(), jnp.int32(0), most)


@jax.jit
def null_of(problem: Problem) -> Array:
    """The log-likelihood () of the same model without its features."""
    model, rows = problem.model, problem.data
    if not model.variables.is_conditional:
        return jnp.full((), jnp.nan, rows.x.dtype)
    if Trait.SMOOTH not in model.offers:  # what its examples say of y alone
        assert model.variables.y is not None
        return model.variables.y.alone(rows.y, problem.example_weights())
    bare, rows = replace(model, certificates=None), rows._replace(x=rows.x[:, :0])
    # Held fixed, the optimum leaves the derivative right: that of the likelihood vanishes there.
    fixed = Problem(jax.tree.map(jax.lax.stop_gradient, rows), None, None, bare, False, None)
    theta = jnp.zeros(fixed.num_params(), rows.x.dtype)
    if len(theta):
        solver = default_for(fixed)
        found = run(solver, fixed, jax.lax.stop_gradient(fixed.start_for(solver)))
        theta = jax.lax.stop_gradient(found.theta)
    params = fixed.unravel(theta)
    return model.objective.value(params, *rows.examples, rows.weights, **rows.extras)
