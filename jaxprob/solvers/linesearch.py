"""Backtracking: the longest of ever shorter steps that decreases the objective."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.products import vdot
from jaxprob.solvers.driver import slack

_ARMIJO = 1e-4
_HALVINGS, _SHORTER = 16, 16  # how often, and what to divide by afterwards
_MOST_TRIALS = 60
_REACH = 16  # times the parameters, that a step may go then: where a Hessian underflows it is 1e300
_NOISE = 2**10  # times the rounding of one number: of a sum over very many blocks of rows


class Move(NamedTuple):
    """Where a line search ended; the old place where nothing was accepted."""

    theta: Array
    value: Array
    grad: Array
    accepted: Array  # () bool
    length: Array  # ()


class Objective(Protocol):
    """What a line search needs to know of a problem."""

    def value_and_grad(self, theta: Array) -> tuple[Array, Array]:
        """The smooth part () and its gradient (p,)."""
        ...

    def penalty(self, theta: Array) -> Array:
        """The rest ()."""
        ...


def all_finite(a: Array) -> Array:
    """Whether no entry is infinite or NaN: sums compile faster than `jnp.all`."""
    return jnp.sum(a * 0) == 0


def backtrack(
    problem: Objective,
    theta: Array,
    value: Array,
    grad: Array,
    step: Array,
    slope: Array,
    *,
    smooth: bool = True,
    wanted: Array | bool = True,
) -> Move:
    """Search along a step, one pass over the data for each trial.

    The steps 1, 1/2, 1/4, ... are tried, and after many of them such as leave the parameters at the
    same order of magnitude. A trial is accepted where the objective falls by at least a part of
    what the slope promises, to rounding. Neither it nor its gradient may be infinite or NaN. Near
    the optimum a sum over many
    examples is too noisy to tell; there the slopes at both ends of the trial decide, of which the
    mean is the change of a quadratic.

    Args:
        problem: what to minimise.
        theta: (p,) where the step starts.
        value: () the objective there, penalties included.
        grad: (p,) the gradient of the smooth part there.
        step: (p,).
        slope: () the change of the objective that the step promises, negative.
        smooth: whether there is no penalty without a gradient.
        wanted: () bool, whether to search at all.

    Source: Hager and Zhang, A new conjugate gradient method with guaranteed descent and an
    efficient line search, SIAM Journal on Optimization 16, 2005, section 4.
    """
    room = _REACH * (1 + jnp.max(jnp.abs(theta))) / jnp.max(jnp.abs(step))
    start = Move(theta, value, grad, jnp.zeros((), bool), jnp.ones((), theta.dtype))

    def trial(carry: tuple[Move, Array]) -> tuple[Move, Array]:
        move, count = carry
        shorter = jnp.minimum(move.length / _SHORTER, room)
        t = jnp.where(count < _HALVINGS, move.length / 2, shorter)
        t = jnp.where(count == 0, 1.0, t)
        new = theta + t * step
        f, g = problem.value_and_grad(new)
        f = f + problem.penalty(new)
        finite = jnp.isfinite(f) & all_finite(g)
        good = f <= value + _ARMIJO * t * slope + slack(value)
        if smooth:
            flat = vdot(g, step) <= (2 * _ARMIJO - 1) * slope
            good |= flat & (f <= value + _NOISE * slack(value))
        good &= finite
        chosen = Move(
            jnp.where(good, new, theta),
            jnp.where(good, f, value),
            jnp.where(good, g, grad),
            good,
            t,
        )
        return chosen, count + 1

    def unfinished(carry: tuple[Move, Array]) -> Array:
        move, count = carry
        return wanted & ~move.accepted & (count < _MOST_TRIALS)

    return jax.lax.while_loop(unfinished, trial, (start, jnp.zeros((), jnp.int32)))[0]
