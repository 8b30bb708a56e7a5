"""`given_noise` reaches the random functions of torch, and an audit reads tensors."""

import pytest
import torch

from scratchgen.conformance import audit, given_noise


def test_given_noise_reaches_torch():
    noise = torch.ones(3)
    with given_noise(noise, 2 * noise, t=torch.tensor([1, 2, 3])):
        assert torch.equal(torch.randn(3), noise)
        assert torch.equal(torch.randn_like(noise), 2 * noise)
        assert torch.randint(0, 9, (3,)).tolist() == [1, 2, 3]
    assert not torch.equal(torch.randn(3), noise)


MEAN = torch.tensor([3.0, 3.0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.normal(3.0, 2.0, (2,)),
        lambda: torch.normal(MEAN, 2.0),
        lambda: torch.normal(mean=3.0, std=torch.tensor([2.0, 2.0])),
        lambda: torch.normal(MEAN, torch.tensor([2.0, 2.0]), generator=torch.Generator()),
        lambda: torch.empty(2).normal_(3, 2),
        lambda: torch.empty(2).normal_(mean=3, std=2, generator=torch.Generator()),
        lambda: torch.nn.init.normal_(torch.empty(2), 3.0, 2.0),
        lambda: torch.distributions.Normal(MEAN, 2.0).rsample(),
        lambda: torch.distributions.Normal(MEAN, 2.0).sample(),
    ],
)
def test_normal_draws_of_torch_return_the_given_noise(draw):
    with given_noise(torch.tensor([0.5, -1.0])):
        assert torch.equal(draw(), torch.tensor([4.0, 1.0]))
    assert not torch.equal(draw(), torch.tensor([4.0, 1.0]))
    assert "normal_" not in vars(torch.Tensor)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 3), (torch.bfloat16, 2)])
def test_tensors_in_half_precision_are_refused(dtype, digits):
    (row,) = audit(discrete_kl=lambda p, q: (p * (p / q).log()).sum().to(dtype), arrays=torch.as_tensor).rows
    assert row.verdict == "raised"
    assert f"float32 or float64, got {str(dtype)[6:]}, which keeps {digits} digits" in row.diagnosis
    if dtype == torch.bfloat16:
        with pytest.raises(TypeError, match="arrays must be in float32 or float64, got bfloat16"):
            audit(betas=torch.full((3,), 0.1, dtype=dtype), q_sample=lambda t, x0, noise: x0)


def test_a_tensor_that_is_changed_in_place_gets_a_note_and_a_path_may_be_a_list():
    def kl(p, q):
        value = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()
        p.zero_()
        return value

    result = audit(discrete_kl=kl, arrays=torch.as_tensor)
    assert result.passed
    assert "discrete_kl changes its argument p in place" in result.notes[0]
    betas = torch.full((4,), 0.1, dtype=torch.float64)

    def sampler(x, noise):
        path = [x]
        for z in noise:
            path.append(path[-1] / 0.9**0.5 + 0.1**0.5 * z)
        return path

    given = {"betas": betas, "x0": torch.ones(3, 2), "eps_hat": lambda x, t: 0 * x, "arrays": torch.as_tensor}
    assert audit(**given, sampler=sampler).passed
