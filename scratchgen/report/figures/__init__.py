"""The pictures of a tour, drawn from its trained models; the book shows them beside its own."""

from scratchgen.report.figures import ddpm, em, sde, start, vae  # noqa: F401  # they fill DRAWINGS
from scratchgen.report.figures.frame import DRAWINGS, Picture, draw_all

__all__ = ["DRAWINGS", "Picture", "draw_all"]
