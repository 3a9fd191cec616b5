"""Saves and finds issues and their revisions. A revision never changes; an edit adds one.

A save names the revision that the text was based on. When another user saved a newer
revision meanwhile, the save is refused, and the error carries the text that was not saved.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.errors import IssueError
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing import merge_fields
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.issues.parsing.text import content_digest
from newsletter.issues.states import IssueState

_issue, _revision = table_of(Issue), table_of(Revision)


#: The actor of commands whose user did not give a name.
COMMAND_LINE = Actor(None, "command line")


class StaleRevisionError(IssueError):
    """Another user saved a newer revision; ``text`` is the text that was not saved."""

    def __init__(self, message: str, *, place: str, hint: str, text: str, latest: int) -> None:
        super().__init__(message, place=place, hint=hint)
        self.text = text
        self.latest = latest


@dataclass(frozen=True, slots=True)
class SavedRevision:
    """An issue and its latest revision; ``is_new`` is false when the text was saved before."""

    issue: Issue
    revision: Revision
    is_new: bool


def save(
    session: Session, draft: Draft, *, by: Actor, now: datetime, base: int | None = None
) -> SavedRevision:
    """Save a user's text (see ``add_revision``), with an audit entry unless it was saved before."""
    saved = add_revision(session, draft, by=by, now=now, base=base)
    if saved.is_new:
        audit.record(
            session, by, "issue saved", now=now, subject=draft.slug, revision=saved.revision.number
        )
    return saved


def add_revision(
    session: Session, draft: Draft, *, by: Actor, now: datetime, base: int | None = None
) -> SavedRevision:
    """Save this text as the latest revision of its issue. The issue becomes a draft.

    ``base`` is the number of the revision that the text is based on, 0 for a new issue; None
    replaces whatever is the latest. Raises StaleRevisionError when ``base`` is not the latest.
    """
    issue = _locked_or_new(session, draft, now)
    last = session.scalar(
        select(Revision)
        .where(_revision.c.issue_id == issue.id)
        .order_by(_revision.c.number.desc())
        .limit(1)
    )
    digest = hashlib.sha256(draft.source.encode()).hexdigest()
    if last is not None and last.digest == digest:
        return SavedRevision(issue, last, is_new=False)
    number = last.number if last else 0
    if base is not None and base != number:
        raise StaleRevisionError(
            f"{last.author or 'someone'} saved revision {number} meanwhile"
            if last
            else f"there is no revision {base}",
            place=f"issue {draft.slug}",
            hint=f"Your text is not saved. Merge it into revision {number}, then save again.",
            text=draft.source,
            latest=number,
        )
    revision = Revision(
        issue_id=issue.id,
        number=number + 1,
        source=draft.source,
        digest=digest,
        content=content_digest(draft.source),
        title=draft.title,
        series=draft.series,
        description=_description(draft),
        author=by.name,
        author_id=by.user_id,
        created_at=now,
    )
    session.add(revision)
    issue.title, issue.series = draft.title, draft.series
    issue.state, issue.since = IssueState.DRAFT, now
    # An unapproved edit may hide a published issue from the archive, but not add it there.
    if draft.archive is not None and (not draft.archive or issue.published_at is None):
        issue.archive, issue.archive_set = draft.archive, True
    session.flush()
    return SavedRevision(issue, revision, is_new=True)


def _locked_or_new(session: Session, draft: Draft, now: datetime) -> Issue:
    """The issue of this slug, locked until this transaction ends; inserted if it is new."""
    known = session.scalar(_of_slug(draft.slug, lock=True))
    if known is not None:
        return known
    new = {
        "slug": draft.slug,
        "title": draft.title,
        "series": draft.series,
        "state": IssueState.DRAFT,
        "since": now,
        "created_at": now,
        "archive": False,
        "archive_set": False,
    }
    # Another transaction may insert it at the same time.
    session.execute(insert_into(session, _issue).values(new).on_conflict_do_nothing())
    return find(session, draft.slug, lock=True)


def _of_slug(slug: str, *, lock: bool) -> Select[Issue]:
    query = select(Issue).where(_issue.c.slug == slug)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return query


def _description(draft: Draft) -> str:
    text = merge_fields.replace(
        draft.preheader, lambda placeholder: placeholder.default, name=draft.name, line=1
    )
    return " ".join(text.split())[:300]


def find(session: Session, slug: str, *, lock: bool = False) -> Issue:
    """The issue of this slug; IssueError when there is none.

    ``lock`` locks its row until this transaction ends.
    """
    # PostgreSQL stores no NUL in text and refuses it in a parameter.
    issue = None if "\0" in slug else session.scalar(_of_slug(slug, lock=lock))
    if issue is None:
        raise IssueError(
            "there is no such issue",
            place=f"issue {slug}",
            hint="The list of issues has all slugs. A new issue has to be saved first.",
        )
    return issue


def revisions(session: Session, issue: Issue) -> Sequence[Revision]:
    """All revisions of an issue, latest first."""
    return session.scalars(
        select(Revision).where(_revision.c.issue_id == issue.id).order_by(_revision.c.number.desc())
    ).all()


def revision_of(session: Session, issue: Issue, number: int | None = None) -> Revision:
    """The revision of this number, or the latest; IssueError when there is none."""
    query = select(Revision).where(_revision.c.issue_id == issue.id)
    if number is not None:
        # Databases raise errors for numbers that the column cannot hold; 0 matches no row.
        query = query.where(_revision.c.number == (number if number < 2**31 else 0))
    revision = session.scalar(query.order_by(_revision.c.number.desc()).limit(1))
    if revision is None:
        raise IssueError(f"there is no revision {number}", place=f"issue {issue.slug}")
    return revision


def draft_of(session: Session, revision: Revision) -> Draft:
    """The parsed text of a revision."""
    slug = session.execute(
        select(_issue.c.slug).where(_issue.c.id == revision.issue_id)
    ).scalar_one()
    return draft_from(slug, revision.source)


def draft_from(slug: str, source: str) -> Draft:
    """The draft in a saved text. A text without a slug gets it from the file name."""
    return parse_issue(source, name=f"{slug}.md")


def listed(
    session: Session,
    *,
    series: str | None = None,
    state: IssueState | None = None,
    words: str = "",
    limit: int = 100,
    offset: int = 0,
) -> Sequence[Issue]:
    """Issues, most recently changed first.

    Only issues whose title or slug contains each of the ``words``, in any letter case.
    """
    query = select(Issue).order_by(_issue.c.since.desc(), _issue.c.id.desc())
    if series is not None:
        query = query.where(_issue.c.series == series)
    if state is not None:
        query = query.where(_issue.c.state == state)
    # PostgreSQL refuses NUL in a parameter; no title contains the replacement character.
    for word in words.replace("\0", "\ufffd").split():
        query = query.where(
            _issue.c.title.icontains(word, autoescape=True)
            | _issue.c.slug.icontains(word, autoescape=True)
        )
    return session.scalars(query.limit(limit).offset(offset)).all()


def unsent_on(session: Session, topic: str) -> list[str]:
    """Slugs of the issues whose latest revision is on this topic and that were never sent."""
    every = _revision.alias()
    latest = (
        select(func.max(every.c.number)).where(every.c.issue_id == _issue.c.id).scalar_subquery()
    )
    rows = session.execute(
        select(_issue.c.slug, _revision.c.source)
        .join(_revision, _revision.c.issue_id == _issue.c.id)
        .where(
            _issue.c.published_at.is_(None),
            _revision.c.number == latest,
            _revision.c.source.contains(topic),
        )
        .order_by(_issue.c.slug)
    )
    return [row.slug for row in rows if topic in _topics_of(row.slug, row.source)]


def _topics_of(slug: str, source: str) -> Sequence[str]:
    try:
        return draft_from(slug, source).topics
    except IssueError:  # saved by another release, whose format allowed it
        return ()


def series(session: Session) -> Sequence[str]:
    """Every series that has an issue."""
    return session.scalars(select(_issue.c.series).distinct().order_by(_issue.c.series)).all()


def switch_archive(session: Session, slug: str, *, on: bool, by: Actor, now: datetime) -> Issue:
    """Show an issue in the public archive, or hide it; IssueError when there is none.

    An issue that was not sent yet appears in the archive once it is.
    """
    issue = find(session, slug, lock=True)
    if issue.publicity is not on:
        issue.archive, issue.archive_set = on, True
        session.flush()
        what = "issue put into the archive" if on else "issue taken out of the archive"
        audit.record(session, by, what, now=now, subject=slug)
    return issue
