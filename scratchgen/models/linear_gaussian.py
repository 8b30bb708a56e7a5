"""PPCA and FactorAnalysis: constructor arguments and files around EM and the closed form of Tipping and Bishop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scratchgen.blocks import blocks, by_blocks
from scratchgen.em import (
    by_pattern,
    complete_rows,
    em,
    factor_analysis_em_step,
    fill_with_means,
    ppca_em_step,
    ppca_maximum,
    sample_moments,
)
from scratchgen.models.estimator import Progress, WeightedEstimator, copied, framed
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.mixture_model import check_bounds, warn_unless_converged
from scratchgen.models.training_state import TrainingState, checksum
from scratchgen.quadrature import sigma_points
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    as_choice,
    as_count,
    as_generator,
    as_number,
    as_samples,
    check_positive,
    check_spread,
    check_varies,
    has_missing,
    weighted_rows,
)
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior

Noise = float | Array  # σ² or Ψ (D,)
Parameters = tuple[Array, Array, Noise]  # W (D, k), μ (D,) and the noise variance
Moments = tuple[Array, Array, float]  # mean and covariance of completed rows, and mean entropy of the missing values


@dataclass
class CompleteData:
    """The two steps of EM for x, (N, D), with weights (N,).

    `step` maps (S, W, Ψ) to the next (W, Ψ), (15).  Its averages under q depend on x only through the mean and the
    sample covariance S, as does the mean ELBO, a quadratic function of x.  `points` are 2D points with the same mean
    and covariance, so that a step takes the same time for any N.  They come from a triangular R with S = RᵀR; S itself
    has lost the digits of a noise that is small beside W.
    """

    x: Array
    weights: Array
    step: Callable[[Array, Array, Noise], tuple[Array, Noise]]

    def __post_init__(self) -> None:
        self.mean, self.covariance = sample_moments(self.x, self.weights)
        R = root_of_covariance(self.x, self.weights, self.mean)
        self.points = self.mean + sigma_points(len(R)) @ R

    def e_step(self, theta: Parameters) -> tuple[tuple[Array, Array], float]:
        """The posterior q = p_θ(z | x), (11), (18), and its mean ELBO, which is the mean of log p_θ(x)."""
        q = linear_gaussian_posterior(self.points, *theta)
        return q, self.elbo(theta, q)

    def elbo(self, theta: Parameters, q: tuple[Array, Array]) -> float:
        """The mean ELBO, (8), nats."""
        return float(linear_gaussian_elbo(self.points, *theta, *q).mean())

    def m_step(self, q: tuple[Array, Array], theta: Parameters) -> Parameters:
        """The next θ, (15)."""
        W, noise_variance = self.step(self.covariance, theta[0], theta[2])
        return W, self.mean, noise_variance


@dataclass
class IncompleteData:
    """The two steps of EM for x, (N, D), with NaN for missing values x_b; arguments as for `CompleteData`.

    The latent variable is x_b: q = p_θ(x_b | x_a) enters by the mean and the covariance of completed rows, which change
    from step to step.
    """

    x: Array
    weights: Array
    step: Callable[[Array, Array, Noise], tuple[Array, Noise]]

    def e_step(self, theta: Parameters) -> tuple[Moments, float]:
        """Moments of completed rows under q = p_θ(x_b | x_a), (18), and the mean of log p_θ(x_a)."""
        rows, spread, elbo = complete_rows(self.x, *theta, self.weights)
        mean = np.average(rows, axis=0, weights=self.weights)
        covariance = sample_moments(rows, self.weights)[1] + spread
        log_likelihood = float(np.average(elbo, weights=self.weights))
        entropy = log_likelihood - expected_log_prob(mean, covariance, theta)  # from (8), in which the KL is 0
        return (mean, covariance, entropy), log_likelihood

    def elbo(self, theta: Parameters, q: Moments) -> float:
        """The mean ELBO, (8), nats: E_q log p_θ(x) and the entropy of q."""
        mean, covariance, entropy = q
        return expected_log_prob(mean, covariance, theta) + entropy

    def m_step(self, q: Moments, theta: Parameters) -> Parameters:
        """The next θ, (15)."""
        mean, covariance, _ = q
        W, noise_variance = self.step(covariance, theta[0], theta[2])
        return W, mean, noise_variance


def root_of_covariance(x: Array, weights: Array, mean: Array) -> Array:
    """Triangular R, (D, D) or (N, D) if N < D, with RᵀR the sample covariance of x, (N, D), from blocks of rows."""
    R: Array = np.empty((0, x.shape[1]))
    total = weights.sum()
    for rows in blocks(len(x), x.shape[1], least=2 * x.shape[1]):
        centred = (x[rows] - mean) * np.sqrt(weights[rows] / total)[:, None]
        R = np.asarray(np.linalg.qr(np.concatenate([R, centred]), mode="r"))
    return R


def expected_log_prob(mean: Array, covariance: Array, theta: Parameters) -> float:
    """E log p_θ(x) over a law with this mean and covariance, nats; sigma points are exact for quadratic functions."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return float(linear_gaussian_log_prob(mean + sigma_points(len(mean)) @ root.T, *theta).mean())


class LinearGaussianModel(WeightedEstimator):
    """Base of PPCA, with noise σ² I, and FactorAnalysis, with noise diag Ψ."""

    _fitted: ClassVar[tuple[str, ...]] = (
        "components_",
        "mean_",
        "noise_variance_",
        "lower_bounds_",
        "free_energies_",
        "converged_",
        "n_iter_",
    )
    components_: Array
    mean_: Array
    noise_variance_: float | Array
    lower_bounds_: Array
    free_energies_: Array
    converged_: bool
    n_iter_: int
    n_components: int
    tol: float
    max_iter: int

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_count(self.n_components, "n_components")
        as_number(self.tol, "tol", low=0.0)
        as_count(self.max_iter, "max_iter")

    def _forms(self, n_features: int) -> dict[str, Form]:
        floats = {
            "components_": (n_features, self.n_components),
            "mean_": (n_features,),
            "noise_variance_": (),
            "lower_bounds_": (None,),
            "free_energies_": (None,),
        }
        forms = {name: Form(FLOAT64, shape) for name, shape in floats.items()}
        return {**forms, "converged_": Form(("bool",), ()), "n_iter_": Form(("int64",), ())}

    def _check_fitted(self, **fitted: Any) -> None:
        check_law(fitted, fitted["mean_"])
        check_bounds(**fitted)
        energies, n_iter = fitted["free_energies_"], fitted["n_iter_"]
        if len(energies) != 2 * n_iter + 1 or not np.array_equal(energies[::2], fitted["lower_bounds_"]):
            raise ValueError(f"free_energies_ must be {2 * n_iter + 1} numbers, every second one of lower_bounds_")

    def _as_weighted(self, x: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Array, Array]:
        """Return the rows with a positive weight and their weights; ValueError if there are fewer than two rows."""
        x, weights = weighted_rows(as_samples(x, n_min=2, missing=self._takes_missing), sample_weight)
        if len(x) < 2:
            raise ValueError("sample_weight must be positive for at least 2 rows of x, got 1; pass more data")
        return x, weights

    def _run_em(
        self,
        data: CompleteData | IncompleteData,
        names: tuple[str, ...] | None,
        start: Callable[[np.random.Generator], Parameters],
        resume: bool,
        max_iter: int,
    ) -> Iterator[Progress]:
        """Run EM from `start`, or with `resume` from `training_state_`; with max_iter = 0 fit the start itself."""
        numbers, last_q, arguments = checksum(data.x, data.weights), None, copied(self.get_params())
        state, rng = self._state_and_generator(numbers, resume)
        energies, before = list[float](), list[float]()
        if state is None:
            first = start(rng)
        else:
            first = state.arrays["components_"], self.mean_, state.arrays["noise_variance_"]
            before = state.arrays["bounds"].tolist()[:-1]
            energies = self.free_energies_.tolist()[: 2 * len(before)]
        generator = dict(rng.bit_generator.state)  # no draws follow

        e_step: Callable[[Parameters], tuple[Any, float]] = data.e_step
        for theta, q, bounds, converged in em(first, e_step, data.m_step, self.tol, max_iter, bounds=before):
            W, mean, noise_variance = theta
            if last_q is not None:  # after the M-step: new θ, old q
                energies.append(data.elbo(theta, last_q))
            energies.append(bounds[-1])
            last_q, n_iter, now = q, len(bounds) - 1, None
            if not converged and n_iter < max_iter:
                arrays = {"components_": W, "noise_variance_": noise_variance, "bounds": np.array(bounds)}
                now = TrainingState(n_iter, numbers, generator, arrays)
            self.set_fitted(
                training_state_=now,
                components_=W,
                mean_=mean,
                noise_variance_=noise_variance,
                lower_bounds_=np.array(bounds),
                free_energies_=np.array(energies),
                converged_=converged or max_iter == 0,
                n_iter_=n_iter,
                n_features_in_=len(mean),
                feature_names_in_=names,
            )
            if n_iter > len(before) or (max_iter == 0 and state is None):
                yield Progress(max(n_iter, 1), max(max_iter, 1), -bounds[-1])
                if now is not None:
                    self._check_arguments(arguments)
        warn_unless_converged(self.converged_, self.lower_bounds_, self.tol)

    def _state_forms(self, n_features: int) -> dict[str, Form]:
        forms = self._forms(n_features)
        law = {name: forms[name] for name in ("components_", "noise_variance_")}
        return law | {"bounds": Form(FLOAT64, (None,))}

    def _check_state(self, state: TrainingState, fitted: dict[str, Any]) -> None:
        super()._check_state(state, fitted)
        n = as_count(len(state.arrays["bounds"]), "length of training.bounds", maximum=self.max_iter)
        if n != state.step + 1 or len(fitted["free_energies_"]) < 2 * n - 1:
            raise ValueError(f"training.bounds must hold step + 1 numbers, got {n} for step {state.step}")
        check_law(state.arrays, fitted["mean_"], "training.")

    def _by_row(self, f: Callable[..., Array], x: ArrayLike) -> Array:
        """The rows of f(x, W, μ, Ψ), (N, ...), for x (N, D); for its observed columns, where values are missing."""
        x, W, mean, noise = self._as_fitted_samples(x), self.components_, self.mean_, self.noise_variance_
        if not has_missing(x):
            return by_blocks(lambda rows: f(x[rows], W, mean, noise), len(x), self._numbers_a_row())
        return by_pattern(lambda known, a: f(known, W[a], mean[a], np.broadcast_to(noise, len(mean))[a]), x)

    def _numbers_a_row(self) -> int:
        """Numbers in a row of the largest array of the verbs: D or k."""
        return max(self.components_.shape)

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x) = log N(x; μ, W Wᵀ + Ψ), (N,), nats, exact, for x (N, D)."""
        return self._by_row(linear_gaussian_log_prob, x)

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """The ELBO (7) at q = p_θ(z | x), (N,), nats, which equals `log_prob`; `rng` is not used."""
        as_generator(rng)

        def elbo(x: Array, W: Array, mean: Array, noise: Noise) -> Array:
            return linear_gaussian_elbo(x, W, mean, noise, *linear_gaussian_posterior(x, W, mean, noise))

        return self._by_row(elbo, x)

    def encode(self, x: ArrayLike) -> Array:
        """Posterior mean E[z | x], (N, k), for x (N, D)."""
        return self._by_row(lambda *given: linear_gaussian_posterior(*given)[0], x)

    def covariance(self) -> Array:
        """Cov x = W Wᵀ + Ψ of the fitted model, (D, D)."""
        return self.components_ @ self.components_.T + self.noise_variance_ * np.eye(self.n_features_in_)

    @framed
    def sample(self, n: int, rng: RNG = None, *, as_frame: bool = False) -> Array:
        """Draw n examples from p_θ, (n, D); a pandas.DataFrame with the names of fit for `as_frame`."""
        rng, std = as_generator(rng), np.sqrt(self.noise_variance_)

        def draw(rows: slice) -> Array:
            z = rng.standard_normal((rows.stop - rows.start, self.components_.shape[1]))
            noise = rng.standard_normal((len(z), self.n_features_in_))
            return z @ self.components_.T + self.mean_ + std * noise

        return by_blocks(draw, as_count(n, "n", minimum=0), self._numbers_a_row())

    @property
    def n_parameters_(self) -> int:
        """Number of free parameters: D means, and W up to rotation with σ² or Ψ, at most D(D + 1)/2."""
        return n_parameters(self.components_, np.size(self.noise_variance_))


def check_law(arrays: dict[str, Any], mean: Array, prefix: str = "") -> None:
    """Raise ValueError unless the ELBO at μ, which every iteration of a fit computes, is finite.

    The covariance of p(z | x) is lost to rounding if columns of W are alike and far larger than the noise.
    """
    W, noise_variance = arrays["components_"], arrays["noise_variance_"]
    check_positive(noise_variance, f"{prefix}noise_variance_")
    try:
        q = linear_gaussian_posterior(mean[None], W, mean, noise_variance)
        right = np.isfinite(linear_gaussian_elbo(mean[None], W, mean, noise_variance, *q)).all()
    except np.linalg.LinAlgError:
        right = False
    if not right:
        raise ValueError(
            f"{prefix}components_ must not be so large beside {prefix}noise_variance_ that the ELBO is lost"
        )


def n_parameters(W: Array, n_variances: int) -> int:
    """Number of free parameters of N(μ, W Wᵀ + Ψ): D means, and W, (D, k), up to rotation with `n_variances` of Ψ."""
    D, r = len(W), min(W.shape)
    return D + min(D * r - r * (r - 1) // 2 + n_variances, D * (D + 1) // 2)


@dataclass(eq=False, repr=False)
class PPCA(LinearGaussianModel):
    """Probabilistic principal component analysis: p(z) = N(0, I_k), p_θ(x | z) = N(W z + μ, σ² I).

    PPCA is the latent-variable model of the deck for which all integrals have closed forms.  Its maximum likelihood is
    the optimum of a linear VAE.

    NaN in x is a missing value.  EM then maximises the likelihood of the observed values, and every method takes the
    law of the observed values of each row: `log_prob` is their log density.  This is right if values are missing at
    random: whether one is missing may depend on observed values, not on the missing one.  A row without observed values
    has log p = 0: it does not change the maximum, but counts as a row in means over rows and in `bic`.

    Parameters
    ----------
    n_components : int
        k, at most D − 1.
    method : {"closed", "em"}
        "closed": the closed form of Tipping and Bishop (1999).  "em": EM from a random W, which converges to the same
        optimum; slowly, if eigenvalues are close or the columns have very different scales.  With missing values there
        is no closed form of the optimum, and both methods are EM.  "closed" then starts from columns filled with their
        means, and its M-step is the closed form for the expected covariance of complete rows.
    tol : float
        EM stops when the mean log-likelihood increases by less than tol, nats.
    max_iter : int
        Largest number of EM iterations.
    verbose : bool or int
        Show progress on stderr in `fit` and `resume`: a bar with rich on a terminal, about ten lines otherwise.
    rng : int, Generator or None
        Source of the initial W of EM.

    Attributes
    ----------
    components_ : (D, k)
        W.
    mean_ : (D,)
        μ.
    noise_variance_ : float
        σ².
    lower_bounds_ : (n_iter_ + 1,)
        Mean log-likelihood after every E-step, nats.
    free_energies_ : (2 n_iter_ + 1,)
        Mean ELBO after every E-step and every M-step, nats; the joint KL is minus the mean ELBO minus H(p).  With
        missing values their q is p_θ(x_b | x_a), and z is integrated out.
    converged_ : bool
        Whether the last iteration increased the mean log-likelihood by less than tol; if not, the fit ends with a
        RuntimeWarning.  True for the closed form of complete data.
    n_iter_ : int
        Number of EM iterations; 0 for the closed form of complete data.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    >>> closed, em = PPCA(1).fit(x), PPCA(1, method="em", tol=0, max_iter=300, rng=0).fit(x)
    >>> bool(abs(closed.score(x) - em.score(x)) < 1e-10)
    True

    Missing values, which `impute` fills with their conditional means:

    >>> x = rng.standard_normal((500, 1)) + [0.0, 5.0, 9.0] + 0.1 * rng.standard_normal((500, 3))
    >>> x[rng.random(x.shape) < 0.2] = np.nan
    >>> model = PPCA(1).fit(x)
    >>> model.impute([[1.0, np.nan, 10.0]]).round()
    array([[ 1.,  6., 10.]])
    """

    n_components: int = 1
    method: str = "closed"
    tol: float = 1e-9
    max_iter: int = 1000

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_choice(self.method, "method", ("closed", "em"))

    @property
    def _takes_missing(self) -> bool:
        return True

    def impute(self, x: ArrayLike) -> Array:
        """x, (N, D), with E[x_b | x_a] in place of the missing values x_b, given the observed ones x_a of the same row.

        The conditional mean has the least mean squared error, but less spread than the data.
        """
        x, law = self._as_fitted_samples(x), (self.components_, self.mean_, self.noise_variance_)
        return by_blocks(lambda rows: complete_rows(x[rows], *law).x, len(x), self._numbers_a_row())

    def train(
        self, x: ArrayLike, *, sample_weight: ArrayLike | None = None, resume: bool = False
    ) -> Iterator[Progress]:
        """Fit x, (N, D), with weights (N,) as for `fit`, by the closed form or by EM.

        With `resume` go on with a run of EM that has not ended.

        Yields
        ------
        progress : Progress
            Once for the closed form of complete data, after every iteration of EM; the loss is minus the mean
            log-likelihood, nats.

        Raises
        ------
        TypeError, ValueError
            If x, the weights or a constructor argument is wrong, the variance of x underflows, or σ² is lost to
            rounding: x lies in a space of k dimensions or fewer, or has fill values.
        """
        self._check_parameters()
        names, (x, weights) = self._names_in(x, resume), self._as_weighted(x, sample_weight)
        k, D, gaps = self.n_components, x.shape[1], has_missing(x)
        x = x.astype(np.float64, copy=False) if gaps else x

        def with_noise(W: Array, variance: float) -> tuple[Array, float]:
            if variance <= 1e-14 * total:
                raise ValueError(
                    f"x lies in a space of at most {k} dimension{'s' * (k != 1)}, but for rounding beside its variance "
                    f"{total:.2g}, so that σ² is 0 and the likelihood infinite; drop fill values that are far larger "
                    "than the rest, bring the columns of x to similar scales or take FactorAnalysis (fit fa), or "
                    "lower n_components"
                )
            return W, variance

        def step(covariance: Array, W: Array, variance: Any) -> tuple[Array, float]:
            if self.method == "closed":
                return with_noise(*ppca_maximum(covariance, k))
            return with_noise(*ppca_em_step(covariance, W, variance))

        filled = CompleteData(*fill_with_means(x, weights) if gaps else (x, weights), step)
        total = float(np.trace(filled.covariance))
        if k >= D:
            raise ValueError(
                f"n_components must be below the {D} columns of x, got {k} for {D} feature(s): "
                "σ² needs at least one further direction" + ("; fit a GaussianMixture" if D == 1 else "")
            )

        variances = np.full(D, filled.covariance.diagonal().max())  # σ² is one number: a column may be far smaller
        check_spread(filled.x, variances)

        def start(rng: np.random.Generator) -> Parameters:
            if self.method == "closed":
                W, variance = with_noise(*ppca_maximum(filled.covariance, k))
            else:
                W, variance = with_noise(rng.standard_normal((D, k)) * (total / D) ** 0.5, total / D)
            return W, filled.mean, variance

        data = IncompleteData(x, weights, step) if gaps else filled
        max_iter = 0 if self.method == "closed" and not gaps else self.max_iter
        yield from self._run_em(data, names, start, resume, max_iter)


@dataclass(eq=False, repr=False)
class FactorAnalysis(LinearGaussianModel):
    """Factor analysis by EM: p(z) = N(0, I_k), p_θ(x | z) = N(W z + μ, diag Ψ), with one noise variance a dimension.

    Parameters
    ----------
    n_components : int
        k.
    tol : float
        EM stops when the mean log-likelihood increases by less than tol, nats.
    max_iter : int
        Largest number of EM iterations.
    noise_floor : float
        Least Ψ_d as a fraction of the variance of column d.  Without a floor the likelihood can be unbounded (Heywood
        cases).
    verbose : bool or int
        Show progress on stderr in `fit` and `resume`: a bar with rich on a terminal, about ten lines otherwise.
    rng : int, Generator or None
        Source of the initial W.

    Attributes
    ----------
    components_ : (D, k)
        W; the likelihood determines W up to a rotation.
    mean_, noise_variance_ : (D,)
        μ and Ψ.
    lower_bounds_ : (n_iter_ + 1,)
        Mean log-likelihood after every E-step, nats.
    free_energies_ : (2 n_iter_ + 1,)
        Mean ELBO after every E-step and every M-step, nats; the joint KL is minus the mean ELBO minus H(p).
    converged_ : bool
        Whether the last iteration increased the mean log-likelihood by less than tol; if not, the fit ends with a
        RuntimeWarning.
    n_iter_ : int
        Number of EM iterations.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((5000, 1)) * [1.0, 2.0, 3.0] + rng.standard_normal((5000, 3)) * [1.0, 0.5, 2.0]
    >>> FactorAnalysis(1, rng=0).fit(x).noise_variance_.round(1)
    array([1. , 0.3, 3.8])
    """

    n_components: int = 1
    tol: float = 1e-6
    max_iter: int = 1000
    noise_floor: float = 1e-6

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_number(self.noise_floor, "noise_floor", low=0.0, high=1.0, open_low=True)

    def _forms(self, n_features: int) -> dict[str, Form]:
        return super()._forms(n_features) | {"noise_variance_": Form(FLOAT64, (n_features,))}

    def train(
        self, x: ArrayLike, *, sample_weight: ArrayLike | None = None, resume: bool = False
    ) -> Iterator[Progress]:
        """Fit x, (N, D), by EM; the initial W has rows in proportion to the columns' standard deviations.

        The rows have weights (N,) as for `fit`.  With `resume` go on with a run that has not ended.

        Yields
        ------
        progress : Progress
            After every iteration; the loss is minus the mean log-likelihood, nats.

        Raises
        ------
        TypeError, ValueError
            If x, the weights or a constructor argument is wrong, a column of x is constant, or its variance underflows.
        """
        self._check_parameters()
        names, k = self._names_in(x, resume), self.n_components
        x, weights = self._as_weighted(x, sample_weight)
        check_varies(x, "drop it")

        def step(covariance: Array, W: Array, noise: Any) -> tuple[Array, Array]:
            return factor_analysis_em_step(covariance, W, noise, floors)

        data = CompleteData(x, weights, step)
        variances = data.covariance.diagonal()
        floors = variances * self.noise_floor
        check_spread(x, variances)

        def start(rng: np.random.Generator) -> Parameters:
            W = rng.standard_normal((x.shape[1], k)) * np.sqrt(variances / (2 * k))[:, None]
            return W, data.mean, 0.5 * variances

        yield from self._run_em(data, names, start, resume, self.max_iter)
