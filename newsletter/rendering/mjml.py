"""Adapter for mjml-python: converts MJML to responsive HTML; errors name file and line.

The library ignores unknown tags, gives most errors no position, and crashes the process on a
deeply nested document. So this module checks the structure first.
"""

import re
from collections.abc import Callable

from mjml import mjml2html

from newsletter.errors import TemplateError

_MAX_DEPTH = 200
_TAG = re.compile(
    r"<!--.*?-->|<(?P<close>/)?(?P<name>[A-Za-z][\w:-]*)"
    r"(?P<attributes>(?:\s+[\w:@.-]+(?:\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'))?)*+)\s*+(?P<empty>/)?>",
    re.DOTALL,
)
_VOID = {"br", "hr", "img", "meta", "link", "input", "wbr", "col", "area", "base", "source"}
_KNOWN = {
    "mjml", "mj-head", "mj-body", "mj-attributes", "mj-all", "mj-class", "mj-breakpoint", "mj-font",
    "mj-preview", "mj-style", "mj-title", "mj-accordion", "mj-accordion-element",
    "mj-accordion-text", "mj-accordion-title", "mj-button", "mj-carousel", "mj-carousel-image",
    "mj-column", "mj-divider", "mj-group", "mj-hero", "mj-image", "mj-navbar", "mj-navbar-link",
    "mj-raw", "mj-section", "mj-social", "mj-social-element", "mj-spacer", "mj-table", "mj-text",
    "mj-wrapper",
}  # fmt: skip
_POSITION = re.compile(r" ?in root template at position (\d+):\d+| ?in root template")


def to_html(mjml: str, *, name: str, place: Callable[[int], str] | None = None) -> str:
    """The HTML of this MJML document, without links to fonts and icons.

    ``place`` returns ``file:line`` for a character offset; without it, errors name the file
    ``name`` and the line in ``mjml``. Raises TemplateError.
    """
    at = place or (lambda offset: f"{name}:{mjml.count(chr(10), 0, offset) + 1}")
    _check(mjml, at)
    try:
        html: str = mjml2html(mjml, fonts={}, disable_comments=False)
    except ValueError as error:
        raise _explained(mjml, str(error), name, at) from None
    # premailer keeps only an uppercase doctype, and browsers need one for standards mode.
    return "<!DOCTYPE html>\n" + re.sub(r"\A\s*<!doctype html>\s*", "", html, flags=re.IGNORECASE)


def _check(mjml: str, at: Callable[[int], str]) -> None:
    """Require that tags are well-formed, known, closed in order and not too deep."""
    opened: list[tuple[str, int]] = []
    end = 0
    while (start := mjml.find("<", end)) >= 0:
        tag = _TAG.match(mjml, start)
        if tag is None:
            raise TemplateError(
                "this is not a tag",
                place=at(start),
                hint="Write &lt; for a bare <; attributes need quotes.",
            )
        end = tag.end()
        word = tag["name"]
        if word is None:  # a comment
            continue
        if word == "mj-include":
            hint = 'Use {% include "partials/…" %}.'
            raise TemplateError("mj-include is not supported", place=at(start), hint=hint)
        if word.startswith("mj") and word not in _KNOWN:
            raise TemplateError(f"MJML has no tag {word}", place=at(start))
        if tag["close"]:
            _close(word, opened, start, at)
        elif not tag["empty"] and word not in _VOID:
            opened.append((word, start))
            if len(opened) > _MAX_DEPTH:
                raise TemplateError(f"nested more than {_MAX_DEPTH} deep", place=at(start))
    if opened:
        raise TemplateError(f"<{opened[-1][0]}> is never closed", place=at(opened[-1][1]))


def _close(word: str, opened: list[tuple[str, int]], start: int, at: Callable[[int], str]) -> None:
    if not opened:
        raise TemplateError(f"</{word}> closes nothing", place=at(start))
    last, where = opened.pop()
    if last != word:
        message = f"<{last}> is not closed before </{word}> at {at(start)}"
        raise TemplateError(message, place=at(where))


def _explained(mjml: str, message: str, name: str, at: Callable[[int], str]) -> TemplateError:
    """The error with file and line; the library's positions are offsets in UTF-8 bytes."""
    found = _POSITION.search(message)
    words = "MJML: " + _POSITION.sub("", message).strip()
    if not found or found[1] is None:
        return TemplateError(words, place=name)
    offset = len(mjml.encode()[: int(found[1])].decode(errors="ignore"))
    return TemplateError(words, place=at(offset))
