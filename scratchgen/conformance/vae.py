"""Checks of equations (13)-(14): the objective of the VAE, the loss of one draw, the importance-weighted bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, xlogy

from scratchgen.conformance.arguments import check_callable, takes_arrays
from scratchgen.conformance.instances import at_each, result, rounding
from scratchgen.conformance.likelihood import DIAGONAL_KLS
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.variational import as_joint, at_law, gap_of_tables, tables_and_laws
from scratchgen.quadrature import sigma_points
from scratchgen.validation import Array


@takes_arrays
def check_vae_objective(loss: Callable[..., ArrayLike], p_x: Array, q: Array, decoder: Array, prior: Array) -> Check:
    """(13): E_p[−E_q log p_θ(x | z) + KL(q‖q(z))] = (12) + H(p), for distributions given as tables.

    The values are compared for two p(x), at q and along a path of q that passes through the posterior p_θ(z | x).  The
    least value on the path is −E_p log p_θ(x), at the posterior.

    Parameters
    ----------
    loss : callable
        loss(p_x, q, decoder, prior) → a number, nats.
    p_x : (X,)
        p(x), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    decoder : (X, Z)
        p_θ(x | z), positive; every column sums to 1.
    prior : (Z,)
        q(z), positive, sum 1.

    Returns
    -------
    Check
        The larger of two residuals; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(loss, "loss(p_x, q, decoder, prior)")
    tables, laws = tables_and_laws(p_x, q, decoder, prior)
    instances = [(p, table) for table in tables for p in laws]

    def gap(p: Array, q: Array) -> Array:
        log_evidence, kl, _, _ = gap_of_tables(decoder * prior, q)
        return kl - log_evidence

    def fit(q: Array) -> Array:
        return (q * np.log(decoder)).sum(axis=1)

    def kl(q: Array) -> Array:
        return (q * np.log(q / prior)).sum(axis=1)

    tolerance = rounding(1 - np.log(min(table.min() for table in (p_x, decoder, prior, *tables))))
    name, quantity = "check_vae_objective", "E_p[−E_q log p_θ(x | z) + KL(q‖q(z))]"
    values = compare(
        name,
        "(13)",
        quantity,
        [result(loss(*instance, decoder, prior), "loss") for instance in instances],
        [p @ gap(p, q) for p, q in instances],
        tolerance,
        at_each(
            instances,
            {
                "it is (12): p(x) stands under the logarithm": lambda p, q: p @ (gap(p, q) + np.log(p)),
                "the reconstruction has the wrong sign": lambda p, q: p @ (fit(q) + kl(q)),
                "the KL has the wrong sign": lambda p, q: -p @ (fit(q) + kl(q)),
                "the KL is missing": lambda p, q: -p @ fit(q),
                "the reconstruction is missing": lambda p, q: p @ kl(q),
                "the KL is reversed": lambda p, q: p @ ((prior * np.log(prior / q)).sum(axis=1) - fit(q)),
                "the prior is left out of the KL: it is minus the entropy of q": lambda p, q: (
                    p @ ((q * np.log(q)).sum(axis=1) - fit(q))
                ),
                **{
                    f"the KL of an example is at least {bound:g}: free bits": lambda p, q, bound=bound: (
                        p @ (np.maximum(kl(q), bound) - fit(q))
                    )
                    for bound in (0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 3, 5)
                },
                "the KL is averaged over z, not summed": lambda p, q: p @ (kl(q) / len(prior) - fit(q)),
                "the KL is that of the aggregate E_p q(z | x)": lambda p, q: (
                    (p @ q) @ np.log(p @ q / prior) - p @ fit(q)
                ),
                "the aggregate E_p q(z | x) stands in the place of the prior": lambda p, q: (
                    p @ ((q * np.log(q / (p @ q))).sum(axis=1) - fit(q))
                ),
                "the prior is taken as uniform": lambda p, q: p @ ((q * np.log(q * len(prior))).sum(axis=1) - fit(q)),
                "it is the ELBO, not the loss": lambda p, q: -p @ gap(p, q),
                "x is averaged without p(x)": lambda p, q: gap(p, q).mean(),
                "x is summed without p(x)": lambda p, q: gap(p, q).sum(),
                "the expectation E_q stands under the logarithm": lambda p, q: (
                    p @ (kl(q) - np.log((q * decoder).sum(axis=1)))
                ),
                "the entropy of q is missing": lambda p, q: -p @ (q * np.log(decoder * prior)).sum(axis=1),
            },
        ),
        labels=lambda index: at_law(quantity, index[0]),
    )
    if values.left.shape != (len(instances),):
        return values
    least = values.left.reshape(-1, 2)[1:].min(axis=0)
    right = [-p @ gap_of_tables(decoder * prior, q)[0] for p in laws]
    return worst(values, compare(name, "(13)", f"the least {quantity} over q", least, right, tolerance))


# The reconstruction term of (14) under well-known mistakes, from ‖x − x̂‖² (N,), D and s².
RECONSTRUCTIONS: dict[str, Callable[[Array, int, float], Array]] = {
    "the squared error is averaged over the D dimensions": lambda r, D, s2: _constant(D, s2) + r / (2 * s2 * D),
    "−log p_θ(x | z) is averaged over the D dimensions": lambda r, D, s2: (_constant(D, s2) + r / (2 * s2)) / D,
    "the constant (D/2) log 2πs² is missing": lambda r, D, s2: r / (2 * s2),
    "(D/2) log 2π is missing": lambda r, D, s2: 0.5 * D * np.log(s2) + r / (2 * s2),
    "the constant of the Gaussian is counted D times": lambda r, D, s2: (
        _constant(D, s2) + 0.5 * D * (D - 1) * np.log(2 * np.pi) + r / (2 * s2)
    ),
    "log s² is counted once, not D times": lambda r, D, s2: (
        _constant(D, s2) - 0.5 * (D - 1) * np.log(s2) + r / (2 * s2)
    ),
    "the constant is not multiplied by D": lambda r, D, s2: _constant(1, s2) + r / (2 * s2),
    "the ½ of log s² is missing": lambda r, D, s2: _constant(D, s2) + 0.5 * D * np.log(s2) + r / (2 * s2),
    "log s stands for log s²": lambda r, D, s2: _constant(D, s2) - 0.25 * D * np.log(s2) + r / (2 * s2),
    "s stands where s² belongs": lambda r, D, s2: _constant(D, s2) + r / (2 * s2**0.5),
    "s stands where s² belongs, in the constant too": lambda r, D, s2: _constant(D, s2**0.5) + r / (2 * s2**0.5),
    "s² is squared: log s² is read as log s": lambda r, D, s2: _constant(D, s2**2) + r / (2 * s2**2),
    "it is multiplied by s², not divided": lambda r, D, s2: _constant(D, s2) + r * s2 / 2,
    "the ½ before the squared error is missing": lambda r, D, s2: _constant(D, s2) + r / s2,
    "the ½ of −log p_θ(x | z) is missing": lambda r, D, s2: 2 * _constant(D, s2) + r / s2,
    "s² is 1": lambda r, D, s2: _constant(D, 1.0) + r / 2,
    "the reconstruction is the plain sum of squares": lambda r, D, s2: r,
    "the reconstruction is half the sum of squares: s² = 1 and no constant": lambda r, D, s2: r / 2,
    "the reconstruction is the mean of squares (MSE)": lambda r, D, s2: r / D,
    "the reconstruction is half the mean of squares": lambda r, D, s2: r / (2 * D),
    "the reconstruction has the wrong sign": lambda r, D, s2: -_constant(D, s2) - r / (2 * s2),
    "the reconstruction is the root of the squared error": lambda r, D, s2: np.sqrt(r),
    "the reconstruction is missing": lambda r, D, s2: 0 * r,
}
KLS: dict[str, Callable[[Array, Array], Array]] = {
    **{text: lambda m, v, wrong=wrong: wrong(m, v).sum(axis=1) for text, wrong in DIAGONAL_KLS.items()},  # type: ignore[misc]
    "the KL is averaged over the latents, not summed": lambda m, v: _kl(m, v) / m.shape[1],
    "the KL is halved and averaged over the latents": lambda m, v: 0.5 * _kl(m, v) / m.shape[1],
    "the KL is averaged over the batch": lambda m, v: np.full(len(m), _kl(m, v).mean()),
    "the KL is summed over the batch": lambda m, v: np.full(len(m), _kl(m, v).sum()),
    "the KL is averaged over batch and latents": lambda m, v: np.full(len(m), _kl(m, v).mean() / m.shape[1]),
    "the KL is missing": lambda m, v: 0 * _kl(m, v),
    "the last latent is left out of the KL": lambda m, v: _kl(m[:, :-1], v[:, :-1]),
    "the first latent is left out of the KL": lambda m, v: _kl(m[:, 1:], v[:, 1:]),
    "only the first latent is in the KL": lambda m, v: _kl(m[:, :1], v[:, :1]),
    "only the last latent is in the KL": lambda m, v: _kl(m[:, -1:], v[:, -1:]),
}


def _constant(D: int, s2: float) -> float:
    return float(0.5 * D * np.log(2 * np.pi * s2))


def _kl(mean: Array, log_variance: Array) -> Array:
    return 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)


def _right_reconstruction(squares: Array, D: int, s2: float) -> Array:
    return _constant(D, s2) + squares / (2 * s2)


def _times_kl(factor: float) -> Callable[[Array, Array], Array]:
    return lambda mean, log_variance: factor * _kl(mean, log_variance)


def _factor_of_kl(losses: list[Array], calls: Sequence[tuple[Array, ...]], rest: Callable[..., Array]) -> float:
    """The median over all examples of (loss − rest)/KL; 1 for losses of another shape."""
    if any(loss.shape != (len(call[1]),) for loss, call in zip(losses, calls, strict=True)):
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [(loss - rest(*call)) / _kl(*call[1:]) for loss, call in zip(losses, calls, strict=True)]
    return float(np.median(ratios))


@takes_arrays
def check_vae_loss(
    loss: Callable[..., ArrayLike],
    x: Array,
    W: Array,
    decoder_mean: Array,
    decoder_variance: float,
    q_mean: Array,
    q_log_variance: Array,
) -> Check:
    """(14): the loss of every example, and its mean over draws of z, −ELBO of the linear-Gaussian model.

    q(z | x_n) = N(q_mean[n], diag exp q_log_variance[n]) and p(x | z) = N(W z + decoder_mean, decoder_variance I).  The
    loss is a quadratic in z, so that sigma points give the exact mean.  Two further calls have another q, and x̂ = x,
    where only the constant and the KL remain.  A diagnosis names the mistake of each term.

    The check draws z itself; `check_reparameterisation` lets the code draw.

    Parameters
    ----------
    loss : callable
        loss(x, x_hat, mean, log_variance, decoder_log_variance) → (N,), nats.
    x : (N, D)
    W : (D, k)
    decoder_mean : (D,)
    decoder_variance : float
    q_mean, q_log_variance : (N, k)

    Returns
    -------
    Check
        The larger of two residuals; tolerance 5e-14, more if the terms of the loss cancel.
    """
    check_callable(loss, "loss(x, x_hat, mean, log_variance, decoder_log_variance)")
    points, std = sigma_points(W.shape[1]), np.exp(q_log_variance / 2)
    D, s2 = x.shape[1], decoder_variance
    images = [(q_mean + std * xi) @ W.T + decoder_mean for xi in points]
    calls = [(x_hat, q_mean, q_log_variance) for x_hat in images]
    calls += [(images[0], 0.6 * q_mean + 0.2, 0.5 * q_log_variance - 0.3), (x, q_mean, q_log_variance)]
    labels = [*(f"draw {i}" for i in range(len(points))), "another q(z | x)", "x̂ = x"]
    left = [result(loss(x, *call, float(np.log(s2))), "loss") for call in calls]

    def value(
        reconstruction: Callable[[Array, int, float], Array], kl: Callable[[Array, Array], Array]
    ) -> Callable[..., Array]:
        def of_example(x_hat: Array, mean: Array, log_variance: Array) -> Array:
            return reconstruction(((x - x_hat) ** 2).sum(axis=1), D, s2) + kl(mean, log_variance)

        return of_example

    right_value = value(_right_reconstruction, _kl)
    mistakes = {
        "; ".join(filter(None, (text, other))): value(reconstruction, kl)
        for text, reconstruction in {"": _right_reconstruction, **RECONSTRUCTIONS}.items()
        for other, kl in {"": _kl, **KLS}.items()
        if text or other
    }
    mistakes["it is the ELBO, not the loss"] = mistakes.pop(
        "the reconstruction has the wrong sign; the KL has the wrong sign"
    )
    for text, reconstruction in {
        "": _right_reconstruction,
        "the reconstruction is the plain sum of squares; ": lambda r, D, s2: r,
        "the reconstruction is half the sum of squares; ": lambda r, D, s2: r / 2,
        "the reconstruction is the mean of squares (MSE); ": lambda r, D, s2: r / D,
    }.items():
        factor = _factor_of_kl(left, calls, value(reconstruction, _times_kl(0.0)))
        if not np.isclose(factor, [0, 0.5, 1, 2, -1, 1 / W.shape[1], 0.5 / W.shape[1]], atol=1e-6).any():
            mistakes[f"{text}the KL is multiplied by {factor:.4g}"] = value(reconstruction, _times_kl(factor))
    batch: dict[str, Callable[..., ArrayLike]] = {
        "it is averaged over the batch": lambda *call: np.full(len(x), right_value(*call).mean()),
        "it is summed over the batch": lambda *call: np.full(len(x), right_value(*call).sum()),
        "it is averaged over the D dimensions": lambda *call: right_value(*call) / D,
    }
    sizes = [
        (abs(_constant(D, s2)) + ((x - call[0]) ** 2).sum(axis=1) / s2 + _kl(*call[1:]) + np.abs(call[2]).sum(axis=1))
        / (1 + np.abs(right_value(*call)))
        for call in calls
    ]
    name, tolerance = "check_vae_loss", rounding(1 + np.max(sizes))
    values = compare(
        name,
        "(14)",
        "the loss",
        left,
        [right_value(*call) for call in calls],
        tolerance,
        at_each(calls, {**batch, **mistakes}),
        labels=lambda index: f"the loss of example {index[1]}, {labels[index[0]]},",
    )
    if values.left.shape != (len(calls), len(x)):
        return values
    squares = ((x - decoder_mean - q_mean @ W.T) ** 2).sum(axis=1) + std**2 @ (W**2).sum(axis=0)
    exact = _right_reconstruction(squares, D, s2) + _kl(q_mean, q_log_variance)
    return worst(
        values,
        compare(name, "(14)", "−ELBO of an example", values.left[: len(points)].mean(axis=0), exact, tolerance),
    )


# The reconstruction term of a Bernoulli decoder under well-known mistakes, from x and the logits, (N, D).
CROSS_ENTROPIES: dict[str, Callable[[Array, Array], Array]] = {
    "the cross-entropy is averaged over the D dimensions": lambda x, a: _cross_entropy(x, a) / x.shape[1],
    "the cross-entropy has the wrong sign": lambda x, a: -_cross_entropy(x, a),
    "the cross-entropy is missing": lambda x, a: 0 * x,
    "the term of 1 − x is missing": lambda x, a: x * np.logaddexp(0, -a),
    "the term of x is missing": lambda x, a: (1 - x) * np.logaddexp(0, a),
    "x and 1 − x are swapped": lambda x, a: _cross_entropy(1 - x, a),
    "the logits are read as probabilities, by a second logistic function": lambda x, a: _cross_entropy(x, expit(a)),
    "it is the squared error of the probabilities": lambda x, a: (x - expit(a)) ** 2,
    "it is half the squared error of the probabilities": lambda x, a: (x - expit(a)) ** 2 / 2,
    "the entropy of x is subtracted: it is a KL divergence": lambda x, a: (
        _cross_entropy(x, a) + xlogy(x, x) + xlogy(1 - x, 1 - x)
    ),
    **{
        f"probabilities are cut at {e:g}": lambda x, a, e=e: _of_probabilities(x, np.clip(expit(a), e, 1 - e))  # type: ignore[misc]
        for e in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    },
    **{
        f"{e:g} is added to the probabilities": lambda x, a, e=e: (
            -xlogy(x, expit(a) + e) - xlogy(1 - x, 1 - expit(a) + e)
        )  # type: ignore[misc]
        for e in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9, 1e-10)
    },
    "x is rounded to 0 or 1": lambda x, a: _cross_entropy((x > 0.5).astype(np.float64), a),
    "1e-8 is added to the probabilities": lambda x, a: -xlogy(x, expit(a) + 1e-8) - xlogy(1 - x, 1 - expit(a) + 1e-8),
}


def _of_probabilities(x: Array, p: Array) -> Array:
    """−log p(x) of Bernoulli variables of every pixel, nats."""
    return -xlogy(x, p) - xlogy(1 - x, 1 - p)


def _cross_entropy(x: Array, logits: Array) -> Array:
    """The same from logits: both probabilities by their own logistic function, so that none is a difference."""
    return -xlogy(x, expit(logits)) - xlogy(1 - x, expit(-logits))


@takes_arrays
def check_bernoulli_loss(
    loss: Callable[..., ArrayLike], x: Array, logits: Array, q_mean: Array, q_log_variance: Array
) -> Check:
    """(14): the loss of every example for a decoder of Bernoulli variables: cross-entropy plus KL(q‖N(0, I)).

    A second call has other logits and another q.  A loss that takes probabilities is called as
    lambda x, logits, *q: loss(x, expit(logits), *q).

    Parameters
    ----------
    loss : callable
        loss(x, logits, mean, log_variance) → (N,), nats: −Σ_d [x log p + (1 − x) log(1 − p)] + KL, where p is the
        logistic function of the logits.
    x : (N, D)
        In [0, 1].
    logits : (N, D)
        Logits of the decoder, for one draw of z.
    q_mean, q_log_variance : (N, k)

    Returns
    -------
    Check
        Tolerance 5e-14, more if |log σ²| or a logit is large.

    Raises
    ------
    ValueError
        If x leaves [0, 1] or the shapes differ.
    """
    check_callable(loss, "loss(x, logits, mean, log_variance)")
    if x.shape != logits.shape or x.ndim != 2 or not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"x and logits must both be (N, D), x in [0, 1], got {x.shape} and {logits.shape}; scale x")
    calls = [(logits, q_mean, q_log_variance), (-0.4 * logits - 0.2, 0.6 * q_mean + 0.2, 0.5 * q_log_variance - 0.3)]

    def value(
        fit: Callable[[Array, Array], Array], kl: Callable[[Array, Array], Array], weight: float = 1.0
    ) -> Callable[..., Array]:
        return lambda a, mean, log_variance: fit(x, a).sum(axis=1) + weight * kl(mean, log_variance)

    right = value(_cross_entropy, _kl)
    left = [result(loss(x, *call), "loss") for call in calls]
    mistakes: dict[str, Callable[..., ArrayLike]] = {
        "; ".join(filter(None, (text, other))): value(fit, kl)
        for text, fit in {"": _cross_entropy, **CROSS_ENTROPIES}.items()
        for other, kl in {"": _kl, **KLS}.items()
        if text or other
    }
    factor = _factor_of_kl(left, calls, value(_cross_entropy, _kl, 0.0))
    if not np.isclose(factor, [0, 0.5, 1, 2, -1, 1 / q_mean.shape[1], 0.5 / q_mean.shape[1]], atol=1e-6).any():
        mistakes[f"the KL is multiplied by {factor:.4g}"] = value(_cross_entropy, _kl, factor)
    mistakes["it is averaged over the batch"] = lambda *call: np.full(len(x), right(*call).mean())
    mistakes["it is averaged over the D dimensions"] = lambda *call: right(*call) / x.shape[1]
    return compare(
        "check_bernoulli_loss",
        "(14)",
        "the loss",
        left,
        [right(*call) for call in calls],
        rounding(1 + np.abs(q_log_variance).max() + np.abs(logits).max()),
        at_each(calls, mistakes),
        labels=lambda index: f"the loss of example {index[1]}, call {index[0]},",
    )


@takes_arrays
def check_reparameterisation(
    draw: Callable[[Array, Array, Array], ArrayLike], mean: Array, log_variance: Array, noise: Array
) -> Check:
    """(14): a draw z = μ + σ ξ of q(z | x) = N(μ, diag σ²), by the code under test, with given noise ξ.

    Parameters
    ----------
    draw : callable
        draw(mean, log_variance, noise) → z (N, k).
    mean, log_variance : (N, k)
        μ and log σ².
    noise : (N, k)
        ξ, different in every entry.

    Returns
    -------
    Check
        z is compared with noise ξ, −2 ξ and 0; tolerance 5e-14, more if |log σ²| is large.
    """
    check_callable(draw, "draw(mean, log_variance, noise)")
    if not mean.shape == log_variance.shape == noise.shape or mean.ndim != 2 or mean.size == 0:
        shapes = f"{mean.shape}, {log_variance.shape} and {noise.shape}"
        raise ValueError(f"mean, log_variance and noise must all be (N, k), got {shapes}")
    calls = [(mean, log_variance, factor * noise) for factor in (1.0, -2.0, 0.0)]
    left = [result(draw(*call), "draw") for call in calls]
    std, right_shape = np.exp(log_variance / 2), all(z.shape == mean.shape for z in left)
    with np.errstate(all="ignore"):
        factor = float(np.median((left[0] - mean) / (std * noise))) if right_shape else 1.0
        constant = float(np.median((left[2] - mean) / std)) if right_shape else 0.0  # left[2] is z at noise 0

    def with_std(std_of: Callable[[Array], Array]) -> Callable[..., Array]:
        return lambda mean, log_variance, noise: mean + std_of(log_variance) * noise

    def with_noise(noise_of: Callable[[Array], Array]) -> Callable[..., Array]:
        return lambda mean, log_variance, noise: mean + np.exp(log_variance / 2) * noise_of(noise)

    fitted: dict[str, Callable[..., Array]] = {}
    if abs(factor) > 1e-6:
        fitted[f"the noise is multiplied by {factor:.4g}"] = with_noise(lambda noise: factor * noise)
    if abs(constant) > 1e-6:
        fitted[f"the constant {constant:.4g} stands in the place of the noise"] = with_noise(
            lambda noise: constant + 0 * noise
        )
    if right_shape and (largest := float(np.abs((left[1] - mean) / std).max())) > 0:
        fitted[f"the noise is clipped to ±{largest:.4g}"] = with_noise(lambda noise: np.clip(noise, -largest, largest))
    return compare(
        "check_reparameterisation",
        "(14)",
        "z = μ + σ ξ",
        left,
        [m + np.sqrt(np.exp(v)) * xi for m, v, xi in calls],
        rounding(1 + np.abs(log_variance).max()),
        at_each(
            calls,
            {
                "σ² stands where σ belongs: exp(log σ²) for exp(½ log σ²)": with_std(np.exp),
                "log σ² stands where σ belongs: an exponential is missing": with_std(lambda v: v),
                "½ log σ² stands where σ belongs: an exponential is missing": with_std(lambda v: v / 2),
                "σ is the root of its right value": with_std(lambda v: np.exp(v / 4)),
                "1/σ stands where σ belongs": with_std(lambda v: np.exp(-v / 2)),
                "a softplus stands in the place of the exponential": with_std(lambda v: np.log1p(np.exp(v))),
                "σ is 1": with_std(np.ones_like),
                **{
                    f"log σ² is clipped to at most {bound}": with_std(lambda v, b=bound: np.exp(np.minimum(v, b) / 2))  # type: ignore[misc]
                    for bound in (-1, 0, 1, 2, 5)
                },
                **{
                    f"log σ² is clipped to at least {bound}": with_std(lambda v, b=bound: np.exp(np.maximum(v, b) / 2))  # type: ignore[misc]
                    for bound in (-10, -5, -2, -1, 0)
                },
                "the noise is left out: it is μ": with_std(np.zeros_like),
                "μ is left out": lambda mean, log_variance, noise: np.exp(log_variance / 2) * noise,
                "it is μ (1 + σ ξ)": lambda mean, log_variance, noise: mean * (1 + np.exp(log_variance / 2) * noise),
                "all latents share one noise": with_noise(lambda noise: noise[:, :1] + 0 * noise),
                "all examples share one noise": with_noise(lambda noise: noise[:1] + 0 * noise),
                **fitted,
            },
        ),
        labels=lambda index: (
            f"z of example {index[1]}, latent {index[2]}, at noise {calls[index[0]][2][index[1:]]:.3g},"
        ),
    )


@takes_arrays
def check_importance_weighted_bound(
    bound: Callable[[Array], ArrayLike], joint: Array, q: Array, n_draws: int = 2
) -> Check:
    """Burda et al. 2016: log (1/n)Σw of every n-tuple of draws; L_1 <= L_2 <= … <= log p(x), with E exp(bound) = p(x).

    All tuples of z are enumerated, for 1 to n_draws draws, and every tuple is compared.  E exp(bound) = p(x) alone
    holds for any weighting of the draws, even for the first draw alone; the inequality would pass a mean of log w.
    L_n is the mean of the bound.  At q = p(z | x) all weights are p(x), and the bound is log p(x) for every tuple.

    Parameters
    ----------
    bound : callable
        bound(log_weights (n, X)) → (X,), nats, with log w = log p(x, z)/q(z | x).
    joint : (X, Z)
        p(x, z), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    n_draws : int

    Returns
    -------
    Check
        The largest of the residuals; tolerance 5e-14, more if a log-weight is large.
    """
    check_callable(bound, "bound(log_weights)")
    as_joint(joint, q)
    log_weights, log_p = np.log(joint) - np.log(q), np.log(joint.sum(axis=1))
    three = [(0, 1, 1), (1, 0, 0)] if n_draws == 2 and joint.shape[1] > 1 else []  # where a mean is no median
    tuples = [z for n in range(1, int(n_draws) + 1) for z in product(range(joint.shape[1]), repeat=n)]
    stacks = [(log_weights[:, z].T,) for z in (*tuples, *three)]
    law = np.array([np.prod(q[:, z], axis=1) for z in tuples])  # q of the tuple, (n_tuples, X)
    name, tolerance = "check_importance_weighted_bound", rounding(1 + np.abs(log_weights).max())

    def log_mean_exp(stack: Array) -> Array:
        top = stack.max(axis=0)
        return top + np.log(np.exp(stack - top).mean(axis=0))

    def softmax_mean(sign: float) -> Callable[[Array], Array]:
        def value(stack: Array) -> Array:
            weights = np.exp(sign * stack - (sign * stack).max(axis=0))
            return (weights / weights.sum(axis=0) * stack).sum(axis=0)

        return value

    mistakes: dict[str, Callable[..., ArrayLike]] = {
        "it is the mean of the log-weights, an ELBO": lambda stack: stack.mean(axis=0),
        "it is the sum of the log-weights": lambda stack: stack.sum(axis=0),
        "log n is not subtracted": lambda stack: log_mean_exp(stack) + np.log(len(stack)),
        "the logarithm of the number of examples is subtracted, not log n": lambda stack: (
            log_mean_exp(stack) + np.log(len(stack)) - np.log(stack.shape[1])
        ),
        "log n is subtracted twice": lambda stack: log_mean_exp(stack) - np.log(len(stack)),
        "it is divided by n outside the logarithm": lambda stack: (
            (log_mean_exp(stack) + np.log(len(stack))) / len(stack)
        ),
        "it is the largest log-weight": lambda stack: stack.max(axis=0),
        "it is the median log-weight": lambda stack: np.median(stack, axis=0),
        "only the first draw is used": lambda stack: stack[0],
        "only the last draw is used": lambda stack: stack[-1],
        "it is the mean weight: the logarithm is missing": lambda stack: np.exp(stack).mean(axis=0),
        "it is the loss, minus the bound": lambda stack: -log_mean_exp(stack),
        "it is −log of the mean of 1/w: the signs of the weights are exchanged": lambda stack: -log_mean_exp(-stack),
        "the worst draws have the largest weights: a softmax over losses": softmax_mean(-1.0),
        "it is the mean of log w weighted by w, not the logarithm of the mean": softmax_mean(1.0),
        "it is averaged over the examples": lambda stack: np.full(stack.shape[1], log_mean_exp(stack).mean()),
        "the sum runs over the examples, the wrong axis, and the mean over the draws": lambda stack: np.full(
            stack.shape[1], log_mean_exp(stack.T).mean()
        ),
    }
    values = compare(
        name,
        "(8)",
        "the bound",
        [result(bound(*stack), "bound") for stack in stacks],
        [log_mean_exp(*stack) for stack in stacks],
        tolerance,
        at_each(stacks, mistakes),
        labels=lambda index: f"the bound of x = {index[1]} for the draws z = {(*tuples, *three)[index[0]]}",
    )
    if not values:
        return values
    bounds = values.left[: len(tuples)]
    sizes = np.array([len(z) for z in tuples])
    by_n = [sizes == n for n in range(1, int(n_draws) + 1)]
    means = np.array([(law * bounds)[chosen].sum(axis=0) for chosen in by_n])  # L_n, (n_draws, X)
    evidence = [(law * np.exp(bounds - log_p))[chosen].sum(axis=0) for chosen in by_n]
    ahead = np.vstack([means[1:], log_p])
    flat = [result(bound(np.tile(log_p, (n, 1))), "bound") for n in range(1, int(n_draws) + 1)]
    return worst(
        values,
        compare(name, "(8)", "E exp(bound)/p(x)", evidence, np.ones_like(means), tolerance),
        compare(
            name, "(8)", "L_n (it should not exceed L_{n+1} or log p(x))", np.minimum(means, ahead), means, tolerance
        ),
        compare(name, "(8)", "the bound at the posterior", flat, np.tile(log_p, (len(by_n), 1)), tolerance),
    )
