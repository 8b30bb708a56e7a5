"""scratchgen: VAE, EM, DDPM and score SDEs from scratch in NumPy, each graded against an exact answer."""

from scratchgen.mixture import Mixture
from scratchgen.models.categorical_mixture import CategoricalMixture
from scratchgen.models.convert import to_ddpm, to_sde
from scratchgen.models.ddpm import DDPM
from scratchgen.models.gaussian_mixture import GaussianMixture
from scratchgen.models.linear_gaussian import PPCA, FactorAnalysis
from scratchgen.models.linear_vae import LinearVAE
from scratchgen.models.loading import load
from scratchgen.models.score_sde import ScoreSDE
from scratchgen.models.vae import VAE
from scratchgen.nn import MLP, Adam
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VE, VP, SubVP

__version__ = "0.1.0"

__all__ = [
    "DDPM",
    "MLP",
    "PPCA",
    "VAE",
    "VE",
    "VP",
    "Adam",
    "CategoricalMixture",
    "FactorAnalysis",
    "GaussianMixture",
    "LinearVAE",
    "Mixture",
    "NoiseSchedule",
    "ScoreSDE",
    "SubVP",
    "load",
    "to_ddpm",
    "to_sde",
]
