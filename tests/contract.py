"""Every model of the library as the tests of the contract see it: with data, and what adds up."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import MODELS, shapes
from catalogue import draw as draw_linear

from jaxprob.contract import Counts, Model, Search, Trait
from jaxprob.models import (
    decision_tree,
    knn_classifier,
    knn_density,
    linear,
    poisson,
    random_forest,
)
from jaxprob.models import dirichlet_mixture as dm
from jaxprob.models import gaussian_mixture as gm
from jaxprob.models import kernel_density as kd
from jaxprob.models import naive_bayes as nb
from jaxprob.solvers import em


def search(model: Model) -> Callable[..., Any]:
    """The model's own search."""
    route = model.route(Search)
    assert route is not None
    return route.search


@cache
def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a model as one program, which is all that most tests need of it."""
    return jax.jit(fn)


class Example(NamedTuple):
    """Arguments of a log-likelihood; extras are its keywords."""

    params: Any
    x: jax.Array
    y: jax.Array | None
    weights: jax.Array
    extras: dict[str, jax.Array]

    @property
    def data(self) -> tuple[jax.Array, ...]:
        """What the model's functions take as examples."""
        return (self.x,) if self.y is None else (self.x, self.y)

    def terms(self, model: Model) -> jax.Array:
        """(n,) the log-probability of each example; under the others where they are the density."""
        if Trait.SUM in model.offers:
            data, extras = jax.device_get((self.data, self.extras))
            one = compiled(model.log_prob)
            return jnp.stack([
                one(self.params, *(a[i] for a in data), **{k: a[i] for k, a in extras.items()})
                for i in range(len(self.x))
            ])  # fmt: skip
        n = len(self.x)
        others = jnp.where(jnp.eye(n, dtype=bool), 0.0, self.weights[None, :])
        k = len(self.data)
        one = jax.vmap(model.log_prob, (None, *[0] * k, *[None] * k, 0))
        return jax.jit(one)(self.params, *self.data, *self.data, others)

    def made_of(self, model: Model) -> tuple[jax.Array, ...]:
        """What functions of the density take as their last arguments."""
        return () if Trait.SUM in model.offers else (*self.data, self.weights)


class Entry(NamedTuple):
    """A model, and what its tests need to know of it."""

    model: Model
    draw: Callable[..., Example]
    """(model, seed, n=, dtype=) -> an Example of valid data."""
    mass: Callable[..., float]
    """(model, example) -> what its density adds up to."""
    bad_x: float | None = None
    """What no entry of the first column may be, though it is finite."""
    solver: Any = None
    """With which a fit ends at a gradient of zero, where the default's is only small."""
    mass_error: float = 0.0
    """How far from one the model itself says that may be."""
    hard: bool = True
    """Whether derivatives are compared at parameters that are far out, too."""


def _linear(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    params, x, y, weights, offset = draw_linear(model, seed, n=n, dtype=dtype)
    return Example(params, x, y, weights, {"offset": offset})


def _regression(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    """Numbers or counts that are given three features of different units, of moderate size."""
    rng = np.random.default_rng(seed)
    units = 10.0 ** rng.uniform(-1, 1, 3)
    x = jnp.asarray(rng.standard_normal((n, 3)) * units, dtype)
    offset = rng.standard_normal(n)
    is_count = isinstance(model.variables.y, Counts)
    y = rng.poisson(np.exp(offset + 1)) if is_count else rng.standard_normal(n) + offset
    y = jnp.asarray(y, dtype)
    params = jax.tree.map(
        lambda a: jnp.asarray(rng.standard_normal(a.shape) / 2, dtype), shapes(model, x, y)
    )
    params = params._replace(weights=params.weights / jnp.asarray(units, dtype))
    weights = jnp.asarray(rng.integers(0, 4, n) / 2, dtype)
    return Example(params, x, y, weights, {"offset": jnp.asarray(offset, dtype)})


def each_y(model: Model, example: Example) -> tuple[np.ndarray, np.ndarray]:
    """What y of the first example can be, a grid for numbers; and its probability."""
    own = {name: a[0] for name, a in example.extras.items()}
    rest = example.made_of(model)

    @jax.jit
    def log_prob(y: jax.Array) -> jax.Array:
        return model.log_prob(example.params, example.x[0], y, *rest, **own)

    if model.variables.num_classes is not None:
        y = np.arange(model.variables.num_classes)
        return y, np.array([float(jnp.exp(log_prob(jnp.asarray(k)))) for k in y])
    first = {name: a[:1] for name, a in example.extras.items()}
    mean = float(model.predict.mean(example.params, example.x[:1], **first)[0])
    if isinstance(model.variables.y, Counts):
        y, cell = np.arange(np.ceil(mean + 12 * mean**0.5 + 40)), 1.0
    else:
        width = np.exp(-float(log_prob(jnp.asarray(mean, example.x.dtype))))  # that of a box
        y, cell = mean + width * GRID, width * (GRID[1] - GRID[0])
    log_p = jax.jit(jax.vmap(log_prob))(jnp.asarray(y, example.x.dtype))
    return y, cell * np.exp(np.asarray(log_p, float))


def _over_y(model: Model, example: Example) -> float:
    """The sum or integral over y, for the first example."""
    return float(np.sum(each_y(model, example)[1]))


FAMILIES = {
    "gaussian": (nb.Gaussian(),),
    "gaussian, shared": (nb.Gaussian(shared_scale=True),),
    "bernoulli": (nb.Bernoulli(smoothing=0.5),),
    "categorical": (nb.Categorical(3),),
    "multinomial": (nb.Multinomial(),),
    "mixed": (
        nb.Categorical((2, 4), (0, 3), smoothing=0.5),
        nb.Gaussian((1,), prior_count=1.0, prior_scale=2.0),
        nb.Bernoulli((2,)),
    ),
}
NUM_THINGS = 3  # of a multinomial example


def values(family: Any, d: int) -> list[np.ndarray]:
    """What each column of a family can be; a grid for numbers."""
    if isinstance(family, nb.Gaussian):
        return [GRID] * d
    if isinstance(family, nb.Bernoulli):
        return [np.arange(2.0)] * d
    if isinstance(family, nb.Multinomial):
        return [np.arange(NUM_THINGS + 1.0)] * d
    sizes = family.num_categories
    return [np.arange(float(m)) for m in (sizes if isinstance(sizes, tuple) else (sizes,) * d)]


GRID = np.linspace(-20.0, 20.0, 161)  # trapezoids on it integrate normal densities to rounding


def columns(features: tuple, d: int) -> list[tuple[Any, tuple[int, ...]]]:
    """Each family with its columns."""
    return [(family, family.columns or tuple(range(d))) for family in features]


def _width(features: tuple) -> int:
    if features[0].columns is None:
        return 2
    return 1 + max(c for family in features for c in family.columns)


def _bayes(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    features = dict(model.log_prob.settings)["features"]
    rng, d, k = np.random.default_rng(seed), _width(features), model.variables.num_classes
    x = np.zeros((n, d))
    for family, own in columns(features, d):
        if isinstance(family, nb.Gaussian):
            x[:, own] = rng.standard_normal((n, len(own))) * [3.0 ** (j % 3) for j in own] + 1
        elif isinstance(family, nb.Multinomial):
            x[:, own] = rng.multinomial(NUM_THINGS, np.full(len(own), 1 / len(own)), size=n)
        else:
            for j, of in zip(own, values(family, len(own)), strict=True):
                x[:, j] = rng.choice(of, n)
    y = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    x = jnp.asarray(x, dtype)
    params = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape) / 2, dtype), shapes(model, x, y)
    )
    weights = jnp.asarray(rng.integers(0, 4, n) / 2, dtype)
    return Example(params, x, jnp.asarray(y, "int32"), weights, {})


def _over_everything(model: Model, example: Example) -> float:
    """The sum over labels and discrete features, the integral over the others."""
    features, d = dict(model.log_prob.settings)["features"], example.x.shape[1]
    possible: list[Any] = [None] * d
    cell = 1.0
    for family, own in columns(features, d):
        for j, of in zip(own, values(family, len(own)), strict=True):
            possible[j] = of
            cell *= GRID[1] - GRID[0] if isinstance(family, nb.Gaussian) else 1.0
    points = np.array(list(product(*possible)))
    if any(isinstance(family, nb.Multinomial) for family in features):
        points = points[points.sum(axis=1) == NUM_THINGS]
    some = jax.jit(jax.vmap(model.log_prob, (None, 0, None)))
    labels = jnp.arange(model.variables.num_classes)
    x = jnp.asarray(points, example.x.dtype)
    return cell * float(sum(np.sum(np.exp(some(example.params, x, y))) for y in labels))


def _bayes_entry(features: tuple) -> Entry:
    first = next(family for family, own in columns(features, _width(features)) if 0 in own)
    bad = {nb.Bernoulli: 0.5, nb.Categorical: 1.5, nb.Multinomial: -1.0}.get(type(first))
    return Entry(nb.model(3, features, smoothing=0.5), _bayes, _over_everything, bad)


def _points(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    """Two clusters in two columns, with entries that are missing where the model has that."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2)) + 3.0 * (np.arange(n)[:, None] % 2)
    if model.variables.x.missing:
        x[rng.uniform(size=n) < 0.2, rng.integers(2)] = np.nan
    x = jnp.asarray(x, dtype)
    params = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape) / 2, dtype), shapes(model, x)
    )
    weights = jnp.asarray(rng.integers(0, 4, n) / 2, dtype)
    return Example(params, x, None, weights, {})


def _over_the_line(model: Model, example: Example) -> float:
    """The integral over the only column, from one kink to the next by Gauss and Legendre."""
    inner, far = np.asarray(example.x[:, 0], np.float64), 2.0 ** np.arange(-2, 6)
    ends = np.concatenate([inner, inner.max() + far, inner.min() - far])
    ends = np.unique(np.maximum(ends, 0.0) if model.variables.x.valid else ends)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    half = np.diff(ends)[:, None] / 2
    x = (ends[:-1, None] + half * (1 + nodes[None, :])).ravel()
    some = jax.jit(jax.vmap(model.log_prob, (None, 0, None, None)))
    x = jnp.asarray(x, example.x.dtype)[:, None]
    p = np.exp(np.asarray(some(example.params, x, example.x, example.weights), np.float64))
    return float(p @ (half * weights[None, :]).ravel())


def _over_the_plane(model: Model, example: Example) -> float:
    """The integral over both columns."""
    x = np.stack(np.meshgrid(GRID, GRID), axis=-1).reshape(-1, 2)
    x = jnp.asarray(x, example.x.dtype)
    if Trait.SUM in model.offers:
        each = jax.jit(jax.vmap(model.log_prob, (None, 0)))(example.params, x)
    else:
        each = model.objective.density(example.params, x, example.x, example.weights)
    return (GRID[1] - GRID[0]) ** 2 * float(np.sum(np.exp(each)))


def _mixture_entry(covariance: str, **settings: Any) -> Entry:
    model = gm.model(2, covariance, **settings)
    precise = em(tol=1e-20, max_steps=10_000)
    return Entry(model, _points, _over_the_plane, solver=precise, hard="missing" not in settings)


def _over_a_wide_plane(model: Model, example: Example) -> float:
    """The integral over both columns, whose tails are those of Student densities."""
    num = 600
    u = (np.arange(num) + 0.5) / num * np.pi - np.pi / 2  # x = 3 tan u, by middles
    x, slope = 3.0 * np.tan(u), 3.0 / np.cos(u) ** 2
    at = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    some = jax.jit(jax.vmap(model.log_prob, (None, 0)))
    log_p = some(example.params, jnp.asarray(at, example.x.dtype))
    p = np.exp(np.asarray(log_p, float)).reshape(num, num)
    return float(slope @ p @ slope) * (np.pi / num) ** 2


def _components(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    """With some ten degrees of freedom more: tails that quadrature reaches the end of."""
    example = _points(model, seed, n=n, dtype=dtype)
    parts = example.params.components
    parts = parts._replace(log_degrees=parts.log_degrees + 2.5)
    return example._replace(params=example.params._replace(components=parts))


def _dirichlet_entry(**settings: Any) -> Entry:
    precise = em(tol=1e-20, max_steps=10_000)
    model = dm.model(3, degrees=6.0, **settings)
    return Entry(model, _components, _over_a_wide_plane, solver=precise)


def _near(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    """Two clusters in one column or two, with a bandwidth near the best one."""
    rng = np.random.default_rng(seed)
    settings = dict(model.log_prob.settings)
    d = 2 if settings["kernel"] == "gaussian" and settings["bounds"] is None else 1
    x = rng.standard_normal((n, d)) + 3.0 * (np.arange(n)[:, None] % 2)
    x = jnp.asarray(np.abs(x) if settings["bounds"] else x, dtype)
    start = model.init(None, x)
    params = jax.tree.map(lambda a: a + jnp.asarray(rng.normal(size=a.shape) / 5, dtype), start)
    weights = jnp.asarray(rng.integers(0, 4, n) / 2, dtype)
    return Example(params, x, None, weights, {})


def _kernel_entry(kernel: str = "gaussian", bandwidth: str = "diagonal", **own: Any) -> Entry:
    flat = kernel == "gaussian" and not own
    mass = _over_the_plane if flat else _over_the_line
    # Far out it is the automatic derivative that loses digits: the numerical one says so.
    bad = -1.0 if own else None
    return Entry(kd.model(kernel, bandwidth, **own), _near, mass, bad, hard=False)


def _neighbours(model: Model, seed: int, *, n: int = 37, dtype: str = "float64") -> Example:
    """Two clusters in two columns, with ties, and labels where the model has them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n) if model.variables.y is None else rng.integers(0, 3, n)
    x = jnp.asarray(np.round(rng.standard_normal((n, 2)) + 2.0 * y[:, None], 1), dtype)
    labels = None if model.variables.y is None else jnp.asarray(y, "int32")
    weights = jnp.asarray(rng.integers(0, 4, n) / 2, dtype)
    data = (x,) if labels is None else (x, labels)
    grows = Trait.SEARCH | Trait.SUM in model.offers
    start = model.init(None, *data, weights=weights)
    params = search(model)(*data).params if grows else start
    return Example(params, *data, *[None] * (2 - len(data)), weights, {})


def _in_the_box(model: Model, example: Example) -> float:
    """The integral over the box of the examples, by the middles of cells."""
    x, w, num = np.asarray(example.x), np.asarray(example.weights), 400
    low, high = x[w > 0].min(axis=0), x[w > 0].max(axis=0)
    middle = (np.arange(num) + 0.5) / num
    at = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2) * (high - low) + low
    log_p = model.objective.density(
        example.params, jnp.asarray(at, x.dtype), *example.made_of(model)
    )
    return float(np.mean(np.exp(np.asarray(log_p, float))) * np.prod(high - low))


ENTRIES: dict[str, Entry] = {
    **{name: Entry(model, _linear, _over_y) for name, model in MODELS.items()},
    "linear": Entry(linear.model(), _regression, _over_y),
    "linear, no bias": Entry(linear.model(bias=False), _regression, _over_y),
    "Poisson": Entry(poisson.model(), _regression, _over_y),
    "Poisson, no bias": Entry(poisson.model(bias=False), _regression, _over_y),
    **{f"naive Bayes, {name}": _bayes_entry(features) for name, features in FAMILIES.items()},
    **{f"Gaussian mixture, {kind}": _mixture_entry(kind) for kind in gm.COVARIANCES},
    "Gaussian mixture, prior": _mixture_entry("full", prior_count=1.0),
    "Gaussian mixture, gaps": _mixture_entry("full", missing=True),
    **{f"kernel density, {kind}": _kernel_entry(bandwidth=kind) for kind in kd.BANDWIDTHS},
    "Dirichlet mixture": _dirichlet_entry(),
    "Dirichlet mixture, alpha": _dirichlet_entry(alpha=0.7, location=0.0, scale=0.5),
    "decision tree": Entry(decision_tree.model(3, depth=3), _neighbours, _over_y),
    "random forest": Entry(random_forest.model(3, 5, depth=2), _neighbours, _over_y),
    "nearest-neighbour density": Entry(
        knn_density.model(20), _neighbours, _in_the_box, mass_error=0.03
    ),
    "nearest-neighbour classifier": Entry(
        knn_classifier.model(3, max_neighbours=20), _neighbours, _over_y
    ),
    "kernel density, exponential": _kernel_entry("exponential"),
    "kernel density, reflected": _kernel_entry(bounds=(0.0, None)),
}
