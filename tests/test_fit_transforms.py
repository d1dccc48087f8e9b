"""A fit under jit, vmap and grad, warm starts, compilations, and minibatches."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from tolerances import SAME_FIT

from jaxprob import Status, fit
from jaxprob.data import check_data, check_scalar
from jaxprob.models import logistic, softmax
from jaxprob.solvers import gradient, lbfgs, newton, proximal

N, D, K = 40, 2, 3
MODELS = {
    "logistic": logistic.model(),
    "reference": softmax.model(K),
    "symmetric": softmax.model(K, parameterisation="symmetric"),
}
SLOW = pytest.mark.slow
FEW = ["logistic", pytest.param("reference", marks=SLOW), pytest.param("symmetric", marks=SLOW)]
# Newton's method to the last digits, so that differences of fits are not those of their gaps.
EXACT = newton(tol=1e-13)

_compiled = []


def listen(name, *_, **__):
    if name == "/jax/core/compile/backend_compile_duration":
        _compiled.append(name)


jax.monitoring.register_event_duration_secs_listener(listen)


def num_compiled(call):
    before = len(_compiled)
    jax.block_until_ready(call().params)
    return len(_compiled) - before


def problem(name="logistic", seed=0, n=N):
    """Arguments x, y, weights, offset of a fit whose classes overlap."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    weights = rng.uniform(0.5, 2, size=n)
    if name == "logistic":
        return x, rng.integers(0, 2, n), weights, rng.normal(size=n)
    return x, rng.integers(0, K, n), weights, rng.normal(size=(n, K))


def call(name, x, y, weights, offset, l2, **keywords):
    return fit(MODELS[name], x, y, weights=weights, offset=offset, l2=l2, **keywords)


def assert_same(one, two):
    """Of two programs whose steps differ, and whose gaps are below the default tolerance."""
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    same = SAME_FIT["float64"]
    near = partial(np.testing.assert_allclose, rtol=same, atol=same)
    jax.tree.map(near, one.params, two.params)
    close(one.log_likelihood, two.log_likelihood)
    close(one.null_log_likelihood, two.null_log_likelihood)
    near(one.information, two.information)
    np.testing.assert_array_equal(one.status, two.status)
    np.testing.assert_array_equal(one.num_examples, two.num_examples)
    assert np.all(one.status == Status.CONVERGED)
    assert np.all(np.abs([one.gap, two.gap]) <= 1e-8)  # the default tolerance in float64


# One compiled function for all tests that can share it.
JITTED = {name: jax.jit(partial(call, name)) for name in MODELS}
JITTED_LABELS = jax.jit(partial(fit, MODELS["logistic"]))
VMAPPED = jax.jit(jax.vmap(partial(call, "logistic")))
NUM_LANES = 10


@pytest.mark.parametrize("name", ["logistic", pytest.param("reference", marks=SLOW), "symmetric"])
def test_jit_gives_the_eager_fit(x64, name):
    data = problem(name)
    assert_same(JITTED[name](*data, 0.5), call(name, *data, 0.5))


@pytest.mark.slow
def test_jit_gives_the_eager_fit_with_l1(x64):
    x, y, *_ = problem()
    l1_fit = partial(fit, MODELS["logistic"], solver=proximal())
    assert_same(jax.jit(l1_fit)(x, y, l1=2.0), l1_fit(x, y, l1=2.0))


def test_jit_of_another_solver(x64):
    data = problem()
    solver = lbfgs(sample_rows=20)
    run = jax.jit(lambda *data: call("logistic", *data, 0.5, solver=solver).params)
    exact = call("logistic", *data, 0.5)
    # A gap of 1e-8 leaves sqrt(2e-8 / λ), λ > 1/2 the least eigenvalue of the Hessian.
    for got, expected in zip(run(*data), exact.params, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-4)


def test_vmap_gives_the_fits_of_a_loop(x64):
    lanes = [(*problem(seed=seed), 0.1 * (1 + seed)) for seed in range(NUM_LANES)]
    fits = VMAPPED(*(np.stack(values) for values in zip(*lanes, strict=True)))
    for k, lane in enumerate(lanes):
        assert_same(jax.tree.map(lambda a, k=k: a[k], fits), call("logistic", *lane))


AXES = {
    "weights": (None, None, 0, None, None),
    "l2": (None, None, None, None, 0),
    "x and y": (0, 0, None, None, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_vmap_over_some_arguments_gives_the_fits_of_a_loop(x64, axes):
    fixed = (*problem(), 0.5)
    lanes = [(*problem(seed=seed), 0.1 * seed) for seed in (1, 2, 3)]
    args = [a if i is None else np.stack(b) for i, a, *b in zip(axes, fixed, *lanes, strict=True)]
    fits = jax.vmap(partial(call, "logistic"), in_axes=axes)(*args)
    for k, lane in enumerate(lanes):
        alone = [f if i is None else b for i, f, b in zip(axes, fixed, lane, strict=True)]
        assert_same(jax.tree.map(lambda a, k=k: a[k], fits), call("logistic", *alone))


def test_vmap_of_grad_inside_jit(x64):
    x, y, weights, offset = problem()
    penalties = np.array([0.2, 1.0, 5.0])

    def size(l2):
        return jnp.sum(call("logistic", x, y, weights, offset, l2).params.weights ** 2)

    slopes = jax.jit(jax.vmap(jax.grad(size)))(penalties)
    step = 1e-3 * penalties
    upper = np.array([size(l2) for l2 in penalties + step])
    lower = np.array([size(l2) for l2 in penalties - step])
    # Differences relative to l2 have an error of 1e-6, and 1e-9 / 1e-3 from the fits.
    np.testing.assert_allclose(slopes, (upper - lower) / (2 * step), rtol=1e-4)
    assert np.all(slopes < 0)


# Derivatives.

ARGUMENTS = ("x", "weights", "offset", "l2")
STEP = 1e-4


def summary(name, y, x, weights, offset, l2):
    """The numbers of a fit that have derivatives, as one vector."""
    result = call(name, x, y, weights, offset, l2, solver=EXACT)
    return jnp.append(ravel_pytree(result.params)[0], result.log_likelihood)


def point(name):
    """The differentiable arguments, and a direction for each of them."""
    x, y, weights, offset = problem(name)
    args = {"x": x, "weights": weights, "offset": offset, "l2": np.asarray(0.7)}
    rng = np.random.default_rng(9)
    return y, args, {key: rng.normal(size=np.shape(a)) for key, a in args.items()}


def along(args, tangents, chosen):
    """Tangents that are zero but for the chosen argument."""
    return {key: tangents[key] if key == chosen else np.zeros_like(args[key]) for key in args}


def differences(name, y, args, tangent):
    """Central differences of refits, each outside of any transformation."""

    def moved(h):
        return summary(name, y, **{key: args[key] + h * tangent[key] for key in args})

    return (moved(STEP) - moved(-STEP)) / (2 * STEP)


# Central differences are off by STEP² times a third derivative, here 1e-8 times up to 100; the
# rounding of the fits, 1e-14, counts 1e-10.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def numbers(name):
    """How many a summary has, and weights for their sum."""
    width = {"logistic": 1, "reference": K - 1, "symmetric": K}[name]
    return np.random.default_rng(8).normal(size=width * (D + 1) + 1)


@pytest.mark.parametrize("name", FEW)
def test_derivatives_are_those_of_refits(x64, name):
    y, args, tangents = point(name)
    cotangent = numbers(name)

    @jax.jit
    def derivatives(args, tangent):
        forward = jax.jvp(lambda a: summary(name, y, **a), (args,), (tangent,))[1]
        return forward, jax.grad(lambda a: summary(name, y, **a) @ cotangent)(args)

    for chosen in ARGUMENTS:
        tangent = along(args, tangents, chosen)
        expected = differences(name, y, args, tangent)
        assert np.max(np.abs(expected)) > 1e-3
        forward, reverse = derivatives(args, tangent)
        np.testing.assert_allclose(forward, expected, **CLOSE)
        got = np.vdot(reverse[chosen], tangents[chosen])
        np.testing.assert_allclose(got, expected @ cotangent, **CLOSE)


@pytest.mark.parametrize("name", FEW)
def test_the_second_derivative_in_l2(x64, name):
    y, args, _ = point(name)
    cotangent = numbers(name)

    def value(l2):
        return summary(name, y, **(args | {"l2": l2})) @ cotangent

    step, l2 = 1e-3, 0.7
    second = (value(l2 + step) - 2 * value(l2) + value(l2 - step)) / step**2
    # The error of the difference: step² / 12 of a fourth derivative, 1e-13 / step² of rounding.
    got = jax.jit(jax.grad(jax.grad(value)))(l2)
    assert abs(second) > 1e-3
    np.testing.assert_allclose(got, second, rtol=1e-5, atol=1e-5)


def test_the_derivative_of_the_null_log_likelihood(x64):
    x, y, weights, _ = problem()

    def null(weights):
        return fit(MODELS["logistic"], x, y, weights=weights).null_log_likelihood

    share = np.sum(weights * y) / np.sum(weights)
    # At its optimum only the weights' own terms count: log p_i of the constant model.
    expected = np.where(y == 1, np.log(share), np.log1p(-share))
    np.testing.assert_allclose(jax.jit(jax.grad(null))(weights), expected, rtol=1e-4)


# What only the run can see.


def with_entry(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


def test_statuses_of_values_that_only_the_run_sees(x64):
    x, y, weights, offset = problem()
    good = {"x": x, "y": y, "weights": weights, "offset": offset}
    changed = [
        ({}, Status.CONVERGED),
        ({"x": with_entry(x, (3, 1), np.nan)}, Status.INVALID_INPUT),
        ({"x": with_entry(x, (3, 1), np.inf)}, Status.INVALID_INPUT),
        ({"y": with_entry(y, 3, 2)}, Status.INVALID_INPUT),
        ({"y": with_entry(y, 3, -1)}, Status.INVALID_INPUT),
        ({"weights": with_entry(weights, 3, -1)}, Status.INVALID_INPUT),
        ({"weights": with_entry(weights, 3, np.inf)}, Status.INVALID_INPUT),
        ({"offset": with_entry(offset, 3, np.nan)}, Status.INVALID_INPUT),
        ({"weights": 0 * weights}, Status.NO_DATA),
        ({"weights": 0 * weights, "y": y + 1}, Status.INVALID_INPUT),
    ]
    assert len(changed) == NUM_LANES
    lanes = [list((good | change).values()) for change, _ in changed]
    stacked = [np.stack(values) for values in zip(*lanes, strict=True)]
    fits = VMAPPED(*stacked, np.full(NUM_LANES, 0.5))
    assert [Status(s) for s in fits.status.tolist()] == [status for _, status in changed]
    for lane in lanes[1:]:
        with pytest.raises(ValueError, match="expected"):
            call("logistic", *lane, 0.5)


@pytest.mark.parametrize("label", [0.5, np.nan, 2.0**32])
def test_labels_that_are_no_integers_seen_only_by_the_run(x64, label):
    x, y, *_ = problem()
    y = with_entry(y.astype(float), 3, label)
    result = JITTED_LABELS(x, y, l2=0.5)
    assert Status(int(result.status)) is Status.INVALID_INPUT


def test_a_label_that_int32_cannot_hold_seen_only_by_the_run(x64):
    x, y, weights, offset = problem()
    y = with_entry(y.astype(np.int64), 3, 2**32)  # 0 modulo 2^32
    result = JITTED["logistic"](x, y, weights, offset, 0.5)
    assert Status(int(result.status)) is Status.INVALID_INPUT


@pytest.mark.parametrize("l2", [np.nan, np.inf, -1e3])
def test_a_penalty_out_of_range_seen_only_by_the_run(x64, l2):
    result = JITTED["logistic"](*problem(), l2)
    assert Status(int(result.status)) is Status.INVALID_INPUT


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308])
def test_a_start_where_nothing_is_finite(x64, value):
    start = logistic.Params(np.full(D, value), 0.0)
    result = call("logistic", *problem(), 0.5, init=start)
    assert Status(int(result.status)) is Status.NON_FINITE


def test_an_objective_that_overflows(x64):
    x, y, _, offset = problem()
    result = call("logistic", x, y, np.full(N, 1e308), offset, 0.5)
    assert Status(int(result.status)) is Status.NON_FINITE


# Warm starts.


def test_a_warm_start_takes_no_more_steps_to_the_same_optimum(x64):
    data = problem()
    cold = call("logistic", *data, 0.5)
    near = call("logistic", *data, 0.6)
    warm = call("logistic", *data, 0.5, init=near.params)
    again = call("logistic", *data, 0.5, init=cold.params)
    assert again.num_steps == 0  # step 0 only looks
    assert warm.num_steps <= cold.num_steps
    assert_same(warm, cold)
    assert_same(again, cold)


def test_a_start_that_is_traced(x64):
    data = problem()
    run = jax.jit(lambda init: call("logistic", *data, 0.5, init=init))
    cold, zeros = call("logistic", *data, 0.5), logistic.Params(np.zeros(D), np.zeros(()))
    assert run(cold.params).num_steps == 0
    assert_same(run(zeros), cold)


@pytest.mark.slow
def test_a_start_of_the_symmetric_form_is_centred(x64):
    data = problem("symmetric")
    start = softmax.Params(np.full((K, D), 2.0), np.arange(K) + 5.0)
    result = call("symmetric", *data, 0.5, init=start)
    assert_same(result, call("symmetric", *data, 0.5))


# Compilations.


def test_five_spellings_of_a_call_are_one_program(x64):
    x, y, *_ = problem(n=317)
    y = y.astype(np.int32)
    jax_x, jax_y, one = jnp.asarray(x), jnp.asarray(y), jnp.asarray(1.0)
    check_scalar("l2", one, dtype="float64")  # a cast that no array's shape enters
    spellings = [
        lambda: fit(logistic.model(), x, y, l2=1.0),
        lambda: fit(logistic.model(bias=True), jax_x, jax_y, l2=1),
        lambda: fit(logistic.model(), x, y, l2=np.float64(1.0), weights=None, solver=None),
        lambda: fit(logistic.model(), x.tolist(), y, l2=one),
        lambda: fit(logistic.model(), x, jax_y, l2=np.float32(1.0), trace=False),
    ]
    first, *others = [num_compiled(spelling) for spelling in spellings]
    assert first >= 1
    assert others == [0, 0, 0, 0]
    assert num_compiled(lambda: fit(logistic.model(), x, y, l2=2.0)) == 0


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "float64"])
def test_the_dtype_of_labels_compiles_no_solver(x64, dtype):
    x, y, *_ = problem(n=317)
    fit(logistic.model(), x, y.astype(np.int32), l2=1.0)
    check_data(x, y.astype(dtype), variables=logistic.model().variables)  # programs of the checks
    assert num_compiled(lambda: fit(logistic.model(), x, y.astype(dtype), l2=1.0)) == 0


def descent(rate, **keywords):
    x, y, *_ = problem()
    solver = gradient(optax.sgd, learning_rate=rate, max_steps=5, **keywords)
    return fit(MODELS["logistic"], x, y, l2=0.5, solver=solver, trace=True)


def test_another_learning_rate_compiles_nothing(x64):
    slow, array = descent(0.001), jnp.asarray(0.002)
    assert num_compiled(lambda: descent(0.002)) == 0
    assert num_compiled(lambda: descent(array)) == 0
    assert descent(0.002).log_likelihood > slow.log_likelihood


@pytest.mark.slow
def test_vmap_over_learning_rates(x64):
    rates = jnp.array([0.001, 0.01, 0.02])
    together = jax.vmap(descent)(rates)
    for k, rate in enumerate(rates):
        alone = descent(rate)
        # Five steps, each a sum of 40 terms of size 1.
        np.testing.assert_allclose(together.params.weights[k], alone.params.weights, rtol=1e-12)
        np.testing.assert_allclose(together.trace.value[k], alone.trace.value, rtol=1e-12)


# Minibatches.


def minibatches(seed, rate=0.01):
    return descent(rate, batch_size=16, key=jax.random.key(seed))


def test_minibatches_are_drawn_by_the_key(x64):
    one, same, other = minibatches(0), minibatches(0), minibatches(1)
    np.testing.assert_array_equal(one.trace.value, same.trace.value)
    assert one.trace.value[0] == other.trace.value[0]  # all start at zero
    assert np.all(one.trace.value[1:] != other.trace.value[1:])
    assert num_compiled(lambda: minibatches(2)) == 0


@pytest.mark.slow
def test_vmap_over_keys(x64):
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(lambda key: descent(0.01, batch_size=16, key=key))(keys)
    for k, key in enumerate(keys):
        alone = descent(0.01, batch_size=16, key=key)
        # Fifteen updates, each from a sum of 16 terms of size 1.
        np.testing.assert_allclose(together.trace.value[k], alone.trace.value, rtol=1e-12)


def test_one_batch_of_all_rows_is_gradient_descent(x64):
    together, batch = descent(0.01), descent(0.01, batch_size=N, key=jax.random.key(0))
    # The same sums in another order.
    np.testing.assert_allclose(batch.trace.value, together.trace.value, rtol=1e-12)


def test_a_pass_of_minibatches_reads_every_row_once(x64):
    # At a tiny rate the gradients stay those of the start: residuals y - 1/2 for the bias.
    rate, y = 1e-9, problem()[1]
    moved = minibatches(0, rate).params.bias / rate
    expected = 0
    for k in range(1, 6):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.key(0), k), N))
        batches = [order[:16], order[16:32], order[32:]]
        expected += sum((y[rows] - 0.5).mean() * N for rows in batches)
    # 15 updates, each of which changes the next gradients by 1e-9 times a curvature below 1000.
    np.testing.assert_allclose(moved, expected, rtol=1e-4)


# A Fit as a pytree.


def test_a_fit_is_a_pytree(x64):
    data = problem()
    result = call("logistic", *data, 0.5)
    doubled = jax.tree.map(lambda a: 2 * a, result)
    np.testing.assert_array_equal(doubled.params.weights, 2 * result.params.weights)
    assert doubled.model == result.model
    leaves, tree = jax.tree.flatten(result)
    assert jax.tree.structure(jax.tree.unflatten(tree, leaves)) == tree
    back = jax.jit(lambda fit: fit)(result)
    np.testing.assert_array_equal(back.params.weights, result.params.weights)


@pytest.mark.parametrize("name", ["information", "null_log_likelihood"])
def test_what_needs_the_data_is_refused_without_them(x64, name):
    data = problem()
    result = call("logistic", *data, 0.5)
    structure = jax.tree.structure(result)
    message = f"{name}: this Fit has passed through a JAX transformation after it was made"
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape(message)):
            getattr(jax.tree.map(lambda a: a, result), name)
        assert getattr(result, name) is getattr(result, name)  # computed once
        assert jax.tree.structure(result) == structure
