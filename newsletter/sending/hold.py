"""A hold on all sending: what stopped one request, a rate limit or a broken line, stops them all.

One row that every claim looks at, so that a wait which the provider asked one worker for
is kept by all, on any machine.
"""

from datetime import datetime, timedelta

from sqlalchemy import case, delete, exists, select, update

from newsletter.sending.models import Batch, Hold, Send
from newsletter.sending.states import BatchState
from subscribers.schema import Session, insert_into, table_of

_hold, _batch, _send = table_of(Hold), table_of(Batch), table_of(Send)
_NAME = "provider"
#: Trouble that comes back within this time after a hold has ended never ended itself.
_SAME_TROUBLE = timedelta(minutes=6)


def impose(session: Session, *, now: datetime, until: datetime, reason: str) -> timedelta:
    """Let nobody send before ``until``; returns how long this trouble has lasted by now.

    A longer hold in force stays. Trouble has ended when a request that left after its hold
    was taken: limits that each passed by themselves are not one long outage.
    """
    insert = insert_into(session, _hold).values(
        name=_NAME, until=until, since=now, reason=reason[:1000]
    )
    # Only of sends that have not ended before: an index finds their batches, of all others none.
    taken = exists(
        select(1)
        .select_from(_batch.join(_send, _send.c.id == _batch.c.send_id))
        .where(
            _send.c.finished_at.is_(None) | (_send.c.finished_at > _hold.c.until),
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.departed_at > _hold.c.until,
        )
    )
    lasting = (_hold.c.until >= now - _SAME_TROUBLE) & ~taken
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
