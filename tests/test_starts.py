"""Newton's method from starts where the likelihood is saturated, and the Hessian underflows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MODELS, draw
from tolerances import EIGHT_DIGITS, SAME_FIT

from jaxprob import Status, fit
from jaxprob.many import fit_many
from jaxprob.solvers import newton

SAME = SAME_FIT["float64"]
pytestmark = pytest.mark.usefixtures("x64")

FAR = [(50.0, 0.0), (100.0, 1e5), (700.0, 0.0), (1e4, 1e3), (0.0, 1e5)]


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_it_converges_from_every_start(name):
    model = MODELS[name]
    case = draw(model, 5, n=60)
    expected = fit(model, case.x, case.y)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(FAR), 100))
    template = model.init(None, case.x)

    def start(bias, weight, sign):
        return type(template)(
            weight * sign[: template.weights.size].reshape(template.weights.shape),
            bias * sign[-template.bias.size :].reshape(template.bias.shape),
        )

    starts = [start(*sizes, sign) for sizes, sign in zip(FAR, signs, strict=True)]
    init = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    many = fit_many(model, case.x, case.y, init=init)
    alone = [fit(model, case.x, case.y, init=one, solver=newton()) for one in starts]
    for i, one in enumerate(alone):
        assert one.status == many.status[i] == Status.CONVERGED
        for leaves in zip(one.params, many.lane(i).params, expected.params, strict=True):
            np.testing.assert_allclose(leaves[0], leaves[2], rtol=EIGHT_DIGITS, atol=EIGHT_DIGITS)
            np.testing.assert_allclose(leaves[1], leaves[2], rtol=EIGHT_DIGITS, atol=EIGHT_DIGITS)


def test_no_step_is_the_value_at_the_start():
    case = draw(MODELS["logistic"], 5, n=60)
    solver = newton(max_steps=0)
    one = fit(MODELS["logistic"], case.x, case.y, solver=solver)
    many = fit_many(MODELS["logistic"], case.x, jnp.stack([case.y] * 2), solver=solver)
    assert one.num_steps == 0
    assert many.num_steps.tolist() == [0, 0]
    assert one.status == Status.MAX_STEPS
    assert many.status.tolist() == [Status.MAX_STEPS] * 2
    np.testing.assert_allclose(one.log_likelihood, -60 * np.log(2), rtol=1e-14)
    np.testing.assert_allclose(many.log_likelihood, one.log_likelihood, rtol=1e-14)


@pytest.mark.parametrize("l2", [None, 0.5])
def test_an_l1_of_zero_is_none(l2):
    case = draw(MODELS["logistic"], 5, n=60)
    expected = fit(MODELS["logistic"], case.x, case.y, l2=l2)
    one = fit(MODELS["logistic"], case.x, case.y, l2=l2, l1=0.0)
    many = fit_many(MODELS["logistic"], case.x, case.y, l2=l2, l1=np.array([0.0, 2.0]))
    assert one.status == Status.CONVERGED
    assert many.status.tolist() == [Status.CONVERGED] * 2
    for got in (one, many.lane(0)):
        assert 0 <= got.gap < 1e-10
        np.testing.assert_allclose(
            got.params.weights, expected.params.weights, rtol=SAME, atol=SAME
        )
