"""What becomes of each mail: by its address if that is a magic one, else by rates, repeatably."""

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

#: Shares of all mails, for addresses that are not magic.
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

#: The account's own lists, and the words with which SendGrid drops what stands on them. Of an
#: address that stands on several the first is told.
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
class Fate:
    """What happens to one mail after ``processed``, in order; and why it is dropped, if it is."""

    happenings: tuple[str, ...]
    drop_reason: str = ""
    #: Dropped because it stood on one of the account's lists before.
    listed: bool = False


def fate(
    email: str,
    message_id: str,
    *,
    rates: Mapping[str, float],
    seed: int,
    listed_on: Collection[str] | None = None,
) -> Fate:
    """The same address, request and seed have the same fate."""
    for name, reason in DROP_REASONS.items():
        if name in (listed_on or ()):
            return Fate(("dropped",), reason, listed=True)
    magic = email.partition("@")[0].partition("+")[0].lower()
    if magic in MAGIC:
        return Fate(MAGIC[magic], "Invalid" if magic == "drop" else "")
    digest = hashlib.sha256(f"{seed}\0{message_id}\0{email.lower()}".encode()).digest()
    chance = Chances(digest)
    for kind in _FINAL:
        if chance() < rates.get(kind, 0):
            return Fate((kind,))
    happenings = ["deferred"] if chance() < rates.get("deferred", 0) else []
    happenings.append("delivered")
    happenings += [kind for kind in _LATER if chance() < rates.get(kind, 0)]
    return Fate(tuple(happenings))


class Chances:
    """Numbers in [0, 1) from a digest, three bytes each."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._at = 0

    def __call__(self) -> float:
        """The next number."""
        self._at += 3
        return int.from_bytes(self._digest[self._at - 3 : self._at]) / 2**24
