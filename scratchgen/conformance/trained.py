"""Checks of code with a trained network: any network, any D, any t, on shared noise.

The code under test and the package compute one quantity with the same network and the same noise.  The right sides are
the functions that the package's own models run.  Every example is compared, and every term where there are terms.

The precision follows from the dtype that the network returns.  Code in float32 differs from the right side by the
rounding of its tables and states, and a network with a large slope magnifies this.  The right side is therefore also
computed with tables and states rounded to that dtype.  Ten times the effect of the rounding is allowed, entry by entry.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_schedule, check_callable, on_copies, returned
from scratchgen.conformance.reference_chain import CLIPS, UNCLIPPED, clipped
from scratchgen.conformance.result import Check, Labels, Mistakes, compare
from scratchgen.conformance.returns import numbers
from scratchgen.ddpm import (
    PREDICTIONS,
    EpsHat,
    ancestral_sampler,
    bound_terms,
    ddim_sampler,
    eps_to_prediction,
    noise_error,
    q_sample,
    reverse_variance,
)
from scratchgen.ddpm.kernels import check_time
from scratchgen.likelihood import gaussian_log_prob, level_values, levels_of
from scratchgen.quadrature import central_difference
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import LinearSDE, flow_map, probability_flow_log_prob
from scratchgen.validation import Array, IntArray, as_choice, as_number, as_samples, check_shapes

Network = Callable[[Array, Any], ArrayLike]  # (x_t (N, D), t) → (N, D), for one t

DOUBLE = 1e-12  # tolerance for a network in float64
ULPS = 128.0  # tolerance for other networks, in units of the machine epsilon of their dtype
LARGE = 1e30  # of x_t; the results of a network at larger ones may overflow
ALLOWED = 10.0  # multiple of the effect of rounding that counts as equal


def check_loss_of(
    loss: Callable[[IntArray, Array, Array], ArrayLike],
    network: Network,
    x0: ArrayLike,
    noise: ArrayLike,
    schedule: NoiseSchedule,
    t: ArrayLike | None = None,
    prediction: str = "noise",
    weight: ArrayLike | None = None,
    reduction: str = "sum",
) -> Check:
    """(29): the training loss λ_t ‖target − network(x_t, t)‖² of every example, with the tested code's own network.

    Parameters
    ----------
    loss : callable
        loss(t (N,), x0 (N, D), noise (N, D)) → (N,), or the mean over the examples, a number.  A number is compared
        for every example alone, N = 1, and for the whole batch.
    network : callable
        network(x_t (n, D), t) → (n, D) for an int t in 1..T, without dropout.  Its dtype sets the tolerance.
    x0, noise : (N, D)
        x_0 and ε.
    schedule : NoiseSchedule
    t : (N,) of int, optional
        A step an example, in 1..T; spread evenly over 1..T if None.
    prediction : {"noise", "x0", "v", "step"}
        The prediction of the network, which is also the target of the loss.
    weight : (T+1,), optional
        λ_t, index 0 not used; 1 if None.
    reduction : {"sum", "mean"}
        Over the D dimensions of an example.

    Returns
    -------
    Check
        Tolerance 1e-12 for a network in float64, 128 machine epsilons for other dtypes (2e-5 for float32), and ten
        times the effect of rounding where that is larger.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong shape, or two calls of the network differ.
    """
    check_callable(loss, "loss(t, x0, noise); t counts 1..T")
    schedule, loss = as_schedule(schedule), on_copies(loss, "loss")
    x0, noise = _examples(x0, noise)
    N, D = x0.shape
    kind = as_choice(prediction, "prediction", PREDICTIONS)
    per_dimension = 1 / D if as_choice(reduction, "reduction", ("sum", "mean")) == "mean" else 1.0
    steps = np.rint(np.linspace(1, schedule.T, N)).astype(np.int64) if t is None else np.asarray(t)
    check_time(schedule, steps)
    if steps.shape != (N,):
        raise ValueError(f"t must have shape ({N},), one step for each row of x0, got {steps.shape}")
    table = np.ones(schedule.T + 1) if weight is None else np.asarray(weight, dtype=np.float64)
    if table.shape != (schedule.T + 1,):
        raise ValueError(f"weight must have shape (T+1,) = ({schedule.T + 1},), got {table.shape}")
    if not ((table[1:] >= 0) & (table[1:] < np.inf)).all():
        raise ValueError(f"weight must be finite and not negative from index 1, got {table[1:].min()}")
    call = _Repeatable(network, x0, int(steps[0]), "network")

    def ours(
        schedule: NoiseSchedule = schedule,
        rounding: float = 0.0,
        step_of: Callable[[int], int] = lambda t: t,
        target: str = kind,
        x_t: Callable[[], Array] | None = None,
        steps: IntArray = steps,
        wanted: Callable[[Array], Array] | None = None,
        norm: Callable[[Array], Array] | None = None,
    ) -> Array:
        x = q_sample(schedule, steps, x0, noise) if x_t is None else x_t()
        x = x + rounding * call.eps * (1 + np.abs(x)) * _signs(x.shape)
        output = np.empty_like(x)
        for step in np.unique(steps):
            rows = steps == step
            output[rows] = call(x[rows], step_of(int(step)))
        right = eps_to_prediction(schedule, steps, x, noise, target)
        goal = right if wanted is None else wanted(right)
        losses = noise_error(goal, output)[0] if norm is None else norm(goal - output)
        return table[steps] * losses * per_dimension

    def every(**mistake: Any) -> Callable[[], Array]:
        return lambda: shown(ours(**mistake))

    right = call.finite(ours, "the loss")
    whole = numbers(loss(steps, x0, noise), f"loss must return an array of shape ({N},), or a number")
    alone = whole.ndim == 0 and N > 1
    if alone:
        one_by_one = [returned(np.squeeze(loss(steps[[n]], x0[[n]], noise[[n]])), (), "loss") for n in range(N)]
        left = np.array([*one_by_one, whole])
    else:
        left = whole.reshape(N) if whole.ndim == 0 else whole  # the mean of one example is its loss

    def shown(value: Array) -> Array:
        return np.append(value, value.mean()) if alone else value

    def name_of(index: tuple[int, ...]) -> str:
        if not index or index[0] == N:
            return "the mean loss of the batch"
        return f"the loss of example {index[0]}, t = {steps[index[0]]},"

    def summed(losses: Array) -> Array:
        """The losses one by one, and their sum where the mean of the batch belongs."""
        return np.append(losses, losses.sum()) if alone else np.full(N, np.nan)

    scale, total = schedule.alpha_bar[steps, None], schedule.beta_bar[steps, None]
    before = steps - 1
    others = {
        other: f'the target is {text}; pass prediction="{other}" if the network predicts this'
        for other, text in TARGETS.items()
        if other != kind
    }
    over, other, factor = "it is averaged over the D dimensions, not summed", "mean", 1 / D
    if reduction == "mean":
        over, other, factor = "it is summed over D", "sum", float(D)
    # D = 2 does not tell a factor of 2 from D, nor do small errors tell the Huber loss from half a square
    factors = {over: factor, "it is half the right value": 0.5, "it is twice the right value": 2.0}
    advice = {over: f'; pass reduction="{other}" if this is meant'}
    mistakes: Mistakes = {
        **{text + advice.get(text, ""): lambda c=c: shown(c * right) for text, c in factors.items()},  # type: ignore[misc]
        **{f"{text}, and summed over the batch": lambda c=c: summed(c * right) for text, c in factors.items()},  # type: ignore[misc]
        "it is averaged over the examples: one value an example is expected": lambda: shown(np.full(N, right.mean())),
        **{text: every(step_of=late) for text, late in _late(call, x0, schedule.T).items()},
        "all examples have t of the first example": every(steps=np.full(N, steps[0])),
        "x_t of all examples has t of the first example": every(
            x_t=lambda: schedule.alpha_bar[steps[0]] * x0 + schedule.beta_bar[steps[0]] * noise
        ),
        "the network gets t of the first example for all examples": every(step_of=lambda _: int(steps[0])),
        "the target has the wrong sign": every(wanted=lambda right: -right),
        "the norm is L1, Σ|target − output|": every(norm=lambda d: np.abs(d).sum(axis=1)),
        "it is the norm, not its square": every(norm=lambda d: np.sqrt((d**2).sum(axis=1))),
        "it is the Huber loss, or smooth L1, with δ = 1": every(norm=_huber),
        "it is the square of a sum over the dimensions": every(norm=lambda d: d.sum(axis=1) ** 2),
        "x_t has −ε: the noise is subtracted": every(x_t=lambda: scale * x0 - total * noise),
        "the network gets x_0, without noise": every(x_t=lambda: x0),
        "x_t is not scaled: x_0 + β̄ε": every(x_t=lambda: x0 + total * noise),
        **(
            {"the target has plus in place of minus, ᾱε + β̄x_0": every(wanted=lambda _: scale * noise + total * x0)}
            if kind == "v"
            else {}
        ),
        "x_t is x_{t−1}: the tables are indexed from 0": lambda: shown(
            ours(x_t=lambda: schedule.alpha_bar[before, None] * x0 + schedule.beta_bar[before, None] * noise)
        ),
        "x_t has ᾱ², Ho's α-bar without its root, before x_0": lambda: shown(
            ours(x_t=lambda: scale**2 * x0 + total * noise)
        ),
        "x_t has β̄², a variance, before the noise": lambda: shown(ours(x_t=lambda: scale * x0 + total**2 * noise)),
        "x_t has √(1 − ᾱ) before the noise: ᾱ is not squared": lambda: shown(
            ours(x_t=lambda: scale * x0 + np.sqrt(1 - scale) * noise)
        ),
        "x_t is divided by ᾱ, x_0 + σ ε with σ = β̄/ᾱ as in EDM": every(x_t=lambda: x0 + total / scale * noise),
        "the weight is λ_{t−1}": lambda: shown(ours() / table[steps] * table[before]),
        "the weight is λ_t², as inside the square": lambda: shown(ours() * table[steps]),
        "the weight λ_t is missing": lambda: shown(ours() / table[steps]),
        **{text: lambda other=other: shown(ours(target=other)) for other, text in others.items()},  # type: ignore[misc]
    }
    rounded = [shown(ours(rounding=sign)) for sign in (4.0, -4.0)] + [shown(ours(_rounded(schedule, call.eps)))]
    return _judged(
        "check_loss_of",
        "(29)",
        "the loss",
        left,
        shown(right),
        _effect(rounded, shown(right)),
        call.tolerance,
        mistakes,
        name_of,
        {"it is summed over the batch, not averaged": lambda: summed(right)},
    )


TARGETS = {
    "noise": "the total noise ε",
    "x0": "x_0",
    "v": "v = ᾱε − β̄x_0",
    "step": "the noise of one step, (β_t/β̄_t) ε",
}


def check_bound_of(
    bound: Callable[[Array, Array], ArrayLike],
    eps_hat: Network,
    x0: ArrayLike,
    noise: ArrayLike,
    schedule: NoiseSchedule,
    variance: str | Array = "beta",
    n_levels: int | None = None,
) -> Check:
    """(20): −ELBO of every example, or each of its terms, with the network of the code under test.

    Parameters
    ----------
    bound : callable
        bound(x0 (N, D), noise (T, N, D)) → −ELBO (N,), nats, or its terms L_0, …, L_T, (N, T+1), in this order.
        noise[t−1] is the total noise ε of x_t.
    eps_hat : callable
        eps_hat(x_t (N, D), t) → total noise (N, D) for an int t in 1..T, without dropout.
    x0 : (N, D)
    noise : (T, N, D)
    schedule : NoiseSchedule
    variance, n_levels
        σ_t² and the levels of whole numbers, as for `scratchgen.ddpm.bound_terms`.  With n_levels `bound` gets the
        exact levels 2k/(n_levels − 1) − 1, without the rounding of x0.

    Returns
    -------
    Check
        Tolerance as for `check_loss_of`.
    """
    check_callable(bound, "bound(x0, noise)")
    schedule, bound = as_schedule(schedule), on_copies(bound, "bound")
    x0, noise = _not_zero(as_samples(x0, "x0").astype(np.float64)), np.asarray(noise, dtype=np.float64)
    if n_levels is not None:  # images rounded in float32 would have other masses in the two codes
        x0 = level_values(n_levels)[levels_of(x0, n_levels, "x0").astype(np.int64)]
    D, T = x0.shape[1], schedule.T
    if noise.shape != (T, *x0.shape):
        raise ValueError(f"noise must have shape (T, N, D) = {(T, *x0.shape)}, got {noise.shape}")
    call = _Repeatable(eps_hat, x0, 1, "eps_hat")
    sigma_squared = reverse_variance(schedule, variance)

    def ours(
        schedule: NoiseSchedule = schedule,
        rounding: float = 0.0,
        step_of: Callable[[int], int] = lambda t: t,
        variance: Array = sigma_squared,
        noise: Array = noise,
        levels: int | None = n_levels,
    ) -> Array:
        predict = call.rounded(schedule, rounding, step_of, in_posterior=True)
        return bound_terms(schedule, x0, predict, noise, variance, levels)

    terms = call.finite(ours, "−ELBO")
    left = numbers(bound(x0, noise), f"bound must return an array of shape ({len(x0)},) or {terms.shape}")
    by_term = left.shape == terms.shape

    def shown(terms: Array) -> Array:
        return terms if by_term else terms.sum(axis=1)

    def without(column: int) -> Array:
        return np.delete(terms, column, axis=1).sum(axis=1)

    def name_of(index: tuple[int, ...]) -> str:
        return f"{f'L_{index[1]}' if by_term else '−ELBO'} of example {index[0]}"

    own = schedule.beta**2
    posterior = reverse_variance(schedule, "posterior")
    mistakes: Mistakes = {
        "it is in bits per dimension": lambda: shown(terms) / (D * np.log(2)),
        "it is averaged over the D dimensions, not summed": lambda: shown(terms) / D,
        "it is half the right value": lambda: shown(terms) / 2,  # the same for D = 2
        "it is averaged over the examples": lambda: np.broadcast_to(shown(terms).mean(axis=0), left.shape),
        'σ_t² is β_t²; pass variance="beta" if this is meant': lambda: shown(ours(variance=own)),
        'σ_t² is β̃_t²; pass variance="posterior" if this is meant': lambda: shown(ours(variance=posterior)),
        **{
            text: lambda late=late: shown(ours(step_of=late))  # type: ignore[misc]
            for text, late in _late(call, x0, T).items()
        },
        **{
            text: lambda other=other: shown(ours(noise=np.broadcast_to(other, noise.shape)))  # type: ignore[misc]
            for text, other in _other_noise(noise).items()
        },
    }
    if by_term:
        mistakes = {
            **mistakes,
            "the terms are in the order L_T, …, L_0": lambda: terms[:, ::-1],
            "L_0 comes last: the order is L_1, …, L_T, L_0": lambda: np.roll(terms, -1, axis=1),
        }
    else:
        mistakes = {
            **mistakes,
            "L_T, the divergence from the prior, is missing": lambda: without(-1),
            "L_0, the reconstruction, is missing": lambda: without(0),
            "the ½ is missing in every L_{t−1}": lambda: terms.sum(axis=1) + terms[:, 1:-1].sum(axis=1),
            "the ½ is missing in every L_{t−1} and in L_T": lambda: terms.sum(axis=1) + terms[:, 1:].sum(axis=1),
            **(
                {"the density of x_0 stands where the mass of its bin belongs": lambda: shown(ours(levels=None))}
                if n_levels is not None
                else {}
            ),
            "L_0 and L_T are missing": lambda: terms[:, 1:-1].sum(axis=1),
            "it is averaged over the T steps": lambda: terms.sum(axis=1) / T,
        }

    shaken = [*(ours(rounding=sign) for sign in (4.0, -4.0)), ours(_rounded(schedule, call.eps))]
    effects = _effect(shaken, terms)
    effects = effects if by_term else np.sqrt((effects**2).sum(axis=1))
    return _judged("check_bound_of", "(20)", "−ELBO", left, shown(terms), effects, call.tolerance, mistakes, name_of)


def check_sampler_of(
    sample: Callable[[Array, Array], ArrayLike],
    eps_hat: Network,
    x_T: ArrayLike,
    noise: ArrayLike,
    schedule: NoiseSchedule,
    variance: str | Array = "beta",
    eta: float | None = None,
    last_noise: bool = True,
) -> Check:
    """(19): the samples, or the whole paths, of Algorithm 2 or DDIM, with the network of the code under test.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, D), noise (T, N, D)) → x_0 (N, D), or the path x_T, …, x_0, (T+1, N, D).  noise[0] is z of the
        step from T.
    eps_hat : callable
        eps_hat(x_t (N, D), t) → total noise (N, D) for an int t in 1..T, without dropout.
    x_T : (N, D)
    noise : (T, N, D)
    schedule : NoiseSchedule
    variance
        σ_t², as for `scratchgen.ddpm.reverse_variance`; not used by DDIM.
    eta : float, optional
        η of a DDIM sampler over all steps; None for ancestral sampling.
    last_noise : bool
        Whether the step from t = 1 adds noise.  Ho et al. add none.

    Returns
    -------
    Check
        Tolerance as for `check_loss_of`.  A sampler magnifies rounding; ten times its effect is allowed.
    """
    check_callable(sample, "sample(x_T, noise)")
    schedule, sample = as_schedule(schedule), on_copies(sample, "sample")
    start, noise = as_samples(x_T, "x_T").astype(np.float64), np.asarray(noise, dtype=np.float64)
    T = schedule.T
    if noise.shape != (T, *start.shape):
        raise ValueError(f"noise must have shape (T, N, D) = {(T, *start.shape)}, got {noise.shape}")
    call = _Repeatable(eps_hat, start, T, "eps_hat")
    if eta is not None:
        eta = as_number(eta, "eta", low=0.0, high=1.0)
    sigma_squared = reverse_variance(schedule, variance)

    def ours(
        schedule: NoiseSchedule = schedule,
        rounding: float = 0.0,
        step_of: Callable[[int], int] = lambda t: t,
        sigma_squared: Array = sigma_squared,
        noise: Array = noise,
        eta: float | None = eta,
        last_noise: bool = last_noise,
        stale: Callable[[list[Array]], Array] | None = None,
        coefficients: bool = False,
        change: Callable[[Array, int, Array], Array] | None = None,
    ) -> Array:
        predict = call.rounded(schedule, rounding, step_of)
        predict = predict if change is None else _changed(predict, change)
        predict = predict if stale is None else _stale(predict, stale)
        predict = _by_coefficients(schedule, predict, call.eps) if coefficients else predict
        rng: Any = _Given(noise if last_noise else np.concatenate([noise[:-1], 0 * noise[-1:]]))
        if eta is None:
            steps = ancestral_sampler(schedule, predict, start, rng, sigma_squared)
        else:
            steps = ddim_sampler(schedule, predict, start, rng, eta)
        return np.stack([x for _, x in steps])

    path = call.finite(ours, "x_0")
    left = numbers(sample(start, noise), f"sample must return an array of shape {start.shape} or {path.shape}")
    whole = left.shape == path.shape

    def shown(path: Array) -> Array:
        return path if whole else path[-1]

    def name_of(index: tuple[int, ...]) -> str:
        return f"x_{T - index[0] if whole else 0} of example {index[-2]}, dimension {index[-1]},"

    mistakes: dict[str, Callable[[], ArrayLike]] = {
        "there is no noise": lambda: shown(ours(noise=0 * noise)),
        "the last step adds no noise; pass last_noise=False if this is meant"
        if last_noise
        else "the last step adds noise; pass last_noise=True if this is meant": lambda: shown(
            ours(last_noise=not last_noise)
        ),
        **{
            text: lambda late=late: shown(ours(step_of=late))  # type: ignore[misc]
            for text, late in _late(call, start, T).items()
        },
        **{
            text: lambda other=other: shown(ours(noise=np.broadcast_to(other, noise.shape)))  # type: ignore[misc]
            for text, other in _other_noise(noise).items()
        },
        **{
            f"x̂_0 is clipped to [−{bound:g}, {bound:g}], and ε̂ recomputed from it; {UNCLIPPED}": (
                lambda bound=bound: shown(ours(change=_clipping(schedule, bound)))  # type: ignore[misc]
            )
            for bound in CLIPS
        },
        "the network is taken for one of v, and predicts ε": lambda: shown(ours(change=_taken_for(schedule, "v"))),
        "the network is taken for one of x_0, and predicts ε": lambda: shown(ours(change=_taken_for(schedule, "x0"))),
        "ε̂ has the wrong sign": lambda: shown(ours(change=lambda x, t, e: -e)),
        "ε̂ is stale: that of the step before": lambda: shown(ours(stale=lambda e: e[max(len(e) - 2, 0)])),
        "ε̂ is stale: that of the first step, for all steps": lambda: shown(ours(stale=lambda e: e[0])),
    }
    if not whole:
        mistakes = {**mistakes, "the last step, t = 1, is not made: x_1 is returned": lambda: path[-2]}
    posterior = reverse_variance(schedule, "posterior")
    if eta is None and last_noise and not np.allclose(sigma_squared[2:], posterior[2:]):
        mistakes['σ_t² is β̃_t², with β̃_1 = 0; pass variance="posterior" and last_noise=False if this is meant'] = (
            lambda: shown(ours(sigma_squared=posterior, last_noise=False))
        )
    if eta is None:
        mistakes = {
            **mistakes,
            'σ_t² is β_t²; pass variance="beta" if this is meant': lambda: shown(
                ours(sigma_squared=reverse_variance(schedule, "beta"))
            ),
            'σ_t² is β̃_t²; pass variance="posterior" if this is meant': lambda: shown(ours(sigma_squared=posterior)),
            "the noise has factor σ², a variance": lambda: shown(ours(sigma_squared=sigma_squared**2)),
            "σ_t is that of step t−1": lambda: shown(
                ours(sigma_squared=np.append(sigma_squared[:1], sigma_squared[[1, *range(1, T)]]), last_noise=False)
            ),
            "it is DDIM with η = 0": lambda: shown(ours(eta=0.0)),
        }
    else:
        mistakes = {
            **mistakes,
            "it is DDIM with η = 0": lambda: shown(ours(eta=0.0)),
            "it is DDIM with η = 1": lambda: shown(ours(eta=1.0)),
            "it is ancestral sampling": lambda: shown(ours(eta=None)),
        }
    rounded = [shown(ours(rounding=sign)) for sign in (4.0, -4.0)] + [shown(ours(_rounded(schedule, call.eps)))]
    if eta is None:
        rounded.append(shown(ours(coefficients=True)))
    effect = _effect(rounded, shown(path)).max(axis=-1, keepdims=True)  # a network couples the dimensions
    return _judged("check_sampler_of", "(19)", "x_0", left, shown(path), effect, call.tolerance, mistakes, name_of)


def check_flow_likelihood_of(
    log_prob: Callable[[Array], ArrayLike],
    score: Network,
    x: ArrayLike,
    sde: LinearSDE,
    t_min: float,
    divergence: Callable[[Array, float], ArrayLike] | None = None,
    rtol: float | None = None,
    prior_std: float | None = None,
) -> Check:
    """log p^ODE(x) of every example, by the probability flow, with the score network of the code under test.

    Parameters
    ----------
    log_prob : callable
        log_prob(x (N, D)) → (N,), nats: log π(x_T) + ∫ div f̃ dt from t_min to the horizon, π = N(0, prior_std² I).
    score : callable
        score(x (N, D), t) → s_θ (N, D) for a float t, without dropout.
    x : (N, D)
    sde : LinearSDE
    t_min : float
        Time of the density, above 0 for most networks.
    divergence : callable, optional
        divergence(x, t) → div s_θ, (N,), exact.  If None, by finite differences of sixth order with steps of
        min(std(t), 1)/20.
    rtol : float, optional
        Relative tolerance of the integrator under test.  1e-7 if None, for a network in float32 1e-4.
    prior_std : float, optional
        Standard deviation of π; std(T) if None.  1.0 for code that starts from N(0, I).

    Returns
    -------
    Check
        Tolerance 10 rtol; more where ten times the difference between our integrations with rtol and with rtol/10
        is larger.
    """
    check_callable(log_prob, "log_prob(x)")
    if not isinstance(sde, LinearSDE):
        raise TypeError(f"sde must be a LinearSDE such as VP(0.1, 20.0), got {type(sde).__name__}")
    log_prob = on_copies(log_prob, "log_prob")
    x = as_samples(x, "x").astype(np.float64)
    if prior_std is not None:
        sde = _with_prior(sde, as_number(prior_std, "prior_std", low=0.0, open_low=True))
    t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon)
    call = _Repeatable(score, x, sde.horizon, "score")
    rtol = as_number(rtol or (1e-7 if call.eps < 1e-10 else 1e-4), "rtol", low=0.0, open_low=True)
    axes = np.eye(x.shape[1])

    def by_differences(x: Array, t: float) -> Array:
        h = max(0.05 * min(float(sde.std(t)), 1.0), 1e-4)

        def along(d: int) -> Callable[[float], Array]:
            return lambda k: call(x + k * axes[d], t)[:, d]

        return np.sum([np.asarray(central_difference(along(d), h)) for d in range(len(axes))], axis=0)

    def ours(
        rtol: float = rtol, factor: float = 1.0, weight: float = 1.0, start: float = t_min, drift: bool = True
    ) -> Array:
        """log p with the divergence times `factor`, and score and divergence times `weight`."""

        def both(x: Array, t: float) -> tuple[Array, Array]:
            spread = by_differences(x, t) if divergence is None else divergence(x, t)
            less = 0.0 if drift else 2 * x.shape[1] * float(sde.rate(t)) / float(sde.diffusion(t)) ** 2
            return weight * call(x, t), weight * factor * returned(spread, (len(x),), "divergence") + less

        with np.errstate(over="ignore", invalid="ignore"):  # a trial step that is refused may lead far away
            return probability_flow_log_prob(sde, both, x, start, rtol)

    right = call.finite(lambda: ours(rtol / 10), "log p^ODE")

    def end() -> Array:
        return flow_map(sde, call, x, t_min, sde.horizon, rtol)

    def prior(of: LinearSDE = sde) -> Array:
        return of.prior_log_prob(end())

    return _judged(
        "check_flow_likelihood_of",
        "(34)",
        "log p^ODE",
        returned(log_prob(x), (len(x),), "log_prob"),
        right,
        _effect([ours()], right),
        10 * rtol,
        {
            "∫ div f̃ dt has the wrong sign": lambda: 2 * prior() - right,
            **{
                text: lambda std=std: right - prior() + prior(_with_prior(sde, std))  # type: ignore[misc]
                for text, std in {
                    "π is N(0, I), not N(0, std(T)² I); pass prior_std=1.0 if this is meant": 1.0,
                    "π is N(0, std(T)² I); pass prior_std=None if this is meant": float(sde.std(sde.horizon)),
                }.items()
            },
            "g² stands for ½g²: the drift is that of the reverse SDE": lambda: ours(rtol / 10, weight=2.0),
            "the score has the wrong sign in the drift": lambda: ours(rtol / 10, weight=-1.0),
            "½g² is ¼g²": lambda: ours(rtol / 10, weight=0.5),
            "div f is missing in ∫ div f̃ dt": lambda: ours(rtol / 10, drift=False),
            "log π(x_T) is missing": lambda: right - prior(),
            "∫ div f̃ dt is missing": prior,
            "div s_θ has the wrong sign": lambda: ours(factor=-1.0),
            "div s_θ is missing": lambda: ours(factor=0.0),
            "it is averaged over the D dimensions": lambda: right / x.shape[1],
            "it is half the right value": lambda: right / 2,  # the same for D = 2
            "it is −log p": lambda: -right,
        },
        lambda index: f"log p^ODE of example {index[0]}",
    )


def _with_prior(sde: LinearSDE, std: float) -> LinearSDE:
    """The process with the prior N(0, std² I)."""
    other = copy.copy(sde)
    object.__setattr__(other, "prior_log_prob", lambda x: gaussian_log_prob(x, np.zeros_like(x), 2 * np.log(std)))
    return other


class _Repeatable:
    """The network under test, with results in float64 and the machine epsilon of its own dtype.

    Raises
    ------
    TypeError, ValueError
        If it cannot be called, the result has another shape than x, or two calls with the same x and t differ.
    """

    def __init__(self, network: Network, x: Array, t: Any, name: str) -> None:
        check_callable(network, f"{name}(x_t, t)")
        self.network, self.name, self.first_wrong = on_copies(network, name), name, ""
        first, second = (np.asarray(self.network(x, t)) for _ in range(2))
        if first.shape == x.shape and not np.array_equal(first, second, equal_nan=True):
            raise ValueError(
                f"{name} must return the same for the same x and t, but two calls differ by "
                f"{np.abs(first - second).max():.2g}; turn dropout off (in torch: net.eval())"
            )
        self.eps = float(np.finfo(first.dtype if first.dtype.kind == "f" else np.float64).eps)
        self.tolerance = DOUBLE if self.eps <= np.finfo(np.float64).eps else ULPS * self.eps

    def __call__(self, x: Array, t: Any) -> Array:
        value = returned(self.network(x, t), x.shape, self.name)
        if not self.first_wrong and not np.isfinite(value).all() and np.abs(x).max() < LARGE:
            self.first_wrong = f"got {value[~np.isfinite(value)][0]} at t = {t} for x_t of size {np.abs(x).max():.3g}"
        return value

    def finite(self, compute: Callable[[], Array], quantity: str) -> Array:
        """The right side if it is finite; otherwise ValueError that blames the network or the loop."""
        with np.errstate(over="ignore", invalid="ignore"):
            right = compute()
        if not np.isfinite(right).all():
            raise ValueError(
                f"{self.name} must return finite numbers, {self.first_wrong}"
                if self.first_wrong
                else f"{quantity} overflows with this {self.name}; use one whose results are of the size of noise"
            )
        return right

    def rounded(
        self, schedule: NoiseSchedule, rounding: float, step_of: Callable[[int], int], in_posterior: bool = False
    ) -> EpsHat:
        """The network at step_of(t), with errors in ε̂ that stand for rounding errors of a step.

        With `rounding` 0 there are none.  Otherwise x_t, as the network gets it and as the mean contains it, is wrong
        by `rounding` machine epsilons, and 1 − ᾱ_t² by its cancellation, in the factor of ε̂ and with `in_posterior`
        in the factors of the posterior mean.
        """
        lost = _cancelled(schedule, self.eps)

        def predict(x: Array, t: int) -> Array:
            if rounding == 0:
                return self(x, step_of(t))
            size, signs = self.eps * (1 + np.abs(x)), np.sign(rounding) * _signs(x.shape)
            predicted = self(x + abs(rounding) * signs * size, step_of(t))
            in_mean = size * (1 + lost[t] / self.eps if in_posterior else 1.0)
            to_eps_hat = schedule.alpha[t] * schedule.beta_bar[t] / schedule.beta[t] ** 2
            return predicted + signs * (lost[t] * np.abs(predicted) + to_eps_hat * in_mean)

        return predict


def _late(call: _Repeatable, x: Array, T: int) -> dict[str, Callable[[int], int]]:
    """Steps that a network gets by mistake; step 0 only if the network takes it."""
    known: dict[str, Callable[[int], int]] = {
        "the network is called at t − 1: one of the two counts t from 0": lambda t: t - 1,
        "the network is called at t − 1, and at 1 for t = 1": lambda t: max(t - 1, 1),
        "the network is called at t + 1, and at T for t = T": lambda t: min(t + 1, T),
        "the network is called at T + 1 − t: the steps are counted backwards": lambda t: T + 1 - t,
        "the network is called at T in every step": lambda t: T,
    }
    try:
        call(x, 0)
    except Exception:  # the network has no step 0, and says so by any exception
        del known["the network is called at t − 1: one of the two counts t from 0"]
    return known


def _other_noise(noise: Array) -> dict[str, Array]:
    """Noise (T, N, D) in another order, or shared."""
    return {
        "one noise is shared by all steps: noise[0]": noise[:1],
        "one noise is shared by all steps: noise[T−1]": noise[-1:],
        "the noise of the steps is used in the order t = 1..T, in reverse": noise[::-1],
        "all examples use the noise of the first example": noise[:, :1],
        "all dimensions use the noise of the first dimension": noise[:, :, :1],
    }


def _changed(predict: EpsHat, change: Callable[[Array, int, Array], Array]) -> EpsHat:
    """The network whose ε̂ becomes change(x, t, ε̂)."""
    return lambda x, t: change(x, t, np.asarray(predict(x, t)))


def _clipping(schedule: NoiseSchedule, bound: float) -> Callable[[Array, int, Array], Array]:
    """ε̂ recomputed from x̂_0 within ±bound."""

    def change(x: Array, t: int, eps_hat: Array) -> Array:
        scale, std = schedule.alpha_bar[t], schedule.beta_bar[t]
        return np.asarray((x - scale * clipped((x - std * eps_hat) / scale, bound)) / std)

    return change


def _taken_for(schedule: NoiseSchedule, kind: str) -> Callable[[Array, int, Array], Array]:
    """The result of the network, read as another prediction."""

    def change(x: Array, t: int, output: Array) -> Array:
        scale, std = schedule.alpha_bar[t], schedule.beta_bar[t]
        return np.asarray(scale * output + std * x if kind == "v" else (x - scale * output) / std)

    return change


def _stale(predict: EpsHat, choose: Callable[[list[Array]], Array]) -> EpsHat:
    """ε̂ chosen from those of all steps so far."""
    predicted: list[Array] = []

    def chosen(x: Array, t: int) -> Array:
        predicted.append(predict(x, t))
        return choose(predicted)

    return chosen


def _huber(difference: Array) -> Array:
    size = np.abs(difference)
    return np.where(size < 1, 0.5 * size**2, size - 0.5).sum(axis=1)


class _Given(np.random.Generator):
    """A random generator that returns given noise, one array a call."""

    def __init__(self, noise: Array) -> None:
        super().__init__(np.random.PCG64(0))
        self.rows = iter(noise)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return next(self.rows)


def _examples(x0: ArrayLike, noise: ArrayLike) -> tuple[Array, Array]:
    """x_0 and noise as float64 arrays of one shape (N, D)."""
    x, other = _not_zero(as_samples(x0, "x0").astype(np.float64)), np.asarray(noise, dtype=np.float64)
    check_shapes("noise", other, "x0", x)
    return x, other


def _not_zero(x0: Array) -> Array:
    """x0; ValueError if it is zero everywhere, so that no mistake in the factor of x_0 shows."""
    if not x0.any():
        raise ValueError("x0 must hold examples of data, got zero everywhere; no mistake in the factor of x_0 shows")
    return x0


def _signs(shape: tuple[int, ...]) -> Array:
    """Irregular signs, as those of rounding errors."""
    return np.where(np.sin(1.7 * np.arange(1, 1 + int(np.prod(shape))) ** 1.3) > 0, 1.0, -1.0).reshape(shape)


def _rounded(schedule: NoiseSchedule, eps: float) -> NoiseSchedule:
    """The schedule whose ᾱ_t² are products in the precision eps, as plain code computes them."""
    kept: Array = (1 - schedule.variances).astype(np.float64 if eps < 1e-10 else np.float32)
    products = np.asarray(np.cumprod(kept), dtype=np.float64)
    variances = 1 - products / np.append(1.0, products[:-1])
    return NoiseSchedule(np.where((variances > 0) & (variances < 1), variances, schedule.variances))


def _by_coefficients(schedule: NoiseSchedule, predict: EpsHat, eps: float) -> EpsHat:
    """The ε̂ that gives the mean of plain code with coefficients of x̂_0 and x_t, from tables in the precision eps.

    1 − ᾱ_t² cancels in both coefficients, so that at the first steps their sum is wrong by eps/β_t².
    """
    variance: Array = schedule.variances.astype(np.float64 if eps < 1e-10 else np.float32)
    total_scale = np.cumprod(1 - variance)
    before = np.append(np.ones_like(variance[:1]), total_scale[:-1])
    by_x0 = np.sqrt(before) * variance / (1 - total_scale)
    by_x_t = np.sqrt(1 - variance) * (1 - before) / (1 - total_scale)

    def adjusted(x: Array, t: int) -> Array:
        x0_hat = (x - schedule.beta_bar[t] * predict(x, t)) / schedule.alpha_bar[t]
        mean = float(by_x0[t - 1]) * x0_hat + float(by_x_t[t - 1]) * x
        return (x - schedule.alpha[t] * mean) * schedule.beta_bar[t] / schedule.beta[t] ** 2

    return adjusted


def _cancelled(schedule: NoiseSchedule, eps: float) -> Array:
    """Relative rounding error of 1 − ᾱ_t² for a product ᾱ_t² in the precision eps, (T+1,); 0 at t = 0.

    One rounding below 1 has an error of at most eps/2, and those of t factors add up at random.
    """
    steps, ratio = np.arange(1, schedule.T + 1), (schedule.alpha_bar[1:] / schedule.beta_bar[1:]) ** 2
    return np.append(0.0, 0.5 * eps * np.sqrt(steps) * ratio)


def _effect(rounded: list[Array], exact: Array) -> Array:
    """The largest difference of the rounded values from the exact ones, entry by entry."""
    return np.max([np.abs(other - exact) for other in rounded], axis=0)


def _judged(
    name: str,
    equation: str,
    quantity: str,
    left: ArrayLike,
    right: Array,
    effect: Array,
    tolerance: float,
    mistakes: Mistakes,
    labels: Labels,
    places: Mistakes | None = None,
) -> Check:
    """Compare left with right, in units by which ten times the effect of rounding is within the tolerance."""
    unit = np.maximum(1 + np.abs(right), ALLOWED * effect / tolerance)
    return compare(name, equation, quantity, left, right, tolerance, mistakes, labels=labels, unit=unit, places=places)
