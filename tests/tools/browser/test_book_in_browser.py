"""The book in headless Chromium: errors, images, width of the page, contrast and accessibility, in both themes."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from scratchgen.report.book.pages import PAGES

NAMES = [*(page.name for page in PAGES), "api-ddpm", "source-ddpm-training"]
WIDE = """width => [...document.querySelectorAll("main *")].filter(element => {
    if (element.getBoundingClientRect().right <= width + 1) return false;
    for (let box = element.parentElement; box; box = box.parentElement)
        if (getComputedStyle(box).overflowX != "visible") return false;
    return true;
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("name", NAMES)
def test_no_errors_no_missing_image_and_no_sideways_scroll_on_a_phone(name, book, browser):
    page, problems = browser.new_page(viewport={"width": 390, "height": 800}), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto((book / f"{name}.html").as_uri())
    assert problems == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, page.evaluate(WIDE, 390)
    page.close()


def test_code_wraps_and_formulas_break_on_a_phone(book, browser):
    """No line of code is cut, and a formula of two lines is not wider than the screen."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((book / "ddpm.html").as_uri())
    cut = "[...document.querySelectorAll('pre.numbered')].filter(pre => pre.scrollWidth > pre.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    formula = "document.querySelector('#eq-29 .formula')"
    assert page.evaluate(f"{formula}.scrollWidth <= {formula}.clientWidth + 1")
    rows = "new Set([...document.querySelectorAll('#eq-29 .formula math > mrow')].map(part => part.offsetTop)).size"
    assert page.evaluate(rows.replace("part.offsetTop", "Math.round(part.getBoundingClientRect().bottom / 30)")) > 1
    page.close()


def test_pictures_are_dark_in_the_dark(book, browser):
    page = browser.new_page(color_scheme="dark")
    page.goto((book / "em.html").as_uri())
    assert "invert" in page.evaluate("getComputedStyle(document.querySelector('figure img')).filter")
    page.close()


@pytest.mark.parametrize(
    ("name", "figure", "before", "after"),
    [
        ("ddpm", "ddpm-ladder", "T = 16: entropy 0.9726, exact cross-entropy with σ² = β² 1.0995", "T = 32: entropy"),
        ("vae", "vae-beta", "β = 1: reconstruction −2.795, KL to the prior 1.818, ELBO −4.613", "β = 1.4: "),
        ("sde", "sde-scores", "t = 0.1: scale of the data 0.95", "t = 0.15: "),
    ],
)
def test_a_slider_says_and_draws_its_numbers(name, figure, before, after, book, browser):
    """By keyboard: the output, the value that is read aloud, and the mark or the map change; the label names it."""
    page, problems = browser.new_page(viewport={"width": 390, "height": 800}), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((book / f"{name}.html").as_uri())
    slider = page.get_by_role("slider")
    output = page.locator(f'[data-figure="{figure}"] output')
    drawn = "document.querySelector('canvas')?.toDataURL() ?? document.querySelector('.marker').style.left"
    first = page.evaluate(drawn)
    assert output.text_content().startswith(before)
    assert output.get_attribute("for") == slider.get_attribute("id")
    assert page.evaluate("document.querySelector('output').computedRole ?? 'status'") == "status"
    assert len(page.locator(f'label[for="{slider.get_attribute("id")}"]').text_content()) > 10
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert output.text_content().startswith(after)
    assert after.startswith(slider.get_attribute("aria-valuetext"))
    assert page.evaluate(drawn) != first
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(drawn) == first
    assert problems == []
    page.close()


@pytest.mark.parametrize("name", ["ddpm", "vae", "sde"])
def test_without_scripts_the_picture_stands_alone(name, book, browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto((book / f"{name}.html").as_uri())
    assert page.locator(".slider").count() == 1
    assert not page.locator(".slider").is_visible()
    figure = page.locator(".slider").get_attribute("data-figure")
    assert page.locator(f"#figure-{figure} img").is_visible()
    assert page.locator(".marker").count() == 0
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing(name, theme, book, browser):
    """WCAG 2.1, A and AA, with all details open."""
    page = browser.new_page(viewport={"width": 1024, "height": 800}, color_scheme=theme)
    page.goto((book / f"{name}.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
    results = Axe().run(page, options=rules)
    assert results.violations_count == 0, results.generate_report()
    page.close()


def test_text_lines_are_of_a_length_that_reads_well(book, browser):
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto((book / "ddpm.html").as_uri())
    width = page.evaluate("document.querySelector('main p:nth-of-type(2)').getBoundingClientRect().width")
    letter = page.evaluate("parseFloat(getComputedStyle(document.querySelector('main p')).fontSize)")
    assert 55 <= width / (0.47 * letter) <= 100
    page.close()


def test_the_formulas_are_typeset(book, browser):
    """MathML is shown, and not its text: a fraction is higher than a line."""
    page = browser.new_page(viewport={"width": 1024, "height": 800})
    page.goto((book / "ddpm.html").as_uri())
    assert page.evaluate("document.querySelector('#eq-26 mfrac').getBoundingClientRect().height") > 25
    page.close()


def test_the_contents_stand_beside_the_text_and_below_it_on_a_phone(book, browser):
    for width, beside in ((1200, True), (390, False)):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto((book / "em.html").as_uri())
        main, contents = (
            page.evaluate(f"(({{left, top}}) => [left, top])(document.querySelector('{tag}').getBoundingClientRect())")
            for tag in ("main", ".contents")
        )
        assert (contents[0] < main[0]) == beside
        assert (contents[1] > main[1] + 1000) != beside
        page.close()
