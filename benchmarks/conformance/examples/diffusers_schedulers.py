"""DDPMScheduler of diffusers: `scratchgen audit diffusers_schedulers.py`.

A scheduler holds no network; the audit is of the functions of the chain.  Its tables are float32.
`step` adds no noise in the last step, and draws the noise of the others; here it gets the given noise.
"""

from __future__ import annotations

import importlib
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


def audit_me() -> dict[str, Any]:
    from diffusers import DDPMScheduler

    ddpm = DDPMScheduler(clip_sample=False, variance_type="fixed_large")
    module = importlib.import_module(DDPMScheduler.__module__)

    def step(t: int, x_t: Tensor, output: Tensor, noise: Tensor) -> Tensor:
        with patch.object(module, "randn_tensor", lambda *_, **__: noise):
            return ddpm.step(output, t, x_t).prev_sample

    def predict_x0(t: int, x_t: Tensor, output: Tensor) -> Tensor:
        return ddpm.step(output, t, x_t).pred_original_sample

    return {
        "betas": ddpm.betas,
        "zero_based": True,
        "last_noise": False,
        "arrays": torch.as_tensor,
        "alphas_cumprod": ddpm.alphas_cumprod,
        "q_sample": lambda t, x0, noise: ddpm.add_noise(x0, noise, torch.full((len(x0),), t)),
        "predict_x0": predict_x0,
        "step": step,
    }
