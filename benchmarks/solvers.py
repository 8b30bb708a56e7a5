"""Quality of samples against calls of the network, on eight Gaussians: `python -m benchmarks.solvers`.

The samplers draw from a trained score model and from the exact score.  All share the network, whose levels are those of
VP().  The quality is KL(p‖p_θ) of their samples, with both laws smoothed by N(0, 0.05²).  The smoothed p is exact, and
the smoothed density of the samples is a mean over kernels, 50,000 for the trained and 100,000 for the exact score.  The
KL is corrected for the bias of this mean, by the means over the two halves.  For 100,000 samples of p itself the result
is 0.0001 with a standard deviation of 0.0001.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from scratchgen import Mixture, ScoreSDE, datasets, to_ddpm
from scratchgen.sde import exponential_sampler, predict_x0, reverse_times
from scratchgen.validation import Array

TRUTH = datasets.eight_gaussians()
OPTIONS: dict[str, Any] = {"hidden": (128, 128), "n_coordinate_features": 3, "standardize": False}
CALLS = (10, 15, 20, 25, 30, 50, 100, 250)
SMOOTH, CELL, REACH = 0.05, 0.0125, 3.0  # std of the kernel, width of a cell, half the width of the grid
MANY = ("Euler-Maruyama", "ancestral, even in t")  # samplers that need more than 50 calls
BEST = "multistep, c = 1 (default)"


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


Sampler = Callable[[ScoreSDE, int, int, int], Array]
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
Table = dict[str, dict[int, list[float]]]  # sampler -> calls -> KL for each seed


def measure(title: str, models: list[ScoreSDE], size: int, table: Table) -> Iterator[str]:
    """Fill `table`, with one KL a model, and yield Markdown; cells are means and ranges over the models."""
    yield f"| {title} | {' | '.join(f'{n} calls' for n in CALLS)} |"
    yield f"|---|{'---|' * len(CALLS)}"
    for name, sampler in SAMPLERS.items():
        table[name], cells = {}, []
        for n in CALLS:
            if n > 50 and name not in MANY:
                cells.append("–")
                continue
            found = [smoothed_kl(sampler(model, n, size, 100 + seed)) for seed, model in enumerate(models)]
            table[name][n] = found
            cells.append(f"{np.mean(found):.4f} ({min(found):.4f} to {max(found):.4f})")
        yield f"| {name} | {' | '.join(cells)} |"


def draw(tables: dict[str, Table], path: Path) -> None:
    """KL against calls, a panel for each table."""
    from matplotlib.figure import Figure

    figure = Figure((12, 4.5), layout="constrained")
    for axes, (title, table) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
        for name, row in table.items():
            means = np.maximum([np.mean(v) for v in row.values()], 1e-4)
            axes.loglog(list(row), means, "o-" if name == BEST else ".--", label=name, lw=2.5 if name == BEST else 1)
        axes.set(title=title, xlabel="calls of the network", ylabel="KL(p‖p_θ), nats", xticks=CALLS, xticklabels=CALLS)
        axes.minorticks_off()
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train a model for every seed, draw, and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000, help="of training")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="a .png or .svg file; needs matplotlib")
    options = parser.parse_args()
    threadpool_limits(1, user_api="blas")
    trained = [
        ScoreSDE(time_choice="importance", n_steps=options.steps, rng=seed, **OPTIONS).fit(TRUTH.sample(20000, seed))
        for seed in range(options.seeds)
    ]
    exact = [ScoreSDE(n_steps=1, rng=seed, **OPTIONS).fit(TRUTH.sample(100, seed)) for seed in range(options.seeds)]
    for model in exact:
        model.network_ = ExactNoise()  # type: ignore[assignment]
    tables: dict[str, Table] = {"exact score": {}, "trained": {}}
    for (title, table), models, size in zip(
        tables.items(), (exact, trained), (2 * options.samples, options.samples), strict=True
    ):
        for line in measure(title, models, size, table):
            print(line, flush=True)
        print()
    if options.figure is not None:
        draw(tables, options.figure)


if __name__ == "__main__":
    main()
