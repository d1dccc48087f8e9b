"""The arguments of a fit, checked before anything is computed."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.data import Data, check_data
from jaxprob.models.base import Model, num_classes
from jaxprob.solvers.choice import Choice, choice
from jaxprob.solvers.closed_form import ClosedForm, closed_form
from jaxprob.solvers.driver import Solver
from jaxprob.solvers.em import EM, em
from jaxprob.solvers.newton import newton
from jaxprob.solvers.problem import Problem
from jaxprob.solvers.proximal import proximal


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
