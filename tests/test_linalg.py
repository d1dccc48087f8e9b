"""Factors of Hessians: right, for small and for large ones, and NaN where there is none."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EPS

from jaxprob.numerics.linalg import cholesky, factorise, invert, no_factor, no_inverse, solve

pytestmark = pytest.mark.digits

SIZES = [1, 2, 3, 5, 9, 21, 63, 111, 112, 300, pytest.param(513, marks=pytest.mark.slow), 650]


def positive(p, dtype, seed=0):
    rows = np.random.default_rng(seed).standard_normal((2 * p, p))
    return jnp.asarray(rows.T @ rows / p, dtype)


@pytest.mark.parametrize("p", SIZES)
def test_cholesky(p, dtype):
    a = positive(p, dtype)
    lower, inverse = jax.jit(cholesky)(a)
    wide = np.asarray(lower, np.float64)
    size = np.abs(wide) @ np.abs(wide.T)
    assert np.all(np.abs(wide @ wide.T - np.asarray(a)) <= 4 * np.sqrt(p) * EPS[dtype] * size)
    assert np.all(np.triu(wide, 1) == 0)
    back = np.asarray(inverse, np.float64)
    size = np.abs(back) @ np.abs(wide)
    assert np.all(np.abs(back @ wide - np.eye(p)) <= 4 * np.sqrt(p) * EPS[dtype] * size)


@pytest.mark.parametrize("p", [3, 300, 650])
@pytest.mark.parametrize("where", [0, -1])
def test_what_is_not_positive_definite_has_no_factor(p, where, dtype):
    a = positive(p, dtype)
    lower, _ = cholesky(a.at[where, where].set(-1.0))
    assert jnp.isnan(lower[-1, -1])


@pytest.mark.parametrize("make", [factorise, invert])
@pytest.mark.parametrize("p", [20, 300])
def test_solve_whatever_the_scales(p, make, dtype):
    a = positive(p, dtype)
    scale = jnp.asarray(10.0 ** np.random.default_rng(1).integers(-6, 7, p), dtype)
    factor = jax.jit(make)(scale[:, None] * a * scale[None, :])
    v = jnp.asarray(np.random.default_rng(2).standard_normal(p), dtype)
    got = factor.solve(scale * v) * scale
    exact = np.linalg.solve(np.asarray(a, np.float64), np.asarray(v, np.float64))
    condition = np.linalg.cond(np.asarray(a, np.float64))
    assert np.linalg.norm(got - exact) <= p * EPS[dtype] * condition * np.linalg.norm(exact)
    assert factor.untouched()
    assert not factor.singular()


@pytest.mark.parametrize("make", [factorise, invert])
@pytest.mark.parametrize("p", [20, 300])
def test_a_singular_matrix_is_said_to_be_singular(p, make, dtype):
    empty = positive(p, dtype).at[:, 0].set(0.0).at[0, :].set(0.0)
    twin = positive(p, dtype)
    twin = twin.at[0].set(twin[1]).at[:, 0].set(twin[:, 1]).at[0, 0].set(twin[1, 1])
    for singular in (empty, twin, jnp.zeros_like(twin)):
        factor = make(singular)
        assert factor.singular()
        assert jnp.all(jnp.isfinite(factor.solve(jnp.ones(p, dtype))))


@pytest.mark.parametrize("p", [5, 300])
def test_vmap_is_a_loop(p):
    many = jnp.stack([positive(p, "float32", seed) for seed in range(3)])
    batched = jax.vmap(factorise)(many)
    v = jnp.arange(p, dtype="float32") / p
    for i, a in enumerate(many):
        one, lane = factorise(a), jax.tree.map(itemgetter(i), batched)
        np.testing.assert_allclose(lane.lower, one.lower, atol=p * EPS["float32"])
        np.testing.assert_allclose(lane.solve(v), one.solve(v), rtol=1e-4)


@pytest.mark.parametrize("make", [factorise, invert])
def test_what_is_not_finite_has_no_factor(make, dtype):
    broken = positive(7, dtype).at[2, 3].set(jnp.nan).at[3, 2].set(jnp.nan)
    assert jnp.isnan(make(broken).last_pivot())


@pytest.mark.parametrize("p", [1, 7, 201])
def test_an_inverse_is_that_of_the_matrix(p, dtype):
    """Worst entry against Σ |terms| of the product, for two products of p terms in a row each."""
    a = positive(p, dtype)
    made = jax.jit(invert)(a)
    wide = np.asarray(a, np.float64) / np.outer(made.scale, made.scale)
    inverse = np.asarray(made.matrix, np.float64)
    size = np.abs(inverse) @ np.abs(wide) @ np.abs(inverse) @ np.abs(wide)
    assert np.all(np.abs(inverse @ wide - np.eye(p)) <= 4 * p * EPS[dtype] * size)
    exact = np.diag(np.linalg.cholesky(wide)) ** 2
    np.testing.assert_allclose(made.pivots, exact, rtol=4 * p * EPS[dtype] * np.linalg.cond(wide))


@pytest.mark.parametrize("p", [5, 300])
def test_no_inverse_is_that_of_the_identity(p):
    v = jnp.arange(p, dtype="float32")
    np.testing.assert_array_equal(no_inverse(v).solve(v), v)
    assert jax.tree.structure(no_inverse(v)) == jax.tree.structure(invert(positive(p, "float32")))


@pytest.mark.parametrize("p", [5, 300])
def test_no_factor_is_that_of_the_identity(p):
    v = jnp.arange(p, dtype="float32")
    np.testing.assert_array_equal(no_factor(v).solve(v), v)


def test_solve_under_vmap_and_its_derivatives(x64):
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((4, 6, 6)) + 6 * np.eye(6))
    v = jnp.asarray(rng.standard_normal((4, 6)))

    def size(make, a, v):
        return jnp.sum(jnp.sin(make(a, v)))

    def curved(make):
        return jax.vmap(jax.grad(lambda a, v: jnp.sum(jax.grad(size, 2)(make, a, v) ** 2), (0, 1)))

    made = jax.jit(jax.vmap(solve))(a, v)
    np.testing.assert_allclose(made, np.linalg.solve(a, v[..., None])[..., 0], rtol=1e-12)
    for got, expected in zip(curved(solve)(a, v), curved(jnp.linalg.solve)(a, v), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
