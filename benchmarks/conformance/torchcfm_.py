"""torchcfm: conditional flow matching; u_t is compared with the derivative of the path along fixed noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torchcfm

from benchmarks.conformance import Finding
from benchmarks.conformance.torch_ import tensor
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import waves

NAME = "torchcfm"
FLOOR = "1e-8 is added to 2 t (1 − t) and to σ²: relative errors of this size"
EXACT = (
    "the default ot_method='exact' couples by optimal transport without entropy and ignores σ; the Schrödinger bridge "
    "has the entropic plan of regularisation 2σ² (ot_method='sinkhorn')"
)
TIMES = np.array([0.07, 0.3, 0.5, 0.82, 0.95])


def findings() -> Iterator[Finding]:
    for matcher, cause in (
        (torchcfm.ConditionalFlowMatcher(0.1), ""),
        (torchcfm.ExactOptimalTransportConditionalFlowMatcher(0.1), ""),
        (torchcfm.TargetConditionalFlowMatcher(0.1), ""),
        (torchcfm.VariancePreservingConditionalFlowMatcher(0.1), ""),
        (torchcfm.SchrodingerBridgeConditionalFlowMatcher(0.5), FLOOR),
    ):
        name = type(matcher).__name__
        yield Finding(NAME, f"{name}.compute_conditional_flow", velocity(matcher), cause)
        if cause:
            check = score_weight(matcher)
            yield Finding(NAME, f"{name}.compute_lambda", check, cause)
    for method, cause in (("exact", EXACT), ("sinkhorn", "")):
        label = " (the default)" if method == "exact" else ""
        check = coupling(torchcfm.SchrodingerBridgeConditionalFlowMatcher(1.5, method))
        yield Finding(NAME, f"SchrodingerBridgeConditionalFlowMatcher(1.5), ot_method='{method}'{label}", check, cause)


def velocity(matcher: Any) -> Check:
    """d/dt (μ_t + σ_t ε) by a central difference of sixth order."""
    x0, x1, noise = (waves(5, 3, shift=float(i)) for i in range(3))

    def path(t: Any) -> Any:
        return matcher.sample_xt(tensor(x0), tensor(x1), tensor(t), tensor(noise)).numpy()

    h, weights = 1e-3, {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    right = sum(w * (path(TIMES + k * h) - path(TIMES - k * h)) for k, w in weights.items()) / h
    t = tensor(TIMES)
    left = matcher.compute_conditional_flow(tensor(x0), tensor(x1), t[:, None], tensor(path(TIMES)))
    return compare("dx_t/dt", "", "velocity of every example", left, right, 1e-10)


def score_weight(matcher: Any) -> Check:
    """λ_t (σ²/2) ∇log p_t(x | x_0, x_1) = −ε, so that the network learns the drift that the diffusion σ needs."""
    std = matcher.sigma * np.sqrt(TIMES * (1 - TIMES))
    left = matcher.compute_lambda(tensor(TIMES)).numpy() * matcher.sigma**2 / 2 / std
    return compare("λ_t σ²/2 over σ_t", "", "1 at every t", left, np.ones(5), 1e-12)


def coupling(matcher: Any) -> Check:
    """The plan P ∝ a_i b_j exp(−‖x_i − y_j‖²/(2σ²)), with the marginals ½, of two points each: closed form."""
    x, y = waves(2, 3), waves(2, 3, shift=1.0)
    cost = ((x[:, None] - y[None]) ** 2).sum(axis=2)
    odds = np.exp((cost[0, 1] + cost[1, 0] - cost[0, 0] - cost[1, 1]) / (2 * matcher.sigma**2) / 2)
    p = odds / (1 + odds) / 2
    left = matcher.ot_sampler.get_map(tensor(x), tensor(y))
    return compare("entropic plan", "", "plan of two points", left, [[p, 0.5 - p], [0.5 - p, p]], 1e-8)
