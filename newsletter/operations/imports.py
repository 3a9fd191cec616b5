"""Import a file on this machine. Uploaded files: newsletter.imports.import_jobs."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import transaction
from subscribers.transfer.import_run import ImportOptions, ImportReport, import_people


def import_file(
    parts: Container,
    source: Path,
    *,
    by: Actor,
    now: datetime,
    name: str,
    options: ImportOptions,
    rejects: Path | None,
    progress: Callable[[int, float], None],
) -> ImportReport:
    """Import subscribers from a file, in many transactions; the audit entry comes last.

    ``rejects`` is where the rejected rows are written. A run that writes nothing (a dry run, or
    one with open questions) has no audit entry. Raises UserError for a file that is unreadable.
    """
    report = import_people(
        parts.database,
        source,
        address_key=parts.address_key,
        now=now,
        name=name,
        options=options,
        rejects=rejects,
        progress=progress,
    )
    if report.written:
        with transaction(parts.database) as session:
            audit.record(
                session,
                by,
                "file imported",
                now=now,
                subject=name,
                added=report.added,
                updated=report.updated,
                rejected=report.rejected,
                topics=", ".join(options.topics),
                vouched_for=options.confirmed,
                wording=options.wording,
            )
    return report
