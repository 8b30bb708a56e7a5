"""GaussianMixture: constructor arguments, initial values and files around EM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from scratchgen.blocks import by_blocks
from scratchgen.em import (
    ACCELERATIONS,
    COVARIANCE_TYPES,
    STARTS,
    Iterate,
    Prior,
    covariance_maximum,
    em,
    fill_with_means,
    floored_mixture,
    impute,
    log_covariance_prior,
    m_step_from_statistics,
    over_relaxed_em,
    relaxed_mixture,
    sample_moments,
    starting_mixture,
    statistics_with_missing,
)
from scratchgen.fast.em_statistics import expected_statistics
from scratchgen.mixture import Mixture, whiten
from scratchgen.models.estimator import Progress
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.mixture_model import MixtureModel, check_enough_rows, warn
from scratchgen.models.training_state import checksum
from scratchgen.validation import (
    SMALLEST,
    Array,
    ArrayLike,
    as_choice,
    as_finite,
    as_number,
    as_samples,
    check_columns,
    check_flag,
    check_spread,
    check_symmetric,
    check_varies,
    constant_columns,
    has_missing,
    weighted_rows,
)


@dataclass(eq=False, repr=False)
class GaussianMixture(MixtureModel):
    """Gaussian mixture fitted by EM.

    With covariance_type="full" NaN in x is a missing value.  EM then maximises the likelihood of the observed values,
    and every method takes the law of the observed values of each row: `log_prob` is their log density.  This is right
    if values are missing at random: whether one is missing may depend on observed values, not on the missing one.  A
    row without observed values has log p = 0: it does not change the maximum, but counts as a row in means over rows
    and in `bic`.  Initial mixtures come from rows with the mean of a column in place of its missing values.  The time
    of a step grows with the number of patterns of missing columns, by about 0.3 ms each.

    Parameters
    ----------
    n_components : int
        K.
    covariance_type : {"full", "tied", "diag", "spherical"}
        "full": a covariance matrix for each component.  "tied": one matrix for all.  "diag": a diagonal matrix for
        each.  "spherical": one variance for each.
    tol : float
        A run has converged when its bound increases by less than tol, nats.  The bound is the mean log-likelihood, plus
        log prior/N with a prior.
    max_iter : int
        Largest number of M-steps of a run; 0 keeps the best initial mixture.
    n_init : int
        Number of runs from different initial mixtures; the best result is kept.
    init_params : {"k-means++", "kmeans", "random_from_data", "random"}
        Initial responsibilities, if `means_init` is None.  "k-means++": every point joins its nearest k-means++ seed.
        "kmeans": the same after Lloyd's algorithm.  "random_from_data": every point joins the nearest of K random rows.
        "random": random responsibilities.  Distances are in units of the standard deviation of each column, except for
        "spherical", whose columns share one unit.
    covariance_floor : float
        Lower bound of every covariance, as a fraction of the variances of the columns: Σ_k ⪰ covariance_floor ·
        diag(Var x), so that the fit does not depend on the units of x.  No direction, in columns divided by their
        standard deviations, has less variance.  For "spherical", σ² is at least the fraction of the largest Var x_d.
        Without a floor the likelihood is unbounded for K >= 2.  The M-step maximises subject to the floor exactly;
        adding the floor to the diagonal could lower the bound.  A floor that binds at the end gives a RuntimeWarning.
    covariance_prior : (variance, count), optional
        Inverse-Wishart prior, with the effect of `count` further examples a component with variance `variance` in every
        direction, in squared units of x: a prior does not depend on the data.  The fit is then the maximum a
        posteriori.  One variance fits all columns only if they have similar scales; otherwise standardise x.
    weights_init, means_init, precisions_init : array_like, optional
        Initial weights (K,), means (K, D) and inverse covariances, in the shape of `covariances_`.  `init_params` gives
        those that are None.
    warm_start : bool
        Start from the last fit, if there is one.
    acceleration : {None, "over-relaxed"}
        None: EM.  "over-relaxed": `em.over_relaxed_em`, with steps 1.4 to many times as long, of which none lowers the
        bound.  On 60 overlapping mixtures EM took 2.5 times as many E-steps to within 1e-6 nats of its limit (geometric
        mean; 1.0 to 7.4).  None is the default: with a tol of 1e-3 the ratio was 1.2 (0.46 at worst), and longer steps
        can lead to another local maximum; one of the 60 was lower by 5e-3 nats.
    verbose : bool or int
        Show progress on stderr in `fit` and `resume`: a bar with rich on a terminal, about ten lines otherwise.
    rng : int, Generator or None
        Source of the initial mixtures.

    Attributes
    ----------
    mixture_ : Mixture
        Fitted density, with exact score, denoiser and diffusion.
    weights_, means_ : (K,), (K, D)
    covariances_ : array
        (K, D, D) for "full", (D, D) for "tied", (K, D) for "diag", (K,) for "spherical".
    lower_bounds_ : (n_iter_ + 1,)
        The bound after every E-step of the kept run, nats: the mean log-likelihood, plus log prior/N with a prior.
    converged_ : bool
        Whether the kept run converged; if not, the fit ends with a RuntimeWarning.
    n_iter_ : int
        Number of M-steps of the kept run.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(np.repeat([[1.0], [5.0]], 50, axis=0), 0.1, (100, 2))
    >>> model = GaussianMixture(n_components=2, covariance_type="diag", n_init=3, rng=0).fit(x)
    >>> np.sort(model.means_[:, 0]).round(), model.covariances_.shape
    (array([1., 5.]), (2, 2))
    >>> bool(model.bic(x) < GaussianMixture(1).fit(x).bic(x)), model.predict_proba([[1.1, 0.9]]).round().max()
    (True, np.float64(1.0))
    >>> model.mixture_.diffuse(0.6, 0.8).score(x).shape  # exact score of the diffused density
    (100, 2)

    A given start, and a warm start from the last fit:

    >>> start = {"weights_init": [0.5, 0.5], "means_init": [[0, 0], [6, 6]], "precisions_init": [1.0, 1.0]}
    >>> model = GaussianMixture(2, "spherical", max_iter=2, tol=0, warm_start=True, **start).fit(x)
    >>> bounds = model.lower_bounds_
    >>> bool(model.fit(x).lower_bounds_[0] == bounds[-1])
    True

    A row of weight 2 counts twice:

    >>> weighted = GaussianMixture(1).fit([[0.0], [3.0]], sample_weight=[2, 1])
    >>> twice = GaussianMixture(1).fit([[0.0], [0.0], [3.0]])
    >>> bool(abs(weighted.bic([[0.0], [3.0]], sample_weight=[2, 1]) - twice.bic([[0.0], [0.0], [3.0]])) < 1e-12)
    True

    Rows with missing values, and their conditional means:

    >>> gaps = np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x)
    >>> model = GaussianMixture(2, rng=0).fit(gaps)
    >>> model.impute([[1.0, np.nan], [np.nan, 5.0]]).round()
    array([[1., 1.],
           [5., 5.]])

    A component on a single point makes the likelihood unbounded; with a prior the covariance stays positive definite:

    >>> lonely = [[1.0, 1.0], [1.0, 1.2], [9.0, 9.0]]
    >>> model = GaussianMixture(2, covariance_prior=(0.01, 5.0), means_init=[[1, 1], [9, 9]]).fit(lonely)
    >>> np.linalg.eigvalsh(model.covariances_[1]).round(5)
    array([0.00833, 0.00833])
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        "weights_",
        "means_",
        "covariances_",
        "lower_bounds_",
        "converged_",
        "n_iter_",
    )

    n_components: int = 1
    covariance_type: str = "full"
    tol: float = 1e-3
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "k-means++"
    covariance_floor: float = 1e-6
    covariance_prior: Prior | None = None
    weights_init: ArrayLike | None = None
    means_init: ArrayLike | None = None
    precisions_init: ArrayLike | None = None
    warm_start: bool = False
    acceleration: str | None = None

    def train(
        self, x: ArrayLike, *, sample_weight: ArrayLike | None = None, resume: bool = False
    ) -> Iterator[Progress]:
        """Run EM on x, (N, D), with weights (N,) as for `fit`, from every start.

        With `resume` go on with a training that has not ended.

        Yields
        ------
        progress : Progress
            After every M-step; the loss is minus the bound of the next E-step, nats.

        Raises
        ------
        TypeError, ValueError
            If x, the weights or a constructor argument is wrong, a column of x is constant or its variance underflows,
            or the floor is lost to rounding.

        Warns
        -----
        RuntimeWarning
            After the last step, if the kept run has not converged, and if a covariance is at the floor.
        """
        self._check_parameters()
        K, kind, names = self.n_components, self.covariance_type, self._names_in(x, resume)
        x, weights = weighted_rows(as_samples(x, missing=self._takes_missing), sample_weight)
        gaps = has_missing(x)
        x = x.astype(np.float64, copy=False) if gaps else x
        filled, of_filled = fill_with_means(x, weights) if gaps else (x, weights)
        check_enough_rows(filled, K)
        self._given_start(K, x.shape[1])  # a warm start does not use the arguments, and a file holds them
        data = checksum(x, weights)
        state, rng = self._state_and_generator(data, resume)
        floor = self._floor(filled, column_variances(x, weights))
        prior, last = self._prior(), None if resume else self._last_fit(K, x.shape[1], names, floor)

        def log_prior(mixture: Mixture) -> float:
            covariances = mixture.covariances[:1] if kind == "tied" else mixture.covariances
            return 0.0 if prior is None else log_covariance_prior(covariances, prior) / weights.sum()

        # `expected_statistics` is the fast form of `em.e_step` followed by `em.sufficient_statistics`.
        complete = partial(expected_statistics, diagonal=kind in ("diag", "spherical"))
        e_step = partial(
            statistics_with_missing if gaps else complete,
            x,
            sample_weight=None if sample_weight is None else weights,
        )  # (18)
        m_step = partial(
            m_step_from_statistics, covariance_floor=floor, covariance_type=kind, covariance_prior=prior
        )  # (15)
        relax = partial(relaxed_mixture, covariance_floor=floor, covariance_type=kind)

        def run(start: Mixture, bounds: Sequence[float]) -> Iterator[Iterate[Mixture, Any]]:
            options = (self.tol, self.max_iter, log_prior, bounds)
            if self.acceleration is None:
                return em(start, e_step, m_step, *options)
            return over_relaxed_em(start, e_step, m_step, relax, *options)

        def start() -> Mixture:
            return self._start(filled, of_filled, rng, floor, prior) if last is None else last

        n_runs = 1 if last is not None else self.n_init if state is None else int(state.arrays["n_runs"])

        def attributes(mixture: Mixture) -> dict[str, Any]:
            return {
                "mixture_": mixture,
                "weights_": mixture.weights,
                "means_": mixture.means,
                "covariances_": compress(mixture.covariances, kind),
                "n_features_in_": x.shape[1],
                "feature_names_in_": names,
            }

        yield from self._keep_best(run, start, n_runs, rng, data, attributes, state)
        self._warn_at_floor(floor)

    def set_fitted(self, *, mixture_: Mixture | None = None, **fitted: Any) -> Self:
        """Set fitted attributes; `mixture_` is built from the others if it is None."""
        self._check_names(fitted)
        return self._keep(fitted | (self._built_from(fitted) if mixture_ is None else {"mixture_": mixture_}))

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """`mixture_`."""
        return {"mixture_": self._law(fitted)}

    def _law(self, fitted: dict[str, Any]) -> Mixture:
        covariances = expand(fitted["covariances_"], self.covariance_type, *fitted["means_"].shape)
        return Mixture(fitted["weights_"], fitted["means_"], covariances)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_number(self.covariance_floor, "covariance_floor", low=SMALLEST**2)
        as_choice(self.covariance_type, "covariance_type", COVARIANCE_TYPES)
        as_choice(self.init_params, "init_params", STARTS)
        check_flag(self.warm_start, "warm_start")
        if self.acceleration is not None:
            as_choice(self.acceleration, "acceleration, if not None,", ACCELERATIONS)
        self._prior()

    def _check_fitted(self, **fitted: Any) -> None:
        super()._check_fitted(**fitted)
        self._given_start(*fitted["means_"].shape)

    def _forms(self, n_features: int) -> dict[str, Form]:
        K, D = self.n_components, n_features
        covariances: dict[str, tuple[int, ...]] = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}
        return {
            **super()._forms(n_features),
            "means_": Form(FLOAT64, (K, D)),
            "covariances_": Form(FLOAT64, covariances[self.covariance_type]),
        }

    def _numbers_a_row(self) -> int:
        K, D = self.means_.shape
        return D * max(K, D)  # whitened rows of every component; factors of the covariances of drawn rows

    @property
    def law_(self) -> Mixture:
        """Fitted density, `mixture_`."""
        return self.mixture_

    def _prior(self) -> Prior | None:
        """Return covariance_prior after checks."""
        prior = self.covariance_prior
        if prior is None:
            return None
        if not isinstance(prior, tuple | list) or len(prior) != 2:
            raise ValueError(f"covariance_prior must be (variance, count) or None, got {prior!r:.60}")
        variance, count = prior
        return (
            as_number(variance, "covariance_prior's variance", low=0.0, open_low=True),
            as_number(count, "covariance_prior's count", low=0.0, open_low=True),
        )

    @property
    def _takes_missing(self) -> bool:
        return self.covariance_type == "full"

    def impute(self, x: ArrayLike) -> Array:
        """x, (N, D), with E[x_b | x_a] in place of the missing values x_b, given the observed ones x_a of the same row.

        The conditional mean has the least mean squared error, but less spread than the data.  For draws of missing
        values sample from `mixture_.conditional`.
        """
        x, mixture = self._as_fitted_samples(x), self.mixture_
        return by_blocks(lambda rows: impute(x[rows], mixture), len(x), self._numbers_a_row())

    def _floor(self, x: Array, variances: Array) -> Array:
        """covariance_floor · Var x, (D,), in squared units of x, after checks of the columns."""
        one_unit = self.covariance_type == "spherical"  # a constant column then leaves σ² > 0, if another one varies
        if not one_unit or len(constant_columns(x)) == x.shape[1]:
            check_varies(x, "drop it, since a variance of 0 makes the likelihood infinite")
        if one_unit:
            variances = np.full_like(variances, variances.max())
        check_spread(x, variances)
        return float(self.covariance_floor) * variances

    def _warn_at_floor(self, floor: Array) -> None:
        """Give a RuntimeWarning, with the remedy, if covariances are at the floor, (D,); it names the components."""
        values = np.linalg.eigvalsh(self.mixture_.covariances / np.outer(np.sqrt(floor), np.sqrt(floor)))
        low = np.flatnonzero(values[:, 0] < 1 + 1e-6 + 1e-14 * values[:, -1])  # 1e-14 λ_max is rounding
        if len(low):
            named = ", ".join(map(str, low[:9])) + (", …" if len(low) > 9 else "")
            warn(
                f"components [{named}] of {len(values)} have collapsed; lower n_components, pass more data, raise "
                "covariance_floor, pass a covariance_prior, or drop fill values.  Their data lie near a point, a line "
                "or a plane, or fill values make the variance of a column large: only covariance_floor, "
                f"{self.covariance_floor:g} of the variance of each column, holds up their covariances"
            )

    def _last_fit(self, K: int, D: int, names: tuple[str, ...] | None, floor: Array) -> Mixture | None:
        """Initial mixture of a warm start; None without warm_start or without an earlier fit."""
        if not self.warm_start or not hasattr(self, "mixture_"):
            return None
        if self.mixture_.means.shape != (K, D):
            raise ValueError(
                f"x and n_components must be as in the last fit, {self.mixture_.means.shape[1]} columns and "
                f"{len(self.mixture_.means)}, for a warm start, got {D} and {K}; set warm_start=False"
            )
        check_columns(names, self._feature_names)
        # The last fit may have had another covariance type or a lower floor.
        weights, covariances = self.mixture_.weights, self.mixture_.covariances
        allowed = covariance_maximum(covariances, weights, self.covariance_type, floor)
        if np.allclose(allowed, covariances, rtol=1e-12, atol=0):
            return self.mixture_
        return Mixture(weights, self.mixture_.means, allowed)

    def _start(
        self, x: Array, sample_weight: Array, rng: np.random.Generator, floor: Array, prior: Prior | None
    ) -> Mixture:
        """Initial mixture from the arguments; the parts that are None come from the data."""
        K, D = self.n_components, x.shape[1]
        weights, means, covariances = self._given_start(K, D)
        if weights is None or means is None or covariances is None:
            start = starting_mixture(
                x, K, self.init_params, rng, floor, self.covariance_type, prior, means, sample_weight
            )
            weights = start.weights if weights is None else weights
            means = start.means if means is None else means
            covariances = start.covariances if covariances is None else covariances
        return floored_mixture(weights, means, covariances, floor)

    def _given_start(self, K: int, D: int) -> tuple[Array | None, Array | None, Array | None]:
        """Return weights_init, means_init and the inverses of precisions_init, (K, D, D), after checks, or None."""
        weights = means = covariances = None
        if self.weights_init is not None:
            weights = as_finite(self.weights_init, "weights_init")
            if weights.shape != (K,) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
                raise ValueError(f"weights_init must be {K} non-negative numbers that sum to 1, got {weights}")
        if self.means_init is not None:
            means = as_samples(self.means_init, "means_init", dimension=D)
            if len(means) != K:
                raise ValueError(f"means_init must have {K} rows, as n_components says, got {len(means)}")
        if self.precisions_init is not None:
            precisions = as_finite(self.precisions_init, "precisions_init")
            shape = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}[self.covariance_type]
            if precisions.shape != shape:
                raise ValueError(f"precisions_init must have shape {shape}, got {precisions.shape}")
            full = expand(precisions, self.covariance_type, K, D)
            check_symmetric(full, "precisions_init")
            try:
                covariances = inverse(full)
            except np.linalg.LinAlgError:
                raise ValueError("precisions_init must be positive definite; pass inverse covariances") from None
        return weights, means, covariances

    @property
    def precisions_(self) -> Array:
        """Inverse covariances, in the shape of `covariances_`; `precisions_init` takes the same form."""
        return compress(inverse(self.mixture_.covariances), self.covariance_type)

    @property
    def n_parameters_(self) -> int:
        """Number of free parameters: K − 1 weights, K · D means, and the entries of the covariances."""
        K, D = self.means_.shape
        covariances = {"full": K * D * (D + 1) // 2, "tied": D * (D + 1) // 2, "diag": K * D, "spherical": K}
        return K - 1 + K * D + covariances[self.covariance_type]


def column_variances(x: Array, sample_weight: Array) -> Array:
    """Var x, (D,), of rows x (N, D) with weights (N,), from blocks of rows; NaN is left out."""
    if has_missing(x):
        seen = ~np.isnan(x)
        columns = [column_variances(x[rows, d : d + 1], sample_weight[rows]) for d, rows in enumerate(seen.T)]
        return np.concatenate(columns)
    return sample_moments(x, sample_weight)[1].diagonal()


def inverse(matrices: Array) -> Array:
    """Inverses of symmetric positive definite matrices, (K, D, D), exactly symmetric; LinAlgError for others."""
    whitening, _ = whiten(matrices)
    return whitening.swapaxes(1, 2) @ whitening


def compress(covariances: Array, covariance_type: str) -> Array:
    """Covariances (K, D, D) of one type in the shape of that type, see `GaussianMixture.covariances_`."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    forms = {"full": covariances, "tied": covariances[0], "diag": variances, "spherical": variances[:, 0]}
    return forms[covariance_type]


def expand(compressed: Array, covariance_type: str, K: int, D: int) -> Array:
    """Inverse of `compress`: covariances (K, D, D)."""
    match covariance_type:
        case "full":
            return compressed
        case "tied":
            return np.tile(compressed, (K, 1, 1))
        case "diag":
            return compressed[:, :, None] * np.eye(D)
        case _:
            return compressed[:, None, None] * np.eye(D)
