"""Quality of samples against calls of the network, on eight Gaussians: `python -m benchmarks.solvers`.

The samplers draw from the exact score, a trained score model and a trained DDPM.  In a table all share a network, whose
levels are those of VP().  The quality is KL(p‖p_θ) of their samples, with both laws smoothed by N(0, 0.05²).  The
smoothed p is exact, and the smoothed density of the samples is a mean over kernels, 100,000 for the exact score and
50,000 for the others.  The KL is corrected for the bias of this mean, by the means over the two halves.  For 100,000
samples of p itself the result is 0.0001 with a standard deviation of 0.0001.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.markdown import Suite, publish
from benchmarks.timing import pin_to_one_core, start_with_one_thread
from scratchgen import DDPM, Mixture, ScoreSDE, datasets, to_ddpm
from scratchgen.sde import exponential_sampler, predict_x0, reverse_times
from scratchgen.validation import Array

TRUTH = datasets.eight_gaussians()
OPTIONS: dict[str, Any] = {"hidden": (128, 128), "n_coordinate_features": 3, "standardize": False}
CALLS = (10, 15, 20, 25, 30, 50, 100, 250)
SEEDS, STEPS, SAMPLES = 3, 4000, 50_000
SMOOTH, CELL, REACH = 0.05, 0.0125, 3.0  # std of the kernel, width of a cell, half the width of the grid
CHAIN_CALLS = (20, 30, 100)  # of a DDPM with T = 100
MANY = ("Euler-Maruyama", "ancestral, even in t", "multistep, c = 1, even in t")  # also with more than 50 calls
BEST, BEST_OF_CHAIN = "multistep, c = 1 (default)", "multistep, c = 1, sinh steps"


def smoothed_kl(x: Array, law: Mixture = TRUTH) -> float:
    """KL(p‖p_θ), nats, of the smoothed `law` p and the smoothed law of samples x, (N, 2), corrected for its bias."""
    edges = np.arange(-REACH, REACH + CELL / 2, CELL)
    middles = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = law.diffuse(1.0, SMOOTH).log_prob(points)
    log_mass = log_p + 2 * np.log(CELL)
    seen = log_mass > -28  # cells with more mass than 1e-12
    width = np.sqrt((SMOOTH / CELL) ** 2 - 1 / 12)  # a histogram adds the variance CELL²/12

    def kl(x: Array) -> float:
        counts = np.histogram2d(*x.T, bins=[edges, edges])[0]
        mass = gaussian_filter(counts / len(x), width, mode="constant", truncate=24).ravel()[seen]
        return float(np.exp(log_mass[seen]) @ (log_mass[seen] - np.log(mass)))

    half = len(x) // 2
    return 2 * kl(x) - (kl(x[:half]) + kl(x[half:])) / 2


class ExactNoise:
    """E[ε | x_t] = −std ∇log p_t of eight Gaussians, as a network; the components have one variance and one weight."""

    def __call__(self, x: Array, scale: float, std: float, **_: Any) -> Array:
        variance = scale**2 * TRUTH.covariances[0, 0, 0] + std**2
        logits = x @ (scale / variance * TRUTH.means).T.astype(x.dtype)  # the means have one length
        law = np.exp(logits - logits.max(axis=1, keepdims=True))
        law /= law.sum(axis=1, keepdims=True)
        out: Array = float(std / variance) * (x - float(scale) * (law @ TRUTH.means.astype(x.dtype)))
        return out

    def vjp(self, *_: Any) -> Any:
        """No sampler differentiates the network."""
        raise NotImplementedError


def by_sde(model: ScoreSDE, n: int, size: int, seed: int, **given: Any) -> Array:
    """Samples of `ScoreSDE.sample` with n steps."""
    return model.set_params(n_sample_steps=n).sample(size, seed, **given)


def by_chain(model: ScoreSDE, n: int, size: int, seed: int, **given: Any) -> Array:
    """Samples of the chain of n steps with the same network."""
    chain = to_ddpm(model, n)
    chain.network_ = model.network_
    return chain.sample(size, seed, **given)


def on_even_grid(model: ScoreSDE, n: int, size: int, seed: int, stochasticity: float) -> Array:
    """Multistep samples with levels evenly spaced in log-SNR."""
    rng = np.random.default_rng(seed)
    levels = np.stack(model.sde_.marginal(reverse_times(model.sde_, n - 1, model.t_min)), axis=1)
    x_T = rng.standard_normal((size, 2), dtype=np.float32)
    path = exponential_sampler(
        partial(predict_x0, model.network_), x_T, np.vstack([levels, [1.0, 0.0]]), rng, stochasticity
    )
    *_, (_, x) = path
    return model.to_data(x)


def respaced(model: DDPM, n: int, size: int, seed: int, sinh: bool = False, **given: Any) -> Array:
    """Samples of a DDPM with n of its steps, evenly spaced or those of `sinh_steps`."""
    return model.respace(model.schedule_.sinh_steps(n) if sinh else n).sample(size, seed, **given)


Sampler = Callable[[Any, int, int, int], Array]
SAMPLERS: dict[str, Sampler] = {
    "Euler-Maruyama": partial(by_sde, method="euler"),
    "ancestral, even in t": by_chain,
    "DDIM, even in t": partial(by_chain, eta=0.0),
    "Heun": lambda model, n, size, seed: by_sde(model, n // 2, size, seed, method="heun", stochasticity=0.0),
    "multistep, c = 0": partial(by_sde, stochasticity=0.0),
    "multistep, c = 0.5": partial(by_sde, stochasticity=0.5),
    BEST: by_sde,
    "multistep, c = 1, even in log-SNR": partial(on_even_grid, stochasticity=1.0),
}
CHAIN_SAMPLERS: dict[str, Sampler] = {
    "ancestral, even in t": respaced,
    "ancestral, sinh steps": partial(respaced, sinh=True),
    "DDIM, even in t": partial(respaced, eta=0.0),
    "multistep, c = 1, even in t": partial(respaced, stochasticity=1.0),
    "multistep, c = 0, sinh steps": partial(respaced, sinh=True, stochasticity=0.0),
    BEST_OF_CHAIN: partial(respaced, sinh=True, stochasticity=1.0),
}
Table = dict[str, dict[int, list[float]]]  # sampler -> calls -> KL for each seed


def measure(
    title: str,
    models: Sequence[Any],
    size: int,
    table: Table,
    samplers: dict[str, Sampler],
    calls: tuple[int, ...],
) -> Iterator[str]:
    """Fill `table`, with one KL a model, and yield Markdown; cells are means and ranges over the models."""
    yield f"| {title} | {' | '.join(f'{n} calls' for n in calls)} |"
    yield f"|---|{'---|' * len(calls)}"
    for name, sampler in samplers.items():
        table[name], cells = {}, []
        for n in calls:
            if n > 50 and name not in MANY:
                cells.append("–")
                continue
            found = [smoothed_kl(sampler(model, n, size, 100 + seed)) for seed, model in enumerate(models)]
            table[name][n] = found
            spread = f" ({min(found):.4f} to {max(found):.4f})" if len(found) > 1 else ""
            cells.append(f"{np.mean(found):.4f}{spread}")
        yield f"| {name} | {' | '.join(cells)} |"


def draw(tables: dict[str, Table], path: Path) -> None:
    """KL against calls, a panel for each table; a KL below 0.0001 is drawn there."""
    from matplotlib.figure import Figure

    figure = Figure((6 * len(tables), 5), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        for name, row in table.items():
            means = np.maximum([np.mean(v) for v in row.values()], 1e-4)
            best = name in (BEST, BEST_OF_CHAIN)
            axes.loglog(list(row), means, "o-" if best else ".--", label=name, lw=2.5 if best else 1)
        calls = sorted({n for row in table.values() for n in row})
        axes.set(title=title, xlabel="calls of the network", xticks=calls, xticklabels=calls)
        axes.minorticks_off()
        axes.legend(fontsize="small")
    panels[0].set_ylabel("KL(p‖p_θ), nats, at least 0.0001")
    panels[0].yaxis.set_major_formatter("{x:g}")
    figure.savefig(path, dpi=110)


def run(n_seeds: int, n_steps: int, size: int, tables: dict[str, Table]) -> Iterator[str]:
    """Train the models for every seed, draw samples of each, and fill `tables`; yield Markdown."""
    seeds, data = range(n_seeds), [TRUTH.sample(20_000, seed) for seed in range(n_seeds)]
    recipe: dict[str, Any] = {"weighting": "bound", "step_choice": "importance"}
    exact = [ScoreSDE(n_steps=1, rng=seed, **OPTIONS).fit(data[seed][:100]) for seed in seeds]
    for model in exact:
        model.network_ = ExactNoise()  # type: ignore[assignment]
    trained = [
        ScoreSDE(time_choice="importance", n_steps=n_steps, rng=seed, **OPTIONS).fit(data[seed]) for seed in seeds
    ]
    chains = [DDPM(n_steps=n_steps, rng=seed, **recipe, **OPTIONS).fit(data[seed]) for seed in seeds]
    parts: dict[str, tuple[Sequence[Any], int, dict[str, Sampler], tuple[int, ...]]] = {
        "exact score": (exact, 2 * size, SAMPLERS, CALLS),
        "trained": (trained, size, SAMPLERS, CALLS),
        "DDPM, T = 100": (chains, size, CHAIN_SAMPLERS, CHAIN_CALLS),
    }
    for title, (models, n, samplers, calls) in parts.items():
        yield from measure(title, models, n, tables.setdefault(title, {}), samplers, calls)
        yield ""


def suite(quick: bool, rounds: int) -> Suite:
    """The tables of `main`; `quick` takes one seed, trains a tenth as long and draws a fifth of the samples."""
    tables: dict[str, Table] = {}
    yield from run(*((1, STEPS // 10, SAMPLES // 5) if quick else (SEEDS, STEPS, SAMPLES)), tables)
    return tables


def main() -> None:
    """Print three Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replaces the tables in FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="a .png or .svg file; needs matplotlib")
    options = parser.parse_args()
    start_with_one_thread("benchmarks.solvers")
    pin_to_one_core()
    tables: dict[str, Table] = {}
    publish(run(options.seeds, options.steps, options.samples, tables), options.markdown)
    if options.figure is not None:
        draw(tables, options.figure)


if __name__ == "__main__":
    main()
