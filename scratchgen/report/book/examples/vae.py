# %% [markdown]
# Affine networks make the VAE a model whose best bound is known: it is the maximum of PPCA. The loop below is all of
# the training: a draw of noise, a step, (14), an update by Adam.

# %%
import numpy as np

from scratchgen import PPCA, VAE, LinearVAE, datasets
from scratchgen.nn import Adam, cosine_decay
from scratchgen.vae import VAENetwork, train_step

penguins = datasets.penguins().measurements
penguins = (penguins - penguins.mean(axis=0)) / penguins.std(axis=0)
rng = np.random.default_rng(0)
network = VAENetwork(dimension=4, n_latents=2, rng=rng, dtype=np.float64)
# one optimiser each for encoder, decoder and log s²
adams = [Adam(parameters) for parameters, _ in network.parts]
losses = []
for step in range(1500):
    xi = rng.standard_normal((len(penguins), 2))
    losses.append(train_step(network, penguins, xi).mean())  # (14)
    for adam, (_, gradient) in zip(adams, network.parts, strict=True):
        adam.step(gradient, cosine_decay(step, 1500, 0.03))
for step in (0, 100, 1499):
    print(f"loss of step {step:4}: {losses[step]:6.3f} nats")

# %% [markdown]
# The grade. No linear VAE can have a larger bound than PPCA's likelihood, and the decoder's variance should be PPCA's.
# The loss is quadratic in the noise here, so the four sigma points of two latents give its expectation exactly.

# %%
from scratchgen.quadrature import sigma_points
from scratchgen.vae import elbo

best = PPCA(2).fit(penguins)
bound = elbo(network, penguins, sigma_points(2)[:, None]).mean()
print(f"bound {bound:.3f}, PPCA's maximum {best.score(penguins):.3f} nats a row")
s2 = np.exp(network.log_variance[0])
print(f"s² {s2:.3f}, PPCA's {best.noise_variance_:.3f}")

# %% [markdown]
# The model `LinearVAE` takes the expectation over the noise exactly, and ends at the maximum itself. A latent is active
# if the decoder uses it.

# %%
from scratchgen.grading import grade_linear_vae

linear = LinearVAE(2, n_steps=1000, learning_rate=0.02, rng=0).fit(penguins)
grade = grade_linear_vae(linear, penguins)
print(f"maximum − bound = {grade.maximum - grade.elbo:.0e} nats")
print(f"angle to PPCA's plane: {grade.angle:.0e} radians")
print(f"{grade.n_active} latents are active")

# %% [markdown]
# A VAE of pictures with whole-numbered pixels. `n_levels` puts the decoder into bins, so that bounds are in nats of a
# probability. The importance-weighted bound with 16 draws of z, IWAE-16, is tighter.

# %%
digits = datasets.digits("train").images
sizes = {"hidden": (64,), "decoder_hidden": (32, 64)}
model = VAE(8, n_levels=17, n_steps=100, rng=0, **sizes).fit(digits)
few = digits[:200]
print(f"ELBO    {model.elbo(few, rng=1).mean():.1f} nats a picture")
print(f"IWAE-16 {model.iwae(few, rng=1, n_draws=16).mean():.1f} nats a picture")
mean, variance = model.encode(few)  # of q(z | x)
decoded, copies = model.decode(np.zeros((1, 8))), model.reconstruct(few)
print(mean.shape, decoded.shape, copies.shape)

# %% [markdown]
# A weight other than 1 on the KL divergence makes a β-VAE. With a weight below 1 its loss is no bound. `elbo` is a
# bound for every weight.

# %%
beta_vae = VAE(2, kl_weight=0.25, decoder_variance="diag", n_steps=300, rng=0)
beta_vae.fit(penguins)
loss, elbos = beta_vae.losses_[-20:].mean(), beta_vae.elbo(penguins, rng=1)
print(f"loss {loss:.2f}, −ELBO {-elbos.mean():.2f} nats")
