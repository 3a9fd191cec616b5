"""Counts the recipients of a planned send once, for all checks of the audience."""

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
    """The audience of a plan, and how many recipients lack each value."""

    counted: AudienceCounts
    #: Placeholder's name → recipients without this value.
    lacking: Mapping[str, int]

    @property
    def number(self) -> int:
        """The number of recipients."""
        return self.counted.people

    @property
    def excluded_counts(self) -> Mapping[str, int]:
        """Reason → excluded subscribers of the segments."""
        return self.counted.excluded_counts


def count_audience(
    session: Session,
    draft: Draft,
    *,
    segment_names: Sequence[str],
    excluded_names: Sequence[str],
    values: Sequence[str],
    split: bool,
    now: datetime,
) -> AudienceStats:
    """Count the recipients in these segments as a send would, and those without each value.

    ``values`` are names of placeholders; ``split`` counts each time zone. It runs one statement
    for any number of subscribers. Raises SegmentError for an unknown segment.
    """
    audience = SendAudience(
        segments=[segment_store.find(session, name).expression for name in segment_names],
        excluded=[segment_store.find(session, name).expression for name in excluded_names],
        topics=draft.topics,
        issue_id=session.scalar(select(_issue.c.id).where(_issue.c.slug == draft.slug)),
    )
    counted = count(
        session, audience, now=now, split=split, conditions=[_lacks(name, now) for name in values]
    )
    return AudienceStats(counted, dict(zip(values, counted.matching, strict=True)))


def _lacks(name: str, now: datetime) -> ColumnElement[bool]:
    """Whether a subscriber has no value for the placeholder of this name."""
    if name == "name":
        return segment_parser.condition('name == ""', now=now)
    # The grammar of placeholders allows no character in a key that could end the quoted text.
    key = name.removeprefix("attributes.")
    rule = f'not has("{key}") or attribute("{key}") == ""'
    return segment_parser.condition(rule, now=now)
