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
comes back, the smallest with less coming back than t from there on. The series is that of data
binned on a grid whose ends are half a range away from the data, and all lengths are in units of the
grid's, so that a change of unit or origin changes nothing but rounding. N is n_eff.

Values that repeat, as rounded data do, have squares a_k² that do not fall to those of N examples
with values of their own, but to c times as much, c = N Σ_v p_v² with p_v the share of a value, up
to the shortest wave of the grid. From c = 2.5 on, less than t comes back for all narrow t, but for
those where waves are missing; a solution there, at a cell or two, is one of the grid and not of the
data. So it is looked for from two cells on, and from a 2c-th on of what is found with each value
counted once, N / c, and not at all if nothing is: that is too wide, by about c^(1/4), and only
repeats make a solution far below it. What is left is that of the data before they were rounded, as
long as it is wider than half of what they were rounded to. The squares are divided by what linear
binning leaves of those of examples at random, (2 + cos(πk / G)) / 3 with G cells.

Source: Scott, Multivariate Density Estimation, 1992, section 6.3.1; Silverman, Density Estimation
for Statistics and Data Analysis, 1986, section 4.3.2; Botev, Grotowski and Kroese, Kernel density
estimation via diffusion, Annals of Statistics 38, 2010, section 3.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.fft import dct

from jaxprob.models.kernels.arguments import check_number, check_points, check_values
from jaxprob.runtime.compilation import compiled

_STAGES = 7
_TRIALS = 96  # where the fixed point is looked for
_HALVINGS = 60
_LEAST = 2.0  # cells of the grid: below, it is the grid that decides


def scott(points: Array, weights: Array | None = None) -> Array:
    """Scott's rule for each column (equation K.5).

    Args:
        points: (n, d) floating.
        weights: (n,) w ≥ 0; one each where None.

    Returns:
        (d,) bandwidths, in the units of the columns; NaN for a single example.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for another shape, and for weights that are negative or all zero.

    Example:
        >>> round(float(scott(jnp.array([[0.0], [1.0], [2.0]]))[0]), 4)
        0.8027
    """
    check_points(points, weights)
    d = points.shape[1]
    spread, count = _spread_and_count(points, weights)
    return spread * count ** (-1 / (d + 4))


def silverman(points: Array, weights: Array | None = None) -> Array:
    """Silverman's rule for each column (equation K.5).

    Args:
        points: (n, d) floating.
        weights: (n,) w ≥ 0; one each where None.

    Returns:
        (d,) bandwidths, in the units of the columns; NaN for a single example.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for another shape, and for weights that are negative or all zero.

    Example:
        >>> round(float(silverman(jnp.array([[0.0], [1.0], [2.0]]))[0]), 4)
        0.8503
    """
    check_points(points, weights)
    d = points.shape[1]
    spread, count = _spread_and_count(points, weights)
    return spread * (count * ((d + 2) / 4)) ** (-1 / (d + 4))


def isj(values: Array, weights: Array | None = None, *, grid: int = 1 << 14) -> tuple[Array, Array]:
    """The improved Sheather-Jones bandwidth of one column (equations K.6, K.7).

    Args:
        values: (n,) floating.
        weights: (n,) w ≥ 0; one each where None. A common factor changes nothing. Examples drawn
            again, as by a bootstrap, are better given once, with how often as their weight.
        grid: on how many points, at least 16, the data, with as much room around, are binned.
            Bandwidths much narrower than a thousandth of the range, as outliers make them, need
            more.

    Returns:
        () the bandwidth, in the unit of the values; and () bool whether there is one: Silverman's
        rule is returned where there is none, as for few examples, for many at the same value, and
        for data rounded to more than twice the bandwidth.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for another shape, for weights that are negative or all zero, and for few cells.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1000,))
        >>> h, found = isj(jnp.concatenate([x, x + 20]))
        >>> bool(found), bool(h < silverman(jnp.concatenate([x, x + 20])[:, None])[0] / 5)
        (True, True)
    """
    check_values(values, weights)
    check_number("grid", grid, least=16)
    return _isj(values, weights, grid=grid)


@compiled("grid")
def _isj(values: Array, weights: Array | None, *, grid: int) -> tuple[Array, Array]:
    w = jnp.ones_like(values) if weights is None else weights
    w = w / jnp.max(w)
    low = jnp.min(jnp.where(w > 0, values, jnp.inf))
    high = jnp.max(jnp.where(w > 0, values, -jnp.inf))
    length = 2 * (high - low)
    squares = _squared_series(jnp.where(w > 0, (values - low) / length, 0.0) + 0.25, w, grid)
    log_wave = jnp.log(jnp.pi * jnp.arange(1, grid, dtype=values.dtype))
    log_squares, wave_squared = jnp.log(squares), jnp.exp(2 * log_wave)

    def log_norm(s: int, log_t: Array) -> Array:
        """Of ‖f^(s)‖²."""
        terms = log_squares + 2 * s * log_wave - wave_squared * jnp.exp(log_t)
        return jax.nn.logsumexp(terms) + math.log(2)

    def excess(log_t: Array, log_count: Array) -> Array:
        """How much log t is larger than what comes back."""
        log_f = log_norm(_STAGES, log_t)
        for s in range(_STAGES - 1, 1, -1):
            odd = math.log((1 + 0.5 ** (s + 0.5)) / 3)
            odd += sum(math.log(i) for i in range(1, 2 * s, 2)) - math.log(math.pi / 2) / 2
            log_f = log_norm(s, 2 / (3 + 2 * s) * (odd - log_count - log_f))
        return log_t + 2 / 5 * (math.log(2 * math.sqrt(math.pi)) + log_count + log_f)

    def solve(least: Array, log_count: Array) -> tuple[Array, tuple[Array, Array]]:
        """From where on to look next; and log t, and whether there is one."""
        trials = jnp.linspace(least, jnp.zeros_like(least), _TRIALS)
        signs = jax.lax.map(lambda log_t: excess(log_t, log_count), trials) >= 0
        crossing = ~signs[:-1] & signs[1:]
        first = jnp.argmax(crossing)

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            below, above = ends
            middle = (below + above) / 2
            high = excess(middle, log_count) >= 0
            return jnp.where(high, below, middle), jnp.where(high, middle, above)

        ends = jax.lax.fori_loop(0, _HALVINGS, halve, (trials[first], trials[first + 1]))
        log_t, found = (ends[0] + ends[1]) / 2, jnp.any(crossing)
        narrow = log_t - 2 * (math.log(2) + repeats)
        return jnp.where(found, jnp.maximum(least, narrow), least), (log_t, found)

    counts = jnp.stack([_count_of_values(values, w), jnp.sum(w) ** 2 / jnp.sum(w**2)])
    repeats = jnp.log(counts[1] / counts[0])
    least = jnp.full_like(low, 2 * math.log(_LEAST / grid))
    _, (log_t, found) = jax.lax.scan(solve, least, jnp.log(counts))
    thumb, both = silverman(values[:, None], weights)[0], found[0] & found[1]
    return jnp.where(both, length * jnp.exp(log_t[1] / 2), thumb), both


@compiled()
def _spread_and_count(points: Array, weights: Array | None) -> tuple[Array, Array]:
    """The standard deviation (d,) of each column, and n_eff."""
    w = jnp.ones(points.shape[0], points.dtype) if weights is None else weights
    share = w / jnp.max(w)
    share = share / jnp.sum(share)
    more = jnp.sum(share**2)
    away = points - jnp.take(points, jnp.argmax(w), axis=0)[None, :]  # exact, far from zero too
    away = away - jnp.sum(share[:, None] * away, axis=0)[None, :]
    largest = jnp.max(jnp.where(share[:, None] > 0, jnp.abs(away), 0.0), axis=0)
    unit = jnp.where(largest == 0, 1.0, largest)  # squares of tiny or huge numbers are none
    squares = jnp.sum(share[:, None] * (away / unit[None, :]) ** 2, axis=0)
    return unit * jnp.sqrt(squares / (1 - more)), 1 / more


def _squared_series(u: Array, w: Array, grid: int) -> Array:
    """The squares (grid - 1,) of (Σ_i p_i cos(kπ u_i)), k ≥ 1, of data binned linearly."""
    place = u * grid - 0.5
    cell = jnp.floor(place)
    rest = place - cell
    cell = cell.astype(jnp.int32)
    mass = jnp.zeros(grid, u.dtype).at[cell].add(w * (1 - rest)).at[cell + 1].add(w * rest)
    cycles = jnp.arange(1, grid, dtype=u.dtype) / (2 * grid)
    return (dct(mass / jnp.sum(w))[1:] / 2) ** 2 * 3 / (2 + jnp.cos(2 * jnp.pi * cycles))


def _count_of_values(values: Array, w: Array) -> Array:
    """n_eff, with all examples at a value as one."""
    order = jnp.argsort(values)
    values, w = jnp.take(values, order), jnp.take(w, order)
    new = jnp.concatenate([jnp.zeros(1, bool), values[1:] != values[:-1]])
    together = jnp.zeros_like(w).at[jnp.cumsum(new)].add(w)
    return jnp.sum(w) ** 2 / jnp.sum(together**2)
