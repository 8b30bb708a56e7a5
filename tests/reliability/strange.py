"""Values of a foreign type: every argument of every public function, with what people hand in place of its kind.

A value is refused by an error that names the argument, or it has one meaning, and the result is that of the plain
value.  `WORKS` are forms of an array, a number or a text that have to be accepted.
"""

import copy
import datetime
import random
import re
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import numpy as np
import scipy.sparse
from hypothesis.strategies import SearchStrategy

from tests.reliability.allowed import allowed
from tests.reliability.arguments import has_nan, judge, run
from tests.reliability.calls import calls
from tests.reliability.report import Figure

WORKS = "works"  # the result is that of the plain value
EITHER = "either"  # an error that names the argument, or the result of the plain value
REFUSED = "refused"  # an error that names the argument
EMPTY = "empty"  # an error that names an argument, or a result without NaN


class Doubled(np.ndarray):
    """An array whose operators compute something else, as those of some packages for units or of images do."""

    def __mul__(self, other):
        return np.asarray(self) + other

    __rmul__ = __add__ = __radd__ = __sub__ = __truediv__ = __pow__ = __matmul__ = __mul__

    def sum(self, *_, **__):
        """A wrong sum."""
        return np.float64(1e9)


class Half:
    """A generator with some of the methods of NumPy's."""

    def random(self, *_):
        """As that of the standard library."""
        return 0.5

    def choice(self, values):
        """As that of the standard library."""
        return values[0]


def everything():
    """Values that no argument of the package accepts, but for those of its own class."""
    return {
        "set": {1.5, 2.5}, "dictionary": {"a": 1}, "iterator": iter([1.5, 2.5]), "date": datetime.date(2026, 1, 2),
        "datetime64": np.datetime64("2026-01-02"), "timedelta64": np.timedelta64(3, "s"),
        "NaT": np.timedelta64("NaT", "s"), "ragged": [[1.5, 2.5], [3.5]], "bytes": b"1.5",
        "array of None": np.array([None, None]),
    }  # fmt: skip


def of_array(value):
    """Forms of an array, each with the outcome that is required."""
    padded = np.zeros([2 * n for n in value.shape], value.dtype)
    padded[tuple(slice(None, None, 2) for _ in value.shape)] = value
    backward = tuple(slice(None, None, -1) for _ in value.shape)
    still = value.copy()
    still.setflags(write=False)
    large = value.astype(np.longdouble)
    large[(0,) * value.ndim] = np.longdouble("1e4000")
    times = np.nan_to_num(value).astype(np.int64).astype("m8[s]")
    exact = np.array([Fraction(v) if np.isfinite(v) else v for v in value.ravel().tolist()], object)
    yield WORKS, "read-only", still
    yield WORKS, "every second", padded[tuple(slice(None, None, 2) for _ in value.shape)]
    yield WORKS, "negative strides", value[backward].copy()[backward]
    yield WORKS, "Fortran order", np.asfortranarray(value)
    yield WORKS, "nested lists", value.tolist()
    yield WORKS, "subclass", value.view(Doubled)
    yield EITHER, "big-endian", value.astype(value.dtype.newbyteorder(">"))
    yield EITHER, "long double", value.astype(np.longdouble) if value.dtype.kind == "f" else value.astype(np.uint8)
    if value.dtype.kind == "f":
        with np.errstate(over="ignore"):
            yield WORKS, "float16 array", value.astype(np.float16)
    yield EITHER, "memoryview", memoryview(np.ascontiguousarray(value))
    yield EITHER, "fractions", exact.reshape(value.shape)
    yield EITHER, "decimals", np.vectorize(lambda v: Decimal(v), otypes=[object])(value)
    if value.ndim == 2:
        yield EITHER, "matrix", value.view(np.matrix)
        yield REFUSED, "sparse", scipy.sparse.csr_matrix(value)
        yield EMPTY, "no columns", value[:, :0]
        yield (
            (REFUSED if len(value) > 1 else WORKS),
            "ragged rows",
            [list(row) + [1.0] * (i % 2) for i, row in enumerate(value)],
        )
    yield REFUSED, "masked", np.ma.masked_array(value, np.zeros(value.shape, bool))
    yield EMPTY, "no rows", value[:0]
    if np.isfinite(large).all():  # long doubles are float64 on some machines
        yield REFUSED, "overflow", large
    yield REFUSED, "durations", times
    yield REFUSED, "dates", times.astype(np.int64).astype("M8[s]")
    yield REFUSED, "array of None", np.full(value.shape, None)
    yield REFUSED, "iterator of rows", iter(value)
    yield REFUSED, "digits", np.full(value.shape, "1")


def of_number(value):
    """Forms of a real number."""
    yield WORKS, "float64", np.float64(value)
    yield EITHER, "0-d array", np.array(value)
    yield EITHER, "one element", np.array([value])
    yield EITHER, "Fraction", Fraction(value)
    yield EITHER, "Decimal", Decimal(value)
    yield EITHER, "float16", np.float16(value) if float(np.float16(value)) == value else value
    yield EITHER, "long double", np.longdouble(value)
    yield EITHER, "big-endian", np.array(value, ">f8")[()]
    yield REFUSED, "overflow", np.longdouble("1e4000")
    yield REFUSED, "huge int", 10**400
    yield REFUSED, "huge Decimal", Decimal("1e4000")
    yield REFUSED, "True", True
    yield REFUSED, "np.True_", np.True_
    yield REFUSED, "0-d bool", np.array(True)
    yield REFUSED, "str_", np.str_(value)
    yield REFUSED, "0-d text", np.array(str(value))


def of_count(value):
    """Forms of a whole number."""
    for kind in (np.int64, np.int16, np.uint16)[: 3 - (value < 0)]:
        yield WORKS, kind.__name__, kind(value)
    yield EITHER, "0-d array", np.array(value)
    yield EITHER, "one element", np.array([value])
    yield EITHER, "Fraction", Fraction(value)
    yield EITHER, "Decimal", Decimal(value)
    yield EITHER, "float", float(value)
    yield EITHER, "float64", np.float64(value)
    yield REFUSED, "huge int", 10**400
    yield REFUSED, "overflow", np.longdouble("1e4000")
    yield REFUSED, "np.True_", np.True_
    yield REFUSED, "True", True
    yield REFUSED, "0-d bool", np.array(True)
    yield REFUSED, "str_", np.str_(value)
    yield REFUSED, "duration", np.timedelta64(value, "ns")


def of_flag(value):
    """Forms of True and False."""
    yield WORKS, "bool_", np.bool_(value)
    yield EITHER, "0-d array", np.array(value)
    yield EITHER, "int", int(value)
    yield REFUSED, "str_", np.str_(value)


def of_text(value):
    """Forms of a name."""
    yield WORKS, "str_", np.str_(value)
    yield EITHER, "0-d array", np.array(value)
    yield REFUSED, "bytes of it", value.encode()
    yield REFUSED, "number", np.float64(1)


def of_generator(value):
    """Objects that resemble a generator of NumPy, each with the outcome that is required."""
    yield WORKS, "subclass", type("Own", (np.random.Generator,), {})(copy.deepcopy(value.bit_generator))
    yield REFUSED, "standard library", random.Random(0)
    yield REFUSED, "legacy", np.random.RandomState(0)
    yield REFUSED, "some methods", Half()
    yield REFUSED, "module", np.random
    yield REFUSED, "0-d array", np.array(0.5)


def forms(value):
    """The required outcome, a name and a form, for each form of one valid value."""
    own = ()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        own = of_array(value)
    elif isinstance(value, bool | np.bool_):
        own = of_flag(value)
    elif isinstance(value, int):
        own = of_count(value)
    elif isinstance(value, float):
        own = of_number(value)
    elif isinstance(value, str):
        own = of_text(value)
    elif isinstance(value, np.random.Generator):
        own = of_generator(value)
    yield from own
    yield EMPTY, "nothing", np.empty(0)
    for name, strange in everything().items():
        yield REFUSED, name, strange


def same(a, b):
    """Whether two results have equal numbers, but for rounding; arrays of one element may be numbers."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.random.Generator):
        return same(a.bit_generator.state, b.bit_generator.state)
    if isinstance(a, np.ndarray | np.number | float | int):
        a, b = np.asarray(a), np.asarray(b)
        if a.size != b.size or (a.size > 1 and (a.shape, a.dtype) != (b.shape, b.dtype)):
            return False
        if a.dtype.kind not in "fiub":
            return bool((a == b).all())
        rtol = 1e-4 if a.dtype == np.float32 else 1e-6  # networks compute in float32
        return bool(np.allclose(a, b, rtol, rtol * np.abs(a).max(initial=0, where=np.isfinite(a)), equal_nan=True))
    if hasattr(a, "get_params"):
        fitted = [name for name in vars(a) if name.endswith("_")]
        return all(same(getattr(a, name), getattr(b, name)) for name in fitted)
    if isinstance(a, str | SearchStrategy):
        return str(a) == str(b)
    if hasattr(a, "__dict__") and not callable(a):
        return type(a) is type(b) and same(vars(a), vars(b))
    return type(a) is type(b)


def judge_form(one, argument, must, what, value, plain):
    """The judgement of one form, as `judge`; "right" if the result is the one of the plain value, where it may be."""
    word, said, result = judge(one, argument, what, value)
    if what == "float16 array":  # its numbers are rounded: the plain value is the same numbers in float64
        expected, _, plain = judge(one, argument, what, value.astype(np.float64))
        return ("right" if word == expected and (word != "silent" or same(plain, result)) else "raw"), said
    if must in (WORKS, EITHER) and word == "silent" and same(plain, result):
        return "right", said
    if must == WORKS and word == "clear":
        return "raw", f"refused: {said}"
    if must == EMPTY and word == "silent" and has_nan(result) <= has_nan(plain):
        return "right", said
    if must == EMPTY and word == "raw" and any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", said) for n in one.args):
        return "clear", said
    return word, said


def tried(quick=False):
    """(call, argument, form, word, said) of all forms of all arguments that are not tried elsewhere, or of a few."""
    for one in calls()[:: 20 if quick else 1]:
        if re.fullmatch(r"ScoreSDE.*\.score(_samples)?", one.name):
            continue  # slow; `ScoreSDE.log_prob`, which has a tolerance, makes the same checks
        plain = run(one)
        for argument, arg in one.args.items():
            for must, what, value in forms(arg.value) if arg.bad else ():
                word, said = judge_form(one, argument, must, what, value, plain)
                if word in ("silent", "raw") and allowed(one.name, argument, what):
                    word = "allowed"
                yield one.name, argument, what, word, said


def measure(quick):
    """Figures of foreign types."""
    found = Counter(word for *_, word, _ in tried(quick))
    return [
        Figure(
            f"{found.total()} arguments of a foreign type",
            "an error that names the argument, or the result of the plain value",
            ", ".join(f"{n} {word}" for word, n in found.most_common()),
            not found["silent"] and not found["raw"],
            "one argument at a time; types that other packages define are not tried, but for those of scipy.sparse",
        )
    ]
