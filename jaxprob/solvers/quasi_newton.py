"""Quasi-Newton steps from a metric: the Hessian of some point, corrected by what moves find out.

Source: Nocedal and Wright, Numerical Optimization, 2nd edition, 2006, chapter 7; Schnabel,
Quasi-Newton methods using multiple secant equations, University of Colorado, 1983.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.linalg import Factor, Inverse
from jaxprob.numerics.products import matmul, vdot
from jaxprob.solvers.linesearch import Move, Objective, all_finite, backtrack

_LEAST_LEFT = 1e-2  # of the curvature of a move, after what the older ones know of it


class Pairs(NamedTuple):
    """Moves s and changes y of the gradient, conjugate: sᵢᵀyⱼ = δᵢⱼ; newest last, zeros before."""

    moves: Array  # (memory, p)
    changes: Array  # (memory, p)
    solved: Array  # (memory, p), M⁻¹ y

    def inverse(self, v: Array, solved: Array) -> Array:
        """The inverse Hessian that the metric and all pairs make, times v, given M⁻¹ v.

        With S the moves and Y = H S the changes it is the block BFGS update

            S Sᵀ + (I - S Yᵀ) M⁻¹ (I - Y Sᵀ),

        which minimises exactly over the span of S, as conjugate gradients do; the usual recursion
        meets only the newest pair exactly, and takes half as many steps again.
        """
        along = matmul(self.moves, v)
        rest = solved - matmul(along, self.solved)
        return rest + matmul(along - matmul(self.changes, rest), self.moves)

    def updated(self, move: Array, change: Array, solved: Array, good: Array) -> "Pairs":
        """With one more pair and M⁻¹ times its change, if it is good and has curvature.

        All older pairs are dropped where it adds nothing to them but rounding.
        """
        newest = jnp.stack([move, change, solved])
        # Equal under one Hessian:
        ahead, back = matmul(self.changes, move), matmul(self.moves, change)
        known = jnp.stack(
            [matmul(ahead, self.moves), matmul(back, self.changes), matmul(back, self.solved)]
        )
        conjugate = newest - known
        curvature, left = vdot(move, change), vdot(conjugate[0], conjugate[1])
        adds = left > _LEAST_LEFT * curvature
        newest = jnp.where(adds, conjugate, newest)
        curvature = jnp.where(adds, left, curvature)
        usable = good & (curvature > 0)
        newest = newest / jnp.sqrt(jnp.where(usable, curvature, 1.0))
        old = jnp.stack(self)
        live = jnp.where(adds, old[:, 1:], 0.0)
        return Pairs(*jnp.where(usable, jnp.concatenate([live, newest[:, None]], axis=1), old))


def no_pairs(memory: int, theta: Array) -> Pairs:
    """None yet, of so many at most."""
    return Pairs(*jnp.zeros((3, memory, len(theta)), theta.dtype))


class At(NamedTuple):
    """Where a run is: a point, M⁻¹ g there, the pairs, and what the last step promised."""

    move: Move
    solved: Array  # (p,)
    pairs: Pairs
    promise: Array  # (), the slope along the step, negated; infinite before the first


def unknown(theta: Array, memory: int) -> At:
    """At a point of which nothing is known."""
    zero, infinite = jnp.zeros_like(theta), jnp.asarray(jnp.inf, theta.dtype)
    move = Move(theta, infinite, zero, jnp.ones((), bool), infinite)
    return At(move, zero, no_pairs(memory, theta), infinite)


def step(objective: Objective, factor: Factor | Inverse, at: At, wanted: Array | bool = True) -> At:
    """One step, if it is wanted. From an unknown value, which is infinite, it only looks."""
    old = at.move
    direction = -at.pairs.inverse(old.grad, at.solved)
    direction = jnp.where(all_finite(direction), direction, -old.grad)  # M may have underflown
    slope = vdot(old.grad, direction)
    new = backtrack(objective, old.theta, old.value, old.grad, direction, slope, wanted=wanted)
    solved = factor.solve(new.grad)
    known = jnp.isfinite(old.value)
    pairs = at.pairs.updated(
        new.theta - old.theta, new.grad - old.grad, solved - at.solved, new.accepted & known
    )
    return At(new, solved, pairs, jnp.where(known, -slope, jnp.inf))
