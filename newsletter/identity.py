"""What a database is known by: a name of its own, and marks of what it belongs together with.

A copy of the database has the same name. What it was made with (the key of address hashes) and
where it stood (the server) are told from what is there now, so that a wrong key or a restored
copy is noticed before anything is done with it.
"""

import hmac
import secrets
from datetime import datetime

from sqlalchemy import select, text

from newsletter.db.orm import Field, Model, Session, insert_into, table_of
from newsletter.errors import AddressError, SettingsError
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber


class Identity(Model, table=True):
    """One mark of this database."""

    __tablename__ = "identity"

    #: ``database``, ``server`` or ``address_key``.
    name: str = Field(primary_key=True, max_length=40)
    value: str = Field(max_length=200)
    at: datetime


_identity, _subscriber = table_of(Identity), table_of(Subscriber)

_ADDRESS_KEY = "address_key"
#: Changes when a database is restored, copied, or taken over by a standby: the cluster, its
#: timeline (PostgreSQL, "Continuous Archiving", 26.3.6), and what the database and one of its
#: tables are called within. Functions that a role may not call are left out.
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
    """The database's own name, given when it is first asked for; its copies have the same."""
    return _kept(session, "database", secrets.token_hex(16), now)


def was_moved(session: Session, *, now: datetime) -> bool:
    """Whether a PostgreSQL database stands elsewhere than when this was last asked.

    That is so after a restore, and noticed once. A SQLite file tells nothing of that.
    """
    if not is_elsewhere(session):
        return False
    # The row's lock: of several processes one notices.
    here = session.scalar(text(_SERVER))
    before = _kept(session, "server", here, now)
    if before == here:
        return False
    session.execute(
        _identity.update().where(_identity.c.name == "server").values(value=here, at=now)
    )
    return True


def is_elsewhere(session: Session) -> bool:
    """Whether ``was_moved`` has something to note. Only reads."""
    if session.get_bind().dialect.name != "postgresql":
        return False
    known = select(_identity.c.value).where(_identity.c.name == "server")
    return bool(session.scalar(known) != session.scalar(text(_SERVER)))


def fits(session: Session, key: bytes) -> bool | None:
    """Whether this is the key that makes the database's address hashes; None if it has none yet.

    A database that was never asked is told by the subscribers in it. Only reads.
    """
    known = session.scalar(select(_identity.c.value).where(_identity.c.name == _ADDRESS_KEY))
    if known is not None:
        return hmac.compare_digest(known, _mark(key))
    some = select(_subscriber.c.email, _subscriber.c.address_hash).order_by(_subscriber.c.id)
    compared = [_makes(key, row.email, row.address_hash) for row in session.execute(some.limit(20))]
    return False if False in compared and True not in compared else None


def require_address_key(session: Session, key: bytes, *, now: datetime) -> None:
    """Raise SettingsError unless this is the database's key; the first that fits becomes it.

    What is kept of it is a one-way value.
    """
    if fits(session, key) is not False:
        known = _kept(session, _ADDRESS_KEY, _mark(key), now)
        if hmac.compare_digest(known, _mark(key)):
            return
    raise SettingsError(
        "this is not the key that this database was made with. With it everybody would come in "
        "a second time, and whoever left or was erased would come back",
        place="subscribers.address_key",
        hint="Set NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY to the key of this database; it is part of "
        "its backups and cannot be changed. A new key needs a new database.",
    )


def _mark(key: bytes) -> str:
    return hmac.digest(key, b"newsletter.address_key of this database", "sha256").hex()[:32]


def _makes(key: bytes, email: str, hashed: bytes) -> bool | None:
    try:
        return hash_address(key, parse(email)) == hashed
    except AddressError:
        return None


def _kept(session: Session, name: str, value: str, now: datetime) -> str:
    """What is known under this name; the value where nothing is."""
    row = insert_into(session, _identity).values(name=name, value=value, at=now)
    session.execute(row.on_conflict_do_nothing())
    wanted = select(_identity.c.value).where(_identity.c.name == name).with_for_update()
    return str(session.execute(wanted).scalar_one())
