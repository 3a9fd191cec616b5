"""What tells people from programs without asking anything of the network.

A stamp in our own form says when it was opened; ALTCHA makes a browser work for a second.
Both are signed by keys made of those of the links, and kept nowhere until they are used.
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

#: A form may lie open for so long.
STAMP_LIFE = timedelta(days=1)
_CHALLENGE_LIFE = timedelta(minutes=20)
_ALGORITHM = "PBKDF2/SHA-256"
#: One try is 5,000 rounds, about 1.5 ms of one core; some 300 tries are half a second of a
#: desktop and two of an old phone. The counter is drawn, so that nobody is unlucky.
_ROUNDS = 5_000
_LEAST_TRIES, _MOST_TRIES = 200, 400
#: A solution of ours is some 700 characters.
_MAX_SOLUTION = 4_000


class ChallengeError(UserError):
    """No proof of work, or one that is wrong, too old or used already."""


def stamp(keys: Sequence[bytes], now: datetime) -> str:
    """A text that says when a form was opened."""
    opened = str(int(now.timestamp()))
    return f"{opened}.{_signature(keys[0], opened)}"


def opened_at(keys: Sequence[bytes], text: str) -> datetime | None:
    """When the form with this stamp was opened; None when the stamp is not ours."""
    opened, _, signature = text[:100].partition(".")
    given = signature.encode(errors="replace")
    if not any(hmac.compare_digest(_signature(key, opened).encode(), given) for key in keys):
        return None
    return datetime.fromtimestamp(int(opened), UTC)


def challenge(keys: Sequence[bytes], now: datetime) -> dict[str, Any]:
    """A new challenge, as ALTCHA's widget wants it."""
    made = create_challenge(
        _ALGORITHM,
        _ROUNDS,
        counter=_LEAST_TRIES + secrets.randbelow(_MOST_TRIES - _LEAST_TRIES),
        expires_at=now + _CHALLENGE_LIFE,
        hmac_secret=keys[0],
    )
    return dict(made.to_dict())


def solved(keys: Sequence[bytes], text: str) -> bytes:
    """What stands for the challenge solved in ``text``; ChallengeError when it is not solved."""
    if not text:
        raise ChallengeError("one more step", hint="Let your browser prove that you are no robot.")
    for key in keys:
        if len(text) <= _MAX_SOLUTION and verify_solution(text, key).verified:
            return str(Payload.from_base64(text).challenge.parameters.nonce).encode()
    raise ChallengeError("the proof is too old or does not fit", hint="It is made anew: try again.")


def use_up(session: Session, secret: bytes, proof: bytes, *, now: datetime) -> None:
    """Let a proof count this once; ChallengeError when it has counted before."""
    key = rate_limit.key_of(secret, "challenge", proof.decode())
    if not rate_limit.hit(session, key, limit=1, window=_CHALLENGE_LIFE, now=now):
        raise ChallengeError("this proof was used before", hint="It is made anew: try again.")


def _signature(key: bytes, text: str) -> str:
    return hmac.digest(key, b"stamp\0" + text.encode(errors="replace"), "sha256").hex()[:32]
