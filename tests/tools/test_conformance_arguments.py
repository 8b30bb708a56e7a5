"""The callables under test: their number and order of arguments is checked before a call, by their signature."""

import numpy as np
import pytest

from scratchgen.conformance.arguments import check_callable

STEP = "step(t, s, x_t, eps_hat, noise); t counts 1..T"


class Module:
    """As a module of torch: any arguments by its signature."""

    def __call__(self, *args, **kwargs):
        return args


@pytest.mark.parametrize(
    "step",
    [
        lambda *a: a,
        lambda t, s, x_t, eps_hat, noise: x_t,
        lambda time, target, x, prediction, z: x,
        lambda s, t, x, e, z: x,  # s for the start
        lambda t, s, x, e, z=None, eta=0.0, t0=1: x,
        lambda *a, t=3: a,
        Module(),
        max,
    ],
)
def test_what_can_be_called_passes(step):
    check_callable(step, STEP)


@pytest.mark.parametrize(
    ("step", "got"),
    [
        (None, "NoneType"),
        (np.zeros(3), "ndarray"),
        (lambda t, x: x, r"the parameters \(t, x\)"),
        (lambda t, s, x, e, z, more: x, "the parameters"),
        (lambda t, s, x, e, z, *, more: x, "the parameters"),
        (lambda x_t, eps_hat, noise, t, s: x_t, "another order"),
        (lambda x, t, s, e, z: x, "another order"),
        (lambda a, b, t, c, d: a, "another order"),
    ],
)
def test_what_cannot_be_called_is_refused_with_the_call(step, got):
    with pytest.raises(TypeError, match=rf"^step must be callable as step\(t, s, x_t, eps_hat, noise\); t .*{got}"):
        check_callable(step, STEP)
