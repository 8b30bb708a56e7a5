"""The data sets of `scratchgen.datasets` by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from scratchgen import datasets
from scratchgen.law import Law
from scratchgen.validation import Array, IntArray

OWN = "none needed: drawn by this package"


class Bundled(NamedTuple):
    """A data set with a name; a drawn one has as many rows as wanted, and a shipped one its own."""

    n: int  # rows, or rows if no number is given
    drawn: bool
    make: Callable[[int, int], tuple[Array, IntArray | None]]  # of number of rows and seed: x (N, D) and labels (N,)
    names: tuple[str, ...]
    label: str  # name of the labels; "" without
    about: str
    source: str
    licence: str


def _drawn(draw: Callable[[int, int], Array], about: str, D: int = 2, like: str = "this package") -> Bundled:
    names = tuple(f"x{d}" for d in range(D))
    return Bundled(10_000, True, lambda n, seed: (draw(n, seed), None), names, "", about, like, OWN)


def _digits(split: str, n: int) -> Bundled:
    names = tuple(f"pixel{d}" for d in range(64))
    about = "handwritten digits of 8 x 8 pixels, levels 0..16"
    source, licence = "Alpaydin and Kaynak (1998), UCI repository, doi:10.24432/C50P49", "CC BY 4.0"

    def make(n: int, seed: int) -> tuple[Array, IntArray]:
        return datasets.digits(split)

    return Bundled(n, False, make, names, "digit", about, source, licence)


def _penguins() -> Bundled:
    def make(n: int, seed: int) -> tuple[Array, IntArray]:
        birds = datasets.penguins()
        return birds.measurements, birds.species

    source = "Horst, Hill and Gorman (2020), palmerpenguins, doi:10.5281/zenodo.3960218"
    about = "bill, flipper and mass of three species (0 Adelie, 1 Chinstrap, 2 Gentoo)"
    return Bundled(342, False, make, datasets.PENGUIN_COLUMNS, "species", about, source, "CC0 1.0")


def _of(law: Callable[[], Law]) -> Callable[[int, int], Array]:
    return lambda n, seed: law().sample(n, seed)


FFJORD = "the shapes of Grathwohl et al. (2019, FFJORD) at half their size"
BUNDLED = {
    "digits": _digits("all", 1797),
    "digits_train": _digits("train", 1437),
    "digits_test": _digits("test", 360),
    "penguins": _penguins(),
    "eight_gaussians": _drawn(_of(datasets.eight_gaussians), "eight Gaussians on a circle", like=FFJORD),
    "gaussians_2d": _drawn(_of(datasets.gaussians_2d), "four overlapping Gaussians without symmetry"),
    "gaussians_1d": _drawn(_of(datasets.gaussians_1d), "three Gaussians on a line", D=1),
    "gaussian_grid": _drawn(_of(datasets.gaussian_grid), "25 Gaussians on a square grid"),
    "checkerboard": _drawn(_of(datasets.checkerboard), "uniform on every other square of a board", like=FFJORD),
    "two_moons": _drawn(_of(datasets.two_moons), "two interleaving half circles", like=FFJORD),
    "swiss_roll": _drawn(_of(datasets.swiss_roll), "a spiral", like=FFJORD),
    "spirals": _drawn(_of(datasets.spirals), "two spirals", like=FFJORD),
    "rings": _drawn(_of(datasets.rings), "four circles", like=FFJORD),
    "pinwheel": _drawn(_of(datasets.pinwheel), "a wheel of five bent arms", like="Johnson et al. (2016)"),
}
