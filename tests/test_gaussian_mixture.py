"""Gaussian mixtures against other libraries, enumeration, and what is known of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats
from scipy.special import logsumexp
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from tolerances import EIGHT_DIGITS, EPS

import jaxprob as jp
from jaxprob.many import cross_validate, fit_many, mixture_search, restarts
from jaxprob.models import gaussian_mixture as gm
from jaxprob.solvers import em, lbfgs, minibatch_em, newton

SKLEARN = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
PRECISE = em(tol=1e-16, max_steps=10_000)


def clusters(seed, n=300, d=3, k=3):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = rng.standard_normal((n, d)) * np.linspace(0.5, 1.5, d) @ turn
    return x + 4.0 * (np.arange(n) % k)[:, None]


def log_density(params, x):
    """By SciPy, for full covariances and complete examples."""
    parts = [
        np.log(w) + stats.multivariate_normal(m, s).logpdf(x)
        for w, m, s in zip(params.weights, params.means, params.covariances, strict=True)
    ]
    return logsumexp(np.stack(parts), axis=0)


@pytest.mark.parametrize("covariance", gm.COVARIANCES)
def test_a_fit_is_that_of_scikit_learn_from_the_same_start(covariance, x64):
    x = clusters(0)
    model = gm.model(3, covariance)
    start = model.init(jax.random.key(1), jnp.asarray(x))
    fit = jp.fit(model, x, init=start, solver=PRECISE)
    precision = np.linalg.inv(np.asarray(start.covariances))
    precision = {
        "full": precision,
        "tied": precision[0],
        "diagonal": np.diagonal(precision, axis1=1, axis2=2),
        "spherical": precision[:, 0, 0],
    }[covariance]
    other = GaussianMixture(
        3,
        covariance_type=SKLEARN[covariance],
        tol=1e-14,
        max_iter=10_000,
        reg_covar=0,
        weights_init=np.asarray(start.weights),
        means_init=np.asarray(start.means),
        precisions_init=precision,
    ).fit(x)
    assert jp.Status(int(fit.status)).name == "CONVERGED"
    np.testing.assert_allclose(fit.params.means, other.means_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fit.params.weights, other.weights_, rtol=0, atol=1e-6)
    assert abs(float(fit.log_likelihood) / len(x) - other.score(x)) <= EIGHT_DIGITS
    r = jnp.exp(model.predict.log_proba(fit.params, jnp.asarray(x)))
    np.testing.assert_allclose(r, other.predict_proba(x), rtol=0, atol=1e-6)


def test_the_density_of_a_tiny_mixture_is_that_over_all_assignments(x64):
    """Σ over all K^n assignments of n examples to components, by SciPy."""
    x = jnp.asarray(clusters(3, n=5, d=2, k=2))
    params = gm.init(jax.random.key(0), x, num_components=2)
    normal = [
        stats.multivariate_normal(m, s)
        for m, s in zip(params.means, params.covariances, strict=True)
    ]
    each = [
        sum(np.log(params.weights[k]) + normal[k].logpdf(x[i]) for i, k in enumerate(ks))
        for ks in itertools.product(range(2), repeat=5)
    ]
    got = float(gm.log_likelihood(params, x))
    assert abs(got - logsumexp(each)) <= 64 * EPS["float64"] * abs(got) * 5


def test_missing_entries_are_integrated_out(x64):
    """Against marginals by SciPy, row by row."""
    rng = np.random.default_rng(0)
    x = clusters(4, n=60)
    params = gm.init(jax.random.key(0), jnp.asarray(x), num_components=3)
    holes = np.where(rng.uniform(size=x.shape) < 0.4, np.nan, x)
    for row in holes:
        seen = ~np.isnan(row)
        parts = [
            np.log(w)
            + (stats.multivariate_normal(m[seen], s[np.ix_(seen, seen)]).logpdf(row[seen])
               if seen.any() else 0.0)
            for w, m, s in zip(*map(np.asarray, (params.weights, params.means, params.covariances)),
                               strict=True)
        ]  # fmt: skip
        got = float(gm.log_prob(params, jnp.asarray(row), missing=True))
        assert abs(got - logsumexp(parts)) <= 1e-11 * (1 + abs(got))
    whole = gm.log_likelihood(params, jnp.asarray(x), missing=True)
    assert abs(float(whole - gm.log_likelihood(params, jnp.asarray(x)))) <= 1e-10 * abs(whole)


def test_missing_entries_are_expected_exactly(x64):
    """One component: EM finds the maximum, where the gradient by jax.grad vanishes."""
    rng = np.random.default_rng(1)
    x = rng.multivariate_normal([1.0, -1.0], [[1.0, 0.8], [0.8, 2.0]], size=400)
    x[rng.uniform(size=400) < 0.5, 1] = np.nan
    model = gm.model(1, missing=True)
    fit = jp.fit(model, x, solver=PRECISE)
    grad = jax.jit(jax.grad(model.objective.log_likelihood))(fit.params, jnp.asarray(x))
    assert float(jnp.max(jnp.abs(ravel_pytree(grad)[0]))) <= 1e-6
    # Only x1 is missing, and x0 is always seen: the regression of the complete ones (Little 1976).
    seen = ~np.isnan(x[:, 1])
    slope, intercept = np.polyfit(x[seen, 0], x[seen, 1], 1)
    expected = intercept + slope * x[:, 0].mean()
    assert abs(float(fit.params.means[0, 1]) - expected) <= 1e-7
    filled = np.asarray(gm.fill_in(fit.params, jnp.asarray(x)))
    np.testing.assert_array_equal(filled[seen], x[seen])
    line = np.polynomial.Polynomial((intercept, slope))
    np.testing.assert_allclose(filled[~seen, 1], line(x[~seen, 0]), atol=1e-6)
    with pytest.raises(ValueError, match="x: expected finite numbers, got nan"):
        jp.fit(gm.model(1), x)


@pytest.mark.parametrize("covariance", gm.COVARIANCES)
@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_no_step_makes_it_worse(covariance, prior, x64):
    x = clusters(5, n=150)
    model = gm.model(4, covariance, prior_count=prior)
    start = model.init(jax.random.key(3), jnp.asarray(x))
    fit = jp.fit(model, x, init=start, trace=True, solver=em(tol=1e-9, max_steps=300))
    values = np.asarray(fit.trace.value)
    values = values[~np.isnan(values)]
    assert len(values) > 5
    assert np.all(np.diff(values) <= 8 * EPS["float64"] * np.abs(values[1:]))


@pytest.mark.parametrize("solver", [lbfgs(max_steps=500), newton()])
def test_gradients_and_em_find_the_same_maximum_from_one_start(solver, x64):
    x = clusters(6, n=200, d=2, k=2)
    model = gm.model(2)
    start = jp.fit(model, x, solver=em(max_steps=3)).params
    by_em = jp.fit(model, x, init=start, solver=PRECISE)
    other = jp.fit(model, x, init=start, solver=solver)
    assert abs(float(by_em.log_likelihood - other.log_likelihood)) <= 1e-8
    assert jp.Status(int(other.status)).name == "CONVERGED"
    np.testing.assert_allclose(other.params.covariances, by_em.params.covariances, atol=1e-5)


def test_the_gap_is_about_what_is_left(x64):
    """Over the second half of the steps: within a factor of two."""
    x = jnp.asarray(clusters(7, n=200, d=2, k=2) - 1.5 * (np.arange(200) % 2)[:, None])
    model = gm.model(2)
    start = model.init(jax.random.key(0), x)
    best = float(jp.fit(model, x, init=start, solver=PRECISE).log_likelihood)
    fit = jp.fit(model, x, init=start)
    assert 0 < best - float(fit.log_likelihood) <= 2 * float(fit.gap)
    assert "estimated to be within" in " ".join(str(jp.summary(fit)).split())


def test_components_without_weight_stay_so(x64):
    x = jnp.asarray(clusters(8, n=200, d=2, k=2))
    model, padded = gm.model(2), gm.model(5)
    start = model.init(jax.random.key(0), x)
    wide = jax.tree.map(lambda a: a[0], gm.padded_init(jax.random.key(0), x, counts=(2, 5)))
    np.testing.assert_allclose(wide.means[:2], start.means)
    fit, other = (jp.fit(m, x, init=s) for m, s in ((model, start), (padded, wide)))
    assert int(fit.num_steps) == int(other.num_steps)
    np.testing.assert_allclose(fit.log_likelihood, other.log_likelihood, rtol=1e-13)
    assert np.all(np.asarray(other.params.weights[2:]) == 0)
    np.testing.assert_allclose(other.params.covariances[:2], fit.params.covariances, rtol=1e-9)


def test_a_component_on_a_point_has_collapsed(dtype):
    x = np.concatenate([np.zeros((5, 2)), clusters(9, n=50, d=2, k=1) + 8]).astype(dtype)
    start = gm.init(None, jnp.asarray(x), num_components=2)
    fit = jp.fit(gm.model(2), x, init=start)
    assert jp.Status(int(fit.status)).name == "COLLAPSED"
    assert np.isfinite(float(fit.log_likelihood))
    assert "add prior_count" in " ".join(str(jp.summary(fit)).split())
    held = jp.fit(gm.model(2, prior_count=1.0), x, init=start)
    assert jp.Status(int(held.status)).name == "CONVERGED"
    constant = np.ones((20, 1), dtype)
    assert jp.Status(int(jp.fit(gm.model(1), constant).status)).name == "COLLAPSED"


def test_narrow_components_far_apart_lose_no_digits(dtype):
    """σ = 1e-3 at a distance of 1e3 (1 in float32 of 30): as if each were alone, at the origin."""
    sigma, far = (1e-3, 1e3) if dtype == "float64" else (1e-2, 30.0)
    rng = np.random.default_rng(0)
    # Steps that every number of the dtype has at this distance, so that moving loses nothing.
    step = 2.0 ** np.ceil(np.log2(far * EPS[dtype]))
    near = np.round(rng.standard_normal((400, 2)) * sigma / step) * step
    x = near + far * (np.arange(400)[:, None] % 2)
    fit = jp.fit(gm.model(2), x.astype(dtype))
    assert jp.Status(int(fit.status)).name == "CONVERGED"
    order = np.argsort(np.asarray(fit.params.means[:, 0]))
    for k, part in zip(order, (near[::2], near[1::2]), strict=True):
        expected = np.cov(part.T, bias=True)
        got = np.asarray(fit.params.covariances[k], float)
        tolerance = 2e-9 if dtype == "float64" else 5e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * sigma**2)


@pytest.mark.parametrize("d", [2, 12])
def test_many_columns_are_as_few(d, dtype):
    """Products written out, and by matrices, against SciPy."""
    x = clusters(10, n=50, d=d)
    params = gm.init(None, jnp.asarray(x, dtype), num_components=2)
    got = jax.jit(jax.vmap(gm.log_prob, (None, 0)))(params, jnp.asarray(x, dtype))
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    np.testing.assert_allclose(got, log_density(wide, x), rtol=1e4 * EPS[dtype], atol=0)


def test_marginals_and_conditionals_are_those_of_the_joint_density(x64):
    x = clusters(11, d=4)
    for covariance in gm.COVARIANCES:
        params = jp.fit(gm.model(3, covariance), x).params
        some = jnp.asarray(x[5])
        given, rest = [3, 1], [0, 2]
        of_given = gm.log_prob(gm.marginal(params, given), some[jnp.array(given)])
        of_rest = gm.log_prob(gm.conditional(params, given, some[jnp.array(given)]),
                              some[jnp.array(rest)])  # fmt: skip
        whole = float(gm.log_prob(params, some))
        assert abs(float(of_given + of_rest) - whole) <= 1e-9 * (1 + abs(whole))
    with pytest.raises(ValueError, match=r"columns: expected different columns among 0\.\.3"):
        gm.marginal(params, [1, 1])
    with pytest.raises(ValueError, match="columns: expected fewer than 4"):
        gm.conditional(params, [0, 1, 2, 3], np.zeros(4))


def test_a_search_knows_how_many_components_iris_has(x64):
    """Two full ones, BIC 574.0178: the published result of mclust for model VVV (Fraley, 1999)."""
    x = load_iris().data
    found = mixture_search(x, jax.random.key(0), components=(1, 2, 3),
                           covariances=("full", "tied"), num_starts=5)  # fmt: skip
    best = found.best()
    assert best.params.means.shape == (2, 4)
    assert abs(found.bic[0, 1] - 574.0178) <= 1e-3
    other = GaussianMixture(2, n_init=5, tol=1e-10, max_iter=1000, random_state=0).fit(x)
    assert abs(found.bic[0, 1] - other.bic(x)) <= 1e-3
    assert "← best BIC ICL" in str(found)
    assert jp.summary(best).log_likelihood == float(best.log_likelihood)
    each = best.model.predict.log_proba(best.params, jnp.asarray(x))
    entropy = -float(jnp.sum(jnp.exp(each) * each))
    assert abs(found.icl[0, 1] - found.bic[0, 1] - 2 * entropy) <= 1e-9
    with pytest.raises(ValueError, match="criterion: expected one of"):
        found.best("mdl")
    with pytest.raises(ValueError, match=r"num_components: expected an integer of at least 1"):
        mixture_search(x, jax.random.key(0), components=(0, 1))


def test_a_search_counts_what_collapsed(x64):
    x = np.concatenate([np.zeros((4, 1)), np.linspace(5, 9, 40)[:, None]])
    found = mixture_search(x, jax.random.key(0), components=(1, 2), num_starts=3)
    assert (found.status[0, 1] == jp.Status.COLLAPSED).all()
    assert np.isnan(found.bic[0, 1])
    assert found.best().params.means.shape == (1, 1)
    with pytest.raises(ValueError, match="no run with 2 full components converged"):
        found.fit("full", 2)


@pytest.mark.slow
def test_weights_count_in_a_search_as_repeats(x64):
    x = clusters(12, n=60, d=2, k=2)
    times = np.random.default_rng(0).integers(0, 3, 60)
    weighted = mixture_search(x, jax.random.key(0), components=(1, 2), num_starts=3, weights=times)
    repeated = mixture_search(np.repeat(x, times, axis=0), jax.random.key(0), components=(1, 2),
                              num_starts=3)  # fmt: skip
    np.testing.assert_allclose(weighted.bic, repeated.bic, rtol=1e-8)
    np.testing.assert_allclose(weighted.icl, repeated.icl, rtol=1e-6)


def test_starts_differ_and_the_best_is_known(x64):
    x = clusters(13, n=200, d=2, k=3)
    found = restarts(gm.model(3, "spherical"), x, None, jax.random.key(0), num_starts=8)
    assert len(np.unique(np.round(np.asarray(found.fits.params.means[:, 0, 0]), 6))) > 1
    assert found.times_found(within=1e-3) >= 1
    assert float(found.best.log_likelihood) == float(jnp.max(found.fits.log_likelihood))


def test_starts_give_examples_without_weight_no_chance(x64):
    x = jnp.concatenate([jnp.zeros((10, 1)), 100 + jnp.arange(10.0)[:, None]])
    weights = jnp.where(jnp.arange(20) < 10, 0.0, 1.0)
    for start in gm.STARTS:
        for seed in range(5):
            params = gm.init(jax.random.key(seed), x, weights, num_components=2, start=start)
            assert float(jnp.min(params.means)) >= 100


def test_what_one_lane_has_wrong_is_its_own_status(x64):
    x = np.stack([clusters(14, n=60, d=2, k=2)] * 3)
    x[1, 0, 0] = np.nan
    x[2] = 1.0
    fits = fit_many(gm.model(2), x)
    names = [jp.Status(int(s)).name for s in fits.status]
    assert names == ["CONVERGED", "INVALID_INPUT", "COLLAPSED"]


def test_cross_validation_judges_by_the_density(x64):
    x = clusters(15, n=120, d=2, k=2)
    cv = cross_validate(gm.model(2), x, None, jax.random.key(0), num_folds=3)
    expected = []
    for k in range(3):
        out = cv.folds[0] == k
        params = jax.tree.map(lambda a, k=k: a[k], cv.fits.params)
        expected.append(np.mean(log_density(params, x[out])))
    np.testing.assert_allclose(cv.scores.log_likelihood[0], expected, rtol=1e-9)
    assert np.isnan(cv.scores.accuracy).all()
    assert "nan" in str(cv)


def test_batches_lead_to_the_maximum_of_all(x64):
    x = clusters(16, n=4000, d=2, k=2)
    np.random.default_rng(0).shuffle(x)
    model = gm.model(2)
    whole = jp.fit(model, x)
    batches = [x[i : i + 200] for i in range(0, 4000, 200)]
    found = minibatch_em(model, batches * 5, model.init(None, jnp.asarray(batches[0])))
    assert int(found.status) == jp.Status.MAX_STEPS
    assert int(found.num_batches) == 100
    left = float(
        whole.log_likelihood - model.objective.log_likelihood(found.params, jnp.asarray(x))
    )
    assert left <= 10  # of 4000 examples: about the standard error of as many parameters
    assert abs(float(found.log_likelihood) - float(whole.log_likelihood) / 4000) <= 0.1
    on = minibatch_em(model, batches, found)
    assert int(on.num_batches) == 120
    with pytest.raises(ValueError, match="batches: expected at least one, got none"):
        minibatch_em(model, [], found)
    with pytest.raises(ValueError, match="model: expected one with latent variables"):
        minibatch_em(jp.models.logistic.model(), batches, found)


def test_one_batch_of_everything_is_a_step(x64):
    x = jnp.asarray(clusters(17, n=100, d=2, k=2))
    model = gm.model(2)
    start = model.init(None, x)
    found = minibatch_em(model, [x], start)
    expected, _ = gm.maximise(start, gm.statistics(start, x)[1])
    np.testing.assert_allclose(flat(found.params), flat(expected), rtol=1e-9, atol=1e-12)
    again = minibatch_em(model, [np.zeros((50, 2))] * 3, found)
    assert int(again.status) in (jp.Status.COLLAPSED, jp.Status.MAX_STEPS)
    assert np.isfinite(flat(again.params)).all()


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_components": 0}, "num_components: expected an integer of at least 1, got 0"),
        ({"num_components": 2, "covariance": "diag"}, "covariance: expected one of .* got 'diag'"),
        ({"num_components": 2, "start": "k"}, "start: expected one of"),
        ({"num_components": 2, "prior_count": -1}, "prior_count: expected a number of at least 0"),
        ({"num_components": 2, "prior_scale": 0}, "prior_scale: expected a positive number, got 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        gm.model(**settings)


def test_solvers_for_other_models_are_refused():
    with pytest.raises(
        ValueError, match="something latent to expect, which logistic regression does not"
    ):
        jp.fit(jp.models.logistic.model(), [[0.0], [1.0]], [0, 1], solver=em())
    with pytest.raises(ValueError, match="max_steps: expected at least 0"):
        em(max_steps=-1)


def test_names_of_parameters():
    x = np.random.default_rng(0).standard_normal((30, 2)).astype("float32")
    for covariance in gm.COVARIANCES:
        fit = jp.fit(gm.model(2, covariance), x)
        names = jp.summary(fit).names
        assert len(names) == len(set(names)) == len(flat(fit.params))
