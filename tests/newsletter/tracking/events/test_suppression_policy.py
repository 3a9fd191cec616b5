"""The policy's table: total, documented, and what each of its lines does to soft bounces."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from newsletter.provider.events import Event, EventKind, parse
from newsletter.tracking.events.suppression_policy import TABLE, Effects, case_of, effects_of
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, sent, suppressed, take

__all__ = ["five", "sent"]

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "events.md"
DAY = 86400
CLASSES = [
    "Invalid Address",
    "Unclassified",
    "Mailbox Unavailable",
    "Technical",
    "Content",
    "Reputation",
    "Frequency or Volume Too High",
]


def case(**fields: Any) -> str:
    entry = {"event": "bounce", "timestamp": 1, "email": "a@b.example", **fields}
    (event,) = parse(json.dumps([entry]).encode())
    assert isinstance(event, Event)
    assert effects_of(event) == TABLE[case_of(event)]
    return case_of(event)


def test_the_page_shows_the_table() -> None:
    rows = re.findall(
        r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.M
    )

    def shown(one: Effects) -> tuple[str, ...]:
        when = "after several" if one.soft else "at once"
        of_person = (one.suppress, one.scope, when) if one.suppress else ("–", "–", "–")
        return (one.delivery or "–", *of_person)

    assert {name: tuple(cells) for name, *cells in rows} == {
        name: shown(one) for name, one in TABLE.items()
    }
    assert len(rows) == len(TABLE)


def test_every_bounce_has_a_line_however_it_is_spelt() -> None:
    reached = set()
    words = [*CLASSES, "technical failure", "MAILBOX  UNAVAILABLE", "something new", ""]
    for kind, word, status in itertools.product(
        ["bounce", "blocked", "expired", "something new", ""],
        words,
        ["4.2.2", "5.1.1", "5.2.2", "5.7.1", "5.4.1", ""],
    ):
        reached.add(case(type=kind, bounce_classification=word, status=status))
    assert reached == {
        name for name in TABLE if name.split(":")[0] in {"bounce", "blocked", "expired"}
    }


def test_every_other_kind_has_a_line() -> None:
    kinds = set(EventKind) - {EventKind.BOUNCE, EventKind.BLOCKED, EventKind.DROPPED}
    assert {case(event=kind.value) for kind in kinds} == {str(kind) for kind in kinds}
    assert case(event="cancel_drop") == "other"


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("Bounced Address", "Bounced Address"),
        ("bounced address", "Bounced Address"),
        ("Invalid", "Invalid"),
        ("Invalid SMTPAPI header", "Invalid SMTPAPI header"),
        ("Invalid From", "another reason"),
        ("Spam Content (if Spam Checker app is enabled)", "Spam Content"),
        ("Spam Reporting Address", "Spam Reporting Address"),
        ("Unsubscribed Address", "Unsubscribed Address"),
        ("Recipient List over Package Quota", "Recipient List over Package Quota"),
        ("", "another reason"),
    ],
)
def test_each_reason_of_a_drop_has_a_line(reason: str, line: str) -> None:
    assert case(event="dropped", reason=reason) == f"dropped: {line}"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"status": "4.2.2"}, "bounce: Unclassified, 4.x.x"),
        ({"reason": "452 4.2.2 mailbox full"}, "bounce: Unclassified, 4.x.x"),
        ({"reason": "4.2.2 mailbox full"}, "bounce: Unclassified, 4.x.x"),
        ({"status": "5.1.1", "reason": "452 try later"}, "bounce: Unclassified, 5.1.x"),
        ({"status": "5.1.10"}, "bounce: Unclassified, 5.1.x"),
        ({"status": "5.1.8"}, "bounce: Unclassified, another status"),
        ({"status": "5.2.2"}, "bounce: Unclassified, 5.2.x"),
        ({"reason": "552 5.2.2 over quota"}, "bounce: Unclassified, 5.2.x"),
        ({"reason": "552 over quota"}, "bounce: Unclassified, 5.2.x"),
        ({"reason": "550-5.7.1 [192.0.2.5] blocked by policy"}, "bounce: Unclassified, 5.7.x"),
        ({"status": "5.4.1"}, "bounce: Unclassified, another status"),
        ({"reason": "554 transaction failed"}, "bounce: Unclassified, another status"),
        ({"reason": "550 no such user"}, "bounce: Unclassified"),
        ({"reason": "550 from 5.1.2.7 refused"}, "bounce: Unclassified"),
        ({"status": "5.0.0"}, "bounce: Unclassified"),
        ({"status": "5.2.2", "type": "blocked"}, "blocked: Unclassified"),
        ({"reason": "4 letters"}, "bounce: Unclassified"),
        ({"reason": "45200 is my number"}, "bounce: Unclassified"),
        (
            {"bounce_classification": "Invalid Address", "status": "4.1.1"},
            "bounce: Invalid Address",
        ),
    ],
)
def test_a_status_decides_only_what_has_no_class(fields: dict[str, str], line: str) -> None:
    assert case(**fields) == line


def soft(send: int, person: int, day: float, **more: Any) -> dict[str, Any]:
    fields = {"bounce_classification": "Mailbox Unavailable", "reason": "452 full", **more}
    return entry(send, person, "bounce", at=1774594800 + int(day * DAY), **fields)


@pytest.mark.slow
def test_soft_bounces_suppress_when_there_are_enough_of_them_in_any_order(
    database: Engine, sent: int, five: list[int]
) -> None:
    for day in (30, 7, 0, 14):
        take(database, soft(sent, five[0], day), soft(sent, five[0], day, sg_event_id="again"))
    assert suppressed(database) == {}
    # A delivery in between forgives none, and another person's are another person's.
    take(database, entry(sent, five[0], "delivered"), soft(sent, five[1], 1))
    assert suppressed(database) == {}
    take(database, soft(sent, five[0], 21))
    assert suppressed(database) == {"p1@example.org": "bounced"}


def test_soft_bounces_further_apart_than_the_limit_suppress_nobody(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, *(soft(sent, five[0], 8 * n) for n in range(9)))
    assert suppressed(database) == {}
    take(database, soft(sent, five[0], 61))
    assert suppressed(database) == {"p1@example.org": "bounced"}


def test_blocks_never_suppress_but_those_of_the_mailbox_do(
    database: Engine, sent: int, five: list[int]
) -> None:
    for name in CLASSES[1:]:
        if name != "Mailbox Unavailable":
            take(
                database,
                *(
                    soft(sent, five[0], n, type="blocked", bounce_classification=name)
                    for n in range(6)
                ),
            )
    assert suppressed(database) == {}
    take(database, *(soft(sent, five[0], 10 + n, type="blocked") for n in range(5)))
    assert suppressed(database) == {"p1@example.org": "bounced"}


def test_only_the_person_takes_a_suppression_back(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, entry(sent, five[0], "group_unsubscribe", asm_group_id=7))
    take(database, entry(sent, five[0], "group_resubscribe", at=1774599999, asm_group_id=7))
    take(database, entry(sent, five[0], "delivered", at=1774599999))
    assert suppressed(database) == {"p1@example.org": "unsubscribed"}
