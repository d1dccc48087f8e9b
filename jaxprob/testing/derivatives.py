r"""Is a derivative that was derived by hand right? Three ways to compute it, compared.

The hand-derived one, that of `jax.grad` (or `jax.hessian`), and a numerical one from values alone
are computed in float64, and the hand-derived one also in the dtype that it was given; each at the
given parameters and at harder ones: zero, tiny, large, and so large that probabilities round to 1.

Two results agree where they differ by no more than rounding explains: a multiple of ε times the
rounding scale of that very coordinate (see `jaxprob.testing.rounding`), not of the largest one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxprob.testing.numerical import numerical_jacobian
from jaxprob.testing.rounding import longest_sum, rounding_scale

HARD_POINTS = {"given": 1.0, "zero": 0.0, "tiny": 2.0**-10, "large": 8.0, "huge": 64.0}
"""What the parameters are multiplied by."""

_ALLOWED = 16.0  # times ε times the rounding scale,
_GROWTH = 2.0  # and so much more for each √n: a sum of n terms in a row walks at random
_ROOM = 2.0**8  # for what is on the way to a number that the dtype can hold
_ALLOWED_NUMERICAL = 1e3  # times the error that the extrapolation estimates for itself


class Check(NamedTuple):
    """The worst coordinate of one leaf, or block of a Hessian, at one point."""

    point: str
    leaf: str
    index: tuple[int, ...]
    hand: float
    automatic: float
    numerical: float
    ulps: float
    """|hand - automatic| in units in the last place of the latter."""
    relative: float
    """|hand - automatic| / rounding scale: relative to the size of the summands."""
    dtype: str
    """In which the hand-derived value was computed."""
    fault: str
    """What is wrong, in words; empty where all agree."""


class Report(NamedTuple):
    """All checks of one function."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(not c.fault for c in self.checks)

    def __str__(self) -> str:
        head = ("point", "dtype", "leaf", "worst at", "hand", "automatic", "numerical", "ulps")
        rows = [(*head, "relative", "")] + [
            (
                *(c.point, c.dtype, c.leaf, str(list(c.index))),
                *(f"{v:.10g}" for v in (c.hand, c.automatic, c.numerical)),
                *(f"{v:.2g}" for v in (c.ulps, c.relative)),
                c.fault or "ok",
            )
            for c in self.checks
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


class _Measured(NamedTuple):
    """What the comparison needs, as arrays of one shape but for the value."""

    value: Any  # ()
    hand: Any
    automatic: Any
    numerical: Any
    numerical_error: Any
    rounding: Any
    terms: Any  # () of the longest sum


def compare_gradients(
    fn: Callable[..., Array],
    hand_grad: Callable[..., Any],
    *args: Any,
    hard: bool = True,
    key: Array | None = None,
) -> Report:
    """Compare a hand-derived gradient with `jax.grad` and with a numerical derivative.

    Args:
        fn: (params, *rest) -> ().
        hand_grad: (params, *rest) -> the gradient in params, a pytree like it.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too, not only at the given one.
        key: a typed PRNG key for the estimate of rounding.

    Returns:
        A Report, one line for each leaf, point and dtype. Points where fn or `jax.grad` of it is
        not finite are left out, but for the given one.

    Raises:
        ValueError: where fn does not return one number, or hand_grad no tree like params.

    Example:
        >>> import jax.numpy as jnp
        >>> report = compare_gradients(lambda w: jnp.sum(w**3), lambda w: 3 * w**2, jnp.arange(3.0))
        >>> report.ok, len(report.checks) >= 5
        (True, True)
    """
    return _compare(fn, hand_grad, args, hard, key, order=1)


def compare_hessians(
    fn: Callable[..., Array],
    hand_hessian: Callable[..., Array],
    *args: Any,
    hard: bool = True,
    key: Array | None = None,
) -> Report:
    """Compare a hand-derived Hessian with `jax.hessian` and with differences of `jax.grad`.

    Args:
        fn: (params, *rest) -> ().
        hand_hessian: (params, *rest) -> (p, p) in the order of `ravel_pytree(params)`.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too, not only at the given one.
        key: a typed PRNG key for the estimate of rounding.

    Returns:
        A Report, one line for each pair of leaves, point and dtype.

    Raises:
        ValueError: where fn does not return one number, or hand_hessian no (p, p).

    Example:
        >>> import jax.numpy as jnp
        >>> report = compare_hessians(
        ...     lambda w: jnp.sum(w**3), lambda w: jnp.diag(6 * w), jnp.arange(3.0))
        >>> report.ok
        True
    """
    return _compare(fn, hand_hessian, args, hard, key, order=2)


def assert_gradients_match(
    fn: Callable[..., Array],
    hand_grad: Callable[..., Any],
    *args: Any,
    hard: bool = True,
    key: Array | None = None,
) -> None:
    """Raise AssertionError unless a hand-derived gradient is right; see `compare_gradients`.

    Args:
        fn: (params, *rest) -> ().
        hand_grad: (params, *rest) -> the gradient in params, a pytree like it.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too.
        key: a typed PRNG key for the estimate of rounding.

    Raises:
        AssertionError: naming leaf, index, both values, and the error in ulps and relative to the
            size of the summands.
        ValueError: where fn does not return one number, or hand_grad no tree like params.

    Example:
        >>> import jax.numpy as jnp
        >>> try:
        ...     assert_gradients_match(lambda w: jnp.sum(w**3), lambda w: 6 * w**2, jnp.arange(3.0))
        ... except AssertionError as error:
        ...     print(str(error).splitlines()[0])
        gradient: hand-derived and automatic differ; hand-derived is 2 times the automatic
    """
    _assert("gradient", compare_gradients(fn, hand_grad, *args, hard=hard, key=key))


def assert_hessians_match(
    fn: Callable[..., Array],
    hand_hessian: Callable[..., Array],
    *args: Any,
    hard: bool = True,
    key: Array | None = None,
) -> None:
    """Raise AssertionError unless a hand-derived Hessian is right; see `compare_hessians`.

    Args:
        fn: (params, *rest) -> ().
        hand_hessian: (params, *rest) -> (p, p) in the order of `ravel_pytree(params)`.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too.
        key: a typed PRNG key for the estimate of rounding.

    Raises:
        AssertionError: naming the pair of leaves, index, both values, and the error in ulps and
            relative to the size of the summands.
        ValueError: where fn does not return one number, or hand_hessian no (p, p).

    Example:
        >>> import jax.numpy as jnp
        >>> assert_hessians_match(
        ...     lambda w: jnp.sum(w**3), lambda w: jnp.diag(6 * w), jnp.arange(3.0))
    """
    _assert("Hessian", compare_hessians(fn, hand_hessian, *args, hard=hard, key=key))


def _assert(what: str, report: Report) -> None:
    if report.ok:
        return
    faults = Report(tuple(c for c in report.checks if c.fault))
    worst = max(faults.checks, key=lambda c: (c.point == "given", c.relative))
    raise AssertionError(f"{what}: {worst.fault}\n{faults}")


def _compare(
    fn: Callable[..., Array],
    hand: Callable[..., Any],
    args: tuple,
    hard: bool,
    key: Array | None,
    order: int,
) -> Report:
    key = jax.random.key(0) if key is None else key
    args = (jax.tree.map(jnp.asarray, args[0]), *args[1:])
    given = ravel_pytree(args[0])[0].dtype
    points = HARD_POINTS if hard else {"given": 1.0}
    leaves = _leaves(args[0], order)
    checks: list[Check] = []
    with jax.default_matmul_precision("highest"):
        with jax.enable_x64(True):
            wide = _widen(args)
            _expect_shapes(fn, hand, wide, order)
            of = (fn, hand, order)
            found = {n: _call(_measure, of, _scaled(wide, t), key) for n, t in points.items()}
        for name, m in found.items():
            if name == "given" or (np.isfinite(m.value) and np.all(np.isfinite(m.automatic))):
                checks += _judge(name, leaves, m)
        if given != np.float64:
            for name, m in found.items():
                if np.isfinite(m.value) and np.all(np.isfinite(m.automatic)):
                    narrow = _call(_hand_alone, (hand,), _scaled(args, points[name]), key)
                    checks += _judge(name, leaves, m._replace(hand=narrow))
    return Report(tuple(checks))


def _measure(
    args: tuple, key: Array, fn: Callable[..., Array], hand: Callable[..., Any], order: int
) -> _Measured:
    """All derivatives of one order at one point, for use inside `jit` and `vmap`."""
    theta, unravel = ravel_pytree(args[0])

    def value(theta: Array, *rest: Any) -> Array:
        return fn(unravel(theta), *rest)

    derivatives = [value, jax.grad(value), jax.hessian(value)]
    steps = jnp.maximum(jnp.abs(theta), 1.0)
    below = derivatives[order - 1]
    numerical, error = numerical_jacobian(
        lambda theta: below(theta, *args[1:]),
        theta,
        steps,
        rounding_scale(below, theta, *args[1:], key=key),
    )
    result = hand(*args)
    return _Measured(
        value(theta, *args[1:]),
        result if order == 2 else ravel_pytree(result)[0],
        derivatives[order](theta, *args[1:]),
        numerical,
        error,
        rounding_scale(derivatives[order], theta, *args[1:], key=key),
        jnp.asarray(longest_sum(derivatives[order], theta, *args[1:])),
    )


class _Split(NamedTuple):
    """Arguments as arrays, to be traced, and the rest."""

    arrays: list[Any]
    others: tuple
    tree: Any

    @classmethod
    def of(cls, args: tuple) -> "_Split":
        leaves, tree = jax.tree.flatten(args)
        arrays = [leaf for leaf in leaves if _is_array(leaf)]
        return cls(arrays, tuple(None if _is_array(leaf) else leaf for leaf in leaves), tree)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    what: Callable[..., Any], of: tuple, others: tuple, tree: Any, arrays: list, key: Array
) -> Any:
    """what(args, key, *of), compiled once for each shape: a test may call it with many values."""
    rest = iter(arrays)
    leaves = [next(rest) if leaf is None else leaf for leaf in others]
    return what(jax.tree.unflatten(tree, leaves), key, *of)


def _call(what: Callable[..., Any], of: tuple, args: tuple, key: Array) -> Any:
    split = _Split.of(args)
    return jax.device_get(_run(what, of, split.others, split.tree, split.arrays, key))


def _hand_alone(args: tuple, key: Array, hand: Callable[..., Any]) -> Array:
    del key
    result = hand(*args)
    return result if isinstance(result, Array) and result.ndim == 2 else ravel_pytree(result)[0]


def _widen(args: tuple) -> tuple:
    """The same values in float64."""

    def wide(leaf: Any) -> Any:
        if not isinstance(leaf, Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.asarray(np.asarray(leaf).astype(np.float64))

    return jax.tree.map(wide, args)


def _scaled(args: tuple, factor: float) -> tuple:
    params = jax.tree.map(lambda a: a * jnp.asarray(factor, a.dtype), args[0])
    return (params, *args[1:])


def _expect_shapes(fn: Callable, hand: Callable, args: tuple, order: int) -> None:
    value = jax.eval_shape(lambda: fn(*args))
    if jax.tree.leaves(value) != [value] or value.shape != ():
        raise ValueError(f"fn: expected one number (), got {value}")
    got = jax.eval_shape(lambda: hand(*args))
    if order == 2:
        p = sum(leaf.size for leaf in jax.tree.leaves(args[0]))
        if getattr(got, "shape", None) != (p, p):
            raise ValueError(f"hand_hessian: expected an array ({p}, {p}), got {got}")
        return
    wanted = jax.tree.map(lambda a: a.shape, args[0])
    shapes = jax.tree.map(lambda a: a.shape, got)
    if shapes != wanted:
        raise ValueError(f"hand_grad: expected a tree of shapes {wanted}, got {shapes}")


def _leaves(params: Any, order: int) -> list[tuple[str, tuple[slice, ...], tuple[int, ...]]]:
    """Name, place in the flat derivative, and shape of each leaf, or pair of leaves."""
    singles, start = [], 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path).lstrip(".") or "params"
        singles.append((name, (slice(start, start + leaf.size),), leaf.shape))
        start += leaf.size
    singles = [s for s in singles if s[1][0].start < s[1][0].stop]
    if order == 1:
        return singles
    return [
        (f"{a} × {b}", place_a + place_b, (*shape_a, *shape_b))
        for a, place_a, shape_a in singles
        for b, place_b, shape_b in singles
    ]


def _judge(point: str, leaves: list, m: _Measured) -> list[Check]:
    """The worst coordinate of each leaf."""
    dtype = np.result_type(m.hand.dtype if m.hand.dtype != np.float64 else m.value.dtype)
    info = np.finfo(dtype)
    beyond = (m.rounding > info.max / _ROOM) | (np.abs(m.value) > info.max / _ROOM)
    lost = ~np.isfinite(m.hand) & beyond  # no number of the dtype could be right
    m = m._replace(hand=np.where(lost, m.automatic, m.hand))
    # What underflows in the dtype is lost: a float of the smallest size for each summand, say.
    multiple = _ALLOWED + _GROWTH * float(np.sqrt(m.terms))
    allowed = multiple * info.eps * m.rounding + 2.0**20 * float(info.tiny)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(m.hand.astype(np.float64) - m.automatic)
        numerically = np.abs(m.automatic - m.numerical)
        allowed_numerically = (
            _ALLOWED_NUMERICAL * m.numerical_error + multiple * np.finfo(float).eps * m.rounding
        ) + np.finfo(float).tiny
    checks = []
    for name, place, shape in leaves:
        excess = apart[place] / allowed[place]
        excess_numerical = numerically[place] / allowed_numerically[place]
        # NaN compares false: what is not known to agree does not.
        wrong = not np.all(excess <= 1)
        doubtful = not np.all((excess_numerical <= 1) | np.isinf(m.numerical_error[place]))
        worst = np.where(np.isnan(excess), np.inf, excess)
        worst = worst if wrong or not doubtful else np.nan_to_num(excess_numerical, nan=np.inf)
        at = np.unravel_index(np.argmax(worst), worst.shape)
        hand, automatic = float(m.hand[place][at]), float(m.automatic[place][at])
        difference = float(apart[place][at])
        checks.append(
            Check(
                point,
                name,
                tuple(int(i) for i in np.unravel_index(int(np.argmax(worst)), shape)),
                hand,
                automatic,
                float(m.numerical[place][at]),
                difference / _spacing(automatic, dtype),
                difference / max(float(m.rounding[place][at]), float(info.tiny)),
                dtype.name,
                _fault(wrong, doubtful, m, place, allowed_numerically[place]),
            )
        )
    return checks


def _spacing(value: float, dtype: np.dtype) -> float:
    """The unit in the last place of a number, NaN where it is beyond the dtype."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.spacing(np.abs(np.asarray(value, dtype))))


def _fault(wrong: bool, doubtful: bool, m: _Measured, place: tuple, allowed: np.ndarray) -> str:
    """What is wrong with a leaf, in words, with a guess at the reason where one is obvious."""
    hand, automatic = m.hand[place].astype(np.float64), m.automatic[place]
    if not np.all(np.isfinite(hand)) or not np.all(np.isfinite(automatic)):
        return "not finite"
    if doubtful and np.all(np.abs(hand - m.numerical[place]) <= allowed):
        return "automatic and numerical differ, and the numerical supports the hand-derived one"
    if not wrong:
        return "automatic and numerical differ: a wrong derivative rule inside fn?" * doubtful
    return "hand-derived and automatic differ" + _guess(hand, automatic)


def _guess(hand: np.ndarray, automatic: np.ndarray) -> str:
    large = np.abs(automatic) > 1e-6 * np.max(np.abs(automatic))
    ratios = hand[large] / automatic[large]
    if ratios.size and np.ptp(ratios) <= 1e-6 * abs(ratios[0]) and abs(ratios[0] - 1) > 1e-6:
        return f"; hand-derived is {ratios[0]:.6g} times the automatic"
    close = partial(np.allclose, rtol=1e-6, atol=0)
    if not close(hand, automatic) and close(np.sort(hand.ravel()), np.sort(automatic.ravel())):
        return "; the same entries in another order: a transposed block?"
    return ""
