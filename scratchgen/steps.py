"""Which t a network trains on: E_t λ_t ‖ε − ε̂‖², t uniform on 1..T or on an interval, by draws that vary less."""

from __future__ import annotations

import numpy as np

from scratchgen.validation import Array, IntArray, as_choice

MEMORY = 0.9  # what a new loss leaves of the running mean of those before
STEP_CHOICES = ("uniform", "stratified", "importance")


def uniform_steps(T: int, n: int, rng: np.random.Generator) -> IntArray:
    """n independent steps, each of 1..T as likely."""
    return rng.integers(1, T + 1, size=n)


def stratified(n: int, rng: np.random.Generator) -> Array:
    """One uniform draw in each of n equal cells of [0, 1], (n,); its means vary less than those of n free draws."""
    return (np.arange(n) + rng.random(n)) / n


def stratified_steps(T: int, n: int, rng: np.random.Generator) -> IntArray:
    """n steps, one from each nth of 1..T with a common random shift: each of 1..T as likely, the batch even."""
    return (T * ((np.arange(n) + rng.random()) / n)).astype(np.int64) + 1


class StepChooser:
    """Draws t and the weight that makes the mean of weight · loss_t an unbiased estimate of Σ_t loss_t/T.

    "importance" is Nichol and Dhariwal's (2021): p_t ∝ √E[loss_t²], from a running mean of what was seen, mixed with
    a tenth of the uniform law; uniform until every t has been seen ten times.

    Parameters
    ----------
    T : int
    choice : {"uniform", "stratified", "importance"}
    """

    def __init__(self, T: int, choice: str) -> None:
        self.T = T
        self.choice = as_choice(choice, "step_choice", STEP_CHOICES)
        self._square: Array = np.zeros(T + 1)  # running mean of loss², index 0 not used
        self._seen = np.zeros(T + 1, dtype=np.int64)

    @property
    def probabilities(self) -> Array:
        """p_t for t = 0..T, (T+1,); p_0 = 0."""
        p = np.full(self.T + 1, 1 / self.T)
        if self.choice == "importance" and (self._seen[1:] >= 10).all():
            root = np.sqrt(self._square)
            p = 0.9 * root / root[1:].sum() + 0.1 * p
        p[0] = 0.0
        return p

    def draw(self, n: int, rng: np.random.Generator) -> tuple[IntArray, Array]:
        """t (n,) and their weights 1/(T p_t) (n,)."""
        if self.choice == "uniform":
            return uniform_steps(self.T, n, rng), np.ones(n)
        if self.choice == "stratified":
            return stratified_steps(self.T, n, rng), np.ones(n)
        p = self.probabilities
        t = np.searchsorted(np.cumsum(p), (np.arange(n) + rng.random()) / n, side="right")  # >= 1, as p_0 = 0
        t = np.minimum(t, self.T)  # where the sum of p is rounded below 1
        return t, 1 / (self.T * p[t])

    def observe(self, t: IntArray, losses: Array) -> None:
        """Take losses (n,), without their importance weights, at steps t (n,) into the running means."""
        if self.choice == "importance":
            n = np.bincount(t, minlength=self.T + 1)
            total = np.bincount(t, weights=losses.astype(np.float64) ** 2, minlength=self.T + 1)
            self._seen += n
            seen = n > 0
            # n losses of a step move its mean by 1 − MEMORYⁿ towards theirs; the first ones are averaged evenly
            rate = np.maximum(1 - MEMORY ** n[seen], n[seen] / self._seen[seen])
            self._square[seen] += rate * (total[seen] / n[seen] - self._square[seen])
