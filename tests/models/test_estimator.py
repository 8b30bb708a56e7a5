"""The methods of all models: the contract of scikit-learn, training, files, errors, randomness."""

import inspect
import json
import pickle
import random
import sys
import zipfile
from dataclasses import dataclass, fields
from types import SimpleNamespace

import numpy as np
import pytest

from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    VE,
    VP,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    NoiseSchedule,
    ScoreSDE,
    SubVP,
    to_ddpm,
    to_sde,
)
from scratchgen.models.estimator import Estimator, NotFittedError, Progress
from tests.em_helpers import at_floor
from tests.strategies import residual

SMALL = {
    GaussianMixture: {"n_components": 2, "max_iter": 4, "tol": 0.0},
    PPCA: {"n_components": 2, "method": "em", "max_iter": 4},
    FactorAnalysis: {"n_components": 2, "max_iter": 4, "tol": 0.0},
    VAE: {"n_latents": 2, "hidden": (4,), "n_steps": 4, "batch_size": 16},
    LinearVAE: {"n_latents": 2, "n_steps": 4},
    DDPM: {"schedule": NoiseSchedule.linear(5), "hidden": (4,), "n_steps": 4, "batch_size": 16},
    ScoreSDE: {"t_min": 0.1, "hidden": (4,), "n_sample_steps": 5, "n_steps": 4, "batch_size": 16},
}
MODELS = list(SMALL)
WITH_LOG_PROB = [GaussianMixture, PPCA, FactorAnalysis, CategoricalMixture, LinearVAE, ScoreSDE]
every_model = pytest.mark.parametrize("cls", MODELS)


def data(n=40):
    return np.random.default_rng(7).standard_normal((n, 3)) * [3, 1, 0.5] + [5, 0, -2]


LEVELS = np.random.default_rng(8).integers(0, 4, (40, 3))


def small(cls, **parameters):
    return cls(**{**SMALL[cls], "rng": 0, **parameters})


def draws(model, x=None):
    """Bytes of every answer of a fitted model."""
    x = data(6) if x is None else x
    said = [model.sample(5, rng=1), model.elbo(x, rng=2)]
    if type(model) in WITH_LOG_PROB:
        said.append(model.score_samples(x))
    return b"".join(array.tobytes() for array in said)


def parameter_names(cls):
    return [p for p in inspect.signature(cls.__init__).parameters if p != "self"]


def same(a, b):
    """Whether two parameters are equal, including arrays and objects of the package."""
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, NoiseSchedule):
        return type(a) is type(b) and a.variances.tobytes() == b.variances.tobytes()
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, np.random.Generator):
        return isinstance(b, np.random.Generator) and a.bit_generator.state == b.bit_generator.state
    return type(a) is type(b) and a == b


# --- parameters: scikit-learn's contract ------------------------------------------------------------------


@every_model
def test_constructor_only_stores_what_it_is_given(cls):
    """No check, no copy, no derived attribute: `clone` compares parameters by identity."""
    given = {name: object() for name in parameter_names(cls)}
    model = cls(**given)
    assert vars(model) == given
    assert model.get_params() == model.get_params(deep=False) == given
    assert all(model.get_params()[name] is value for name, value in given.items())


@every_model
def test_model_is_a_dataclass_of_its_arguments_and_equals_only_itself(cls):
    assert {field.name for field in fields(cls) if field.init} == set(parameter_names(cls))
    model = small(cls)
    assert model == model
    assert model != small(cls)
    assert len({model, small(cls)}) == 2


@every_model
def test_constructor_has_only_named_parameters_with_immutable_defaults(cls):
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        assert parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if name != "self":
            assert isinstance(parameter.default, int | float | str | tuple | None), name
    assert "rng" in parameter_names(cls)
    assert "random_state" not in parameter_names(cls)


@every_model
def test_clone_by_hand_is_the_same_model(cls):
    model = small(cls)
    clone = cls(**model.get_params())
    assert all(clone.get_params()[name] is value for name, value in model.get_params().items())
    assert draws(model.fit(data())) == draws(clone.fit(data()))
    assert [hasattr(cls(), "other"), hasattr(model, "other_")] == [False, False]


@every_model
def test_set_params_changes_the_named_parameters_only(cls):
    model, sentinel = small(cls), object()
    name = parameter_names(cls)[0]
    before = model.get_params()
    assert model.set_params() is model
    assert model.set_params(**{name: sentinel}) is model
    assert getattr(model, name) is sentinel
    assert model.get_params() == {**before, name: sentinel}


@every_model
def test_set_params_names_an_unknown_parameter_and_changes_nothing(cls):
    model = small(cls)
    before = model.get_params()
    with pytest.raises(ValueError, match=f"{cls.__name__} has no parameter 'nonsense'; it has .*rng"):
        model.set_params(rng=5, nonsense=1)
    assert model.get_params() == before
    with pytest.raises(TypeError, match="nonsense"):
        cls(nonsense=1)


@every_model
def test_fit_changes_no_parameter_and_sets_only_attributes_with_an_underscore(cls):
    model = small(cls)
    before = model.get_params()
    assert model.fit(data(), y=np.zeros(40)) is model
    assert model.get_params() == before
    assert model.n_features_in_ == 3
    learnt = set(vars(model)) - set(before)
    assert all(name.endswith("_") or name.startswith("_") for name in learnt)
    assert set(cls._fitted) <= learnt


@every_model
def test_repr_shows_the_parameters_that_differ_from_the_defaults(cls):
    assert repr(cls()) == f"{cls.__name__}()"
    assert repr(cls(rng=0)) == f"{cls.__name__}(rng=0)"
    name, default = next(
        (n, p.default) for n, p in inspect.signature(cls.__init__).parameters.items() if isinstance(p.default, int)
    )
    assert repr(cls(**{name: default + 3, "rng": None})) == f"{cls.__name__}({name}={default + 3})"
    assert repr(cls(rng=np.arange(2))) == f"{cls.__name__}(rng=array([0, 1]))"


# --- before fit -------------------------------------------------------------------------------------------


def verbs(cls, folder):
    """Every method that needs a fitted model."""
    x = data()
    calls = {
        "sample": lambda model: model.sample(3, rng=0),
        "elbo": lambda model: model.elbo(x, rng=0),
        "score_samples": lambda model: model.score_samples(x),
        "score": lambda model: model.score(x),
        "save": lambda model: model.save(folder / "model.npz"),
        "an attribute": lambda model: getattr(model, cls._fitted[0]),
    }
    own = {
        GaussianMixture: ["log_prob", "predict_proba", "predict", "bic", "aic"],
        PPCA: ["log_prob", "encode", "bic", "aic"],
        FactorAnalysis: ["log_prob", "encode", "bic", "aic"],
        CategoricalMixture: ["log_prob", "predict_proba", "predict", "bic", "aic"],
        LinearVAE: ["log_prob", "encode", "decode", "reconstruct", "iwae"],
        VAE: ["encode", "decode", "reconstruct", "iwae"],
        DDPM: ["bound_terms", "noise_losses", "iwae"],
        ScoreSDE: ["log_prob"],
    }[cls]
    calls |= {name: lambda model, name=name: getattr(model, name)(x) for name in own}
    if cls in (DDPM, ScoreSDE):
        t = 1 if cls is DDPM else 0.5
        calls["sample_path"] = lambda model: next(iter(model.sample_path(3, rng=0)))
        calls["eps_hat"] = lambda model: model.eps_hat(x, t)
        calls["predict_score"] = lambda model: model.predict_score(x, t)
    if cls is DDPM:
        calls |= {"respace": lambda model: model.respace(2), "to_sde": to_sde}
    if cls is ScoreSDE:
        calls["score_and_divergence"] = lambda model: model.score_and_divergence(x, 0.5)
        calls["to_ddpm"] = lambda model: to_ddpm(model, 5)
    if cls in (VAE, LinearVAE):
        calls["decoder_variance_"] = lambda model: model.decoder_variance_
    if cls is LinearVAE:
        calls["components_"] = lambda model: model.components_
        calls["decoder_mean_"] = lambda model: model.decoder_mean_
    if cls in (GaussianMixture, PPCA, FactorAnalysis, CategoricalMixture):
        calls["n_parameters_"] = lambda model: model.n_parameters_
    if cls is CategoricalMixture:
        for name in "diffused_log_prob", "denoise", "denoise_variance":
            calls[name] = lambda model, name=name: getattr(model, name)(x, 0.8, 0.6)
    if cls in (PPCA, FactorAnalysis):
        calls["covariance"] = lambda model: model.covariance()
    if cls is GaussianMixture:
        calls["precisions_"] = lambda model: model.precisions_
    return calls


@pytest.mark.parametrize("cls", [*MODELS, CategoricalMixture])
def test_every_verb_needs_a_fitted_model(cls, tmp_path):
    for name, verb in verbs(cls, tmp_path).items():
        with pytest.raises(NotFittedError, match=rf"this {cls.__name__} is not fitted yet; call fit\(x\)"):
            pytest.fail(f"{name} returned {verb(cls())}")
    assert list(tmp_path.iterdir()) == []


@every_model
def test_train_does_nothing_before_its_first_step(cls):
    model = small(cls)
    model.train(data())
    with pytest.raises(NotFittedError):
        model.sample(3)


@every_model
def test_a_fit_that_was_refused_leaves_the_model_as_it_was(cls):
    constant = [] if cls is GaussianMixture else [np.ones((5, 3)), np.ones((9, 5))]  # a mixture fits one point
    for x in np.full((5, 3), np.nan), 1j * data(), *constant:
        fitted, unfitted = small(cls).fit(data()), small(cls)
        samples, arrays = draws(fitted), {name: np.copy(getattr(fitted, name)) for name in cls._fitted}
        for model in fitted, unfitted:
            with pytest.raises((ValueError, TypeError), match=r"^x "):
                model.fit(x)
        assert draws(fitted) == samples
        assert all(np.array_equal(getattr(fitted, name), value) for name, value in arrays.items())
        with pytest.raises(NotFittedError):
            unfitted.sample(3, rng=0)


def test_not_fitted_error_is_what_scikit_learn_catches_and_can_be_pickled(monkeypatch):
    assert issubclass(NotFittedError, ValueError)
    assert issubclass(NotFittedError, AttributeError)
    for loaded in {}, {"sklearn.exceptions": SimpleNamespace(NotFittedError=type("Theirs", (ValueError,), {}))}:
        monkeypatch.delitem(sys.modules, "sklearn.exceptions", raising=False)
        for name, module in loaded.items():
            monkeypatch.setitem(sys.modules, name, module)
        with pytest.raises(NotFittedError) as caught:
            PPCA().sample(2)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_base_class_defines_no_model():
    assert Estimator.__abstractmethods__ == {"train", "sample", "elbo"}


# --- training ---------------------------------------------------------------------------------------------


@every_model
def test_fit_is_train_to_the_end(cls):
    fitted, trained = small(cls).fit(data()), small(cls)
    states = list(trained.train(data()))
    assert draws(fitted) == draws(trained)
    assert all(isinstance(state, Progress) for state in states)
    assert [state.step for state in states] == list(range(1, len(states) + 1))
    assert len({state.n_steps for state in states}) == 1
    assert len(states) <= states[0].n_steps
    assert all(isinstance(state.loss, float) and np.isfinite(state.loss) for state in states)


@every_model
def test_model_is_usable_after_any_step(cls, tmp_path):
    model = small(cls)
    said = set()
    for state in model.train(data()):
        assert model.sample(2, rng=0).shape == (2, 3)
        assert np.isfinite(model.elbo(data(), rng=0)).all()
        assert len(getattr(model, "losses_", range(state.step))) == state.step
        path = tmp_path / f"{state.step}.npz"
        model.save(path)
        said.add(draws(model))
        assert draws(cls.load(path)) == draws(model)
    assert len(said) == state.step  # every step changed the model


@every_model
def test_using_a_model_does_not_disturb_its_training(cls):
    watched, alone = small(cls), small(cls)
    for _ in watched.train(data()):
        draws(watched)
    assert draws(watched) == draws(alone.fit(data()))


@every_model
def test_same_seed_same_bytes(cls):
    a, b, other = small(cls).fit(data()), small(cls).fit(data()), small(cls, rng=1).fit(data())
    assert draws(a) == draws(b)
    assert draws(a) != draws(other)
    assert draws(a.fit(data())) == draws(b)  # a second fit starts again from the seed
    assert a.sample(5, rng=0).tobytes() != a.sample(5, rng=1).tobytes()


@every_model
def test_generator_is_used_and_advanced(cls):
    rng = np.random.default_rng(0)
    a, b = small(cls, rng=rng).fit(data()), small(cls, rng=rng).fit(data())
    assert draws(a) == draws(small(cls, rng=0).fit(data()))
    assert draws(a) != draws(b)
    first, second = a.sample(5, rng=rng), a.sample(5, rng=rng)
    assert (first != second).any()


@pytest.mark.filterwarnings("ignore:components .* have collapsed")  # at some starts, which no seed fixes
@every_model
def test_without_a_seed_two_fits_differ(cls):
    a, b = small(cls, rng=None).fit(data()), small(cls, rng=None).fit(data())
    assert a.sample(5).tobytes() != a.sample(5).tobytes()
    assert draws(a) != draws(b) or cls is GaussianMixture  # GaussianMixture starts at rows of x, which may be equal


@every_model
def test_global_random_state_is_neither_used_nor_changed(cls, tmp_path):
    def everything(seed):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = repr(np.random.get_state()), random.getstate()  # noqa: NPY002
        model = small(cls).fit(data())
        model.save(tmp_path / f"{seed}.npz")
        said = draws(model) + draws(cls.load(tmp_path / f"{seed}.npz"))
        small(cls, rng=None).fit(data()).sample(3)
        assert (repr(np.random.get_state()), random.getstate()) == before  # noqa: NPY002
        return said

    assert everything(0) == everything(1)


@every_model
def test_data_are_not_changed(cls):
    x = data()
    before = x.tobytes()
    x.setflags(write=False)
    draws(small(cls).fit(x))
    assert x.tobytes() == before


@every_model
def test_score_is_the_mean_log_prob_or_the_elbo_with_the_models_rng(cls):
    model = small(cls).fit(data())
    expected = model.log_prob(data()) if cls in WITH_LOG_PROB else model.elbo(data(), rng=0)
    assert model.score_samples(data()).tobytes() == expected.tobytes()
    assert model.score_samples(data()).shape == (40,)
    assert model.score(data(), np.zeros(40)) == float(expected.mean())
    assert isinstance(model.score(data()), float)


# --- what comes in ----------------------------------------------------------------------------------------

HOLE = data().astype(object)
HOLE[3, 1] = np.nan
BAD_DATA = {
    "1-D": (data()[:, 0], ValueError, r"x must have shape \(N, D\), got shape \(40,\)"),
    "3-D": (data()[None], ValueError, r"x must have shape \(N, D\), got shape \(1, 40, 3\)"),
    "number": (3.0, ValueError, r"x must have shape \(N, D\), got shape \(\)"),
    "NaN": (HOLE.astype(float), ValueError, r"x must be finite, but x\[3, 1\] is nan"),
    "infinite": (np.full((40, 3), np.inf), ValueError, r"x must be finite, but x\[0, 0\] is inf"),
    "complex": (data() + 0j, ValueError, "x must be a real array, got dtype complex128"),
    "words": (np.full((40, 3), "a"), TypeError, "x must be a real array, got dtype <U1"),
    "objects": (np.full((40, 3), {}), TypeError, "x must be a real array, got dtype object"),
    "a hole": (HOLE, ValueError, r"x must be finite, but x\[3, 1\] is nan"),
    "ragged": ([[1.0, 2.0, 3.0], [4.0]], ValueError, "x must be a rectangular array"),
    "empty": (data()[:0], ValueError, r"x must have at least \d row"),
    "no columns": (data()[:, :0], ValueError, "x must have at least"),
}


@every_model
@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_are_refused_by_name(cls, kind):
    x, error, words = BAD_DATA[kind]
    if kind in ("NaN", "a hole") and cls in (GaussianMixture, PPCA):
        return  # missing values, see test_missing_values.py
    with pytest.raises(error, match=words):
        small(cls).fit(x)
    model = small(cls).fit(data())
    for verb in "elbo", "score_samples":
        with pytest.raises(error, match=words):
            getattr(model, verb)(x)


@every_model
@pytest.mark.parametrize("value", [1e160, -1e61])
def test_a_number_whose_square_overflows_is_an_error_of_every_verb(cls, value):
    """In training and for new data; the result would be NaN, or −∞."""
    model, x = small(cls).fit(data()), data()
    x[5, 1] = value
    verbs = ("fit", "elbo", "log_prob", "score", "score_samples", "encode", "reconstruct", "iwae", "bound_terms")
    verbs += ("noise_losses", "predict_proba", "predict")
    for verb in verbs:
        if hasattr(model, verb):
            with pytest.raises(
                ValueError, match=r"^(x|x_t) must hold numbers of size 1e\+60 at most, .* \1\[5, 1\] is "
            ):
                getattr(model, verb)(x)
    if cls is GaussianMixture:
        for call in model.mixture_.score, lambda x: model.mixture_.denoise(x, 0.6, 0.8):
            with pytest.raises(ValueError, match=r"^(x|x_t) must hold numbers of size"):
                call(x)


def test_a_mixture_of_tables_refuses_such_a_number_as_well():
    model, x = CategoricalMixture(2, 4, rng=0).fit(LEVELS), LEVELS.astype(float)
    x[5, 1] = 1e160
    for verb in "fit", "elbo", "log_prob", "score", "predict_proba":
        with pytest.raises(ValueError, match=r"^(x|x_t) must hold numbers of size"):
            getattr(model, verb)(x)
    with pytest.raises(ValueError, match=r"^(x|x_t) must hold numbers of size"):
        model.denoise(x, 0.6, 0.8)


@at_floor
@every_model
@pytest.mark.parametrize("value", [1e59, 1e37, 1e17])
def test_no_verb_returns_nan_for_a_number_that_is_accepted(cls, value):
    """An outlier in training and in new data: a finite answer, or an error that says what to do."""
    x = data()
    x[5, 1] = value
    options = {"n_components": 1} if cls is PPCA else {}
    models = [small(cls).fit(data())]
    try:
        models.append(small(cls, **options).fit(x))
    except ValueError as error:
        assert cls is PPCA
        assert "lies in a space of at most 1 dimension," in str(error)  # noqa: PT017
    answers = 0
    for model in models:
        for verb in "elbo", "log_prob", "score", "encode", "iwae", "bound_terms", "reconstruct":
            if hasattr(model, verb):
                try:
                    answer = getattr(model, verb)(x)
                except (ValueError, ArithmeticError) as error:
                    assert "; drop fill values" in str(error)  # noqa: PT017
                    continue
                answers += 1
                for part in answer if isinstance(answer, tuple) else (answer,):
                    assert np.isfinite(part).all()
    assert answers >= (0 if cls in (VAE, LinearVAE) else 2)


@pytest.mark.parametrize("cls", [VAE, LinearVAE, DDPM, ScoreSDE])
def test_a_number_too_large_for_the_networks_units_is_refused_in_training_and_after(cls):
    """float32 squares overflow from 1e19 on; with standardize=True the unit is the scale of the training data."""
    x, far = data(), data()
    far[5, 1] = 2e16
    with pytest.raises(
        ValueError, match=r"^x must lie within 1e\+15 units of the model, 1e\+15, .* x\[5, 1\] is 2e\+16;"
    ):
        small(cls, standardize=False).fit(far)
    for standardize in True, False:
        model = small(cls, standardize=standardize).fit(1e-3 * x)
        with pytest.raises(ValueError, match=r"^x must lie within 1e\+15 units of the model, .* x\[5, 1\] is "):
            model.elbo(far)
    assert np.isfinite(small(cls, standardize=True).fit(far).sample(3, rng=0)).all()


@every_model
def test_another_number_of_columns_is_refused(cls):
    model = small(cls).fit(data())
    for verb in "elbo", "score_samples":
        with pytest.raises(ValueError, match="x must have 3 columns, as the model has, got 2"):
            getattr(model, verb)(data()[:, :2])


@every_model
def test_lists_integers_and_float32_are_accepted_as_data(cls):
    whole = np.round(4 * data()).astype(int)
    reference = draws(small(cls).fit(whole.astype(float)))
    assert draws(small(cls).fit(whole)) == reference
    assert draws(small(cls).fit(whole.tolist())) == reference
    single = small(cls).fit(data().astype(np.float32))
    # The first gradients of a linear VAE are 0 up to rounding, and Adam uses their sign only.
    tolerance = 1e-2 if cls is LinearVAE else 1e-3
    assert residual(single.elbo(data(), rng=0), small(cls).fit(data()).elbo(data(), rng=0)) < tolerance


@every_model
def test_sample_takes_a_count_from_0(cls):
    model = small(cls).fit(data())
    for n in 0, 1, 7, np.int64(2):
        assert model.sample(n, rng=0).shape == (n, 3)
    for n, error in (-1, ValueError), (2.0, TypeError), (True, TypeError), (None, TypeError):
        with pytest.raises(error, match="n must be"):
            model.sample(n, rng=0)


@every_model
def test_a_bad_rng_is_refused(cls):
    model = small(cls).fit(data())
    for rng, error in (-1, ValueError), (0.5, TypeError), (True, TypeError):
        with pytest.raises(error, match="rng must be"):
            model.sample(3, rng=rng)
        with pytest.raises(error, match="rng must be"):
            small(cls, rng=rng).fit(data())


BAD_PARAMETERS = [
    (cls, name, value)
    for cls, bad in {
        GaussianMixture: {"n_components": 0, "tol": -1.0, "max_iter": -1, "n_init": 0, "covariance_floor": 0.0},
        PPCA: {"n_components": 3, "method": "magic", "tol": -1.0, "max_iter": 0},
        FactorAnalysis: {"n_components": 0, "tol": -1.0, "max_iter": 0, "noise_floor": 0.0},
        LinearVAE: {"n_latents": 0, "decoder_variance": 0.0, "kl_weight": -1.0, "n_steps": 0, "learning_rate": 0.0},
        VAE: {"n_latents": 0, "hidden": (0,), "decoder_hidden": (0,), "activation": "relu", "decoder_variance": 0.0,
              "kl_weight": -1.0, "n_steps": 0, "batch_size": 0, "learning_rate": 0.0, "dtype": "float16"},
        DDPM: {"hidden": (0,), "n_coordinate_features": -1, "n_steps": 0, "batch_size": 0, "learning_rate": 0.0,
               "ema_decay": 1.0, "label_dropout": 1.5, "n_classes": -1, "prediction": "none", "weighting": "none",
               "step_choice": "none", "variance": "none", "n_levels": 1},
        ScoreSDE: {"weighting": "none", "hidden": (0,), "n_coordinate_features": -1, "n_steps": 0, "batch_size": 0,
                   "learning_rate": 0.0, "ema_decay": 1.0, "n_sample_steps": 0, "time_choice": "none",
                   "matching": "none", "directions": "none", "prediction": "none", "t_min": 2.0},
    }.items()
    for name, value in bad.items()
]  # fmt: skip


@pytest.mark.parametrize(("cls", "name", "value"), BAD_PARAMETERS)
def test_bad_parameters_are_refused_by_name_and_leave_the_last_fit_as_it_was(cls, name, value):
    model, unfitted = small(cls), small(cls, **{name: value})
    samples, right = draws(model.fit(data())), getattr(model, name)
    for bad in unfitted, model.set_params(**{name: value}):
        with pytest.raises(ValueError, match=rf"^{name}(\[0\])? must be"):
            bad.fit(data())
    assert draws(model.set_params(**{name: right})) == samples
    with pytest.raises(NotFittedError):
        unfitted.sample(3)


# --- files ------------------------------------------------------------------------------------------------


def advanced_generator():
    rng = np.random.default_rng(5)
    rng.random(3)
    return rng


SAVED = {
    "mixture": lambda: small(GaussianMixture, n_init=2),
    "mixture with arrays": lambda: small(
        GaussianMixture, means_init=data(2), weights_init=np.array([0.3, 0.7], dtype=np.float32), rng=np.int64(3)
    ),
    "mixture with lists": lambda: small(GaussianMixture, means_init=data(2).tolist(), weights_init=[0.25, 0.75]),
    "mixture, tied": lambda: small(GaussianMixture, covariance_type="tied", covariance_prior=(0.1, 2.0)),
    "mixture, diag": lambda: small(GaussianMixture, covariance_type="diag"),
    "mixture, spherical": lambda: small(GaussianMixture, covariance_type="spherical"),
    "PPCA": lambda: small(PPCA),
    "PPCA closed": lambda: PPCA(2),
    "FactorAnalysis": lambda: small(FactorAnalysis),
    "LinearVAE": lambda: small(LinearVAE, decoder_variance="diag"),
    "VAE": lambda: small(VAE),
    "VAE with its own decoder": lambda: small(VAE, decoder_hidden=(3, 5), dtype="float64", batch_size=None),
    "VAE with Generator": lambda: small(VAE, rng=advanced_generator(), decoder_variance=np.float64(0.1)),
    "DDPM": lambda: small(DDPM),
    "DDPM default schedule": lambda: small(DDPM, schedule=None, n_coordinate_features=1),
    "DDPM with array": lambda: small(DDPM, variance=NoiseSchedule.linear(5).beta ** 2 / 3, standardize=False),
    "ScoreSDE": lambda: small(ScoreSDE),
    "ScoreSDE VP": lambda: small(ScoreSDE, sde=VP(0.2, 15.0, 2.0), hidden=[4, 4]),
    "ScoreSDE sub-VP": lambda: small(ScoreSDE, sde=SubVP(), weighting="noise"),
    "ScoreSDE VE": lambda: small(ScoreSDE, sde=VE(0.01, 30.0)),
    "CategoricalMixture": lambda: CategoricalMixture(2, n_levels=4, max_iter=4, rng=0),
    "DDPM of levels": lambda: small(DDPM, prediction="levels", n_levels=4, rng=0),
    "ScoreSDE of levels": lambda: small(ScoreSDE, prediction="levels", n_levels=4, rng=0),
    "VAE of levels": lambda: small(VAE, n_levels=4, rng=0),
}


@pytest.mark.parametrize("kind", SAVED)
def test_save_and_load_lose_no_bit(kind, tmp_path):
    model = SAVED[kind]()
    x = data() if getattr(model, "n_levels", None) is None else LEVELS
    model.fit(x)
    path = tmp_path / "model.npz"
    model.save(path)
    loaded = type(model).load(str(path))
    for name, value in model.get_params().items():
        value = value.item() if isinstance(value, np.generic) else value
        assert same(value, loaded.get_params()[name]), name
    for name in ("n_features_in_", *model._fitted):
        assert np.asarray(getattr(loaded, name)).tobytes() == np.asarray(getattr(model, name)).tobytes(), name
        assert np.ndim(getattr(loaded, name)) == np.ndim(getattr(model, name)), name
    assert draws(loaded, x) == draws(model, x)
    again = tmp_path / "again.npz"
    loaded.save(again)
    assert draws(type(model).load(again), x) == draws(model, x)


@pytest.mark.parametrize(
    "bits", [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]
)
def test_any_generator_can_be_saved_and_goes_on_where_it_was(bits, tmp_path):
    model = PPCA(2, method="em", max_iter=2, rng=np.random.Generator(bits(0))).fit(data())
    model.save(tmp_path / "model.npz")
    loaded = PPCA.load(tmp_path / "model.npz")
    assert draws(loaded.fit(data())) == draws(model.fit(data()))


def test_processes_with_numpy_numbers_can_be_saved(tmp_path):
    sde = VE(np.float32(0.01), np.int64(30))
    model = small(ScoreSDE, sde=sde).fit(data())
    model.save(tmp_path / "model.npz")
    assert ScoreSDE.load(tmp_path / "model.npz").sde == sde


@every_model
def test_fitted_attributes_are_the_whole_model(cls):
    model, twin = small(cls).fit(data()), small(cls)
    assert twin.set_fitted(**{name: getattr(model, name) for name in ("n_features_in_", *cls._fitted)}) is twin
    assert draws(twin) == draws(model)


@every_model
def test_loaded_model_can_be_trained_again(cls, tmp_path):
    model = small(cls).fit(data())
    model.save(tmp_path / "model.npz")
    loaded = cls.load(tmp_path / "model.npz")
    assert draws(loaded.fit(data(30))) == draws(model.fit(data(30)))


def test_every_class_refuses_the_files_of_the_others(tmp_path):
    for cls in MODELS:
        small(cls).fit(data()).save(tmp_path / cls.__name__)
    for cls in MODELS:
        for other in MODELS:
            if other is not cls:
                words = f"holds a {other.__name__}, not a {cls.__name__}; use {other.__name__}.load"
                with pytest.raises(ValueError, match=words):
                    cls.load(tmp_path / other.__name__)


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        PPCA.load(tmp_path / "none.npz")
    np.savez(tmp_path / "array.npz", x=data())
    with pytest.raises(ValueError, match=r"array.npz is not a model saved by scratchgen"):
        PPCA.load(tmp_path / "array.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY"])
def test_load_refuses_files_that_are_no_saved_models(content, tmp_path):
    (tmp_path / "model.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a model saved by scratchgen"):
        PPCA.load(tmp_path / "model.npz")
    np.save(tmp_path / "array.npy", data())
    with pytest.raises(ValueError, match="not a model saved by scratchgen"):
        PPCA.load(tmp_path / "array.npy")


@dataclass(frozen=True)
class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@every_model
def test_files_hold_no_pickle_and_none_is_loaded(cls, tmp_path):
    path = tmp_path / "model.npz"
    small(cls).fit(data()).save(path)
    with zipfile.ZipFile(path) as archive:
        assert all(b"|O" not in archive.read(name)[:128] for name in archive.namelist())
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert json.loads(str(arrays["header"]))["class"] == cls.__name__
    for name in "header", cls._fitted[0]:
        np.savez(tmp_path / "bomb.npz", **{**arrays, name: np.array(Bomb(), dtype=object)})
        with pytest.raises(ValueError, match="allow_pickle"):
            cls.load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    "crafted",
    [
        {"object": ["scratchgen.models.files", "write_atomically"], "fields": {}},
        {"object": ["scratchgen.datasets", "digits"], "fields": {}},
        {"object": ["scratchgen.models.files", "Path"], "fields": {}},
        {"object": ["os", "getcwd"], "fields": {}},
        {"object": ["pstats", "FunctionProfile"], "fields": {}},
        {"generator": {"dict": {"bit_generator": "seed"}}},
        {"generator": {"dict": {"bit_generator": "default_rng"}}},
        {"generator": {"dict": {"bit_generator": "Generator"}}},
    ],
    ids=lambda crafted: str(next(iter(crafted.values()))),
)
def test_load_builds_parameters_and_calls_nothing_else(crafted, tmp_path):
    """A parameter in a file is a number, an array, an object of the package or a bit generator, never code."""
    path = tmp_path / "model.npz"
    small(PPCA).fit(data()).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    header["params"]["rng"] = crafted
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    before = repr(np.random.get_state())  # noqa: NPY002
    with pytest.raises(ValueError):
        PPCA.load(path)
    assert repr(np.random.get_state()) == before  # noqa: NPY002


@every_model
def test_objects_are_refused_rather_than_pickled(cls, tmp_path):
    model = small(cls).set_params(rng=Bomb())
    fitted = small(cls).fit(data())
    model.set_fitted(**{name: getattr(fitted, name) for name in ("n_features_in_", *cls._fitted)})
    with pytest.raises(TypeError, match="rng cannot be saved, since its type is Bomb; fit with"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


@every_model
def test_save_writes_the_arguments_of_the_fit(cls, tmp_path):
    """`set_params` changes the next fit; a file holds the arguments that belong to its numbers."""
    model = small(cls).fit(data())
    before = model.get_params()
    size = "n_latents" if cls in (VAE, LinearVAE) else "hidden" if cls in (DDPM, ScoreSDE) else "n_components"
    model.set_params(**{size: (5, 7, 5) if size == "hidden" else 17})
    model.save(tmp_path / "model.npz")
    loaded = cls.load(tmp_path / "model.npz")
    assert same(loaded.get_params()[size], before[size])
    assert draws(loaded) == draws(small(cls).fit(data()))


@every_model
def test_save_replaces_a_file_only_when_told(cls, tmp_path):
    first, second, path = small(cls).fit(data()), small(cls, rng=1).fit(data()), tmp_path / "model.npz"
    first.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"model.npz exists; pass overwrite=True"):
        second.save(path)
    assert path.read_bytes() == before
    second.save(path, overwrite=True)
    assert draws(cls.load(path)) == draws(second)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["numpy.savez_compressed", "os.replace"])
def test_save_is_all_or_nothing(error, place, monkeypatch, tmp_path):
    model, path = small(PPCA).fit(data()), tmp_path / "model.npz"

    def half(file, *args, **kwargs):
        if hasattr(file, "write"):
            file.write(b"half a model")
        raise error

    monkeypatch.setattr(place, half)
    if place == "os.replace":
        monkeypatch.setattr("os.link", half)  # of a file that must not exist yet
    with pytest.raises(type(error)):
        model.save(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"the old file")
    with pytest.raises(type(error)):
        model.save(path, overwrite=True)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_save_uses_the_very_path_it_was_given(tmp_path):
    model = small(PPCA).fit(data())
    model.save(str(tmp_path / "no suffix"))
    assert draws(PPCA.load(tmp_path / "no suffix")) == draws(model)
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "no folder" / "model.npz")


def test_saved_file_has_the_usual_permissions(tmp_path):
    small(PPCA).fit(data()).save(tmp_path / "model.npz")
    (tmp_path / "plain").touch()
    assert (tmp_path / "model.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode
