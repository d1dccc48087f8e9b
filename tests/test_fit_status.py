"""Every verdict of a fit, on an input built for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.separation import design
from jaxprob import Status, fit
from jaxprob.models import logistic, softmax
from jaxprob.solvers import gradient, lbfgs, newton, proximal
from jaxprob.solvers.driver import DEFAULT_TOL

LOGISTIC = logistic.model()
SOFTMAX = softmax.model(3)


def overlapped(dtype, *, n=60, d=2, num_classes=2, seed=0):
    """Labels drawn independently of the features: no direction separates them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(dtype)
    return x, rng.integers(0, num_classes, n).astype(np.int32)


def assert_status(result, status):
    assert Status(int(result.status)) is status


def margins(result, x, y):
    """(n, K - 1): by how much the logit of the own class outgrows each other one's."""
    v = result.direction
    z = np.asarray(x, np.float64) @ np.atleast_2d(v.weights).T.astype(np.float64)
    z = z + np.asarray(v.bias, np.float64)
    zero = np.zeros((len(z), 1))
    z = np.hstack([zero, z]) if v.weights.ndim == 1 else np.hstack([z, zero])
    rows = np.arange(len(z))
    own = z[rows, y]
    other = np.arange(z.shape[1]) != np.asarray(y)[:, None]
    return (own[:, None] - z)[other].reshape(len(z), -1)


def assert_separating(result, x, y, dtype):
    m = margins(result, x, y)
    size = np.finfo(dtype).eps * 1024 * (1 + np.max(np.abs(x)))
    assert np.min(m) >= -size
    assert np.max(m) > np.sqrt(np.finfo(dtype).eps)


def assert_no_direction(result):
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(result.direction))


def test_converged(dtype):
    x, y = overlapped(dtype)
    result = fit(LOGISTIC, x, y)
    assert_status(result, Status.CONVERGED)
    assert_no_direction(result)
    tol = {"float32": 1e-4, "float64": 1e-12}[dtype]
    assert 0 <= result.gap <= tol
    assert result.params.weights.dtype == dtype


def test_max_steps(dtype):
    x = COMPLETE.astype(dtype)
    result = fit(LOGISTIC, x, SIDES, l2=1e-6, solver=newton(max_steps=1))
    assert_status(result, Status.MAX_STEPS)
    assert result.num_steps == 1
    assert result.gap > 0
    assert_no_direction(result)


def test_max_steps_of_lbfgs(dtype):
    x, y = overlapped(dtype, n=400)
    solver = lbfgs(max_steps=1, sample_rows=40)
    result = fit(LOGISTIC, 40 * x, y ^ (x[:, 0] > 0.3), l2=1e-6, solver=solver)
    assert_status(result, Status.MAX_STEPS)
    assert result.num_steps == 1
    assert result.gap > 0
    assert_no_direction(result)


def test_max_steps_with_l1(dtype):
    x, y = overlapped(dtype, n=400)
    result = fit(LOGISTIC, 4 * x, y ^ (x[:, 0] > 0.3), l1=0.1, solver=proximal(max_steps=1))
    assert_status(result, Status.MAX_STEPS)


def test_max_steps_of_gradient_descent(dtype):
    x, y = overlapped(dtype)
    solver = gradient(optax.sgd, learning_rate=1e-6, max_steps=3)
    result = fit(LOGISTIC, x, y, solver=solver)
    assert_status(result, Status.MAX_STEPS)
    assert result.num_steps == 3


def test_stalled_where_the_gradient_was_asked_to_be_less_small_than_the_gap(dtype):
    x, y = overlapped(dtype)
    solver = gradient(optax.sgd, learning_rate=1e-3, grad_tol=0.05)
    result = fit(LOGISTIC, 3 * x, y ^ (x[:, 0] > 0), solver=solver)
    assert_status(result, Status.STALLED)
    assert result.gap > 1e-4


def test_stalled_where_rounding_hides_the_optimum():
    # Shifted features, and no bias to take up the shift: gradients lose their digits.
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 3)) + 1e5).astype(np.float32)
    model, labels = logistic.model(bias=False), rng.integers(0, 2, 2000)
    result = fit(model, x, labels, solver=newton(tol=0.0))
    assert int(result.status) in (Status.STALLED, Status.SINGULAR)
    assert np.isfinite(result.log_likelihood)


COMPLETE = np.array([[-2.0, 1.0], [-1.0, 3.0], [-0.5, -2.0], [0.5, 1.0], [1.0, -1.0], [2.0, 2.0]])
SIDES = np.array([0, 0, 0, 1, 1, 1], np.int32)


def test_complete_separation(dtype):
    x = COMPLETE.astype(dtype)
    result = fit(LOGISTIC, x, SIDES)
    assert_status(result, Status.SEPARATED)
    assert_separating(result, x, SIDES, dtype)
    assert np.min(margins(result, x, SIDES)) > 0
    assert np.isinf(result.gap)


def test_quasi_complete_separation(dtype):
    # Both labels occur at 0, where no direction can tell them apart.
    x = np.array([[-2.0], [-1.0], [0.0], [0.0], [0.0], [1.0], [3.0]], dtype)
    y = np.array([0, 0, 0, 1, 1, 1, 1], np.int32)
    result = fit(LOGISTIC, x, y)
    assert_status(result, Status.SEPARATED)
    assert_separating(result, x, y, dtype)
    np.testing.assert_allclose(margins(result, x, y)[2:5], 0, atol=64 * np.finfo(dtype).eps)


def test_separation_of_one_class_from_two_that_overlap(dtype):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 2)).astype(dtype)
    y = np.where(x[:, 0] > 0, 2, rng.integers(0, 2, 60)).astype(np.int32)
    result = fit(SOFTMAX, x, y)
    assert_status(result, Status.SEPARATED)
    assert_separating(result, x, y, dtype)


@pytest.mark.usefixtures("x64")
def test_separation_where_one_row_is_a_thousand_times_the_others():
    """Two classes overlap, so the direction must leave their margins at zero, to rounding."""
    x, y, _, bias = design("scaled row", 1141, 3)
    result = fit(softmax.model(3, bias=bias), x, y)
    assert_status(result, Status.SEPARATED)
    assert_separating(result, x, y, "float64")


@pytest.mark.parametrize("penalty", [{"l2": 1e-3}, {"l1": 1e-2}, {"l1": 1e-2, "l2": 1e-3}])
def test_nothing_is_separated_with_a_penalty(dtype, penalty):
    result = fit(LOGISTIC, COMPLETE.astype(dtype), SIDES, **penalty)
    assert_status(result, Status.CONVERGED)
    assert_no_direction(result)


@pytest.mark.slow
def test_nothing_is_separated_with_a_penalty_seen_only_by_the_run(dtype):
    x = COMPLETE.astype(dtype)
    penalties = jnp.asarray([0.0, 1e-2, 1.0], dtype)
    fits = jax.vmap(lambda l2: fit(LOGISTIC, x, SIDES, l2=l2))(penalties)
    assert fits.status.tolist() == [Status.SEPARATED, Status.CONVERGED, Status.CONVERGED]


def test_singular_for_a_duplicate_column(dtype):
    x, y = overlapped(dtype)
    x = np.hstack([x, x[:, :1]])
    result = fit(LOGISTIC, x, y)
    assert_status(result, Status.SINGULAR)
    assert_no_direction(result)
    alone = fit(LOGISTIC, x[:, :2], y)
    assert np.isinf(result.gap)  # nothing is proved where rounding hides the curvature
    both = 2 * DEFAULT_TOL[dtype] + 16 * np.finfo(dtype).eps * abs(alone.log_likelihood)
    np.testing.assert_allclose(result.log_likelihood, alone.log_likelihood, rtol=0, atol=both)
    assert_status(fit(LOGISTIC, x, y, l2=0.1), Status.CONVERGED)


def test_singular_for_a_constant_column_beside_a_bias(dtype):
    x, y = overlapped(dtype)
    x = np.hstack([x, np.full((len(x), 1), 3.0, dtype)])
    assert_status(fit(LOGISTIC, x, y), Status.SINGULAR)
    assert_status(fit(logistic.model(bias=False), x, y), Status.CONVERGED)


def test_the_symmetric_form_is_not_singular(dtype):
    x, y = overlapped(dtype, num_classes=3)
    result = fit(softmax.model(3, parameterisation="symmetric"), x, y)
    assert_status(result, Status.CONVERGED)


@pytest.mark.parametrize("penalty", [{}, {"l2": 1.0}, {"l1": 1.0}])
def test_class_absent(dtype, penalty):
    x, y = overlapped(dtype)
    assert_status(fit(LOGISTIC, x, 0 * y, **penalty), Status.CLASS_ABSENT)
    assert_status(fit(SOFTMAX, x, y, **penalty), Status.CLASS_ABSENT)


def test_a_class_without_weight_is_absent(dtype):
    x, y = overlapped(dtype)
    result = fit(LOGISTIC, x, y, weights=(y == 1).astype(dtype))
    assert_status(result, Status.CLASS_ABSENT)
    assert np.isinf(result.gap)


def test_an_absent_class_without_a_bias_has_an_optimum_with_a_penalty(dtype):
    x, y = overlapped(dtype)
    result = fit(logistic.model(bias=False), x, 0 * y, l2=1.0)
    assert_status(result, Status.CONVERGED)


@jax.jit
def traced(x, y, weights, offset=0.0):
    """The fit with every array a tracer, so that values are seen only by the run."""
    return fit(LOGISTIC, x, y, weights=weights, offset=offset + jnp.zeros_like(x[:, 0]))


def test_no_data(dtype):
    x, y = overlapped(dtype)
    assert_status(traced(x, y, weights=np.zeros(len(x), dtype)), Status.NO_DATA)
    with pytest.raises(ValueError, match="weights: expected a positive sum"):
        fit(LOGISTIC, x, y, weights=np.zeros(len(x), dtype))


@pytest.mark.parametrize("label", [2, -1])
def test_invalid_label(dtype, label):
    x, y = overlapped(dtype)
    y[7] = label
    assert_status(traced(x, y, np.ones(len(x), dtype)), Status.INVALID_INPUT)
    with pytest.raises(ValueError, match=r"y: expected integers 0\.\.1"):
        fit(LOGISTIC, x, y)


@pytest.mark.parametrize(
    ("name", "value"),
    [("x", np.nan), ("x", np.inf), ("weights", -1.0), ("weights", np.nan), ("offset", np.inf)],
)
def test_invalid_value(name, value):
    x, y = overlapped("float32")
    data = {"x": x, "weights": np.ones(60, np.float32), "offset": np.zeros(60, np.float32)}
    data[name].flat[5] = value
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers"):
        fit(LOGISTIC, y=y, **data)
    assert_status(traced(y=y, **data), Status.INVALID_INPUT)


def test_diverged_where_gradient_descent_explodes(dtype):
    x, y = overlapped(dtype)
    solver = gradient(optax.sgd, learning_rate=1e30, max_steps=100)
    result = fit(LOGISTIC, 1e10 * x, y, l2=1e10, solver=solver)
    assert_status(result, Status.DIVERGED)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result.params))


def test_huge_features_are_told_or_fitted(dtype):
    x, y = overlapped(dtype)
    huge = x * np.asarray(np.finfo(dtype).max / 1e2, dtype)
    result = fit(LOGISTIC, huge, y)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result.params))
    assert_status(result, Status.NON_FINITE)


def test_invalid_input_comes_before_no_data(dtype):
    x, y = overlapped(dtype)
    y[0] = 5
    assert_status(traced(x, y, weights=np.zeros(len(x), dtype)), Status.INVALID_INPUT)


def test_no_data_comes_before_class_absent(dtype):
    x, y = overlapped(dtype)
    assert_status(traced(x, 0 * y, weights=np.zeros(len(x), dtype)), Status.NO_DATA)


def test_class_absent_comes_before_separated_and_singular(dtype):
    x = np.hstack([COMPLETE, COMPLETE[:, :1]]).astype(dtype)
    assert_status(fit(SOFTMAX, x, SIDES), Status.CLASS_ABSENT)


def test_separated_comes_before_singular(dtype):
    x = np.hstack([COMPLETE, COMPLETE[:, :1]]).astype(dtype)
    assert_status(fit(LOGISTIC, x, SIDES), Status.SEPARATED)


def test_quasi_separation_is_found_after_moves_with_one_hessian(x64):
    x = [[0.851, 0], [0.333, 0], [-0.458, 0], [-0.783, 0], [-0.154, 1], [0.645, 2], [-0.482, 0]]
    x += [[0.838, 1], [1.039, 0], [1.61, 0], [-0.141, 1], [0.167, 1], [-0.017, 2], [-0.663, 1]]
    x += [[-0.644, -1]]
    y = [0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0]
    result = fit(logistic.model(), x, y)
    assert result.status == Status.SEPARATED
    assert result.num_steps < 10
