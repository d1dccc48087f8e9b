"""The contract of a model, which every one of the library keeps."""

import importlib
import pickle
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENTRIES, compiled, each_y
from jax.flatten_util import ravel_pytree
from tolerances import EPS, SAME_SUM

import jaxprob as jp
from jaxprob.contract import Trait
from jaxprob.many import fit_many
from jaxprob.runtime import programs
from jaxprob.testing import assert_gradients_match, assert_hessians_match

OFTEN = (
    *("decision tree", "random forest"),
    *(
        "logistic",
        "softmax",
        "linear",
        "Poisson",
        "Gaussian mixture, full",
        "Gaussian mixture, gaps",
    ),
    *(
        "Dirichlet mixture",
        "kernel density, full",
        "nearest-neighbour density",
        "nearest-neighbour classifier",
    ),
    *(name for name in ENTRIES if name.startswith("naive")),
)
EACH = [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in ENTRIES]


@pytest.fixture(params=EACH)
def entry(request):
    """Each model."""
    return ENTRIES[request.param]


USUAL = "naive Bayes, mixed", "Gaussian mixture, tied"
COMPILED = [
    pytest.param(name, marks=() if name in USUAL else pytest.mark.slow)
    for name in ENTRIES
    if name == "softmax" or not name.startswith(("logistic", "softmax"))
]  # those with linear logits have tests of their own


COMPILED_PROGRAMS = []


def listen(name, *_args, **_kwargs):
    if name == "/jax/core/compile/backend_compile_duration":
        COMPILED_PROGRAMS.append(name)


jax.monitoring.register_event_duration_secs_listener(listen)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def test_no_public_model_is_missing():
    found = pkgutil.walk_packages(jp.models.__path__, "jaxprob.models.")
    modules = [importlib.import_module(one.name) for one in found]
    public = {m.__name__ for m in modules if hasattr(m, "model")}
    assert public == {m.__name__ for m in vars(jp.models).values() if hasattr(m, "model")}
    of = [entry.model.log_prob for entry in ENTRIES.values()]
    tested = {getattr(log_prob, "fn", log_prob).__module__ for log_prob in of}
    assert public == tested


@pytest.mark.digits
def test_the_density_is_normalised(entry, dtype):
    example = entry.draw(entry.model, 0, dtype=dtype)
    rounding = 64 * EPS[dtype] * example.x.shape[1] ** 2
    assert abs(entry.mass(entry.model, example) - 1) <= rounding + entry.mass_error


@pytest.mark.digits
def test_the_log_likelihood_is_the_sum_over_examples(entry, dtype):
    model = entry.model
    example = entry.draw(model, 1, dtype=dtype)
    params, x, _, weights, extras = example
    terms = example.terms(model)
    assert terms.shape == (len(x),)
    assert terms.dtype == dtype
    terms = np.asarray(terms, np.float64) * np.asarray(weights, np.float64)
    got = compiled(model.objective.log_likelihood)(params, *example.data, weights, **extras)
    assert got.dtype == dtype
    assert abs(float(got) - terms.sum()) <= SAME_SUM[dtype] * np.abs(terms).sum()


@pytest.mark.digits
@pytest.mark.parametrize(
    ("seed", "dtype"),
    [(0, "float32"), pytest.param(1, "float64", marks=pytest.mark.slow)],
    indirect=["dtype"],  # both are compared with derivatives in float64
)
def test_derivatives_by_hand_are_those_of_jax(entry, dtype, seed):
    model = entry.model
    example = entry.draw(model, seed, n=20, dtype=dtype)

    def bound(fn):
        return lambda params, data, weights: fn(params, *data, weights, **example.extras)

    args = example.params, example.data, example.weights
    value = bound(model.objective.log_likelihood)
    if model.objective.grad is None:
        pytest.skip("no derivative by hand: jax.grad takes its place in fits")
    assert_gradients_match(value, bound(model.objective.grad), *args, hard=entry.hard)
    if model.objective.information is not None:
        hand = bound(model.objective.information)
        assert_hessians_match(value, lambda *a: -hand(*a), *args, hard=entry.hard)


def np_leaves(results):
    """Each of some results as one vector."""
    return [flat(a) for a in jax.device_get(results)]


def functions(model):
    """Those that sum over examples."""
    of = model.objective
    some = (of.value, of.log_likelihood, of.grad, of.information)
    return [fn for fn in dict.fromkeys(some) if fn is not None]


def densities(model, example):
    """Functions of (params, examples, weights) that cannot tell weights from repeats.

    A leave-one-out likelihood can: an example's repeats are other examples, its weight is its own.
    """
    if Trait.SUM in model.offers:
        return functions(model)
    own = example.data
    return [lambda params, *data: model.objective.density(params, *own, *data)]


def test_calls_outside_of_jit_compile_once(entry, x64, monkeypatch):
    monkeypatch.setattr(programs, "_MOST_MAPS", 1 << 16)  # tests before may have left many
    model = entry.model
    example = entry.draw(model, 5, n=30)
    params, x, extras, made_of = example.params, example.x, example.extras, example.made_of(model)

    def call():
        for fn in (*functions(model), model.objective.value_and_grad):
            if fn is not None:
                fn(params, *example.data, example.weights, **extras)
        if model.predict.log_proba is not None:
            model.predict.log_proba(params, x, *made_of, **extras)
        if Trait.SUM not in model.offers:
            model.objective.density(params, *example.data, *made_of)

    call()
    COMPILED_PROGRAMS.clear()
    call()
    assert not COMPILED_PROGRAMS


def test_weights_are_repeats(entry, x64):
    model = entry.model
    example = entry.draw(model, 3, n=12)
    params, x, extras = example.params, example.x, example.extras
    times = np.random.default_rng(0).integers(0, 4, 12)
    again = {name: np.repeat(a, times, axis=0) for name, a in extras.items()}
    data = tuple(np.repeat(a, times, axis=0) for a in example.data)
    for fn in map(compiled, densities(model, example)):
        weighted = flat(fn(params, *example.data, times.astype(x.dtype), **extras))
        repeated = flat(fn(params, *data, **again))
        scale = np.max(np.abs(repeated)) + float(np.nansum(data[0] ** 2)) + len(data[0])
        np.testing.assert_allclose(weighted, repeated, rtol=0, atol=SAME_SUM["float64"] * scale)


def test_jit_is_eager_and_vmap_is_a_loop(entry, x64):
    model = entry.model
    cases = [entry.draw(model, seed) for seed in range(3)]
    together = jax.tree.map(lambda *a: np.stack(a), *cases)

    def call(example):
        args = example.params, *example.data, example.weights
        return [fn(*args, **example.extras) for fn in functions(model)]

    lanes, jitted = jax.jit(jax.vmap(call))(together), jax.jit(call)
    for i, case in enumerate(cases):
        lane = jax.tree.map(lambda a, i=i: np.asarray(a)[i], lanes)
        for eager, *others in zip(*map(np_leaves, (call(case), lane, jitted(case))), strict=True):
            size = np.max(np.abs(eager)) + float(np.nansum(flat_rows(case.x) ** 2))
            for other in others:
                np.testing.assert_allclose(
                    other, eager, rtol=0, atol=SAME_SUM["float64"] * (1 + size)
                )


def test_functions_of_a_model_can_be_compiled_as_they_are(entry):
    model = entry.model
    params, _, _, weights, extras = example = entry.draw(model, 4, dtype="float32")
    value = jax.jit(model.objective.log_likelihood)(params, *example.data, weights, **extras)
    expected = model.objective.log_likelihood(params, *example.data, weights, **extras)
    assert jnp.allclose(value, expected, rtol=1e-5)


def test_probabilities_of_classes_are_those_of_the_density(entry, dtype):
    model = entry.model
    if model.variables.num_classes is None:
        pytest.skip("no classes; components are tested with their own model")
    params, x, y, _, extras = example = entry.draw(model, 5, dtype=dtype)
    rest = example.made_of(model)
    log_p = model.predict.log_proba(params, x, *rest, **extras)
    k = model.variables.num_classes
    assert log_p.shape == (len(y), k)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_p), axis=1), 1.0, atol=16 * EPS[dtype])
    own = {name: a[0] for name, a in extras.items()}
    each = jnp.stack([model.log_prob(params, x[0], j, *rest, **own) for j in range(k)])
    scale = 64 * EPS[dtype] * (1 + jnp.max(jnp.abs(each)))
    np.testing.assert_allclose(log_p[0], jax.nn.log_softmax(each), rtol=0, atol=scale)


def test_the_mean_is_that_of_the_density(entry, dtype):
    model = entry.model
    if model.predict.mean is None:
        pytest.skip("no mean: y is a label, or there is none")
    example = entry.draw(model, 5, dtype=dtype)
    mean = model.predict.mean(example.params, example.x, **example.extras)
    assert mean.shape == (len(example.x),)
    assert mean.dtype == dtype
    y, p = each_y(model, example)
    assert abs(float(mean[0]) - y @ p) <= 64 * EPS[dtype] * (1 + np.abs(y) @ p) * len(p) ** 0.5


def test_samples_have_the_moments_of_the_density(entry, dtype):
    """Of classes, and of each feature times each class: within 5 standard errors."""
    model, count = entry.model, 20_000
    params, x, _, _, extras = example = entry.draw(model, 6, n=5, dtype=dtype)
    if model.predict.sample is None:
        pytest.skip("no finite mass: there is nothing to draw from")
    made_of = example.made_of(model)
    if model.variables.y is None:
        drawn = model.predict.sample(params, jax.random.key(0), count, *made_of)
        assert drawn.shape == (count, x.shape[1])
        assert drawn.dtype == dtype
        if made_of:
            assert_powers_have_their_mean(model, params, drawn, *made_of)
        else:
            assert_scores_vanish(model, params, drawn)
        return
    if model.variables.is_conditional:
        keys = jax.random.split(jax.random.key(0), count)
        draw = jax.vmap(lambda key: model.predict.sample(params, key, x, *made_of, **extras))
        draws = jax.jit(draw)(keys)
        if model.variables.num_classes is None:
            assert_means_and_scores(model, example, draws)
            return
        assert draws.dtype == jnp.int32
        p = np.exp(flat_rows(model.predict.log_proba(params, x, *made_of, **extras)))
        for k in range(model.variables.num_classes):
            share = np.mean(np.asarray(draws) == k, axis=0)
            error = np.sqrt(p[:, k] * (1 - p[:, k]) / count)
            assert np.all(np.abs(share - p[:, k]) <= 5 * error + 1 / count)
        return
    many = jnp.repeat(x[:1], count, axis=0)
    drawn, y = model.predict.sample(params, jax.random.key(0), many)
    assert drawn.shape == many.shape
    assert drawn.dtype == dtype
    assert y.dtype == jnp.int32
    assert_scores_vanish(model, params, drawn, y)


def assert_scores_vanish(model, params, *drawn):
    """Under its own density the mean gradient is zero."""
    grad = model.objective.grad or jax.grad(model.objective.log_likelihood)
    one = jax.vmap(lambda *own: ravel_pytree(grad(params, *[a[None] for a in own]))[0])
    scores = flat_rows(jax.jit(one)(*drawn))
    error = np.std(scores, axis=0) / np.sqrt(len(scores))
    assert np.all(np.abs(np.mean(scores, axis=0)) <= 5 * error + 1e-12)


def assert_means_and_scores(model, example, draws):
    """Draws (m, n) of numbers: their means, and gradients whose mean is zero for each example."""
    params, x, _, _, extras = example
    draws = np.asarray(draws)
    error = np.std(draws, axis=0) / len(draws) ** 0.5
    mean = np.asarray(model.predict.mean(params, x, **extras))
    assert np.all(np.abs(draws.mean(axis=0) - mean) <= 5 * error)

    @jax.jit
    def scores_of(x, y, own):
        grad = jax.grad(lambda params, y: model.log_prob(params, x, y, **own))
        return jax.vmap(lambda y: ravel_pytree(grad(params, y))[0])(y)

    for i in range(len(x)):
        own = {name: np.asarray(a)[i] for name, a in extras.items()}
        scores = scores_of(np.asarray(x)[i], np.asarray(draws[:, i], x.dtype), own)
        error = np.std(scores, axis=0) / len(draws) ** 0.5
        assert np.all(np.abs(np.mean(flat_rows(scores), axis=0)) <= 5 * error)


def assert_powers_have_their_mean(model, params, drawn, points, weights):
    """Those of the first column, against quadrature over its density."""
    drawn = flat_rows(drawn)
    grid = np.linspace(drawn.min() - 1, drawn.max() + 1, 1001)
    cell = grid[1] - grid[0]
    axes = [grid] * points.shape[1]
    every = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1), points.dtype)
    p = model.objective.density(params, every.reshape(-1, len(axes)), points, weights)
    p = np.exp(flat_rows(p)).reshape([len(grid)] * len(axes)) * cell ** len(axes)
    p = p.reshape(len(grid), -1).sum(axis=1)
    for power in (1, 2, 3):
        error = np.std(drawn[:, 0] ** power) / np.sqrt(len(drawn))
        mean = np.sum(p * grid**power)
        assert abs(np.mean(drawn[:, 0] ** power) - mean) <= 5 * error + 1e-3 * np.sum(
            p * np.abs(grid) ** power
        )


def flat_rows(a):
    return np.asarray(a, np.float64)


def test_a_fit_is_a_maximum(entry, x64):
    model = entry.model
    _, _, _, weights, extras = example = entry.draw(model, 7, n=200)
    found = jp.fit(model, *example.data, weights=weights, **extras, solver=entry.solver)
    assert jp.Status(int(found.status)).name == "CONVERGED"
    if Trait.SEARCH in model.offers:
        value = float(
            model.objective.log_likelihood(found.params, *example.data, weights, **extras)
        )
        assert abs(float(found.objective) - value) <= 1e-12 * abs(value)
        assert np.isnan(float(found.grad_norm))
        return
    assert float(found.grad_norm) <= 1e-6
    assert float(found.gap) <= 1e-9

    theta, back = ravel_pytree(found.params)

    @jax.jit
    def objective_at(theta):
        params = back(theta)
        follows = model.hyperparameters(*example.data, weights=weights)
        prior = 0.0 if model.prior is None else model.prior.log_prob(params, *follows)
        return model.objective.value(params, *example.data, weights, **extras) + prior

    def objective(theta):
        return float(objective_at(theta))

    theta = np.asarray(theta)
    best = objective(theta)
    assert abs(float(found.objective) - best) <= 1e-12 * abs(best)
    value = float(model.objective.log_likelihood(found.params, *example.data, weights, **extras))
    assert abs(float(found.log_likelihood) - value) <= 1e-12 * abs(value)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1):
        others = [theta + size * rng.standard_normal(len(theta)) for _ in range(5)]
        assert max(map(objective, others)) <= best + 1e-10 * abs(best)


@pytest.mark.parametrize("name", COMPILED)
def test_fits_of_lanes_are_fits(name, x64):
    entry = ENTRIES[name]
    model = entry.model
    example = entry.draw(model, 8, n=120)
    rng = np.random.default_rng(1)
    weights = rng.multinomial(120, np.full(120, 1 / 120), size=5).astype(float)
    settings = example.extras | {"solver": entry.solver}
    fits = fit_many(model, *example.data, weights=weights, **settings)

    def one(w):
        return jp.fit(model, *example.data, weights=w, **settings)

    mapped = jax.vmap(one)(jnp.asarray(weights))
    for i in range(5):
        alone = flat(one(weights[i]).params)
        for lanes in (fits, mapped):
            assert int(lanes.status[i]) == jp.Status.CONVERGED
            lane = flat(jax.tree.map(lambda a, i=i: np.asarray(a)[i], lanes.params))
            size = np.abs(alone[np.isfinite(alone)]).max()
            np.testing.assert_allclose(lane, alone, rtol=0, atol=1e-8 * (1 + size))


@pytest.mark.parametrize("name", COMPILED)
def test_the_derivative_of_a_fit_is_that_of_the_optimum(name, x64):
    entry = ENTRIES[name]
    model = entry.model
    _, _, _, weights, extras = example = entry.draw(model, 9, n=60)
    weights, settings = weights + 0.5, extras | {"solver": entry.solver}

    if Trait.SEARCH in model.offers:
        with pytest.raises(TypeError, match="is chosen rather than computed"):
            jax.grad(lambda w: jp.fit(model, *example.data, weights=w).log_likelihood)(weights)
        return

    def at(weights):
        params = jp.fit(model, *example.data, weights=weights, **settings).params
        canonical = model.geometry.canonical or (lambda params: params)
        return ravel_pytree(canonical(params))[0]

    along = jnp.asarray(np.random.default_rng(2).standard_normal(60))
    step = 1e-4
    numerical = (at(weights + step * along) - at(weights - step * along)) / (2 * step)
    cotangent = jnp.asarray(np.random.default_rng(3).standard_normal(len(numerical)))

    @jax.jit  # one program with one fit in it, rather than three
    def both(weights):
        forward = jax.linearize(at, weights)[1]
        return forward(along), jax.linear_transpose(forward, weights)(cotangent)[0]

    forward, backward = map(np.asarray, both(weights))
    scale = 1 + np.abs(numerical).max()
    np.testing.assert_allclose(forward, numerical, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(backward @ along, forward @ cotangent, rtol=1e-8, atol=1e-8 * scale)


def test_bad_input_is_named(entry):
    model = entry.model
    _, x, y, weights, _ = example = entry.draw(model, 10, dtype="float32")
    may_miss = model.variables.x.missing
    numbers = "x: expected finite numbers" + (" or NaN" if may_miss else "")
    for bad in ("inf",) if may_miss else ("nan", "inf"):
        with pytest.raises(ValueError, match=f"{numbers}, got {bad} in row 2, column 0"):
            jp.fit(model, x.at[2, 0].set(float(bad)), *example.data[1:])
    if y is None:
        with pytest.raises(ValueError, match="y: expected none, since the model is a density of x"):
            jp.fit(model, x, jnp.zeros(len(x), int))
    else:
        words = re.escape(model.variables.y.words)
        with pytest.raises(ValueError, match=f"y: expected {words} .* got None"):
            jp.fit(model, x)
        num_classes = model.variables.num_classes
        wrong = jnp.nan if num_classes is None else num_classes
        with pytest.raises(ValueError, match=rf"y: expected .*, got {wrong}"):
            jp.fit(model, x, y.at[0].set(wrong))
    with pytest.raises(ValueError, match="weights: expected finite numbers of at least 0"):
        jp.fit(model, *example.data, weights=weights.at[0].set(-1.0))
    with pytest.raises(ValueError, match=r"weights: expected a positive sum"):
        jp.fit(model, *example.data, weights=0 * weights)
    if entry.bad_x is None:
        return
    wrong = x.at[2, 0].set(entry.bad_x)
    with pytest.raises(ValueError, match=rf"got {entry.bad_x} in row 2, column 0"):
        jp.fit(model, wrong, y)
    with pytest.raises(ValueError, match=rf"got {entry.bad_x} in row 2, column 0"):
        jp.fit(model, np.asarray(wrong), y)
    lanes = jnp.stack([x, wrong])
    status = jax.vmap(lambda x: jp.fit(model, x, y).status)(lanes)
    assert status.tolist() == [jp.Status.CONVERGED, jp.Status.INVALID_INPUT]
    assert fit_many(model, lanes, y).status.tolist() == status.tolist()


def test_models_compare_by_value_and_travel(entry):
    model = entry.model
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(pickle.loads(pickle.dumps(model))) == hash(model)
    assert sum(model == other.model for other in ENTRIES.values()) == 1
