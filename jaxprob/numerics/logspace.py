"""Log-space functions that keep their digits for every float: values, gradients, curvatures.

Each is written so that no difference of nearly equal numbers remains, and carries its derivative as
a `custom_jvp` rule in terms of functions that carry accurate rules themselves; so first and second
derivatives, forward and reverse, are as accurate as the hand-derived ones.

    σ(x) = [x ≥ 0 ? 1 : e] / (1 + e),  e = exp(-|x|);      σ' = σ(x) σ(-x), never σ (1 - σ)
    log σ(x) = min(x, 0) - log1p(exp(-|x|));              (log σ)' = σ(-x)
    log softmax(z)_y = (z_y - m) - log1p(s + (e_y - 1)),  m = max z, e_j = exp(z_j - m),
        s = Σ_{j≠y} e_j; its gradient: s / (s + e_y) for the label, -e_j / (s + e_y) for the others
    softmax: dp = p (τ - Σ p τ), tangents τ = t - t_a measured from the dominating class a

With `compensated=True` the rounding of z_j - m is recovered (`two_diff`) and multiplied into e_j,
which matters for classes far behind the leading one: without it their entries are off by about as
many units in the last place as they are nats behind.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.error_free import two_diff as two_diff
from jaxprob.numerics.error_free import two_sum as two_sum


@jax.custom_jvp
def sigmoid(x: Array) -> Array:
    """The logistic function σ(x) = 1 / (1 + exp(-x)) (equation 1.3).

    Args:
        x: floating, any shape.

    Returns:
        Of the shape and dtype of x, within 2.5 units in the last place.

    Example:
        >>> float(sigmoid(jnp.float32(0.0)))
        0.5
    """
    e = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, jnp.ones_like(e), e) / (1 + e)


@sigmoid.defjvp
def _(primals: tuple, tangents: tuple):
    (x,), (dx,) = primals, tangents
    return sigmoid(x), dx * bernoulli_variance(x)


_LOG1P = {
    "float32": (
        0.11612164612011674,
        0.10853287900440187,
        0.14296178997151418,
        0.1999985316596486,
        0.3333333366026371,
    ),
    "float64": (
        0.08082022805971766,
        0.04400369243072337,
        0.06000536404795356,
        0.06657072104827468,
        0.07692785032479312,
        0.09090894718066429,
        0.11111111358713932,
        0.1428571428355438,
        0.20000000000007292,
        0.3333333333333333,
    ),
}
"""Polynomials near ((artanh √u) / √u - 1) / u for u up to 1/9, by Chebyshev interpolation."""


def log1p_of_unit(e: Array) -> Array:
    """Log (1 + e) for e from 0 to 1: 2 artanh (e / (2 + e)), in a third of the time of `log1p`.

    Its derivative is that of the polynomial: callers bring their own.

    Args:
        e: floating, any shape, entries in [0, 1].

    Returns:
        Of the shape and dtype of e, within 2 units in the last place.

    Example:
        >>> round(float(log1p_of_unit(jnp.float32(1.0))), 6)
        0.693147
    """
    half = e / (2 + e)
    u = half * half
    first, *rest = _LOG1P[e.dtype.name]
    series = jnp.full_like(u, first)
    for coefficient in rest:
        series = series * u + coefficient
    return 2 * half + 2 * half * (u * series)


@jax.custom_jvp
def log_sigmoid(x: Array) -> Array:
    """The log-probability log σ(x), for every float.

    Args:
        x: floating, any shape.

    Returns:
        Of the shape and dtype of x, nats, within 3 units in the last place.

    Example:
        >>> float(log_sigmoid(jnp.float32(-1000.0)))
        -1000.0
    """
    return jnp.minimum(x, 0) - log1p_of_unit(jnp.exp(-jnp.abs(x)))


@log_sigmoid.defjvp
def _(primals: tuple, tangents: tuple):
    (x,), (dx,) = primals, tangents
    return log_sigmoid(x), dx * sigmoid(-x)


def _is_soft(y: Array) -> bool:
    return jnp.issubdtype(jnp.result_type(y), jnp.floating)


def bernoulli_log_prob(y: Array, logit: Array) -> Array:
    """The log-probability y log σ(z) + (1 - y) log σ(-z) of a label, given the log-odds z.

    Equation 1.5 without its cancellation. A label of floating dtype may be anything in [0, 1].

    Args:
        y: 0 or 1, any integer dtype or bool; or floating in [0, 1].
        logit: floating, of the same shape.

    Returns:
        Of the shape and dtype of logit, nats, within 4 units in the last place (6 if y is soft).

    Example:
        >>> float(bernoulli_log_prob(1, jnp.float32(40.0))) == -float(jnp.exp(jnp.float32(-40.0)))
        True
    """
    if not _is_soft(y):
        return log_sigmoid(jnp.where(y != 0, logit, -logit))
    y = jnp.asarray(y, logit.dtype)
    yes = jnp.where(y == 0, 0.0, y * log_sigmoid(jnp.where(y == 0, 0.0, logit)))
    no = jnp.where(y == 1, 0.0, (1 - y) * log_sigmoid(jnp.where(y == 1, 0.0, -logit)))
    return jnp.where(jnp.isnan(logit), logit, yes + no)


def bernoulli_score(y: Array, logit: Array) -> Array:
    """The derivative y - σ(z) of `bernoulli_log_prob`: σ(-z) for y = 1, -σ(z) for y = 0.

    Equation 1.8 without its cancellation.

    Args:
        y: 0 or 1, any integer dtype or bool; or floating in [0, 1].
        logit: floating, of the same shape.

    Returns:
        Of the shape and dtype of logit, within 4 units in the last place for y of 0 or 1.

    Example:
        >>> float(bernoulli_score(0, jnp.float32(0.0)))
        -0.5
    """
    if not _is_soft(y):
        s = sigmoid(jnp.where(y != 0, -logit, logit))
        return jnp.where(y != 0, s, -s)
    y = jnp.asarray(y, logit.dtype)
    return y * sigmoid(-logit) - (1 - y) * sigmoid(logit)


def bernoulli_log_prob_and_score(y: Array, logit: Array) -> tuple[Array, Array]:
    """`bernoulli_log_prob` and `bernoulli_score`, from one exponential.

    Args:
        y: 0 or 1, any integer dtype or bool; or floating in [0, 1].
        logit: floating, of the same shape.

    Returns:
        Two arrays of the shape and dtype of logit, with the errors of those.

    Example:
        >>> y, logit = jnp.array(1), jnp.array(0.0)
        >>> [round(float(a), 4) for a in bernoulli_log_prob_and_score(y, logit)]
        [-0.6931, 0.5]
    """
    if _is_soft(y):
        return bernoulli_log_prob(y, logit), bernoulli_score(y, logit)
    return _log_prob_and_score(y != 0, logit)


@jax.custom_jvp
def _log_prob_and_score(hit: Array, z: Array) -> tuple[Array, Array]:
    e = jnp.exp(-jnp.abs(z))
    signed = jnp.where(hit, z, -z)
    miss = jnp.where(signed >= 0, e, jnp.ones_like(e)) / (1 + e)
    return jnp.minimum(signed, 0) - log1p_of_unit(e), jnp.where(hit, miss, -miss)


@_log_prob_and_score.defjvp
def _(primals: tuple, tangents: tuple):
    (hit, z), (_, dz) = primals, tangents
    return _log_prob_and_score(hit, z), (
        dz * bernoulli_score(hit, z),
        -dz * bernoulli_variance(z),
    )


def bernoulli_variance(logit: Array) -> Array:
    """The variance σ(z) σ(-z) of a label given its log-odds; σ' (equation 1.7).

    Args:
        logit: floating, any shape.

    Returns:
        Of the shape and dtype of logit, within 6 units in the last place.

    Example:
        >>> float(bernoulli_variance(jnp.float32(0.0)))
        0.25
    """
    return sigmoid(logit) * sigmoid(-logit)


def _is_label(y: Array, z: Array) -> Array:
    """One-hot y along the last axis of z: a comparison that fuses, and no gather."""
    classes = jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1)
    return jnp.expand_dims(jnp.asarray(y, jnp.int32), -1) == classes


def _behind(z: Array, compensated: bool) -> tuple[Array, Array | float]:
    """z_j - max z along the last axis, and its rounding error, 0 unless compensated."""
    m = jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
    m = jnp.broadcast_to(m, z.shape)
    d = jnp.where((z == m) & (m > -jnp.inf), 0.0, z - m)  # +inf leads; all -inf is 0/0
    if not compensated:
        return d, 0.0
    error = two_diff(z, m)[1]
    return d, jnp.where(jnp.isfinite(d) & jnp.isfinite(error), error, 0.0)


def _sum(e: Array, axis: int = -1) -> Array:
    """Σ e over one axis, as a tree: in a row, many small terms vanish beside a large one."""
    return _fold(jnp.add, e, axis)


def _fold(pair: Callable[[Array, Array], Array], e: Array, axis: int) -> Array:
    """The entries of one axis taken together two by two."""
    while (size := e.shape[axis]) > 1:
        half = size // 2
        take = partial(jax.lax.slice_in_dim, e, axis=axis)
        pairs = pair(take(0, half), take(half, 2 * half))
        e = pairs if size % 2 == 0 else jnp.concatenate([pairs, take(size - 1, size)], axis=axis)
    return jnp.squeeze(e, axis)


def _masses(y: Array, z: Array, compensated: bool) -> tuple[Array, Array, Array, Array]:
    """exp(z - max), one-hot y, and the sums over the label and over all others."""
    d, error = _behind(z, compensated)
    e = jnp.exp(d) * (1 + error)
    hit = _is_label(y, z)
    own = jnp.sum(jnp.where(hit, e, 0.0), axis=-1)
    return e, hit, own, _sum(jnp.where(hit, 0.0, e))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _categorical_log_prob(y: Array, z: Array, compensated: bool) -> Array:
    d, error = _behind(z, compensated)
    _, hit, own, others = _masses(y, z, compensated)
    lead = jnp.sum(jnp.where(hit, d, 0.0), axis=-1)
    rest = jnp.sum(jnp.where(hit, error, 0.0), axis=-1) if compensated else 0.0
    return lead - (jnp.log1p(others + (own - 1)) - rest)


@_categorical_log_prob.defjvp
def _(compensated: bool, primals: tuple, tangents: tuple):
    (y, z), (_, dz) = primals, tangents
    score = _categorical_score(y, z, compensated)
    return _categorical_log_prob(y, z, compensated), jnp.sum(score * dz, axis=-1)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _categorical_score(y: Array, z: Array, compensated: bool) -> Array:
    e, hit, own, others = _masses(y, z, compensated)
    total = jnp.expand_dims(own + others, -1)
    return jnp.where(hit, jnp.expand_dims(others, -1), -e) / total


@_categorical_score.defjvp
def _(compensated: bool, primals: tuple, tangents: tuple):
    (y, z), (_, dz) = primals, tangents
    p = _softmax(z, compensated)
    return _categorical_score(y, z, compensated), -p * _relative(p, dz)


def _relative(p: Array, t: Array) -> Array:
    """The difference t - Σ p t, with t measured from that of the dominating class."""
    lead = p > 0.5
    t = jnp.where(lead, 0.0, t - jnp.sum(jnp.where(lead, t, 0.0), axis=-1, keepdims=True))
    return t - jnp.sum(p * t, axis=-1, keepdims=True)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(z: Array, compensated: bool) -> Array:
    d, error = _behind(z, compensated)
    e = jnp.exp(d) * (1 + error)
    return e / jnp.expand_dims(_sum(e), -1)


@_softmax.defjvp
def _(compensated: bool, primals: tuple, tangents: tuple):
    (z,), (dz,) = primals, tangents
    p = _softmax(z, compensated)
    return p, p * _relative(p, dz)


def categorical_log_prob(y: Array, logits: Array, *, compensated: bool = False) -> Array:
    """The log-probability log softmax(z)_y of a label, given the logits (equations 2.5, 2.7).

    Args:
        y: (...) integers in 0..K-1, any dtype.
        logits: (..., K) floating.
        compensated: recover the rounding of z_j - max z.

    Returns:
        (...) of the dtype of logits, nats: within 8 units in the last place if compensated, plus
        about one for each nat between the label and the leading class if not.

    Example:
        >>> value = categorical_log_prob(0, jnp.array([40.0, 0.0, 0.0], "float32"))
        >>> bool(jnp.isclose(value, -2 * jnp.exp(-40.0), rtol=1e-5, atol=0))
        True
    """
    return _categorical_log_prob(y, logits, compensated)


def categorical_score(y: Array, logits: Array, *, compensated: bool = False) -> Array:
    """The derivative 1{y=k} - p_k of `categorical_log_prob` in the logits.

    Equation 2.9; the label's entry is the sum of the other probabilities, never 1 - p_y.

    Args:
        y: (...) integers in 0..K-1, any dtype.
        logits: (..., K) floating.
        compensated: recover the rounding of z_j - max z.

    Returns:
        (..., K) of the dtype of logits; accurate as `categorical_log_prob` is.

    Example:
        >>> categorical_score(1, jnp.zeros(4, "float32")).tolist()
        [-0.25, 0.75, -0.25, -0.25]
    """
    return _categorical_score(y, logits, compensated)


@jax.custom_jvp
def _classes_first(y: Array, z: Array) -> tuple[Array, Array]:
    m = _fold(jnp.maximum, z, 0)[None]
    d = jnp.where((z == m) & (m > -jnp.inf), 0.0, z - m)
    e = jnp.exp(d)
    classes = jax.lax.broadcasted_iota(jnp.int32, z.shape, 0)
    hit = jnp.asarray(y, jnp.int32)[None] == classes
    own = _sum(jnp.where(hit, e, 0.0), axis=0)
    others = _sum(jnp.where(hit, 0.0, e), axis=0)
    lead = _sum(jnp.where(hit, d, 0.0), axis=0)
    score = jnp.where(hit, others[None], -e) / (own + others)[None]
    return lead - _log1p_up_to(others + (own - 1), len(z) - 1), score


@_classes_first.defjvp
def _(primals: tuple, tangents: tuple):
    (y, z), (_, dz) = primals, tangents
    value, score = _classes_first(y, z)
    p = _softmax(z.T, False)
    return (value, score), (jnp.sum(score * dz, axis=0), (-p * _relative(p, dz.T)).T)


def _log1p_up_to(s: Array, most: int) -> Array:
    """Log (1 + s) for s from 0 to a small number: by halves, and a polynomial for what is left."""
    whole, rest = jnp.zeros_like(s), s
    for power in range(1, max(1, most).bit_length() + 1):
        large = 1 + s >= 2.0**power
        whole = jnp.where(large, power * math.log(2), whole)
        rest = jnp.where(large, (1 + s) / 2.0**power - 1, rest)
    return whole + log1p_of_unit(rest)


def categorical_log_prob_and_score(y: Array, logits: Array) -> tuple[Array, Array]:
    """`categorical_log_prob` and `categorical_score` of n labels, the classes first.

    What lies side by side in memory is of the same class: several times faster for few classes.

    Args:
        y: (n,) integers in 0..K-1.
        logits: (K, n) floating.

    Returns:
        (n,) and (K, n), with the errors of those.

    Example:
        >>> value, score = categorical_log_prob_and_score(jnp.array([1]), jnp.zeros((4, 1)))
        >>> score[:, 0].tolist()
        [-0.25, 0.75, -0.25, -0.25]
    """
    return _classes_first(y, logits)


def softmax(logits: Array, *, compensated: bool = False) -> Array:
    """The probabilities exp(z_k) / Σ_j exp(z_j) (equation 2.5).

    Args:
        logits: (..., K) floating.
        compensated: recover the rounding of z_j - max z.

    Returns:
        (..., K) of the dtype of logits.

    Example:
        >>> softmax(jnp.zeros(4, "float32")).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return _softmax(logits, compensated)


def _log_of_rest(d: Array) -> Array:
    """Log Σ exp(d) for d ≤ 0 with largest entry 0: log1p of the sum of all but one largest."""
    first = jnp.argmax(d, axis=-1)
    others = jnp.where(_is_label(first, d), 0.0, jnp.exp(d))
    own = jnp.sum(jnp.where(_is_label(first, d), jnp.exp(d), 0.0), axis=-1)  # 1, or nan
    return jnp.log1p(_sum(others) + (own - 1))


@jax.custom_jvp
def log_softmax(logits: Array) -> Array:
    """The log-probabilities log softmax(z) of all classes (equation 2.5).

    Args:
        logits: (..., K) floating.

    Returns:
        (..., K) of the dtype of logits, nats.

    Example:
        >>> [round(v, 4) for v in log_softmax(jnp.zeros(2, "float32")).tolist()]
        [-0.6931, -0.6931]
    """
    d, _ = _behind(logits, False)
    return d - jnp.expand_dims(_log_of_rest(d), -1)


@log_softmax.defjvp
def _(primals: tuple, tangents: tuple):
    (z,), (dz,) = primals, tangents
    return log_softmax(z), _relative(_softmax(z, False), dz)


@jax.custom_jvp
def _logsumexp(z: Array) -> Array:
    m = jnp.max(z, axis=-1)
    value = m + _log_of_rest(_behind(z, False)[0])
    return jnp.where(jnp.all(z == -jnp.inf, axis=-1), -jnp.inf, value)


@_logsumexp.defjvp
def _(primals: tuple, tangents: tuple):
    (z,), (dz,) = primals, tangents
    empty = jnp.all(z == -jnp.inf, axis=-1, keepdims=True)  # every term is 0, and stays so
    p = jnp.where(jnp.broadcast_to(empty, z.shape), 0.0, _softmax(z, False))
    return _logsumexp(z), jnp.sum(p * dz, axis=-1)


def logsumexp(x: Array, axis: int = -1) -> Array:
    """Log Σ_j exp(x_j), also where the largest term is near 0 and the others are tiny.

    Args:
        x: floating, of any shape with at least one axis.
        axis: the one summed over.

    Returns:
        x without that axis; error at most 4 ε max(|m|, log S), with m the largest
        entry and S = Σ exp(x - m).

    Example:
        >>> float(logsumexp(jnp.array([0.0, -20.0], "float32"))) == float(jnp.exp(-20.0))
        True
    """
    return _logsumexp(jnp.moveaxis(x, axis, -1))
