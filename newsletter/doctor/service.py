"""Checks of the running service: whether somebody runs the clock and sends, and the disk space."""

import shutil
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, inspect

from newsletter import durations
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.engine import beside, reading, sqlite_file
from newsletter.doctor.account import DoctorFinding, Verdict
from newsletter.sending.models import Batch
from newsletter.sending.workers import due_work
from newsletter.settings.load import Settings

#: Bytes of free disk space below which nothing may be written soon, and below which to look.
_TOO_LITTLE, _LITTLE = 100_000_000, 1_000_000_000
#: How long a batch may be due before somebody sends it.
_PATIENCE = timedelta(minutes=1)


def of_clock(*, held: bool, otherwise: Verdict) -> DoctorFinding:
    """Reports whether a process runs the clock; ``otherwise`` is the verdict if none does."""
    if held:
        return DoctorFinding("clock", Verdict.OK, "a process runs it")
    message = "no process runs it: no send and no schedule starts"
    return DoctorFinding("clock", otherwise, message, "Start `newsletter serve`.")


def of_sending(engine: Engine, *, now: datetime) -> DoctorFinding:
    """Checks that somebody sends what is due."""
    if not inspect(engine).has_table(str(Batch.__tablename__)):
        return DoctorFinding("workers", Verdict.OK, "the database has no tables yet")
    with reading(engine) as session:
        since = due_work.neglected_since(session, now=now, patience=_PATIENCE)
    if since is None:
        return DoctorFinding("workers", Verdict.OK, "no batch waits for a worker")
    message = f"no worker has sent a batch that is due for {durations.in_words(now - since)}"
    remedy = "Start `newsletter serve` or `newsletter worker`, and read their logs."
    return DoctorFinding("workers", Verdict.PROBLEM, message, remedy)


def written_folders(settings: Settings) -> list[tuple[str, Path]]:
    """The folders of this machine to which the service writes all the time, each with a name."""
    folders = []
    if (file := sqlite_file(settings.database_url)) is not None:
        folders.append(("the database", file.parent))
    if folder := settings.sending.departure_log:
        folders.append(("the departure log", beside(settings.database_url, folder)))
    return folders


def low_space(
    folders: Iterable[tuple[str, Path]],
    *,
    now: datetime,
    too_little: int = _TOO_LITTLE,
    little: int = _LITTLE,
) -> list[Occasion]:
    """The messages about disks with little space: one a week for each, and one when it gets worse.

    Looks at the disks of the machine that runs the clock.
    """
    year, week, _ = now.isocalendar()
    found = [
        (name, of_disk_space(name, folder, too_little=too_little, little=little))
        for name, folder in folders
    ]
    return [
        Occasion(MessageKind.DISK_LOW, name, f"{year}-{week} {one.verdict}", one.message)
        for name, one in found
        if one.verdict in {Verdict.WARNING, Verdict.PROBLEM}
    ]


def of_disk_space(
    subject: str, folder: Path, *, too_little: int = _TOO_LITTLE, little: int = _LITTLE
) -> DoctorFinding:
    """Checks the free disk space for a folder, which need not exist yet."""
    subject = f"disk space of {subject}"
    folder = folder.absolute()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return DoctorFinding(subject, Verdict.UNKNOWN, f"cannot be read: {error.strerror}")
    message = f"{free / 1e9:,.1f} GB are free"
    remedy = "Free some disk space: when it is used up, nothing can be sent or stored."
    if free < too_little:
        return DoctorFinding(subject, Verdict.PROBLEM, message, remedy)
    if free < little:
        return DoctorFinding(subject, Verdict.WARNING, message, remedy)
    return DoctorFinding(subject, Verdict.OK, message)
