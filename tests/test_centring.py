"""Features far from zero against their spread, and what rounding may hide: proofs that hold."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob as jp
from jaxprob.models import logistic, softmax
from jaxprob.numerics import compensated_matvec
from jaxprob.solvers import lbfgs

pytestmark = pytest.mark.digits

N = 300
FAR = {"years": (2020.0, 1.0), "latitudes": (52.52, 1.7e-4), "times": (3e6, 1.0)}
MODEL = logistic.model()
WIDE = np.longdouble


def draw(mean, spread, dtype="float32"):
    rng = np.random.default_rng(0)
    t = rng.standard_normal((N, 1))
    y = (rng.logistic(size=N) < t[:, 0]).astype(int)
    return (mean + spread * t).astype(dtype), y


def losses(x, y, params):
    """(n,) of the parameters as they are, in exact arithmetic but for the last function."""
    weights = [Fraction(float(w)) for w in np.atleast_1d(params.weights)]
    bias = Fraction(0 if params.bias is None else float(params.bias))
    rows = [[Fraction(float(v)) for v in row] for row in x]
    z = [sum((v * w for v, w in zip(row, weights, strict=True)), bias) for row in rows]
    return np.logaddexp(WIDE(0), (1 - 2 * y) * np.array([WIDE(float(a)) for a in z]))


def optimum(x, y, l2=0.0, bias=True):
    """The least objective, and standard errors, by Newton's method in extended precision."""
    x = x.astype(WIDE)
    scale = np.std(x, axis=0) if bias else np.sqrt(np.mean(x**2, axis=0))
    u = (x - np.mean(x, axis=0) if bias else x) / scale
    u = np.column_stack([u, np.ones(len(u), WIDE)]) if bias else u
    penalty = np.full(u.shape[1], l2, WIDE)
    penalty[: x.shape[1]] /= scale**2
    penalty[x.shape[1] :] = 0

    def objective(theta):
        return np.sum(np.logaddexp(WIDE(0), (1 - 2 * y) * (u @ theta))) + penalty @ theta**2 / 2

    theta = np.zeros(u.shape[1], WIDE)
    for _ in range(60):
        p = 1 / (1 + np.exp(-(u @ theta)))
        hessian = (u * (p * (1 - p))[:, None]).T @ u + np.diag(penalty)
        step = solve(hessian, u.T @ (y - p) - penalty * theta)
        size = WIDE(1)
        while size > 1e-12 and not objective(theta + size * step) <= objective(theta):
            size /= 2
        theta = theta + size * step if size > 1e-12 else theta
    error = np.sqrt(solve(hessian, np.eye(len(theta), dtype=WIDE)).diagonal()[: x.shape[1]])
    return float(objective(theta)), (error / scale).astype(float)


def solve(a, b):
    """By elimination: NumPy's has no extended precision."""
    a, b = a.copy(), b.copy()
    for i in range(len(a)):
        for j in [j for j in range(len(a)) if j != i]:
            share = a[j, i] / a[i, i]
            a[j] -= share * a[i]
            b[j] -= share * b[i]
    return (b.T / a.diagonal()).T


def assert_gap_holds(x, y, fit, l2=0.0, best=None):
    weights = np.asarray(fit.params.weights).astype(WIDE)
    value = float(np.sum(losses(x, y, fit.params)) + WIDE(l2) / 2 * np.sum(weights**2))
    best = optimum(x, y, l2, fit.params.bias is not None)[0] if best is None else best
    assert value - best <= float(fit.gap) + 1e-14 * best  # what is left of 64 bits in 300 terms
    return value - best


@pytest.mark.parametrize("name", FAR)
def test_features_far_from_zero_lose_no_digits(name):
    x, y = draw(*FAR[name])
    best, error = optimum(x, y)
    fit = jp.fit(MODEL, x, y)
    # Two reported numbers, a weight and a bias, cannot always say better where the optimum is.
    assert jp.Status(int(fit.status)).name == ("CONVERGED" if name == "years" else "STALLED")
    off = assert_gap_holds(x, y, fit, best=best)
    assert off <= {"years": 1e-5, "latitudes": 1e-2, "times": 1.0}[name]
    np.testing.assert_allclose(jp.summary(fit).standard_error[0], error[0], rtol=2e-3)
    here = jp.fit(MODEL, x - x.mean(dtype="float32"), y)
    np.testing.assert_allclose(fit.params.weights, here.params.weights, rtol=1e-4)
    spread = [float(jp.sensitivity.infinitesimal_jackknife(f)[0, 0]) for f in (fit, here)]
    by_rounding = 2 * off**0.5  # of the bias, which moves every probability
    np.testing.assert_allclose(*spread, rtol=1e-2 + by_rounding)
    moved = [np.asarray(jp.sensitivity.influence(f).weights) for f in (fit, here)]
    np.testing.assert_allclose(*moved, rtol=0, atol=(1e-2 + by_rounding) * np.abs(moved[1]).max())


def test_lanes_of_features_far_from_zero_lose_no_digits():
    x, y = draw(*FAR["years"])
    _, error = optimum(x, y)
    weights = np.stack([np.ones(N), np.random.default_rng(1).integers(0, 3, N)]).astype("float32")
    starts = jax.tree.map(lambda a: jnp.stack([a, a]), jp.fit(MODEL, x, y).params)
    for fits in (
        jp.fit_many(MODEL, x, y, weights=weights),
        jp.fit_many(MODEL, np.stack([x, x]), y, weights=weights),
        jp.fit_many(MODEL, np.stack([x, x]), y, weights=weights, init=starts),
        jax.vmap(lambda w: jp.fit(MODEL, x, y, weights=w))(weights),
        jax.vmap(lambda x, w: jp.fit(MODEL, x, y, weights=w))(jnp.stack([x, x]), weights),
    ):
        assert fits.status.tolist() == [0, 0]
        # Gaps of 1e-4 nats are 1.4 % of a standard error each.
        near = 0.03 * error[0]
        np.testing.assert_allclose(fits.params.weights[0], starts.weights[0], rtol=0, atol=near)
        table = jp.summary(fits.lane(0))
        np.testing.assert_allclose(table.standard_error[0], error[0], rtol=2e-3)


def test_paths_and_resamples_of_features_far_from_zero_lose_no_digits():
    x, y = draw(*FAR["years"])
    settings = {"num_folds": 3, "l2": np.array([0.1, 1.0, 10.0], "float32")}
    key = jax.random.key(0)
    far, near = (
        jp.many.cross_validate(MODEL, x - shift, y, key, **settings).fits.params.weights
        for shift in (0, np.float32(2020))
    )
    np.testing.assert_allclose(far, near, rtol=1e-3)
    far, near = (
        jp.many.bootstrap(MODEL, x - shift, y, key, num_replicates=40).standard_error().weights
        for shift in (0, np.float32(2020))
    )
    np.testing.assert_allclose(far, near, rtol=1e-3)


def test_the_derivative_of_a_fit_does_not_depend_on_where_the_features_are():
    x, y = draw(*FAR["years"])

    def slope(weights, x, l2):
        return jp.fit(MODEL, x, y, weights=weights, l2=l2).params.weights[0]

    one = jnp.ones(N)
    far, near = (
        jax.grad(slope, argnums=(0, 1, 2))(one, jnp.asarray(x - shift), 1.0)
        for shift in (0, np.float32(2020))
    )
    for a, b in zip(far, near, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(b).max())


def test_softmax_takes_up_a_shift_in_its_biases(x64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 2))
    y = rng.integers(0, 3, N)
    for parameterisation in softmax.PARAMETERISATIONS:
        model = softmax.model(3, parameterisation=parameterisation)
        near, far = (jp.fit(model, x + shift, y, l2=0.5) for shift in (0.0, 1e7))
        assert int(far.status) == jp.Status.CONVERGED
        np.testing.assert_allclose(far.params.weights, near.params.weights, rtol=1e-6)
        # What rounding the features to 1e-9 makes of 300 terms.
        np.testing.assert_allclose(far.objective, near.objective, rtol=1e-10)
        tables = [jp.summary(fit).standard_error for fit in (near, far)]
        np.testing.assert_allclose(tables[1][:2], tables[0][:2], rtol=1e-6)


def designs(kind, dtype):
    """Columns that rounding is hard on, and labels that depend on them."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((N, 3))
    u = x.copy()
    if kind == "collinear":
        x[:, 1] = x[:, 0] + 1e-3 * x[:, 1]
    elif kind == "far":
        x += [10.0, 1e3, 1e5]
    elif kind == "scaled":
        x = (x + [1.0, 300.0, 1e4]) * [1e4, 1e-4, 1.0]
    elif kind == "outlier":
        x[0] *= 1e6
    y = (rng.logistic(size=N) < u.sum(axis=1)).astype(int)
    return x.astype(dtype), y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["plain", "collinear", "far", "scaled", "outlier"])
def test_a_gap_holds_in_exact_arithmetic(kind, bias, dtype):
    x, y = designs(kind, dtype)
    for l2 in (None, 1e-3):
        fit = jp.fit(logistic.model(bias=bias), x, y, l2=l2)
        if int(fit.status) != jp.Status.SEPARATED:
            assert_gap_holds(x, y, fit, float(np.asarray(l2 or 0.0, dtype)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["collinear", "far", "scaled"])
def test_a_gap_holds_in_exact_arithmetic_often(kind, seed, dtype):
    x, y = designs(kind, dtype)
    rng = np.random.default_rng(seed)
    x = (x + (kind == "collinear") * 10.0 ** -rng.uniform(1, 6) * rng.normal(size=x.shape)).astype(
        dtype
    )
    y = np.where(rng.uniform(size=N) < 0.2, rng.integers(0, 2, N), y)
    for solver in (None, lbfgs()):
        fit = jp.fit(MODEL, x, y, solver=solver)
        if int(fit.status) != jp.Status.SEPARATED:
            assert_gap_holds(x, y, fit)


def test_compensated_products_have_a_derivative(x64):
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=3))
    np.testing.assert_allclose(jax.jacobian(compensated_matvec, 1)(x, w), x)
    of_rows = jax.grad(lambda x: jnp.sum(compensated_matvec(x, w)))(x)
    np.testing.assert_allclose(of_rows, np.broadcast_to(w, (4, 3)))
