"""Account-wide backoff after provider errors, for all requests of all machines.

The backoff is one row, which every claim and every departure reads. There are two causes.

- The provider set a time (a rate limit): no batch leaves before ``until``.
- The provider could not be reached, or did not answer. After ``until``, one request tests
  whether the provider works again; each failed probe moves ``until`` further away. The first
  probe has a few recipients. The second is a batch as planned, because a provider may accept
  small requests and fail on large ones. When both were accepted, all batches may leave again.

A probe lasts while its batch is claimed or in flight. When its worker dies, another probe may
start after the batch is recovered (batches.recover_abandoned).
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, exists, select, update

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.sending.ledger.claimed_batch import Probe
from newsletter.sending.models import Batch, Part, ProviderBackoff, Send
from newsletter.sending.states import BatchState, SendState

_backoff, _batch, _send = table_of(ProviderBackoff), table_of(Batch), table_of(Send)
_NAME = "provider"
#: An error within this time after a backoff belongs to the same trouble.
_SAME_TROUBLE = timedelta(minutes=6)
#: The probe number of ordinary batches.
NO_PROBE = -1
#: The most recipients of the first probe, and so the most that are uncertain when it fails.
PROBE_SIZE = 10


def blocks() -> ColumnElement[bool]:
    """Whether a batch must wait; takes the parameters ``now`` and ``probe``."""
    return exists(
        select(1)
        .select_from(_backoff)
        .where(
            (_backoff.c.until > bindparam("now"))
            | ((_backoff.c.failures > 0) & (_backoff.c.probes != bindparam("probe")))
        )
    )


def back_off(session: Session, *, now: datetime, until: datetime, reason: str) -> timedelta:
    """Let no batch leave before ``until``; returns how long this trouble has lasted.

    A longer backoff stays. Trouble has ended when a request that left after its backoff was
    accepted, so several short rate limits are not one long outage.
    """
    insert = insert_into(session, _backoff).values(
        name=_NAME, until=until, since=now, reason=reason[:1000], failures=0, probes=0, passed=False
    )
    lasting = (_backoff.c.failures > 0) | _is_same_trouble(now)
    row = session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "until": _later(insert.excluded.until),
                "since": case((lasting, _backoff.c.since), else_=insert.excluded.since),
                "reason": insert.excluded.reason,
            },
        ).returning(_backoff.c.since)
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

    ``wait`` gives the time until the next probe after a number of failures in a row. Only a
    failed probe makes the wait longer, not the requests that were in flight when sending stopped.
    """
    row = session.execute(
        select(_backoff, _is_same_trouble(now).label("lasts"))
        .where(_backoff.c.name == _NAME)
        .with_for_update(of=_backoff)
    ).one_or_none()
    stopped = row is not None and row.failures > 0
    failures = row.failures if row is not None and stopped else 0
    since = row.since if row is not None and (stopped or row.lasts) else now
    until = row.until if row is not None else now
    if row is None or not stopped or (probe is not None and probe.number == row.probes):
        failures += 1
        until = max(until, now + wait(failures))
    insert = insert_into(session, _backoff).values(
        name=_NAME, until=until, since=since, reason=reason[:1000], failures=failures, probes=0
    )
    # Another worker may have written the row since it was read: the stricter values stay.
    more = insert.excluded.failures > _backoff.c.failures
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "until": _later(insert.excluded.until),
                "since": insert.excluded.since,
                "reason": insert.excluded.reason,
                "passed": and_(_backoff.c.passed, ~more),
                "failures": case((more, insert.excluded.failures), else_=_backoff.c.failures),
            },
        )
    )
    return now - since


def due_probe(session: Session, *, now: datetime) -> Probe | None:
    """The next probe, if sending is stopped, the wait is over, and no probe is under way."""
    row = session.execute(
        select(_backoff.c.probes, _backoff.c.passed).where(
            _backoff.c.failures > 0, _backoff.c.until <= now, ~_under_way()
        )
    ).one_or_none()
    return None if row is None else Probe(row.probes + 1, row.passed)


def start_probe(
    session: Session, probe: Probe, *, send_id: int, batch: int, attempt: int, now: datetime
) -> bool:
    """Make this attempt of a batch the probe; returns False if another worker was faster.

    This is a compare-and-swap of the row: of all workers that read the same probe number, only
    one succeeds. On PostgreSQL the others wait for its commit and compare again.
    """
    stale = _backoff.c.until < now - _SAME_TROUBLE
    statement = (
        update(_backoff)
        .where(
            _backoff.c.name == _NAME,
            _backoff.c.probes == probe.number - 1,
            _backoff.c.failures > 0,
            _backoff.c.until <= now,
        )
        .values(
            probes=probe.number,
            probe_send=send_id,
            probe_batch=batch,
            probe_attempt=attempt,
            # Nothing was sent for so long that this counts as new trouble.
            since=case((stale, now), else_=_backoff.c.since),
            failures=case((stale, 1), else_=_backoff.c.failures),
        )
    )
    return changed(session, statement) == 1


def record_success(session: Session, probe: Probe) -> None:
    """Record that the provider accepted the probe; after a whole batch the backoff ends."""
    values = {"failures": 0, "passed": False} if probe.whole else {"passed": True}
    session.execute(
        update(_backoff)
        .where(_backoff.c.name == _NAME, _backoff.c.probes == probe.number)
        .values(**values)
    )


def is_stopped(session: Session) -> bool:
    """Whether only probes may leave."""
    return session.scalar(select(_backoff.c.name).where(_backoff.c.failures > 0)) is not None


def in_force(session: Session, *, now: datetime) -> ProviderBackoff | None:
    """The backoff that delays all batches; None if there is none."""
    stopped = (_backoff.c.failures > 0) & (_backoff.c.until > now - _SAME_TROUBLE)
    return session.scalar(select(ProviderBackoff).where((_backoff.c.until > now) | stopped))


def delays_batches(session: Session, *, now: datetime) -> bool:
    """Whether the backoff delays a batch that is due."""
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


def restart_duration(session: Session, *, now: datetime) -> None:
    """Restart the duration and the failures of the trouble, because an operator resumed a send."""
    session.execute(
        update(_backoff).values(since=now, failures=case((_backoff.c.failures > 0, 1), else_=0))
    )


def lift(session: Session) -> None:
    """End the backoff."""
    session.execute(delete(_backoff))


def _later(other: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((_backoff.c.until > other, _backoff.c.until), else_=other)


def _is_same_trouble(now: datetime) -> ColumnElement[bool]:
    """Whether a new error belongs to the same trouble as this backoff."""
    # Only batches of sends that had not ended before, which an index finds quickly.
    accepted = exists(
        select(1)
        .select_from(_batch.join(_send, _send.c.id == _batch.c.send_id))
        .where(
            _send.c.finished_at.is_(None) | (_send.c.finished_at > _backoff.c.until),
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.departed_at > _backoff.c.until,
        )
    )
    return (_backoff.c.until >= now - _SAME_TROUBLE) & ~accepted


def _under_way() -> ColumnElement[bool]:
    """Whether the batch of the latest probe is still claimed or in flight."""
    return exists(
        select(1)
        .select_from(_batch)
        .where(
            _batch.c.send_id == _backoff.c.probe_send,
            _batch.c.number == _backoff.c.probe_batch,
            _batch.c.attempt == _backoff.c.probe_attempt,
            _batch.c.state.in_([BatchState.CLAIMED, BatchState.IN_FLIGHT]),
        )
    )
