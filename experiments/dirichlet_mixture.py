"""Dirichlet-process mixtures: a bound against draws from the posterior that it is a bound for.

    python -m experiments.dirichlet_mixture

takes the velocities of 82 galaxies (Roeder, 1990) and the iris measurements of scikit-learn, and

- fits up to twenty components by variational inference from twenty starts, α learned, and draws
  from the same posterior by collapsed Gibbs sampling;
- compares what the two say: density, α, numbers of components, and which iris belong together;
- shows the bound step by step for every start: none falls.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jax import Array
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score

import jaxprob as jp
from experiments import _common
from jaxprob.many import Restarts, restarts
from jaxprob.models import dirichlet_mixture as dm
from jaxprob.solvers import em

STARTS = 20
STATS: Any = stats
MOST = 20  # components
SWEEPS = 4_000
BURN = 1_000
FOLLOWED = 300  # steps
# In 1000 km/s. Components as wide as 1, give or take, anywhere within some tens of the middle.
ABOUT_GALAXIES = {"location": 20.8, "mean_count": 0.01, "scale": 4.0, "degrees": 4.0}
GALAXIES = np.array(
    "9.172 9.350 9.483 9.558 9.775 10.227 10.406 16.084 16.170 18.419 18.552 18.600 18.927 19.052 "
    "19.070 19.330 19.343 19.349 19.440 19.473 19.529 19.541 19.547 19.663 19.846 19.856 19.863 "
    "19.914 19.918 19.973 19.989 20.166 20.175 20.179 20.196 20.215 20.221 20.415 20.629 20.795 "
    "20.821 20.846 20.875 20.986 21.137 21.492 21.701 21.814 21.921 21.960 22.185 22.209 22.242 "
    "22.249 22.314 22.374 22.495 22.746 22.747 22.888 22.914 23.206 23.241 23.263 23.484 23.538 "
    "23.542 23.666 23.706 23.711 24.129 24.285 24.289 24.366 24.717 24.990 25.633 26.960 26.995 "
    "32.065 32.789 34.279".split(),
    float,
)[:, None]


class Found(NamedTuple):
    """Both ways through one posterior."""

    x: np.ndarray
    settings: dict[str, Any]
    runs: Restarts
    draws: dm.Samples

    def draws_thinned(self) -> dm.Samples:
        """Every tenth."""
        return jax.tree.map(lambda a: a[::10], self.draws)

    def density(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By the bound, and by draws."""
        params = self.runs.best.params
        by_bound = jax.vmap(dm.log_prob, (None, 0))(params, jnp.asarray(queries))
        by_draws = dm.gibbs_log_density(self.draws_thinned(), self.x, queries, **self.settings)
        return np.exp(np.asarray(by_bound)), np.exp(np.asarray(by_draws))


def both(x: np.ndarray, settings: dict[str, Any], seed: int) -> Found:
    """The best of some fits, and draws."""
    of_starts, of_draws = jax.random.split(jax.random.key(seed))
    runs = restarts(dm.model(MOST, **settings), x, None, of_starts, num_starts=STARTS)
    most = min(2 * MOST, len(x))
    draws = dm.gibbs(
        of_draws, x, num_steps=SWEEPS, num_burn=BURN, max_components=most, **settings
    )  # fmt: skip
    return Found(x, settings, runs, draws)


def course(found: Found, seed: int) -> list[np.ndarray]:
    """The bound after each step, from starts of their own."""
    model, x = dm.model(MOST, **found.settings), jnp.asarray(found.x)
    start = jax.jit(lambda key: model.init(key, x))
    made = []
    for key in jax.random.split(jax.random.key(seed + 1), STARTS):
        solver = em(tol=0.0, max_steps=FOLLOWED)
        trace = jp.fit(model, found.x, init=start(key), solver=solver, trace=True).trace
        assert trace is not None
        values = -np.asarray(trace.value)
        made.append(values[np.isfinite(values)])
    return made


def together(found: Found) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) how probably two examples are of one component: by the bound, and by draws."""
    r = np.asarray(dm.responsibilities(found.runs.best.params, jnp.asarray(found.x)))
    by_bound = r @ r.T
    np.fill_diagonal(by_bound, 1.0)
    z = np.asarray(found.draws_thinned().assignments)
    by_draws = np.mean([row[:, None] == row[None, :] for row in z], axis=0)
    return by_bound, by_draws


def row(name: str, found: Found) -> list:
    """Of the table."""
    params, x = found.runs.best.params, jnp.asarray(found.x)
    counts = np.sort(np.asarray(dm.expected_counts(params, x)))[::-1]
    number = np.asarray(found.draws.num_components)
    alpha = np.asarray(found.draws.alpha)
    occupied = [np.sum(np.unique(z, return_counts=True)[1] >= 2) for z in
                np.asarray(found.draws_thinned().assignments)]  # fmt: skip
    return [
        name,
        f"{found.runs.times_found(within=1e-3)} of {STARTS}",
        int(dm.num_used(params, x)),
        " ".join(f"{c:.1f}" for c in counts[counts > 0.5]),
        f"{number.mean():.2f} ({np.mean(occupied):.2f})",
        float(params.alpha),
        float(alpha.mean()),
        bool(np.asarray(found.draws.full).any()),
    ]


def draw(galaxies: Found, iris: Found, ways: list[np.ndarray], species: Array, out: Any) -> None:
    """Six panels."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(15, 9), layout="constrained")
    grid = np.linspace(5, 40, 700)
    by_bound, by_draws = galaxies.density(grid[:, None])
    axes[0, 0].hist(GALAXIES[:, 0], bins=np.arange(5, 40, 0.7), density=True, color="lightgrey")
    axes[0, 0].plot(grid, by_bound, label="by the bound")
    axes[0, 0].plot(grid, by_draws, "--", label="by draws")
    axes[0, 0].set(title="density of the next galaxy", xlabel="velocity, 1000 km/s")
    axes[0, 0].legend()
    number = np.bincount(np.asarray(galaxies.draws.num_components)) / SWEEPS
    used = int(dm.num_used(galaxies.runs.best.params, jnp.asarray(GALAXIES)))
    axes[0, 1].bar(np.arange(len(number)), number, color="tab:orange", label="by draws")
    axes[0, 1].axvline(used, color="tab:blue", label="in use, by the bound")
    axes[0, 1].set(title="components of the galaxies", xlabel="number")
    axes[0, 1].legend()
    shape, log_rate = np.exp(galaxies.runs.best.params.concentration[0]), (
        galaxies.runs.best.params.concentration[1]
    )  # fmt: skip
    at = np.linspace(0.01, 6, 300)
    axes[0, 2].hist(np.asarray(galaxies.draws.alpha), bins=60, density=True, color="moccasin")
    axes[0, 2].plot(at, STATS.gamma(float(shape), scale=float(np.exp(-log_rate))).pdf(at))
    axes[0, 2].plot(at, STATS.gamma(1.0).pdf(at), ":", color="grey", label="prior")
    axes[0, 2].set(title="α of the galaxies: by the bound, and draws", xlabel="α", xlim=(0, 6))
    axes[0, 2].legend()
    best = max(way.max() for way in ways)
    for way in ways:
        axes[1, 0].semilogy(np.maximum(best - way, 1e-6), linewidth=0.8)
    axes[1, 0].set(title="nats below the best bound, each start", xlabel="step")
    order = np.lexsort((np.asarray(iris.x)[:, 2], species))
    for ax, matrix, name in zip(
        axes[1, 1:], together(iris), ("by the bound", "by draws"), strict=True
    ):
        ax.imshow(matrix[np.ix_(order, order)], cmap="viridis", vmin=0, vmax=1)
        ax.set(title=f"which iris belong together, {name}", xlabel="by species, and petal length")
    print(_common.save_figure(figure, out, "dirichlet_mixture"))
    plt.close(figure)


def main() -> int:
    """Fit, draw from the posterior, compare."""
    args = _common.parser(__doc__ or "").parse_args()
    jax.config.update("jax_enable_x64", True)
    jp.use_all_cores()
    mpl.use("agg")
    data: Any = load_iris()
    flowers = np.asarray(data.data)
    galaxies = both(GALAXIES, ABOUT_GALAXIES, args.seed)
    iris = both(flowers, dm.weakly_informative(flowers), args.seed)
    columns = [
        *("data", "starts at the best", "in use", "their examples"),
        *("by draws (of two or more)", "α", "α by draws", "full"),
    ]
    rows = [row("galaxies", galaxies), row("iris", iris)]
    _common.table("Variational inference, and draws from the posterior", columns, rows)
    labels = np.argmax(dm.responsibilities(iris.runs.best.params, jnp.asarray(flowers)), axis=1)
    agree = float(adjusted_rand_score(data.target, np.asarray(labels)))
    each = [adjusted_rand_score(data.target, z) for z in
            np.asarray(iris.draws_thinned().assignments)]  # fmt: skip
    at_data = galaxies.density(GALAXIES)
    apart = float(np.max(np.abs(np.log(at_data[0] / at_data[1]))))
    ways = course(galaxies, args.seed)
    falls = float(min(np.diff(way).min() for way in ways))
    facts = [
        ["adjusted Rand index of iris and species, by the bound", agree],
        ["the same, by draws, mean", float(np.mean(each))],
        ["largest difference of log-densities at the galaxies, nats", apart],
        ["least change of the bound in a step, nats", falls],
    ]
    _common.table("How far the two agree", ["what", "value"], facts)
    draw(galaxies, iris, ways, data.target, args.out)
    numbers = {
        "fits": [dict(zip(columns, of, strict=True)) for of in rows],
        "agreement": dict(facts),
        "num_components": {
            "galaxies": np.bincount(np.asarray(galaxies.draws.num_components)),
            "iris": np.bincount(np.asarray(iris.draws.num_components)),
        },
        "courses": ways,
    }
    print(f"numbers: {_common.record('dirichlet_mixture', args.out, numbers)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
