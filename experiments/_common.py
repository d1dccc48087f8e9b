"""What every experiment shares: its arguments, and how its results are shown and kept."""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

T = TypeVar("T")

_PACKAGES = (
    *("jax", "jaxlib", "optax", "chex", "numpy", "scipy", "scikit-learn", "statsmodels"),
    *("joblib", "numba", "glmax"),
)
_PAGE = 140
_HERE = Path(__file__).resolve().parent


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with --seed and --out, whose help shows the text as it is."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    made.add_argument(
        "--out",
        type=Path,
        default=Path("experiments/results"),
        help="folder for numbers and pictures (experiments/results)",
    )
    return made


def environment() -> dict[str, Any]:
    """When, where and with which versions the numbers came about."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    devices = jax.devices()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "device": f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
        "processor": _processor(),
        "x64": jnp.result_type(float) == "float64",
        "python": platform.python_version(),
        "versions": versions,
    }


def record(name: str, out: Path, numbers: Any) -> Path:
    """Write out/name.json: the numbers and the environment they came from.

    NaN and infinities have no place in JSON: they become null.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    content = {"environment": environment(), "numbers": _plain(numbers)}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def save_figure(figure: Any, out: Path, name: str) -> Path:
    """Write a matplotlib figure to out/name.png."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.png"
    figure.savefig(path, dpi=120, bbox_inches="tight")
    return path


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(text(cell) for cell in row))
    # Where the output is no terminal, such as a file, a narrow default would break the cells.
    width = None if sys.stdout.isatty() else _PAGE
    Console(width=width).print(shown)


def text(value: Any) -> str:
    """A cell of a table: floats to four digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """The items, behind a progress bar."""
    return tqdm(items, desc=label, total=total)


def _plain(value: Any) -> Any:
    """The same as Python numbers, strings, lists and dicts."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _commit() -> str | None:
    """The commit of the sources, marked where they differ from it; None outside a repository."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=_HERE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":")[1].strip() for line in info if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
