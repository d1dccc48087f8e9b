"""What is wrong with one lane is its status, and leaves the others alone; the report says so."""

import jax
import numpy as np
import pytest
from lanes import assert_close, by_hand, matrix
from tolerances import EIGHT_DIGITS

from jaxprob import Status, fit
from jaxprob.many import fit_many
from jaxprob.models import logistic

LOGISTIC = logistic.model()


def batch(dtype, size=64, n=40):
    """Lanes of their own x, y and weights, the last feature of two values; the classes overlap."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(size, n, 3))
    x[:, :, 2] = rng.integers(0, 2, (size, n))
    y = rng.integers(0, 2, (size, n))
    return x.astype(dtype), y, rng.uniform(0.5, 2, (size, n)).astype(dtype)


COMPLETE, QUASI = (3, 40), (9, 41)
FAULTS = {
    **dict.fromkeys(COMPLETE + QUASI, Status.SEPARATED),
    **dict.fromkeys((15, 42), Status.SINGULAR),
    **dict.fromkeys((21, 43), Status.CLASS_ABSENT),
    **dict.fromkeys((27, 44), Status.INVALID_INPUT),
    **dict.fromkeys((33, 63), Status.NO_DATA),
}
HEALTHY = np.setdiff1d(np.arange(64), list(FAULTS))


def with_faults(x, y, weights):
    x, y, weights = x.copy(), y.copy(), weights.copy()
    for i in COMPLETE:
        y[i] = x[i, :, 0] - x[i, :, 1] > 0.1
    for i in QUASI:
        y[i] = np.where(x[i, :, 2] == 1, 1, y[i])
    for i in (15, 42):
        x[i, :, 1] = x[i, :, 0]
    y[21], y[43] = 0, 1
    x[27, 5, 1], x[44, 0, 0] = np.nan, np.inf
    weights[[33, 63]] = 0
    return x, y, weights


@pytest.fixture(scope="module", params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def faulty(request):
    """Arguments with faults, the fits of them, and those of the lanes before the faults."""
    with jax.enable_x64(request.param == "float64"):
        good = batch(request.param)
        bad = with_faults(*good)
        fits, healthy = (fit_many(LOGISTIC, x, y, weights=c) for x, y, c in (bad, good))
        alone = [fit(LOGISTIC, *(a[i] for a in bad[:2]), weights=bad[2][i]) for i in range(10)]
    return bad, fits, healthy, alone


def test_each_fault_is_the_status_of_its_lane(faulty):
    _, fits, healthy, alone = faulty
    assert healthy.status.tolist() == [Status.CONVERGED] * 64
    assert {i: Status(s) for i, s in enumerate(fits.status.tolist()) if s} == FAULTS
    assert fits.status[:10].tolist() == [int(one.status) for one in alone]
    assert np.all(np.isinf(np.asarray(fits.gap)[[*COMPLETE, *QUASI, 21, 43]]))


def test_faults_leave_the_other_lanes_alone(faulty):
    _, fits, healthy, _ = faulty
    eps = np.finfo(fits.gap.dtype).eps
    for name in ("params", "log_likelihood", "gap", "grad_norm", "direction"):
        for a, b in zip(*(jax.tree.leaves(getattr(f, name)) for f in (fits, healthy)), strict=True):
            # The same arithmetic in other company: at most the rounding of sums of 40 terms.
            np.testing.assert_allclose(a[HEALTHY], b[HEALTHY], rtol=0, atol=4096 * eps)
    for name in ("num_steps", "num_examples"):
        a, b = (np.asarray(getattr(f, name)) for f in (fits, healthy))
        np.testing.assert_array_equal(a[HEALTHY], b[HEALTHY])


def test_the_direction_of_each_separated_lane_is_proved(faulty):
    (x, y, _), fits, _, _ = faulty
    for i in range(64):
        v = matrix(fits.lane(i).direction)[0]
        if FAULTS.get(i) is not Status.SEPARATED:
            assert not np.any(v)
            continue
        z = np.hstack([x[i], np.ones((len(x[i]), 1))]).astype(float) @ v
        margins = np.where(y[i] == 1, z, -z)
        eps = np.finfo(x.dtype).eps
        rounding = 1024 * eps * (1 + np.max(np.abs(x[i])))
        assert np.min(margins) >= -rounding
        assert np.max(margins) > np.sqrt(eps)
        # A direction may touch a row also where another one would clear all of them.
        assert i in COMPLETE or np.min(margins) <= rounding
        alone = x[i, :, 2] == 1
        assert i in COMPLETE or np.min(margins[alone]) > np.sqrt(eps)


def test_the_report_names_the_lanes_and_what_runs_off(faulty):
    _, fits, healthy, _ = faulty
    report = fits.report()
    assert report.num_lanes == 64
    assert {f.lane: f.status for f in report.failures} == FAULTS
    assert [f.lane for f in report.failures] == sorted(FAULTS)
    assert report.counts == {
        Status.CONVERGED: 52,
        Status.SEPARATED: 4,
        Status.SINGULAR: 2,
        Status.CLASS_ABSENT: 2,
        Status.NO_DATA: 2,
        Status.INVALID_INPUT: 2,
    }
    reasons = {f.lane: f.reason for f in report.failures}
    assert all(reasons[i].endswith("; x2 → +∞") for i in QUASI)
    assert all("x0 → +∞" in reasons[i] and "x1 → -∞" in reasons[i] for i in COMPLETE)
    steps = np.asarray(fits.num_steps)[HEALTHY]
    assert report.num_steps == (steps.min(), np.median(steps), steps.max())
    assert report.gap == np.max(np.asarray(fits.gap)[HEALTHY])
    assert report.grad_norm == np.max(np.asarray(fits.grad_norm)[HEALTHY])
    text = str(report)
    assert text.startswith("64 fits\n  CONVERGED              52\n  SEPARATED               4")
    assert "lane 9: SEPARATED: the classes can be separated" in text
    assert not healthy.report().failures
    one = fits.lane(9).report()
    assert (one.num_lanes, one.failures[0].reason) == (1, reasons[9])


def test_faults_of_lanes_that_share_their_data(x64):
    """They start from the fit of their mean, which must not see what is wrong with some."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(40, 2)), np.arange(40) % 2
    x[:20, 1] = x[:20, 0]
    weights = rng.uniform(0.5, 2, (40, 40))
    weights[0, 3], weights[1, 3], weights[2, 3] = np.nan, np.inf, -1e9
    weights[3] = 0
    weights[4] *= y
    weights[5] *= (x[:, 1] > 0) == y
    weights[6, 20:] = 0
    expected = np.zeros(40, int)
    expected[:3], expected[3:7] = Status.INVALID_INPUT, [6, 5, 3, 4]
    fits = fit_many(LOGISTIC, x, y, weights=weights)
    assert fits.status.tolist() == expected.tolist()
    assert fits.num_examples[3:7].tolist() == np.sum(weights[3:7] > 0, axis=1).tolist()
    for i in range(7, 40):
        theta, log_likelihood = by_hand(LOGISTIC, x, y, weights[i])
        assert_close(matrix(fits.lane(i).params), theta, EIGHT_DIGITS)
        assert_close(fits.log_likelihood[i], log_likelihood, EIGHT_DIGITS)
