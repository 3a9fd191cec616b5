"""The second factor: an authenticator app (TOTP, RFC 6238), and recovery codes for a lost app.

One statement checks a code and marks it as used, so that two concurrent attempts with the same
code cannot both succeed.
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
    """Whether the user has a second factor."""
    in_force = _factor.c.user_id == user_id, _factor.c.secret != ""
    return session.scalar(select(1).where(*in_force)) is not None


def begin(session: Session, user_id: int) -> str:
    """Create a secret for the user's app. The old one stays valid until ``prove`` succeeds."""
    secret = pyotp.random_base32()
    statement = insert_into(session, _factor).values(
        user_id=user_id, secret="", pending=secret, last_step=0
    )
    session.execute(
        statement.on_conflict_do_update(index_elements=["user_id"], set_={"pending": secret})
    )
    return secret


def pending(session: Session, user_id: int) -> str:
    """The secret that was shown but not proved yet; empty when there is none."""
    return session.scalar(select(_factor.c.pending).where(_factor.c.user_id == user_id)) or ""


def uri(secret: str, *, email: str, issuer: str) -> str:
    """The URI of the QR code: the secret, and the names that the app shows."""
    # A colon separates the two names in this URI.
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=issuer.replace(":", " "))


def prove(session: Session, user_id: int, code: str, *, now: datetime) -> Sequence[str] | None:
    """Activate the pending secret with one of its codes; returns new recovery codes, or None."""
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
    """Whether this is an unused code of the user's app; marks it as used."""
    secret = session.scalar(select(_factor.c.secret).where(_factor.c.user_id == user_id))
    step = _step_of(secret, code, now) if secret else None
    if step is None:
        return False
    unused = _factor.c.user_id == user_id, _factor.c.secret == secret, _factor.c.last_step < step
    return changed(session, update(_factor).where(*unused).values(last_step=step)) == 1


def use_recovery_code(session: Session, user_id: int, code: str, *, now: datetime) -> bool:
    """Whether this is an unused recovery code of the user; marks it as used."""
    unused = (
        _recovery.c.user_id == user_id,
        _recovery.c.code == _hashed(code),
        _recovery.c.used_at.is_(None),
    )
    return changed(session, update(_recovery).where(*unused).values(used_at=now)) == 1


def new_recovery_codes(session: Session, user_id: int) -> Sequence[str]:
    """Replace the user's recovery codes by ten new ones of 80 bits; only hashes are stored."""
    if not has(session, user_id):
        raise AccountError("set up an authenticator app before recovery codes")
    session.execute(delete(_recovery).where(_recovery.c.user_id == user_id))
    codes = [b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(_CODES)]
    rows = [{"user_id": user_id, "code": _hashed(code)} for code in codes]
    session.execute(insert(_recovery), rows)
    return ["-".join(code[at : at + 4] for at in range(0, 16, 4)) for code in codes]


def looks_like_recovery_code(code: str) -> bool:
    """Whether it has the form of a recovery code: 16 letters and digits, in any groups."""
    return sum(c.isalnum() for c in code[:100]) == 16


def recovery_codes_left(session: Session, user_id: int) -> int:
    """How many recovery codes are unused."""
    unused = _recovery.c.user_id == user_id, _recovery.c.used_at.is_(None)
    return session.scalar(select(func.count()).where(*unused)) or 0


def since(session: Session, user_id: int) -> datetime | None:
    """When the app was set up."""
    return session.scalar(select(_factor.c.since).where(_factor.c.user_id == user_id))


def reset(session: Session, user_id: int) -> None:
    """Delete the user's app and recovery codes."""
    session.execute(delete(_factor).where(_factor.c.user_id == user_id))
    session.execute(delete(_recovery).where(_recovery.c.user_id == user_id))


def _step_of(secret: str, code: str, now: datetime) -> int | None:
    """The time step of this code, if it is valid now."""
    given = "".join(code.split()).encode(errors="replace")
    totp, current = pyotp.TOTP(secret), int(now.timestamp()) // _STEP
    for drift in _DRIFT:
        if hmac.compare_digest(totp.generate_otp(current + drift).encode(), given):
            return current + drift
    return None


def _hashed(code: str) -> bytes:
    letters = "".join(c for c in code.lower() if c.isalnum())
    return hashlib.sha256(letters.encode(errors="replace")).digest()
