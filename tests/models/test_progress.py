"""Output of `verbose`: lines or a bar on stderr, and nothing else."""

import io
import re
import sys

import numpy as np
import pytest

from scratchgen import DDPM, PPCA, VAE, CategoricalMixture, FactorAnalysis, GaussianMixture, LinearVAE, ScoreSDE
from scratchgen.models import progress

X = np.random.default_rng(0).standard_normal((40, 2))
LEVELS = np.random.default_rng(1).integers(0, 3, (40, 2))
NET = {"hidden": (4,), "n_steps": 45, "batch_size": 8, "rng": 0}
KINDS = {
    "DDPM": (lambda **more: DDPM(**NET, **more), X),
    "ScoreSDE": (lambda **more: ScoreSDE(early_stopping=True, n_iter_no_change=99, **NET, **more), X),
    "VAE": (lambda **more: VAE(1, **NET, **more), X),
    "LinearVAE": (lambda **more: LinearVAE(1, n_steps=45, rng=0, **more), X),
    "GaussianMixture": (lambda **more: GaussianMixture(2, tol=0.0, max_iter=20, n_init=2, rng=0, **more), X),
    "CategoricalMixture": (lambda **more: CategoricalMixture(2, 3, rng=0, **more), LEVELS),
    "PPCA": (lambda **more: PPCA(1, **more), X),
    "FactorAnalysis": (lambda **more: FactorAnalysis(1, max_iter=100, rng=0, **more), X),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self):
        return True


def without_time(text):
    return re.sub(r"\d+(\.\d+)? s\b", "… s", text)


@every_kind
def test_lines_say_step_loss_and_time(kind, capsys):
    make, x = KINDS[kind]
    model = make(verbose=True).fit(x)
    out, err = capsys.readouterr()
    *lines, last = err.splitlines()
    assert out == ""
    assert len(lines) <= 10
    step = rf"{kind}: step \d+ of \d+, loss -?[\d.e+-]+(, validation bound -?[\d.e+-]+ nats)?, at most \d+ s left"
    assert all(re.fullmatch(step, line) for line in lines), lines
    assert re.fullmatch(rf"{kind}: \d+ steps? in \d+\.\d s, loss -?[\d.e+-]+(, validation bound .* nats)?", last), last
    assert max(map(len, [*lines, last])) <= 100
    plain = make().fit(x)
    assert capsys.readouterr() == ("", "")
    assert model.sample(5, rng=1).tobytes() == plain.sample(5, rng=1).tobytes()


def test_the_numbers_are_those_of_the_training(capsys):
    model = DDPM(**NET, verbose=1).fit(X)
    lines = without_time(capsys.readouterr().err).splitlines()
    assert lines[1] == f"DDPM: step 10 of 45, loss {model.losses_[:10].mean():.4g}, at most … s left"
    assert lines[-1] == f"DDPM: 45 steps in … s, loss {model.losses_.mean():.4g}"
    assert len(lines) == 9
    model = ScoreSDE(early_stopping=True, **NET, verbose=1).fit(X)
    text = f"validation bound {model.validation_bounds_[-1]:.4g} nats"
    assert text in capsys.readouterr().err.splitlines()[-1]
    model = GaussianMixture(2, rng=0, verbose=True).fit(X)
    assert f"loss {-model.lower_bounds_[-1]:.4g}" in capsys.readouterr().err.splitlines()[-1]


def test_train_is_silent_and_resume_is_not(capsys):
    model = VAE(1, **NET, verbose=True)
    for _ in zip(range(20), model.train(X), strict=False):
        pass
    assert capsys.readouterr() == ("", "")
    model.resume(X)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("VAE: step 25 of 45")
    assert without_time(lines[-1]).startswith("VAE: 25 more steps in … s (45 in all), loss")
    model = VAE(1, **NET)
    for _ in zip(range(20), model.train(X), strict=False):
        pass
    model.set_params(verbose=True).resume(X)  # the argument may change
    assert "(45 in all)" in capsys.readouterr().err


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_with_rich_gets_a_bar(no_color, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    VAE(1, **NET, verbose=True).fit(X)
    text = sys.stderr.getvalue()
    assert "VAE: step 45 of 45" in text or "VAE: step 44 of 45" in text or "\x1b" in text
    assert text.splitlines()[-1].endswith(f"loss {VAE(1, **NET).fit(X).losses_.mean():.4g}")
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", text)) != no_color  # a colour


def test_a_terminal_without_rich_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    VAE(1, **NET, verbose=True).fit(X)
    lines = sys.stderr.getvalue().splitlines()
    assert len(lines) == 9
    assert "\x1b" not in sys.stderr.getvalue()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_redraw_gets_lines(term, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", term)
    VAE(1, **NET, verbose=True).fit(X)
    assert len(sys.stderr.getvalue().splitlines()) == 9


@pytest.mark.parametrize("terminal", [True, False])
def test_without_lines_a_bar_and_the_last_line_remain(terminal, monkeypatch):
    """The commands print the last line on stdout; a pipe has no other."""
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    model, last = VAE(1, **NET), list[str]()
    for _ in progress.shown(model.train(X), "it", model._report, lines=False, end=last.append):
        pass
    assert without_time(last[0]) == f"it: 45 steps in … s, loss {model.losses_.mean():.4g}"
    assert len(last) == 1
    assert ("it: step" in sys.stderr.getvalue()) == terminal
    assert ("it: 45 steps" in sys.stderr.getvalue()) is False


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_lines_are_ascii(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding=encoding))
    GaussianMixture(2, rng=0, verbose=True).fit(X)
    sys.stderr.flush()
    assert raw.getvalue().isascii()
    assert raw.getvalue().endswith(b"\n")


def test_without_stderr_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert PPCA(1, verbose=True).fit(X).n_iter_ == 0


def test_an_error_of_the_training_comes_through(capsys):
    with pytest.raises(ValueError, match="x must be finite"):
        PPCA(1, verbose=True).fit(np.full_like(X, np.inf))
    with pytest.raises(ArithmeticError):
        VAE(1, **NET | {"learning_rate": 1e30}, verbose=True).fit(X)
    assert "steps in" not in capsys.readouterr().err
