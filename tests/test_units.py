"""What a mixture says does not depend on the units of columns or weights, nor on where zero is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tolerances import EPS, SAME_FIT

import jaxprob as jp
from jaxprob.many import fit_many, mixture_search, restarts
from jaxprob.models import dirichlet_mixture as dm
from jaxprob.models import gaussian_mixture as gm
from jaxprob.solvers import em, minibatch_em

N, D = 120, 2
UNITS = ((1.0, 1.0), (1e-6, 1e-6), (1e6, 1e6), (1e-6, 1e6))
SHIFTS = (0.0, 0.0, 0.0, 1e3)  # in these units


def clusters(seed, apart=6.0, n=N):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    return x + apart * (np.arange(n) % 3)[:, None]


def in_units(x, dtype):
    """(L, n, d) the same examples in other units."""
    return np.stack([x * u + s * np.array(u) for u, s in zip(UNITS, SHIFTS, strict=True)]).astype(
        dtype
    )


def names(fits):
    return [jp.Status(int(s)).name for s in np.atleast_1d(fits.status)]


@pytest.mark.parametrize("kind", ["Dirichlet", "full", "diagonal"])
def test_units_and_shifts_leave_everything_as_it_is(kind, dtype):
    """Each lane has a prior of its own, and the objective moves by the Jacobian exactly."""
    model = dm.model(6) if kind == "Dirichlet" else gm.model(3, kind, prior_count=2.0)
    x = in_units(clusters(0), dtype)
    fits = fit_many(model, x)
    assert names(fits) == ["CONVERGED"] * len(UNITS)
    each = jnp.exp(jax.vmap(model.predict.log_proba)(fits.params, jnp.asarray(x)))
    # Rounding of examples that are 1e3 units from zero, by the slope of the log-odds of 6 units.
    error = 1e3 * 6 * 8 * EPS[dtype]
    np.testing.assert_allclose(each, np.broadcast_to(each[0], each.shape), rtol=0, atol=error)
    sizes = np.sort(np.asarray(each.sum(axis=1)), axis=1)[:, -3:]
    np.testing.assert_allclose(sizes, N / 3, atol=0.5)
    # A prior of ν examples for each of K covariances has no normalising constant.
    count = N if kind == "Dirichlet" else N + 2.0 * 3
    shift = count * np.log(np.array(UNITS)).sum(axis=1)
    objective = np.asarray(fits.objective, float)
    slack = np.asarray(fits.gap) + 16 * EPS[dtype] * np.abs(objective) + N * error**2
    assert np.all(np.abs(objective + shift - objective[0]) <= slack + slack[0])


def test_the_prior_that_follows_the_examples_is_that_of_their_numbers(x64):
    """With weights, which are repeats; and the numbers are NumPy's."""
    x, times = clusters(1, 2.0), np.random.default_rng(0).integers(0, 4, N)
    again = np.repeat(x, times, axis=0)
    settings = dm.weakly_informative(x, times)
    np.testing.assert_allclose(settings["location"], again.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(settings["scale"], np.cov(again.T), rtol=1e-13)
    follows, stays = dm.model(4, alpha=1.0), dm.model(4, alpha=1.0, **settings)
    start = stays.init(None, jnp.asarray(x), jnp.asarray(times, float))
    known = {"init": start, "solver": em(tol=1e-9, max_steps=50)}
    one = jp.fit(follows, x, weights=times, **known)
    for other in (jp.fit(stays, x, weights=times, **known), jp.fit(follows, again, **known)):
        assert abs(float(one.objective - other.objective)) <= 1e-9
        np.testing.assert_allclose(one.params.means, other.params.means, rtol=0, atol=1e-8)
    value = dm.elbo(one.params, jnp.asarray(x), jnp.asarray(times, float), alpha=1.0)
    assert abs(float(one.objective - value)) <= 1e-10


def test_draws_do_not_depend_on_units_either():
    """In powers of two, from one key: the same assignments."""
    x = np.round(clusters(2, n=30) * 64).astype("float32") / 64
    steps = {"num_steps": 20, "num_burn": 20, "alpha": 1.0}
    draws = dm.gibbs(jax.random.key(0), x, **steps)
    for unit in (2.0**-20, 2.0**20):
        other = dm.gibbs(jax.random.key(0), x * np.float32(unit), **steps)
        np.testing.assert_array_equal(draws.assignments, other.assignments)
    assert len(np.unique(np.asarray(draws.num_components))) <= 4


LACKING = {
    "constant": "expected columns that vary.* got column 1, constant",
    "dependent": "expected no column that is a linear function of others",
    "one": "expected at least two examples",
}


def lacking(name, x):
    if name == "one":
        return x[:1]
    x = x.copy()
    x[:, 1] = 3.7 if name == "constant" else 2 * x[:, 0] + 1
    return x


@pytest.mark.parametrize("name", LACKING)
def test_examples_without_a_scale_are_refused(name, dtype):
    x = lacking(name, clusters(3).astype(dtype))
    with pytest.raises(ValueError, match=LACKING[name]):
        jp.fit(dm.model(2), x)
    with pytest.raises(ValueError, match=LACKING[name]):
        dm.gibbs(jax.random.key(0), x)
    if name == "constant":
        with pytest.raises(ValueError, match=LACKING[name]):
            jp.fit(gm.model(2, prior_count=1.0), x)


def test_lanes_without_a_scale_are_singular():
    x = clusters(3).astype("float32")
    some = np.stack([x, lacking("constant", x), lacking("dependent", x)])
    weights = np.ones((4, N), "float32")
    weights[1, 1:] = 0  # one example
    weights[2] = 1 / N
    weights[3] = 0
    found = fit_many(dm.model(2), some)
    assert names(found) == ["CONVERGED", "SINGULAR", "SINGULAR"]
    assert "constant or a linear function" in found.report().failures[0].reason
    assert names(fit_many(dm.model(2), x, weights=weights)) == [
        "CONVERGED", "SINGULAR", "SINGULAR", "NO_DATA"
    ]  # fmt: skip
    mapped = jax.vmap(lambda x: jp.fit(dm.model(2), x).status)(jnp.asarray(some))
    assert mapped.tolist() == found.status.tolist()
    with pytest.raises(ValueError, match=r"weights: expected a sum of at least two .* got 1; .*"):
        jp.fit(dm.model(2), x, weights=weights[2])


@pytest.mark.parametrize("start", gm.STARTS)
def test_starts_do_not_depend_on_units(start, x64):
    """Nor on the weights' unit, nor on what has no weight."""
    x = np.concatenate([clusters(4), np.full((1, D), 1e9)])
    weights = np.append(np.random.default_rng(0).uniform(0.5, 2, N), 0.0)
    unit = np.array([2.0**-30, 2.0**30])

    @jax.jit
    def at(x, weights):
        return gm.init(jax.random.key(1), x, weights, num_components=3, start=start)

    one, other = at(x, weights), at(x * unit, weights * 2.0**-20)
    np.testing.assert_allclose(np.asarray(other.means) / unit, one.means, rtol=1e-12)
    np.testing.assert_allclose(other.weights, one.weights, rtol=1e-12)
    scale = np.outer(unit, unit)
    np.testing.assert_allclose(np.asarray(other.covariances) / scale, one.covariances, rtol=1e-9)


def test_the_unit_of_the_weights_does_not_matter(dtype):
    """Components that overlap, so that it takes steps to tell them apart."""
    x = clusters(5, 1.5).astype(dtype)
    weights = np.random.default_rng(0).uniform(0.2, 1.8, N)
    weights = weights / weights.mean()
    lanes = np.stack([weights, weights / weights.sum(), weights * 2.0**-20]).astype(dtype)
    fits = fit_many(gm.model(2), x, weights=lanes)
    assert names(fits) == ["CONVERGED"] * 3
    steps = np.asarray(fits.num_steps)
    assert steps.min() > 10
    assert np.ptp(steps) <= 1  # a gap may be just below the tolerance, or just above
    means = np.sort(np.asarray(fits.params.means), axis=1)
    same = 2 * SAME_FIT[dtype]  # as far as a step of those at the tolerance goes
    np.testing.assert_allclose(means, np.broadcast_to(means[0], means.shape), rtol=0, atol=same)
    alone = jp.fit(gm.model(2), x, weights=lanes[1])
    assert abs(int(alone.num_steps) - steps[1]) <= 1


def test_what_a_search_says_is_what_a_summary_says(x64):
    x = clusters(6, 2.0)
    weights = np.random.default_rng(0).gamma(2.0, size=N)
    weights *= N / weights.sum()
    key = jax.random.key(0)
    settings = {"components": (2,), "covariances": gm.COVARIANCES, "num_starts": 2}
    found = mixture_search(x, key, weights=weights, **settings)
    for v, covariance in enumerate(found.covariances):
        table = jp.summary(found.fit(covariance, 2))
        got = found.num_params[v, 0], found.bic[v, 0], found.aic[v, 0]
        np.testing.assert_allclose(got, (table.num_params, table.bic, table.aic), rtol=1e-12)
    settings["covariances"] = ("spherical",)
    five = mixture_search(x, key, weights=5 * weights, **settings)
    assert five.num_examples == pytest.approx(5 * N)
    expected = five.num_params * np.log(5 * N) - 2 * five.log_likelihood.max(axis=2)
    np.testing.assert_allclose(five.bic, expected, rtol=1e-12)
    few = mixture_search(x, key, weights=weights / 30, **settings)
    assert "sum to 4 examples, no more than the 7 parameters" in str(few)
    with pytest.raises(ValueError, match=r"weights: expected a sum of at least two .*normalised_"):
        mixture_search(x, key, weights=weights / N, **settings)


def test_runs_are_as_good_as_they_can_tell():
    """In float32 two thirds of 1e-4 of 2,000 nats are rounding; another maximum is not."""
    x = clusters(7, 4.0, n=480).astype("float32")
    found = restarts(gm.model(3), x, None, jax.random.key(0), num_starts=12)
    assert names(found.fits) == ["CONVERGED"] * 12
    apart = found.objective - found.objective.min()
    assert found.times_found() == np.sum(apart < 0.1)
    assert found.times_found(within=0.0) < found.times_found()
    table = mixture_search(x, jax.random.key(0), components=(3,), num_starts=12)
    values = np.asarray(table.log_likelihood[0, 0], float)
    good = np.sum((values >= values.max() - 0.1) & (table.status[0, 0] == jp.Status.CONVERGED))
    assert str(table).splitlines()[2].split("←")[0].split()[-1] == str(good)


def test_columns_that_were_never_observed(x64):
    x = clusters(8)
    x[::2, 0] = np.nan
    never, apart, zero = x.copy(), x.copy(), np.where(np.isnan(x[:, 0]), 1.0, 0.0)
    never[:, 1] = np.nan
    apart[1::2, 1] = np.nan
    model = gm.model(2, missing=True)
    frame = {"height": never[:, 0], "width": never[:, 1]}
    with pytest.raises(ValueError, match=r"an observed entry in every column.* none in column 1;"):
        jp.fit(model, never)
    with pytest.raises(ValueError, match=r"got none in column 1 \(width\); drop it"):
        jp.fit(model, _Frame(frame))
    with pytest.raises(ValueError, match=r"got none in column 0; drop it"):
        jp.fit(model, x, weights=zero)
    with pytest.raises(ValueError, match=r"got none with column 0 and column 1; use covariance="):
        jp.fit(model, apart)
    with pytest.raises(ValueError, match="got none in column 1"):
        minibatch_em(model, [never, x], model.init(None, jnp.asarray(x)))
    for fine in (gm.model(2, "diagonal", missing=True), gm.model(2, missing=True, prior_count=1.0)):
        assert names(jp.fit(fine, apart)) == ["CONVERGED"]
    lanes = np.stack([x, never, apart])
    fits = fit_many(model, lanes)
    assert names(fits) == ["CONVERGED", "SINGULAR", "SINGULAR"]
    assert "never observed with positive weight" in fits.report().failures[0].reason
    assert jax.vmap(lambda x: jp.fit(model, x).status)(lanes).tolist() == fits.status.tolist()
    by_weight = fit_many(model, x, weights=np.stack([np.ones(N), zero]))
    assert names(by_weight) == ["CONVERGED", "SINGULAR"]


class _Frame:
    """As much of a data frame as is asked for."""

    def __init__(self, columns):
        self.columns = list(columns)
        self._values = np.stack(list(columns.values()), axis=1)

    def __array__(self, dtype=None, copy=None):
        return self._values


def test_batches_follow_the_first_and_count_by_weight(x64):
    """One pass in batches of unequal weight, against the step that it must end with."""
    x = clusters(9, n=160)
    model = gm.model(2, prior_count=4.0)
    start = model.init(None, jnp.asarray(x))
    batches = [(x[:80], np.full(80, 2.0)), (x[80:], np.full(80, 0.5))]
    found = minibatch_em(model, batches, start, decay=1.0)
    assert float(found.num_examples) == 200
    variances = x[:80].var(axis=0)
    np.testing.assert_allclose(found.hyperparameters[0], variances, rtol=1e-12)
    one = minibatch_em(model, batches[:1], start, decay=1.0)
    _, sums = gm.statistics(one.params, jnp.asarray(x[80:]))
    both = jax.tree.map(lambda a, b: 200 * (a / 2 + b / 160), one.known, sums)
    expected, _ = gm.maximise(one.params, both, jnp.asarray(variances), prior_count=4.0)
    got, wanted = (np.asarray(ravel_pytree(p)[0]) for p in (found.params, expected))
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_influence_knows_that_the_prior_follows_the_examples(x64):
    x = clusters(10, n=40)[:, :1]
    model = gm.model(1, prior_count=20.0)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, 40)
    found = jp.sensitivity.influence(jp.fit(model, x, weights=weights)).log_scale[:, 0, 0]
    # log s = ½ log ((N v + ν v) / (N + ν)) = ½ log v, whatever the prior counts.
    mean = weights @ x[:, 0] / weights.sum()
    variance = weights @ (x[:, 0] - mean) ** 2 / weights.sum()
    expected = ((x[:, 0] - mean) ** 2 / variance - 1) / (2 * weights.sum())
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["Dirichlet", "diagonal"])
def test_far_from_zero_rounding_does_not_look_like_a_maximum(kind):
    """In float32, in one column, against float64 on the same numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 1)) + 2.5 * (np.arange(1000)[:, None] % 2)
    model = dm.model(3, alpha=1.0) if kind == "Dirichlet" else gm.model(2, kind)
    far = np.stack([x, x + 1e4, x + 1e6]).astype("float32")
    fits = fit_many(model, far)
    assert names(fits) == ["CONVERGED", "CONVERGED", "STALLED"]
    with jax.enable_x64(True):
        start = jax.tree.map(lambda a: np.asarray(a, float), fits.params)
        precise = {"init": start, "solver": em(tol=1e-8, max_steps=5000)}
        best = fit_many(model, far.astype(float), **precise)
    left = np.asarray(best.objective) - np.asarray(fits.objective, float)
    assert np.all(left[:2] <= 0.1)
    assert left[0] - 0.05 <= left[1] <= left[0] + 0.05
    assert float(fits.gap[2]) >= 0.5
