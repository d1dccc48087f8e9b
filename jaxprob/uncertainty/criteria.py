"""What models are compared by, with weights as repeated rows: n = Σ_i c_i.

    AIC = 2 k - 2 ℓ,    BIC = k log n - 2 ℓ

with ℓ the log-likelihood at its maximum over k free parameters. Weights that add up to no more than
one example leave nothing for log n to count, and BIC is NaN.

Source: Akaike, Information theory and an extension of the maximum likelihood principle, 1973;
Schwarz, Estimating the dimension of a model, Annals of Statistics 6, 1978.
"""

from typing import Any

import numpy as np

_ONE = 1 + 1e-5  # example, with what rounding adds to a sum of weights in float32


def total_weight(weights: Any, n: int) -> Any:
    """How many rows the examples stand for: Σ_i c_i.

    Args:
        weights: (..., n) of the examples, None for one each.
        n: the number of examples.

    Returns:
        (...), n where there are no weights.

    Example:
        >>> total_weight(None, 3), float(total_weight(np.array([2.0, 1.0, 0.5]), 3))
        (3, 3.5)
    """
    return n if weights is None else weights.sum(axis=-1)


def aic(log_likelihood: Any, num_params: Any) -> Any:
    """Akaike's criterion 2 k - 2 ℓ; lower is better.

    Args:
        log_likelihood: ℓ, nats, at its maximum; a number or an array.
        num_params: k, the free parameters.

    Returns:
        Nats, twice.

    Example:
        >>> aic(-10.0, 3)
        26.0
    """
    return 2 * num_params - 2 * log_likelihood


def bic(log_likelihood: Any, num_params: Any, total_weight: Any) -> Any:
    """Schwarz's criterion k log n - 2 ℓ; lower is better.

    Args:
        log_likelihood: ℓ, nats, at its maximum; a number or an array.
        num_params: k, the free parameters.
        total_weight: n = Σ_i c_i, see `total_weight`.

    Returns:
        Nats, twice; NaN where n ≤ 1, but for rounding.

    Example:
        >>> round(float(bic(-10.0, 3, 100)), 3), float(bic(-10.0, 3, 0.8))
        (33.816, nan)
    """
    n = np.asarray(total_weight, float)
    log_n = np.log(np.where(n > _ONE, n, np.nan))
    return num_params * log_n - 2 * log_likelihood
