"""Arrays in a file: the safetensors format, which holds numbers and text, and no code.

A file is a length (8 bytes, little-endian), a JSON object of so many bytes, and the numbers:

    {"__metadata__": {name: text},
     name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, ...}

Offsets count from the end of the JSON; arrays follow each other without a gap, and end the file.

Source: https://github.com/huggingface/safetensors, format.
"""

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_DAMAGES = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
_LENGTH = 8  # bytes that say how long the JSON is
_MOST_JSON = 100 << 20


def write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Write a file in one step: whoever reads it sees all of it, or what was there before.

    Args:
        path: of the file, which is replaced where it is there.
        arrays: by name.
        texts: by name.

    Raises:
        TypeError: for an array of a dtype that the format has not.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "some.safetensors"
        >>> write(file, {"a": np.arange(3.0)}, {"kind": "test"})
        >>> read(file)[0]["a"].tolist(), read(file)[1]
        ([0.0, 1.0, 2.0], {'kind': 'test'})
    """
    header: dict[str, Any] = {"__metadata__": dict(texts)}
    start = 0
    for name, a in arrays.items():
        dtype = a.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise TypeError(f"{name}: expected an array of numbers, got dtype {a.dtype}")
        offsets = [start, start + a.nbytes]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(a.shape), "data_offsets": offsets}
        start += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _LENGTH)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(len(text).to_bytes(_LENGTH, "little") + text)
            for a in arrays.values():
                file.write(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file; nothing in it is run, and no more memory taken than it has bytes.

    Args:
        path: of the file.

    Returns:
        Arrays and texts by name.

    Raises:
        ValueError: for what is no such file, or is damaged.
        OSError: where it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "some.safetensors"
        >>> _ = file.write_bytes(b"something else")
        >>> read(file)
        Traceback (most recent call last):
        ValueError: ...
    """
    whole = path.read_bytes()
    try:
        return _parsed(whole)
    except _DAMAGES as error:
        raise ValueError(
            f"{path}: expected a safetensors file, got one that is damaged, cut off, or of another "
            f"kind ({error})"
        ) from None


def _parsed(whole: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    length = int.from_bytes(whole[:_LENGTH], "little")
    if len(whole) < _LENGTH or length > min(_MOST_JSON, len(whole) - _LENGTH):
        raise ValueError("its header is longer than the file")
    header = json.loads(whole[_LENGTH : _LENGTH + length].decode())
    texts = header.pop("__metadata__", {})
    if not all(isinstance(text, str) for text in (*texts.keys(), *texts.values())):
        raise ValueError("its metadata are no text")
    data, arrays, end = memoryview(whole)[_LENGTH + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name} has shape {shape}")
        start, stop = entry["data_offsets"]
        if start != end or stop - start != dtype.itemsize * math.prod(shape) or stop > len(data):
            raise ValueError(f"{name} is not where the header says")
        arrays[name] = np.frombuffer(data[start:stop], dtype).reshape(shape)
        if dtype.kind == "b" and np.any(arrays[name].view(np.uint8) > 1):
            raise ValueError(f"{name} holds no bools")
        end = stop
    if end != len(data):
        raise ValueError("there is something after the last array")
    return arrays, texts
