"""Bits per dimension of whole numbers, for every family on one scale, with standard errors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from scratchgen.datasets import dequantize
from scratchgen.likelihood import bits_per_dim, logsumexp, softmax
from scratchgen.metrics.distances import as_rows
from scratchgen.models.diffusion import DiffusionModel
from scratchgen.models.estimator import Estimator, InformationCriteria
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    IntArray,
    as_array,
    as_choice,
    as_count,
    as_finite,
    as_generator,
    as_labels,
    check_probabilities,
    check_type,
)

BOUNDS = ("elbo", "iwae")


class Bits(NamedTuple):
    """Bits per dimension: −log₂ P/D for an exact model, and an upper bound of it for the others.

    `row_error` is the standard error of the mean as one over the law of the data: it holds the noise of the evaluation
    too.  `noise_error` is that of the evaluation alone: how far the mean may be from that over all draws for the same
    rows.  To compare two models, take the differences of their `rows`, from the same rows and the same seed.
    """

    mean: float
    row_error: float
    noise_error: float
    rows: Array  # (N,), of every row, averaged over the repetitions


def model_bits(
    model: Estimator,
    x: ArrayLike,
    labels: ArrayLike | None = None,
    n_repeats: int = 4,
    rng: RNG = None,
    bound: str = "elbo",
    **options: int,
) -> Bits:
    """Bits per dimension of whole numbers x under a fitted model, one scale for all families.

    A model with `n_levels` has probabilities of whole numbers: those of `log_prob` where it is exact, and the bound of
    the model elsewhere.  A model of real numbers, trained on `datasets.dequantize(x)`, has a density p, and is scored
    by log P(x) ≥ E_u log p(x + u) with u uniform on [0, 1)^D.

    Parameters
    ----------
    model : GaussianMixture, PPCA, FactorAnalysis, CategoricalMixture, VAE, LinearVAE, DDPM or ScoreSDE
    x : (N, D) of whole numbers
        Two rows or more.
    labels : (N,) of int, optional
        For a DDPM or ScoreSDE with labels: the bound is that of log p_θ(x | label).
    n_repeats : int
        Repetitions of the evaluation, 2 or more; each has draws of its own.  The draws depend on rng only, so that
        models of one family are compared on common draws.
    rng : int, Generator or None
    bound : {"elbo", "iwae"}
        Method of a model without an exact likelihood.
    **options
        Further arguments of that method, such as n_times=512 of a ScoreSDE and n_draws=512 of a VAE's iwae.

    Returns
    -------
    Bits

    Raises
    ------
    TypeError, ValueError
        If model is no model of the package, x does not hold whole numbers, or an argument is wrong.
    ArithmeticError
        If a row has probability 0, so that the mean is infinite and has no standard error.
    """
    check_type(model, Estimator, "model", "pass a fitted model of scratchgen")
    as_choice(bound, "bound", BOUNDS)
    levels = _as_whole(x)
    given: dict[str, Any] = dict(options)
    if labels is not None:
        given["y"] = _labels_of(model, labels, len(levels))
    density = getattr(model, "n_levels", None) is None
    score = _score_of(model, bound)

    def repeat(rng: np.random.Generator) -> Array:
        return score(dequantize(levels, rng) if density else levels, rng, **given)

    return _summary(np.array([repeat(draws) for draws in _generators(rng, n_repeats)]), levels.shape[1])


def label_summed_bits(
    model: DiffusionModel,
    x: ArrayLike,
    prior: ArrayLike | None = None,
    n_repeats: int = 4,
    rng: RNG = None,
    **options: int,
) -> Bits:
    """Bits per dimension of whole numbers x under a model with labels, with the label summed out.

    P(x) = Σ_y P(y) p_θ(x | y) is bounded by `cross_fitted_bound`.  For one repetition all labels have the same draws.

    Parameters
    ----------
    model : DDPM or ScoreSDE
        Fitted with `n_classes` = K and `n_levels`.
    x : (N, D) of whole numbers
        Two rows or more.
    prior : (K,), optional
        P(y); None is 1/K.
    n_repeats : int
        2 or more.
    rng : int, Generator or None
    **options
        Further arguments of `elbo`, such as n_times=512 of a ScoreSDE.

    Returns
    -------
    Bits
        `noise_error` treats the repetitions as independent, though each takes q(y | x) from the others.

    Raises
    ------
    TypeError, ValueError
        If model is no such model, x does not hold its levels, or prior is no law over the labels.
    """
    check_type(model, DiffusionModel, "model", "pass a fitted DDPM or ScoreSDE with n_classes")
    if not model.n_classes or model.n_levels is None:
        raise ValueError(
            f"model must have n_classes and n_levels, got n_classes={model.n_classes} and n_levels={model.n_levels}; "
            "use model_bits for other models"
        )
    levels, K, elbo = _as_whole(x), model.n_classes, _score_of(model, "elbo")
    prior = np.full(K, 1 / K) if prior is None else prior

    def given(y: int, seed: int) -> Array:
        return elbo(levels, np.random.default_rng(seed), y=np.full(len(levels), y), **options)

    elbos = [np.stack([given(y, seed) for y in range(K)], axis=1) for seed in _seeds(rng, n_repeats)]
    return _summary(cross_fitted_bound(np.array(elbos), prior), levels.shape[1])


def cross_fitted_bound(elbos: ArrayLike, prior: ArrayLike) -> Array:
    """Lower bound of log Σ_y P(y) p(x | y), (R, N), nats, from R noisy bounds of log p(x | y).

        Σ_y q_r(y | x) [log P(y) + ELBO_r(x | y) − log q_r(y | x)],  q_r ∝ P(y) exp(mean_{s≠r} ELBO_s(x | y))

    The mean over the noise is a lower bound for each r, (8), since q_r does not depend on the noise of ELBO_r.  The
    plug-in value log Σ_y P(y) exp(ELBO(x | y)) is not: the exponential turns the noise into a positive bias.  The two
    are equal to log P(x) for exact log p(x | y) without noise.

    Parameters
    ----------
    elbos : (R, N, K)
        R >= 2 independent evaluations of an unbiased bound of log p(x_n | y), nats.
    prior : (K,)
        P(y) > 0.

    Raises
    ------
    TypeError, ValueError
        If elbos has another shape, R is 1, or prior is no law.
    """
    elbos = as_finite(elbos, "elbos")
    if elbos.ndim != 3 or len(elbos) < 2 or not elbos.size:
        raise ValueError(
            f"elbos must have shape (R, N, K) with R >= 2, got {elbos.shape}; evaluate the bound twice, since q(y|x) "
            "and the ELBO need draws of their own"
        )
    prior = as_finite(prior, "prior")
    check_probabilities(prior, "prior")
    if prior.shape != elbos.shape[2:] or not prior.all():
        raise ValueError(
            f"prior must hold a positive probability for each of the K = {elbos.shape[2]} labels, got {prior!r:.60}; "
            "leave labels of probability 0 out of elbos"
        )
    joint = np.log(prior) + elbos
    others = (joint.sum(axis=0) - joint) / (len(elbos) - 1)
    log_q = others - logsumexp(others)[..., None]
    return (softmax(others) * (joint - log_q)).sum(axis=-1)


def _as_whole(x: ArrayLike) -> Array:
    """Return x as rows of whole numbers, (N, D), N >= 2."""
    levels = as_rows(x, "x", n_min=2)
    if not np.array_equal(levels, np.rint(levels)):
        raise ValueError("x must hold whole numbers, got fractions; for real numbers use model.score, in nats")
    return levels


def _labels_of(model: Estimator, labels: ArrayLike, n: int) -> IntArray:
    """Return the labels of n rows; ValueError for a model without labels."""
    n_classes = getattr(model, "n_classes", 0)
    if not n_classes:
        raise ValueError(f"labels must be None for a model without labels, got {as_array(labels, 'labels')!r:.60}")
    return as_labels(labels, n, n_classes)


def _score_of(model: Any, bound: str) -> Callable[..., Array]:
    """log p_θ(x), nats, or its bound, as a function of x and a generator."""
    if isinstance(model, InformationCriteria):
        return lambda x, rng: model.log_prob(x)
    if not hasattr(model, bound):
        raise ValueError(f"bound must be 'elbo' for a {type(model).__name__}, got {bound!r}")
    method: Callable[..., Array] = getattr(model, bound)
    return method


def _seeds(rng: RNG, n_repeats: int) -> list[int]:
    """Seeds of the repetitions, the same for every model."""
    seeds: list[int] = as_generator(rng).integers(2**63, size=as_count(n_repeats, "n_repeats", minimum=2)).tolist()
    return seeds


def _generators(rng: RNG, n_repeats: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in _seeds(rng, n_repeats)]


def _summary(nats: Array, dimension: int) -> Bits:
    """Bits of log P, (R, N), nats, of R repetitions."""
    if not np.isfinite(nats).all():
        impossible = int((~np.isfinite(nats)).any(axis=0).sum())
        raise ArithmeticError(
            f"the mean is not finite: {impossible} of {nats.shape[1]} rows have probability 0 in the model; smooth it, "
            "as CategoricalMixture(smoothing=1.0) does"
        )
    bits = np.asarray(bits_per_dim(-nats, dimension))
    rows, repeats = bits.mean(axis=0), bits.mean(axis=1)
    row_error, noise_error = (float(part.std(ddof=1) / len(part) ** 0.5) for part in (rows, repeats))
    return Bits(float(rows.mean()), row_error, noise_error, rows)
