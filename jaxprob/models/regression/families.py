"""What the proofs ask of a model: means of y given its logits, and what rounding does to them.

See `jaxprob.models.regression.certificates` for p, e and the bounds, and
`jaxprob.models.regression.separation` for margins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Status
from jaxprob.models.regression.predictors import pull_back, spread
from jaxprob.models.regression.separation import CountRows, LabelRows, Rows
from jaxprob.numerics import categorical_log_prob, matvec, poisson_misfit, softmax
from jaxprob.numerics.products import matmul, vdot


class Family(Protocol):
    """An exponential family whose logits are linear in the parameters; hashable, by value."""

    variance: float
    """By how much the variance of what moves a logit by δ may exceed δ² times the mass below."""

    def means(self, problem: Any, theta: Array) -> Array:
        """(n, K) p."""
        ...

    def changes(self, problem: Any, p: Array, step: Array) -> Array:
        """(n, K) e, the relative changes of p along a step, to first order."""
        ...

    def moved(self, problem: Any, params: Any) -> Array:
        """(n,) how far parameters, as a step, move one logit of each example against another."""
        ...

    def pull_back(self, problem: Any, r: Array) -> Array:
        """(p,) Xᵀ r for (n, K)."""
        ...

    def misfit(self, problem: Any, theta: Array) -> Array:
        """() Σ_i c_i KL(y_i ‖ p_i)."""
        ...

    def masses(self, problem: Any, theta: Array, value: Array) -> tuple[Array, Array]:
        """() each: what Σ c |y - p|, and Σ c p of the classes that vary, are at most."""
        ...

    def roughness(self, problem: Any, theta: Array) -> Array:
        """(n,) the error of y - p, in units of the rounding of one number."""
        ...

    def largest_logit(self, problem: Any, params: Any, columns: Array) -> Array:
        """() what the terms of a logit add up to at most, given the largest features (d,)."""
        ...

    def hopeless(self, problem: Any) -> tuple[Array, Array]:
        """() int32 a Status, and (p,) a direction; see `Certificates.hopeless`."""
        ...

    def rows(self, problem: Any) -> Rows:
        """What a direction of separation has to meet."""
        ...


@dataclass(frozen=True)
class Labels:
    """One of K classes, whose logits are given but for a constant of each example."""

    logits: Callable[..., Array]
    """(params, x, offset) -> (n, K)."""
    first: int = 0
    """The column of the logits that belongs to the first row of the weights."""
    variance = 4.0

    def means(self, problem: Any, theta: Array) -> Array:
        """Probabilities."""
        return softmax(self._logits(problem, theta))

    def changes(self, problem: Any, p: Array, step: Array) -> Array:
        """Moves of logits less their mean."""
        moved = self.logits(problem.unravel(step), problem.data.x, None)
        return moved - jnp.sum(p * moved, axis=1, keepdims=True)

    def moved(self, problem: Any, params: Any) -> Array:
        """Between the highest and the lowest."""
        return spread(params, problem.data.x, problem.model.variables.num_classes)

    def pull_back(self, problem: Any, r: Array) -> Array:
        """Of the classes that have parameters."""
        return pull_back(problem.template(), problem.data.x, r, self.first)

    def misfit(self, problem: Any, theta: Array) -> Array:
        """The log-loss."""
        z = self._logits(problem, theta)
        return -jnp.sum(problem.example_weights() * categorical_log_prob(problem.data.y, z))

    def masses(self, problem: Any, theta: Array, value: Array) -> tuple[Array, Array]:
        """The objective: 1 - p_y ≤ -log p_y."""
        return value, value

    def roughness(self, problem: Any, theta: Array) -> Array:
        """Of the residual, which the rounding of logits changes by a factor."""
        p, params = self.means(problem, theta), problem.unravel(theta)
        hit = problem.data.y[:, None] == jnp.arange(p.shape[1])[None, :]
        residual = jnp.max(jnp.where(hit, 0.0, p), axis=1)  # 1 - p_y is K times it at most
        heaviest = jnp.max(jnp.atleast_2d(jnp.abs(params.weights)), axis=0)
        logit = jnp.sum(jnp.abs(problem.data.x) * heaviest[None, :], axis=1)
        return residual * (1 + logit)

    def largest_logit(self, problem: Any, params: Any, columns: Array) -> Array:
        """Of the heaviest class."""
        return vdot(columns, jnp.max(jnp.atleast_2d(jnp.abs(params.weights)), axis=0))

    def hopeless(self, problem: Any) -> tuple[Array, Array]:
        """CLASS_ABSENT where one that has an unpenalised bias has no example."""
        none = jnp.zeros(problem.num_params(), problem.data.x.dtype)
        if problem.template().bias is None:
            return jnp.int32(Status.MAX_STEPS), none
        classes = jnp.arange(problem.model.variables.num_classes)
        hit = (problem.data.y[:, None] == classes[None, :]).astype(problem.data.x.dtype)
        absent = jnp.any(matmul(problem.example_weights(), hit) == 0)  # what each class weighs
        status = jnp.where(absent, jnp.int32(Status.CLASS_ABSENT), jnp.int32(Status.MAX_STEPS))
        return status, none

    def rows(self, problem: Any) -> Rows:
        """Of each label against every other class."""
        return LabelRows(problem, self.logits, self.first)

    def _logits(self, problem: Any, theta: Array) -> Array:
        return self.logits(problem.unravel(theta), problem.data.x, problem.data.offset)


@dataclass(frozen=True)
class Rates:
    """Counts, given the logarithm of their rate."""

    log_rate: Callable[..., Array]
    """(params, x, offset) -> (n,)."""
    variance = 1.0

    def means(self, problem: Any, theta: Array) -> Array:
        """Rates, a column."""
        return jnp.exp(self._log_rate(problem, theta))[:, None]

    def changes(self, problem: Any, p: Array, step: Array) -> Array:
        """Moves of the logarithm."""
        return self.log_rate(problem.unravel(step), problem.data.x, None)[:, None]

    def moved(self, problem: Any, params: Any) -> Array:
        """The same, to either side."""
        return jnp.abs(self.log_rate(params, problem.data.x, None))

    def pull_back(self, problem: Any, r: Array) -> Array:
        """Of the only column."""
        return pull_back(problem.template(), problem.data.x, r, 0)

    def misfit(self, problem: Any, theta: Array) -> Array:
        """Half of the deviance."""
        each = poisson_misfit(problem.data.y, self._log_rate(problem, theta))
        c = problem.example_weights()
        return jnp.sum(jnp.where(c > 0, c * each, 0.0))

    def masses(self, problem: Any, theta: Array, value: Array) -> tuple[Array, Array]:
        """As they are."""
        rate, c = jnp.exp(self._log_rate(problem, theta)), problem.example_weights()
        residual = jnp.abs(problem.data.y - rate)
        some = jnp.where(c > 0, c * residual, 0.0)
        return jnp.sum(some), jnp.sum(jnp.where(c > 0, c * rate, 0.0))

    def roughness(self, problem: Any, theta: Array) -> Array:
        """Of the residual, and of the rate."""
        z, params, data = self._log_rate(problem, theta), problem.unravel(theta), problem.data
        rate = jnp.where(problem.example_weights() > 0, jnp.exp(z), 0.0)
        terms = matvec(jnp.abs(data.x), jnp.abs(params.weights)) + jnp.abs(z)
        terms = terms if params.bias is None else terms + jnp.abs(params.bias)
        terms = terms if data.offset is None else terms + jnp.abs(data.offset)
        return jnp.abs(data.y - rate) + rate * (1 + terms)

    def largest_logit(self, problem: Any, params: Any, columns: Array) -> Array:
        """With the bias and the largest offset; and one, for what rounding does to e^z."""
        most, offset = 1 + vdot(columns, jnp.abs(params.weights)), problem.data.offset
        most = most if params.bias is None else most + jnp.abs(params.bias)
        return most if offset is None else most + jnp.max(jnp.abs(offset), initial=0.0)

    def hopeless(self, problem: Any) -> tuple[Array, Array]:
        """SEPARATED along minus the bias, which nothing penalises, where all counts are zero."""
        template, c = problem.template(), problem.example_weights()
        none = template._replace(weights=jnp.zeros_like(problem.data.x[0]))
        if template.bias is None:
            return jnp.int32(Status.MAX_STEPS), ravel_pytree(none)[0]
        empty = ~jnp.any((c > 0) & (problem.data.y > 0)) & jnp.any(c > 0)
        direction = ravel_pytree(none._replace(bias=-empty.astype(c.dtype)))[0]
        return jnp.where(empty, jnp.int32(Status.SEPARATED), Status.MAX_STEPS), direction

    def rows(self, problem: Any) -> Rows:
        """Of each example."""
        return CountRows(problem, self.log_rate)

    def _log_rate(self, problem: Any, theta: Array) -> Array:
        return self.log_rate(problem.unravel(theta), problem.data.x, problem.data.offset)
