"""What a model can prove about a fit."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array


class Point(NamedTuple):
    """A vector of parameters, and what is known there."""

    theta: Array  # (p,)
    value: Array  # (), the objective
    grad: Array  # (p,), of its smooth part
    hess: Array  # (p, p), of its smooth part
    wanted: Array | bool  # () whether it matters how tight the bound is; False if it never does


class Certificates(NamedTuple):
    """What a model can prove about a fit; each takes the problem that the solver sees."""

    bound: Callable[..., tuple[Array, Array]]
    """(problem, point, step, factor) -> a bound on f - f*, from a Newton step, and what rounding
    can hide from it; () nats each."""
    chord_bound: Callable[..., Array]
    """(problem, theta, value, grad, moved, factor) -> (): the same, from an older Hessian."""
    separation: Callable[..., tuple[Array, Array]]
    """(problem, theta, step) -> () whether there is found to be no maximum; (p,) the direction."""
    hopeless: Callable[..., tuple[Array, Array]]
    """(problem,) -> () int32, the Status that says why the examples alone leave no finite maximum,
    with any penalty, such as a class without examples, MAX_STEPS where nothing is known; and (p,)
    the direction along which there is none, zeros where that is not given."""
    logit_range: Callable[..., Array]
    """(step, problem) -> (): the Hessian changes by at most e to this along the step."""
    least_mass: Callable[..., Array]
    """(theta, problem) -> (): the smallest weight times probability of any outcome."""
    noise: Callable[..., Array]
    """(problem, theta, value, factor) -> (), nats: what rounding can hide from other bounds."""
    shift_cost: Callable[..., Array]
    """(problem, theta, value, size) -> (), nats: what it costs at most to move all logits by so
    much away from where the slope is zero."""
