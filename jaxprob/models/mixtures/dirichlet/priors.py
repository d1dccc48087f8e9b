r"""What is assumed of every component before any example: the prior of equation D.1.

Location and scale are numbers, or follow the examples: where none are given, m₀ is the mean of the
examples and Ψ₀ their covariance, weights being repeats:

    m₀ = Σ_i c_i x_i / N,    Ψ₀ = Σ_i c_i (x_i - m₀) (x_i - m₀)ᵀ / (N - 1),    N = Σ_i c_i   (D.17)

The posterior is then equivariant: examples A x + b with an invertible A have the same components as
x, and an evidence that is smaller by N log |det A|.

Source: Fraley and Raftery, Bayesian regularization for normal mixture estimation and model-based
clustering, Journal of Classification 24, 2007 (priors from the mean and covariance of the data).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.contract import Features, Status
from jaxprob.contract.settings import is_number
from jaxprob.data.columns import column_name, varying
from jaxprob.numerics.components import inverse_factor, inverse_of_lower, overall_moments

_TWO = 1.999  # examples, but for the rounding of a sum of weights


@dataclass(frozen=True)
class BaseMeasure:
    """What is assumed of every component before any example (equation D.1); see `prior`.

    Attributes:
        location: m₀, a number for all columns, or one for each; the mean of the examples where
            None.
        mean_count: κ₀.
        scale: Ψ₀, a number for that times the identity, a tuple for its diagonal, or its rows; the
            covariance of the examples where None.
        degrees: ν₀; d where None.
    """

    location: Any = None
    mean_count: float = 1.0
    scale: Any = None
    degrees: float | None = None

    @property
    def follows(self) -> bool:
        """Whether it takes something from the examples."""
        return self.location is None or self.scale is None

    def degrees_at(self, d: int) -> float:
        """ν₀ for so many columns."""
        return float(d) if self.degrees is None else self.degrees


DEFAULT = BaseMeasure()


class Moments(NamedTuple):
    """What a prior can take from the examples (equation D.17)."""

    mean: Array  # (d,)
    covariance: Array  # (d, d)


class NormalWishart(NamedTuple):
    """A prior for a number of columns."""

    location: Array  # (d,)
    count: float
    degrees: float
    scale: Array  # (d, d)
    root: Array  # (d, d) lower triangular L₀
    log_det: Array | float


def prior(*, location: Any, mean_count: Any, scale: Any, degrees: Any) -> BaseMeasure:
    """A prior, checked.

    Args:
        location: m₀, a number, or a tuple of one for each column, or None.
        mean_count: κ₀ > 0.
        scale: Ψ₀, a positive number, a tuple of them, a tuple of rows, or None.
        degrees: ν₀ > d - 1, or None.

    Returns:
        A BaseMeasure of plain numbers.

    Raises:
        ValueError: for what is none of that.

    Example:
        >>> prior(location=(0, 1), mean_count=1, scale=2, degrees=None).location
        (0.0, 1.0)
    """
    where = None if location is None else _checked_location(location)
    spread = None if scale is None else _checked_scale(scale)
    if isinstance(where, tuple) and isinstance(spread, tuple) and len(where) != len(spread):
        raise ValueError(
            f"location, scale: expected as many columns in both, got {len(where)} and {len(spread)}"
        )
    if not (is_number(mean_count) and mean_count > 0):
        raise ValueError(f"mean_count: expected a positive number, got {mean_count!r}")
    if degrees is not None and not (is_number(degrees) and degrees > 0):
        raise ValueError(f"degrees: expected a positive number or None, got {degrees!r}")
    return BaseMeasure(
        where, float(mean_count), spread, None if degrees is None else float(degrees)
    )


def _checked_location(location: Any) -> Any:
    wanted = "a finite number, or a tuple with one for each column"
    where = _numbers("location", location, wanted)
    if where.ndim > 1 or not np.isfinite(where).all():
        raise ValueError(f"location: expected {wanted}, got {location!r}")
    return _hashable(where)


def _checked_scale(scale: Any) -> Any:
    wanted = "a positive number, a tuple of them, or the rows of a positive definite matrix"
    spread = _numbers("scale", scale, wanted)
    square = spread.ndim == 2 and spread.shape[0] == spread.shape[1]
    is_fine = np.isfinite(spread).all() and (spread.ndim < 2 or square)
    if is_fine and square:
        is_fine = np.array_equal(spread, spread.T) and np.linalg.eigvalsh(spread)[0] > 0
    elif is_fine:
        is_fine = (spread > 0).all()
    if not is_fine:
        raise ValueError(f"scale: expected {wanted}, got {scale!r}")
    return _hashable(spread)


def for_columns(
    prior: BaseMeasure, d: int, dtype: Any, moments: Moments | None = None
) -> NormalWishart:
    """The prior for so many columns.

    Args:
        prior: BaseMeasure.
        d: columns.
        dtype: of the arrays.
        moments: of the examples, where the prior follows them.

    Returns:
        NormalWishart.

    Raises:
        ValueError: where the prior is one for another number of columns, or follows examples that
            are not given.

    Example:
        >>> for_columns(BaseMeasure(0.0, scale=4.0), 2, "float32").root.tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    for name, value in (("location", prior.location), ("scale", prior.scale)):
        if isinstance(value, tuple) and len(value) != d:
            raise ValueError(f"{name}: expected {d} columns as x has, got {len(value)}")
    degrees = prior.degrees_at(d)
    if not degrees > d - 1:
        raise ValueError(f"degrees: expected more than {d - 1} for {d} columns, got {degrees}")
    if prior.follows and moments is None:
        raise ValueError(
            "prior: expected location and scale as numbers, or the moments of the examples "
            "(`Prior.hyperparameters`), which it follows, got neither"
        )
    if prior.location is None:
        assert moments is not None  # as just checked
        location = moments.mean
    else:
        location = jnp.asarray(np.broadcast_to(prior.location, d), dtype)
    if prior.scale is None:
        assert moments is not None  # as just checked
        factor = inverse_factor(moments.covariance)
        log_det = -2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        root = inverse_of_lower(factor)
        return NormalWishart(location, prior.mean_count, degrees, moments.covariance, root, log_det)
    scale = np.asarray(prior.scale)
    scale = scale if scale.ndim == 2 else np.diag(np.broadcast_to(scale, d))
    root = np.linalg.cholesky(scale)
    return NormalWishart(
        location,
        prior.mean_count,
        degrees,
        jnp.asarray(scale, dtype),
        jnp.asarray(root, dtype),
        2 * float(np.log(np.diag(root)).sum()),
    )


def moments(x: Array, weights: Array | None = None) -> Moments:
    """Mean and covariance of examples (equation D.17).

    Args:
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        Moments.

    Example:
        >>> found = moments(jnp.array([[0.0], [2.0]]))
        >>> found.mean.tolist(), found.covariance.tolist()
        ([1.0], [[2.0]])
    """
    weight, mean, second = overall_moments(x, weights)
    return Moments(mean, (second + second.T) / 2 / (weight - 1))


def moments_of(prior: BaseMeasure, x: Array, weights: Array | None) -> Moments | None:
    """The moments of examples, if a prior follows them.

    Args:
        prior: BaseMeasure.
        x: (n, d) floating.
        weights: (n,) c_i ≥ 0; one each where None.

    Returns:
        Moments, or None.

    Example:
        >>> moments_of(BaseMeasure(0.0, scale=1.0), jnp.zeros((1, 1)), None) is None
        True
    """
    return moments(x, weights) if prior.follows else None


def features_of(prior: BaseMeasure) -> Features | None:
    """What a prior needs of the examples, as the features of a model.

    Args:
        prior: BaseMeasure.

    Returns:
        Features; None where it needs nothing.

    Example:
        >>> features_of(BaseMeasure(0.0, scale=1.0)) is None
        True
    """
    if prior.scale is not None:
        return None
    return Features(_any, _expected, suffice=_suffice, lacking=_lacking)


REASONS = (
    (
        Status.SINGULAR,
        "the covariance of the examples, which the prior's scale follows, is singular: a column is "
        "constant or a linear function of others, or the weights sum to less than two examples; "
        "drop the column, scale the weights, or give scale",
    ),
)
"""Why a fit with a prior that follows the examples may be SINGULAR."""


def weakly_informative(x: Any, weights: Any = None) -> dict[str, Any]:
    """The settings of the default prior for some data, as numbers (equation D.17).

    As scikit-learn has them: m₀ is the mean of the examples and Ψ₀ their covariance, with κ₀ = 1
    and ν₀ = d. A component is expected to be smaller than all of them together, by how much is left
    open. With these numbers the prior stays the same for other data.

    Args:
        x: (n, d) numbers, no column a linear function of others.
        weights: (n,) c_i ≥ 0, which count as repeats; one each where None.

    Returns:
        Keyword arguments of `model`, `gibbs` and `elbo`.

    Raises:
        ValueError: where the covariance is singular, something is not finite, or the weights sum to
            less than two.

    Example:
        >>> weakly_informative([[0.0], [2.0]])
        {'location': (1.0,), 'scale': ((2.0,),), 'mean_count': 1.0, 'degrees': 1.0}
        >>> weakly_informative([[0.0], [2.0]], weights=[3, 1])["location"]
        (0.5,)
    """
    a = np.asarray(x, np.float64)
    if a.ndim != 2 or len(a) < 2 or not np.isfinite(a).all():
        raise ValueError(f"x: expected at least two rows of finite numbers, got shape {a.shape}")
    c = None if weights is None else np.asarray(weights, np.float64)
    if c is not None and (c.shape != (len(a),) or not (np.isfinite(c) & (c >= 0)).all()):
        raise ValueError(
            f"weights: expected a finite number of at least 0 for each of the {len(a)} rows of x, "
            f"got shape {c.shape}"
        )
    if not _suffice(a, c, np):
        raise ValueError(_lacking(a, c, None))
    mean, covariance = _in_float64(a, c)
    return {
        "location": tuple(mean.tolist()),
        "scale": tuple(tuple(row) for row in covariance.tolist()),
        "mean_count": 1.0,
        "degrees": float(a.shape[1]),
    }


def _any(x: Any, xp: Any) -> Any:
    """() True: there is nothing that a finite entry cannot be."""
    return xp.ones((), bool)


def _expected(x: Any, xp: Any) -> str:
    """Never asked for."""
    return "expected finite numbers"


def _suffice(x: Any, weights: Any, xp: Any) -> Any:
    """() whether the examples have a covariance that is not singular."""
    weight = x.shape[0] if weights is None else xp.sum(weights)
    enough = (weight > _TWO) & xp.all(varying(x, weights, xp=xp))
    return enough & (_are_independent(x, weights) if xp is np else _is_regular(x, weights))


def _is_regular(x: Array, weights: Array | None) -> Array:
    covariance = moments(x, weights).covariance
    diagonal = jnp.diagonal(inverse_factor(covariance))
    least = 8 * x.shape[1] * jnp.finfo(x.dtype).eps
    return jnp.all(1 / diagonal**2 > least * jnp.diagonal(covariance))


def _are_independent(x: np.ndarray, weights: np.ndarray | None) -> bool:
    """The same, where there is an example more than one, and columns vary."""
    _, covariance = _in_float64(x, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(np.diag(covariance))
        correlation = covariance / np.outer(deviation, deviation)
    try:
        pivots = np.diag(np.linalg.cholesky(correlation)) ** 2
    except np.linalg.LinAlgError:
        return False
    return bool(np.all(pivots > 8 * x.shape[1] * np.finfo(x.dtype).eps))


def _in_float64(x: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and (d, d) covariance."""
    c = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    weight = c.sum()
    mean = np.matmul(c, x) / weight
    away = x - mean
    shift = np.matmul(c, away) / weight
    away -= shift
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = np.matmul((away * c[:, None]).T, away) / (weight - 1)
    return mean + shift, (covariance + covariance.T) / 2


def _lacking(x: Any, weights: Any, names: tuple[str, ...] | None) -> str:
    """Why there is no such covariance."""
    remedy = "or give location and scale, the prior's, as numbers"
    if weights is not None and not np.sum(weights) > _TWO:
        return (
            "weights: expected a sum of at least two examples, since the prior follows their "
            f"covariance, got {np.sum(weights):g}; jp.data.normalised_weights(weights) sums "
            f"to the number of examples; {remedy}"
        )
    if len(x) < 2:
        return f"x: expected at least two examples, whose covariance the prior follows; {remedy}"
    constant = ~varying(x, weights, xp=np)
    if constant.any():
        name = column_name(int(constant.argmax()), names)
        return f"x: expected columns that vary, got {name}, constant; drop it, {remedy}"
    return (
        "x: expected no column that is a linear function of others, since the prior follows their "
        f"covariance; drop it, {remedy}"
    )


def _numbers(name: str, value: Any, wanted: str) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected {wanted}, got {value!r}") from error


def _hashable(a: np.ndarray) -> Any:
    """As nested tuples of floats."""
    if a.ndim == 2:
        return tuple(tuple(row) for row in a.tolist())
    return tuple(a.tolist()) if a.ndim else float(a)
