r"""Rules for the bandwidth of a Gaussian kernel, from the data alone.

The rules of thumb are what would be best for normal data, with n_eff = (Σ w)² / Σ w² examples and
σ_j the standard deviation of a column, Σ w (x - m)² / (Σ w - Σ w² / Σ w) its square:

    Scott       h_j = σ_j n_eff^(-1/(d+4))
    Silverman   h_j = σ_j (n_eff (d+2) / 4)^(-1/(d+4))                                     (K.5)

The bandwidth with the least asymptotic mean integrated squared error in one dimension is

    t = h² = (2 N √π ‖f''‖²)^(-2/5)                                                        (K.6)

and ‖f^(s)‖² can be estimated with a bandwidth t_s that depends on ‖f^(s+1)‖² in turn:

    t_s = ( (1 + 2^(-s-1/2)) / 3 · (1·3···(2s-1)) / (N √(π/2) ‖f^(s+1)‖²) )^(2/(3+2s))     (K.7)
    ‖f^(s)‖² = ½ Σ_k (kπ)^(2s) a_k² exp(-k²π² t_s),    a_k = 2 Σ_i p_i cos(kπ x_i) the cosine series

Improved Sheather-Jones (ISJ) takes t itself as the bandwidth of ‖f^(7)‖² and solves for the t that
comes back, the smallest if there are several. The series is that of data binned on a grid whose
ends are half a range away from the data, and all lengths are in units of the grid's, so that a
change of unit or origin changes nothing but rounding. N is n_eff of the distinct values: a value
that occurs twice is one of twice the weight.

Source: Scott, Multivariate Density Estimation, 1992, section 6.3.1; Silverman, Density Estimation
for Statistics and Data Analysis, 1986, section 4.3.2; Botev, Grotowski and Kroese, Kernel density
estimation via diffusion, Annals of Statistics 38, 2010, section 3.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.fft import dct

_STAGES = 7
_TRIALS = 96  # where the fixed point is looked for
_HALVINGS = 60


def scott(points: Array, weights: Array | None = None) -> Array:
    """Scott's rule for each column (equation K.5).

    Args:
        points: (n, d) floating.
        weights: (n,) w ≥ 0; one each where None.

    Returns:
        (d,) bandwidths, in the units of the columns.

    Example:
        >>> round(float(scott(jnp.array([[0.0], [1.0], [2.0]]))[0]), 4)
        0.8027
    """
    d = points.shape[1]
    spread, count = _spread_and_count(points, weights)
    return spread * count ** (-1 / (d + 4))


def silverman(points: Array, weights: Array | None = None) -> Array:
    """Silverman's rule for each column (equation K.5).

    Args:
        points: (n, d) floating.
        weights: (n,) w ≥ 0; one each where None.

    Returns:
        (d,) bandwidths, in the units of the columns.

    Example:
        >>> round(float(silverman(jnp.array([[0.0], [1.0], [2.0]]))[0]), 4)
        0.8503
    """
    d = points.shape[1]
    spread, count = _spread_and_count(points, weights)
    return spread * (count * ((d + 2) / 4)) ** (-1 / (d + 4))


def isj(values: Array, weights: Array | None = None, *, grid: int = 1 << 14) -> tuple[Array, Array]:
    """The improved Sheather-Jones bandwidth of one column (equations K.6, K.7).

    Args:
        values: (n,) floating.
        weights: (n,) w ≥ 0; one each where None.
        grid: on how many points the data, with as much room around, are binned. Bandwidths much
            narrower than a ten-thousandth of the range, as outliers make them, need more.

    Returns:
        () the bandwidth, in the unit of the values; and () bool whether there is one: Silverman's
        rule is returned where there is none, as for few examples or many ties.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1000,))
        >>> h, found = isj(jnp.concatenate([x, x + 20]))
        >>> bool(found), bool(h < silverman(jnp.concatenate([x, x + 20])[:, None])[0] / 5)
        (True, True)
    """
    w = jnp.ones_like(values) if weights is None else weights
    w = w / jnp.max(w)
    low = jnp.min(jnp.where(w > 0, values, jnp.inf))
    high = jnp.max(jnp.where(w > 0, values, -jnp.inf))
    length = 2 * (high - low)
    squares = _squared_series(jnp.where(w > 0, (values - low) / length, 0.0) + 0.25, w, grid)
    log_count = jnp.log(_distinct(values, w))
    log_wave = jnp.log(jnp.pi * jnp.arange(1, grid, dtype=values.dtype))
    log_squares, wave_squared = jnp.log(squares), jnp.exp(2 * log_wave)

    def log_norm(s: int, log_t: Array) -> Array:
        """Of ‖f^(s)‖²."""
        terms = log_squares + 2 * s * log_wave - wave_squared * jnp.exp(log_t)
        return jax.nn.logsumexp(terms) + math.log(2)

    def excess(log_t: Array) -> Array:
        """How much log t is larger than what comes back."""
        log_f = log_norm(_STAGES, log_t)
        for s in range(_STAGES - 1, 1, -1):
            odd = math.log((1 + 0.5 ** (s + 0.5)) / 3)
            odd += sum(math.log(i) for i in range(1, 2 * s, 2)) - math.log(math.pi / 2) / 2
            log_f = log_norm(s, 2 / (3 + 2 * s) * (odd - log_count - log_f))
        return log_t + 2 / 5 * (math.log(2 * math.sqrt(math.pi)) + log_count + log_f)

    least = 2 * math.log(0.25 / grid)
    trials = jnp.linspace(least, 0.0, _TRIALS, dtype=values.dtype)
    signs = jax.lax.map(excess, trials) >= 0
    crossing = ~signs[:-1] & signs[1:]
    first = jnp.argmax(crossing)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        below, above = ends
        middle = (below + above) / 2
        high = excess(middle) >= 0
        return jnp.where(high, below, middle), jnp.where(high, middle, above)

    below, above = jax.lax.fori_loop(0, _HALVINGS, halve, (trials[first], trials[first + 1]))
    found = jnp.any(crossing)
    thumb = silverman(values[:, None], weights)[0]
    return jnp.where(found, length * jnp.exp((below + above) / 4), thumb), found


def _spread_and_count(points: Array, weights: Array | None) -> tuple[Array, Array]:
    """The standard deviation (d,) of each column, and n_eff."""
    w = jnp.ones(points.shape[0], points.dtype) if weights is None else weights
    share = w / jnp.sum(w)
    more = jnp.sum(share**2)
    away = points - jnp.sum(share[:, None] * points, axis=0)[None, :]
    squares = jnp.sum(share[:, None] * away**2, axis=0)
    return jnp.sqrt(squares / (1 - more)), 1 / more


def _squared_series(u: Array, w: Array, grid: int) -> Array:
    """The squares (grid - 1,) of (Σ_i p_i cos(kπ u_i)), k ≥ 1, of data binned linearly."""
    place = u * grid - 0.5
    cell = jnp.floor(place)
    rest = place - cell
    cell = cell.astype(jnp.int32)
    mass = jnp.zeros(grid, u.dtype).at[cell].add(w * (1 - rest)).at[cell + 1].add(w * rest)
    return (dct(mass / jnp.sum(w))[1:] / 2) ** 2


def _distinct(values: Array, w: Array) -> Array:
    """The effective number of distinct values."""
    order = jnp.argsort(values)
    values, w = jnp.take(values, order), jnp.take(w, order)
    new = jnp.concatenate([jnp.zeros(1, bool), values[1:] != values[:-1]])
    together = jnp.zeros_like(w).at[jnp.cumsum(new)].add(w)
    return jnp.sum(w) ** 2 / jnp.sum(together**2)
