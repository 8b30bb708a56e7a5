"""A DDPM in Ho's convention, as it may stand in your project, with one mistake."""

import numpy as np

betas = np.linspace(1e-3, 0.2, 100)  # Ho's beta: a variance; index 0 is the first step
alphas = 1 - betas
alphas_cumprod = np.cumprod(alphas)


def eps_model(x, t):
    """Your network; any function of x and t will do here."""
    return 0.9 * x + 0.1 * np.tanh(x[:, ::-1]) + 0.1 * (t / 100)[:, None]


def q_sample(x0, t, noise):
    a = alphas_cumprod[t][:, None]
    return np.sqrt(a) * x0 + np.sqrt(1 - a) * noise


def p_sample(x_t, t, noise):
    mean = (x_t - betas[t] / np.sqrt(1 - alphas_cumprod[t]) * eps_model(x_t, np.full(len(x_t), t))) / np.sqrt(alphas[t])
    return mean + (t > 0) * betas[t] * noise  # the mistake: a variance stands where a standard deviation belongs


def loss(x0, t, noise):
    return np.mean((noise - eps_model(q_sample(x0, t, noise), t)) ** 2)


def sample(x, noise):
    for i, t in enumerate(reversed(range(100))):
        x = p_sample(x, t, noise[i])
    return x


def audit_me():
    """Your functions by the names of the audit, and your convention, for `scratchgen audit my_ddpm.py`."""
    return {
        "betas": betas,
        "zero_based": True,  # the first step has the index 0
        "batched_t": True,  # t is an array, one step an example
        "last_noise": False,  # no noise in the last step, as in the paper
        "reduction": "mean",  # the loss is a mean over examples and dimensions
        "eps_hat": eps_model,
        "x0": np.random.default_rng(0).standard_normal((5, 2)),
        "q_sample": lambda t, x0, noise: q_sample(x0, t, noise),
        "loss": lambda t, x0, noise: loss(x0, t, noise),
        "sampler": sample,
    }
