"""Renders transactional emails, such as signup confirmations and data exports.

They use the same partials as issues but are written for one person. They contain no tags, and
every value is escaped, because a title or paragraph may quote what a stranger typed into a form.

A signup renders such an email during the request. MJML and premailer take about 15 ms, so each
kind of page is rendered once and cached, with marks where the texts go.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markupsafe import escape

from newsletter.rendering.css_inliner import inline_css
from newsletter.rendering.mjml import to_html
from newsletter.rendering.plaintext import RULE, heading, joined, wrapped
from newsletter.rendering.rendered import Publication
from newsletter.rendering.template import read_sheet, to_mjml
from newsletter.rendering.untracked_links import mark_untracked

_RIGHT_TO_LEFT = {"ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}
#: A mark in the page where a text goes. Noncharacters would not survive lxml; letters do.
_MARK = re.compile(r"nlwordsq(title|preheader|label|footer|p[0-9]+)qnl")
_MARKED_URL = "https://nlwordsqurlqnl.invalid/"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class TransactionalEmail:
    """A complete email: no tag in it is replaced later."""

    subject: str
    html: str
    text: str


def render_transactional(
    publication: Publication,
    *,
    templates: Path,
    title: str,
    paragraphs: Sequence[str],
    button: tuple[str, str] | None,
    footer: str,
    language: str | None = None,
) -> TransactionalEmail:
    """Render an email; ``title`` is its subject and heading, ``button`` a label and a URL.

    Raises TemplateError for an error in the folder's ``notice.mjml``.
    """
    title, footer, *paragraphs = (_line(text) for text in (title, footer, *paragraphs))
    label, url = (_line(part) for part in button) if button else ("", "")
    shape = _Shape(
        publication, templates, len(paragraphs), bool(button), language or publication.language
    )
    page = _page(shape, _age(templates))
    html = _filled(
        page,
        {
            "title": title,
            "preheader": paragraphs[0] if paragraphs else title,
            "label": label,
            "footer": footer,
            **{f"p{number}": text for number, text in enumerate(paragraphs)},
        },
        url,
    )
    text = joined(
        heading(title, "="),
        *(wrapped(paragraph) for paragraph in paragraphs),
        f"{label}:\n{url}" if button else "",
        "\n".join(
            (
                RULE,
                wrapped(footer),
                "",
                wrapped(f"{publication.name}, {publication.postal_address}"),
            )
        ),
    )
    return TransactionalEmail(title, html, text + "\n")


@dataclass(frozen=True, slots=True)
class _Shape:
    """All that determines the page except its texts: the key of the cache."""

    publication: Publication
    templates: Path
    paragraphs: int
    button: bool
    language: str


@lru_cache(maxsize=32)
def _page(shape: _Shape, _age: object) -> str:
    """The page with marks in place of its texts."""
    templates = shape.templates
    right_to_left = shape.language.partition("-")[0].lower() in _RIGHT_TO_LEFT
    mjml = to_mjml(
        "notice.mjml",
        {
            "title": _mark("title"),
            "preheader": _mark("preheader"),
            "paragraphs": [_mark(f"p{number}") for number in range(shape.paragraphs)],
            "button": {"label": _mark("label"), "url": _MARKED_URL} if shape.button else None,
            "footer": _mark("footer"),
            "language": shape.language,
            "direction": "rtl" if right_to_left else "ltr",
            "start": "right" if right_to_left else "left",
            "end": "left" if right_to_left else "right",
            "publication": shape.publication,
        },
        templates=templates,
    )
    name = str(templates / "notice.mjml")
    page = inline_css(
        to_html(mjml.text, name=name, place=mjml.place),
        read_sheet(templates),
        name=str(templates / "body.css"),
    )
    return mark_untracked(page, None)


def _filled(page: str, words: Mapping[str, str], url: str) -> str:
    """Replace the marks in one pass, so that a text that looks like a mark stays."""
    return re.sub(
        rf"{_MARK.pattern}|{re.escape(_MARKED_URL)}",
        lambda found: str(escape(words.get(found[1], found[0]) if found[1] else url)),
        page,
    )


def _mark(word: str) -> str:
    return f"nlwordsq{word}qnl"


def _line(text: str) -> str:
    """One line without control characters, so that a subject cannot add a header."""
    return _CONTROL.sub(" ", text).strip()


def _age(templates: Path) -> tuple[int, ...]:
    """The modification times of the templates; a change makes the cached page invalid."""
    files = [*templates.glob("*.mjml"), *templates.glob("partials/*.mjml"), templates / "body.css"]
    return tuple(file.stat().st_mtime_ns for file in sorted(files) if file.exists())
