"""Identifies a database: its id, the server it is on, and a fingerprint of its address key.

A copy of the database has the same id. The stored server and key fingerprint are compared with
the current ones, so that a wrong key or a restored copy is noticed before it does harm.
"""

import hmac
import secrets
from datetime import datetime

from sqlalchemy import select, text

from newsletter.db.dialect import insert_into, is_postgresql
from newsletter.db.orm import Field, Model, Session, table_of
from newsletter.errors import AddressError, SettingsError
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber


class Identity(Model, table=True):
    """One identifying value of this database."""

    __tablename__ = "identity"

    #: ``database``, ``server`` or ``address_key``.
    name: str = Field(primary_key=True, max_length=40)
    value: str = Field(max_length=200)
    at: datetime


_identity, _subscriber = table_of(Identity), table_of(Subscriber)

_ADDRESS_KEY = "address_key"
#: Changes when a database is restored, copied, or failed over to a standby: the cluster id, its
#: timeline (PostgreSQL, "Continuous Archiving", 26.3.6), and the internal ids of the database and
#: one of its tables. Functions that the role may not call are skipped.
_SERVER = """
    SELECT concat_ws('/',
        CASE WHEN has_function_privilege('pg_control_system()', 'execute')
            THEN (SELECT system_identifier FROM pg_control_system()) END,
        CASE WHEN has_function_privilege('pg_control_checkpoint()', 'execute')
            THEN (SELECT timeline_id FROM pg_control_checkpoint()) END,
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        'identity'::regclass::oid)
"""


def database_id(session: Session, *, now: datetime) -> str:
    """The id of the database, created at the first call; copies have the same."""
    return _get_or_set(session, "database", secrets.token_hex(16), now)


def was_moved(session: Session, *, now: datetime) -> bool:
    """Whether a PostgreSQL database is on another server than at the last call.

    That is so after a restore, and reported once. SQLite has no such information.
    """
    if not is_elsewhere(session):
        return False
    # The row is locked, so that only one of several processes returns True.
    here = session.scalar(text(_SERVER))
    before = _get_or_set(session, "server", here, now)
    if before == here:
        return False
    session.execute(
        _identity.update().where(_identity.c.name == "server").values(value=here, at=now)
    )
    return True


def is_elsewhere(session: Session) -> bool:
    """Whether ``was_moved`` has something to note. Only reads."""
    if not is_postgresql(session):
        return False
    known = select(_identity.c.value).where(_identity.c.name == "server")
    return bool(session.scalar(known) != session.scalar(text(_SERVER)))


def is_address_key(session: Session, key: bytes) -> bool | None:
    """Whether the database's address hashes are made with this key; None if it has none yet.

    Without a stored fingerprint, it compares the hashes of some subscribers. Only reads.
    """
    known = address_key_fingerprint(session)
    if known is not None:
        return hmac.compare_digest(known, _fingerprint(key))
    some = select(_subscriber.c.email, _subscriber.c.address_hash).order_by(_subscriber.c.id)
    compared = [
        _matches(key, row.email, row.address_hash) for row in session.execute(some.limit(20))
    ]
    return False if False in compared and True not in compared else None


def address_key_fingerprint(session: Session) -> str | None:
    """The stored fingerprint of the database's address key; None if it has no key yet."""
    return session.scalar(select(_identity.c.value).where(_identity.c.name == _ADDRESS_KEY))


def has_fingerprint(key: bytes, fingerprint: str) -> bool:
    """Whether this is the address key with that fingerprint."""
    return hmac.compare_digest(_fingerprint(key), fingerprint)


def require_address_key(session: Session, key: bytes, *, now: datetime) -> None:
    """Raise SettingsError unless this is the database's address key; stores the first valid one.

    Only a one-way fingerprint of the key is stored.
    """
    if is_address_key(session, key) is not False:
        known = _get_or_set(session, _ADDRESS_KEY, _fingerprint(key), now)
        if hmac.compare_digest(known, _fingerprint(key)):
            return
    raise SettingsError(
        "this is not the address key of this database. With it, imports would add all subscribers "
        "a second time, also those who unsubscribed or were erased",
        place="subscribers.address_key",
        hint="Set NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY to the key of this database; it is in "
        "the backups and cannot be changed. A new key needs a new database.",
    )


def _fingerprint(key: bytes) -> str:
    return hmac.digest(key, b"newsletter.address_key of this database", "sha256").hex()[:32]


def _matches(key: bytes, email: str, hashed: bytes) -> bool | None:
    try:
        return hash_address(key, parse(email)) == hashed
    except AddressError:
        return None


def _get_or_set(session: Session, name: str, value: str, now: datetime) -> str:
    """The stored value of this name; stores ``value`` if there is none."""
    row = insert_into(session, _identity).values(name=name, value=value, at=now)
    session.execute(row.on_conflict_do_nothing())
    stored = select(_identity.c.value).where(_identity.c.name == name).with_for_update()
    return str(session.execute(stored).scalar_one())
