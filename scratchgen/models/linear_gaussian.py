"""PPCA and FactorAnalysis: constructor arguments and files around EM and the closed form of Tipping and Bishop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from scratchgen.em import em, factor_analysis_em_step, ppca_em_step, ppca_maximum
from scratchgen.models.estimator import Progress, WeightedEstimator, framed
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.mixture_model import check_bounds, warn_unless_converged
from scratchgen.models.training_state import TrainingState, checksum
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
    weighted_rows,
)
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior

Parameters = tuple[Array, float | Array]  # W (D, k) and the noise variance, σ² or Ψ (D,)


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
        x, weights = weighted_rows(as_samples(x, n_min=2), sample_weight)
        if len(x) < 2:
            raise ValueError("sample_weight must be positive for at least 2 rows of x, got 1; pass more data")
        return x, weights

    def _run_em(
        self,
        x: Array,
        names: tuple[str, ...] | None,
        weights: Array,
        start: Callable[[np.random.Generator], Parameters],
        step: Callable[..., Parameters],
        resume: bool,
        max_iter: int,
    ) -> Iterator[Progress]:
        """Run EM from (W, Ψ) of `start`, or with `resume` of `training_state_`; with max_iter = 0 fit the start itself.

        `step` maps (W, Ψ) to the next (W, Ψ), (15).  Its averages under q depend on x only through the sample
        covariance.
        """
        mean, data, last_q = np.average(x, axis=0, weights=weights), checksum(x, weights), None
        state, rng = self._state_and_generator(data, resume)
        energies, before = list[float](), list[float]()
        theta = start(rng) if state is None else (state.arrays["components_"], state.arrays["noise_variance_"])
        generator = dict(rng.bit_generator.state)  # no draws follow
        if state is not None:
            before = state.arrays["bounds"].tolist()[:-1]
            energies = self.free_energies_.tolist()[: 2 * len(before)]

        def mean_elbo(theta: Parameters, q: tuple[Array, Array]) -> float:
            return float(np.average(linear_gaussian_elbo(x, theta[0], mean, theta[1], *q), weights=weights))  # (8)

        def e_step(theta: Parameters) -> tuple[tuple[Array, Array], float]:
            q = linear_gaussian_posterior(x, theta[0], mean, theta[1])  # (11), (18)
            return q, mean_elbo(theta, q)  # the mean of log p_θ(x) at this q

        run = em(theta, e_step, lambda _, theta: step(*theta), self.tol, max_iter, bounds=before)
        for (W, noise_variance), q, bounds, converged in run:
            if last_q is not None:  # after the M-step: new θ, old q
                energies.append(mean_elbo((W, noise_variance), last_q))
            energies.append(bounds[-1])
            last_q, n_iter, now = q, len(bounds) - 1, None
            if not converged and n_iter < max_iter:
                arrays = {"components_": W, "noise_variance_": noise_variance, "bounds": np.array(bounds)}
                now = TrainingState(n_iter, data, generator, arrays)
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

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x) = log N(x; μ, W Wᵀ + Ψ), (N,), nats, exact, for x (N, D)."""
        x = self._as_fitted_samples(x)
        return linear_gaussian_log_prob(x, self.components_, self.mean_, self.noise_variance_)

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """The ELBO (7) at q = p_θ(z | x), (N,), nats, which equals `log_prob`; `rng` is not used."""
        as_generator(rng)
        x = self._as_fitted_samples(x)
        parameters = (self.components_, self.mean_, self.noise_variance_)
        return linear_gaussian_elbo(x, *parameters, *linear_gaussian_posterior(x, *parameters))

    def encode(self, x: ArrayLike) -> Array:
        """Posterior mean E[z | x], (N, k), for x (N, D)."""
        x = self._as_fitted_samples(x)
        return linear_gaussian_posterior(x, self.components_, self.mean_, self.noise_variance_)[0]

    def covariance(self) -> Array:
        """Cov x = W Wᵀ + Ψ of the fitted model, (D, D)."""
        return self.components_ @ self.components_.T + self.noise_variance_ * np.eye(self.n_features_in_)

    @framed
    def sample(self, n: int, rng: RNG = None, *, as_frame: bool = False) -> Array:
        """Draw n examples from p_θ, (n, D); a pandas.DataFrame with the names of fit for `as_frame`."""
        rng = as_generator(rng)
        z = rng.standard_normal((as_count(n, "n", minimum=0), self.components_.shape[1]))
        noise = rng.standard_normal((len(z), self.n_features_in_))
        return z @ self.components_.T + self.mean_ + np.sqrt(self.noise_variance_) * noise

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

    Parameters
    ----------
    n_components : int
        k, at most D − 1.
    method : {"closed", "em"}
        "closed": the closed form of Tipping and Bishop (1999).  "em": EM from a random W, which converges to the same
        optimum; slowly, if eigenvalues are close or the columns have very different scales.
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
        Mean ELBO after every E-step and every M-step, nats; the joint KL is minus the mean ELBO minus H(p).
    converged_ : bool
        Whether the last iteration increased the mean log-likelihood by less than tol; if not, the fit ends with a
        RuntimeWarning.  True for the closed form.
    n_iter_ : int
        Number of EM iterations; 0 for the closed form.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    >>> closed, em = PPCA(1).fit(x), PPCA(1, method="em", tol=0, max_iter=300, rng=0).fit(x)
    >>> bool(abs(closed.score(x) - em.score(x)) < 1e-10)
    True
    """

    n_components: int = 1
    method: str = "closed"
    tol: float = 1e-9
    max_iter: int = 1000

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_choice(self.method, "method", ("closed", "em"))

    def _state_forms(self, n_features: int) -> dict[str, Form]:
        return super()._state_forms(n_features) if self.method == "em" else {}

    def train(
        self, x: ArrayLike, *, sample_weight: ArrayLike | None = None, resume: bool = False
    ) -> Iterator[Progress]:
        """Fit x, (N, D), with weights (N,) as for `fit`, by the closed form or by EM.

        With `resume` go on with a run of EM that has not ended.

        Yields
        ------
        progress : Progress
            Once for the closed form, after every iteration of EM; the loss is minus the mean log-likelihood, nats.

        Raises
        ------
        TypeError, ValueError
            If x, the weights or a constructor argument is wrong, the variance of x underflows, or σ² is lost to
            rounding: x lies in k dimensions or fewer, or has fill values.
        """
        self._check_parameters()
        names, (x, weights) = self._names_in(x, resume), self._as_weighted(x, sample_weight)
        x, k = x.astype(np.float64), self.n_components
        D, covariance = x.shape[1], np.atleast_2d(np.cov(x.T, bias=True, aweights=weights))
        total = float(np.trace(covariance))
        if k >= D:
            raise ValueError(
                f"n_components must be below the {D} columns of x, got {k} for {D} feature(s): "
                "σ² needs at least one further direction"
            )

        check_spread(x, np.full(D, covariance.diagonal().max()))  # σ² is one number: a column may be far smaller

        def with_noise(W: Array, variance: float) -> Parameters:
            if variance <= 1e-14 * total:
                raise ValueError(
                    f"x lies in {k} dimensions or fewer, but for rounding beside its variance {total:.2g}, so that σ² "
                    "is 0 and the likelihood infinite; drop fill values that are far larger than the rest, bring the "
                    "columns of x to similar scales, or lower n_components"
                )
            return W, variance

        def start(rng: np.random.Generator) -> Parameters:
            if self.method == "closed":
                return with_noise(*ppca_maximum(covariance, k))
            return with_noise(rng.standard_normal((D, k)) * (total / D) ** 0.5, total / D)

        def step(W: Array, variance: float) -> Parameters:
            return with_noise(*ppca_em_step(covariance, W, variance))

        max_iter = 0 if self.method == "closed" else self.max_iter
        yield from self._run_em(x, names, weights, start, step, resume, max_iter)


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
        x = x.astype(np.float64)
        covariance = np.atleast_2d(np.cov(x.T, bias=True, aweights=weights))
        variances = covariance.diagonal()
        floors = variances * self.noise_floor
        check_spread(x, variances)

        def start(rng: np.random.Generator) -> Parameters:
            W = rng.standard_normal((x.shape[1], k)) * np.sqrt(variances / (2 * k))[:, None]
            return W, 0.5 * variances

        step = partial(factor_analysis_em_step, covariance, noise_floor=floors)
        yield from self._run_em(x, names, weights, start, step, resume, self.max_iter)
