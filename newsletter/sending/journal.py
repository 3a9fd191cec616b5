"""What this machine has handed over, written beside the database: it survives a restored backup.

A database that was restored has forgotten which batches left after the backup was made,
and would send them again; and who left, and would mail them again. The journal has not: each
departure, each answer, each suppression and its end is a line in a file for the day.
recollection.py compares the two.
"""

import errno
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import URL, Engine, event

from newsletter.errors import MachineError
from newsletter.sending.ledger import Barred, Claimed
from subscribers import private_files
from subscribers.schema import Session
from subscribers.suppression import NEWS, Lifted, Suppressed

_log = logging.getLogger(__name__)

#: A backup older than this is no longer compared.
_KEEP = timedelta(days=31)

LEFT, TAKEN, BACK = "left", "taken", "back"
#: Lines about people, of no batch; never an address, only its keyed hash.
_SUPPRESSED, _LIFTED = "suppressed", "lifted"


class Journal:
    """Writes lines; threads and processes may share the folder.

    MachineError when the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._day = ""
        self._file = -1
        self._lock = threading.Lock()
        self._followed: URL | None = None
        try:
            private_files.make_folder(folder)
            self._open(datetime.now(UTC))
        except OSError as error:
            raise MachineError(
                f"cannot be written to: {error.strerror or error}",
                place=f"sending.journal: {folder}",
                hint="Name a folder that this user can write to, on a disk of this machine.",
            ) from None

    def left(
        self, batch: Claimed, people: Sequence[int], barred: Sequence[Barred], *, now: datetime
    ) -> None:
        """The batch's request, to these people, is about to leave."""
        skip = [[one["person"], one["why"]] for one in barred]
        self._write(batch, now, what=LEFT, variant=batch.variant_id, people=people, skip=skip)

    def answered(
        self, batch: Claimed, *, taken: bool, message_id: str | None = None, now: datetime
    ) -> None:
        """The provider took the batch, or surely did not."""
        self._write(batch, now, what=TAKEN if taken else BACK, id=message_id)

    def follow(self, database: Engine) -> None:
        """From now on, write down whom this process suppresses in that database, or no longer."""
        self._followed = database.url
        event.listen(Session, "after_commit", self._committed)

    def unfollow(self) -> None:
        """Write down no more of that."""
        if self._followed is not None:
            self._followed = None
            event.remove(Session, "after_commit", self._committed)

    def _committed(self, session: Session) -> None:
        # A savepoint that is let go of counts with what is around it.
        news: list[Suppressed | Lifted] = session.info.get(NEWS, [])
        if not news or session.in_nested_transaction():
            return
        if session.get_bind().engine.url != self._followed:
            return
        now = datetime.now(UTC)
        try:
            # In their order: what was lifted may have been suppressed again, and the reverse.
            for what, some in groupby(news, key=_what):
                who = [_who(one) for one in some]
                self._append({"what": what, "at": now.isoformat(), "who": who}, now)
        except OSError:
            # It is committed: only a restored database would miss it.
            _log.exception("the journal cannot be written")
        news.clear()

    def _write(self, batch: Claimed, now: datetime, **more: object) -> None:
        line = {
            "send": batch.send_id,
            "made": batch.made_at.astimezone(UTC).isoformat(),
            "batch": batch.number,
            "attempt": batch.attempt,
            "at": now.isoformat(),
            **more,
        }
        self._append(line, now)

    def _append(self, line: dict[str, object], now: datetime) -> None:
        # A power cut or a full disk may have torn the line before, of whichever process: this
        # one must not be lost with it, so it begins with a line break of its own.
        text = b"\n" + orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            if now.date().isoformat() != self._day:
                self._open(now)
            # One write of one line: appends of several processes do not mix.
            written = os.write(self._file, text)
        if written < len(text):
            # The disk took what it had room for, which is no error to it.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, now: datetime) -> None:
        before, day = self._file, now.date().isoformat()
        path = self._folder / f"{day}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, private_files.FILE_MODE)
        self._day = day
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
            if "batch" not in line:
                continue
            batches = last[line["send"], line["made"]]
            before = batches.get(line["batch"], {})
            # Who was in the request stands in the line of the departure only.
            batches[line["batch"]] = {**before, **line}
        return last

    def suppressions(self) -> dict[bytes, list[Suppressed]]:
        """Whom this machine has suppressed and not lifted since: address → one of each reason."""
        last: dict[bytes, dict[str, Suppressed]] = {}
        for line in self._lines():
            if line["what"] == _SUPPRESSED:
                for hexed, reason, at in line["who"]:
                    hashed = bytes.fromhex(hexed)
                    one = Suppressed(hashed, reason, datetime.fromisoformat(at))
                    last.setdefault(hashed, {})[reason] = one
            elif line["what"] == _LIFTED:
                for (hexed,) in line["who"]:
                    last.pop(bytes.fromhex(hexed), None)
        return {hashed: [*reasons.values()] for hashed, reasons in last.items()}

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._folder.glob("????-??-??.jsonl")):
            with path.open("rb") as file:
                for number, text in enumerate(file, start=1):
                    if text.isspace():
                        continue
                    try:
                        yield orjson.loads(text)
                    except orjson.JSONDecodeError:
                        # A power cut or a full disk has torn it: its request did not leave whole.
                        _log.warning("%s, line %s cannot be read", path, number)


def _what(one: Suppressed | Lifted) -> str:
    return _SUPPRESSED if isinstance(one, Suppressed) else _LIFTED


def _who(one: Suppressed | Lifted) -> list[str]:
    hexed = one.address_hash.hex()
    return [hexed, one.reason, one.at.isoformat()] if isinstance(one, Suppressed) else [hexed]
