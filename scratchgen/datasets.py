"""Small data sets: digits and penguins, which are part of the package, and synthetic sets in one and two dimensions.

LICENSES/ has the sources and licences of digits and penguins.  The two-dimensional sets have zero mean and lie in about
[−2, 2]²; all but `gaussians_2d` have the shapes of Grathwohl et al. (2019, FFJORD) at half their size.  All drawn rows
are independent.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchgen.blocks import by_blocks
from scratchgen.mixture import Mixture
from scratchgen.plane import Histogram, Pinwheel
from scratchgen.validation import (
    LARGEST,
    RNG,
    SMALLEST,
    Array,
    IntArray,
    as_array,
    as_choice,
    as_count,
    as_finite,
    as_generator,
    as_number,
    as_samples,
    check_levels,
)


def _load(name: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of data/<name>.npz; reading bytes works in a zipped package as well."""
    content = files("scratchgen").joinpath("data", f"{name}.npz").read_bytes()
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


# --- shipped data -------------------------------------------------------------------------------------------


class Digits(NamedTuple):
    """Images and their labels; unpacks as `images, labels = digits()`."""

    images: Array  # (N, 64), levels 0, 1, ..., 16, row by row
    labels: IntArray  # (N,), 0..9


def digits(split: str = "all") -> Digits:
    """Load 1797 handwritten digits of 8 × 8 pixels with 17 grey levels, or their fixed training or test part.

    Parameters
    ----------
    split : {"all", "train", "test"}
        All images in their published order, 1437 images for training, or the other 360.  The split is stratified by
        class.  It is stored with the data, so that it does not depend on the version of any library.

    Returns
    -------
    Digits
        `images`, (N, 64) float64 whole numbers 0..16, and `labels`, (N,) int64.  Both are copies.

    Raises
    ------
    ValueError
        If split is none of the three names.

    Notes
    -----
    The images are the test partition of the source, from 13 writers.  The writer of an image is not recorded, so that
    the training and the test part share writers.  A test score therefore does not show how a model does on new writers.

    References
    ----------
    Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    doi:10.24432/C50P49; CC BY 4.0.
    """
    as_choice(split, "split", ("all", "train", "test"))
    data = _load("digits")
    rows = np.arange(len(data["labels"])) if split == "all" else data[split]
    return Digits(data["images"][rows].astype(np.float64), data["labels"][rows].astype(np.int64))


def digit_bitmaps(images: ArrayLike) -> Array:
    """Bitmaps whose numbers of set bits in blocks of 4 × 4 are the levels of `digits`, (N, 32, 32) of 0 and 1, uint8.

    The levels of `digits` are counts of set bits in scanned bitmaps, and the data have no bitmaps.  The bitmaps of this
    function have the same counts, and smooth edges.  In every block the bits with the highest values of a smooth
    picture are set: first of the blurred image, then four times of the blurred bitmap plus a small part of the image.

    Parameters
    ----------
    images : (N, 64) of whole numbers 0..16
        Pixels row by row.

    Raises
    ------
    TypeError, ValueError
        If images are not such numbers.
    """
    images = as_samples(images, "images", dimension=64)
    check_levels(images, 17, "images")
    return by_blocks(lambda rows: _bitmaps(images[rows].reshape(-1, 8, 8)), len(images), 8 * 32 * 32)


def _bitmaps(counts: Array) -> Array:
    """Bitmaps, (N, 32, 32), of numbers of set bits, (N, 8, 8)."""
    image = _blurred(counts.repeat(4, axis=1).repeat(4, axis=2) / 16, width=2.0)
    bits = _highest(image, counts)
    for _ in range(4):
        bits = _highest(_blurred(bits, width=1.0) + 0.15 * image, counts)
    return bits


def _blurred(pictures: Array, width: float) -> Array:
    """Convolution of pictures, (N, 32, 32), with a Gaussian of this standard deviation in pixels; 0 beyond the edge."""
    pixel = np.arange(32)
    kernel = np.exp(-0.5 * ((pixel[:, None] - pixel) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return kernel @ pictures @ kernel


def _highest(values: Array, counts: Array) -> Array:
    """Bits, (N, 32, 32), that are 1 for the so many highest values of every block; counts have the shape (N, 8, 8)."""
    order = np.argsort(-values.reshape(-1, 8, 4, 8, 4).swapaxes(2, 3).reshape(-1, 8, 8, 16), axis=3, kind="stable")
    bits = np.zeros(order.shape, dtype=np.uint8)
    np.put_along_axis(bits, order, (np.arange(16) < counts[..., None]).astype(np.uint8), axis=3)
    return bits.reshape(-1, 8, 8, 4, 4).swapaxes(2, 3).reshape(-1, 32, 32)


def bitmap_levels(bitmaps: ArrayLike) -> Array:
    """Numbers of set bits in blocks of 4 × 4, (N, 64) uint8, of bitmaps, (N, 32, 32); it inverts `digit_bitmaps`."""
    blocks = as_bitmaps(bitmaps, "bitmaps").reshape(-1, 8, 4, 8, 4)
    columns = blocks[:, :, 0] + blocks[:, :, 1] + blocks[:, :, 2] + blocks[:, :, 3]  # six times as fast as `sum`
    return (columns[..., 0] + columns[..., 1] + columns[..., 2] + columns[..., 3]).reshape(-1, 64)


def as_bitmaps(bitmaps: ArrayLike, name: str) -> Array:
    """Return bitmaps, (N, 32, 32) of 0 and 1, as uint8; TypeError or ValueError for other arrays."""
    array = as_array(bitmaps, name)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} must hold the ints 0 and 1, got dtype {array.dtype}; pass digit_bitmaps(images)")
    if array.shape[1:] != (32, 32) or (array.size and not 0 <= array.min() <= array.max() <= 1):
        raise ValueError(
            f"{name} must have shape (N, 32, 32) and hold 0 and 1, got shape {array.shape}; pass digit_bitmaps(images)"
        )
    return array.astype(np.uint8, copy=False)


PENGUIN_COLUMNS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")


class Penguins(NamedTuple):
    """Measurements of penguins and their species, with the names of both."""

    measurements: Array  # (342, 4)
    species: IntArray  # (342,), an index into species_names
    feature_names: tuple[str, ...]
    species_names: tuple[str, ...]


def penguins() -> Penguins:
    """Load the 342 Palmer penguins with complete measurements.

    Returns
    -------
    Penguins
        `measurements`, (342, 4) float64: bill length, bill depth and flipper length in mm, body mass in g;
        `species`, (342,) int64: 151 Adelie (0), 68 Chinstrap (1), 123 Gentoo (2).  Both are copies.

    References
    ----------
    Horst, Hill and Gorman (2020), palmerpenguins, doi:10.5281/zenodo.3960218; CC0 1.0.
    Gorman, Williams and Fraser (2014), PLoS ONE 9(3): e90081.
    """
    data = _load("penguins")
    return Penguins(
        measurements=data["measurements"],
        species=data["species"].astype(np.int64),
        feature_names=PENGUIN_COLUMNS,
        species_names=("Adelie", "Chinstrap", "Gentoo"),
    )


def dequantize(levels: ArrayLike, rng: RNG = None, noise: ArrayLike | None = None) -> Array:
    """Turn whole numbers into continuous data, x = levels + u with u uniform on [0, 1).

    A density p assigns to D whole numbers k the probability of their unit cube, P(k) = E_u p(k + u).  Jensen's
    inequality gives log P(k) ≥ E_u log p(k + u), with equality if p is constant on the cube.  The cube has volume 1, so
    that −log p/(D ln 2) is in bits/dim of the levels.  For a density of a x + b, subtract log₂ a.

    Parameters
    ----------
    levels : array_like of whole numbers, any shape
        For digits 0..16, which become [0, 17).
    rng : seed, Generator or None
        Source of u.
    noise : array_like, shape of levels, optional
        u itself, in place of rng.

    Returns
    -------
    x : array of the shape and precision of `levels`
        float64 for integers.  np.floor(x) gives the levels exactly.

    Raises
    ------
    ValueError
        If levels are not whole, noise is outside [0, 1) or has another shape, or rng and noise are both given.
    """
    levels = as_finite(levels, "levels")
    if not np.array_equal(levels, np.floor(levels)):
        raise ValueError("levels must be whole numbers, got fractions; use continuous data as they are")
    if noise is None:
        noise = as_generator(rng).random(levels.shape)
    elif rng is not None:
        raise ValueError("rng and noise must not both be given, got both; pass noise alone")
    noise = as_finite(noise, "noise")
    if noise.shape != levels.shape:
        raise ValueError(f"noise must have the shape of levels, {levels.shape}, got {noise.shape}")
    if noise.size and (noise.min() < 0 or noise.max() >= 1):
        raise ValueError(f"noise must be in [0, 1), got values from {noise.min()} to {noise.max()}")
    x = (levels + noise).astype(levels.dtype)
    return np.minimum(x, np.nextafter(levels + 1, levels))  # 16 + 0.9999999 in float32 would round to 17


# --- one and two dimensions, density known -------------------------------------------------------------------


def eight_gaussians(radius: float = 2**0.5, std: float = 0.125 * 2**0.5) -> Mixture:
    """Mixture of eight equal isotropic Gaussians on a circle: m_k = radius (cos 2πk/8, sin 2πk/8), C_k = std² I.

    The mean is 0, the covariance (radius²/2 + std²) I, which is 1.03 I by default.
    """
    radius = as_number(radius, "radius", low=0.0, high=LARGEST)
    std = as_number(std, "std", low=SMALLEST, high=LARGEST)
    angles = 2 * np.pi * np.arange(8) / 8
    means = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Mixture(np.full(8, 1 / 8), means, np.tile(std**2 * np.eye(2), (8, 1, 1)))


def gaussians_1d() -> Mixture:
    """Mixture of three separate Gaussians of unequal weight and width in one dimension: mean 0, variance 1.007."""
    return Mixture(
        weights=np.array([0.3, 0.45, 0.25]),
        means=np.array([[-1.26], [0.08], [1.368]]),
        covariances=np.array([0.23, 0.17, 0.35])[:, None, None] ** 2,
    )


def gaussians_2d() -> Mixture:
    """Mixture of four overlapping Gaussians of unequal weight, size, shape and direction, without symmetry.

    The mean is 0; variances are 1.03 and 0.85, condition numbers of the covariances 2.6 to 6.1.  The mixture reveals
    mistakes that the symmetry of `eight_gaussians` hides: swapped coordinates, components or weights.
    """
    return Mixture(
        weights=np.array([0.4, 0.3, 0.2, 0.1]),
        means=np.array([[-0.9, 0.5], [1.1, 0.6], [0.6, -1.1], [-0.9, -1.6]]),
        covariances=np.array(
            [
                [[0.25, 0.12], [0.12, 0.15]],
                [[0.12, -0.09], [-0.09, 0.20]],
                [[0.25, 0.04], [0.04, 0.05]],
                [[0.06, -0.03], [-0.03, 0.10]],
            ]
        ),
    )


def gaussian_grid(spacing: float = 0.5**0.5, std: float = 0.05) -> Mixture:
    """Mixture of 25 equal isotropic Gaussians on a square grid of 5 × 5 means, `spacing` apart, C_k = std² I.

    The mean is 0, the covariance (2 spacing² + std²) I, which is 1.0025 I by default.
    """
    spacing = as_number(spacing, "spacing", low=0.0, high=LARGEST)
    std = as_number(std, "std", low=SMALLEST, high=LARGEST)
    axis = spacing * np.arange(-2, 3)
    means = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(25, 2)
    return Mixture(np.full(25, 1 / 25), means, np.tile(std**2 * np.eye(2), (25, 1, 1)))


def checkerboard(squares: int = 4) -> Histogram:
    """The uniform distribution on every other unit square of a board of squares × squares, centred at 0.

    p(x) = 2/squares² on the board where ⌊x_1⌋ + ⌊x_2⌋ is even, else 0.  The mean is 0, the variance squares²/12 a
    coordinate.

    Parameters
    ----------
    squares : int
        Squares a side, even; the board covers [−squares/2, squares/2)².

    Raises
    ------
    TypeError, ValueError
        If squares is not an even integer of at least 2.
    """
    if as_count(squares, "squares", minimum=2, maximum=1000) % 2:
        raise ValueError(f"squares must be even, so that half of them are filled, got {squares}")
    edges = np.arange(squares + 1) - squares / 2
    filled = np.add.outer(edges[:-1], edges[:-1]) % 2 == 0
    return Histogram(edges, edges, filled / filled.sum())


# --- curves with noise --------------------------------------------------------------------------------------


LEAST_NOISE = 1e-3
PANEL = 5.0  # length of curve that 16 Gauss-Legendre nodes cover, in standard deviations of the noise


def _noisy_curve(
    curve: Callable[[Array], Array], low: float, high: float, speed: float, noise: float, power: int = 0
) -> Mixture:
    """The law of curve(θ) + noise · ε with θ in [low, high] of density ∝ θ^power, ε ~ N(0, I).

    The integral over θ is a Gauss-Legendre rule on panels, so that the law is a mixture with a component for every
    node.  The relative error of the density is below 1e-11 where it is above 1e-20 of its maximum.

    Parameters
    ----------
    curve : callable
        θ (n,) → (n, 2); or (K, n, 2) for the mean of K curves.
    speed : float
        Largest |d curve/dθ|.
    """
    noise = as_number(noise, "noise", low=LEAST_NOISE, high=LARGEST)
    n_panels = int(np.ceil(speed * (high - low) / (PANEL * noise))) + 1
    nodes, weights = np.polynomial.legendre.leggauss(16)
    theta = (low + (high - low) * (np.arange(n_panels)[:, None] + (nodes + 1) / 2) / n_panels).ravel()
    weights = np.tile(weights, n_panels) * theta**power
    means = curve(theta).reshape(-1, 2)
    weights = np.tile(weights, len(means) // len(theta))
    return Mixture(weights / weights.sum(), means, np.tile(noise**2 * np.eye(2), (len(means), 1, 1)))


def two_moons(*, noise: float = 0.05) -> Mixture:
    """Two interleaving half circles with noise.

    x = s (cos θ − 1/2, sin θ − 1/4) + noise · ε with s = ±1, θ uniform on [0, π), ε ~ N(0, I).  The set is
    make_moons of scikit-learn, centred, with random angles and sides.  The mean is 0; variances are 0.75 and 0.24
    (+ noise²).  The law is an integral over θ, see `_noisy_curve`.
    """

    def moons(theta: Array) -> Array:
        moon = np.stack([np.cos(theta) - 1 / 2, np.sin(theta) - 1 / 4], axis=1)
        return np.stack([moon, -moon])

    return _noisy_curve(moons, 0.0, np.pi, 1.0, noise)


def rings(*, noise: float = 0.04) -> Mixture:
    """Four circles about 0 with noise, of radii 3/8, 3/4, 9/8 and 3/2 and equal weight; θ is uniform.

    The mean is 0, the variance of a coordinate 0.53 (+ noise²).
    """

    def circles(theta: Array) -> Array:
        circle = np.stack([np.cos(theta), np.sin(theta)], axis=1)
        return np.multiply.outer(np.array([0.375, 0.75, 1.125, 1.5]), circle)

    return _noisy_curve(circles, 0.0, 2 * np.pi, 1.5, noise)


def spirals(*, noise: float = 0.05) -> Mixture:
    """Two spirals of one and a half turns with noise.

    x = s θ (−cos θ, sin θ)/6 + noise · ε with s = ±1, θ = 3π √u and u uniform on [0, 1), ε ~ N(0, I).  The mean is 0;
    variances are 0.64 and 0.60 (+ noise²).
    """

    def arms(theta: Array) -> Array:
        arm = theta[:, None] * np.stack([-np.cos(theta), np.sin(theta)], axis=1) / 6
        return np.stack([arm, -arm])

    return _noisy_curve(arms, 0.0, 3 * np.pi, float(np.hypot(1, 3 * np.pi)) / 6, noise, power=1)


def swiss_roll(*, noise: float = 0.05) -> Mixture:
    """A spiral of one and a half turns with noise.

    x = ((θ cos θ, θ sin θ) − (2, 2/(3π)))/10 + noise · ε with θ uniform on [3π/2, 9π/2), ε ~ N(0, I).  The coordinates
    are the first and the third of scikit-learn's make_swiss_roll, centred and divided by 10.  The mean is 0; variances
    are 0.44 and 0.48 (+ noise²).
    """

    def roll(theta: Array) -> Array:
        return np.stack([theta * np.cos(theta) - 2, theta * np.sin(theta) - 2 / (3 * np.pi)], axis=1) / 10

    return _noisy_curve(roll, 1.5 * np.pi, 4.5 * np.pi, float(np.hypot(1, 4.5 * np.pi)) / 10, noise)


def pinwheel(*, n_arms: int = 5, radial_std: float = 0.3, tangential_std: float = 0.1, rate: float = 0.25) -> Pinwheel:
    """A wheel of bent arms: x = R(2πk/n_arms + rate · exp(r)) (r, s), see `scratchgen.plane.Pinwheel`.

    The set is the pinwheel of Johnson et al. (2016), mirrored.  The mean is 0; for three arms and more the covariance
    is (1 + radial_std² + tangential_std²)/2 I, which is 0.55 I by default.
    """
    return Pinwheel(n_arms, radial_std, tangential_std, rate)
