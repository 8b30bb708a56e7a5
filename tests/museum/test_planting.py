"""Planting: a function behaves differently wherever it is referred to, and as before afterwards."""

import inspect
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from scratchgen import DDPM, MLP, VP, Mixture, NoiseSchedule, conformance, ddpm
from scratchgen.ddpm import kernels, q_sample
from scratchgen.ddpm.samplers import ancestral_sampler
from scratchgen.likelihood import bits_per_dim
from scratchgen.museum.planting import function_named, planted
from scratchgen.nn.activations import ACTIVATIONS, tanh_and_slope

SCHEDULE = NoiseSchedule([0.1, 0.2, 0.4])
X = np.array([[1.0, -2.0]])


def seven(original, *arguments, **keywords):
    return 7


class Holder(NamedTuple):
    function: object


def test_a_function_is_replaced_in_every_reference():
    held = {"dict": q_sample, "tuple": Holder(q_sample)}

    def by_default(f=q_sample):
        return f(SCHEDULE, 1, X, X)

    captured = q_sample
    closure = lambda: captured(SCHEDULE, 1, X, X)  # noqa: E731
    before = q_sample(SCHEDULE, 1, X, X)
    references = [
        lambda: q_sample(SCHEDULE, 1, X, X),
        lambda: ddpm.q_sample(SCHEDULE, 1, X, X),
        lambda: kernels.q_sample(SCHEDULE, 1, X, X),
        lambda: held["dict"](SCHEDULE, 1, X, X),
        lambda: held["tuple"].function(SCHEDULE, 1, X, X),
        by_default,
        closure,
    ]
    with planted("ddpm.q_sample", seven):
        assert [call() for call in references] == [7] * len(references)
    assert all(np.array_equal(call(), before) for call in references)


def test_an_activation_in_a_table_is_replaced():
    with planted("nn.activations.tanh_and_slope", lambda original, z: (z, np.zeros_like(z))):
        value, slope = ACTIVATIONS["tanh"].value_and_slope(X)
    assert np.array_equal(value, X)
    assert not slope.any()
    assert np.array_equal(ACTIVATIONS["tanh"].value_and_slope(X)[0], tanh_and_slope(X)[0])


def test_a_replacement_gets_the_original_with_its_defaults_and_keywords():
    arguments = (SCHEDULE, 2, X, X, X)
    before = ddpm.p_step(*arguments), ddpm.p_step(*arguments, variance="posterior")
    with planted("ddpm.p_step", lambda original, *a, **k: 1 + original(*a, **k)) as original:
        assert np.array_equal(ddpm.p_step(*arguments), 1 + before[0])
        assert np.array_equal(ddpm.p_step(*arguments, variance="posterior"), 1 + before[1])
        assert np.array_equal(original(*arguments), before[0])
    assert np.array_equal(ddpm.p_step(*arguments), before[0])
    assert bits_per_dim(np.log(2), 1) == 1.0
    with planted("likelihood.bits_per_dim", lambda original, nats, dimension: -original(nats, dimension=dimension)):
        assert bits_per_dim(np.log(2), 1) == -1.0


def test_methods_properties_and_methods_of_classes_are_replaced():
    mlp, mixture = MLP((2, 2), rng=0), Mixture([1.0], [[0.0]], [[[1.0]]])
    with planted("nn.mlp.MLP.vjp", lambda original, self, x: (self, x)):
        assert mlp.vjp(X) == (mlp, X)
    with planted("mixture.Mixture.dimension", lambda original, self: 5 + original(self)):
        assert mixture.dimension == 6
    with planted("schedule.NoiseSchedule.linear", lambda original, cls, *a, **k: (cls, original(cls, *a, **k).T)):
        assert NoiseSchedule.linear(4) == (NoiseSchedule, 4)
    with planted("models.ddpm.DDPM.sample", seven):
        assert DDPM().sample(3) == 7
    with planted("sde.VP.perturb", seven):  # inherited from LinearSDE
        assert VP().perturb(0.5, X, X) == 7
    assert mixture.dimension == 1
    assert NoiseSchedule.linear(4).T == 4
    assert VP().perturb(0.5, X, X).shape == X.shape


def test_the_initialiser_of_a_dataclass_can_raise():
    def refuse(original, self, *arguments, **keywords):
        raise RuntimeError("planted")

    with planted("schedule.NoiseSchedule.__init__", refuse), pytest.raises(RuntimeError, match="planted"):
        NoiseSchedule([0.1])
    assert NoiseSchedule([0.1]).T == 1


def test_a_generator_is_replaced_by_a_generator():
    def negated(original, *arguments):
        for t, x in original(*arguments):
            yield t, -x

    def run():
        return list(ancestral_sampler(SCHEDULE, lambda x, t: x, X, np.random.default_rng(0)))

    before = run()
    with planted("ddpm.ancestral_sampler", negated):
        after = run()
    assert [t for t, _ in after] == [t for t, _ in before] == [3, 2, 1, 0]
    assert all(np.array_equal(a, -b) for (_, a), (_, b) in zip(after, before, strict=True))


def test_a_function_with_a_closure_is_replaced():
    assert function_named("conformance.check_kl").__closure__
    p = np.array([0.5, 0.5])
    with planted("conformance.check_kl", lambda original, *a: SimpleNamespace(inner=original(*a))):
        assert conformance.check_kl(lambda p, q: (p * np.log(p / q)).sum(), p, p).inner
    assert conformance.check_kl(lambda p, q: (p * np.log(p / q)).sum(), p, p).passed


def test_plantings_can_be_nested():
    with planted("ddpm.q_sample", seven):
        with planted("ddpm.q_sample", lambda original, *a: 1 + original(*a)):
            assert q_sample(SCHEDULE, 1, X, X) == 8
        assert q_sample(SCHEDULE, 1, X, X) == 7


def test_the_function_is_restored_after_an_error():
    function = function_named("ddpm.p_step")
    before = function.__code__, function.__defaults__, function.__kwdefaults__, inspect.signature(function)
    with pytest.raises(ZeroDivisionError), planted("ddpm.p_step", seven):
        _ = 1 / 0
    assert (function.__code__, function.__defaults__, function.__kwdefaults__, inspect.signature(function)) == before


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("ddpm.nothing", LookupError, "there is no 'nothing'"),
        ("nothing.q_sample", LookupError, "there is no 'nothing'"),
        ("ddpm.nothing.q_sample", LookupError, "there is no 'nothing'"),
        ("nn.Adam", TypeError, "which is a type; name one of its methods"),
        ("nn.features._time_frequencies", TypeError, "a _lru_cache_wrapper"),
        ("ddpm.kernels", TypeError, "which is a module"),
    ],
)
def test_names_without_a_python_function_are_refused(name, error, words):
    with pytest.raises(error, match=rf"^name must be .*{name}.*{words}"), planted(name, seven):
        pass
