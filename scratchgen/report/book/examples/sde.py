# %% [markdown]
# A law on the line with two peaks: the score of every $p_t$ is known. The loop below is denoising score matching, (33).

# %%
import numpy as np

from scratchgen import VP, Mixture, ScoreSDE, datasets, to_ddpm
from scratchgen.nn import EMA, Adam, NoiseNetwork, cosine_decay
from scratchgen.sde import TimeSampler, predict_score, score_step

truth = Mixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.1]]] * 2)
sde, t_min, rng = VP(), 1e-3, np.random.default_rng(0)
network = NoiseNetwork(1, hidden=(32, 32), rng=rng, dtype=np.float64)
adam, average = Adam(network.parameters), EMA(network.parameters.copy(), 0.99)
times = TimeSampler(sde, t_min)
data = truth.sample(5000, rng=rng)
for step in range(1000):
    x0 = data[rng.integers(len(data), size=256)]
    _, t, weight = times.draw(256, rng)
    noise = rng.standard_normal(x0.shape)
    variance = sde.std(t) ** 2
    losses = score_step(network, sde, x0, t, noise, weight * variance)  # (33)
    adam.step(network.gradient, cosine_decay(step, 1000, 0.01))
    average.update(network.parameters)
network.parameters[:] = average.average
print(f"weighted loss of the last batch: {(losses * variance).mean():.2f}")

# %% [markdown]
# The grade: the right side of (34), by quadrature over states and times. It bounds the divergence of the samples.

# %%
from scratchgen.grading import euler_density, grade_kl_bound
from scratchgen.sde import euler_maruyama, reverse_times


def score(x, t):
    return predict_score(network, sde, x, t)


bound = grade_kl_bound(sde, score, truth, t_min, rtol=1e-2).bound
steps = reverse_times(sde, 50, t_min)
start = truth.diffuse(*sde.level(t_min))  # the law at t_min
kl = euler_density(sde, score, steps, 1).kl_from(start)
print(f"KL of 50 reverse steps {kl:.4f}, bound {bound:.4f} nats")

# %% [markdown]
# The reverse SDE, (32), draws samples from noise.

# %%
noise = sde.prior_std * rng.standard_normal((5000, 1))
*_, (_, samples) = euler_maruyama(sde, score, noise, steps, rng)
of_data = truth.covariance()[0, 0] ** 0.5
print(f"share above 0: {(samples > 0).mean():.2f} (data: 0.50)")
print(f"standard deviation: {samples.std():.2f} (data: {of_data:.2f})")

# %% [markdown]
# `ScoreSDE` runs this loop, rescales the columns, and samples with fewer steps. `stochasticity=0` is the flow, 1 the
# reverse SDE. The flow has a likelihood. It needs the trace of the score's Jacobian: `n_probes`
# [probes](glossary.html#probes) estimate it in place of D backward passes. `to_ddpm` and `to_sde` read the same network
# as the other model.

# %%
penguins = datasets.penguins().measurements
model = ScoreSDE(hidden=(32,), n_steps=100, rng=0)  # VP; or sde=SubVP(), sde=VE()
model.fit(penguins)
print("flow:", model.sample(5, rng=1, stochasticity=0.0, method="heun").shape)
of_flow = model.log_prob(penguins[:5], n_probes=4, rng=1)
print(f"log-likelihood of the flow {of_flow.mean():.1f} nats")
of_chain = to_ddpm(model, 50).elbo(penguins, rng=1)
print(f"ELBO of the same network in 50 steps {of_chain.mean():.1f} nats")
