"""The part of `classical` about Dirichlet-process mixtures, against scikit-learn."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

import jaxprob as jp
from experiments._mixtures import points
from experiments.benchmark import in_turn
from jaxprob.contract import Expectation
from jaxprob.models import dirichlet_mixture as dm
from jaxprob.solvers import em

FIT = (20_000, 5, 20)
STEPS = 100
MOST = 1_000  # steps
CHANGE = 1e-5  # of the bound, relative to it, at which both stop
TARGETS = {"float64": 5.0, "float32": None}


class _Peer(BayesianGaussianMixture):
    """Scikit-learn's, from responsibilities of ours, with its bound once per step."""

    def __init__(self, *, start: Any = None, **settings: Any):
        super().__init__(**settings)
        self.start = start

    def _initialize_parameters(self, X: Any, random_state: Any, xp: Any = None) -> None:
        self._initialize(X, self.start)


def fits(n: int, d: int, t: int, dtype: str, seed: int, repeats: int) -> list[list]:
    """Rows: the same number of steps from the same responsibilities; and until the same change.

    "apart" is how far the expected numbers of examples in the components are, relative to n: their
    last stick leaves something, so the two are not quite the same problem.
    """
    x = points(n, d, 6, seed).astype(dtype)
    settings = dm.weakly_informative(x)
    model = dm.model(t, alpha=1 / t, **settings)
    start = jax.jit(model.init)(jax.random.key(seed), jnp.asarray(x))
    member = np.asarray(dm.responsibilities(start, jnp.asarray(x)), np.float64)
    route = model.route(Expectation)
    assert route is not None
    first, _ = route.maximise(start, dm.statistics(start, jnp.asarray(x))[1])
    bound = float(dm.elbo(first, jnp.asarray(x), alpha=1 / t, **settings))
    enough = CHANGE * abs(bound)
    course = jp.fit(model, x, init=first, solver=em(tol=0.0, max_steps=MOST), trace=True).trace
    assert course is not None
    small = np.abs(np.diff(np.asarray(course.value))) < enough  # their rule
    needed = int(np.argmax(small)) + 1 if small.any() else MOST
    kept: dict[str, Any] = {}
    taken: dict[str, int] = {}

    def ours(name: str, steps: int) -> None:
        fit = jp.fit(model, x, init=first, solver=em(tol=0.0, max_steps=steps))
        kept["ours"] = jax.block_until_ready(fit.params)
        taken[name] = int(fit.num_steps)

    def theirs(name: str, tol: float, steps: int) -> None:
        peer = _Peer(
            n_components=t,
            weight_concentration_prior_type="dirichlet_process",
            reg_covar=0.0,
            tol=tol,
            max_iter=steps,
            start=member.astype(dtype),
        )
        kept["theirs"] = peer.fit(x)
        taken[name] = kept["theirs"].n_iter_

    rows = []
    for label, tol, steps, most in (
        (f"{STEPS} steps", 0.0, STEPS, STEPS),
        (f"to a change of {CHANGE:g}", enough, needed, MOST),
    ):
        calls: dict[str, Callable[[], Any]] = {
            "jaxprob": partial(ours, "jaxprob", steps),
            "scikit-learn": partial(theirs, "scikit-learn", tol, most),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            seconds = in_turn(calls, repeats)
        a = np.asarray(dm.expected_counts(kept["ours"], jnp.asarray(x)))
        b = kept["theirs"].weight_concentration_[0] - 1
        apart = float(np.max(np.abs(a - b)) / n)
        took, peer = seconds["jaxprob"], seconds["scikit-learn"]
        counts = f"{taken['jaxprob']} and {taken['scikit-learn']} steps"
        what = f"Dirichlet process, {n:,} × {d}, T = {t}, {dtype}, {label} ({counts})"
        rows.append([what, peer, took, peer / took, TARGETS[dtype], apart])
    return rows
