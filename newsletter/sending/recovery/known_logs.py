"""The departure logs that a database knows: each is compared, or an operator lets it go.

A restored database is behind its logs. Before anything leaves, each machine compares its own;
until the last has, everything waits (gate.py). That the database was restored shows in three ways:
a log was compared more often than the database knows; a PostgreSQL database stands elsewhere
than it stood; on SQLite, where there is one machine, a log that the database knows is not here.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select, update

from newsletter import identity
from newsletter.accounts import audit, operator_messages
from newsletter.accounts.audit import Actor
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.ledger import restore_gate
from newsletter.sending.models import DepartureLog
from newsletter.sending.recovery.departure_log import (
    KEEP,
    DamagedError,
    DepartureLogFile,
    LogReader,
    machine,
)
from newsletter.sending.recovery.restore_replay import ReplayReport, replay
from newsletter.sending.states import SETTLED_LOGS, LogState

_log = logging.getLogger(__name__)
_known = table_of(DepartureLog)

#: Seconds between two looks, while all is well and while everything waits.
_OFTEN, _SELDOM = 5.0, 60.0
#: What only an operator can settle.
_FOR_THE_OPERATOR: Final = frozenset(
    {LogState.UNREADABLE, LogState.FOREIGN, LogState.SHORT, LogState.UNNAMED}
)

#: What is wrong with a log, and what ends that.
EXPLAINED: Final[Mapping[LogState, tuple[str, str]]] = {
    LogState.CURRENT: ("all that it says is known here", ""),
    LogState.WAITING: (
        "the database was restored or moved, and this log was not compared with it since",
        (
            "Start newsletter serve or newsletter worker on its machine. If the machine is lost, "
            "set the log aside."
        ),
    ),
    LogState.MISSING: (
        "the log is not in its folder any more",
        "Bring the folder back. If it is lost, set the log aside.",
    ),
    LogState.UNREADABLE: (
        "a part of the log is damaged or gone; all else was compared",
        "Mend the file and compare the log once more. If it is lost, set the log aside.",
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
            f"the database is older than what the log keeps, which is {KEEP.days} days; those were "
            "compared"
        ),
        "Set the log aside once you know what was sent before that.",
    ),
    LogState.UNNAMED: (
        (
            "the log knows a send that the database does not, and an older version did not "
            "write down of which issue"
        ),
        "Set the log aside once you know which issue that was.",
    ),
    LogState.SET_ASIDE: ("an operator said that sending goes on without it", ""),
}
#: What an operator has to know before a log is set aside.
RISK: Final = (
    "If the database was restored from a backup, whoever stands in a log that is set aside, and "
    "was not compared, may get an issue once more."
)


def look(database: Engine, journal: DepartureLogFile | None, *, now: datetime) -> ReplayReport:
    """Compare what can be compared from this machine, and say in the database how that stands.

    Without a ``journal`` this machine writes none, and others' are looked at alone.
    """
    with transaction(database) as session:
        looked = _Look(session, journal, now)
        recalled = looked.run()
    if journal is not None and looked.compared:
        journal.belong(looked.database, looked.compared)
        journal.forget_old(recalled.read, now=now)
    return recalled


class _Look:
    """One look at the logs, in one transaction."""

    def __init__(self, session: Session, journal: DepartureLogFile | None, now: datetime) -> None:
        self._session, self._journal, self._now = session, journal, now
        self.database = identity.database_id(session, now=now)
        #: How often this machine's log was compared by now; 0 when it was not.
        self.compared = 0
        self._only_machine = not is_postgresql(session)

    def run(self) -> ReplayReport:
        """Look at all of them; returns what this machine's own told."""
        session = self._session
        moved = identity.was_moved(session, now=self._now)
        rows = {
            row.id: row
            for row in session.scalars(select(DepartureLog).order_by(_known.c.id).with_for_update())
        }
        self._forget_old(rows)
        own, damage = None, ""
        if self._journal is not None:
            try:
                self._journal.identify()
            except DamagedError as error:
                damage = str(error)
            own = rows.get(self._journal.id)
            if own is not None and own.state == LogState.SET_ASIDE:
                self._journal.begin_anew(now=self._now)
                own, damage = None, ""
        if moved or self._is_behind(own):
            for row in rows.values():
                if row is not own and row.state == LogState.CURRENT:
                    self._move(row, LogState.WAITING)
        for row in rows.values():
            if row is not own and row.state != LogState.SET_ASIDE:
                self._look_elsewhere(row)
        recalled = self._look_here(own, damage) if self._journal is not None else ReplayReport()
        session.flush()
        return recalled

    def _forget_old(self, rows: dict[str, DepartureLog]) -> None:
        """Those that were last seen long before the others tell nothing that is asked for."""
        latest = max((row.seen_at for row in rows.values()), default=self._now)
        for row in [one for one in rows.values() if one.seen_at < latest - KEEP]:
            if row.state in SETTLED_LOGS:
                self._session.delete(row)
                del rows[row.id]

    def _is_behind(self, own: DepartureLog | None) -> bool:
        """Whether this machine's log was compared more often than the database knows."""
        journal = self._journal
        if journal is None or journal.database != self.database:
            return False
        return own is None or journal.compared > own.compared

    def _look_elsewhere(self, row: DepartureLog) -> None:
        """A log that this process does not write, if it is on this machine all the same."""
        if row.state in _FOR_THE_OPERATOR:
            return
        there = LogReader(Path(row.folder))
        try:
            is_here = there.identify() and there.id == row.id
        except DamagedError as error:
            is_here = False
            row.detail = str(error)[:300]
        if is_here:
            found = replay(self._session, there, now=self._now, after=row.read)
            row.read = found.read
            self._judge(row, found)
        elif self._only_machine:
            self._move(row, LogState.MISSING, row.folder)

    def _look_here(self, own: DepartureLog | None, damage: str) -> ReplayReport:
        journal = self._journal
        assert journal is not None
        row = own or DepartureLog(
            id=journal.id or f"unnamed {machine()}"[:40],
            host=machine(),
            folder="",
            state=LogState.CURRENT,
            seen_at=self._now,
            since=self._now,
        )
        behind_for = self._now - row.seen_at if self._is_behind(own) else None
        row.host, row.folder = machine(), str(journal.folder.absolute())[:1000]
        if own is None:
            self._session.add(row)
        is_foreign = journal.database not in {"", self.database}
        if damage:
            self._move(row, LogState.UNREADABLE, damage)
            return ReplayReport()
        if is_foreign and row.state != LogState.WAITING:
            self._move(row, LogState.FOREIGN, row.folder)
            return ReplayReport()
        recalled = replay(self._session, journal, now=self._now, after=row.read)
        row.read, row.seen_at = recalled.read, self._now
        row.compared = self.compared = max(row.compared, journal.compared) + 1
        if behind_for is not None and behind_for > KEEP:
            self._move(row, LogState.SHORT, f"the database is {behind_for.days} days behind it")
        else:
            self._judge(row, recalled)
        return recalled

    def _judge(self, row: DepartureLog, found: ReplayReport) -> None:
        """Where a log stands that was just compared; what is for the operator stays."""
        if found.damage:
            self._move(row, LogState.UNREADABLE, found.damage[0])
        elif found.unnamed:
            self._move(row, LogState.UNNAMED, f"{found.unnamed:,} requests")
        elif row.state not in _FOR_THE_OPERATOR:
            self._move(row, LogState.CURRENT)

    def _move(self, row: DepartureLog, state: LogState, detail: str = "") -> None:
        if row.state != state:
            row.state, row.since = state, self._now
            if state not in SETTLED_LOGS:
                what, remedy = EXPLAINED[state]
                said = f"{row.host}, {row.folder}: {what}. {remedy}"
                operator_messages.post(
                    self._session,
                    MessageKind.LOG_WAITS,
                    row.id,
                    now=self._now,
                    occasion=f"{state} {self._now.isoformat()}",
                    detail=said,
                )
        row.detail = detail[:300]


class LogKeeper:
    """Compares this machine's log when a process begins to send, and from time to time after."""

    def __init__(self, database: Engine, journal: DepartureLogFile | None) -> None:
        self._database, self._journal = database, journal
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="departure-log")
        self._said = ""

    def start(self) -> None:
        """Compare, and from now on write down whom this process suppresses."""
        self._look()
        if self._journal is not None:
            self._journal.follow(self._database)
        self._thread.start()

    def stop(self) -> None:
        """Compare no more."""
        self._stopping.set()
        self._thread.join()
        if self._journal is not None:
            self._journal.unfollow()

    def _run(self) -> None:
        while not self._stopping.wait(_OFTEN if self._said else _SELDOM):
            try:
                self._look()
            except Exception:  # noqa: BLE001 (whatever it is, the next look may succeed)
                _log.exception("the departure log cannot be compared")

    def _look(self) -> None:
        found = look(self._database, self._journal, now=datetime.now(UTC))
        if found.accepted or found.doubtful or found.suppressed or found.forgotten or found.stopped:
            _log.warning("this machine's departure log knew more than the database: %s", found)
        with transaction(self._database) as session:
            waits = [(one.id, one.state, one.detail) for one in restore_gate.waited_for(session)]
        said = "; ".join(f"{log} is {state} ({detail})" for log, state, detail in waits)
        if said != self._said:
            if said:
                _log.error("nothing is sent because of departure logs: %s", said)
            else:
                _log.warning("every departure log was compared: sending goes on")
        self._said = said


@dataclass(frozen=True, slots=True)
class Stands:
    """How a departure log stands, in words."""

    log: DepartureLog
    what: str
    remedy: str

    @property
    def waits(self) -> bool:
        """Whether everything waits because of it."""
        return LogState(self.log.state) not in SETTLED_LOGS


def listed(session: Session) -> list[Stands]:
    """Every departure log that the database knows, those that everything waits for first."""
    rows = session.scalars(select(DepartureLog).order_by(_known.c.seen_at.desc())).all()
    found = [Stands(row, *EXPLAINED[LogState(row.state)]) for row in rows]
    return sorted(found, key=lambda one: not one.waits)


def set_aside(session: Session, log: str, *, reason: str, by: Actor, now: datetime) -> None:
    """Let sending go on without a log that everything waits for, by the operator's word."""
    _say(session, log, LogState.SET_ASIDE, reason=reason, by=by, now=now)


def compare_again(session: Session, log: str, *, reason: str, by: Actor, now: datetime) -> None:
    """Have a log compared from its beginning, whatever was wrong with it; its machine does so."""
    _say(session, log, LogState.WAITING, reason=reason, by=by, now=now)
    session.execute(update(_known).where(_known.c.id == log).values(read={}))


def _say(
    session: Session, log: str, state: LogState, *, reason: str, by: Actor, now: datetime
) -> None:
    waits = {one.id: one for one in restore_gate.waited_for(session)}
    row = waits.get(log)
    if row is None:
        raise SendError(
            "nothing waits for this departure log",
            place=f"departure log {log}",
            hint=f"Waited for: {', '.join(waits) or 'none'}.",
        )
    if not reason.strip():
        raise SendError("a reason is needed, for the log", place=f"departure log {log}")
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
