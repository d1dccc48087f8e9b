"""Programs for the CPU that compile in less than half the time, and run as fast."""

import inspect
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper, wraps
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer, eval_context

from jaxprob.numerics.products import all_digits
from jaxprob.runtime import programs
from jaxprob.runtime.kept import Call

F = TypeVar("F", bound=Callable[..., Any])

# Most of what is compiled runs once a step on a few numbers. Fusions made by XLA's older emitter,
# at LLVM's first level, take 0.7 s for a fit by L-BFGS where the defaults take 1.6 s; the passes
# over the data are as fast, and softmax kernels faster.
_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
# What runs for milliseconds need not be fast: half the time of the options above, but two to four
# times theirs to run where passes over data are most of it.
_HASTY = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_LITTLE_DATA = 1 << 13  # numbers, with which a program is done before it is worth optimising
_LITTLE_WORK = 5e5  # the same, passes and all
_MISSING: set[str] = set()  # of all these, in the version of XLA that runs


class EagerJit:
    """A `jax.jit` for calls on concrete arrays, also while something else is traced."""

    def __init__(self, fn: Callable[..., Any], **settings: Any) -> None:
        tiers = ({}, _OPTIONS, _HASTY)
        self._tiers = tuple(_WithOptions(fn, settings, options) for options in tiers)
        self._general, self._quick, self._hasty = self._tiers
        self._compiled: set[Any] = set()
        self._kept: dict[Any, Any] = {}
        self._fn, self._names = fn, tuple(inspect.signature(fn).parameters)
        self._static = frozenset(settings.get("static_argnames", ()))
        update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        sizes = (math.prod(getattr(a, "shape", ())) for a in jax.tree.leaves((args, kwargs)))
        tier = self._hasty if sum(sizes) <= _LITTLE_DATA else self._quick
        return self._call(tier, args, kwargs)

    def for_work(self, work: float) -> Callable[..., Any]:
        """The function, to be called where its programs look at so many numbers, passes and all.

        The arguments do not tell if there are many passes.
        """
        tier = self._tier_for(work)
        return lambda *args, **kwargs: self._call(tier, args, kwargs)

    def optimised(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, by a program that takes longer to compile and less to run."""
        return self._call(self._general, args, kwargs)

    def _tier_for(self, work: float) -> "_WithOptions":
        return self._hasty if work <= _LITTLE_WORK else self._quick

    def _call(self, tier: "_WithOptions", args: tuple, kwargs: dict[str, Any]) -> Any:
        arrays = (a for a in jax.tree.leaves((args, kwargs)) if isinstance(a, jax.Array))
        first = next(arrays, None)
        device = jax.default_backend() if first is None else next(iter(first.devices())).platform
        programs.SHELF.use(self)
        tier = tier if device == "cpu" else self._general
        with _alone():
            leaves, kept = self._find_kept(tier, args, kwargs)
            if kept is not None:
                return kept(leaves)
            return tier.run(lambda program: program(*args, **kwargs))

    def _find_kept(self, tier: "_WithOptions", args: tuple, kwargs: dict[str, Any]) -> Any:
        """The arrays of a call and its program, None where programs like this are not kept."""
        folder = programs.kept_in()
        if folder is None:
            return None, None
        given = dict(zip(self._names, args, strict=False)) | kwargs
        call = Call(self._fn, given, self._static, tier.options)
        if not call.can_be_kept():
            return None, None

        def compile_flat(flat: Callable[..., Any]) -> Any:
            program = _WithOptions(flat, {}, tier.options)
            return program.run(lambda program: program.lower(call.leaves).compile())

        if call.key not in self._kept:
            self._kept[call.key] = folder.program(call, compile_flat)
            programs.SHELF.note_program()
        return call.leaves, self._kept[call.key]

    def clear_cache(self) -> None:
        """Forget what has been compiled."""
        for tier in self._tiers:
            tier.clear_cache()
        self._compiled.clear()
        self._kept.clear()

    def compile(self, work: float, *args: Any, **kwargs: Any) -> None:
        """Compile ahead of a call `for_work`, of arrays of these shapes, on the default device."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        key = tree, tuple((getattr(a, "shape", a), getattr(a, "dtype", None)) for a in leaves)
        if key in self._compiled:
            return
        tier = self._tier_for(work) if jax.default_backend() == "cpu" else self._general
        with _alone():
            if self._find_kept(tier, args, kwargs)[1] is None:
                tier.run(lambda program: program.lower(*args, **kwargs).compile())
        self._compiled.add(key)


class _WithOptions:
    """A function compiled with those of the options that this version of XLA has."""

    def __init__(
        self, fn: Callable[..., Any], settings: dict[str, Any], options: dict[str, Any]
    ) -> None:
        self.options = options
        self._left = _left_to_flags(options)
        self._make = partial(jax.jit, fn, **settings)
        self._program: Any = None
        self._without: frozenset[str] = frozenset()

    def run(self, call: Callable[[Any], Any]) -> Any:
        """What a call of the program returns."""
        while True:
            without = self._left | _MISSING
            if self._program is None or without != self._without:
                options = {n: value for n, value in self.options.items() if n not in without}
                self._program = self._make(compiler_options=options or None)
                self._without = without
            try:
                return call(self._program)
            except jax.errors.JaxRuntimeError as error:
                if not _learn(error, self.options, without):
                    raise

    def clear_cache(self) -> None:
        """Forget what has been compiled."""
        if self._program is not None:
            self._program.clear_cache()


def _left_to_flags(options: dict[str, Any]) -> frozenset[str]:
    """The options that XLA_FLAGS sets."""
    return frozenset(name for name in options if name in os.environ.get("XLA_FLAGS", ""))


def _learn(error: Exception, options: dict[str, Any], without: frozenset[str]) -> bool:
    """Whether an error says that XLA lacks an option, which is noted."""
    named = [n for n in options if f"No such compile option: '{n}'" in str(error)]
    if not named or named[0] in without:
        return False
    _MISSING.add(named[0])
    return True


def compile_hastily(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile in as little time as XLA can, for a program that runs for milliseconds, and once.

    Args:
        lowered: what `jax.jit(fn).lower(*args)` returns.

    Returns:
        The program. What XLA_FLAGS sets is left as it is set there.

    Example:
        >>> a = jax.numpy.ones(())
        >>> float(compile_hastily(jax.jit(lambda a: 2 * a).lower(a))(a))
        2.0
    """
    if jax.default_backend() != "cpu":
        return lowered.compile()
    while True:
        without = _left_to_flags(_HASTY) | _MISSING
        try:
            return lowered.compile({n: v for n, v in _HASTY.items() if n not in without})
        except jax.errors.JaxRuntimeError as error:
            if not _learn(error, _HASTY, without):
                raise


@contextmanager
def _alone() -> Iterator[None]:
    """As options want it, which are only for programs that no other one contains."""
    with eval_context(), all_digits():
        yield


def eager_jit(fn: Callable[..., Any], **settings: Any) -> EagerJit:
    """Compile a function for calls on concrete arrays, also while something else is traced.

    Args:
        fn: what to compile, for the device of the first JAX array among its arguments; for the
            default one where there is none.
        **settings: of `jax.jit`.

    Returns:
        The compiled function. What XLA_FLAGS sets is left as it is set there.

    Example:
        >>> double = eager_jit(lambda a: 2 * a)
        >>> float(double(jax.numpy.ones(())))
        2.0
    """
    return EagerJit(fn, **settings)


def compiled(*static: str) -> Callable[[F], F]:
    """Compile a function once for calls on concrete arrays, and leave it to others while tracing.

    Loops of JAX are compiled anew whenever they are called outside of `jax.jit`: a likelihood over
    blocks of examples would take 0.1 s, of which the computation is a thousandth.

    Args:
        *static: the names of arguments that are settings rather than arrays.

    Returns:
        A decorator. What it makes is a plain function, which has a name to be pickled by.

    Example:
        >>> times = []
        >>> double = compiled()(lambda a: times.append(1) or 2 * a)
        >>> [float(double(jax.numpy.full((), i))) for i in range(3)], len(times)
        ([0.0, 2.0, 4.0], 1)
    """

    def decorate(fn: F) -> F:
        program = eager_jit(fn, static_argnames=static)
        traced = jax.jit(fn, static_argnames=static)

        @wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            leaves = jax.tree.leaves((args, kwargs))
            if any(isinstance(a, Tracer) for a in leaves):
                return traced(*args, **kwargs)
            result = program(*args, **kwargs)
            if any(isinstance(a, np.ndarray) for a in leaves):
                jax.block_until_ready(result)  # the program may read the caller's own memory
            return result

        return call  # pyright: ignore[reportReturnType]

    return decorate
