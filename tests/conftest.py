"""Settings that every test shares."""

import atexit
import gc
import itertools
import os
import shutil
import tempfile
from importlib import metadata

# Tests run small programs once, so their time is that of compiling. Set XLA_FLAGS, to nothing for
# instance, to test what users run; CI does so for the slow tests.
FLAGS = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):  # later ones have no other emitters
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)
os.environ.setdefault("MPLBACKEND", "agg")
# The workers of a run share what they compile. They inherit the variables of the process that
# starts them, which is the first to come here.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    PROGRAMS = tempfile.mkdtemp(prefix="jaxprob-tests-")
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPS = 20_000
TESTS_PER_LOOK = 10
TESTS = itertools.count(1)


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


@pytest.fixture(autouse=True)
def few_programs():
    """Forget compiled programs in time: each maps memory, and Linux kills who maps 65,530 times.

    A test that makes a thousand of them would be too late for a look at the end of its module.
    """
    yield
    if next(TESTS) % TESTS_PER_LOOK:
        return
    try:
        with open("/proc/self/maps", "rb") as maps:
            count = sum(1 for _ in maps)
    except OSError:
        return
    if count > MOST_MAPS:
        jax.clear_caches()
        gc.collect()
