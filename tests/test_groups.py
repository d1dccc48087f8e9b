"""One model for each group, and one model from many starts."""

import jax
import numpy as np
import pandas as pd
import pytest
from catalogue import MODELS, draw
from tolerances import EIGHT_DIGITS, SAME_FIT

from jaxprob import Status, fit
from jaxprob.many import fit_groups, folds, groups, restarts
from jaxprob.models import logistic
from jaxprob.solvers import newton

LOGISTIC = logistic.model()
SAME = SAME_FIT["float64"]
pytestmark = pytest.mark.usefixtures("x64")


def ragged(seed=0):
    """Groups of 3 to 70 examples, in random order; one lacks a class, one is separated."""
    rng = np.random.default_rng(seed)
    names = np.repeat(["lacks", "apart", "b", "c", "d"], [12, 20, 40, 70, 33])
    x = rng.normal(size=(len(names), 2))
    y = rng.integers(0, 2, len(names))
    y[names == "lacks"] = 1
    y[names == "apart"] = x[names == "apart", 0] > 0
    weights = rng.integers(1, 4, len(names)) / 2
    order = rng.permutation(len(names))
    return x[order], y[order], names[order], weights[order]


def test_each_group_is_fitted_on_its_own():
    x, y, names, weights = ragged()
    found = fit_groups(LOGISTIC, x, y, names, weights=weights)
    assert found.values.tolist() == ["apart", "b", "c", "d", "lacks"]
    assert found.sizes.tolist() == [20, 40, 70, 33, 12]
    expected = [Status.SEPARATED, *[Status.CONVERGED] * 3, Status.CLASS_ABSENT]
    assert found.fits.status.tolist() == expected
    for name in "bcd":
        own = names == name
        alone = fit(LOGISTIC, x[own], y[own], weights=weights[own])
        got = found[name]
        np.testing.assert_allclose(got.params.weights, alone.params.weights, atol=EIGHT_DIGITS)
        np.testing.assert_allclose(got.log_likelihood, alone.log_likelihood, rtol=1e-10)
        np.testing.assert_allclose(got.information, alone.information, rtol=1e-8)
        assert got.num_examples == own.sum()
        np.testing.assert_allclose(got.null_log_likelihood, alone.null_log_likelihood, rtol=1e-8)
    text = str(found)
    assert "5 groups of 12 to 70 examples" in text
    assert "apart: SEPARATED" in text
    assert "x0 → +∞" in text
    assert len(found.failures()) == 2
    with pytest.raises(KeyError, match="nowhere"):
        found["nowhere"]


def test_penalties_offsets_frames_and_other_models():
    model = MODELS["softmax"]
    case = draw(model, 1, n=60)
    shops = np.arange(60) % 3
    frame = pd.DataFrame(np.asarray(case.x), columns=["a", "b", "c"])
    l2 = np.array([0.1, 1.0, 10.0])
    found = fit_groups(model, frame, case.y, pd.Series(shops), offset=case.offset, l2=l2)
    assert found.fits.feature_names == ("a", "b", "c")
    for shop in range(3):
        own = shops == shop
        alone = fit(model, case.x[own], case.y[own], offset=case.offset[own], l2=l2[shop])
        np.testing.assert_allclose(found[shop].params.weights, alone.params.weights, atol=SAME)
        assert found[shop].l2 == l2[shop]


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, pd.NaT])
def test_a_missing_group_is_an_error(missing):
    x, y, names, _ = ragged()
    names = names.astype(object)
    names[7] = missing
    message = f"groups: expected one of each example, got {missing} for example 7"
    with pytest.raises(ValueError, match=message):
        fit_groups(LOGISTIC, x, y, names)
    with pytest.raises(ValueError, match=message):
        folds(y, jax.random.key(0), groups=names)


def test_groups_of_numbers_may_miss_none_and_of_types_must_sort():
    x, y, names, _ = ragged()
    with pytest.raises(ValueError, match="groups: .*, got nan for example 2"):
        fit_groups(LOGISTIC, x, y, np.where(np.arange(len(y)) == 2, np.nan, 1.0))
    names = names.astype(object)
    names[7] = 3
    with pytest.raises(TypeError, match="groups: .* sort together, got some of int, str"):
        fit_groups(LOGISTIC, x, y, names)


def test_no_group_is_filled_up_beyond_twice_its_size(monkeypatch):
    sizes = []

    def spy(model, x, y, **keywords):
        sizes.extend(zip((keywords["weights"] > 0).sum(axis=1), [x.shape[1]] * len(x), strict=True))
        return real(model, x, y, **keywords)

    real = groups.fit_many
    monkeypatch.setattr(groups, "fit_many", spy)
    x, y, names, _ = ragged()
    fit_groups(LOGISTIC, x, y, names, l2=1.0)
    assert len(sizes) == 5
    assert all(own <= padded for own, padded in sizes)
    assert sum(padded for _, padded in sizes) <= 2 * sum(own for own, _ in sizes)


def test_small_groups_are_filled_up_further_where_that_costs_little():
    assert groups._filled_up(np.array([3, 9, 20, 900])).tolist() == [32, 32, 32, 1024]
    assert groups._filled_up(np.array([3] * 400)).tolist() == [8] * 400
    sizes = np.random.default_rng(0).integers(8, 300, 500)
    assert groups._filled_up(sizes).sum() <= 2 * sizes.sum()


def test_what_are_no_groups():
    x, y, names, _ = ragged()
    with pytest.raises(ValueError, match=r"groups: expected shape \(175,\), one of each example"):
        fit_groups(LOGISTIC, x, y, names[:-1])
    with pytest.raises(ValueError, match=r"l2: expected a number, or one for each of 5 groups"):
        fit_groups(LOGISTIC, x, y, names, l2=[1.0, 2.0])


# Restarts.


def test_a_convex_problem_has_one_end():
    case = draw(LOGISTIC, 4, n=60)
    found = restarts(LOGISTIC, case.x, case.y, jax.random.key(0), num_starts=6, scale=3.0, l2=0.5)
    alone = fit(LOGISTIC, case.x, case.y, l2=0.5)
    assert found.times_found() == 6
    assert "6 starts, 6 converged, 6 of them to the best objective" in str(found)
    np.testing.assert_allclose(found.best.params.weights, alone.params.weights, atol=SAME)
    w = np.asarray(alone.params.weights)
    np.testing.assert_allclose(found.objective, 0.25 * w @ w - alone.log_likelihood, rtol=1e-10)


def test_starts_differ_by_the_key_and_the_scale():
    case = draw(LOGISTIC, 4, n=60)
    stay = {"solver": newton(max_steps=0)}
    one = restarts(LOGISTIC, case.x, case.y, jax.random.key(0), num_starts=400, scale=2.0, **stay)
    two = restarts(LOGISTIC, case.x, case.y, jax.random.key(1), num_starts=400, scale=2.0, **stay)
    w = np.asarray(one.fits.params.weights)
    assert not np.array_equal(w, two.fits.params.weights)
    # 1,200 normal numbers: their standard deviation has a standard error of 2 / √2400.
    assert abs(w.std() - 2) < 4 * 2 / np.sqrt(2400)
    assert one.best.status == Status.MAX_STEPS
    assert one.times_found() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_starts": 0}, "num_starts: expected at least 1, got 0"),
        ({"scale": -1.0}, "scale: expected a finite number of at least 0, got -1.0"),
        ({"scale": np.nan}, "scale: expected a finite number"),
    ],
)
def test_what_are_no_starts(changes, message):
    with pytest.raises(ValueError, match=message):
        restarts(LOGISTIC, np.ones((4, 1)), [0, 1, 0, 1], jax.random.key(0), **changes)
