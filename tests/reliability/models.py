"""Small fitted models of every kind, what they say, and how a file of one is taken apart and put together."""

import io
import json
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    VE,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    NoiseSchedule,
    ScoreSDE,
)

REALS = np.random.default_rng(0).standard_normal((40, 3)) @ np.diag([3.0, 1.0, 0.5])
LEVELS = np.random.default_rng(1).integers(0, 4, (40, 3)).astype(np.float64)

KINDS = {
    "GaussianMixture full": lambda: GaussianMixture(2, max_iter=4, means_init=REALS[:2], rng=0),
    "GaussianMixture tied": lambda: GaussianMixture(2, "tied", max_iter=4, rng=np.random.default_rng(0)),
    "GaussianMixture diag": lambda: GaussianMixture(2, "diag", max_iter=4, covariance_prior=(0.5, 2.0), rng=0),
    "GaussianMixture spherical": lambda: GaussianMixture(2, "spherical", max_iter=4, rng=0),
    "CategoricalMixture": lambda: CategoricalMixture(2, n_levels=4, max_iter=4, rng=0),
    "PPCA": lambda: PPCA(1),
    "PPCA by EM": lambda: PPCA(2, method="em", max_iter=5, rng=np.random.Generator(np.random.MT19937(0))),
    "FactorAnalysis": lambda: FactorAnalysis(1, max_iter=5, rng=np.random.Generator(np.random.Philox(0))),
    "VAE": lambda: VAE(2, hidden=(6, 5), decoder_hidden=(4,), decoder_variance="diag", n_steps=5, rng=0),
    "VAE of levels": lambda: VAE(1, hidden=[6], n_levels=4, dtype="float64", n_steps=5, rng=0),
    "LinearVAE": lambda: LinearVAE(1, n_steps=5, rng=np.random.Generator(np.random.SFC64(0))),
    "DDPM": lambda: DDPM(NoiseSchedule.linear(10), "optimal", hidden=(6,), n_steps=5, batch_size=8, rng=0),
    "DDPM of levels": lambda: DDPM(
        NoiseSchedule.cosine(8), prediction="levels", n_levels=4, hidden=(6,), n_steps=5, batch_size=8, rng=0
    ),
    "ScoreSDE": lambda: ScoreSDE(n_sample_steps=5, hidden=(6, 6), n_steps=5, batch_size=8, rng=0),
    "ScoreSDE of VE": lambda: ScoreSDE(VE(0.01, 30.0), n_sample_steps=5, hidden=(6,), n_steps=5, batch_size=8, rng=0),
    "ScoreSDE of levels": lambda: ScoreSDE(
        prediction="levels", n_levels=4, n_sample_steps=5, hidden=(6,), n_steps=5, batch_size=8, rng=0
    ),
    "DDPM, left": lambda: DDPM(NoiseSchedule.linear(10), step_choice="importance", hidden=(6,), n_steps=5, rng=0),
    "VAE, left": lambda: VAE(2, hidden=(6,), n_steps=5, rng=0),
    "ScoreSDE, left": lambda: ScoreSDE(early_stopping=True, n_sample_steps=5, hidden=(6,), n_steps=5, rng=0),
    "GaussianMixture, left": lambda: GaussianMixture(2, tol=0.0, max_iter=2, n_init=3, rng=0),
    "CategoricalMixture, left": lambda: CategoricalMixture(2, n_levels=4, tol=0.0, max_iter=5, rng=0),
    "PPCA, left": lambda: PPCA(2, method="em", tol=0.0, max_iter=5, rng=0),
    "FactorAnalysis, left": lambda: FactorAnalysis(1, tol=0.0, max_iter=5, rng=np.random.Generator(np.random.SFC64(0))),
}


def data(model):
    """Data that the model accepts."""
    return REALS if getattr(model, "n_levels", None) is None else LEVELS


@cache
def fitted(kind):
    """The fitted model of a kind; ", left" stands for a training that was left after three steps."""
    model = KINDS[kind]()
    if not kind.endswith(", left"):
        return model.fit(data(model))
    for _ in zip(range(3), model.train(data(model)), strict=False):
        pass
    return model


@cache
def file_of(kind):
    """Bytes of a saved model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        fitted(kind).save(path)
        return path.read_bytes()


def numbers(model):
    """All that a model holds, in bytes: arguments, fitted attributes and column names."""
    arrays = {name: np.asarray(getattr(model, name)) for name in ("n_features_in_", *model._fitted)}
    state = model.training_state_
    arrays |= {} if state is None else {name: np.asarray(state.arrays[name]) for name in sorted(state.arrays)}
    held = b"".join(name.encode() + array.dtype.str.encode() + array.tobytes() for name, array in arrays.items())
    names = list(getattr(model, "feature_names_in_", ()))
    rest = () if state is None else (state.step, state.checksum, text_of(state.generator))
    return held + f"{text_of(model.get_params())}{names}{rest}".encode()


def text_of(value):
    """A text that differs for different arguments."""
    match value:
        case dict():
            return str({key: text_of(part) for key, part in value.items()})
        case np.ndarray():
            return f"{value.dtype}{value.tolist()}"
        case np.random.Generator():
            return text_of(value.bit_generator.state)
        case NoiseSchedule():
            return f"schedule {value.variances.tolist()}"
    return repr(value)


def said(model, n=3):
    """Samples and bounds of a model with a given seed, as bytes."""
    x = data(model)[:5]
    return model.sample(n, rng=1).tobytes() + np.asarray(model.elbo(x, rng=2)).tobytes()


def members(content):
    """Header as an object, and arrays as bytes of .npy files, of a saved model."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    header = json.loads(str(np.load(io.BytesIO(parts.pop("header")))))
    return header, parts


def npy(array):
    """An array as bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(header, parts, compression=zipfile.ZIP_DEFLATED):
    """The bytes of a file with right checksums; `header` is an object, a text, or bytes of an .npy file."""
    buffer = io.BytesIO()
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("header.npy", text if isinstance(text, bytes) else npy(np.array(text)))
        for name, content in parts.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()
