"""Labels and guidance in the diffusion models: ScoreSDE, guidance in ε̂ and in the logits, class histograms, bounds."""

import numpy as np
import pytest
from scipy import stats

from scratchgen import DDPM, VE, NoiseSchedule, ScoreSDE, sde
from scratchgen.export import load_state_dict, state_dict
from scratchgen.likelihood import logsumexp
from scratchgen.metrics import cross_fitted_bound, label_summed_bits, model_bits
from scratchgen.models.convert import to_ddpm, to_sde
from scratchgen.models.files import ModelFileError
from tests.strategies import residual

RNG = np.random.default_rng(0)
Y = np.arange(400) % 2
POINTS = np.array([[-1.0, 0.5], [1.5, 0.0]])[Y] + RNG.standard_normal((400, 2)) * np.array([[0.2], [1.0]])[Y]
SMALL = {"hidden": (16,), "n_coordinate_features": 0, "batch_size": 64, "n_sample_steps": 6, "ema_decay": 0.9, "rng": 0}
TOLD = np.array([0, 1, 1, 0, 1])


@pytest.fixture(scope="module")
def of_points():
    """A score SDE of two classes of points."""
    return ScoreSDE(n_classes=2, n_steps=150, learning_rate=1e-2, **SMALL).fit(POINTS, Y)


# --- a score SDE with labels --------------------------------------------------------------------------------


def test_labels_reach_samples_bound_and_likelihood(of_points):
    told = np.repeat([0, 1], 200)
    drawn, free = (of_points.sample(400, rng=0, y=told, guidance=w)[:, 0] for w in (1.0, 0.0))
    assert np.corrcoef(drawn, told)[0, 1] > 0.7
    assert abs(np.corrcoef(free, told)[0, 1]) < 0.27  # 5.4 errors
    for bound in (
        lambda y: of_points.elbo(POINTS, rng=1, n_times=16, y=y),
        lambda y: of_points.log_prob(POINTS[:40], rtol=1e-3, y=None if y is None else y[:40]),
    ):
        right, free, wrong = (bound(y).mean() for y in (Y, None, 1 - Y))
        assert right > free + 0.3 > wrong + 0.6


def test_names_of_labels_stay_with_the_network_until_the_next_fit(tmp_path):
    model = ScoreSDE(n_classes=2, n_steps=1, **SMALL).fit(POINTS, Y)
    assert model._label_names is None
    model._label_names = ("sick", "well")
    model.save(tmp_path / "model.npz")
    loaded = ScoreSDE.load(tmp_path / "model.npz")
    copy = load_state_dict(ScoreSDE.load(tmp_path / "model.npz"), state_dict(loaded))
    assert loaded._label_names == copy._label_names == to_ddpm(loaded, 4)._label_names == ("sick", "well")
    assert loaded.fit(POINTS, Y)._label_names is None


def test_guidance_mixes_the_noise_and_the_score_follows(of_points):
    x, t = RNG.standard_normal((5, 2)), 0.3
    level = of_points.sde_.level(t)
    free, told = of_points.network_(x, *level), of_points.network_(x, *level, labels=TOLD)
    assert np.abs(told - free).max() > 1e-2
    for w, expected in (0.0, free), (1.0, told), (3.0, free + 3 * (told - free)):
        assert residual(of_points.eps_hat(x, t, TOLD, w), expected) < 1e-6
        assert residual(of_points.predict_score(x, t, TOLD, w), -expected / level[1]) < 1e-6
    assert np.array_equal(of_points.eps_hat(x, t, TOLD), told)
    chain = to_ddpm(of_points, 8)
    score = chain.predict_score(x, 3, TOLD, 2.0)
    assert residual(score, -chain.eps_hat(x, 3, TOLD, 2.0) / chain.schedule_.beta_bar[3]) < 1e-6


def test_the_divergence_given_labels_is_the_slope_of_that_score(of_points):
    """Central differences of `predict_score`, whose network is float32."""
    x, t, h = RNG.standard_normal((5, 2)), 0.1, 1e-2
    slopes = [
        (of_points.predict_score(x + h * e, t, TOLD) - of_points.predict_score(x - h * e, t, TOLD)) @ e / (2 * h)
        for e in np.eye(2)
    ]
    score, divergence = of_points.score_and_divergence(x, t, y=TOLD)
    assert residual(score, of_points.predict_score(x, t, TOLD)) < 1e-6
    assert residual(divergence, sum(slopes)) < 2e-3
    assert residual(of_points.score_and_divergence(x, t)[1], sum(slopes)) > 6e-3  # without the labels


def test_the_likelihood_given_a_label_is_a_density():
    """One column, by the trapezoidal rule: the density of each label has mass 1, and the two differ."""
    x, y = POINTS[:, :1], Y
    model = ScoreSDE(n_classes=2, n_steps=60, **SMALL).fit(x, y)
    grid = np.linspace(-8, 8, 161)[:, None]
    laws = [np.exp(model.log_prob(grid, y=np.full(161, label))) for label in (0, 1)]
    for law in laws:
        assert abs(law.sum() * 0.1 - 1) < 2e-4
    assert np.abs(laws[0] - laws[1]).sum() * 0.1 > 0.2


@pytest.mark.parametrize(
    ("method", "guidance_in"),
    [*((method, "eps") for method in ("multistep", "euler", "adaptive")), ("ddim", "logits"), ("heun", "logits")],
)
def test_every_sampler_takes_its_noise_from_eps_hat_with_labels_and_guidance(method, guidance_in, of_levels):
    """The path is that of the chapter's sampler for s_θ = −ε̂/std with the model's guided ε̂."""
    model, told = of_levels["ScoreSDE"], {"y": TOLD, "guidance": 2.5, "guidance_in": guidance_in}
    process, c = model.sde_, 0.0 if method in ("heun", "adaptive") else 0.7
    rng = np.random.default_rng(3)
    x_T = process.prior_std * rng.standard_normal((5, 6), dtype=np.float32)

    def score(x, t):
        return -model.eps_hat(x, t, **told) / np.float32(process.level(t)[1])

    def denoise(x, scale, std):
        eps_hat = model.eps_hat(x, float(process.time_at(2 * np.log(scale / std))), **told)
        return (x - np.float32(std) * eps_hat) / np.float32(scale)

    steps = model.n_sample_steps - 1
    if method in ("multistep", "ddim"):
        levels = np.stack(process.marginal(sde.sinh_times(process, steps, model.t_min)), axis=1)
        wanted = sde.exponential_sampler(denoise, x_T, levels, rng, c, multistep=method == "multistep")
    elif method == "adaptive":
        wanted = [(0, sde.flow_map(process, score, x_T, process.horizon, model.t_min, rtol=1e-4))]
    else:
        times = sde.reverse_times(process, steps, model.t_min)
        one = sde.heun(process, score, x_T, times) if method == "heun" else None
        wanted = one or sde.euler_maruyama(process, score, x_T, times, rng, stochasticity=c)
    found = model.sample_path(5, np.random.default_rng(3), c, method, **told)
    assert residual(np.array([x for _, x in found]), np.array([x for _, x in wanted])) < 2e-3
    drawn = model.sample(5, 3, c, method, **told)
    assert np.array_equal(drawn, np.rint(drawn))


def test_labels_stay_with_their_rows_in_blocks(of_points, monkeypatch):
    """Blocks of 7 rows: each row has the label that it has in one block."""
    monkeypatch.setattr("scratchgen.models.score_sde.LEAST_FLOWS", 1)
    x, y = POINTS[:8], Y[:8]
    told, flow = np.repeat([0, 1], 20), {"method": "ddim", "stochasticity": 0.0}
    apart = np.stack([of_points.log_prob(x, rtol=1e-2, y=np.full(8, label)) for label in (0, 1)])
    whole = of_points.sample(40, rng=0, y=told, **flow)
    monkeypatch.setattr("scratchgen.blocks.BLOCK", 14)
    assert residual(of_points.log_prob(x, rtol=1e-2, y=y), apart[y, np.arange(8)]) < 0.02
    assert residual(apart[1 - y, np.arange(8)], apart[y, np.arange(8)]) > 0.2
    assert residual(of_points.sample(40, rng=0, y=told, **flow), whole) < 1e-4
    bounds = [of_points.elbo(x, rng=0, n_times=8, y=labels).mean() for labels in (y, 1 - y)]
    assert bounds[0] > bounds[1] + 1


def test_other_processes_and_matchings_learn_labels():
    for options in {"sde": VE(0.1, 8.0)}, {"matching": "sliced"}, {"matching": "implicit", "time_choice": "importance"}:
        model = ScoreSDE(n_classes=2, n_steps=80, learning_rate=1e-2, **SMALL | options).fit(POINTS, Y)
        right, wrong = (model.elbo(POINTS, rng=0, n_times=16, y=y).mean() for y in (Y, 1 - Y))
        assert right > wrong + 0.3, options
        dropped = ScoreSDE(n_classes=2, label_dropout=1.0, n_steps=1, **SMALL | options).fit(POINTS, Y)
        start = dropped.network_.mlp.weights[0][-2:].copy()
        dropped = dropped.set_params(n_steps=20).fit(POINTS, Y)
        assert (
            np.abs(dropped.network_.mlp.weights[0][-2:] - start).max() < 1e-6
        )  # labels that are dropped teach nothing


def test_conversions_keep_the_labels(of_points, tmp_path):
    chain = to_ddpm(of_points, 12)
    back = to_sde(chain)
    x = RNG.standard_normal((5, 2))
    for model, t in (chain, 6), (back, 0.5):
        assert model.n_classes == 2
        model.save(tmp_path / f"{t}.npz")
        loaded = type(model).load(tmp_path / f"{t}.npz")
        assert np.array_equal(loaded.eps_hat(x, t, TOLD, 2.0), model.eps_hat(x, t, TOLD, 2.0))
    assert residual(chain.eps_hat(x, 6, TOLD), of_points.eps_hat(x, 0.5, TOLD)) < 1e-5


def test_wrong_labels_and_guidance_are_refused_by_name(of_points, of_levels):
    free = ScoreSDE(n_steps=1, **SMALL).fit(POINTS, Y)
    for verb in free.elbo, free.log_prob:
        with pytest.raises(ValueError, match=r"^y must be None for a model without labels, n_classes=0"):
            verb(POINTS, y=Y)
    for verb in of_points.elbo, of_points.log_prob:
        with pytest.raises(ValueError, match=r"^y must be in 0\.\.1, got 0\.\.2"):
            verb(POINTS, y=np.r_[2, Y[1:]])
        with pytest.raises(ValueError, match=r"^y must have the shape \(400,\)"):
            verb(POINTS, y=Y[:3])
    with pytest.raises(ValueError, match=r"^y must be 400 int labels, got None"):
        of_points.fit(POINTS)
    for draw in of_points.sample, of_points.sample_path:
        with pytest.raises(ValueError, match=r"needs labels y, got None; pass labels, or leave guidance at 1"):
            draw(3, guidance=2.0)
        with pytest.raises(ValueError, match=r"^guidance_in must be 'eps' for a network without a law over levels"):
            draw(3, y=[0, 1, 1], guidance=2.0, guidance_in="logits")
        with pytest.raises(ValueError, match="guidance_in must be one of"):
            draw(3, y=[0, 1, 1], guidance_in="score")
    with pytest.raises(ArithmeticError, match=r"^the prediction is not finite with guidance=1e\+300; lower guidance"):
        of_points.sample(3, y=[0, 1, 1], guidance=1e300)
    for model in of_levels.values():  # in the logits no guidance is too large
        drawn = model.sample(3, y=[0, 1, 1], guidance=1e300, guidance_in="logits")
        assert set(np.unique(drawn)) <= {0.0, 1.0, 2.0, 3.0}


# --- two classes of independent pixels, whose laws are known ------------------------------------------------

PIXELS = np.repeat(
    [
        [[0.60, 0.30, 0.08, 0.02], [0.05, 0.15, 0.30, 0.50], [0.25, 0.25, 0.25, 0.25]],
        [[0.02, 0.13, 0.25, 0.60], [0.50, 0.10, 0.10, 0.30], [0.60, 0.20, 0.10, 0.10]],
    ],
    2,
    axis=1,
)  # (2, 6, 4)
CHAIN = NoiseSchedule.log_snr_even(24, 0.0, -12.0)  # x_1 leaves much to the decoder, and x_T all but forgets x_0
LEVELS = np.array([[RNG.choice(4, p=law) for law in PIXELS[y]] for y in Y], dtype=np.float64)


def without_network(model, x=LEVELS, y=Y):
    """A model whose network adds nothing: its law given the label is that of the histograms of the class."""
    model = model.set_params(prediction="levels", n_levels=4, n_classes=2, hidden=(4,), n_steps=1, rng=0).fit(x, y)
    model.network_.parameters[:] = 0
    return model


@pytest.fixture(scope="module")
def of_levels():
    """Both models with such a network."""
    return {
        "DDPM": without_network(DDPM(CHAIN, "mixture")),
        "ScoreSDE": without_network(ScoreSDE(n_sample_steps=6, t_min=0.2)),
    }


def tilted(model, w):
    """h^(1 − w) h_y^w, normalised: the histograms of every class that guidance w in the logits makes, (2, D, K)."""
    tilt = model.histograms_ ** (1 - w) * model.class_histograms_**w
    return tilt / tilt.sum(axis=-1, keepdims=True)


def log_mass(model, x, w=1.0):
    """log P(x | y) of independent pixels, (N, 2), for every label y."""
    laws = np.log(tilted(model, w))
    return (
        np.stack([[law[d, int(k)] for d, k in enumerate(row)] for row in x for law in laws]).sum(axis=1).reshape(-1, 2)
    )


def test_class_histograms_have_one_more_example_and_are_in_the_file(of_levels, tmp_path):
    for model in of_levels.values():
        for y in 0, 1:
            counts = np.array([[(LEVELS[y == Y, d] == k).sum() for k in range(4)] for d in range(6)])
            assert residual(model.class_histograms_[y], (counts + 0.25) / 201) < 1e-12
        model.save(tmp_path / "m.npz", overwrite=True)
        loaded = type(model).load(tmp_path / "m.npz")
        assert loaded.class_histograms_.tobytes() == model.class_histograms_.tobytes()
        x, t = RNG.standard_normal((5, 6)), 1
        assert np.array_equal(loaded.eps_hat(x, t, TOLD), model.eps_hat(x, t, TOLD))
        vars(loaded)["class_histograms_"] = 2 * model.class_histograms_
        loaded.save(tmp_path / "bad.npz", overwrite=True)
        with pytest.raises(ModelFileError, match="class_histograms_ must be positive, with sum 1 in every row"):
            type(model).load(tmp_path / "bad.npz")
    rare = without_network(DDPM(CHAIN), LEVELS[:9], np.zeros(9, dtype=int))
    assert residual(rare.class_histograms_[1], np.full((6, 4), 0.25)) < 1e-12  # a class without examples


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 2.0, 4.0, -1.0])
def test_guidance_in_the_logits_is_the_posterior_of_the_tilted_pixels(w, of_levels):
    """By hand: P(l_k | x_t) ∝ h^(1 − w) h_y^w N(x_t; scale l_k, std²), and ε̂ from its mean."""
    levels, x = np.linspace(-1, 1, 4), RNG.standard_normal((5, 6))
    for name, model in of_levels.items():
        for t in (1, 9, 24) if name == "DDPM" else (0.01, 0.3, 1.0):
            scale, std = model._level(t) if name == "DDPM" else model.sde_.level(t)
            own = -0.5 * ((x[:, :, None] - scale * levels) / std) ** 2
            law = tilted(model, w)[TOLD] * np.exp(own - own.max(axis=-1, keepdims=True))
            law /= law.sum(axis=-1, keepdims=True)
            eps_hat = (x - scale * law @ levels) / std
            found = model.eps_hat(x, t, TOLD, w, guidance_in="logits")
            assert residual(found, eps_hat) < 3e-5 / std
            assert residual(model.network_.law(x, scale, std, TOLD, w), law) < 1e-5
            if w in (0.0, 1.0):
                end = {"y": TOLD} if w else {}
                assert np.array_equal(found, model.eps_hat(x, t, **end))  # the ends are exact
            elif t in (9, 0.3):
                assert residual(model.eps_hat(x, t, TOLD, w), eps_hat) > 1e-3  # guidance in ε̂ is another rule


def p_value(drawn, law):
    """Of χ² for the levels (n, D) of independent columns with the law (D, K)."""
    observed = np.array([[(column == k).sum() for k in range(4)] for column in drawn.T])
    return stats.chi2.sf((((observed - len(drawn) * law) ** 2) / (len(drawn) * law)).sum(), 3 * 6)


def test_mixture_steps_guided_in_the_logits_draw_the_tilted_pixels(of_levels):
    """The steps of independent pixels are exact.  With a false alarm of 1e-7 a test; other laws fail."""
    model, w = of_levels["DDPM"], 2.0
    for y in 0, 1:
        told = {"y": np.full(1500, y), "guidance": w}
        drawn = model.sample(1500, rng=1, guidance_in="logits", **told)
        assert p_value(drawn, tilted(model, w)[y]) > 1e-7
        assert p_value(drawn, tilted(model, 1.0)[y]) < 1e-7
        assert p_value(model.sample(1500, rng=1, eta=1.0, **told), tilted(model, w)[y]) < 1e-7  # in ε̂


def test_large_guidance_sharpens_and_law_steps_take_it_in_the_logits(of_levels):
    """Large guidance leaves the levels with the largest h_y/h."""
    best = (of_levels["DDPM"].class_histograms_ / of_levels["DDPM"].histograms_).argmax(axis=-1)
    law = without_network(DDPM(CHAIN, "law"))
    for model, options in (of_levels["DDPM"], {}), (law, {}), (law, {"eta": 0.0}), (of_levels["ScoreSDE"], {}):
        told = np.arange(60) % 2
        drawn = model.sample(60, rng=0, y=told, guidance=400.0, guidance_in="logits", **options)
        assert (drawn == best[told]).mean() > 0.97
    for kind in of_levels["DDPM"], law:
        with pytest.raises(ValueError, match=r"^guidance_in must be 'logits' for ancestral steps with variance="):
            kind.sample(3, y=[0, 1, 1], guidance=2.0)
        assert kind.sample(3, y=[0, 1, 1], guidance=2.0, eta=0.0).shape == (3, 6)
        assert np.array_equal(kind.sample(3, 0, y=[0, 1, 1]), kind.sample(3, 0, y=[0, 1, 1], guidance_in="logits"))


# --- the bounds of these models -----------------------------------------------------------------------------


def test_paths_of_the_chain_give_the_exact_mass_with_labels_given_and_summed_out(of_levels):
    """All paths of an exact chain have the same weight, so that one path gives log P(x | y)."""
    model, prior = of_levels["DDPM"], np.array([0.3, 0.7])
    exact = log_mass(model, LEVELS)
    told = np.array(
        [[model.iwae(LEVELS, rng=r, n_draws=1, y=np.full(400, y)) for y in (0, 1)] for r in (0, 1)]
    ).transpose(0, 2, 1)
    assert np.abs(told - exact).max() < 0.05
    summed = logsumexp(exact + np.log(prior))
    assert np.abs(cross_fitted_bound(told, prior) - summed).max() < 0.05
    assert np.abs(logsumexp(told + np.log(prior)) - summed).max() < 0.05
    free = model.iwae(LEVELS, rng=0, n_draws=1)
    assert abs(free - summed).mean() > 0.2  # the twin: pixels that are independent without the label


@pytest.mark.parametrize("name", ["DDPM", "ScoreSDE"])
def test_bounds_have_the_exact_mean_with_labels_given_and_summed_out(name, of_levels):
    """Bits of the exact laws within 5.4 errors of the evaluation; a model of other classes is further away."""
    model, options = of_levels[name], {"n_times": 32} if name == "ScoreSDE" else {}
    x, y, prior = LEVELS[:200], Y[:200], np.array([0.4, 0.6])
    exact, unit = log_mass(model, x), 6 * np.log(2)
    given = -exact[np.arange(200), y].mean() / unit
    summed = -logsumexp(exact + np.log(prior)).mean() / unit
    told = model_bits(model, x, y, n_repeats=8, rng=0, **options)
    assert abs(told.mean - given) < 5.4 * told.noise_error < 0.1
    assert abs(model_bits(model, x, 1 - y, n_repeats=2, rng=0, **options).mean - given) > 0.5
    both = label_summed_bits(model, x, prior, n_repeats=8, rng=0, **options)
    assert abs(both.mean - summed) < 5.4 * both.noise_error < 0.1
    other = without_network(
        type(model)(CHAIN, "mixture") if name == "DDPM" else ScoreSDE(t_min=0.2), LEVELS, np.arange(400) // 2 % 2
    )
    twin = label_summed_bits(other, x, prior, n_repeats=2, rng=0, **options)
    assert abs(twin.mean - summed) > 0.1
