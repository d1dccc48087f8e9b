"""Fits in files: the same when they come back, and nothing else does."""

import json
import os
import pickle
import stat
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from contract import ENTRIES

import jaxprob as jp
from jaxprob.contract import Trait
from jaxprob.files import tensors
from jaxprob.files.structure import Decoder, Encoder
from jaxprob.models import Model, Real, Variables, kernel_density, logistic

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 2)).astype("float32")
Y = np.where(X[:, 0] + RNG.logistic(size=40) > 0, "yes", "no")
TABLE = pd.DataFrame(X, columns=["age", "dose"])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fit.safetensors"


def same(a, b):
    """But for what a summary needs to know of the data, which a file has and a fit looks up."""
    a, b = (replace(fit, kept=None) if isinstance(fit, jp.Fit) else fit for fit in (a, b))
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_model_comes_back_equal(name):
    model, encoder = ENTRIES[name].model, Encoder()
    text = json.dumps(encoder.encode(model))
    assert Decoder(encoder.arrays).decode(json.loads(text)) == model


def test_a_fit_comes_back(file):
    fit = jp.fit(logistic.model(), TABLE, Y, l2=1.0, trace=True)
    back = jp.load(jp.save(fit, file))
    assert back.model == fit.model
    assert back.schema == fit.schema
    same(back, fit)
    assert str(jp.summary(back)) == str(jp.summary(fit))
    np.testing.assert_array_equal(back.predict(TABLE), fit.predict(TABLE))
    assert back.source is None
    assert file.stat().st_size < 12_000
    with pytest.raises(ValueError, match="expected one that refers to its data"):
        jp.sensitivity.influence(back)


def test_with_its_examples_it_can_be_asked_for_more(file):
    fit = jp.fit(logistic.model(), TABLE, Y, l2=1.0)
    back = jp.load(jp.save(fit, file, data=True))
    same(jp.sensitivity.influence(back), jp.sensitivity.influence(fit))


def test_what_is_made_of_the_examples_keeps_them(file):
    fit = jp.fit(kernel_density.model(bounds=(-9.0, None)), X)
    back = jp.load(jp.save(fit, file))
    same(back.log_prob(X), fit.log_prob(X))
    with pytest.raises(ValueError, match="no longer refers to its data"):
        jp.load(jp.save(fit, file, data=False)).log_prob(X)


def test_ten_thousand_fits_come_back(file):
    weights = RNG.integers(0, 3, (10_000, 40)).astype("float32")
    fits = jp.fit_many(logistic.model(), X, Y, weights=weights, l2=1.0)
    back = jp.load(jp.save(fits, file))
    same(back, fits)
    assert repr(back) == repr(fits)
    np.testing.assert_array_equal(back.lane(9_999).predict(X), fits.lane(9_999).predict(X))
    with pytest.raises(ValueError, match="data: expected one fit, got many"):
        jp.save(fits, file, data=True)


def test_float64_stays_float64(file, x64):
    fit = jp.fit(logistic.model(), X.astype(float), Y)
    jp.save(fit, file)
    with jax.enable_x64(False):
        assert jp.load(file).params.weights.dtype == np.float64
    same(jp.load(file), fit)


def own_init(key, x, y=None, weights=None):
    return jnp.zeros(x.shape[1], x.dtype)


def own_log_prob(params, x, y):
    return -((y - x @ params) ** 2) / 2


def test_functions_of_others_are_named_only_where_that_is_allowed(file):
    own = Model("own", Variables.conditional(Real()), own_init, own_log_prob)
    fit = jp.fit(own, X, X[:, 0])
    module = own_init.__module__
    with pytest.raises(
        TypeError, match="expected a model of jaxprob, got .*:own_init; pass allow="
    ):
        jp.save(fit, file)
    assert not file.exists()
    jp.save(fit, file, allow=(module,))
    with pytest.raises(ValueError, match=f"names {module}:own_init, which is not of jaxprob"):
        jp.load(file)
    same(jp.load(file, allow=(module,)), fit)


def test_a_file_is_replaced_in_one_step(file, monkeypatch):
    first, second = (jp.fit(logistic.model(), X, Y, l2=l2) for l2 in (1.0, 2.0))
    jp.save(first, file)

    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stops)
    with pytest.raises(KeyboardInterrupt):
        jp.save(second, file)
    same(jp.load(file), first)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_other_programs_can_read_it(file):
    """By the letter of the format, without our reader."""
    fit = jp.fit(logistic.model(), X, Y, l2=1.0)
    whole = jp.save(fit, file).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    entry = header["0"]
    start, stop = (8 + length + offset for offset in entry["data_offsets"])
    assert entry["dtype"] == "F32"
    np.testing.assert_array_equal(np.frombuffer(whole[start:stop], "<f4"), fit.params.weights)


def test_damaged_files_are_refused(file):
    """A thousand of them: cut off, changed, or with other names in them."""
    fit = jp.fit(logistic.model(), TABLE, Y, l2=1.0)
    whole = jp.save(fit, file).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for i in range(1_000):
        damaged = bytearray(whole)
        if i % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            for place in rng.integers(0, len(whole), rng.integers(1, 20)):
                damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            jp.load(file)  # a number that is another one cannot be seen
        except ValueError as error:
            refused += str(error).startswith(str(file))
    assert refused > 600


EVIL = {
    "a module": {"function": "os:system"},
    "a module of ours": {"function": "jaxprob.runtime.programs:keep_programs"},
    "through a module": {"function": "jaxprob.models.regression.logistic:jnp.save"},
    "a name inside": {"function": "jaxprob.models.regression.logistic:model.__globals__"},
    "a class": {"frozen": ["subprocess:Popen", {"args": "true"}]},
    "an enum": {"enum": ["jaxprob.contract.model:Model", "x"]},
    "a kind": {"eval": "1"},
    "two kinds": {"tuple": [], "dict": []},
    "nothing": {},
    "an array": {"array": "999"},
    "deep": None,
}


@pytest.mark.parametrize("name", EVIL)
def test_files_that_mean_harm_do_none(name, file, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    jp.save(jp.fit(logistic.model(), X, Y, l2=1.0), file)
    arrays, texts = tensors.read(file)
    found = json.loads(texts["fit"])
    found["model"] = EVIL[name]
    text = json.dumps(found)
    if name == "deep":
        text = text.replace('"model": null', '"model": ' + '{"tuple": [' * 50_000 + "]}" * 50_000)
    tensors.write(file, arrays, texts | {"fit": text})
    with pytest.raises(ValueError, match=file.name):
        jp.load(file)
    assert not ran


@pytest.mark.parametrize("header", [
    {"a": {"dtype": "F32", "shape": [2**50], "data_offsets": [0, 2**52]}},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
    {"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    {"a": {"dtype": "F32", "shape": "11", "data_offsets": [0, 4]}},
    {"__metadata__": {"format": 1}},
    [],
    "text",
    None,
])  # fmt: skip
def test_headers_that_lie(file, header):
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ValueError, match="expected a safetensors file, got one that is damaged"):
        jp.load(file)


def test_what_is_no_fit_or_of_another_version(file):
    with pytest.raises(TypeError, match="fit: expected what jaxprob.fit returns, got dict"):
        jp.save({}, file)
    tensors.write(file, {}, {"format": "pt"})
    with pytest.raises(ValueError, match="expected a file of jaxprob.save"):
        jp.load(file)
    tensors.write(file, {}, {"format": "jaxprob fit", "version": "99", "written_by": "jaxprob 9"})
    with pytest.raises(ValueError, match="expected version 1, got 99, written by jaxprob 9"):
        jp.load(file)
    with pytest.raises(FileNotFoundError):
        jp.load(file.parent / "missing")
    with pytest.raises(TypeError, match="allow: expected import paths"):
        jp.load(file, allow=(1,))


def test_a_file_can_be_read_by_whom_other_new_files_can(file):
    jp.save(jp.fit(logistic.model(), X, Y, l2=1.0), file)
    other = file.parent / "other"
    other.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_pickle_holds_no_examples_but_where_the_density_is_made_of_them():
    x, y = np.repeat(X, 100, axis=0), np.repeat(Y, 100)
    fit = jp.fit(logistic.model(), x, y, l2=1.0)
    small = pickle.dumps(fit)
    assert len(small) < 20_000
    back = pickle.loads(small)
    assert str(jp.summary(back)) == str(jp.summary(fit))
    assert Trait.SUM not in kernel_density.model().offers
    density = pickle.loads(pickle.dumps(jp.fit(kernel_density.model(), X)))
    assert density.log_prob(X).shape == (40,)
