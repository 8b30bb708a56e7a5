# %% [markdown]
# Two Gaussians in the plane: the exact noise predictor is known, and so is the least possible loss. The loop below is
# Algorithm 1.

# %%
import numpy as np

from scratchgen import Mixture, NoiseSchedule
from scratchgen.ddpm import ancestral_sampler, train_step
from scratchgen.nn import EMA, Adam, NoiseNetwork, cosine_decay

truth = Mixture([0.6, 0.4], [[-1.0, 0.0], [1.0, 0.5]], [0.1 * np.eye(2)] * 2)
schedule, rng = NoiseSchedule.linear(20), np.random.default_rng(0)
network = NoiseNetwork(2, hidden=(32, 32), rng=rng)
weight = np.ones(256, np.float32)
adam, average = Adam(network.parameters), EMA(network.parameters.copy(), 0.99)
data = truth.sample(5000, rng=rng).astype(np.float32)
for step in range(1000):
    x0 = data[rng.integers(len(data), size=256)]
    t = rng.integers(1, schedule.T + 1, size=256)
    noise = rng.standard_normal(x0.shape, dtype=np.float32)
    losses = train_step(network, schedule, x0, t, noise, weight)  # (29)
    adam.step(network.gradient, cosine_decay(step, 1000, 0.01))
    average.update(network.parameters)
network.parameters[:] = average.average
print(f"loss of the last batch: {losses.mean():.2f}")

# %% [markdown]
# The grade. Quadrature gives the Bayes loss of every step and the excess of the network over it. Weighted and summed,
# they give the bound, (21), in nats. It is printed beside the bound of the exact predictor and the entropy, which no
# model can beat.

# %%
from scratchgen.grading import grade_bound


def eps_hat(x, t):
    return network(x, schedule.alpha_bar[t], schedule.beta_bar[t])


grade = grade_bound(schedule, eps_hat, truth)
for t in (1, 10, 20):
    bayes, excess = grade.noise[t - 1]
    print(f"t = {t:2}: Bayes loss {bayes:.4f}, excess {excess:.4f}")
print(f"−ELBO of the network         {grade.bound:.3f} nats")
print(f"−ELBO of the exact predictor {grade.least_bound:.3f} nats")
print(f"entropy of the data          {grade.entropy:.3f} nats")

# %% [markdown]
# Algorithm 2 draws samples. With many of them their mean and covariance are those of the model.

# %%
start = rng.standard_normal((5000, 2))
*_, (_, samples) = ancestral_sampler(schedule, eps_hat, start, rng)
print("mean", samples.mean(axis=0).round(2), "of the data", truth.mean().round(2))

# %% [markdown]
# The model has these loops inside, and choices. Labels give guidance:
# $\hat\varepsilon + 2 (\hat\varepsilon(y) - \hat\varepsilon)$ for `guidance=2.0`; 0 ignores the label, and 1 is
# $p(x \mid y)$. With `prediction="levels"` the network predicts probabilities of the 17 grey values.
# [`respace`](glossary.html#respacing) takes the same network with fewer steps. With `eta=0` a step adds no noise: this
# is DDIM.

# %%
from scratchgen import DDPM, datasets

digits = datasets.digits("train")
choices = {"weighting": "bound", "step_choice": "importance"}
sizes = {"prediction": "levels", "n_levels": 17, "n_classes": 10, "hidden": (32,)}
model = DDPM(schedule, "optimal", n_steps=30, rng=0, **choices, **sizes)
model.fit(digits.images, digits.labels)
print("with labels:", model.sample(10, rng=1, y=range(10), guidance=2.0).shape)
images, labels = digits.images[:50], digits.labels[:50]
bound = model.elbo(images, rng=1, y=labels)  # of log P(x | y); iwae is tighter
print(f"ELBO {bound.mean():.0f} nats a picture")
print("DDIM in 5 steps:", model.respace(5).sample(5, rng=1, eta=0.0).shape)
