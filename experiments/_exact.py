"""Log-probabilities and their derivatives in 70-digit arithmetic, and how far off a result is.

Exact results are numpy arrays of 70-digit numbers, so that `+ - *`, `np.where` and indexing work.
No formula subtracts nearly equal numbers, so 70 digits are enough for any floating-point input.
"""

from typing import Any, NamedTuple

import mpmath
import numpy as np

_MP: Any = mpmath.MPContext()
_MP.dps = 70


def _elementwise(function: Any) -> Any:
    """The function of one number as one of an array, giving an array of 70-digit numbers."""
    ufunc = np.frompyfunc(function, 1, 1)

    def applied(x: Any) -> np.ndarray:
        with np.errstate(all="ignore"):  # infinities and nan are welcome
            return np.asarray(ufunc(np.asarray(x)), dtype=object)

    return applied


number = _elementwise(lambda x: _MP.mpf(float(x)))
_remainder = _elementwise(lambda x: x - float(x) if _MP.isfinite(x) else _MP.mpf(0))


def to_float64(exact: np.ndarray) -> np.ndarray:
    """The nearest doubles."""
    with np.errstate(all="ignore"):
        return exact.astype(np.float64)


@_elementwise
def log_sigmoid(z: Any) -> Any:
    """Log σ(z); the log-probability of label 1, and of label 0 at -z."""
    z = _MP.mpf(float(z))
    return min(z, _MP.mpf(0)) - _MP.log1p(_MP.exp(-abs(z)))


@_elementwise
def sigmoid(z: Any) -> Any:
    """σ(z); the derivative of log σ is σ(-z)."""
    return 1 / (1 + _MP.exp(-_MP.mpf(float(z))))


def variance(z: Any) -> np.ndarray:
    """σ(z) σ(-z); the second derivative of log σ is its negative."""
    z = np.asarray(z)
    return sigmoid(z) * sigmoid(-z)


class Softmax(NamedTuple):
    """Of logits (..., K): `p` = softmax(z), `rest` = 1 - p and `log_p`, all (..., K)."""

    p: np.ndarray
    rest: np.ndarray
    log_p: np.ndarray


def softmax(z: Any) -> Softmax:
    """The probabilities of all classes; nan where nothing is certain, as in a row of -inf."""
    z = np.asarray(z)
    rows = np.array([_row(row) for row in z.reshape(-1, z.shape[-1])], dtype=object)
    return Softmax(*(rows[:, part].reshape(z.shape) for part in range(3)))


def score(exact: Softmax, y: Any) -> np.ndarray:
    """The gradient of log p_y in the logits: rest in the label's entry, -p in the others."""
    hit = np.asarray(y)[..., None] == np.arange(exact.p.shape[-1])
    return np.where(hit, exact.rest, -exact.p)


def hessian(exact: Softmax) -> np.ndarray:
    """The Hessian (..., K, K) of log p_y in the logits, the same for every label."""
    products = exact.p[..., :, None] * exact.p[..., None, :]
    diagonal = np.eye(exact.p.shape[-1], dtype=bool)
    return np.where(diagonal, (-exact.p * exact.rest)[..., None], products)


def logsumexp(z: Any) -> np.ndarray:
    """Log Σ exp(z) over the last axis; -inf of nothing but -inf."""
    z = np.asarray(z)
    sums = np.array([_log_sum(row) for row in z.reshape(-1, z.shape[-1])], dtype=object)
    return sums.reshape(z.shape[:-1])


def ulps(computed: Any, exact: np.ndarray, slack: Any = 0.0) -> np.ndarray:
    """How far a result is off, in units in the last place of the exact one.

    The units are those of the dtype of `computed`; 0.5 is correctly rounded. Equal infinities and
    two nans are 0 apart, anything else that is not finite is infinitely far off.

    Args:
        computed: float32 or float64.
        exact: of the same shape, 70-digit numbers.
        slack: an absolute error that does not count.
    """
    computed = np.asarray(computed)
    info = np.finfo(computed.dtype)
    high, low = to_float64(exact), to_float64(_remainder(exact))
    with np.errstate(all="ignore"):
        rounded, wide = high.astype(computed.dtype), computed.astype(np.float64)
        off = np.maximum(np.abs((wide - high) - low) - slack, 0.0)
        exponent = np.maximum(np.frexp(high)[1], info.minexp + 1)
        units = np.ldexp(off, info.nmant + 1 - exponent)
    same = (wide == rounded) | (np.isnan(wide) & np.isnan(rounded))
    finite = np.isfinite(wide) & np.isfinite(rounded)
    return np.where(finite, units, np.where(same, 0.0, np.inf))


def _masses(row: np.ndarray) -> tuple[int, list, list, Any]:
    """The largest entry's index; z - max z and its exponentials; the sum of all but one largest."""
    z = [_MP.mpf(float(v)) for v in row]
    lead = int(np.argmax(row))
    behind = [_MP.mpf(0) if v == z[lead] else v - z[lead] for v in z]
    e = [_MP.exp(d) for d in behind]
    return lead, behind, e, _MP.fsum(e[:lead] + e[lead + 1 :])


def _row(row: np.ndarray) -> tuple[list, list, list]:
    if np.isnan(row).any() or np.max(row) == -np.inf:
        unknown = [_MP.mpf("nan")] * len(row)
        return unknown, unknown, unknown
    lead, behind, e, others = _masses(row)
    p = [v / (1 + others) for v in e]
    rest = [1 - v for v in p]
    rest[lead] = others / (1 + others)
    log_total = _MP.log1p(others)
    return p, rest, [d - log_total for d in behind]


def _log_sum(row: np.ndarray) -> Any:
    largest = _MP.mpf(float(np.max(row)))
    if not np.isfinite(np.max(row)):
        return largest
    return largest + _MP.log1p(_masses(row)[3])
