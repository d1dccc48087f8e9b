"""Least squares from sums over the examples: parameters of linear regression, and their maximum."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Estimate,
    Status,
)
from jaxprob.numerics import total
from jaxprob.numerics.control import only_if
from jaxprob.numerics.linalg import inverse_of_upper, svd, triangular_root
from jaxprob.numerics.products import matmul, vdot
from jaxprob.runtime.compilation import compiled

LOG_ROOT = math.log(2 * math.pi) / 2


_OF_SUMS = 16  # times ε d times the lengths of columns: what is as small is nothing but rounding


_OF_DATA = 2  # times ε times the numbers as they were given: the same


class Params(NamedTuple):
    """What is fitted: `weights` (d,), `bias` () or None, and `log_scale` (), the logarithm of σ."""

    weights: Array
    bias: Array | None
    log_scale: Array


class Sums(NamedTuple):
    """What the likelihood knows of the examples; the last column is that of y less the offset."""

    weight: Array  # () C
    mean: Array  # (d + 1,) m
    root: Array  # (d + 1, d + 1) R
    largest: Array  # (d + 1,) the largest of the numbers as they were given, which are rounded


@compiled()
def statistics(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    offset: Array | None = None,
    centre: Array | None = None,
) -> Sums:
    """What the likelihood knows of the examples.

    Args:
        x: (n, d) floating.
        y: (n,).
        weights: (n,) c_i ≥ 0; one each where None.
        offset: (n,) added to the means.
        centre: (d,) what has been subtracted from x.

    Returns:
        Sums, which `merge` puts together with those of other examples.

    Example:
        >>> statistics(jnp.array([[1.0], [3.0]]), jnp.array([0.0, 4.0])).mean.tolist()
        [2.0, 2.0]
    """
    c = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    rows = jnp.concatenate([x, (y if offset is None else y - offset)[:, None]], axis=1)
    weight = total(c)
    share = c / jnp.where(weight > 0, weight, 1.0)
    mean = matmul(share, rows)
    rows = rows - mean[None, :]
    rest = matmul(share, rows)  # of which the rounded mean falls short
    rows = jnp.sqrt(c)[:, None] * (rows - rest[None, :])
    given = x if centre is None else x + centre[None, :]
    of_y = jnp.abs(y) if offset is None else jnp.maximum(jnp.abs(y), jnp.abs(offset))
    sizes = jnp.concatenate([jnp.abs(given), of_y[:, None]], axis=1)
    largest = jnp.max(jnp.where((c > 0)[:, None], sizes, 0.0), axis=0, initial=0.0)
    return Sums(weight, mean + rest, triangular_root(rows), largest)


@compiled()
def merge(a: Sums, b: Sums) -> Sums:
    """The statistics of two sets of examples together.

    Args:
        a: of the one.
        b: of the other.

    Returns:
        Sums.

    Example:
        >>> x, y = jnp.array([[1.0], [3.0]]), jnp.array([0.0, 4.0])
        >>> merge(statistics(x, y), statistics(x, y)).weight.tolist()
        4.0
    """
    weight = a.weight + b.weight
    share = b.weight / jnp.where(weight > 0, weight, 1.0)
    apart = b.mean - a.mean
    row = jnp.sqrt(a.weight * share) * apart
    root = triangular_root(jnp.concatenate([a.root, b.root, row[None, :]]))
    return Sums(weight, a.mean + share * apart, root, jnp.maximum(a.largest, b.largest))


@compiled("bias")
def estimate(known: Sums, *, bias: bool = True) -> Estimate:
    """The maximum of the likelihood (equation L.3), and whether there is one.

    Args:
        known: of the examples.
        bias: whether there is one.

    Returns:
        An Estimate: SINGULAR where columns are linearly dependent, COLLAPSED where the residuals
        are zero; the direction is that of a smaller scale then.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([0.0, 2.0, 2.0, 4.0])
        >>> round(float(estimate(statistics(x, y)).params.weights[0]), 4)
        1.2
    """
    eps, tiny = jnp.finfo(known.root.dtype).eps, jnp.finfo(known.root.dtype).tiny
    root, width = known.root, max(1, len(known.root) - 1)
    if not bias:
        root = triangular_root(
            jnp.concatenate([root, (jnp.sqrt(known.weight) * known.mean)[None, :]])
        )
    lengths = _lengths(root)
    rounding = _OF_DATA * eps * jnp.sqrt(known.weight) * known.largest
    alive = lengths > rounding
    scale = jnp.where(alive, lengths, 1.0)
    root = jnp.where(alive, root / scale[None, :], 0.0)
    features, wanted = root[:-1, :-1], root[:-1, -1]
    of_data = jnp.sum(jnp.where(alive, rounding / scale, 0.0)[:-1] ** 2)
    least = _OF_SUMS * eps * width + jnp.sqrt(of_data)  # singular values as small are zero
    inverse = inverse_of_upper(features)
    regular = jnp.sum(inverse**2) * least**2 < 1

    def shortest(features: Array, wanted: Array) -> tuple[Array, Array]:
        """Of all solutions."""
        left, values, right = svd(features)
        some = values > least
        along = matmul(left.T, wanted)
        w = matmul(jnp.where(some, along / jnp.where(some, values, 1.0), 0.0), right)
        return w, wanted - matmul(left, jnp.where(some, along, 0.0))

    direct = matmul(inverse, wanted), jnp.zeros_like(wanted)
    direct = jax.tree.map(lambda a: jnp.where(regular, a, 0.0), direct)
    w, unmet = only_if(~regular, shortest, direct, features, wanted)
    length = jnp.sqrt(root[-1, -1] ** 2 + jnp.sum(unmet**2)) * scale[-1]  # of the residuals
    w = w * scale[-1] / scale[:-1]
    made_of = lengths[-1] + vdot(jnp.abs(w), lengths[:-1])
    collapsed = length <= _OF_SUMS * eps * width * made_of + rounding[-1]
    length = jnp.where(collapsed, jnp.maximum(length, rounding[-1]), length)
    count = jnp.where(known.weight > 0, known.weight, 1.0)
    log_scale = jnp.log(jnp.maximum(length, tiny)) - jnp.log(count) / 2
    b = known.mean[-1] - vdot(w, known.mean[:-1]) if bias else None
    status = jnp.where(regular, Status.CONVERGED, Status.SINGULAR)
    status = jnp.where(collapsed, Status.COLLAPSED, status).astype(jnp.int32)
    none = jax.tree.map(jnp.zeros_like, Params(w, b, log_scale))
    shrinks = none._replace(log_scale=-collapsed.astype(w.dtype))
    return Estimate(Params(w, b, log_scale), status, shrinks)


@compiled()
def of_statistics(params: Params, known: Sums) -> tuple[Array, Params]:
    """Log-likelihood and gradient from the statistics of the examples.

    Args:
        params: weights (d,), bias () or None, log_scale ().
        known: of the examples.

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1.0, 1.0])
        >>> params = Params(jnp.zeros(1), None, jnp.zeros(()))
        >>> round(float(of_statistics(params, statistics(x, y))[0]), 4)
        -2.8379
    """
    precision = jnp.exp(-params.log_scale)
    ahead = jnp.append(-params.weights, jnp.ones((), params.weights.dtype))
    spread = matmul(known.root, ahead) * precision
    level = vdot(known.mean, ahead) - (0.0 if params.bias is None else params.bias)
    level = level * precision
    squares = vdot(spread, spread) + known.weight * level**2
    value = -squares / 2 - known.weight * (params.log_scale + LOG_ROOT)
    by_weights = matmul(spread, known.root[:, :-1]) + known.weight * level * known.mean[:-1]
    by_bias = None if params.bias is None else precision * known.weight * level
    return value, Params(precision * by_weights, by_bias, squares - known.weight)


def _lengths(a: Array) -> Array:
    """(q,) of the columns, whose squares may underflow."""
    most = jnp.max(jnp.abs(a), axis=0, initial=0.0)
    some = jnp.where(most > 0, most, 1.0)
    return most * jnp.sqrt(jnp.sum((a / some[None, :]) ** 2, axis=0))
