"""Previews an issue as one recipient sees it, with the same substitution as in a send.

Email clients hide images until the reader shows them, and follow the light or dark mode of the
system. The browser of the console does neither for a preview, so this module changes the HTML.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from newsletter.rendering.placeholders import fill
from newsletter.rendering.rendered import Rendered

#: A reader with a name; keys as in Placeholders.
SAMPLE_READER: Final[Mapping[str, Any]] = {
    "name": "Robin Example",
    "email": "robin@example.com",
    "attributes": {},
}
#: A reader with an address only, so the preview shows every placeholder's default.
UNKNOWN_READER: Final[Mapping[str, Any]] = {
    "name": "",
    "email": "someone@example.com",
    "attributes": {},
}

#: Stands for the recipient's link token; its links do nothing.
NO_TOKEN = "preview"  # noqa: S105

#: ``>`` is escaped within attributes, by MJML's serializer and in personal values.
_TAG = re.compile(r"<[a-z][^>]*>", re.IGNORECASE)
_PICTURE = re.compile(r"\s(?:src|srcset|background)=\"[^\"]*\"|url\([^()]*+\)", re.IGNORECASE)
_ASKED = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)", re.IGNORECASE)
_OFFERED = re.compile(r"(color-scheme: |content=\")light dark\b", re.IGNORECASE)


class Scheme(StrEnum):
    """The color scheme of the reader's system."""

    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class Preview:
    """The three parts of an email, with all values filled in."""

    subject: str
    html: str
    text: str


def preview(
    rendered: Rendered,
    person: Mapping[str, Any],
    *,
    token: str = NO_TOKEN,
    images: bool = True,
    scheme: Scheme | None = None,
) -> Preview:
    """The email for ``person``, a mapping as in Placeholders.

    Without ``images``, their alternative texts are shown. ``scheme`` forces light or dark mode,
    whatever the browser uses.
    """
    values = rendered.placeholders.substitutions(person, token)
    html = fill(rendered.html, values)
    if not images:
        html = _TAG.sub(lambda tag: _PICTURE.sub("", tag[0]), html)
    if scheme is not None:
        # Only the head: the text may contain the same words.
        head, end, body = html.partition("</head>")
        head = _ASKED.sub(lambda asked: "all" if asked[1].lower() == scheme else "not all", head)
        html = _OFFERED.sub(rf"\g<1>{scheme}", head) + end + body
    return Preview(fill(rendered.subject, values), html, fill(rendered.text, values))
