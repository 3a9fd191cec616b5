"""The folder of uploaded lists: on one machine, each file under the number of its row.

What a client calls its file never becomes a part of a path.
"""

import secrets
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from newsletter.db import private_files
from newsletter.errors import MachineError
from newsletter.numbers import whole_number


class UploadStore:
    """Where uploaded files lie until they are imported, and rejects until they are old."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def upload(self, job_id: int) -> Path:
        """The uploaded file."""
        return self.folder / f"{job_id}.upload"

    def rejects(self, job_id: int) -> Path:
        """Rows that were not taken, as CSV."""
        return self.folder / f"{job_id}.rejects.csv"

    def part(self) -> Path:
        """Where an upload goes that is under way."""
        try:
            private_files.make_folder(self.folder)
        except OSError as error:
            raise MachineError(
                f"the folder for uploads cannot be made: {error.strerror}",
                place="imports.folder",
                hint="Name a folder that this user can write to, on a disk of this machine.",
            ) from None
        return self.folder / f"{secrets.token_hex(8)}.part"

    def has(self, job_id: int) -> bool:
        """Whether the upload lies here: it may lie on another machine."""
        return self.upload(job_id).exists()

    def drop(self, job_id: int, *, rejects: bool = True) -> None:
        """Delete what there is of a list."""
        self.upload(job_id).unlink(missing_ok=True)
        if rejects:
            self.rejects(job_id).unlink(missing_ok=True)

    def strays(self, known: Collection[int], *, before: datetime) -> Iterator[Path]:
        """Files older than that which belong to nothing: of uploads that broke off."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            number, _, kind = path.name.partition(".")
            belongs = whole_number(number) in known
            ours = kind == "part" or (kind in {"upload", "rejects.csv"} and not belongs)
            if ours and path.stat().st_mtime < before.timestamp():
                yield path
