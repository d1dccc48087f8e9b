"""The best among choices, or what the model's own search among them finds: no gradient, no step.

For models such as trees, whose parameters say which feature is asked where, or a number of
neighbours (`contract.Search`). The gap to the best of all choices is zero where the model has tried
all of them, and infinite where it has not, as with splits chosen one after the other.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Evidence, Trait
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import State, blank


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class ChooseBest:
    """`choice`, which has no settings."""

    max_steps = 0
    needs = Trait.SEARCH
    takes_l1 = False
    recentres = False
    sums = False
    takes_known = False
    takes_start = False
    proof = None
    takes_plain_steps = False
    trains = False

    def prepare(self, problem: Problem, theta: Array) -> tuple[None, Array]:
        """Nothing to prepare."""
        return None, theta

    def init(self, problem: Problem, fixed: None, theta: Array) -> State:
        """Nothing known."""
        return blank(theta, None)

    def start(self, problem: Problem, fixed: None, theta: Array, known: Known | None) -> State:
        """All there is to do; there is no gradient."""
        theta, value, status, gap = problem.choose()
        none = jnp.full_like(theta, jnp.nan)
        return State(theta, value, none, Evidence(status, gap, jnp.zeros_like(theta)), None)

    def step(self, problem: Problem, fixed: None, state: State, k: Array) -> State:
        """The same; there is no second one."""
        return self.start(problem, fixed, state.theta, None)

    def newton_step(self, state: State) -> None:
        """None is made."""

    def finish(self, problem: Problem, fixed: None, state: State) -> State:
        """As it is."""
        return state


def choice() -> ChooseBest:
    """What a model's own search finds, for models that have one: their default in `jaxprob.fit`.

    Returns:
        A solver.

    Example:
        >>> choice() == choice()
        True
    """
    return ChooseBest()
