"""Pictures of fits, with matplotlib (`pip install 'jaxprob[plots]'`)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxprob.contract import Status
from jaxprob.fit import Fit, check_data_of
from jaxprob.models.trees import Node, nodes_of
from jaxprob.models.trees.decision_tree import SMOOTHING, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 200
_INCHES = 0.07  # of a character of a node's condition


def convergence(fits: Fit | Mapping[str, Fit], axes: "Sequence[Axes] | None" = None) -> Any:
    """Log-likelihood lost and gradient norm against steps.

    The log-likelihood (with its penalties) is shown as the distance to the best one among the
    fits, plus what that one's gap leaves open, on a logarithmic scale.

    Args:
        fits: a fit made with `trace=True`, or several by name.
        axes: two matplotlib axes; new ones where None.

    Returns:
        The two axes.

    Raises:
        ValueError: for a fit without a trace.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 3.0], [1.0, 1.0]], [0, 1, 0, 1]
        >>> fitted = jp.fit(jp.models.logistic.model(), x, y, l2=1.0, trace=True)
        >>> [ax.get_xlabel() for ax in convergence(fitted)]
        ['step', 'step']
    """
    fits = {"fit": fits} if isinstance(fits, Fit) else fits
    courses = {name: _course(name, fit) for name, fit in fits.items()}
    best = min(np.min(value) for value, _ in courses.values())
    open_ = min((float(f.gap) for f in fits.values() if np.isfinite(f.gap)), default=0.0)
    left, right = new_axes(2) if axes is None else axes
    for name, (value, norm) in courses.items():
        left.semilogy(value - best + max(open_, 1e-16 * abs(best)), ".-", label=name)
        right.semilogy(norm, ".-", label=name)
    left.set(xlabel="step", ylabel="log-likelihood below the maximum (nats)")
    right.set(xlabel="step", ylabel="largest entry of the gradient")
    if len(fits) > 1:
        left.legend()
    return left, right


def decision_boundary(
    fit: Fit,
    x: Any,
    y: Any,
    *,
    features: tuple[int | str, int | str] = (0, 1),
    class_names: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """The most probable class over two features, the others held at their means.

    Args:
        fit: of a model with `predict_log_proba`.
        x: (n, d) features, d of at least 2.
        y: (n,) labels.
        features: the columns on the axes, by their numbers or their names.
        class_names: for the legend.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes: regions shaded by the most probable class, the line where the two most probable
        classes are equally so, and the examples.

    Raises:
        ValueError: for other columns than were fitted, and other examples than a fit takes.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 3.0], [1.0, 1.0]], [0, 1, 0, 1]
        >>> fitted = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
        >>> decision_boundary(fitted, x, y).get_xlabel()
        'x0'
    """
    if len(features) != 2:
        raise ValueError(f"features: expected two columns, got {features!r}")
    x, y = _checked(fit, x, y)
    names, (i, j) = _names(fit, x), (_column(fit, x, f) for f in features)
    on = _one_axes(ax)
    spans = [np.linspace(*_padded(x[:, k]), _GRID) for k in (i, j)]
    first, second = np.meshgrid(*spans)
    grid = np.repeat(np.nanmean(x, axis=0)[None, :], first.size, axis=0)
    grid[:, i], grid[:, j] = first.ravel(), second.ravel()
    log_p = _log_proba(fit, grid)
    top = np.sort(log_p, axis=1)[:, ::-1]
    colours, called = _colours(log_p.shape[1]), _class_names(fit, class_names, log_p.shape[1])
    shade = np.asarray(colours)[np.argmax(log_p, axis=1)][:, :3].reshape(*first.shape, 3)
    extent = (spans[0][0], spans[0][-1], spans[1][0], spans[1][-1])
    on.imshow(shade, extent=extent, origin="lower", aspect="auto", alpha=0.25)
    lead = (top[:, 0] - top[:, 1]).reshape(first.shape)
    sign = np.where(np.argmax(log_p, axis=1).reshape(first.shape) == 0, 1, -1)
    if log_p.shape[1] == 2:
        on.contour(first, second, sign * lead, levels=[0.0], colors="black", linewidths=1)
    for k, colour in enumerate(colours):
        at, style = y == k, {"s": 12, "edgecolor": "white", "lw": 0.3, "label": called[k]}
        on.scatter(x[at, i], x[at, j], color=[colour], **style)
    on.set(xlabel=names[i], ylabel=names[j], xlim=extent[:2], ylim=extent[2:])
    on.legend(title="class", fontsize="small")
    return on


def probabilities(fit: Fit, x: Any, y: Any, *, ax: "Axes | None" = None) -> "Axes":
    """How much probability the fit gives to the label that each example has.

    Args:
        fit: of a model with `predict_log_proba`.
        x: (n, d) features.
        y: (n,) labels.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes: a histogram, on a logarithmic scale of counts.

    Raises:
        ValueError: for other columns than were fitted, and other examples than a fit takes.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 3.0], [1.0, 1.0]], [0, 1, 0, 1]
        >>> fitted = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
        >>> probabilities(fitted, x, y).get_ylabel()
        'examples'
    """
    x, y = _checked(fit, x, y)
    on = _one_axes(ax)
    own = np.take_along_axis(np.exp(_log_proba(fit, x)), y[:, None], axis=1)[:, 0]
    on.hist(own, bins=list(np.linspace(0, 1, 41)), color="tab:blue", log=True)
    on.set(xlabel="probability of the true label", ylabel="examples", xlim=(0, 1))
    return on


def calibration(fit: Fit, x: Any, y: Any, *, bins: int = 10, ax: "Axes | None" = None) -> "Axes":
    """How often a class is right among examples for which its probability was about p.

    For two classes the probability of class 1, for more those of all classes together, in bins of
    equal counts; bars are two standard errors. On the diagonal probabilities mean what they say.

    Args:
        fit: of a model with `predict_log_proba`.
        x: (n, d) features.
        y: (n,) labels.
        bins: how many.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes.

    Raises:
        ValueError: for other columns than were fitted, and other examples than a fit takes.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 3.0], [1.0, 1.0]], [0, 1, 0, 1]
        >>> fitted = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
        >>> calibration(fitted, x, y, bins=2).get_xlabel()
        'predicted probability'
    """
    x, y = _checked(fit, x, y)
    on = _one_axes(ax)
    p = np.exp(_log_proba(fit, x))
    hit = y[:, None] == np.arange(p.shape[1])[None, :]
    p, hit = (p[:, 1], hit[:, 1]) if p.shape[1] == 2 else (p.ravel(), hit.ravel())
    groups = [g for g in np.array_split(np.argsort(p, kind="stable"), bins) if len(g)]
    mean = np.array([p[g].mean() for g in groups])
    share = np.array([hit[g].mean() for g in groups])
    error = np.array([2 * np.sqrt(np.sum(p[g] * (1 - p[g]))) / len(g) for g in groups])
    on.plot([0, 1], [0, 1], color="grey", lw=1, ls="--")
    on.errorbar(mean, share, yerr=error, fmt="o-", ms=4, capsize=2)
    on.set(xlabel="predicted probability", ylabel="observed share", xlim=(-0.02, 1.02))
    return on


def confusion_matrix(
    fit: Fit,
    x: Any,
    y: Any,
    *,
    class_names: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How many examples of each class are predicted to be of which.

    Args:
        fit: of a model with `predict_log_proba`.
        x: (n, d) features.
        y: (n,) labels.
        class_names: K of them; numbers where None.
        ax: matplotlib axes; new ones where None.

    Returns:
        The axes: true classes down, predicted ones across.

    Raises:
        ValueError: for other columns than were fitted, and other examples than a fit takes.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import jaxprob as jp
        >>> x, y = [[-2.0, 1.0], [-1.0, 0.0], [0.0, 3.0], [1.0, 1.0]], [0, 1, 0, 1]
        >>> fitted = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
        >>> confusion_matrix(fitted, x, y).get_ylabel()
        'true class'
    """
    x, y = _checked(fit, x, y)
    on = _one_axes(ax)
    log_p = _log_proba(fit, x)
    k = log_p.shape[1]
    counts = np.zeros((k, k), int)
    np.add.at(counts, (y, np.argmax(log_p, axis=1)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    on.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for at in np.ndindex(k, k):
        if counts[at]:
            dark = share[at] > 0.5
            on.text(
                at[1],
                at[0],
                str(counts[at]),
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontsize="small",
            )
    names = _class_names(fit, class_names, k)
    on.set(xlabel="predicted class", ylabel="true class", xticks=range(k), yticks=range(k))
    on.set_xticklabels(names, rotation=45 if max(map(len, names)) > 3 else 0)
    on.set_yticklabels(names)
    return on


def tree(
    params: Params,
    *,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    smoothing: float = SMOOTHING,
    missing: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""A decision tree: what it asks, and how likely the classes are.

    Args:
        params: of one tree.
        feature_names: of the columns; x0, x1, ... where None.
        class_names: K of them; numbers where None.
        smoothing: a of equation 3.23.
        missing: whether to say where missing entries go.
        ax: matplotlib axes; new ones where None, as large as the tree wants.

    Returns:
        The axes: a bar for each node, divided as the probabilities of the classes are; above it
        what leads there, and the weight of its examples. Lines are thicker where more go.

    Raises:
        ValueError: for several trees, and for too few names.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> from jax import numpy as jnp
        >>> from jaxprob.models import decision_tree
        >>> x, y = jnp.array([[0.0], [1.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1])
        >>> params = decision_tree.grow(x, y, num_classes=2, depth=1).params
        >>> [text.get_text() for text in tree(params).texts]
        ['all\n4', 'x0 ≤ 3\n2', 'x0 > 3\n2']
    """
    nodes = nodes_of(params, feature_names, missing=missing)
    k = np.shape(params.counts)[1]
    if class_names is not None and len(class_names) != k:
        raise ValueError(f"class_names: expected {k} names, got {len(class_names)}")
    place = _leaf_order(nodes)
    leaves = sum(not node.children for node in nodes.values())
    deepest = max(node.depth for node in nodes.values())
    on = _one_axes(ax)
    if ax is None:
        longest = max(len(node.condition) for node in nodes.values())
        size = max(5.0, leaves * max(1.0, _INCHES * longest)), max(3.0, 1.1 * (deepest + 1))
        on.figure.set_size_inches(*size)  # pyright: ignore[reportAttributeAccessIssue]
    colours, half, height = _colours(k), 0.4, 0.2
    for index, node in nodes.items():
        x, y = place[index], -float(node.depth)
        for child in node.children:
            at = place[child], -float(node.depth + 1) + height
            share = nodes[child].weight / max(node.weight, 1e-30)
            on.plot([x, at[0]], [y, at[1]], color="grey", lw=0.5 + 3 * share, zorder=0)
        count = node.counts + smoothing
        left = x - half
        for j, p in enumerate(count / count.sum()):
            on.barh(y, 2 * half * p, height=height, left=left, align="edge", color=[colours[j]])
            left += 2 * half * p
        text = f"{node.condition}\n{node.weight:g}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        on.text(x, y + height + 0.08, text, ha="center", va="bottom", fontsize=7, bbox=box)
    names = [f"class {j}" for j in range(k)] if class_names is None else class_names
    for colour, name in zip(colours, names, strict=True):
        on.bar(0, 0, color=[colour], label=name)
    on.set(xlim=(-0.6, leaves - 0.4), ylim=(-deepest - 0.2, 0.7))
    on.legend(fontsize=7, loc="upper left")
    on.set_axis_off()
    return on


def _leaf_order(nodes: Mapping[int, Node]) -> dict[int, float]:
    """Where nodes stand: leaves side by side, others in the middle of their children."""
    place: dict[int, float] = {}
    count = 0

    def visit(index: int) -> float:
        nonlocal count
        children = nodes[index].children
        if children:
            place[index] = sum(map(visit, children)) / 2
        else:
            place[index] = float(count)
            count += 1
        return place[index]

    visit(0)
    return place


def _one_axes(ax: "Axes | None") -> "Axes":
    return new_axes(1) if ax is None else ax


def new_axes(count: int) -> Any:
    """Axes side by side in a new figure.

    Args:
        count: how many.

    Returns:
        One of matplotlib's axes, or an array of them.

    Raises:
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> len(new_axes(2))
        2
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "jaxprob.plots needs matplotlib: pip install 'jaxprob[plots]'"
        ) from error
    figure, axes = plt.subplots(1, count, figsize=(5 * count, 4), layout="constrained")
    del figure
    return axes


def _colours(count: int) -> list[tuple[float, ...]]:
    import matplotlib

    return [matplotlib.colormaps["tab10"](k % 10) for k in range(count)]


def _course(name: str, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Objective and gradient norm of the steps that were made."""
    if fit.trace is None:
        raise ValueError(f"{name}: expected a fit made with trace=True, got one without a trace")
    if np.ndim(fit.trace.value) != 1:
        raise ValueError(f"{name}: expected one fit, got fits of shape {np.shape(fit.status)}")
    made = ~np.isnan(np.asarray(fit.trace.value))
    return np.asarray(fit.trace.value)[made], np.asarray(fit.trace.grad_norm)[made]


def _checked(fit: Fit, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels to draw: one fit of classes, and the columns that were fitted."""
    model = fit.model
    if model.predict.log_proba is None:
        raise ValueError(f"fit: {model.name} predicts no classes")
    if np.shape(fit.status) != ():
        raise ValueError(f"fit: expected one fit, got fits of shape {np.shape(fit.status)}")
    if int(fit.status) == Status.INVALID_INPUT:
        raise ValueError("fit: its input was invalid, so it predicts nothing")
    data = check_data_of(model, x, None if model.variables.y is None else y, fitted=fit.schema)
    x = np.asarray(data.x)
    labels = np.asarray(y if data.y is None else data.y)
    if labels.shape != (len(x),):
        raise ValueError(f"y: expected shape ({len(x)},), one of each row of x, got {labels.shape}")
    return x, labels


def _log_proba(fit: Fit, x: np.ndarray) -> np.ndarray:
    return np.asarray(fit.predict_log_proba(x))


def _class_names(fit: Fit, given: Sequence[str] | None, count: int) -> list[str]:
    """What the classes are called: as the user says, or as they were when fitted."""
    if given is None:
        return [str(c) for c in (range(count) if fit.classes is None else fit.classes)]
    if len(given) != count:
        raise ValueError(f"class_names: expected {count} names, got {len(given)}")
    return [str(name) for name in given]


def _column(fit: Fit, x: Any, feature: int | str) -> int:
    """The number of a column that is given by its number or its name."""
    names = _names(fit, x)
    if isinstance(feature, str):
        if feature not in names:
            raise ValueError(f"features: expected some of {tuple(names)}, got {feature!r}")
        return list(names).index(feature)
    if isinstance(feature, bool) or not isinstance(feature, int | np.integer):
        raise TypeError(f"features: expected numbers or names of columns, got {feature!r}")
    if not -len(names) <= feature < len(names):
        raise ValueError(f"features: expected columns among 0..{len(names) - 1}, got {feature}")
    return int(feature) % len(names)


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.05 * (high - low or 1.0)
    return low - room, high + room


def _names(fit: Fit, x: Any) -> Sequence[str]:
    return fit.feature_names or [f"x{j}" for j in range(np.shape(x)[1])]
