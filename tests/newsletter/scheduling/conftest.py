"""Schedules, their issues, and what a clock makes sends with."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from newsletter.checking.checker import Checker
from newsletter.checking.rules import load_rules
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import next_run, schedules, trigger
from newsletter.scheduling.models import ScheduleRun
from newsletter.scheduling.prepared_issue import IssueRenderer
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.scheduling.trigger import RunResult
from newsletter.settings.load import resource
from subscribers.segments import store as segment_store
from tests.conftest import NOW
from tests.newsletter.sending.conftest import PUBLICATION, five

__all__ = ["five"]

TEXT = (
    "---\nsubject: Number {number}\nslug: {slug}\nseries: {series}\n---\n\n"
    "Good day, {{{{ name }}}}.\n"
)


RULES = load_rules(resource("config") / "checks.toml", None)
RENDERER = IssueRenderer(
    Checker(PUBLICATION, resource("templates/email"), RULES),
    late_limit=timedelta(hours=6),
    batch_size=1000,
)


@pytest.fixture
def everybody(database: Engine, five: list[int]) -> str:
    """The name of a segment of five people."""
    with transaction(database) as session:
        return segment_store.save(session, "everybody", "", now=NOW).name


def make_schedule(
    database: Engine,
    name: str = "weekly",
    rule: str = "daily 07:00",
    zone: str = "UTC",
    *,
    series: str = "letter",
    to: Sequence[str] = ("everybody",),
    now: datetime = NOW,
    **more: Any,
) -> int:
    wanted = ScheduleOptions(name, series, rule, zone, to, **more)
    with transaction(database) as session:
        return schedules.create(session, wanted, by=COMMAND_LINE, now=now).id


def approve(database: Engine, slug: str, *, series: str = "letter", now: datetime = NOW) -> None:
    """Store an issue of this series, and approve it."""
    text = TEXT.format(number=slug, slug=slug, series=series)
    with transaction(database) as session:
        store.save(session, parse_issue(text, name=f"{slug}.md"), by=COMMAND_LINE, now=now)
        approval.request(session, slug, by=COMMAND_LINE, now=now)
        approval.approve(session, slug, revision=1, by=COMMAND_LINE, now=now)


def tick(database: Engine, now: datetime, renderer: IssueRenderer = RENDERER) -> list[RunResult]:
    """What the clock does each second."""
    fired = []
    with reading(database) as session:
        due = next_run.due(session, now=now)
    for schedule_id in due:
        with transaction(database) as session:
            fired += trigger.run_schedule(session, schedule_id, renderer, now=now)
    return fired


def rows(database: Engine, schedule_id: int) -> list[tuple[datetime, str, str, int | None]]:
    """Due time, outcome, reason and send of each firing, in order."""
    table = table_of(ScheduleRun)
    with reading(database) as session:
        found = session.execute(
            select(table.c.due_at, table.c.outcome, table.c.reason, table.c.send_id)
            .where(table.c.schedule_id == schedule_id)
            .order_by(table.c.due_at)
        )
        return [tuple(row) for row in found]
