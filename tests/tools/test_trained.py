"""The checks of code with a trained network: right code in several conventions and precisions, and wrong code."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen.conformance import check_bound_of, check_flow_likelihood_of, check_loss_of, check_sampler_of
from scratchgen.ddpm import ancestral_sampler, bound_terms, loss_weight, q_sample
from scratchgen.equations.problems import GivenNoise
from scratchgen.sde import probability_flow_log_prob
from tests.ho import COSINE, HO, Ho
from tests.strategies import holds

N = 5
SHORT = np.array([0.02, 0.1, 0.25, 0.4, 0.6, 0.3])
SCHEDULES = {
    "Ho, T = 1000, D = 3": (HO, 3),
    "cosine, T = 50, D = 2": (COSINE, 2),
    "cosine, T = 50, D = 64": (COSINE, 64),
    "T = 6, D = 16": (SHORT, 16),
    "T = 1, D = 2": (SHORT[:1], 2),
}
every_schedule = pytest.mark.parametrize(("betas", "D"), SCHEDULES.values(), ids=SCHEDULES)
every_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])
every_prediction = pytest.mark.parametrize("prediction", ["noise", "x0", "v"])


def draws(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Problem:
    """A model in Ho's convention, and the same schedule and network in ours."""

    def __init__(self, betas, D=3, dtype=np.float64, prediction="noise"):
        self.theirs = Ho(betas, D, dtype, prediction)
        self.dtype, self.schedule = dtype, NoiseSchedule(self.theirs.betas)
        self.x0, self.eps, self.noise = draws(N, D), draws(N, D, seed=1), draws(len(betas), N, D, seed=2)

    def cast(self, function):
        """`function` of arrays in the model's precision."""
        return lambda *arrays: function(*(a.astype(self.dtype) if a.dtype.kind == "f" else a for a in arrays))

    def net(self, x, t):
        return self.theirs.net(x.astype(self.dtype), t - 1)

    def eps_hat(self, x, t):
        x = x.astype(self.dtype)
        return self.theirs.noise_of(t - 1, x, self.theirs.net(x, t - 1))

    def loss(self, loss=None, **options):
        loss = loss or self.cast(lambda t, x0, noise: self.theirs.loss(t - 1, x0, noise))
        return check_loss_of(
            loss, self.net, self.x0, self.eps, self.schedule, prediction=self.theirs.prediction, **options
        )

    def bound(self, bound=None, **options):
        return check_bound_of(
            bound or self.cast(self.theirs.bound), self.eps_hat, self.x0, self.noise, self.schedule, **options
        )

    def sampler(self, sample=None, **options):
        options = {"last_noise": False, **options}
        return check_sampler_of(
            sample or self.cast(self.theirs.sampler), self.eps_hat, self.x0, self.noise, self.schedule, **options
        )


# --- right code --------------------------------------------------------------------------------------------------


@every_prediction
@every_dtype
@every_schedule
def test_right_code_in_hos_convention_passes(betas, D, dtype, prediction):
    problem = Problem(betas, D, dtype, prediction)
    holds(problem.loss())
    holds(problem.bound())
    holds(problem.bound(problem.cast(lambda *arrays: problem.theirs.bound(*arrays).sum(axis=1))))
    holds(problem.sampler())
    ddim = problem.cast(lambda x, noise: problem.theirs.ddim_sampler(x, noise, 0.7))
    if len(betas) < 1000:
        holds(problem.sampler(ddim, eta=0.7, last_noise=True))


@every_dtype
def test_the_tolerance_is_that_of_the_networks_precision(dtype):
    problem = Problem(COSINE, 3, dtype)
    expected = {np.float64: 1e-12, np.float32: 128 * 2**-23}[dtype]
    checks = problem.loss(), problem.bound(), problem.sampler()
    assert [check.tolerance for check in checks] == [expected] * 3
    assert all(check.left.dtype == np.float64 for check in checks)


def test_a_mean_over_the_batch_is_compared_example_by_example_and_as_a_whole():
    problem = Problem(SHORT)
    right = problem.cast(lambda t, x0, noise: problem.theirs.loss(t - 1, x0, noise).mean())
    check = problem.loss(right)
    holds(check)
    assert check.left.shape == (N + 1,)

    def same_step(t, x0, noise):  # the step of the first example for all; seen in a batch only
        return problem.theirs.loss(np.full_like(t, t[0]) - 1, x0, noise).mean()

    check = problem.loss(same_step)
    assert not check
    assert check.diagnosis.startswith("the mean loss of the batch is")


def test_our_own_code_passes_with_paths_weights_and_chosen_steps():
    problem = Problem(COSINE, prediction="noise")
    schedule, x0 = problem.schedule, problem.x0
    path = [x for _, x in ancestral_sampler(schedule, problem.eps_hat, x0, GivenNoise(problem.noise), "posterior")]
    holds(problem.sampler(lambda x, noise: np.stack(path), variance="posterior", last_noise=True))
    weight, t = loss_weight(schedule, "min-snr"), np.array([3, 1, 50, 50, 20])

    def loss(t, x0, noise):
        error = noise - problem.theirs.net(q_sample(schedule, t, x0, noise), t - 1)
        return weight[t] * (error**2).mean(axis=1)

    holds(problem.loss(loss, t=t, weight=weight, reduction="mean"))
    levels = np.array([[-1.0, 0.0, 1.0]] * N)
    problem.x0 = levels
    holds(problem.bound(lambda x0, noise: bound_terms(schedule, x0, problem.eps_hat, noise, "beta", 3), n_levels=3))


# --- wrong code: each is seen in every precision, and named ------------------------------------------------------


def wrong_losses(p):
    m = p.theirs

    def with_x_t(x_t):
        return lambda t, x0, noise: ((noise - m.net(x_t(m.at(m.acp, t - 1), x0, noise), t - 1)) ** 2).sum(axis=1)

    return {
        "averaged over the D dimensions": lambda t, x0, noise: m.loss(t - 1, x0, noise) / x0.shape[1],
        "averaged over the examples": lambda t, x0, noise: np.full(N, m.loss(t - 1, x0, noise).mean()),
        "ᾱ², Ho's α-bar": with_x_t(lambda a, x0, noise: a * x0 + np.sqrt(1 - a) * noise),
        "β̄², a variance": with_x_t(lambda a, x0, noise: np.sqrt(a) * x0 + (1 - a) * noise),
        "√(1 − ᾱ)": with_x_t(lambda a, x0, noise: np.sqrt(a) * x0 + np.sqrt(1 - np.sqrt(a)) * noise),
        "target is x_0": lambda t, x0, noise: ((x0 - m.net(m.q_sample(t - 1, x0, noise), t - 1)) ** 2).sum(axis=1),
        "called at t − 1": lambda t, x0, noise: (
            (noise - m.net(m.q_sample(t - 1, x0, noise), np.maximum(t - 2, 0))) ** 2
        ).sum(axis=1),
    }


@every_dtype
@pytest.mark.parametrize("name", wrong_losses(Problem(SHORT)))
def test_wrong_losses_are_seen_and_named(name, dtype):
    problem = Problem(SHORT, 4, dtype)
    check = problem.loss(problem.cast(wrong_losses(problem)[name]))
    assert not check
    assert name in check.diagnosis, check
    assert "example" in check.diagnosis


@pytest.mark.parametrize("D", [2, 4])
def test_a_factor_of_two_is_not_taken_for_a_sum_over_two_dimensions(D):
    p = Problem(SHORT, D)

    def told(factor, reduction):
        loss = p.cast(lambda t, x0, noise: factor * p.theirs.loss(t - 1, x0, noise))
        return p.loss(loss, reduction=reduction).diagnosis.split("; ", 1)[1]

    for factor, reduction, text in (
        (2, "mean", "it is twice the right value"),
        (D, "mean", "it is summed over D"),
        (0.5, "sum", "it is half the right value"),
        (1 / D, "sum", "it is averaged over the D dimensions, not summed"),
    ):
        of_two = factor in (2, 0.5)
        found = told(factor * (1 / D if reduction == "mean" else 1), reduction)
        assert text in found
        assert ("over" in found) == (D == 2 or not of_two)
        assert ("twice" in found or "half" in found) == (D == 2 or of_two)
    halves = p.bound(lambda x0, noise: 0.5 * p.theirs.bound(x0, noise).sum(axis=1)).diagnosis
    assert ("it is averaged over the D dimensions, not summed; or: it is half" in halves) == (D == 2)


def test_a_sum_over_the_batch_is_named():
    p = Problem(SHORT, 4)
    for reduction, factor, text in (
        ("sum", 1, "it is summed over the batch, not averaged"),
        ("mean", 1 / 4, "it is summed over the batch, not averaged"),
        ("mean", 1, "it is summed over D, and summed over the batch"),
        ("sum", 1 / 4, "it is averaged over the D dimensions, not summed, and summed over the batch"),
        ("sum", 2, "it is twice the right value, and summed over the batch"),
        ("sum", 1.1, "no known mistake gives these numbers"),
    ):
        loss = p.cast(lambda t, x0, noise, c=factor: c * p.theirs.loss(t - 1, x0, noise).sum())
        assert p.loss(loss, reduction=reduction).diagnosis.split("; ")[1:] == [text]
    nearly = p.cast(lambda t, x0, noise: p.theirs.loss(t - 1, x0, noise).mean() * (1.0 if len(x0) == 1 else 4.9))
    assert "batch, not averaged" not in p.loss(nearly).diagnosis


def test_half_the_squares_of_small_errors_may_be_the_huber_loss():
    p = Problem(SHORT, 3)
    near = [p.net(q_sample(p.schedule, t, p.x0[[n]], p.eps[[n]]), t)[0] for n, t in enumerate((1, 2, 4, 5, 6))]
    p.eps = np.array(near)
    told = p.loss(lambda t, x0, noise: 0.5 * p.theirs.loss(t - 1, x0, noise)).diagnosis
    assert "it is half the right value; or: it is the Huber loss" in told


def test_a_wrong_convention_of_the_loss_is_seen():
    problem = Problem(SHORT, 4)
    shifted = problem.cast(lambda t, x0, noise: problem.theirs.loss(np.minimum(t, 5), x0, noise))
    assert not problem.loss(shifted)
    mean = problem.loss(reduction="mean")
    assert "it is summed over D" in mean.diagnosis
    unweighted = problem.loss(weight=np.arange(7.0))
    assert "the weight λ_t is missing" in unweighted.diagnosis


def wrong_bounds(p):
    m = p.theirs

    def terms(x0, noise):
        return m.bound(x0, noise)

    return {
        "bits per dimension": lambda *a: terms(*a) / (4 * np.log(2)),
        "averaged over the D dimensions": lambda *a: terms(*a).sum(axis=1) / 4,
        "averaged over the examples": lambda *a: np.full(N, terms(*a).sum(axis=1).mean()),
        "averaged over the T steps": lambda *a: terms(*a).sum(axis=1) / m.T,
        "L_T, the divergence from the prior, is missing": lambda *a: terms(*a)[:, :-1].sum(axis=1),
        "L_0, the reconstruction, is missing": lambda *a: terms(*a)[:, 1:].sum(axis=1),
        "L_0 and L_T are missing": lambda *a: terms(*a)[:, 1:-1].sum(axis=1),
        "order L_T, …, L_0": lambda *a: terms(*a)[:, ::-1],
        "L_0 comes last": lambda *a: np.roll(terms(*a), -1, axis=1),
    }


@every_dtype
@pytest.mark.parametrize("name", wrong_bounds(Problem(SHORT)))
def test_wrong_bounds_are_seen_and_named(name, dtype):
    problem = Problem(SHORT, 4, dtype)
    check = problem.bound(problem.cast(wrong_bounds(problem)[name]))
    assert not check
    assert name in check.diagnosis, check


def test_a_bound_with_another_variance_is_named():
    problem = Problem(SHORT, 4)
    assert "σ_t² is β_t²" in problem.bound(variance="posterior").diagnosis
    terms = problem.theirs.bound(problem.x0, problem.noise)
    terms[2, 3] *= 1.001  # one term of one example
    check = problem.bound(lambda *arrays: terms)
    assert check.diagnosis.startswith("L_3 of example 2 is")


def wrong_samplers(p):
    m = p.theirs

    def walk(step, late=0):
        def sample(x, noise):
            for t, z in zip(reversed(range(m.T)), noise, strict=True):
                x = step(t, x, m.net(x, max(t - late, 0)), z)
            return x

        return sample

    def mean(t, x, output):
        return m.step(t, x, output, 0 * x)

    inner = {True: 1, False: 0}
    return {
        "there is no noise": walk(lambda t, x, e, z: mean(t, x, e)),
        "the last step adds noise": walk(lambda t, x, e, z: mean(t, x, e) + np.sqrt(m.betas[t]) * z),
        "used in the order t = 1..T": lambda x, noise: m.sampler(x, noise[::-1]),
        "called at t − 1": walk(m.step, late=1),
        "σ_t² is β̃_t²": walk(lambda t, x, e, z: mean(t, x, e) + inner[t > 0] * np.sqrt(m.posterior_variance[t]) * z),
        "the noise has factor σ², a variance": walk(lambda t, x, e, z: mean(t, x, e) + inner[t > 0] * m.betas[t] * z),
        "DDIM with η = 0": lambda x, noise: m.ddim_sampler(x, noise, 0.0),
    }


@every_dtype
@pytest.mark.parametrize("name", wrong_samplers(Problem(SHORT)))
def test_wrong_samplers_are_seen_and_named(name, dtype):
    problem = Problem(SHORT, 4, dtype)
    check = problem.sampler(problem.cast(wrong_samplers(problem)[name]))
    assert not check
    assert name in check.diagnosis, check


def test_ddim_with_another_eta_is_named():
    problem = Problem(SHORT, 4)
    for eta in (0.0, 1.0):
        sample = problem.cast(lambda x, noise, eta=eta: problem.theirs.ddim_sampler(x, noise, eta))
        check = problem.sampler(sample, eta=0.5, last_noise=True)
        assert f"DDIM with η = {eta:.0f}" in check.diagnosis


def test_a_mistake_of_the_size_of_the_tolerance_is_seen():
    for dtype, size in ((np.float64, 1e-10), (np.float32, 1e-3)):
        problem = Problem(SHORT, 4, dtype)
        assert not problem.loss(problem.cast(lambda t, x0, e: problem.theirs.loss(t - 1, x0, e) + dtype(size)))  # noqa: B023
        assert not problem.bound(problem.cast(lambda x0, e: problem.theirs.bound(x0, e) + dtype(10 * size)))  # noqa: B023
        assert not problem.sampler(problem.cast(lambda x, e: problem.theirs.sampler(x, e) + dtype(10 * size)))  # noqa: B023


# --- the flow ----------------------------------------------------------------------------------------------------

MIXTURE = Mixture([0.3, 0.7], [[-1.0, 0.5], [1.0, 0.0]], [0.3 * np.eye(2), 0.2 * np.eye(2)])
PROCESSES = [VP(0.1, 8.0, 1.3), SubVP(0.1, 8.0), VE(0.05, 6.0)]


def network(sde, dtype, error=0.3):
    """The score of a mixture, with an error."""

    def score(x, t):
        exact = MIXTURE.diffuse(*sde.level(t)).score(np.asarray(x, dtype=np.float64))
        return (exact - error * np.sin(1.3 * x + t)).astype(dtype)

    def divergence(x, t):
        jacobian = MIXTURE.diffuse(*sde.level(t)).score_jacobian(x)
        return np.trace(jacobian, axis1=1, axis2=2) - error * 1.3 * np.cos(1.3 * x + t).sum(axis=1)

    return score, divergence


def own_flow(sde, score, divergence, t_min, terms=(1.0, 1.0), sign=1.0):
    """log p by a multistep integrator; the package has a Runge-Kutta method."""

    def log_prob(x):
        N, D = x.shape

        def slope(t, state):
            y, f, g2 = state[: N * D].reshape(N, D), float(sde.rate(t)), float(sde.diffusion(t)) ** 2
            return np.append(f * y - 0.5 * g2 * score(y, t), D * f - 0.5 * sign * g2 * divergence(y, t))

        start = np.append(x, np.zeros(N))
        end = solve_ivp(slope, (t_min, sde.horizon), start, "LSODA", rtol=1e-8, atol=1e-8).y[:, -1]
        return terms[0] * sde.prior_log_prob(end[: N * D].reshape(N, D)) + terms[1] * end[N * D :]

    return log_prob


@every_dtype
@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_the_likelihood_of_a_flow_by_another_integrator_passes(sde, dtype):
    """With the divergence given, and with finite differences of the network."""
    score, divergence = network(sde, dtype)
    x, mine = MIXTURE.sample(2, rng=0), own_flow(sde, score, divergence, 0.01)
    value = mine(x)
    for given in (divergence, None):
        holds(check_flow_likelihood_of(lambda x: value, score, x, sde, 0.01, divergence=given))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("log π(x_T) is missing", {"terms": (0.0, 1.0)}),
        ("∫ div f̃ dt is missing", {"terms": (1.0, 0.0)}),
        ("∫ div f̃ dt has the wrong sign", {"terms": (1.0, -1.0)}),
        ("it is −log p", {"terms": (-1.0, -1.0)}),
        ("div s_θ has the wrong sign", {"sign": -1.0}),
        ("div s_θ is missing", {"sign": 0.0}),
    ],
)
def test_wrong_likelihoods_of_a_flow_are_seen_and_named(name, options):
    sde = PROCESSES[0]
    score, divergence = network(sde, np.float64)
    mine = own_flow(sde, score, divergence, 0.01, **options)
    check = check_flow_likelihood_of(mine, score, MIXTURE.sample(2, rng=0), sde, 0.01, divergence=divergence)
    assert not check
    assert name in check.diagnosis, check


def test_a_flow_of_another_time_is_seen():
    sde = PROCESSES[0]
    score, divergence = network(sde, np.float64)
    late = own_flow(sde, score, divergence, 0.012)
    assert not check_flow_likelihood_of(late, score, MIXTURE.sample(2, rng=0), sde, 0.01, divergence=divergence)


def test_a_coarse_integrator_passes_at_its_own_tolerance():
    sde = PROCESSES[0]
    score, divergence = network(sde, np.float64)
    x = MIXTURE.sample(2, rng=0)

    def coarse(x):
        return probability_flow_log_prob(sde, lambda x, t: (score(x, t), divergence(x, t)), x, 0.01, 1e-3)

    assert not check_flow_likelihood_of(coarse, score, x, sde, 0.01, divergence=divergence)
    at_its_own = check_flow_likelihood_of(coarse, score, x, sde, 0.01, divergence=divergence, rtol=1e-3)
    holds(at_its_own)
    assert at_its_own.residual > 0  # the right side is finer


# --- arguments ---------------------------------------------------------------------------------------------------


def test_a_network_with_dropout_is_refused():
    problem, rng = Problem(SHORT), np.random.default_rng(0)
    problem.theirs.net = lambda x, t: x * (rng.random(x.shape) > 0.5)
    with pytest.raises(ValueError, match=r"network must return the same .*net\.eval\(\)"):
        problem.loss()


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"network must return an array of shape \(1, 3\)", lambda p: setattr(p.theirs, "net", lambda x, t: x[:, :2])),
        (r"noise must have the shape of x0", lambda p: setattr(p, "eps", p.eps[:2])),
        (r"x0 must be finite", lambda p: setattr(p, "x0", p.x0 * np.nan)),
    ],
)
def test_wrong_arguments_of_the_loss_are_named(message, call):
    problem = Problem(SHORT)
    call(problem)
    with pytest.raises(ValueError, match=message):
        problem.loss()


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("t must have shape", {"t": [1, 2]}),
        ("t must be in 1..6", {"t": [0, 1, 2, 3, 4]}),
        ("prediction must be one of", {"prediction": "velocity"}),
        ("reduction must be one of", {"reduction": "none"}),
        ("weight must have shape", {"weight": np.ones(6)}),
    ],
)
def test_wrong_options_of_the_loss_are_named(message, options):
    problem = Problem(SHORT)
    given = {"prediction": "noise", **options}
    with pytest.raises(ValueError, match=message):
        check_loss_of(lambda t, x0, e: 0 * x0[:, 0], problem.net, problem.x0, problem.eps, problem.schedule, **given)


def test_wrong_options_of_the_others_are_named():
    problem = Problem(SHORT)
    with pytest.raises(ValueError, match="noise must have shape"):
        check_sampler_of(lambda x, e: x, problem.eps_hat, problem.x0, problem.noise[1:], problem.schedule)
    with pytest.raises(ValueError, match="eta must be in"):
        problem.sampler(eta=2.0)
    with pytest.raises(ValueError, match="variance must be"):
        problem.bound(variance="small")
    wrong_shape = problem.sampler(lambda x, noise: x[0])
    assert "has shape (3,), expected (5, 3)" in wrong_shape.diagnosis


@pytest.mark.parametrize(
    ("message", "check"),
    [
        (
            r"loss must be callable as loss\(t, x0, noise\).*got int",
            lambda p, f: check_loss_of(3, p.net, p.x0, p.eps, f),
        ),
        ("network must be callable", lambda p, f: check_loss_of(max, p.x0, p.x0, p.eps, f)),
        (r"bound must be callable as bound\(x0, noise\)", lambda p, f: check_bound_of(0, p.net, p.x0, p.noise, f)),
        (r"sample must be callable", lambda p, f: check_sampler_of(None, p.net, p.x0, p.noise, f)),
        ("schedule must be a NoiseSchedule, got None", lambda p, f: check_sampler_of(max, p.net, p.x0, p.noise, None)),
        ("schedule must be a NoiseSchedule, got ndarray", lambda p, f: check_loss_of(max, p.net, p.x0, p.eps, SHORT)),
        (r"log_prob must be callable", lambda p, f: check_flow_likelihood_of(1, p.net, p.x0, VP(), 0.01)),
        ("sde must be a LinearSDE", lambda p, f: check_flow_likelihood_of(max, p.net, p.x0, "VP", 0.01)),
    ],
)
def test_what_is_no_function_or_no_process_is_named(message, check):
    problem = Problem(SHORT)
    with pytest.raises(TypeError, match=message):
        check(problem, problem.schedule)


@pytest.mark.parametrize("value", [None, "0.3", {"loss": 1.0}, (z for z in "ab"), [[1.0], [1.0, 2.0]]])
def test_results_that_are_no_arrays_are_named(value):
    p = Problem(SHORT)
    for name, check in {
        "loss": lambda f: check_loss_of(lambda t, x0, e: f, p.net, p.x0, p.eps, p.schedule),
        "bound": lambda f: check_bound_of(lambda x0, e: f, p.eps_hat, p.x0, p.noise, p.schedule),
        "sample": lambda f: check_sampler_of(lambda x, e: f, p.eps_hat, p.x0, p.noise, p.schedule),
        "log_prob": lambda f: check_flow_likelihood_of(lambda x: f, lambda x, t: -x, p.x0, VP(), 0.01),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must return an array .*, got "):
            check(value)


def test_examples_that_are_zero_and_negative_weights_are_refused():
    p, zero = Problem(SHORT), np.zeros((N, 3))
    with pytest.raises(ValueError, match="x0 must hold examples of data, got zero everywhere"):
        check_loss_of(lambda t, x0, e: e, p.net, zero, p.eps, p.schedule)
    with pytest.raises(ValueError, match="x0 must hold examples of data, got zero everywhere"):
        check_bound_of(lambda x0, e: x0, p.eps_hat, zero, p.noise, p.schedule)
    for weight in -1.0, np.nan, np.inf:
        with pytest.raises(ValueError, match="weight must be finite and not negative"):
            p.loss(weight=np.full(7, weight))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_is_not_finite_gets_the_blame(value):
    p = Problem(SHORT)

    def broken(x, t):
        return np.where(t == 2, value, 0.1 * x)

    message = rf"must return finite numbers, got {value} at t = 2 for x_t of size"
    with pytest.raises(ValueError, match=f"network {message}"):
        check_loss_of(lambda t, x0, e: e, broken, p.x0, p.eps, p.schedule)
    with pytest.raises(ValueError, match=f"eps_hat {message}"):
        check_bound_of(lambda x0, e: x0, broken, p.x0, p.noise, p.schedule)
    with pytest.raises(ValueError, match=f"eps_hat {message}"):
        check_sampler_of(lambda x, e: x, broken, p.x0, p.noise, p.schedule)
    with pytest.raises(ValueError, match="x_0 overflows with this eps_hat"), np.errstate(all="ignore"):
        check_sampler_of(lambda x, e: x, lambda x, t: -1e100 * x, p.x0, p.noise, p.schedule)


def test_a_sampler_and_a_network_that_write_into_their_arguments_get_copies():
    p = Problem(SHORT)
    right = p.theirs

    def sampler(x, noise):
        result = right.sampler(x, noise)
        x[:] = 0
        noise *= 0
        return result

    start, noise = p.x0.copy(), p.noise.copy()
    with pytest.warns(UserWarning, match="sample changes its argument x and noise in place; it got copies"):
        check = check_sampler_of(sampler, p.eps_hat, p.x0, p.noise, p.schedule, last_noise=False)
    holds(check)
    assert np.array_equal(p.x0, start)
    assert np.array_equal(p.noise, noise)

    def net(x, t):
        value = p.eps_hat(x, t)
        x += 1
        return value

    with pytest.warns(UserWarning, match="eps_hat changes its argument x in place"):
        holds(check_sampler_of(right.sampler, net, p.x0, p.noise, p.schedule, last_noise=False))


def test_results_in_half_precision_are_refused():
    p = Problem(SHORT)
    with pytest.raises(TypeError, match="loss must return float32 or float64, got float16, which keeps 3 digits"):
        p.loss(lambda t, x0, e: np.zeros(N, np.float16))
    with pytest.raises(TypeError, match="eps_hat must return float32 or float64, got float16"):
        check_sampler_of(lambda x, e: x, lambda x, t: x.astype(np.float16), p.x0, p.noise, p.schedule)


@pytest.mark.parametrize("sde", [VP(0.1, 8.0), SubVP(0.1, 8.0)], ids=repr)
def test_the_prior_of_a_flow_may_be_a_standard_normal(sde):
    """Another prior changes log p by log π(x_T) only; the true end is that of a multistep integrator."""
    score, divergence = network(sde, np.float64)
    x = MIXTURE.sample(3, rng=0)
    of_end = own_flow(sde, score, divergence, 0.01, terms=(1.0, 0.0))
    of_path = own_flow(sde, score, divergence, 0.01, terms=(0.0, 1.0))

    def log_prob(x):
        D, var = x.shape[1], float(sde.std(sde.horizon)) ** 2
        square = -2 * var * (of_end(x) + 0.5 * D * np.log(2 * np.pi * var))
        return of_path(x) - 0.5 * square - 0.5 * D * np.log(2 * np.pi)

    given = (score, x, sde, 0.01, divergence)
    holds(check_flow_likelihood_of(log_prob, *given, prior_std=1.0))
    refused = check_flow_likelihood_of(log_prob, *given)
    assert refused.diagnosis.endswith("π is N(0, I), not N(0, std(T)² I); pass prior_std=1.0 if this is meant")
    ours = check_flow_likelihood_of(lambda x: of_end(x) + of_path(x), *given, prior_std=1.0)
    assert ours.diagnosis.endswith("π is N(0, std(T)² I); pass prior_std=None if this is meant")
    assert not check_flow_likelihood_of(log_prob, *given, prior_std=1.01)
    with pytest.raises(ValueError, match="prior_std must be in"):
        check_flow_likelihood_of(log_prob, *given, prior_std=0.0)
