"""Features without their common part: what is far from zero against its spread loses its digits.

With a mean m and a spread s, the curvature of a likelihood in a coefficient is what is left of sums
of squares of size m² + s²: in float32, years lose it all. Where a shift of the features only
reparametrises a model, fits see the features less their centre.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

_ROWS = 32  # that are looked at
_FAR = 2.0  # times their range


def centre_of(x: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Where the features are, and whether any is so far from zero that it matters.

    Near enough is good enough: what is subtracted from the features can be anything that is
    within a few spreads of their means. So some rows tell.

    Args:
        x: (..., n, d); of NumPy also integers and bools.
        xp: `jax.numpy`, or `numpy` for arrays of NumPy.

    Returns:
        (..., d) a centre of each feature, zero where it is near; () bool.

    Example:
        >>> centre, is_far = centre_of(np.array([[2020.0, 0.1], [2022.0, -0.2]]), np)
        >>> centre.tolist(), bool(is_far)
        ([2021.0, 0.0], True)
    """
    n = x.shape[-2]
    rows = x[..., :: max(1, n // _ROWS), :][..., :_ROWS, :]
    if xp is np and rows.dtype.kind != "f":
        rows = rows.astype(float)
    with np.errstate(all="ignore"):
        mean = xp.sum(rows / rows.shape[-2], axis=-2)  # the sum might overflow
        reach = xp.max(rows, axis=-2) - xp.min(rows, axis=-2)
        far = (xp.abs(mean) > _FAR * reach) & xp.isfinite(mean)
    return xp.where(far, mean, xp.zeros_like(mean)), xp.any(far)
