"""The outcome of each email: by its address if that is a magic one, otherwise by rates.

The same address, request and seed always have the same outcome.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Magic local parts: ``bounce@…`` or ``bounce+anything@…``.
MAGIC: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ok": ("delivered",),
        "bounce": ("bounce",),
        "blocked": ("blocked",),
        "drop": ("dropped",),
        "defer": ("deferred", "delivered"),
        "open": ("delivered", "open"),
        "machine": ("delivered", "machine_open"),
        "click": ("delivered", "open", "click"),
        "spam": ("delivered", "spamreport"),
        "unsub": ("delivered", "unsubscribe"),
        "groupunsub": ("delivered", "group_unsubscribe"),
        "oneclick": ("delivered", "open", "oneclick"),
    }
)

#: Event kind → probability, for addresses that are not magic.
DEFAULT_RATES: Mapping[str, float] = MappingProxyType(
    {
        "bounce": 0.012,
        "blocked": 0.004,
        "deferred": 0.02,
        "open": 0.32,
        "machine_open": 0.15,
        "click": 0.06,
        "spamreport": 0.002,
        "unsubscribe": 0.002,
        "oneclick": 0.006,
    }
)

_FINAL = ("bounce", "blocked")
_LATER = ("machine_open", "open", "click", "spamreport", "unsubscribe", "oneclick")

#: The account's suppression lists, and SendGrid's reason for dropping an address that is on one.
#: For an address on several lists, the first one counts.
DROP_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "bounces": "Bounced Address",
        "spam_reports": "Spam Reporting Address",
        "unsubscribes": "Unsubscribed Address",
        "group": "Unsubscribed Address",
        "invalid_emails": "Invalid",
    }
)


@dataclass(frozen=True, slots=True)
class EmailOutcome:
    """The event kinds of one email after ``processed``, in order, and why it was dropped."""

    kinds: tuple[str, ...]
    drop_reason: str = ""
    #: Dropped because the address was on one of the account's lists before.
    listed: bool = False


def outcome_of(
    email: str,
    message_id: str,
    *,
    rates: Mapping[str, float],
    seed: int,
    listed_on: Collection[str] | None = None,
) -> EmailOutcome:
    """The outcome of the email to ``email`` in this request."""
    for name, reason in DROP_REASONS.items():
        if name in (listed_on or ()):
            return EmailOutcome(("dropped",), reason, listed=True)
    magic = email.partition("@")[0].partition("+")[0].lower()
    if magic in MAGIC:
        return EmailOutcome(MAGIC[magic], "Invalid" if magic == "drop" else "")
    digest = hashlib.sha256(f"{seed}\0{message_id}\0{email.lower()}".encode()).digest()
    chance = _Chances(digest)
    for kind in _FINAL:
        if chance() < rates.get(kind, 0):
            return EmailOutcome((kind,))
    kinds = ["deferred"] if chance() < rates.get("deferred", 0) else []
    kinds.append("delivered")
    kinds += [kind for kind in _LATER if chance() < rates.get(kind, 0)]
    return EmailOutcome(tuple(kinds))


class _Chances:
    """Numbers in [0, 1) from a digest, three bytes each."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._at = 0

    def __call__(self) -> float:
        """The next number."""
        self._at += 3
        return int.from_bytes(self._digest[self._at - 3 : self._at]) / 2**24
