"""A coverage-guided fuzzer on `load`: `python -m tests.reliability.fuzz SECONDS`, with atheris installed.

The fuzzer changes the bytes of the members of a file, and the archive around them is made anew, so that checksums are
right.  Any exception but ModelFileError ends the run with a traceback.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["scratchgen.models", "numpy.lib._format_impl", "zipfile", "json"]):
    from scratchgen.models.files import ModelFileError

from tests.reliability.models import KINDS, archive, file_of, fitted, members

FOLDER = tempfile.TemporaryDirectory()
PATH = Path(FOLDER.name) / "model.npz"


def loaded(content):
    """Load a file that was made of fuzzed bytes; the first byte chooses the kind, the second the way."""
    if len(content) < 2:
        return
    kind = list(KINDS)[content[0] % len(KINDS)]
    header, parts = members(file_of(kind))
    names, rest = sorted(parts), content[2:]
    match content[1] % 3:
        case 0:
            PATH.write_bytes(rest)  # the file itself
        case 1:
            parts[names[content[1] // 3 % len(names)]] = rest
            PATH.write_bytes(archive(header, parts))
        case _:
            text = rest.decode("utf-8", "replace").replace("\x00", "")
            PATH.write_bytes(archive(text, parts))
    try:
        type(fitted(kind)).load(PATH)
    except ModelFileError:
        return


def corpus(folder):
    """One file of every kind, whole, as a header and as an array, for the fuzzer to start from."""
    for i, kind in enumerate(KINDS):
        header, parts = members(file_of(kind))
        folder.joinpath(f"{i}-file").write_bytes(bytes([i, 0]) + file_of(kind))
        folder.joinpath(f"{i}-header").write_bytes(bytes([i, 2]) + json.dumps(header).encode())
        for j, name in enumerate(sorted(parts)):
            folder.joinpath(f"{i}-{name}").write_bytes(bytes([i, (1 + 3 * j) % 256]) + parts[name])


if __name__ == "__main__":
    start = Path(FOLDER.name) / "corpus"
    start.mkdir()
    corpus(start)
    atheris.Setup(
        [sys.argv[0], str(start), f"-max_total_time={sys.argv[1]}", "-rss_limit_mb=768", "-max_len=20000"], loaded
    )
    atheris.Fuzz()
