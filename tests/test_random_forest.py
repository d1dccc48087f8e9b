"""Random forests: against their trees one by one, and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import search
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.ensemble import RandomForestClassifier
from tolerances import EPS, SAME_SUM

import jaxprob as jp
from jaxprob.models import decision_tree as dt
from jaxprob.models import random_forest as rf

SMALL = {"num_classes": 3, "num_trees": 5, "depth": 2}


def examples(seed=0, n=80, d=6, dtype="float64"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    x[rng.uniform(size=x.shape) < 0.1] = np.nan
    c = rng.integers(0, 3, n) / 2
    return jnp.asarray(x, dtype), jnp.asarray(y), jnp.asarray(c, dtype)


def tree(params, t):
    return jax.tree.map(lambda a: a[t], params)


def test_probabilities_are_the_mean_of_those_of_the_trees(dtype):
    x, y, c = examples(dtype=dtype)
    model = rf.model(3, 5, 2)
    params, status, gap = search(model)(x, y, c)
    assert params.threshold.shape == (5, 3)
    assert params.counts.dtype == dtype
    assert float(gap) == np.inf
    assert int(status) == jp.Status.CONVERGED
    trees = [
        np.exp(dt.predict_log_proba(tree(params, t), x, smoothing=rf.SMOOTHING)) for t in range(5)
    ]
    expected = np.mean(np.asarray(trees, float), axis=0)
    got = np.exp(np.asarray(model.predict.log_proba(params, x), float))
    np.testing.assert_allclose(got, expected, rtol=16 * EPS[dtype])
    each = np.array([model.log_prob(params, x[i], y[i]) for i in range(8)], float)
    np.testing.assert_allclose(each, np.log(expected[np.arange(8), y[:8]]), rtol=1e-5)


def test_the_log_likelihood_is_the_sum_over_examples(dtype):
    x, y, c = examples(dtype=dtype)
    model = rf.model(3, 5, 2)
    params = search(model)(x, y, c).params
    own = np.asarray(model.predict.log_proba(params, x), float)[np.arange(len(y)), y]
    got = float(model.objective.log_likelihood(params, x, y, c))
    assert abs(got - np.asarray(c) @ own) <= SAME_SUM[dtype] * float(np.asarray(c) @ np.abs(own))


def test_each_tree_is_a_tree_grown_on_its_sample(x64):
    """With all columns for every node, nothing else is random."""
    x, y, c = examples()
    params = rf.grow(x, y, c, max_features=6, seed=3, **SMALL).params
    for t, key in enumerate(jax.random.split(jax.random.key(3), 5)):
        times = rf.draws(rf.bootstrap_key(key), c)
        alone = dt.grow(x, y, c * times, num_classes=3, depth=2).params
        for a, b in zip(tree(params, t), alone, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(np.unique(params.counts[:, 0, 0])) > 1


def test_without_bootstrap_and_with_all_columns_all_trees_are_one(x64):
    x, y, c = examples()
    params = rf.grow(x, y, c, max_features=6, bootstrap=False, **SMALL).params
    alone = dt.grow(x, y, c, num_classes=3, depth=2).params
    for a, b in zip(params, alone, strict=True):
        np.testing.assert_array_equal(a, np.broadcast_to(b, a.shape))


def test_nodes_ask_for_columns_drawn_for_them(x64):
    x, y, c = examples(n=300)
    params = rf.grow(x, y, c, num_classes=3, num_trees=60, depth=2, max_features=1).params
    asked = np.asarray(params.feature)[np.asarray(params.is_split)]
    share = np.bincount(asked, minlength=6) / len(asked)
    assert (np.abs(share - 1 / 6) <= 5 * np.sqrt(5 / 36 / len(asked))).all()
    assert (params.feature[:, 0] != params.feature[:, 1]).any()


def test_examples_are_drawn_as_often_as_by_chance():
    """Of n positive weights: n draws, each Binomial(n, 1/n); none of weight zero."""
    c = jnp.asarray(np.tile([0.0, 1.0, 2.5], 40), "float32")
    times = jax.vmap(rf.draws, (0, None))(jax.random.split(jax.random.key(0), 2_000), c)
    assert (times[:, ::3] == 0).all()
    assert (times.sum(axis=1) == 80).all()
    some = np.asarray(times).reshape(2_000, 40, 3)[:, :, 1:].ravel()
    for count in range(4):
        p = np.exp(
            np.sum(np.log(np.arange(80 - count + 1, 81)))
            - np.sum(np.log(np.arange(1, count + 1)))
            + (80 - count) * np.log1p(-1 / 80)
            - count * np.log(80)
        )
        error = np.sqrt(p * (1 - p) / len(some))
        assert abs(np.mean(some == count) - p) <= 5 * error


def test_examples_without_weight_are_as_if_they_were_not_there(x64):
    """The counts of a sample are those of the others alone, whatever n is."""
    x, y, _ = examples(n=40)
    c = jnp.ones(40).at[jnp.array([3, 7, 20])].set(0.0)
    times = rf.draws(jax.random.key(1), c)
    assert float(times.sum()) == 37
    params = rf.grow(x, y, c, **SMALL).params
    assert set(np.asarray(params.counts[:, 0].sum(axis=1)).tolist()) == {37.0}
    flipped = rf.grow(x, jnp.where(c > 0, y, 2 - y), c, **SMALL).params
    for a, b in zip(params, flipped, strict=True):
        np.testing.assert_array_equal(a, b)


def test_out_of_bag_is_what_other_trees_say(x64):
    x, y, c = examples()
    params = rf.grow(x, y, c, seed=2, **SMALL).params
    got = rf.out_of_bag(params, x, y, c, seed=2)
    sums, trees = np.zeros((80, 3)), np.zeros(80)
    for t, key in enumerate(jax.random.split(jax.random.key(2), 5)):
        out = np.asarray(rf.draws(rf.bootstrap_key(key), c)) == 0
        sums[out] += np.exp(dt.predict_log_proba(tree(params, t), x, smoothing=rf.SMOOTHING))[out]
        trees += out
    known = trees > 0
    assert 0 < known.sum() < 80
    p = sums[known] / trees[known, None]
    np.testing.assert_allclose(np.exp(got.log_proba)[known], p, rtol=1e-13)
    assert np.isnan(got.log_proba[~known]).all()
    expected = np.asarray(c)[known] @ np.log(p[np.arange(len(p)), np.asarray(y)[known]])
    assert abs(float(got.log_likelihood) - expected) <= 1e-12 * abs(expected)
    assert float(got.weight) == np.asarray(c)[known].sum()


def test_out_of_bag_is_refused_for_what_the_forest_was_not_grown_on(x64):
    x, y, c = examples()
    params = rf.grow(x, y, c, seed=2, **SMALL).params
    whole = rf.grow(x, y, c, seed=2, bootstrap=False, **SMALL).params
    some = jax.tree.map(lambda a: a[:3], params)
    assert rf.out_of_bag(some, x, y, c, seed=2).status == jp.Status.CONVERGED
    for forest, data, seed in (
        (params, (x, y, c), 0),
        (params, (x[::-1], y[::-1], c[::-1]), 2),
        (params, (x, y, c + 1), 2),
        (params, (x, y), 2),
        (jax.tree.map(lambda a: a[2:], params), (x, y, c), 2),
        (whole, (x, y, c), 2),
    ):
        with pytest.raises(ValueError, match="seed, x, y, weights: expected those that the forest"):
            rf.out_of_bag(forest, *data, seed=seed)
    found = jax.jit(lambda params: rf.out_of_bag(params, x, y, c, seed=0))(params)
    assert found.status == jp.Status.INVALID_INPUT
    assert all(jnp.isnan(a).all() for a in found[:3])
    with pytest.raises(ValueError, match="seed: expected an integer of at least 0, got None"):
        rf.out_of_bag(params, x, y, c, seed=None)


def test_a_common_factor_of_the_weights_changes_no_question(x64):
    x, y, c = examples()
    usual, scaled = (rf.grow(x, y, w, **SMALL) for w in (c, c * 2.0**-12))
    assert usual.params.is_split.any()
    np.testing.assert_array_equal(usual.params.threshold, scaled.params.threshold)
    assert int(usual.status) == jp.Status.CONVERGED
    assert int(scaled.status) == jp.Status.INVALID_INPUT
    assert int(rf.grow(x, y, c * 2.0**-12, smoothing=0.0, **SMALL).status) == jp.Status.CONVERGED


def test_lanes_are_loops(x64):
    x, y, c = examples()
    weights = jnp.stack([c, jnp.ones_like(c)])
    lanes = jax.vmap(lambda c: rf.grow(x, y, c, **SMALL).params)(weights)
    for i, c in enumerate(weights):
        for a, b in zip(lanes, rf.grow(x, y, c, **SMALL).params, strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_seeds_matter_and_nothing_else(x64):
    x, y, c = examples()
    one, same = (rf.grow(x, y, c, **SMALL).params for _ in range(2))
    other = rf.grow(x, y, c, seed=1, **SMALL).params
    np.testing.assert_array_equal(one.threshold, same.threshold)
    assert (one.counts != other.counts).any()


def test_it_predicts_as_well_as_that_of_scikit_learn():
    """On held-out examples: nats each, without a prior of the leaves."""
    x, y = make_classification(6_000, 10, n_informative=6, n_classes=3, random_state=0)
    x, rows = x.astype("float32"), np.arange(3_000)
    made = rf.grow(x[:3_000], y[:3_000], num_classes=3, num_trees=200).params
    mine, theirs = [], []
    for seed in range(4):
        some = jax.tree.map(lambda a, seed=seed: a[50 * seed : 50 * (seed + 1)], made)
        own = np.exp(rf.predict_log_proba(some, jnp.asarray(x[3_000:]), smoothing=0.0))
        mine.append(np.mean(np.log(own[rows, y[3_000:]])))
        peer = RandomForestClassifier(50, criterion="log_loss", max_depth=6, random_state=seed)
        p = peer.fit(x[:3_000], y[:3_000]).predict_proba(x[3_000:])
        theirs.append(np.mean(np.log(p[rows, y[3_000:]])))
    error = np.sqrt((np.var(mine, ddof=1) + np.var(theirs, ddof=1)) / 4)
    assert abs(np.mean(mine) - np.mean(theirs)) <= 5 * error


def test_the_mean_is_better_than_its_trees():
    x, y = load_breast_cancer(return_X_y=True)
    x = jnp.asarray(x, "float32")
    made = rf.grow(x, y, num_classes=2, num_trees=30, depth=4).params
    out = rf.out_of_bag(made, x, jnp.asarray(y))
    alone = dt.grow(x[::2], y[::2], num_classes=2, depth=4).params
    single = dt.log_likelihood(alone, x[1::2], jnp.asarray(y[1::2])) / len(y[1::2])
    assert float(out.log_likelihood / out.weight) > float(single)
    gains = np.asarray(rf.feature_gain(made, 30))
    each = [np.asarray(dt.feature_gain(tree(made, t), 30)) for t in range(30)]
    np.testing.assert_allclose(gains, np.mean(each, axis=0), rtol=1e-4, atol=1e-4)


def test_a_class_without_examples(x64):
    x, y, c = examples()
    assert int(rf.grow(x, y, c, smoothing=0.0, **SMALL).status) == jp.Status.CONVERGED
    none = jnp.where(y == 2, 0.0, c)
    assert int(rf.grow(x, y, none, smoothing=0.0, **SMALL).status) == jp.Status.CLASS_ABSENT
    assert int(rf.grow(x, y, none, **SMALL).status) == jp.Status.CONVERGED


def test_labels_are_drawn_as_predicted():
    x, y, c = examples(dtype="float32")
    model = rf.model(3, 5, 2)
    params = search(model)(x, y, c).params
    keys = jax.random.split(jax.random.key(0), 4_000)
    draws = jax.vmap(lambda key: model.predict.sample(params, key, x[:10]))(keys)
    p = np.exp(model.predict.log_proba(params, x[:10]))
    for k in range(3):
        error = np.sqrt(p[:, k] * (1 - p[:, k]) / 4_000)
        assert (np.abs(np.mean(draws == k, axis=0) - p[:, k]) <= 5 * error).all()


BAD = [
    ({"num_trees": 0}, ValueError, "num_trees: expected an integer of at least 1, got 0"),
    ({"seed": -1}, ValueError, "seed: expected an integer of at least 0, got -1"),
    ({"bootstrap": 1}, TypeError, "bootstrap: expected True or False, got 1"),
    ({"max_features": 0}, ValueError, "max_features: expected an integer of at least 1"),
    ({"depth": 0}, ValueError, "depth: expected an integer"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD)
def test_settings_that_no_forest_has(settings, error, message):
    with pytest.raises(error, match=message):
        rf.model(2, **settings)
    with pytest.raises(error, match=message):
        rf.grow(jnp.zeros((3, 2)), jnp.zeros(3, int), num_classes=2, **settings)


def test_columns_that_there_are_not():
    with pytest.raises(ValueError, match="at most the 2 columns of x, got 3"):
        rf.grow(jnp.zeros((3, 2)), jnp.zeros(3, int), num_classes=2, max_features=3)
