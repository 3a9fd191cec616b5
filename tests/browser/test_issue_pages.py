"""Issues as a browser shows them: no sideways scrolling, readable in light and dark.

With SCREENSHOTS=DIR in the environment, pictures are written to DIR.
"""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from newsletter.checking import styles
from newsletter.checking.design.contrast import hex_of, texts
from newsletter.issues.parsing.issue_file import parse_issue, read_issue
from newsletter.rendering.preview import preview
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
DIGEST, LETTER = "engineering-at-scale-2026-03-27", "letter-2026-03-28"
PUBLICATION = Publication(
    name="Engineering @ Scale",
    base_url="https://news.example.com",
    postal_address="Example Street 1, 12345 Example Town",
    from_email="editors@example.com",
    from_name="The Editors",
    reply_to=None,
    language="en",
    logo_url=None,
)
ALICE = {"name": "Alice", "email": "alice@example.org", "attributes": {}}
#: Everything that might push a narrow page open.
WIDE = (
    "---\nsubject: Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbaubeamte\n"
    "---\n[https://a.example/"
    + "x" * 200
    + "](https://a.example/)\n\n```\n"
    + "y" * 200
    + "\n```\n\n"
    "Inline `" + "z" * 120 + "`\n\n> " + "q" * 120 + "\n\n1. " + "- " * 8 + "w" * 60 + "\n"
)
#: The lowest contrast of any words on the page, as [ratio, words]; WCAG 2.2, 1.4.3.
CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const back = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let worst = [21, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(back(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, node.data.trim()];
  }
  return worst;
}"""

#: Colour, background, pixels and whether it is bold, of each stretch of text.
LOOKS = """() => {
  const hex = ([r, g, b]) => '#' + [r, g, b].map(v => v.toString(16).padStart(2, '0')).join('');
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const back = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), looks = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, style = getComputedStyle(element);
    if (!/[\\p{L}\\p{N}]/u.test(node.data) || !element.checkVisibility()) continue;
    looks.push([hex(rgb(style.color)), hex(back(element)), String(parseFloat(style.fontSize)),
                Number(style.fontWeight) >= 700]);
  }
  return looks;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The issues' HTML as Alice gets it."""
    folder = tmp_path_factory.mktemp("pages")
    drafts = {name: read_issue(ROOT / "issues" / f"{name}.md") for name in (DIGEST, LETTER)}
    drafts["wide"] = parse_issue(WIDE, name="wide.md")
    for name, draft in drafts.items():
        rendered = render(draft, PUBLICATION, templates=ROOT / "templates" / "email")
        (folder / name).with_suffix(".html").write_text(preview(rendered, ALICE).html, "utf-8")
    return {name: (folder / name).with_suffix(".html") for name in drafts}


def opened(browser: Browser, page: Path, width: int, scheme: str = "light") -> Page:
    tab = browser.new_page(viewport={"width": width, "height": 1600}, color_scheme=scheme)  # type: ignore[arg-type]
    tab.goto(page.as_uri())
    return tab


@pytest.mark.parametrize("width", [320, 375, 600, 900])
@pytest.mark.parametrize("name", [DIGEST, LETTER, "wide"])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    tab = opened(browser, pages[name], width)
    assert tab.evaluate("document.compatMode") == "CSS1Compat"
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [DIGEST, LETTER])
def test_all_words_are_readable_in_light_and_dark(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    tab = opened(browser, pages[name], 600, scheme)
    ratio, words = tab.evaluate(CONTRAST)
    assert ratio >= 4.5, words
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [DIGEST, LETTER, "wide"])
def test_the_check_of_contrast_sees_what_the_browser_shows(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    tab = opened(browser, pages[name], 900, scheme)
    shown = {tuple(look) for look in tab.evaluate(LOOKS)}
    tab.close()
    page = styles.StyledPage.of(pages[name].read_text("utf-8"))
    seen = {
        (hex_of(look.color), hex_of(look.behind), f"{look.pixels:g}", look.is_bold)
        for look, _ in texts(page, scheme)
    }
    assert len(seen) > 3
    assert seen == shown


def test_dark_is_dark(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages[DIGEST], 600, "dark")
    card = "getComputedStyle(document.querySelector('.card > table')).backgroundColor"
    assert tab.evaluate(card) == "rgb(31, 29, 27)"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 20, 19)"
    tab.close()


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS names no folder")
def test_pictures_for_the_documentation_are_made(browser: Browser, pages: dict[str, Path]) -> None:
    folder = Path(os.environ["SCREENSHOTS"])
    for name, file, width, scheme in (
        (DIGEST, "issue-600-light.png", 600, "light"),
        (DIGEST, "issue-600-dark.png", 600, "dark"),
        (DIGEST, "issue-375-light.png", 375, "light"),
        (DIGEST, "issue-375-dark.png", 375, "dark"),
        (LETTER, "issue-letter-600-light.png", 600, "light"),
    ):
        tab = opened(browser, pages[name], width, scheme)
        tab.screenshot(path=folder / file)
        assert (folder / file).stat().st_size < 300_000
        tab.close()
