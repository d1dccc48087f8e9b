r"""Poisson regression: the logarithm of the rate of a count is linear in the features.

The model, with features x ∈ R^d, weights w and bias b:

    y | x ~ Poisson(μ),        log μ = z = wᵀx + b + o,        log p(y|x) = y z - e^z - log y!

with an offset o where there is one: the logarithm of the exposure, such as of person-years. The
log-likelihood of n examples with weights c_i is the sum Σ_i c_i log p(y_i|x_i).

The derivation. With x̃ = (x, 1), residuals r_i = c_i (y_i - μ_i) and s_i = c_i μ_i

    ∇ = Σ r x̃ ,        -∇² = Σ s x̃ x̃ᵀ                                                        (P.1)

in which y does not enter, so observed and expected information are the same. The negative
log-likelihood is convex; its minimum is unique if X has full column rank, and finite unless counts
of zero are separated: unless a direction v has x̃_iᵀv = 0 where y_i > 0, and ≤ 0 but not always = 0
where y_i = 0. Along it the rates of such zeros fall for ever, and nothing else moves.

Source: McCullagh and Nelder, Generalized Linear Models, 2nd edition, 1989, chapter 6; Santos Silva
and Tenreyro, On the existence of the maximum likelihood estimates in Poisson regression, Economics
Letters 107, 2010.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Counts,
    Geometry,
    Likelihood,
    Model,
    Predictions,
    Real,
    Status,
    Variables,
)
from jaxprob.models.regression import predictors
from jaxprob.models.regression.certificates import certificates_of
from jaxprob.models.regression.families import Rates
from jaxprob.numerics import fused_pass, matvec, poisson_log_prob, total
from jaxprob.numerics.products import vdot
from jaxprob.runtime.compilation import compiled


class Params(NamedTuple):
    """What is fitted: `weights` (d,) and `bias` (), which is None where it is left out."""

    weights: Array
    bias: Array | None


def init(
    key: Array | None,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    bias: bool = True,
) -> Params:
    """Zeros, and the bias that is best with them where y is given.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating.
        y: (n,) counts in the dtype of x, or None.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logarithms of the rates.
        bias: whether there is one.

    Returns:
        Params in the dtype of x.

    Example:
        >>> init(None, jnp.ones((2, 2)), jnp.array([0.0, 2.0]))
        Params(weights=Array([0., 0.], dtype=float32), bias=Array(0., dtype=float32))
    """
    del key
    zeros = jnp.zeros(x.shape[-1], x.dtype)
    if not bias:
        return Params(zeros, None)
    if y is None:
        return Params(zeros, jnp.zeros((), x.dtype))
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    o = jnp.zeros(x.shape[0], x.dtype) if offset is None else offset
    most = jnp.max(jnp.where(c > 0, o, -jnp.inf), initial=jnp.finfo(x.dtype).min)
    exposure = total(jnp.where(c > 0, c * jnp.exp(o - most), 0.0))
    count = total(c * y)
    some = (count > 0) & (exposure > 0)
    rate = jnp.where(some, count / jnp.where(some, exposure, 1.0), 1.0)
    return Params(zeros, jnp.where(jnp.isfinite(most), jnp.log(rate) - most, 0.0))


@compiled()
def log_prob(params: Params, x: Array, y: Array, *, offset: Array | None = None) -> Array:
    """The log-probability of one count.

    Args:
        params: weights (d,), bias () or None.
        x: (d,) floating.
        y: () 0, 1, 2, ..., any dtype.
        offset: () added to the logarithm of the rate.

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.array([1.0]), jnp.array(0.0))
        >>> round(float(log_prob(params, jnp.array([0.0]), 2)), 4)
        -1.6931
    """
    z = _shift(vdot(x, params.weights), params.bias, offset)
    return poisson_log_prob(jnp.asarray(y, z.dtype), z)


@compiled()
def log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Array:
    """The log-likelihood Σ_i c_i log p(y_i|x_i) of n examples.

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: (n,) counts, any dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logarithms of the rates.

    Returns:
        (), nats.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1, 1])
        >>> round(float(log_likelihood(Params(jnp.zeros(1), None), x, y)), 4)
        -2.0
    """
    z = _log_rate(params, x, offset)
    return jnp.sum(_times(weights, poisson_log_prob(y.astype(z.dtype), z)))


@compiled()
def grad_log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Params:
    """The gradient of the log-likelihood, hand-derived (equation P.1).

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: (n,) counts, any dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logarithms of the rates.

    Returns:
        Params of derivatives, nats per unit.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([2, 1])
        >>> grad = grad_log_likelihood(Params(jnp.zeros(1), jnp.zeros(())), x, y)
        >>> grad.weights.tolist(), float(grad.bias)
        ([1.0], 1.0)
    """
    return log_likelihood_and_grad(params, x, y, weights, offset=offset)[1]


@compiled("block_bytes")
def log_likelihood_and_grad(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    block_bytes: int | None = None,
) -> tuple[Array, Params]:
    """Log-likelihood and hand-derived gradient (equation P.1) from one pass over the data.

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: (n,) counts, any dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logarithms of the rates.
        block_bytes: see `jaxprob.numerics.fused_pass`.

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1, 1])
        >>> value, grad = log_likelihood_and_grad(Params(jnp.zeros(1), None), x, y)
        >>> round(float(value), 4), grad.weights.tolist()
        (-2.0, [0.0])
    """
    given = [name for name, a in (("c", weights), ("o", offset)) if a is not None]

    def kernel(z: Array, y: Array, *rest: Array) -> tuple[Array, Array]:
        row = dict(zip(given, rest, strict=True))
        z, y = _shift(z, params.bias, row.get("o")), y.astype(z.dtype)
        value, residual = poisson_log_prob(y, z), y - jnp.exp(z)
        return _times(row.get("c"), value), _times(row.get("c"), residual)

    rows = (y, *(a for a in (weights, offset) if a is not None))
    value, grad, by_bias = fused_pass(kernel, x, params.weights, rows, block_bytes=block_bytes)
    return value, Params(grad, None if params.bias is None else by_bias)


@compiled()
def information(
    params: Params,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Array:
    """The information, minus the Hessian of the log-likelihood (equation P.1).

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: unused.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logarithms of the rates.

    Returns:
        (p, p) in the order of `jax.flatten_util.ravel_pytree(params)`: the weights, then the bias.

    Example:
        >>> information(Params(jnp.zeros(1), jnp.zeros(())), jnp.array([[2.0], [4.0]])).tolist()
        [[20.0, 6.0], [6.0, 2.0]]
    """
    del y
    s = _times(weights, jnp.exp(_log_rate(params, x, offset)))
    return predictors.assemble(x, s[None, :], 1, bias=params.bias is not None)


@compiled()
def sample(params: Params, key: Array, x: Array, *, offset: Array | None = None) -> Array:
    """Draw counts y_i ~ Poisson(μ_i).

    Args:
        params: weights (d,), bias () or None.
        key: a typed PRNG key, of JAX's default kind.
        x: (n, d) floating.
        offset: (n,) added to the logarithms of the rates.

    Returns:
        (n,) int32.

    Example:
        >>> params = Params(jnp.array([-100.0]), None)
        >>> sample(params, jax.random.key(0), jnp.array([[1.0], [2.0]])).tolist()
        [0, 0]
    """
    return jax.random.poisson(key, predict_mean(params, x, offset=offset), dtype=jnp.int32)


@compiled()
def predict_mean(params: Params, x: Array, *, offset: Array | None = None) -> Array:
    """The rate μ of each example, which is the mean of y.

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        offset: (n,) added to the logarithms of the rates.

    Returns:
        (n,); NaN for rows with NaN.

    Raises:
        ValueError: for another number of columns than of weights.

    Example:
        >>> predict_mean(Params(jnp.zeros(1), jnp.zeros(())), jnp.array([[1.0], [-1.0]])).tolist()
        [1.0, 1.0]
    """
    return jnp.exp(_log_rate(params, x, offset))


def model(*, bias: bool = True) -> Model:
    """Poisson regression for `jaxprob.fit`: counts, keyword `offset`, penalties on weights.

    Args:
        bias: whether the logarithm of the rate has a constant term, which no penalty acts on.

    Returns:
        A Model; two of them with the same setting are equal.

    Example:
        >>> model() == model(bias=True), model().variables.y.words
        (True, 'counts 0, 1, 2, ...')
    """
    return Model(
        name="Poisson regression",
        variables=Variables.conditional(Counts(), offset=Real()),
        init=Bind(init, bias=bias),
        log_prob=Bind(log_prob),
        objective=Likelihood(
            Bind(log_likelihood),
            grad=Bind(grad_log_likelihood),
            value_and_grad=Bind(log_likelihood_and_grad),
            information=Bind(information),
        ),
        predict=Predictions(mean=Bind(predict_mean), sample=Bind(sample)),
        geometry=Geometry(
            penalised=Bind(predictors.penalised),
            recentred=Bind(predictors.recentred) if bias else None,
        ),
        certificates=certificates_of(Rates(Bind(_log_rate))),
        words=_WORDS,
    )


_WORDS = (
    (
        Status.SEPARATED,
        "counts of zero can be separated from the others, so there is no finite maximum; drop what "
        "says that they are zero, or add firth=True, or l2 unless all are zero",
    ),
)


def _shift(z: Array, bias: Array | None, offset: Array | None) -> Array:
    z = z if bias is None else z + bias
    return z if offset is None else z + offset


def _log_rate(params: Params, x: Array, offset: Array | None) -> Array:
    return _shift(matvec(x, params.weights), params.bias, offset)


def _times(weights: Array | None, each: Array) -> Array:
    """Zero where a weight is, also where a rate overflows."""
    return each if weights is None else jnp.where(weights == 0, 0.0, weights * each)
