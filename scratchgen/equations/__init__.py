"""The deck's 34 equations and the propositions beside them as one table: statement, erratum, function, check.

`scratchgen verify`, the README's table and the tests all read it.  A row's check runs the package's function on one
fixed problem, or whatever stands in its place: `check(row, {"ddpm.q_posterior": mine})`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scratchgen.conformance import (
    Check,
    check_ancestral_step,
    check_bin_masses,
    check_bits_per_dim,
    check_ddim_step,
    check_denoiser,
    check_diagonal_kl,
    check_discretisation,
    check_elbo,
    check_forward_process,
    check_forward_step,
    check_free_m_step,
    check_gaussian_kl,
    check_importance_weighted_bound,
    check_joint_kl,
    check_kl,
    check_latent_posterior,
    check_linear_gaussian_elbo,
    check_linear_gaussian_posterior,
    check_log_prob,
    check_mean_field,
    check_optimal_variance,
    check_posterior,
    check_posterior_kl,
    check_ppca_maximum,
    check_ppca_step,
    check_predict_x0,
    check_schedule,
    check_score,
    check_sde,
    check_split_elbo,
    check_vae_loss,
    check_vae_objective,
)
from scratchgen.equations import problems
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    DECODER,
    JOINT,
    LOG_VARIANCE,
    MU,
    NOISE,
    OTHER_COV,
    PLANE,
    POINTS,
    POSTERIOR,
    PRIOR,
    Q_COV,
    Q_MEAN,
    SAMPLE_COV,
    SCHEDULE,
    SDE,
    SIGMA_SQUARED,
    Functions,
    P,
    Q,
    W,
    X,
    probabilities,
    waves,
)


class Row(NamedTuple):
    """One equation, or one proposition."""

    name: str  # the deck's number, "1" to "34", or what the proposition is about
    statement: str
    erratum: str  # what is wrong with it as printed, or has to be said; empty if it is right as it stands
    function: str  # its public function, "module.name" within scratchgen
    run: Callable[[Functions], Check]


def check(row: Row, replaced: Mapping[str, Callable[..., Any]] | None = None) -> Check:
    """Run a row's check; functions named in `replaced` stand in for the package's own."""
    return row.run(lambda name: (replaced or {}).get(name) or find(name))


def find(name: str) -> Callable[..., Any]:
    """The function or method that a row names, as "ddpm.q_sample" or "mixture.Mixture.score"."""
    module, *attributes = name.split(".")
    value: Any = importlib.import_module(f"scratchgen.{module}")
    for attribute in attributes:
        value = getattr(value, attribute)
    return value


# --- the table ---------------------------------------------------------------------------------------------------

EQUATIONS: tuple[Row, ...] = (
    Row(
        "1",
        "θ = argmax E_p log p_θ(x);  −E_p log p_θ = H(p) + KL(p‖p_θ)",
        "the slide has a stray dx inside the expectation",
        "likelihood.cross_entropy_discrete",
        problems.cross_entropy,
    ),
    Row(
        "2",
        "θ = argmin KL(p‖p_θ) = −H(p) − E_p log p_θ",
        "for an empirical p and a density p_θ the divergence is infinite: it means (1) up to a constant",
        "likelihood.kl_discrete",
        lambda f: check_kl(f("likelihood.kl_discrete"), P, Q[:, 1] / Q[:, 1].sum()),
    ),
    Row(
        "3",
        "p(z|x) = p(x,z)/∫p(x,z)dz",
        "",
        "variational.posterior_table",
        lambda f: check_latent_posterior(f("variational.posterior_table"), JOINT),
    ),
    Row(
        "4",
        "φ = argmin KL(q_φ(z|x)‖p(z|x)), 0 at the posterior",
        "",
        "variational.posterior_kl_table",
        lambda f: check_posterior_kl(f("variational.posterior_kl_table"), JOINT, Q),
    ),
    Row(
        "5",
        "KL(q‖p(z|x)) = log p(x) − E_q log p(x,z)/q(z|x)",
        "",
        "variational.elbo_table",
        lambda f: check_elbo(f("variational.elbo_table"), JOINT, Q),
    ),
    Row(
        "6",
        "argmin KL(q‖p(z|x)) = argmax ELBO(q)",
        "min and max differ by log p(x); only the minimisers are equal",
        "variational.linear_gaussian_mean_field",
        lambda f: check_mean_field(f("variational.linear_gaussian_mean_field"), X, W, MU, NOISE),
    ),
    Row(
        "7",
        "ELBO(q) = E_q log p(x|z) − KL(q(z|x)‖p(z))",
        "",
        "variational.elbo_split_table",
        lambda f: check_split_elbo(f("variational.elbo_split_table"), DECODER, PRIOR, Q),
    ),
    Row(
        "8",
        "log p_θ(x) = ELBO(q) + KL(q‖p_θ(z|x))",
        "“equal when q = p_θ(z|x)”: if and only if",
        "variational.linear_gaussian_elbo",
        lambda f: check_linear_gaussian_elbo(f("variational.linear_gaussian_elbo"), X, W, MU, NOISE, Q_MEAN, Q_COV),
    ),
    Row(
        "9",
        "E_p log p_θ(x)/p(x) ≥ E_p[ELBO(q) − log p(x)] = −KL(p q‖p_θ(x,z)), less by E_p KL(q‖p_θ(z|x))",
        "",
        "variational.joint_kl_table",
        lambda f: check_joint_kl(f("variational.joint_kl_table"), P, Q[::-1], DECODER, PRIOR),
    ),
    Row(
        "10",
        "KL(p(x)‖p_θ(x)) ≤ KL(p(x,z)‖p_θ(x,z)), equal at q = p_θ(z|x)",
        "printed through p(z|x) ≈ q inside a chain of inequalities; the chain rule is exact, for every q",
        "variational.joint_kl_table",
        lambda f: check_joint_kl(f("variational.joint_kl_table"), P, POSTERIOR, DECODER, PRIOR),
    ),
    Row(
        "11",
        "p_θ(z|x) = p_θ(x|z)q(z)/p_θ(x)",
        "printed with p(x) for p_θ(x) below the line, so that it does not sum to one",
        "variational.linear_gaussian_posterior",
        lambda f: check_linear_gaussian_posterior(f("variational.linear_gaussian_posterior"), X, W, MU, NOISE),
    ),
    Row(
        "12",
        "KL(p(x,z)‖p_θ(x,z)) = ∬p(x)q(z|x) log p(x)q(z|x)/(p_θ(x|z)q(z))",
        "",
        "variational.joint_kl_table",
        lambda f: check_joint_kl(f("variational.joint_kl_table"), P, Q, DECODER, PRIOR),
    ),
    Row(
        "13",
        "E_p[−E_q log p_θ(x|z) + KL(q(z|x)‖q(z))] = (12) + H(p)",
        "log p(x) is irrelevant to the minimiser, not to the value",
        "vae.vae_loss_table",
        lambda f: check_vae_objective(f("vae.vae_loss_table"), P, Q, DECODER, PRIOR),
    ),
    Row(
        "14",
        "E_p E_{z~q}[−log p_θ(x|z)] + E_p KL(q(z|x)‖q(z)); one z is unbiased",
        "printed without z ~ q; Figure 2 has N(μ, σ) for N(μ, σ²), and a reconstruction without its 1/(2s²)",
        "vae.vae_loss",
        lambda f: check_vae_loss(f("vae.vae_loss"), X, W, MU, NOISE, Q_MEAN, LOG_VARIANCE),
    ),
    Row(
        "15",
        "p_θ(x|z) = argmax E_p E_q log p_θ(x|z)",
        "printed as log p(x,z), which has no θ in it",
        "em.m_step_table",
        lambda f: check_free_m_step(f("em.m_step_table"), P, Q, PRIOR),
    ),
    Row(
        "16",
        "p_θ(x) = ∫p_θ(x|z)q(z)dz",
        "“p(x,z) is fixed” above it means p_θ(x,z)",
        "mixture.Mixture.log_prob",
        lambda f: check_log_prob(lambda x: f("mixture.Mixture.log_prob")(PLANE, x), PLANE, POINTS),
    ),
    Row(
        "17",
        "q = argmin E_p[KL(q‖p_θ(z|x)) − log p_θ(x)]",
        "",
        "em.free_energy",
        problems.free_energy,
    ),
    Row(
        "18",
        "q(z|x) = p_θ(z|x) = p_θ(x|z)q(z)/∫p_θ(x|z)q(z)dz",
        "printed below it: argmax over the θ of the sampling law too, without E_p; in EM that θ is frozen",
        "em.e_step",
        problems.e_step,
    ),
    Row(
        "19",
        "q = q̃(x₀)Π q(x_t|x_{t−1}),  p_θ = p_θ(x_T)Π p_θ(x_{t−1}|x_t)",
        "the chapter's first slide has x_t = α_t x_{t−1} + β_t, without ε_t",
        "ddpm.reverse_log_prob",
        problems.chains,
    ),
    Row(
        "20",
        "KL(q‖p_θ) over x₀,…,x_T = −E ELBO − H(x₀)",
        "printed with p(x₁|x₀) in the numerator, for q(x₁|x₀)",
        "ddpm.bound_terms",
        problems.bound_terms,
    ),
    Row(
        "21",
        "−E_q[log p_θ(x_T) + Σ log p_θ(x_{t−1}|x_t)] − Σ(D/2) log 2πeβ_t² = −E ELBO",
        "its first “=” drops the forward chain's entropy, which has no θ in it",
        "ddpm.negative_elbo",
        problems.negative_elbo,
    ),
    Row(
        "22",
        "−E_q log p_θ(x_{t−1}|x_t) over x₀,…,x_T",
        "",
        "ddpm.p_log_prob",
        lambda f: problems.whole_path(f, 1),
    ),
    Row(
        "23",
        "= the same over x₀,…,x_t",
        "“p_θ(x_{t−1},x_t)” is p_θ(x_{t−1}|x_t); what comes after x_t integrates to 1",
        "ddpm.p_log_prob",
        lambda f: problems.whole_path(f, 2),
    ),
    Row(
        "24",
        "= the same over x₀, x_{t−1}, x_t",
        "right for t ≥ 2; at t = 1, q(x₀|x₀) is a point mass",
        "ddpm.p_log_prob",
        problems.three_variables,
    ),
    Row(
        "25",
        "q(x_t|x₀) = N(ᾱ_t x₀, β̄_t² I),  ᾱ_t = α₁⋯α_t,  β̄_t = √(1−ᾱ_t²)",
        "right because α² + β² = 1; otherwise β̄² is a sum.  Credited to Ho; first in Sohl-Dickstein 2015",
        "ddpm.q_sample",
        lambda f: check_forward_process(lambda *a: f("ddpm.q_sample")(SCHEDULE, *a), SCHEDULE),
    ),
    Row(
        "26",
        "(D/2) log 2πσ² + β²/(2α²σ²) E‖ε_t − ε_θ(x_t,t)‖²",
        "printed twice too large and without (D/2) log 2πσ²; its ε_θ predicts one step's noise, (β/β̄)ε̂",
        "ddpm.one_step_loss",
        problems.one_step_loss,
    ),
    Row(
        "27",
        "ε_t = (β_t ε − α_t β̄_{t−1} ω)/β̄_t,  E[εωᵀ] = 0",
        "right; E[εωᵀ] = 0 means independence because both are jointly Gaussian",
        "ddpm.split_noise",
        problems.noise_merging,
    ),
    Row(
        "28",
        "the same in (ε,ω): E‖(β_t ε − α_t β̄_{t−1} ω)/β̄_t − ε_θ(x_t,t)‖²",
        "printed twice too large",
        "ddpm.merged_loss",
        problems.merged_loss,
    ),
    Row(
        "29",
        "(D/2) log 2πσ² + Dβ̃²/(2σ²) + β⁴/(2β̄²α²σ²) E‖ε − ε̂(x_t,t)‖²",
        "printed twice too large, without Dβ̃²/(2σ²), which separating ω leaves, and with x₀ ~ p̃ for q̃",
        "ddpm.total_noise_loss",
        problems.total_noise_loss,
    ),
    Row(
        "30",
        "x_i = √(1−β_i) x_{i−1} + √β_i z_i;  β_i = 1 − exp(−∫β dt) has the SDE's law",
        "its β_i is the β_t² of the slides before, its z_{i−1} their ε_i: the letters change meaning here",
        "schedule.NoiseSchedule.from_sde",
        lambda f: check_discretisation(f("schedule.NoiseSchedule.from_sde")(SDE, 7).variances, SDE),
    ),
    Row(
        "31",
        "dx = −½β(t)x dt + √β(t) dw:  x_t = e^{−B/2}x₀ + √(1−e^{−B}) ε,  B = ∫β",
        "printed without Δt in β_i = β(t_i)Δt; DDPM is a first-order discretisation, not Euler-Maruyama",
        "sde.VP.marginal",
        lambda f: check_sde(lambda t: f("sde.VP.marginal")(SDE, t), SDE.drift, SDE.diffusion, SDE.horizon),
    ),
    Row(
        "32",
        "dx = [f − ½(1+λ²)g²∇log p_t]dt + λg dw̄, dt < 0;  λ = 1 as printed, 0 the flow",
        "time runs backwards, which the slide does not say.  (This λ is the code's churn)",
        "sde.reverse_drift",
        problems.reverse_sde,
    ),
    Row(
        "33",
        "E_t E_{p_t} λ(t)‖∇log p_t − s_θ‖²: denoising, implicit, sliced equal it up to θ-free constants",
        "printed t ∈ U for t ~ U(0,T), and UAI 2020 for sliced score matching, which is UAI 2019",
        "sde.denoising_score_matching",
        problems.score_matching,
    ),
    Row(
        "34",
        "KL(p₀‖p_θ) ≤ ½∫g²E‖∇log p_t − s_θ‖²dt + KL(p_T‖π), equal if s_θ = ∇log q_t, π = q_T",
        "p_θ is the law of the continuous reverse SDE; false for the flow.  Printed ICLR 2021 for NeurIPS 2021",
        "sde.kl_bound",
        problems.kl_bound,
    ),
)

PROPOSITIONS: tuple[Row, ...] = (
    Row(
        "KL of Gaussians",
        "KL(N_p‖N_q) = ½[tr S_q⁻¹S_p + |m_p−m_q|² − D + log|S_q|/|S_p|]",
        "",
        "likelihood.kl_gaussian",
        lambda f: check_gaussian_kl(f("likelihood.kl_gaussian"), DATA_MEAN, DATA_COV, -DATA_MEAN, OTHER_COV),
    ),
    Row(
        "the VAE's regulariser",
        "KL(N(μ,σ²)‖N(0,I)) = ½Σ(μ² + σ² − 1 − log σ²)",
        "Figure 2 prints N(μ, σ)",
        "likelihood.kl_diag_standard",
        lambda f: check_diagonal_kl(f("likelihood.kl_diag_standard"), Q_MEAN, LOG_VARIANCE),
    ),
    Row(
        "importance weighting",
        "E exp(bound) = p_θ(x), whatever the number of draws",
        "",
        "vae.importance_weighted_bound",
        lambda f: check_importance_weighted_bound(f("vae.importance_weighted_bound"), JOINT, Q),
    ),
    Row(
        "the VAE's gradient",
        "through z = μ + σξ, by hand",
        "",
        "vae.VAENetwork.loss",
        problems.vae_gradient,
    ),
    Row(
        "EM",
        "the M-step maximises E_p E_q log p_θ(x,z), the likelihood never falls",
        "the formula after (18) varies θ in the sampling law",
        "em.m_step",
        problems.em,
    ),
    Row(
        "EM for PPCA",
        "W′ = SW(σ²I + M⁻¹WᵀSW)⁻¹,  σ²′ = tr(S − SWM⁻¹W′ᵀ)/D",
        "",
        "em.ppca_em_step",
        lambda f: check_ppca_step(f("em.ppca_em_step"), SAMPLE_COV, W, NOISE),
    ),
    Row(
        "maximum of PPCA",
        "W = U_k(Λ_k − σ²I)^½,  σ² = mean of the other eigenvalues",
        "",
        "em.ppca_maximum",
        lambda f: check_ppca_maximum(f("em.ppca_maximum"), SAMPLE_COV, 2),
    ),
    Row(
        "tables of a schedule",
        "ᾱ, β̄ and β̃ from β², step by step",
        "",
        "schedule.NoiseSchedule",
        lambda f: (lambda s: check_schedule(SCHEDULE, s.alpha_bar, s.beta_bar, s.beta_tilde))(
            f("schedule.NoiseSchedule")(SCHEDULE.variances)
        ),
    ),
    Row(
        "a forward step",
        "x_t = α_t x_{t−1} + β_t ε_t",
        "printed without ε_t",
        "ddpm.q_step",
        lambda f: check_forward_step(lambda *a: f("ddpm.q_step")(SCHEDULE, *a), SCHEDULE),
    ),
    Row(
        "q(x_{t−1}|x_t,x₀)",
        "mean (α_t β̄²_{t−1} x_t + ᾱ_{t−1}β_t² x₀)/β̄_t², variance β_t²β̄²_{t−1}/β̄_t²",
        "from three factors; the slide names two",
        "ddpm.q_posterior",
        lambda f: check_posterior(lambda *a: f("ddpm.q_posterior")(SCHEDULE, *a), SCHEDULE),
    ),
    Row(
        "x₀ from noise",
        "x₀ = (x_t − β̄_t ε)/ᾱ_t",
        "",
        "ddpm.predict_x0",
        lambda f: check_predict_x0(lambda *a: f("ddpm.predict_x0")(SCHEDULE, *a), SCHEDULE),
    ),
    Row(
        "a reverse step",
        "x_{t−1} = (x_t − (β_t²/β̄_t)ε̂)/α_t + σ_t z",
        "printed as (x_t − β_t ε_θ)/α_t: a path's identity, for the noise of one step, and no rule of sampling",
        "ddpm.p_step",
        lambda f: check_ancestral_step(
            lambda *a: f("ddpm.p_step")(SCHEDULE, *a, SIGMA_SQUARED), SCHEDULE, SIGMA_SQUARED
        ),
    ),
    Row(
        "the best σ_t²",
        "v_t = E‖x_{t−1} − E[x_{t−1}|x_t]‖²/D = β̃² + β⁴ℓ_t/(Dα²β̄²)",
        "the deck does not say what σ_t is",
        "ddpm.mean_square_step",
        lambda f: check_optimal_variance(
            lambda noise_loss: f("ddpm.mean_square_step")(SCHEDULE, noise_loss, 3), SCHEDULE, DATA_COV
        ),
    ),
    Row(
        "ancestral sampling",
        "with the exact ε̂ and σ_t² = v_t it draws N(m, v) exactly, whatever T",
        "",
        "ddpm.ancestral_sampler",
        problems.sampler,
    ),
    Row(
        "DDIM",
        "x_s = ᾱ_s x̂₀ + √(β̄_s² − σ²) ε̂ + σz keeps the marginals for every η",
        "",
        "ddpm.ddim_step",
        lambda f: check_ddim_step(
            lambda t, s, x_t, eps_hat, noise: f("ddpm.ddim_step")(SCHEDULE, t, s, x_t, eps_hat, noise, 0.6),
            SCHEDULE,
            0.6,
        ),
    ),
    Row(
        "whole numbers",
        "P(k|x₁) = Φ(upper edge) − Φ(lower edge), the end bins open",
        "",
        "likelihood.log_bin_mass",
        lambda f: check_bin_masses(
            lambda level, mean, std: f("likelihood.log_bin_mass")(level, mean, std, 17), 17, waves(4), 0.07
        ),
    ),
    Row(
        "bits per dimension",
        "−log₂P(k)/D from a density of a(k+u) + b",
        "",
        "likelihood.bits_per_dim",
        lambda f: check_bits_per_dim(f("likelihood.bits_per_dim"), probabilities(waves(6)), 3, 2 / 17),
    ),
    Row(
        "score of a mixture",
        "∇log p(x) = −Σ p(k|x)C_k⁻¹(x − m_k)",
        "",
        "mixture.Mixture.score",
        lambda f: check_score(lambda x: f("mixture.Mixture.score")(PLANE, x), PLANE, POINTS),
    ),
    Row(
        "denoiser of a mixture",
        "E[x₀|x_t] = (x_t + std²∇log p_t(x_t))/scale",
        "",
        "mixture.Mixture.denoise",
        lambda f: check_denoiser(lambda *a: f("mixture.Mixture.denoise")(PLANE, *a), PLANE, POINTS, *SDE.level(0.5)),
    ),
    Row(
        "a step of Euler-Maruyama",
        "x_s = x_t + drift·(s−t) + g√(t−s) z → q(x_s|x_t) as t − s → 0",
        "",
        "sde.euler_step",
        problems.reverse_step,
    ),
    Row(
        "Euler-Maruyama on a grid",
        "drift and g where a step leaves",
        "",
        "sde.euler_maruyama",
        problems.reverse_sampler,
    ),
    Row(
        "likelihood of the flow",
        "log p₀(x) = log p_T(x_T) + ∫div(f − ½g²∇log p_t)dt",
        "",
        "sde.probability_flow_log_prob",
        problems.flow,
    ),
    Row(
        "(34) for one example",
        "log p_θ(x) ≥ E log π(x_T) − ½∫E[g²(‖s_θ‖² + 2 div s_θ) − 2 div f]dt, equal if s_θ = ∇log q_t, π = q_T",
        "",
        "sde.sde_log_prob_bound",
        problems.log_prob_bound,
    ),
    Row(
        "left side of (34)",
        "for s_θ = −(1+δ)x:  v_θ = [1 + 2δe^{−(1+2δ)B}]/(1+2δ)",
        "",
        "sde.reverse_moments",
        problems.reverse_law,
    ),
    Row(
        "backward pass of the MLP",
        "the derivative along every parameter",
        "",
        "network.MLP.backward",
        problems.mlp_gradient,
    ),
    Row(
        "Adam",
        "Kingma and Ba's algorithm, decoupled weight decay",
        "",
        "optimizer.Adam",
        problems.adam,
    ),
)
