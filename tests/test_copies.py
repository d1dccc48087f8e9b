"""What can be asked of a result is about the data that were fitted, whatever becomes of them."""

import jax
import numpy as np
import pandas as pd
import pytest

import jaxprob as jp
from jaxprob import many, sensitivity
from jaxprob.many.engine import keeping
from jaxprob.models import logistic
from jaxprob.models import naive_bayes as nb

LOGISTIC = logistic.model()
N, B = 40, 4
pytestmark = pytest.mark.usefixtures("x64")


def aligned(a):
    """A copy at an address from which XLA takes memory as it is."""
    memory = np.empty(a.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def drawn(dtype):
    """Arrays of the caller's, by name."""
    rng = np.random.default_rng(0)
    made = {
        "x": rng.standard_normal((N, 2)),
        "y": rng.integers(0, 2, N).astype("int32"),
        "weights": rng.uniform(0.5, 2.0, N),
        "offset": rng.standard_normal(N),
        "l2": np.array(0.5),
        "lanes of x": rng.standard_normal((B, N, 2)),
        "lanes of y": rng.integers(0, 2, (B, N)).astype("int32"),
        "lanes of weights": rng.uniform(0.5, 2.0, (B, N)),
        "lanes of offset": rng.standard_normal((B, N)),
        "penalties": np.geomspace(0.1, 10.0, B),
        "start": rng.standard_normal((B, 2)),
        "folds": np.arange(N, dtype="int32") % 3,
        "groups": np.repeat(["a", "b"], N // 2),
    }
    floats = {k: a.astype(dtype) for k, a in made.items() if a.dtype.kind == "f"}
    return {name: aligned(a) for name, a in (made | floats).items()}


def spoil(arrays):
    """Change all of them in place."""
    for a in arrays.values():
        if a.dtype.kind == "f":
            a *= 7
        elif a.dtype.kind == "U":
            a[...] = "a"
        else:
            a[...] = 1 - a


def of_one(fit):
    """All that can be asked of one fit later."""
    table = jp.summary(fit)
    return fit.information, fit.null_log_likelihood, table.standard_error, table.bic


def with_influence(fit):
    return *of_one(fit), sensitivity.influence(fit), sensitivity.infinitesimal_jackknife(fit)


def by_fit(a):
    rest = {name: a[name] for name in ("weights", "offset", "l2")}
    init = logistic.Params(a["start"][0], a["l2"])
    fit = jp.fit(LOGISTIC, a["x"], a["y"], **rest, init=init)
    return lambda: (*with_influence(fit), sensitivity.leave_one_out(fit), fit.l2)


def by_fit_of_a_frame(a):
    x, y, weights = (pd.DataFrame(a["x"], copy=False), *map(pd.Series, (a["y"], a["weights"])))
    fit = jp.fit(LOGISTIC, x, y, weights=weights)
    return lambda: with_influence(fit)


def by_fit_many(a):
    own = {name: a[f"lanes of {name}"] for name in ("x", "y", "weights", "offset")}
    init = logistic.Params(a["start"], a["penalties"])
    fits = many.fit_many(LOGISTIC, **own, l2=a["penalties"], init=init)
    return lambda: (of_one(fits.lane(2)), fits.l2, sensitivity.influence(fits))


def by_fit_many_of_weights(a):
    fits = many.fit_many(LOGISTIC, a["x"], a["y"], weights=a["lanes of weights"], l2=a["l2"])
    return lambda: (of_one(fits.lane(0)), fits.l2, sensitivity.influence(fits))


def by_fit_many_with_lanes_behind(a):
    weights = pd.DataFrame(a["lanes of weights"].T, copy=False)
    axes = {"weights": 1, "offset": 0}
    given = {"weights": weights, "offset": a["lanes of offset"], "in_axes": axes}
    fits = many.fit_many(LOGISTIC, pd.DataFrame(a["x"], copy=False), a["y"], **given)
    return lambda: of_one(fits.lane(1))


def by_bootstrap(a):
    key, rest = jax.random.key(0), {"weights": a["weights"], "l2": a["l2"]}
    boot = many.bootstrap(LOGISTIC, a["x"], a["y"], key, num_replicates=5, **rest)
    return lambda: (with_influence(boot.fit), of_one(boot.fits.lane(3)), boot.interval())


def by_jackknife(a):
    found = many.jackknife(LOGISTIC, a["x"], a["y"], weights=a["weights"])
    return lambda: (of_one(found.fit), of_one(found.fits.lane(3)), found.standard_error())


def by_cross_validate(a):
    given = {"folds": a["folds"], "weights": a["weights"], "l2": a["penalties"]}
    cv = many.cross_validate(LOGISTIC, a["x"], a["y"], **given)
    return lambda: (
        of_one(cv.fits.lane(4)),
        of_one(cv.whole.lane(0)),
        (cv.l2, cv.folds, cv.simplest(), str(cv)),
    )


def by_path(a):
    found = many.path(LOGISTIC, a["x"], a["y"], values=a["penalties"], weights=a["weights"])
    return lambda: (of_one(found.fits.lane(1)), found.values, str(found))


def by_choose_l2(a):
    given = {"values": a["penalties"], "weights": a["weights"], "num_folds": 2, "tol": 0.5}
    found = many.choose_l2(LOGISTIC, a["x"], a["y"], jax.random.key(0), **given)
    return lambda: (of_one(found.fit), of_one(found.grid.fits.lane(0)), str(found.grid))


def by_fit_groups(a):
    given = {"weights": a["weights"], "offset": a["offset"], "l2": a["penalties"][:2]}
    found = many.fit_groups(LOGISTIC, a["x"], a["y"], a["groups"], **given)
    return lambda: (of_one(found["b"]), of_one(found.fits.lane(0)), found.fits.l2, str(found))


def by_restarts(a):
    given = {"weights": a["weights"], "offset": a["offset"], "l2": a["l2"]}
    found = many.restarts(LOGISTIC, a["x"], a["y"], jax.random.key(0), num_starts=2, **given)
    return lambda: (of_one(found.best), str(found))


def by_mixture_search(a):
    given = {"components": (1,), "num_starts": 1, "weights": a["weights"]}
    found = many.mixture_search(a["x"], jax.random.key(0), **given)
    return lambda: (of_one(found.best()), str(found))


def by_shard(a):
    data = jp.data.shard(a["x"], a["y"], a["weights"], a["offset"])
    return lambda: data[:4]


CALLS = [f for name, f in list(globals().items()) if name.startswith("by_")]
MANY_PROGRAMS = by_choose_l2, by_mixture_search, by_restarts
CALLS = [pytest.param(f, marks=[pytest.mark.slow] * (f in MANY_PROGRAMS)) for f in CALLS]


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", CALLS, ids=lambda f: f.__name__)
def test_a_result_stays_when_the_callers_arrays_change(call, dtype):
    expected = call(drawn(dtype))()
    arrays = drawn(dtype)
    asked = call(arrays)
    spoil(arrays)
    for got, known in zip(*map(jax.tree.leaves, (asked(), expected)), strict=True):
        np.testing.assert_array_equal(got, known)


def test_what_is_too_large_to_copy_is_refused_once_it_has_changed(monkeypatch):
    monkeypatch.setattr(keeping, "_MOST_COPIED", 0)
    monkeypatch.setattr(keeping, "_STRETCH", 1 << 10)  # some lanes
    arrays = drawn("float64")
    expected = by_fit_many(drawn("float64"))()
    asked = by_fit_many(arrays)
    for got, known in zip(*map(jax.tree.leaves, (asked(), expected)), strict=True):
        np.testing.assert_array_equal(got, known)
    for axis, weights in ((0, arrays["lanes of weights"]), (1, arrays["lanes of weights"].T)):
        fits = many.fit_many(
            LOGISTIC, arrays["x"], arrays["y"], weights=weights, in_axes={"weights": axis}
        )
        information = fits.lane(0).information
        arrays["lanes of weights"][3, 5] += 1
        np.testing.assert_array_equal(fits.lane(0).information, information)
        for i in (3, -1):
            with pytest.raises(ValueError, match=r"weights: .* changed since \(lane -?\d\)"):
                fits.lane(i)


def test_a_buffer_may_be_read_into_again_while_the_sums_of_a_batch_are_under_way():
    families = (nb.Gaussian(),)
    x = aligned(np.random.default_rng(0).standard_normal((300_000, 4)))
    y = aligned((x[:, 0] > 0).astype("int32"))
    expected = x[y == 1].mean(axis=0)
    known = nb.statistics(x, y, num_classes=2, features=families)
    x *= 7
    np.testing.assert_allclose(known.features[0].mean[1], expected, rtol=1e-9)
