"""Email addresses: which are valid, when two are the same, and their keyed hash.

Two spellings are the same address if they differ only in letter case or in the encoding of the
domain (``BÜCHER.example`` and ``xn--bcher-kva.example``). RFC 5321 §2.3.11 lets a server
distinguish letter case in local parts. No major provider does, and a list that did would email
the same person twice.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from email_validator import EmailNotValidError, validate_email

from newsletter.errors import AddressError

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: Matches nearly every address of a list; email-validator checks the others.
_PLAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[A-Za-z]{{2,63}}", re.ASCII)
#: A run of characters that may be an address within a text.
_WORD = re.compile(r"[^\s<>\"'(),:;=\[\]]++")
_MAX_LOCAL = 64  # octets, RFC 5321 §4.5.3.1.1
_MAX_ADDRESS = 254  # octets, RFC 3696 erratum 1690
#: Longer texts are not parsed: no valid address, in any encoding, has so many characters.
_LONGEST = 1000


def without_addresses(text: str) -> str:
    """The text with … for each address: servers like to repeat the address that they refuse."""
    # Whole words, each read once: a pattern with the @ in its middle takes quadratic time.
    return _WORD.sub(lambda word: "…" if "@" in word[0][1:-1] else word[0], text)


@dataclass(frozen=True, slots=True)
class Address:
    """A valid address: ``email`` is used for sending, ``identity`` is equal for all spellings."""

    email: str
    identity: str

    @property
    def domain(self) -> str:
        """The domain in lower-case ASCII."""
        return self.identity.rpartition("@")[2]


def parse(text: str) -> Address:
    """The address in ``text``; AddressError says what is wrong with it.

    Quoted local parts and local parts outside ASCII (RFC 6531) are refused: SendGrid does not
    support them.
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
        and "--" not in domain  # may be an A-label, which email-validator checks
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
    """A 16-byte hash of the address that cannot be traced back to it without ``key``."""
    return hmac.digest(key, address.identity.encode(), "sha256")[:16]


def address_key(secret: str) -> bytes:
    """The hashing key derived from the operator's secret text."""
    return hashlib.sha256(b"newsletter.address\0" + secret.encode()).digest()


def _shown(text: str) -> str:
    """The text, shortened and made printable for one line of an error message."""
    clean = "".join(c if c.isprintable() else "�" for c in text[:80])
    return f"“{clean}…”" if len(text) > 80 else f"“{clean}”"
