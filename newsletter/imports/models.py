"""Tables of lists that were uploaded: one row for each, from the upload to its report."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index, text

from newsletter.db.orm import Field, Id, Json, Model, one_of


class JobState(StrEnum):
    """What an uploaded list is waiting for, or has come to."""

    #: Waits for the dry run.
    UPLOADED = "uploaded"
    #: The dry run is under way: nothing is changed.
    CHECKING = "checking"
    #: Waits for an operator who has read what the dry run found.
    CHECKED = "checked"
    #: Waits for its turn.
    QUEUED = "queued"
    #: People are being taken over.
    RUNNING = "running"
    #: All that could be taken was taken.
    DONE = "done"
    #: It could not be read, or something broke.
    FAILED = "failed"
    #: An operator stopped it, or nobody started it for long.
    STOPPED = "stopped"


#: Waiting for the background, and what each becomes there and afterwards.
WAITING = {JobState.UPLOADED: JobState.CHECKING, JobState.QUEUED: JobState.RUNNING}
UNDER_WAY = {JobState.CHECKING: JobState.CHECKED, JobState.RUNNING: JobState.DONE}
OVER = frozenset({JobState.DONE, JobState.FAILED, JobState.STOPPED})


class ImportJob(Model, table=True):
    """One uploaded list. Its file lies in a folder of one machine, under the row's number."""

    __tablename__ = "import_job"
    __table_args__ = (
        one_of("state", JobState),
        # The few that are not over; everybody with a background looks for them each second.
        Index(
            "ix_import_job_open",
            "id",
            sqlite_where=text("state NOT IN ('done', 'failed', 'stopped')"),
            postgresql_where=text("state NOT IN ('done', 'failed', 'stopped')"),
        ),
    )

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: What the file was called: ``import:NAME`` is its people's source.
    name: str = Field(max_length=200)
    #: Bytes.
    size: int = Field(sa_type=Id)
    state: str = Field(default=JobState.UPLOADED, max_length=10)
    #: Topics, wording, confirmed, update: what the operator chose; and how it is read.
    options: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: What the dry run found, and what came of the import, as JSON of ImportReport.
    found: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    report: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Why it failed or was stopped, and what to do about it.
    problem: str = Field(default="", max_length=1000)
    hint: str = Field(default="", max_length=1000)
    #: Rows read so far, and the part of the file, in thousandths.
    rows: int = 0
    progress: int = 0
    #: Who uploaded it: a user's address.
    made_by: str = Field(max_length=320)
    made_at: datetime
    finished_at: datetime | None = None
    #: The process that has it in hands; when that is silent for long, another may take it.
    worker: str = Field(default="", max_length=100)
    alive_until: datetime | None = None
    #: How often the service stopped in the midst of it, so that it began again.
    interruptions: int = 0
    stop_asked: bool = False
