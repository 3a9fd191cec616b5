"""Account-wide backoff: what stopped one request stops all requests, on every machine.

One row, which every claim and every departure reads. There are two kinds of trouble.

- The provider said when to come back (a rate limit): no batch leaves before ``until``.
- The provider could not be reached, or did not answer. Then, after ``until``, which moves
  further away with each failure, one request alone tests whether the provider works again.
  The first such probe has a few recipients, the second is a batch as planned, because a
  provider may accept small requests and fail on large ones. When both were accepted, all
  batches may leave again.

A probe lasts as long as its batch is claimed or in flight. When its worker dies, another
probe may begin once the batch is recovered (batches.recover_abandoned).
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, exists, select, update

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.sending.ledger.claimed_batch import Probe
from newsletter.sending.models import Batch, Part, ProviderBackoff, Send
from newsletter.sending.states import BatchState, SendState

_hold, _batch, _send = table_of(ProviderBackoff), table_of(Batch), table_of(Send)
_NAME = "provider"
#: Trouble that comes back within this time after a backoff counts as the same trouble.
_SAME_TROUBLE = timedelta(minutes=6)
#: The number of no probe: ordinary batches depart with it.
NO_PROBE = -1
#: Recipients of the first probe: at most so many are uncertain when it fails.
PROBE_SIZE = 10


def blocks() -> ColumnElement[bool]:
    """Whether a batch must wait; takes the parameters ``now`` and ``probe``."""
    return exists(
        select(1)
        .select_from(_hold)
        .where(
            (_hold.c.until > bindparam("now"))
            | ((_hold.c.failures > 0) & (_hold.c.probes != bindparam("probe")))
        )
    )


def back_off(session: Session, *, now: datetime, until: datetime, reason: str) -> timedelta:
    """Let no batch leave before ``until``; returns how long this trouble has lasted by now.

    A longer backoff in force stays. Trouble has ended when a request that left after its
    backoff was accepted: several rate limits that each passed are not one long outage.
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
    """Stop all sending until probes were accepted; returns how long this trouble has lasted.

    ``wait`` gives the time until the next probe after so many failures in a row. Requests
    that were in flight when sending stopped prove nothing new: only a failed probe makes
    the wait longer.
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
    # Another worker may have written the row since it was read: the stricter of both stays.
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
    """The next probe, when sending is stopped, the wait is over, and no probe is under way."""
    row = session.execute(
        select(_hold.c.probes, _hold.c.passed).where(
            _hold.c.failures > 0, _hold.c.until <= now, ~_under_way()
        )
    ).one_or_none()
    return None if row is None else Probe(row.probes + 1, row.passed)


def take(
    session: Session, probe: Probe, *, send_id: int, batch: int, attempt: int, now: datetime
) -> bool:
    """Make this attempt of a batch the probe; False when another worker was faster.

    A compare-and-swap of the row: of any number of workers that read the same number one
    gets the next, on PostgreSQL too, where the others wait for its commit and compare again.
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
            # There was nothing to send for so long that this is other trouble.
            since=case((stale, now), else_=_hold.c.since),
            failures=case((stale, 1), else_=_hold.c.failures),
        )
    )
    return changed(session, taken) == 1


def passed(session: Session, probe: Probe) -> None:
    """The provider accepted the probe: next is a batch as planned, then the backoff ends."""
    values = {"failures": 0, "passed": False} if probe.whole else {"passed": True}
    session.execute(
        update(_hold).where(_hold.c.name == _NAME, _hold.c.probes == probe.number).values(**values)
    )


def is_stopped(session: Session) -> bool:
    """Whether only probes may leave."""
    return session.scalar(select(_hold.c.name).where(_hold.c.failures > 0)) is not None


def in_force(session: Session, *, now: datetime) -> ProviderBackoff | None:
    """The backoff that keeps all batches waiting; None when there is none."""
    stopped = (_hold.c.failures > 0) & (_hold.c.until > now - _SAME_TROUBLE)
    return session.scalar(select(ProviderBackoff).where((_hold.c.until > now) | stopped))


def keeps_somebody(session: Session, *, now: datetime) -> bool:
    """Whether a batch would leave by now, were it not for the backoff."""
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
    """Begin to count anew how long trouble has lasted: an operator resumed a send."""
    session.execute(
        update(_hold).values(since=now, failures=case((_hold.c.failures > 0, 1), else_=0))
    )


def lift(session: Session) -> None:
    """End the backoff."""
    session.execute(delete(_hold))


def _later(other: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((_hold.c.until > other, _hold.c.until), else_=other)


def _lasts(now: datetime) -> ColumnElement[bool]:
    """Whether new trouble counts as the same as that of this backoff."""
    # Only batches of sends that had not ended before: an index finds them quickly.
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
    """Whether the batch of the latest probe is still claimed or in flight."""
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
