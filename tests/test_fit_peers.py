"""Fits against statsmodels, scikit-learn and optima computed in extended precision."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import statsmodels.api as sm
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from jaxprob import Status, fit
from jaxprob.models import logistic, softmax
from jaxprob.solvers import lbfgs, proximal

pytestmark = pytest.mark.usefixtures("x64")

REFERENCE = json.loads((Path(__file__).parent / "reference_optima.json").read_text())["entries"]
LOADERS = {
    "breast_cancer": datasets.load_breast_cancer,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "digits": datasets.load_digits,
}


def standardised(name):
    """Data as the reference optima have them: digits divided by 16, others standardised."""
    x, y = LOADERS[name](return_X_y=True)
    return (x / 16 if name == "digits" else (x - x.mean(0)) / x.std(0)), y


def model_of(y, **settings):
    num_classes = int(y.max()) + 1
    if num_classes == 2:
        return logistic.model(**settings)
    return softmax.model(num_classes, parameterisation="symmetric", **settings)


def flat(params):
    return np.concatenate([np.ravel(params.weights), np.ravel(params.bias)])


def standard_errors(result):
    return np.sqrt(np.diag(np.linalg.inv(result.information)))


def binary_data(name):
    data = getattr(sm.datasets, name).load_pandas()
    if name == "fair":
        return data.exog.to_numpy(float), (data.endog > 0).to_numpy(int)
    return data.exog.to_numpy(float), data.endog.to_numpy(int)


@pytest.mark.parametrize("name", ["spector", "fair"])
def test_logistic_agrees_with_statsmodels(name):
    x, y = binary_data(name)
    theirs = sm.Logit(y, sm.add_constant(x, prepend=False)).fit(
        method="newton", tol=1e-14, maxiter=100, disp=False
    )
    ours = fit(logistic.model(), x, y)
    assert ours.status == Status.CONVERGED
    assert ours.num_examples == len(y)
    np.testing.assert_allclose(flat(ours.params), theirs.params, rtol=1e-8)
    np.testing.assert_allclose(standard_errors(ours), theirs.bse, rtol=1e-8)
    np.testing.assert_allclose(ours.log_likelihood, theirs.llf, rtol=1e-12)
    np.testing.assert_allclose(ours.null_log_likelihood, null(y), rtol=1e-12)


def null(y):
    """The maximum without features, in closed form; that of statsmodels has 9 digits."""
    counts = np.bincount(y)
    return np.sum(counts * np.log(counts / len(y)))


def test_softmax_agrees_with_statsmodels():
    data = sm.datasets.anes96.load_pandas()
    x, y = data.exog.to_numpy(float), data.endog.to_numpy(int)
    theirs = sm.MNLogit(y, sm.add_constant(x, prepend=False)).fit(
        method="newton", tol=1e-14, maxiter=100, disp=False
    )
    # The reference class is the first there and the last here.
    num_classes = y.max() + 1
    ours = fit(softmax.model(int(num_classes)), x, (y - 1) % num_classes)
    assert ours.status == Status.CONVERGED
    errors = standard_errors(ours)
    num_weights = (num_classes - 1) * x.shape[1]
    ours_bse = np.column_stack([errors[:num_weights].reshape(-1, x.shape[1]), errors[num_weights:]])
    np.testing.assert_allclose(ours.params.weights, theirs.params[:-1].T, rtol=1e-8)
    np.testing.assert_allclose(ours.params.bias, theirs.params[-1], rtol=1e-8)
    np.testing.assert_allclose(ours_bse, theirs.bse.T, rtol=1e-8)
    np.testing.assert_allclose(ours.log_likelihood, theirs.llf, rtol=1e-12)
    np.testing.assert_allclose(ours.null_log_likelihood, null(y), rtol=1e-12)


@pytest.mark.parametrize("entry", sorted(REFERENCE))
def test_penalised_fit_reaches_the_reference_optimum(entry):
    expected = REFERENCE[entry]
    x, y = standardised(entry.rsplit("_", 1)[0])
    result = fit(model_of(y), x, y, l2=expected["lam"])
    assert result.status == Status.CONVERGED
    size = np.max(np.abs(expected["coef"]))
    np.testing.assert_allclose(result.params.weights, expected["coef"], rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(result.params.bias, expected["intercept"], rtol=0, atol=1e-9 * size)
    objective = expected["lam"] / 2 * np.sum(result.params.weights**2) - result.log_likelihood
    np.testing.assert_allclose(objective, expected["objective"], rtol=1e-12)
    np.testing.assert_allclose(-result.log_likelihood, expected["nll"], rtol=1e-9)


@pytest.mark.parametrize("name", ["breast_cancer", "iris", "wine"])
@pytest.mark.parametrize("inverse_penalty", [0.1, 1.0, 10.0])
def test_l2_is_one_over_c_of_scikit_learn(name, inverse_penalty):
    x, y = standardised(name)
    theirs = LogisticRegression(C=inverse_penalty, solver="newton-cg", tol=1e-12, max_iter=10_000)
    theirs.fit(x, y)
    ours = fit(model_of(y), x, y, l2=1 / inverse_penalty)
    assert ours.status == Status.CONVERGED
    np.testing.assert_allclose(np.atleast_2d(ours.params.weights), theirs.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        np.atleast_1d(ours.params.bias), theirs.intercept_, rtol=0, atol=1e-8
    )
    log_proba = ours.model.predict.log_proba(ours.params, jax.numpy.asarray(x))
    np.testing.assert_allclose(np.exp(log_proba), theirs.predict_proba(x), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "l1"), [("breast_cancer", 5.0), ("iris", 1.0), ("wine", 2.0)])
def test_l1_has_the_zeros_of_scikit_learn(name, l1):
    x, y = standardised(name)
    theirs = LogisticRegression(
        l1_ratio=1.0, solver="saga", C=1 / l1, tol=1e-10, max_iter=100_000, random_state=0
    ).fit(x, y)
    ours = fit(model_of(y), x, y, l1=l1, solver=proximal(tol=1e-11))
    assert ours.status == Status.CONVERGED
    weights = np.atleast_2d(ours.params.weights)
    np.testing.assert_array_equal(weights == 0, theirs.coef_ == 0)
    assert 0 < np.sum(weights == 0) < weights.size
    np.testing.assert_allclose(weights, theirs.coef_, rtol=0, atol=1e-6)


def test_elastic_net_agrees_with_scikit_learn():
    x, y = standardised("breast_cancer")
    theirs = LogisticRegression(
        l1_ratio=0.75, solver="saga", C=1 / 4, tol=1e-10, max_iter=100_000, random_state=0
    ).fit(x, y)
    ours = fit(logistic.model(), x, y, l1=3.0, l2=1.0, solver=proximal(tol=1e-11))
    assert ours.status == Status.CONVERGED
    np.testing.assert_array_equal(np.asarray(ours.params.weights) == 0, theirs.coef_[0] == 0)
    np.testing.assert_allclose(ours.params.weights, theirs.coef_[0], rtol=0, atol=1e-6)


def raw(name):
    """Features as they come: a bundled set, or Gaussian ones far from zero."""
    if name != "uncentred":
        return LOADERS[name](return_X_y=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 20))
    return x + 10.0, (x @ rng.normal(size=20) / 3 + rng.logistic(size=2000) > 0).astype(int)


@pytest.mark.parametrize("l1", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("name", ["breast_cancer", "wine", "uncentred"])
def test_l1_on_raw_features_meets_the_conditions_of_an_optimum(name, l1):
    """Where features are nearly collinear with the bias, coordinate descent alone would crawl."""
    x, y = raw(name)
    result = fit(model_of(y), x, y, l1=l1)
    assert result.status == Status.CONVERGED
    log_p = result.model.predict.log_proba(result.params, jax.numpy.asarray(x))
    residual = np.eye(log_p.shape[1])[y] - np.exp(log_p)
    weights = np.atleast_2d(result.params.weights)
    residual = residual[:, 1:] if len(weights) == 1 else residual[:, : len(weights)]
    slopes, sizes = residual.T @ x, abs(residual).T @ abs(x)
    # From a gap of 1e-12 nats and curvatures of up to about the sums of squares.
    slack = 1e-12 * sizes + np.sqrt(2e-12 * np.sum(x**2, axis=0))
    assert np.all(abs(slopes) <= l1 + slack)
    assert np.all((abs(slopes - l1 * np.sign(weights)) <= slack)[weights != 0])
    assert np.any(weights == 0) or l1 < 30


@pytest.mark.slow
def test_lbfgs_reaches_the_reference_optimum_of_digits():
    x, y = standardised("digits")
    expected = REFERENCE["digits_lam1"]
    result = fit(model_of(y), x, y, l2=1.0, solver=lbfgs())
    assert result.status == Status.CONVERGED
    objective = np.sum(result.params.weights**2) / 2 - result.log_likelihood
    np.testing.assert_allclose(objective, expected["objective"], rtol=0, atol=1.1e-8)
