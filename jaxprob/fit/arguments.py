"""The arguments of a fit, checked before anything is computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Model, Trait
from jaxprob.data import Data, Schema, check_data
from jaxprob.problem.problem import Problem
from jaxprob.solvers.choice import choice
from jaxprob.solvers.closed_form import closed_form
from jaxprob.solvers.driver import Solver
from jaxprob.solvers.em import em
from jaxprob.solvers.newton import newton
from jaxprob.solvers.proximal import proximal


def check_data_of(
    model: Model,
    x: Any,
    y: Any,
    weights: Any = None,
    offset: Any = None,
    fitted: Schema | None = None,
) -> Data:
    """Data checked against what a model takes.

    Args:
        model: a Model.
        x: (n, d).
        y: (n,), or None.
        weights: (n,), or None.
        offset: as the model has it, or None.
        fitted: as of `check_data`.

    Returns:
        Data.
    """
    return check_data(x, y, weights, offset, variables=model.variables, fitted=fitted)


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


def check_penalties(model: Model, l2: Any, l1: Any, *, firth: Any) -> None:
    """Raise unless the penalties make sense for a model, and together.

    Args:
        model: what is to be fitted.
        l2: None where there is none.
        l1: None where there is none.
        firth: what the user gave.
    """
    if Trait.PENALISED not in model.offers and not (l1 is None and l2 is None):
        raise ValueError(f"l1, l2: {model.name} has no parameters that a penalty makes sense for")
    check_firth(firth, l1)


def check_solver(solver: Solver, problem: Problem) -> Solver:
    """The solver, if it is one and can do what is asked.

    Args:
        solver: what the user gave.
        problem: what it is to minimise.

    Returns:
        The solver.
    """
    if not all(hasattr(solver, n) for n in ("needs", "prepare", "init", "step", "finish")):
        raise TypeError(
            f"solver: expected one of jaxprob.solvers, such as newton(), got {solver!r}"
        )
    lacking = solver.needs & ~problem.offers
    if lacking:
        firth = " with Firth's penalty" if problem.firth else ""
        raise ValueError(
            f"solver: {solver!r} needs {lacking.described()}, which {problem.model.name}{firth} "
            f"does not offer; leave solver out, and {default_for(problem)!r} is used"
        )
    if problem.l1 is not None and not solver.takes_l1:
        raise ValueError(
            f"solver: l1 has no gradient, so it needs jaxprob.solvers.proximal(), got {solver!r}"
        )
    return solver


def default_solver(
    model: Model, *, has_l1: bool, has_l2: bool = False, firth: bool = False
) -> Solver:
    """The solver for problems that may be many, or small, where the user named none.

    Args:
        model: what is fitted.
        has_l1: whether there is an l1 penalty.
        has_l2: whether there is an l2 penalty, with which no formula is known.
        firth: whether there is Firth's.

    Returns:
        A solver.
    """
    usual = newton() if not has_l1 else proximal()
    if has_l1 or firth:
        return _BY_ROUTE[Trait.SEARCH]() if Trait.SEARCH in model.offers else usual
    routes = [route.trait for route in model.routes]
    return next((_BY_ROUTE[r]() for r in routes if not (has_l2 and r == Trait.FORMULA)), usual)


def default_for(problem: Problem) -> Solver:
    """The solver for a problem, where the user named none.

    Args:
        problem: what is to be minimised.

    Returns:
        A solver.
    """
    has_l1, has_l2 = problem.l1 is not None, problem.l2 is not None
    return default_solver(problem.model, has_l1=has_l1, has_l2=has_l2, firth=problem.firth)


_BY_ROUTE: dict[Trait, Callable[[], Solver]] = {
    Trait.SEARCH: choice,
    Trait.FORMULA: closed_form,
    Trait.EXPECTATION: em,
}


def key_data(key: Any, shape: tuple[int, ...] = ()) -> Array | None:
    """What a typed PRNG key holds, checked; None where there is none."""
    if key is None:
        return None
    is_key = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key:
        raise TypeError(
            f"key: expected a typed PRNG key, such as jax.random.key(0), got {type(key).__name__}"
        )
    if key.shape != shape:
        raise ValueError(f"key: expected shape {shape}, got {key.shape}; see jax.random.split")
    return jax.random.key_data(key)


def start_from(problem: Problem, init: Any) -> Array:
    """The vector (p,) of parameters to start from, checked against what the model expects."""
    template = problem.template()
    expected = jax.tree.map(lambda leaf: leaf.shape, template)
    try:
        init = jax.tree.map(lambda t, a: _real(a).astype(t.dtype), template, init)
        got = jax.tree.map(lambda leaf: leaf.shape, init)
    except (ValueError, TypeError) as error:
        raise ValueError(f"init: expected parameters of shapes {expected}, got {init!r}") from error
    if got != expected:
        raise ValueError(f"init: expected parameters of shapes {expected}, got {got}")
    return problem.centred(init)


def _real(a: Any) -> Array:
    a = jnp.asarray(a)
    if not (jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)):
        raise TypeError(f"expected real numbers, got {a.dtype}")
    return a
