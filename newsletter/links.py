"""Tokens in links: purpose-bound, signed, short, and verifiable after keys rotate.

A link token goes into every mail of every send, so it costs about a microsecond
(itsdangerous takes nine, and a million people wait for it). Layout, base64url without padding:

    purpose (1 byte) · key id (1) · numbers and expiry, each as length (1) and bytes · MAC (12)

The MAC is keyed BLAKE2b (RFC 7693 §2.9) of 96 bits, which cannot be guessed where each
guess costs a request (NIST SP 800-107r1 §5.3.4 asks for 64).
"""

import hmac
from base64 import b64decode, urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from hashlib import blake2b, sha256

from newsletter.errors import LinkError

_MAC_BYTES = 12
_MIN_KEY_CHARS = 32
#: No number of ours is larger than so many bytes, and no token longer than so many characters.
_MOST_BYTES, _MOST_CHARS = 16, 200
_LENGTHS = [bytes((size,)) for size in range(256)]
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Purpose(IntEnum):
    """What a token lets its bearer do. A token made for one purpose opens no other door."""

    #: In every mail, numbers (issue, subscriber): leave, choose topics, read on the web.
    RECIPIENT = 1
    #: In a mail that asks for a confirmation, number (confirmation): do what was asked.
    CONFIRM = 2
    #: In a mail to an operator, numbers (user, stamp of their password): choose a new one.
    PASSWORD = 3
    #: To be passed on, number (variant): read on the web what was sent, and whose it was not.
    VIEW = 4


@dataclass(frozen=True, slots=True)
class Claim:
    """What a valid token says: its purpose and numbers, all signed."""

    purpose: Purpose
    numbers: tuple[int, ...]


class Links:
    """Makes and reads link tokens with a list of keys: the first signs, all of them verify.

    To rotate, put a new key in front and keep the old ones for as long as mails
    that carry them may be opened.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise LinkError("no key to sign links with", place="links.keys")
        if any(len(key) < _MIN_KEY_CHARS for key in keys):
            raise LinkError(
                f"a key is shorter than {_MIN_KEY_CHARS} characters", place="links.keys"
            )
        # A key is known by one byte of its hash, so that its place in the list may change.
        self._keys = [sha256(b"newsletter.links\0" + key.encode()).digest() for key in keys]
        self._key_ids = [sha256(key).digest()[0] for key in self._keys]

    def token(self, purpose: Purpose, *numbers: int, expires: datetime | None = None) -> str:
        """A token that carries ``numbers``, none of them negative; ``expires`` is aware."""
        *first, last = (*numbers, int(expires.timestamp()) if expires else 0)
        return self.series(purpose, *first, expiry=None)(last)

    def series(
        self, purpose: Purpose, *numbers: int, expiry: int | None = 0
    ) -> Callable[[int], str]:
        """Makes tokens that differ in their last number only: a batch needs a thousand."""
        head = bytes((purpose, self._key_ids[0])) + b"".join(map(_packed, numbers))
        tail = b"" if expiry is None else _packed(expiry)
        # Keyed and fed with the head once: a copy of it costs half of beginning anew.
        begun = blake2b(head, key=self._keys[0], digest_size=_MAC_BYTES)

        def token(number: int) -> str:
            body = _packed(number) + tail
            mac = begun.copy()
            mac.update(body)
            # What urlsafe_b64encode does, without its detours: this is called a million times.
            text = b2a_base64(head + body + mac.digest(), newline=False).translate(_URL_SAFE)
            return text.rstrip(b"=").decode()

        return token

    def read(self, token: str, purpose: Purpose, *, now: datetime | None = None) -> Claim:
        """The claim of a token made for ``purpose``; ``LinkError`` for any other text."""
        try:
            raw = b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        # The last character has spare bits; only one spelling of a token is the token.
        if not raw or urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
            raise LinkError("this link is damaged", hint="Copy it whole, or open it from the mail.")
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not self._signed(body, mac):
            raise LinkError("this link was not made here", hint="Open it from the mail itself.")
        numbers, expires = _numbers(body)
        if body[0] != purpose:
            raise LinkError("this link is for something else", hint="Open it from the mail itself.")
        if expires and datetime.fromtimestamp(expires, UTC) < (now or datetime.now(UTC)):
            raise LinkError("this link has expired", hint="Ask for a new one.")
        return Claim(Purpose(body[0]), numbers)

    def _signed(self, body: bytes, mac: bytes) -> bool:
        return len(body) > 2 and any(
            key_id == body[1]
            and hmac.compare_digest(blake2b(body, key=key, digest_size=_MAC_BYTES).digest(), mac)
            for key, key_id in zip(self._keys, self._key_ids, strict=True)
        )


def looks_like_token(text: str) -> bool:
    """Whether the text has a token's layout. Who made it, with which key, is not looked at."""
    if len(text) > _MOST_CHARS:
        return False
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return False
    at, end = 2, len(raw) - _MAC_BYTES
    if end <= at or raw[0] not in set(Purpose):
        return False
    while at < end:
        if raw[at] > _MOST_BYTES:
            return False
        at += 1 + raw[at]
    return at == end


def _packed(number: int) -> bytes:
    size = number.bit_length() + 7 >> 3
    return _LENGTHS[size] + number.to_bytes(size, "big")


def _numbers(body: bytes) -> tuple[tuple[int, ...], int]:
    """The numbers and the expiry of a body whose MAC holds, so it is well-formed."""
    values, at = [], 2
    while at < len(body):
        after = at + 1 + body[at]
        values.append(int.from_bytes(body[at + 1 : after], "big"))
        at = after
    return tuple(values[:-1]), values[-1]
