"""The second factor: an authenticator app (TOTP, RFC 6238), and codes on paper for when it is lost.

A code is used up by one statement that looks and writes at once, so that of two who
bring the same one at the same moment only one gets in.
"""

import hashlib
import hmac
import secrets
from base64 import b32encode
from collections.abc import Sequence
from datetime import datetime

import pyotp
from sqlalchemy import delete, func, insert, select, update

from newsletter.accounts.models import Factor, RecoveryCode
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import AccountError

_factor, _recovery = table_of(Factor), table_of(RecoveryCode)

_STEP = 30
#: A phone's clock may be off by one step either way (RFC 6238 §5.2).
_DRIFT = (0, -1, 1)
_CODES = 10


def has(session: Session, user_id: int) -> bool:
    """Whether the person has to bring a code."""
    in_force = _factor.c.user_id == user_id, _factor.c.secret != ""
    return session.scalar(select(1).where(*in_force)) is not None


def begin(session: Session, user_id: int) -> str:
    """A new secret for the person's app. What is in force stays so until the new one is proved."""
    secret = pyotp.random_base32()
    statement = insert_into(session, _factor).values(
        user_id=user_id, secret="", pending=secret, last_step=0
    )
    session.execute(
        statement.on_conflict_do_update(index_elements=["user_id"], set_={"pending": secret})
    )
    return secret


def pending(session: Session, user_id: int) -> str:
    """The secret that is shown and not proved yet; empty when there is none."""
    return session.scalar(select(_factor.c.pending).where(_factor.c.user_id == user_id)) or ""


def uri(secret: str, *, email: str, issuer: str) -> str:
    """What the picture says: the secret, and the names that the app shows."""
    # A colon parts the two names in this kind of address.
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=issuer.replace(":", " "))


def prove(session: Session, user_id: int, code: str, *, now: datetime) -> Sequence[str] | None:
    """Put the pending secret in force by a code of it; returns new recovery codes, or None."""
    secret = pending(session, user_id)
    step = _step_of(secret, code, now) if secret else None
    if step is None:
        return None
    same = _factor.c.user_id == user_id, _factor.c.pending == secret
    values = {"secret": secret, "pending": "", "last_step": step, "since": now}
    if not changed(session, update(_factor).where(*same).values(values)):
        return None
    return new_recovery_codes(session, user_id)


def check(session: Session, user_id: int, code: str, *, now: datetime) -> bool:
    """Whether this is a code of the person's app that was not used before. It is used up."""
    secret = session.scalar(select(_factor.c.secret).where(_factor.c.user_id == user_id))
    step = _step_of(secret, code, now) if secret else None
    if step is None:
        return False
    unused = _factor.c.user_id == user_id, _factor.c.secret == secret, _factor.c.last_step < step
    return changed(session, update(_factor).where(*unused).values(last_step=step)) == 1


def use_recovery_code(session: Session, user_id: int, code: str, *, now: datetime) -> bool:
    """Whether this is an unused recovery code of the person's. It is used up."""
    unused = (
        _recovery.c.user_id == user_id,
        _recovery.c.code == _hashed(code),
        _recovery.c.used_at.is_(None),
    )
    return changed(session, update(_recovery).where(*unused).values(used_at=now)) == 1


def new_recovery_codes(session: Session, user_id: int) -> Sequence[str]:
    """Ten new codes of 80 bits, in place of those before; only their hashes are kept."""
    if not has(session, user_id):
        raise AccountError("codes stand in for an app, and none is set up")
    session.execute(delete(_recovery).where(_recovery.c.user_id == user_id))
    codes = [b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(_CODES)]
    rows = [{"user_id": user_id, "code": _hashed(code)} for code in codes]
    session.execute(insert(_recovery), rows)
    return ["-".join(code[at : at + 4] for at in range(0, 16, 4)) for code in codes]


def looks_like_recovery_code(code: str) -> bool:
    """Whether it is written like one from paper: 16 letters and digits, in whatever groups."""
    return sum(c.isalnum() for c in code[:100]) == 16


def recovery_codes_left(session: Session, user_id: int) -> int:
    """How many recovery codes are unused."""
    unused = _recovery.c.user_id == user_id, _recovery.c.used_at.is_(None)
    return session.scalar(select(func.count()).where(*unused)) or 0


def since(session: Session, user_id: int) -> datetime | None:
    """Since when the app is in force."""
    return session.scalar(select(_factor.c.since).where(_factor.c.user_id == user_id))


def reset(session: Session, user_id: int) -> None:
    """Forget the person's app and recovery codes."""
    session.execute(delete(_factor).where(_factor.c.user_id == user_id))
    session.execute(delete(_recovery).where(_recovery.c.user_id == user_id))


def _step_of(secret: str, code: str, now: datetime) -> int | None:
    """The time step whose code this is, of those that count at this moment."""
    given = "".join(code.split()).encode(errors="replace")
    totp, current = pyotp.TOTP(secret), int(now.timestamp()) // _STEP
    for drift in _DRIFT:
        if hmac.compare_digest(totp.generate_otp(current + drift).encode(), given):
            return current + drift
    return None


def _hashed(code: str) -> bytes:
    letters = "".join(c for c in code.lower() if c.isalnum())
    return hashlib.sha256(letters.encode(errors="replace")).digest()
