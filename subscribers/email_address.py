"""Addresses: what may be mailed, when two are the same person's, and the keyed hash that stays.

Two spellings are one address when they differ in letter case or in how the domain
is written (``BÜCHER.example`` and ``xn--bcher-kva.example``). RFC 5321 §2.3.11 lets a
host tell local parts apart by case; no provider of note does, and a list that did
would mail the same person twice.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from email_validator import EmailNotValidError, validate_email

from newsletter.errors import AddressError

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: Nearly every address of a list; what it does not match is asked of email-validator.
_PLAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[A-Za-z]{{2,63}}", re.ASCII)
#: A word of a text, as far as an address may go.
_WORD = re.compile(r"[^\s<>\"'(),:;=\[\]]++")
_MAX_LOCAL = 64  # octets, RFC 5321 §4.5.3.1.1
_MAX_ADDRESS = 254  # octets, RFC 3696 erratum 1690
#: Characters that are looked at: no address outside ASCII is longer before it is encoded.
_LONGEST = 1000


def without_addresses(text: str) -> str:
    """The text with … for each: servers like to repeat the address that they refuse."""
    # Whole words, each looked at once: a pattern with the @ in its middle is quadratic.
    return _WORD.sub(lambda word: "…" if "@" in word[0][1:-1] else word[0], text)


@dataclass(frozen=True, slots=True)
class Address:
    """A valid address: ``email`` is what we mail, ``identity`` what two spellings share."""

    email: str
    identity: str

    @property
    def domain(self) -> str:
        """The host's name in ASCII lower case."""
        return self.identity.rpartition("@")[2]


def parse(text: str) -> Address:
    """The address in ``text``; AddressError says what is wrong with it.

    Quoted local parts and local parts outside ASCII (RFC 6531) are refused: SendGrid
    does not carry them.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        raise AddressError(
            f"The email address is longer than {_MAX_ADDRESS} characters.", place=_shown(text)
        )
    local, _, domain = text.rpartition("@")
    if (
        _PLAIN.fullmatch(text)
        and len(local) <= _MAX_LOCAL
        and len(text) <= _MAX_ADDRESS
        and "--" not in domain  # may be an A-label, which needs a closer look
    ):
        email = f"{local}@{domain.lower()}"
        return Address(email, email.lower())
    try:
        valid = validate_email(
            text, check_deliverability=False, allow_smtputf8=False, test_environment=True
        )
    except EmailNotValidError as error:
        raise AddressError(str(error), place=_shown(text)) from None
    email = f"{valid.local_part}@{valid.ascii_domain}"
    return Address(email, email.lower())


def hash_address(key: bytes, address: Address) -> bytes:
    """16 bytes that stand for the address and, without ``key``, cannot be traced back to it."""
    return hmac.digest(key, address.identity.encode(), "sha256")[:16]


def address_key(secret: str) -> bytes:
    """The hashing key made of the operator's secret text."""
    return hashlib.sha256(b"newsletter.address\0" + secret.encode()).digest()


def _shown(text: str) -> str:
    """The text fit for one line of an error message."""
    clean = "".join(c if c.isprintable() else "�" for c in text[:80])
    return f"“{clean}…”" if len(text) > 80 else f"“{clean}”"
