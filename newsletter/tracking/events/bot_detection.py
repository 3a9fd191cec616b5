"""Who opened and clicked: a person, or a proxy or scanner on the way to one.

Three signs, and each is enough: the provider says so (``sg_machine_open``); the User-Agent is a
scanner's; one person seems to have followed several links of one mail within seconds. The
last is decided by all clicks together, whatever order they come in: when a later one
reveals the scanner, the earlier ones were its, too. No event makes a machine a person again.
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
from newsletter.tracking.events.policy import Thresholds
from newsletter.tracking.models import EventRow

_event = table_of(EventRow)

#: Words in the User-Agent of security products, link checkers and programs. Gmail's and
#: Yahoo's picture proxies are not among them: they fetch when a person opens.
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
_DEEDS: Final = frozenset({EventKind.OPEN, EventKind.CLICK})
_SCANNER = re.compile("|".join(map(re.escape, SCANNERS)), re.IGNORECASE)


def by_machine(event: Event) -> bool:
    """Whether the event alone shows that no person did it."""
    if event.kind not in _DEEDS:
        return False
    return event.by_machine or _is_scanner(event.agent)


@lru_cache(maxsize=10_000)  # a million people have some hundred browsers
def _is_scanner(agent: str) -> bool:
    return bool(_SCANNER.search(agent))


def reveal(session: Session, clicks: Collection[Event], rules: Thresholds) -> list[Row[Any]]:
    """Mark what these clicks, with those known before, show to be a scanner's; returns those rows.

    The caller holds the persons' rows (newsletter.tracking.stats.counters.Tally), so nobody else
    judges the same clicks at this moment.
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
    # Only what is near one of these can have become part of a burst.
    moments = [event.at for event in clicks]
    known = session.execute(
        select(
            *(_event.c[name] for name in (*names, "kind", "at", "key", "domain", "link")),
            _event.c.by_machine,
        )
        .join(row, same)
        .where(
            _event.c.kind == EventKind.CLICK,
            _event.c.at >= _shifted(min(moments), -rules.scanner_seconds),
            _event.c.at <= _shifted(max(moments), rules.scanner_seconds),
        )
        .order_by(*(_event.c[name] for name in (*names, "at", "key"))),
        bulk_rows.values(session, rows),
    )
    by_reader: defaultdict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
    for click in known:
        by_reader[click.send_id, click.subscriber_id].append(click)
    revealed = [
        click
        for of_one in by_reader.values()
        for click in _bursts(of_one, rules)
        if not click.by_machine
    ]
    if revealed:
        session.connection().execute(
            update(_event)
            .where(_event.c.at == bindparam("of_at"), _event.c.key == bindparam("of_key"))
            .values(by_machine=True),
            [{"of_at": click.at, "of_key": click.key} for click in revealed],
        )
    return revealed


def _bursts(clicks: Sequence[Row[Any]], rules: Thresholds) -> Iterator[Row[Any]]:
    """Of one reader's clicks, in order of time, those in any window with that many links."""
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


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment
