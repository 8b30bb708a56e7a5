"""The pages of the book on one's own data: their code runs, and their session prints what they show."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from scratchgen import recipes
from scratchgen.report import cli
from scratchgen.report.book import prose

X = np.random.default_rng(0).standard_normal((200, 2)) @ [[1.0, 0.8], [0.0, 0.5]]
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def blocks(page, language):
    text = "".join(part.body for part in prose.parts(page))
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def sessions():
    """(command, printed lines) of the sessions on the page on data."""
    for block in blocks("data", "console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed


def test_the_session_on_a_file_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    """Words are the same, and numbers to 2 % or their last digit; the seconds of the training may differ."""
    monkeypatch.chdir(tmp_path)
    commands = list(sessions())
    assert [shlex.split(command)[1] for command, _ in commands] == ["data", "fit", "sample", "score"]
    for command, shown in commands:
        program, *words = shlex.split(command)
        assert program == "scratchgen"
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        shown, printed = (re.sub(r"in \d+\.\d s", "in a time", text) for text in (shown, printed))
        assert NUMBER.sub("0", printed) == NUMBER.sub("0", shown)
        for new, old in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
            assert float(new) == pytest.approx(float(old), rel=0.02, abs=2 * 10.0 ** -len(old.partition(".")[2]))


class Bar:
    """A progress bar with the two parts of tqdm that the page uses."""

    def __init__(self, steps):
        self.steps, self.total = steps, None

    def __iter__(self):
        yield from self.steps


def run(block, at):
    """Run a block with small networks."""
    exec(compile(re.sub(r"(DDPM|ScoreSDE)\((?=\w+=)", r"\1(hidden=(16,), ", block), "a page", "exec"), at)


def test_the_code_on_data_and_models_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = ModuleType("tqdm")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", module)
    at = {"x": X, "held_out": X[:20]}
    for block in blocks("models", "python"):
        run(block, at)
    verbs, bar, resumed, early = blocks("data", "python")
    run(verbs, at)
    assert np.isclose(at["model"].score(X), at["model"].log_prob(X).mean())
    run(bar, at)
    assert at["bar"].total == 300
    assert at["model"].losses_.size in (100, 200, 300)
    at["model"] = whole = at["DDPM"](hidden=(16,), n_steps=250, rng=0)  # saved after 200 steps; `resume` takes 50 more
    run(resumed, at)
    assert at["model"] is not whole
    assert at["model"].sample(5, rng=1).tobytes() == whole.sample(5, rng=1).tobytes()
    run(early, at)
    assert at["model"].history_.validation_bounds.size > 0


def test_the_chapter_of_ddpm_has_the_ladder_of_the_tour():
    """Exact cross-entropy, bound, and bound of the exact ε̂: the last row of the ladder in benchmarks/TOUR.md."""
    tables = (Path(__file__).parents[2] / "benchmarks" / "TOUR.md").read_text("utf8")
    entropy = re.search(r"^\| DDPM \| −ELBO vs entropy H\(p\) \|[^|]+\| ([\d.]+) \|", tables, re.M)[1]
    exact, bound, least = re.search(r"^\| 100 \|(.+)\|$", tables, re.M)[1].replace("|", " ").split()
    text = " ".join("".join(part.body for part in prose.parts("ddpm")).split())
    assert f"the entropy of the data is {entropy}, the exact cross-entropy of the samples {exact}, and" in text
    assert f"the bound {bound}. The bound of the exact $\\hat\\varepsilon$ is {least}" in text
    assert f"So {float(least) - float(entropy):.3f} nats are the cost of Gaussian steps" in text
    assert f"and {float(bound) - float(least):.3f} nats the error of the network" in text


def test_the_page_of_networks_has_the_bits_of_the_recipes():
    text = " ".join("".join(part.body for part in prose.parts("networks")).split())
    for family, what in (("sde", "score SDE"), ("ddpm", "DDPM"), ("vae", "VAE"), ("tables", "tables")):
        bits = recipes.find("digits", family, "best").measured[0].expected
        assert f"{bits:.3f} bits ({what}" in text, family
