"""Newton's method in one small program: what it finds, and what it leaves to the large one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EIGHT_DIGITS, EPS, SAME_FIT

from jaxprob import Status, fit
from jaxprob.data import check_data
from jaxprob.fit import eager
from jaxprob.fit.plan import plan
from jaxprob.many import fit_many
from jaxprob.models import logistic, poisson, softmax
from jaxprob.solvers import newton

MODELS = {"logistic": logistic.model(), "softmax": softmax.model(3)}
_compiled = []


def _count(event, duration_secs, **kwargs):
    del duration_secs, kwargs
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(_count)


def drawn(model, dtype, *, n=300, d=5, seed=0, slope=1.0, mixed=False):
    """Data of a model: correlated features where they are mixed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    num_classes = model.variables.num_classes
    z = slope * (x @ rng.normal(size=(d, num_classes))) + rng.gumbel(size=(n, num_classes))
    x = x @ rng.normal(size=(d, d)) if mixed else x
    return x.astype(dtype), np.argmax(z, axis=1).astype(np.int32)


def problem_of(model, x, y, l2=None):
    """The problem that `fit` solves."""
    data = check_data(x, y, variables=model.variables)
    return plan(model, data, l2=l2, l1=None, firth=False, solver=newton(), init=None).problem


@pytest.fixture
def alone(monkeypatch):
    """Without the large program."""

    def fails(*args, **kwargs):
        raise AssertionError("the large program was wanted")

    monkeypatch.setattr(eager, "run_alone", fails)


@pytest.mark.parametrize("l2", [None, 1.0])
@pytest.mark.parametrize("slope", [0.3, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_the_optimum_of_the_large_program(name, slope, l2, dtype):
    model = MODELS[name]
    problem = problem_of(model, *drawn(model, dtype, slope=slope), l2)
    large = eager.run_alone(newton(), problem, None, trace=False)
    small = eager._outcome_if_plain(newton(), problem, None)
    assert small is not None
    theta, expected = small.result.theta, large.result.theta
    close = EIGHT_DIGITS if dtype == "float64" else SAME_FIT[dtype]
    np.testing.assert_allclose(theta, expected, rtol=0, atol=close * (1 + np.abs(expected).max()))
    np.testing.assert_allclose(small.objective, large.objective, rtol=SAME_FIT[dtype])
    assert small.num_examples == large.num_examples == 300
    assert small.total_weight == 300


def test_one_program_for_tolerances_starts_and_steps(x64):
    model = MODELS["logistic"]
    problem = problem_of(model, *drawn(model, "float64", n=283))
    first = eager._outcome_if_plain(newton(), problem, None)
    assert first is not None
    solvers = newton(tol=1e-3), newton(tol=jnp.float32(1e-3), max_steps=7)
    before = len(_compiled)
    for solver in solvers:
        assert eager._outcome_if_plain(solver, problem, None) is not None
    again = eager._outcome_if_plain(newton(), problem, first.result.theta)
    assert len(_compiled) == before
    assert again is not None
    assert first.result.num_steps > 0 == again.result.num_steps


def test_a_looser_tolerance_takes_fewer_steps_and_keeps_its_word(x64, alone):
    x, y = drawn(MODELS["logistic"], "float64", slope=3.0)
    tight, loose = (fit(MODELS["logistic"], x, y, solver=newton(tol=t)) for t in (1e-12, 1e2))
    assert loose.num_steps < tight.num_steps
    for result, tol in ((tight, 1e-12), (loose, 1e2)):
        assert 0 <= tight.objective - result.objective <= result.gap + 1e-9
        assert result.gap <= tol


def test_a_second_attempt_proves_what_the_first_could_not(alone):
    model = MODELS["logistic"]
    x, y = drawn(model, "float32", n=1000, mixed=True)
    problem = problem_of(model, x, y, 1.0)
    first = eager._by_plain_newton(*eager._plain_arguments(newton(), problem, None))
    assert first.result.evidence.status == Status.STALLED
    result = fit(model, x, y, l2=1.0)
    assert result.status == Status.CONVERGED
    assert result.num_steps >= first.result.num_steps > 0


@pytest.mark.parametrize("why", ["separated", "dependent", "steps"])
def test_what_is_left_to_the_large_program(why, dtype):
    model, solver = MODELS["logistic"], newton(max_steps=0) if why == "steps" else newton()
    x, y = drawn(model, dtype)
    y = (x[:, 0] > 0).astype(np.int32) if why == "separated" else y
    x[:, -1] = x[:, 0] - x[:, 1] if why == "dependent" else x[:, -1]
    assert eager._outcome_if_plain(solver, problem_of(model, x, y), None) is None


@pytest.mark.parametrize("model", [*MODELS.values(), poisson.model()], ids=lambda m: m.name)
def test_data_without_an_optimum_are_found_by_the_small_program(model, dtype):
    """And what it says is what the large one says."""
    l2, (x, y) = 0.5, drawn(MODELS["softmax"], dtype)
    y = y if model.variables.num_classes != 2 else y % 2
    problem = problem_of(model, x, np.zeros_like(y), l2)
    small = eager._outcome_if_plain(newton(), problem, None)
    large = eager._run_alone(newton(), problem, None, False)
    assert small is not None
    assert Status(int(small.result.evidence.status)).name in ("CLASS_ABSENT", "SEPARATED")
    for a, b in zip(*map(jax.tree.leaves, (small, large)), strict=True):
        np.testing.assert_allclose(a, b, rtol=8 * EPS[dtype], atol=1e3 * EPS[dtype])
    many = fit_many(model, x, np.stack([y, np.zeros_like(y)]), l2=l2)
    assert many.status.tolist() == [Status.CONVERGED, small.result.evidence.status]


def test_no_more_steps_than_were_asked_for(x64):
    model = MODELS["logistic"]
    problem = problem_of(model, *drawn(model, "float64", slope=3.0))
    whole = eager._outcome_if_plain(newton(), problem, None)
    assert whole is not None
    steps = int(whole.result.num_steps)
    assert steps > 1
    assert eager._outcome_if_plain(newton(max_steps=steps), problem, None) is not None
    assert eager._outcome_if_plain(newton(max_steps=steps - 1), problem, None) is None


def test_an_estimate_where_nothing_can_be_proved(x64, alone):
    x, y = drawn(MODELS["logistic"], "float64")
    proved = fit(MODELS["logistic"], x, y)
    result = fit(replace(MODELS["logistic"], certificates=None), x, y)
    assert result.status == Status.CONVERGED
    assert 0 <= result.gap <= 1e-12
    np.testing.assert_allclose(result.params.weights, proved.params.weights, atol=EIGHT_DIGITS)
    null = result.null_log_likelihood
    np.testing.assert_allclose(null, proved.null_log_likelihood, rtol=EIGHT_DIGITS)
