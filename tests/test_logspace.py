"""Log-space functions against 70-digit arithmetic, in units in the last place (ULP)."""

import functools

import jax
import numpy as np
import pytest

from experiments import _exact
from jaxprob.numerics import logspace

pytestmark = pytest.mark.digits

# What the docstrings promise, for every float. A result or a class probability below the smallest
# normal number may be flushed to zero instead: one such loss for each class.
VALUE, SCORE, CURVATURE, SOFT = 4, 4, 6, 6
SOFTMAX, HESSIAN = 8, 16

MODES = pytest.mark.parametrize("mode", [jax.jit, lambda f: f], ids=["jit", "eager"])
COMPENSATED = pytest.mark.parametrize("compensated", [True, False], ids=["compensated", "plain"])


def _assert_within(bound, exact, *computed, slack=0.0, inputs):
    """All of `computed` within `bound` ULP of `exact`, or within `slack`; else names the worst."""
    exact, computed = np.asarray(exact, object), np.stack(computed)
    assert computed.shape[1:] == exact.shape
    off = _exact.ulps(computed, exact, slack)
    at = np.unravel_index(np.argmax(off - bound), off.shape)
    limit = np.broadcast_to(bound, off.shape)[at]
    shown = np.array2string(np.asarray(inputs)[at[1:2]], threshold=20)
    assert off[at] <= limit, (
        f"{off[at]:.3g} ULP, not {limit:.3g}: {computed[at]!r} for {float(exact[at[1:]])!r} "
        f"at {tuple(map(int, at))} of the function at {shown}"
    )


# --- Labels 0 and 1 ---------------------------------------------------------------------------

LOGITS = (
    [0.0, 1e-30, 1e-8, np.log(2), 1.0]
    + [0.6819, 0.6685, 0.4332, 2.649, 4.1313, 4.1573]  # the worst of log1p and of the division
    + [16.5, 16.63553, 17.4, 18, 33.3, 36.04, 36.74, 37, 37.43, 40]  # 1 - σ rounds away
    + [87.3, 87.34, 88.72, 104, 708.3, 709.8, 745.2]  # exp underflows and overflows
    + [1e4, 1e30, np.inf]
)


@functools.cache
def _logits(dtype):
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    size = np.concatenate(
        [
            LOGITS,
            [info.smallest_subnormal, info.tiny, info.max],
            np.linspace(0.4, 0.9, 100),
            10 ** rng.uniform(-10, 4, 100),
            rng.uniform(0, -np.log(info.tiny), 100),
        ]
    )
    return np.concatenate([size, -size, [np.nan]]).astype(dtype)


@functools.cache
def _sigmoid(dtype, sign=1):
    return _exact.sigmoid(sign * _logits(dtype))


@functools.cache
def _log_sigmoid(dtype, sign=1):
    return _exact.log_sigmoid(sign * _logits(dtype))


@functools.cache
def _variance(dtype):
    return _exact.variance(_logits(dtype))


def _flushed(dtype, num_classes=2):
    return num_classes * float(np.finfo(dtype).tiny)


def _derivatives(f, mode):
    """An elementwise function of (y, z), its derivative in z, and the derivative of that."""
    first = jax.grad(lambda y, z: f(y, z).sum(), argnums=1)
    second = jax.grad(lambda y, z: first(y, z).sum(), argnums=1)
    return [mode(g) for g in (f, first, second)]


def _check_hard_label(y, is_one, dtype, mode):
    z = _logits(dtype)
    within = functools.partial(_assert_within, slack=_flushed(dtype), inputs=z)
    sign = 1 if is_one else -1
    value, first, second = _derivatives(logspace.bernoulli_log_prob, mode)
    score = mode(logspace.bernoulli_score)
    within(VALUE, _log_sigmoid(dtype, sign), value(y, z))
    within(SCORE, sign * _sigmoid(dtype, -sign), first(y, z), score(y, z))
    within(CURVATURE, -_variance(dtype), second(y, z))


@MODES
@pytest.mark.parametrize("label", [0, 1])
def test_bernoulli_of_hard_labels(label, dtype, mode):
    _check_hard_label(np.full(_logits(dtype).shape, label, np.int32), label, dtype, mode)


@pytest.mark.parametrize("label", [0, 1])
def test_bernoulli_of_hard_labels_as_floats(label, dtype):
    _check_hard_label(np.full(_logits(dtype).shape, label, dtype), label, dtype, jax.jit)


@pytest.mark.parametrize("label_dtype", ["bool", "uint8", "int8"])
def test_bernoulli_of_any_label_dtype(label_dtype, dtype):
    z = _logits(dtype)
    y = np.arange(len(z), dtype=np.int32) % 2
    for function in (logspace.bernoulli_log_prob, logspace.bernoulli_score):
        jitted = jax.jit(function)
        np.testing.assert_array_equal(jitted(y.astype(label_dtype), z), jitted(y, z))


@MODES
@pytest.mark.parametrize("label", [1e-30, 0.3, "1 - ε/2"])
def test_bernoulli_of_soft_labels(label, dtype, mode):
    label = 1 - np.finfo(dtype).epsneg if isinstance(label, str) else label
    z, slack = _logits(dtype), _flushed(dtype)
    y = np.full(z.shape, label, dtype)
    one = _exact.number(y)
    value, first, second = _derivatives(logspace.bernoulli_log_prob, mode)
    score = mode(logspace.bernoulli_score)

    log_prob = one * _log_sigmoid(dtype) + (1 - one) * _log_sigmoid(dtype, -1)
    _assert_within(SOFT, log_prob, value(y, z), slack=slack, inputs=z)
    _assert_within(CURVATURE, -_variance(dtype), second(y, z), slack=slack, inputs=z)
    # The score is a difference that vanishes where σ(z) = y: each term within 5 ULP, of itself.
    yes, no = one * _sigmoid(dtype, -1), (1 - one) * _sigmoid(dtype)
    slack = slack + 5 * np.finfo(dtype).eps * _exact.to_float64(yes + no)
    _assert_within(1, yes - no, first(y, z), score(y, z), slack=slack, inputs=z)


@MODES
def test_log_sigmoid(dtype, mode):
    z = _logits(dtype)
    within = functools.partial(_assert_within, slack=_flushed(dtype), inputs=z)
    value, first, second = _derivatives(lambda _, z: logspace.log_sigmoid(z), mode)
    within(VALUE, _log_sigmoid(dtype), value(z, z))
    within(SCORE, _sigmoid(dtype, -1), first(z, z))
    within(CURVATURE, -_variance(dtype), second(z, z))


@MODES
def test_sigmoid(dtype, mode):
    z, slack = _logits(dtype), _flushed(dtype)
    value, first, second = _derivatives(lambda _, z: logspace.sigmoid(z), mode)
    variance = mode(logspace.bernoulli_variance)(z)
    _assert_within(VALUE, _sigmoid(dtype), value(z, z), slack=slack, inputs=z)
    _assert_within(CURVATURE, _variance(dtype), first(z, z), variance, slack=slack, inputs=z)
    # σ'' = σ(z) σ(-z) (σ(-z) - σ(z)) vanishes at 0: each term within 10 ULP, of itself.
    slack = slack + 10 * np.finfo(dtype).eps * _exact.to_float64(_variance(dtype))
    third = _variance(dtype) * (_sigmoid(dtype, -1) - _sigmoid(dtype))
    _assert_within(1, third, second(z, z), slack=slack, inputs=z)


def test_a_million_confident_examples_still_count(dtype):
    z = np.full(1_000_000, 20.0, dtype)
    y = np.ones(z.shape, np.int32)
    total = jax.jit(lambda y, z: logspace.bernoulli_log_prob(y, z).sum())
    gradient = jax.jit(jax.grad(lambda b: total(y, b * z)))
    count = _exact.number(1e6)
    # 4 ULP of each term, and one rounding for each of the log2(1e6) = 20 levels of the sum.
    _assert_within(24, count * _exact.log_sigmoid(20.0), total(y, z), inputs=z[:1])
    _assert_within(24, 20 * count * _exact.sigmoid(-20.0), gradient(z[0] / 20), inputs=z[:1])


# --- Labels 0 to K-1 --------------------------------------------------------------------------

QUICK = [2, 17, 100]
SLOW = [pytest.param(num_classes, marks=pytest.mark.slow) for num_classes in (3, 10, 16, 1000)]


def _special(num_classes, dtype):
    """Rows with infinities, nan, overflowing differences; all the rest are finite and ordinary."""
    info = np.finfo(dtype)
    row = np.zeros((11, num_classes))
    row[0, ::2] = -np.inf
    row[1, 1:] = -np.inf
    row[2, :-1] = -np.inf
    row[3] = -np.inf
    row[4, -1] = np.inf
    row[5, :2] = 0.9 * info.max, -0.9 * info.max
    row[6, 0] = np.nan
    row[7, ::2], row[7, 1::2] = info.smallest_subnormal, -info.tiny
    row[8, ::2] = -0.0
    row[9, :2] = np.nan, np.inf
    row[10] = -np.inf
    row[10, 0] = np.nan
    return row


def _leads(num_classes, dtype, rng):
    """One class ahead of all others by more and more, evenly and among noise."""
    ahead = [8, 16, 17, 36, 37, 60] + [600] * (dtype == "float64")
    rows = []
    for i, lead in enumerate(ahead):
        winner = [0, num_classes - 1, num_classes // 2][i % 3]
        even = np.zeros(num_classes)
        even[winner] = lead
        rows += [even, even + rng.normal(size=num_classes)]
    return rows


@functools.cache
def _rows(num_classes, dtype):
    rng = np.random.default_rng(num_classes)
    noise = rng.normal(size=num_classes)
    even = np.zeros(num_classes)
    tie = np.where(np.arange(num_classes) < 2, 0.0, -3.0 + noise)
    half = np.where(np.arange(num_classes) % 2 == 0, 0.0, -3.0)
    lead = np.where(np.arange(num_classes) == num_classes - 1, 12.0, 0.0) + noise
    rows = [even, even + 1e4, even - 1e4, even + 1 / 3, tie, half, tie - 1e4]
    rows += [noise, noise + 1e4, noise - 1e4, lead + 1e4, lead - 1e4]
    rows += [3 * noise, 10 * noise, 30 * noise, rng.uniform(-1e4, 1e4, num_classes)]
    rows += [10 ** rng.uniform(-30, -3, num_classes), np.linspace(-60, 0, num_classes)]
    rows += _leads(num_classes, dtype, rng)
    return np.concatenate([rows, _special(num_classes, dtype)]).astype(dtype)


@functools.cache
def _softmax(num_classes, dtype):
    return _exact.softmax(_rows(num_classes, dtype))


def _slack(num_classes, dtype):
    """Room for classes flushed to zero, in the rows that have any; (R, 1)."""
    p = _exact.to_float64(_softmax(num_classes, dtype).p)
    lost = (p < np.finfo(dtype).tiny).any(axis=-1, keepdims=True)
    return np.where(lost, _flushed(dtype, num_classes), 0.0)


def _gaps(num_classes, dtype):
    """How far each class is behind the largest, and the others are on average; (R, K) each.

    The rounding of a difference of logits is at most that many ULP of its exponential.
    """
    z = _rows(num_classes, dtype).astype(np.float64)
    with np.errstate(all="ignore"):
        behind = np.nan_to_num(z.max(-1, keepdims=True) - z, nan=0.0, posinf=0.0)
        behind = np.minimum(behind, 1e3)  # beyond that a class is flushed to zero
        exact = [_exact.to_float64(part) for part in _softmax(num_classes, dtype)]
        mass = exact[0] * behind
        others = (mass.sum(-1, keepdims=True) - mass) / exact[1]
    return behind, np.nan_to_num(others, nan=0.0, posinf=0.0)


def _labels(num_classes):
    """Every position if few, else the ends and the middle."""
    if num_classes < 20:
        return range(num_classes)
    return [0, num_classes // 2, num_classes - 1]


def _bounds(num_classes, dtype, compensated):
    """ULP allowed of log p_k and of 1 - p_k, and of p_k; (R, K) each."""
    behind, others = _gaps(num_classes, dtype)
    return (SOFTMAX + (not compensated) * others, SOFTMAX + (not compensated) * behind)


def _label_form(compensated):
    return functools.partial(logspace.categorical_log_prob, compensated=compensated)


def _check_categorical(num_classes, dtype, mode, compensated):
    z, exact = _rows(num_classes, dtype), _softmax(num_classes, dtype)
    slack = _slack(num_classes, dtype)
    of_rest, of_p = _bounds(num_classes, dtype, compensated)
    log_prob = _label_form(compensated)
    value = mode(log_prob)
    score = mode(functools.partial(logspace.categorical_score, compensated=compensated))
    gradient = mode(jax.grad(lambda y, z: log_prob(y, z).sum(), argnums=1))
    for label in _labels(num_classes):
        y = np.full(len(z), label, np.int32)
        expected, log_p = _exact.score(exact, y), exact.log_p[:, label]
        bound = np.where(np.arange(num_classes) == label, of_rest, of_p)
        _assert_within(of_rest[:, label], log_p, value(y, z), slack=slack[:, 0], inputs=z)
        _assert_within(bound, expected, gradient(y, z), score(y, z), slack=slack, inputs=z)


@COMPENSATED
@pytest.mark.parametrize("num_classes", QUICK + SLOW)
def test_categorical(num_classes, dtype, compensated):
    _check_categorical(num_classes, dtype, jax.jit, compensated)


@pytest.mark.parametrize("compensated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_categorical_eagerly(dtype, compensated):
    _check_categorical(17, dtype, lambda f: f, compensated)


@pytest.mark.parametrize("num_rows", [1, 8])  # XLA sums few rows in another order than many
def test_many_small_classes_beside_a_large_one(num_rows, dtype):
    """Added to 1 one after the other, each would be rounded up, or lost."""
    score = jax.jit(functools.partial(logspace.categorical_score, compensated=True))
    softmax = jax.jit(functools.partial(logspace.softmax, compensated=True))
    y = np.full(num_rows, 49, np.int32)
    for lead in (8.0, 16.7, 17.0) if dtype == "float32" else (8.0, 36.8, 37.0):
        row = np.where(np.arange(50) == 0, lead, 0.0).astype(dtype)
        z = np.tile(row, (num_rows, 1))
        exact = _exact.softmax(z)
        _assert_within(SOFTMAX, _exact.score(exact, y), score(y, z), inputs=z)
        _assert_within(SOFTMAX, exact.p, softmax(z), inputs=z)


def _hessian_bound(num_classes, dtype, compensated):
    """(R, K, K): entries are p_j p_k, and -p_k (1 - p_k) on the diagonal."""
    behind, others = _gaps(num_classes, dtype)
    gap = behind[:, :, None] + behind[:, None, :]
    gap = np.where(np.eye(num_classes, dtype=bool), (behind + others)[:, None, :], gap)
    return HESSIAN + (not compensated) * gap


def _hessian_slack(expected, num_classes, dtype):
    """The slack of a row, and as much where an entry itself may be flushed to zero."""
    small = abs(_exact.to_float64(expected)) < np.finfo(dtype).tiny
    row = _slack(num_classes, dtype)
    return np.where(small, _flushed(dtype, num_classes), row if small.ndim == 2 else row[..., None])


HESSIANS = {
    "forward over reverse": jax.hessian,
    "reverse over reverse": lambda f, argnums: jax.jacrev(jax.jacrev(f, argnums), argnums),
    "forward over forward": lambda f, argnums: jax.jacfwd(jax.jacfwd(f, argnums), argnums),
}


def _hessian(kind, compensated):
    return jax.jit(jax.vmap(HESSIANS[kind](_label_form(compensated), argnums=1)))


def _check_hessian(num_classes, dtype, compensated, kind):
    z, exact = _rows(num_classes, dtype), _softmax(num_classes, dtype)
    first, last = (np.full(len(z), label, np.int32) for label in (0, num_classes - 1))
    hessian = _hessian(kind, compensated)
    bound = _hessian_bound(num_classes, dtype, compensated)
    expected = _exact.hessian(exact)
    slack = _hessian_slack(expected, num_classes, dtype)
    _assert_within(bound, expected, hessian(first, z), hessian(last, z), slack=slack, inputs=z)


@COMPENSATED
@pytest.mark.parametrize("num_classes", [2, 17, *SLOW[:3]])
def test_categorical_hessian(num_classes, dtype, compensated):
    _check_hessian(num_classes, dtype, compensated, "forward over reverse")


@COMPENSATED
@pytest.mark.parametrize("kind", HESSIANS)
def test_categorical_hessian_in_other_modes(kind, dtype, compensated):
    _check_hessian(3, dtype, compensated, kind)


@pytest.mark.parametrize("winner", [0, 2])
def test_hessians_of_all_modes_agree_far_ahead(winner, dtype):
    z = np.where(np.arange(4) == winner, 40.0, [0.3, -1.0, 0.5, 0.0]).astype(dtype)[None]
    y = np.zeros(1, np.int32)
    one, *others = (np.asarray(_hessian(kind, False)(y, z)) for kind in HESSIANS)
    assert (one != 0).all()
    for other in others:
        # The same products in another order: four roundings on either side.
        np.testing.assert_allclose(other, one, rtol=8 * np.finfo(dtype).eps, atol=0)


@COMPENSATED
@pytest.mark.parametrize("num_classes", [100, SLOW[-1]])
def test_columns_of_the_hessian_of_many_classes(num_classes, dtype, compensated):
    z, exact = _rows(num_classes, dtype), _softmax(num_classes, dtype)
    log_prob = _label_form(compensated)
    gradient = jax.grad(lambda y, z: log_prob(y, z).sum(), argnums=1)
    product = jax.jit(lambda y, z, t: jax.jvp(lambda z: gradient(y, z), (z,), (t,))[1])
    y = np.zeros(len(z), np.int32)
    behind, others = _gaps(num_classes, dtype)
    for column in _labels(num_classes):
        hit = np.arange(num_classes) == column
        p = exact.p[:, column, None]
        expected = np.where(hit, -p * exact.rest[:, column, None], p * exact.p)
        gap = np.where(hit, behind + others, behind + behind[:, column, None])
        bound = HESSIAN + (not compensated) * gap
        computed = product(y, z, np.broadcast_to(hit, z.shape).astype(dtype))
        slack = _hessian_slack(expected, num_classes, dtype)
        _assert_within(bound, expected, computed, slack=slack, inputs=z)


@pytest.mark.parametrize("label_dtype", ["bool", "int8", "uint8", "int16", "int64"])
def test_categorical_of_any_label_dtype(label_dtype, x64):
    z = _rows(2, "float64")[:12]
    y = np.arange(len(z)) % 2
    for function in (logspace.categorical_log_prob, logspace.categorical_score):
        expected = jax.jit(function)(y.astype(np.int32), z)
        np.testing.assert_array_equal(jax.jit(function)(y.astype(label_dtype), z), expected)


# --- All classes at once ----------------------------------------------------------------------


@COMPENSATED
@pytest.mark.parametrize("num_classes", [17, 100, *SLOW])
def test_softmax(num_classes, dtype, compensated):
    z, exact = _rows(num_classes, dtype), _softmax(num_classes, dtype)
    slack = _slack(num_classes, dtype)
    of_p = _bounds(num_classes, dtype, compensated)[1]
    computed = jax.jit(functools.partial(logspace.softmax, compensated=compensated))(z)
    _assert_within(of_p, exact.p, computed, slack=slack, inputs=z)


@pytest.mark.parametrize("compensated", [True, False], ids=["compensated", "plain"])
def test_jacobian_of_softmax(dtype, compensated):
    """It is minus the Hessian of any log p_y."""
    z = _rows(10, dtype)
    bound = _hessian_bound(10, dtype, compensated)
    function = functools.partial(logspace.softmax, compensated=compensated)
    jacobians = [jax.jit(jax.vmap(d(function)))(z) for d in (jax.jacfwd, jax.jacrev)]
    expected = -_exact.hessian(_softmax(10, dtype))
    slack = _hessian_slack(expected, 10, dtype)
    _assert_within(bound, expected, *jacobians, slack=slack, inputs=z)


@pytest.mark.parametrize("num_classes", [17, 100, *SLOW])
def test_log_softmax(num_classes, dtype):
    z, exact = _rows(num_classes, dtype), _softmax(num_classes, dtype)
    bound = _bounds(num_classes, dtype, False)[0]
    slack = _slack(num_classes, dtype)
    _assert_within(bound, exact.log_p, jax.jit(logspace.log_softmax)(z), slack=slack, inputs=z)


def test_derivatives_of_log_softmax(dtype):
    """Row y of its Jacobian is the score of label y; the Hessian is the same for all labels."""
    z, exact = _rows(10, dtype), _softmax(10, dtype)
    of_rest, of_p = _bounds(10, dtype, False)
    slack = _slack(10, dtype)
    jacobians = [jax.jit(jax.vmap(d(logspace.log_softmax)))(z) for d in (jax.jacfwd, jax.jacrev)]
    hessian = jax.jit(jax.vmap(jax.hessian(lambda z: logspace.log_softmax(z)[3])))(z)
    for label in range(10):
        bound = np.where(np.arange(10) == label, of_rest, of_p)
        expected = _exact.score(exact, np.full(len(z), label))
        rows = [jacobian[:, label] for jacobian in jacobians]
        _assert_within(bound, expected, *rows, slack=slack, inputs=z)
    bound, expected = _hessian_bound(10, dtype, False), _exact.hessian(exact)
    slack = _hessian_slack(expected, 10, dtype)
    _assert_within(bound, expected, hessian, slack=slack, inputs=z)


# --- logsumexp --------------------------------------------------------------------------------


def _log_densities(dtype):
    rng = np.random.default_rng(1)
    shifts = np.concatenate([[[0, -20.0, -np.inf]], rng.normal(size=(20, 3)) - [[10, 20, 30]]])
    rows = [[0.0, -20.0, -40.0], [1e-10, -30.0, -30.0], [-1e4, -1e4 + 1, -1e4 + 2]]
    rows += list(np.log(rng.dirichlet([0.3, 0.3, 0.3], 100))) + list(shifts)
    rows += list(rng.normal(size=(20, 3)) * 10 ** rng.uniform(-10, 3, (20, 1)))
    return np.array(rows).astype(dtype)


def _check_logsumexp(z, mode):
    """Within 8 u max(|m|, log S), and 4 ULP where m = 0."""
    dtype = z.dtype
    exact = _exact.logsumexp(z)
    with np.errstate(all="ignore"):
        m = z.max(axis=-1).astype(np.float64)
        size = np.maximum(abs(m), _exact.to_float64(exact - _exact.number(m)))
        unit = np.finfo(dtype).eps / 2
        slack = np.where(m == 0, _flushed(dtype, z.shape[-1]), 8 * unit * np.nan_to_num(size))
    bound = np.where(m == 0, 4, 0)
    _assert_within(bound, exact, mode(logspace.logsumexp)(z), slack=slack, inputs=z)


@MODES
def test_logsumexp_of_log_densities(dtype, mode):
    _check_logsumexp(_log_densities(dtype), mode)


@pytest.mark.parametrize("num_classes", QUICK + SLOW)
def test_logsumexp(num_classes, dtype):
    _check_logsumexp(_rows(num_classes, dtype), jax.jit)


def test_logsumexp_of_one_term_is_that_term(dtype):
    z = _logits(dtype)
    normal = z[~((abs(z) > 0) & (abs(z) < np.finfo(dtype).tiny))]  # XLA flushes the others
    np.testing.assert_array_equal(jax.jit(logspace.logsumexp)(normal[:, None]), normal)


def test_logsumexp_of_a_million_terms(dtype):
    z = np.random.default_rng(2).normal(size=(1, 1_000_000)).astype(dtype)
    wide = z.astype(np.float64)
    exact = wide.max() + np.log(np.exp(wide - wide.max()).sum())  # to 1e-13
    size = max(wide.max(), exact - wide.max())
    error = abs(float(jax.jit(logspace.logsumexp)(z)[0]) - exact)
    assert error <= 4 * np.finfo(dtype).eps * size + 1e-13


def test_logsumexp_along_another_axis(dtype):
    z = _rows(3, dtype)[:12]
    np.testing.assert_array_equal(
        jax.jit(functools.partial(logspace.logsumexp, axis=0))(z.T), jax.jit(logspace.logsumexp)(z)
    )


@pytest.mark.parametrize("num_classes", [17, 100, *SLOW])
def test_gradient_of_logsumexp(num_classes, dtype):
    z, exact = _rows(num_classes, dtype), _softmax(num_classes, dtype)
    empty = (z == -np.inf).all(axis=-1, keepdims=True)
    expected = np.where(empty, _exact.number(0), exact.p)
    of_p = _bounds(num_classes, dtype, False)[1]
    gradient = jax.jit(jax.grad(lambda z: logspace.logsumexp(z).sum()))(z)
    _assert_within(of_p, expected, gradient, slack=_slack(num_classes, dtype), inputs=z)


def test_hessian_of_logsumexp(dtype):
    z, exact = _rows(10, dtype), _softmax(10, dtype)
    some = ~(z == -np.inf).all(axis=-1)
    hessian = jax.jit(jax.vmap(jax.hessian(logspace.logsumexp)))(z)
    expected = -_exact.hessian(exact)
    slack, bound = _hessian_slack(expected, 10, dtype), _hessian_bound(10, dtype, False)
    _assert_within(bound[some], expected[some], hessian[some], slack=slack[some], inputs=z[some])
    assert (np.asarray(hessian[~some]) == 0).all()


# --- Sweeps -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_sweep_of_bernoulli(dtype):
    rng = np.random.default_rng(3)
    far = -np.log(np.finfo(dtype).tiny)
    z = np.concatenate([rng.uniform(-far, far, 20_000), rng.uniform(-20, 20, 20_000)])
    z = z.astype(dtype)
    y = np.ones(z.shape, np.int32)
    within = functools.partial(_assert_within, slack=_flushed(dtype), inputs=z)
    value, first, second = _derivatives(logspace.bernoulli_log_prob, jax.jit)
    within(VALUE, _exact.log_sigmoid(z), value(y, z))
    within(SCORE, _exact.sigmoid(-z), first(y, z))
    within(CURVATURE, -_exact.variance(z), second(y, z))


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 5, 16, 64])
def test_sweep_of_categorical(num_classes, dtype):
    """Compensated; random scales, offsets, leads and ties, one random label each."""
    rng = np.random.default_rng(num_classes)
    shape = (60_000 // num_classes, num_classes)
    z = rng.normal(size=shape) * 10 ** rng.uniform(-3, 2, (shape[0], 1))
    z[:, 0] += rng.choice([0, 10, 20, 40], shape[0])
    z += rng.choice([0, 0, 1e4], (shape[0], 1))
    z[::3] = np.round(z[::3])
    z = z.astype(dtype)
    y = rng.integers(num_classes, size=shape[0]).astype(np.int32)
    exact = _exact.softmax(z)
    slack = _flushed(dtype, num_classes)
    score = functools.partial(logspace.categorical_score, compensated=True)
    log_p = np.take_along_axis(exact.log_p, y[:, None], -1)[:, 0]
    value = jax.jit(_label_form(True))(y, z)
    _assert_within(SOFTMAX, log_p, value, slack=slack, inputs=z)
    _assert_within(SOFTMAX, _exact.score(exact, y), jax.jit(score)(y, z), slack=slack, inputs=z)
