"""What is known of an address's domain: throw-away mailboxes, and whether it takes mail."""

from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from disposable_email_domains import blocklist

if TYPE_CHECKING:
    from dns.resolver import LRUCache, Resolver

#: A visitor waits for the answer.
_PATIENCE = 2.0  # seconds
#: Look-ups at once. Strangers choose the domains: slow ones must not hold all threads.
_AT_ONCE = BoundedSemaphore(8)


def is_disposable(domain: str) -> bool:
    """Whether the domain, or one above it, belongs to a service of throw-away mailboxes."""
    labels = domain.split(".")
    return any(".".join(labels[start:]) in blocklist for start in range(len(labels) - 1))


def takes_mail(domain: str) -> bool:
    """Whether DNS says that the domain takes mail; where DNS does not say, it does.

    A mail host (RFC 5321 §5.1), or without any an address; a null MX (RFC 7505) takes none.
    """
    if not _AT_ONCE.acquire(blocking=False):
        return True
    try:
        return _asked(domain)
    finally:
        _AT_ONCE.release()


def _asked(domain: str) -> bool:
    # A tenth of a second, for one setting.
    import dns.exception  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    try:
        resolver = dns.resolver.Resolver()  # reads the machine's configuration
        resolver.cache = answers()
        resolver.lifetime = _PATIENCE
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
    """Answers that were given before."""
    import dns.resolver  # noqa: PLC0415

    return dns.resolver.LRUCache(10_000)
