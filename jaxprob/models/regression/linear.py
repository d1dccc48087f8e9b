r"""Linear regression: y is normal about a linear function of the features.

The model, with features x ∈ R^d, weights w, bias b and scale σ = e^s:

    y | x ~ N(μ, σ²),        μ = wᵀx + b + o,        log p(y|x) = -r²/2 - s - log(2π)/2

with r = (y - μ) e^(-s) and an offset o where there is one. The log-likelihood of n examples with
weights c_i, which are repeated rows, is the sum Σ_i c_i log p(y_i|x_i).

The derivation. ∂r/∂μ = -e^(-s) and ∂r/∂s = -r, so

    ∇_w = e^(-s) Σ c r x,        ∂_b = e^(-s) Σ c r,        ∂_s = Σ c (r² - 1)               (L.1)

    -∇² = e^(-2s) Σ c x̃ x̃ᵀ  in (w, b), x̃ = (x, 1);   2 e^(-s) Σ c r x̃  with s;
          2 Σ c r²  in s                                                                       (L.2)

The maximum (L.3): w and b are those of least squares, and σ² = Σ c r̂² / Σ c, r̂ the residuals: by
C and not by C - p, the maximum of the likelihood. Of the examples it takes the weight C = Σ c, the
means m of x and of y - o, and the triangular root R of the scatter about them,

    RᵀR = Σ c (a - m)(a - m)ᵀ,        a = (x, y - o)

found so that it keeps the digits that squares lose (`jaxprob.numerics.linalg.triangular_root`). Two
sets of examples make one by the root of both roots and of the row √(C₁ C₂ / (C₁ + C₂)) (m₁ - m₂)ᵀ
(Chan's formula). Then

    Σ c (y - μ)² = ‖R (-w, 1)‖² + C (m_y - mᵀw - b)²

Where the residuals are zero but for rounding, also because there are no more examples than
parameters, σ can shrink for ever: COLLAPSED, with any l2 or l1, too. Where columns are linearly
dependent: SINGULAR. With a penalty on w there is no formula, and, since σ is fitted as well, the
objective is not convex: fits start at the maximum of the likelihood alone.

Source: Seber and Lee, Linear Regression Analysis, 2nd edition, 2003, chapters 3 and 11; Chan, Golub
and LeVeque, Algorithms for computing the sample variance, The American Statistician 37, 1983.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Bind,
    Formula,
    Geometry,
    Likelihood,
    Model,
    Predictions,
    Real,
    Status,
    Variables,
)
from jaxprob.models.regression import predictors
from jaxprob.models.regression.least_squares import LOG_ROOT
from jaxprob.models.regression.least_squares import Params as Params
from jaxprob.models.regression.least_squares import Sums as Sums
from jaxprob.models.regression.least_squares import estimate as estimate
from jaxprob.models.regression.least_squares import merge as merge
from jaxprob.models.regression.least_squares import of_statistics as of_statistics
from jaxprob.models.regression.least_squares import statistics as statistics
from jaxprob.numerics import fused_pass, matvec, rmatvec, total
from jaxprob.numerics.products import vdot
from jaxprob.runtime.compilation import compiled


def init(
    key: Array | None,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    bias: bool = True,
) -> Params:
    """The maximum of the likelihood where y is given, else zeros.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating.
        y: (n,) in the dtype of x, or None.
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.
        bias: whether there is one.

    Returns:
        Params in the dtype of x.

    Example:
        >>> init(None, jnp.ones((5, 2))).weights.tolist()
        [0.0, 0.0]
    """
    del key
    zero = jnp.zeros((), x.dtype)
    if y is None:
        return Params(jnp.zeros(x.shape[-1], x.dtype), zero if bias else None, zero)
    return estimate(statistics(x, y, weights, offset=offset), bias=bias).params


@compiled()
def log_prob(params: Params, x: Array, y: Array, *, offset: Array | None = None) -> Array:
    """The log-density of one example.

    Args:
        params: weights (d,), bias () or None, log_scale ().
        x: (d,) floating.
        y: ().
        offset: () added to the mean.

    Returns:
        (), nats.

    Example:
        >>> params = Params(jnp.array([2.0]), jnp.array(0.0), jnp.array(0.0))
        >>> round(float(log_prob(params, jnp.array([1.0]), 3.0)), 4)
        -1.4189
    """
    mean = _shift(vdot(x, params.weights), params.bias, offset)
    return -(((y - mean) * jnp.exp(-params.log_scale)) ** 2) / 2 - params.log_scale - LOG_ROOT


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
        params: weights (d,), bias () or None, log_scale ().
        x: (n, d) floating.
        y: (n,).
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.

    Returns:
        (), nats.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1.0, 1.0])
        >>> params = Params(jnp.zeros(1), None, jnp.zeros(()))
        >>> round(float(log_likelihood(params, x, y)), 4)
        -2.8379
    """
    values = -(_residuals(params, x, y, offset) ** 2) / 2 - params.log_scale - LOG_ROOT
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
    """The gradient of the log-likelihood, hand-derived (equation L.1).

    Args:
        params: weights (d,), bias () or None, log_scale ().
        x: (n, d) floating.
        y: (n,).
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.

    Returns:
        Params of derivatives, nats per unit.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1.0, 1.0])
        >>> grad = grad_log_likelihood(Params(jnp.zeros(1), jnp.zeros(()), jnp.zeros(())), x, y)
        >>> grad.weights.tolist(), float(grad.bias), float(grad.log_scale)
        ([0.0], 2.0, 0.0)
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
    """Log-likelihood and hand-derived gradient (equation L.1) from one pass over the data.

    Args:
        params: weights (d,), bias () or None, log_scale ().
        x: (n, d) floating.
        y: (n,).
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.
        block_bytes: see `jaxprob.numerics.fused_pass`.

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1.0, 1.0])
        >>> params = Params(jnp.zeros(1), None, jnp.zeros(()))
        >>> value, grad = log_likelihood_and_grad(params, x, y)
        >>> round(float(value), 4), grad.weights.tolist()
        (-2.8379, [0.0])
    """
    given = [name for name, a in (("c", weights), ("o", offset)) if a is not None]
    precision = jnp.exp(-params.log_scale)

    def kernel(z: Array, y: Array, *rest: Array) -> tuple[Array, Array]:
        row = dict(zip(given, rest, strict=True))
        r = (y - _shift(z, params.bias, row.get("o"))) * precision
        scaled = row["c"] * r if "c" in row else r
        return r * scaled, precision * scaled

    rows = (y, *(a for a in (weights, offset) if a is not None))
    squares, grad, by_bias = fused_pass(kernel, x, params.weights, rows, block_bytes=block_bytes)
    count = jnp.asarray(x.shape[0], x.dtype) if weights is None else total(weights)
    value = -squares / 2 - count * (params.log_scale + LOG_ROOT)
    return value, Params(grad, None if params.bias is None else by_bias, squares - count)


@compiled()
def information(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
) -> Array:
    """The observed information, minus the Hessian of the log-likelihood (equation L.2).

    Args:
        params: weights (d,), bias () or None, log_scale ().
        x: (n, d) floating.
        y: (n,).
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.

    Returns:
        (p, p) in the order of `jax.flatten_util.ravel_pytree(params)`: the weights, the bias, the
        logarithm of the scale.

    Example:
        >>> params = Params(jnp.zeros(1), None, jnp.zeros(()))
        >>> information(params, jnp.array([[2.0], [4.0]]), jnp.array([1.0, 1.0])).tolist()
        [[20.0, 12.0], [12.0, 4.0]]
    """
    precision = jnp.exp(-params.log_scale)
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    r = _residuals(params, x, y, offset)
    core = predictors.assemble(x, (c * precision**2)[None, :], 1, bias=params.bias is not None)
    r = c * r
    border = rmatvec(x, r)
    if params.bias is not None:
        border = jnp.append(border, jnp.sum(r))
    border = 2 * precision * border
    corner = 2 * jnp.sum(r * _residuals(params, x, y, offset))
    return jnp.block([[core, border[:, None]], [border[None, :], corner[None, None]]])


@compiled()
def sample(params: Params, key: Array, x: Array, *, offset: Array | None = None) -> Array:
    """Draw y_i ~ N(μ_i, σ²).

    Args:
        params: weights (d,), bias () or None, log_scale ().
        key: a typed PRNG key.
        x: (n, d) floating.
        offset: (n,) added to the means.

    Returns:
        (n,) in the dtype of x.

    Example:
        >>> params = Params(jnp.array([2.0]), None, jnp.array(-20.0))
        >>> sample(params, jax.random.key(0), jnp.array([[1.0], [-1.0]])).round(2).tolist()
        [2.0, -2.0]
    """
    mean = predict_mean(params, x, offset=offset)
    return mean + jnp.exp(params.log_scale) * jax.random.normal(key, mean.shape, mean.dtype)


@compiled()
def predict_mean(params: Params, x: Array, *, offset: Array | None = None) -> Array:
    """The mean μ of y for each example.

    Args:
        params: weights (d,), bias () or None, log_scale ().
        x: (n, d) floating.
        offset: (n,) added to the means.

    Returns:
        (n,); NaN for rows with NaN.

    Raises:
        ValueError: for another number of columns than of weights.

    Example:
        >>> params = Params(jnp.array([2.0]), jnp.array(1.0), jnp.array(0.0))
        >>> predict_mean(params, jnp.array([[1.0], [-1.0]])).tolist()
        [3.0, -1.0]
    """
    return _shift(matvec(x, params.weights), params.bias, offset)


def unbounded(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    bias: bool = True,
) -> Array:
    """Whether the residuals of least squares are zero, so that the scale can shrink for ever.

    Args:
        x: (n, d) floating.
        y: (n,).
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.
        bias: whether there is one.

    Returns:
        () bool.

    Example:
        >>> bool(unbounded(jnp.array([[0.0], [1.0], [2.0]]), jnp.array([1.0, 2.0, 3.0])))
        True
    """
    found = estimate(statistics(x, y, weights, offset=offset), bias=bias)
    return found.status == Status.COLLAPSED


def model(*, bias: bool = True) -> Model:
    """Linear regression for `jaxprob.fit`: keyword `offset`, penalties on weights.

    Args:
        bias: whether the mean has a constant term, which no penalty acts on.

    Returns:
        A Model; two of them with the same setting are equal.

    Example:
        >>> model() == model(bias=True), model().variables.y.words
        (True, 'numbers')
    """
    return Model(
        name="linear regression",
        variables=Variables.conditional(Real(), offset=Real()),
        init=Bind(init, bias=bias),
        log_prob=Bind(log_prob),
        objective=Likelihood(
            Bind(log_likelihood),
            grad=Bind(grad_log_likelihood),
            value_and_grad=Bind(log_likelihood_and_grad),
            information=Bind(information),
            unbounded=Bind(unbounded, bias=bias),
        ),
        predict=Predictions(mean=Bind(predict_mean), sample=Bind(sample)),
        routes=(
            Formula(Bind(statistics), Bind(merge), Bind(estimate, bias=bias), Bind(of_statistics)),
        ),
        geometry=Geometry(
            penalised=Bind(_penalised),
            recentred=Bind(predictors.recentred) if bias else None,
        ),
        words=_WORDS,
    )


_WORDS = (
    (
        Status.COLLAPSED,
        "the residuals are zero, so the scale can shrink for ever; take fewer features, or more "
        "examples",
    ),
)


def _penalised(params: Params) -> Params:
    """Penalties act on the weights alone."""
    return predictors.penalised(params)._replace(log_scale=jnp.zeros((), bool))


def _shift(z: Array, bias: Array | None, offset: Array | None) -> Array:
    z = z if bias is None else z + bias
    return z if offset is None else z + offset


def _residuals(params: Params, x: Array, y: Array, offset: Array | None) -> Array:
    """(n,) r, in units of σ."""
    return (y - predict_mean(params, x, offset=offset)) * jnp.exp(-params.log_scale)
