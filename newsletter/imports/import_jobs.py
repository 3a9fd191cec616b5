"""Creates import jobs, changes their states, and lets workers claim them.

Each change of state is a conditional UPDATE. So nothing happens twice if two users click at the
same moment, or if a worker continues after its lease has expired.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, or_, select, update

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import UserError
from newsletter.imports.models import OVER, UNDER_WAY, WAITING, ImportJob, JobState
from subscribers.consent import topics
from subscribers.transfer.import_run import ImportOptions, ImportReport

_job = table_of(ImportJob)

#: A worker that has not renewed its lease for this long is considered dead.
LEASE = timedelta(seconds=60)
#: The actor in the audit log for actions of the worker.
_BACKGROUND = Actor(None, "import")
#: Characters of a rejected row that are stored to be shown.
_SHOWN = 300
#: The names of the ImportOptions about reading the file.
_READING = ("encoding", "mapping", "words", "everybody", "dates", "create_topics")
_BEFORE = {after: before for before, after in WAITING.items()}


class JobError(UserError):
    """The operation is not possible in the job's current state."""


class LeaseLostError(Exception):
    """Another worker has claimed the job, or it was deleted."""


@dataclass(frozen=True, slots=True)
class ClaimedImport:
    """A job that this worker has claimed."""

    id: int
    name: str
    #: CHECKING or RUNNING.
    state: JobState
    options: ImportOptions
    worker: str


def create(session: Session, actor: Actor, *, name: str, size: int, now: datetime) -> int:
    """Create a job for an uploaded file; a worker starts the dry run. Returns its id."""
    job = ImportJob(name=name, size=size, made_by=actor.name[:320], made_at=now)
    session.add(job)
    session.flush()
    number: int = job.id
    audit.record(session, actor, "file uploaded", now=now, subject=f"import {number}", bytes=size)
    return number


def listing(session: Session, *, limit: int = 50) -> Sequence[Row[Any]]:
    """The latest jobs."""
    return session.execute(select(_job).order_by(_job.c.id.desc()).limit(limit)).all()


def find(session: Session, job_id: int) -> Row[Any] | None:
    """The job with this id."""
    return session.execute(select(_job).where(_job.c.id == job_id)).one_or_none()


def check_again(
    session: Session, actor: Actor, job_id: int, options: ImportOptions, *, now: datetime
) -> None:
    """Request another dry run with new options for reading, such as the encoding."""
    kept = {name: _plain(getattr(options, name)) for name in _READING}
    _move(session, job_id, {JobState.CHECKED: JobState.UPLOADED}, options=kept, rows=0, progress=0)
    audit.record(session, actor, "import repeated", now=now, subject=f"import {job_id}")


def start(
    session: Session, actor: Actor, job_id: int, options: ImportOptions, *, now: datetime
) -> None:
    """Queue the import. JobError if questions of the dry run are open."""
    topics.require(session, options.topics)
    job = find(session, job_id)
    if job is not None and job.found.get("questions"):
        raise JobError(
            "it is still open who in this list may be emailed",
            hint="Answer the questions first, and check the list again.",
        )
    reading = {name: job.options[name] for name in _READING if name in job.options} if job else {}
    kept = reading | {
        "topics": list(options.topics),
        "wording": options.wording,
        "confirmed": options.confirmed,
        "update": options.update,
    }
    _move(session, job_id, {JobState.CHECKED: JobState.QUEUED}, options=kept, rows=0, progress=0)
    audit.record(
        session,
        actor,
        "import started",
        now=now,
        subject=f"import {job_id}",
        topics=", ".join(options.topics),
        vouched_for=options.confirmed,
        wording=options.wording,
    )


def stop(session: Session, actor: Actor, job_id: int, *, now: datetime) -> None:
    """Stop a job: at once if it is waiting, at the next progress update if it is running."""
    by_hand = {"problem": f"stopped by {actor.name}"[:1000], "finished_at": now}
    waits = {JobState.UPLOADED, JobState.CHECKED, JobState.QUEUED}
    if not _moved(session, job_id, dict.fromkeys(waits, JobState.STOPPED), **by_hand):
        _move(session, job_id, {state: state for state in UNDER_WAY}, stop_asked=True)
    audit.record(session, actor, "import stopped", now=now, subject=f"import {job_id}")


def has_waiting(session: Session, *, now: datetime) -> bool:
    """Whether there may be a job to claim. Only reads, since it is called after each commit."""
    return session.execute(_waiting(now).limit(1)).first() is not None


def claim(
    session: Session, worker: str, *, has: Callable[[int], bool], now: datetime
) -> ClaimedImport | None:
    """Claim the oldest waiting job whose file is on this machine (``has``); None without any.

    A job whose worker died starts again: rows that are imported already are found unchanged.
    """
    for row in session.execute(_waiting(now)).all():
        state = JobState(row.state)
        after = WAITING.get(state, state)
        if not has(row.id):
            continue
        taken = changed(
            session,
            update(_job)
            .where(_job.c.id == row.id, _job.c.state == state)
            .where(_job.c.alive_until.is_not_distinct_from(row.alive_until))
            .values(
                state=after,
                worker=worker,
                alive_until=now + LEASE,
                rows=0,
                progress=0,
                interruptions=row.interruptions + (state in UNDER_WAY),
            ),
        )
        if taken:
            return ClaimedImport(row.id, row.name, after, _options(row.options, after), worker)
    return None


def store_progress(
    session: Session, claimed: ClaimedImport, rows: int, part: float, *, now: datetime
) -> bool:
    """Store the progress and renew the lease; returns whether to stop. May raise LeaseLostError."""
    values = {"rows": rows, "progress": int(part * 1000), "alive_until": now + LEASE}
    _ours(session, claimed, **values)
    return bool(session.scalar(select(_job.c.stop_asked).where(_job.c.id == claimed.id)))


def finish(
    session: Session, claimed: ClaimedImport, report: ImportReport, *, now: datetime
) -> None:
    """Store the report of the dry run or of the import."""
    result = _as_json(report)
    if claimed.state is JobState.CHECKING:
        _ours(session, claimed, state=JobState.CHECKED, found=result, rows=report.read)
        return
    _ours(session, claimed, state=JobState.DONE, report=result, rows=report.read, finished_at=now)
    audit.record(
        session,
        _BACKGROUND,
        "import finished",
        now=now,
        subject=f"import {claimed.id}",
        added=report.added,
        updated=report.updated,
        rejected=report.rejected,
        stayed_out=sum(report.refused.values()),
    )


def fail(
    session: Session,
    claimed: ClaimedImport,
    problem: str,
    hint: str,
    *,
    stopped: bool,
    now: datetime,
) -> None:
    """Mark the job as failed or stopped; rows imported so far are kept."""
    state = JobState.STOPPED if stopped else JobState.FAILED
    words = {"problem": problem[:1000], "hint": hint[:1000]}
    _ours(session, claimed, state=state, finished_at=now, **words)


def requeue(session: Session, claimed: ClaimedImport) -> None:
    """Release the job, to start again when the service is back."""
    before = _BEFORE[claimed.state]
    more = _job.c.interruptions + 1
    _ours(session, claimed, state=before, worker="", alive_until=None, interruptions=more)


def sweep(session: Session, *, before: datetime, now: datetime) -> list[int]:
    """Stop jobs that nobody started, and return the ids of jobs whose files are to be deleted.

    The counts are kept; rejected rows, which have personal data, are deleted.
    """
    idle = update(_job).where(_job.c.state.in_([JobState.CHECKED]), _job.c.made_at < before)
    words = {"problem": "not started for a long time, so its file was deleted", "finished_at": now}
    session.execute(idle.values(state=JobState.STOPPED, **words))
    rows = session.execute(
        select(_job.c.id, _job.c.found, _job.c.report).where(
            _job.c.state.in_(OVER), _job.c.made_at < before
        )
    ).all()
    for row in rows:
        values = {
            name: {**report, "examples": []}
            for name, report in (("found", row.found), ("report", row.report))
            if report.get("examples")
        }
        if values:
            session.execute(update(_job).where(_job.c.id == row.id).values(values))
    return [row.id for row in rows]


def ids(session: Session) -> Collection[int]:
    """The ids of all jobs."""
    return set(session.scalars(select(_job.c.id)))


def _waiting(now: datetime) -> Select[Any]:
    dead = _job.c.state.in_(UNDER_WAY) & (_job.c.alive_until < now)
    free = or_(_job.c.state.in_(WAITING), dead)
    return select(_job).where(_job.c.state.not_in(OVER), free).order_by(_job.c.id)


def _options(kept: dict[str, Any], state: JobState) -> ImportOptions:
    return ImportOptions(
        dry_run=state is JobState.CHECKING,
        topics=tuple(kept.get("topics", ())),
        wording=kept.get("wording", ""),
        confirmed=kept.get("confirmed", False),
        update=kept.get("update", True),
        encoding=kept.get("encoding") or None,
        mapping=tuple((name, meaning) for name, meaning in kept.get("mapping") or ()),
        words=tuple((word, meaning) for word, meaning in kept.get("words") or ()),
        everybody=kept.get("everybody") or None,
        dates=kept.get("dates") or None,
        create_topics=kept.get("create_topics", False),
    )


def _plain(value: object) -> object:
    """A value as JSON stores it."""
    return [list(pair) for pair in value] if isinstance(value, tuple) else value


def _as_json(report: ImportReport) -> dict[str, Any]:
    return {
        "kind": report.kind,
        "encoding": report.encoding,
        "note": report.note or "",
        "columns": [[_shown(name)[:100], meaning] for name, meaning in report.columns[:200]],
        "references": [one if one.isprintable() else "" for one in report.references[:200]],
        "mailed": report.mailed,
        "mailed_if_vouched": report.mailed_if_vouched,
        "unconfirmed": report.unconfirmed,
        "topics": dict(sorted(report.topics.items())[:200]),
        "unknown_topics": _most(report.unknown_topics),
        "other_tags": _most(report.other_tags),
        "without_topic": report.without_topic if report.has_topics else 0,
        "questions": [
            {
                "kind": one.kind,
                "about": _shown(one.about),
                "message": _shown(one.message),
                "answer": one.answer,
            }
            for one in report.questions[:200]
        ],
        "read": report.read,
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "left": dict(report.left),
        "refused": dict(report.refused),
        "duplicates": report.duplicates,
        "rejected": report.rejected,
        "examples": [[one.line, one.reason, _shown(one.text)] for one in report.examples],
        "new_topics": list(report.new_topics[:100]),
        "seconds": round(report.seconds, 1),
    }


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    """The twenty most frequent words."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    return {_shown(word): number for word, number in most}


def _shown(text: str) -> str:
    """The text without characters that PostgreSQL's JSON rejects: NUL and lone surrogates."""
    return "".join(c if c.isprintable() else " " for c in text[:_SHOWN])


def _move(
    session: Session, job_id: int, states: dict[JobState, JobState], **values: object
) -> None:
    if not _moved(session, job_id, states, **values):
        job = find(session, job_id)
        raise JobError(
            f"the list is now {job.state}" if job else "there is no such list",
            hint="Reload the page to see its state, and try again." if job else None,
        )


def _moved(
    session: Session, job_id: int, states: dict[JobState, JobState], **values: object
) -> bool:
    return any(
        changed(
            session,
            update(_job)
            .where(_job.c.id == job_id, _job.c.state == before)
            .values(state=after, **values),
        )
        for before, after in states.items()
    )


def _ours(session: Session, claimed: ClaimedImport, **values: object) -> None:
    mine = (
        _job.c.id == claimed.id,
        _job.c.state == claimed.state,
        _job.c.worker == claimed.worker,
    )
    if not changed(session, update(_job).where(*mine).values(**values)):
        raise LeaseLostError
