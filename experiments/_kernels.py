"""Parts of `classical` about kernel densities, against scikit-learn, statsmodels and KDEpy."""

import resource
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from KDEpy import FFTKDE
from sklearn.neighbors import KernelDensity
from statsmodels.nonparametric.kernel_density import KDEMultivariate

import jaxprob as jp
from experiments.benchmark import in_turn
from jaxprob.models import kernel_density as kd

EXACT = (20_000, 5_000)
BANDWIDTH = (2_000, 2)
BINNED = 1_000_000
MEMORY = (1_000_000, 100_000)
TARGETS = {"exact": 20.0, "bandwidth": 50.0, "binned": 1.0, "GiB": 1.0}
_CHECKED = 2_000  # queries that are computed exactly, to see errors


def points(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) draws from two normal densities."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + 3.0 * (rng.random(n) < 0.3)[:, None]


def exact(n: int, m: int, d: int, seed: int, repeats: int) -> list:
    """A row: log-densities of m queries under n points.

    "apart" is measured against scikit-learn's sum over all points in one leaf: the tree, which is
    timed, loses up to five digits of it where the density is low.
    """
    x, q = points(n, d, seed), points(m, d, seed + 1)
    h = float(kd.scott(jnp.asarray(x))[0])
    params, kept = kd.of_bandwidth(h), {}
    compiled = jax.jit(kd.log_density)
    precise: Any = {"bandwidth": h, "rtol": 0.0, "atol": 0.0}
    peer = KernelDensity(**precise).fit(x)
    one_leaf = KernelDensity(**precise, leaf_size=2 * n).fit(x)

    def ours() -> None:
        kept["ours"] = np.asarray(compiled(params, q, x))

    seconds = in_turn({"ours": ours, "theirs": lambda: peer.score_samples(q)}, repeats)
    expected = one_leaf.score_samples(q)
    apart = np.max(np.abs(kept["ours"] - expected) / np.maximum(1, np.abs(expected)))
    label = f"exact, {n:,} points × {m:,} queries, d = {d}, float64"
    took, other = seconds["ours"], seconds["theirs"]
    return [label, other, took, other / took, TARGETS["exact"], float(apart)]


def bandwidth(n: int, d: int, seed: int, repeats: int) -> list:
    """A row: leaving out; "apart" is by how many nats our maximum is below that of statsmodels."""
    x, kept = points(n, d, seed), {}
    model = kd.model()

    def ours() -> None:
        kept["ours"] = jax.block_until_ready(jp.fit(model, x))

    ours()
    took = min(_timed(ours) for _ in range(repeats))

    def theirs() -> None:
        rng = np.random.default_rng(seed)
        kept["theirs"] = KDEMultivariate(x, "c" * d, bw="cv_ml", rng=rng).bw

    other = _timed(theirs)
    value = float(kd.log_likelihood(kd.of_bandwidth(jnp.asarray(kept["theirs"])), jnp.asarray(x)))
    if jp.Status(int(kept["ours"].status)) is not jp.Status.CONVERGED:
        raise RuntimeError(f"expected a fit that converged, got {kept['ours']}")
    worse = value - float(kept["ours"].log_likelihood)
    label = f"bandwidth by leaving out, {n:,} × {d}, statsmodels' cv_ml"
    return [label, other, took, other / took, TARGETS["bandwidth"], worse]


def binned(n: int, seed: int, repeats: int) -> list[list]:
    """Two rows: on a grid, by Fourier transforms; "apart" is each one's error of the peak.

    We are given arrays of JAX, KDEpy those of NumPy.
    """
    x = points(n, 1, seed)
    on_device = jnp.asarray(x)
    h = float(kd.scott(jnp.asarray(x))[0])
    params, kept = kd.of_bandwidth(h), {}
    theirs_takes: Any = {"kernel": "gaussian", "bw": h}
    shape = kd.on_grid(params, jnp.asarray(x), tolerance=5e-7).density.shape
    compiled = jax.jit(lambda x: kd.on_grid(params, x, shape=shape))

    def ours() -> None:
        kept["ours"] = jax.block_until_ready(compiled(on_device))

    def theirs() -> None:
        kept["theirs"] = FFTKDE(**theirs_takes).fit(x[:, 0]).evaluate(shape[0])

    seconds = in_turn({"ours": ours, "theirs": theirs}, repeats)
    grid, (at, p) = kept["ours"], kept["theirs"]
    cells = np.linspace(0, len(at) - 1, min(_CHECKED, len(at))).astype(int)

    def error(places: np.ndarray, values: np.ndarray) -> float:
        log_p = jax.jit(kd.log_density)(params, jnp.asarray(places)[:, None], x)
        return float(np.max(np.abs(np.exp(log_p) - values)) / np.max(values))

    queries = np.linspace(x.min(), x.max(), _CHECKED)
    between = np.asarray(kd.interpolate(grid, jnp.asarray(queries)[:, None]))
    took, other = seconds["ours"], seconds["theirs"]
    label = f"on a grid of {shape[0]:,}, {n:,} points, d = 1"
    row = [label, other, took, other / took, TARGETS["binned"], error(queries, between)]
    return [row, ["  KDEpy's own error there", None, None, None, None, error(at[cells], p[cells])]]


def memory(n: int, m: int, seed: int) -> list:
    """A row: GiB at its peak of a process that does nothing else: all of it, data and compiler."""
    code = f"from experiments import _kernels; print(*_kernels.peak({n}, {m}, {seed}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    gib, took = map(float, done.stdout.split()[-2:])
    label = f"GiB of the whole process, {n:,} points × {m:,} queries, d = 1; it took {took:.0f} s"
    return [label, None, gib, None, TARGETS["GiB"], None]


def peak(n: int, m: int, seed: int) -> tuple[float, float]:
    """GiB of this process after computing log-densities, and seconds."""
    jax.config.update("jax_enable_x64", True)
    x, q = jnp.asarray(points(n, 1, seed)), jnp.asarray(points(m, 1, seed + 1))
    params = kd.of_bandwidth(float(kd.scott(x)[0]))
    begin = time.perf_counter()
    jax.jit(kd.log_density)(params, q, x).block_until_ready()
    took = time.perf_counter() - begin
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, took


def _timed(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
