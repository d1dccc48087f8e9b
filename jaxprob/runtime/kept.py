"""Compiled programs in a folder, found again by what they are made from, without tracing.

JAX' persistent cache knows a program by its code, for which a function must be traced and lowered
first: that is half of what a first call takes, and all of it once nothing is compiled. Here a
program is known by the name of a function of this library, the settings of a call and the shapes
and dtypes of its arrays, together with the sources of the library, the versions of what they run on
and the processor. Where a model or a solver holds a function or a class that a user wrote, these do
not determine the program, and JAX' cache is what is left.
"""

import hashlib
import io
import os
import pickle
import platform
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, partial
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

_VERSIONED = sys.stdlib_module_names | {"jaxprob", "jax", "jaxlib", "numpy", "optax", "ml_dtypes"}
_OPTIONS = (  # of JAX, which change what a function is traced to
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)
_CHECKS = ("jax_debug_nans", "jax_debug_infs", "jax_disable_jit", "jax_check_tracer_leaks")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_LAPACK = "lapack_"


class Unversioned(Exception):
    """The versions of the library and of what it runs on do not determine something."""


class Call:
    """A call of a function: its arrays, and what else determines its program.

    Args:
        fn: the function.
        given: its arguments by name.
        static: the names of those that are settings.
        compiler: the options with which it is compiled.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        given: Mapping[str, Any],
        static: Collection[str],
        compiler: Mapping[str, Any],
    ) -> None:
        self.fn = fn
        self.settings = {name: a for name, a in given.items() if name in static}
        arrays = {name: a for name, a in given.items() if name not in static}
        self.leaves, self.tree = jax.tree.flatten(arrays)
        self._compiler = tuple(compiler.items())
        self._avals = tuple(map(_aval, self.leaves))

    @cached_property
    def key(self) -> tuple:
        """What tells its program from others of the same function, in this process."""
        return tuple(self.settings.items()), self.tree, self._avals, _options(), self._compiler

    def can_be_kept(self) -> bool:
        """Whether there is one device, a CPU, on which the arrays are, and JAX checks no values."""
        if jax.device_count() != 1 or any(getattr(jax.config, name, False) for name in _CHECKS):
            return False
        device = jax.devices()[0]
        here = all(a.devices() == {device} for a in self.leaves if isinstance(a, jax.Array))
        return here and device.platform == "cpu"

    def digest(self, surroundings: str) -> str:
        """What tells its program from all others.

        Raises:
            Unversioned: where that cannot be told.
        """
        places = jax.tree.unflatten(self.tree, range(len(self.leaves)))
        avals = [(shape, str(dtype), weak) for shape, dtype, weak in self._avals]
        options = _options(), self._compiler
        return digest((surroundings, self.fn, self.settings, places, avals, options))

    def of_leaves(self, trees: list[Any]) -> Callable[[list[Any]], list[Any]]:
        """The function from leaves to leaves, which adds the tree of the latter to a list."""

        def flat(leaves: list[Any]) -> list[Any]:
            arrays = jax.tree.unflatten(self.tree, leaves)
            found, tree = jax.tree.flatten(self.fn(**arrays, **self.settings))
            trees.append(tree)
            return found

        flat.__name__ = self.fn.__name__
        return flat


def _options() -> tuple:
    return tuple(getattr(jax.config, name, None) for name in _OPTIONS)


def _aval(leaf: Any) -> tuple:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        leaf = jax.typeof(leaf)
    return leaf.shape, leaf.dtype, leaf.weak_type


class Folder:
    """Where programs are kept, and what is known of the shapes of their results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _surroundings(self) -> str:
        """The sources of the library, the versions of what it runs on, and the machine."""
        library, sources = Path(__file__).parents[1], hashlib.sha256()
        files = sorted(library.rglob("*.py"))
        if not files:
            raise Unversioned(library)  # as in an archive
        for file in files:
            sources.update(str(file.relative_to(library)).encode() + file.read_bytes())
        device = jax.devices()[0]
        versions = sys.version, *map(metadata.version, ("jax", "jaxlib", "numpy", "optax"))
        where = platform.machine(), _processor(), os.cpu_count(), os.environ.get("XLA_FLAGS")
        platforms = device.device_kind, device.client.platform_version
        return repr((sources.hexdigest(), versions, where, platforms))

    def program(
        self, call: Call, compile_flat: Callable[[Callable[..., Any]], Any]
    ) -> Callable[[list[Any]], Any] | None:
        """The program of a call, from the folder or compiled now; None where it cannot be kept.

        Args:
            call: whose leaves the program takes.
            compile_flat: compiles a function of the leaves of the call.
        """
        try:
            file = self.path / f"{call.digest(self._surroundings)}.program"
        except Unversioned:
            return None
        program = _read(file, _loaded)
        if program is None:
            trees: list[Any] = []
            with _without_cache_of_jax():
                flat = compile_flat(call.of_leaves(trees))
            _write(file, lambda: _dumped(flat, trees[-1]))
            program = partial(_called, flat, trees[-1])
        return program

    def value(self, parts: Any, make: Callable[[], Any]) -> Any:
        """What a function returns, from the folder where versions determine it.

        Args:
            parts: all that it depends on.
            make: the function, of something that can be pickled.
        """
        try:
            file = self.path / f"{digest((self._surroundings, _options(), parts))}.value"
        except Unversioned:
            return make()
        value = _read(file, pickle.loads)
        if value is None:
            value = make()
            _write(file, lambda: pickle.dumps(value))
        return value


def digest(parts: Any) -> str:
    """What tells some parts from others, in any process.

    Args:
        parts: anything that can be pickled, functions being told by their place in the sources.

    Returns:
        A name for them, the same whenever they are.

    Raises:
        Unversioned: where a part comes from elsewhere, or cannot be pickled.

    Example:
        >>> digest([1, len]) == digest([1, len]), digest([2, len]) == digest([1, len])
        (True, False)
    """
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=5)
    pickler.fast = True  # the same bytes, whether two equal parts are one object
    try:
        pickler.dump(parts)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise Unversioned(parts) from error
    return hashlib.sha256(file.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """A function is where it stands in the sources, and what it closes over."""
        name = getattr(obj, "__qualname__", None)
        if obj is _same or not isinstance(name, str):
            return NotImplemented
        module = getattr(obj, "__module__", None) or type(obj).__module__
        if module.partition(".")[0] not in _VERSIONED:
            raise Unversioned(obj)
        if _is_at(obj, module, name):
            return _same, (module, name)
        if not isinstance(obj, FunctionType):
            return NotImplemented
        cells = [cell.cell_contents for cell in obj.__closure__ or ()]
        parts = obj.__defaults__, obj.__kwdefaults__, cells
        return _same, (module, name, obj.__code__.co_firstlineno, parts)


def _is_at(obj: Any, module: str, name: str) -> bool:
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj or getattr(found, "__wrapped__", None) is obj


def _same(*parts: Any) -> Any:
    return parts


@contextmanager
def _without_cache_of_jax() -> Iterator[None]:
    """What was read from there cannot be written once more."""
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it remembers that it is there
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _read(file: Path, load: Callable[[bytes], Any]) -> Any:
    try:
        return load(file.read_bytes())
    except FileNotFoundError:
        return None
    except Exception:  # whatever is wrong with a file, it can be made again
        file.unlink(missing_ok=True)
        return None


def _write(file: Path, dump: Callable[[], bytes]) -> None:
    """Keep what can be kept; the rest can be used all the same."""
    try:
        whole = dump()
    except Exception:  # whatever it is that the executable holds
        return
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_bytes(whole)
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        warnings.warn(
            f"programs are not kept in {file.parent}: {error}; give `jp.keep_programs` a folder "
            "that can be written to",
            RuntimeWarning,
            stacklevel=2,
        )


def _dumped(flat: Any, tree: Any) -> bytes:
    targets = set(_TARGET.findall(flat.as_text()))
    if any(not name.startswith(_LAPACK) for name in targets):
        raise Unversioned(targets)  # functions that something else puts at their place
    example = jax.tree.unflatten(tree, range(tree.num_leaves))
    return pickle.dumps((serialize_executable.serialize(flat), example, bool(targets)))


def _loaded(whole: bytes) -> Callable[[list[Any]], Any]:
    executable, example, needs_lapack = pickle.loads(whole)
    if needs_lapack:
        _place_lapack()
    flat = serialize_executable.deserialize_and_load(*executable)
    return partial(_called, flat, jax.tree.structure(example))


@cache
def _place_lapack() -> None:
    """Let JAX look for the functions of LAPACK, as it does when a call of one is lowered."""
    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), "float32"))


def _called(flat: Any, tree: Any, leaves: list[Any]) -> Any:
    return jax.tree.unflatten(tree, flat(leaves))


def _processor() -> str:
    """What instructions it has, where the system says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
