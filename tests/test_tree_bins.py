"""Trees of many examples, whose first levels come from histograms, against a search of all cuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import xlogy
from tolerances import EPS

from jaxprob.models import decision_tree as dt
from jaxprob.models import random_forest as rf
from jaxprob.models.trees import Columns, binning, columns_of, growing, grown, histograms
from jaxprob.models.trees.columns import in_order, levels_in_bins

N, D, K, DEPTH = 17_000, 3, 3, 4
RULES = {"min_leaf_weight": 2.0, "min_gain": 0.0, "max_features": None}
KINDS = ["continuous", "missing", "zeros", "tied", "noise", "rare"]


def examples(kind, n=N):
    """Features, labels and whole weights, some of them zero."""
    rng = np.random.default_rng(KINDS.index(kind))
    x = rng.standard_normal((n, D))
    hint = x[:, 0] + np.sin(3 * x[:, 1]) + rng.gumbel(size=n)
    y = np.digitize(hint, [0.5, 2.0])
    weights = rng.integers(0, 4, n).astype(float)
    if kind == "missing":
        x[rng.uniform(size=x.shape) < 0.1] = np.nan
    elif kind == "zeros":
        x = np.where(rng.uniform(size=x.shape) < 0.6, 0.0, np.abs(x) ** 3)
    elif kind == "tied":
        x = np.round(300 * x) / 1024
    elif kind == "noise":
        y = rng.integers(0, K, n)
    elif kind == "rare":
        y = np.zeros(n, int)
        y[np.argsort(x[:, 1])[-5:]] = 1
        y[np.argsort(x[:, 2])[9_000:9_005]] = 2
    return x, y, weights


def ell(counts):
    """ℓ(n) of equation 3.24, of columns."""
    return xlogy(counts, counts).sum(axis=0) - xlogy(counts.sum(axis=0), counts.sum(axis=0))


def all_cuts(column, y, weights, least=0.0):
    """Gains of all cuts, missing entries on either side, and the values below and above each."""
    some = weights > 0
    column, mass = column[some], np.where(y[some] == np.arange(K)[:, None], weights[some], 0.0)
    known = ~np.isnan(column)
    missing, total = mass[:, ~known].sum(axis=1), mass.sum(axis=1)
    order = np.argsort(column[known], kind="stable")
    values, below = column[known][order], mass[:, known][:, order].cumsum(axis=1)
    gains = []
    for extra in (0 * missing, missing):
        left = below + extra[:, None]
        right = total[:, None] - left
        lighter = np.minimum(left.sum(axis=0), right.sum(axis=0))
        gain = ell(left) + ell(right) - ell(total)[None]
        gains.append(np.where(lighter >= max(least, 1e-300), gain, -np.inf))
    above = np.append(values[1:], np.inf)
    differ = values < above
    return np.max(gains, axis=0)[differ], values[differ], above[differ]


def of_root(x, y, weights):
    """What the search in bins sees, of one node among two that there may be."""
    columns = columns_of(jnp.asarray(x), num_classes=K, depth=DEPTH)
    data = histograms.Examples(columns, jnp.asarray(y, jnp.int32), jnp.asarray(weights))
    total = np.stack([np.bincount(y, weights, K), np.zeros(K)], axis=1)
    tolerance = 4 * EPS["float64"] * total.sum(axis=0)
    number = jnp.zeros(len(y), jnp.int32)
    least = jnp.array([0.0, jnp.inf])
    rest = jnp.asarray(total), jnp.asarray(tolerance), least
    return data, histograms.Nodes(number, jnp.int32(1), None, *rest)


def in_orders(x, y, weights, first=False, **settings):
    """A tree without histograms, or with as long as they are worth it."""
    rules = {"num_classes": K, "depth": DEPTH, **RULES, **settings}
    key = rules.pop("key", None)

    def grow(x, y, weights):
        columns = Columns(x, x, jnp.any(jnp.isnan(x)), None, jax.lax.map(in_order, x.T))
        if first:
            columns = columns_of(x, num_classes=K, depth=DEPTH)
        return dt.Params(*grown(columns, y, weights, key, **rules))

    return jax.jit(grow)(jnp.asarray(x), jnp.asarray(y, jnp.int32), jnp.asarray(weights))


def assert_same(a, b):
    for name, one, other in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_cut_is_the_best_of_all(kind, x64):
    x, y, weights = examples(kind)
    search = jax.jit(lambda data, nodes: histograms.best_in_bins(data, nodes, 2.0))
    feature, cut, share = search(*of_root(x, y, weights))
    assert 0 < float(share) < 0.1  # of the entries had to be looked at
    every = [all_cuts(column, y, weights, 2.0) for column in x.T]
    tops = [gain.max() for gain, *_ in every]
    assert int(feature[0]) == int(np.argmax(tops))
    assert abs(float(cut.gain[0]) - max(tops)) <= 1e-9
    gain, below, above = every[int(feature[0])]
    at = np.argmax(gain >= gain.max() - 1e-9)
    assert below[at] <= float(cut.key[0]) < above[at]


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_inside_a_bin_gains_more_than_its_bound(kind, x64):
    x, y, weights = examples(kind)
    data, nodes = of_root(x, y, weights)
    look = jax.jit(lambda data, nodes, slot: histograms._edges(data, nodes, slot, 2.0))
    looser = 0
    for j in range(D):
        bound = np.asarray(look(data, nodes, jnp.int32(j)).ceiling)[0, :, 0]
        gain, below, above = all_cuts(x[:, j], y, weights, 2.0)
        last = np.asarray(data.columns.bins.last)[j, :-2]
        code, next_code = np.searchsorted(last, below), np.searchsorted(last, above)
        inside = code == next_code
        assert inside.any()
        assert not np.isin(
            code[inside], np.flatnonzero(~np.asarray(data.columns.bins.inside)[j])
        ).any()
        assert (gain[inside] <= bound[code[inside]] + 1e-9).all()
        looser += np.sum(bound < gain.max())
    if kind in ("continuous", "rare"):
        assert looser > 100  # and most bins need no look


@pytest.mark.parametrize("kind", KINDS)
def test_trees_are_those_of_a_search_in_order(kind, x64):
    x, y, weights = examples(kind)
    assert levels_in_bins(N, K, DEPTH) == DEPTH
    made = dt.grow(x, y, weights, num_classes=K, depth=DEPTH, min_leaf_weight=2.0).params
    assert made.is_split[0]
    assert_same(made, in_orders(x, y, weights))


def test_deep_trees_go_on_in_order(x64):
    x, y, weights = examples("missing")
    assert levels_in_bins(N, K, 7) < 7
    made = dt.grow(x, y, weights, num_classes=K, depth=7, min_leaf_weight=2.0).params
    assert made.is_split[63:].any()
    assert_same(made, in_orders(x, y, weights, depth=7))


@pytest.mark.parametrize("kind", ["missing", "noise"])
def test_where_much_has_to_be_looked_into_it_goes_on_in_order(kind, x64, monkeypatch):
    x, y, weights = examples(kind)
    every = in_orders(x, y, weights)
    for worth in (0.0, 0.04):  # none of the levels, and the first ones
        monkeypatch.setattr(growing, "_worth", lambda *_, worth=worth: jnp.asarray(worth))
        assert_same(every, in_orders(x, y, weights, first=True))


def test_single_precision_finds_rare_events(x64):
    x, y, _ = examples("rare")
    x = jnp.asarray(x, "float32")
    made = dt.grow(x, y, num_classes=K, depth=DEPTH).params
    p = np.exp(dt.predict_log_proba(made, x, smoothing=0.0))
    np.testing.assert_array_equal(p, np.eye(K)[y])


def test_columns_of_nodes_are_drawn_as_in_order(x64):
    x, y, weights = examples("missing")
    key = jax.random.key(3)
    settings = {"num_classes": K, "depth": DEPTH, "min_leaf_weight": 2.0, "max_features": 2}
    made = dt.grow(x, y, weights, key=key, **settings).params
    assert_same(made, in_orders(x, y, weights, key=key, max_features=2))


def test_forests_are_trees_on_their_samples(x64):
    x, y, weights = examples("continuous")
    made = rf.grow(x, y, weights, num_classes=K, num_trees=2, depth=2, max_features=D, seed=3)
    for t, key in enumerate(jax.random.split(jax.random.key(3), 2)):
        times = rf.draws(rf.bootstrap_key(key), jnp.asarray(weights))
        alone = in_orders(x, y, weights * times, depth=2, min_leaf_weight=0.0)
        assert_same(jax.tree.map(lambda a, t=t: a[t], made.params), alone)


def test_lanes_are_loops(x64, monkeypatch):
    """One of which goes on in order at once, and one does not."""
    monkeypatch.setattr(growing, "_worth", lambda *_: jnp.asarray(0.04))
    x, y, weights = examples("missing")
    _, other, _ = examples("noise")
    labels, every = np.stack([y, other]), np.stack([weights, np.ones(N)])

    def one(y, weights):
        return in_orders(x, y, weights, first=True)

    lanes = jax.jit(jax.vmap(one))(labels, every)
    for i in range(2):
        alone = in_orders(x, labels[i], every[i])
        assert_same(jax.tree.map(lambda a, i=i: a[i], lanes), alone)


@pytest.mark.parametrize("kind", ["continuous", "missing", "zeros", "tied"])
def test_bins_with_room_to_look_into(kind, dtype):
    x = np.asarray(examples(kind)[0], dtype)
    bins = jax.tree.map(np.asarray, binning.apart(jnp.asarray(x)))
    for column, codes, last, inside in zip(x.T, *bins[:3], strict=True):
        known = ~np.isnan(column)
        np.testing.assert_array_equal(codes[~known], 255)
        np.testing.assert_array_equal(codes[known], np.searchsorted(last[:254], column[known]))
        for code in np.unique(codes[known]):
            own = column[codes == code]
            assert inside[code] or len(np.unique(own)) == 1
            assert not inside[code] or len(own) <= N / 50  # twice as many as in a bin of 127


def test_infinite_entries_end(x64):
    """A lane may have them; then bins are not looked into."""
    x, y, weights = examples("continuous")
    x = jnp.asarray(np.where(x > 0.5, np.inf, x))
    assert not binning.apart(x).has_room
    made = dt.grow(x, y, weights, num_classes=K, depth=DEPTH, min_leaf_weight=2.0).params
    assert_same(made, in_orders(x, y, weights))


def test_unlucky_samples_are_drawn_again(monkeypatch):
    x = jnp.asarray(examples("continuous")[0][:10_000], "float32")
    drawn = binning._sample

    def unlucky(x, seed, size):
        return jnp.where(seed < 2, 0.0, drawn(x, seed, size))

    monkeypatch.setattr(binning, "_sample", unlucky)
    bins = jax.tree.map(np.asarray, binning.apart(x))
    for codes, inside in zip(bins.codes, bins.inside, strict=True):
        assert np.bincount(codes, minlength=256)[inside].max() <= 10_000 / 50
