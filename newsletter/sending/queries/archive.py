"""What of what was sent everybody may read.

An issue is published when a send of it is sent and somebody got it, so nobody reads on the
web what readers still wait for, nor what an operator stopped. It is public if it says so
itself, or an operator does. Where nobody has said anything, it is once a send has gone to the
whole publication, or to a topic as a whole: a letter to a few is theirs. The first such send
stays: what was public once does not change. A test shows the words of its winner, or of the
first variant as long as there is none.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, exists, func, select, update

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue, Revision
from newsletter.rendering.placeholders import Placeholders, fill
from newsletter.sending.ab_testing import LABELS
from newsletter.sending.models import Batch, Send, Variant
from newsletter.sending.states import BatchState
from subscribers.segments import parser as segment_parser

_issue, _revision = table_of(Issue), table_of(Revision)
_send, _variant, _batch = table_of(Send), table_of(Variant), table_of(Batch)
#: Issues with the revision that was sent: what was edited since, nobody has approved.
_SENT = _issue.join(_send, _send.c.id == _issue.c.published_send).join(
    _revision, _revision.c.id == _send.c.revision_id
)
_PUBLIC = _issue.c.archive.is_(True), _issue.c.published_at.is_not(None)


@dataclass(frozen=True, slots=True)
class PublishedIssue:
    """An issue in the archive, with the words that were sent."""

    slug: str
    series: str
    title: str
    #: The preheader, speaking to nobody in particular; may be empty.
    description: str
    created_at: datetime
    published_at: datetime


@dataclass(frozen=True, slots=True)
class ArchivedEmail:
    """A published issue with the HTML part that its readers got, tags still in it."""

    issue: PublishedIssue
    html: str
    placeholders: Placeholders


@dataclass(frozen=True, slots=True)
class ArchiveFilter:
    """Which issues are wanted: of one series, and published in [``since``, ``until``)."""

    series: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def is_for_all(
    segments: Sequence[str], *, excluded: Sequence[str], topics: Collection[str]
) -> bool:
    """Whether a send goes to the whole publication, or to topics as a whole.

    ``segments`` and ``excluded`` are the rules of both, ``topics`` the slugs of the issue's.
    """
    covered = (segment_parser.covered_topics(rule) for rule in segments)
    wholes = [whole for whole in covered if whole is not None]
    if excluded or not wholes:
        return False
    chosen = frozenset().union(*wholes)
    return frozenset() in wholes or not topics or bool(chosen & frozenset(topics))


def will_be_public(archive: bool | None, *, to_all: bool) -> bool:  # noqa: FBT001
    """Whether an issue stands in the archive once it is sent, as far as is known now.

    ``archive`` is what it says itself or an operator has said, ``to_all`` as of ``is_for_all``.
    """
    return to_all if archive is None else archive


def publish(session: Session, send_id: int, *, now: datetime) -> None:
    """Note that the issue of this send, which is sent, is with its readers."""
    somebody = exists(
        select(1).where(_batch.c.send_id == send_id, _batch.c.state == BatchState.ACCEPTED)
    )
    send = session.execute(
        select(_send.c.issue_id, _send.c.segments, _send.c.excluded, _send.c.topics).where(
            _send.c.id == send_id
        )
    ).one()
    of_send = _issue.c.id == send.issue_id
    session.execute(
        update(_issue)
        .where(of_send, _issue.c.published_at.is_(None), somebody)
        .values(published_at=now, published_send=send_id)
    )
    if is_for_all(
        [one["expression"] for one in send.segments],
        excluded=[one["expression"] for one in send.excluded],
        topics=send.topics,
    ):
        # What went to a few before is public from now on, with the words that all got.
        session.execute(
            update(_issue)
            .where(of_send, _issue.c.archive_said.is_(False), somebody)
            .values(archive=True, archive_said=True, published_at=now, published_send=send_id)
        )


def latest(
    session: Session, choice: ArchiveFilter = ArchiveFilter(), *, limit: int, skip: int = 0
) -> Sequence[PublishedIssue]:
    """Issues of the archive, the youngest first."""
    wanted = _wanted(choice).order_by(_issue.c.published_at.desc(), _issue.c.id.desc())
    return [_published(row) for row in session.execute(wanted.limit(limit).offset(skip))]


def find(session: Session, slug: str) -> ArchivedEmail | None:
    """The issue of that slug with its words, if everybody may read it."""
    if "\0" in slug:  # PostgreSQL knows no such character.
        return None
    wanted = _wanted(ArchiveFilter()).add_columns(_variant.c.html).where(_issue.c.slug == slug)
    row = session.execute(wanted).one_or_none()
    if row is None:
        return None
    return ArchivedEmail(_published(row), row.html, Placeholders.from_json(row.placeholders))


def series(session: Session) -> Sequence[str]:
    """The series of which something is in the archive."""
    name = _revision.c.series
    wanted = select(name).select_from(_SENT).where(*_PUBLIC)
    return session.scalars(wanted.distinct().order_by(name)).all()


def span(session: Session) -> tuple[datetime, datetime] | None:
    """When the first and the last issue of the archive were published; None while it is empty."""
    moments = func.min(_issue.c.published_at), func.max(_issue.c.published_at)
    first, last = session.execute(select(*moments).where(*_PUBLIC)).one()
    return None if first is None else (first, last)


def _wanted(choice: ArchiveFilter) -> Select[Any]:
    shown = func.coalesce(_send.c.winner, LABELS[0])
    wanted = (
        select(
            _issue.c.slug,
            _issue.c.created_at,
            _issue.c.published_at,
            _revision.c.series,
            _revision.c.title,
            _revision.c.description,
            _variant.c.label,
            _variant.c.subject,
            _variant.c.placeholders,
        )
        .select_from(_SENT)
        .join(_variant, (_variant.c.send_id == _send.c.id) & (_variant.c.label == shown))
        .where(*_PUBLIC)
    )
    if choice.series is not None:
        wanted = wanted.where(_revision.c.series == choice.series)
    if choice.since is not None:
        wanted = wanted.where(_issue.c.published_at >= choice.since)
    if choice.until is not None:
        wanted = wanted.where(_issue.c.published_at < choice.until)
    return wanted


def _published(row: Row[Any]) -> PublishedIssue:
    title, description = row.title, row.description
    if row.label != LABELS[0]:
        # The revision holds the first variant's words. Others are known by their subject.
        values = Placeholders.from_json(row.placeholders).substitutions({}, "")
        title, description = fill(row.subject, values), ""
    return PublishedIssue(
        slug=row.slug,
        series=row.series,
        title=title,
        description=description,
        created_at=row.created_at,
        published_at=row.published_at,
    )
