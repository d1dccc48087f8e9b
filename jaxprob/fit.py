"""Fit a model: check the data, build the problem, run a solver, say what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.scipy.special import xlogy
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxprob.compilation import eager_jit
from jaxprob.data import Data, check_data, check_scalar, suffice, violations
from jaxprob.models.base import Evidence, Model, Status, num_classes
from jaxprob.numerics import linalg
from jaxprob.numerics.control import only_if
from jaxprob.numerics.passes import count
from jaxprob.numerics.products import all_digits
from jaxprob.report import Report, report
from jaxprob.solvers.choice import Choice, choice
from jaxprob.solvers.closed_form import ClosedForm, closed_form
from jaxprob.solvers.driver import Result, Solver, Trace, is_unproved, run
from jaxprob.solvers.em import EM, em
from jaxprob.solvers.lbfgs import lbfgs
from jaxprob.solvers.newton import judge, newton
from jaxprob.solvers.problem import Problem, Rows, Shards, block_bytes
from jaxprob.solvers.proximal import proximal

_EXPLICIT = AxisType.Explicit
_MANY_ROWS = 100  # per parameter of a class: from here on a Hessian of some rows is enough
_MUCH_WORK = 2e7  # operations of a Hessian below which it is cheaper than thinking about it


class ManySources(Protocol):
    """What many fits were made from."""

    def lane(self, i: int) -> "Source":
        """What one of them was made from."""
        ...


class Source(NamedTuple):
    """What a fit was made from, kept by reference, so that more can be asked of it later."""

    model: Model
    x: Array
    y: Array | None
    weights: Array | None
    offset: Array | None

    @property
    def rows(self) -> Rows:
        """The data."""
        return Rows(*self[1:])


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
        gap: () nats, a proved bound on the distance to the optimal penalised log-likelihood;
            infinite where nothing is proved.
        grad_norm: () largest entry of the gradient of the objective; with l1, of what a proximal
            gradient step changes. NaN for models without a gradient.
        num_steps: () int32.
        direction: Params v along which the likelihood rises for ever, where status is SEPARATED;
            zeros otherwise.
        num_examples: () int32, of positive weight.
        l2, l1: () the penalties, None where there were none.
        trace: the course of the run, where `fit` was asked for it.
        model: the model, static.
        firth: whether Firth's penalty was used, static.
        feature_names: from the columns of a DataFrame, static; None where there were none.

    `information` and `null_log_likelihood` are computed when first asked for, from the data,
    which a concrete fit refers to; inside `jit` and `vmap` they are computed with the fit.
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
    l2: Array | None
    l1: Array | None
    trace: Trace | None
    kept_information: Array | None
    kept_null: Array | None
    model: Model = field(repr=False)
    feature_names: tuple[str, ...] | None = None
    firth: bool = False
    source: Source | ManySources | None = field(default=None, repr=False, compare=False)

    @property
    def information(self) -> Array:
        """Minus the Hessian of the log-likelihood at the parameters (equations 1.10, 2.11)."""
        if self.kept_information is None:
            if self.model.choose is not None:
                raise ValueError(f"information: {self.model.name} is chosen, and has no derivative")
            data = self._source("information")
            value = _information(data.model, self.params, data.rows)
            object.__setattr__(self, "kept_information", value)
        return self.kept_information  # pyright: ignore[reportReturnType]

    @property
    def null_log_likelihood(self) -> Array:
        """The log-likelihood () of the same model without its features, nats.

        NaN for a density of the features, joint or alone.
        """
        if self.kept_null is None:
            data = self._source("null_log_likelihood")
            value = _null(data.model, data.rows)
            object.__setattr__(self, "kept_null", value)
        return self.kept_null  # pyright: ignore[reportReturnType]

    def _source(self, name: str) -> Source:
        if self.source is None:
            raise ValueError(
                f"{name}: this Fit has passed through a JAX transformation after it was made, and "
                "no longer refers to its data; ask for it before, or in the transformed function"
            )
        if not isinstance(self.source, Source):
            raise ValueError(f"{name}: expected one fit, got many; ask for fits.lane(i).{name}")
        return self.source

    def lane(self, i: int) -> "Fit":
        """One of many fits.

        Args:
            i: which.
        """
        if jnp.ndim(self.status) != 1:
            raise ValueError(f"lane: expected many fits, got shape {jnp.shape(self.status)}")
        if not -len(self.status) <= i < len(self.status):
            raise IndexError(f"lane: expected one of {len(self.status)} fits, got {i}")
        one = jax.tree.map(lambda a: a[i], self)
        many = self.source
        source = None if many is None or isinstance(many, Source) else many.lane(i)
        return replace(one, source=source)

    def report(self) -> Report:
        """How many fits ended how, and why some did not converge; print it."""
        return report(self)

    def tree_flatten(self) -> tuple[tuple, tuple]:
        """Arrays as leaves; the reference to the data is dropped."""
        static = self.model, self.feature_names, self.firth
        return tuple(getattr(self, n) for n in _LEAVES), static

    @classmethod
    def tree_unflatten(cls, static: tuple, leaves: tuple) -> "Fit":
        """The inverse of `tree_flatten`."""
        return cls(*leaves, *static)


_LEAVES = tuple(f.name for f in fields(Fit))[:-4]


def fit(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    init: Any = None,
    trace: bool = False,
) -> Fit:
    """Fit a model by (penalised) maximum likelihood, and prove how good the fit is.

    Minimises -Σ_i c_i log p(y_i|x_i) + l2/2 ‖w‖² + l1 ‖w‖₁ over the parameters, the penalties on
    those that the model calls penalised (weights, not bias). l2 is 1/C of scikit-learn. The
    logarithm of a model's own prior, such as the smoothing of naive Bayes, is added to the
    likelihood; models of x and y together have the joint density in place of p(y|x), and models of
    x alone, such as mixtures, take no y.

    Works inside `jax.jit`, `jax.vmap` and `jax.grad`; derivatives with respect to x, weights,
    offset and penalties are those of the optimum, by the implicit function theorem. Arrays sharded
    over devices stay where they are.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features; a JAX or NumPy array, list, or DataFrame of any library.
        y: (n,) labels 0..K-1, any integer dtype; none for a density of x alone.
        weights: (n,) c_i ≥ 0 of the examples; one each where None.
        offset: added to the logits: (n,) for logistic, (n, K) for softmax regression.
        l2: () ≥ 0.
        l1: () ≥ 0; needs `solver=jaxprob.solvers.proximal()`, the default then.
        firth: whether to add Firth's penalty ½ log det I(θ) to the log-likelihood, with which the
            maximum is finite also where classes are separated or absent. `gap` is then an estimate.
        solver: how to minimise; chosen by the model and the shape of the data where None.
        init: parameters to start from; the model's own where None.
        trace: whether to keep objective and gradient norm after each step in `Fit.trace`.

    Returns:
        A Fit. What only the run can find out is its `status`, never an exception.

    Raises:
        ValueError: before any computation, for what can be seen in the arguments: shapes, NaN or
            infinite values, labels outside 0..K-1, negative weights or penalties, and the like.
        TypeError: for arguments of the wrong type.

    Example:
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> result = fit(logistic.model(), x, y, l2=1.0)
        >>> Status(int(result.status)).name, round(float(result.params.weights[0]), 3)
        ('CONVERGED', 0.633)
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model: expected one such as jaxprob.models.logistic.model(), got {model!r}"
        )
    plan = partial(_plan, model, l2=l2, l1=l1, firth=firth, solver=solver, init=init)

    def compile_first(shapes: Data) -> None:
        problem, theta, solvers, traced = plan(shapes)
        if not traced:
            _run.compile(solvers[0], problem, theta, trace=trace)

    data = check_data(
        x,
        y,
        weights,
        offset,
        num_classes=num_classes(model),
        extras=model.extras,
        offset_columns=model.offset_columns,
        features=model.features,
        meanwhile=compile_first,
    )
    problem, theta, solvers, traced = plan(data)
    if traced:
        finish = partial(_traced, solver=solvers[0], feature_names=data.feature_names, trace=trace)
        theta = problem.start_for(solvers[0]) if theta is None else theta
        with all_digits():
            return _with_auto_axes(finish, problem, theta)
    outcome = _first_that_converges(solvers, problem, theta, trace)
    return _report(problem, outcome, data.feature_names, Source(model, *problem.data))


class _Plan(NamedTuple):
    """What to solve, where to start if not where the model does, and solvers to try in turn."""

    problem: Problem
    theta: Array | None
    solvers: list[Solver]
    traced: bool


def _plan(
    model: Model,
    data: Data,
    *,
    l2: Any,
    l1: Any,
    firth: bool,
    solver: Solver | None,
    init: Any,
) -> _Plan:
    """What `fit` will do with data, or with data of which only the shapes are known."""
    l2 = None if l2 is None else check_scalar("l2", l2, dtype=data.x.dtype)
    l1 = None if l1 is None else check_scalar("l1", l1, dtype=data.x.dtype)
    if model.penalised is None and not (l1 is None and l2 is None):
        raise ValueError(f"l1, l2: {model.name} has no parameters that a penalty makes sense for")
    check_firth(firth, l1)
    rows = Rows(data.x, data.y, data.weights, data.offset)
    traced = _has_tracer((rows, l2, l1, init, solver))
    rows: Rows = rows if traced else jax.tree.map(_on_auto_mesh, rows)
    positive = not traced and any(p is not None and float(p) > 0 for p in (l2, l1))
    whole = model.log_density is not None  # each example meets all others
    shards = None if traced or whole else _shards(rows.x)
    blocks = None if traced else block_bytes(rows.x, shards)
    problem = Problem(rows, l2, l1, model, positive, shards, blocks, firth)
    if problem.num_params() == 0:
        raise ValueError(
            f"x: expected at least one feature, since this {model.name} has no other parameters, "
            f"got shape {rows.x.shape}"
        )
    theta = None if init is None else _start(problem, init)
    solvers = _choose(problem, traced) if solver is None else [check_solver(solver, problem)]
    return _Plan(problem, theta, solvers, traced)


class Outcome(NamedTuple):
    """What a compiled run hands back."""

    result: Result
    params: Any
    direction: Any
    log_likelihood: Array
    objective: Array
    grad_norm: Array
    num_examples: Array


def _has_tracer(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _start(problem: Problem, init: Any) -> Array:
    """The raveled parameters to start from, checked against what the model expects."""
    template = problem.template()
    expected = jax.tree.map(lambda leaf: leaf.shape, template)
    try:
        init = jax.tree.map(lambda t, a: _real(a).astype(t.dtype), template, init)
        got = jax.tree.map(lambda leaf: leaf.shape, init)
    except (ValueError, TypeError) as error:
        raise ValueError(f"init: expected parameters of shapes {expected}, got {init!r}") from error
    if got != expected:
        raise ValueError(f"init: expected parameters of shapes {expected}, got {got}")
    return ravel_pytree(init)[0]


def _real(a: Any) -> Array:
    a = jnp.asarray(a)
    if not (jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)):
        raise TypeError(f"expected real numbers, got {a.dtype}")
    return a


def _on_auto_mesh(a: Array) -> Array:
    """The same buffers, seen on a mesh whose axes are Auto: nothing moves."""
    sharding = a.sharding
    if not isinstance(sharding, NamedSharding) or _EXPLICIT not in sharding.mesh.axis_types:
        return a
    devices, names = sharding.mesh.devices, sharding.mesh.axis_names
    assert devices is not None  # of a concrete array
    mesh = Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.device_put(a, NamedSharding(mesh, sharding.spec))


def _shards(x: Array) -> Shards | None:
    """Where the rows of a concrete array are, if on several devices along one mesh axis."""
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding) or sharding.num_devices == 1:
        return None
    spec, mesh = (*sharding.spec, None), sharding.mesh
    axis = spec[0][0] if isinstance(spec[0], tuple) and len(spec[0]) == 1 else spec[0]
    whole_rows = all(s is None for s in spec[1:])
    if not (isinstance(mesh, Mesh) and isinstance(axis, str) and whole_rows):
        return None
    return Shards(mesh, axis)


def check_data_of(model: Model, x: Any, y: Any, weights: Any = None, offset: Any = None) -> Data:
    """Data checked against what a model takes.

    Args:
        model: a Model.
        x: (n, d).
        y: (n,), or None.
        weights: (n,), or None.
        offset: as the model has it, or None.

    Returns:
        Data.
    """
    return check_data(
        x,
        y,
        weights,
        offset,
        num_classes=num_classes(model),
        extras=model.extras,
        offset_columns=model.offset_columns,
        features=model.features,
    )


def check_firth(firth: Any, l1: Any) -> None:
    """Raise unless it is a bool, and there is no l1 with it.

    Args:
        firth: what the user gave.
        l1: None where there is none.
    """
    if not isinstance(firth, bool):
        raise TypeError(f"firth: expected True or False, got {firth!r}")
    if firth and l1 is not None:
        raise ValueError("firth: expected no l1 with it, whose optimum it would move off its zeros")


def check_solver(solver: Solver, problem: Problem) -> Solver:
    """The solver, if it is one and can do what is asked.

    Args:
        solver: what the user gave.
        problem: what it is to minimise.

    Returns:
        The solver.
    """
    if not all(hasattr(solver, name) for name in ("prepare", "init", "step", "finish")):
        raise TypeError(
            f"solver: expected one of jaxprob.solvers, such as newton(), got {solver!r}"
        )
    if isinstance(solver, EM) and problem.model.em is None:
        raise ValueError(
            f"solver: there is nothing latent in {problem.model.name} to expect; leave solver out, "
            "or pass jaxprob.solvers.newton()"
        )
    if problem.model.choose is not None and not isinstance(solver, Choice):
        raise ValueError(
            f"solver: {problem.model.name} has a search of its own and no gradient; leave solver "
            f"out, got {solver!r}"
        )
    if isinstance(solver, Choice) and problem.model.choose is None:
        raise ValueError(
            f"solver: {problem.model.name} has no search of its own; leave solver out, or pass "
            "jaxprob.solvers.newton()"
        )
    if isinstance(solver, ClosedForm) and (problem.model.closed_form is None or problem.firth):
        what = "Firth's penalty" if problem.firth else problem.model.name
        raise ValueError(
            f"solver: there is no formula for the maximum with {what}; leave solver out, or pass "
            "jaxprob.solvers.newton()"
        )
    if problem.l1 is not None and not getattr(solver, "takes_l1", False):
        raise ValueError(
            f"solver: l1 has no gradient, so it needs jaxprob.solvers.proximal(), got {solver!r}"
        )
    return solver


def default_solver(model: Model, *, has_l1: bool, firth: bool = False) -> Solver:
    """The solver for problems that may be many, or small, where the user named none.

    Args:
        model: what is fitted.
        has_l1: whether there is an l1 penalty.
        firth: whether there is Firth's.

    Returns:
        A solver.
    """
    if model.choose is not None:
        return choice()
    if has_l1:
        return proximal()
    if firth:
        return newton()
    if model.closed_form is not None:
        return closed_form()
    return newton() if model.em is None else em()


def _choose(problem: Problem, traced: bool) -> list[Solver]:
    """Solvers to try in turn, the fastest for the shape of the data first."""
    default = default_solver(problem.model, has_l1=problem.l1 is not None, firth=problem.firth)
    n, d = problem.data.x.shape
    is_small = n < _MANY_ROWS * (d + 1) or n * problem.num_params() ** 2 < _MUCH_WORK
    whole = problem.model.log_density is not None  # some rows are another problem
    if traced or is_small or whole or problem.firth or default != newton():
        return [default]
    return [lbfgs(sample_dtype="float32", max_steps=40), lbfgs(max_steps=40), default]


def solve(problem: Problem) -> Outcome:
    """What is found of a concrete problem by the solvers for its shape.

    Args:
        problem: what to minimise.

    Returns:
        An Outcome.
    """
    return _first_that_converges(_choose(problem, False), problem, None, False)


def _first_that_converges(
    solvers: Sequence[Solver], problem: Problem, theta: Array | None, trace: bool
) -> Outcome:
    for solver in solvers[:-1]:
        outcome = _run(solver, problem, theta, trace=trace)
        if int(outcome.result.evidence.status) == Status.CONVERGED:
            return outcome
    outcome = _run(solvers[-1], problem, theta, trace=trace)
    unproved = bool(is_unproved(outcome.result.evidence)) and solvers[-1].needs_proof
    return _certify(solvers[-1], problem, outcome) if unproved else outcome


def _report(
    problem: Problem,
    outcome: Outcome,
    feature_names: tuple[str, ...] | None,
    source: Source | None,
    information: Array | None = None,
    null: Array | None = None,
) -> Fit:
    result = outcome.result
    return Fit(
        params=outcome.params,
        status=result.evidence.status,
        log_likelihood=outcome.log_likelihood,
        objective=outcome.objective,
        gap=result.evidence.gap,
        grad_norm=outcome.grad_norm,
        num_steps=result.num_steps,
        direction=outcome.direction,
        num_examples=outcome.num_examples,
        l2=problem.l2,
        l1=problem.l1,
        trace=result.trace,
        kept_information=information,
        kept_null=null,
        model=problem.model,
        feature_names=feature_names,
        firth=problem.firth,
        source=source,
    )


def _with_auto_axes(fn: Callable[[Problem, Array], Fit], problem: Problem, theta: Array) -> Fit:
    """Call a function on arrays of a mesh with Explicit axes as if its axes were Auto."""
    mesh = jax.typeof(problem.data.x).sharding.mesh
    explicit = [n for n, t in zip(mesh.axis_names, mesh.axis_types, strict=True) if t == _EXPLICIT]
    if not explicit:
        return fn(problem, theta)
    everywhere = PartitionSpec()
    with jax.sharding.use_abstract_mesh(mesh):
        auto = jax.sharding.auto_axes(fn, axes=tuple(explicit), out_sharding=everywhere)
        return auto(problem, theta)  # pyright: ignore[reportCallIssue]


def _traced(
    problem: Problem,
    theta: Array,
    *,
    solver: Solver,
    feature_names: tuple[str, ...] | None,
    trace: bool,
) -> Fit:
    """The fit as part of the caller's program: differentiable, and with all checks at run time."""
    problem = problem.prepared()

    def conditions(theta: Array) -> Array:
        """Zero at the optimum; regular there, also along what `canonical` removes."""
        _, grad = problem.value_and_grad(theta)
        return _conditions(problem, theta, grad) + theta - problem.canonical(theta)

    def optimum(_: Callable | None, theta: Array) -> tuple[Array, Result]:
        result = run(solver, problem, theta, trace=trace)
        if solver.needs_proof:
            prove = partial(_exact_evidence, solver, problem)
            evidence = only_if(is_unproved(result.evidence), prove, result.evidence, result)
            result = result._replace(evidence=evidence)
        # Integers have no tangents that custom_root could handle: they travel as floats.
        return result.theta, jax.tree.map(lambda a: a.astype(theta.dtype), result)

    def tangent_solve(linear: Callable[[Array], Array], v: Array) -> Array:
        matrix = jax.vmap(linear, out_axes=1)(jnp.eye(len(v), dtype=v.dtype))
        return linalg.solve(matrix, v)

    if isinstance(solver, Choice):
        theta, found = _chosen(solver, problem, theta, trace=trace)
    else:
        theta, found = jax.lax.custom_root(conditions, theta, optimum, tangent_solve, has_aux=True)
    evidence = found.evidence._replace(status=found.evidence.status.astype(jnp.int32))
    steps = found.num_steps.astype(jnp.int32)
    result: Result = found._replace(theta=theta, evidence=evidence, num_steps=steps)
    data, model = problem.data, problem.model
    settings = {"num_classes": num_classes(model), "features": model.features}
    bad = violations(*data, **settings)
    enough = suffice(data.x, data.weights, features=model.features)
    status = jnp.where(enough, result.evidence.status, jnp.int32(Status.SINGULAR))
    status = jnp.where(bad.no_weight, jnp.int32(Status.NO_DATA), status)
    penalties = [p for p in (problem.l2, problem.l1) if p is not None]
    sensible = [(p >= 0) & jnp.isfinite(p) for p in penalties]
    invalid = bad.invalid | ~jnp.all(jnp.stack(sensible)) if sensible else bad.invalid
    status = jnp.where(invalid, jnp.int32(Status.INVALID_INPUT), status)
    value = problem.objective(theta)
    outcome = outcome_of(problem, result)._replace(
        log_likelihood=value if model.bound is None else problem.log_likelihood(theta),
        objective=value - problem.penalties(theta),
    )
    evidence = result.evidence._replace(status=status)
    outcome = outcome._replace(result=outcome.result._replace(evidence=evidence))
    information = None if model.choose is not None else problem.information(theta)
    null = _null(model, data)
    return _report(problem, outcome, feature_names, None, information, null)


def _chosen(solver: Solver, problem: Problem, theta: Array, *, trace: bool) -> tuple[Array, Result]:
    """What a search finds, which has no derivative."""

    @jax.custom_jvp
    def search(problem: Problem, theta: Array) -> Result:
        return run(solver, problem, theta, trace=trace)

    @search.defjvp
    def _(primals: tuple, tangents: tuple) -> Any:
        name = problem.model.name
        raise TypeError(f"fit: {name} is chosen rather than computed, and has no derivative")

    found = search(problem, theta)
    return found.theta, found


@partial(eager_jit, static_argnames=["trace"])
def _run(solver: Solver, problem: Problem, theta: Array | None, *, trace: bool) -> Outcome:
    problem = problem.prepared()
    theta = problem.start_for(solver) if theta is None else theta
    return outcome_of(problem, run(solver, problem, theta, trace=trace))


def outcome_of(problem: Problem, result: Result) -> Outcome:
    """What is reported of a run."""
    theta = result.theta
    by_bound = problem.model.bound is not None
    return Outcome(
        result,
        problem.unravel(theta),
        problem.unravel(result.evidence.direction),
        problem.log_likelihood(theta) if by_bound else problem.penalties(theta) - result.value,
        -result.value,
        jnp.max(jnp.abs(_conditions(problem, theta, result.grad)), initial=0.0),
        count(problem.example_weights() > 0),
    )


def _conditions(problem: Problem, theta: Array, grad: Array) -> Array:
    """(p,) zero at the optimum: the gradient, or with l1 the least of its subgradients' steps."""
    if problem.l1 is None:
        return grad
    moved = theta - grad
    return theta - jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - problem.shrinkage(), 0.0)


@eager_jit
def _certify(solver: Solver, problem: Problem, outcome: Outcome) -> Outcome:
    """Replace the evidence of a solver that proves nothing by that of the exact Hessian."""
    result = outcome.result
    evidence = _exact_evidence(solver, problem, result)
    return outcome._replace(
        result=result._replace(evidence=evidence), direction=problem.unravel(evidence.direction)
    )


def _exact_evidence(solver: Solver, problem: Problem, result: Result) -> Evidence:
    return judge(problem, result, getattr(solver, "tol", None))


@partial(jax.jit, static_argnums=0)
def _information(model: Model, params: Any, rows: Rows) -> Array:
    problem = Problem(rows, None, None, model, False, None)
    with all_digits():
        return problem.information(ravel_pytree(params)[0])


@partial(jax.jit, static_argnums=0)
def _null(model: Model, rows: Rows) -> Array:
    if model.joint or model.labels is None:
        return jnp.full((), jnp.nan, rows.x.dtype)
    if model.choose is not None:  # what its examples say of the labels alone
        c = jnp.ones(len(rows.x), rows.x.dtype) if rows.weights is None else rows.weights
        counts = jnp.zeros(model.labels.num_classes, c.dtype).at[rows.y].add(c)
        return jnp.sum(xlogy(counts, counts / jnp.sum(counts)))
    bare, rows = model._replace(certificates=None), rows._replace(x=rows.x[:, :0])
    # Held fixed, the optimum leaves the derivative right: that of the likelihood vanishes there.
    fixed = Problem(jax.tree.map(jax.lax.stop_gradient, rows), None, None, bare, False, None)
    theta = jnp.zeros(fixed.num_params(), rows.x.dtype)
    if len(theta):
        theta = jax.lax.stop_gradient(run(newton(), fixed, theta).theta)
    theta = fixed.unravel(theta)
    return model.log_likelihood(theta, *rows.examples, rows.weights, **rows.extras)
