"""Finds the visitor's network address behind trusted reverse proxies.

Forwarded headers count only on connections from a network in ``web.trusted_proxies``. Each proxy
appends the address of its client, so the header is read from the right: at most ``web.proxy_hops``
entries, and only while each one comes from a trusted proxy. The visitor may have written the
entries to the left.

Only ``web.forwarded_header`` is read, because a proxy passes on other headers as the visitor sent
them. All other forwarded headers are removed, so that no later code trusts them.

Sources: RFC 7239 (Forwarded), https://developer.mozilla.org/docs/Web/HTTP/Headers/X-Forwarded-For.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from newsletter.settings.sections import Web

Address = IPv4Address | IPv6Address

_FORWARDED, _FOR, _PROTO, _HOST = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
)
#: The headers that state another client, scheme, host or port.
_CLAIMS: Final = re.compile(rb"forwarded|x-forwarded(-.*)?|x-real-ip|true-client-ip|x-client-ip")
#: Bytes of a header that are read. A longer one was not written by a proxy.
_LONGEST: Final = 8192
_HOST_NAME = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
#: One ``name=value`` of a Forwarded header, or what separates them (RFC 7239, section 4).
_PAIR = re.compile(
    r'[ \t]*+(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]++)=("(?:[^"\\]|\\.)*+"|[^",; \t]*+))?'
    r"[ \t]*+([;,]|$)"
)


@dataclass(frozen=True, slots=True)
class Hop:
    """One proxy's description of its client's connection."""

    client: str
    scheme: str = ""
    host: str = ""


class Proxies:
    """ASGI middleware that replaces a trusted proxy's address with the visitor's."""

    def __init__(self, app: ASGIApp, *, web: Web) -> None:
        self._app = app
        self._trusted = tuple(web.trusted_proxies)
        self._hops = web.proxy_hops
        self._header = web.forwarded_header.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each connection."""
        if scope["type"] in {"http", "websocket"}:
            scope = self._with_client(scope)
        await self._app(scope, receive, send)

    def _with_client(self, scope: Scope) -> Scope:
        given: list[tuple[bytes, bytes]] = scope["headers"]
        headers = [(name, value) for name, value in given if not _CLAIMS.fullmatch(name.lower())]
        seen = {**scope, "headers": headers}
        client = scope.get("client")
        peer = address_of(client[0]) if client else None
        if client is None or not self._trusts(peer):
            return seen
        found = peer
        hop = Hop("")
        for one in self._hops_of(given):
            stated = address_of(one.client)
            if stated is None:  # "unknown", "_hidden", or no address: the last known one counts
                break
            found, hop = stated, one
            if not self._trusts(stated):
                break
        seen["client"] = (str(found), client[1] if found == peer else 0)
        if hop.scheme in {"http", "https"}:
            seen["scheme"] = hop.scheme
        if _HOST_NAME.fullmatch(hop.host):
            others = [(name, value) for name, value in headers if name.lower() != b"host"]
            seen["headers"] = [*others, (b"host", hop.host.encode())]
        return seen

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(
            address.version == network.version and address in network for network in self._trusted
        )

    def _hops_of(self, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[Hop]:
        """The hops in the headers, the nearest first, at most ``web.proxy_hops``."""
        values = {
            name: b",".join(value for key, value in headers if key.lower() == name)
            for name in (_FORWARDED, _FOR, _PROTO, _HOST)
        }
        if any(len(value) > _LONGEST for value in values.values()):
            return ()
        texts = {name: value.decode("latin-1") for name, value in values.items()}
        if self._header == _FORWARDED:
            return forwarded(texts[_FORWARDED])[::-1][: self._hops]
        return self._classic(texts)

    def _classic(self, texts: Mapping[bytes, str]) -> Sequence[Hop]:
        clients, schemes, hosts = (
            [part.strip() for part in texts[name].split(",")][::-1]
            for name in (_FOR, _PROTO, _HOST)
        )
        # One value may count for all hops: many proxies pass on the outermost one's.
        return [
            Hop(client, schemes[min(at, len(schemes) - 1)].lower(), hosts[min(at, len(hosts) - 1)])
            for at, client in enumerate(clients[: self._hops])
        ]


def forwarded(text: str) -> list[Hop]:
    """The elements of a Forwarded header, from left to right; none when it is malformed."""
    hops: list[Hop] = []
    pairs: dict[str, str] = {}
    at = 0
    while at <= len(text):
        found = _PAIR.match(text, at)
        if found is None:
            return []
        name, value, separator = found[1], found[2] or "", found[3]
        if name:
            plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value
            pairs.setdefault(name.lower(), plain)
        if separator != ";":
            if pairs:
                hops.append(
                    Hop(pairs.get("for", ""), pairs.get("proto", "").lower(), pairs.get("host", ""))
                )
            pairs = {}
        if not separator:
            break
        at = found.end()
    return hops


def address_of(text: str) -> Address | None:
    """The address in ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1`` or ``[2001:db8::1]:80``.

    None for anything else. An IPv4 address written as IPv6 becomes IPv4.
    """
    text = text.strip()[:100]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
