"""The experiment scripts: their help, and what they say of wrong files."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

NAMES = [
    *("quickstart", "verify_gradients", "accuracy", "descent", "separation", "benchmark"),
    *("many_fits", "bootstrap_digits", "penalty_path", "fault_lanes", "per_group"),
    *("naive_bayes", "gaussian_mixture", "dirichlet_mixture", "kernel_density"),
    *("decision_tree", "map", "classical", "devices", "first_calls"),
]


@pytest.mark.parametrize("name", NAMES)
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"experiments.{name}").main()
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--seed" in shown
    assert "--out" in shown


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b,c\n1,2,x\n3,,y\n", "c", "column 'b' is empty in line 3"),
        ("a,b,c\n1,2,x\n3,foo,y\n", "c", "column 'b' holds 'foo', not a finite number, in line 3"),
        ("a,b,c\n1,2,x\n3,inf,y\n", "c", "column 'b' holds inf, not a finite number, in line 3"),
        ("a,b,c\n1,2,\n3,4,y\n", "c", "column 'c' is empty in line 2"),
        ("a,b,c\n1,2,x\n3,4,x\n", "c", "column 'c' has 1 distinct values"),
        ("a,b,c\n1,2,x\n3,4,y\n", "d", "no column 'd'; there are: a, b, c"),
        ("c\nx\ny\n", "c", "no columns besides 'c'"),
    ],
)
def test_wrong_tables(tmp_path, text, target, message):
    quickstart = importlib.import_module("experiments.quickstart")
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(SystemExit, match=message):
        quickstart.from_csv(path, target, 0)
    with pytest.raises(SystemExit, match="nothing.csv"):
        quickstart.from_csv(tmp_path / "nothing.csv", target, 0)


def test_a_table_of_text_labels_is_split_and_scaled(tmp_path):
    quickstart = importlib.import_module("experiments.quickstart")
    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{'yes' if a > 0 else 'no'},7" for a, b in rng.standard_normal((40, 2))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,answer,constant", *rows]) + "\n")
    data = quickstart.from_csv(path, "answer", 0)
    assert data.class_names == ["no", "yes"]
    assert len(data.train_y) + len(data.test_y) == 40
    assert list(data.train.columns) == ["a", "b", "constant"]
    np.testing.assert_allclose(data.train.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(data.train.std(ddof=0), [1, 1, 0], atol=1e-12)


def test_unknown_models_are_told():
    verify = importlib.import_module("experiments.verify_gradients")
    with pytest.raises(SystemExit, match="expected MODULE:FUNCTION"):
        verify.named("math")
    with pytest.raises(SystemExit, match="math:nothing"):
        verify.named("math:nothing")


@pytest.mark.slow
def test_quickstart_on_a_table(tmp_path, monkeypatch):
    quickstart = importlib.import_module("experiments.quickstart")
    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{'yes' if a + rng.logistic() > 0 else 'no'}" for a, b in rng.random((80, 2))]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["a,b,answer", *rows]) + "\n")
    argv = ["quickstart", "--data", str(path), "--target", "answer", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    before = jax.numpy.result_type(float) == "float64"
    try:
        quickstart.main()
    finally:
        jax.config.update("jax_enable_x64", before)
    numbers = json.loads((tmp_path / "quickstart.json").read_text())["numbers"]["mine"]
    assert numbers["status"] == "CONVERGED"
    assert all("ok" in check["verdict"] for check in numbers["derivatives"])
    assert (tmp_path / "quickstart_mine.png").stat().st_size > 10_000


PARTS = ["shared", "softmax", "own", "tail", "memory", "compilations"]


@pytest.mark.parametrize(
    "part", ["path", *(pytest.param(p, marks=pytest.mark.slow) for p in PARTS)]
)
def test_a_part_of_many_fits(part, tmp_path):
    # A process of its own: the number of devices is set before JAX is first used.
    call = [sys.executable, "-m", "experiments.many_fits", "--quick", "--only", part]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [*call, "--out", str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "many_fits.json").read_text())["numbers"]
    assert list(kept) == [part]
    assert kept[part]["quick"]
    rows = kept[part]["rows"]
    assert rows
    assert all(row["agree"] for row in rows if "peer" in row)
    assert (tmp_path / "many_fits.png").exists() == ("peer" in rows[0])
