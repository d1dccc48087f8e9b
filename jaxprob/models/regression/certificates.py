r"""Proofs for models with linear logits: how far the optimum is, or that there is none.

Logits are z_i = offset_i + (w_kᵀx_i + b_k)_k, K of them, of which a reference class has none of its
own. p_i are the fitted probabilities of example i, c_i its weight. The objective is
f = -Σ_i c_i log p_i(y_i) + l2/2 ‖w‖², with gradient g and Hessian H.

**A bound on f - f*.** Let δ be a step with H δ = -g, ż_i its logits at x_i,
e_ik = ż_ik - Σ_j p_ij ż_ij, and q = p (1 + e). The rows of q sum to one, and q meets the conditions
of an optimum: ρ = g + Xᵀ(c p e) is zero for unpenalised parameters and -l2 δ for the others. So q
is feasible for the Fenchel dual of the problem whenever all e ≥ -1, and the duality gap there is

    f - f* ≤ Σ_i c_i KL(q_i ‖ p_i) + ‖ρ‖² / (2 l2)                        (over penalised ρ)

Counts with rates μ_i = e^(z_i) are no different: with μ for p and e_i = ż_i, nothing has to sum to
one, and KL(q ‖ μ) = q log(q/μ) - q + μ = μ ((1 + e) log(1 + e) - e), as for each class. What is
said below of p, e and KL holds of them, too; `jaxprob.models.regression.families` has what differs.

With every e > -1 and no penalty this also proves that a finite maximum exists: q is then a strictly
positive solution of Aᵀα = 0 (Stiemke's alternative to separation).

**A cheaper bound.** KL(q‖p) ≤ 0.614 Σ p e² where |e| ≤ 1/2, so the bound is at most 0.614 δᵀHδ =
0.614 gᵀH⁻¹g, and any L ⪯ H gives gᵀL⁻¹g in place of it: the Hessian of some of the rows, at another
point, times e^(-ρ) where no logit of those rows moved by more than ρ (p_k/p_k' ≤ e^ρ). And
|e_ik| ≤ √(δᵀHδ / (c_i p_ik)).

**What rounding hides.** These bounds are computed from logits z + ε, with errors ε of about
u √d Σ_j |x_ij w_j|, u the rounding of one number; so what has the gradient g is off by
δg = Xᵀ (c p ε) and by the rounding e of sums over examples. The distance to the optimum is then
at most (√gap + √η)² with, to first order,

    η = ½ δgᵀ H⁻¹ δg + ½ eᵀ H⁻¹ e,        δgᵀ H⁻¹ δg ≤ Σ_i c_i Var_p(ε_i)

The last because δg is a combination of the columns of √(c p) X, of which H is the Gram matrix: how
badly these are conditioned does not matter. And Var_p(ε) ≤ (2 max |ε|)² (1 - p_y); of a rate, which
is off by a factor e^ε, μ ε² is in its place. Of the computed
curvature only what rounding leaves is relied on, see `jaxprob.numerics.linalg.Factor.beyond`.

How a direction of separation is found is in `jaxprob.models.regression.separation`.

Source: Boyd and Vandenberghe, Convex Optimization, 2004, section 5.5; Higham and Mary, A new
approach to probabilistic rounding error analysis, SIAM Journal on Scientific Computing 41, 2019
(errors of inner products grow as √d).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.contract import Bind, Certificates, Point
from jaxprob.models.regression.families import Family
from jaxprob.models.regression.separation import separation
from jaxprob.numerics.control import only_if
from jaxprob.numerics.linalg import Factor, Inverse
from jaxprob.numerics.products import matmul, vdot

KL_HALF = 0.6137056388801095  # ((1 + e) log(1 + e) - e) / e² at e = -1/2, its most on |e| <= 1/2
_LEAST_E = -0.5
_MOST_NOISE = 0.125
_PROBES = 4  # of what rounding may do


def certificates_of(family: Family) -> Certificates:
    """The certificates of a model.

    Args:
        family: what y is, given its logits.
    """
    return Certificates(
        bound=Bind(bound, family=family),
        chord_bound=Bind(chord_bound, family=family),
        separation=Bind(separation, family=family),
        hopeless=Bind(hopeless, family=family),
        logit_range=Bind(logit_range, family=family),
        least_mass=Bind(least_mass, family=family),
        noise=Bind(noise_of, family=family),
        shift_cost=Bind(shift_cost, family=family),
    )


def bound(
    problem: Any,
    at: Point,
    step: Array,
    factor: Factor | Inverse,
    *,
    family: Family,
) -> tuple[Array, Array]:
    """A bound on the distance to the optimum, infinite where none is proved to exist.

    What can be had without another look at each probability is tried first.

    Args:
        problem: a `jaxprob.solvers.Problem`.
        at: where to look.
        step: (p,) the Newton step there; with l1, the proximal one.
        factor: of the Hessian there.
        family: what y is, given its logits.

    Returns:
        The bound and what rounding can hide, () nats each, which `together` puts together.
    """

    def exact(theta: Array, step: Array) -> Array:
        return duality_gap(problem, theta, at.grad, step, family=family)

    if problem.l1 is not None:
        gap = exact(at.theta, step)
    else:
        moved = _farthest(problem, step, family)
        gap = _near_gap(problem, at, step, moved)
        if at.wanted is not False:
            gap = only_if(at.wanted & ~(moved <= -_LEAST_E), exact, gap, at.theta, step)
    reach, noise = _hidden(problem, at.theta, at.value, factor, family)
    if problem.penalised:
        return gap, noise

    def closer(theta: Array) -> Array:
        sizes = _rounding(problem, theta, family)
        return jnp.max(jax.vmap(lambda v: _farthest(problem, v, family))(_probes(factor, sizes)))

    if at.wanted is not False:
        hidden = at.wanted & jnp.isfinite(gap) & ~(reach < _MOST_NOISE)
        reach = only_if(hidden, closer, reach, at.theta)  # see `_rounding`
    return jnp.where((reach < _MOST_NOISE) | problem.shrunk(), gap, jnp.inf), noise


def chord_bound(
    problem: Any,
    theta: Array,
    value: Array,
    grad: Array,
    moved: Array,
    factor: Factor | Inverse,
    apart: Array,
    *,
    family: Family,
) -> Array:
    """A bound on the distance to the optimum from the Hessian at an earlier point.

    With ρ the furthest that a logit has moved since, e^(-ρ) H₀ ⪯ H, where H₀ is the Hessian there
    or, with ρ as much larger, e^`apart` times it at most. So the Newton step δ, which is
    not computed, has δᵀHδ = gᵀH⁻¹g ≤ e^ρ gᵀH₀⁻¹g, and moves no logit further than
    √(aᵀH⁻¹a) √(gᵀH⁻¹g) ≤ e^ρ √(aᵀH₀⁻¹a) √(gᵀH₀⁻¹g), a being the row of features that makes it.

    Args:
        problem: a `jaxprob.solvers.Problem` without l1.
        theta: (p,) where to look.
        value: () the objective there.
        grad: (p,) its gradient there.
        moved: (p,) theta less the point of the Hessian.
        factor: of that Hessian.
        apart: ().
        family: what y is, given its logits.

    Returns:
        (), nats; infinite where this proves nothing.
    """
    growth = factor.beyond(jnp.exp(_farthest(problem, moved, family) + apart))
    squares = vdot(grad, factor.solve(grad))
    columns = jnp.max(jnp.abs(problem.data.x), axis=0)
    most = _of_columns(problem.unravel(theta), columns, jnp.ones((), theta.dtype))
    lengths = jnp.sqrt(jnp.sum((most / factor.scale) ** 2) * factor.largest())
    spread = growth * lengths * jnp.sqrt(jnp.maximum(squares, 0.0))
    sound = (spread <= -_LEAST_E) & factor.untouched() & ~factor.singular()
    reach, noise = _hidden(problem, theta, value, factor, family)
    if not problem.penalised:
        sound &= (growth * reach < _MOST_NOISE) | problem.shrunk()
    gap = together(_kappa(spread) * growth * squares, growth * noise)
    return jnp.where(sound, gap, jnp.inf)


def noise_of(
    problem: Any, theta: Array, value: Array, factor: Factor | Inverse, *, family: Family
) -> Array:
    """What rounding can hide: η of the module's docstring.

    Args:
        problem: a `jaxprob.solvers.Problem`.
        theta: (p,) where to look.
        value: () the objective there.
        factor: of a Hessian near there.
        family: what y is, given its logits.

    Returns:
        (), nats.
    """
    return _hidden(problem, theta, value, factor, family)[1]


def together(gap: Array, noise: Array) -> Array:
    """A bound on the distance to the optimum that holds in spite of rounding.

    Args:
        gap: () nats, as computed.
        noise: () nats, what rounding can hide.

    Returns:
        (√gap + √noise)², () nats: both are squares of lengths in one metric.
    """
    return (jnp.sqrt(gap) + jnp.sqrt(noise)) ** 2


def _kappa(spread: Array) -> Array:
    """The most that KL(q‖p) / Σ p e² can be where all |e| are at most so much, and that 1/2.

    It is ((1-r) log(1-r) + r) / r², a convex function of r that is 1/2 at 0 and 0.614 at 1/2.
    """
    return 1 / 2 + (2 * KL_HALF - 1) * spread


def _probes(factor: Factor | Inverse, sizes: Array) -> Array:
    """(_PROBES, p) what rounding errors of such sizes become in H⁻¹ g, with random signs."""
    return jax.vmap(factor.solve)(_signs(sizes))


def _signs(sizes: Array) -> Array:
    """(_PROBES, p) numbers of such sizes, with random signs."""
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (_PROBES, len(sizes)))
    return jnp.asarray(signs, sizes.dtype) * sizes[None, :]


def _hidden(
    problem: Any, theta: Array, value: Array, factor: Factor | Inverse, family: Family
) -> tuple[Array, Array]:
    """How far rounding, pushed through H⁻¹, could move a logit, and what it can hide (nats).

    Both are upper bounds, for which the largest features are enough.
    """
    params, eps = problem.unravel(theta), jnp.finfo(theta.dtype).eps
    columns = jnp.max(jnp.abs(problem.data.x), axis=0)
    logit = family.largest_logit(problem, params, columns)
    of_residuals, of_means = family.masses(problem, theta, value)
    sums = _of_columns(params, 4 * eps * columns, jnp.asarray(4 * eps, theta.dtype))
    pushed = _probes(factor, sums)
    reach = (1 + logit) * jnp.max(jax.vmap(partial(_most_spread, problem))(pushed))
    reach = jnp.maximum(of_residuals, of_means) * reach
    of_sums = of_residuals**2 * jnp.max(jax.vmap(vdot)(pushed, _signs(sums)))
    of_logits = 4 * of_means * (eps * len(columns) ** 0.5 * logit) ** 2
    if problem.l1 is not None:  # see `_sparse_gap`, which knows of the rounding of sums
        of_sums = jnp.zeros_like(of_logits)
    return reach, (jnp.maximum(of_sums, 0.0) + of_logits) / 2


def _farthest(problem: Any, step: Array, family: Family) -> Array:
    """The furthest that a step moves a logit of an example of positive weight against another."""
    moved = family.moved(problem, problem.unravel(step))
    return jnp.max(jnp.where(problem.example_weights() > 0, moved, 0.0), initial=0.0)


def _near_gap(problem: Any, at: Point, step: Array, moved: Array) -> Array:
    """The bound of the module's docstring where no logit moves by more than 1/2.

    All |e| are then at most `moved`, so KL(q‖p) ≤ κ Σ p e², and Σ c p e² = δᵀHδ without l2.
    """
    l2 = jnp.zeros((), step.dtype) if problem.l2 is None else problem.l2
    is_penalised = problem.mask()
    # By the likelihood alone:
    pushed = matmul(at.hess, step) - jnp.where(is_penalised, l2 * step, 0.0)
    rest = at.grad + pushed  # ρ
    kl = _kappa(moved) * jnp.maximum(vdot(step, pushed), 0.0)
    return jnp.where(moved <= -_LEAST_E, kl + _unmet(problem, step, rest), jnp.inf)


def _unmet(problem: Any, step: Array, rest: Array) -> Array:
    """What ρ adds to the bound: with l2 its square, else what rounding has left of it.

    The latter is multiplied by how far the optimum still is.
    """
    if problem.l2 is None:
        return 2 * jnp.sum(jnp.abs(rest) * jnp.abs(step))
    is_penalised, some = problem.mask(), problem.l2 > 0
    squares = jnp.sum(jnp.where(is_penalised, rest**2, 0.0))
    penalty = jnp.where(some, squares / jnp.where(some, 2 * problem.l2, 1.0), 0.0)
    unmet = jnp.abs(jnp.where(is_penalised & some, 0.0, rest))
    return penalty + 2 * jnp.sum(unmet * jnp.abs(step))


def hopeless(problem: Any, *, family: Family) -> tuple[Array, Array]:
    """Why the examples alone leave no finite maximum, with any penalty on the weights.

    Args:
        problem: a `jaxprob.solvers.Problem`.
        family: what y is, given its logits.

    Returns:
        () int32, a Status, MAX_STEPS where nothing is known; (p,) a direction, or zeros.
    """
    return family.hopeless(problem)


def duality_gap(problem: Any, theta: Array, grad: Array, step: Array, *, family: Family) -> Array:
    """The bound on f - f* of the module's docstring; infinite unless every e is above -1/2."""
    c = problem.example_weights()
    p = family.means(problem, theta)
    e = family.changes(problem, p, step)
    positive = c[:, None] * p > 0
    least = jnp.min(jnp.where(positive, e, 0.0))
    kl = jnp.sum(jnp.where(positive, c[:, None] * p * _kl(e), 0.0))
    rest = grad + family.pull_back(problem, c[:, None] * p * e)  # ρ
    if problem.l1 is None:
        gap = kl + _unmet(problem, step, rest)
    else:
        rounding = _rounding(problem, theta, family)
        loss = family.misfit(problem, theta)
        sparse = _sparse_gap(problem, theta, rest, step, kl, loss, rounding)
        gap = jnp.where(problem.l1 > 0, sparse, kl + _unmet(problem, step, rest))
    return jnp.where(least > _LEAST_E, gap, jnp.inf)


def _sparse_gap(
    problem: Any,
    theta: Array,
    rest: Array,
    step: Array,
    kl: Array,
    loss: Array,
    rounding: Array,
) -> Array:
    """The bound with an l1 penalty, Ω(w) = l2/2 ‖w‖² + l1 ‖w‖₁.

    It is Σ c KL(q‖p) + Ω(w) + Ω*(R) - wᵀR with R = Xᵀ c (onehot - q) = l2 w - ρ. With s the part of
    R within ±l1, and u = (R - s) / l2 where Ω* is attained, the last three terms are
    l2/2 ‖w - u‖² + l1 ‖w‖₁ - wᵀs, of which none is negative. Another R' in place of R adds
    (w* - w)ᵀ(R - R') to the bound: so what rounding alone may have done to R costs as much as for
    the other conditions. Without l2, Ω* is infinite where |R_j| > l1: q is then mixed with onehot
    until R fits, which by convexity of KL costs at most that share of the loss.
    """
    l2 = jnp.zeros((), theta.dtype) if problem.l2 is None else problem.l2
    is_penalised = problem.mask()
    w = jnp.where(is_penalised, theta, 0.0)
    r = jnp.where(is_penalised, l2 * theta - rest, 0.0)
    nearest = jnp.where(w == 0, jnp.clip(r, -problem.l1, problem.l1), problem.l1 * jnp.sign(w))
    over = jnp.clip(r - (l2 * w + nearest), -rounding, rounding)
    r = r - over
    largest = jnp.max(jnp.abs(r), initial=jnp.finfo(r.dtype).tiny)
    share = jnp.where(l2 > 0, 1.0, jnp.minimum(1.0, problem.l1 / largest))
    s = jnp.clip(share * r, -problem.l1, problem.l1)
    u = jnp.where(l2 > 0, (r - s) / jnp.where(l2 > 0, l2, 1.0), w)
    terms = l2 / 2 * (w - u) ** 2 + jnp.abs(w) * (problem.l1 - jnp.sign(w) * s)
    unmet = jnp.abs(jnp.where(is_penalised, over, rest))
    return share * kl + (1 - share) * loss + jnp.sum(terms) + 2 * jnp.sum(unmet * jnp.abs(step))


def _rounding(problem: Any, theta: Array, family: Family) -> Array:
    """(p,) what rounding may have done to the gradient.

    Where that, pushed through H⁻¹, moves a logit far, it may hide a direction along which the
    objective still falls.
    """
    x, eps = problem.data.x, jnp.finfo(theta.dtype).eps
    params = problem.unravel(theta)
    size = 4 * eps * problem.example_weights() * family.roughness(problem, theta)
    return _of_columns(params, jnp.sum(jnp.abs(x) * size[:, None], axis=0), jnp.sum(size))


def _most_spread(problem: Any, step: Array) -> Array:
    """An upper bound of `_farthest`, from the largest features."""
    params, columns = problem.unravel(step), jnp.max(jnp.abs(problem.data.x), axis=0)
    reach = jnp.sum(jnp.atleast_2d(jnp.abs(params.weights)) * columns[None, :], axis=1)
    reach = reach if params.bias is None else reach + jnp.atleast_1d(jnp.abs(params.bias))
    return jnp.max(reach) * (1 if params.weights.ndim == 1 else 2)


def _of_columns(params: Any, columns: Array, bias: Array) -> Array:
    """(p,) an entry of each feature, and one of all biases, as parameters."""
    return ravel_pytree(
        params._replace(
            weights=jnp.broadcast_to(columns, params.weights.shape),
            bias=None if params.bias is None else jnp.broadcast_to(bias, params.bias.shape),
        )
    )[0]


def _kl(e: Array) -> Array:
    """(1 + e) log(1 + e) - e, with a series near 0 where the terms cancel."""
    small = jnp.abs(e) < 0.01
    near = jnp.where(small, e, 0.0)
    series = near**2 * (
        1 / 2 - near * (1 / 6 - near * (1 / 12 - near * (1 / 20 - near * (1 / 30 - near / 42))))
    )
    far = jnp.where(small | (e <= -1), 1.0, e)
    return jnp.where(small, series, (1 + far) * jnp.log1p(far) - far)


def logit_range(step: Array, problem: Any, *, family: Family) -> Array:
    """The furthest that a step moves one logit of an example against another: ρ above."""
    return _farthest(problem, step, family)


def least_mass(theta: Array, problem: Any, *, family: Family) -> Array:
    """The smallest c_i p_ik over examples of positive weight."""
    c, p = problem.example_weights(), family.means(problem, theta)
    return jnp.min(jnp.where(c > 0, c * jnp.min(p, axis=1), jnp.inf))


def shift_cost(problem: Any, theta: Array, value: Array, size: Array, *, family: Family) -> Array:
    """What it costs at most to move all logits by so much, where the slope is zero.

    With a mass m of means that is m (e^δ - 1 - δ): half of δ² e^δ at most.
    """
    mass = family.masses(problem, theta, value)[1]
    return family.variance * mass * size**2 / 2 * jnp.exp(size)
