"""Programs kept in a folder are found again, and only where they are the same."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob as jp
from jaxprob.contract.bind import Bind
from jaxprob.fit import eager
from jaxprob.models import logistic
from jaxprob.runtime import kept, programs
from jaxprob.runtime.compilation import eager_jit

_PROCESS = """
import json, sys
import jax, numpy as np
import jaxprob as jp
from jaxprob.models import gaussian_mixture, logistic
traced = set()
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **more: traced.add(more["fun_name"]) if "trace_duration" in name else None)
jp.keep_programs(sys.argv[1])
rng = np.random.default_rng(0)
x = rng.normal(size=(60, 3)).astype("float32")
y = (x[:, 0] + rng.logistic(size=60) > 0).astype("int32")
lasso = jp.many.path(logistic.model(), x, y, l1_ratio=1.0)  # which calls LAPACK
found = jp.fit(logistic.model(), x, y), lasso.fits, jp.fit(gaussian_mixture.model(2), x)
found = [fit.params for fit in found]
numbers = [np.asarray(a).tolist() for a in jax.tree.leaves(found)]
print(json.dumps([numbers, sorted(traced)]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for programs, without JAX' own cache."""
    made = kept.Folder(tmp_path)
    monkeypatch.setattr(programs, "_FOLDERS", [made])
    return made


def _kept(folder):
    return sorted(folder.path.glob("*.program"))


def test_another_process_traces_nothing_that_was_kept(tmp_path):
    def run():
        command = [sys.executable, "-c", _PROCESS, str(tmp_path)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    (numbers, traced), (again, traced_again) = run(), run()
    assert numbers == again
    assert {"_by_plain_newton", "_whole", "run_alone"} <= set(traced)
    assert not [name for name in traced_again if name.startswith(("_by", "_whole", "run"))]
    assert len(traced_again) < 10  # operations of JAX alone


_POWERS = []


def _traced(monkeypatch):
    """What is traced from now on, and a program of the library that tells."""
    monkeypatch.setattr(sys.modules[__name__], "_POWERS", [])

    def twice(a, power=2):
        _POWERS.append(power)
        return 2 * a**power

    twice.__module__ = "jaxprob.somewhere"
    return _POWERS, eager_jit(twice, static_argnames=["power"])


def test_a_program_is_read_again_for_the_same_shapes_and_settings_only(folder, monkeypatch):
    traced, program = _traced(monkeypatch)
    calls = [
        partial(program, np.ones(2, "float32")),
        partial(program, np.ones(3, "float32")),
        partial(program, np.ones((2, 1), "float32")),
        partial(program, np.ones(2, "int32")),
        partial(program, np.ones(2, "float32"), power=3),
        partial(program, 2.0),
        partial(program, np.float32(2.0)),  # which is not weakly typed
        partial(program.for_work(1e9), np.ones(2, "float32")),  # by other options of XLA
    ]
    first = [call() for call in calls]
    assert len(traced) == len(_kept(folder)) == len(calls)
    program.clear_cache()
    second = [call() for call in calls]
    assert len(traced) == len(calls)
    for a, b in zip(first, second, strict=True):
        assert (a.dtype, a.weak_type, a.tolist()) == (b.dtype, b.weak_type, b.tolist())
    with jax.enable_x64(True):
        assert program(np.ones(2)).dtype == "float64"
        program(np.ones(2, "float32"))
    assert len(traced) == len(calls) + 2


def test_what_a_function_closes_over_tells_it_from_others(folder):
    def times(factor):
        def program(a):
            return factor * a

        program.__module__ = "jaxprob.somewhere"
        return eager_jit(program)

    assert [float(times(k)(1.0)) for k in (2.0, 3.0, 2.0)] == [2.0, 3.0, 2.0]
    assert len(_kept(folder)) == 2


def test_results_keep_their_classes(folder):
    model, y = logistic.model(), np.array([0, 1, 0, 1])
    x = np.array([[0.0], [1.0], [2.0], [3.0]], "float32")
    first = jp.fit(model, x, y)
    number = len(_kept(folder))
    eager._by_plain_newton.clear_cache()
    second = jp.fit(model, x, y)
    assert number
    assert len(_kept(folder)) == number
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert jax.tree.all(jax.tree.map(np.array_equal, first.params, second.params))


def test_functions_of_users_are_not_kept(folder):
    def mine(a):
        return 2 * a

    with pytest.raises(kept.Unversioned):
        kept.digest(mine)
    with pytest.raises(kept.Unversioned):
        kept.digest(Bind(mine, factor=2))
    with pytest.raises(kept.Unversioned):
        kept.digest(type("Mine", (), {})())
    assert float(eager_jit(mine)(2.0)) == 4.0
    model = logistic.model()
    kept.digest(model)
    with pytest.raises(kept.Unversioned):
        kept.digest(replace(model, log_prob=mine))
    assert not _kept(folder)


def test_a_file_that_was_cut_short_is_made_again(folder, monkeypatch):
    traced, program = _traced(monkeypatch)
    program(2.0)
    (file,) = _kept(folder)
    whole = file.read_bytes()
    for broken in (whole[:100], b"", b"nothing"):
        file.write_bytes(broken)
        program.clear_cache()
        assert float(program(2.0)) == 8.0
        assert len(file.read_bytes()) > 1000
    assert len(traced) == 4


def test_a_folder_that_cannot_be_written_to_is_said(folder, monkeypatch):
    def fails(*_):
        raise OSError("No space left on device")

    _, program = _traced(monkeypatch)
    monkeypatch.setattr(kept.os, "replace", fails)
    with pytest.warns(RuntimeWarning, match="programs are not kept in .* No space left"):
        assert float(program(2.0)) == 8.0
    assert not list(folder.path.iterdir())


def test_a_program_that_calls_what_may_not_be_in_its_place_is_not_kept(folder):
    def halved(a):
        return jax.pure_callback(lambda a: np.asarray(a) / 2, a, a)

    halved.__module__ = "jaxprob.somewhere"
    assert eager_jit(halved)(jnp.ones(2)).tolist() == [0.5, 0.5]
    assert not _kept(folder)


def test_many_devices_and_checks_of_values_go_without(folder, monkeypatch):
    traced, program = _traced(monkeypatch)
    with jax.debug_nans(True):
        program(2.0)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    program(2.0)
    assert traced
    assert not _kept(folder)


def test_programs_that_were_read_count_towards_those_in_memory(folder, monkeypatch):
    _, program = _traced(monkeypatch)
    before = programs.SHELF.num_compiled
    program(2.0)
    program.clear_cache()
    jax.clear_caches()
    between = programs.SHELF.num_compiled
    program(2.0)
    assert before < between < programs.SHELF.num_compiled
    program.clear_cache()
    assert not program._kept


def test_folders_of_other_sources_have_other_programs(folder, monkeypatch, tmp_path):
    traced, program = _traced(monkeypatch)
    program(2.0)
    monkeypatch.setattr(kept.metadata, "version", lambda name: f"{name} of another time")
    monkeypatch.setattr(programs, "_FOLDERS", [kept.Folder(tmp_path)])
    program.clear_cache()
    program(2.0)
    assert len(traced) == len(_kept(folder)) == 2


def test_programs_are_dropped_once_and_not_for_others_again(monkeypatch):
    """What a user's own programs map cannot be freed by dropping those of the library."""
    dropped, shelf = [], programs._Shelf()

    class Program:
        maps = 15_000

        def clear_cache(self):
            dropped.append(self.maps)
            self.maps = 0

    program = Program()
    monkeypatch.setattr(programs, "num_maps", lambda: 18_000 + program.maps)
    for _ in range(5):  # looks
        shelf.num_compiled += programs._COMPILED_BETWEEN_LOOKS
        shelf.use(program)
    assert dropped == [15_000]
    program.maps = 15_000
    shelf.num_compiled += programs._COMPILED_BETWEEN_LOOKS
    shelf.use(program)
    assert dropped == [15_000, 15_000]
