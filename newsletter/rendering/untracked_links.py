"""Excludes links from click tracking: our own links, and all links of transactional emails.

An unsubscribe link has to work when the provider's click server is down, and the provider must
not get link tokens. Source: SendGrid, "Click Tracking & HTML Best Practices":
``clicktracking=off`` inside the anchor, before its href. This is the last step of rendering,
because MJML, premailer and nh3 would drop or rewrite the attribute.
"""

import re
from collections.abc import Collection

#: As lxml writes an anchor: every value in double quotes, ``<`` and ``>`` within them escaped.
_ANCHOR = re.compile(r'<a((?:\s[^<>]*?)?)\shref="([^"]*)"([^<>]*)>')
_MARK = " clicktracking=off"
_WRITTEN = ' clicktracking="off"'


def mark_untracked(html: str, addresses: Collection[str] | None) -> str:
    """Mark each link that begins with one of ``addresses``, or every link if it is None.

    A template's own ``clicktracking="off"`` is rewritten in the form that SendGrid documents.
    """

    def marked(found: re.Match[str]) -> str:
        before, href, after = found.groups()
        asked = _WRITTEN in before or _WRITTEN in after
        before, after = before.replace(_WRITTEN, ""), after.replace(_WRITTEN, "")
        ours = addresses is None or href.startswith(tuple(addresses))
        return f'<a{_MARK if ours or asked else ""}{before} href="{href}"{after}>'

    return _ANCHOR.sub(marked, html)


def unmarked(html: str) -> str:
    """The page without these marks, which mean nothing on the web."""
    return html.replace(f"<a{_MARK} ", "<a ")
