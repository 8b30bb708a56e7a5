"""Rows of propositions that complete the deck's equations."""

from __future__ import annotations

from scratchgen.conformance import (
    check_ancestral_step,
    check_bin_masses,
    check_bits_per_dim,
    check_denoiser,
    check_diagonal_kl,
    check_forward_step,
    check_gaussian_kl,
    check_importance_weighted_bound,
    check_posterior,
    check_ppca_maximum,
    check_ppca_step,
    check_predict_x0,
    check_reverse_variance,
    check_schedule,
    check_score,
)
from scratchgen.equations import ddpm, em, sde
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    JOINT,
    LOG_VARIANCE,
    NOISE,
    OTHER_COV,
    PLANE,
    POINTS,
    Q_MEAN,
    SAMPLE_COV,
    SCHEDULE,
    SDE,
    SIGMA_SQUARED,
    Q,
    W,
    waves,
)
from scratchgen.equations.row import Row
from scratchgen.likelihood import softmax

THEORY: tuple[Row, ...] = (
    Row(
        "KL of Gaussians",
        "KL(N_p‖N_q) = ½[tr S_q⁻¹S_p + |m_p−m_q|² − D + log|S_q|/|S_p|]",
        "",
        "likelihood.kl_gaussian",
        lambda f: check_gaussian_kl(f("likelihood.kl_gaussian"), DATA_MEAN, DATA_COV, -DATA_MEAN, OTHER_COV),
        theory_only="of full covariances; the posterior of a VAE is diagonal",
        latex=(
            r"\mathrm{KL}(\mathcal{N}_p \,\|\, \mathcal{N}_q) = \frac{1}{2} \left[ \operatorname{tr} S_q^{-1} "
            r"S_p + (m_p - m_q)^\top S_q^{-1} (m_p - m_q) - D + \log \frac{|S_q|}{|S_p|} \right]"
        ),
    ),
    Row(
        "the VAE's regulariser",
        "KL(N(μ,σ²)‖N(0,I)) = ½Σ(μ² + σ² − 1 − log σ²)",
        "Figure 2 prints N(μ, σ)",
        "likelihood.kl_diag_standard",
        lambda f: check_diagonal_kl(f("likelihood.kl_diag_standard"), Q_MEAN, LOG_VARIANCE),
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
            "LinearVAE.elbo",
            "VAE.elbo",
            "DDPM.elbo",
            "ScoreSDE.elbo",
            "grade_linear_vae",
            "grade_vae",
        ),
        latex=(
            r"\mathrm{KL}(\mathcal{N}(\mu, \sigma^2) \,\|\, \mathcal{N}(0, I)) = \frac{1}{2} \sum_i \left( "
            r"\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2 \right)"
        ),
    ),
    Row(
        "importance weighting",
        "log (1/n)Σw of n draws;  L₁ ≤ L₂ ≤ … ≤ log p_θ(x),  E exp(bound) = p_θ(x)",
        "",
        "vae.importance_weighted_bound",
        lambda f: check_importance_weighted_bound(f("vae.importance_weighted_bound"), JOINT, Q, 3),
        runs_in=(
            "VAE.iwae",
            "LinearVAE.iwae",
            "DDPM.iwae",
        ),
        latex=(
            r"L_n = \mathbb{E} \log \frac{1}{n} \sum_{i=1}^n w_i, \qquad L_1 \le L_2 \le \cdots \le \log "
            r"p_\theta(x), \qquad \mathbb{E} \, \frac{1}{n} \sum_{i=1}^n w_i = p_\theta(x)"
        ),
    ),
    Row(
        "EM",
        "the M-step maximises E_p E_q log p_θ(x,z), and the likelihood never falls",
        "the formula after (18) varies θ in q too",
        "em.m_step",
        em.em,
        runs_in=("GaussianMixture.fit",),
        latex=(
            r"\theta' = \operatorname*{argmax}_\theta \mathbb{E}_{p(x)} \, \mathbb{E}_{q(z \mid x)} \log "
            r"p_\theta(x, z), \qquad \mathbb{E}_p \log p_{\theta'}(x) \ge \mathbb{E}_p \log p_\theta(x)"
        ),
    ),
    Row(
        "EM for PPCA",
        "W′ = SW(σ²I + M⁻¹WᵀSW)⁻¹,  σ²′ = tr(S − SWM⁻¹W′ᵀ)/D",
        "",
        "em.ppca_em_step",
        lambda f: check_ppca_step(f("em.ppca_em_step"), SAMPLE_COV, W, NOISE),
        runs_in=("PPCA.fit",),
        latex=(
            r"W' = S W (\sigma^2 I + M^{-1} W^\top S W)^{-1}, \qquad \sigma'^2 = \frac{1}{D} "
            r"\operatorname{tr}(S - S W M^{-1} W'^\top), \qquad M = W^\top W + \sigma^2 I"
        ),
    ),
    Row(
        "maximum of PPCA",
        "W = U_k(Λ_k − σ²I)^½,  σ² = mean of the other eigenvalues",
        "",
        "em.ppca_maximum",
        lambda f: check_ppca_maximum(f("em.ppca_maximum"), SAMPLE_COV, 2),
        runs_in=(
            "PPCA.fit",
            "grade_linear_vae",
        ),
        latex=(r"W = U_k (\Lambda_k - \sigma^2 I)^{1/2}, \qquad \sigma^2 = \frac{1}{D - k} \sum_{i > k} \lambda_i"),
    ),
    Row(
        "tables of a schedule",
        "ᾱ, β̄ and β̃ from β², step by step",
        "",
        "schedule.NoiseSchedule",
        lambda f: (lambda s: check_schedule(SCHEDULE, s.alpha_bar, s.beta_bar, s.beta_tilde))(
            f("schedule.NoiseSchedule")(SCHEDULE.variances)
        ),
        runs_in=(
            "DDPM.load",
            "DDPM.respace",
            "to_ddpm",
            "grade_bound",
            "ancestral_density",
        ),
        slug="schedule",
        latex=(
            r"\bar{\alpha}_t = \prod_{s=1}^t \sqrt{1 - \beta_s^2}, \qquad \bar{\beta}_t = \sqrt{1 - "
            r"\bar{\alpha}_t^2}, \qquad \tilde{\beta}_t = \frac{\beta_t \bar{\beta}_{t-1}}{\bar{\beta}_t}"
        ),
    ),
    Row(
        "a forward step",
        "x_t = α_t x_{t−1} + β_t ε_t",
        "printed without ε_t",
        "ddpm.q_step",
        lambda f: check_forward_step(lambda *a: f("ddpm.q_step")(SCHEDULE, *a), SCHEDULE),
        runs_in=("DDPM.iwae",),
        latex=r"x_t = \alpha_t x_{t-1} + \beta_t \varepsilon_t",
    ),
    Row(
        "even log-SNR",
        "log ᾱ_t²/β̄_t² falls in even steps:  β_t² = β̄_t²(1 − SNR_t/SNR_{t−1})",
        "",
        "schedule.NoiseSchedule.log_snr_even",
        ddpm.even_log_snr,
        theory_only="a schedule is an argument of the models",
        latex=(
            r"\log \frac{\bar{\alpha}_t^2}{\bar{\beta}_t^2} \text{ falls in even steps}, \qquad \beta_t^2 = "
            r"\bar{\beta}_t^2 \left( 1 - \frac{\mathrm{SNR}_t}{\mathrm{SNR}_{t-1}} \right)"
        ),
    ),
    Row(
        "q(x_{t−1}|x_t,x₀)",
        "mean (α_t β̄²_{t−1} x_t + ᾱ_{t−1}β_t² x₀)/β̄_t², variance β_t²β̄²_{t−1}/β̄_t²",
        "the product of three factors; the slide names two",
        "ddpm.q_posterior",
        lambda f: check_posterior(lambda *a: f("ddpm.q_posterior")(SCHEDULE, *a), SCHEDULE),
        runs_in=("DDPM.elbo", "DDPM.iwae", "DDPM.sample"),
        slug="posterior",
        latex=(
            r"q(x_{t-1} \mid x_t, x_0) = \mathcal{N} \left( \frac{\alpha_t \bar{\beta}_{t-1}^2 x_t + "
            r"\bar{\alpha}_{t-1} \beta_t^2 x_0}{\bar{\beta}_t^2}, \; \frac{\beta_t^2 "
            r"\bar{\beta}_{t-1}^2}{\bar{\beta}_t^2} I \right)"
        ),
    ),
    Row(
        "x₀ from noise",
        "x₀ = (x_t − β̄_t ε)/ᾱ_t",
        "",
        "ddpm.predict_x0",
        lambda f: check_predict_x0(lambda *a: f("ddpm.predict_x0")(SCHEDULE, *a), SCHEDULE),
        runs_in=(
            "DDPM.elbo",
            "DDPM.noise_losses",
            "DDPM.sample",
            "DDPM.iwae",
        ),
        latex=r"x_0 = \frac{x_t - \bar{\beta}_t \varepsilon}{\bar{\alpha}_t}",
    ),
    Row(
        "a reverse step",
        "x_{t−1} = (x_t − (β_t²/β̄_t)ε̂)/α_t + σ_t z",
        "printed as (x_t − β_t ε_θ)/α_t: an identity along a path, for the noise of one step, without σ_t z",
        "ddpm.p_step",
        lambda f: check_ancestral_step(
            lambda *a: f("ddpm.p_step")(SCHEDULE, *a, SIGMA_SQUARED), SCHEDULE, SIGMA_SQUARED
        ),
        runs_in=("DDPM.sample",),
        latex=(
            r"x_{t-1} = \frac{1}{\alpha_t} \left( x_t - \frac{\beta_t^2}{\bar{\beta}_t} \hat{\varepsilon}(x_t, "
            r"t) \right) + \sigma_t z"
        ),
    ),
    Row(
        "σ_t² of the reverse steps",
        "β_t²; or β̃_t², with β_1² in place of β̃_1² = 0",
        "the deck does not say what σ_t is",
        "ddpm.reverse_variance",
        lambda f: check_reverse_variance(lambda name: f("ddpm.reverse_variance")(SCHEDULE, name), SCHEDULE),
        runs_in=(
            "DDPM.fit",
            "DDPM.load",
            "DDPM.elbo",
            "DDPM.sample",
            "DDPM.iwae",
            "DDPM.respace",
            "to_ddpm",
            "grade_bound",
            "ancestral_density",
        ),
        slug="reverse-variance",
        latex=(
            r"\sigma_t^2 = \beta_t^2 \quad \text{or} \quad \sigma_t^2 = \tilde{\beta}_t^2, \text{ with } "
            r"\beta_1^2 \text{ in place of } \tilde{\beta}_1^2 = 0"
        ),
    ),
    Row(
        "the best σ_t²",
        "v_t = E‖x_{t−1} − E[x_{t−1}|x_t]‖²/D = β̃² + β⁴ℓ_t/(Dα²β̄²); in one dimension ℓ_td without D",
        "the deck does not say what σ_t is",
        "ddpm.optimal_reverse_variance",
        ddpm.best_variances,
        runs_in=(
            "DDPM.fit",
            "DDPM.respace",
            "grade_bound",
        ),
        slug="best-variance",
        latex=(
            r"v_t = \frac{1}{D} \mathbb{E} \, \| x_{t-1} - \mu_\theta(x_t) \|^2 = \tilde{\beta}_t^2 + "
            r"\frac{\beta_t^4 \, \ell_t}{D \, \alpha_t^2 \bar{\beta}_t^2}, \qquad \ell_t = \mathbb{E} \, \| "
            r"\varepsilon - \hat{\varepsilon} \|^2"
        ),
    ),
    Row(
        "ancestral sampling",
        "with the exact ε̂ and σ_t² = v_t the samples have exactly N(m, v), for every T",
        "",
        "ddpm.ancestral_sampler",
        ddpm.sampler,
        runs_in=("DDPM.sample",),
        latex=(
            r"x_0 \sim \mathcal{N}(m, v) \text{ exactly, for every } T, \text{ with the exact } "
            r"\hat{\varepsilon} \text{ and } \sigma_t^2 = v_t"
        ),
    ),
    Row(
        "DDIM",
        "x_s = ᾱ_s x̂₀ + √(β̄_s² − σ²) ε̂ + σz has the marginal q(x_s) for every η",
        "",
        "ddpm.ddim_step",
        ddpm.ddim_step,
        runs_in=("DDPM.sample",),
        latex=(
            r"x_s = \bar{\alpha}_s \hat{x}_0 + \sqrt{\bar{\beta}_s^2 - \sigma^2} \, \hat{\varepsilon} + \sigma "
            r"z, \qquad \sigma = \eta \, \frac{\bar{\beta}_s}{\bar{\beta}_t} \sqrt{1 - "
            r"\frac{\bar{\alpha}_t^2}{\bar{\alpha}_s^2}}"
        ),
    ),
    Row(
        "whole numbers",
        "P(k|x₁) = Φ(upper edge) − Φ(lower edge); the first and the last bin are open",
        "",
        "likelihood.log_bin_mass",
        lambda f: check_bin_masses(
            lambda level, mean, std: f("likelihood.log_bin_mass")(level, mean, std, 17), 17, waves(4), 0.07
        ),
        runs_in=(
            "DDPM.elbo",
            "ScoreSDE.elbo",
            "DDPM.iwae",
        ),
        latex=(
            r"P(k \mid x_1) = \Phi \left( \frac{\text{upper edge} - \mu}{\sigma} \right) - \Phi \left( "
            r"\frac{\text{lower edge} - \mu}{\sigma} \right), \qquad \text{the first and the last bin are open}"
        ),
    ),
    Row(
        "bits per dimension",
        "−log₂P(k)/D from a density of a(k+u) + b",
        "",
        "likelihood.bits_per_dim",
        lambda f: check_bits_per_dim(f("likelihood.bits_per_dim"), softmax(waves(6)), 3, 2 / 17),
        theory_only="a change of units for the reader; no model calls it",
        latex=r"-\frac{1}{D} \log_2 P(k) = -\frac{1}{D \log 2} \left[ \log p(a (k + u) + b) + D \log a \right]",
    ),
    Row(
        "score of a mixture",
        "∇log p(x) = −Σ p(k|x)C_k⁻¹(x − m_k)",
        "",
        "mixture.Mixture.score",
        lambda f: check_score(lambda x: f("mixture.Mixture.score")(PLANE, x), PLANE, POINTS),
        runs_in=(
            "grade_bound",
            "grade_kl_bound",
            "grade_noise",
        ),
        slug="mixture-score",
        latex=r"\nabla \log p(x) = -\sum_k p(k \mid x) \, C_k^{-1} (x - m_k)",
    ),
    Row(
        "denoiser of a mixture",
        "E[x₀|x_t] = (x_t + std²∇log p_t(x_t))/scale",
        "",
        "mixture.Mixture.denoise",
        lambda f: check_denoiser(lambda *a: f("mixture.Mixture.denoise")(PLANE, *a), PLANE, POINTS, *SDE.level(0.5)),
        runs_in=("sample_noise_grade",),
        slug="mixture-denoiser",
        latex=r"\mathbb{E}[x_0 \mid x_t] = \frac{x_t + \mathrm{std}^2 \, \nabla \log p_t(x_t)}{\mathrm{scale}}",
    ),
    Row(
        "a step of Euler-Maruyama",
        "x_s = x_t + drift·(s−t) + g√(t−s) z → q(x_s|x_t) as t − s → 0",
        "",
        "sde.euler_step",
        sde.reverse_step,
        runs_in=(
            "ScoreSDE.sample",
            "euler_density",
        ),
        slug="euler-step",
        latex=(
            r"x_s = x_t + \text{drift} \cdot (s - t) + g \sqrt{t - s} \, z \; \to \; q(x_s \mid x_t) \quad "
            r"\text{as } t - s \to 0"
        ),
    ),
    Row(
        "Euler-Maruyama on a grid",
        "drift and g at the start of every step",
        "",
        "sde.euler_maruyama",
        sde.reverse_sampler,
        runs_in=("ScoreSDE.sample",),
        slug="euler-maruyama",
        latex=(
            r"x_{t_{i-1}} = x_{t_i} + \text{drift}(x_{t_i}, t_i) \, (t_{i-1} - t_i) + g(t_i) \sqrt{t_i - "
            r"t_{i-1}} \, z_i"
        ),
    ),
    Row(
        "likelihood of the flow",
        "log p₀(x) = log p_T(x_T) + ∫div(f − ½g²∇log p_t)dt",
        "",
        "sde.probability_flow_log_prob",
        sde.flow,
        runs_in=("ScoreSDE.log_prob",),
        slug="flow-likelihood",
        latex=(
            r"\log p_0(x) = \log p_T(x_T) + \int_0^T \operatorname{div} \left( f - \frac{1}{2} g^2 \nabla \log "
            r"p_t \right) dt"
        ),
    ),
    Row(
        "(34) for one example",
        "log p_θ(x) ≥ E log π(x_T) − ½∫E[g²(‖s_θ‖² + 2 div s_θ) − 2 div f]dt, equal if s_θ = ∇log q_t, π = q_T",
        "",
        "sde.sde_log_prob_bound",
        sde.log_prob_bound,
        theory_only="needs a divergence; ScoreSDE.elbo uses the denoising form, the continuous bound",
        slug="sde-elbo",
        latex=(
            r"\log p_\theta(x) \ge \mathbb{E} \log \pi(x_T) - \frac{1}{2} \int_0^T \mathbb{E} \left[ g^2 (\| "
            r"s_\theta \|^2 + 2 \operatorname{div} s_\theta) - 2 \operatorname{div} f \right] dt"
        ),
    ),
    Row(
        "left side of (34)",
        "for s_θ = −(1+δ)x:  v_θ = [1 + 2δe^{−(1+2δ)B}]/(1+2δ)",
        "",
        "sde.reverse_moments",
        sde.reverse_law,
        theory_only="the exact distribution for an affine score, to test (34); the score of a network is not affine",
        slug="reverse-law",
        latex=(
            r"s_\theta = -(1 + \delta) \, x: \qquad v_\theta = \frac{1 + 2 \delta \, e^{-(1 + 2 \delta) B}}{1 + "
            r"2 \delta}"
        ),
    ),
)
