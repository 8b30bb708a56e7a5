"""The torch twin: outputs, gradients, steps, moving average and samples are those of the package, and the way back."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.frameworks import torch_
from benchmarks.frameworks.torch_ import Trainer, ancestral_sample, go_on, network_of, noise_losses
from scratchgen import DDPM, VAE, VE, LinearVAE, NoiseSchedule, ScoreSDE, ddpm, load, vae
from scratchgen.export import load_state_dict, state_dict

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).standard_normal((200, 3)) @ np.diag([3.0, 1.0, 0.5]) + 1
Y = (X[:, 0] > 0).astype(int)
SMALL = {"hidden": (16, 16), "n_steps": 60, "batch_size": 32, "rng": 0}
KINDS = {
    "DDPM": lambda: DDPM(NoiseSchedule.linear(20), "optimal", **SMALL),
    "DDPM of labels": lambda: DDPM(
        n_classes=2,
        n_coordinate_features=2,
        weight_decay=0.1,
        weighting="min-snr",
        step_choice="importance",
        **SMALL | {"batch_size": 400},
    ),
    "ScoreSDE": lambda: ScoreSDE(**SMALL),
    "ScoreSDE of VE": lambda: ScoreSDE(VE(0.01, 30.0), weighting="noise", time_choice="importance", **SMALL),
    "VAE": lambda: VAE(2, **SMALL),
    "VAE, s² a column": lambda: VAE(2, decoder_variance="diag", decoder_hidden=(8,), **SMALL),
    "VAE, s² given": lambda: VAE(
        2, decoder_variance=0.1, kl_weight=2.0, activation="tanh", dtype="float64", **SMALL | {"batch_size": None}
    ),
    "LinearVAE": lambda: LinearVAE(2, n_steps=60, rng=0),
}
NOISE = ["DDPM", "DDPM of labels", "ScoreSDE", "ScoreSDE of VE"]
VAES = ["VAE", "VAE, s² a column", "VAE, s² given", "LinearVAE"]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def given(model):
    """Data, and labels for a model with labels."""
    return (X, Y) if getattr(model, "n_classes", 0) else (X,)


def left(kind, n_steps):
    """A model of a kind whose training was left after so many steps."""
    model = KINDS[kind]()
    for progress in model.train(*given(model)):
        if progress.step == n_steps:
            return model


def distance(a, b):
    """Largest difference of two dicts of arrays, each in units of its array's largest number."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max() / np.abs(a[key]).max()) for key in a)


def weights(model):
    """Parameters, moving average and moments of a training."""
    return {k: v for k, v in state_dict(model).items() if k.startswith(("network.", "average.", "exp_avg"))}


def problem(model):
    """x_0, noise level, ε and labels of 50 examples over all noise levels; arrays."""
    rng = np.random.default_rng(1)
    x0, noise = rng.standard_normal((2, 50, 3)).astype(np.float32)
    if isinstance(model, DDPM):
        t = rng.integers(1, model.schedule_.T + 1, 50)
        scale, std = model.schedule_.alpha_bar[t], model.schedule_.beta_bar[t]
    else:
        t, (scale, std) = None, model.sde_.marginal(np.linspace(model.t_min, model.sde_.horizon, 50))
    labels = rng.integers(-1, 2, 50) if model.n_classes else None
    return t, x0, scale, std, noise, labels


def tensors(*arrays):
    return [None if array is None else torch.tensor(array) for array in arrays]


@pytest.mark.parametrize("kind", NOISE)
def test_eps_hat_and_the_gradient_of_its_loss_are_the_networks(kind):
    model = left(kind, 30)
    t, x0, scale, std, noise, labels = problem(model)
    network = network_of(model)
    network.load_state_dict({k[8:]: torch.tensor(v) for k, v in state_dict(model).items() if k[:8] == "average."})
    x_t = (scale[:, None] * x0 + std[:, None] * noise).astype(np.float32)
    theirs = network(*tensors(x_t, scale[:, None], std[:, None], labels))
    ours = model.network_(x_t, scale, std, labels=labels)
    assert np.abs(theirs.detach().numpy() - ours).max() < 1e-6 * max(1, np.abs(x_t).max())
    losses = noise_losses(network, *tensors(x0, scale[:, None], std[:, None], noise, labels))
    losses.mean().backward()
    if isinstance(model, DDPM):
        own = ddpm.train_step(model.network_, model.schedule_, x0, t, noise, np.ones(50, np.float32), labels=labels)
    else:
        eps_hat, backward = model.network_.vjp(x_t, scale, std)
        own, by_eps_hat = ddpm.noise_error(noise, eps_hat)
        backward(by_eps_hat / 50)
    assert np.allclose(losses.detach().numpy(), own, rtol=1e-5)
    gradient = model.network_.gradient
    torchs = np.concatenate([part.ravel() for layer in gradients(network.mlp) for part in layer])
    assert np.abs(torchs - gradient).max() < 1e-6 * np.abs(gradient).max()


def gradients(net):
    return [(linear.weight.grad.numpy().T, linear.bias.grad.numpy()) for linear in net[::2]]


@pytest.mark.parametrize("kind", VAES)
def test_loss_and_gradient_of_a_vae_are_those_of_its_step(kind):
    model = left(kind, 30)
    rng = np.random.default_rng(1)
    x, noise = (rng.standard_normal((50, n)).astype(model.dtype) for n in (3, 2))
    network = network_of(model)
    network.load_state_dict({k[8:]: torch.tensor(v) for k, v in state_dict(model).items() if k[:8] == "network."})
    losses = network(*tensors(x, noise), model.kl_weight)
    losses.mean().backward()
    own = vae.train_step(model.network_, x, noise, model.kl_weight)
    digits = 1e-6 if model.dtype == "float32" else 1e-14
    assert np.abs(losses.detach().numpy() - own).max() < 10 * digits * np.abs(own).max()
    for net, (_, gradient) in zip((network.encoder, network.decoder), model.network_.parts, strict=False):
        torchs = np.concatenate([part.ravel() for layer in gradients(net) for part in layer])
        assert np.abs(torchs - gradient).max() < digits * np.abs(gradient).max()
    by_log_s2 = model.network_.log_variance_gradient
    assert np.abs(network.log_variance.grad.numpy() - by_log_s2).max() < 10 * digits * np.abs(by_log_s2).max()


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_from_the_same_state_with_the_same_draws(kind, tmp_path):
    """Weights, average and moments after them, and the rest of the training in NumPy on both sides."""
    ours, theirs = left(kind, 40), go_on(left(kind, 20), *given(KINDS[kind]())[:1], 20, *given(KINDS[kind]())[1:])
    assert theirs.training_state_.step == 40
    assert distance(weights(ours), weights(theirs)) < 1e-5
    assert np.allclose(ours.losses_, theirs.losses_, rtol=1e-5)
    assert theirs.training_state_.generator == ours.training_state_.generator
    assert np.abs(ours.sample(5, rng=1) - theirs.sample(5, rng=1)).max() < 5e-6
    theirs.save(tmp_path / "model.npz")
    theirs = load(tmp_path / "model.npz").resume(*given(theirs))
    ours.resume(*given(ours))
    assert max(np.abs(getattr(ours, name) - getattr(theirs, name)).max() for name in ours._weights) < 5e-6
    assert len(theirs.losses_) == len(ours.losses_)


@pytest.mark.parametrize("mistake", ["moments", "step", "average", "transposed"])
def test_a_wrong_state_is_seen(mistake):
    """Twenty steps without the moments, without the step, with the weights as average, with a transposed layer."""
    model = left("DDPM", 20)
    ours, state = left("DDPM", 40), state_dict(model)
    least = 1e-3
    if mistake == "average":
        least = 3e-5  # the average forgets its start: at step 20 its decay is 21/30
        state |= {k.replace("network.", "average."): v for k, v in state.items() if k.startswith("network.")}
    elif mistake == "transposed":
        state["network.mlp.2.weight"] = state["network.mlp.2.weight"].T
    elif mistake == "moments":
        state |= {k: 0 * v for k, v in state.items() if k.startswith("exp_avg.")}
    load_state_dict(model, state)
    if mistake == "step":
        model.training_state_ = model.training_state_._replace(step=0)
    assert distance(weights(ours), weights(go_on(model, X, 20))) > least


def test_ancestral_samples_with_the_same_noise():
    model = left("DDPM", 40)
    rng = np.random.default_rng(3)
    x_T, *rest = torch.tensor(rng.standard_normal((21, 50, 3)).astype(np.float32))
    noise = iter(rest)
    theirs = ancestral_sample(Trainer(model).average, model.schedule_, model.variance_, x_T, lambda: next(noise))
    ours = x_T.numpy()
    for t in range(20, 0, -1):
        eps_hat = ddpm.predict_noise(model.network_, model.schedule_, ours, t)
        ours = ddpm.p_step(model.schedule_, t, ours, eps_hat, rest[20 - t].numpy(), model.variance_)
    assert np.abs(theirs.numpy() - ours).max() < 5e-6 * np.abs(ours).max()


@pytest.mark.parametrize("kind", ["DDPM of labels", "VAE"])
def test_two_processes_equal_one_with_the_joined_batch(kind, tmp_path):
    """torchrun with DistributedDataParallel over gloo, each process with half of every batch."""
    source, target = tmp_path / "model.npz", tmp_path / "further.npz"
    model = left(kind, 20)
    model.save(source)
    arrays = [tmp_path / f"{i}.npy" for i in range(len(given(model)))]
    for path, array in zip(arrays, given(model), strict=True):
        np.save(path, array)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "-m", "benchmarks.frameworks.torch_", source, target, "20", *arrays]
    settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    two, one = load(target), go_on(copy.deepcopy(model), X, 20, *given(model)[1:])
    assert two.training_state_.step == 40
    assert distance(weights(two), weights(one)) < 1e-5
    assert distance(weights(two), weights(left(kind, 40))) < 1e-5
    assert np.allclose(two.losses_, one.losses_, rtol=1e-5)


def test_models_that_the_twin_has_no_network_for_are_refused():
    levels = np.random.default_rng(0).integers(0, 4, (40, 3))
    for model in (
        DDPM(n_levels=4, prediction="levels", **SMALL),
        DDPM(prediction="noise", **SMALL),
        VAE(2, n_levels=4, **SMALL),
    ):
        next(model.train(levels))
        with pytest.raises(ValueError, match="prediction='v' and real numbers"):
            go_on(model, levels, 1)
    sliced = ScoreSDE(matching="sliced", **SMALL)
    next(sliced.train(X))
    with pytest.raises(ValueError, match="matching='denoising', got 'sliced'"):
        go_on(sliced, X, 1)
    validated = DDPM(early_stopping=True, **SMALL)
    next(validated.train(X))
    with pytest.raises(ValueError, match="early_stopping must be False"):
        go_on(validated, X, 1)
    with pytest.raises(ValueError, match="y must be given for a model with n_classes=2"):
        go_on(left("DDPM of labels", 20), X, 1)
    with pytest.raises(ValueError, match="must have a training that has not ended"):
        go_on(left("VAE", 20).resume(X), X, 1)
    with pytest.raises(ValueError, match="x is not the data of the training"):
        go_on(left("VAE", 20), X[:100], 1).resume(X[:100])


@pytest.mark.parametrize("kind", [DDPM, ScoreSDE, VAE])
def test_a_number_of_steps_that_follows_from_the_rows(kind):
    """n_steps=None: the rate of learning follows `n_steps_`."""
    models = [kind(hidden=(4,), rng=0) for _ in range(2)]
    for model, last in zip(models, (6, 3), strict=True):
        next(progress for progress in model.train(X[:20]) if progress.step == last)
    assert models[0].n_steps is None
    assert distance(*(weights(model) for model in (models[0], go_on(models[1], X[:20], 3)))) < 1e-5


def test_the_last_step_stays_for_resume():
    with pytest.raises(ValueError, match="step must be below n_steps=60"):
        go_on(left("VAE", 20), X, 40)


def test_fill_and_layers_of_are_inverse():
    net = torch_.perceptron((3, 5, 2))
    layers = [(np.arange(15.0).reshape(3, 5), np.arange(5.0)), (np.ones((5, 2)), np.zeros(2))]
    torch_.fill(net, layers)
    back = torch_.layers_of(net)
    assert all(
        np.array_equal(a, b) for one, two in zip(layers, back, strict=True) for a, b in zip(one, two, strict=True)
    )
    x = np.random.default_rng(0).standard_normal((4, 3))
    z = x @ layers[0][0] + layers[0][1]
    assert np.allclose(net(torch.tensor(x)).detach(), (z / (1 + np.exp(-z))) @ layers[1][0])
