r"""Directions of separation, for models with linear logits: that there is no finite maximum.

Example i with label y and another class k make a margin a_ikᵀv = ż_iy - ż_ik of a direction v, ż
its logits without offsets. v separates the classes, completely or quasi-completely, if all margins
of examples of positive weight are ≥ 0 and one is > 0. Then the likelihood rises for ever along v.
Of a count y_i with rate e^(z_i), log p = y z - e^z - log y!, the margin is -ż_i: along v it may be
> 0 where y_i = 0, and the rate falls, but must be zero where y_i > 0, since log p falls to both
sides for ever there.

Under a Newton step δ separated rows move by 1 or more, while overlapped ones stay. So v is looked
for as δ projected on the directions along which the rows that do not move have margin zero; among
these it is mended by least squares where another row would move backwards. θ itself is tried too.
What is found is verified in compensated arithmetic.

Source: Albert and Anderson, On the existence of maximum likelihood estimates in logistic regression
models, Biometrika 71, 1984; Santos Silva and Tenreyro, On the existence of the maximum likelihood
estimates in Poisson regression, Economics Letters 107, 2010.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.models.regression.predictors import assemble, pull_back
from jaxprob.numerics import compensated_matvec
from jaxprob.numerics.linalg import eigh, solve
from jaxprob.numerics.products import matmul

# A row counts as overlapped whose margin is below the first under a Newton step, and below the
# second, in nats, under the parameters: where e^(-margin) rounds away, a step means nothing.
_OVERLAP = ((0.5, 36.0), (0.1, 36.0), (0.5, 12.0))
_REFINEMENTS = 2  # of the projection, which loses digits where features are badly scaled
_REPAIRS = 12
_LEAST_MOVE = 0.5  # of a separated row, where a Newton step moves it by 1
_REGULAR = 1e-10  # of the trace: what keeps least squares from dividing by zero
_ROUNDING = 256  # times ε: what a verified margin may be below zero


class Rows(Protocol):
    """The rows a_ik, (n, K) of them, divided by `scales` so that no feature exceeds 1."""

    scales: Array  # (p,)
    lengths: Array  # (n,)
    fixed: Array  # (n, K) whose margins have to be zero

    def margins(self, params: Any) -> Array:
        """(n, K), infinite where there is no row."""
        ...

    def behind(self, params: Any) -> Array:
        """(n, K) by how many nats what a row would gain is small already, under a fit."""
        ...

    def worst(self, z: Array) -> Array:
        """(n, K) margins, zero where there is no row, of logits of the rows of weights (n, C).

        Below zero also where a margin that has to be zero is above.
        """
        ...

    def squares(self, u: Array) -> Array:
        """(p, p) the sum of u a aᵀ."""
        ...

    def combined(self, r: Array) -> Array:
        """(p,) the sum of r a."""
        ...


class _Scaled:
    """What both kinds of rows share."""

    def __init__(self, problem: Any) -> None:
        data, template = problem.data, problem.template()
        self.problem, self.alive = problem, (problem.example_weights() > 0)[:, None]
        self.bias = template.bias is not None
        column = jnp.max(jnp.where(self.alive, jnp.abs(data.x), 0.0), axis=0)
        column = jnp.where(column > 0, column, 1.0)
        ones = jnp.ones(template.bias.shape, data.x.dtype) if self.bias else None
        weights = jnp.broadcast_to(column, template.weights.shape)
        self.scales, _ = ravel_pytree(template._replace(weights=weights, bias=ones))
        lengths = jnp.sqrt(jnp.sum((data.x / column[None, :]) ** 2, axis=1) + self.bias)
        self.lengths = jnp.where(lengths > 0, lengths, 1.0)

    def _assembled(self, blocks: Array, num_rows: int) -> Array:
        outer = self.scales[:, None] * self.scales[None, :]
        return assemble(self.problem.data.x, blocks, num_rows, bias=self.bias) / outer


class LabelRows(_Scaled):
    """Of each label against every other class."""

    def __init__(self, problem: Any, logits: Callable[..., Array], first: int) -> None:
        super().__init__(problem)
        self.logits, self.first = logits, first
        classes = jnp.arange(problem.model.variables.num_classes)
        self.hit = problem.data.y[:, None] == classes[None, :]  # whether k is the label
        self.void = self.hit | ~self.alive  # there is no such row
        self.fixed = jnp.zeros(self.hit.shape, bool)

    def margins(self, params: Any) -> Array:
        """(n, K), infinite where there is no row."""
        return self._margins(params, None)

    def behind(self, params: Any) -> Array:
        """The margins with their offsets."""
        return self._margins(params, self.problem.data.offset)

    def _margins(self, params: Any, offset: Array | None) -> Array:
        z = self.logits(params, self.problem.data.x, offset)
        own = jnp.sum(jnp.where(self.hit, z, 0.0), axis=1, keepdims=True)
        return jnp.where(self.void, jnp.inf, own - z)

    def worst(self, z: Array) -> Array:
        """(n, K) margins."""
        zero = jnp.zeros((len(z), self.hit.shape[1] - z.shape[1]), z.dtype)
        z = jnp.concatenate([zero, z] if self.first else [z, zero], axis=1)
        own = jnp.sum(jnp.where(self.hit, z, 0.0), axis=1, keepdims=True)
        return jnp.where(self.void, 0.0, own - z)

    def squares(self, u: Array) -> Array:
        """(p, p) the sum of u a aᵀ."""
        template = self.problem.template()
        num_rows = 1 if template.weights.ndim == 1 else template.weights.shape[0]
        hit = self.hit.astype(u.dtype)
        own = u + hit * jnp.sum(u, axis=1, keepdims=True)

        def block(j: int, k: int) -> Array:
            j, k = j + self.first, k + self.first
            return own[:, j] if j == k else -(hit[:, j] * u[:, k] + hit[:, k] * u[:, j])

        blocks = [block(j, k) for j in range(num_rows) for k in range(j, num_rows)]
        return self._assembled(jnp.stack(blocks), num_rows)

    def combined(self, r: Array) -> Array:
        """(p,) the sum of r a."""
        r = self.hit * jnp.sum(r, axis=1, keepdims=True) - r
        data = self.problem.data
        return pull_back(self.problem.template(), data.x, r, self.first) / self.scales


class CountRows(_Scaled):
    """Of each count, one row: minus its features."""

    def __init__(self, problem: Any, log_rate: Callable[..., Array]) -> None:
        super().__init__(problem)
        self.log_rate = log_rate
        self.fixed = self.alive & (problem.data.y > 0)[:, None]

    def margins(self, params: Any) -> Array:
        """(n, 1), infinite where there is no row."""
        z = self.log_rate(params, self.problem.data.x, None)[:, None]
        return jnp.where(self.alive, -z, jnp.inf)

    def behind(self, params: Any) -> Array:
        """(n, 1) by how much a rate is below the mean of all."""
        c, data = self.problem.example_weights(), self.problem.data
        z = self.log_rate(params, data.x, data.offset)
        most = jnp.max(jnp.where(c > 0, z, -jnp.inf))
        rates = jnp.where(c > 0, c * jnp.exp(z - most), 0.0)
        mean = most + jnp.log(jnp.sum(rates) / jnp.sum(c))
        return jnp.where(self.alive, mean - z[:, None], jnp.inf)

    def worst(self, z: Array) -> Array:
        """(n, 1) margins."""
        margins = jnp.where(self.fixed, -jnp.abs(z), -z)
        return jnp.where(self.alive, margins, 0.0)

    def squares(self, u: Array) -> Array:
        """(p, p) the sum of u a aᵀ."""
        return self._assembled(u.T, 1)

    def combined(self, r: Array) -> Array:
        """(p,) the sum of r a."""
        return -pull_back(self.problem.template(), self.problem.data.x, r, 0) / self.scales


def _direction(problem: Any, rows: Rows, step: Array, overlapped: Array) -> Array:
    """(p,) the scaled step without what moves overlapped rows, or moves others backwards."""
    size = jnp.broadcast_to(1 / rows.lengths[:, None] ** 2, overlapped.shape)
    u = jnp.where(overlapped, size, 0.0)
    values, vectors = eigh(rows.squares(u))
    eps = jnp.finfo(step.dtype).eps
    null = values <= 8 * len(values) * eps * jnp.max(values)
    inverse = jnp.where(null, 0.0, 1 / jnp.where(null, 1.0, values))

    def moved_by(v: Array) -> Array:
        return rows.margins(problem.unravel(v / rows.scales))

    def refined(_: Array, v: Array) -> Array:
        """Without what is left of the moves of overlapped rows."""
        excess = rows.combined(jnp.where(overlapped, size * moved_by(v), 0.0))
        return v - matmul(vectors, inverse * matmul(vectors.T, excess))

    def least(v: Array) -> Array:
        return jnp.min(jnp.where(overlapped, jnp.inf, moved_by(v)))

    def repaired(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """A Newton step of the sum of squares of what other margins lack."""
        v, _, count = carry
        lack = jnp.where(overlapped, 0.0, jnp.maximum(_LEAST_MOVE - moved_by(v), 0.0))
        squares = matmul(matmul(vectors.T, rows.squares(jnp.where(lack > 0, size, 0.0))), vectors)
        squares = jnp.where(null[:, None] & null[None, :], squares, 0.0)
        regular = jnp.where(null, _REGULAR * jnp.trace(squares), 1.0)
        wanted = jnp.where(null, matmul(vectors.T, rows.combined(size * lack)), 0.0)
        v = v + matmul(vectors, solve(squares + jnp.diag(regular), wanted))
        return v, least(v), count + 1

    v = matmul(vectors, jnp.where(null, matmul(vectors.T, step * rows.scales), 0.0))
    v = jax.lax.fori_loop(0, _REFINEMENTS, refined, v)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, worst, count = carry
        return (worst < 0) & (count < _REPAIRS) & jnp.any(null)

    start = v, least(v), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(unfinished, repaired, start)[0]


def _verified(problem: Any, rows: Rows, v: Array) -> Array:
    """Whether every margin of scaled parameters is ≥ 0 to rounding, and one is > 0."""
    params = problem.unravel(v / jnp.linalg.norm(v) / rows.scales)
    weights, x = jnp.atleast_2d(params.weights), problem.data.x
    z = jnp.stack([compensated_matvec(x, w) for w in weights], axis=1)
    z = z if params.bias is None else z + jnp.atleast_1d(params.bias)[None, :]
    m = rows.worst(z) / rows.lengths[:, None]
    eps = jnp.finfo(m.dtype).eps
    return (jnp.min(m) >= -_ROUNDING * eps) & (jnp.max(m) > jnp.sqrt(eps))


def separation(problem: Any, theta: Array, step: Array, *, family: Any) -> tuple[Array, Array]:
    """Whether a direction of separation is found, and the direction.

    Args:
        problem: a `jaxprob.solvers.Problem`.
        theta: (p,) where to look.
        step: (p,) the Newton step there.
        family: whose `rows` are to be separated.

    Returns:
        () bool; (p,) of length one, zeros where none is found.
    """
    rows: Rows = family.rows(problem)
    in_step = rows.margins(problem.unravel(step))
    in_fit = rows.behind(problem.unravel(theta))

    limits = jnp.asarray(_OVERLAP, theta.dtype)

    def attempt(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, count, _ = carry
        most_moved, most = limits[count]
        overlapped = rows.fixed | ((in_step < most_moved) & (in_fit < most))
        v = _direction(problem, rows, step, overlapped)
        return _verified(problem, rows, v), count + 1, v

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        found, count, _ = carry
        return ~found & (count < len(_OVERLAP))

    itself = theta * rows.scales
    start = _verified(problem, rows, itself), jnp.zeros((), jnp.int32), itself
    found, _, v = jax.lax.while_loop(unfinished, attempt, start)
    v = v / rows.scales
    return found, jnp.where(found, v / jnp.linalg.norm(v), 0.0)
