"""Model files: archives of a header in JSON and one array a fitted attribute, which are read without trust.

A file is an .npz archive without pickle.  Its member `header` is a JSON text with the format, the class, the
constructor's arguments, the names of the columns and, if there are some, those of the labels.  Before an array is read,
its type and shape are compared with those that the arguments demand, so that a file never decides how much memory is
allocated.  If the training had not ended, the member `training` is a JSON text with its step, the checksum of its data
and its generator, and `training.*` are the arrays of its state.
"""

import contextlib
import glob
import io
import json
import math
import os
import secrets
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from scratchgen.augmentation import Deformations, Shifts
from scratchgen.models.training_state import TrainingState
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VE, VP, SubVP
from scratchgen.validation import Array

try:
    import fcntl
except ImportError:  # Windows refuses to delete a file that is open, which serves the same purpose
    fcntl = None  # type: ignore[assignment]

FORMAT = 5  # 4 had no histograms of classes, 3 no number of planned steps, and 2 no state of a training
LARGEST_NUMBER = 1e130  # in size; variances of the largest data that models accept, 1e60, are below it
LARGEST_HEADER = 2**23  # letters
LARGEST_TRAINING = 2**16  # letters; the state of MT19937 has 8000
MOST_BRACKETS = 2**17  # of a header, [ and {: an empty list takes 60 times the memory of its letters
LARGEST_POOL = 64  # words of a SeedSequence, whose time grows with their square; NumPy's default is 4
MOST_DEFLATED = 1032  # bytes that one byte of a deflated member can stand for
SHIPPED = ("digits-tables", "digits-vae", "digits-ddpm", "digits-sde")  # data/NAME.npz, by `benchmarks.pretrain`
# Classes of constructor arguments
CLASSES = {cls.__name__: cls for cls in (NoiseSchedule, VP, SubVP, VE, Shifts, Deformations)}
NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


FLOAT64 = ("float64",)


class ModelFileError(ValueError):
    """Error of a file that is damaged, that is no model of the class, or whose numbers no fit could have given."""


class Form(NamedTuple):
    """Types and shape that an array of a file must have; a length or a shape None is free."""

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...] | None


def _readable(value: Any) -> bool:
    """Whether all numbers of an array are finite, and at most 1e130 in size."""
    return bool((np.abs(np.asarray(value, dtype=np.float64)) <= LARGEST_NUMBER).all())


# --- writing ---------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], replace: bool = True) -> None:
    """Let `write` fill a temporary file, and rename it to `path`; after an error `path` is unchanged.

    A link is followed.  A new file has the permissions of the umask, and a file that is replaced keeps its own, see
    `_take_permissions`; the temporary file has them from the start.  Temporary files that a killed process left beside
    `path` are removed.

    Raises
    ------
    FileExistsError
        If `path` exists and `replace` is False, also if another process made it at this moment.
    ValueError
        If `path` is a device, a pipe or a link to itself, which a rename would destroy.
    """
    path = Path(os.path.realpath(path))
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"path {path} must be a file, not a device, a pipe or a link to itself; name another file")
    _sweep(path)
    temporary, file = _new_temporary(path)
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():  # it may have come or changed meanwhile
                _take_permissions(file, path)
            if fcntl is None:
                file.close()  # Windows renames closed files only; elsewhere the lock holds until the file has its name
            _rename(temporary, path, replace)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _rename(temporary: Path, path: Path, replace: bool) -> None:
    """Rename a file; unless `replace`, FileExistsError if the new name is taken."""
    if replace:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # at once, so that of two processes one fails
    except FileExistsError:
        raise FileExistsError(f"path {path} exists; pass overwrite=True to replace it") from None
    except OSError:  # a file system without hard links
        os.replace(temporary, path)


def _new_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """Create and lock an empty file beside `path`; the lock tells `_sweep` that its process is alive.

    Nobody can read the file who cannot read `path`.
    """
    replaces = path.exists()

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600 if replaces else 0o666)  # the system applies the umask

    while True:
        temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
        file = open(temporary, "xb", opener=create)  # noqa: SIM115 - the caller closes it
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():  # else another process swept the file before it was locked
            break
        file.close()
    if replaces:
        _take_permissions(file, path)
    return temporary, file


def _take_permissions(file: IO[bytes], path: Path) -> None:
    """Give an open file the permissions of `path`, and its owner and group where the process may.

    If the group cannot be kept, the file's group may do what all others may.
    """
    like = path.stat()
    mode = stat.S_IMODE(like.st_mode)
    if fcntl is None:  # Windows has no numbers of owners
        os.chmod(file.name, mode)
        return
    for owner in like.st_uid, -1:  # -1 leaves the owner
        with contextlib.suppress(OSError):
            os.fchown(file.fileno(), owner, like.st_gid)
            break
    if os.fstat(file.fileno()).st_gid != like.st_gid:
        mode = mode & ~0o070 | (mode & 0o007) << 3
    os.fchmod(file.fileno(), mode)  # after fchown, which may clear bits


def _sweep(path: Path) -> None:
    """Remove the temporary files of `path` that no process has locked."""
    for stale in path.parent.glob(f".{glob.escape(path.name[:60])}.????????.part"):
        with contextlib.suppress(OSError), open(stale, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stale.unlink()


def _sync_folder(folder: Path) -> None:
    """Wait until the folder's entry of a renamed file is on disk; systems that cannot do so are left alone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_model(
    path: Path,
    name: str,
    params: dict[str, Any],
    fitted: dict[str, Any],
    replace: bool,
    feature_names: Sequence[str] | None = None,
    state: TrainingState | None = None,
    label_names: Sequence[str] | None = None,
) -> None:
    """Write the arguments, the fitted attributes and the names of a model, and the state of its training."""
    values = fitted if state is None else fitted | {f"training.{key}": value for key, value in state.arrays.items()}
    for attribute, value in values.items():
        if not _readable(value):
            raise ArithmeticError(
                f"{attribute} must be finite, and at most {LARGEST_NUMBER:g} in size, so that no file is written; fit "
                "the model again"
            )
    header = {
        "format": FORMAT,
        "class": name,
        "params": {key: encode(value, key) for key, value in params.items()},
        "feature_names": None if feature_names is None else list(feature_names),
        "is_training": state is not None,  # a damaged zip directory may lose its last members
    }
    if label_names is not None:  # no key without names, as in files of versions that knew none
        header["label_names"] = list(label_names)
    text = json.dumps(header, allow_nan=False)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"the arguments and column names take {len(text)} letters, more than the {LARGEST_HEADER} of a file; pass "
            "smaller arrays, or shorter names"
        )
    if _n_brackets(text) > MOST_BRACKETS:
        raise ValueError(
            f"the arguments and column names have {_n_brackets(text)} brackets, [ or {{, more than the {MOST_BRACKETS} "
            "of a file; pass smaller arrays, or names without brackets"
        )
    arrays = {"header": np.array(text), **values}
    if state is not None:
        training = {"step": state.step, "checksum": state.checksum, "generator": _encode_state(state.generator)}
        arrays["training"] = np.array(json.dumps(training))
    try:
        _uninterrupted(lambda: write_atomically(path, lambda file: np.savez_compressed(file, **arrays), replace))
    except OSError as error:
        if error.errno is None:
            raise
        cause = f"{error.strerror}; pass a path in a folder that has room and in which you may make files"
        raise OSError(error.errno, cause, str(path)) from error  # not the name of the temporary file


def _uninterrupted(action: Callable[[], object]) -> None:
    """Run `action` in a thread of its own: Ctrl-C interrupts the main thread only, and here it waits for the end.

    An interpreter that shuts down, as in a function of `atexit`, starts no threads; `action` then runs in this one.
    """
    try:
        with ThreadPoolExecutor(1) as pool:
            try:
                future = pool.submit(action)
            except RuntimeError as error:
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise
                if sys.is_finalizing():  # in __del__, after NumPy and zipfile have lost their modules
                    raise RuntimeError(
                        "the interpreter has ended, so that no file is written; save before, or in a function of atexit"
                    ) from error
                action()
            else:
                future.result()
    except RuntimeError as error:  # Ctrl-C within a lock of the pool: "release unlocked lock"
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


# --- reading ---------------------------------------------------------------------------------------------------------


class Archive:
    """An open model file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip, self._n_bytes = zipfile.ZipFile(file), file.seek(0, os.SEEK_END)
        names = self._zip.namelist()
        if len(set(names)) < len(names):
            raise ModelFileError("a member occurs twice")
        self.members = {name.removesuffix(".npy") for name in names}
        if "header" not in self.members:
            raise ModelFileError("the header is missing")
        header = self._header()
        self.model: str = header["class"]
        self.params: dict[str, Any] = header["params"]  # the constructor's arguments as `encode` returned them
        self._names, self._label_names = header["feature_names"], header.get("label_names")
        if header["is_training"] != ("training" in self.members):
            raise ModelFileError("training: it must be there if is_training of the header is true, and only then")

    def feature_names(self, n_features: int) -> tuple[str, ...] | None:
        """Names of the columns; None if the model was trained without names."""
        names = self._names
        if names is None:
            return None
        if len(names) != n_features or not _are_names(names):
            raise ModelFileError(f"feature_names: null or {n_features} different texts are needed")
        return tuple(names)

    def label_names(self, n_labels: int) -> tuple[str, ...] | None:
        """Names of the labels; None if the file has none."""
        if self._label_names is None:
            return None
        names = tuple(self._label_names)
        if not names or len(names) != n_labels or not _are_names(names):
            raise ModelFileError(f"label_names: {n_labels} different texts are needed, or no such key")
        return names

    def _json(self, name: str, longest: int) -> Any:
        """The object of a member that is a JSON text of at most so many letters."""
        dtype, shape = self._form(name)
        if dtype.kind != "U" or shape != () or dtype.itemsize > 4 * longest:
            raise ModelFileError(f"{name}: a text of at most {longest} letters is needed, not {dtype.str} {shape}")
        text = str(self._read(name, dtype, shape))
        if _n_brackets(text) > MOST_BRACKETS:
            raise ModelFileError(f"{name}: it has more than {MOST_BRACKETS} brackets")
        return json.loads(text, object_pairs_hook=_unique)

    def _header(self) -> dict[str, Any]:
        """The header after a check of its form."""
        match header := self._json("header", LARGEST_HEADER):
            case {
                "format": format_,
                "class": str(),
                "params": dict(),
                "feature_names": None | list(),
                "is_training": bool(),
                **rest,
            } if format_ == FORMAT and rest.keys() <= {"label_names"} and isinstance(rest.get("label_names", []), list):
                return dict(header)
            case {"class": str(), "params": dict()} if header.get("format", 1) != FORMAT:
                raise ModelFileError(
                    f"header: this version reads format {FORMAT}, the file has format {header.get('format', 1)}; "
                    "fit the model again"
                )
        raise ModelFileError(
            "header: it must hold format, class, params, feature_names and is_training, and may hold label_names"
        )

    def arrays(self, forms: dict[str, Form]) -> dict[str, Any]:
        """Read the arrays of these names after all of their forms were compared; arrays without axes become numbers."""
        found = {name: self._form(name) for name in forms if name in self.members}
        for name, form in forms.items():
            if name not in found:
                raise ModelFileError(f"{name}: it is missing")
            dtype, shape = found[name]
            if not _fits(shape, form.shape):
                raise ModelFileError(f"{name}: shape {_text(form.shape)} is needed, not {shape}")
            if dtype.name not in form.dtypes or not dtype.isnative:
                raise ModelFileError(f"{name}: dtype {' or '.join(form.dtypes)} is needed, not {dtype.str}")
        arrays = {name: self._read(name, *found[name]) for name in forms}
        for name, array in arrays.items():
            if not _readable(array):
                raise ModelFileError(f"{name}: it must be finite, and at most {LARGEST_NUMBER:g} in size")
        return {name: array.item() if array.ndim == 0 else array for name, array in arrays.items()}

    def training(self) -> TrainingState | None:
        """State of a training that has not ended, without its arrays; None if there is no member `training`."""
        if "training" not in self.members:
            return None
        match training := self._json("training", LARGEST_TRAINING):
            case {"step": int(step), "checksum": str(data), "generator": dict(generator)} if len(training) == 3:
                return TrainingState(step, data, dict(_decode_generator(generator).bit_generator.state), {})
        raise ModelFileError("training: it must hold step, checksum and generator")

    def only(self, names: set[str]) -> None:
        """Raise ModelFileError for a member of another name."""
        if unknown := sorted(self.members - names):
            raise ModelFileError(f"{unknown[0]}: no such model has this member")

    def _form(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """dtype and shape of a member from its first bytes; ModelFileError unless they agree with the member's size."""
        info = self._zip.getinfo(f"{name}.npy")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelFileError(f"{name}: compression {info.compress_type} is neither stored nor deflated")
        if info.file_size > MOST_DEFLATED * info.compress_size or info.compress_size > self._n_bytes:
            raise ModelFileError(f"{name}: {info.file_size} bytes cannot come from a file of {self._n_bytes} bytes")
        with self._zip.open(info) as stream:
            start = io.BytesIO(stream.read(2**14))
        if npy.read_magic(start) != (1, 0):
            raise ModelFileError(f"{name}: version 1.0 of .npy is needed")
        shape, _, dtype = npy.read_array_header_1_0(start)
        if dtype.kind not in "biufU":
            raise ModelFileError(f"{name}: dtype {dtype} is none of numbers (allow_pickle is False)")
        size = dtype.itemsize * math.prod(shape)
        if start.tell() + size != info.file_size:
            raise ModelFileError(f"{name}: shape {shape} takes {size} bytes, not {info.file_size - start.tell()}")
        return dtype, shape

    def _read(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        with self._zip.open(f"{name}.npy") as stream:
            array = npy.read_array(stream, allow_pickle=False)
            if stream.read(1):  # the end of the member, where zipfile compares the checksum
                raise ModelFileError(f"{name}: bytes are left after the array")
        if array.dtype != dtype or array.shape != shape:
            raise ModelFileError(f"{name}: it changed while it was read")
        return np.ascontiguousarray(array).reshape(shape)


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path; TypeError unless it is text or a Path, ValueError if no file can have this name."""
    text: object = path.__fspath__() if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"path must be text or a pathlib.Path, got {text!r:.60}; pass 'model.npz'")
    if not text or text[-1] in ("/", os.sep):
        raise ValueError(f"path must name a file, got {text!r}; pass 'model.npz'")
    path = Path(text)
    try:
        right = "\0" not in str(path) and all(len(os.fsencode(part)) <= 255 for part in path.parts)
    except UnicodeEncodeError:  # a lone surrogate
        right = False
    if not right:
        raise ValueError(
            "path must be the name of a file, of at most 255 bytes a part without NUL or lone surrogates, got "
            f"{str(path)!r:.60}; pass 'model.npz'"
        )
    if path.is_dir():
        raise IsADirectoryError(f"path {path} is a folder; name a file in it, such as {path / 'model.npz'}")
    return path


@contextlib.contextmanager
def model_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the file of a path or, if there is no such file, of a trained model of the package with this name."""
    if (path := as_path(path)).exists():
        yield path
    elif str(path) in SHIPPED:
        with as_file(files("scratchgen").joinpath("data", f"{path}.npz")) as file:
            yield file
    else:
        raise FileNotFoundError(
            f"path {path} does not exist; look for a wrong folder or a missing .npz, or name a trained model of the "
            f"package: {', '.join(SHIPPED)}"
        )


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """Open a model file; every error of a damaged file becomes a ModelFileError that names the path."""
    with model_file(path) as found:
        if not found.is_file():  # a pipe would never end
            raise ModelFileError(
                f"path {path} is not a model saved by scratchgen: it is a device or a pipe, not a file"
            )
        with open(found, "rb") as file:
            try:
                yield Archive(file)
            except Exception as error:  # zipfile, zlib, json and constructors raise more than ten classes of errors
                cause = str(error) or type(error).__name__
                raise ModelFileError(f"path {path} is not a model saved by scratchgen: {cause}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict; ModelFileError if a key occurs twice."""
    if len(unique := dict(pairs)) < len(pairs):
        raise ModelFileError("header: a key occurs twice")
    return unique


def _are_names(values: Sequence[Any]) -> bool:
    """Whether all values are texts, and different ones."""
    return all(isinstance(value, str) for value in values) and len(set(values)) == len(values)


def _n_brackets(text: str) -> int:
    """Number of brackets, which is at least the number of lists and objects of a JSON text."""
    return text.count("[") + text.count("{")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    """Whether a shape has the wanted lengths."""
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(want in (None, got) for got, want in zip(shape, wanted, strict=True))


def _text(shape: tuple[int | None, ...] | None) -> str:
    return str(shape).replace("None", "any")


# --- constructor arguments as JSON -----------------------------------------------------------------------------------


def encode(value: Any, name: str) -> Any:
    """Convert the constructor argument `name` to JSON types; TypeError for types other than those below."""
    match value:
        case np.ndarray() if value.dtype.name in NUMBERS:
            return {"array": value.tolist(), "dtype": value.dtype.name}
        case np.generic() if value.dtype.name in NUMBERS:
            return value.item()
        case np.random.Generator():
            return encode(value.bit_generator, name)
        case np.random.BitGenerator() if type(value).__name__ in STATES:
            return {"generator": _encode_state(value.state)}
        case np.random.SeedSequence() if value.pool_size <= LARGEST_POOL:
            return {"seed_sequence": _encode_state(value.state)}
        case tuple() | range():
            return {"tuple": [encode(v, name) for v in value]}
        case list():
            return [encode(v, name) for v in value]
        case None | bool() | int() | float() | str():
            return value
        case _ if CLASSES.get(type(value).__name__) is type(value):
            given = {f.name: encode(getattr(value, f.name), f"{name}.{f.name}") for f in fields(value) if f.init}
            return {"object": type(value).__name__, "fields": given}
    raise TypeError(
        f"{name} cannot be saved, since its type is {type(value).__name__}; fit with numbers, arrays, lists, tuples, a "
        f"generator of NumPy, a SeedSequence of pool_size {LARGEST_POOL} at most, or one of {', '.join(CLASSES)}"
    )


def is_same(a: Any, b: Any) -> bool:
    """Whether two values of a constructor argument are equal; generators, whose state changes, must be the same."""
    if a is b:
        return True
    if isinstance(a, np.random.Generator | np.random.BitGenerator):
        return False
    try:
        return bool(encode(a, "") == encode(b, ""))
    except TypeError:  # a value that no file can hold
        return False


def decode(value: Any, name: str) -> Any:
    """Invert `encode` for the argument `name`; ModelFileError if the value is none that `encode` returns."""
    match value:
        case list():
            return [decode(v, name) for v in value]
        case float() if not math.isfinite(value):
            raise ModelFileError(f"argument {name}: {value} is not finite")
        case None | bool() | int() | float() | str():
            return value
        case {"array": list() | int() | float() as array, "dtype": str(dtype), **rest} if not rest and dtype in NUMBERS:
            if not np.isfinite(decoded := np.asarray(array, dtype=dtype)).all():
                raise ModelFileError(f"argument {name}: it must be finite")
            return decoded
        case {"tuple": list(items), **rest} if not rest:
            return tuple(decode(v, name) for v in items)
        case {"generator": dict(state), **rest} if not rest:
            return _decode_generator(state)
        case {"seed_sequence": dict(state), **rest} if not rest:
            return _decode_seed_sequence(state)
        case {"object": str(cls), "fields": dict(given), **rest} if not rest and cls in CLASSES:
            return CLASSES[cls](**{key: decode(v, f"{name}.{key}") for key, v in given.items()})
    raise ModelFileError(f"argument {name}: {str(value)[:60]} is no number, array or object of a model")


# --- generators ------------------------------------------------------------------------------------------------------

# States of NumPy's generators: n for an int in 0..n−1, (m, n) for m of them.  NumPy's C code trusts a state: with a
# position beyond the end of a table it reads memory that is not its own.
_REST = {"has_uint32": 2, "uinteger": 2**32}
_PCG = {"state": {"state": 2**128, "inc": 2**128}, **_REST}
STATES: dict[str, dict[str, Any]] = {
    "PCG64": _PCG,
    "PCG64DXSM": _PCG,
    "MT19937": {"state": {"key": (624, 2**32), "pos": 625}},
    "Philox": {"state": {"counter": (4, 2**64), "key": (2, 2**64)}, "buffer": (4, 2**64), "buffer_pos": 5, **_REST},
    "SFC64": {"state": {"state": (4, 2**64)}, **_REST},
}


def _encode_state(state: Any) -> Any:
    """A generator's state with lists and ints in place of arrays and NumPy's numbers."""
    if isinstance(state, dict):
        return {key: _encode_state(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _decode_generator(state: dict[str, Any]) -> np.random.Generator:
    """The generator of a state after every number was checked."""
    kind = state.get("bit_generator")
    if not isinstance(kind, str) or kind not in STATES:
        raise ModelFileError(f"generator: bit_generator must be one of {', '.join(STATES)}, got {str(kind)[:60]!r}")
    given = {key: value for key, value in state.items() if key != "bit_generator"}
    checked = _check_state(given, STATES[kind], "generator")
    _check_period(kind, checked["state"])
    bits = getattr(np.random, kind)(0)
    bits.state = {"bit_generator": kind, **checked}
    return np.random.Generator(bits)


def _decode_seed_sequence(state: dict[str, Any]) -> np.random.SeedSequence:
    """The SeedSequence of a state after every number was checked."""
    match state:
        case {"entropy": entropy, "spawn_key": list(key), "pool_size": int(pool), "n_children_spawned": int(n)}:
            words = [*(entropy if isinstance(entropy, list) else [entropy]), *key]
            right = len(state) == 4 and all(type(word) is int and word >= 0 for word in words)
            if right and 4 <= pool <= LARGEST_POOL and 0 <= n < 2**32:
                return np.random.SeedSequence(entropy, spawn_key=key, pool_size=pool, n_children_spawned=n)
    raise ModelFileError(
        f"seed_sequence: entropy, spawn_key and n_children_spawned of ints from 0 and pool_size in 4..{LARGEST_POOL} "
        f"are needed, got {str(state)[:60]}"
    )


def _check_period(kind: str, state: dict[str, Any]) -> None:
    """Raise ModelFileError for a state of numbers in range that NumPy's generators never reach.

    The period of PCG64 and PCG64DXSM is 2¹²⁸ for an odd inc only.  MT19937 gives zeros for ever if its 19937 bits, the
    first one of key[0] and those of key[1] … key[623], are 0.  The counters of Philox and SFC64 leave every state.
    """
    if kind in ("PCG64", "PCG64DXSM") and state["inc"] % 2 == 0:
        raise ModelFileError(f"generator.state.inc: an odd int is needed, got {state['inc']}")
    if kind == "MT19937" and state["key"][0] < 2**31 and not state["key"][1:].any():
        raise ModelFileError("generator.state.key: not all of its bits may be 0; the draws would be 0 for ever")


def _check_state(state: Any, form: Any, name: str) -> Any:
    """Return `state`, with arrays in place of lists, if it has the form; raise ModelFileError otherwise."""
    if isinstance(form, dict):
        if not isinstance(state, dict) or state.keys() != form.keys():
            raise ModelFileError(f"{name}: it must hold {', '.join(form)}")
        return {key: _check_state(state[key], part, f"{name}.{key}") for key, part in form.items()}
    length, limit = form if isinstance(form, tuple) else (1, form)
    numbers = state if isinstance(form, tuple) else [state]
    if not isinstance(numbers, list) or len(numbers) != length or not all(_is_below(n, limit) for n in numbers):
        raise ModelFileError(f"{name}: {length} int(s) in 0..{limit - 1} are needed, got {str(state)[:60]}")
    return np.array(numbers, dtype=np.uint64) if isinstance(form, tuple) else state


def _is_below(number: Any, limit: int) -> bool:
    return type(number) is int and 0 <= number < limit
