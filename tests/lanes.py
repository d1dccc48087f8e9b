"""Lanes for the tests of many fits, and what NumPy finds for each of them."""

import jax
import jax.numpy as jnp
import numpy as np

N, D, B = 60, 2, 6


def draw_lanes(model, own, *, dtype="float64", size=B, seed=0):
    """Arguments of `fit_many`, those named with a lane axis; the classes overlap in every lane."""
    rng = np.random.default_rng(seed)
    k = model.variables.num_classes
    columns = () if model.variables.offset_columns is None else (k,)
    drawn = {
        "x": rng.standard_normal((size, N, D)),
        "y": rng.integers(0, k, (size, N)),
        "weights": rng.integers(1, 5, (size, N)) / 2 * (rng.uniform(size=(size, N)) < 0.8),
        "offset": rng.standard_normal((size, N, *columns)),
        "l2": 10.0 ** rng.uniform(-2, 1, size),
    }
    given = {k: a if k in own else a[0] for k, a in drawn.items() if k in own or k in ("x", "y")}
    if "init" in own:
        template = model.init(None, jnp.zeros((1, D)))
        given["init"] = jax.tree.map(lambda a: rng.standard_normal((size, *a.shape)), template)
    return jax.tree.map(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, given)


def lane(given, own, i):
    """The arguments of `fit` for one lane."""
    return {k: jax.tree.map(lambda a: a[i], v) if k in own else v for k, v in given.items()}


def matrix(params):
    """(C, d + 1), or (C, d) without a bias."""
    w = np.atleast_2d(np.asarray(params.weights, float))
    if params.bias is None:
        return w
    return np.hstack([w, np.atleast_1d(np.asarray(params.bias, float))[:, None]])


def by_hand(model, x, y, weights=None, offset=None, l2=0.0, init=None):
    """Parameters as `matrix` has them and log-likelihood, by Newton's method in NumPy."""
    del init
    n, classes = len(x), model.variables.num_classes
    template = model.init(None, jnp.zeros((1, x.shape[1])))
    free = [1] if template.weights.ndim == 1 else range(len(template.weights))
    x = np.asarray(x, float)
    x = x if template.bias is None else np.hstack([x, np.ones((n, 1))])
    theta = np.zeros((len(free), x.shape[1]))
    shrunk = np.arange(x.shape[1]) < np.shape(template.weights)[-1]
    c = np.ones(n) if weights is None else np.asarray(weights, float)
    fixed = np.zeros((n, classes))
    if offset is not None:
        fixed[:, 1 if np.ndim(offset) == 1 else slice(None)] = offset

    def log_p(theta):
        z = fixed.copy()
        z[:, free] += x @ theta.T
        z -= z.max(axis=1, keepdims=True)
        return z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))

    def value(theta):
        return c @ log_p(theta)[np.arange(n), y] - l2 / 2 * np.sum(theta[:, shrunk] ** 2)

    for _ in range(50):
        p = np.exp(log_p(theta))[:, free]
        grad = ((np.asarray(y)[:, None] == np.array(free)) - p).T * c @ x - l2 * shrunk * theta
        s = c[:, None, None] * (p[:, :, None] * np.eye(len(free)) - p[:, :, None] * p[:, None, :])
        hess = np.einsum("ikl,ia,ib->kalb", s, x, x).reshape(theta.size, theta.size)
        hess += l2 * np.diag(np.tile(shrunk, len(free)))
        # What the symmetric form leaves open stays zero in the step of least norm.
        step = np.linalg.lstsq(hess, grad.ravel(), rcond=1e-10)[0].reshape(theta.shape)
        while value(theta + step) < value(theta) - 1e-9:
            step = step / 2
        theta = theta + step
    assert np.max(np.abs(step)) < 1e-11 * (1 + np.max(np.abs(theta)))
    return theta, c @ log_p(theta)[np.arange(n), y]


def assert_close(got, expected, atol):
    """Relative to 1 + |θ|."""
    np.testing.assert_allclose(got, expected, rtol=atol, atol=atol)
