"""Colours that the finished page comes to, in light and in dark."""

from pathlib import Path

import pytest

from newsletter.checking.design.contrast import hex_of, texts
from newsletter.checking.styles import StyledPage
from tests.newsletter.checking.conftest import Look, changed
from tests.newsletter.checking.test_envelope_checks import edited

BODY = "# Title\n\nGood day **all**, `code`.\n\n> A quote with [a link](https://example.com)."


def look_of(words: str, page: str, scheme: str = "light") -> tuple[str, str]:
    """Colour and background of these words."""
    (found,) = [look for look, text in texts(StyledPage.of(page), scheme) if words in text]
    return hex_of(found.color), hex_of(found.behind)


def test_the_built_in_templates_stand_out(look: Look) -> None:
    assert look("contrast", BODY) == []
    assert look("contrast", BODY, rules=changed("contrast", text=21.0, large=21.0)) != []


def test_pale_text_is_found_once_at_its_line(look: Look, tmp_path: Path) -> None:
    folder = edited(tmp_path, "body.css", ".copy a { color: #0b6b57", ".copy a { color: #8cd")
    text = f"{BODY}\n\nAnd [another one](https://example.com)."
    (found,) = look("contrast", text, templates=folder)
    assert found.line == 9
    assert (
        "in light mode #88ccdd on #ffffff has a contrast of 1.79, and 4.5 is needed"
        in found.message
    )
    assert "“a link”" in found.message


def test_dark_rules_are_looked_at_by_themselves(look: Look, tmp_path: Path) -> None:
    folder = edited(
        tmp_path, "partials/head.mjml", "color: #dfdad1 !important", "color: #333 !important"
    )
    found = look("contrast", BODY, templates=folder)
    assert found
    assert all("in dark mode #333333 on" in one.message for one in found)


def test_large_text_may_have_less(look: Look, tmp_path: Path) -> None:
    folder = edited(
        tmp_path, "body.css", ".copy h1 { margin: 0;", ".copy h1 { color: #888; margin: 0;"
    )
    assert look("contrast", "Hi", templates=folder) == []
    (found,) = look("contrast", "Hi", templates=folder, rules=changed("contrast", large=4.5))
    assert "#888888" in found.message


@pytest.mark.parametrize(
    ("page", "colours"),
    [
        ("<p style='color:red'>x</p>", ("#ff0000", "#ffffff")),
        ("<style>p{color:red}</style><p style='color:blue'>x</p>", ("#0000ff", "#ffffff")),
        (
            "<style>p{color:red!important}</style><p style='color:blue'>x</p>",
            ("#ff0000", "#ffffff"),
        ),
        ("<style>.a{color:red}p{color:blue}</style><p class=a>x</p>", ("#ff0000", "#ffffff")),
        ("<style>p{color:red}p{color:blue}</style><p>x</p>", ("#0000ff", "#ffffff")),
        ("<style>p:hover{color:red}</style><p>x</p>", ("#000000", "#ffffff")),
        ("<style>@media (max-width:9px){p{color:red}}</style><p>x</p>", ("#000000", "#ffffff")),
        ("<div style='background:#123 url(a.png)'><p>x</p></div>", ("#000000", "#112233")),
        ("<table bgcolor='#222222'><tr><td>x</td></tr></table>", ("#000000", "#222222")),
        ("<p style='color:rgba(0,0,0,.5)'>x</p>", ("#808080", "#ffffff")),
        ("<p style='color:inherit'>x</p>", ("#000000", "#ffffff")),
        ("<p style='color:var(--a)'>x</p>", ("#000000", "#ffffff")),
        ("<b style='color:red'>y</b> x", ("#000000", "#ffffff")),
    ],
)
def test_the_cascade_is_that_of_browsers(page: str, colours: tuple[str, str]) -> None:
    assert look_of("x", page) == colours


def test_what_nobody_sees_has_no_contrast() -> None:
    page = "<title>a</title><style>a{}</style><p style='display:none'>b<i>c</i></p><p>·</p>"
    assert list(texts(StyledPage.of(page), "light")) == []


@pytest.mark.parametrize(
    "css", ["p{", "}}}", "p{color:}", "@media{", "!!{color:red}", "p:not({color:red}"]
)
def test_what_is_no_css_is_left_out(css: str) -> None:
    assert look_of("x", f"<style>{css}</style><p>x</p>") == ("#000000", "#ffffff")
