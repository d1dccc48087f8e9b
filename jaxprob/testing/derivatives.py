r"""Is a derivative that was derived by hand right? Three ways to compute it, compared.

The hand-derived one, that of `jax.grad` (or `jax.hessian`), and a numerical one from values alone
are computed in float64, and the hand-derived one also in the dtype that it was given; each at the
given parameters and at harder ones: zero, tiny, large, and so large that probabilities round to 1.

Two results agree where they differ by no more than rounding explains: a multiple of ε times the
rounding scale of that very coordinate (see `jaxprob.testing.rounding`), not of the largest one.

At a kink, such as those of relu, abs and max, whose left derivative is a and right one b, the
hand-derived one is right if it is from a to b, or the automatic one. Close to a kink, as far as the
rounding of the function tells close to from at, it has to be the automatic one (see
`jaxprob.testing.kinks`). Where the function jumps, there is only the automatic one to agree with.
"""

from collections.abc import Callable
from typing import Any

from jax import Array

from jaxprob.testing import judging
from jaxprob.testing.judging import Check as Check
from jaxprob.testing.judging import Report
from jaxprob.testing.subject import Subject

HARD_POINTS = {"given": 1.0, "zero": 0.0, "tiny": 2.0**-10, "large": 8.0, "huge": 64.0}
"""What the parameters are multiplied by."""


def compare_gradients(
    fn: Callable[..., Array],
    hand_grad: Callable[..., Any],
    *args: Any,
    hard: bool = True,
    key: Array | None = None,
) -> Report:
    """Compare a hand-derived gradient with `jax.grad` and with a numerical derivative.

    Args:
        fn: (params, *rest) -> (), written in JAX.
        hand_grad: (params, *rest) -> the gradient in params, a pytree like it, written in anything:
            where JAX cannot trace it, it is called with arrays of the given kind.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too, not only at the given one.
        key: a typed PRNG key for the estimate of rounding.

    Returns:
        A Report, one line for each leaf, point and dtype. Points where fn or `jax.grad` of it is
        not finite are left out, but for the given one.

    Raises:
        TypeError: where JAX cannot trace fn, or params are not floating.
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
        fn: (params, *rest) -> (), written in JAX.
        hand_hessian: (params, *rest) -> (p, p) in the order of `ravel_pytree(params)`, written in
            anything: where JAX cannot trace it, it is called with arrays of the given kind.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too, not only at the given one.
        key: a typed PRNG key for the estimate of rounding.

    Returns:
        A Report, one line for each pair of leaves, point and dtype.

    Raises:
        TypeError: where JAX cannot trace fn, or params are not floating.
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
        fn: (params, *rest) -> (), written in JAX.
        hand_grad: (params, *rest) -> the gradient in params, a pytree like it, written in anything:
            where JAX cannot trace it, it is called with arrays of the given kind.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too.
        key: a typed PRNG key for the estimate of rounding.

    Raises:
        AssertionError: naming leaf, index, both values, and the error in ulps and relative to the
            size of the summands.
        TypeError: where JAX cannot trace fn, or params are not floating.
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
        fn: (params, *rest) -> (), written in JAX.
        hand_hessian: (params, *rest) -> (p, p) in the order of `ravel_pytree(params)`, written in
            anything: where JAX cannot trace it, it is called with arrays of the given kind.
        *args: params and the rest, pytrees of arrays.
        hard: whether to look at `HARD_POINTS` too.
        key: a typed PRNG key for the estimate of rounding.

    Raises:
        AssertionError: naming the pair of leaves, index, both values, and the error in ulps and
            relative to the size of the summands.
        TypeError: where JAX cannot trace fn, or params are not floating.
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
    raise AssertionError(f"{what}: {judging.tell(worst)}\n{faults}")


def _compare(
    fn: Callable[..., Array],
    hand: Callable[..., Any],
    args: tuple,
    hard: bool,
    key: Array | None,
    order: int,
) -> Report:
    points = HARD_POINTS if hard else {"given": 1.0}
    return Subject(fn, hand, args, order).report(args, points, key)
