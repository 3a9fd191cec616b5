"""The public archive: the issues that everyone can read on the web.

An issue is published when a send of it is sent and at least one batch was accepted. So the
archive shows no issue that recipients still wait for, and none whose send was cancelled. A
published issue is public if its front matter or an operator says so. Without such a setting it
is public once a send has gone to all subscribers, or to all of a topic: an issue to a smaller
segment is private. The archive keeps the text of the first such send. An A/B test shows the
winner, or the first variant while there is no winner.
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
from newsletter.sending.models import Batch, Delivery, Send, Variant
from newsletter.sending.states import BatchState
from subscribers.segments import parser as segment_parser

_issue, _revision = table_of(Issue), table_of(Revision)
_send, _variant, _batch = table_of(Send), table_of(Variant), table_of(Batch)
_delivery = table_of(Delivery)
#: Issues with the revision that was sent; later revisions are not approved.
_SENT = _issue.join(_send, _send.c.id == _issue.c.published_send).join(
    _revision, _revision.c.id == _send.c.revision_id
)
_PUBLIC = _issue.c.archive.is_(True), _issue.c.published_at.is_not(None)


@dataclass(frozen=True, slots=True)
class PublishedIssue:
    """An issue in the archive, with the title and description that were sent."""

    slug: str
    series: str
    title: str
    #: The preheader without personal values; may be empty.
    description: str
    created_at: datetime
    published_at: datetime


@dataclass(frozen=True, slots=True)
class ArchivedEmail:
    """A published issue with the HTML part that was sent; its merge tags are not filled in."""

    issue: PublishedIssue
    html: str
    placeholders: Placeholders


@dataclass(frozen=True, slots=True)
class ArchiveFilter:
    """Filters issues by series and by publication time in [``since``, ``until``)."""

    series: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def is_for_all(
    segments: Sequence[str], *, excluded: Sequence[str], topics: Collection[str]
) -> bool:
    """Whether a send goes to all subscribers, or to all who chose one of its topics.

    ``segments`` and ``excluded`` are segment expressions; ``topics`` are the issue's slugs.
    """
    covered = (segment_parser.covered_topics(rule) for rule in segments)
    wholes = [whole for whole in covered if whole is not None]
    if excluded or not wholes:
        return False
    chosen = frozenset().union(*wholes)
    return frozenset() in wholes or not topics or bool(chosen & frozenset(topics))


def will_be_public(archive: bool | None, *, to_all: bool) -> bool:  # noqa: FBT001
    """Whether an issue will be in the archive once it is sent, as far as is known now.

    ``archive`` is the setting of the issue or the operator, if any; ``to_all`` is the result
    of ``is_for_all``.
    """
    return to_all if archive is None else archive


def publish(session: Session, send_id: int, *, now: datetime) -> None:
    """Mark the issue of a sent send as published, if any of its batches was accepted."""
    was_accepted = exists(
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
        .where(of_send, _issue.c.published_at.is_(None), was_accepted)
        .values(published_at=now, published_send=send_id)
    )
    if is_for_all(
        [one["expression"] for one in send.segments],
        excluded=[one["expression"] for one in send.excluded],
        topics=send.topics,
    ):
        # An issue that went to a smaller segment before becomes public, with this send's text.
        session.execute(
            update(_issue)
            .where(of_send, _issue.c.archive_set.is_(False), was_accepted)
            .values(archive=True, archive_set=True, published_at=now, published_send=send_id)
        )


def latest_issues(
    session: Session, choice: ArchiveFilter = ArchiveFilter(), *, limit: int, skip: int = 0
) -> Sequence[PublishedIssue]:
    """Issues of the archive, the newest first."""
    query = _select_public(choice).order_by(_issue.c.published_at.desc(), _issue.c.id.desc())
    return [_published(row) for row in session.execute(query.limit(limit).offset(skip))]


def find_published(session: Session, slug: str) -> ArchivedEmail | None:
    """The public issue of this slug with its HTML; None if there is none."""
    if "\0" in slug:  # PostgreSQL refuses this character.
        return None
    query = (
        _select_public(ArchiveFilter()).add_columns(_variant.c.html).where(_issue.c.slug == slug)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    return ArchivedEmail(_published(row), row.html, Placeholders.from_json(row.placeholders))


def list_series(session: Session) -> Sequence[str]:
    """The series with issues in the archive."""
    name = _revision.c.series
    query = select(name).select_from(_SENT).where(*_PUBLIC)
    return session.scalars(query.distinct().order_by(name)).all()


def publication_range(session: Session) -> tuple[datetime, datetime] | None:
    """When the first and the last issue of the archive were published; None while it is empty."""
    moments = func.min(_issue.c.published_at), func.max(_issue.c.published_at)
    first, last = session.execute(select(*moments).where(*_PUBLIC)).one()
    return None if first is None else (first, last)


def _select_public(choice: ArchiveFilter) -> Select[Any]:
    label = func.coalesce(_send.c.winner, LABELS[0])
    query = (
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
        .join(_variant, (_variant.c.send_id == _send.c.id) & (_variant.c.label == label))
        .where(*_PUBLIC)
    )
    if choice.series is not None:
        query = query.where(_revision.c.series == choice.series)
    if choice.since is not None:
        query = query.where(_issue.c.published_at >= choice.since)
    if choice.until is not None:
        query = query.where(_issue.c.published_at < choice.until)
    return query


def _published(row: Row[Any]) -> PublishedIssue:
    title, description = row.title, row.description
    if row.label != LABELS[0]:
        # The revision has the title of the first variant; of another one use the subject.
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


def slug_of(session: Session, issue_id: int) -> str | None:
    """The slug of an issue; None if there is no issue with this id."""
    return session.scalar(select(_issue.c.slug).where(_issue.c.id == issue_id))


def variant_of(session: Session, issue_id: int, subscriber_id: int) -> int | None:
    """The id of the variant that a subscriber was sent; None if it is no longer stored."""
    return session.scalar(
        select(_variant.c.id)
        .join(_batch, _batch.c.variant_id == _variant.c.id)
        .join(
            _delivery,
            (_delivery.c.send_id == _batch.c.send_id) & (_delivery.c.batch == _batch.c.number),
        )
        .where(_delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == subscriber_id)
    )


def variant_content(session: Session, variant_id: int) -> Row[Any] | None:
    """The HTML, placeholders and issue title of a variant; None if it is no longer stored."""
    return session.execute(
        select(_variant.c.html, _variant.c.placeholders, _issue.c.title)
        .join(_send, _send.c.id == _variant.c.send_id)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .where(_variant.c.id == variant_id)
    ).one_or_none()
