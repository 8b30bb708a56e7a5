"""The page of a tour, `index.html` in its folder: grades, pictures with captions, bits per dimension."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from markupsafe import Markup

from scratchgen.models.files import write_atomically
from scratchgen.report.book import prose
from scratchgen.report.book.frame import Frame
from scratchgen.report.book.pages import Page, slug
from scratchgen.report.console import Grade

DPI = 110  # of the pictures; 100 pixels an inch on the page


def write_tour_page(folder: Path, grades: Sequence[Grade], bits: dict[str, float]) -> Path:
    """Write index.html and its style sheet beside the pictures of a tour; pictures that are not there are left out."""
    frame, out, sections = Frame(), [], []
    for part in prose.parts("tour"):
        match part.kind:
            case "section":
                sections.append((slug(part.argument), part.argument))
                out.append(prose.html(f"## {part.argument}\n\n{part.body}"))
            case "grades":
                shown = [grade for grade in grades if grade.chapter == part.argument]
                out.append(str(frame.parts.grades(shown)) if shown else "")
            case "picture":
                out.append(_picture(frame, folder / f"{part.argument}.png", part.body))
            case "bits":
                out.append(str(frame.parts.bits(bits)))
            case _:
                out.append(prose.html(part.body))
    with as_file(files(__package__).joinpath("templates", "style.css")) as style:
        shutil.copyfile(style, folder / "style.css")
    content = re.sub(r'<a href="\w+\.html#[^"]*">(.*?)</a>', r"\1", "\n".join(out))  # the other pages are not here
    page = frame.page(Page("tour", "The report of a tour", ""), content, sections, alone=True)
    write_atomically(folder / "index.html", lambda file: file.write(page.encode()))
    return folder / "index.html"


def _picture(frame: Frame, path: Path, body: str) -> str:
    if not path.exists():
        return ""
    alt, caption, rest = (f"{body}\n\n\n\n").split("\n\n", 2)
    width, height = struct.unpack(">II", path.read_bytes()[16:24])  # the header of a PNG file
    size = round(100 * width / DPI), round(100 * height / DPI)
    text = Markup(prose.line(" ".join(caption.split())))
    return str(frame.parts.figure(path.stem, path.name, size, " ".join(alt.split()), text)) + prose.html(rest)
