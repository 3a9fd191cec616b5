"""Links that the provider must not rewrite: our own, and all of a single email.

A link to leave has to work also when the provider's click server does not, and nobody's token
belongs there. Source: SendGrid, "Click Tracking & HTML Best Practices": ``clicktracking=off``
inside the anchor, before its href. It is put in last of all, because MJML, premailer and nh3
would drop it, or write it otherwise.
"""

import re
from collections.abc import Collection

#: As lxml writes an anchor: every value in double quotes, ``<`` and ``>`` within them escaped.
_ANCHOR = re.compile(r'<a((?:\s[^<>]*?)?)\shref="([^"]*)"([^<>]*)>')
_MARK = " clicktracking=off"
_WRITTEN = ' clicktracking="off"'


def mark_untracked(html: str, addresses: Collection[str] | None) -> str:
    """The page, with the mark on each link that begins with one of ``addresses``; None: on all.

    A template's own ``clicktracking="off"`` gets the form and the place that SendGrid documents.
    """

    def marked(found: re.Match[str]) -> str:
        before, href, after = found.groups()
        asked = _WRITTEN in before or _WRITTEN in after
        before, after = before.replace(_WRITTEN, ""), after.replace(_WRITTEN, "")
        ours = addresses is None or href.startswith(tuple(addresses))
        return f'<a{_MARK if ours or asked else ""}{before} href="{href}"{after}>'

    return _ANCHOR.sub(marked, html)


def unmarked(html: str) -> str:
    """The page without these marks: on the web they mean nothing."""
    return html.replace(f"<a{_MARK} ", "<a ")
