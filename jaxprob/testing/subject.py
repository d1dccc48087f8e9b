"""A function and its hand-derived derivative: traced, evaluated, and judged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxprob.testing import judging, kinks, rounding
from jaxprob.testing.arguments import Arguments
from jaxprob.testing.judging import Found, Report
from jaxprob.testing.program import Program, Results, Traced, trace

_NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
_FLOAT64 = np.dtype(np.float64)


class _Hand(NamedTuple):
    """The hand-derived derivative in one dtype."""

    traced: Traced | None  # otherwise it is called as it is
    given: np.dtype
    wide: bool


class Subject:
    """A function and a hand-derived derivative, traced for arguments of one shape.

    Args:
        fn: (params, *rest) -> ().
        hand: (params, *rest) -> the derivative in params.
        args: params and the rest, pytrees of arrays.
        order: 1 for gradients, 2 for Hessians.

    Raises:
        TypeError: where JAX cannot trace fn, or parameters are not floating.
        ValueError: where fn does not return one number, or hand not what has the right shapes.
    """

    def __init__(self, fn: Callable[..., Any], hand: Callable[..., Any], args: tuple, order: int):
        self._hand, self._order = hand, order
        given = Arguments(args)
        self._params = jax.tree.unflatten(given.tree, given.leaves)
        with _in_float64():
            args = given.traceable(wide=True)
            self._fn = _trace_fn(fn, args)
            wide = self._trace_hand(args)
            if wide is None:
                self._flat(self._call(given.concrete(1.0, wide=True)))
        self._hands = [_Hand(wide, _FLOAT64, True)]
        narrow, dtypes = None, given.given_dtypes
        if wide is not None and any(d != _FLOAT64 for d in given.dtypes):
            with _all_digits():
                narrow, dtypes = self._trace_hand(given.traceable(wide=False)), given.dtypes
        if any(d != _FLOAT64 for d in dtypes):
            self._hands.append(_Hand(narrow, judging.coarsest(*dtypes), False))
        traced = [
            (h.traced, [_FLOAT64] * len(given.leaves) if h.wide else given.dtypes)
            for h in self._hands
            if h.traced is not None
        ]
        with _in_float64():
            self._program = Program(self._fn, given.leaves, order, traced, self._inputs(given)[0])

    def report(self, args: tuple, factors: dict[str, float], key: Array | None) -> Report:
        """Compare the derivatives at the parameters times some factors.

        Args:
            args: of the shapes that the subject was traced for.
            factors: of the parameters, by the names of the points.
            key: a typed PRNG key for the estimate of rounding.
        """
        given = Arguments(args)
        theta = np.stack([given.theta() * factor for factor in factors.values()])
        inputs, draws = self._inputs(given), _draws(key, self._program.noise_length)

        def run(halvings: Sequence[int]) -> tuple[Results, kinks.Quotients]:
            ends, steps = kinks.ends(theta, halvings)
            with _in_float64():
                r = self._program.run(theta, draws, ends, inputs)
            return r, kinks.Quotients.of(r.beside, r.base, steps, r.below_rounding)

        with np.errstate(all="ignore"):
            results, quotients = run(kinks.USUAL)
            found = Found(
                results.value,
                results.automatic.astype(np.float64),
                results.rounding,
                kinks.slopes(quotients),
                self._program.terms,
            )
            shown = np.isfinite(results.value) & np.all(
                np.isfinite(found.automatic), axis=tuple(range(1, found.automatic.ndim))
            )
            hands = list(self._by_hand(given, factors, shown, results))
            doubted = judging.doubted(found)
            for _, derivative, dtype in hands:
                doubted |= judging.disagrees(found, derivative, dtype)
            doubted &= shown.reshape(-1, *(1,) * (doubted.ndim - 1))
            if np.any(doubted):
                for halvings in kinks.FINE:
                    quotients = quotients.and_then(run(halvings)[1])
                multiple = judging.multiple(found.terms)
                slopes = kinks.refined(found.slopes, quotients, doubted, multiple)
                found = found._replace(slopes=slopes)
        leaves = judging.name_leaves(self._params, self._order)
        return Report(
            tuple(
                check
                for shown, derivative, dtype in hands
                for i, name in enumerate(factors)
                if shown[i]
                for check in judging.judge(name, leaves, found.at(i), derivative[i], dtype)
            )
        )

    def _inputs(self, given: Arguments) -> tuple:
        """What the program takes besides points."""
        rest = {wide: given.traceable(wide)[1:] for wide in (True, False)}
        by_hand = [h.traced.inputs(rest[h.wide]) for h in self._hands if h.traced is not None]
        return self._fn.inputs(rest[True]), by_hand

    def _by_hand(
        self, given: Arguments, factors: dict[str, float], finite: np.ndarray, results: Results
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.dtype]]:
        """For each dtype where to look, the derivatives, and how precise they can be."""
        traced, is_given = iter(results.hands), np.array([name == "given" for name in factors])
        for hand in self._hands:
            shown = finite | (hand.wide & is_given)
            if hand.traced is not None:
                found = next(traced)
            else:
                found = self._called(given, list(factors.values()), shown, hand.wide)
            limit = results.value.dtype if hand.wide and found.dtype == _FLOAT64 else hand.given
            yield shown, found, judging.coarsest(limit, found.dtype)

    def _called(
        self, given: Arguments, factors: list[float], shown: np.ndarray, wide: bool
    ) -> np.ndarray:
        """The derivatives at some of the points, from calls of the function as it is."""
        found: dict[int, np.ndarray] = {}
        with _in_float64() if wide else _all_digits():
            for i in map(int, np.flatnonzero(shown)):
                try:
                    found[i] = self._flat(self._call(given.concrete(factors[i], wide)))
                except ArithmeticError:  # Python's, such as math.exp(1000.0): not finite
                    continue
                except Exception as error:
                    if factors[i] != 1:
                        error.add_note(
                            f"The hand-derived derivative was called with {factors[i]:g} times the "
                            "given parameters; hard=False looks at these alone."
                        )
                    raise
        shape = (given.theta().size,) * self._order
        missing = np.full(shape, np.nan, np.result_type(*found.values()) if found else _FLOAT64)
        return np.stack([found.get(i, missing) for i in range(len(factors))])

    def _call(self, args: tuple) -> Any:
        with np.errstate(all="ignore"):
            return self._hand(*args)

    def _trace_hand(self, args: tuple) -> Traced | None:
        try:
            traced = trace(self._hand, args)
        except Exception:  # it may need numbers, or NumPy; a call as it is has the last word
            return None
        self._expect_shapes(traced.out)
        for leaf in jax.tree.leaves(traced.out):
            self._expect_floating(leaf.dtype)
        return traced

    def _expect_floating(self, dtype: Any) -> None:
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            name = "hand_grad" if self._order == 1 else "hand_hessian"
            raise TypeError(f"{name}: expected floating numbers, got {dtype}")

    def _expect_shapes(self, got: Any) -> None:
        if self._order == 2:
            size = sum(leaf.size for leaf in jax.tree.leaves(self._params))
            if len(jax.tree.leaves(got)) != 1 or np.shape(got) != (size, size):
                raise ValueError(f"hand_hessian: expected an array ({size}, {size}), got {got}")
            return
        wanted, shapes = (jax.tree.map(np.shape, tree) for tree in (self._params, got))
        if shapes != wanted:
            raise ValueError(f"hand_grad: expected a tree of shapes {wanted}, got {shapes}")

    def _flat(self, result: Any) -> np.ndarray:
        """What a function returned that was called as it is, as one array."""
        self._expect_shapes(result)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
        flat = leaves[0] if self._order == 2 else np.concatenate([a.ravel() for a in leaves])
        self._expect_floating(flat.dtype)
        return flat if jnp.issubdtype(flat.dtype, jnp.floating) else flat.astype(np.float64)


def _trace_fn(fn: Callable[..., Any], args: tuple) -> Traced:
    try:
        traced = trace(fn, args)
    except Exception as error:
        causes, cause = [], error
        while cause is not None:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__
        if not any(isinstance(cause, _NEEDS_NUMBERS) for cause in causes):
            raise
        raise TypeError(
            "fn: expected a function that JAX can trace, since jax.grad differentiates it; got one "
            "that needs the numbers in its arguments, for NumPy, float() or if. Write fn with "
            "jax.numpy; only the hand-derived derivative may be written with anything else"
        ) from error
    leaves = jax.tree.leaves(traced.out)
    if len(leaves) != 1 or leaves[0] is not traced.out or leaves[0].shape != ():
        raise ValueError(f"fn: expected one number (), got {traced.out}")
    if not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise ValueError(f"fn: expected a floating number, got one of dtype {leaves[0].dtype}")
    return traced


def _draws(key: Array | None, length: int) -> np.ndarray:
    """(samples, length) standard normal, each from another place of one list."""
    seed = 0 if key is None else np.asarray(jax.random.key_data(key)).ravel()
    rng = np.random.default_rng(seed)
    draws = rng.standard_normal(rounding.DRAWS)
    starts = rng.integers(rounding.DRAWS, size=(rounding.SAMPLES, 1))
    return draws[(starts + np.arange(length)) % rounding.DRAWS]


@contextmanager
def _in_float64() -> Iterator[None]:
    with jax.enable_x64(True), _all_digits():
        yield


def _all_digits() -> Any:
    return jax.default_matmul_precision("highest")
