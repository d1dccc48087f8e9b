"""What `fit_many` takes, what it refuses before computing, and what is a status of one lane."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from lanes import B, D, N, assert_close, by_hand, draw_lanes, lane, matrix
from tolerances import EIGHT_DIGITS

import jaxprob as jp
from jaxprob import Status, fit
from jaxprob.many import fit_many
from jaxprob.models import logistic, softmax
from jaxprob.solvers import newton

LOGISTIC = logistic.model()
SOFTMAX = softmax.model(3)
EVERY = ("x", "y", "weights", "offset", "l2")
pytestmark = pytest.mark.usefixtures("x64")


def given(*own, model=LOGISTIC, dtype="float64", **changes):
    return draw_lanes(model, own, dtype=dtype) | changes


def assert_same_params(some, others):
    assert some.status.tolist() == others.status.tolist() == [Status.CONVERGED] * B
    for a, b in zip(some.params, others.params, strict=True):
        # Of one arithmetic: rounding only, of sums of 60 terms.
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


# Where the lanes are.


def test_the_lane_axis_may_be_any():
    args = given(*EVERY, model=SOFTMAX)
    expected = fit_many(SOFTMAX, **args)
    moved = {"x": 2, "y": 1, "weights": -1, "offset": 1, "l2": 0}
    there = {name: np.moveaxis(args[name], 0, axis) for name, axis in moved.items()}
    assert_same_params(fit_many(SOFTMAX, **there, in_axes=moved), expected)
    there = {name: jnp.asarray(a) for name, a in there.items()}
    fits = fit_many(SOFTMAX, **there, in_axes=moved)
    assert_same_params(fits, expected)
    alone = fit(SOFTMAX, **lane(args, EVERY, 2))
    assert_close(fits.lane(2).information, alone.information, EIGHT_DIGITS)


def test_none_is_shared():
    args = given("weights")
    axes = {"weights": None, "x": None}
    with pytest.raises(ValueError, match=r"weights: expected shape \(n,\), got \(6, 60\)"):
        fit_many(LOGISTIC, **args, in_axes=axes)
    some = args | {"weights": args["weights"][0], "l2": np.ones(B)}
    fits = fit_many(LOGISTIC, **some, in_axes=axes)
    assert np.ptp(fits.params.weights, axis=0).tolist() == [0, 0]


def test_lists_frames_and_integers_are_taken():
    args = given("weights", "offset", "l2")
    args["x"] = np.round(2 * args["x"])
    args["weights"] = np.round(args["weights"])
    args["offset"] = np.round(args["offset"])
    expected = fit_many(LOGISTIC, **args)
    lists = {name: a.tolist() for name, a in args.items()}
    assert_same_params(fit_many(LOGISTIC, **lists), expected)
    integers = {n: a if n == "l2" else a.astype(int) for n, a in args.items()}
    fits = fit_many(LOGISTIC, **integers)
    assert_same_params(fits, expected)
    alone = fit(LOGISTIC, **lane(args, ("weights", "offset", "l2"), 1))
    assert_close(fits.lane(1).information, alone.information, EIGHT_DIGITS)
    frames = args | {"weights": pd.DataFrame(args["weights"].T), "x": pd.DataFrame(args["x"])}
    fits = fit_many(LOGISTIC, **frames, in_axes={"weights": 1})
    assert_same_params(fits, expected)
    assert fits.feature_names == ("0", "1")


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool"])
def test_own_features_that_are_no_floats(dtype):
    args = given("x", "y", "weights")
    args["x"] = (args["x"] > 0).astype(dtype)
    expected = fit_many(LOGISTIC, **args | {"x": args["x"].astype("float64")})
    fits = fit_many(LOGISTIC, **args)
    assert_same_params(fits, expected)
    alone = fit(LOGISTIC, **lane(args, ("x", "y", "weights"), 1))
    assert_close(fits.lane(1).information, alone.information, EIGHT_DIGITS)


def test_penalties_beyond_float32():
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"l2: .* within float32, got 1e\+"):
        fit_many(LOGISTIC, **given(dtype="float32", l2=[1.0, 1e300]))


def test_concrete_arrays_while_something_else_is_traced():
    args = given("weights")
    expected = fit_many(LOGISTIC, **args).params.bias
    got = jax.jit(lambda a: a * fit_many(LOGISTIC, **args).params.bias)(2.0)
    np.testing.assert_allclose(got, 2 * expected, rtol=1e-12)


def test_labels_of_any_dtype():
    args = given("x", "y")
    expected = fit_many(LOGISTIC, **args)
    for dtype in ("bool", "int8", "uint8", "int64", "uint64", "float64"):
        y = args["y"].astype(dtype)
        assert_same_params(fit_many(LOGISTIC, **args | {"y": y}), expected)
        assert_same_params(fit_many(LOGISTIC, **args | {"y": jnp.asarray(y)}), expected)


@pytest.mark.slow
def test_one_lane():
    args = given("weights")
    args["weights"] = args["weights"][:1]
    fits = fit_many(LOGISTIC, **args)
    assert fits.status.tolist() == [Status.CONVERGED]
    theta, _ = by_hand(LOGISTIC, **lane(args, ("weights",), 0))
    assert_close(matrix(fits.lane(0).params), theta, EIGHT_DIGITS)


def test_a_shared_start():
    args = given("weights", "init")
    far = logistic.Params(np.full(D, 3.0), np.array(-1.0))
    expected = fit_many(LOGISTIC, **args)
    fits = fit_many(LOGISTIC, **args | {"init": far})
    assert np.all(fits.num_steps > 0)
    for a, b in zip(fits.params, expected.params, strict=True):
        assert_close(a, b, EIGHT_DIGITS)
    behind = jax.tree.map(lambda a: np.moveaxis(a, 0, -1), args["init"])
    moved = fit_many(LOGISTIC, **args | {"init": behind}, in_axes={"init": -1})
    assert_same_params(moved, expected)
    again = fit_many(LOGISTIC, **args | {"init": fits.params})
    assert np.all(again.num_steps <= 1)


def test_lane_is_one_of_many():
    fits = fit_many(LOGISTIC, **given("weights"))
    assert fits.lane(-1).params.weights.tolist() == fits.params.weights[B - 1].tolist()
    for i in (B, -B - 1):
        with pytest.raises(IndexError, match=f"lane: expected one of 6 fits, got {i}"):
            fits.lane(i)
    with pytest.raises(ValueError, match="lane: expected many fits, got shape"):
        fits.lane(0).lane(0)


def test_the_report_has_the_names_of_a_frame():
    args = given()
    x = pd.DataFrame({"age": args["x"][:, 0], "dose": args["x"][:, 1]})
    y = np.stack([args["y"], x["dose"] > 0.3, x["age"] < 0])
    fits = fit_many(logistic.model(bias=False), x - [0, 0.3], y)
    assert fits.feature_names == fits.lane(1).feature_names == ("age", "dose")
    (_, one), (_, two) = [(f.lane, f.reason) for f in fits.report().failures]
    assert "; dose → +∞" in one
    assert "; age → -∞" in two
    assert jp.summary(fits.lane(0)).names == ("age", "dose")


# What is refused.

BAD = {
    "no lanes at all": (given(), "at least one argument with a lane axis"),
    "no lanes": (given(weights=np.ones((0, N))), "expected at least one lane, got 0"),
    "no penalties": (given(l2=[]), "expected at least one lane, got 0"),
    "no rows": (given(x=np.ones((B, 0, D)), y=np.ones((B, 0), int)), "at least one example"),
    "other numbers": (
        given("y", weights=np.ones((B + 1, N))),
        r"as many lanes in every argument, got \{'y': 6, 'weights': 7\}",
    ),
    "one weight less": (
        given(weights=np.ones((B, N - 1))),
        "weights: expected one entry for each of the 60 rows of x, got 59",
    ),
    "one label less": (given("x", y=np.zeros(N - 1, int)), "y: expected one entry for each of the"),
    "own labels, one less": (given(y=np.zeros((B, N - 1), int)), "y: expected one entry for each"),
    "one offset less": (given(offset=np.zeros((B, N - 1))), "offset: expected one entry for each"),
    "too many axes": (given(x=np.ones((1, B, N, D))), r"x: expected shape \(n, d\), got \(1, 6"),
    "ragged": (given(weights=[[1.0], [1.0, 2.0]]), "weights: expected an array .* lengths"),
    "shared nan": (
        given("weights", x=np.full((N, D), np.nan)),
        "x: expected finite numbers, got nan in row 0, column 0",
    ),
    "shared label": (given("weights", y=np.full(N, 2)), "y: expected integers"),
    "shared weights": (given("y", weights=np.full(N, -1.0)), "weights: expected finite numbers"),
    "shared zeros": (given("y", weights=np.zeros(N)), "weights: expected a positive sum"),
    "shared offset": (given("y", offset=np.full(N, np.inf)), "offset: expected finite numbers"),
    "negative penalty": (
        given(l2=[0.1, -1.0]),
        "l2: expected finite numbers .* got -1",
    ),
    "nan penalty": (given(l1=np.array([np.nan, 1])), "l1: expected finite numbers .* got nan"),
    "infinite penalty": (given(l2=[np.inf]), "l2: expected finite numbers .* got inf"),
    "matrix of penalties": (given(l2=np.ones((2, 2))), "l2: expected a single number, got shape"),
    "negative shared penalty": (given("y", l2=-1.0), "l2: expected a finite number of at least 0"),
    "unknown axis": (given("y", in_axes={"z": 0}), r"in_axes: expected names among .*\['z'\]"),
    "axis too large": (
        given("weights", in_axes={"weights": 2}),
        "in_axes: expected an axis of w",
    ),
    "axis too small": (
        given("x", "y", in_axes={"x": -4}),
        "in_axes: expected an axis of x ",
    ),
    "axis of none": (
        given("y", weights=np.ones(N), in_axes={"weights": 0}),
        r"weights: expected shape \(n,\) with a lane axis, got \(60,\)",
    ),
    "axis of a scalar": (
        given("y", l2=1.0, in_axes={"l2": 0}),
        r"l2: expected shape \(\) with a lane axis, got \(\)",
    ),
    "axis of a matrix": (
        given(l2=np.ones((2, 2)), in_axes={"l2": 0}),
        r"l2: expected shape \(\) with a lane axis, got \(2, 2\)",
    ),
    "no budget": (
        given("y", memory_budget=0),
        "memory_budget: expected a positive number",
    ),
    "less than no budget": (
        given("y", memory_budget=-1),
        "memory_budget: .* got -1",
    ),
    "a solver without l1": (
        given("y", l1=[1.0] * B, solver=newton()),
        "solver: l1 has no gradient, so it needs",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_all_lanes_is_an_error(name):
    args, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        fit_many(LOGISTIC, **args)


def test_offsets_of_several_classes_have_a_column_each():
    args = given("y", model=SOFTMAX)
    with pytest.raises(ValueError, match="offset: expected 3 columns"):
        fit_many(SOFTMAX, **args, offset=np.zeros((B, N, 2)))


def test_no_parameters():
    with pytest.raises(ValueError, match="x: expected at least one feature"):
        fit_many(logistic.model(bias=False), np.ones((N, 0)), np.zeros((B, N), int))


INITS = {
    "one weight more": logistic.Params(np.zeros((B, D + 1)), np.zeros(B)),
    "lanes of some": logistic.Params(np.zeros((B, D)), np.zeros(())),
    "other numbers": logistic.Params(np.zeros((B, D)), np.zeros(B - 1)),
    "too many axes": logistic.Params(np.zeros((1, B, D)), np.zeros((1, B))),
    "no bias": logistic.Params(np.zeros((B, D)), None),
    "another tree": {"weights": np.zeros((B, D)), "bias": np.zeros(B)},
    "no numbers": logistic.Params("start", 0.0),
    "text": logistic.Params(np.array(["1"] * D), 0.0),
    "complex numbers": logistic.Params(np.full(D, 1j), 0.0),
}


@pytest.mark.parametrize("name", INITS)
def test_a_start_of_other_shapes(name):
    with pytest.raises(ValueError, match="init: expected parameters of shapes"):
        fit_many(LOGISTIC, **given("weights"), init=INITS[name])


def test_as_many_starts_as_lanes():
    init = logistic.Params(np.zeros((B + 1, D)), np.zeros(B + 1))
    with pytest.raises(ValueError, match=r"as many lanes .* \{'weights': 6, 'init': 7\}"):
        fit_many(LOGISTIC, **given("weights"), init=init)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l2": [True, False]}, "l2: expected numbers, got dtype bool"),
        ({"l2": ["a", "b"]}, "l2: expected numbers"),
        ({"l1": [1j]}, "l1: expected numbers, got dtype complex128"),
        ({"weights": np.full((B, N), "1")}, "weights: expected numbers"),
        ({"x": np.full((B, N, D), 1j)}, "x: expected real numbers"),
        ({"l2": [1.0], "solver": "newton"}, "solver: expected one of jaxprob.solvers"),
        ({"l2": [1.0], "in_axes": {"x": "0"}}, "in_axes: expected a number or None for x"),
        ({"l2": [1.0], "memory_budget": "1"}, "memory_budget: expected a number of bytes"),
    ],
)
def test_arguments_of_the_wrong_type(changes, message):
    with pytest.raises(TypeError, match=message):
        fit_many(LOGISTIC, **given(**changes))


def test_what_is_no_model():
    with pytest.raises(TypeError, match="model: expected one such as"):
        fit_many("logistic", **given("y"))


@pytest.mark.parametrize("name", [*EVERY, "init"])
def test_a_tracer_is_refused(name):
    args = given(*EVERY, "init")
    rest = {key: a for key, a in args.items() if key != name}
    with pytest.raises(TypeError, match=r"fit_many: expected concrete arrays, got a tracer"):
        jax.jit(lambda a: fit_many(LOGISTIC, **rest, **{name: a}).params)(args[name])


# What is left to the status of a lane.


def entry(a, value, i=2):
    a = np.array(a)
    a.reshape(len(a), -1)[i, 5] = value
    return a


IN_A_LANE = {
    "nan in x": ("x", np.nan),
    "infinity in x": ("x", -np.inf),
    "label too large": ("y", 2),
    "negative label": ("y", -1),
    "label beyond int32": ("y", 2**32),  # 0 modulo 2³²
    "label that is nan": ("y", np.nan),
    "label between": ("y", 0.5),
    "infinite label": ("y", np.inf),
    "negative weight": ("weights", -1.0),
    "weight that is nan": ("weights", np.nan),
    "nan in an offset": ("offset", np.nan),
}


@pytest.mark.parametrize("name", IN_A_LANE)
def test_what_is_wrong_with_one_lane_is_its_status(name):
    key, value = IN_A_LANE[name]
    own = ("x", "y", "weights", "offset")
    args = given(*own)
    args[key] = args[key].astype(type(value)) if isinstance(value, float) else args[key]
    fits = fit_many(LOGISTIC, **args | {key: entry(args[key], value)})
    expected = [Status.CONVERGED] * B
    expected[2] = Status.INVALID_INPUT
    assert fits.status.tolist() == expected
    for i in (1, 3):
        theta, _ = by_hand(LOGISTIC, **lane(given(*own), own, i))
        assert_close(matrix(fits.lane(i).params), theta, EIGHT_DIGITS)
    assert [f.lane for f in fits.report().failures] == [2]


def test_a_start_that_is_not_finite():
    args = given("weights", "init")
    args["init"].weights[3] = np.nan
    fits = fit_many(LOGISTIC, **args)
    expected = [Status.CONVERGED] * B
    expected[3] = Status.NON_FINITE
    assert fits.status.tolist() == expected
