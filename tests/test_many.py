"""Many fits in one call: each lane is the fit that it would be alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from catalogue import MODELS
from lanes import B, D, N, assert_close, by_hand, draw_lanes, lane, matrix
from tolerances import EIGHT_DIGITS, EPS, SAME_FIT

import jaxprob as jp
from jaxprob import Status, fit
from jaxprob.contract import Bind, Classes, Likelihood, Model, Variables
from jaxprob.many import fit_many
from jaxprob.models import logistic
from jaxprob.solvers import lbfgs

LOGISTIC = logistic.model()
SLOW = pytest.mark.slow

OWN = {
    "weights": ("weights",),
    "y": ("y",),
    "x and y": ("x", "y"),
    "l2": ("l2",),
    "offset": ("offset",),
    "init": ("init",),
    "all": ("x", "y", "weights", "offset", "l2", "init"),
}


def assert_same_fit(one, two, atol):
    jax.tree.map(lambda a, b: assert_close(a, b, atol), one.params, two.params)
    assert_close(one.log_likelihood, two.log_likelihood, atol)
    assert one.status == two.status == Status.CONVERGED
    assert one.num_examples == two.num_examples


BY_DEFAULT = {
    *(("logistic", case) for case in ("weights", "x and y", "all")),
    ("softmax", "all"),
    ("softmax, symmetric", "weights"),
}
CASES = [
    pytest.param(name, case, marks=() if (name, case) in BY_DEFAULT else SLOW)
    for name in MODELS
    for case in OWN
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_each_lane_is_the_fit_alone_and_that_of_numpy(x64, name, case):
    model, own = MODELS[name], OWN[case]
    given = draw_lanes(model, own)
    fits = fit_many(model, **given)
    for i in range(B):
        args = lane(given, own, i)
        one = fits.lane(i)
        theta, log_likelihood = by_hand(model, **args)
        assert_close(matrix(one.params), theta, EIGHT_DIGITS)
        assert_close(one.log_likelihood, log_likelihood, EIGHT_DIGITS)
        assert_same_fit(one, fit(model, **args), EIGHT_DIGITS)
        assert 0 <= one.gap <= 1e-8  # the default tolerance in float64
        assert one.num_examples == np.sum(args.get("weights", np.ones(N)) > 0)
        assert one.l2 == args.get("l2")
    assert {a.shape[0] for a in jax.tree.leaves(fits)} == {B}


IN_FLOAT32 = [("logistic", "weights")]
MORE = [("logistic", "init"), ("softmax", "weights"), ("softmax, symmetric", "all")]


@pytest.mark.parametrize(
    ("name", "case"), [*IN_FLOAT32, *(pytest.param(*more, marks=SLOW) for more in MORE)]
)
def test_lanes_in_float32(name, case):
    model, own = MODELS[name], OWN[case]
    given = draw_lanes(model, own, dtype="float32")
    fits = fit_many(model, **given)
    assert all(a.dtype == "float32" for a in jax.tree.leaves(fits) if a.dtype.kind == "f")
    assert fits.status.tolist() == [Status.CONVERGED] * B
    for i in range(B):
        theta, log_likelihood = by_hand(model, **lane(given, own, i))
        assert_close(matrix(fits.lane(i).params), theta, SAME_FIT["float32"])
        # The gap allows 1e-4 nats, the sum of 60 terms is exact to 60 ε of it.
        np.testing.assert_allclose(
            fits.log_likelihood[i], log_likelihood, rtol=N * EPS["float32"], atol=2e-4
        )


def test_the_summary_of_a_lane_is_that_of_the_fit(x64):
    given = draw_lanes(LOGISTIC, ("weights",))
    fits = fit_many(LOGISTIC, **given)
    for i in (0, B - 1):
        alone = fit(LOGISTIC, **lane(given, ("weights",), i))
        ours, theirs = jp.summary(fits.lane(i)), jp.summary(alone)
        assert ours.names == theirs.names
        for name in ("coefficient", "standard_error", "z", "p_value", "aic", "mcfadden_r2"):
            assert_close(getattr(ours, name), getattr(theirs, name), EIGHT_DIGITS)
        assert_close(fits.lane(i).information, alone.information, EIGHT_DIGITS)
    with pytest.raises(ValueError, match=r"ask for fits\.lane\(i\)\.information"):
        _ = fits.information
    with pytest.raises(ValueError, match="fit: expected one fit, got fits of shape"):
        jp.summary(fits)


# Penalties.


def conditions(params, x, y, weights, l1):
    """(d + 1,) what a proximal gradient step of length one changes: zero at the optimum."""
    x, theta = np.hstack([x, np.ones((len(x), 1))]), matrix(params)[0]
    grad = (weights * (1 / (1 + np.exp(-x @ theta)) - y)) @ x
    moved, shrinkage = theta - grad, np.array([l1] * D + [0])
    return theta - np.sign(moved) * np.maximum(np.abs(moved) - shrinkage, 0)


@pytest.mark.parametrize("own", [("l1",), pytest.param(("x", "y", "weights", "l1"), marks=SLOW)])
def test_lanes_with_l1(x64, own):
    given = draw_lanes(LOGISTIC, (*own, "weights"))
    given["weights"] = given["weights"] if "weights" in own else given["weights"][0]
    given["l1"] = np.array([0.05, 0.1, 0.5, 2.0, 5.0, 100.0])
    fits = fit_many(LOGISTIC, **given)
    assert fits.l1.tolist() == given["l1"].tolist()
    for i in range(B):
        args = lane(given, own, i)
        one = fits.lane(i)
        assert_same_fit(one, fit(LOGISTIC, **args), SAME_FIT["float64"])
        # A gap of 1e-12 leaves a gradient of sqrt(2e-12 λ), λ < 1e3 the largest curvature.
        off = conditions(one.params, **args)
        np.testing.assert_allclose(off, 0, atol=5e-5)
    assert not np.any(fits.params.weights[-1])
    assert np.all(fits.params.weights[:3])


@pytest.mark.slow
def test_a_lane_without_a_penalty_is_separated_and_those_with_one_are_not(x64):
    x = draw_lanes(LOGISTIC, ())["x"]
    y = (x[:, 0] > 0).astype(int)
    l2 = np.array([1e-2, 0.0, 1.0])
    fits = fit_many(LOGISTIC, x, y, l2=l2)
    assert fits.status.tolist() == [Status.CONVERGED, Status.SEPARATED, Status.CONVERGED]
    for i in (0, 2):
        theta, _ = by_hand(LOGISTIC, x, y, l2=l2[i])
        assert_close(matrix(fits.lane(i).params), theta, EIGHT_DIGITS)


# Other solvers, and models that only say what they are.


@pytest.mark.slow
def test_lanes_by_another_solver(x64):
    given = draw_lanes(LOGISTIC, ("weights",))
    given["weights"][2] *= given["y"]
    solver = lbfgs(sample_rows=30)
    fits = fit_many(LOGISTIC, **given, solver=solver)
    expected = [Status.CONVERGED] * B
    expected[2] = Status.CLASS_ABSENT
    assert fits.status.tolist() == expected
    for i in np.setdiff1d(np.arange(B), 2):
        theta, _ = by_hand(LOGISTIC, **lane(given, ("weights",), i))
        # A gap of 1e-8 leaves sqrt(2e-8 / λ), λ > 1/2 the least eigenvalue of the Hessian.
        np.testing.assert_allclose(matrix(fits.lane(i).params)[0], theta[0], atol=2e-4)
        assert 0 <= fits.gap[i] <= 1e-8


def start_of_cloglog(key, x, y=None, weights=None):
    del key, y, weights
    return {"scale": jnp.zeros(x.shape[-1], x.dtype), "shift": jnp.zeros((), x.dtype)}


def log_prob_of_cloglog(params, x, y, *, offset=None):
    """p(y=1|x) = 1 - exp(-exp(z))."""
    del offset
    rate = jnp.exp(jnp.vdot(x, params["scale"]) + params["shift"])
    return jnp.where(y == 1, jnp.log(-jnp.expm1(-rate)), -rate)


def log_likelihood_of_cloglog(params, x, y, weights=None, *, offset=None):
    terms = jax.vmap(partial(log_prob_of_cloglog, params))(x, y)
    return jnp.sum(terms if weights is None else weights * terms)


CLOGLOG = Model(
    name="complementary log-log regression",
    variables=Variables.conditional(Classes(2)),
    init=Bind(start_of_cloglog),
    log_prob=Bind(log_prob_of_cloglog),
    objective=Likelihood(Bind(log_likelihood_of_cloglog)),
)


def test_a_model_without_proofs_or_derivatives(x64):
    given = draw_lanes(LOGISTIC, ("y", "weights"))
    given["weights"] += 0.5  # statsmodels divides by them
    fits = fit_many(CLOGLOG, **given)
    assert fits.status.tolist() == [Status.CONVERGED] * B
    assert not fits.report().failures
    link = sm.families.Binomial(link=sm.families.links.CLogLog())
    for i in range(B):
        args = lane(given, ("y", "weights"), i)
        x = sm.add_constant(args["x"], prepend=False)
        theirs = sm.GLM(args["y"], x, family=link, freq_weights=args["weights"])
        theirs = theirs.fit(tol=1e-14, maxiter=100)
        one = fits.lane(i)
        got = np.append(one.params["scale"], one.params["shift"])
        np.testing.assert_allclose(got, theirs.params, rtol=0, atol=EIGHT_DIGITS)
        np.testing.assert_allclose(one.log_likelihood, theirs.llf, rtol=1e-10)
        errors = np.sqrt(np.diag(np.linalg.inv(-theirs.model.hessian(theirs.params))))
        np.testing.assert_allclose(jp.summary(one).standard_error, errors, rtol=1e-6)
    with pytest.raises(ValueError, match="l1, l2: complementary log-log regression has no param"):
        fit_many(CLOGLOG, **given, l2=[1.0] * B)
    with pytest.raises(ValueError, match="offset: expected none, since the model takes no offset"):
        fit_many(CLOGLOG, **given, offset=np.zeros((B, N)))
