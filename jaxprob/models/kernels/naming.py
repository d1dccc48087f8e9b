"""Names of a kernel density's parameters."""

import numpy as np

from jaxprob.models.kernels import Bandwidth as Params


def parameter_names(params: Params, feature_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """What the entries of the parameters are called, in the order of `ravel_pytree`.

    Args:
        params: Params.
        feature_names: of the columns; x0, x1, ... where None.

    Returns:
        (p,) names.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxprob.models import kernel_density as kd
        >>> parameter_names(kd.of_bandwidth(jnp.eye(2)), None)
        ('log_scale[x0]', 'log_scale[x1]', 'lower[x1, x0]')
    """
    d = params.log_scale.shape[-1]
    if d == 1 and feature_names is not None and len(feature_names) > 1:
        return ("log_scale",)
    names = feature_names or tuple(f"x{j}" for j in range(d))
    rows, columns = np.tril_indices(d, -1) if params.lower.shape[-1] else ((), ())
    lower = [f"lower[{names[i]}, {names[j]}]" for i, j in zip(rows, columns, strict=True)]
    return (*(f"log_scale[{name}]" for name in names), *lower)
