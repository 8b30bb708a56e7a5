"""Rows of running code: the loops that train and sample, networks, the optimiser, and fast forms."""

from __future__ import annotations

from scratchgen.equations import ddpm, em, nn, sde, vae
from scratchgen.equations.row import Row

RUNNING: tuple[Row, ...] = (
    Row(
        "a draw of the VAE",
        "z = μ + σξ, ξ ~ N(0, I)",
        "Figure 2 prints N(μ, σ)",
        "vae.reparameterise",
        vae.reparameterise,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
            "LinearVAE.elbo",
            "VAE.elbo",
            "VAE.iwae",
            "LinearVAE.iwae",
            "grade_linear_vae",
        ),
        slug="vae-draw",
        latex=r"z = \mu + \sigma \xi, \qquad \xi \sim \mathcal{N}(0, I)",
    ),
    Row(
        "a step of the VAE",
        "∇ of (14) through z = μ + σξ, by hand",
        "",
        "vae.train_step",
        vae.train_step,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
        ),
        slug="vae-step",
        latex=(
            r"\nabla_{\theta, \phi} \frac{1}{N} \sum_n \left[ -\log p_\theta(x_n \mid \mu_n + \sigma_n \xi_n) + "
            r"\mathrm{KL}(\mathcal{N}(\mu_n, \sigma_n^2) \,\|\, \mathcal{N}(0, I)) \right]"
        ),
    ),
    Row(
        "training of the VAE",
        "Adam on (14); the learning rate falls along half a cosine",
        "",
        "vae.train",
        vae.train,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
        ),
        slug="vae-training",
        latex=(
            r"(\theta, \phi) \leftarrow \text{Adam step on (14)}, \qquad \text{the learning rate falls along "
            r"half a cosine}"
        ),
    ),
    Row(
        "the loop of EM",
        "(18) and (15) in turn; E_p log p_θ(x) after every (18)",
        "",
        "em.em",
        em.em_loop,
        runs_in=(
            "GaussianMixture.fit",
            "CategoricalMixture.fit",
            "PPCA.fit",
            "FactorAnalysis.fit",
        ),
        slug="em-loop",
        latex=(
            r"q \leftarrow p_\theta(z \mid x), \qquad \theta \leftarrow \operatorname*{argmax}_\theta "
            r"\mathbb{E}_p \, \mathbb{E}_q \log p_\theta(x, z), \qquad \text{in turn}"
        ),
    ),
    Row(
        "statistics for EM",
        "N_k, m_k and S_k under q(k|x); the statistics of two parts of the data add up",
        "",
        "em.sufficient_statistics",
        em.sufficient_statistics,
        fast="fast.em_statistics.expected_statistics",
        runs_in=("GaussianMixture.fit",),
        slug="em-statistics",
        latex=(
            r"N_k = \sum_n q(k \mid x_n), \qquad N_k m_k = \sum_n q(k \mid x_n) \, x_n, \qquad N_k S_k = \sum_n "
            r"q(k \mid x_n) (x_n - m_k)(x_n - m_k)^\top"
        ),
    ),
    Row(
        "EM in one pass",
        "N_k, m_k, S_k and mean log p_θ(x) at q = p_θ(k|x); equal to e_step, then sufficient_statistics",
        "",
        "fast.em_statistics.expected_statistics",
        em.statistics_in_one_pass,
        runs_in=("GaussianMixture.fit",),
        latex=(
            r"(N_k, m_k, S_k) \text{ and } \frac{1}{N} \sum_n \log p_\theta(x_n) \quad \text{at } q = "
            r"p_\theta(k \mid x), \text{ in one pass over blocks of rows}"
        ),
    ),
    Row(
        "missing values",
        "x_b is latent as z is: N_k, m_k and S_k under q(k, x_b) = p_θ(k, x_b|x_a)",
        "",
        "em.statistics_with_missing",
        em.statistics_with_missing,
        runs_in=("GaussianMixture.fit",),
        latex=(
            r"N_k, m_k, S_k \quad \text{under } q(k, x_b) = p_\theta(k, x_b \mid x_a), \qquad x_b \text{ "
            r"missing, } x_a \text{ observed}"
        ),
    ),
    Row(
        "missing values of PPCA",
        "E[x_b|x_a] = W_b m + μ_b,  Cov(x_b|x_a) = W_b V W_bᵀ + Ψ_b, with m and V of (11)",
        "",
        "em.complete_rows",
        em.complete_rows,
        runs_in=("PPCA.fit",),
        slug="ppca-missing-values",
        latex=(
            r"\mathbb{E}[x_b \mid x_a] = W_b m + \mu_b, \qquad \operatorname{Cov}(x_b \mid x_a) = W_b V "
            r"W_b^\top + \Psi_b"
        ),
    ),
    Row(
        "EM for tables",
        "P_cd(l) = (Σ_n q(c|x_n)[x_nd = l] + pseudo-counts)/(sum over l)",
        "",
        "em.categorical_m_step_from_statistics",
        em.table_em,
        runs_in=("CategoricalMixture.fit",),
        latex=(
            r"P_{cd}(l) = \frac{\sum_n q(c \mid x_n) \, [x_{nd} = l] + \text{pseudo-count}}{\sum_{l'} \left( "
            r"\sum_n q(c \mid x_n) \, [x_{nd} = l'] + \text{pseudo-count} \right)}"
        ),
    ),
    Row(
        "EM for factor analysis",
        "W′ = Sβᵀ(I − βW + βSβᵀ)⁻¹,  Ψ′ = diag(S − W′βS)",
        "",
        "em.factor_analysis_em_step",
        em.factor_analysis_step,
        runs_in=("FactorAnalysis.fit", "PPCA.fit"),
        slug="factor-analysis",
        latex=(
            r"W' = S \beta^\top (I - \beta W + \beta S \beta^\top)^{-1}, \qquad \Psi' = \operatorname{diag}(S - "
            r"W' \beta S), \qquad \beta = W^\top (W W^\top + \Psi)^{-1}"
        ),
    ),
    Row(
        "covariances by type",
        "S_k plus prior, restricted to full, tied, diag or spherical; eigenvalues raised to the floor",
        "",
        "em.covariance_maximum",
        em.covariance_types,
        runs_in=("GaussianMixture.fit",),
        slug="covariance-types",
        latex=(
            r"S_k + \text{prior, restricted to full, tied, diagonal or spherical; eigenvalues raised to the "
            r"floor}"
        ),
    ),
    Row(
        "k-means",
        "every point joins the nearest centre, every centre moves to the mean of its points",
        "",
        "em.kmeans",
        em.kmeans,
        runs_in=(
            "GaussianMixture.fit",
            "CategoricalMixture.fit",
        ),
        latex=(
            r"k(n) = \operatorname*{argmin}_k \| x_n - c_k \|^2, \qquad c_k = \text{mean of } \{ x_n : k(n) = k "
            r"\}"
        ),
    ),
    Row(
        "three terms of the bound",
        "L_T = KL to the prior, L_{t−1} = KL of a step, L_0 = −log p_θ(x₀|x₁)",
        "",
        "ddpm.step_loss",
        ddpm.three_terms,
        runs_in=("DDPM.elbo",),
        slug="bound-terms",
        latex=(
            r"L_T = \mathrm{KL}(q(x_T \mid x_0) \,\|\, p(x_T)), \qquad L_{t-1} = \mathrm{KL}(q(x_{t-1} \mid "
            r"x_t, x_0) \,\|\, p_\theta(x_{t-1} \mid x_t)), \qquad L_0 = -\log p_\theta(x_0 \mid x_1)"
        ),
    ),
    Row(
        "L₀ of whole numbers",
        "−log P(x₀|x₁), where P is the mass of the bin of x₀, not a density",
        "",
        "ddpm.reconstruction_loss",
        ddpm.bins,
        runs_in=("DDPM.elbo", "DDPM.iwae"),
        slug="l0",
        latex=(
            r"L_0 = -\log P(x_0 \mid x_1), \qquad P \text{ is the mass of the bin of } x_0, \text{ not a "
            r"density}"
        ),
    ),
    Row(
        "weights of the loss",
        "λ_t of ‖ε − ε̂‖²: 1, 1/SNR, 1/ᾱ², min(SNR, 5)/SNR, or the weight of the bound",
        "λ_t = 1 (Ho 2020) is not the weight of the bound",
        "ddpm.loss_weight",
        ddpm.loss_weights,
        runs_in=("DDPM.fit",),
        slug="loss-weights",
        latex=(
            r"\lambda_t \in \left\{ 1, \; T w_t, \; \frac{1}{\mathrm{SNR}_t}, \; \frac{1}{\bar{\alpha}_t^2}, \; "
            r"\frac{\min(\mathrm{SNR}_t, 5)}{\mathrm{SNR}_t} \right\}, \qquad w_t = \frac{\beta_t^4}{2 "
            r"\bar{\beta}_t^2 \alpha_t^2 \sigma_t^2}"
        ),
    ),
    Row(
        "a step of Algorithm 1",
        "∇_θ (1/N)Σ λ‖ε − ε̂_θ(ᾱ_t x₀ + β̄_t ε, t)‖²",
        "",
        "ddpm.train_step",
        ddpm.train_step,
        runs_in=("DDPM.fit",),
        slug="algorithm-1-step",
        latex=(
            r"\nabla_\theta \frac{1}{N} \sum_n \lambda_{t_n} \| \varepsilon_n - "
            r"\hat{\varepsilon}_\theta(\bar{\alpha}_{t_n} x_{0n} + \bar{\beta}_{t_n} \varepsilon_n, t_n) \|^2"
        ),
    ),
    Row(
        "Algorithm 1",
        "the training loop of Ho 2020: batches, label dropout, Adam, moving average",
        "",
        "ddpm.train",
        ddpm.train,
        runs_in=("DDPM.fit",),
        latex=(
            r"\theta \leftarrow \text{Adam step on } \frac{1}{N} \sum_n \lambda_{t_n} \| \varepsilon_n - "
            r"\hat{\varepsilon}_\theta \|^2, \qquad \text{average} \leftarrow \text{moving average of } \theta"
        ),
    ),
    Row(
        "draws of t",
        "E[weight · f(t)] = Σ_t f(t)/T, for every choice of t",
        "",
        "timestep_sampling.TimestepSampler.draw",
        ddpm.step_draws,
        runs_in=(
            "DDPM.fit",
            "ScoreSDE.fit",
        ),
        slug="step-draws",
        latex=(
            r"\mathbb{E}[\text{weight} \cdot f(t)] = \frac{1}{T} \sum_{t=1}^T f(t), \qquad \text{for every "
            r"choice of } t"
        ),
    ),
    Row(
        "predicted noise",
        "ε̂(x_t) + w(ε̂(x_t,y) − ε̂(x_t)) from ε, x₀, v or ε of one step; x̂₀ clipped to [−1, 1]",
        "",
        "ddpm.predict_noise",
        ddpm.predict_noise,
        runs_in=(
            "DDPM.fit",
            "DDPM.elbo",
            "DDPM.noise_losses",
            "DDPM.sample",
            "DDPM.iwae",
        ),
        latex=(
            r"\hat{\varepsilon}_w = \hat{\varepsilon}(x_t) + w \left( \hat{\varepsilon}(x_t, y) - "
            r"\hat{\varepsilon}(x_t) \right)"
        ),
    ),
    Row(
        "DDIM as a loop",
        "x_T, …, x₀ by DDIM's steps, with ε̂ at the start of every step",
        "",
        "ddpm.ddim_sampler",
        ddpm.ddim_sampler,
        runs_in=("DDPM.sample",),
        slug="ddim-loop",
        latex=(
            r"x_T, \dots, x_0 \text{ by DDIM's steps, with } \hat{\varepsilon} \text{ at the start of every "
            r"step}"
        ),
    ),
    Row(
        "a draw of the mixture step",
        "x_{t−1} = A_t x_t + B_t l_k + β̃_t z, k ~ P(k|x_t) in every dimension",
        "",
        "ddpm.mixture_step",
        ddpm.mixture_draws,
        runs_in=("DDPM.sample",),
        slug="mixture-draw",
        latex=(
            r"x_{t-1} = A_t x_t + B_t l_k + \tilde{\beta}_t z, \qquad k \sim P(k \mid x_t) \text{ in every "
            r"dimension}"
        ),
    ),
    Row(
        "a step of (33)",
        "∇_θ (1/N)Σ λ‖s_θ(x_t,t) + ε/std‖²",
        "",
        "sde.score_step",
        sde.score_step,
        runs_in=("ScoreSDE.fit",),
        slug="score-step",
        latex=(
            r"\nabla_\theta \frac{1}{N} \sum_n \lambda(t_n) \left\| s_\theta(x_{t_n}, t_n) + "
            r"\frac{\varepsilon_n}{\mathrm{std}(t_n)} \right\|^2"
        ),
    ),
    Row(
        "a sliced step of (33)",
        "∇_θ (1/N)Σ λ[(v·s_θ)² + 2v·(∇s_θ)v]",
        "",
        "sde.sliced_step",
        sde.sliced_step,
        runs_in=("ScoreSDE.fit",),
        slug="sliced-step",
        latex=(
            r"\nabla_\theta \frac{1}{N} \sum_n \lambda(t_n) \left[ (v_n^\top s_\theta)^2 + 2 \, v_n^\top "
            r"(\nabla s_\theta) \, v_n \right]"
        ),
    ),
    Row(
        "training on (33)",
        "batches, times, Adam and moving average, for each form of (33)",
        "",
        "sde.train",
        sde.train,
        runs_in=("ScoreSDE.fit",),
        slug="score-training",
        latex=(
            r"\theta \leftarrow \text{Adam step on (33)}, \qquad \text{average} \leftarrow \text{moving average "
            r"of } \theta"
        ),
    ),
    Row(
        "draws of training times",
        "E[weight · f(t)] = E f(t) for t uniform in log-SNR or in time, for every choice of t",
        "",
        "sde.TimeSampler.draw",
        sde.time_draws,
        runs_in=("ScoreSDE.fit",),
        slug="time-draws",
        latex=(
            r"\mathbb{E}[\text{weight} \cdot f(t)] = \mathbb{E} f(t), \qquad t \text{ uniform in log-SNR or in "
            r"time, for every choice of } t"
        ),
    ),
    Row(
        "score of a network",
        "s_θ = −ε̂/std, div s_θ by D backward passes or as a mean over probes",
        "",
        "sde.score_and_divergence",
        sde.score_and_divergence,
        runs_in=("ScoreSDE.log_prob",),
        slug="network-score",
        latex=(
            r"s_\theta(x, t) = -\frac{\hat{\varepsilon}(x, t)}{\mathrm{std}(t)}, \qquad \operatorname{div} "
            r"s_\theta = \mathbb{E}_v \, v^\top (\nabla s_\theta) \, v"
        ),
    ),
    Row(
        "the continuous bound",
        "−log p_θ ≤ KL(q(x_T|x₀)‖π) + ½∫E‖ε − ε̂‖² d(log-SNR) − E log p(x₀|x_{t_min})",
        "",
        "sde.diffusion_loss",
        sde.continuous_bound,
        runs_in=("ScoreSDE.elbo",),
        latex=(
            r"-\log p_\theta(x_0) \le \mathrm{KL}(q(x_T \mid x_0) \,\|\, \pi) + \frac{1}{2} \int \mathbb{E} \, "
            r"\| \varepsilon - \hat{\varepsilon} \|^2 \, d(\text{log-SNR}) - \mathbb{E} \log p(x_0 \mid "
            r"x_{t_{\min}})"
        ),
    ),
    Row(
        "a Langevin step",
        "x′ = x + δ∇log p(x) + √(2δ) z",
        "",
        "sde.langevin_step",
        sde.langevin_step,
        runs_in=("ScoreSDE.sample",),
        latex=r"x' = x + \delta \, \nabla \log p(x) + \sqrt{2 \delta} \, z",
    ),
    Row(
        "predictor and corrector",
        "Euler-Maruyama, with Langevin steps after every step",
        "",
        "sde.euler_maruyama",
        sde.predictor_corrector,
        runs_in=("ScoreSDE.sample",),
        slug="predictor-corrector",
        latex=r"\text{a step of Euler-Maruyama, then Langevin steps at the new time, in turn}",
    ),
    Row(
        "Heun's method",
        "x_s = x_t + ½(s − t)(slope at t + slope at the end of Euler's step)",
        "",
        "sde.heun",
        sde.heun,
        runs_in=("ScoreSDE.sample",),
        slug="heun",
        latex=(
            r"x_s = x_t + \frac{1}{2} (s - t) \left( d(x_t, t) + d(\tilde{x}_s, s) \right), \qquad \tilde{x}_s "
            r"= x_t + (s - t) \, d(x_t, t)"
        ),
    ),
    Row(
        "MLP",
        "h ← σ(hW + b), layer by layer",
        "",
        "nn.MLP.__call__",
        nn.mlp,
        runs_in=(
            "DDPM.fit",
            "VAE.encode",
            "VAE.reconstruct",
            "LinearVAE.elbo",
            "LinearVAE.encode",
            "LinearVAE.reconstruct",
            "VAE.elbo",
            "VAE.iwae",
            "LinearVAE.iwae",
            "DDPM.elbo",
            "DDPM.noise_losses",
            "ScoreSDE.elbo",
            "VAE.sample",
            "LinearVAE.sample",
            "DDPM.sample",
            "DDPM.iwae",
            "ScoreSDE.sample",
            "grade_linear_vae",
            "grade_vae",
            "gaussian_gap",
        ),
        latex=r"h_{l+1} = \sigma(h_l W_l + b_l), \qquad \text{layer by layer}",
    ),
    Row(
        "backward pass of the MLP",
        "the derivative with respect to every parameter and input",
        "",
        "nn.MLP.vjp",
        nn.mlp_vjp,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
            "DDPM.fit",
            "ScoreSDE.fit",
            "ScoreSDE.log_prob",
        ),
        slug="mlp-backward",
        latex=(
            r"v^\top \frac{\partial y}{\partial W_l}, \quad v^\top \frac{\partial y}{\partial b_l}, \quad "
            r"v^\top \frac{\partial y}{\partial x}"
        ),
    ),
    Row(
        "forward derivative of the MLP",
        "y and ∂y/∂x · v, and the derivative of both with respect to every parameter",
        "",
        "nn.MLP.jvp",
        nn.mlp_jvp,
        runs_in=("ScoreSDE.fit",),
        slug="mlp-derivative",
        latex=(
            r"y, \quad \frac{\partial y}{\partial x} v, \quad \text{and the derivatives of both with respect to "
            r"every parameter}"
        ),
    ),
    Row(
        "SiLU",
        "z/(1 + e⁻ᶻ) and its derivative",
        "",
        "nn.activations.silu",
        nn.plain_silu,
        fast="fast.silu.silu_and_slope",
        latex=r"\operatorname{silu}(z) = \frac{z}{1 + e^{-z}} \text{ and its derivative}",
    ),
    Row(
        "SiLU in place",
        "in place, by tanh or exp; equal to silu",
        "",
        "fast.silu.silu_and_slope",
        nn.silu,
        runs_in=(
            "VAE.fit",
            "DDPM.fit",
            "ScoreSDE.fit",
            "ScoreSDE.log_prob",
        ),
        latex=r"\operatorname{silu}(z) = \frac{z}{2} \left( 1 + \tanh \frac{z}{2} \right)",
    ),
    Row(
        "noise network",
        "ε̂ = skip x_t + gain F(x_t/r, waves of log-SNR, label)",
        "",
        "nn.NoiseNetwork.__call__",
        nn.noise_network,
        runs_in=(
            "DDPM.fit",
            "DDPM.elbo",
            "DDPM.noise_losses",
            "ScoreSDE.elbo",
            "DDPM.sample",
            "DDPM.iwae",
            "ScoreSDE.sample",
        ),
        latex=(
            r"\hat{\varepsilon}(x_t, t) = \text{skip} \cdot x_t + \text{gain} \cdot F(x_t / r, \text{ waves of "
            r"log-SNR, label})"
        ),
    ),
    Row(
        "backward pass of the noise network",
        "the derivative with respect to every parameter and x_t",
        "",
        "nn.NoiseNetwork.vjp",
        nn.noise_network_vjp,
        runs_in=(
            "DDPM.fit",
            "ScoreSDE.fit",
            "ScoreSDE.log_prob",
        ),
        slug="noise-network-backward",
        latex=(
            r"v^\top \frac{\partial \hat{\varepsilon}}{\partial \theta}, \quad v^\top \frac{\partial "
            r"\hat{\varepsilon}}{\partial x_t}"
        ),
    ),
    Row(
        "forward derivative of the noise network",
        "ε̂ and ∂ε̂/∂x · v, and the derivative of both with respect to every parameter",
        "",
        "nn.NoiseNetwork.jvp",
        nn.noise_network_jvp,
        runs_in=("ScoreSDE.fit",),
        slug="noise-network-derivative",
        latex=(
            r"\hat{\varepsilon}, \quad \frac{\partial \hat{\varepsilon}}{\partial x_t} v, \quad \text{and the "
            r"derivatives of both with respect to every parameter}"
        ),
    ),
    Row(
        "denoiser of whole numbers",
        "P(k|x_t) ∝ h_k N(x_t; scale l_k, std²) exp(F·B_k); ε̂ from the mean of P",
        "",
        "nn.CategoricalDenoiser.law",
        nn.categorical_denoiser,
        runs_in=(
            "DDPM.elbo",
            "DDPM.noise_losses",
            "ScoreSDE.elbo",
            "DDPM.sample",
            "DDPM.iwae",
            "ScoreSDE.sample",
        ),
        slug="level-denoiser",
        latex=(
            r"P(k \mid x_t) \propto h_k \, \mathcal{N}(x_t; \mathrm{scale} \, l_k, \mathrm{std}^2) \exp(F \cdot "
            r"B_k), \qquad \hat{\varepsilon} = \frac{x_t - \mathrm{scale} \sum_k P(k \mid x_t) \, "
            r"l_k}{\mathrm{std}}"
        ),
    ),
    Row(
        "mass of whole numbers",
        "log P(x₀|x_t), summed over dimensions",
        "",
        "nn.CategoricalDenoiser.log_mass",
        nn.categorical_mass,
        runs_in=(
            "DDPM.elbo",
            "ScoreSDE.elbo",
            "DDPM.iwae",
        ),
        slug="level-mass",
        latex=r"\log P(x_0 \mid x_t) = \sum_d \log P(x_{0d} \mid x_t)",
    ),
    Row(
        "draws of whole numbers",
        "levels drawn from P(k|x_t)",
        "",
        "nn.CategoricalDenoiser.draw",
        nn.categorical_draw,
        runs_in=(
            "DDPM.sample",
            "ScoreSDE.sample",
        ),
        slug="level-draws",
        latex=r"k_d \sim P(k \mid x_t), \qquad \text{in every dimension } d",
    ),
    Row(
        "backward pass of the denoiser",
        "the derivative of ε̂ with respect to every parameter and x_t",
        "",
        "nn.CategoricalDenoiser.vjp",
        nn.categorical_vjp,
        runs_in=(
            "DDPM.fit",
            "ScoreSDE.fit",
        ),
        slug="level-denoiser-backward",
        latex=(
            r"v^\top \frac{\partial \hat{\varepsilon}}{\partial \theta}, \quad v^\top \frac{\partial "
            r"\hat{\varepsilon}}{\partial x_t}"
        ),
    ),
    Row(
        "Adam",
        "the algorithm of Kingma and Ba, with decoupled weight decay",
        "",
        "nn.Adam",
        nn.adam,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
            "DDPM.fit",
            "ScoreSDE.fit",
        ),
        latex=(
            r"m \leftarrow b_1 m + (1 - b_1) g, \qquad v \leftarrow b_2 v + (1 - b_2) g^2, \qquad \theta "
            r"\leftarrow \theta - \text{rate} \left( \frac{\hat{m}}{\sqrt{\hat{v}} + \epsilon} + \text{decay} "
            r"\cdot \theta \right)"
        ),
    ),
    Row(
        "moving average",
        "average ← decay · average + (1 − decay) θ, with a smaller decay in the first steps",
        "",
        "nn.EMA",
        nn.moving_average,
        runs_in=(
            "DDPM.fit",
            "ScoreSDE.fit",
        ),
        latex=(
            r"\text{average} \leftarrow \text{decay} \cdot \text{average} + (1 - \text{decay}) \, \theta, "
            r"\qquad \text{with a smaller decay in the first steps}"
        ),
    ),
    Row(
        "learning rate",
        "a linear rise, then half a cosine down to 0",
        "",
        "nn.cosine_decay",
        nn.learning_rate,
        runs_in=(
            "VAE.fit",
            "LinearVAE.fit",
            "DDPM.fit",
            "ScoreSDE.fit",
        ),
        latex=(
            r"\text{rate}(s) = \text{a linear rise, then } \frac{\text{rate}}{2} \left( 1 + \cos \frac{\pi "
            r"s}{S} \right)"
        ),
    ),
)
