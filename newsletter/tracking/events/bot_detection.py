"""Bot detection: tells opens and clicks by proxies and link scanners from those by subscribers.

Each of three signs is enough: SendGrid says so (``sg_machine_open``); the User-Agent is a
scanner's; several different links of one email were followed within seconds. All clicks together
decide about the last sign, in whatever order they come: when a later click shows that a scanner is
at work, the earlier ones were the scanner's, too. No event turns a bot's click back into a
subscriber's.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, select, update

from newsletter.db import bulk_rows
from newsletter.db.orm import Id, Session, table_of
from newsletter.provider.events import Event, EventKind
from newsletter.tracking.events.suppression_policy import Thresholds
from newsletter.tracking.models import EventRow

_event = table_of(EventRow)

#: Parts of the User-Agent of security products, link checkers and programs. The image proxies of
#: Gmail and Yahoo are not among them: they fetch when a subscriber opens the email.
SCANNERS: Final = (
    "barracuda",
    "bitdefender",
    "cisco-ironport",
    "fireeye",
    "forcepoint",
    "mimecast",
    "proofpoint",
    "safelinks",
    "sophos",
    "symantec",
    "trendmicro",
    "zscaler",
    "bot/",
    "crawler",
    "spider",
    "headlesschrome",
    "phantomjs",
    "curl/",
    "wget/",
    "go-http-client",
    "python-requests",
    "python-urllib",
    "apache-httpclient",
)
_OPENS_AND_CLICKS: Final = frozenset({EventKind.OPEN, EventKind.CLICK})
_SCANNER = re.compile("|".join(map(re.escape, SCANNERS)), re.IGNORECASE)


def by_machine(event: Event) -> bool:
    """Whether the event alone shows that a bot opened or clicked."""
    if event.kind not in _OPENS_AND_CLICKS:
        return False
    return event.by_machine or _is_scanner(event.agent)


@lru_cache(maxsize=10_000)  # a million subscribers have some hundred browsers
def _is_scanner(agent: str) -> bool:
    return bool(_SCANNER.search(agent))


def mark_scanned_clicks(
    session: Session, clicks: Collection[Event], rules: Thresholds
) -> list[Row[Any]]:
    """Mark the clicks that turn out to be a scanner's, stored ones included; returns their rows.

    ``clicks`` are new and stored already. The caller has locked the counters of their recipients
    (newsletter.tracking.stats.counters.CounterDelta), so no other process judges the same clicks
    at the same time.
    """
    readers = {
        (event.send_id, event.subscriber_id)
        for event in clicks
        if event.send_id is not None and event.subscriber_id is not None
    }
    if not readers:
        return []
    row = bulk_rows.table(session, send_id=Id, subscriber_id=Id)
    names = ("send_id", "subscriber_id")
    rows = [dict(zip(names, reader, strict=True)) for reader in sorted(readers)]
    same = and_(*(_event.c[name] == row.c[name] for name in names))
    # Only clicks near one of these can have become part of a burst.
    times = [event.at for event in clicks]
    stored = session.execute(
        select(
            *(_event.c[name] for name in (*names, "kind", "at", "key", "domain", "link")),
            _event.c.by_machine,
        )
        .join(row, same)
        .where(
            _event.c.kind == EventKind.CLICK,
            _event.c.at >= _shifted(min(times), -rules.scanner_seconds),
            _event.c.at <= _shifted(max(times), rules.scanner_seconds),
        )
        .order_by(*(_event.c[name] for name in (*names, "at", "key"))),
        bulk_rows.values(session, rows),
    )
    by_reader: defaultdict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
    for click in stored:
        by_reader[click.send_id, click.subscriber_id].append(click)
    scanned = [
        click
        for of_one in by_reader.values()
        for click in _bursts(of_one, rules)
        if not click.by_machine
    ]
    if scanned:
        session.connection().execute(
            update(_event)
            .where(_event.c.at == bindparam("of_at"), _event.c.key == bindparam("of_key"))
            .values(by_machine=True),
            [{"of_at": click.at, "of_key": click.key} for click in scanned],
        )
    return scanned


def _bursts(clicks: Sequence[Row[Any]], rules: Thresholds) -> Iterator[Row[Any]]:
    """The clicks in any window with at least ``rules.scanner_links`` different links.

    ``clicks`` are one recipient's, in order of time.
    """
    window: Counter[str] = Counter()
    end, marked = 0, 0
    for start, first in enumerate(clicks):
        while end < len(clicks) and clicks[end].at - first.at <= rules.scanner_seconds:
            window[clicks[end].link] += 1
            end += 1
        if len(window) >= rules.scanner_links:
            yield from clicks[max(start, marked) : end]
            marked = end
        window[first.link] -= 1
        if not window[first.link]:
            del window[first.link]


def _shifted(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:
        return at
