r"""Directions of separation, for models with linear logits: that there is no finite maximum.

Example i with label y and another class k make a margin a_ikᵀv = ż_iy - ż_ik of a direction v, ż
its logits without offsets. v separates the classes, completely or quasi-completely, if all margins
of examples of positive weight are ≥ 0 and one is > 0. Then the likelihood rises for ever along v.

Under a Newton step δ separated rows move by 1 or more, while overlapped ones stay. So v is looked
for as δ projected on the directions along which the rows that do not move have margin zero; among
these it is mended by least squares where another row would move backwards. θ itself is tried too.
What is found is verified in compensated arithmetic.

Source: Albert and Anderson, On the existence of maximum likelihood estimates in logistic regression
models, Biometrika 71, 1984.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class _Rows(NamedTuple):
    """The rows a_ik, (n, K) of them, divided by `scales` so that no feature exceeds 1."""

    problem: Any
    logits: Callable[..., Array]
    first: int
    hit: Array  # (n, K) whether k is the label
    void: Array  # (n, K) whether there is no such row: for the label, and without weight
    scales: Array  # (p,)
    lengths: Array  # (n,)

    def margins(self, params: Any, offset: Array | None = None) -> Array:
        """(n, K), infinite where there is no row."""
        z = self.logits(params, self.problem.data.x, offset)
        own = jnp.sum(jnp.where(self.hit, z, 0.0), axis=1, keepdims=True)
        return jnp.where(self.void, jnp.inf, own - z)

    def moved_by(self, v: Array) -> Array:
        """(n, K) the margins of scaled parameters (p,)."""
        return self.margins(self.problem.unravel(v / self.scales))

    def squares(self, u: Array) -> Array:
        """(p, p) the sum of u a aᵀ."""
        template = self.problem.template()
        num_rows = 1 if template.weights.ndim == 1 else template.weights.shape[0]
        hit = self.hit.astype(u.dtype)
        own = u + hit * jnp.sum(u, axis=1, keepdims=True)

        def block(j: int, k: int) -> Array:
            j, k = j + self.first, k + self.first
            return own[:, j] if j == k else -(hit[:, j] * u[:, k] + hit[:, k] * u[:, j])

        blocks = jnp.stack([block(j, k) for j in range(num_rows) for k in range(j, num_rows)])
        x, bias = self.problem.data.x, template.bias is not None
        outer = self.scales[:, None] * self.scales[None, :]
        return assemble(x, blocks, num_rows, bias=bias) / outer

    def combined(self, r: Array) -> Array:
        """(p,) the sum of r a."""
        r = self.hit * jnp.sum(r, axis=1, keepdims=True) - r
        data = self.problem.data
        return pull_back(self.problem.template(), data.x, r, self.first) / self.scales


def _rows(problem: Any, logits: Callable[..., Array], first: int) -> _Rows:
    data, template = problem.data, problem.template()
    dtype, bias = data.x.dtype, template.bias is not None
    hit = data.y[:, None] == jnp.arange(problem.model.variables.num_classes)[None, :]
    alive = (problem.example_weights() > 0)[:, None]
    column = jnp.max(jnp.where(alive, jnp.abs(data.x), 0.0), axis=0)
    column = jnp.where(column > 0, column, 1.0)
    scales, _ = ravel_pytree(
        template._replace(
            weights=jnp.broadcast_to(column, template.weights.shape),
            bias=jnp.ones(template.bias.shape, dtype) if bias else None,
        )
    )
    lengths = jnp.sqrt(jnp.sum((data.x / column[None, :]) ** 2, axis=1) + bias)
    lengths = jnp.where(lengths > 0, lengths, 1.0)
    return _Rows(problem, logits, first, hit, hit | ~alive, scales, lengths)


def _direction(rows: _Rows, step: Array, overlapped: Array) -> Array:
    """(p,) the scaled step without what moves overlapped rows, or moves others backwards."""
    size = jnp.broadcast_to(1 / rows.lengths[:, None] ** 2, overlapped.shape)
    u = jnp.where(overlapped, size, 0.0)
    values, vectors = eigh(rows.squares(u))
    eps = jnp.finfo(step.dtype).eps
    null = values <= 8 * len(values) * eps * jnp.max(values)
    inverse = jnp.where(null, 0.0, 1 / jnp.where(null, 1.0, values))

    def refined(_: Array, v: Array) -> Array:
        """Without what is left of the moves of overlapped rows."""
        excess = rows.combined(jnp.where(overlapped, size * rows.moved_by(v), 0.0))
        return v - matmul(vectors, inverse * matmul(vectors.T, excess))

    def least(v: Array) -> Array:
        return jnp.min(jnp.where(overlapped, jnp.inf, rows.moved_by(v)))

    def repaired(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """A Newton step of the sum of squares of what other margins lack."""
        v, _, count = carry
        lack = jnp.where(overlapped, 0.0, jnp.maximum(_LEAST_MOVE - rows.moved_by(v), 0.0))
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


def _verified(rows: _Rows, v: Array) -> Array:
    """Whether every margin of scaled parameters is ≥ 0 to rounding, and one is > 0."""
    params = rows.problem.unravel(v / jnp.linalg.norm(v) / rows.scales)
    weights, x = jnp.atleast_2d(params.weights), rows.problem.data.x
    z = jnp.stack([compensated_matvec(x, w) for w in weights], axis=1)
    z = z if params.bias is None else z + jnp.atleast_1d(params.bias)[None, :]
    zero = jnp.zeros((len(z), rows.hit.shape[1] - len(weights)), z.dtype)
    z = jnp.concatenate([zero, z] if rows.first else [z, zero], axis=1)
    own = jnp.sum(jnp.where(rows.hit, z, 0.0), axis=1, keepdims=True)
    m = jnp.where(rows.void, 0.0, (own - z) / rows.lengths[:, None])
    eps = jnp.finfo(m.dtype).eps
    return (jnp.min(m) >= -_ROUNDING * eps) & (jnp.max(m) > jnp.sqrt(eps))


def separation(
    problem: Any,
    theta: Array,
    step: Array,
    *,
    logits: Callable[..., Array],
    first: int,
) -> tuple[Array, Array]:
    """Whether a direction of separation is found, and the direction.

    Args:
        problem: a `jaxprob.solvers.Problem`.
        theta: (p,) where to look.
        step: (p,) the Newton step there.
        logits: (params, x, offset) -> (n, K).
        first: the column of the logits that belongs to the first row of the weights.

    Returns:
        () bool; (p,) of length one, zeros where none is found.
    """
    rows = _rows(problem, logits, first)
    in_step = rows.margins(problem.unravel(step))
    in_fit = rows.margins(problem.unravel(theta), problem.data.offset)

    limits = jnp.asarray(_OVERLAP, theta.dtype)

    def attempt(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, count, _ = carry
        most_moved, most = limits[count]
        v = _direction(rows, step, (in_step < most_moved) & (in_fit < most))
        return _verified(rows, v), count + 1, v

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        found, count, _ = carry
        return ~found & (count < len(_OVERLAP))

    itself = theta * rows.scales
    start = _verified(rows, itself), jnp.zeros((), jnp.int32), itself
    found, _, v = jax.lax.while_loop(unfinished, attempt, start)
    v = v / rows.scales
    return found, jnp.where(found, v / jnp.linalg.norm(v), 0.0)
