"""Decides which network addresses are public, for connections whose target outsiders choose.

``is_global`` of the standard library knows IANA's special-purpose registries as of the release of
this Python. This module adds later entries of the registries, addresses inside tunnels and
translators, and addresses that look public but belong to a cloud's internal services.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

#: All public addresses of IPv6 (RFC 4291, section 2.4). Outside are ::/96
#: (IPv4-compatible), fec0::/10 (site-local), fc00::/7, fe80::/10, ff00::/8 and 64:ff9b:1::/48.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
#: The well-known prefix of NAT64 (RFC 6052): a translator connects to the IPv4 address inside.
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC: Final = (
    IPv4Network("192.0.0.0/24"),  # RFC 6890; 192.0.0.192 is Oracle Cloud's metadata
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, given up (RFC 7526)
    IPv4Network("100.64.0.0/10"),  # carriers' NAT (RFC 6598); 100.100.100.200 is Alibaba's metadata
    IPv4Network("168.63.129.16/32"),  # Azure's wire server, the same in every network
    IPv4Network("169.254.0.0/16"),  # link-local; 169.254.169.254 is most clouds' metadata
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),
    IPv6Network("2001::/23"),  # Teredo, ORCHID, benchmarks (RFC 2928)
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4 carries an IPv4 address; no site is reached by it any more
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)


def is_public(text: str) -> bool:
    """Whether this is a public address, and an IPv4 address embedded in it is public, too.

    False for invalid addresses, and for addresses with a zone, which are link-local.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return _is_public(address)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    inside = _carried(address)
    return address in _GLOBAL_UNICAST and _is_public(address) and all(map(_is_public, inside))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    special = any(
        address.version == network.version and address in network for network in _NOT_PUBLIC
    )
    return address.is_global and not address.is_multicast and not special


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 address of a host behind an ISATAP router (RFC 5214, section 6.1)."""
    if (int(address) >> 32) & 0xFDFF_FFFF == 0x0000_5EFE:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
