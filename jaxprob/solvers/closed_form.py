"""The maximum as a formula: one look at the data, and no step.

For models whose likelihood depends on the examples through sums of a fixed size, and whose maximum
can be written down from these (`contract.Formula`). The bound on the distance to the optimum is
zero: there is nothing between the two but rounding.

Source: Casella and Berger, Statistical Inference, 2002, sections 6.2 and 7.2.2 (sufficient
statistics, maximum likelihood).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Evidence, Status, Trait
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import State, blank


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class ClosedForm:
    """`closed_form`, which has no settings."""

    max_steps = 0
    needs = Trait.FORMULA
    takes_l1 = False
    recentres = True
    sums = True
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
        """All there is to do."""
        theta, value, grad, status, direction = problem.closed_form()
        exact = status == Status.CONVERGED
        gap = jnp.where(exact, 0.0, jnp.inf).astype(theta.dtype)
        return State(theta, value, grad, Evidence(status, gap, direction), None)

    def step(self, problem: Problem, fixed: None, state: State, k: Array) -> State:
        """The same; there is no second one."""
        return self.start(problem, fixed, state.theta, None)

    def newton_step(self, state: State) -> None:
        """None is made."""

    def finish(self, problem: Problem, fixed: None, state: State) -> State:
        """As it is."""
        return state


def closed_form() -> ClosedForm:
    """The maximum as a formula, for models that have one: their default in `jaxprob.fit`.

    Returns:
        A solver.

    Example:
        >>> closed_form() == closed_form()
        True
    """
    return ClosedForm()
