"""Right implementations, in the conventions, precisions and schedules in which such code is written."""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import integrate, linalg, special, stats

from scratchgen import Mixture, NoiseSchedule, conformance
from scratchgen.conformance import EDM, Check
from scratchgen.sde import VE, VP, LinearSDE, SubVP
from tests.battery.case import Right

try:
    import torch
except ImportError:  # the codings in PyTorch are left out
    torch = None

SINGLE = 1e-5  # the tolerance for code in float32
CASES: tuple[Right, ...] = ()
FOUND: list[Right] = []
SLOW = (  # the first part of a name
    "check_continuous_bound: ½ g², t_min 1e-05, D = 64",
    "check_jvp: torch",
    "check_moving_average: lerp, P = 16, 1000 steps",
    "check_moving_average: loop, P = 8, 2000 steps",
)
LOG_2PI = math.log(2 * math.pi)


class Coding(NamedTuple):
    name: str
    make: Callable[..., Any]  # problem -> the callables of the check
    single: bool = False  # computes in float32


def guarded(check: str, run: Callable[[], Check], single: bool) -> Callable[[], Check]:
    """The check; one that raises has refused the implementation."""

    def judged() -> Check:
        try:
            return run().at(SINGLE) if single else run()
        except Exception as error:
            zero = np.zeros(1)
            return Check(check, "", "", zero, zero, math.inf, 0.0, f"raises {type(error).__name__}: {error}")

    return judged


def add(check: str, name: str, run: Callable[[], Check], *, single: bool = False) -> None:
    """One more case."""
    name = f"{check}: {name}"
    FOUND.append(Right(name, guarded(check, run, single), name.startswith(SLOW)))


def table(check: str, call: Callable[..., Check], codings: tuple[Coding, ...], problems: Any) -> None:
    """Every problem with one coding in turn, and every coding at least once."""
    problems = list(problems)
    for i in range(max(len(codings), len(problems))):
        problem = problems[i % len(problems)]
        coding = codings[(i + i // len(codings)) % len(codings)]
        if coding.single and not problem.single:
            coding = next(c for c in codings if not c.single)

        def run(coding: Coding = coding, problem: Any = problem) -> Check:
            return call(coding.make(problem), problem)

        add(check, f"{coding.name}; {problem.name}", run, single=coding.single)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def col(value: Any, x: Any) -> Any:
    """A coefficient, of all or of each of the examples, ready to be multiplied with x."""
    value = np.asarray(value)
    return value.reshape(value.shape + (1,) * (np.ndim(x) - value.ndim)) if value.ndim else value[()]


def f32(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function, given arrays in float32."""

    def wrapped(*args: Any) -> Any:
        return f(*(a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args))

    return wrapped


def lists(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose array is returned as nested lists."""

    def wrapped(*args: Any) -> Any:
        out = f(*args)
        return tuple(np.asarray(o).tolist() for o in out) if isinstance(out, tuple) else np.asarray(out).tolist()

    return wrapped


def in_torch(f: Callable[..., Any], dtype: str = "float64") -> Callable[..., Any]:
    """The function of tensors, for arrays."""

    def to(a: Any) -> Any:
        if isinstance(a, np.ndarray):
            tensor = torch.from_numpy(np.array(a))
            return tensor.to(getattr(torch, dtype)) if a.dtype.kind == "f" else tensor
        return a

    def back(o: Any) -> Any:
        return o.detach().numpy() if isinstance(o, torch.Tensor) else o

    def wrapped(*args: Any) -> Any:
        out = f(*map(to, args))
        return tuple(map(back, out)) if isinstance(out, tuple) else back(out)

    return wrapped


# Chains: problems and tables


class Chain(NamedTuple):
    name: str
    betas: Any
    single: bool = True  # float32 can hold the tables

    @property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule(self.betas)

    @property
    def T(self) -> int:
        return len(self.betas)


def ho_betas(T: int) -> Any:
    return np.linspace(1e-4, 0.02, T)


def cosine_betas(T: int) -> Any:
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def sigmoid_betas(T: int) -> Any:
    return special.expit(np.linspace(-6, 6, T)) * (0.02 - 1e-4) + 1e-4


def vdm_betas(T: int) -> Any:
    log_keep = np.log(special.expit(-np.linspace(-10, 8, T)))  # log ᾱ², with the log-SNR from 10 to −8
    return -np.expm1(np.diff(np.r_[0.0, log_keep]))


def edm_betas(T: int) -> Any:
    sigma = (0.002 ** (1 / 7) + np.linspace(0, 1, T) * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    return -np.expm1(-np.diff(np.r_[0.0, np.log1p(sigma**2)]))


def flow_betas(T: int) -> Any:
    tau = np.linspace(0.01, 0.98, T)  # (1 − τ, τ), divided by its length
    keep = (1 - tau) ** 2 / ((1 - tau) ** 2 + tau**2)
    return 1 - keep / np.r_[1.0, keep[:-1]]


CHAINS = (
    Chain("Ho, T = 1", ho_betas(1)),
    Chain("cosine, T = 50", cosine_betas(50)),
    Chain("Ho, T = 1000", ho_betas(1000)),
    Chain("1e-8, T = 5", np.full(5, 1e-8)),
    Chain("0.999, T = 5", np.full(5, 0.999)),
    Chain("sigmoid, T = 50", sigmoid_betas(50)),
    Chain("constant 0.02, T = 2", np.full(2, 0.02)),
    Chain("EDM's σ, T = 50", edm_betas(50)),
    Chain("flow's (1 − t, t), T = 50", flow_betas(50)),
    Chain("cosine, T = 1000", cosine_betas(1000)),
    Chain("1e-8, T = 50", np.full(50, 1e-8)),
    Chain("0.999, T = 50", np.full(50, 0.999), single=False),
    Chain("even log-SNR, T = 50", vdm_betas(50)),
    Chain("Ho, T = 4000", ho_betas(4000), single=False),
    Chain("1e-8 to 0.9, T = 5", np.geomspace(1e-8, 0.9, 5)),
    Chain("Ho, T = 5", ho_betas(5)),
)
BY_NAME = {chain.name: chain for chain in CHAINS}
SHORT = tuple(chain for chain in CHAINS if chain.T <= 5)
MIDDLE = tuple(chain for chain in CHAINS if chain.T <= 50)


class Ho:
    """Tables of T entries in the names of Ho's code, by a product; index t − 1."""

    def __init__(self, betas: Any, dtype: Any = np.float64, cast: Any = None) -> None:
        b = np.asarray(betas, dtype)
        keep = np.cumprod(1 - b)
        last = np.append(np.ones(1, dtype), keep[:-1])
        self.betas, self.acp, self.acp_prev = b, keep, last
        self.sqrt_acp, self.sqrt_1m_acp = np.sqrt(keep), np.sqrt(1 - keep)
        self.recip, self.recipm1 = np.sqrt(1 / keep), np.sqrt(1 / keep - 1)
        self.variance = b * (1 - last) / (1 - keep)
        self.coef1, self.coef2 = b * np.sqrt(last) / (1 - keep), (1 - last) * np.sqrt(1 - b) / (1 - keep)
        self.coef_eps = b / np.sqrt(1 - keep)
        self.recip_alpha = 1 / np.sqrt(1 - b)
        if cast is not None:
            for key, value in vars(self).items():
                setattr(self, key, value.astype(cast))


class Logs:
    """Tables of T + 1 entries by sums of log1p; index t."""

    def __init__(self, betas: Any) -> None:
        self.b = np.r_[0.0, betas]
        self.log = np.r_[0.0, np.cumsum(np.log1p(-np.asarray(betas)))]
        self.a = np.sqrt(1 - self.b)
        self.ab = np.exp(self.log / 2)
        self.vv = -np.expm1(self.log)
        self.bb = np.sqrt(self.vv)
        self.tilde = np.zeros(len(self.b))
        self.tilde[1:] = self.b[1:] * self.vv[:-1] / self.vv[1:]

    def cast(self, dtype: Any) -> "Logs":
        for key, value in vars(self).items():
            setattr(self, key, value.astype(dtype))
        return self


def with_torch(*codings: Coding) -> tuple[Coding, ...]:
    return codings if torch is not None else ()


# check_schedule


def schedule_ho(p: Chain) -> Any:
    h = Ho(p.betas)
    return np.r_[1, h.sqrt_acp], np.r_[0, h.sqrt_1m_acp], np.r_[0, np.sqrt(h.variance)]


def schedule_logs(p: Chain) -> Any:
    g = Logs(p.betas)
    return g.ab, g.bb, np.sqrt(g.tilde)


def schedule_loop(p: Chain) -> Any:
    keep, noise, tilde = [1.0], [0.0], [0.0]
    for b in map(float, p.betas):
        new = (1 - b) * noise[-1] ** 2 + b
        tilde.append(math.sqrt(b) * noise[-1] / math.sqrt(new))
        keep.append(keep[-1] * math.sqrt(1 - b))
        noise.append(math.sqrt(new))
    return keep, noise, tilde


def schedule_sigma(p: Chain) -> Any:
    sigma2 = np.r_[0.0, np.expm1(-np.cumsum(np.log1p(-p.betas)))]  # (β̄/ᾱ)², the σ² of Karras et al.
    return 1 / np.sqrt(1 + sigma2), np.sqrt(sigma2 / (1 + sigma2)), None


def schedule_single(p: Chain) -> Any:
    return tuple(v.astype(np.float32) for v in schedule_logs(p))


def schedule_torch(p: Chain) -> Any:
    b = torch.from_numpy(p.betas)
    keep = torch.cumprod(1 - b, 0)
    one = torch.ones(1, dtype=torch.float64)
    return torch.cat([one, keep.sqrt()]).numpy(), torch.cat([one * 0, (1 - keep).sqrt()]).numpy(), None


table(
    "check_schedule",
    lambda made, p: conformance.check_schedule(p.schedule, *made),
    (
        Coding("Ho's cumprod", schedule_ho),
        Coding("sums of logs", schedule_logs),
        Coding("loop over lists", schedule_loop),
        Coding("from σ of EDM", schedule_sigma),
        Coding("logs, float32", schedule_single, True),
        *with_torch(Coding("torch.cumprod", schedule_torch)),
    ),
    CHAINS,
)


# check_forward_step


def q_step_ho(p: Chain) -> Any:
    b = p.betas
    return lambda t, x, e: col(np.sqrt(1 - b[t - 1]), x) * x + col(np.sqrt(b[t - 1]), x) * e


def q_step_int(p: Chain) -> Any:
    b = [math.nan, *map(float, p.betas)]

    def step(t: int, x: Any, e: Any) -> Any:
        return [
            [math.sqrt(1 - b[t]) * u + b[t] ** 0.5 * v for u, v in zip(r, s, strict=True)]
            for r, s in zip(x, e, strict=True)
        ]

    return step


def q_step_exploding(p: Chain) -> Any:
    g = Logs(p.betas)

    def step(t: Any, x: Any, e: Any) -> Any:  # in the coordinates x/ᾱ the noise only grows
        y = x / col(g.ab[np.asarray(t) - 1], x)
        y = y + col(np.sqrt(g.b[t]) / g.ab[t], x) * e
        return col(g.ab[t], x) * y

    return step


def q_step_einsum(p: Chain) -> Any:
    pair = np.stack([np.sqrt(1 - p.betas), np.sqrt(p.betas)])
    return lambda t, x, e: (
        np.einsum("c...,cnd->nd", pair[:, t - 1], np.stack([x, e]))
        if np.ndim(t) == 0
        else np.einsum("cn,cnd->nd", pair[:, t - 1], np.stack([x, e]))
    )


def q_step_single(p: Chain) -> Any:
    a, b = np.sqrt(1 - p.betas).astype(np.float32), np.sqrt(p.betas).astype(np.float32)
    return f32(lambda t, x, e: col(a[t - 1], x) * x + col(b[t - 1], x) * e)


def q_step_torch(p: Chain) -> Any:
    b = torch.from_numpy(p.betas)
    return in_torch(lambda t, x, e: torch.sqrt(1 - b[t - 1]).reshape(-1, 1) * x + b[t - 1].sqrt().reshape(-1, 1) * e)


table(
    "check_forward_step",
    lambda made, p: conformance.check_forward_step(made, p.schedule),
    (
        Coding("Ho", q_step_ho),
        Coding("lists, t an int", q_step_int),
        Coding("exploding coordinates", q_step_exploding),
        Coding("einsum", q_step_einsum),
        Coding("float32", q_step_single, True),
        *with_torch(Coding("torch", q_step_torch)),
    ),
    CHAINS[:9],
)


# check_forward_process


def q_sample_ho(p: Chain) -> Any:
    h = Ho(p.betas)
    return lambda t, x, e: col(h.sqrt_acp[t - 1], x) * x + col(h.sqrt_1m_acp[t - 1], x) * e


def q_sample_edm(p: Chain) -> Any:
    g = Logs(p.betas)
    sigma = np.sqrt(np.expm1(-g.log))
    return lambda t, x, e: (x + col(sigma[t], x) * e) / col(np.sqrt(1 + sigma[t] ** 2), x)


def q_sample_angle(p: Chain) -> Any:
    g = Logs(p.betas)
    angle = np.arctan2(g.bb, g.ab)  # Salimans and Ho
    return lambda t, x, e: col(np.cos(angle[t]), x) * x + col(np.sin(angle[t]), x) * e


def q_sample_vdm(p: Chain) -> Any:
    g = Logs(p.betas)
    gamma = np.r_[-np.inf, np.log(g.vv[1:]) - g.log[1:]]
    return lambda t, x, e: col(np.sqrt(special.expit(-gamma[t])), x) * x + col(np.sqrt(special.expit(gamma[t])), x) * e


def q_sample_flow(p: Chain) -> Any:
    g = Logs(p.betas)
    length = g.ab + g.bb
    tau = g.bb / length
    keep = g.ab / length
    return lambda t, x, e: col(length[t], x) * (col(keep[t], x) * x + col(tau[t], x) * e)


def q_sample_single(p: Chain) -> Any:
    h = Ho(p.betas, cast=np.float32)
    return f32(lambda t, x, e: col(h.sqrt_acp[t - 1], x) * x + col(h.sqrt_1m_acp[t - 1], x) * e)


def q_sample_mixed(p: Chain) -> Any:
    g = Logs(p.betas).cast(np.float32)
    return lambda t, x, e: col(g.ab[t], x) * x + col(g.bb[t], x) * e


def q_sample_torch32(p: Chain) -> Any:
    keep = torch.cumprod(1 - torch.from_numpy(p.betas), 0).float()
    return in_torch(
        lambda t, x, e: keep[t - 1].sqrt().reshape(-1, 1) * x + (1 - keep[t - 1]).sqrt().reshape(-1, 1) * e, "float32"
    )


table(
    "check_forward_process",
    lambda made, p: conformance.check_forward_process(made, p.schedule),
    (
        Coding("Ho", q_sample_ho),
        Coding("EDM's σ", q_sample_edm),
        Coding("angle", q_sample_angle),
        Coding("VDM's γ", q_sample_vdm),
        Coding("flow matching", q_sample_flow),
        Coding("float32", q_sample_single, True),
        Coding("float32 tables, float64 data", q_sample_mixed, True),
        *with_torch(Coding("torch float32", q_sample_torch32, True)),
    ),
    CHAINS,
)


# check_posterior


def posterior_ho(p: Chain) -> Any:
    h = Ho(p.betas)

    def posterior(t: Any, x: Any, x0: Any) -> Any:
        mean = col(h.coef1[t - 1], x) * x0 + col(h.coef2[t - 1], x) * x
        return mean, col(h.variance[t - 1], x)

    return posterior


def posterior_precisions(p: Chain) -> Any:
    g = Logs(p.betas)

    def posterior(t: int, x: Any, x0: Any) -> Any:
        if t == 1:
            return x0.copy(), 0.0
        one, two = (1 - g.b[t]) / g.b[t], 1 / g.vv[t - 1]
        variance = 1 / (one + two)
        return variance * (g.a[t] / g.b[t] * x + two * g.ab[t - 1] * x0), variance

    return posterior


def posterior_eps(p: Chain) -> Any:
    g = Logs(p.betas)

    def posterior(t: Any, x: Any, x0: Any) -> Any:
        eps = (x - col(g.ab[t], x) * x0) / col(g.bb[t], x)
        mean = (x - col(g.b[t] / g.bb[t], x) * eps) / col(g.a[t], x)
        return mean, np.broadcast_to(col(g.tilde[t], x), x.shape)

    return posterior


def posterior_ddim(p: Chain) -> Any:
    g = Logs(p.betas)

    def posterior(t: int, x: Any, x0: Any) -> Any:
        eps = (x - g.ab[t] * x0) / g.bb[t]
        left = (1 - g.b[t]) * g.vv[t - 1] ** 2 / g.vv[t]  # β̄²_{t−1} − β̃²
        return g.ab[t - 1] * x0 + math.sqrt(left) * eps, g.tilde[t]

    return posterior


def posterior_vdm(p: Chain) -> Any:
    g = Logs(p.betas)

    def posterior(t: Any, x: Any, x0: Any) -> Any:
        s = np.asarray(t) - 1
        c = g.b[t] / g.vv[t]  # Kingma's −expm1(γ_s − γ_t)
        keep = (1 - g.b[t]) * g.vv[s] / g.vv[t]
        return col(keep / g.a[t], x) * x + col(g.ab[s] * c, x) * x0, col(g.vv[s] * c, x)

    return posterior


def posterior_single(p: Chain) -> Any:
    h = Ho(p.betas, cast=np.float32)
    return f32(lambda t, x, x0: (col(h.coef1[t - 1], x) * x0 + col(h.coef2[t - 1], x) * x, col(h.variance[t - 1], x)))


def posterior_log_variance(p: Chain) -> Any:
    g = Logs(p.betas)
    log_variance = np.full(p.T + 1, -np.inf)
    if p.T > 1:
        log_variance[2:] = np.log(g.b[2:]) + np.log(g.vv[1:-1]) - np.log(g.vv[2:])
    c1, c2 = np.zeros(p.T + 1), np.zeros(p.T + 1)
    c1[1:] = g.b[1:] * g.ab[:-1] / g.vv[1:]
    c2[1:] = g.a[1:] * g.vv[:-1] / g.vv[1:]
    return lambda t, x, x0: (
        (c1[t] * x0 + c2[t] * x, np.exp(log_variance[t]))
        if isinstance(t, int)
        else (
            c1[t][:, None] * x0 + c2[t][:, None] * x,
            np.exp(log_variance[t])[:, None],
        )
    )


table(
    "check_posterior",
    lambda made, p: conformance.check_posterior(made, p.schedule),
    (
        Coding("Ho's two coefficients", posterior_ho),
        Coding("sum of precisions, t an int", posterior_precisions),
        Coding("from ε, variance (N, D)", posterior_eps),
        Coding("as DDIM with η = 1", posterior_ddim),
        Coding("VDM's c", posterior_vdm),
        Coding("float32", posterior_single, True),
        Coding("log-variance", posterior_log_variance),
    ),
    CHAINS,
)


# check_noise_merging


def merging_logs(p: Chain) -> Any:
    g = Logs(p.betas)

    def rows(t: Any, x: Any) -> Any:
        s = np.asarray(t) - 1
        return col(g.a[t] * g.bb[s] / g.bb[t], x), col(np.sqrt(g.b[t]) / g.bb[t], x)

    def merge(t: Any, old: Any, new: Any) -> Any:
        u, v = rows(t, old)
        return u * old + v * new, v * old - u * new

    def split(t: Any, eps: Any, omega: Any) -> Any:
        u, v = rows(t, eps)
        return v * eps - u * omega

    return merge, split


def merging_angle(p: Chain) -> Any:
    g = Logs(p.betas)

    def matrix(t: int) -> Any:
        phi = math.atan2(math.sqrt(g.b[t]), g.a[t] * g.bb[t - 1])
        return np.array([[math.cos(phi), math.sin(phi)], [math.sin(phi), -math.cos(phi)]])

    def merge(t: int, old: Any, new: Any) -> Any:
        return tuple(np.einsum("ij,jnd->ind", matrix(t), np.stack([old, new])))

    return merge, lambda t, eps, omega: (matrix(t) @ np.stack([eps, omega]).reshape(2, -1))[1].reshape(eps.shape)


def merging_ho(p: Chain) -> Any:
    h = Ho(p.betas)

    def merge(t: Any, old: Any, new: Any) -> Any:
        a, b = col(np.sqrt((1 - h.betas[t - 1]) * (1 - h.acp_prev[t - 1])), old), col(np.sqrt(h.betas[t - 1]), old)
        length = col(h.sqrt_1m_acp[t - 1], old)
        return (a * old + b * new) / length, (b * old - a * new) / length

    return merge, lambda t, eps, omega: merge(t, eps, omega)[1]


def merging_single(p: Chain) -> Any:
    g = Logs(p.betas)
    u = np.zeros(p.T + 1, np.float32)
    v = np.zeros(p.T + 1, np.float32)
    u[1:] = g.a[1:] * g.bb[:-1] / g.bb[1:]
    v[1:] = np.sqrt(g.b[1:]) / g.bb[1:]
    return (
        f32(lambda t, x, y: (col(u[t], x) * x + col(v[t], x) * y, col(v[t], x) * x - col(u[t], x) * y)),
        f32(lambda t, x, y: col(v[t], x) * x - col(u[t], x) * y),
    )


table(
    "check_noise_merging",
    lambda made, p: conformance.check_noise_merging(*made, p.schedule),
    (
        Coding("logs", merging_logs),
        Coding("a rotation by an angle", merging_angle),
        Coding("Ho's tables", merging_ho),
        Coding("float32", merging_single, True),
    ),
    CHAINS[:12],
)


# check_predict_x0


def x0_ho(p: Chain) -> Any:
    h = Ho(p.betas)
    return lambda t, x, e: col(h.recip[t - 1], x) * x - col(h.recipm1[t - 1], x) * e


def x0_diffusers(p: Chain) -> Any:
    h = Ho(p.betas)
    return lambda t, x, e: (x - col((1 - h.acp[t - 1]) ** 0.5, x) * e) / col(h.acp[t - 1] ** 0.5, x)


def x0_edm(p: Chain) -> Any:
    g = Logs(p.betas)
    sigma = np.sqrt(np.expm1(-g.log))
    return lambda t, x, e: x * col(np.sqrt(1 + sigma[t] ** 2), x) - col(sigma[t], x) * e


def x0_v(p: Chain) -> Any:
    g = Logs(p.betas)

    def predict(t: Any, x: Any, e: Any) -> Any:
        v = (e - col(g.bb[t], x) * x) / col(g.ab[t], x)
        return col(g.ab[t], x) * x - col(g.bb[t], x) * v

    return predict


def x0_score(p: Chain) -> Any:
    g = Logs(p.betas)

    def predict(t: int, x: Any, e: Any) -> Any:
        score = -e / g.bb[t]
        return (x + g.vv[t] * score) / g.ab[t]

    return lists(predict)


def x0_single(p: Chain) -> Any:
    g = Logs(p.betas).cast(np.float32)
    return f32(lambda t, x, e: (x - col(g.bb[t], x) * e) / col(g.ab[t], x))


table(
    "check_predict_x0",
    lambda made, p: conformance.check_predict_x0(made, p.schedule),
    (
        Coding("Ho's reciprocals", x0_ho),
        Coding("like diffusers", x0_diffusers),
        Coding("EDM's σ", x0_edm),
        Coding("through v", x0_v),
        Coding("Tweedie, lists, t an int", x0_score),
        Coding("float32", x0_single, True),
    ),
    CHAINS,
)


# check_ancestral_step


def sigma_beta(p: Chain) -> Any:
    return np.r_[0.0, p.betas]


def sigma_posterior(p: Chain) -> Any:
    out = Logs(p.betas).tilde
    out[1] = p.betas[0]
    return out


def sigma_nan(p: Chain) -> Any:
    return np.r_[np.nan, sigma_posterior(p)[1:]]


def ancestral_ho(p: Chain) -> Any:
    h, s = Ho(p.betas), sigma_beta(p)

    def step(t: Any, x: Any, e: Any, z: Any) -> Any:
        x0 = col(h.recip[t - 1], x) * x - col(h.recipm1[t - 1], x) * e
        mean = col(h.coef1[t - 1], x) * x0 + col(h.coef2[t - 1], x) * x
        return mean + col(np.exp(0.5 * np.log(s[t])), x) * z

    return step, s


def ancestral_direct(p: Chain) -> Any:
    h, s = Ho(p.betas), sigma_posterior(p)
    return (
        lambda t, x, e, z: (
            col(h.recip_alpha[t - 1], x) * (x - col(h.coef_eps[t - 1], x) * e) + col(np.sqrt(s[t]), x) * z
        ),
        s,
    )


def ancestral_nan(p: Chain) -> Any:
    g, s = Logs(p.betas), sigma_nan(p)
    return (
        lambda t, x, e, z: (
            (x - g.b[t] / g.bb[t] * e) / g.a[t] + s[t] ** 0.5 * z
            if np.ndim(t) == 0
            else (x - (g.b[t] / g.bb[t])[:, None] * e) / g.a[t][:, None] + s[t][:, None] ** 0.5 * z
        ),
        s,
    )


def ancestral_score(p: Chain) -> Any:
    g, s = Logs(p.betas), sigma_beta(p)

    def step(t: int, x: Any, e: Any, z: Any) -> Any:  # (x + β ∇log p)/√(1 − β) + √β z
        return ((x + g.b[t] * (-e / g.bb[t])) / math.sqrt(1 - g.b[t]) + math.sqrt(s[t]) * z).tolist()

    return step, s


def ancestral_single(p: Chain) -> Any:
    h, s = Ho(p.betas, cast=np.float32), sigma_posterior(p)
    root = np.sqrt(s).astype(np.float32)
    return (
        f32(
            lambda t, x, e, z: col(h.recip_alpha[t - 1], x) * (x - col(h.coef_eps[t - 1], x) * e) + col(root[t], x) * z
        ),
        s,
    )


table(
    "check_ancestral_step",
    lambda made, p: conformance.check_ancestral_step(made[0], p.schedule, made[1]),
    (
        Coding("Ho, through x_0", ancestral_ho),
        Coding("direct, β̃", ancestral_direct),
        Coding("direct, σ_0² = nan", ancestral_nan),
        Coding("score, lists", ancestral_score),
        Coding("float32", ancestral_single, True),
    ),
    CHAINS,
)


# check_ddim_step and check_ddim_sampler


def ddim_song(p: Chain, eta: float) -> Any:
    keep = np.r_[1.0, np.cumprod(1 - p.betas)]

    def step(t: Any, s: Any, x: Any, e: Any, z: Any) -> Any:
        a, b = col(keep[t], x), col(keep[s], x)
        sigma = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
        x0 = (x - np.sqrt(1 - a) * e) / np.sqrt(a)
        return np.sqrt(b) * x0 + np.sqrt(np.maximum(1 - b - sigma**2, 0)) * e + sigma * z

    return step


def ddim_logs(p: Chain, eta: float) -> Any:
    g = Logs(p.betas)

    def step(t: Any, s: Any, x: Any, e: Any, z: Any) -> Any:
        kept = np.asarray([math.fsum(np.log1p(-p.betas[j:i])) for i, j in zip(np.ravel(t), np.ravel(s), strict=True)])
        kept = kept.reshape(np.shape(t))
        ratio, fresh = np.exp(kept), -np.expm1(kept)  # ᾱ_t²/ᾱ_s² and what it lacks
        sigma = eta * np.sqrt(g.vv[s] * fresh / g.vv[t])
        left = g.vv[s] * ((1 - eta**2) + eta**2 * ratio * g.vv[s] / g.vv[t])
        x0 = (x - col(g.bb[t], x) * e) / col(g.ab[t], x)
        return col(g.ab[s], x) * x0 + col(np.sqrt(left), x) * e + col(sigma, x) * z

    return step


def ddim_lucid(p: Chain, eta: float) -> Any:
    keep = [1.0, *itertools.accumulate((1 - p.betas).tolist(), lambda u, v: u * v)]

    def step(t: int, s: int, x: Any, e: Any, z: Any) -> Any:
        alpha, nxt = keep[t], keep[s]
        x0 = x * math.sqrt(1 / alpha) - math.sqrt(1 / alpha - 1) * e
        sigma = eta * math.sqrt((1 - alpha / nxt) * (1 - nxt) / (1 - alpha))
        c = math.sqrt(max(1 - nxt - sigma**2, 0.0))
        return x0 * math.sqrt(nxt) + c * e + sigma * z

    return step


def ddim_diffusers(p: Chain, eta: float) -> Any:
    keep = np.r_[1.0, np.cumprod(1 - p.betas)]

    def step(t: int, s: int, x: Any, e: Any, z: Any) -> Any:
        a, b = keep[t], keep[s]
        variance = (1 - b) / (1 - a) * (1 - a / b)
        std = eta * variance**0.5
        x0 = (x - (1 - a) ** 0.5 * e) / a**0.5
        return b**0.5 * x0 + max(1 - b - std**2, 0) ** 0.5 * e + std * z

    return step


def ddim_sigma(p: Chain, eta: float) -> Any:
    assert eta == 0
    g = Logs(p.betas)
    sigma = np.sqrt(np.expm1(-g.log))

    def step(t: Any, s: Any, x: Any, e: Any, z: Any) -> Any:
        y = x / col(g.ab[t], x)  # Euler's step of dy/dσ = ε
        return col(g.ab[s], x) * (y + col(sigma[s] - sigma[t], x) * e)

    return step


def ddim_single(p: Chain, eta: float) -> Any:
    f = ddim_logs(p, eta)
    return lambda t, s, x, e, z: f(t, s, x.astype(np.float32), e.astype(np.float32), z.astype(np.float32)).astype(
        np.float32
    )


DDIM = (
    ("Song", ddim_song, 0.7),
    ("logs", ddim_logs, 1.0),
    ("like lucidrains", ddim_lucid, 0.5),
    ("like diffusers", ddim_diffusers, 1.0),
    ("Euler in σ", ddim_sigma, 0.0),
    ("rounded to float32", ddim_single, 0.7),
    ("Song", ddim_song, 0.0),
    ("Song", ddim_song, 1.0),
    ("logs", ddim_logs, 0.3),
)


def ddim_codings(use: Callable[[Any, Chain], Any]) -> tuple[Coding, ...]:
    return tuple(
        Coding(
            f"{name}, η = {eta}",
            lambda p, make=make, eta=eta: (use(make(p, eta), p), eta),
            name.endswith("32"),
        )
        for name, make, eta in DDIM
    )


table(
    "check_ddim_step",
    lambda made, p: conformance.check_ddim_step(made[0], p.schedule, made[1]),
    ddim_codings(lambda step, p: step),
    CHAINS,
)


def ddim_loop(step: Any, p: Chain) -> Any:
    def sample(x: Any, eps_hat: Any, noise: Any) -> Any:
        for i, t in enumerate(range(p.T, 0, -1)):
            x = step(t, t - 1, x, eps_hat(x, t), noise[i])
        return x

    return sample


table(
    "check_ddim_sampler",
    lambda made, p: conformance.check_ddim_sampler(made[0], p.schedule, made[1]),
    ddim_codings(ddim_loop),
    CHAINS[:12],
)


# check_sampler

MEAN, VARIANCE = 0.7, 1.3


def sigma_best(p: Chain) -> Any:
    """The variance of x_{t−1} given x_t, for data N(·, VARIANCE)."""
    g = Logs(p.betas)
    out = np.zeros(p.T + 1)
    old = np.exp(g.log[:-1]) * VARIANCE + g.vv[:-1]
    out[1:] = old * g.b[1:] / ((1 - g.b[1:]) * old + g.b[1:])
    return out


def sampler_with(make_step: Any, sigma: Any, batch: bool) -> Any:
    def make(p: Chain) -> Any:
        s = sigma(p)
        step = make_step(p, s)

        def sample(x: Any, eps_hat: Any, noise: Any) -> Any:
            for i in range(p.T):
                t = p.T - i
                x = step(t, x, np.asarray(eps_hat(x, np.full(len(x), t) if batch else t)), noise[i])
            return x

        return sample, s

    return make


def step_direct(p: Chain, s: Any) -> Any:
    h = Ho(p.betas)
    return lambda t, x, e, z: h.recip_alpha[t - 1] * (x - h.coef_eps[t - 1] * e) + math.sqrt(s[t]) * z


def step_x0(p: Chain, s: Any) -> Any:
    h = Ho(p.betas)

    def step(t: int, x: Any, e: Any, z: Any) -> Any:
        x0 = h.recip[t - 1] * x - h.recipm1[t - 1] * e
        return h.coef1[t - 1] * x0 + h.coef2[t - 1] * x + np.exp(0.5 * np.log(s[t])) * z

    return step


def step_stable(p: Chain, s: Any) -> Any:
    g = Logs(p.betas)
    return lambda t, x, e, z: (x - g.b[t] / g.bb[t] * e) / g.a[t] + s[t] ** 0.5 * z


table(
    "check_sampler",
    lambda made, p: conformance.check_sampler(made[0], p.schedule, MEAN, VARIANCE, made[1]),
    (
        Coding("direct, best σ²", sampler_with(step_direct, sigma_best, False)),
        Coding("through x_0, best σ²", sampler_with(step_x0, sigma_best, False)),
        Coding("logs, best σ², t an array", sampler_with(step_stable, sigma_best, True)),
        Coding("logs, β²", sampler_with(step_stable, sigma_beta, False)),
        Coding("direct, β̃²", sampler_with(step_direct, sigma_posterior, False)),
    ),
    CHAINS[:12],
)


# check_predicted_noise


def make_output(p: Chain, D: int) -> Any:
    W = rng(D).standard_normal((D, D)) / math.sqrt(D)
    return lambda x, t, labelled: np.tanh(x @ W) + 0.2 * np.cos(t) + 0.3 * labelled * np.sin(x)


def predicted_from(kind: str, form: str, D: int, p: Chain) -> Any:
    h, g = Ho(p.betas), Logs(p.betas)
    output = make_output(p, D)

    def pair(x: Any, t: int, out: Any) -> Any:
        """x̂_0 and ε̂."""
        a, b = g.ab[t], g.bb[t]
        if form == "ho":
            a, b = h.sqrt_acp[t - 1], h.sqrt_1m_acp[t - 1]
        if kind == "noise":
            return (x - b * out) / a, out
        if kind == "x0":
            return out, (x - a * out) / b
        if kind == "v":
            return a * x - b * out, a * out + b * x
        eps = out * b / math.sqrt(p.betas[t - 1])
        return (x - b * eps) / a, eps

    def predict(x: Any, t: int, guidance: float, clip: bool) -> Any:
        with_label, without = output(x, t, True), output(x, t, False)
        if form == "late":  # guidance of ε̂, not of the output
            eps = (1 - guidance) * pair(x, t, without)[1] + guidance * pair(x, t, with_label)[1]
            x0 = (x - g.bb[t] * eps) / g.ab[t]
        else:
            x0, eps = pair(x, t, without + guidance * (with_label - without))
        if clip:
            eps = (x - g.ab[t] * np.clip(x0, -1, 1)) / g.bb[t]
        return eps

    return predict, output, kind, 2 * rng(D + 1).standard_normal((6, D))


table(
    "check_predicted_noise",
    lambda made, p: conformance.check_predicted_noise(made[0], made[1], p.schedule, made[2], made[3]),
    tuple(
        Coding(f"{kind}, {form}, D = {D}", lambda p, k=kind, f=form, D=D: predicted_from(k, f, D, p))
        for kind, form, D in (
            ("noise", "ho", 1),
            ("x0", "logs", 2),
            ("v", "ho", 3),
            ("step", "logs", 16),
            ("v", "late", 64),
            ("x0", "late", 3),
            ("noise", "late", 2),
        )
    ),
    (*CHAINS[:2], *CHAINS[3:9]),
)


# check_reverse_variance


def variance_ho(p: Chain) -> Any:
    h = Ho(p.betas)

    def variance(name: str) -> Any:
        out = h.betas.copy() if name == "beta" else h.variance.copy()
        if name == "posterior":
            out[0] = h.betas[0]
        return np.append(0.0, out)

    return variance


def variance_clipped_log(p: Chain) -> Any:
    def variance(name: str) -> Any:
        out = sigma_posterior(p) if name == "posterior" else sigma_beta(p)
        out[0] = 1.0
        return np.exp(np.log(out))

    return variance


def variance_precision(p: Chain) -> Any:
    g = Logs(p.betas)

    def variance(name: str) -> Any:
        if name == "beta":
            return [0.0, *p.betas.tolist()]
        return [0.0, p.betas[0], *(1 / ((1 - g.b[t]) / g.b[t] + 1 / g.vv[t - 1]) for t in range(2, p.T + 1))]

    return variance


def variance_single(p: Chain) -> Any:
    return lambda name: variance_precision(p)(name) if name == "" else np.float32(variance_precision(p)(name))


table(
    "check_reverse_variance",
    lambda made, p: conformance.check_reverse_variance(made, p.schedule),
    (
        Coding("Ho", variance_ho),
        Coding("log-variances", variance_clipped_log),
        Coding("precisions, lists", variance_precision),
        Coding("float32", variance_single, True),
    ),
    (*CHAINS[:5], CHAINS[9], CHAINS[11], CHAINS[14]),
)


# check_optimal_variance


def spread(D: int, seed: int = 0) -> Any:
    A = rng(seed + D).standard_normal((D, D + 2))
    return A @ A.T / (D + 2) + 0.1 * np.eye(D)


def optimal_from_x0(p: Chain) -> Any:
    g, D = Logs(p.betas), 3

    def square(loss: Any) -> Any:
        out = np.zeros(p.T + 1)
        # x̂_0 errs by (β̄/ᾱ)² ℓ, and the mean of the posterior by its coefficient times this
        out[1:] = g.tilde[1:] + (g.ab[:-1] * g.b[1:] / g.vv[1:]) ** 2 * (g.vv[1:] / g.ab[1:] ** 2) * loss[1:] / D
        return out

    return square, spread(D)


def optimal_direct(p: Chain) -> Any:
    h, D = Ho(p.betas), 16

    def square(loss: Any) -> Any:
        return np.append(0, h.variance + h.betas**2 / ((1 - h.betas) * (1 - h.acp)) * np.asarray(loss)[1:] / D)

    return square, spread(D)


def optimal_loop(p: Chain) -> Any:
    g = Logs(p.betas)

    def square(loss: Any) -> Any:
        out = [0.0]
        for t in range(1, p.T + 1):
            u = g.b[t] / (g.a[t] * g.bb[t])
            out.append(g.b[t] * g.vv[t - 1] / g.vv[t] + u * u * float(loss[t]))
        return out

    return square, spread(1)


table(
    "check_optimal_variance",
    lambda made, p: conformance.check_optimal_variance(made[0], p.schedule, made[1]),
    (
        Coding("through x̂_0, D = 3", optimal_from_x0),
        Coding("Ho's tables, D = 16", optimal_direct),
        Coding("loop, D = 1", optimal_loop),
    ),
    (*CHAINS[:6], CHAINS[11], CHAINS[14]),
)


# check_step_loss


class StepProblem(NamedTuple):
    name: str
    chain: Chain
    t: int
    sigma2: float
    eps_hat: Any
    single: bool = True


def step_problem(chain: str, t: int, best: bool, net: str) -> StepProblem:
    c = BY_NAME[chain]
    sigma = (sigma_posterior if best else sigma_beta)(c)[t]
    nets = {
        "tanh": lambda x, t: np.tanh(0.5 * x),
        "line": lambda x, t: 0.8 * x - 0.1,
        "sin": lambda x, t: np.sin(x / 2),
    }
    return StepProblem(f"{chain}, t = {t}, {'β̃' if best else 'β'}, {net}", c, t, float(sigma), nets[net])


def step_loss_22(q: StepProblem) -> Any:
    g = Logs(q.chain.betas)

    def loss(t: int, x0: Any, old: Any, new: Any, eps_hat: Any) -> Any:
        before = g.ab[t - 1] * x0 + g.bb[t - 1] * old
        x = g.a[t] * before + math.sqrt(g.b[t]) * new
        mean = (x - g.b[t] / g.bb[t] * eps_hat(x, t)) / g.a[t]
        return -stats.norm.logpdf(before, mean, math.sqrt(q.sigma2)).sum(-1)

    return loss


def step_loss_26(q: StepProblem) -> Any:
    g = Logs(q.chain.betas)

    def loss(t: int, x0: Any, old: Any, new: Any, eps_hat: Any) -> Any:
        x = g.a[t] * (g.ab[t - 1] * x0 + g.bb[t - 1] * old) + g.b[t] ** 0.5 * new
        wrong = new - math.sqrt(g.b[t]) / g.bb[t] * eps_hat(x, t)
        D = x.shape[1]
        return 0.5 * D * math.log(2 * math.pi * q.sigma2) + g.b[t] / (2 * (1 - g.b[t]) * q.sigma2) * (wrong**2).sum(1)

    return loss


def step_loss_29(q: StepProblem) -> Any:
    h = Ho(q.chain.betas)

    def loss(t: int, x0: Any, old: Any, new: Any, eps_hat: Any) -> Any:
        i = t - 1
        eps = (math.sqrt((1 - h.betas[i]) * (1 - h.acp_prev[i])) * old + math.sqrt(h.betas[i]) * new) / h.sqrt_1m_acp[i]
        x = h.sqrt_acp[i] * x0 + h.sqrt_1m_acp[i] * eps
        D = x.shape[-1]
        weight = h.betas[i] ** 2 / (2 * q.sigma2 * (1 - h.betas[i]) * (1 - h.acp[i]))
        wrong = np.einsum("nd,nd->n", eps - eps_hat(x, t), eps - eps_hat(x, t))
        return D / 2 * (LOG_2PI + math.log(q.sigma2)) + D * h.variance[i] / (2 * q.sigma2) + weight * wrong

    return loss


def step_loss_kl(q: StepProblem) -> Any:
    g = Logs(q.chain.betas)

    def loss(t: int, x0: Any, old: Any, new: Any, eps_hat: Any) -> Any:  # E log q + KL, in the posterior of x_{t−1}
        s = t - 1
        x = g.a[t] * (g.ab[s] * x0 + g.bb[s] * old) + np.sqrt(g.b[t]) * new
        estimate = (x - g.bb[t] * eps_hat(x, t)) / g.ab[t]
        c0 = g.ab[s] * g.b[t] / g.vv[t]
        gap = c0 * (x0 - estimate)
        return [0.5 * sum(LOG_2PI + math.log(q.sigma2) + (g.tilde[t] + d * d) / q.sigma2 for d in row) for row in gap]

    return loss


table(
    "check_step_loss",
    lambda made, q: conformance.check_step_loss(made, q.chain.schedule, q.t, q.eps_hat, 0.3, 0.8, q.sigma2),
    (
        Coding("(22)", step_loss_22),
        Coding("(26)", step_loss_26),
        Coding("(29), Ho's tables", step_loss_29),
        Coding("through x̂_0, lists", step_loss_kl),
    ),
    (
        step_problem("Ho, T = 1000", 500, False, "tanh"),
        step_problem("Ho, T = 1000", 1000, True, "sin"),
        step_problem("cosine, T = 50", 50, False, "line"),
        step_problem("cosine, T = 50", 2, True, "tanh"),
        step_problem("1e-8, T = 5", 3, True, "sin"),
        step_problem("0.999, T = 5", 2, False, "sin"),
        step_problem("Ho, T = 1", 1, True, "line"),
        step_problem("constant 0.02, T = 2", 2, True, "tanh"),
    ),
)


# check_bound_terms, check_variational_bound, check_negative_elbo, check_chains


def terms_logs(p: Chain, s: Any) -> Any:
    g = Logs(p.betas)

    def prior(x0: Any) -> Any:
        return 0.5 * (np.exp(g.log[-1]) * x0**2 + g.vv[-1] - 1 - math.log(g.vv[-1])).sum(1)

    def step(t: int, x0: Any, x: Any, eps_hat: Any) -> Any:
        e = (x - g.ab[t] * x0) / g.bb[t]
        gap = g.b[t] / (g.a[t] * g.bb[t]) * (e - eps_hat(x, t))
        ratio = g.tilde[t] / s[t]
        return 0.5 * (ratio - 1 - math.log(ratio) + gap**2 / s[t]).sum(1)

    def reconstruct(x0: Any, x: Any, eps_hat: Any) -> Any:
        mean = (x - g.b[1] / g.bb[1] * eps_hat(x, 1)) / g.a[1]
        return -stats.norm.logpdf(x0, mean, math.sqrt(s[1])).sum(1)

    return prior, step, reconstruct


def terms_ho(p: Chain, s: Any) -> Any:
    h = Ho(p.betas)

    def normal_kl(mean1: Any, logvar1: Any, mean2: Any, logvar2: Any) -> Any:
        return 0.5 * (-1.0 + logvar2 - logvar1 + np.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * np.exp(-logvar2))

    def model(t: int, x: Any, eps_hat: Any) -> Any:
        x0 = h.recip[t - 1] * x - h.recipm1[t - 1] * eps_hat(x, t)
        return h.coef1[t - 1] * x0 + h.coef2[t - 1] * x, math.log(s[t])

    def prior(x0: Any) -> Any:
        return normal_kl(h.sqrt_acp[-1] * x0, np.log(1 - h.acp[-1]), 0.0, 0.0).sum(1)

    def step(t: int, x0: Any, x: Any, eps_hat: Any) -> Any:
        true = h.coef1[t - 1] * x0 + h.coef2[t - 1] * x
        return normal_kl(true, math.log(h.variance[t - 1]), *model(t, x, eps_hat)).sum(-1)

    def reconstruct(x0: Any, x: Any, eps_hat: Any) -> Any:
        mean, log_variance = model(1, x, eps_hat)
        return 0.5 * (LOG_2PI + log_variance + (x0 - mean) ** 2 * math.exp(-log_variance)).sum(1)

    return prior, step, reconstruct


def terms_torch(p: Chain, s: Any) -> Any:
    b = torch.from_numpy(np.r_[0.0, p.betas])
    keep = torch.cumprod(1 - b, 0)
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    s = torch.from_numpy(s)

    def model(t: int, x: Any, eps_hat: Any) -> Any:
        e = torch.from_numpy(np.asarray(eps_hat(x.numpy(), t)))
        return normal((x - b[t] / (1 - keep[t]).sqrt() * e) / (1 - b[t]).sqrt(), s[t].sqrt().expand_as(x))

    def true(t: int, x0: Any, x: Any) -> Any:
        mean = keep[t - 1].sqrt() * b[t] * x0 + (1 - b[t]).sqrt() * (1 - keep[t - 1]) * x
        return normal(mean / (1 - keep[t]), (b[t] * (1 - keep[t - 1]) / (1 - keep[t])).sqrt().expand_as(x))

    def prior(x0: Any) -> Any:
        return kl(normal(keep[-1].sqrt() * x0, (1 - keep[-1]).sqrt().expand_as(x0)), normal(0 * x0, 1.0)).sum(1)

    return (
        in_torch(prior),
        in_torch(lambda t, x0, x, eps_hat: kl(true(t, x0, x), model(t, x, eps_hat)).sum(1)),
        in_torch(lambda x0, x, eps_hat: -model(1, x, eps_hat).log_prob(x0).sum(1)),
    )


TERMS = (
    ("logs", terms_logs, sigma_beta),
    ("Ho's normal_kl", terms_ho, sigma_posterior),
    ("logs", terms_logs, sigma_posterior),
    ("Ho's normal_kl", terms_ho, sigma_best),
    *((("torch.distributions", terms_torch, sigma_best),) if torch is not None else ()),
)


def terms_codings() -> Iterator[Coding]:
    for (name, make, sigma), D in zip(TERMS, (2, 3, 16, 64, 2), strict=False):
        yield Coding(f"{name}, {sigma.__name__[6:]} σ², D = {D}", lambda p, m=make, s=sigma, D=D: (m(p, s(p)), s(p), D))


def bound_terms_call(made: Any, p: Chain) -> Check:
    (prior, step, reconstruct), s, D = made
    g = rng(3)
    return conformance.check_bound_terms(
        prior,
        step,
        reconstruct,
        p.schedule,
        g.standard_normal((4, D)),
        g.standard_normal((4, D)),
        lambda x, t: 0.6 * np.tanh(x) + 0.1,
        s,
    )


table(
    "check_bound_terms",
    bound_terms_call,
    tuple(terms_codings()),
    (CHAINS[15], *MIDDLE[1:]),
)


def bound_from(make: Any, sigma: Any, reverse: bool, total: bool) -> Any:
    def of(p: Chain) -> Any:
        s = sigma(p)
        g = Logs(p.betas)
        prior, step, reconstruct = make(p, s)

        def bound(x0: Any, eps_hat: Any, noise: Any) -> Any:
            x = [None, *(g.ab[t] * x0 + g.bb[t] * noise[t - 1] for t in range(1, p.T + 1))]
            out = [reconstruct(x0, x[1], eps_hat)]
            out += [step(t, x0, x[t], eps_hat) for t in range(2, p.T + 1)]
            out.append(prior(x0))
            if total:
                return np.sum(out, axis=0)
            return np.stack(out[::-1] if reverse else out, axis=1)

        return bound, s

    return of


class LinearProblem(NamedTuple):
    name: str
    chain: Chain
    D: int
    single: bool = True

    @property
    def parts(self) -> Any:
        g, D, T = rng(self.D), self.D, self.chain.T
        A = 0.5 * np.eye(D) + 0.2 * g.standard_normal((T + 1, D, D)) / math.sqrt(D)
        return g.standard_normal(D), spread(D), A, 0.3 * g.standard_normal((T + 1, D))


LINEAR = tuple(
    LinearProblem(f"{name}, D = {D}", BY_NAME[name], D)
    for name, D in (
        ("Ho, T = 5", 2),
        ("0.999, T = 5", 3),
        ("constant 0.02, T = 2", 1),
        ("1e-8, T = 5", 2),
        ("1e-8 to 0.9, T = 5", 3),
        ("Ho, T = 1", 16),
        ("cosine, T = 50", 2),
    )
)


def variational_call(made: Any, p: LinearProblem) -> Check:
    mean, covariance, A, b = p.parts
    return conformance.check_variational_bound(made[0], p.chain.schedule, mean, covariance, A, b, made[1])


def lifted(make: Any) -> Any:
    return lambda p: make(p.chain)


table(
    "check_variational_bound",
    variational_call,
    (
        Coding("logs, sum, β²", lifted(bound_from(terms_logs, sigma_beta, False, True))),
        Coding("Ho, terms, β̃²", lifted(bound_from(terms_ho, sigma_posterior, False, False))),
        Coding("logs, terms in reverse, best σ²", lifted(bound_from(terms_logs, sigma_best, True, False))),
    ),
    LINEAR,
)


def negative_logs(p: LinearProblem, sigma: Any = sigma_beta) -> Any:
    g, s = Logs(p.chain.betas), sigma(p.chain)

    def negative(loss: Any, second: float, D: int) -> float:
        total = 0.5 * (math.exp(g.log[-1]) * second + D * (g.vv[-1] - 1 - math.log(g.vv[-1])))
        for t in range(2, p.chain.T + 1):
            ratio = g.tilde[t] / s[t]
            total += 0.5 * D * (ratio - 1 - math.log(ratio))
            total += 0.5 * (g.b[t] / (g.a[t] * g.bb[t])) ** 2 / s[t] * loss[t]
        return total + 0.5 * D * math.log(2 * math.pi * s[1]) + 0.5 * g.b[1] / ((1 - g.b[1]) * s[1]) * loss[1]

    return negative, s


def negative_entropies(p: LinearProblem) -> Any:
    h, s = Ho(p.chain.betas), sigma_posterior(p.chain)

    def negative(loss: Any, second: float, D: int) -> float:  # (21): three cross-entropies less that of the chain
        v = s[1:]
        last = 0.5 * D * LOG_2PI + 0.5 * (h.acp[-1] * second + D * (1 - h.acp[-1]))
        steps = 0.5 * D * np.log(2 * np.pi * v) + 0.5 * D * h.variance / v
        steps += 0.5 * h.betas**2 / ((1 - h.betas) * (1 - h.acp) * v) * np.asarray(loss)[1:]
        return last + steps.sum() - 0.5 * D * np.log(2 * np.pi * np.e * h.betas).sum()

    return negative, s


def negative_call(made: Any, p: LinearProblem) -> Check:
    mean, covariance, A, b = p.parts
    return conformance.check_negative_elbo(made[0], p.chain.schedule, mean, covariance, A, b, made[1])


table(
    "check_negative_elbo",
    negative_call,
    (
        Coding("divergences, β²", negative_logs),
        Coding("cross-entropies, β̃²", negative_entropies),
        Coding("divergences, best σ²", lambda p: negative_logs(p, sigma_best)),
    ),
    LINEAR,
)


def chains_logpdf(p: Chain) -> Any:
    s = sigma_beta(p)
    g = Logs(p.betas)

    def forward(path: Any) -> Any:
        return sum(
            stats.norm.logpdf(path[t], g.a[t] * path[t - 1], math.sqrt(g.b[t])).sum(1) for t in range(1, p.T + 1)
        )

    def reverse(path: Any, eps_hat: Any) -> Any:
        out = stats.norm.logpdf(path[-1]).sum(1)
        for t in range(1, p.T + 1):
            mean = (path[t] - g.b[t] / g.bb[t] * eps_hat(path[t], t)) / g.a[t]
            out = out + stats.norm.logpdf(path[t - 1], mean, math.sqrt(s[t])).sum(1)
        return out

    return forward, reverse, s


def chains_einsum(p: Chain) -> Any:
    s = sigma_best(p)
    h = Ho(p.betas)

    def forward(path: Any) -> Any:
        r = (path[1:] - np.sqrt(1 - h.betas)[:, None, None] * path[:-1]) / np.sqrt(h.betas)[:, None, None]
        D = path.shape[2]
        return -0.5 * np.einsum("tnd,tnd->n", r, r) - 0.5 * D * np.log(2 * np.pi * h.betas).sum()

    def reverse(path: Any, eps_hat: Any) -> Any:
        eps = np.stack([eps_hat(path[t], t) for t in range(1, p.T + 1)])
        x0 = h.recip[:, None, None] * path[1:] - h.recipm1[:, None, None] * eps
        r = path[:-1] - (h.coef1[:, None, None] * x0 + h.coef2[:, None, None] * path[1:])
        D = path.shape[2]
        first = -0.5 * (path[-1] ** 2).sum(1) - 0.5 * D * LOG_2PI
        return first - 0.5 * np.einsum("tnd,t->n", r**2, 1 / s[1:]) - 0.5 * D * np.log(2 * np.pi * s[1:]).sum()

    return forward, reverse, s


def chains_call(made: Any, p: Chain) -> Check:
    forward, reverse, s = made
    g, h = rng(p.T), Logs(p.betas)
    D = 2 if p.T > 5 else 3
    path = [g.standard_normal((3, D))]
    for t in range(1, p.T + 1):
        path.append(h.a[t] * path[-1] + math.sqrt(h.b[t]) * g.standard_normal((3, D)))
    slopes = np.r_[0.0, np.linspace(0.2, 0.9, p.T)]
    return conformance.check_chains(forward, reverse, p.schedule, np.stack(path), slopes, s)


table(
    "check_chains",
    chains_call,
    (Coding("norm.logpdf, β²", chains_logpdf), Coding("einsum, best σ²", chains_einsum)),
    (*CHAINS[:8], CHAINS[11], CHAINS[14]),
)


# check_loss_weights, check_step_draws


def weights_logs(p: Chain) -> Any:
    g, s = Logs(p.betas), sigma_posterior(p)

    def weights(name: str) -> Any:
        out = np.zeros(p.T + 1)
        snr = g.ab[1:] ** 2 / g.vv[1:]
        out[1:] = {
            "simple": np.ones(p.T),
            "x0": 1 / snr,
            "v": 1 / snr + 1,
            "min-snr": np.minimum(snr, 5) / snr,
            "bound": p.T * g.b[1:] ** 2 / (2 * s[1:] * (1 - g.b[1:]) * g.vv[1:]),
        }[name]
        return out

    return weights, s


def weights_ho(p: Chain) -> Any:
    h, s = Ho(p.betas), sigma_beta(p)

    def weights(name: str) -> Any:
        snr = [a / (1 - a) for a in h.acp]
        if name == "simple":
            out = [1.0] * p.T
        elif name == "x0":
            out = [1 / r for r in snr]
        elif name == "v":
            out = [1 / a for a in h.acp]
        elif name == "min-snr":
            out = [min(r, 5) / r for r in snr]
        else:
            out = [p.T * b / (2 * (1 - b) * (1 - a)) for a, b in zip(h.acp, h.betas, strict=True)]
        return [0.0, *out]

    return weights, s


table(
    "check_loss_weights",
    lambda made, p: conformance.check_loss_weights(made[0], p.schedule, made[1]),
    (Coding("logs, β̃²", weights_logs), Coding("Ho's tables, lists", weights_ho)),
    (CHAINS[0], CHAINS[2], CHAINS[4], CHAINS[5], CHAINS[7], CHAINS[9]),
)


class Draws(NamedTuple):
    name: str
    T: int
    n: int
    single: bool = True


def draw_even(q: Draws) -> Any:
    def draw(u: float) -> Any:
        v = (np.arange(q.n) + u) / q.n
        return np.minimum((v * q.T).astype(int), q.T - 1) + 1, np.ones(q.n)

    return draw


def draw_wrapped(q: Draws) -> Any:
    def draw(u: float) -> Any:
        v = (u + np.arange(q.n) / q.n) % 1.0
        return [1 + math.floor(x * q.T) for x in v], [1.0] * q.n

    return draw


def draw_importance(q: Draws) -> Any:
    law = 1.0 + np.arange(q.T) % 3
    law /= law.sum()

    def draw(u: float) -> Any:
        v = (np.arange(q.n) + u) / q.n
        i = np.minimum(np.searchsorted(np.cumsum(law), v, side="right"), q.T - 1)
        return i + 1, 1 / (q.T * law[i])

    return draw


def draw_antithetic(q: Draws) -> Any:
    def draw(u: float) -> Any:  # t and T + 1 − t
        t = int(u * q.T) + 1
        return np.array([t, q.T + 1 - t]), np.ones(2)

    return draw


table(
    "check_step_draws",
    lambda made, q: conformance.check_step_draws(made, q.T),
    (
        Coding("stratified", draw_even),
        Coding("a shift, modulo 1", draw_wrapped),
        Coding("importance", draw_importance),
        Coding("antithetic", draw_antithetic),
    ),
    (
        Draws("T = 5, n = 4", 5, 4),
        Draws("T = 50, n = 7", 50, 7),
        Draws("T = 1, n = 3", 1, 3),
        Draws("T = 50, n = 1", 50, 1),
        Draws("T = 1000, n = 16", 1000, 16),
        Draws("T = 2, n = 64", 2, 64),
    ),
)


# check_loss_of, check_bound_of, check_sampler_of: the code's own network


class Own(NamedTuple):
    name: str
    chain: Chain
    D: int
    kind: str = "noise"
    single: bool = True


def own_network(D: int, T: int, dtype: Any = np.float64) -> Any:
    g = rng(100 + D)
    W, V = (g.standard_normal((D, D)) / math.sqrt(D) for _ in range(2))
    W, V = W.astype(dtype), V.astype(dtype)

    def net(x: Any, t: Any) -> Any:
        x = np.asarray(x, dtype)
        return np.tanh(x @ W + col(np.asarray(t, dtype) / dtype(T), x)) @ V + dtype(0.3) * x

    return net


OWN = (
    Own("Ho, T = 1000, D = 2", BY_NAME["Ho, T = 1000"], 2),
    Own("cosine, T = 50, D = 3, v", BY_NAME["cosine, T = 50"], 3, "v"),
    Own("1e-8, T = 5, D = 16", BY_NAME["1e-8, T = 5"], 16),
    Own("0.999, T = 5, D = 1, x0", BY_NAME["0.999, T = 5"], 1, "x0"),
    Own("EDM's σ, T = 50, D = 64", BY_NAME["EDM's σ, T = 50"], 64),
    Own("sigmoid, T = 50, D = 2, step", BY_NAME["sigmoid, T = 50"], 2, "step"),
)


def loss_of(q: Own, dtype: Any, batch_mean: bool, over: str) -> Check:
    h = Ho(q.chain.betas)
    ab, bb = (np.r_[z, v].astype(dtype) for z, v in ((1, h.sqrt_acp), (0, h.sqrt_1m_acp)))
    net = own_network(q.D, q.chain.T, dtype)
    weight = 1 + np.arange(q.chain.T + 1) % 4

    def loss(t: Any, x0: Any, noise: Any) -> Any:
        x0, noise = x0.astype(dtype), noise.astype(dtype)
        a, b = ab[t][:, None], bb[t][:, None]
        target = {
            "noise": noise,
            "x0": x0,
            "v": a * noise - b * x0,
            "step": noise * (np.sqrt(np.r_[0, q.chain.betas]).astype(dtype)[t][:, None] / b),
        }[q.kind]
        square = (target - net(a * x0 + b * noise, t)) ** 2
        out = weight[t].astype(dtype) * (square.sum(1) if over == "sum" else square.mean(1))
        return out.mean() if batch_mean else out

    def network(x: Any, t: int) -> Any:
        return net(x, t)

    g = rng(5)
    x0, noise = g.standard_normal((4, q.D)), g.standard_normal((4, q.D))
    return conformance.check_loss_of(
        loss, network, x0, noise, q.chain.schedule, prediction=q.kind, weight=weight.astype(float), reduction=over
    )


for own, (dtype, batch_mean, over) in zip(
    OWN,
    itertools.cycle(((np.float64, False, "sum"), (np.float64, True, "mean"), (np.float32, True, "sum"))),
    strict=False,
):
    add(
        "check_loss_of",
        f"{dtype.__name__}, mean over the batch {batch_mean}, {over}; {own.name}",
        lambda q=own, d=dtype, m=batch_mean, o=over: loss_of(q, d, m, o),
    )


def bound_of(q: Own, make: Any, variance: Any, total: bool, levels: int | None = None) -> Check:
    net = own_network(q.D, q.chain.T)
    s = (sigma_beta if variance == "beta" else sigma_posterior)(q.chain)
    inner, _ = bound_from(make, lambda p: s, False, False)(q.chain)
    g, tables = rng(6), Logs(q.chain.betas)
    x0 = 2 * g.integers(0, levels, (3, q.D)) / (levels - 1) - 1 if levels else g.standard_normal((3, q.D))

    def bound(x0: Any, noise: Any) -> Any:
        out = inner(x0, net, noise)
        if levels:
            x1 = tables.ab[1] * x0 + tables.bb[1] * noise[0]
            mean = (x1 - tables.b[1] / tables.bb[1] * net(x1, 1)) / tables.a[1]
            out[:, 0] = -log_bin(np.round((x0 + 1) / 2 * (levels - 1)), mean, math.sqrt(s[1]), levels).sum(1)
        return out.sum(1) if total else out

    noise = g.standard_normal((q.chain.T, 3, q.D))
    return conformance.check_bound_of(bound, net, x0, noise, q.chain.schedule, variance=variance, n_levels=levels)


def log_bin(level: Any, mean: Any, std: float, n: int) -> Any:
    """log of Φ(upper) − Φ(lower), from the side on which it does not cancel."""
    half = 1 / (n - 1)
    centre = 2 * level * half - 1
    upper = np.where(level == n - 1, np.inf, (centre + half - mean) / std)
    lower = np.where(level == 0, -np.inf, (centre - half - mean) / std)
    flip = lower > 0
    upper, lower = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    big, small = special.log_ndtr(upper), special.log_ndtr(lower)
    return big + np.log(-np.expm1(np.minimum(small - big, -1e-300)))


for own, make, variance, total, levels in (
    (OWN[0], terms_logs, "beta", True, None),
    (OWN[1], terms_ho, "posterior", False, None),
    (OWN[2], terms_logs, "posterior", False, None),
    (OWN[3], terms_ho, "beta", True, None),
    (OWN[4], terms_logs, "beta", False, 256),
    (OWN[5], terms_ho, "posterior", True, 17),
):
    add(
        "check_bound_of",
        f"{make.__name__[6:]}, {variance}, {'sum' if total else 'terms'}, levels {levels}; {own.name}",
        lambda q=own, m=make, v=variance, t=total, n=levels: bound_of(q, m, v, t, n),
    )


def sampler_of(q: Own, eta: float | None, last: bool, path: bool, dtype: Any, form: Any) -> Check:
    net = own_network(q.D, q.chain.T, dtype)
    s = sigma_posterior(q.chain)
    s[1] = s[1] if last else 0.0
    step = ddim_song(q.chain, eta) if eta is not None else form(q.chain, s)

    def sample(x: Any, noise: Any) -> Any:
        out = [x.astype(dtype)]
        for i, t in enumerate(range(q.chain.T, 0, -1)):
            z = noise[i].astype(dtype)
            eps = net(out[-1], t)
            new = step(t, out[-1], eps, z * (last or t > 1)) if eta is None else step(t, t - 1, out[-1], eps, z)
            out.append(np.asarray(new).astype(dtype))
        return np.stack(out) if path else out[-1]

    g = rng(7)
    return conformance.check_sampler_of(
        sample,
        net,
        g.standard_normal((3, q.D)),
        g.standard_normal((q.chain.T, 3, q.D)),
        q.chain.schedule,
        variance="posterior",
        eta=eta,
        last_noise=last,
    )


for own, eta, last, path, dtype, form in (
    (OWN[0], None, False, False, np.float64, step_direct),
    (OWN[1], 0.0, True, True, np.float64, None),
    (OWN[2], None, True, True, np.float64, step_stable),
    (OWN[3], 1.0, True, False, np.float64, None),
    (OWN[4], None, False, False, np.float32, step_direct),
    (OWN[5], 0.5, True, True, np.float64, None),
):
    add(
        "check_sampler_of",
        f"{dtype.__name__}, η {eta}, last noise {last}, path {path}; {own.name}",
        lambda q=own, e=eta, la=last, p=path, d=dtype, f=form: sampler_of(q, e, la, p, d, f),
    )


# Processes in continuous time


class Flow(LinearSDE):
    """Flow matching, x = (1 − t) x_0 + t ε."""

    def __init__(self, horizon: float = 0.95) -> None:
        self.horizon = horizon

    def rate(self, t: Any) -> Any:
        return -1 / (1 - np.asarray(t, float))

    def log_scale(self, t: Any) -> Any:
        return np.log1p(-np.asarray(t, float))

    def std(self, t: Any) -> Any:
        return np.asarray(t, float) * 1.0

    def diffusion(self, t: Any) -> Any:
        t = np.asarray(t, float)
        return np.sqrt(2 * t / (1 - t))

    def time_at(self, log_snr: Any) -> Any:
        return special.expit(-np.asarray(log_snr, float) / 2)


class Process(NamedTuple):
    name: str
    sde: Any
    single: bool = True


PROCESSES = (
    Process("VP", VP()),
    Process("sub-VP, horizon 2", SubVP(0.1, 5.0, 2.0)),
    Process("VE", VE(0.01, 50.0)),
    Process("EDM", EDM(80.0)),
    Process("flow matching", Flow()),
    Process("VP, horizon 3", VP(0.2, 4.0, 3.0)),
)


def own_marginal(sde: Any) -> Any:
    """Scale and std in formulas of our own."""
    if isinstance(sde, VP):

        def marginal(t: Any) -> Any:
            B = sde.beta_min * t + (sde.beta_max - sde.beta_min) * t**2 / (2 * sde.horizon)
            std = -np.expm1(-B)
            return np.exp(-B / 2), std if isinstance(sde, SubVP) else np.sqrt(std)
    elif isinstance(sde, VE):

        def marginal(t: Any) -> Any:
            r = math.log(sde.sigma_max / sde.sigma_min) / sde.horizon
            return np.ones_like(t * 1.0), sde.sigma_min * np.sqrt(np.expm1(2 * r * t))
    elif isinstance(sde, Flow):

        def marginal(t: Any) -> Any:
            return 1.0 - t, 1.0 * t
    else:

        def marginal(t: Any) -> Any:
            return np.ones_like(t * 1.0), t * 1.0

    return marginal


def own_f_g2(sde: Any) -> Any:
    """f(t) and g(t)²."""
    if isinstance(sde, VP):

        def rates(t: Any) -> Any:
            beta = sde.beta_min + (sde.beta_max - sde.beta_min) * t / sde.horizon
            B = sde.beta_min * t + (sde.beta_max - sde.beta_min) * t**2 / (2 * sde.horizon)
            return -beta / 2, beta * (-np.expm1(-2 * B) if isinstance(sde, SubVP) else 1)
    elif isinstance(sde, VE):

        def rates(t: Any) -> Any:
            r = math.log(sde.sigma_max / sde.sigma_min) / sde.horizon
            return 0.0 * t, 2 * r * sde.sigma_min**2 * np.exp(2 * r * t)
    elif isinstance(sde, Flow):

        def rates(t: Any) -> Any:
            return -1 / (1 - t), 2 * t / (1 - t)
    else:

        def rates(t: Any) -> Any:
            return 0.0 * t, 2.0 * t

    return rates


def sde_functions(sde: Any) -> Any:
    rates = own_f_g2(sde)
    return own_marginal(sde), lambda x, t: col(rates(t)[0], x) * x, lambda t: np.sqrt(rates(t)[1])


def sde_single_numbers(sde: Any) -> Any:
    marginal = own_marginal(sde)
    return (
        lambda t: tuple(float(v) for v in marginal(float(t))),
        lambda x, t: (float(own_f_g2(sde)(float(t))[0]) * x).tolist(),
        lambda t: math.sqrt(own_f_g2(sde)(float(t))[1]),
    )


for p in PROCESSES:
    add("check_sde", f"own formulas; {p.name}", lambda s=p.sde: conformance.check_sde(*sde_functions(s), s.horizon))
for p in PROCESSES[1:4]:
    add(
        "check_sde",
        f"numbers only, lists; {p.name}",
        lambda s=p.sde: conformance.check_sde(*sde_single_numbers(s), s.horizon),
    )


def ve_song(sigma_min: float, sigma_max: float) -> Any:
    r = math.log(sigma_max / sigma_min)
    return (
        lambda t: (np.ones_like(t * 1.0), sigma_min * np.exp(r * t)),
        lambda x, t: np.zeros_like(x),
        lambda t: sigma_min * np.exp(r * t) * math.sqrt(2 * r),
    )


def vp_cosine() -> Any:
    def scale(t: Any) -> Any:
        return np.cos(np.pi * t / 2)

    return (
        lambda t: (scale(t), np.sin(np.pi * t / 2)),
        lambda x, t: col(-np.pi / 2 * np.tan(np.pi * t / 2), x) * x,
        lambda t: np.sqrt(np.pi * np.tan(np.pi * t / 2)),
    )


def ornstein() -> Any:
    return lambda t: (np.exp(-t), np.sqrt(-np.expm1(-2 * t))), lambda x, t: -x, lambda t: np.sqrt(2.0) + 0 * t


def vp_from_level() -> Any:  # scale² + std² = 1 from a first level of noise on, as VDM with γ_0 = −10
    keep = special.expit(10.0)

    def marginal(t: Any) -> Any:
        decay = keep * np.exp(-2.0 * t)
        return np.sqrt(decay), np.sqrt(1 - decay)

    return marginal, lambda x, t: -x, lambda t: math.sqrt(2.0) + 0.0 * t


def edm_vp_like() -> Any:  # horizon 1000, as time steps
    return (
        lambda t: (np.exp(-((t / 1000) ** 2)), np.sqrt(-np.expm1(-2 * (t / 1000) ** 2))),
        lambda x, t: col(-2 * t / 1e6, x) * x,
        lambda t: np.sqrt(4 * t / 1e6),
    )


for name, functions, horizon in (
    ("VE, std(0) = σ_min = 0.01", lambda: ve_song(0.01, 50.0), 1.0),
    ("VE, std(0) = σ_min = 1e-4, σ_max = 300", lambda: ve_song(1e-4, 300.0), 1.0),
    ("cosine VP", vp_cosine, 1.0),
    ("Ornstein-Uhlenbeck, horizon 2", ornstein, 2.0),
    ("VP from a level of log-SNR 10", vp_from_level, 3.0),
    ("VP with β ∝ t, horizon 1000", edm_vp_like, 1000.0),
):
    add("check_sde", name, lambda f=functions, h=horizon: conformance.check_sde(*f(), h))


def steps_by_scale(sde: Any, T: int) -> Any:
    t = np.linspace(0, sde.horizon, T + 1)
    return -np.expm1(2 * np.diff(np.log(own_marginal(sde)(t)[0])))


def steps_by_mean(sde: Any, T: int) -> Any:  # β is linear, so that its mean over a step is in the middle
    h = sde.horizon / T
    middle = [(i + 0.5) * h for i in range(T)]
    return [-math.expm1(-h * (sde.beta_min + (sde.beta_max - sde.beta_min) * t / sde.horizon)) for t in middle]


def steps_by_quad(sde: Any, T: int) -> Any:
    edges = np.linspace(0, sde.horizon, T + 1)
    return [1 - math.exp(-integrate.quad(sde.beta, a, b, epsabs=1e-16)[0]) for a, b in itertools.pairwise(edges)]


for make, sde, T in (
    (steps_by_mean, VP(), 1000),
    (steps_by_scale, VP(), 50),
    (steps_by_quad, VP(0.2, 4.0, 3.0), 5),
    (steps_by_mean, VP(0.2, 4.0, 3.0), 4000),
    (steps_by_scale, VP(1.0, 1.0, 2.0), 1),
    (steps_by_mean, VP(0.0, 2.0, 1.0), 2),
):
    add(
        "check_discretisation",
        f"{make.__name__}, T = {T}, {sde}",
        lambda m=make, s=sde, T=T: conformance.check_discretisation(m(s, T), s),
    )
add(
    "check_discretisation",
    "float32, T = 50, VP()",
    lambda: conformance.check_discretisation(np.float32(steps_by_mean(VP(), 50)), VP()),
    single=True,
)


def gaussian_score(sde: Any, mean: Any, covariance: Any, form: str) -> Any:
    marginal = own_marginal(sde)
    mean = np.atleast_1d(np.asarray(mean, float))
    covariance = np.asarray(covariance, float)
    values, vectors = np.linalg.eigh(covariance)

    def score(x: Any, t: Any) -> Any:
        scale, std = marginal(t)
        if form == "eigh":
            scale, std = np.reshape(scale, (-1, 1)), np.reshape(std, (-1, 1))
            return -((x - scale * mean) @ vectors / (scale**2 * values + std**2)) @ vectors.T
        if np.ndim(t):
            return np.concatenate([score(x[i : i + 1], t[i]) for i in range(len(x))])
        C = scale**2 * covariance + std**2 * np.eye(len(mean))
        return -np.linalg.solve(C, (x - scale * mean).T).T

    return score


def reverse_sde_case(sde: Any, D: int, lam: float, form: str) -> Check:
    rates = own_f_g2(sde)
    mean, covariance = rng(D).standard_normal(D), spread(D)
    score = gaussian_score(sde, mean, covariance, form)

    def drift(x: Any, t: Any) -> Any:
        f, g2 = rates(t)
        return col(f, x) * x - col(0.5 * (1 + lam**2) * g2, x) * score(x, t)

    return conformance.check_reverse_sde(drift, lambda t: lam * np.sqrt(rates(t)[1]), sde, mean, covariance, lam)


for p, D, lam, form in zip(
    PROCESSES,
    (1, 2, 3, 16, 2, 64),
    (0.0, 1.0, 0.5, 1.0, 0.0, 1.0),
    ["eigh", "solve", "eigh", "eigh", "eigh", "eigh"],
    strict=True,
):
    add(
        "check_reverse_sde",
        f"{form}, λ = {lam}, D = {D}; {p.name}",
        lambda s=p.sde, D=D, la=lam, f=form: reverse_sde_case(s, D, la, f),
    )


def reverse_step_case(sde: Any, D: int, lam: float, scheme: str) -> Check:
    rates, marginal = own_f_g2(sde), own_marginal(sde)
    mean = rng(D).standard_normal(D)
    variance = 0.5 + np.arange(D) / 3

    def score(x: Any, t: float) -> Any:
        scale, std = marginal(t)
        return -(x - scale * mean) / (scale**2 * variance + std**2)

    def euler(x: Any, t: float, s: float, z: Any) -> Any:
        f, g2 = rates(t)
        return x + (f * x - 0.5 * (1 + lam**2) * g2 * score(x, t)) * (s - t) + lam * np.sqrt(g2 * (t - s)) * z

    def semilinear(x: Any, t: float, s: float, z: Any) -> Any:  # the linear part by the ratio of the scales
        _, g2 = rates(t)
        ratio = marginal(s)[0] / marginal(t)[0]
        push = 0.5 * (1 + lam**2) * g2 * score(x, t) * (t - s)
        return ratio * (x + push + lam * np.sqrt(g2 * (t - s)) * z)

    def ancestral(x: Any, t: float, s: float, z: Any) -> Any:  # DDIM's step with ε̂ = −std · score
        (a, b), (c, d) = marginal(t), marginal(s)
        eps = -b * score(x, t)
        x0 = (x - b * eps) / a
        sigma2 = lam**2 * d**2 / b**2 * (b**2 - (a * d / c) ** 2)
        first = (a * d / c) ** 2 / b**2  # (share of the variance that stays)
        keep = d**2 * (1 - lam**2 * (1 - first))
        return c * x0 + np.sqrt(keep) * eps + np.sqrt(sigma2) * z

    step = {"Euler": euler, "semi-linear": semilinear, "DDIM": ancestral}[scheme]
    return conformance.check_reverse_step(step, sde, mean, variance, lam)


for p, D, lam, scheme in (
    (PROCESSES[0], 2, 1.0, "Euler"),
    (PROCESSES[1], 1, 0.0, "Euler"),
    (PROCESSES[3], 3, 1.0, "Euler"),
    (PROCESSES[2], 16, 0.5, "Euler"),
    (PROCESSES[0], 2, 1.0, "semi-linear"),
    (PROCESSES[4], 2, 0.0, "semi-linear"),
    (PROCESSES[5], 1, 0.0, "DDIM"),
    (PROCESSES[0], 3, 1.0, "DDIM"),
):
    add(
        "check_reverse_step",
        f"{scheme}, λ = {lam}, D = {D}; {p.name}",
        lambda s=p.sde, D=D, la=lam, sc=scheme: reverse_step_case(s, D, la, sc),
    )


def own_score(x: Any, t: Any) -> Any:
    return -np.tanh(x) / (0.5 + t) + 0.1 * np.cos(x[:, ::-1])


def falling(sde: Any, n: int, kind: str) -> Any:
    if kind == "even":
        return np.linspace(sde.horizon, 0.02 * sde.horizon, n + 1)
    if kind == "Karras":
        low, high = (1e-3 * sde.horizon) ** (1 / 7), sde.horizon ** (1 / 7)
        return (high + np.linspace(0, 1, n + 1) * (low - high)) ** 7
    return np.geomspace(sde.horizon, 1e-3 * sde.horizon, n + 1)


def reverse_sampler_case(sde: Any, n: int, lam: float, corrections: int, kind: str) -> Check:
    rates, marginal = own_f_g2(sde), own_marginal(sde)
    snr = 0.16

    def sample(x: Any, times: Any, noise: Any) -> Any:
        for i, (t, s) in enumerate(itertools.pairwise(map(float, times))):
            z = noise[i] if corrections else noise[i][None]
            f, g2 = rates(t)
            drift = f * x - 0.5 * (1 + lam**2) * g2 * own_score(x, t)
            x = x - drift * (t - s) + lam * math.sqrt(g2) * math.sqrt(t - s) * z[0]
            for j in range(corrections):
                delta = 2 * (snr * marginal(s)[1]) ** 2
                x = x + delta * own_score(x, s) + np.sqrt(2 * delta) * z[1 + j]
        return x

    return conformance.check_reverse_sampler(sample, own_score, sde, falling(sde, n, kind), lam, corrections, snr)


for p, n, lam, corrections, kind in (
    (PROCESSES[0], 50, 1.0, 0, "even"),
    (PROCESSES[1], 5, 0.5, 1, "geometric"),
    (PROCESSES[2], 18, 1.0, 2, "even"),
    (PROCESSES[3], 18, 0.0, 0, "Karras"),
    (PROCESSES[4], 1, 1.0, 1, "even"),
    (PROCESSES[5], 1000, 1.0, 0, "even"),
):
    add(
        "check_reverse_sampler",
        f"λ = {lam}, {corrections} corrections, {n} {kind} steps; {p.name}",
        lambda s=p.sde, n=n, la=lam, c=corrections, k=kind: reverse_sampler_case(s, n, la, c, k),
    )


def heun_case(sde: Any, n: int, kind: str, form: str) -> Check:
    rates = own_f_g2(sde)

    def slope(x: Any, t: float) -> Any:
        f, g2 = rates(t)
        return f * x - 0.5 * g2 * own_score(x, t)

    def denoised_slope(x: Any, t: float) -> Any:  # (x − D(x; σ))/σ of Karras et al.
        return (x - (x + t**2 * own_score(x, t))) / t

    d = denoised_slope if form == "EDM" else slope

    def sample(x: Any, times: Any) -> Any:
        for t, s in itertools.pairwise(map(float, times)):
            first = d(x, t)
            y = x + (s - t) * first
            x = x + (s - t) * (0.5 * first + 0.5 * d(y, s))
        return x

    return conformance.check_heun(sample, own_score, sde, falling(sde, n, kind))


for p, n, kind, form in (
    (PROCESSES[0], 50, "even", "plain"),
    (PROCESSES[3], 18, "Karras", "EDM"),
    (PROCESSES[1], 5, "geometric", "plain"),
    (PROCESSES[4], 2, "even", "plain"),
    (PROCESSES[2], 1, "even", "plain"),
):
    add("check_heun", f"{form}, {n} {kind} steps; {p.name}", lambda s=p.sde, n=n, k=kind, f=form: heun_case(s, n, k, f))


def langevin_case(sde: Any, variance: Any, snr: float, dtype: Any) -> Check:
    marginal = own_marginal(sde)

    def step(x: Any, t: float, z: Any) -> Any:
        delta = 2 * (snr * marginal(t)[1]) ** 2
        x, z = x.astype(dtype), z.astype(dtype)
        return (x - dtype(delta) * x / np.asarray(variance, dtype) + dtype(2 * delta) ** 0.5 * z).tolist()

    return conformance.check_langevin_step(step, sde, variance, snr)


for p, variance, snr, dtype in (
    (PROCESSES[0], 1.0, 0.16, np.float64),
    (PROCESSES[1], [0.5, 1.0, 2.0], 0.05, np.float64),
    (PROCESSES[3], 2500.0, 0.1, np.float64),
    (PROCESSES[4], 0.3, 0.2, np.float32),
):
    add(
        "check_langevin_step",
        f"{dtype.__name__}, snr {snr}; {p.name}",
        lambda s=p.sde, v=variance, r=snr, d=dtype: langevin_case(s, v, r, d),
        single=dtype is np.float32,
    )


# Mixtures


def mixture(D: int, K: int, size: float = 2.0) -> Mixture:
    g = rng(10 * D + K)
    return Mixture(
        g.dirichlet(np.full(K, 3.0)), size * g.standard_normal((K, D)), np.stack([spread(D, k) for k in range(K)])
    )


class MixtureProblem(NamedTuple):
    name: str
    D: int
    K: int
    scale: float = 1.0
    std: float = 0.0
    size: float = 2.0
    single: bool = True

    @property
    def law(self) -> Mixture:
        return mixture(self.D, self.K, self.size)

    @property
    def points(self) -> Any:
        return self.scale * self.law.sample(6, rng=1) + self.std * rng(2).standard_normal((6, self.D))


def parts(m: Mixture, scale: float = 1.0, std: float = 0.0) -> Any:
    return (
        np.asarray(m.weights),
        scale * np.asarray(m.means),
        scale**2 * np.asarray(m.covariances) + std**2 * np.eye(m.means.shape[1]),
    )


def log_joint_scipy(x: Any, w: Any, m: Any, C: Any) -> Any:
    return np.stack(
        [np.log(a) + np.atleast_1d(stats.multivariate_normal.logpdf(x, b, c)) for a, b, c in zip(w, m, C, strict=True)],
        1,
    )


def log_joint_cholesky(x: Any, w: Any, m: Any, C: Any) -> Any:
    out = []
    for a, b, c in zip(w, m, C, strict=True):
        L = np.linalg.cholesky(c)
        y = linalg.solve_triangular(L, (x - b).T, lower=True)
        out.append(np.log(a) - 0.5 * (y**2).sum(0) - np.log(np.diag(L)).sum() - 0.5 * len(b) * LOG_2PI)
    return np.stack(out, 1)


def log_joint_einsum(x: Any, w: Any, m: Any, C: Any) -> Any:
    P = np.linalg.inv(C)
    d = x[:, None] - m
    square = np.einsum("nkd,kde,nke->nk", d, P, d)
    return np.log(w) - 0.5 * (square + np.linalg.slogdet(C)[1] + x.shape[1] * LOG_2PI)


def log_joint_torch(x: Any, w: Any, m: Any, C: Any) -> Any:
    law = torch.distributions.MultivariateNormal(torch.from_numpy(np.array(m)), torch.from_numpy(np.array(C)))
    return (law.log_prob(torch.from_numpy(np.array(x))[:, None]) + torch.log(torch.from_numpy(np.array(w)))).numpy()


LOG_JOINTS = (log_joint_scipy, log_joint_cholesky, log_joint_einsum) + ((log_joint_torch,) if torch else ())
JOINT_CODINGS = tuple(Coding(f.__name__[10:], lambda p, f=f: f) for f in LOG_JOINTS)
LAWS = (
    MixtureProblem("D = 1, K = 1", 1, 1),
    MixtureProblem("D = 2, K = 3", 2, 3),
    MixtureProblem("D = 3, K = 2, far apart", 3, 2, size=50.0),
    MixtureProblem("D = 16, K = 4", 16, 4),
    MixtureProblem("D = 64, K = 2", 64, 2),
)


def softmax(a: Any) -> Any:
    e = np.exp(a - a.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


table(
    "check_log_prob",
    lambda f, p: conformance.check_log_prob(lambda x: special.logsumexp(f(x, *parts(p.law)), axis=1), p.law, p.points),
    JOINT_CODINGS,
    LAWS,
)


def mixture_score(f: Any, w: Any, m: Any, C: Any) -> Any:
    P = np.linalg.inv(C)
    return lambda x: np.einsum("nk,kde,nke->nd", softmax(f(x, w, m, C)), P, m - np.asarray(x)[:, None])


table(
    "check_score",
    lambda f, p: conformance.check_score(mixture_score(f, *parts(p.law)), p.law, p.points),
    JOINT_CODINGS,
    LAWS,
)


def denoise_by_components(f: Any, p: MixtureProblem) -> Any:
    law = p.law

    def denoise(x: Any, scale: float, std: float) -> Any:
        w, m, C = parts(law, scale, std)
        r = softmax(f(x, w, m, C))
        out = np.zeros_like(x)
        for k in range(len(w)):
            gain = scale * law.covariances[k] @ np.linalg.inv(C[k])
            out += r[:, [k]] * (law.means[k] + (x - m[k]) @ gain.T)
        return out

    return denoise


NOISED = (
    MixtureProblem("D = 1, K = 2, scale 1, std 0.5", 1, 2, 1.0, 0.5),
    MixtureProblem("D = 2, K = 3, scale 0.6, std 0.8", 2, 3, 0.6, 0.8),
    MixtureProblem("D = 3, K = 2, EDM's σ = 80", 3, 2, 1.0, 80.0),
    MixtureProblem("D = 16, K = 2, scale 0.01, std 1", 16, 2, 0.01, 0.99995),
    MixtureProblem("D = 2, K = 2, flow, t = 0.3", 2, 2, 0.7, 0.3),
    MixtureProblem("D = 2, K = 2, σ = 0.002", 2, 2, 1.0, 0.002),
)
table(
    "check_denoiser",
    lambda f, p: conformance.check_denoiser(denoise_by_components(f, p), p.law, p.points, p.scale, p.std),
    JOINT_CODINGS,
    NOISED,
)


def score_matching_case(p: MixtureProblem, form: str) -> Check:
    def denoising(s: Any, e: Any, std: float) -> Any:
        return ((std * s + e) ** 2).sum(1) / std**2 if form == "ε" else ((s + e / std) ** 2).sum(1)

    def implicit(s: Any, d: Any) -> Any:
        return (s**2).sum(1) + 2 * d

    def sliced(s: Any, v: Any, dv: Any) -> Any:
        square = (s**2).sum(1) if form == "ε" else np.einsum("nd,nd->n", v, s) ** 2
        return 2 * (v * dv).sum(1) + square

    return conformance.check_score_matching(
        denoising,
        implicit,
        sliced,
        p.law,
        p.scale,
        p.std,
        lambda x: -0.5 * x - 0.2 * np.sin(x),
        lambda x: (-0.5 - 0.2 * np.cos(x)).sum(1),
    )


for p, form in zip(
    (NOISED[0], NOISED[1], NOISED[4], MixtureProblem("D = 2, K = 2, VE, σ = 3", 2, 2, 1.0, 3.0)),
    ("ε", "s", "s", "ε"),
    strict=True,
):
    add("check_score_matching", f"{form}; {p.name}", lambda p=p, f=form: score_matching_case(p, f))


def continuous_case(sde: Any, D: int, t_min: float, form: str) -> Check:
    marginal, rates = own_marginal(sde), own_f_g2(sde)
    slope = 0.7

    def log_snr(t: Any) -> Any:
        scale, std = marginal(t)
        return 2 * np.log(scale / std)

    width = float(log_snr(t_min) - log_snr(sde.horizon))

    def prior(x0: Any) -> Any:
        scale, std = marginal(sde.horizon)
        return (scale * x0 / std) ** 2 @ np.full(x0.shape[1], 0.5)

    def diffusion(x0: Any, t: Any, e: Any) -> Any:
        scale, std = marginal(t)
        x = scale[:, None] * x0 + std[:, None] * e
        if form == "VDM":
            return 0.5 * width * ((e - slope * x) ** 2).sum(1)
        _, g2 = rates(t)
        density = (g2 / std**2) / width  # −dλ/dt over the width: the density of t
        error = (-slope * x / std[:, None] + e / std[:, None]) ** 2
        return 0.5 * g2 * error.sum(1) / density

    def reconstruct(x0: Any, e: Any) -> Any:
        scale, std = marginal(t_min)
        return -stats.norm.logpdf(x0, (scale * x0 + std * e) / scale, std / scale).sum(1)

    return conformance.check_continuous_bound(
        prior, diffusion, reconstruct, sde, t_min, slope, rng(D).standard_normal((3, D))
    )


for p, D, t_min, form in (
    (PROCESSES[0], 2, 1e-3, "VDM"),
    (PROCESSES[1], 3, 1e-2, "½ g²"),
    (PROCESSES[2], 2, 1e-3, "VDM"),
    (PROCESSES[3], 16, 0.002, "½ g²"),
    (PROCESSES[4], 1, 0.02, "VDM"),
    (PROCESSES[0], 64, 1e-5, "½ g²"),
):
    add(
        "check_continuous_bound",
        f"{form}, t_min {t_min}, D = {D}; {p.name}",
        lambda s=p.sde, D=D, t=t_min, f=form: continuous_case(s, D, t, f),
    )


def divergence_case(D: int, std: float, form: str) -> Check:
    W = rng(D).standard_normal((D, D)) / math.sqrt(D)

    def eps_hat(x: Any) -> Any:
        return np.tanh(x @ W) + 0.5 * x

    def both(x: Any, probes: Any) -> Any:
        s = -eps_hat(x) / std
        slope = 1 - np.tanh(x @ W) ** 2
        if form == "jacobian":
            J = -(np.einsum("ij,nj->nij", W, slope) + 0.5 * np.eye(D)) / std
            exact = np.trace(J, axis1=1, axis2=2)
            return s, exact if probes is None else np.einsum("pni,nij,pnj->n", probes, J, probes) / len(probes)
        if form == "torch":
            y = torch.from_numpy(x.copy()).requires_grad_()
            out = -(torch.tanh(y @ torch.from_numpy(W)) + 0.5 * y) / std
            v = torch.eye(D, dtype=y.dtype)[:, None].expand(D, *y.shape) if probes is None else torch.from_numpy(probes)
            total = sum((torch.autograd.grad(out, y, u, retain_graph=True)[0] * u).sum(1) for u in v)
            return s, (total if probes is None else total / len(v)).numpy()
        if probes is None:
            return s, -(slope @ np.diag(W) + 0.5 * D) / std
        return s, np.mean([-(((v @ W) * slope + 0.5 * v) * v).sum(1) / std for v in probes], axis=0)

    g = rng(9)
    return conformance.check_divergence(both, eps_hat, std, g.standard_normal((4, D)), g.choice([-1.0, 1], (3, 4, D)))


for D, std, form in (
    (1, 1.0, "jacobian"),
    (2, 0.01, "closed"),
    (16, 80.0, "jacobian"),
    (3, 0.5, "torch"),
    (64, 0.3, "closed"),
):
    if form != "torch" or torch is not None:
        add("check_divergence", f"{form}, std {std}, D = {D}", lambda D=D, s=std, f=form: divergence_case(D, s, f))


def kl_bound_case(sde: Any, D: int, form: str) -> Check:
    rates = own_f_g2(sde)

    def bound(error: Any, prior: float) -> float:
        def integrand(t: float) -> float:
            return 0.5 * float(rates(t)[1]) * float(error(float(t)))

        if form == "quad":
            return integrate.quad(integrand, 0, sde.horizon, epsabs=1e-13, epsrel=1e-12, limit=400)[0] + prior
        node, weight = np.polynomial.legendre.leggauss(40)
        edges = sde.horizon * np.r_[0.0, np.geomspace(1e-8, 1, 25)]
        total = 0.0
        for a, b in itertools.pairwise(edges):
            total += (
                (b - a)
                / 2
                * sum(w * integrand((a + b) / 2 + (b - a) / 2 * u) for u, w in zip(node, weight, strict=True))
            )
        return total + prior

    g = rng(D)
    return conformance.check_kl_bound(bound, sde, g.standard_normal(D), spread(D), g.standard_normal(D), spread(D, 5))


for p, D, form in (
    (PROCESSES[5], 2, "quad"),
    (PROCESSES[1], 1, "panels"),
    (Process("VE, horizon 2", VE(0.01, 20.0, 2.0)), 3, "panels"),
    (PROCESSES[3], 2, "panels"),
    (PROCESSES[4], 1, "panels"),
):
    add("check_kl_bound", f"{form}, D = {D}; {p.name}", lambda s=p.sde, D=D, f=form: kl_bound_case(s, D, f))


def log_prob_bound_case(sde: Any) -> Check:
    marginal, rates = own_marginal(sde), own_f_g2(sde)
    law = Mixture([0.4, 0.6], [[-0.8], [0.9]], [[[0.5]], [[0.8]]])
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()
    u, w = np.polynomial.legendre.leggauss(30)
    edges = sde.horizon * np.r_[0.0, np.geomspace(1e-5, 1, 12)]

    def bound(both: Any, prior: Any, x: Any) -> Any:
        n, D = x.shape

        def mean(f: Any, t: float) -> Any:
            scale, std = marginal(t)
            points = scale * x[:, None] + std * node[:, None]
            return f(points.reshape(-1, D)).reshape(n, -1) @ weight

        total = mean(prior, sde.horizon)
        for a, b in itertools.pairwise(edges):
            for v, h in zip((a + b) / 2 + (b - a) / 2 * u, (b - a) / 2 * w, strict=True):
                f, g2 = rates(v)

                def inner(y: Any, v: float = float(v), f: float = f, g2: float = g2) -> Any:
                    s, d = both(y, v)
                    return 0.5 * g2 * (s**2).sum(1) + g2 * d - f * D

                total = total - h * mean(inner, float(v))
        return total

    return conformance.check_log_prob_bound(bound, sde, law, np.array([[-1.0], [0.2], [1.7]]))


for p in (PROCESSES[0], PROCESSES[1], PROCESSES[5], PROCESSES[4]):
    add("check_log_prob_bound", f"Gauss-Hermite, D = 1; {p.name}", lambda s=p.sde: log_prob_bound_case(s))


def flow_log_prob(
    sde: Any, score: Any, divergence: Any, t_min: float, start: Any, rtol: float, method: str = "DOP853"
) -> Any:
    rates = own_f_g2(sde)

    def log_prob(x: Any) -> Any:
        out = []
        for row in np.asarray(x):
            D = len(row)

            def slope(t: float, y: Any) -> Any:
                f, g2 = rates(t)
                z = y[None, :-1]
                return np.r_[f * y[:-1] - 0.5 * g2 * score(z, t)[0], f * len(y[:-1]) - 0.5 * g2 * divergence(z, t)[0]]

            end = integrate.solve_ivp(slope, (t_min, sde.horizon), np.r_[row, 0.0], method, rtol=rtol, atol=rtol).y[
                :, -1
            ]
            out.append(start(end[None, :D])[0] + end[D])
        return out

    return log_prob


def exact_flow_case(sde: Any, D: int, method: str) -> Check:
    law = Mixture([0.5, 0.5], np.array([[-1.0], [1.0]]) * np.ones(D), np.stack([np.eye(D), 0.7 * np.eye(D)]))
    marginal = own_marginal(sde)

    def noised(t: float) -> Any:
        return parts(law, *(float(v) for v in marginal(t)))

    def score(x: Any, t: float) -> Any:
        return mixture_score(log_joint_einsum, *noised(t))(x)

    def divergence(x: Any, t: float) -> Any:
        w, m, C = noised(t)
        r = softmax(log_joint_einsum(x, w, m, C))
        s = np.einsum("kde,nke->nkd", np.linalg.inv(C), m - x[:, None])
        mean = np.einsum("nk,nkd->nd", r, s)
        inner = np.einsum("nk,nkd->n", r, s**2) - (mean**2).sum(1)
        return inner - r @ np.trace(np.linalg.inv(C), axis1=1, axis2=2)

    def start(x: Any) -> Any:
        return special.logsumexp(log_joint_scipy(x, *noised(sde.horizon)), axis=1)

    log_prob = flow_log_prob(sde, score, divergence, 0.0, start, 1e-11, method)
    return conformance.check_probability_flow_likelihood(log_prob, law, law.sample(2, rng=0), sde)


for p, D, method in (
    (PROCESSES[5], 1, "DOP853"),
    (PROCESSES[1], 2, "DOP853"),
    (PROCESSES[4], 1, "LSODA"),
    (PROCESSES[0], 1, "DOP853"),
):
    add(
        "check_probability_flow_likelihood",
        f"{method}, D = {D}; {p.name}",
        lambda s=p.sde, D=D, m=method: exact_flow_case(s, D, m),
    )


def own_flow_case(sde: Any, D: int, rtol: float, exact: bool) -> Check:
    def score(x: Any, t: float) -> Any:
        return -0.8 * x / (1 + t) - 0.2 * np.sin(x)

    def divergence(x: Any, t: float) -> Any:
        return -0.8 * x.shape[1] / (1 + t) - 0.2 * np.cos(x).sum(1)

    std = own_marginal(sde)(sde.horizon)[1]

    def start(x: Any) -> Any:
        return stats.norm.logpdf(x, 0, std).sum(1)

    t_min = 1e-3 * sde.horizon
    log_prob = flow_log_prob(sde, score, divergence, t_min, start, rtol / 10)
    return conformance.check_flow_likelihood_of(
        log_prob, score, rng(D).standard_normal((2, D)), sde, t_min, divergence if exact else None, rtol
    )


for p, D, rtol, exact in (
    (PROCESSES[5], 2, 1e-7, True),
    (PROCESSES[1], 1, 1e-7, False),
    (PROCESSES[0], 3, 1e-5, True),
    (PROCESSES[4], 2, 1e-7, True),
):
    add(
        "check_flow_likelihood_of",
        f"rtol {rtol}, exact divergence {exact}, D = {D}; {p.name}",
        lambda s=p.sde, D=D, r=rtol, e=exact: own_flow_case(s, D, r, e),
    )


def reverse_law_case(B: float, delta: float, D: int, form: str) -> Check:
    def moments(score: Any) -> Any:  # g² = 1 over a time B
        shift = np.asarray(score(np.zeros((1, D)), 0.5))[0]
        slope = float(np.asarray(score(np.ones((1, D)), 0.5))[0, 0] - shift[0]) + 0.5
        if form == "closed":
            grow = math.exp(slope * B)
            v = grow**2 + (grow**2 - 1) / (2 * slope)
            return (grow - 1) / slope * shift, v * np.eye(D)
        run = integrate.solve_ivp(
            lambda t, y: np.r_[slope * y[:-1] + shift, 2 * slope * y[-1] + 1],
            (0, B),
            np.r_[np.zeros(D), 1.0],
            "DOP853",
            rtol=1e-13,
            atol=1e-14,
        ).y[:, -1]
        return run[:-1], np.diag(np.full(D, run[-1]))

    return conformance.check_reverse_law(moments, B, delta)


for B, delta, D, form in (
    (10.0, 0.5, 1, "closed"),
    (10.05, 0.2, 2, "ODE"),
    (2.0, -0.3, 3, "closed"),
    (0.1, 1.0, 16, "ODE"),
):
    add(
        "check_reverse_law",
        f"{form}, B = {B}, δ = {delta}, D = {D}",
        lambda B=B, d=delta, D=D, f=form: reverse_law_case(B, d, D, f),
    )


class Times(NamedTuple):
    name: str
    sde: Any
    low: float


for name, sde, low in (("VP", VP(), 1e-3), ("EDM", EDM(80.0), 0.002), ("flow matching", Flow(), 0.02)):

    def uniform_draw(sde: Any = sde, low: float = low) -> Any:
        return lambda u: (low + (sde.horizon - low) * ((np.arange(8) + u) / 8), np.ones(8))

    def uniform_case(sde: Any = sde, low: float = low, make: Any = uniform_draw) -> Check:
        return conformance.check_time_draws(make(), lambda t: (t - low) / (sde.horizon - low))

    add("check_time_draws", f"uniform in t; {name}", uniform_case)

    def snr_case(sde: Any = sde, low: float = low) -> Check:
        def clock(t: Any) -> Any:
            scale, std = own_marginal(sde)(np.asarray(t))
            a, b = own_marginal(sde)(low)
            c, d = own_marginal(sde)(sde.horizon)
            return (np.log(a / b) - np.log(scale / std)) / (np.log(a / b) - np.log(c / d))

        grid = np.geomspace(low, sde.horizon, 20001)

        def draw(u: float) -> Any:  # uniform t, weighted by the density of the log-SNR
            t = low + (sde.horizon - low) * ((np.arange(64) + u) / 64)
            _, g2 = own_f_g2(sde)(t)
            total = 2 * (
                np.log(np.divide(*own_marginal(sde)(low))) - np.log(np.divide(*own_marginal(sde)(sde.horizon)))
            )
            return t, (sde.horizon - low) * g2 / own_marginal(sde)(t)[1] ** 2 / total

        def inverse(u: float) -> Any:
            return np.interp((np.arange(8) + u) / 8, clock(grid), grid), np.ones(8)

        return conformance.check_time_draws(draw if isinstance(sde, Flow) else inverse, clock)

    add("check_time_draws", f"uniform in log-SNR; {name}", snr_case)


# VAE


class Rows(NamedTuple):
    name: str
    D: int
    k: int
    variance: float = 0.5
    size: float = 1.0
    single: bool = True

    @property
    def x(self) -> Any:
        return rng(self.D).standard_normal((5, self.D))

    @property
    def q(self) -> Any:
        g = rng(self.k + 20)
        return self.size * g.standard_normal((5, self.k)), self.size * g.standard_normal((5, self.k))

    @property
    def W(self) -> Any:
        return rng(self.D + self.k).standard_normal((self.D, self.k))

    @property
    def centre(self) -> Any:
        return rng(77).standard_normal(self.D)


ROWS = (
    Rows("D = 3, k = 2", 3, 2),
    Rows("D = 64, k = 16, s² = 0.01", 64, 16, 0.01),
    Rows("D = 1, k = 1, s² = 1e-4", 1, 1, 1e-4),
    Rows("D = 16, k = 3, wide q", 16, 3, 2.0, 5.0),
    Rows("D = 2, k = 2", 2, 2),
)


def kl_textbook(mean: Any, log_variance: Any) -> Any:
    return -0.5 * np.sum(1 + log_variance - mean**2 - np.exp(log_variance), axis=1)


def kl_std(mean: Any, log_variance: Any) -> Any:
    std = np.exp(0.5 * log_variance)
    return (-np.log(std) + 0.5 * (std**2 + mean**2) - 0.5).sum(-1)


def kl_expm1(mean: Any, log_variance: Any) -> Any:
    return [
        0.5 * sum(m * m + math.expm1(v) - v for m, v in zip(*row, strict=True))
        for row in zip(mean.tolist(), log_variance.tolist(), strict=True)
    ]


def kl_torch(mean: Any, log_variance: Any) -> Any:
    normal = torch.distributions.Normal
    return torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0 * mean, 1.0)).sum(1)


KLS = (
    Coding("textbook", lambda p: kl_textbook),
    Coding("σ", lambda p: kl_std),
    Coding("expm1, lists", lambda p: kl_expm1),
    Coding("float32", lambda p: f32(kl_textbook), True),
    *with_torch(Coding("torch", lambda p: in_torch(kl_torch))),
)
table("check_diagonal_kl", lambda f, p: conformance.check_diagonal_kl(f, *p.q), KLS, ROWS)


def vae_loss_with(kl: Any) -> Any:
    def loss(x: Any, x_hat: Any, mean: Any, log_variance: Any, decoder: Any) -> Any:
        square = ((x - x_hat) ** 2).sum(1)
        return 0.5 * (x.shape[1] * (LOG_2PI + decoder) + square * np.exp(-decoder)) + np.asarray(kl(mean, log_variance))

    return loss


def vae_logpdf(x: Any, x_hat: Any, mean: Any, log_variance: Any, decoder: Any) -> Any:
    return -stats.norm.logpdf(x, x_hat, np.exp(decoder / 2)).sum(1) + kl_std(mean, log_variance)


def vae_single(p: Rows) -> Any:
    def loss(x: Any, x_hat: Any, mean: Any, log_variance: Any, decoder: Any) -> Any:
        d = np.float32(decoder)
        square = ((x - x_hat) ** 2).sum(1)
        return np.float32(0.5) * (
            np.float32(x.shape[1]) * (np.float32(LOG_2PI) + d) + square * np.exp(-d)
        ) + kl_textbook(mean, log_variance)

    return f32(loss)


table(
    "check_vae_loss",
    lambda f, p: conformance.check_vae_loss(f, p.x, p.W, p.centre, p.variance, *p.q),
    (
        Coding("textbook", lambda p: vae_loss_with(kl_textbook)),
        Coding("norm.logpdf", lambda p: vae_logpdf),
        Coding("expm1", lambda p: vae_loss_with(kl_expm1)),
        Coding("float32", vae_single, True),
    ),
    ROWS,
)
table(
    "check_reparameterisation",
    lambda f, p: conformance.check_reparameterisation(f, *p.q, rng(4).standard_normal((5, p.k))),
    (
        Coding("exp(½ log σ²)", lambda p: lambda m, v, e: m + np.exp(0.5 * v) * e),
        Coding("√exp, einsum", lambda p: lambda m, v, e: m + np.einsum("nk,nk->nk", np.sqrt(np.exp(v)), e)),
        Coding("float32", lambda p: f32(lambda m, v, e: m + np.exp(v / 2) * e), True),
        *with_torch(Coding("torch", lambda p: in_torch(lambda m, v, e: torch.addcmul(m, (v / 2).exp(), e)))),
    ),
    ROWS,
)


# Tables p(x, z)


class Tables(NamedTuple):
    name: str
    X: int
    Z: int
    sharp: float = 1.0
    single: bool = True

    def law(self, *shape: int, seed: int, axis: int | None = None) -> Any:
        e = np.exp(self.sharp * rng(seed).standard_normal(shape))
        return e / e.sum(axis=axis, keepdims=axis is not None)

    @property
    def joint(self) -> Any:
        return self.law(self.X, self.Z, seed=1)

    @property
    def q(self) -> Any:
        return self.law(self.X, self.Z, seed=2, axis=1)

    @property
    def p_x(self) -> Any:
        return self.law(self.X, seed=3)

    @property
    def decoder(self) -> Any:
        return self.law(self.X, self.Z, seed=4, axis=0)

    @property
    def prior(self) -> Any:
        return self.law(self.Z, seed=5)


TABLES = (
    Tables("3 × 2", 3, 2),
    Tables("2 × 5", 2, 5),
    Tables("16 × 4, sharp", 16, 4, 6.0),
    Tables("5 × 3", 5, 3),
)


def on_tables(check: str, call: Callable[..., Check], *codings: Coding, problems: Any = TABLES) -> None:
    table(check, call, codings, problems)


on_tables(
    "check_kl",
    lambda f, p: conformance.check_kl(f, p.p_x, p.law(p.X, seed=9)),
    Coding("Σ p log p/q", lambda p: lambda a, b: np.sum(a * np.log(a / b))),
    Coding("rel_entr", lambda p: lambda a, b: special.rel_entr(a, b).sum()),
    Coding("cross-entropy less entropy", lambda p: lambda a, b: -a @ np.log(b) - stats.entropy(a)),
    Coding("float32", lambda p: f32(lambda a, b: np.sum(a * (np.log(a) - np.log(b)))), True),
)


def posterior_of(joint: Any) -> Any:
    return joint / joint.sum(1, keepdims=True)


on_tables(
    "check_latent_posterior",
    lambda f, p: conformance.check_latent_posterior(f, p.joint),
    Coding("a division", lambda p: lambda j: (posterior_of(j), j.sum(1))),
    Coding(
        "softmax of logs", lambda p: lambda j: (special.softmax(np.log(j), 1), np.exp(special.logsumexp(np.log(j), 1)))
    ),
    Coding("loops", lambda p: lists(lambda j: ([[v / math.fsum(r) for v in r] for r in j], [math.fsum(r) for r in j]))),
    Coding("float32", lambda p: f32(lambda j: (posterior_of(j), j.sum(1))), True),
)
on_tables(
    "check_posterior_kl",
    lambda f, p: conformance.check_posterior_kl(f, p.joint, p.q),
    Coding("rel_entr", lambda p: lambda j, q: special.rel_entr(q, posterior_of(j)).sum(1)),
    Coding("log p(x) − ELBO", lambda p: lambda j, q: np.log(j.sum(1)) - (q * (np.log(j) - np.log(q))).sum(1)),
    Coding(
        "loops",
        lambda p: (
            lambda j, q: [
                sum(a * math.log(a / (b / sum(r))) for a, b in zip(s, r, strict=True))
                for s, r in zip(q.tolist(), j.tolist(), strict=True)
            ]
        ),
    ),
)
on_tables(
    "check_elbo",
    lambda f, p: conformance.check_elbo(f, p.joint, p.q),
    Coding("E log p/q", lambda p: lambda j, q: (q * np.log(j / q)).sum(1)),
    Coding("energy and entropy", lambda p: lambda j, q: np.einsum("xz,xz->x", q, np.log(j)) + special.entr(q).sum(1)),
    Coding("log p(x) − KL", lambda p: lambda j, q: np.log(j.sum(1)) - special.rel_entr(q, posterior_of(j)).sum(1)),
    Coding("float32", lambda p: f32(lambda j, q: (q * np.log(j / q)).sum(1)), True),
)
on_tables(
    "check_split_elbo",
    lambda f, p: conformance.check_split_elbo(f, p.decoder, p.prior, p.q),
    Coding("two terms", lambda p: lambda d, r, q: (q * np.log(d)).sum(1) - special.rel_entr(q, r).sum(1)),
    Coding("the joint", lambda p: lambda d, r, q: (q * (np.log(d) + np.log(r) - np.log(q))).sum(1)),
    Coding("float32", lambda p: f32(lambda d, r, q: (q * np.log(d * r / q)).sum(1)), True),
)
on_tables(
    "check_joint_kl",
    lambda f, p: conformance.check_joint_kl(f, p.p_x, p.q, p.decoder, p.prior),
    Coding("rel_entr", lambda p: lambda a, q, d, r: special.rel_entr(a[:, None] * q, d * r).sum()),
    Coding(
        "logs",
        lambda p: (
            lambda a, q, d, r: np.einsum("x,xz,xz->", a, q, np.log(a)[:, None] + np.log(q) - np.log(d) - np.log(r))
        ),
    ),
    Coding(
        "chain rule",
        lambda p: (
            lambda a, q, d, r: special.rel_entr(a, d @ r).sum() + a @ special.rel_entr(q, posterior_of(d * r)).sum(1)
        ),
    ),
)
on_tables(
    "check_vae_objective",
    lambda f, p: conformance.check_vae_objective(f, p.p_x, p.q, p.decoder, p.prior),
    Coding("two terms", lambda p: lambda a, q, d, r: a @ (-(q * np.log(d)).sum(1) + special.rel_entr(q, r).sum(1))),
    Coding(
        "evidence and gap",
        lambda p: lambda a, q, d, r: a @ (-np.log(d @ r) + special.rel_entr(q, posterior_of(d * r)).sum(1)),
    ),
    Coding("float32", lambda p: f32(lambda a, q, d, r: a @ (q * np.log(q / (d * r))).sum(1)), True),
)
on_tables(
    "check_free_m_step",
    lambda f, p: conformance.check_free_m_step(f, p.p_x, p.q, p.prior),
    Coding("a division", lambda p: lambda a, q: (a[:, None] * q / (a @ q), a @ q)),
    Coding(
        "softmax over x",
        lambda p: (
            lambda a, q: (
                special.softmax(np.log(a)[:, None] + np.log(q), 0),
                np.exp(special.logsumexp(np.log(a)[:, None] + np.log(q), 0)),
            )
        ),
    ),
    Coding("lists", lambda p: lists(lambda a, q: (np.einsum("x,xz->xz", a, q) / np.einsum("x,xz->z", a, q), q.T @ a))),
)
on_tables(
    "check_importance_weighted_bound",
    lambda f, p: conformance.check_importance_weighted_bound(f, p.joint, p.q, 3 if p.X < 6 else 2),
    Coding("logsumexp − log n", lambda p: lambda w: special.logsumexp(w, axis=0) - math.log(len(w))),
    Coding("logsumexp with b = 1/n", lambda p: lambda w: special.logsumexp(w, axis=0, b=1 / len(w))),
    Coding("logaddexp", lambda p: lambda w: np.logaddexp.reduce(w, axis=0) - np.log(w.shape[0])),
    *with_torch(Coding("torch", lambda p: in_torch(lambda w: torch.logsumexp(w, 0) - math.log(len(w))))),
)


# Gaussians with linear decoders


class Gaussians(NamedTuple):
    name: str
    D: int
    size: float = 1.0
    single: bool = True


def gaussian_kl_solve(a: Any, A: Any, b: Any, B: Any) -> Any:
    d = b - a
    return 0.5 * (
        np.trace(np.linalg.solve(B, A))
        + d @ np.linalg.solve(B, d)
        - len(a)
        + np.linalg.slogdet(B)[1]
        - np.linalg.slogdet(A)[1]
    )


def gaussian_kl_cholesky(a: Any, A: Any, b: Any, B: Any) -> Any:
    L, M = np.linalg.cholesky(A), np.linalg.cholesky(B)
    X = linalg.solve_triangular(M, L, lower=True)
    y = linalg.solve_triangular(M, b - a, lower=True)
    return 0.5 * ((X**2).sum() + y @ y - len(a)) + np.log(np.diag(M)).sum() - np.log(np.diag(L)).sum()


def gaussian_kl_torch(a: Any, A: Any, b: Any, B: Any) -> Any:
    normal = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(normal(a, A), normal(b, B))


table(
    "check_gaussian_kl",
    lambda f, p: conformance.check_gaussian_kl(
        f, rng(1).standard_normal(p.D), p.size**2 * spread(p.D), rng(2).standard_normal(p.D), p.size**2 * spread(p.D, 7)
    ),
    (
        Coding("solve", lambda p: gaussian_kl_solve),
        Coding("Cholesky", lambda p: gaussian_kl_cholesky),
        Coding("float32", lambda p: f32(gaussian_kl_solve), True),
        *with_torch(Coding("torch", lambda p: in_torch(gaussian_kl_torch))),
    ),
    (
        Gaussians("D = 1", 1),
        Gaussians("D = 2", 2),
        Gaussians("D = 16", 16),
        Gaussians("D = 3, in small units", 3, 1e-3),
        Gaussians("D = 64", 64),
    ),
)


def latent_direct(x: Any, W: Any, mean: Any, v: float) -> Any:
    C = np.linalg.inv(np.eye(W.shape[1]) + W.T @ W / v)
    return (x - mean) @ W @ C / v, C


def latent_woodbury(x: Any, W: Any, mean: Any, v: float) -> Any:
    gain = np.linalg.solve(W @ W.T + v * np.eye(len(W)), W).T
    return (x - mean) @ gain.T, np.eye(W.shape[1]) - gain @ W


def latent_svd(x: Any, W: Any, mean: Any, v: float) -> Any:
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    k = W.shape[1]
    C = np.eye(k) + Vt.T @ np.diag(v / (v + s**2) - 1) @ Vt
    return ((x - mean) @ U * (s / (s**2 + v))) @ Vt, C


table(
    "check_linear_gaussian_posterior",
    lambda f, p: conformance.check_linear_gaussian_posterior(f, p.x, p.W, p.centre, p.variance),
    (
        Coding("precision", lambda p: latent_direct),
        Coding("Woodbury", lambda p: latent_woodbury),
        Coding("SVD, lists", lambda p: lists(latent_svd)),
    ),
    ROWS,
)


def linear_elbo_terms(x: Any, W: Any, mean: Any, v: float, m: Any, C: Any) -> Any:
    D, k = W.shape
    error = ((x - mean - m @ W.T) ** 2).sum(1) + np.trace(W @ C @ W.T)
    fit = -0.5 * D * math.log(2 * math.pi * v) - error / (2 * v)
    return fit - 0.5 * ((m**2).sum(1) + np.trace(C) - k - np.linalg.slogdet(C)[1])


def linear_elbo_gap(x: Any, W: Any, mean: Any, v: float, m: Any, C: Any) -> Any:
    pm, pC = latent_direct(x, W, mean, v)
    evidence = stats.multivariate_normal(mean, W @ W.T + v * np.eye(len(W))).logpdf(x)
    return np.atleast_1d(evidence) - [gaussian_kl_solve(a, C, b, pC) for a, b in zip(m, pm, strict=True)]


table(
    "check_linear_gaussian_elbo",
    lambda f, p: conformance.check_linear_gaussian_elbo(f, p.x, p.W, p.centre, p.variance, p.q[0], spread(p.k)),
    (Coding("two terms", lambda p: linear_elbo_terms), Coding("evidence less gap", lambda p: linear_elbo_gap)),
    ROWS,
)


def mean_field_precision(x: Any, W: Any, mean: Any, v: float) -> Any:
    return latent_direct(x, W, mean, v)[0], 1 / (1 + (W**2).sum(0) / v)


def mean_field_coordinates(x: Any, W: Any, mean: Any, v: float) -> Any:
    P = np.eye(W.shape[1]) + W.T @ W / v
    h = (x - mean) @ W / v
    m = np.zeros_like(h)
    for _ in range(3000):  # coordinate ascent
        before = m.copy()
        for j in range(P.shape[0]):
            m[:, j] = (h[:, j] - m @ P[:, j] + m[:, j] * P[j, j]) / P[j, j]
        if np.abs(m - before).max() < 1e-16:
            break
    return m, 1 / np.diag(P)


table(
    "check_mean_field",
    lambda f, p: conformance.check_mean_field(f, p.x, p.W, p.centre, p.variance),
    (
        Coding("precision", lambda p: mean_field_precision),
        Coding("coordinate ascent", lambda p: mean_field_coordinates),
    ),
    (ROWS[0], ROWS[2], ROWS[3], Rows("D = 64, k = 3", 64, 3), ROWS[1]),
)


class Sample(NamedTuple):
    name: str
    D: int
    k: int
    size: float = 1.0
    single: bool = True

    @property
    def S(self) -> Any:
        x = self.size * rng(self.D).standard_normal((50, self.D)) @ rng(self.D + 1).standard_normal((self.D, self.D))
        return np.cov(x.T, bias=True).reshape(self.D, self.D)

    @property
    def W(self) -> Any:
        return self.size * rng(self.D + 2).standard_normal((self.D, self.k))


SAMPLES = (
    Sample("D = 3, k = 2", 3, 2),
    Sample("D = 16, k = 3", 16, 3),
    Sample("D = 2, k = 1, in units of 1e-3", 2, 1, 1e-3),
    Sample("D = 5, k = 4, in units of 1e4", 5, 4, 1e4),
)


def ppca_eigh(S: Any, k: int) -> Any:
    values, U = np.linalg.eigh(S)
    v = values[:-k].mean()
    return U[:, -k:] * np.sqrt(values[-k:] - v), v


def ppca_svd_rotated(S: Any, k: int) -> Any:
    U, s, _ = np.linalg.svd(S)
    v = (np.trace(S) - s[:k].sum()) / (len(S) - k)
    R = linalg.qr(rng(k).standard_normal((k, k)))[0]
    return U[:, :k] @ np.diag((s[:k] - v) ** 0.5) @ R, float(v)


table(
    "check_ppca_maximum",
    lambda f, p: conformance.check_ppca_maximum(f, p.S, p.k),
    (Coding("eigh", lambda p: ppca_eigh), Coding("SVD, rotated", lambda p: ppca_svd_rotated)),
    SAMPLES,
)


def ppca_tipping(S: Any, W: Any, v: float) -> Any:
    k = W.shape[1]
    M = W.T @ W + v * np.eye(k)
    SW = S @ W
    new = SW @ np.linalg.inv(v * np.eye(k) + np.linalg.inv(M) @ W.T @ SW)
    return new, np.trace(S - SW @ np.linalg.inv(M) @ new.T) / len(S)


def ppca_moments(S: Any, W: Any, v: float) -> Any:
    gain = np.linalg.solve(W @ W.T + v * np.eye(len(W)), W).T
    second = np.eye(W.shape[1]) - gain @ W + gain @ S @ gain.T
    new = np.linalg.solve(second, gain @ S).T
    residual = S - new @ gain @ S - (new @ gain @ S).T + new @ second @ new.T
    return new, np.trace(residual) / len(S)


table(
    "check_ppca_step",
    lambda f, p: conformance.check_ppca_step(f, p.S, p.W, 0.5 * p.size**2),
    (Coding("Tipping and Bishop", lambda p: ppca_tipping), Coding("moments", lambda p: ppca_moments)),
    SAMPLES,
)


def factor_rubin(S: Any, W: Any, psi: Any) -> Any:
    gain = W.T @ np.linalg.inv(W @ W.T + np.diag(psi))
    second = np.eye(W.shape[1]) - gain @ W + gain @ S @ gain.T
    new = S @ gain.T @ np.linalg.inv(second)
    return new, np.diag(S - new @ gain @ S)


def factor_woodbury(S: Any, W: Any, psi: Any) -> Any:
    G = np.linalg.inv(np.eye(W.shape[1]) + (W.T / psi) @ W)
    gain = G @ (W.T / psi)
    cross = S @ gain.T
    second = G + gain @ cross
    new = linalg.solve(second, cross.T, assume_a="pos").T
    return new, np.diag(S) - np.einsum("dk,dk->d", new, cross)


table(
    "check_factor_analysis_step",
    lambda f, p: conformance.check_factor_analysis_step(f, p.S, p.W, p.size**2 * np.linspace(0.3, 1.1, p.D)),
    (Coding("Rubin and Thayer", lambda p: factor_rubin), Coding("Woodbury", lambda p: factor_woodbury)),
    SAMPLES,
)


# EM of mixtures


class Cloud(NamedTuple):
    name: str
    D: int
    K: int
    N: int = 40
    shift: float = 0.0
    single: bool = True

    @property
    def data(self) -> Any:
        g = rng(self.D * 7 + self.K)
        centres = 2 * g.standard_normal((self.K, self.D))
        x = centres[np.arange(self.N) % self.K] + g.standard_normal((self.N, self.D)) + self.shift
        C = np.stack([spread(self.D, k) + 0.5 * np.eye(self.D) for k in range(self.K)])
        return x, g.dirichlet(np.full(self.K, 5.0)), centres + 0.3 + self.shift, C


CLOUDS = (
    Cloud("D = 2, K = 3", 2, 3),
    Cloud("D = 1, K = 2", 1, 2),
    Cloud("D = 16, K = 2", 16, 2, 200),
    Cloud("D = 3, K = 4, far from 0", 3, 4, 60, 1e4),
    Cloud("D = 64, K = 2", 64, 2, 300),
)
table(
    "check_e_step",
    lambda f, p: conformance.check_e_step(lambda x, w, m, C: softmax(f(x, w, m, C)), *p.data),
    JOINT_CODINGS,
    CLOUDS,
)


def free_energy_case(f: Any, p: Cloud) -> Check:
    x, w, m, C = p.data
    log_r = special.log_softmax(rng(8).standard_normal((len(x), len(w))), axis=1)

    def terms(x: Any, log_r: Any, w: Any, m: Any, C: Any) -> Any:
        return (np.exp(log_r) * (f(x, w, m, C) - log_r)).sum(1)

    return conformance.check_free_energy(terms, x, log_r, w, m, C)


table("check_free_energy", free_energy_case, JOINT_CODINGS, CLOUDS[:4])


def m_step(x: Any, r: Any, form: str) -> Any:
    n = r.sum(0)
    m = (r.T @ x) / n[:, None]
    if form == "einsum":
        d = x[:, None] - m
        C = np.einsum("nk,nkd,nke->kde", r, d, d) / n[:, None, None]
    elif form == "loop":
        C = np.stack([((x - m[k]).T * r[:, k]) @ (x - m[k]) / n[k] for k in range(len(n))])
    else:
        C = np.stack([np.cov(x.T, aweights=r[:, k], ddof=0).reshape(x.shape[1], -1) for k in range(len(n))])
    return n / len(x), m, C


def restrict(C: Any, w: Any, kind: str) -> Any:
    D = C.shape[1]
    if kind == "tied":
        return np.broadcast_to(np.einsum("k,kde->de", w, C), C.shape).copy()
    if kind == "diag":
        return C * np.eye(D)
    if kind == "spherical":
        return np.trace(C, axis1=1, axis2=2)[:, None, None] / D * np.eye(D)
    return C


def em_case(f: Any, p: Cloud, form: str, kind: str) -> Check:
    def step(x: Any, w: Any, m: Any, C: Any) -> Any:
        w, m, C = m_step(x, softmax(f(x, w, m, C)), form)
        return w, m, restrict(C, w, kind)

    return conformance.check_em(step, *p.data, covariance_type=kind)


for f, p, form, kind in (
    (log_joint_scipy, CLOUDS[0], "einsum", "full"),
    (log_joint_cholesky, CLOUDS[1], "loop", "tied"),
    (log_joint_einsum, CLOUDS[0], "cov", "diag"),
    (log_joint_cholesky, CLOUDS[3], "loop", "spherical"),
    (log_joint_scipy, CLOUDS[2], "einsum", "full"),
    (log_joint_cholesky, CLOUDS[0], "cov", "tied"),
):
    add(
        "check_em", f"{f.__name__[10:]}, {form}, {kind}; {p.name}", lambda f=f, p=p, o=form, k=kind: em_case(f, p, o, k)
    )


def statistics_case(f: Any, p: Cloud, form: str) -> Check:
    x, w, m, C = p.data

    def statistics() -> Any:
        joint = f(x, w, m, C)
        new_w, new_m, new_C = m_step(x, softmax(joint), form)
        return new_w * len(x), new_m, new_C, special.logsumexp(joint, axis=1).mean()

    return conformance.check_statistics(statistics, x, w, m, C)


def em_loop_case(f: Any, p: Cloud, form: str, n: int) -> Check:
    x, w, m, C = p.data

    def em() -> Any:
        state, values = (w, m, C), []
        for i in range(n + 1):
            joint = f(x, *state)
            values.append(special.logsumexp(joint, axis=1).mean())
            if i < n:
                state = m_step(x, softmax(joint), form)
        return values, *state

    return conformance.check_em_loop(em, x, w, m, C, n)


for i, (f, p) in enumerate(zip(itertools.cycle(LOG_JOINTS), CLOUDS[:4], strict=False)):
    form = ("einsum", "loop", "cov", "einsum")[i]
    add("check_statistics", f"{f.__name__[10:]}, {form}; {p.name}", lambda f=f, p=p, o=form: statistics_case(f, p, o))
    add(
        "check_em_loop",
        f"{f.__name__[10:]}, {form}, {(5, 2, 1, 10)[i]} steps; {p.name}",
        lambda f=f, p=p, o=form, n=(5, 2, 1, 10)[i]: em_loop_case(f, p, o, n),
    )


def covariance_types_case(D: int, K: int, floor: float, form: str) -> Check:
    S = np.stack([spread(D, k) for k in range(K)])
    counts = 3.0 + np.arange(K) * 2.5

    def clip(C: Any) -> Any:
        values, U = np.linalg.eigh(C)
        return (U * np.maximum(values, floor)) @ U.T

    def maximum(kind: str, variance: float, count: float) -> Any:
        eye = np.eye(D)
        total = counts[:, None, None] * S + count * variance * eye
        if kind == "tied":
            return np.stack([clip(total.sum(0) / (counts + count).sum())] * K)
        each = total / (counts + count)[:, None, None]
        if kind == "full":
            return np.stack([clip(C) for C in each])
        if form == "loop":
            diagonal = [[max(C[d, d], floor) for d in range(D)] for C in each]
            if kind == "diag":
                return [np.diag(v) for v in diagonal]
            return [max(sum(C[d, d] for d in range(D)) / D, floor) * eye for C in each]
        v = np.einsum("kdd->kd", each)
        v = v if kind == "diag" else np.repeat(v.mean(1, keepdims=True), D, 1)
        return np.maximum(v, floor)[:, :, None] * eye

    return conformance.check_covariance_types(maximum, S, counts, floor)


for D, K, floor, form in ((2, 3, 1e-6, "loop"), (3, 2, 0.3, "einsum"), (1, 2, 0.0, "loop"), (16, 4, 0.2, "einsum")):
    add(
        "check_covariance_types",
        f"{form}, floor {floor}, D = {D}, K = {K}",
        lambda D=D, K=K, v=floor, f=form: covariance_types_case(D, K, v, f),
    )


def lloyd(x: Any, c: Any, form: str) -> Any:
    label = None
    while True:
        square = (c**2).sum(1) - 2 * x @ c.T if form == "gram" else ((x[:, None] - c) ** 2).sum(2)
        new = square.argmin(1)
        if label is not None and (new == label).all():
            return c
        label = new
        c = np.stack([x[label == k].mean(0) for k in range(len(c))])


for p, form in zip(CLOUDS[:4], ("direct", "gram", "gram", "direct"), strict=True):
    add(
        "check_kmeans",
        f"{form}; {p.name}",
        lambda p=p, f=form: conformance.check_kmeans(lambda x, c: lloyd(x, c, f), p.data[0], p.data[0][: p.K].copy()),
    )


def table_em_case(N: int, D: int, K: int, L: int, pseudo: float, form: str) -> Check:
    g = rng(D + K)
    x = g.integers(0, L, (N, D))
    tables = g.dirichlet(np.full(L, 2.0), (K, D))
    w = g.dirichlet(np.full(K, 3.0))
    extra = pseudo * (1 + np.arange(L)) / L * np.ones((D, 1))

    def step(x: Any, w: Any, tables: Any) -> Any:
        x = x.astype(int)  # callables get float64 arrays
        hot = np.eye(L)[x]
        if form == "one-hot":
            joint = np.log(w) + np.einsum("ndl,kdl->nk", hot, np.log(tables))
        else:
            joint = np.stack([np.log(w[k]) + np.log(tables[k][np.arange(D), x]).sum(1) for k in range(K)], 1)
        log_p = special.logsumexp(joint, axis=1)
        r = np.exp(joint - log_p[:, None])
        counts = np.einsum("nk,ndl->kdl", r, hot) + extra
        return log_p, r.mean(0), counts / counts.sum(2, keepdims=True)

    return conformance.check_table_em(step, x, w, tables, extra)


for N, D, K, L, pseudo, form in (
    (20, 3, 2, 4, 0.5, "one-hot"),
    (30, 16, 3, 2, 0.0, "gather"),
    (10, 1, 2, 5, 2.0, "gather"),
    (40, 64, 4, 17, 1.0, "one-hot"),
):
    add(
        "check_table_em",
        f"{form}, pseudo-counts {pseudo}, N = {N}, D = {D}, K = {K}, {L} levels",
        lambda a=(N, D, K, L, pseudo, form): table_em_case(*a),
    )


# Whole numbers


def bins_by_sides(level: Any, mean: Any, std: float, n: int) -> Any:
    half = 1 / (n - 1)
    centre = level / (n - 1) * 2 - 1
    a, b = (centre - half - mean) / std, (centre + half - mean) / std
    a, b = np.where(level == 0, -np.inf, a), np.where(level == n - 1, np.inf, b)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        left = special.log_ndtr(b) + np.log1p(-np.exp(special.log_ndtr(a) - special.log_ndtr(b)))
        right = special.log_ndtr(-a) + np.log1p(-np.exp(special.log_ndtr(-b) - special.log_ndtr(-a)))
    return np.where(a + b > 0, right, left)


for n, means, std, form in (
    (2, [0.1, -0.7], 0.5, log_bin),
    (17, [0.0, 0.4, 1.3], 0.2, bins_by_sides),
    (256, [0.33, -0.9], 0.01, log_bin),
    (256, [0.05, 0.9], 0.3, bins_by_sides),
    (5, [3.0, -2.0], 1.0, log_bin),
):
    add(
        "check_bin_masses",
        f"{form.__name__}, {n} levels, std {std}",
        lambda n=n, m=means, s=std, f=form: conformance.check_bin_masses(
            lambda level, mean, width: f(level, mean, width, n), n, np.array(m), s
        ),
    )
for f, name, masses, D, scale in (
    (lambda nats, D, scale: (nats - D * np.log(scale)) / (D * np.log(2)), "nats first", [0.2, 0.3, 0.5], 2, 2 / 255),
    (lambda nats, D, scale: nats / D / math.log(2) - np.log2(scale), "bits first", [0.9, 0.1], 64, 1 / 128),
    (
        lambda nats, D, scale: [(v / D - math.log(scale)) / math.log(2.0) for v in nats],
        "lists",
        [1e-9, 0.4, 0.6 - 1e-9],
        1,
        1.0,
    ),
    (
        lambda nats, D, scale: (np.float32(nats) / np.float32(D) - np.float32(np.log(scale))) / np.float32(np.log(2)),
        "float32",
        [0.25, 0.05, 0.7],
        16,
        2.0,
    ),
):
    add(
        "check_bits_per_dim",
        f"{name}, D = {D}, scale {scale:.3g}",
        lambda f=f, m=masses, D=D, s=scale: conformance.check_bits_per_dim(f, np.array(m), D, s),
        single=name == "float32",
    )


# Networks


def silu_expit(z: Any) -> Any:
    s = special.expit(z)
    return z * s, s * (1 + z * (1 - s))


def silu_tanh(z: Any) -> Any:
    s = 0.5 * (1 + np.tanh(z / 2))
    return z * s, s + z * s * (1 - s)


def silu_torch(z: Any) -> Any:
    y = z.clone().requires_grad_()
    out = torch.nn.functional.silu(y)
    return out.detach(), torch.autograd.grad(out.sum(), y)[0]


for f, name, z in (
    (silu_expit, "expit", np.linspace(-800, 800, 33)),
    (silu_tanh, "tanh", np.linspace(-6, 6, 25)),
    (f32(silu_expit), "float32", np.linspace(-9, 9, 20)),
    *(((in_torch(silu_torch), "torch", np.linspace(-40, 40, 41)),) if torch is not None else ()),
):
    add(
        "check_activation",
        name,
        lambda f=f, z=z: conformance.check_activation(lambda v: f(v)[0], f, z),
        single=name == "float32",
    )

ACTIVATIONS: dict[str, Any] = {
    "silu": lambda z: silu_expit(z)[0],
    "tanh": np.tanh,
    "identity": lambda z: z,
    "sigmoid": special.expit,
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: z * special.ndtr(z),
}


def make_layers(sizes: Any) -> Any:
    g = rng(sum(sizes))
    return [
        (g.standard_normal((m, n)) / math.sqrt(m), 0.1 * g.standard_normal(n)) for m, n in itertools.pairwise(sizes)
    ]


def mlp_call(layers: Any, activation: str, form: str) -> Any:
    def call(x: Any) -> Any:
        for i, (W, b) in enumerate(layers):
            x = np.einsum("nm,mk->nk", x, W) + b if form == "einsum" else x @ W + b
            if i < len(layers) - 1:
                x = ACTIVATIONS[activation](x)
        return x

    return call


def mlp_torch(layers: Any, activation: str) -> Any:
    functional = {"silu": torch.nn.SiLU, "gelu": torch.nn.GELU, "relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
    modules = []
    for i, (W, b) in enumerate(layers):
        linear = torch.nn.Linear(*W.shape, dtype=torch.float64)
        linear.weight.data, linear.bias.data = torch.from_numpy(W.T.copy()), torch.from_numpy(b.copy())
        modules += [linear, *([functional[activation]()] if i < len(layers) - 1 else [])]
    return in_torch(torch.nn.Sequential(*modules))


for sizes, activation, form in (
    ((2, 16, 2), "silu", "einsum"),
    ((1, 5, 5, 1), "tanh", "matmul"),
    ((64, 128, 64), "gelu", "torch"),
    ((3, 4), "relu", "matmul"),
    ((16, 32, 32, 16), "silu", "torch"),
    ((3, 8, 3), "sigmoid", "float32"),
    ((2, 3, 2), "identity", "einsum"),
):
    if form == "torch" and torch is None:
        continue

    def mlp_case(sizes: Any = sizes, activation: str = activation, form: str = form) -> Check:
        layers = make_layers(sizes)
        call = mlp_torch(layers, activation) if form == "torch" else mlp_call(layers, activation, form)
        if form == "float32":
            call = f32(mlp_call([(W.astype(np.float32), b.astype(np.float32)) for W, b in layers], activation, form))
        return conformance.check_mlp(call, layers, rng(0).standard_normal((5, sizes[0])), activation)

    add("check_mlp", f"{form}, {activation}, {sizes}", mlp_case, single=form == "float32")


def jvp_case(sizes: Any, form: str) -> Check:
    layers = make_layers(sizes)
    call = mlp_call(layers, "tanh", "matmul")

    def forward(x: Any, v: Any) -> Any:
        for i, (W, b) in enumerate(layers):
            x, v = x @ W + b, v @ W
            if i < len(layers) - 1:
                x = np.tanh(x)
                v = (1 - x**2) * v
        return x, v

    def complex_step(x: Any, v: Any) -> Any:
        out = call(x + 1e-30j * v)
        return out.real, out.imag / 1e-30

    def by_torch(x: Any, v: Any) -> Any:
        def f(y: Any) -> Any:
            for i, (W, b) in enumerate(layers):
                y = y @ torch.from_numpy(W) + torch.from_numpy(b)
                y = torch.tanh(y) if i < len(layers) - 1 else y
            return y

        return torch.func.jvp(f, (x,), (v,))

    jvp = {"forward": forward, "complex step": complex_step, "torch": in_torch(by_torch), "float32": f32(forward)}[form]
    if form == "float32":
        layers[:] = [(W.astype(np.float32), b.astype(np.float32)) for W, b in layers]
        call = f32(call)
    g = rng(1)
    return conformance.check_jvp(jvp, call, g.standard_normal((4, sizes[0])), g.standard_normal((4, sizes[0])))


for sizes, form in (
    ((2, 16, 2), "forward"),
    ((1, 4, 4, 1), "complex step"),
    ((64, 32, 64), "torch"),
    ((3, 8, 16), "float32"),
):
    if form != "torch" or torch is not None:
        add("check_jvp", f"{form}, {sizes}", lambda s=sizes, f=form: jvp_case(s, f), single=form == "float32")


def noise_network_case(D: int, classes: int, form: str) -> Check:
    g = rng(D + classes)
    A, B = g.standard_normal((D, D)) / math.sqrt(D), g.standard_normal((classes, D))
    x, labels = g.standard_normal((5, D)), np.eye(classes)[np.arange(5) % classes]
    labels[-1] = 0
    angle = np.linspace(0.1, 1.4, 5)
    scale, std = (np.cos(angle), np.sin(angle)) if form != "EDM" else (np.ones(5), np.geomspace(0.01, 80, 5))

    def F(inputs: Any) -> Any:  # sees only x/r and the label
        return np.tanh(inputs[:, :D] @ A) + inputs[:, inputs.shape[1] - classes :] @ B

    coefficients = None
    if form == "EDM":  # ε̂ = (x − D(x))/σ with the preconditioning of Karras et al., σ_data = 1
        coefficients = std / (1 + std**2), -1 / np.sqrt(1 + std**2)

    def eps_hat(x: Any, scale: Any, std: Any) -> Any:
        scale, std = np.broadcast_to(scale, len(x)), np.broadcast_to(std, len(x))
        r = np.sqrt(scale**2 + std**2)
        out = np.tanh(x / r[:, None] @ A) + labels @ B
        if form == "EDM":
            c_skip, c_out = 1 / (1 + std**2), std / np.sqrt(1 + std**2)
            return (x - c_skip[:, None] * x - c_out[:, None] * out) / std[:, None]
        return (std / r**2)[:, None] * x + (scale / r)[:, None] * out

    return conformance.check_noise_network(eps_hat, F, x, scale, std, 4, labels, coefficients=coefficients)


for D, classes, form in ((2, 3, "plain"), (1, 2, "plain"), (16, 4, "plain"), (3, 2, "EDM")):
    add(
        "check_noise_network",
        f"{form}, D = {D}, {classes} classes",
        lambda D=D, c=classes, f=form: noise_network_case(D, c, f),
    )


def categorical_case(D: int, L: int, form: str) -> Check:
    g = rng(D + L)
    A = 0.3 * g.standard_normal((D, 4 * D))
    histograms = g.dirichlet(np.full(L, 3.0), D)
    levels = np.linspace(-1, 1, L)
    angle = np.linspace(0.2, 1.3, 4)
    scale, std = np.cos(angle), np.sin(angle)
    x = scale[:, None] * g.choice(levels, (4, D)) + std[:, None] * g.standard_normal((4, D))
    mean = histograms @ levels
    variance = histograms @ levels**2 - mean**2
    covariance = np.diag(variance)
    labels = np.eye(2)[[0, 1, 0, 1]]

    def F(inputs: Any) -> Any:  # sees only the first D inputs and the label
        return np.tanh(inputs[:, :D] @ A) + 0.1 * inputs[:, -1:]

    def law() -> Any:
        r = np.sqrt(scale**2 + std**2)
        features = (x - scale[:, None] * mean) / r[:, None]
        factors = (np.tanh(features @ A) + 0.1 * labels[:, -1:]).reshape(4, D, 4)
        if form == "(N, 4, D)":
            factors = (np.tanh(features @ A) + 0.1 * labels[:, -1:]).reshape(4, 4, D).transpose(0, 2, 1)
        basis = np.stack([np.arange(L) == 0, np.arange(L) == L - 1, levels, levels**2]).astype(float)
        logits = np.log(histograms) + stats.norm.logpdf(
            x[:, :, None], scale[:, None, None] * levels, std[:, None, None]
        )
        return special.softmax(logits + factors @ basis, axis=2)

    def eps_hat() -> Any:
        return (x - scale[:, None] * (law() @ levels)) / std[:, None]

    return conformance.check_categorical_denoiser(law, eps_hat, F, x, scale, std, histograms, covariance, 3, labels)


for D, L, form in ((1, 2, "(N, D, 4)"), (1, 5, "(N, D, 4)"), (1, 17, "(N, D, 4)")):  # the order for D > 1 is not said
    add(
        "check_categorical_denoiser", f"{form}, D = {D}, {L} levels", lambda D=D, n=L, f=form: categorical_case(D, n, f)
    )


def categorical_draw_case(N: int, D: int, L: int, form: str) -> Check:
    law = rng(L).dirichlet(np.ones(L), (N, D))

    def draw(u: Any) -> Any:
        edge = np.cumsum(law, axis=2)
        if form == "sum":
            return np.minimum((u[..., None] > edge).sum(2), L - 1)
        return [[min(int(np.searchsorted(edge[n, d], u[n, d])), L - 1) for d in range(D)] for n in range(N)]

    def from_above(u: Any) -> Any:
        return (np.cumsum(law[..., ::-1], axis=2)[..., ::-1] > u[..., None]).sum(2) - 1

    return conformance.check_categorical_draw(from_above if form == "from above" else draw, law)


for N, D, L, form in ((3, 2, 4, "sum"), (1, 1, 2, "searchsorted"), (2, 16, 17, "sum"), (4, 3, 3, "from above")):
    add(
        "check_categorical_draw",
        f"{form}, N = {N}, D = {D}, {L} levels",
        lambda a=(N, D, L, form): categorical_draw_case(*a),
    )


# Gradients, optimisers, training


def regression(D: int, P: int, seed: int = 0) -> Any:
    g = rng(seed + D)
    return g.standard_normal((12, D)), g.standard_normal((D, P)), g.standard_normal((12, P))


def gradient_case(P: int, form: str, dense: bool) -> Check:
    g = rng(P)
    A, b = g.standard_normal((9, P)), g.standard_normal(9)

    def loss(w: Any) -> Any:
        return float(((np.tanh(A @ w) - b) ** 2).sum())

    def by_hand(w: Any) -> Any:
        y = np.tanh(A @ w)
        return 2 * A.T @ ((y - b) * (1 - y**2))

    def by_complex(w: Any) -> Any:
        return [((np.tanh(A @ (w + 1e-30j * e)) - b) ** 2).sum().imag / 1e-30 for e in np.eye(P)]

    def by_torch(w: Any) -> Any:
        v = w.clone().requires_grad_()
        return torch.autograd.grad(((torch.tanh(torch.from_numpy(A) @ v) - torch.from_numpy(b)) ** 2).sum(), v)[0]

    gradient = {"by hand": by_hand, "complex step": by_complex, "torch": in_torch(by_torch)}[form]
    directions = np.eye(P) if not dense else g.standard_normal((3, P)) / math.sqrt(P)
    return conformance.check_gradient(loss, gradient, 0.5 * g.standard_normal(P), directions)


for P, form, dense in ((4, "by hand", False), (64, "torch", True), (1, "complex step", False), (16, "by hand", True)):
    if form != "torch" or torch is not None:
        add("check_gradient", f"{form}, P = {P}, dense {dense}", lambda P=P, f=form, d=dense: gradient_case(P, f, d))


def loss_gradient_case(D: int, form: str, scale: float) -> Check:
    g = rng(D)
    target = g.standard_normal((5, D))

    def losses(y: Any) -> Any:
        return [
            scale * math.fsum((u - v) ** 2 for u, v in zip(r, s, strict=True)) for r, s in zip(y, target, strict=True)
        ]

    def both(y: Any) -> Any:
        d = y - target
        return scale * np.einsum("nd,nd->n", d, d), 2 * scale * d

    def by_torch(y: Any) -> Any:
        v = y.clone().requires_grad_()
        out = scale * ((v - torch.from_numpy(target)) ** 2).sum(1)
        return out.detach(), torch.autograd.grad(out.sum(), v)[0]

    return conformance.check_loss_gradient(
        in_torch(by_torch) if form == "torch" else both, losses, g.standard_normal((5, D))
    )


for D, form, scale in ((2, "by hand", 1.0), (3, "torch", 0.5), (64, "by hand", 20.0), (16, "torch", 1e-3)):
    if form != "torch" or torch is not None:
        add(
            "check_loss_gradient",
            f"{form}, weight {scale}, D = {D}",
            lambda D=D, f=form, s=scale: loss_gradient_case(D, f, s),
        )


def noise_losses(W: Any, xs: Any, noise: Any) -> Any:
    return ((np.tanh(xs @ W) - noise) ** 2).sum(1)


def training_step_case(D: int, form: str, weighted: bool) -> Check:
    g = rng(D + 30)
    xs, noise = g.standard_normal((6, D)), g.standard_normal((6, D))
    weight = np.linspace(0.5, 2.0, 6) if weighted else 1.0

    def by_hand(w: Any) -> Any:
        W = w.reshape(D, D)
        y = np.tanh(xs @ W)
        slope = 2 * (y - noise) * (1 - y**2) * np.reshape(weight, (-1, 1)) / len(xs)
        return ((y - noise) ** 2).sum(1), (xs.T @ slope).ravel()

    def by_torch(w: Any) -> Any:
        v = w.clone().requires_grad_()
        out = ((torch.tanh(torch.from_numpy(xs) @ v.reshape(D, D)) - torch.from_numpy(noise)) ** 2).sum(1)
        (torch.as_tensor(weight) * out).mean().backward()
        return out.detach(), v.grad

    start = np.sign(g.standard_normal(D * D)) * (0.2 + g.random(D * D)) / math.sqrt(D)
    return conformance.check_training_step(
        in_torch(by_torch) if form == "torch" else by_hand,
        lambda w: noise_losses(w.reshape(D, D), xs, noise),
        start,
        weight,
    )


for D, form, weighted in ((2, "by hand", False), (3, "torch", True), (1, "by hand", True), (16, "torch", False)):
    if form != "torch" or torch is not None:
        add(
            "check_training_step",
            f"{form}, weights {weighted}, D = {D}",
            lambda D=D, f=form, w=weighted: training_step_case(D, f, w),
        )


def adam_numpy(w: Any, gradients: Any, lr: float, b1: float, b2: float, eps: float, decay: float) -> Any:
    m, v, out, w = 0.0, 0.0, [], w.copy()
    for k, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - lr * decay * w
        w = w - lr * (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps)
        out.append(w)
    return np.stack(out)


def adam_torch(w: Any, gradients: Any, lr: float, b1: float, b2: float, eps: float, decay: float) -> Any:
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    optimiser = kind([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    out = []
    for g in gradients:
        p.grad = torch.from_numpy(g.copy())
        optimiser.step()
        out.append(p.detach().numpy().copy())
    return np.stack(out)


for P, n, lr, b1, b2, eps, decay, form in (
    (3, 10, 1e-3, 0.9, 0.999, 1e-8, 0.0, "numpy"),
    (16, 50, 1e-2, 0.9, 0.99, 1e-8, 0.1, "torch"),
    (1, 5, 0.1, 0.5, 0.9, 1e-3, 0.0, "torch"),
    (64, 1000, 3e-4, 0.9, 0.95, 1e-8, 0.01, "numpy"),
    (5, 20, 1e-3, 0.9, 0.999, 1e-8, 0.0, "float32"),
):
    if form == "torch" and torch is None:
        continue

    def adam_case(a: Any = (P, n, lr, b1, b2, eps, decay, form)) -> Check:
        P, n, *options, form = a
        g = rng(P)
        run = {"numpy": adam_numpy, "torch": adam_torch, "float32": f32(adam_numpy)}[form]
        return conformance.check_adam(
            lambda w, gradients: run(w, gradients, *options),
            g.standard_normal(P),
            g.standard_normal((n, P)),
            *options,
            tolerance=1e-5 if form == "float32" else 1e-12,
        )

    add("check_adam", f"{form}, P = {P}, {n} steps, weight decay {decay}", adam_case)


def rate_mine(step: int, n: int, lr: float, warmup: int) -> float:
    if step < warmup:
        return lr * (step + 1) / warmup
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (n - warmup)))


def rate_square(step: int, n: int, lr: float, warmup: int) -> float:
    if step < warmup:
        return lr * ((step + 1) / warmup)
    return lr * math.cos(0.5 * math.pi * (step - warmup) / (n - warmup)) ** 2


def rate_transformers(step: int, n: int, lr: float, warmup: int) -> float:
    """As in transformers' get_cosine_schedule_with_warmup, which starts at 0."""
    if step < warmup:
        return lr * step / max(1, warmup)
    return lr * max(0.0, 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n - warmup))))


for f, n, lr, warmup in (
    (rate_mine, 100, 1e-3, 10),
    (rate_square, 50, 0.1, 0),
    (rate_transformers, 100, 3e-4, 0),
    (rate_transformers, 50, 1e-3, 5),
    (rate_square, 1000, 2e-4, 100),
):
    add(
        "check_learning_rate",
        f"{f.__name__[5:]}, {n} steps, warm-up {warmup}",
        lambda f=f, n=n, r=lr, w=warmup: conformance.check_learning_rate(lambda step: f(step, n, r, w), n, r, w),
    )


def average_loop(start: Any, w: Any, decay: float) -> Any:
    out, a = [], start.copy()
    for k, row in enumerate(w, 1):
        d = min(decay, (1 + k) / (10 + k))
        a = d * a + (1 - d) * row
        out.append(a)
    return np.stack(out)


def average_lerp(start: Any, w: Any, decay: float) -> Any:
    out, a = [], torch.from_numpy(start.copy())
    for k, row in enumerate(w, 1):
        a = torch.lerp(a, torch.from_numpy(row.copy()), 1 - min(decay, (1 + k) / (10 + k)))
        out.append(a.tolist())
    return out


for f, P, n, decay in (
    (average_loop, 3, 20, 0.999),
    (average_lerp, 16, 1000, 0.995),
    (average_loop, 1, 5, 0.2),
    (average_loop, 8, 2000, 0.9999),
):
    if f is not average_lerp or torch is not None:
        add(
            "check_moving_average",
            f"{f.__name__[8:]}, P = {P}, {n} steps, decay {decay}",
            lambda f=f, P=P, n=n, d=decay: conformance.check_moving_average(
                lambda s, w: f(s, w, d), rng(P).standard_normal(P), rng(P + 1).standard_normal((n, P)), d
            ),
        )


def training_case(D: int, n: int, decay: float, ema: float | None, warmup: int, form: str) -> Check:
    g = rng(D + 40)
    xs, noise = g.standard_normal((n, 6, D)), g.standard_normal((n, 6, D))
    lr, P = 1e-2, D * D

    def loss(w: Any, i: int) -> float:
        return float(noise_losses(w.reshape(D, D), xs[i], noise[i]).mean())

    def slope(w: Any, i: int) -> Any:
        y = np.tanh(xs[i] @ w.reshape(D, D))
        return (xs[i].T @ (2 * (y - noise[i]) * (1 - y**2)) / 6).ravel()

    def train(w: Any) -> Any:
        losses, a = [], w.copy()
        m, v, w = np.zeros(P), np.zeros(P), w.copy()
        parameter = torch.nn.Parameter(torch.from_numpy(w.copy())) if form == "torch" else None
        optimiser = torch.optim.AdamW([parameter], lr=lr, weight_decay=decay) if form == "torch" else None
        for i in range(n):
            losses.append(loss(w, i))
            rate = rate_mine(i, n, lr, warmup)
            if optimiser is not None:
                optimiser.param_groups[0]["lr"] = rate
                parameter.grad = torch.from_numpy(slope(w, i))
                optimiser.step()
                w = parameter.detach().numpy().copy()
            else:
                s = slope(w, i)
                m, v = 0.9 * m + 0.1 * s, 0.999 * v + 0.001 * s * s
                w = w * (1 - rate * decay)
                w = w - rate * (m / (1 - 0.9 ** (i + 1))) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
            if ema is not None:
                d = min(ema, (2 + i) / (11 + i))
                a = d * a + (1 - d) * w
        return losses, w, a

    start = 0.5 * g.standard_normal(P)
    return conformance.check_training(train, loss, start, n, lr, warmup, decay, ema)


for D, n, decay, ema, warmup, form in (
    (2, 20, 0.0, None, 0, "numpy"),
    (3, 30, 0.01, 0.99, 5, "numpy"),
    (2, 10, 0.1, 0.9, 0, "torch"),
    (1, 50, 0.0, 0.999, 10, "numpy"),
):
    if form != "torch" or torch is not None:
        add(
            "check_training",
            f"{form}, {n} steps, warm-up {warmup}, weight decay {decay}, average {ema}, D = {D}",
            lambda a=(D, n, decay, ema, warmup, form): training_case(*a),
        )

CASES = tuple(FOUND)
