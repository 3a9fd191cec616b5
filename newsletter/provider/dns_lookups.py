"""DNS lookups. A name without records differs from a resolver that does not answer."""

import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from newsletter.provider.public_addresses import is_public

#: Looks up the records of a name by type (TXT, MX, A, AAAA). An empty list says that DNS has none;
#: UnaskedError is raised when DNS did not answer.
Lookup = Callable[[str, str], list[str]]

#: Names that are not in public DNS (RFC 2606, 6761, 6762 with appendix G, 7686, 8375, 9476).
_PRIVATE: Final = (
    "localhost",
    "local",
    "test",
    "example",
    "invalid",
    "internal",
    "home.arpa",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "localdomain",
    "onion",
    "alt",
)
#: The last part of a name that a resolver may read as an address: 127.1, 0x7f.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATIENCE: Final = 4.0  # seconds, for one name
#: Stop asking after this many names without an answer: a dead resolver takes seconds for each.
_GIVE_UP_AFTER: Final = 2


class UnaskedError(Exception):
    """DNS did not answer: no resolver, a timeout, or a broken zone."""


def is_public_name(host: str) -> bool:
    """Whether a host name or address can be public."""
    host = host.lower().removesuffix(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        ends = tuple(f".{name}" for name in _PRIVATE)
        return (
            "." in host.strip(".")
            and not f".{host}".endswith(ends)
            and not _NUMBER.fullmatch(host.rpartition(".")[2])
        )
    return is_public(host)


def is_this_machine(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def resolver(server: tuple[str, int] | None = None) -> Lookup:
    """A lookup that asks the system's resolver, or a name server at an address and port."""
    import dns.exception  # noqa: PLC0415 (30 ms, for one command)
    import dns.resolver  # noqa: PLC0415

    silent = 0

    def lookup(name: str, kind: str) -> list[str]:
        nonlocal silent
        if silent >= _GIVE_UP_AFTER:
            raise UnaskedError("the resolver does not answer")
        try:
            asked = dns.resolver.Resolver(configure=server is None)
            if server is not None:
                asked.nameservers, asked.port = [server[0]], server[1]
            answer = asked.resolve(name, kind, lifetime=_PATIENCE)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            silent += 1
            raise UnaskedError(str(error).partition("\n")[0] or type(error).__name__) from None
        return [_text(record) for record in answer]

    return lookup


def _text(record: object) -> str:
    """A record as text. The parts of a TXT record are joined (RFC 7208 §3.3)."""
    strings = getattr(record, "strings", None)
    if strings is not None:
        return b"".join(strings).decode(errors="replace")
    return str(getattr(record, "exchange", record)).rstrip(".").lower()
