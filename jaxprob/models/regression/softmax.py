r"""Softmax regression: the log-odds of K classes are linear in the features.

The model (equations 2.1-2.5), with features x ∈ R^d, weights w_k and biases b_k:

    z_k = w_kᵀx + b_k,        p(y=k|x) = e^(z_k) / Σ_j e^(z_j)

Labels are 0, ..., K-1. Two parameterisations:

- "reference": the last class has z = 0, so the log-odds against it are z_k (2.2); `weights` is
  (K-1, d), and every parameter is identified.
- "symmetric": `weights` is (K, d). Adding one vector to all classes changes nothing, so a fit is
  centred: Σ_k w_k = 0 and Σ_k b_k = 0. Without a penalty it is the same fit as "reference" in
  other coordinates; with one it is another estimator, the one that most libraries compute.

The log-likelihood of one example is log p(y|x), of n examples with weights c_i the sum (minus
2.7). An offset o_i ∈ R^K, where there is one, is added to the logits.

The derivation. With 1{·} the indicator,

    ∂ log p(y|x) / ∂z_k = 1{y=k} - p_k
    ∇_{w_k} log p(y|x) = (1{y=k} - p_k) x                                                (2.9)
    ∇_{w_k} Σ_i c_i log p(y_i|x_i) = Σ_i c_i (1{y_i=k} - p_ik) x_i                       (2.10)
    minus the Hessian, block (k, l):  Σ_i c_i p_ik (1{k=l} - p_il) x_i x_iᵀ              (2.11)

and the same with x = 1 for the biases. 1 - p_k is computed as Σ_{j≠k} p_j, which keeps all its
digits where class k dominates.

Source: equations 2.1-2.11 of the project's mathematics; Böhning, Multinomial logistic regression
algorithm, Annals of the Institute of Statistical Mathematics 44, 1992.
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
from jaxprob.contract.settings import whole_number
from jaxprob.models.regression import predictors
from jaxprob.models.regression.certificates import certificates_of
from jaxprob.models.regression.families import Labels
from jaxprob.numerics import (
    categorical_log_prob,
    categorical_log_prob_and_score,
    fused_pass,
    log_softmax,
    matvec,
    softmax,
)
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled

PARAMETERISATIONS = ("reference", "symmetric")


class Params(NamedTuple):
    """What is fitted: `weights` (C, d) and `bias` (C,) or None; C is K-1 or K, see the module."""

    weights: Array
    bias: Array | None


def init(
    key: Array | None,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    num_classes: int,
    parameterisation: str = "reference",
    bias: bool = True,
) -> Params:
    """Zeros: every class has probability 1/K.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating; only its width and dtype matter.
        y: unused.
        weights: unused.
        offset: unused.
        num_classes: K.
        parameterisation: "reference" or "symmetric".
        bias: whether there are biases.

    Returns:
        Params in the dtype of x.

    Example:
        >>> init(None, jnp.ones((5, 2)), num_classes=3).weights.shape
        (2, 2)
    """
    del key, y, weights, offset
    rows = num_classes - (parameterisation == "reference")
    return Params(
        jnp.zeros((rows, x.shape[-1]), x.dtype), jnp.zeros(rows, x.dtype) if bias else None
    )


@compiled("parameterisation")
def log_prob(
    params: Params,
    x: Array,
    y: Array,
    *,
    offset: Array | None = None,
    parameterisation: str = "reference",
) -> Array:
    """The log-probability of one example under the softmax (equation 2.5).

    Args:
        params: weights (C, d), bias (C,) or None.
        x: (d,) floating.
        y: () label in 0..K-1, any integer dtype.
        offset: (K,) added to the logits.
        parameterisation: "reference" or "symmetric".

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.zeros((2, 1)), None)
        >>> round(float(log_prob(params, jnp.ones(1), 2)), 4)
        -1.0986
    """
    z = _shift(matmul(params.weights, x), params.bias, offset, parameterisation)
    return categorical_log_prob(y, z)


@compiled("parameterisation")
def log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    parameterisation: str = "reference",
) -> Array:
    """The log-likelihood Σ_i c_i log p(y_i|x_i) of n examples (minus equation 2.7).

    Args:
        params: weights (C, d), bias (C,) or None.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n, K) added to the logits.
        parameterisation: "reference" or "symmetric".

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.zeros((2, 1)), None)
        >>> round(float(log_likelihood(params, jnp.ones((2, 1)), jnp.array([0, 2]))), 4)
        -2.1972
    """
    values = categorical_log_prob(y, _logits(params, x, offset, parameterisation))
    return jnp.sum(values if weights is None else weights * values)


@compiled("parameterisation")
def grad_log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    parameterisation: str = "reference",
) -> Params:
    """The gradient Σ_i c_i (1{y_i=k} - p_ik) x_i for each class, hand-derived (equation 2.10).

    Args:
        params: weights (C, d), bias (C,) or None.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n, K) added to the logits.
        parameterisation: "reference" or "symmetric".

    Returns:
        Params of derivatives, nats per unit.

    Example:
        >>> params = Params(jnp.zeros((1, 1)), None)
        >>> grad_log_likelihood(params, jnp.ones((2, 1)), jnp.array([0, 0])).weights.tolist()
        [[1.0]]
    """
    return log_likelihood_and_grad(
        params, x, y, weights, offset=offset, parameterisation=parameterisation
    )[1]


@compiled("block_bytes", "parameterisation")
def log_likelihood_and_grad(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    block_bytes: int | None = None,
    parameterisation: str = "reference",
) -> tuple[Array, Params]:
    """Log-likelihood and hand-derived gradient (equations 2.7, 2.10) from one pass over the data.

    Args:
        params: weights (C, d), bias (C,) or None.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n, K) added to the logits.
        block_bytes: see `jaxprob.numerics.fused_pass`.
        parameterisation: "reference" or "symmetric".

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> params = Params(jnp.zeros((1, 1)), None)
        >>> value, _ = log_likelihood_and_grad(params, jnp.ones((2, 1)), jnp.array([0, 0]))
        >>> round(float(value), 4)
        -1.3863
    """
    given = [name for name, a in (("c", weights), ("o", offset)) if a is not None]
    num_rows = params.weights.shape[0]

    def kernel(z: Array, y: Array, *rest: Array) -> tuple[Array, Array]:
        row = dict(zip(given, rest, strict=True))
        z = _shift(z, params.bias, row.get("o"), parameterisation)
        value, score = categorical_log_prob_and_score(y, z.T)
        c = row.get("c", jnp.ones(y.shape, z.dtype))
        return c * value, (c[None, :] * score[:num_rows]).T

    rows = (y, *(a for a in (weights, offset) if a is not None))
    value, grad, total = fused_pass(kernel, x, params.weights, rows, block_bytes=block_bytes)
    return value, Params(grad, None if params.bias is None else total)


@compiled("parameterisation")
def information(
    params: Params,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    parameterisation: str = "reference",
) -> Array:
    """The information, minus the Hessian of the log-likelihood (equation 2.11).

    Observed and expected information are the same: y does not enter.

    Args:
        params: weights (C, d), bias (C,) or None.
        x: (n, d) floating.
        y: unused.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n, K) added to the logits.
        parameterisation: "reference" or "symmetric", where the matrix is singular.

    Returns:
        (p, p) in the order of `jax.flatten_util.ravel_pytree(params)`: the weights class by class,
        then the biases.

    Example:
        >>> information(Params(jnp.zeros((1, 1)), None), jnp.array([[2.0], [4.0]])).tolist()
        [[5.0]]
    """
    del y
    p = softmax(_logits(params, x, offset, parameterisation))
    others = matmul(p, 1 - jnp.eye(p.shape[1], dtype=p.dtype))  # 1 - p_k, without the cancellation
    weighted = p if weights is None else p * weights[:, None]
    rows = params.weights.shape[0]

    def block(j: int, k: int) -> Array:
        return weighted[:, j] * (others[:, j] if j == k else -p[:, k])

    blocks = jnp.stack([block(j, k) for j in range(rows) for k in range(j, rows)])
    return predictors.assemble(x, blocks, rows, bias=params.bias is not None)


@compiled("parameterisation")
def sample(
    params: Params,
    key: Array,
    x: Array,
    *,
    offset: Array | None = None,
    parameterisation: str = "reference",
) -> Array:
    """Draw labels y_i from the softmax of the logits (equation 2.5).

    Args:
        params: weights (C, d), bias (C,) or None.
        key: a typed PRNG key.
        x: (n, d) floating.
        offset: (n, K) added to the logits.
        parameterisation: "reference" or "symmetric".

    Returns:
        (n,) int32 in 0..K-1.

    Example:
        >>> params = Params(jnp.array([[100.0]]), None)
        >>> sample(params, jax.random.key(0), jnp.array([[1.0], [-1.0]])).tolist()
        [0, 1]
    """
    z = _logits(params, x, offset, parameterisation)
    return jax.random.categorical(key, z, axis=-1).astype(jnp.int32)


@compiled("parameterisation")
def predict_log_proba(
    params: Params,
    x: Array,
    *,
    offset: Array | None = None,
    parameterisation: str = "reference",
) -> Array:
    """The log-probabilities of all classes for each example (equation 2.5).

    Args:
        params: weights (C, d), bias (C,) or None.
        x: (n, d) floating.
        offset: (n, K) added to the logits.
        parameterisation: "reference" or "symmetric".

    Returns:
        (n, K), nats; NaN for rows with NaN.

    Raises:
        ValueError: for another number of columns than of weights.

    Example:
        >>> params = Params(jnp.zeros((2, 1)), None)
        >>> [round(v, 4) for v in predict_log_proba(params, jnp.ones((1, 1)))[0].tolist()]
        [-1.0986, -1.0986, -1.0986]
    """
    return log_softmax(_logits(params, x, offset, parameterisation))


def canonical(params: Params) -> Params:
    """The symmetric parameters that give the same probabilities and sum to zero over classes.

    Args:
        params: weights (K, d), bias (K,) or None.

    Returns:
        Params of the same shapes.

    Example:
        >>> canonical(Params(jnp.array([[1.0], [3.0]]), None)).weights.tolist()
        [[-1.0], [1.0]]
    """
    return jax.tree.map(lambda a: a - jnp.mean(a, axis=0, keepdims=True), params)


def model(num_classes: int, *, parameterisation: str = "reference", bias: bool = True) -> Model:
    """Softmax regression for `jaxprob.fit`: labels 0..K-1, keyword `offset`, penalties on weights.

    Args:
        num_classes: K ≥ 2.
        parameterisation: "reference" (the last class has logit 0) or "symmetric" (K rows of
            parameters, centred).
        bias: whether each class has a constant term, which no penalty acts on.

    Returns:
        A Model; two of them with the same settings are equal.

    Raises:
        ValueError: for fewer than two classes, or another parameterisation.

    Example:
        >>> model(3).variables.num_classes, model(3) == model(3, bias=True)
        (3, True)
    """
    num_classes = whole_number("num_classes", num_classes, least=2)
    if parameterisation not in PARAMETERISATIONS:
        raise ValueError(
            f"parameterisation: expected one of {PARAMETERISATIONS}, got {parameterisation!r}"
        )
    form = {"parameterisation": parameterisation}
    return Model(
        name="softmax regression",
        variables=Variables.conditional(Classes(num_classes), offset=Real((num_classes,))),
        init=Bind(init, num_classes=num_classes, bias=bias, **form),
        log_prob=Bind(log_prob, **form),
        objective=Likelihood(
            Bind(log_likelihood, **form),
            grad=Bind(grad_log_likelihood, **form),
            value_and_grad=Bind(log_likelihood_and_grad, **form),
            information=Bind(information, **form),
        ),
        predict=Predictions(classes=Bind(predict_log_proba, **form), sample=Bind(sample, **form)),
        geometry=Geometry(
            penalised=Bind(predictors.penalised),
            canonical=Bind(canonical) if parameterisation == "symmetric" else None,
            recentred=Bind(predictors.recentred) if bias else None,
        ),
        certificates=certificates_of(Labels(Bind(_logits, **form))),
    )


def _shift(z: Array, bias: Array | None, offset: Array | None, parameterisation: str) -> Array:
    """All K logits from the products with the weights: (..., C) -> (..., K)."""
    z = z if bias is None else z + jnp.broadcast_to(bias, z.shape)
    if parameterisation == "reference":
        z = jnp.concatenate([z, jnp.zeros((*z.shape[:-1], 1), z.dtype)], axis=-1)
    return z if offset is None else z + offset


def _logits(params: Params, x: Array, offset: Array | None, parameterisation: str) -> Array:
    return _shift(matvec(x, params.weights), params.bias, offset, parameterisation)
