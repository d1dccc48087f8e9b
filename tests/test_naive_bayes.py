"""Naive Bayes against scikit-learn, and against the regression that it is a twin of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import FAMILIES
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from tolerances import EPS

import jaxprob as jp
from jaxprob.many import restarts
from jaxprob.models import naive_bayes as nb
from jaxprob.models import softmax
from jaxprob.numerics import moments
from jaxprob.problem.problem import Problem, Rows


def weights_of(y, seed=0):
    return np.random.default_rng(seed).integers(0, 3, len(y)).astype(float)


def centred(a):
    return a - a.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_is_that_of_scikit_learn(x64, weighted):
    x, y = load_wine(return_X_y=True)
    weights = weights_of(y) if weighted else None
    ours = jp.fit(nb.model(3), x, y, weights=weights)
    theirs = GaussianNB(var_smoothing=0).fit(x, y, weights)
    part = ours.params.features[0]
    np.testing.assert_allclose(part.mean, theirs.theta_, rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(2 * part.log_scale), theirs.var_, rtol=1e-10)
    log_p = ours.model.predict.log_proba(ours.params, jnp.asarray(x))
    np.testing.assert_allclose(log_p, theirs.predict_log_proba(x), rtol=0, atol=1e-7)
    total = (theirs.predict_joint_log_proba(x)[np.arange(len(y)), y] * (
        1 if weights is None else weights)).sum()  # fmt: skip
    np.testing.assert_allclose(ours.log_likelihood, total, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_bernoulli_is_that_of_scikit_learn(x64, alpha, weighted):
    x, y = load_digits(return_X_y=True)
    x = (x > 8).astype(float)
    weights = weights_of(y) if weighted else None
    ours = jp.fit(nb.model(10, nb.Bernoulli(smoothing=alpha)), x, y, weights=weights)
    theirs = BernoulliNB(alpha=alpha).fit(x, y, weights)
    log_p = jax.nn.log_sigmoid(ours.params.features[0].logits)
    np.testing.assert_allclose(log_p, theirs.feature_log_prob_, rtol=1e-10)
    log_p = ours.model.predict.log_proba(ours.params, jnp.asarray(x))
    np.testing.assert_allclose(log_p, theirs.predict_log_proba(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_multinomial_is_that_of_scikit_learn(x64, alpha, weighted):
    x, y = load_digits(return_X_y=True)
    weights = weights_of(y) if weighted else None
    ours = jp.fit(nb.model(10, nb.Multinomial(smoothing=alpha)), x, y, weights=weights)
    theirs = MultinomialNB(alpha=alpha).fit(x, y, weights)
    logits = ours.params.features[0].logits
    np.testing.assert_allclose(logits, centred(theirs.feature_log_prob_), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.params.class_logits, centred(theirs.class_log_prior_), rtol=0,
                               atol=1e-14)  # fmt: skip
    log_p = ours.model.predict.log_proba(ours.params, jnp.asarray(x))
    np.testing.assert_allclose(log_p, theirs.predict_log_proba(x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("sizes", [5, (5, 5, 6, 5)])
def test_categorical_is_that_of_scikit_learn(x64, sizes):
    x, y = load_iris(return_X_y=True)
    x = np.stack([np.digitize(a, np.quantile(a, [0.2, 0.4, 0.6, 0.8])) for a in x.T], 1) + 0.0
    ours = jp.fit(nb.model(3, nb.Categorical(sizes, smoothing=0.5)), x, y)
    least = np.broadcast_to(sizes, 4)
    theirs = CategoricalNB(alpha=0.5, min_categories=least).fit(x, y)
    log_p = ours.model.predict.log_proba(ours.params, jnp.asarray(x))
    np.testing.assert_allclose(log_p, theirs.predict_log_proba(x), rtol=0, atol=1e-11)
    logits = np.split(ours.params.features[0].logits, np.cumsum(least)[:-1], axis=1)
    for own, expected in zip(logits, theirs.feature_log_prob_, strict=True):
        np.testing.assert_allclose(own, centred(expected), rtol=0, atol=1e-12)


def test_a_model_of_several_families_is_the_sum_of_them(x64):
    x, y = load_wine(return_X_y=True)
    coins = (x[:, 4:7] > x[:, 4:7].mean(axis=0)).astype(float)
    both = np.column_stack([coins, x[:, :4]])
    families = [nb.Bernoulli((0, 1, 2)), nb.Gaussian((3, 4, 5, 6))]
    together = jp.fit(nb.model(3, families), both, y)
    gaussian = jp.fit(nb.model(3), x[:, :4], y)
    bernoulli = jp.fit(nb.model(3, nb.Bernoulli()), coins, y)
    expected = (
        GaussianNB(var_smoothing=0).fit(x[:, :4], y).predict_joint_log_proba(x[:, :4])
        + BernoulliNB().fit(coins, y).predict_joint_log_proba(coins)
        - np.log(np.bincount(y) / len(y))
    )
    expected -= np.log(np.exp(expected - expected.max(1, keepdims=True)).sum(1, keepdims=True))
    expected -= expected.max(1, keepdims=True)
    log_p = np.asarray(together.model.predict.log_proba(together.params, jnp.asarray(both)))
    np.testing.assert_allclose(log_p - log_p.max(1, keepdims=True), expected, rtol=0, atol=1e-9)
    shares = np.log(np.bincount(y) / len(y))[y].sum()
    value = gaussian.log_likelihood + bernoulli.log_likelihood - shares
    np.testing.assert_allclose(together.log_likelihood, value, rtol=1e-12)


def test_with_shared_scales_it_is_a_softmax_regression(x64):
    """log p(y | x) is linear in x: w_k = μ_k / σ², b_k = log π_k - Σ μ_k² / 2σ²."""
    x, y = load_iris(return_X_y=True)
    found = jp.fit(nb.model(3, nb.Gaussian(shared_scale=True)), x, y)
    part = found.params.features[0]
    precision = jnp.exp(-2 * part.log_scale)
    weights = part.mean * precision[None, :]
    bias = found.params.class_logits - jnp.sum(part.mean * weights, axis=1) / 2
    twin = softmax.Params(weights - weights[-1:], bias - bias[-1])
    twin = jax.tree.map(lambda a: a[:-1], twin)
    x = jnp.asarray(x)
    log_p = found.model.predict.log_proba(found.params, x)
    np.testing.assert_allclose(log_p, softmax.predict_log_proba(twin, x), rtol=0, atol=1e-10)
    regression = jp.fit(softmax.model(3), x, y, l2=1e-3)
    own = softmax.log_likelihood(twin, x, jnp.asarray(y))
    assert float(own) < float(regression.log_likelihood)  # which maximises just that


@pytest.mark.parametrize("name", FAMILIES)
def test_batches_add_up_to_the_whole(x64, name):
    from contract import ENTRIES

    entry = ENTRIES[f"naive Bayes, {name}"]
    features = FAMILIES[name]
    _, x, y, weights, _ = entry.draw(entry.model, 0, n=60)
    known = nb.statistics(x[:1], y[:1], weights[:1], num_classes=3, features=features)
    step = jax.jit(lambda known, *batch: nb.update(known, *batch, features=features))
    for start, end in ((1, 2), (2, 20), (20, 60)):
        known = step(known, x[start:end], y[start:end], weights[start:end])
    made = nb.estimate(known, smoothing=0.5, features=features)
    whole = jp.fit(entry.model, x, y, weights=weights)
    assert int(made.status) == int(whole.status) == jp.Status.CONVERGED
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12),
                 made.params, whole.params)  # fmt: skip


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("apart", [0.0, 1e3])
def test_variances_keep_their_digits_far_from_zero(dtype, offset, apart):
    """Also where the classes are far apart, and where a row of weight zero is far from all."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (rng.standard_normal((300, 2)) + offset + apart * y[:, None]).astype(dtype)
    x[0] = 1e7
    weights = np.ones(300, dtype)
    weights[0] = 0.0
    found = jp.fit(nb.model(3), x, y, weights=weights)
    exact = np.array([x[1:][y[1:] == k].astype(float).var(axis=0) for k in range(3)])
    got = np.exp(2 * np.asarray(found.params.features[0].log_scale, float))
    np.testing.assert_allclose(got, exact, rtol=300 * EPS[dtype])  # each of 300 terms


def test_moments_by_blocks_are_those_of_the_whole(x64):
    rng = np.random.default_rng(1)
    x, member = rng.standard_normal((100_003, 3)), rng.random((100_003, 2))
    centre = np.array([0.1, -2.0, 3.0])
    got = jax.jit(moments)(jnp.asarray(x), jnp.asarray(centre), jnp.asarray(member))
    expected = member.T @ (x - centre), member.T @ (x - centre) ** 2
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-8)


def test_what_has_no_maximum_says_so(x64):
    x, y = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]), np.array([0, 0, 1, 1])

    def status(model, x=x, y=y, **keywords):
        fit = jp.fit(model, x, y, **keywords)
        return jp.Status(int(fit.status)).name, fit

    assert status(nb.model(2, nb.Bernoulli()))[0] == "CONVERGED"
    name, fit = status(nb.model(2, nb.Bernoulli(smoothing=0.0)))
    assert name == "SEPARATED"
    assert fit.direction.features[0].logits.tolist() == [[0.0, 1.0], [0.0, -1.0]]
    assert abs(float(fit.log_likelihood) - 8 * np.log(0.5)) < 1e-12  # the supremum
    assert "class 0: x1 → +∞" in fit.report().failures[0].reason
    assert "a value never occurs in a class" in str(jp.summary(fit))
    name, fit = status(nb.model(2))
    assert name == "COLLAPSED"
    assert np.isinf(float(fit.gap))
    assert "constant within a class" in fit.report().failures[0].reason
    assert status(nb.model(2, nb.Gaussian(prior_count=1.0)))[0] == "CONVERGED"
    assert status(nb.model(3))[0] == "CLASS_ABSENT"
    assert status(nb.model(3, nb.Bernoulli()))[0] == "CLASS_ABSENT"
    assert status(nb.model(3, nb.Bernoulli(), smoothing=1.0))[0] == "CONVERGED"
    counts = nb.model(2, nb.Multinomial(smoothing=0.0))
    assert status(counts)[0] == "SEPARATED"
    assert status(nb.model(2, nb.Categorical(2, smoothing=0.0)))[0] == "SEPARATED"
    lanes = jax.vmap(lambda w: jp.fit(nb.model(2, nb.Bernoulli()), x, y, weights=w).status)
    weights = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert [jp.Status(s).name for s in lanes(weights).tolist()] == [
        "CONVERGED",
        "CLASS_ABSENT",
        "NO_DATA",
    ]


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 12345.678])
@pytest.mark.parametrize("shared", [False, True])
def test_a_constant_feature_is_found_in_spite_of_rounding(dtype, value, shared):
    rng = np.random.default_rng(0)
    y = np.arange(70) % 2
    x = rng.standard_normal((70, 2)).astype(dtype)
    x[y == 1, 1] = value
    if shared:
        x[y == 0, 1] = value / 2
    model, weights = nb.model(2, nb.Gaussian(shared_scale=shared)), rng.exponential(size=70)
    weights = weights.astype(dtype)
    found = jp.fit(model, x, y, weights=weights)
    assert jp.Status(int(found.status)).name == "COLLAPSED"
    x[0, 1] += 1e-3 * max(abs(value), 1.0)
    x[1, 1] += 1e-3 * max(abs(value), 1.0)
    found = jp.fit(model, x, y, weights=weights)
    assert jp.Status(int(found.status)).name == "CONVERGED"


def test_a_value_that_never_occurs_is_found_in_spite_of_rounding(dtype):
    rng = np.random.default_rng(0)
    y, x = np.arange(700) % 2, rng.integers(0, 2, (700, 4)).astype(dtype)
    x[y == 1, 2] = 1.0
    for seed in range(5):
        weights = np.random.default_rng(seed).exponential(size=700).astype(dtype)
        found = jp.fit(nb.model(2, nb.Bernoulli(smoothing=0.0)), x, y, weights=weights)
        assert jp.Status(int(found.status)).name == "SEPARATED"
        direction = np.zeros((2, 4))
        direction[1, 2] = 1.0
        np.testing.assert_array_equal(found.direction.features[0].logits, direction)


def test_what_the_model_does_not_know():
    model = nb.model(2, nb.Categorical(3))
    found = jp.fit(model, [[0.0], [1.0], [1.0]], [0, 0, 1])
    log_p = model.predict.log_proba(found.params, jnp.array([[2.0], [3.0]]))
    assert jnp.isfinite(log_p[0]).all()  # never seen, but smoothed
    assert jnp.isnan(log_p[1]).all()
    assert model.log_prob(found.params, jnp.array([3.0]), 0) == -jnp.inf


def test_a_smoothed_fit_is_the_maximum_a_posteriori(x64):
    x, y = load_iris(return_X_y=True)
    model = nb.model(3, nb.Gaussian(prior_count=5.0, prior_scale=2.0), smoothing=3.0)
    ours = jp.fit(model, x, y)
    other = jp.fit(model, x, y, solver=jp.solvers.newton())
    assert int(other.status) == jp.Status.CONVERGED
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-7),
                 ours.params, other.params)  # fmt: skip
    np.testing.assert_allclose(ours.log_likelihood, other.log_likelihood, rtol=1e-10)


def test_parts_of_the_rows_have_their_share_of_the_prior(x64):
    x, y = (jnp.asarray(a) for a in load_iris(return_X_y=True))
    model = nb.model(3, nb.Gaussian(prior_count=5.0, prior_scale=2.0), smoothing=3.0)
    problem = Problem(Rows(x, y.astype(jnp.int32), None, None), None, None, model, False, None)
    theta = jnp.asarray(np.random.default_rng(0).normal(size=problem.num_params()))
    whole = jax.jit(problem.value_and_grad)(theta)
    part = jax.jit(lambda i: problem.part(i, 3).value_and_grad(theta))
    of_rows = jax.jit(lambda rows: problem.rows(rows, jnp.ones(50, bool)).value_and_grad(theta))
    parts = [part(i) for i in range(3)]
    some = [of_rows(rows) for rows in np.arange(150).reshape(3, 50)]
    for pieces in (parts, some):
        for a, *b in zip(whole, *pieces, strict=True):
            np.testing.assert_allclose(sum(b), a, rtol=1e-12, atol=1e-9)
    curvature = jax.jit(lambda i: problem.part(i, 3).curvature(theta))
    hess = sum(curvature(i) for i in range(3))
    np.testing.assert_allclose(hess, jax.jit(problem.curvature)(theta), rtol=1e-12, atol=1e-9)


def test_the_best_of_several_starts_counts_the_prior(x64):
    x, y = load_iris(return_X_y=True)
    model = nb.model(3, nb.Gaussian(prior_count=5.0), smoothing=2.0)
    found = restarts(model, x, y, jax.random.key(0), num_starts=3, solver=jp.solvers.newton())
    value = model.objective.log_likelihood(found.best.params, jnp.asarray(x), jnp.asarray(y))
    expected = -float(value) - float(model.prior.log_prob(found.best.params))
    np.testing.assert_allclose(found.objective.min(), expected, rtol=1e-12)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((1,), ValueError, "num_classes: expected an integer of at least 2, got 1"),
    ((2, [nb.Gaussian(), nb.Bernoulli()]), ValueError, "expected columns for each of several"),
    ((2, [nb.Gaussian((0, 1)), nb.Bernoulli((1,))]), ValueError, r"got \[1\] in two"),
    ((2, "gaussian"), TypeError, "features: expected one of Gaussian, Bernoulli"),
    ((2, []), ValueError, "features: expected at least one family"),
    ((2, nb.Bernoulli(smoothing=-1.0)), ValueError, "smoothing of Bernoulli: expected a number"),
    ((2, nb.Gaussian((0, 0))), ValueError, "columns of Gaussian: expected a tuple of different"),
    ((2, nb.Categorical(0)), ValueError, "num_categories: expected integers of at least 1, got 0"),
    ((2, nb.Categorical((2, 3), (1,))), ValueError, "num_categories: expected one for each of 1"),
])  # fmt: skip
def test_settings(arguments, error, message):
    with pytest.raises(error, match=message):
        nb.model(*arguments)


def test_a_formula_is_only_for_models_that_have_one():
    x, y = [[0.0], [1.0], [2.0]], [0, 1, 1]
    for fit in (jp.fit, lambda *a, **k: jp.fit_many(*a, weights=np.ones((2, 3), "float32"), **k)):
        with pytest.raises(ValueError, match="which softmax regression does not offer"):
            fit(softmax.model(2), x, y, solver=jp.solvers.closed_form())
        with pytest.raises(
            ValueError,
            match="which naive Bayes with Firth's penalty does",
        ):
            fit(nb.model(2), x, y, solver=jp.solvers.closed_form(), firth=True)


def test_columns_that_are_not_there():
    with pytest.raises(ValueError, match="x: expected at least 4 columns, got 2"):
        jp.fit(nb.model(2, nb.Gaussian((3,))), [[0.0, 1.0], [1.0, 2.0]], [0, 1])
    with pytest.raises(ValueError, match="x: expected 3 columns of categories, got 2"):
        jp.fit(nb.model(2, nb.Categorical((2, 2, 2))), [[0.0, 1.0], [1.0, 1.0]], [0, 1])
    with pytest.raises(ValueError, match="naive Bayes has no parameters that a penalty"):
        jp.fit(nb.model(2), [[0.0], [1.0], [2.0]], [0, 1, 1], l2=1.0)


@pytest.mark.parametrize("columns", [None, (1,)])
def test_samples_of_normals_are_floats_where_the_data_were_integers(columns):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (300, 2)).astype("int32"), rng.integers(0, 2, 300)
    model = nb.model(2, nb.Gaussian(columns=columns))
    fit = jp.fit(model, x, y)
    drawn, _ = model.predict.sample(fit.params, jax.random.key(1), x)
    assert drawn.dtype == "float32"
    normal = np.asarray(drawn)[:, 1]
    assert not np.any(normal == np.round(normal))
    error = 2.6 / np.sqrt(300)  # standard deviation of integers 0..8; truncation would move by ½
    assert abs(normal.mean() - x[:, 1].mean()) < 4 * error
    if columns:
        np.testing.assert_array_equal(drawn[:, 0], x[:, 0])


@pytest.mark.parametrize(
    "family", [nb.Gaussian(), nb.Bernoulli(), nb.Categorical(2), nb.Multinomial()], ids=repr
)
def test_another_number_of_columns_than_was_fitted(family):
    x, y = np.eye(4, 2, dtype="float32"), np.array([0, 0, 1, 1])
    params = nb.init(None, x, num_classes=2, features=(family,))
    model = nb.model(2, family)
    ask = {
        "predict": lambda x: model.predict.log_proba(params, x),
        "likelihood": lambda x: model.objective.log_likelihood(params, x, y),
        "gradient": lambda x: model.objective.value_and_grad(params, x, y),
        "information": lambda x: model.objective.information(params, x, y),
        "sample": lambda x: model.predict.sample(params, jax.random.key(0), x),
    }
    for call in ask.values():
        for bad in (x[:, :1], np.tile(x, 2)):
            with pytest.raises(ValueError, match="x: expected 2 columns, as were fitted, got shap"):
                call(jnp.asarray(bad))
    with pytest.raises(ValueError, match=r"x: expected shape \(n, d\), got \(2,\)"):
        ask["predict"](jnp.ones(2))
