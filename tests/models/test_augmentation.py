"""Augmentation: copies against SciPy's transformations, the numbers told, and training with them."""

from functools import partial

import numpy as np
import pytest
from scipy import ndimage, stats

from scratchgen import DDPM, VAE, ScoreSDE, augmentation, datasets, load, to_ddpm
from scratchgen.augmentation import LARGEST_DEFORMATION, N_KNOTS, Deformations, Shifts, copies, deform
from scratchgen.datasets import bitmap_levels, digit_bitmaps
from scratchgen.report.settings import value_of

IMAGES = datasets.digits("test").images
STILL = np.zeros((len(IMAGES), 2, N_KNOTS, N_KNOTS))


def shifted(images, rows, columns):
    """Pictures of 8 × 8 pixels that are moved by whole pixels."""
    return np.array([ndimage.shift(image.reshape(8, 8), (rows, columns), order=0).ravel() for image in images])


def numbers(**given):
    """The six numbers of a deformation, the same for all images."""
    names = "down", "right", "turn", "log_height", "log_width", "slant"
    return np.tile([given.get(name, 0.0) for name in names], (len(IMAGES), 1))


# --- bitmaps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_levels", [17, 2])
def test_the_blocks_of_a_bitmap_have_as_many_bits_as_the_levels_say(n_levels):
    noise = 16 / (n_levels - 1) * np.random.default_rng(0).integers(0, n_levels, (50, 64))
    images = np.concatenate([IMAGES, noise, np.zeros((1, 64)), np.full((1, 64), 16)])
    bitmaps = digit_bitmaps(images)
    assert bitmaps.shape == (len(images), 32, 32)
    assert set(np.unique(bitmaps)) == {0, 1}
    assert (bitmap_levels(bitmaps) == images).all()
    counts = np.add.reduceat(np.add.reduceat(bitmaps, range(0, 32, 4), axis=1), range(0, 32, 4), axis=2)
    assert (counts.reshape(-1, 64) == images).all()
    assert (digit_bitmaps(images[::-1]) == bitmaps[::-1]).all()  # an image's bitmap does not depend on the others


def test_bitmaps_are_smooth():
    """Edges are as long as those of strokes; bits that are set in the order of their places have far longer ones."""
    bitmaps = digit_bitmaps(IMAGES).astype(int)
    order = np.arange(16) < IMAGES.reshape(-1, 8, 8)[..., None]
    plain = order.reshape(-1, 8, 8, 4, 4).swapaxes(2, 3).reshape(-1, 32, 32).astype(int)

    def edges(bits):
        return sum(np.abs(np.diff(bits, axis=axis)).sum() for axis in (1, 2)) / len(bits)

    assert edges(bitmaps) < 160 < 240 < edges(plain)


# --- deformations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [-1, 0, 1])
@pytest.mark.parametrize("columns", [-1, 0, 1])
def test_a_shift_by_four_bits_is_a_shift_by_one_pixel(rows, columns):
    moved = bitmap_levels(deform(digit_bitmaps(IMAGES), numbers(down=4.0 * rows, right=4.0 * columns), STILL))
    assert (moved == shifted(IMAGES, rows, columns)).all()
    inner = np.zeros((len(IMAGES), 8, 8))
    inner[:, 1:-1, 1:-1] = IMAGES.reshape(-1, 8, 8)[:, 1:-1, 1:-1]
    moved = deform(digit_bitmaps(inner.reshape(-1, 64)), numbers(down=4.0 * rows, right=4.0 * columns), STILL)
    assert (moved.sum(axis=(1, 2)) == inner.sum(axis=(1, 2))).all()  # no bit is lost


def test_a_turn_by_a_right_angle_and_a_stretch_by_two():
    bitmaps = digit_bitmaps(IMAGES)
    assert (deform(bitmaps, numbers(turn=np.pi / 2), STILL) == np.rot90(bitmaps, axes=(1, 2))).all()
    smaller = deform(bitmaps, numbers(log_height=np.log(2.0), down=0.25, right=0.25), STILL)
    assert (smaller[:, :8] == 0).all()
    assert (smaller[:, 24:] == 0).all()
    assert (smaller[:, 8:24] == bitmaps[:, ::2]).all()


def test_deformations_are_those_of_scipy():
    """SciPy interpolates the displacement and takes the nearest bit; ties by rounding are fewer than 1 in 10,000."""
    rng, n = np.random.default_rng(1), 40
    given = rng.uniform(-2, 2, (n, 6)) * LARGEST_DEFORMATION[:6]
    displacement = rng.standard_normal((n, 2, N_KNOTS, N_KNOTS))
    bitmaps = digit_bitmaps(IMAGES[:n])
    place = np.stack(np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij"))
    expected = []
    for bits, (down, right, turn, log_height, log_width, slant), moves in zip(
        bitmaps, given, displacement, strict=True
    ):
        row, column = place - 15.5
        row, column = np.exp(log_height) * row, np.exp(log_width) * column
        column = column + slant * row
        z = (row + 1j * column) * np.exp(-1j * turn)
        smooth = [ndimage.map_coordinates(move, place * (N_KNOTS - 1) / 31, order=1) for move in moves]
        source = 15.5 + np.stack([z.real - down + smooth[0], z.imag - right + smooth[1]])
        expected.append(ndimage.map_coordinates(np.pad(bits, 9), source + 9, order=0))
    right = deform(bitmaps, given, displacement) == np.array(expected)
    assert right.mean() > 0.9999


# --- draws and the numbers told --------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [Shifts(probability=0.0), Deformations(0.0, 1.0), Deformations(1.0, 0.0)])
def test_without_probability_or_strength_images_stay(augment):
    x, told = augment.draw(augment.pictures(IMAGES), np.random.default_rng(0))
    assert (x == IMAGES).all()
    assert (told[:, :7] == 0).all()
    assert (told[:, 7:] == augment.probability).all()
    assert (copies(IMAGES, 3, augment, rng=0) == np.tile(IMAGES, (3, 1))).all()


def test_every_shift_is_told_and_is_as_frequent_as_the_others():
    images = np.random.default_rng(0).standard_normal((4000, 6))
    augment = Shifts((2, 3), 0.5)
    x, told = augment.draw(augment.pictures(images), np.random.default_rng(1))
    for row, (rows, columns) in enumerate(told):
        assert (x[row] == ndimage.shift(images[row].reshape(2, 3), (rows, columns), order=0).ravel()).all()
    counts = np.bincount((3 * (told[:, 0] + 1) + told[:, 1] + 1).astype(int), minlength=9)
    expected = len(x) * np.where(np.arange(9) == 4, 0.5 + 0.5 / 9, 0.5 / 9)
    assert stats.chisquare(counts, expected).pvalue > 1e-7


def test_the_numbers_of_a_deformation_are_told_and_are_uniform(monkeypatch):
    augment, images = Deformations(0.5, 0.4), np.tile(IMAGES, (5, 1))
    pictures = augment.pictures(images)
    told = augment.draw(pictures, np.random.default_rng(0))[1]
    deformed = told[:, 7] == 1
    assert stats.binomtest(int(deformed.sum()), len(told), 0.5).pvalue > 1e-7
    assert (told[~deformed] == 0).all()
    for column in range(6):
        assert stats.kstest(told[deformed, column], stats.uniform(-0.4, 0.8).cdf).pvalue > 1e-8
    assert stats.kstest(told[deformed, 6], stats.uniform(0, 0.4).cdf).pvalue > 1e-8
    monkeypatch.setattr(augmentation, "LARGEST_DEFORMATION", LARGEST_DEFORMATION * (np.arange(7) < 6))
    x, told = augment.draw(pictures[:360], np.random.default_rng(0))
    assert (x == bitmap_levels(deform(pictures[:360], told[:, :6] * LARGEST_DEFORMATION[:6], STILL))).all()


def test_the_displacement_has_the_size_that_is_told(monkeypatch):
    """A copy of an image goes through `deform` with displacements whose standard deviation is 3 told[6] bits."""
    seen = []
    monkeypatch.setattr(augmentation, "deform", lambda bits, numbers, moves: seen.append(moves) or bits)
    told = Deformations(1.0, 0.5).draw(digit_bitmaps(IMAGES), np.random.default_rng(0))[1]
    moves = seen[0] / (3 * told[:, 6, None, None, None])
    assert moves.shape == STILL.shape
    assert stats.kstest(moves.ravel(), stats.norm.cdf).pvalue > 1e-7


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Shifts(shape=(8, 8, 1)), "shape must be height and width"),
        (lambda: Shifts(shape=8), "shape must be a sequence"),
        (lambda: Shifts(probability=1.5), "probability must be in"),
        (lambda: Deformations(strength=-0.1), "strength must be in"),
        (lambda: Shifts((4, 4)).pictures(IMAGES), r"images must have 4 · 4 columns for augment=Shifts\(shape=\(4, 4\)"),
        (lambda: Deformations().pictures(IMAGES / 2), "images must hold whole numbers in 0..16"),
        (lambda: bitmap_levels(digit_bitmaps(IMAGES)[:, :16]), r"bitmaps must have shape \(N, 32, 32\)"),
        (lambda: bitmap_levels(IMAGES), "bitmaps must hold the ints 0 and 1, got dtype float64"),
        (lambda: bitmap_levels(2 * digit_bitmaps(IMAGES)), r"bitmaps must have shape \(N, 32, 32\) and hold 0 and 1"),
        (lambda: copies(IMAGES, 2, "shifts"), "augment must be a Shifts or Deformations"),
    ],
)
def test_bad_arguments_are_named(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        wrong()


# --- training --------------------------------------------------------------------------------------------------------

MODELS = [VAE, DDPM, partial(ScoreSDE, prediction="levels")]
SMALL = {"n_levels": 17, "hidden": (8,), "n_steps": 20, "rng": 0}


def negative(self, pictures, rng):
    """Copies that are told apart from x: 16 − x."""
    return 16 - bitmap_levels(pictures).astype(float), np.zeros((len(pictures), 8))


@pytest.mark.parametrize("batch_size", [32, None])
def test_a_vae_trains_on_the_copies(monkeypatch, batch_size):
    expected = VAE(2, batch_size=batch_size, **SMALL).fit(16 - IMAGES)
    monkeypatch.setattr(Deformations, "draw", negative)
    model = VAE(2, batch_size=batch_size, augment=Deformations(), **SMALL).fit(IMAGES)
    for name in "encoder_", "decoder_", "log_variance_":
        assert (getattr(model, name) == getattr(expected, name)).all()
    assert (model.elbo(16 - IMAGES, rng=1) == expected.elbo(16 - IMAGES, rng=1)).all()  # bounds are of x itself


def started(kind, **given):
    """A model of a few steps."""
    return kind(**{**SMALL, "batch_size": 32, "augment": Deformations(), **given})


@pytest.mark.parametrize("kind", MODELS)
def test_training_with_copies_resumes_with_the_same_bytes(kind, tmp_path):
    whole, half = started(kind).fit(IMAGES), started(kind)
    for progress in half.train(IMAGES):
        if progress.step == 7:
            half.save(tmp_path / "half.npz")
            break
    resumed = load(tmp_path / "half.npz").resume(IMAGES)
    assert resumed.augment == Deformations()
    assert (resumed.losses_ == whole.losses_).all()
    assert (resumed.losses_ != started(kind, augment=None).fit(IMAGES).losses_).any()
    assert (resumed.elbo(IMAGES[:2], rng=1) == whole.elbo(IMAGES[:2], rng=1)).all()


@pytest.mark.parametrize("kind", MODELS)
def test_only_the_rows_of_training_have_copies(kind, monkeypatch):
    """Held-out rows, bounds and samples have none."""
    seen, calls, pictures, draw = [], [], Deformations.pictures, Deformations.draw
    monkeypatch.setattr(Deformations, "pictures", lambda self, images: seen.append(images) or pictures(self, images))
    monkeypatch.setattr(Deformations, "draw", lambda *given: calls.append(len(given[1])) or draw(*given))
    model, images = started(kind, early_stopping=True, validation_fraction=0.1), IMAGES[:40]
    [held_out] = [model.training_state_.arrays["held_out"] for progress in model.train(images) if progress.step == 1]
    assert len(held_out) == 4
    assert np.array_equal(np.concatenate(seen), np.delete(images, held_out, axis=0))
    model.elbo(IMAGES[:2], rng=0)
    model.sample(2, rng=0)
    assert calls == [32] * len(model.losses_)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"augment": Deformations}, "augment must be a Shifts or Deformations, got the class Deformations"),
        ({"augment": "Shifts"}, "augment must be a Shifts or Deformations, got 'Shifts'; from scratchgen.augmentation"),
        ({"n_levels": 18}, r"augment=Deformations\(.*\) needs n_levels=17, got 18; set it"),
        ({"n_levels": None}, r"augment=Deformations\(.*\) needs n_levels=17, got None; set it"),
        ({"augment": Shifts((4, 4))}, r"images must have 4 · 4 columns for augment=Shifts\(shape=\(4, 4\), .* got 64"),
    ],
)
def test_wrong_augmentations_are_refused(kind, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        started(kind, **given).fit(IMAGES)


@pytest.mark.parametrize("kind", MODELS)
def test_augment_is_an_argument_like_others(kind):
    model = started(kind, augment=Shifts(probability=0.5), n_steps=2).fit(IMAGES)
    assert "augment=Shifts(shape=(8, 8), probability=0.5)" in repr(model)
    assert model.get_params()["augment"] == Shifts(probability=0.5)


@pytest.mark.parametrize("kind", MODELS)
def test_copies_are_in_the_units_of_the_model(kind):
    images = np.random.default_rng(0).standard_normal((20, 64)) * np.arange(1, 65)
    given = {} if kind is VAE else {"prediction": "v"}
    model = started(kind, augment=Shifts(), n_levels=None, n_steps=1, **given).fit(images)
    x, told = Shifts().draw(images[[3, 3, 5]].reshape(3, 8, 8), np.random.default_rng(1))
    copied, numbers = model._copies(images, np.float32)(np.array([3, 3, 5]), np.random.default_rng(1))
    assert np.abs(copied - (x - images.mean(axis=0)) / images.std(axis=0)).max() < 1e-5
    assert (numbers == told).all()
    assert copied.dtype == numbers.dtype == np.float32


def test_a_network_that_is_told_numbers_serves_both_diffusion_models():
    model = started(ScoreSDE, prediction="levels", n_steps=1).fit(IMAGES)
    chain = to_ddpm(model, 10)
    assert chain.augment == model.augment
    assert (chain.network_(IMAGES / 8 - 1, 0.8, 0.6) == model.network_(IMAGES / 8 - 1, 0.8, 0.6)).all()


def test_other_forms_of_score_matching_are_refused():
    with pytest.raises(ValueError, match="augment must be None for matching='sliced'"):
        started(ScoreSDE, matching="sliced").fit(IMAGES)


@pytest.mark.parametrize("augment", [Shifts((4, 6), 0.25), Deformations(0.7, 0.5)])
def test_the_command_line_reads_an_augmentation(augment):
    assert value_of("augment", repr(augment)) == augment
