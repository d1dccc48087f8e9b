"""What the models with linear logits share: which parameters are penalised, and their Hessian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.numerics import compensated_matvec, gram, matvec, rmatvec


def penalised(params: Any) -> Any:
    """Penalties act on the weights, not on the bias."""
    return params._replace(
        weights=jnp.ones(params.weights.shape, bool),
        bias=None if params.bias is None else jnp.zeros(params.bias.shape, bool),
    )


def recentred(params: Any, shift: Array) -> Any:
    """The parameters that features x - shift have in place of x: the biases take up the shift.

    Args:
        params: weights (d,) or (C, d), and biases.
        shift: (d,).

    Returns:
        Params, each bias rounded once.
    """
    weights, bias = jnp.atleast_2d(params.weights), jnp.atleast_1d(params.bias)
    rows = jnp.concatenate([weights, bias[:, None]], axis=1)
    moved = compensated_matvec(rows, jnp.append(shift, jnp.ones((), shift.dtype)))
    return params._replace(bias=moved.reshape(params.bias.shape))


def assemble(x: Array, blocks: Array, num_rows: int, *, bias: bool) -> Array:
    """A Hessian of C rows of weights and biases from its weightings of the examples.

    Args:
        x: (n, d).
        blocks: (C (C + 1) / 2, n), the upper triangle row by row: block (k, l) is Xᵀ diag X.
        num_rows: C.
        bias: whether each row has one.

    Returns:
        (p, p) in the order of the raveled parameters: weights row by row, then biases.
    """
    upper = np.triu_indices(num_rows)
    index = np.zeros((num_rows, num_rows), int)
    index[upper] = index[upper[::-1]] = np.arange(len(upper[0]))
    grams = jax.vmap(gram, (None, 0))(x, blocks) if len(blocks) > 1 else gram(x, blocks[0])[None]
    size = num_rows * x.shape[1]
    core = grams[index].transpose(0, 2, 1, 3).reshape(size, size)
    if not bias:
        return core
    border = rmatvec(x, blocks.T)[index].transpose(0, 2, 1).reshape(size, num_rows)
    corner = jnp.sum(blocks, axis=1)[index]
    return jnp.block([[core, border], [border.T, corner]])


def pull_back(params: Any, x: Array, r: Array, first: int) -> Array:
    """Xᵀ r for the columns of r that have parameters, raveled as they are.

    Args:
        params: weights (d,) or (C, d), and biases.
        x: (n, d).
        r: (n, K), a column for each class.
        first: the class of the first row of the weights.

    Returns:
        (p,).
    """
    single = params.weights.ndim == 1
    own = r[:, first] if single else r[:, first : first + len(params.weights)]
    bias = None if params.bias is None else jnp.sum(own, axis=0)
    return ravel_pytree(params._replace(weights=rmatvec(x, own), bias=bias))[0]


def spread(params: Any, x: Array, num_classes: int) -> Array:
    """How far parameters move one logit of each example against another.

    Args:
        params: weights (d,) or (C, d), and biases.
        x: (n, d).
        num_classes: K, C or C + 1: then one class has logit 0.

    Returns:
        (n,).
    """
    z = matvec(x, params.weights)
    z = z if params.bias is None else z + jnp.broadcast_to(params.bias, z.shape)
    if z.ndim == 1:
        return jnp.abs(z)
    highest, lowest = jnp.max(z, axis=1), jnp.min(z, axis=1)
    if z.shape[1] < num_classes:
        highest, lowest = jnp.maximum(highest, 0.0), jnp.minimum(lowest, 0.0)
    return highest - lowest
