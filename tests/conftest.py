"""Settings that every test shares."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from importlib import metadata

# Tests run small programs once, so their time is that of compiling, by as many processes as there
# are cores. Set XLA_FLAGS, to nothing for instance, to test what users run; CI does so for those
# that are marked `digits`.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
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
gc.freeze()  # what is imported stays, and need not be looked at again
gc.set_threshold(50_000, 20, 50)  # tracing makes many objects, few of them in cycles
MOST_PROGRAMS = 100  # of a test: each costs some 50 ms, nearly all of the time that tests take
TESTS_PER_LOOK = 10


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


class Housekeeping:
    """What is done after every test, and after every example of a docstring, wherever it stands."""

    def __init__(self):
        self.count = self.num_compiled = 0
        self.is_whole = False
        jax.monitoring.register_event_duration_secs_listener(self.note)

    def note(self, event, duration_secs, **kwargs):
        """Count the programs that are compiled."""
        del duration_secs, kwargs
        self.num_compiled += event == "/jax/core/compile/backend_compile_duration"

    def pytest_collection_finish(self, session):
        """A test that runs alone also compiles what others would have left for it."""
        self.is_whole = len(session.items) >= 1_000

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        """Fail a test that compiles too much: let it compute in NumPy, or in one `jax.jit`."""
        before = self.num_compiled
        result = yield
        num = self.num_compiled - before
        if self.is_whole and num > MOST_PROGRAMS and not item.get_closest_marker("slow"):
            pytest.fail(f"compiled {num} programs, more than {MOST_PROGRAMS}", pytrace=False)
        return result

    def pytest_runtest_teardown(self):
        """Close figures; forget programs in time: Linux kills who maps memory 65,530 times.

        A test that makes a thousand of them would be too late for a look at the end of its module.
        """
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")
        self.count += 1
        if self.count % TESTS_PER_LOOK == 0 and num_maps() > MOST_MAPS:
            jax.clear_caches()
            gc.collect()


def num_maps():
    """How often this process maps memory; 0 where that cannot be told."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return 0


def pytest_configure(config):
    """Fixtures would reach the tests of this folder only."""
    config.pluginmanager.register(Housekeeping())
