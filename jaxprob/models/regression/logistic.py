r"""Logistic regression: the log-odds of a label y ∈ {0, 1} are linear in the features.

The model (equations 1.1-1.3), with features x ∈ R^d, weights w and bias b:

    log [p(y=1|x) / p(y=0|x)] = z = wᵀx + b,        p(y=1|x) = σ(z) = 1 / (1 + e^(-z))

The log-likelihood of one example is log σ((2y - 1) z) (from 1.4 and 1.5), of n examples with
weights c_i the sum Σ_i c_i log p(y_i|x_i). An offset o_i, where there is one, is added to z_i.

The derivation. σ'(z) = σ(z) σ(-z) (1.7), so with s = (2y - 1) z

    ∇_w log p(y|x) = (y - σ(z)) x = (2y - 1) σ(-s) x                                     (1.8)
    ∇_w Σ_i c_i log p(y_i|x_i) = Xᵀ r,   r_i = c_i (2y_i - 1) σ(-s_i)                    (1.9)
    -∇²_w Σ_i c_i log p(y_i|x_i) = Xᵀ S X,   S_ii = c_i σ(z_i) σ(-z_i)                  (1.10)

and the same with x = 1 for the bias. The forms in σ(-s) are those of 1.8-1.10 without their
cancellation: y - σ(z) is 0 in float64 for y = 1, z = 40, where the residual is 4.2e-18. The
negative log-likelihood is convex by 1.10; its minimum is unique if X has full column rank, and
finite unless the classes are separated.

Source: equations 1.1-1.10 of the project's mathematics; McCullagh and Nelder, Generalized Linear
Models, 2nd edition, 1989, section 4.4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Classes,
    Geometry,
    Likelihood,
    Model,
    Predictions,
    Real,
    Variables,
)
from jaxprob.models.regression import predictors
from jaxprob.models.regression.certificates import certificates_of
from jaxprob.models.regression.families import Labels
from jaxprob.numerics import (
    bernoulli_log_prob,
    bernoulli_log_prob_and_score,
    bernoulli_variance,
    fused_pass,
    gram,
    log_sigmoid,
    matvec,
    rmatvec,
)
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
    """Zeros: every probability is 1/2, and Newton's first step is a least-squares fit.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating; only its width and dtype matter.
        y: unused.
        weights: unused.
        offset: unused.
        bias: whether there is one.

    Returns:
        Params in the dtype of x.

    Example:
        >>> init(None, jnp.ones((5, 2))).weights.tolist()
        [0.0, 0.0]
    """
    del key, y, weights, offset
    return Params(jnp.zeros(x.shape[-1], x.dtype), jnp.zeros((), x.dtype) if bias else None)


@compiled()
def log_prob(params: Params, x: Array, y: Array, *, offset: Array | None = None) -> Array:
    """The log-probability log σ((2y - 1) z) of one example, z = wᵀx + b (equations 1.3, 1.4).

    Args:
        params: weights (d,), bias () or None.
        x: (d,) floating.
        y: () 0 or 1, any integer dtype or bool.
        offset: () added to z.

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.array([2.0]), jnp.array(0.0))
        >>> round(float(log_prob(params, jnp.array([20.0]), 0)), 4)
        -40.0
    """
    return bernoulli_log_prob(y, _shift(vdot(x, params.weights), params.bias, offset))


@compiled()
def log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Array:
    """The log-likelihood Σ_i c_i log p(y_i|x_i) of n examples (minus equation 1.5).

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: (n,) of 0 and 1, any integer dtype or bool.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logits.

    Returns:
        (), nats.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1, 1])
        >>> round(float(log_likelihood(Params(jnp.zeros(1), None), x, y)), 4)
        -1.3863
    """
    values = bernoulli_log_prob(y, _logits(params, x, offset))
    return jnp.sum(values if weights is None else weights * values)


@compiled()
def grad_log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Params:
    """The gradient Xᵀ r of the log-likelihood, hand-derived (equation 1.9).

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: (n,) of 0 and 1, any integer dtype or bool.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logits.

    Returns:
        Params of derivatives, nats per unit.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1, 1])
        >>> grad = grad_log_likelihood(Params(jnp.zeros(1), jnp.zeros(())), x, y)
        >>> grad.weights.tolist(), float(grad.bias)
        ([0.0], 1.0)
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
    """Log-likelihood and hand-derived gradient (equations 1.5, 1.9) from one pass over the data.

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: (n,) of 0 and 1, any integer dtype or bool.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logits.
        block_bytes: see `jaxprob.numerics.fused_pass`.

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1, 1])
        >>> value, grad = log_likelihood_and_grad(Params(jnp.zeros(1), None), x, y)
        >>> round(float(value), 4), grad.weights.tolist()
        (-1.3863, [0.0])
    """
    given = [name for name, a in (("c", weights), ("o", offset)) if a is not None]

    def kernel(z: Array, y: Array, *rest: Array) -> tuple[Array, Array]:
        row = dict(zip(given, rest, strict=True))
        z = _shift(z, params.bias, row.get("o"))
        c = row.get("c", jnp.ones((), z.dtype))
        log_prob, score = bernoulli_log_prob_and_score(y, z)
        return c * log_prob, c * score

    rows = (y, *(a for a in (weights, offset) if a is not None))
    value, grad, total = fused_pass(kernel, x, params.weights, rows, block_bytes=block_bytes)
    return value, Params(grad, None if params.bias is None else total)


@compiled()
def information(
    params: Params,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Array:
    """The information Xᵀ S X, minus the Hessian of the log-likelihood (equation 1.10).

    Observed and expected information are the same: y does not enter.

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        y: unused.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the logits.

    Returns:
        (p, p) in the order of `jax.flatten_util.ravel_pytree(params)`: the weights, then the bias.

    Example:
        >>> information(Params(jnp.zeros(1), jnp.zeros(())), jnp.array([[2.0], [4.0]])).tolist()
        [[5.0, 1.5], [1.5, 0.5]]
    """
    del y
    s = bernoulli_variance(_logits(params, x, offset))
    s = s if weights is None else weights * s
    core = gram(x, s)
    if params.bias is None:
        return core
    border = rmatvec(x, s)
    return jnp.block([[core, border[:, None]], [border[None, :], jnp.sum(s)[None, None]]])


@compiled()
def sample(params: Params, key: Array, x: Array, *, offset: Array | None = None) -> Array:
    """Draw labels y_i ~ Bernoulli(σ(z_i)) (equation 1.3).

    Args:
        params: weights (d,), bias () or None.
        key: a typed PRNG key.
        x: (n, d) floating.
        offset: (n,) added to the logits.

    Returns:
        (n,) int32 of 0 and 1.

    Example:
        >>> params = Params(jnp.array([100.0]), None)
        >>> sample(params, jax.random.key(0), jnp.array([[1.0], [-1.0]])).tolist()
        [1, 0]
    """
    z = _logits(params, x, offset)
    # y = 1 where z exceeds a logistic variate: exact in the tails, where σ(z) rounds to 0 or 1.
    return (jax.random.logistic(key, z.shape, z.dtype) < z).astype(jnp.int32)


@compiled()
def predict_log_proba(params: Params, x: Array, *, offset: Array | None = None) -> Array:
    """The log-probabilities of both classes for each example (equation 1.3).

    Args:
        params: weights (d,), bias () or None.
        x: (n, d) floating.
        offset: (n,) added to the logits.

    Returns:
        (n, 2), nats: log p(y=0|x), log p(y=1|x); NaN for rows with NaN.

    Raises:
        ValueError: for another number of columns than of weights.

    Example:
        >>> params = Params(jnp.array([0.0]), None)
        >>> [round(v, 4) for v in predict_log_proba(params, jnp.ones((1, 1)))[0].tolist()]
        [-0.6931, -0.6931]
    """
    z = _logits(params, x, offset)
    return jnp.stack([log_sigmoid(-z), log_sigmoid(z)], axis=-1)


def model(*, bias: bool = True) -> Model:
    """Logistic regression for `jaxprob.fit`: labels 0/1, keyword `offset`, penalties on weights.

    Args:
        bias: whether the log-odds have a constant term, which no penalty acts on.

    Returns:
        A Model; two of them with the same setting are equal.

    Example:
        >>> model() == model(bias=True), model().variables.num_classes
        (True, 2)
    """
    return Model(
        name="logistic regression",
        variables=Variables.conditional(Classes(2), offset=Real()),
        init=Bind(init, bias=bias),
        log_prob=Bind(log_prob),
        objective=Likelihood(
            Bind(log_likelihood),
            grad=Bind(grad_log_likelihood),
            value_and_grad=Bind(log_likelihood_and_grad),
            information=Bind(information),
        ),
        predict=Predictions(classes=Bind(predict_log_proba), sample=Bind(sample)),
        geometry=Geometry(
            penalised=Bind(predictors.penalised),
            recentred=Bind(predictors.recentred) if bias else None,
        ),
        certificates=certificates_of(Labels(Bind(_both_logits), first=1)),
    )


def _shift(z: Array, bias: Array | None, offset: Array | None) -> Array:
    z = z if bias is None else z + bias
    return z if offset is None else z + offset


def _logits(params: Params, x: Array, offset: Array | None) -> Array:
    return _shift(matvec(x, params.weights), params.bias, offset)


def _both_logits(params: Params, x: Array, offset: Array | None) -> Array:
    """The model as a softmax of two classes whose first logit is zero: (n, 2)."""
    z = _logits(params, x, offset)
    return jnp.stack([jnp.zeros_like(z), z], axis=-1)
