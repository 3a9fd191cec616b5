"""An issue as one person gets it: the same substitution as in a send, and what their client does.

Clients hide pictures until they are asked to show them, and follow the machine's scheme of
light and dark. A page that shows a preview can have neither from the reader's browser, so
both are put into the HTML.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from newsletter.rendering.placeholders import fill
from newsletter.rendering.rendered import Rendered

#: Somebody who has a name; keys as in Placeholders.
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

#: In the place of a person's link token; it opens nothing.
NO_TOKEN = "preview"  # noqa: S105

#: ``>`` is escaped within attributes, by MJML's serialiser and in personal values.
_TAG = re.compile(r"<[a-z][^>]*>", re.IGNORECASE)
_PICTURE = re.compile(r"\s(?:src|srcset|background)=\"[^\"]*\"|url\([^()]*+\)", re.IGNORECASE)
_ASKED = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)", re.IGNORECASE)
_OFFERED = re.compile(r"(color-scheme: |content=\")light dark\b", re.IGNORECASE)


class Scheme(StrEnum):
    """What the reader's machine is set to."""

    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class Preview:
    """The three parts of a mail, complete."""

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
    """What this person gets; ``person`` as in Placeholders.

    Without ``images`` their words stand in their place. ``scheme`` shows the mail as on a
    machine that is set to it, whatever the browser's own is.
    """
    values = rendered.placeholders.substitutions(person, token)
    html = fill(rendered.html, values)
    if not images:
        html = _TAG.sub(lambda tag: _PICTURE.sub("", tag[0]), html)
    if scheme is not None:
        # Style sheets stand in the head; the words may speak of the same things.
        head, end, body = html.partition("</head>")
        head = _ASKED.sub(lambda asked: "all" if asked[1].lower() == scheme else "not all", head)
        html = _OFFERED.sub(rf"\g<1>{scheme}", head) + end + body
    return Preview(fill(rendered.subject, values), html, fill(rendered.text, values))
