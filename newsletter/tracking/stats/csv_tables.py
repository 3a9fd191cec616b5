"""Figures and lists of a send as CSV, line by line; no cell runs as a formula in a spreadsheet."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from io import StringIO

from newsletter.tracking.stats.rates import Performance, measured_counters
from newsletter.tracking.stats.recipient_actions import ActiveRecipient
from subscribers.list_files.csv_safety import safe

NOT_MEASURED = "not measured"
#: Characters that are written at once.
_PIECE = 16_384
_RECIPIENT = ("subscriber", "email", "status", "reason", "times", "links")
#: Counters (docs/reference/metrics.md) in the order in which the events happen.
_COUNTERS = (
    *("processed", "deferred", "delivered", "bounce", "blocked", "dropped"),
    *("open", "machine_open", "opened", "click", "machine_click", "clicked"),
    *("left", "complained"),
)
#: Counters of events, because subscribers are not counted by day.
_OF_DAY = (
    *("processed", "deferred", "delivered", "bounce", "blocked", "dropped"),
    *("open", "machine_open", "click", "machine_click"),
    *("unsubscribe", "group_unsubscribe", "spamreport"),
)


def recipients(people: Iterable[ActiveRecipient]) -> Iterator[str]:
    """A line for each recipient. The links are separated by blanks."""
    return _lines(
        _RECIPIENT,
        (
            (one.id, one.email or "", one.state or "", one.reason or "", one.times, _links(one))
            for one in people
        ),
    )


def domains(by_domain: Mapping[str, Performance]) -> Iterator[str]:
    """A line for each mail domain: counters, then rates from 0 to 1."""
    rates = asdict(Performance(0, {}).rates).keys()
    return _lines(
        ("domain", "sent", *_COUNTERS, *(f"{name}_rate" for name in rates)),
        (
            (
                domain,
                of.sent,
                *_measured(of, _COUNTERS),
                *(
                    _rate(share) if of.measures(name) else NOT_MEASURED
                    for name, share in asdict(of.rates).items()
                ),
            )
            for domain, of in by_domain.items()
        ),
    )


def links(by_link: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """A line for each link: recipients who clicked it, clicks, and clicks by bots."""
    names = ("clicked", "click", "machine_click")
    return _lines(
        ("link", *names), ((link, *(of.get(n, 0) for n in names)) for link, of in by_link.items())
    )


def days(by_day: Mapping[str, Performance]) -> Iterator[str]:
    """A line for each day (UTC): the events of that day."""
    return _lines(("day", *_OF_DAY), ((day, *_measured(of, _OF_DAY)) for day, of in by_day.items()))


def _measured(of: Performance, names: Sequence[str]) -> list[int | str]:
    known = measured_counters(of.figures, of.tracked)
    return [
        NOT_MEASURED if name in known and known[name] is None else known.get(name) or 0
        for name in names
    ]


def _rate(share: float | None) -> str:
    return "" if share is None else f"{share:.6f}"


def _links(one: ActiveRecipient) -> str:
    return " ".join(one.links)


def _lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    buffer = StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    for row in rows:
        writer.writerow([safe(cell) if isinstance(cell, str) else cell for cell in row])
        if buffer.tell() > _PIECE:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
