"""Many fits in one call: every argument may be shared by the lanes, or be each lane's own."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array
from jax.core import Tracer, eval_context

from jaxprob.contract import Model
from jaxprob.fit import Fit, check_solver, default_solver
from jaxprob.many.engine.arguments import make_lanes
from jaxprob.many.engine.running import run
from jaxprob.solvers.driver import Solver


def fit_many(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    in_axes: Mapping[str, int | None] | None = None,
    weights: Any = None,
    offset: Any = None,
    l2: Any = None,
    l1: Any = None,
    firth: bool = False,
    solver: Solver | None = None,
    init: Any = None,
    key: Array | None = None,
    memory_budget: int | None = None,
    progress: bool | None = None,
) -> Fit:
    """Fit one model many times, each lane with its own data, weights, penalties or start.

    An argument with one axis more than `jaxprob.fit` expects has a lane axis, the first; others are
    shared. So weights (B, n) with x (n, d) are B fits on one data matrix, and x (B, n, d) with y
    (B, n) are B problems of their own. Lanes run in blocks that fit the cache and the memory
    budget, over all local devices; those that need more steps than others are gathered and go on
    together.

    What is asked of the result later is about the data that were fitted: NumPy's arrays are copied.
    Above 1 GiB they are not, and once they have changed, `fits.lane(i)` raises a ValueError.

    What is wrong with one lane is its status, and leaves the others alone. Lanes that share x and y
    start from the fit of their mean, so `num_steps` are fewer than alone.

    Args:
        model: such as `jaxprob.models.logistic.model()`.
        x: (n, d) features, or (B, n, d).
        y: (n,) labels 0..K-1, counts or numbers, or (B, n); none for a density of x alone.
        in_axes: for arguments by name, where the lane axis is if not the first, None for shared:
            `{"weights": 1}` for weights (n, B).
        weights: (n,) of the examples, or (B, n).
        offset: (n,) or (n, K) as the model has it, or with a lane axis.
        l2: () ≥ 0, or (B,).
        l1: () ≥ 0, or (B,).
        firth: whether to add Firth's penalty, as `jaxprob.fit` does; separated lanes are finite
            then.
        solver: how to minimise; as the model has it where None, proximal Newton with l1.
        init: parameters to start from, or a tree of them with a lane axis.
        key: a typed PRNG key for models that start at random, one for all lanes, which is split, or
            (B,) of them.
        memory_budget: bytes that a block of lanes may take; a quarter of the device's where None.
        progress: whether to show a progress bar, if tqdm is installed; for runs of some seconds on
            a terminal where None.

    Returns:
        A Fit of arrays, one entry a lane; `fits.report()` counts the statuses and names the lanes
        that failed, `fits.lane(i)` is one of the fits.

    Raises:
        ValueError: before any computation, for shapes that do not fit, and values out of range in
            what the lanes share. What a lane alone has wrong is its status, INVALID_INPUT.
        TypeError: for arguments of the wrong type.
        Interrupted: a KeyboardInterrupt, whose `fits` holds what was finished.

    Example:
        >>> import numpy as np
        >>> from jaxprob.models import logistic
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], [0, 0, 1, 0, 1]
        >>> fits = fit_many(logistic.model(), x, y, l2=np.array([0.1, 1.0, 10.0]))
        >>> [round(float(w), 2) for w in fits.params.weights[:, 0]], fits.status.tolist()
        ([1.0, 0.63, 0.16], [0, 0, 0])
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model: expected one such as jaxprob.models.logistic.model(), got {model!r}"
        )
    given = {"x": x, "y": y, "weights": weights, "offset": offset, "l2": l2, "l1": l1}
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((given, init))):
        raise TypeError(
            "fit_many: expected concrete arrays, got a tracer; inside jit use jax.vmap(jaxprob.fit)"
        )
    with eval_context():  # concrete arrays are fitted also while something else is traced
        lanes, schema = make_lanes(model, given, init, in_axes, key=key, firth=firth)
        if solver is None:
            has_l1, has_l2 = l1 is not None, l2 is not None
            solver = default_solver(model, has_l1=has_l1, has_l2=has_l2, firth=firth)
        check_solver(solver, lanes.problem(0))
        lanes = lanes.recentred(solver)
        return run(lanes, solver, schema, memory_budget=memory_budget, progress=progress)
