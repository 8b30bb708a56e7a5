"""The seven models of `scratchgen fit`: class, equation, example and typical time of each."""

from __future__ import annotations

from typing import NamedTuple

from scratchgen import DDPM, PPCA, VAE, CategoricalMixture, FactorAnalysis, GaussianMixture, ScoreSDE
from scratchgen.models.estimator import Estimator
from scratchgen.models.network_model import FEWEST_STEPS, MOST_STEPS, STEPS_A_ROW

N_STEPS = (
    f"n_steps=None takes {STEPS_A_ROW} steps of training a row, but {FEWEST_STEPS} at least and {MOST_STEPS} at most"
)
SHARP = f"sharp shapes in a plane need n_steps={MOST_STEPS}"


class Verb(NamedTuple):
    """A model of `scratchgen fit`."""

    cls: type[Estimator]
    about: str
    equation: str  # indented lines
    note: str
    example: str
    seconds: str


VERBS = {
    "gmm": Verb(
        GaussianMixture,
        "a Gaussian mixture, by EM",
        "  p(x) = sum_k π_k N(x; m_k, C_k)\n  EM: q(z|x) = p_θ(z|x), (18), then the θ of (15)",
        "One component at the default; n_components=3 for three.  Best for tables of a few columns.  With "
        "covariance_type='full' missing cells (empty, NA or nan) are missing values.",
        "scratchgen fit gmm penguins -o model.npz --set n_components=3",
        "under 1 s for 342 rows of 4 columns",
    ),
    "ppca": Verb(
        PPCA,
        "probabilistic principal components, in closed form",
        "  p(z) = N(0, I), p(x|z) = N(W z + μ, σ² I)\n  maximum of log p_θ(x) = ELBO(q) + KL(q‖p_θ(z|x)), (8)",
        "All columns share one noise σ², so that columns of one unit fit best.  Missing cells (empty, NA or nan) are "
        "missing values; the fit then is by EM.",
        "scratchgen fit ppca penguins -o model.npz --set n_components=2",
        "under 1 s",
    ),
    "fa": Verb(
        FactorAnalysis,
        "factor analysis, by EM",
        "  p(z) = N(0, I), p(x|z) = N(W z + μ, diag Ψ)\n  EM: q(z|x) = p_θ(z|x), (18), then the θ of (15)",
        "Every column has its own noise, so that columns may have any units.",
        "scratchgen fit fa penguins -o model.npz --set n_components=2",
        "under 1 s",
    ),
    "tables": Verb(
        CategoricalMixture,
        "a mixture of tables for whole numbers, by EM",
        "  P(x) = sum_k π_k prod_d P_kd(x_d)\n  EM: q(z|x) = p_θ(z|x), (18), then the θ of (15)",
        "For whole numbers 0, 1, 2, ...; n_levels is one more than the largest cell unless it is set.  All columns "
        "share it, so that columns of one range fit best.",
        "scratchgen fit tables digits -o model.npz --set n_components=20",
        "1 s for the 1797 digits and 20 components",
    ),
    "vae": Verb(
        VAE,
        "a variational autoencoder",
        "  loss = E_p E_{z~q}[−log p_θ(x|z)] + E_p KL(q(z|x)‖q(z)), (14)",
        f"{N_STEPS}.  For whole numbers set n_levels (n_levels=2 for zeros and ones): the likelihood is then a "
        "probability.",
        "scratchgen fit vae digits -o model.npz --set n_latents=8 --set n_levels=17",
        "5 s",
    ),
    "ddpm": Verb(
        DDPM,
        "a denoising diffusion model",
        "  x_t = ᾱ_t x_0 + β̄_t ε, (25); loss = E_t λ_t ‖ε − ε̂(x_t, t)‖², the part of (29) with θ\n"
        "  p_θ = p_θ(x_T) prod p_θ(x_{t−1}|x_t), (19)",
        f"{N_STEPS}; {SHARP}.  --set 'schedule=linear(200)' or 'schedule=cosine(200)' set another number of steps of "
        "the chain; None is linear(100).  For whole numbers set n_levels.",
        "scratchgen fit ddpm two_moons -o model.npz --set n_coordinate_features=3",
        "10 s for 5000 steps on two columns",
    ),
    "sde": Verb(
        ScoreSDE,
        "a score-based SDE",
        "  loss = E_t λ(t) ‖∇log p_t − s_θ‖², (33)\n"
        "  dx = [f − g² ∇log p_t] dt + g dw, backwards, (32); its bound is (34)",
        f"{N_STEPS}; {SHARP}.  --set 'sde=VE(0.01,50)', 'sde=SubVP()' or 'sde=VP(0.1,20)' set the process; None is "
        "VP().  For whole numbers set n_levels.",
        "scratchgen fit sde two_moons -o model.npz --set n_coordinate_features=3",
        "10 s for 5000 steps on two columns",
    ),
}
