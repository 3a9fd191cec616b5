"""The departure log: what this machine has handed over, written beside the database.

A database that was restored has forgotten which batches left after the backup was made,
and would send them again; and who left, and would mail them again. The log has not: each
departure, each answer, each suppression and its end, and each pause,
cancellation and resumption by an operator is a line in a file for the day.
recollection.py compares the two.

A line is one JSON object and ends with a checksum of what stands before it. A departure is on
the disk before its request leaves. It names the issue, and its people by the beginning of the
keyed hash of their addresses: a restored database gives numbers to others.
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
from newsletter.sending.ledger.batch_store import ClaimedBatch, SkippedRecipient
from newsletter.sending.ledger.forgotten_sends import PREFIX, ForgottenSendInfo
from newsletter.sending.ledger.interventions import INTERVENTIONS, KINDS, Intervention
from newsletter.sending.ledger.recipients import EligibleRecipient
from subscribers.consent.suppression import CHANGES, Lifted, Suppressed

_log = logging.getLogger(__name__)

#: A backup older than this is no longer compared.
KEEP: Final = timedelta(days=31)

LEFT, TAKEN, BACK = "left", "taken", "back"
#: Lines about people, of no batch; never an address, only its keyed hash.
_SUPPRESSED, _LIFTED = "suppressed", "lifted"

#: Which log this is, and of which database.
_IDENTITY = "log.json"
_FILES = "????-??-??.jsonl"


class DamagedError(Exception):
    """It cannot be told whose log this is; says why."""


@dataclass(slots=True)
class Departure:
    """One request that left, and what came of it."""

    batch: int
    attempt: int
    variant: int
    at: datetime
    about: ForgottenSendInfo | None
    what: str
    #: Where its line is: file and offset.
    line: tuple[str, int]


@dataclass(slots=True)
class LoggedUnsubscribe:
    """What a stretch of a log tells."""

    #: (send, when it was made) → what left of it, in the order of the log.
    departures: dict[tuple[int, str], list[Departure]] = field(default_factory=dict)
    #: (send, when it was made) → batches that were taken, by a line of which this stretch does
    #: not have the departure.
    taken: dict[tuple[int, str], set[int]] = field(default_factory=dict)
    #: Whom this machine has suppressed and not lifted since: address → one of each reason.
    suppressions: dict[bytes, dict[str, Suppressed]] = field(default_factory=dict)
    #: (send, when it was made) → what an operator last did with it, and when.
    interventions: dict[tuple[int, str], tuple[str, datetime]] = field(default_factory=dict)
    #: File → how far it was read.
    read: dict[str, int] = field(default_factory=dict)
    #: Where it is not as it was written, or gone; the rest is told.
    damage: list[str] = field(default_factory=list)


class LogReader:
    """Reads the log in a folder; the processes that write there may go on meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Its own name, the name of the database that it was written for ("" before it was first
        #: compared), and how often it was compared.
        self.id, self.database, self.compared = "", "", 0

    def identify(self) -> bool:
        """Read whose log this is; False when there is none here. DamagedError when it says not."""
        path = self.folder / _IDENTITY
        try:
            said = orjson.loads(path.read_bytes())
            self.id, self.database = str(said["log"]), str(said["database"])
            self.compared = int(said["compared"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path}: {error}") from None
        return True

    def tell(self, after: Mapping[str, int] = {}) -> LoggedUnsubscribe:
        """What it says behind these places, file → offset.

        A line that was torn off while it was written is passed over: its request did not leave.
        """
        told = LoggedUnsubscribe()
        for path in sorted(self.folder.glob(_FILES)):
            begin = after.get(path.name, 0)
            try:
                self._read(path, begin, told)
            except OSError as error:
                told.damage.append(f"{path.name}: {error.strerror or error}")
        oldest = (datetime.now(UTC) - KEEP).date().isoformat()
        gone = sorted(name for name in after if name not in told.read and name[:10] > oldest)
        told.damage += [f"{name} is gone" for name in gone]
        return told

    def _read(self, path: Path, begin: int, told: LoggedUnsubscribe) -> None:
        size = path.stat().st_size
        if size < begin:
            told.damage.append(f"{path.name} has {size:,} bytes, and had {begin:,}")
            begin = 0
        told.read[path.name] = begin
        if size == begin:
            return
        with path.open("rb") as file:
            file.seek(begin)
            at = begin
            for text in file:
                if not text.endswith(b"\n"):
                    break  # somebody is writing it, or was cut off
                place = f"{path.name} at byte {at:,}"
                try:
                    if line := _parsed(text, place):
                        _take(told, line, (path.name, at))
                except (KeyError, TypeError, ValueError):
                    told.damage.append(f"{place} is not as it was written")
                at += len(text)
                told.read[path.name] = at

    def line_at(self, place: tuple[str, int]) -> dict[str, Any]:
        """The line that stands there."""
        name, offset = place
        with (self.folder / name).open("rb") as file:
            file.seek(offset)
            line = _parsed(file.readline(), f"{name} at byte {offset:,}")
        assert line is not None, place
        return line

    def forget_old(self, known: Mapping[str, int], *, now: datetime) -> None:
        """Remove the files of days long past of which the database knows everything."""
        oldest = (now - KEEP).date().isoformat()
        for path in self.folder.glob(_FILES):
            if path.stem < oldest and known.get(path.name) == path.stat().st_size:
                path.unlink(missing_ok=True)


class DepartureLogFile(LogReader):
    """Writes lines; threads and processes may share the folder.

    MachineError when the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file, self._path = -1, folder
        self._lock = threading.Lock()
        self._followed: URL | None = None
        try:
            private_files.make_folder(folder)
            self._open(datetime.now(UTC))
            if not (folder / _IDENTITY).exists():
                self._give_name()
        except OSError as error:
            raise MachineError(
                f"cannot be written to: {error.strerror or error}",
                place=f"sending.journal: {folder}",
                hint="Name a folder that this user can write to, on a disk of this machine.",
            ) from None

    def left(
        self,
        batch: ClaimedBatch,
        about: ForgottenSendInfo,
        people: Sequence[EligibleRecipient],
        barred: Sequence[SkippedRecipient],
        *,
        now: datetime,
    ) -> None:
        """The batch's request, to these people, is about to leave; on the disk on return."""
        who = bytes.fromhex("".join(person["hash"] for person in people))
        self._write(
            batch,
            now,
            what=LEFT,
            variant=batch.variant_id,
            issue=about.slug,
            content=about.content,
            schedule=about.schedule,
            due=about.due.isoformat() if about.due else None,
            who=b64encode(who).decode(),
            skip=[[one["hash"], one["why"]] for one in barred if one["hash"]],
        )

    def answered(
        self, batch: ClaimedBatch, *, taken: bool, message_id: str | None = None, now: datetime
    ) -> None:
        """The provider took the batch, or surely did not."""
        self._write(batch, now, what=TAKEN if taken else BACK, id=message_id)

    def follow(self, database: Engine) -> None:
        """From now on, write down whom this process suppresses in that database, or no longer, and
        what an operator does with sends."""
        self._followed = database.url
        event.listen(Session, "after_commit", self._committed)

    def unfollow(self) -> None:
        """Write down no more of that."""
        if self._followed is not None:
            self._followed = None
            event.remove(Session, "after_commit", self._committed)

    def belong(self, database: str, compared: int) -> None:
        """Note of which database this is the log, and how often it was compared with it."""
        self.database, self.compared = database, compared
        self._write_identity()

    def begin_anew(self, *, now: datetime) -> None:
        """Put what is here into a folder beside it, and begin another log."""
        aside = self.folder / f"aside-{now:%Y%m%dT%H%M%SZ}-{self.id[:8] or 'unnamed'}"
        with self._lock:
            aside.mkdir(mode=0o700, exist_ok=True)
            for path in [*self.folder.glob(_FILES), self.folder / _IDENTITY]:
                if path.exists():
                    path.rename(aside / path.name)
            self._give_name()
            self._open(now)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
        self._file = -1

    def _committed(self, session: Session) -> None:
        # A savepoint that is let go of counts with what is around it.
        news: list[Suppressed | Lifted] = session.info.get(CHANGES, [])
        interventions: list[Intervention] = session.info.get(INTERVENTIONS, [])
        if not (news or interventions) or session.in_nested_transaction():
            return
        if session.get_bind().engine.url != self._followed:
            return
        now = datetime.now(UTC)
        try:
            # In their order: what was lifted may have been suppressed again, and the reverse.
            for what, some in groupby(news, key=_what):
                who = [_who(one) for one in some]
                self._append({"what": what, "at": now.isoformat(), "who": who}, now)
            for one in interventions:
                self._append(_line_of(one), now)
        except OSError:
            # It is committed: only a restored database would miss it.
            _log.exception("the journal cannot be written")
        news.clear()
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
        # An answer that a power cut takes back leaves a doubt; a departure, a second copy.
        self._append(line, now, to_disk=what == LEFT)

    def _append(self, line: dict[str, object], now: datetime, *, to_disk: bool = False) -> None:
        said = orjson.dumps(line)[:-1]
        # A power cut or a full disk may have torn the line before, of whichever process: this
        # one must not be lost with it, so it begins with a line break of its own.
        text = b'\n%b,"crc":%d}\n' % (said, crc32(said))
        with self._lock:
            if now.date().isoformat() != self._path.stem or not self._is_here():
                self._open(now)
            # One write of one line: appends of several processes do not mix.
            written = os.write(self._file, text)
            # To wait for the disk, without the others who write meanwhile.
            mine = os.dup(self._file) if to_disk else None
        if mine is not None:
            try:
                os.fdatasync(mine)
            finally:
                os.close(mine)
        if written < len(text):
            # The disk took what it had room for, which is no error to it.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_here(self) -> bool:
        """Whether the file that is open still stands in the folder: another process may have
        begun another log."""
        try:
            there, mine = self._path.stat(), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)

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

    def _give_name(self) -> None:
        self.id, self.database, self.compared = secrets.token_hex(16), "", 0
        self._write_identity(new=True)

    def _write_identity(self, *, new: bool = False) -> None:
        said = {"log": self.id, "database": self.database, "compared": self.compared}
        beside = self.folder / f"{_IDENTITY}.{secrets.token_hex(4)}"
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.FILE_MODE)
        try:
            os.write(file, orjson.dumps(said))
            os.fsync(file)
        finally:
            os.close(file)
        try:
            if new:
                # Two processes that start at once agree on the name of the first.
                os.link(beside, self.folder / _IDENTITY)
            else:
                beside.rename(self.folder / _IDENTITY)
        except FileExistsError:
            self.identify()
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(self.folder)


def machine() -> str:
    """By what this machine is known to operators."""
    return socket.gethostname()[:100]


def people_of(line: Mapping[str, Any]) -> list[bytes]:
    """Who was in a request: the beginnings of their address hashes."""
    whole = b64decode(line["who"])
    return [whole[begin : begin + PREFIX] for begin in range(0, len(whole), PREFIX)]


def _parsed(text: bytes, place: str) -> dict[str, Any] | None:
    """The line, or None for one that is empty or torn; ValueError when it has been changed."""
    text = text.strip()
    if not text:
        return None
    if not text.endswith(b"}"):
        _log.warning("departure log: %s was cut off while it was written", place)
        return None
    said, has_sum, stated = text[:-1].rpartition(b',"crc":')
    line: dict[str, Any] = orjson.loads(text)
    # Older versions wrote no checksum.
    if has_sum and int(stated) != crc32(said):
        raise ValueError(place)
    return line


def _take(told: LoggedUnsubscribe, line: dict[str, Any], place: tuple[str, int]) -> None:
    what = line["what"]
    if what == _SUPPRESSED:
        for hexed, reason, at in line["who"]:
            hashed = bytes.fromhex(hexed)
            one = Suppressed(hashed, reason, datetime.fromisoformat(at))
            told.suppressions.setdefault(hashed, {})[reason] = one
    elif what == _LIFTED:
        for (hexed,) in line["who"]:
            told.suppressions.pop(bytes.fromhex(hexed), None)
    elif what == LEFT:
        key = line["send"], line["made"]
        told.departures.setdefault(key, []).append(_departure(line, place))
    elif what in {TAKEN, BACK}:
        _answer(told, line, what)
    elif what in KINDS:
        told.interventions[line["send"], line["made"]] = what, datetime.fromisoformat(line["at"])


def _departure(line: dict[str, Any], place: tuple[str, int]) -> Departure:
    about = None
    if "issue" in line:
        due = datetime.fromisoformat(line["due"]) if line["due"] else None
        about = ForgottenSendInfo(line["issue"], line["content"], line["schedule"], due)
    left_at = datetime.fromisoformat(line["at"])
    return Departure(line["batch"], line["attempt"], line["variant"], left_at, about, LEFT, place)


def _answer(told: LoggedUnsubscribe, line: dict[str, Any], what: str) -> None:
    key = line["send"], line["made"]
    for one in reversed(told.departures.get(key, [])):
        if (one.batch, one.attempt) == (line["batch"], line["attempt"]):
            one.what = what
            return
    if what == TAKEN:
        told.taken.setdefault(key, set()).add(line["batch"])


def _line_of(one: Intervention) -> dict[str, object]:
    made, at = one.made_at.astimezone(UTC).isoformat(), one.at.astimezone(UTC).isoformat()
    return {"what": one.what, "at": at, "send": one.send_id, "made": made}


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _what(one: Suppressed | Lifted) -> str:
    return _SUPPRESSED if isinstance(one, Suppressed) else _LIFTED


def _who(one: Suppressed | Lifted) -> list[str]:
    hexed = one.address_hash.hex()
    return [hexed, one.reason, one.at.isoformat()] if isinstance(one, Suppressed) else [hexed]
