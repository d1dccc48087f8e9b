"""Compiled programs: kept between processes, and forgotten before there are too many of them.

Each program maps some dozens of stretches of memory, and Linux ends a process that has more than
65,530. So now and then it is counted how many there are, and programs are dropped, those first that
have not been used for long. They are compiled again when they are needed.
"""

import gc
import os
import weakref
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxprob.runtime.kept import Folder

_MOST_MAPS = 20_000
_FAR_TOO_MANY = 50_000
_COMPILED_BETWEEN_LOOKS = 16
_FOLDERS: list[Folder] = []
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Program(Protocol):
    """A function with compiled programs for some shapes."""

    def clear_cache(self) -> None:
        """Drop them."""
        ...


def keep_programs(path: str | Path | None = None) -> Path:
    """Keep compiled programs between processes, in a folder: a first call then takes far less time.

    Call it before anything is fitted. Programs of the library's own models are found on a CPU by
    what they are made from: nothing is traced, and nothing compiled. For all others, those of
    models that users wrote among them, JAX' persistent cache is switched on, also for small ones.
    What is in the folder is run, so nobody else should be able to write there.

    Args:
        path: of the folder, "~" being the user's own; `jaxprob` among the caches of the user
            (`$XDG_CACHE_HOME`, else `~/.cache`) where None.

    Returns:
        The folder, which is made where it is not there. Delete it to forget all programs.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> keep_programs(folder) == Path(folder)
        True
    """
    if path is None:
        path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxprob"
    folder = Path(path).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # it remembers that there was none
    _FOLDERS[:] = [Folder(folder)]
    return folder


def kept_in() -> Folder | None:
    """Where programs are kept, if they are."""
    return _FOLDERS[0] if _FOLDERS else None


class _Shelf:
    """The programs of this process that can be dropped, and when each was used."""

    def __init__(self) -> None:
        self.used: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.time = count()
        self.num_compiled = 0
        self.looked_at = 0
        self.maps_left = 0  # after the last time, by programs that are not to be dropped here
        jax.monitoring.register_event_duration_secs_listener(self._compiled)

    def _compiled(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        del duration_secs, kwargs
        self.num_compiled += event == _COMPILED

    def note_program(self) -> None:
        """Note that there is one more program, which may not have been compiled here."""
        self.num_compiled += 1

    def use(self, program: Program) -> None:
        """Note that a program is used now, and drop others if there are too many."""
        self.used[program] = next(self.time)
        if self.num_compiled - self.looked_at < _COMPILED_BETWEEN_LOOKS:
            return
        self.looked_at = self.num_compiled
        most = min(max(_MOST_MAPS, self.maps_left + _MOST_MAPS // 2), _FAR_TOO_MANY)
        if num_maps() <= most:
            return
        oldest = sorted(self.used, key=self.used.__getitem__)
        half = len(oldest) // 2
        for some in (oldest[:half], oldest[half:]):
            for other in some:
                other.clear_cache()
            gc.collect()
            self.maps_left = num_maps()
            if self.maps_left <= _MOST_MAPS // 2:
                return


def num_maps() -> int:
    """How many stretches of memory this process has mapped; zero where the system does not say."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return 0


SHELF = _Shelf()
