"""Right implementations for every check: conventions, precisions, schedules and sizes, the second battery."""

import itertools
import math
from functools import partial

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import erf, log_ndtr, logsumexp, roots_hermitenorm, roots_legendre

from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen import conformance as c
from scratchgen.conformance import EDM
from tests.battery.case import Right

try:
    import torch
except ImportError:
    torch = None

_cases = []
_LOG2PI = math.log(2 * math.pi)


# Beginnings of the names of cases of more than half a second.
_SLOW = (
    "check_forward_step: log-SNR, Ho, T 4000",
    "check_gaussian_kl: torch, D 1",
    "check_posterior: log-SNR, Ho, T 4000",
    "check_bound_of: torch, float64",
    "check_sampler_of: torch, float64",
    "check_predicted_noise: noise, network, Ho, T 1000",
    "check_em_loop: torch",
    "check_em: torch",
    "check_free_energy: torch",
    "check_discrete_bound: 60 nodes, 3 levels",
    "check_discrete_bound: 90 nodes",
    "check_data_processing: grid",
    "check_conservative_score: torch",
    "check_fokker_planck: cosine, torch",
    "check_kl_rate: torch",
    "check_mutual_information",
    "check_probability_flow_likelihood",
    "check_flow_likelihood_of: VE to 3",
    "check_reverse_law: Runge-Kutta",
    "check_score_matching: loops, D 2",
    "check_jvp: torch",
)


def add(name, run, *arguments):
    _cases.append(Right(name, partial(run, *arguments), name.startswith(_SLOW)))


def numbers(*shape, seed=0):
    return np.random.default_rng([20, seed, *shape]).uniform(-1, 1, shape)


def normals(*shape, seed=0):
    return np.random.default_rng([21, seed, *shape]).standard_normal(shape)


def positive_table(*shape, seed=0):
    return np.random.default_rng([22, seed, *shape]).uniform(0.1, 1.0, shape)


def spd(D, seed=0, least=0.2):
    A = normals(D, D, seed=seed) / math.sqrt(D)
    return A @ A.T + least * np.eye(D)


# Schedules: β_t² for t = 1..T


def ho(T):
    return np.linspace(1e-4, 0.02, T)


def cosine(T, s=0.008, most=0.999):
    f = [math.cos((i / T + s) / (1 + s) * math.pi / 2) ** 2 for i in range(T + 1)]
    return np.array([min(1 - f[i + 1] / f[i], most) for i in range(T)])


def sigmoid_betas(T):
    return 1 / (1 + np.exp(-np.linspace(-6, 6, T))) * (0.02 - 1e-4) + 1e-4


def scaled_linear(T):
    return np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2


def constant(T, value=0.1):
    return np.full(T, value)


def karras_sigmas(n, least=0.002, most=80.0, rho=7.0):
    return np.linspace(least ** (1 / rho), most ** (1 / rho), n) ** rho


def from_sigmas(T):
    """A chain with the noise-to-signal ratios of EDM's levels."""
    squares = np.concatenate([[0.0], karras_sigmas(T) ** 2])
    return np.diff(squares) / (1 + squares[1:])


def flow_chain(T):
    """The ratios of signal and noise of (1 − t, t) on an even grid."""
    u = np.arange(T + 1) / (T + 1)
    squares = (u / (1 - u)) ** 2
    return np.diff(squares) / (1 + squares[1:])


SCHEDULES = {
    "Ho": ho,
    "cosine": cosine,
    "sigmoid": sigmoid_betas,
    "latent diffusion": scaled_linear,
    "constant": constant,
    "EDM sigmas": from_sigmas,
    "flow matching": flow_chain,
    "tiny 1e-8": partial(constant, value=1e-8),
    "nearly 1": partial(constant, value=0.9999),
}


def column(table, t):
    """Entry t as a number, or a column for an array of steps."""
    value = np.asarray(table)[t]
    return value[..., None] if np.ndim(value) else value


# Conventions of a chain.  Each has the same methods, written in its own tables and its own order of operations.


class Ho:
    """The paper's tables with index 0 for t = 1, as in its TensorFlow code; 1 − ᾱ² by subtraction."""

    dtype = np.float64
    tolerance = None

    def __init__(self, betas):
        self.betas = betas = np.asarray(betas, np.float64)
        self.alphas = 1.0 - betas
        self.cumprod = np.cumprod(self.alphas)
        self.before = np.append(1.0, self.cumprod[:-1])
        self.post_variance = betas * (1.0 - self.before) / (1.0 - self.cumprod)
        self.coef1 = betas * np.sqrt(self.before) / (1.0 - self.cumprod)
        self.coef2 = (1.0 - self.before) * np.sqrt(self.alphas) / (1.0 - self.cumprod)
        self.root = np.sqrt(self.cumprod)
        self.root_one_minus = np.sqrt(1.0 - self.cumprod)
        self.root_recip = np.sqrt(1.0 / self.cumprod)
        self.root_recip_m1 = np.sqrt(1.0 / self.cumprod - 1.0)
        self.T = len(betas)
        self.cast()

    def cast(self):
        for key, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, key, value.astype(self.dtype))

    def judge(self, check):
        return check if self.tolerance is None else check.at(self.tolerance)

    def padded(self, table, first):
        return np.append(np.float64(first), table)

    def tables(self):
        return (
            self.padded(self.root, 1),
            self.padded(self.root_one_minus, 0),
            self.padded(np.sqrt(self.post_variance), 0),
        )

    def q_step(self, t, x, noise):
        return np.sqrt(column(self.alphas, t - 1)) * x + np.sqrt(column(self.betas, t - 1)) * noise

    def q_sample(self, t, x0, noise):
        return column(self.root, t - 1) * x0 + column(self.root_one_minus, t - 1) * noise

    def q_posterior(self, t, x_t, x0):
        mean = column(self.coef1, t - 1) * x0 + column(self.coef2, t - 1) * x_t
        return mean, column(self.post_variance, t - 1)

    def predict_x0(self, t, x_t, eps):
        return column(self.root_recip, t - 1) * x_t - column(self.root_recip_m1, t - 1) * eps

    def p_mean(self, t, x_t, eps):
        return self.q_posterior(t, x_t, self.predict_x0(t, x_t, eps))[0]

    def ancestral(self, sigma_squared, t, x_t, eps, noise):
        return self.p_mean(t, x_t, eps) + np.sqrt(column(sigma_squared, t)).astype(self.dtype) * noise

    def ddim(self, eta, t, s, x_t, eps, noise):
        a_t, a_s = (column(np.append(self.dtype(1), self.cumprod), i) for i in (t, s))
        x0 = (x_t - np.sqrt(1 - a_t) * eps) / np.sqrt(a_t)
        sigma = eta * np.sqrt((1 - a_s) / (1 - a_t)) * np.sqrt(1 - a_t / a_s)
        return np.sqrt(a_s) * x0 + np.sqrt(np.maximum(1 - a_s - sigma**2, 0)) * eps + sigma * noise

    def inverse(self, s, t, x_s, eps):
        a_t, a_s = (column(np.append(self.dtype(1), self.cumprod), i) for i in (t, s))
        x0 = (x_s - np.sqrt(1 - a_s) * eps) / np.sqrt(a_s)
        return np.sqrt(a_t) * x0 + np.sqrt(1 - a_t) * eps

    def angle(self, t):
        """Cosine and sine of the rotation that merges the noise: (cos, sin) = (α_t β̄_{t−1}, β_t)/β̄_t."""
        total = 1 - column(self.cumprod, t - 1)
        kept = column(self.alphas, t - 1) * (1 - column(self.before, t - 1))
        return np.sqrt(kept / total), np.sqrt(column(self.betas, t - 1) / total)

    def merge(self, t, previous, new):
        cos, sin = self.angle(t)
        return cos * previous + sin * new, sin * previous - cos * new

    def split(self, t, eps, omega):
        cos, sin = self.angle(t)
        return sin * eps - cos * omega

    def sigma_squared(self, name="beta"):
        if name == "beta":
            return self.padded(self.betas, 0)
        return np.concatenate([[0], self.betas[:1], self.post_variance[1:]])

    def step_factor(self, t, variance):
        """Factor of ‖ε − ε̂‖² in −log p_θ(x_{t−1} | x_t)."""
        b = self.betas[t - 1]
        return b**2 / (2 * variance * self.alphas[t - 1] * (1 - self.cumprod[t - 1]))

    def weights(self, sigma_squared, name):
        signal, noise = self.cumprod, 1 - self.cumprod
        if name == "simple":
            table = np.ones(self.T)
        elif name == "x0":
            table = noise / signal
        elif name == "v":
            table = 1 / signal
        elif name == "min-snr":
            table = np.minimum(signal / noise, 5) * noise / signal
        else:
            table = self.T * self.betas**2 / (2 * sigma_squared[1:] * self.alphas * noise)
        return self.padded(table, 0)

    def sample(self, sigma_squared, x, eps_hat, noise):
        for i, t in enumerate(range(self.T, 0, -1)):
            x = self.ancestral(sigma_squared, t, x, eps_hat(x, t), noise[i])
        return x

    def sample_ddim(self, eta, x, eps_hat, noise):
        for i, t in enumerate(range(self.T, 0, -1)):
            x = self.ddim(eta, t, t - 1, x, eps_hat(x, t), noise[i])
        return x


class HoSingle(Ho):
    """Tables computed in float64 and kept in float32, with data in float64."""

    dtype = np.float32
    tolerance = 1e-5

    def ddim(self, eta, t, s, x_t, eps, noise):
        a_t, a_s = (column(np.append(self.dtype(1), self.cumprod), i) for i in (t, s))
        fresh = 1 - a_t / a_s
        keep = np.sqrt((1 - a_s) * (1 - eta**2 + eta**2 * (a_t / a_s) * (1 - a_s) / (1 - a_t)))
        sigma = eta * np.sqrt((1 - a_s) / (1 - a_t) * fresh)
        return np.sqrt(a_s / a_t) * (x_t - np.sqrt(1 - a_t) * eps) + keep * eps + sigma * noise


class Log(Ho):
    """Kingma's γ = −log-SNR, by log1p and expm1: no subtraction from 1."""

    def __init__(self, betas):
        self.T = len(betas)
        self.b = np.append(0.0, betas)
        self.log_a = np.append(0.0, np.log1p(-np.asarray(betas)))
        self.log_total = np.cumsum(self.log_a)  # log ᾱ²
        self.sigma2 = -np.expm1(self.log_total)
        self.scale = np.exp(0.5 * self.log_total)
        self.sigma = np.sqrt(self.sigma2)

    def between(self, s, t):
        """Log ᾱ_t²/ᾱ_s²."""
        if np.ndim(s) or np.ndim(t):
            s, t = np.broadcast_arrays(s, t)
            return np.array([[math.fsum(self.log_a[i + 1 : j + 1])] for i, j in zip(s, t, strict=True)])
        return math.fsum(self.log_a[s + 1 : t + 1])

    def tables(self):
        tilde = np.zeros(self.T + 1)
        tilde[1:] = np.sqrt(self.b[1:] * self.sigma2[:-1] / self.sigma2[1:])
        return self.scale, self.sigma, tilde

    def q_step(self, t, x, noise):
        return np.exp(0.5 * column(self.log_a, t)) * x + np.sqrt(column(self.b, t)) * noise

    def q_sample(self, t, x0, noise):
        return column(self.scale, t) * x0 + column(self.sigma, t) * noise

    def q_posterior(self, t, x_t, x0):
        shrink = column(self.b, t) / column(self.sigma2, t)  # the share of the new noise
        back = column(self.sigma2, t - 1) / column(self.sigma2, t)
        mean = np.exp(0.5 * column(self.log_a, t)) * back * x_t + column(self.scale, t - 1) * shrink * x0
        return mean, column(self.b, t) * back

    def predict_x0(self, t, x_t, eps):
        return np.exp(-0.5 * column(self.log_total, t)) * (x_t - column(self.sigma, t) * eps)

    def p_mean(self, t, x_t, eps):
        factor = column(self.b, t) / column(self.sigma, t)
        return np.exp(-0.5 * column(self.log_a, t)) * (x_t - factor * eps)

    def ancestral(self, sigma_squared, t, x_t, eps, noise):
        return self.p_mean(t, x_t, eps) + np.exp(0.5 * np.log(column(sigma_squared, t))) * noise

    def ddim(self, eta, t, s, x_t, eps, noise):
        step = self.between(s, t)
        share = -np.expm1(step) * column(self.sigma2, s) / column(self.sigma2, t)
        ratio = np.exp(-0.5 * step)
        keep = column(self.sigma, s) * np.sqrt(np.maximum(1 + eta**2 * np.expm1(step) / column(self.sigma2, t), 0))
        if eta == 1:
            keep = np.exp(0.5 * step) * column(self.sigma2, s) / column(self.sigma, t)
        return ratio * x_t + (keep - ratio * column(self.sigma, t)) * eps + eta * np.sqrt(share) * noise

    def inverse(self, s, t, x_s, eps):
        ratio = np.exp(0.5 * self.between(s, t))
        return ratio * x_s + (column(self.sigma, t) - ratio * column(self.sigma, s)) * eps

    def angle(self, t):
        new, old = column(self.b, t), np.exp(column(self.log_a, t)) * column(self.sigma2, t - 1)
        return np.sqrt(old) / np.hypot(np.sqrt(new), np.sqrt(old)), np.sqrt(new) / np.hypot(np.sqrt(new), np.sqrt(old))

    def sigma_squared(self, name="beta"):
        if name == "beta":
            return self.b.copy()
        table = self.tables()[2] ** 2
        table[1] = self.b[1]
        return table

    def step_factor(self, t, variance):
        return self.b[t] ** 2 / (2 * variance * np.exp(self.log_a[t]) * self.sigma2[t])

    def weights(self, sigma_squared, name):
        log_snr = np.append(np.inf, self.log_total[1:] - np.log(self.sigma2[1:]))
        if name == "simple":
            table = np.ones(self.T + 1)
        elif name == "x0":
            table = np.exp(-log_snr)
        elif name == "v":
            table = 1 + np.exp(-log_snr)
        elif name == "min-snr":
            table = np.exp(np.minimum(0.0, math.log(5) - log_snr))
        else:
            table = np.array([0.0] + [self.T * self.step_factor(t, sigma_squared[t]) for t in range(1, self.T + 1)])
        table[0] = 0
        return table


class Sigmas(Log):
    """EDM: everything in y = x/scale and σ = std/scale, with scale = 1/√(1 + σ²)."""

    def __init__(self, betas):
        super().__init__(betas)
        self.ratio2 = np.expm1(-self.log_total)
        self.ratio = np.sqrt(self.ratio2)
        self.inner = 1 / np.sqrt(1 + self.ratio2)

    def q_sample(self, t, x0, noise):
        return (x0 + column(self.ratio, t) * noise) * column(self.inner, t)

    def q_posterior(self, t, x_t, x0):
        now, old = column(self.ratio2, t), column(self.ratio2, t - 1)
        new = column(self.b, t) * (1 + now)  # σ_t² − σ_{t−1}²
        y = x_t / column(self.inner, t)
        mean = (old * y + new * x0) / now * column(self.inner, t - 1)
        return mean, old * new / now / (1 + old)

    def predict_x0(self, t, x_t, eps):
        return x_t / column(self.inner, t) - column(self.ratio, t) * eps

    def p_mean(self, t, x_t, eps):
        new = column(self.b, t) * (1 + column(self.ratio2, t))
        return (x_t / column(self.inner, t) - new / column(self.ratio, t) * eps) * column(self.inner, t - 1)

    def inverse(self, s, t, x_s, eps):
        y = x_s / column(self.inner, s) + (column(self.ratio, t) - column(self.ratio, s)) * eps
        return y * column(self.inner, t)


class Lists(Ho):
    """Plain loops over Python floats; results are nested lists.  Integer steps only."""

    def __init__(self, betas):
        self.T = len(betas)
        self.beta2 = [0.0] + [float(b) for b in betas]
        self.bar2, self.total2 = [1.0], [0.0]  # ᾱ², β̄²
        for b in self.beta2[1:]:
            self.bar2.append(self.bar2[-1] * (1 - b))
            self.total2.append((1 - b) * self.total2[-1] + b)

    def tables(self):
        tilde = [0.0] + [math.sqrt(self.beta2[t] * self.total2[t - 1] / self.total2[t]) for t in range(1, self.T + 1)]
        return [math.sqrt(a) for a in self.bar2], [math.sqrt(b) for b in self.total2], tilde

    @staticmethod
    def linear(*pairs):
        """Σ factor · array, row by row."""
        arrays = [np.asarray(a).tolist() for _, a in pairs]
        factors = [float(f) for f, _ in pairs]
        return [
            [sum(f * v for f, v in zip(factors, values, strict=True)) for values in zip(*rows, strict=True)]
            for rows in zip(*arrays, strict=True)
        ]

    def q_step(self, t, x, noise):
        return self.linear((math.sqrt(1 - self.beta2[t]), x), (math.sqrt(self.beta2[t]), noise))

    def q_sample(self, t, x0, noise):
        return self.linear((math.sqrt(self.bar2[t]), x0), (math.sqrt(self.total2[t]), noise))

    def q_posterior(self, t, x_t, x0):
        b, old, now = self.beta2[t], self.total2[t - 1], self.total2[t]
        on_x0, on_xt = math.sqrt(self.bar2[t - 1]) * b / now, math.sqrt(1 - b) * old / now
        return self.linear((on_xt, x_t), (on_x0, x0)), b * old / now

    def predict_x0(self, t, x_t, eps):
        a = math.sqrt(self.bar2[t])
        return self.linear((1 / a, x_t), (-math.sqrt(self.total2[t]) / a, eps))

    def p_mean(self, t, x_t, eps):
        a, b = math.sqrt(1 - self.beta2[t]), self.beta2[t]
        return self.linear((1 / a, x_t), (-b / math.sqrt(self.total2[t]) / a, eps))

    def ancestral(self, sigma_squared, t, x_t, eps, noise):
        return self.linear((1, self.p_mean(t, x_t, eps)), (math.sqrt(sigma_squared[t]), noise))

    def ddim(self, eta, t, s, x_t, eps, noise):
        step = 1.0
        for i in range(int(s) + 1, int(t) + 1):
            step *= 1 - self.beta2[i]
        fresh = 0.0  # 1 − ᾱ_t²/ᾱ_s² without a subtraction
        for i in range(int(s) + 1, int(t) + 1):
            fresh = (1 - self.beta2[i]) * fresh + self.beta2[i]
        total = self.total2[t]
        sigma2 = eta**2 * self.total2[s] / total * fresh
        # β̄_s² − σ² = β̄_s² (1 − η² fresh/β̄_t²)
        keep = math.sqrt(max(self.total2[s] * (1 - eta**2 + eta**2 * step * self.total2[s] / total), 0.0))
        on_eps = keep - math.sqrt(total / step)
        return self.linear((1 / math.sqrt(step), x_t), (on_eps, eps), (math.sqrt(sigma2), noise))

    def inverse(self, s, t, x_s, eps):
        ratio = math.sqrt(self.bar2[t] / self.bar2[s])
        return self.linear((ratio, x_s), (math.sqrt(self.total2[t]) - ratio * math.sqrt(self.total2[s]), eps))

    def merge(self, t, previous, new):
        cos = math.sqrt((1 - self.beta2[t]) * self.total2[t - 1] / self.total2[t])
        sin = math.sqrt(self.beta2[t] / self.total2[t])
        return self.linear((cos, previous), (sin, new)), self.linear((sin, previous), (-cos, new))

    def split(self, t, eps, omega):
        cos = math.sqrt((1 - self.beta2[t]) * self.total2[t - 1] / self.total2[t])
        return self.linear((math.sqrt(self.beta2[t] / self.total2[t]), eps), (-cos, omega))

    def sigma_squared(self, name="beta"):
        table = list(self.beta2)
        if name == "posterior":
            for t in range(2, self.T + 1):
                table[t] = self.beta2[t] * self.total2[t - 1] / self.total2[t]
        return table

    def step_factor(self, t, variance):
        return self.beta2[t] ** 2 / (2 * variance * (1 - self.beta2[t]) * self.total2[t])

    def weights(self, sigma_squared, name):
        table = [0.0]
        for t in range(1, self.T + 1):
            snr = self.bar2[t] / self.total2[t]
            table.append(
                {
                    "simple": 1.0,
                    "x0": 1 / snr,
                    "v": 1 / self.bar2[t],
                    "min-snr": min(snr, 5.0) / snr,
                    "bound": self.T * self.step_factor(t, sigma_squared[t]),
                }[name]
            )
        return table

    def sample(self, sigma_squared, x, eps_hat, noise):
        for i, t in enumerate(range(self.T, 0, -1)):
            x = np.array(self.ancestral(sigma_squared, t, x, eps_hat(x, t), noise[i]))
        return x

    def sample_ddim(self, eta, x, eps_hat, noise):
        for i, t in enumerate(range(self.T, 0, -1)):
            x = np.array(self.ddim(eta, t, t - 1, x, eps_hat(x, t), noise[i]))
        return x


class Torch(Log):
    """Tensors, with the tables gathered at a tensor of steps as in a training loop."""

    def __init__(self, betas):
        super().__init__(betas)
        to = partial(torch.as_tensor, dtype=torch.float64)
        self.log_bar = torch.cumsum(torch.log1p(-to(np.append(0.0, betas))), 0)
        self.betas = to(np.append(0.0, betas))
        self.to = to

    def gather(self, table, t):
        index = torch.as_tensor(np.asarray(t))
        value = table[index]
        return value[:, None] if value.ndim else value

    def q_step(self, t, x, noise):
        b = self.gather(self.betas, t)
        return torch.sqrt(1 - b) * self.to(x) + torch.sqrt(b) * self.to(noise)

    def q_sample(self, t, x0, noise):
        log = self.gather(self.log_bar, t)
        return torch.exp(log / 2) * self.to(x0) + torch.sqrt(-torch.expm1(log)) * self.to(noise)

    def q_posterior(self, t, x_t, x0):
        b, log, old = (
            self.gather(self.betas, t),
            self.gather(self.log_bar, t),
            self.gather(self.log_bar, np.asarray(t) - 1),
        )
        total, before = -torch.expm1(log), -torch.expm1(old)
        mean = torch.exp(old / 2) * b / total * self.to(x0) + torch.sqrt(1 - b) * before / total * self.to(x_t)
        return mean, b * before / total

    def predict_x0(self, t, x_t, eps):
        log = self.gather(self.log_bar, t)
        return torch.exp(-log / 2) * self.to(x_t) - torch.sqrt(torch.expm1(-log)) * self.to(eps)

    def p_mean(self, t, x_t, eps):
        b, log = self.gather(self.betas, t), self.gather(self.log_bar, t)
        return torch.rsqrt(1 - b) * (self.to(x_t) - b * torch.rsqrt(-torch.expm1(log)) * self.to(eps))

    def ancestral(self, sigma_squared, t, x_t, eps, noise):
        return self.p_mean(t, x_t, eps) + self.gather(self.to(sigma_squared), t).sqrt() * self.to(noise)

    def sample(self, sigma_squared, x, eps_hat, noise):
        for i, t in enumerate(range(self.T, 0, -1)):
            x = self.ancestral(sigma_squared, t, x, eps_hat(np.asarray(x), t), noise[i])
        return x.numpy()


CHAINS = {"Ho's tables": Ho, "float32 tables": HoSingle, "log-SNR": Log, "sigmas of EDM": Sigmas, "lists": Lists}
if torch is not None:
    CHAINS["torch"] = Torch

# check → (coding, schedule, T) triples are spread so that every coding, schedule and T meets every check's group


def tables_case(chain, betas):
    mine = chain(betas)
    return mine.judge(c.check_schedule(NoiseSchedule(betas), *mine.tables()))


def method_case(check, name, chain, betas):
    mine = chain(betas)
    return mine.judge(getattr(c, check)(getattr(mine, name), NoiseSchedule(betas)))


def merging_case(chain, betas):
    mine = chain(betas)
    return mine.judge(c.check_noise_merging(mine.merge, mine.split, NoiseSchedule(betas)))


def variances(betas, kind):
    exact = Log(betas)
    if kind == "between":
        return np.sqrt(exact.sigma_squared("beta") * exact.sigma_squared("posterior"))
    return np.asarray(exact.sigma_squared(kind))


def ancestral_case(kind, chain, betas):
    mine, table = chain(betas), variances(betas, kind)
    return mine.judge(c.check_ancestral_step(partial(mine.ancestral, table), NoiseSchedule(betas), table))


def ddim_case(eta, chain, betas):
    mine = chain(betas)
    return mine.judge(c.check_ddim_step(partial(mine.ddim, eta), NoiseSchedule(betas), eta))


def ddim_sampler_case(eta, chain, betas):
    mine = chain(betas)
    return mine.judge(c.check_ddim_sampler(partial(mine.sample_ddim, eta), NoiseSchedule(betas), eta))


def sampler_case(kind, chain, betas):
    mine, table = chain(betas), variances(betas, kind)
    run = partial(mine.sample, table)
    return mine.judge(c.check_sampler(run, NoiseSchedule(betas), 0.7, 1.9, table))


def reverse_variance_case(chain, betas):
    mine = chain(betas)
    return mine.judge(c.check_reverse_variance(mine.sigma_squared, NoiseSchedule(betas)))


def optimal_case(D, chain, betas):
    mine, betas = chain(betas), np.asarray(betas)

    def mean_square_step(noise_loss):
        tilde = np.asarray(mine.tables()[2], np.float64) ** 2
        out = np.zeros(len(betas) + 1)
        for t in range(1, len(betas) + 1):
            # β⁴ℓ/(Dα²β̄²) is 2σ² times the factor of ‖ε − ε̂‖² at σ² = 1
            out[t] = tilde[t] + 2 * mine.step_factor(t, 1.0) * noise_loss[t] / D
        return out

    return mine.judge(c.check_optimal_variance(mean_square_step, NoiseSchedule(betas), spd(D)))


def weights_case(kind, chain, betas):
    mine, table = chain(betas), variances(betas, kind)
    return mine.judge(c.check_loss_weights(partial(mine.weights, table), NoiseSchedule(betas), table))


def chain_cases():
    # The subtraction 1 − ᾱ² belongs to schedules without tiny variances.
    pairs = [
        ("Ho's tables", "Ho", 1000), ("Ho's tables", "cosine", 50), ("Ho's tables", "flow matching", 5),
        ("float32 tables", "constant", 50), ("float32 tables", "flow matching", 2), ("float32 tables", "cosine", 5),
        ("log-SNR", "tiny 1e-8", 50), ("log-SNR", "nearly 1", 5), ("log-SNR", "Ho", 1),
        ("sigmas of EDM", "EDM sigmas", 18), ("sigmas of EDM", "flow matching", 50), ("sigmas of EDM", "tiny 1e-8", 2),
        ("lists", "latent diffusion", 50), ("lists", "nearly 1", 2), ("lists", "tiny 1e-8", 5),
        ("torch", "sigmoid", 50), ("torch", "EDM sigmas", 5), ("torch", "cosine", 1000),
    ]  # fmt: skip
    pairs = [pair for pair in pairs if pair[0] in CHAINS]
    kinds = [
        ("check_schedule", tables_case),
        ("check_forward_step", partial(method_case, "check_forward_step", "q_step")),
        ("check_forward_process", partial(method_case, "check_forward_process", "q_sample")),
        ("check_posterior", partial(method_case, "check_posterior", "q_posterior")),
        ("check_predict_x0", partial(method_case, "check_predict_x0", "predict_x0")),
        ("check_ddim_inversion", partial(method_case, "check_ddim_inversion", "inverse")),
        ("check_noise_merging", merging_case),
        ("check_ancestral_step, beta", partial(ancestral_case, "beta")),
        ("check_ancestral_step, between", partial(ancestral_case, "between")),
        ("check_ddim_step, eta 0", partial(ddim_case, 0.0)),
        ("check_ddim_step, eta 1", partial(ddim_case, 1.0)),
        ("check_ddim_step, eta 0.7", partial(ddim_case, 0.7)),
        ("check_ddim_sampler, eta 0", partial(ddim_sampler_case, 0.0)),
        ("check_ddim_sampler, eta 0.6", partial(ddim_sampler_case, 0.6)),
        ("check_sampler, beta", partial(sampler_case, "beta")),
        ("check_sampler, posterior", partial(sampler_case, "posterior")),
        ("check_reverse_variance", reverse_variance_case),
        ("check_optimal_variance, D 3", partial(optimal_case, 3)),
        ("check_optimal_variance, D 16", partial(optimal_case, 16)),
        ("check_loss_weights, beta", partial(weights_case, "beta")),
        ("check_loss_weights, posterior", partial(weights_case, "posterior")),
    ]
    taken = itertools.count()
    for name, run in kinds:
        for _ in range(4 if "," in name else 5):
            coding, schedule, T = pairs[(7 * next(taken)) % len(pairs)]
            betas = SCHEDULES[schedule](T)
            add(f"{name}: {coding}, {schedule}, T {T}", run, CHAINS[coding], betas)
    for name, run in kinds[:6]:
        add(f"{name}: log-SNR, Ho, T 4000", run, Log, ho(4000))


chain_cases()


# Bounds and losses of the chain


def wavy(x, t):
    return 0.6 * np.tanh(x) + 0.2 * x * math.cos(t) + 0.1


def log_normal(x, mean, variance):
    """Per example, in nats."""
    return -0.5 * np.sum((x - mean) ** 2 / variance + np.log(2 * np.pi * variance), axis=-1)


class Bound:
    """The terms of −ELBO; `form` selects how a divergence is written."""

    def __init__(self, betas, sigma_squared, form):
        self.c, self.v, self.form = Log(betas), np.asarray(sigma_squared, float), form
        self.tilde2 = self.c.tables()[2] ** 2

    def prior(self, x0):
        x0 = np.asarray(x0)
        if self.form == "loop":
            total = []
            for row in x0:
                s = 0.0
                for value in row:
                    m, v = self.c.scale[-1] * value, self.c.sigma2[-1]
                    s += 0.5 * (m * m + v - 1 - math.log(v))
                total.append(s)
            return total
        return 0.5 * ((self.c.scale[-1] * x0) ** 2 + self.c.sigma2[-1] - 1 - np.log(self.c.sigma2[-1])).sum(1)

    def step(self, t, x0, x_t, eps_hat):
        guess, v, tilde = eps_hat(x_t, t), self.v[t], self.tilde2[t]
        D = x0.shape[1]
        if self.form == "means":
            true, _ = self.c.q_posterior(t, x_t, x0)
            square = np.sum((true - self.c.p_mean(t, x_t, guess)) ** 2, axis=1) / (2 * v)
        else:
            eps = (x_t - self.c.scale[t] * x0) / self.c.sigma[t]
            square = self.c.step_factor(t, v) * np.einsum("nd,nd->n", eps - guess, eps - guess)
        return square + 0.5 * D * (tilde / v - 1 - math.log(tilde / v))

    def reconstruction(self, x0, x_1, eps_hat):
        return -log_normal(x0, self.c.p_mean(1, x_1, eps_hat(x_1, 1)), self.v[1])

    def terms(self, x0, eps_hat, noise):
        columns = [self.reconstruction(x0, self.c.q_sample(1, x0, noise[0]), eps_hat)]
        columns += [self.step(t, x0, self.c.q_sample(t, x0, noise[t - 1]), eps_hat) for t in range(2, self.c.T + 1)]
        return np.stack([*columns, np.asarray(self.prior(x0))], axis=1)

    def from_losses(self, losses, second_moment, D):
        c, T = self.c, self.c.T
        total = 0.5 * (c.scale[T] ** 2 * second_moment + D * (c.sigma2[T] - 1 - math.log(c.sigma2[T])))
        total += 0.5 * D * (_LOG2PI + math.log(self.v[1])) + c.step_factor(1, self.v[1]) * losses[1]
        for t in range(2, T + 1):
            r = self.tilde2[t] / self.v[t]
            total += 0.5 * D * (r - 1 - math.log(r)) + c.step_factor(t, self.v[t]) * losses[t]
        return total

    def from_entropies(self, losses, second_moment, D):
        """(21): cross-entropies of the chain minus the entropy of the forward steps."""
        c, T = self.c, self.c.T
        out = 0.5 * (c.scale[T] ** 2 * second_moment + D * c.sigma2[T] + D * _LOG2PI)
        for t in range(1, T + 1):
            out += c.step_factor(t, self.v[t]) * losses[t]
            out += 0.5 * D * (_LOG2PI + math.log(self.v[t]) + self.tilde2[t] / self.v[t])
            out -= 0.5 * D * (_LOG2PI + 1 + math.log(c.b[t]))
        return out


def bound_terms_case(form, betas, kind, D):
    table = variances(betas, kind)
    mine = Bound(betas, table, form)
    x0, noise = normals(4, D), normals(4, D, seed=1)
    schedule = NoiseSchedule(betas)
    return c.check_bound_terms(mine.prior, mine.step, mine.reconstruction, schedule, x0, noise, wavy, table)


def affine_net(T, D):
    return 0.3 * numbers(T + 1, D, D) + 0.4 * np.eye(D), 0.2 * numbers(T + 1, D, seed=1)


def variational_case(form, betas, kind, D):
    table = variances(betas, kind)
    mine = Bound(betas, table, form)
    A, b = affine_net(len(betas), D)

    def bound(x0, eps_hat, noise):
        terms = mine.terms(x0, eps_hat, noise)
        return terms if form == "noises" else terms.sum(1)

    return c.check_variational_bound(bound, NoiseSchedule(betas), numbers(D), spd(D), A, b, table)


def negative_elbo_case(form, betas, kind, D):
    table = variances(betas, kind)
    mine = Bound(betas, table, "noises")
    A, b = affine_net(len(betas), D)
    run = mine.from_losses if form == "terms" else mine.from_entropies
    return c.check_negative_elbo(run, NoiseSchedule(betas), numbers(D), spd(D), A, b, table)


def chains_case(form, betas, kind, D):
    table, mine, T = variances(betas, kind), Log(betas), len(betas)

    def forward(path):
        if form == "loop":
            return [
                sum(
                    -0.5
                    * ((b - math.sqrt(1 - betas[t - 1]) * a) ** 2 / betas[t - 1] + math.log(2 * math.pi * betas[t - 1]))
                    for t in range(1, T + 1)
                    for a, b in zip(path[t - 1, n], path[t, n], strict=True)
                )
                for n in range(path.shape[1])
            ]
        residual = path[1:] - np.sqrt(1 - betas)[:, None, None] * path[:-1]
        scaled = np.sum(residual**2 / betas[:, None, None], (0, 2))
        return -0.5 * (scaled + path.shape[2] * np.sum(np.log(betas) + _LOG2PI))

    def reverse(path, eps_hat):
        total = log_normal(path[T], 0.0, 1.0) - 0.0
        for t in range(T, 0, -1):
            total = total + log_normal(path[t - 1], mine.p_mean(t, path[t], eps_hat(path[t], t)), np.float64(table[t]))
        return total

    def standard(x):
        return -0.5 * (x**2).sum(-1) - 0.5 * x.shape[-1] * _LOG2PI

    def reverse_sum(path, eps_hat):
        rows = [standard(path[-1])]
        for t in range(1, T + 1):
            r = (path[t - 1] - mine.p_mean(t, path[t], eps_hat(path[t], t))) / math.sqrt(table[t])
            rows.append(standard(r) - path.shape[2] * 0.5 * math.log(table[t]))
        return np.sum(rows, axis=0)

    path, slopes = normals(T + 1, 3, D), 0.5 * numbers(T + 1)
    run = reverse_sum if form == "loop" else lambda p, e: reverse(p, e) + 0.0
    return c.check_chains(forward, run, NoiseSchedule(betas), path, slopes, table)


def step_loss_case(form, betas, t, sigma_squared):
    k = Log(betas)

    def loss(t, x0, previous, new, eps_hat):
        before = k.scale[t - 1] * x0 + k.sigma[t - 1] * previous
        x_t = k.q_step(t, before, new)
        guess = np.asarray(eps_hat(x_t, t))
        if form == "density":
            return -log_normal(before, k.p_mean(t, x_t, guess), np.float64(sigma_squared))
        D = x0.shape[1]
        constant_part = 0.5 * D * math.log(2 * math.pi * sigma_squared)
        if form == "merged":
            eps, _ = k.merge(t, previous, new)
            tilde = k.tables()[2][t] ** 2
            square = k.step_factor(t, sigma_squared) * ((eps - guess) ** 2).sum(1)
            return constant_part + D * tilde / (2 * sigma_squared) + square
        # (26): noise of the step and the network of the step, ε_θ = (β_t/β̄_t) ε̂
        own = k.b[t] ** 0.5 / k.sigma[t] * guess
        return constant_part + k.b[t] / (2 * (1 - k.b[t]) * sigma_squared) * np.einsum("ij,ij->i", new - own, new - own)

    def net(x, t):
        return 0.7 * np.tanh(0.8 * x) + 0.1 * x + 0.05 * t / len(betas)

    return c.check_step_loss(loss, NoiseSchedule(betas), t, net, 0.3, 0.8, sigma_squared)


def bound_cases():
    for form, schedule, T, kind, D in [
        ("loop", "Ho", 50, "beta", 3), ("means", "cosine", 5, "between", 2), ("noises", "constant", 50, "between", 16),
        ("noises", "flow matching", 5, "beta", 64), ("means", "nearly 1", 2, "beta", 2),
    ]:  # fmt: skip
        betas = SCHEDULES[schedule](T)
        label = f"{form}, {schedule}, T {T}, {kind}, D {D}"
        add(f"check_bound_terms: {label}", bound_terms_case, form, betas, kind, D)
    for form, schedule, T, kind, D in [
        ("loop", "Ho", 5, "beta", 2), ("means", "cosine", 5, "between", 2), ("noises", "constant", 10, "between", 3),
        ("noises", "flow matching", 5, "beta", 1), ("means", "latent diffusion", 2, "posterior", 2),
    ]:  # fmt: skip
        betas = SCHEDULES[schedule](T)
        label = f"{form}, {schedule}, T {T}, {kind}, D {D}"
        add(f"check_variational_bound: {label}", variational_case, form, betas, kind, D)
        other = "terms" if D == 2 else "entropies"
        add(f"check_negative_elbo: {other}, {label}", negative_elbo_case, other, betas, kind, D)
        if D > 1:
            add(f"check_chains: {label}", chains_case, form, betas, kind, D)
    for form in "density", "merged", "step noise":
        for schedule, T, t in ("Ho", 1000, 500), ("cosine", 50, 1), ("EDM sigmas", 18, 18):
            betas = SCHEDULES[schedule](T)
            v = float(betas[t - 1]) * (0.8 if form == "merged" else 1.0)
            add(f"check_step_loss: {form}, {schedule}, T {T}, t {t}", step_loss_case, form, betas, t, v)


bound_cases()


# Code with its own network


def small_net(D, dtype, seed=0):
    W1, W2 = (normals(D, 16, seed=seed) / math.sqrt(D)).astype(dtype), (normals(16, D, seed=seed) / 4).astype(dtype)
    b1 = (0.3 * numbers(16, seed=seed)).astype(dtype)

    def network(x, t):
        h = np.tanh(np.asarray(x, dtype) @ W1 + b1 + dtype(0.01) * np.asarray(t, dtype).reshape(-1, 1))
        return h @ W2 + dtype(0.3) * np.asarray(x, dtype)

    return network


def torch_net(D, dtype):
    W1 = torch.tensor(normals(D, 16) / math.sqrt(D), dtype=dtype)
    W2 = torch.tensor(normals(16, D, seed=3) / 4, dtype=dtype)

    def network(x, t):
        x = torch.as_tensor(np.asarray(x)).to(dtype)
        t = torch.as_tensor(np.asarray(t, np.float64)).to(dtype).reshape(-1, 1)
        return torch.nn.functional.silu(x @ W1 + 0.01 * t) @ W2 + 0.2 * x

    return network


def net_of(library, D, single):
    if library == "torch" and torch is not None:
        return torch_net(D, torch.float32 if single else torch.float64)
    return small_net(D, np.float32 if single else np.float64)


def loss_of_case(library, single, betas, D, prediction, reduction, weighted):
    network, T, k = net_of(library, D, single), len(betas), Log(betas)
    weight = 0.5 + np.arange(T + 1) / T if weighted else None

    def loss(t, x0, noise):
        a, s = k.scale[t][:, None], k.sigma[t][:, None]
        x_t = a * x0 + s * noise
        target = {"noise": noise, "x0": x0, "v": a * noise - s * x0, "step": np.sqrt(k.b[t])[:, None] / s * noise}
        error = (target[prediction] - np.asarray(network(x_t, t), float)) ** 2
        out = error.sum(1) if reduction == "sum" else error.mean(1)
        return out * (1 if weight is None else weight[t])

    return c.check_loss_of(
        loss, network, normals(6, D), normals(6, D, seed=2), NoiseSchedule(betas), None, prediction, weight, reduction
    )


def bound_of_case(library, single, betas, D, terms):
    network, mine = net_of(library, D, single), Bound(betas, Log(betas).sigma_squared(), "noises")

    def bound(x0, noise):
        found = mine.terms(np.asarray(x0), lambda x, t: np.asarray(network(x, t), float), noise)
        return found if terms else found.sum(1)

    T = len(betas)
    return c.check_bound_of(bound, network, normals(3, D), normals(T, 3, D, seed=2), NoiseSchedule(betas))


def sampler_of_case(library, single, betas, D, eta, path):
    network, T, k = net_of(library, D, single), len(betas), Log(betas)

    def sample(x, noise):
        states = [np.asarray(x, float)]
        for i, t in enumerate(range(T, 0, -1)):
            eps = np.asarray(network(states[-1], t), float)
            if eta is None:
                z = noise[i] if t > 1 else np.zeros_like(states[-1])
                states.append(k.ancestral(k.sigma_squared("posterior"), t, states[-1], eps, z))
            else:
                states.append(k.ddim(eta, t, t - 1, states[-1], eps, noise[i]))
        return np.stack(states) if path else states[-1]

    return c.check_sampler_of(
        sample,
        network,
        normals(3, D),
        normals(T, 3, D, seed=2),
        NoiseSchedule(betas),
        "posterior",
        eta,
        eta is not None,
    )


def predicted_noise_case(kind, form, betas, D):
    k = Log(betas)

    def output(x, t, labelled):
        return 0.8 * np.tanh(x) * (1.3 if labelled else 1.0) + 0.1 * math.sin(t) + 0.2 * labelled

    def predict(x, t, guidance, clip):
        a, s = k.scale[t], k.sigma[t]

        def both(out):
            """(x̂_0, ε̂) of a prediction."""
            if kind == "x0":
                return out, (x - a * out) / s
            if kind == "v":
                return a * x - s * out, a * out + s * x
            eps = out if kind == "noise" else out * s / math.sqrt(k.b[t])
            return (x - s * eps) / a, eps

        if form == "network":
            free, held = output(x, t, False), output(x, t, True)
            x0, eps = both(free + guidance * (held - free))
        else:
            (x0_free, free), (x0_held, held) = both(output(x, t, False)), both(output(x, t, True))
            x0, eps = (1 - guidance) * x0_free + guidance * x0_held, (1 - guidance) * free + guidance * held
        return (x - a * np.clip(x0, -1, 1)) / s if clip else eps

    return c.check_predicted_noise(predict, output, NoiseSchedule(betas), kind, 2.0 * normals(5, D))


def own_network_cases():
    for i, (prediction, reduction) in enumerate(itertools.product(("noise", "x0", "v", "step"), ("sum", "mean"))):
        library, single = ("numpy", "torch")[i % 2], i in (2, 5)
        schedule, T = [("Ho", 1000), ("cosine", 50), ("latent diffusion", 1000), ("constant", 5)][i // 2]
        D = (1, 2, 16, 64, 3, 2, 16, 3)[i]
        name = f"check_loss_of: {library}, {'float32' if single else 'float64'}, {prediction}, {reduction}"
        name += f", {schedule}, T {T}"
        betas = SCHEDULES[schedule](T)
        add(f"{name}, D {D}", loss_of_case, library, single, betas, D, prediction, reduction, i % 3 == 0)
    for library, single, schedule, T, D in [
        ("numpy", False, "Ho", 50, 3), ("torch", True, "constant", 50, 16), ("numpy", True, "flow matching", 5, 2),
        ("torch", False, "cosine", 50, 64),
    ]:  # fmt: skip
        betas = SCHEDULES[schedule](T)
        label = f"{library}, {'float32' if single else 'float64'}, {schedule}, T {T}, D {D}"
        add(f"check_bound_of: {label}", bound_of_case, library, single, betas, D, D == 3)
        eta = {3: None, 16: 0.0, 2: 1.0, 64: None}[D]
        add(f"check_sampler_of: {label}, eta {eta}", sampler_of_case, library, single, betas, D, eta, D in (2, 3))
    for kind, form, schedule, T, D in [
        ("noise", "network", "Ho", 1000, 3), ("x0", "guided noise", "cosine", 50, 2), ("v", "network", "Ho", 50, 16),
        ("v", "guided noise", "flow matching", 5, 1), ("step", "network", "latent diffusion", 50, 2),
    ]:  # fmt: skip
        name = f"check_predicted_noise: {kind}, {form}, {schedule}, T {T}, D {D}"
        add(name, predicted_noise_case, kind, form, SCHEDULES[schedule](T), D)


own_network_cases()


# Draws of steps and times


def step_draws_case(form, T, n):
    def even(u):
        place = (np.arange(n) + u) / n
        return np.minimum((place * T).astype(int), T - 1) + 1, np.ones(n)

    def modulo(u):
        return [1 + int(((i / n + u) % 1.0) * T) % T for i in range(n)], [1.0] * n

    share = np.arange(1, T + 1) + 2.0
    share = share / share.sum()

    def importance(u):
        places = (np.arange(n) + u) / n
        t = np.minimum(np.searchsorted(np.cumsum(share), places, side="right"), T - 1)
        return t + 1, 1 / (T * share[t])

    return c.check_step_draws({"even": even, "modulo": modulo, "importance": importance}[form], T)


def time_draws_case(form, n):
    horizon = 2.5

    def uniform(u):
        return horizon * ((np.arange(n) / n + u) % 1.0), np.ones(n)

    def tilted(u):
        r = (np.sqrt(1 + 8 * (np.arange(n) + u) / n) - 1) / 2  # density ½ + r of the share r
        return horizon * r, 1 / (0.5 + r)

    sde, t_min = VP(horizon=2.0), 1e-2
    high, low = float(sde.log_snr(t_min)), float(sde.log_snr(2.0))

    def log_snr(u):
        return [float(sde.time_at(high + (low - high) * (i + u) / n)) for i in range(n)], [1.0] * n

    clocks = {"log-SNR": lambda t: (high - sde.log_snr(np.asarray(t))) / (high - low)}
    draw = {"uniform": uniform, "tilted": tilted, "log-SNR": log_snr}[form]
    return c.check_time_draws(draw, clocks.get(form, lambda t: np.asarray(t) / horizon))


for _form, _T, _n in ("even", 5, 1), ("even", 50, 8), ("modulo", 1000, 4), ("importance", 5, 3), ("modulo", 1, 2):
    add(f"check_step_draws: {_form}, T {_T}, n {_n}", step_draws_case, _form, _T, _n)
for _form, _n in ("uniform", 1), ("uniform", 16), ("tilted", 64), ("log-SNR", 4):
    add(f"check_time_draws: {_form}, n {_n}", time_draws_case, _form, _n)


# Divergences and latent variables as tables


def simplex(*shape, axis=-1, seed=0):
    table = positive_table(*shape, seed=seed)
    return table / table.sum(axis=axis, keepdims=axis is not None)


def tables_problem(X, Z, seed=0):
    """p(x), q(z | x), p(x | z), p(z)."""
    return (
        simplex(X, seed=seed),
        simplex(X, Z, seed=seed + 1),
        simplex(X, Z, axis=0, seed=seed + 2),
        simplex(Z, seed=seed + 3),
    )


def kl_sum(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(np.ravel(p).tolist(), np.ravel(q).tolist(), strict=True))


def kl_logs(p, q):
    return np.sum(p * (np.log(p) - np.log(q)))


def kl_torch(p, q):
    return (torch.tensor(p) * (torch.tensor(p) / torch.tensor(q)).log()).sum()


KLS = {"fsum": kl_sum, "logs": kl_logs}
if torch is not None:
    KLS["torch"] = kl_torch


def single(f, *arguments):
    return np.asarray(f(*(np.asarray(a, np.float32) for a in arguments)))


def kl_cases():
    for (name, kl), X in zip([*KLS.items(), *KLS.items()], (2, 3, 16, 64, 5, 2), strict=False):
        add(f"check_kl: {name}, {X} values", lambda kl, X: c.check_kl(kl, simplex(X), simplex(X, seed=5)), kl, X)
    run = lambda p, q: c.check_kl(partial(single, kl_logs), p, q).at(1e-5)  # noqa: E731
    add("check_kl: float32, 8 values", run, simplex(8), simplex(8, seed=5))


kl_cases()


def gaussian_kl_cholesky(m, S, n, R):
    L, K = np.linalg.cholesky(R), np.linalg.cholesky(S)
    A, d = np.linalg.solve(L, K), np.linalg.solve(L, n - m)
    return 0.5 * (np.sum(A**2) + d @ d - len(m)) + np.log(np.diag(L)).sum() - np.log(np.diag(K)).sum()


def gaussian_kl_inverse(m, S, n, R):
    P = np.linalg.inv(R)
    logs = np.linalg.slogdet(R)[1] - np.linalg.slogdet(S)[1]
    return 0.5 * (np.einsum("ij,ji", P, S) + np.einsum("i,ij,j", n - m, P, n - m) - len(m) + logs)


def gaussian_kl_torch(m, S, n, R):
    from torch.distributions import MultivariateNormal, kl_divergence

    m, S, n, R = (torch.tensor(a, dtype=torch.float64) for a in (m, S, n, R))
    return kl_divergence(MultivariateNormal(m, S), MultivariateNormal(n, R))


def diagonal_kl_sum(mean, log_variance):
    return -0.5 * np.sum(1 + log_variance - mean**2 - np.exp(log_variance), axis=1)


def diagonal_kl_loop(mean, log_variance):
    return [
        math.fsum(0.5 * (m * m + math.expm1(v) - v) for m, v in zip(*rows, strict=True))
        for rows in zip(mean.tolist(), log_variance.tolist(), strict=True)
    ]


def diagonal_kl_torch(mean, log_variance):
    from torch.distributions import Normal, kl_divergence

    mean, std = torch.tensor(mean), torch.tensor(log_variance).mul(0.5).exp()
    return kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(-1)


def draw_std(mean, log_variance, noise):
    return mean + np.exp(0.5 * log_variance) * noise


def draw_loop(mean, log_variance, noise):
    return [
        [m + math.sqrt(math.exp(v)) * z for m, v, z in zip(*rows, strict=True)]
        for rows in zip(mean.tolist(), log_variance.tolist(), noise.tolist(), strict=True)
    ]


def draw_torch(mean, log_variance, noise):
    mean, log_variance, noise = map(torch.as_tensor, (mean, log_variance, noise))
    return torch.addcmul(mean, log_variance.div(2).exp(), noise)


def vae_loss_plain(x, x_hat, mean, log_variance, decoder_log_variance):
    D = x.shape[1]
    nll = 0.5 * np.sum((x - x_hat) ** 2, 1) / np.exp(decoder_log_variance) + 0.5 * D * (_LOG2PI + decoder_log_variance)
    return nll + diagonal_kl_sum(mean, log_variance)


def vae_loss_torch(x, x_hat, mean, log_variance, decoder_log_variance):
    x, x_hat, mean, log_variance = map(torch.as_tensor, (x, x_hat, mean, log_variance))
    v = torch.exp(torch.as_tensor(decoder_log_variance, dtype=x.dtype)).expand_as(x)
    nll = torch.nn.functional.gaussian_nll_loss(x_hat, x, v, full=True, reduction="none", eps=1e-300).sum(1)
    return nll + 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)


def vae_loss_loop(x, x_hat, mean, log_variance, decoder_log_variance):
    kl = diagonal_kl_loop(mean, log_variance)
    out = []
    for n in range(len(x)):
        terms = [(a - b) ** 2 * math.exp(-float(decoder_log_variance)) for a, b in zip(x[n], x_hat[n], strict=True)]
        out.append(0.5 * (math.fsum(terms) + len(terms) * (_LOG2PI + float(decoder_log_variance))) + kl[n])
    return out


def vae_cases():
    usable = [name for name in ("plain", "loop", "torch") if name != "torch" or torch is not None]
    losses = {"plain": vae_loss_plain, "loop": vae_loss_loop, "torch": vae_loss_torch if torch else None}
    kls = {"plain": diagonal_kl_sum, "loop": diagonal_kl_loop, "torch": diagonal_kl_torch}
    draws = {"plain": draw_std, "loop": draw_loop, "torch": draw_torch}
    gaussian = {"plain": gaussian_kl_inverse, "loop": gaussian_kl_cholesky, "torch": gaussian_kl_torch}

    def vae(loss, N, D, k, v):
        W, b = normals(D, k), numbers(D)
        return c.check_vae_loss(loss, normals(N, D, seed=4), W, b, v, numbers(N, k), -1 + numbers(N, k, seed=7))

    for i, name in enumerate(usable):
        for D, k, v in ((3, 1, 0.3), (16, 2, 0.05), (2, 3, 1.0))[: 3 if i == 0 else 2]:
            add(f"check_vae_loss: {name}, D {D}, k {k}, variance {v}", vae, losses[name], 4, D, k, v)
        for k, spread in ((2, 1.0), (16, 3.0)):
            arrays = (normals(5, k), spread * numbers(5, k))
            add(f"check_diagonal_kl: {name}, k {k}, spread {spread}", c.check_diagonal_kl, kls[name], *arrays)
            arrays = (*arrays, normals(5, k, seed=9))
            add(
                f"check_reparameterisation: {name}, k {k}, spread {spread}",
                c.check_reparameterisation,
                draws[name],
                *arrays,
            )
        for D in (1, 3, 16)[: 3 if i < 2 else 2]:
            arrays = (numbers(D), spd(D), numbers(D, seed=1), spd(D, seed=2))
            add(f"check_gaussian_kl: {name}, D {D}", c.check_gaussian_kl, gaussian[name], *arrays)
    add(
        "check_diagonal_kl: float32, k 3",
        lambda m, v: c.check_diagonal_kl(partial(single, diagonal_kl_sum), m, v).at(1e-5), normals(5, 3), numbers(5, 3),
    )  # fmt: skip
    add(
        "check_reparameterisation: float32, k 3",
        lambda *a: c.check_reparameterisation(partial(single, draw_std), *a).at(1e-5),
        *(normals(5, 3), numbers(5, 3), normals(5, 3, seed=2)),
    )
    add("check_vae_loss: float32, D 3, k 2", lambda: vae(partial(single, vae_loss_plain), 4, 3, 2, 0.5).at(1e-5))


vae_cases()


# ELBO and friends on tables; "sums" in arrays, "loops" in Python numbers, "logs" in log space


def posterior_sums(joint):
    return joint / joint.sum(1, keepdims=True), joint.sum(1)


def posterior_logs(joint):
    log_x = logsumexp(np.log(joint), axis=1)
    return np.exp(np.log(joint) - log_x[:, None]), np.exp(log_x)


def posterior_loops(joint):
    evidence = [math.fsum(row) for row in joint.tolist()]
    return [[v / e for v in row] for row, e in zip(joint.tolist(), evidence, strict=True)], evidence


def elbo_sums(joint, q):
    return np.einsum("xz,xz->x", q, np.log(joint / q))


def elbo_loops(joint, q):
    return [math.fsum(b * math.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(joint, q, strict=True)]


def elbo_logs(joint, q):
    post, evidence = posterior_logs(joint)
    return np.log(evidence) - np.sum(q * (np.log(q) - np.log(post)), 1)


def posterior_kl_sums(joint, q):
    return np.sum(q * np.log(q / posterior_sums(joint)[0]), 1)


def posterior_kl_loops(joint, q):
    post = posterior_loops(joint)[0]
    return [kl_sum(np.asarray(a), np.asarray(b)) for a, b in zip(q, post, strict=True)]


def split_sums(decoder, prior, q):
    return (q * np.log(decoder)).sum(1) - (q * np.log(q / prior)).sum(1)


def split_loops(decoder, prior, q):
    return [
        math.fsum(w * (math.log(d) + math.log(p) - math.log(w)) for d, p, w in zip(row, prior, qs, strict=True))
        for row, qs in zip(decoder, q, strict=True)
    ]


def joint_kl_sums(p_x, q, decoder, prior):
    joint = p_x[:, None] * q
    return np.sum(joint * (np.log(joint) - np.log(decoder * prior)))


def joint_kl_chain(p_x, q, decoder, prior):
    model = decoder * prior
    post, evidence = posterior_sums(model)
    return kl_logs(p_x, evidence) + p_x @ np.sum(q * np.log(q / post), 1)


def objective_sums(p_x, q, decoder, prior):
    return -p_x @ split_sums(decoder, prior, q)


def objective_loops(p_x, q, decoder, prior):
    return -math.fsum(p * e for p, e in zip(p_x.tolist(), split_loops(decoder, prior, q), strict=True))


def free_m_sums(p_x, q):
    joint = p_x[:, None] * q
    return joint / joint.sum(0), joint.sum(0)


def free_m_loops(p_x, q):
    z = [math.fsum(p * row[j] for p, row in zip(p_x, q, strict=True)) for j in range(q.shape[1])]
    return [[p * row[j] / z[j] for j in range(len(z))] for p, row in zip(p_x, q, strict=True)], z


def iw_logs(log_weights):
    return logsumexp(log_weights, axis=0) - math.log(len(log_weights))


def iw_shift(log_weights):
    top = log_weights.max(0)
    return top + np.log(np.mean(np.exp(log_weights - top), 0))


def iw_torch(log_weights):
    return torch.logsumexp(torch.as_tensor(log_weights), 0) - math.log(len(log_weights))


def ladder_tuples(joint, q, n):
    out = []
    for row, qs in zip(joint, q, strict=True):
        w = (row / qs).tolist()
        total = [
            math.prod(qs[z] for z in zs) * math.log(math.fsum(w[z] for z in zs) / n)
            for zs in itertools.product(range(len(qs)), repeat=n)
        ]
        out.append(math.fsum(total))
    return out


def ladder_arrays(joint, q, n):
    log_w = np.log(joint) - np.log(q)
    Z = q.shape[1]
    index = np.array(list(itertools.product(range(Z), repeat=n)))
    chance = np.prod(q[:, index], axis=2)
    return np.sum(chance * (logsumexp(log_w[:, index], axis=2) - math.log(n)), axis=1)


def parts_sums(p_x, q, prior):
    marginal = p_x @ q
    return np.sum(q * np.log(q / marginal), 1), np.sum(marginal * np.log(marginal / prior))


def parts_loops(p_x, q, prior):
    marginal = np.array([math.fsum(p * row[j] for p, row in zip(p_x, q, strict=True)) for j in range(q.shape[1])])
    return [kl_sum(row, marginal) for row in q], kl_sum(marginal, prior)


def table_cases():
    for X, Z in (2, 2), (3, 5), (16, 3):
        p_x, q, decoder, prior = tables_problem(X, Z, X)
        joint = simplex(X, Z, axis=None, seed=X)
        label = f"{X} x {Z}"
        for name, f in ("sums", posterior_sums), ("logs", posterior_logs), ("loops", posterior_loops):
            if (X, name) != (16, "loops"):
                add(f"check_latent_posterior: {name}, {label}", c.check_latent_posterior, f, joint)
        for name, f in ("sums", elbo_sums), ("logs", elbo_logs), ("loops", elbo_loops):
            add(f"check_elbo: {name}, {label}", c.check_elbo, f, joint, q)
        for name, f in ("sums", posterior_kl_sums), ("loops", posterior_kl_loops):
            add(f"check_posterior_kl: {name}, {label}", c.check_posterior_kl, f, joint, q)
        for name, f in ("sums", split_sums), ("loops", split_loops):
            add(f"check_split_elbo: {name}, {label}", c.check_split_elbo, f, decoder, prior, q)
        for name, f in ("sums", joint_kl_sums), ("chain rule", joint_kl_chain):
            add(f"check_joint_kl: {name}, {label}", c.check_joint_kl, f, p_x, q, decoder, prior)
        for name, f in ("sums", objective_sums), ("loops", objective_loops):
            add(f"check_vae_objective: {name}, {label}", c.check_vae_objective, f, p_x, q, decoder, prior)
        for name, f in ("sums", free_m_sums), ("loops", free_m_loops):
            add(f"check_free_m_step: {name}, {label}", c.check_free_m_step, f, p_x, q, prior)
        for name, f in ("sums", parts_sums), ("loops", parts_loops):
            add(f"check_kl_parts: {name}, {label}", c.check_kl_parts, f, p_x, q, prior)
        if X < 16:
            for name, f in ("tuples", ladder_tuples), ("arrays", ladder_arrays):
                add(f"check_iwae_ladder: {name}, {label}", c.check_iwae_ladder, f, joint, q, 3 if Z == 5 else 4)
        for name, f in ("logsumexp", iw_logs), ("shifted", iw_shift), ("torch", iw_torch):
            if X < 16 and (name != "torch" or torch):
                name = f"check_importance_weighted_bound: {name}, {label}"
                add(name, c.check_importance_weighted_bound, f, joint, q, 2 if X == 3 else 3)


table_cases()


# Mixtures and EM


def mixture_problem(K, D, N=30, seed=0):
    w, m = simplex(K, seed=seed), 2.0 * numbers(K, D, seed=seed)
    C = np.stack([spd(D, seed=seed + k) for k in range(K)])
    return normals(N, D, seed=seed + 3) + numbers(N, 1, seed=seed), w, m, C


def log_joint_cholesky(x, w, m, C):
    out = np.empty((len(x), len(w)))
    for k in range(len(w)):
        L = np.linalg.cholesky(C[k])
        y = np.linalg.solve(L, (x - m[k]).T)
        out[:, k] = np.log(w[k]) - 0.5 * (y**2).sum(0) - np.log(np.diag(L)).sum() - 0.5 * x.shape[1] * _LOG2PI
    return out


def log_joint_einsum(x, w, m, C):
    d = x[:, None, :] - m
    quadratic = np.einsum("nkd,kde,nke->nk", d, np.linalg.inv(C), d)
    return np.log(w) - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * C)[1])


def log_joint_torch(x, w, m, C):
    x, w, m, C = (torch.tensor(np.asarray(a), dtype=torch.float64) for a in (x, w, m, C))
    normal = torch.distributions.MultivariateNormal(m, scale_tril=torch.linalg.cholesky(C))
    return (w.log() + normal.log_prob(x[:, None, :])).numpy()


JOINTS = {"cholesky": log_joint_cholesky, "einsum": log_joint_einsum}
if torch is not None:
    JOINTS["torch"] = log_joint_torch


def softmax_rows(a):
    a = a - a.max(1, keepdims=True)
    return np.exp(a) / np.exp(a).sum(1, keepdims=True)


def log_softmax(a):
    return a - logsumexp(a, axis=1, keepdims=True)


def responsibilities(joint, x, w, m, C):
    return np.exp(log_softmax(joint(x, w, m, C)))


def free_energy(joint, x, log_resp, w, m, C):
    return np.sum(np.exp(log_resp) * (joint(x, w, m, C) - log_resp), axis=1)


def moments(x, r):
    """Counts, means and covariances of weighted points, the weights shifted so that no column underflows."""
    n = r.sum(0)
    means = (r / n).T @ x
    d = x[None] - means[:, None]
    return n, means, np.einsum("nk,knd,kne->kde", r / n, d, d)


def log_moments(x, log_r):
    """The same from logarithms; a column of responsibilities that underflows still has exact moments."""
    counts = np.exp(logsumexp(log_r, axis=0))
    share = np.exp(log_r - logsumexp(log_r, axis=0))
    means, covariances = [], []
    for k in range(share.shape[1]):
        mean = sum(s * row for s, row in zip(share[:, k], x, strict=True))
        d = x - mean
        means.append(mean)
        covariances.append((share[:, k, None] * d).T @ d)
    return counts, np.array(means), np.array(covariances)


def constrain(kind, n, C, floor):
    _, D, _ = C.shape
    if kind == "tied":
        C = np.broadcast_to(np.einsum("k,kde->de", n / n.sum(), C), C.shape)
    if kind == "diag":
        C = np.stack([np.diag(np.diag(S)) for S in C])
    if kind == "spherical":
        C = np.stack([np.trace(S) / D * np.eye(D) for S in C])
    if floor:
        values, vectors = np.linalg.eigh(C)
        C = np.einsum("kij,kj,klj->kil", vectors, np.maximum(values, floor), vectors)
    return C


def em_step(joint, form, kind, floor, x, w, m, C):
    log_r = log_softmax(joint(x, w, m, C))
    n, means, S = moments(x, np.exp(log_r)) if form == "arrays" else log_moments(x, log_r)
    return n / len(x), means, constrain(kind, n, S, floor)


def em_loop_case(joint, form, K, D, steps, floor):
    x, w, m, C = mixture_problem(K, D)

    def em():
        state, objective = (w, m, C), []
        for _ in range(steps):
            objective.append(logsumexp(joint(x, *state), axis=1).mean())
            state = em_step(joint, form, "full", floor, x, *state)
        objective.append(logsumexp(joint(x, *state), axis=1).mean())
        return objective, *state

    return c.check_em_loop(em, x, w, m, C, steps, floor)


def statistics_case(joint, form, K, D):
    x, w, m, C = mixture_problem(K, D)

    def statistics():
        logs = joint(x, w, m, C)
        found = moments(x, np.exp(log_softmax(logs))) if form == "arrays" else log_moments(x, log_softmax(logs))
        return *found, logsumexp(logs, axis=1).mean()

    return c.check_statistics(statistics, x, w, m, C)


def covariance_types(spread, counts, floor, kind, variance, count):
    _, D, _ = spread.shape
    total = counts + count
    C = (counts[:, None, None] * spread + count * variance * np.eye(D)) / total[:, None, None]
    return constrain(kind, total, C, floor)


def covariance_loops(spread, counts, floor, kind, variance, count):
    K, D, _ = spread.shape
    out = np.zeros((K, D, D))
    sums = [
        [[counts[k] * spread[k, i, j] + (count * variance if i == j else 0) for j in range(D)] for i in range(D)]
        for k in range(K)
    ]
    for k in range(K):
        group = range(K) if kind == "tied" else [k]
        n = sum(counts[g] + count for g in group)
        pooled = np.array([[sum(sums[g][i][j] for g in group) / n for j in range(D)] for i in range(D)])
        if kind == "diag":
            pooled = np.diag([max(pooled[i, i], floor) for i in range(D)])
        elif kind == "spherical":
            pooled = np.eye(D) * max(sum(pooled[i, i] for i in range(D)) / D, floor)
        else:
            e, V = np.linalg.eigh(pooled)
            pooled = (V * np.maximum(e, floor)) @ V.T
        out[k] = pooled
    return out


def kmeans_arrays(x, centres):
    labels = None
    while True:
        new = ((x[:, None] - centres) ** 2).sum(2).argmin(1)
        if labels is not None and np.array_equal(new, labels):
            return centres
        labels = new
        centres = np.stack([x[labels == k].mean(0) for k in range(len(centres))])


def kmeans_lists(x, centres):
    points, centres, labels = x.tolist(), centres.tolist(), None
    while True:
        new = [min(range(len(centres)), key=lambda k: math.dist(p, centres[k])) for p in points]
        if new == labels:
            return centres
        labels = new
        for k in range(len(centres)):
            own = [p for p, label in zip(points, labels, strict=True) if label == k]
            centres[k] = [math.fsum(v) / len(own) for v in zip(*own, strict=True)]


def table_em_arrays(pseudo_counts, x, weights, tables):
    x = np.asarray(x).astype(int)
    _, D, L = tables.shape
    logs = np.log(weights) + np.log(tables[:, np.arange(D), x]).sum(-1).T
    log_x = logsumexp(logs, axis=1)
    r = np.exp(logs - log_x[:, None])
    counts = np.einsum("nk,ndl->kdl", r, np.eye(L)[x]) + pseudo_counts
    return log_x, r.mean(0), counts / counts.sum(2, keepdims=True)


def table_em_loops(pseudo_counts, x, weights, tables):
    K, D, _ = tables.shape
    log_x, total = [], [0.0] * K
    counts = [[list(map(float, pseudo_counts[d])) for d in range(D)] for _ in range(K)]
    for row in np.asarray(x).astype(int).tolist():
        chance = [weights[k] * math.prod(tables[k, d, v] for d, v in enumerate(row)) for k in range(K)]
        log_x.append(math.log(math.fsum(chance)))
        for k in range(K):
            r = chance[k] / math.fsum(chance)
            total[k] += r
            for d, v in enumerate(row):
                counts[k][d][v] += r
    new = [[[v / math.fsum(line) for v in line] for line in table] for table in counts]
    return log_x, [t / len(x) for t in total], new


def fractions_formula(x, w, m, C):
    """The derivative of the M-step of the means, entry by entry in blocks."""
    r = responsibilities(log_joint_einsum, x, w, m, C)
    K, D = m.shape
    n, means, _ = moments(x, r)
    J = np.zeros((K, D, K, D))
    slopes = np.einsum("jde,nje->njd", np.linalg.inv(C), x[:, None] - m)  # ∂ log joint_j/∂m_j
    for k in range(K):
        for j in range(K):
            weight = r[:, k] * ((k == j) - r[:, j]) / n[k]
            J[k, :, j, :] = np.einsum("n,nd,ne->de", weight, x - means[k], slopes[:, j])
    return np.sort(np.linalg.eigvals(J.reshape(K * D, K * D)).real)[::-1]


def fractions_torch(x, w, m, C):
    x, w, C = (torch.tensor(a, dtype=torch.float64) for a in (x, w, C))

    def step(means):
        d = x[:, None] - means
        logs = w.log() - 0.5 * torch.einsum("nkd,kde,nke->nk", d, torch.linalg.inv(C), d) - 0.5 * torch.logdet(C)
        r = torch.softmax(logs, 1)
        return (r / r.sum(0)).T @ x

    J = torch.autograd.functional.jacobian(step, torch.tensor(m, dtype=torch.float64))
    n = m.size
    return torch.linalg.eigvals(J.reshape(n, n)).real.sort(descending=True).values


def fractions_complex(x, w, m, C):
    inverse, log_det = np.linalg.inv(C), np.linalg.slogdet(C)[1]

    def step(flat):
        d = x[:, None] - flat.reshape(m.shape)
        logs = np.log(w) - 0.5 * np.einsum("nkd,kde,nke->nk", d, inverse, d) - 0.5 * log_det
        e = np.exp(logs - logs.real.max(1, keepdims=True))
        r = e / e.sum(1, keepdims=True)
        return ((r / r.sum(0)).T @ x).ravel()

    columns = [step(m.ravel() + 1e-30j * unit).imag / 1e-30 for unit in np.eye(m.size)]
    return np.sort(np.linalg.eigvals(np.stack(columns, 1)).real)[::-1]


def mixture_cases():
    for i, (name, joint) in enumerate(JOINTS.items()):
        for K, D in ((1, 1), (3, 2), (2, 16))[i % 2 :]:
            x, w, m, C = mixture_problem(K, D)
            label = f"{name}, K {K}, D {D}"
            add(f"check_e_step: {label}", c.check_e_step, partial(responsibilities, joint), x, w, m, C)
            log_q = np.log(simplex(len(x), K, seed=8))
            add(f"check_free_energy: {label}", c.check_free_energy, partial(free_energy, joint), x, log_q, w, m, C)
        for j, (K, D) in enumerate(((2, 1), (3, 2))):
            form = ("arrays", "logs")[(i + j) % 2]
            add(f"check_statistics: {name}, {form}, K {K}, D {D}", statistics_case, joint, form, K, D)
            floor = 0.1 if j else 0.0
            label = f"{name}, {form}, K {K}, D {D}, floor {floor}"
            add(f"check_em_loop: {label}", em_loop_case, joint, form, K, D, 3 + i, floor)
    kinds = ("full", "tied", "diag", "spherical", "full", "diag")
    for i, kind in enumerate(kinds):
        joint, form = list(JOINTS)[i % len(JOINTS)], ("arrays", "logs")[i % 2]
        K, D = ((2, 1), (3, 2), (2, 3))[i % 3]
        floor = 0.3 if i > 3 else 0.0
        step = partial(em_step, JOINTS[joint], form, kind, floor)
        name = f"check_em: {joint}, {form}, {kind}, K {K}, D {D}, floor {floor}"
        add(
            name,
            lambda f, p, fl, k: c.check_em(f, *p, floor=fl, covariance_type=k),
            step,
            mixture_problem(K, D),
            floor,
            kind,
        )
    for name, f in ("arrays", covariance_types), ("loops", covariance_loops):
        for K, D, floor in (2, 3, 0.0), (3, 2, 0.4):
            spread, counts = np.stack([spd(D, seed=k, least=0.05) for k in range(K)]), 5 + 20 * positive_table(K)
            label = f"check_covariance_types: {name}, K {K}, D {D}, floor {floor}"
            add(label, c.check_covariance_types, partial(f, spread, counts, floor), spread, counts, floor)
    for name, f in ("arrays", kmeans_arrays), ("lists", kmeans_lists):
        for K, D, N in (2, 1, 12), (3, 2, 40), (4, 16, 60):
            x = normals(N, D, seed=K) + 3 * numbers(K, D)[np.arange(N) % K]
            add(f"check_kmeans: {name}, K {K}, D {D}", c.check_kmeans, f, x, x[:K].copy())
    for name, f in ("arrays", table_em_arrays), ("loops", table_em_loops):
        for K, D, L in (2, 3, 2), (3, 5, 4), (1, 2, 3):
            x = np.random.default_rng([K, D]).integers(0, L, (20, D))
            tables = simplex(K, D, L)
            label, pseudo = f"check_table_em: {name}, K {K}, D {D}, {L} levels", 0.5 * positive_table(D, L)
            add(label, c.check_table_em, partial(f, pseudo), x, simplex(K), tables, pseudo)
    fractions = {"blocks": fractions_formula, "complex step": fractions_complex}
    if torch is not None:
        fractions["torch"] = fractions_torch
    for (name, f), (K, D) in zip(
        [*fractions.items(), *fractions.items()], [(2, 1), (2, 1), (2, 2), (2, 2)], strict=False
    ):
        x = 0.7 * normals(24, D, seed=6) + 2.0 * np.where(np.arange(24) % 2, 1, -1)[:, None]
        w, m, C = np.array([0.5, 0.5]), np.array([[1.5] * D, [-1.5] * D]), np.stack([np.eye(D), 0.8 * np.eye(D)])
        add(f"check_missing_information: {name}, K {K}, D {D}", c.check_missing_information, f, x, w, m, C)


mixture_cases()


# Linear-Gaussian models


def linear_problem(N, D, k, seed=0):
    return normals(N, D, seed=seed), normals(D, k, seed=seed + 1), numbers(D, seed=seed), 0.3


def lg_precision(x, W, mean, v):
    M = W.T @ W / v + np.eye(W.shape[1])
    S = np.linalg.inv(M)
    return (x - mean) @ W @ S / v, S


def lg_gain(x, W, mean, v):
    """Conditioning of the joint Gaussian of (z, x)."""
    C = W @ W.T + v * np.eye(len(W))
    G = np.linalg.solve(C, W).T
    return (x - mean) @ G.T, np.eye(W.shape[1]) - G @ W


def lg_svd(x, W, mean, v):
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    rest = np.eye(W.shape[1]) - Vt.T @ Vt
    return (x - mean) @ U * (s / (s**2 + v)) @ Vt, (Vt.T * (v / (s**2 + v))) @ Vt + rest


def mean_field_precision(x, W, mean, v):
    m, _ = lg_precision(x, W, mean, v)
    return m, 1 / (1 + (W**2).sum(0) / v)


def mean_field_lstsq(x, W, mean, v):
    A = np.vstack([W / math.sqrt(v), np.eye(W.shape[1])])
    rows = np.vstack([(x - mean).T / math.sqrt(v), np.zeros((W.shape[1], len(x)))])
    return np.linalg.lstsq(A, rows, rcond=None)[0].T, [1 / (A[:, i] @ A[:, i]) for i in range(W.shape[1])]


def lg_elbo_terms(x, W, mean, v, q_mean, q_cov):
    D, k = W.shape
    fit = np.sum((x - mean - q_mean @ W.T) ** 2, 1) + np.trace(W @ q_cov @ W.T)
    prior = 0.5 * ((q_mean**2).sum(1) + np.trace(q_cov) - k - np.linalg.slogdet(q_cov)[1])
    return -0.5 * fit / v - 0.5 * D * math.log(2 * math.pi * v) - prior


def lg_elbo_gap(x, W, mean, v, q_mean, q_cov):
    """Log evidence minus the divergence from the posterior."""
    C = W @ W.T + v * np.eye(len(W))
    evidence = log_joint_cholesky(x, np.ones(1), mean[None], C[None])[:, 0]
    m, S = lg_gain(x, W, mean, v)
    return [e - gaussian_kl_cholesky(a, q_cov, b, S) for e, a, b in zip(evidence, q_mean, m, strict=True)]


def ppca_eigh(S, k):
    values, vectors = np.linalg.eigh(S)
    v = values[:-k].mean()
    return vectors[:, ::-1][:, :k] * np.sqrt(values[::-1][:k] - v), v


def ppca_svd(S, k):
    U, s, _ = np.linalg.svd(S)
    v = (np.trace(S) - s[:k].sum()) / (len(S) - k)
    turn = np.linalg.qr(normals(k, k))[0]  # any rotation of the latents
    return U[:, :k] @ np.diag(np.sqrt(s[:k] - v)) @ turn, v


def ppca_step_bishop(S, W, v):
    M = W.T @ W + v * np.eye(W.shape[1])
    new = S @ W @ np.linalg.inv(v * np.eye(W.shape[1]) + np.linalg.inv(M) @ W.T @ S @ W)
    return new, np.trace(S - S @ W @ np.linalg.inv(M) @ new.T) / len(S)


def ppca_step_moments(S, W, v):
    new, psi = fa_step_moments(S, W, np.full(len(S), v))
    return new, psi.mean()


def fa_step_moments(S, W, psi):
    G = np.linalg.solve(W @ W.T + np.diag(psi), W).T  # E[z | x] = G (x − μ)
    second = np.eye(W.shape[1]) - G @ W + G @ S @ G.T
    new = np.linalg.solve(second, G @ S).T
    return new, np.diag(S) - np.einsum("dk,kd->d", new, G @ S)


def fa_step_precision(S, W, psi):
    P = np.linalg.inv(np.eye(W.shape[1]) + (W.T / psi) @ W)
    G = P @ (W.T / psi)
    cross = S @ G.T
    new = cross @ np.linalg.inv(P + G @ cross)
    residual = S - new @ cross.T - cross @ new.T + new @ (P + G @ cross) @ new.T
    return new, [residual[d, d] for d in range(len(S))]


def linear_cases():
    for i, (D, k) in enumerate(((1, 1), (3, 2), (16, 3))):
        problem = linear_problem(5, D, k)
        label = f"D {D}, k {k}"
        for name, f in (("precision", lg_precision), ("gain", lg_gain), ("svd", lg_svd))[: 2 + (i > 0)]:
            add(f"check_linear_gaussian_posterior: {name}, {label}", c.check_linear_gaussian_posterior, f, *problem)
        for name, f in ("precision", mean_field_precision), ("least squares", mean_field_lstsq):
            add(f"check_mean_field: {name}, {label}", c.check_mean_field, f, *problem)
        for name, f in ("terms", lg_elbo_terms), ("gap", lg_elbo_gap):
            q = numbers(5, k), spd(k)
            add(f"check_linear_gaussian_elbo: {name}, {label}", c.check_linear_gaussian_elbo, f, *problem, *q)
        if D > 1:
            S, W = spd(D, seed=4), normals(D, k, seed=5)
            for name, f in ("eigh", ppca_eigh), ("svd", ppca_svd):
                add(f"check_ppca_maximum: {name}, {label}", c.check_ppca_maximum, f, S, k)
            for name, f in ("Bishop", ppca_step_bishop), ("moments", ppca_step_moments):
                add(f"check_ppca_step: {name}, {label}", c.check_ppca_step, f, S, W, 0.4)
            for name, f in ("moments", fa_step_moments), ("precision", fa_step_precision):
                psi = 0.2 + positive_table(D)
                add(f"check_factor_analysis_step: {name}, {label}", c.check_factor_analysis_step, f, S, W, psi)


linear_cases()


# Likelihoods of whole numbers


def bits_plain(nats, dimension, scale):
    return (nats / dimension - math.log(scale)) / math.log(2)


def bits_log2(nats, dimension, scale):
    return nats / (dimension * np.log(2.0)) - np.log2(scale)


def mass_logs(level, mean, std, n):
    """log of Φ(b) − Φ(a), mirrored so that the tail is on the left."""
    half = 1 / (n - 1)
    x = 2 * level / (n - 1) - 1
    a = np.where(level == 0, -np.inf, (x - half - mean) / std)
    b = np.where(level == n - 1, np.inf, (x + half - mean) / std)
    flip = a + b > 0
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    log_b, log_a = log_ndtr(b), log_ndtr(a)
    return log_b + np.log1p(-np.exp(log_a - log_b))


def mass_loop(level, mean, std, n):
    level, mean = np.broadcast_arrays(level, mean)
    out = np.empty(level.shape)
    for i in np.ndindex(level.shape):
        k, m = float(level[i]), float(mean[i])
        middle = 2 * k / (n - 1) - 1 - m
        if k == 0 or k == n - 1:
            far = middle + 1 / (n - 1) if k == 0 else 1 / (n - 1) - middle
            out[i] = log_ndtr(far / std)
            continue
        nodes, weights = roots_legendre(60)
        middle = abs(middle)
        parts = max(1, math.ceil(2 / (n - 1) / std / 2))
        edges = np.linspace(middle - 1 / (n - 1), middle + 1 / (n - 1), parts + 1)
        z = (edges[:-1, None] + (nodes + 1) / 2 * np.diff(edges)[:, None]) / std
        logs = -0.5 * z**2 - 0.5 * _LOG2PI + np.log(weights / 2 * np.diff(edges)[:, None] / std)
        out[i] = logsumexp(logs)
    return out


def dequantised(order, log_prob, k):
    """Gauss-Legendre in every dimension of [0, 1)."""
    nodes, weights = roots_legendre(order)
    D = k.shape[1]
    u = np.stack(np.meshgrid(*[(nodes + 1) / 2] * D, indexing="ij"), -1).reshape(-1, D)
    w = math.prod(np.meshgrid(*[weights / 2] * D, indexing="ij")).ravel()
    out = []
    for row in k:
        logs = np.asarray(log_prob(row + u))
        out.append(logsumexp(logs, b=w) - w @ logs)
    return out


def whole_elbo(order, schedule, x0, eps_hat, sigma_squared, n_levels):
    nodes, weights = roots_hermitenorm(order)
    weights = weights / weights.sum()
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel()
    mine, table = Log(np.asarray(schedule.beta)[1:] ** 2), np.asarray(sigma_squared)
    out = []
    for row in np.asarray(x0):
        x1 = mine.q_sample(1, row, z)
        mean = mine.p_mean(1, x1, eps_hat(x1, 1))
        level = np.rint((row + 1) / 2 * (n_levels - 1))
        total = w @ mass_logs(level, mean, math.sqrt(table[1]), n_levels).sum(1)
        for t in range(2, mine.T + 1):
            x_t = mine.q_sample(t, row, z)
            guess = mine.p_mean(t, x_t, eps_hat(x_t, t))
            true, variance = mine.q_posterior(t, x_t, row)
            r = variance / table[t]
            total -= w @ (((true - guess) ** 2).sum(1) / (2 * table[t])) + r - 1 - math.log(r)
        out.append(total - 0.5 * np.sum((mine.scale[-1] * row) ** 2 + mine.sigma2[-1] - 1 - np.log(mine.sigma2[-1])))
    return out


def propagate(betas, points, eps_hat, sigma_squared):
    """Affine networks keep Gaussians."""
    k, mean, variance = Log(betas), 0.0, 1.0
    for t in range(len(betas), 0, -1):
        at0, at1 = (float(np.ravel(eps_hat(np.array([[v]]), t))[0]) for v in (0.0, 1.0))
        a = float(k.p_mean(t, 1.0, at1 - at0))
        mean, variance = a * mean + float(k.p_mean(t, 0.0, at0)), a * a * variance + float(sigma_squared[t])
    return points, np.exp(-0.5 * (points - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)


def propagate_grid(betas, points, eps_hat, sigma_squared):
    k, h = Log(betas), points[1] - points[0]
    p = np.exp(-0.5 * points**2) / math.sqrt(2 * math.pi)
    for t in range(len(betas), 0, -1):
        mean = np.ravel(k.p_mean(t, points[:, None], eps_hat(points[:, None], t)))
        kernel = np.exp(-0.5 * (points[:, None] - mean) ** 2 / sigma_squared[t])
        p = kernel @ p * h / math.sqrt(2 * math.pi * sigma_squared[t])
    return points[:, None], p


def whole_number_cases():
    for i, (D, K, scale) in enumerate(((1, 3, 1.0), (3, 5, 1 / 16), (64, 256, 2 / 255))):
        for name, f in ("plain", bits_plain), ("log2", bits_log2):
            add(f"check_bits_per_dim: {name}, D {D}, {K} levels", c.check_bits_per_dim, f, simplex(K, seed=i), D, scale)
    for name, f in ("logs", mass_logs), ("quadrature", mass_loop):
        for n, std in (2, 0.5), (17, 0.1), (5, 2.0):
            run = partial(lambda f, n, *a: f(*a, n), f, n)
            add(f"check_bin_masses: {name}, {n} levels, std {std}", c.check_bin_masses, run, n, 1.2 * numbers(4), std)
    for order in 20, 40:
        for D in 1, 2:
            name = f"check_dequantisation: {order} nodes, D {D}"
            add(name, c.check_dequantisation, partial(dequantised, order), numbers(D), 1.2 + positive_table(D))
    for order in 60, 90:
        for n in 2, 3:
            run = lambda order, n: c.check_discrete_bound(partial(whole_elbo, order), n).at(1e-6)  # noqa: E731
            add(f"check_discrete_bound: {order} nodes, {n} levels", run, order, n)
    for name, T, f, n in [
        ("affine", 10, propagate, 4001), ("grid", 5, propagate_grid, 1601), ("affine", 50, propagate, 4001),
    ]:  # fmt: skip
        betas = constant(T, 1 - 0.02 ** (1 / T)) if T < 50 else np.linspace(0.01, 0.2, T)
        run = partial(f, betas, np.linspace(-20, 20, n))
        add(f"check_data_processing: {name}, T {T}", c.check_data_processing, run, NoiseSchedule(betas))


whole_number_cases()


# Processes with a time


class Path:
    """scale, std, f and g² of a process, in closed form."""

    def __init__(self, level, rate, g2, horizon=1.0):
        self.level, self.rate, self.g2, self.horizon = level, rate, g2, horizon

    def marginal(self, t):
        return self.level(t)

    def drift(self, x, t):
        f = np.asarray(self.rate(t))
        return (f[:, None] if f.ndim else f) * x

    def diffusion(self, t):
        return np.sqrt(self.g2(t))


def vp_path(low=0.1, high=20.0, horizon=1.0, sub=False):
    def beta(t):
        return low + (high - low) * t / horizon

    def total(t):
        return t * (low + 0.5 * (high - low) * t / horizon)

    def level(t):
        B = total(t)
        return np.exp(-0.5 * B), -np.expm1(-B) if sub else np.sqrt(-np.expm1(-B))

    return Path(
        level, lambda t: -0.5 * beta(t), lambda t: beta(t) * (-np.expm1(-2 * total(t)) if sub else 1.0), horizon
    )


def ve_path(low, high, horizon=1.0, start=False):
    """With `start` the code of Song et al.: std(0) = sigma_min."""
    rate = math.log(high / low) / horizon

    def level(t):
        square = low**2 * np.exp(2 * rate * t) if start else low**2 * np.expm1(2 * rate * t)
        return np.ones_like(np.asarray(t, float))[()], np.sqrt(square)

    return Path(level, lambda t: 0.0 * np.asarray(t), lambda t: 2 * rate * low**2 * np.exp(2 * rate * t), horizon)


def edm_path(horizon):
    return Path(lambda t: (1.0 + 0 * t, t), lambda t: 0.0 * np.asarray(t), lambda t: 2 * t, horizon)


def flow_path():
    return Path(lambda t: (1 - t, t), lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t))


def cosine_path():
    half = math.pi / 2
    return Path(
        lambda t: (np.cos(half * t), np.sin(half * t)),
        lambda t: -half * np.tan(half * t),
        lambda t: 2 * half * np.tan(half * t),
    )


def sde_lists(path):
    """Numbers only; nested lists."""

    def marginal(t):
        return [float(v) for v in path.level(float(t))]

    return (
        marginal,
        lambda x, t: [[float(path.rate(float(t))) * v for v in row] for row in x],
        lambda t: math.sqrt(path.g2(t)),
    )


def sde_case(path, lists):
    functions = sde_lists(path) if lists else (path.marginal, path.drift, path.diffusion)
    return c.check_sde(*functions, path.horizon)


def vp_variances(form, sde, T):
    low, high, end = sde.beta_min, sde.beta_max, sde.horizon
    edges = np.arange(T + 1) / T * end
    if form == "midpoint":  # exact for a linear β
        middle = (np.arange(T) + 0.5) / T
        return -np.expm1(-(low + (high - low) * middle) * end / T)
    out = []
    for a, b in itertools.pairwise(edges.tolist()):
        integral = (b - a) * (low + (high - low) * (a + b) / (2 * end))
        out.append(-math.expm1(-integral))
    return out


class Score:
    """The exact score of data N(mean, covariance) under a path."""

    def __init__(self, path, mean, covariance):
        self.path, self.mean, self.covariance = path, np.atleast_1d(mean), np.atleast_2d(covariance)
        self.values, self.vectors = np.linalg.eigh(self.covariance)

    def __call__(self, x, t):
        a, s = (np.asarray(v, float) for v in self.path.level(t))
        if a.ndim:
            return np.concatenate([self(row[None], time) for row, time in zip(x, t, strict=True)])
        y = (x - a * self.mean) @ self.vectors
        return -(y / (a**2 * self.values + s**2)) @ self.vectors.T


def scaled(value, like):
    value = np.asarray(value)
    return value[:, None] if value.ndim else value


def reverse_sde_case(path, sde, D, c_):
    mean, cov = numbers(D), spd(D)
    score = Score(path, mean, cov)

    def drift(x, t):
        return path.drift(x, t) - scaled(0.5 * (1 + c_**2) * path.g2(t), x) * score(x, t)

    return c.check_reverse_sde(drift, lambda t: c_ * path.diffusion(t), sde, mean, cov, c_)


def reverse_step_case(path, sde, D, c_, scheme):
    mean, variance = numbers(D), 0.5 + positive_table(D)
    score = Score(path, mean, np.diag(variance))

    def euler(x, t, s, noise):
        drift = path.drift(x, t) - 0.5 * (1 + c_**2) * path.g2(t) * score(x, t)
        return x + (s - t) * drift + c_ * math.sqrt((t - s) * path.g2(t)) * noise

    def semilinear(x, t, s, noise):
        """The linear drift exactly, the score at t."""
        ratio = path.level(s)[0] / path.level(t)[0]
        return (
            ratio * x
            + (t - s) * 0.5 * (1 + c_**2) * path.g2(t) * score(x, t)
            + c_ * math.sqrt((t - s) * path.g2(t)) * noise
        )

    step = euler if scheme == "Euler" else semilinear
    if D == 1:
        mean, variance = float(mean[0]), float(variance[0])
    return c.check_reverse_step(step, sde, mean, variance, c_)


def bent_score(x, t):
    return -x / (1 + t) + 0.3 * np.sin(x) + 0.1 * t


def reverse_sampler_case(path, sde, times, c_, corrections):
    def sample(x, times, noise):
        for i, (t, s) in enumerate(itertools.pairwise(times.tolist())):
            z = noise[i] if corrections else noise[i][None]
            g = float(path.diffusion(t))
            x = (
                x
                - (t - s) * (path.drift(x, t) - (1 + c_**2) / 2 * g**2 * bent_score(x, t))
                + c_ * g * math.sqrt(t - s) * z[0]
            )
            for n in range(corrections):
                delta = 2 * (0.16 * float(path.level(s)[1])) ** 2
                x = x + delta * bent_score(x, s) + math.sqrt(2 * delta) * z[1 + n]
        return x

    return c.check_reverse_sampler(sample, bent_score, sde, times, c_, corrections)


def heun_case(path, sde, times, form):
    def slope(x, t):
        return path.drift(x, t) - 0.5 * path.g2(t) * bent_score(x, t)

    def sample(x, times):
        for t, s in itertools.pairwise(times.tolist()):
            first = slope(x, t)
            if form == "corrector":
                x = x + 0.5 * (s - t) * (first + slope(x + (s - t) * first, s))
            else:
                guess = x + (s - t) * first
                x = 0.5 * (x + guess + (s - t) * slope(guess, s))
        return x

    return c.check_heun(sample, bent_score, sde, times)


def langevin_case(path, sde, variance, snr, form):
    def step(x, t, noise):
        std = float(path.level(t)[1])
        if form == "delta":
            delta = 2 * (snr * std) ** 2
            return x - delta * x / variance + math.sqrt(2 * delta) * noise
        return x - 2 * (snr * std) ** 2 * (x / variance) + 2 * snr * std * noise

    return c.check_langevin_step(step, sde, variance, snr)


VP_SHORT = {"VP": (vp_path(), VP()), "VP to 2.5": (vp_path(0.2, 4.0, 2.5), VP(0.2, 4.0, 2.5))}
PROCESSES = {
    **VP_SHORT,
    "sub-VP": (vp_path(sub=True), SubVP()),
    "VE": (ve_path(0.01, 50.0), VE(0.01, 50.0)),
    "VE to 3": (ve_path(0.1, 20.0, 3.0), VE(0.1, 20.0, 3.0)),
    "EDM": (edm_path(80.0), EDM(80.0)),
}


def process_cases():
    others = {
        "VE from sigma_min": (ve_path(0.01, 50.0, start=True), None),
        "VE to 3 from sigma_min": (ve_path(0.05, 9.0, 3.0, True), None),
    }
    for i, (name, (path, _)) in enumerate({**PROCESSES, **others}.items()):
        add(f"check_sde: {name}, arrays", sde_case, path, False)
        if i % 3 == 0:
            add(f"check_sde: {name}, lists", sde_case, path, True)
    for form, T in ("midpoint", 1), ("steps", 5), ("midpoint", 1000), ("steps", 4000):
        for name, (_, sde) in VP_SHORT.items():
            add(
                f"check_discretisation: {form}, {name}, T {T}",
                lambda f, s, T: c.check_discretisation(vp_variances(f, s, T), s),
                form,
                sde,
                T,
            )
    for i, (name, (path, sde)) in enumerate(PROCESSES.items()):
        c_ = (0.0, 1.0, 0.5)[i % 3]
        D = (1, 3, 2, 16, 2, 3)[i]
        add(f"check_reverse_sde: {name}, D {D}, stochasticity {c_}", reverse_sde_case, path, sde, D, c_)
        scheme = ("Euler", "semilinear")[i % 2]
        label = f"{name}, {scheme}, D {D}, stochasticity {c_}"
        add(f"check_reverse_step: {label}", reverse_step_case, path, sde, D, c_, scheme)
        n = (1, 5, 20, 5, 50, 10)[i]
        times = sde.horizon * np.linspace(1, 0.05, n + 1) ** (1 + i % 2)
        if name == "EDM":
            times = karras_sigmas(n + 1)[::-1].copy()
        label = f"{name}, {n} steps, stochasticity {c_}, {i % 3} corrections"
        add(f"check_reverse_sampler: {label}", reverse_sampler_case, path, sde, times, c_, i % 3)
        form = ("corrector", "average")[i % 2]
        add(f"check_heun: {name}, {n} steps, {form}", heun_case, path, sde, times, form)
        variance = 1.7 if i % 2 else np.array([0.3, 1.0, 4.0])
        form = ("delta", "snr")[i % 2]
        add(f"check_langevin_step: {name}, {form}", langevin_case, path, sde, variance, (0.16, 0.05, 0.4)[i % 3], form)


process_cases()


# Scores of mixtures


def score_einsum(w, m, C, x):
    r = np.exp(log_softmax(log_joint_einsum(x, w, m, C)))
    return np.einsum("nk,kde,nke->nd", r, np.linalg.inv(C), m - x[:, None])


def score_cholesky(w, m, C, x):
    r, out = np.exp(log_softmax(log_joint_cholesky(x, w, m, C))), np.zeros(x.shape)
    for k in range(len(w)):
        L = np.linalg.cholesky(C[k])
        out -= r[:, k, None] * np.linalg.solve(L.T, np.linalg.solve(L, (x - m[k]).T)).T
    return out


def torch_log_prob(w, m, C, x):
    w, m, C = (torch.as_tensor(a, dtype=torch.float64) for a in (w, m, C))
    normal = torch.distributions.MultivariateNormal(m, C)
    return torch.logsumexp(w.log() + normal.log_prob(x[:, None, :]), 1)


def score_torch(w, m, C, x):
    x = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(torch_log_prob(w, m, C, x).sum(), x)[0]


SCORES = {"einsum": score_einsum, "cholesky": score_cholesky}
if torch is not None:
    SCORES["torch"] = score_torch


def law(K, D, seed=0):
    return mixture_problem(K, D, 4, seed)[1:]


def noised(w, m, C, a, s):
    return w, a * m, a**2 * C + s**2 * np.eye(m.shape[1])


def denoise_components(w, m, C, x, a, s):
    P, r = noised(w, m, C, a, s), None
    r = np.exp(log_softmax(log_joint_einsum(x, *P)))
    gain = a * C @ np.linalg.inv(P[2])
    return np.einsum("nk,nkd->nd", r, m + np.einsum("kde,nke->nkd", gain, x[:, None] - P[1]))


def denoise_solves(w, m, C, x, a, s):
    P = noised(w, m, C, a, s)
    r, out = softmax_rows(log_joint_cholesky(x, *P)), 0.0
    for k in range(len(w)):
        out = out + r[:, [k]] * (m[k] + a * (C[k] @ np.linalg.solve(P[2][k], (x - P[1][k]).T)).T)
    return out


def covariance_components(w, m, C, x, a, s):
    P = noised(w, m, C, a, s)
    r = softmax_rows(log_joint_einsum(x, *P))
    inside, means = [], []
    for k in range(len(w)):
        gain = a * C[k] @ np.linalg.inv(P[2][k])
        inside.append(s**2 * np.linalg.inv(a**2 * np.eye(len(gain)) + s**2 * np.linalg.inv(C[k])))
        means.append(m[k] + (x - P[1][k]) @ gain.T)
    means = np.stack(means, 1)
    d = means - np.einsum("nk,nkd->nd", r, means)[:, None]
    return np.einsum("nk,kde->nde", r, np.array(inside)) + np.einsum("nk,nkd,nke->nde", r, d, d)


def covariance_tweedie(w, m, C, x, a, s):
    P = noised(w, m, C, a, s)
    inverse, r = np.linalg.inv(P[2]), softmax_rows(log_joint_einsum(x, *P))
    v = np.einsum("kde,nke->nkd", inverse, P[1] - x[:, None])
    score = np.einsum("nk,nkd->nd", r, v)
    v = v - score[:, None]
    hessian = np.einsum("nk,nkd,nke->nde", r, v, v) - np.einsum("nk,kde->nde", r, inverse)
    return (s / a) ** 2 * (np.eye(len(m[0])) + s**2 * hessian)


def tilted_grid(w, m, C, label, x_t, a, s, tilt):
    """One dimension: a trapezoid rule over x_0 around every posterior."""
    sd = math.sqrt(C.max())
    grid = np.linspace(m.min() - 14 * sd, m.max() + 14 * sd, 6001)[:, None]
    logs = log_joint_einsum(grid, w, m, C)
    free, held = logsumexp(logs, 1), logsumexp(logs + np.log(label), 1) - math.log(label @ w)
    tilted = (1 - tilt) * free + tilt * held
    out = []
    for value in x_t[:, 0]:
        r = (a * grid[:, 0] - value) / s
        out.append([np.exp(log_softmax((tilted - 0.5 * r**2)[None]))[0] @ r / s])
    return out


def tilted_hermite(w, m, C, label, x_t, a, s, tilt):
    """The same expectation over Gauss-Legendre panels, in the variable (a x_0 − x_t)/s."""
    nodes, weights = roots_legendre(24)
    sd = math.sqrt(C.max())
    edges = np.linspace(m.min() - 14 * sd, m.max() + 14 * sd, 201)
    x0 = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2).ravel()
    lw = np.log(np.tile(weights, 200))
    logs = log_joint_cholesky(x0[:, None], w, m, C)
    free, held = logsumexp(logs, axis=1), logsumexp(logs, axis=1, b=label) - math.log(np.sum(label * w))
    total = (free + tilt * (held - free) + lw)[None] - 0.5 * ((a * x0 - x_t) / s) ** 2
    return np.sum(softmax_rows(total) * (a * x0 - x_t), 1, keepdims=True) / s**2


def score_cases():
    items = list(SCORES.items())
    for i, ((K, D), (name, f)) in enumerate(
        zip([(1, 1), (2, 2), (3, 3), (2, 16), (3, 1), (2, 64)], items * 3, strict=False)
    ):
        problem = law(K, D)
        mix = Mixture(*problem)
        x = 2.0 * normals(5, D, seed=3)
        label = f"K {K}, D {D}"
        add(f"check_score: {name}, {label}", c.check_score, partial(f, *problem), mix, x)
        other, g = items[(i + 1) % len(items)]
        add(f"check_score: {other}, {label}", c.check_score, partial(g, *problem), mix, x)
        joint = list(JOINTS.values())[i % len(JOINTS)]
        run = partial(lambda joint, p, x: logsumexp(joint(x, *p), axis=1), joint, problem)
        add(f"check_log_prob: {list(JOINTS)[i % len(JOINTS)]}, {label}", c.check_log_prob, run, mix, x)
        a, s = [(0.9, 0.4), (1.0, 10.0), (0.02, 0.9998), (0.5, 0.5), (1.0, 0.05), (0.6, 0.8)][i]
        for name_, h in ("components", denoise_components), ("solves", denoise_solves):
            run = partial(h, *problem)
            add(f"check_denoiser: {name_}, {label}, level ({a}, {s})", c.check_denoiser, run, mix, a * x, a, s)
        if D in (2, 3):
            add(f"check_conservative_score: {name}, {label}", c.check_conservative_score, partial(f, *problem), mix)
            add(f"check_conservative_score: {other}, {label}", c.check_conservative_score, partial(g, *problem), mix)
        if D < 16:
            levels = np.array([[0.95, 0.3], [0.5, 0.9], [1.0, 2.0]])
            for name_, h in ("components", covariance_components), ("Tweedie", covariance_tweedie):
                add(
                    f"check_tweedie_covariance: {name_}, {label}",
                    c.check_tweedie_covariance,
                    partial(h, *problem),
                    mix,
                    levels,
                )
        if D == 1 and K > 1:
            label_ = np.array([0.2, 0.9, 0.5])[:K]
            levels = np.array([[0.9, 0.4], [0.5, 1.0]])
            for name_, h in ("trapezoid", tilted_grid), ("panels", tilted_hermite):
                run = partial(h, *problem, label_)
                for w in 3.0, 1.5:
                    add(
                        f"check_tilted_score: {name_}, {label}, w {w}",
                        c.check_tilted_score,
                        run,
                        mix,
                        label_,
                        levels,
                        w,
                    )


score_cases()


def fokker_case(path, score, K, D, c_):
    problem = law(K, D)

    def drift(x, t):
        s = np.asarray(score(*noised(*problem, *path.level(t)), x))
        return path.rate(t) * x - 0.5 * (1 + c_**2) * path.g2(t) * s

    times = path.horizon * np.array([0.1, 0.45, 0.8])
    return c.check_fokker_planck(drift, lambda t: c_ * math.sqrt(path.g2(t)), path.level, Mixture(*problem), times)


def velocity_case(path, velocity, K, D):
    return c.check_flow_velocity(velocity, path.level, Mixture(*law(K, D)), path.horizon * np.array([0.2, 0.5, 0.9]))


def rate_case(form, sde, path):
    p, q = law(2, 1), law(2, 1, seed=4)

    def logs(problem, t, x):
        return logsumexp(log_joint_einsum(x, *noised(*problem, *path.level(t))), axis=1)

    def rate(t):
        a, s = path.level(t)
        sd = math.sqrt(a**2 * max(p[2].max(), q[2].max()) + s**2)
        centre = a * np.concatenate([p[1], q[1]])
        x = np.linspace(centre.min() - 9 * sd, centre.max() + 9 * sd, 4001)[:, None]
        h = float(x[1, 0] - x[0, 0])
        gap = score_einsum(*noised(*p, a, s), x) - np.asarray(SCORES[form](*noised(*q, a, s), x))
        return -0.5 * path.g2(t) * h * np.sum(np.exp(logs(p, t, x))[:, None] * gap**2)

    return c.check_kl_rate(rate, sde, Mixture(*p), Mixture(*q), sde.horizon * np.array([0.1, 0.4, 0.9]))


def panels(f, a, b, n, order=16):
    """Gauss-Legendre on n panels, for a function of a number."""
    nodes, weights = roots_legendre(order)
    edges = np.linspace(a, b, n + 1)
    total = 0.0
    for low, high in itertools.pairwise(edges.tolist()):
        total = (
            total
            + sum(w * f(low + (high - low) * (u + 1) / 2) for u, w in zip(nodes, weights, strict=True))
            * (high - low)
            / 2
        )
    return total


def information_case(form):
    def information(sde, noise_loss, t_min):
        if form == "log-SNR":
            high, low = float(sde.log_snr(t_min)), float(sde.log_snr(sde.horizon))
            return 0.5 * panels(lambda v: noise_loss(float(sde.time_at(v))), low, high, 8)
        rate = lambda t: float(sde.diffusion(t)) ** 2 / float(sde.std(t)) ** 2  # noqa: E731
        return 0.5 * panels(
            lambda u: math.exp(u) * rate(math.exp(u)) * noise_loss(math.exp(u)),
            math.log(t_min),
            math.log(sde.horizon),
            8,
        )

    sdes = [(VP(0.1, 8.0), 0.05), (VE(0.1, 8.0, 2.0), 0.2)]
    laws = [Mixture([1.0], [[0.3]], [[[0.8]]]), Mixture([0.4, 0.6], [[-1.0], [1.0]], [[[0.3]], [[0.5]]])]
    return c.check_mutual_information(information, sdes, laws).at(1e-8)


def kl_bound_case(form, D):
    sde, path = VP(0.2, 4.0, 2.5), vp_path(0.2, 4.0, 2.5)

    def bound(score_error, prior_kl):
        if form == "panels":
            return prior_kl + 0.5 * panels(lambda t: path.g2(t) * score_error(t), 0.0, 2.5, 10)
        nodes, weights = roots_legendre(80)  # t = 2.5 u², denser at the start
        u = (nodes + 1) / 2
        return prior_kl + 0.5 * sum(
            2.5 * u_ * w * path.g2(2.5 * u_**2) * score_error(2.5 * u_**2)
            for u_, w in zip(u.tolist(), weights, strict=True)
        )

    return c.check_kl_bound(bound, sde, numbers(D), spd(D), numbers(D, seed=1), spd(D, seed=1) + 0.5 * np.eye(D))


def log_prob_bound_case(order, n):
    sde, path = VP(0.2, 4.0, 2.5), vp_path(0.2, 4.0, 2.5)
    z, w = roots_hermitenorm(order)
    w = w / w.sum()

    def at(x, t):
        a, s = path.level(t)
        return (a * x + s * z).reshape(-1, 1)

    def bound(score_and_divergence, prior_log_prob, x):
        def integrand(t):
            s, d = score_and_divergence(at(x, t), t)
            inside = path.g2(t) * (0.5 * (np.asarray(s) ** 2).sum(1) + np.asarray(d)) - path.rate(t)
            return inside.reshape(len(x), -1) @ w

        last = np.asarray(prior_log_prob(at(x, 2.5))).reshape(len(x), -1) @ w
        return last - panels(integrand, 0.0, 2.5, n)

    mix = Mixture([0.4, 0.6], [[-0.7], [0.6]], [[[0.8]], [[1.1]]])
    return c.check_log_prob_bound(bound, sde, mix, np.array([[-1.0], [0.2], [1.5]]))


def flow_case(path, sde, K, D, method):
    problem = law(K, D)

    def log_prob(x):
        N, at_end = len(x), noised(*problem, *path.level(path.horizon))

        def right(t, y):
            z = y[: N * D].reshape(N, D)
            P = noised(*problem, *path.level(t))
            score = score_einsum(*P, z)
            r, inverse = softmax_rows(log_joint_einsum(z, *P)), np.linalg.inv(P[2])
            v = np.einsum("kde,nke->nkd", inverse, P[1] - z[:, None])
            div = np.sum(r * ((v**2).sum(2) - np.trace(inverse, axis1=1, axis2=2)), 1) - (score**2).sum(1)
            rate, g2 = path.rate(t), path.g2(t)
            return np.append((rate * z - 0.5 * g2 * score).ravel(), D * rate - 0.5 * g2 * div)

        out = solve_ivp(
            right, (0.0, path.horizon), np.append(x.ravel(), np.zeros(N)), method, rtol=3e-13, atol=1e-12
        ).y[:, -1]
        return logsumexp(log_joint_einsum(out[: N * D].reshape(N, D), *at_end), axis=1) + out[N * D :]

    return c.check_probability_flow_likelihood(log_prob, Mixture(*problem), normals(3, D), sde)


def flow_of_case(path, sde, D, method):
    W = 0.3 * numbers(D, D) - np.eye(D)

    def score(x, t):
        return np.asarray(x) @ W + 0.3 * np.tanh(x) / (1 + t)

    def divergence(x, t):
        return np.trace(W) + np.sum(0.3 / np.cosh(x) ** 2, 1) / (1 + t)

    t_min = 0.01 * path.horizon

    def log_prob(x):
        N = len(x)

        def right(t, y):
            z = y[: N * D].reshape(N, D)
            rate, g2 = path.rate(t), path.g2(t)
            return np.append((rate * z - 0.5 * g2 * score(z, t)).ravel(), D * rate - 0.5 * g2 * divergence(z, t))

        y = solve_ivp(
            right, (t_min, path.horizon), np.append(np.ravel(x), np.zeros(N)), method, rtol=1e-10, atol=1e-10
        ).y[:, -1]
        std = float(path.level(path.horizon)[1])
        return log_normal(y[: N * D].reshape(N, D), 0.0, np.float64(std**2) * np.ones(D)) + y[N * D :]

    return c.check_flow_likelihood_of(log_prob, score, normals(3, D), sde, t_min, None if D == 2 else divergence)


def continuous_bound_case(path, sde, D, t_min, slope, form):
    end = [float(v) for v in path.level(path.horizon)]
    a0, s0 = (float(v) for v in path.level(t_min))
    width = 2 * (math.log(a0 / s0) - math.log(end[0] / end[1]))

    def prior(x0):
        r = (end[0] * x0 / end[1]) ** 2
        return 0.5 * r.sum(1) if form == "sums" else [0.5 * math.fsum(row) for row in r]

    def diffusion(x0, t, noise):
        a, s = (np.broadcast_to(np.asarray(v, float), np.shape(t))[:, None] for v in path.level(np.asarray(t)))
        error = noise - slope * (a * x0 + s * noise)
        return 0.5 * width * (error**2).sum(1)

    def reconstruction(x0, noise):
        if form == "sums":
            return -log_normal(x0, (a0 * x0 + s0 * noise) / a0, np.float64((s0 / a0) ** 2))
        return [0.5 * math.fsum(z * z for z in row) + len(row) * (0.5 * _LOG2PI + math.log(s0 / a0)) for row in noise]

    return c.check_continuous_bound(prior, diffusion, reconstruction, sde, t_min, slope, normals(3, D))


def reverse_law_case(form, B, delta, D):
    def moments_(score):
        zero, unit = np.zeros((1, D)), np.eye(D)
        kappa = np.asarray(score(zero, 0.5))[0]
        A = 0.5 * np.eye(D) + np.asarray(score(unit, 0.5)).T - kappa[:, None]
        if form == "eigen":
            a = float(A[0, 0])
            return kappa * np.expm1(a * B) / a, (math.exp(2 * a * B) + math.expm1(2 * a * B) / (2 * a)) * np.eye(D)
        y, n = np.concatenate([np.zeros(D), np.eye(D).ravel()]), 4000

        def right(y):
            V = y[D:].reshape(D, D)
            return np.append(A @ y[:D] + kappa, (A @ V + V @ A.T + np.eye(D)).ravel())

        h = B / n
        for _ in range(n):
            k1 = right(y)
            k2 = right(y + h / 2 * k1)
            k3 = right(y + h / 2 * k2)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + right(y + h * k3))
        return y[:D], y[D:].reshape(D, D)

    return c.check_reverse_law(moments_, B, delta)


def path_cases():
    vp, flow, cos, edm = vp_path(), flow_path(), cosine_path(), edm_path(10.0)
    paths = {
        "VP": vp,
        "flow matching": flow,
        "cosine": cos,
        "EDM": edm,
        "sub-VP": vp_path(sub=True),
        "VE": ve_path(0.1, 9.0, 2.0),
    }
    for i, (name, path) in enumerate(paths.items()):
        K, D, c_ = (2, 3, 1)[i % 3], (1, 2, 3, 1, 2, 16)[i], (0.0, 1.0, 0.6)[i % 3]
        coding = "einsum" if D == 16 else list(SCORES)[i % len(SCORES)]
        label = f"{name}, {coding}, K {K}, D {D}, stochasticity {c_}"
        add(f"check_fokker_planck: {label}", fokker_case, path, SCORES[coding], K, D, c_)
    half = math.pi / 2
    velocities = [
        ("flow matching", flow, lambda x0, e, t: e - x0),
        (
            "flow matching, lists",
            flow,
            lambda x0, e, t: [[b - a for a, b in zip(*rows, strict=True)] for rows in zip(x0, e, strict=True)],
        ),
        (
            "cosine",
            cos,
            lambda x0, e, t: (
                half * (np.cos(half * np.reshape(t, (-1, 1))) * e - np.sin(half * np.reshape(t, (-1, 1))) * x0)
            ),
        ),
        ("EDM", edm, lambda x0, e, t: e + 0 * x0),
        ("VP", vp, lambda x0, e, t: vp_velocity(x0, e, t)),
    ]
    for i, (name, path, f) in enumerate(velocities):
        K, D = (2, 1)[i % 2], (1, 2, 3, 16, 2)[i]
        add(f"check_flow_velocity: {name}, K {K}, D {D}", velocity_case, path, f, K, D)
    for form in SCORES:
        for name in "VP to 2.5", "VE to 3":
            path, sde = PROCESSES[name]
            add(f"check_kl_rate: {form}, {name}", rate_case, form, sde, path)
    for form in "log-SNR", "log time":
        add(f"check_mutual_information: {form}", information_case, form)
    for form in "panels", "squared time":
        for D in 1, 3:
            add(f"check_kl_bound: {form}, D {D}", kl_bound_case, form, D)
    for order, n in (40, 4), (60, 6):
        add(f"check_log_prob_bound: {order} nodes, {n} panels", log_prob_bound_case, order, n)
    for name, K, D, method in (
        ("VP to 2.5", 1, 1, "DOP853"),
        ("VP to 2.5", 2, 2, "DOP853"),
        ("sub-VP", 2, 1, "DOP853"),
        ("VP to 2.5", 2, 3, "RK45"),
    ):
        add(
            f"check_probability_flow_likelihood: {name}, K {K}, D {D}, {method}",
            flow_case,
            *PROCESSES[name],
            K,
            D,
            method,
        )
    for name, D, method in (
        ("VP", 2, "DOP853"),
        ("VE to 3", 3, "RK45"),
        ("sub-VP", 1, "DOP853"),
        ("VP to 2.5", 16, "RK45"),
    ):
        add(f"check_flow_likelihood_of: {name}, D {D}, {method}", flow_of_case, *PROCESSES[name], D, method)
    for form, (name, D, t_min) in itertools.product(
        ("sums", "loops"), (("VP", 2, 1e-3), ("VE to 3", 3, 0.1), ("EDM", 1, 0.01))
    ):
        label = f"{form}, {name}, D {D}"
        add(f"check_continuous_bound: {label}", continuous_bound_case, *PROCESSES[name], D, t_min, 0.4, form)
    for form, B, delta, D in ("eigen", 10.0, 0.5, 1), ("eigen", 2.0, -0.2, 3), ("Runge-Kutta", 4.0, 0.3, 2):
        add(f"check_reverse_law: {form}, B {B}, delta {delta}, D {D}", reverse_law_case, form, B, delta, D)


def vp_velocity(x0, noise, t):
    t = np.reshape(t, (-1, 1))
    B, beta = t * (0.1 + 9.95 * t), 0.1 + 19.9 * t
    std = np.sqrt(-np.expm1(-B))
    return 0.5 * beta * (np.exp(-B) / std * noise - np.exp(-0.5 * B) * x0)


path_cases()


# Samplers in the denoiser's form


def edm_plain(data_std, sigma):
    total = sigma**2 + data_std**2
    weight = total / (sigma * data_std) ** 2
    return data_std**2 / total, sigma * data_std / np.sqrt(total), 1 / np.sqrt(total), weight


def edm_hypot(data_std, sigma):
    r = np.hypot(sigma, data_std)
    out = [(data_std / v) ** 2 for v in r], sigma / r * data_std, np.reciprocal(r)
    return *out, 1 / data_std**2 + 1 / sigma**2


def grid_linspace(n, low, high, rho):
    return np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho


def grid_karras(n, low, high, rho):
    i = np.arange(n)
    a, b = high ** (1 / rho), low ** (1 / rho)
    return np.append((a + i / (n - 1) * (b - a)) ** rho, 0.0)


def grid_list(n, low, high, rho):
    return [(high ** (1 / rho) * (n - 1 - i) / (n - 1) + low ** (1 / rho) * i / (n - 1)) ** rho for i in range(n)]


def exponential(stoch, multistep, form, x, x0, last, levels, noise):
    (a0, s0), (a1, s1), (a2, s2) = np.asarray(levels, float)
    h, h_last = math.log(a2 / s2 * s1 / a1), math.log(a1 / s1 * s0 / a0)
    D = x0 + h / (2 * h_last) * (x0 - last) if multistep else x0
    k = stoch**2
    z = stoch and s2 * math.sqrt(-math.expm1(-2 * k * h)) * noise
    if form == "h":
        return s2 / s1 * math.exp(-k * h) * x - a2 * math.expm1(-(1 + k) * h) * D + z
    # by the noise: the same step as DDIM of variance η²
    keep = s2 * math.exp(-k * h)
    return a2 * D + keep * (x - a1 * D) / s1 + z


def ddim_levels(denoise, x, levels):
    for (a, s), (b, r) in itertools.pairwise(levels.tolist()):
        x0 = denoise(x, a, s)
        x = b * x0 + r * (x - a * x0) / s
    return x


def euler_levels(denoise, x, levels):
    for (a, s), (b, r) in itertools.pairwise(levels.tolist()):
        y, sigma = x / a, s / a
        x = b * (y + (r / b - sigma) * (y - denoise(x, a, s)) / sigma)
    return x


def heun_levels(denoise, x, levels):
    for (a, s), (b, r) in itertools.pairwise(levels.tolist()):
        y, sigma, new = x / a, s / a, r / b
        d = (y - denoise(x, a, s)) / sigma
        guess = y + (new - sigma) * d
        x = b * (y + (new - sigma) * 0.5 * (d + (guess - denoise(b * guess, b, r)) / new))
    return x


def dpm_levels(denoise, x, levels):
    levels, last = levels.tolist(), None
    for i in range(len(levels) - 1):
        (a, s), (b, r) = levels[i], levels[i + 1]
        x0, before = denoise(x, a, s), levels[max(i - 1, 0)]
        x, last = (
            exponential(0.0, last is not None, "h", x, x0, last, [before if i else (a, 2 * s), (a, s), (b, r)], 0.0),
            x0,
        )
    return x


def ancestral_levels(c_, form, denoise, x, levels, noise):
    for i, ((a, s), (b, r)) in enumerate(itertools.pairwise(levels.tolist())):
        dummy = (a, 2 * s)
        x = exponential(c_, False, form, x, denoise(x, a, s), None, [dummy, (a, s), (b, r)], noise[i])
    return x


def churn_levels(denoise, x, levels, noise):
    """Euler-Maruyama in σ for dy = 2 (y − x̂_0)/σ dσ + √(2σ) dw."""
    for i, ((a, s), (b, r)) in enumerate(itertools.pairwise(levels.tolist())):
        y, sigma, new = x / a, s / a, r / b
        y = y + 2 * (new - sigma) * (y - denoise(x, a, s)) / sigma + math.sqrt(sigma**2 - new**2) * noise[i]
        x = b * y
    return x


def flow_levels(u):
    t = 0.95 - 0.9 * u
    return 1 - t, t


def ve_levels(u):
    return 1.0, float((10.0 ** (1 / 7) + u * (0.05 ** (1 / 7) - 10.0 ** (1 / 7))) ** 7)


def solver_cases():
    for name, f in ("sums", edm_plain), ("hypot", edm_hypot):
        for data_std in 0.5, 1.0, 0.05:
            sigmas = None if data_std == 0.5 else np.array([1e-3, 0.3, 7.0, 500.0])
            add(
                f"check_edm_coefficients: {name}, data {data_std}",
                c.check_edm_coefficients,
                partial(f, data_std),
                data_std,
                sigmas,
            )
    for name, f in ("linspace", grid_linspace), ("Karras", grid_karras), ("list", grid_list):
        add(f"check_sigma_grid: {name}", c.check_sigma_grid, f)
        add(f"check_sigma_grid: {name}, rho 3", c.check_sigma_grid, f, 0.01, 50.0, 3.0)
    for stoch, multistep in itertools.product((0.0, 1.0, 0.5), (False, True)):
        for form in "h", "noise":
            name = f"check_exponential_step: {form}, stochasticity {stoch}, {'2M' if multistep else 'one level'}"
            add(name, c.check_exponential_step, partial(exponential, stoch, multistep, form), stoch, multistep)
    mix = Mixture(*law(2, 2))
    for name, f, order, level in [
        ("Heun", heun_levels, 2.0, None), ("DPM-Solver++(2M)", dpm_levels, 2.0, None), ("DDIM", ddim_levels, 1.0, None),
        ("Euler, flow matching", euler_levels, 1.0, flow_levels), ("Heun, EDM", heun_levels, 2.0, ve_levels),
    ]:  # fmt: skip
        add(f"check_flow_order: {name}", c.check_flow_order, f, mix, order, level)
    for name, f, level in [
        ("exponential", partial(ancestral_levels, 1.0, "h"), None),
        ("half the noise", partial(ancestral_levels, 0.5, "noise"), None),
        ("Euler-Maruyama in sigma, EDM", churn_levels, ve_levels),
        ("exponential, flow matching", partial(ancestral_levels, 1.0, "h"), flow_levels),
    ]:
        add(f"check_weak_order: {name}", c.check_weak_order, f, numbers(2), spd(2), 1.0, level, 80)


solver_cases()


# Score matching, networks and training


def matching_cases():
    def score(x):
        return -0.7 * x + 0.4 * np.sin(x)

    def divergence(x):
        return np.sum(-0.7 + 0.4 * np.cos(x), axis=1)

    def denoising(s, e, std):
        return np.sum((s + e / std) ** 2, 1)

    def denoising_noise(s, e, std):
        return [
            math.fsum((std * a + b) ** 2 for a, b in zip(*rows, strict=True)) / std**2
            for rows in zip(s, e, strict=True)
        ]

    def implicit(s, d):
        return np.einsum("nd,nd->n", s, s) + 2 * d

    def sliced(s, v, derivative):
        return (s * v).sum(1) ** 2 + 2 * (v * derivative).sum(1)

    def sliced_reduced(s, v, derivative):
        return (s**2).sum(1) + 2 * np.einsum("nd,nd->n", v, derivative)

    for name, D, (a, s), forms in [
        ("sums", 1, (0.8, 0.6), (denoising, implicit, sliced)),
        ("loops", 2, (1.0, 0.7), (denoising_noise, implicit, sliced_reduced)),
        ("loops", 1, (0.3, 0.95), (denoising_noise, implicit, sliced_reduced)),
    ]:  # fmt: skip
        run = (*forms, Mixture(*law(2, D)), a, s, score, divergence)
        add(f"check_score_matching: {name}, D {D}, level ({a}, {s})", c.check_score_matching, *run)


matching_cases()


def layers_of(sizes, seed=0):
    return [
        (normals(m, n, seed=seed + m) / math.sqrt(m), 0.3 * numbers(n, seed=seed + m))
        for m, n in itertools.pairwise(sizes)
    ]


def silu(z):
    return z / (1 + np.exp(-z))


ACTIVATIONS = {
    "silu": silu,
    "tanh": np.tanh,
    "identity": lambda z: z,
    "sigmoid": lambda z: 0.5 * (1 + np.tanh(z / 2)),
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: 0.5 * z * (1 + erf(z / math.sqrt(2))),
}


def mlp_numpy(layers, activation, x):
    for W, b in layers[:-1]:
        x = ACTIVATIONS[activation](x @ W + b)
    return x @ layers[-1][0] + layers[-1][1]


def mlp_torch(layers, activation, x, dtype=None):
    f = {
        "silu": torch.nn.SiLU(),
        "tanh": torch.nn.Tanh(),
        "sigmoid": torch.nn.Sigmoid(),
        "relu": torch.nn.ReLU(),
        "gelu": torch.nn.GELU(),
    }
    parts = []
    for W, b in layers:
        layer = torch.nn.Linear(*W.shape, dtype=dtype or torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.as_tensor(W.T))
            layer.bias.copy_(torch.as_tensor(b))
        parts += [layer, f.get(activation, torch.nn.Identity())]
    return torch.nn.Sequential(*parts[:-1])(torch.as_tensor(x, dtype=dtype or torch.float64))


def jvp_numpy(layers, x, v):
    for W, b in layers[:-1]:
        z, dz = x @ W + b, v @ W
        s = 0.5 * (1 + np.tanh(z / 2))
        x, v = z * s, dz * s * (1 + z * (1 - s))
    return x @ layers[-1][0] + layers[-1][1], v @ layers[-1][0]


def jvp_torch(layers, x, v):
    return torch.func.jvp(partial(mlp_torch, layers, "silu"), (torch.as_tensor(x),), (torch.as_tensor(v),))


def silu_stable(z):
    e = np.exp(-np.abs(z))
    return z * np.where(z >= 0, 1.0, e) / (1 + e)


def silu_slope(z):
    s = 0.5 * (1 + np.tanh(z / 2))
    return z * s, s + z * s * (1 - s)


def silu_slope_stable(z):
    e = np.exp(-np.abs(z))
    s, other = np.where(z >= 0, 1.0, e) / (1 + e), np.where(z >= 0, e, 1.0) / (1 + e)
    return z * s, s * (1 + z * other)


def silu_torch(z):
    return torch.nn.functional.silu(torch.tensor(z))


def silu_slope_torch(z):
    z = torch.tensor(z, requires_grad=True)
    y = torch.nn.functional.silu(z)
    return y.detach(), torch.autograd.grad(y.sum(), z)[0]


def divergence_case(form, D, std):
    W, V = normals(D, 8) / math.sqrt(D), normals(8, D) / 3

    def eps_hat(x):
        return np.tanh(x @ W) @ V + 0.2 * x

    def jacobian(x):
        return np.einsum("dh,nh,he->ned", W, 1 - np.tanh(x @ W) ** 2, V) + 0.2 * np.eye(D)

    def by_hand(x, probes):
        J = -jacobian(x) / std
        if probes is None:
            return -eps_hat(x) / std, np.trace(J, axis1=1, axis2=2)
        return -eps_hat(x) / std, np.einsum("pnd,nde,pne->n", probes, J, probes) / len(probes)

    def autograd(x, probes):
        x = torch.tensor(x, requires_grad=True)
        s = -(torch.tanh(x @ torch.tensor(W)) @ torch.tensor(V) + 0.2 * x) / std
        vectors = probes if probes is not None else np.broadcast_to(np.eye(D)[:, None], (D, *x.shape))
        total = 0.0
        for v in vectors:
            v = torch.tensor(v)
            total = total + (torch.autograd.grad((s * v).sum(), x, retain_graph=True)[0] * v).sum(1)
        return s.detach(), total / (1 if probes is None else len(probes))

    run = by_hand if form == "by hand" else autograd
    return c.check_divergence(run, eps_hat, std, normals(4, D), np.sign(normals(3, 4, D, seed=2)))


def waves(a, f):
    z = (np.asarray(a)[..., None] * f).reshape(len(a), -1)
    return np.concatenate([np.cos(z), np.sin(z)], 1)


def time_waves(a, s, n):
    f = np.array([0.125]) if n == 1 else 0.125 * 16.0 ** (np.arange(n) / (n - 1))
    return waves(2 * (np.log(a) - np.log(s)), f)


def noise_network_case(D, n, classes, octaves, form):
    N = 5
    a, s = np.array([0.99, 0.8, 0.6, 0.3, 0.05]), np.array([0.1, 0.6, 0.8, 0.95, 1.0])
    indicators = np.eye(max(classes, 1))[np.arange(N) % max(classes, 1)][:, :classes]
    layers = layers_of((D + 2 * octaves * D + 2 * n + classes, 12, D))
    mlp = partial(mlp_numpy, layers, "tanh")

    def eps_hat(x, scale, std):
        scale, std = np.broadcast_to(scale, len(x)).astype(float), np.broadcast_to(std, len(x)).astype(float)
        if form == "rows":
            return np.concatenate([one(x[[i]], scale[[i]], std[[i]], indicators[[i]]) for i in range(len(x))])
        return one(x, scale, std, indicators)

    def one(x, scale, std, labels):
        r = np.hypot(scale, std)[:, None]
        columns = [
            x / r,
            *([waves(x / r, 2.0 ** np.arange(1, octaves + 1))] if octaves else []),
            time_waves(scale, std, n),
            labels,
        ]
        return (std[:, None] * x / r + scale[:, None] * mlp(np.concatenate(columns, 1))) / r

    return c.check_noise_network(eps_hat, mlp, normals(N, D), a, s, n, indicators, octaves)


def categorical_case(D, L, form):
    N, n = 4, 3
    x, a, s = normals(N, D), np.array([0.95, 0.8, 0.5, 0.2]), np.array([0.3, 0.6, 0.85, 0.98])
    histograms, indicators = simplex(D, L), np.eye(2)[[0, 1, 1, 0]]
    levels = np.linspace(-1, 1, L)
    covariance = 0.3 * spd(D)
    layers = layers_of((3 * D + 2 * n + 2, 10, 4 * D))
    mlp = partial(mlp_numpy, layers, "silu")

    def law_():
        mean = histograms @ levels
        A, S = a[:, None, None], s[:, None, None]
        logs = np.log(histograms) - 0.5 * ((x[..., None] - A * levels) / S) ** 2
        alone = np.exp(logs - logsumexp(logs, axis=2, keepdims=True)) @ levels
        d = x - a[:, None] * mean
        wiener = np.stack(
            [
                a_ * covariance @ np.linalg.solve(a_**2 * covariance + s_**2 * np.eye(D), row)
                for a_, s_, row in zip(a, s, d, strict=True)
            ]
        )
        inputs = [d / np.hypot(a, s)[:, None], alone - mean, wiener, time_waves(a, s, n), indicators]
        F = mlp(np.concatenate(inputs, 1)).reshape(N, D, 4)
        basis = np.stack([np.arange(L) == 0, np.arange(L) == L - 1, levels, levels**2]).astype(float)
        logs = logs + (F @ basis if form == "matrix" else np.einsum("ndb,bl->ndl", F, basis))
        if form == "matrix":
            return np.exp(logs - logsumexp(logs, axis=2, keepdims=True))
        e = np.exp(logs - logs.max(2, keepdims=True))
        return e / e.sum(2, keepdims=True)

    def eps():
        return (x - a[:, None] * (law_() @ levels)) / s[:, None]

    return c.check_categorical_denoiser(law_, eps, mlp, x, a, s, histograms, covariance, n, indicators)


def draw_inverse(law_, u):
    return np.minimum((np.cumsum(law_, 2) < u[..., None]).sum(2), law_.shape[2] - 1)


def draw_loops(law_, u):
    out = []
    for row, us in zip(law_, u, strict=True):
        values = []
        for p, v in zip(row, us, strict=True):
            total, k = p[0], 0
            while total < v and k < len(p) - 1:
                k += 1
                total += p[k]
            values.append(k)
        out.append(values)
    return out


def adam_plain(lr, b1, b2, eps, decay, parameters, gradients):
    theta, m, v, out = np.array(parameters, float), 0.0, 0.0, []
    for n, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        theta = theta * (1 - lr * decay) - lr * (m / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + eps)
        out.append(theta)
    return np.array(out)


def adam_lists(lr, b1, b2, eps, decay, parameters, gradients):
    rows = []
    for p, gs in zip(parameters.tolist(), gradients.T.tolist(), strict=True):
        values = []
        for n in range(1, len(gs) + 1):
            m = math.fsum((1 - b1) * b1 ** (n - i) * g for i, g in enumerate(gs[:n], 1)) / (1 - b1**n)
            v = math.fsum((1 - b2) * b2 ** (n - i) * g * g for i, g in enumerate(gs[:n], 1)) / (1 - b2**n)
            p = p - lr * decay * p - lr * m / (math.sqrt(v) + eps)
            values.append(p)
        rows.append(values)
    return np.transpose(rows).tolist()


def adam_torch(lr, b1, b2, eps, decay, parameters, gradients):
    theta = torch.nn.Parameter(torch.tensor(parameters))
    optimiser = torch.optim.AdamW([theta], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    out = []
    for g in gradients:
        theta.grad = torch.tensor(g)
        optimiser.step()
        out.append(theta.detach().numpy().copy())
    return np.stack(out)


def rate_cosine(n, top, warmup, k):
    if k < warmup:
        return top * (k + 1) / warmup
    return top * 0.5 * (1 + math.cos(math.pi * (k - warmup) / (n - warmup)))


def rate_squared(n, top, warmup, k):
    return np.where(k < warmup, top * (k + 1) / max(warmup, 1), top * np.sin(np.pi / 2 * (n - k) / (n - warmup)) ** 2)


def average_running(decay, start, parameters):
    out, value = [], np.array(start, float)
    for k, p in enumerate(parameters, 1):
        d = min(decay, (1 + k) / (10 + k))
        value = value + (1 - d) * (p - value)
        out.append(value)
    return out


def average_weights(decay, start, parameters):
    """A matrix of weights for all steps at once."""
    n = len(parameters)
    d = np.minimum(decay, (1 + np.arange(1, n + 1)) / (10 + np.arange(1, n + 1)))
    rows = []
    for k in range(1, n + 1):
        tail = np.append(np.cumprod(d[:k][::-1])[::-1], 1.0)
        rows.append(np.append(tail[0], (1 - d[:k]) * tail[1:]) @ np.vstack([start, parameters[:k]]))
    return np.array(rows)


def network_cases():
    usable = ("numpy", "torch") if torch is not None else ("numpy",)
    for i, activation in enumerate(ACTIVATIONS):
        sizes = [(1, 4, 1), (2, 16, 16, 3), (16, 64, 16), (3, 5, 5, 5, 2), (64, 8, 64), (2, 3)][i]
        layers, x = layers_of(sizes), normals(6, sizes[0])
        for library in usable:
            f = partial(mlp_numpy if library == "numpy" else mlp_detached, layers, activation)
            add(f"check_mlp: {library}, {activation}, {sizes}", c.check_mlp, f, layers, x, activation)
    for sizes in (2, 16, 2), (16, 32, 32, 3):
        layers, x, v = layers_of(sizes), normals(4, sizes[0]), normals(4, sizes[0], seed=5)
        for library in usable:
            f = partial(jvp_numpy if library == "numpy" else jvp_torch, layers)
            add(f"check_jvp: {library}, {sizes}", c.check_jvp, f, partial(mlp_numpy, layers, "silu"), x, v)
    z = np.array([-750.0, -40.0, -3.0, -0.2, 0.0, 0.7, 5.0, 40.0, 750.0])
    stable = lambda z: z * (0.5 * (1 + np.tanh(z / 2)))  # noqa: E731
    add("check_activation: stable, wide", c.check_activation, silu_stable, silu_slope_stable, z)
    add("check_activation: tanh, narrow", c.check_activation, stable, silu_slope, 3.0 * numbers(20))
    if torch is not None:
        add("check_activation: torch, wide", c.check_activation, silu_torch, silu_slope_torch, z)
    forms = ("by hand", "autograd") if torch is not None else ("by hand",)
    for form, (D, std) in itertools.product(forms, ((1, 0.3), (3, 0.9), (16, 0.05))):
        add(f"check_divergence: {form}, D {D}, std {std}", divergence_case, form, D, std)
    for D, n, classes, octaves, form in (
        (1, 2, 0, 0, "batch"),
        (2, 4, 3, 2, "rows"),
        (16, 3, 2, 1, "batch"),
        (2, 4, 3, 2, "batch"),
    ):
        label = f"{form}, D {D}, {n} times, {classes} classes, {octaves} octaves"
        add(f"check_noise_network: {label}", noise_network_case, D, n, classes, octaves, form)
    for form, (D, L) in itertools.product(("matrix", "einsum"), ((2, 3), (16, 17))):
        add(f"check_categorical_denoiser: {form}, D {D}, {L} levels", categorical_case, D, L, form)
        f = draw_inverse if form == "matrix" else draw_loops
        name = f"check_categorical_draw: {f.__name__[5:]}, D {D}, {L} levels"
        add(name, lambda f, p: c.check_categorical_draw(partial(f, p), p), f, simplex(3, D, L))
    adams = {"plain": adam_plain, "sums": adam_lists}
    if torch is not None:
        adams["torch"] = adam_torch
    for (name, f), (lr, b1, b2, eps, decay) in itertools.product(
        adams.items(), ((1e-3, 0.9, 0.999, 1e-8, 0.0), (0.05, 0.8, 0.95, 1e-3, 0.1))
    ):
        options = (lr, b1, b2, eps, decay)
        run = partial(f, *options)
        add(f"check_adam: {name}, rate {lr}, decay {decay}", c.check_adam, run, normals(4), normals(12, 4), *options)
    for (name, f), (n, warmup) in itertools.product(
        (("cosine", rate_cosine), ("squared", rate_squared)), ((10, 0), (100, 7), (200, 20))
    ):
        add(
            f"check_learning_rate: {name}, {n} steps, warmup {warmup}",
            c.check_learning_rate,
            partial(f, n, 3e-4, warmup),
            n,
            3e-4,
            warmup,
        )
    for (name, f), decay in itertools.product(
        (("running", average_running), ("weights", average_weights)), (0.5, 0.999)
    ):
        add(
            f"check_moving_average: {name}, decay {decay}",
            c.check_moving_average,
            partial(f, decay),
            normals(3),
            normals(40, 3),
            decay,
        )


def mlp_detached(layers, activation, x):
    return mlp_torch(layers, activation, x).detach()


network_cases()


# Losses with gradients: a small noise network on fixed batches


class Regression:
    """ε̂ = tanh(x_t U) V + b with parameters in one vector, on batches of noisy points."""

    def __init__(self, D, n=1, N=6, H=3):
        self.D, self.H = D, H
        x0, self.noise = normals(n, N, D), normals(n, N, D, seed=1)
        a = np.linspace(0.9, 0.2, N)[:, None]
        self.x = a * x0 + np.sqrt(1 - a**2) * self.noise
        self.parameters = np.where(numbers(2 * D * H + D) > 0, 1, -1) * (0.2 + 0.4 * positive_table(2 * D * H + D))

    def split(self, p):
        k = self.D * self.H
        return p[:k].reshape(self.D, self.H), p[k : 2 * k].reshape(self.H, self.D), p[2 * k :]

    def losses(self, p, n=0):
        U, V, b = self.split(p)
        return np.sum((np.tanh(self.x[n] @ U) @ V + b - self.noise[n]) ** 2, 1)

    def by_hand(self, p, n=0, weight=1.0):
        """Losses, and the gradient of their weighted mean."""
        U, V, b = self.split(p)
        h = np.tanh(self.x[n] @ U)
        error = h @ V + b - self.noise[n]
        back = 2 * error * np.reshape(weight * np.ones(len(error)), (-1, 1)) / len(error)
        inner = back @ V.T * (1 - h**2)
        return (error**2).sum(1), np.concatenate([(self.x[n].T @ inner).ravel(), (h.T @ back).ravel(), back.sum(0)])

    def autograd(self, p, n=0, weight=1.0):
        p = torch.tensor(np.asarray(p), requires_grad=True)
        U, V, b = self.split(p)
        losses = ((torch.tanh(torch.tensor(self.x[n]) @ U) @ V + b - torch.tensor(self.noise[n])) ** 2).sum(1)
        (losses * torch.as_tensor(weight)).mean().backward()
        return losses.detach(), p.grad


def gradient_case(form, D):
    model = Regression(D)
    P = len(model.parameters)
    directions = normals(4, P, seed=3) / math.sqrt(P) if D > 1 else np.eye(P)
    return c.check_gradient(
        lambda p: np.mean(model.losses(p)), lambda p: getattr(model, form)(p)[1], model.parameters, directions
    )


def training_step_case(form, D, weighted):
    model = Regression(D)
    weight = np.linspace(0.5, 2, 6) if weighted else 1.0
    return c.check_training_step(partial(getattr(model, form), weight=weight), model.losses, model.parameters, weight)


def training_case(form, D, steps, warmup, decay, ema):
    model = Regression(D, steps)
    top = 0.02

    def train(parameters):
        run = getattr(model, form)
        theta, average, losses = np.array(parameters, float), np.array(parameters, float), []
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for k in range(steps):
            found, g = run(theta, k)
            g = np.asarray(g)
            losses.append(float(np.mean(np.asarray(found))))
            lr = rate_cosine(steps, top, warmup, k)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            theta = (
                theta
                - lr * decay * theta
                - lr * m / (1 - 0.9 ** (k + 1)) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
            )
            if ema:
                d = min(ema, (2 + k) / (11 + k))
                average = d * average + (1 - d) * theta
        return losses, theta, average

    loss = lambda p, n: np.mean(model.losses(p, n))  # noqa: E731
    return c.check_training(train, loss, model.parameters, steps, top, warmup, decay, ema)


def loss_gradient_case(form, D):
    target = normals(4, D, seed=2)

    def by_hand(out):
        return ((out - target) ** 2).sum(1), 2 * (out - target)

    def autograd(out):
        out = torch.tensor(out, requires_grad=True)
        losses = torch.nn.functional.mse_loss(out, torch.tensor(target), reduction="none").sum(1)
        losses.sum().backward()
        return losses.detach(), out.grad

    def other(out):
        return np.einsum("nd,nd->n", out, out) - 2 * np.einsum("nd,nd->n", out, target) + np.sum(target**2, 1)

    return c.check_loss_gradient(by_hand if form == "by_hand" else autograd, other, normals(4, D))


def training_cases():
    forms = ("by_hand", "autograd") if torch is not None else ("by_hand",)
    for form in forms:
        for D in 1, 3:
            add(f"check_gradient: {form}, D {D}", gradient_case, form, D)
            add(f"check_training_step: {form}, D {D}", training_step_case, form, D, D == 3)
        for D in 2, 16:
            add(f"check_loss_gradient: {form}, D {D}", loss_gradient_case, form, D)
        for D, steps, warmup, decay, ema in (1, 5, 0, 0.0, None), (2, 8, 3, 0.05, 0.9):
            label = f"{form}, D {D}, {steps} steps, warmup {warmup}, decay {decay}, average {ema}"
            add(f"check_training: {label}", training_case, form, D, steps, warmup, decay, ema)


training_cases()

CASES = tuple(_cases)
