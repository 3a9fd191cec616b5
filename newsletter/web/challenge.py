"""Bot checks for the sign-up form that call no other service.

A stamp in the hosted form says when it was opened; ALTCHA makes the browser compute for a second.
Both are signed with keys derived from the link keys, and stored only after use.
"""

import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from altcha import Payload, create_challenge, verify_solution

from newsletter.db.orm import Session
from newsletter.errors import UserError
from subscribers import rate_limit

#: How long a form may stay open.
STAMP_LIFE = timedelta(days=1)
_CHALLENGE_LIFE = timedelta(minutes=20)
_ALGORITHM = "PBKDF2/SHA-256"
#: One try is 5,000 rounds, about 1.5 ms of one core; some 300 tries are half a second of a
#: desktop and two of an old phone. The counter is drawn from a narrow range.
_ROUNDS = 5_000
_LEAST_TRIES, _MOST_TRIES = 200, 400
#: Characters of a solution; a valid one has about 700.
_MAX_SOLUTION = 4_000


class ChallengeError(UserError):
    """The proof of work is missing, wrong, expired or already used."""


def stamp(keys: Sequence[bytes], now: datetime) -> str:
    """A signed text with the time at which a form was opened."""
    opened = str(int(now.timestamp()))
    return f"{opened}.{_signature(keys[0], opened)}"


def opened_at(keys: Sequence[bytes], text: str) -> datetime | None:
    """When the form with this stamp was opened; None if the signature is wrong."""
    opened, _, signature = text[:100].partition(".")
    given = signature.encode(errors="replace")
    if not any(hmac.compare_digest(_signature(key, opened).encode(), given) for key in keys):
        return None
    return datetime.fromtimestamp(int(opened), UTC)


def challenge(keys: Sequence[bytes], now: datetime) -> dict[str, Any]:
    """A new challenge in the format of the ALTCHA widget."""
    made = create_challenge(
        _ALGORITHM,
        _ROUNDS,
        counter=_LEAST_TRIES + secrets.randbelow(_MOST_TRIES - _LEAST_TRIES),
        expires_at=now + _CHALLENGE_LIFE,
        hmac_secret=keys[0],
    )
    return dict(made.to_dict())


def solved(keys: Sequence[bytes], text: str) -> bytes:
    """The nonce of the challenge solved in ``text``; ChallengeError if it is not solved."""
    if not text:
        raise ChallengeError(
            "the bot check is missing",
            hint="Wait until the check is done, then send the form again.",
        )
    for key in keys:
        if len(text) <= _MAX_SOLUTION and verify_solution(text, key).verified:
            return str(Payload.from_base64(text).challenge.parameters.nonce).encode()
    raise ChallengeError("the bot check has expired or is not valid", hint="Try again.")


def use_up(session: Session, secret: bytes, proof: bytes, *, now: datetime) -> None:
    """Mark a proof as used; ChallengeError if it was used before."""
    key = rate_limit.key_of(secret, "challenge", proof.decode())
    if not rate_limit.hit(session, key, limit=1, window=_CHALLENGE_LIFE, now=now):
        raise ChallengeError("this bot check was used before", hint="Try again.")


def _signature(key: bytes, text: str) -> str:
    return hmac.digest(key, b"stamp\0" + text.encode(errors="replace"), "sha256").hex()[:32]
