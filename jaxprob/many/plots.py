"""Pictures of many fits, with matplotlib (`pip install 'jaxprob[plots]'`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.flatten_util import ravel_pytree

from jaxprob.contract import is_usable
from jaxprob.fit import Fit
from jaxprob.fit.report import flat_params, parameter_names
from jaxprob.many.path import Path
from jaxprob.many.resampling import Bootstrap
from jaxprob.many.validation import CrossValidation
from jaxprob.reports.plots import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 6
_ROOM = 100  # for labels, on a logarithmic scale
_BARS = 30


def distributions(
    boot: Bootstrap, *, names: Sequence[str] | None = None, level: float = 0.95
) -> "list[Axes]":
    """How the parameters vary over the replicates of a bootstrap.

    Args:
        boot: from `jaxprob.many.bootstrap`.
        names: of the parameters to show; the first six where None.
        level: of the BCa interval that is shaded.

    Returns:
        The axes, a histogram each: the fit as a line, the interval shaded.

    Raises:
        ModuleNotFoundError: without matplotlib.
        ValueError: for names that there are none of.

    Example:
        >>> import jax, jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 8, [0, 0, 1, 0, 1, 1, 0, 1] * 5
        >>> model, key = jp.models.logistic.model(), jax.random.key(0)
        >>> axes = distributions(jp.many.bootstrap(model, x, y, key, num_replicates=50))
        >>> [ax.get_xlabel() for ax in axes]
        ['x0', 'bias']
    """
    every = parameter_names(boot.fit.params, boot.fit.feature_names, model=boot.fit.model)
    shown = list(every[:6] if names is None else names)
    unknown = [n for n in shown if n not in every]
    if unknown:
        raise ValueError(f"names: expected some of {every}, got {unknown}")
    draws = flat_params(boot.statistics())
    estimate = ravel_pytree(boot.fit.params)[0]
    low, high = (ravel_pytree(limit)[0] for limit in boot.interval(level=level))
    axes = np.atleast_1d(new_axes(len(shown)))
    for ax, name in zip(axes, shown, strict=True):
        i = every.index(name)
        ax.hist(draws[:, i], bins=_BARS, color="tab:blue")
        ax.axvspan(float(low[i]), float(high[i]), color="tab:orange", alpha=0.25, zorder=0)
        ax.axvline(float(estimate[i]), color="black")
        ax.set(xlabel=name, ylabel="replicates")
    return list(axes)


def coefficients(path: Path, *, chosen: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """The penalised parameters along a path of penalties.

    Args:
        path: from `jaxprob.many.path`.
        chosen: a penalty to mark.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes: a line for each parameter, penalties on a logarithmic scale; those that end
        largest are named.

    Raises:
        ValueError: for a path without a positive penalty.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], [0, 0, 1, 0, 1]
        >>> lasso = jp.many.path(jp.models.logistic.model(), x, y, l1_ratio=1.0, num_values=5)
        >>> coefficients(lasso).get_xlabel()
        'penalty'
    """
    on = new_axes(1) if ax is None else ax
    order = np.argsort(path.values)
    order = order[path.values[order] > 0]
    if not len(order):
        raise ValueError(f"path: expected some positive penalty, got {path.values}")
    lines, names = path.coefficients()[order], path.names()
    least = path.values[order][0]
    for rank, i in enumerate(np.argsort(-np.abs(lines[0]))):
        (line,) = on.plot(path.values[order], lines[:, i], linewidth=1)
        if rank < _MOST_LABELS:
            where = (0.9 * least, lines[0, i])
            on.annotate(
                names[i], where, ha="right", va="center", fontsize=7, color=line.get_color()
            )
    on.set_xlim(left=least / _ROOM)
    if chosen is not None:
        on.axvline(chosen, color="black", linestyle="--", label=f"chosen: {chosen:.3g}")
        on.legend()
    on.set(xlabel="penalty", ylabel="coefficient", xscale="log")
    return on


def scores(cv: CrossValidation, *, ax: "Axes | None" = None) -> "Axes":
    """The held-out log-likelihood for each of several penalties.

    Args:
        cv: from `jaxprob.many.cross_validate`, of several penalties.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes: the means with their standard errors, the best penalty, and the largest within
        one error of it.

    Raises:
        ModuleNotFoundError: without matplotlib.
        ValueError: for a single penalty.

    Example:
        >>> import jax, jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]] * 4, [0, 0, 1, 0, 1, 1, 0, 1, 0, 1] * 2
        >>> model, l2 = jp.models.logistic.model(), np.array([0.1, 10.0], "float32")
        >>> cv = jp.many.cross_validate(model, x, y, jax.random.key(0), l2=l2)
        >>> scores(cv).get_ylabel()
        'nats per held-out example'
    """
    best, simplest = cv.best(), cv.simplest()
    on = new_axes(1) if ax is None else ax
    size = np.asarray(sum(np.asarray(p, float) for p in (cv.l2, cv.l1) if p is not None))
    on.errorbar(size, cv.mean(), cv.standard_error(), fmt=".-", capsize=2, color="tab:blue")
    on.axvline(size[best], color="black", linestyle="--", label=f"best: {size[best]:.3g}")
    on.axvline(size[simplest], color="grey", linestyle=":", label="within one standard error")
    on.set(xlabel="penalty", ylabel="nats per held-out example", xscale="log")
    on.legend()
    return on


def statuses(fits: Fit, *, ax: "Axes | None" = None) -> "Axes":
    """How many of many fits ended how.

    Args:
        fits: of `jaxprob.fit_many`, or any Fit of arrays.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes: a bar for each status, counts on a logarithmic scale.

    Raises:
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [1.0], [2.0]], [0, 1, 0, 1]
        >>> fits = jp.many.fit_many(jp.models.logistic.model(), x, [y, [0, 0, 1, 1]])
        >>> [label.get_text() for label in statuses(fits).get_yticklabels()]
        ['CONVERGED', 'SEPARATED']
    """
    on = new_axes(1) if ax is None else ax
    counts: dict[Any, int] = fits.report().counts
    bars = on.barh(
        [s.name for s in counts],
        list(counts.values()),
        color=["tab:green" if is_usable(s) else "tab:red" for s in counts],
    )
    on.bar_label(bars, [f"{c:,}" for c in counts.values()], padding=3)
    on.set(xlabel="fits", xscale="log", xlim=(0.5, 4 * max(counts.values())))
    on.invert_yaxis()
    return on
