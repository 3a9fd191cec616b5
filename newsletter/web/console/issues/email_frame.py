"""A mail as a document of its own, to be shown in a frame of our pages.

Whoever wrote the mail is nobody to us: the document runs nothing, belongs to no site and sends
nothing. A mail styles itself, which no page of ours may, so it cannot stand in one of them.
"""

import re

from fastapi import Response
from fastapi.responses import HTMLResponse
from markupsafe import escape

_HEAD = re.compile(r"<head[^>]*>", re.IGNORECASE)


def document(html: str, *, images: bool = True, status: int = 200) -> Response:
    """The answer for ``<iframe sandbox="allow-popups allow-popups-to-escape-sandbox">``.

    Links open in a tab of their own, with nothing of the frame's in it.
    """
    # A name within the head that the mail itself may not set: an address has no base here.
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


def said(words: str, *, status: int = 200) -> Response:
    """A few words in the place of a mail that cannot be shown."""
    return document(
        '<!DOCTYPE html><html lang="en"><head><title>No preview</title>'
        '<meta name="color-scheme" content="light dark"><style>body{font:1rem/1.5 system-ui,'
        "sans-serif;margin:2rem}</style></head>"
        f"<body><p>{escape(words)}</p></body></html>",
        status=status,
    )
