"""The code handed to `audit`, adapted to the signatures of the checks; one function a check."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, xlogy

from scratchgen.conformance.arguments import CodeWarning, check_callable, warn_of_changes
from scratchgen.conformance.convention import DTYPES, Convention, as_numpy
from scratchgen.conformance.em import check_e_step, check_em, log_joint_by_inverses, normalised
from scratchgen.conformance.forward import (
    check_forward_process,
    check_forward_step,
    check_posterior,
    check_predict_x0,
    check_schedule,
)
from scratchgen.conformance.likelihood import check_diagonal_kl, check_gaussian_kl, check_kl
from scratchgen.conformance.result import ALSO, AT_SINGLE, NAMELESS, Check, compare, worst
from scratchgen.conformance.returns import described, refuse_objects, several
from scratchgen.conformance.reverse import check_ancestral_step, check_ddim_step
from scratchgen.conformance.reverse_samplers import check_heun, check_reverse_sampler
from scratchgen.conformance.reverse_sde import check_reverse_sde, check_reverse_step
from scratchgen.conformance.score import check_log_prob
from scratchgen.conformance.sde import check_sde
from scratchgen.conformance.trained import check_bound_of, check_flow_likelihood_of, check_loss_of, check_sampler_of
from scratchgen.conformance.vae import (
    check_bernoulli_loss,
    check_importance_weighted_bound,
    check_reparameterisation,
    check_vae_loss,
)
from scratchgen.ddpm import reverse_variance
from scratchgen.likelihood import kl_diag_standard, softmax
from scratchgen.mixture import Mixture
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import LinearSDE
from scratchgen.validation import Array, IntArray, as_choice, as_number, as_samples

SINGLE_TOLERANCE = 1e-5  # of code in float32
REPEATABLE = 1e-3  # two calls of the code that differ by less than this part of the result may differ by rounding
STEPS_OF_DDIM = 12  # number of steps of the chain, clean data beside them, between which DDIM is checked
LIKELIHOODS = ("gaussian", "bernoulli")
LEFT_AT_THE_END = 0.05  # more of x_0 than this in x_T makes N(0, I) another start than q(x_T)
FLOW_PREDICTIONS = ("score", "noise", "x0")
OF_THE_CHECKS = 3  # dimensions of the data of the chain and of the SDE


def waves(*shape: int, shift: float = 0.0) -> Array:
    """Irregular numbers in [−1, 1] without a random generator."""
    return np.sin(1.7 * np.arange(1, 1 + int(np.prod(shape))) ** 1.3 + shift).reshape(shape)


def normal(*shape: int) -> Array:
    """The same standard normal numbers in every call."""
    return np.random.default_rng(0).standard_normal(shape)


class Case:
    """The arguments of `audit`: the problem, the convention, and the code as functions of NumPy arrays.

    Raises
    ------
    TypeError, ValueError
        If an argument of the problem or of the convention is wrong.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.last: dict[str, tuple[list[Any], Any]] = {}  # arguments and result of the last call of each function
        self.among: Callable[..., Array] = np.max  # of the dimensions with equal numbers
        betas, x0 = given["betas"], given["x0"]
        table = None if betas is None else as_numpy(betas)
        self.schedule_or_none = None if table is None else _schedule(table)
        self.sde_or_none: LinearSDE | None = given["sde"]
        if self.sde_or_none is not None and not isinstance(self.sde_or_none, LinearSDE):
            raise ValueError(f"sde must be a LinearSDE such as VP(0.1, 20.0), got {self.sde_or_none!r}")
        examples = None if x0 is None else as_numpy(x0)
        if examples is not None and (examples.ndim < 2 or not len(examples)):
            raise ValueError(f"x0 must have shape (N, …) with one example a row, got {examples.shape}")
        self.x0 = None if examples is None else as_samples(examples.reshape(len(examples), -1), "x0").astype(np.float64)
        if self.x0 is not None and not self.x0.any():
            raise ValueError("x0 must hold examples of your data, got zero everywhere; mistakes would not show")
        own = "float32" if table is not None and table.dtype == np.float32 else "float64"
        wanted = own if given["dtype"] is None else given["dtype"]
        self.dtype = as_choice(str(getattr(wanted, "__name__", wanted)).removeprefix("torch."), "dtype", DTYPES)
        self.convention = Convention(
            zero_based=given["zero_based"],
            batched_t=given["batched_t"],
            prediction="noise" if given["prediction"] is None else given["prediction"],
            in_sigma=given["in_sigma"],
            posterior_spread=given["posterior_spread"],
            latent_spread=given["latent_spread"],
            dtype=self.dtype,
            arrays=given["arrays"],
            shape=None if examples is None else examples.shape[1:],
        )
        as_choice(given["reduction"], "reduction", ("sum", "mean"))
        as_choice(given["likelihood"], "likelihood", LIKELIHOODS)
        as_number(given["ridge"], "ridge", low=0.0)
        for name in ("last_noise", "clipped_posterior"):
            if not isinstance(given[name], bool):
                raise ValueError(f"{name} must be True or False, got {given[name]!r}")
        if given["prior_std"] is not None:
            as_number(given["prior_std"], "prior_std", low=0.0, open_low=True)
        if not isinstance(given["etas"], tuple | list) or not given["etas"]:
            raise ValueError(f"etas must be a tuple of numbers in [0, 1], such as (0.0,), got {given['etas']!r}")
        for eta in (*given["etas"], *([] if given["sampler_eta"] is None else [given["sampler_eta"]])):
            as_number(eta, "etas or sampler_eta", low=0.0, high=1.0)
        if self.schedule_or_none is not None:
            T = self.schedule.T
            if T == 1 and given["clipped_posterior"]:
                raise ValueError(
                    "clipped_posterior must be False for one step, T = 1, since the variance of t = 1 is replaced by "
                    "that of t = 2; pass clipped_posterior=False"
                )
            for name in ("variance", "loss_weight"):
                shape = (T,) if isinstance(given[name], str | None) else as_numpy(given[name]).shape
                if shape != (T,):
                    raise ValueError(f"{name} must have the shape ({T},), one number for each t = 1..{T}, got {shape}")
                table = np.ones(T) if isinstance(given[name], str | None) else as_numpy(given[name])
                right = np.isfinite(table) & ((table > 0) if name == "variance" else (table >= 0))
                if not right.all():
                    least = "positive" if name == "variance" else "not negative"
                    at, advice = int(np.argmin(right)), ""
                    if name == "variance" and table[0] == 0 and right[1:].all():
                        same = np.allclose(table[1:], reverse_variance(self.schedule, "posterior")[2:])
                        other = 'variance="posterior"' if same else "any positive number at t = 1"
                        advice = f"; if your last step adds no noise, pass last_noise=False and {other}"
                    wanted = f"{name} must be finite and {least} for each t = 1..{T}"
                    raise ValueError(f"{wanted}, got {table[at]} at t = {at + 1}{advice}")
            reverse_variance(self.schedule, self.variance)

    # --- the problem --------------------------------------------------------------------------------------------------

    @property
    def schedule(self) -> NoiseSchedule:
        """The chain; `audit` refuses functions of the chain without betas."""
        assert self.schedule_or_none is not None
        return self.schedule_or_none

    @property
    def sde(self) -> LinearSDE:
        """The process of continuous time."""
        assert self.sde_or_none is not None
        return self.sde_or_none

    @property
    def examples(self) -> Array:
        """x_0, (N, D)."""
        assert self.x0 is not None
        return self.x0

    @property
    def variance(self) -> str | Array:
        """σ_t² as the package takes it: a name, or (T+1,)."""
        variance = self.given["variance"]
        return variance if isinstance(variance, str) else np.append(0.0, np.asarray(as_numpy(variance), dtype=float))

    @property
    def title(self) -> str:
        """The problem and the convention, in words."""
        chain = self.schedule_or_none and f"T = {self.schedule.T}, t counts from {int(not self.convention.zero_based)}"
        return ", ".join(str(part) for part in (chain, self.sde_or_none, self.dtype) if part)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the problem, for which no check fails."""
        if self.schedule_or_none is None or (left := float(self.schedule.alpha_bar[-1])) <= LEFT_AT_THE_END:
            return ()
        return (
            f"x_T = {left:.2g} x_0 + {self.schedule.beta_bar[-1]:.2g} ε, so that N(0, I) is another distribution to "
            f"start from.  A factor of x_0 up to {LEFT_AT_THE_END} is usual; take more steps or larger betas.",
        )

    # --- the code -----------------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the code under test; an error gets a note that says with which arguments.

        All arrays among the arguments are copies.  A `CodeWarning` says which of them the code changes in place.
        """
        before = [_copied(a) for a in arguments]
        try:
            value = self.given[name](*arguments)
            _check_result(value, name)
        except Exception as error:
            error.add_note(_called(name, arguments))
            raise
        warn_of_changes(self.given[name], name, before, [_copied(a) for a in arguments])
        self.last[name] = before, value
        return value

    def apart(self, name: str) -> float:
        """The largest difference between the last call of the code and the same call again; 0 if it is rounding."""
        if name not in self.last:
            return 0.0
        before, value = self.last[name]
        try:
            with np.errstate(all="ignore"):
                again = self.given[name](*(self.given["arrays"](a) if isinstance(a, np.ndarray) else a for a in before))
            first, second = (np.asarray(as_numpy(result), dtype=np.float64) for result in (value, again))
            differ = float(np.abs(first - second).max(initial=0.0))
        except Exception:  # a second call that raises says nothing on the first
            return 0.0
        return differ if differ > REPEATABLE * np.abs(first).max(initial=0.0) else 0.0

    def among_equal(self, among: Callable[..., Array]) -> Case:
        """The same case; of the dimensions that get equal numbers it reads the least or the largest result."""
        case = copy.copy(self)
        case.among = among
        return case

    def data(self, x: Array, columns: IntArray) -> Any:
        """Examples (…, D) of a check as the code takes them, with these dimensions."""
        return self.convention.data(x[..., columns])

    def at_step(self, name: str, t: Any, *arrays: Array) -> Array:
        """A function of the chain, name(t, *arrays), as a function of NumPy arrays."""
        time = self.convention.time(t, len(arrays[0]))
        return self.on_examples(name, arrays[0], lambda columns: (time, *(self.data(a, columns) for a in arrays)))

    def on_examples(self, name: str, like: Array, arguments: Callable[[IntArray], tuple[Any, ...]]) -> Array:
        """A result of one array an example, (…, D) as `like`, from the arguments for the dimensions of each call."""
        calls = [(columns, arguments(columns)) for columns in self.convention.columns(like.shape[-1])]
        values = [self.as_examples(name, self.call(name, *given), like[..., c], given) for c, given in calls]
        return self.read(values, like.shape[-1])

    def as_examples(self, name: str, value: Any, like: Array, arguments: tuple[Any, ...]) -> Array:
        """A result of one call as an array of the shape of `like`; ValueError that names the code for another shape."""
        raw = as_numpy(value)
        array = self.convention.examples(raw, like)
        if array.shape != like.shape:
            wanted = np.shape(as_numpy(self.convention.data(like)))
            error = ValueError(f"{name} must return an array of shape {wanted}, as its argument, got shape {raw.shape}")
            error.add_note(_called(name, arguments))
            if self.x0 is None:
                error.add_note(OWN_SHAPE)
            raise error
        return array

    def read(self, values: list[Array], n: int) -> Array:
        """The n dimensions of a check, (…, n), from the results (…, D) of all calls."""
        first = np.concatenate(values, axis=-1)
        if len(values) > 1 or first.shape[-1] == n:
            return first[..., :n]
        return np.stack([self.among(first[..., i::n], axis=-1) for i in range(n)], axis=-1)

    def on_arrays(self, name: str, *arguments: Any) -> Any:
        """A function of plain arrays."""
        return as_numpy(self.call(name, *(a if isinstance(a, float) else self.convention.plain(a) for a in arguments)))

    def by_example(self, name: str, batches: list[tuple[Array, Array]], *arguments: Any) -> Any:
        """A loss of plain arrays, (N,); if it is one number for the batch, each example is passed alone.

        The number for the batch and the losses of its examples then join `batches`.
        """
        value = self.on_arrays(name, *arguments)
        if value.ndim:
            return value
        alone = [[a if isinstance(a, float) else a[[n]] for a in arguments] for n in range(len(arguments[0]))]
        losses = np.array([self.on_arrays(name, *row) for row in alone])
        batches.append((value, losses))
        return losses

    def net(self, *arguments: Any) -> Any:
        """The network of the chain."""
        return self.call("eps_hat", *arguments)

    def output(self, t: Any, x_t: Array, eps_hat: Array) -> Array:
        """The result of a network of this prediction that corresponds to ε̂, which the checks use."""
        return self.convention.output(self.schedule, t, x_t, eps_hat)

    def clock(self, t: float, n: int) -> Any:
        """A time of the SDE as the code takes it."""
        return self.convention.plain(np.full(n, t)) if self.convention.batched_t else float(t)

    def in_time(self, name: str, x: Array, t: float, *arrays: Array) -> Array:
        """A function of the SDE, name(x, t, *arrays)."""
        clock = self.clock(t, len(x))
        return self.on_examples(name, x, lambda c: (self.data(x, c), clock, *(self.data(a, c) for a in arrays)))

    def coefficient(self, name: str, t: float) -> Any:
        """A function of the time alone: a number, or a pair of numbers."""
        value = self.call(name, self.clock(t, 1))
        if isinstance(value, tuple | list):
            return tuple(np.ravel(as_numpy(part))[0] for part in value)
        return np.ravel(as_numpy(value))[0]

    def for_code(self, score: Callable[[Array, float], Array], columns: IntArray) -> Callable[[Any, Any], Any]:
        """A score of the checks, without products of dimensions, as a function of the code's own arrays."""
        n = OF_THE_CHECKS
        places = columns + n * (np.arange(len(columns)) // n)

        def value(x: Any, t: Any) -> Any:
            array = as_numpy(x)
            time = float(np.ravel(as_numpy(t))[0])
            wide = np.zeros((len(array), -(-len(columns) // n) * n))
            wide[:, places] = array.reshape(len(array), -1)
            result = score(wide.reshape(-1, n), time).reshape(wide.shape)[:, places]
            return self.convention.plain(result.reshape(array.shape))

        return value

    def score(self, x: Array, t: float) -> Array:
        """The score of the code's own network of continuous time."""
        value = self.in_time("score", x, t)
        scale, std = self.sde.level(t)
        kind = "score" if self.given["prediction"] is None else self.given["prediction"]
        as_choice(kind, "prediction", FLOW_PREDICTIONS)
        score = {"score": value, "noise": -value / std, "x0": (scale * value - x) / std**2}[kind]
        return score.astype(value.dtype)


def _schedule(betas: Array) -> NoiseSchedule:
    """The chain; an error calls the table `betas`."""
    try:
        return NoiseSchedule(betas)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("variances", "betas")) from None


RESULTS = {  # names of the results of functions that return several
    "q_posterior": ("mean", "spread"),
    "marginal": ("scale", "std"),
    "m_step": ("weights", "means", "covariances"),
}
SEQUENCES = ("bound", "sampler")  # these may return a tuple of arrays of one shape: terms, or a path


def _check_result(value: Any, name: str) -> None:
    """Raise TypeError or ValueError unless `value` holds as many arrays of real numbers as `name` must return."""
    many = isinstance(value, tuple | list)
    wanted = RESULTS.get(name, ())
    if wanted:
        if not many or len(value) != len(wanted):
            count = {2: "two", 3: "three"}[len(wanted)]
            raise ValueError(f"{name} must return {count} results, ({', '.join(wanted)}), got {described(value)}")
    elif isinstance(value, tuple) and name not in SEQUENCES:
        raise ValueError(f"{name} must return one array, got {described(value)}; return the one that is checked")
    results = value if wanted else [value]
    for part in value if many else [value]:
        refuse_objects(part, name)
    for result in results:
        try:
            as_numpy(result)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must return real numbers: {error}") from None


OWN_SHAPE = "your code gets data of shape (N, 3) without x0; pass x0 with a few examples of its own shape"


def _called(name: str, arguments: tuple[Any, ...]) -> str:
    return f"called as {name}({', '.join(map(_described, arguments))})"


def _copied(argument: Any) -> Any:
    """A copy of an array as NumPy's; anything else as it is."""
    return np.array(as_numpy(argument)) if hasattr(argument, "shape") else argument


def _is_right(case: Case, check: Check) -> bool:
    """Whether the residual is within the tolerance for the precision of the code."""
    return check.residual <= max(check.tolerance, SINGLE_TOLERANCE if case.dtype == "float32" else 0.0)


def _described(argument: Any) -> str:
    shape = getattr(argument, "shape", None)
    if shape is None or shape == ():
        return repr(argument) if isinstance(argument, int | float) else type(argument).__name__
    return f"{getattr(argument, 'dtype', type(argument).__name__)} {tuple(shape)}"


# --- the chain --------------------------------------------------------------------------------------------------------


def _tables(case: Case) -> Check:
    table = np.asarray(as_numpy(case.given["alphas_cumprod"]), dtype=np.float64)
    if table.shape != (case.schedule.T,):
        raise ValueError(f"alphas_cumprod must have shape (T,) = ({case.schedule.T},), got {table.shape}")
    check = check_schedule(
        case.schedule, np.sqrt(np.append(1.0, table)), np.sqrt(np.maximum(np.append(0.0, 1 - table), 0.0))
    )
    return _told(
        check,
        lambda text: text.replace("ᾱ at t", "ᾱ (the root of alphas_cumprod) at t").replace(
            "β̄ at t", "β̄ (the root of 1 − alphas_cumprod) at t"
        ),
    )


def _q_step(case: Case) -> Check:
    return check_forward_step(lambda t, x, noise: case.at_step("q_step", t, x, noise), case.schedule)


def _q_sample(case: Case) -> Check:
    return check_forward_process(lambda t, x, noise: case.at_step("q_sample", t, x, noise), case.schedule)


def _q_posterior(case: Case) -> Check:
    convention = case.convention

    def variance_of(spread: Any, n: int) -> Array:
        """A number, one an example, (n, 1), or one an entry, (n, D)."""
        variance = convention.variance(spread)
        if variance.size in (1, n):
            return variance.reshape(() if variance.size == 1 else (-1, 1))
        shape = (n, *(convention.shape or (OF_THE_CHECKS,)))
        try:
            return np.broadcast_to(variance, shape).reshape(n, -1)
        except ValueError:
            raise ValueError(
                f"the variance of q_posterior must be a number or broadcast to {shape}, got {variance.shape}"
            ) from None

    def q_posterior(t: Any, x_t: Array, x0: Array) -> tuple[Array, Array]:
        time, (n, D) = convention.time(t, len(x0)), x0.shape
        means, variances = [], []
        for columns in convention.columns(D):
            given = time, case.data(x_t, columns), case.data(x0, columns)
            mean, spread = case.call("q_posterior", *given)
            means.append(case.as_examples("q_posterior", mean, x0[:, columns], given))
            variances.append(variance_of(spread, n))
        of_entries = variances[0].ndim == 2 and variances[0].shape[1] > 1
        return case.read(means, D), case.read(variances, D) if of_entries else variances[0]

    return check_posterior(q_posterior, case.schedule, case.given["clipped_posterior"])


def _predict_x0(case: Case) -> Check:
    def predict_x0(t: Any, x_t: Array, eps_hat: Array) -> Array:
        return case.at_step("predict_x0", t, x_t, case.output(t, x_t, eps_hat))

    return check_predict_x0(predict_x0, case.schedule)


def _step(case: Case) -> Check:
    sigma_squared = reverse_variance(case.schedule, case.variance)
    if not case.given["last_noise"]:
        sigma_squared[1] = 0.0

    def step(t: Any, x_t: Array, eps_hat: Array, noise: Array) -> Array:
        return case.at_step("step", t, x_t, case.output(t, x_t, eps_hat), noise)

    return check_ancestral_step(step, case.schedule, sigma_squared)


def _steps_of_ddim(case: Case) -> IntArray:
    n = min(STEPS_OF_DDIM, case.schedule.T)
    return np.unique(np.rint(np.linspace(1, case.schedule.T, n)).astype(np.int64))


def _ddim(case: Case) -> Check:
    """DDIM between some steps of the chain: x_s depends on the levels of t and s only, so a short chain is enough."""
    steps, time = _steps_of_ddim(case), case.convention.time
    at = np.append(0, steps)

    def of(eta: float) -> Callable[..., Array]:
        def step(i: Any, j: Any, x_t: Array, eps_hat: Array, noise: Array) -> Array:
            t, s, N = at[i], at[j], len(x_t)
            times, arrays = (time(t, N), time(s, N)), (x_t, case.output(t, x_t, eps_hat), noise)
            return case.on_examples("ddim", x_t, lambda c: (*times, *(case.data(a, c) for a in arrays), eta))

        return step

    short = case.schedule.respace(steps)
    checks = [check_ddim_step(of(eta), short, eta) for eta in case.given["etas"]]
    found, ignored = worst(*checks), "η is ignored"
    small = 0.01 * found.residual  # the rounding of float32, for an η at which the step is right
    if not all(check.residual < small or ignored in check.diagnosis + check.in_single for check in checks) and (
        ignored in found.diagnosis + found.in_single
    ):
        return replace(found, diagnosis=f"{found.diagnosis.split('; ')[0]}; {NAMELESS}", in_single="")
    return found


def _loss(case: Case) -> Check:
    convention, weight, kind = case.convention, case.given["loss_weight"], case.convention.prediction
    of_score = kind == "score"  # its loss is that of the noise, β̄² ‖s + ε/β̄‖²

    def at(t: Any, x0: Array, noise: Array) -> Any:
        data = convention.data(x0), convention.data(noise)
        return as_numpy(case.call("loss", convention.time(t, len(x0)), *data))

    def loss(t: IntArray, x0: Array, noise: Array) -> Any:
        if convention.batched_t:
            return at(t, x0, noise)
        return np.array([np.ravel(at(int(t[n]), x0[[n]], noise[[n]]))[0] for n in range(len(x0))])

    return check_loss_of(
        loss,
        (convention.noise if of_score else convention.network)(case.net, case.schedule),
        case.examples,
        normal(*case.examples.shape),
        case.schedule,
        prediction="noise" if of_score else kind,
        weight=None if weight is None else np.append(0.0, as_numpy(weight)),
        reduction=case.given["reduction"],
    )


def _bound(case: Case) -> Check:
    convention = case.convention
    return check_bound_of(
        lambda x0, noise: as_numpy(case.call("bound", convention.data(x0), convention.data(noise))),
        convention.noise(case.net, case.schedule),
        case.examples,
        normal(case.schedule.T, *case.examples.shape),
        case.schedule,
        case.variance,
        case.given["n_levels"],
    )


def _sampler(case: Case) -> Check:
    convention, N_D = case.convention, case.examples.shape
    start, *noise = normal(case.schedule.T + 1, *N_D)

    def sample(x_T: Array, noise: Array) -> Array:
        value = as_numpy(case.call("sampler", convention.data(x_T), convention.data(noise)))
        return value.reshape(-1, *N_D) if value.size > x_T.size else value.reshape(N_D)

    return check_sampler_of(
        sample,
        convention.noise(case.net, case.schedule),
        start,
        np.stack(noise),
        case.schedule,
        case.variance,
        case.given["sampler_eta"],
        case.given["last_noise"],
    )


# --- continuous time --------------------------------------------------------------------------------------------------

MEAN, COVARIANCE = np.array([0.4, -0.7, 0.2]), np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.4]])
GRID = np.array([1.0, 0.7, 0.45, 0.2, 0.08])  # falling times, in units of the horizon


def _marginal(case: Case) -> Check:
    """The marginal solves the SDE of drift and diffusion, and is that of the given sde."""
    check = check_sde(
        lambda t: case.coefficient("marginal", t),
        lambda x, t: case.in_time("drift", x, t),
        lambda t: case.coefficient("diffusion", t),
        case.sde.horizon,
    )
    tolerance = max(check.tolerance, SINGLE_TOLERANCE if case.dtype == "float32" else 0.0)
    times, (scale_0, std_0) = case.sde.horizon * GRID, case.coefficient("marginal", 0.0)
    scale, std = np.array([case.sde.level(t) for t in times.tolist()]).T
    names = [f"t = {t:g}" for t in times], ("scale of the marginal", "std of the marginal")
    same = compare(
        "check_sde",
        "(31)",
        "(scale, std) of the given sde",
        [case.coefficient("marginal", t) for t in times.tolist()],
        np.column_stack([scale_0 * scale, np.hypot(scale * std_0, std)]),  # the start may have a small noise
        tolerance,
        relative=True,
        labels=lambda index: ": ".join(part[i] for part, i in zip(names, index, strict=True)),
        by_code=True,
    )
    if check.residual > tolerance:
        return _of_rates(case, check, times, tolerance) if same else check
    return check if same else _told(same, lambda text: f"{text}; the process is not the given sde, {case.sde}")


def _of_rates(case: Case, check: Check, times: Array, tolerance: float) -> Check:
    """The failed check of a right marginal with the numbers of the drift or the diffusion that does not fit it."""
    x, t_of = np.array([[1.0, -2.0, 0.5]]), times.tolist()
    wrong = [
        one.diagnosis.split("; ")[0]
        for one in (
            compare(
                "check_sde",
                "(31)",
                "the drift",
                [case.in_time("drift", x, t)[0] for t in t_of],
                [case.sde.drift(x, t)[0] for t in t_of],
                tolerance,
                labels=lambda i: f"t = {times[i[0]]:g}, x = {x[0, i[1]]:g}: the drift",
            ),
            compare(
                "check_sde",
                "(31)",
                "the diffusion",
                [abs(case.coefficient("diffusion", t)) for t in t_of],
                [case.sde.diffusion(t) for t in t_of],
                tolerance,
                labels=lambda i: f"t = {times[i[0]]:g}: the diffusion",
            ),
        )
        if not one
    ]
    told = (check.told_in_single() if case.dtype == "float32" else check).diagnosis
    reason = NAMELESS if ALSO in told else told.split("; ", 1)[-1]
    return replace(check, diagnosis="; ".join([*wrong, reason]), in_single="") if wrong else check


def _gaussian_score(sde: LinearSDE, mean: Array, covariance: Array) -> Callable[[Array, float], Array]:
    """∇log p_t of data N(mean, covariance)."""

    def score(x: Array, t: float) -> Array:
        scale, std = sde.level(t)
        return -np.linalg.solve(scale**2 * covariance + std**2 * np.eye(len(mean)), (x - scale * mean).T).T

    return score


def _any_score(x: Array, t: float) -> Array:
    """A score that is neither linear nor exact."""
    return -0.4 * x + 0.3 * np.sin(1.3 * x + 0.1 * t)


def _drift_of(name: str, stochasticity: float) -> Callable[[Case], Check]:
    def check(case: Case) -> Check:
        score = _gaussian_score(case.sde, MEAN, COVARIANCE)
        g = case.sde.diffusion if case.given["diffusion"] is None else lambda t: case.coefficient("diffusion", t)
        return check_reverse_sde(
            lambda x, t: case.in_time(name, x, t, score(x, t)),
            lambda t: stochasticity * g(t),
            case.sde,
            MEAN,
            COVARIANCE,
            stochasticity,
        )

    return check


def _sde_step(case: Case) -> Check:
    variance = np.diag(COVARIANCE)
    score = _gaussian_score(case.sde, MEAN, np.diag(variance))

    def step(x: Array, t: float, s: float, noise: Array) -> Array:
        times = case.clock(t, len(x)), case.clock(s, len(x))
        return case.on_examples(
            "sde_step", x, lambda c: (case.data(x, c), *times, case.for_code(score, c), case.data(noise, c))
        )

    return check_reverse_step(step, case.sde, MEAN, variance)


def _sde_sampler(case: Case) -> Check:
    def sample(x: Array, times: Array, noise: Array) -> Array:
        own = case.convention.plain(times)
        return case.on_examples(
            "sde_sampler", x, lambda c: (case.data(x, c), own, case.data(noise, c), case.for_code(_any_score, c))
        )

    return check_reverse_sampler(sample, _any_score, case.sde, case.sde.horizon * GRID)


def _heun(case: Case) -> Check:
    def sample(x: Array, times: Array) -> Array:
        own = case.convention.plain(times)
        return case.on_examples("heun", x, lambda c: (case.data(x, c), own, case.for_code(_any_score, c)))

    return check_heun(sample, _any_score, case.sde, case.sde.horizon * GRID)


def _flow_log_prob(case: Case) -> Check:
    return check_flow_likelihood_of(
        lambda x: as_numpy(case.call("flow_log_prob", case.convention.data(x))),
        case.score,
        case.examples,
        case.sde,
        case.given["t_min"],
        prior_std=case.given["prior_std"],
    )


# --- VAE, EM, divergences ---------------------------------------------------------------------------------------------

W, DECODER_MEAN, X = 1.2 * waves(4, 3), waves(4, shift=1.0), 2 * waves(5, 4, shift=2.0)
PIXELS = np.concatenate([0.5 + 0.5 * waves(3, 4, shift=6.0), [[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]])
LATENT_MEAN, LATENT_LOG_VARIANCE = waves(5, 3, shift=3.0), waves(5, 3, shift=4.0) - 0.5
Q = softmax(2 * waves(4, 3, shift=1.0))
JOINT = softmax(2 * waves(4, 3, shift=2.0), axis=0) * softmax(waves(3, shift=3.0))
MIXTURE = Mixture(
    np.array([0.3, 0.5, 0.2]),
    np.array([[-1.0, 0.5], [1.0, -0.2], [0.3, 1.4]]),
    np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.4, -0.2], [-0.2, 0.5]], [[0.2, 0.0], [0.0, 0.6]]]),
)
POINTS = 2 * waves(14, 2, shift=5.0)
STATE = (MIXTURE.weights, MIXTURE.means, MIXTURE.covariances)


def _vae_loss(case: Case) -> Check:
    batches: list[tuple[Array, Array]] = []
    kls: list[Array] = []
    fixed = case.given["decoder_variance"]
    bernoulli = case.given["likelihood"] == "bernoulli"

    def loss(x: Array, x_hat: Array, mean: Array, log_variance: Array, *log_s2: float) -> Any:
        latent, last = case.convention.latent(log_variance), [float(one) for one in log_s2 if fixed is None]
        kls.append(kl_diag_standard(mean, log_variance))
        return case.by_example("vae_loss", batches, x, x_hat, mean, latent, *last)

    q = LATENT_MEAN, LATENT_LOG_VARIANCE
    if bernoulli:
        check = check_bernoulli_loss(loss, PIXELS, 4 * DECODER_MEAN + 2 * X, *q)
    else:
        s2 = 0.7 if fixed is None else as_number(fixed, "decoder_variance", low=0.0, open_low=True)
        check = check_vae_loss(loss, X, W, DECODER_MEAN, s2, *q)
    return _over_the_batch(case, "vae_loss", check, batches, kls)


def _kl(case: Case) -> Check:
    batches: list[tuple[Array, Array]] = []
    check = check_diagonal_kl(
        lambda mean, log_variance: case.by_example("kl", batches, mean, case.convention.latent(log_variance)),
        LATENT_MEAN,
        LATENT_LOG_VARIANCE,
    )
    return _over_the_batch(case, "kl", check, batches, [])


def _over_the_batch(case: Case, name: str, check: Check, batches: list[tuple[Array, Array]], kls: list[Array]) -> Check:
    """The check of single examples, and that every number for a batch is the mean, or the sum, of its examples.

    `batches` are the calls with one number; `kls` are the KL divergences of the examples of every call, if the loss has
    a reconstruction beside them.  A sum gets a note.
    """
    if not batches or not _is_right(case, check):
        return check
    left, alone = (np.array(part) for part in zip(*batches, strict=True))
    each, N = alone.astype(np.float64), alone.shape[1]
    mean, total = each.mean(axis=1), each.sum(axis=1)
    mistakes = {
        "it is the median over the batch": lambda: np.median(each, axis=1),
        "it is the loss of the first example only": lambda: each[:, 0],
        "it is the loss of the last example only": lambda: each[:, -1],
        "it is the largest loss of the batch": lambda: each.max(axis=1),
        "it is the smallest loss of the batch": lambda: each.min(axis=1),
        "the mean over the batch is divided by its size once more": lambda: mean / N,
    }
    if len(kls) == len(batches):
        rest, kl = each - np.array(kls), np.array(kls)
        mistakes |= {
            "the KL is summed over the batch, and the reconstruction is averaged": lambda: (
                rest.mean(axis=1) + kl.sum(axis=1)
            ),
            "the reconstruction is summed over the batch, and the KL is averaged": lambda: (
                rest.sum(axis=1) + kl.mean(axis=1)
            ),
            "the KL is divided by the size of the batch once more": lambda: rest.mean(axis=1) + kl.mean(axis=1) / N,
            "the reconstruction is divided by the size of the batch once more": lambda: (
                rest.mean(axis=1) / N + kl.mean(axis=1)
            ),
        }
    of_mean, of_sum = (
        compare(
            check.name,
            check.equation,
            "the loss of the batch",
            left,
            right,
            check.tolerance,
            mistakes,
            labels=lambda index: (
                f"the loss of the batch in call {index[0]} (the sum over its examples is {total[index]:.6g}, and their "
                "mean is expected)"
            ),
            unit=unit,
            by_code=True,
        )
        for right, unit in ((mean, (1 + np.abs(each)).mean(axis=1)), (total, (1 + np.abs(each)).sum(axis=1)))
    )
    if _is_right(case, of_mean) or not _is_right(case, of_sum):
        return worst(check, of_mean)
    warnings.warn(
        f"{name}: the loss of a batch is the sum over its examples, so that its gradient grows with the batch",
        CodeWarning,
        stacklevel=2,
    )
    return worst(check, of_sum)


def _draw_z(case: Case) -> Check:
    return check_reparameterisation(
        lambda mean, log_variance, noise: case.on_arrays("draw_z", mean, case.convention.latent(log_variance), noise),
        LATENT_MEAN,
        LATENT_LOG_VARIANCE,
        normal(*LATENT_MEAN.shape),
    )


SMALL = 800.0  # nats; exp(−800) is 0 in float64


def _iwae(case: Case) -> Check:
    """The bound, also for log-weights near −800, as those of pictures."""
    check = check_importance_weighted_bound(lambda log_weights: case.on_arrays("iwae", log_weights), JOINT, Q)
    if not _is_right(case, check):
        return check
    log_weights = np.log(JOINT / Q).T - SMALL
    at_small = compare(
        check.name,
        check.equation,
        "the bound",
        case.on_arrays("iwae", log_weights),
        logsumexp(log_weights, axis=0) - np.log(len(log_weights)),
        check.tolerance,
        labels=lambda index: (
            f"the bound of x = {index[0]} where every weight underflows, log-weights near −{SMALL:g} (take logsumexp),"
        ),
    )
    return worst(check, at_small)


def _e_step(case: Case) -> Check:
    return check_e_step(lambda *arguments: case.on_arrays("e_step", *arguments), POINTS, *STATE)


def _m_step(case: Case) -> Check:
    def step(x: Array, *state: Array) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
        exact = normalised(log_joint_by_inverses(x, *state))
        found = case.call("m_step", case.convention.plain(x), case.convention.plain(exact))
        weights, means, covariances = map(as_numpy, several(found, 3, "m_step"))
        return weights, means, covariances

    return check_em(step, POINTS, *STATE, ridge=case.given["ridge"])


def _mixture_log_prob(case: Case) -> Check:
    return check_log_prob(lambda x: case.on_arrays("mixture_log_prob", x, *STATE), MIXTURE, POINTS)


def _discrete_kl(case: Case) -> Check:
    """The divergence, also where an entry of p is 0."""
    p, q = softmax(2 * waves(4)), softmax(waves(4, shift=1.0))
    check = check_kl(lambda p, q: case.on_arrays("discrete_kl", p, q), p, q)
    if not _is_right(case, check):
        return check
    laws = [np.where(np.arange(4) == i, 0.0, p) / (1 - p[i]) for i in range(4)]
    try:
        left = [case.on_arrays("discrete_kl", law, q) for law in laws]
    except Exception:  # code that refuses an entry of 0 says so
        return check
    at_zero = compare(
        check.name,
        check.equation,
        "KL(p‖q)",
        left,
        [xlogy(law, law / q).sum() for law in laws],
        check.tolerance,
        labels=lambda index: f"KL(p‖q) where p[{index[0]}] is 0 (0 log 0 is 0: take xlogy(p, p) − xlogy(p, q))",
    )
    return worst(check, at_zero)


def _gaussian_kl(case: Case) -> Check:
    other = np.array([[0.4, -0.1, 0.1], [-0.1, 0.6, 0.0], [0.1, 0.0, 0.3]])
    return check_gaussian_kl(
        lambda *arguments: case.on_arrays("gaussian_kl", *arguments), MEAN, COVARIANCE, waves(3), other
    )


# --- the table of what audit takes ------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One argument of `audit` that is code under test."""

    usage: str  # how it is called; empty for a table
    check: str  # the check's name
    run: Callable[[Case], Check]
    needs: tuple[str, ...]  # other arguments


CHAIN, NET, TIME = ("betas",), ("betas", "eps_hat", "x0"), ("sde",)
CODE = {
    "alphas_cumprod": Entry("", "check_schedule", _tables, CHAIN),
    "q_step": Entry("q_step(t, x_prev, noise)", "check_forward_step", _q_step, CHAIN),
    "q_sample": Entry("q_sample(t, x0, noise)", "check_forward_process", _q_sample, CHAIN),
    "q_posterior": Entry("q_posterior(t, x_t, x0)", "check_posterior", _q_posterior, CHAIN),
    "predict_x0": Entry("predict_x0(t, x_t, output)", "check_predict_x0", _predict_x0, CHAIN),
    "step": Entry("step(t, x_t, output, noise)", "check_ancestral_step", _step, CHAIN),
    "ddim": Entry("ddim(t, s, x_t, output, noise, eta)", "check_ddim_step", _ddim, CHAIN),
    "loss": Entry("loss(t, x0, noise)", "check_loss_of", _loss, NET),
    "bound": Entry("bound(x0, noise)", "check_bound_of", _bound, NET),
    "sampler": Entry("sampler(x_T, noise)", "check_sampler_of", _sampler, NET),
    "marginal": Entry("marginal(t)", "check_sde", _marginal, (*TIME, "drift", "diffusion")),
    "reverse_drift": Entry("reverse_drift(x, t, score)", "check_reverse_sde", _drift_of("reverse_drift", 1.0), TIME),
    "flow_drift": Entry("flow_drift(x, t, score)", "check_reverse_sde", _drift_of("flow_drift", 0.0), TIME),
    "sde_step": Entry("sde_step(x, t, s, score, noise)", "check_reverse_step", _sde_step, TIME),
    "sde_sampler": Entry("sde_sampler(x, times, noise, score)", "check_reverse_sampler", _sde_sampler, TIME),
    "heun": Entry("heun(x, times, score)", "check_heun", _heun, TIME),
    "flow_log_prob": Entry("flow_log_prob(x)", "check_flow_likelihood_of", _flow_log_prob, (*TIME, "score", "x0")),
    "vae_loss": Entry("vae_loss(x, x_hat, mean, spread, decoder_log_variance)", "check_vae_loss", _vae_loss, ()),
    "kl": Entry("kl(mean, spread)", "check_diagonal_kl", _kl, ()),
    "draw_z": Entry("draw_z(mean, spread, noise)", "check_reparameterisation", _draw_z, ()),
    "iwae": Entry("iwae(log_weights)", "check_importance_weighted_bound", _iwae, ()),
    "e_step": Entry("e_step(x, weights, means, covariances)", "check_e_step", _e_step, ()),
    "m_step": Entry("m_step(x, responsibilities)", "check_em", _m_step, ()),
    "mixture_log_prob": Entry(
        "mixture_log_prob(x, weights, means, covariances)", "check_log_prob", _mixture_log_prob, ()
    ),
    "discrete_kl": Entry("discrete_kl(p, q)", "check_kl", _discrete_kl, ()),
    "gaussian_kl": Entry("gaussian_kl(mean_p, cov_p, mean_q, cov_q)", "check_gaussian_kl", _gaussian_kl, ()),
}
OF_OWN_SHAPE = (  # these get the numbers of the checks in the shape of x0
    *("q_step", "q_sample", "q_posterior", "predict_x0", "step", "ddim"),
    *("marginal", "reverse_drift", "flow_drift", "sde_step", "sde_sampler", "heun"),
)
OWN_TOLERANCE = ("loss", "bound", "sampler", "flow_log_prob")  # these follow the network's dtype


def _told(check: Check, change: Callable[[str], str]) -> Check:
    """The check with other words in its diagnosis."""
    return replace(
        check,
        diagnosis=change(check.diagnosis) if check.diagnosis else "",
        in_single=change(check.in_single) if check.in_single else "",
    )


def _in_own_dimensions(text: str, size: int, first: int) -> str:
    """A diagnosis with the dimensions of the code, which count from `first`, in the place of those of the check."""

    def own(found: re.Match[str]) -> str:
        i = int(found[1]) - first
        equal = list(range(i % size, size, OF_THE_CHECKS))
        others = f" (or {', '.join(str(j + first) for j in equal[1:3])}{', …' if len(equal) > 3 else ''})"
        return f"dimension {equal[0] + first}{others if len(equal) > 1 else ''}"

    return re.sub(r"dimension (\d+)", own, text, count=1)


def _in_own_words(case: Case, name: str, text: str) -> str:
    """A diagnosis with the options of `audit`, and with the steps of the code beside t = 1..T."""
    text = text.replace(AT_SINGLE, 'pass dtype="float32" if your code uses it')
    if name in OF_OWN_SHAPE and case.x0 is not None:
        text = _in_own_dimensions(text, case.x0.shape[1], first=int("sde" in CODE[name].needs))
    if "betas" not in CODE[name].needs:
        return text
    at = np.append(0, _steps_of_ddim(case)) if name == "ddim" else np.arange(case.schedule.T + 1)

    def steps(found: re.Match[str]) -> str:
        letters, values = ("t", "s"), [int(at[int(i)]) for i in found.groups()[1:] if i is not None]
        told, own = (
            ", ".join(f"{letter} = {value - less}" for letter, value in zip(letters, values, strict=False))
            for less in (0, 1)
        )
        return found[1] + told + (f" (yours: {own})" if case.convention.zero_based else "")

    return re.sub(r"^([^;]*?)\bt = (\d+)(?:, s = (\d+))?", steps, text, count=1)


def run(case: Case, name: str) -> Check:
    """Run the check of one argument, at the tolerance of the code's precision."""
    usage, count = CODE[name].usage, "0..T−1" if case.convention.zero_based else "1..T"
    if name == "vae_loss" and case.given["likelihood"] == "bernoulli":
        usage = "vae_loss(x, logits, mean, spread)"
    elif name == "vae_loss" and case.given["decoder_variance"] is not None:
        usage = "vae_loss(x, x_hat, mean, spread)"
    if usage:
        check_callable(case.given[name], usage + (f"; t counts {count}" if "betas" in CODE[name].needs else ""))
    if "eps_hat" in CODE[name].needs:
        check_callable(case.given["eps_hat"], f"eps_hat(x_t, t); t counts {count}")
    cases = [case]
    if name in OF_OWN_SHAPE and case.x0 is not None and case.x0.shape[1] > OF_THE_CHECKS:
        cases = [case.among_equal(among) for among in (np.max, np.min)]
    with np.errstate(all="ignore"):  # a division by zero shows in the result
        check = worst(*(CODE[name].run(one) for one in cases))
    if case.dtype == "float32" and name not in OWN_TOLERANCE:
        check = check.told_in_single().at(max(check.tolerance, SINGLE_TOLERANCE))
    if not check and (apart := case.apart(name)):
        reason = (
            f"two calls of {name} with the same arguments differ by {apart:.2g}: it draws its own noise or keeps a "
            "state; use the noise that it gets, or let it draw within given_noise"
        )
        check = _told(check, lambda text: f"{text.split('; ')[0]}; {reason}")
    return _told(check, lambda text: _in_own_words(case, name, text))
