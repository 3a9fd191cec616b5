"""What rules may ask about past issues: who received one, opened it, or clicked in it.

Only what is known is answered. An issue that was not sent, that was not tracked, or whose data is
deleted, has a refusal, because the condition would silently select nobody (or, negated, everybody).
This package may not import the models of the publication, so it names the columns that it reads.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, column, exists, func, or_, select, table

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, table_of
from subscribers.models import Subscriber
from subscribers.segments.fields import person

_issue = table("issue", column("id"), column("slug"))
_send = table(
    "send",
    *(column(name) for name in ("id", "issue_id", "created_at", "started_at", "summarized_at")),
    *(column(name) for name in ("track_clicks", "track_opens")),
)
_variant = table("variant", column("send_id"), column("html"), column("text"))
_delivery = table("delivery", column("issue_id"), column("subscriber_id"), column("state"))
_forgotten = table("forgotten_send", column("slug"))
_horizon = table("event_horizon", column("before"))
_part = table("variant_counter", *(column(name) for name in ("send_id", "part", "value")))
_action = table(
    "recipient_counter",
    *(column(name) for name in ("send_id", "subscriber_id", "what", "link", "count")),
)

#: States of deliveries that the provider accepted and that did not fail since.
_RECEIVED = ("accepted", "delivered", "complained")
_SUGGESTIONS = 100
#: Links are stored up to this length.
_MAX_LINK = 500


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a function cannot be answered for an issue."""

    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class PastIssue:
    """An issue, its sends that started, and what cannot be answered about it."""

    id: int
    sends: Sequence[int] = ()
    #: Function (``received``, ``opened`` or ``clicked``) → why it cannot be answered.
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    #: Of the links that the rules name, those that the issue has.
    links: Collection[str] = ()
    #: Links to suggest for others.
    clicked_links: Collection[str] = ()

    def received(self) -> ColumnElement[bool]:
        """The subscriber got this issue."""
        return exists(
            select(1)
            .where(
                _delivery.c.issue_id == self.id,
                _delivery.c.subscriber_id == person.id,
                _delivery.c.state.in_(_RECEIVED),
            )
            .correlate(table_of(Subscriber))
        )

    def did(self, what: str, link: str = "") -> ColumnElement[bool]:
        """The subscriber opened or clicked, as the figures count it: without machines."""
        return exists(
            select(1)
            .where(
                _action.c.send_id.in_(self.sends),
                _action.c.subscriber_id == person.id,
                _action.c.what == what,
                _action.c.link == link[:_MAX_LINK],
                _action.c.count > 0,
            )
            .correlate(table_of(Subscriber))
        )


@dataclass(frozen=True, slots=True)
class PastIssues:
    """The issues that rules name."""

    by_slug: Mapping[str, PastIssue] = field(default_factory=dict)
    #: Slugs to suggest for an unknown one.
    suggestions: Collection[str] = ()


def read(
    session: Session, slugs: Collection[str], links: Collection[tuple[str, str]] = ()
) -> PastIssues:
    """The issues with these slugs, and which of these (slug, address) links they have."""
    if not slugs:
        return PastIssues()
    rows = session.execute(select(_issue.c.id, _issue.c.slug).where(_issue.c.slug.in_(slugs)))
    found = {
        row.slug: _read(session, row.id, row.slug, [url for slug, url in links if slug == row.slug])
        for row in rows.all()
    }
    if found.keys() >= set(slugs):
        return PastIssues(found)
    latest = select(_issue.c.slug).order_by(_issue.c.id.desc()).limit(_SUGGESTIONS)
    return PastIssues(found, session.scalars(latest).all())


def _read(session: Session, issue_id: int, slug: str, urls: Collection[str]) -> PastIssue:
    deleted_before = select(_horizon.c.before).limit(1).scalar_subquery()
    began = func.coalesce(_send.c.started_at, _send.c.created_at)
    rows = session.execute(
        select(
            *(_send.c.id, _send.c.track_clicks, _send.c.track_opens),
            _send.c.summarized_at.is_not(None).label("summarized"),
            (began < deleted_before).label("final"),
        )
        .where(_send.c.issue_id == issue_id, _send.c.started_at.is_not(None))
        .order_by(_send.c.id)
    ).all()
    sends = [row.id for row in rows]
    is_lost = session.scalar(select(exists(select(1).where(_forgotten.c.slug == slug))))
    quoted = f"the issue “{slug}”"

    def refusal(of: str, untracked: Sequence[int], *, is_deleted: bool) -> Refusal | None:
        if not sends:
            return Refusal(f"{quoted} has not been sent yet")
        if untracked:
            numbers = ", ".join(map(str, untracked))
            return Refusal(
                f"{of} of {quoted} were not measured", f"Send {numbers} did not track {of}."
            )
        if is_deleted:
            return Refusal(
                f"the {of} of {quoted} are deleted",
                "Their retention time is over. The totals of its sends remain.",
            )
        if is_lost:
            return Refusal(
                f"the {of} of {quoted} are not all known",
                "The database was restored after one of its sends.",
            )
        return None

    is_final = any(row.final for row in rows)
    answers = {
        "received": refusal("recipients", (), is_deleted=any(row.summarized for row in rows)),
        "opened": refusal(
            "opens", [row.id for row in rows if not row.track_opens], is_deleted=is_final
        ),
        "clicked": refusal(
            "clicks", [row.id for row in rows if not row.track_clicks], is_deleted=is_final
        ),
    }
    refusals = {name: why for name, why in answers.items() if why is not None}
    known = {url for url in urls if _has_link(session, sends, url)}
    clicked: Sequence[str] = ()
    if len(known) < len(urls):
        values = select(_part.c.value).where(_part.c.send_id.in_(sends), _part.c.part == "link")
        clicked = session.scalars(values.distinct().limit(_SUGGESTIONS)).all()
    return PastIssue(issue_id, sends, refusals, known, clicked)


def _has_link(session: Session, sends: Sequence[int], url: str) -> bool:
    """Whether the link was clicked in these sends, or is in their text."""
    was_clicked = exists(
        select(1).where(
            _part.c.send_id.in_(sends), _part.c.part == "link", _part.c.value == url[:_MAX_LINK]
        )
    )
    position = func.strpos if is_postgresql(session) else func.instr
    html = url.replace("&", "&amp;")
    in_text = exists(
        select(1).where(
            _variant.c.send_id.in_(sends),
            or_(position(_variant.c.text, url) > 0, position(_variant.c.html, html) > 0),
        )
    )
    return bool(url) and bool(session.scalar(select(was_clicked | in_text)))
