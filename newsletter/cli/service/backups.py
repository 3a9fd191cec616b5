"""`newsletter backup` and `newsletter restore`."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from newsletter.backups import restore as restoring
from newsletter.backups.manifest import Manifest
from newsletter.backups.take import take
from newsletter.cli.output import err, out, rows
from newsletter.container import Container
from newsletter.db.engine import beside, is_missing_file, open_database
from newsletter.errors import DatabaseError, SettingsError
from newsletter.settings.load import load

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def backup(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Where backups are kept; created if it is missing. Default: backup.folder.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Delete this database's older backups in the folder, all but so many.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back up the database and the uploaded lists while the service runs.

    Each backup is a new folder, named by its time, which only this user can read. It appears when
    it is complete, checked and on the disk. The keys are not in it: keep them apart
    (docs/guides/backup-and-restore.md).
    """
    settings = load()
    url = settings.database_url
    if folder is None:
        if not settings.backup.folder:
            raise SettingsError(
                "no folder for backups is set",
                place="backup.folder",
                hint="Name one: `newsletter backup FOLDER`, or set backup.folder.",
            )
        folder = beside(url, settings.backup.folder)
    if is_missing_file(url):
        raise DatabaseError("there is no database", place=f"database_url: {url}")
    engine = open_database(url)
    try:
        made = take(engine, folder, Container(settings).uploads, now=datetime.now(UTC), keep=keep)
    finally:
        engine.dispose()
    if as_json:
        record = {**_record(made.path, made.manifest), "deleted": [str(p) for p in made.deleted]}
        rows([record], [], as_json=True, empty="")
    else:
        out.print(f"{made.path}: {made.manifest.size:,} bytes, checked.")
        if made.deleted:
            err.print(f"{len(made.deleted):,} older deleted.")
    if missing := made.manifest.missing_uploads:
        err.print(
            f"The files of {len(missing):,} unfinished imports are not on this machine, and not "
            "in the backup."
        )


def restore(
    path: Annotated[Path, typer.Argument(metavar="BACKUP", help="The folder of one backup.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An empty database. Default: database_url.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty database.

    Stop the service first. A backup that is damaged, of a newer program or made with another
    address key is refused, and so is a database with tables; nothing is written then. Uploaded
    lists go back into imports.folder. Nothing is sent before the departure logs are compared,
    which `newsletter serve` does when it starts.
    """
    settings = load({**os.environ, "NEWSLETTER_DATABASE_URL": to}) if to else load()
    container = Container(settings)
    manifest = restoring.restore(
        path, settings.database_url, container.uploads, lambda: container.address_key
    )
    if as_json:
        rows([_record(path, manifest)], [], as_json=True, empty="")
        return
    out.print(
        f"Restored: the database of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC, and "
        f"{len(manifest.files) - 1:,} files of imports."
    )
    err.print(
        "Next: `newsletter departures compare` shows what left since then, on each machine that "
        "sends. `newsletter serve` does the same when it starts."
    )


def _record(path: Path, manifest: Manifest) -> dict[str, object]:
    return {"backup": str(path), "bytes": manifest.size, **manifest.model_dump(mode="json")}
