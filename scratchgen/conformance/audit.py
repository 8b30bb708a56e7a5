"""`audit`: all checks that apply to somebody's code, in one call and one table.

The code is handed over as plain callables, with its convention said once.  What is not given is not checked.

>>> import numpy as np
>>> from scratchgen.conformance import audit
>>> betas = np.linspace(1e-4, 0.02, 1000)                         # Ho's variances, and t counts from 0
>>> alpha_bar = np.cumprod(1 - betas)
>>> def q_sample(t, x0, noise):
...     return alpha_bar[t] * x0 + np.sqrt(1 - alpha_bar[t]) * noise     # √ is missing
>>> result = audit(betas=betas, zero_based=True, q_sample=q_sample)
>>> print(result)                                                 # doctest: +ELLIPSIS
audit: 0 of 1 checks pass; T = 1000, t counts from 0, float64
<BLANKLINE>
argument          check                                   verdict   residual  tolerance
q_sample          check_forward_process (25)              FAILED ...
>>> result.rows[0].diagnosis.split("; ")[1]
"x_0 has factor ᾱ², which is Ho's α-bar without its square root"
"""

from __future__ import annotations

import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import CodeWarning
from scratchgen.conformance.cases import CODE, OWN_SHAPE, Case, run
from scratchgen.conformance.convention import SPREADS
from scratchgen.conformance.given import NoDraw
from scratchgen.conformance.result import Check
from scratchgen.conformance.reverse_sde import IN_THE_LIMIT
from scratchgen.sde import LinearSDE

WIDTH = 100  # columns of a printed table
INDENT = 4 * " "
HIDDEN = 1e-3  # a row of samples or of a bound that does not see smaller differences gets a note


@dataclass(frozen=True)
class Row:
    """One check of an audit.

    Attributes
    ----------
    argument : str
        The callable under test, by its name in `audit`.
    check : str
        The function of the check and the equation.
    verdict : {"ok", "FAILED", "raised"}
    residual, tolerance : float
        NaN if the callable raised.
    diagnosis : str
        The diagnosis of the check, or the error; empty if the check passed.
    notes : tuple of str
        Side effects of the code, and limits of the check.
    """

    argument: str
    check: str
    verdict: str
    residual: float
    tolerance: float
    diagnosis: str
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the verdict is "ok"."""
        return self.verdict == "ok"

    def __str__(self) -> str:
        line = f"{self.argument:<17} {self.check:<39} {self.verdict:<7} {self.residual:>10.1e} {self.tolerance:>10.0e}"
        wrapped = textwrap.wrap(self.diagnosis, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
        return "\n".join([line, *wrapped])


@dataclass(frozen=True)
class Audit:
    """The result of `audit`: one row a check, the names of the callables that were not given, and notes."""

    title: str
    rows: tuple[Row, ...]
    not_given: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(row.passed for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    def require(self) -> None:
        """Raise AssertionError with the failing rows, if there are any."""
        failing = [str(row) for row in self.rows if not row.passed]
        if failing:
            raise AssertionError("\n".join([f"{len(failing)} of {len(self.rows)} checks fail", *failing]))

    def __str__(self) -> str:
        good = sum(row.passed for row in self.rows)
        header = f"{'argument':<17} {'check':<39} {'verdict':<7} {'residual':>10} {'tolerance':>10}"
        missing = ", ".join(self.not_given) or "nothing"
        return "\n".join(
            [
                f"audit: {good} of {len(self.rows)} checks pass; {self.title}",
                "",
                header,
                *map(str, self.rows),
                "",
                *(
                    line
                    for text in (*(f"note: {note}" for note in self.notes), f"not given: {missing}")
                    for line in textwrap.wrap(text, WIDTH, subsequent_indent=INDENT)
                ),
            ]
        )

    __repr__ = __str__


def audit(
    *,
    # the process
    betas: ArrayLike | None = None,
    sde: LinearSDE | None = None,
    # the convention
    zero_based: bool = False,
    batched_t: bool = False,
    prediction: str | None = None,
    in_sigma: bool = False,
    posterior_spread: str = "variance",
    clipped_posterior: bool = False,
    latent_spread: str = "log_variance",
    variance: str | ArrayLike = "beta",
    last_noise: bool = True,
    etas: tuple[float, ...] = (0.0, 0.7, 1.0),
    sampler_eta: float | None = None,
    reduction: str = "sum",
    loss_weight: ArrayLike | None = None,
    n_levels: int | None = None,
    likelihood: str = "gaussian",
    decoder_variance: float | None = None,
    ridge: float = 0.0,
    t_min: float = 1e-3,
    prior_std: float | None = None,
    arrays: Callable[[Any], Any] = np.asarray,
    dtype: Any = None,
    # networks, and examples for them
    eps_hat: Callable[..., Any] | None = None,
    score: Callable[..., Any] | None = None,
    x0: ArrayLike | None = None,
    # the chain
    alphas_cumprod: ArrayLike | None = None,
    q_step: Callable[..., Any] | None = None,
    q_sample: Callable[..., Any] | None = None,
    q_posterior: Callable[..., Any] | None = None,
    predict_x0: Callable[..., Any] | None = None,
    step: Callable[..., Any] | None = None,
    ddim: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
    bound: Callable[..., Any] | None = None,
    sampler: Callable[..., Any] | None = None,
    # continuous time
    marginal: Callable[..., Any] | None = None,
    drift: Callable[..., Any] | None = None,
    diffusion: Callable[..., Any] | None = None,
    reverse_drift: Callable[..., Any] | None = None,
    flow_drift: Callable[..., Any] | None = None,
    sde_step: Callable[..., Any] | None = None,
    sde_sampler: Callable[..., Any] | None = None,
    heun: Callable[..., Any] | None = None,
    flow_log_prob: Callable[..., Any] | None = None,
    # VAE
    vae_loss: Callable[..., Any] | None = None,
    kl: Callable[..., Any] | None = None,
    draw_z: Callable[..., Any] | None = None,
    iwae: Callable[..., Any] | None = None,
    # EM for Gaussian mixtures
    e_step: Callable[..., Any] | None = None,
    m_step: Callable[..., Any] | None = None,
    mixture_log_prob: Callable[..., Any] | None = None,
    # divergences
    discrete_kl: Callable[..., Any] | None = None,
    gaussian_kl: Callable[..., Any] | None = None,
) -> Audit:
    """Run every check that applies to the given callables.

    Functions take their arguments in the order below: t comes first, then data, then noise.  Networks, and functions
    of an SDE, take (x, t).  All results are compared example by example.  Code that draws its own noise runs within
    `given_noise`.  All arrays are copies; code that changes one in place gets a note, and no verdict.

    Parameters
    ----------
    betas : (T,), optional
        One-step noise **variances**, Ho's betas.  Needed by the chain.  float32 betas mean that the code computes in
        float32: arrays come in float32, and tolerances are those of float32.
    sde : LinearSDE, optional
        `VP`, `SubVP` or `VE` (from scratchgen import VP), or `EDM` (from scratchgen.conformance import EDM: x = x_0 +
        σε, with σ for t).  Needed by the functions of continuous time.

    zero_based : bool
        t counts 0..T−1, as in Ho's code; otherwise 1..T.  The s of `ddim` is then −1 for clean data, otherwise 0.
        Messages count t from 1, with your own t beside it.
    batched_t : bool
        t comes as an int64 array (N,) of your type; otherwise as an int.  The times of an SDE are an array (N,) of
        float, otherwise a float.
    prediction : {"noise", "x0", "v", "step", "score"}, optional
        The prediction of a network, which `predict_x0`, `step` and `ddim` get as `output`.  "noise" for the chain and
        "score" for continuous time if None.  v = √ᾱ ε − √(1−ᾱ) x_0 with Ho's ᾱ; "step" is one step's noise.
    in_sigma : bool
        `eps_hat` takes (x_t/√ᾱ_t, σ_t) with σ_t = √(1−ᾱ_t)/√ᾱ_t, as the networks of Karras et al.
    posterior_spread : {"variance", "std", "log_variance"}
        The second result of `q_posterior`.
    clipped_posterior : bool
        The variance of `q_posterior` at t = 1 is that of t = 2 in place of 0, as Ho's posterior_log_variance_clipped;
        T is 2 or more.
    latent_spread : {"log_variance", "variance", "std"}
        The form of the variance of q(z | x) in `vae_loss`, `kl` and `draw_z`.
    variance : {"beta", "posterior"} or (T,)
        σ_t² of `step`, `bound` and `sampler`: β_t; β̃_t, with β_1 at t = 1, since β̃_1 is 0; or the variances of t =
        1..T.  Tables with another first entry, as Ho's clipped ones, are given as an array.
    last_noise : bool
        Whether the last step, to clean data, adds noise.  Ho's code adds none.
    etas : tuple of float
        η at which `ddim` is checked; (0.0,) for a deterministic step.
    sampler_eta : float, optional
        `sampler` is DDIM with this η over all steps; ancestral sampling if None.
    reduction : {"sum", "mean"}
        The reduction of `loss` over the dimensions of an example.
    loss_weight : (T,), optional
        λ_t of `loss` for t = 1..T; 1 if None.
    n_levels : int, optional
        L_0 of `bound` is the mass of whole numbers 0..n_levels−1 scaled to [−1, 1], as in Ho's code.
    likelihood : {"gaussian", "bernoulli"}
        The decoder of `vae_loss`.  For "bernoulli" x lies in [0, 1], and x_hat are logits.
    decoder_variance : float, optional
        `vae_loss` takes no decoder variance; it is −ELBO at this one.
    ridge : float
        The number that `m_step` adds to every variance by choice, as reg_covar of scikit-learn.
    t_min : float
        Time of the density of `flow_log_prob`.
    prior_std : float, optional
        `flow_log_prob` has the prior N(0, prior_std² I) at the horizon: 1.0 for N(0, I).  If None, std(T) of `sde`.
    arrays : callable
        Converts NumPy arrays to your type: torch.as_tensor, jax.numpy.asarray.  Results are converted back.
    dtype : {"float32", "float64"}, optional
        Precision of your code; that of betas if None, and float64 without betas.

    eps_hat : callable
        eps_hat(x_t, t): the network of the chain, in evaluation mode.  The functions with a network inside (`loss`,
        `bound`, `sampler`) must use the same network.  Its samples should be of order 1: an untrained network gives
        samples of order 100, beside which float32 does not show a mistake of the last steps.  A note then says what
        the row of `sampler` does not see.  Needs x0.
    score : callable
        score(x, t): the network of continuous time.  Needs x0.
    x0 : (N, …)
        A few examples, for the networks.  `bound` and `sampler` call the network about 5T times on all of them.  The
        other functions of the chain and of an SDE get data of the shape of one example, with another N from call to
        call: three numbers an example, which repeat over its dimensions; one or two of them for one or two dimensions,
        in several calls.  Messages count the dimensions of a flat example.  Without x0 data have the shape (N, 3).

    alphas_cumprod : (T,)
        Your table of Ho's ᾱ_t = Π (1 − betas).
    q_step(t, x_prev, noise) → x_t
    q_sample(t, x0, noise) → x_t
    q_posterior(t, x_t, x0) → (mean, spread)
    predict_x0(t, x_t, output) → x̂_0
    step(t, x_t, output, noise) → x_{t−1}; code that calls a network inside gets one that returns `output`
    ddim(t, s, x_t, output, noise, eta) → x_s for any s < t
    loss(t, x0, noise) → (N,), or the mean over the batch.  A loss that draws t itself gets t from `given_noise`; a
        range of its draws without 1 or T gets a note, and one that is too wide is not seen
    bound(x0, noise (T, N, …)) → −ELBO (N,), nats, or its terms L_0, …, L_T (N, T+1); noise[t−1] belongs to x_t
    sampler(x_T, noise (T, N, …)) → x_0, or the path x_T, …, x_0; noise[0] belongs to the step from T

    marginal(t) → (scale, std), drift(x, t) and diffusion(t) → g: given together; the marginal is also that of `sde`
    reverse_drift(x, t, score) → drift of the reverse SDE, for the value of the score
    flow_drift(x, t, score) → the same of the probability flow
    sde_step(x, t, s, score, noise) → x at s < t; score(x, t) is a function.  A step that is not Euler-Maruyama's is
        compared in the limit t − s → 0 only, and gets a note
    sde_sampler(x, times, noise, score) → x by Euler-Maruyama at the last of the falling times
    heun(x, times, score) → x by Heun's method on the flow
    flow_log_prob(x) → (N,), nats, with `score` inside

    vae_loss(x, x_hat, mean, spread, decoder_log_variance) → −ELBO (N,), nats, for one draw of z; the last is a float
    vae_loss(x, logits, mean, spread) for likelihood="bernoulli", and without the last argument for a decoder_variance
    kl(mean, spread) → KL(q‖N(0, I)), (N,), nats; both may return the mean over the batch, or the sum, which gets a note
    draw_z(mean, spread, noise) → z, the reparameterised draw
    iwae(log_weights (n, N)) → (N,), nats, also where every weight underflows

    e_step(x, weights, means, covariances) → responsibilities (N, K)
    m_step(x, responsibilities) → (weights, means, covariances); covariances are (K, D, D)
    mixture_log_prob(x, weights, means, covariances) → (N,), nats

    discrete_kl(p, q) → KL(p‖q), nats, also where an entry of p is 0, unless the code raises
    gaussian_kl(mean_p, cov_p, mean_q, cov_q) → nats

    Returns
    -------
    Audit
        Its text is the table.  An audit with a failed row is falsy: `assert audit(...)`.  `require()` raises
        AssertionError with the failed rows.

    Raises
    ------
    ValueError
        If an option has an unknown value, a callable lacks what it needs, or nothing is given.
    """
    items, title, not_given = plan(locals())
    rows = tuple(item.row() for item in items)
    notes = dict.fromkeys(note for row in rows for note in row.notes)  # a network may be in several rows
    return Audit(title, rows, not_given, (*items[0].case.notes, *notes))


# --- the plan of an audit ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One check that an audit will run; a call runs it and raises AssertionError if it fails."""

    argument: str
    case: Case

    @property
    def name(self) -> str:
        """The argument and the check, as "q_sample: check_forward_process"."""
        return f"{self.argument}: {CODE[self.argument].check}"

    def __call__(self) -> None:
        """Run the check; raise AssertionError if it fails, and let the code's own errors through.

        Every note becomes a `CodeWarning` that begins with the name of the check.
        """
        with _heard() as said:
            check = run(self.case, self.argument)
        for note in self.notes(check, said):
            told = note.removeprefix(f"{self.argument}: ")
            warnings.warn(f"{self.name}: {told}", CodeWarning, stacklevel=2)
        if not check:
            raise AssertionError(repr(check))

    def row(self) -> Row:
        """Run the check; an error of the code under test becomes the row "raised"."""
        try:
            with _heard() as said:
                check = run(self.case, self.argument)
        except (Exception, SystemExit) as error:  # code that calls sys.exit has not passed
            told = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", []), *self.hints(error)]
            text = "; ".join([*told, *self.other_convention()])
            return Row(self.argument, CODE[self.argument].check, "raised", float("nan"), float("nan"), text)
        verdict, name = "ok" if check else "FAILED", f"{check.name} {check.equation}"
        others = [] if check else self.other_convention(check.diagnosis)
        text = "; ".join([check.diagnosis, *others])
        return Row(self.argument, name, verdict, check.residual, check.tolerance, text, self.notes(check, said))

    def notes(self, check: Check, said: list[Warning]) -> tuple[str, ...]:
        """The warnings of the code under test in this check, and the limits of the check."""
        notes = [str(text) for text in said if not (check and isinstance(text, NoDraw))]
        notes += NOT_SEEN[self.argument](check) if check and self.argument in NOT_SEEN else []
        return tuple(dict.fromkeys(notes))

    def hints(self, error: BaseException) -> list[str]:
        """The options of `audit` that may be missing, for an error of the code under test."""
        given, needs = self.case.given, CODE[self.argument].needs
        chain, data = "betas" in needs, "betas" in needs or "sde" in needs
        may = {
            OF_STEPS: chain and not given["zero_based"],
            OF_BATCHES: data and not given["batched_t"],
            OF_TENSORS: given["arrays"] is np.asarray,
            OF_SINGLE: self.case.dtype == "float64",
            OWN_SHAPE: data and self.case.x0 is None,
        }
        return list(dict.fromkeys(hint for phrase, hint in HINTS if phrase in str(error) and may[hint]))

    def other_convention(self, diagnosis: str = "") -> list[str]:
        """The options with which the check passes, as a sentence; empty if there are none or the diagnosis has them."""
        options, given = OTHERS.get(self.argument, {}), self.case.given
        for values in product(*options.values()):
            changes = {k: v for k, v in zip(options, values, strict=True) if v != given[k]}
            if changes and self._passes(changes):
                told = [f"{name}={value!r}" for name, value in changes.items()]
                if all(option in diagnosis for option in told):
                    return []
                return [f"the check passes with {', '.join(told)}; pass this if it is meant"]
        return []

    def _passes(self, changes: Mapping[str, Any]) -> bool:
        try:
            with _heard():
                return bool(run(Case({**self.case.given, **changes}), self.argument))
        except (Exception, SystemExit):  # code for one convention may raise in another
            return False


OF_STEPS = "if your t counts 0..T−1, pass zero_based=True"
OF_BATCHES = "if your t is an array, one number an example, pass batched_t=True"
OF_TENSORS = "if your code takes tensors, pass arrays=torch.as_tensor"
OF_SINGLE = 'if your code computes in float32, pass dtype="float32"'
HINTS = (  # of an error's text, and the option that may be missing
    ("is out of bounds for axis", OF_STEPS),
    ("is out of bounds for dimension", OF_STEPS),
    ("index out of range", OF_STEPS),
    ("'int' object has no attribute", OF_BATCHES),
    ("must be Tensor, not int", OF_BATCHES),
    ("Double and Float", OF_SINGLE),
    ("Float and Double", OF_SINGLE),
    ("double != float", OF_SINGLE),
    ("float != double", OF_SINGLE),
    ("Input type (double) and bias type (float)", OF_SINGLE),
    ("mixed dtype", OF_SINGLE),
    ("not numpy.ndarray", OF_TENSORS),
    ("'numpy.ndarray' object has no attribute", OF_TENSORS),
    ("is out of bounds for array of dimension", OWN_SHAPE),
    ("too many indices for array", OWN_SHAPE),
    ("values to unpack", OWN_SHAPE),
    ("tuple index out of range", OWN_SHAPE),
)

OTHERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "q_posterior": {"clipped_posterior": (False, True), "posterior_spread": SPREADS},
    **{name: {"latent_spread": SPREADS} for name in ("vae_loss", "kl", "draw_z")},
}


@contextmanager
def _heard() -> Iterator[list[Warning]]:
    """Collect the `CodeWarning`s of a check; others are shown at the end, as ever."""
    said: list[Warning] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodeWarning)
        yield said
    for one in caught:
        if isinstance(one.message, CodeWarning):
            said.append(one.message)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _samples_not_seen(check: Check) -> list[str]:
    """A note if rounding hides differences of the samples above `HIDDEN`."""
    hidden = float(np.median(check.tolerance * (1.0 if check.unit is None else check.unit)))
    if hidden <= HIDDEN:
        return []
    return [
        f"sampler: rounding hides differences below {hidden:.1g}, since the samples are of size "
        f"{np.abs(check.right).max():.1g}; use a trained network, whose samples are of size 1, or float64"
    ]


def _bound_not_seen(check: Check) -> list[str]:
    """A note if rounding hides differences of −ELBO above `HIDDEN` nats, or above this part of a term."""
    hidden = np.median(check.tolerance * np.asarray(1.0 if check.unit is None else check.unit), axis=0)
    size = np.median(np.abs(check.right), axis=0)
    seen = HIDDEN if check.right.ndim == 1 else HIDDEN * np.maximum(1.0, size)
    if (hidden <= seen).all():
        return []
    worst = int(np.argmax(hidden / seen))
    what, remedy = ("−ELBO", "return the terms L_0, …, L_T, or use") if hidden.ndim == 0 else (f"L_{worst}", "use")
    return [
        f"bound: rounding hides differences below {np.ravel(hidden)[worst]:.1g} nats, since {what} is of size "
        f"{np.ravel(size)[worst]:.1g}; {remedy} float64"
    ]


def _step_not_seen(check: Check) -> list[str]:
    """A note if a step of an SDE is compared in the limit only."""
    if check.quantity != IN_THE_LIMIT:
        return []
    return [
        "sde_step: this is not the step of Euler-Maruyama; only its limit for t − s → 0 is compared, so that a score, "
        "a drift or a g at s in place of t is not seen"
    ]


NOT_SEEN = {"sampler": _samples_not_seen, "bound": _bound_not_seen, "sde_step": _step_not_seen}


def planned(**arguments: Any) -> list[Item]:
    """The checks that `audit` would run for these arguments, one callable a check."""
    bound = inspect.signature(audit).bind(**arguments)
    bound.apply_defaults()
    return plan(bound.arguments)[0]


def plan(given: Mapping[str, Any]) -> tuple[list[Item], str, tuple[str, ...]]:
    """The checks that apply to the arguments of `audit`, the title of the audit, and the names of what is not given."""
    code = [name for name in CODE if given[name] is not None]
    if not code:
        raise ValueError(f"audit needs code to check: at least one of {', '.join(CODE)}")
    for name in code:
        missing = [need for need in CODE[name].needs if given[need] is None]
        if missing:
            raise ValueError(
                f"{name} needs {' and '.join(missing)}; pass {'them' if len(missing) > 1 else 'it'} as well"
            )
    case = Case(given)
    return [Item(name, case) for name in code], case.title, tuple(name for name in CODE if name not in code)
