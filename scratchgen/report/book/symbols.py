"""Names in the code and the symbols of the formulas that they stand for, by page."""

from __future__ import annotations

MARKS = tuple(f"mark-{i}" for i in range(1, 8))  # classes of the style sheet

TABLES = {
    "p": r"p",
    "q": r"q",
    "joint": r"p(x, z)",
    "decoder": r"p(x \mid z)",
    "prior": r"p(z)",
}
LINEAR = {"x": r"x", "mean": r"m"}
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
    "vae": LINEAR,
    "em": {},
    "ddpm": DIFFUSION,
    "sde": {},
}
