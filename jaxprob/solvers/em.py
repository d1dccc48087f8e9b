r"""Expectation-maximisation, for models with something latent: monotone steps without step sizes.

A step expects what is latent under the parameters θ_k, and maximises what is then expected of the
log-likelihood, with the prior where there is one:

    θ_{k+1} = argmax_θ Q(θ | θ_k),        Q(θ | θ_k) = E[log p(x, latent; θ) | x; θ_k]

Since f(θ) - f(θ_k) ≤ -Q(θ | θ_k) + Q(θ_k | θ_k), no step makes the objective f worse, and where a
step moves nothing its gradient is zero: ∇f(θ_k) = -∇Q(θ | θ_k) at θ = θ_k, which comes with the
same pass over the data.

Steps shrink by a constant factor ρ in the end, so the gain δ of the last one leaves about
δ ρ / (1 - ρ) to gain (Aitken). This estimate, or δ itself where that is more, is the `gap` of the
fit: it concerns the maximum that the run is heading for, which need not be the highest. Compare
several starts.

Parameters are rounded, by up to half the spacing of numbers near them, which far from zero may be
as large as a step. What the slope says that this hides of a gain is added to δ where a parameter
stands still, and to the gap where not: so a run that rounding ends does not look converged.

Weights count as repeated examples, and the tolerance is in nats of whole ones: where those that are
positive are below one on average, such as weights that sum to one, it is smaller by as much, so
that the run ends where it would with the same weights of mean one.

Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm,
Journal of the Royal Statistical Society B 39, 1977; McLachlan and Krishnan, The EM Algorithm and
Extensions, 2008, section 4.9 (stopping by Aitken's estimate).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Evidence, Status, Trait
from jaxprob.numerics.products import vdot
from jaxprob.problem.problem import Known, Problem
from jaxprob.solvers.driver import State, blank, no_verdict, slack, with_status
from jaxprob.solvers.settings import check_count, check_tolerance

_RELIABLE = 8  # times the rounding of the objective, from which on a gain tells the rate
_SLOWEST = 0.999999  # rate that is believed
DEFAULT_TOL = {"float64": 1e-6, "float32": 1e-2}


class EMMemory(NamedTuple):
    """Of the last step."""

    known: Any  # sums of what is expected at theta
    gain: Array  # () nats, that it brought
    rate: Array  # () by which gains shrink; NaN while unknown


@partial(jax.tree_util.register_dataclass, data_fields=["tol"], meta_fields=["max_steps"])
@dataclass(frozen=True)
class EM:
    """Settings of `em`."""

    tol: Array | float | None
    max_steps: int

    needs = Trait.EXPECTATION
    takes_l1 = False
    recentres = False
    sums = False
    takes_known = False
    takes_start = True
    proof = None
    takes_plain_steps = False
    trains = False

    def prepare(self, problem: Problem, theta: Array) -> tuple[Array, Array]:
        """How much of an example the weights are on average."""
        return jnp.asarray(problem.unit(), theta.dtype), theta

    def init(self, problem: Problem, fixed: Array, theta: Array) -> State:
        """Nothing expected yet."""
        shapes = jax.eval_shape(_expectation, problem, theta)[2]
        known = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), shapes)
        unknown = jnp.asarray(jnp.nan, theta.dtype)
        return blank(theta, EMMemory(known, unknown, unknown))

    def start(self, problem: Problem, fixed: Array, theta: Array, known: Known | None) -> State:
        """What is expected at the start."""
        unknown = jnp.asarray(jnp.nan, theta.dtype)
        value, grad, sums = _expectation(problem, theta)
        return State(theta, value, grad, no_verdict(theta), EMMemory(sums, unknown, unknown))

    def step(self, problem: Problem, fixed: Array, state: State, k: Array) -> State:
        """The maximum of what was expected, and what is expected there; step 0 only looks."""
        is_first = k == 0
        moved, status = problem.maximise(state.theta, state.memory.known)
        stuck = ~is_first & (status != Status.MAX_STEPS)
        theta = jnp.where(is_first | stuck, state.theta, moved)
        value, grad, known = _expectation(problem, theta)
        gain = jnp.where(is_first, jnp.nan, _gain(state, theta, value, grad))
        rate, gap = _left(state.memory, gain, *_hidden(state, theta))
        here = State(theta, value, grad, state.evidence, EMMemory(known, gain, rate))
        status = jnp.where(stuck, status, jnp.int32(Status.MAX_STEPS))
        here = here._replace(evidence=self._verdict(here, gap, status, fixed))
        worse = gain < 0  # by rounding, so this is the end, and the best was before
        theta, value, grad = (
            jnp.where(worse, old, new) for old, new in zip(state[:3], here[:3], strict=True)
        )
        return here._replace(theta=theta, value=value, grad=grad)

    def _verdict(self, new: State, gap: Array, status: Array, unit: Array) -> Evidence:
        value, gain = new.value, new.memory.gain
        default = jnp.maximum(DEFAULT_TOL[value.dtype.name] * unit, slack(value))
        enough = default if self.tol is None else self.tol * unit
        evidence = no_verdict(new.theta)._replace(gap=gap, status=status)
        evidence = with_status(evidence, gap <= enough, Status.CONVERGED)
        return with_status(evidence, gain <= 0, Status.STALLED)

    def newton_step(self, state: State) -> None:
        """None is made."""

    def finish(self, problem: Problem, fixed: Array, state: State) -> State:
        """As it is."""
        return state


@jax.jit  # so that it is traced once
def _expectation(problem: Problem, theta: Array) -> tuple[Array, Array, Any]:
    return problem.expectation(theta)


def _gain(old: State, theta: Array, value: Array, grad: Array) -> Array:
    """By how much the objective fell; to third order in the step where the values do not tell."""
    by_value = old.value - value
    moved = jnp.where(theta == old.theta, 0.0, theta - old.theta)  # also where both are infinite
    moved = jnp.where(jnp.isfinite(moved), moved, 0.0)
    by_slope = -vdot(old.grad + grad, moved) / 2
    return jnp.where(by_value > _RELIABLE * slack(value), by_value, by_slope)


def _hidden(old: State, theta: Array) -> tuple[Array, Array]:
    """What the rounding of parameters does to a gain: of those that stand still, and of others."""
    finite = jnp.isfinite(theta)
    half = jnp.finfo(theta.dtype).eps / 2 * jnp.abs(jnp.where(finite, theta, 0.0))
    each = half * jnp.where(finite, jnp.abs(old.grad), 0.0)
    still = theta == old.theta
    return jnp.sum(jnp.where(still, each, 0.0)), jnp.sum(jnp.where(still, 0.0, each))


def _left(memory: EMMemory, gain: Array, lost: Array, noise: Array) -> tuple[Array, Array]:
    """By which rate gains shrink, and how much is left to gain."""
    rate = gain / memory.gain
    rate = jnp.where((0 < gain) & (gain < memory.gain), rate, jnp.nan)
    known = jnp.where(jnp.isnan(memory.rate), 0.0, memory.rate)
    rate = jnp.where(gain <= 0, known, rate)
    times = jnp.maximum(rate / (1 - jnp.minimum(rate, _SLOWEST)), 1)
    left = (jnp.abs(gain) + lost) * times + noise
    return rate, jnp.where(jnp.isnan(left), jnp.inf, left)


def em(*, tol: Array | float | None = None, max_steps: int = 1000) -> EM:
    """Expectation-maximisation, for models with something latent: their default in `jaxprob.fit`.

    Args:
        tol: stop when about so much is left to gain, in nats of examples of weight one (see above
            for smaller weights): 1e-6 in float64 and 1e-2 in float32 where None, but not below the
            rounding of the objective. A smaller one ends at smaller gradients.
        max_steps: at most so many steps.

    Returns:
        A solver.

    Raises:
        ValueError: for a negative number of steps, or a tolerance that is negative or NaN.
        TypeError: for what is no number.

    Example:
        >>> em(max_steps=20).max_steps
        20
    """
    return EM(check_tolerance("tol", tol), check_count("max_steps", max_steps, least=0))
