"""The book: every equation with its parts, links that resolve, images with text and size, no network."""

import importlib
import json
import pkgutil
import re
import sys
from dataclasses import replace
from html import unescape
from itertools import pairwise
from urllib.parse import unquote

import numpy as np
import pytest

import scratchgen
from scratchgen import PPCA, VP, NoiseSchedule, datasets
from scratchgen.conformance import Check
from scratchgen.conformance.result import NAMELESS
from scratchgen.equations import EQUATIONS, PROPOSITIONS, find, slug_of, through
from scratchgen.grading import ancestral_density, grade_bound
from scratchgen.likelihood import kl_gaussian
from scratchgen.models.files import SHIPPED
from scratchgen.museum import tour
from scratchgen.report import cli
from scratchgen.report.book import cells, code, facts, frame, maths, prose
from scratchgen.report.book.build import Book
from scratchgen.report.book.facts import Fact, Mistake, mistakes
from scratchgen.report.book.figures import ALT, FIGURES
from scratchgen.report.book.frame import subscripts
from scratchgen.report.book.pages import PAGES, link, page_of, slug
from scratchgen.report.book.reference import MODULES, docstring, entries, page_name
from scratchgen.report.book.shipped import drawn, scored
from scratchgen.report.console import Grade
from scratchgen.report.figures import DRAWINGS, Picture
from scratchgen.report.tour import TERMS, Tour, standardized_penguins
from tests.tools.book_pages import few_exhibits, few_faults

ROWS = EQUATIONS + PROPOSITIONS


# --- the table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_has_latex_that_converts(row):
    assert row.latex
    formula = maths.display(row.latex)
    assert "\\" not in re.sub('alttext="[^"]*"', "", formula), "a command that the converter does not know"
    assert formula.count("<math") == row.latex.count(r"\\") + row.latex.count(r"\qquad") + 1


def test_every_equation_has_a_claim_and_every_erratum_its_reason():
    sections = {part.number: part for page in PAGES for part in prose.parts(page.name) if part.number}
    assert list(sections) == [row.name for row in EQUATIONS]
    for row in EQUATIONS:
        claim, _, reason = sections[row.name].body.partition("\n> ")
        assert 40 < len(claim.strip()) < 700, row.name
        assert bool(reason.strip()) == bool(row.erratum), row.name


def test_symbols_are_marked_whole():
    """ε is marked by itself, but not inside ε_t or ε̂."""
    formula = maths.display(r"\varepsilon_t = \hat{\varepsilon} + \varepsilon", {"mark-1": r"\varepsilon"})
    assert formula.count('class="mark-1"') == 1
    assert maths.shared(r"\varepsilon_t", {"eps": r"\varepsilon", "eps_t": r"\varepsilon_t"}, {"eps", "eps_t"}) == {
        "eps_t": r"\varepsilon_t"
    }


@pytest.mark.parametrize(
    ("latex", "pieces"),
    [
        (r"-a(b - c) = d + \| e - f \|^2 - \left\{ g + h \right\}", ["-a(b - c)", "= d", r"+ \| e - f \|^2", None]),
        (r"\int q(x) \log p(x)", [r"\int q(x)", r"\log p(x)"]),
        (r"\mathbb{E} \log p", [r"\mathbb{E} \log p"]),
        (r"a \leftarrow -b \quad \text{in turn}", ["a", r"\leftarrow -b \quad", r"\text{in }", r"\text{turn}"]),
    ],
)
def test_a_line_breaks_at_signs_and_words_outside_brackets(latex, pieces):
    found = maths.chunks(latex)
    wanted = [latex.partition(r"\|^2 ")[2] if piece is None else piece for piece in pieces]
    assert [chunk.strip() for chunk in found] == [piece.strip() for piece in wanted]
    assert maths.display(latex).count("<math") == 1


def test_signs_at_the_start_of_a_line_keep_their_space():
    assert '<mrow><mo form="infix">&#x0002B;</mo>' in maths.display("a + b")
    assert 'form="infix"' not in maths.display("-a")


def test_lines_of_code_know_their_depth():
    shown = code.numbered([(7, '<span class="k">if</span> a:'), (8, "        b()"), (9, "")], "L")
    assert re.findall('class="line (in.)" id="(L.)"', shown) == [("in0", "L7"), ("in2", "L8"), ("in0", "L9")]
    assert re.findall('class="line (in.)"', code.block("if a:\n    b()\n", "python")) == ["in0", "in1"]
    assert code.block("a  b\n") == '<pre tabindex="0"><code>a  b</code></pre>\n'


def test_a_letter_with_a_hat_is_one_sign_in_code():
    hat = '<span class="accented">ε̂</span>'
    assert code.block("‖ε − ε̂‖²") == f'<pre tabindex="0"><code>‖ε − {hat}‖²</code></pre>\n'
    assert f"# {hat}‖" in code.block("# ε̂‖", "python")


def test_an_empty_formula_is_an_error():
    with pytest.raises(ValueError, match=r"^a formula must not be empty"):
        maths.inline(" ")


# --- the pages ----------------------------------------------------------------------------------------------------


def test_every_page_is_there_and_no_other(book, pages):
    files = {path.relative_to(book).as_posix() for path in book.rglob("*") if path.is_file()}
    named = {f"{page.name}.html" for page in PAGES} | {f"{page_name(module)}.html" for module in MODULES}
    assert {name for name in pages if not name.startswith("source-")} == named
    assert files - set(pages) == {"style.css", "book.js", *(f"figures/{name}.png" for name in FIGURES)}


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row.name)
def test_every_equation_has_all_its_parts(row, book):
    text = (book / f"{page_of(row)}.html").read_text("utf8")
    start = text.index(f'<section class="equation" id="eq-{row.name}"')
    section = text[start : text.index("</section>", start)]
    words = re.sub("<[^>]+>", "", section)
    place = code.place_of(find(row.function))
    assert "<math" in section
    assert 'class="claim"' in section
    assert ("On the slide" in section) == bool(row.erratum)
    assert f"{place.file}:{place.line}" in section or "shown at" in section
    assert "✓ within the tolerance" in section
    assert f"scratchgen verify {row.name}" in section
    assert all(verb in section for verb in row.runs_in)
    assert row.runs_in or row.theory_only in words


def test_every_proposition_stands_on_its_page_with_its_tests(book, pages):
    tests = facts.test_names()
    texts = {name: (book / name).read_text("utf8") for name in {f"{page_of(row)}.html" for row in PROPOSITIONS}}
    for row in PROPOSITIONS:
        name, _, anchor = link(row).partition("#")
        assert pages[name].ids.count(anchor) == 1, row.name
        article = texts[name].split(f'<article class="proposition" id="{anchor}">')[1].split("</article>")[0]
        assert f"<code>scratchgen verify {slug_of(row)}</code>" in article
        assert all(frame.test_name(test) in article for test in tests[row.name]), row.name


def test_links_and_images_resolve_and_nothing_comes_from_the_network(book, pages):
    for name, page in pages.items():
        targets = [tag.get("href") or tag.get("src") for tag in page.all("a", "img", "link", "script") if tag]
        for target in targets:
            if target in ("data:,", None):
                continue
            assert not re.match(r"\w+:|//", target), (name, target)
            file, _, anchor = unquote(target).partition("#")
            assert (book / (file or name)).is_file(), (name, target)
            if anchor:
                assert anchor in pages[file or name].ids, (name, target)
    assert "url(" not in (book / "style.css").read_text("utf8")


def test_pages_need_no_script(pages):
    """Scripts only show what is hidden without them: sliders beside pictures that are complete."""
    for name, page in pages.items():
        sliders = [tag for tag in page.all("div") if tag.get("class") == "slider"]
        numbers = [{"type": "application/json"}] * len(sliders)
        assert page.all("script") == ([{"src": "book.js", "defer": None}, *numbers] if sliders else []), name
        assert all("hidden" in slider for slider in sliders)
        assert {f"figure-{slider['data-figure']}" for slider in sliders} <= set(page.ids)


def test_ids_are_unique(pages):
    for name, page in pages.items():
        assert len(set(page.ids)) == len(page.ids), name


def test_images_have_text_and_size(book, pages):
    for name, page in pages.items():
        for image in page.all("img"):
            assert len(image["alt"]) > 40, name
            assert int(image["width"]) > 100, name
            assert int(image["height"]) > 100, name
    assert FIGURES.keys() == ALT.keys()
    shown = {image["src"] for page in pages.values() for image in page.all("img")}
    assert shown == {f"figures/{name}.png" for name in FIGURES}


def test_headings_begin_with_one_h1_and_skip_no_level(pages):
    for name, page in pages.items():
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1, name
        assert levels.count(1) == 1, name
        assert all(after <= before + 1 for before, after in pairwise(levels)), name


def test_pages_have_landmarks_and_a_language(pages):
    for name, page in pages.items():
        assert page.all("html")[0]["lang"] == "en", name
        assert [len(page.all(tag)) for tag in ("main", "header", "footer")] == [1, 1, 1], name
        assert all("aria-label" in tag for tag in page.all("nav")), name
        assert page.all("a")[0]["class"] == "skip", name


def test_colours_are_the_same_in_formula_and_code(book):
    text = (book / "ddpm.html").read_text("utf8")
    section = text[text.index('id="eq-29"') :]
    section = section[: section.index("</section>")]
    mark = re.search(r'<span class="n (mark-\d)">eps_hat</span>', section)[1]
    formula = section[: section.index("</div>")]
    assert f'<mrow class="{mark}">' in formula
    assert not re.search('<mrow class="mark-.">(<mi>ε</mi>)?<mrow class="mark-.">', formula)
    names = "noise", "eps"  # both are ε
    assert len({re.search(f'<code class="(mark-.)">{name}</code>', section)[1] for name in names}) == 1


# --- sliders ----------------------------------------------------------------------------------------------------------


def numbers_of(book, page, figure):
    """The JSON of a slider as it stands in its page."""
    text = (book / f"{page}.html").read_text("utf8")
    return json.loads(
        re.search(f'data-figure="{figure}".*?<script type="application/json">(.*?)</script>', text, re.S)[1]
    )


def test_the_slider_of_the_ladder_has_exact_numbers(book):
    """Entropy ≤ exact cross-entropy ≤ bound, for every T; the density of 16 steps from a coarser grid."""
    data, law = numbers_of(book, "ddpm", "ddpm-ladder"), datasets.gaussians_1d()
    entropy, exact, bound, best = (np.array(row) for row in data["rows"].values())
    assert np.ptp(entropy) == 0
    assert entropy[0] == pytest.approx(law.entropy(), abs=6e-5)
    assert np.all(np.diff([entropy, exact, bound], axis=0) > -1e-4)
    assert np.all(best <= bound)
    schedule = NoiseSchedule.linear(16)
    levels = list(zip(schedule.alpha_bar, schedule.beta_bar, strict=True))

    def eps_hat(x, t):
        return -levels[t][1] * law.diffuse(*levels[t]).score(x)

    i = data["values"].index(16)
    kl = ancestral_density(schedule, eps_hat, 1, final_spacing=0.02).kl_from(law)
    assert exact[i] == pytest.approx(law.entropy() + kl, abs=6e-5)
    assert bound[i] == pytest.approx(grade_bound(schedule, eps_hat, law).bound, abs=6e-5)
    assert bound[i] - exact[i] > 0.1


def test_the_slider_of_the_beta_vae_has_exact_numbers(book):
    """The gap is the mean KL from q to the posterior, and 0 for β = 1; q has the precision I + WᵀW/(β σ²)."""
    data, x = numbers_of(book, "vae", "vae-beta"), standardized_penguins()
    reconstruction, kl, elbo, log_prob, gap = (np.array(row) for row in data["rows"].values())
    assert reconstruction - kl == pytest.approx(elbo, abs=2e-3)
    assert log_prob == pytest.approx(np.full(len(gap), PPCA(2).fit(x).score(x)), abs=6e-4)
    assert elbo + gap == pytest.approx(log_prob, abs=2e-3)
    assert [beta for beta, lost in zip(data["values"], gap, strict=True) if lost == 0] == [1]
    model = PPCA(2).fit(x)
    W, noise, centred = model.components_, model.noise_variance_, x - model.mean_
    for beta in (0.25, 4):
        q, posterior = (np.linalg.inv(np.eye(2) + W.T @ W / (weight * noise)) for weight in (beta, 1))
        means, exact = centred @ W @ q / (beta * noise), centred @ W @ posterior / noise
        i = data["values"].index(beta)
        assert gap[i] == pytest.approx(
            np.mean([kl_gaussian(m, q, e, posterior) for m, e in zip(means, exact, strict=True)]), abs=6e-4
        )
        assert kl[i] == pytest.approx(np.mean([kl_gaussian(m, q, np.zeros(2), np.eye(2)) for m in means]), abs=6e-4)


def test_the_slider_of_the_score_has_exact_numbers(book):
    """Arrows have the direction of the score and the square root of its length, 0.6 for the longest."""
    data, law, process = numbers_of(book, "sde", "sde-scores"), datasets.eight_gaussians(), VP()
    scale, std, longest = data["rows"].values()
    field = data["map"]
    assert "places" not in data
    assert np.shape(field["x0"]) == np.shape(field["noise"])
    for i in (0, 5, 10):
        level = process.level(data["values"][i])
        assert (field["scale"][i], field["std"][i]) == pytest.approx(level, abs=6e-5)
        assert (scale[i], std[i]) == pytest.approx(level, abs=6e-3)
        scores, arrows = law.diffuse(*level).score(np.array(field["grid"])), np.array(field["arrows"][i])
        lengths = np.linalg.norm(scores, axis=1)
        assert longest[i] == pytest.approx(lengths.max(), abs=6e-3)
        assert np.linalg.norm(arrows, axis=1) == pytest.approx(0.6 * np.sqrt(lengths / lengths.max()), abs=0.01)
        assert (arrows * scores).sum(axis=1) == pytest.approx(
            np.linalg.norm(arrows, axis=1) * lengths, rel=0.02, abs=0.1
        )


@pytest.mark.parametrize(("page", "figure"), [("ddpm", "ddpm-ladder"), ("vae", "vae-beta")])
def test_the_mark_of_a_slider_stands_at_its_value(page, figure, book):
    """The axis is logarithmic, so the places are a straight line over the logarithm of the values."""
    data = numbers_of(book, page, figure)
    logs, found = np.log(data["values"]), np.array(data["places"])
    assert found == pytest.approx(np.polyval(np.polyfit(logs, found, 1), logs), abs=2e-4)
    assert 0 < found[0] < 0.2 < 0.6 < found[-1] < 1
    assert 0 < data["top"] < 0.2 < 0.5 < data["height"] < 1


# --- facts -----------------------------------------------------------------------------------------------------------


def test_mistakes_stand_at_their_rows_with_their_effect(book):
    text = (book / "ddpm.html").read_text("utf8")
    section = text[text.index('id="eq-29"') :]
    section = section[: section.index("</section>")]
    assert "with twice the factor" in section
    assert "the prefactor of ‖ε − ε̂‖² has lost its ½, as printed" in section
    assert "times the tolerance" in section
    assert not any("no known mistake gives" in page.read_text("utf8") for page in book.glob("[!s]*.html"))


def test_mistakes_of_running_code_have_numbers_except_where_the_check_is_slow(monkeypatch):
    monkeypatch.setattr(tour, "EXHIBITS", few_exhibits())
    monkeypatch.setattr(tour, "FAULTS", few_faults())
    found = list(mistakes())
    assert {name for name, mistake in found if mistake.result is None} == {"Algorithm 1"}
    (adam,) = [mistake.result for name, mistake in found if name == "Adam"]
    assert adam.residual > adam.tolerance
    assert not any(mistake.result for _, mistake in found)  # a check with a mistake is false


def test_a_failed_check_is_shown_as_such():
    row = EQUATIONS[24]
    failed = Check("check", "(25)", "x_t", np.ones(2), np.zeros(2), 0.5, 1e-9, "a root is missing")
    fact = Fact(row, failed, [Mistake("a mistake", "somewhere", "ddpm.q_sample", None)], [])
    book = Book({row.name: fact}, {})
    shown = str(book.parts.sides(fact))
    assert "✗ OUTSIDE the tolerance: a root is missing" in shown
    mistakes = str(book.parts.mistakes(fact))
    assert "1 known mistake, and what it does" in mistakes
    assert "It takes too long for the book: <code>scratchgen museum</code> prints its numbers." in mistakes
    nameless = Mistake("a mistake", "somewhere", "ddpm.q_sample", replace(failed, diagnosis=f"it is 1; {NAMELESS}"))
    assert nameless.effect == "it is 1; the check cannot name the cause"


def test_the_start_page_counts_the_equations_that_models_run():
    n = sum(bool(through(row, ROWS)) for row in EQUATIONS)
    text = " ".join(part.body for part in prose.parts("index"))
    assert f"For {n} of the {len(EQUATIONS)} this is the function that models run; the other {34 - n} are" in text


def test_the_audit_of_the_example_fails_as_shown_and_passes_when_mended(book, tmp_path, capsys):
    text = (book / "audit.html").read_text("utf8")
    assert "2 of 3 checks pass" in text
    assert "the noise has factor σ², a" in text
    example = code.ROOT / "report" / "book" / "examples" / "my_ddpm.py"
    mended = tmp_path / "mended.py"
    mended.write_text(example.read_text("utf8").replace("* betas[t] * noise", "* np.sqrt(betas[t]) * noise"))
    assert cli.main(["audit", str(mended)]) == 0
    assert "3 of 3 checks pass" in capsys.readouterr().out


# --- examples --------------------------------------------------------------------------------------------------------

CHAPTERS = ("variational", "vae", "em", "ddpm", "sde")


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_chapter_shows_its_example_with_its_output(name, book):
    text = (book / f"{name}.html").read_text("utf8")
    shown = text[text.index('id="an-example-run-now"') : text.index('<section class="equation"')]
    words = unescape(re.sub("<[^>]+>", "", shown))
    source = (code.ROOT / "report" / "book" / "examples" / f"{name}.py").read_text("utf8")
    code_lines = [line for line in source.splitlines() if line and not line.startswith("#")]
    assert [line for line in code_lines if line not in words] == []
    assert shown.count('<div class="output">') == len(re.findall("^# %%$", source, re.M)), "every cell prints"
    assert source.startswith("# %% [markdown]\n")


def test_examples_reach_their_exact_answers(book, namespaces):
    """The grade that each example prints; the seeds are fixed."""
    at = namespaces["variational"]
    assert np.diff(at["bounds"]).min() > -1e-12
    assert at["bounds"][-1] == pytest.approx(at["best"], abs=1e-12)
    assert at["log_p"] - at["best"] == pytest.approx(at["gap"], abs=1e-12)
    assert at["gap"] > 0.05
    assert at["tight"] == pytest.approx(at["log_p"], abs=1e-12)
    assert at["joint"] == pytest.approx(at["marginal"] + at["average_gap"], abs=1e-12)
    at = namespaces["vae"]
    assert at["bound"] == pytest.approx(at["best"].score(at["penguins"]), abs=1e-3)
    assert np.exp(at["network"].log_variance[0]) == pytest.approx(at["best"].noise_variance_, rel=1e-2)
    assert at["grade"].maximum - at["grade"].elbo < 1e-6
    weighted = at["beta_vae"]
    assert weighted.losses_[-20:].mean() < -weighted.elbo(at["penguins"], rng=1).mean() - 1  # no bound
    at = namespaces["em"]
    assert np.diff(at["bounds"]).min() > -1e-12
    assert 0 < at["truth"].kl(at["mixture"]) < 0.02
    assert np.allclose(at["model"].impute([[1.0, np.nan, 10.0]]), [[1, 6, 10]], atol=0.05)
    assert np.allclose(at["draws"], 6, atol=0.5)
    at = namespaces["ddpm"]
    assert at["grade"].entropy < at["grade"].least_bound < at["grade"].bound < at["grade"].least_bound + 0.05
    assert np.allclose(at["samples"].mean(axis=0), at["truth"].mean(), atol=0.1)
    at = namespaces["sde"]
    assert 0 < at["kl"] < at["bound"] < 0.06
    assert (at["samples"] > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_a_cell_that_fails_names_its_line(tmp_path):
    path = tmp_path / "example.py"
    path.write_text("# %% [markdown]\n# Text.\n\n# %%\nx = 1\n\n# %%\nprint(x)\nx / 0\n")
    found = cells.run(path)
    assert next(found) == cells.Cell("text", "Text.")
    assert next(found) == cells.Cell("code", "x = 1")
    with pytest.raises(ZeroDivisionError) as raised:
        next(found)
    assert raised.traceback[-1].lineno == 8  # counted from 0


# --- the API ---------------------------------------------------------------------------------------------------------


def test_the_api_has_every_public_name_of_the_modules_beside_the_chapters():
    listed = {id(getattr(importlib.import_module(name), entry.name)) for name in MODULES for entry in entries(name)}
    left_out = {"__main__", "blocks", "validation", "equations", "museum", "report", "fast"}
    left_out |= {"models", "testing"}  # names of the package itself; what needs Hypothesis
    for module in pkgutil.iter_modules(scratchgen.__path__):
        if module.name not in left_out:
            own = f"scratchgen.{module.name}"
            for entry in entries(own):
                assert id(getattr(importlib.import_module(own), entry.name)) in listed, (own, entry.name)


def test_every_public_name_is_in_the_api(pages):
    for module in MODULES:
        page = pages[f"{page_name(module)}.html"]
        for entry in entries(module):
            assert entry.name in page.ids
            assert entry.summary, entry.name
            assert all(member.summary for member in entry.members), entry.name
    assert {"DDPM", "DDPM.fit", "DDPM.sample"} <= set(pages["api-models.html"].ids)


def test_a_docstring_becomes_lists_and_code():
    text = "One line.\n\nParameters\n----------\nx : (N, D)\n    Data.\n\n" + "Examples\n--------\n>>> 1 + 1\n2\n"
    shown = docstring(text)
    assert "One line" not in shown
    assert "<dt><code>x</code> (N, D)</dt><dd><p>Data.</p>" in shown
    assert re.search("<pre.*1", shown, re.S)
    assert "<p>Free text.</p>" in docstring("One.\n\nNotes\n-----\nFree text.\n")


# --- trained models --------------------------------------------------------------------------------------------------


def page_with(name, results):
    """The text and sections of a page: its numbers pass, its pictures are not drawn, its example is not run."""
    passed = Check("check", "(1)", "a number", np.ones(1), np.ones(1), 0.0, 1e-9, "")
    found = {row.name: Fact(row, passed, [], []) for row in ROWS}
    names = [*FIGURES, *(f"trained-{name}" for name in DRAWINGS)]
    pictures = {name: Picture(f"{name}.png", (700, 300), "a text that stands for a picture") for name in names}
    page = next(page for page in PAGES if page.name == name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "run", lambda path: [])
        content, sections = Book(found, pictures, results).content(page)
    return content, [title for _, title in sections]


def tour_with(*grades):
    """A tour that trained nothing."""
    return Tour(5, False, list(grades), bits_per_dim={"a model of the tour": 2.125})


@pytest.mark.parametrize("chapter", ["em", "vae", "ddpm", "sde"])
def test_a_chapter_shows_the_grades_and_pictures_of_a_tour(chapter):
    results = tour_with(
        Grade(chapter, "log p_θ vs generator", 1.5, -1.0, -0.1, 0.1, "radians"),
        Grade("another", "a gap of another", 1.0, 1.0, -0.1, 0.1),
    )
    text, sections = page_with(chapter, results)
    assert sum(section.startswith("Trained: ") for section in sections) == 1
    assert "✗ 1 of 2 differences within tolerance" in text
    assert "log p<sub>θ</sub> vs generator</th><td>radians</td>" in text
    assert "−1.00000" in text
    assert text.count("✗ OUTSIDE") == 1
    assert "a gap of another" not in text
    assert subscripts(TERMS[chapter]) in text
    shown = {name for name in DRAWINGS if f'id="figure-trained-{name}"' in text}
    assert shown == {name for name in DRAWINGS if name.split("-")[0] == chapter}
    without, sections = page_with(chapter, None)
    assert "Trained: digits" in sections
    assert "<code>scratchgen tour</code> trains all models of this book from scratch" in without
    assert 'src="trained-' not in without
    assert "OUTSIDE" not in without


def test_the_start_page_has_the_verdict_and_the_pictures_of_a_tour():
    text, _ = page_with("index", tour_with(Grade("em", "a number", 1.0, 1.0, -0.1, 0.1)))
    assert "✓ 1 of 1 differences within tolerance" in text
    assert len(re.findall('src="trained-system-[a-z]+.png"', text)) == 7
    assert len(re.findall('src="system-[a-z]+.png"', page_with("index", None)[0])) == 7


def test_every_picture_of_a_tour_has_a_text_and_a_place():
    text = "".join(page_with(page.name, tour_with())[0] for page in PAGES if page.name in ("index", "networks"))
    text += "".join(page_with(name, tour_with())[0] for name in ("em", "vae", "ddpm", "sde"))
    for name, (alt, _) in DRAWINGS.items():
        assert len(alt) > 40, name
        assert text.count(f'src="trained-{name}.png"') == 1, name


def test_digits_have_the_bits_that_the_command_prints(capsys):
    text, _ = page_with("networks", tour_with())
    assert 'a model of the tour</th><td class="figure">2.125' in text
    assert all(f"<code>{name}</code>, in the package" in text for name in SHIPPED)
    assert "IWAE-64 is a bound" in text
    assert "IWAE-64" not in page_with("networks", None)[0]
    for name in ("digits-tables", "digits-sde"):
        assert cli.main(["score", name, "digits_test"]) == 0
        bits = float(re.search(r"([\d.]+) bits a column", capsys.readouterr().out)[1])
        assert f"{scored(name).bits:.3f}" in text[text.index(f"<code>{name}</code>") :][:200]
        assert abs(scored(name).bits - bits) < 1e-4


def test_digits_are_those_that_the_command_draws(tmp_path):
    path = tmp_path / "digits.npy"
    assert cli.main(["sample", "digits-sde", "-n", "36", "-o", str(path)]) == 0
    assert np.array_equal(np.load(path), drawn("digits-sde"))


# --- the command --------------------------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert cli.main(["book", "-o", str(tmp_path)]) == 2
    assert "holds files that are not an earlier book; name another folder" in capsys.readouterr().err


def test_an_earlier_book_is_replaced(tmp_path, monkeypatch, capsys):
    (tmp_path / "glossary.html").touch()
    monkeypatch.setattr("scratchgen.report.book.build.build", lambda folder: [folder])
    assert cli.main(["book", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"1 pages; open {tmp_path / 'index.html'}\n"


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("scratchgen.report.book")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert cli.main(["book", "-o", str(tmp_path / "book")]) == 2
    assert re.search("the book needs latex2mathml.*pip install", capsys.readouterr().err)


def test_slugs_are_plain():
    assert slug("EM's rate") == "em-s-rate"
    assert slug("σ_t² of the reverse steps") == "sigma-t2-of-the-reverse-steps"
    assert prose.link_to_equation("35") == "(35)"
    assert json.loads(json.dumps(prose.titles()))["25"] == "The marginal after t steps"
