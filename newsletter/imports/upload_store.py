"""The folder of uploaded list files on this machine, each named by the id of its job.

A client's file name never becomes part of a path.
"""

import secrets
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from newsletter.db import private_files
from newsletter.errors import MachineError
from newsletter.numbers import whole_number


class UploadStore:
    """Stores uploaded files until they are imported, and reject files until they expire."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def upload(self, job_id: int) -> Path:
        """The uploaded file."""
        return self.folder / f"{job_id}.upload"

    def rejects(self, job_id: int) -> Path:
        """The reject file: rejected rows as CSV."""
        return self.folder / f"{job_id}.rejects.csv"

    def part(self) -> Path:
        """A path for an upload in progress; creates the folder."""
        try:
            private_files.make_folder(self.folder)
        except OSError as error:
            raise MachineError(
                f"the folder for uploads cannot be created: {error.strerror}",
                place="imports.folder",
                hint="Set a folder on this machine that this user can write to.",
            ) from None
        return self.folder / f"{secrets.token_hex(8)}.part"

    def has(self, job_id: int) -> bool:
        """Whether the uploaded file is on this machine; it may be on another one."""
        return self.upload(job_id).exists()

    def drop(self, job_id: int, *, rejects: bool = True) -> None:
        """Delete the files of a job."""
        self.upload(job_id).unlink(missing_ok=True)
        if rejects:
            self.rejects(job_id).unlink(missing_ok=True)

    def stored(self) -> Iterator[tuple[int, Path]]:
        """The files of all jobs on this machine, each with the id of its job."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            number, _, kind = path.name.partition(".")
            job = whole_number(number)
            if job is not None and kind in {"upload", "rejects.csv"}:
                yield job, path

    def strays(self, known: Collection[int], *, before: datetime) -> Iterator[Path]:
        """Older files that belong to no job, for example of interrupted uploads."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            number, _, kind = path.name.partition(".")
            belongs = whole_number(number) in known
            ours = kind == "part" or (kind in {"upload", "rejects.csv"} and not belongs)
            if ours and path.stat().st_mtime < before.timestamp():
                yield path
