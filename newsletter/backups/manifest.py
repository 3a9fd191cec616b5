"""The manifest of a backup: what the backup is of, who can read it, and its files' checksums.

It has a fingerprint of the address key, never a key.
"""

import hashlib
import re
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newsletter.errors import BackupError

FILE: Final = "manifest.json"
UPLOADS: Final = "uploads"
#: The version of this format. A program refuses a backup of a newer one.
FORMAT: Final = 1
#: Kind of database → the name of its copy.
DATABASE_FILE: Final = {"sqlite": "database.sqlite", "postgresql": "database.dump"}

_Name = Annotated[
    str,
    Field(
        pattern=r"^(database\.sqlite|database\.dump|uploads/[0-9]{1,19}\.(upload|rejects\.csv))$"
    ),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class BackupFile(_Part):
    """A file of the backup."""

    name: _Name
    size: int
    sha256: str


class LogPosition(_Part):
    """A departure log, as far as the database knew it at the time of the backup."""

    id: str
    host: str
    compared: int


class Manifest(_Part):
    """The manifest."""

    format: int
    #: The version of the program that made the backup.
    program: str
    #: The version of the database's tables.
    schema_version: str
    made_at: datetime
    kind: Literal["sqlite", "postgresql"]
    #: The id of the database; its copies have the same.
    database: str
    #: A fingerprint of the key; None if the database had none yet.
    address_key: str | None
    #: The major version of pg_dump; None for SQLite.
    dumped_by: int | None
    departure_logs: list[LogPosition]
    files: list[BackupFile]
    #: Imports whose uploaded files were not on the machine that made the backup.
    missing_uploads: list[int]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class _Versions(BaseModel):
    format: int
    program: str


def program_version() -> str:
    """The version of this program."""
    return version("newsletter")


def read(backup: Path) -> Manifest:
    """Read the manifest. BackupError if this is no backup, or one of a newer program."""
    try:
        text = (backup / FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BackupError(
            f"this is no backup: it has no {FILE}",
            place=str(backup),
            hint="Name a folder that `newsletter backup` made: newsletter-20261201T070000Z.",
        ) from None
    except OSError as error:
        raise BackupError(f"cannot be read: {error.strerror}", place=str(backup / FILE)) from None
    try:
        # Read first: of a newer format nothing else is known.
        _require_not_newer(_Versions.model_validate_json(text), backup)
        return Manifest.model_validate_json(text)
    except ValidationError:
        raise _damaged(backup, f"{FILE} is not what the command wrote") from None


def _require_not_newer(made_by: _Versions, backup: Path) -> None:
    if made_by.format > FORMAT or _numbers(made_by.program) > _numbers(program_version()):
        raise BackupError(
            f"the backup was made by version {made_by.program} of newsletter, and this is "
            f"{program_version()}",
            place=str(backup),
            hint=f"Restore it with version {made_by.program} or a later one.",
        )


def _numbers(program: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", program)[:3]]


def verify(backup: Path, manifest: Manifest) -> None:
    """Raise BackupError unless every file is as it was when the backup was made."""
    if DATABASE_FILE[manifest.kind] not in {file.name for file in manifest.files}:
        raise _damaged(backup, "it lacks the copy of the database")
    for file in manifest.files:
        try:
            found = describe(backup, file.name)
        except OSError as error:
            raise _damaged(backup, f"{file.name}: {error.strerror}") from None
        if found != file:
            raise _damaged(backup, f"{file.name} has another size or checksum than it had")


def describe(backup: Path, name: str) -> BackupFile:
    """The size and checksum of a file of the backup."""
    with (backup / name).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        return BackupFile(name=name, size=content.tell(), sha256=digest)


def _damaged(backup: Path, why: str) -> BackupError:
    return BackupError(
        f"the backup is damaged: {why}", place=str(backup), hint="Use another backup."
    )
