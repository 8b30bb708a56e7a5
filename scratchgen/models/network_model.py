"""NetworkModel, the base of VAE, LinearVAE, DDPM and ScoreSDE: training that validates, stops and resumes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from scratchgen.augmentation import Augmentation, Copies, Deformations, Shifts
from scratchgen.models.estimator import Progress, StandardizedEstimator, copied
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.training_state import TrainingState
from scratchgen.nn import Adam
from scratchgen.validation import Array, DTypeLike, IntArray, as_count, as_number, check_flag, check_type

N_CHECKS = 20  # of the validation bound in a training
N_SEEDS = 2**62  # number of possible seeds, 0, 1, …, of the noise of the checks
STEPS_A_ROW, FEWEST_STEPS, MOST_STEPS = 4, 100, 5000  # of the default number of steps, see `benchmarks.tables`
CHECK_SHARE = 0.3  # calls of the network in all checks over calls in all steps; a step takes the time of three calls


class TrainingLoop(NamedTuple):
    """A training loop, its state, the generator that it draws from, its validation, and a function for its end."""

    losses: Iterator[float]
    state: TrainingState
    rng: np.random.Generator
    validate: Callable[[], float] | None  # mean bound of held-out rows, nats
    finish: Callable[[], None] = lambda: None


class History(NamedTuple):
    """Two curves of a training."""

    steps: IntArray  # 1, 2, …
    losses: Array  # loss of every step, `losses_`
    validation_steps: IntArray  # steps after which the bound was computed; none without `early_stopping`
    validation_bounds: Array  # mean `elbo` of held-out rows on the same noise, nats


def check_moments(arrays: dict[str, Array], m: str, v: str) -> None:
    """Raise ValueError for arrays of a state that are no moments of Adam with its default β₁ and β₂.

    m = Σ β₁ʲ g and v = Σ β₂ʲ g² over the gradients so far, so that m² ≤ v/(1 − β₁²/β₂), by Cauchy and Schwarz.
    """
    if (arrays[v] < 0).any():
        raise ValueError(f"training.{v} must not be negative")
    underflow = 1e-18  # of m where g² is 0 in float32
    if not (np.abs(arrays[m]) <= 2.4 * np.sqrt(arrays[v]) + underflow).all():  # 2.4 > (1 − 0.9²/0.999)^(−½)
        raise ValueError(f"training.{m} must not exceed 2.4 times the square root of training.{v}")


@dataclass(eq=False, repr=False, kw_only=True)
class NetworkModel(StandardizedEstimator):
    """Base of the models that train a network by gradient steps.

    With `early_stopping` the bound of rows that are held out is computed about every 5 % of the steps, and the model
    keeps the weights with the best bound.
    """

    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 5
    losses_: Array = field(init=False)
    validation_steps_: IntArray = field(init=False)
    validation_bounds_: Array = field(init=False)
    n_steps_: int = field(init=False)
    _weights: ClassVar[tuple[str, ...]]  # names of the attributes with the parameters of the model
    if TYPE_CHECKING:
        n_steps: int | None  # an argument of every subclass, which has its own default
    augment: ClassVar[Augmentation | None] = None  # an argument of all subclasses but LinearVAE

    def _planned_steps(self, n: int) -> int:
        """Number of steps for n rows of training: `n_steps`; for None 4n, but at least 100 and at most 5000."""
        if self.n_steps is None:
            return min(max(STEPS_A_ROW * n, FEWEST_STEPS), MOST_STEPS)
        return as_count(self.n_steps, "n_steps")

    @property
    @abstractmethod
    def _n_calls(self) -> int:
        """Number of calls of the network in the bound of one example."""

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._planned_steps(1)
        check_flag(self.early_stopping, "early_stopping")
        as_number(self.validation_fraction, "validation_fraction", low=0.0, high=1 - 1e-9, open_low=True)
        as_count(self.n_iter_no_change, "n_iter_no_change")
        if self.augment is not None:
            check_type(self.augment, (Shifts, Deformations), "augment", "from scratchgen.augmentation, or None")
        if isinstance(self.augment, Deformations) and self.n_levels != 17:
            raise ValueError(f"augment={self.augment} needs n_levels=17, got {self.n_levels}; set it, or pass Shifts()")

    def _copies(self, x: Array, dtype: DTypeLike) -> Copies | None:
        """Function that draws copies by `augment` of rows of x, (N, D); None without `augment`.

        The copies are in the model's units, and in the dtype of training as the numbers told.
        """
        if self.augment is None:
            return None
        augment, pictures = self.augment, self.augment.pictures(x)

        def draw(rows: IntArray, rng: np.random.Generator) -> tuple[Array, Array]:
            images, told = augment.draw(pictures[rows], rng)
            return self._in_units(images).astype(dtype), told.astype(dtype)

        return draw

    def _forms(self, n_features: int) -> dict[str, Form]:
        path = Form(FLOAT64, (None,))
        curves = {"losses_": path, "validation_steps_": Form(("int64",), (None,)), "validation_bounds_": path}
        return super()._forms(n_features) | curves | {"n_steps_": Form(("int64",), ())}

    def _check_fitted(self, **fitted: Any) -> None:
        super()._check_fitted(**fitted)
        n_steps = as_count(fitted["n_steps_"], "n_steps_")
        if self.n_steps not in (None, n_steps):
            raise ValueError(f"n_steps_ must be n_steps = {self.n_steps}, got {n_steps}")
        steps, n_losses = fitted["validation_steps_"], len(fitted["losses_"])
        if n_losses > n_steps:
            raise ValueError(f"losses_ must have n_steps_ = {n_steps} numbers at most, got {n_losses}")
        rise = (np.diff(steps, prepend=0, append=n_losses + 1) >= 1).all()
        if not rise or len(steps) != len(fitted["validation_bounds_"]):
            raise ValueError(f"validation_steps_ must rise within 1..{n_losses}, with a bound for each, got {steps}")

    def _check_state(self, state: TrainingState, fitted: dict[str, Any]) -> None:
        super()._check_state(state, fitted)
        n_steps, n_losses = fitted["n_steps_"], len(fitted["losses_"])
        if not state.step <= min(n_losses, n_steps - 1):
            raise ValueError(
                f"training: step must be below n_steps={n_steps}, with a loss a step, got {state.step} with {n_losses}"
            )
        if self.early_stopping:
            as_count(state.arrays["noise_seed"], "training.noise_seed", minimum=0, maximum=N_SEEDS - 1)
            rows = state.arrays["held_out"]
            if not len(rows) or rows.min() < 0 or len(np.unique(rows)) < len(rows):
                raise ValueError(f"training.held_out must be different rows from 0, one at least, got {rows!r:.60}")

    def _follow(self, begin: Callable[[bool], TrainingLoop], resume: bool) -> Iterator[Progress]:
        """Run a training loop to the end, and yield after every step.

        Between two steps `training_state_` is made of the arrays that the loop changes.  Within a step, where Ctrl-C
        leaves some of them changed, it is a copy, made after every hundredth part of the steps; the model then returns
        to this copy.  If the first step fails, the model is as it was before the training.

        Parameters
        ----------
        begin : resume → TrainingLoop
            Sets the untrained model, or with `resume` that of `training_state_`, and returns the loop.
        resume : bool
        """
        attributes, arguments = dict(vars(self)), copied(self.get_params())
        try:
            losses, state, rng, validate, finish = begin(resume)
        except BaseException:
            self._return_to(attributes)
            raise
        before = None if resume else attributes
        self._cut_history(state.step)
        n_steps = self.n_steps_
        path, check_every = np.empty(n_steps), self._steps_between_checks
        path[: state.step] = self.losses_
        kept, every = state.copy(), max(n_steps // 100, 1)
        for step in range(state.step + 1, n_steps + 1):
            self.training_state_ = kept
            try:
                path[step - 1], last = next(losses), step == n_steps
                self.losses_ = path[:step]
                if validate is not None and (last or step % check_every == 0):
                    last = self._check_bound(step, validate, state.arrays) or last
                if last:
                    for name in self._weights if validate is not None else ():
                        getattr(self, name)[...] = state.arrays[f"best_{name}"]
                    finish()
            except BaseException as error:
                self._undo(error, state, kept, before)
                raise
            before = None
            state = TrainingState(step, state.checksum, dict(rng.bit_generator.state), state.arrays)
            if step % every == 0:
                kept = state.copy()
            self.training_state_ = None if last else state
            yield Progress(step, n_steps, float(path[step - 1]))
            if last:
                return
            self._check_arguments(arguments)

    def _check_bound(self, step: int, validate: Callable[[], float], arrays: dict[str, Any]) -> bool:
        """Compute and keep the validation bound, and the weights if it is the best; return whether training shall stop.

        Raises
        ------
        ArithmeticError
            If the bound is not finite.
        """
        try:
            bound = validate()
        except ArithmeticError as error:
            kept = f"after step {step}" if step > 1 else "from before the training"
            raise ArithmeticError(
                f"training diverged in step {step}: the bound of the held-out rows is not finite, and the parameters "
                f"are those {kept}; lower learning_rate, or drop outliers of x"
            ) from error
        self.validation_steps_ = np.append(self.validation_steps_, step)
        self.validation_bounds_ = np.append(self.validation_bounds_, bound)
        n_since = len(self.validation_bounds_) - 1 - int(self.validation_bounds_.argmax())
        if n_since == 0:
            for name in self._weights:
                arrays[f"best_{name}"][...] = getattr(self, name)
        return n_since >= self.n_iter_no_change

    def _cut_history(self, step: int) -> None:
        """Forget losses and validation bounds after a step."""
        n = int(np.searchsorted(self.validation_steps_, step, side="right"))
        self.losses_ = self.losses_[:step]
        self.validation_steps_, self.validation_bounds_ = self.validation_steps_[:n], self.validation_bounds_[:n]

    @property
    def _steps_between_checks(self) -> int:
        return -(-self.n_steps_ // N_CHECKS)

    def _state_of(
        self,
        arrays: dict[str, Any],
        held: dict[str, Any],
        adams: Sequence[Adam],
        data: str,
        rng: np.random.Generator,
        state: TrainingState | None,
    ) -> TrainingState:
        """The state that is made of the arrays of a training, which first go back to `state` if it is given.

        Parameters
        ----------
        arrays : dict
            The arrays that the loop changes, by name.
        held : dict
            From `_hold_out`; the best weights are then a part of the state.
        adams : sequence of Adam
            Their numbers of steps go back as well.
        data : str
            Checksum of the data.
        rng : Generator
        state : TrainingState, optional
        """
        if held:
            arrays = arrays | {f"best_{name}": getattr(self, name).copy() for name in self._weights}
        if state is not None:
            for adam in adams:
                adam.n_steps = state.step
            for name, array in arrays.items():
                array[...] = state.arrays[name]
        step = 0 if state is None else state.step
        return TrainingState(step, data, dict(rng.bit_generator.state), arrays | held)

    def _hold_out(self, n: int, rng: np.random.Generator, state: TrainingState | None) -> dict[str, Any]:
        """Rows of x, (N, D), for the validation, and the seed of its noise, from rng or a state; or {}."""
        if not self.early_stopping:
            return {}
        if state is None:
            n_held = max(1, round(self.validation_fraction * n))
            if n_held >= n:
                raise ValueError(
                    f"x must have more than the {n_held} row(s) that validation_fraction holds out, got {n}; pass more "
                    "rows, or early_stopping=False"
                )
            return {"held_out": rng.permutation(n)[:n_held], "noise_seed": int(rng.integers(N_SEEDS))}
        held_out = state.arrays["held_out"]
        if not 0 < len(np.intersect1d(held_out, np.arange(n))) == len(held_out) < n:
            raise ValueError(f"the held-out rows of the state must be different rows of the {n} of x; call fit(x)")
        return {"held_out": held_out, "noise_seed": state.arrays["noise_seed"]}

    def _validation(
        self, x: Array, held: dict[str, Any], batch: int, labels: IntArray | None = None
    ) -> Callable[[], float] | None:
        """Function that computes the mean bound of held-out rows of x, (N, D), on the same noise every time.

        All checks together take about a tenth of the training's time, which limits the number of rows; a check uses at
        most 512 rows, and 32 even if these take longer.

        Parameters
        ----------
        x : (N, D)
        held : dict
            From `_hold_out`.
        batch : int
            Examples in a step of training.
        labels : (N,) of int, optional
        """
        if not held:
            return None
        affordable = int(CHECK_SHARE * self._steps_between_checks * batch / self._n_calls)
        rows = held["held_out"][: min(512, max(affordable, 32))]
        data, given = x[rows], {} if labels is None else {"y": labels[rows]}
        self.to_model(self._as_fitted_samples(data))  # refuses rows that the units of the other rows do not allow
        return lambda: float(self.elbo(data, rng=held["noise_seed"], **given).mean())

    def _validation_forms(self, forms: dict[str, Form]) -> dict[str, Form]:
        """Forms of the arrays of a state that belong to the validation; `forms` are those of the fitted attributes."""
        if not self.early_stopping:
            return {}
        best = {f"best_{name}": forms[name] for name in self._weights}
        return {"held_out": Form(("int64",), (None,)), "noise_seed": Form(("int64",), ()), **best}

    @property
    def history_(self) -> History:
        """Training loss and validation bound by step; the bounds with `early_stopping` only.

        >>> from scratchgen import VAE
        >>> x = np.random.default_rng(0).standard_normal((100, 2))
        >>> history = VAE(1, hidden=(8,), n_steps=100, early_stopping=True, rng=0).fit(x).history_
        >>> history.losses.shape, history.validation_steps[:3]
        ((100,), array([ 5, 10, 15]))
        """
        steps = np.arange(1, len(self.losses_) + 1)
        return History(steps, self.losses_, self.validation_steps_, self.validation_bounds_)

    def _report(self, progress: Progress) -> str:
        """Mean of the last 100 losses and the last validation bound, as text for `verbose`."""
        loss = f"loss {self.losses_[-100:].mean():.4g}"
        return loss + "".join(f", validation bound {bound:.4g} nats" for bound in self.validation_bounds_[-1:])

    def set_fitted(self, **fitted: Any) -> Self:
        """Set fitted attributes; by default there are no validation bounds."""
        none = {"validation_steps_": np.zeros(0, dtype=np.int64), "validation_bounds_": np.zeros(0)}
        return super().set_fitted(**(none | fitted))

    def _return_to(self, attributes: dict[str, Any]) -> None:
        vars(self).clear()
        vars(self).update(attributes)

    def _undo(
        self, error: BaseException, state: TrainingState, kept: TrainingState, before: dict[str, Any] | None
    ) -> None:
        """Return to `before` or to the state `kept`; after a divergence stay at the last good step, without a state."""
        if before is not None:
            self._return_to(before)
        elif isinstance(error, ArithmeticError):
            self.training_state_ = None
        else:
            for name, array in state.arrays.items():
                if isinstance(array, np.ndarray):
                    array[...] = kept.arrays[name]
            self._cut_history(kept.step)
