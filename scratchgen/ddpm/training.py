"""Algorithm 1 of Ho et al. (2020): training on (29).

1  repeat
2      x_0 ~ q(x_0)
3      t ~ Uniform(1, …, T)
4      ε ~ N(0, I)
5      take a gradient step on ∇_θ ‖ε − ε_θ(ᾱ_t x_0 + β̄_t ε, t)‖²
6  until converged

This ᾱ_t is √ᾱ_t of Ho et al., and β̄_t is their √(1 − ᾱ_t).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from scratchgen.augmentation import Copies, check_copies
from scratchgen.ddpm.kernels import check_schedule, q_sample
from scratchgen.ddpm.objective import noise_error
from scratchgen.ddpm.predictions import PREDICTIONS, eps_coefficients
from scratchgen.nn import (
    EMA,
    NO_LABEL,
    Adam,
    NoiseLevels,
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
from scratchgen.schedule import NoiseSchedule
from scratchgen.timestep_sampling import TimestepSampler, check_sampler
from scratchgen.validation import (
    Array,
    IntArray,
    as_arrays,
    as_choice,
    as_count,
    as_finite,
    as_labels,
    as_number,
    check_not_empty,
    check_rng,
    check_type,
)


def train_step(
    network: NoisePredictor,
    schedule: NoiseSchedule,
    x0: Array,
    t: IntArray,
    noise: Array,
    weight: Array,
    **given: Any,
) -> Array:
    """Line 5 of Algorithm 1: ‖ε − ε̂(x_t, t)‖² of every example, (N,), and its gradient.

    The function writes the gradient of the weighted mean (1/N) Σ_n λ_n ‖ε_n − ε̂_n‖² to `network.gradient`.

    Parameters
    ----------
    network : NoiseNetwork or CategoricalDenoiser
    x0, noise : (N, D)
        x_0 and ε.
    t : (N,) of int
        In 1..T.
    weight : (N,)
        λ, see `loss_weight`, times the importance weight of t.
    given
        Further arguments of `network.vjp`: labels, coefficients of the predicted quantity or `levels`, augment_labels,
        and rng, the source of dropped units.

    Returns
    -------
    losses : (N,)
        Without the weights.
    """
    x_t = q_sample(schedule, t, x0, noise)  # (25)
    eps_hat, backward = network.vjp(x_t, schedule.alpha_bar[t], schedule.beta_bar[t], **given)
    losses, by_eps_hat = noise_error(noise, eps_hat)  # (29)
    backward(weight[:, None] / len(x0) * by_eps_hat)
    return losses


def _levels_of_steps(network: NoisePredictor, schedule: NoiseSchedule, prediction: str | None) -> NoiseLevels | None:
    """Noise levels of the steps 1..T of a NoiseNetwork, which save 8 % of a step at width 64; or None."""
    if not isinstance(network, NoiseNetwork):
        return None
    steps = np.arange(1, schedule.T + 1)
    coefficients = None if prediction is None else eps_coefficients(schedule, steps, prediction)
    with np.errstate(over="ignore", invalid="ignore"):  # as in the steps of training
        return network.noise_levels(schedule.alpha_bar[1:], schedule.beta_bar[1:], coefficients)


def train(
    network: NoisePredictor,
    schedule: NoiseSchedule,
    x: Array,
    n_steps: int,
    rng: np.random.Generator,
    *,
    adam: Adam,
    ema: EMA,
    sampler: TimestepSampler,
    weights: Array,
    prediction: str | None = None,
    labels: IntArray | None = None,
    label_dropout: float = 0.1,
    augment: Copies | None = None,
    batch_size: int = 256,
    learning_rate: float = 5e-3,
) -> Iterator[float]:
    """Algorithm 1 with Adam and a moving average of the parameters.

    The learning rate rises over the first min(100, n_steps // 10) steps and then falls to 0 along half a cosine.

    Between two steps network, adam, ema, sampler and rng hold the whole state.  A loop that is started with them goes
    on with step `adam.n_steps` + 1 as if there had been one loop.

    Parameters
    ----------
    network : NoiseNetwork or CategoricalDenoiser
        Trained in place.
    x : (N, D)
        Data, in the dtype of the computation.
    n_steps : int
        Number of gradient steps, with those that `adam` has done before.
    rng : Generator
        Source of batches, steps, noise, dropped labels and dropped units.
    adam : Adam
        The optimiser of `network.parameters`.
    ema : EMA
        The moving average; models sample with `ema.average`.
    sampler : TimestepSampler
        Distribution of t.
    weights : (T+1,)
        λ_t, see `loss_weight`.
    prediction : str, optional
        As for `predict_noise`.
    labels : (N,) of int, optional
        Class of every example.
    label_dropout : float
        Probability that a label is replaced by NO_LABEL, so that the network also learns ε̂ without a label.
    augment : callable, optional
        augment(rows, rng) -> x_0 of these rows of x, changed, (n, D), and the numbers of the change, (n, n_augment).
    batch_size : int
    learning_rate : float
        Largest learning rate; that of `adam` is not used.

    Yields
    ------
    loss : float
        Weighted mean loss of the batch of each step.

    Raises
    ------
    ArithmeticError
        If the loss or the gradient is NaN or infinite, or the update overflows; network and average are those of the
        step before.
    """
    check_network(network)
    check_rng(rng)
    check_sampler(sampler)
    check_schedule(schedule)
    x, weights = as_arrays("x (N, D), weights (T+1)", as_finite(x, "x"), weights, **{"T+1": schedule.T + 1})
    check_not_empty(x, "x")
    if prediction is not None:
        as_choice(prediction, "prediction", PREDICTIONS)
        check_type(network, NoiseNetwork, "network", "or pass prediction=None")
    labels = None if labels is None else as_labels(labels, len(x), np.iinfo(np.int64).max, first=NO_LABEL)
    label_dropout = as_number(label_dropout, "label_dropout", low=0.0, high=1.0)
    check_loop(n_steps, as_count(batch_size, "batch_size"), learning_rate)
    check_adam(adam, network.parameters)
    check_average(ema, network.parameters)
    check_copies(augment)
    levels = _levels_of_steps(network, schedule, prediction)
    before = network.parameters.copy()
    for step in range(adam.n_steps, n_steps):
        rows = rng.integers(len(x), size=batch_size)
        x0, changes = (x.take(rows, axis=0), None) if augment is None else augment(rows, rng)  # line 2
        noise = rng.standard_normal(x0.shape, dtype=x0.dtype)  # line 4
        t, correction = sampler.draw(batch_size, rng)  # line 3
        given: dict[str, Any] = {"augment_labels": changes, "rng": rng}
        if levels is not None:
            given["levels"] = levels.at(t - 1)
        if labels is not None:
            given["labels"] = drop_labels(labels[rows], label_dropout, rng)
        with np.errstate(over="ignore", invalid="ignore"):  # `check_step` and `check_update` find overflow
            weight = (weights[t] * correction).astype(x0.dtype)
            losses = train_step(network, schedule, x0, t, noise, weight, **given)  # line 5
            loss = float(weight @ losses) / batch_size
            check_step(step, loss, network.gradient)
            before[:] = network.parameters
            adam.step(network.gradient, cosine_decay(step, n_steps, learning_rate, min(100, n_steps // 10)))
            check_update(step, [(network.parameters, before)])
        ema.update(network.parameters)
        sampler.observe(t, weights[t] * losses)
        yield loss
