"""Doctor checks of this host: keys, departure log, database, time zones, the last reconciling."""

import os
import tempfile
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import tzdata
from sqlalchemy import Engine, inspect

from newsletter import database_identity
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import check_version, reading, require_current
from newsletter.doctor.account import DoctorFinding, Verdict
from newsletter.errors import DatabaseError
from newsletter.sending.models import DepartureLog
from newsletter.sending.recovery import known_logs
from newsletter.tracking.models import Reconciliation
from newsletter.tracking.suppression_sync import last_runs

#: Reconciling and backups are late after this many intervals.
_INTERVALS = 3
_CREATE = 'Create one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'


def of_keys(*, link_keys: int, address_key: bool, shared: bool) -> Iterator[DoctorFinding]:
    """Checks the keys that sign links and hash addresses. Settings refuse short keys already."""
    if link_keys:
        yield DoctorFinding("links.keys", Verdict.OK, f"{link_keys} of 32 characters or more")
    else:
        yield DoctorFinding("links.keys", Verdict.PROBLEM, "not set: no email can be sent", _CREATE)
    subject = "subscribers.address_key"
    if not address_key:
        yield DoctorFinding(subject, Verdict.PROBLEM, "not set: nobody can subscribe", _CREATE)
    elif shared:
        message = "the same as one of links.keys, which you may have to change one day"
        remedy = f"Use another key in links.keys. {_CREATE}"
        yield DoctorFinding(subject, Verdict.WARNING, message, remedy)
    else:
        yield DoctorFinding(subject, Verdict.OK, "32 characters or more")


def of_postal_address(address: str, *, example: str) -> DoctorFinding:
    """Checks that emails contain the sender's own address, as most countries require."""
    subject = "site.postal_address"
    if address.strip() in {"", example}:
        message = "still the example's" if address.strip() else "empty"
        return DoctorFinding(subject, Verdict.PROBLEM, message, f"Set {subject} to your own.")
    return DoctorFinding(subject, Verdict.OK, address)


def of_departure_log_folder(folder: Path | None) -> DoctorFinding:
    """Checks that the departure log can be written; leaves no file behind."""
    subject = "sending.departure_log"
    if folder is None:
        message = "switched off: after a restore, emails that left since the backup may leave again"
        return DoctorFinding(
            subject, Verdict.WARNING, message, "Name a folder in sending.departure_log."
        )
    remedy = "Name a folder that this user can write to, on a local disk."
    if not folder.is_dir():
        path = folder.absolute()
        existing = next((one for one in (path, *path.parents) if one.exists()), path)
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            return DoctorFinding(subject, Verdict.OK, f"{folder} will be created")
        return DoctorFinding(subject, Verdict.PROBLEM, f"{folder} cannot be created", remedy)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        message = f"{folder} cannot be written to: {error.strerror or error}"
        return DoctorFinding(subject, Verdict.PROBLEM, message, remedy)
    return DoctorFinding(subject, Verdict.OK, f"{folder} can be written to")


def of_time_zones() -> DoctorFinding:
    """Reports which time zone data is used, by IANA's version."""
    subject = "time zones"
    if zoneinfo.TZPATH:
        message = f"the operating system's, in {zoneinfo.TZPATH[0]}"
        remedy = "Start the program by its own commands."
        return DoctorFinding(subject, Verdict.WARNING, message, remedy)
    message = f"IANA {tzdata.IANA_VERSION}, of the package tzdata"
    return DoctorFinding(subject, Verdict.OK, message)


def of_address_key(engine: Engine, key: bytes) -> DoctorFinding:
    """Checks that the database's address hashes were made with this key."""
    subject = "the database's address key"
    if not inspect(engine).has_table(str(database_identity.Identity.__tablename__)):
        return DoctorFinding(subject, Verdict.OK, "not compared: the database has no tables yet")
    with reading(engine) as session:
        if database_identity.is_address_key(session, key) is False:
            message = "not the key of this database: commands that need the key refuse to run"
            remedy = "Set the key that was in use when this database was created."
            return DoctorFinding(subject, Verdict.PROBLEM, message, remedy)
    return DoctorFinding(subject, Verdict.OK, "the key of this database")


def of_departure_logs(engine: Engine) -> DoctorFinding:
    """Checks whether sending waits until a departure log is compared."""
    subject = "departure logs"
    if not inspect(engine).has_table(str(DepartureLog.__tablename__)):
        return DoctorFinding(subject, Verdict.OK, "none known yet")
    with reading(engine) as session:
        logs = known_logs.list_logs(session)
    for one in logs:
        if one.waits:
            message = (
                f"nothing is sent: {one.log.id} of {one.log.host} is {one.log.state}: {one.what}"
            )
            return DoctorFinding(subject, Verdict.PROBLEM, message, one.remedy)
    return DoctorFinding(subject, Verdict.OK, f"{len(logs)} known, all are compared")


def of_database(engine: Engine) -> DoctorFinding:
    """Checks the version of the database. An empty SQLite file gets its tables when used."""
    try:
        version = check_version(engine)
        if version is not None or is_postgresql(engine):
            require_current(engine)
    except DatabaseError as error:
        return DoctorFinding("database", Verdict.PROBLEM, error.message, error.hint or "")
    message = f"{engine.dialect.name}, version {version or 'none yet'}"
    return DoctorFinding("database", Verdict.OK, message)


def of_backups(latest: datetime | None, *, every: timedelta, now: datetime) -> DoctorFinding:
    """Checks when the service last made a backup; ``latest`` is None if there is none."""
    subject = "backups"
    if not every:
        message = "the service makes none (backup.every is empty)"
        return DoctorFinding(subject, Verdict.OK, message)
    remedy = "Leave `newsletter serve` running; its log says why a backup failed."
    if latest is None:
        return DoctorFinding(subject, Verdict.WARNING, "none yet in backup.folder", remedy)
    message = f"the latest is {(now - latest) / timedelta(hours=1):,.0f} hours old"
    late = now - latest > _INTERVALS * every
    return DoctorFinding(
        subject, Verdict.PROBLEM if late else Verdict.OK, message, remedy if late else ""
    )


def of_reconciling(engine: Engine, *, every: timedelta, now: datetime) -> DoctorFinding:
    """Checks when our suppressions were last reconciled with the provider's lists."""
    subject = "reconciling"
    remedy = "Run `newsletter reconcile`, and leave `newsletter serve` running."
    if not every:
        message = "switched off: suppressions whose events got lost are never learned"
        return DoctorFinding(subject, Verdict.WARNING, message, "Set tracking.reconcile_every.")
    if not inspect(engine).has_table(str(Reconciliation.__tablename__)):
        return DoctorFinding(subject, Verdict.WARNING, "never yet", remedy)
    with reading(engine) as session:
        last, finished = last_runs(session)
    if last is not None and last.error and (finished is None or finished.id < last.id):
        error = last.error.partition("\n")[0]
        return DoctorFinding(subject, Verdict.WARNING, f"the last run failed: {error}", remedy)
    if finished is None:
        return DoctorFinding(subject, Verdict.WARNING, "never yet", remedy)
    ago = now - finished.started_at
    hours = f"{ago / timedelta(hours=1):,.0f} hours ago"
    if ago > _INTERVALS * every:
        return DoctorFinding(subject, Verdict.WARNING, hours, remedy)
    new = sum(findings["new_here"] for findings in finished.report["lists"].values())
    return DoctorFinding(subject, Verdict.OK, f"{hours}; {new:,} suppressions were new here")
