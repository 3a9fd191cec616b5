"""What a schedule sends is rendered before its transaction, and what keeps that from being done."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from newsletter.db.engine import transaction
from newsletter.errors import BusyError, MachineError, UserError
from newsletter.issues import approval
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import tasks
from newsletter.text_workers import TooMuchWorkError
from tests.conftest import NOW
from tests.newsletter.scheduling.conftest import RENDERER, approve, make_schedule, rows
from tests.newsletter.scheduling.test_leader_clock import task_context

#: Seven o'clock of the day after NOW, which is seven itself.
SEVEN = NOW + timedelta(days=1)
LATE = SEVEN + RENDERER.late_limit + timedelta(minutes=1)


def failing(error: UserError) -> Callable[..., Any]:
    def text_workers(*_args: object, **_named: object) -> Any:
        raise error

    return text_workers


def tick(database, now, text_workers: Callable[..., Any] | None = None) -> None:
    tasks.run_due_schedules(
        task_context(database, replace(RENDERER, text_workers=text_workers)), now=now
    )


@pytest.mark.parametrize("error", [BusyError("stopping"), MachineError("no memory")])
def test_what_is_not_the_issues_fault_is_tried_again_until_it_is_too_late(
    database, everybody, error: UserError
) -> None:
    approve(database, "first")
    schedule = make_schedule(database)
    tick(database, SEVEN, failing(error))
    assert rows(database, schedule) == []
    tick(database, SEVEN + timedelta(seconds=1))
    [(due, outcome, _, send)] = rows(database, schedule)
    assert (due, outcome, send) == (SEVEN, "sent", 1)
    approve(database, "second")
    tick(database, LATE + timedelta(days=1), failing(error))
    assert [outcome for _, outcome, _, _ in rows(database, schedule)] == ["sent", "missed"]


def test_a_text_that_takes_too_long_is_not_sent_and_the_reason_is_said(database, everybody) -> None:
    approve(database, "first")
    schedule = make_schedule(database)
    error = TooMuchWorkError("this text takes longer than 20 seconds", hint="Shorten it.")
    tick(database, SEVEN, failing(error))
    [(_, outcome, reason, send)] = rows(database, schedule)
    assert (outcome, send) == ("failed", None)
    assert reason == "issue first: this text takes longer than 20 seconds. Shorten it."


def test_what_became_the_next_meanwhile_is_prepared_anew(database, everybody) -> None:
    approve(database, "first")
    approve(database, "second", now=NOW + timedelta(minutes=1))
    schedule = make_schedule(database)
    examined = []

    def text_workers(function: Callable[..., Any], text: str, *, name: str) -> Any:
        if not examined:
            # The first goes back to its author while it is being rendered.
            with transaction(database) as session:
                approval.return_to_draft(session, "first", by=COMMAND_LINE, now=NOW, note="not yet")
        examined.append(name)
        return function(text, name=name)

    tick(database, SEVEN, text_workers)
    assert rows(database, schedule) == []
    tick(database, SEVEN + timedelta(seconds=1), text_workers)
    assert examined == ["first.md", "second.md"]
    assert [(outcome, send) for _, outcome, _, send in rows(database, schedule)] == [("sent", 1)]
