"""Products of matrices keep all digits on devices that would rather be fast."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob as jp
from jaxprob.contract import Classes, Likelihood, Model, Variables
from jaxprob.runtime.compilation import eager_jit

_SOURCES = Path(jp.__file__).parent
_FILES = sorted(p for p in _SOURCES.rglob("*.py") if p.name != "products.py")
_PRODUCTS = {"dot", "matmul", "einsum", "tensordot", "vdot", "inner", "matvec", "vecdot", "vecmat"}


def careless(source: str) -> list[int]:
    """Lines with products at the precision that JAX chooses."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            found.append(node.lineno)
        if isinstance(node, ast.Attribute):
            of = ast.unparse(node.value)
            of_jnp = of in ("jnp", "jax.numpy") and node.attr in _PRODUCTS
            of_lax = of in ("lax", "jax.lax") and node.attr.startswith("dot")
            if of_jnp or of_lax or (node.attr == "dot" and of not in ("np", "jnp", "jax.numpy")):
                found.append(node.lineno)
    return sorted(found)


@pytest.mark.parametrize("path", _FILES, ids=lambda p: str(p.relative_to(_SOURCES)))
def test_products_are_those_with_all_digits(path):
    assert careless(path.read_text(encoding="utf-8")) == []


def test_careless_products_are_found():
    bad = "y = x @ w", "y @= w", "jnp.vdot(x, w)", "jax.numpy.dot(x, w)", "lax.dot_general(x, w)"
    bad += "jax.lax.dot(x, w)", "x.T.dot(w)"
    assert [len(careless(line)) for line in bad] == [1] * len(bad)
    assert not careless("u = matmul(x, w) + np.dot(a, b)")


def own(x_times_w) -> Model:
    """A linear model as a user would write it."""

    def log_likelihood(params, x, y, weights=None):
        errors = -((y - x_times_w(x, params)) ** 2) / 2
        return jnp.sum(errors if weights is None else weights * errors)

    return Model(
        name="mine",
        variables=Variables.conditional(Classes(2)),
        log_prob=lambda params, x, y: -((y - x_times_w(x, params)) ** 2) / 2,
        objective=Likelihood(log_likelihood),
        init=lambda key, x, y, weights=None: jnp.zeros(x.shape[1], x.dtype),
    )


def test_products_of_models_written_by_others_have_all_digits_too():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((20, 2)), jnp.float32)
    y = (x[:, 0] > 0).astype(jnp.int32)
    seen = []

    def x_times_w(x, w):
        seen.append(jax.config.jax_default_matmul_precision)
        return x @ w

    fit = jp.fit(own(x_times_w), x, y)
    assert set(seen) == {"highest"}
    seen.clear()
    assert fit.information.shape == (2, 2)
    assert set(seen) == {"highest"}
    seen.clear()
    jax.make_jaxpr(lambda x: jp.fit(own(x_times_w), x, y).params)(x)
    assert set(seen) == {"highest"}
    seen.clear()
    with jax.default_matmul_precision("bfloat16"):
        jp.fit(own(x_times_w), x, y)
    assert set(seen) == {"bfloat16"}
    assert jax.config.jax_default_matmul_precision is None


def test_programs_are_traced_for_all_digits():
    seen = []
    eager_jit(lambda a: seen.append(jax.config.jax_default_matmul_precision) or a)(jnp.ones(1))
    assert seen == ["highest"]
