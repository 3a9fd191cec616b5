"""Tables of the editions: an issue, and each text that it had."""

from datetime import datetime

from sqlalchemy import UniqueConstraint

from subscribers.schema import Field, Id, Model


class Issue(Model, table=True):
    """One edition. Its slug is its identity: the same slug never reaches a person twice."""

    __tablename__ = "issue"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    slug: str = Field(max_length=100, unique=True)
    title: str = Field(max_length=300)
    created_at: datetime


class Revision(Model, table=True):
    """One text of an issue, frozen by being stored: an edit makes another revision."""

    __tablename__ = "revision"
    __table_args__ = (UniqueConstraint("issue_id", "number"),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    issue_id: int = Field(sa_type=Id, foreign_key="issue.id")
    number: int
    #: The issue file as it was read, front matter and all.
    source: str
    #: SHA-256 of ``source`` in hex: the same text is the same revision.
    digest: str = Field(max_length=64)
    created_at: datetime
