"""The same calls on a GPU and on the processor of the same machine: how fast, and how far apart.

    python -m experiments.devices                     # every device there is; some minutes
    python -m experiments.devices --only own forest   # some of the calls
    python -m experiments.devices --platforms cpu     # only there
    python -m experiments.devices --quick             # tiny sizes: does it run?

Calls: logistic, softmax (one fit), shared, shared-long, own (many fits), path, bayes, em, search
(mixtures), dirichlet, kernels, kernels-large, neighbours, tree, forest.

Each platform has a process of its own, in which data are on the device; scikit-learn, on all cores,
has another. Times are medians after a first call, whose time is that of compiling; of scikit-learn
one run after a first. "apart" is the
largest difference from what the first platform found in float64, relative to its size: of
parameters, of log-densities, or of log-likelihoods of examples held out where the parameters are
not unique. What is measured is written as it comes, so that an interrupt loses nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _common

PEER = "scikit-learn"
DTYPES = ("float64", "float32")
_ROW = "row: "
LONG = 5.0  # seconds, from which on a call is timed once


def timed(call: Any, repeats: int) -> tuple[Any, float, float]:
    """What a call returns, the seconds of its first time, and the median of later ones."""
    begin = time.perf_counter()
    made = call()
    first = time.perf_counter() - begin
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        made = call()
        times.append(time.perf_counter() - begin)
        if sum(times) > LONG:
            break
    return made, first, float(np.median(times))


def measure(platform: str, names: list[str], quick: bool, seed: int, repeats: int) -> Any:
    """Yield for each call and dtype what was measured, and the arrays to compare."""
    import jax

    from experiments._workloads import WORKLOADS

    jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0].device_kind
    for name in names:
        workload = WORKLOADS[name]
        sizes = workload.quick if quick else workload.sizes
        for dtype in DTYPES:
            row = {"name": name, "label": workload.label.format(*sizes), "dtype": dtype}
            if platform == PEER:
                if workload.theirs is not None:
                    scale, _, took = timed(workload.theirs(*sizes, dtype, seed), 1)
                    yield row | {"device": device, "seconds": took * scale}, []
                continue
            run = workload.ours(*sizes, dtype, seed)
            made, first, took = timed(lambda run=run: jax.block_until_ready(run()), repeats)
            found = {"fits": made.fits, "converged": made.converged}
            arrays = [np.asarray(a, np.float64) for a in jax.tree.leaves(made.values)]
            yield row | {"device": device, "seconds": took, "first": first} | found, arrays


def child(args: argparse.Namespace) -> None:
    """Measure on one platform, and say what comes: a line for each row, with a file of arrays."""
    found = measure(args.platforms[0], args.only, args.quick, args.seed, args.repeats)
    for i, (row, arrays) in enumerate(found):
        path = args.child / f"{args.platforms[0]}-{i}.npz"
        np.savez(path, *arrays)
        print(_ROW + json.dumps(row | {"arrays": str(path)}), flush=True)


def run_on(platform: str, args: argparse.Namespace, folder: Path) -> Iterator[dict]:
    """Yield what a process of its own measures on a platform, as it comes."""
    settings = {"JAX_PLATFORMS": "cpu" if platform == PEER else platform}
    command = [sys.executable, "-m", "experiments.devices", "--child", str(folder)]
    command += ["--platforms", platform, "--only", *args.only, "--seed", str(args.seed)]
    command += ["--repeats", str(args.repeats), *(["--quick"] if args.quick else [])]
    environment = os.environ | settings
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_ROW):
                yield json.loads(line.removeprefix(_ROW)) | {"platform": platform}
            else:
                print(line, end="")
    if process.returncode:
        print(f"devices: {platform} ended with an error, which is above", file=sys.stderr)


def apart_from(row: dict, rows: list[dict]) -> float | None:
    """How far a row's arrays are from those that the first platform has in float64."""
    from experiments._workloads import apart

    first = rows[0]["platform"]
    key = row["name"], "float64", first
    same = [r for r in rows if (r["name"], r["dtype"], r["platform"]) == key]
    if not same or row["platform"] == PEER:
        return None
    pair = map(np.load, (row["arrays"], same[0]["arrays"]))
    return apart(*([a[key] for key in a.files] for a in pair))


def shown(rows: list[dict], platforms: list[str]) -> None:
    """A table with a line for each call and dtype."""
    ours = [p for p in platforms if p != PEER]
    columns = ["call", "dtype", *(f"{p}, s" for p in platforms)]
    columns += [f"{p} / {ours[-1]}" for p in platforms if p != ours[-1]]
    columns += ["apart", "converged", "first call, s"]
    found = {(r["label"], r["dtype"], r["platform"]): r for r in rows}
    lines = []
    for label, dtype in dict.fromkeys((r["label"], r["dtype"]) for r in rows):
        each = {p: found.get((label, dtype, p), {}) for p in platforms}
        last, seconds = each[ours[-1]], {p: r.get("seconds") for p, r in each.items()}
        took = seconds[ours[-1]]
        ratios = [
            seconds[p] / took if seconds[p] and took else None for p in platforms if p != ours[-1]
        ]
        fits = last.get("fits")
        converged = f"{last['converged']} of {fits}" if fits else None
        tail = [last.get("apart"), converged, last.get("first")]
        lines.append([label, dtype, *seconds.values(), *ratios, *tail])
    _common.table("the same calls on each device", columns, lines)


def draw(rows: list[dict], platforms: list[str]) -> Any:
    """How many times faster the last platform is than scikit-learn, where both have run."""
    import matplotlib.pyplot as plt

    last = [p for p in platforms if p != PEER][-1]
    found = {(r["label"], r["dtype"], r["platform"]): r for r in rows}
    labels = [r["label"] for r in rows if r["platform"] == PEER and r["dtype"] == DTYPES[0]]
    labels = [label for label in labels if (label, DTYPES[-1], last) in found]
    if not labels:
        return None
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.5 * len(labels)), layout="constrained")
    places = np.arange(len(labels))
    for i, dtype in enumerate(DTYPES):
        took = [found[label, dtype, last]["seconds"] for label in labels]
        theirs = [found.get((label, dtype, PEER), {}).get("seconds", np.nan) for label in labels]
        bars = axes.barh(places + 0.4 * i, np.divide(theirs, took), height=0.4, label=dtype)
        axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_yticks(places + 0.2, labels)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.1)
    device = found[labels[0], DTYPES[0], last]["device"]
    axes.set_xlabel(f"times as fast on {device} as scikit-learn on all cores")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Run the experiment."""
    from experiments._workloads import WORKLOADS

    parser = _common.parser(__doc__ or "")
    parser.add_argument(
        "--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), metavar="CALL"
    )
    parser.add_argument(
        "--platforms",
        nargs="+",
        help="of JAX, with the one to compare with first, and scikit-learn (cpu, the GPU if there "
        "is one, scikit-learn)",
    )
    parser.add_argument("--repeats", type=int, default=5, help="of each call (5)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    # Several processes share a GPU, this one included: none is to take most of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.platforms is None:
        args.platforms = ["cpu", *(["cuda"] if has_gpu() else []), PEER]
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for platform in args.platforms:
            for row in run_on(platform, args, Path(folder)):
                rows.append(row)
                row["apart"] = apart_from(row, rows)
                kept = [{k: v for k, v in r.items() if k != "arrays"} for r in rows]
                path = _common.record("devices", args.out, {"rows": kept})
                took = f"{row['seconds']:.4g} s"
                print(f"{platform}: {row['label']}, {row['dtype']}: {took}", flush=True)
    if not rows:
        raise SystemExit("devices: nothing was measured; see the errors above")
    shown(rows, args.platforms)
    figure = draw(rows, args.platforms)
    if figure is not None:
        print(f"picture: {_common.save_figure(figure, args.out, 'devices')}")
    print(f"numbers: {path}")
    return None


def has_gpu() -> bool:
    """Whether JAX sees a GPU, asked in another process: this one is not to hold its memory."""
    code = "import jax, sys; sys.exit(jax.default_backend() != 'gpu')"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


if __name__ == "__main__":
    main()
