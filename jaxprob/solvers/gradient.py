r"""Gradient methods: any optax optimiser, on all rows or on minibatches.

The descent θ ← θ - α ∇f(θ) of equations 1.6 and 2.8 is `gradient(optax.sgd, learning_rate=α)`. f is
the sum over examples, not their mean: a learning rate that suits a mean has to be divided by n. For
a convex f whose Hessian is at most L, descent converges for α < 2/L, at the rate (1 - α λ_min) a
step.

A step is a pass over the data: one update on all rows, or ⌈n / batch_size⌉ updates on minibatches
in a new order. When the run ends, the exact Hessian there says how far the optimum still is, for
models with certificates; other models are TRAINED, and nothing is proved of them.

Source: Robbins and Monro, A stochastic approximation method, Annals of Mathematical Statistics 22,
1951; Nesterov, Lectures on Convex Optimization, 2018, theorem 2.1.15.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Status, Trait
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import State, blank, with_status
from jaxprob.solvers.settings import check_count, check_tolerance

if TYPE_CHECKING:
    import optax


class Last(NamedTuple):
    """Where training is, while the parameters of the state are the best so far."""

    theta: Array  # (p,)
    grad: Array  # (p,) of the examples that are learnt from
    score: Array  # () the best of the held-out examples, nats each
    idle: Array  # () int32, passes since then


class GradientMemory(NamedTuple):
    """The optimiser's own state, and with held-out examples where training is."""

    optimiser: Any
    last: Last | None


class Split(NamedTuple):
    """The examples that are learnt from, and those that say when to stop."""

    learnt: Problem
    held_out: Problem


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["hyper", "grad_tol", "key"],
    meta_fields=["optimiser", "settings", "max_steps", "batch_size", "held_out", "patience"],
)
@dataclass(frozen=True)
class Gradient:
    """Settings of `gradient`."""

    optimiser: Callable[..., "optax.GradientTransformation"]
    hyper: dict[str, Any] = field(hash=False)
    settings: tuple[tuple[str, Any], ...]
    max_steps: int
    grad_tol: Array | float
    batch_size: int | None
    key: Array | None
    held_out: float
    patience: int

    recentres = False
    sums = False
    needs = Trait.SMOOTH
    takes_known = False
    takes_start = True
    takes_l1 = False
    proof = Trait.CURVED | Trait.PROVED
    takes_plain_steps = False
    trains = True

    def prepare(self, problem: Problem, theta: Array) -> tuple[Split | None, Array]:
        """Which examples are held out."""
        theta = problem.canonical(theta)
        if not self.held_out:
            return None, theta
        assert self.key is not None  # see `gradient`
        weights = problem.example_weights()
        out = jax.random.uniform(jax.random.fold_in(self.key, 0), weights.shape) < self.held_out
        learnt, judged = (jnp.where(some, weights, 0.0) for some in (~out, out))
        return Split(problem.reweighted(learnt), problem.reweighted(judged)), theta

    def init(self, problem: Problem, fixed: Split | None, theta: Array) -> State:
        """The optimiser's state at the start."""
        lowest = jnp.asarray(-jnp.inf, theta.dtype)
        last = Last(theta, jnp.zeros_like(theta), lowest, jnp.int32(0)) if fixed else None
        return blank(theta, GradientMemory(self._build().init(problem.unravel(theta)), last))

    def start(
        self, problem: Problem, fixed: Split | None, theta: Array, known: Known | None
    ) -> State:
        """The state after step 0."""
        return self.step(problem, fixed, self.init(problem, fixed, theta), jnp.int32(0))

    def step(self, problem: Problem, fixed: Split | None, state: State, k: Array) -> State:
        """One pass of updates, then value and gradient where it ended; step 0 only looks."""
        if fixed is not None:
            return self._judged(fixed, state, k)
        at = state.theta, state.grad, state.memory.optimiser
        theta, optimiser = self._pass(problem, *at, k)
        value, grad = problem.value_and_grad(theta)
        small = jnp.max(jnp.abs(grad), initial=0.0) <= self.grad_tol * (1 + jnp.abs(value))
        rises = value > state.value  # a large value makes every gradient look small
        evidence = with_status(state.evidence, small & ~rises, Status.STALLED)
        new = State(theta, value, grad, evidence, GradientMemory(optimiser, None))
        return _unless_diverged(new, state, value, grad, k)

    def _judged(self, split: Split, state: State, k: Array) -> State:
        """One pass over the examples that are learnt from, and the score of the others after it."""
        last = state.memory.last
        assert last is not None  # see `init`
        theta, optimiser = self._pass(
            split.learnt, last.theta, last.grad, state.memory.optimiser, k
        )
        value, grad = split.learnt.value_and_grad(theta)
        score = split.held_out.objective(theta) / jnp.sum(split.held_out.example_weights())
        better = (score > last.score) | jnp.isnan(score)  # if chance has held out no example
        idle = jnp.where(better, 0, last.idle + 1)
        now = Last(theta, grad, jnp.where(better, score, last.score), idle)
        stop = (idle >= self.patience) & jnp.isfinite(now.score)
        evidence = with_status(state.evidence, stop, Status.BEST_HELD_OUT)
        best = jnp.where(better, theta, state.theta)
        new = State(best, value, grad, evidence, GradientMemory(optimiser, now))
        return _unless_diverged(new, state, value, grad, k)

    def newton_step(self, state: State) -> None:
        """None is made."""

    def finish(self, problem: Problem, fixed: Split | None, state: State) -> State:
        """With the objective of all examples where some were held out."""
        if fixed is None:
            return state
        value, grad = problem.value_and_grad(state.theta)
        return state._replace(value=value, grad=grad)

    def _pass(
        self, problem: Problem, theta: Array, grad: Array, optimiser: Any, k: Array
    ) -> tuple[Array, Any]:
        """Where one pass over the examples leads; nowhere at step 0."""
        one_pass = self._all_rows if self.batch_size is None else self._minibatches

        def move() -> tuple[Array, Any]:
            return one_pass(problem, theta, grad, optimiser, k)

        return jax.lax.cond(k == 0, lambda: (theta, optimiser), move)

    def _build(self) -> "optax.GradientTransformation":
        return self.optimiser(**self.hyper, **dict(self.settings))

    def _update(
        self, problem: Problem, theta: Array, grad: Array, optimiser: Any
    ) -> tuple[Array, Any]:
        from optax import apply_updates  # takes as long to import as all the rest of jaxprob

        params, grads = problem.unravel(theta), problem.unravel(grad)
        change, optimiser = self._build().update(grads, optimiser, params)
        new = ravel_pytree(apply_updates(params, change))[0]
        return new.astype(theta.dtype), optimiser

    def _all_rows(
        self, problem: Problem, theta: Array, grad: Array, optimiser: Any, k: Array
    ) -> tuple[Array, Any]:
        del k
        return self._update(problem, theta, grad, optimiser)

    def _minibatches(
        self, problem: Problem, theta: Array, grad: Array, optimiser: Any, k: Array
    ) -> tuple[Array, Any]:
        del grad
        n, size = problem.data.x.shape[0], min(self.batch_size or 1, problem.data.x.shape[0])
        count = -(-n // size)
        assert self.key is not None  # see `gradient`
        order = jax.random.permutation(jax.random.fold_in(self.key, k), n)
        order = jnp.pad(order, (0, count * size - n)).reshape(count, size)
        live = (jnp.arange(count * size) < n).reshape(count, size)  # the last batch may be short

        def batch(carry: tuple[Array, Any], rows: tuple[Array, Array]) -> tuple:
            theta, optimiser = carry
            _, grad = problem.rows(*rows).value_and_grad(theta)
            return self._update(problem, theta, grad * (n / jnp.sum(rows[1])), optimiser), None

        return jax.lax.scan(batch, (theta, optimiser), (order, live))[0]


def _unless_diverged(new: State, old: State, value: Array, grad: Array, k: Array) -> State:
    """The new state where it is finite, else the old one with a verdict."""
    finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad))
    status = jnp.where(k == 0, jnp.int32(Status.NON_FINITE), jnp.int32(Status.DIVERGED))
    ended = old._replace(evidence=old.evidence._replace(status=status))
    return jax.tree.map(partial(jnp.where, finite), new, ended)


def gradient(
    optimiser: Callable[..., "optax.GradientTransformation"],
    *,
    max_steps: int = 1000,
    grad_tol: Array | float = 1e-9,
    batch_size: int | None = None,
    key: Array | None = None,
    held_out: float = 0.0,
    patience: int = 10,
    **hyper: Any,
) -> Gradient:
    """An optax optimiser, for `jaxprob.fit(..., solver=...)`.

    Args:
        optimiser: a function that makes one, such as `optax.sgd` or `optax.adam`.
        max_steps: at most so many passes over the data.
        grad_tol: stop when no entry of the gradient exceeds it times 1 + |f|.
        batch_size: update on so many examples at a time; on all of them where None.
        key: a typed PRNG key for the order of the minibatches and for which examples are held out;
            needed with `batch_size` and `held_out`.
        held_out: the share of the examples that nothing is learnt from: training stops when their
            score rises no more, and the parameters are the best by it (BEST_HELD_OUT).
        patience: after so many passes without a better score.
        **hyper: passed to the optimiser, `learning_rate` first of all. Numbers and arrays are
            traced: another learning rate compiles nothing, and `vmap` runs many. Others are static.

    Returns:
        A solver.

    Raises:
        TypeError: for an optimiser already made: its learning rate could not be traced; and for
            what is no number.
        ValueError: for minibatches or held-out examples without a key, a batch size below 1, a
            negative number of steps, a share not in [0, 1), or a tolerance that is negative or NaN.

    Example:
        >>> import optax
        >>> gradient(optax.sgd, learning_rate=0.1).max_steps
        1000
    """
    if not callable(optimiser):
        raise TypeError(
            "optimiser: expected a function such as optax.sgd, with its settings as keywords here "
            f"(gradient(optax.sgd, learning_rate=0.1)), got {optimiser!r}"
        )
    check_count("max_steps", max_steps, least=0)
    check_tolerance("grad_tol", grad_tol)
    if batch_size is not None:
        check_count("batch_size", batch_size, least=1)
    check_count("patience", patience, least=1)
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out: expected a share of at least 0 and below 1, got {held_out!r}")
    if (batch_size is not None or held_out) and key is None:
        raise ValueError("key: expected a typed PRNG key, such as jax.random.key(0), got None")
    traced = {k: v for k, v in hyper.items() if isinstance(v, float | Array) or hasattr(v, "dtype")}
    settings = tuple(sorted((k, v) for k, v in hyper.items() if k not in traced))
    return Gradient(
        optimiser, traced, settings, max_steps, grad_tol, batch_size, key, float(held_out), patience
    )
