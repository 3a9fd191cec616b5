"""A hold on all sending: what stopped one request, a rate limit or a broken line, stops them all.

One row that every claim looks at, so that a wait which the provider asked one worker for
is kept by all, on any machine.
"""

from datetime import datetime, timedelta

from sqlalchemy import case, delete, select, update

from newsletter.sending.models import Hold
from subscribers.schema import Session, insert_into, table_of

_hold = table_of(Hold)
_NAME = "provider"
#: Trouble that comes back within this time after a hold has ended never ended itself.
_SAME_TROUBLE = timedelta(minutes=6)


def impose(session: Session, *, now: datetime, until: datetime, reason: str) -> timedelta:
    """Let nobody send before ``until``; returns how long this trouble has lasted by now.

    A longer hold in force stays.
    """
    insert = insert_into(session, _hold).values(
        name=_NAME, until=until, since=now, reason=reason[:1000]
    )
    lasting = _hold.c.until >= now - _SAME_TROUBLE
    row = session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "until": case(
                    (_hold.c.until > insert.excluded.until, _hold.c.until),
                    else_=insert.excluded.until,
                ),
                "since": case((lasting, _hold.c.since), else_=insert.excluded.since),
                "reason": insert.excluded.reason,
            },
        ).returning(_hold.c.since)
    ).one()
    return now - row.since  # type: ignore[no-any-return]


def in_force(session: Session, *, now: datetime) -> Hold | None:
    """The hold that keeps everybody waiting, if there is one."""
    return session.scalar(select(Hold).where(_hold.c.until > now))


def begin_anew(session: Session, *, now: datetime) -> None:
    """Forget how long trouble has lasted: an operator has looked and says go on."""
    session.execute(update(_hold).values(since=now))


def lift(session: Session) -> None:
    """End whatever hold there is."""
    session.execute(delete(_hold))
