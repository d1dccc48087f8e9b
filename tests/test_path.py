"""Paths of penalties, and the choice among them by the derivative of the held-out likelihood."""

import jax
import numpy as np
import pandas as pd
import pytest
from catalogue import MODELS, draw
from tolerances import EIGHT_DIGITS, SAME_FIT

from jaxprob import Status, fit
from jaxprob.many import choose_l2, cross_validate, path, penalties
from jaxprob.models import logistic

LOGISTIC = logistic.model()
SAME = SAME_FIT["float64"]
pytestmark = pytest.mark.usefixtures("x64")


def problem(n=80, d=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = (x[:, 0] - x[:, 1] / 2 + rng.normal(size=n) > 0).astype(int)
    return x, y, rng.integers(1, 4, n) / 2


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_each_fit_is_that_of_its_penalty(ratio):
    x, y, weights = problem()
    found = path(LOGISTIC, x, y, l1_ratio=ratio, num_values=20, weights=weights)
    assert found.fits.status.tolist() == [Status.CONVERGED] * 20
    for i in (0, 7, 19):
        v = found.values[i]
        l1 = v * ratio if ratio else None
        alone = fit(LOGISTIC, x, y, weights=weights, l2=v * (1 - ratio), l1=l1)
        np.testing.assert_allclose(found.coefficients()[i], alone.params.weights, atol=10 * SAME)
        np.testing.assert_allclose(found.fits.log_likelihood[i], alone.log_likelihood, rtol=1e-8)
    assert found.names() == tuple(f"x{j}" for j in range(6))
    assert len(str(found).splitlines()) == 21


def test_the_largest_penalty_is_the_least_that_leaves_nothing():
    x, y, weights = problem()
    for ratio in (0.5, 1.0):
        values = penalties(LOGISTIC, x, y, l1_ratio=ratio, weights=weights, num_values=2)
        around = np.array([values[0] * 1.001, values[0] * 0.99])
        found = path(LOGISTIC, x, y, values=around, l1_ratio=ratio, weights=weights)
        assert found.num_nonzero().tolist() == [0, 1]
    assert values[1] == pytest.approx(values[0] * 1e-4)


def test_values_in_any_order_zeros_and_repeats_among_them():
    x, y, _ = problem()
    values = np.array([1.0, 0.0, 30.0, 1.0, 0.1, 10.0, 3.0, 0.3, 0.03, 0.0, 100.0, 5.0])
    found = path(LOGISTIC, x, y, values=values)
    assert found.fits.status.tolist() == [Status.CONVERGED] * 12
    for i, v in enumerate(values):
        alone = fit(LOGISTIC, x, y, l2=v)
        np.testing.assert_allclose(found.coefficients()[i], alone.params.weights, atol=SAME)
    assert found.fits.lane(2).information.shape == (7, 7)


def test_an_offset_and_several_classes():
    case = draw(MODELS["softmax"], 3, n=60)
    found = path(MODELS["softmax"], case.x, case.y, offset=case.offset, num_values=6, smallest=0.01)
    alone = fit(MODELS["softmax"], case.x, case.y, offset=case.offset, l2=found.values[5])
    np.testing.assert_allclose(found.coefficients()[5], alone.params.weights.ravel(), atol=SAME)
    assert found.coefficients().shape == (6, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l1_ratio": 1.5}, "l1_ratio: expected a number from 0 to 1, got 1.5"),
        ({"l1_ratio": np.nan}, "l1_ratio: expected a number from 0 to 1, got nan"),
        ({"values": []}, r"values: expected shape \(m,\), at least one"),
        ({"values": np.ones((2, 2))}, r"values: expected shape \(m,\)"),
        ({"values": [-1.0]}, "l2: expected finite numbers of at least 0, got -1"),
        ({"num_values": 0}, "num_values: expected at least 1, got 0"),
        ({"smallest": 2.0}, "smallest: expected a number between 0 and 1, got 2.0"),
    ],
)
def test_what_is_no_path(changes, message):
    x, y, _ = problem()
    with pytest.raises(ValueError, match=message):
        path(LOGISTIC, x, y, **changes)


def test_features_without_any_effect_have_no_largest_penalty():
    with pytest.raises(ValueError, match="x: expected features that the labels depend on"):
        penalties(LOGISTIC, np.zeros((10, 2)), [0, 1] * 5)


# The choice.


def test_the_chosen_penalty_is_where_the_held_out_likelihood_is_largest():
    x, y, weights = problem(n=120)
    key = jax.random.key(1)
    choice = choose_l2(LOGISTIC, x, y, key, weights=weights, tol=1e-6)

    def held_out(log_l2):
        cv = cross_validate(LOGISTIC, x, y, key, weights=weights, l2=float(np.exp(log_l2)))
        return float(cv.mean())

    at, step = np.log(choice.l2), 0.02
    low, here, high = held_out(at - step), held_out(at), held_out(at + step)
    assert not choice.at_end
    assert here > max(low, high)
    assert choice.log_likelihood == pytest.approx(here, rel=1e-10)
    assert abs(choice.derivative) < 1e-6
    # Central differences are off by the third derivative: 1e-4 of the curvature seen here.
    curvature = (low - 2 * here + high) / step**2
    assert abs((high - low) / (2 * step)) < 1e-2 * abs(curvature)
    assert choice.log_likelihood >= np.nanmax(choice.grid.mean()) - 1e-12
    alone = fit(LOGISTIC, x, y, weights=weights, l2=choice.l2)
    np.testing.assert_allclose(choice.fit.params.weights, alone.params.weights, atol=EIGHT_DIGITS)


def test_the_end_of_the_values_is_said():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.integers(0, 2, 60)  # nothing to learn
    x = pd.DataFrame(x, columns=["a", "b", "c"])
    choice = choose_l2(LOGISTIC, x, y, jax.random.key(0), values=[0.01, 0.1])
    assert choice.at_end
    assert choice.l2 == pytest.approx(0.1)
    assert choice.derivative > 0
    assert "at the end of the values looked at" in str(choice)
    for fits in (choice.fit, choice.grid.fits.lane(0), choice.grid.whole.lane(0)):
        assert fits.feature_names == ("a", "b", "c")


@pytest.mark.parametrize("values", [[], [0.0, 1.0], [[1.0]], [np.inf]])
def test_values_are_positive(values):
    x, y, _ = problem()
    with pytest.raises(ValueError, match="values: expected positive numbers"):
        choose_l2(LOGISTIC, x, y, jax.random.key(0), values=values)
