"""Fits on rows spread over two devices are those on one; all of it in one other process."""

import json

import numpy as np
import pytest
from child import answers_of
from tolerances import SAME_SUM

pytestmark = pytest.mark.slow  # a process of its own, which compiles a dozen fits

N, D, K = 501, 3, 3  # an odd number of rows: one row without weight is added
MODELS = ("logistic", "softmax")
SPREAD = ("eager auto", "eager explicit", "jit auto", "jit explicit")


def child():
    """Run every fit, and print what came out as JSON."""
    import jax

    import jaxprob
    from jaxprob.solvers import lbfgs, proximal

    answers = {"num_devices": jaxprob.use_all_cores(2)}
    jax.config.update("jax_enable_x64", True)
    answers["devices_of_jax"] = len(jax.devices())
    try:
        jaxprob.use_all_cores(3)
        answers["second_call"] = None
    except RuntimeError as error:
        answers["second_call"] = str(error)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    binary = (x[:, 0] + rng.logistic(size=N) > 0).astype(np.int32)
    several = np.argmax(x + rng.gumbel(size=(N, K)), axis=1).astype(np.int32)
    weights, offset = rng.exponential(size=N), rng.normal(size=(N, K))
    number = 1000.0 + x[:, 0] + rng.normal(size=N)
    softmax = jaxprob.models.softmax.model(K)
    linear = jaxprob.models.linear.model()
    cases = {
        "logistic": (jaxprob.models.logistic.model(), (x, binary), {}),
        "softmax": (softmax, (x, several, weights, offset), {"l2": 0.5}),
        "lbfgs": (softmax, (x, several), {"l2": 0.5, "solver": lbfgs(sample_rows=100)}),
        "proximal": (softmax, (x, several), {"l1": 2.0, "solver": proximal()}),
        "closed form": (jaxprob.models.naive_bayes.model(K), (x, several, weights), {}),
        "linear": (linear, (x + 100, number, weights, offset[:, 0]), {}),
    }

    def fit(data, model, keywords):
        return jaxprob.fit(model, *data[:2], weights=data[2], offset=data[3], **keywords)

    def record(result):
        return {
            "status": jaxprob.Status(int(result.status)).name,
            "gap": float(result.gap),
            "params": np.concatenate(
                [np.ravel(p) for p in jax.tree.leaves(result.params)]
            ).tolist(),
            "log_likelihood": float(result.log_likelihood),
            "null_log_likelihood": float(result.null_log_likelihood),
            "information": np.asarray(result.information).tolist(),
            "num_examples": int(result.num_examples),
        }

    def mesh(kind):
        axis_type = jax.sharding.AxisType[kind.title()]
        return jax.make_mesh((2,), ("rows",), axis_types=(axis_type,))

    def run(name, how):
        model, data, keywords = cases[name]
        if how == "single":
            return fit((*data, None, None)[:4], model, keywords)
        when, kind = how.split()
        data = jaxprob.data.shard(*data, mesh=mesh(kind))

        def call(data):
            return fit(data, model, keywords)

        return (jax.jit(call) if when == "jit" else call)(data[:4])

    wanted = [(name, how) for name in MODELS for how in ("single", *SPREAD)]
    others = "lbfgs", "proximal", "closed form", "linear"
    wanted += [(name, how) for name in others for how in ("single", "eager auto")]
    for name, how in wanted:
        answers[f"{name}, {how}"] = record(run(name, how))

    data = jaxprob.data.shard(x, binary)
    answers["shapes"] = [list(s.data.shape) for s in data.x.addressable_shards]
    answers["added_weights"] = np.asarray(data.weights)[N:].tolist()
    print(json.dumps(answers))


@pytest.fixture(scope="module")
def answers():
    return answers_of(__file__)


def test_two_devices(answers):
    assert answers["num_devices"] == answers["devices_of_jax"] == 2


def test_too_late(answers):
    assert answers["second_call"].startswith("use_all_cores: call it before JAX is first used")


def test_rows_are_spread_evenly_and_those_added_have_no_weight(answers):
    assert answers["shapes"] == [[251, D], [251, D]]
    assert answers["added_weights"] == [0.0]


def assert_same_fit(one, two, atol):
    assert one["status"] == two["status"] == "CONVERGED"
    assert 0 <= two["gap"] <= 1e-8  # the default tolerance in float64
    assert two["num_examples"] == one["num_examples"] == N
    np.testing.assert_allclose(two["params"], one["params"], rtol=0, atol=atol)


def error(result):
    """How far the parameters may be from the optimum, where f - f* ≥ λ/2 of its square."""
    return np.sqrt(2 * result["gap"] / np.linalg.eigvalsh(result["information"])[0])


@pytest.mark.parametrize("how", SPREAD)
@pytest.mark.parametrize("name", MODELS)
def test_a_fit_of_spread_rows_is_that_of_one_device(answers, name, how):
    one, two = answers[f"{name}, single"], answers[f"{name}, {how}"]
    # The step that proves convergence is taken too, and squares the error of 1e-4 or less.
    assert_same_fit(one, two, atol=1e-8)
    # Sums over 501 rows, whose derivatives are of the order of 1, at parameters 1e-8 apart.
    for key in ("log_likelihood", "null_log_likelihood", "information"):
        np.testing.assert_allclose(two[key], one[key], rtol=0, atol=N * 1e-8)


@pytest.mark.parametrize("name", ["lbfgs", "proximal", "closed form", "linear"])
def test_the_other_solvers_on_spread_rows(answers, name):
    one, two = answers[f"{name}, single"], answers[f"{name}, eager auto"]
    # All there is where the maximum is a formula.
    rounding = SAME_SUM["float64"] * (1 + np.abs(one["params"]).max())
    assert_same_fit(one, two, atol=error(one) + error(two) + rounding)


if __name__ == "__main__":
    child()
