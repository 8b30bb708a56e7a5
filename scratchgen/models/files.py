"""Files of models: constructor arguments as JSON, and atomic writing."""

import importlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file, and rename it to `path`; after an error `path` is unchanged."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)  # files of mkstemp are readable by their owner only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def encode(value: Any) -> Any:
    """Convert a constructor argument to JSON types; TypeError for types other than those below."""
    match value:
        case np.ndarray():
            return {"array": value.tolist(), "dtype": str(value.dtype)}
        case np.generic():
            return value.item()
        case np.random.Generator():
            return {"generator": encode(value.bit_generator.state)}
        case dict():
            return {"dict": {key: encode(v) for key, v in value.items()}}
        case tuple():
            return {"tuple": [encode(v) for v in value]}
        case list():
            return [encode(v) for v in value]
        case None | bool() | int() | float() | str():
            return value
        case _ if is_dataclass(value) and type(value).__module__.startswith("scratchgen."):
            given = {f.name: encode(getattr(value, f.name)) for f in fields(value) if f.init}
            return {"object": [type(value).__module__, type(value).__name__], "fields": given}
    raise TypeError(f"cannot save a parameter of type {type(value).__name__}; use numbers, arrays or library objects")


def decode(value: Any) -> Any:
    """Invert `encode`; ValueError if the value names a class that is not part of a model."""
    match value:
        case list():
            return [decode(v) for v in value]
        case {"array": array, "dtype": dtype}:
            return np.asarray(array, dtype=dtype)
        case {"tuple": items}:
            return tuple(decode(v) for v in items)
        case {"generator": state}:
            state = decode(state)
            bits = _our_class(np.random, state["bit_generator"], np.random.BitGenerator)()
            bits.state = state
            return np.random.Generator(bits)
        case {"dict": items}:
            return {key: decode(v) for key, v in items.items()}
        case {"object": [module, name], "fields": given}:
            if not module.startswith("scratchgen."):
                raise ValueError(f"the file names an object of {module}, which no model here has; do not trust it")
            return _our_class(importlib.import_module(module), name)(**{key: decode(v) for key, v in given.items()})
    return value


def _our_class(module: ModuleType, name: str, base: type = object) -> Any:
    """The dataclass or bit generator of a given name; other names are refused, since a file must not call functions."""
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, base) or not (is_dataclass(found) or base is not object):
        raise ValueError(f"the file names {module.__name__}.{name}, which no model here has; do not trust it")
    return found
