"""Kernel densities as models: rules, bounds, conditionals, and bandwidths by leaving out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from tolerances import EPS, SAME_SUM

import jaxprob as jp
from jaxprob.many import bootstrap, cross_validate, fit_many
from jaxprob.models import kernel_density as kd
from jaxprob.models import kernels

KERNELS = kernels.KERNELS


def points(n=60, d=2, *, seed=0, dtype="float64"):
    """Two clusters."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((n, d)) + 3.0 * (np.arange(n)[:, None] % 2), dtype)


def counts(n=60, *, seed=0):
    """Some of them zero."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, 4, n) / 2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bounds", [None, (-3.0, None), ((-3.0, 8.0), (None, 8.0))])
def test_many_log_densities_are_those_of_one_at_a_time(x64, kernel, bounds):
    x, w, params = points(), counts(), kd.of_bandwidth(jnp.array([1.0, 0.7]))
    queries = jnp.concatenate([x[:10], jnp.array([[-3.5, 0.0], [-3.0, 8.0], [8.5, 9.0]])])
    settings = {
        "kernel": kernel,
        "bounds": kd.model(kernel, bounds=bounds).log_prob.settings["bounds"],
    }
    many = kd.log_density(params, queries, x, w, **settings)
    for q, got in zip(queries, many, strict=True):
        one = kd.log_prob(params, q, x, w, **settings)
        np.testing.assert_allclose(got, one, rtol=1e-13, atol=1e-13)


def test_log_prob_is_a_mixture_of_normal_densities(dtype):
    x, w = points(dtype=dtype), counts().astype(dtype)
    h = jnp.array([[0.5, 0.2], [0.2, 0.3]], dtype)
    params = kd.of_bandwidth(h)
    shares = np.asarray(w, np.float64) / float(w.sum())
    for at in ([0.0, 1.0], [4.0, 2.0]):
        each = [multivariate_normal(np.asarray(p, np.float64), np.asarray(h)).pdf(at) for p in x]
        got = float(kd.log_prob(params, jnp.array(at, dtype), x, w))
        assert abs(got - np.log(shares @ each)) <= 100 * EPS[dtype] * (1 + abs(got))


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
def test_the_gradient_by_hand_is_that_of_jax(x64, kernel):
    x, params = points(), kd.of_bandwidth(jnp.array([1.3, 0.9]))
    queries = points(8, seed=1)
    one = jax.grad(kd.log_prob, argnums=1)
    expected = jax.vmap(lambda q: one(params, q, x, kernel=kernel))(queries)
    got = kd.grad_log_density(params, queries, x, kernel=kernel)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_bandwidths_come_back(dtype):
    h = jnp.array([[0.5, 0.2], [0.2, 0.3]], dtype)
    tolerance = {"rtol": 20 * EPS[dtype], "atol": 20 * EPS[dtype]}
    np.testing.assert_allclose(kd.covariance(kd.of_bandwidth(h), 2), h, **tolerance)
    each = kd.covariance(kd.of_bandwidth(jnp.array([0.5, 2.0], dtype)), 2)
    np.testing.assert_allclose(each, np.diag([0.25, 4.0]), **tolerance)
    one = kd.covariance(kd.of_bandwidth(jnp.asarray(0.5, dtype)), 3)
    np.testing.assert_allclose(one, 0.25 * np.eye(3), **tolerance)
    with pytest.raises(ValueError, match="bandwidth: expected shape"):
        kd.of_bandwidth(jnp.ones((2, 3)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d", [1, 3])
def test_samples_are_as_far_from_their_points_as_kernels_are_wide(x64, kernel, d):
    """E ‖u‖² of each kernel, by integrals in polar coordinates."""
    factor, h, num = 1.0, 0.5, 40_000
    expected = {"gaussian": d, "epanechnikov": d / (d + 4), "tophat": d / (d + 2)}
    factor = expected.get(kernel, d * (d + 1))
    drawn = kd.sample(kd.of_bandwidth(h), jax.random.key(0), num, jnp.zeros((1, d)), kernel=kernel)
    squares = np.sum(np.asarray(drawn) ** 2, axis=1)
    error = np.std(squares) / np.sqrt(num)
    assert abs(squares.mean() - factor * h**2) <= 5 * error
    assert np.all(np.abs(drawn.mean(axis=0)) <= 5 * np.std(drawn, axis=0) / np.sqrt(num))


def test_samples_come_from_points_in_proportion_to_weights(x64):
    x, w = jnp.array([[0.0], [10.0], [20.0]]), jnp.array([1.0, 0.0, 3.0])
    drawn = np.asarray(kd.sample(kd.of_bandwidth(0.1), jax.random.key(0), 4000, x, w))
    assert not np.any(np.abs(drawn - 10) < 5)
    assert abs(np.mean(drawn > 10) - 0.75) <= 5 * np.sqrt(0.75 * 0.25 / 4000)


def test_samples_stay_inside_of_bounds(x64):
    x, bounds = jnp.array([[0.1], [0.9]]), ((0.0, 1.0),)
    drawn = kd.sample(kd.of_bandwidth(0.8), jax.random.key(0), 1000, x, bounds=bounds)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1


def test_a_reflected_density_is_flat_at_its_bound(x64):
    x = jnp.abs(points(d=1))
    params, bounds = kd.of_bandwidth(0.6), ((0.0, None),)
    slope = jax.grad(kd.log_prob, argnums=1)(params, jnp.zeros(1), x, bounds=bounds)
    assert abs(float(slope[0])) <= 1e-12
    assert float(kd.log_prob(params, -jnp.ones(1), x, bounds=bounds)) == -np.inf


def test_what_is_given_and_what_is_left_make_the_whole(x64):
    x, w = points(d=3), counts()
    rng = np.random.default_rng(1)
    root = rng.standard_normal((3, 3))
    params = kd.of_bandwidth(jnp.asarray(root @ root.T + np.eye(3)))
    for given, rest in (([1], [0, 2]), ([2, 0], [1])):
        at = jnp.asarray(rng.standard_normal(3))
        whole = kd.log_prob(params, at, x, w)
        some, seen = kd.marginal(params, x, given)
        before = kd.log_prob(some, at[np.array(given)], seen, w)
        left, moved, shares = kd.conditional(params, x, given, at[np.array(given)], w)
        after = kd.log_prob(left, at[np.array(rest)], moved, shares)
        assert abs(float(whole - before - after)) <= 1e-12 * abs(float(whole))
    with pytest.raises(ValueError, match="columns: expected fewer than 3"):
        kd.conditional(params, x, [0, 1, 2], jnp.zeros(3))


def test_conditioning_far_away_keeps_its_shares(x64):
    x = jnp.array([[0.0, 1.0], [1.0, 2.0]])
    _, _, shares = kd.conditional(kd.of_bandwidth(0.1), x, [0], jnp.array([1000.0]))
    assert shares.tolist() == [0.0, 1.0]


def test_an_estimate_on_a_grid_is_the_density(x64):
    x, params = points(500, 1), kd.of_bandwidth(0.4)
    queries = jnp.linspace(-3, 6, 50)[:, None]
    grid = kd.on_grid(params, x, tolerance=1e-8)
    exact = jnp.exp(kd.log_density(params, queries, x))
    assert float(jnp.max(jnp.abs(kd.interpolate(grid, queries) - exact))) <= 1e-8 / 0.4
    with pytest.raises(ValueError, match="points: expected at most 3 columns, got 4"):
        kd.on_grid(params, jnp.ones((5, 4)))


@pytest.mark.parametrize("bandwidth", ["diagonal", "full"])
def test_a_fit_is_no_worse_than_that_of_statsmodels(x64, bandwidth):
    from statsmodels.nonparametric.kernel_density import KDEMultivariate

    x = points(80)
    theirs = KDEMultivariate(np.asarray(x), "cc", bw="cv_ml", rng=np.random.default_rng(0))
    at = kd.of_bandwidth(jnp.asarray(theirs.bw))
    value = float(kd.log_likelihood(at, x))
    expected = -theirs.loo_likelihood(theirs.bw, np.log) - 80 * np.log(79)
    assert abs(value - expected) <= 1e-12 * abs(value)
    found = jp.fit(kd.model(bandwidth=bandwidth), x)
    assert int(found.status) == jp.Status.CONVERGED
    assert float(found.log_likelihood) >= value
    if bandwidth == "diagonal":
        np.testing.assert_allclose(jnp.exp(found.params.log_scale), theirs.bw, rtol=1e-3)


def test_held_out_folds_are_scored_by_the_others(x64):
    x, w = points(), counts() + 0.5
    cv = cross_validate(kd.model(), x, None, jax.random.key(0), num_folds=3, weights=w)
    for k in range(3):
        own = cv.folds[0] == k
        params = jax.tree.map(lambda a, k=k: a[k], cv.fits.params)
        each = kd.log_density(params, x[own], x[~own], w[~own])
        expected = float(jnp.sum(w[own] * each) / jnp.sum(w[own]))
        assert abs(float(cv.scores.log_likelihood[0, k]) - expected) <= 1e-12 * abs(expected)


def test_bootstrap_finds_bandwidths_that_are_not_zero(x64):
    """An example that is drawn twice is left out twice."""
    x = points(d=1)
    found = jp.fit(kd.model(), x)
    made = bootstrap(kd.model(), x, None, jax.random.key(0), num_replicates=20)
    assert np.all(np.asarray(made.fits.status) == jp.Status.CONVERGED)
    away = made.fits.params.log_scale - found.params.log_scale[None]
    assert float(jnp.max(jnp.abs(away))) < 1.5


def test_what_has_no_best_bandwidth_says_so(x64):
    x = points(20, 1)
    constant = jnp.concatenate([x, jnp.ones_like(x)], axis=1)
    for bad in (x[:1], jnp.repeat(x, 2, axis=0), constant, jnp.ones((5, 1))):
        found = jp.fit(kd.model(), bad)
        assert int(found.status) != jp.Status.CONVERGED
        assert "bandwidth has no best value" in jp.report(found).failures[0].reason
    lanes = fit_many(kd.model(), jnp.stack([x, jnp.ones_like(x)]))
    assert lanes.status.tolist()[0] == jp.Status.CONVERGED
    assert lanes.status.tolist()[1] != jp.Status.CONVERGED


def test_a_top_hat_has_no_gradient_that_leads_to_a_bandwidth(x64):
    found = jp.fit(kd.model("tophat"), points())
    assert int(found.status) != jp.Status.CONVERGED


def test_compact_kernels_start_where_all_reach_another(dtype):
    x = jnp.concatenate([points(30, dtype=dtype), jnp.full((1, 2), 40.0, dtype)])
    for kernel in kernels.COMPACT:
        for w in (None, jnp.ones(31, dtype).at[3].set(0.0)):
            start = kd.init(None, x, w, kernel=kernel)
            assert np.isfinite(kd.log_likelihood(start, x, w, kernel=kernel))


def test_a_summary_knows_what_a_bandwidth_is(x64):
    text = str(jp.summary(jp.fit(kd.model(), points())))
    assert "log_scale[x1]" in text
    assert "bootstrap" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "box"}, "kernel: expected one of"),
        ({"bandwidth": "wide"}, "bandwidth: expected one of"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected the lowest below the highest"),
        ({"bounds": 3.0}, "bounds: expected a pair"),
        ({"bounds": (1.0, 2.0, 3.0)}, "bounds: expected a pair"),
        ({"bounds": [(0.0, 1.0)] * 7}, "bounds: expected at most 729 mirror images, got 2187"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        kd.model(**settings)


def test_bounds_are_those_of_the_columns():
    with pytest.raises(ValueError, match="bounds: expected one pair, or one for each of 3 columns"):
        jp.fit(kd.model(bounds=[(0.0, 1.0), (0.0, 1.0)]), jnp.full((5, 3), 0.5))
    assert kd.model(bounds=(None, np.inf)) == kd.model()
    assert kd.model(bounds=(0, 1)) == kd.model(bounds=[[0.0, 1.0]])


def test_weights_are_repeats_of_points(x64):
    x, times = points(12), np.random.default_rng(0).integers(0, 4, 12)
    params, queries = kd.of_bandwidth(0.7), points(5, seed=2)
    weighted = kd.log_density(params, queries, x, jnp.asarray(times, float))
    repeated = kd.log_density(params, queries, jnp.repeat(x, times, axis=0))
    np.testing.assert_allclose(weighted, repeated, rtol=SAME_SUM["float64"], atol=1e-13)
