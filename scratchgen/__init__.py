"""scratchgen: VAE, EM, DDPM and score SDEs from scratch in NumPy, each graded against an exact answer."""

from scratchgen.ddpm.model import DDPM
from scratchgen.em import PPCA, CategoricalMixture, FactorAnalysis, GaussianMixture
from scratchgen.mixture import Mixture
from scratchgen.network import MLP
from scratchgen.optimizer import Adam
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde.model import ScoreSDE
from scratchgen.sde.processes import VE, VP, SubVP
from scratchgen.vae import VAE, LinearVAE

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
]
