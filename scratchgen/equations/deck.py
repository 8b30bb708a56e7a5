"""The deck's 34 equations as rows: statement, erratum, function, where the function runs, check."""

from __future__ import annotations

from scratchgen.conformance import (
    check_discretisation,
    check_elbo,
    check_forward_process,
    check_free_m_step,
    check_joint_kl,
    check_kl,
    check_latent_posterior,
    check_linear_gaussian_elbo,
    check_linear_gaussian_posterior,
    check_log_prob,
    check_mean_field,
    check_posterior_kl,
    check_split_elbo,
    check_vae_objective,
)
from scratchgen.equations import ddpm, em, sde, vae
from scratchgen.equations.problems import (
    DECODER,
    JOINT,
    MU,
    NOISE,
    PLANE,
    POINTS,
    POSTERIOR,
    PRIOR,
    Q_COV,
    Q_MEAN,
    SCHEDULE,
    SDE,
    P,
    Q,
    W,
    X,
)
from scratchgen.equations.row import Row

EQUATIONS: tuple[Row, ...] = (
    Row(
        "1",
        "θ = argmax E_p log p_θ(x);  −E_p log p_θ = H(p) + KL(p‖p_θ)",
        "the slide has a stray dx inside the expectation",
        "likelihood.cross_entropy_discrete",
        em.cross_entropy,
        theory_only="the objective for tables; the models maximise it on data, by (8), (14), (18) or (21)",
        slug="maximum-likelihood",
        latex=(
            r"\theta = \operatorname*{argmax}_\theta \mathbb{E}_p \log p_\theta(x), \qquad -\mathbb{E}_p \log "
            r"p_\theta(x) = H(p) + \mathrm{KL}(p \,\|\, p_\theta)"
        ),
    ),
    Row(
        "2",
        "θ = argmin KL(p‖p_θ) = −H(p) − E_p log p_θ",
        "for an empirical p and a density p_θ this divergence is infinite; (2) then means (1), up to a constant",
        "likelihood.kl_discrete",
        lambda f: check_kl(f("likelihood.kl_discrete"), P, Q[:, 1] / Q[:, 1].sum()),
        theory_only="a divergence of tables; the grades of trained models are divergences of densities, by quadrature",
        slug="smallest-kl",
        latex=(
            r"\theta = \operatorname*{argmin}_\theta \mathrm{KL}(p \,\|\, p_\theta), \qquad \mathrm{KL}(p "
            r"\,\|\, p_\theta) = -H(p) - \mathbb{E}_p \log p_\theta(x)"
        ),
    ),
    Row(
        "3",
        "p(z|x) = p(x,z)/∫p(x,z)dz",
        "",
        "variational.posterior_table",
        lambda f: check_latent_posterior(f("variational.posterior_table"), JOINT),
        theory_only="sums over tables; models have densities",
        slug="bayes-rule",
        latex=r"p(z \mid x) = \frac{p(x, z)}{\int p(x, z) \, dz}",
    ),
    Row(
        "4",
        "φ = argmin KL(q_φ(z|x)‖p(z|x)), 0 at the posterior",
        "",
        "variational.posterior_kl_table",
        lambda f: check_posterior_kl(f("variational.posterior_kl_table"), JOINT, Q),
        theory_only="sums over tables; models have densities",
        slug="posterior-kl",
        latex=r"\phi = \operatorname*{argmin}_\phi \mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z \mid x))",
    ),
    Row(
        "5",
        "KL(q‖p(z|x)) = log p(x) − E_q log p(x,z)/q(z|x)",
        "",
        "variational.elbo_table",
        lambda f: check_elbo(f("variational.elbo_table"), JOINT, Q),
        theory_only="sums over tables; models have densities",
        slug="elbo",
        latex=(
            r"\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x)) = \log p(x) - \mathbb{E}_{z \sim q} \left[ \log "
            r"\frac{p(x, z)}{q(z \mid x)} \right]"
        ),
    ),
    Row(
        "6",
        "argmin KL(q‖p(z|x)) = argmax ELBO(q)",
        "the minimum and the maximum differ by log p(x); only the optimal q are equal",
        "variational.linear_gaussian_mean_field",
        lambda f: check_mean_field(f("variational.linear_gaussian_mean_field"), X, W, MU, NOISE),
        theory_only="no model restricts q to independent latents: where the posterior is Gaussian, q is the posterior",
        slug="best-q",
        latex=(
            r"\operatorname*{argmin}_q \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x)) = \operatorname*{argmax}_q "
            r"\mathrm{ELBO}(q)"
        ),
    ),
    Row(
        "7",
        "ELBO(q) = E_q log p(x|z) − KL(q(z|x)‖p(z))",
        "",
        "variational.elbo_split_table",
        lambda f: check_split_elbo(f("variational.elbo_split_table"), DECODER, PRIOR, Q),
        theory_only="sums over tables; models have densities",
        slug="elbo-split",
        latex=(r"\mathrm{ELBO}(q) = \mathbb{E}_{z \sim q} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))"),
    ),
    Row(
        "8",
        "log p_θ(x) = ELBO(q) + KL(q‖p_θ(z|x))",
        "the printed “equal when q = p_θ(z|x)” is an if and only if",
        "variational.linear_gaussian_elbo",
        lambda f: check_linear_gaussian_elbo(f("variational.linear_gaussian_elbo"), X, W, MU, NOISE, Q_MEAN, Q_COV),
        runs_in=(
            "PPCA.fit",
            "FactorAnalysis.fit",
            "PPCA.elbo",
            "FactorAnalysis.elbo",
            "PPCA.load",
            "FactorAnalysis.load",
        ),
        slug="gap",
        latex=r"\log p_\theta(x) = \mathrm{ELBO}(q) + \mathrm{KL}(q(z \mid x) \,\|\, p_\theta(z \mid x))",
    ),
    Row(
        "9",
        "E_p log p_θ(x)/p(x) ≥ E_p[ELBO(q) − log p(x)] = −KL(p q‖p_θ(x,z)), with the gap E_p KL(q‖p_θ(z|x))",
        "",
        "variational.joint_kl_table",
        lambda f: check_joint_kl(f("variational.joint_kl_table"), P, Q[::-1], DECODER, PRIOR),
        theory_only="sums over tables; models have densities",
        slug="average-gap",
        latex=(
            r"\mathbb{E}_p \log \frac{p_\theta(x)}{p(x)} \ge \mathbb{E}_p \left[ \mathrm{ELBO}(q) - \log p(x) "
            r"\right] = -\mathrm{KL}(p(x) \, q(z \mid x) \,\|\, p_\theta(x, z)) \\ \text{gap: } \mathbb{E}_p \, "
            r"\mathrm{KL}(q(z \mid x) \,\|\, p_\theta(z \mid x))"
        ),
    ),
    Row(
        "10",
        "KL(p(x)‖p_θ(x)) ≤ KL(p(x,z)‖p_θ(x,z)), equal at q = p_θ(z|x)",
        "printed with p(z|x) ≈ q in a chain of inequalities; the chain rule is exact for every q",
        "variational.joint_kl_table",
        lambda f: check_joint_kl(f("variational.joint_kl_table"), P, POSTERIOR, DECODER, PRIOR),
        theory_only="sums over tables; models have densities",
        slug="joint-kl",
        latex=(
            r"\mathrm{KL}(p(x) \,\|\, p_\theta(x)) \le \mathrm{KL}(p(x, z) \,\|\, p_\theta(x, z)), \qquad "
            r"\text{equal at } q(z \mid x) = p_\theta(z \mid x)"
        ),
    ),
    Row(
        "11",
        "p_θ(z|x) = p_θ(x|z)q(z)/p_θ(x)",
        "printed with the denominator p(x) for p_θ(x), so that it does not sum to one",
        "variational.linear_gaussian_posterior",
        lambda f: check_linear_gaussian_posterior(f("variational.linear_gaussian_posterior"), X, W, MU, NOISE),
        runs_in=(
            "PPCA.fit",
            "FactorAnalysis.fit",
            "PPCA.elbo",
            "PPCA.encode",
            "FactorAnalysis.elbo",
            "FactorAnalysis.encode",
            "PPCA.load",
            "FactorAnalysis.load",
        ),
        slug="vae-posterior",
        latex=r"p_\theta(z \mid x) = \frac{p_\theta(x \mid z) \, q(z)}{p_\theta(x)}",
    ),
    Row(
        "12",
        "KL(p(x,z)‖p_θ(x,z)) = ∬p(x)q(z|x) log p(x)q(z|x)/(p_θ(x|z)q(z))",
        "",
        "variational.joint_kl_table",
        lambda f: check_joint_kl(f("variational.joint_kl_table"), P, Q, DECODER, PRIOR),
        theory_only="sums over tables; models have densities",
        slug="vae-objective",
        latex=(
            r"\mathrm{KL}(p(x, z) \,\|\, p_\theta(x, z)) = \iint p(x) \, q(z \mid x) \log \frac{p(x) \, q(z "
            r"\mid x)}{p_\theta(x \mid z) \, q(z)} \, dx \, dz"
        ),
    ),
    Row(
        "13",
        "E_p[−E_q log p_θ(x|z) + KL(q(z|x)‖q(z))] = (12) + H(p)",
        "log p(x) changes the value, not the optimal q and θ",
        "vae.vae_loss_table",
        lambda f: check_vae_objective(f("vae.vae_loss_table"), P, Q, DECODER, PRIOR),
        theory_only="an expectation over tables; training uses (14) with one draw of z",
        slug="vae-elbo",
        latex=(
            r"\mathbb{E}_{p(x)} \left[ -\mathbb{E}_{q(z \mid x)} \log p_\theta(x \mid z) + \mathrm{KL}(q(z \mid "
            r"x) \,\|\, q(z)) \right] = \mathrm{KL}(p(x, z) \,\|\, p_\theta(x, z)) + H(p)"
        ),
    ),
    Row(
        "14",
        "E_p E_{z~q}[−log p_θ(x|z)] + E_p KL(q(z|x)‖q(z)); one z is unbiased",
        "printed without z ~ q; Figure 2 has N(μ, σ) for N(μ, σ²), and the reconstruction term without 1/(2s²)",
        "vae.vae_loss_and_gradient",
        vae.loss_and_gradient,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
            "LinearVAE.elbo",
            "VAE.elbo",
            "grade_linear_vae",
        ),
        used_in=("a step of the VAE", "training of the VAE"),
        slug="vae-loss",
        latex=(
            r"\mathbb{E}_{p(x)} \, \mathbb{E}_{z \sim q(z \mid x)} \left[ -\log p_\theta(x \mid z) \right] + "
            r"\mathbb{E}_{p(x)} \, \mathrm{KL}(q(z \mid x) \,\|\, q(z))"
        ),
    ),
    Row(
        "15",
        "p_θ(x|z) = argmax E_p E_q log p_θ(x|z)",
        "printed as log p(x,z), which does not depend on θ",
        "em.m_step_table",
        lambda f: check_free_m_step(f("em.m_step_table"), P, Q, PRIOR),
        runs_in=("CategoricalMixture.fit",),
        used_in=("EM for tables", "the loop of EM"),
        slug="m-step",
        latex=(
            r"p_\theta(x \mid z) = \operatorname*{argmax}_\theta \mathbb{E}_{p(x)} \, \mathbb{E}_{q(z \mid x)} "
            r"\log p_\theta(x \mid z)"
        ),
    ),
    Row(
        "16",
        "p_θ(x) = ∫p_θ(x|z)q(z)dz",
        "the printed “p(x,z) is fixed” means p_θ(x,z)",
        "mixture.Mixture.log_prob",
        lambda f: check_log_prob(lambda x: f("mixture.Mixture.log_prob")(PLANE, x), PLANE, POINTS),
        runs_in=(
            "GaussianMixture.log_prob",
            "grade_bound",
            "grade_kl_bound",
            "grade_noise",
            "grade_vae",
        ),
        fast="fast.em_statistics.expected_statistics",
        used_in=("EM in one pass",),
        slug="model-marginal",
        latex=r"p_\theta(x) = \int p_\theta(x \mid z) \, q(z) \, dz",
    ),
    Row(
        "17",
        "q = argmin E_p[KL(q‖p_θ(z|x)) − log p_θ(x)]",
        "",
        "em.free_energy",
        em.free_energy,
        runs_in=(
            "GaussianMixture.elbo",
            "CategoricalMixture.elbo",
        ),
        used_in=("EM in one pass",),
        slug="free-energy",
        latex=(
            r"q = \operatorname*{argmin}_q \mathbb{E}_{p(x)} \left[ \mathrm{KL}(q(z \mid x) \,\|\, p_\theta(z "
            r"\mid x)) - \log p_\theta(x) \right]"
        ),
    ),
    Row(
        "18",
        "q(z|x) = p_θ(z|x) = p_θ(x|z)q(z)/∫p_θ(x|z)q(z)dz",
        "the line below is printed as an argmax also over the θ of q, without E_p; EM keeps that θ fixed",
        "em.e_step",
        em.e_step,
        runs_in=(
            "GaussianMixture.fit",
            "CategoricalMixture.fit",
            "GaussianMixture.elbo",
            "CategoricalMixture.elbo",
            "GaussianMixture.predict_proba",
            "CategoricalMixture.predict_proba",
        ),
        fast="fast.em_statistics.expected_statistics",
        used_in=("the loop of EM", "EM in one pass"),
        slug="e-step",
        latex=(
            r"q(z \mid x) = p_\theta(z \mid x) = \frac{p_\theta(x \mid z) \, q(z)}{\int p_\theta(x \mid z) \, "
            r"q(z) \, dz}"
        ),
    ),
    Row(
        "19",
        "q = q̃(x₀)Π q(x_t|x_{t−1}),  p_θ = p_θ(x_T)Π p_θ(x_{t−1}|x_t)",
        "the first slide of the chapter has x_t = α_t x_{t−1} + β_t, without ε_t",
        "ddpm.reverse_log_prob",
        ddpm.chains,
        runs_in=("DDPM.iwae",),
        used_in=("importance weighting",),
        slug="chains",
        latex=(
            r"q(x_{0:T}) = \tilde{q}(x_0) \prod_{t=1}^T q(x_t \mid x_{t-1}), \qquad p_\theta(x_{0:T}) = "
            r"p_\theta(x_T) \prod_{t=1}^T p_\theta(x_{t-1} \mid x_t)"
        ),
    ),
    Row(
        "20",
        "KL(q‖p_θ) over x₀,…,x_T = −E ELBO − H(x₀)",
        "printed with p(x₁|x₀) for q(x₁|x₀) in the numerator",
        "ddpm.bound_terms",
        ddpm.bound_terms,
        runs_in=("DDPM.elbo",),
        used_in=("three terms of the bound",),
        slug="chain-kl",
        latex=r"\mathrm{KL}(q(x_{0:T}) \,\|\, p_\theta(x_{0:T})) = -\mathbb{E} \, \mathrm{ELBO} - H(x_0)",
    ),
    Row(
        "21",
        "−E_q[log p_θ(x_T) + Σ log p_θ(x_{t−1}|x_t)] − Σ(D/2) log 2πeβ_t² = −E ELBO",
        "the first “=” drops the entropy of the forward chain, which does not depend on θ",
        "ddpm.negative_elbo",
        ddpm.negative_elbo,
        runs_in=("grade_bound",),
        slug="ddpm-bound",
        latex=(
            r"-\mathbb{E}_q \left[ \log p_\theta(x_T) + \sum_{t=1}^T \log p_\theta(x_{t-1} \mid x_t) \right] - "
            r"\sum_{t=1}^T \frac{D}{2} \log 2 \pi e \beta_t^2 = -\mathbb{E} \, \mathrm{ELBO}"
        ),
    ),
    Row(
        "22",
        "−E_q log p_θ(x_{t−1}|x_t) over x₀,…,x_T",
        "",
        "ddpm.p_log_prob",
        lambda f: ddpm.whole_path(f, 4, 5),
        runs_in=(
            "DDPM.elbo",
            "DDPM.iwae",
        ),
        slug="whole-path",
        latex=(
            r"-\int q(x_T \mid x_{T-1}) \cdots q(x_1 \mid x_0) \, \tilde{q}(x_0) \log p_\theta(x_{t-1} \mid "
            r"x_t) \, dx_0 \cdots dx_T"
        ),
    ),
    Row(
        "23",
        "= the same over x₀,…,x_t",
        "printed p_θ(x_{t−1},x_t) for p_θ(x_{t−1}|x_t); the integral over the states after x_t is 1",
        "ddpm.p_log_prob",
        lambda f: ddpm.whole_path(f, 4, 4),
        runs_in=(
            "DDPM.elbo",
            "DDPM.iwae",
        ),
        slug="later-states",
        latex=(
            r"= -\int q(x_t \mid x_{t-1}) \cdots q(x_1 \mid x_0) \, \tilde{q}(x_0) \log p_\theta(x_{t-1} \mid "
            r"x_t) \, dx_0 \cdots dx_t"
        ),
    ),
    Row(
        "24",
        "= the same over x₀, x_{t−1}, x_t",
        "right for t ≥ 2; at t = 1, q(x₀|x₀) is a point mass",
        "ddpm.p_log_prob",
        ddpm.three_variables,
        runs_in=(
            "DDPM.elbo",
            "DDPM.iwae",
        ),
        slug="three-states",
        latex=(
            r"= -\int q(x_t \mid x_{t-1}) \, q(x_{t-1} \mid x_0) \, \tilde{q}(x_0) \log p_\theta(x_{t-1} \mid "
            r"x_t) \, dx_0 \, dx_{t-1} \, dx_t"
        ),
    ),
    Row(
        "25",
        "q(x_t|x₀) = N(ᾱ_t x₀, β̄_t² I),  ᾱ_t = α₁⋯α_t,  β̄_t = √(1−ᾱ_t²)",
        "right because α² + β² = 1; otherwise β̄² is a sum.  Credited to Ho 2020, but already in Sohl-Dickstein 2015",
        "ddpm.q_sample",
        lambda f: check_forward_process(lambda *a: f("ddpm.q_sample")(SCHEDULE, *a), SCHEDULE),
        runs_in=(
            "DDPM.fit",
            "DDPM.elbo",
            "DDPM.noise_losses",
        ),
        used_in=("a step of Algorithm 1", "Algorithm 1"),
        slug="forward-marginal",
        latex=(
            r"q(x_t \mid x_0) = \mathcal{N}(x_t; \bar{\alpha}_t x_0, \bar{\beta}_t^2 I), \qquad \bar{\alpha}_t "
            r"= \alpha_1 \cdots \alpha_t, \qquad \bar{\beta}_t = \sqrt{1 - \bar{\alpha}_t^2}"
        ),
    ),
    Row(
        "26",
        "(D/2) log 2πσ² + β²/(2α²σ²) E‖ε_t − ε_θ(x_t,t)‖²",
        "printed with twice the factor and without (D/2) log 2πσ²; its ε_θ predicts the noise of one step, (β/β̄)ε̂",
        "ddpm.one_step_loss",
        ddpm.one_step_loss,
        theory_only="the loss before the two noises are merged; training uses (29)",
        slug="one-step-noise",
        latex=(
            r"\frac{D}{2} \log 2 \pi \sigma_t^2 + \frac{\beta_t^2}{2 \alpha_t^2 \sigma_t^2} \, \mathbb{E} \, \| "
            r"\varepsilon_t - \epsilon_\theta(x_t, t) \|^2, \qquad x_t = \bar{\alpha}_t x_0 + \alpha_t "
            r"\bar{\beta}_{t-1} \bar{\varepsilon}_{t-1} + \beta_t \varepsilon_t"
        ),
    ),
    Row(
        "27",
        "ε_t = (β_t ε − α_t β̄_{t−1} ω)/β̄_t,  E[εωᵀ] = 0",
        "right; E[εωᵀ] = 0 means independence because ε and ω are jointly Gaussian",
        "ddpm.split_noise",
        ddpm.noise_merging,
        theory_only="the step between (26) and (28); training uses (29)",
        slug="merging",
        latex=(
            r"\varepsilon_t = \frac{\beta_t \varepsilon - \alpha_t \bar{\beta}_{t-1} \omega}{\bar{\beta}_t}, "
            r"\qquad \mathbb{E} \, \varepsilon \omega^\top = 0"
        ),
    ),
    Row(
        "28",
        "the same in (ε,ω): E‖(β_t ε − α_t β̄_{t−1} ω)/β̄_t − ε_θ(x_t,t)‖²",
        "printed with twice the factor",
        "ddpm.merged_loss",
        ddpm.merged_loss,
        theory_only="the loss before ω is integrated out; training uses (29)",
        slug="merged-loss",
        latex=(
            r"\frac{D}{2} \log 2 \pi \sigma_t^2 + \frac{\beta_t^2}{2 \alpha_t^2 \sigma_t^2} \, "
            r"\mathbb{E}_{\varepsilon, \omega} \left\| \frac{\beta_t \varepsilon - \alpha_t \bar{\beta}_{t-1} "
            r"\omega}{\bar{\beta}_t} - \epsilon_\theta(\bar{\alpha}_t x_0 + \bar{\beta}_t \varepsilon, t) "
            r"\right\|^2"
        ),
    ),
    Row(
        "29",
        "(D/2) log 2πσ² + Dβ̃²/(2σ²) + β⁴/(2β̄²α²σ²) E‖ε − ε̂(x_t,t)‖²",
        "printed with twice the factor, without Dβ̃²/(2σ²), the integral over ω, and with x₀ ~ p̃ for q̃",
        "ddpm.noise_error",
        ddpm.noise_error,
        runs_in=(
            "DDPM.fit",
            "DDPM.noise_losses",
        ),
        used_in=("a step of Algorithm 1", "Algorithm 1"),
        slug="noise-loss",
        latex=(
            r"\frac{D}{2} \log 2 \pi \sigma_t^2 + \frac{D \tilde{\beta}_t^2}{2 \sigma_t^2} + \frac{\beta_t^4}{2 "
            r"\bar{\beta}_t^2 \alpha_t^2 \sigma_t^2} \, \mathbb{E} \, \| \varepsilon - \hat{\varepsilon}(x_t, "
            r"t) \|^2"
        ),
    ),
    Row(
        "30",
        "x_i = √(1−β_i) x_{i−1} + √β_i z_i;  β_i = 1 − exp(−∫β dt) has the SDE's law",
        "its β_i is the β_t² of the earlier slides, and its z_{i−1} is their ε_i",
        "schedule.NoiseSchedule.from_sde",
        lambda f: check_discretisation(f("schedule.NoiseSchedule.from_sde")(SDE, 7).variances, SDE),
        runs_in=("to_ddpm",),
        slug="sde-chain",
        latex=(
            r"x_i = \sqrt{1 - \beta_i} \, x_{i-1} + \sqrt{\beta_i} \, z_i, \qquad \beta_i = 1 - \exp \left( "
            r"-\int_{t_{i-1}}^{t_i} \beta(t) \, dt \right)"
        ),
    ),
    Row(
        "31",
        "dx = −½β(t)x dt + √β(t) dw:  x_t = e^{−B/2}x₀ + √(1−e^{−B}) ε,  B = ∫β",
        "printed without Δt in β_i = β(t_i)Δt; DDPM is a first-order discretisation, not Euler-Maruyama",
        "sde.VP.perturb",
        sde.marginal,
        runs_in=(
            "ScoreSDE.fit",
            "ScoreSDE.elbo",
        ),
        used_in=("a step of (33)", "the continuous bound"),
        slug="forward-sde",
        latex=(
            r"dx = -\frac{1}{2} \beta(t) \, x \, dt + \sqrt{\beta(t)} \, dw \\ x_t = e^{-B(t)/2} x_0 + \sqrt{1 "
            r"- e^{-B(t)}} \, \varepsilon, \qquad B(t) = \int_0^t \beta(s) \, ds"
        ),
    ),
    Row(
        "32",
        "dx = [f − ½(1+λ²)g²∇log p_t]dt + λg dw̄, dt < 0;  λ = 1 as printed, 0 the flow",
        "the slide does not say that time runs backwards.  λ is `stochasticity` in the code",
        "sde.reverse_drift",
        sde.reverse_sde,
        runs_in=(
            "ScoreSDE.sample",
            "ScoreSDE.log_prob",
            "euler_density",
        ),
        used_in=(
            "a step of Euler-Maruyama",
            "Euler-Maruyama on a grid",
            "predictor and corrector",
            "Heun's method",
            "likelihood of the flow",
        ),
        slug="reverse-sde",
        latex=(
            r"dx = \left[ f(x, t) - \frac{1}{2} (1 + \lambda^2) \, g^2(t) \, \nabla \log p_t(x) \right] dt + "
            r"\lambda \, g(t) \, d\bar{w}, \qquad dt < 0"
        ),
    ),
    Row(
        "33",
        "E_t E_{p_t} λ(t)‖∇log p_t − s_θ‖²: denoising, implicit and sliced forms equal it up to constants without θ",
        "printed t ∈ U for t ~ U(0,T); sliced score matching is UAI 2019, not 2020",
        "sde.denoising_error",
        sde.score_matching,
        runs_in=(
            "ScoreSDE.fit",
            "ScoreSDE.elbo",
        ),
        used_in=("a step of (33)", "training on (33)", "the continuous bound"),
        slug="score-matching",
        latex=(
            r"\mathbb{E}_{t \sim U(0, T)} \, \mathbb{E}_{p_t(x)} \left[ \lambda(t) \, \| \nabla \log p_t(x) - "
            r"s_\theta(x, t) \|^2 \right]"
        ),
    ),
    Row(
        "34",
        "KL(p₀‖p_θ) ≤ ½∫g²E‖∇log p_t − s_θ‖²dt + KL(p_T‖π), equal if s_θ = ∇log q_t, π = q_T",
        "p_θ is the distribution of the continuous reverse SDE; false for the flow.  NeurIPS 2021, not ICLR 2021",
        "sde.kl_bound",
        sde.kl_bound,
        runs_in=("grade_kl_bound",),
        slug="sde-bound",
        latex=(
            r"\mathrm{KL}(p_0 \,\|\, p_\theta) \le \frac{1}{2} \int_0^T g^2(t) \, \mathbb{E}_{p_t} \| \nabla "
            r"\log p_t(x) - s_\theta(x, t) \|^2 \, dt + \mathrm{KL}(p_T \,\|\, \pi)"
        ),
    ),
)
