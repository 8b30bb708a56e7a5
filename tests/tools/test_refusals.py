"""Wrong input that no other file tests: the class of the error, and the words that name the argument and the remedy."""

from types import SimpleNamespace

import numpy as np
import pytest

from scratchgen import DDPM, VP, NoiseSchedule, ScoreSDE, to_ddpm
from scratchgen.conformance import (
    check_bernoulli_loss,
    check_bound_of,
    check_kmeans,
    check_missing_information,
    check_posterior,
    check_variational_bound,
)
from scratchgen.conformance.convention import as_numpy
from scratchgen.em import factor_analysis_em_step
from scratchgen.grading import chain_density
from scratchgen.sde import kl_bound
from scratchgen.vae import importance_weighted_bound
from scratchgen.validation import as_arrays, as_number, check_symmetric
from scratchgen.variational import linear_gaussian_log_prob

SCHEDULE = NoiseSchedule([0.02, 0.1, 0.25])
VARIANCES = np.append(0.0, SCHEDULE.beta[1:] ** 2)
X = np.random.default_rng(0).standard_normal((6, 3))
W, ZERO, EYE = X[:3, :2], np.zeros((6, 3)), np.eye(3)


class OnDevice:
    """An array that NumPy cannot read, as one of a GPU."""

    shape = (2, 3)

    def __len__(self):
        return 2

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert device tensor to numpy")


def narrow_means(x):
    """A mean that maps two examples to one."""
    return x[:1]


def em_that_creeps():
    """Both components fit the whole of the data: the larger fraction of missing information is 1 where they meet."""
    covariance = np.cov(X.T, bias=True)
    means = X.mean(axis=0) + np.array([[0.1, 0.0, 0.1], [0.0, 0.1, -0.1]])
    return check_missing_information(lambda *a: np.zeros(6), X, [0.5, 0.5], means, [covariance] * 2)


REFUSALS = {
    "an array with an axis too many": (
        lambda: as_arrays("image (N, D)", np.zeros((2, 3, 4))),
        ValueError,
        r"image must have shape \(N, D\), .*; image\.reshape\(len\(image\), -1\) makes one row of every example",
    ),
    "matrices that are not square": (
        lambda: check_symmetric(np.zeros((4, 2, 3)), "covariances"),
        ValueError,
        r"covariances must be square in its last two axes, got shape \(4, 2, 3\)",
    ),
    "an int beyond every float": (
        lambda: as_number(10**400, "scale", low=0.0),
        ValueError,
        r"scale must be in \[0\.0, inf\] and finite, got inf",
    ),
    "an int below every float": (
        lambda: as_number(-(10**400), "scale"),
        ValueError,
        r"scale must be in \[-inf, inf\] and finite, got -inf",
    ),
    "Ψ of another length": (
        lambda: linear_gaussian_log_prob(X, W, X[0], np.ones(2)),
        ValueError,
        r"noise_variance must be one number or one a row of W, \(3,\), got shape \(2,\)",
    ),
    "a floor of another length": (
        lambda: factor_analysis_em_step(EYE, W, np.ones(3), np.ones(2)),
        ValueError,
        r"noise_floor must be one number or \(3,\), got shape \(2,\)",
    ),
    "weights of no draw": (
        lambda: importance_weighted_bound(np.zeros((0, 4))),
        ValueError,
        r"log_weights must have shape \(n, N\) with n >= 1, got shape \(0, 4\)",
    ),
    "one weight": (
        lambda: importance_weighted_bound(np.float64(3.0)),
        ValueError,
        r"log_weights must have shape \(n, N\) with n >= 1, got shape \(\)",
    ),
    "a score error of every example": (
        lambda: kl_bound(VP(), lambda t: np.ones(5), 0.1),
        ValueError,
        r"score_error must return one number, got an array of shape \(5,\); sum over the rows",
    ),
    "steps of a chain without std": (
        lambda: chain_density([narrow_means], 2),
        ValueError,
        r"steps must hold pairs \(mean, std\), got <function",
    ),
    "steps of a chain with three parts": (
        lambda: chain_density([(narrow_means, 0.5, 1.0)], 2),
        ValueError,
        r"steps must hold pairs \(mean, std\), got \(<function",
    ),
    "a horizon as t_min": (
        lambda: ScoreSDE(VP(), t_min=1.0).fit(X),
        ValueError,
        r"t_min must be below the horizon 1\.0, where sampling starts",
    ),
    "labels under a mask": (
        lambda: DDPM(SCHEDULE, n_classes=2, n_steps=1).fit(
            X, np.ma.masked_array([0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1])
        ),
        TypeError,
        "y must not be a masked array; drop the masked rows",
    ),
    "a variance that only training estimates": (
        lambda: to_ddpm(ScoreSDE(VP()), 5, "optimal"),
        ValueError,
        "variance must not be 'optimal', which is estimated when a DDPM is trained",
    ),
    "a bound of another shape": (
        lambda: check_variational_bound(
            lambda x0, net, noise: np.zeros((len(x0), 3)), SCHEDULE, X[0], EYE, np.stack([EYE] * 4), ZERO[:4], VARIANCES
        ),
        ValueError,
        r"bound must return an array of shape \((\d+),\) or of terms \(\1, 4\), got \(\1, 3\)",
    ),
    "noise of too few steps": (
        lambda: check_bound_of(lambda x0, noise: x0[:, 0], lambda x, t: 0.1 * x, X, np.zeros((2, 6, 3)), SCHEDULE),
        ValueError,
        r"noise must have shape \(T, N, D\) = \(3, 6, 3\), got \(2, 6, 3\)",
    ),
    "a variance of another shape": (
        lambda: check_posterior(lambda t, x_t, x0: (0.3 * x_t + 0.7 * x0, np.ones((2, 7))), SCHEDULE),
        ValueError,
        r"the variance of q_posterior must be a number or broadcast to \(N, D\) = .*, got \(2, 7\)",
    ),
    "pixels above 1": (
        lambda: check_bernoulli_loss(lambda *a: np.zeros(6), 255 * np.abs(X), X, X, X),
        ValueError,
        r"x and logits must both be \(N, D\), x in \[0, 1\], .*; scale x",
    ),
    "logits of another shape": (
        lambda: check_bernoulli_loss(lambda *a: np.zeros(6), np.ones((6, 3)), X[:, :2], X, X),
        ValueError,
        r"x and logits must both be \(N, D\), .* got \(6, 3\) and \(6, 2\)",
    ),
    "a start for which EM creeps": (
        em_that_creeps,
        ValueError,
        "EM over the means did not converge in 2000 steps for this problem; use another start",
    ),
    "an array on a device": (
        lambda: check_kmeans(lambda x, start: OnDevice(), X, X[:2]),
        ValueError,
        "the centres must be an array of real numbers, got OnDevice",
    ),
    "a tensor in bfloat16": (
        lambda: as_numpy(SimpleNamespace(detach=None, dtype="torch.bfloat16")),
        TypeError,
        r"arrays must be in float32 or float64, got bfloat16; convert them by \.float\(\)",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), REFUSALS.values(), ids=REFUSALS)
def test_wrong_input_is_refused_with_the_remedy(call, error, words):
    with pytest.raises(error, match=f"^{words}"):
        call()
