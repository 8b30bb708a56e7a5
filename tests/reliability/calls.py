"""One valid call of every public function and method, for `tests.reliability.arguments`.

Left out: results (named tuples), which the package fills; `museum`, `report` and `conformance`, which have tests of
their own; and the strategies of `scratchgen.testing`, which Hypothesis checks when it draws.
"""

import functools
import inspect
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import scratchgen
from scratchgen import (
    DDPM,
    MLP,
    VE,
    VP,
    Adam,
    CategoricalMixture,
    GaussianMixture,
    Mixture,
    NoiseSchedule,
    ScoreSDE,
    SubVP,
    augmentation,
    datasets,
    ddpm,
    em,
    export,
    grading,
    likelihood,
    metrics,
    nn,
    quadrature,
    recipes,
    sde,
    testing,
    timestep_sampling,
    vae,
    variational,
)
from scratchgen.metrics import classifiers
from scratchgen.plane import Histogram
from scratchgen.schedule import sinh_log_snr
from tests.reliability.arguments import (
    Arg,
    any_of,
    array,
    call,
    choice,
    count,
    covariance,
    file_path,
    flag,
    function,
    instance,
    labels,
    law,
    levels,
    number,
    one_step,
    per_row,
    plain,
    positive,
    seed,
    step,
    time,
    times,
    weights,
)
from tests.reliability.models import KINDS, data, fitted  # fmt: skip

SCHEDULE = NoiseSchedule.linear(6)
PROCESS = VP()
MIXTURE = Mixture([0.5, 0.3, 0.2], [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], np.tile(0.3 * np.eye(2), (3, 1, 1)))
LINE = Mixture([0.4, 0.6], [[-1.0], [1.0]], [[[0.2]], [[0.3]]])
TABLES = em.CategoricalLaw([0.5, 0.3, 0.2], np.random.default_rng(0).dirichlet(np.ones(4), (3, 2)))
NETWORK = nn.NoiseNetwork(2, (4,), rng=0, n_classes=3)
DENOISER = nn.CategoricalDenoiser(np.full((2, 4), 0.25), np.eye(2) * 0.3, (4,), rng=0, n_classes=3)
VAE_NETWORK = vae.VAENetwork(2, 1, (4,), rng=0, dtype=np.float64)
PERCEPTRON = MLP((2, 4, 2), rng=0, dtype=np.float64)
BLOCKS = nn.ResidualMLP((2, 4, 2), 1, rng=0, dtype=np.float64)
FLAT = function(lambda x, t: 0.1 * x, results=[("(N,)", lambda x, t: x[:, 0])])
SCORE = function(lambda x, t: -x, results=[("(N,)", lambda x, t: x[:, 0])])
ND, N, VARIANCE = array("N D"), array("N"), choice("posterior")


def schedule():
    """The chain of 6 steps, and what is taken for one."""
    bad = {"class": NoiseSchedule, "text": "linear", "number": 3, "variances": SCHEDULE.variances, "None": None}
    return Arg(SCHEDULE, bad)


def network(value=NETWORK):
    """A noise network."""
    return Arg(value, {"class": type(value), "text": "mlp", "None": None, "number": 3, "MLP": PERCEPTRON})


def optimiser(network):
    """Adam and the moving average of a noise network, for a training loop."""
    other, short = nn.Adam(network.parameters.copy()), nn.EMA(network.parameters[1:].copy())
    bad = {"class": nn.Adam, "text": "adam", "None": None, "parameters": network.parameters, "of a copy": other}
    average = {"class": nn.EMA, "text": "ema", "None": None, "number": 0.999, "other length": short}
    return {"adam": Arg(nn.Adam(network.parameters), bad), "ema": Arg(nn.EMA(network.parameters.copy()), average)}


def of_likelihood():
    """Calls of scratchgen.likelihood."""
    p, q = law("X Z"), law("X Z")
    yield call("logsumexp", likelihood.logsumexp, a=array("N K"), axis=any_of(plain(-1), text="x", far=7))
    yield call("softmax", likelihood.softmax, logits=array("N K"), axis=any_of(plain(-1), text="x", far=7))
    yield call("quiet_log", likelihood.quiet_log, a=any_of(array("N K"), negative=-np.ones((5, 3))))
    yield call("entropy_discrete", likelihood.entropy_discrete, p=p)
    yield call("cross_entropy_discrete", likelihood.cross_entropy_discrete, p=p, q=q)
    yield call("kl_discrete", likelihood.kl_discrete, p=p, q=q)
    yield call("gaussian_log_prob", likelihood.gaussian_log_prob, x=ND, mean=ND, log_variance=ND)
    level = {"level": levels(), "mean": ND, "std": positive(), "n_levels": count(4, 2)}
    yield call("log_bin_mass", likelihood.log_bin_mass, **level)
    yield call("log_bin_mass_slopes", likelihood.log_bin_mass_slopes, **level)
    yield call("draw_levels", likelihood.draw_levels, law=law("N D L"), uniform=array("N D", np.full((5, 2), 0.5)))
    yield call("level_values", likelihood.level_values, n_levels=count(4, 2))
    scaled = any_of(array("N D", np.ones((5, 2))), between=np.full((5, 2), 0.5))
    yield call("levels_of", likelihood.levels_of, x=scaled, n_levels=count(4, 2))
    yield call("bits_per_dim", likelihood.bits_per_dim, nats=N, dimension=count(2), scale=positive())
    yield call("entropy_gaussian", likelihood.entropy_gaussian, covariance=covariance())
    gaussians = {"mean_p": array("D"), "cov_p": covariance(), "mean_q": array("D"), "cov_q": covariance()}
    yield call("cross_entropy_gaussian", likelihood.cross_entropy_gaussian, **gaussians)
    yield call("kl_gaussian", likelihood.kl_gaussian, **gaussians)
    yield call("kl_diag_standard", likelihood.kl_diag_standard, mean=array("N k"), log_variance=array("N k"))


def of_variational():
    """Calls of scratchgen.variational."""
    joint, q, decoder = law("X Z", axis=(0, 1), sums=False), law("X Z"), law("X Z", axis=0)
    yield call("posterior_table", variational.posterior_table, joint=joint)
    yield call("posterior_kl_table", variational.posterior_kl_table, joint=joint, q=q)
    yield call("elbo_table", variational.elbo_table, joint=joint, q=q)
    yield call("elbo_split_table", variational.elbo_split_table, decoder=decoder, prior=law("Z"), q=q)
    yield call("joint_kl_table", variational.joint_kl_table, p_x=law("X"), q=q, decoder=decoder, prior=law("Z"))
    model = {"x": ND, "W": array("D k"), "mean": array("D"), "noise_variance": positive()}
    yield call("linear_gaussian_posterior", variational.linear_gaussian_posterior, **model)
    yield call("linear_gaussian_mean_field", variational.linear_gaussian_mean_field, **model)
    yield call("linear_gaussian_log_prob", variational.linear_gaussian_log_prob, **model)
    more = {"q_mean": array("N k"), "q_cov": covariance("k k")}
    yield call("linear_gaussian_elbo", variational.linear_gaussian_elbo, **model, **more)


IMAGES = datasets.digits("test").images[:5]


def bitmaps():
    """Bitmaps of five digits."""
    value = datasets.digit_bitmaps(IMAGES)
    wrong = {"floats": value.astype(float), "(N, 1024)": value.reshape(5, -1), "one": value[0], "two": 2 * value}
    return Arg(value, {"text": "x", "None": None, **wrong})


def augmenting():
    """No function that draws copies, and what is none."""
    return {
        "augment": Arg(None, {"number": 3, "text": "x", "class": augmentation.Shifts, "list": [augmentation.copies]})
    }


def of_augmentation():
    """Calls of scratchgen.augmentation."""
    share, strength = {"probability": number(0.5, 0.0, 1.0)}, {"strength": number(0.5, low=0.0)}
    wrong = {
        "one": (8,),
        "three": (2, 4, 8),
        "number": 8,
        "text": "88",
        "zero": (0, 8),
        "float": (8.0, 8),
        "None": None,
    }
    yield call("Shifts", augmentation.Shifts, shape=Arg((8, 8), wrong), **share)
    yield call("Deformations", augmentation.Deformations, **share, **strength)
    images = Arg(IMAGES, {**array("N D", IMAGES).bad, "64 columns": IMAGES[:, 1:]})
    whole = Arg(IMAGES, {**images.bad, "fractions": IMAGES + 0.5, "too large": IMAGES + 17})
    yield call("Shifts.pictures", augmentation.Shifts().pictures, images=images)
    yield call("Deformations.pictures", augmentation.Deformations().pictures, images=whole)
    draw = {"pictures": array("N H H", IMAGES.reshape(5, 8, 8)), "rng": seed(False)}
    yield call("Shifts.draw", augmentation.Shifts().draw, fixed="H", **draw)
    yield call("Deformations.draw", augmentation.Deformations().draw, pictures=bitmaps(), rng=seed(False))
    numbers = {
        "numbers": array("N six", np.ones((5, 6))),
        "displacement": array("N two four four", np.ones((5, 2, 4, 4))),
    }
    yield call("deform", augmentation.deform, fixed="N six two four", bitmaps=bitmaps(), **numbers)
    augment = Arg(augmentation.Deformations(), {"class": augmentation.Shifts, "text": "shifts", "None": None})
    yield call("copies", augmentation.copies, images=whole, n=count(2), augment=augment, rng=seed())


def of_quadrature():
    """Calls of scratchgen.quadrature, timestep_sampling, datasets and testing."""
    yield call("sigma_points", quadrature.sigma_points, dimension=count())
    yield call("gauss_hermite", quadrature.gauss_hermite, n_nodes=count(), dimension=count(2))
    yield call("central_difference", quadrature.central_difference, f=function(np.sin), h=positive())
    yield call("affine_map", quadrature.affine_map, f=function(lambda x: 2 * x), dimension=count(2))
    ends = {"low": number(0.0), "high": number(1.0), "rtol": positive(1e-6), "what": plain("f")}
    yield call("tanh_sinh", quadrature.tanh_sinh, f=function(np.sin), **ends)
    ends = {
        "t": number(0.0),
        "s": number(1.0),
        "start": ND,
        "rtol": positive(1e-3),
        "what": plain("f"),
        "cure": plain(""),
    }
    yield call("integrate", quadrature.integrate, slope=FLAT_BACK, **ends)
    draws = {"n": count(3, 0), "rng": seed(False)}
    yield call("uniform_steps", timestep_sampling.uniform_steps, T=count(), **draws)
    yield call("stratified", timestep_sampling.stratified, **draws)
    yield call("stratified_steps", timestep_sampling.stratified_steps, T=count(), **draws)
    sampler = timestep_sampling.TimestepSampler
    alias = {"choice": "step_choice"}
    yield call("TimestepSampler", sampler, alias=alias, T=count(), choice=choice("importance"))
    yield call("TimestepSampler.draw", sampler(6, "importance").draw, **draws)
    losses = {"t": labels(False, n=7, first=1), "losses": N}
    yield call("TimestepSampler.observe", sampler(6, "importance").observe, **losses)
    yield call("digits", datasets.digits, split=choice("test"))
    yield call("dequantize", datasets.dequantize, levels=levels(), rng=seed())
    unit = any_of(array("N D", np.full((5, 2), 0.5), optional=True), large=np.full((5, 2), 1.5))
    yield call("dequantize(noise)", datasets.dequantize, levels=levels(), noise=unit)
    images = Arg(IMAGES, {**array("N D", IMAGES).bad, "fractions": IMAGES + 0.5, "too large": IMAGES + 17})
    yield call("digit_bitmaps", datasets.digit_bitmaps, images=images)
    yield call("bitmap_levels", datasets.bitmap_levels, bitmaps=bitmaps())
    yield call("eight_gaussians", datasets.eight_gaussians, radius=number(1.0, low=0.0), std=positive())
    yield call("checkerboard", datasets.checkerboard, squares=count(4, 2))
    yield call("gaussian_grid", datasets.gaussian_grid, spacing=number(1.0, low=0.0), std=positive())
    for name in "two_moons", "rings", "spirals", "swiss_roll":
        yield call(name, getattr(datasets, name), noise=positive(0.1))
    arms = {"n_arms": count(3, 2), "radial_std": positive(0.3), "tangential_std": positive(0.1), "rate": number(0.2)}
    yield call("pinwheel", datasets.pinwheel, **arms)
    unit = number(0.5, 0.0, 1.0, open_low=True)
    yield call("testing.variances", testing.variances, low=unit, high=unit, max_T=count())
    yield call("testing.as_spd", testing.as_spd, A=array("D k"))
    yield call("testing.spd", testing.spd, dimension=count(), entry=positive())


FLAT_BACK = function(lambda t, x: -x)


def of_plane():
    """Calls of the laws in the plane."""
    rising, table = np.array([0.0, 1.0, 3.0]), np.full((2, 2), 0.25)
    falling = {"falling": rising[::-1], "equal": np.zeros(3), "one": np.zeros(1), "one more": np.arange(4.0)}
    edges = {name: Arg(rising, any_of(array("N", rising)).bad | falling) for name in ("edges_1", "edges_2")}
    wrong = {"negative": table - [[0.5, -0.5], [0, 0]], "sum 2": 2 * table, "(4,)": table.ravel()}
    yield call("Histogram", Histogram, weights=Arg(table, array("N D", table).bad | wrong), **edges)
    board, wheel = datasets.checkerboard(2), datasets.pinwheel()
    units = {"mean": array("D"), "scale": array("D", np.ones(2))}
    for name, one in ("Histogram", board), ("Blurred", board.diffuse(0.8, 0.6)), ("Pinwheel", wheel):
        yield call(f"{name}.log_prob", one.log_prob, fixed="D", x=ND)
        yield call(f"{name}.sample", one.sample, n=count(3, 0), rng=seed())
        std = number(0.6, low=0.0) if name == "Blurred" else positive(0.6)
        yield call(f"{name}.diffuse", one.diffuse, scale=positive(0.8), std=std)
        yield call(f"{name}.standardized", one.standardized, fixed="D", **units)
    yield call("Blurred.score", board.diffuse(0.8, 0.6).score, fixed="D", x=ND)
    yield call("Mixture.standardized", MIXTURE.standardized, fixed="D", **units)


def of_mixture():
    """Calls of Mixture, NoiseSchedule and CategoricalLaw."""
    tables = {"weights": law("K"), "means": array("K D"), "covariances": covariance("K D D")}
    yield call("Mixture", Mixture, **tables)
    for name in "log_joint", "log_prob", "posterior", "score", "score_jacobian":
        yield call(f"Mixture.{name}", getattr(MIXTURE, name), fixed="D", x=ND)
    noise = {"scale": number(0.8), "std": number(0.6, low=0.0)}
    yield call("Mixture.diffuse", MIXTURE.diffuse, **noise)
    yield call("Mixture.denoise", MIXTURE.denoise, fixed="D", x_t=ND, **noise)
    yield call("Mixture.denoise_variance", MIXTURE.denoise_variance, fixed="D", x_t=ND, **noise)
    last = MIXTURE.dimension
    wrong = {"repeated": [0, 0], "none": [], "beyond D": [last], "text": "0", "fraction": [0.5]}
    for name in "marginal", "regression":
        yield call(f"Mixture.{name}", getattr(MIXTURE, name), columns=Arg([0], wrong))
    wrong = {"a list": [1.0], "none": {}, "beyond D": {last: 1.0}, "NaN": {0: np.nan}, "text": {0: "x"}}
    yield call("Mixture.conditional", MIXTURE.conditional, given=Arg({0: 1.0}, wrong))
    yield call("Mixture.sample", MIXTURE.sample, n=count(3, 0), rng=seed(), return_labels=flag())
    other = instance(LINE, optional=True)
    yield call("Mixture.quadrature", LINE.quadrature, spacing=positive(), width=positive(9.0), law=other)
    f = function(lambda x: x, results=[("(M,)", lambda x: x[:, 0]), ("text", lambda x: "x")])
    expectation = {"spacing": positive(), "rtol": number(1e-3, low=0.0), "law": other}
    yield call("Mixture.expectation", LINE.expectation, f=f, **expectation)
    yield call("Mixture.kl", LINE.kl, q=function(lambda x: -(x[:, 0] ** 2), results=[("(M, 1)", lambda x: -(x**2))]))
    v = Arg(SCHEDULE.variances, any_of(array("T", SCHEDULE.variances), large=np.full(6, 2.0), zero=np.zeros(6)).bad)
    yield call("NoiseSchedule", NoiseSchedule, variances=v)
    yield call("NoiseSchedule.from_variances", NoiseSchedule.from_variances, alias={"v": "variances"}, v=v)
    yield call("NoiseSchedule.linear", NoiseSchedule.linear, T=count(), beta_min=number(low=0.0), beta_max=positive())
    cap = number(0.9, 0.0, 1.0, open_low=True)
    yield call("NoiseSchedule.cosine", NoiseSchedule.cosine, T=count(), offset=number(0.01, low=0.0), max_variance=cap)
    ends = {"first": number(4.5), "last": number(-7.0)}
    yield call("NoiseSchedule.log_snr_even", NoiseSchedule.log_snr_even, T=count(), **ends)
    yield call(
        "NoiseSchedule.from_sde", NoiseSchedule.from_sde, sde=any_of(instance(PROCESS), ve=VE(0.1, 9.0)), T=count()
    )
    yield call("NoiseSchedule.log_signal_ratio", SCHEDULE.log_signal_ratio, s=step(1, first=0, last=5), t=step(3))
    steps = any_of(labels(False, "K", n=6, first=2), falling=np.array([5, 3, 1]))
    yield call("NoiseSchedule.respace", SCHEDULE.respace, steps=steps)
    few = Arg(3, {k: v for k, v in count().bad.items() if k != "list"} | {"beyond T": 7})
    yield call("NoiseSchedule.sinh_steps", SCHEDULE.sinh_steps, n=few)
    yield call("sinh_log_snr", sinh_log_snr, low=number(-5.0), high=number(5.0, low=-5.0), n=count())
    yield call("CategoricalLaw", em.CategoricalLaw, weights=law("K"), probabilities=law("K D L"))
    for name in "log_joint", "log_prob", "posterior":
        yield call(f"CategoricalLaw.{name}", getattr(TABLES, name), fixed="D", x=levels())
    yield call("CategoricalLaw.sample", TABLES.sample, n=count(3, 0), rng=seed(), return_labels=flag())
    noise = {"scale": number(0.8), "std": positive(0.6)}
    for name in "denoise", "denoise_variance", "diffused_log_prob":
        yield call(f"CategoricalLaw.{name}", getattr(TABLES, name), fixed="D", x_t=ND, **noise)


def samples_with_gaps():
    """Bad rows with missing values, (5, 2)."""
    inf = np.array([[np.inf, np.nan]] * 5)
    bad = {"text": "x", "None": None, "one row": inf[0], "columns": np.ones((5, 3)), "inf": inf}
    return bad | {"complex": np.ones((5, 2)) * 1j, "no rows": np.ones((0, 2)), "huge": np.full((5, 2), 1e300)}


def of_em():
    """Calls of scratchgen.em."""
    log_resp = np.log(np.random.default_rng(0).dirichlet(np.ones(3), 5))
    resp, floor = array("N K", log_resp), number(1e-6, low=0.0)
    kind, mixture = choice("diag"), instance(MIXTURE)
    prior = Arg(
        (0.5, 2.0), {"text": "x", "three": (1, 2, 3), "negative": (-1.0, 1.0), "NaN": (np.nan, 1.0), "number": 3}
    )
    statistics = em.sufficient_statistics(np.ones((5, 2)), log_resp, MIXTURE)
    loop = {"tol": number(1e-3, low=0.0), "max_iter": count(2, 0)}
    loop["log_prior"] = function(lambda theta: 0.0, results=[("text", lambda theta: "x")])
    loop["bounds"] = Arg([0.1], {"text": "x", "NaN": [np.nan], "number": 0.1, "(n, 1)": [[0.1]], "None": None})
    e_step = function(lambda theta: (theta, theta), results=[("a set as the bound", lambda theta: (theta, {1.5}))])
    steps = {"e_step": e_step, "m_step": function(lambda expected, theta: theta)}
    yield call("em", em.em, start=plain(0.0), **steps, **loop)
    relax = function(lambda theta, plain, step: plain)
    yield call("over_relaxed_em", em.over_relaxed_em, start=plain(0.0), **steps, relax=relax, **loop)
    yield call("silver_step", em.silver_step, t=count())
    path = {"old": mixture, "new": mixture, "step": number(1.5, low=1.0)}
    yield call("relaxed_mixture", em.relaxed_mixture, **path, covariance_floor=floor, covariance_type=kind)
    yield call("e_step", em.e_step, fixed="D", x=ND, law=mixture)
    yield call("free_energy", em.free_energy, fixed="D K", x=ND, log_resp=resp, law=mixture)
    yield call("m_step_table", em.m_step_table, p_x=law("X"), q=law("X Z"))
    yield call("indicators", em.indicators, x=levels(), n_levels=count(4, 2))
    one_hot = any_of(array("N D L", np.eye(4)[np.arange(10).reshape(5, 2) % 4]), negative=-np.ones((5, 2, 4)))
    counts = Arg(0.5, {"negative": -1.0, "text": "x", "NaN": np.nan, "complex": 1j, "shape": np.ones((2, 3))})
    weighted = {"sample_weight": weights()}
    tables = {"one_hot": one_hot, "log_resp": resp, "pseudo_counts": counts}
    yield call("categorical_m_step", em.categorical_m_step, **tables, **weighted)
    yield call("table_statistics", em.table_statistics, one_hot=one_hot, log_resp=resp, **weighted)
    found = em.TableStatistics(5.0, np.full(3, 1 / 3), np.full((3, 2, 4), 0.25))
    yield call(
        "categorical_m_step_from_statistics",
        em.categorical_m_step_from_statistics,
        statistics=instance(found),
        pseudo_counts=counts,
    )
    counts = any_of(array("D L"), negative=-np.ones((2, 4)))
    yield call("log_table_prior", em.log_table_prior, tables=law("K D L"), pseudo_counts=counts)
    responses = {"x": ND, "log_resp": resp, "mixture": mixture}
    yield call("sufficient_statistics", em.sufficient_statistics, fixed="D K", **responses, **weighted)
    yield call("sample_moments", em.sample_moments, x=ND, **weighted)
    certain = {"x": ND, "labels": labels(False), "mixture": mixture}
    yield call("statistics_of_labels", em.statistics_of_labels, fixed="D", **certain, **weighted)
    options = {"covariance_floor": floor, "covariance_type": kind, "covariance_prior": prior}
    yield call("m_step", em.m_step, fixed="D K", **responses, **options, **weighted)
    both = {"statistics": instance(statistics), "mixture": mixture}
    yield call("m_step_from_statistics", em.m_step_from_statistics, **both, **options)
    spread = {"spread": covariance("K D D"), "counts": any_of(array("K"), negative=-np.ones(3))}
    names = {"floor": "covariance_floor"}
    yield call(
        "covariance_maximum",
        em.covariance_maximum,
        alias=names,
        **spread,
        covariance_type=kind,
        floor=floor,
        prior=prior,
    )
    yield call("log_covariance_prior", em.log_covariance_prior, covariances=covariance("K D D"), prior=prior)
    yield call("floor_eigenvalues", em.floor_eigenvalues, alias=names, covariances=covariance("K D D"), floor=floor)
    parts = {"weights": law("K"), "means": array("K D"), "covariances": covariance("K D D")}
    yield call("floored_mixture", em.floored_mixture, **parts, covariance_floor=floor)
    yield call("ppca_maximum", em.ppca_maximum, covariance=covariance(), n_components=count(1))
    yield call("ppca_em_step", em.ppca_em_step, covariance=covariance(), W=array("D k"), noise_variance=positive())
    noise = any_of(array("D"), negative=-np.ones(2))
    step = {"noise_variance": noise, "noise_floor": number(low=0.0)}
    yield call("factor_analysis_em_step", em.factor_analysis_em_step, covariance=covariance(), W=array("D k"), **step)
    yield call("missing_fractions", em.missing_fractions, fixed="D", x=ND, mixture=mixture)
    gaps = {"x": Arg(np.array([[1.0, np.nan], [2.0, 1.0], [np.nan, 0.0], [0.5, 0.5], [1.0, 2.0]]), samples_with_gaps())}
    yield call("ObservedMixture", em.ObservedMixture, mixture=mixture)
    for name in "log_joint", "log_prob":
        yield call(f"ObservedMixture.{name}", getattr(em.ObservedMixture(MIXTURE), name), **gaps)
    yield call("statistics_with_missing", em.statistics_with_missing, **gaps, mixture=mixture, **weighted)
    yield call("impute", em.impute, **gaps, mixture=mixture)
    linear = {"W": array("D k"), "mean": array("D"), "noise_variance": noise}
    yield call("complete_rows", em.complete_rows, fixed="D", **gaps, **linear, **weighted)
    wrong = {k: v for k, v in gaps["x"].bad.items() if k != "columns"} | {"empty column": np.full((5, 2), np.nan)}
    any_columns = {"x": Arg(gaps["x"].value, {k: v for k, v in gaps["x"].bad.items() if k != "columns"})}
    yield call("patterns", lambda x: list(em.patterns(x)), **any_columns)
    yield call("by_pattern", em.by_pattern, f=function(lambda known, a: known.sum(axis=1)), **any_columns)
    yield call("fill_with_means", em.fill_with_means, x=Arg(gaps["x"].value, wrong), **weighted)
    centres = any_of(array("K D"), ints=[[0, 0], [1, 1], [2, "a"]])
    yield call("nearest", em.nearest, x=ND, centres=centres)
    yield call("clusters", em.clusters, x=ND, centres=centres)
    yield call("kmeans", em.kmeans, x=ND, centres=centres, max_iter=count(), **weighted)
    yield call("kmeans_plus_plus", em.kmeans_plus_plus, x=ND, n_centres=count(), rng=seed(False), **weighted)
    yield call("some_rows", em.some_rows, x=ND, **weighted, n_components=count(), rng=seed(False))
    start = {"n_components": count(2), "method": choice("kmeans"), "rng": seed(False), "covariance_floor": floor}
    start |= {"covariance_type": kind, "covariance_prior": prior}
    yield call("starting_mixture", em.starting_mixture, x=ND, **start, **weighted)


def of_ddpm():
    """Calls of scratchgen.ddpm."""
    chain, t = {"schedule": schedule()}, {"schedule": schedule(), "t": step()}
    one = {"schedule": schedule(), "t": one_step()}
    yield call("q_step", ddpm.q_step, **t, x_prev=ND, noise=ND)
    yield call("q_sample", ddpm.q_sample, **t, x0=ND, noise=ND)
    yield call("q_posterior", ddpm.q_posterior, **t, x_t=ND, x0=ND)
    yield call("posterior_coefficients", ddpm.posterior_coefficients, **t)
    steps = {**one, "x_t": ND, "levels": array("L"), "law": law("N D L")}
    yield call("law_moments", ddpm.law_moments, **steps)
    late = {**steps, "t": one_step(2)}
    yield call("mixture_log_prob", ddpm.mixture_log_prob, **late, x_prev=ND)
    yield call("mixture_step", ddpm.mixture_step, **steps, uniform=array("N D", np.full((5, 2), 0.5)), noise=ND)
    yield call("predict_x0", ddpm.predict_x0, **t, x_t=ND, eps_hat=ND)
    yield call("merge_noise", ddpm.merge_noise, **t, eps_bar_prev=ND, eps_t=ND)
    yield call("split_noise", ddpm.split_noise, **t, eps=ND, omega=ND)
    yield call("eps_coefficients", ddpm.eps_coefficients, **t, kind=choice("step"))
    yield call("prediction_to_eps", ddpm.prediction_to_eps, **t, x_t=ND, prediction=ND, kind=choice("step"))
    yield call("eps_to_prediction", ddpm.eps_to_prediction, **t, x_t=ND, eps_hat=ND, kind=choice("step"))
    given = {"labels": labels(), "guidance": number(2.0), "prediction": choice("step", optional=True), "clip": flag()}
    given["guidance_in"] = choice("eps")
    yield call(
        "predict_noise", ddpm.predict_noise, fixed="D", alias={"x_t": "x"}, network=network(), **one, x_t=ND, **given
    )
    yield call("reverse_variance", ddpm.reverse_variance, **chain, variance=VARIANCE)
    table = any_of(array("S"), negative=-np.ones(7))
    yield call("reverse_variance(table)", ddpm.reverse_variance, **chain, fixed="S", variance=table)
    yield call("p_mean", ddpm.p_mean, **t, x_t=ND, eps_hat=ND)
    yield call("p_step", ddpm.p_step, **t, x_t=ND, eps_hat=ND, noise=ND, variance=VARIANCE)
    eta = {"noise": array("N D", optional=True), "eta": number(0.5, 0.0, 1.0)}
    yield call("ddim_step", ddpm.ddim_step, **chain, t=step(4), s=step(2, 0), x_t=ND, eps_hat=ND, **eta)
    yield call("ddim_inverse_step", ddpm.ddim_inverse_step, **chain, s=step(2, 0), t=step(4), x_s=ND, eps_hat=ND)
    yield call(
        "ancestral_sampler",
        ddpm.ancestral_sampler,
        **chain,
        eps_hat=FLAT,
        x_T=ND,
        rng=seed(False),
        variance=VARIANCE,
        denoise_last=flag(),
    )
    yield call("ddim_sampler", ddpm.ddim_sampler, **chain, eps_hat=FLAT, x_T=ND, rng=seed(), eta=number(0.5, 0.0, 1.0))
    yield call("noise_error", ddpm.noise_error, noise=ND, eps_hat=ND)
    yield call("total_noise_loss", ddpm.total_noise_loss, **one, x0=ND, eps=ND, eps_hat=FLAT, variance=VARIANCE)
    yield call("bound_weight", ddpm.bound_weight, **chain, variance=VARIANCE)
    yield call("step_weight", ddpm.step_weight, **chain, variance=VARIANCE)
    yield call("loss_weight", ddpm.loss_weight, **chain, weighting=choice("bound"), variance=VARIANCE)
    losses = {"eps_hat": FLAT, "variance": VARIANCE}
    yield call("one_step_loss", ddpm.one_step_loss, **one, x0=ND, eps_bar_prev=ND, eps_t=ND, **losses)
    yield call("merged_loss", ddpm.merged_loss, **one, x0=ND, eps=ND, omega=ND, **losses)
    yield call("q_path", ddpm.q_path, **chain, fixed="T", x0=ND, noise=array("T N D"))
    yield call("q_log_prob", ddpm.q_log_prob, **one, x_t=ND, x_prev=ND)
    yield call("p_log_prob", ddpm.p_log_prob, **one, x_prev=ND, x_t=ND, **losses)
    yield call("forward_log_prob", ddpm.forward_log_prob, **chain, fixed="S", path=array("S N D"))
    decoder = function(lambda x: x[:, 0], optional=True, results=[("(N, D)", lambda x: x)])
    yield call(
        "reverse_log_prob", ddpm.reverse_log_prob, **chain, fixed="S", path=array("S N D"), **losses, decoder=decoder
    )
    yield call("forward_entropy", ddpm.forward_entropy, **chain, dimension=count())
    yield call("prior_loss", ddpm.prior_loss, **chain, x0=ND)
    yield call("step_loss", ddpm.step_loss, **one, x0=ND, x_t=ND, **losses)
    scaled = any_of(array("N D", np.ones((5, 2))), between=np.full((5, 2), 0.5))
    bins = {"n_levels": count(4, 2, optional=True)}
    yield call("reconstruction_loss", ddpm.reconstruction_loss, **chain, x0=scaled, x_1=ND, **losses, **bins)
    terms = {"x0": scaled, "eps_hat": FLAT, "noise": array("T N D"), "variance": VARIANCE, **bins}
    yield call("bound_terms", ddpm.bound_terms, **chain, fixed="T", **terms)
    terms = {"x0": ND, "eps_hat": FLAT, "noise": array("T N D"), "decoder": decoder}
    yield call("bound_terms(decoder)", ddpm.bound_terms, **chain, fixed="T", **terms)
    loss = {"noise_loss": any_of(array("S"), negative=-np.ones(7))}
    yield call("optimal_reverse_variance", ddpm.optimal_reverse_variance, **chain, fixed="S", **loss, dimension=count())
    more = {"second_moment": number(2.0, low=0.0), "dimension": count(), "variance": VARIANCE}
    yield call("negative_elbo", ddpm.negative_elbo, **chain, fixed="S", **loss, **more)
    yield call("exact_elbo", ddpm.exact_elbo, **chain, x0=scaled, **losses, **bins, n_nodes=count())
    log_prob = function(lambda x: -x[:, 0], results=[("(N, D)", lambda x: -x), ("text", lambda x: "x")])
    whole = {"log_prob": log_prob, "k": levels(), "n_nodes": count()}
    yield call("dequantisation_cost", ddpm.dequantisation_cost, **whole)
    batch = {"x0": ND, "t": labels(False, n=7, first=1), "noise": ND, "weight": N}
    yield call("ddpm.train_step", ddpm.train_step, fixed="D", network=network(), **chain, **batch)
    loop = {"n_steps": count(1, 0), "rng": seed(False), "batch_size": count(), "learning_rate": positive(1e-3)}
    loop |= {"network": network(), **optimiser(NETWORK), **augmenting()}
    sampler = instance(timestep_sampling.TimestepSampler(6, "uniform"))
    options = {
        "sampler": sampler,
        "weights": array("S"),
        "prediction": choice("step", optional=True),
        "labels": labels(),
    }
    loop_of = {**chain, "x": ND, **loop, **options, "label_dropout": number(0.1, 0.0, 1.0)}
    yield call("ddpm.train", ddpm.train, fixed="S D", **loop_of)


def of_sde():
    """Calls of scratchgen.sde."""
    process, t = instance(PROCESS), {"sde": instance(PROCESS), "t": time(open_low=False)}
    yield call("VP", VP, beta_min=number(low=0.0), beta_max=positive(), horizon=positive())
    yield call("SubVP", SubVP, beta_min=number(low=0.0), beta_max=positive(), horizon=positive())
    yield call("VE", VE, sigma_min=positive(0.1), sigma_max=positive(9.0), horizon=positive())
    for kind in VP(), SubVP(), VE(0.1, 9.0):
        name = type(kind).__name__
        for method in "log_scale", "std", "rate", "diffusion", "marginal", "log_snr":
            yield call(f"{name}.{method}", getattr(kind, method), t=times())
        yield call(f"{name}.time_at", kind.time_at, log_snr=per_row(0.5))
        yield call(f"{name}.level", kind.level, t=time(open_low=False))
        yield call(f"{name}.drift", kind.drift, x=ND, t=times())
        yield call(f"{name}.perturb", kind.perturb, t=times(), x0=ND, noise=ND)
        yield call(f"{name}.prior_log_prob", kind.prior_log_prob, x=ND)
    yield call("VP.beta", PROCESS.beta, t=times())
    yield call("VP.beta_integral", PROCESS.beta_integral, t=times())
    wild = {"stochasticity": number(0.5, low=0.0)}
    yield call("reverse_drift", sde.reverse_drift, **t, score=ND, x=ND, **wild)
    moments = {"mean": array("D"), "covariance": covariance(), "t_min": time(0.5, open_low=False)}
    yield call("reverse_moments", sde.reverse_moments, sde=process, score=SCORE, **moments, **wild)
    grid = {"n_steps": count(), "t_min": time(0.1), "detail": number(0.0, low=0.0)}
    yield call("reverse_times", sde.reverse_times, sde=process, **grid)
    yield call("sinh_times", sde.sinh_times, sde=process, n_steps=count(), t_min=time(0.1))
    s = {"s": time(0.2, open_low=False)}
    yield call("euler_std", sde.euler_std, **t, **s, **wild)
    yield call("euler_step", sde.euler_step, **t, **s, score=ND, x=ND, **wild)
    yield call("langevin_step", sde.langevin_step, **t, score=ND, x=ND, snr=number(0.1, 0.0, 1.0))
    falling = any_of(array("K", np.array([1.0, 0.5, 0.2])), rising=np.array([0.1, 0.5]), beyond=np.array([2.0, 0.5]))
    corrected = {"n_corrections": count(1, 0), "snr": number(0.1, 0.0, 1.0)}
    path = {"sde": process, "score": SCORE, "x": ND, "times": falling}
    yield call("euler_maruyama", sde.euler_maruyama, **path, rng=seed(), **wild, **corrected)
    noise = array("Z N D", np.ones((2, 5, 2)), optional=True)
    yield call("euler_maruyama(noise)", sde.euler_maruyama, fixed="Z", **path, noise=noise)
    yield call("heun", sde.heun, **path)
    rtol = {"rtol": positive(1e-2)}
    yield call("flow_map", sde.flow_map, **t, **s, score=SCORE, x=ND, **rtol)
    both = function(lambda x, t: (-x, -2 * np.ones(len(x))), results=[("one array", lambda x, t: -x)])
    t_min = {"t_min": time(0.5, open_low=False)}
    pair = {"sde": process, "score_and_divergence": both, "x": ND}
    yield call("probability_flow_log_prob", sde.probability_flow_log_prob, **pair, **t_min, **rtol)
    log_prob = function(lambda x: -x[:, 0], optional=True, results=[("(N, D)", lambda x: -x)])
    bound = {"noise": array("M D"), "noise_weights": law("M"), **t_min, "prior_log_prob": log_prob, **rtol}
    yield call("sde_log_prob_bound", sde.sde_log_prob_bound, **pair, **bound)
    error = function(lambda t: 1.0, results=[("text", lambda t: "x")])
    yield call("kl_bound", sde.kl_bound, sde=process, score_error=error, prior_kl=number(0.1, low=0.0), **t_min, **rtol)
    yield call("sde.prior_loss", sde.prior_loss, sde=process, x0=ND)
    many = {"t": Arg(np.full(5, 0.5), times().bad), "noise": ND}
    loss = {"network": network(), "sde": process, "x0": ND, **many}
    yield call("diffusion_loss", sde.diffusion_loss, fixed="D", **loss, t_min=time(0.1))
    scaled = any_of(array("N D", np.ones((5, 2))), between=np.full((5, 2), 0.5))
    levels_of = {"noise": array("N D", optional=True), "n_levels": count(4, 2, optional=True)}
    yield call("sde.reconstruction_loss", sde.reconstruction_loss, sde=process, x0=scaled, t_min=time(0.1), **levels_of)
    yield call("edm_coefficients", sde.edm_coefficients, sigma=positive(), data_std=positive())
    sigmas = {"n_levels": count(3, 2), "sigma_min": positive(0.1), "sigma_max": positive(9.0), "rho": positive(7.0)}
    yield call("edm_sigmas", sde.edm_sigmas, **sigmas)
    noise = {"scale": per_row(0.8), "std": per_row(0.6, low=0.0)}
    yield call("denoiser_to_score", sde.denoiser_to_score, x_t=ND, x0_hat=ND, **noise)
    bad = {"text": "x", "three": (1, 2, 3), "negative": (-1.0, 1.0), "NaN": (np.nan, 0.5), "number": 3, "None": None}
    two = {"level": Arg((0.5, 0.8), bad), "next_level": Arg((0.9, 0.4), bad)}
    yield call("log_ratio_step", sde.log_ratio_step, **two)
    last = Arg((np.ones((5, 2)), 0.3), {"text": "x", "shape": (np.ones(2), 0.3), "negative": (np.ones((5, 2)), -1.0)})
    full = {"noise": array("N D", optional=True), "last": last}
    yield call("exponential_step", sde.exponential_step, x=ND, x0_hat=ND, **two, **wild, **full)
    denoise = function(lambda x, scale, std: 0.5 * x, results=[("(N,)", lambda x, a, b: x[:, 0])])
    falls = np.array([[0.5, 0.8], [0.8, 0.6], [1.0, 0.0]])
    path = {"x": ND, "levels": any_of(array("K two", falls), rising=falls[::-1]), "rng": seed(), "multistep": flag()}
    yield call("exponential_sampler", sde.exponential_sampler, denoise=denoise, **path, **wild)
    information = {"noise_loss": error, "t_min": time(0.1), "n_nodes": count()}
    yield call("mutual_information", sde.mutual_information, sde=process, **information)
    laws = {"p": instance(LINE), "q": any_of(instance(LINE), dimension=MIXTURE)}
    yield call("kl_rate", sde.kl_rate, sde=process, **laws, t=time(open_low=False))
    score = function(lambda x: -x, results=[("(N,)", lambda x: -x[:, 0])])
    noise = {"scale": positive(), "std": positive()}
    yield call("tweedie_covariance", sde.tweedie_covariance, score=score, x_t=ND, **noise)
    label = any_of(array("Z", np.array([0.2, 0.7])), negative=np.array([-0.5, 0.5]), large=np.array([2.0, 0.5]))
    tilt = {"p_label": label, "guidance": number(2.0, low=0.0), "x_t": array("N one"), **noise}
    yield call("tilted_score", sde.tilted_score, fixed="Z one", law=instance(LINE), **tilt)
    rates = {"scale_rate": per_row(-1.0), "std_rate": per_row(1.0)}
    coefficients = {"scale": per_row(0.8, low=0.0), "std": per_row(0.2, low=0.0), **rates}
    yield call("path_coefficients", sde.path_coefficients, **coefficients)
    yield call("flow_velocity", sde.flow_velocity, x0=ND, noise=ND, **rates)
    yield call("explicit_score_matching", sde.explicit_score_matching, score=ND, target=ND)
    std = {"std": per_row(0.6, low=0.0)}
    yield call("denoising_error", sde.denoising_error, score=ND, noise=ND, **std)
    yield call("denoising_score_matching", sde.denoising_score_matching, score=ND, noise=ND, **std)
    yield call("implicit_score_matching", sde.implicit_score_matching, score=ND, divergence=N)
    sliced = {"score": ND, "direction": ND, "derivative": ND, "reduce_variance": flag()}
    yield call("sliced_error", sde.sliced_error, **sliced)
    yield call("sliced_score_matching", sde.sliced_score_matching, **sliced)
    yield call(
        "sde.predict_x0", sde.predict_x0, fixed="D", network=network(), x=ND, scale=per_row(0.8), std=per_row(0.6)
    )
    yield call("sde.predict_score", sde.predict_score, fixed="D", network=network(), sde=process, x=ND, t=times())
    probes = {"probes": array("Z N D", optional=True), "labels": labels()}
    yield call("score_and_divergence", sde.score_and_divergence, fixed="D", network=network(), **t, x=ND, **probes)
    sampler = {"t_min": time(0.1), "weighting": choice("noise"), "choice": choice("importance")}
    yield call("TimeSampler", sde.TimeSampler, alias={"choice": "time_choice"}, sde=process, **sampler)
    clock = sde.TimeSampler(PROCESS, 0.1, "noise", "importance")
    yield call("TimeSampler.draw", clock.draw, n=count(3, 0), rng=seed(False))
    unit = any_of(array("N", np.full(5, 0.5)), large=np.full(5, 1.5), negative=np.full(5, -0.5))
    yield call("TimeSampler.time_at", clock.time_at, u=unit)
    alias = {"cells": "t"}
    yield call("TimeSampler.observe", clock.observe, alias=alias, cells=labels(False, n=101, first=1), losses=N)
    yield call("score_step", sde.score_step, fixed="D", **loss, weight=N, labels=labels())
    free = nn.NoiseNetwork(2, (4,), rng=0, n_classes=3)
    sliced = {"directions": array("Z N D"), "reduce_variance": flag(), "labels": labels()}
    yield call("sliced_step", sde.sliced_step, fixed="D", **loss | {"network": network(free)}, weight=N, **sliced)
    directions = {"matching": choice("sliced"), "law": choice("gaussian"), "like": ND, "rng": seed(False)}
    yield call("draw_directions", sde.draw_directions, **directions)
    loop = {"n_steps": count(1, 0), "rng": seed(False), "batch_size": count(), "learning_rate": positive(1e-3)}
    loop |= {"sampler": instance(clock), **optimiser(free)}
    loop |= {"matching": choice("sliced"), "directions": choice("gaussian"), **augmenting()}
    loop |= {"labels": labels(), "label_dropout": number(0.1, 0.0, 1.0)}
    yield call("sde.train", sde.train, fixed="D", network=network(free), sde=process, x=ND, **loop)


def of_vae():
    """Calls of scratchgen.vae."""
    p_x, q, decoder, prior = law("X"), law("X Z"), law("X Z", axis=0), law("Z")
    yield call("vae_loss_table", vae.vae_loss_table, p_x=p_x, q=q, decoder=decoder, prior=prior)
    yield call("kl_parts_table", vae.kl_parts_table, p_x=p_x, q=q, prior=prior)
    yield call("iwae_table", vae.iwae_table, joint=law("X Z", axis=(0, 1), sums=False), q=q, n_draws=count(2))
    posterior = {"mean": array("N k"), "log_variance": array("N k")}
    yield call("reparameterise", vae.reparameterise, **posterior, noise=array("N k"))
    scaled = any_of(array("N D", np.ones((5, 2))), between=np.full((5, 2), 0.5))
    log_s2 = {"decoder_log_variance": number(-1.0), "n_levels": count(4, 2, optional=True)}
    decoded = {"x": scaled, "x_hat": ND, **log_s2}
    yield call("reconstruction_error", vae.reconstruction_error, **decoded)
    yield call("vae_loss", vae.vae_loss, **decoded, **posterior)
    weight = {"kl_weight": number(1.0, low=0.0)}
    yield call("vae_loss_and_gradient", vae.vae_loss_and_gradient, **decoded, **posterior, **weight)
    yield call("log_importance_weight", vae.log_importance_weight, **decoded, **posterior, z=array("N k"))
    yield call("importance_weighted_bound", vae.importance_weighted_bound, log_weights=array("Z N"))
    bad = {"class": vae.VAENetwork, "text": "mlp", "None": None, "MLP": PERCEPTRON}
    net = {"network": Arg(VAE_NETWORK, bad), "x": ND}
    yield call("vae.elbo", vae.elbo, fixed="D k", **net, noise=array("Z N k"))
    yield call("vae.iwae", vae.iwae, fixed="D k", **net, noise=array("Z N k"))
    yield call("vae.train_step", vae.train_step, fixed="D k", **net, noise=array("N k"), **weight)
    draw = function(lambda x, rng: (x, np.ones((len(x), 1))), results=[("one array", lambda x, rng: x)])
    loop = {"n_steps": count(1, 0), "rng": seed(False), "draw": draw, "learning_rate": positive(1e-3)}
    adams = [nn.Adam(part) for part, _ in VAE_NETWORK.parts]
    bad = {"one": adams[0], "two": adams[:2], "copies": [nn.Adam(part.copy()) for part, _ in VAE_NETWORK.parts]}
    loop |= {"adams": Arg(adams, bad | {"text": "adam", "None": None, "classes": [nn.Adam] * 3})}
    loop |= {"log_variance_rate": number(10.0, low=0.0), **weight}
    yield call("vae.train", vae.train, fixed="D", **net, **loop)
    batch = {"x": ND, "rng": seed(False), "n_latents": count()}
    yield call("random_batch", vae.random_batch, **batch, batch_size=count(optional=True), **augmenting())
    yield call("sigma_batch", vae.sigma_batch, **batch)
    yield call("VAENetwork", vae.VAENetwork, **vae_sizes(), activation=choice("tanh"), rng=seed(), **dtype())
    more = {"dimension": count(), "n_latents": count(), "n_variances": count(1), "n_levels": count(4, 2, optional=True)}
    yield call("VAENetwork(levels)", vae.VAENetwork, **more)
    yield call("VAENetwork.sizes", vae.VAENetwork.sizes, **vae_sizes())
    yield call("VAENetwork.encode", VAE_NETWORK.encode, fixed="D", x=ND)


def widths(value=(4,)):
    """Widths of hidden layers."""
    return Arg(
        value,
        {"number": 3, "text": "44", "float": (4.5,), "zero": (0,), "None": None, "nested": ((3,),), "NaN": np.nan},
    )


def vae_sizes():
    """The sizes of a VAE."""
    optional = Arg((4,), {k: v for k, v in widths().bad.items() if k != "None"})
    return {"dimension": count(), "n_latents": count(), "hidden": widths(), "decoder_hidden": optional}


def dtype(name="float64"):
    """A floating type."""
    return {
        "dtype": Arg(name, {"int": "int64", "complex": "complex128", "unknown": "float33", "half": "float16", "3": 3})
    }


def of_nn():
    """Calls of scratchgen.nn."""
    sizes = widths((2, 4, 1))
    yield call("MLP", MLP, sizes=sizes, activation=choice("tanh"), rng=seed(), **dtype(), zero_last=flag())
    yield call("n_parameters", nn.n_parameters, sizes=sizes)
    yield call("MLP()", PERCEPTRON.__call__, fixed="D", x=ND)
    yield call(
        "MLP(constant)", PERCEPTRON.__call__, fixed="one", x=array("N one"), constant=array("one", optional=True)
    )
    yield call("MLP.vjp", PERCEPTRON.vjp, fixed="D", x=ND)
    yield call("MLP.jvp", PERCEPTRON.jvp, fixed="D", x=ND, direction=ND)
    yield call("MLP.backward", lambda grad: PERCEPTRON.vjp(np.ones((5, 2)))[1](grad), fixed="N D", grad=ND)
    rates = {"beta1": number(0.9, 0.0, 1.0), "beta2": number(0.9, 0.0, 1.0), "epsilon": number(1e-8, low=0.0)}
    rate = {"learning_rate": number(1e-3, low=0.0), "weight_decay": number(0.1, low=0.0)}
    yield call("Adam", Adam, parameters=array("P"), **rates, **rate)
    step = {"gradient": array("P"), "learning_rate": number(1e-3, low=0.0, optional=True)}
    yield call("Adam.step", lambda **kw: Adam(np.ones(8)).step(**kw), fixed="P", **step)
    yield call("EMA", nn.EMA, average=array("P"), decay=number(0.9, 0.0, 1.0))
    yield call("EMA.update", lambda parameters: nn.EMA(np.ones(8)).update(parameters), fixed="P", parameters=array("P"))
    yield call("check_step", lambda gradient, **kw: nn.check_step(kw["step"], kw["loss"], gradient), **checked())
    decay = {"step": count(1, 0), "n_steps": count(5), "learning_rate": number(low=0.0), "warmup": count(2, 0)}
    yield call("cosine_decay", nn.cosine_decay, **decay)
    yield call("time_features", nn.time_features, log_snr=N, n=count(3, 0))
    yield call("coordinate_features", nn.coordinate_features, x=ND, n=count(3, 0))
    of_blocks = {"sizes": sizes, "n_told": count(1, 0), "dropout": number(0.2, 0.0, 1.0)}
    yield call("ResidualMLP", nn.ResidualMLP, **of_blocks, rng=seed(), **dtype())
    yield call("ResidualMLP.shapes", nn.ResidualMLP.shapes, sizes=sizes, n_told=count(1, 0))
    yield call("ResidualMLP()", BLOCKS.__call__, fixed="D", x=ND)
    yield call("ResidualMLP.vjp", BLOCKS.vjp, fixed="D", x=ND)
    yield call("ResidualMLP.jvp", BLOCKS.jvp, fixed="D", x=ND, direction=ND)
    yield call("ResidualMLP.backward", lambda grad: BLOCKS.vjp(np.ones((5, 2)))[1](grad), fixed="N D", grad=ND)
    sizes = {"hidden": widths(), "n_time_features": count(2, 0), "n_classes": count(2, 0), "n_augment": count(1, 0)}
    more = {"dimension": count(), "n_coordinate_features": count(1, 0), **sizes}
    kind = {"network": choice("residual"), "dropout": number(0.2, 0.0, 1.0)}
    yield call("NoiseNetwork", nn.NoiseNetwork, **more, **kind, rng=seed(), **dtype())
    yield call("NoiseNetwork.sizes", nn.NoiseNetwork.sizes, **more)
    tables = {"histograms": law("D L"), "covariance": covariance()}
    of_classes = law("two D L")
    optional = {k: v for k, v in of_classes.bad.items() if k != "None"}
    kind |= {"picture": picture(), "class_histograms": of_classes._replace(bad=optional)}
    yield call("CategoricalDenoiser", nn.CategoricalDenoiser, **tables, **sizes, **kind, rng=seed(), **dtype())
    yield call("CategoricalDenoiser.sizes", nn.CategoricalDenoiser.sizes, dimension=count(), **sizes)
    at = {"x": ND, "scale": per_row(0.8, low=0.0), "std": per_row(0.6, low=0.0), "labels": labels()}
    pair = Arg(nn.EpsCoefficients(0.1, 0.2), {"text": "x", "number": 3, "shape": nn.EpsCoefficients(np.ones(3), 1.0)})
    yield call("NoiseNetwork()", NETWORK.__call__, fixed="D", **at, coefficients=pair)
    yield call("NoiseNetwork.vjp", NETWORK.vjp, fixed="D", **at, coefficients=pair)
    yield call("NoiseNetwork.noise_levels", NETWORK.noise_levels, scale=array("N"), std=array("N"), coefficients=pair)
    yield call("NoiseNetwork.jvp", NETWORK.jvp, fixed="D", **at, coefficients=pair, direction=ND)
    yield call("CategoricalDenoiser.vjp", DENOISER.vjp, fixed="D", **at)
    guided = at | {"guidance": number(2.0)}
    for name in "__call__", "law", "logits":
        yield call(f"CategoricalDenoiser.{name}", getattr(DENOISER, name), fixed="D", **guided)
    yield call("CategoricalDenoiser.log_mass", DENOISER.log_mass, fixed="D", **at, level=levels())
    yield call("CategoricalDenoiser.draw", DENOISER.draw, fixed="D", **guided, rng=seed(False))
    yield call("drop_labels", nn.drop_labels, labels=labels(False), probability=number(0.3, 0.0, 1.0), rng=seed(False))
    yield call("guided", nn.guided, free=ND, told=ND, guidance=number(2.0))
    guide = {"labels": labels(), "guidance": number(2.0), "guidance_in": choice("logits")}
    level = {name: at[name] for name in ("x", "scale", "std")}

    def of_network(verb):
        return lambda network=DENOISER, labels=None, guidance=1.0, guidance_in="eps", **level: getattr(
            nn.GuidedNetwork(network, labels, guidance, guidance_in), verb
        )(**level)

    yield call("GuidedNetwork()", of_network("__call__"), fixed="D", **level, network=network(DENOISER), **guide)
    yield call("GuidedNetwork.law", of_network("law"), fixed="D", **level, **guide)
    yield call("GuidedNetwork.draw", of_network("draw"), fixed="D", **level, **guide, rng=seed(False))


def picture():
    """Height and width of two pixels, or None."""
    return Arg((1, 2), {"text": "1,2", "number": 2, "one": (2,), "zero": (0, 2), "float": (1.0, 2), "other": (2, 2)})


def checked():
    """Arguments of `check_step`."""
    return {"step": count(1, 0), "loss": number(1.0), "gradient": array("P")}


def of_grading():
    """Calls of scratchgen.grading."""
    score, eps = function(lambda x, t: -x), function(lambda x, t: 0.5 * x)
    resolution = {"dimension": count(1), "resolution": positive(1.0)}
    yield call(
        "ancestral_density",
        grading.ancestral_density,
        schedule=schedule(),
        eps_hat=eps,
        variance=VARIANCE,
        **resolution,
    )
    steps = Arg(
        [(np.tanh, 1.0)], {"text": "ab", "number": 3, "None": None, "std": [(np.tanh, -1.0)], "mean": [(3, 1.0)]}
    )
    more = {"prior_std": positive(1.0), "final_spacing": positive(0.1)}
    yield call("chain_density", grading.chain_density, steps=steps, **more, **resolution)
    falling = any_of(array("K", np.array([1.0, 0.6, 0.3])), rising=np.array([0.1, 0.5]))
    yield call("euler_density", grading.euler_density, sde=instance(PROCESS), score=score, times=falling, **resolution)
    grid = grading.chain_density([(lambda x: x, 1.0)], 1)
    normal = array("M", Mixture([1.0], [[0.0]], [[[2.0]]]).log_prob(grid.points))
    yield call("GridDensity.kl_from", grid.kl_from, fixed="M", p=normal)
    eps = function(lambda x: 0.1 * x, results=[("(M,)", lambda x: x[:, 0])])
    at = {"scale": number(0.8), "std": positive(0.6)}
    other = instance(LINE, optional=True)
    yield call(
        "grade_noise",
        grading.grade_noise,
        data=instance(LINE),
        eps_hat=eps,
        **at | {"std": number(0.6, low=0.0)},
        law=other,
    )
    sampled = {"law": instance(MIXTURE), "x0": ND, "noise": ND, "eps_hat": eps}
    yield call("sample_noise_grade", grading.sample_noise_grade, fixed="D", **sampled, **at)
    grade = {"schedule": schedule(), "eps_hat": FLAT, "data": instance(LINE), "variance": VARIANCE}
    yield call("grade_bound", grading.grade_bound, **grade)
    bound = {"t_min": time(0.5, open_low=False), "rtol": positive(1e-2), "law": other}
    yield call(
        "grade_kl_bound", grading.grade_kl_bound, sde=instance(PROCESS), score=SCORE, data=instance(LINE), **bound
    )
    of_line = ScoreSDE(hidden=(4,), n_steps=2, t_min=0.1, rng=0).fit(LINE.sample(20, rng=0))
    sides = {"model": instance(of_line), "law": instance(LINE), "n_steps": count(5), "rtol": positive(1e-2)}
    yield call("grade_score_sde", grading.grade_score_sde, **sides)
    z = np.linspace(-9, 9, 61)
    log_density = {"z": array("M", z), "log_density": any_of(array("M", -0.5 * z**2), high=1e300 - 1e299 * z**2)}
    yield call(
        "nearest_gaussian",
        grading.nearest_gaussian,
        **log_density,
        starts=any_of(plain([(0.0, 1.0)]), number=3, text="ab"),
    )
    decode = function(lambda z: np.repeat(z, 2, axis=1), results=[("(M,)", lambda z: z[:, 0])])
    line = grading.OneLatent(lambda z: np.repeat(z, 2, axis=1), 0.0)
    joints = {"x": ND, "n_nodes": count(2001, 3, optional=True)}
    yield call("OneLatent.log_joints", line.log_joints, fixed="D", alias={"x": "means"}, **joints)
    yield call("OneLatent.log_prob", line.log_prob, fixed="D", x=array("D"), means=ND)
    one = lambda **kw: list(grading.OneLatent(**kw).log_joints(np.ones((1, 2)), 2001))  # noqa: E731
    yield call("OneLatent", one, decode=decode, log_variance=number(0.0), n_levels=count(4, 2, optional=True))
    model = {"model": instance(fitted("VAE of levels")), "x": levels(n=4), "n_nodes": count(4001, 3, optional=True)}
    model["x"] = Arg(data(fitted("VAE of levels"))[:2], {"text": "x", "None": None, "columns": np.ones((2, 5))})
    yield call("grade_vae", grading.grade_vae, **model)
    yield call("gaussian_gap", grading.gaussian_gap, **model)
    linear = {"model": instance(fitted("LinearVAE")), "x": samples("LinearVAE")}
    yield call("grade_linear_vae", grading.grade_linear_vae, **linear)


# --- models ----------------------------------------------------------------------------------------------------------


def samples(kind):
    """Data of a model, and bad ones."""
    x = data(fitted(kind))[:5]
    far, text = x.copy(), x.astype(str)
    far[0, 0] = np.inf
    bad = {"text": "x", "None": None, "pictures": np.ones((5, 8, 8)), "one row": x[0], "columns": x[:, :2], "inf": far}
    bad |= {"complex": x * 1j, "array of text": text, "nothing": x[:0], "huge": x + 1e300}
    return Arg(x, bad | ({"fractions": x + 0.5} if getattr(fitted(kind), "n_levels", None) else {}))


LEFT_OUT = {
    "get_params": "`deep` has no effect, as its docstring says",
    "set_params": "tests/models has its errors", "set_fitted": "as `set_params`",
    "load": "one case a class below", "save": "one case a class below", "train": "the same checks as `fit`",
    "resume": "the same checks as `fit`, and those of tests/models/test_resume.py",
}  # fmt: skip


def arguments_of(kind, name):
    """The arguments of a method of a model."""
    model = fitted(kind)
    continuous = isinstance(model, ScoreSDE)
    t = time(0.5) if continuous else one_step(2)
    T = 1.0 if continuous else getattr(model, "schedule_", SCHEDULE).T
    t = Arg(t.value, t.bad | ({} if continuous else {"beyond T": T + 1}))
    D, x = model.n_features_in_, {"x": samples(kind)}
    points = Arg(np.ones((5, D)), array("N D").bad | {"columns": np.ones((5, D + 1))})
    draws, rng, frame = {"n": count(3, 0)}, {"rng": seed()}, {"as_frame": flag()} if name == "sample" else {}
    taken = "sample_weight" in inspect.signature(getattr(model, name)).parameters
    weighted = {"sample_weight": weights()} if taken else {}
    noise = {
        "x_t": Arg(data(model)[:5], {k: v for k, v in samples(kind).bad.items() if k != "fractions"}),
        "scale": number(0.8),
        "std": positive(0.6),
    }
    match name:
        case "sample" | "sample_path" if isinstance(model, DDPM):
            return draws | rng | frame | {"eta": number(0.5, 0.0, 1.0, optional=True), "denoise_last": flag()}
        case "sample" | "sample_path" if continuous:
            wild = {"stochasticity": number(0.5, low=0.0), "method": choice("euler"), "snr": number(0.1, 0.0, 1.0)}
            return draws | rng | frame | wild | {"n_corrections": count(1, 0)}
        case "sample" if hasattr(model, "law_"):
            return draws | rng | frame | {"return_labels": flag()}
        case "sample":
            return draws | rng | frame
        case "eps_hat" | "predict_score":
            return {"x_t": points, "t": t}
        case "score_and_divergence":
            return {"x_t": points, "t": t, "probes": Arg(np.ones((2, 5, D)), array("Z N D", optional=True).bad)}
        case "log_prob" if continuous and model.n_levels is None:
            return x | rng | {"rtol": positive(1e-2), "n_probes": count(2, optional=True)}
        case "elbo" if continuous:
            return x | rng | {"n_times": count(2)}
        case "elbo" | "iwae" if hasattr(model, "iwae") and not (name == "elbo" and isinstance(model, DDPM)):
            return x | rng | {"n_draws": count(2)}
        case "elbo" | "bound_terms" | "noise_losses":
            return x | rng
        case "decode":
            k = model.network_.n_latents
            return {"z": Arg(np.ones((5, k)), array("N k").bad | {"columns": np.ones((5, k + 1))})}
        case "to_model" | "to_data":
            return {"x": points}
        case "respace":
            return {"steps": Arg(3, {k: v for k, v in count().bad.items() if k != "list"} | {"too many": T + 1})}
        case "share_network_with":
            return {
                "other": Arg(
                    type(model)(), {"class": type(model), "text": "x", "None": None, "other": GaussianMixture()}
                )
            }
        case "denoise" | "denoise_variance" | "diffused_log_prob":
            return noise
        case "levels" | "covariance" | "law":
            return {}
        case "fit" | "fit_predict":
            x = {"x": Arg(x["x"].value, {k: v for k, v in x["x"].bad.items() if k != "columns"})}
            return x | weighted
        case "score" | "aic" | "bic":
            return x | weighted
        case "log_prob" | "score_samples" | "predict" | "predict_proba":
            return x
        case "encode" | "reconstruct" | "impute":
            return x
    raise KeyError(f"{type(model).__name__}.{name} has no valid call")


def of_models():
    """Calls of the models' methods."""
    seen = set()
    for kind in KINDS:
        model = fitted(kind)
        group = (type(model), getattr(model, "n_levels", None) is None)
        if group in seen:
            continue
        seen.add(group)
        names = [
            n
            for n in dir(type(model))
            if not n.startswith("_") and n not in LEFT_OUT and callable(getattr(type(model), n))
        ]
        for name in names:
            if name == "log_prob" and isinstance(model, ScoreSDE) and model.n_levels:
                continue  # it always raises
            if name == "respace" and not isinstance(model.variance, str):
                continue
            fresh = KINDS[kind]() if name in ("fit", "fit_predict") else model
            yield call(f"{kind}.{name}", getattr(fresh, name), **arguments_of(kind, name))
        yield call(f"{kind}.save", saved(kind), path=file_path("model.npz"), overwrite=flag())
        yield call(f"{kind}.load", loaded(kind, type(fitted(kind)).load), path=file_path("model.npz"))
    yield call("load", loaded("PPCA", scratchgen.load), path=file_path("model.npz"))


def saved(kind):
    """`save` into a new folder, for names without a folder."""

    def save(path, overwrite=False):
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder) / path if isinstance(path, str) and path == "model.npz" else path
            fitted(kind).save(inside, overwrite=overwrite)

    return save


def loaded(kind, load_from):
    """`load_from` a new folder, for names without a folder."""

    def load(path):
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(path, str) and path == "model.npz":
                path = Path(folder) / path
                fitted(kind).save(path)
            return load_from(path)

    return load


def fit_with(model, x):
    """A function of the arguments of a constructor that builds the model and fits it."""
    return lambda **given: model(**given).fit(x)


def of_recipes():
    """Calls of scratchgen.recipes."""
    for name in recipes.KINDS:
        one = {"family": choice("vae"), "name": choice("best"), "rng": seed()}
        yield call(f"recipes.{name}", getattr(recipes, name), **one)
    yield call("recipes.find", recipes.find, kind=choice("digits"), family=choice("vae"), name=choice("best"))
    yield call("recipes.kind_of", recipes.kind_of, x=ND)


def of_metrics():
    """Calls of scratchgen.metrics."""
    x, y = array("M D", np.random.default_rng(0).standard_normal((6, 2))), array("L D")
    pair, k = {"x": x, "y": y}, {"k": count(2)}
    for name in "frechet_distance", "median_bandwidth":
        yield call(name, getattr(metrics, name), **pair)
    yield call("mmd2", metrics.mmd2, **pair, bandwidth=positive(optional=True))
    yield call("sliced_wasserstein2", metrics.sliced_wasserstein2, **pair, n_directions=count(), rng=seed())
    directions = any_of(array("Z D", optional=True), zeros=np.zeros((3, 2)))
    yield call("sliced_wasserstein2(directions)", metrics.sliced_wasserstein2, **pair, directions=directions)
    yield call("precision_recall", metrics.precision_recall, **pair, **k)
    yield call("density_coverage", metrics.density_coverage, **pair, **k)
    yield call("expected_coverage", metrics.expected_coverage, n=count(9, 3), m=count(4), **k)
    sets = {"samples": ND, "train": array("M D"), "held_out": array("L D", kind=lambda a: a + 9)}
    yield call("nearest_train_ratio", metrics.nearest_train_ratio, **sets)
    yield call("count_copies", metrics.count_copies, samples=ND, row=array("D"), radius=number(0.5, low=0.0))
    yield call("logistic_loss", metrics.logistic_loss, logits=array("N K"), labels=labels(False))
    test = {"classifier": choice("mlp"), "folds": count(2, 2), "rng": seed()}
    yield call("two_sample_accuracy", short(metrics.two_sample_accuracy), **pair, **test)
    own = {"labels": labels(False), "y": array("M D"), "labels_y": labels(False, "M"), "rng": seed()}
    yield call("train_on_synthetic", short(metrics.train_on_synthetic), x=ND, **own)
    wide = {"x": array("P D", np.random.default_rng(0).standard_normal((8, 2))), "y": array("S D")}
    bad = {"list": [np.ones((5, 2))] * 2, "None": None, "empty": {}, "text": "x", "one draw": {"m": [np.ones((5, 2))]}}
    bad |= {
        "sizes": {"m": [np.eye(5, 2), np.eye(4, 2)]},
        "numbers": {"m": [1.0, 2.0]},
        "columns": {"m": [np.eye(5)] * 2},
    }
    draws = Arg({"m": [np.eye(5, 2), np.ones((5, 2))]}, bad)
    train = array("M D", 9 + np.eye(6, 2), optional=True)
    yield call("compare", short(metrics.compare), **wide, draws=draws, train=train, **k, rng=seed(), forest=flag())
    model, rows = fitted("DDPM of levels"), array("M D", data(fitted("DDPM of levels"))[:6])
    scored = {"x": Arg(rows.value, rows.bad | {"columns": np.ones((2, 5)), "fractions": rows.value + 0.5})}
    scored |= {"n_repeats": count(2, 2), "rng": seed()}
    bits = {"model": instance(model), **scored, "bound": choice("elbo")}
    yield call("model_bits", metrics.model_bits, **bits)
    given = {"labels": labels(n=3), **scored}
    given["x"] = Arg(rows.value[:5], {})
    classes = {"model": instance(levels_with_labels())}
    yield call("model_bits(labels)", metrics.model_bits, **classes, **given)
    prior = law("K")
    prior = Arg(prior.value, {name: value for name, value in prior.bad.items() if name != "None"}, prior.letters)
    yield call("label_summed_bits", metrics.label_summed_bits, fixed="K", **classes, **scored, prior=prior)
    elbos = array("two N K", optional=False)
    yield call("cross_fitted_bound", metrics.cross_fitted_bound, elbos=elbos, prior=law("K"))


def short(f):
    """The function with a classifier of two steps."""

    @functools.wraps(f)
    def shortened(*args, **given):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(classifiers, "LEAST_STEPS", 2)
            patch.setattr(classifiers, "EPOCHS", 1)
            return f(*args, **given)

    return shortened


@cache
def levels_with_labels():
    """A DDPM of whole numbers with three labels."""
    model = DDPM(SCHEDULE, "mixture", n_classes=3, n_levels=4, prediction="levels", hidden=(4,), n_steps=1, rng=0)
    return model.fit(data(fitted("DDPM of levels")), np.arange(40) % 3)


def of_constructors():
    """Constructors of the models, whose arguments `fit` checks."""
    reals, whole = data(fitted("PPCA")), data(fitted("CategoricalMixture"))
    em_options = {"tol": number(1e-3, low=0.0), "max_iter": count(2), "rng": seed(), "verbose": report()}
    start = {
        "n_components": count(2),
        "covariance_type": choice("diag"),
        "n_init": count(1),
        "init_params": choice("kmeans"),
    }
    prior = Arg(
        (0.5, 2.0), {"text": "x", "three": (1, 2, 3), "negative": (-1.0, 1.0), "NaN": (np.nan, 1.0), "number": 3}
    )
    start |= {"covariance_floor": positive(1e-6), "covariance_prior": prior, "warm_start": flag()}
    start |= {"acceleration": choice("over-relaxed", optional=True)}
    mixture = em_options | {"max_iter": count(2, 0)}
    yield call("GaussianMixture", fit_with(GaussianMixture, reals), **start, **mixture)
    weights, means, precisions = law("Z"), array("Z K"), covariance("Z K K")
    given = {"weights_init": weights, "means_init": means, "precisions_init": precisions}
    given = {k: Arg(v.value[:2], {n: b for n, b in v.bad.items() if n != "None"}) for k, v in given.items()}
    given["weights_init"] = Arg(
        np.array([0.4, 0.6]), {"negative": [-1.0, 2.0], "sum 2": [1.0, 1.0], "text": "x", "(K, 1)": [[0.4], [0.6]]}
    )
    yield call(
        "GaussianMixture(start)", fit_with(GaussianMixture, reals), n_components=count(2), max_iter=count(1, 0), **given
    )
    tables = {"n_components": count(2), "n_levels": count(4, 2), "smoothing": number(1.0, low=0.0), "n_init": count(1)}
    yield call("CategoricalMixture", fit_with(CategoricalMixture, whole), **tables, **mixture)
    yield call("PPCA", fit_with(scratchgen.PPCA, reals), n_components=count(1), method=choice("em"), **em_options)
    floor = number(0.1, 0.0, 1.0, open_low=True)
    yield call(
        "FactorAnalysis",
        fit_with(scratchgen.FactorAnalysis, reals),
        n_components=count(1),
        noise_floor=floor,
        **em_options,
    )
    train = {"n_steps": count(1, optional=True), "learning_rate": positive(1e-3), "standardize": flag(True)}
    train |= {"rng": seed(), "early_stopping": flag(), "validation_fraction": number(0.2, 0.0, 1.0, open_low=True)}
    train |= {"n_iter_no_change": count(), "verbose": report()}
    variance = Arg(
        0.5, {"zero": 0.0, "negative": -1.0, "text": "full", "NaN": np.nan, "list": [0.5, 0.5], "class": float}
    )
    decoder = {"n_latents": count(1), "decoder_variance": variance, "kl_weight": number(1.0, low=0.0)}
    yield call("LinearVAE", fit_with(scratchgen.LinearVAE, reals), **decoder, **train)
    layers = {k: v for k, v in vae_sizes().items() if "hidden" in k} | {"activation": choice("tanh"), **dtype()}
    nets = {"n_levels": count(4, 2, optional=True), "batch_size": count(3, optional=True), **train}
    yield call("VAE", fit_with(scratchgen.VAE, whole), **decoder, **layers, **nets)
    net = {
        "hidden": widths(),
        "n_coordinate_features": count(1, 0, optional=True),
        "weight_decay": number(0.1, low=0.0),
        **train,
    }
    net |= {"network": choice("residual"), "dropout": number(0.2, 0.0, 1.0)}
    net |= {"ema_decay": number(0.9, 0.0, 1.0), "n_levels": count(4, 2, optional=True), "batch_size": count(3)}
    chain = Arg(SCHEDULE, {k: v for k, v in schedule().bad.items() if k != "None"})
    options = {"schedule": chain, "variance": VARIANCE, "weighting": choice("bound"), "step_choice": choice("uniform")}
    options |= {"clip_x0": flag(), "prediction": choice("noise")}
    yield call("DDPM", fit_with(DDPM, whole), **options, **net)
    y = np.arange(40) % 3
    classes = {"n_classes": count(3, 0), "label_dropout": number(0.1, 0.0, 1.0), "y": labelled(y)}
    conditional = lambda y, **given: DDPM(SCHEDULE, hidden=(4,), n_steps=1, rng=0, **given).fit(reals, y)  # noqa: E731
    yield call("DDPM(labels)", conditional, **classes)
    trained = labelled_model()
    few = {"y": labelled(np.array([0, 1, 2])), "guidance": number(2.0)}
    yield call("DDPM.sample(y)", trained.sample, n=count(3, 0), **few, rng=seed())
    yield call("DDPM.eps_hat(y)", trained.eps_hat, x_t=plain(reals[:3]), t=one_step(), **few)
    for name in "elbo", "bound_terms", "iwae":
        yield call(f"DDPM.{name}(y)", getattr(trained, name), x=plain(reals[:3]), y=few["y"], rng=seed())
    in_logits = few | {"guidance_in": choice("logits")}
    yield call("DDPM.sample(logits)", levels_with_labels().sample, n=count(3, 0), **in_logits, rng=seed())
    of_sde = ScoreSDE(n_classes=3, n_sample_steps=3, hidden=(4,), n_steps=1, rng=0).fit(reals, y)
    points = {"x_t": plain(reals[:3]), "t": time(0.5)}
    for name in "sample", "sample_path":
        yield call(f"ScoreSDE.{name}(y)", getattr(of_sde, name), n=count(3, 0), **few, rng=seed())
    for name in "eps_hat", "predict_score":
        yield call(f"ScoreSDE.{name}(y)", getattr(of_sde, name), **points, **few)
    yield call("ScoreSDE.score_and_divergence(y)", of_sde.score_and_divergence, **points, y=few["y"])
    bound, flow = {"n_times": count(2)}, {"rtol": positive(1e-2)}
    yield call("ScoreSDE.elbo(y)", of_sde.elbo, x=plain(reals[:3]), y=few["y"], rng=seed(), **bound)
    yield call("ScoreSDE.log_prob(y)", of_sde.log_prob, x=plain(reals[:3]), y=few["y"], **flow)
    options = {"sde": instance(PROCESS, optional=True), "t_min": time(0.1), "weighting": choice("noise")}
    options |= {"matching": choice("denoising"), "directions": choice("gaussian"), "time_choice": choice("uniform")}
    options |= {"n_sample_steps": count(3, 2), "prediction": choice("v")}
    yield call("ScoreSDE", fit_with(ScoreSDE, whole), **options, **net)
    plain_ddpm = DDPM(SCHEDULE, hidden=(4,), n_steps=1, rng=0).fit(reals)
    multistep = {"stochasticity": number(0.5, low=0.0, optional=True)}
    for name in "sample", "sample_path":
        yield call(f"DDPM.{name}(stochasticity)", getattr(plain_ddpm, name), n=count(3, 0), **multistep, rng=seed())
    to_sde = {"ddpm": instance(plain_ddpm), "sde": instance(PROCESS, optional=True)}
    early = time(0.1)
    to_sde["t_min"] = Arg(0.1, {k: v for k, v in early.bad.items() if k != "None"})
    yield call("to_sde", scratchgen.to_sde, **to_sde)
    to_ddpm = {"score_sde": instance(fitted("ScoreSDE")), "T": count(), "variance": VARIANCE}
    yield call("to_ddpm", scratchgen.to_ddpm, **to_ddpm)


def report():
    """False, True or a level of output."""
    return Arg(0, {"negative": -1, "text": "yes", "fraction": 0.5, "None": None, "list": [1]})


def labelled(y):
    """Labels 0..2, and bad ones."""
    bad = {"fractions": y + 0.5, "unknown label": y + 7, "negative": y - 1, "(N, 1)": y[:, None], "short": y[:2]}
    return Arg(y, bad | {"text": "x", "names": np.array(list("abc"))[y], "complex": y * 1j})


@cache
def labelled_model():
    """A DDPM with three labels."""
    return DDPM(SCHEDULE, n_classes=3, hidden=(4,), n_steps=1, rng=0).fit(data(fitted("PPCA")), np.arange(40) % 3)


def of_export():
    """Calls of scratchgen.export."""
    left = fitted("DDPM, left")
    state = export.state_dict(left)
    bad = {
        "None": None,
        "text": "state.npz",
        "list": list(state),
        "class": dict,
        "empty": {},
        "unknown": state | {"x": 1},
    }
    for what, (key, value) in {
        "short": ("mean_", state["mean_"][1:]),
        "NaN": ("average.mlp.0.bias", np.nan * state["average.mlp.0.bias"]),
        "words": ("scale_", ["a", "b", "c"]),
        "ragged": ("scale_", [[1.0], [1.0, 2.0]]),
        "complex": ("losses_", 1j * state["losses_"]),
        "far step": ("step", np.array(10**6)),
    }.items():
        bad[what] = state | {key: value}
    model = Arg(left, {"None": None, "text": "model.npz", "class": DDPM, "without network": fitted("PPCA")})
    prefix = Arg("network.mlp", {"None": None, "number": 3, "unknown": "mlp", "list": ["network.mlp"]})
    found = export.layers(state, "network.mlp")
    swapped = [(weight.T, bias) for weight, bias in found]
    lists = {"None": None, "text": "layers", "number": 3, "swapped": swapped, "bare": [weight for weight, _ in found]}
    lists |= {"three": [(*found[0], 1)], "words": [("a", "b")], "a number": [(found[0][0], 1.0)]}
    yield call("state_dict", export.state_dict, model=model)
    yield call("load_state_dict", export.load_state_dict, model=model, state=Arg(state, bad))
    yield call("layers", export.layers, state=Arg(state, {k: bad[k] for k in ("None", "text", "list")}), prefix=prefix)
    named = Arg("network.mlp", {k: prefix.bad[k] for k in ("None", "number", "list")})
    yield call("from_layers", export.from_layers, layers=Arg(found, lists), prefix=named)


PARTS = (
    of_likelihood, of_variational, of_augmentation, of_quadrature, of_plane, of_mixture, of_em, of_ddpm, of_sde, of_vae,
    of_nn, of_grading, of_metrics, of_recipes, of_constructors, of_models, of_export,
)  # fmt: skip


@cache
def calls():
    """All calls."""
    return [one for part in PARTS for one in part()]
