r"""Between which bandwidths all maxima of the leave-one-out log-likelihood are, and the best there.

Along bandwidths in proportion to one, m A⁻¹, with s_ij = ‖A (x_i - x_j)‖², k the kernel's shape,
r_ij the shares of the points in p_{-i}(x_i) (K.3) and W = Σ_i w_i,

    ∂ℓ/∂log m = Σ_i w_i Σ_{j≠i} r_ij v(s_ij / m²) - d W,    v(s) = -2 s d log k / ds       (K.12)
    gaussian  v = s,    exponential  v = √s,    epanechnikov  v = 2 s / (1 - s)

Since k falls and v rises, the mean of v with the shares r_ij ∝ w_j k is at most that with w_j, and
at least the v of the nearest point. With δ_i² the least s_ij, q_i² = Σ_{j≠i} w_j s_ij / (W - w_i),
and means over i with weights w_i, ℓ rises below the first m and falls above the second:

    gaussian       m² = mean δ_i² / d     and    m² = mean q_i² / d
    exponential    m  = mean δ_i / d      and    m  = mean q_i / d
    compact        m  = max δ_i           and    m  = max(√2, 2/√d) · the diameter of the points

the last as s ≤ 1/2 there, so that v ≤ 4 s. In mirrors of bounds points are farther away than they
are themselves, so that these count above only.

Between the two ℓ may have many maxima. It is computed in even steps of log m, what is highest
between three steps is that of a parabola, and the best of all is a good place to climb from. What
is between the steps is not proved to be lower.

Where each point coincides with another one, ℓ has no bound as m goes to zero; where columns have
bandwidths of their own, it has none as soon as each coincides with another one in some column.

Source: differentiate equation K.3; Hardy, Littlewood and Pólya, Inequalities, 1934, section 2.17.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.models.kernels.factor import Bandwidth, inverse_factor
from jaxprob.models.kernels.kernel import COMPACT
from jaxprob.models.kernels.sums import leave_one_out, without_each
from jaxprob.numerics.products import matmul
from jaxprob.runtime.compilation import compiled

_STEPS = 16
_ROWS = 512  # at a time, of what is compared with all others
_JUST_REACHED = 1.05  # times the distance up to which a compact kernel does not reach some point


@compiled("kernel")
def best_multiple(
    bandwidth: Bandwidth,
    points: Array,
    weights: Array | None = None,
    images: Sequence[Array] = (),
    *,
    kernel: str = "gaussian",
) -> Bandwidth:
    """The multiple of a bandwidth with about the highest leave-one-out log-likelihood.

    Args:
        bandwidth: Bandwidth, all multiples of which are looked at.
        points: (n, d) floating.
        weights: (n,) w_j ≥ 0; one each where None.
        images: as of `leave_one_out`.
        kernel: one of `KERNELS`.

    Returns:
        Bandwidth.

    Example:
        >>> x = jnp.array([[0.0], [2.0]])
        >>> found = best_multiple(Bandwidth(jnp.zeros(1), jnp.zeros(0)), x)
        >>> round(float(jnp.exp(found.log_scale[0])), 1)
        2.0
    """
    low, high = multiples(bandwidth, points, weights, images, kernel=kernel)
    steps = jnp.linspace(jnp.log(low), jnp.log(high), _STEPS)

    def value(step: Array) -> Array:
        return leave_one_out(
            _multiple(bandwidth, step), points, weights, kernel=kernel, images=images
        )

    return _multiple(bandwidth, _top(steps, jax.lax.map(value, steps)))


def multiples(
    bandwidth: Bandwidth,
    points: Array,
    weights: Array | None = None,
    images: Sequence[Array] = (),
    *,
    kernel: str = "gaussian",
) -> tuple[Array, Array]:
    """The ends of what multiples of a bandwidth can be best (equation K.12).

    Args:
        bandwidth: Bandwidth.
        points: (n, d) floating.
        weights: (n,) w_j ≥ 0; one each where None.
        images: as of `leave_one_out`.
        kernel: one of `KERNELS`.

    Returns:
        () and (), positive: below the first the leave-one-out log-likelihood rises, above the
        second it falls. Both are 1 where no two points differ.

    Example:
        >>> low, high = multiples(Bandwidth(jnp.zeros(1), jnp.zeros(0)), jnp.array([[0.0], [2.0]]))
        >>> float(low), float(high)
        (2.0, 2.0)
    """
    d = points.shape[1]
    w = jnp.ones_like(points[:, 0]) if weights is None else weights / jnp.max(weights)
    share, live, rest = w / jnp.sum(w), w > 0, without_each(w)
    factor = inverse_factor(bandwidth, d)
    center = jnp.sum(share[:, None] * points, axis=0)

    def seen(x: Array) -> Array:
        away = jnp.where(live[:, None], x - center[None, :], 0.0)
        return away * factor[None, :] if factor.ndim == 1 else matmul(away, factor.T)

    def mean(a: Array) -> Array:
        return jnp.sum(jnp.where(live, share * a, 0.0))

    z = seen(points)
    every = [z, *(seen(x) for x in images)]
    nearest = _nearest(z, live)
    if kernel in COMPACT:
        low = _JUST_REACHED * jnp.sqrt(jnp.max(jnp.where(live, nearest, 0.0)))
        squares = [jnp.max(jnp.sum(a**2, axis=1)) for a in every]
        high = max(math.sqrt(2), 2 / math.sqrt(d)) * 2 * jnp.sqrt(jnp.max(jnp.stack(squares)))
    else:
        farther = jnp.stack([_squares(z, a, w) for a in every])
        far = jnp.mean(farther, axis=0) / rest
        if kernel == "exponential":
            low, high = mean(jnp.sqrt(nearest)) / d, mean(jnp.sqrt(far)) / d
        else:
            low, high = jnp.sqrt(mean(nearest) / d), jnp.sqrt(mean(far) / d)
    high = jnp.where(high == 0, 1.0, high)
    return jnp.where(low == 0, jnp.finfo(z.dtype).eps * high, low), high


def coincide(points: Array, weights: Array | None = None, *, by_column: bool = False) -> Array:
    """Whether each point coincides with another one, so that zero is the best bandwidth.

    Args:
        points: (n, d) floating.
        weights: (n,) w_j ≥ 0; one each where None. Points of weight zero are none.
        by_column: whether it is enough that they do in some column.

    Returns:
        () bool.

    Example:
        >>> x = jnp.array([[0.0, 1.0], [0.0, 2.0]])
        >>> bool(coincide(x)), bool(coincide(x, by_column=True))
        (False, True)
    """
    live = jnp.ones(len(points), bool) if weights is None else weights > 0
    return _coincide(points, live, by_column=by_column)


@compiled("by_column")
def _coincide(points: Array, live: Array, *, by_column: bool) -> Array:
    def of_point(point: Array, others: Array) -> Array:
        same = points == point[None, :]
        same = same if by_column else jnp.all(same, axis=1, keepdims=True)
        return jnp.any(same & others[:, None], axis=0)

    found = _of_each(of_point, points, live)
    return jnp.any(jnp.all(found | ~live[:, None], axis=0))


def _multiple(bandwidth: Bandwidth, log_m: Array) -> Bandwidth:
    return Bandwidth(bandwidth.log_scale + log_m, bandwidth.lower * jnp.exp(-log_m))


def _top(at: Array, values: Array) -> Array:
    """Where () values in even steps are highest, or parabolas through three of them are."""
    left, middle, right = values[:-2], values[1:-1], values[2:]
    bend = left - 2 * middle + right
    peak = (middle >= left) & (middle >= right) & (bend < 0) & jnp.isfinite(bend)
    bend = jnp.where(peak, bend, -1.0)
    slope = jnp.where(peak, right - left, 0.0)
    height = jnp.concatenate([values[:1], middle - slope**2 / (8 * bend), values[-1:]])
    shift = jnp.pad(-slope / (2 * bend), 1) * (at[1] - at[0])
    return (at + shift)[jnp.argmax(jnp.where(jnp.isnan(height), -jnp.inf, height))]


def _squares(z: Array, others: Array, w: Array) -> Array:
    """(n,) the sums Σ_{j≠i} w_j ‖z_i - y_j‖²."""
    whole = jnp.sum(w)
    center = jnp.sum(w[:, None] * others, axis=0) / whole
    spread = jnp.sum(w * jnp.sum((others - center[None, :]) ** 2, axis=1))
    own = w * jnp.sum((z - others) ** 2, axis=1)
    return whole * jnp.sum((z - center[None, :]) ** 2, axis=1) + spread - own


def _nearest(z: Array, live: Array) -> Array:
    """(n,) the least squared distance of each point to another one that is live."""
    columns = z.T

    def of_point(point: Array, others: Array) -> Array:
        squared = jnp.sum((columns - point[:, None]) ** 2, axis=0)
        return jnp.min(jnp.where(others, squared, jnp.inf))

    return _of_each(of_point, z, live)


def _of_each(fn: Callable[[Array, Array], Array], points: Array, live: Array) -> Array:
    """(n, ...) a function of each point and of which others (n,) are live, in blocks."""
    n, d = points.shape
    rows = -(-n // -(-n // _ROWS))
    number = jnp.arange(n)

    def of_number(i: Array, point: Array) -> Array:
        return fn(point, live & (number != i))

    blocks = jnp.pad(points, ((0, -n % rows), (0, 0))).reshape(-1, rows, d)
    numbers = jnp.arange(len(blocks) * rows).reshape(-1, rows)
    each = jax.lax.map(lambda block: jax.vmap(of_number)(*block), (numbers, blocks))
    return each.reshape(-1, *each.shape[2:])[:n]
