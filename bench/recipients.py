"""Lists of who opened and clicked in a send of a million deliveries, and segments of them.

Prints the milliseconds of the slowest of the first, middle and last page of each list, the seconds
and the memory that its CSV takes, and the milliseconds to count a segment of the same recipients.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import ColumnElement, Engine, case, cast, insert, literal, select, text
from sqlalchemy.types import Text

from bench import setup
from bench.report import peak_memory, table
from newsletter.container import Container
from newsletter.db.engine import reading, transaction, upgrade
from newsletter.db.orm import table_of
from newsletter.sending.models import Delivery, Send, Variant
from newsletter.settings.load import load
from newsletter.tracking.models import RecipientCounter, VariantCounter
from newsletter.tracking.stats import csv_tables, recipient_actions
from newsletter.tracking.stats.recipient_actions import RecipientAction
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store

_person, _send, _variant = table_of(Subscriber), table_of(Send), table_of(Variant)
_delivery, _action = table_of(Delivery), table_of(RecipientCounter)
_LINK, _RARE = "https://example.com/1", "https://example.com/rare"
LISTS = (
    (RecipientAction.OPENED, "", 'opened("letter-1")'),
    (RecipientAction.CLICKED, "", 'clicked("letter-1")'),
    (RecipientAction.CLICKED, _LINK, f'clicked("letter-1", url="{_LINK}")'),
    (RecipientAction.CLICKED, _RARE, f'clicked("letter-1", url="{_RARE}")'),
    (RecipientAction.NOT_OPENED, "", 'received("letter-1") and not opened("letter-1")'),
    (RecipientAction.BOUNCED, "", ""),
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.recipients", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    for kind in options.database:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            with setup.database(kind, path) as url:
                container = Container(load(setup.environment(url, path)))
                upgrade(container.database)
                send = fill(container, options.people)
                run(container.database, send, options.people, kind)
                container.database.dispose()


def fill(container: Container, people: int) -> Send:
    """A send to everybody: 40 % opened, 10 % clicked, 1 % bounced, five clicked a rare link."""
    setup.fill(container, people)
    now = datetime.now(UTC)
    number = setup.make_send(container, "letter-1", at=now)
    with transaction(container.database) as session:
        row = session.execute(select(_send).where(_send.c.id == number)).one()._asdict()
        words = session.execute(select(_variant).where(_variant.c.send_id == number)).one()
        session.execute(_variant.delete())
        session.execute(_send.delete())
        began = now - timedelta(hours=1)
        ended = {"state": "sent", "started_at": began, "finished_at": now, "planned": people}
        session.execute(insert(_send), [row | ended])
        session.execute(insert(_variant), [words._asdict()])
        person = _person.c.id
        issue = literal(row["issue_id"])
        bounced = person % 100 == 0
        deliveries = select(
            *(issue, person, literal(number), (person - 1) // 1000 + 1),
            case((bounced, "bounced"), else_="delivered"),
            case((bounced, "550 5.1.1 no such user here"), else_=None),
        )
        columns = ["issue_id", "subscriber_id", "send_id", "batch", "state", "reason"]
        session.execute(insert(_delivery).from_select(columns, deliveries))
        to_link = literal("https://example.com/").concat(cast(person // 10 % 40, Text))
        for what, link, who in (
            ("people_bounced", literal(""), bounced),
            ("opened", literal(""), ~bounced & (person % 5 < 2)),
            ("clicked", literal(""), ~bounced & (person % 10 == 1)),
            ("clicked", to_link, ~bounced & (person % 10 == 1)),
            ("clicked", literal(_RARE), person % (people // 5) == 11),
        ):
            _count(session.execute, number, what, link, who)
        parts = [{"value": value} for value in (_LINK, _RARE)]
        same = {"send_id": number, "part": "link", "what": "clicked", "count": 1}
        session.execute(insert(table_of(VariantCounter)), [same | part for part in parts])
    with transaction(container.database) as session:
        session.execute(text("ANALYZE"))
    with reading(container.database) as session:
        send = session.get_one(Send, number)
        session.expunge(send)
    return send


def _count(
    execute: Callable[..., object],
    send: int,
    what: str,
    link: ColumnElement[str],
    who: ColumnElement[bool],
) -> None:
    domain = literal("example.com")
    rows = select(literal(send), _person.c.id, literal(what), domain, link, literal(1)).where(who)
    columns = ["send_id", "subscriber_id", "what", "domain", "link", "count"]
    execute(insert(_action).from_select(columns, rows))


def run(engine: Engine, send: Send, people: int, kind: str) -> None:
    """Measure and print."""
    rows = []
    for action, link, rule in LISTS:
        pages = [
            _milliseconds(partial(_page, engine, send, action, link, start))
            for start in (0, people // 2, people - 200)
        ]
        began, size, before = time.perf_counter(), 0, peak_memory()
        everyone = recipient_actions.everyone(engine, send, action, link=link)
        for lines in csv_tables.recipients(everyone):
            size += lines.count("\n")
        took = time.perf_counter() - began
        counted: object = "–"
        if rule:
            counted = _milliseconds(partial(_segment, engine, rule))
        label = f"{action} {link.rpartition('/')[2]}"
        rows.append([label, size - 1, max(pages), took, peak_memory() - before, counted])
    columns = ["list", "recipients", "page, ms", "CSV, s", "CSV, MB more", "segment, ms"]
    table(f"Recipients of a send of {people:,} deliveries, {kind}", columns, rows)


def _page(engine: Engine, send: Send, action: RecipientAction, link: str, after: int) -> None:
    with reading(engine) as session:
        recipient_actions.page(session, send, action, link=link, after=after, limit=101)


def _segment(engine: Engine, rule: str) -> None:
    with reading(engine) as session:
        segment_store.count(session, rule, now=datetime.now(UTC))


def _milliseconds(measured: Callable[[], None]) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        measured()
        best = min(best, time.perf_counter() - began)
    return best * 1000


if __name__ == "__main__":
    main()
