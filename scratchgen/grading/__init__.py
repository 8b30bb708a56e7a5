"""Exact answers for trained models: Bayes loss and excess, a VAE's gaps, the density of a chain of Gaussian steps.

`noise` grades noise predictors on data from a mixture, `vae` linear VAEs and those with one latent, `chain` follows a
sampler's density step by step.
"""

from scratchgen.grading.chain import GridDensity, ancestral_density, chain_density, euler_density
from scratchgen.grading.noise import NoiseGrade, SampledNoiseGrade, grade_noise, sample_noise_grade
from scratchgen.grading.vae import (
    LinearVAEGrade,
    VAEGrade,
    gaussian_gap,
    grade_linear_vae,
    grade_vae,
    nearest_gaussian,
    transport_decoder,
)

__all__ = [
    "GridDensity",
    "LinearVAEGrade",
    "NoiseGrade",
    "SampledNoiseGrade",
    "VAEGrade",
    "ancestral_density",
    "chain_density",
    "euler_density",
    "gaussian_gap",
    "grade_linear_vae",
    "grade_noise",
    "grade_vae",
    "nearest_gaussian",
    "sample_noise_grade",
    "transport_decoder",
]
