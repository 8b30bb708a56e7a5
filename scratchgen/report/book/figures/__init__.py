"""The pictures of the book, from exact laws: nothing is trained, and all numbers come from the package's functions.

Every picture has a text that stands in for it where it cannot be seen.
"""

from scratchgen.report.book.figures import beyond, ddpm, digits, em, sde, start, vae, variational  # noqa: F401  # they fill FIGURES
from scratchgen.report.book.figures.frame import ALT, FIGURES, draw

__all__ = ["ALT", "FIGURES", "draw"]
