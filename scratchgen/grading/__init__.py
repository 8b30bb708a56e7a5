"""Exact grades of trained models: Bayes loss and excess, bounds, the gaps of a VAE, the density of a sampler.

* `noise`: noise predictors on data of a known law, and the bounds (21) and (34), which follow from their losses.
* `score_sde`: both sides of (34) for a fitted ScoreSDE.
* `vae`: linear VAEs, and VAEs with one latent; `one_latent`: integrals over one latent.
* `chain`: the density of a sampler, computed step by step.

A network is any callable over NumPy arrays.  A function around one of PyTorch converts x_t to a tensor, calls the
network without gradients, and returns `.double().numpy()`.  benchmarks/conformance/examples/grade_torch.py trains such
a network and grades it by `grade_noise`, `ancestral_density` and `euler_density`.
"""

from scratchgen.grading.chain import GridDensity, ancestral_density, chain_density, euler_density
from scratchgen.grading.noise import (
    BoundGrade,
    Denoiser,
    KLBoundGrade,
    NoiseGrade,
    SampledNoiseGrade,
    grade_bound,
    grade_kl_bound,
    grade_noise,
    sample_noise_grade,
)
from scratchgen.grading.one_latent import OneLatent, nearest_gaussian
from scratchgen.grading.score_sde import ScoreSDEGrade, grade_score_sde
from scratchgen.grading.vae import LinearVAEGrade, VAEGrade, gaussian_gap, grade_linear_vae, grade_vae

__all__ = [
    "BoundGrade",
    "Denoiser",
    "GridDensity",
    "KLBoundGrade",
    "LinearVAEGrade",
    "NoiseGrade",
    "OneLatent",
    "SampledNoiseGrade",
    "ScoreSDEGrade",
    "VAEGrade",
    "ancestral_density",
    "chain_density",
    "euler_density",
    "gaussian_gap",
    "grade_bound",
    "grade_kl_bound",
    "grade_linear_vae",
    "grade_noise",
    "grade_score_sde",
    "grade_vae",
    "nearest_gaussian",
    "sample_noise_grade",
]
