"""VAEs for the tests, and the integrals over their single latent from public methods alone."""

import numpy as np
from scipy import stats

from scratchgen import VAE, LinearVAE


def with_covariance(eigenvalues, n=40, seed=3):
    """(n, D) data whose sample covariance, with 1/n, has exactly these eigenvalues, in a random basis."""
    rng = np.random.default_rng(seed)
    D = len(eigenvalues)
    centred = rng.standard_normal((n, D))
    orthonormal = np.linalg.qr(centred - centred.mean(axis=0))[0]
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0]
    return n**0.5 * orthonormal * np.sqrt(eigenvalues) @ basis.T + rng.standard_normal(D)


def linear(**parameters):
    """A linear VAE with training without noise."""
    return LinearVAE(**{"n_steps": 1000, "learning_rate": 0.05, "rng": 0, **parameters})


def linear_parameters(model):
    """W, mean and s² of a linear VAE, in data units, and mean and variance of its posterior."""
    network = model.network_
    W, mean = network.decoder.weights[0] * model.scale_, network.decoder.biases[0] * model.scale_ + model.mean_
    return W.T, mean, model.decoder_variance_


ARCS = {"one scale": {"standardize": "global"}, "a scale a column": {"decoder_variance": 0.05}}


def latent_grid(model, n=8001):
    z = np.linspace(-9, 9, n)[:, None]
    step = z[1, 0] - z[0, 0]
    means = model.decode(z)
    steepest = np.abs(np.diff(means, axis=0)).max() / step
    std = model.decoder_variance_.min() ** 0.5
    assert step < 0.5 * std / steepest  # a coarser grid would be wrong without an error
    return z[:, 0], means, step


def log_joint(model, x):
    """log p_θ(x, z) on the grid, (N, M), from `decode` and `decoder_variance_` alone; the grid and its spacing."""
    z, means, step = latent_grid(model)
    decoder = stats.norm.logpdf(x[:, None], means, model.decoder_variance_**0.5).sum(axis=2)
    return decoder + stats.norm.logpdf(z), z, step


def arc(**units):
    """A VAE with one latent, briefly trained on an arc, and six examples."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 3, 300)
    x = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * rng.standard_normal((300, 2)) + [5, 0]
    parameters = {"activation": "tanh", "dtype": "float64", "learning_rate": 1e-2, "rng": 0}
    return VAE(1, hidden=(8,), n_steps=400, **units, **parameters).fit(x), x[:6]
