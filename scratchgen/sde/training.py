"""Training on (33): denoising score matching, and the implicit and sliced forms, whose losses do not contain ε.

    repeat
        x_0 ~ q(x_0),  ε ~ N(0, I),  t ~ a law on [t_min, T]
        x_t = scale · x_0 + std · ε
        take a gradient step on ∇_θ λ(t) ‖s_θ(x_t, t) + ε/std‖²
    until converged

The network predicts ε̂, and s_θ = −ε̂/std.  `TimeSampler` draws t.  The distribution of t determines λ(t).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from scratchgen.augmentation import Copies, check_copies
from scratchgen.nn import (
    EMA,
    NO_LABEL,
    Adam,
    NoiseNetwork,
    NoisePredictor,
    check_adam,
    check_average,
    check_loop,
    check_network,
    check_step,
    check_update,
    cosine_decay,
    drop_labels,
)
from scratchgen.sde.matching import denoising_error, sliced_error
from scratchgen.sde.processes import LinearSDE, check_noise, check_process
from scratchgen.timestep_sampling import STEP_CHOICES, TimestepSampler, check_sampler, stratified
from scratchgen.validation import (
    Array,
    IntArray,
    as_arrays,
    as_choice,
    as_count,
    as_finite,
    as_labels,
    as_number,
    check_levels,
    check_not_empty,
    check_rng,
    column,
)

MATCHINGS = ("denoising", "implicit", "sliced", "sliced-vr")
DIRECTIONS = ("rademacher", "gaussian")
WEIGHTINGS = ("likelihood", "noise")
N_CELLS = 100  # cells of u in [0, 1], for choices "uniform" and "importance"


class TimeSampler:
    """Draws training times t with importance weights.

    Times are t(u) with u in [0, 1].  The mean of weight · std² ‖s_θ + ε/std‖² is an unbiased estimate of the mean of
    E‖ε − ε̂‖² over uniform u.  The function t(u) determines λ(t).

    Parameters
    ----------
    sde : LinearSDE
    t_min : float
        Times lie in [t_min, horizon].
    weighting : {"likelihood", "noise"}
        "likelihood", λ = g²: u is linear in log-SNR, since g² dt/std² = −d(log-SNR).  "noise", λ = std²: u is linear in
        t.
    choice : {"stratified", "uniform", "importance"}
        "stratified": one u in each of n equal cells of [0, 1], independent within the cells.  "uniform", "importance":
        `TimestepSampler` draws one of 100 equal cells, and u is uniform in the cell; "importance" uses p ∝ √E[loss²] of
        the observed losses, which gives the mean loss its least variance.

    Raises
    ------
    TypeError, ValueError
        If t_min is not in (0, horizon], or weighting or choice is none of these; the message calls choice
        "time_choice", as the models do.
    """

    def __init__(self, sde: LinearSDE, t_min: float, weighting: str = "likelihood", choice: str = "stratified") -> None:
        check_process(sde)
        self.sde = sde
        self.t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon, open_low=True)
        check_noise(sde, self.t_min)
        self.weighting = as_choice(weighting, "weighting", WEIGHTINGS)
        self.choice = as_choice(choice, "time_choice", STEP_CHOICES)
        self.cells = TimestepSampler(N_CELLS, self.choice)
        self._ends = sde.log_snr(np.array([sde.horizon, self.t_min])).tolist()

    def time_at(self, u: Array) -> Array:
        """Times t(u), (n,), for u (n,) in [0, 1]; t(u) falls for "likelihood" and rises for "noise"."""
        u = as_arrays("u (...)", u)
        if u.size and not (u.min() >= 0 and u.max() <= 1):
            raise ValueError(f"u must be in [0, 1], got {u.min()} to {u.max()}; pass ranks, not times")
        if self.weighting == "noise":
            return self.t_min + (self.sde.horizon - self.t_min) * u
        low, high = self._ends
        return self.sde.time_at(low + (high - low) * u)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[IntArray, Array, Array]:
        """Draw n times: the cells of u, counted from 1, the times and their importance weights, each (n,)."""
        check_rng(rng)
        n = as_count(n, "n", minimum=0)
        if self.choice == "stratified":
            return np.arange(1, n + 1), self.time_at(stratified(n, rng)), np.ones(n)
        cells, weight = self.cells.draw(n, rng)
        return cells, self.time_at((cells - rng.random(n)) / N_CELLS), weight

    def observe(self, cells: IntArray, losses: Array) -> None:
        """Update the importance sampling with the losses (n,), without weights, of times in these cells (n,)."""
        check_levels(cells, N_CELLS + 1, "cells") if self.choice == "importance" else None
        self.cells.observe(cells, losses)


def score_step(
    network: NoisePredictor, sde: LinearSDE, x0: Array, t: Array, noise: Array, weight: Array, **given: Any
) -> Array:
    """‖s_θ(x_t, t) + ε/std‖² of every example, (N,), and its gradient.

    The function writes the gradient of the weighted mean (1/N) Σ_n λ_n ‖s_θ + ε_n/std_n‖² to `network.gradient`.

    Parameters
    ----------
    network : NoiseNetwork or CategoricalDenoiser
    x0, noise : (N, D)
        x_0 and ε.
    t, weight : (N,)
        Times and weights λ.
    given
        Further arguments of `network.vjp`: labels, augment_labels, and rng, the source of dropped units.

    Returns
    -------
    losses : (N,)
        Without the weights.
    """
    check_network(network)
    check_process(sde)
    x0, weight = as_arrays("x0 (N, D), weight (N)", x0, weight)
    x_t = sde.perturb(t, x0, noise)  # (31)
    scale, std = sde.marginal(t)
    eps_hat, backward = network.vjp(x_t, scale, std, **given)
    losses, by_score = denoising_error(-eps_hat / column(std, x0), noise, std)  # (33)
    backward(column(-weight / std / len(x0), x0) * by_score)  # s_θ = −ε̂/std
    return losses


def sliced_step(
    network: NoisePredictor,
    sde: LinearSDE,
    x0: Array,
    t: Array,
    noise: Array,
    weight: Array,
    directions: Array,
    reduce_variance: bool = False,
    labels: IntArray | None = None,
) -> Array:
    """`sliced_score_matching` of every example, (N,), averaged over M directions, and its gradient.

    Parameters
    ----------
    network : NoiseNetwork
    x0, noise, t, weight
        As for `score_step`.
    directions : (M, N, D)
        v.
    reduce_variance : bool
        As for `sliced_score_matching`.
    labels : (N,) of int, optional

    Raises
    ------
    TypeError
        If network is not a NoiseNetwork; other networks have no `jvp`.
    """
    check_process(sde)
    x0, weight, directions = as_arrays("x0 (N, D), weight (N), directions (M, N, D)", x0, weight, directions)
    if not isinstance(network, NoiseNetwork):
        raise TypeError("network must be a NoiseNetwork, which has jvp; use denoising for other networks")
    check_not_empty(directions, "directions")
    M = len(directions)
    x_t = np.concatenate([sde.perturb(t, x0, noise)] * M)
    scale, std, weight = (np.concatenate([values] * M) for values in (*sde.marginal(t), weight))
    v, s = directions.reshape(x_t.shape), column(std, x_t)
    if labels is not None:
        labels = np.tile(as_labels(labels, len(x0), np.iinfo(np.int64).max, first=NO_LABEL), M)
    eps_hat, derivative, backward = network.jvp(x_t, v, scale, std, labels=labels)
    losses, by_score, by_derivative = sliced_error(-eps_hat / s, v, -derivative / s, reduce_variance)
    by_mean = column(-weight / std / len(x_t), x_t)
    backward(by_mean * by_score, by_mean * by_derivative)
    return losses.reshape(M, -1).mean(axis=0)


def draw_directions(matching: str, law: str, like: Array, rng: np.random.Generator) -> Array:
    """Directions v for every row of `like`, (N, D): (M, N, D).

    For "implicit" the directions are √D e_d, d = 1..D; the mean of vᵀ(∇s_θ)v over them is the divergence.  For the
    sliced forms M = 1, and v is drawn.

    Parameters
    ----------
    matching : {"implicit", "sliced", "sliced-vr"}
    law : {"rademacher", "gaussian"}
        Distribution of v in the sliced forms.
    like : (N, D)
        Source of shape and dtype.
    """
    as_choice(matching, "matching", MATCHINGS)
    as_choice(law, "law", DIRECTIONS)
    like = as_arrays("like (N, D)", like)
    check_not_empty(like, "like")
    check_rng(rng)
    N, D = like.shape
    if matching == "implicit":
        v = np.repeat(D**0.5 * np.eye(D), N, axis=0)
    else:
        v = rng.choice([-1.0, 1.0], size=(N, D)) if law == "rademacher" else rng.standard_normal((N, D))
    return v.astype(like.dtype).reshape(-1, N, D)


def train(
    network: NoisePredictor,
    sde: LinearSDE,
    x: Array,
    n_steps: int,
    rng: np.random.Generator,
    *,
    adam: Adam,
    ema: EMA,
    sampler: TimeSampler,
    matching: str = "denoising",
    directions: str = "rademacher",
    labels: IntArray | None = None,
    label_dropout: float = 0.1,
    augment: Copies | None = None,
    batch_size: int = 256,
    learning_rate: float = 5e-3,
) -> Iterator[float]:
    """Score matching with Adam and a moving average of the parameters.

    The learning rate rises over the first min(100, n_steps // 10) steps and then falls to 0 along half a cosine.

    Between two steps network, adam, ema, sampler and rng hold the whole state.  A loop that is started with them goes
    on with step `adam.n_steps` + 1 as if there had been one loop.

    Parameters
    ----------
    network : NoiseNetwork or CategoricalDenoiser
        Trained in place; matching other than "denoising" needs a NoiseNetwork.
    x : (N, D)
        Data, in the dtype of the computation.
    n_steps : int
        Number of gradient steps, with those that `adam` has done before.
    rng : Generator
        Source of batches, times, noise, dropped labels, directions and dropped units.
    adam : Adam
        The optimiser of `network.parameters`.
    ema : EMA
        The moving average; models sample with `ema.average`.
    sampler : TimeSampler
        Distribution of t.
    matching : {"denoising", "implicit", "sliced", "sliced-vr"}
        Form of (33).  The loss is std² times the form, plus D for all but "denoising".  The expectation of all four is
        then E‖ε − ε̂‖².
    directions : {"rademacher", "gaussian"}
        Distribution of v in the sliced forms.
    labels : (N,) of int, optional
        Class of every example.
    label_dropout : float
        Probability that a label is replaced by NO_LABEL, so that the network also learns s_θ without a label.
    augment : callable, optional
        augment(rows, rng) -> x_0 of these rows of x, changed, (n, D), and the numbers of the change, (n, n_augment).
        For "denoising" only.
    batch_size : int
    learning_rate : float
        Largest learning rate; that of `adam` is not used.

    Yields
    ------
    loss : float
        Mean over the batch of each step, with importance weights.

    Raises
    ------
    ArithmeticError
        If the loss or the gradient is NaN or infinite, or the update overflows; network and average are those of the
        step before.
    """
    check_network(network)
    check_process(sde)
    check_rng(rng)
    check_sampler(sampler)
    x = as_arrays("x (N, D)", as_finite(x, "x"))
    check_not_empty(x, "x")
    as_choice(matching, "matching", MATCHINGS)
    as_choice(directions, "directions", DIRECTIONS)
    check_copies(augment)
    if augment is not None and matching != "denoising":
        raise ValueError(f"augment must be None for matching={matching!r}; use matching='denoising'")
    labels = None if labels is None else as_labels(labels, len(x), np.iinfo(np.int64).max, first=NO_LABEL)
    label_dropout = as_number(label_dropout, "label_dropout", low=0.0, high=1.0)
    check_loop(n_steps, as_count(batch_size, "batch_size"), learning_rate)
    check_adam(adam, network.parameters)
    check_average(ema, network.parameters)
    before = network.parameters.copy()
    for step in range(adam.n_steps, n_steps):
        rows = rng.integers(len(x), size=batch_size)
        x0, changes = (x.take(rows, axis=0), None) if augment is None else augment(rows, rng)
        noise = rng.standard_normal(x0.shape, dtype=x0.dtype)
        cells, t, correction = sampler.draw(batch_size, rng)
        told = None if labels is None else drop_labels(labels[rows], label_dropout, rng)
        variance = sde.std(t) ** 2  # std² ‖s_θ + ε/std‖² = ‖ε − ε̂‖²; λ(t) is std² times the density of t
        with np.errstate(over="ignore", invalid="ignore"):  # `check_step` and `check_update` find overflow
            if matching == "denoising":
                given = {"labels": told, "augment_labels": changes, "rng": rng}
                losses = variance * score_step(network, sde, x0, t, noise, correction * variance, **given)
            else:
                v, reduce_variance = draw_directions(matching, directions, x0, rng), matching != "sliced"
                scores = sliced_step(network, sde, x0, t, noise, correction * variance, v, reduce_variance, told)
                losses = variance * scores + x0.shape[1]
            loss = float(correction @ losses) / batch_size
            check_step(step, loss, network.gradient)
            before[:] = network.parameters
            adam.step(network.gradient, cosine_decay(step, n_steps, learning_rate, min(100, n_steps // 10)))
            check_update(step, [(network.parameters, before)])
        ema.update(network.parameters)
        sampler.observe(cells, losses)
        yield loss
