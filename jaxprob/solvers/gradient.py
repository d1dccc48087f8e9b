r"""Gradient methods: any optax optimiser, on all rows or on minibatches.

The descent θ ← θ - α ∇f(θ) of equations 1.6 and 2.8 is `gradient(optax.sgd, learning_rate=α)`. f is
the sum over examples, not their mean: a learning rate that suits a mean has to be divided by n. For
a convex f whose Hessian is at most L, descent converges for α < 2/L, at the rate (1 - α λ_min) a
step.

A step is a pass over the data: one update on all rows, or ⌈n / batch_size⌉ updates on minibatches
in a new order. When the run ends, the exact Hessian there says how far the optimum still is.

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


class Memory(NamedTuple):
    """The optimiser's own state."""

    optimiser: Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["hyper", "grad_tol", "key"],
    meta_fields=["optimiser", "settings", "max_steps", "batch_size"],
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

    recentres = False
    sums = False
    needs = Trait.SMOOTH
    takes_known = False
    takes_start = True
    takes_l1 = False
    needs_proof = True

    def prepare(self, problem: Problem, theta: Array) -> tuple[None, Array]:
        """Nothing to prepare."""
        return None, problem.canonical(theta)

    def init(self, problem: Problem, fixed: None, theta: Array) -> State:
        """The optimiser's state at the start."""
        return blank(theta, Memory(self._build().init(problem.unravel(theta))))

    def start(self, problem: Problem, fixed: None, theta: Array, known: Known | None) -> State:
        """The state after step 0."""
        return self.step(problem, fixed, self.init(problem, fixed, theta), jnp.int32(0))

    def step(self, problem: Problem, fixed: None, state: State, k: Array) -> State:
        """One pass of updates, then value and gradient where it ended; step 0 only looks."""
        one_pass = self._all_rows if self.batch_size is None else self._minibatches

        def skip() -> tuple[Array, Memory]:
            return state.theta, state.memory

        theta, memory = jax.lax.cond(k == 0, skip, lambda: one_pass(problem, state, k))
        value, grad = problem.value_and_grad(theta)
        small = jnp.max(jnp.abs(grad), initial=0.0) <= self.grad_tol * (1 + jnp.abs(value))
        rises = value > state.value  # a large value makes every gradient look small
        evidence = with_status(state.evidence, small & ~rises, Status.STALLED)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad))
        last = state._replace(evidence=with_status(evidence, ~finite, Status.NON_FINITE))
        new = State(theta, value, grad, evidence, memory)
        return jax.tree.map(partial(jnp.where, finite), new, last)

    def newton_step(self, state: State) -> None:
        """None is made."""

    def finish(self, problem: Problem, fixed: None, state: State) -> State:
        """Nothing to add."""
        return state

    def _build(self) -> "optax.GradientTransformation":
        return self.optimiser(**self.hyper, **dict(self.settings))

    def _update(
        self, problem: Problem, theta: Array, grad: Array, memory: Memory
    ) -> tuple[Array, Memory]:
        from optax import apply_updates  # takes as long to import as all the rest of jaxprob

        params, grads = problem.unravel(theta), problem.unravel(grad)
        change, optimiser = self._build().update(grads, memory.optimiser, params)
        new = ravel_pytree(apply_updates(params, change))[0]
        return new.astype(theta.dtype), Memory(optimiser)

    def _all_rows(self, problem: Problem, state: State, k: Array) -> tuple[Array, Memory]:
        return self._update(problem, state.theta, state.grad, state.memory)

    def _minibatches(self, problem: Problem, state: State, k: Array) -> tuple[Array, Memory]:
        n, size = problem.data.x.shape[0], min(self.batch_size or 1, problem.data.x.shape[0])
        count = -(-n // size)
        assert self.key is not None  # see `gradient`
        order = jax.random.permutation(jax.random.fold_in(self.key, k), n)
        order = jnp.pad(order, (0, count * size - n)).reshape(count, size)
        live = (jnp.arange(count * size) < n).reshape(count, size)  # the last batch may be short

        def batch(carry: tuple[Array, Memory], rows: tuple[Array, Array]) -> tuple:
            theta, memory = carry
            _, grad = problem.rows(*rows).value_and_grad(theta)
            return self._update(problem, theta, grad * (n / jnp.sum(rows[1])), memory), None

        return jax.lax.scan(batch, (state.theta, state.memory), (order, live))[0]


def gradient(
    optimiser: Callable[..., "optax.GradientTransformation"],
    *,
    max_steps: int = 1000,
    grad_tol: Array | float = 1e-9,
    batch_size: int | None = None,
    key: Array | None = None,
    **hyper: Any,
) -> Gradient:
    """An optax optimiser, for `jaxprob.fit(..., solver=...)`.

    Args:
        optimiser: a function that makes one, such as `optax.sgd` or `optax.adam`.
        max_steps: at most so many passes over the data.
        grad_tol: stop when no entry of the gradient exceeds it times 1 + |f|.
        batch_size: update on so many examples at a time; on all of them where None.
        key: a typed PRNG key for the order of the minibatches; needed with `batch_size`.
        **hyper: passed to the optimiser, `learning_rate` first of all. Numbers and arrays are
            traced: another learning rate compiles nothing, and `vmap` runs many. Others are static.

    Returns:
        A solver.

    Raises:
        TypeError: for an optimiser already made: its learning rate could not be traced; and for
            what is no number.
        ValueError: for minibatches without a key, a batch size below 1, a negative number of steps,
            or a tolerance that is negative or NaN.

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
    if batch_size is not None and key is None:
        raise ValueError("key: expected a typed PRNG key, such as jax.random.key(0), got None")
    traced = {k: v for k, v in hyper.items() if isinstance(v, float | Array) or hasattr(v, "dtype")}
    settings = tuple(sorted((k, v) for k, v in hyper.items() if k not in traced))
    return Gradient(optimiser, traced, settings, max_steps, grad_tol, batch_size, key)
