"""What every model must do, and identities between models."""

import pickle

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from catalogue import MODELS, draw, some_by_default
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from tolerances import EPS, SAME_SUM

import jaxprob as jp
from jaxprob.models import logistic, softmax
from jaxprob.testing import assert_gradients_match, assert_hessians_match


def close(a, b, dtype, *, scale=1.0):
    """Equal up to the order of summation, given the size of the summands."""
    a, b = (np.asarray(ravel_pytree(t)[0], np.float64) for t in (a, b))
    np.testing.assert_allclose(a, b, rtol=0, atol=SAME_SUM[dtype] * np.max(np.abs(scale)))


def size(params, x, weights) -> float:
    """A bound on the summands of log-likelihood, gradient and information: Σ c (1 + |x|²) |z|."""
    rows = 1 + np.max(np.abs(np.asarray(x)), axis=1)
    logits = 1 + rows * np.max(np.abs(ravel_pytree(params)[0])) * x.shape[1]
    return float(np.sum(np.asarray(weights) * rows**2 * logits))


@pytest.fixture(params=MODELS)
def model(request):
    """Each model."""
    return MODELS[request.param]


def test_log_prob_of_one_example_is_the_specification(model, dtype):
    params, x, y, weights, offset = draw(model, 0, dtype=dtype)
    terms = [
        model.log_prob(params, *row[:2], offset=row[2]) for row in zip(x, y, offset, strict=True)
    ]
    assert all(t.shape == () and t.dtype == dtype for t in terms)
    expected = sum(float(w) * float(t) for w, t in zip(weights, terms, strict=True))
    got = model.objective.log_likelihood(params, x, y, weights, offset=offset)
    assert got.dtype == dtype
    close(got, expected, dtype, scale=size(params, x, weights))


def test_log_prob_against_exact_arithmetic(model, x64):
    params, x, y, _, offset = draw(model, 1, n=8)
    mpmath.mp.dps = 40
    for i in range(len(y)):
        w = [[mpmath.mpf(float(v)) for v in row] for row in np.atleast_2d(params.weights)]
        b = [0.0] * len(w) if params.bias is None else np.atleast_1d(params.bias)
        o = [0.0, float(offset[i])] if offset.ndim == 1 else [float(v) for v in offset[i]]
        own = [
            mpmath.fsum(a * float(v) for a, v in zip(row, x[i], strict=True)) + float(c)
            for row, c in zip(w, b, strict=True)
        ]
        if model.name == "logistic regression":
            own = [0, *own]
        elif len(own) < model.variables.num_classes:
            own = [*own, 0]
        z = [a + c for a, c in zip(own, o, strict=True)]
        exact = z[int(y[i])] - mpmath.log(mpmath.fsum(mpmath.exp(v) for v in z))
        got = model.log_prob(params, x[i], y[i], offset=offset[i])
        scale = 1 + max(abs(float(v)) for v in z)
        assert abs(float(got) - float(exact)) <= 32 * EPS["float64"] * scale


def test_probabilities_are_those_of_the_labels_and_sum_to_one(model, dtype):
    params, x, _, _, offset = draw(model, 2, dtype=dtype)
    log_p = model.predict.log_proba(params, x, offset=offset)
    assert log_p.shape == (len(x), model.variables.num_classes)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_p), axis=1), 1.0, atol=16 * EPS[dtype])
    for k in range(model.variables.num_classes):
        y = jnp.full(len(x), k)
        own = [model.log_prob(params, a, b, offset=o) for a, b, o in zip(x, y, offset, strict=True)]
        scale = size(params, x, np.ones(len(x)))
        close(log_p[:, k], jnp.stack(own), dtype, scale=scale)


@pytest.mark.parametrize("where", ["fitted", pytest.param("extreme", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some_by_default("logistic", "softmax, symmetric"))
def test_derivatives(name, where):
    """What is given in float32 is verified in float32 and in float64."""
    model = MODELS[name]
    _, x, y, weights, offset = draw(model, 3, dtype="float32")
    params = jp.fit(model, x, y, weights=weights, offset=offset, l2=0.1).params
    if where == "extreme":
        params = jax.tree.map(lambda a: 1e3 * a + 30, params)

    def value(params, x, y, weights, offset):
        return model.objective.log_likelihood(params, x, y, weights, offset=offset)

    def gradient(params, x, y, weights, offset):
        return model.objective.grad(params, x, y, weights, offset=offset)

    def hessian(params, x, y, weights, offset):
        return -model.objective.information(params, x, y, weights, offset=offset)

    args = params, x, y, weights, offset
    assert_gradients_match(value, gradient, *args, hard=where == "fitted")
    assert_hessians_match(value, hessian, *args, hard=False)


def test_value_and_gradient_from_one_pass_are_the_two(model, dtype):
    params, x, y, weights, offset = draw(model, 4, dtype=dtype)
    scale = size(params, x, weights)
    for block_bytes in (None, 1 << 10):
        value, grad = model.objective.value_and_grad(
            params, x, y, weights, offset=offset, block_bytes=block_bytes
        )
        assert jax.tree.map(lambda a: (a.shape, a.dtype), grad) == jax.tree.map(
            lambda a: (a.shape, a.dtype), params
        )
        close(
            value,
            model.objective.log_likelihood(params, x, y, weights, offset=offset),
            dtype,
            scale=scale,
        )
        expected = model.objective.grad(params, x, y, weights, offset=offset)
        close(grad, expected, dtype, scale=scale)


def test_weights_are_repeated_rows(model, dtype):
    params, x, y, _, offset = draw(model, 5, dtype=dtype)
    counts = np.random.default_rng(0).integers(0, 4, len(y))
    again = np.repeat(np.arange(len(y)), counts)
    weights = jnp.asarray(counts, dtype)
    scale = size(params, x, weights)
    for fn in (model.objective.log_likelihood, model.objective.grad, model.objective.information):
        weighted = fn(params, x, y, weights, offset=offset)
        close(weighted, fn(params, x[again], y[again], offset=offset[again]), dtype, scale=scale)


def test_an_offset_is_a_shift_of_the_logits(model, dtype):
    params, x, y, weights, offset = draw(model, 6, dtype=dtype)
    wider = jnp.concatenate([x, jnp.ones((len(x), 1), dtype)], axis=1)
    column = jnp.ones((*params.weights.shape[:-1], 1), dtype)
    one_more = params._replace(weights=jnp.concatenate([params.weights, 0.5 * column], axis=-1))
    if params.weights.ndim == 1:
        shift = jnp.full_like(offset, 0.5)
    else:
        rows, classes = len(params.weights), offset.shape[1]
        shift = jnp.where(jnp.arange(classes)[None, :] < rows, 0.5, jnp.zeros_like(offset))
    close(
        model.objective.log_likelihood(one_more, wider, y, weights, offset=offset),
        model.objective.log_likelihood(params, x, y, weights, offset=offset + shift),
        dtype,
        scale=size(one_more, wider, weights),
    )
    if offset.ndim == 2:  # the same for all classes: nothing happens
        moved = offset + jnp.arange(len(y), dtype=dtype)[:, None]
        close(
            model.objective.log_likelihood(params, x, y, weights, offset=moved),
            model.objective.log_likelihood(params, x, y, weights, offset=offset),
            dtype,
            scale=size(params, x, weights) * len(y),
        )


@pytest.mark.parametrize("name", [name for name in MODELS if "no bias" not in name])
def test_a_bias_is_a_constant_feature(name, dtype):
    model = MODELS[name]
    params, x, y, weights, _ = draw(model, 7, dtype=dtype)
    wider = jnp.concatenate([x, jnp.ones((len(x), 1), dtype)], axis=1)
    bias = jnp.expand_dims(params.bias, -1)
    joined = params._replace(weights=jnp.concatenate([params.weights, bias], axis=-1), bias=None)
    scale = size(params, x, weights)
    close(
        model.objective.log_likelihood(params, x, y, weights),
        model.objective.log_likelihood(joined, wider, y, weights),
        dtype,
        scale=scale,
    )
    grad = model.objective.grad(params, x, y, weights)
    other = model.objective.grad(joined, wider, y, weights).weights
    close(grad.weights, other[..., :-1], dtype, scale=scale)
    close(grad.bias, other[..., -1], dtype, scale=scale)
    # The same entries of the information, in another order.
    d, rows = x.shape[1], max(1, params.bias.size)
    order = [r * (d + 1) + j for r in range(rows) for j in range(d)]
    order += [r * (d + 1) + d for r in range(rows)]
    joint = model.objective.information(joined, wider, y, weights)
    close(
        model.objective.information(params, x, y, weights),
        joint[jnp.asarray(order)][:, jnp.asarray(order)],
        dtype,
        scale=scale,
    )


@pytest.mark.parametrize("bias", [True, False])
def test_softmax_of_two_classes_is_logistic(bias, dtype):
    two, one = softmax.model(2, bias=bias), logistic.model(bias=bias)
    params, x, y, weights, offset = draw(one, 8, dtype=dtype)
    # The reference is the last class, so softmax models class 0 against class 1.
    minus = softmax.Params(
        -params.weights[None, :], None if params.bias is None else -params.bias[None]
    )
    both = jnp.stack([-offset, jnp.zeros_like(offset)], axis=1)
    scale = size(params, x, weights)
    close(
        two.objective.log_likelihood(minus, x, y, weights, offset=both),
        one.objective.log_likelihood(params, x, y, weights, offset=offset),
        dtype,
        scale=scale,
    )
    grad = two.objective.grad(minus, x, y, weights, offset=both)
    expected = one.objective.grad(params, x, y, weights, offset=offset)
    close(-ravel_pytree(grad)[0], ravel_pytree(expected)[0], dtype, scale=scale)
    close(
        two.objective.information(minus, x, y, weights, offset=both),
        one.objective.information(params, x, y, weights, offset=offset),
        dtype,
        scale=scale,
    )


@pytest.mark.slow
def test_fits_of_softmax_of_two_classes_are_logistic(dtype):
    two, one = softmax.model(2), logistic.model()
    _, x, y, weights, offset = draw(one, 8, dtype=dtype)
    both = jnp.stack([-offset, jnp.zeros_like(offset)], axis=1)
    fits = [jp.fit(two, x, y, weights=weights, offset=both), None]
    fits[1] = jp.fit(one, x, y, weights=weights, offset=offset)
    assert fits[0].status == fits[1].status
    assert float(fits[0].log_likelihood) == pytest.approx(
        float(fits[1].log_likelihood), abs=1e-6 if dtype == "float64" else 1e-2
    )


def test_relabelling_permutes(dtype):
    model = MODELS["softmax, symmetric"]
    params, x, y, weights, offset = draw(model, 9, dtype=dtype)
    to = np.array([2, 0, 1])  # class k is called to[k] now
    back = np.argsort(to)
    moved = jax.tree.map(lambda a: a[back], params)
    scale = size(params, x, weights)
    args = moved, x, jnp.asarray(to)[y], weights
    close(
        model.objective.log_likelihood(*args, offset=offset[:, back]),
        model.objective.log_likelihood(params, x, y, weights, offset=offset),
        dtype,
        scale=scale,
    )
    grad = model.objective.grad(*args, offset=offset[:, back])
    expected = model.objective.grad(params, x, y, weights, offset=offset)
    close(grad, jax.tree.map(lambda a: a[back], expected), dtype, scale=scale)


def test_reference_and_symmetric_are_one_model(dtype):
    params, x, y, weights, offset = draw(MODELS["softmax"], 10, dtype=dtype)
    wide = jax.tree.map(lambda a: jnp.concatenate([a, jnp.zeros_like(a[:1])]), params)
    symmetric = MODELS["softmax, symmetric"]
    scale = size(params, x, weights)
    for same in (wide, softmax.canonical(wide)):
        close(
            symmetric.objective.log_likelihood(same, x, y, weights, offset=offset),
            MODELS["softmax"].objective.log_likelihood(params, x, y, weights, offset=offset),
            dtype,
            scale=scale,
        )
    centred = softmax.canonical(wide)
    close(softmax.canonical(centred), centred, dtype)
    close(jnp.sum(centred.weights, axis=0), jnp.zeros(x.shape[1]), dtype, scale=8.0)


def test_jit_is_eager_and_vmap_is_a_loop(model, x64):
    dtype = "float64"
    cases = [draw(model, seed, dtype=dtype) for seed in range(3)]
    together = jax.tree.map(lambda *a: jnp.stack(a), *cases)
    scale = max(size(c.params, c.x, c.weights) for c in cases)
    for fn in (
        model.objective.log_likelihood,
        model.objective.grad,
        model.objective.value_and_grad,
        model.objective.information,
    ):

        def call(params, x, y, weights, offset, fn=fn):
            return fn(params, x, y, weights, offset=offset)

        eager = [call(*case) for case in cases]
        jitted = [jax.jit(call)(*case) for case in cases]
        lanes = jax.vmap(call)(*together)
        for i in range(3):
            close(jitted[i], eager[i], dtype, scale=scale)
            close(jax.tree.map(lambda a, i=i: a[i], lanes), eager[i], dtype, scale=scale)
        shared = jax.vmap(call, in_axes=(0, None, None, 0, None))(
            together.params, cases[0].x, cases[0].y, together.weights, cases[0].offset
        )
        for i, case in enumerate(cases):
            alone = call(case.params, cases[0].x, cases[0].y, case.weights, cases[0].offset)
            close(jax.tree.map(lambda a, i=i: a[i], shared), alone, dtype, scale=3 * scale)


def test_samples_have_the_probabilities_that_are_predicted(model, dtype):
    params, x, _, _, offset = draw(model, 11, n=5, dtype=dtype)
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    draws = jax.vmap(lambda key: model.predict.sample(params, key, x, offset=offset))(keys)
    assert draws.dtype == jnp.int32
    p = np.exp(np.asarray(model.predict.log_proba(params, x, offset=offset), np.float64))
    for k in range(model.variables.num_classes):
        share = np.mean(np.asarray(draws) == k, axis=0)
        error = np.sqrt(p[:, k] * (1 - p[:, k]) / count)
        assert np.all(np.abs(share - p[:, k]) <= 5 * error + 1 / count)


@pytest.mark.parametrize("labels", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "bool"])
def test_labels_of_any_integer_dtype(model, labels):
    params, x, y, weights, offset = draw(model, 12, dtype="float32")
    y = y % 2  # bools have two values
    expected = model.objective.grad(params, x, y, weights, offset=offset)
    got = model.objective.grad(params, x, y.astype(labels), weights, offset=offset)
    np.testing.assert_array_equal(ravel_pytree(got)[0], ravel_pytree(expected)[0])


def test_models_compare_by_value_and_travel():
    assert logistic.model() == logistic.model(bias=True)
    assert hash(softmax.model(3)) == hash(softmax.model(3, parameterisation="reference"))
    different = {logistic.model(), logistic.model(bias=False), softmax.model(3), softmax.model(4)}
    assert len(different | {softmax.model(3, parameterisation="symmetric")}) == 5
    for model in MODELS.values():
        assert pickle.loads(pickle.dumps(model)) == model


@pytest.mark.parametrize(("arguments", "message"), [
    ({"num_classes": 1}, "num_classes: expected an integer of at least 2, got 1"),
    ({"num_classes": 2.0}, "num_classes: expected an integer of at least 2, got 2.0"),
    ({"num_classes": True}, "num_classes: expected an integer of at least 2, got True"),
    ({"num_classes": 3, "parameterisation": "sum"}, "parameterisation: expected one of"),
])  # fmt: skip
def test_settings_of_softmax(arguments, message):
    with pytest.raises(ValueError, match=message):
        softmax.model(**arguments)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([4, 9]),
    d=st.sampled_from([1, 3]),
)
@pytest.mark.slow
def test_concave_with_expected_information(name, seed, n, d):
    """Log-likelihood along a line is concave, and y drops out of the information."""
    model = MODELS[name]
    with jax.enable_x64(True):
        params, x, y, weights, offset = draw(model, seed, n=n, d=d)
        other = draw(model, seed + 1, n=n, d=d).params

        def along(t):
            mixed = jax.tree.map(lambda a, b: (1 - t) * a + t * b, params, other)
            return float(model.objective.log_likelihood(mixed, x, y, weights, offset=offset))

        rounding = SAME_SUM["float64"] * size(params, x, weights)
        assert along(0.5) >= (along(0.0) + along(1.0)) / 2 - rounding
        info = model.objective.information(params, x, y, weights, offset=offset)
        flipped = model.variables.num_classes - 1 - y
        again = model.objective.information(params, x, flipped, weights, offset=offset)
        np.testing.assert_array_equal(info, again)
        least = np.linalg.eigvalsh(np.asarray(info))[0]
        assert least >= -SAME_SUM["float64"] * size(params, x, weights)
