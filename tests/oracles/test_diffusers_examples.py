"""The worked example with a scheduler of diffusers: every check passes at what float32 tables can do."""

import torch

from benchmarks.conformance.examples.diffusers_schedulers import audit_me
from scratchgen.conformance import audit
from scratchgen.testing import parametrize_with_checks


@parametrize_with_checks(**audit_me())
def test_the_scheduler_passes(check):
    check()


def test_a_clipped_sample_fails():
    given = audit_me()

    def clipped(t, x_t, output):
        return given["predict_x0"](t, x_t, output).clamp(-1, 1)

    result = audit(**{**given, "predict_x0": clipped})
    assert [row.argument for row in result.rows if not row.passed] == ["predict_x0"]
    assert given["betas"].dtype == torch.float32
