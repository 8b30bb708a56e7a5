"""Names in the code and the symbols of the formulas that they stand for, by page."""

from __future__ import annotations

MARKS = tuple(f"mark-{i}" for i in range(1, 8))  # classes of the style sheet

TABLES = {
    "p": "p",
    "p_x": "p(x)",
    "q": r"q(z \mid x)",
    "joint": "p(x, z)",
    "decoder": r"p(x \mid z)",
    "prior": "p(z)",
    "x": "x",
}
LATENT = {
    "decoder": r"p_\theta(x \mid z)",
    "prior": "q(z)",
    "q": r"q(z \mid x)",
    "p_x": "p(x)",
    "aggregate": "q(z)",
    "log_prob": r"p_\theta(x)",
    "log_resp": r"q(z \mid x)",
}
SCORE = {
    "x0": "x_0",
    "noise": r"\varepsilon",
    "score": r"\nabla \log p_t(x)",
    "stochasticity": r"\lambda",
    "diffusion": "g",
    "drift": "f(x, t)",
    "prior_kl": r"\mathrm{KL}(p_T \,\|\, \pi)",
    "beta_integral": "B(t)",
}
DIFFUSION = {
    "x_t": r"x_t",
    "x0": r"x_0",
    "x_prev": r"x_{t-1}",
    "alpha_bar": r"\bar{\alpha}_t",
    "beta_bar": r"\bar{\beta}_t",
    "beta_tilde": r"\tilde{\beta}_t",
    "eps": r"\varepsilon",
    "noise": r"\varepsilon",
    "eps_t": r"\varepsilon_t",
    "omega": r"\omega",
    "eps_hat": r"\hat{\varepsilon}",
    "sigma_squared": r"\sigma_t^2",
}
SYMBOLS = {
    "variational": TABLES,
    "vae": LATENT,
    "em": LATENT,
    "ddpm": DIFFUSION,
    "sde": SCORE,
}
