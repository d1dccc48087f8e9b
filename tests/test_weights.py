"""Weights that are known up to a factor, and criteria that take weights as repeated rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from tolerances import SAME_SUM

import jaxprob as jp
from jaxprob.data import normalised_weights
from jaxprob.models import logistic
from jaxprob.uncertainty import criteria


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e37])
def test_they_add_up_to_the_number_of_examples(dtype, scale):
    c = np.random.default_rng(0).uniform(0.1, 8, (3, 40)) * scale
    c[:, :10] = 0
    c[1] *= 0.3
    c = c.astype(dtype)
    for value in (c, jnp.asarray(c)):
        made = normalised_weights(value)
        assert isinstance(made, type(value))
        assert made.dtype == dtype
        np.testing.assert_allclose(made.sum(axis=1), 30, rtol=SAME_SUM[dtype])
        factor = np.asarray(made)[:, 10:] / c[:, 10:]
        np.testing.assert_allclose(np.ptp(factor, axis=1) / factor[:, 0], 0, atol=1e-6)
        np.testing.assert_array_equal(made[:, :10], 0)
        np.testing.assert_allclose(normalised_weights(value[1]), made[1], rtol=SAME_SUM[dtype])


def test_what_they_may_come_in(x64):
    expected = [0.5, 1.0, 1.5, 0.0]
    for value in ([1, 2, 3, 0], np.array([1, 2, 3, 0]), pd.Series([0.1, 0.2, 0.3, 0.0])):
        np.testing.assert_allclose(normalised_weights(value), expected, rtol=1e-15)
    frame = pd.DataFrame([[1.0, 2.0, 3.0, 0.0], [4.0, 4.0, 0.0, 0.0]])
    np.testing.assert_allclose(normalised_weights(frame), [expected, [1, 1, 0, 0]], rtol=1e-15)
    inside = jax.jit(jax.vmap(normalised_weights))(jnp.asarray(frame.to_numpy()))
    np.testing.assert_allclose(inside, [expected, [1, 1, 0, 0]], rtol=1e-15)
    assert np.isnan(jax.jit(normalised_weights)(jnp.zeros(3))).all()


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, -1.0], "weights: expected finite numbers of at least 0, got -1.0"),
        ([1.0, np.nan], "weights: expected finite numbers of at least 0, got nan"),
        ([[1.0], [np.inf]], "weights: expected finite numbers of at least 0, got inf"),
        ([0.0, 0.0], "weights: expected a positive sum in each lane, got zeros only"),
        ([[1.0, 2.0], [0.0, 0.0]], "weights: expected a positive sum in each lane"),
        ([], "weights: expected a positive sum"),
        (1.0, r"weights: expected shape \(n,\) or \(B, n\), got \(\)"),
        (np.ones((1, 1, 1)), r"weights: expected shape \(n,\) or \(B, n\), got \(1, 1, 1\)"),
    ],
)
def test_what_is_refused(kind, value, message):
    with pytest.raises(ValueError, match=message):
        normalised_weights(kind(np.asarray(value, "float32")))


def test_text_is_refused():
    with pytest.raises(TypeError, match="weights: expected numbers"):
        normalised_weights(["a", "b"])


def test_a_fit_of_them_has_the_errors_of_its_examples(x64):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((80, 2)), rng.integers(0, 2, 80)
    p = np.full(80, 1 / 80)
    plain = jp.summary(jp.fit(logistic.model(), x, y))
    ours = jp.summary(jp.fit(logistic.model(), x, y, weights=normalised_weights(p)))
    np.testing.assert_allclose(ours.standard_error, plain.standard_error, rtol=1e-9)
    assert ours.bic == pytest.approx(plain.bic, rel=1e-12)


def test_criteria_of_many():
    log_likelihood, n = np.array([-10.0, -20.0]), np.array([50.0, 0.5])
    assert criteria.aic(log_likelihood, 3).tolist() == [26.0, 46.0]
    got = criteria.bic(log_likelihood, 3, n)
    assert got[0] == pytest.approx(3 * np.log(50) + 20, rel=1e-15)
    assert np.isnan(got[1])
    assert criteria.total_weight(np.ones((2, 5)), 5).tolist() == [5, 5]
