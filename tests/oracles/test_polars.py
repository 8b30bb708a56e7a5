"""polars frames: names are remembered and checked as those of pandas, and nulls are NaN."""

from datetime import date

import polars as pl
import pytest

from scratchgen import PPCA, FactorAnalysis
from scratchgen.validation import as_samples
from tests.models.test_feature_names import MODELS, NAMES
from tests.strategies import residual


@pytest.mark.parametrize("kind", MODELS)
def test_names_are_remembered_and_checked(kind):
    build, x = MODELS[kind]
    data = pl.DataFrame(x, schema=list(NAMES))
    model = build().fit(data)
    assert list(model.feature_names_in_) == list(NAMES)
    assert residual(model.elbo(data, rng=0), model.elbo(x, rng=0)) < 1e-9  # polars gives columns in Fortran's order
    with pytest.raises(ValueError, match="same order"):
        model.elbo(data[list(NAMES[::-1])])
    model.elbo(data[list(NAMES[::-1])][list(model.feature_names_in_)])  # the remedy of the message


def test_columns_of_other_types():
    data = pl.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    assert as_samples(data).tolist() == [[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]]
    with pytest.raises(TypeError, match="in column 'colour'"):
        PPCA(1).fit(data.with_columns(colour=pl.Series(["red", "green"])))
    with pytest.raises(ValueError, match=r"x\[1, 0\] is nan"):
        FactorAnalysis(1).fit(pl.DataFrame({"a": [1, None], "b": [0.5, 1.5]}))
    gaps = pl.DataFrame({"a": [1, None, 3, 2], "b": [0.5, 1.5, 1.0, 3.0]})
    assert PPCA(1).fit(gaps).mean_.tobytes() == PPCA(1).fit(gaps.to_numpy()).mean_.tobytes()
    with pytest.raises(TypeError, match="x must be a real array"):
        PPCA(1).fit(pl.DataFrame({"a": [date(2020, 1, 1)] * 2}))
