"""Decision trees against a search through all questions, and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import search
from scipy.special import xlogy
from sklearn.datasets import load_iris, load_wine
from sklearn.tree import DecisionTreeClassifier
from tolerances import EPS, SAME_SUM

import jaxprob as jp
from jaxprob.models import decision_tree as dt
from jaxprob.models.trees import binned, nodes_of

SAME_GAIN = 1e-9  # of the oracle, in float64, where sums are exact


def best_value(counts):
    """ℓ(n) of equation 3.24."""
    counts = np.asarray(counts, float)
    return float(xlogy(counts, counts).sum() - xlogy(counts.sum(), counts.sum()))


def split(x, question):
    """Which examples go right."""
    feature, threshold, missing_right = question
    column = x[:, feature]
    return np.where(np.isnan(column), bool(missing_right), column > threshold)


def class_weights(y, c, k):
    return np.bincount(y, c, minlength=k)


def best_question(x, y, c, k, least):
    """(gain, feature, threshold, missing right) of the best one, the first among equals."""
    best = (0.0, None)
    whole = best_value(class_weights(y, c, k))
    some = c > 0
    x, y, c = x[some], y[some], c[some]
    for j in range(x.shape[1]):
        values = np.unique(x[~np.isnan(x[:, j]), j])
        middles = [*((values[1:] + values[:-1]) / 2), np.inf]
        for side in (0, 1) if np.isnan(x[:, j]).any() else (None,):
            for t in middles:
                right = split(x, (j, t, side or 0))
                if min(c[right].sum(), c[~right].sum()) < max(least, 1e-300):
                    continue
                parts = [best_value(class_weights(y[s], c[s], k)) for s in (right, ~right)]
                gain = sum(parts) - whole
                heavier = int(2 * c[~right].sum() < c.sum()) if side is None else side
                if gain > best[0] + SAME_GAIN:
                    best = (gain, (j, t, heavier))
    return best


def grown_by_hand(x, y, c, k, depth, least):
    """Lists of (number, question, counts), where None is no question."""
    found = {}

    def visit(index, rows, level):
        counts = class_weights(y[rows], c[rows], k)
        question = None
        if level < depth:
            _, question = best_question(x[rows], y[rows], c[rows], k, least)
        found[index] = (question, counts)
        if question is not None:
            right = split(x[rows], question)
            visit(2 * index + 1, rows[~right], level + 1)
            visit(2 * index + 2, rows[right], level + 1)

    visit(0, np.arange(len(y)), 0)
    return found


def assert_same_tree(params, found):
    """Questions and weights, node by node."""
    is_split = np.asarray(params.is_split)
    inner = len(is_split)
    assert {i for i in found if i < inner and found[i][0]} == set(np.flatnonzero(is_split))
    for i, (question, counts) in found.items():
        np.testing.assert_array_equal(params.counts[i], counts, err_msg=str(i))
        if question is not None:
            got = params.feature[i], params.threshold[i], params.missing_right[i]
            assert tuple(map(float, got)) == tuple(map(float, question)), i


def few_values(seed, n=60, d=3, k=3, missing=0.0, values=5):
    """Examples with few different values, so that questions tie, and with integer weights."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, values, (n, d)) / 2.0
    noise = np.where(rng.uniform(size=n) < 0.4, rng.integers(0, k, n), 0)
    y = (noise + (x[:, 0] > 1) + (x[:, 1] > 0.6)).astype(int) % k
    x[rng.uniform(size=x.shape) < missing] = np.nan
    return x, y, rng.integers(0, 4, n).astype(float)


@pytest.mark.parametrize("missing", [0.0, 0.25])
@pytest.mark.parametrize("least", [0.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_question_is_the_best_of_all(seed, least, missing, x64):
    x, y, c = few_values(seed, missing=missing)
    params = dt.grow(x, y, c, num_classes=3, depth=3, min_leaf_weight=least).params
    assert_same_tree(params, grown_by_hand(x, y, c, 3, 3, least))


def test_single_precision_asks_the_same(dtype):
    x, y, c = few_values(5, missing=0.1)
    made = dt.grow(jnp.asarray(x, dtype), y, jnp.asarray(c, dtype), num_classes=3, depth=3)
    params, status, gap = made
    assert params.threshold.dtype == dtype
    assert params.counts.dtype == dtype
    assert params.feature.dtype == "int32"
    assert params.missing_right.dtype == "int32"
    assert status.dtype == "int32"
    assert float(gap) == np.inf
    assert_same_tree(params, grown_by_hand(x, y, c, 3, 3, 1.0))


def test_numbers_that_are_next_to_each_other_are_told_apart(dtype):
    values = [np.asarray(1.0, dtype)]
    for _ in range(2):  # halfway between two is rounded down once, and up once
        values.append(np.nextafter(values[-1], 2 * values[0]))
    for pair in (values[:2], values[1:]):
        x = jnp.asarray(np.array(pair)[:, None])
        params = dt.grow(x, jnp.array([0, 1]), num_classes=2, depth=1).params
        assert dt.leaf(params, x).tolist() == [0, 1]


def of_scikit_learn(x, y, c, k, **settings):
    """The tree, and the weights of the classes in the node of each example."""
    tree = DecisionTreeClassifier(criterion="log_loss", random_state=0, **settings)
    tree.fit(x, y, sample_weight=c)
    at = tree.apply(x.astype(np.float32))
    counts = np.zeros((tree.tree_.node_count, k))
    np.add.at(counts, (at, y), 1.0 if c is None else c)
    return tree, counts


@pytest.mark.parametrize("data", [load_iris, load_wine])
@pytest.mark.parametrize("least", [1, 5])
def test_trees_are_those_of_scikit_learn(data, least, x64):
    x, y = data(return_X_y=True)
    x = x.astype(np.float32).astype(float)  # scikit-learn rounds its features
    k, depth = int(y.max()) + 1, 4
    made = dt.grow(x, y, num_classes=k, depth=depth, min_leaf_weight=float(least)).params
    _, counts = of_scikit_learn(x, y, None, k, max_depth=depth, min_samples_leaf=least)
    theirs = sum(best_value(row) for row in counts)
    mine = float(dt.log_likelihood(made, jnp.asarray(x), jnp.asarray(y), smoothing=0.0))
    assert abs(mine - theirs) <= 1e-9 * len(y)
    mine = [row for row in np.asarray(made.counts[2**depth - 1 :]) if row.sum()]
    assert sorted(map(tuple, mine)) == sorted(map(tuple, counts[counts.sum(axis=1) > 0]))


def many_values(seed, kind, n=700, d=3):
    """Three classes, by more values of a column than a byte can number."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(np.float32).astype(float)
    if kind == "tied":
        x = np.round(100 * x) / 128
    hint = x[:, 0] + np.sin(3 * x[:, 1]) + rng.gumbel(size=n)
    return x, np.digitize(hint, [0.5, 2.0])


@pytest.mark.parametrize("kind", ["continuous", "tied"])
def test_trees_of_many_values_are_those_of_scikit_learn(kind, x64):
    """Down to where two questions of small nodes are as good: to depth 4."""
    x, y = many_values(0, kind)
    other_x, other_y = many_values(1, kind)
    assert min(len(np.unique(column)) for column in x.T) > 255
    deep = dt.grow(x, y, num_classes=3, depth=4).params
    for depth in range(1, 5):
        made = dt.limited(deep, depth)
        tree, counts = of_scikit_learn(x, y, None, 3, max_depth=depth)
        mine = float(dt.log_likelihood(made, jnp.asarray(x), jnp.asarray(y), smoothing=0.0))
        assert abs(mine - sum(best_value(row) for row in counts)) <= 1e-9 * len(y)
        p = (counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 1.5)
        theirs = np.log(p[tree.apply(other_x.astype(np.float32)), other_y]).sum()
        mine = float(dt.log_likelihood(made, jnp.asarray(other_x), jnp.asarray(other_y)))
        assert abs(mine - theirs) <= 1e-9 * len(y)


@pytest.mark.parametrize("settings", [{}, {"max_bins": 255}])
def test_few_events_are_found_in_a_tail_and_in_between(settings):
    """At the depth at which an exact tree finds them; with bins as the documentation says."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5_000, 2)).astype("float32")
    for rank, depth in ((-5, 1), (2_000, 2)):
        events = np.argsort(x[:, 1])[rank:][:5]
        y = np.zeros(5_000, int)
        y[events] = 1
        made = dt.grow(jnp.asarray(x), y, num_classes=2, depth=depth, **settings).params
        log_p = np.asarray(dt.predict_log_proba(made, jnp.asarray(x), smoothing=0.0))
        if settings:
            assert (np.exp(log_p[events, 1]) < 0.5).all()
        else:
            np.testing.assert_array_equal(np.exp(log_p[:, 1]), y)


def test_deep_trees_take_memory_for_examples_not_for_nodes():
    """Arrays of nodes × columns × values would take 80 MB; those of examples 1 MB."""
    n, d = 300, 4
    grow = jax.jit(lambda x, y: dt.grow(x, y, num_classes=5, depth=14).params)
    shapes = jax.ShapeDtypeStruct((n, d), "float32"), jax.ShapeDtypeStruct((n,), "int32")
    compiled = grow.lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 4e6
    x, y = many_values(2, "continuous", n, d)
    made = compiled(jnp.asarray(x, "float32"), jnp.asarray(y, "int32"))
    leaves = np.asarray(made.counts[2**14 - 1 :])
    assert (np.count_nonzero(leaves, axis=1) <= 1).all()  # as deep as examples differ
    assert leaves.sum() == n


def test_thresholds_are_those_of_scikit_learn(x64):
    x, y = load_iris(return_X_y=True)
    x = x[:, 3:].astype(np.float32).astype(float)
    made = dt.grow(x, y, num_classes=3, depth=2).params
    tree, _ = of_scikit_learn(x, y, None, 3, max_depth=2)
    asked = tree.tree_.feature >= 0
    np.testing.assert_allclose(
        np.sort(made.threshold[np.asarray(made.is_split)]),
        np.sort(tree.tree_.threshold[asked]),
        rtol=1e-7,  # sums of two float32
    )


def test_missing_entries_go_where_they_gain_more(x64):
    x = np.array([[0.0], [1.0], [2.0], [3.0], [np.nan], [np.nan]])
    for of_missing in (0, 1):
        y = np.array([0, 0, 1, 1, of_missing, of_missing])
        params = dt.grow(x, y, num_classes=2, depth=1).params
        assert params.missing_right.tolist() == [of_missing]
        assert params.threshold.tolist() == [1.5]
    y = np.array([0, 0, 0, 0, 1, 1])  # nothing else is to be asked
    params = dt.grow(x, y, num_classes=2, depth=2).params
    assert params.threshold[0] == jnp.inf
    assert params.missing_right[0] == 1
    assert bool(params.is_split[0])
    assert dt.leaf(params, jnp.asarray(x)).tolist() == [0, 0, 0, 0, 2, 2]
    assert "x0 missing" in dt.describe(params)


def test_where_nothing_was_missing_it_goes_to_the_heavier_side(x64):
    x = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    for y, heavier in (([0, 0, 0, 1, 1], 0), ([0, 0, 1, 1, 1], 1)):
        params = dt.grow(x, np.array(y), num_classes=2, depth=1).params
        assert params.missing_right.tolist() == [heavier]


def test_weights_are_repeats(x64):
    x, y, c = few_values(7, missing=0.2)
    times = c.astype(int)
    weighted = dt.grow(x, y, c, num_classes=3, depth=3).params
    again = np.repeat(x, times, axis=0), np.repeat(y, times)
    repeated = dt.grow(*again, num_classes=3, depth=3).params
    for a, b in zip(weighted, repeated, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("factor", [2.0**-12, 2.0**12])
def test_a_common_factor_of_the_weights_changes_no_question(factor, dtype):
    x, y, c = few_values(16, missing=0.2)
    x, c = jnp.asarray(x, dtype), jnp.asarray(c, dtype)
    usual, scaled = (dt.grow(x, y, w, num_classes=3, depth=3).params for w in (c, factor * c))
    assert usual.is_split.any()
    for a, b in zip(usual[:3], scaled[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(factor * usual.counts, scaled.counts)


def test_weights_that_make_one_example_of_all(x64):
    """Settings that count examples mean nothing then, and a split costs nothing."""
    x, y, c = few_values(17)
    shares = c / c.sum()
    bare = {"num_classes": 3, "depth": 3, "smoothing": 0.0}
    for light, settings, status in (
        (shares, {}, "CONVERGED"),
        (shares, {"smoothing": 0.5}, "INVALID_INPUT"),
        (shares / 3, {"min_leaf_weight": 0.1}, "INVALID_INPUT"),
        (shares, {"min_gain": 0.1}, "INVALID_INPUT"),
        (2 * shares, {"smoothing": 0.5}, "CONVERGED"),
        (np.eye(len(y))[0], {"smoothing": 0.5}, "CONVERGED"),  # one example
        (np.eye(len(y))[0] / 2, {"smoothing": 0.5}, "INVALID_INPUT"),
    ):
        made = dt.grow(x, y, light, **{**bare, **settings})
        if light[1:].any():
            assert jp.Status(int(made.status)).name == status
        else:  # other classes have no weight
            assert (int(made.status) == jp.Status.INVALID_INPUT) == (status == "INVALID_INPUT")
    fit = jp.fit(dt.model(3, 3), x, y, weights=shares)
    assert "normalised_weights" in fit.report().failures[0].reason
    params = dt.grow(x, y, shares, **bare).params
    with pytest.raises(ValueError, match="params: expected a tree of weights that sum to more"):
        dt.prune_bic(params)
    assert jnp.isnan(jax.jit(dt.prune_bic)(params).counts).all()
    every = dt.grow(x, y, c, **bare).params
    assert not jnp.isnan(jax.jit(dt.prune_bic)(every).counts).any()


def test_lanes_are_loops(x64):
    x, y, _ = few_values(8, missing=0.2)
    weights = np.random.default_rng(0).integers(0, 3, (3, len(y))).astype(float)

    def one(c):
        return dt.grow(x, y, c, num_classes=3, depth=3).params

    lanes = jax.jit(jax.vmap(one))(weights)
    for i, c in enumerate(weights):
        for a, b in zip(lanes, one(c), strict=True):
            np.testing.assert_array_equal(a[i], b)


@pytest.mark.slow  # operation by operation: 337 programs
def test_compiled_is_eager(x64):
    x, y, c = few_values(9, n=10, d=2, missing=0.2)
    compiled = dt.grow(x, y, c, num_classes=3, depth=1).params
    assert compiled.is_split.all()
    with jax.disable_jit():
        eager = dt.grow(jnp.asarray(x), jnp.asarray(y), jnp.asarray(c), num_classes=3, depth=1)
    for a, b in zip(compiled, eager.params, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_log_likelihood_is_the_sum_over_examples(dtype):
    x, y, c = few_values(10, missing=0.2)
    x, c = jnp.asarray(x, dtype), jnp.asarray(c, dtype)
    model = dt.model(3, depth=3)
    params = search(model)(x, y, c).params
    each = np.array([model.log_prob(params, x[i], y[i]) for i in range(len(y))], float)
    got = model.objective.log_likelihood(params, x, jnp.asarray(y), c)
    assert got.dtype == dtype
    assert abs(float(got) - float(c @ each)) <= SAME_SUM[dtype] * float(c @ np.abs(each))
    every = np.exp(np.asarray(model.predict.log_proba(params, x), float))
    np.testing.assert_allclose(every.sum(axis=1), 1.0, rtol=8 * EPS[dtype])


def test_leaves_have_the_mean_of_their_posterior(x64):
    x = jnp.array([[0.0], [0.0], [0.0], [1.0]])
    y = jnp.array([0, 0, 1, 1])
    model = dt.model(2, 1, smoothing=0.5)
    params = search(model)(x, y).params
    got = np.exp(model.predict.log_proba(params, x[jnp.array([0, 3])]))
    np.testing.assert_allclose(got, [[2.5 / 4, 1.5 / 4], [0.5 / 2, 1.5 / 2]], rtol=1e-15)
    bare = dt.predict_log_proba(params, x[3:], smoothing=0.0)
    assert bare.tolist() == [[-np.inf, 0.0]]


def test_a_sure_leaf_keeps_the_digits_of_the_others():
    counts = jnp.array([[1e8, 0.0], [1e8, 0.0], [0.0, 0.0]], "float32")
    params = dt.Params(jnp.zeros(1, int), jnp.full(1, jnp.inf), jnp.zeros(1, int), counts)
    got = float(dt.log_prob(params, jnp.zeros(1), 0, smoothing=0.5))
    np.testing.assert_allclose(got, np.log1p(-0.5 / (1e8 + 1)), rtol=1e-6)


def test_a_class_without_examples(x64):
    x, y = np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
    status = dt.grow(x, y, num_classes=3, smoothing=0.0, depth=1).status
    assert jp.Status(int(status)) == jp.Status.CLASS_ABSENT
    for settings in ({"num_classes": 3}, {"num_classes": 2, "smoothing": 0.0}):
        assert int(dt.grow(x, y, depth=1, **settings).status) == jp.Status.CONVERGED


def test_nothing_is_asked_where_nothing_is_gained(x64):
    x, y = np.arange(6.0)[:, None], np.zeros(6, int)
    assert not dt.grow(x, y, num_classes=2, depth=2).params.is_split.any()
    constant = np.ones((6, 2))
    assert not dt.grow(constant, np.arange(6) % 2, num_classes=2, depth=2).params.is_split.any()
    y = np.array([0, 0, 1, 0, 1, 1])
    gain = best_value([3, 0]) + best_value([0, 3]) - best_value([3, 3])
    first = dt.grow(x, y, num_classes=2, depth=1).params
    assert 0 < float(dt.feature_gain(first, 1)[0]) < gain
    assert not dt.grow(x, y, num_classes=2, depth=1, min_gain=gain).params.is_split.any()


def test_gains_of_features_add_up_to_what_the_tree_gains(x64):
    x, y, c = few_values(11, missing=0.2)
    params = dt.grow(x, y, c, num_classes=3, depth=3).params
    gains = dt.feature_gain(params, 3)
    whole = dt.log_likelihood(params, jnp.asarray(x), jnp.asarray(y), c, smoothing=0.0)
    root = best_value(class_weights(y, c, 3))
    assert abs(float(gains.sum()) - (float(whole) - root)) <= 1e-12 * abs(root)
    assert (np.asarray(gains) >= 0).all()


def test_the_first_levels_are_a_tree_of_their_own(x64):
    x, y, c = few_values(12, n=120, missing=0.1)
    deep = dt.grow(x, y, c, num_classes=3, depth=4).params
    shallow = dt.grow(x, y, c, num_classes=3, depth=2).params
    cut = dt.limited(deep, 2)
    for a, b in zip(cut[:3], shallow[:3], strict=True):
        np.testing.assert_array_equal(a[:3], b)
    np.testing.assert_array_equal(cut.counts[:7], shallow.counts)
    got, expected = (dt.predict_log_proba(tree, jnp.asarray(x)) for tree in (cut, shallow))
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="depth: expected an integer of at least 0, got -1"):
        dt.limited(deep, -1)


def brute_force_pruned(found, value, price, index=0):
    """The best worth of the part of a tree at and below a node."""
    if found[index][0] is None:
        return value[index]
    below = sum(brute_force_pruned(found, value, price, 2 * index + s) for s in (1, 2))
    return max(value[index], below - price)


def test_pruning_is_the_best_part_of_the_tree(x64):
    x, y, c = few_values(12, n=120, missing=0.1)
    fresh_x, fresh_y, fresh_c = few_values(13, n=120, missing=0.1)
    params = dt.grow(x, y, c, num_classes=3, depth=4).params
    found = grown_by_hand(x, y, c, 3, 4, 1.0)
    fresh = tuple(map(jnp.asarray, (fresh_x, fresh_y, fresh_c)))
    before = float(dt.log_likelihood(params, *fresh))
    pruned = jax.jit(dt.prune)(params, *fresh)
    after = float(dt.log_likelihood(pruned, *fresh))
    value, rows = {}, {0: np.arange(120)}
    for i in sorted(found):
        question, counts = found[i]
        p = (counts + 0.5) / (counts.sum() + 1.5)
        own = class_weights(fresh_y[rows[i]], fresh_c[rows[i]], 3)
        value[i] = own @ np.log(p)
        if question:
            right = split(fresh_x[rows[i]], question)
            rows[2 * i + 1], rows[2 * i + 2] = rows[i][~right], rows[i][right]
    assert after >= before
    assert abs(after - brute_force_pruned(found, value, 0.0)) <= 1e-11 * abs(after)
    assert 0 < int(pruned.is_split.sum()) < int(params.is_split.sum())


@pytest.mark.parametrize("count_thresholds", [False, True])
def test_pruning_by_bic_is_the_best_part_of_the_tree(count_thresholds, x64):
    x, y, c = few_values(12, n=120, missing=0.1)
    params = dt.grow(x, y, c, num_classes=3, depth=4).params
    found = grown_by_hand(x, y, c, 3, 4, 1.0)
    pruned = dt.prune_bic(params, count_thresholds=count_thresholds)
    price = (2 + count_thresholds) / 2 * np.log(c.sum())
    value = {i: best_value(counts) for i, (_, counts) in found.items()}
    data = tuple(map(jnp.asarray, (x, y, c)))
    got = float(dt.log_likelihood(pruned, *data, smoothing=0.0))
    got -= price * int(pruned.is_split.sum())
    assert abs(got - brute_force_pruned(found, value, price)) <= 1e-11 * abs(got)
    assert 0 < int(pruned.is_split.sum()) < int(params.is_split.sum())
    reached = dt.leaf(pruned, jnp.asarray(x))
    counts = np.zeros((16, 3))
    np.add.at(counts, (np.asarray(reached), y), c)
    np.testing.assert_array_equal(pruned.counts[15:], counts)


def test_many_values_are_cut_at_quantiles(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5_000, 2)) ** 3
    x[:2_000, 1] = 0.25  # a value of its own bin
    x[::7, 0] = np.nan
    x = jnp.asarray(x, dtype)
    columns = binned(x, 31)
    codes = np.asarray(columns.codes)
    assert codes.dtype == "uint8"
    np.testing.assert_array_equal(codes[0] == 31, np.isnan(x[:, 0]))
    sizes = np.bincount(codes[0], minlength=32)[:31]
    assert sizes.min() >= sizes.mean() - 2
    assert sizes.max() <= sizes.mean() + 2
    of_spike = codes[1] == codes[1][0]
    assert set(np.asarray(x[:, 1])[of_spike].tolist()) == {0.25}
    for j in (0, 1):  # codes are in the order of the values
        seen = ~np.isnan(x[:, j])
        order = np.argsort(np.asarray(x[:, j])[seen])
        assert (np.diff(codes[j][seen][order].astype(int)) >= 0).all()


def test_few_values_have_a_bin_each(dtype):
    values = np.array([-3.0, -0.0, 0.0, 1e-30, 2.0, 1e30])
    x = jnp.asarray(np.random.default_rng(0).choice(values, (500, 1)), dtype)
    columns = binned(x, 5)
    codes = np.asarray(columns.codes)[0]
    for value, code in zip([-3.0, 0.0, 1e-30, 2.0, 1e30], range(5), strict=True):
        own = np.asarray(x[:, 0]) == np.asarray(value, dtype)
        np.testing.assert_array_equal(codes == code, own)


def test_growth_and_prediction_agree_on_where_examples_go(dtype):
    """With quantiles of a sample, and thresholds in gaps of nodes."""
    rng = np.random.default_rng(1)
    x = np.exp(2 * rng.standard_normal((30_000, 3))).astype(dtype)
    x[rng.uniform(size=x.shape) < 0.05] = np.nan
    y = (np.nan_to_num(x[:, 0]) > rng.exponential(1, 30_000)).astype(int)
    params = dt.grow(jnp.asarray(x), y, num_classes=2, depth=5, max_bins=63).params
    counts = np.zeros((32, 2))
    np.add.at(counts, (np.asarray(dt.leaf(params, jnp.asarray(x))), y), 1)
    np.testing.assert_array_equal(params.counts[31:], counts)
    for i in range(31):
        np.testing.assert_array_equal(params.counts[2 * i + 1 : 2 * i + 3].sum(0), params.counts[i])


def test_labels_are_drawn_as_predicted():
    x, y, c = few_values(14)
    x = jnp.asarray(x, "float32")
    model = dt.model(3, 2)
    params = search(model)(x, y, jnp.asarray(c, "float32")).params
    draws = jax.vmap(lambda key: model.predict.sample(params, key, x))(
        jax.random.split(jax.random.key(0), 4_000)
    )
    p = np.exp(model.predict.log_proba(params, x))
    for k in range(3):
        error = np.sqrt(p[:, k] * (1 - p[:, k]) / 4_000)
        assert (np.abs(np.mean(draws == k, axis=0) - p[:, k]) <= 5 * error).all()


def test_columns_of_a_node_are_drawn(x64):
    x, y, c = few_values(15, d=6)
    trees = [
        dt.grow(x, y, c, num_classes=3, depth=2, max_features=2, key=jax.random.key(s)).params
        for s in range(20)
    ]
    assert len({int(tree.feature[0]) for tree in trees}) > 2
    every = dt.grow(x, y, c, num_classes=3, depth=2).params
    for tree in trees:  # the root asks for the best of its two columns
        assert dt.feature_gain(tree, 6).sum() <= dt.feature_gain(every, 6).sum() + 30
        alone = [
            best_question(x[:, [j]], y, c, 3, 1.0)[0] for j in range(6)
        ]  # fmt: skip
        got = dt.feature_gain(tree._replace(
            threshold=tree.threshold.at[1:].set(jnp.inf),
            missing_right=tree.missing_right.at[1:].set(0)), 6).max()  # fmt: skip
        assert abs(float(got) - alone[int(tree.feature[0])]) <= 1e-10
        assert np.sum(np.array(alone) > float(got) + 1e-10) <= 4
    same = dt.grow(x, y, c, num_classes=3, depth=2, max_features=6, key=jax.random.key(0)).params
    np.testing.assert_array_equal(same.feature, every.feature)


def test_a_tree_as_text():
    x, y = load_iris(return_X_y=True)
    params = dt.grow(jnp.asarray(x, "float32"), y, num_classes=3, depth=2).params
    names = ["sepal length", "sepal width", "petal length", "petal width"]
    text = dt.describe(params, names, ["setosa", "versicolor", "virginica"], smoothing=0.0)
    assert text.splitlines() == [
        "all: 150",
        "├─ petal length ≤ 2.45: 50, setosa 1.000, versicolor 0.000, virginica 0.000",
        "└─ petal length > 2.45: 100",
        "   ├─ petal width ≤ 1.75: 54, setosa 0.000, versicolor 0.907, virginica 0.093",
        "   └─ petal width > 1.75: 46, setosa 0.000, versicolor 0.022, virginica 0.978",
    ]
    assert "petal length ≤ 2.45 or missing" not in text
    assert "> 2.45 or missing" in dt.describe(params, names, missing=True)
    assert [node.depth for node in nodes_of(params).values()] == [0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="feature_names: expected one for each of at least 4"):
        dt.describe(params, ["only", "two"])
    with pytest.raises(ValueError, match="class_names: expected 3 names, got 2"):
        dt.describe(params, None, ["only", "two"])
    with pytest.raises(ValueError, match="params: expected one tree"):
        dt.describe(jax.tree.map(lambda a: a[None], params))


def test_a_tree_as_a_picture():
    x, y = load_iris(return_X_y=True)
    params = dt.grow(jnp.asarray(x, "float32"), y, num_classes=3, depth=2).params
    ax = jp.plots.tree(params, feature_names=list("abcd"), smoothing=0.0)
    texts = {text.get_text(): text.get_position() for text in ax.texts}
    assert set(texts) == {
        "all\n150",
        "c ≤ 2.45\n50",
        "c > 2.45\n100",
        "d ≤ 1.75\n54",
        "d > 1.75\n46",
    }
    assert texts["c ≤ 2.45\n50"][0] < texts["d ≤ 1.75\n54"][0] < texts["d > 1.75\n46"][0]
    (x_of, _), bars = texts["d ≤ 1.75\n54"], ax.patches
    own = [b.get_width() for b in bars if abs(b.get_y() + 2) < 0.3 and abs(b.get_x() - x_of) < 0.45]
    np.testing.assert_allclose(own, 0.8 * np.array([0, 49, 5]) / 54, atol=1e-6)  # float32
    with pytest.raises(ValueError, match="class_names: expected 3 names, got 1"):
        jp.plots.tree(params, class_names=["one"])


BAD = [
    ({"num_classes": 1}, "num_classes: expected an integer of at least 2, got 1"),
    ({"num_classes": 2.0}, "num_classes: expected an integer"),
    ({"depth": 0}, "depth: expected an integer of at least 1 and at most 16, got 0"),
    ({"depth": 17}, "depth: expected an integer of at least 1 and at most 16, got 17"),
    ({"max_bins": 256}, "max_bins: expected an integer of at least 2 and at most 255, got 256"),
    ({"min_leaf_weight": -1.0}, "min_leaf_weight: expected a number of at least 0, got -1.0"),
    ({"min_gain": float("nan")}, "min_gain: expected a number of at least 0, got nan"),
    ({"smoothing": "some"}, "smoothing: expected a number of at least 0, got 'some'"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_settings_that_no_tree_has(settings, message):
    with pytest.raises(ValueError, match=message):
        dt.model(**{"num_classes": 2, **settings})
    with pytest.raises(ValueError, match=message):
        dt.grow(jnp.zeros((3, 2)), jnp.zeros(3, int), **{"num_classes": 2, **settings})


def test_columns_that_there_are_not():
    with pytest.raises(ValueError, match="max_features: expected at most the 2 columns of x"):
        dt.grow(jnp.zeros((3, 2)), jnp.zeros(3, int), num_classes=2, max_features=3)
