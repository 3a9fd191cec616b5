"""Passwords: Argon2id (RFC 9106), and what may be one (NIST SP 800-63B §3.1.1)."""

import secrets
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from newsletter.errors import AccountError, BusyError

_SHORTEST, _LONGEST = 12, 200
#: Of zxcvbn's scores 0 to 4: 3 is 100 million guesses or more.
_UNGUESSABLE = 3
#: Characters that are compared: the work grows faster than their number.
_LOOKED_AT = 40
#: What people make passwords of here.
_WORDS = ("newsletter", "console", "sendgrid")
#: As many are looked at at a time as memory is meant for, however many people come at once.
_AT_A_TIME = threading.BoundedSemaphore(2)
#: So many are looked at or wait for it. All others are sent away at once: each that waits holds
#: one of the threads that also serve the page to unsubscribe.
_AT_MOST = threading.BoundedSemaphore(6)
#: Letters and digits that nobody confuses when they copy them.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class Passwords:
    """Makes and checks hashes with the operator's parameters."""

    def __init__(self, *, memory: int, rounds: int) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory, parallelism=1)

    def hashed(self, password: str) -> str:
        """What is kept of a password."""
        with _turn():
            return self._hasher.hash(_normal(password))

    def fits(self, hashed: str, password: str) -> bool:
        """Whether this is the password; without a hash the same work is done, for nothing.

        So it takes the same time to find that nobody has this address.
        """
        if len(password) > _LONGEST:
            password = ""
        with _turn():
            try:
                right = self._hasher.verify(hashed or self._nobodys, _normal(password))
            except (VerifyMismatchError, InvalidHashError):
                return False
        return right and bool(hashed)

    def outdated(self, hashed: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())


@contextmanager
def _turn() -> Iterator[None]:
    """Wait for the work of one password; BusyError where too many wait already."""
    if not _AT_MOST.acquire(blocking=False):
        raise BusyError(
            "too many people sign in at this moment", hint="Try again in a few seconds."
        )
    try:
        with _AT_A_TIME:
            yield
    finally:
        _AT_MOST.release()


def generated() -> str:
    """A password that can be read out: 99 bits in four groups."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def check(password: str, *, email: str, again: str | None = None) -> None:
    """Raise AccountError for what is no password, or typed differently the second time.

    Length counts, kinds of signs do not.
    """
    text = _normal(password)
    local = email.partition("@")[0].casefold()
    if len(text) < _SHORTEST:
        raise AccountError(
            f"a password has {_SHORTEST} characters or more",
            hint="Four or five words that do not belong together are easy to remember.",
        )
    if len(text) > _LONGEST:
        raise AccountError(f"a password has at most {_LONGEST} characters")
    if again is not None and again != password:
        raise AccountError("the two passwords differ")
    known = text.casefold() in {local, email.casefold()}
    if len(set(text)) < 5 or known or _runs_on(text) or _is_guessed(text, (email, local)):
        raise AccountError(
            "this password is easy to guess", hint="Four or five unrelated words are not."
        )


def _is_guessed(text: str, about: Sequence[str]) -> bool:
    """Whether who tries common passwords, words, names and dates first finds it soon.

    SP 800-63B §3.1.1.2 asks for a comparison with passwords that are commonly used.
    """
    from zxcvbn import zxcvbn  # noqa: PLC0415 (its lists are 10 MB, for a password that is chosen)

    looked_at = text[:_LOOKED_AT]
    words = [*about, *_WORDS]
    return int(zxcvbn(looked_at, user_inputs=words)["score"]) < _UNGUESSABLE


def _runs_on(text: str) -> bool:
    """Whether it is one piece over and over, or counts up or down."""
    steps = {ord(b) - ord(a) for a, b in pairwise(text)}
    return text in (text + text)[1:-1] or steps in ({1}, {-1})


def _normal(password: str) -> str:
    """One spelling for what two keyboards spell differently."""
    return unicodedata.normalize("NFKC", password)
