"""Fits in files, which hold numbers, settings and names, and no code."""

import json
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxprob.contract import Trait
from jaxprob.data.loading import load as on_device
from jaxprob.files.structure import Decoder, Encoder
from jaxprob.files.tensors import read, write
from jaxprob.fit import Fit, Source
from jaxprob.fit.result import kept_of

_VERSION = 1
_PARTS = tuple(f.name for f in fields(Fit) if f.name not in ("source", "cache"))


def save(
    fit: Fit, path: str | Path, *, data: bool | None = None, allow: tuple[str, ...] = ()
) -> Path:
    """Write a fit to a file, in one step, from which `load` brings it back.

    What the file holds: parameters, status and evidence, the model by its settings and the names of
    its functions, names of columns and classes; of one fit also what its standard errors need. It
    is a safetensors file, which other programs can read.

    Args:
        fit: one, or many.
        path: of the file, by habit with the suffix .safetensors; it is replaced where it is there.
        data: whether to keep the examples, too; where None, for models whose density is made of
            them, such as kernel densities.
        allow: modules of your own whose functions the model is made of, by import path.

    Returns:
        The path.

    Raises:
        TypeError: for what is no fit, and for a model with functions from elsewhere.
        ValueError: where the examples are wanted of a fit that no longer has them, or of many.

    Example:
        >>> import tempfile
        >>> import jaxprob as jp
        >>> x, y = [[-2.0], [-1.0], [0.0], [1.0], [2.0]], ["no", "no", "yes", "no", "yes"]
        >>> fit = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
        >>> file = save(fit, Path(tempfile.mkdtemp()) / "fit.safetensors")
        >>> load(file).predict([[3.0]]).tolist()
        ['yes']
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"fit: expected what jaxprob.fit returns, got {type(fit).__name__}")
    path, encoder = Path(path).expanduser(), Encoder(_checked(allow))
    parts = {name: getattr(fit, name) for name in _PARTS} | {"kept": kept_of(fit)}
    source = _source(fit, data)
    found = {name: encoder.encode(part) for name, part in parts.items()}
    found["source"] = None if source is None else encoder.encode(tuple(source[1:6]))
    texts = {"format": "jaxprob fit", "version": str(_VERSION), "fit": json.dumps(found)}
    texts["written_by"] = f"jaxprob {metadata.version('jaxprob')}"
    write(path, encoder.arrays, texts)
    return path


def load(path: str | Path, *, allow: tuple[str, ...] = ()) -> Fit:
    """Read a fit from a file that `save` has written. No code in it is run: there is none.

    Args:
        path: of the file.
        allow: modules beyond jaxprob that the file may name, by import path; they are imported.

    Returns:
        The Fit. Without the examples it cannot be asked for `jaxprob.sensitivity` and the like.

    Raises:
        ValueError: for a file that is damaged, cut off or of another kind, that a later version has
            written, or that names a module which is not allowed.
        OSError: where it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "fit.safetensors"
        >>> _ = file.write_text("something else")
        >>> load(file)
        Traceback (most recent call last):
        ValueError: ...
    """
    path, trusted = Path(path).expanduser(), _checked(allow)
    arrays, texts = read(path)
    if texts.get("format") != "jaxprob fit":
        raise ValueError(f"{path}: expected a file of jaxprob.save, got another safetensors file")
    if texts.get("version") != str(_VERSION):
        raise ValueError(
            f"{path}: expected version {_VERSION}, got {texts.get('version')}, written by "
            f"{texts.get('written_by')}; install that version of jaxprob"
        )
    with jax.enable_x64(True):  # arrays keep their dtypes, whatever is computed in here
        loaded = dict(zip(arrays, on_device(list(arrays.values())), strict=True))
    decoder = Decoder(loaded, trusted)
    try:
        found = json.loads(texts["fit"])
        source = found.pop("source")
        fit = Fit(**{name: decoder.decode(part) for name, part in found.items()})
        if source is not None:
            fit = replace(fit, source=Source(fit.model, *decoder.decode(source)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ImportError) as error:
        raise ValueError(f"{path}: expected a fit, got a file that is damaged: {error}") from None
    return fit


def _checked(allow: Any) -> tuple[str, ...]:
    names = (allow,) if isinstance(allow, str) else tuple(allow)
    if not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"allow: expected import paths of modules, got {allow!r}")
    return names


def _source(fit: Fit, wanted: bool | None) -> Source | None:
    needed = Trait.SUM not in fit.model.offers
    if wanted is False or (wanted is None and not needed):
        return None
    if isinstance(fit.source, Source):
        return fit.source
    if fit.source is None:
        raise ValueError("data: expected a fit that refers to its examples; this one does not")
    raise ValueError("data: expected one fit, got many; save fits.lane(i), or pass data=False")
