"""Exact answers for trained models: Bayes loss and excess, bounds, a VAE's gaps, the density of a sampler.

`noise` grades noise predictors on data from a mixture, and the bounds (21) and (34) that follow from their losses;
`vae` grades VAEs that are linear and VAEs with one latent, over which `one_latent` integrates; `chain` follows a
sampler's density step by step.
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
    "VAEGrade",
    "ancestral_density",
    "chain_density",
    "euler_density",
    "gaussian_gap",
    "grade_bound",
    "grade_kl_bound",
    "grade_linear_vae",
    "grade_noise",
    "grade_vae",
    "nearest_gaussian",
    "sample_noise_grade",
]
