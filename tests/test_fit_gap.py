"""The certificate: `gap` bounds the distance to the optimal objective, wherever a run ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import Status, fit
from jaxprob.models import logistic, softmax
from jaxprob.solvers import lbfgs, newton, proximal

NUM_LANES = 40
N, D = 50, 3

MODELS = {
    "logistic": logistic.model(),
    "logistic without bias": logistic.model(bias=False),
    "reference": softmax.model(3),
    "symmetric": softmax.model(3, parameterisation="symmetric"),
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
    num_classes = model.labels.num_classes
    x = rng.normal(size=(NUM_LANES, N, D)) * rng.choice([0.1, 1.0, 5.0], (NUM_LANES, 1, D))
    z = x @ rng.normal(size=(NUM_LANES, D, num_classes)) / 2
    y = np.argmax(z + rng.gumbel(size=z.shape), axis=-1)
    y[:, : 2 * num_classes] = np.tile(np.arange(num_classes), 2)
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


def fit_lanes(model, data, solver=None):
    return jax.jit(jax.vmap(lambda kw: fit(model, solver=solver, **kw)))(data)


def objective(model, params, data):
    """(lanes,) float64: the objective with its penalties, by the specification `log_prob`."""

    def one(params, lane):
        def log_prob(x, y, offset):
            return model.log_prob(params, x, y, offset=offset)

        values = jax.vmap(log_prob)(lane["x"], lane["y"], lane["offset"])
        w = params.weights
        penalty = lane.get("l2", 0.0) / 2 * jnp.sum(w**2) + lane.get("l1", 0.0) * jnp.sum(abs(w))
        return penalty - jnp.sum(lane["weights"] * values)

    wide = jax.tree.map(
        lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else jnp.asarray(a),
        (params, data),
    )
    return jax.vmap(one)(*wide)


def assert_gap_holds(model, data, fits, best, dtype):
    """f - f* ≤ gap, to the rounding of f in the dtype of the fit."""
    excess = objective(model, fits.params, data) - best
    f = np.abs(best) + np.asarray(fits.gap < np.inf) * np.abs(excess)
    rounding = N * np.finfo(dtype).eps * (1 + f)
    proved = np.isfinite(fits.gap)
    assert np.all(np.asarray(fits.gap) >= 0)
    assert np.all((excess <= np.asarray(fits.gap, np.float64) + rounding)[proved])
    return excess, proved


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", MODELS)
def test_gap_bounds_the_distance_to_the_optimum(x64, name, penalty):
    model = MODELS[name]
    data = problems(model, penalty, "float64")
    make = proximal if "l1" in data else newton
    optimum = fit_lanes(model, data, make(tol=1e-13))
    fitted = np.asarray(optimum.gap) < 1e-9
    assert np.mean(fitted) > 0.8
    data = jax.tree.map(lambda a: a[fitted], data)
    best = objective(model, optimum.params, optimum_data := data) if np.all(fitted) else None
    if best is None:
        kept = jax.tree.map(lambda a: a[fitted], optimum.params)
        best = objective(model, kept, optimum_data)
    for max_steps in (0, 1, 2, 3, 100):
        fits = fit_lanes(model, data, make(max_steps=max_steps))
        _, proved = assert_gap_holds(model, data, fits, best, "float64")
        if max_steps == 100:
            assert np.all(proved)
            assert np.all(fits.status == Status.CONVERGED)
