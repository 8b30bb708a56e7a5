"""Adam, the exponential moving average of parameters, and a learning-rate schedule; parameters are flat vectors."""

from collections.abc import Sequence
from math import isfinite

import numpy as np

from scratchgen.validation import Array, as_arrays, as_count, as_number, check_type

BLOCK = 65_536  # parameters updated at a time, which stay in the cache; saves up to 6 % of a wide MLP's step


def _as_changed(array: Array, name: str) -> Array:
    """Return the array itself, (P,); TypeError or ValueError if steps would change a copy, or could not change it."""
    if as_arrays(f"{name} (P)", array) is not array or not array.flags.writeable:
        raise TypeError(
            f"{name} must be a writeable NumPy array of float32 or float64, since steps change it in place, got "
            f"{array!r:.60}; pass np.array({name}, dtype=float)"
        )
    return array


class Adam:
    """Adam (Kingma and Ba 2015); AdamW (Loshchilov and Hutter 2019) with `weight_decay` > 0.

        m ← β₁ m + (1−β₁) g,  v ← β₂ v + (1−β₂) g²,  θ ← θ − lr · m̂ / (√v̂ + ε),  m̂ = m/(1−β₁ⁿ), v̂ = v/(1−β₂ⁿ)

    With weight decay λ, θ is first multiplied by 1 − lr · λ.

    Parameters
    ----------
    parameters : (P,)
        Flat vector θ; every `step` changes it in place.
    learning_rate : float
        lr.
    beta1, beta2 : float
        β₁ and β₂, in [0, 1).
    epsilon : float
        ε.
    weight_decay : float
        λ.

    Attributes
    ----------
    n_steps : int
        n, the number of steps so far.
    m, v : (P,)
        m/(1−β₁) and v/(1−β₂); to store them without these factors saves two passes a step.

    Raises
    ------
    TypeError, ValueError
        If parameters are not an array, (P,), that can be changed in place, or an option is not a number in its range.
    """

    def __init__(
        self,
        parameters: Array,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = _as_changed(parameters, "parameters")
        self.learning_rate = as_number(learning_rate, "learning_rate", low=0.0)
        self.beta1 = as_number(beta1, "beta1", low=0.0, high=1 - 1e-9)
        self.beta2 = as_number(beta2, "beta2", low=0.0, high=1 - 1e-9)
        self.epsilon = as_number(epsilon, "epsilon", low=0.0)
        self.weight_decay = as_number(weight_decay, "weight_decay", low=0.0)
        self.n_steps = 0
        self.m: Array = np.zeros_like(self.parameters)
        self.v: Array = np.zeros_like(self.parameters)

    def step(self, gradient: Array, learning_rate: float | None = None) -> None:
        """Update `parameters` with `gradient`, (P,); `learning_rate` replaces the constructor's in this step.

        Rates and gradients that overflow in the dtype of `parameters` make them infinite or NaN without an error; a
        training loop therefore calls `check_update`, which undoes such a step.
        """
        rate = self.learning_rate if learning_rate is None else as_number(learning_rate, "learning_rate", low=0.0)
        gradient = as_arrays("gradient (P)", gradient, P=len(self.parameters))
        self.n_steps += 1
        # m̂ = c₁ m and v̂ = c₂ v.  Numerator and denominator are divided by √c₂, which leaves one step size and one ε.
        # Both are Python floats, so that float32 parameters stay float32.
        c1 = (1 - self.beta1) / (1 - self.beta1**self.n_steps)
        root_c2 = float((1 - self.beta2) / (1 - self.beta2**self.n_steps)) ** 0.5
        step_size, epsilon = float(rate * c1 / root_c2), self.epsilon / root_c2
        for start in range(0, len(self.parameters), BLOCK):
            block = slice(start, start + BLOCK)
            parameters, m, v, g = self.parameters[block], self.m[block], self.v[block], gradient[block]
            m *= self.beta1
            m += g
            v *= self.beta2
            v += g * g
            if self.weight_decay:
                parameters *= 1 - rate * self.weight_decay
            move = np.sqrt(v)
            move += epsilon
            np.divide(m, move, out=move)
            move *= step_size
            parameters -= move


class EMA:
    """Exponential moving average of a parameter vector: average ← decay · average + (1 − decay) · parameters.

    Update n uses the decay min(decay, (1 + n)/(10 + n)), so that the initial parameters lose their weight quickly.

    Parameters
    ----------
    average : (P,)
        Initial value; every `update` changes it in place.
    decay : float
        In [0, 1).  0.999 averages over about 1000 steps.

    Attributes
    ----------
    n_updates : int
        Number of updates so far.

    Raises
    ------
    TypeError, ValueError
        If average is not an array, (P,), that can be changed in place, or decay is not a number in its range.
    """

    def __init__(self, average: Array, decay: float = 0.999) -> None:
        self.average = _as_changed(average, "average")
        self.decay = as_number(decay, "decay", low=0.0, high=1 - 1e-9)
        self.n_updates = 0

    def update(self, parameters: Array) -> None:
        """Update the average with `parameters`, (P,)."""
        parameters = as_arrays("parameters (P)", parameters, P=len(self.average))
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.average *= decay
        self.average += (1 - decay) * parameters


def check_loop(n_steps: int, batch_size: int | None, learning_rate: float) -> None:
    """Raise TypeError or ValueError for wrong arguments that all training loops have."""
    as_count(n_steps, "n_steps", minimum=0)
    as_number(learning_rate, "learning_rate", low=0.0, open_low=True)
    if batch_size is not None:
        as_count(batch_size, "batch_size")


def check_adam(adam: Adam, parameters: Array, name: str = "adam") -> None:
    """Raise TypeError or ValueError unless adam changes the array `parameters` itself, and no copy of it."""
    check_type(adam, Adam, name, "pass Adam(network.parameters)")
    if adam.parameters is not parameters:
        raise ValueError(f"{name} must change the network's own parameters, got other ones; Adam(network.parameters)")


def check_average(ema: EMA, parameters: Array) -> None:
    """Raise TypeError or ValueError unless ema has an average of its own that can hold `parameters`, (P,)."""
    check_type(ema, EMA, "ema", "pass EMA(network.parameters.copy())")
    if ema.average.shape != parameters.shape:
        raise ValueError(f"ema must average {len(parameters)} parameters, got {len(ema.average)}; pass a copy of them")
    if np.shares_memory(ema.average, parameters):
        raise ValueError("ema must average into an array of its own, got the network's parameters; pass a copy")
    if not np.can_cast(parameters.dtype, ema.average.dtype):
        found = ema.average.dtype
        raise ValueError(f"ema must average in {parameters.dtype}, the network's dtype, got {found}; pass a copy")


ROOM = 2000  # Adam's v = Σ_i β₂ⁱ g² is at most 1/(1−β₂) = 1000 times the largest g²; twice that allows for rounding


def check_step(step: int, loss: float, *gradients: Array) -> None:
    """Raise ArithmeticError if the loss of step 0, 1, …, or 2000 times the squared length of a gradient, is not finite.

    Adam's v then stays finite, with β₂ up to 0.999.  The check comes before the parameters change, so that those of the
    last good step stay.
    """
    try:
        squares = sum([float(ROOM * gradient.dot(gradient)) for gradient in gradients])
        if isfinite(loss) and isfinite(squares):
            return
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise TypeError(
            f"loss must be a number, and gradient an array (P,), got {loss!r:.60} and {gradients!r:.60}; pass floats"
        ) from None
    found = f"the loss is {loss}" if not isfinite(loss) else "the gradient overflows"
    cause = (
        "before any change of the parameters: x or a weight of the loss is too large, x is not finite, or a given "
        "variance is too small for it; standardize x, or raise decoder_variance"
        if step == 0
        else f"and the parameters are those after step {step}; lower learning_rate, or drop outliers of x"
    )
    raise ArithmeticError(f"training diverged in step {step + 1}: {found}, {cause}")


def check_update(step: int, updates: Sequence[tuple[Array, Array]]) -> None:
    """Undo the update of step 0, 1, …, and raise ArithmeticError, if the squared length of the parameters overflows.

    The check also finds NaN and infinite parameters.  A moving average of parameters that pass the check is finite.
    Adam's moments and number of steps stay those after the update: a training that diverged does not go on.

    Parameters
    ----------
    step : int
        Number of steps before this one.
    updates : sequence of ((P,), (P,))
        Parameters after the update, and a copy from before it, of every network.
    """
    if isfinite(sum([float(parameters.dot(parameters)) for parameters, _ in updates])):
        return
    for parameters, before in updates:
        parameters[:] = before
    kept = f"after step {step}" if step else "from before the training"
    raise ArithmeticError(
        f"training diverged in step {step + 1}: the squared length of the parameters overflows, and the parameters are "
        f"those {kept}; lower learning_rate or weight_decay"
    )


def cosine_decay(step: int, n_steps: int, learning_rate: float, warmup: int = 0) -> float:
    """Learning rate of step 0..n_steps−1: a linear rise over `warmup` steps, then half a cosine to 0 at n_steps."""
    step, n_steps = as_count(step, "step", minimum=0), as_count(n_steps, "n_steps")
    warmup = as_count(warmup, "warmup", minimum=0)
    learning_rate = as_number(learning_rate, "learning_rate", low=0.0)
    if step < warmup:
        return learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(n_steps - warmup, 1)
    return float(0.5 * learning_rate * (1 + np.cos(np.pi * progress)))
