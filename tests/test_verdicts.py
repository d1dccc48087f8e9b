"""What is said of a fit: of the maximum only where that is proved; with the model's remedies."""

import pathlib
import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob as jp
from jaxprob.contract import Likelihood, is_usable
from jaxprob.fit import verdicts
from jaxprob.models import (
    decision_tree,
    gaussian_mixture,
    kernel_density,
    knn_classifier,
    logistic,
    softmax,
)
from jaxprob.models import naive_bayes as nb
from jaxprob.solvers import newton

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 2)).astype("float32")
Y = (X[:, 0] + RNG.standard_normal(40) > 0).astype("int32")
OF_ONES_OWN = replace(
    logistic.model(),
    certificates=None,
    objective=Likelihood(logistic.model().objective.value),
)
PROVED = r"proved to be within \d.*e-\d+ nats of the maximum, after"
NEAR = r"estimated to be within \d.*e[-+]\d+ nats of a maximum near the start[,.]"
FORMULA = "the maximum is a formula; nothing but rounding is between it and this"
WORDS = {
    "logistic": (logistic.model(), {}, PROVED),
    "l1": (logistic.model(), {"l1": 1.0}, PROVED),
    "softmax": (softmax.model(2, parameterisation="symmetric"), {}, PROVED),
    "Firth": (logistic.model(), {"firth": True}, NEAR),
    "no certificates": (OF_ONES_OWN, {}, NEAR),
    "formula": (nb.model(2), {}, FORMULA),
    "formula, by steps": (nb.model(2), {"solver": newton()}, NEAR),
    "mixture": (gaussian_mixture.model(1, prior_count=1.0), {}, NEAR),
    "kernel density": (kernel_density.model(), {}, NEAR),
    "search": (decision_tree.model(2, depth=1), {}, "may be better ones that were not tried"),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_maximum_is_the_highest_only_where_that_is_proved(name):
    model, settings, words = WORDS[name]
    y = None if model.variables.y is None else Y
    fit = jp.fit(model, X, y, **settings)
    assert fit.status == jp.Status.CONVERGED
    assert re.search(words, jp.summary(fit).evidence)
    assert re.search(words.removesuffix(", after"), str(fit.report()))


def test_a_search_that_compared_all_found_the_best():
    fit = jp.fit(knn_classifier.model(2, max_neighbours=5), X, Y)
    assert "the best of the choices that the model compares; all were compared" in str(fit.report())


@pytest.mark.parametrize("name", ["logistic", "formula", "search"])
def test_summary_and_report_give_the_same_reason(name):
    model = WORDS[name][0]
    fit = jp.fit(model, X, Y)
    for status in (status for status in jp.Status if not is_usable(status)):
        words = verdicts.reason(model, status)
        failed = replace(fit, status=jnp.int32(status))
        assert words in jp.summary(failed).evidence
        assert words in str(failed.report())
        assert name == "logistic" or not re.search("l2|firth", words)


def table_of_words():
    """What docs/status.md says of each status that is no success."""
    rows = [f"| {s.name} | {what} | {remedy} |" for s, (what, remedy) in verdicts._WORDS.items()]
    return "\n".join(["| status | what happened | what to do |", "| --- | --- | --- |", *rows])


def test_the_docs_use_the_words_of_the_messages():
    docs = (pathlib.Path(__file__).parent.parent / "docs" / "status.md").read_text()
    assert table_of_words() in docs
    for status in jp.Status:
        assert status.name in docs
