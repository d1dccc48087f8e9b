"""Kernel density estimates against brute force, other libraries, and themselves done otherwise."""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import integrate, optimize
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity
from statsmodels.nonparametric.kernel_density import KDEMultivariate
from tolerances import EPS

from jaxprob.models import kernels
from jaxprob.models.kernels import KERNELS, Bandwidth, bandwidth, binned, blocks, sums
from jaxprob.numerics import components
from jaxprob.testing import assert_gradients_match

LOG_SHAPE = {
    "gaussian": lambda r: -(r**2) / 2,
    "epanechnikov": lambda r: np.log(np.maximum(1 - r**2, 0)),
    "tophat": lambda r: np.where(r < 1, 0.0, -np.inf),
    "exponential": lambda r: -r,
}
TIGHT = {"float64": 1e-10, "float32": 1e-4}  # of a log-density; what sums.py allows itself is less


def draw(n, m, d, seed=0, dtype="float64"):
    """Points, queries, weights of which some are zero, and a factor."""
    rng = np.random.default_rng(seed)
    w = rng.exponential(size=n) * (rng.random(n) > 0.1)
    factor = np.tril(rng.normal(size=(d, d)), -1) + np.diag(rng.uniform(0.8, 1.6, d))
    return [a.astype(dtype) for a in (rng.normal(size=(n, d)), rng.normal(size=(m, d)), w, factor)]


@np.errstate(divide="ignore")
def brute(queries, points, factor, w, kernel="gaussian", own=False):
    """Log-densities in float64, difference by difference."""
    queries, points, factor, w = (np.asarray(a, float) for a in (queries, points, factor, w))
    factor = np.diag(factor) if factor.ndim == 1 else factor
    away = (queries[:, None] - points) @ factor.T
    log_k = LOG_SHAPE[kernel](np.sqrt((away**2).sum(axis=-1)))
    every = np.broadcast_to(w, log_k.shape) * (1 - own * np.eye(*log_k.shape))
    d = points.shape[1]
    head = np.log(np.diag(factor)).sum() - kernels.log_normaliser(kernel, d)
    return logsumexp(log_k, axis=1, b=every) - np.log(every.sum(axis=1)) + head


def run(fn, *args, **settings):
    """One program for each call, compiled for the block sizes that there are."""
    return jax.jit(partial(fn, **settings))(*args)


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks, which divide nothing evenly."""
    monkeypatch.setattr(blocks, "_QUERIES", 7)
    monkeypatch.setattr(blocks, "_PAIRS", 80)
    monkeypatch.setattr(sums, "CAREFUL", 30)


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_densities(kernel, d):
    ball = np.pi ** (d / 2) / float(mpmath.gamma(d / 2 + 1))

    def radial(r):
        return d * ball * r ** (d - 1) * np.exp(LOG_SHAPE[kernel](r))

    most = 1 if kernel in kernels.COMPACT else 80
    with np.errstate(divide="ignore"):
        whole = integrate.quad(radial, 0, most, epsabs=0, epsrel=1e-12, limit=200)[0]
    np.testing.assert_allclose(np.exp(kernels.log_normaliser(kernel, d)), whole, rtol=1e-11)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_and_their_slopes(dtype, kernel):
    s = jnp.asarray([0.0, 1e-6, 0.25, 0.5625, 1.0, 7.0], dtype)
    with np.errstate(divide="ignore"):
        exact = LOG_SHAPE[kernel](np.sqrt(np.asarray(s, float)))
    got = kernels.log_kernel(s, kernel, 3) + kernels.log_normaliser(kernel, 3)
    np.testing.assert_allclose(got, exact, rtol=8 * EPS[dtype], atol=8 * EPS[dtype])
    inside = s[1:4] if kernel in kernels.COMPACT else s[1:]
    slope = kernels.log_kernel_slope(inside, kernel)
    auto = jax.vmap(jax.grad(lambda s: kernels.log_kernel(s, kernel, 3)))(inside)
    np.testing.assert_allclose(slope, auto, rtol=8 * EPS[dtype])
    assert jnp.isfinite(kernels.log_kernel_slope(s[0], kernel))
    assert jnp.isnan(kernels.log_kernel(jnp.asarray(jnp.nan, dtype), kernel, 3))


@pytest.mark.parametrize(("d", "weighted"), [(1, False), (2, True), (6, False), (10, True)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_log_density_is_that_of_scikit_learn(x64, kernel, d, weighted):
    points, queries, w, _ = draw(300, 70, d)
    w = w if weighted else None
    h = 0.4 * d**0.5
    theirs = KernelDensity(bandwidth=h, kernel=kernel, leaf_size=1000)  # one leaf: nothing skipped
    theirs.fit(points[w > 0] if weighted else points, sample_weight=w[w > 0] if weighted else None)
    ours = run(kernels.log_density, queries, points, jnp.full(d, 1 / h), w, kernel=kernel)
    expected = theirs.score_samples(queries)
    some = np.isfinite(ours)
    np.testing.assert_allclose(ours[some], expected[some], rtol=0, atol=1e-10)
    assert (some == (brute(queries, points, np.full(d, 1 / h), np.ones(300) if w is None else w,
                           kernel) > -np.inf)).all()  # fmt: skip


@pytest.mark.parametrize("d", [1, 2, 5])
def test_log_density_is_that_of_scipy(x64, d):
    points, queries, w, _ = draw(200, 30, d, seed=1)
    theirs = gaussian_kde(points.T, weights=w)
    factor = components.inverse_factor(jnp.asarray(theirs.covariance))
    ours = run(kernels.log_density, queries, points, factor, w)
    np.testing.assert_allclose(ours, theirs.logpdf(queries.T), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("kernel", "d", "full"), [
    ("gaussian", 1, False), ("gaussian", 3, True), ("gaussian", 10, True),
    ("epanechnikov", 3, True), ("tophat", 2, False), ("tophat", 10, True),
    ("exponential", 2, True), ("exponential", 10, False),
])  # fmt: skip
def test_log_density_in_blocks_is_that_of_all_pairs(small_blocks, dtype, kernel, d, full):
    points, queries, w, factor = draw(52, 23, d, dtype=dtype)
    factor = (factor if full else np.diag(factor)) / d
    queries[5] += 1e3  # far from all; with its neighbours in one block
    ours = run(kernels.log_density, queries, points, factor, w, kernel=kernel)
    assert ours.dtype == dtype
    expected = brute(queries, points, factor, w, kernel)
    np.testing.assert_allclose(ours, expected, rtol=4 * EPS[dtype], atol=TIGHT[dtype])


@pytest.mark.parametrize("kernel", KERNELS)
def test_tails_are_those_of_arbitrary_precision(dtype, kernel):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(20, 2)).astype(dtype)
    queries = np.array([[100.0, 0.0], [-300.0, 400.0], [0.1, 1e4]], dtype)
    ours = run(kernels.log_density, queries, points, np.ones(2, dtype), kernel=kernel)
    if kernel in kernels.COMPACT:
        assert (ours == -np.inf).all()
        return
    with mpmath.workdps(40):
        for q, got in zip(queries.astype(float), ours, strict=True):
            s = [sum(mpmath.mpf(c) ** 2 for c in q - p) for p in points.astype(float)]
            terms = [mpmath.exp(-t / 2 if kernel == "gaussian" else -mpmath.sqrt(t)) for t in s]
            exact = mpmath.log(sum(terms) / len(points))
            exact -= mpmath.log(2 * mpmath.pi)  # both kernels: 2π = V_2 · 2!
            np.testing.assert_allclose(float(got), float(exact), rtol=max(1e-12, 4 * EPS[dtype]))


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("d", [1, 3, 9])
def test_narrow_bandwidths_keep_their_digits(dtype, d, offset):
    """Where queries are a million bandwidths from each other, next to points."""
    points, queries, w, factor = draw(60, 20, d, seed=3)
    h = 2.0**-20 if dtype == "float64" else 2.0**-11
    points = (points + offset).astype(dtype)
    queries = (points[:20] + h * queries).astype(dtype)
    factor = (factor / h).astype(dtype)
    ours = run(kernels.log_density, queries, points, factor, w.astype(dtype) + 1)
    expected = brute(queries, points, factor, w.astype(dtype) + 1)
    np.testing.assert_allclose(ours, expected, rtol=8 * EPS[dtype], atol=32 * d * EPS[dtype])


def test_a_point_of_weight_zero_is_none(x64):
    points, queries, w, factor = draw(50, 10, 2)
    points[w == 0] = queries[0] + 1e3
    for kernel in KERNELS:
        ours = run(kernels.log_density, queries + 1e3, points, factor, w, kernel=kernel)
        expected = run(
            kernels.log_density, queries + 1e3, points[w > 0], factor, w[w > 0], kernel=kernel
        )
        np.testing.assert_allclose(ours, expected, rtol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_are_repeats(x64, kernel):
    points, queries, _, factor = draw(40, 15, 2)
    count = np.random.default_rng(0).integers(0, 4, 40)
    ours = run(kernels.log_density, queries, points, factor, count.astype(float), kernel=kernel)
    repeated = run(
        kernels.log_density, queries, np.repeat(points, count, axis=0), factor, kernel=kernel
    )
    np.testing.assert_allclose(ours, repeated, rtol=0, atol=1e-13)
    tiny = run(kernels.log_density, queries, points, factor, count * 1e-300, kernel=kernel)
    np.testing.assert_allclose(tiny, ours, rtol=0, atol=1e-12)


def test_one_bad_query_leaves_the_others_alone(dtype):
    points, queries, w, factor = draw(50, 10, 3, dtype=dtype)
    expected = run(kernels.log_density, queries, points, factor, w)
    queries[3, 1] = np.nan
    ours = run(kernels.log_density, queries, points, factor, w)
    assert np.flatnonzero(np.isnan(ours)).tolist() == [3]
    np.testing.assert_allclose(
        np.delete(ours, 3), np.delete(expected, 3), rtol=0, atol=TIGHT[dtype] / 10
    )


def naive(queries, points, factor, w):
    """The log-density with a Gaussian kernel as one would write it down."""
    factor = jnp.diag(factor) if factor.ndim == 1 else jnp.tril(factor)
    z = jnp.einsum("qnj,ej->qne", queries[:, None] - points[None], factor)
    k = jnp.exp(-jnp.sum(z**2, axis=-1) / 2)
    det = jnp.prod(jnp.diagonal(factor))
    return jnp.log(k @ w * det / ((2 * np.pi) ** (len(factor) / 2) * jnp.sum(w)))


@pytest.mark.parametrize(("kernel", "d", "full"), [
    ("gaussian", 2, True), ("gaussian", 10, False), ("epanechnikov", 3, True), ("tophat", 2, True),
    ("exponential", 2, True), ("exponential", 10, False),
])  # fmt: skip
def test_gradient_in_the_query(small_blocks, dtype, kernel, d, full):
    points, queries, w, factor = draw(52, 9, d, dtype=dtype)
    factor = (factor if full else np.diag(factor)) / d
    queries[5] += 50.0  # far in the tails
    queries[7] = points[3]  # on a kink
    got = run(kernels.grad_log_density, queries, points, factor, w, kernel=kernel)
    auto = jax.grad(
        lambda q: kernels.log_density(q, points, factor, w, kernel=kernel).sum()
    )(queries)  # fmt: skip
    tight = TIGHT[dtype]
    np.testing.assert_allclose(got, auto, rtol=tight, atol=tight * np.abs(auto).max())
    if kernel == "gaussian":
        exact = run(jax.grad(lambda q: naive(q, points, factor, w).sum()), queries)
        some = np.arange(9) != 5
        np.testing.assert_allclose(got[some], exact[some], rtol=tight, atol=tight)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_far_from_all_points(kernel):
    """Where a rounding error of the log-density is a large one of the density; in float32."""
    points = draw(40, 1, 2, dtype="float32")[0]
    queries = np.array([[3e3, 1e3], [-500.0, 0.25]], "float32")
    factor = jnp.ones(2, "float32")
    hand = run(kernels.grad_log_density, queries, points, factor, kernel=kernel)
    auto = run(
        jax.grad(lambda q: kernels.log_density(q, points, factor, kernel=kernel).sum()), queries
    )
    np.testing.assert_allclose(auto, hand, rtol=1e-4)
    if kernel in kernels.COMPACT:
        assert (hand == 0).all()
        along = partial(kernels.log_density, points=points, factor=factor, kernel=kernel)
        assert (jax.jvp(along, (queries,), (queries,))[1] == 0).all()
    else:
        slope = (
            queries if kernel == "gaussian" else queries / np.linalg.norm(queries, axis=1)[:, None]
        )
        np.testing.assert_allclose(hand, -slope, rtol=1e-2, atol=5)


def test_gradients_in_everything_else(small_blocks, x64):
    points, queries, w, factor = draw(40, 9, 2)

    def ours(points, w, factor):
        return kernels.log_density(queries, points, factor, w).sum()

    arrays = points, w, factor
    expected = run(jax.grad(lambda p, w, f: naive(queries, p, f, w).sum(), (0, 1, 2)), *arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10),
                 run(jax.grad(ours, (0, 1, 2)), *arrays), expected)  # fmt: skip


BANDWIDTHS = {
    "one for all": (3, 1, 0),
    "by column": (3, 3, 0),
    "full": (3, 3, 3),
    "one column": (1, 1, 0),
    "many columns": (9, 9, 36),
}


def bandwidth_of(name, dtype="float64", seed=0):
    d, scales, below = BANDWIDTHS[name]
    rng = np.random.default_rng(seed)
    return d, Bandwidth(
        jnp.asarray(rng.normal(size=scales) / 4, dtype),
        jnp.asarray(rng.normal(size=below) / 2, dtype),
    )


@pytest.mark.parametrize(("kernel", "name", "weighted"), [
    ("gaussian", "one column", False), ("gaussian", "full", True),
    ("gaussian", "many columns", True), ("epanechnikov", "full", True),
    ("tophat", "by column", False), ("exponential", "full", True),
])  # fmt: skip
def test_leave_one_out_is_that_of_all_pairs(small_blocks, x64, kernel, name, weighted):
    d, bandwidth = bandwidth_of(name)
    points, _, w, _ = draw(40, 1, d)
    points[7:9] = points[5]  # duplicates
    w = w if weighted else np.ones(40)
    bandwidth = bandwidth._replace(log_scale=bandwidth.log_scale + d / 2)
    factor = np.asarray(kernels.inverse_factor(bandwidth, d))
    each = brute(points, points, factor, w, kernel, own=True)
    expected = w[w > 0] @ each[w > 0]
    ours = run(kernels.leave_one_out, bandwidth, points, w if weighted else None, kernel=kernel)
    np.testing.assert_allclose(ours, expected, rtol=1e-11)
    if kernel == "gaussian":
        value, _ = run(kernels.leave_one_out_and_grad, bandwidth, points, w if weighted else None)
        np.testing.assert_allclose(value, expected, rtol=1e-11)


@pytest.mark.filterwarnings("ignore:After 0.17:FutureWarning")  # of its random numbers
@pytest.mark.parametrize("d", [1, 2])
def test_leave_one_out_is_that_of_statsmodels(x64, d):
    points = draw(50, 1, d)[0]
    h = np.linspace(0.3, 0.5, d)
    theirs = KDEMultivariate(points, var_type="c" * d, bw=h)
    expected = -theirs.loo_likelihood(h, func=np.log) - 50 * np.log(49)
    ours = run(kernels.leave_one_out, Bandwidth(jnp.log(h), jnp.zeros(0)), points)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_leaving_out_a_point_that_has_nearly_all_the_weight(x64):
    points = draw(6, 1, 1)[0]
    w = np.array([1e20, 1.0, 2.0, 0.5, 1.0, 1.0])
    each = brute(points[:1], points[1:], np.ones(1), w[1:])
    rest = brute(points[1:], points, np.ones(1), w)
    ours = run(kernels.leave_one_out, Bandwidth(jnp.zeros(1), jnp.zeros(0)), points, w)
    np.testing.assert_allclose(ours, w[0] * each[0] + w[1:] @ rest, rtol=1e-12)


def test_gradient_of_leave_one_out(small_blocks):
    """In float32, and in float64, in which the same is computed too; in the tails too."""
    d, bandwidth = bandwidth_of("full", "float32")
    points, _, w, _ = draw(24, 1, d, dtype="float32")
    points[7] = points[5]
    assert_gradients_match(
        kernels.leave_one_out,
        lambda *args: kernels.leave_one_out_and_grad(*args)[1],
        bandwidth,
        jnp.asarray(points),
        jnp.asarray(w),
        hard=False,  # far out, rounding within loops over blocks shows, which is not counted
    )


@pytest.mark.parametrize(
    ("name", "outlier"),
    [
        ("one column", 0.0),
        ("one for all", 40.0),
        ("by column", 40.0),
        ("full", 40.0),
        ("many columns", 0.0),
    ],
)
def test_gradient_of_leave_one_out_with_an_outlier(dtype, name, outlier):
    """That all terms of one point underflow does not lose it."""
    d, bandwidth = bandwidth_of(name, dtype)
    points, _, w, _ = draw(100, 1, d, dtype=dtype)
    points[9] = outlier
    w[9] = 1.0
    value, hand = run(kernels.leave_one_out_and_grad, bandwidth, points, w)
    expected, auto = run(jax.value_and_grad(kernels.leave_one_out), bandwidth, points, w)
    np.testing.assert_allclose(value, expected, rtol=64 * EPS[dtype])
    size = np.abs(auto.log_scale).max()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TIGHT[dtype] * size),
                 hand, auto)  # fmt: skip


def test_curvature_of_leave_one_out(x64):
    d, bandwidth = bandwidth_of("full")
    points, _, w, _ = draw(24, 1, d)

    def plain(bandwidth):
        others = w[None, :] * (1 - np.eye(24))
        factor = kernels.inverse_factor(bandwidth, d)
        each = jax.vmap(lambda x, w: naive(x[None], points, factor, w)[0])(points, others)
        return jnp.sum(w * each)

    def curved(fn):
        return run(lambda b: jax.jvp(jax.grad(fn), (b,), (b,))[1], bandwidth)

    expected, got = curved(plain), curved(lambda b: kernels.leave_one_out(b, points, w))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-8),
                 got, expected)  # fmt: skip


def test_lanes_and_programs_agree(x64):
    points, queries, w, _ = draw(50, 12, 2)
    queries[3] = 1e3
    scales = jnp.asarray([[0.1, 0.2], [-9.0, 0.0], [1.0, -2.0]])  # the second one: all in the tails

    def of(scale):
        bandwidth = Bandwidth(scale, jnp.zeros(0))
        factor = kernels.inverse_factor(bandwidth, 2)
        return (
            kernels.log_density(queries, points, factor, w),
            kernels.grad_log_density(queries, points, factor, w),
            kernels.leave_one_out(bandwidth, points, w),
            kernels.leave_one_out_and_grad(bandwidth, points, w),
        )

    one_by_one = jax.tree.map(lambda *a: jnp.stack(a), *[jax.jit(of)(s) for s in scales])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10),
                 jax.jit(jax.vmap(of))(scales), one_by_one)  # fmt: skip


ISJ = jax.jit(lambda x, w=None: bandwidth.isj(x, w, grid=512))
RULES = {
    "scott": lambda x, w=None: bandwidth.scott(x[:, None], w)[0],
    "silverman": lambda x, w=None: bandwidth.silverman(x[:, None], w)[0],
    "isj": lambda x, w=None: ISJ(x, w)[0],
}


def two_humps(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.4, rng.normal(size=n), rng.normal(size=n) / 4 + 5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 3])
def test_rules_of_thumb_are_those_of_scipy(x64, d, weighted):
    points, _, w, _ = draw(60, 1, d)
    w = w if weighted else None
    theirs = gaussian_kde(points.T, weights=w)
    spread = np.sqrt(np.diag(np.atleast_2d(np.cov(points.T, aweights=w))))
    ours = bandwidth.scott(points, w), bandwidth.silverman(points, w)
    np.testing.assert_allclose(ours[0], theirs.scotts_factor() * spread, rtol=1e-13)
    np.testing.assert_allclose(ours[1], theirs.silverman_factor() * spread, rtol=1e-13)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("scale", "shift"), [(3.7, 100.0), (-1e-3, 0.0), (1e6, -1e8)])
def test_rules_follow_unit_and_origin(dtype, rule, scale, shift):
    x = two_humps(400)
    x = np.round(x, 3)
    w = np.random.default_rng(0).integers(0, 3, 400).astype(dtype)
    moved = (scale * x + shift).astype(dtype)
    got = jax.jit(RULES[rule])(jnp.asarray(moved), w)
    expected = RULES[rule](jnp.asarray(x, dtype), w)
    assert got.dtype == dtype
    # the data themselves are rounded: to ε of their size, in units of their range
    rounding = EPS[dtype] * np.abs(moved).max() / (np.abs(scale) * np.ptp(x))
    slope = 400 if rule == "isj" else 4  # the fourth derivative of a density is what it looks at
    np.testing.assert_allclose(got, abs(scale) * expected, rtol=slope * rounding)


def reference_isj(x, w, waves=1000):
    """Botev's fixed point with the cosine series of the points themselves."""
    u = (x - x.min()) / (2 * np.ptp(x)) + 0.25
    count = w.sum() ** 2 / (w**2).sum()
    k = np.pi * np.arange(1, waves)
    squares = (np.cos(k[:, None] * u) @ (w / w.sum())) ** 2

    def excess(t):
        f = 2 * np.sum(k**14 * squares * np.exp(-(k**2) * t))
        for s in range(6, 1, -1):
            odd = np.prod(np.arange(1, 2 * s, 2)) / np.sqrt(2 * np.pi)
            time = (2 * (1 + 0.5 ** (s + 0.5)) / 3 * odd / count / f) ** (2 / (3 + 2 * s))
            f = 2 * np.sum(k ** (2 * s) * squares * np.exp(-(k**2) * time))
        return t - (2 * count * np.sqrt(np.pi) * f) ** (-2 / 5)

    trials = np.geomspace(1e-5, 0.1, 100)  # data rounded to narrower ones look as if not rounded
    high = np.array([excess(t) >= 0 for t in trials])
    first = np.flatnonzero(~high[:-1] & high[1:])[0]
    t = optimize.brentq(excess, trials[first], trials[first + 1], xtol=1e-15)
    return np.sqrt(t) * 2 * np.ptp(x)


@pytest.mark.parametrize("weighted", [False, True])
def test_isj_is_the_fixed_point(x64, weighted):
    x = two_humps(500)
    x[:40] = np.round(x[:40], 1)  # ties
    w = np.random.default_rng(1).exponential(size=500) if weighted else np.ones(500)
    h, found = bandwidth.isj(jnp.asarray(x), jnp.asarray(w) if weighted else None, grid=2048)
    assert found
    np.testing.assert_allclose(h, reference_isj(x, w), rtol=1e-4)  # what binning leaves is O(δ⁴)


WAITING = np.repeat(
    [43, *range(45, 61), *range(62, 95), 96],
    [1, 3, 5, 4, 3, 5, 5, 6, 5, 7, 9, 6, 4, 3, 4, 7, 6, 4, 3, 4, 3, 2, 1, 1, 2, 4]
    + [5, 1, 7, 6, 8, 9, 12, 15, 10, 8, 13, 12, 14, 10, 6, 6, 2, 6, 3, 6, 1, 1, 2, 1, 1],
).astype(float)
"""Minutes between eruptions of Old Faithful: `faithful` of R, after Azzalini and Bowman, 1990."""


def test_isj_of_waiting_times_in_whole_minutes(x64):
    """What the reference makes of them is that of minutes spread over where they were rounded.

    R 4.2.2 has bw.SJ(method = "dpi") = 2.633, and 2.497 of the other method, for the same.
    """
    h, found = bandwidth.isj(jnp.asarray(WAITING))
    assert found
    spread = np.random.default_rng(0).random((10, len(WAITING))) - 0.5
    each = [reference_isj(WAITING + s, np.ones(len(WAITING))) for s in spread]
    assert abs(float(h) - np.mean(each)) <= 0.05 * np.mean(each)
    assert abs(float(h) - 2.633) <= 0.05 * 2.633


@pytest.mark.parametrize("rule", RULES)
def test_a_factor_of_all_weights_changes_no_rule(dtype, rule):
    x, w = jnp.asarray(two_humps(400), dtype), np.random.default_rng(0).exponential(size=400)
    expected = jax.jit(RULES[rule])(x, jnp.asarray(w, dtype))
    for factor in (1e-30, 1 / w.sum(), 1e30):
        got = jax.jit(RULES[rule])(x, jnp.asarray(w * factor, dtype))
        np.testing.assert_allclose(got, expected, rtol=64 * EPS[dtype] * (rule != "isj") + 1e-4)


def test_isj_knows_when_there_is_none(dtype):
    for x in ([1.0, 2.0, 2.0, 2.0, 1.0], [3.0] * 5, [0.0, 0.5, 1.0, 4.0, 9.0]):
        x = jnp.asarray(x, dtype)
        h, found = ISJ(x)
        assert not found
        np.testing.assert_allclose(h, RULES["silverman"](x), rtol=4 * EPS[dtype])
    assert jnp.isnan(ISJ(x.at[1].set(jnp.nan))[0])


def test_isj_of_resamples_by_their_counts_and_lanes_as_loops(x64):
    """With how often as weights, bandwidths are as if as many examples were drawn as n_eff."""
    x, count = jnp.asarray(two_humps(200)), np.random.default_rng(2).integers(0, 4, (2, 200))
    count = jnp.asarray(count, float)
    lanes, found = jax.vmap(ISJ, (None, 0))(x, count)
    assert found.all()
    for lane in range(2):
        np.testing.assert_allclose(lanes[lane], ISJ(x, count[lane])[0], rtol=1e-10)
        fewer = reference_isj(np.asarray(x), np.asarray(count[lane]))
        np.testing.assert_allclose(lanes[lane], fewer, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: kernels.log_density(x[:, :1], x, np.ones(2)), ValueError, "queries: expected 2"),
        (lambda x: kernels.log_density(x, x, np.ones(3)), ValueError, "factor: expected shape"),
        (lambda x: kernels.grad_log_density(x, x[:, 0], np.ones(2)), ValueError, "points: expecte"),
        (lambda x: kernels.log_density(x, x, np.ones(2), -np.ones(5)), ValueError, "weights: expe"),
        (lambda x: kernels.log_density(x, x, np.ones(2), np.zeros(5)), ValueError, "weights: expe"),
        (lambda x: kernels.log_density(x, x, np.ones(2), np.ones(4)), ValueError, "weights: expec"),
        (lambda x: kernels.log_density(x.astype(int), x, np.ones(2)), TypeError, "queries: expect"),
        (lambda x: kernels.log_density(x.tolist(), x, np.ones(2)), TypeError, "queries: expected"),
        (lambda x: kernels.log_density(x, x, np.ones(2), kernel="box"), ValueError, "kernel: expe"),
        (lambda x: kernels.log_normaliser("box", 2), ValueError, "kernel: expected one of"),
        (lambda x: kernels.isj(x), ValueError, "values: expected one column"),
        (lambda x: kernels.isj(x[:, 0], grid=0), ValueError, "grid: expected an integer of at lea"),
        (lambda x: kernels.scott(x[:, 0]), ValueError, r"points: .*pass points.reshape\(-1, 1\)"),
        (lambda x: kernels.silverman(x, np.full(5, np.nan)), ValueError, "weights: expect"),
        (lambda x: kernels.grid_shape(x, np.ones(2), tolerance=0.0), ValueError, "tolerance: expe"),
        (lambda x: kernels.binned_density(x, np.ones(2), shape=(8,)), ValueError, "shape: exp"),
    ],
)  # fmt: skip
def test_arguments_are_checked(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((5, 2)))


def peak(factor):
    d = len(factor)
    return np.linalg.det(factor) / (2 * np.pi) ** (d / 2)


@pytest.mark.parametrize(("d", "cells"), [(1, 1.0), (1, 0.5), (1, 0.1), (2, 0.4), (3, 0.9)])
def test_binned_estimates_keep_to_their_bound(x64, d, cells):
    """Also where all points are in phase with the grid, which is the worst that they can be."""
    rng, worst = np.random.default_rng(0), 0.0
    for phase in (0.0, 0.5):
        factor = draw(1, 1, d, seed=d)[3] * 1.5
        narrow = 1 / np.sqrt((factor**2).sum(axis=0))
        ends = np.array([np.zeros(d), 4 * narrow])  # where the grid is; what counts is in between
        extent = np.ptp(ends, axis=0) + 13 * np.sqrt((np.linalg.inv(factor) ** 2).sum(axis=1))
        shape = tuple(int(2 * np.ceil(e / 2)) for e in extent / (cells * narrow))
        spacing = extent / shape
        low = -6.5 * np.sqrt((np.linalg.inv(factor) ** 2).sum(axis=1))
        inner = low + spacing * (np.floor((2 * narrow - low) / spacing) + phase)
        points, w = np.vstack([ends, inner[None]]), np.array([1e-30, 1e-30, 1.0])
        grid = run(binned.binned_density, points, factor, w, shape=shape)
        bound = float(binned.error_bound(grid.spacing, jnp.asarray(factor))) * peak(factor)
        queries = inner + rng.normal(size=(500, d)) * 2 * narrow
        error = run(binned.interpolate, grid, queries) - np.exp(brute(queries, points, factor, w))
        assert np.abs(error).max() < bound + 1e-9 * peak(factor)
        worst = max(worst, float(np.abs(error).max()) / bound)
        every = np.stack(np.meshgrid(*grid.axes, indexing="ij"), axis=-1).reshape(-1, d)
        some = rng.integers(0, len(every), 500)
        error = grid.density.ravel()[some] - np.exp(brute(every[some], points, factor, w))
        assert np.abs(error).max() < bound + 1e-9 * peak(factor)
    assert worst > 0.2  # not that it says nothing


def test_binned_estimates_of_many_points(dtype):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50_003, 1)).astype(dtype)  # in blocks that are not even
    factor = 1 / bandwidth.scott(jnp.asarray(points))
    shape = binned.grid_shape(points, factor)
    grid = jax.jit(lambda x, a: binned.binned_density(x, a, shape=shape))(points, factor)
    assert binned.error_bound(grid.spacing, factor) < 1e-6 * (1 + 64 * EPS[dtype])
    whole = float(grid.density.sum() * grid.spacing[0])
    np.testing.assert_allclose(whole, 1, rtol=1e-8 + 64 * EPS[dtype])
    queries = rng.normal(size=(30, 1)).astype(dtype)
    exact = np.exp(brute(queries, points, factor, np.ones(len(points))))
    got = binned.interpolate(grid, queries)
    tight = 1e-6 if dtype == "float64" else 64 * EPS[dtype]
    np.testing.assert_allclose(got, exact, rtol=0, atol=tight * exact.max())
    high = grid.low + len(grid.density) * grid.spacing
    odd = jnp.stack([grid.low - 1, high + 1, grid.low * jnp.nan])
    assert str(binned.interpolate(grid, odd).tolist()) == "[0.0, 0.0, nan]"
    edges = jnp.stack([grid.low, grid.low + 1e-3, high - 1e-3])
    assert (jnp.abs(binned.interpolate(grid, edges)) < 1e-8 + EPS[dtype]).all()


def test_binned_estimates_take_weights_as_repeats(x64):
    points, queries, _, factor = draw(50, 20, 2)
    count = np.random.default_rng(0).integers(1, 4, 50)
    shape = binned.grid_shape(points, jnp.asarray(factor), tolerance=1e-3)
    whole = run(binned.binned_density, np.repeat(points, count, axis=0), factor, shape=shape)
    lanes = jax.jit(jax.vmap(lambda w: binned.binned_density(points, factor, w, shape=shape)))
    got = jax.tree.map(lambda a: a[1], lanes(np.stack([np.ones(50), count])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-14), got, whole)
    exact = np.exp(brute(queries, points, factor, count))
    error = run(binned.interpolate, whole, queries) - exact
    assert np.abs(error).max() < 1e-3 * peak(factor)


def test_binned_estimates_are_those_of_kdepy(x64):
    kdepy = pytest.importorskip("KDEpy", reason="KDEpy is not installed")
    x = two_humps(10_000)
    places, theirs = kdepy.FFTKDE(kernel="gaussian", bw=0.1).fit(x).evaluate(1 << 12)
    factor = jnp.asarray([10.0])
    shape = binned.grid_shape(x[:, None], factor)
    grid = run(binned.binned_density, x[:, None], factor, shape=shape)
    ours = run(binned.interpolate, grid, places[:, None])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * theirs.max())  # theirs is O(δ²)
