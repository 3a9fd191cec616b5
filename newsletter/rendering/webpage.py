"""From a mail to a page that everybody may read: nobody's values, and nobody's links.

What makes sense in an inbox only goes: elements of class ``in-mail``, what mails hide
from the eye (the preheader), and comments, which are for Outlook. The personal links that
remain lead to public pages.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser

from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.rendering.placeholders import Placeholders, fill
from newsletter.rendering.untracked_links import unmarked

#: Class of what stands in mails and not on the web; templates use it, also your own.
IN_MAIL = "in-mail"
_HIDDEN = re.compile(r"(^|;)\s*display\s*:\s*none\b", re.IGNORECASE)
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())


@dataclass(frozen=True, slots=True)
class WebPage:
    """A mail's document in pieces, to be put into a page."""

    language: str
    direction: str
    #: What stands in its head, but for title and encoding.
    head: str
    body: str
    #: The body's style attribute.
    style: str


def to_page(html: str, placeholders: Placeholders, *, links: Mapping[str, str]) -> WebPage:
    """The HTML part of a mail, with its tags, as it reads for somebody of whom nothing is known.

    ``links`` has the public address for each link placeholder (``unsubscribe_url``, …).
    """
    if placeholders.token:
        token = re.escape(placeholders.token)
        for name, path in LINKS.items():
            # The address may itself stand in that of another site.
            personal = rf"https?://(?:(?!https?://)[^\s\"'<>])*/{path}/{token}"
            html = re.sub(personal, lambda _, to=links[name]: to, html)  # type: ignore[misc]
    reader = _Reader()
    reader.feed(fill(unmarked(html), placeholders.substitutions({}, "")))
    reader.close()
    return WebPage(
        language=reader.root.get("lang") or "",
        direction=reader.root.get("dir") or "ltr",
        head="".join(reader.head),
        body="".join(reader.body),
        style=reader.style,
    )


class _Reader(HTMLParser):
    """Takes a document apart; what is kept is passed on as it was written."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.root: dict[str, str | None] = {}
        self.head: list[str] = []
        self.body: list[str] = []
        self.style = ""
        #: Where what is read goes; None outside head and body.
        self._into: list[str] | None = None
        #: The element that is left out, and how many of its kind are open within it.
        self._left_out = ""
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        values = dict(attrs)
        if self._left_out:
            self._depth += tag == self._left_out
        elif tag == "html":
            self.root = values
        elif tag == "head":
            self._into = self.head
        elif tag == "title":
            self._into = None
        elif tag == "body":
            self._into, self.style = self.body, values.get("style") or ""
        elif _is_for_mail_only(values):
            if tag not in _VOID:
                self._left_out, self._depth = tag, 1
        elif values.get("http-equiv", "") != "Content-Type":
            self._keep(self.get_starttag_text() or "")

    def handle_startendtag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element that is written as ``<x/>``."""
        if not self._left_out and not _is_for_mail_only(dict(attrs)):
            self._keep(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        """An element ends."""
        if self._left_out:
            self._depth -= tag == self._left_out
            if not self._depth:
                self._left_out = ""
        elif tag == "title":
            self._into = self.head
        elif tag in {"head", "body", "html"}:
            self._into = None
        else:
            self._keep(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        """Text, or the inside of a style element."""
        self._keep(data)

    def handle_entityref(self, name: str) -> None:
        """``&name;``"""
        self._keep(f"&{name};")

    def handle_charref(self, name: str) -> None:
        """``&#name;``"""
        self._keep(f"&#{name};")

    def _keep(self, text: str) -> None:
        if self._into is not None and not self._left_out:
            self._into.append(text)


def _is_for_mail_only(values: Mapping[str, str | None]) -> bool:
    classes = (values.get("class") or "").split()
    return IN_MAIL in classes or bool(_HIDDEN.search(values.get("style") or ""))
