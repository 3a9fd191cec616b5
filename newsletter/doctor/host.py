"""What `newsletter doctor` finds on this side: keys, journal, database, the last reconciling."""

import os
import tempfile
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import tzdata
from sqlalchemy import Engine, inspect

from newsletter import identity
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import check_version, reading, require_current
from newsletter.doctor.account import DoctorFinding, Verdict
from newsletter.errors import DatabaseError
from newsletter.sending.models import DepartureLog
from newsletter.sending.recovery import known_logs
from newsletter.tracking.models_reconcile import Reconciliation
from newsletter.tracking.suppression_sync import last_runs

#: So many turns may be missed before it is said to be late.
_TURNS = 3
_MAKE = 'Make one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'


def of_keys(*, link_keys: int, address_key: bool, shared: bool) -> Iterator[DoctorFinding]:
    """Whether links can be signed and addresses be hashed; settings refuse keys that are short."""
    if link_keys:
        yield DoctorFinding("links.keys", Verdict.OK, f"{link_keys} of 32 characters or more")
    else:
        yield DoctorFinding("links.keys", Verdict.PROBLEM, "not set: no mail can be sent", _MAKE)
    subject = "subscribers.address_key"
    if not address_key:
        yield DoctorFinding(subject, Verdict.PROBLEM, "not set: nobody can subscribe", _MAKE)
    elif shared:
        found = "the same as one of links.keys, which may have to be changed one day"
        yield DoctorFinding(
            subject, Verdict.WARNING, found, f"Give links.keys another one. {_MAKE}"
        )
    else:
        yield DoctorFinding(subject, Verdict.OK, "32 characters or more")


def of_postal_address(address: str, *, example: str) -> DoctorFinding:
    """Whether mails name the sender's own address, which most countries ask for."""
    subject = "site.postal_address"
    if address.strip() in {"", example}:
        found = "still the example's" if address.strip() else "empty"
        return DoctorFinding(subject, Verdict.PROBLEM, found, f"Set {subject} to your own.")
    return DoctorFinding(subject, Verdict.OK, address)


def of_journal(folder: Path | None) -> DoctorFinding:
    """Whether departures can be written down; nothing is left behind."""
    subject = "sending.journal"
    if folder is None:
        found = "switched off: a restored backup may send again what left since it was made"
        return DoctorFinding(subject, Verdict.WARNING, found, "Name a folder in sending.journal.")
    mend = "Name a folder that this user can write to, on a disk of this machine."
    if not folder.is_dir():
        whole = folder.absolute()
        above = next((path for path in (whole, *whole.parents) if path.exists()), whole)
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            return DoctorFinding(subject, Verdict.OK, f"{folder} will be made")
        return DoctorFinding(subject, Verdict.PROBLEM, f"{folder} cannot be made", mend)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        found = f"{folder} cannot be written to: {error.strerror or error}"
        return DoctorFinding(subject, Verdict.PROBLEM, found, mend)
    return DoctorFinding(subject, Verdict.OK, f"{folder} can be written to")


def of_time_zones() -> DoctorFinding:
    """Which time zone data is in force, by the version that IANA gives it."""
    subject = "time zones"
    if zoneinfo.TZPATH:
        found = f"the operating system's, in {zoneinfo.TZPATH[0]}"
        return DoctorFinding(
            subject, Verdict.WARNING, found, "Start the program by its own commands."
        )
    return DoctorFinding(subject, Verdict.OK, f"IANA {tzdata.IANA_VERSION}, of the package tzdata")


def of_address_key(engine: Engine, key: bytes) -> DoctorFinding:
    """Whether this is the key that the database's address hashes are made with."""
    subject = "the database's address key"
    if not inspect(engine).has_table(str(identity.Identity.__tablename__)):
        return DoctorFinding(
            subject, Verdict.OK, "not compared: the database has no tables for it yet"
        )
    with reading(engine) as session:
        if identity.is_address_key(session, key) is False:
            found = "not the key that this database was made with: commands that need it refuse"
            mend = "Set the key of this database; it is kept with its backups."
            return DoctorFinding(subject, Verdict.PROBLEM, found, mend)
    return DoctorFinding(subject, Verdict.OK, "the key of this database")


def of_departure_logs(engine: Engine) -> DoctorFinding:
    """Whether everything waits for a departure log."""
    subject = "departure logs"
    if not inspect(engine).has_table(str(DepartureLog.__tablename__)):
        return DoctorFinding(subject, Verdict.OK, "none known yet")
    with reading(engine) as session:
        logs = known_logs.listed(session)
    for one in logs:
        if one.waits:
            found = (
                f"nothing is sent: {one.log.id} of {one.log.host} is {one.log.state}: {one.what}"
            )
            return DoctorFinding(subject, Verdict.PROBLEM, found, one.remedy)
    return DoctorFinding(subject, Verdict.OK, f"{len(logs)} known, none is waited for")


def of_database(engine: Engine) -> DoctorFinding:
    """Whether it is of this program's version; an embedded one is brought to it by any command."""
    try:
        if is_postgresql(engine):
            require_current(engine)
        version = check_version(engine)
    except DatabaseError as error:
        return DoctorFinding("database", Verdict.PROBLEM, error.message, error.hint or "")
    found = f"{engine.dialect.name}, version {version or 'none yet'}"
    return DoctorFinding("database", Verdict.OK, found)


def of_reconciling(engine: Engine, *, every: timedelta, now: datetime) -> DoctorFinding:
    """When our suppressions and the provider's lists were last made to agree."""
    subject = "reconciling"
    mend = "Run `newsletter reconcile`, and leave `newsletter serve` running."
    if not every:
        found = "switched off: what SendGrid's events did not tell is never learned"
        return DoctorFinding(subject, Verdict.WARNING, found, "Set tracking.reconcile_every.")
    if not inspect(engine).has_table(str(Reconciliation.__tablename__)):
        return DoctorFinding(subject, Verdict.WARNING, "never yet", mend)
    with reading(engine) as session:
        last, finished = last_runs(session)
    if last is not None and last.error and (finished is None or finished.id < last.id):
        failed = last.error.partition("\n")[0]
        return DoctorFinding(subject, Verdict.WARNING, f"the last run failed: {failed}", mend)
    if finished is None:
        return DoctorFinding(subject, Verdict.WARNING, "never yet", mend)
    ago = now - finished.started_at
    hours = f"{ago / timedelta(hours=1):,.0f} hours ago"
    if ago > _TURNS * every:
        return DoctorFinding(subject, Verdict.WARNING, hours, mend)
    new = sum(found["new_here"] for found in finished.report["lists"].values())
    return DoctorFinding(subject, Verdict.OK, f"{hours}; {new:,} had not been known here")
