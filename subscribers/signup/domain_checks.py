"""Checks of an address's domain: disposable mailboxes, and whether it accepts email."""

from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from disposable_email_domains import blocklist

if TYPE_CHECKING:
    from dns.resolver import LRUCache, Resolver

#: A visitor waits for the answer.
_TIMEOUT = 2.0  # seconds
#: Concurrent lookups. Strangers choose the domains: slow ones must not block all threads.
_LOOKUPS = BoundedSemaphore(8)


def is_disposable(domain: str) -> bool:
    """Whether the domain, or a parent domain, belongs to a service of disposable mailboxes."""
    labels = domain.split(".")
    return any(".".join(labels[start:]) in blocklist for start in range(len(labels) - 1))


def accepts_email(domain: str) -> bool:
    """Whether DNS says that the domain accepts email; True if DNS does not answer.

    It does with a mail server (RFC 5321 §5.1) or, without any, with an address record. It does
    not with a null MX record (RFC 7505).
    """
    if not _LOOKUPS.acquire(blocking=False):
        return True
    try:
        return _look_up(domain)
    finally:
        _LOOKUPS.release()


def _look_up(domain: str) -> bool:
    # Imported late: it takes a tenth of a second, and only one setting needs it.
    import dns.exception  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    try:
        resolver = dns.resolver.Resolver()  # reads the machine's configuration
        resolver.cache = answers()
        resolver.lifetime = _TIMEOUT
        hosts = resolver.resolve(domain, "MX")
        return any(str(host.exchange) != "." for host in hosts)
    except dns.resolver.NXDOMAIN:
        return False
    except dns.resolver.NoAnswer:
        return _has_address(resolver, domain)
    except (dns.exception.DNSException, OSError, UnicodeError):
        return True


def _has_address(resolver: "Resolver", domain: str) -> bool:
    import dns.exception  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    for kind in ("A", "AAAA"):
        try:
            resolver.resolve(domain, kind)
        except dns.resolver.NoAnswer:
            continue
        except (dns.exception.DNSException, OSError, UnicodeError):
            return True
        else:
            return True
    return False


@cache
def answers() -> "LRUCache":
    """The cache of DNS answers."""
    import dns.resolver  # noqa: PLC0415

    return dns.resolver.LRUCache(10_000)
