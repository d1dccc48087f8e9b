"""Poisson regression, against statsmodels, many digits, and linear programmes."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
from jax.flatten_util import ravel_pytree
from scipy.optimize import linprog
from tolerances import EIGHT_DIGITS, EPS

import jaxprob as jp
from jaxprob import many, sensitivity
from jaxprob.models import poisson
from jaxprob.numerics import poisson_log_prob, poisson_misfit
from jaxprob.solvers import lbfgs, newton
from jaxprob.testing import assert_gradients_match, assert_hessians_match

N, D = 200, 4


def drawn(seed=0, n=N):
    """Features of several units, counts with exposures, and weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D)) * [1, 0.1, 10, 1] + [0, 0, 0, 2]
    exposure = rng.uniform(10, 1e4, n)
    y = rng.poisson(exposure * np.exp(x @ [0.5, 2.0, 0.03, -0.3] - 5))
    return x, y, rng.integers(0, 4, n), exposure


def name(fit):
    return jp.Status(int(fit.status)).name


def coefficients(fit):
    """The bias first, as statsmodels has it."""
    return np.append(fit.params.bias, fit.params.weights)


def peer_of(x, y, **settings):
    model = sm.GLM(y, x, family=sm.families.Poisson(), **settings)
    return model.fit(tol=1e-14, maxiter=200)


def test_a_fit_is_that_of_statsmodels(x64):
    x, y, times, exposure = drawn()
    fit = jp.fit(poisson.model(), x, y, weights=times, offset=np.log(exposure))
    again = sm.add_constant(np.repeat(x, times, axis=0))
    peer = peer_of(again, np.repeat(y, times), exposure=np.repeat(exposure, times))
    assert name(fit) == "CONVERGED"
    np.testing.assert_allclose(coefficients(fit), peer.params, rtol=EIGHT_DIGITS)
    np.testing.assert_allclose(float(fit.log_likelihood), peer.llf, rtol=EIGHT_DIGITS)
    np.testing.assert_allclose(float(fit.null_log_likelihood), peer.llnull, rtol=EIGHT_DIGITS)
    table = jp.summary(fit)
    errors = np.append(table.standard_error[-1], table.standard_error[:-1])
    np.testing.assert_allclose(errors, peer.bse, rtol=EIGHT_DIGITS)
    assert table.names == ("x0", "x1", "x2", "x3", "bias")
    assert "proved to be within" in str(table)


def test_without_a_bias_it_is_that_of_statsmodels_too(x64):
    x, y, times, exposure = drawn(1)
    fit = jp.fit(poisson.model(bias=False), x, y, weights=times, offset=np.log(exposure) - 5)
    rows = [np.repeat(a, times, axis=0) for a in (x, y, np.log(exposure) - 5)]
    peer = peer_of(*rows[:2], offset=rows[2])
    np.testing.assert_allclose(fit.params.weights, peer.params, rtol=EIGHT_DIGITS)
    np.testing.assert_allclose(float(fit.log_likelihood), peer.llf, rtol=EIGHT_DIGITS)


@pytest.mark.parametrize("y", [0, 1, 2, 9, 10, 11, 1000, 10**6, 2**24])
def test_log_prob_against_exact_arithmetic(y, dtype):
    mpmath.mp.dps = 50
    best = np.log(max(y, 0.5))
    for away in (0.0, 1e-4, -1e-2, 0.3, -0.49, 0.51, 3.0, -20.0):
        z = np.asarray(best + away, dtype)
        of_y = jnp.asarray(y, dtype)
        rate = mpmath.exp(float(z))
        exact = y * mpmath.mpf(float(z)) - rate - mpmath.loggamma(y + 1)
        misfit = rate if y == 0 else y * mpmath.log(y / rate) - y + rate
        # log y is rounded, which counts as the rounding of z would, and then each term once.
        slope = float(abs(y - rate)) * (1 + abs(float(z)))
        error = 8 * EPS[dtype] * (slope + float(misfit) + 1)
        assert abs(float(poisson_misfit(of_y, z)) - float(misfit)) <= error
        error += 8 * EPS[dtype] * float(abs(exact))
        assert abs(float(poisson_log_prob(of_y, z)) - float(exact)) <= error


def test_derivatives_at_fits_and_far_from_them_are_right(dtype):
    x, y, times, exposure = drawn(2, n=30)
    offset = jnp.asarray(np.log(exposure), dtype)
    x, y, times = (jnp.asarray(a, dtype) for a in (x, y, times))
    fit = jp.fit(poisson.model(), x, y, weights=times, offset=offset)

    def value(params):
        return poisson.log_likelihood(params, x, y, times, offset=offset)

    def slope(params):
        return poisson.grad_log_likelihood(params, x, y, times, offset=offset)

    def curve(params):
        return -poisson.information(params, x, y, times, offset=offset)

    for shift in (0.0, 5.0, -30.0):
        params = fit.params._replace(bias=fit.params.bias + shift)
        assert_gradients_match(value, slope, params)
        assert_hessians_match(value, curve, params)


def test_no_rate_is_too_large_for_an_example_without_weight(x64):
    x, y = jnp.array([[1.0], [2.0], [3.0], [1e4]]), jnp.array([1.0, 2.0, 4.0, 0.0])
    weights = jnp.array([1.0, 1.0, 1.0, 0.0])
    fit = jp.fit(poisson.model(), x, y, weights=weights)
    alone = jp.fit(poisson.model(), x[:3], y[:3])
    assert name(fit) == "CONVERGED"
    np.testing.assert_allclose(coefficients(fit), coefficients(alone), rtol=1e-10)


def test_large_exposures_and_counts_cost_no_steps(dtype):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, 2))
    for log_exposure in (-40.0, 0.0, 40.0):
        y = rng.poisson(np.exp(x @ [0.3, -0.2] + 6))
        offset = np.full(N, log_exposure)
        fit = jp.fit(poisson.model(), x.astype(dtype), y, offset=offset.astype(dtype))
        assert name(fit) == "CONVERGED"
        assert int(fit.num_steps) <= 5


# --- Separation ---


def separated_by(x, y, *, bias):
    """Whether a linear programme finds a direction: x·v = 0 where y > 0, ≤ 0 and once < 0 else."""
    rows = np.column_stack([x, np.ones(len(x))]) if bias else x
    zero = y == 0
    found = linprog(
        rows[zero].sum(axis=0),
        A_ub=np.concatenate([rows[zero], -rows[zero]]),
        b_ub=np.repeat([0.0, 1.0], zero.sum()),
        A_eq=rows[~zero] if (~zero).any() else None,
        b_eq=np.zeros((~zero).sum()) if (~zero).any() else None,
        bounds=(None, None),
    )
    return found.fun < -1e-6


@pytest.mark.parametrize("bias", [True, False])
def test_separation_agrees_with_linear_programmes(bias, x64):
    """On small whole numbers, of which many are equal, so that all kinds of designs occur."""
    rng = np.random.default_rng(int(bias))
    num, n, d = 300, 9, 3
    x = rng.integers(-1, 2, (num, n, d)).astype(float)
    x[: num // 3, :, 2] = x[: num // 3, :, 0] > 0
    y = rng.poisson(rng.choice([0.3, 0.7, 2.0], (num, 1)), (num, n))
    y[num // 2 :] *= x[num // 2 :, :, 1] <= 0
    fits = jp.fit_many(poisson.model(bias=bias), x, y)
    separated = np.array([separated_by(*one, bias=bias) for one in zip(x, y, strict=True)])
    assert 50 < separated.sum() < 250
    for i in range(num):
        assert (name(fits.lane(i)) == "SEPARATED") == separated[i]
        if not separated[i]:
            assert name(fits.lane(i)) in ("CONVERGED", "SINGULAR")
            continue
        v = jax.tree.map(lambda a, i=i: np.asarray(a[i]), fits.direction)
        moved = x[i] @ v.weights + (v.bias if bias else 0.0)
        assert np.abs(moved[y[i] > 0]).max(initial=0.0) <= 1e-12
        assert moved.max() <= 1e-12
        assert moved.min() < -1e-3


def test_a_group_of_zeros_is_separated(dtype):
    x, y, _, exposure = drawn(4)
    group = x[:, 0] > 0.5
    x = np.column_stack([x[:, 1:] + 100.0, group]).astype(dtype)
    fit = jp.fit(poisson.model(), x, np.where(group, 0, y), offset=np.log(exposure).astype(dtype))
    assert name(fit) == "SEPARATED"
    along = coefficients_of(fit.direction)
    np.testing.assert_allclose(along, [0, 0, 0, 0, -1], rtol=0, atol=1e3 * EPS[dtype])
    assert "counts of zero" in str(jp.summary(fit))
    shrunk = jp.fit(poisson.model(), x, np.where(group, 0, y), l2=1.0)
    assert name(shrunk) == "CONVERGED"
    inside = jax.jit(lambda y: jp.fit(poisson.model(), x, y).status)
    assert int(inside(jnp.asarray(np.where(group, 0, y)))) == jp.Status.SEPARATED


def coefficients_of(params):
    return np.append(params.bias, params.weights)


def test_nothing_but_zeros_is_separated_along_the_bias(dtype):
    x, y, times, _ = drawn(5)
    x = x.astype(dtype)
    for settings in ({}, {"l2": 1.0}, {"l1": 1.0}, {"weights": times}):
        fit = jp.fit(poisson.model(), x, 0 * y, **settings)
        assert name(fit) == "SEPARATED"
        assert coefficients_of(fit.direction).tolist() == [-1.0, 0.0, 0.0, 0.0, 0.0]
        assert np.isinf(fit.gap)
    lanes = jp.fit_many(poisson.model(), x, np.stack([y, 0 * y]))
    assert [name(lanes.lane(i)) for i in range(2)] == ["CONVERGED", "SEPARATED"]
    assert float(lanes.direction.bias[1]) == -1.0
    free = poisson.model(bias=False)
    assert name(jp.fit(free, np.abs(x), 0 * y)) == "SEPARATED"
    assert name(jp.fit(free, x, 0 * y)) == "CONVERGED"
    firth = jp.fit(poisson.model(), x, 0 * y, firth=True)
    assert name(firth) == "CONVERGED"


# --- The gap ---


def best_of(x, y, c, o):
    """The minimum of Σ c (e^z - y z) in many digits, by Newton's method."""
    mpmath.mp.dps = 60
    rows = [[mpmath.mpf(float(v)) for v in row] + [mpmath.mpf(1)] for row in x]
    p = len(rows[0])
    theta = mpmath.matrix([0] * (p - 1) + [mpmath.log(sum(c * y) / sum(c * np.exp(o)))])
    counts, offsets = [float(v) for v in y], [mpmath.mpf(float(v)) for v in o]

    def value(theta):
        return loss(rows, counts, c, offsets, theta)

    for _ in range(60):
        rates = [
            mpmath.exp(sum(a * t for a, t in zip(row, theta, strict=True)) + k)
            for row, k in zip(rows, offsets, strict=True)
        ]
        grad, hess = mpmath.matrix(p, 1), mpmath.matrix(p, p)
        for row, rate, count, weight in zip(rows, rates, counts, c, strict=True):
            for i in range(p):
                grad[i] += float(weight) * (rate - count) * row[i]
                for j in range(p):
                    hess[i, j] += float(weight) * rate * row[i] * row[j]
        step = mpmath.lu_solve(hess, grad)
        share = mpmath.mpf(1)
        while value(theta - share * step) > value(theta) and share > 1e-20:
            share /= 2
        theta = theta - share * step
        if (grad.T * step)[0] < mpmath.mpf(10) ** -40:
            break
    return value(theta), rows, counts, offsets


def loss(rows, counts, c, offsets, theta):
    total = mpmath.mpf(0)
    for row, count, weight, k in zip(rows, counts, c, offsets, strict=True):
        z = sum(a * t for a, t in zip(row, theta, strict=True)) + k
        total += float(weight) * (mpmath.exp(z) - count * z)
    return total


def design(kind, rng, dtype, n=25):
    x = rng.standard_normal((n, 3))
    rate, offset = 3.0, np.zeros(n)
    if kind == "collinear":
        x[:, 1] = x[:, 0] + 30 * EPS[dtype] ** (3 / 8) * rng.standard_normal(n)
    elif kind == "far":
        x = x + [1000.0, -50.0, 0.0]
    elif kind == "scaled":
        x = x * [1e-6, 1.0, 1e6]
    elif kind == "large":
        rate = 1e6
    elif kind == "small":
        rate = 0.2
    elif kind == "exposed":
        offset = rng.uniform(-20, 20, n)
    scale = np.abs(x - x.mean(axis=0)).max(axis=0)
    z = (x - x.mean(axis=0)) @ (np.array([0.5, 0.3, -0.4]) / scale)
    y = rng.poisson(np.minimum(rate * np.exp(z + offset), 1e7))
    return x, y, rng.integers(1, 4, n), offset


@pytest.mark.parametrize(
    "kind", ["plain", "collinear", "far", "scaled", "large", "small", "exposed"]
)
def test_the_gap_holds_in_exact_arithmetic(kind, dtype):
    """Of the data in that dtype, at the parameters in that dtype, wherever a run ends."""
    checked = 0
    for seed in range(4):
        x, y, c, o = design(kind, np.random.default_rng(seed), dtype)
        x, o = x.astype(dtype), o.astype(dtype)
        y = y.astype(dtype).astype(float)  # counts beyond 2^24 are rounded
        best, *exact = best_of(x, y, c, o)
        for tol in (None, 1e-2, 10.0, 1e6):
            for make in (newton, lbfgs):
                fit = jp.fit(poisson.model(), x, y, weights=c, offset=o, solver=make(tol=tol))
                gap, given = float(fit.gap), np.append(fit.params.weights, fit.params.bias)
                assert name(fit) in ("CONVERGED", "STALLED")
                excess = loss(*exact[:2], c, exact[2], [mpmath.mpf(float(v)) for v in given]) - best
                assert 0 <= float(excess) <= gap
                checked += gap < np.inf
    assert checked >= 24


# --- What else the library does with it ---


def test_many_fits_are_fits(x64):
    x, y, _, exposure = drawn(6)
    model, key, offset = poisson.model(), jax.random.key(0), np.log(exposure)
    found = many.bootstrap(model, x, y, key, num_replicates=20, offset=offset)
    assert np.all(np.asarray(found.fits.status) == jp.Status.CONVERGED)
    one = found.fits.lane(3)
    alone = jp.fit(model, x, y, weights=one.source.weights, offset=offset)
    np.testing.assert_allclose(coefficients(one), coefficients(alone), rtol=1e-8)
    left_out = many.jackknife(model, x[:30], y[:30], offset=offset[:30])
    rest = np.arange(30) != 7
    alone = jp.fit(model, x[:30][rest], y[:30][rest], offset=offset[:30][rest])
    np.testing.assert_allclose(coefficients(left_out.fits.lane(7)), coefficients(alone), rtol=1e-8)
    groups = np.arange(N) % 3
    by_group = many.fit_groups(model, x, y, groups, offset=offset)
    own = groups == 1
    alone = jp.fit(model, x[own], y[own], offset=offset[own])
    np.testing.assert_allclose(coefficients(by_group.fits.lane(1)), coefficients(alone), rtol=1e-8)
    starts = many.restarts(model, x, y, key, num_starts=3, offset=offset)
    assert np.all(np.asarray(starts.fits.status) == jp.Status.CONVERGED)


def test_held_out_scores_and_penalties(x64):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((80, 12))
    y = rng.poisson(np.exp(x[:, 0] / 2 + 0.5))
    fold = np.arange(80) % 4
    found = many.cross_validate(poisson.model(), x, y, folds=fold)
    assert np.isnan(np.asarray(found.scores.accuracy)).all()
    out = fold == 2
    fit = jp.fit(poisson.model(), x[~out], y[~out])
    mean = float(poisson.log_likelihood(fit.params, x[out], y[out])) / out.sum()
    np.testing.assert_allclose(found.scores.log_likelihood[0, 2], mean, rtol=1e-9)
    choice = many.choose_l2(poisson.model(), x, y, jax.random.key(0))
    assert not choice.at_end
    assert abs(choice.derivative) <= 1e-2
    lasso = many.path(poisson.model(), x, y, l1_ratio=1.0, num_values=10)
    assert np.abs(lasso.fits.params.weights[0]).max() <= 1e-6  # where the first is about to enter
    assert lasso.num_nonzero()[-1] == 12
    assert np.all(np.asarray(lasso.fits.status) == jp.Status.CONVERGED)


def test_sensitivity_is_that_of_refits_and_of_statsmodels(x64):
    x, y, _, exposure = drawn(8)
    model, offset = poisson.model(), np.log(exposure)
    fit = jp.fit(model, x, y, offset=offset)
    peer = sm.GLM(y, sm.add_constant(x), family=sm.families.Poisson(), exposure=exposure)
    wanted = peer.fit(tol=1e-14, maxiter=200, cov_type="HC0").cov_params()
    order = [D, *range(D)]
    sandwich = np.asarray(sensitivity.infinitesimal_jackknife(fit))[np.ix_(order, order)]
    np.testing.assert_allclose(sandwich, wanted, rtol=1e-7)
    ridge = jp.fit(model, x, y, offset=offset, l2=3.0)
    moved, step = sensitivity.influence(ridge), 1e-4
    ends = []
    for sign in (1, -1):
        weights = np.ones(N)
        weights[5] += sign * step
        again = jp.fit(model, x, y, weights=weights, offset=offset, l2=3.0)
        ends.append(ravel_pytree(again.params)[0])
    own = np.append(moved.weights[5], moved.bias[5])
    np.testing.assert_allclose(own, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-8)


def test_samples_of_a_fit_bring_it_back(x64):
    x, y, _, exposure = drawn(9)
    offset = np.log(exposure)
    fit = jp.fit(poisson.model(), x, y, offset=offset)
    rows, more = np.tile(x, (50, 1)), np.tile(offset, 50)
    again = poisson.sample(fit.params, jax.random.key(1), rows, offset=more)
    table = jp.summary(jp.fit(poisson.model(), rows, again, offset=more))
    assert np.all(
        np.abs(table.coefficient - ravel_pytree(fit.params)[0]) <= 5 * table.standard_error
    )
