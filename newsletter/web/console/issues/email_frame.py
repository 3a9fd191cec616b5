"""An email as a separate document, to be shown in a sandboxed frame.

Its content is not trusted: the document runs no scripts, has no origin and submits no forms. It
needs inline styles, which our pages forbid, so it cannot be a part of them.
"""

import re

from fastapi import Response
from fastapi.responses import HTMLResponse
from markupsafe import escape

_HEAD = re.compile(r"<head[^>]*>", re.IGNORECASE)


def document(html: str, *, images: bool = True, status: int = 200) -> Response:
    """The answer for ``<iframe sandbox="allow-popups allow-popups-to-escape-sandbox">``.

    Links open in a new tab without the restrictions of the frame.
    """
    # The base element opens links in a new tab. Emails themselves may not contain one.
    html = _HEAD.sub(lambda head: head[0] + '<base target="_blank">', html, count=1)
    pictures = "https: http: data:" if images else "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src {pictures}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'; "
        "sandbox allow-popups allow-popups-to-escape-sandbox"
    )
    return HTMLResponse(
        html,
        status_code=status,
        headers={
            "Content-Security-Policy": policy,
            "X-Frame-Options": "SAMEORIGIN",
            "Cache-Control": "no-store",
            "X-Robots-Tag": "noindex",
        },
    )


def message(words: str, *, status: int = 200) -> Response:
    """A message in place of an email that cannot be shown."""
    return document(
        '<!DOCTYPE html><html lang="en"><head><title>No preview</title>'
        '<meta name="color-scheme" content="light dark"><style>body{font:1rem/1.5 system-ui,'
        "sans-serif;margin:2rem}</style></head>"
        f"<body><p>{escape(words)}</p></body></html>",
        status=status,
    )
