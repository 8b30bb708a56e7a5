"""The four chapters, EM → VAE → DDPM → SDE: models trained on real data and graded against exact answers."""

from scratchgen.report.chapters.ddpm import ddpm
from scratchgen.report.chapters.digits import compare_digits
from scratchgen.report.chapters.em import em
from scratchgen.report.chapters.sde import sde
from scratchgen.report.chapters.vae import vae
from scratchgen.report.tour import Tour

__all__ = ["compare_digits", "ddpm", "em", "run", "sde", "vae"]


def run(tour: Tour) -> None:
    """Run the four chapters and the comparison on digits."""
    em(tour)
    vae(tour)
    ddpm(tour)
    sde(tour)
    compare_digits(tour)
