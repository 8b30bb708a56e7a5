"""The pages of the book, their order, and the page on which a row of the table stands."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from scratchgen.equations import BEYOND, Row


class Page(NamedTuple):
    """A page: `name` is the name of its HTML file and of its text."""

    name: str
    title: str
    group: str
    equations: range = range(0)


PAGES = (
    Page("index", "The one idea", "The deck"),
    Page("variational", "Variational inference", "The deck", range(1, 11)),
    Page("vae", "The variational autoencoder", "The deck", range(11, 15)),
    Page("em", "The EM algorithm", "The deck", range(15, 19)),
    Page("ddpm", "The diffusion model", "The deck", range(19, 30)),
    Page("sde", "Score models and SDEs", "The deck", range(30, 35)),
    Page("beyond", "Beyond the deck", "Further"),
    Page("networks", "Networks and training", "Further"),
    Page("audit", "Check your own code", "In practice"),
    Page("data", "Your own data", "In practice"),
    Page("models", "Which model for my data", "In practice"),
    Page("frameworks", "From here to frameworks", "In practice"),
    Page("notation", "Notation", "Reference"),
    Page("glossary", "Glossary", "Reference"),
    Page("bibliography", "Bibliography", "Reference"),
    Page("api", "API", "Reference"),
)
PACKAGES = {  # first part of the name of a function → page of its rows
    "likelihood": "variational",
    "variational": "variational",
    "schedule": "ddpm",
    "mixture": "em",
    "timestep_sampling": "networks",
    "nn": "networks",
}


def slug(text: str) -> str:
    """Words of a title, in ASCII where that is possible, joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("σ", "sigma").replace("₀", "0"))
    return re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode()).strip("-")


def page_of_equation(number: str) -> str | None:
    """The page of an equation of the deck; None if there is no such equation."""
    return next((page.name for page in PAGES if int(number) in page.equations), None)


def page_of(row: Row) -> str:
    """The page on which a row stands."""
    if row.name.isdigit():
        return page_of_equation(row.name) or ""
    if row in BEYOND:
        return "beyond"
    package, _, module = row.function.partition(".")
    if package == "fast":
        return "em" if module.startswith("em") else "networks"
    return PACKAGES.get(package, package)


def anchor(row: Row) -> str:
    """The id of a row on its page."""
    return f"eq-{row.name}" if row.name.isdigit() else slug(row.name)


def link(row: Row) -> str:
    """The address of a row within the book."""
    return f"{page_of(row)}.html#{anchor(row)}"


def label(row: Row) -> str:
    """(25), or the name of a proposition."""
    return f"({row.name})" if row.name.isdigit() else row.name
