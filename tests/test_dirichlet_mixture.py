"""Dirichlet-process mixtures against enumeration, terms by SciPy, and scikit-learn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats
from scipy.special import betaln, digamma, gammaln, logsumexp, multigammaln
from sklearn.mixture import BayesianGaussianMixture
from tolerances import EPS, SAME_SUM

import jaxprob as jp
from jaxprob.contract import Expectation
from jaxprob.many import restarts
from jaxprob.models import dirichlet_mixture as dm
from jaxprob.models.mixtures.dirichlet import density as component_density
from jaxprob.models.mixtures.dirichlet import normal_wishart, sticks
from jaxprob.solvers import em, lbfgs
from jaxprob.testing import assert_gradients_match

PRECISE = em(tol=1e-18, max_steps=20_000)
SETTINGS = {
    "location": (0.5, -1.0),
    "mean_count": 0.3,
    "scale": ((2.0, 0.4), (0.4, 1.0)),
    "degrees": 3.5,
}


def clusters(seed, n=120, d=2, k=3):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = rng.standard_normal((n, d)) * np.linspace(0.5, 1.5, d) @ turn
    return x + 4.0 * (np.arange(n) % k)[:, None]


SLOW = pytest.mark.slow


def some(*values, often):
    """Parameters of a test, those that are not often tried being slow."""
    return [pytest.param(*v, marks=() if v in often else SLOW) for v in values]


def bits(**settings):
    """What the model binds, for functions that take it apart."""
    return dict(dm.model(1, **settings).prior.log_prob.settings)


def random_params(seed, t=4, d=2, learned=True, dtype="float64"):
    model = dm.model(t, alpha=None if learned else 1.5)
    start = jax.eval_shape(lambda: model.init(None, jnp.zeros((3, d), dtype)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) / 2, dtype), start)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def plain(params):
    """NumPy's a, b, κ, m, ν, Ψ of parameters, the components in the order of their sticks."""
    a, b = np.exp(np.asarray(params.sticks)).T
    count = np.asarray(params.components.log_count)
    order = sorted(range(len(count) - 1), key=lambda k: -count[k]) + [len(count) - 1]
    q = jax.tree.map(lambda of: np.asarray(of)[order], params.components)
    d = q.means.shape[1]
    nu = np.exp(np.asarray(q.log_degrees)) + d - 1
    psi = np.empty((len(nu), d, d))
    for k in range(len(nu)):
        factor = np.diag(np.exp(-np.asarray(q.log_scale[k])))
        factor[np.tril_indices(d, -1)] = np.asarray(q.lower[k])
        psi[k] = np.linalg.inv(factor.T @ factor / nu[k])
    return a, b, np.exp(np.asarray(q.log_count)), np.asarray(q.means), nu, psi


def prior_of(d, location=0.0, mean_count=1.0, scale=1.0, degrees=None):
    scale = np.asarray(scale, float)
    psi = scale if scale.ndim == 2 else np.diag(np.broadcast_to(scale, d))
    return np.broadcast_to(location, d), mean_count, d if degrees is None else degrees, psi


def log_evidence(x, **prior):
    """Of one component, in closed form (Murphy 2007, equation 266)."""
    n, d = x.shape
    m0, k0, v0, psi0 = prior_of(d, **prior)
    if n == 0:
        return 0.0
    mean = x.mean(axis=0)
    psi = psi0 + (x - mean).T @ (x - mean)
    psi = psi + k0 * n / (k0 + n) * np.outer(mean - m0, mean - m0)
    value = -n * d / 2 * np.log(np.pi) + multigammaln((v0 + n) / 2, d) - multigammaln(v0 / 2, d)
    value += v0 / 2 * np.linalg.slogdet(psi0)[1] - (v0 + n) / 2 * np.linalg.slogdet(psi)[1]
    return value + d / 2 * np.log(k0 / (k0 + n))


def elbo_by_terms(params, x, c, alpha, alpha_prior, **prior):
    """E[log p(x, z, v, α, μ, Λ)] and the entropies, one by one (Bishop 10.71-10.77 with sticks)."""
    a, b, kappa, m, nu, psi = plain(params)
    n, d = x.shape
    t = len(kappa)
    m0, k0, v0, psi0 = prior_of(d, **prior)
    w = np.linalg.inv(psi)
    log_v, log_left = digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)
    log_pi = np.concatenate([log_v, [0.0]]) + np.concatenate([[0.0], np.cumsum(log_left)])
    log_det = np.array([
        digamma((nu[k] - np.arange(d)) / 2).sum() + d * np.log(2) + np.linalg.slogdet(w[k])[1]
        for k in range(t)
    ])  # fmt: skip
    log_x = np.empty((n, t))
    for k in range(t):
        away = x - m[k]
        squares = nu[k] * np.einsum("nd,de,ne->n", away, w[k], away) + d / kappa[k]
        log_x[:, k] = (log_det[k] - d * np.log(2 * np.pi) - squares) / 2
    r = np.exp(log_pi + log_x - logsumexp(log_pi + log_x, axis=1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.where(r > 0, -r * np.log(r), 0.0)
    terms = [np.sum(c[:, None] * r * log_x), np.sum(c[:, None] * r * log_pi)]
    terms.append(np.sum(c[:, None] * entropy))
    if alpha is None:
        shape, rate = np.exp(np.asarray(params.concentration))
        mean, log_mean = shape / rate, digamma(shape) - np.log(rate)
        s1, s2 = alpha_prior
        terms.append(s1 * np.log(s2) - gammaln(s1) + (s1 - 1) * log_mean - s2 * mean)
        terms.append(stats.gamma(shape, scale=1 / rate).entropy())
    else:
        mean, log_mean = alpha, np.log(alpha)
    terms.append(np.sum(log_mean + (mean - 1) * log_left))
    terms.append(sum(stats.beta(a[k], b[k]).entropy() for k in range(t - 1)))
    for k in range(t):
        away = m[k] - m0
        normal = d * np.log(k0 / (2 * np.pi)) + log_det[k] - d * k0 / kappa[k]
        terms.append((normal - k0 * nu[k] * away @ w[k] @ away) / 2)
        norm = v0 / 2 * np.linalg.slogdet(psi0)[1] - v0 * d / 2 * np.log(2)
        norm -= multigammaln(v0 / 2, d)
        inner = (v0 - d - 1) / 2 * log_det[k] - nu[k] / 2 * np.trace(psi0 @ w[k])
        terms.append(norm + inner)
        # of μ given Λ, and of Λ
        terms.append(d / 2 * (1 + np.log(2 * np.pi / kappa[k])) - log_det[k] / 2)
        terms.append(stats.wishart(nu[k], w[k]).entropy())
    return sum(terms), sum(map(abs, terms))


@pytest.mark.parametrize(
    ("learned", "d"),
    some((True, 1), (True, 2), (False, 1), (False, 2), often=[(True, 2), (False, 1)]),
)
def test_the_bound_is_the_sum_of_its_terms(learned, d, x64):
    alpha, alpha_prior = None if learned else 0.7, (2.0, 0.5)
    prior = SETTINGS if d == 2 else {"location": 1.0, "mean_count": 2.0, "scale": 3.0}
    x = clusters(0, n=30, d=d)
    c = np.random.default_rng(1).integers(0, 4, 30) / 2
    model = dm.model(4, alpha=alpha, alpha_prior=alpha_prior, **prior)
    own = {"alpha": alpha, "alpha_prior": alpha_prior, **prior}
    value = jax.jit(lambda params: dm.elbo(params, jnp.asarray(x), jnp.asarray(c), **own))

    def step(params):
        sums = dm.statistics(params, jnp.asarray(x), jnp.asarray(c))[1]
        return model.route(Expectation).maximise(params, sums)

    start = random_params(2, d=d, learned=learned)
    for params in (start, jax.jit(step)(start)[0]):
        expected, size = elbo_by_terms(params, x, c, alpha, alpha_prior, **prior)
        got = value(params)
        assert abs(float(got) - expected) <= 1e-13 * size


def test_with_one_component_the_bound_is_the_evidence(x64):
    """q can then be the posterior, so one step makes them equal, from anywhere."""
    x = clusters(1, n=9, k=1)
    for alpha in (1.0, None):
        model = dm.model(1, alpha=alpha, **SETTINGS)
        start = random_params(0, t=1, learned=alpha is None)

        def after_a_step(params, model=model):
            sums = dm.statistics(params, jnp.asarray(x))[1]
            made, _ = model.route(Expectation).maximise(params, sums)
            return dm.bound(made, jnp.asarray(x)) + model.prior.log_prob(made)

        got = jax.jit(after_a_step)(start)
        assert abs(float(got) - log_evidence(x, **SETTINGS)) <= 1e-11


def partitions(n):
    """All set partitions of n things, as labels in order of appearance."""
    if n == 0:
        yield ()
        return
    for some in partitions(n - 1):
        for label in range(max(some, default=-1) + 2):
            yield (*some, label)


def log_data(x, z, **prior):
    z = np.asarray(z)
    return sum(log_evidence(x[z == k], **prior) for k in np.unique(z))


@pytest.mark.parametrize("alpha", [0.3, pytest.param(3.0, marks=SLOW)])
def test_the_bound_is_below_the_evidence(alpha, x64):
    """Over all 3^6 assignments to three components whose sticks are integrated out."""
    x, t = clusters(2, n=6, k=2), 3
    kept = {z: log_data(x, z, **SETTINGS) for z in partitions(6)}
    each = []
    for code in range(t**6):
        z = [code // t**i % t for i in range(6)]
        n = np.bincount(z, minlength=t)
        after = np.cumsum(n[::-1])[::-1] - n
        log_z = sum(betaln(1 + n[k], alpha + after[k]) - betaln(1, alpha) for k in range(t - 1))
        order = {label: i for i, label in enumerate(dict.fromkeys(z))}
        each.append(log_z + kept[tuple(order[label] for label in z)])
    evidence = logsumexp(each)
    model = dm.model(t, alpha=alpha, **SETTINGS)
    starts = jax.jit(jax.vmap(lambda key: model.init(key, jnp.asarray(x))))(
        jax.random.split(jax.random.key(0), 3)
    )
    bounds = [
        float(jp.fit(model, x, init=jax.tree.map(lambda a, i=i: a[i], starts)).objective)
        for i in range(3)
    ]
    assert evidence - 5 < max(bounds) < evidence


@pytest.mark.parametrize(
    ("alpha", "start"),
    some(
        *((alpha, start) for alpha in (None, 0.1, 20.0) for start in dm.STARTS),
        often=[(None, "k-means++"), (20.0, "random")],
    ),
)
def test_no_step_makes_it_worse(alpha, start, x64):
    x = clusters(3, n=150)
    model = dm.model(8, alpha=alpha, start=start, **dm.weakly_informative(x))
    fit = jp.fit(model, x, trace=True, solver=em(tol=1e-9, max_steps=400))
    values = np.asarray(fit.trace.value)
    values = values[~np.isnan(values)]
    assert len(values) > 10
    # The divergence is made of terms of about 150 log 150 for each component.
    assert np.all(np.diff(values) <= 4 * EPS["float64"] * (np.abs(values[1:]) + 8 * 750))


def test_alpha_is_at_its_maximum(x64):
    """Given the sticks, no other Gamma density has a higher bound; nor sticks, given α."""
    x = jnp.asarray(clusters(4))
    params = random_params(4, t=5)
    sums = dm.statistics(params, x)[1]
    made, _ = dm.maximise(params, sums, **bits(**SETTINGS))

    counts = jnp.append(-jnp.sort(-sums.weight[:-1]), sums.weight[-1])

    def of(concentration, broken):
        return jnp.sum(counts * sticks.expected_log_weights(broken)) - sticks.divergence(
            broken, concentration, None, (1.0, 1.0)
        )

    value, both = jax.jit(of), jax.jit(jax.grad(of, argnums=(0, 1)))
    np.testing.assert_allclose(both(made.concentration, made.sticks)[0], 0.0, atol=1e-10)
    np.testing.assert_allclose(both(params.concentration, made.sticks)[1], 0.0, atol=1e-9)
    best = float(value(params.concentration, made.sticks))
    assert best > float(value(params.concentration, params.sticks))


@pytest.mark.parametrize(
    ("name", "d"),
    some(
        *((name, d) for name in ("float32", "float64") for d in (1, 2, 3)),
        often=[("float64", 2)],
    ),
)
def test_the_gradient_by_hand_is_that_of_jax(name, d):
    with jax.enable_x64(name == "float64"):
        gradients_match(d, name)


def gradients_match(d, dtype):
    x = jnp.asarray(clusters(5, n=20, d=d) / 3 - 1, dtype)
    c = jnp.asarray(np.random.default_rng(0).integers(0, 4, 20) / 2, dtype)
    params = random_params(6, d=d, dtype=dtype)

    def by_hand(params, x, c):
        return dm.grad_of_statistics(params, dm.statistics(params, x, c)[1])

    assert_gradients_match(dm.bound, by_hand, params, x, c, hard=False)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 7.0])
def test_larger_components_first_are_best(alpha, x64):
    """Of all orders of four, with the last one last; by how much two that change places gain."""
    counts = np.array([5.0, 0.1, 30.0, 2.0, 3.0])

    def value(order):
        n = counts[[*order, 4]]
        after = np.cumsum(n[::-1])[::-1] - n
        return sum(betaln(1 + n[:-1], alpha + after[:-1]))

    every = {order: value(order) for order in itertools.permutations(range(4))}
    assert max(every, key=every.__getitem__) == (2, 0, 3, 1)
    gain = np.log(alpha + 0.1 + 5 + 3) - np.log(alpha + 2.0 + 5 + 3)
    assert abs(every[2, 1, 3, 0] - every[2, 3, 1, 0] - gain) <= 1e-12
    x = jnp.asarray(clusters(5))
    start = random_params(1, t=5, learned=False)
    sums = dm.statistics(start, x)[1]._replace(weight=jnp.asarray(counts))
    made, _ = dm.maximise(start, sums, **bits(alpha=alpha, location=0.0, scale=1.0))
    expected = 1 + counts[[2, 0, 3, 1]]
    np.testing.assert_allclose(jnp.exp(made.sticks[:, 0]), expected, rtol=1e-13)
    weights = np.asarray(made.weights)
    assert weights[2] > weights[0] > weights[3] > weights[1]


def test_steps_are_those_of_scikit_learn(x64):
    """From the same responsibilities. There the last stick, too, leaves something."""
    x, t, alpha = clusters(6, n=80), 5, 0.4
    settings = dm.weakly_informative(x)
    other = BayesianGaussianMixture(
        n_components=t, weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=alpha, reg_covar=0.0,
    )  # fmt: skip
    r = np.random.default_rng(0).dirichlet([1.2, 0.8, 0.5, 0.3, 0.2], len(x))
    other._check_parameters(x)
    other._initialize(x, r)
    np.testing.assert_allclose(other.mean_prior_, settings["location"], rtol=1e-14)
    np.testing.assert_allclose(other.covariance_prior_, settings["scale"], rtol=1e-13)
    assert other.mean_precision_prior_ == settings["mean_count"]
    assert other.degrees_of_freedom_prior_ == settings["degrees"]
    about = np.random.default_rng(1).standard_normal((t, 2))
    away = x[:, None] - about[None]
    sums = dm.Statistics(
        jnp.asarray(r.sum(axis=0)),
        jnp.einsum("nk,nkd->kd", r, away),
        jnp.einsum("nk,nkd,nke->kde", r, away, away),
    )
    start = random_params(0, t=t, learned=False)
    start = start._replace(components=start.components._replace(means=jnp.asarray(about)))
    params, _ = dm.maximise(start, sums, **bits(alpha=alpha, **settings))
    a, b, kappa, m, nu, psi = plain(params)
    np.testing.assert_allclose(a, other.weight_concentration_[0][:-1], rtol=1e-13)
    np.testing.assert_allclose(b, other.weight_concentration_[1][:-1], rtol=1e-13)
    np.testing.assert_allclose(kappa, other.mean_precision_, rtol=1e-13)
    np.testing.assert_allclose(nu, other.degrees_of_freedom_, rtol=1e-13)
    np.testing.assert_allclose(m, other.means_, rtol=0, atol=1e-12)
    np.testing.assert_allclose(params.covariances, other.covariances_, rtol=0, atol=1e-12)
    other.precisions_cholesky_ = np.asarray(other.precisions_cholesky_)
    theirs = other._estimate_weighted_log_prob(x)
    last = other.weight_concentration_[0][-1]
    theirs[:, -1] -= digamma(last) - digamma(last + alpha)
    np.testing.assert_allclose(
        dm.predict_log_proba(params, jnp.asarray(x)),
        theirs - logsumexp(theirs, axis=1, keepdims=True),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.slow
def test_a_fit_finds_what_scikit_learn_finds(x64):
    """Where the last component is empty the two problems are nearly one."""
    x, t = clusters(7, n=300), 8
    settings = dm.weakly_informative(x)
    model = dm.model(t, alpha=1 / t, **settings)
    fit = restarts(model, x, None, jax.random.key(0), num_starts=5, solver=PRECISE).best
    other = BayesianGaussianMixture(
        n_components=t, weight_concentration_prior_type="dirichlet_process", reg_covar=0, tol=1e-9,
        max_iter=5000, n_init=5, random_state=0,
    ).fit(x)  # fmt: skip
    counts = dm.expected_counts(fit.params, jnp.asarray(x))
    assert int(dm.num_used(fit.params, jnp.asarray(x))) == 3
    theirs = np.sort(other.weight_concentration_[0] - 1)
    np.testing.assert_allclose(np.sort(counts)[-3:], theirs[-3:], rtol=2e-2)


def shares(a, b):
    """E[π] in the order of the sticks."""
    left = np.concatenate([[1.0], np.cumprod(b / (a + b))])
    return np.concatenate([a / (a + b), [1.0]]) * left


def log_student(params, x):
    a, b, kappa, m, nu, psi = plain(params)
    d = x.shape[1]
    share = shares(a, b)
    each = []
    for k in range(len(nu)):
        free = nu[k] - d + 1
        shape = psi[k] * (kappa[k] + 1) / (kappa[k] * free)
        each.append(np.log(share[k]) + stats.multivariate_t(m[k], shape, df=free).logpdf(x))
    return logsumexp(np.stack(each), axis=0)


@pytest.mark.parametrize("d", [1, 3])
def test_the_density_is_a_mixture_of_students(d, dtype):
    x = clusters(8, n=40, d=d).astype(dtype)
    few = random_params(9, d=d, dtype=dtype)

    @jax.jit
    def both_ways(params, x):
        return jax.vmap(dm.log_prob, (None, 0))(params, x), dm.log_likelihood(params, x)

    q = few.components
    many = few._replace(components=q._replace(log_degrees=q.log_degrees + 5))
    for params in (few, many):
        expected = log_student(jax.tree.map(lambda a: np.asarray(a, float), params), x)
        got, both = both_ways(params, jnp.asarray(x))
        assert got.dtype == both.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=300 * EPS[dtype], atol=300 * EPS[dtype])
        assert abs(float(both) - expected.sum()) <= 300 * EPS[dtype] * np.abs(expected).sum()


def test_the_density_is_normalised(x64):
    params = random_params(10, d=1)
    one = jax.jit(dm.log_prob)

    def at(u):  # x = tan u covers the line
        return np.exp(float(one(params, jnp.array([np.tan(u)])))) / np.cos(u) ** 2

    mass, _ = integrate.quad(at, -np.pi / 2, np.pi / 2, epsabs=1e-8, limit=200)
    assert abs(mass - 1) <= 1e-7
    for share in (params.weights, random_params(1, t=1).weights):
        assert abs(float(jnp.sum(share)) - 1) <= 4 * EPS["float64"]


@pytest.mark.slow
def test_the_density_of_two_columns_is_normalised(x64):
    params = random_params(11, d=2)
    params = params._replace(
        components=params.components._replace(log_degrees=params.components.log_degrees + 1.5)
    )
    # x = sinh u, on which Student densities fall off exponentially: trapezoids are exact.
    u = np.linspace(-20, 20, 801)
    grid = np.stack(np.meshgrid(np.sinh(u), np.sinh(u)), axis=-1).reshape(-1, 2)
    log_p = np.asarray(jax.vmap(dm.log_prob, (None, 0))(params, jnp.asarray(grid)))
    log_p = log_p + np.add.outer(np.log(np.cosh(u)), np.log(np.cosh(u))).ravel()
    assert abs(np.exp(log_p).sum() * (u[1] - u[0]) ** 2 - 1) <= 1e-7


@pytest.mark.slow
def test_samples_follow_the_density(x64):
    params = random_params(12, d=2)
    drawn = np.asarray(dm.sample(params, jax.random.key(0), 20_000))
    a, b, kappa, m, nu, psi = plain(params)
    share = shares(a, b)
    np.testing.assert_allclose(np.sort(share), np.sort(params.weights), rtol=1e-12)
    for j in range(2):
        free, width = nu - 1, np.sqrt(psi[:, j, j] * (kappa + 1) / (kappa * (nu - 1)))

        def below(t, j=j, free=free, width=width):
            z = (np.asarray(t)[:, None] - m[:, j]) / width
            return stats.t(free).cdf(z) @ share

        assert stats.kstest(drawn[:, j], below).pvalue > 1e-3
    # The correlation, by the sign of the product about each median, against quadrature.
    middle = np.median(drawn, axis=0)
    agree = np.mean(np.prod(np.sign(drawn - middle), axis=1) > 0)
    u = np.linspace(-18, 18, 1201)
    wide = [middle[j] + np.sinh(u) for j in range(2)]
    grid = np.stack(np.meshgrid(*wide, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(np.asarray(jax.vmap(dm.log_prob, (None, 0))(params, jnp.asarray(grid))))
    p = p.reshape(1201, 1201) * np.multiply.outer(np.cosh(u), np.cosh(u)) * (u[1] - u[0]) ** 2
    side = np.sign(u)
    expected = np.sum(p * (np.multiply.outer(side, side) + 1) / 2)
    assert abs(p.sum() - 1) <= 1e-3
    assert abs(agree - expected) <= 5 * 0.5 / np.sqrt(20_000) + 1e-3


def test_marginals(x64):
    x = clusters(13, d=3)
    params = random_params(13, d=3)
    a, b, kappa, m, nu, psi = plain(params)
    index, share = [2, 0], shares(a, b)
    each = [
        np.log(share[k]) + stats.multivariate_t(
            m[k][index], psi[k][np.ix_(index, index)] * (kappa[k] + 1) / (kappa[k] * (nu[k] - 2)),
            df=nu[k] - 2,
        ).logpdf(x[:, index])
        for k in range(4)
    ]  # fmt: skip

    @jax.jit
    def log_density(x):
        return jax.vmap(dm.log_prob, (None, 0))(dm.marginal(params, index), x)

    got = log_density(jnp.asarray(x[:, index]))
    np.testing.assert_allclose(got, logsumexp(np.stack(each), axis=0), rtol=1e-11)
    with pytest.raises(ValueError, match=r"columns: expected different columns among 0\.\.2"):
        dm.marginal(params, [1, 1])


def test_weights_are_repeats(x64):
    x = jnp.asarray(clusters(14, n=15))
    times = np.random.default_rng(0).integers(0, 4, 15)
    c, again = jnp.asarray(times, float), jnp.repeat(x, times, axis=0)
    params = random_params(15)

    def every(*data):
        return dm.statistics(params, *data), dm.log_likelihood(params, *data)

    weighted, repeated = flat(jax.jit(every)(x, c)), flat(jax.jit(every)(again))
    scale = np.max(np.abs(repeated)) + float(jnp.sum(again**2))
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=SAME_SUM["float64"] * scale)


@pytest.mark.parametrize("compiled", [True, pytest.param(False, marks=SLOW)])
def test_lanes_are_a_loop(compiled, x64):
    x, model = jnp.asarray(clusters(14, n=15)), dm.model(4, **SETTINGS)
    many = jax.tree.map(lambda *a: jnp.stack(a), *[random_params(s) for s in range(3)])

    def step(params, x):
        value, sums = dm.statistics(params, x)
        made, status = model.route(Expectation).maximise(params, sums)
        density = dm.bound(params, x), dm.log_likelihood(params, x), model.prior.log_prob(params)
        return value, dm.grad_of_statistics(params, sums), made, density, status

    lanes = jax.jit(jax.vmap(step, (0, None)))(many, x)
    one = jax.jit(step) if compiled else step
    for i in range(3):
        alone = one(random_params(i), x)
        assert float(alone[0]) == pytest.approx(float(alone[3][0]), rel=1e-14)
        lane = jax.tree.map(lambda a, i=i: a[i], lanes)
        np.testing.assert_allclose(flat(lane), flat(alone), rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(many.weights[1], random_params(1).weights)
    np.testing.assert_allclose(many.covariances[1], random_params(1).covariances)
    np.testing.assert_allclose(many.alpha[1], random_params(1).alpha)


def test_blocks_of_examples_add_up(x64, monkeypatch):
    x, params = jnp.asarray(clusters(16, n=100)), random_params(17)
    c = jnp.asarray(np.random.default_rng(0).uniform(size=100))

    def every(x, c):
        return dm.statistics(params, x, c), dm.log_likelihood(params, x, c)

    whole = flat(jax.jit(every)(x, c))
    monkeypatch.setattr(component_density, "_BLOCK_ELEMENTS", 4 * 13)
    parts = flat(jax.jit(lambda *data: every(*data))(x, c))
    np.testing.assert_allclose(parts, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_gradients_and_steps_find_the_same_maximum(x64):
    x = clusters(18, n=80, k=2)
    model = dm.model(3, **SETTINGS)
    start = jp.fit(model, x, solver=em(max_steps=5)).params
    by_steps = jp.fit(model, x, init=start, solver=PRECISE)
    by_gradient = jp.fit(model, x, init=start, solver=lbfgs(max_steps=2000))
    assert float(by_steps.grad_norm) <= 1e-6
    assert abs(float(by_steps.objective - by_gradient.objective)) <= 1e-6
    np.testing.assert_allclose(by_gradient.params.means, by_steps.params.means, atol=1e-3)
    log_p = dm.log_likelihood(by_steps.params, jnp.asarray(x))
    assert float(by_steps.log_likelihood) == pytest.approx(float(log_p), rel=1e-13)


@pytest.mark.slow
def test_starts_are_lanes(x64):
    x = clusters(19, n=90)
    model = dm.model(6, **dm.weakly_informative(x))
    found = restarts(model, x, None, jax.random.key(0), num_starts=4)
    alone = [
        jp.fit(model, x, init=jax.tree.map(lambda a, i=i: a[i], _starts(model, jnp.asarray(x), 4)))
        for i in range(4)
    ]
    for i, fit in enumerate(alone):
        assert jp.Status(int(fit.status)).name == "CONVERGED"
        assert abs(float(found.fits.objective[i] - fit.objective)) <= 1e-6
    np.testing.assert_allclose(-found.objective, found.fits.objective, rtol=1e-12)
    assert float(found.best.objective) == float(jnp.max(found.fits.objective))


def _starts(model, x, num):
    keys = jax.random.split(jax.random.key(0), num)
    return jax.jit(jax.vmap(lambda key: model.init(jax.random.split(key)[0], x)))(keys)


def test_nothing_in_a_component_leaves_the_prior(dtype):
    """To the last bit: of components with N = 0 and what q says about them."""
    settings = bits(**SETTINGS)
    start = random_params(20, t=3, dtype=dtype)
    none = dm.Statistics(*(jnp.zeros(shape, dtype) for shape in ((3,), (3, 2), (3, 2, 2))))
    made, status = jax.jit(lambda params, sums: dm.maximise(params, sums, **settings))(start, none)
    assert int(status) == jp.Status.MAX_STEPS
    q = made.components
    assert q.means.tolist() == [[0.5, -1.0]] * 3
    np.testing.assert_array_equal(q.log_count, np.log(np.full(3, 0.3, dtype)))
    np.testing.assert_array_equal(q.log_degrees, np.log(np.full(3, 2.5, dtype)))
    psi = plain(made)[5]
    np.testing.assert_allclose(psi, [SETTINGS["scale"]] * 3, rtol=20 * EPS[dtype])
    left = normal_wishart.divergence(settings["prior"], q)
    np.testing.assert_allclose(left, 0.0, atol=64 * EPS[dtype])


@pytest.mark.parametrize(
    ("name", "n"),
    some(
        *((name, n) for name in ("float32", "float64") for n in (1, 20)),
        often=[("float32", 1)],
    ),
)
def test_examples_that_are_all_the_same(name, n):
    with jax.enable_x64(name == "float64"):
        all_the_same(n, name)


def all_the_same(n, dtype):
    x = np.full((n, 2), 3.0, dtype)
    prior = {"location": 0.0, "scale": 1.0}  # what the examples say of it is nothing
    fit = jp.fit(dm.model(5, **prior), x)
    assert jp.Status(int(fit.status)).name == "CONVERGED"
    assert np.isfinite(flat(fit.params)).all()
    assert fit.params.means.dtype == dtype
    counts = jax.jit(dm.expected_counts)(fit.params, jnp.asarray(x))
    np.testing.assert_allclose(jnp.sum(counts), n, rtol=16 * EPS[dtype])
    assert int(jnp.sum(counts >= n / 2)) == 1
    draws = dm.gibbs(jax.random.key(0), x, num_steps=20, num_burn=20, **prior)
    assert bool(jnp.all((draws.num_components >= 1) & (draws.num_components <= n)))


@pytest.mark.slow
@pytest.mark.parametrize("power", [-40, 40])
def test_units_do_not_matter(power, x64):
    """In powers of two, with the prior in the same unit: the same to rounding."""
    x, unit = clusters(21, n=60), 2.0**power
    settings = {"location": 1.0, "scale": 2.0, "alpha": 1.0}
    other = {"location": unit, "scale": 2.0 * unit**2, "alpha": 1.0}
    fit = jp.fit(dm.model(4, **settings), x, solver=em(tol=1e-9, max_steps=50))
    scaled = jp.fit(dm.model(4, **other), x * unit, solver=em(tol=1e-9, max_steps=50))
    shift = x.size * math.log(unit)
    np.testing.assert_allclose(float(scaled.objective) + shift, float(fit.objective), rtol=1e-10)
    np.testing.assert_allclose(scaled.params.means / unit, fit.params.means, rtol=1e-5)


def test_a_scale_below_rounding_has_collapsed(x64):
    """Two columns that are one: what is left open of their difference is lost."""
    x = np.random.default_rng(0).standard_normal((20, 1)) @ np.ones((1, 2))
    fit = jp.fit(dm.model(2, scale=1e-20, alpha=1.0), x)
    assert jp.Status(int(fit.status)).name == "COLLAPSED"
    assert "raise scale" in " ".join(str(jp.summary(fit)).split())


def exact_posterior(x, alpha, alpha_prior, **prior):
    """By partition: its probability; and the mean of α and the density at some points."""
    n, density = len(x), stats.gamma(alpha_prior[0], scale=1 / alpha_prior[1]).pdf
    found = {}
    for z in partitions(n):
        sizes = np.bincount(z)
        base = log_data(x, z, **prior) + gammaln(sizes).sum()
        k = len(sizes)

        def crp(a, k=k):
            return np.exp(k * np.log(a) + gammaln(a) - gammaln(a + n))

        if alpha is not None:
            found[z] = base + np.log(crp(alpha)), alpha
            continue
        mass, mean = (
            integrate.quad(lambda a, p=p, k=k: a**p * crp(a, k) * density(a), 0, np.inf)[0]
            for p in (0, 1)
        )
        found[z] = base + np.log(mass), mean / mass
    whole = logsumexp([v[0] for v in found.values()])
    shares = {z: np.exp(v[0] - whole) for z, v in found.items()}
    return shares, sum(shares[z] * found[z][1] for z in found)


def canonical(z):
    order = {label: i for i, label in enumerate(dict.fromkeys(z))}
    return tuple(order[label] for label in z)


def batch_error(values, batches=40):
    """A standard error that knows of autocorrelation: from the means of long batches."""
    means = np.asarray(values, float)[: len(values) // batches * batches].reshape(batches, -1)
    return means.mean(axis=1).std(ddof=1) / np.sqrt(batches)


@pytest.mark.parametrize("alpha", [1.3, None])
def test_draws_are_from_the_posterior_over_partitions(alpha, x64):
    """All 203 partitions of six examples."""
    x = np.array([[0.0, 0.2], [0.4, -0.3], [1.5, 1.0], [2.2, 2.5], [2.4, 1.9], [-1.5, 0.8]])
    prior = {**SETTINGS, "mean_count": 0.5, "alpha": alpha, "alpha_prior": (2.0, 1.5)}
    own = {k: v for k, v in prior.items() if not k.startswith("alpha")}
    shares, mean_alpha = exact_posterior(x, alpha, (2.0, 1.5), **own)
    assert len(shares) == 203
    draws = dm.gibbs(jax.random.key(0), x, num_steps=20_000, num_burn=200, **prior)
    assert not bool(draws.full.any())
    found = [canonical(z) for z in np.asarray(draws.assignments).tolist()]
    likely = [z for z, p in shares.items() if p > 0.01]
    assert len(likely) > 10
    for z in likely:
        hits = np.array([other == z for other in found])
        error = max(batch_error(hits), np.sqrt(shares[z] * (1 - shares[z]) / len(found)))
        assert abs(hits.mean() - shares[z]) <= 4.5 * error
    number = np.array([max(z) + 1 for z in found])
    np.testing.assert_array_equal(number, draws.num_components)
    expected = sum(p * (max(z) + 1) for z, p in shares.items())
    assert abs(number.mean() - expected) <= 4 * batch_error(number)
    if alpha is None:
        alphas = np.asarray(draws.alpha)
        assert abs(alphas.mean() - mean_alpha) <= 4 * batch_error(alphas)
        return
    assert bool(jnp.all(draws.alpha == alpha))
    # The density of a seventh: that of all partitions of seven over that of six.
    query = np.array([[0.7, 0.4]])
    every = jax.tree.map(lambda a: a[::10], draws)
    got = float(dm.gibbs_log_density(every, x, query, **prior)[0])
    both = np.concatenate([x, query])
    rising = {n: gammaln(alpha + n) - gammaln(alpha) for n in (6, 7)}
    evidence = {
        n: logsumexp([
            log_data(both[:n], z, **own) + gammaln(np.bincount(z)).sum()
            + (max(z) + 1) * np.log(alpha) - rising[n]
            for z in partitions(n)
        ])
        for n in (6, 7)
    }  # fmt: skip
    assert abs(got - (evidence[7] - evidence[6])) <= 0.02


def test_the_sampler_says_where_there_was_no_room(x64):
    x = np.linspace(0, 100, 12)[:, None]
    tight = {"scale": 0.01, "mean_count": 0.01, "alpha": 5.0, "num_steps": 30, "num_burn": 30}
    few = dm.gibbs(jax.random.key(0), x, max_components=3, **tight)
    assert bool(few.full.any())
    assert int(few.num_components.max()) <= 3
    enough = dm.gibbs(jax.random.key(0), x, **tight)
    assert not bool(enough.full.any())
    assert int(enough.num_components.max()) > 3


@pytest.mark.slow
def test_the_sampler_agrees_with_the_fit_on_clear_clusters(dtype):
    x = clusters(22, n=60, k=2).astype(dtype) * np.array([1, 3], dtype)
    settings = dm.weakly_informative(x)
    draws = dm.gibbs(jax.random.key(1), x, num_steps=100, num_burn=100, **settings)
    assert draws.alpha.dtype == dtype
    best = restarts(dm.model(6, **settings), x, None, jax.random.key(0), num_starts=3).best
    a = np.asarray(dm.gibbs_log_density(draws, x, x[:10], **settings))
    b = np.asarray(jax.vmap(dm.log_prob, (None, 0))(best.params, jnp.asarray(x[:10])))
    np.testing.assert_allclose(a, b, atol=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_components": 0}, "num_components: expected an integer of at least 1, got 0"),
        ({"start": "k"}, "start: expected one of"),
        ({"alpha": 0.0}, "alpha: expected a positive number, or None to learn it, got 0.0"),
        ({"alpha_prior": (1.0,)}, "alpha_prior: expected two positive numbers"),
        ({"location": "a"}, "location: expected a finite number, or a tuple"),
        ({"location": math.nan}, "location: expected a finite number, or a tuple"),
        ({"scale": 0.0}, "scale: expected a positive number, a tuple of them"),
        ({"scale": ((1.0, 2.0), (2.0, 1.0))}, "scale: expected a positive number, a tuple"),
        ({"scale": (1.0, 2.0), "location": (0.0,)}, "location, scale: expected as many columns"),
        ({"mean_count": -1}, "mean_count: expected a positive number, got -1"),
        ({"degrees": 0}, "degrees: expected a positive number or None, got 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        dm.model(**{"num_components": 2, **settings})


def test_settings_that_do_not_fit_the_data():
    x = np.zeros((4, 3), "float32")
    with pytest.raises(ValueError, match="location: expected 3 columns as x has, got 2"):
        jp.fit(dm.model(2, location=(0.0, 1.0), scale=1.0), x)
    with pytest.raises(ValueError, match="degrees: expected more than 2 for 3 columns, got 1.5"):
        jp.fit(dm.model(2, degrees=1.5, scale=1.0), x)
    with pytest.raises(ValueError, match="x: expected columns that vary, got column 0, constant"):
        dm.weakly_informative(x)
    twice = np.random.default_rng(0).standard_normal((9, 1)) * np.array([[1.0, 2.0]])
    with pytest.raises(ValueError, match="x: expected no column that is a linear function"):
        dm.weakly_informative(twice)
    with pytest.raises(ValueError, match="x: expected at least two rows of finite numbers"):
        dm.weakly_informative([[np.nan], [1.0]])
    with pytest.raises(ValueError, match="max_components: expected an integer of at least 1"):
        dm.gibbs(jax.random.key(0), x, max_components=0, scale=1.0)
    with pytest.raises(ValueError, match="num_steps: expected an integer of at least 1"):
        dm.gibbs(jax.random.key(0), x, num_steps=0, scale=1.0)
    with pytest.raises(TypeError, match="key: expected a typed PRNG key"):
        dm.gibbs(0, x)
    params = random_params(0, learned=False, dtype="float32")
    with pytest.raises(ValueError, match="alpha: it is a number of the model's"):
        _ = params.alpha
    with pytest.raises(ValueError, match="threshold: expected a positive number of examples"):
        dm.num_used(params, jnp.asarray(x), threshold=0.0)
    with pytest.raises(ValueError, match=r"threshold: expected less than the 1 examples .* got 2"):
        dm.num_used(params, jnp.asarray(x), jnp.full(4, 0.25, "float32"), threshold=2)


def test_models_compare_by_value_and_names_are_unique():
    x = np.random.default_rng(0).standard_normal((30, 2)).astype("float32")
    settings = dm.weakly_informative(x)
    assert dm.model(3, **settings) == dm.model(3, **dm.weakly_informative(x.copy()))
    assert hash(dm.model(3, **settings)) == hash(dm.model(3, **settings))
    fit = jp.fit(dm.model(3, **settings), x)
    names = jp.summary(fit).names
    assert len(names) == len(set(names)) == len(flat(fit.params))
