"""Helpers of the tests in addition to `scratchgen.testing`: residuals, slopes, scripted noise, tests of samples."""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-7  # of one statistical test


def holds(check):
    """Fail with the diagnosis of the check."""
    assert check.passed, check


def residual(a, b):
    """max |a - b|/(1 + |b|); the shapes must be equal, without broadcasting."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0.0))


def slope(f, h):
    """f'(0) by a central difference of fourth order."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def slope_along(array, direction, f, h=1e-4):
    """Derivative of f() when `array`, which f reads, moves along `direction`; afterwards the array is restored."""
    start = array.copy()

    def moved(step):
        array[:] = start + step * direction
        return f()

    derivative = slope(moved, h)
    array[:] = start
    return derivative


class Scripted(np.random.Generator):
    """A Generator whose i-th array of normal numbers is script(i, shape), and whose uniform numbers are 1/2."""

    def __init__(self, script):
        super().__init__(np.random.PCG64(0))
        self.script, self.calls = script, 0

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        self.calls += 1
        return np.broadcast_to(self.script(self.calls - 1, size), size).astype(dtype)

    def random(self, size=None, dtype=np.float64, out=None):
        return np.full(size, 0.5)


def relative(a, b):
    """max |a - b|/|b|, for positive b."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.max(np.abs(a - b) / np.abs(b), initial=0.0))


# --- statistical tests ------------------------------------------------------------------------------------


def mixture_cdf(mixture, direction):
    """The distribution function of direction · x for x ~ mixture."""
    centres = mixture.means @ direction
    widths = np.sqrt(np.einsum("d,kde,e->k", direction, mixture.covariances, direction))
    return lambda y: stats.norm.cdf((np.asarray(y)[:, None] - centres) / widths) @ mixture.weights


def passes_as_sample(x, mixture, n_directions=3):
    """Whether projections of x on fixed directions pass the Kolmogorov-Smirnov test against the mixture.

    A correct sample fails with probability at most FALSE_ALARM, by Bonferroni over the directions.
    """
    directions = np.random.default_rng(20).standard_normal((n_directions, mixture.dimension))
    directions = np.concatenate([np.eye(mixture.dimension), directions])
    p_values = [stats.kstest(x @ d, mixture_cdf(mixture, d)).pvalue for d in directions]
    return min(p_values) > FALSE_ALARM / len(directions)
