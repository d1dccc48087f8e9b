"""Fits that start from their neighbours': what they are told of each other is true."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MODELS, draw, some_by_default
from tolerances import EPS, SAME_FIT

from jaxprob import Status, fit
from jaxprob.many import Interrupted, cross_validate, path
from jaxprob.many.engine import neighbours, schedule
from jaxprob.models import logistic
from jaxprob.numerics.linalg import factorise
from jaxprob.problem.problem import Known, Problem, Rows
from jaxprob.solvers import lbfgs, newton

LOGISTIC = logistic.model()
L2 = np.logspace(2, -2, 20)
pytestmark = pytest.mark.usefixtures("x64")


def grid_of(name, folds, n=37):
    case = draw(MODELS[name], 1, n=n)
    base = Problem(Rows(*case[1:]), None, None, MODELS[name], True, None)
    return neighbours.Grid(base, {"l2": L2}, L2, folds), jax.flatten_util.ravel_pytree(case.params)


@pytest.mark.parametrize("name", some_by_default("logistic", "softmax, symmetric"))
def test_each_part_has_the_information_of_its_own_examples(name):
    folds = np.random.default_rng(0).integers(0, 3, (2, 37)).astype(np.int32)  # of uneven sizes
    grid, (theta, _) = grid_of(name, folds)
    points = np.stack([np.asarray(theta), np.asarray(theta) / 2])
    known = neighbours._known(grid, points, True)
    assert known.information.shape == (2, 7, len(theta), len(theta))
    lefts = [np.zeros(37, bool)] + [folds[r] == k for r in range(2) for k in range(3)]
    for part, left_out in enumerate(lefts):
        data = grid.base.data
        weights = jnp.where(left_out, 0.0, data.weights)
        problem = replace(grid.base, data=data._replace(weights=weights))
        for j in range(2):
            exact = problem.information(jnp.asarray(points[j]))
            size = np.max(np.abs(known.information[j, 0]))
            got = known.information[j, part]
            np.testing.assert_allclose(got, exact, rtol=0, atol=100 * EPS["float64"] * size)


@pytest.mark.parametrize("name", some_by_default("logistic", "softmax"))
def test_information_between_two_points_is_within_its_spread(name):
    grid, (theta, _) = grid_of(name, None)
    points = np.stack([np.asarray(theta) * s for s in (0.2, 0.3, 0.5)])
    theta, information, spread = neighbours._known(grid, points, True)
    assert spread[0] > 0
    assert spread[-1] == 0
    for j in (0, 1):
        for share in (0.0, 0.4, 1.0):
            mean = (1 - share) * information[j, 0] + share * information[j + 1, 0]
            over = np.exp(spread[j]) * information[j, 0] - mean
            least = np.linalg.eigvalsh(over)[0]
            assert least >= -1e-12 * np.max(np.abs(mean))  # symmetric softmax is flat somewhere


def one_logit():
    """n examples of one class for each of the other: the optimum is z = log n, of curvature 1."""
    x, y, weights = jnp.ones((2, 1)), jnp.array([0, 1], jnp.int32), jnp.array([1.0, np.exp(10)])
    return Problem(Rows(x, y, weights, None), None, None, logistic.model(bias=False), False, None)


def test_the_spread_is_no_larger_than_need_be():
    """Far from 0, the curvature changes by a factor of e^Δ: as much as it ever can."""
    grid = neighbours.Grid(one_logit(), {}, np.zeros(1), None)
    _, information, spread = neighbours._known(grid, np.array([[10.0], [8.0]]), True)
    times = float(information[1, 0, 0, 0] / information[0, 0, 0, 0])
    assert 1.99 < np.log(times) < spread[0] < 2.01


def test_a_chord_proves_what_is_true_and_little_less():
    problem, at, origin = one_logit(), jnp.array([10.001]), jnp.array([8.0])
    value, grad = problem.value_and_grad(at)
    excess = float(value - problem.value_and_grad(jnp.array([10.0]))[0])
    for share, spread in ((1.0, 0.0), (0.5, np.log(2.0))):
        information = problem.information(origin) / share  # e^spread times that at the origin
        factor = factorise(problem.regular(origin, information))
        bound = problem.certificates.chord_bound(
            problem, at, value, grad, at - origin, factor, spread
        )
        assert excess <= bound < 1.1 * excess


@pytest.mark.parametrize("degree", [1, 3, 5])
def test_polynomials_are_guessed_exactly(degree):
    rng = np.random.default_rng(degree)
    knots, at = rng.permutation(np.linspace(-2, 2, 9)), np.linspace(-2, 2, 31)
    powers = rng.normal(size=(degree + 1, 4))

    def values(s):
        return np.vander(s, degree + 1) @ powers

    guess = neighbours.between(knots, values(knots), at, degree)
    np.testing.assert_allclose(guess, values(at), rtol=0, atol=1e-12 * np.abs(powers).sum() * 32)
    few = neighbours.between(knots[:2], values(knots[:2]), knots[:2], degree)
    np.testing.assert_allclose(few, values(knots[:2]), rtol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 9, 20, 100])
def test_every_penalty_has_its_turn_once(m):
    levels = neighbours._levels(m)
    assert np.sort(np.concatenate(levels)).tolist() == list(range(m))
    assert {0, m - 1} <= set(levels[0].tolist())
    assert len(levels[0]) == min(m, max(4, -(-m // 8) + 1))


@pytest.mark.parametrize("name", some_by_default("logistic", "softmax, symmetric"))
@pytest.mark.parametrize("tol", [None, 1.0])
def test_every_lane_is_the_fit_of_its_own_examples(name, tol):
    """And within the gap of the optimum, also where a loose tolerance leaves something to prove."""
    model, case = MODELS[name], draw(MODELS[name], 4, n=90)
    data = {"weights": case.weights, "offset": case.offset}
    given = {"num_folds": 3, "l2": L2, "solver": newton(tol=tol)}
    cv = cross_validate(model, case.x, case.y, jax.random.key(0), **data, **given)
    assert (np.asarray(cv.fits.status) == Status.CONVERGED).all()
    assert (np.asarray(cv.whole.status) == Status.CONVERGED).all()
    w = cv.fits.params.weights.reshape(20, 3, *case.params.weights.shape)
    gap = np.asarray(cv.fits.gap).reshape(20, 3)
    for i in (0, 7, 8, 19):
        for k in range(3):
            weights = jnp.where(cv.folds[0] == k, 0.0, case.weights)
            alone = fit(
                model, case.x, case.y, weights=weights, offset=case.offset, l2=L2[i],
                solver=newton(),
            )  # fmt: skip
            best = -alone.log_likelihood + L2[i] / 2 * jnp.sum(alone.params.weights**2)
            lane = cv.fits.lane(3 * i + k)
            found = -lane.log_likelihood + L2[i] / 2 * jnp.sum(lane.params.weights**2)
            assert found - best <= gap[i, k] + 1e-12 * (1 + abs(best))
            if tol is None:
                np.testing.assert_allclose(w[i, k], alone.params.weights, rtol=0, atol=1e-8)
                assert float(lane.l2) == L2[i]


def test_what_is_known_is_tried_before_a_look_is_taken():
    grid, (theta, _) = grid_of("logistic", None)
    problem, solver = replace(grid.base, l2=jnp.asarray(0.1)), newton()
    known = Known(theta, problem.information(theta), jnp.zeros(()))
    first = solver.start(problem, None, theta + 0.3, known)
    second = solver.step(problem, None, first, jnp.int32(1))
    third = solver.step(problem, None, second, jnp.int32(2))
    assert first.evidence.status == second.evidence.status == Status.MAX_STEPS
    assert first.value > second.value >= third.value
    np.testing.assert_array_equal(first.memory.factor.lower, second.memory.factor.lower)
    assert np.any(np.asarray(third.memory.factor.lower != second.memory.factor.lower))


def smooth(n=400, d=5):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return x, (x @ rng.normal(size=d) + rng.logistic(size=n) > 0).astype(np.int32)


def test_hardly_any_lane_needs_a_hessian_of_its_own():
    """A first step is made with the information that was known; a look at a second costs one."""
    x, y = smooth()
    folds = np.arange(400) % 10
    cv = cross_validate(LOGISTIC, x, y, folds=folds, l2=np.logspace(2, -2, 40))
    assert (np.asarray(cv.fits.status) == Status.CONVERGED).all()
    assert np.mean(np.asarray(cv.fits.num_steps) <= 1) > 0.95
    plain = path(LOGISTIC, x, y, values=np.logspace(2, -2, 40)).fits
    assert np.mean(np.asarray(plain.num_steps) <= 1) > 0.8


@pytest.mark.parametrize("how", ["by L-BFGS", "nothing known"])
def test_what_is_not_known_is_found_out(monkeypatch, how):
    x, y = smooth()
    given = {"folds": np.arange(400) % 3, "l2": L2}
    expected = cross_validate(LOGISTIC, x, y, **given)
    if how == "by L-BFGS":
        given["solver"] = lbfgs()
    else:
        monkeypatch.setattr(neighbours, "_KNOWN_BYTES", 0)
    cv = cross_validate(LOGISTIC, x, y, **given)
    for a, b in ((cv.fits, expected.fits), (cv.whole, expected.whole)):
        assert a.status.tolist() == b.status.tolist()
        np.testing.assert_allclose(
            a.params.weights, b.params.weights, rtol=0, atol=SAME_FIT["float64"]
        )


def test_neighbours_that_failed_say_nothing():
    """Without a penalty there is no optimum, which is no reason for the others to have none."""
    x = np.linspace(-1, 1, 30)[:, None]
    y = (x[:, 0] > 0).astype(int)
    l2 = np.concatenate([np.zeros(6), np.logspace(-3, 1, 6)])
    cv = cross_validate(LOGISTIC, x, y, folds=np.arange(30) % 3, l2=l2)
    status = np.asarray(cv.fits.status).reshape(12, 3)
    assert (status[:6] == Status.SEPARATED).all()
    assert (status[6:] == Status.CONVERGED).all()
    np.testing.assert_array_equal(cv.whole.status, status[:, 0])
    alone = fit(LOGISTIC, x, y, l2=l2[8])
    np.testing.assert_allclose(cv.whole.params.weights[8], alone.params.weights, rtol=1e-7)


def test_an_interrupt_between_two_phases_loses_nothing(monkeypatch):
    x, y = smooth()
    plain, phase = schedule.Run.go, []

    def go(self, lanes):
        phase.append(len(lanes))
        if len(phase) == 3:
            raise KeyboardInterrupt
        yield from plain(self, lanes)

    monkeypatch.setattr(schedule.Run, "go", go)
    with pytest.raises(Interrupted) as caught:
        cross_validate(LOGISTIC, x, y, folds=np.arange(400) % 3, l2=L2)
    status = np.asarray(caught.value.fits.status)
    assert phase[:2] == [4, 16]
    assert (status[:20] == Status.CONVERGED).all()  # to all examples
    assert (status[20:] == Status.MAX_STEPS).all()
    assert len(status) == 20 + 60
    np.testing.assert_array_equal(caught.value.fits.l2, np.concatenate([L2, np.repeat(L2, 3)]))
    assert "known" not in caught.value.fits.source.lanes.extra
