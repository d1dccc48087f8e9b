"""Bootstrap and jackknife, against fits one by one and against their definitions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import draw
from jax.flatten_util import ravel_pytree
from scipy import stats

import jaxprob as jp
from jaxprob.many import bootstrap, cross_validate, jackknife, restarts
from jaxprob.many.resampling import SCHEMES, multiplicities
from jaxprob.models import logistic, softmax

pytestmark = pytest.mark.usefixtures("x64")
MODEL = logistic.model()


@pytest.fixture(scope="module")
def case():
    with jax.enable_x64(True):
        return draw(MODEL, 11, n=150)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_multiplicities_have_the_moments_of_their_scheme(scheme):
    n, count = 50, 4000
    keys = jax.random.split(jax.random.key(1), count)
    m = np.asarray(jax.vmap(lambda k: multiplicities(k, n, scheme=scheme))(keys))
    variance = {"multinomial": 1 - 1 / n, "poisson": 1.0, "bayesian": (n - 1) / (n + 1)}[scheme]
    error = np.sqrt(variance / count)
    assert np.abs(m.mean(axis=0) - 1).max() < 5 * error
    assert m.var() == pytest.approx(variance, rel=0.05)
    if scheme != "poisson":
        np.testing.assert_allclose(m.sum(axis=1), n, rtol=1e-12)
    if scheme != "bayesian":
        assert set(np.unique(m)) <= set(range(15))


def test_poisson_counts_have_their_probabilities():
    m = np.asarray(multiplicities(jax.random.key(2), 200_000, scheme="poisson"))
    for k in range(5):
        p = stats.poisson.pmf(k, 1)
        assert np.mean(m == k) == pytest.approx(p, abs=5 * np.sqrt(p / len(m)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_replicate_is_the_fit_of_its_weights(case, scheme):
    key = jax.random.key(3)
    weights = case.weights + 1
    boot = bootstrap(
        MODEL, case.x, case.y, key, num_replicates=40, scheme=scheme, weights=weights, l2=0.5
    )
    keys = jax.random.split(key, 40)
    for i in (0, 17, 39):
        m = multiplicities(keys[i], len(case.y), scheme=scheme)
        one = jp.fit(MODEL, case.x, case.y, weights=m * weights, l2=0.5)
        np.testing.assert_allclose(
            boot.fits.params.weights[i], one.params.weights, rtol=1e-7, atol=1e-9
        )
        np.testing.assert_allclose(boot.fits.lane(i).source.weights, m * weights)


def test_intervals_are_the_quantiles_they_say(case):
    boot = bootstrap(MODEL, case.x, case.y, jax.random.key(4), num_replicates=300, l2=0.1)
    draws = np.asarray(boot.fits.params.weights)
    low, high = boot.interval(method="percentile", level=0.9)
    np.testing.assert_allclose(low.weights, np.quantile(draws, 0.05, axis=0))
    np.testing.assert_allclose(high.weights, np.quantile(draws, 0.95, axis=0))
    estimate = np.asarray(boot.fit.params.weights)
    low, high = boot.interval(method="basic", level=0.9)
    np.testing.assert_allclose(low.weights, 2 * estimate - np.quantile(draws, 0.95, axis=0))
    np.testing.assert_allclose(boot.standard_error().weights, draws.std(axis=0, ddof=1))
    np.testing.assert_allclose(boot.bias().weights, draws.mean(axis=0) - estimate)


def test_bca_is_the_definition_with_the_acceleration_of_the_jackknife(case):
    boot = bootstrap(MODEL, case.x, case.y, jax.random.key(5), num_replicates=2000, l2=0.1)
    draws, estimate = np.asarray(boot.fits.params.weights)[:, 0], boot.fit.params.weights[0]
    without = np.asarray(jackknife(MODEL, case.x, case.y, l2=0.1).fits.params.weights)[:, 0]
    spread = without.mean() - without
    a = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    z0 = stats.norm.ppf(np.mean(draws < float(estimate)))
    z = z0 + stats.norm.ppf([0.025, 0.975])
    expected = np.quantile(draws, stats.norm.cdf(z0 + z / (1 - a * z)))
    low, high = boot.interval(lambda params: params.weights[0])
    assert np.abs(np.array([low, high]) - expected).max() < 0.05 * (expected[1] - expected[0])


def test_a_statistic_of_several_parameters(case):
    boot = bootstrap(MODEL, case.x, case.y, jax.random.key(6), num_replicates=100, l2=0.1)

    def ratio(params):
        return {"ratio": params.weights[0] / params.weights[1]}

    w = np.asarray(boot.fits.params.weights)
    low, _ = boot.interval(ratio, method="percentile")
    assert float(low["ratio"]) == pytest.approx(np.quantile(w[:, 0] / w[:, 1], 0.025))
    assert "replicates converged" in str(boot)


def test_the_jackknife_leaves_each_example_out(case):
    left_out = jackknife(MODEL, case.x, case.y, weights=case.weights + 1, l2=0.5)
    for i in (0, 77, 149):
        weights = (case.weights + 1).at[i].set(0.0)
        one = jp.fit(MODEL, case.x, case.y, weights=weights, l2=0.5)
        np.testing.assert_allclose(
            left_out.fits.params.weights[i], one.params.weights, rtol=1e-7, atol=1e-9
        )
    n, values = 150, np.asarray(left_out.fits.params.weights)
    np.testing.assert_allclose(
        left_out.standard_error().weights, np.sqrt(n - 1) * values.std(axis=0)
    )
    bias = (n - 1) * (values.mean(axis=0) - np.asarray(left_out.fit.params.weights))
    np.testing.assert_allclose(left_out.bias().weights, bias, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_examples_without_weight_are_not_there(case, scheme):
    live = np.arange(150) % 3 > 0
    boot = bootstrap(
        MODEL,
        case.x,
        case.y,
        jax.random.key(3),
        num_replicates=40,
        scheme=scheme,
        weights=live.astype(float),
        l2=0.5,
    )
    m = np.stack([boot.fits.lane(i).source.weights for i in range(40)])
    assert not m[:, ~live].any()
    variance = {"multinomial": 0.99, "poisson": 1.0, "bayesian": 99 / 101}[scheme]
    error = np.sqrt(variance / 40)
    assert np.abs(m[:, live].mean(axis=0) - 1).max() < 5 * error
    if scheme != "poisson":
        np.testing.assert_allclose(boot.fits.total_weight, 100, rtol=1e-12)
    if scheme == "multinomial":
        assert set(np.unique(m)) <= set(range(15))


def test_the_jackknife_does_not_count_examples_without_weight(case):
    x, y, weights = (np.concatenate([a, a[:50]]) for a in (case.x, case.y, np.ones(150)))
    weights[150:] = 0
    padded = jackknife(MODEL, x, y, weights=weights, l2=0.5)
    plain = jackknife(MODEL, case.x, case.y, l2=0.5)
    for name in ("standard_error", "bias"):
        got, expected = (getattr(found, name)().weights for found in (padded, plain))
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_softmax_replicates():
    model = softmax.model(3)
    case = draw(model, 12, n=80)
    boot = bootstrap(model, case.x, case.y, jax.random.key(7), num_replicates=20, l2=1.0)
    assert boot.used.all()
    assert boot.interval().lower.weights.shape == (2, 3)


def test_replicates_that_failed_do_not_count():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 1))
    y = (x[:, 0] + rng.normal(size=14) > 0).astype(int)  # some resamples are separated
    boot = bootstrap(MODEL, x, y, jax.random.key(8), num_replicates=200)
    assert 0 < int(boot.used.sum()) < 200
    assert len(boot.statistics().weights) == int(boot.used.sum())
    assert len(boot.fits.report().failures) == 200 - int(boot.used.sum())


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"scheme": "block"}, ValueError, "scheme: expected one of"),
        ({"num_replicates": 0}, ValueError, "num_replicates: expected at least 1"),
        ({"key": 0}, TypeError, "key: expected a typed PRNG key"),
        ({"l2": -1.0}, ValueError, "l2: expected"),
    ],
)
def test_wrong_arguments(case, keywords, error, match):
    with pytest.raises(error, match=match):
        bootstrap(MODEL, case.x, case.y, **{"key": jax.random.key(0), **keywords})


def test_wrong_arguments_of_an_interval(case):
    boot = bootstrap(MODEL, case.x, case.y, jax.random.key(9), num_replicates=5, l2=1.0)
    with pytest.raises(ValueError, match="method: expected one of"):
        boot.interval(method="t")
    with pytest.raises(ValueError, match="level: expected"):
        boot.interval(level=1.0)


def test_the_weights_are_drawn_in_the_dtype_of_x():
    with jax.enable_x64(False):
        m = multiplicities(jax.random.key(0), 7, scheme="bayesian")
        assert m.dtype == jnp.float32


def test_what_needs_the_fit_of_all_examples_is_refused_without_its_optimum():
    x = np.linspace(-1, 1, 12)[:, None]
    boot = bootstrap(MODEL, x, (x[:, 0] > 0).astype(int), jax.random.key(8), num_replicates=3)
    assert boot.fit.status == jp.Status.SEPARATED
    assert "SEPARATED" in str(boot)
    some = replace(boot, fits=replace(boot.fits, status=jnp.zeros(3, jnp.int32)))
    for ask in (some.interval, some.bias, lambda: some.interval(method="basic")):
        with pytest.raises(ValueError, match="fit: expected one at an optimum, got status SEPA"):
            ask()
    assert "SEPARATED" in str(some)
    assert str(some).endswith("intervals are percentiles")


def test_a_bootstrap_with_l1_is_shown_by_percentiles(case):
    boot = bootstrap(MODEL, case.x, case.y, jax.random.key(0), num_replicates=5, l1=1.0)
    assert str(boot).endswith("intervals are percentiles")
    with pytest.raises(ValueError, match="without l1"):
        boot.interval()


MODELS = {
    "knn": jp.models.knn_classifier.model(2),
    "tree": jp.models.decision_tree.model(2, depth=1),
    "kernel density": jp.models.kernel_density.model(),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_has_no_derivative_is_shown_by_percentiles(name):
    model, rng = MODELS[name], np.random.default_rng(0)
    x, y = rng.standard_normal((30, 2)), np.arange(30) % 2
    boot = bootstrap(
        model, x, y if model.variables.y else None, jax.random.key(0), num_replicates=5
    )
    assert "5 of 5 replicates converged" in str(boot)
    assert str(boot).endswith("intervals are percentiles")


def test_the_table_of_a_jackknife(case):
    left_out = jackknife(MODEL, case.x, case.y, l2=0.5)
    lines = str(left_out).splitlines()
    assert lines[0] == "jackknife: 150 of 150 fits converged"
    assert len(lines) == 2 + len(ravel_pytree(left_out.fit.params)[0])
    low, high = left_out.interval(level=0.9)
    width = 2 * stats.t.ppf(0.95, 149) * np.asarray(left_out.standard_error().weights)
    np.testing.assert_allclose(high.weights - low.weights, width, rtol=1e-6)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 95"):
        left_out.interval(level=95)
    x = np.linspace(-1, 1, 12)[:, None]
    said = str(jackknife(MODEL, x, (x[:, 0] > 0).astype(int)))
    assert said.startswith("jackknife: 0 of 12 fits converged\nno standard errors: ")


def test_many_fits_are_shown_by_their_number(case):
    fits = jp.fit_many(MODEL, case.x, case.y, l2=np.array([1.0, 2.0, 3.0]))
    assert repr(fits) == "Fit(3 fits of logistic regression: 3 CONVERGED)"


def test_firth_in_every_function():
    """Separated data, of which no fit is finite without it."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((24, 1))
    y, key = (x[:, 0] > 0).astype(int), jax.random.key(0)
    alone = jp.fit(MODEL, x, y, firth=True)
    boot = bootstrap(MODEL, x, y, key, num_replicates=10, firth=True)
    assert boot.used.all()
    np.testing.assert_allclose(boot.fit.params.weights, alone.params.weights, rtol=1e-12)
    lane = boot.fits.lane(3)
    again = jp.fit(MODEL, x, y, weights=lane.source.weights, firth=True)
    np.testing.assert_allclose(lane.params.weights, again.params.weights, rtol=1e-6)
    left_out = jackknife(MODEL, x, y, firth=True)
    assert left_out.fits.usable.all()
    cv = cross_validate(MODEL, x, y, key, num_folds=3, firth=True)
    assert not cv.failures()
    without = jp.fit(MODEL, x, y, weights=(cv.folds[0] != 1).astype(float), firth=True)
    np.testing.assert_allclose(cv.fits.lane(1).params.weights, without.params.weights, rtol=1e-6)
    several = restarts(MODEL, x, y, key, num_starts=3, firth=True)
    assert several.fits.usable.all()
    np.testing.assert_allclose(several.best.params.weights, alone.params.weights, rtol=1e-6)
    with pytest.raises(ValueError, match="firth: expected no l1 with it"):
        cross_validate(MODEL, x, y, key, l1=1.0, firth=True)
