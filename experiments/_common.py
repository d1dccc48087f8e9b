"""What every experiment shares: its arguments, and how its results are shown and kept."""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def run_parts(
    name: str,
    out: Path,
    parts: Mapping[str, Callable[[], list[dict[str, Any]]]],
    show: Callable[[str, list[dict[str, Any]]], None] | None = None,
    **also: Any,
) -> dict[str, Any]:
    """Run parts of an experiment, print their tables, and write out/name.json after each.

    Parts run at other times stay there, each with the environment that it ran in.

    Args:
        name: of the experiment.
        out: folder.
        parts: functions that return rows with the same keys.
        show: prints the rows of a part; as a table where None.
        **also: what else to write beside rows.

    Returns:
        The numbers of all parts.
    """
    path = out / f"{name}.json"
    numbers = json.loads(path.read_text())["numbers"] if path.exists() else {}
    for part in progress(parts, name.replace("_", " ")):
        rows = parts[part]()
        numbers[part] = {"environment": environment(), **also, "rows": rows}
        if show is None:
            table(part, list(rows[0]), [list(row.values()) for row in rows])
        else:
            show(part, rows)
        record(name, out, numbers)
    print(f"numbers: {path}")
    return numbers


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
