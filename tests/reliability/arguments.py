"""Bad arguments: every public function, with each argument replaced by bad values of its kind.

`tests.reliability.calls` has one valid call of every function.  An argument there is an `Arg`: a valid value with the
bad values of its kind.  A bad value has to give a ValueError or TypeError that names the argument.
"""

import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tests.reliability.allowed import allowed
from tests.reliability.interruptions import raised_after
from tests.reliability.report import Figure

SIZES = {"N": 5, "D": 2, "K": 3, "k": 1, "X": 4, "Z": 3, "T": 6, "S": 7, "M": 6, "L": 4, "P": 8, "one": 1, "two": 2}
LEAST_MESSAGE = 25  # characters


class Arg(NamedTuple):
    """A valid value of an argument, and bad ones by name; `letters` are the axes of an array."""

    value: object
    bad: dict
    letters: tuple = ()


class Call(NamedTuple):
    """A valid call: `function` with `args` by name.  Messages may call an argument by its name in `alias`."""

    name: str
    function: object
    args: dict
    fixed: str
    alias: dict


def call(name, function, /, fixed="", alias=None, **args):
    """A Call; axes in `fixed` have one right length even if one argument alone has them."""
    return Call(name, function, args, fixed, alias or {})


# --- kinds of arguments ----------------------------------------------------------------------------------------------

SCALARS = {"text": "text", "list of text": ["a", "b"], "dict": {}}


def array(axes, value=None, optional=False, kind=np.abs):
    """An array with these axes, such as "N D"; positive numbers unless `value` is given."""
    letters = tuple(axes.split())
    if value is None:
        value = kind(np.random.default_rng(len(axes)).standard_normal([SIZES[a] for a in letters]))
    flat = value.astype(np.float64).copy()
    flat[(0,) * flat.ndim] = np.nan
    bad = {
        "text": "text", "dict": {}, "complex": value * (1 + 1j), "array of text": value.astype(str),
        "further axis": value[..., None], "NaN": flat, "inf": np.where(np.isnan(flat), np.inf, flat),
    }  # fmt: skip
    if not optional:
        bad["None"] = None
    return Arg(value, bad, letters)


def of_shape(arg, axis, length):
    """The array of an Arg with another length of an axis."""
    return np.take(arg.value, np.arange(length) % arg.value.shape[axis], axis=axis)


def law(axes, axis=-1, sums=True):
    """An array of probabilities that sum to 1 along `axis`."""
    arg = array(axes)
    value = arg.value / arg.value.sum(axis=axis, keepdims=True)
    bad = array(axes, value).bad | {"negative": value - 1}
    return Arg(value, bad | ({"sum 2": 2 * value} if sums else {}), arg.letters)


def weights(n=SIZES["N"]):
    """Weights of n rows, one of them 0."""
    arg = array("N", np.arange(n) % 3 + 0.5 * (np.arange(n) % 2), optional=True)
    bad = {"negative": -arg.value, "zeros": np.zeros(n), "one more": np.ones(n + 1), "a number": 2.0}
    return Arg(arg.value, arg.bad | bad | {"inf": np.full(n, np.inf), "tiny": np.full(n, 1e-100)}, arg.letters)


def covariance(axes="D D"):
    """A symmetric positive definite matrix, or several."""
    shape = [SIZES[a] for a in axes.split()]
    value = np.broadcast_to(np.eye(shape[-1]) + 0.2, shape).copy()
    skew, negative = value.copy(), value.copy()
    skew[..., 0, -1] += 1.0
    negative[..., 0, 0] = -1.0
    arg = array(axes, value)
    return Arg(value, arg.bad | {"asymmetric": skew, "not positive": negative}, arg.letters)


def labels(optional=True, axes="N", n=3, first=0):
    """Whole numbers first..n−1."""
    value = first + np.arange(SIZES[axes]) % (n - first)
    bad = {
        "fractions": value + 0.5, "text": "text", "(N, 1)": value[:, None], "too large": value + n,
        "NaN": value * np.nan, "complex": value * 1j,
    }  # fmt: skip
    return Arg(value, bad if optional else bad | {"None": None}, (axes,))


def levels(axes="N D", n=4):
    """An array of whole numbers 0..n−1."""
    arg = array(
        axes, np.arange(np.prod([SIZES[a] for a in axes.split()])).reshape([SIZES[a] for a in axes.split()]) % n
    )
    return Arg(arg.value, arg.bad | {"fractions": arg.value + 0.5, "negative": arg.value - 1.0}, arg.letters)


def count(value=3, minimum=1, optional=False):
    """A whole number, at least `minimum`."""
    bad = {"too small": minimum - 1, "-7": -7, "2.5": 2.5, "NaN": np.nan, "text": "3", "list": [3], "True": True}
    return Arg(value, bad if optional else bad | {"None": None})


def number(value=0.5, low=-np.inf, high=np.inf, open_low=False, optional=False):
    """A finite number in an interval."""
    bad = {"NaN": np.nan, "inf": np.inf, "text": "1", "complex": 1j, "list": [0.5, 0.5], "class": float}
    bad |= {"too small": low - 1} if np.isfinite(low) else {}
    bad |= {"at the end": low} if open_low else {}
    bad |= {"too large": high + 1} if np.isfinite(high) else {}
    return Arg(value, bad if optional else bad | {"None": None})


def positive(value=0.5, **options):
    """A positive number."""
    return number(value, low=0.0, open_low=True, **options)


def per_row(value, low=None):
    """One number, or one a row, (N,)."""
    bad = {"text": "1", "complex": 1j, "two numbers": np.full(2, 0.5), "(N, D)": np.full((5, 2), 0.5), "None": None}
    bad |= (
        {}
        if low is None
        else {"too small": low - 1.0, "NaN": np.nan, "some too small": np.array([0.5] * 4 + [low - 1])}
    )
    return Arg(value, bad)


def step(value=2, first=1, last=6):
    """A step t of a chain."""
    bad = {
        "too small": first - 1,
        "beyond T": last + 1,
        "2.5": 2.5,
        "float": 2.0,
        "text": "2",
        "NaN": np.nan,
        "None": None,
    }
    return Arg(value, bad | {"(N, 1)": np.full((5, 1), 2), "three steps": np.array([2, 2, 2])})


def one_step(value=2):
    """One step t, not an array."""
    return Arg(value, step().bad | {"array": np.array([1, 2, 3, 4, 5])})


def time(value=0.5, least=0.0, open_low=True, horizon=1.0):
    """A time of a process."""
    bad = {"beyond the horizon": horizon + 0.5, "negative": -0.1, "NaN": np.nan, "text": "0.5", "None": None}
    return Arg(value, bad | {"complex": 1j, "array": np.full(3, 0.5)} | ({"least": least} if open_low else {}))


def times(value=0.5):
    """A time, or one a row."""
    bad = {"beyond the horizon": 1.5, "negative": -0.1, "NaN": np.nan, "text": "0.5", "None": None, "complex": 1j}
    return Arg(value, bad | {"some beyond": np.array([0.5] * 4 + [1.5])})


def choice(value, optional=False):
    """One of some names."""
    bad = {"unknown": "nonsense", "other case": value.upper(), "number": 3, "class": str, "list": [value]}
    return Arg(value, bad if optional else bad | {"None": None})


def seed(optional=True):
    """A seed or a generator."""
    bad = {
        "text": "0",
        "1.5": 1.5,
        "-1": -1,
        "legacy": np.random.RandomState(0),
        "True": True,
        "class": np.random.Generator,
    }
    return Arg(np.random.default_rng(0), bad if optional else bad | {"None": None})


def instance(value, optional=False):
    """An instance of a class of the package."""
    bad = {"class": type(value), "text": "linear", "number": 3, "list": []}
    return Arg(value, bad if optional else bad | {"None": None})


def flag(value=False):
    """True or False."""
    return Arg(value, {"text": "no", "2": 2, "None": None, "list": [True]})


def file_path(value, missing=True):
    """A path."""
    bad = {"number": 3.5, "None": None, "folder": "/", "overlong": "a" * 5000, "NUL": "a\0b"}
    return Arg(value, bad | ({"nowhere": "/nowhere/model.npz"} if missing else {}))


def function(value, optional=False, results=()):
    """A callable; `results` are values that it must not return."""
    bad = {"number": 3, "text": "f", "array": np.ones(3)} | {f"returns {name}": f for name, f in results}
    return Arg(value, bad if optional else bad | {"None": None})


def any_of(arg, **more):
    """An Arg with further bad values."""
    return Arg(arg.value, arg.bad | more, arg.letters)


def plain(value):
    """An argument that has no bad values of its own, as it is tried elsewhere."""
    return Arg(value, {})


# --- the cases ------------------------------------------------------------------------------------------------------


def cases(one):
    """(argument, name of the bad value, bad value) of a call."""
    axes = Counter(letter for arg in one.args.values() for letter in arg.letters)
    for name, arg in one.args.items():
        for what, value in arg.bad.items():
            yield name, what, value
        for i, letter in enumerate(arg.letters):
            if axes[letter] > 1 or letter in one.fixed.split():
                size = arg.value.shape[i]
                yield name, f"{letter} + 1", of_shape(arg, i, size + 1)
                if size > 1:
                    yield name, f"{letter} = 1", of_shape(arg, i, 1)


def has_nan(result):
    """Whether a number of a result, or of its parts, is NaN or infinite."""
    if isinstance(result, dict | list | tuple):
        return any(map(has_nan, result.values() if isinstance(result, dict) else result))
    if isinstance(result, np.ndarray | np.number | float):
        return np.asarray(result).dtype.kind == "f" and not np.isfinite(result).all()
    return hasattr(result, "__dict__") and not callable(result) and has_nan(vars(result))


def exhausted(result):
    """The result, or the items of a generator; generators check their arguments when they run."""
    return list(result) if isinstance(result, Iterator) else result


def run(one, **changed):
    """Call the function with valid arguments, but for the changed ones."""
    values = copy.deepcopy({name: arg.value for name, arg in one.args.items()}) | changed
    late = raised_after(5, RuntimeError("the call runs for more than 5 s"))
    with warnings.catch_warnings(), np.errstate(all="ignore"), late:
        warnings.simplefilter("ignore")
        return exhausted(one.function(**values))


def judge(one, name, what, value):
    """The judgement, "clear", "NaN", "silent" or "raw", the text of the error, and the result.

    "clear": a ValueError or TypeError of at least 25 characters that names the argument, or the other one where two
    lengths disagree; ArithmeticError for a NaN that spoils a result, and OSError for a path, are clear too.  "NaN": a
    NaN among many numbers gave a NaN, as everywhere in NumPy; training and samplers look for it.  "silent": the
    function returned.  "raw": any other error.
    """
    try:
        result = run(one, **{name: value})
    except (ValueError, TypeError, ArithmeticError, FileNotFoundError, FileExistsError, IsADirectoryError) as error:
        said = str(error)
        if what in ("NaN", "inf") and isinstance(error, ArithmeticError) and "finite" in said:
            return "clear", f"ArithmeticError: {said}", None
        names = {name, one.alias.get(name, name)}
        if re.fullmatch(r"\w+ ([+] 1|= 1)", what):  # two lengths disagree: either argument may be the wrong one
            axis = what.split()[0]
            names |= {other for other, arg in one.args.items() if axis in arg.letters}
        named = any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", said) for n in names)
        return ("clear" if named and len(said) >= LEAST_MESSAGE else "raw"), f"{type(error).__name__}: {said}", None
    except Exception as error:
        return "raw", f"{type(error).__name__}: {error}", None
    if what in ("NaN", "inf") and has_nan(result):
        return "NaN", "returned NaN", result
    return "silent", f"returned {result!r:.80}", result


def tried(quick=False):
    """(call, argument, bad value, word, said) of all cases, or of a twentieth."""
    from tests.reliability.calls import calls

    every = [(one, *case) for one in calls() for case in cases(one)]
    for one, name, what, value in every[:: 20 if quick else 1]:
        word, said, _ = judge(one, name, what, value)
        if word in ("silent", "raw") and allowed(one.name, name, what):
            word = "allowed"
        yield one.name, name, what, word, said


def measure(quick):
    """Figures of bad arguments."""
    results = list(tried(quick))
    found = Counter(word for _, _, _, word, _ in results)
    words = ", ".join(f"{n} {word}" for word, n in found.most_common())
    functions = len({name for name, *_ in results})
    return [
        Figure(
            f"{len(results)} bad arguments of {functions} functions and methods",
            "an error that names the argument, or NaN for NaN; no raw error and no silent answer",
            words,
            not found["silent"] and not found["raw"],
            "one wrong argument at a time; the values are those of the argument's kind",
        )
    ]
