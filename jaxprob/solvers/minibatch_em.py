r"""Expectation-maximisation on batches that come one after the other, for data that do not fit.

The sums that a step needs (`contract.Expectation`) are kept as an average for each example, to
which every batch contributes with a weight that falls:

    s_t = (1 - γ_t) s_{t-1} + γ_t s(batch t; θ_{t-1}),    γ_t = (t + 1)^(-α),    ½ < α ≤ 1
    θ_t = argmax_θ of what is expected with the sums n s_t

For batches drawn at random, θ_t converges to a stationary point of the likelihood, and its mean
over the last steps does so at the best rate. Sums are measured anew from each θ_t, so that nothing
cancels where components are narrow and far apart. A prior that follows the data, such as a default
one, follows the first batch.

Source: Cappé and Moulines, On-line expectation-maximization algorithm for latent data models,
Journal of the Royal Statistical Society B 71, 2009.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.contract import Expectation, Model, Status, Variables
from jaxprob.data import check_data
from jaxprob.runtime.compilation import eager_jit


class MinibatchFit(NamedTuple):
    """Where a run over batches is; give it back to go on.

    Attributes:
        params: the model's parameters.
        known: sums for each example, so far.
        num_batches: () int32, t.
        log_likelihood: () nats per example, the average so far of each batch before it was used.
        status: () int32: MAX_STEPS while all is well; COLLAPSED where a batch was left out since it
            would have been the end of a component, NON_FINITE where its density overflowed.
        num_examples: () the sum of the weights of all batches so far.
        hyperparameters: what the model's prior took from the first batch.
    """

    params: Any
    known: Any
    num_batches: Array
    log_likelihood: Array
    status: Array
    num_examples: Array
    hyperparameters: tuple = ()


def minibatch_em(
    model: Model,
    batches: Iterable[Any],
    init: Any,
    *,
    decay: float = 0.7,
    num_examples: float | None = None,
) -> MinibatchFit:
    """Fit a model with something latent to batches of examples, one after the other.

    Args:
        model: such as `jaxprob.models.gaussian_mixture.model(3)`.
        batches: arrays (m, d), or pairs of these and weights (m,); a generator may read them from
            a file. Batches of one size need one program. The first one must have observed entries
            in every column, where some may be missing.
        init: parameters to start from, such as `model.init(key, first_batch)`, or a MinibatchFit to
            go on with.
        decay: α, between ½ and 1: the smaller, the faster is the start forgotten.
        num_examples: n, of all data: how much the examples count against the model's prior; all
            that have come, by weight, where None.

    Returns:
        A MinibatchFit. Batches that would do harm are left out, and its status says so.

    Raises:
        ValueError: for a model without latent variables, no batches, a decay out of range, and for
            a batch as `jaxprob.fit` does.

    Example:
        >>> from jaxprob.models import gaussian_mixture
        >>> model = gaussian_mixture.model(1)
        >>> batches = [jax.random.normal(jax.random.key(i), (100, 1)) + 3 for i in range(20)]
        >>> found = minibatch_em(model, batches, model.init(None, batches[0]))
        >>> bool(abs(found.params.means[0, 0] - 3) < 0.2)
        True
    """
    if model.route(Expectation) is None:
        raise ValueError(f"model: expected one with latent variables, got {model.name}")
    if not 0.5 < decay <= 1:
        raise ValueError(f"decay: expected a number above 0.5 and at most 1, got {decay}")
    state, trouble = init if isinstance(init, MinibatchFit) else None, int(Status.MAX_STEPS)
    count, any_batch = 0, Variables.density(replace(model.variables.x, suffice=None))
    variables = model.variables if state is None else any_batch
    for batch in batches:
        x, weights = batch if isinstance(batch, tuple) else (batch, None)
        data = check_data(x, None, weights, variables=variables)
        if state is None:
            state = _start(model, init, data.x, data.weights)
            variables = any_batch
        state = _step(state, data.x, data.weights, num_examples, decay, model=model)
        trouble = trouble if int(state.status) == Status.MAX_STEPS else int(state.status)
        count += 1
    if state is None or not count:
        raise ValueError("batches: expected at least one, got none")
    return state._replace(status=jnp.int32(trouble))


def _start(model: Model, init: Any, x: Array, weights: Array | None) -> MinibatchFit:
    """Nothing known yet, but of the prior."""
    route = model.route(Expectation)
    assert route is not None
    params = jax.tree.map(lambda a: jnp.asarray(a, x.dtype), init)
    shapes = jax.eval_shape(lambda: route.statistics(params, x, None))[1]
    known = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), shapes)
    zero = jnp.zeros((), x.dtype)
    found = () if not model.prior_follows else _hyperparameters(x, weights, model=model)
    return MinibatchFit(params, known, jnp.int32(0), zero, jnp.int32(Status.MAX_STEPS), zero, found)


@partial(eager_jit, static_argnames=["model"])
def _hyperparameters(x: Array, weights: Array | None, *, model: Model) -> tuple:
    return model.hyperparameters(x, weights=weights)


@partial(eager_jit, static_argnames=["model"])
def _step(
    state: MinibatchFit,
    x: Array,
    weights: Array | None,
    num_examples: Any,
    decay: Array | float,
    *,
    model: Model,
) -> MinibatchFit:
    """What one batch makes of it; nothing where it does harm."""
    em = model.route(Expectation)
    assert em is not None
    t = state.num_batches
    rate = (t + 1.0) ** -jnp.asarray(decay, x.dtype)
    size = jnp.asarray(len(x), x.dtype) if weights is None else jnp.sum(weights)
    value, sums = em.statistics(state.params, x, weights)

    def mix(old: Array, new: Array) -> Array:
        return (1 - rate) * old + rate * (new / size)

    known = jax.tree.map(mix, state.known, sums)
    come = state.num_examples + size
    so_far = come if num_examples is None else jnp.asarray(num_examples, x.dtype)
    expected = jax.tree.map(lambda a: so_far * a, known)
    params, status = em.maximise(state.params, expected, *state.hyperparameters)
    new = MinibatchFit(
        params,
        em.about(state.params, known, params),
        t + 1,
        mix(state.log_likelihood, value),
        status,
        come,
        state.hyperparameters,
    )
    status = jnp.where(jnp.isfinite(value), status, jnp.int32(Status.NON_FINITE))
    good = status == Status.MAX_STEPS
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, state)
    return kept._replace(status=status)
