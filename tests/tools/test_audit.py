"""`audit`: right code of several conventions passes, wrong code fails in its own row, and the table says it all."""

import ast
import re
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp, rel_entr
from scipy.stats import entropy

from scratchgen import VE, VP, NoiseSchedule, SubVP, conformance, ddpm, likelihood, sde, vae
from scratchgen.conformance import EDM, audit, given_noise
from scratchgen.conformance.arguments import CodeWarning
from scratchgen.conformance.cases import CODE
from scratchgen.conformance.convention import as_numpy
from scratchgen.conformance.given import never_drawn
from scratchgen.em import e_step, m_step
from scratchgen.equations.problems import GivenNoise
from scratchgen.mixture import Mixture
from scratchgen.report import cli
from scratchgen.sde import euler_maruyama, probability_flow_log_prob, reverse_drift
from scratchgen.testing import parametrize_with_checks
from tests.ho import COSINE, HO, Ho

SHORT = np.array([0.02, 0.1, 0.25, 0.4, 0.6, 0.3])
CHAIN = ("q_sample", "q_posterior", "predict_x0", "step", "ddim", "loss", "bound", "sampler")


def examples(*shape):
    return np.random.default_rng(3).standard_normal(shape)


def in_hos_convention(betas=COSINE, dtype=np.float64, prediction="noise", D=3, **changes):
    model = Ho(betas, D, dtype, prediction)
    given = {
        "betas": model.betas,
        "zero_based": True,
        "last_noise": False,
        "prediction": prediction,
        "x0": examples(4, D),
        "eps_hat": model.net,
        "alphas_cumprod": model.acp,
        "q_step": lambda t, x, e: np.sqrt(model.alphas[t]) * x + np.sqrt(model.betas[t]) * e,
        **{name: getattr(model, name) for name in CHAIN},
    }
    return model, {**given, **changes}


def passes(result):
    assert result.passed, f"\n{result}"


def verdicts(result):
    return {row.argument: row.verdict for row in result.rows}


def only(result, failing):
    """Exactly the named rows fail."""
    assert {name for name, verdict in verdicts(result).items() if verdict != "ok"} == set(failing), f"\n{result}"


def diagnosis_of(result, name):
    return next(row.diagnosis for row in result.rows if row.argument == name)


# --- right code in every convention ------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("betas", [HO, COSINE, SHORT], ids=["Ho", "cosine", "short"])
def test_right_code_in_hos_convention_passes(betas, dtype, prediction):
    result = audit(**in_hos_convention(betas, dtype, prediction)[1])
    passes(result)
    assert set(verdicts(result)) == {"alphas_cumprod", "q_step", *CHAIN}
    assert np.dtype(dtype).name in result.title


def test_our_own_functions_pass():
    schedule, x0 = NoiseSchedule(SHORT), examples(4, 3)
    net = Ho(SHORT, 3).net

    def eps_hat(x, t):
        return net(x, np.asarray(t) - 1)

    def sampler(x, noise):
        for t in range(schedule.T, 0, -1):
            x = ddpm.p_step(schedule, t, x, eps_hat(x, t), noise[schedule.T - t], "posterior")
        return x

    result = audit(
        betas=schedule.variances,
        variance="posterior",
        reduction="mean",
        eps_hat=eps_hat,
        x0=x0,
        alphas_cumprod=schedule.alpha_bar[1:] ** 2,
        q_step=lambda *a: ddpm.q_step(schedule, *a),
        q_sample=lambda *a: ddpm.q_sample(schedule, *a),
        q_posterior=lambda *a: ddpm.q_posterior(schedule, *a),
        predict_x0=lambda *a: ddpm.predict_x0(schedule, *a),
        step=lambda *a: ddpm.p_step(schedule, *a, "posterior"),
        ddim=lambda *a: ddpm.ddim_step(schedule, *a),
        loss=lambda t, x0, e: ((e - eps_hat(ddpm.q_sample(schedule, t, x0, e), t)) ** 2).mean(),
        bound=lambda x0, noise: ddpm.bound_terms(schedule, x0, eps_hat, noise, "posterior").sum(axis=1),
        sampler=sampler,
    )
    passes(result)
    assert "t counts from 1" in result.title


def on_batches(model):
    """The same functions for t of shape (N,) and images (N, 1, 2, 2), as those of Ho et al. for images."""

    def of(table, t):
        assert t.dtype == np.int64
        assert t.ndim == 1
        return table[t].reshape(-1, 1, 1, 1)

    def net(x, t):
        assert x.shape[1:] == (1, 2, 2)
        return model.net(x.reshape(len(x), 4), t).reshape(x.shape)

    def q_sample(t, x0, e):
        return np.sqrt(of(model.acp, t)) * x0 + np.sqrt(1 - of(model.acp, t)) * e

    def q_posterior(t, x_t, x0):
        return of(model.coef1, t) * x0 + of(model.coef2, t) * x_t, of(model.posterior_variance, t)

    def sampler(x, noise):
        return model.sampler(x.reshape(-1, 4), noise.reshape(-1, len(x), 4)).reshape(x.shape)

    return {
        "x0": examples(4, 1, 2, 2),
        "batched_t": True,
        "q_sample": q_sample,
        "q_posterior": q_posterior,
        "loss": lambda t, x0, e: ((e - net(q_sample(t, x0, e), t)) ** 2).sum(axis=(1, 2, 3)),
        "bound": lambda x0, noise: model.bound(x0.reshape(-1, 4), noise.reshape(-1, len(x0), 4)),
        "sampler": sampler,
        "eps_hat": net,
        "predict_x0": None,
        "step": None,
        "ddim": None,
        "q_step": None,
    }


def test_functions_of_images_and_of_a_step_an_example_pass():
    model, given = in_hos_convention(D=4)
    result = audit(**{**given, **on_batches(model)})
    passes(result)
    assert len(result.rows) == 6


def of_shape(shape, f):
    """The same function, for examples of this shape only."""

    def bound_to_it(*arguments):
        for a in arguments:
            if np.ndim(a) > 1:
                assert a.shape[-len(shape) :] == shape
                assert a.ndim <= len(shape) + 2
        return f(*arguments)

    return bound_to_it


def wrong_at_the_end(f):
    """The same function with a small mistake in the last dimension of every example."""

    def one_wrong(*arguments):
        value = f(*arguments)
        mean = value[0] if isinstance(value, tuple) else value
        mean.reshape(len(mean), -1)[:, -1] *= 1.001
        return (mean, value[1]) if isinstance(value, tuple) else mean

    return one_wrong


OF_OWN_SHAPE = "q_step", "q_sample", "q_posterior", "predict_x0", "step", "ddim"
OF_TIME = "drift", "reverse_drift", "flow_drift", "sde_step", "sde_sampler", "heun"


@pytest.mark.parametrize(("shape", "place"), [((1,), 0), ((2,), 1), ((5,), "1 (or 4)"), ((1, 3, 4), "2 (or 5, 8, …)")])
def test_code_gets_data_of_the_shape_of_x0(shape, place):
    model, given = in_hos_convention(SHORT)
    right = {name: of_shape(shape, given[name]) for name in OF_OWN_SHAPE}
    chain = {"betas": SHORT, "zero_based": True, "last_noise": False, "x0": examples(4, *shape)}
    passes(audit(**chain, **right))
    found = audit(**chain, **{name: wrong(model)[name][0] for name in OF_OWN_SHAPE})
    for row in found.rows:
        assert wrong(model)[row.argument][1] in row.diagnosis, row
    found = audit(**chain, **{name: wrong_at_the_end(f) for name, f in right.items()})
    only(found, OF_OWN_SHAPE)
    assert f"x_t, dimension {place}, is" in diagnosis_of(found, "q_sample")
    entries = model.posterior_variance[:, None] + np.zeros(int(np.prod(shape)))
    spreads = {"entries": entries, "one of them": entries * np.append(np.ones(entries.shape[1] - 1), 1.001)}
    for kind, table in spreads.items():
        variance = table.reshape(-1, *shape)

        def posterior(t, x_t, x0, variance=variance):
            return model.q_posterior(t, x_t, x0)[0], variance[t] + 0 * x_t

        assert audit(**chain, q_posterior=posterior).passed == (kind == "entries"), kind


@pytest.mark.parametrize("shape", [(1,), (2,), (5,)])
def test_code_of_an_sde_gets_data_of_the_shape_of_x0(shape):
    process = VP(0.1, 8.0, 1.7)
    given = {**of_process(process), "x0": examples(4, *shape)}
    right = {name: of_shape(shape, given[name]) for name in OF_TIME}
    passes(audit(**{**given, **right}))
    failing = audit(**{**given, **{name: wrong_at_the_end(f) for name, f in right.items()}})
    only(failing, ["marginal", *OF_TIME[1:]])
    if shape == (2,):
        assert "dimension 2 " in diagnosis_of(failing, "heun")


def test_code_of_an_sde_gets_images_if_x0_holds_images():
    process = VP(0.1, 8.0, 1.7)

    def step(x, t, s, score, z):
        g, dt = process.diffusion(t), t - s
        return x - dt * (process.rate(t) * x - g**2 * score(x, t)) + g * np.sqrt(dt) * z

    given = {"sde": process, "x0": examples(4, 1, 2, 2)}
    passes(audit(**given, sde_step=of_shape((1, 2, 2), step)))
    only(audit(**given, sde_step=wrong_at_the_end(step)), ["sde_step"])


def test_a_variance_of_another_shape_is_refused_with_that_of_x0():
    model = Ho(SHORT, 4)
    given = {"betas": SHORT, "zero_based": True, "x0": examples(4, 2, 2)}
    wide = audit(**given, q_posterior=lambda t, x_t, x0: (model.q_posterior(t, x_t, x0)[0], np.ones((3, 3))))
    assert "the variance of q_posterior must be a number or broadcast to (7, 2, 2)" in wide.rows[0].diagnosis


@pytest.mark.parametrize(("spread", "of"), [("std", np.sqrt), ("variance", lambda v: v)])
def test_the_posterior_may_return_a_standard_deviation(spread, of):
    model = Ho(COSINE, 3)

    def q_posterior(t, x_t, x0):
        mean, variance = model.q_posterior(t, x_t, x0)
        return mean, of(variance)

    for claimed in ("std", "variance"):
        result = audit(betas=COSINE, zero_based=True, q_posterior=q_posterior, posterior_spread=claimed)
        assert result.passed == (claimed == spread)


def test_the_posterior_may_return_a_log_variance_but_its_first_one_is_minus_infinity():
    model = Ho(COSINE, 3)

    def q_posterior(t, x_t, x0):
        mean, variance = model.q_posterior(t, x_t, x0)
        with np.errstate(divide="ignore"):
            return mean, np.log(variance)

    given = {"betas": COSINE, "zero_based": True, "posterior_spread": "log_variance"}
    passes(audit(**given, q_posterior=q_posterior))
    clipped = np.append(model.posterior_variance[1], model.posterior_variance[1:])

    def as_in_hos_code(t, x_t, x0):
        return model.q_posterior(t, x_t, x0)[0], np.log(clipped[t])

    assert not audit(**given, q_posterior=as_in_hos_code)


def test_a_network_may_return_a_score_or_take_sigma():
    model, given = in_hos_convention()
    std = np.sqrt(1 - model.acp)

    def score(x, t):
        return -model.net(x, t) / std[t]

    def with_score(function):
        return lambda t, x, s, *rest: function(t, x, -std[t] * s, *rest)

    as_score = {
        **given,
        "prediction": "score",
        "eps_hat": score,
        "predict_x0": with_score(model.predict_x0),
        "step": with_score(model.step),
        "ddim": lambda t, s, x, value, z, eta: model.ddim(t, s, x, -std[t] * value, z, eta),
    }
    passes(audit(**as_score))
    sigma = std / np.sqrt(model.acp)

    def in_sigma(y, level):
        t = int(np.abs(sigma - level).argmin())
        return model.net(y * np.sqrt(model.acp[t]), t)

    passes(audit(**{**given, "eps_hat": in_sigma, "in_sigma": True}))
    only(audit(**{**given, "eps_hat": in_sigma}), ["loss", "bound", "sampler"])


def test_ddim_samplers_and_deterministic_steps_pass():
    model, given = in_hos_convention()
    changes = {
        "sampler": lambda x, noise: model.ddim_sampler(x, noise, 0.4),
        "sampler_eta": 0.4,
        "last_noise": True,
        "step": None,
        "ddim": lambda t, s, x, e, z, eta: model.ddim(t, s, x, e, z, 0.0),
        "etas": (0.0,),
    }
    passes(audit(**{**given, **changes}))
    only(audit(**{**given, **changes, "etas": (0.0, 1.0), "sampler_eta": 0.0}), ["ddim", "sampler"])


# --- wrong code fails in its own row -----------------------------------------------------------------------------


def wrong(m):
    """By argument: the mistake and a part of the diagnosis."""
    a = m.acp
    return {
        "q_step": (lambda t, x, e: m.alphas[t] * x + np.sqrt(m.betas[t]) * e, "without the square root"),
        "q_sample": (lambda t, x0, e: a[t] * x0 + np.sqrt(1 - a[t]) * e, "Ho's α-bar without its square root"),
        "q_posterior": (lambda t, x, x0: (m.q_posterior(t, x, x0)[0], m.betas[t]), "variance of the forward step"),
        "predict_x0": (lambda t, x, e: x - np.sqrt(1 - a[t]) * e, "1/ᾱ is missing"),
        "step": (lambda t, x, e, z: m.step(t, x, e, np.sqrt(m.betas[t]) * z), "the noise has factor σ²"),
        "ddim": (lambda t, s, x, e, z, eta: m.ddim(t, s, x, e, z, 0.0), "η is ignored"),
        "loss": (lambda t, x0, e: m.loss(t, x0, e) / x0.shape[1], "averaged over the D dimensions"),
        "bound": (lambda x0, e: m.bound(x0, e)[:, :-1].sum(axis=1), "L_T, the divergence from the prior, is missing"),
        "sampler": (lambda x, e: m.sampler(x, 0 * e), "there is no noise"),
    }


@pytest.mark.parametrize("name", wrong(Ho(COSINE, 3)))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_mistake_fails_its_own_row_and_is_named(name, dtype):
    model, given = in_hos_convention(SHORT, dtype)
    code, reason = wrong(model)[name]
    result = audit(**{**given, name: code})
    only(result, [name])
    assert reason in diagnosis_of(result, name), f"\n{result}"


def first_steps(m, mean_from, noise_from):
    """Ho's step; below these steps the mean is x_t, or the noise is left out."""

    def step(t, x, e, z):
        mean = m.step(t, x, e, 0 * z) if t >= mean_from else x
        return mean + np.sqrt(m.betas[t]) * z * (t >= noise_from)

    return step


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("mean_from", "noise_from", "last_noise", "sentence"),
    [
        (0, 1, True, "the noise is left out at t = 1; pass last_noise=False"),
        (0, 2, False, "the noise is left out at t = 1 and t = 2"),
        (0, 0, False, "the last step adds noise; pass last_noise=True"),
        (1, 0, True, "x_t is returned as it is at t = 1"),
        (2, 0, True, "x_t is returned as it is at t = 1 and t = 2"),
        (1, 1, False, "x_t is returned as it is at t = 1"),
    ],
)
def test_a_mistake_in_the_first_steps_of_a_long_chain_is_seen(dtype, mean_from, noise_from, last_noise, sentence):
    model = Ho(HO, 3, dtype)
    given = {"betas": model.betas, "zero_based": True}
    for right in (True, False):
        passes(audit(**given, last_noise=right, step=first_steps(model, 0, 0 if right else 1)))
    result = audit(**given, last_noise=last_noise, step=first_steps(model, mean_from, noise_from))
    assert sentence in diagnosis_of(result, "step"), f"\n{result}"
    assert result.rows[0].residual > 1e-4


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_step_that_is_quadratic_in_the_noise_is_named(dtype):
    model = Ho(HO, 3, dtype)
    given = {"betas": model.betas, "zero_based": True, "last_noise": False}
    result = audit(**given, step=lambda t, x, e, z: model.step(t, x, e, z * z))
    assert "the noise is squared" in diagnosis_of(result, "step")
    process = VP(0.1, 8.0)
    result = audit(sde=process, sde_step=lambda x, t, s, score, z: euler(process, x, t, s, score, z * z))
    assert "the noise is squared" in diagnosis_of(result, "sde_step")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_table_with_a_step_too_many_is_named(dtype):
    betas = np.linspace(1e-4, 0.02, 1001).astype(dtype)
    a = np.cumprod(1 - betas)[1:]
    result = audit(
        betas=betas[1:],
        zero_based=True,
        alphas_cumprod=a,
        q_sample=lambda t, x0, e: np.sqrt(a[t]) * x0 + np.sqrt(1 - a[t]) * e,
    )
    for row in result.rows:
        assert "ᾱ_t has the factor 0.99995 at every t: one step too many stands before the first" in row.diagnosis


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_clipped_beta_without_its_product_is_named(dtype):
    s = (np.arange(1001) / 1000 + 0.008) / 1.008
    a = (np.cos(s * np.pi / 2) ** 2 / np.cos(s[0] * np.pi / 2) ** 2).astype(dtype)
    result = audit(
        betas=np.minimum(1 - a[1:] / a[:-1], dtype(0.999)),
        zero_based=True,
        alphas_cumprod=a[1:],
        q_sample=lambda t, x0, e: np.sqrt(a[t + 1]) * x0 + np.sqrt(1 - a[t + 1]) * e,
    )
    only(result, ["alphas_cumprod", "q_sample"])
    for row in result.rows:
        assert "β² is clipped, ᾱ is not recomputed from it" in row.diagnosis
    passes(audit(**in_hos_convention(COSINE, dtype)[1]))


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_a_sampler_by_coefficients_in_float32_passes_and_its_last_noise_is_seen(T):
    """1 − ᾱ cancels in both coefficients, so that the last mean is wrong by 1e-4 at β = 1e-4."""
    given = in_hos_convention(np.linspace(1e-4, 0.02, T), np.float32)[1]
    model, x0 = Ho(given["betas"], 3, np.float32), given["x0"]

    def net(x, t):
        return (0.6 * x + 0.3 * np.sin(x + 0.01 * t)).astype(np.float32)

    def sampler(x, noise, last=0.0):
        for t in range(T)[::-1]:
            x0_hat = model.predict_x0(t, x, net(x, t))
            mean = model.coef1[t] * x0_hat + model.coef2[t] * x
            x = (mean + np.sqrt(model.betas[t]) * noise[T - 1 - t] * (1 if t else last)).astype(np.float32)
        return x

    kept = {name: given[name] for name in ("betas", "zero_based", "last_noise")} | {"eps_hat": net}
    result = audit(**kept, x0=x0, sampler=sampler)
    passes(result)
    assert result.rows[0].residual < 0.2 * result.rows[0].tolerance
    only(audit(**kept, x0=x0, sampler=lambda x, noise: sampler(x, noise, 1.0)), ["sampler"])


def test_what_is_left_of_x0_is_a_note_and_no_failure():
    model = Ho(HO[:50], 3)
    given = {"betas": model.betas, "zero_based": True, "q_sample": model.q_sample}
    result = audit(**given)
    passes(result)
    left = float(np.sqrt(model.acp[-1]))
    assert f"note: x_T = {left:.2g} x_0 + " in str(result)
    assert max(map(len, str(result).splitlines())) <= 100
    long = Ho(HO, 3)
    assert audit(betas=long.betas, zero_based=True, q_sample=long.q_sample).notes == ()
    assert audit(kl=likelihood.kl_diag_standard).notes == ()


def test_noise_in_another_order_is_seen():
    model, given = in_hos_convention(SHORT)
    backwards = audit(**{**given, "sampler": lambda x, noise: model.sampler(x, noise[::-1])})
    only(backwards, ["sampler"])
    assert "in the order t = 1..T" in diagnosis_of(backwards, "sampler")
    only(audit(**{**given, "bound": lambda x0, noise: model.bound(x0, noise[::-1])}), ["bound"])


def test_a_wrong_convention_fails():
    given = in_hos_convention(SHORT)[1]
    assert not audit(**{**given, "zero_based": False})
    only(audit(**{**given, "last_noise": True}), ["step", "sampler"])
    only(audit(**{**given, "variance": "posterior"}), ["step", "bound", "sampler"])
    only(audit(**{**given, "prediction": "v"}), ["predict_x0", "step", "ddim", "loss", "bound", "sampler"])
    assert not audit(**{**given, "betas": np.sqrt(SHORT)})  # standard deviations


def test_code_that_raises_is_a_row_with_the_error_and_the_call():
    given = in_hos_convention(SHORT)[1]

    def no_such_key(t, x0, noise):
        raise KeyError("alphas")

    result = audit(**{**given, "q_sample": no_such_key, "step": lambda x, t: x})
    only(result, ["q_sample", "step"])
    assert verdicts(result)["q_sample"] == verdicts(result)["step"] == "raised"
    assert diagnosis_of(result, "q_sample").startswith("KeyError: 'alphas'; called as q_sample(0, float64 (")
    assert "step must be callable as step(t, x_t, output, noise); t counts 0..T−1" in diagnosis_of(result, "step")
    raising = audit(**{**given, "eps_hat": lambda x, t: x @ np.eye(2)})
    only(raising, ["loss", "bound", "sampler"])
    assert "called as eps_hat(float64 (4, 3), 0)" in diagnosis_of(raising, "loss")
    assert "eps_hat must be callable as eps_hat(x_t, t)" in diagnosis_of(
        audit(**{**given, "eps_hat": lambda t, x: x}), "bound"
    )
    wrong_shape = audit(betas=SHORT, zero_based=True, q_posterior=lambda t, x, x0: x0)
    assert "q_posterior must return two results, (mean, spread), got ndarray" in wrong_shape.rows[0].diagnosis


def test_a_table_of_another_length_is_a_row_with_the_error():
    result = audit(betas=SHORT, zero_based=True, alphas_cumprod=np.cumprod(1 - SHORT)[:-1])
    assert result.rows[0].verdict == "raised"
    assert "alphas_cumprod must have shape (T,) = (6,), got (5,)" in result.rows[0].diagnosis


def test_a_posterior_variance_of_every_entry_passes():
    model, given = in_hos_convention(SHORT)

    def of_every_entry(t, x_t, x0):
        mean, variance = model.q_posterior(t, x_t, x0)
        return mean, variance + 0 * x_t

    passes(audit(**{**given, "q_posterior": of_every_entry}))
    doubled = audit(**{**given, "q_posterior": lambda *a: (of_every_entry(*a)[0], 2 * of_every_entry(*a)[1])})
    only(doubled, ["q_posterior"])


def test_warnings_of_the_code_itself_are_shown():
    model, given = in_hos_convention(SHORT)

    def q_sample(t, x0, noise):
        warnings.warn("mine", RuntimeWarning, stacklevel=1)
        return model.q_sample(t, x0, noise)

    with pytest.warns(RuntimeWarning, match=r"^mine$"):
        result = audit(**{**given, "q_sample": q_sample})
    passes(result)


def test_require_raises_with_the_failing_rows_only():
    model, given = in_hos_convention(SHORT)
    audit(**given).require()
    result = audit(**{**given, "q_sample": wrong(model)["q_sample"][0]})
    with pytest.raises(AssertionError, match="1 of 10 checks fail") as raised:
        result.require()
    assert "q_sample" in str(raised.value)
    assert "q_posterior" not in str(raised.value)
    assert bool(result) is result.passed is False


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_a_row_and_at_most_100_columns():
    model, given = in_hos_convention(SHORT)
    result = audit(**{**given, "q_sample": wrong(model)["q_sample"][0], "sampler": lambda x, noise: 1 / 0})
    text = str(result)
    assert repr(result) == text
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("audit: 8 of 10 checks pass; T = 6, t counts from 0, float64\n")
    for row in result.rows:
        assert re.search(rf"^{row.argument} +{re.escape(row.check)} +{row.verdict}", text, flags=re.MULTILINE)
    flat = re.sub(r"\s+", " ", text)
    assert all(row.diagnosis in flat for row in result.rows)
    assert "ZeroDivisionError: division by zero" in flat
    assert "not given: marginal, " in text
    assert set(result.not_given) == set(CODE) - set(verdicts(result))


def test_every_callable_has_its_check_in_the_package_and_its_usage_in_the_docstring():
    for name, entry in CODE.items():
        assert hasattr(conformance, entry.check)
        assert (entry.usage or name) in audit.__doc__.replace(" (T, N, …)", "").replace(" (n, N)", ""), name


# --- continuous time ---------------------------------------------------------------------------------------------


def of_process(process, **changes):
    given = {
        "sde": process,
        "marginal": process.marginal,
        "drift": process.drift,
        "diffusion": process.diffusion,
        "reverse_drift": lambda x, t, score: reverse_drift(process, score, x, t),
        "flow_drift": lambda x, t, score: reverse_drift(process, score, x, t, 0.0),
        "sde_step": lambda x, t, s, score, z: euler(process, x, t, s, score, z),
        "sde_sampler": lambda x, times, z, score: [*euler_maruyama(process, score, x, times, noise=z)][-1][1],
        "heun": lambda x, times, score: [*sde.heun(process, score, x, times)][-1][1],
    }
    return {**given, **changes}


def euler(process, x, t, s, score, z):
    mean, std = sde.euler_step(process, score(x, t), x, t, s)
    return mean + std * z


def test_the_time_of_edm_is_sigma_itself():
    process, sigma = EDM(20.0), np.array([1e-3, 0.5, 20.0, 300.0])
    assert np.allclose(process.time_at(process.log_snr(sigma)), sigma, rtol=1e-14, atol=0)
    assert process.time_at([np.inf, -np.inf]).tolist() == [0.0, np.inf]


@pytest.mark.parametrize("process", [VP(0.1, 8.0, 1.7), SubVP(0.1, 8.0), VE(0.05, 6.0), EDM(20.0)], ids=repr)
def test_right_code_in_continuous_time_passes(process):
    passes(audit(**of_process(process)))


def test_times_may_come_as_one_an_example_and_arrays_in_float32():
    process = VP(0.1, 8.0)

    def at(f):
        return lambda x, t, *rest: f(x, t.astype(np.float64).reshape(-1, 1)[0, 0], *rest)

    given = of_process(process)
    given = {name: given[name] for name in ("sde", "reverse_drift", "flow_drift")}
    passes(
        audit(
            sde=process,
            dtype="float32",
            batched_t=True,
            reverse_drift=at(given["reverse_drift"]),
            flow_drift=at(given["flow_drift"]),
        )
    )


def test_wrong_code_in_continuous_time_fails():
    process = VP(0.1, 8.0, 1.7)
    changes = {
        "reverse_drift": lambda x, t, score: reverse_drift(process, -score, x, t),
        "flow_drift": lambda x, t, score: reverse_drift(process, score, x, t),
        "sde_step": lambda x, t, s, score, z: euler(process, x, t, s, score, 0 * z),
        "heun": lambda x, times, score: euler_flow(process, x, times, score),
    }
    only(audit(**of_process(process, **changes)), changes)
    only(audit(**of_process(process, drift=lambda x, t: 2 * process.drift(x, t))), ["marginal"])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_step_of_another_scheme_gets_a_note(dtype):
    process = VP(0.1, 8.0, 1.7)

    def notes(step):
        result = audit(sde=process, dtype=dtype, sde_step=step)
        passes(result)
        return [note for note in result.notes if "only its limit for t − s → 0 is compared" in note]

    assert notes(of_process(process)["sde_step"]) == []
    if dtype == "float64":
        at_the_end = notes(lambda x, t, s, score, z: euler(process, x, s, 2 * s - t, score, z))
        score_at_the_end = notes(lambda x, t, s, score, z: euler(process, x, t, s, lambda x, _: score(x, s), z))
        assert len(at_the_end) == len(score_at_the_end) == 1


def changed_step(process, drift=1.0, rate=1.0, by=lambda g: g**2, dt=True, noise=lambda g, h: g * h**0.5, power=1):
    """A step of the reverse SDE with other factors."""

    def step(x, t, s, score, z):
        f, g, h = float(process.rate(t)), float(process.diffusion(t)), t - s
        slope = rate * f * x - by(g) * score(x, t)
        return x - drift * (h if dt else 1.0) * slope + noise(g, h) * z**power

    return step


@pytest.mark.parametrize("process", [VP(0.1, 8.0, 1.7), SubVP(0.1, 8.0)], ids=repr)
@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("time runs forwards: the drift has the wrong sign", {"drift": -1.0}),
        ("the score has the wrong sign", {"by": lambda g: -(g**2)}),
        ("the score is missing", {"by": lambda g: 0.0}),
        ("g stands where g² belongs", {"by": lambda g: g}),
        ("f has the wrong sign", {"rate": -1.0}),
        ("f x is missing", {"rate": 0.0}),
        ("dt is missing", {"dt": False}),
        ("the noise has factor g dt, not g √dt", {"noise": lambda g, h: g * h}),
        ("the noise has factor g² √dt, not g √dt", {"noise": lambda g, h: g**2 * h**0.5}),
        ("the noise has factor √dt: g is missing", {"noise": lambda g, h: h**0.5}),
        ("the noise has factor g: √dt is missing", {"noise": lambda g, h: g}),
        ("the noise is squared, or two draws are multiplied", {"power": 2}),
        ("", {"by": lambda g: -(g**2.1)}),
        ("", {"by": lambda g: g**1.1}),
        ("", {"rate": -1.1}),
        ("", {"drift": -0.9}),
        ("", {"noise": lambda g, h: g * h**0.9}),
        ("", {"noise": lambda g, h: 1.1 * g}),
        ("", {"power": 3}),
    ],
)
def test_a_mistake_of_a_step_is_named_in_a_sampler_as_well(sentence, changes, process):
    step = changed_step(process, **changes)

    def sample(x, times, z, score):
        for i, (t, s) in enumerate(pairwise(times.tolist())):
            x = step(x, t, s, score, z[i])
        return x

    result = audit(sde=process, sde_step=step, sde_sampler=sample)
    assert sentence in diagnosis_of(result, "sde_step")
    assert diagnosis_of(result, "sde_sampler").split("; ")[1:] == [sentence or "no known mistake gives these numbers"]


def test_a_step_that_mixes_the_dimensions_fails():
    process = VP(0.1, 8.0, 1.7)

    def shared(x, t, s, score, z):
        return euler(process, x, t, s, score, z.mean(axis=1, keepdims=True) + 0 * z)

    only(audit(sde=process, sde_step=shared), ["sde_step"])


def euler_flow(process, x, times, score):
    for t, s in pairwise(times.tolist()):
        x = x + (s - t) * reverse_drift(process, score(x, t), x, t, 0.0)
    return x


@pytest.mark.parametrize("kind", ["score", "noise", "x0"])
def test_the_likelihood_of_a_flow_passes_for_networks_of_three_kinds(kind):
    process = VP(0.1, 8.0)

    def eps_hat(x, t):
        return 0.8 * x + 0.3 * np.sin(x + t)

    def score(x, t):
        return -eps_hat(x, t) / float(process.std(t))

    def net(x, t):
        scale, std = process.level(t)
        return {"score": score(x, t), "noise": eps_hat(x, t), "x0": (x - std * eps_hat(x, t)) / scale}[kind]

    def log_prob(x):
        def both(x, t):
            return score(x, t), -(0.8 + 0.3 * np.cos(x + t)).sum(axis=1) / float(process.std(t))

        return probability_flow_log_prob(process, both, x, 1e-3, 1e-8)

    given = {"sde": process, "score": net, "x0": examples(3, 2), "prediction": kind}
    passes(audit(**given, flow_log_prob=log_prob))
    only(audit(**given, flow_log_prob=lambda x: log_prob(x) / 2), ["flow_log_prob"])


# --- VAE, EM, divergences ----------------------------------------------------------------------------------------


def responsibilities(x, *state):
    return np.exp(e_step(x, Mixture(*state))[0])


def maximum(x, resp):
    K = resp.shape[1]
    start = Mixture(np.full(K, 1 / K), np.zeros((K, 2)), np.tile(np.eye(2), (K, 1, 1)))
    mixture = m_step(x, np.log(resp), start, covariance_floor=1e-300)
    return mixture.weights, mixture.means, mixture.covariances


LATENT = {
    "vae_loss": lambda x, x_hat, m, lv, s2: vae.vae_loss(x, x_hat, m, lv, s2),
    "kl": likelihood.kl_diag_standard,
    "draw_z": lambda m, lv, noise: m + np.exp(lv / 2) * noise,
    "iwae": vae.importance_weighted_bound,
    "e_step": responsibilities,
    "m_step": maximum,
    "mixture_log_prob": lambda x, *state: Mixture(*state).log_prob(x),
    "discrete_kl": likelihood.kl_discrete,
    "gaussian_kl": likelihood.kl_gaussian,
}


def test_right_code_of_latent_variable_models_passes():
    passes(audit(**LATENT))


@pytest.mark.parametrize("D", [1, 4])
def test_the_mean_loss_of_one_example_is_its_loss(D):
    rng = np.random.default_rng(0)
    schedule, given = NoiseSchedule.linear(12), {"x0": rng.standard_normal((1, D)), "batched_t": True}

    def eps_hat(x, t):
        return 0.5 * x + 0.1 * np.asarray(t)[:, None]

    def losses(t, x0, e):
        x_t = schedule.alpha_bar[t][:, None] * x0 + schedule.beta_bar[t][:, None] * e
        return ((e - eps_hat(x_t, t)) ** 2).sum(axis=1)

    given |= {"betas": schedule.variances, "eps_hat": eps_hat}
    passes(audit(**given, loss=lambda *a: losses(*a).mean()))
    only(audit(**given, loss=lambda *a: 1.1 * losses(*a).mean()), ["loss"])


def test_losses_of_a_batch_are_asked_for_one_example_after_the_other():
    for reduce in (np.sum, np.mean):
        passes(audit(kl=lambda m, lv: reduce(likelihood.kl_diag_standard(m, lv))))  # noqa: B023
        passes(audit(vae_loss=lambda *a: reduce(vae.vae_loss(*a))))  # noqa: B023
        only(audit(kl=lambda m, lv: reduce(likelihood.kl_diag_standard(m, 2 * lv))), ["kl"])  # noqa: B023


def parts_of_the_loss(x, x_hat, m, lv, s2):
    """−log p(x | z) and the KL of every example."""
    return -likelihood.gaussian_log_prob(x, x_hat, s2), likelihood.kl_diag_standard(m, lv)


def parts_of_bernoulli(x, logits, m, lv):
    return (np.logaddexp(0, logits) - x * logits).sum(axis=1), likelihood.kl_diag_standard(m, lv)


@pytest.mark.parametrize(
    ("parts", "dtype"),
    [(parts_of_the_loss, "float64"), (parts_of_bernoulli, "float64"), (parts_of_bernoulli, "float32")],
)
def test_one_number_for_a_batch_is_the_mean_or_with_a_note_the_sum(parts, dtype):
    def audited(reduce):
        kind = "gaussian" if parts is parts_of_the_loss else "bernoulli"
        return audit(likelihood=kind, dtype=dtype, vae_loss=lambda *a: reduce(*parts(*a)))

    for right, n_notes in (
        (lambda r, k: r + k, 0),
        (lambda r, k: r.mean() + k.mean(), 0),
        (lambda r, k: (r.sum() + k.sum()) / len(k), 0),
        (lambda r, k: r.sum() + k.sum(), 1),
    ):
        passes(result := audited(right))
        assert len(result.notes) == n_notes
        assert all("the loss of a batch is the sum over its examples" in note for note in result.notes)
    for reduce, sentence in (
        (lambda r, k: r.mean() + k.sum(), "the KL is summed over the batch, and the reconstruction is averaged"),
        (lambda r, k: r.sum() + k.mean(), "the reconstruction is summed over the batch, and the KL is averaged"),
        (lambda r, k: r.mean() + k.mean() / len(k), "the KL is divided by the size of the batch once more"),
        (lambda r, k: r.mean() / len(k) + k.mean(), "the reconstruction is divided by the size of the batch once more"),
    )[: 4 if parts is parts_of_the_loss else 2]:
        only(wrong := audited(reduce), ["vae_loss"])
        assert sentence in diagnosis_of(wrong, "vae_loss")
        assert "the loss of the batch in call" in diagnosis_of(wrong, "vae_loss")


def test_the_kl_of_a_batch_is_their_mean_or_sum():
    for reduce, sentence in (
        (np.max, "it is the largest loss of the batch"),
        (np.min, "it is the smallest loss of the batch"),
        (np.median, "it is the median over the batch"),
        (lambda k: k[0], "it is the loss of the first example only"),
        (lambda k: k[-1], "it is the loss of the last example only"),
        (lambda k: (k.sum() + k.mean()) / 2 if len(k) > 1 else k[0], "no known mistake gives these numbers"),
        (lambda k: k.mean() / len(k), "the mean over the batch is divided by its size once more"),
    ):
        wrong = audit(kl=lambda m, lv: reduce(likelihood.kl_diag_standard(m, lv)))  # noqa: B023
        only(wrong, ["kl"])
        assert sentence in diagnosis_of(wrong, "kl")
    only(audit(kl=lambda m, lv: likelihood.kl_diag_standard(m, lv).sum() if len(m) == 1 else np.nan), ["kl"])


def test_wrong_code_of_latent_variable_models_fails():
    changes = {
        "vae_loss": lambda x, x_hat, m, lv, s2: ((x - x_hat) ** 2).sum(axis=1) + likelihood.kl_diag_standard(m, lv),
        "kl": lambda m, lv: likelihood.kl_diag_standard(m, lv) / m.shape[1],
        "draw_z": lambda m, lv, noise: m + np.exp(lv) * noise,
        "iwae": lambda w: w.mean(axis=0),
        "e_step": lambda x, w, m, C: responsibilities(x, np.full(len(w), 1 / len(w)), m, C),
        "m_step": lambda x, r: (np.full(3, 1 / 3), *maximum(x, r)[1:]),
        "discrete_kl": lambda p, q: likelihood.kl_discrete(q, p),
    }
    only(audit(**{**LATENT, **changes}), changes)


@pytest.mark.parametrize("spread", ["std", "variance", "log_variance"])
def test_the_width_of_q_may_be_given_in_three_ways(spread):
    to_log = {"std": lambda s: 2 * np.log(s), "variance": np.log, "log_variance": lambda s: s}[spread]
    given = {
        "latent_spread": spread,
        "decoder_variance": 0.3,
        "kl": lambda m, s: likelihood.kl_diag_standard(m, to_log(s)),
        "vae_loss": lambda x, x_hat, m, s: vae.vae_loss(x, x_hat, m, to_log(s), np.log(0.3)),
    }
    passes(audit(**given))
    only(audit(**{**given, "decoder_variance": 0.5}), ["vae_loss"])


def bernoulli(x, logits, m, lv):
    """−log p(x | z) + KL, by logarithms of sums."""
    return (np.logaddexp(0, logits) - x * logits).sum(axis=1) + likelihood.kl_diag_standard(m, lv)


def test_the_decoder_may_be_bernoulli():
    given = {"likelihood": "bernoulli"}
    passes(audit(**given, vae_loss=bernoulli))
    passes(audit(**given, vae_loss=lambda *a: bernoulli(*a).mean()))
    passes(audit(**given, dtype="float32", vae_loss=bernoulli))
    passes(audit(**given, latent_spread="std", vae_loss=lambda x, a, m, s: bernoulli(x, a, m, 2 * np.log(s))))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda x, a, m, lv: bernoulli(x, a, m, lv) / 4, "averaged over the D dimensions"),
        (lambda x, a, m, lv: bernoulli(1 - x, a, m, lv), "x and 1 − x are swapped"),
        (lambda x, a, m, lv: bernoulli(x, 1 / (1 + np.exp(-a)), m, lv), "by a second logistic function"),
        (lambda x, a, m, lv: bernoulli(x, a, m, 0 * lv), ""),
        (
            lambda x, a, m, lv: bernoulli(x, a, m, lv) + 3 * likelihood.kl_diag_standard(m, lv),
            "the KL is multiplied by 4",
        ),
        (
            lambda x, a, m, lv: ((x - 1 / (1 + np.exp(-a))) ** 2).sum(axis=1) + likelihood.kl_diag_standard(m, lv),
            "it is the squared error of the probabilities",
        ),
        (
            lambda x, a, m, lv: bernoulli(x, a, m, lv) - likelihood.kl_diag_standard(m, lv) * (1 - 1 / 3),
            "the KL is averaged over the latents",
        ),
    ],
)
def test_a_wrong_loss_of_a_bernoulli_decoder_fails(loss, sentence):
    result = audit(likelihood="bernoulli", vae_loss=loss)
    only(result, ["vae_loss"])
    assert sentence in diagnosis_of(result, "vae_loss")


def test_a_ridge_may_be_added_by_choice():
    def with_ridge(ridge):
        return lambda x, r: (*(found := maximum(x, r))[:2], found[2] + ridge * np.eye(2))

    passes(audit(m_step=with_ridge(1e-6), ridge=1e-6))
    result = audit(m_step=with_ridge(1e-6))
    assert "a ridge of 1e-06 is added to them" in diagnosis_of(result, "m_step")
    only(audit(m_step=with_ridge(2e-6), ridge=1e-6), ["m_step"])
    only(audit(m_step=with_ridge(0.0), ridge=1e-6), ["m_step"])


def densities(x, weights, means, covariances, ridge=0.0):
    apart, covariances = x[:, None] - means, covariances + ridge * np.eye(x.shape[1])
    squares = np.einsum("nkd,kde,nke->nk", apart, np.linalg.inv(covariances), apart)
    return weights * np.exp(-0.5 * squares) / np.sqrt(np.linalg.det(2 * np.pi * covariances))


@pytest.mark.parametrize("constant", [1e-10, 1e-12])
def test_a_constant_in_a_density_is_named(constant):
    def e(x, *state):
        joint = densities(x, *state)
        return joint / (joint.sum(axis=1, keepdims=True) + constant)

    result = audit(e_step=e, mixture_log_prob=lambda x, *s: np.log(densities(x, *s).sum(axis=1) + constant))
    assert f"{constant:g} is added to p(x) before the logarithm" in diagnosis_of(result, "mixture_log_prob")
    sentence = "1e-10 is added to p(x)" if constant == 1e-10 else "they are all 0: the densities underflow"
    assert sentence in diagnosis_of(result, "e_step")


def passes_with_what_it_says(**given):
    """The code fails, and passes with the options that its diagnosis names; these options."""
    result = audit(**given)
    (advice,) = re.findall(r"; pass (.*?) (?:to `audit` )?if", result.rows[0].diagnosis)
    options = {name: ast.literal_eval(value) for name, value in re.findall(r"(\w+)=([\w.\"']+)", advice)}
    passes(audit(**{**given, **options}))
    return options


def test_a_diagnosis_names_the_option_with_which_the_code_is_right():
    m, given = in_hos_convention(SHORT, np.float64)
    a = m.acp
    base = {name: given[name] for name in ("betas", "zero_based", "eps_hat", "x0")}

    def of_v(t, x, out):
        return np.sqrt(a[t]) * x - np.sqrt(1 - a[t]) * out

    def loss_of_v(t, x0, e):
        target = np.sqrt(a[t]) * e - np.sqrt(1 - a[t]) * x0
        return ((m.net(m.q_sample(t, x0, e), t) - target) ** 2).sum(axis=1)

    assert passes_with_what_it_says(**base, predict_x0=of_v) == {"prediction": "v"}
    assert passes_with_what_it_says(**base, loss=loss_of_v) == {"prediction": "v"}
    mean = passes_with_what_it_says(**base, loss=lambda t, x0, e: m.loss(t, x0, e) / x0.shape[1])
    assert mean == {"reduction": "mean"}
    total = passes_with_what_it_says(**base, reduction="mean", loss=m.loss)
    assert total == {"reduction": "sum"}
    nearly = audit(**base, loss=lambda t, x0, e: m.loss(t, x0, e) / (x0.shape[1] + 1))
    assert "pass" not in diagnosis_of(nearly, "loss")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("table", ["beta", "posterior"])
@pytest.mark.parametrize("last", [True, False])
def test_a_step_with_other_variances_is_told_the_options_that_make_it_right(table, last, dtype):
    schedule = NoiseSchedule(SHORT)
    sigma = np.sqrt(ddpm.reverse_variance(schedule, table))
    sigma[1] *= last

    def step(t, x, e, z, sigma=sigma):
        return ddpm.q_posterior(schedule, t, x, ddpm.predict_x0(schedule, t, x, e))[0] + sigma[t] * z

    own = {"variance": table, "last_noise": last}
    for variance in ("beta", "posterior"):
        for last_noise in (True, False):
            given = {"variance": variance, "last_noise": last_noise}
            if given == own:
                continue
            told = passes_with_what_it_says(betas=SHORT.astype(dtype), step=step, **given)
            assert {**given, **told} == own
    wrong = audit(betas=SHORT, step=lambda *a: step(*a, sigma=1.01 * sigma), variance="posterior")
    assert "pass" not in diagnosis_of(wrong, "step")
    assert "given table" not in diagnosis_of(wrong, "step")


def test_a_sampler_with_other_variances_is_told_the_options_that_make_it_right():
    m, given = in_hos_convention(SHORT)
    base = {name: given[name] for name in ("betas", "zero_based", "eps_hat", "x0", "sampler")}
    assert passes_with_what_it_says(**base, variance="posterior", last_noise=False) == {"variance": "beta"}
    assert passes_with_what_it_says(**base) == {"last_noise": False}

    def small(x, noise):
        rng = GivenNoise(np.concatenate([noise[:-1], 0 * noise[-1:]]))
        schedule = NoiseSchedule(SHORT)
        steps = ddpm.ancestral_sampler(schedule, lambda x, t: m.net(x, t - 1), x, rng, "posterior")
        return [x for _, x in steps][-1]

    base["sampler"] = small
    assert passes_with_what_it_says(**base) == {"variance": "posterior", "last_noise": False}
    assert passes_with_what_it_says(**base, last_noise=False) == {"variance": "posterior"}
    assert passes_with_what_it_says(**base, variance="posterior") == {"last_noise": False}


def test_a_variance_of_zero_at_the_last_step_is_told_the_options():
    tilde = np.append(0.0, ddpm.reverse_variance(NoiseSchedule(SHORT), "posterior")[2:])
    for table, advice in (
        (tilde, 'got 0.0 at t = 1; if your last step adds no noise, pass last_noise=False and variance="posterior"'),
        (2 * tilde, "pass last_noise=False and any positive number at t = 1"),
        (np.where(np.arange(6) == 2, -1, SHORT), "got -1.0 at t = 3$"),
        (np.where(np.arange(6) % 5 == 0, 0, SHORT), "got 0.0 at t = 1$"),
    ):
        with pytest.raises(ValueError, match=f"variance must be finite and positive for each t = 1..6.*{advice}"):
            audit(betas=SHORT, step=lambda t, x, e, z: x, variance=table)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_densities_that_underflow_are_seen(dtype):
    with np.errstate(divide="ignore", invalid="ignore"):
        result = audit(
            dtype=dtype,
            e_step=lambda x, *s: densities(x, *s) / densities(x, *s).sum(axis=1, keepdims=True),
            mixture_log_prob=lambda x, *s: np.log(densities(x, *s).sum(axis=1)),
        )
    only(result, ["e_step", "mixture_log_prob"])
    for row in result.rows:
        assert "every density underflows" in row.diagnosis


def test_an_e_step_that_is_wrong_at_common_points_is_not_told_of_densities_that_underflow():
    def zero_where_it_underflows(x, *state):
        joint = densities(x, *state)
        total = joint.sum(axis=1, keepdims=True)
        return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)

    for code, sentence in (
        (densities, "they are not normalised: it is the joint"),
        (lambda *a: 3 * densities(*a), "no known mistake"),
        (lambda *a: np.log(responsibilities(*a)), "it is the logarithm of the right value"),
        (lambda *a: densities(*a) / (densities(*a).sum(axis=1, keepdims=True) + 1e-6), "1e-06 is added to p(x)"),
    ):
        told = diagnosis_of(audit(e_step=code), "e_step")
        assert sentence in told
        assert "underflow" not in told
        assert diagnosis_of(audit(e_step=code, dtype="float32"), "e_step").split("; ")[-1] == told.split("; ")[-1]
    told = diagnosis_of(audit(e_step=zero_where_it_underflows), "e_step")
    assert told.endswith("they are all 0: the densities underflow")
    assert "a constant" not in told


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_weights_that_underflow_are_seen(dtype):
    def by_the_largest(w):
        return w.max() + np.log(np.exp(w - w.max()).mean(axis=0))

    for right in by_the_largest, lambda w: logsumexp(w, axis=0) - w.dtype.type(np.log(len(w))):
        passes(audit(dtype=dtype, iwae=right))
    naive = audit(dtype=dtype, iwae=lambda w: np.log(np.exp(w).mean(axis=0)))
    only(naive, ["iwae"])
    assert "where every weight underflows, log-weights near −800 (take logsumexp)" in diagnosis_of(naive, "iwae")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_probability_of_zero_is_seen_in_a_divergence(dtype):
    def refuses_zeros(p, q):
        if not p.all():
            raise ValueError("p must be positive")
        return (p * np.log(p / q)).sum()

    for right in lambda p, q: rel_entr(p, q).sum(), lambda p, q: entropy(p, q), likelihood.kl_discrete, refuses_zeros:
        passes(audit(dtype=dtype, discrete_kl=right))
    for wrong in lambda p, q: (p * np.log(p / q)).sum(), lambda p, q: np.nansum(p * np.log(p / q)) + (p == 0).sum():
        result = audit(dtype=dtype, discrete_kl=wrong)
        only(result, ["discrete_kl"])
        assert "0 log 0 is 0: take xlogy" in diagnosis_of(result, "discrete_kl")


def test_a_ridge_in_a_density_is_named():
    ridge = 1e-3
    result = audit(mixture_log_prob=lambda x, w, m, C: Mixture(w, m, C + ridge * np.eye(2)).log_prob(x))
    assert "0.001 is added to the variances" in diagnosis_of(result, "mixture_log_prob")


# --- code that draws for itself ----------------------------------------------------------------------------------


def test_code_that_draws_its_own_noise_and_steps_gets_ours():
    model, given = in_hos_convention(SHORT)

    def q_sample(t, x0):
        return model.q_sample(t, x0, np.random.default_rng().standard_normal(x0.shape))

    def loss(x0):
        t = np.random.randint(0, 6, len(x0))  # noqa: NPY002
        return model.loss(t, x0, np.random.randn(*x0.shape))  # noqa: NPY002

    def with_noise(t, x0, e):
        with given_noise(e):
            return q_sample(t, x0)

    def with_both(t, x0, e):
        with given_noise(e, t=t):
            return loss(x0)

    passes(audit(**{**given, "q_sample": with_noise, "loss": with_both, "batched_t": False, "bound": None}))


@pytest.mark.parametrize("batched", [False, True])
def test_a_range_of_drawn_steps_that_leaves_one_out_gets_a_note(batched):
    model, given = in_hos_convention(COSINE)
    T = len(COSINE)

    def notes(draw):
        def loss(t, x0, noise):
            with given_noise(noise, t=t):
                drawn = draw(x0)
                return model.loss(drawn, x0, np.random.standard_normal(x0.shape))  # noqa: NPY002

        kept = {name: given[name] for name in ("betas", "zero_based", "x0", "eps_hat")}
        result = audit(**kept, batched_t=batched, loss=loss)
        passes(result)
        return [note for note in result.notes if "draws t from a range" in note]

    assert notes(lambda x: np.random.randint(0, T, len(x))) == []  # noqa: NPY002
    assert notes(lambda x: np.random.randint(T, size=len(x))) == []  # noqa: NPY002
    assert notes(lambda x: np.random.default_rng().integers(0, T - 1, len(x), endpoint=True)) == []
    assert notes(lambda x: np.random.default_rng().integers(low=0, high=np.array([T]), size=len(x))) == []
    (first,) = notes(lambda x: np.random.randint(1, T, len(x)))  # noqa: NPY002
    assert first == "the code draws t from a range without 0, which is one of the given steps"
    (last,) = notes(lambda x: np.random.default_rng().integers(T - 1, size=len(x)))
    assert f"a range without {T - 1}," in last


@pytest.mark.parametrize(
    ("bounds", "never"), [((9, (2,)), []), ((0, 9, (2,)), []), ((8, (2,)), [8]), ((1, 9, [2]), [0])]
)
def test_the_bounds_of_torch_come_with_or_without_a_low(bounds, never):
    assert never_drawn(np.array([0, 8]), *bounds) == never


def test_given_noise_ends_and_says_when_it_is_too_little():
    kept = np.random.randn, np.random.default_rng, np.random.randint
    with given_noise(np.zeros(2)):
        assert (np.random.randn(2) == 0).all()  # noqa: NPY002
        assert np.random.default_rng(0).integers(5) < 5
        with pytest.raises(ValueError, match="draws more than 1 times"):
            np.random.standard_normal(2)  # noqa: NPY002
    assert kept == (np.random.randn, np.random.default_rng, np.random.randint)
    with given_noise(t=np.array([3])):
        assert np.random.randint(9) == np.random.default_rng().integers(9) == 3  # noqa: NPY002


# --- wrong use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("audit needs code to check", {"q_sample": None}),
        ("q_sample needs betas", {"betas": None}),
        ("loss needs eps_hat and x0; pass them", {"loss": lambda t, x0, e: 0}),
        ("marginal needs sde and drift and diffusion", {"marginal": lambda t: 0}),
        ("prediction must be one of", {"prediction": "epsilon"}),
        ("posterior_spread must be one of", {"posterior_spread": "sigma"}),
        ("latent_spread must be one of", {"latent_spread": "sigma"}),
        ("variance must be one of 'beta', 'posterior', got 'small'", {"variance": "small"}),
        ("variance must have the shape \\(6,\\)", {"variance": SHORT[:3]}),
        ("reduction must be one of", {"reduction": "none"}),
        ("likelihood must be one of", {"likelihood": "bce"}),
        ("ridge must be", {"ridge": -1e-6}),
        ("dtype must be one of 'float32', 'float64', got 'float16'", {"dtype": "float16"}),
        ("zero_based must be True or False, got 1", {"zero_based": 1}),
        ("arrays must be a function such as torch.as_tensor", {"arrays": "torch"}),
        ("etas or sampler_eta must be in", {"etas": (0.0, 2.0)}),
        ("sde must be a LinearSDE", {"sde": "vp"}),
        (r"x0 must have shape \(N, …\)", {"x0": np.zeros(3)}),
        ("betas must lie strictly between 0 and 1", {"betas": np.array([0.1, 1.0])}),
    ],
)
def test_wrong_options_are_named(message, changes):
    given = {"betas": SHORT, "q_sample": lambda t, x0, e: x0, **changes}
    with pytest.raises(ValueError, match=message):
        audit(**given)


# --- pytest and the command line ---------------------------------------------------------------------------------

MODEL, GIVEN = in_hos_convention(SHORT)


@parametrize_with_checks(**GIVEN)
def test_each_check_is_a_test(check):
    check()


def test_the_tests_have_readable_ids_and_fail_with_the_diagnosis():
    (ids, items) = (
        (mark := parametrize_with_checks(**{**GIVEN, "q_sample": wrong(MODEL)["q_sample"][0]})).kwargs["ids"],
        mark.args[1],
    )
    assert "q_sample: check_forward_process" in ids
    failing = next(item for item in items if item.argument == "q_sample")
    with pytest.raises(AssertionError, match="Ho's α-bar without its square root"):
        failing()
    (raising,) = parametrize_with_checks(betas=SHORT, zero_based=True, q_sample=lambda t, x0, e: 1 / 0).args[1]
    with pytest.raises(ZeroDivisionError):
        raising()


def test_notes_reach_pytest_as_warnings_with_the_name_of_the_check():
    def untrained(x, t):
        return (0.01 * np.sin(x)).astype(x.dtype)

    def in_place(t, x0, noise):
        x0 *= np.sqrt(MODEL.acp[t])
        return x0 + np.sqrt(1 - MODEL.acp[t]) * noise

    def items(**given):
        return parametrize_with_checks(**given).args[1]

    model, long = in_hos_convention(HO, np.float32)
    model.net = untrained
    kept = {name: long[name] for name in ("betas", "zero_based", "last_noise", "x0", "sampler")}
    (sampler,) = items(**kept, eps_hat=untrained)
    with pytest.warns(CodeWarning, match=r"^sampler: check_sampler_of: rounding hides differences below"):
        sampler()
    (q_sample,) = items(betas=SHORT, zero_based=True, q_sample=in_place)
    with pytest.warns(CodeWarning, match=r"^q_sample: check_forward_process: q_sample changes its argument x0"):
        q_sample()
    (loss,) = items(vae_loss=lambda *a: vae.vae_loss(*a).sum())
    with pytest.warns(CodeWarning, match=r"^vae_loss: check_vae_loss: the loss of a batch is the sum") as told:
        loss()
    assert len(told) == 1
    assert Path(told[0].filename).samefile(__file__)


FILE = """
import numpy as np
from neighbour import root

betas = np.linspace(1e-4, 0.02, 100)
a = np.cumprod(1 - betas)

def audit_me():
    return dict(betas=betas, zero_based=True, q_sample=lambda t, x0, e: root(a[t]) * x0 + np.sqrt(1 - a[t]) * e)
"""


@pytest.mark.parametrize(("root", "status"), [("numpy.sqrt(a)", 0), ("a", 1)])
def test_the_command_line_prints_the_table_of_a_file(root, status, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "neighbour.py").write_text(f"import numpy\ndef root(a):\n    return {root}\n")
    before = list(sys.path)
    try:
        assert cli.main(["audit", str(tmp_path / "mine.py")]) == status
    finally:
        sys.modules.pop("neighbour", None)
    assert sys.path == before
    out = capsys.readouterr().out
    assert out.startswith(f"audit: {1 - status} of 1 checks pass; T = 100, t counts from 0, float64\n")
    assert ("without its square root" in out) == bool(status)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file "),
        ("x = 1", "has no function audit_me; define audit_me(), which returns"),
        ("def audit_me(): return 3", "must return a dict or an Audit, got int"),
        ("def audit_me(): return {'q_smaple': 1}", "q_smaple"),
        ("def audit_me(): return {}", "audit needs code to check"),
        ("def audit_me(): return {3: 4}", "must be names of arguments, got 3"),
        ("\n\ndef audit_me():\n    return 1 / 0", "mine.py, line 4: ZeroDivisionError: division by zero"),
        ("import json\ndef f():\n    return json.loads('x')\ndef audit_me(): return f()", "mine.py, line 3: JSONDec"),
        ("import no_such_thing", "mine.py, line 1: ModuleNotFoundError: No module named"),
        ("def audit_me():\n    return (", "mine.py, line 2: SyntaxError"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_file(text, message, tmp_path, capsys):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    assert cli.main(["audit", str(path)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_the_command_line_accepts_an_audit_and_needs_no_extra(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from scratchgen.conformance import audit\nfrom scratchgen.likelihood import kl_discrete\n"
        "def audit_me(): return audit(discrete_kl=kl_discrete)\n"
    )
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['rich', 'matplotlib', 'hypothesis', 'pytest']))\n"
        "from scratchgen.report.cli import main; sys.exit(main(['audit', 'mine.py']))"
    )
    root = Path(cli.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"1 of 1 checks pass" in done.stdout


def test_an_array_of_t_that_is_broadcast_over_the_dimensions_fails():
    """`table[t] * x` is right for an int t and with as many examples as dimensions raises nothing."""
    bar = np.cumprod(1 - HO)

    def q_sample(t, x0, noise):
        return np.sqrt(bar[t]) * x0 + np.sqrt(1 - bar[t]) * noise

    assert audit(betas=HO, zero_based=True, q_sample=q_sample).passed
    assert not audit(betas=HO, zero_based=True, batched_t=True, q_sample=q_sample).passed


def test_code_that_exits_or_returns_complex_numbers_has_not_passed(tmp_path, capsys):
    def leave(p, q):
        sys.exit()

    (row,) = audit(discrete_kl=leave).rows
    assert (row.verdict, row.diagnosis) == ("raised", "SystemExit: ")
    arguments = in_hos_convention(HO, np.float64)[1]
    q_sample = arguments["q_sample"]
    for wrong in lambda *a: q_sample(*a) + 1j, lambda *a: q_sample(*a).astype(str):
        rows = audit(**{**arguments, "q_sample": wrong}).rows
        assert [row.verdict for row in rows if row.argument == "q_sample"] == ["raised"]
    file = tmp_path / "mine.py"
    file.write_text("import sys\nsys.exit(0)\n")
    assert cli.main(["audit", str(file)]) == 2
    assert "called sys.exit(0) before its audit ended" in capsys.readouterr().err


def test_a_spread_is_not_negative():
    arguments = in_hos_convention(HO, np.float64)[1]
    q_posterior = arguments["q_posterior"]

    def negative(*given):
        mean, variance = q_posterior(*given)[:2]
        return mean, -np.sqrt(variance)

    rows = {r.argument: r for r in audit(**{**arguments, "q_posterior": negative, "posterior_spread": "std"}).rows}
    assert rows["q_posterior"].verdict == "raised"
    assert "std of 0 or more" in rows["q_posterior"].diagnosis


def raises(kind, message):
    def code(*arguments):
        raise kind(message)

    return code


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda t, x, n: x[t], "zero_based=True"),
        (lambda t, x, n: t.shape, "batched_t=True"),
        (lambda t, x, n: x.detach(), "arrays=torch.as_tensor"),
        # messages of torch: gather of an int, and a network of float32 that gets float64
        (raises(TypeError, "gather(): argument 'index' (position 2) must be Tensor, not int"), "batched_t=True"),
        (raises(RuntimeError, "the same dtype, but got Double and Float"), 'dtype="float32"'),
        (raises(RuntimeError, "the same dtype, but got: float != double"), 'dtype="float32"'),
        (raises(RuntimeError, "Input type (double) and bias type (float) should be the same"), 'dtype="float32"'),
    ],
)
def test_an_error_suggests_the_option_that_may_be_missing(wrong, hint):
    (row,) = audit(betas=HO, q_sample=wrong).rows
    assert row.verdict == "raised"
    assert hint in row.diagnosis
    option = {"batched_t": True} if "batched_t" in hint else {"dtype": "float32"}
    (given,) = audit(betas=HO, q_sample=wrong, **option).rows
    assert (hint in given.diagnosis) == (hint not in ("batched_t=True", 'dtype="float32"'))


def test_an_eta_is_called_ignored_only_if_every_eta_shows_it():
    arguments = in_hos_convention(HO, np.float64)[1]
    ddim = arguments["ddim"]
    for wrong, named in (lambda *a: ddim(*a[:-1], 1.0), True), (lambda *a: ddim(*a[:-1], 1 - a[-1]), False):
        rows = audit(betas=HO, zero_based=True, ddim=wrong).rows
        assert [row.verdict for row in rows] == ["FAILED"]
        assert ("η is ignored" in rows[0].diagnosis) == named


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"etas": 0.5}, r"etas must be a tuple of numbers in \[0, 1\]"),
        ({"etas": ()}, "etas must be a tuple"),
        ({"dtype": "junk"}, "dtype must be one of"),
        ({"variance": HO[:3]}, r"variance must have the shape \(1000,\), .* got \(3,\)"),
        ({"loss_weight": np.ones(1001)}, r"loss_weight must have the shape \(1000,\), .* got \(1001,\)"),
    ],
)
def test_an_option_of_another_form_is_refused_by_name(option, message):
    with pytest.raises(ValueError, match=message):
        audit(betas=HO, zero_based=True, alphas_cumprod=np.cumprod(1 - HO), **option)


@pytest.mark.parametrize("dtype", [np.float32, "float32", np.dtype("float32"), "torch.float32"])
def test_the_precision_is_named_in_any_form(dtype):
    assert "float32" in audit(betas=HO, alphas_cumprod=np.cumprod(1 - HO), dtype=dtype).title


# --- what code does beside its results ---------------------------------------------------------------------------


def test_code_that_writes_into_its_arguments_gets_a_note_and_no_verdict():
    model, given = in_hos_convention(COSINE)

    def q_sample(t, x0, noise):
        noise *= np.sqrt(1 - model.acp[t])
        return np.sqrt(model.acp[t]) * x0 + noise

    def net(x, t):
        value = model.net(x, t)
        x += 1
        return value

    def loss(t, x0, noise):
        return model.loss(t, x0, noise)

    result = audit(**{**given, "q_sample": q_sample, "eps_hat": net})
    passes(result)
    assert "q_sample changes its argument noise in place; it got copies" in result.notes[0]
    assert sum("eps_hat changes its argument x in place" in note for note in result.notes) == 1
    assert len(result.notes) == 2
    assert "note: q_sample changes its argument noise in place" in str(result)
    assert audit(**given).notes == ()


@pytest.mark.parametrize("spread", ["variance", "std", "log_variance"])
def test_the_clipped_log_variance_of_ho_passes_by_its_option(spread):
    for betas in (HO, COSINE, SHORT):
        model = Ho(betas, 3)
        clipped = np.append(model.posterior_variance[1], model.posterior_variance[1:])
        table = {"variance": lambda v: v, "std": np.sqrt, "log_variance": np.log}[spread](clipped)

        def q_posterior(t, x_t, x0, model=model, table=table):
            return model.q_posterior(t, x_t, x0)[0], table[t]

        given = {"betas": betas, "zero_based": True, "q_posterior": q_posterior}
        passes(audit(**given, posterior_spread=spread, clipped_posterior=True))
        refused = diagnosis_of(audit(**given, posterior_spread=spread), "q_posterior")
        assert refused.count("clipped_posterior=True") == 1  # the same advice is given once
        assert "its first step is replaced by the second, as in Ho's code" in refused
        other = diagnosis_of(audit(**given, posterior_spread="std" if spread != "std" else "variance"), "q_posterior")
        assert f"passes with clipped_posterior=True, posterior_spread='{spread}'" in other
        plain = {**given, "q_posterior": lambda *a, model=model: model.q_posterior(*a)[:2], "clipped_posterior": True}
        assert diagnosis_of(audit(**plain), "q_posterior").count("clipped_posterior=False") == 1


def test_another_spread_is_suggested_only_if_the_check_passes_with_it():
    model = Ho(COSINE, 3)

    def of(f):
        return lambda *a: (model.q_posterior(*a)[0], f(model.q_posterior(*a)[1]))

    given = {"betas": COSINE, "zero_based": True, "posterior_spread": "std"}
    with np.errstate(divide="ignore"):
        row = diagnosis_of(audit(**given, q_posterior=of(np.log)), "q_posterior")
    assert "std of 0 or more" in row
    assert row.endswith("the check passes with posterior_spread='log_variance'; pass this if it is meant")
    assert "passes with" not in diagnosis_of(audit(**given, q_posterior=of(lambda v: 1.1 * np.sqrt(v))), "q_posterior")
    for claimed in ("std", "variance"):
        result = audit(kl=likelihood.kl_diag_standard, latent_spread=claimed)
        assert "the check passes with latent_spread='log_variance'" in diagnosis_of(result, "kl")


def test_a_flow_from_a_standard_normal_passes_by_its_option():
    process = VP(0.1, 8.0)
    std = float(process.std(1.0))

    def score(x, t):  # exact for N(0, 1), so that the flow is the identity
        return -x

    def log_prob(x):
        return -0.5 * (x**2 + np.log(2 * np.pi)).sum(axis=1)

    given = {"sde": process, "score": score, "x0": examples(3, 2), "flow_log_prob": log_prob}
    passes(audit(**given, prior_std=1.0))
    assert "pass prior_std=1.0 if this is meant" in diagnosis_of(audit(**given), "flow_log_prob")
    assert std != 1.0


def test_a_sampler_whose_rounding_hides_mistakes_says_what_is_not_seen():
    def untrained(x, t):
        return (0.01 * np.sin(x)).astype(x.dtype)

    for dtype, expected in (np.float32, 1), (np.float64, 0):
        model, given = in_hos_convention(HO, dtype)
        model.net = untrained
        kept = {name: given[name] for name in ("betas", "zero_based", "last_noise", "x0", "sampler")}
        result = audit(**kept, eps_hat=untrained)
        passes(result)
        assert len(result.notes) == expected, result.notes
        assert all("sampler: rounding hides differences below" in note for note in result.notes)
    assert audit(**in_hos_convention(SHORT, np.float32)[1]).notes == audit(**in_hos_convention(SHORT)[1]).notes


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_code_that_is_not_finite_gets_the_blame(value):
    given = of_process(VP(0.1, 8.0))
    kept = {name: given[name] for name in ("sde", "marginal", "drift", "diffusion")}
    for changed in (
        {"marginal": lambda t: (value, 1.0)},
        {"drift": lambda x, t: value + x},
        {"diffusion": lambda t: value},
    ):
        text = diagnosis_of(audit(**{**kept, **changed}), "marginal")
        assert str(value) in text or "the code under test returns a number that is not finite" in text
        assert "use another" not in text
    chain = in_hos_convention(SHORT)[1]
    result = audit(**{**chain, "eps_hat": lambda x, t: np.full_like(x, value)})
    for name in ("loss", "bound", "sampler"):
        assert "must return finite numbers, got" in diagnosis_of(result, name)
        assert "use another" not in diagnosis_of(result, name)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("q_sample", None, "q_sample must return numbers or arrays, got None; does the function end without"),
        ("q_sample", "text", "q_sample must return numbers or arrays, got str 'text'"),
        ("q_sample", (z for z in "ab"), "got a generator"),
        ("q_sample", {"x_t": 1.0}, "got a dict with the keys ['x_t']"),
        ("q_sample", object(), "q_sample must return numbers or arrays, got object"),
        ("q_sample", (np.zeros(2), np.zeros(3)), r"must return one array, got a tuple of 2: shape (2,), shape (3,)"),
        ("q_sample", np.zeros(3, np.float16), "must return float32 or float64, got float16, which keeps 3 digits"),
        ("q_posterior", (1.0, 2.0, 3.0), "two results, (mean, spread), got a tuple of 3"),
        ("loss", None, "loss must return numbers or arrays"),
        ("loss", (1.0, {}), "loss must return one array, got a tuple of 2"),
        ("bound", {"elbo": 1.0}, "bound must return numbers or arrays"),
        ("sampler", [np.zeros(2), None], "sampler must return numbers or arrays"),
        ("eps_hat", None, "eps_hat must return numbers or arrays"),
    ],
)
def test_results_of_another_kind_are_named(name, value, message):
    result = audit(**{**in_hos_convention(SHORT)[1], name: lambda *a: value})
    row = diagnosis_of(result, "loss" if name == "eps_hat" else name)
    assert message in row, row
    assert "called as" in row


def test_results_of_continuous_time_and_em_of_another_kind_are_named():
    process = of_process(VP(0.1, 8.0))
    (row, *_) = audit(**{**process, "marginal": lambda t: 1.0}).rows
    assert "marginal must return two results, (scale, std), got float" in row.diagnosis
    (row,) = audit(m_step=lambda x, resp: (1.0, 2.0)).rows
    assert "m_step must return three results, (weights, means, covariances), got a tuple of 2" in row.diagnosis


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (r"^betas must lie strictly between 0 and 1, but betas\[1\] is 1.0", {"betas": np.array([0.1, 1.0])}),
        (r"^betas must have shape \(T,\)", {"betas": np.array([[0.1], [0.2]])}),
        ("last_noise must be True or False, got 'no'", {"last_noise": "no"}),
        ("clipped_posterior must be True or False", {"clipped_posterior": 1}),
        ("prediction must be one of .*, got ''", {"prediction": ""}),
        ("loss_weight must be finite and not negative for each t = 1..6, got -1", {"loss_weight": -np.ones(6)}),
        ("variance must be finite and positive for each t = 1..6, got 0", {"variance": np.zeros(6)}),
        ("x0 must hold examples of your data, got zero everywhere", {"x0": np.zeros((4, 3))}),
        ("x0 must be finite", {"x0": np.full((4, 3), np.nan)}),
        ("prior_std must be in", {"prior_std": 0.0}),
    ],
)
def test_values_that_were_accepted_silently_are_refused(message, changes):
    with pytest.raises(ValueError, match=message):
        audit(**{"betas": SHORT, "q_sample": lambda t, x0, e: x0, **changes})


# --- noise for code that draws for itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        lambda: 2 * np.random.randn(2) + 3,  # noqa: NPY002
        lambda: np.random.normal(3, 2, size=2),  # noqa: NPY002
        lambda: np.random.normal(loc=3, scale=2, size=2),  # noqa: NPY002
        lambda: np.random.default_rng(0).normal(3.0, 2.0, 2),
        lambda: 2 * np.random.default_rng(seed=0).standard_normal((2,)) + 3,
        lambda: np.random.RandomState(1).normal(3, 2, (2,)),
        lambda: 2 * np.random.RandomState(1).randn(2) + 3,
        lambda: 2 * np.random.RandomState(seed=1).standard_normal(2) + 3,
    ],
)
def test_normal_draws_of_numpy_return_the_given_noise(draw):
    with given_noise(np.array([0.5, -1.0])):
        assert np.array_equal(draw(), [4.0, 1.0])
    assert np.random.default_rng(0).normal() == np.random.default_rng(0).normal()
    assert not np.array_equal(draw(), [4.0, 1.0])


class Tensor:
    """A stand-in for a tensor of torch on another device; `dtype` is the text of torch."""

    dtype = "torch.float64"

    def __init__(self, values):
        self.values = np.asarray(values, dtype=np.float64)

    def detach(self):
        return SimpleNamespace(cpu=lambda: self.values)

    def copy_(self, values):
        self.values[:] = values
        return self

    def normal_(self, mean=0.0, std=1.0, generator=None):
        raise AssertionError("the given noise does not reach normal_")

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert device tensor to numpy; use Tensor.cpu()")


def test_tensors_of_torch_become_arrays_of_numpy_one_by_one_and_in_lists():
    assert np.array_equal(as_numpy(Tensor([1.0, 2.0])), [1.0, 2.0])
    assert np.array_equal(as_numpy([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])]), [[1.0, 2.0], [3.0, 4.0]])
    assert np.array_equal(as_numpy((np.ones(2), Tensor([3.0, 4.0]))), [[1.0, 1.0], [3.0, 4.0]])


def test_the_given_noise_reaches_the_functions_and_methods_of_torch(monkeypatch):
    torch = SimpleNamespace(Tensor=Tensor, randn=lambda *_: pytest.fail("the given noise does not reach randn"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    before = Tensor.normal_
    with given_noise(np.array([0.5, -1.0]), np.array([2.0, 3.0])):
        filled = Tensor([0.0, 0.0]).normal_(3.0, 2.0)
        assert np.array_equal(torch.randn(2), [2.0, 3.0])
    assert np.array_equal(filled.values, [4.0, 1.0])
    assert Tensor.normal_ is before


def test_generators_made_within_are_generators_and_draw_what_is_not_given():
    with given_noise(np.zeros(2), t=np.array([3])):
        rng = np.random.default_rng(5)
        assert isinstance(rng, np.random.Generator)
        assert isinstance(np.random.RandomState(2), np.random.RandomState)
        uniform = rng.uniform(size=3)
        assert (rng.standard_normal(2) == 0).all()
        assert rng.integers(9) == np.random.RandomState(2).randint(9) == 3
    assert np.array_equal(uniform, np.random.default_rng(5).uniform(size=3))


def test_code_with_another_source_of_noise_gets_a_warning():
    before = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="the code draws none of the given noise"), given_noise(np.zeros(2)):
        before.standard_normal(2)
    with (
        pytest.warns(UserWarning, match="draws no random integers for the given t"),
        given_noise(np.zeros(2), t=np.array([1])),
    ):
        np.random.randn(2)  # noqa: NPY002
    with given_noise():
        pass
    with pytest.raises(KeyError), given_noise(np.zeros(2)):
        raise KeyError


def test_code_that_draws_its_own_noise_is_told_so_and_other_wrong_code_is_not():
    m, given = in_hos_convention(SHORT)
    base = {name: given[name] for name in ("betas", "zero_based", "eps_hat", "x0")}
    rng, calls = np.random.default_rng(0), set()

    def own(size=1.0):
        return lambda t, x0, e: m.q_sample(t, x0, e + size * rng.standard_normal(np.shape(e)))

    def only_once(t, x0, e):
        key = t, x0.tobytes(), e.tobytes()
        assert key not in calls
        calls.add(key)
        return m.q_sample(t, 2 * x0, e)

    told = "two calls of q_sample with the same arguments differ by "
    assert told in diagnosis_of(audit(**base, q_sample=own()), "q_sample")
    assert told in diagnosis_of(audit(**base, q_sample=own(), dtype="float32"), "q_sample")
    loss = audit(**base, loss=lambda t, x0, e: m.loss(t, x0, rng.standard_normal(np.shape(e))))
    assert "two calls of loss with the same arguments differ by " in diagnosis_of(loss, "loss")
    for code in own(1e-5), only_once, lambda t, x0, e: m.q_sample(t, 2 * x0, e):
        (row,) = audit(**base, q_sample=code).rows
        assert row.verdict == "FAILED"
        assert "two calls" not in row.diagnosis


def test_an_audit_reports_another_source_of_noise_where_a_check_fails():
    model, given = in_hos_convention(COSINE)
    rng = np.random.default_rng(0)

    def step_of(draw):
        def step(t, x, output, noise):
            with given_noise(noise):
                return model.step(t, x, output, draw(x.shape) if t else 0 * noise)

        return step

    right = audit(**{**given, "step": step_of(lambda shape: np.random.normal(size=shape))})  # noqa: NPY002
    passes(right)
    assert right.notes == ()
    other = audit(**{**given, "step": step_of(rng.standard_normal)})
    only(other, ["step"])
    assert any("draws none of the given noise" in note for note in other.notes)


# --- right code that was refused, and wrong names ----------------------------------------------------------------


def bound_of_levels(x0, noise, net, n_levels=256, miss=0.0):
    """−ELBO of whole numbers, with L_0 written from the levels of x_0; `miss` is a relative error of L_0."""
    schedule = NoiseSchedule(SHORT)
    terms = ddpm.bound_terms(schedule, x0, lambda x, t: net(x, np.asarray(t) - 1), noise)
    x_1 = ddpm.q_sample(schedule, 1, x0, noise[0])
    mean = ddpm.p_mean(schedule, 1, x_1, net(x_1, np.asarray(0)))
    level = np.rint(0.5 * (n_levels - 1) * (x0 + 1))
    mass = likelihood.log_bin_mass(level, mean, np.sqrt(SHORT[0]), n_levels)
    terms[:, 0] = -(1 + miss) * mass.sum(axis=1)
    return terms


def test_images_rounded_in_float32_are_the_same_levels_for_both_codes():
    k = np.random.default_rng(0).integers(0, 256, (5, 6))
    net, seen = Ho(SHORT, 6).net, []

    def bound(x0, noise, miss=0.0):
        seen.append(x0)
        return bound_of_levels(x0, noise, net, miss=miss)

    x0 = (k.astype(np.float32) / np.float32(127.5) - np.float32(1)).astype(np.float64)
    assert not np.array_equal(x0, likelihood.level_values(256)[k])
    given = {"betas": SHORT, "zero_based": True, "eps_hat": net, "x0": x0, "n_levels": 256}
    passes(audit(**given, bound=bound))
    assert all(np.array_equal(x, likelihood.level_values(256)[k]) for x in seen)
    only(audit(**given, bound=lambda *a: bound(*a, miss=1e-10)), ["bound"])
    assert "(n_levels − 1)(x0 + 1)/2" in diagnosis_of(audit(**{**given, "x0": x0 + 1e-3}, bound=bound), "bound")


@pytest.mark.parametrize("spread", ["variance", "std", "log_variance"])
def test_a_chain_of_one_step_has_no_clipped_posterior(spread):
    betas = np.array([0.1])
    table = {"variance": betas, "std": np.sqrt(betas), "log_variance": np.log(betas)}[spread]
    given = {"betas": betas, "posterior_spread": spread}

    def of(value):
        return lambda t, x_t, x0: (x0, value)

    with np.errstate(divide="ignore"):
        passes(audit(**given, q_posterior=of(np.log(0.0) if spread == "log_variance" else 0.0)))
    (row,) = audit(**given, q_posterior=of(table[0])).rows
    assert "its first step is β_1²" in row.diagnosis
    with pytest.raises(ValueError, match="clipped_posterior must be False for one step, T = 1"):
        audit(**given, clipped_posterior=True, q_posterior=of(table[0]))
    with pytest.raises(ValueError, match="clipped must be False for T = 1"):
        conformance.check_posterior(of(table[0]), NoiseSchedule(betas), clipped=True)


def test_a_diffusion_without_its_root_of_two_is_named_where_there_is_no_drift():
    class Less(VE):
        def diffusion(self, t):
            return super().diffusion(t) / np.sqrt(2)

    names = ("reverse_drift", "flow_drift", "sde_step", "sde_sampler", "heun")
    code = {name: of_process(Less(0.05, 6.0))[name] for name in names}
    result = audit(sde=VE(0.05, 6.0), **code)
    only(result, names)
    for row in result.rows:
        assert "g has lost its √2" in row.diagnosis, row
    for name in ("reverse_drift", "sde_step"):
        assert "the score has the flow's ½ in the SDE" in diagnosis_of(result, name)
    half = audit(sde=VP(0.1, 8.0), reverse_drift=lambda x, t, score: reverse_drift(VP(0.1, 8.0), 0.5 * score, x, t))
    assert "√2" not in diagnosis_of(half, "reverse_drift")


# --- what an error or a note says --------------------------------------------------------------------------------


def test_a_row_without_t_gets_no_hint_on_t():
    def of_pairs(mean, log_variance):
        return likelihood.kl_diag_standard(mean, log_variance).sum(axis=1)

    row = diagnosis_of(audit(kl=of_pairs), "kl")
    assert "AxisError" in row
    assert "zero_based" not in row
    late = diagnosis_of(audit(betas=SHORT, q_sample=lambda t, x, e: SHORT[t] * x), "q_sample")
    assert "zero_based=True" in late
    early = diagnosis_of(audit(betas=SHORT, zero_based=True, q_sample=lambda t, x, e: SHORT[t + 1] * x), "q_sample")
    assert "IndexError" in early
    assert "zero_based" not in early


def test_code_in_float32_gets_the_option_of_audit():
    def in_single(mean, log_variance):
        return likelihood.kl_diag_standard(mean.astype(np.float32), log_variance.astype(np.float32))

    row = diagnosis_of(audit(kl=in_single), "kl")
    assert 'pass dtype="float32" if your code uses it' in row
    assert "at(1e-5)" not in row
    passes(audit(kl=in_single, dtype="float32"))


def test_code_for_images_is_asked_for_examples_of_its_shape():
    model = Ho(SHORT, 3)

    def image_only(t, s, x_t, output, noise, eta):
        return np.ones((len(x_t), 1, 1, 1)) * model.ddim(t, s, x_t, output, noise, eta)

    result = audit(betas=SHORT, zero_based=True, ddim=image_only)
    row = diagnosis_of(result, "ddim")
    assert re.search(r"ddim must return an array of shape \(\d, 3\), as its argument, got shape \(\d, 1, \d, 3\)", row)
    assert "called as ddim(" in row
    assert "pass x0 with a few examples of its own shape" in row
    given = {"betas": SHORT, "zero_based": True, "ddim": lambda t, s, x, *rest: x[:, :1]}
    assert "pass x0" not in diagnosis_of(audit(**given, x0=examples(4, 3)), "ddim")
    for wrong in (lambda t, x, e: x.sum(axis=3), lambda t, x, e: x[:, :, 0], lambda t, x, e: x.shape[2]):
        assert "pass x0" in diagnosis_of(audit(betas=SHORT, q_sample=wrong), "q_sample")
    process = of_process(VP(0.1, 8.0))
    for name in ("reverse_drift", "flow_drift", "sde_step", "sde_sampler", "heun"):
        row = diagnosis_of(audit(sde=VP(0.1, 8.0), **{name: lambda *a, f=process[name]: f(*a)[:, :1]}), name)
        assert f"{name} must return an array of shape" in row
        assert f"called as {name}(" in row


@pytest.mark.parametrize("name", ["kl", "vae_loss", "draw_z", "iwae", "e_step", "mixture_log_prob", "gaussian_kl"])
def test_a_ragged_list_is_told_with_the_name_of_the_code(name):
    row = diagnosis_of(audit(**{name: lambda *a: [np.zeros(2), np.zeros(3)]}), name)
    assert f"{name} must return real numbers: arrays of one shape are expected, got a list of 2" in row
    assert f"called as {name}(" in row


def test_a_bound_whose_rounding_hides_mistakes_says_what_is_not_seen():
    for dtype, expected in (np.float32, 1), (np.float64, 0):
        model, given = in_hos_convention(HO, dtype)
        given = {name: given[name] for name in ("betas", "zero_based", "x0", "eps_hat", "bound")}
        given["x0"] = 30 * given["x0"]
        total = audit(**{**given, "bound": lambda *a, model=model: model.bound(*a).sum(axis=1)})
        passes(total)
        assert len(total.notes) == expected, total.notes
        for note in total.notes:
            assert re.match(r"bound: rounding hides differences below \S+ nats, since −ELBO is of size", note)
            assert note.endswith("return the terms L_0, …, L_T, or use float64")


def test_the_marginal_is_that_of_the_given_sde():
    for given, other in (VP(0.1, 20.0), VP(0.1, 10.0)), (VE(0.05, 6.0), VE(0.05, 5.0)), (SubVP(0.1, 8.0), VP(0.1, 8.0)):
        for dtype in ("float64", "float32"):
            names = ("marginal", "drift", "diffusion")
            passes(audit(sde=given, dtype=dtype, **{name: getattr(given, name) for name in names}))
            result = audit(sde=given, dtype=dtype, **{name: getattr(other, name) for name in names})
            only(result, ["marginal"])
            assert f"the process is not the given sde, {given}" in diagnosis_of(result, "marginal")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_drift_or_diffusion_is_not_told_of_the_marginal(dtype):
    vp = VP(0.1, 20.0)
    right = {"sde": vp, "dtype": dtype, "marginal": vp.marginal, "drift": vp.drift, "diffusion": vp.diffusion}
    for change, parts, reason in (
        ({"diffusion": lambda t: vp.diffusion(t) ** 2}, "the diffusion is 20, expected 4.4", "the diffusion is g²"),
        ({"drift": lambda x, t: -vp.drift(x, t)}, "the drift is -20, expected 20", "the drift has the wrong sign"),
        ({"drift": lambda x, t: vp.drift(np.tanh(x), t)}, "the drift is 9.64", "no known mistake"),
        ({"diffusion": lambda t: 1.0}, "the diffusion is 1, expected 4.47", "no known mistake"),
        ({"marginal": lambda t: (vp.marginal(t)[0] ** 2, vp.marginal(t)[1])}, "of the marginal is", "scale is exp"),
    ):
        told = diagnosis_of(audit(**{**right, **change}), "marginal")
        assert parts in told
        assert ("of the marginal" in told) == ("marginal" in change)
        assert reason in told


def test_a_process_may_start_at_a_small_noise_level():
    """As VE of Song et al. (2021), std = σ_min (σ_max/σ_min)^t."""
    process = VE(0.05, 6.0)
    given = {"drift": process.drift, "diffusion": process.diffusion, "marginal": lambda t: (1.0, 0.05 * 120.0**t)}
    passes(audit(sde=process, **given))
    only(audit(sde=VE(0.05, 5.0), **given), ["marginal"])


def test_a_diagnosis_gives_the_step_as_the_code_counts_it():
    bar = np.cumprod(1 - HO)
    late = np.where(np.arange(1000) == 700, 0.9, 1.0)

    def q_sample(t, x0, e):
        return np.sqrt(late[t] * bar[t]) * x0 + np.sqrt(1 - bar[t]) * e

    given = {"betas": HO, "q_sample": q_sample}
    assert "t = 701 (yours: t = 700): factor of x_0" in diagnosis_of(audit(**given, zero_based=True), "q_sample")
    from_1 = audit(betas=HO, q_sample=lambda t, x0, e: q_sample(t - 1, x0, e))
    assert "t = 701: factor of x_0" in diagnosis_of(from_1, "q_sample")
    table = diagnosis_of(audit(betas=HO, zero_based=True, alphas_cumprod=late * bar), "alphas_cumprod")
    assert re.match(r"(ᾱ \(the root of|β̄ \(the root of 1 −) alphas_cumprod\) at t = 701 \(yours: t = 700\) is", table)
    model = Ho(HO, 3)

    def ddim(t, s, x_t, output, noise, eta):
        return model.ddim(t, s, x_t, output, noise, eta) + (t == 999) * (s == -1) * 0.5 * x_t

    assert diagnosis_of(audit(betas=HO, zero_based=True, ddim=ddim), "ddim").startswith(
        "t = 1000, s = 0 (yours: t = 999, s = -1)"
    )
