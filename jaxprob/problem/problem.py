"""The problem that a solver sees: an objective of a flat vector, its derivatives, and its rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from jaxprob.contract import Certificates, Expectation, Formula, Model, Search, Trait
from jaxprob.numerics.products import vdot
from jaxprob.problem.jeffreys import half_log_det
from jaxprob.problem.rows import Known as Known
from jaxprob.problem.rows import Rows as Rows
from jaxprob.problem.rows import Shards as Shards
from jaxprob.problem.rows import block_bytes as block_bytes
from jaxprob.problem.rows import take
from jaxprob.runtime.programs import kept_in

_MOST_CURVED = 512  # parameters of a model whose information is not derived by hand


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "l2", "l1", "prior_share", "centre", "hyperparameters", "key"],
    meta_fields=["model", "penalised", "shards", "block_bytes", "firth"],
)
@dataclass(frozen=True)
class Problem:
    """Minimise -Σ_i c_i log p_i + l2/2 ‖w‖² + l1 ‖w‖₁ over the raveled parameters.

    Where the model has a prior, its logarithm is added to the log-likelihood.
    With `firth`, half the log-determinant of the information is added to the log-likelihood.
    The penalties act on the parameters that the model calls penalised. All methods but
    `penalty` leave the l1 term, which has no derivative, to the solver.
    """

    data: Rows
    l2: Array | None
    l1: Array | None
    model: Model
    penalised: bool
    """Whether l2 or l1 is known to be positive when the program is built."""
    shards: Shards | None
    block_bytes: int | None = None
    """In what blocks to read the rows, see `jaxprob.numerics.fused_pass`."""
    firth: bool = False
    prior_share: Array | None = None
    """Of the log-prior, that counts where the rows are some of all; all of it where None."""
    centre: Array | None = None
    """(d,) what has been subtracted from the features: vectors theta are of what is left."""
    hyperparameters: tuple | None = None
    """What the model's prior takes from all rows; from those that are here where None."""
    key: Array | None = None
    """(2,) uint32, or as the default generator has it: the data of the key for where to start."""

    @property
    def offers(self) -> Trait:
        """What a solver can ask of it."""
        traits = self.model.offers
        if self.firth:
            traits &= ~(Trait.FORMULA | Trait.EXPECTATION | Trait.PROVED)
        if self.l2 is not None or self.l1 is not None:
            traits &= ~Trait.FORMULA
        by_hand = self.model.objective.information is not None
        affordable = by_hand or self.num_params() <= _MOST_CURVED
        smooth = Trait.SMOOTH in traits
        return traits | Trait.CURVED if affordable and smooth else traits

    @property
    def certificates(self) -> Certificates | None:
        """What can be proved about an optimum: Firth's penalty is not concave."""
        return None if self.firth else self.model.certificates

    def prepared(self) -> "Problem":
        """The problem with what its prior takes from the rows computed once, before a loop."""
        if self.hyperparameters is not None:
            return self
        data = self.data
        found = self.model.hyperparameters(*data.examples, weights=data.weights)
        return replace(self, hyperparameters=found)

    def start(self) -> Array:
        """(p,) where the model starts."""
        start = _init(self.model, self.key, self.data)
        return ravel_pytree(start)[0].astype(self.data.x.dtype)

    def start_for(self, solver: Any) -> Array:
        """(p,) where the model starts, zeros for a solver to which it does not matter."""
        if solver.takes_start:
            return self.start()
        return jnp.zeros(self.num_params(), self.data.x.dtype)

    def template(self) -> Any:
        """The parameters' shapes and dtypes."""
        arguments = jax.tree.map(_shape_of, (self.key, self.data))
        return _template(self.model, *arguments)

    def unravel(self, theta: Array) -> Any:
        """The parameters that a vector (p,) stands for, in the order of `ravel_pytree`."""
        leaves, tree = jax.tree.flatten(self.template())
        parts, start = [], 0
        for leaf in leaves:
            part = theta[start : start + leaf.size].reshape(leaf.shape)
            is_whole = jnp.issubdtype(leaf.dtype, jnp.integer)
            parts.append(part.astype(leaf.dtype) if is_whole else part)
            start += leaf.size
        return jax.tree.unflatten(tree, parts)

    def reported(self, theta: Array) -> Any:
        """The parameters of the features as they were given."""
        params = self.unravel(theta)
        if self.centre is None:
            return params
        assert self.model.geometry.recentred is not None  # else nothing is subtracted
        return self.model.geometry.recentred(params, -self.centre)

    def centred(self, params: Any) -> Array:
        """The vector (p,) that stands for parameters of the features as they were given."""
        if self.centre is not None:
            assert self.model.geometry.recentred is not None
            params = self.model.geometry.recentred(params, self.centre)
        return ravel_pytree(params)[0].astype(self.data.x.dtype)

    @property
    def can_recentre(self) -> bool:
        """Whether a shift of its features only reparametrises it."""
        return self.model.geometry.recentred is not None

    def back(self) -> Array | None:
        """The matrix (p, p) of `reported`, None where nothing has been subtracted."""
        if self.centre is None:
            return None
        eye = jnp.eye(self.num_params(), dtype=self.data.x.dtype)
        return jax.vmap(lambda unit: ravel_pytree(self.reported(unit))[0], out_axes=1)(eye)

    def num_params(self) -> int:
        """The length p of the vector."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.template()))

    def mask(self) -> Array:
        """(p,) bool: the penalised entries."""
        penalised = self.model.geometry.penalised
        if penalised is None:
            return jnp.zeros(self.num_params(), bool)
        return ravel_pytree(penalised(self.template()))[0]

    def example_weights(self) -> Array:
        """(n,) the weights c_i, ones where none were given."""
        x, weights = self.data.x, self.data.weights
        return jnp.ones(x.shape[0], x.dtype) if weights is None else weights

    def unit(self) -> Array | float:
        """() how much of an example the weights are on average, one at most; zeros do not count.

        What a tolerance is multiplied by, so that a fit with weights that add up to one ends where
        it would with the same weights times the number of examples.
        """
        weights = self.data.weights
        if weights is None:
            return 1.0
        positive = jnp.sum(weights > 0, dtype=weights.dtype)
        return jnp.minimum(jnp.sum(weights) / jnp.maximum(positive, 1), 1)

    def shrunk(self) -> Array:
        """() whether a penalty is positive, as seen at run time."""
        return jnp.asarray(sum(p for p in (self.l2, self.l1) if p is not None) > 0)

    def canonical(self, theta: Array) -> Array:
        """The vector that the model prefers among those with the same likelihood."""
        canonical = self.model.geometry.canonical
        if canonical is None:
            return theta
        return ravel_pytree(canonical(self.unravel(theta)))[0]

    def _over_rows(self, fn: Callable[[Rows, Array], Any], theta: Array) -> Any:
        """The sum of a function over the devices that hold the rows."""
        if self.shards is None:
            return fn(self.data, theta)
        rows, everywhere = PartitionSpec(self.shards.axis), PartitionSpec()

        axis = self.shards.axis

        def local(data: Rows, theta: Array) -> Any:
            return jax.lax.psum(fn(data, theta), axis)

        return jax.shard_map(
            local,
            mesh=self.shards.mesh,
            in_specs=(rows, everywhere),
            out_specs=everywhere,
            check_vma=False,
        )(self.data, theta)

    def value_and_grad(self, theta: Array) -> tuple[Array, Array]:
        """The smooth part of the objective () and its gradient (p,), from one pass."""
        by_hand = self.model.objective.value_and_grad is not None
        fast = {"block_bytes": self.block_bytes} if by_hand else {}

        def of_rows(data: Rows, theta: Array) -> tuple[Array, Array]:
            value, grad = self.model.objective.evaluated()(
                self.unravel(theta), *data.examples, data.weights, **data.extras, **fast
            )
            return -value, -ravel_pytree(grad)[0]

        return self.with_penalties(theta, *self._over_rows(of_rows, theta))

    def with_penalties(self, theta: Array, value: Array, grad: Array) -> tuple[Array, Array]:
        """The smooth part of the objective and its gradient, from that of the rows alone."""
        if self.model.prior is not None:
            prior, slope = jax.value_and_grad(self.log_prior)(theta)
            value, grad = value - prior, grad - slope
        if self.l2 is not None:
            w = jnp.where(self.mask(), theta, 0.0)
            value, grad = value + self.l2 / 2 * vdot(w, w), grad + self.l2 * w
        if self.firth:
            half, slope = half_log_det(self, theta)
            value, grad = value - half, grad - slope
        return value, grad

    def log_prior(self, theta: Array) -> Array:
        """The logarithm of the model's prior (), up to a constant; zero where it has none."""
        if self.model.prior is None:
            return jnp.zeros((), theta.dtype)
        value = self.model.prior.log_prob(self.unravel(theta), *self._hyperparameters())
        return value if self.prior_share is None else self.prior_share * value

    def closed_form(self) -> tuple[Array, Array, Array, Array, Array]:
        """Where the model's formula says that the maximum is: theta, value, gradient there.

        Then its status, and the direction along which there is none.
        """
        form = self.model.route(Formula)
        assert form is not None  # `fit` has checked the solver
        known = self._statistics(form)
        made = form.estimate(known)
        value, grad = form.log_likelihood_and_grad(made.params, known)
        theta, direction = (ravel_pytree(tree)[0] for tree in (made.params, made.direction))
        value, grad = self.with_penalties(theta, -value, -ravel_pytree(grad)[0])
        return theta, value, grad, made.status, direction

    def expectation(self, theta: Array) -> tuple[Array, Array, Any]:
        """The objective () and its gradient (p,), and the sums that a step of EM needs."""
        em = self.model.route(Expectation)
        assert em is not None  # `fit` has checked the solver

        def of_rows(data: Rows, theta: Array) -> tuple[Array, Any]:
            return em.statistics(self.unravel(theta), *data.examples, data.weights, **data.extras)

        value, known = self._over_rows(of_rows, theta)
        grad = ravel_pytree(em.grad(self.unravel(theta), known))[0]
        return *self.with_penalties(theta, -value, -grad), known

    def maximise(self, theta: Array, known: Any) -> tuple[Array, Array]:
        """Where the sums at some parameters lead, and a Status () int32."""
        em = self.model.route(Expectation)
        assert em is not None
        made, status = em.maximise(self.unravel(theta), known, *self._hyperparameters())
        return ravel_pytree(made)[0], status

    def _hyperparameters(self) -> tuple:
        found = self.prepared().hyperparameters
        assert found is not None  # that is what `prepared` computes
        return found

    def choose(self) -> tuple[Array, Array, Array, Array]:
        """Where the model's own search ends: theta, value there, status, and the gap."""
        route, data = self.model.route(Search), self.data
        assert route is not None  # `fit` has checked the solver
        made = route.search(*data.examples, data.weights, **data.extras)
        theta = ravel_pytree(made.params)[0].astype(data.x.dtype)
        return theta, self.penalties(theta) - self.objective(theta), made.status, made.gap

    def objective(self, theta: Array) -> Array:
        """The log-likelihood (), or what stands in for it in a fit."""
        return self._sum(self.model.objective.value, theta)

    def reported_likelihood(self, theta: Array, value: Array) -> Array:
        """The log-likelihood () that is reported, given the objective there."""
        objective = self.model.objective
        if objective.log_likelihood == objective.value:
            return value
        return self._sum(objective.log_likelihood, theta)

    def _sum(self, fn: Callable[..., Array], theta: Array) -> Array:
        def of_rows(data: Rows, theta: Array) -> Array:
            return fn(self.unravel(theta), *data.examples, data.weights, **data.extras)

        return self._over_rows(of_rows, theta)

    def penalties(self, theta: Array) -> Array:
        """What is added to minus the log-likelihood (), all penalties and the prior together."""
        value = self.penalty(theta) - self.log_prior(theta)
        if self.l2 is not None:
            value += self.l2 / 2 * jnp.sum(jnp.where(self.mask(), theta**2, 0.0))
        return value - half_log_det(self, theta)[0] if self.firth else value

    def _statistics(self, form: Formula) -> Any:
        """What the likelihood knows of the rows, over the devices that hold them."""
        less = {} if self.centre is None else {"centre": self.centre}

        def of_rows(data: Rows) -> Any:
            return form.statistics(*data.examples, data.weights, **data.extras, **less)

        if self.shards is None:
            return of_rows(self.data)
        axis, count = self.shards.axis, self.shards.count

        def local(data: Rows) -> Any:
            every = jax.lax.all_gather(of_rows(data), axis)
            parts = [jax.tree.map(lambda a, i=i: a[i], every) for i in range(count)]
            return reduce(form.merge, parts)

        return jax.shard_map(
            local,
            mesh=self.shards.mesh,
            in_specs=(PartitionSpec(axis),),
            out_specs=PartitionSpec(),
            check_vma=False,
        )(self.data)

    def penalty(self, theta: Array) -> Array:
        """The l1 term ()."""
        if self.l1 is None:
            return jnp.zeros((), theta.dtype)
        return self.l1 * jnp.sum(jnp.where(self.mask(), jnp.abs(theta), 0.0))

    def shrinkage(self) -> Array:
        """(p,) l1 where it acts, 0 elsewhere."""
        l1 = 0.0 if self.l1 is None else self.l1
        return jnp.where(self.mask(), l1, jnp.zeros(self.num_params(), self.data.x.dtype))

    def curvature(self, theta: Array) -> Array:
        """The Hessian (p, p) of the smooth part."""
        return self._penalised(theta, self.information(theta))

    def _penalised(self, theta: Array, h: Array) -> Array:
        if self.l2 is not None:
            h = h + jnp.diag(jnp.where(self.mask(), self.l2, 0.0))
        if self.model.prior is not None:
            h = h - jax.hessian(self.log_prior)(theta)
        if self.firth:
            of_penalty = jax.jacfwd(lambda theta: half_log_det(self, theta)[1])(theta)
            h = h - (of_penalty + of_penalty.T) / 2
        return h

    def hess(self, theta: Array) -> Array:
        """The Hessian (p, p) of the smooth part, made regular along what `canonical` removes.

        Along those directions the likelihood is flat by construction. The term added there acts on
        nothing else, so a Newton step from canonical parameters is unchanged by it.
        """
        return self.regular(theta, self.information(theta))

    def regular(self, theta: Array, information: Array) -> Array:
        """What `hess` is at a point where the information is known."""
        h = self._penalised(theta, information)
        if self.model.geometry.canonical is None:
            return h
        size = jnp.diag(h) - self.canonical(jnp.diag(h))
        eye = jnp.eye(len(theta), dtype=theta.dtype)
        return h + (eye - jax.vmap(self.canonical)(eye)) * size[None, :]

    def information(self, theta: Array) -> Array:
        """Minus the Hessian (p, p) of the log-likelihood, or of what stands in for it."""
        objective = self.model.objective

        def of_rows(data: Rows, theta: Array) -> Array:
            keywords = {"weights": data.weights} | data.extras
            if objective.information is not None:
                return objective.information(self.unravel(theta), *data.examples, **keywords)

            def negative(theta: Array) -> Array:
                params = self.unravel(theta)
                return -objective.value(params, *data.examples, **keywords)

            return jax.hessian(negative)(theta)

        return self._over_rows(of_rows, theta)

    def astype(self, dtype: str) -> "Problem":
        """The same problem in another floating dtype."""

        def cast(a: Array) -> Array:
            return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

        return jax.tree.map(cast, self)

    def sample(self, num_rows: int, num_parts: int) -> "Problem":
        """The problem on about so many rows, l2 and prior scaled down as they are.

        One row is drawn at random from each of as many stretches of rows, under a fixed seed, so
        that neither sorted nor periodic data lead astray. Each `part` of them is such a sample too.
        """
        total = self.rows_per_device()
        num_parts = min(num_parts, total)
        size = max(1, min(total, num_rows * total // self.data.x.shape[0]) // num_parts)
        stretch = total // (size * num_parts)
        shift = np.random.default_rng(0).integers(0, stretch, size * num_parts)
        index = np.arange(size * num_parts) * stretch + shift
        index = index.reshape(size, num_parts).T.ravel().astype(np.int32)
        return self._some(lambda data: take(data, index), index.size / total)

    def part(self, i: Array | int, num_parts: int) -> "Problem":
        """The problem on one of so many stretches of rows, l2 and prior scaled down."""
        size = self.rows_per_device() // num_parts

        def stretch(a: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(a, i * size, size)

        return self._some(lambda data: jax.tree.map(stretch, data), 1 / num_parts)

    def rows_per_device(self) -> int:
        """How many examples each device holds."""
        num_devices = 1 if self.shards is None else self.shards.count
        return self.data.x.shape[0] // num_devices

    def _some(self, take: Callable[[Rows], Rows], share: float) -> "Problem":
        """The problem on what is taken of each device's rows, a share of all."""
        if self.shards is not None:
            rows = PartitionSpec(self.shards.axis)
            take = jax.shard_map(
                take, mesh=self.shards.mesh, in_specs=(rows,), out_specs=rows, check_vma=False
            )
        return replace(self.prepared(), data=take(self.data), **self._scaled(share))

    def _scaled(self, share: Array | float) -> dict[str, Array | None]:
        """What belongs to all rows, for a share of them."""
        dtype = self.data.x.dtype
        so_far = 1.0 if self.prior_share is None else self.prior_share
        return {
            "l2": None if self.l2 is None else self.l2 * share,
            "prior_share": jnp.asarray(so_far * share, dtype) if self.model.prior else None,
        }

    def reweighted(self, weights: Array) -> "Problem":
        """The problem with other weights, its l2 and prior as they are."""
        return replace(self.prepared(), data=self.data._replace(weights=weights))

    def rows(self, index: Array, live: Array) -> "Problem":
        """The problem on the rows of an index, those not live without weight.

        With l2 and prior scaled down.
        """
        data = take(self.data, index)
        weights = live.astype(data.x.dtype)
        weights = weights if data.weights is None else weights * data.weights
        share = jnp.sum(live) / self.data.x.shape[0]
        data = data._replace(weights=weights)
        return replace(self.prepared(), data=data, shards=None, **self._scaled(share))


def _init(model: Model, key: Array | None, data: Rows) -> Any:
    key = None if key is None else jax.random.wrap_key_data(key)
    return model.init(key, *data.examples, weights=data.weights, **data.extras)


def _shape_of(a: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(a.shape, a.dtype)


@lru_cache(maxsize=256)
def _template(model: Model, key: Any, data: Any) -> Any:
    """Of `_init`, with all its arguments, so that JAX traces it once for both."""

    def shapes() -> Any:
        return jax.eval_shape(lambda key, data: _init(model, key, data), key, data)

    folder = kept_in()
    return shapes() if folder is None else folder.value((_template, model, key, data), shapes)
