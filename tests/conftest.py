"""Settings that every test shares."""

import os

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """The working dtype; float64 tests run inside `jax.enable_x64`."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield
