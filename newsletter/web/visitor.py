"""Who is at the other end, as far as the record of consent keeps it for a while.

Behind a proxy the network address is the proxy's, unless ``web.trusted_proxies`` names it
(``newsletter.web.proxies``); headers are not read here.
"""

from ipaddress import ip_address

from fastapi import Request


def network_address(request: Request) -> str | None:
    """The visitor's network address; a socket file has none."""
    try:
        return str(ip_address(request.client.host))[:45] if request.client else None
    except ValueError:
        return None


def browser(request: Request) -> str | None:
    """What the visitor's browser calls itself."""
    named = request.headers.get("user-agent", "")
    return "".join(c for c in named if c.isprintable())[:500] or None
