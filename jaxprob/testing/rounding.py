r"""How far rounding alone can move the result of a function, coordinate by coordinate.

A tolerance relative to a derivative is wrong where its summands cancel, and one relative to its
largest entry hides errors in the small ones. So the function is evaluated a few times with every
arithmetic operation off by a random relative error η, as rounding has it with ε in place of η. The
result moves by η times its *rounding scale*, to first order; ε times that scale is what rounding
does, and what a comparison must allow. For a sum Σ_i t_i it is about (Σ t_i²)^(1/2).

Source: Parker, Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic, UCLA
CSD-970002, 1997.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

SAMPLES = 8
DRAWS = 65_521  # a prime, as is
_STRIDE = 7_919
_SPREAD = 1_021  # and this
_ETA = 2.0**-20
_ROUNDED = frozenset(
    "add sub mul div exp exp2 expm1 log log1p logistic tanh sqrt rsqrt cbrt pow integer_pow square "
    "sin cos tan erf erfc erf_inv lgamma digamma cumsum cumprod cumlogsumexp add_any".split()
)
_SUMS = frozenset(["dot_general", "reduce_sum", "reduce_prod", "conv_general_dilated"])
_LOOPS = frozenset(["while", "scan", "cond", "shard_map"])


def rounding_scale(fn: Callable[..., Array], *args: Any, key: Array) -> Array:
    """The change of fn(*args) under a unit relative error of each operation in it.

    Operations inside loops are exact here, and the results of the loops are not.

    Args:
        fn: a function of arrays that returns one array.
        *args: pytrees of arrays.
        key: a typed PRNG key.

    Returns:
        Of the shape of fn(*args), at least its absolute value.

    Example:
        >>> x = jnp.array([1e4, -1e4 + 1.0])
        >>> scale = rounding_scale(lambda x: (2 * x).sum(), x, key=jax.random.key(0))
        >>> bool(1e3 < scale < 1e5)
        True
    """
    flat, tree = jax.tree.flatten(args)
    closed = jax.make_jaxpr(lambda *flat: fn(*jax.tree.unflatten(tree, flat)))(*flat)
    exact = fn(*args)
    draws = jax.random.normal(key, (DRAWS,), exact.dtype)
    starts = jax.random.randint(jax.random.fold_in(key, 1), (SAMPLES, 1), 0, DRAWS)
    places = jnp.arange(noise_length(closed.jaxpr))[None, :]
    factors = noise(draws[(starts + places) % DRAWS])

    def moved(factors: Array) -> Array:
        return evaluate(closed.jaxpr, closed.consts, flat, factors)[0]

    return spread(jax.vmap(moved)(factors), exact, jnp)


def noise(draws: Any) -> Any:
    """What each result is multiplied by, of standard normal draws."""
    return 1 + _ETA * draws


def spread(moved: Any, exact: Any, xp: Any) -> Any:
    """The rounding scale, of results that moved, along the first axis.

    Args:
        moved: (samples, ...) results with a relative error in each operation.
        exact: (...) the result without.
        xp: `numpy` or `jax.numpy`.

    Returns:
        (...), at least the absolute value.
    """
    moves = (moved - exact[None]) / _ETA
    return xp.maximum(xp.sqrt(xp.mean(moves**2, axis=0)), xp.abs(exact))


def noise_length(jaxpr: "Jaxpr") -> int:
    """How many factors `evaluate` needs at most."""
    return _SPREAD + min(DRAWS, max(_sizes(jaxpr), default=1))


def working_set(jaxpr: "Jaxpr") -> int:
    """How many numbers the results of all operations are: at least what an evaluation keeps."""
    return sum(_sizes(jaxpr))


def _sizes(jaxpr: "Jaxpr") -> list[int]:
    sizes = [math.prod(_shape(v)) for v in jaxpr.invars]
    for eqn in jaxpr.eqns:
        inner = _inner(eqn.params)
        sizes += [] if inner is None else _sizes(inner.jaxpr)
        sizes += [math.prod(_shape(v)) for v in eqn.outvars]
    return sizes


def longest_sum(jaxpr: "Jaxpr") -> int:
    """The number of terms of the longest sum in a program: what its rounding may grow with.

    Args:
        jaxpr: as `jax.make_jaxpr` has it.

    Returns:
        At least 1.

    Example:
        >>> longest_sum(jax.make_jaxpr(lambda x: (2 * x).sum())(jnp.ones(100)).jaxpr)
        100
    """
    longest = 1
    for eqn in jaxpr.eqns:
        inner = _inner(eqn.params)
        if inner is not None:
            longest = max(longest, longest_sum(inner.jaxpr))
        elif eqn.primitive.name == "dot_general":
            (axes, _), _ = eqn.params["dimension_numbers"]
            longest = max(longest, math.prod(_shape(eqn.invars[0])[a] for a in axes))
        elif eqn.primitive.name in _SUMS:
            sizes = [math.prod(_shape(v)) for v in (eqn.invars[0], eqn.outvars[0])]
            longest = max(longest, sizes[0] // max(1, sizes[1]))
    return longest


def _shape(value: Any) -> tuple[int, ...]:
    return getattr(value.aval, "shape", ())


class _Blur:
    """Relative errors, read from one list of factors, each array from another place of it.

    These places are fixed when the program is traced: a slice costs the compiler a tenth of what a
    generator or a gather would.
    """

    def __init__(self, factors: Array):
        self.factors, self.start = factors, 0

    def __call__(self, value: Any) -> Any:
        dtype, shape = jnp.result_type(value), jnp.shape(value)
        if not jnp.issubdtype(dtype, jnp.floating):
            return value
        self.start = (self.start + _STRIDE) % _SPREAD
        size, there = math.prod(shape), len(self.factors) - self.start
        factors = jax.lax.slice(self.factors, (self.start,), (self.start + min(size, there),))
        if size > there:
            factors = jnp.tile(factors, -(-size // there))[:size]
        factors = jax.lax.convert_element_type(jax.lax.reshape(factors, shape), dtype)
        return jax.lax.mul(value, factors)


def evaluate(jaxpr: "Jaxpr", consts: Any, args: Any, factors: Array) -> list[Any]:
    """Run a jaxpr with blurred arithmetic.

    Args:
        jaxpr: the program.
        consts: its constants.
        args: its arguments, flat.
        factors: (`noise_length`,) what results are multiplied by: ones leave them as they are.

    Returns:
        Its results, flat.
    """
    return _evaluate(jaxpr, consts, args, _Blur(factors))


def _evaluate(jaxpr: "Jaxpr", consts: Any, args: Any, blur: _Blur) -> list[Any]:
    from jax.extend.core import Literal

    values: dict[Any, Any] = {}
    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs, name = [read(a) for a in eqn.invars], eqn.primitive.name
        inner = None if name in _LOOPS else _inner(eqn.params)
        if inner is not None:
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs, blur)
        else:
            inputs = [blur(v) for v in inputs] if name in _SUMS else inputs
            outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        if name in _ROUNDED or name in _LOOPS:
            outputs = [blur(v) for v in outputs]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(a) for a in jaxpr.outvars]


def _inner(params: dict[str, Any]) -> Any:
    """The program inside an equation that calls one, such as that of `jax.jit`."""
    from jax.extend.core import ClosedJaxpr, Jaxpr

    for name in ("jaxpr", "call_jaxpr", "call"):
        inner = params.get(name)
        if isinstance(inner, Jaxpr):
            return ClosedJaxpr(inner, ())
        if isinstance(inner, ClosedJaxpr):
            return inner
    return None
