"""Part of `classical` about nearest-neighbour densities, against scikit-learn's search."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import NearestNeighbors

from experiments._kernels import points
from experiments.benchmark import in_turn
from jaxprob.models import knn_density as kn

DENSITY = (20_000, 5_000)
NEIGHBOURS = 10
TARGET = 1.0


def density(n: int, m: int, d: int, seed: int, repeats: int) -> list:
    """A row: log-densities of m queries under n points, with what either needs to search these."""
    x, q = points(n, d, seed), points(m, d, seed + 1)
    kept: dict[str, Any] = {}
    params = kn.of_neighbours(NEIGHBOURS)
    on_device = jnp.asarray(q), jnp.asarray(x)

    def ours() -> None:
        kept["ours"] = np.asarray(kn.log_density(params, *on_device))

    def theirs() -> None:
        radius = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(x).kneighbors(q)[0][:, -1]
        log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
        kept["theirs"] = math.log(NEIGHBOURS / n) - log_ball - d * np.log(radius)

    seconds = in_turn({"ours": ours, "theirs": theirs}, repeats)
    apart = float(np.max(np.abs(kept["ours"] - kept["theirs"])))
    label = f"log-density, {n:,} points × {m:,} queries, k = {NEIGHBOURS}, d = {d}, float64"
    took, other = seconds["ours"], seconds["theirs"]
    return [label, other, took, other / took, TARGET, apart]
