"""The departure logs of a database: each is compared, or an operator sets it aside.

A restored database is behind its logs. Each machine compares its own log before it sends, and
until all logs are compared nothing is sent (restore_gate.py). Three signs show that a database
was restored: a log was compared more often than the database has recorded; a PostgreSQL
database is on another server or timeline than before; on SQLite, which has one machine, a log
that the database has recorded is missing.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select, update

from newsletter import database_identity
from newsletter.accounts import audit, operator_messages
from newsletter.accounts.audit import Actor
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.ledger import restore_gate
from newsletter.sending.models import DepartureLog
from newsletter.sending.recovery.departure_log import (
    RETENTION,
    DamagedLogError,
    DepartureLogFile,
    LogReader,
    host_name,
)
from newsletter.sending.recovery.restore_replay import ReplayReport, replay
from newsletter.sending.states import SETTLED_LOGS, LogState

_log = logging.getLogger(__name__)
_known = table_of(DepartureLog)

#: Seconds between two comparisons: while sending waits for a log, and otherwise.
_WAITING_INTERVAL, _NORMAL_INTERVAL = 5.0, 60.0
#: An unchanged log is compared again after this many seconds, so that ``seen_at`` stays recent.
_MAX_INTERVAL = 3600.0
#: States that only an operator can resolve.
_FOR_THE_OPERATOR: Final = frozenset(
    {LogState.UNREADABLE, LogState.FOREIGN, LogState.SHORT, LogState.UNNAMED}
)

#: State → (what is wrong with the log, what to do).
EXPLANATIONS: Final[Mapping[LogState, tuple[str, str]]] = {
    LogState.CURRENT: ("everything in it is in the database", ""),
    LogState.WAITING: (
        "the database was restored or moved, and this log has not been compared since",
        (
            "Start the service or a worker on its machine. If the machine is lost, "
            "set the log aside."
        ),
    ),
    LogState.MISSING: (
        "the log is no longer in its folder",
        "Restore the folder. If it is lost, set the log aside.",
    ),
    LogState.UNREADABLE: (
        "a part of the log is damaged or missing; the rest was compared",
        "Repair the file and compare the log again. If it is lost, set the log aside.",
    ),
    LogState.FOREIGN: (
        "the log was written for another database",
        (
            "If this database was restored from a backup, compare the log. If it is a new one, set "
            "the log aside."
        ),
    ),
    LogState.SHORT: (
        (
            f"the database is older than the log, which keeps {RETENTION.days} days; those were "
            "compared"
        ),
        "Find out what was sent before them, then set the log aside.",
    ),
    LogState.UNNAMED: (
        (
            "the log has a send that the database does not have, and an older version did not "
            "record its issue"
        ),
        "Find out which issue it was, then set the log aside.",
    ),
    LogState.SET_ASIDE: ("an operator decided that sending goes on without it", ""),
}
#: A warning for operators who set a log aside.
RISK: Final = (
    "If the database was restored from a backup, recipients in a log that is set aside before it "
    "was compared may get an issue twice."
)


def compare_logs(
    database: Engine, log_file: DepartureLogFile | None, *, now: datetime
) -> ReplayReport:
    """Compare the logs that this machine can read, and store their states in the database.

    ``log_file`` is this machine's own log; without one, only the other logs are checked. Returns
    what the own log added to the database.
    """
    with transaction(database) as session:
        comparison = _Comparison(session, log_file, now)
        report = comparison.run()
    if log_file is not None and comparison.compared:
        log_file.write_identity(comparison.database, comparison.compared)
        log_file.forget_old(report.read, now=now)
    return report


def is_current(database: Engine, log_file: DepartureLogFile | None) -> bool:
    """Whether ``compare_logs`` would find nothing new in this machine's log. Only reads."""
    with reading(database) as session:
        if restore_gate.unsettled_logs(session) or database_identity.is_elsewhere(session):
            return False
        if log_file is None:
            return True
        try:
            log_file.identify()
        except DamagedLogError:
            return False
        row = session.get(DepartureLog, log_file.id)
        return (
            row is not None
            and row.state == LogState.CURRENT
            and row.compared >= log_file.compared
            and row.read == log_file.sizes()
        )


class _Comparison:
    """Compares all logs in one transaction."""

    def __init__(self, session: Session, log_file: DepartureLogFile | None, now: datetime) -> None:
        self._session, self._log_file, self._now = session, log_file, now
        self.database = database_identity.database_id(session, now=now)
        #: How often this machine's log has been compared; 0 if it was not compared now.
        self.compared = 0
        self._only_machine = not is_postgresql(session)

    def run(self) -> ReplayReport:
        """Compare all logs; returns what this machine's own log added."""
        session = self._session
        was_moved = database_identity.was_moved(session, now=self._now)
        rows = {
            row.id: row
            for row in session.scalars(select(DepartureLog).order_by(_known.c.id).with_for_update())
        }
        self._forget_old(rows)
        own, damage = None, ""
        if self._log_file is not None:
            try:
                self._log_file.identify()
            except DamagedLogError as error:
                damage = str(error)
            own = rows.get(self._log_file.id)
            if own is not None and own.state == LogState.SET_ASIDE:
                self._log_file.start_new_log(now=self._now)
                own, damage = None, ""
        if was_moved or self._is_behind(own):
            for row in rows.values():
                if row is not own and row.state == LogState.CURRENT:
                    self._move(row, LogState.WAITING)
        for row in rows.values():
            if row is not own and row.state != LogState.SET_ASIDE:
                self._compare_other(row)
        report = self._compare_own(own, damage) if self._log_file is not None else ReplayReport()
        session.flush()
        return report

    def _forget_old(self, rows: dict[str, DepartureLog]) -> None:
        """Delete settled logs that were last seen more than RETENTION before the latest."""
        latest = max((row.seen_at for row in rows.values()), default=self._now)
        for row in [one for one in rows.values() if one.seen_at < latest - RETENTION]:
            if row.state in SETTLED_LOGS:
                self._session.delete(row)
                del rows[row.id]

    def _is_behind(self, own: DepartureLog | None) -> bool:
        """Whether this machine's log was compared more often than the database has recorded."""
        log_file = self._log_file
        if log_file is None or log_file.database != self.database:
            return False
        return own is None or log_file.compared > own.compared

    def _compare_other(self, row: DepartureLog) -> None:
        """Compare a log that this process does not write, if its folder is on this machine."""
        if row.state in _FOR_THE_OPERATOR:
            return
        reader = LogReader(Path(row.folder))
        try:
            is_here = reader.identify() and reader.id == row.id
        except DamagedLogError as error:
            is_here = False
            row.detail = str(error)[:300]
        if is_here:
            report = replay(self._session, reader, now=self._now, after=row.read)
            row.read = report.read
            self._set_state(row, report)
        elif self._only_machine:
            self._move(row, LogState.MISSING, row.folder)

    def _compare_own(self, own: DepartureLog | None, damage: str) -> ReplayReport:
        log_file = self._log_file
        assert log_file is not None
        row = own or DepartureLog(
            id=log_file.id or f"unnamed {host_name()}"[:40],
            host=host_name(),
            folder="",
            state=LogState.CURRENT,
            seen_at=self._now,
            since=self._now,
        )
        behind_for = self._now - row.seen_at if self._is_behind(own) else None
        row.host, row.folder = host_name(), str(log_file.folder.absolute())[:1000]
        if own is None:
            self._session.add(row)
        is_foreign = log_file.database not in {"", self.database}
        if damage:
            self._move(row, LogState.UNREADABLE, damage)
            return ReplayReport()
        if is_foreign and row.state != LogState.WAITING:
            self._move(row, LogState.FOREIGN, row.folder)
            return ReplayReport()
        report = replay(self._session, log_file, now=self._now, after=row.read)
        row.read, row.seen_at = report.read, self._now
        row.compared = self.compared = max(row.compared, log_file.compared) + 1
        if behind_for is not None and behind_for > RETENTION:
            self._move(row, LogState.SHORT, f"the database is {behind_for.days} days behind it")
        else:
            self._set_state(row, report)
        return report

    def _set_state(self, row: DepartureLog, report: ReplayReport) -> None:
        """Set the state of a compared log; a state that the operator must resolve stays."""
        if report.damage:
            self._move(row, LogState.UNREADABLE, report.damage[0])
        elif report.unnamed:
            self._move(row, LogState.UNNAMED, f"{report.unnamed:,} requests")
        elif row.state not in _FOR_THE_OPERATOR:
            self._move(row, LogState.CURRENT)

    def _move(self, row: DepartureLog, state: LogState, detail: str = "") -> None:
        if row.state != state:
            row.state, row.since = state, self._now
            if state not in SETTLED_LOGS:
                what, remedy = EXPLANATIONS[state]
                detail_text = f"{row.host}, {row.folder}: {what}. {remedy}"
                operator_messages.post(
                    self._session,
                    MessageKind.LOG_WAITS,
                    row.id,
                    now=self._now,
                    occasion=f"{state} {self._now.isoformat()}",
                    detail=detail_text,
                )
        row.detail = detail[:300]


class LogKeeper:
    """Compares this machine's log when a process begins to send, and regularly after that."""

    def __init__(self, database: Engine, log_file: DepartureLogFile | None) -> None:
        self._database, self._log_file = database, log_file
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="departure-log")
        self._reported = ""
        self._compared_at = 0.0

    def start(self) -> None:
        """Compare the logs, then record what this process commits and compare regularly."""
        self._compare()
        if self._log_file is not None:
            self._log_file.follow(self._database)
        self._thread.start()

    def stop(self) -> None:
        """Stop comparing and recording."""
        self._stopping.set()
        self._thread.join()
        if self._log_file is not None:
            self._log_file.unfollow()

    def _run(self) -> None:
        while not self._stopping.wait(_WAITING_INTERVAL if self._reported else _NORMAL_INTERVAL):
            try:
                recent = time.monotonic() - self._compared_at < _MAX_INTERVAL
                if not (recent and is_current(self._database, self._log_file)):
                    self._compare()
            except Exception:  # noqa: BLE001 (the next comparison may succeed)
                _log.exception("the departure log cannot be compared")

    def _compare(self) -> None:
        report = compare_logs(self._database, self._log_file, now=datetime.now(UTC))
        self._compared_at = time.monotonic()
        if (
            report.accepted
            or report.uncertain
            or report.suppressed
            or report.forgotten
            or report.stopped
        ):
            _log.warning("the database was behind this machine's departure log: %s", report)
        with transaction(self._database) as session:
            waits = [
                (one.id, one.state, one.detail) for one in restore_gate.unsettled_logs(session)
            ]
        waiting = "; ".join(f"{log} is {state} ({detail})" for log, state, detail in waits)
        if waiting != self._reported:
            if waiting:
                _log.error("sending waits for departure logs: %s", waiting)
            else:
                _log.warning("every departure log is compared: sending goes on")
        self._reported = waiting


@dataclass(frozen=True, slots=True)
class LogStatus:
    """A departure log, with an explanation of its state and what to do."""

    log: DepartureLog
    what: str
    remedy: str

    @property
    def waits(self) -> bool:
        """Whether sending waits for this log."""
        return LogState(self.log.state) not in SETTLED_LOGS


def list_logs(session: Session) -> list[LogStatus]:
    """Every departure log of the database; first those that sending waits for."""
    rows = session.scalars(select(DepartureLog).order_by(_known.c.seen_at.desc())).all()
    statuses = [LogStatus(row, *EXPLANATIONS[LogState(row.state)]) for row in rows]
    return sorted(statuses, key=lambda one: not one.waits)


def set_aside(session: Session, log: str, *, reason: str, by: Actor, now: datetime) -> None:
    """Let sending go on without a log that it waits for.

    Raises SendError if sending does not wait for this log, and if the reason is empty.
    """
    _set_by_operator(session, log, LogState.SET_ASIDE, reason=reason, by=by, now=now)


def compare_again(session: Session, log: str, *, reason: str, by: Actor, now: datetime) -> None:
    """Have the log's machine compare it again from its beginning.

    Raises SendError if sending does not wait for this log, and if the reason is empty.
    """
    _set_by_operator(session, log, LogState.WAITING, reason=reason, by=by, now=now)
    session.execute(update(_known).where(_known.c.id == log).values(read={}))


def _set_by_operator(
    session: Session, log: str, state: LogState, *, reason: str, by: Actor, now: datetime
) -> None:
    waits = {one.id: one for one in restore_gate.unsettled_logs(session)}
    row = waits.get(log)
    if row is None:
        raise SendError(
            "sending does not wait for this departure log",
            place=f"departure log {log}",
            hint=f"It waits for: {', '.join(waits) or 'none'}.",
        )
    if not reason.strip():
        raise SendError("a reason is required", place=f"departure log {log}")
    before, row.state, row.since = row.state, state, now
    session.flush()
    audit.record(
        session,
        by,
        "departure log set aside"
        if state is LogState.SET_ASIDE
        else "departure log to be compared",
        now=now,
        subject=f"{row.host}: {row.folder}",
        log=log,
        was=before,
        reason=reason.strip()[:500],
    )
