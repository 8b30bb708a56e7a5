"""The score of a model on rows: an exact log-likelihood or a bound, with its standard error, nats and bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from scratchgen import DDPM, VAE, ScoreSDE
from scratchgen.models.estimator import Estimator
from scratchgen.report.sources import is_number
from scratchgen.report.tables import Data, listed
from scratchgen.report.text import CommandError
from scratchgen.validation import Array, IntArray, weighted_rows

BLOCK = 500  # rows at a time: a DDPM's bound draws T noises a row
KINDS = {  # of models without an exact likelihood
    VAE: "ELBO, a lower bound of the log-likelihood (7)",
    DDPM: "variational bound, a lower bound of the log-likelihood (20)",
    ScoreSDE: "bound of the reverse SDE, a lower bound of its log-likelihood (34)",
}


class Score(NamedTuple):
    """log p_θ(x) or its bound for every row, nats."""

    rows: Array  # (N,)
    n_columns: int
    discrete: bool  # whether the rows are whole numbers with probabilities
    weights: Array | None = None  # of the rows, (N,)

    @property
    def bits(self) -> Array:
        """−log₂ of the rows a column, (N,)."""
        return -self.rows / (self.n_columns * np.log(2))

    def text(self) -> str:
        """Mean and standard error, nats, and bits a column; with weights w, Σ w s / Σ w of the scores s.

        The squared error is N/(N − 1) Σ w² (s − mean)² / (Σ w)², that of a ratio of two sums over independent rows; for
        equal weights it is the variance over N.
        """
        rows, weights = weighted_rows(self.rows, self.weights)
        n, impossible = len(rows), np.isneginf(rows).sum()
        if impossible:
            return f"-inf: {impossible} of {n} rows have probability 0 in the model"
        shares = weights / weights.sum()
        mean = shares @ rows
        error = f" +- {np.sqrt(n / (n - 1) * shares**2 @ (rows - mean) ** 2):.2g}" if n > 1 else ""
        bits = -mean / (self.n_columns * np.log(2))
        counted = f"{n} row{'s' * (n != 1)}" + (" with weights" if self.weights is not None else "")
        return f"{mean:.4f}{error} nats a row, {bits:.4f} bits a column ({counted})"


def is_exact(model: Estimator) -> bool:
    """Whether `score_rows` gives the log-likelihood itself, and not a bound."""
    return not isinstance(model, tuple(KINDS))


def kind_of(model: Estimator) -> str:
    """Name of the number that `score_rows` computes: exact log-likelihood, or the bound of the model."""
    kinds = [text for cls, text in KINDS.items() if isinstance(model, cls)]
    return kinds[0] if kinds else "exact log-likelihood"


def score_rows(
    model: Estimator, x: Array, seed: int, weights: Array | None = None, labels: IntArray | None = None
) -> Score:
    """The exact log-likelihood of every row of x, (N, D), or else an unbiased estimate of its bound.

    The bound of a `ScoreSDE` is that of the reverse SDE, from which `sample` draws, and not its `log_prob`, which is
    that of the probability flow.  With labels y, (N,), of a DDPM or a ScoreSDE the bound is that of log p_θ(x | y).
    """
    scored: Any = model
    rng = np.random.default_rng(seed)
    rows = []
    for block in (slice(i, i + BLOCK) for i in range(0, len(x), BLOCK)):
        given = {} if labels is None else {"y": labels[block]}
        rows.append(scored.log_prob(x[block]) if is_exact(model) else scored.elbo(x[block], rng=rng, **given))
    return Score(np.concatenate(rows), x.shape[1], getattr(model, "n_levels", None) is not None, weights)


def n_parameters_of(model: Estimator) -> int:
    """Number of parameters: free ones of models with an exact likelihood, all of those of a network."""
    fitted: Any = model
    if hasattr(fitted, "n_parameters_"):
        return int(fitted.n_parameters_)
    names = ("parameters_", "encoder_", "decoder_", "log_variance_")
    return sum(getattr(fitted, name).size for name in names if hasattr(fitted, name))


def left_early(model: Estimator, file: object) -> str:
    """A sentence on a file whose training was left early; empty if the training has ended."""
    state, fitted = model.training_state_, cast(Any, model)
    if state is None:
        return ""
    n = fitted.n_steps_ if hasattr(fitted, "n_steps_") else f"at most {fitted.max_iter}"
    return (
        f"{file} holds a training that was left after {state.step} of {n} steps; scratchgen fit with the same "
        "arguments and --resume continues it"
    )


def known_names(model: Estimator) -> tuple[str, ...]:
    """Names of the columns that the model was trained on; none if they are not known."""
    known = getattr(model, "feature_names_in_", None)
    return () if known is None else tuple(map(str, known))


def label_names(model: Estimator) -> tuple[str, ...]:
    """Values of the column of labels that stand for 0, 1, ...; none if they are not known."""
    return model._label_names or ()


def check_labels(file: Path, model: Estimator, data: Data) -> None:
    """Raise CommandError if the labels of the data have other names than those of the model, where these are known."""
    known, found = label_names(model), data.classes
    if data.labels is None or known in ((), found):
        return
    values = [*map(float, known)] if all(map(is_number, (*known, *found))) else []  # 1 and 1.0 agree
    if not values or values != [*map(float, found)] or len({*values}) < len(values):
        raise CommandError(
            f"{file} was trained on the labels {listed(known)}, and the data have {listed(found)}; name the column of "
            "the same labels with --labels, or leave it out with --drop"
        )


def names_of(model: Estimator) -> tuple[str, ...]:
    """Names of the columns; x0, x1, ... if they are not known."""
    return known_names(model) or tuple(f"x{d}" for d in range(model.n_features_in_))
