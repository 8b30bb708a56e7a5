"""Damaged and crafted model files: byte flips, truncations, and mutations of the structure with right checksums."""

import contextlib
import copy
import importlib.util
import io
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from scratchgen.models import files as model_files
from scratchgen.models.files import ModelFileError
from tests.reliability.models import KINDS, archive, data, file_of, fitted, members, npy, numbers, said
from tests.reliability.report import Figure

MOST_MEMORY = 256 * 2**20
LENGTHS = ("n_steps", "max_iter", "n_init", "batch_size")  # arguments that make a training long


def outcome(kind, content, folder):
    """The outcome of loading a file, and the largest memory that `load` took, bytes.

    "refused": ModelFileError.  "same": the model of the untouched file.  "other": another model that works, as a file
    with another learning rate gives.  "wrong": a model that returns NaN or raises a raw error.  Else the name of a raw
    error of `load`.
    """
    path = Path(folder) / "model.npz"
    path.write_bytes(content)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        model = type(fitted(kind)).load(path)
    except ModelFileError as error:
        return "refused" if str(path) in str(error) else "without path", tracemalloc.get_traced_memory()[1] - before
    except Exception as error:
        return f"raw {type(error).__name__}", tracemalloc.get_traced_memory()[1] - before
    memory = tracemalloc.get_traced_memory()[1] - before
    if numbers(model) == numbers(fitted(kind)):
        return "same", memory
    try:
        getattr(model, "decoder_variance_", None)
        if getattr(model, "n_sample_steps", 1) < 1000 and not np.isfinite(np.frombuffer(said(model, 2))).all():
            return "wrong NaN", memory
        again = Path(folder) / "again.npz"
        model.save(again, overwrite=True)
        again = type(model).load(again)
        if model.training_state_ is not None and all(getattr(model, name, 1) < 1000 for name in LENGTHS):
            with contextlib.suppress(TypeError):  # an argument that `fit` refuses as well
                again.resume(data(model))
    except np.linalg.LinAlgError:  # a ValueError, which names a matrix that the caller does not know
        return "wrong LinAlgError", memory
    except (ArithmeticError, ValueError):
        return "other", memory  # a clear error of `sample`, `elbo` or `resume`
    except Exception as error:
        return f"wrong {type(error).__name__}", memory
    return "other", memory


def tally(cases):
    """Outcomes of (kind, content) pairs, and the largest memory."""
    found, most = Counter(), 0
    tracemalloc.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for kind, content in cases:
                word, memory = outcome(kind, content, folder)
                found[word] += 1
                most = max(most, memory)
    finally:
        tracemalloc.stop()
    return found, most


def figure(name, found, most, allowed, weakest):
    """A line of the table from a tally."""
    words = ", ".join(f"{count} {word}" for word, count in found.most_common())
    held = set(found) <= allowed and most <= MOST_MEMORY
    target = f"{' or '.join(['ModelFileError', *sorted(allowed - {'refused'})])}; at most 256 MiB"
    return Figure(name, target, f"{words}; {most / 2**20:.1f} MiB", held, weakest)


# --- flips and truncations -------------------------------------------------------------------------------------------


def flips(n, seed=0):
    """n files with one byte changed."""
    rng = random.Random(seed)
    for _ in range(n):
        kind = rng.choice(list(KINDS))
        content = bytearray(file_of(kind))
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        yield kind, bytes(content)


def truncations(n, seed=0):
    """n files cut short."""
    rng = random.Random(seed)
    for _ in range(n):
        kind = rng.choice(list(KINDS))
        yield kind, file_of(kind)[: rng.randrange(len(file_of(kind)))]


# --- mutations of the structure --------------------------------------------------------------------------------------

VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 7, 10**6, 10**9, 10**30, -0.0, 0.5, 1e-300, 1e300, 1e999, "", "full", "diag",
    "levels", "float64", "x" * 1000, [], [1], [10**9], [[1, 2], [3]], {}, {"tuple": [10**6] * 2}, {"tuple": [4, "x"]},
    {"array": [1.0, 2.0], "dtype": "float64"}, {"array": [[1, 2], [3]], "dtype": "float64"},
    {"array": "x", "dtype": "float64"}, {"array": [1], "dtype": "object"}, {"array": [1], "dtype": "complex128"},
    {"object": "VP", "fields": {}}, {"object": "VE", "fields": {"std_min": -1.0}}, {"object": "VAE", "fields": {}},
    {"object": "NoiseSchedule", "fields": {"variances": {"array": [0.5] * 10, "dtype": "float64"}}},
    {"object": ["os", "getcwd"], "fields": {}}, {"generator": {}}, {"generator": {"bit_generator": "default_rng"}},
    {"generator": {"bit_generator": "PCG64", "state": {"state": -1, "inc": 3}, "has_uint32": 0, "uinteger": 0}},
    {"generator": {"bit_generator": "PCG64", "state": {"state": 0, "inc": 0}, "has_uint32": 0, "uinteger": 0}},
    {"generator": {"bit_generator": "MT19937", "state": {"key": [1] + [0] * 623, "pos": 624}}},
    {"seed_sequence": {"entropy": 1, "spawn_key": [], "pool_size": 10**9, "n_children_spawned": 0}},
    {"seed_sequence": {"entropy": [1, "x"], "spawn_key": [None], "pool_size": 4, "n_children_spawned": 0}},
    {"generator": {"bit_generator": "MT19937", "state": {"key": [1] * 624, "pos": 2**31 - 1}}},
    {"generator": {"bit_generator": "MT19937", "state": {"key": [1] * 623, "pos": 1}}},
    {"generator": {"bit_generator": "Philox", "state": {"counter": [0] * 4, "key": [0] * 2}, "buffer": [0] * 4,
                   "buffer_pos": -5, "has_uint32": 0, "uinteger": 0}},
]  # fmt: skip


NAMES = [["a", "b", "c"], ["a", "b"], ["a", "a", "b"], ["a", "b", 3], ["a", "b", None], ["", "\ud800", "a\0"], "abc"]


def any_value(rng):
    """A copy of one of `VALUES`, which later changes may change."""
    return copy.deepcopy(rng.choice(VALUES))


def change_argument(rng, header, parts):
    """Replace, drop or add an argument, or change a number inside one."""
    params = header["params"]
    name = rng.choice(list(params))
    match rng.randrange(5):
        case 0:
            del params[name]
        case 1:
            params["nonsense"] = any_value(rng)
        case 2 if isinstance(params[name], dict):
            change_inside(rng, params[name])
        case _:
            params[name] = any_value(rng)


def change_inside(rng, value):
    """Change one entry of nested dicts and lists."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
            value = value[key]
            continue
        value[key] = value[key] + 1 if isinstance(value[key], int) and rng.random() < 0.1 else any_value(rng)
        return


def change_header(rng, header, parts):
    """Change format, class or column names, or drop, add or replace a part of the header."""
    match rng.randrange(6):
        case 0:
            header["format"] = any_value(rng)
        case 1:
            header["class"] = rng.choice([any_value(rng), "PPCA", "DDPM", "object"])
        case 2:
            del header[rng.choice(list(header))]
        case 3:
            header["more"] = 1
        case 4:
            header["feature_names"] = rng.choice([any_value(rng), *NAMES])
        case _:
            header["params"] = any_value(rng)


def change_training(rng, header, parts):
    """Change step, checksum or generator of a training that has not ended, or add such a training."""
    training = {"step": 1, "checksum": "", "generator": any_value(rng)}
    if "training" in parts:
        training = json.loads(str(np.load(io.BytesIO(parts["training"]))))
        match rng.randrange(3):
            case 0:
                change_inside(rng, training)
            case 1:
                training[rng.choice([*training, "more"])] = any_value(rng)
            case _:
                del training[rng.choice(list(training))]
    parts["training"] = npy(np.array(json.dumps(training)))


def change_array(rng, header, parts):
    """Change an array's numbers, type, shape or order."""
    name = rng.choice(list(parts))
    array = np.load(io.BytesIO(parts[name]))
    flat = array.reshape(-1).copy()
    at = rng.randrange(flat.size) if flat.size else 0
    with np.errstate(all="ignore"):
        match rng.randrange(16):
            case 0 | 1 | 2 | 3 if flat.size and flat.dtype.kind == "f":
                flat[at] = rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, -1e300, 5e-324])
                new = flat.reshape(array.shape)
            case 4:
                new = array.astype(rng.choice(["complex128", "float16", "float32", "float64", "int64", "bool", "U7"]))
            case 5:
                new = array.astype(array.dtype.newbyteorder(">"))
            case 6:
                new = flat[:1].reshape((1,) * max(array.ndim, 1))
            case 7:
                new = flat
            case 8:
                new = array[None]
            case 9:
                new = array.reshape(-1)[: max(flat.size - 1, 0)]
            case 10:
                new = np.concatenate([flat, flat])
            case 11:
                new = np.zeros((0,) * max(array.ndim, 1), array.dtype)
            case 12:
                new = np.asfortranarray(array)
            case 13:
                new = -array if array.dtype.kind in "fi" else ~array
            case 14:
                new = np.array(7) if array.ndim else np.array([[7.0]])
            case _:
                new = np.zeros_like(array)
    parts[name] = npy(new)


def change_members(rng, header, parts):
    """Drop, add, swap or corrupt members."""
    names = list(parts)
    name, other = rng.choice(names), rng.choice(names)
    match rng.randrange(6):
        case 0:
            del parts[name]
        case 1:
            parts[rng.choice(["more", "../../evil", "/evil", "header2", "a/b"])] = parts[name]
        case 2:
            parts[name], parts[other] = parts[other], parts[name]
        case 3:
            content = bytearray(parts[name])
            content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
            parts[name] = bytes(content)
        case 4:
            parts[name] = parts[name][: rng.randrange(len(parts[name]))]
        case _:
            parts[name] += bytes(rng.randrange(1, 100))


def claim_size(rng, header, parts):
    """Let an array's first bytes claim a shape of up to 10¹² numbers."""
    name = rng.choice(list(parts))
    dtype = np.load(io.BytesIO(parts[name])).dtype
    shape = rng.choice([(10**9,), (10**6, 10**6), (2**40,), (2**63, 2), (-1,), (10**9, 0), (3, 3, 3)])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    parts[name] = buffer.getvalue() + bytes(rng.randrange(64))


CHANGES = [
    change_argument,
    change_argument,
    change_header,
    change_training,
    change_array,
    change_array,
    change_array,
    change_members,
    claim_size,
]


def mutations(n, seed=0):
    """n files with one to three changes of their structure, and right checksums."""
    rng = random.Random(seed)
    for _ in range(n):
        kind = rng.choice(list(KINDS))
        header, parts = members(file_of(kind))
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            try:
                rng.choice(CHANGES)(rng, header, parts)
            except Exception:  # a second change met what the first had broken
                continue
        compression = rng.choice([zipfile.ZIP_DEFLATED] * 8 + [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
        text = json.dumps(header) if rng.random() < 0.98 else rng.choice(["", "[" * 10**5, "null", "{}", "1"])
        yield kind, archive(text, parts, compression)


def bombs():
    """Small files that name large networks, tables and arrays."""
    for kind in KINDS:
        header, parts = members(file_of(kind))
        for name in header["params"]:
            for large in 10**5, 10**9, {"tuple": [10**5, 10**5]}, [10**5] * 50:
                yield kind, archive({**header, "params": {**header["params"], name: large}}, parts)
        for name in parts:
            yield kind, archive(header, {**parts, name: npy(np.zeros(2**18))})


def headers():
    """Headers of the largest size whose JSON takes the most memory: lists, objects, texts, numbers and keys."""
    header, parts = members(file_of("PPCA"))
    text, wide = json.dumps(header), '["\U0001f600"]'  # a wide letter lets every letter take four bytes
    head, tail = text.replace('"feature_names": null', f'"feature_names": {wide}').split('"verbose": false')
    room = model_files.LARGEST_HEADER - len(text) - 50
    for unit in "[]", "[[]]", "{}", '{"tuple":[]}', "[1]":
        n = (model_files.MOST_BRACKETS - 20) // (unit.count("[") + unit.count("{"))
        few = ",".join([unit] * n)
        numbers = ",1e9" * ((room - len(few)) // 4)
        yield "PPCA", archive(f'{head}"verbose": [{few}{numbers}]{tail}', parts)
        many = ",".join([unit] * (room // (len(unit) + 1)))
        yield "PPCA", archive(f'{head}"verbose": [{many}]{tail}', parts)
    for unit in '"ab"', '""', "1e9", "999":
        many = ",".join([unit] * (room // (len(unit) + 1)))
        yield "PPCA", archive(f'{head}"verbose": [{many}]{tail}', parts)
        yield "PPCA", archive(f'{head}"verbose": {{"array": [{many[:-40]}], "dtype": "float64"}}{tail}', parts)
    keys = ",".join(f'"{i:x}":1' for i in range(room // 10))
    yield "PPCA", archive(f'{head}"verbose": {{{keys}}}{tail}', parts)
    names = ",".join(f'"{i:x}"' for i in range(room // 8))
    yield "PPCA", archive(text.replace('"feature_names": null', f'"feature_names": [{names}]'), parts)


def absurdities(every=1):
    """Files with finite numbers of absurd size in one array; every so-manieth of them."""
    count = itertools.count()
    for kind in KINDS:
        header, parts = members(file_of(kind))
        for name in sorted(parts.keys() - {"training"}):
            array = np.load(io.BytesIO(parts[name]))
            if array.dtype.kind == "b" or not array.size:
                continue
            largest = np.finfo(array.dtype).max if array.dtype.kind == "f" else 2**62
            numbers = (1e130, -1e130, 1e30, 1e-130, 1e-300, 1e300) if array.dtype.kind == "f" else (-1, 0, largest)
            for number in numbers:
                number = np.clip(number, -largest, largest)
                one = array.copy()
                one.reshape(-1)[array.size // 2] = number
                for changed in one, np.full_like(array, number):
                    if next(count) % every:
                        continue
                    yield kind, archive(header, {**parts, name: npy(changed)})


def fuzzed(seconds):
    """Figure of `tests.reliability.fuzz`, which needs atheris."""
    name, target = f"{seconds} s of a coverage-guided fuzzer", "ModelFileError or a model; at most 768 MiB in all"
    if importlib.util.find_spec("atheris") is None:
        return Figure(name, target, "not run: install the group `reliability`", True, "not measured here")
    command = [sys.executable, "-m", "tests.reliability.fuzz", str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = re.search(r"Done (\d+) runs", run.stderr + run.stdout)
    reached = f"{runs[1]} executions, no other error" if runs else (run.stderr + run.stdout)[-600:]
    return Figure(
        name, target, reached, run.returncode == 0 and runs is not None, "NumPy's and zlib's C code is not traced"
    )


def measure(quick):
    """Figures of damaged files."""
    share = 20 if quick else 1
    honest = (
        "the changes are random; a changed argument that is valid gives another valid model, as a changed number does"
    )
    return [
        figure(
            f"{9000 // share} files with a changed byte", *tally(flips(9000 // share)), {"refused", "same"},
            "one byte a file; zip has bytes (dates, flags) that nobody reads, so that the model is the same",
        ),
        figure(
            f"{400 // share} files cut short", *tally(truncations(400 // share)), {"refused"},
            "cuts only at the end; a file system may also leave holes of zeros",
        ),
        figure(
            f"{8000 // share} crafted files with right checksums", *tally(mutations(8000 // share)),
            {"refused", "same", "other"}, honest,
        ),
        figure(
            "files of a few kB that name 10⁵ to 10⁹ columns, layers or components", *tally(bombs()),
            {"refused", "same", "other"},
            "a file may hold a thousand times its size in zeros, as every compressed file",
        ),
        figure(
            "the largest headers, of lists, objects, texts, numbers or keys", *tally(() if quick else headers()),
            {"refused"}, "memory of Python's objects; a list of small numbers takes none for each of them",
        ),
        figure(
            "absurd finite numbers in every array", *tally(absurdities(share)),
            {"refused", "same", "other"}, "one array at a time; two of them may give a log-likelihood of -inf",
        ),
        fuzzed(20 if quick else 600),
    ]  # fmt: skip
