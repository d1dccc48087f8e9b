"""Every model of the library, with data for it: what the contract tests run on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.contract import Model
from jaxprob.models import logistic, softmax

MODELS: dict[str, Model] = {
    "logistic": logistic.model(),
    "logistic, no bias": logistic.model(bias=False),
    "softmax": softmax.model(3),
    "softmax, no bias": softmax.model(4, bias=False),
    "softmax, symmetric": softmax.model(3, parameterisation="symmetric"),
    "softmax, symmetric, no bias": softmax.model(3, parameterisation="symmetric", bias=False),
}


def some_by_default(*names: str) -> list:
    """Parameters for a test of every model that is slow but for these."""
    return [pytest.param(n, marks=() if n in names else pytest.mark.slow) for n in MODELS]


class Case(NamedTuple):
    """Arguments of a log-likelihood."""

    params: Any
    x: jax.Array
    y: jax.Array
    weights: jax.Array
    offset: jax.Array


def shapes(model: Model, *data: jax.Array) -> Any:
    """Parameters as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(lambda: model.init(None, *data))


def draw(model: Model, seed: int, *, n: int = 37, d: int = 3, dtype: str = "float64") -> Case:
    """Random parameters and data: every class has an example, some weights are zero."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.standard_normal((n, d)) * [10.0**k for k in rng.uniform(-1, 1, d)], dtype)
    k = model.variables.num_classes
    y = jnp.asarray(np.concatenate([np.arange(k), rng.integers(0, k, n - k)]), "int32")
    weights = jnp.asarray(rng.integers(0, 4, n) / 2, dtype)
    shape = (n,) if model.variables.offset_columns is None else (n, model.variables.offset_columns)
    offset = jnp.asarray(rng.standard_normal(shape), dtype)
    params = jax.tree.map(
        lambda a: jnp.asarray(rng.standard_normal(a.shape), dtype), shapes(model, x, y)
    )
    return Case(params, x, y, weights, offset)
