"""torchsde: its solvers on the reverse SDE of a diffusion, with given increments, and its Brownian motion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torchsde

from benchmarks.conformance import Finding
from benchmarks.conformance.torch_ import tensor
from scratchgen import VE, VP
from scratchgen.conformance import check_reverse_sampler
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import waves

NAME = "torchsde"


class Given(torchsde.BaseBrownian):
    """Increments √(t_b − t_a) z for one given z."""

    def __init__(self, z: Any) -> None:
        super().__init__()
        self.z = tensor(z)

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        return float(tb - ta) ** 0.5 * self.z

    def __repr__(self) -> str:
        return "Given"

    dtype = torch.float64
    device = torch.device("cpu")
    levy_area_approximation = "none"
    shape = property(lambda self: self.z.shape)


class Reverse:
    """The reverse SDE in the time r = horizon − t."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, sde: Any, score: Any, stochasticity: float) -> None:
        self.sde, self.score, self.stochasticity = sde, score, stochasticity

    def f(self, r: Any, x: Any) -> Any:
        t = self.sde.horizon - float(r)
        pull = 0.5 * (1 + self.stochasticity**2) * float(self.sde.diffusion(t)) ** 2
        return tensor(-float(self.sde.rate(t)) * x.detach().numpy() + pull * self.score(x.detach().numpy(), t))

    def g(self, r: Any, x: Any) -> Any:
        return torch.full_like(x, self.stochasticity * float(self.sde.diffusion(self.sde.horizon - float(r))))


def integrate(sde: Any, x: Any, ends: Any, z: Any, method: str) -> Any:
    return (
        torchsde.sdeint(sde, tensor(x), tensor(ends), Given(z), method, dt=float(ends[1] - ends[0]))[-1]
        .detach()
        .numpy()
    )


def findings() -> Iterator[Finding]:
    def score(x: Any, t: float) -> Any:
        return -x + 0.3 * np.sin(x + t)

    for sde, label in ((VP(0.3, 4.0, 1.7), "VP"), (VE(0.1, 5.0), "VE")):
        times = sde.horizon * np.array([1.0, 0.8, 0.5, 0.4, 0.1])
        for eta in (0.0, 0.7, 1.0):

            def sample(x: Any, grid: Any, noise: Any, sde: Any = sde, eta: float = eta) -> Any:
                reverse = Reverse(sde, score, eta)
                for (t, s), z in zip(pairwise(grid), noise, strict=True):
                    x = integrate(reverse, x, [sde.horizon - t, sde.horizon - s], z, "euler")
                return x

            check = check_reverse_sampler(sample, score, sde, times, eta)
            yield Finding(NAME, f"sdeint, method='euler', reverse SDE of {label}, η = {eta:g}", check)
    yield from milstein()
    yield from brownian()


def milstein() -> Iterator[Finding]:
    """dy = a y dt + b y dW; Itô: y (1 + a h + b w + ½ b² (w² − h)), Stratonovich without the h."""
    a, b, h, y, z = -0.7, 0.4, 0.3, waves(4, 3), waves(4, 3, shift=1.0)
    w = np.sqrt(h) * z

    class Geometric:
        noise_type = "diagonal"

        def __init__(self, kind: str) -> None:
            self.sde_type = kind

        def f(self, t: Any, y: Any) -> Any:
            return a * y

        def g(self, t: Any, y: Any) -> Any:
            return b * y

    middle = y * (1 + 0.5 * b * w)  # of the midpoint method, with the drift
    for kind, method, right in (
        ("ito", "euler", y * (1 + a * h + b * w)),
        ("ito", "milstein", y * (1 + a * h + b * w + b**2 / 2 * (w**2 - h))),
        ("stratonovich", "milstein", y * (1 + a * h + b * w + b**2 / 2 * w**2)),
        ("stratonovich", "midpoint", y + (a * h + b * w) * (middle + 0.5 * a * h * y)),
        ("stratonovich", "heun", y * (1 + (a * h + b * w) + (a * h + b * w) ** 2 / 2)),
    ):
        left = integrate(Geometric(kind), y, [0.0, h], z, method)
        check = compare("one step of a y dt + b y dW", "(30)", "y after the step", left, right, 1e-12)
        yield Finding(NAME, f"sdeint, method='{method}', {kind}, geometric", check)


def brownian() -> Iterator[Finding]:
    """W(b) − W(a) adds up over a path."""
    cuts = [0.0, 0.1, 0.35, 0.6, 1.0]

    def check(W: Any) -> Check:
        parts = sum(W(a, b) for a, b in pairwise(cuts))
        return compare("W(0, 1) = Σ W(a, b)", "(30)", "increments", parts.numpy(), W(0.0, 1.0).numpy(), 1e-12)

    for cls in (torchsde.BrownianInterval, torchsde.BrownianTree, torchsde.BrownianPath):
        given = {"size": (2, 3), "entropy": 1, "t1": 1.0, "dtype": torch.float64}
        if cls is torchsde.BrownianTree:
            given = {"w0": torch.zeros(2, 3, dtype=torch.float64), "t1": 1.0, "entropy": 1}
        if cls is torchsde.BrownianPath:
            given = {"w0": torch.zeros(2, 3, dtype=torch.float64)}
        yield Finding(NAME, f"{cls.__name__}, increments over a partition", check(cls(t0=0.0, **given)))
