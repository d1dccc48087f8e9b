"""The certificate: `gap` bounds the distance to the optimal objective, wherever a run ends."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import Status, fit
from jaxprob.models import logistic, poisson, softmax
from jaxprob.solvers import lbfgs, newton, proximal

NUM_LANES = 40
N, D = 50, 3

MODELS = {
    "logistic": logistic.model(),
    "logistic without bias": logistic.model(bias=False),
    "reference": softmax.model(3),
    "symmetric": softmax.model(3, parameterisation="symmetric"),
    "Poisson": poisson.model(),
    "Poisson without bias": poisson.model(bias=False),
}
PENALTIES = {
    "none": {},
    "l2": {"l2": [1e-3, 1e-1, 10.0]},
    "l1": {"l1": [1e-2, 0.5, 3.0]},
    "both": {"l1": [0.3, 1.0, 1e-2], "l2": [1e-3, 2.0, 0.1]},
}


def problems(model, penalty, dtype):
    """One random problem a lane, labels drawn from the model, with weights and offsets."""
    rng = np.random.default_rng(1)
    counts = model.variables.num_classes is None
    num_classes = model.variables.num_classes or 2
    x = rng.normal(size=(NUM_LANES, N, D)) * rng.choice([0.1, 1.0, 5.0], (NUM_LANES, 1, D))
    z = x @ rng.normal(size=(NUM_LANES, D, num_classes)) / 2
    y = np.argmax(z + rng.gumbel(size=z.shape), axis=-1)
    y[:, : 2 * num_classes] = np.tile(np.arange(num_classes), 2)
    y = rng.poisson(np.exp(np.clip(z[..., 0], -9, 9))) if counts else y
    offset = rng.normal(size=(NUM_LANES, N) if num_classes == 2 else (NUM_LANES, N, num_classes))
    data = {
        "x": x.astype(dtype),
        "y": y.astype(np.int32),
        "weights": rng.choice([0.0, 0.5, 1.0, 3.0], (NUM_LANES, N)).astype(dtype),
        "offset": offset.astype(dtype),
    }
    for name, values in PENALTIES[penalty].items():
        data[name] = np.resize(values, NUM_LANES).astype(dtype)
    return data


@partial(jax.jit, static_argnames=["model", "make", "max_steps"])
def fit_lanes(data, tol, *, model, make, max_steps=100):
    """All lanes, each until its gap is below tol, which is traced: early stops compile nothing."""
    solver = make(tol=tol, max_steps=max_steps)
    return jax.vmap(lambda kw: fit(model, solver=solver, **kw))(data)


def lanes_of(tree, keep):
    return jax.tree.map(lambda a: a[keep], tree)


def objective(model, params, data):
    """(lanes,) in float64: the objective with its penalties, by the specification `log_prob`."""

    def one(params, lane):
        def log_prob(x, y, offset):
            return model.log_prob(params, x, y, offset=offset)

        values = jax.vmap(log_prob)(lane["x"], lane["y"], lane["offset"])
        w = params.weights
        penalty = lane.get("l2", 0.0) / 2 * jnp.sum(w**2) + lane.get("l1", 0.0) * jnp.sum(abs(w))
        return penalty - jnp.sum(lane["weights"] * values)

    def widen(a):
        return jnp.asarray(a, jnp.float64 if jnp.issubdtype(a.dtype, jnp.floating) else a.dtype)

    return np.asarray(jax.vmap(one)(*jax.tree.map(widen, (params, data))))


def solved(model, data, make):
    """The lanes that have an optimum, known to 1e-10 nats, and the objective there."""
    fits = fit_lanes(data, 1e-14, model=model, make=make)
    keep = np.asarray(fits.gap) < 1e-10
    assert np.mean(keep) > 0.7
    return keep, objective(model, lanes_of(fits.params, keep), lanes_of(data, keep))


def assert_gap_holds(model, data, fits, best, dtype):
    """Check f - f* ≤ gap to the rounding of a sum of N terms; return f - f* where gap is finite."""
    excess = objective(model, fits.params, data) - best
    gap = np.asarray(fits.gap, np.float64)
    rounding = 1e-10 + N * np.finfo(dtype).eps * (1 + np.abs(best))
    proved = np.isfinite(gap)
    assert np.all(gap >= 0)
    assert np.all(excess >= -rounding)
    assert np.all((excess <= gap + rounding)[proved])
    return excess[proved], gap[proved]


CASES = [
    ("logistic", "none"),
    ("symmetric", "l2"),
    ("Poisson", "none"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("logistic", "l2"),
            ("logistic", "both"),
            ("reference", "none"),
            ("logistic", "l1"),
            ("logistic without bias", "l2"),
            ("reference", "l1"),
            ("symmetric", "both"),
            ("Poisson", "l2"),
            ("Poisson", "l1"),
            ("Poisson without bias", "both"),
        )
    ),
]


@pytest.mark.parametrize(("name", "penalty"), CASES)
@pytest.mark.usefixtures("x64")
def test_gap_bounds_the_distance_to_the_optimum(name, penalty):
    model, data = MODELS[name], problems(MODELS[name], penalty, "float64")
    make = proximal if "l1" in data else newton
    keep, best = solved(model, data, make)
    far = False
    for tol in (np.inf, 10.0, 1.0, 1e-2, 1e-5, 1e-8):
        fits = lanes_of(fit_lanes(data, tol, model=model, make=make), keep)
        excess, gap = assert_gap_holds(model, lanes_of(data, keep), fits, best, "float64")
        far |= np.any(excess > 1e-6) and len(gap) > 0
    assert far  # the bound was tried away from the optimum too
    assert np.all(fits.status == Status.CONVERGED)
    assert np.all(np.asarray(fits.gap) <= 1e-8)


@pytest.mark.parametrize("name", ["logistic", "Poisson"])
@pytest.mark.slow
def test_gap_in_float32_bounds_the_distance_to_the_float64_optimum(name):
    model = MODELS[name]
    with jax.enable_x64(True):
        data = problems(model, "l2", "float64")
        keep, best = solved(model, data, newton)
    narrow = problems(model, "l2", "float32")
    for tol in (np.inf, 1.0, 1e-4, 0.0):
        fits = jax.device_get(fit_lanes(narrow, np.float32(tol), model=model, make=newton))
        with jax.enable_x64(True):
            # The rounded data have an optimum of their own, n · eps · |z| away.
            args = lanes_of(narrow, keep), lanes_of(fits, keep), best
            assert_gap_holds(model, *args, "float32")


@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_gap_holds_where_the_steps_ran_out(penalty):
    model, data = MODELS["logistic"], problems(MODELS["logistic"], penalty, "float64")
    make = proximal if "l1" in data else newton
    keep, best = solved(model, data, make)
    fits = lanes_of(fit_lanes(data, 1e-14, model=model, make=make, max_steps=2), keep)
    assert np.any(np.asarray(fits.status) == Status.MAX_STEPS)
    excess, gap = assert_gap_holds(model, lanes_of(data, keep), fits, best, "float64")
    assert len(gap) > 5


@pytest.mark.parametrize("sample_rows", [pytest.param(16, marks=pytest.mark.slow), None])
@pytest.mark.usefixtures("x64")
def test_the_bound_of_lbfgs_from_some_rows_holds(sample_rows):
    model, data = MODELS["logistic"], problems(MODELS["logistic"], "l2", "float64")
    keep, best = solved(model, data, newton)
    make = partial(lbfgs, sample_rows=sample_rows)
    for tol in (np.inf, 1.0, 1e-4, 1e-8):
        fits = lanes_of(fit_lanes(data, tol, model=model, make=make), keep)
        assert_gap_holds(model, lanes_of(data, keep), fits, best, "float64")
    assert np.all(fits.status == Status.CONVERGED)


@pytest.mark.usefixtures("x64")
def test_the_cheap_bound_of_lbfgs_holds_where_it_converges():
    """Eagerly nothing replaces the bound that the run itself computed from some of the rows."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 4))
    y = (x @ [1.0, -1.0, 0.5, 0.0] + rng.logistic(size=3000) > 0).astype(int)
    best = fit(logistic.model(), x, y, solver=newton(tol=1e-14))
    for tol in (10.0, 1e-1, 1e-3, 1e-6):
        result = fit(logistic.model(), x, y, solver=lbfgs(tol=tol, sample_rows=600))
        assert result.status == Status.CONVERGED
        excess = best.log_likelihood - result.log_likelihood
        rounding = 3000 * np.finfo(float).eps * abs(best.log_likelihood)
        assert -rounding <= excess <= result.gap + rounding
        assert result.gap <= tol
