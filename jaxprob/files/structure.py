"""Models and fits as JSON and arrays: settings, and names of functions, never code.

Values are what they are in JSON, arrays are numbered, and everything else is an object with one
key: `tuple`, `dict`, `enum`, `function` (by module and name), `named` (a NamedTuple), `frozen` (a
frozen dataclass) or `bind`. Functions and classes are those of jaxprob's models, contract and
numerics, and of modules that the caller names.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import FunctionType
from typing import Any

import jax
import numpy as np

from jaxprob.contract import Bind

_LIBRARY = (
    *("jaxprob.contract", "jaxprob.models", "jaxprob.numerics"),
    *("jaxprob.data.schema", "jaxprob.fit.result", "jaxprob.solvers.driver"),
)
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class Encoder:
    """Makes JSON of values, and keeps the arrays in them.

    Attributes:
        arrays: by name, in the order in which they were met.
        trusted: modules beyond the library's own whose functions and classes may be named.
    """

    def __init__(self, trusted: tuple[str, ...] = ()) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.trusted = trusted

    def encode(self, value: Any) -> Any:
        """The value, as JSON can hold it."""
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, Enum):
            return {"enum": [self._name(type(value)), value.name]}
        if isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"number": str(value)}
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, jax.Array | np.ndarray):
            name = str(len(self.arrays))
            self.arrays[name] = np.asarray(value)
            return {"array": name}
        if isinstance(value, Bind):
            settings = {name: self.encode(v) for name, v in value.settings.items()}
            return {"bind": [self.encode(value.fn), settings]}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"named": [self._name(type(value)), [self.encode(v) for v in value]]}
        if isinstance(value, tuple):
            return {"tuple": [self.encode(v) for v in value]}
        if isinstance(value, Mapping):
            return {"dict": [[self.encode(k), self.encode(v)] for k, v in value.items()]}
        if isinstance(value, FunctionType | type):
            return {"function": self._name(value)}
        if is_dataclass(value):
            parts = {f.name: self.encode(getattr(value, f.name)) for f in fields(value) if f.init}
            return {"frozen": [self._name(type(value)), parts]}
        raise TypeError(f"expected numbers, text, tuples or functions, got {value!r}")

    def _name(self, thing: Any) -> str:
        name = f"{thing.__module__}:{thing.__qualname__}"
        if not _is_allowed(thing.__module__, self.trusted):
            raise TypeError(
                f"expected a model of jaxprob, got {name}; pass allow=({thing.__module__!r},) to "
                "jp.save, and to jp.load later"
            )
        if _found(name, self.trusted) is not thing:
            raise TypeError(f"expected a function at the top level of its module, got {name}")
        return name


class Decoder:
    """Makes values of JSON and arrays.

    Attributes:
        arrays: by name.
        trusted: modules beyond the library's own whose functions and classes may be named.
    """

    def __init__(self, arrays: Mapping[str, Any], trusted: tuple[str, ...] = ()) -> None:
        self.arrays, self.trusted = arrays, trusted

    def decode(self, value: Any) -> Any:
        """The value that was encoded."""
        if value is None or isinstance(value, bool | str | int | float):
            return value
        ((kind, of),) = value.items()
        return self._KINDS[kind](self, of)

    def _enum(self, of: Any) -> Any:
        kind = _found(of[0], self.trusted)
        if not issubclass(kind, Enum):
            raise ValueError(f"{of[0]} is no enum")
        return kind[of[1]]

    def _bind(self, of: Any) -> Any:
        return Bind(self.decode(of[0]), **{name: self.decode(v) for name, v in of[1].items()})

    def _named(self, of: Any) -> Any:
        kind = _found(of[0], self.trusted)
        if not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
            raise ValueError(f"{of[0]} is no NamedTuple")
        return kind(*map(self.decode, of[1]))

    def _frozen(self, of: Any) -> Any:
        kind = _found(of[0], self.trusted)
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise ValueError(f"{of[0]} is no dataclass")
        return kind(**{name: self.decode(v) for name, v in of[1].items()})

    _KINDS: dict[str, Callable[..., Any]] = {
        "enum": _enum,
        "number": lambda self, of: _NUMBERS[of],
        "bytes": lambda self, of: bytes.fromhex(of),
        "array": lambda self, of: self.arrays[of],
        "bind": _bind,
        "named": _named,
        "frozen": _frozen,
        "tuple": lambda self, of: tuple(map(self.decode, of)),
        "dict": lambda self, of: {self.decode(k): self.decode(v) for k, v in of},
        "function": lambda self, of: _found(of, self.trusted),
    }


def _is_allowed(module: str, trusted: tuple[str, ...]) -> bool:
    return any(module == m or module.startswith(f"{m}.") for m in (*_LIBRARY, *trusted))


def _found(name: str, trusted: tuple[str, ...]) -> Any:
    module, _, path = name.partition(":")
    if not _is_allowed(module, trusted):
        raise ValueError(
            f"it names {name}, which is not of jaxprob; if you trust that module, pass "
            f"allow=({module!r},)"
        )
    thing: Any = importlib.import_module(module)
    for part in path.split("."):
        if part.startswith("__"):
            raise ValueError(f"it names {name}")
        thing = getattr(thing, part)
    if not isinstance(thing, FunctionType | type) or thing.__module__ != module:
        raise ValueError(f"it names {name}, which is not of that module")
    return thing
