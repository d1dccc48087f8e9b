"""Nearest neighbours: the search, the density, and the classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.special import gammaln
from sklearn.neighbors import KNeighborsClassifier
from tolerances import EPS

import jaxprob as jp
from jaxprob.many import cross_validate, fit_many
from jaxprob.models import knn_classifier as kc
from jaxprob.models import knn_density as kn
from jaxprob.numerics.nearest import nearest, nearest_by_tree


def points(n=200, d=2, *, seed=0, dtype="float64"):
    """Two clusters."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((n, d)) + 3.0 * (np.arange(n)[:, None] % 2), dtype)


@pytest.mark.parametrize("d", [1, 3, 11])
@pytest.mark.parametrize("num", [1, 7, 200])
def test_the_nearest_are_those_of_scipy(dtype, d, num):
    x, q = points(200, d, dtype=dtype), points(700, d, seed=1, dtype=dtype)
    distance, index = nearest(q, x, num)
    expected = KDTree(np.asarray(x, float)).query(np.asarray(q, float), [*range(1, num + 1)])[0]
    np.testing.assert_allclose(distance, expected, rtol=4 * EPS[dtype] * (1 + d), atol=0)
    away = np.linalg.norm(np.asarray(q, float)[:, None] - np.asarray(x, float)[index], axis=2)
    np.testing.assert_allclose(away, expected, rtol=4 * EPS[dtype] * (1 + d), atol=0)
    tree, _ = nearest_by_tree(np.asarray(q), np.asarray(x), num)
    np.testing.assert_allclose(tree, expected, rtol=4 * EPS[dtype] * (1 + d))


def test_none_is_its_own_neighbour_and_some_points_are_not_there(x64):
    x = points(50)
    live = jnp.arange(50) % 3 != 0
    distance, index = nearest(x, x, 40, live, own=True)
    count = 33 - np.asarray(live)
    seen = np.isfinite(np.asarray(distance))
    np.testing.assert_array_equal(seen.sum(axis=1), np.minimum(40, count))
    for i in range(50):
        own = np.asarray(index[i])[seen[i]]
        assert set(own) == set(np.flatnonzero(np.asarray(live))) - {i}


def test_lanes_are_loops(dtype):
    x = jnp.stack([points(60, seed=s, dtype=dtype) for s in range(3)])
    distance, index = jax.vmap(lambda x: nearest(x, x, 5, own=True))(x)
    for lane in range(3):
        alone = nearest(x[lane], x[lane], 5, own=True)
        np.testing.assert_array_equal(index[lane], alone[1])
        np.testing.assert_allclose(distance[lane], alone[0], rtol=4 * EPS[dtype])


def test_points_that_float32_cannot_tell_apart_are_in_order(x64):
    """Far away, a thousand of them: the fast order would be that of their numbers."""
    order = np.random.default_rng(0).permutation(1000)
    x = jnp.asarray(1e3 + 1e-9 * order)[:, None]
    distance, index = nearest(jnp.zeros((3, 1)), x, 5)
    np.testing.assert_array_equal(order[np.asarray(index)], np.tile(np.arange(5), (3, 1)))
    np.testing.assert_array_equal(distance, 1e3 + 1e-9 * np.tile(np.arange(5), (3, 1)))


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("k", [1, 5])
def test_the_textbook_estimate(x64, d, k):
    x, q = points(300, d), points(40, d, seed=1)
    radius = KDTree(np.asarray(x)).query(np.asarray(q), [k])[0][:, 0]
    log_ball = d / 2 * np.log(np.pi) - gammaln(d / 2 + 1)
    expected = np.log(k) - np.log(300) - log_ball - d * np.log(radius)
    params = kn.of_neighbours(k)
    np.testing.assert_allclose(kn.log_density(params, q, x), expected, rtol=1e-13, atol=1e-13)
    inside = jax.jit(lambda q, x: kn.log_density(params, q, x, max_neighbours=9))(q, x)
    np.testing.assert_allclose(inside, expected, rtol=1e-13, atol=1e-13)
    one = jnp.stack([kn.log_prob(params, at, x) for at in q])
    np.testing.assert_allclose(one, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_weights_are_repeats_also_where_examples_coincide(x64, k):
    x, times = points(40), np.random.default_rng(0).integers(0, 5, 40)
    q = jnp.concatenate([points(10, seed=1), x[:20]])  # some are at examples
    params, again = kn.of_neighbours(k), jnp.repeat(x, times, axis=0)
    repeated = kn.log_density(params, q, again)
    assert np.all(np.isfinite(repeated))
    w = jnp.asarray(times, float)
    np.testing.assert_allclose(kn.log_density(params, q, x, w), repeated, rtol=1e-13, atol=1e-13)
    blocks = jax.jit(lambda q, x, w: kn.log_density(params, q, x, w, max_neighbours=9))(q, x, w)
    np.testing.assert_allclose(blocks, repeated, rtol=1e-13, atol=1e-13)
    one = jnp.stack([kn.log_prob(params, at, x, w) for at in q])
    np.testing.assert_allclose(one, repeated, rtol=1e-13, atol=1e-13)
    half = kn.log_density(kn.of_neighbours(k), q[:10], x, w / 2)
    twice = kn.log_density(kn.of_neighbours(2 * k), q[:10], x, w)
    np.testing.assert_allclose(half, twice, rtol=1e-13, atol=1e-13)


def test_too_few_examples_have_no_density(x64):
    x = points(5)
    with pytest.raises(ValueError, match="num_neighbours: expected at most 5"):
        kn.log_density(kn.of_neighbours(6), x, x)
    with pytest.raises(ValueError, match="num_neighbours: expected at most 5"):
        kn.log_prob(kn.of_neighbours(6), x[0], x)
    same = jnp.ones((5, 2))
    assert np.isnan(kn.log_density(kn.of_neighbours(2), same, same)).all()
    with pytest.raises(ValueError, match="max_neighbours: expected a number inside of jax.jit"):
        jax.jit(lambda x: kn.log_density(kn.of_neighbours(1), x, x))(x)


def test_the_chosen_number_does_best_on_new_examples(x64):
    """And without Z, none does better than the least."""
    x, new = points(800), points(4000, seed=1)
    found = jp.fit(kn.model(60), x)
    assert int(found.status) == jp.Status.CONVERGED
    assert float(found.gap) == 0
    low, high = x.min(axis=0), x.max(axis=0)
    new = new[jnp.all((new >= low[None]) & (new <= high[None]), axis=1)]
    raw, scores = {}, {}
    for k in (2, 4, 8, 15, 30, 60):
        mass = kn._log_masses(x, jnp.ones(800), jnp.array([k]), 60)
        raw[k] = float(jnp.mean(kn.log_density(kn.of_neighbours(k), new, x)))
        scores[k] = raw[k] - float(mass[0])
    chosen = float(jnp.mean(kn.log_density(found.params, new, x)))
    assert chosen >= max(scores.values()) - 0.01
    assert scores[2] < max(scores.values()) - 0.2
    assert raw[2] == max(raw.values())
    estimate = float(found.log_likelihood) / 800
    assert abs(estimate - chosen) < 0.1


@pytest.mark.parametrize("d", [1, 3])
def test_entropy_is_that_of_a_normal_density(x64, d):
    n = 4000
    x = jax.random.normal(jax.random.key(0), (n, d))
    exact = d / 2 * np.log(2 * np.pi * np.e)
    for k in (1, 4):
        error = np.sqrt((d / 2 + jax.scipy.special.polygamma(1, k)) / n)  # of log p, and of log r
        assert abs(float(kn.entropy(x, num_neighbours=k)) - exact) <= 5 * float(error)
    scaled = kn.entropy(3.0 * x, num_neighbours=4) - kn.entropy(x, num_neighbours=4)
    assert abs(float(scaled) - d * np.log(3)) <= 1e-12
    twice = jnp.repeat(x[:500], 2, axis=0)
    assert np.isfinite(kn.entropy(twice, num_neighbours=1))


def test_what_cannot_be_chosen_says_why(x64):
    x = points(30)
    constant = x.at[:, 1].set(2.0)
    same = jnp.ones((30, 2))
    fits = fit_many(kn.model(5), jnp.stack([x, constant, same]))
    expected = [jp.Status.CONVERGED, jp.Status.NON_FINITE, jp.Status.NON_FINITE]
    assert fits.status.tolist() == expected
    few = jp.fit(kn.model(5), x, weights=np.full(30, 0.01))
    assert int(few.status) == jp.Status.NON_FINITE
    assert "no number of neighbours" in jp.report(few).failures[0].reason
    with pytest.raises(
        ValueError, match="needs a gradient, which Nearest-neighbour density does not offer"
    ):
        jp.fit(kn.model(5), x, solver=jp.solvers.newton())
    with pytest.raises(
        ValueError, match="max_neighbours: expected an integer of at least 2, got 1"
    ):
        kn.model(1)


def labelled(n=150, *, seed=0):
    """Three overlapping classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return jnp.asarray(rng.standard_normal((n, 2)) + 2.0 * y[:, None]), jnp.asarray(y, "int32")


@pytest.mark.parametrize("k", [1, 6])
def test_class_probabilities_are_those_of_scikit_learn(x64, k):
    (x, y), (q, _) = labelled(), labelled(seed=1)
    peer = KNeighborsClassifier(k).fit(x, y)
    settings = {"num_classes": 3, "smoothing": 0.5}
    got = kc.predict_log_proba(kc.Params(jnp.int32(k)), q, x, y, **settings)
    expected = np.log((k * peer.predict_proba(q) + 0.5) / (k + 1.5))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_all_that_are_as_far_as_the_last_vote(x64):
    x, y = jnp.array([[0.0], [2.0], [5.0]]), jnp.array([0, 1, 1])
    log_p = kc.predict_log_proba(
        kc.Params(jnp.int32(1)), jnp.array([[1.0]]), x, y, num_classes=2, smoothing=1e-9
    )
    np.testing.assert_allclose(jnp.exp(log_p), [[0.5, 0.5]], rtol=1e-8)


def test_the_chosen_number_is_the_best_of_all(x64):
    x, y = labelled()
    w = jnp.asarray(np.random.default_rng(2).integers(0, 3, 150), float)
    model = kc.model(3, max_neighbours=30)
    found = jp.fit(model, x, y, weights=w)
    by_hand = []
    for k in range(1, 31):
        each = []
        for i in np.flatnonzero(w):
            rest = w.at[i].set(0.0)
            each.append(w[i] * model.log_prob(kc.Params(jnp.int32(k)), x[i], y[i], x, y, rest))
        by_hand.append(float(sum(each)))
        if k == 3:
            break
    values = [
        float(model.objective.log_likelihood(kc.Params(jnp.int32(k)), x, y, w))
        for k in range(1, 31)
    ]
    np.testing.assert_allclose(values[:3], by_hand, rtol=1e-12)
    assert int(found.params.num_neighbours) == 1 + int(np.argmax(values))
    assert float(found.log_likelihood) == pytest.approx(max(values), rel=1e-12)
    assert float(found.log_likelihood) > float(found.null_log_likelihood)
    assert "the best of the choices" in str(jp.summary(found))


def test_cross_validation_asks_the_other_folds(x64):
    x, y = labelled()
    cv = cross_validate(kc.model(3, max_neighbours=20), x, y, jax.random.key(0), num_folds=3)
    own = np.asarray(cv.folds[0] == 1)
    k = int(cv.fits.params.num_neighbours[1])
    peer = KNeighborsClassifier(k).fit(x[~own], y[~own])
    p = (k * peer.predict_proba(x[own]) + 0.5) / (k + 1.5)
    expected = np.mean(np.log(p[np.arange(own.sum()), np.asarray(y[own])]))
    assert abs(float(cv.scores.log_likelihood[0, 1]) - expected) <= 1e-12
    assert float(cv.scores.accuracy.mean()) > 0.6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "num_classes: expected an integer of at least 2, got 1"),
        ({"num_classes": 2, "smoothing": 0.0}, "smoothing: expected a positive number, got 0.0"),
        ({"num_classes": 2, "max_neighbours": 0}, "max_neighbours: expected an integer of at"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        kc.model(**settings)
