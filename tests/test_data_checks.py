"""What is wrong with the arguments of a fit is told before anything is computed."""

import re
import sys
import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO

from jaxprob import fit, many, use_all_cores
from jaxprob.contract import Classes, Geometry, Variables
from jaxprob.data import as_array, check_data, check_scalar, feature_names, shard, violations
from jaxprob.models import logistic, softmax
from jaxprob.solvers import em, gradient, lbfgs, newton, proximal

LOGISTIC = logistic.model()
SOFTMAX = softmax.model(3)
TWO = Variables.conditional(Classes(2))
FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
SERIES = {"pandas": pd.Series, "polars": pl.Series}

N = 12
X = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
Y = np.arange(N, dtype=np.int32) % 2
Y3 = np.arange(N, dtype=np.int32) % 3


@pytest.fixture
def no_run(monkeypatch):
    """No solver may start: what is wrong has to be found before."""

    def started(*_, **__):
        raise AssertionError("a solver was started")

    module = sys.modules["jaxprob.fit.fitting"]
    monkeypatch.setattr(module, "first_that_converges", started)
    monkeypatch.setattr(module, "traced_fit", started)


@pytest.fixture(scope="module")
def expected():
    """The fit that every accepted form of the same data has to give."""
    return fit(LOGISTIC, X, Y)


def with_entry(array, index, value):
    array = np.array(array, np.result_type(array.dtype, type(value)))
    array[index] = value
    return array.astype(np.float32) if array.dtype == np.float64 else array


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def assert_same(result, expected):
    # The same program on the same numbers: equal to the last bit.
    np.testing.assert_array_equal(result.params.weights, expected.params.weights)
    np.testing.assert_array_equal(result.params.bias, expected.params.bias)


SHAPES = [
    ({"x": X[:, 0]}, "x: expected shape (n, d), got (12,); for one feature pass x.reshape(-1, 1)"),
    ({"x": X[None]}, "x: expected shape (n, d), got (1, 12, 2)"),
    ({"x": 1.0}, "x: expected shape (n, d), got ()"),
    ({"x": []}, "x: expected shape (n, d), got (0,)"),
    ({"y": Y[:, None]}, "y: expected shape (n,), got (12, 1); pass y.ravel()"),
    ({"y": 1}, "y: expected shape (n,), got ()"),
    ({"y": Y[1:]}, "y: expected one entry for each of the 12 rows of x, got 11"),
    ({"x": X[:0], "y": Y[:0]}, "x: expected at least one example, got shape (0, 2)"),
    ({"weights": np.ones((N, 1), np.float32)}, "weights: expected shape (n,), got (12, 1)"),
    ({"weights": 1.0}, "weights: expected shape (n,), got ()"),
    ({"weights": [1.0]}, "weights: expected one entry for each of the 12 rows of x, got 1"),
    ({"offset": np.ones((N, 1), np.float32)}, "offset: expected shape (n,), got (12, 1)"),
    ({"offset": 0.5}, "offset: expected shape (n,), got ()"),
    ({"offset": [0.5] * 11}, "offset: expected one entry for each of the 12 rows of x, got 11"),
    ({"x": [[1.0], [2.0, 3.0]]}, "x: expected an array (n, d), got rows of different lengths"),
    ({"y": [0, [1]]}, "y: expected an array (n,), got rows of different lengths"),
]


@pytest.mark.parametrize(("changed", "message"), SHAPES)
def test_wrong_shapes(no_run, changed, message):
    with raises(ValueError, message):
        fit(LOGISTIC, **({"x": X, "y": Y} | changed))


def test_nothing_to_fit(no_run):
    message = (
        "x: expected at least one feature, since this logistic regression has no other parameters, "
        "got shape (12, 0)"
    )
    with raises(ValueError, message):
        fit(logistic.model(bias=False), X[:, :0], Y)


@pytest.mark.parametrize("shape", [(N,), (N, 2), (N, 4)])
def test_an_offset_of_softmax_has_an_entry_for_each_class(no_run, shape):
    message = f"offset: expected shape (n, 3), an entry for each class, got {shape}"
    with raises(ValueError, message):
        fit(SOFTMAX, X, Y3, offset=np.zeros(shape, np.float32))


def test_shapes_are_checked_inside_jit_too(no_run):
    with raises(ValueError, "y: expected one entry for each of the 12 rows of x, got 11"):
        jax.jit(lambda x, y: fit(LOGISTIC, x, y))(X, Y[1:])
    with raises(TypeError, "x: expected float32 or float64, integers or bools, got float16"):
        jax.jit(lambda x, y: fit(LOGISTIC, x, y))(X.astype(np.float16), Y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_entry_of_x_that_is_not_finite_is_named(no_run, value):
    x = with_entry(X, (7, 1), value)
    x[9, 0] = np.nan
    message = f"x: expected finite numbers, got {value} in row 7, column 1; drop such rows"
    with raises(ValueError, message):
        fit(LOGISTIC, x, Y)


@pytest.mark.parametrize("library", FRAMES)
def test_its_column_is_named_by_the_frame(no_run, library):
    frame = FRAMES[library]({"age": X[:, 0], "height": with_entry(X, (7, 1), np.nan)[:, 1]})
    with raises(ValueError, "got nan in row 7, column 1 (height); drop such rows, or fill them in"):
        fit(LOGISTIC, frame, Y)


LABELS = [
    (LOGISTIC, with_entry(Y, 3, 5), "0..1 for 2 classes, got 5; numpy.unique"),
    (LOGISTIC, with_entry(Y, 3, -7), "0..1 for 2 classes, got -7; numpy.unique"),
    (LOGISTIC, jnp.asarray(2 * Y - 1), "0..1 for 2 classes, got -1; for labels -1 and 1 pass (y"),
    (LOGISTIC, jnp.asarray(Y + 1), "0..1 for 2 classes, got 2; for labels 1..2 pass y - 1"),
    (LOGISTIC, with_entry(Y, 3, 0.5), "0..1 for 2 classes, got 0.5; numpy.unique"),
    (LOGISTIC, with_entry(Y, 3, np.nan), "0..1 for 2 classes, got nan in row 3; drop such rows"),
    (LOGISTIC, with_entry(Y, 3, np.inf), "0..1 for 2 classes, got inf; numpy.unique"),
    (SOFTMAX, with_entry(Y3, 3, 4), "0..2 for 3 classes, got 4; numpy.unique"),
    (SOFTMAX, with_entry(Y3, 3, -1), "0..2 for 3 classes, got -1; numpy.unique"),
    (SOFTMAX, jnp.asarray(Y3 + 1), "0..2 for 3 classes, got 3; for labels 1..3 pass y - 1"),
    (SOFTMAX, with_entry(Y3, 3, 1.5), "0..2 for 3 classes, got 1.5; numpy.unique"),
    (SOFTMAX, with_entry(Y3, 3, np.nan), "0..2 for 3 classes, got nan in row 3; drop such rows"),
]


@pytest.mark.parametrize(("model", "y", "message"), LABELS)
def test_wrong_labels(no_run, model, y, message):
    with raises(ValueError, f"y: expected integers {message}"):
        fit(model, X, y)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("label", [2**31, 2**32, 2**40 + 1])
def test_labels_that_int32_cannot_hold(no_run, dtype, label):
    # 2^32 is 0 modulo 2^32, so a plain cast would make a valid label of it.
    y = Y.astype(dtype)
    y[4] = label
    with raises(ValueError, f"y: expected values within int32, got 0 to {label}"):
        fit(LOGISTIC, X, y)
    with (
        jax.enable_x64(True),
        raises(ValueError, f"y: expected integers 0..1 for 2 classes, got {label}"),
    ):
        fit(LOGISTIC, X, y)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_wrong_weights(no_run, value):
    weights = with_entry(np.ones(N, np.float32), 5, value)
    with raises(ValueError, f"weights: expected finite numbers of at least 0, got {value}"):
        fit(LOGISTIC, X, Y, weights=weights)


def test_weights_that_are_all_zero(no_run):
    with raises(ValueError, "weights: expected a positive sum, got zeros only"):
        fit(LOGISTIC, X, Y, weights=np.zeros(N, int))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_wrong_offsets(no_run, value):
    offset = with_entry(np.zeros(N, np.float32), 5, value)
    with raises(ValueError, f"offset: expected finite numbers, got {value}"):
        fit(LOGISTIC, X, Y, offset=offset)
    with raises(ValueError, f"offset: expected finite numbers, got {value}"):
        fit(SOFTMAX, X, Y3, offset=np.stack([0 * X[:, 0], offset, 0 * X[:, 0]], axis=1))


PENALTIES = [
    (-1.0, ValueError, "expected a finite number of at least 0, got -1.0"),
    (np.float32(-1), ValueError, "expected a finite number of at least 0, got -1.0"),
    (jnp.float32(-1), ValueError, "expected a finite number of at least 0, got -1.0"),
    (np.nan, ValueError, "expected a finite number of at least 0, got nan"),
    (np.inf, ValueError, "expected a finite number of at least 0, got inf"),
    (np.ones(3), ValueError, "expected a single number, got shape (3,); for many values use jax.v"),
    (jnp.ones((2, 2)), ValueError, "expected a single number, got shape (2, 2)"),
    ([1.0], TypeError, "expected a number, got [1.0] of type list"),
    ("1.0", TypeError, "expected a number, got '1.0' of type str"),
    (True, TypeError, "expected a number, got True of type bool"),
    (1j, TypeError, "expected a number, got 1j of type complex"),
]


@pytest.mark.parametrize("name", ["l2", "l1"])
@pytest.mark.parametrize(("value", "error", "message"), PENALTIES)
def test_wrong_penalties(no_run, name, value, error, message):
    with raises(error, f"{name}: {message}"):
        fit(LOGISTIC, X, Y, **{name: value})


@pytest.mark.parametrize("value", [np.complex64(1j), jnp.complex64(1j)])
def test_complex_penalties(no_run, value):
    with raises(TypeError, "l2: expected a number, got"):
        fit(LOGISTIC, X, Y, l2=value)


def test_a_penalty_that_the_working_dtype_cannot_hold(no_run):
    with raises(ValueError, "l2: expected a number within float32, got 1e+300"):
        fit(LOGISTIC, X, Y, l2=1e300)


def test_penalties_of_a_model_without_penalised_parameters(no_run):
    with raises(ValueError, "l1, l2: logistic regression has no parameters that a penalty makes"):
        fit(replace(LOGISTIC, geometry=Geometry()), X, Y, l2=1.0)


def test_an_offset_of_a_model_that_takes_none(no_run):
    with raises(ValueError, "offset: expected none, since the model takes no offset, got one"):
        fit(replace(LOGISTIC, variables=TWO), X, Y, offset=np.zeros(N))


NUMBERS = "x: expected numbers: encode text as 0..K-1"
RECORDS = np.zeros((N, 2), [("a", np.float32)])
TYPES = [
    (X.astype(str), NUMBERS),
    (X.astype(bytes), NUMBERS),
    (X.astype(np.dtypes.StringDType()), NUMBERS),
    ([["a", "b"]] * N, NUMBERS),
    (X.astype(str).astype(object), "x: expected numbers, got '"),
    (None, "x: expected a numeric array: convert or encode its text and missing"),
    (X + 1j, "x: expected real numbers: the model is not defined for complex ones"),
    (jnp.asarray(X + 1j), "x: expected real numbers: the model is not defined for complex ones"),
    (np.zeros((N, 2), "M8[D]"), "x: expected numbers: turn dates into a number of days"),
    (np.zeros((N, 2), "m8[s]"), "x: expected numbers: divide the differences of time by a unit"),
    (RECORDS, "x: expected a plain numeric array, not one of records"),
    (X.astype(np.float16), "x: expected float32 or float64, integers or bools, got float16; pass"),
    (jnp.asarray(X, jnp.float16), "x: expected float32 or float64, integers or bools, got float16"),
    (jnp.asarray(X, jnp.bfloat16), "integers or bools, got bfloat16; pass x.astype"),
    (X.astype(jnp.bfloat16), "integers or bools, got bfloat16; pass x.astype"),
    (X.astype(np.longdouble), "x: expected float32 or float64, integers or bools, got"),
    (scipy.sparse.csr_array(X), "x: expected a dense array (n, d), got the sparse csr_array; pass"),
    (BCOO.fromdense(X), "x: expected a dense array (n, d), got the sparse BCOO; pass x.toarray()"),
    (pd.DataFrame({"a": ["b"] * N}), "x: expected numbers, got 'b' in row 0, column 0 (a); encode"),
    (pd.DataFrame({"a": [None, *"b" * 11]}), "x: expected numbers, got 'b' in row 1, column 0 (a)"),
    (pl.DataFrame({"a": ["b"] * N}), "x: expected"),
]


@pytest.mark.parametrize(("x", "message"), TYPES)
def test_wrong_types(no_run, x, message):
    with raises(TypeError, message):
        fit(LOGISTIC, x, Y)


@pytest.mark.parametrize("name", ["weights", "offset"])
def test_wrong_types_of_the_other_arguments(no_run, name):
    data = {"x": X, "y": Y} | {name: np.array(["a"] * N)}
    with raises(TypeError, f"{name}: expected numbers: encode text as 0..K-1"):
        fit(LOGISTIC, **data)
    with raises(TypeError, f"{name}: expected real numbers"):
        fit(LOGISTIC, **(data | {name: np.ones(N, complex)}))


def test_masked_entries(no_run):
    with raises(ValueError, "x: expected no masked entries; drop or fill them first"):
        fit(LOGISTIC, np.ma.masked_greater(X, 0.5), Y)


def test_float8_is_named_as_what_it_is(no_run):
    with raises(TypeError, "x: expected float32 or float64, integers or bools, got float8_e5m2"):
        fit(LOGISTIC, jnp.asarray(X, jnp.float8_e5m2), Y)


INITS = [
    logistic.Params(np.zeros(3, np.float32), np.float32(0)),
    logistic.Params(np.zeros((1, 2), np.float32), np.float32(0)),
    logistic.Params(np.zeros(2, np.float32), np.zeros(1, np.float32)),
    logistic.Params(np.zeros(2, np.float32), None),
    logistic.Params("ab", 0.0),
    np.zeros(3, np.float32),
    {"weights": np.zeros(2), "bias": 0.0},
    "zeros",
]


@pytest.mark.parametrize("init", INITS)
def test_wrong_starts(no_run, init):
    with raises(
        ValueError, "init: expected parameters of shapes Params(weights=(2,), bias=()), got"
    ):
        fit(LOGISTIC, X, Y, init=init)


@pytest.mark.parametrize("solver", [newton, "newton", optax.sgd(0.1)])
def test_what_is_no_solver(no_run, solver):
    with raises(TypeError, "solver: expected one of jaxprob.solvers, such as newton(), got"):
        fit(LOGISTIC, X, Y, solver=solver)


def test_l1_with_a_solver_that_cannot(no_run):
    message = "solver: l1 has no gradient, so it needs jaxprob.solvers.proximal(), got Newton("
    with raises(ValueError, message):
        fit(LOGISTIC, X, Y, l1=1.0, solver=newton())


@pytest.mark.parametrize("optimiser", [optax.sgd(0.1), 0.1])
def test_an_optimiser_already_made(optimiser):
    with raises(TypeError, "optimiser: expected a function such as optax.sgd, with its settings"):
        gradient(optimiser)


def test_minibatches_need_a_key_and_a_size():
    with raises(ValueError, "key: expected a typed PRNG key, such as jax.random.key(0), got None"):
        gradient(optax.sgd, learning_rate=0.1, batch_size=4)
    with raises(ValueError, "batch_size: expected at least 1, got 0"):
        gradient(optax.sgd, learning_rate=0.1, batch_size=0, key=jax.random.key(0))


SGD = partial(gradient, optax.sgd, learning_rate=0.1)


@pytest.mark.parametrize("solver", [newton, lbfgs, proximal, em, SGD])
def test_steps_and_tolerances_of_solvers(solver):
    tol = "grad_tol" if solver is SGD else "tol"
    with raises(ValueError, "max_steps: expected at least 0, got -1"):
        solver(max_steps=-1)
    for bad in (-1e-9, np.nan, np.array(-1.0), jnp.nan, np.float32(-1)):
        with raises(ValueError, f"{tol}: expected a number of at least 0, got {bad}"):
            solver(**{tol: bad})
    for bad in ("1", True, [1e-3], 1j):
        with raises(TypeError, f"{tol}: expected a number, or None, got"):
            solver(**{tol: bad})
    for bad in (1.5, "3", True, None):
        with raises(TypeError, "max_steps: expected an integer of at least 0, got"):
            solver(max_steps=bad)
    for good in (0.0, np.float32(1e-3), jnp.asarray(1e-3), jnp.array([1e-3, 1e-2])):
        assert solver(**{tol: good}, max_steps=np.int64(0)).max_steps == 0
    jax.jit(lambda t: solver(**{tol: t}) and t)(1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": 0}, "memory: expected at least 1, got 0"),
        ({"sample_rows": 0}, "sample_rows: expected at least 1, got 0"),
        ({"sample_dtype": "float16"}, 'sample_dtype: expected "float32", "float64" or None'),
    ],
)
def test_settings_of_lbfgs(settings, message):
    with raises(ValueError, message):
        lbfgs(**settings)


@pytest.mark.parametrize("num_classes", [1, 0, True, 3.0, "3"])
def test_wrong_numbers_of_classes(num_classes):
    with raises(ValueError, f"num_classes: expected an integer of at least 2, got {num_classes!r}"):
        softmax.model(num_classes)


def test_an_unknown_parameterisation():
    message = "parameterisation: expected one of ('reference', 'symmetric'), got 'both'"
    with raises(ValueError, message):
        softmax.model(3, parameterisation="both")


def test_a_mesh_of_two_axes():
    with raises(ValueError, "mesh: expected one axis, got ('a', 'b')"):
        shard(X, Y, mesh=jax.make_mesh((1, 1), ("a", "b")))


def test_no_devices():
    with raises(ValueError, "num_devices: expected at least 1, got 0"):
        use_all_cores(0)


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, caught


@pytest.mark.parametrize("kind", ["numpy", *FRAMES])
def test_float64_in_float32_mode_is_told_once(kind, expected):
    x = X.astype(np.float64)
    x = x if kind == "numpy" else FRAMES[kind](dict(zip("ab", x.T, strict=True)))
    result, caught = warned(lambda: fit(LOGISTIC, x, Y))
    message = "x is float64, but JAX is in float32 mode, so it is rounded to float32."
    assert [str(w.message).startswith(message) for w in caught] == [True]
    assert caught[0].category is UserWarning
    assert caught[0].filename == __file__  # the line that called fit
    assert_same(result, expected)


@pytest.mark.parametrize("name", ["weights", "offset"])
def test_the_warning_names_the_argument_and_points_at_the_call(name):
    value = np.full(N, 0.5)
    _, caught = warned(lambda: fit(LOGISTIC, X, Y, **{name: value}))
    assert [str(w.message).split(" is ")[0] for w in caught] == [name]
    assert caught[0].filename == __file__


def test_the_warning_of_shard_points_at_the_call():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shard(X.astype(np.float64), Y)
    assert [str(w.message).split(" is ")[0] for w in caught] == ["x"]
    assert caught[0].filename == __file__


ONES = np.ones(N)
CALLS = {
    "fit": (lambda x: fit(LOGISTIC, x, Y * 1.0, weights=ONES, offset=ONES), "x, weights, offset"),
    "fit_many": (lambda x: many.fit_many(LOGISTIC, x, Y, l2=np.ones(2)), "x"),
    "path": (
        lambda x: many.path(LOGISTIC, x, Y, weights=ONES, num_values=2),
        "x, weights",
    ),
    "cross_validate": (
        lambda x: many.cross_validate(LOGISTIC, x, Y, folds=np.arange(N) % 2, l2=np.ones(2)),
        "x",
    ),
    "shard": (lambda x: shard(x, Y, ONES), "x, weights"),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_warning_names_all_arguments_of_a_call(name):
    call, names = CALLS[name]
    _, (one,) = warned(lambda: call(X.astype(np.float64)))
    told = names.replace(", ", " and ") + (" are" if "," in names else " is")
    assert str(one.message).startswith(f"{told} float64, but JAX is in float32 mode")
    assert one.filename == __file__
    _, (again,) = warned(lambda: call(X.astype(np.float64)))  # of each call
    assert str(again.message) == str(one.message)


def test_lists_promise_no_precision(expected):
    result, caught = warned(lambda: fit(LOGISTIC, X.tolist(), Y.tolist()))
    assert caught == []
    assert_same(result, expected)


def test_float64_is_kept_in_float64_mode(x64):
    result, caught = warned(lambda: fit(LOGISTIC, X.astype(np.float64), Y))
    assert caught == []
    assert result.params.weights.dtype == np.float64


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "float32"])
def test_labels_of_every_dtype(expected, dtype):
    y = Y.astype(dtype)
    for form in (y, jnp.asarray(Y).astype(jax.dtypes.canonicalize_dtype(dtype)), y.tolist()):
        assert_same(fit(LOGISTIC, X, form), expected)


@pytest.mark.parametrize("library", FRAMES)
def test_frames_and_series(expected, library):
    frame = FRAMES[library]({"age": X[:, 0], "height": X[:, 1]})
    result = fit(LOGISTIC, frame, SERIES[library](Y))
    assert result.feature_names == ("age", "height")
    assert jax.jit(lambda fit: fit)(result).feature_names == ("age", "height")
    assert_same(result, expected)
    assert expected.feature_names is None
    assert feature_names(frame) == ("age", "height")


@pytest.mark.parametrize("library", FRAMES)
def test_frames_keep_their_names_when_sharded(library):
    frame = FRAMES[library]({"age": X[:, 0], "height": X[:, 1]})
    data = shard(frame, SERIES[library](Y), SERIES[library](np.ones(N, np.float32)))
    assert data.feature_names == ("age", "height")
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, Y)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "bool"])
def test_integer_features(dtype):
    x = (X > 0).astype(dtype)
    assert_same(fit(LOGISTIC, x, Y), fit(LOGISTIC, x.astype(np.float32), Y))


def test_without_columns_the_bias_is_fitted():
    y = np.arange(N) % 3 == 0
    result = fit(LOGISTIC, X[:, :0], y)
    assert result.params.weights.shape == (0,)
    # Log-odds of 1/3; the gap of 1e-4 is half the information 12 · 2/9 times a squared error.
    np.testing.assert_allclose(result.params.bias, np.log(0.5), atol=np.sqrt(2e-4 / (24 / 9)))


def test_a_masked_array_without_masked_entries(expected):
    assert_same(fit(LOGISTIC, np.ma.masked_greater(X, 1e6), Y), expected)


@pytest.mark.parametrize("weights", [[1] * N, np.ones(N, bool), np.ones(N, np.int64), jnp.ones(N)])
def test_weights_of_every_dtype(weights):
    given = fit(LOGISTIC, X, Y, weights=np.ones(N, np.float32))
    assert_same(fit(LOGISTIC, X, Y, weights=weights), given)


@pytest.mark.parametrize("l2", [1, np.int64(1), np.float64(1), jnp.ones(()), np.ones(())])
def test_penalties_of_every_type(l2):
    assert_same(fit(LOGISTIC, X, Y, l2=l2), fit(LOGISTIC, X, Y, l2=1.0))


def test_check_scalar_lets_tracers_pass():
    seen = jax.jit(lambda l2: check_scalar("l2", l2, dtype="float32"))(-1.0)
    assert float(seen) == -1.0


def test_data_as_checked(dtype):
    data = check_data(X.astype(dtype), Y.astype(bool), Y + 1, variables=TWO)
    assert (data.x.dtype, data.y.dtype, data.weights.dtype) == (dtype, "int32", dtype)
    assert data.offset is None
    assert data.feature_names is None
    np.testing.assert_array_equal(data.y, Y)


def test_arrays_of_jax_pass_through():
    x = jnp.asarray(X)
    assert as_array("x", x, shape="(n, d)", ndim=2) is x


VALUES = {
    "x": (with_entry(X, (0, 0), np.nan), Y, None, None),
    "y": (X, with_entry(Y, 0, 2), None, None),
    "weights": (X, Y, with_entry(np.ones(N, np.float32), 0, -1.0), None),
    "offset": (X, Y, None, with_entry(np.ones(N, np.float32), 0, np.inf)),
    "no_weight": (X, Y, np.zeros(N, np.float32), None),
    "nothing": (X, Y, np.ones(N, np.float32), np.ones(N, np.float32)),
}


@pytest.mark.parametrize("name", VALUES)
def test_violations(name):
    found = violations(*jax.tree.map(jnp.asarray, VALUES[name]), variables=TWO)
    assert [key for key, value in found._asdict().items() if value] == [name] * (name != "nothing")
    assert bool(found.invalid) == (name not in ("no_weight", "nothing"))
