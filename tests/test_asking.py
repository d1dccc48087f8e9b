"""What a fit says when it is asked is what its model's functions say, of any table."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from tolerances import SAME_FIT

import jaxprob as jp
from jaxprob.models import (
    decision_tree,
    dirichlet_mixture,
    gaussian_mixture,
    kernel_density,
    knn_classifier,
    knn_density,
    linear,
    logistic,
    naive_bayes,
    poisson,
    random_forest,
    softmax,
)

RNG = np.random.default_rng(1)
X = RNG.standard_normal((50, 2)).astype("float32")
LABEL = np.argmax(X @ RNG.standard_normal((2, 3)) + RNG.gumbel(size=(50, 3)), axis=1)
NUMBER = (X @ [1.0, -1.0] + RNG.standard_normal(50)).astype("float32")
COUNT = RNG.poisson(np.exp(X[:, 0]))
NEW = RNG.standard_normal((7, 2)).astype("float32")
CASES = {
    "logistic": (logistic.model(), (LABEL > 0).astype(int)),
    "softmax": (softmax.model(3), LABEL),
    "naive Bayes": (naive_bayes.model(3), LABEL),
    "tree": (decision_tree.model(3, depth=2), LABEL),
    "forest": (random_forest.model(3, 4, depth=2), LABEL),
    "nearest neighbours": (knn_classifier.model(3), LABEL),
    "linear": (linear.model(), NUMBER),
    "Poisson": (poisson.model(), COUNT),
    "mixture": (gaussian_mixture.model(2), None),
    "Dirichlet mixture": (dirichlet_mixture.model(4), None),
    "kernel density": (kernel_density.model(), None),
    "neighbour density": (knn_density.model(), None),
}


def fitted(name):
    model, y = CASES[name]
    return jp.fit(model, X, y)


def made_of(fit):
    model, y = fit.model, CASES_Y[fit.model]
    if jp.contract.Trait.SUM in model.offers:
        return ()
    return (X, np.ones(50, "float32")) if y is None else (X, y, np.ones(50, "float32"))


CASES_Y = {model: y for model, y in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_the_model(name):
    fit, (model, y) = fitted(name), CASES[name]
    rest = tuple(map(jnp.asarray, made_of(fit)))
    new = jnp.asarray(NEW)
    examples = (new,) if y is None else (new, jnp.asarray(y[:7]))
    each = model.log_probs(fit.params, *examples, made_of=rest)
    tolerance = {"rtol": SAME_FIT["float32"], "atol": SAME_FIT["float32"]}
    asked = {} if y is None else {"y": y[:7]}
    np.testing.assert_allclose(fit.log_prob(NEW, **asked), each, **tolerance)
    c = np.arange(7, dtype="float32")
    np.testing.assert_allclose(fit.score(NEW, **asked), np.mean(each), **tolerance)
    np.testing.assert_allclose(
        fit.score(NEW, weights=c, **asked), np.average(each, weights=c), **tolerance
    )
    if model.predict.log_proba is not None:
        log_p = model.predict.log_proba(fit.params, new, *rest)
        np.testing.assert_allclose(fit.predict_log_proba(NEW), log_p, **tolerance)
        np.testing.assert_allclose(fit.predict_proba(NEW), jnp.exp(log_p), **tolerance)
        np.testing.assert_array_equal(fit.predict(NEW), np.argmax(log_p, axis=1))
    elif model.predict.mean is not None:
        np.testing.assert_allclose(
            fit.predict(NEW), model.predict.mean(fit.params, new), **tolerance
        )
        assert fit.classes is None
    else:
        with pytest.raises(TypeError, match=f"{model.name} predicts no classes or components"):
            fit.predict(NEW)


@pytest.mark.parametrize("name", ["softmax", "nearest neighbours", "mixture", "kernel density"])
def test_lanes_are_asked_together(name):
    model, y = CASES[name]
    weights = RNG.integers(0, 3, (3, 50)).astype("float32")
    fits = jp.fit_many(model, X, y, weights=weights)
    asked = {} if y is None else {"y": y[:7]}
    each = fits.log_prob(NEW, **asked)
    assert each.shape == (3, 7)
    assert fits.score(NEW, **asked).shape == (3,)
    for i in range(3):
        lane = fits.lane(i).log_prob(NEW, **asked)
        np.testing.assert_allclose(each[i], lane, rtol=1e-5, atol=1e-6)
    if model.predict.log_proba is not None:
        assert fits.predict_proba(NEW).shape == (3, 7, np.shape(fits.lane(0).predict_proba(NEW))[1])
        np.testing.assert_array_equal(fits.predict(NEW)[2], fits.lane(2).predict(NEW))
    draws = fits.sample(jax.random.key(0), **({"num": 4} if y is None else {"x": NEW}))
    assert draws.shape == ((3, 4, 2) if y is None else (3, 7))


def test_columns_are_put_in_order_or_refused():
    table = pd.DataFrame(X, columns=["age", "dose"])
    fit = jp.fit(logistic.model(), table, LABEL > 0)
    expected = fit.predict_proba(X)
    turned = table[["dose", "age"]]
    for other in (turned, pl.DataFrame({name: turned[name].to_numpy() for name in turned})):
        np.testing.assert_array_equal(fit.predict_proba(other), expected)
        assert fit.score(other, LABEL > 0) == fit.score(X, LABEL > 0)
    np.testing.assert_array_equal(fit.predict_proba(X.tolist()), expected)
    for wrong, message in (
        (table[["age"]], r"got \('age',\); \['dose'\] are lacking"),
        (table.assign(sex=table["age"]), r"\['sex'\] were not fitted"),
        (table.rename(columns={"age": "Age"}), r"\['age'\] are lacking; \['Age'\] were not fitted"),
        (X[:, :1], r"x: expected 2 columns, as were fitted, got shape \(50, 1\)"),
        (X[0], r"x: expected 2 columns, as were fitted, got shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            fit.predict(wrong)
    with pytest.raises(ValueError, match="x: expected finite numbers, got nan in row 1, column 0"):
        fit.predict([[0.0, 1.0], [np.nan, 1.0]])
    fit_of_arrays = jp.fit(logistic.model(), X, LABEL > 0)
    np.testing.assert_array_equal(fit_of_arrays.predict_proba(table), expected)


def test_offsets_count():
    offset = np.linspace(-1, 1, 50).astype("float32")
    fit = jp.fit(poisson.model(), X, COUNT, offset=offset)
    np.testing.assert_allclose(
        fit.predict(X, offset=offset), fit.predict(X) * np.exp(offset), rtol=1e-5
    )
    assert float(fit.log_prob(X, COUNT, offset=offset).sum()) == pytest.approx(
        float(fit.log_likelihood), rel=1e-5
    )
    with pytest.raises(ValueError, match="offset: expected none, since the model takes no offset"):
        fitted("naive Bayes").predict(X, offset=offset)


def test_other_numbers_of_rows_need_no_other_program(monkeypatch):
    fit, compiled = fitted("softmax"), []

    def ask(n):
        x, y = X[:n], LABEL[:n]
        fit.predict(x), fit.predict_proba(x), fit.log_prob(x, y)
        fit.score(x, y), fit.score(x, y, weights=np.ones(n, "float32"))

    ask(20)
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    whole = np.asarray(fit.predict_log_proba(X[:20]))
    for n in (17, 18, 19):
        ask(n)
        np.testing.assert_array_equal(np.asarray(fit.predict_log_proba(X[:n])), whole[:n])
    assert compiled == []


def test_draws():
    key = jax.random.key(0)
    labels = np.where(LABEL > 0, "yes", "no")
    fit = jp.fit(logistic.model(), X, labels)
    draws = np.asarray(fit.sample(key, X, num=4_000))
    p = np.asarray(fit.predict_proba(X))[:, 1]
    error = np.sqrt(p * (1 - p) / 4_000)
    assert np.all(np.abs(draws.mean(axis=0) - p) <= 5 * error)
    assert fit.sample(key, X).shape == (50,)
    both = fitted("naive Bayes").sample(key, X)
    assert [a.shape for a in both] == [(50, 2), (50,)]
    x = fitted("mixture").sample(key, num=5)
    assert x.shape == (5, 2)
    for asked, error, message in (
        ((fit, {"x": None}), ValueError, "x: expected features"),
        ((fitted("mixture"), {}), ValueError, "num: expected how many examples to draw"),
        ((fitted("mixture"), {"x": X}), ValueError, "num: expected how many examples to draw"),
        ((fitted("mixture"), {"num": 1.5}), TypeError, "num: expected a whole number"),
        ((fitted("mixture"), {"num": -1}), ValueError, "num: expected at least 0"),
        ((fitted("neighbour density"), {"num": 1}), TypeError, "predicts no draws"),
    ):
        with pytest.raises(error, match=message):
            asked[0].sample(key, **asked[1])
    with pytest.raises(TypeError, match="key: expected a typed PRNG key"):
        fit.sample(0, X)


def test_inside_of_transformations():
    x, y = jnp.asarray(X), jnp.asarray(LABEL > 0)

    @jax.jit
    def ask(x, y, new):
        fit = jp.fit(logistic.model(), x, y)
        return fit.predict(new), fit.log_prob(x, y), fit.score(x, y)

    label, each, mean = ask(x, y, NEW)
    fit = jp.fit(logistic.model(), x, y)
    np.testing.assert_array_equal(label, fit.predict(NEW))
    np.testing.assert_allclose(each, fit.log_prob(x, y), rtol=1e-3)
    np.testing.assert_allclose(mean, fit.score(x, y), rtol=1e-3)
    slope = jax.grad(lambda new: fit.predict_proba(new)[0, 1])(jnp.asarray(NEW))
    assert np.all(np.asarray(slope)[1:] == 0)
    assert np.all(np.asarray(slope)[0] != 0)


def test_what_cannot_answer_says_so():
    fits = jp.fit_many(logistic.model(), np.stack([X, np.nan * X]), (LABEL > 0).astype(int))
    with pytest.raises(ValueError, match="fit: its input was invalid, so it predicts nothing"):
        fits.lane(1).predict(X)
    with pytest.raises(ValueError, match=r"probabilities of lane 1 are NaN; jax.tree.map.*usable"):
        fits.predict(X)
    assert jax.tree.map(lambda a: a[np.asarray(fits.usable)], fits).predict(X).shape == (1, 50)
    assert np.isnan(fits.predict_proba(X)[1]).all()
    labels = jax.jit(lambda fits: fits.predict(X))(jax.tree.map(jnp.asarray, fits))
    assert np.all(np.asarray(labels[1]) == -1)
    assert np.all(np.asarray(labels[0]) >= 0)
    with pytest.raises(TypeError, match="key: expected a typed PRNG key.*got None"):
        fits.sample(None, X)
    density = pickle.loads(pickle.dumps(fitted("kernel density")))
    np.testing.assert_array_equal(density.log_prob(NEW), fitted("kernel density").log_prob(NEW))
    passed = jax.tree.map(jnp.asarray, fitted("kernel density"))
    with pytest.raises(ValueError, match="no longer refers to its data"):
        passed.log_prob(NEW)
