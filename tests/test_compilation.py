"""Programs compile on every version of XLA, whatever options it has."""

import jax
import jax.numpy as jnp
import pytest

from jaxprob.runtime import compilation
from jaxprob.runtime.compilation import compiled, eager_jit


@pytest.fixture
def options(monkeypatch):
    """One option that XLA has, and one that it does not."""
    chosen = {"xla_of_another_time": True, "xla_backend_optimization_level": 0}
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(compilation, "_OPTIONS", chosen)
    monkeypatch.setattr(compilation, "_HASTY", chosen)
    monkeypatch.setattr(compilation, "_MISSING", set())
    return chosen


def test_options_that_xla_does_not_have_are_left_out(options):
    double, triple = eager_jit(lambda a: 2 * a), eager_jit(lambda a: 3 * a)
    triple.compile(1.0, jnp.ones(2))
    assert compilation._MISSING == {"xla_of_another_time"}
    assert double(jnp.ones(2)).tolist() == [2.0, 2.0]
    assert triple(jnp.ones(2)).tolist() == [3.0, 3.0]


def test_what_looks_at_few_numbers_is_compiled_hastily(monkeypatch):
    used = []

    def run(self, call):
        used.append(self.options)
        return call(jax.jit(jnp.sum))

    monkeypatch.setattr(compilation._WithOptions, "run", run)
    total = eager_jit(jnp.sum)
    little, work = compilation._LITTLE_DATA, compilation._LITTLE_WORK
    assert [float(total(jnp.ones(n))) for n in (little, little + 1)] == [little, little + 1]
    assert float(total.for_work(work)(jnp.ones(little + 1))) == little + 1  # and looks only once
    assert float(total.for_work(work + 1)(jnp.ones(3))) == 3.0
    hasty, usual = compilation._HASTY, compilation._OPTIONS
    assert used == [hasty, usual, hasty, usual]


def test_other_errors_are_shown(options):
    def fails(a):
        jax.debug.callback(lambda: 1 / 0)
        return a

    def run():
        jax.block_until_ready(eager_jit(fails)(jnp.ones(2)))
        jax.effects_barrier()

    with pytest.raises(jax.errors.JaxRuntimeError, match="division by zero"):
        run()


def test_a_compiled_function_is_traced_once_and_takes_settings():
    traced = []

    @compiled("power")
    def raised(a, *, power=2):
        traced.append(power)
        return a**power

    assert [float(raised(jnp.asarray(a), power=3)) for a in (1.0, 2.0, 3.0)] == [1.0, 8.0, 27.0]
    assert float(raised(jnp.asarray(3.0))) == 9.0
    assert traced == [3, 2]
    assert float(jax.grad(raised)(3.0)) == 6.0
    assert raised.__name__ == "raised"
