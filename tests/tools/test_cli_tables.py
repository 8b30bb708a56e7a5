"""Tables that the command line reads: headers, missing cells, delimiters, and one-line errors of wrong tables."""

from pathlib import Path

import numpy as np
import pytest

from scratchgen import datasets
from scratchgen.report.bundled import BUNDLED
from scratchgen.report.tables import Choice, read
from scratchgen.report.text import CommandError


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a file in the current folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="t.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


X = [[1.0, 2.5], [3.0, -4e-3]]
READ = {
    "header": "a,b\n1,2.5\n3,-4e-3\n",
    "quotes and spaces": '"a", "b"\n "1", 2.5 \n3,-.004\n',
    "byte order mark, Windows lines": b"\xef\xbb\xbfa,b\r\n1,2.5\r\n3,-0.004\r\n",
    "semicolons": "a;b\n1;2.5\n3;-0.004\n",
    "UTF-16 with its mark": "a\tb\n1\t2.5\n3\t-0.004\n".encode("utf-16"),
    "no end of line, empty lines": "a,b\n\n1,2.5\n\n3,-0.004",
    "comments": "# made by hand\na,b\n1,2.5\n# a pause\n3,-0.004\n",
    "names in a comment": "# a,b\n1,2.5\n3,-0.004\n",
    "the separator of Excel": "sep=;\r\na;b\r\n1;2.5\r\n3;-0.004\r\n",
    "names behind #": "#a,b\n1,2.5\n3,-0.004\n",
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_forms_of_one_table_give_the_same_numbers_and_names(content, file):
    data = read(file(content))
    assert np.array_equal(data.x, X)
    assert data.named
    assert data.names == ("a", "b")


def test_tabs_and_decimal_commas(file):
    assert np.array_equal(read(file("a\tb\n1\t2.5\n3\t-0.004\n", "t.tsv")).x, X)
    german = Choice(decimal_comma=True)
    assert np.array_equal(read(file("a;b\n1,0;2,5\n3;-0,004\n"), german).x, X)
    assert np.array_equal(read(file('a,b\n"1,0","2,5"\n3,"-0,004"\n'), german).x, X)
    assert np.array_equal(read(file("1,0;2,5\n3;-0,004\n"), german).x, X)  # the first line is no header


def test_numbers_alone_have_no_header_and_the_report_says_so(file):
    data = read(file("1,2.5\n3,-0.004\n"))
    assert np.array_equal(data.x, X)
    assert (data.named, data.names) == (False, ("x0", "x1"))
    assert data.about == "t.csv: 2 rows, 2 columns, no header line"
    assert read(file("5\n6\n")).about == "t.csv: 2 rows, 1 column, no header line"


def test_a_header_of_numbers_is_said_to_be_a_row(file):
    """The rows alone, a header of which one number may be a row, and few rows get no note."""
    rows = [f"{n % 7},{n % 5 + 0.5}\n" for n in range(11)]
    data = read(file("2019,2020\n" + "".join(rows)))
    assert data.x[0].tolist() == [2019, 2020]
    assert data.about == (
        "t.csv: 12 rows, 2 columns, no header line; line 1, '2019, 2020', was read as a row, and is far from all "
        "others: if it holds names, let them begin with a letter, such as y2019"
    )
    for content in ("".join(rows), "2019,3\n" + "".join(rows), "2019,2020\n" + "".join(rows[:5])):
        assert "was read as" not in read(file(content)).about
    assert "was read as" not in read(file("a,b\n2019,2020\n" + "".join(rows))).about
    assert "was read as" not in read(file("2019,2020\n" + "1,\n" * 11), missing=True).about


def test_weights_are_taken_out_and_must_be_there(file):
    name = file("a,w,b\n1,0,2\n3,,4\n5,1.5,6\n")
    with pytest.raises(
        CommandError, match=r"line 3 has no weight in column 'w'; write a number >= 0, or pass --drop-m"
    ):
        read(name, Choice(weights="w"), missing=True)
    data = read(name, Choice(weights="w", drop_missing=True))
    assert np.array_equal(data.x, [[1, 2], [5, 6]])
    assert np.array_equal(data.weights, [0, 1.5])
    assert data.lines == [2, 4]
    with pytest.raises(CommandError, match=r"line 2 has a negative weight in column 'w'; write a number >= 0$"):
        read(file("a,w,b\n1,-2,2\n3,1,4\n"), Choice(weights="w"))
    with pytest.raises(CommandError, match="column 'w' holds text"):
        read(file("a,w,b\n1,x,2\n3,y,4\n"), Choice(weights="w"))


def test_a_column_of_words_or_dates_is_text_with_advice(file):
    for cell in ("a | b", "1 kg", "2024-01.01", "1.2.3.4"):
        with pytest.raises(CommandError, match=r"column 'a' holds text, such as .*: write some, or .* --drop a"):
            read(file(f"a\n{cell}\n{cell}\n"))
    for cell in ("2024-01-01 12:00", "2024-01-01T12:00Z", "31.1.2024", "1/31/24"):
        with pytest.raises(CommandError, match=r"'a' holds dates, such as .*: write days since the first, .* --drop a"):
            read(file(f"a\n{cell}\n{cell}\n"))


def test_rows_without_a_label_are_left_out_with_those_of_missing_cells(file):
    name = file("a,kind\n1,x\n2,\n,y\n4,y\n5,x\n6,NA\n")
    data = read(name, Choice(labels="kind", drop_missing=True))
    assert np.array_equal(data.x, [[1], [4], [5]])
    assert np.array_equal(data.labels, [0, 1, 0])
    assert data.classes == ("x", "y")
    assert data.lines == [2, 5, 6]
    assert data.about == "t.csv: 3 rows, 1 column; 3 rows with missing cells left out"
    one = read(file("a,kind\n1,10\n2,\n3,9\n4,9\n"), Choice(labels="kind", drop_missing=True))
    assert one.classes == ("9", "10")
    assert one.about == "t.csv: 3 rows, 1 column; 1 row with missing cells left out"


def test_columns_that_a_model_does_not_know_are_said(file):
    name = file("a,w,b,id\n1,5,2,x\n3,6,4,y\n")
    assert read(name, known=("b", "a")).about == "t.csv: 2 rows, 2 columns; left out: w, id"
    assert np.array_equal(read(name, known=("b", "a")).x, [[2, 1], [4, 3]])
    assert read(name, Choice(weights="w", drop=("id",)), known=("b", "a")).about == "t.csv: 2 rows, 2 columns"
    assert read(name, Choice(columns=("a",)), known=("b", "a")).about == "t.csv: 2 rows, 1 column"


def test_a_first_column_named_with_a_sign_is_no_comment(file):
    assert read(file("#,b\n1,2\n3,4\n")).names == ("#", "b")


@pytest.mark.parametrize("missing", ["", " ", "NA", "nan", "NaN", "?", "null", "None", "N/A"])
def test_missing_cells_are_an_error_unless_they_are_wanted_or_left_out(missing, file):
    name = file(f"a,b\n1,2\n{missing},4\n5,{missing}\n7,8\n")
    found = r"line 3 has no value in column 'a'; 2 of 4 rows .* --drop-missing, .*--drop a, .* ppca, or gmm "
    with pytest.raises(CommandError, match=found):
        read(name)
    expected = [[1, 2], [np.nan, 4], [5, np.nan], [7, 8]]
    assert np.array_equal(read(name, missing=True).x, expected, equal_nan=True)
    left = read(name, Choice(drop_missing=True))
    assert np.array_equal(left.x, [[1, 2], [7, 8]])
    assert left.lines == [2, 5]
    assert left.about == "t.csv: 2 rows, 2 columns; 2 rows with missing cells left out"


def test_columns_are_chosen_by_name_and_labels_get_codes(file):
    name = file('id,"a, b",kind,c\n7,1,dog,2\n8,3,"cat",4\n9,5,dog,6\n')
    data = read(name, Choice(drop=("id",), labels="kind"))
    assert data.names == ("a, b", "c")
    assert np.array_equal(data.x, [[1, 2], [3, 4], [5, 6]])
    assert data.labels.tolist() == [1, 0, 1]
    assert data.classes == ("cat", "dog")
    assert read(name, Choice(columns=("c", "a, b"))).x.tolist() == [[2, 1], [4, 3], [6, 5]]
    numeric = read(file("a,k\n1,10\n2,9\n3,10\n"), Choice(labels="k"))
    assert numeric.classes == ("9", "10")  # in the order of numbers, not of letters
    assert numeric.labels.tolist() == [1, 0, 1]


def test_a_model_finds_its_columns_by_name_and_in_its_order(file):
    name = file("kind,b,a\ndog,2,1\ncat,4,3\n")
    assert read(name, known=("a", "b")).x.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(CommandError, match="has no column 'c'"):
        read(name, known=("a", "c"))
    assert read(file("1,2\n3,4\n"), known=("a", "b")).x.tolist() == [[1, 2], [3, 4]]  # a table without names


def npy(array):
    return lambda path: np.save(path, array, allow_pickle=True)


WRONG = {  # content, choice, words of the error
    "empty": ("", {}, "t.csv is empty; write"),
    "only comments": ("# a\n", {}, "t.csv is empty"),
    "header only": ("a,b\n", {}, "has a header but no rows"),
    "ragged": ("a,b\n1,2\n3\n", {}, "line 3 has 1 cells, but the header has 2 (separated by commas)"),
    "ragged, no header": ("1,2\n3,4,5\n", {}, "line 2 has 3 cells, but line 1 has 2"),
    "text": (
        "a,b\n1,x\n2,y\n",
        {},
        "column 'b' holds text, such as 'x'; models need numbers: write some, or leave it out with --drop b",
    ),
    "two of text": (
        "a,b,c\nu,x,1\nv,y,2\n",
        {},
        "the 2 columns of text out with --drop a,b, or choose with --columns c",
    ),
    "a name to quote": ('"a, b",c\nu,1\nv,2\n', {}, "--drop '\"a, b\"'"),
    "one bad cell": ("a,b\n1,2\n3,x4\n5,6\n", {}, "line 3, column 'b': 'x4' is no number"),
    "digits with lines": ("a,b\n1,2\n3,1_000\n5,6\n", {}, "line 3, column 'b': '1_000' is no number"),
    "infinite": ("a,b\n1,2\n3,-inf\n", {}, "line 3, column 'b' is -inf"),
    "decimal commas": ("a;b\n1,5;2,5\n3,5;1,5\n", {}, "'1,5' has a comma; pass --decimal-comma"),
    "text and decimal commas": (
        "a;b\nParis;2,5\nRome;1,5\n",
        {},
        "column 'b': '2,5' has a comma; pass --decimal-comma",
    ),
    "thousands": ('a,b\n1,"1,234.5"\n2,"2,000.0"\n', {}, "'1,234.5' has a comma; if it separates thousands, save"),
    "thousands or decimals": (
        'a,b\n1,"1,234"\n2,"2,000"\n',
        {},
        "'1,234' has a comma; if it is the decimal sign, pass --decimal-comma; if it separates thousands, save",
    ),
    "a point beside decimal commas": (
        "town_pop;rate\n1.446;11,17\n387;9,6\n25;9,7\n",
        {"decimal_comma": True},
        "line 2, column 'town_pop': '1.446' has a point; if it separates thousands, save the table without it; if it "
        "is the decimal sign, leave --decimal-comma out, or write commas in this column too",
    ),
    "a column of points beside decimal commas": (
        "a;b\n1.5;11,17\n2.5e3;9,6\n",
        {"decimal_comma": True},
        "column 'a': '1.5' has a point; if it separates thousands, save",
    ),
    "a point and a decimal comma": (
        "a;b\n33.205,01;1,5\n1.205,01;2,5\n",
        {"decimal_comma": True},
        "column 'a': '33.205,01' has a point that separates thousands; save the table without such points",
    ),
    "a point and a comma": (
        "a;b\n33.205,01;1\n",
        {},
        "'33.205,01' has a point that separates thousands; save the table without such points, and pass --decimal-co",
    ),
    "two points": ("a,b\n1.234.567,1\n2,2\n3,1\n", {}, "line 2, column 'a': '1.234.567' has a point that separ"),
    "spaces between": ("a b\n1.5 2\n3 4\n", {}, "line 2 is one cell, '1.5 2'; write commas, semicolons or tabs"),
    "bars between": ("1 | 2\n3 | 4\n", {}, "line 2 is one cell, '3 | 4'; write commas"),
    "no text": (b"a,b\n\xff\x00\x01,2\n", {}, "t.csv is no text; save the table as .csv"),
    "latin-1": (b"a,b\n1,2\ncaf\xe9,3\n", {}, "is not in UTF-8 (line 3); save it as UTF-8, or run: iconv -f latin1"),
    "UTF-16 without mark": ("a,b\n1,2\n".encode("utf-16-le"), {}, "NUL bytes"),
    "open quote": ('a,b\n1,"2\n3,4\n', {}, "the double quotes do not match at or before line"),
    "twice": ("a,a\n1,2\n", {}, "the header has 'a' twice"),
    "row numbers": (
        ",a\n0,1\n1,2\n",
        {},
        "no name for column 1, which may be a row number; leave it out with --drop unn",
    ),
    "all missing": ("a,b\n1,\n2,\n", {"drop_missing": True}, "every row has a missing cell"),
    "unknown column": ("alpha,b\n1,2\n3,4\n", {"columns": ("alhpa",)}, "no column 'alhpa'; did you mean alpha?"),
    "unknown drop": ("a,b\n1,2\n3,4\n", {"drop": ("q",)}, "no column 'q'; it has a, b"),
    "nothing left": ("a,b\n1,2\n3,4\n", {"drop": ("a", "b")}, "no column is left"),
    "labels of every row": ("a,b\n1,2\n3,4\n", {"labels": "b"}, "2 different values in 2 rows"),
    "a missing label": ("a,b\n1,2\n3,\n3,2\n", {"labels": "b"}, "line 3 has no label in column 'b'"),
}


@pytest.mark.parametrize(("content", "choice", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_gets_one_line_with_the_remedy(content, choice, words, file):
    with pytest.raises(CommandError) as raised:
        read(file(content), Choice(**choice))
    message = str(raised.value)
    assert words in message
    assert message.startswith("t.csv")
    assert "\n" not in message


ARRAYS = {
    "pictures.npy": (npy(np.zeros((5, 8, 8))), "has the shape (5, 8, 8), but a table has a row", "reshape(5, 64)"),
    "flat.npy": (npy(np.zeros(5)), "has the shape (5,)", "reshape(-1, 1)"),
    "objects.npy": (npy(np.array([{}, 1], dtype=object)), "no NumPy file of numbers", "numpy.save"),
    "text.npy": (npy(np.array([["a"]])), "holds <U1, not numbers", "astype(float)"),
    "complex.npy": (npy(np.ones((3, 2)) * 1j), "holds complex128", "astype(float)"),
    "nothing.npy": (npy(np.zeros((0, 3))), "has no rows", "(rows, columns)"),
    "gap.npy": (
        npy(np.array([[1.0, 2.0], [np.nan, 4.0]])),
        "row 1 (the first is 0) has no value in column 'x0'",
        "--drop",
    ),
    "damaged.npy": (
        lambda path: path.write_bytes(b"\x93NUMPY\x01"),
        "damaged or no NumPy file of numbers",
        "numpy.save",
    ),
    "cut.npz": (
        lambda path: path.write_bytes(b"PK\x03\x04 and nothing more"),
        "damaged or no NumPy file",
        "numpy.savez",
    ),
    "text.npz": (lambda path: path.write_text("a,b"), "damaged or no NumPy file of numbers", "numpy.savez"),
    "two.npz": (lambda path: np.savez(path, u=np.ones((3, 2)), v=np.ones((3, 2))), "members u, v", "two.npz:u"),
    "sheet.xlsx": (lambda path: path.write_text("x"), "must end in .csv, .tsv, .npy or .npz", "save the table"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_wrong_array_gets_one_line_with_the_remedy(name, tmp_path):
    write, *words = ARRAYS[name]
    write(tmp_path / name)
    with pytest.raises(CommandError) as raised:
        read(str(tmp_path / name))
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_arrays_and_members_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.arange(6).reshape(3, 2)
    np.save("x.npy", x)
    np.savez("one.npz", x=x)
    np.savez("two.npz", u=x, v=2 * x)
    assert np.array_equal(read("x.npy").x, x)
    assert np.array_equal(read("one.npz").x, x)
    assert np.array_equal(read("two.npz:v").x, 2 * x)
    assert np.array_equal(read("two.npz:v", Choice(drop=("x0",))).x, 2 * x[:, 1:])
    with pytest.raises(CommandError, match="no member w; it has u, v"):
        read("two.npz:w")
    np.savez("objects.npz", x=np.array([{}], dtype=object))
    with pytest.raises(CommandError, match=r"objects\.npz:x is damaged or no numbers"):
        read("objects.npz")
    Path("x.npy").rename("x.npz")
    with pytest.raises(CommandError, match=r"rename it to \.npy"):
        read("x.npz")
    Path("one.npz").rename("one.npy")
    with pytest.raises(CommandError, match=r"rename it to \.npz"):
        read("one.npy")


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_have_their_rows_and_names(name):
    found, data = BUNDLED[name], read(name)
    assert data.x.shape == (found.n, len(found.names))
    assert data.names == found.names
    assert found.about
    assert found.source
    assert found.licence


def test_bundled_sets_are_those_of_datasets():
    assert np.array_equal(read("digits").x, datasets.digits().images)
    assert np.array_equal(read("penguins", Choice(labels="species")).labels, datasets.penguins().species)
    assert np.array_equal(read("two_moons").x, datasets.two_moons().sample(10_000, rng=0))
    assert np.array_equal(read("checkerboard").x, datasets.checkerboard().sample(10_000, 0))


@pytest.mark.parametrize(
    ("name", "words"),
    [("pengiuns", "did you mean penguins?"), ("qqq", "bundled data sets are digits"), ("q.csv", "no file q.csv")],
)
def test_what_is_not_there_is_named(name, words):
    with pytest.raises(CommandError, match=words.replace("?", r"\?")):
        read(name)


def test_a_long_table_whose_first_lines_are_cut_has_its_delimiter(file):
    """The first 65,536 characters decide; the last line of them may be a part of a line."""
    wide = ";".join(f"{i}.5" for i in range(9000))
    name = file(f"{wide}\n{wide}\n")
    assert len(wide) < 2**16 < 2 * len(wide)
    assert read(name).x.shape == (2, 9000)


def test_a_file_that_may_not_be_read_is_named(file, monkeypatch):
    name = file(b"", "t.npy")

    def refuse(path):
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CommandError, match=r"^t.npy may not be read; change its permissions$"):
        read(name)
