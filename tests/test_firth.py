"""Firth's penalty: against published values, the definition, and what it is there for."""

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from catalogue import MODELS, draw
from jax.flatten_util import ravel_pytree
from tolerances import EPS, SAME_FIT

from jaxprob import Status, fit
from jaxprob.many import fit_groups, fit_many
from jaxprob.models import logistic, softmax
from jaxprob.problem.jeffreys import half_log_det
from jaxprob.problem.problem import Problem, Rows
from jaxprob.solvers import newton
from jaxprob.uncertainty.sensitivity import influence

LOGISTIC = logistic.model()
SAME = SAME_FIT["float64"]


def separated(n=30, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, (x[:, 0] > 0).astype(int)


def problem_of(name, dtype, seed=1):
    case = draw(MODELS[name], seed, dtype=dtype)
    rows = Rows(case.x, case.y, case.weights + 0.5, case.offset)
    problem = Problem(rows, None, None, MODELS[name], False, None, firth=True)
    return problem, ravel_pytree(case.params)[0]


def test_sex2_as_logistf_has_it(x64):
    x = np.repeat(published.SEX2[:, :6], 2, axis=0).astype(float)
    y = np.tile([1, 0], len(published.SEX2))
    counts = published.SEX2[:, 6:].ravel().astype(float)
    assert fit(LOGISTIC, x, y, weights=counts).status == Status.SEPARATED
    result = fit(LOGISTIC, x, y, weights=counts, firth=True)
    assert result.status == Status.CONVERGED
    # Eight digits are printed there, of a fit that stops at 1e-5 of the score.
    np.testing.assert_allclose(result.params.weights, published.SEX2_FIRTH, rtol=1e-6)
    np.testing.assert_allclose(result.params.bias, published.SEX2_FIRTH_BIAS, rtol=1e-6)


def test_endometrial_as_logistf_and_brglm2_have_it(x64):
    x, y = published.ENDOMETRIAL, published.ENDOMETRIAL_GRADE
    plain = fit(LOGISTIC, x, y)
    assert plain.status == Status.SEPARATED
    assert plain.direction.weights[0] > 0
    result = fit(LOGISTIC, x, y, firth=True)
    np.testing.assert_allclose(result.params.weights, published.ENDOMETRIAL_FIRTH, rtol=1e-6)
    np.testing.assert_allclose(result.params.bias, published.ENDOMETRIAL_FIRTH_BIAS, rtol=1e-6)


def test_it_solves_the_adjusted_score_equations(x64):
    """Σ_i x_i (c_i (y_i - p_i) + h_i (1/2 - p_i)) = 0, h the diagonal of the hat matrix."""
    x, y = separated()
    c = np.random.default_rng(1).uniform(0.5, 2, len(y))
    result = fit(LOGISTIC, x, y, weights=c, firth=True, solver=newton(tol=1e-16))
    a = np.hstack([x, np.ones((len(x), 1))])
    p = 1 / (1 + np.exp(-a @ np.append(result.params.weights, result.params.bias)))
    s = c * p * (1 - p)
    hat = s * np.einsum("ij,jk,ik->i", a, np.linalg.inv((a.T * s) @ a), a)
    score = a.T @ (c * (y - p) + hat * (0.5 - p))
    np.testing.assert_allclose(score, 0, atol=1e-7)
    lik = np.sum(c * np.log(np.where(y == 1, p, 1 - p)))
    np.testing.assert_allclose(result.log_likelihood, lik, rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_half_the_log_determinant_and_its_gradient(dtype, name):
    problem, theta = problem_of(name, dtype)
    info = jax.jit(problem.information)(theta)

    @jax.jit
    def by_autodiff(theta):
        info = problem.information(theta)
        if problem.model.geometry.canonical is not None:
            eye = jnp.eye(len(theta), dtype=theta.dtype)
            info = info + eye - jax.vmap(problem.canonical)(eye)
        return jnp.linalg.slogdet(info)[1] / 2

    value, grad = jax.jit(half_log_det)(problem, theta)
    size = np.linalg.cond(np.asarray(info) + np.eye(len(theta))) * EPS[dtype]
    np.testing.assert_allclose(value, by_autodiff(theta), rtol=64 * size, atol=64 * size)
    expected = np.asarray(jax.jit(jax.grad(by_autodiff))(theta))
    np.testing.assert_allclose(grad, expected, atol=256 * size * (1 + np.abs(expected).max()))


def test_its_derivative_is_right_in_both_modes(x64):
    problem, theta = problem_of("logistic", "float64")

    @jax.jit
    def grad(theta):
        return half_log_det(problem, theta)[1]

    forward, backward = jax.jit(jax.jacfwd(grad))(theta), jax.jit(jax.jacrev(grad))(theta)
    theta, step = np.asarray(theta), 1e-6 * np.eye(len(theta))
    numeric = [(grad(theta + s) - grad(theta - s)) / 2e-6 for s in step]
    np.testing.assert_allclose(forward, backward, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(forward, numeric, rtol=1e-6, atol=1e-7)


def test_reparametrised_it_is_the_same(x64):
    """Jeffreys' prior does not depend on the parametrisation."""
    x, y = separated()
    y3 = y + (x[:, 1] > 1)
    one = fit(LOGISTIC, x, y, firth=True)
    two = fit(softmax.model(2), x, y, firth=True)
    np.testing.assert_allclose(one.params.weights, -two.params.weights[0], rtol=SAME, atol=SAME)
    free = fit(softmax.model(3), x, y3, firth=True)
    symmetric = fit(softmax.model(3, parameterisation="symmetric"), x, y3, firth=True)
    assert free.status == symmetric.status == Status.CONVERGED
    w = symmetric.params.weights
    np.testing.assert_allclose(w[:2] - w[2:], free.params.weights, rtol=SAME, atol=SAME)
    np.testing.assert_allclose(free.log_likelihood, symmetric.log_likelihood, rtol=1e-8)


@pytest.mark.parametrize("name", ["logistic", "softmax", "softmax, symmetric"])
def test_every_lane_is_finite(x64, name):
    model = MODELS[name]
    x, y = separated(60)
    labels = np.stack([y, np.zeros_like(y), (x[:, 1] > 0.5).astype(int)])
    fits = fit_many(model, x, labels, firth=True)
    assert fits.status.tolist() == [Status.CONVERGED] * 3
    assert fits.firth
    for i in range(3):
        alone = fit(model, x, labels[i], firth=True)
        for a, b in zip(fits.lane(i).params, alone.params, strict=True):
            np.testing.assert_allclose(a, b, rtol=10 * SAME, atol=10 * SAME)
        np.testing.assert_allclose(fits.log_likelihood[i], alone.log_likelihood, rtol=SAME)


def test_groups(x64):
    x, y = separated(60)
    shops = np.arange(60) % 2
    by_shop = fit_groups(LOGISTIC, x, y, shops, firth=True)
    assert by_shop.fits.status.tolist() == [Status.CONVERGED] * 2
    alone = fit(LOGISTIC, x[1::2], y[1::2], firth=True)
    np.testing.assert_allclose(by_shop[1].params.weights, alone.params.weights, rtol=10 * SAME)


def test_dependent_columns_are_said(x64):
    x, y = separated()
    x = np.hstack([x, x[:, :1]])
    assert fit(LOGISTIC, x, y, firth=True).status == Status.SINGULAR
    assert fit_many(LOGISTIC, x, np.stack([y, y]), firth=True).status.tolist() == [4, 4]


def test_its_derivative_by_the_weights(x64):
    x, y = separated()
    solver = newton(tol=1e-15)

    def first(weights):
        return fit(LOGISTIC, x, y, weights=weights, firth=True, solver=solver).params.weights[0]

    ones, step = np.ones(len(y)), 1e-4 * np.eye(len(y))[3]
    got = jax.jit(jax.grad(first))(ones)[3]
    np.testing.assert_allclose(got, (first(ones + step) - first(ones - step)) / 2e-4, rtol=1e-4)


def test_what_it_does_not_go_with(x64):
    x, y = separated()
    with pytest.raises(ValueError, match="firth: expected no l1"):
        fit(LOGISTIC, x, y, firth=True, l1=1.0)
    with pytest.raises(ValueError, match="firth: expected no l1"):
        fit_many(LOGISTIC, x, y, firth=True, l1=[1.0])
    with pytest.raises(TypeError, match="firth: expected True or False, got 1"):
        fit(LOGISTIC, x, y, firth=1)
    with pytest.raises(ValueError, match="without Firth's penalty"):
        influence(fit(LOGISTIC, x, y, firth=True))
