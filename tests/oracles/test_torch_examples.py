"""The worked examples in PyTorch: right code passes, each mistake fails, and the README prints the table it shows."""

import re
from pathlib import Path

import pytest

from benchmarks.conformance.examples import grade_torch, torch_ddpm, torch_mistakes
from scratchgen.conformance import audit
from scratchgen.report import cli
from scratchgen.testing import parametrize_with_checks

README = (Path(__file__).parents[2] / "README.md").read_text()
NAMED = {
    "the root of ᾱ is missing": "Ho's α-bar without its square root",
    "the posterior has the variance of the forward step": "it is β_t², the variance of the forward step",
    "the tables are read one step late": "one too late",
    "the noise has a variance for its factor": "the noise has factor σ², a variance",
    "the target of the loss is x_0": "the target is x_0",
    "the network gets t − 1": "the network is called at t − 1",
    "the bound lacks L_0": "L_0, the reconstruction, is missing",
    "the bound is in bits per dimension": "it is in bits per dimension",
    "the sampler has the posterior variance": "",  # in float32 too near to the right one to be named
    "the network is in training mode": "turn dropout off (in torch: net.eval())",
}


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.filterwarnings("ignore:.*rounding hides differences")  # notes on float32
@parametrize_with_checks(**torch_ddpm.audit_me())
def test_a_model_in_hos_convention_passes(check):
    check()


def test_it_passes_on_the_command_line(capsys):
    assert cli.main(["audit", torch_ddpm.__file__]) == 0
    assert capsys.readouterr().out.startswith("audit: 8 of 8 checks pass; T = 1000, t counts from 0, float32\n")


def test_every_mistake_has_its_diagnosis():
    assert set(NAMED) == set(torch_mistakes.MISTAKES)


@pytest.mark.parametrize("name", NAMED)
def test_a_mistake_fails_and_is_named(name):
    (row,) = torch_mistakes.audited(name).rows
    assert not row.passed
    assert NAMED[name] in row.diagnosis


def test_code_in_float64_is_held_to_float64():
    model = torch_ddpm.diffusion()
    given = {name: value for name, value in torch_ddpm.audit_me(model).items() if name not in ("x0", "eps_hat")}
    given = {**given, **dict.fromkeys(("loss", "bound", "sampler")), "dtype": "float64"}
    result = audit(**{**given, "betas": model.betas.double()})  # the model's tables are float32
    assert not result.passed
    assert "float32" in str(result)


def test_the_readme_prints_the_table_that_it_shows(capsys):
    (code,) = re.findall(r"```python\n([^`]*?import torch\n.*?)```", README, flags=re.DOTALL)
    shown = README.split(code)[1].split("```text\n")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    printed, _, rest = capsys.readouterr().out.partition("\nnot given: ")
    assert printed == shown
    assert "q_sample" in rest


def test_grades_of_a_network_in_torch_fall_with_training(capsys):
    before, after = (grade_torch.main(n_steps) for n_steps in (20, 60))
    for t, (least, excess) in after.losses.items():
        assert least == before.losses[t][0] > 0
        assert 0 < excess < before.losses[t][1]
    assert 0 < after.ancestral_kl < before.ancestral_kl
    assert 0 < after.euler_kl < before.euler_kl
    assert "KL(data‖samples)" in capsys.readouterr().out
