"""The line search where the objective is too noisy to tell whether it falls."""

from typing import NamedTuple

import jax.numpy as jnp
import pytest

from jaxprob.solvers.linesearch import backtrack

pytestmark = pytest.mark.usefixtures("x64")


class Noisy(NamedTuple):
    """1e8 + ‖θ‖² / 2, whose value is off by 100 units of rounding everywhere but at the start."""

    start: float
    curvature: float = 1.0

    def value_and_grad(self, theta):
        wrong = jnp.where(theta[0] == self.start, 0.0, 100 * 2.0**-52)
        value = 1e8 * (1 + wrong) + self.curvature * jnp.vdot(theta, theta) / 2
        return value, self.curvature * theta

    def penalty(self, theta):
        return jnp.zeros((), theta.dtype)


def searched(problem, scale, **keywords):
    theta = jnp.array([problem.start])
    value, grad = problem.value_and_grad(theta)
    step = -scale * theta
    return backtrack(problem, theta, value, grad, step, jnp.vdot(grad, step), **keywords)


def test_the_gradient_decides_where_the_value_cannot():
    move = searched(Noisy(1e-9), 1.0)
    assert move.accepted
    assert move.length == 1
    assert move.theta[0] == 0


def test_a_trial_as_far_beyond_the_minimum_is_halved():
    assert searched(Noisy(1e-9), 1.5).length == 1  # at a quarter of the height
    move = searched(Noisy(1e-9), 2.5)
    assert move.accepted
    assert move.length == 0.5


def test_with_an_l1_penalty_the_value_alone_decides():
    assert searched(Noisy(1e-9), 1.0, smooth=False).theta[0] == 1e-9


def test_no_gradient_excuses_a_rise_beyond_rounding():
    """Along a concave objective the gradient would agree to every step uphill."""
    assert searched(Noisy(1e-9, curvature=-1e16), 1.0).theta[0] == 1e-9
