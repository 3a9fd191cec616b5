"""Hashes passwords with Argon2id (RFC 9106) and rejects weak ones (NIST SP 800-63B §3.1.1)."""

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
#: Characters that zxcvbn compares: its time grows faster than their number.
_COMPARED = 40
#: Words that users of this service may use in passwords.
_WORDS = ("newsletter", "console", "sendgrid")
#: Limits how many passwords are hashed in parallel, because each takes memory.
_HASHING = threading.BoundedSemaphore(2)
#: Limits how many are hashed or wait. Others get BusyError, because each waiting request holds a
#: thread that also serves the unsubscribe page.
_ADMITTED = threading.BoundedSemaphore(6)
#: Letters and digits that are not easily confused.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class Passwords:
    """Makes and checks hashes with the operator's parameters."""

    def __init__(self, *, memory: int, rounds: int) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory, parallelism=1)

    def hashed(self, password: str) -> str:
        """The hash of a password."""
        with _hashing_slot():
            return self._hasher.hash(_normal(password))

    def fits(self, hashed: str, password: str) -> bool:
        """Whether this is the password; False for an empty hash.

        An empty hash takes the same time, so that the time does not reveal whether an account
        exists.
        """
        if len(password) > _LONGEST:
            password = ""
        with _hashing_slot():
            try:
                right = self._hasher.verify(hashed or self._dummy_hash, _normal(password))
            except (VerifyMismatchError, InvalidHashError):
                return False
        return right and bool(hashed)

    def outdated(self, hashed: str) -> bool:
        """Whether the hash has other parameters than the current ones."""
        return self._hasher.check_needs_rehash(hashed)

    @cached_property
    def _dummy_hash(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())


@contextmanager
def _hashing_slot() -> Iterator[None]:
    """Wait until a password may be hashed; BusyError when too many wait already."""
    if not _ADMITTED.acquire(blocking=False):
        raise BusyError("too many users are signing in", hint="Try again in a few seconds.")
    try:
        with _HASHING:
            yield
    finally:
        _ADMITTED.release()


def generated() -> str:
    """A random password of 99 bits in four groups, easy to read aloud."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def check(password: str, *, email: str, again: str | None = None) -> None:
    """Raise AccountError for a weak password, or when ``again`` differs from it.

    Length matters, kinds of characters do not.
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
            "this password is easy to guess", hint="Use four or five unrelated words."
        )


def _is_guessed(text: str, about: Sequence[str]) -> bool:
    """Whether an attacker who tries common passwords, words, names and dates finds it soon.

    SP 800-63B §3.1.1.2 asks for a comparison with passwords that are commonly used.
    """
    from zxcvbn import zxcvbn  # noqa: PLC0415 (its lists are 10 MB, for a password that is chosen)

    words = [*about, *_WORDS]
    return int(zxcvbn(text[:_COMPARED], user_inputs=words)["score"]) < _UNGUESSABLE


def _runs_on(text: str) -> bool:
    """Whether it repeats one part, or counts up or down."""
    steps = {ord(b) - ord(a) for a, b in pairwise(text)}
    return text in (text + text)[1:-1] or steps in ({1}, {-1})


def _normal(password: str) -> str:
    """One Unicode form for passwords that keyboards encode differently."""
    return unicodedata.normalize("NFKC", password)
