"""Random steps t for the training loss E_t λ_t ‖ε − ε̂‖²: independent, stratified or importance-sampled."""

import numpy as np

from scratchgen.validation import (
    Array,
    IntArray,
    as_array,
    as_arrays,
    as_choice,
    as_count,
    as_labels,
    check_rng,
    check_shapes,
)

MEMORY = 0.9  # decay of the running mean of loss² a new loss
STEP_CHOICES = ("uniform", "stratified", "importance")


def uniform_steps(T: int, n: int, rng: np.random.Generator) -> IntArray:
    """n independent steps, uniform on 1..T, (n,)."""
    check_rng(rng)
    n = as_count(n, "n", minimum=0)
    T = as_count(T, "T")
    return rng.integers(1, T + 1, size=n)


def stratified(n: int, rng: np.random.Generator) -> Array:
    """One uniform draw in each of n equal cells of [0, 1], (n,).

    A mean over stratified draws has a smaller variance than a mean over n independent draws.
    """
    check_rng(rng)
    n = as_count(n, "n", minimum=0)
    return (np.arange(n) + rng.random(n)) / n


def stratified_steps(T: int, n: int, rng: np.random.Generator) -> IntArray:
    """n steps spread evenly over 1..T with one common random shift, (n,); all of 1..T have the same expected count."""
    check_rng(rng)
    n = as_count(n, "n", minimum=0)
    T = as_count(T, "T")
    steps = (T * ((np.arange(n) + rng.random()) / n)).astype(np.int64) + 1
    return np.minimum(steps, T)  # a shift just below 1 is rounded up


def _square(losses: Array) -> Array:
    """losses² in float64; ValueError for NaN, inf and losses above 1e154, whose squares overflow."""
    losses = as_arrays("losses (N)", losses).astype(np.float64)
    with np.errstate(over="ignore"):
        square = losses**2
    if not np.isfinite(square).all():
        n = int(np.flatnonzero(~np.isfinite(square))[0])
        raise ValueError(
            f"losses must be finite, with finite squares, but losses[{n}] is {losses[n]}; lower the learning rate"
        )
    return square


def check_sampler(sampler: object) -> None:
    """Raise TypeError unless sampler has the methods of a TimestepSampler."""
    if isinstance(sampler, type) or not hasattr(sampler, "observe"):
        raise TypeError(f"sampler must be a TimestepSampler or a TimeSampler, got {sampler!r:.60}; pass an instance")


class TimestepSampler:
    """Draws t with a weight such that the mean of weight · loss_t is an unbiased estimate of Σ_t loss_t/T.

    "importance" is the sampler of Nichol and Dhariwal (2021): p_t = 0.9 r_t + 0.1/T with r_t ∝ √E[loss_t²].  Running
    means of the observed losses estimate E[loss_t²], and p_t = 1/T until every t has been observed ten times.

    Parameters
    ----------
    T : int
        Number of steps.
    choice : {"uniform", "stratified", "importance"}
        Independent uniform steps; one common shift of an even grid; importance sampling.

    Attributes
    ----------
    mean_squares : (T+1,)
        Running means of loss_t²; element 0 is not used.
    n_seen : (T+1,) of int
        Number of observed losses of every t.

    Raises
    ------
    ValueError
        If choice is none of these; the message calls it "step_choice", as the models do.
    """

    def __init__(self, T: int, choice: str) -> None:
        self.T = as_count(T, "T")
        self.choice = as_choice(choice, "step_choice", STEP_CHOICES)
        self.mean_squares: Array = np.zeros(T + 1)
        self.n_seen = np.zeros(T + 1, dtype=np.int64)

    @property
    def probabilities(self) -> Array:
        """p_t for t = 0..T, (T+1,); p_0 = 0.  If all losses are 0, p_t = 1/T."""
        p = np.full(self.T + 1, 1 / self.T)
        root = np.sqrt(self.mean_squares)
        if self.choice == "importance" and (self.n_seen[1:] >= 10).all() and root.any():
            p = 0.9 * root / root[1:].sum() + 0.1 * p
        p[0] = 0.0
        return p

    def draw(self, n: int, rng: np.random.Generator) -> tuple[IntArray, Array]:
        """Draw n steps t, (n,), with their importance weights 1/(T p_t), (n,)."""
        check_rng(rng)
        n = as_count(n, "n", minimum=0)
        match self.choice:
            case "uniform":
                return uniform_steps(self.T, n, rng), np.ones(n)
            case "stratified":
                return stratified_steps(self.T, n, rng), np.ones(n)
        p = self.probabilities
        t = np.searchsorted(np.cumsum(p), (np.arange(n) + rng.random()) / n, side="right")  # >= 1, as p_0 = 0
        t = np.minimum(t, self.T)  # the sum of p may be rounded below 1
        return t, 1 / (self.T * p[t])

    def observe(self, t: IntArray, losses: Array) -> None:
        """Update the running means with the losses (n,), without importance weights, at steps t (n,).

        Only "importance" has running means, and only there the arguments are checked.

        Raises
        ------
        ValueError
            If t and losses differ in shape, or the square of a loss is not finite.
        """
        if self.choice == "importance":
            square = _square(losses)
            t = as_array(t, "t")
            check_shapes("losses", square, "t", t)
            t = as_labels(t, len(t), self.T + 1, "t", first=1)
            n = np.bincount(t, minlength=self.T + 1)
            total = np.bincount(t, weights=square, minlength=self.T + 1)
            self.n_seen += n
            seen = n > 0
            # n losses of step t move its running mean by 1 − MEMORYⁿ; the first losses are averaged with equal weights
            rate = np.maximum(1 - MEMORY ** n[seen], n[seen] / self.n_seen[seen])
            self.mean_squares[seen] += rate * (total[seen] / n[seen] - self.mean_squares[seen])
