"""Units of models that standardise: every column has its own mean and scale, or all have one scale.

A change of units is exact in floating point if it is a power of 2, so that training is then equal to the bit.
"""

import numpy as np
import pytest

from scratchgen import DDPM, PPCA, VAE, FactorAnalysis, LinearVAE, NoiseSchedule, ScoreSDE
from tests.strategies import residual

VAE_OPTIONS = {"n_latents": 2, "hidden": (4,), "n_steps": 6, "batch_size": 16, "rng": 0}
NETWORK = {"hidden": (4,), "n_steps": 6, "batch_size": 16, "rng": 0}
CHAIN = NoiseSchedule.linear(5)
MODELS = {
    "VAE": lambda **units: VAE(**VAE_OPTIONS, **units),
    "VAE, s² given": lambda **units: VAE(decoder_variance=0.3, **VAE_OPTIONS, **units),
    "VAE, s² a column": lambda **units: VAE(decoder_variance="diag", **VAE_OPTIONS, **units),
    "VAE, float64": lambda **units: VAE(dtype="float64", **VAE_OPTIONS, **units),
    "DDPM": lambda **units: DDPM(CHAIN, **NETWORK, **units),
    "DDPM, optimal variance": lambda **units: DDPM(CHAIN, variance="optimal", **NETWORK, **units),
    "ScoreSDE": lambda **units: ScoreSDE(t_min=0.1, n_sample_steps=5, **NETWORK, **units),
}
LINEAR = {"LinearVAE": lambda **units: LinearVAE(2, n_steps=6, rng=0, **units)}
every_model = pytest.mark.parametrize("new", MODELS.values(), ids=MODELS.keys())
every_class = pytest.mark.parametrize("new", (MODELS | LINEAR).values(), ids=(MODELS | LINEAR).keys())
DYADIC = 2.0 ** np.array([-30, 0, 31])  # units from 1e-9 to 2e9
UNITS, SHIFT = np.array([1.7e-9, 3.3, 4.1e9]), np.array([5e-9, -20.0, 3e10])


def data(n=40):
    """Rows with correlated columns of different means and variances."""
    z = np.random.default_rng(7).standard_normal((n, 3))
    return z @ [[3.0, 0.9, 0.1], [0.0, 0.4, 0.1], [0.0, 0.0, 0.5]] + [5, 0, -2]


def likelihoods(model, x):
    """Every likelihood and bound of the rows of x, nats, on the same noise."""
    answers = {"elbo": model.elbo(x, rng=3)}
    if hasattr(model, "iwae"):
        answers["iwae"] = model.iwae(x, rng=3, n_draws=4)
    if hasattr(model, "log_prob"):
        answers["log_prob"] = model.log_prob(x)
    if hasattr(model, "bound_terms"):
        answers["bound_terms"] = -model.bound_terms(x, rng=3).sum(axis=1)
    return answers


def check_change_of_units(new, u, shift, tolerance):
    """x → u x + shift changes log densities by −Σ log u alone, samples as the data, and nothing in the model."""
    x, n = data(), 5
    model, other = new().fit(x), new().fit(u * x + shift)
    for name, value in likelihoods(model, x).items():
        change = likelihoods(other, u * x + shift)[name] - value
        assert np.abs(change + np.log(u).sum()).max() <= tolerance, name
    samples = (other.sample(n, rng=0) - shift) / u
    assert residual(samples, model.sample(n, rng=0)) <= tolerance
    assert residual(other.to_model(u * x + shift), model.to_model(x)) <= tolerance
    if isinstance(model, VAE):
        assert residual(other.decoder_variance_, u**2 * model.decoder_variance_) <= tolerance
        assert residual((other.reconstruct(u * x + shift) - shift) / u, model.reconstruct(x)) <= tolerance
        assert np.abs(other.losses_ - model.losses_ - np.log(u).sum()).max() <= tolerance
        for mine, theirs in zip(model.encode(x), other.encode(u * x + shift), strict=True):
            assert residual(theirs, mine) <= tolerance
    return model, other


@every_model
def test_units_of_the_columns_that_are_powers_of_2_change_nothing_else(new):
    model, other = check_change_of_units(new, DYADIC, 0.0, 1e-12)
    assert (other.sample(5, rng=0) == DYADIC * model.sample(5, rng=0)).all()


@every_model
def test_any_units_and_zeros_of_the_columns_change_nothing_else_but_rounding(new):
    """Standardised columns differ by 2e-15, which rounding to float32 hides; measured 5e-15, and 2e-11 for the flow."""
    check_change_of_units(new, UNITS, SHIFT, 1e-9)


@every_model
@pytest.mark.parametrize("standardize", [True, "global"])
def test_raw_columns_are_the_model_of_columns_standardised_by_hand(new, standardize):
    """To the bit: the same numbers reach the network; the answers differ by mean, scale and log-volume."""
    x = UNITS**0.3 * data()
    mean, variances = x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)
    scale = np.sqrt(variances if standardize is True else np.full(3, variances.mean()))
    raw, hand = new(standardize=standardize).fit(x), new(standardize=False).fit((x - mean) / scale)
    assert (raw.sample(5, rng=0) == hand.sample(5, rng=0) * scale + mean).all()
    for name, value in likelihoods(hand, (x - mean) / scale).items():
        assert residual(likelihoods(raw, x)[name], value - np.log(scale).sum()) < 1e-13, name
    if standardize is True:  # a second standardisation is none but for rounding
        twice = new().fit((x - mean) / scale)
        assert residual(twice.sample(5, rng=0), hand.sample(5, rng=0)) < 1e-5


@every_class
def test_mean_and_scale_are_those_of_the_columns(new):
    x = data()
    for standardize in True, "global", False, np.True_:
        model = new(standardize=standardize).fit(x)
        each, one = x.std(axis=0), np.full(3, np.sqrt(x.var(axis=0).mean()))
        scale = one if standardize == "global" or isinstance(model, LinearVAE) else each
        mean, scale = (x.mean(axis=0), scale) if standardize else (np.zeros(3), np.ones(3))
        assert model.mean_.shape == model.scale_.shape == (3,)
        assert model.mean_.dtype == model.scale_.dtype == np.float64
        assert residual(model.mean_, mean) < 1e-14
        assert residual(model.scale_, scale) < 1e-14
        assert residual(model.to_model(x), (x - mean) / scale) < 1e-14
        assert residual(model.to_data(model.to_model(x)), x) < 1e-14
        assert abs(model._log_volume - np.log(scale).sum()) < 1e-14


@pytest.mark.parametrize("new", [lambda **o: VAE(1, **NETWORK, **o), lambda **o: DDPM(CHAIN, **NETWORK, **o)])
def test_whole_numbers_have_their_own_units_whatever_standardize_is(new):
    x = np.random.default_rng(0).integers(0, 5, (40, 3)) * [1, 1, 0]  # the last column is constant
    samples = []
    for standardize in True, "global", False:
        model = new(n_levels=5, standardize=standardize).fit(x)
        assert (model.mean_ == 2).all()
        assert (model.scale_ == 2).all()
        assert model._log_volume == 0
        samples.append(model.sample(9, rng=0))
    assert (samples[0] == samples[1]).all()
    assert (samples[0] == samples[2]).all()


# --- columns without variance, and of extreme units ---------------------------------------------------------------


def with_column(column, dtype=np.float64):
    """Three columns, of which the second one is `column`."""
    x = data()
    x[:, 1] = column
    return x.astype(dtype)


CONSTANT = {
    "zero": with_column(0.0),
    "seven": with_column(7.0),
    "rounding": with_column(1e6 * (1 + 2.3e-16 * (np.arange(40) % 4))),
    "rounding of float32": with_column(1e6 * (1 + 1.2e-7 * (np.arange(40) % 4)), np.float32),
}


@every_model
@pytest.mark.parametrize("x", CONSTANT.values(), ids=CONSTANT.keys())
def test_a_constant_column_is_an_error_that_names_the_column_and_the_remedy(new, x):
    with pytest.raises(ValueError, match=r"^x must vary in every column .*, but column 1 is constant.*; .*drop it"):
        new().fit(x)
    if new().get_params().get("decoder_variance") == "diag":
        return
    for standardize in "global", False:
        assert np.isfinite(new(standardize=standardize).fit(x / np.abs(x).max()).sample(3, rng=0)).all()


def test_a_column_that_is_constant_but_for_rounding_is_reported_as_such():
    remedy = "drop it, or, if all columns have one unit, pass standardize='global' or False$"
    message = rf"column 1 is constant, but for rounding beside 1e\+06; {remedy}"
    for name in "rounding", "rounding of float32":
        with pytest.raises(ValueError, match=message):
            MODELS["DDPM"]().fit(CONSTANT[name])
        with pytest.raises(ValueError, match=r"column 1 is constant, but for rounding beside 1e\+06; drop it$"):
            FactorAnalysis(1).fit(CONSTANT[name])
    with pytest.raises(ValueError, match=f"column 1 is constant; {remedy}"):
        MODELS["DDPM"]().fit(CONSTANT["seven"])
    MODELS["DDPM"]().fit(with_column(1e6 + 1e-6 * np.arange(40)))  # 4e-5 beside 1e6 is no rounding in float64


@every_class
def test_constant_data_and_a_single_row_are_refused(new):
    for x in np.full((20, 3), 0.1), data(1):
        with pytest.raises(ValueError, match=rf"constant.*n_samples={len(x)}|n_samples={len(x)}.*constant"):
            new().fit(x)
        with pytest.raises(ValueError, match=rf"constant.*n_samples={len(x)}|n_samples={len(x)}.*constant"):
            new(standardize="global").fit(x)


@every_model
def test_extreme_units_work_or_are_refused(new):
    """Columns of size 1e-150 and 1e55 give the same model; squares of smaller numbers underflow, larger overflow."""
    x = data()
    model = new().fit(x * [2.0**-498, 1.0, 2.0**182])
    assert residual(model.to_model(x * [2.0**-498, 1.0, 2.0**182]), new().fit(x).to_model(x)) == 0
    assert (model.sample(5, rng=0) == new().fit(x).sample(5, rng=0) * [2.0**-498, 1.0, 2.0**182]).all()
    assert np.isfinite(model.elbo(x * [2.0**-498, 1.0, 2.0**182], rng=0)).all()
    with pytest.raises(ValueError, match=r"more than 1e-153.* column 0 varies by .*; use smaller units"):
        new().fit(x * [1e-160, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"size 1e\+60 at most.*; drop fill values, or divide x"):
        new().fit(x * [1e-150, 1.0, 1e150])


@every_class
@pytest.mark.parametrize("wrong", ["no", "yes", "Global", "", 1, 0, None, 1.0, [True], np.ones(3)], ids=repr)
def test_another_value_of_standardize_is_refused(new, wrong):
    with pytest.raises(TypeError, match=r"^standardize must be True or False, or 'global' for one scale .*; pass True"):
        new(standardize=wrong).fit(data())


# --- the linear VAE ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, "global"])
def test_linear_vae_is_ppca_on_raw_columns_of_different_scales(standardize):
    """One scale for all columns keeps PPCA's optimum; a scale for every column has another optimum."""
    x = data(60) * [1.0, 3.0, 0.2]
    model = LinearVAE(1, n_steps=1500, learning_rate=0.05, standardize=standardize, rng=0).fit(x)
    best = PPCA(1).fit(x)
    assert abs(model.elbo(x).mean() - best.score(x)) < 1e-9
    assert isinstance(model.decoder_variance_, float)
    assert model.decoder_variance_ == pytest.approx(best.noise_variance_, rel=1e-6)
    scale = x.std(axis=0)
    assert abs(PPCA(1).fit(x / scale).score(x / scale) - np.log(scale).sum() - best.score(x)) > 0.1


# --- a table as it comes ------------------------------------------------------------------------------------------


def correlated(n, units, shift, seed):
    """(n, 3) normal rows with sd `units`, mean `shift` and correlation 0.9."""
    z = np.random.default_rng(seed).multivariate_normal(np.zeros(3), 0.1 * np.eye(3) + 0.9, n)
    return z * units + shift


@pytest.mark.parametrize(
    "model",
    [
        DDPM(hidden=(64, 64), n_steps=600, rng=0),
        ScoreSDE(hidden=(64, 64), n_steps=600, n_sample_steps=100, rng=0),
        VAE(n_steps=600, rng=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_samples_of_a_table_with_raw_columns_have_its_means_deviations_and_correlations(model):
    """With one scale for all columns, the column of the smallest unit is lost in the noise of the others."""
    x = correlated(1000, [1e-3, 1.0, 1e4], [2e-3, -5.0, 3e4], seed=0)
    samples = model.fit(x).sample(4000, rng=1)
    assert (np.abs(samples.mean(axis=0) - x.mean(axis=0)) < 0.2 * x.std(axis=0)).all()  # measured 0.03
    assert (np.abs(samples.std(axis=0) / x.std(axis=0) - 1) < 0.3).all()  # 0.02
    assert np.abs(np.corrcoef(samples.T) - np.corrcoef(x.T)).max() < 0.1  # 0.02
    one_scale = type(model)(**model.get_params() | {"standardize": "global"}).fit(x).sample(4000, rng=1)
    assert one_scale[:, 0].std() > 100 * x[:, 0].std()


@pytest.mark.parametrize("standardize", [True, "global", False])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_have_no_units(standardize, bad):
    model = VAE(1, hidden=(4,), standardize=standardize, n_steps=2, rng=0).fit(np.eye(4)[:, :3] + 0.1)
    with pytest.raises(ValueError, match=rf"^x must lie within .* x\[0, 1\] is {bad}; drop fill values and NaN"):
        model.to_model(np.array([[0.0, bad, 0.0]]))
