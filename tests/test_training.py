"""Training by gradients: what its statuses say, keys for random starts, examples held out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob as jp
from jaxprob.contract import Classes, Model, Variables
from jaxprob.models import gaussian_mixture, logistic
from jaxprob.runtime import programs
from jaxprob.solvers import gradient

N, D, WIDTH = 300, 5, 8
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D)).astype("float32")
Y = (np.abs(X[:, 0]) + RNG.logistic(size=N) / 4 > 0.7).astype("int32")


def init(key, x, y, weights=None):
    key = jax.random.key(0) if key is None else key
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (x.shape[1], WIDTH)) / x.shape[1] ** 0.5,
        "second": jax.random.normal(second, (WIDTH, 2)) / WIDTH**0.5,
    }


def log_prob(params, x, y):
    return jax.nn.log_softmax(jnp.tanh(x @ params["first"]) @ params["second"])[y]


NETWORK = Model("network", Variables.conditional(Classes(2)), init, log_prob)
ADAM = {"learning_rate": 1e-2, "batch_size": 50, "key": jax.random.key(7)}


def test_a_run_that_proves_nothing_is_trained():
    fit = jp.fit(NETWORK, X, Y, solver=gradient(optax.adam, max_steps=20, **ADAM))
    assert jp.Status(int(fit.status)) is jp.Status.TRAINED
    assert int(fit.num_steps) == 20
    assert bool(fit.usable)
    assert not jp.report(fit).failures
    value = sum(log_prob(fit.params, x, y) for x, y in zip(jnp.asarray(X), Y, strict=True))
    np.testing.assert_allclose(fit.log_likelihood, value, rtol=1e-5)


def test_no_hessian_is_computed_that_nobody_asked_for(monkeypatch):
    def refuse(*args):
        raise AssertionError("a matrix of second derivatives")

    monkeypatch.setattr(jp.solvers.Problem, "information", refuse)
    model = Model("another network", Variables.conditional(Classes(2)), init, log_prob)
    jp.fit(model, X, Y, solver=gradient(optax.adam, max_steps=2, **ADAM))


def test_keys_say_where_a_fit_starts():
    look = gradient(optax.adam, max_steps=0, **ADAM)
    starts = [jp.fit(NETWORK, X, Y, solver=look, key=jax.random.key(i)).params for i in (1, 1, 2)]
    expected = init(jax.random.key(1), X, Y)
    for leaf in expected:
        np.testing.assert_allclose(starts[0][leaf], expected[leaf], rtol=1e-6)
        assert np.array_equal(starts[0][leaf], starts[1][leaf])
        assert not np.allclose(starts[0][leaf], starts[2][leaf])
    keys = jax.random.split(jax.random.key(3), 4)
    weights = np.ones((4, N), "float32")
    for key in (keys, jax.random.key(3)):
        fits = jp.fit_many(NETWORK, X, Y, weights=weights, solver=look, key=key)
        for i in range(4):
            one = init(keys[i], X, Y)
            np.testing.assert_allclose(fits.params["first"][i], one["first"], rtol=1e-6)


def test_lanes_are_trained_as_alone():
    solver = gradient(optax.adam, max_steps=30, held_out=0.3, patience=3, **ADAM)
    keys = jax.random.split(jax.random.key(5), 3)
    weights = RNG.integers(1, 4, (3, N)).astype("float32")
    fits = jp.fit_many(NETWORK, X, Y, weights=weights, solver=solver, key=keys)
    for i in range(3):
        one = jp.fit(NETWORK, X, Y, weights=weights[i], solver=solver, key=keys[i])
        assert int(one.status) == int(fits.status[i])
        assert int(one.num_steps) == int(fits.num_steps[i])
        np.testing.assert_allclose(fits.objective[i], one.objective, rtol=1e-4)
        np.testing.assert_allclose(fits.params["second"][i], one.params["second"], atol=1e-3)


def test_the_parameters_are_the_best_by_the_held_out_examples(x64):
    x, y = X.astype("float64"), RNG.integers(0, 2, N)  # noise: there is nothing to learn
    key = jax.random.key(7)
    settings = {"learning_rate": 0.05, "key": key, "held_out": 0.4, "patience": 4}
    fit = jp.fit(NETWORK, x, y, solver=gradient(optax.adam, max_steps=200, **settings))
    assert jp.Status(int(fit.status)) is jp.Status.BEST_HELD_OUT
    assert bool(fit.usable)
    steps = int(fit.num_steps)
    assert steps < 200
    out = np.asarray(jax.random.uniform(jax.random.fold_in(key, 0), (N,), "float64") < 0.4)

    def score(params):
        each = jax.vmap(log_prob, (None, 0, 0))(params, jnp.asarray(x), jnp.asarray(y))
        return float(jnp.mean(each[out]))

    def after(k):
        settings = {"learning_rate": 0.05}
        weights = (~out).astype("float64")
        return jp.fit(
            NETWORK, x, y, weights=weights, solver=gradient(optax.adam, max_steps=k, **settings)
        ).params

    scores = [score(after(k)) for k in range(steps + 1)]
    assert int(np.argmax(scores)) == steps - 4
    np.testing.assert_allclose(score(fit.params), max(scores), rtol=1e-10)


def test_training_that_explodes_keeps_the_last_finite_parameters():
    x = X * 1e18
    solver = gradient(optax.sgd, learning_rate=1e18, max_steps=50)
    fit = jp.fit(logistic.model(), x, Y, solver=solver)
    assert jp.Status(int(fit.status)) is jp.Status.DIVERGED
    assert not bool(fit.usable)
    assert all(bool(jnp.all(jnp.isfinite(a))) for a in jax.tree.leaves(fit.params))
    assert "lower the learning rate" in jp.report(fit).failures[0].reason


def test_mixtures_start_elsewhere_with_a_key():
    x = RNG.standard_normal((60, 2)).astype("float32")
    model = gaussian_mixture.model(3, start="random")
    one, other = (jp.fit(model, x, key=jax.random.key(i)).log_likelihood for i in (0, 1))
    assert float(one) != float(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 0.2}, "key: expected a typed PRNG key"),
        ({"held_out": 1.0, "key": jax.random.key(0)}, "held_out: expected a share"),
        ({"patience": 0}, "patience"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        gradient(optax.adam, learning_rate=1.0, **settings)


def test_what_is_no_key():
    with pytest.raises(TypeError, match="key: expected a typed PRNG key"):
        jp.fit(logistic.model(), X, Y, key=0)
    with pytest.raises(ValueError, match="key: expected shape"):
        jp.fit(logistic.model(), X, Y, key=jax.random.split(jax.random.key(0)))
    with pytest.raises(TypeError, match="key: expected a typed PRNG key"):
        jp.fit_many(logistic.model(), X, Y, l2=[1.0, 2.0], key=jnp.zeros(2))


def test_restarts_compile_nothing_the_second_time(monkeypatch):
    monkeypatch.setattr(programs, "_MOST_MAPS", 1 << 16)  # tests before may have left many
    compiled = []

    def listen(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    model = gaussian_mixture.model(2, start="random")
    for seed in (0, 1):
        compiled.clear()
        x = np.random.default_rng(seed).standard_normal((71, 2)).astype("float32")
        jp.many.restarts(model, x, None, jax.random.key(seed), num_starts=3)
    assert not compiled
