"""What mail clients do not know, by data that is vendored."""

import json
from pathlib import Path

import pytest

from newsletter.checking.caniemail import reduce
from newsletter.checking.caniemail_data import support
from tests.newsletter.checking.conftest import RULES, Look, changed
from tests.newsletter.checking.test_envelope_checks import edited


def test_the_built_in_templates_use_nothing_that_harms(look: Look) -> None:
    text = "# A\n\n**b** `c` [d](https://example.com)\n\n> e\n\n1. f\n\n- g\n\n```\nh\n```\n\n---\n"
    assert look("clients", text) == []


@pytest.mark.parametrize(
    ("picture", "client"),
    [("a.svg", "Gmail (Desktop Webmail)"), ("a.WEBP?x=1", "Outlook (Windows)")],
)
def test_a_format_of_pictures_is_found_at_its_line(look: Look, picture: str, client: str) -> None:
    text = f"![A](https://example.com/a.png)\n\n![B](https://example.com/{picture})"
    (found,) = look("clients", text)
    assert found.line == 7
    assert client in found.message


@pytest.mark.parametrize(
    ("css", "said"),
    [
        ("display: flex", "display:flex is not supported by Outlook (Windows)"),
        ("width: calc(100% - 2px)", "CSS calc() function is not supported by"),
        ("transform: rotate(3deg)", "transform is not supported by Gmail"),
        ("letter-spacing: 3vw", "vw unit is not supported by Outlook (Windows)"),
        ("color: var(--c)", "CSS Variables"),
    ],
)
def test_css_of_a_template_is_found(look: Look, tmp_path: Path, css: str, said: str) -> None:
    folder = edited(tmp_path, "body.css", ".copy p {", f".copy p {{ {css};")
    messages = [found.message for found in look("clients", "Hi", templates=folder)]
    assert any(said in message for message in messages), messages


def test_elements_and_sheets_of_a_template_are_found(look: Look, tmp_path: Path) -> None:
    sheet = (
        "@font-face { font-family: X; src: url(https://x.example/x) } p::before { content: none }"
    )
    folder = edited(tmp_path, "partials/head.mjml", ":root {", f"{sheet} :root {{")
    found = " ".join(one.message for one in look("clients", "Hi", templates=folder))
    assert "@font-face is not supported" in found
    assert "::before is not supported" in found
    video = "<video></video>"
    (tmp_path / "more").mkdir()
    folder = edited(tmp_path / "more", "letter.mjml", "{{ body }}", f"{{{{ body }}}}{video}")
    assert "<video> element is not supported" in look("clients", "Hi", templates=folder)[0].message


def test_only_clients_that_matter_are_named(look: Look) -> None:
    text = "![A](https://example.com/a.svg)"
    assert look("clients", text, rules=changed("clients", matter=["apple-mail.ios"])) == []
    kept = [*RULES.clients.harmless, "image-svg"]
    assert look("clients", text, rules=changed("clients", harmless=kept)) == []


def test_the_data_says_where_it_comes_from_and_is_whole() -> None:
    folder = Path(reduce.__file__).parent
    (file,) = folder.glob("*.json")
    data = json.loads(file.read_text())
    assert data["package"] == "caniemail 2.0.2, MIT"
    assert file.stem == data["package"].split(",")[0].replace(" ", "-")
    assert "MIT" in (folder / "LICENSE.txt").read_text()
    assert len(support().features) > 200
    assert {client for one in support().features for client in one.unknown} <= set(support().names)


@pytest.mark.parametrize(
    ("slug", "title", "found"),
    [
        ("css-display-flex", "display:flex", ["value:display:flex"]),
        (
            "css-gap",
            "gap, column-gap, row-gap",
            ["property:gap", "property:column-gap", "property:row-gap"],
        ),
        ("css-at-media-hover", "@media (orientation)", ["media:orientation"]),
        ("html-video", "<video> element", ["element:video"]),
        ("image-webp", "webP image format", ["image:webp"]),
        ("html-mailto-links", "mailto: links", []),
        ("css-selector-universal", "Universal selector *", []),
    ],
)
def test_titles_become_what_is_looked_for(slug: str, title: str, found: list[str]) -> None:
    assert reduce.finds(slug, title) == found
