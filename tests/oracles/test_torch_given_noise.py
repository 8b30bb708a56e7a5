"""`given_noise` reaches the random functions of torch."""

import torch

from scratchgen.conformance import given_noise


def test_given_noise_reaches_torch():
    noise = torch.ones(3)
    with given_noise(noise, 2 * noise, t=torch.tensor([1, 2, 3])):
        assert torch.equal(torch.randn(3), noise)
        assert torch.equal(torch.randn_like(noise), 2 * noise)
        assert torch.randint(0, 9, (3,)).tolist() == [1, 2, 3]
    assert not torch.equal(torch.randn(3), noise)
