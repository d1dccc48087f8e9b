"""The summary says what statsmodels says, and what it cannot say."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

import jaxprob as jp
from jaxprob.models import logistic, softmax
from jaxprob.models import naive_bayes as nb

pytestmark = pytest.mark.usefixtures("x64")


def table(n=200, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    x = pd.DataFrame(rng.standard_normal((n, 2)), columns=["age", "dose"])
    z = x.to_numpy() @ rng.standard_normal((2, classes)) + rng.gumbel(size=(n, classes))
    return x, np.argmax(z, axis=1)


def test_logistic_is_that_of_statsmodels():
    x, y = table()
    theirs = sm.Logit(y, sm.add_constant(x, prepend=False)).fit(method="newton", tol=1e-14, disp=0)
    ours = jp.summary(jp.fit(logistic.model(), x, y), level=0.9)
    assert ours.names == ("age", "dose", "bias")
    np.testing.assert_allclose(ours.coefficient, theirs.params, rtol=1e-8)
    np.testing.assert_allclose(ours.standard_error, theirs.bse, rtol=1e-8)
    np.testing.assert_allclose(ours.z, theirs.tvalues, rtol=1e-8)
    np.testing.assert_allclose(ours.p_value, theirs.pvalues, rtol=1e-6)
    interval = np.stack([ours.lower, ours.upper], axis=1)
    np.testing.assert_allclose(interval, theirs.conf_int(0.1), rtol=1e-8)
    assert ours.log_likelihood == pytest.approx(theirs.llf, rel=1e-10)
    assert ours.mcfadden_r2 == pytest.approx(theirs.prsquared, rel=1e-6)
    assert ours.aic == pytest.approx(theirs.aic, rel=1e-10)
    assert ours.bic == pytest.approx(theirs.bic, rel=1e-10)
    text = str(ours)
    for word in ("age", "dose", "bias", "90 % from", "CONVERGED: proved to be within", "AIC"):
        assert word in text


def test_symmetric_softmax_has_the_errors_of_its_contrasts():
    x, y = table(classes=3)
    reference = jp.summary(jp.fit(softmax.model(3), x, y))
    fit = jp.fit(softmax.model(3, parameterisation="symmetric"), x, y)
    symmetric = jp.summary(fit)
    assert reference.names[:2] == ("0: age", "0: dose")
    assert symmetric.num_params == reference.num_params == 6
    assert symmetric.aic == pytest.approx(reference.aic, abs=1e-7)
    # The mean of a class's own weight and minus the others': the same linear map of both fits.
    np.testing.assert_allclose(
        np.subtract(*np.asarray(fit.params.weights)[[0, 2]]), reference.coefficient[:2], rtol=1e-5
    )
    assert np.all(np.isfinite(symmetric.standard_error))
    assert np.all(symmetric.standard_error < reference.standard_error.max())


def test_with_l2_the_errors_are_those_of_the_posterior():
    x, y = table()
    fit = jp.fit(logistic.model(), x, y, l2=3.0)
    h = np.asarray(fit.information) + np.diag([3.0, 3.0, 0.0])
    ours = jp.summary(fit)
    np.testing.assert_allclose(ours.standard_error, np.sqrt(np.diag(np.linalg.inv(h))), rtol=1e-10)
    assert "shrunk" in ours.notes[0]
    np.testing.assert_allclose(ours.p_value, 2 * stats.norm.sf(abs(ours.z)), rtol=1e-10)


def test_without_a_unique_maximum_there_are_no_errors():
    x = pd.DataFrame({"a": [-2.0, -1.0, 1.0, 2.0]})
    ours = jp.summary(jp.fit(logistic.model(), x, [0, 0, 1, 1]))
    assert ours.status is jp.Status.SEPARATED
    assert np.all(np.isnan(ours.standard_error))
    assert "× a" in ours.evidence
    assert "nan" not in str(ours)
    twice, y = table()
    twice["again"] = twice["age"]
    ours = jp.summary(jp.fit(logistic.model(), twice, y))
    assert ours.status is jp.Status.SINGULAR
    assert np.all(np.isnan(ours.standard_error))
    ours = jp.summary(jp.fit(logistic.model(), *table(), l1=2.0))
    assert np.all(np.isnan(ours.p_value))


@pytest.mark.parametrize("model", [logistic.model(), nb.model(2)], ids=["logistic", "naive Bayes"])
def test_weights_are_repeated_rows_in_every_criterion(model):
    x, y = table()
    times = np.random.default_rng(1).integers(0, 4, len(y))
    index = np.repeat(np.arange(len(y)), times)
    rows = jp.summary(jp.fit(model, x.to_numpy()[index], y[index]))
    of_one = jp.fit(model, x.to_numpy(), y, weights=times)
    many = jp.fit_many(model, x.to_numpy(), y, weights=np.stack([times, times + 1])).lane(0)
    mapped = jax.vmap(lambda c: jp.fit(model, x.to_numpy(), y, weights=c))(1.0 * times[None])
    for fit in (of_one, many, jax.tree.map(lambda a: a[0], mapped)):
        ours = jp.summary(fit)
        for name in ("aic", "bic", "standard_error", "p_value", "mcfadden_r2"):
            got, expected = getattr(ours, name), getattr(rows, name)
            np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=name)
        assert ours.total_weight == rows.total_weight == rows.num_examples == times.sum()
        assert ours.num_examples == (times > 0).sum()
        assert f"their weight{times.sum():>12,}" in str(ours)
    assert rows.bic == pytest.approx(rows.aic + rows.num_params * (np.log(times.sum()) - 2))
    assert "their weight" not in str(rows)


def test_weights_of_less_than_one_example_have_no_bic():
    x, y = table()
    c = np.random.default_rng(1).uniform(0.1, 1, len(y))
    ours = jp.summary(jp.fit(logistic.model(), x, y, weights=c / c.sum()))
    assert np.isnan(ours.bic)
    assert "The weights add up to 1, no more than one example" in ours.notes[0]
    ours = jp.summary(jp.fit(logistic.model(), x, y, weights=jp.data.normalised_weights(c)))
    assert ours.total_weight == pytest.approx(len(y))
    assert ours.notes == ()
    assert "their weight" not in str(ours)


def test_wrong_arguments():
    x, y = table()
    fits = jax.vmap(lambda l2: jp.fit(logistic.model(), x.to_numpy(), y, l2=l2))(jnp.ones(2))
    with pytest.raises(ValueError, match="fit: expected one fit, got fits of shape"):
        jp.summary(fits)
    one = jax.tree.map(lambda a: a[0], fits)
    assert jp.summary(one).names == ("x0", "x1", "bias")
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 95"):
        jp.summary(one, level=95)


def test_plots_show_what_they_say():
    x, y = table(classes=3)
    fit = jp.fit(softmax.model(3), x, y)
    ax = jp.plots.confusion_matrix(fit, x, y)
    assert sum(int(t.get_text()) for t in ax.texts) == len(y)
    ax = jp.plots.calibration(fit, x, y, bins=5)
    # With a bias, the mean probability of each class is its share: so it is over all bins.
    predicted, observed = ax.lines[1].get_data()
    assert np.mean(predicted) == pytest.approx(np.mean(observed), abs=1e-3)
    with pytest.raises(ValueError, match="fit: expected a fit made with trace=True"):
        jp.plots.convergence(fit)
    traced = jp.fit(softmax.model(3), x, y, trace=True)
    left, right = jp.plots.convergence({"newton": traced, "again": traced})
    assert len(left.lines) == len(right.lines) == 2


DRAWN = {
    "boundary": jp.plots.decision_boundary,
    "probabilities": jp.plots.probabilities,
    "calibration": jp.plots.calibration,
    "confusion": jp.plots.confusion_matrix,
}


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_are_of_the_columns_that_were_fitted(name):
    draw = DRAWN[name]
    x, y = table()
    fit = jp.fit(logistic.model(), x, y)
    draw(fit, x, y)
    draw(fit, x.to_numpy(), y)
    draw(fit, x[["dose", "age"]], y)
    bad = {
        r"x: .*fitted, \('age', 'dose'\), got \('a', 'dose'\); \['age'\] are lacking": (
            x.set_axis(["a", "dose"], axis=1),
            y,
        ),
        r"x: expected 2 columns, as were fitted, got shape \(200, 1\)": (x.to_numpy()[:, :1], y),
        "x: expected finite numbers, got nan": (x.where(x > 0), y),
        "y: expected integers 0..1 for 2 classes, got -1": (x, y - 1),
        "y: expected one entry for each of the 200 rows of x, got 199": (x, y[1:]),
    }
    for message, (wrong_x, wrong_y) in bad.items():
        with pytest.raises(ValueError, match=message):
            draw(fit, wrong_x, wrong_y)


def test_columns_of_a_picture_may_be_named():
    x, y = table()
    fit = jp.fit(logistic.model(), x, y)
    ax = jp.plots.decision_boundary(fit, x, y, features=("dose", 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("dose", "age")
    for wrong in (("dose", "weight"), (0, 2), (0,)):
        with pytest.raises(ValueError, match="features: expected"):
            jp.plots.decision_boundary(fit, x, y, features=wrong)
    with pytest.raises(TypeError, match="features: expected numbers or names"):
        jp.plots.decision_boundary(fit, x, y, features=(0, 1.0))


def test_a_fit_is_shown_with_the_name_of_its_status():
    x, y = table()
    assert "status=CONVERGED, log_likelihood=" in repr(jp.fit(logistic.model(), x, y))
    seen = []
    jax.jit(lambda c: seen.append(repr(jp.fit(logistic.model(), x, y, weights=c))) or c)(1.0 * y)
    assert "status=" in seen[0]
