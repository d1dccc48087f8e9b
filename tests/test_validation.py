"""Folds and cross-validation: what is dealt where, and scores against scikit-learn's."""

import warnings

import jax
import numpy as np
import pytest
from catalogue import MODELS, draw
from scipy.special import log_softmax
from tolerances import SAME_FIT

from jaxprob import Status, fit
from jaxprob.many import cross_validate, folds
from jaxprob.models import logistic, naive_bayes, softmax

KEY = jax.random.key(0)
SAME = SAME_FIT["float64"]
pytestmark = pytest.mark.usefixtures("x64")


# Folds.


def test_every_fold_has_its_share():
    y = np.random.default_rng(0).integers(0, 3, 103)
    dealt = folds(y, KEY, num_folds=4, repeats=3)
    assert dealt.shape == (3, 103)
    for row in dealt:
        counts = np.bincount(row, minlength=4)
        assert counts.max() - counts.min() <= 1
        for k in range(3):
            of_class = np.bincount(row[y == k], minlength=4)
            assert of_class.max() - of_class.min() <= 1
    assert not np.array_equal(dealt[0], dealt[1])
    np.testing.assert_array_equal(dealt, folds(y, KEY, num_folds=4, repeats=3))


def test_without_strata_chance_decides():
    y = np.repeat([0, 1], 50)
    (dealt,) = folds(y, KEY, num_folds=5, stratified=False)
    assert np.bincount(dealt).tolist() == [20] * 5
    assert len({*np.bincount(dealt[y == 1], minlength=5)}) > 1


def test_groups_stay_together_in_folds_of_about_a_size():
    names = np.random.default_rng(0).choice(list("abcdefghijklmnop"), 200)
    (dealt,) = folds(np.zeros(200), KEY, num_folds=4, groups=names)
    for name in set(names):
        assert len(set(dealt[names == name])) == 1
    counts = np.bincount(dealt)
    assert counts.max() - counts.min() <= np.unique(names, return_counts=True)[1].max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_folds": 1}, "num_folds: expected at least 2, got 1"),
        ({"num_folds": 11}, "num_folds: expected at most one for each of 10 examples, got 11"),
        ({"repeats": 0}, "repeats: expected at least 1, got 0"),
        ({"groups": [0] * 9}, r"groups: expected shape \(10,\)"),
        ({"groups": [0, 1] * 5, "num_folds": 3}, "at most one for each of 2 groups, got 3"),
    ],
)
def test_folds_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        folds(np.zeros(10), KEY, **changes)


def test_a_key_is_a_key():
    with pytest.raises(TypeError, match="key: expected a typed PRNG key"):
        folds(np.zeros(10), 0)
    with pytest.raises(ValueError, match="key: expected a single key"):
        folds(np.zeros(10), jax.random.split(KEY))


# Scores.


def by_scikit_learn(x, y, train, test, weights, l2, classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, brier_score_loss

    model = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000)
    model.fit(x[train], y[train], sample_weight=weights[train])
    z = model.decision_function(x[test])
    log_p = log_softmax(np.stack([0 * z, z], 1) if z.ndim == 1 else z, axis=1)
    p, c = np.exp(log_p), weights[test]
    return (
        np.average(log_p[np.arange(len(c)), y[test]], weights=c),
        accuracy_score(y[test], p.argmax(1), sample_weight=c),
        brier_score_loss(
            y[test], p[:, 1] if classes == 2 else p, sample_weight=c, labels=range(classes)
        ),
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 2))
    z = x @ rng.normal(size=(2, classes)) + rng.gumbel(size=(90, classes))
    y, weights = z.argmax(axis=1), rng.integers(1, 4, 90) / 2
    model = (
        softmax.model(classes, parameterisation="symmetric") if classes > 2 else logistic.model()
    )
    l2 = np.array([0.1, 3.0])
    cv = cross_validate(model, x, y, KEY, num_folds=3, repeats=2, weights=weights, l2=l2)
    assert cv.used.shape == (2, 2, 3)
    assert cv.used.all()
    for m, r, k in np.ndindex(2, 2, 3):
        test = cv.folds[r] == k
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            expected = by_scikit_learn(x, y, ~test, test, weights, l2[m], classes)
        got = [s[m, r, k] for s in cv.scores[:3]]
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    best = np.argmax(np.asarray(cv.scores.log_likelihood).mean(axis=(1, 2)))
    assert cv.best() == best
    assert cv.best("brier") == np.argmin(np.asarray(cv.scores.brier).mean(axis=(1, 2)))
    np.testing.assert_allclose(cv.mean(), np.asarray(cv.scores.log_likelihood).mean((1, 2)))
    whole = fit(model, x, y, weights=weights, l2=3.0)
    np.testing.assert_allclose(cv.whole.params.weights[1], whole.params.weights, atol=SAME)


def test_one_penalty_or_none_needs_no_axis():
    case = draw(MODELS["logistic"], 2, n=80)
    x, y = np.asarray(case.x), np.asarray(case.y)
    cv = cross_validate(MODELS["logistic"], x, y, KEY, num_folds=4, offset=case.offset)
    assert cv.scores.accuracy.shape == (1, 4)
    for k in range(4):
        train = cv.folds[0] != k
        alone = fit(MODELS["logistic"], x[train], y[train], offset=case.offset[train])
        np.testing.assert_allclose(
            cv.fits.lane(k).params.weights, alone.params.weights, rtol=SAME, atol=SAME
        )
        np.testing.assert_allclose(cv.fits.log_likelihood[k], alone.log_likelihood, rtol=SAME)
    with pytest.raises(ValueError, match="best: expected several penalties"):
        cv.best()
    assert "4-fold cross-validation: 4 of 4 fits converged" in str(cv)


def test_calibration_is_what_it_says():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    y = (rng.uniform(size=400) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int)
    cv = cross_validate(logistic.model(), x, y, KEY, num_folds=2, num_bins=4)
    for k in range(2):
        test, params = cv.folds[0] == k, cv.fits.lane(k).params
        p = np.exp(logistic.predict_log_proba(params, x[test]))[:, 1]
        which = np.minimum((p * 4).astype(int), 3)
        got = [np.asarray(a[0, k]) for a in cv.scores.calibration]
        np.testing.assert_allclose(got[0], np.bincount(which, minlength=4))
        for b in range(4):
            np.testing.assert_allclose(got[1][b], p[which == b].mean(), rtol=1e-10)
            np.testing.assert_allclose(got[2][b], y[test][which == b].mean(), rtol=1e-10)
        error = np.sum(got[0] * np.abs(got[1] - got[2])) / test.sum()
        np.testing.assert_allclose(cv.scores.calibration.error()[0, k], error, rtol=1e-10)


def test_a_class_missing_from_the_other_folds_is_said():
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = (np.arange(40) == 3).astype(int)
    cv = cross_validate(logistic.model(), x, y, KEY, num_folds=4, l2=1.0)
    alone = cv.folds[0, 3]
    assert cv.fits.status[alone] == Status.CLASS_ABSENT
    assert np.isnan(cv.scores.log_likelihood[0, alone])
    assert cv.used.sum() == 3
    assert np.isfinite(cv.mean())
    (line,) = cv.failures()
    assert line.startswith(f"repeat 0, fold {alone}: CLASS_ABSENT: a class has no example")
    assert line in str(cv)
    several = cross_validate(logistic.model(), x, y, KEY, num_folds=4, l2=np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="no penalty has a fit in every fold"):
        several.best()


def test_a_fold_without_weight_is_not_scored_and_says_so():
    x, y, _ = (np.asarray(a) for a in draw(MODELS["logistic"], 2, n=60)[1:4])
    fold = np.arange(60) % 3
    weights = (fold != 1).astype(float)
    cv = cross_validate(logistic.model(), x, y, folds=fold, weights=weights, l2=np.array([1.0, 3]))
    assert np.all(cv.fits.status == Status.CONVERGED)
    assert cv.used.tolist() == [[[True, False, True]]] * 2
    assert cv.weight.tolist() == [[20, 0, 20]]
    line = "penalty 0, repeat 0, fold 1: not scored: its examples have weight zero"
    assert cv.failures()[0] == line
    assert "6 of 6 fits converged, 2 of them without a score" in str(cv)
    kept = cross_validate(
        logistic.model(),
        x[fold != 1],
        y[fold != 1],
        folds=fold[fold != 1] // 2,
        l2=np.array([1.0, 3]),
    )
    np.testing.assert_allclose(cv.mean(), kept.mean(), rtol=1e-8)
    assert cv.best() == kept.best()


def test_what_failed_has_the_remedy_of_the_model():
    x = np.array([0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0])[:, None]
    model = naive_bayes.model(2, naive_bayes.Bernoulli(smoothing=0.0))
    cv = cross_validate(model, x, np.arange(12) // 6, folds=np.arange(12) % 2)
    for line in cv.failures():
        assert "SEPARATED: a value never occurs in a class, so its logit runs off; add smo" in line
    assert cv.failures()


def test_the_simplest_is_within_an_error_of_the_best():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    y = (x[:, 0] + rng.normal(size=60) > 0).astype(int)
    l2 = np.geomspace(1e-3, 1e3, 13)
    cv = cross_validate(logistic.model(), x, y, KEY, l2=l2)
    best, simplest = cv.best(), cv.simplest()
    means, errors = cv.mean(), cv.standard_error()
    within = means >= means[best] - errors[best]
    assert within[simplest]
    assert l2[simplest] == l2[within].max() > l2[best]
    values = np.asarray(cv.scores.log_likelihood)[best].ravel()
    np.testing.assert_allclose(errors[best], values.std(ddof=1) / np.sqrt(5), rtol=1e-10)


def test_folds_of_ones_own():
    x, y, _ = (np.asarray(a) for a in draw(MODELS["logistic"], 2, n=60)[1:4])
    fold = np.arange(60) % 3
    cv = cross_validate(logistic.model(), x, y, folds=fold, l2=1.0)
    assert cv.folds.tolist() == [fold.tolist()]
    alone = fit(logistic.model(), x[fold != 2], y[fold != 2], l2=1.0)
    np.testing.assert_allclose(cv.fits.log_likelihood[2], alone.log_likelihood, rtol=1e-8)
    for bad in (fold[1:], fold + 1, fold * 0, fold - 1, fold / 1.0, fold[None, None]):
        with pytest.raises(ValueError, match="folds: expected"):
            cross_validate(logistic.model(), x, y, folds=bad)


def test_l1_is_validated_too():
    x, y, _ = (np.asarray(a) for a in draw(MODELS["logistic"], 2, n=60)[1:4])
    cv = cross_validate(logistic.model(), x, y, KEY, num_folds=3, l1=np.array([0.5, 5.0]))
    assert cv.used.all()
    train = cv.folds[0] != 1
    alone = fit(logistic.model(), x[train], y[train], l1=5.0)
    np.testing.assert_allclose(cv.fits.log_likelihood[4], alone.log_likelihood, rtol=SAME)


def test_what_is_asked_for_must_exist():
    x, y = np.ones((10, 1)), [0, 1] * 5
    with pytest.raises(ValueError, match="num_bins: expected at least 1, got 0"):
        cross_validate(logistic.model(), x, y, KEY, num_bins=0)
    with pytest.raises(ValueError, match="y: expected integers 0..1"):
        cross_validate(logistic.model(), x, [0, 2, 3, 4, 5] * 2, KEY)
    with pytest.raises(TypeError, match="key: expected a typed PRNG key"):
        cross_validate(logistic.model(), x, y, 7)
