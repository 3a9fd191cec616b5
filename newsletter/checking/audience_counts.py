"""Who would get the issue: one look at the audience, by set, for all checks that ask of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.issues.parsing.issue_file import Draft
from newsletter.sending.planning.audience import AudienceCounts, SendAudience, count
from subscribers.segments import parser as segment_parser
from subscribers.segments import store as segment_store

_issue = table_of(Issue)


@dataclass(frozen=True, slots=True)
class AudienceStats:
    """The audience of a plan, and who of those who get it lacks what."""

    counted: AudienceCounts
    #: Placeholder's name → people who would get the issue without such a value.
    lacking: Mapping[str, int]

    @property
    def number(self) -> int:
        """How many get it."""
        return self.counted.people

    @property
    def excluded_counts(self) -> Mapping[str, int]:
        """Reason → people of the segments who do not get it."""
        return self.counted.excluded_counts


def look_at(
    session: Session,
    draft: Draft,
    *,
    segment_names: Sequence[str],
    excluded_names: Sequence[str],
    values: Sequence[str],
    split: bool,
    now: datetime,
) -> AudienceStats:
    """Count the people of these segments as a send would, and those without each of ``values``.

    ``values`` are placeholders' names; ``split`` tells time zones apart. One statement, however
    many they are. Raises SegmentError for a segment that there is not.
    """
    audience = SendAudience(
        segments=[segment_store.find(session, name).expression for name in segment_names],
        excluded=[segment_store.find(session, name).expression for name in excluded_names],
        topics=draft.topics,
        issue_id=session.scalar(select(_issue.c.id).where(_issue.c.slug == draft.slug)),
    )
    counted = count(
        session, audience, now=now, split=split, also=[_lacks(name, now) for name in values]
    )
    return AudienceStats(counted, dict(zip(values, counted.also, strict=True)))


def _lacks(name: str, now: datetime) -> ColumnElement[bool]:
    """Whether a person's placeholder of this name is filled with nothing."""
    if name == "name":
        return segment_parser.condition('name == ""', now=now)
    # The grammar of placeholders lets nothing into a key that could end the text.
    key = name.removeprefix("attributes.")
    rule = f'not has("{key}") or attribute("{key}") == ""'
    return segment_parser.condition(rule, now=now)
