"""A diffusion model in Ho's convention, written from the papers: variances, t from 0, tables in the dtype of betas."""

import numpy as np

HO = np.linspace(1e-4, 0.02, 1000)
COSINE = np.clip(
    1 - np.cos((np.arange(1, 51) / 50 + 0.008) / 1.008 * np.pi / 2) ** 2
    / np.cos((np.arange(50) / 50 + 0.008) / 1.008 * np.pi / 2) ** 2,
    0,
    0.999,
)  # fmt: skip


class Ho:
    """The functions that public implementations have; `prediction` is what `net` returns."""

    def __init__(self, betas, D, dtype=np.float64, prediction="noise"):
        self.betas, self.T, self.D = betas.astype(dtype), len(betas), D
        self.alphas = 1 - self.betas
        self.acp = np.cumprod(self.alphas)
        self.acp_prev = np.append(dtype(1), self.acp[:-1])
        self.posterior_variance = self.betas * (1 - self.acp_prev) / (1 - self.acp)
        self.coef1 = self.betas * np.sqrt(self.acp_prev) / (1 - self.acp)
        self.coef2 = (1 - self.acp_prev) * np.sqrt(self.alphas) / (1 - self.acp)
        self.prediction = prediction
        rng = np.random.default_rng(7)
        shapes = [(D + 1, 16), (16, 16), (16, D)]
        self.weights = [(rng.standard_normal(shape) / shape[0] ** 0.5).astype(dtype) for shape in shapes]

    def net(self, x, t):
        h = np.concatenate([x, np.broadcast_to(np.reshape(t, (-1, 1)) / self.T, (len(x), 1)).astype(x.dtype)], axis=1)
        for i, weight in enumerate(self.weights):
            h = h @ weight
            h = np.tanh(h) if i < 2 else h
        return h

    def at(self, table, t):
        return np.reshape(table[t], (-1, 1))

    def q_sample(self, t, x0, noise):
        return np.sqrt(self.at(self.acp, t)) * x0 + np.sqrt(1 - self.at(self.acp, t)) * noise

    def q_posterior(self, t, x_t, x0):
        return self.at(self.coef1, t) * x0 + self.at(self.coef2, t) * x_t, self.at(self.posterior_variance, t)

    def predict_x0(self, t, x_t, output):
        a = self.at(self.acp, t)
        if self.prediction == "x0":
            return output
        if self.prediction == "v":
            return np.sqrt(a) * x_t - np.sqrt(1 - a) * output
        return np.sqrt(1 / a) * x_t - np.sqrt(1 / a - 1) * output

    def noise_of(self, t, x_t, output):
        a = self.at(self.acp, t)
        return (
            output
            if self.prediction == "noise"
            else (x_t - np.sqrt(a) * self.predict_x0(t, x_t, output)) / np.sqrt(1 - a)
        )

    def step(self, t, x_t, output, z):
        mean = self.q_posterior(t, x_t, self.predict_x0(t, x_t, output))[0]
        return mean + np.where(np.reshape(t, (-1, 1)) > 0, 1, 0).astype(x_t.dtype) * np.sqrt(self.at(self.betas, t)) * z

    def ddim(self, t, s, x_t, output, z, eta):
        a, b = self.at(self.acp, t), self.at(np.append(self.acp, 1.0), s)  # s = -1 is clean data
        sigma = eta * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
        direction = np.sqrt(np.maximum(1 - b - sigma**2, 0))
        return np.sqrt(b) * self.predict_x0(t, x_t, output) + direction * self.noise_of(t, x_t, output) + sigma * z

    def target(self, t, x0, noise):
        a = self.at(self.acp, t)
        return {"noise": noise, "x0": x0, "v": np.sqrt(a) * noise - np.sqrt(1 - a) * x0}[self.prediction]

    def loss(self, t, x0, noise):
        return ((self.target(t, x0, noise) - self.net(self.q_sample(t, x0, noise), t)) ** 2).sum(axis=1)

    def sampler(self, x, noise):
        for t, z in zip(reversed(range(self.T)), noise, strict=True):
            x = self.step(np.full(len(x), t), x, self.net(x, np.full(len(x), t)), z)
        return x

    def ddim_sampler(self, x, noise, eta):
        for t, z in zip(reversed(range(self.T)), noise, strict=True):
            x = self.ddim(t, t - 1, x, self.net(x, t), z, eta)
        return x

    def bound(self, x0, noise):
        """The terms L_0, …, L_T with σ_t² = β_t."""
        terms = []
        for t in range(self.T):
            x_t = self.q_sample(t, x0, noise[t])
            mean = self.q_posterior(t, x_t, self.predict_x0(t, x_t, self.net(x_t, t)))[0]
            v = self.betas[t]
            if t == 0:
                terms.append(0.5 * (np.log(2 * np.pi * v) + (x0 - mean) ** 2 / v).sum(axis=1))
            else:
                own = self.posterior_variance[t]
                distance = (self.q_posterior(t, x_t, x0)[0] - mean) ** 2
                terms.append(0.5 * (np.log(v / own) - 1 + own / v + distance / v).sum(axis=1))
        total = 1 - self.acp[-1]
        return np.stack([*terms, 0.5 * (self.acp[-1] * x0**2 + total - 1 - np.log(total)).sum(axis=1)], axis=1)
