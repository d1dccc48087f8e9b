"""Passes over a data matrix: right, under every transformation, and exact enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EPS

from jaxprob.numerics import compensated_matvec, fused_pass, gram, matvec, rmatvec

pytestmark = pytest.mark.digits

SHAPES = [(1, 1), (7, 3), (1000, 5), (1009, 4), (4096, 17), (5000, 2)]


def matrix(n, d, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, d)), dtype)


def agree(got, exact, terms, dtype):
    """Within rounding of Σ |terms|: in blocks, a sum of n terms is off by a few dozen ε of it."""
    bound = 32 * EPS[dtype] * np.asarray(terms, np.float64)
    assert np.all(np.abs(np.asarray(got, np.float64) - exact) <= bound)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_products(n, d, dtype):
    x, r, w = matrix(n, d, dtype), matrix(n, 3, dtype, 1), matrix(2, d, dtype, 2)
    s = jnp.abs(r[:, 0])
    wide, wide_r, wide_w = (np.asarray(a, np.longdouble) for a in (x, r, w))
    heavy, heavy_r, heavy_w = (np.abs(a) for a in (wide, wide_r, wide_w))
    for got, exact, terms in (
        (matvec(x, w[0]), wide @ wide_w[0], heavy @ heavy_w[0]),
        (matvec(x, w), wide @ wide_w.T, heavy @ heavy_w.T),
        (rmatvec(x, r[:, 0]), wide.T @ wide_r[:, 0], heavy.T @ heavy_r[:, 0]),
        (rmatvec(x, r), wide_r.T @ wide, heavy_r.T @ heavy),
        (gram(x, s), (wide.T * heavy_r[:, 0]) @ wide, (heavy.T * heavy_r[:, 0]) @ heavy),
    ):
        agree(got, exact, terms, dtype)
    np.testing.assert_allclose(gram(x, s), gram(x, s).T, rtol=1e3 * EPS[dtype], atol=EPS[dtype])


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("block_bytes", [None, 1 << 18])
def test_fused_pass(n, d, block_bytes, dtype):
    x, y = matrix(n, d, dtype), matrix(n, 1, dtype, 1)[:, 0]
    w = jnp.ones(d, dtype)

    def kernel(z, y):
        return (z - y) ** 2 / 2, z - y

    value, grad, total = fused_pass(kernel, x, w, (y,), block_bytes=block_bytes)
    wide = np.asarray(x, np.longdouble)
    r = np.sum(wide, axis=1) - np.asarray(y)
    size = np.sum(np.abs(wide), axis=1) + np.abs(np.asarray(y))
    agree(value, np.sum(r**2) / 2, np.sum(size**2), dtype)
    agree(grad, r @ wide, size @ np.abs(wide), dtype)
    agree(total, np.sum(r), np.sum(size), dtype)


@pytest.mark.parametrize("fn", [rmatvec, gram])
@pytest.mark.parametrize(("n", "d"), [(7, 3), (1009, 4), (300, 20), (5, 0)])
def test_vmap_is_a_loop(fn, n, d, dtype):
    xs = jnp.stack([matrix(n, d, dtype, seed) for seed in range(3)])
    ss = jnp.abs(jnp.stack([matrix(n, 1, dtype, 10 + seed)[:, 0] for seed in range(3)]))
    for axes in ((0, 0), (None, 0), (0, None)):
        args = [a if axis == 0 else a[0] for a, axis in zip((xs, ss), axes, strict=True)]
        for batched in (jax.vmap(fn, axes), jax.jit(jax.vmap(fn, axes))):
            got = batched(*args)
            for i in range(3):
                one = [a[i] if axis == 0 else a for a, axis in zip(args, axes, strict=True)]
                terms = fn(jnp.abs(one[0]), one[1])
                agree(got[i], np.asarray(fn(*one), np.float64), terms, dtype)


def test_nested_vmap(dtype):
    x, s = matrix(50, 3, dtype), jnp.abs(matrix(50, 6, dtype, 1)).T.reshape(2, 3, 50)
    got = jax.vmap(jax.vmap(gram, (None, 0)), (None, 0))(x, s)
    for i, j in np.ndindex(2, 3):
        agree(got[i, j], np.asarray(gram(x, s[i, j]), np.float64), gram(jnp.abs(x), s[i, j]), dtype)
    xs = jnp.stack([x, 2 * x])
    crossed = jax.vmap(jax.vmap(gram, (None, 0)), (0, None))(xs, s[0])
    for i, j in np.ndindex(2, 3):
        terms = gram(jnp.abs(xs[i]), s[0, j])
        agree(crossed[i, j], np.asarray(gram(xs[i], s[0, j]), np.float64), terms, dtype)


@pytest.mark.parametrize("fn", [rmatvec, gram])
def test_derivatives_are_those_of_the_plain_product(fn, x64):
    x, s = matrix(20, 3, "float64"), jnp.abs(matrix(20, 1, "float64", 1)[:, 0])

    def plain(x, s):
        return x.T @ s if fn is rmatvec else (x.T * s[None, :]) @ x

    def scalar(f):
        return lambda x, s: jnp.sum(jnp.sin(f(x, s)))

    for transform in (
        lambda f: jax.grad(scalar(f), (0, 1)),
        lambda f: jax.hessian(scalar(f), (0, 1)),
        lambda f: jax.jacrev(jax.jacrev(scalar(f), 1), 0),
        lambda f: lambda x, s: jax.vmap(jax.grad(scalar(f), 1), (None, 0))(x, s[None]),
    ):
        got, expected = (jax.jit(transform(f))(x, s) for f in (fn, plain))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_rmatvec_is_accurate_over_a_million_rows():
    x = matrix(1_000_000, 3, "float32") + 100.0
    r = matrix(1_000_000, 1, "float32", 1)[:, 0]
    exact = np.asarray(x, np.float64).T @ np.asarray(r, np.float64)
    terms = np.abs(np.asarray(x, np.float64)).T @ np.abs(np.asarray(r, np.float64))
    assert np.all(np.abs(np.asarray(rmatvec(x, r)) - exact) <= 1e-7 * terms)


def test_compensated_products_survive_cancellation(dtype):
    rng = np.random.default_rng(3)
    half = rng.standard_normal((200, 10)) * 10.0 ** rng.uniform(-8, 8, (200, 10))
    noise = rng.standard_normal((200, 20)) * 1e-6
    x = jnp.asarray(np.concatenate([half, -half], axis=1) + noise, dtype)
    w = jnp.asarray(np.tile(rng.standard_normal(10), 2), dtype)
    import mpmath

    mpmath.mp.dps = 60
    for i in (0, 7, 100):
        terms = [mpmath.mpf(float(a)) * mpmath.mpf(float(b)) for a, b in zip(x[i], w, strict=True)]
        exact, heavy = mpmath.fsum(terms), mpmath.fsum(abs(t) for t in terms)
        got = float(compensated_matvec(x, w)[i])
        eps = EPS[dtype]
        assert abs(got - float(exact)) <= 2 * eps * abs(float(exact)) + 400 * eps**2 * float(heavy)


def test_without_columns():
    x = jnp.zeros((4, 0))
    assert compensated_matvec(x, jnp.zeros(0)).tolist() == [0.0] * 4
    assert gram(x, jnp.ones(4)).shape == (0, 0)
    assert rmatvec(x, jnp.ones(4)).shape == (0,)
