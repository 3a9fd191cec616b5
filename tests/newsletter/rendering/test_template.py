"""Templates that are wrong: each is refused with the file and the line to mend."""

import shutil
from pathlib import Path

import pytest

from newsletter.errors import TemplateError
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.css_inliner import inline_css
from newsletter.rendering.mjml import to_html
from newsletter.rendering.render import render
from newsletter.rendering.template import to_mjml

from .conftest import PUBLICATION, TEMPLATES

LETTER = parse_issue("---\nsubject: x\npreheader: é\n---\nümlaut\n\nmore", name="a.md")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the templates to spoil."""
    return Path(shutil.copytree(TEMPLATES, tmp_path / "email"))


def spoilt(folder: Path, file: str, old: str, new: str) -> tuple[str, int]:
    """Replace the first ``old`` of a file; returns the file's path and the line."""
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return str(path), text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("partials/footer.mjml", "<mj-text", "<mj-txet", "no tag mj-txet"),
        ("partials/footer.mjml", "</mj-column>", "", "not closed before"),
        ("partials/footer.mjml", "because you", "because < you", "this is not a tag"),
        ("partials/footer.mjml", 'align="center"', "align=center", "this is not a tag"),
        (
            "partials/footer.mjml",
            "</mj-section>",
            "</mj-section></mj-section>",
            "not closed before",
        ),
        ("partials/header.mjml", "<h1>", "<h1><b>", "<b> is not closed"),
        (
            "letter.mjml",
            '{% include "partials/footer.mjml" %}',
            '<mj-include path="x" />',
            "mj-include",
        ),
        ("letter.mjml", "</mjml>", "", "<mjml> is never closed"),
        ("letter.mjml", "{{ body }}", "{{ boddy }}", "'boddy' is undefined"),
        ("letter.mjml", "{{ body }}", "{{ body.__class__.mro() }}", "unsafe"),
        ("letter.mjml", "{{ body }}", "{{ 1 / 0 }}", "division by zero"),
        ("letter.mjml", "{{ body }}", "{% for %}", "Jinja"),
        ("partials/head.mjml", "{{ title }}", "{{ title | nonsense }}", "No filter named"),
        (
            "partials/footer.mjml",
            "<mj-section",
            '{% include "gone.mjml" %}<mj-section',
            "no template gone",
        ),
        (
            "partials/footer.mjml",
            "<mj-section",
            '{% include "partials/footer.mjml" %}<mj-section',
            "includes itself",
        ),
    ],
)
def test_a_mistake_is_refused_in_its_file_and_line(
    folder: Path, file: str, old: str, new: str, words: str
) -> None:
    path, line = spoilt(folder, file, old, new)
    with pytest.raises(TemplateError) as caught:
        render(LETTER, PUBLICATION, templates=folder)
    assert words in caught.value.message
    place = caught.value.place or ""
    if words == "not closed before" or words == "<mjml> is never closed":
        assert place.startswith(f"{folder}/")  # where the element was opened
    else:
        assert place == f"{path}:{line}"


def test_an_unclosed_tag_names_where_it_was_opened_and_what_came_instead(folder: Path) -> None:
    path, line = spoilt(folder, "partials/footer.mjml", "</mj-column>", "")
    with pytest.raises(TemplateError) as caught:
        render(LETTER, PUBLICATION, templates=folder)
    assert caught.value.place == f"{path}:2"
    assert (
        caught.value.message
        == f"<mj-column> is not closed before </mj-section> at {path}:{line + 1}"
    )


def test_lines_stay_right_below_loops_blocks_and_values_of_many_lines(tmp_path: Path) -> None:
    (tmp_path / "a.mjml").write_text(
        "<mjml>\n{% for word in words %}\n  {{ word }}\n{% endfor %}\n{% set x = 1 %}\n<mj-oops>\n",
        encoding="utf-8",
    )
    made = to_mjml("a.mjml", {"words": ["a\nb\nc", "d"]}, templates=tmp_path)
    assert made.place(made.text.index("<mj-oops")) == f"{tmp_path}/a.mjml:6"
    assert made.place(made.text.index("c")) == f"{tmp_path}/a.mjml:3"
    assert made.place(0) == f"{tmp_path}/a.mjml:1"


def test_values_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "a.mjml").write_text('<a b="{{ x }}">{{ x }}', encoding="utf-8")
    made = to_mjml("a.mjml", {"x": "\"<&'"}, templates=tmp_path)
    assert made.text == '<a b="&#34;&lt;&amp;&#39;">&#34;&lt;&amp;&#39;'


def test_a_style_sheet_that_is_missing_is_named(folder: Path) -> None:
    (folder / "body.css").unlink()
    with pytest.raises(TemplateError) as caught:
        render(LETTER, PUBLICATION, templates=folder)
    assert caught.value.place == str(folder / "body.css")


def test_mjml_alone_names_its_line() -> None:
    with pytest.raises(TemplateError) as caught:
        to_html("<mjml>\n<mj-body>\n<mj-section>é\n<mj-column></mj-body></mjml>", name="x.mjml")
    assert caught.value.place == "x.mjml:4"


@pytest.mark.parametrize("text", ["", "words", "<p>x</p>", "<mjml></mjml><mjml></mjml>"])
def test_what_is_no_mjml_is_refused(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        to_html(text, name="x.mjml")
    assert (caught.value.place or "").startswith("x.mjml")
    assert caught.value.message


def test_depth_has_an_end_before_the_library_has_one() -> None:
    with pytest.raises(TemplateError, match="nested more than"):
        to_html("<mjml><mj-body>" + "<b>" * 20_000, name="x.mjml")


def test_mjml_is_whole_and_fetches_nothing() -> None:
    page = to_html("<mjml><mj-body><mj-text>é &amp; <br></mj-text></mj-body></mjml>", name="x")
    assert page.startswith("<!DOCTYPE html>\n<html")
    assert "é &amp; <br" in page
    assert "http://fonts" not in page


def test_inlining_keeps_sheets_classes_important_and_the_doctype() -> None:
    page = (
        '<!DOCTYPE html>\n<html><head><style type="text/css">p{margin:1px} .a{color:red !important}'
        "@media (x){.a{color:blue}}</style></head><body><!--[if mso]><i><![endif]-->"
        '<p class="a"><a href="https://x.example/-nlab0u-?a=1&amp;b=-nlab1q-#t">é</a></p></body></html>'
    )
    made = inline_css(page, ".a { color: green } .a a { margin: 0 }", name="body.css")
    assert made.startswith("<!DOCTYPE html>")
    assert "p{margin:1px} .a{color:red !important}@media (x){.a{color:blue}}</style>" in made
    assert '<p class="a" style="color:green">' in made
    assert 'href="https://x.example/-nlab0u-?a=1&amp;b=-nlab1q-#t"' in made
    assert "<!--[if mso]><i><![endif]-->" in made
    assert ">é</a>" in made
    assert "color: green" not in made  # the inlined sheet is not carried along


def test_a_sheet_that_cannot_be_read_is_named() -> None:
    with pytest.raises(TemplateError) as caught:
        inline_css("<html><body><p>x</p></body></html>", "\x00", name="body.css")
    assert caught.value.place == "body.css"
