# %% [markdown]
# A model of two latents whose posterior is known, (11), and an approximation q that keeps the latents independent.
# Coordinate ascent improves one latent at a time, and the bound, (7), rises to a limit that has a closed form, (6).
# The difference to $\log p(x)$ is the gap, (8).

# %%
import numpy as np

from scratchgen.likelihood import kl_gaussian
from scratchgen.variational import (
    linear_gaussian_elbo,
    linear_gaussian_log_prob,
    linear_gaussian_mean_field,
    linear_gaussian_posterior,
)

W = np.array([[1.0, 0.8], [0.2, 1.0], [0.5, -0.3]])
mean, s2 = np.zeros(3), 0.5  # x = W z + mean + noise of variance s2
x = np.random.default_rng(0).standard_normal((1, 3))
log_p = linear_gaussian_log_prob(x, W, mean, s2)[0]
print(f"log p(x) = {log_p:.6f} nats")

# %% [markdown]
# The loop of coordinate ascent. Each latent gets the best Gaussian for the present mean of the other one.

# %%
precision = np.eye(2) + W.T @ W / s2  # of the posterior p(z | x)
pull = W.T @ (x[0] - mean) / s2
m, variances = np.zeros(2), 1 / np.diag(precision)
bounds = []
for _ in range(30):
    bound = linear_gaussian_elbo(x, W, mean, s2, m[None], np.diag(variances))
    bounds.append(bound[0])
    for j in range(2):
        m[j] = variances[j] * (pull[j] - precision[j] @ m + precision[j, j] * m[j])
for sweep in (0, 1, 2, 5, 29):
    print(f"bound after sweep {sweep:2}: {bounds[sweep]:.6f} nats")

# %% [markdown]
# The grade. The limit is the best q with independent latents, and $\log p(x)$ minus the bound is the divergence of this
# q from the posterior. With the posterior itself the gap is 0.

# %%
best_m, best_variances = linear_gaussian_mean_field(x, W, mean, s2)
exact_m, exact_cov = linear_gaussian_posterior(x, W, mean, s2)
best = linear_gaussian_elbo(x, W, mean, s2, best_m, np.diag(best_variances))[0]
gap = kl_gaussian(best_m[0], np.diag(best_variances), exact_m[0], exact_cov)
tight = linear_gaussian_elbo(x, W, mean, s2, exact_m, exact_cov)[0]
print(f"last bound − best bound           = {bounds[-1] - best:.0e}")
print(f"log p(x) − best bound             = {log_p - best:.6f}")
print(f"KL(q‖p(z|x))                      = {gap:.6f}")
print(f"log p(x) − bound of the posterior = {log_p - tight:.0e}")

# %% [markdown]
# The same for tables, where every integral is a sum: the joint divergence is the marginal one plus the average gap,
# (10), for any q.

# %%
from scratchgen.likelihood import kl_discrete
from scratchgen.variational import joint_kl_table, posterior_kl_table

rng = np.random.default_rng(1)
p_x, prior = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(3))
decoder = rng.dirichlet(np.ones(4), size=3).T  # p(x | z)
q = rng.dirichlet(np.ones(3), size=4)  # q(z | x), any
joint = joint_kl_table(p_x, q, decoder, prior)
marginal = kl_discrete(p_x, decoder @ prior)
average_gap = p_x @ posterior_kl_table(decoder * prior, q)
print(f"joint {joint:.6f} = marginal {marginal:.6f} + gap {average_gap:.6f}")
