"""What became of many fits: how many ended how, and why some did not converge."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxprob.contract import Model, Status, is_usable
from jaxprob.fit.verdicts import closeness
from jaxprob.fit.verdicts import reason as reason_of

_SHOWN = 20  # lanes
_SHOWN_NAMES = 3
_NOTHING = 1e4  # times ε, of the largest entry of a direction: what rounding leaves of a zero


class Failure(NamedTuple):
    """A fit that did not converge."""

    lane: int
    status: Status
    reason: str


@dataclass(frozen=True, repr=False)
class Report:
    """Counts of the statuses of many fits, and the lanes that did not converge; prints as a table.

    Attributes:
        num_lanes: how many fits.
        counts: of each Status that occurred.
        failures: one for each lane that did not converge, with its reason.
        num_steps: (least, median, most) of the converged lanes.
        gap, grad_norm: the largest of the converged lanes.
        closeness: what that gap says of each of them, in words.
    """

    num_lanes: int
    counts: dict[Status, int]
    failures: tuple[Failure, ...]
    num_steps: tuple[int, float, int]
    gap: float
    grad_norm: float
    closeness: str

    def __str__(self) -> str:
        if self.num_lanes == 1 and self.failures:
            return f"{self.failures[0].status.name}: {self.failures[0].reason}"
        lines = [f"{self.num_lanes:,} fit{'s' * (self.num_lanes > 1)}"]
        width = max(len(s.name) for s in self.counts)
        lines += [f"  {s.name:<{width}}  {count:>10,}" for s, count in self.counts.items()]
        if any(is_usable(status) for status in self.counts):
            least, median, most = self.num_steps
            slope = f", gradient at most {self.grad_norm:.1e}"
            kind = "converged" if Status.CONVERGED in self.counts else "usable"
            lines.append(
                f"{kind}: {least} to {most} steps, median {median:g}; {self.closeness}"
                f"{'' if math.isnan(self.grad_norm) else slope}"
            )
        for lane, status, why in self.failures[:_SHOWN]:
            lines.append(f"lane {lane}: {status.name}: {why}")
        if len(self.failures) > _SHOWN:
            lines.append(f"… and {len(self.failures) - _SHOWN:,} more in .failures")
        return "\n".join(lines)

    __repr__ = __str__


def report(fits: Any) -> Report:
    """Count how many fits ended how, and say why some did not converge.

    Args:
        fits: a Fit of arrays, such as from `jaxprob.many.fit_many` or `jax.vmap` of a fit; or one
            fit.

    Returns:
        A Report; print it. For a separated lane it names the coefficients that run off.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [1.0], [2.0]], [0, 1, 0, 1]
        >>> fits = jp.many.fit_many(jp.models.logistic.model(), x, [y, [0, 0, 1, 1]])
        >>> print(jp.report(fits).failures[0].reason)
        the classes can be separated, so there is no finite maximum; add l2, or firth=True; x0 → +∞
    """
    status = np.atleast_1d(np.asarray(fits.status)).ravel()
    batch = np.ndim(fits.status)
    names = parameter_names(fits.params, fits.feature_names, batch=batch, model=fits.model)
    directions = flat_params(fits.direction, batch=np.ndim(fits.status))
    failures = tuple(
        Failure(int(i), Status(int(s := status[i])), _reason(fits.model, s, directions[i], names))
        for i in np.flatnonzero(~is_usable(status))
    )
    found = Counter(int(s) for s in status)
    converged = is_usable(status)
    steps = np.atleast_1d(np.asarray(fits.num_steps)).ravel()[converged]
    gaps, grads = (np.atleast_1d(a).ravel()[converged] for a in (fits.gap, fits.grad_norm))
    some = len(steps) > 0
    gap = float(gaps.max()) if some else math.nan
    penalised = fits.l2 is not None or fits.l1 is not None
    close = closeness(fits.model, gap, firth=fits.firth, penalised=penalised) if some else ""
    return Report(
        num_lanes=len(status),
        counts={s: found[s] for s in Status if found[s]},
        failures=failures,
        num_steps=(steps.min(), float(np.median(steps)), steps.max()) if some else (0, math.nan, 0),
        gap=gap,
        grad_norm=float(grads.max()) if some else math.nan,
        closeness=close,
    )


def _reason(model: Model, status: int, direction: np.ndarray, names: tuple[str, ...]) -> str:
    words = reason_of(model, Status(int(status)))
    if status != Status.SEPARATED:
        return words
    return f"{words}; {', '.join(running_off(direction, names))}"


def running_off(direction: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """The coefficients that grow for ever along a direction, the largest first.

    Args:
        direction: (p,).
        names: (p,) of the parameters.

    Returns:
        Such as ["x3 → +∞"], the first few.

    Example:
        >>> running_off(np.array([0.0, -2.0]), ("x0", "x1"))
        ['x1 → -∞']
    """
    sizes = np.abs(direction)
    least = _NOTHING * np.finfo(sizes.dtype).eps * sizes.max()
    moving = [i for i in np.argsort(-sizes) if sizes[i] > least]
    shown = [f"{names[i]} → {'+' if direction[i] > 0 else '-'}∞" for i in moving[:_SHOWN_NAMES]]
    more = len(moving) - len(shown)
    return shown + ([f"and {more} more"] if more else [])


def flat_params(params: Any, *, batch: int = 1) -> np.ndarray:
    """The parameters of many fits as a matrix, in the order of `jax.flatten_util.ravel_pytree`.

    Args:
        params: of many fits, or of one.
        batch: how many leading axes are lanes.

    Returns:
        (B, p), of one row for one fit.

    Example:
        >>> from jaxprob.models.regression.logistic import Params
        >>> flat_params(Params(np.ones((2, 3)), np.zeros(2))).tolist()
        [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    """
    leaves = [np.asarray(a) for a in jax.tree.leaves(params)]
    size = math.prod(leaves[0].shape[:batch])
    return np.concatenate([a.reshape(size, -1) for a in leaves], axis=1)


def parameter_names(
    params: Any,
    feature_names: tuple[str, ...] | None,
    *,
    batch: int = 0,
    model: Model | None = None,
) -> tuple[str, ...]:
    """A name for each parameter: the feature, and the row it belongs to where there are several.

    Args:
        params: of a fit, or of many.
        feature_names: (d,), or None.
        batch: how many leading axes of the parameters are lanes.
        model: that they are of, which may name them itself.

    Returns:
        (p,).

    Example:
        >>> from jaxprob.models.regression.logistic import Params
        >>> parameter_names(Params(np.zeros(2), np.zeros(())), ("age", "sex"))
        ('age', 'sex', 'bias')
    """
    if model is not None and model.geometry.names is not None:
        one = jax.tree.map(lambda a: a[(0,) * batch], params)
        return model.geometry.names(one, feature_names)
    names: list[str] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        own = jax.tree_util.keystr(path).lstrip(".")
        shape = np.shape(leaf)[batch:]
        columns: tuple[str, ...] = (own,)
        if own == "weights" and shape:
            columns = feature_names or tuple(f"x{j}" for j in range(shape[-1]))
            shape = shape[:-1]
        rows = [", ".join(map(str, at)) for at in np.ndindex(*shape)]
        names += [f"{row}: {c}" if row else c for row in rows for c in columns]
    return tuple(names)
