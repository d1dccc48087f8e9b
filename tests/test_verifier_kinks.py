"""Derivatives by hand at kinks, and close to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.testing import (
    assert_gradients_match,
    assert_hessians_match,
    compare_gradients,
    compare_hessians,
)


def relu(w):
    return jnp.sum(jax.nn.relu(w))


def absolute(w):
    return jnp.sum(jnp.abs(w))


def largest(w):
    return jnp.sum(jnp.maximum(w, 0.0))


W = np.array([1.5, 0.0, -2.0])  # of which the second is at a kink
SIDES = {relu: (0.0, 1.0), absolute: (-1.0, 1.0), largest: (0.0, 1.0)}


def steps(fn, at_zero):
    """The derivative of one of the functions, in NumPy."""
    left, right = SIDES[fn]
    return lambda w: np.where(w > 0, right, np.where(w < 0, left, at_zero))


@pytest.mark.parametrize("fn", SIDES)
def test_at_a_kink_what_is_between_left_and_right_is_right(fn, dtype):
    left, right = SIDES[fn]
    for between in (left, 0.3, right):
        report = compare_gradients(fn, steps(fn, between), W.astype(dtype))
        assert report.ok
        given = report.checks[0]
        assert given.note == (
            f"kink at leaf params[1]: left derivative {left:g}, right derivative {right:g}; "
            "a subgradient is between"
        )
    kink = r"no subgradient; kink at leaf params\[1\]: left derivative -?\d, right derivative 1;"
    for beyond in (left - 1e-4, right + 1e-4, 2.0):
        with pytest.raises(AssertionError, match=kink):
            assert_gradients_match(fn, steps(fn, beyond), W.astype(dtype), hard=False)


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-8, 1e-12])
def test_close_to_a_kink_there_is_one_derivative(distance, dtype):
    def fn(w):
        return jax.nn.relu(w[0]) + jnp.abs(w[1]) + jnp.maximum(w[2], 0.0) + w[3] ** 2

    def hand(w, fault=0.0):
        return np.array([w[0] > 0, np.sign(w[1]), w[2] > 0, 2 * w[3]]) + fault

    for side in (-1, 1):
        w = np.array([side * distance] * 3 + [1.0], dtype)
        assert_gradients_match(fn, hand, w)
        for place, size in ((0, -0.3 * side), (1, -1e-6 * side), (2, -1e-6 * side), (2, 0.5)):
            fault = size * np.eye(4)[place]
            with pytest.raises(AssertionError, match="hand-derived and automatic differ"):
                assert_gradients_match(fn, lambda w, e=fault: hand(w, e), w, hard=False)


@pytest.mark.parametrize("distance", [1e-4, 1e-7, 1e-10])
def test_close_to_a_kink_of_a_sum(distance, x64):
    """Of 30 examples, one is close to its kink; the tolerance of the others knows nothing of it."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((30, 3)), rng.standard_normal(3)
    bias = 1.0 - x @ w
    bias[0] = distance - x[0] @ w

    def fn(w):
        return relu(x @ w + bias)

    def hand(w, fault=0.0):
        return x.T @ (x @ w + bias > 0) - fault * x[0]

    assert_gradients_match(fn, hand, w)
    for fault in (1e-6, 0.5, 1.0):
        with pytest.raises(AssertionError, match="hand-derived and automatic differ"):
            assert_gradients_match(fn, lambda w, e=fault: hand(w, e), w, hard=False)


@pytest.mark.parametrize("loss", ["relu", "absolute", "hinge", "lasso", "max", "sort"])
def test_no_false_alarm_among_many_kinks(loss, x64):
    """At zero all examples are at their kinks, and at tiny parameters close to them."""
    rng = np.random.default_rng(1)
    x, r, w = (jnp.asarray(rng.standard_normal(s)) for s in ((60, 4), (60,), (4,)))
    fn = {
        "relu": lambda w: jnp.sum((jax.nn.relu(x @ w) - r) ** 2),
        "absolute": lambda w: jnp.sum(jnp.abs(x @ w - r)),
        "hinge": lambda w: jnp.sum(jnp.maximum(0, 1 - jnp.sign(r) * (x @ w))),
        "lasso": lambda w: jnp.sum((x @ w - r) ** 2) + jnp.sum(jnp.abs(w)),
        "max": lambda w: jnp.max(x @ w),
        "sort": lambda w: jnp.sort(x @ w) @ r,
    }[loss]
    assert_gradients_match(fn, jax.grad(fn), w)
    assert_hessians_match(fn, jax.hessian(fn), w)


def test_second_derivatives_at_kinks(x64):
    report = compare_hessians(
        lambda w: jnp.sum(jax.nn.relu(w) ** 2), lambda w: np.diag(2.0 * (w > 0)), W, hard=False
    )
    (check,) = report.checks
    assert report.ok
    assert check.note.startswith("kink at leaf params × params[1, 1]: left derivative 0, right")
    with pytest.raises(AssertionError, match=r"no subgradient; kink at leaf params × params"):
        assert_hessians_match(
            lambda w: jnp.sum(jax.nn.relu(w) ** 2), lambda w: np.diag(2.0 * (w > 0) - (w == 0)), W
        )
    report = compare_hessians(absolute, lambda w: np.zeros((3, 3)), W, hard=False)
    assert report.ok
    assert report.checks[0].note == "jump at leaf params × params[1, 1]: there is no derivative"
    with pytest.raises(AssertionError, match=r"automatic differ; jump at leaf params × params\[1"):
        assert_hessians_match(absolute, lambda w: np.diag(1.0 * (w == 0)), W)


def test_a_jump_is_none_of_the_derivation(x64):
    report = compare_gradients(
        lambda w: jnp.sum(jnp.floor(w) * w), np.floor, np.array([0.5, 2.0]), hard=False
    )
    assert report.ok
    assert report.checks[0].note == "jump at leaf params[1]: there is no derivative"


def test_smooth_functions_have_no_kinks(x64):
    """Not even where steps are longer than what they change over."""
    for fn in (
        lambda w: jnp.sum(jnp.sin(1e4 * w)),
        lambda w: jnp.sum(jnp.abs(w) ** 1.5),
        lambda w: jnp.sqrt(jnp.sum(w**2) + 1e-6),
        lambda w: 1e8 + jnp.sum(w**2),
    ):
        report = compare_gradients(fn, jax.grad(fn), jnp.asarray(W) / 1e3)
        assert report.ok
        assert not any(check.note for check in report.checks)
