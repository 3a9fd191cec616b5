"""Database tables of issues: the issue, its revisions, and the steps of its reviews."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint

from newsletter.db.orm import Field, Id, Model, one_of
from newsletter.issues.states import IssueState, Step


class Issue(Model, table=True):
    """One edition. The slug identifies it: a subscriber gets each slug at most once."""

    __tablename__ = "issue"
    __table_args__ = (one_of("state", IssueState), Index(None, "series", "state", "since"))

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    slug: str = Field(max_length=100, unique=True)
    #: The title of its latest revision.
    title: str = Field(max_length=300)
    #: The series of its latest revision. A schedule sends the next approved issue of a series.
    series: str = Field(default="letter", max_length=100)
    state: str = Field(default=IssueState.DRAFT, max_length=10)
    #: When it entered this state.
    since: datetime
    created_at: datetime
    #: Whether the public archive may show it after it was sent. This is set by the issue file or an
    #: operator; if by neither, the archive shows it after a send to all subscribers.
    archive: bool = False
    archive_set: bool = False
    #: When its first send with a recipient was sent; None before that.
    published_at: datetime | None = None
    #: The send whose text the archive shows. Not a foreign key, because sends refer to issues.
    published_send: int | None = Field(default=None, sa_type=Id)

    @property
    def publicity(self) -> bool | None:
        """Whether the public archive may show it; None if neither the file nor a user says so."""
        return self.archive if self.archive_set else None


class Revision(Model, table=True):
    """One saved text of an issue. It never changes: an edit saves another revision."""

    __tablename__ = "revision"
    __table_args__ = (UniqueConstraint("issue_id", "number"),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    issue_id: int = Field(sa_type=Id, foreign_key="issue.id")
    number: int
    #: The whole issue file, including the front matter.
    source: str
    #: SHA-256 of ``source`` in hex: saving the latest text again changes nothing.
    digest: str = Field(max_length=64)
    #: newsletter.issues.parsing.text.content_digest, which ignores the slug.
    content: str = Field(default="", max_length=64, index=True)
    title: str = Field(max_length=300)
    series: str = Field(default="letter", max_length=100)
    #: The preheader, with the placeholders' defaults filled in.
    description: str = Field(default="", max_length=300)
    #: Who saved it: a user's email address, or ``command line``.
    author: str = Field(default="", max_length=320)
    author_id: int | None = Field(default=None, sa_type=Id)
    created_at: datetime


class Review(Model, table=True):
    """One step of an issue's review. Rows are never deleted."""

    __tablename__ = "review"
    __table_args__ = (one_of("step", Step),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    issue_id: int = Field(sa_type=Id, foreign_key="issue.id", index=True)
    revision_id: int = Field(sa_type=Id, foreign_key="revision.id")
    step: str = Field(max_length=10)
    #: Who did it: a user's email address, or ``command line``.
    actor: str = Field(max_length=320)
    user_id: int | None = Field(default=None, sa_type=Id)
    note: str = Field(default="", max_length=2000)
    at: datetime
