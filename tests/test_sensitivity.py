"""Derivatives of a fit, against refits and against the sandwich of statsmodels."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MODELS, draw, some_by_default
from jax.flatten_util import ravel_pytree

import jaxprob as jp
from jaxprob import sensitivity
from jaxprob.models import logistic

pytestmark = pytest.mark.usefixtures("x64")


def flat(params):
    """(m, p) from parameters with a leading axis."""
    leaves = jax.tree.leaves(params)
    return np.concatenate([np.reshape(a, (len(a), -1)) for a in leaves], axis=1)


def penalised(name, *, n=40, seed=0):
    model = MODELS[name]
    case = draw(model, seed, n=n)
    weights = case.weights + 0.5
    result = jp.fit(model, case.x, case.y, weights=weights, offset=case.offset, l2=0.7)
    return model, case, weights, result


@pytest.mark.parametrize("name", some_by_default("logistic", "softmax, symmetric"))
def test_influence_is_the_derivative_of_refits(name):
    model, case, weights, result = penalised(name)
    got = flat(sensitivity.influence(result))
    for i in (0, 7, 20):
        step = 1e-4
        up, down = (
            jp.fit(
                model,
                case.x,
                case.y,
                weights=weights.at[i].add(sign * step),
                offset=case.offset,
                l2=0.7,
            )
            for sign in (1, -1)
        )
        by_refits = (ravel_pytree(up.params)[0] - ravel_pytree(down.params)[0]) / (2 * step)
        np.testing.assert_allclose(got[i], by_refits, rtol=1e-5, atol=1e-8)


def test_covariance_is_the_sandwich_of_statsmodels():
    import statsmodels.api as sm

    case = draw(logistic.model(), 3, n=200)
    y = np.asarray(case.y)
    result = jp.fit(logistic.model(), case.x, case.y)
    peer = sm.Logit(y, sm.add_constant(np.asarray(case.x))).fit(
        disp=0, cov_type="HC0", method="newton", tol=1e-12
    )
    order = [1, 2, 3, 0]  # the constant comes first there
    expected = peer.cov_params()[np.ix_(order, order)]
    np.testing.assert_allclose(sensitivity.infinitesimal_jackknife(result), expected, rtol=1e-6)


@pytest.mark.parametrize("name", some_by_default("logistic", "softmax"))
def test_leave_one_out_is_near_the_refits_without(name):
    model, case, weights, result = penalised(name, n=120, seed=1)
    n = len(case.y)
    refits = jp.fit_many(
        model,
        case.x,
        case.y,
        weights=np.asarray(weights)[None, :] * (1 - np.eye(n)),
        offset=case.offset,
        l2=0.7,
    )
    loo = sensitivity.leave_one_out(result)
    exact, here = flat(refits.params), np.asarray(ravel_pytree(result.params)[0])
    error, change = np.abs(flat(loo.params) - exact), np.abs(exact - here)
    assert error.max() < 0.05 * change.max()
    log_prob = jax.vmap(model.log_prob)(
        refits.params, case.x, case.y, **({} if case.offset is None else {"offset": case.offset})
    )
    np.testing.assert_allclose(loo.log_prob, log_prob, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("name", some_by_default("logistic", "softmax, symmetric"))
def test_gradient_of_the_validation_loss_in_l2(name):
    model, case, weights, result = penalised(name)
    other = draw(model, 9, n=30)
    got = float(sensitivity.l2_gradient(result, other.x, other.y, offset=other.offset))

    def score(l2):
        refit = jp.fit(model, case.x, case.y, weights=weights, offset=case.offset, l2=l2)
        return float(
            model.objective.log_likelihood(refit.params, other.x, other.y, offset=other.offset)
        )

    by_refits = (score(0.7 + 1e-4) - score(0.7 - 1e-4)) / 2e-4
    assert got == pytest.approx(by_refits, rel=1e-5, abs=1e-7)


def test_many_fits_are_each_their_own():
    case = draw(logistic.model(), 4)
    l2 = np.array([0.1, 1.0, 5.0])
    fits = jp.fit_many(logistic.model(), case.x, case.y, l2=l2)
    many = sensitivity.influence(fits).weights
    covariances = sensitivity.infinitesimal_jackknife(fits)
    scores = sensitivity.l2_gradient(fits, case.x, case.y)
    for i, value in enumerate(l2):
        one = jp.fit(logistic.model(), case.x, case.y, l2=value)
        np.testing.assert_allclose(many[i], sensitivity.influence(one).weights, rtol=1e-7)
        np.testing.assert_allclose(
            covariances[i], sensitivity.infinitesimal_jackknife(one), rtol=1e-7
        )
        expected = sensitivity.l2_gradient(one, case.x, case.y)
        np.testing.assert_allclose(scores[i], expected, rtol=1e-7)


def test_what_has_no_derivative_is_an_error():
    case = draw(logistic.model(), 5)
    sparse = jp.fit(logistic.model(), case.x, case.y, l1=1.0)
    with pytest.raises(ValueError, match="without l1"):
        sensitivity.influence(sparse)
    plain = jp.fit(logistic.model(), case.x, case.y)
    with pytest.raises(ValueError, match="with l2"):
        sensitivity.l2_gradient(plain, case.x, case.y)
    transformed = jax.tree.map(jnp.asarray, plain)
    with pytest.raises(ValueError, match="refers to its data"):
        sensitivity.influence(transformed)


ASKED = {
    "influence": sensitivity.influence,
    "jackknife": sensitivity.infinitesimal_jackknife,
    "leave_one_out": sensitivity.leave_one_out,
    "l2_gradient": lambda fit: sensitivity.l2_gradient(fit, [[0.5], [-1.0]], [0, 1]),
}
X, Y = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None], np.array([0, 0, 1, 0, 1])


@pytest.fixture(scope="module")
def small():
    with jax.enable_x64(True):
        return jp.fit(logistic.model(), X, Y, l2=0.5)


@pytest.mark.parametrize("name", ASKED)
def test_without_an_optimum_there_is_no_derivative(small, name):
    for status in set(jp.Status) - {jp.Status.CONVERGED, jp.Status.STALLED}:
        failed = replace(small, status=jnp.int32(status))
        message = f"fit: expected one at an optimum, got status {status.name}: .*; [a-z]"
        with pytest.raises(ValueError, match=message):
            ASKED[name](failed)
    stalled = replace(small, status=jnp.int32(jp.Status.STALLED))
    for a in jax.tree.leaves(ASKED[name](stalled)):
        assert np.isfinite(a).all()
    with pytest.raises(ValueError, match="STALLED: .* how far a maximum is, is not known"):
        ASKED[name](replace(stalled, gap=jnp.asarray(np.inf)))


@pytest.mark.parametrize("name", ASKED)
def test_without_an_optimum_a_lane_is_nan(small, name):
    y = np.stack([Y, [0, 0, 0, 1, 1], Y, 0 * Y])  # separated without l2, and of one class
    fits = jp.fit_many(logistic.model(), X, y, l2=np.array([0.5, 0.0, 0.5, 0.0]))
    C = jp.Status
    assert fits.status.tolist() == [C.CONVERGED, C.SEPARATED, C.CONVERGED, C.CLASS_ABSENT]
    of_one = jax.tree.leaves(ASKED[name](small))
    for many, one in zip(jax.tree.leaves(ASKED[name](fits)), of_one, strict=True):
        np.testing.assert_allclose(many[jnp.array([0, 2])], np.stack([one, one]), rtol=1e-6)
        assert np.isnan(many[jnp.array([1, 3])]).all()


def test_a_separated_fit_says_so():
    fit = jp.fit(logistic.model(), X, [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="SEPARATED: the classes can be separated, .*; add l2"):
        sensitivity.infinitesimal_jackknife(fit)


def test_validation_examples_have_the_columns_that_were_fitted():
    import pandas as pd

    x = pd.DataFrame(np.random.default_rng(0).standard_normal((30, 2)), columns=["age", "dose"])
    y = np.arange(30) % 2
    fit = jp.fit(logistic.model(), x, y, l2=1.0)
    slope = sensitivity.l2_gradient(fit, x, y)
    assert sensitivity.l2_gradient(fit, x[["dose", "age"]], y) == slope
    for wrong in (x[["age"]], x.to_numpy()[:, :1]):
        with pytest.raises(ValueError, match="x: expected"):
            sensitivity.l2_gradient(fit, wrong, y)
