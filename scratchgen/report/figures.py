"""The figures of the tour, drawn with matplotlib into PNG files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from scratchgen import DDPM, PPCA, GaussianMixture, Mixture, ScoreSDE, datasets
from scratchgen.ddpm import q_sample
from scratchgen.grading import OneLatent, grade_vae, nearest_gaussian
from scratchgen.models.files import write_atomically
from scratchgen.report.chapters.em import joint_kl_path
from scratchgen.report.tour import Tour, standardized_penguins
from scratchgen.report.transport import transport_decoder
from scratchgen.validation import Array

N_POINTS = 2000  # of every scatter plot
DATA, MODEL, EXACT = "0.55", "C0", "C3"  # grey data, blue model, red exact answer


def draw_all(tour: Tour, folder: Path) -> list[Path]:
    """Draw every figure into `folder` and return the files."""
    drawings: dict[str, Callable[[Tour], Figure]] = {
        "em": em_figure,
        "em-joint-kl": joint_kl_figure,
        "vae-digits": vae_figure,
        "vae-latents": latents_figure,
        "vae-drawback": drawback_figure,
        "ddpm-process": ddpm_process_figure,
        "ddpm-digits": ddpm_digits_figure,
        "ddpm-ladder": ladder_figure,
        "sde-process": sde_process_figure,
        "sde-scores": scores_figure,
        "sde-trajectories": trajectories_figure,
        "sde-digits": sde_digits_figure,
        "excess-loss": excess_figure,
        "losses": losses_figure,
    }
    paths = []
    for name, draw in drawings.items():
        paths.append(folder / f"{name}.png")
        write_atomically(paths[-1], lambda file, draw=draw: draw(tour).savefig(file, format="png", dpi=110))  # type: ignore[misc]
    return paths


def figure(rows: int, columns: int, size: float = 2.6, **options: Any) -> tuple[Figure, Any]:
    """A figure with a grid of square axes; the axes are always a 2-D array."""
    drawing = Figure(figsize=(size * columns, size * rows), layout="constrained")
    return drawing, drawing.subplots(rows, columns, squeeze=False, **options)


def scatter(axes: Any, points: Array, title: str, color: str = MODEL, reach: float = 3.0) -> None:
    """Points in a square window."""
    axes.scatter(*points.T, s=1.5, color=color, alpha=0.5, linewidths=0)
    ticks = (-2, 0, 2)
    axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), xticks=ticks, yticks=ticks, aspect="equal")


def show_digits(axes: Any, images: Array, columns: int, title: str) -> None:
    """A grid of 8x8 images with levels 0..16, white to black; values are rounded down, which inverts dequantisation."""
    rows = len(images) // columns
    canvas = np.full((9 * rows - 1, 9 * columns - 1), np.nan)
    for i, image in enumerate(np.floor(images[: rows * columns])):
        top, left = 9 * (i // columns), 9 * (i % columns)
        canvas[top : top + 8, left : left + 8] = image.reshape(8, 8)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
    axes.set(title=title)
    axes.set_axis_off()


def ellipses(axes: Any, mixture: Mixture, color: str, label: str, coordinates: tuple[int, int] = (0, 1)) -> None:
    """The two-standard-deviation ellipse of every component."""
    pick = np.array(coordinates)
    for k, (mean, covariance) in enumerate(zip(mixture.means, mixture.covariances, strict=True)):
        values, vectors = np.linalg.eigh(covariance[np.ix_(pick, pick)])
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        axes.add_patch(
            Ellipse(
                mean[pick],
                *(4 * np.sqrt(values[::-1])),
                angle=angle,
                fill=False,
                color=color,
                lw=1.5,
                label=label if k == 0 else None,
            )
        )


def em_figure(tour: Tour) -> Figure:
    """Ellipses of the fitted and of the true mixture, clusters of the penguins, and the bounds over the iterations."""
    drawing, ((left, middle, right),) = figure(1, 3, 3.8)
    truth, fitted = datasets.gaussians_2d(), tour.models["mixture"]
    scatter(left, truth.sample(N_POINTS, tour.seed), "EM on a known mixture", DATA, 4.0)
    ellipses(left, truth, EXACT, "generator")
    ellipses(left, fitted.mixture_, MODEL, "fitted")
    left.legend(loc="upper right")
    penguins, names = standardized_penguins(), datasets.penguins().feature_names
    model: GaussianMixture = tour.models["penguins"]
    species = datasets.penguins()
    for k, (name, color) in enumerate(zip(species.species_names, ("#e69f00", "#009e73", "#cc79a7"), strict=True)):
        middle.scatter(*penguins[species.species == k][:, [0, 2]].T, s=6, color=color, label=name)
    ellipses(middle, model.mixture_, MODEL, "fitted", (0, 2))
    middle.set(
        title="EM on penguins, 3 components", xlabel=names[0] + " (standardised)", ylabel=names[2] + " (standardised)"
    )
    middle.legend(fontsize="small", loc="upper left")
    for key, label in (("mixture", "known mixture"), ("penguins", "penguins")):
        bounds = tour.models[key].lower_bounds_
        right.semilogy(np.maximum(bounds[-1] - bounds[:-1], 1e-12), label=label)
    right.set(title="distance of the ELBO to its last value", xlabel="iteration", ylabel="nats")
    right.legend()
    return drawing


def joint_kl_figure(tour: Tour) -> Figure:
    """Alternating minimisation: the joint KL after every half-step, and its convergence."""
    drawing, ((left, right),) = figure(1, 2, 4.2)
    penguins, halves = standardized_penguins(), 13
    for key, name, color in (("ppca", "PPCA, 2 factors", "C0"), ("factors", "factor analysis, 1 factor", "C1")):
        path = joint_kl_path(tour.models[key], penguins)
        left.plot(path[:halves], color=color, lw=1, drawstyle="steps-post")
        left.plot(range(0, halves, 2), path[:halves:2], "o", color=color, ms=5, label=f"{name}: after E, KL(p‖p_θ)")
        left.plot(range(1, halves, 2), path[1:halves:2], "v", color=color, ms=5, mfc="w", label=f"{name}: after M")
        gains = -np.diff(path[::2])
        right.loglog(np.arange(1, len(gains) + 1), np.maximum(gains, 1e-14), color=color, label=name)
    left.set(title="KL(p(x) q(z|x) ‖ p_θ(x, z)), penguins", xlabel="half-step: E M E M …", ylabel="nats")
    left.legend(fontsize="small")
    right.set(title="fall of KL(p‖p_θ) in an iteration", xlabel="iteration", ylabel="nats")
    right.legend(fontsize="small")
    return drawing


def vae_figure(tour: Tour) -> Figure:
    """Digits, their reconstructions, and decoded samples of the prior."""
    drawing, ((left, middle, right),) = figure(1, 3, 4.2)
    model, x_test = tour.models["vae_levels"], datasets.digits("test").images
    show_digits(left, x_test[:64], 8, "test digits")
    show_digits(middle, model.reconstruct(x_test[:64]), 8, "VAE: reconstructions")
    z = np.random.default_rng(tour.seed).standard_normal((64, model.n_latents))
    show_digits(right, model.decode(z), 8, "VAE: decoder means at z ~ N(0, I)")
    return drawing


def latents_figure(tour: Tour) -> Figure:
    """Decoded values of each latent, and the mean KL of its posterior."""
    drawing, ((left, right),) = figure(1, 2, 4.4)
    model, x_test = tour.models["vae_levels"], datasets.digits("test").images
    mean, variance = model.encode(x_test)
    rate = 0.5 * (mean**2 + variance - 1 - np.log(variance)).mean(axis=0)
    order, values = np.argsort(rate)[::-1], np.linspace(-2.5, 2.5, 9)
    z = np.zeros((model.n_latents, len(values), model.n_latents))
    for row, latent in enumerate(order):
        z[row, :, latent] = values
    show_digits(
        left, model.decode(z.reshape(-1, model.n_latents)), len(values), "one latent from −2.5 to 2.5, others 0"
    )
    names = [f"z{latent + 1}" for latent in order]
    for row, name in enumerate(names):
        left.text(-1.5, 9 * row + 4, name, ha="right", va="center")
    right.barh(names, rate[order], color=MODEL)
    right.invert_yaxis()
    right.set(title="E KL(q(z_i|x)‖N(0, 1)), test digits", xlabel="nats; 0 is a collapsed latent")
    return drawing


def drawback_figure(tour: Tour) -> Figure:
    """Gaussian encoder and decoder: possible densities, their cost in nats, and a posterior that is not Gaussian."""
    drawing, ((left, middle, right),) = figure(1, 3, 4.2)
    truth, model = datasets.gaussians_1d(), tour.models["one_latent"]
    x = np.linspace(-2.6, 3.0, 400)[:, None]
    left.plot(x, np.exp(truth.log_prob(x)), color=EXACT, label="p")
    for s, style in ((0.5, ":"), (0.2, "--"), (0.05, "-.")):
        left.plot(x, np.exp(truth.diffuse(1.0, s).log_prob(x)), "k", ls=style, lw=1, label=f"p_θ, F⁻¹∘Φ, s = {s:g}")
    trained = f"p_θ, trained, s = {model.decoder_variance_[0] ** 0.5:.2g}"
    left.plot(x, np.exp(grade_vae(model, x).log_prob), color=MODEL, label=trained)
    left.set(title="marginals of Gaussian decoders", xlabel="x")
    left.legend(fontsize="small")
    levels = {float(name[4:]): gaps for name, gaps in tour.drawback.items() if name.startswith("s = ")}
    for column, label in enumerate(("KL(p‖p_θ)", "least gap of a Gaussian q(z|x)")):
        middle.loglog(list(levels), [gaps[column] for gaps in levels.values()], "o-", label=label)
    middle.axhline(tour.drawback["best Gaussian"][0], color="0.5", ls="--", label="KL(p‖best Gaussian)")
    middle.set(title="decoder F⁻¹∘Φ with noise s", xlabel="s", ylabel="nats")
    middle.legend(fontsize="small")
    s, point = 0.2, -0.3
    decoder = OneLatent(transport_decoder(truth), 2 * np.log(s))
    ((z, log_density),) = decoder.log_joints(np.array([[point]]))
    posterior = np.exp(log_density - log_density.max())
    right.plot(z, posterior / posterior.sum() / (z[1] - z[0]), color=EXACT, label=f"p_θ(z | x = {point:g})")
    mean, std, kl = nearest_gaussian(z, log_density)
    q = np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    right.plot(z, q, color=MODEL, label=f"nearest Gaussian, KL {kl:.2f} nats")
    right.set(title=f"a posterior, s = {s:g}", xlabel="z", xlim=(-2.0, 1.5))
    right.legend(fontsize="small")
    return drawing


def snapshots(path: Iterable[tuple[float, Array]], times: Iterable[float]) -> dict[float, Array]:
    """The first point of a path with falling times at or below each given time."""
    wanted, found = sorted(times, reverse=True), {}
    for t, x in path:
        while wanted and t <= wanted[0] + 1e-9:
            found[wanted.pop(0)] = x
    return found


def ddpm_process_figure(tour: Tour) -> Figure:
    """Top: the forward process.  Bottom: the learned reverse process."""
    model: DDPM = tour.models["ddpm"]
    schedule, times = model.schedule_, [0, 10, 25, 50, 100]
    x0 = datasets.eight_gaussians().sample(N_POINTS, tour.seed)
    noise = np.random.default_rng(tour.seed).standard_normal(x0.shape)
    reverse = snapshots(model.sample_path(N_POINTS, tour.seed), times)
    drawing, axes = figure(2, len(times))
    for column, t in enumerate(times):
        scatter(
            axes[0, column], q_sample(schedule, t, x0, noise) if t else x0, f"forward, t = {t}" if t else "data", DATA
        )
        scatter(axes[1, column], reverse[t], f"reverse, t = {t}" if t else "DDPM samples")
    name_rows(axes)
    return drawing


def name_rows(axes: Any) -> None:
    """The direction of time beside two rows of panels with equal times: forward above, reverse below."""
    axes[0, 0].set_ylabel("time runs  →")
    axes[1, 0].set_ylabel("←  time runs")


def ddpm_digits_figure(tour: Tour) -> Figure:
    """Samples, and one row of images per time step."""
    return digits_figure(tour.models["ddpm_digits"], tour, [100, 60, 40, 25, 15, 8, 0], "DDPM: samples")


def sde_process_figure(tour: Tour) -> Figure:
    """Top: exact diffused data.  Bottom: the reverse SDE."""
    model: ScoreSDE = tour.models["sde"]
    times = [model.t_min, 0.05, 0.15, 0.4, 1.0]
    truth = datasets.eight_gaussians()
    reverse = snapshots(model.sample_path(N_POINTS, tour.seed), times)
    drawing, axes = figure(2, len(times))
    for column, t in enumerate(times):
        scatter(
            axes[0, column],
            truth.diffuse(*model.sde_.level(t)).sample(N_POINTS, tour.seed),
            f"exact p_t, t = {t:g}",
            DATA,
        )
        scatter(axes[1, column], reverse[t], f"reverse SDE, t = {t:g}")
    name_rows(axes)
    return drawing


def scores_figure(tour: Tour) -> Figure:
    """Above: the learned and the exact score field at several times.  Below: the error of the learned one."""
    model: ScoreSDE = tour.models["sde"]
    truth, times = datasets.eight_gaussians(), [0.02, 0.1, 0.3, 0.8]
    axis = np.linspace(-2.7, 2.7, 19)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    fine = np.linspace(-3.0, 3.0, 121)
    plane = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
    drawing, axes = figure(2, len(times), 3.4)
    for panel, below, t in zip(*axes, times, strict=True):
        diffused = truth.diffuse(*model.sde_.level(t))
        density = np.exp(diffused.log_prob(plane)).reshape(121, 121)
        panel.imshow(density, cmap="Greys", origin="lower", extent=(-3, 3, -3, 3), alpha=0.5)
        seen = (
            diffused.log_prob(points) > diffused.log_prob(plane).max() - 12
        )  # almost no data: the score is not learned there
        for field, color, width in (
            (diffused.score(points), EXACT, 0.008),
            (model.predict_score(points, t), MODEL, 0.004),
        ):
            length = np.linalg.norm(field, axis=1, keepdims=True)
            arrows = (field / np.sqrt(length))[seen]  # square roots of the lengths, because scores span three decades
            panel.quiver(*points[seen].T, *arrows.T, color=color, width=width, scale=45)
        error = np.linalg.norm(model.predict_score(plane, t) - diffused.score(plane), axis=1)
        relative = np.where(density.ravel() > 1e-4 * density.max(), error * model.sde_.level(t)[1], np.nan)
        image = below.imshow(
            relative.reshape(121, 121), cmap="viridis", origin="lower", extent=(-3, 3, -3, 3), vmin=0, vmax=1
        )
        for axis in (panel, below):
            axis.set(xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        panel.set(title=f"t = {t:g}: exact red, learned blue")
        below.set(title="‖s_θ − ∇log p_t‖ · std")
    drawing.colorbar(image, ax=axes[1, -1], shrink=0.8)
    return drawing


def trajectories_figure(tour: Tour) -> Figure:
    """On the line: paths of the forward SDE, the reverse SDE and the probability flow over the density p_t."""
    model: ScoreSDE = tour.models["sde_line"]
    truth, process = datasets.gaussians_1d(), model.sde_
    x, times = np.linspace(-3.2, 3.2, 201)[:, None], np.linspace(0, process.horizon, 201)
    density = np.stack([np.exp(truth.diffuse(*process.level(t)).log_prob(x)) for t in times.tolist()], axis=1)
    rng = np.random.default_rng(tour.seed)
    forward = [truth.sample(8, rng)[:, 0]]
    for t, s in pairwise(times):  # the exact transition from t to s
        ratio = np.exp(process.log_scale(s) - process.log_scale(t))
        spread = np.sqrt(process.std(s) ** 2 - (ratio * process.std(t)) ** 2)
        forward.append(ratio * forward[-1] + spread * rng.standard_normal(8))
    paths = {"forward SDE, (31)": (times, np.array(forward))}
    for title, stochasticity in (("reverse SDE, (32), learned score", 1.0), ("probability flow, learned score", 0.0)):
        steps = list(model.sample_path(8, tour.seed, stochasticity=stochasticity))
        paths[title] = np.array([t for t, _ in steps]), np.array([x[:, 0] for _, x in steps])
    drawing, axes = figure(1, 3, 4.2)
    for panel, (title, (t, path)) in zip(axes[0], paths.items(), strict=True):
        panel.pcolormesh(times, x[:, 0], density**0.5, cmap="Greys", shading="auto", alpha=0.6)
        panel.plot(t, path, lw=0.8)
        panel.set(title=title, xlabel="t", ylim=(-3.2, 3.2), xlim=(0, process.horizon))
    return drawing


def ladder_figure(tour: Tour) -> Figure:
    """Entropy, exact cross-entropy and bound of one DDPM, with all or some of its steps."""
    drawing, ((axes,),) = figure(1, 1, 5.0)
    T, entropy = np.array(list(tour.ladder)), datasets.eight_gaussians().entropy()
    exact, bound, best = np.array(list(tour.ladder.values())).T
    axes.plot(T, bound, "o-", color=MODEL, label="−ELBO")
    axes.plot(T, best, color=EXACT, ls="--", label="−ELBO with the exact denoiser")
    axes.plot(T, exact, "s-", color="C1", label="−E log p_θ(x₀), on a grid")
    axes.axhline(entropy, color=EXACT, label="H(p)")
    axes.set(title="DDPM, eight Gaussians: H(p) ≤ −E log p_θ ≤ −ELBO", xlabel="T, steps of one network", ylabel="nats")
    axes.set(xscale="log", xticks=T, xticklabels=T, xlim=(9, 111))
    axes.minorticks_off()
    axes.legend(fontsize="small")
    return drawing


def sde_digits_figure(tour: Tour) -> Figure:
    """Samples, and one row of images per time."""
    model: ScoreSDE = tour.models["sde_digits"]
    return digits_figure(model, tour, [1.0, 0.6, 0.4, 0.25, 0.15, 0.08, model.t_min], "reverse SDE: samples")


def digits_figure(model: DDPM | ScoreSDE, tour: Tour, times: list[float], title: str) -> Figure:
    """Digits from noise to data, with samples and training images."""
    drawing, ((left, middle, right),) = figure(1, 3, 4.2)
    path = snapshots(model.sample_path(8, tour.seed), times)
    show_digits(
        left,
        np.concatenate([model.to_data(path[t]) for t in times]),
        8,
        f"from noise, t = {times[0]:g}, to digits, t = {times[-1]:g}",
    )
    show_digits(middle, model.sample(64, tour.seed), 8, title)
    show_digits(right, datasets.digits("train").images[:64], 8, "training digits")
    return drawing


def excess_figure(tour: Tour) -> Figure:
    """Bayes loss and excess loss of the noise predictors against log-SNR, in two and in 64 dimensions."""
    drawing, ((left, right),) = figure(1, 2, 5.0)
    for color, (name, (log_snr, grades)) in zip(("C0", "C1"), tour.noise_grades.items(), strict=True):
        draw_grades(left, log_snr, grades, color, name)
    left.set(title="eight Gaussians: E‖ε − ε̂‖² = Bayes + excess", ylim=(1e-6, 4))
    assert tour.tables_grades is not None
    draw_grades(right, *tour.tables_grades, "C2", "score model")
    right.set(title="64 pixels of 17 levels from 10 tables", ylim=(1e-5, 200))
    return drawing


def draw_grades(axes: Any, log_snr: Array, grades: Sequence[NamedTuple], color: str, name: str) -> None:
    """The excess loss and the Bayes loss, which no predictor can undercut."""
    bayes, excess = np.array(grades).T[:2]
    axes.semilogy(log_snr, excess, color=color, label=f"{name}: excess over Bayes")
    axes.semilogy(log_snr, bayes, color=color, ls="--", lw=1, label=f"{name}: Bayes loss (exact)")
    axes.set(xlabel="log-SNR (clean data to the right)")
    axes.legend(fontsize="small")


def losses_figure(tour: Tour) -> Figure:
    """Batch losses of all models that were trained by gradient."""
    names = {
        "linear_vae": "linear VAE, penguins",
        "vae": "VAE, digits",
        "ddpm": "DDPM, eight Gaussians",
        "ddpm_digits": "DDPM, digits",
        "sde": "score model, eight Gaussians",
        "sde_line": "score model, on the line",
        "sde_tables": "score model, tables",
        "sde_digits": "score model, digits",
    }
    drawing, axes = figure(2, 4, 3.2)
    for panel, (key, title) in zip(axes.flat, names.items(), strict=True):
        losses = tour.models[key].losses_
        window = max(len(losses) // 100, 1)
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        panel.plot(losses, color="0.85", lw=0.5)
        panel.plot(np.arange(len(smooth)) + window // 2, smooth, color=MODEL)
        low, high = np.quantile(smooth, [0.0, 0.95])
        panel.set(
            title=title,
            xlabel="step",
            ylabel="nats" if "vae" in key or key.startswith("ddpm") else "E‖ε − ε̂‖²",
            ylim=(low - 0.2 * (high - low), high + 0.5 * (high - low)),
        )
    penguins = standardized_penguins()
    axes[0, 0].axhline(-PPCA(2).fit(penguins).score(penguins), color=EXACT, ls="--", label="PPCA (exact)")
    axes[0, 0].legend()
    return drawing
