"""pandas frames, and scikit-learn's own check of the names of columns."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency

from scratchgen import DDPM, PPCA, CategoricalMixture, FactorAnalysis, GaussianMixture, NoiseSchedule
from scratchgen.validation import as_samples
from tests.models.test_feature_names import MODELS
from tests.oracles.test_sklearn import AS_CHECKED, SMALL
from tests.strategies import residual

NAMES = ["length", "width", "depth"]
X = np.random.default_rng(7).standard_normal((40, 3)) * [3, 1, 0.5] + [5, 0, -2]


def frame(**more):
    return pd.DataFrame(X, columns=NAMES).assign(**more)


@pytest.mark.parametrize("cls", [*SMALL, CategoricalMixture])
def test_scikit_learns_check_of_column_names(cls):
    check_dataframe_column_names_consistency(cls.__name__, cls(**(SMALL.get(cls, {}) | AS_CHECKED.get(cls, {}))))


@pytest.mark.parametrize("kind", MODELS)
def test_a_frame_comes_back_as_a_frame(kind, tmp_path):
    build, x = MODELS[kind]
    model = build().fit(pd.DataFrame(x, columns=NAMES, index=np.arange(len(x)) + 7))
    model.save(tmp_path / "model.npz")
    for known in model, type(model).load(tmp_path / "model.npz"):
        sampled = known.sample(5, rng=0, as_frame=True)
        assert isinstance(sampled, pd.DataFrame)
        assert list(sampled.columns) == NAMES
        assert list(sampled.index) == list(range(5))
        assert sampled.to_numpy().tobytes() == model.sample(5, rng=0).tobytes()
        assert known.elbo(sampled, rng=1).tobytes() == known.elbo(sampled.to_numpy(), rng=1).tobytes()
        with pytest.raises(ValueError, match="same order"):
            known.elbo(sampled[NAMES[::-1]])
        known.elbo(sampled[NAMES[::-1]][list(known.feature_names_in_)])  # the remedy of the message
    unnamed = build().fit(pd.DataFrame(x)).sample(5, rng=0, as_frame=True)
    assert isinstance(unnamed.columns, pd.RangeIndex)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, 2] * 20, dtype="Int64"),
        pd.array([1.5, 2.5] * 20, dtype="Float64"),
        pd.array([True, False] * 20, dtype="boolean"),
        [True, False] * 20,
        pd.Categorical([3, 1] * 20),
        np.arange(40, dtype=np.int8),
        np.arange(40, dtype=np.float32),
    ],
    ids=lambda column: str(getattr(column, "dtype", "bool")),
)
def test_columns_of_numbers_are_accepted(column):
    x = frame(z=column)
    expected = np.c_[X, np.asarray(column, dtype=np.float64)]
    assert as_samples(x).tobytes() == expected.tobytes()
    assert list(PPCA(1).fit(x).feature_names_in_) == [*NAMES, "z"]


@pytest.mark.parametrize(
    "column",
    [
        ["red", "green"] * 20,
        ["1.5"] * 40,
        pd.Categorical(["red", "green"] * 20),
        pd.date_range("2020", periods=40),
        pd.to_timedelta(range(40), unit="s"),
        pd.Series([pd.NaT] * 40),
        pd.period_range("2020", periods=40, freq="D"),
        pd.Series([None] * 40, dtype=object),
        pd.Series([[1.0]] * 40),
    ],
    ids=lambda column: str(getattr(column, "dtype", type(column[0]).__name__)),
)
def test_other_columns_are_refused_by_name(column):
    with pytest.raises(TypeError, match=r"x must be a real array.*in column 'colour'; convert it to numbers first"):
        PPCA(1).fit(frame(colour=column))
    with pytest.raises(TypeError, match=r"x must be a real array.*in column 'colour'; convert it to numbers first"):
        PPCA(1).fit(pd.DataFrame({"colour": column}))


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
def test_missing_values_are_nan(dtype):
    """NA of the nullable types, and None in a column of numbers, which pandas turns into NaN."""
    column = [1, None, 0, 1] * 10
    data = frame(z=pd.array(column, dtype=dtype))
    with pytest.raises(ValueError, match=r"x must be finite, but x\[1, 3\] is nan"):
        FactorAnalysis(1).fit(data)
    for model in PPCA(1), GaussianMixture(1):
        exact = model.fit(np.c_[X, np.array(column, dtype=float)]).lower_bounds_
        for same in data, frame(z=column), frame(z=column).convert_dtypes():
            assert residual(model.fit(same).lower_bounds_, exact) < 1e-12
            assert np.isfinite(model.impute(same)).all()


def test_labels_may_be_a_series():
    model = DDPM(NoiseSchedule.linear(5), n_classes=2, hidden=(4,), n_steps=3, rng=0)
    labels = pd.Series([0, 1] * 20, index=np.arange(40) + 7)
    assert model.fit(frame(), labels).losses_.tobytes() == model.fit(X, labels.to_numpy()).losses_.tobytes()
    with pytest.raises(TypeError, match="y must be a real array"):
        model.fit(frame(), labels.map({0: "a", 1: "b"}))


def test_pipelines_and_cross_validation_keep_names():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), GaussianMixture(2, rng=0)).fit(
            frame()
        )
        assert list(pipeline[-1].feature_names_in_) == NAMES
        scores = cross_val_score(GaussianMixture(2, rng=0), frame(), cv=3)
    assert np.array_equal(scores, cross_val_score(GaussianMixture(2, rng=0), X, cv=3))
