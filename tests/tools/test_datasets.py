"""Shipped data against published facts, random data against their formulas, the checkerboard against its density.

Statistical tests have fixed seeds, and bounds that a correct implementation exceeds with probability 1e-7.
"""

import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import scratchgen
from scratchgen import datasets
from scratchgen.datasets import (
    checkerboard,
    dequantize,
    digits,
    eight_gaussians,
    gaussian_grid,
    gaussians_1d,
    gaussians_2d,
    penguins,
    pinwheel,
    rings,
    spirals,
    swiss_roll,
    two_moons,
)
from scratchgen.mixture import Mixture

FALSE_ALARM = 1e-7
SAMPLERS = {
    "eight_gaussians": lambda n, rng: eight_gaussians().sample(n, rng),
    "gaussians_2d": lambda n, rng: gaussians_2d().sample(n, rng),
    "checkerboard": checkerboard().sample,
    "two_moons": two_moons().sample,
    "rings": rings().sample,
    "spirals": spirals().sample,
    "gaussian_grid": gaussian_grid().sample,
    "swiss_roll": swiss_roll().sample,
    "pinwheel": pinwheel().sample,
}
each_sampler = pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS.keys())


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()[:32]


def z_bound(n_tests):
    return stats.norm.isf(FALSE_ALARM / (2 * n_tests))


def counts_agree(counts, probabilities):
    """Whether every count is in its exact binomial interval; the false alarms of all cells sum to FALSE_ALARM."""
    tail = FALSE_ALARM / (2 * len(counts))
    n = np.sum(counts)
    return bool(
        np.all(stats.binom.cdf(counts, n, probabilities) > tail)
        and np.all(stats.binom.sf(np.asarray(counts) - 1, n, probabilities) > tail)
    )


def is_standard_normal(x):
    """Whether the two columns of x pass tests for independent N(0, 1); three tests share the false alarms."""
    p_values = [stats.kstest(column, "norm").pvalue for column in x.T] + [stats.pearsonr(*x.T).pvalue]
    return min(p_values) > FALSE_ALARM / 3


# --- digits -------------------------------------------------------------------------------------------------


def test_digits_are_the_published_ones():
    images, labels = digits()
    assert images.shape == (1797, 64)
    assert (images.dtype, labels.dtype) == (np.float64, np.int64)
    assert images.sum() == 561718
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.array_equal(np.unique(images), np.arange(17))
    assert (images.std(axis=0) == 0).sum() == 3
    assert sha256(images.astype("u1")) == "8f26b2bd9d135c256808f68f14fdabdd"
    assert sha256(labels.astype("u1")) == "8ba4f891220f5e4c9c819638d1602d74"


def test_split_is_frozen():
    data = datasets._load("digits")
    assert sha256(data["train"].astype("<u2")) == "135c83a8cd335bc805b03d4216bcd636"
    assert sha256(data["test"].astype("<u2")) == "8a49fbfc8d0ef45fe7496f735502f028"


def test_split_is_a_stratified_partition():
    data = datasets._load("digits")
    together = np.concatenate([data["train"], data["test"]])
    assert np.array_equal(np.sort(together), np.arange(1797))
    everything, train, test = digits("all"), digits("train"), digits("test")
    assert (len(train.images), len(test.images)) == (1437, 360)
    for part, rows in (train, data["train"]), (test, data["test"]):
        assert np.array_equal(part.images, everything.images[rows])
        assert np.array_equal(part.labels, everything.labels[rows])
    share = 360 / 1797 * np.bincount(everything.labels)
    assert np.abs(np.bincount(test.labels) - share).max() < 1


def test_loaded_arrays_belong_to_the_caller():
    digits().images[:] = -1
    penguins().measurements[:] = -1
    assert digits().images.min() == 0
    assert penguins().measurements.min() > 0


def test_digits_refuse_an_unknown_split():
    with pytest.raises(ValueError, match="split must be one of 'all', 'train', 'test', got 'valid'"):
        digits("valid")


# --- penguins -----------------------------------------------------------------------------------------------


def test_penguins_are_the_published_ones():
    data = penguins()
    x = data.measurements
    assert x.shape == (342, 4)
    assert (x.dtype, data.species.dtype) == (np.float64, np.int64)
    assert data.feature_names == ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
    assert dict(zip(data.species_names, np.bincount(data.species).tolist(), strict=True)) == {
        "Adelie": 151,
        "Chinstrap": 68,
        "Gentoo": 123,
    }
    np.testing.assert_allclose(x.mean(axis=0), [43.92193, 17.15117, 200.9152, 4201.754], rtol=5e-7)
    np.testing.assert_allclose(x.std(axis=0, ddof=1), [5.459584, 1.974793, 14.06171, 801.9545], rtol=5e-7)
    assert x.min(axis=0).tolist() == [32.1, 13.1, 172, 2700]
    assert x.max(axis=0).tolist() == [59.6, 21.5, 231, 6300]
    assert np.array_equal(np.round(x, 1), x)
    assert sha256(x.astype("<f8")) == "4d8720662b1dc157f420e45b5338673e"
    assert sha256(data.species.astype("u1")) == "990db4be9059dbfd0059cf162ab2b8a3"


# --- packaging ----------------------------------------------------------------------------------------------


def test_works_from_a_zip_file_without_scikit_learn(tmp_path):
    package = Path(scratchgen.__file__).parent
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        for path in package.rglob("*"):
            if path.suffix in {".py", ".npz"}:
                archive.write(path, Path("scratchgen") / path.relative_to(package))
    script = (
        "import sys; sys.path.insert(0, 'wheel.zip')\n"
        "from scratchgen import datasets\n"
        "assert 'wheel.zip' in datasets.__file__, datasets.__file__\n"
        "assert datasets.digits().images.sum() == 561718\n"
        "assert len(datasets.penguins().species) == 342\n"
        "assert not {'sklearn', 'pandas'} & set(sys.modules)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- dequantize ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_dequantize_adds_noise_and_floor_takes_it_away(dtype):
    levels = np.array([[0, 1, 7, 15, 16]] * 3, dtype=dtype)
    noise = np.array([[0.0] * 5, [0.3] * 5, [np.nextafter(1.0, 0.0)] * 5])  # 16 + the last rounds to 17
    x = dequantize(levels, noise=noise)
    assert x.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert np.array_equal(np.floor(x), levels)
    np.testing.assert_allclose(x, levels + noise, rtol=np.finfo(x.dtype).eps, atol=0)


def test_dequantize_draws_uniform_noise_from_rng():
    images = digits("test").images
    x = dequantize(images, rng=0)
    assert np.array_equal(np.floor(x), images)
    assert (x.min() >= 0) & (x.max() < 17)
    assert np.array_equal(x, dequantize(images, noise=np.random.default_rng(0).random(images.shape)))
    assert not np.array_equal(dequantize(images), dequantize(images))  # rng=None: fresh entropy


def test_dequantized_bits_per_dimension_are_those_of_the_levels():
    # a density that is constant on unit cells: one dequantized draw gives the discrete probability exactly
    p = np.array([0.5, 0.3, 0.2])
    levels = np.array([[0, 2], [1, 1]])
    log_prob = np.log(p[np.floor(dequantize(levels, rng=0)).astype(int)]).sum(axis=1)
    np.testing.assert_allclose(-log_prob / (2 * np.log(2)), -np.log2([0.5 * 0.2, 0.3 * 0.3]) / 2, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": [0.5]}, "levels must be whole"),
        ({"levels": [np.nan]}, "levels must be finite"),
        ({"levels": [1, 2], "noise": [0.5]}, r"noise must have the shape of levels, \(2,\), got \(1,\)"),
        ({"levels": [1], "noise": [1.0]}, r"noise must be in \[0, 1\)"),
        ({"levels": [1], "noise": [-0.1]}, r"noise must be in \[0, 1\)"),
        ({"levels": [1], "noise": [0.1], "rng": 0}, "rng and noise must not both"),
        ({"levels": [1], "rng": -1}, "rng must be"),
    ],
)
def test_dequantize_refuses_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        dequantize(**arguments)


def test_dequantize_accepts_no_data():
    assert dequantize(np.zeros((0, 64)), rng=0).shape == (0, 64)


# --- mixtures -----------------------------------------------------------------------------------------------


def test_eight_gaussians_stand_on_a_circle():
    mixture = eight_gaussians()
    assert isinstance(mixture, Mixture)
    np.testing.assert_allclose(np.hypot(*mixture.means.T), np.sqrt(2), rtol=1e-15)
    neighbours = np.linalg.norm(mixture.means - np.roll(mixture.means, 1, axis=0), axis=1)
    np.testing.assert_allclose(neighbours, 2 * np.sqrt(2) * np.sin(np.pi / 8), rtol=1e-14)
    np.testing.assert_allclose(mixture.covariance(), (1 + 1 / 32) * np.eye(2), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(eight_gaussians(3, 0.5).covariance(), 4.75 * np.eye(2), rtol=1e-14, atol=1e-14)


def test_gaussians_1d_are_three_apart():
    mixture = gaussians_1d()
    np.testing.assert_allclose(mixture.mean(), 0, atol=1e-15)
    np.testing.assert_allclose(mixture.covariance(), 1.007, atol=5e-4)
    assert np.unique(mixture.weights).size == np.unique(mixture.covariances).size == 3
    valleys = mixture.log_prob(np.array([[-0.5], [0.6]]))
    assert (valleys < mixture.log_prob(mixture.means).min() - 1.5).all()
    drawn = mixture.sample(4000, rng=0)
    assert 0.98 < mixture.posterior(drawn).max(axis=1).mean() < 1


def test_gaussians_2d_are_general_and_well_conditioned():
    mixture = gaussians_2d()
    eigenvalues, vectors = np.linalg.eigh(mixture.covariances)
    assert (eigenvalues[:, 1] / eigenvalues[:, 0]).max() < 7
    assert np.unique(mixture.weights).size == 4
    directions = np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]) % np.pi
    assert np.diff(np.sort(directions)).min() > 0.05
    np.testing.assert_allclose(mixture.mean(), 0, atol=1e-15)
    np.testing.assert_allclose(np.diagonal(mixture.covariance()), [1.03, 0.85], atol=0.005)
    posterior = mixture.posterior(mixture.sample(4000, rng=0))
    assert 0.9 < posterior.max(axis=1).mean() < 0.99  # the components overlap, a little


# --- checkerboard -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squares", [2, 4, 6])
def test_checkerboard_density_integrates_to_one_and_gives_the_entropy(squares):
    board = checkerboard(squares)
    nodes = np.arange(-squares, squares, 0.25) + 0.125  # twice the board; exact, as p is piecewise constant
    x = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    log_prob = board.log_prob(x)
    p = np.exp(log_prob)
    filled = p > 0
    assert p.sum() / 16 == pytest.approx(1, rel=1e-14)
    assert -(p[filled] @ log_prob[filled]) / 16 == pytest.approx(board.entropy(), rel=1e-14)
    assert np.all(log_prob[~filled] == -np.inf)
    np.testing.assert_allclose(p[filled] @ x[filled] / 16, 0, atol=1e-14)
    np.testing.assert_allclose(p[filled] @ x[filled] ** 2 / 16, (squares**2 - 0.25**2) / 12, rtol=1e-13)


def test_checkerboard_fills_the_published_squares():
    # FFJORD's rule: x_1 anywhere; x_2 in [0, 1) or [-2, -1), and one higher if floor(x_1) is odd
    assert checkerboard().entropy() == np.log(8)
    for column in -2, -1, 0, 1:
        rows = {0 + column % 2, -2 + column % 2}
        for row in range(-4, 4):
            inside = checkerboard().log_prob([[column + 0.5, row + 0.5]])[0] > -np.inf
            assert inside == (row in rows)
    outside = [[-3.5, 0.5], [2.5, 0.5], [0.5, -3.5], [0.5, 2.5], [2.0, 0.0], [1e60, 1e60]]
    assert np.all(checkerboard().log_prob(outside) == -np.inf)


@pytest.mark.parametrize("squares", [2, 4])
def test_checkerboard_sample_is_uniform_on_the_filled_squares(squares):
    board, n = checkerboard(squares), 40_000
    x = board.sample(n, rng=1)
    np.testing.assert_array_equal(board.log_prob(x), -board.entropy())
    quarter = np.floor(2 * x).astype(int)  # four cells per square, to test the density inside a square as well
    counts = np.unique(quarter, axis=0, return_counts=True)[1]
    assert len(counts) == 2 * squares**2
    assert counts_agree(counts, 1 / len(counts))


def test_counts_agree_can_fail():
    uneven = np.full(32, 1250)
    uneven[:16] += 250
    uneven[16:] -= 250
    assert not counts_agree(uneven, 1 / 32)


@pytest.mark.parametrize("squares", [0, 3, -2])
def test_checkerboard_refuses_odd_and_empty_boards(squares):
    with pytest.raises(ValueError, match="squares must be"):
        checkerboard(squares)


def test_checkerboard_refuses_points_of_another_dimension():
    with pytest.raises(ValueError, match="x must have 2 columns"):
        checkerboard().log_prob(np.zeros((1, 3)))


# --- properties of all data sets -----------------------------------------------------------------------------


@each_sampler
def test_samples_are_centred_and_of_order_one(sample):
    x = sample(40_000, 0)
    assert np.abs(x.mean(axis=0) / (x.std(axis=0) / np.sqrt(len(x)))).max() < z_bound(2 * len(SAMPLERS))
    assert np.all((x.std(axis=0) > 0.45) & (x.std(axis=0) < 1.25))
    assert np.mean(np.abs(x) < 2.1) > 0.98


@each_sampler
def test_rows_are_exchangeable(sample):
    # rows with a common arm, moon or angle would be correlated; absolute values find dependent magnitudes
    x = sample(40_000, 0)
    for y in x, np.abs(x):
        z = (y - y.mean(axis=0)) / y.std(axis=0)
        assert np.abs((z[1:] * z[:-1]).sum(axis=0) / np.sqrt(len(z))).max() < z_bound(4 * len(SAMPLERS))


@each_sampler
def test_same_seed_same_bytes_other_seed_other_bytes(sample):
    first = sample(50, 0)
    assert first.shape == (50, 2)
    assert first.dtype == np.float64
    assert first.tobytes() == sample(50, 0).tobytes()
    assert first.tobytes() == sample(50, np.random.default_rng(0)).tobytes()
    assert not np.isin(first % 1, sample(50, 1) % 1).any()  # % 1 compares positions within a square of the checkerboard
    assert sample(50, None).tobytes() != sample(50, None).tobytes()
    assert sample(0, 0).shape == (0, 2)
    generator = np.random.default_rng(0)
    assert sample(50, generator).tobytes() != sample(50, generator).tobytes()


@each_sampler
def test_global_random_state_is_not_touched(sample):
    before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    sample(50, 0)
    assert pickle.dumps(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("draw", [two_moons().sample, pinwheel().sample, checkerboard().sample])
def test_n_and_rng_are_checked(draw):
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        draw(-1)
    with pytest.raises(TypeError, match="n must be an integer"):
        draw(2.0)
    with pytest.raises(TypeError, match="rng must be"):
        draw(2, rng=0.5)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: two_moons(noise=-1), "noise"),
        (lambda: swiss_roll(noise=np.inf), "noise"),
        (lambda: pinwheel(n_arms=1), "n_arms"),
        (lambda: pinwheel(radial_std=-1), "radial_std"),
        (lambda: pinwheel(tangential_std=-1), "tangential_std"),
        (lambda: pinwheel(rate=np.nan), "rate"),
        (lambda: eight_gaussians(radius=-1), "radius"),
        (lambda: eight_gaussians(std=0), "std"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
