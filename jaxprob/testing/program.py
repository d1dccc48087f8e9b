"""All derivatives of a function at some points, by one small program.

Compilation is what a comparison costs. So `fn` is traced once, its derivatives are those of that
trace, and one program without loops over points evaluates everything: derivatives, exactly and with
blurred arithmetic (see `jaxprob.testing.rounding`), values for difference quotients, and the
hand-derived derivative where JAX can trace it.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import eval_jaxpr
from jax.extend.core import jaxpr_as_fun

from jaxprob.runtime.compilation import compile_hastily
from jaxprob.testing import rounding

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

_BUDGET = 2**23  # numbers that are kept at a time, for as many lanes as that allows
_PROGRAMS: OrderedDict[tuple, Any] = OrderedDict()  # the last ones; each maps memory
_MOST_PROGRAMS = 8


class Traced(NamedTuple):
    """A function of (leaves of params, arrays) as a program for one shape."""

    jaxpr: "Jaxpr"
    consts: list
    arrays: list
    """What stands for the arrays: none, where these are among the constants."""
    out: Any
    """A tree of what it returns, as shapes and dtypes."""

    def __call__(self, leaves: list, inputs: tuple[list, list]) -> list:
        """What the function returns, flat."""
        consts, arrays = inputs
        return eval_jaxpr(self.jaxpr, consts, *leaves, *arrays)

    def inputs(self, rest: tuple) -> tuple[list, list]:
        """Constants and arrays, for other arguments of the same shapes, too."""
        arrays = [a for a in jax.tree.leaves(rest) if is_array(a)][: len(self.arrays)]
        return self.consts, [_like(a, v) for a, v in zip(arrays, self.arrays, strict=True)]


def trace(fn: Callable[..., Any], args: tuple) -> Traced:
    """Trace a function, or only what depends on its parameters where the rest of it needs numbers.

    Args:
        fn: (params, *rest) -> a pytree of numbers.
        args: params and the rest, pytrees of arrays.

    Raises:
        Exception: whatever the function raises that cannot be traced.
    """
    leaves, tree = jax.tree.flatten(args[0])
    others, rest_tree = jax.tree.flatten(args[1:])
    arrays = [a for a in others if is_array(a)]

    def call(leaves: list, arrays: list) -> Any:
        traced = iter(arrays)
        rest = [next(traced, a) if is_array(a) else a for a in others]
        return fn(jax.tree.unflatten(tree, leaves), *jax.tree.unflatten(rest_tree, rest))

    try:
        return _traced(call, leaves, arrays)
    except Exception:
        return _traced(call, leaves, [])


def is_array(leaf: Any) -> bool:
    """Whether a leaf is traced; the others are settings."""
    return isinstance(leaf, Array | np.ndarray)


def _traced(call: Callable[..., Any], leaves: list, arrays: list) -> Traced:
    closed, out = jax.make_jaxpr(call, return_shape=True)(leaves, arrays)
    consts = [_like(a, v) for a, v in zip(closed.consts, closed.jaxpr.constvars, strict=True)]
    return Traced(closed.jaxpr, consts, closed.jaxpr.invars[len(leaves) :], out)


def _like(value: Any, variable: Any) -> Any:
    """A constant or argument in the dtype that the program takes it in."""
    dtype = variable.aval.dtype
    return value if jnp.issubdtype(dtype, jax.dtypes.extended) else np.asarray(value).astype(dtype)


class Results(NamedTuple):
    """What a program computes, the points along the first axis."""

    value: np.ndarray
    automatic: np.ndarray
    rounding: np.ndarray
    below_rounding: np.ndarray
    """Of what is one derivative below: the value, or the gradient."""
    base: np.ndarray
    """What is one derivative below, as the values beside it."""
    beside: np.ndarray
    hands: list[np.ndarray]


class Program:
    """The derivatives of fn of one order, 1 or 2.

    Args:
        fn: traced, for float64.
        leaves: of params, float64.
        order: 1 for gradients, 2 for Hessians.
        hands: hand-derived derivatives, traced, each with the dtypes of leaves that it takes.
        inputs: of fn.
    """

    def __init__(
        self,
        fn: Traced,
        leaves: Sequence[np.ndarray],
        order: int,
        hands: Sequence[tuple[Traced, list[Any]]],
        inputs: tuple[list, list],
    ):
        self.fn, self.order, self.hands = fn, order, hands
        self.shapes = [leaf.shape for leaf in leaves]
        self.size = sum(leaf.size for leaf in leaves)
        theta = jax.ShapeDtypeStruct((self.size,), np.float64)
        self._slope = jax.make_jaxpr(jax.value_and_grad(self._value))(theta, inputs)
        closed = self._slope if order == 1 else jax.make_jaxpr(self._curvature)(theta, inputs)
        self.derivatives, self.consts = closed.jaxpr, closed.consts
        self.terms = rounding.longest_sum(self.derivatives)
        self.noise_length = rounding.noise_length(self.derivatives)
        self._compiled: Any = None

    def run(
        self, points: np.ndarray, draws: np.ndarray, ends: np.ndarray, inputs: tuple
    ) -> Results:
        """Evaluate everything.

        Args:
            points: (P, p).
            draws: (samples, noise_length) standard normal.
            ends: (P, p, L, 2) for each coordinate of each point what to put in its place.
            inputs: of fn, and those of each hand-derived derivative.
        """
        factors = rounding.noise(np.concatenate([np.zeros((1, draws.shape[1])), draws]))
        point, place = (a.ravel() for a in np.indices(ends.shape, np.int32)[:2])
        every, nowhere = np.arange(len(points), dtype=np.int32), np.full(len(points), -1, np.int32)
        beside = (
            np.concatenate([every, point]),
            np.concatenate([nowhere, place]),
            np.concatenate([np.zeros(len(points)), ends.ravel()]),
        )
        blurred = np.repeat(points, len(factors), axis=0), np.tile(factors, (len(points), 1))
        args = points, blurred, beside, inputs
        if self._compiled is None:
            self._compiled = _compiled(jax.jit(self._everything, keep_unused=True), args)
        blurred, below, hands = jax.device_get(self._compiled(*args))
        samples = [a.reshape(len(points), len(factors), *a.shape[1:]) for a in blurred]
        exact = [a[:, 0] for a in samples]
        with np.errstate(invalid="ignore", over="ignore"):
            scale = [
                rounding.spread(np.moveaxis(a[:, 1:], 1, 0).astype(np.float64), e, np)
                for a, e in zip(samples, exact, strict=True)
            ]
        return Results(
            exact[0],
            exact[self.order],
            scale[self.order],
            scale[self.order - 1],
            below[: len(points)],
            below[len(points) :].reshape(*ends.shape, *below.shape[1:]),
            hands,
        )

    def _leaves(self, theta: Array, dtypes: Sequence[Any]) -> list[Array]:
        leaves, start = [], 0
        for shape, dtype in zip(self.shapes, dtypes, strict=True):
            stop = start + math.prod(shape)
            leaf = lax.reshape(lax.slice(theta, (start,), (stop,)), shape)
            leaves.append(lax.convert_element_type(leaf, dtype))
            start = stop
        return leaves

    def _value(self, theta: Array, inputs: Any) -> Array:
        return self.fn(self._leaves(theta, [np.float64] * len(self.shapes)), inputs)[0]

    def _gradient(self, theta: Array, inputs: Any) -> Array:
        return jaxpr_as_fun(self._slope)(theta, *jax.tree.leaves(inputs))[1]

    def _curvature(self, theta: Array, inputs: Any) -> tuple[Array, ...]:
        """Value, gradient and Hessian."""

        def slope(theta: Array) -> tuple[Array, list[Array]]:
            found = jaxpr_as_fun(self._slope)(theta, *jax.tree.leaves(inputs))
            return found[1], found

        hessian, below = jax.jacfwd(slope, has_aux=True)(theta)
        return *below, hessian

    def _everything(self, points: Array, blurred: Any, beside: Any, inputs: Any) -> Any:
        of_fn, of_hands = inputs
        flat = jax.tree.leaves(of_fn)
        below = self._value if self.order == 1 else self._gradient
        places = jnp.arange(self.size)

        def blur(lane: tuple[Array, Array]) -> list[Array]:
            theta, factors = lane
            return rounding.evaluate(self.derivatives, self.consts, [theta, *flat], factors)

        def nearby(lane: tuple[Array, Array, Array]) -> Array:
            point, place, end = lane
            theta = points.at[point].get(mode="promise_in_bounds")
            end = lax.broadcast_in_dim(end, theta.shape, ())
            return below(lax.select(places == place, end, theta), of_fn)

        def by_hand(theta: Array) -> list[Array]:
            found = []
            for (hand, dtypes), given in zip(self.hands, of_hands, strict=True):
                leaves = hand(self._leaves(theta, dtypes), given)
                found.append(leaves[0] if self.order == 2 else _flat(leaves))
            return found

        most = max(1, _BUDGET // (1 + rounding.working_set(self.derivatives)))
        return (
            _map(blur, blurred, most),
            _map(nearby, beside, most),
            lax.map(by_hand, points) if self.hands else [],
        )


def _flat(leaves: list[Array]) -> Array:
    dtype = jnp.result_type(*leaves) if leaves else np.float64
    flat = [lax.convert_element_type(lax.reshape(a, (a.size,)), dtype) for a in leaves]
    return lax.concatenate([jnp.zeros(0, dtype), *flat], 0)


def _map(fn: Callable[[Any], Any], lanes: tuple[Array, ...], most: int) -> Any:
    """The function of each lane, of all at once if these are not too many."""
    count = len(lanes[0])
    if count <= most:
        return jax.vmap(fn)(lanes)
    blocks = -(-count // most)
    padded = tuple(jnp.resize(a, (blocks, most, *a.shape[1:])) for a in lanes)
    results = lax.map(jax.vmap(fn), padded)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], results)


def _compiled(program: Any, args: tuple) -> Any:
    """The program, compiled unless the same one, for other functions perhaps, was lately."""
    lowered = program.lower(*args)
    text = lowered.as_text()
    key = text, jax.tree.structure(args), str(jax.config.jax_default_device), jax.default_backend()  # pyright: ignore[reportAttributeAccessIssue]
    if key in _PROGRAMS:
        _PROGRAMS.move_to_end(key)
        return _PROGRAMS[key]
    compiled = compile_hastily(lowered)
    if "callback" not in text:  # which may be another function by the same name
        _PROGRAMS[key] = compiled
        if len(_PROGRAMS) > _MOST_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    return compiled
