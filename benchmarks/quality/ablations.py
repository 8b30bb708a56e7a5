"""The effect of each choice on the bits of validation images: one change of a recipe at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from benchmarks.quality.digits import as_record, bits, validation
from benchmarks.quality.records import Options, Record, Unit, settings_of, trained
from scratchgen import DDPM, NoiseSchedule, ScoreSDE, recipes
from scratchgen.ddpm import LEVEL_STEPS
from scratchgen.models.ddpm import ESTIMATED

BASE = "recipe"
CHANGED, NETWORK = "fast", "best"  # recipes of the score SDE: that the ablations change, and that the chains share
CHANGES: dict[str, dict[str, Any]] = {
    BASE: {},
    "another seed": {},
    "noise prediction in place of levels": {"prediction": "v", "picture": None, "network": "mlp", "dropout": 0.0},
    "no augmentation": {"augment": None},
    "no local network": {"picture": None},
    "plain MLP": {"network": "mlp", "dropout": 0.0},
    "no dropout": {"dropout": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no moving average": {"ema_decay": 0.0},
    "moving average of 0.9999": {"ema_decay": 0.9999},
    "half the batch": {"batch_size": 128},
    "weighting noise": {"weighting": "noise"},
    "stratified times": {"time_choice": "stratified"},
    "uniform times": {"time_choice": "uniform"},
    "half the steps": {"n_steps": 0.5},
    "twice the steps": {"n_steps": 2.0},
}
SCHEDULES = {
    "linear, T = 100": lambda: NoiseSchedule.linear(100),
    "linear, T = 1000": lambda: NoiseSchedule.linear(1000),
    "cosine, T = 50": lambda: NoiseSchedule.cosine(50),
    "log-SNR 8 to -7, T = 50": lambda: NoiseSchedule.log_snr_even(50, 8.0, -7.0),
    "log-SNR 5.5 to -7, T = 50": lambda: NoiseSchedule.log_snr_even(50, 5.5, -7.0),
    "log-SNR 4.5 to -7, T = 50": lambda: NoiseSchedule.log_snr_even(50, 4.5, -7.0),
    "log-SNR 3.5 to -7, T = 50": lambda: NoiseSchedule.log_snr_even(50, 3.5, -7.0),
    "log-SNR 4.5 to -5.5, T = 50": lambda: NoiseSchedule.log_snr_even(50, 4.5, -5.5),
    "log-SNR 4.5 to -7, T = 25": lambda: NoiseSchedule.log_snr_even(25, 4.5, -7.0),
    "log-SNR 4.5 to -7, T = 100": lambda: NoiseSchedule.log_snr_even(100, 4.5, -7.0),
}
VARIANCES = ("beta", "posterior", *ESTIMATED, *LEVEL_STEPS)


def units(options: Options) -> Iterator[Unit]:
    """A training for every change that changes something."""
    known = {argument.name for argument in fields(ScoreSDE) if argument.init}
    for name, changes in CHANGES.items():
        arguments = dict(recipes.find("digits", "sde", CHANGED).arguments)
        own = {key: value for key, value in changes.items() if key in known}
        if "n_steps" in own:
            own["n_steps"] = round(own["n_steps"] * arguments["n_steps"])
        if own or not changes:
            yield _ablation(name, {**arguments, **own}, options, seed=int(name == "another seed"))


def _ablation(name: str, arguments: dict[str, Any], options: Options, seed: int) -> Unit:
    model = ScoreSDE(**options.planned(arguments), rng=seed)

    def run() -> Record:
        fit, held_out = validation()
        fitted, seconds = trained(model, fit.images, options)
        found = bits(fitted, options.few(held_out.images), options)
        return {"seconds": seconds, "rows": np.round(found.rows, 4)} | as_record(found)

    return Unit("ablations", name, 0, [settings_of(model), options.n_times], run)


def chains(options: Options) -> Iterator[Unit]:
    """Bits of a DDPM for every schedule and variance, with the network of the recipe; nothing else is trained."""
    model = ScoreSDE(**options.planned(dict(recipes.find("digits", "sde", NETWORK).arguments)), rng=0)
    for title, make in SCHEDULES.items():
        schedule = make()
        if not options.quick or schedule.T <= 25:
            for variance in VARIANCES:
                yield _chain(f"{title}; {variance}", model, schedule, variance, options)


def _chain(name: str, model: ScoreSDE, schedule: NoiseSchedule, variance: str, options: Options) -> Unit:
    def run() -> Record:
        fit, held_out = validation()
        fitted, _ = trained(model, fit.images, options)
        chain = fitted.share_network_with(DDPM(schedule, variance))
        if variance in ESTIMATED:
            x = chain.to_model(options.few(fit.images)).astype(np.float32)
            chain._estimate_variance(x, np.random.default_rng(0))
        return as_record(bits(chain, options.few(held_out.images), options))

    log_snr = np.log(schedule.snr[1:]).tolist()
    return Unit("chains", name, 0, [settings_of(model), log_snr, variance, options.n_times], run)
