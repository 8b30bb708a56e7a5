"""Rows of propositions beyond the deck: its direct neighbourhood, each with the use that it is good for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.conformance import (
    Check,
    check_conservative_score,
    check_data_processing,
    check_ddim_inversion,
    check_dequantisation,
    check_discrete_bound,
    check_edm_coefficients,
    check_exponential_step,
    check_flow_order,
    check_flow_velocity,
    check_fokker_planck,
    check_iwae_ladder,
    check_kl_parts,
    check_kl_rate,
    check_law_moments,
    check_missing_information,
    check_mixture_step,
    check_mutual_information,
    check_sigma_grid,
    check_tilted_score,
    check_tweedie_covariance,
    check_weak_order,
)
from scratchgen.equations.em import EIGHTEEN
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    JOINT,
    LINE,
    PLANE,
    PRIOR,
    SCHEDULE,
    SDE,
    Functions,
    GivenNoise,
    P,
    Q,
    parameters_of,
)
from scratchgen.equations.row import Row, both
from scratchgen.mixture import Mixture
from scratchgen.sde.processes import VE, SubVP
from scratchgen.validation import Array

ROUND = Mixture([0.4, 0.6], [[-0.8, 0.3], [0.9, -0.4]], np.array([[[0.6, 0.2], [0.2, 0.5]], [[0.7, 0.0], [0.0, 0.6]]]))
OTHER_LINE = Mixture([0.5, 0.5], [[-0.2], [0.9]], [[[0.4]], [[0.25]]])
OTHER_ROUND = Mixture([1.0], [[0.3, 0.1]], [[[0.9, -0.2], [-0.2, 0.8]]])
SPACE = Mixture(
    [0.4, 0.6],
    [[0.0, 1.0, -1.0], [1.0, -0.5, 0.3]],
    np.array([[[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.4]], 0.4 * np.eye(3)]),
)
LEVELS = np.array([SDE.level(0.3), SDE.level(1.0), (0.5, 0.5), (1.0, 2.0)])
EXPLODING = VE(0.1, 0.1 * np.exp(4.2), 1.0)


def straight(t: float) -> tuple[float, float]:
    """The path of flow matching: scale 1 − t and std t."""
    return 1 - t, t


def straight_rates(t: float) -> tuple[float, float, float, float]:
    """scale, std and their derivatives for flow matching."""
    return 1 - t, t, -1.0, 1.0


def turning(t: float) -> tuple[float, float]:
    """The path with scale cos t and std sin t."""
    return float(np.cos(t)), float(np.sin(t))


def turning_rates(t: float) -> tuple[float, float, float, float]:
    """scale, std and their derivatives for scale cos t and std sin t."""
    return float(np.cos(t)), float(np.sin(t)), -float(np.sin(t)), float(np.cos(t))


PATHS = ((straight, straight_rates, np.array([0.1, 0.5, 0.9])), (turning, turning_rates, np.array([0.1, 0.7, 1.4])))


def fokker_planck(f: Functions) -> Check:
    """Reverse processes of two paths with noise λ g, for λ = 0, 0.6, 1 and 1.7, on data in the plane and in space."""
    checks = []
    for (level, rates, times), law in zip(PATHS, (PLANE, SPACE), strict=True):
        for stochasticity in (0.0, 0.6, 1.0, 1.7):

            def coefficients(t: float, rates: Callable[..., tuple[float, ...]] = rates) -> tuple[float, float]:
                rate, diffusion = f("sde.path_coefficients")(*rates(t))
                return float(rate), float(diffusion)

            def drift(
                x: Array,
                t: float,
                law: Mixture = law,
                level: Callable[..., tuple[float, float]] = level,
                c: float = stochasticity,
            ) -> Array:
                rate, diffusion = coefficients(t)
                return rate * x - 0.5 * (1 + c**2) * diffusion**2 * law.diffuse(*level(t)).score(x)

            checks.append(
                check_fokker_planck(drift, lambda t, c=stochasticity: c * coefficients(t)[1], level, law, times)  # type: ignore[misc]
            )
    return both(*checks)


def flow_velocity(f: Functions) -> Check:
    """Flow matching on two paths, on data in the plane and in space."""
    checks = []
    for (level, rates, times), law in zip(PATHS, (PLANE, SPACE), strict=True):

        def velocity(x0: Array, noise: Array, t: float, rates: Callable[..., tuple[float, ...]] = rates) -> Array:
            _, _, scale_rate, std_rate = rates(t)
            out: Array = f("sde.flow_velocity")(x0, noise, scale_rate, std_rate)
            return out

        checks.append(check_flow_velocity(velocity, level, law, times))
    return both(*checks)


def exponential_step(f: Functions) -> Check:
    """DDIM, DPM-Solver++(2M) and their stochastic forms."""
    checks = []
    for stochasticity, multistep in ((0.0, False), (0.0, True), (0.7, True), (1.0, False), (1.0, True)):

        def step(
            x: Array,
            x0_hat: Array,
            x0_last: Array,
            levels: Array,
            noise: Array,
            c: float = stochasticity,
            multistep: bool = multistep,
        ) -> Array:
            before, level, next_level = ((float(a), float(b)) for a, b in levels)
            h_last = float(np.log(level[0] / level[1]) - np.log(before[0] / before[1]))
            last = (x0_last, h_last) if multistep else None
            out: Array = f("sde.exponential_step")(x, x0_hat, level, next_level, c, noise, last)
            return out

        checks.append(check_exponential_step(step, stochasticity, multistep))
    return both(*checks)


def flow_order(f: Functions) -> Check:
    """DDIM has order 1, DPM-Solver++(2M) order 2, along two grids."""

    def sampler(multistep: bool) -> Callable[..., Array]:
        def sample(denoise: Callable[..., Array], x: Array, levels: Array) -> Array:
            *_, (_, out) = f("sde.exponential_sampler")(denoise, x, levels, multistep=multistep)
            return out

        return sample

    def line(u: float) -> tuple[float, float]:
        return 0.02 + 0.93 * u, 0.98 - 0.93 * u

    return both(
        check_flow_order(sampler(True), PLANE, 2.0),
        check_flow_order(sampler(True), LINE, 2.0, line),
        check_flow_order(sampler(False), PLANE, 1.0),
    )


def weak_order(f: Functions) -> Check:
    """Stochastic forms with c = 0.7 and c = 1 on a Gaussian in space."""

    def sampler(stochasticity: float) -> Callable[..., Array]:
        def sample(denoise: Callable[..., Array], x: Array, levels: Array, noise: Array) -> Array:
            *_, (_, out) = f("sde.exponential_sampler")(denoise, x, levels, GivenNoise(noise), stochasticity)
            return out

        return sample

    return both(*(check_weak_order(sampler(c), DATA_MEAN, DATA_COV, 1.0) for c in (0.7, 1.0)))


def mutual_information(f: Functions) -> Check:
    """Two processes with equal ends and a third one, on a line; one in the plane."""
    low, high = SDE.log_snr(np.array([SDE.horizon, 0.15])).tolist()
    end = float(EXPLODING.time_at(low))
    same = VE(0.1, 0.1 * float(np.exp(4.2 * end)), end)
    sdes = [(SDE, 0.15), (same, float(same.time_at(high))), (SubVP(0.3, 4.0, 1.7), 0.3)]
    information = f("sde.mutual_information")
    return both(
        check_mutual_information(lambda sde, loss, t_min: information(sde, loss, t_min), sdes, [LINE, OTHER_LINE]),
        check_mutual_information(lambda sde, loss, t_min: information(sde, loss, t_min), sdes[:1], [ROUND]),
    )


def kl_rate(f: Functions) -> Check:
    """Two pairs of laws, under two processes."""
    sub_vp = SubVP(0.3, 4.0, 1.7)
    return both(
        check_kl_rate(
            lambda t: f("sde.kl_rate")(SDE, LINE, OTHER_LINE, t), SDE, LINE, OTHER_LINE, np.array([0.2, 0.8, 1.5])
        ),
        check_kl_rate(
            lambda t: f("sde.kl_rate")(sub_vp, ROUND, OTHER_ROUND, t), sub_vp, ROUND, OTHER_ROUND, np.array([0.4, 1.4])
        ),
    )


def tweedie_covariance(f: Functions) -> Check:
    """The covariance from the exact score, on a plane and in space."""
    return both(
        *(
            check_tweedie_covariance(
                lambda x, a, b, law=law: f("sde.tweedie_covariance")(law.diffuse(a, b).score, x, a, b),  # type: ignore[misc]
                law,
                LEVELS,
            )
            for law in (PLANE, SPACE)
        )
    )


def conservative_score(f: Functions) -> Check:
    """The score from the exact denoiser, at two levels, on a plane and in space."""
    return both(
        *(
            check_conservative_score(
                lambda x, law=law, a=a, b=b: f("sde.denoiser_to_score")(x, law.denoise(x, a, b), a, b),  # type: ignore[misc]
                law.diffuse(a, b),
            )
            for law in (PLANE, SPACE)
            for a, b in LEVELS[1:].tolist()
        )
    )


def tilted_score(f: Functions) -> Check:
    """A label with two values on a line, and one that is certain in the plane."""
    return both(
        *(
            check_tilted_score(
                lambda x, a, b, w, law=law, label=label: f("sde.tilted_score")(law, label, w, x, a, b),  # type: ignore[misc]
                law,
                label,
                levels,
            )
            for law, label, levels in (
                (LINE, np.array([1.0, 0.2]), LEVELS),
                (ROUND, np.array([0.9, 0.3]), LEVELS[3:]),
            )
        )
    )


def missing_information(f: Functions) -> Check:
    """Means of two components in the plane."""
    return check_missing_information(
        lambda x, *parameters: f("em.missing_fractions")(x, Mixture(*parameters)), EIGHTEEN, *parameters_of(ROUND)
    )


BEYOND: tuple[Row, ...] = (
    Row(
        "Fokker-Planck",
        "∂ₜlog p_t + div d + d·s + ½G²(div s + ‖s‖²) = 0,  d = f x − ½(1+λ²)g²s, G = λg,  f = a′/a, g² = 2b(b′ − f b)",
        "",
        "sde.path_coefficients",
        fokker_planck,
        theory_only="the processes of ScoreSDE define f and g themselves",
        use="Decides for any drift and noise whether a sampler has the right marginals, on data that are not Gaussian",
        latex=(
            r"\partial_t \log p_t + \operatorname{div} d + d \cdot s + \frac{1}{2} G^2 (\operatorname{div} s + "
            r"\| s \|^2) = 0 \\ d = f x - \frac{1}{2} (1 + \lambda^2) g^2 s, \qquad G = \lambda g, \qquad f = "
            r"\frac{a'}{a}, \qquad g^2 = 2 b (b' - f b)"
        ),
    ),
    Row(
        "flow matching",
        "E[a′x₀ + b′ε | x_t] = f x − ½g²∇log p_t for every path x_t = a x₀ + b ε",
        "",
        "sde.flow_velocity",
        flow_velocity,
        theory_only="no model is trained by flow matching",
        use="Finds the sign and the direction of time of a velocity, and carries it over to scores",
        latex=(
            r"\mathbb{E}[a' x_0 + b' \varepsilon \mid x_t] = f x - \frac{1}{2} g^2 \nabla \log p_t(x), \qquad "
            r"\text{for every path } x_t = a x_0 + b \varepsilon"
        ),
    ),
    Row(
        "I-MMSE",
        "I(x₀;x_t) − I(x₀;x_T) = ½∫E‖ε − E[ε|x_t]‖² d(log-SNR), whatever the path in between",
        "",
        "sde.mutual_information",
        mutual_information,
        theory_only="needs the least loss; the models average losses of their networks over drawn times",
        use="Gives the exact value that the diffusion loss of a bound converges to, and shows which schedules differ",
        latex=(
            r"I(x_0; x_t) - I(x_0; x_T) = \frac{1}{2} \int \mathbb{E} \, \| \varepsilon - "
            r"\mathbb{E}[\varepsilon \mid x_t] \|^2 \, d(\text{log-SNR}), \qquad \text{whatever the path in "
            r"between}"
        ),
    ),
    Row(
        "EDM's preconditioning",
        "D = c_skip y + c_out F(c_in y): the regression of x₀ on y = x₀ + σε, with weight 1/c_out²",
        "",
        "sde.edm_coefficients",
        lambda f: both(
            *(check_edm_coefficients(lambda sigma, s=s: f("sde.edm_coefficients")(sigma, s), s) for s in (0.5, 1.3))  # type: ignore[misc]
        ),
        theory_only="networks of the package predict v, which is the case of data of variance 1",
        use="Tells whether a denoiser's network sees inputs and targets of unit variance at every level",
        latex=(
            r"D(y; \sigma) = c_{\text{skip}} \, y + c_{\text{out}} \, F(c_{\text{in}} \, y), \qquad y = x_0 + "
            r"\sigma \varepsilon, \qquad \text{loss weight } \frac{1}{c_{\text{out}}^2}"
        ),
    ),
    Row(
        "EDM's noise levels",
        "σ_i^{1/ρ} is evenly spaced from σ_max to σ_min",
        "",
        "sde.edm_sigmas",
        lambda f: both(check_sigma_grid(f("sde.edm_sigmas")), check_sigma_grid(f("sde.edm_sigmas"), 0.01, 50.0, 3.0)),
        theory_only="ScoreSDE spaces its levels by log-SNR = 2 + 4 sinh v",
        use="Finds reversed grids and steps of 1/n in place of 1/(n−1)",
        latex=(
            r"\sigma_i^{1/\rho} = \sigma_{\max}^{1/\rho} + \frac{i}{n - 1} \left( \sigma_{\min}^{1/\rho} - "
            r"\sigma_{\max}^{1/\rho} \right)"
        ),
    ),
    Row(
        "an exponential step",
        "x_s = (b_s/b_t)e^{−c²h}x − a_s expm1(−(1+c²)h)D + b_s√(1−e^{−2c²h})z,  D = x̂₀ + (h/2h′)(x̂₀ − x̂₀′)",
        "",
        "sde.exponential_step",
        exponential_step,
        runs_in=("DDPM.sample", "ScoreSDE.sample"),
        use="Checks DDIM, DPM-Solver++(2M) and their stochastic forms against the solved SDE, whatever the convention",
        latex=(
            r"x_s = \frac{b_s}{b_t} e^{-c^2 h} x - a_s \operatorname{expm1}(-(1 + c^2) h) \, D + b_s \sqrt{1 - "
            r"e^{-2 c^2 h}} \, z, \qquad D = \hat{x}_0 + \frac{h}{2 h'} (\hat{x}_0 - \hat{x}_0')"
        ),
    ),
    Row(
        "order on the flow",
        "errors of DDIM fall as 1/n, of DPM-Solver++(2M) as 1/n²",
        "",
        "sde.exponential_sampler",
        flow_order,
        runs_in=("DDPM.sample", "ScoreSDE.sample"),
        use="Sees any mistake that costs an order, without knowing the formula of the sampler",
        slug="flow-order",
        latex=(
            r"\text{error of DDIM} = O \left( \frac{1}{n} \right), \qquad \text{error of DPM-Solver++(2M)} = O "
            r"\left( \frac{1}{n^2} \right)"
        ),
    ),
    Row(
        "weak order",
        "mean and covariance of a stochastic sampler converge as 1/n or faster",
        "",
        "sde.exponential_sampler",
        weak_order,
        runs_in=("DDPM.sample", "ScoreSDE.sample"),
        use="Tests the noise of any sampler without a Monte Carlo error",
        latex=(
            r"\text{error of mean and covariance} = O \left( \frac{1}{n} \right) \text{ or less, for } n \text{ "
            r"steps of a stochastic sampler}"
        ),
    ),
    Row(
        "DDIM inversion",
        "x_t = ᾱ_t(x_s − β̄_s ε̂)/ᾱ_s + β̄_t ε̂ inverts DDIM for the same ε̂",
        "",
        "ddpm.ddim_inverse_step",
        lambda f: check_ddim_inversion(lambda *a: f("ddpm.ddim_inverse_step")(SCHEDULE, *a), SCHEDULE),
        theory_only="no model encodes data by inversion",
        use="Separates a wrong inverse step from the error of ε̂ at the wrong end of the step",
        latex=(
            r"x_t = \frac{\bar{\alpha}_t}{\bar{\alpha}_s} (x_s - \bar{\beta}_s \hat{\varepsilon}) + "
            r"\bar{\beta}_t \hat{\varepsilon} \quad \text{inverts DDIM for the same } \hat{\varepsilon}"
        ),
    ),
    Row(
        "the mixture step",
        "p_θ(x_{t−1}|x_t) = Π_d Σ_k P(l_k|x_t) q(x_{t−1,d}|x_t,d, l_k) is exact for independent pixels",
        "",
        "ddpm.mixture_log_prob",
        lambda f: check_mixture_step(lambda *a: f("ddpm.mixture_log_prob")(SCHEDULE, *a), SCHEDULE),
        runs_in=("DDPM.elbo", "DDPM.iwae"),
        use="Shows how much a Gaussian reverse step loses on whole numbers, and where single values have a probability",
        latex=(
            r"p_\theta(x_{t-1} \mid x_t) = \prod_d \sum_k P(l_k \mid x_t) \, q(x_{t-1,d} \mid x_{t,d}, l_k) "
            r"\quad \text{is exact for independent pixels}"
        ),
    ),
    Row(
        "variance from the law",
        "Var(x_{t−1,d}|x_t) = β̃_t² + B_t² Var(x₀_d|x_t),  B_t = ᾱ_{t−1}β_t²/β̄_t²",
        "",
        "ddpm.law_moments",
        lambda f: check_law_moments(lambda *a: f("ddpm.law_moments")(SCHEDULE, *a), SCHEDULE),
        runs_in=("DDPM.elbo", "DDPM.iwae", "DDPM.sample"),
        use="Gives σ² in every dimension from a predicted law, without training or an estimate",
        slug="law-variance",
        latex=(
            r"\operatorname{Var}(x_{t-1,d} \mid x_t) = \tilde{\beta}_t^2 + B_t^2 \operatorname{Var}(x_{0d} \mid "
            r"x_t), \qquad B_t = \frac{\bar{\alpha}_{t-1} \beta_t^2}{\bar{\beta}_t^2}"
        ),
    ),
    Row(
        "a tilt is not guidance",
        "∇log of the diffused p(x)(p(x|y)/p(x))^w ≠ (1−w)∇log p_t(x) + w∇log p_t(x|y), unless w is 0 or 1",
        "",
        "sde.tilted_score",
        tilted_score,
        theory_only="exact for mixtures only; the models guide their networks",
        use="Gives the exact target that guided samples miss, so that a guidance rule can be graded",
        slug="tilt",
        latex=(
            r"\nabla \log \left[ \text{diffused } p(x) \left( \frac{p(x \mid y)}{p(x)} \right)^w \right] \ne (1 "
            r"- w) \nabla \log p_t(x) + w \nabla \log p_t(x \mid y), \qquad \text{unless } w \in \{ 0, 1 \}"
        ),
    ),
    Row(
        "Tweedie's covariance",
        "Cov(x₀|x_t) = (b/a)²(I + b²∇∇ᵀlog p_t)",
        "",
        "sde.tweedie_covariance",
        tweedie_covariance,
        theory_only="the models need the mean of x₀ only",
        use="Checks a second-order denoiser; a matrix that is asymmetric or not positive exposes a wrong score",
        latex=(
            r"\operatorname{Cov}(x_0 \mid x_t) = \left( \frac{b}{a} \right)^2 \left( I + b^2 \nabla \nabla^\top "
            r"\log p_t(x_t) \right)"
        ),
    ),
    Row(
        "a score is a gradient",
        "∂s_d/∂x_e = ∂s_e/∂x_d and E s(x)xᵀ = −I",
        "",
        "sde.denoiser_to_score",
        conservative_score,
        theory_only="networks of the package predict noise, and their score is −ε̂/std",
        use="Examines a score, or a network, without a reference: clipping x̂₀ makes the field no gradient",
        slug="conservative-score",
        latex=(
            r"\frac{\partial s_d}{\partial x_e} = \frac{\partial s_e}{\partial x_d}, \qquad \mathbb{E} \, s(x) "
            r"\, x^\top = -I"
        ),
    ),
    Row(
        "de Bruijn",
        "d/dt KL(p_t‖q_t) = −½g² E‖∇log p_t − ∇log q_t‖²",
        "",
        "sde.kl_rate",
        kl_rate,
        theory_only="needs both laws; the models know samples of one",
        use="Tests an integrand of (34) at one time, where (34) tests the integral",
        latex=(
            r"\frac{d}{dt} \mathrm{KL}(p_t \,\|\, q_t) = -\frac{1}{2} g^2 \, \mathbb{E}_{p_t} \| \nabla \log "
            r"p_t - \nabla \log q_t \|^2"
        ),
    ),
    Row(
        "data processing",
        "KL(p‖p_θ(x₀)) ≤ KL of the paths = bound − H(p), with equality iff q(path|x₀) = p_θ(path|x₀)",
        "",
        "grading.ancestral_density",
        lambda f: check_data_processing(
            lambda eps_hat, table: f("grading.ancestral_density")(SCHEDULE, eps_hat, 1, table)[:2], SCHEDULE
        ),
        runs_in=("ancestral_density",),
        use="Places the exact likelihood of a sampler below its bound, for any network",
        latex=(
            r"\mathrm{KL}(p \,\|\, p_\theta(x_0)) \le \mathrm{KL}(q(x_{0:T}) \,\|\, p_\theta(x_{0:T})) = "
            r"\text{bound} - H(p), \qquad \text{equal iff } q(\text{path} \mid x_0) = p_\theta(\text{path} \mid "
            r"x_0)"
        ),
    ),
    Row(
        "a bound for whole numbers",
        "Σ_x exp(ELBO(x)) ≤ 1 and E_P[−ELBO] ≥ H(P) for any ε̂",
        "",
        "ddpm.exact_elbo",
        lambda f: check_discrete_bound(
            lambda schedule, x0, eps_hat, table, n_levels: f("ddpm.exact_elbo")(schedule, x0, eps_hat, table, n_levels)
        ),
        theory_only="quadrature in two dimensions; DDPM.elbo draws its noise",
        use="Shows that a bound in bits is one: a density in place of a mass breaks it",
        slug="level-bound",
        latex=(
            r"\sum_x \exp(\mathrm{ELBO}(x)) \le 1, \qquad \mathbb{E}_P[-\mathrm{ELBO}] \ge H(P), \qquad "
            r"\text{for any } \hat{\varepsilon}"
        ),
    ),
    Row(
        "dequantisation",
        "log P(k) − E_u log p(k+u) = KL(uniform‖p(u|k)) ≥ 0",
        "",
        "ddpm.dequantisation_cost",
        lambda f: both(
            check_dequantisation(f("ddpm.dequantisation_cost"), np.array([0.4, -2.2]), np.array([1.2, 3.0])),
            check_dequantisation(f("ddpm.dequantisation_cost"), np.array([0.3, 1.6, -0.8]), np.array([0.9, 1.5, 2.0])),
        ),
        theory_only="an integral over cubes; the models add one drawn u",
        use="Says how many nats a model of real numbers loses on whole numbers",
        latex=r"\log P(k) - \mathbb{E}_u \log p(k + u) = \mathrm{KL}(\text{uniform} \,\|\, p(u \mid k)) \ge 0",
    ),
    Row(
        "ELBO surgery",
        "E_p KL(q(z|x)‖p(z)) = I_q(x;z) + KL(q̄(z)‖p(z))",
        "",
        "vae.kl_parts_table",
        lambda f: check_kl_parts(f("vae.kl_parts_table"), P, Q, PRIOR),
        theory_only="sums over tables; q̄ of a VAE is a mixture of as many Gaussians as there are data",
        use="Separates a latent that carries nothing from an aggregate posterior that misses the prior",
        latex=(
            r"\mathbb{E}_p \, \mathrm{KL}(q(z \mid x) \,\|\, p(z)) = I_q(x; z) + \mathrm{KL}(\bar{q}(z) \,\|\, "
            r"p(z))"
        ),
    ),
    Row(
        "IWAE over n",
        "ELBO = L₁ ≤ L₂ ≤ … → log p(x), equal to log p(x) for every n at q = p(z|x)",
        "",
        "vae.iwae_table",
        lambda f: check_iwae_ladder(f("vae.iwae_table"), JOINT, Q),
        theory_only="sums over all tuples; the models draw",
        use="Catches bounds whose exponential has the right mean, such as one that uses the first draw only",
        slug="iwae",
        latex=(
            r"\mathrm{ELBO} = L_1 \le L_2 \le \cdots \to \log p(x), \qquad L_n = \log p(x) \text{ for every } n "
            r"\text{ at } q = p(z \mid x)"
        ),
    ),
    Row(
        "EM's rate",
        "an EM step multiplies the error by I − I_com⁻¹I_obs, in the end by its largest eigenvalue",
        "",
        "em.missing_fractions",
        missing_information,
        theory_only="a diagnosis of a fitted mixture; EM itself does not need it",
        use="Predicts how many iterations EM needs, and tells slow convergence from a wrong step",
        latex=(
            r"\theta_{i+1} - \theta^* \approx \left( I - I_{\text{com}}^{-1} I_{\text{obs}} \right) (\theta_i - "
            r"\theta^*)"
        ),
    ),
)
