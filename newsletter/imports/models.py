"""The table of import jobs: one row for each uploaded file, from the upload to the report."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index, text

from newsletter.db.orm import Field, Id, Json, Model, one_of


class JobState(StrEnum):
    """The state of an import job."""

    #: Waits for the dry run.
    UPLOADED = "uploaded"
    #: The dry run is running; it changes nothing.
    CHECKING = "checking"
    #: Waits for an operator to start it after reading the dry run's report.
    CHECKED = "checked"
    #: Waits for a worker.
    QUEUED = "queued"
    #: The import is running.
    RUNNING = "running"
    #: All valid rows are imported.
    DONE = "done"
    #: The file could not be read, or an error occurred.
    FAILED = "failed"
    #: An operator stopped it, or nobody started it for a long time.
    STOPPED = "stopped"


#: States that wait for a worker → the running state; running states → the state afterwards.
WAITING = {JobState.UPLOADED: JobState.CHECKING, JobState.QUEUED: JobState.RUNNING}
UNDER_WAY = {JobState.CHECKING: JobState.CHECKED, JobState.RUNNING: JobState.DONE}
OVER = frozenset({JobState.DONE, JobState.FAILED, JobState.STOPPED})


class ImportJob(Model, table=True):
    """The import of one uploaded file. The file is in a folder of one machine, named by the id."""

    __tablename__ = "import_job"
    __table_args__ = (
        one_of("state", JobState),
        # The few unfinished jobs; each worker queries them after each commit.
        Index(
            "ix_import_job_open",
            "id",
            sqlite_where=text("state NOT IN ('done', 'failed', 'stopped')"),
            postgresql_where=text("state NOT IN ('done', 'failed', 'stopped')"),
        ),
    )

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: The name of the file: ``import:NAME`` becomes the source of its subscribers.
    name: str = Field(max_length=200)
    #: Bytes.
    size: int = Field(sa_type=Id)
    state: str = Field(default=JobState.UPLOADED, max_length=10)
    #: The operator's options: topics, wording, confirmed, update, and how the file is read.
    options: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: The ImportReport of the dry run, and of the import, as JSON.
    found: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    report: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Why it failed or was stopped, and what to do.
    problem: str = Field(default="", max_length=1000)
    hint: str = Field(default="", max_length=1000)
    #: Rows read so far, and the share of the file in thousandths.
    rows: int = 0
    progress: int = 0
    #: The email address of the user who uploaded it.
    made_by: str = Field(max_length=320)
    made_at: datetime
    finished_at: datetime | None = None
    #: The worker that runs it, and the end of its lease: then another worker may claim it.
    worker: str = Field(default="", max_length=100)
    alive_until: datetime | None = None
    #: How often it was restarted because the service stopped.
    interruptions: int = 0
    stop_asked: bool = False
