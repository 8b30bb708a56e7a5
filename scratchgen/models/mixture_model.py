"""MixtureModel, the base of the mixtures that EM fits: common methods, and the best of several runs."""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar, overload

import numpy as np

from scratchgen.blocks import by_blocks
from scratchgen.em import CategoricalLaw, Iterate, ObservedMixture, e_step, free_energy
from scratchgen.mixture import Mixture
from scratchgen.models.estimator import Progress, WeightedEstimator, copied, framed
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.training_state import TrainingState
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    IntArray,
    as_count,
    as_generator,
    as_number,
    check_flag,
    has_missing,
)

Law = TypeVar("Law", Mixture, CategoricalLaw)


class MixtureModel(WeightedEstimator):
    """Base of GaussianMixture and CategoricalMixture: a component z = 1..K, and x given z."""

    n_components: int
    tol: float
    max_iter: int
    n_init: int
    weights_: Array
    lower_bounds_: Array
    converged_: bool
    n_iter_: int
    mixture_: Mixture  # GaussianMixture only, as means_ and covariances_
    means_: Array
    covariances_: Array
    probabilities_: Array  # CategoricalMixture only

    def _keep_best(
        self,
        run: Callable[[Law, Sequence[float]], Iterator[Iterate[Law, Any]]],
        start: Callable[[], Law],
        n_runs: int,
        rng: np.random.Generator,
        data: str,
        attributes: Callable[[Law], dict[str, Any]],
        state: TrainingState | None,
    ) -> Iterator[Progress]:
        """Run EM from every start and keep the result with the largest bound; yield after every M-step.

        The loss is minus the bound of the E-step after the M-step.  As soon as the bound of a run exceeds the bounds of
        all earlier runs, the model follows this run to its end, since EM never lowers the bound.

        Parameters
        ----------
        run : (law, bounds before it) → iterates of `em`
        start : () → law
            Draws a start from `rng`.
        n_runs : int
        rng : Generator
        data : str
            Checksum of the data.
        attributes : law → dict
            Fitted attributes.
        state : TrainingState, optional
            The state from which the training goes on.
        """
        best, step, first, leads, arguments = -np.inf, 0, 0, False, copied(self.get_params())
        if state is not None:
            best, step, first = self.lower_bounds_[-1], state.step, int(state.arrays["run"])
        for i in range(first, n_runs):
            if state is None:
                leads, iterates = False, run(start(), ())
            else:  # the first iterate is that of the state
                leads, bounds_before = bool(state.arrays["leads"]), state.arrays["bounds"][:-1]
                iterates, state = islice(run(self._law(state.arrays), bounds_before), 1, None), None
            generator = dict(rng.bit_generator.state)  # no draws follow within a run
            for law, _, bounds, converged in iterates:
                leads, fitted = leads or bounds[-1] > best, attributes(law)
                step += len(bounds) > 1
                now = None
                if i < n_runs - 1 or not (converged or len(bounds) > self.max_iter):
                    arrays = {"bounds": np.array(bounds), "run": i, "n_runs": n_runs, "leads": leads}
                    arrays |= {name: fitted[name] for name in self._law_names}
                    now = TrainingState(step, data, generator, arrays)
                if leads:
                    best, n_iter = bounds[-1], len(bounds) - 1
                    fitted |= {"lower_bounds_": np.array(bounds), "converged_": converged, "n_iter_": n_iter}
                    self.set_fitted(**fitted, training_state_=now)
                self.training_state_ = now
                if len(bounds) > 1:
                    yield Progress(step, n_runs * self.max_iter, -bounds[-1])
                    if now is not None:
                        self._check_arguments(arguments)
        warn_unless_converged(self.converged_, self.lower_bounds_, self.tol)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_count(self.n_components, "n_components")
        as_number(self.tol, "tol", low=0.0)
        as_count(self.max_iter, "max_iter", minimum=0)
        as_count(self.n_init, "n_init")

    def _forms(self, n_features: int) -> dict[str, Form]:
        return {
            "weights_": Form(FLOAT64, (self.n_components,)),
            "lower_bounds_": Form(FLOAT64, (None,)),
            "converged_": Form(("bool",), ()),
            "n_iter_": Form(("int64",), ()),
        }

    def _check_fitted(self, **fitted: Any) -> None:
        check_bounds(**fitted)

    @property
    def _law_names(self) -> list[str]:
        """Names of the fitted attributes that make the law."""
        return [name for name in self._fitted if name not in ("lower_bounds_", "converged_", "n_iter_")]

    @abstractmethod
    def _law(self, fitted: dict[str, Any]) -> Any:
        """The law of fitted attributes, `_law_names`."""

    def _state_forms(self, n_features: int) -> dict[str, Form]:
        forms, number = self._forms(n_features), Form(("int64",), ())
        own = {"bounds": Form(FLOAT64, (None,)), "run": number, "n_runs": number, "leads": Form(("bool",), ())}
        return own | {name: forms[name] for name in self._law_names}

    def _check_state(self, state: TrainingState, fitted: dict[str, Any]) -> None:
        super()._check_state(state, fitted)
        n_runs = as_count(state.arrays["n_runs"], "training.n_runs", maximum=self.n_init)
        as_count(state.arrays["run"], "training.run", minimum=0, maximum=n_runs - 1)
        as_count(len(state.arrays["bounds"]), "length of training.bounds", maximum=self.max_iter + 1)
        self._law(state.arrays)

    @property
    @abstractmethod
    def law_(self) -> Mixture | CategoricalLaw:
        """Fitted distribution; NotFittedError if the model is not fitted."""

    @abstractmethod
    def _numbers_a_row(self) -> int:
        """Numbers in a row of the largest array that `law_` computes."""

    def _by_blocks(self, f: Callable[[Array, Any], Array], x: ArrayLike) -> Array:
        """f(x, law), (N, ...), for x (N, D), and the law of its values: of the observed ones, if some are missing."""
        law, x = self.law_, self._as_fitted_samples(x)
        given = ObservedMixture(law) if isinstance(law, Mixture) and has_missing(x) else law
        return by_blocks(lambda rows: f(x[rows], given), len(x), self._numbers_a_row())

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x), (N,), nats, exact, for x (N, D); for whole numbers log P(x), a probability."""
        return self._by_blocks(lambda x, law: law.log_prob(x), x)

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """The ELBO (8) at q = p_θ(z | x), (N,), nats, which equals `log_prob`; `rng` is not used."""
        as_generator(rng)
        return self._by_blocks(lambda x, law: free_energy(x, e_step(x, law)[0], law), x)

    def predict_proba(self, x: ArrayLike) -> Array:
        """p_θ(z = k | x), (N, K), for x (N, D); the prior weights where p_θ(x) = 0."""
        return self._by_blocks(posterior, x)

    def predict(self, x: ArrayLike) -> IntArray:
        """Most probable component of every x, (N,), for x (N, D)."""
        return self._by_blocks(lambda x, law: posterior(x, law).argmax(axis=1), x)

    def fit_predict(self, x: ArrayLike, y: object = None, *, sample_weight: ArrayLike | None = None) -> IntArray:
        """Fit to x, (N, D), and return the most probable component of every x, (N,); arguments as for `fit`."""
        return self.fit(x, sample_weight=sample_weight).predict(x)

    @overload
    def sample(
        self, n: int, rng: RNG = None, *, return_labels: Literal[False] = False, as_frame: bool = False
    ) -> Array: ...

    @overload
    def sample(
        self, n: int, rng: RNG = None, *, return_labels: Literal[True], as_frame: bool = False
    ) -> tuple[Array, IntArray]: ...

    @framed
    def sample(
        self, n: int, rng: RNG = None, *, return_labels: bool = False, as_frame: bool = False
    ) -> Array | tuple[Array, IntArray]:
        """Draw n examples from p_θ, (n, D).

        Parameters
        ----------
        n : int
        rng : int, Generator or None
        return_labels : bool
            Return a tuple: the examples, and the components 0..K−1 that they were drawn from, (n,) of int.
        as_frame : bool
            Return the examples as a pandas.DataFrame with the names of fit.
        """
        check_flag(return_labels, "return_labels")
        law, rng = self.law_, as_generator(rng)

        def draw(rows: slice) -> Any:
            x, labels = law.sample(rows.stop - rows.start, rng, return_labels=True)
            return (x, labels) if return_labels else x

        return by_blocks(draw, as_count(n, "n", minimum=0), self._numbers_a_row())


def posterior(x: Array, law: Mixture | ObservedMixture | CategoricalLaw) -> Array:
    """p(z = k | x), (N, K), (18), for x (N, D); the prior weights where p(x) = 0."""
    return np.exp(e_step(x, law)[0])


def check_bounds(**fitted: Any) -> None:
    """Raise ValueError unless lower_bounds_ has n_iter_ + 1 numbers, none far below the number before it.

    EM never lowers the bound.  Rounding lowered it by 4e-4 of its size at most in 6500 fits, many of them of nearly
    singular data.
    """
    bounds = fitted["lower_bounds_"]
    if fitted["n_iter_"] < 0 or len(bounds) != fitted["n_iter_"] + 1:
        raise ValueError(
            f"lower_bounds_ must have n_iter_ + 1 numbers, got {len(bounds)} for n_iter_ = {fitted['n_iter_']}"
        )
    if (np.diff(bounds) < -0.1 * (1 + np.abs(bounds[1:]))).any():
        raise ValueError("lower_bounds_ must not fall by a tenth of its size, since EM never lowers the bound")


def warn_unless_converged(converged: bool, bounds: Array, tol: float) -> None:
    """Give a RuntimeWarning with the remedy if EM took all of its max_iter iterations, >= 1, and has not converged."""
    if not converged and len(bounds) > 1:
        warn(
            f"EM has not converged in max_iter = {len(bounds) - 1} iterations: the last one changed the bound by "
            f"{bounds[-1] - bounds[-2]:.2g} nats, and tol is {tol:g}; raise max_iter or tol"
        )


def warn(message: str) -> None:
    """Give a RuntimeWarning for the line outside this package that called `fit`, or runs the loop over `train`."""
    here, level, frame = __name__.partition(".")[0] + ".", 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(here):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def check_enough_rows(x: Array, n_components: int) -> None:
    """Raise ValueError if there are more components than rows of x."""
    if n_components > len(x):
        raise ValueError(
            f"n_components must be at most the {len(x)} rows of x, got {n_components}; "
            "lower it or pass more data (rows of weight 0 are left out)"
        )
