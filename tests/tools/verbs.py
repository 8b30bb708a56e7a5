"""Every verb of every model, with all of its options, on tiny data: `VERBS["DDPM.sample"]()` runs one verb.

`train` is `fit` step by step; `score` and `score_samples` are `log_prob` or `elbo` under the names of scikit-learn;
`save` computes nothing.  Models are fitted once and kept for all verbs except `fit`.
"""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    VE,
    VP,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    Mixture,
    NoiseSchedule,
    ScoreSDE,
    SubVP,
    grading,
)
from scratchgen.models.convert import to_ddpm, to_sde

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-1, 0.4, (12, 2)), RNG.normal(1, 0.3, (12, 2))])
Y = np.repeat([0, 1], 12)
WIDE = RNG.standard_normal((24, 3)) * [2.0, 1.0, 0.5]
GAPS = WIDE.copy()
GAPS[:8, 1] = GAPS[6:12, 2] = np.nan
LEVELS = RNG.integers(0, 4, (24, 2))
LINE = Mixture([0.4, 0.6], [[-1.0], [0.8]], [[[0.3]], [[0.4]]])
SMALL = {"hidden": (4,), "n_steps": 3, "batch_size": 6, "rng": 0}
T4 = NoiseSchedule.linear(4, 1e-2, 0.9)

WAYS = {
    "GaussianMixture": [
        (GaussianMixture(2, max_iter=3, rng=0), X),
        (GaussianMixture(2, "diag", max_iter=3, init_params="kmeans", covariance_prior=(0.1, 1.0), rng=0), X),
        (GaussianMixture(2, "tied", max_iter=2, init_params="random", rng=0), X),
        (GaussianMixture(3, max_iter=2, init_params="random_from_data", rng=0), 100 * X),
        (GaussianMixture(2, max_iter=2, rng=0), GAPS),
    ],
    "CategoricalMixture": [(CategoricalMixture(2, 4, max_iter=3, rng=0), LEVELS)],
    "PPCA": [(PPCA(1), WIDE), (PPCA(1, method="em", max_iter=3, rng=0), WIDE), (PPCA(1, max_iter=3), GAPS)],
    "FactorAnalysis": [(FactorAnalysis(1, max_iter=3, rng=0), WIDE)],
    "VAE": [
        (VAE(1, (4,), n_steps=3, batch_size=6, rng=0), X),
        (VAE(1, (4,), decoder_variance="diag", activation="tanh", n_steps=3, batch_size=None, rng=0), X),
        (VAE(1, (4,), n_levels=4, n_steps=3, batch_size=6, rng=0), LEVELS),
    ],
    "LinearVAE": [(LinearVAE(1, n_steps=3, rng=0), WIDE)],
    "DDPM": [
        (DDPM(T4, **SMALL), X),
        (DDPM(T4, "optimal", "bound", "importance", prediction="x0", n_coordinate_features=1, **SMALL), X),
        (DDPM(T4, "posterior", "min-snr", "stratified", prediction="noise", n_classes=2, weight_decay=0.1, **SMALL), X),
        (DDPM(T4, n_levels=4, clip_x0=True, **SMALL), LEVELS),
        (DDPM(T4, n_levels=4, prediction="levels", **SMALL), LEVELS),
        (DDPM(T4, "law", n_levels=4, prediction="levels", **SMALL), LEVELS),
        (DDPM(T4, "mixture", n_levels=4, prediction="levels", **SMALL), LEVELS),
        (DDPM(T4, "optimal-diag", **SMALL), X),
    ],
    "ScoreSDE": [
        (ScoreSDE(n_sample_steps=3, **SMALL), X),
        (ScoreSDE(VE(0.1, 3.0), weighting="noise", time_choice="importance", n_sample_steps=3, **SMALL), X),
        (ScoreSDE(SubVP(), matching="sliced", time_choice="uniform", n_sample_steps=3, **SMALL), X),
        (ScoreSDE(matching="implicit", n_coordinate_features=1, n_sample_steps=3, **SMALL), X),
        (ScoreSDE(n_levels=4, n_sample_steps=3, **SMALL), LEVELS),
        (ScoreSDE(n_levels=4, prediction="levels", n_sample_steps=3, n_classes=2, **SMALL), LEVELS),
    ],
}


def fitted(model, x):
    """A trained copy of a model."""
    copy = type(model)(**model.get_params())
    return copy.fit(x, Y) if getattr(model, "n_classes", 0) else copy.fit(x)


@cache
def kept(name):
    """(model, data) for every set of options, trained once."""
    return [(fitted(model, x), x) for model, x in WAYS[name]]


def each(name, use, ways=None):
    """A verb: `use(model, data)` for the models of that name."""

    def verb():
        for i, (model, x) in enumerate(kept(name)):
            if ways is None or i in ways:
                use(model, x)

    return verb


def fit(name):
    def verb():
        for model, x in WAYS[name]:
            fitted(model, x)

    return verb


@cache
def saved(name, way):
    """The file of a fitted model."""
    model, _ = kept(name)[way]
    path = Path(tempfile.mkdtemp()) / "model.npz"
    model.save(path)
    return path


def load(name):
    return each(name, lambda model, x: type(model).load(saved(name, [m for m, _ in kept(name)].index(model))))


def sample_ddpm(model, x):
    model.sample(3, rng=0)
    model.sample(3, rng=0, eta=0.5)
    model.sample(3, rng=0, stochasticity=0.5)
    if model.n_classes:
        model.sample(3, rng=0, y=[0, 1, 1], guidance=2.0)


def sample_sde(model, x):
    model.sample(3, rng=0, method="euler", n_corrections=1)
    model.sample(3, rng=0)
    for method in "ddim", "euler", "heun", "adaptive":
        model.sample(3, rng=0, stochasticity=0.0, method=method)
    if model.n_classes:
        for guidance_in in "eps", "logits":
            model.sample(3, rng=0, y=[0, 1, 1], guidance=2.0, guidance_in=guidance_in)


def log_prob_sde(model, x):
    if model.n_levels is None:
        model.log_prob(x[:2], rtol=1e-2)
        model.log_prob(x[:2], rtol=1e-2, n_probes=1, rng=0)


def respace(model, x):
    model.respace(2)


def line_net(x, t):
    return 0.7 * x


def line_score(x, t):
    return -0.8 * x


@cache
def vae_of_one_latent():
    return VAE(1, (4,), decoder_variance=0.5, n_steps=3, rng=0).fit(X)


VERBS = {f"{name}.fit": fit(name) for name in WAYS}
VERBS |= {f"{name}.load": load(name) for name in WAYS}
VERBS |= {
    f"{name}.{verb}": each(name, lambda model, x, verb=verb: getattr(model, verb)(x))
    for name, verbs in {
        "GaussianMixture": ("elbo", "log_prob", "predict_proba"),
        "CategoricalMixture": ("elbo", "log_prob", "predict_proba"),
        "PPCA": ("elbo", "log_prob", "encode"),
        "FactorAnalysis": ("elbo", "log_prob", "encode"),
        "VAE": ("encode", "reconstruct"),
        "LinearVAE": ("elbo", "log_prob", "encode", "reconstruct"),
    }.items()
    for verb in verbs
}
VERBS |= {
    f"{name}.{verb}": each(name, lambda model, x, verb=verb: getattr(model, verb)(x, rng=0))
    for name, verbs in {
        "VAE": ("elbo", "iwae"),
        "LinearVAE": ("iwae",),
        "DDPM": ("elbo", "noise_losses"),
        "ScoreSDE": ("elbo",),
    }.items()
    for verb in verbs
}
VERBS |= {
    f"{name}.sample": each(name, lambda model, x: model.sample(3, rng=0))
    for name in ("GaussianMixture", "CategoricalMixture", "PPCA", "FactorAnalysis", "VAE", "LinearVAE")
}
VERBS |= {
    "CategoricalMixture.denoise": each("CategoricalMixture", lambda model, x: model.denoise(0.1 * x, 0.8, 0.5)),
    "DDPM.sample": each("DDPM", sample_ddpm),
    "DDPM.iwae": each("DDPM", lambda model, x: model.iwae(x[:3], rng=0, n_draws=2)),
    "DDPM.respace": each("DDPM", respace),
    "ScoreSDE.sample": each("ScoreSDE", sample_sde),
    "ScoreSDE.log_prob": each("ScoreSDE", log_prob_sde),
    "to_sde": each("DDPM", lambda model, x: to_sde(model), ways=[0]),
    "to_ddpm": each("ScoreSDE", lambda model, x: to_ddpm(model, 3), ways=[0]),
    "grade_bound": lambda: grading.grade_bound(NoiseSchedule.linear(3), line_net, LINE),
    "grade_kl_bound": lambda: grading.grade_kl_bound(VP(), line_score, LINE, 0.1),
    "grade_noise": lambda: grading.grade_noise(LINE, lambda x: 0.7 * x, 0.8, 0.6),
    "sample_noise_grade": lambda: grading.sample_noise_grade(LINE, lambda x: 0.7 * x, X[:, :1], X[:, 1:], 0.8, 0.6),
    "grade_linear_vae": each("LinearVAE", lambda model, x: grading.grade_linear_vae(model, x)),
    "grade_vae": lambda: grading.grade_vae(vae_of_one_latent(), X[:2]),
    "gaussian_gap": lambda: grading.gaussian_gap(vae_of_one_latent(), X[:2]),
    "ancestral_density": lambda: grading.ancestral_density(NoiseSchedule.linear(20), line_net, 1),
    "euler_density": lambda: grading.euler_density(VP(), line_score, np.linspace(1, 0.05, 30), 1),
}
