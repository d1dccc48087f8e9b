"""The maximum-likelihood formula of naive Bayes: sums over the examples, and what follows."""

import jax.numpy as jnp
from jax import Array

from jaxprob.contract import (
    Estimate,
    Status,
)
from jaxprob.models.bayes.families import (
    Family,
    Gaussian,
    columns_of,
    score,
)
from jaxprob.models.bayes.parameters import Params, Statistics
from jaxprob.numerics import log_softmax, total
from jaxprob.numerics.products import vdot
from jaxprob.runtime.compilation import compiled


@compiled("features", "num_classes")
def statistics(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    num_classes: int,
    features: tuple[Family, ...],
) -> Statistics:
    """The sums over each class that a fit needs (equation 3.6).

    Args:
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        num_classes: K.
        features: families of blocks of columns.

    Returns:
        Statistics.

    Example:
        >>> x, y = jnp.array([[1.0], [3.0]]), jnp.array([1, 1])
        >>> statistics(x, y, num_classes=2, features=(Gaussian(),)).features[0].mean.tolist()
        [[0.0], [2.0]]
    """
    member = jnp.asarray(y[:, None] == jnp.arange(num_classes)[None, :], x.dtype)
    member = member if weights is None else weights[:, None] * member
    parts = tuple(family.statistics(columns_of(family, x), member) for family in features)
    return Statistics(total(member), parts)


def merge(a: Statistics, b: Statistics, *, features: tuple[Family, ...]) -> Statistics:
    """The statistics of two sets of examples together.

    Args:
        a: of some examples.
        b: of others.
        features: families of blocks of columns.

    Returns:
        Statistics.

    Example:
        >>> x, y = jnp.array([[1.0], [3.0]]), jnp.array([0, 0])
        >>> families = {"num_classes": 1, "features": (Gaussian(),)}
        >>> one, two = (statistics(x[i : i + 1], y[i : i + 1], **families) for i in (0, 1))
        >>> merge(one, two, features=(Gaussian(),)).features[0].scatter.tolist()
        [[2.0]]
    """
    parts = zip(features, a.features, b.features, strict=True)
    return Statistics(a.weight + b.weight, tuple(family.merge(*own) for family, *own in parts))


def update(
    known: Statistics,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    features: tuple[Family, ...],
) -> Statistics:
    """The statistics with a batch of examples more.

    Args:
        known: of what came before.
        x: (n, d) floating.
        y: (n,) labels in 0..K-1, any integer dtype.
        weights: (n,) c_i ≥ 0; one each where None.
        features: families of blocks of columns.

    Returns:
        Statistics; `estimate` makes parameters of them.

    Example:
        >>> x, y, features = jnp.array([[1.0], [3.0]]), jnp.array([0, 1]), (Gaussian(),)
        >>> known = statistics(x, y, num_classes=2, features=features)
        >>> update(known, x, y, features=features).weight.tolist()
        [2.0, 2.0]
    """
    batch = statistics(x, y, weights, num_classes=len(known.weight), features=features)
    return merge(known, batch, features=features)


def of_statistics(
    params: Params, known: Statistics, *, features: tuple[Family, ...]
) -> tuple[Array, Params]:
    """Log-likelihood and hand-derived gradient (equations 3.6, 3.7) of what is known of examples.

    Args:
        params: Params.
        known: statistics of examples.
        features: families of blocks of columns.

    Returns:
        () nats, and Params of derivatives.

    Example:
        >>> from jaxprob.models import naive_bayes as nb
        >>> features = (Gaussian(),)
        >>> params = nb.init(None, jnp.zeros((1, 1)), num_classes=1, features=features)
        >>> x, y = jnp.zeros((1, 1)), jnp.array([0])
        >>> known = statistics(x, y, num_classes=1, features=features)
        >>> round(float(of_statistics(params, known, features=features)[0]), 4)
        -0.9189
    """
    log_p = log_softmax(params.class_logits)
    value = vdot(known.weight, log_p)
    by_class = score(params.class_logits, known.weight)
    parts = list(zip(features, params.features, known.features, strict=True))
    value += sum(family.log_likelihood(*own) for family, *own in parts)
    return value, Params(by_class, tuple(family.grad(*own) for family, *own in parts))


@compiled("features", "smoothing")
def estimate(known: Statistics, *, smoothing: float, features: tuple[Family, ...]) -> Estimate:
    """The maximum a posteriori, of the likelihood where nothing is smoothed.

    Args:
        known: statistics of examples.
        smoothing: added to the weight of each class.
        features: families of blocks of columns.

    Returns:
        Parameters with a status: COLLAPSED where a Gaussian feature is constant within a class,
        SEPARATED where a value never occurs and is not smoothed, CLASS_ABSENT where that is a
        class.

    Example:
        >>> x, y = jnp.array([[1.0], [3.0]]), jnp.array([0, 0])
        >>> known = statistics(x, y, num_classes=1, features=(Gaussian(),))
        >>> made = estimate(known, smoothing=0.0, features=(Gaussian(),))
        >>> made.params.features[0].mean.tolist(), Status(int(made.status)).name
        ([[2.0]], 'CONVERGED')
    """
    count = known.weight + smoothing
    empty = known.weight <= 0
    smooth = smoothing > 0 and all(family.smoothed for family in features)
    absent = jnp.zeros((), bool) if smooth else jnp.any(empty)
    logs = jnp.log(jnp.where(count > 0, count, 1.0))
    made = [family.estimate(own) for family, own in zip(features, known.features, strict=True)]
    status = jnp.int32(Status.CONVERGED)
    for family, (_, unbounded, _) in zip(features, made, strict=True):
        kind = Status.COLLAPSED if isinstance(family, Gaussian) else Status.SEPARATED
        worse = (status == Status.CONVERGED) | (kind == Status.SEPARATED)
        status = jnp.where(unbounded & worse, jnp.int32(kind), status)
    status = jnp.where(absent, jnp.int32(Status.CLASS_ABSENT), status)
    params = Params(logs - jnp.mean(logs), tuple(own for own, _, _ in made))
    direction = Params(jnp.zeros_like(logs), tuple(along for _, _, along in made))
    return Estimate(params, status, direction)
