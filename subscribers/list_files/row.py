"""One subscriber of an imported file, or one rejected row.

Every reader of a file yields ``Row`` and ``RejectedRow``, nothing else.
"""

from datetime import datetime
from typing import Any, NamedTuple

from subscribers.list_files.status_words import SUBSCRIBED


class ConsentGiven(NamedTuple):
    """A consent record, as our own export has it."""

    at: datetime
    act: str
    source: str
    wording: str
    ip: str | None
    user_agent: str | None


class ExportedState(NamedTuple):
    """The fields of a subscriber that only our own export has."""

    paused_until: datetime | None
    last_open_at: datetime | None
    last_click_at: datetime | None
    evidence: str
    consents: tuple[ConsentGiven, ...]


class Row(NamedTuple):
    """A subscriber in a file. ``status`` is SUBSCRIBED, UNCONFIRMED or one of LEAVING."""

    line: int
    email: str
    name: str
    attributes: dict[str, Any]
    language: str | None = None
    timezone: str | None = None
    #: Topics by slug or name. With create_topics, missing ones are created.
    topics: tuple[str, ...] = ()
    #: Tags of another system; one is a topic only if a topic of that slug or name exists.
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    confirmed_at: datetime | None = None
    status: str = SUBSCRIBED
    status_at: datetime | None = None
    source: str = ""
    #: The network address of the opt-in.
    ip: str | None = None
    exported: ExportedState | None = None


class RejectedRow(NamedTuple):
    """Lines of a file that cannot be imported, as they are in the file."""

    line: int
    reason: str
    text: str
