"""Products of matrices with all the digits of their dtype, on every device.

Unless told otherwise, JAX multiplies float32 matrices in fewer digits where a device is faster at
that: in TensorFloat-32, to 1e-3, on recent GPUs, in bfloat16, to 1e-2, on TPUs. No optimum is found
with such gradients, so every product of this library is one of these. On a CPU they are JAX's own.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import jax
import jax.numpy as jnp

einsum = partial(jnp.einsum, precision="highest")
matmul = partial(jnp.matmul, precision="highest")
tensordot = partial(jnp.tensordot, precision="highest")
vdot = partial(jnp.vdot, precision="highest")


def all_digits() -> AbstractContextManager:
    """A context for the products of others' models, where their author has not chosen otherwise.

    Returns:
        What `with` takes.

    Example:
        >>> with all_digits():
        ...     program = jax.make_jaxpr(jnp.matmul)(jnp.eye(2), jnp.eye(2))
        >>> "HIGHEST" in str(program)
        True
    """
    if jax.config.jax_default_matmul_precision is None:  # pyright: ignore[reportAttributeAccessIssue]
        return jax.default_matmul_precision("highest")
    return nullcontext()
