"""Converts the HTML part of an email into a public web page, without personal values and links.

It removes what makes sense in an inbox only: elements of class ``in-mail``, hidden elements (the
preheader), and comments, which are for Outlook. Personal links that remain become links to public
pages.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser

from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.rendering.placeholders import Placeholders, fill
from newsletter.rendering.untracked_links import unmarked

#: Class of elements that are in emails and not on the web. Custom templates may use it, too.
IN_MAIL = "in-mail"
_HIDDEN = re.compile(r"(^|;)\s*display\s*:\s*none\b", re.IGNORECASE)
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())


@dataclass(frozen=True, slots=True)
class WebPage:
    """The parts of an email's HTML document, to be put into a page."""

    language: str
    direction: str
    #: The content of the head, without title and encoding.
    head: str
    body: str
    #: The body's style attribute.
    style: str


def to_page(html: str, placeholders: Placeholders, *, links: Mapping[str, str]) -> WebPage:
    """Convert the HTML part, which contains tags. Values have their defaults.

    ``links`` maps each link placeholder (``unsubscribe_url``, …) to its public URL.
    """
    if placeholders.token:
        token = re.escape(placeholders.token)
        for name, path in LINKS.items():
            # The address may be a part of another site's address.
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
    """Splits a document into its parts and removes elements that are for emails only."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.root: dict[str, str | None] = {}
        self.head: list[str] = []
        self.body: list[str] = []
        self.style = ""
        #: The list to append to; None outside head and body.
        self._into: list[str] | None = None
        #: The tag of the element that is skipped, and how many of its kind are open within it.
        self._skipped = ""
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        values = dict(attrs)
        if self._skipped:
            self._depth += tag == self._skipped
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
                self._skipped, self._depth = tag, 1
        elif values.get("http-equiv", "") != "Content-Type":
            self._keep(self.get_starttag_text() or "")

    def handle_startendtag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element that is written as ``<x/>``."""
        if not self._skipped and not _is_for_mail_only(dict(attrs)):
            self._keep(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        """An element ends."""
        if self._skipped:
            self._depth -= tag == self._skipped
            if not self._depth:
                self._skipped = ""
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
        if self._into is not None and not self._skipped:
            self._into.append(text)


def _is_for_mail_only(values: Mapping[str, str | None]) -> bool:
    classes = (values.get("class") or "").split()
    return IN_MAIL in classes or bool(_HIDDEN.search(values.get("style") or ""))
