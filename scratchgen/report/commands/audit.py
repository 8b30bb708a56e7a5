"""`scratchgen audit`: every check that applies to the user's own code."""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from pathlib import Path

from scratchgen.report.options import Commands, add_command

HELP = """\
Run every check that applies to your own code, and print one table.

FILE.py has a function audit_me(), which returns the arguments of scratchgen.conformance.audit as a dict. No
equation of its own: each row of the table names the equation that it checks, (1) to (34).

Example:
  scratchgen audit mine.py

Typical time: 3 s.  The status is 1 if a check fails."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "audit", HELP, run)
    parser.add_argument("file", type=Path, metavar="FILE.py", help="a Python file with audit_me()")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    return audit(options.file)


def _place(error: BaseException, file: Path) -> str:
    """The file and the line of an error: the deepest line in this file, or that of a SyntaxError."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and not lines:
        return f"{error.filename}, line {error.lineno}"
    return f"{file}, line {lines[-1]}" if lines else str(file)


def audit(file: Path) -> int:
    """Run `audit_me()` of a Python file and print the table; return 1 if a check fails."""
    from scratchgen.conformance import Audit
    from scratchgen.conformance import audit as audit_of

    remedy = "define audit_me(), which returns the arguments of scratchgen.conformance.audit as a dict, or its result"
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; name a Python file, and in it {remedy}")
    sys.path.insert(0, str(file.resolve().parent))  # the file may import its neighbours, as a script does
    try:
        try:
            function = runpy.run_path(str(file)).get("audit_me")
            result = function() if callable(function) else None
        except Exception as error:
            raise RuntimeError(f"{_place(error, file)}: {type(error).__name__}: {error}") from error
        if not callable(function):
            raise ValueError(f"{file} has no function audit_me; {remedy}")
        if isinstance(result, dict):
            other = [key for key in result if not isinstance(key, str)]
            if other:
                raise TypeError(f"the keys of the dict of audit_me() must be names of arguments, got {other[0]!r}")
            result = audit_of(**result)
    except SystemExit as error:
        raise RuntimeError(f"{file} called sys.exit({error.code!r}) before its audit ended; {remedy}") from None
    finally:
        sys.path.pop(0)
    if not isinstance(result, Audit):
        raise TypeError(f"audit_me() in {file} must return a dict or an Audit, got {type(result).__name__}")
    print(result)
    return 0 if result.passed else 1
