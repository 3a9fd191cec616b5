"""What this machine has handed over, written beside the database: it survives a restored backup.

A database that was restored has forgotten which batches left after the backup was made,
and would send them again. The journal has not: each departure and each answer is a line
in a file for the day, and before a process sends, it compares the two.
"""

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Row, select

from newsletter.errors import MachineError
from newsletter.sending import evidence, ledger, oversight
from newsletter.sending.ledger import Barred, Claimed
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import BatchState, SendState
from subscribers.schema import Session, table_of

_log = logging.getLogger(__name__)
_send, _batch = table_of(Send), table_of(Batch)

#: A backup older than this is no longer compared.
_KEEP = timedelta(days=31)

#: ``TOLD``: the operator knows that the database has no such batch.
LEFT, TAKEN, BACK, TOLD = "left", "taken", "back", "told"


class Journal:
    """Writes lines; threads and processes may share the folder.

    MachineError when the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._day = ""
        self._file = -1
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open(datetime.now(UTC))
        except OSError as error:
            raise MachineError(
                f"cannot be written to: {error.strerror or error}",
                place=f"sending.journal: {folder}",
                hint="Name a folder that this user can write to, on a disk of this machine.",
            ) from None

    def left(self, batch: Claimed, barred: Sequence[Barred], *, now: datetime) -> None:
        """The batch's request is about to leave."""
        self._write(batch, now, what=LEFT, skip=[[one["person"], one["why"]] for one in barred])

    def answered(
        self, batch: Claimed, *, taken: bool, message_id: str | None = None, now: datetime
    ) -> None:
        """The provider took the batch, or surely did not."""
        self._write(batch, now, what=TAKEN if taken else BACK, id=message_id)

    def told(self, line: dict[str, Any], *, now: datetime) -> None:
        """The operator has been told that the database does not know this line's batch."""
        self._append({**line, "what": TOLD}, now)

    def _write(self, batch: Claimed, now: datetime, **more: object) -> None:
        line = {
            "send": batch.send_id,
            "made": batch.made_at.astimezone(UTC).isoformat(),
            "batch": batch.number,
            "attempt": batch.attempt,
            "size": batch.size,
            **more,
        }
        self._append(line, now)

    def _append(self, line: dict[str, Any], now: datetime) -> None:
        line["at"] = now.isoformat()
        with self._lock:
            if now.date().isoformat() != self._day:
                self._open(now)
        # One write of one line: appends of several processes do not mix.
        os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _open(self, now: datetime) -> None:
        before, self._day = self._file, now.date().isoformat()
        path = self._folder / f"{self._day}.jsonl"
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            # A power cut has torn the last line: the next one must not be lost with it.
            os.write(self._file, b"\n")
        if before >= 0:
            os.close(before)
        for old in self._folder.glob("????-??-??.jsonl"):
            if old.stem < (now - _KEEP).date().isoformat():
                old.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
        self._file = -1

    def entries(self) -> dict[tuple[int, str], dict[int, dict[str, Any]]]:
        """What was last written of each batch: (send, when it was made) → number → line."""
        last: dict[tuple[int, str], dict[int, dict[str, Any]]] = defaultdict(dict)
        for line in self._lines():
            batches = last[line["send"], line["made"]]
            before = batches.get(line["batch"], {})
            # Who was skipped stands in the line of the departure only.
            batches[line["batch"]] = {"skip": before.get("skip", []), **line}
        return last

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._folder.glob("????-??-??.jsonl")):
            with path.open("rb") as file:
                for number, text in enumerate(file, start=1):
                    try:
                        yield orjson.loads(text)
                    except orjson.JSONDecodeError:
                        # A line that a power cut has torn: its request cannot have left whole.
                        _log.warning("%s, line %s cannot be read", path, number)


@dataclass(slots=True)
class Compared:
    """What the journal knew better than the database."""

    accepted: int = 0
    doubtful: int = 0
    paused: int = 0


def compare(session: Session, journal: Journal, *, now: datetime) -> Compared:
    """Bring the ledger up to what this machine knows it has handed over.

    Batches that were taken become accepted, those that left unanswered uncertain. A send
    of which the database does not know even the plan waits, paused, for the operator.
    """
    done, known = Compared(), journal.entries()
    ids = {send_id for send_id, _ in known}
    sends = session.execute(select(_send).where(_send.c.id.in_(ids))) if ids else ()
    for send in sends:
        lines = known.get((send.id, send.created_at.astimezone(UTC).isoformat()))
        if not lines or send.finished_at is not None:
            continue
        strange = _compare_send(session, send, lines, done, now)
        if strange and send.state != SendState.PAUSED:
            done.paused += _pause(session, send.id, strange, now)
            for number in strange:
                journal.told(lines[number], now=now)
    oversight.finish(session, now=now)
    return done


def _compare_send(
    session: Session,
    send: Row[Any],
    lines: dict[int, dict[str, Any]],
    done: Compared,
    now: datetime,
) -> list[int]:
    """Settle what can be settled; returns the batches that the database does not know at all."""
    rows = {
        row.number: row
        for row in session.execute(
            select(_batch.c.number, _batch.c.state, _batch.c.attempt, _batch.c.size).where(
                _batch.c.send_id == send.id
            )
        )
    }
    taken, unanswered, strange = [], [], []
    for number, line in lines.items():
        row = rows.get(number)
        if row is None:
            if line["what"] in {LEFT, TAKEN}:
                strange.append(number)
        elif line["what"] in {BACK, TOLD} or not _behind(row, line):
            continue
        elif line["what"] == TAKEN and row.size == line["size"]:
            ledger.skip(
                session,
                send.issue_id,
                [Barred(person=person, why=why) for person, why in line["skip"]],
            )
            taken.append((send.id, number))
        else:
            unanswered.append(number)
    done.accepted += evidence.prove(
        session, taken, now=now, detail="by the journal: the provider took it"
    )
    done.doubtful += evidence.left_unanswered(
        session,
        send.id,
        unanswered,
        now=now,
        detail="by the journal it left; the database, restored from a backup, did not know",
    )
    return sorted(strange)


def _pause(session: Session, send_id: int, strange: Sequence[int], now: datetime) -> bool:
    shown = ", ".join(str(number) for number in strange[:10])
    reason = (
        f"the journal knows of {len(strange)} batches ({shown}) that left and are not in this "
        "database: it was restored from a backup that is older than they. Their people may have "
        "the issue. `newsletter sends resume` sends to all who are planned"
    )
    return oversight.move_send(session, send_id, SendState.PAUSED, reason=reason, paused_at=now)


def _behind(row: Row[Any], line: dict[str, Any]) -> bool:
    """Whether the database stands before the moment that the line tells of."""
    if row.attempt != line["attempt"]:
        return bool(row.attempt < line["attempt"])
    if line["what"] == TAKEN:
        # A crash between the answer and its settlement, too.
        return row.state not in {BatchState.ACCEPTED, BatchState.REJECTED}
    return bool(row.state == BatchState.CLAIMED)
