"""The departure log: a record of what this machine sent, in files beside the database.

A database that is restored from a backup has lost which batches left since, and would send
them again; it has also lost who unsubscribed since, and would email them again. The log has
both: each departure, each answer, each suppression and its end, and each pause, cancellation
and resumption by an operator is a line in the file of its day. restore_replay.py brings the
database up to date from the log.

A line is one JSON object; its last key is a checksum of all before it. A departure is on the
disk before its request leaves. It has the issue, and the first bytes of the keyed hash of each
recipient's address: a restored database may give the same ids to other subscribers.
"""

import errno
import logging
import os
import secrets
import socket
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import orjson
from sqlalchemy import URL, Engine, event

from newsletter.db import private_files
from newsletter.db.orm import Session
from newsletter.errors import MachineError
from newsletter.sending.ledger.claimed_batch import (
    ClaimedBatch,
    EligibleRecipient,
    SkippedRecipient,
)
from newsletter.sending.ledger.forgotten_sends import PREFIX, ForgottenSendInfo
from newsletter.sending.ledger.interventions import INTERVENTIONS, KINDS, Intervention
from subscribers.consent.suppression import CHANGES, Lifted, Suppressed

_log = logging.getLogger(__name__)

#: Files older than this are deleted; older backups cannot be compared.
RETENTION: Final = timedelta(days=31)

#: A request left; the provider accepted it; the provider did not accept it.
LEFT, ACCEPTED, NOT_ACCEPTED = "left", "taken", "back"
#: Lines about suppressions; they have the keyed hash of an address, never the address.
_SUPPRESSED, _LIFTED = "suppressed", "lifted"

#: The file with the id of the log and of its database.
_IDENTITY_FILE = "log.json"
_FILES = "????-??-??.jsonl"


class DamagedLogError(Exception):
    """The identity file of the log cannot be read; the message has the reason."""


@dataclass(slots=True)
class Departure:
    """One request that left, and its outcome: LEFT, ACCEPTED or NOT_ACCEPTED."""

    batch: int
    attempt: int
    variant: int
    at: datetime
    send_info: ForgottenSendInfo | None
    what: str
    #: Where its line is: file and offset.
    line: tuple[str, int]


@dataclass(slots=True)
class LogContents:
    """What a part of a log records."""

    #: (send, creation time) → its departures, in the order of the log.
    departures: dict[tuple[int, str], list[Departure]] = field(default_factory=dict)
    #: (send, creation time) → accepted batches whose departure is not in this part of the log.
    accepted: dict[tuple[int, str], set[int]] = field(default_factory=dict)
    #: Suppressions that were not lifted since: address hash → reason → suppression.
    suppressions: dict[bytes, dict[str, Suppressed]] = field(default_factory=dict)
    #: (send, creation time) → an operator's latest intervention, and its time.
    interventions: dict[tuple[int, str], tuple[str, datetime]] = field(default_factory=dict)
    #: File → bytes that were read.
    read: dict[str, int] = field(default_factory=dict)
    #: Damaged or missing parts, as text; everything else was read.
    damage: list[str] = field(default_factory=list)


class LogReader:
    """Reads the log in a folder, also while processes write to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: The id of the log, the id of its database ("" before the first comparison), and the
        #: number of comparisons.
        self.id, self.database, self.compared = "", "", 0

    def identify(self) -> bool:
        """Read the identity file; returns False if there is none.

        Raises DamagedLogError if it cannot be read.
        """
        path = self.folder / _IDENTITY_FILE
        try:
            content = orjson.loads(path.read_bytes())
            self.id, self.database = str(content["log"]), str(content["database"])
            self.compared = int(content["compared"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedLogError(f"{path}: {error}") from None
        return True

    def read(self, after: Mapping[str, int] = {}) -> LogContents:
        """Read what was written after these positions (file → offset).

        A line that is incomplete because its process ended is skipped: its request did not leave.
        """
        contents = LogContents()
        for path in sorted(self.folder.glob(_FILES)):
            begin = after.get(path.name, 0)
            try:
                self._read(path, begin, contents)
            except OSError as error:
                contents.damage.append(f"{path.name}: {error.strerror or error}")
        oldest = (datetime.now(UTC) - RETENTION).date().isoformat()
        gone = sorted(name for name in after if name not in contents.read and name[:10] > oldest)
        contents.damage += [f"{name} is gone" for name in gone]
        return contents

    def sizes(self) -> dict[str, int]:
        """File → its size in bytes; equal to what was read unless something was written since."""
        return {path.name: path.stat().st_size for path in self.folder.glob(_FILES)}

    def _read(self, path: Path, begin: int, contents: LogContents) -> None:
        size = path.stat().st_size
        if size < begin:
            contents.damage.append(f"{path.name} has {size:,} bytes, and had {begin:,}")
            begin = 0
        contents.read[path.name] = begin
        if size == begin:
            return
        with path.open("rb") as file:
            file.seek(begin)
            at = begin
            for text in file:
                if not text.endswith(b"\n"):
                    break  # another process is writing it, or ended while it did
                place = f"{path.name} at byte {at:,}"
                try:
                    if line := _parse(text, place):
                        _add_line(contents, line, (path.name, at))
                except (KeyError, TypeError, ValueError):
                    contents.damage.append(f"{place} is damaged")
                at += len(text)
                contents.read[path.name] = at

    def line_at(self, place: tuple[str, int]) -> dict[str, Any]:
        """The line at this position (file, offset)."""
        name, offset = place
        with (self.folder / name).open("rb") as file:
            file.seek(offset)
            line = _parse(file.readline(), f"{name} at byte {offset:,}")
        assert line is not None, place
        return line

    def forget_old(self, known: Mapping[str, int], *, now: datetime) -> None:
        """Delete files past RETENTION that the database has read completely (``known``)."""
        oldest = (now - RETENTION).date().isoformat()
        for path in self.folder.glob(_FILES):
            if path.stem < oldest and known.get(path.name) == path.stat().st_size:
                path.unlink(missing_ok=True)


class DepartureLogFile(LogReader):
    """Writes the log; threads and processes may share its folder.

    Raises MachineError if the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file, self._path = -1, folder
        self._lock = threading.Lock()
        self._followed: URL | None = None
        try:
            private_files.make_folder(folder)
            self._open(datetime.now(UTC))
            if not (folder / _IDENTITY_FILE).exists():
                self._create_identity()
        except OSError as error:
            raise MachineError(
                f"cannot be written to: {error.strerror or error}",
                place=f"sending.departure_log: {folder}",
                hint="Choose a folder on this machine that this user can write to.",
            ) from None

    def record_departure(
        self,
        batch: ClaimedBatch,
        send_info: ForgottenSendInfo,
        people: Sequence[EligibleRecipient],
        skipped: Sequence[SkippedRecipient],
        *,
        now: datetime,
    ) -> None:
        """Record that the batch's request is about to leave; it is on the disk on return."""
        prefixes = bytes.fromhex("".join(person["hash"] for person in people))
        self._write(
            batch,
            now,
            what=LEFT,
            variant=batch.variant_id,
            issue=send_info.slug,
            content=send_info.content,
            schedule=send_info.schedule,
            due=send_info.due.isoformat() if send_info.due else None,
            who=b64encode(prefixes).decode(),
            skip=[[one["hash"], one["why"]] for one in skipped if one["hash"]],
        )

    def record_answer(
        self, batch: ClaimedBatch, *, accepted: bool, message_id: str | None = None, now: datetime
    ) -> None:
        """Record that the provider accepted the batch, or certainly did not."""
        self._write(batch, now, what=ACCEPTED if accepted else NOT_ACCEPTED, id=message_id)

    def follow(self, database: Engine) -> None:
        """Record from now on what this process commits to this database: suppressions, their end,
        and operators' interventions."""
        self._followed = database.url
        event.listen(Session, "after_commit", self._committed)

    def unfollow(self) -> None:
        """Stop recording commits."""
        if self._followed is not None:
            self._followed = None
            event.remove(Session, "after_commit", self._committed)

    def write_identity(self, database: str, compared: int) -> None:
        """Write the id of the log's database and the number of comparisons with it."""
        self.database, self.compared = database, compared
        self._write_identity()

    def start_new_log(self, *, now: datetime) -> None:
        """Move all files into a subfolder and start an empty log with a new id."""
        aside = self.folder / f"aside-{now:%Y%m%dT%H%M%SZ}-{self.id[:8] or 'unnamed'}"
        with self._lock:
            aside.mkdir(mode=0o700, exist_ok=True)
            for path in [*self.folder.glob(_FILES), self.folder / _IDENTITY_FILE]:
                if path.exists():
                    path.rename(aside / path.name)
            self._create_identity()
            self._open(now)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        self._file = -1

    def _committed(self, session: Session) -> None:
        # The release of a savepoint is no commit: its changes are committed with the transaction.
        changes: list[Suppressed | Lifted] = session.info.get(CHANGES, [])
        interventions: list[Intervention] = session.info.get(INTERVENTIONS, [])
        if not (changes or interventions) or session.in_nested_transaction():
            return
        if session.get_bind().engine.url != self._followed:
            return
        now = datetime.now(UTC)
        try:
            # In order, because an address may be suppressed, lifted and suppressed again.
            for what, some in groupby(changes, key=_suppression_kind):
                who = [_suppression_fields(one) for one in some]
                self._append({"what": what, "at": now.isoformat(), "who": who}, now)
            for one in interventions:
                self._append(_line_of(one), now)
        except OSError:
            # The change is committed; only a later restore would lose it.
            _log.exception("the departure log cannot be written")
        changes.clear()
        interventions.clear()

    def _write(self, batch: ClaimedBatch, now: datetime, *, what: str, **more: object) -> None:
        line = {
            "send": batch.send_id,
            "made": batch.made_at.astimezone(UTC).isoformat(),
            "batch": batch.number,
            "attempt": batch.attempt,
            "at": now.isoformat(),
            "what": what,
            **more,
        }
        # If a power cut loses an answer, the batch is uncertain; if it loses a departure, the
        # batch would be sent twice. So only departures wait for the disk.
        self._append(line, now, to_disk=what == LEFT)

    def _append(self, line: dict[str, object], now: datetime, *, to_disk: bool = False) -> None:
        content = orjson.dumps(line)[:-1]
        # A power cut or a full disk may have left an incomplete line before this one, so each
        # line begins with a line break.
        text = b'\n%b,"crc":%d}\n' % (content, crc32(content))
        with self._lock:
            if now.date().isoformat() != self._path.stem or not self._is_in_place():
                self._open(now)
            # One write per line, so that lines of several processes do not mix.
            written = os.write(self._file, text)
            # A duplicate, to wait for the disk outside the lock while other threads write.
            duplicate = os.dup(self._file) if to_disk else None
        if duplicate is not None:
            try:
                os.fdatasync(duplicate)
            finally:
                os.close(duplicate)
        if written < len(text):
            # A full disk writes what fits, without an error.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_in_place(self) -> bool:
        """Whether the open file is still in the folder: another process may have started a new
        log."""
        try:
            in_folder, opened = self._path.stat(), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (in_folder.st_ino, in_folder.st_dev) == (opened.st_ino, opened.st_dev)

    def _open(self, now: datetime) -> None:
        before, path = self._file, self.folder / f"{now.date().isoformat()}.jsonl"
        is_new = not path.exists()
        self._file = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, private_files.FILE_MODE
        )
        self._path = path
        if before >= 0:
            os.close(before)
        if is_new:
            _sync_folder(self.folder)

    def _create_identity(self) -> None:
        self.id, self.database, self.compared = secrets.token_hex(16), "", 0
        self._write_identity(new=True)

    def _write_identity(self, *, new: bool = False) -> None:
        content = {"log": self.id, "database": self.database, "compared": self.compared}
        beside = self.folder / f"{_IDENTITY_FILE}.{secrets.token_hex(4)}"
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.FILE_MODE)
        try:
            os.write(file, orjson.dumps(content))
            os.fsync(file)
        finally:
            os.close(file)
        try:
            if new:
                # link fails if the file exists: of two processes that start at once, the first
                # one's id is used.
                os.link(beside, self.folder / _IDENTITY_FILE)
            else:
                beside.rename(self.folder / _IDENTITY_FILE)
        except FileExistsError:
            self.identify()
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(self.folder)


def host_name() -> str:
    """The host name of this machine, at most 100 characters."""
    return socket.gethostname()[:100]


def address_prefixes(line: Mapping[str, Any]) -> list[bytes]:
    """The address hash prefixes of the recipients in a departure's line."""
    joined = b64decode(line["who"])
    return [joined[begin : begin + PREFIX] for begin in range(0, len(joined), PREFIX)]


def _parse(text: bytes, place: str) -> dict[str, Any] | None:
    """The line; None if it is empty or incomplete. Raises ValueError if the checksum differs."""
    text = text.strip()
    if not text:
        return None
    if not text.endswith(b"}"):
        _log.warning("departure log: %s was cut off while it was written", place)
        return None
    content, has_sum, stated = text[:-1].rpartition(b',"crc":')
    line: dict[str, Any] = orjson.loads(text)
    # Older versions wrote no checksum.
    if has_sum and int(stated) != crc32(content):
        raise ValueError(place)
    return line


def _add_line(contents: LogContents, line: dict[str, Any], place: tuple[str, int]) -> None:
    what = line["what"]
    if what == _SUPPRESSED:
        for hexed, reason, at in line["who"]:
            hashed = bytes.fromhex(hexed)
            one = Suppressed(hashed, reason, datetime.fromisoformat(at))
            contents.suppressions.setdefault(hashed, {})[reason] = one
    elif what == _LIFTED:
        for (hexed,) in line["who"]:
            contents.suppressions.pop(bytes.fromhex(hexed), None)
    elif what == LEFT:
        key = line["send"], line["made"]
        contents.departures.setdefault(key, []).append(_departure(line, place))
    elif what in {ACCEPTED, NOT_ACCEPTED}:
        _answer(contents, line, what)
    elif what in KINDS:
        contents.interventions[line["send"], line["made"]] = (
            what,
            datetime.fromisoformat(line["at"]),
        )


def _departure(line: dict[str, Any], place: tuple[str, int]) -> Departure:
    send_info = None
    if "issue" in line:
        due = datetime.fromisoformat(line["due"]) if line["due"] else None
        send_info = ForgottenSendInfo(line["issue"], line["content"], line["schedule"], due)
    left_at = datetime.fromisoformat(line["at"])
    return Departure(
        line["batch"], line["attempt"], line["variant"], left_at, send_info, LEFT, place
    )


def _answer(contents: LogContents, line: dict[str, Any], what: str) -> None:
    key = line["send"], line["made"]
    for one in reversed(contents.departures.get(key, [])):
        if (one.batch, one.attempt) == (line["batch"], line["attempt"]):
            one.what = what
            return
    if what == ACCEPTED:
        contents.accepted.setdefault(key, set()).add(line["batch"])


def _line_of(one: Intervention) -> dict[str, object]:
    made, at = one.made_at.astimezone(UTC).isoformat(), one.at.astimezone(UTC).isoformat()
    return {"what": one.what, "at": at, "send": one.send_id, "made": made}


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _suppression_kind(one: Suppressed | Lifted) -> str:
    return _SUPPRESSED if isinstance(one, Suppressed) else _LIFTED


def _suppression_fields(one: Suppressed | Lifted) -> list[str]:
    hexed = one.address_hash.hex()
    return [hexed, one.reason, one.at.isoformat()] if isinstance(one, Suppressed) else [hexed]
