"""Functions with settings, equal by value."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any


class Bind:
    """A function with keyword settings bound, equal to another by value.

    Unlike a closure, a lambda or `functools.partial`, two of them made in two places compare and
    hash equal, so a compiled program that takes one as a static argument is compiled once.

    Args:
        fn: a function defined at the top level of a module.
        **settings: hashable keyword arguments.

    Example:
        >>> Bind(int, base=2) == Bind(int, base=2), Bind(int, base=2)("101")
        (True, 5)
    """

    __slots__ = ("__weakref__", "fn", "settings")  # jax.jit wants the first

    fn: Callable[..., Any]
    settings: Mapping[str, Any]

    def __init__(self, fn: Callable[..., Any], **settings: Any):
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "settings", MappingProxyType(settings))
        hash(self)  # an unhashable setting fails here, with its own name in the traceback

    def __setattr__(self, name: str, value: Any):
        raise AttributeError("Bind is immutable")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function, with its settings."""
        return self.fn(*args, **self.settings, **kwargs)

    def _key(self) -> tuple:
        return self.fn, tuple(sorted(self.settings.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bind) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        settings = "".join(f", {k}={v!r}" for k, v in self.settings.items())
        return f"Bind({self.fn.__module__}.{self.fn.__qualname__}{settings})"

    def __reduce__(self):
        return _rebuild, (self.fn, dict(self.settings))


def _rebuild(fn: Callable[..., Any], settings: dict[str, Any]) -> Bind:
    return Bind(fn, **settings)
