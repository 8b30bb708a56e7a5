# %% [markdown]
# Data from three Gaussians whose law is known. The loop below is all of EM: the E-step, (18), and the M-step, (15).

# %%
import numpy as np

from scratchgen import Mixture
from scratchgen.em import e_step, m_step, starting_mixture

means, covariances = [[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], [0.5 * np.eye(2)] * 3
truth = Mixture([0.5, 0.3, 0.2], means, covariances)
x = truth.sample(2000, rng=0)
rng = np.random.default_rng(0)
mixture = starting_mixture(x, 3, "random_from_data", rng, covariance_floor=0.0)
bounds = []
for _ in range(60):
    log_resp, log_prob = e_step(x, mixture)  # q(z | x), and log p(x): the bound
    bounds.append(log_prob.mean())
    mixture = m_step(x, log_resp, mixture)  # the best parameters for this q
for step in (0, 1, 5, 59):
    print(f"bound after step {step:2}: {bounds[step]:.4f} nats")

# %% [markdown]
# The grade: the bound never falls, and the model is close to the law of the data. The divergence is computed by
# quadrature.

# %%
print("largest fall of the bound:", max(0.0, -np.diff(bounds).min()))
print(f"KL(p‖p_θ) = {truth.kl(mixture):.4f} nats")

# %% [markdown]
# The model does the same, and keeps the best of `n_init` runs. The names of its starting methods are those of
# scikit-learn. BIC and AIC are minus twice the log-likelihood plus a price for every parameter: less is better.
# `diffuse` returns the exact law of scaled data with added noise. `covariance_prior` makes the fit a maximum a
# posteriori fit: here five more examples of variance 1, in the units of x.

# %%
from scratchgen import GaussianMixture, datasets

penguins = datasets.penguins().measurements  # (342, 4)
penguins = (penguins - penguins.mean(axis=0)) / penguins.std(axis=0)
model = GaussianMixture(3, "tied", init_params="kmeans", n_init=5, tol=1e-6, rng=0)
model.fit(penguins)
print(f"log-likelihood {model.score(penguins):.4f} nats a row")
print(f"BIC {model.bic(penguins):.1f}, AIC {model.aic(penguins):.1f}")
print("rows of each component:", np.bincount(model.predict(penguins)))
print("precisions:", model.precisions_.shape)
diffused = model.mixture_.diffuse(0.6, 0.8)  # the exact law of 0.6 x + 0.8 ε
prior = GaussianMixture(3, covariance_prior=(1.0, 5.0), rng=0).fit(penguins)
print(f"maximum a posteriori: {prior.score(penguins):.4f} nats a row")

# %% [markdown]
# With a continuous latent $z \sim \mathcal{N}(0, I)$, as on the slides, the two steps fit factors. The bound is
# recorded after every half-step. PPCA has one noise variance, factor analysis one for each column. A code is the
# posterior mean of z, a short description of the row.

# %%
from scratchgen import PPCA, FactorAnalysis

factors = FactorAnalysis(1, rng=0).fit(penguins)
print("bounds after E, M, E, M:", factors.free_energies_[:4].round(4))
print("codes:", PPCA(2).fit(penguins).encode(penguins).shape)

# %% [markdown]
# Whole numbers have tables of probabilities in place of Gaussians. Their mass is exact. `denoise` is exact as well: the
# mean of the whole numbers, scaled to [−1, 1], given a noisy copy of them.

# %%
from scratchgen import CategoricalMixture

digits = datasets.digits("train").images
tables = CategoricalMixture(10, n_levels=17, smoothing=10, rng=0).fit(digits)
print(f"log P(x) = {tables.score(digits):.2f} nats a picture")
denoised = tables.denoise(np.zeros((1, 64)), 0.6, 0.8)  # E[x_0 | x_t = 0]
print("denoised pixels, on [−1, 1]:", denoised.shape)

# %% [markdown]
# Missing values are NaN. The E-step is exact for the values that are there, and no row is dropped.

# %%
rng = np.random.default_rng(0)
common, own = rng.standard_normal((500, 1)), rng.standard_normal((500, 3))
rows = common + [0.0, 5.0, 9.0] + 0.1 * own
rows[rng.random(rows.shape) < 0.2] = np.nan
model = GaussianMixture(1).fit(rows)
print("filled:", model.impute([[1.0, np.nan, 10.0]]).round(1))
given = model.mixture_.conditional({0: 1.0, 2: 10.0})  # the law of column 1
draws = given.sample(2, rng=0)
print("draws: ", draws.round(2).ravel())
