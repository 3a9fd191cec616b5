"""A hold on all sending: what stopped one request stops them all, on any machine.

One row that every claim and every departure looks at. There are two kinds of trouble.

- The provider said when to come back (a rate limit): nobody sends before ``until``.
- The provider could not be reached, or nobody knows whether it took a request. Then the
  account is stopped: after ``until``, which moves further away with each failure, one
  request alone finds out whether it works again. The first of these probes carries a few
  people, the second a batch as it was planned, for a provider may take small requests and
  choke on large ones. Only when both were taken does everybody go on.

A probe lasts as long as its batch is claimed or in flight: a dead worker's is free again
when its batch is taken back (oversight.recall_abandoned).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, exists, select, update

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.sending.models import Batch, Part, ProviderBackoff, Send
from newsletter.sending.states import BatchState, SendState

_hold, _batch, _send = table_of(ProviderBackoff), table_of(Batch), table_of(Send)
_NAME = "provider"
#: Trouble that comes back within this time after a hold has ended never ended itself.
_SAME_TROUBLE = timedelta(minutes=6)
#: The number of no probe: what an ordinary batch names when it departs.
NO_PROBE = -1
#: People of the first probe: so many are in doubt at most when it fails.
PROBE_SIZE = 10


@dataclass(frozen=True, slots=True)
class Probe:
    """The right to send one request while everybody else waits."""

    #: Counts probes: whoever comes late with an earlier number changes nothing.
    number: int
    #: A few people were taken before: this one is a batch as planned, and ends the trouble.
    whole: bool


def blocks() -> ColumnElement[bool]:
    """Whether a batch must stay here; takes the parameters ``now`` and ``probe``."""
    return exists(
        select(1)
        .select_from(_hold)
        .where(
            (_hold.c.until > bindparam("now"))
            | ((_hold.c.failures > 0) & (_hold.c.probes != bindparam("probe")))
        )
    )


def back_off(session: Session, *, now: datetime, until: datetime, reason: str) -> timedelta:
    """Let nobody send before ``until``; returns how long this trouble has lasted by now.

    A longer hold in force stays. Trouble has ended when a request that left after its hold
    was taken: limits that each passed by themselves are not one long outage.
    """
    insert = insert_into(session, _hold).values(
        name=_NAME, until=until, since=now, reason=reason[:1000], failures=0, probes=0, passed=False
    )
    lasting = (_hold.c.failures > 0) | _lasts(now)
    row = session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "until": _later(insert.excluded.until),
                "since": case((lasting, _hold.c.since), else_=insert.excluded.since),
                "reason": insert.excluded.reason,
            },
        ).returning(_hold.c.since)
    ).one()
    return now - row.since  # type: ignore[no-any-return]


def fail(
    session: Session,
    *,
    now: datetime,
    reason: str,
    wait: Callable[[int], timedelta],
    probe: Probe | None = None,
) -> timedelta:
    """Stop the account until probes were taken; returns how long this trouble has lasted.

    ``wait`` is how long after so many failures in a row. Requests that were under way when
    the account was stopped say nothing new: only a failed probe makes the wait longer.
    """
    row = session.execute(
        select(_hold, _lasts(now).label("lasts"))
        .where(_hold.c.name == _NAME)
        .with_for_update(of=_hold)
    ).one_or_none()
    stopped = row is not None and row.failures > 0
    failures = row.failures if row is not None and stopped else 0
    since = row.since if row is not None and (stopped or row.lasts) else now
    until = row.until if row is not None else now
    if row is None or not stopped or (probe is not None and probe.number == row.probes):
        failures += 1
        until = max(until, now + wait(failures))
    insert = insert_into(session, _hold).values(
        name=_NAME, until=until, since=since, reason=reason[:1000], failures=failures, probes=0
    )
    # Somebody else may have made the row since it was looked for: the stricter of both stands.
    more = insert.excluded.failures > _hold.c.failures
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "until": _later(insert.excluded.until),
                "since": insert.excluded.since,
                "reason": insert.excluded.reason,
                "passed": and_(_hold.c.passed, ~more),
                "failures": case((more, insert.excluded.failures), else_=_hold.c.failures),
            },
        )
    )
    return now - since


def due_probe(session: Session, *, now: datetime) -> Probe | None:
    """The next probe, when the account is stopped, its wait over, and no probe under way."""
    row = session.execute(
        select(_hold.c.probes, _hold.c.passed).where(
            _hold.c.failures > 0, _hold.c.until <= now, ~_under_way()
        )
    ).one_or_none()
    return None if row is None else Probe(row.probes + 1, row.passed)


def take(
    session: Session, probe: Probe, *, send_id: int, batch: int, attempt: int, now: datetime
) -> bool:
    """Make this attempt of a batch the probe; False when somebody else has made theirs so.

    A comparison and an exchange of the row alone: of any number of workers that saw the same
    number one gets the next, on PostgreSQL too, where the others wait for its commit and then
    compare again.
    """
    stale = _hold.c.until < now - _SAME_TROUBLE
    taken = (
        update(_hold)
        .where(
            _hold.c.name == _NAME,
            _hold.c.probes == probe.number - 1,
            _hold.c.failures > 0,
            _hold.c.until <= now,
        )
        .values(
            probes=probe.number,
            probe_send=send_id,
            probe_batch=batch,
            probe_attempt=attempt,
            # Nobody had anything to send for so long: what comes now is other trouble.
            since=case((stale, now), else_=_hold.c.since),
            failures=case((stale, 1), else_=_hold.c.failures),
        )
    )
    return changed(session, taken) == 1


def passed(session: Session, probe: Probe) -> None:
    """The provider took the probe: next comes a batch as planned, and after that everybody."""
    values = {"failures": 0, "passed": False} if probe.whole else {"passed": True}
    session.execute(
        update(_hold).where(_hold.c.name == _NAME, _hold.c.probes == probe.number).values(**values)
    )


def is_stopped(session: Session) -> bool:
    """Whether only probes may leave."""
    return session.scalar(select(_hold.c.name).where(_hold.c.failures > 0)) is not None


def in_force(session: Session, *, now: datetime) -> ProviderBackoff | None:
    """The hold that keeps everybody waiting, if there is one."""
    stopped = (_hold.c.failures > 0) & (_hold.c.until > now - _SAME_TROUBLE)
    return session.scalar(select(ProviderBackoff).where((_hold.c.until > now) | stopped))


def keeps_somebody(session: Session, *, now: datetime) -> bool:
    """Whether a batch would leave by now, if nothing held it up."""
    due = (
        select(_batch.c.number)
        .join(_send, _send.c.id == _batch.c.send_id)
        .where(
            _batch.c.state == BatchState.PENDING,
            _batch.c.not_before <= now,
            _batch.c.part != Part.REST,
            _send.c.state == SendState.SENDING,
        )
    )
    return session.scalar(due.limit(1)) is not None


def begin_anew(session: Session, *, now: datetime) -> None:
    """Forget how long trouble has lasted: an operator has looked and says go on."""
    session.execute(
        update(_hold).values(since=now, failures=case((_hold.c.failures > 0, 1), else_=0))
    )


def lift(session: Session) -> None:
    """End whatever hold there is."""
    session.execute(delete(_hold))


def _later(other: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((_hold.c.until > other, _hold.c.until), else_=other)


def _lasts(now: datetime) -> ColumnElement[bool]:
    """Whether the trouble of this hold goes on, if there is trouble now."""
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
    return (_hold.c.until >= now - _SAME_TROUBLE) & ~taken


def _under_way() -> ColumnElement[bool]:
    """Whether the batch of the latest probe is still in its worker's hands."""
    return exists(
        select(1)
        .select_from(_batch)
        .where(
            _batch.c.send_id == _hold.c.probe_send,
            _batch.c.number == _hold.c.probe_batch,
            _batch.c.attempt == _hold.c.probe_attempt,
            _batch.c.state.in_([BatchState.CLAIMED, BatchState.IN_FLIGHT]),
        )
    )
