"""Linear regression, against statsmodels, exact arithmetic, and the conditions of an optimum."""

import warnings
from dataclasses import replace
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from jax.flatten_util import ravel_pytree
from tolerances import EIGHT_DIGITS, EPS

import jaxprob as jp
from jaxprob import many, sensitivity
from jaxprob.models import linear
from jaxprob.testing import assert_gradients_match, assert_hessians_match

N, D = 200, 4


def drawn(seed=0, n=N):
    """Features of several units, one of them far from zero, with weights and offsets."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D)) * [1, 10, 0.1, 1] + [0, 2000, 0, 5]
    offset = rng.standard_normal(n)
    y = x @ [1.0, 0.2, 3.0, 0.0] + 2 + offset + rng.standard_normal(n) / 2
    return x, y, rng.integers(0, 4, n), offset


def name(fit):
    return jp.Status(int(fit.status)).name


def coefficients(fit):
    """The bias first, as statsmodels has it."""
    return np.append(fit.params.bias, fit.params.weights)


def test_a_fit_is_that_of_statsmodels(x64):
    x, y, times, offset = drawn()
    fit = jp.fit(linear.model(), x, y, weights=times, offset=offset)
    again, wanted = np.repeat(x, times, axis=0), np.repeat(y - offset, times)
    peer = sm.OLS(wanted, sm.add_constant(again)).fit()
    n = len(wanted)
    assert name(fit) == "CONVERGED"
    np.testing.assert_allclose(coefficients(fit), peer.params, rtol=EIGHT_DIGITS)
    np.testing.assert_allclose(float(fit.log_likelihood), peer.llf, rtol=EIGHT_DIGITS)
    null = sm.OLS(wanted, np.ones(n)).fit().llf
    np.testing.assert_allclose(float(fit.null_log_likelihood), null, rtol=EIGHT_DIGITS)
    scale = np.sqrt(peer.ssr / n)
    np.testing.assert_allclose(float(jnp.exp(fit.params.log_scale)), scale, rtol=EIGHT_DIGITS)
    table = jp.summary(fit)
    errors = np.append(table.standard_error[-2], table.standard_error[:-2])
    by_likelihood = peer.bse * np.sqrt(peer.df_resid / n)
    np.testing.assert_allclose(errors, by_likelihood, rtol=EIGHT_DIGITS)
    np.testing.assert_allclose(table.standard_error[-1], 1 / np.sqrt(2 * n), rtol=EIGHT_DIGITS)
    assert table.names == ("x0", "x1", "x2", "x3", "bias", "log_scale")
    assert table.num_params == 6


def test_without_a_bias_it_is_that_of_statsmodels_too(x64):
    x, y, times, _ = drawn(1)
    fit = jp.fit(linear.model(bias=False), x, y, weights=times)
    peer = sm.OLS(np.repeat(y, times), np.repeat(x, times, axis=0)).fit()
    np.testing.assert_allclose(fit.params.weights, peer.params, rtol=EIGHT_DIGITS)
    np.testing.assert_allclose(float(fit.log_likelihood), peer.llf, rtol=EIGHT_DIGITS)


def exact(rows, wanted):
    """Least squares of integers, as fractions."""
    p = len(rows[0])
    a = [[Fraction(sum(r[i] * r[j] for r in rows)) for j in range(p)] for i in range(p)]
    b = [Fraction(sum(r[i] * w for r, w in zip(rows, wanted, strict=True))) for i in range(p)]
    for i in range(p):
        for k in range(p):
            if k != i:
                share = a[k][i] / a[i][i]
                a[k] = [u - share * v for u, v in zip(a[k], a[i], strict=True)]
                b[k] -= share * b[i]
    return np.array([float(b[i] / a[i][i]) for i in range(p)])


def test_nearly_dependent_columns_keep_the_digits_that_squares_lose(x64):
    """Powers of 0..20, whose Gram matrix has a condition of 1e13 after scaling."""
    powers = [[t**k for k in range(1, 7)] for t in range(21)]
    noise = np.random.default_rng(0).integers(-1000, 1000, 21)
    y = [sum(row) + int(e) for row, e in zip(powers, noise, strict=True)]
    fit = jp.fit(linear.model(), np.array(powers, float), np.array(y, float))
    assert name(fit) == "CONVERGED"
    wanted = exact([[1, *row] for row in powers], y)
    np.testing.assert_allclose(coefficients(fit), wanted, rtol=EIGHT_DIGITS)


def test_features_far_from_zero_keep_their_digits_in_float32():
    rng = np.random.default_rng(2)
    years = rng.integers(1990, 2030, N).astype("float32")
    y = (3.0 * (years - 2010) + rng.standard_normal(N)).astype("float32")
    fit = jp.fit(linear.model(), years[:, None], y)
    peer = sm.OLS(y.astype(float), sm.add_constant(years.astype(float))).fit()
    np.testing.assert_allclose(fit.params.weights, peer.params[1:], rtol=1e-5)
    table = jp.summary(fit)
    error = peer.bse[1] * np.sqrt(peer.df_resid / N)
    np.testing.assert_allclose(table.standard_error[0], error, rtol=1e-4)


def test_statistics_of_parts_are_those_of_the_whole(x64):
    x, y, times, offset = drawn(3)
    params = linear.Params(jnp.array([0.9, 0.2, 2.0, 0.3]), jnp.array(1.0), jnp.array(0.3))
    c = jnp.asarray(times, float)
    whole = linear.statistics(x, jnp.asarray(y), c, offset=offset)
    parts = [
        linear.statistics(x[s], y[s], np.asarray(c)[s], offset=offset[s])
        for s in (slice(0, 3), slice(3, 90), slice(90, 200))
    ]
    merged = linear.merge(linear.merge(parts[0], parts[1]), parts[2])
    value, grad = linear.log_likelihood_and_grad(params, x, jnp.asarray(y), c, offset=offset)
    size = np.abs(x).max() ** 2 * N
    for known in (whole, merged):
        got, slope = linear.of_statistics(params, known)
        np.testing.assert_allclose(float(got), float(value), rtol=1e-12)
        for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(grad), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * size)
        found = linear.estimate(known).params
        for a, b in zip(found, linear.estimate(whole).params, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("far", [0.0, 2000.0])
def test_dependent_columns_are_singular(far, dtype):
    x, y, _, _ = drawn(4)
    x = (x + far).astype(dtype)
    dependent = 2 * x[:, :1] - x[:, 1:2]
    constant = np.full((N, 1), 7.3, dtype)
    for more in (dependent, constant, x[:, :1]):
        fit = jp.fit(linear.model(), np.concatenate([x, more], axis=1), y.astype(dtype))
        assert name(fit) == "SINGULAR"
        alone = jp.fit(linear.model(), x, y.astype(dtype))
        error = 1e3 * EPS[dtype] * abs(float(alone.log_likelihood)) * (1 + far)
        assert abs(float(fit.log_likelihood - alone.log_likelihood)) <= error
    nothing = np.concatenate([x, 0 * constant], axis=1)
    zeros = jp.fit(linear.model(bias=False), nothing, y.astype(dtype))
    assert name(zeros) == "SINGULAR"


def test_independent_columns_are_not(dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((30, 8)) * 10.0 ** rng.uniform(-6, 6, 8)
        y = rng.standard_normal(30) * 10.0 ** rng.uniform(-6, 6)
        assert name(jp.fit(linear.model(), x.astype(dtype), y.astype(dtype))) == "CONVERGED"


def test_residuals_of_zero_are_collapsed(dtype):
    x, y, times, _ = drawn(5)
    x, y = x.astype(dtype), y.astype(dtype)
    for line in (x[:, 0] + x[:, 1], 3 * x[:, 0] - 7, np.full(N, 2.5, dtype)):
        fit = jp.fit(linear.model(), x, line, weights=times)
        assert name(fit) == "COLLAPSED"
        assert float(fit.direction.log_scale) == -1
        assert np.isinf(fit.gap)
        assert "shrink for ever" in str(jp.summary(fit))


def test_no_more_examples_than_parameters_are_collapsed(dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, D + 2))
        x, y = rng.standard_normal((n, D)), rng.standard_normal(n)
        settings = {"l2": 1.0} if seed % 2 else {}
        fit = jp.fit(linear.model(), x.astype(dtype), y.astype(dtype), **settings)
        assert name(fit) == "COLLAPSED"
    repeated = np.repeat(x, 3, axis=0), rng.standard_normal(3 * n)
    assert name(jp.fit(linear.model(), *(a.astype(dtype) for a in repeated))) != "COLLAPSED"


@pytest.mark.parametrize("l2", [1e-6, 1.0, 100.0, 1e9])
def test_a_ridge_fit_meets_its_conditions(l2, x64):
    """The weights are those of ridge with l2 σ², and σ² is the mean square of the residuals."""
    x, y, times, offset = drawn(6)
    fit = jp.fit(linear.model(), x, y, weights=times, offset=offset, l2=l2)
    assert name(fit) == "CONVERGED"
    w, b, log_scale = fit.params
    variance = np.exp(2 * float(log_scale))
    rest = y - offset - x @ np.asarray(w) - float(b)
    np.testing.assert_allclose(variance, times @ rest**2 / times.sum(), rtol=1e-9)
    z = x - times @ x / times.sum()
    gram, wanted = z.T @ (times[:, None] * z), z.T @ (times * (y - offset))
    ridge = np.linalg.solve(gram + l2 * variance * np.eye(D), wanted)
    np.testing.assert_allclose(w, ridge, rtol=1e-7)
    assert "estimated to be within" in str(jp.summary(fit))


@pytest.mark.parametrize("l2", [None, 5.0])
def test_a_lasso_fit_meets_its_conditions(l2, x64):
    x, y, times, _ = drawn(7)
    l1 = 20.0
    fit = jp.fit(linear.model(), x, y, weights=times, l1=l1, l2=l2)
    assert name(fit) == "CONVERGED"
    w, b, log_scale = fit.params
    variance = np.exp(2 * float(log_scale))
    rest = y - x @ np.asarray(w) - float(b)
    np.testing.assert_allclose(variance, times @ rest**2 / times.sum(), rtol=1e-6)
    slope = (x - x.mean(axis=0)).T @ (times * rest) / variance - (l2 or 0.0) * np.asarray(w)
    zero = np.asarray(w) == 0
    assert zero.any()
    assert not zero.all()
    assert np.all(np.abs(slope[zero]) <= l1)
    np.testing.assert_allclose(slope[~zero], l1 * np.sign(w)[~zero], rtol=1e-4)


def test_derivatives_at_fits_are_right(dtype):
    x, y, times, offset = (jnp.asarray(a, dtype) for a in drawn(8, n=30))
    x = x - jnp.mean(x, axis=0)[None, :]
    fit = jp.fit(linear.model(), x, y, weights=times, offset=offset)

    def value(params):
        return linear.log_likelihood(params, x, y, times, offset=offset)

    def slope(params):
        return linear.grad_log_likelihood(params, x, y, times, offset=offset)

    def curve(params):
        return -linear.information(params, x, y, times, offset=offset)

    for shift in (0.0, 3.0, -3.0):
        params = fit.params._replace(log_scale=fit.params.log_scale + shift)
        assert_gradients_match(value, slope, params)
        assert_hessians_match(value, curve, params)


def test_units_only_move_the_likelihood(dtype):
    x, y, _, _ = (a.astype(dtype) for a in drawn(9))
    one = jp.fit(linear.model(), x, y)
    for unit in (1e-25, 1e25):
        other = jp.fit(linear.model(), x, (y * unit).astype(dtype))
        assert name(other) == "CONVERGED"
        np.testing.assert_allclose(
            np.asarray(other.params.weights / unit), one.params.weights, rtol=1e-4
        )
        moved = float(other.log_likelihood) + N * np.log(unit)
        np.testing.assert_allclose(moved, float(one.log_likelihood), rtol=1e-4)


def test_many_fits_are_fits(x64):
    x, y, _, offset = drawn(10)
    model, key = linear.model(), jax.random.key(0)
    found = many.bootstrap(model, x, y, key, num_replicates=20, offset=offset)
    assert np.all(np.asarray(found.fits.status) == jp.Status.CONVERGED)
    one = found.fits.lane(3)
    alone = jp.fit(model, x, y, weights=one.source.weights, offset=offset)
    np.testing.assert_allclose(coefficients(one), coefficients(alone), rtol=1e-8)
    left_out = many.jackknife(model, x[:30], y[:30])
    for i in (0, 29):
        rest = np.arange(30) != i
        alone = jp.fit(model, x[:30][rest], y[:30][rest])
        np.testing.assert_allclose(
            coefficients(left_out.fits.lane(i)), coefficients(alone), rtol=1e-8
        )
    groups = np.arange(N) % 3
    by_group = many.fit_groups(model, x, y, groups)
    alone = jp.fit(model, x[groups == 1], y[groups == 1])
    np.testing.assert_allclose(coefficients(by_group.fits.lane(1)), coefficients(alone), rtol=1e-8)
    starts = many.restarts(model, x, y, key, num_starts=3, l2=1.0)
    assert np.all(np.asarray(starts.fits.status) == jp.Status.CONVERGED)


def test_held_out_scores_are_mean_log_densities(x64):
    x, y, times, offset = drawn(11)
    fold = np.arange(N) % 4
    settings = {"weights": times, "offset": offset}
    found = many.cross_validate(linear.model(), x, y, folds=fold, **settings)
    assert np.isnan(np.asarray(found.scores.accuracy)).all()
    assert "log-likelihood" in str(found)
    for k in range(4):
        out = fold == k
        fit = jp.fit(linear.model(), x[~out], y[~out], weights=times[~out], offset=offset[~out])
        value = linear.log_likelihood(fit.params, x[out], y[out], times[out], offset=offset[out])
        mean = float(value) / times[out].sum()
        np.testing.assert_allclose(found.scores.log_likelihood[0, k], mean, rtol=1e-9)
    dealt = many.cross_validate(linear.model(), x, y, jax.random.key(0), num_folds=5)
    sizes = np.bincount(dealt.folds[0])
    assert sizes.tolist() == [N // 5] * 5


def test_penalties_are_chosen_and_compared(x64):
    rng = np.random.default_rng(12)
    x = rng.standard_normal((60, 20))
    y = x[:, 0] + rng.standard_normal(60)
    choice = many.choose_l2(linear.model(), x, y, jax.random.key(0))
    assert not choice.at_end
    assert abs(choice.derivative) <= 1e-2
    lasso = many.path(linear.model(), x, y, l1_ratio=1.0, num_values=10, smallest=0.05)
    assert np.abs(lasso.fits.params.weights[0]).max() <= 1e-6  # where the first is about to enter
    assert lasso.num_nonzero()[-1] > 1
    assert np.all(np.asarray(lasso.fits.status) == jp.Status.CONVERGED)


def test_sensitivity_is_that_of_refits_and_of_statsmodels(x64):
    x, y, _, _ = drawn(13)
    model = linear.model()
    fit = jp.fit(model, x, y)
    peer = sm.OLS(y, sm.add_constant(x)).fit()
    sandwich = np.asarray(sensitivity.infinitesimal_jackknife(fit))[: D + 1, : D + 1]
    order = [D, *range(D)]
    np.testing.assert_allclose(sandwich[np.ix_(order, order)], peer.cov_HC0, rtol=1e-7)
    ridge = jp.fit(model, x, y, l2=3.0)
    moved, step = sensitivity.influence(ridge), 1e-4
    for i in (0, 50):
        ends = []
        for sign in (1, -1):
            weights = np.ones(N)
            weights[i] += sign * step
            ends.append(ravel_pytree(jp.fit(model, x, y, weights=weights, l2=3.0).params)[0])
        own = np.append(moved.weights[i], [moved.bias[i], moved.log_scale[i]])
        np.testing.assert_allclose(own, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-8)
    new_x, new_y, _, _ = drawn(14)

    def held_out(l2):
        return float(linear.log_likelihood(jp.fit(model, x, y, l2=l2).params, new_x, new_y))

    slope = float(sensitivity.l2_gradient(ridge, new_x, new_y))
    numerical = (held_out(3.0 + 1e-3) - held_out(3.0 - 1e-3)) / 2e-3
    np.testing.assert_allclose(slope, numerical, rtol=1e-5)


def test_a_formula_is_no_answer_with_a_penalty(x64):
    x, y, _, _ = drawn(15)
    with pytest.raises(ValueError, match="a formula for the maximum"):
        jp.fit(linear.model(), x, y, l2=1.0, solver=jp.solvers.closed_form())
    newton = jp.fit(linear.model(), x, y, solver=jp.solvers.newton())
    formula = jp.fit(linear.model(), x, y)
    np.testing.assert_allclose(coefficients(newton), coefficients(formula), rtol=1e-8)
    inside = jax.jit(lambda l2: jp.fit(linear.model(), x, y, l2=l2))(2.0)
    outside = jp.fit(linear.model(), x, y, l2=2.0)
    np.testing.assert_allclose(coefficients(inside), coefficients(outside), rtol=1e-8)
    many_l2 = jp.fit_many(linear.model(), x, y, l2=np.array([2.0, 50.0]))
    np.testing.assert_allclose(coefficients(many_l2.lane(0)), coefficients(outside), rtol=1e-8)


def test_samples_of_a_fit_bring_it_back(x64):
    x, y, _, _ = drawn(16)
    fit = jp.fit(linear.model(), x, y)
    many_rows = np.tile(x, (100, 1))
    again = linear.sample(fit.params, jax.random.key(1), many_rows)
    table = jp.summary(jp.fit(linear.model(), many_rows, again))
    truth = np.asarray(ravel_pytree(fit.params)[0])
    assert np.all(np.abs(table.coefficient - truth) <= 5 * table.standard_error)
    assert replace(fit, trace=None).params.weights.shape == (D,)


def test_numbers_that_are_rounded_are_warned_about():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)).astype("float32"), rng.normal(size=20)
    with pytest.warns(UserWarning, match="y is float64, but JAX is in float32 mode"):
        jp.fit(linear.model(), x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # whole numbers lose nothing
        jp.fit(linear.model(), x, np.round(y))
