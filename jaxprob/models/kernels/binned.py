r"""Gaussian kernel estimates in one to three dimensions on a regular grid, by Fourier transforms.

Each point is spread over the 4 nearest cells of every axis with the weights B of a cubic B-spline,
and the sum over points becomes a product of Fourier transforms; the smoothing that the spreading is
has a transform that is known, and is taken out again:

    p̂(ω) = Σ_m c_m exp(-iω x_m) · exp(-½ ωᵀ Σ ω) / B̂(ω),    Σ⁻¹ = Aᵀ A                     (K.8)
    B̂(ω) = Π_e sinc(ω_e δ_e / 2)⁴,        p(x) = Σ_m b_m B((x - x_m) / δ),    b̂ = p̂ / B̂

with c_m the weight of cell m, as shares, and δ the spacing. The last sum interpolates between
cells: a B-spline again, whose smoothing has been taken out before. What is left is aliasing, twice:
a wave ω has a part Σ_{m≠0} (θ / (θ + m))⁴ ≈ 2ζ(4) θ⁴ (1 + 9.4 θ²), θ = ωδ/2π, of waves that the
grid cannot tell from it. Weighted with the kernel, E θ⁴ = 3 (δ / 2πη)⁴, and with some room

    |error| ≤ 16 Σ_e (ρ_e / 2π)⁴ (1 + 2ρ_e²) · K(0),   ρ = δ/η ≤ 1,   η_e = (AᵀA)_ee^(-1/2) (K.9)

of the kernel's peak K(0) = |det A| (2π)^(-d/2), which no density exceeds: 1e-6 for ten cells in a
bandwidth, and 1/16 of it for twenty; binning and interpolating linearly would need 400. Points that
are not in phase with the grid have a much smaller error. The grid ends 6.5 bandwidths from the
points, beyond which the estimate is zero.

Source: Silverman, Applied Statistics 31, 1982 (algorithm AS 176); Wand, Journal of Computational
and Graphical Statistics 3, 1994; Hockney and Eastwood, Computer Simulation Using Particles, 1988,
section 7.8; Barnett, Magland and af Klinteberg, SIAM Journal on Scientific Computing 41, 2019.
"""

import itertools
import math
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.models.kernels.arguments import (
    check_factor,
    check_number,
    check_points,
    check_positive,
    check_rows,
)
from jaxprob.numerics.components import inverse_of_lower

_MARGIN = 6.5  # bandwidths around the points
_POINTS = 20_000  # at a time: more do not stay in the cache
_ROOM = 16.0  # of equation K.9


class Grid(NamedTuple):
    """An estimate on a grid.

    Attributes:
        low: (d,) coordinates of the first cell.
        spacing: (d,) δ.
        density: (G_1, ..., G_d) p of each cell.
        coefficients: (G_1, ..., G_d) b.
    """

    low: Array
    spacing: Array
    density: Array
    coefficients: Array

    @property
    def axes(self) -> tuple[Array, ...]:
        """The coordinates of the cells along each axis."""
        shape = self.density.shape
        return tuple(
            a + s * jnp.arange(g) for a, s, g in zip(self.low, self.spacing, shape, strict=True)
        )


def grid_shape(points: Array, factor: Array, *, tolerance: float = 1e-6) -> tuple[int, ...]:
    """How large a grid has to be for an error bound; to be called outside of `jax.jit`.

    Args:
        points: (n, d) floating.
        factor: A, (d, d) lower triangular with a positive diagonal, or (d,) its diagonal.
        tolerance: the error, relative to the kernel's peak.

    Returns:
        (d,) numbers of cells with small prime factors only.

    Example:
        >>> grid_shape(jnp.array([[0.0], [87.0]]), jnp.ones(1))
        (1024,)
    """
    check_points(points)
    d = points.shape[1]
    check_factor(factor, d)
    check_positive("tolerance", tolerance)
    matrix = np.asarray(jnp.diag(factor) if factor.ndim == 1 else factor, float)
    extent = np.asarray(jnp.max(points, axis=0) - jnp.min(points, axis=0), float)
    extent = extent + 2 * _MARGIN * np.sqrt((np.linalg.inv(matrix) ** 2).sum(axis=1))
    narrow = 1 / np.sqrt((matrix**2).sum(axis=0))
    first = 2 * math.pi * (tolerance / (_ROOM * d)) ** 0.25  # ρ up to its square
    spacing = narrow * min(1.0, first / (1 + 2 * first**2) ** 0.25)
    return tuple(_smooth(math.ceil(e)) for e in extent / spacing)


def error_bound(spacing: Array, factor: Array) -> Array:
    """The error of a binned estimate, relative to the kernel's peak (equation K.9).

    Args:
        spacing: (d,) δ of the grid.
        factor: A, (d, d) lower triangular with a positive diagonal, or (d,) its diagonal.

    Returns:
        () what no error is above in exact arithmetic; ∞ where cells are wider than the kernel.

    Example:
        >>> bool(error_bound(jnp.array([0.1]), jnp.ones(1)) < 1.1e-6)
        True
    """
    steep = jnp.abs(factor) if factor.ndim == 1 else jnp.sqrt(jnp.sum(factor**2, axis=0))
    relative = spacing * steep
    bound = _ROOM * jnp.sum((relative / (2 * math.pi)) ** 4 * (1 + 2 * relative**2))
    return jnp.where(jnp.any(relative > 1), jnp.inf, bound)


def binned_density(
    points: Array, factor: Array, weights: Array | None = None, *, shape: tuple[int, ...]
) -> Grid:
    """A Gaussian kernel estimate on a grid around the points (equation K.8).

    Args:
        points: (n, d) floating, d at most 3.
        factor: A, (d, d) lower triangular with a positive diagonal, or (d,) its diagonal.
        weights: (n,) w ≥ 0; one each where None.
        shape: (d,) how many cells; what `grid_shape` says, or what `error_bound` is content with.

    Returns:
        Grid.

    Example:
        >>> grid = binned_density(jnp.array([[0.0]]), jnp.ones(1), shape=(130,))
        >>> round(float(grid.density.max()), 4)
        0.3989
    """
    check_points(points, weights)
    d = points.shape[1]
    check_factor(factor, d)
    if len(shape) != d or not 1 <= d <= 3:
        raise ValueError(f"shape: expected one number for each of 1 to 3 columns, got {shape}")
    for cells in shape:
        check_number("shape", cells, least=4)
    whole = len(points) if weights is None else jnp.sum(weights)
    inverse = jnp.diag(1 / factor) if factor.ndim == 1 else inverse_of_lower(factor)
    margin = _MARGIN * jnp.sqrt(jnp.sum(inverse**2, axis=1))
    low = jnp.min(points, axis=0) - margin
    spacing = (jnp.max(points, axis=0) + margin - low) / jnp.array(shape, points.dtype)
    mass = _spread(points, weights, low, spacing, shape) / whole
    waves = [jnp.fft.fftfreq(g).astype(points.dtype) for g in shape[:-1]]
    waves = [*waves, jnp.fft.rfftfreq(shape[-1]).astype(points.dtype)]
    waves = jnp.meshgrid(*waves, indexing="ij")  # cycles in a cell
    smoothing = reduce(jnp.multiply, [jnp.sinc(v) ** 4 for v in waves])
    waves = [v * (2 * math.pi / a) for v, a in zip(waves, spacing, strict=True)]
    turned = [
        reduce(jnp.add, [v * b for v, b in zip(waves, column, strict=True)]) for column in inverse.T
    ]
    kernel = jnp.exp(-reduce(jnp.add, [t**2 for t in turned]) / 2)
    transform = jnp.fft.rfftn(mass) * (kernel / smoothing) / jnp.prod(spacing)
    density = jnp.fft.irfftn(transform, shape)
    return Grid(low, spacing, density, jnp.fft.irfftn(transform / smoothing, shape))


def interpolate(grid: Grid, queries: Array) -> Array:
    """The density of a binned estimate between the cells (equation K.8).

    Args:
        grid: Grid.
        queries: (m, d) floating.

    Returns:
        (m,), which may be as far below zero as the error is large; zero outside of the grid.

    Example:
        >>> grid = binned_density(jnp.array([[0.0]]), jnp.ones(1), shape=(130,))
        >>> [round(float(p), 4) for p in interpolate(grid, jnp.array([[0.0], [1.0]]))]
        [0.3989, 0.242]
    """
    shape = grid.coefficients.shape
    check_rows("queries", queries, columns=len(shape), of="grid")
    around = jnp.pad(grid.coefficients, [(1, 2)] * len(shape), mode="wrap")
    flat, rows = around.ravel(), min(len(queries), _POINTS)

    def of_queries(q: Array) -> Array:
        found = _cells_of(q, grid.low, grid.spacing, around.shape)
        return reduce(jnp.add, [share * flat[index] for index, share in found])

    blocks = jnp.pad(queries, ((0, -len(queries) % rows), (0, 0))).reshape(-1, rows, len(shape))
    value = jax.lax.map(of_queries, blocks).ravel()[: len(queries)]
    high = grid.low + grid.spacing * jnp.array(shape, grid.low.dtype)
    outside = (queries < grid.low[None, :]) | (queries > high[None, :])
    return jnp.where(jnp.any(outside, axis=1), 0.0, value)


def _spread(
    points: Array, w: Array | None, low: Array, spacing: Array, shape: tuple[int, ...]
) -> Array:
    """The weight of each cell."""
    n, d = points.shape
    rows = -(-n // -(-n // _POINTS))
    whole = n // rows * rows

    def add(mass: Array, some: tuple[Array, Array | None]) -> tuple[Array, None]:
        x, w = some
        for index, share in _cells_of(x, low + spacing, spacing, shape):
            share = share if w is None else share * w
            mass = mass.at[index].add(share, mode="drop", wrap_negative_indices=False)
        return mass, None

    blocks = points[:whole].reshape(-1, rows, d), None if w is None else w[:whole].reshape(-1, rows)
    mass, _ = jax.lax.scan(add, jnp.zeros(math.prod(shape), points.dtype), blocks)
    if whole < n:
        mass, _ = add(mass, (points[whole:], None if w is None else w[whole:]))
    return mass.reshape(shape)


def _cells_of(
    x: Array, low: Array, spacing: Array, shape: tuple[int, ...]
) -> list[tuple[Array, Array]]:
    """The numbers (b,) of the cells of examples, from that below `low` on, and their shares (b,).

    Of a grid with a cell more on one side and two on the other, these are the numbers from 0 on.
    """
    axes = []
    for e in range(len(shape)):
        place = (x[:, e] - low[e]) * (1 / spacing[e])
        cell = jnp.floor(place)
        r = place - cell
        q, cell = 1 - r, cell.astype(jnp.int32)
        shares = (
            q * q * q * (1 / 6),
            2 / 3 - r * r * (1 - r * 0.5),
            2 / 3 - q * q * (1 - q * 0.5),
            r * r * r * (1 / 6),
        )
        axes.append([(cell + k, share) for k, share in enumerate(shares)])
    found = []
    for parts in itertools.product(*axes):
        index, share = parts[0]
        for size, (more, own) in zip(shape[1:], parts[1:], strict=True):
            index, share = index * size + more, share * own
        found.append((index, share))
    return found


def _smooth(least: int) -> int:
    """The smallest even number with prime factors up to 5, from some number on."""
    num = max(8, least + least % 2)
    while True:
        rest = num
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return num
        num += 2
