"""The visitor's network address and browser, for consent records and rate limits.

Behind a proxy the address is the proxy's, unless ``web.trusted_proxies`` contains the proxy
(newsletter.web.proxies).
"""

from ipaddress import ip_address

from fastapi import Request


def network_address(request: Request) -> str | None:
    """The visitor's network address; None on a Unix socket."""
    try:
        return str(ip_address(request.client.host))[:45] if request.client else None
    except ValueError:
        return None


def browser(request: Request) -> str | None:
    """The visitor's User-Agent header."""
    named = request.headers.get("user-agent", "")
    return "".join(c for c in named if c.isprintable())[:500] or None
