"""The arguments network, dropout and picture of DDPM and ScoreSDE: training, files, conversions and refusals."""

import numpy as np
import pytest

from scratchgen import DDPM, NoiseSchedule, ScoreSDE
from scratchgen.export import state_dict
from scratchgen.models.convert import to_ddpm, to_sde
from scratchgen.report.settings import value_of

LEVELS = np.random.default_rng(0).integers(0, 4, (60, 6))
PLANE = np.random.default_rng(1).standard_normal((60, 2))
KINDS = {
    "residual": (PLANE, {"hidden": (5, 5), "network": "residual", "dropout": 0.2}),
    "levels": (LEVELS, {"hidden": (5,), "network": "residual", "dropout": 0.2, "n_levels": 4, "prediction": "levels"}),
    "picture": (LEVELS, {"hidden": (5,), "picture": (2, 3), "n_levels": 4, "prediction": "levels"}),
    "both": (LEVELS, {"hidden": (5,), "network": "residual", "dropout": 0.2, "n_levels": 4, "prediction": "levels",
                      "picture": (2, 3)}),
}  # fmt: skip
both = pytest.mark.parametrize("cls", [DDPM, ScoreSDE])


def made(cls, **options):
    chain = {"schedule": NoiseSchedule.linear(5)} if cls is DDPM else {"t_min": 0.1}
    return cls(**{**chain, "n_steps": 6, "batch_size": 16, "rng": 0, **options})


@both
@pytest.mark.parametrize("kind", KINDS)
def test_files_and_a_training_in_two_parts_give_the_same_bytes(cls, kind, tmp_path):
    x, options = KINDS[kind]
    model = made(cls, **options).fit(x)
    model.save(tmp_path / "m.npz")
    loaded = cls.load(tmp_path / "m.npz")
    assert loaded.picture == options.get("picture")
    assert loaded.elbo(x, rng=0).tobytes() == model.elbo(x, rng=0).tobytes()
    half = made(cls, **options)
    next(step for step in half.train(x) if step.step == 3)
    half.save(tmp_path / "half.npz")
    resumed = cls.load(tmp_path / "half.npz").resume(x)
    assert resumed.parameters_.tobytes() == model.parameters_.tobytes()
    assert np.isfinite(resumed.sample(3, rng=0)).all()


@both
def test_dropout_changes_the_training_and_not_the_calls(cls):
    x, options = KINDS["levels"]
    with_dropout, without = made(cls, **options).fit(x), made(cls, **options | {"dropout": 0.0}).fit(x)
    assert not np.array_equal(with_dropout.parameters_, without.parameters_)
    assert np.array_equal(with_dropout.elbo(x, rng=0), with_dropout.elbo(x, rng=0))


def test_conversions_keep_the_network():
    x, options = KINDS["both"]
    ddpm = made(DDPM, **options).fit(x)
    sde = to_sde(ddpm)
    assert (sde.network, sde.dropout, sde.picture) == ("residual", 0.2, (2, 3))
    assert np.array_equal(sde.network_(x, 0.6, 0.8), ddpm.network_(x, 0.6, 0.8))
    assert np.array_equal(to_ddpm(sde, 5).parameters_, ddpm.parameters_)


@pytest.mark.parametrize("kind", ["residual", "picture"])
def test_only_a_plain_mlp_has_a_state_dict(kind):
    x, options = KINDS[kind]
    with pytest.raises(ValueError, match=r"^model must have the network 'mlp' without a picture, got network="):
        state_dict(made(DDPM, **options).fit(x))


@pytest.mark.parametrize("matching", ["implicit", "sliced", "sliced-vr"])
def test_residual_blocks_train_on_all_forms_of_score_matching_without_dropout(matching):
    model = made(ScoreSDE, **KINDS["residual"][1] | {"matching": matching, "dropout": 0.0}).fit(PLANE)
    assert np.isfinite(model.log_prob(PLANE[:3])).all()
    with pytest.raises(ValueError, match=rf"^dropout must be 0 for matching='{matching}', got 0.2; use 'denoising'"):
        made(ScoreSDE, **KINDS["residual"][1], matching=matching).fit(PLANE)


@both
@pytest.mark.parametrize(
    ("x", "options", "match"),
    [
        (
            LEVELS,
            {"picture": (2, 3)},
            r"^picture must be None for prediction='v', got \(2, 3\); pass prediction='levels'",
        ),
        (LEVELS, {"picture": (2, 2), "prediction": "levels", "n_levels": 4}, r"^picture must have D = 6 pixels"),
        (PLANE, {"dropout": 0.2}, r"^dropout must be 0 for network='mlp', got 0.2; pass network='residual'"),
        (PLANE, {"network": "unet"}, r"^network must be one of 'mlp', 'residual', got 'unet'"),
        (PLANE, {"network": "residual", "hidden": (4, 5)}, r"^hidden must hold one width for all blocks"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(cls, x, options, match):
    with pytest.raises(ValueError, match=match):
        made(cls, **options).fit(x)


def test_the_command_line_reads_a_picture_as_a_pair():
    assert value_of("picture", "8,8") == (8, 8)
