"""Newton's method called from the host: a fit as a few calls of one small program.

A program that holds all that may happen in a fit takes seconds to compile, and what happens in
nearly every one is a handful of full Newton steps and a proof at the end. So these are tried first,
one call of a small program each. Where they do not lead to CONVERGED, because the classes are
separated, columns depend on each other, or the steps have to be mended, nothing is returned, and
the whole of `jaxprob.solvers.newton` is compiled then.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Evidence, Point, Status
from jaxprob.models.regression.certificates import together
from jaxprob.numerics.linalg import plain_inverse
from jaxprob.numerics.passes import count, total
from jaxprob.numerics.products import vdot
from jaxprob.problem.problem import Problem
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers.driver import DEFAULT_TOL, Result
from jaxprob.solvers.newton import Newton

_MOST_LOOKS = 20
_HALVINGS = 4
_ARMIJO = 1e-4
_MOST_PARAMS = 128
_PRECISE = 1e-6  # of the tolerance: eight digits of a parameter in float64


class Look(NamedTuple):
    """What there is to know at a point."""

    theta: Array  # (p,)
    value: Array
    grad: Array  # (p,)
    step: Array  # (p,), Newton's
    gap: Array
    sound: Array  # () bool, whether the Hessian is regular
    log_likelihood: Array
    num_examples: Array
    total_weight: Array


@eager_jit
def _look(problem: Problem, theta: Array, is_start: Array) -> Look:
    """There, or where the model starts."""
    theta = problem.canonical(jnp.where(is_start, problem.start(), theta))
    value, grad = problem.value_and_grad(theta)
    hess = problem.hess(theta)
    inverse = plain_inverse(hess)
    step = -inverse.solve(grad)
    if problem.certificates is None:
        gap = -vdot(grad, step) / 2  # to first order
    else:
        at = Point(theta, value, grad, hess, wanted=False)
        bound = problem.certificates.bound(problem, at, step, inverse)
        gap = inverse.beyond(together(*bound))
    c = problem.example_weights()
    return Look(
        theta,
        value,
        grad,
        step,
        gap,
        ~inverse.singular(),
        problem.penalties(theta) - value,
        count(c > 0),
        total(c),
    )


def compile_look(problem: Problem) -> None:
    """Compile the program for arrays of these shapes."""
    theta = np.zeros(problem.num_params(), problem.data.x.dtype)
    _look.compile(problem, theta, np.bool(True))


def suits(solver: object, problem: Problem) -> bool:
    """Whether a concrete problem is one for which this may do."""
    return (
        isinstance(solver, Newton)
        and problem.shards is None
        and problem.l1 is None
        and not problem.firth
        and 0 < problem.num_params() <= _MOST_PARAMS
        and jax.default_backend() == "cpu"
    )


class Found(NamedTuple):
    """A result, on the host, and what was seen beside it."""

    result: Result
    log_likelihood: Any
    num_examples: Any
    total_weight: Any


def newton_from_host(solver: Newton, problem: Problem, theta: Any = None) -> Found | None:
    """Full Newton steps until the gap is below the tolerance.

    Args:
        solver: its tolerance and number of steps.
        problem: of concrete arrays, for which `suits` is true.
        theta: (p,) where to start; where the model does if None.

    Returns:
        What was found, of NumPy's arrays; None unless that is CONVERGED.
    """
    dtype = np.dtype(problem.data.x.dtype)
    eps = float(np.finfo(dtype).eps)
    wanted = DEFAULT_TOL[dtype.name] if solver.tol is None else float(solver.tol)
    start = np.zeros(problem.num_params(), dtype) if theta is None else np.asarray(theta)
    look = jax.device_get(_look(problem, start, np.bool(theta is None)))
    unit = min(float(look.total_weight) / max(int(look.num_examples), 1), 1.0)
    for num_steps in range(min(solver.max_steps, _MOST_LOOKS) + 1):
        value = float(look.value)
        if not (np.isfinite(value) and look.sound and np.all(np.isfinite(look.step))):
            return None
        enough = max(wanted * unit, eps / 2 * (unit + abs(value)))
        if look.gap <= enough:
            look = look if look.gap <= _PRECISE * enough else _polished(problem, look)
            nothing = np.zeros_like(look.theta)
            evidence: Any = Evidence(np.int32(Status.CONVERGED), look.gap, nothing)  # pyright: ignore[reportArgumentType]
            result = Result(look.theta, look.value, look.grad, evidence, np.int32(num_steps), None)  # pyright: ignore[reportArgumentType]
            return Found(result, look.log_likelihood, look.num_examples, look.total_weight)
        moved = _moved(problem, look, eps)
        if moved is None:
            return None
        look = moved
    return None


def _polished(problem: Problem, look: Look) -> Look:
    """One more step, which squares the error, where that brings the optimum nearer."""
    new = (look.theta + look.step).astype(look.theta.dtype)
    seen = jax.device_get(_look(problem, new, np.bool(False)))
    return seen if seen.sound and seen.gap < look.gap else look


def _moved(problem: Problem, look: Look, eps: float) -> Look | None:
    """A step along which the objective falls."""
    slope, value = float(np.vdot(look.grad, look.step)), float(look.value)
    for k in range(_HALVINGS + 1):
        new = (look.theta + look.step / 2**k).astype(look.theta.dtype)
        seen = jax.device_get(_look(problem, new, np.bool(False)))
        if seen.value <= value + _ARMIJO / 2**k * slope + 4 * eps * abs(value):
            return seen
    return None
