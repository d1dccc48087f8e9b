r"""Naive Bayes: a class, and features that are independent given the class.

The model, with K classes of probabilities π and a density of each block b of features:

    p(x, y) = π_y Π_b p_b(x_b | y),        p(y | x) = p(x, y) / Σ_k p(x, k)              (3.5)

Blocks may be Gaussian, Bernoulli, categorical or multinomial, side by side: see
`jaxprob.models.bayes.families`, where their densities are. π = softmax(`class_logits`).

The log-likelihood of n examples with weights c_i is that of the pairs, Σ_i c_i log p(x_i, y_i). It
depends on the examples through sums over each class only, N_k = Σ_i c_i 1{y_i=k} among them:

    Σ_i c_i log p(x_i, y_i) = Σ_k N_k log π_k + Σ_b ℓ_b                                   (3.6)
    ∂/∂z_k = N_k - N π_k,    minus the Hessian: N (diag π - π πᵀ),   z the class logits   (3.7)

with ℓ_b, its derivatives and its maximum in (3.1)-(3.4); blocks do not meet in any derivative but
by being zero. So the maximum is a formula, π_k = N_k / N, and sums of batches can be merged: fits
of data that come in batches are exact (`update`).

Where Gaussian classes share their scales, log p(y | x) is linear in x: a logistic (softmax)
regression, with w_k = μ_k / σ², fitted as a joint density instead (Ng and Jordan).

Source: equations 3.1-3.7 of the project's mathematics; Hastie, Tibshirani and Friedman, The
Elements of Statistical Learning, 2009, section 6.6.3; Ng and Jordan, On discriminative vs.
generative classifiers, NIPS 2001.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import (
    Bind,
    Classes,
    Features,
    Formula,
    Geometry,
    Likelihood,
    Model,
    Predictions,
    Prior,
    Status,
    Variables,
)
from jaxprob.contract.settings import number, whole_number
from jaxprob.models.bayes.families import Bernoulli as Bernoulli
from jaxprob.models.bayes.families import Categorical as Categorical
from jaxprob.models.bayes.families import (
    Family,
    check_columns,
    check_families,
    check_widths,
    columns_of,
    curve,
)
from jaxprob.models.bayes.families import Gaussian as Gaussian
from jaxprob.models.bayes.families import Multinomial as Multinomial
from jaxprob.models.bayes.formula import estimate as estimate
from jaxprob.models.bayes.formula import merge as merge
from jaxprob.models.bayes.formula import of_statistics as of_statistics
from jaxprob.models.bayes.formula import statistics as statistics
from jaxprob.models.bayes.formula import update as update
from jaxprob.models.bayes.parameters import Params as Params
from jaxprob.models.bayes.parameters import Statistics as Statistics
from jaxprob.models.bayes.parameters import canonical as canonical
from jaxprob.models.bayes.parameters import parameter_names as parameter_names
from jaxprob.numerics import log_softmax
from jaxprob.runtime.compilation import compiled


def init(
    key: Array | None,
    x: Array,
    y: Array | None = None,
    weights: Array | None = None,
    *,
    num_classes: int,
    features: tuple[Family, ...],
) -> Params:
    """Equal classes with the most even densities.

    Args:
        key: unused; every model's `init` takes one.
        x: (n, d) floating; only its width and dtype matter.
        y: unused.
        weights: unused.
        num_classes: K.
        features: families of blocks of columns.

    Returns:
        Params in the dtype of x.

    Raises:
        ValueError: for columns that x does not have.

    Example:
        >>> init(None, jnp.ones((5, 2)), num_classes=3, features=(Gaussian(),)).class_logits.shape
        (3,)
    """
    del key, y, weights
    check_columns(features, x.shape[-1])
    widths = [columns_of(family, x).shape[-1] for family in features]
    parts = [
        family.init(width, num_classes, x.dtype)
        for family, width in zip(features, widths, strict=True)
    ]
    return Params(jnp.zeros(num_classes, x.dtype), tuple(parts))


@compiled("features")
def log_prob(params: Params, x: Array, y: Array, *, features: tuple[Family, ...]) -> Array:
    """The joint log-density log p(x, y) of one example (equation 3.5).

    Args:
        params: Params.
        x: (d,) floating.
        y: () label in 0..K-1, any integer dtype.
        features: families of blocks of columns.

    Returns:
        (), nats.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Bernoulli(),))
        >>> p = jnp.exp(log_prob(params, jnp.array([1.0]), 0, features=(Bernoulli(),)))
        >>> round(float(p), 4)
        0.25
    """
    each = _joint(params, x[None], features)[0]
    rest = sum(family.constant(columns_of(family, x[None]))[0] for family in features)
    return each[jnp.asarray(y, jnp.int32)] + rest


@compiled("features")
def log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    features: tuple[Family, ...],
) -> Array:
    """The joint log-likelihood Σ_i c_i log p(x_i, y_i) of n examples (equation 3.6).

    Args:
        params: Params.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        features: families of blocks of columns.

    Returns:
        (), nats.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Bernoulli(),))
        >>> x, y = jnp.array([[1.0], [0.0]]), jnp.array([1, 1])
        >>> round(float(log_likelihood(params, x, y, features=(Bernoulli(),))), 4)
        -2.7726
    """
    check_widths(features, params.features, x)
    known = statistics(x, y, weights, num_classes=len(params.class_logits), features=features)
    return of_statistics(params, known, features=features)[0]


def grad_log_likelihood(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    features: tuple[Family, ...],
) -> Params:
    """The gradient of the log-likelihood, hand-derived (equations 3.2, 3.4, 3.7).

    Args:
        params: Params.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        features: families of blocks of columns.

    Returns:
        Params of derivatives, nats per unit.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Bernoulli(),))
        >>> x, y = jnp.array([[1.0], [0.0]]), jnp.array([1, 1])
        >>> grad_log_likelihood(params, x, y, features=(Bernoulli(),)).class_logits.tolist()
        [-1.0, 1.0]
    """
    return log_likelihood_and_grad(params, x, y, weights, features=features)[1]


@compiled("features")
def log_likelihood_and_grad(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    features: tuple[Family, ...],
    block_bytes: int | None = None,
) -> tuple[Array, Params]:
    """Log-likelihood and hand-derived gradient (equations 3.6, 3.7) from the same sums.

    Args:
        params: Params.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        features: families of blocks of columns.
        block_bytes: unused: the sums choose their blocks themselves.

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Bernoulli(),))
        >>> x, y = jnp.array([[1.0], [0.0]]), jnp.array([1, 1])
        >>> value, grad = log_likelihood_and_grad(params, x, y, features=(Bernoulli(),))
        >>> round(float(value), 4), grad.features[0].logits.tolist()
        (-2.7726, [[0.0], [0.0]])
    """
    del block_bytes
    check_widths(features, params.features, x)
    known = statistics(x, y, weights, num_classes=len(params.class_logits), features=features)
    return of_statistics(params, known, features=features)


@compiled("features")
def information(
    params: Params,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    features: tuple[Family, ...],
) -> Array:
    """The observed information, minus the Hessian of the log-likelihood (equations 3.3, 3.4, 3.7).

    Args:
        params: Params.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        features: families of blocks of columns.

    Returns:
        (p, p) in the order of `jax.flatten_util.ravel_pytree(params)`.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Bernoulli(),))
        >>> x, y = jnp.array([[1.0], [0.0]]), jnp.array([1, 1])
        >>> jnp.diag(information(params, x, y, features=(Bernoulli(),))).tolist()
        [0.5, 0.5, 0.0, 0.5]
    """
    check_widths(features, params.features, x)
    known = statistics(x, y, weights, num_classes=len(params.class_logits), features=features)
    theta, unravel = ravel_pytree(params)

    def column(unit: Array) -> Array:
        v = unravel(unit)
        by_class = curve(params.class_logits, known.weight, v.class_logits)
        parts = zip(features, params.features, known.features, v.features, strict=True)
        rest = tuple(family.curve(*own) for family, *own in parts)
        return ravel_pytree(Params(by_class, rest))[0]

    return jax.vmap(column, out_axes=1)(jnp.eye(len(theta), dtype=theta.dtype))


@compiled("features")
def log_prior(params: Params, *, smoothing: float, features: tuple[Family, ...]) -> Array:
    """The log-prior under which the smoothed fit is the maximum a posteriori, up to a constant.

    Args:
        params: Params.
        smoothing: of the classes.
        features: families of blocks of columns.

    Returns:
        (), nats.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Bernoulli(),))
        >>> round(float(log_prior(params, smoothing=0.0, features=(Bernoulli(),))), 4)
        -2.7726
    """
    parts = zip(features, params.features, strict=True)
    rest = sum(family.log_prior(own) for family, own in parts)
    return smoothing * jnp.sum(log_softmax(params.class_logits)) + rest


@compiled("features")
def sample(
    params: Params, key: Array, x: Array, *, features: tuple[Family, ...]
) -> tuple[Array, Array]:
    """Draw as many pairs (x, y) as x has rows (equation 3.5).

    Args:
        params: Params.
        key: a typed PRNG key.
        x: (n, d): how many things a multinomial row counts, and columns that no family describes,
            stay as they are.
        features: families of blocks of columns.

    Returns:
        (n, d) floating, also where x holds integers, and (n,) int32.

    Raises:
        ValueError: for another number of columns than was fitted.

    Example:
        >>> params = init(None, jnp.zeros((1, 2)), num_classes=2, features=(Bernoulli(),))
        >>> x, y = sample(params, jax.random.key(0), jnp.zeros((3, 2)), features=(Bernoulli(),))
        >>> x.shape, y.shape
        ((3, 2), (3,))
    """
    check_widths(features, params.features, x)
    x = jnp.asarray(x, jnp.result_type(x.dtype, params.class_logits.dtype))
    own, *keys = jax.random.split(key, 1 + len(features))
    y = jax.random.categorical(own, params.class_logits, shape=x.shape[:1]).astype(jnp.int32)
    for family, part, key in zip(features, params.features, keys, strict=True):
        drawn = family.sample(part, key, y, columns_of(family, x)).astype(x.dtype)
        x = drawn if family.columns is None else x.at[:, jnp.array(family.columns)].set(drawn)
    return x, y


@compiled("features")
def predict_log_proba(params: Params, x: Array, *, features: tuple[Family, ...]) -> Array:
    """The log-posterior log p(y | x) of each class for each example (equation 3.5).

    Args:
        params: Params.
        x: (n, d) floating.
        features: families of blocks of columns.

    Returns:
        (n, K), nats; NaN for rows with NaN, and where no class can have made the example, such as
        of a category that the model does not know.

    Raises:
        ValueError: for another number of columns than was fitted.

    Example:
        >>> params = init(None, jnp.zeros((1, 1)), num_classes=2, features=(Gaussian(),))
        >>> predict_log_proba(params, jnp.ones((1, 1)), features=(Gaussian(),)).shape
        (1, 2)
    """
    return log_softmax(_joint(params, x, features))


def model(num_classes: int, features: Any = None, *, smoothing: float = 0.0) -> Model:
    """Naive Bayes for `jaxprob.fit`, whose maximum is a formula.

    Args:
        num_classes: K.
        features: a family, or several with their columns: `Gaussian()`, `Bernoulli()`,
            `Multinomial()`, `Categorical(num_categories)`; `Gaussian()` where None.
        smoothing: added to the weight of each class, for its probability.

    Returns:
        A Model; two of them with the same settings are equal.

    Raises:
        ValueError: for fewer than two classes, negative smoothing, and columns in two families.
        TypeError: for a family that is none.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[0.0], [1.0], [4.0], [6.0]], [0, 0, 1, 1]
        >>> result = jp.fit(model(2), x, y)
        >>> result.params.features[0].mean.tolist(), float(result.gap)
        ([[0.5], [5.0]], 0.0)
    """
    num_classes = whole_number("num_classes", num_classes, least=2)
    smoothing = number("smoothing", smoothing)
    families = check_families((Gaussian(),) if features is None else features)
    own = {"features": families}
    return Model(
        name="naive Bayes",
        variables=Variables.joint(
            Classes(num_classes), x=Features(Bind(_valid, **own), Bind(_expected, **own))
        ),
        init=Bind(init, num_classes=num_classes, **own),
        log_prob=Bind(log_prob, **own),
        objective=Likelihood(
            Bind(log_likelihood, **own),
            grad=Bind(grad_log_likelihood, **own),
            value_and_grad=Bind(log_likelihood_and_grad, **own),
            information=Bind(information, **own),
        ),
        predict=Predictions(classes=Bind(predict_log_proba, **own), sample=Bind(sample, **own)),
        prior=Prior(Bind(log_prior, smoothing=float(smoothing), **own)),
        routes=(
            Formula(
                Bind(statistics, num_classes=num_classes, **own),
                Bind(merge, **own),
                Bind(estimate, smoothing=float(smoothing), **own),
                Bind(of_statistics, **own),
            ),
        ),
        geometry=Geometry(canonical=Bind(canonical, **own), names=Bind(parameter_names, **own)),
        words=_REASONS,
    )


_REASONS = (
    (Status.SEPARATED, "a value never occurs in a class, so its logit runs off; add smoothing"),
    (Status.CLASS_ABSENT, "a class has no example of positive weight; add smoothing, or drop it"),
    (Status.COLLAPSED, "a Gaussian feature is constant within a class; add prior_count"),
)


def _joint(params: Params, x: Array, features: tuple[Family, ...]) -> Array:
    """(n, K) log p(x, k), without what is the same for all classes and parameters."""
    check_widths(features, params.features, x)
    parts = zip(features, params.features, strict=True)
    each = sum(family.log_probs(own, columns_of(family, x)) for family, own in parts)
    return log_softmax(params.class_logits)[None, :] + each


def _valid(x: Any, xp: Any, *, features: tuple[Family, ...]) -> Any:
    """() whether all entries can be."""
    check_columns(features, x.shape[-1])
    return xp.all(
        xp.stack([xp.all(family.valid(columns_of(family, x), xp)) for family in features])
    )


def _expected(x: Any, xp: Any, *, features: tuple[Family, ...]) -> str:
    """Which entry cannot be, and what was expected there."""
    for family in features:
        block = columns_of(family, x)
        bad = xp.argwhere(~xp.broadcast_to(family.valid(block, xp), block.shape))
        if len(bad):
            row, at = bad[0]
            column = at if family.columns is None else family.columns[at]
            return f"expected {family.expected}, got {block[row, at]} in row {row}, column {column}"
    return ""
