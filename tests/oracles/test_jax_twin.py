"""The JAX twin: outputs, twenty steps of one compiled scan, samples, and the way back."""

import copy

import jax
import numpy as np
import pytest

from benchmarks.frameworks import jax_
from scratchgen import DDPM, VAE, VE, NoiseSchedule, ScoreSDE, ddpm, vae
from scratchgen.export import layers, load_state_dict, state_dict
from scratchgen.nn import cosine_decay

X = np.random.default_rng(0).standard_normal((200, 3)) @ np.diag([3.0, 1.0, 0.5]) + 1
SMALL = {"hidden": (16, 16), "n_coordinate_features": 2, "n_steps": 60, "batch_size": 32, "rng": 0}
KINDS = {
    "DDPM": lambda: DDPM(NoiseSchedule.linear(20), **SMALL),
    "ScoreSDE of VE": lambda: ScoreSDE(VE(0.01, 30.0), time_choice="stratified", **SMALL),
}


def left(kind, n_steps):
    """A model of a kind whose training was left after so many steps."""
    model = KINDS[kind]()
    for progress in model.train(X):
        if progress.step == n_steps:
            return model


def columns(*values):
    """Columns of float32."""
    return [np.asarray(value)[..., None].astype(np.float32) for value in values]


@pytest.mark.parametrize("kind", KINDS)
def test_eps_hat_is_the_networks(kind):
    model = left(kind, 30)
    if kind == "DDPM":
        t = np.random.default_rng(1).integers(1, 21, 50)
        scale, std = model.schedule_.alpha_bar[t], model.schedule_.beta_bar[t]
    else:
        scale, std = model.sde_.marginal(np.linspace(model.t_min, 1.0, 50))
    x_t = np.hypot(scale, std)[:, None] * np.random.default_rng(2).standard_normal((50, 3))
    x_t = x_t.astype(np.float32)
    theirs = jax_.eps_hat(layers(state_dict(model), "average.mlp"), x_t, *columns(scale, std), 2)
    assert np.abs(theirs - model.network_(x_t, scale, std)).max() < 1e-6 * max(1, np.abs(x_t).max())


def test_loss_and_gradient_of_a_vae_are_those_of_its_step():
    model = VAE(2, hidden=(16,), n_steps=30, decoder_variance="diag", kl_weight=2.0, rng=0).fit(X)
    rng = np.random.default_rng(1)
    x, noise = (rng.standard_normal((50, n)).astype(np.float32) for n in (3, 2))
    state = state_dict(model)
    parts = layers(state, "network.encoder"), layers(state, "network.decoder"), state["network.log_variance"]
    own = vae.train_step(model.network_, x, noise, 2.0)
    theirs = jax_.vae_losses(*parts, x, noise, 2.0)
    assert np.abs(theirs - own).max() < 1e-5 * np.abs(own).max()
    gradients = jax.grad(lambda parts: jax_.vae_losses(*parts, x, noise, 2.0).mean())(parts)
    for gradient, (_, ours) in zip(gradients, model.network_.parts, strict=True):
        flat = np.concatenate([np.ravel(part) for part in jax.tree.leaves(gradient)])
        assert np.abs(flat - ours).max() < 5e-6 * np.abs(ours).max()


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_in_one_scan_and_the_way_back(kind):
    """The draws of `train`, all at once; then the rest of the training in NumPy on both sides."""
    ours, theirs = left(kind, 40), left(kind, 20)
    state, rng = state_dict(theirs), np.random.default_rng()
    rng.bit_generator.state = theirs.training_state_.generator
    batches = []
    data = theirs.to_model(X).astype(np.float32)
    for step in range(20, 40):
        x0 = data[rng.integers(len(data), size=32)]
        noise = rng.standard_normal(x0.shape, dtype=np.float32)
        if kind == "DDPM":
            t = rng.integers(1, 21, size=32)
            level = theirs.schedule_.alpha_bar[t], theirs.schedule_.beta_bar[t]
        else:
            low, high = theirs.sde_.log_snr(np.array([1.0, theirs.t_min]))
            u = (np.arange(32) + rng.random(32)) / 32
            level = theirs.sde_.marginal(theirs.sde_.time_at(low + (high - low) * u))
        batches.append((x0, *columns(*level), noise, np.float32(cosine_decay(step, 60, 5e-3, 6))))
    stacked = tuple(np.stack(parts) for parts in zip(*batches, strict=True))
    run = jax.jit(lambda carry, batches: jax.lax.scan(lambda c, b: jax_.step(c, b, 0.999, 2), carry, batches))
    carry, losses = run(jax_.from_state(state), stacked)
    load_state_dict(theirs, jax_.to_state(carry, state, losses))
    theirs.training_state_ = theirs.training_state_._replace(generator=dict(rng.bit_generator.state))
    back, expected = state_dict(theirs), state_dict(ours)
    for key in expected:
        difference = np.abs(back[key] - expected[key]).max(initial=0.0)
        assert difference <= 2e-5 * np.abs(expected[key]).max(initial=0.0), key
    assert np.abs(theirs.resume(X).parameters_ - ours.resume(X).parameters_).max() < 1e-5


def test_ancestral_samples_with_the_same_noise():
    model = left("DDPM", 40)
    x_T, *noise = np.random.default_rng(3).standard_normal((21, 50, 3)).astype(np.float32)
    weights = layers(state_dict(model), "average.mlp")
    theirs = jax_.ancestral_sample(weights, model.schedule_, model.variance_, x_T, np.array(noise), 2)
    ours = copy.copy(x_T)
    for t in range(20, 0, -1):
        eps_hat = ddpm.predict_noise(model.network_, model.schedule_, ours, t)
        ours = ddpm.p_step(model.schedule_, t, ours, eps_hat, noise[20 - t], model.variance_)
    assert np.abs(theirs - ours).max() < 5e-6 * np.abs(ours).max()
