"""Lanes in blocks, of any size, over devices, gathered, or stopped: the same fits."""

import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from child import answers_of
from lanes import assert_close, by_hand, draw_lanes, matrix
from tolerances import SAME_FIT

import jaxprob as jp
from jaxprob import Status, fit
from jaxprob.many import Interrupted, cross_validate, fit_many
from jaxprob.many.engine import lanes as programs
from jaxprob.many.engine import schedule
from jaxprob.many.engine.arguments import make_lanes
from jaxprob.models import gaussian_mixture, logistic, naive_bayes
from jaxprob.runtime.compilation import eager_jit
from jaxprob.solvers import newton

LOGISTIC = logistic.model()
SLOW = pytest.mark.slow


def hard(n=40, size=43, seed=0):
    """Six examples keep the classes from being separated; their weights go from 1 to 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = (x[:, 0] > 0).astype(int)
    y[:6] ^= 1
    weights = np.ones((size, n))
    weights[:, :6] = 10.0 ** -rng.uniform(0, 7, (size, 1))
    weights[::7, :6] = 0
    return x, y, weights


def assert_same_lanes(some, others, atol):
    """Separated lanes are looked at when their block is, so what they stopped at may differ."""
    assert some.status.tolist() == others.status.tolist()
    good = np.flatnonzero(others.status != Status.SEPARATED)
    assert some.num_steps[good].tolist() == others.num_steps[good].tolist()
    for a, b in zip(some.params, others.params, strict=True):
        assert_close(a[good], b[good], atol)


@pytest.fixture(autouse=True, scope="module")
def whole_programs():
    """As many lanes have them, and a few only where plain Newton steps are not enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "_WORTH_COMPILING", 0.0)
        yield


@pytest.fixture(scope="module")
def in_one_call(whole_programs):
    with jax.enable_x64(True):
        x, y, weights = hard()
        return fit_many(LOGISTIC, x, y, weights=weights)


def test_lanes_that_need_many_steps(x64, in_one_call):
    x, y, weights = hard()
    separated = np.arange(len(weights)) % 7 == 0
    expected = np.where(separated, Status.SEPARATED, Status.CONVERGED)
    np.testing.assert_array_equal(in_one_call.status, expected)
    steps = in_one_call.num_steps[~separated]
    assert steps.min() <= 3
    assert steps.max() >= 8  # beyond the steps of a first block
    for i in np.flatnonzero(~separated):
        theta, _ = by_hand(LOGISTIC, x, y, weights[i])
        # Of these gaps of 1e-12, weights of 1e-7 make 1e-6 and less of the parameters.
        assert_close(matrix(in_one_call.lane(i).params), theta, SAME_FIT["float64"])


ONE_BY_ONE = {"_ELEMENTS": 1, "_SHARED_LANES": 1, "_LEAST": 1}
BLOCKS = {
    "many sizes": ONE_BY_ONE | {"_CALL_ELEMENTS": 1, "_LEAST": 3},
    "one lane at a time": {"memory_budget": 1},
    "a small budget": {"memory_budget": 40_000},
    "blocks in turn": ONE_BY_ONE,
    "many calls": ONE_BY_ONE | {"_CALL_ELEMENTS": 1},
    "two in turn": ONE_BY_ONE | {"_ELEMENTS": 400, "_CALL_ELEMENTS": 800},
}


def shapes_of_calls(monkeypatch, **constants):
    """A list to which each call of a program adds its shape."""
    shapes, plain = [], schedule.Run._call

    def call(self, program, shape, *rest, **keywords):
        shapes.append(shape)
        return plain(self, program, shape, *rest, **keywords)

    monkeypatch.setattr(schedule.Run, "_call", call)
    for name, value in constants.items():
        monkeypatch.setattr(schedule, name, value)
    return shapes


@pytest.mark.parametrize(
    "how", [pytest.param(h, marks=() if h == "a small budget" else SLOW) for h in BLOCKS]
)
def test_blocks_of_any_size_give_the_same(x64, monkeypatch, in_one_call, how):
    settings = dict(BLOCKS[how])
    budget = settings.pop("memory_budget", None)
    shapes = shapes_of_calls(monkeypatch, **settings)
    x, y, weights = hard()
    fits = fit_many(LOGISTIC, x, y, weights=weights, memory_budget=budget)
    assert all(shape.lanes <= 12 for shape in shapes)
    # One arithmetic, in whatever company: rounding of 40 terms, at curvatures down to 1e-7.
    assert_same_lanes(fits, in_one_call, 1e-9)


def test_the_steps_of_some_lanes_run_out(x64, monkeypatch):
    monkeypatch.setattr(schedule, "_WORTH_COMPILING", 1e9)  # as a fit alone
    x, y, weights = hard(size=8)
    weights[::7, :6] = 1.0
    solver = newton(max_steps=3)
    fits = fit_many(LOGISTIC, x, y, weights=weights, solver=solver)
    alone = [fit(LOGISTIC, x, y, weights=w, solver=solver) for w in weights]
    assert fits.status.tolist() == [int(one.status) for one in alone]
    assert fits.num_steps.tolist() == [int(one.num_steps) for one in alone]
    assert np.any(fits.status == Status.MAX_STEPS)
    assert fits.status[0] == Status.CONVERGED
    assert "raise the solver's max_steps" in str(fits.report())


# Programs.

_compiled = []


def listen(name, *_, **__):
    if name == "/jax/core/compile/backend_compile_duration":
        _compiled.append(name)


jax.monitoring.register_event_duration_secs_listener(listen)


EVERY = ("x", "y", "weights", "offset", "l2", "init")


def num_compiled(call):
    before = len(_compiled)
    jax.block_until_ready(call().params)
    return len(_compiled) - before


def test_other_values_of_the_same_shapes_compile_nothing(x64, in_one_call):
    x, y, weights = hard()
    other = hard(seed=1)[0][:, ::-1].copy()

    def again():
        return fit_many(LOGISTIC, x + 0.01 * other, y, weights=np.roll(weights, 5, axis=0))

    fit_many(LOGISTIC, x, y, weights=weights)  # caches may have been cleared between the tests
    assert num_compiled(again) == 0
    assert np.any(again().params.weights != in_one_call.params.weights)
    given = draw_lanes(LOGISTIC, EVERY)
    fit_many(LOGISTIC, **given)
    for seed in (1, 2):
        given = draw_lanes(LOGISTIC, EVERY, seed=seed)
        assert num_compiled(lambda given=given: fit_many(LOGISTIC, **given)) == 0


def test_lanes_that_are_plain_need_one_small_program(x64, monkeypatch):
    def fails(*args, **keywords):
        raise AssertionError("a program for lanes of any kind")

    given = draw_lanes(LOGISTIC, ("weights", "offset", "l2"), size=11)
    whole = fit_many(LOGISTIC, **given)
    monkeypatch.setattr(schedule, "_WORTH_COMPILING", 1e9)
    hard_lanes = hard()
    with monkeypatch.context() as patch:
        patch.setattr(programs, "first", eager_jit(fails))
        plain = fit_many(LOGISTIC, **given)
        with pytest.raises(AssertionError, match="of any kind"):
            fit_many(LOGISTIC, *hard_lanes[:2], weights=hard_lanes[2])
    assert plain.status.tolist() == whole.status.tolist() == [Status.CONVERGED] * 11
    assert np.all(plain.gap <= 1e-12 * (1 + np.abs(plain.objective)))
    for a, b in zip(plain.params, whole.params, strict=True):
        assert_close(a, b, SAME_FIT["float64"])


@pytest.mark.parametrize("large", [True, False])
def test_what_has_taken_long_is_compiled_for_any_lanes(x64, monkeypatch, in_one_call, large):
    """Between the calls of a run, too, and lanes that plain steps left open are not lost."""
    used, call = [], schedule.Run._call

    def noted(self, program, *rest, **keywords):
        used.append(program)
        return call(self, program, *rest, **keywords)

    worth = "_WORTH_OPTIMISING" if large else "_WORTH_COMPILING"
    monkeypatch.setattr(schedule, worth, 1e-9)
    monkeypatch.setattr(schedule, "_COMPACT_SECONDS", {})
    monkeypatch.setattr(schedule, "_MUCH_WORK", 0.0 if large else np.inf)
    monkeypatch.setattr(schedule.Run, "_call", noted)
    x, y, weights = hard()
    fits = fit_many(LOGISTIC, x, y, weights=weights, memory_budget=40_000)
    assert used[0] is programs.plain
    assert programs.plain not in used[used.index(programs.first) :]
    assert fits.status.tolist() == in_one_call.status.tolist()
    good = np.flatnonzero(fits.status == Status.CONVERGED)
    for a, b in zip(fits.params, in_one_call.params, strict=True):
        assert_close(a[good], b[good], SAME_FIT["float64"])


def test_lanes_that_are_not_plain_go_on(x64, monkeypatch, in_one_call):
    monkeypatch.setattr(schedule, "_WORTH_COMPILING", 1e9)
    x, y, weights = hard()
    fits = fit_many(LOGISTIC, x, y, weights=weights)
    assert fits.status.tolist() == in_one_call.status.tolist()
    good = np.flatnonzero(fits.status == Status.CONVERGED)
    for a, b in zip(fits.params, in_one_call.params, strict=True):
        assert_close(a[good], b[good], SAME_FIT["float64"])


def several(kind):
    """A model, and ten lanes of it: the third's data are not finite, the fourth has none."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(10, 30, 2)) + 3 * (np.arange(30) % 2)[:, None]
    x[2, 5, 1] = np.nan
    y = (rng.uniform(size=30) < 0.3 + 0.4 * (np.arange(30) % 2)).astype(int)
    weights = rng.integers(1, 4, (10, 30)).astype(float)
    weights[3] = 0.0
    given = {"x": x, "y": y, "weights": weights}
    if kind == "lasso":
        return LOGISTIC, given | {"l1": 1.0}
    if kind == "mixture":
        return gaussian_mixture.model(2), {n: a for n, a in given.items() if n != "y"}
    return naive_bayes.model(2, naive_bayes.Gaussian()), given


@pytest.mark.parametrize("kind", ["lasso", "mixture", "naive Bayes"])
def test_lanes_that_raise_no_doubt_need_one_program(x64, monkeypatch, kind):
    """It does what the programs for any lane do, of lanes with nothing to fit too."""

    def fails(*args, **keywords):
        raise AssertionError("another program")

    model, given = several(kind)
    key = {"key": jax.random.key(0)} if kind == "mixture" else {}
    with monkeypatch.context() as patch:
        patch.setattr(schedule, "_WORTH_COMPILING", 1e9)
        for name in ("plain", "first", "rest"):
            patch.setattr(programs, name, eager_jit(fails))
        one = fit_many(model, **given, **key)
    with monkeypatch.context() as patch:
        patch.setattr(schedule.Run, "_compact", lambda self, problem: None)
        patch.setattr(programs, "whole", eager_jit(fails))
        every = fit_many(model, **given, **key)
    expected = [Status.CONVERGED] * 10
    expected[2:4] = Status.INVALID_INPUT, Status.NO_DATA
    assert one.status.tolist() == every.status.tolist() == expected
    assert one.num_steps.tolist() == every.num_steps.tolist()
    good = one.status == Status.CONVERGED
    trees = ((f.params, f.gap, f.objective, f.log_likelihood, f.total_weight) for f in (one, every))
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        assert_close(a[good], b[good], SAME_FIT["float64"])


def test_a_lane_keeps_its_dtype_wherever_it_is_taken():
    x, y, weights = hard(size=3)
    with jax.enable_x64(True):
        fits = fit_many(LOGISTIC, x, y, weights=weights)
    assert fits.lane(1).params.weights.dtype == fits.params.weights.dtype == "float64"
    assert fits.lane(1).params.weights.tolist() == fits.params.weights[1].tolist()


# What the user stops.


def interrupted_after(monkeypatch, num_calls):
    """Ctrl-C once so many calls of programs have been kept."""
    plain = schedule.Run.go

    def go(self, lanes):
        for k, done in enumerate(plain(self, lanes)):
            if k == num_calls:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(schedule.Run, "go", go)


def test_an_interrupt_hands_over_the_lanes_that_are_finished(x64, monkeypatch):
    given = draw_lanes(LOGISTIC, ("weights",), size=20)
    for name, value in (ONE_BY_ONE | {"_CALL_ELEMENTS": 1, "_LEAST": 7}).items():
        monkeypatch.setattr(schedule, name, value)
    whole = fit_many(LOGISTIC, **given)
    interrupted_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit_many(LOGISTIC, **given)
    assert type(caught.value) is Interrupted
    fits = caught.value.fits
    done = np.arange(20) < 14  # two calls of seven lanes
    assert fits.status.tolist() == np.where(done, Status.CONVERGED, Status.MAX_STEPS).tolist()
    for name in ("params", "log_likelihood", "gap", "grad_norm"):
        for a, b in zip(*(jax.tree.leaves(getattr(f, name)) for f in (fits, whole)), strict=True):
            np.testing.assert_array_equal(a[done], b[done])
            assert np.all(np.isnan(a[~done]))
    assert fits.num_steps[~done].tolist() == fits.num_examples[~done].tolist() == [0] * 6
    assert fits.report().counts == {Status.CONVERGED: 14, Status.MAX_STEPS: 6}
    assert jp.summary(fits.lane(0)).coefficient[0] == whole.params.weights[0, 0]


def test_an_interrupt_before_anything_is_finished_is_a_plain_one(x64, monkeypatch):
    def interrupt(self, lanes):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(schedule.Run, "go", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit_many(LOGISTIC, **draw_lanes(LOGISTIC, ("weights",)))
    assert type(caught.value) is KeyboardInterrupt


# Devices.


def answers():
    """What the fits of some lanes are, to the last digit."""
    x, y, weights = hard(size=33)
    own = draw_lanes(LOGISTIC, EVERY, size=11)
    cases = {
        "shared": fit_many(LOGISTIC, x, y, weights=weights),
        "own": fit_many(LOGISTIC, **own),
        "one": fit_many(LOGISTIC, x, y, weights=weights[1:2]),
        "folds": cross_validate(LOGISTIC, x, y, folds=np.arange(40) % 3, l2=np.ones(5)).fits,
    }
    arrays = ("status", "num_steps", "num_examples", "gap", "log_likelihood")
    return {
        name: {key: np.asarray(getattr(fits, key)).tolist() for key in arrays}
        | {"params": np.column_stack(fits.params).tolist()}
        for name, fits in cases.items()
    }


def child(worth_compiling):
    """The answers on two devices, as JSON."""
    schedule._WORTH_COMPILING = worth_compiling
    num_devices = jp.use_all_cores(2)
    jax.config.update("jax_enable_x64", True)
    assert num_devices == len(jax.local_devices()) == 2
    print(json.dumps(answers()))


@pytest.mark.slow
@pytest.mark.parametrize("worth_compiling", [0.0, 1e9])
def test_two_devices(x64, monkeypatch, worth_compiling):
    monkeypatch.setattr(schedule, "_WORTH_COMPILING", worth_compiling)
    two, one = answers_of(__file__, worth_compiling), answers()
    for name, expected in one.items():
        got = two[name]
        assert got["status"] == expected["status"]
        good = np.array(expected["status"]) == Status.CONVERGED
        assert np.sum(good) == {"shared": 28, "own": 11, "one": 1, "folds": 15}[name]
        for key in ("params", "log_likelihood", "num_steps", "num_examples"):
            a, b = np.array(got[key])[good], np.array(expected[key])[good]
            assert_close(a, b, 1e-9)  # rounding of 40 terms, at curvatures down to 1e-7
        assert np.all(np.array(got["gap"])[good] <= 1e-8)


if __name__ == "__main__":
    child(float(sys.argv[1]))


def test_gathered_lanes_keep_their_own_data():
    lanes = draw_lanes(LOGISTIC, ("weights",), size=50, dtype="float32")
    lanes, _ = make_lanes(LOGISTIC, lanes | {"offset": None, "l2": None, "l1": None})
    run = SimpleNamespace(lanes=lanes)
    for index in ([30, 33, 32], [4, 3, 2], [5, 6, 7], [9, 2]):
        taken = schedule.Run._take(run, "weights", np.array(index), 3)
        padded = index + index[-1:] * (3 - len(index))
        np.testing.assert_array_equal(taken, lanes.own["weights"][padded])
