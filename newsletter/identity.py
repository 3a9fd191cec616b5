"""What a database is known by: a name of its own, and marks of what it belongs together with.

A copy of the database has the same name. What it was made with (the key of address hashes) and
where it stood (the server) are told from what is there now, so that a wrong key or a restored
copy is noticed before anything is done with it.
"""

import hmac
import secrets
from datetime import datetime

from sqlalchemy import select, text

from newsletter.errors import SettingsError
from subscribers.address import hash_address, parse
from subscribers.errors import AddressError
from subscribers.models import Subscriber
from subscribers.schema import Field, Model, Session, insert_into, table_of


class Identity(Model, table=True):
    """One mark of this database."""

    __tablename__ = "identity"

    #: ``database``, ``server`` or ``address_key``.
    name: str = Field(primary_key=True, max_length=40)
    value: str = Field(max_length=200)
    at: datetime


_identity, _subscriber = table_of(Identity), table_of(Subscriber)

_KEY_MARK = b"newsletter.address_key of this database"
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
    if session.get_bind().dialect.name != "postgresql":
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


def require_address_key(session: Session, key: bytes, *, now: datetime) -> None:
    """Raise SettingsError unless this is the key by which the database knows its addresses.

    The first key is the right one, unless it does not fit a subscriber who is there already.
    What is kept is a one-way value of the key.
    """
    mark = hmac.digest(key, _KEY_MARK, "sha256").hex()[:32]
    known = session.scalar(select(_identity.c.value).where(_identity.c.name == "address_key"))
    if known is None:
        known = _kept(session, "address_key", mark, now) if _fits(session, key) else ""
    if not hmac.compare_digest(known, mark):
        raise SettingsError(
            "this is not the key that this database was made with: everybody would be in it "
            "twice, and who left or was erased would come back",
            place="subscribers.address_key",
            hint="Set NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY to the key of this database. It is kept "
            "beside the database's backups, and cannot be changed.",
        )


def _fits(session: Session, key: bytes) -> bool:
    """Whether the subscribers that are there have the hashes that this key makes."""
    some = select(_subscriber.c.email, _subscriber.c.address_hash).order_by(_subscriber.c.id)
    for row in session.execute(some.limit(20)):
        try:
            if hash_address(key, parse(row.email)) == row.address_hash:
                return True
        except AddressError:
            continue
        return False
    return True


def _kept(session: Session, name: str, value: str, now: datetime) -> str:
    """What is known under this name; the value where nothing is."""
    row = insert_into(session, _identity).values(name=name, value=value, at=now)
    session.execute(row.on_conflict_do_nothing())
    wanted = select(_identity.c.value).where(_identity.c.name == name).with_for_update()
    return str(session.execute(wanted).scalar_one())
