"""Training that cannot go well: learning rates and data that are too large, and one bad value."""

import copy
import re
import warnings
from collections import Counter

import numpy as np

from scratchgen import DDPM, PPCA, VAE, CategoricalMixture, FactorAnalysis, GaussianMixture, LinearVAE, ScoreSDE
from scratchgen.ddpm import loss_weight
from scratchgen.ddpm import train as train_noise
from scratchgen.nn import EMA, Adam, NoiseNetwork
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VP, TimeSampler
from scratchgen.sde.training import train as train_scores
from scratchgen.timestep_sampling import TimestepSampler
from scratchgen.vae import VAENetwork, random_batch
from scratchgen.vae import train as train_vae
from tests.reliability.models import REALS, numbers
from tests.reliability.report import Figure

MODELS = {
    "VAE": lambda: VAE(2, hidden=(16,), n_steps=40, rng=0),
    "LinearVAE": lambda: LinearVAE(1, n_steps=40, rng=0),
    "DDPM": lambda: DDPM(NoiseSchedule.linear(20), hidden=(16,), n_steps=40, rng=0),
    "ScoreSDE": lambda: ScoreSDE(hidden=(16,), n_steps=40, n_sample_steps=20, rng=0),
    "ScoreSDE sliced": lambda: ScoreSDE(matching="sliced", hidden=(16,), n_steps=40, n_sample_steps=20, rng=0),
    "PPCA": lambda: PPCA(1),
    "PPCA by EM": lambda: PPCA(1, method="em", max_iter=50, rng=0),
    "FactorAnalysis": lambda: FactorAnalysis(1, max_iter=50, rng=0),
    **{f"GaussianMixture {t}": lambda t=t: GaussianMixture(2, t, rng=0) for t in ("full", "tied", "diag", "spherical")},
    "CategoricalMixture": lambda: CategoricalMixture(2, 4, rng=0),
}
DATA = {
    "data": REALS,
    **{f"data times {c:g}": REALS * c for c in (1e8, 1e20, 1e-20, 1e59, 1e-160, 1e160)},
    **{f"one value of {v:g}": np.vstack([REALS, [v, 0.0, 0.0]]) for v in (1e9, 1e20, 1e37, 1e160, np.nan)},
}
RATES = [None, 1e3, 1e30, 1e-300]
UPDATES = [  # learning_rate and weight_decay with which a step, or some steps, make the parameters overflow
    *[(rate, 0.0) for rate in (1e20, 1e30, 1e37, 1e39, 1e100, 1e160, 1e300, 1.7e308)],
    *[(1e300, 1e3), (1e30, 1e10), (1e10, 1e30), (1e20, 1e19), (1e300, 1e300), (1e-5, 1e30), (0.1, 1e3), (1e-3, 1e8)],
]


def outcome(model, x):
    """ "finite", "error", or what is wrong: NaN that was returned, a warning, or a raw error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "EM has not converged|components .* have collapsed", RuntimeWarning)
            model.fit(x)
            said = model.sample(30, rng=1), np.asarray(model.elbo(x[:5], rng=1))
    except (ValueError, ArithmeticError) as error:
        return "clear error" if len(str(error)) > 40 else f"short error {error}"
    except Exception as error:
        return f"raw {type(error).__name__}"
    return "finite" if all(np.isfinite(part).all() for part in said) else "NaN"


def tried():
    """Names and outcomes of all models, data and learning rates."""
    for name, make in MODELS.items():
        for label, x in DATA.items():
            for rate in RATES if hasattr(make(), "learning_rate") else [None]:
                for units in (True, False) if hasattr(make(), "standardize") else (None,):
                    model = make()
                    if rate is not None:
                        model.set_params(learning_rate=rate)
                    if units is not None:
                        model.set_params(standardize=units)
                    yield f"{name}, {label}, learning_rate {rate}, standardize {units}", outcome(model, x)


def refits():
    """Names of models that lose numbers when a second fit fails.

    Networks keep the last good parameters of the second fit, other models the whole first fit.
    """
    for name, make in MODELS.items():
        x = np.abs(REALS).astype(int) % 4 if name == "CategoricalMixture" else REALS
        model = make().fit(x)
        first = numbers(model)
        trains = hasattr(model, "learning_rate")
        try:
            if trains:
                model.set_params(learning_rate=1e30).fit(x)
            else:
                model.fit(np.full_like(x, 1e160, dtype=float))
        except (ValueError, ArithmeticError):
            finite = all(np.isfinite(getattr(model, key)).all() for key in model._fitted)
            if not finite or (not trains and numbers(model) != first):
                yield name
        else:
            yield f"{name}: no error"


def overflowing_updates():
    """Names of models that keep an update that overflows, or other parameters than the error names.

    The first fit is good.  The second one has 1 step or 40, and ends with an error or with finite parameters.
    """
    for name, make in MODELS.items():
        good = make()
        if not hasattr(good, "learning_rate"):
            continue
        first, params = numbers(good.fit(REALS)), good.get_params()
        for rate, decay in UPDATES:
            changes = {"learning_rate": rate} | ({"weight_decay": decay} if decay else {})
            if not changes.keys() <= params.keys():
                continue
            for n_steps, early in (1, False), (40, False), (40, True):
                model = copy.deepcopy(good).set_params(**changes, n_steps=n_steps, early_stopping=early)
                seen = [weights(model)]
                error = failure(lambda model=model, seen=seen: seen.extend(weights(model) for _ in model.train(REALS)))
                wrong = wrong_end(error, seen, weights(model))
                if len(seen) == 1 and numbers(model.set_params(**params)) != first:
                    wrong = "the old fit is lost"
                if wrong:
                    yield f"{name}, {changes}, {n_steps} steps, early_stopping={early}: {wrong}"


def weights(model):
    """Copies of the parameters of a model."""
    return [getattr(model, name).copy() for name in model._weights]


def failure(loop):
    """The error in which a training ends, or None; a warning is an error as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            loop()
        except (ArithmeticError, ValueError, RuntimeWarning) as error:
            return error
    return None


def wrong_end(error, seen, kept):
    """The fault of the arrays that a training kept, as text; `seen` has the arrays before it and after every step."""
    if not all(np.isfinite(part).all() for part in kept):
        return "not finite"
    if error is None:
        return ""
    step = re.match(r"training diverged in step (\d+): .*; .*lower learning_rate", str(error))
    if not step and "learning_rate" not in str(error):
        return f"unclear: {error}"
    if step and int(step[1]) < len(seen):  # the bound after a step was not finite
        return "another step"
    return "" if all(map(np.array_equal, kept, seen[-1])) else "not those of the step before"


def loops(x, adam_options, **options):
    """Name of each training loop, 50 steps on x, (N, 3), the arrays with parameters that it changes, and its Adams."""
    rng, schedule, sde = np.random.default_rng(0), NoiseSchedule.linear(10), VP()
    for name in "DDPM", "ScoreSDE", "VAE":
        if name == "VAE":
            network = VAENetwork(3, 1, (8,), rng=0)
            parts = [part for part, _ in network.parts]
            adams = [Adam(part, **adam_options) for part in parts]
            draw = lambda x, rng: random_batch(x, rng, 1, 8)  # noqa: E731
            steps = train_vae(network, x, 50, rng, draw, adams=adams, **options)
        else:
            network = NoiseNetwork(3, (8,), rng=0)
            adams, ema = [Adam(network.parameters, **adam_options)], EMA(network.parameters.copy())
            parts = [network.parameters, ema.average]
            loop = {"rng": rng, "adam": adams[0], "ema": ema, "batch_size": 8} | options
            if name == "DDPM":
                sampler, factors = TimestepSampler(10, "uniform"), loss_weight(schedule, "simple", schedule.beta**2)
                loop |= {"sampler": sampler, "weights": factors, "prediction": "v"}
                steps = train_noise(network, schedule, x, 50, **loop)
            else:
                steps = train_scores(network, sde, x, 50, sampler=TimeSampler(sde, 1e-3), **loop)
        yield name, steps, parts, adams


def bad_batches():
    """Names of training loops that, on data with one NaN, raise no error or lose their parameters."""
    x = REALS.astype(np.float32)
    x[7, 1] = np.nan
    for name, steps, parts, _ in loops(x, {}):
        done = 0
        try:
            for _ in steps:
                done += 1
            yield f"{name}: no error"
        except (ArithmeticError, ValueError):
            if not all(np.isfinite(part).all() for part in parts):
                yield f"{name}: parameters lost after {done} steps"


def overflowing_loops():
    """Names of training loops that keep parameters or an average that overflow, or that are not of the step named.

    In the last case the weight decay becomes too large after step 3.
    """
    for rate, decay in [*UPDATES, (1e-3, 0.0)]:
        for name, steps, parts, adams in loops(REALS.astype(np.float32), {"weight_decay": decay}, learning_rate=rate):
            seen = [[part.copy() for part in parts]]

            def run(steps=steps, parts=parts, adams=adams, seen=seen):
                for _ in steps:
                    seen.append([part.copy() for part in parts])
                    for adam in adams if len(seen) == 4 else ():
                        adam.weight_decay = 1e300

            error = failure(run)
            if wrong := wrong_end(error, seen, parts) or ("" if error else "no error"):
                yield f"{name}, learning_rate {rate:g}, weight_decay {decay:g}: {wrong}"


def measure(quick):
    """Figures of divergence."""
    results = list(tried())
    found = Counter(word for _, word in results)
    wrong = [name for name, word in results if word not in ("finite", "clear error")]
    lost, batches = list(refits()), list(bad_batches())
    updates = [*overflowing_updates(), *overflowing_loops()]
    return [
        Figure(
            f"{len(results)} fits with learning rates from 1e-300 to 1e30 and data from 1e-160 to 1e160",
            "finite samples and bounds, or a clear error",
            ", ".join(f"{count} {word}" for word, count in found.items()) + (f": {wrong}" if wrong else ""), not wrong,
            "finite samples may be poor: a rate of 1e3 need not overflow",
        ),
        Figure(
            f"{len(MODELS)} refits that fail", "the old fit, or the last good parameters of the new one",
            f"{len(lost)} lost {lost or ''}".strip(), not lost, "one cause of failure a model",
        ),
        Figure(
            "three training loops on data with one NaN", "an error, parameters and average finite",
            f"{len(batches)} wrong {batches or ''}".strip(), not batches,
            "models refuse NaN before training, so that only users of the loops meet this",
        ),
        Figure(
            f"updates that overflow, with {len(UPDATES)} learning rates and weight decays up to 1.7e308",
            "finite parameters and averages, of the step that the error names; the old fit if it is the first step",
            f"{len(updates)} wrong {updates or ''}".strip(), not updates,
            "every model that trains, 1 step and 40, with and without early stopping; and the three loops",
        ),
    ]  # fmt: skip
