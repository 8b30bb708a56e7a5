"""Names of columns: remembered by fit, checked by every verb, written to files, and the columns of sampled frames."""

import copy
import inspect
import json
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    NoiseSchedule,
    ScoreSDE,
    to_ddpm,
    to_sde,
)
from scratchgen.models.estimator import NotFittedError, framed
from scratchgen.models.files import LARGEST_HEADER, ModelFileError
from scratchgen.validation import as_samples, check_columns, column_names
from tests.frames import NA, Frame

X = np.random.default_rng(7).standard_normal((40, 3)) * [3, 1, 0.5] + [5, 0, -2]
LEVELS = np.random.default_rng(8).integers(0, 4, (40, 3)).astype(np.float64)
NAMES = ("length", "width", "depth")
SMALL = {"hidden": (4,), "n_steps": 3, "rng": 0}
MODELS = {
    "GaussianMixture": (lambda: GaussianMixture(2, max_iter=3, rng=0), X),
    "CategoricalMixture": (lambda: CategoricalMixture(2, n_levels=4, max_iter=3, rng=0), LEVELS),
    "PPCA": (lambda: PPCA(2), X),
    "PPCA by EM": (lambda: PPCA(2, method="em", max_iter=3, rng=0), X),
    "FactorAnalysis": (lambda: FactorAnalysis(1, max_iter=3, rng=0), X),
    "VAE": (lambda: VAE(2, **SMALL), X),
    "VAE of levels": (lambda: VAE(2, n_levels=4, **SMALL), LEVELS),
    "LinearVAE": (lambda: LinearVAE(1, n_steps=3, rng=0), X),
    "DDPM": (lambda: DDPM(NoiseSchedule.linear(5), **SMALL), X),
    "DDPM of levels": (lambda: DDPM(NoiseSchedule.linear(5), n_levels=4, prediction="levels", **SMALL), LEVELS),
    "ScoreSDE": (lambda: ScoreSDE(n_sample_steps=3, t_min=0.1, **SMALL), X),
    "ScoreSDE of levels": (lambda: ScoreSDE(n_sample_steps=3, n_levels=4, **SMALL), LEVELS),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def fitted(kind, names=NAMES):
    """The model of a kind, fitted to a frame with these names, or to an array for None."""
    build, x = MODELS[kind]
    return build().fit(x if names is None else Frame(x, names))


def remembered(model):
    return list(model.feature_names_in_)


# --- training ----------------------------------------------------------------------------------------------


@every_model
def test_a_fit_to_a_frame_has_the_numbers_of_the_array_and_remembers_the_names(kind):
    model, plain = fitted(kind), fitted(kind, names=None)
    assert model.feature_names_in_.shape == (model.n_features_in_,)
    assert model.feature_names_in_.dtype == object  # as scikit-learn's
    assert remembered(model) == list(NAMES)
    assert model.sample(4, rng=1).tobytes() == plain.sample(4, rng=1).tobytes()
    assert not hasattr(plain, "feature_names_in_")
    with pytest.raises(NotFittedError):
        _ = MODELS[kind][0]().feature_names_in_


@every_model
def test_names_are_there_after_the_first_step_and_belong_to_the_last_fit(kind):
    build, x = MODELS[kind]
    model = build()
    next(model.train(Frame(x, NAMES)))
    assert remembered(model) == list(NAMES)
    assert remembered(model.fit(Frame(x, "abc"))) == ["a", "b", "c"]
    assert not hasattr(model.fit(x), "feature_names_in_")
    assert not hasattr(model.fit(Frame(x)), "feature_names_in_")  # its names are 0, 1, 2


@every_model
def test_a_fit_that_fails_keeps_names_and_numbers(kind):
    model = fitted(kind)
    before = model.sample(4, rng=1).tobytes()
    with pytest.raises(ValueError, match="finite"):
        model.fit(Frame(np.where(MODELS[kind][1] > 2, np.nan, 0.0), "abc"))
    assert remembered(model) == list(NAMES)
    assert model.sample(4, rng=1).tobytes() == before


def test_a_first_step_that_fails_restores_the_names(monkeypatch):
    def failing(*args, **kwargs):
        raise ArithmeticError("planted")
        yield 0.0

    for kind in "VAE", "LinearVAE", "DDPM", "ScoreSDE":
        model = fitted(kind)
        monkeypatch.setattr(f"{type(model)._loop.__globals__['__name__'].replace('linear_vae', 'vae')}.train", failing)
        with pytest.raises(ArithmeticError, match="planted"):
            model.fit(Frame(X, "abc"))
        assert remembered(model) == list(NAMES)
        monkeypatch.undo()
        assert remembered(model.fit(Frame(X, "abc"))) == ["a", "b", "c"]


def test_a_warm_start_is_refused_for_other_columns():
    model = GaussianMixture(2, max_iter=3, warm_start=True, rng=0).fit(Frame(X, NAMES))
    with pytest.raises(ValueError, match="same order"):
        model.fit(Frame(X[:, ::-1], NAMES[::-1]))
    assert remembered(model) == list(NAMES)
    assert remembered(model.fit(Frame(X, NAMES))) == list(NAMES)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["a", "b", "a"], ValueError, "x must have a different name for every column, but 'a' occurs twice"),
        (["a", "b", 3], TypeError, r"\['int', 'str'\].*x.columns = x.columns.astype\(str\)"),
        (["a", None, "b"], TypeError, r"\['NoneType', 'str'\]"),
    ],
)
@every_model
def test_odd_names_are_refused_by_fit_and_verbs(kind, names, error, message):
    build, x = MODELS[kind]
    for call in build().fit, fitted(kind).score_samples, fitted(kind, names=None).elbo:
        with pytest.raises(error, match=message):
            call(Frame(x, names))


@pytest.mark.parametrize("names", [[0, 1, 2], [("a", 1), ("a", 2), ("b", 1)], [0, 1.5, None]])
def test_names_that_are_no_text_are_no_names(names):
    assert column_names(Frame(X, names)) is None
    assert not hasattr(PPCA(1).fit(Frame(X, names)), "feature_names_in_")
    assert fitted("PPCA").log_prob(Frame(X, names)).tobytes() == fitted("PPCA").log_prob(X).tobytes()


def test_things_with_an_attribute_columns_that_are_no_frames():
    records = np.array([("a",), ("b",)], dtype=[("columns", "U1")]).view(np.recarray)
    assert column_names(records) is None
    assert column_names(SimpleNamespace(columns=lambda: ["a"])) is None
    assert column_names([["a"]]) is None


# --- verbs -------------------------------------------------------------------------------------------------

TRAINING = {"fit", "train", "resume", "fit_predict", "to_data"}  # `to_data` takes x in the model's units


def verbs(model):
    """Names of the public methods that take x in units of the data."""
    methods = inspect.getmembers(model, inspect.ismethod)
    return {
        name
        for name, f in methods
        if name[0] != "_" and "x" in inspect.signature(f).parameters and name not in TRAINING
    }


@every_model
def test_a_training_resumes_with_the_names_of_its_beginning(kind):
    """An array resumes as well as a frame; a frame with other columns is refused."""
    build, x = MODELS[kind]
    model = build()
    steps = model.train(Frame(x, NAMES))
    next(steps)
    if model.training_state_ is None:  # PPCA's closed form has no second step
        return
    with pytest.raises(ValueError, match="feature names"):
        copy.deepcopy(model).resume(Frame(x, NAMES[::-1]))
    for same in (x, Frame(x, NAMES)):
        assert tuple(copy.deepcopy(model).resume(same).feature_names_in_) == tuple(NAMES)


def test_the_table_of_verbs_is_whole():
    found = set().union(*(verbs(fitted(kind)) for kind in MODELS))
    likelihoods = {"aic", "bic", "bound_terms", "elbo", "iwae", "log_prob", "noise_losses", "score", "score_samples"}
    assert found >= likelihoods | {"encode", "predict", "predict_proba", "reconstruct", "to_model"}


def answer(model, verb, x):
    call = getattr(model, verb)
    result = call(x, rng=0) if "rng" in inspect.signature(call).parameters else call(x)
    return b"".join(np.asarray(part).tobytes() for part in (result if isinstance(result, tuple) else (result,)))


@every_model
def test_every_verb_checks_the_names(kind):
    model, x = fitted(kind), MODELS[kind][1][:5]
    plain = fitted(kind, names=None)
    for verb in verbs(model) - ({"log_prob"} if kind == "ScoreSDE of levels" else set()):
        expected = answer(plain, verb, x)
        assert answer(model, verb, Frame(x, NAMES)) == expected, verb
        assert answer(model, verb, x) == expected, verb  # an array has no names
        assert answer(plain, verb, Frame(x, "abc")) == expected, verb  # the model has no names
        for frame, message in [
            (Frame(x[:, ::-1], NAMES[::-1]), "Feature names must be in the same order as they were in fit"),
            (Frame(x[:, :2], NAMES[:2]), "Feature names seen at fit time, yet now missing:\n- depth\n"),
            (Frame(x, ("length", "width", "Depth")), "Feature names unseen at fit time:\n- Depth\n"),
            (Frame(np.c_[x, x[:, :1]], (*NAMES, "more")), "Feature names unseen at fit time:\n- more\n"),
        ]:
            with pytest.raises(ValueError, match=re.escape(message)):
                answer(model, verb, frame)


def test_the_message_names_the_columns_and_the_remedy():
    with pytest.raises(ValueError, match="x must have the columns of fit") as error:
        check_columns(("a", "b", "c", "d", "e", "f", "g"), ("g", "h"))
    assert str(error.value).splitlines()[1:] == [
        "Feature names unseen at fit time:", "- a", "- b", "- c", "- d", "- e", "- ...",
        "Feature names seen at fit time, yet now missing:", "- h",
        "Pass x[list(model.feature_names_in_)], or x.to_numpy() if the same columns have other names",
    ]  # fmt: skip


def test_names_pass_on_to_models_with_the_same_network():
    ddpm = fitted("DDPM")
    for model in ddpm.respace(2), to_sde(ddpm), to_ddpm(fitted("ScoreSDE"), 4), ddpm.share_network_with(ScoreSDE()):
        assert remembered(model) == list(NAMES)
        with pytest.raises(ValueError, match="same order"):
            model.elbo(Frame(X, NAMES[::-1]))
    plain = fitted("DDPM", names=None)
    assert not hasattr(plain.share_network_with(fitted("ScoreSDE")), "feature_names_in_")


# --- files -------------------------------------------------------------------------------------------------

ODD = [
    NAMES,
    ("", " ", "\n"),
    ("a\0", "a", "\0"),
    ("\ud800", "λ", "🜁"),
    ("a" * 10**5, "a" * (10**5 - 1), "b"),
    ("header", "params", "null"),
]


@every_model
def test_files_keep_the_names(kind, tmp_path):
    for names in ODD if kind == "PPCA" else ODD[:1]:
        model = fitted(kind, names)
        model.save(tmp_path / "model.npz", overwrite=True)
        loaded = type(model).load(tmp_path / "model.npz")
        assert remembered(loaded) == list(names)
        for same in pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model):
            assert remembered(same) == list(names)
        with pytest.raises(ValueError, match="same order"):
            loaded.elbo(Frame(MODELS[kind][1], names[::-1]))
    fitted(kind, names=None).save(tmp_path / "plain.npz")
    assert not hasattr(type(model).load(tmp_path / "plain.npz"), "feature_names_in_")


def test_names_longer_than_a_file_may_hold_are_refused_by_save(tmp_path):
    model = fitted("PPCA", ("a", "b", "c" * LARGEST_HEADER))
    with pytest.raises(ValueError, match=r"column names take .* shorter names"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "names",
    [[], ["a", "b"], ["a", "b", "b"], ["a", "b", 3], ["a", "b", None], [["a"], "b", "c"], "abc", {"a": 1}, 3, False],
)
def test_names_that_no_fit_gives_are_refused_by_load(names, tmp_path):
    path = tmp_path / "model.npz"
    fitted("PPCA").save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    assert header["feature_names"] == list(NAMES)
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header | {"feature_names": names}))})
    with pytest.raises(ModelFileError, match="feature_names"):
        PPCA.load(path)
    del header["feature_names"]
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    with pytest.raises(ModelFileError, match="feature_names"):
        PPCA.load(path)


# --- samples as a frame ------------------------------------------------------------------------------------


@pytest.fixture
def pandas(monkeypatch):
    """A module of this name with a stand-in for its DataFrame."""

    class DataFrame:
        def __init__(self, data, columns=None):
            self.data, self.columns = data, columns

    module = SimpleNamespace(DataFrame=DataFrame)
    monkeypatch.setitem(sys.modules, "pandas", module)
    return module


@every_model
def test_sample_returns_a_frame_of_the_same_numbers(kind, pandas):
    for names in NAMES, None:
        model = fitted(kind, names)
        frame, array = model.sample(4, rng=1, as_frame=True), model.sample(4, rng=1, as_frame=False)
        assert type(frame) is pandas.DataFrame
        assert frame.data.tobytes() == array.tobytes()
        assert frame.data.dtype == array.dtype
        assert frame.columns == names  # pandas numbers the columns for None
        assert model.sample(0, as_frame=True).data.shape == (0, 3)
    as_frame = inspect.signature(model.sample).parameters["as_frame"]
    assert (as_frame.kind, as_frame.default) == (inspect.Parameter.KEYWORD_ONLY, False)


@every_model
def test_without_pandas_nothing_is_drawn(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # importing it fails
    rng = np.random.default_rng(0)
    with pytest.raises(ModuleNotFoundError, match="as_frame=True needs pandas; pip install pandas, or pass False"):
        fitted(kind).sample(4, rng, as_frame=True)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    for wrong in 1, "yes", None, [True]:
        with pytest.raises(TypeError, match="as_frame must be True or False"):
            fitted(kind).sample(4, as_frame=wrong)


def test_an_unfitted_model_says_so(pandas):
    with pytest.raises(NotFittedError):
        PPCA().sample(2, as_frame=True)


def test_labels_beside_x_stay_an_array(pandas):
    @framed
    def sample(model, n, *, as_frame=False):
        return X[:n], np.arange(n)

    x, labels = sample(fitted("PPCA"), 3, as_frame=True)
    assert (x.columns, labels.tolist()) == (NAMES, [0, 1, 2])
    assert x.data.tobytes() == X[:3].tobytes()
    assert isinstance(sample(fitted("PPCA"), 3)[0], np.ndarray)


# --- elements of frames ------------------------------------------------------------------------------------


def with_column(values, name="z"):
    """A frame of 40 rows whose last column has these objects."""
    column = np.empty((40, 1), dtype=object)
    column[:, 0] = values
    return Frame(np.hstack([X.astype(object), column]), (*NAMES, name))


@pytest.mark.parametrize(
    "values", [[1] * 40, [True, False] * 20, [np.float32(0.5)] * 40, [np.int8(1)] * 40], ids=["int", "bool", "f4", "i1"]
)
def test_objects_that_are_numbers_are_accepted(values):
    array = as_samples(with_column(values))
    assert array.dtype == np.float64
    assert array.tolist() == np.c_[X, np.array(values, dtype=np.float64)].tolist()


@pytest.mark.parametrize("kind", [kind for kind in MODELS if not kind.startswith(("GaussianMixture", "PPCA"))])
def test_a_missing_value_is_refused_as_nan(kind):
    build, x = MODELS[kind]
    missing = x.astype(object)
    missing[3, 1] = NA
    for call in build().fit, fitted(kind).score_samples:
        with pytest.raises(ValueError, match=r"x must be finite, but x\[3, 1\] is nan; drop or impute NaN"):
            call(Frame(missing, NAMES))


@pytest.mark.parametrize("value", ["red", "1.5", b"1", None, 1j, [1.0], np.datetime64("2020-01-01"), {}, 10**400])
def test_other_objects_are_refused_with_the_name_of_their_column(value):
    values = np.empty(40, dtype=object)
    values[:] = 1.0
    values[7] = value
    with pytest.raises(TypeError, match=r"x must be a real array, got dtype object: .*, in column 'colour'; convert"):
        PPCA(1).fit(with_column(values, "colour"))
    with pytest.raises(TypeError, match=r"got dtype object: .*; convert") as error:
        as_samples(with_column(values).values)
    assert "column" not in str(error.value)  # an array has no names
    if isinstance(value, str):
        with pytest.raises(TypeError, match=r"got dtype <U.*, in column 'length'; convert"):
            as_samples(Frame(X.astype(str), NAMES))


@every_model
def test_masked_and_sparse_data_are_refused_by_fit_and_verbs(kind):
    build, x = MODELS[kind]
    masked = np.ma.array(x, mask=x > 2)
    for call in build().fit, fitted(kind).score_samples, fitted(kind).elbo:
        for wrong in masked, list(masked), tuple(masked), np.ma.array(x):
            with pytest.raises(TypeError, match="x must not be a masked array; drop the masked rows, or fill them"):
                call(wrong)
        with pytest.raises(TypeError, match=r"x must be a dense array.*x.toarray\(\)"):
            call(sparse.csr_array(x))


def test_masked_labels_are_refused():
    labels = np.ma.array([0, 1] * 20, mask=[False] * 40)
    model = DDPM(NoiseSchedule.linear(5), n_classes=2, **SMALL)
    for wrong in labels, list(labels.reshape(40, 1)):
        with pytest.raises(TypeError, match="y must not be a masked array"):
            model.fit(X, wrong)
    model.fit(X, labels.data)
    for call in model.elbo, model.iwae, model.bound_terms:
        with pytest.raises(TypeError, match="y must not be a masked array"):
            call(X, y=labels)
    with pytest.raises(TypeError, match="y must not be a masked array"):
        model.sample(40, y=labels)
