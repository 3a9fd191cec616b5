"""Who would get the issue: one look at the audience, by set, for all checks that ask of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select

from newsletter.issues.models import Issue
from newsletter.issues.reading import Draft
from newsletter.sending.audience import Audience
from subscribers import expression, segments
from subscribers.schema import Session, table_of

_issue = table_of(Issue)


@dataclass(frozen=True, slots=True)
class People:
    """The audience of a plan: how many get it, who not and why, and who of them lacks what."""

    audience: Audience
    number: int
    left_out: Mapping[str, int]
    #: Placeholder's name → people who would get the issue without such a value.
    lacking: Mapping[str, int]


def look_at(
    session: Session,
    draft: Draft,
    *,
    segment_names: Sequence[str],
    excluded_names: Sequence[str],
    values: Sequence[str],
    now: datetime,
) -> People:
    """Count the people of these segments as a send would, and those without each of ``values``.

    ``values`` are placeholders' names. One statement, however many they are. Raises
    SegmentError for a segment that there is not.
    """
    audience = Audience(
        segments=[segments.find(session, name).expression for name in segment_names],
        excluded=[segments.find(session, name).expression for name in excluded_names],
        topics=draft.topics,
        issue_id=session.scalar(select(_issue.c.id).where(_issue.c.slug == draft.slug)),
    )
    reason = audience.reasons(now).label("reason")
    counts = [func.count().filter(_lacks(name, now)) for name in values]
    rows = session.execute(
        select(reason, func.count(), *counts)
        .select_from(segments.PEOPLE)
        .where(audience.meant(now))
        .group_by(reason)
    ).all()
    left_out = {row[0]: row[1] for row in rows if row[0] is not None}
    number, *lacking = next((row[1:] for row in rows if row[0] is None), (0,) * (len(values) + 1))
    return People(audience, number, left_out, dict(zip(values, lacking, strict=True)))


def _lacks(name: str, now: datetime) -> ColumnElement[bool]:
    """Whether a person's placeholder of this name is filled with nothing."""
    if name == "name":
        return expression.condition('name == ""', now=now)
    # The grammar of placeholders lets nothing into a key that could end the text.
    key = name.removeprefix("attributes.")
    rule = f'not has("{key}") or attribute("{key}") == ""'
    return expression.condition(rule, now=now)
