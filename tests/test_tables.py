"""Tables, and labels of any kind: what people have becomes numbers, or an error that says where."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest

import jaxprob as jp
from jaxprob.data import check_array
from jaxprob.data.labels import encoded, of_known
from jaxprob.models import gaussian_mixture, logistic, naive_bayes, softmax

RNG = np.random.default_rng(0)
NUMBERS = RNG.integers(0, 3, (40, 3)).astype("float32")
Y = (NUMBERS[:, 0] + RNG.logistic(size=40) > 1).astype(int)


def as_pandas(**kinds):
    return pd.DataFrame({
        name: pd.Series(NUMBERS[:, j]).astype(kind) for j, (name, kind) in enumerate(kinds.items())
    })  # fmt: skip


TABLES = {
    "bool beside float": (
        pd.get_dummies(pd.DataFrame({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1].astype(str)})),
        np.column_stack([NUMBERS[:, 0], NUMBERS[:, 1][:, None] == np.arange(3)]),
    ),
    "nullable": (as_pandas(a="Int64", b="Float32", c="UInt8"), NUMBERS),
    "categories that are numbers": (as_pandas(a="category", b="float32", c="int8"), NUMBERS),
    "objects": (NUMBERS.astype(object), NUMBERS),
    "big-endian": (NUMBERS.astype(">f4"), NUMBERS),
    "polars": (pl.DataFrame({"a": NUMBERS[:, 0] > 0, "b": NUMBERS[:, 1]}), None),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_entry_is_the_number_that_it_is(name):
    table, expected = TABLES[name]
    if expected is None:
        expected = np.column_stack([NUMBERS[:, 0] > 0, NUMBERS[:, 1]])
    got = check_array("x", table, shape="(n, d)", ndim=2)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype.isnative
    fit = jp.fit(logistic.model(), table, Y, l2=1.0)
    np.testing.assert_array_equal(
        fit.params.weights,
        jp.fit(logistic.model(), expected.astype("float32"), Y, l2=1.0).params[0],
    )


def test_what_is_missing_is_nan():
    table = as_pandas(a="Int64", b="Float32")
    table.iloc[3, 0] = pd.NA
    with pytest.raises(
        ValueError, match=r"x: expected finite numbers, got nan in row 3, column 0 \(a\)"
    ):
        jp.fit(logistic.model(), table, Y)
    got = jp.fit(gaussian_mixture.model(1, missing=True), table)
    expected = NUMBERS[:, :2].copy()
    expected[3, 0] = np.nan
    other = jp.fit(gaussian_mixture.model(1, missing=True), expected)
    np.testing.assert_array_equal(got.params.means, other.params.means)
    rows = [[1.0, None], [2.0, 3.0]]
    with pytest.raises(ValueError, match="got nan in row 0, column 1"):
        jp.fit(logistic.model(), rows, [0, 1])


@pytest.mark.parametrize(("table", "message"), [
    (pd.DataFrame({"a": [1.0, 2.0], "sex": ["f", "m"]}), r"got 'f' in row 0, column 1 \(sex\)"),
    (pd.DataFrame({"a": [1.0, 2.0], "t": pd.to_datetime(["2020-01-01", "2020-01-02"])}),
     r"got dtype datetime64.* in column 1 \(t\)"),
    (pl.DataFrame({"a": [1.0, 2.0], "sex": ["f", "m"]}), r"in column 1 \(sex\); encode text"),
    (np.array([[1.0, 2j]], object), "got 2j in row 0, column 1"),
    (pd.DataFrame({"a": pd.Categorical(["u", "v"])}), r"got 'u' in row 0, column 0 \(a\)"),
])  # fmt: skip
def test_what_is_no_number_is_named(table, message):
    with pytest.raises(TypeError, match=message):
        check_array("x", table, shape="(n, d)", ndim=2)


LABELS = {
    "text": (np.where(Y == 1, "yes", "no"), ("no", "yes")),
    "bytes": (np.where(Y == 1, b"yes", b"no"), (b"no", b"yes")),
    "objects": (np.where(Y == 1, "yes", "no").astype(object), ("no", "yes")),
    "pandas": (pd.Series(np.where(Y == 1, "yes", "no")), ("no", "yes")),
    "polars": (pl.Series(np.where(Y == 1, "yes", "no").tolist()), ("no", "yes")),
    "bools": (Y == 1, (False, True)),
    "1 and 2": (Y + 1, (1, 2)),
    "-1 and 1": (2.0 * Y - 1, (-1.0, 1.0)),
    "categories": (pd.Series(pd.Categorical(np.where(Y == 1, "a", "z"), ["z", "a"])), ("z", "a")),
    "usual": (Y, None),
    "usual floats": (Y.astype(float), None),
    "of JAX": (jnp.asarray(Y), None),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_any_kind_are_classes(name):
    labels, classes = LABELS[name]
    codes, found = encoded(labels, 2)
    np.testing.assert_array_equal(np.asarray(codes), Y)
    assert found == classes
    fit = jp.fit(logistic.model(), NUMBERS, labels)
    assert fit.schema.classes == classes
    np.testing.assert_array_equal(fit.classes, [0, 1] if classes is None else classes)
    np.testing.assert_array_equal(fit.params[0], jp.fit(logistic.model(), NUMBERS, Y).params[0])
    likely = np.asarray(fit.predict_proba(NUMBERS)[:, 1] > 0.5).astype(int)
    np.testing.assert_array_equal(fit.predict(NUMBERS), fit.classes[likely])
    assert float(fit.score(NUMBERS, labels)) == float(fit.score(NUMBERS, jnp.asarray(Y)))


def test_labels_of_lanes_are_those_of_all():
    labels = np.stack([np.where(Y == 1, "yes", "no"), np.where(Y == 1, "no", "yes")])
    fits = jp.fit_many(logistic.model(), NUMBERS, labels)
    assert fits.classes.tolist() == ["no", "yes"]
    assert fits.lane(1).classes.tolist() == ["no", "yes"]
    predicted = fits.predict(NUMBERS)
    assert np.mean(predicted[0] != predicted[1]) > 0.9
    np.testing.assert_array_equal(predicted[1], fits.lane(1).predict(NUMBERS))


def test_names_and_classes_stay_in_every_function_of_many():
    table, labels = pd.DataFrame(NUMBERS, columns=["a", "b", "c"]), np.where(Y == 1, "yes", "no")
    key, model = jax.random.key(0), logistic.model()
    found = {
        "fit_many": jp.fit_many(model, table, labels, l2=np.array([1.0, 2.0])),
        "restarts": jp.many.restarts(model, table, labels, key, num_starts=2, l2=1.0).fits,
        "choose_l2": jp.many.choose_l2(model, table, labels, key, num_folds=2).fit,
        "groups": jp.many.fit_groups(model, table, labels, np.arange(40) % 2, l2=1.0).fits,
        "bootstrap": jp.many.bootstrap(model, table, labels, key, num_replicates=3, l2=1.0).fits,
        "folds": jp.many.cross_validate(model, table, labels, key, num_folds=2, l2=1.0).fits,
    }
    for name, fit in found.items():
        assert fit.feature_names == ("a", "b", "c"), name
        assert fit.classes.tolist() == ["no", "yes"], name


@pytest.mark.parametrize(("labels", "num", "message"), [
    (["a", "b", "c"], 2, "y: expected 2 different labels, one for each class, got 3: 'a', 'b'"),
    (["a", "a"], 2, "y: expected 2 different labels, one for each class, got 1: 'a'; make the"),
    (["a", None], 2, "y: expected text throughout, got None in row 1; drop such rows"),
    (np.array(["a", 1.5], object), 2, "y: expected text throughout, got 1.5 in row 1"),
    (pd.Series(pd.Categorical(["a", None], ["a", "b"])), 2, "got a missing one in row 1"),
    (pd.Series(pd.Categorical(["a", "b"], ["a", "b", "c"])), 2, "y: expected 2 categories, one"),
    ([1, 2, 3], 2, "y: expected integers 0..1 for 2 classes, got 2"),
    ([0.0, np.nan], 2, "y: expected integers 0..1 for 2 classes, got nan in row 1; drop such rows"),
    ([0.5, 1.5], 2, "y: expected integers 0..1 for 2 classes, got 0.5"),
])  # fmt: skip
def test_labels_that_are_none_are_named(labels, num, message):
    x = np.arange(len(labels), dtype="float32")[:, None]
    labels = np.array(labels, object) if isinstance(labels, list) and None in labels else labels
    with pytest.raises(ValueError, match=message):
        jp.fit(softmax.model(num), x, labels)


def test_numbers_that_are_nan_are_called_that():
    y = [1.0, np.nan, 2.0]
    for model in (jp.models.linear.model(), jp.models.poisson.model()):
        with pytest.raises(ValueError, match="y: expected .*, got nan in row 1; drop such rows"):
            jp.fit(model, NUMBERS[:3], y)


def test_categories_that_no_example_has_are_absent():
    labels = pd.Series(pd.Categorical(["a", "b"] * 20, ["a", "b", "c"]))
    fit = jp.fit(naive_bayes.model(3, smoothing=1.0), NUMBERS, labels)
    assert fit.classes.tolist() == ["a", "b", "c"]
    assert jp.Status(int(jp.fit(softmax.model(3), NUMBERS, labels).status)).name == "CLASS_ABSENT"


def test_labels_that_were_not_fitted_are_named():
    with pytest.raises(
        ValueError, match="y: expected labels that were fitted, 'a', 'b', got 'c' in row 1"
    ):
        of_known(["a", "c"], ("a", "b"))
    fit = jp.fit(logistic.model(), NUMBERS, np.where(Y == 1, "yes", "no"))
    with pytest.raises(ValueError, match="labels that were fitted, 'no', 'yes', got 'maybe'"):
        fit.score(NUMBERS[:1], ["maybe"])


def test_labels_of_a_fit_are_not_those_of_another():
    fit = jp.fit(logistic.model(), NUMBERS, Y)
    with pytest.raises(ValueError, match="y: expected integers 0..1 for 2 classes, got -1"):
        fit.score(NUMBERS, Y - 1)
    other = jp.fit(logistic.model(), NUMBERS, 2 * Y + 3)
    assert float(other.score(NUMBERS, 2 * Y + 3)) == float(fit.score(NUMBERS, Y))
    with pytest.raises(ValueError, match="y: expected labels that were fitted, 3, 5, got"):
        other.score(NUMBERS, Y)


def test_settings_may_be_numbers_of_numpy_and_lists():
    one, three = np.int64(1), np.int32(3)
    models = jp.models
    for got, expected in (
        (softmax.model(three), softmax.model(3)),
        (naive_bayes.model(three, smoothing=np.float32(0.5)), naive_bayes.model(3, smoothing=0.5)),
        (
            naive_bayes.model(3, naive_bayes.Categorical(np.array([2, 4]), columns=[0, 1])),
            naive_bayes.model(3, naive_bayes.Categorical((2, 4), columns=(0, 1))),
        ),
        (gaussian_mixture.model(three), gaussian_mixture.model(3)),
        (models.dirichlet_mixture.model(three, alpha=np.float32(1)),
         models.dirichlet_mixture.model(3, alpha=1.0)),
        (models.knn_classifier.model(three), models.knn_classifier.model(3)),
        (models.knn_density.model(three), models.knn_density.model(3)),
        (models.decision_tree.model(three, depth=one), models.decision_tree.model(3, depth=1)),
        (models.random_forest.model(three, three), models.random_forest.model(3, 3)),
        (models.kernel_density.model(bounds=[[0, None]]),
         models.kernel_density.model(bounds=((0, None),))),
    ):  # fmt: skip
        assert got == expected
        assert hash(got) == hash(expected)
    for wrong in (3.0, True, "3", 1, None):
        with pytest.raises(ValueError, match="num_classes: expected an integer of at least 2, got"):
            softmax.model(wrong)
    found = jp.many.mixture_search(
        NUMBERS, jax.random.key(0), components=np.arange(1, 3), num_starts=2
    )
    assert found.bic.shape == (1, 2)
