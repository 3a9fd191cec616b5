"""Issues kept in the database: each text stored is frozen, and an edit makes another.

Whoever saves names the revision that they started from. When somebody else was faster
the save is refused, and the refused text comes back with the refusal.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select

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


#: Whoever sits at the terminal, and did not say who they are.
COMMAND_LINE = Actor(None, "command line")


class StaleRevisionError(IssueError):
    """Somebody else stored a revision meanwhile; ``text`` is what was not stored."""

    def __init__(self, message: str, *, place: str, hint: str, text: str, latest: int) -> None:
        super().__init__(message, place=place, hint=hint)
        self.text = text
        self.latest = latest


@dataclass(frozen=True, slots=True)
class Saved:
    """An issue and its latest revision; ``is_new`` unless the text was that already."""

    issue: Issue
    revision: Revision
    is_new: bool


def save(
    session: Session, draft: Draft, *, by: Actor, now: datetime, base: int | None = None
) -> Saved:
    """Store this text as the latest of its issue, which makes a draft of the issue.

    ``base`` is the number of the revision that the text was made from, 0 for a new issue;
    without one it replaces whatever is the latest. Raises StaleRevisionError when another
    has become the latest since.
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
        return Saved(issue, last, is_new=False)
    number = last.number if last else 0
    if base is not None and base != number:
        raise StaleRevisionError(
            f"{last.author or 'somebody'} stored revision {number} since"
            if last
            else f"there is no revision {base}",
            place=f"issue {draft.slug}",
            hint=f"Your text is not stored. Look at revision {number}, and put yours into it.",
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
    # What the public reads is not put there by an edit that nobody has approved.
    if draft.archive is not None and (not draft.archive or issue.published_at is None):
        issue.archive, issue.archive_said = draft.archive, True
    session.flush()
    return Saved(issue, revision, is_new=True)


def _locked_or_new(session: Session, draft: Draft, now: datetime) -> Issue:
    """The issue of that slug, which nobody else writes before this transaction ends."""
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
        "archive_said": False,
    }
    # Somebody may be storing it at the same time.
    session.execute(insert_into(session, _issue).values(new).on_conflict_do_nothing())
    return find(session, draft.slug, lock=True)


def _of_slug(slug: str, *, lock: bool) -> Select[Issue]:
    wanted = select(Issue).where(_issue.c.slug == slug)
    if lock:
        wanted = wanted.with_for_update().execution_options(populate_existing=True)
    return wanted


def _description(draft: Draft) -> str:
    words = merge_fields.replace(
        draft.preheader, lambda placeholder: placeholder.default, name=draft.name, line=1
    )
    return " ".join(words.split())[:300]


def find(session: Session, slug: str, *, lock: bool = False) -> Issue:
    """The issue of that slug; IssueError when there is none.

    With ``lock`` nobody else changes it before this transaction ends.
    """
    # PostgreSQL knows no such character.
    issue = None if "\0" in slug else session.scalar(_of_slug(slug, lock=lock))
    if issue is None:
        raise IssueError(
            "there is no such issue",
            place=f"issue {slug}",
            hint="See newsletter issue list; newsletter issue store FILE stores one.",
        )
    return issue


def revisions(session: Session, issue: Issue) -> Sequence[Revision]:
    """Every text of an issue, the latest first."""
    return session.scalars(
        select(Revision).where(_revision.c.issue_id == issue.id).order_by(_revision.c.number.desc())
    ).all()


def revision_of(session: Session, issue: Issue, number: int | None = None) -> Revision:
    """The revision of that number, or the latest; IssueError when there is none."""
    wanted = select(Revision).where(_revision.c.issue_id == issue.id)
    if number is not None:
        # Of a number that no column can hold the databases complain, each in its way.
        wanted = wanted.where(_revision.c.number == (number if number < 2**31 else 0))
    found = session.scalar(wanted.order_by(_revision.c.number.desc()).limit(1))
    if found is None:
        raise IssueError(f"there is no revision {number}", place=f"issue {issue.slug}")
    return found


def draft_of(session: Session, revision: Revision) -> Draft:
    """What was stored, read once more."""
    slug = session.execute(
        select(_issue.c.slug).where(_issue.c.id == revision.issue_id)
    ).scalar_one()
    return draft_from(slug, revision.source)


def draft_from(slug: str, source: str) -> Draft:
    """The draft in a stored text. Where it names no slug itself, the file's name had given it."""
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
    """The latest issues, those that changed last first.

    Each of the ``words`` has to stand in the title or the slug, in whatever case.
    """
    wanted = select(Issue).order_by(_issue.c.since.desc(), _issue.c.id.desc())
    if series is not None:
        wanted = wanted.where(_issue.c.series == series)
    if state is not None:
        wanted = wanted.where(_issue.c.state == state)
    # PostgreSQL knows no such character, so that it stands nowhere.
    for word in words.replace("\0", "\ufffd").split():
        wanted = wanted.where(
            _issue.c.title.icontains(word, autoescape=True)
            | _issue.c.slug.icontains(word, autoescape=True)
        )
    return session.scalars(wanted.limit(limit).offset(offset)).all()


def series(session: Session) -> Sequence[str]:
    """Every series that an issue belongs to."""
    return session.scalars(select(_issue.c.series).distinct().order_by(_issue.c.series)).all()


def switch_archive(session: Session, slug: str, *, on: bool, by: Actor, now: datetime) -> Issue:
    """Let an issue into the public archive, or take it out; IssueError when there is none.

    One that was not sent yet appears there once it is.
    """
    issue = find(session, slug, lock=True)
    if issue.publicity is not on:
        issue.archive, issue.archive_said = on, True
        session.flush()
        what = "issue put into the archive" if on else "issue taken out of the archive"
        audit.record(session, by, what, now=now, subject=slug)
    return issue
