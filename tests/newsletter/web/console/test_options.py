"""Every option of `newsletter send`, `schedule create` and `sends pace` has a field in the console.

The options are read from the command line itself, and the fields from the pages: a new option
without a field fails here.
"""

import re
from collections.abc import Mapping

import pytest
import typer.main

from newsletter.accounts.models import Role
from newsletter.cli.main import application
from newsletter.db.engine import transaction
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.scheduling.conftest import approve
from tests.newsletter.web.conftest import Office

#: Options of how fast a send leaves → fields.
PACE = {
    "--rate": "rate",
    "--per-hour": "per_hour",
    "--per-day": "per_day",
    "--quiet": "quiet",
    "--window": "windows",
}
TRACKING = {"--clicks": "clicks", "--opens": "opens"}
#: Command → its page, and the field of each argument and option.
FIELDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "send": (
        "/console/sends/new",
        PACE
        | TRACKING
        | {
            "issue": "issue",
            "--segment": "segment",
            "--except": "excluded",
            "--at": "at",
            "--local-time": "local_time",
            "--subject": "subjects",
            "--variant": "variant",
            "--sample": "sample",
            "--winner": "winner",
            "--after": "after",
            "--same-issue": "same_issue",
            "--despite-findings": "despite_findings",
        },
    ),
    "schedule create": (
        "/console/schedules/new",
        PACE
        | TRACKING
        | {
            "name": "name",
            "--series": "series",
            "--when": "when",
            "--segment": "segments",
            "--except": "excluded",
            "--zone": "zone",
            "--own-clock": "own_clock",
            "--skip": "skips",
            # The field takes what a file of days has.
            "--skip-file": "skips",
        },
    ),
    "schedule change": (
        "/console/schedules/1/edit",
        PACE
        | TRACKING
        | {
            # The page is of this schedule.
            "name": "number",
            "--name": "name",
            "--series": "series",
            "--when": "when",
            "--segment": "segments",
            "--except": "excluded",
            "--zone": "zone",
            "--own-clock": "own_clock",
        },
    ),
    # The page is of this send.
    "sends pace": ("/console/sends/1", PACE | {"number": "csrf"}),
}


def options(command: str) -> set[str]:
    """The arguments and options of a command, each by its first name."""
    one = typer.main.get_command(application())
    for word in command.split():
        one = one.commands[word]  # type: ignore[attr-defined]
    return {
        parameter.opts[0] if parameter.opts[0].startswith("-") else str(parameter.name)
        for parameter in one.params
        if parameter.name != "help"
    }


@pytest.mark.parametrize("command", FIELDS)
def test_every_option_has_a_field(office: Office, command: str) -> None:
    path, fields = FIELDS[command]
    assert options(command) == set(fields), "an option has no entry in the table, or none any more"
    approver = office.signed_in(Role.APPROVER)
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    for slug in ("spring", "winter"):
        approve(office.parts.database, slug)
    schedule = {"name": "weekly", "series": "letter", "when": "daily 07:00", "zone": "UTC"}
    approver.post("/console/schedules", **schedule, segments="everybody")
    send = {"issue": "spring", "segment": "everybody", "when": "at", "at": "2099-01-01T07:00"}
    approver.post("/console/sends/new", **send, revision="1", latest="", step="send")
    page = approver.get(path)
    assert page.status_code == 200
    there = set(re.findall(r'<(?:input|textarea|select)[^>]* name="([^"]+)"', page.text))
    assert set(fields.values()) <= there
