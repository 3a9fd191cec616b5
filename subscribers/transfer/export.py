"""Exports subscribers a page at a time, in flat memory.

export_format.py defines the columns. Run the export in one transaction, so that it is one
consistent view.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sqlalchemy import ColumnElement, Row, func, select

from newsletter.db import private_files
from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers.list_files import export_format
from subscribers.list_files.status_words import SUBSCRIBED, UNCONFIRMED
from subscribers.models import Consent, Subscriber, Subscription, Suppression, Topic
from subscribers.segments.store import PEOPLE

_subscriber = table_of(Subscriber)
_subscription = table_of(Subscription)
_consent = table_of(Consent)
_topic = table_of(Topic)
_suppression = table_of(Suppression)

_PAGE = 2_000
_PERSON = (
    "id",
    "email",
    "name",
    "language",
    "timezone",
    "attributes",
    "source",
    "created_at",
    "confirmed_at",
    "paused_until",
    "last_open_at",
    "last_click_at",
)
_ACT = ("at", "act", "source", "wording", "ip", "user_agent")

Form = Literal["csv", "jsonl"]
Progress = Callable[[int, float], None]


def export_people(
    session: Session,
    condition: ColumnElement[bool],
    target: Path | BinaryIO,
    *,
    form: Form = "csv",
    progress: Progress | None = None,
) -> int:
    """Write the subscribers that match ``condition``, in order of id; returns how many.

    ``progress`` is called after each page with the number written and the share of all, 0 to 1.
    """
    total = 0
    if progress:
        count = select(func.count()).select_from(_subscriber).where(condition)
        total = session.scalar(count) or 0
    written = 0
    with _opened(target) as file, _writer(file, form) as write:
        for page in _pages(session, condition):
            for person in page:
                write(person)
            written += len(page)
            if progress:
                progress(written, min(written / max(total, 1), 1.0))
    return written


@contextmanager
def _opened(target: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(target, Path):
        yield target
        return
    try:
        file = open(target, "wb", opener=private_files.opener)  # noqa: SIM115 (yielded below)
    except OSError as error:
        raise UserError(
            f"the file cannot be written: {error.strerror}", place=str(target)
        ) from None
    with file:
        yield file


@contextmanager
def _writer(file: BinaryIO, form: Form) -> Iterator[Callable[[dict[str, Any]], object]]:
    if form == "jsonl":
        yield lambda person: file.write(export_format.json_line(person))
        return
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text)
    rows.writerow(export_format.COLUMNS)
    try:
        yield lambda person: rows.writerow(export_format.cells(person))
    finally:
        text.flush()
        text.detach()  # otherwise its end would close the caller's file


def _pages(session: Session, condition: ColumnElement[bool]) -> Iterator[list[dict[str, Any]]]:
    after = 0
    while True:
        rows = session.execute(
            select(
                *(_subscriber.c[name] for name in _PERSON),
                _suppression.c.reason,
                _suppression.c.at.label("status_at"),
                _suppression.c.evidence.label("status_evidence"),
            )
            .select_from(PEOPLE)
            .where(_subscriber.c.id > after, condition)
            .order_by(_subscriber.c.id)
            .limit(_PAGE)
        ).all()
        if not rows:
            return
        yield _people(session, rows)
        after = rows[-1].id


def _people(session: Session, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    ids = [row.id for row in rows]
    topics = _topics(session, ids)
    consents = _consents(session, ids)
    names = rows[0]._fields
    people = []
    for row in rows:
        person = dict(zip(names, row, strict=True))
        key = person["id"]
        person["status"] = person["reason"] or (
            SUBSCRIBED if person["confirmed_at"] else UNCONFIRMED
        )
        person["status_evidence"] = person["status_evidence"] or None
        person["topics"] = topics[key]
        person["consent"] = consents[key]
        people.append(person)
    return people


def _topics(session: Session, ids: list[int]) -> defaultdict[int, list[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for person, slug in session.execute(
        select(_subscription.c.subscriber_id, _topic.c.slug)
        .join(_topic)
        .where(_subscription.c.subscriber_id.in_(ids))
        .order_by(_topic.c.slug)
    ):
        found[person].append(slug)
    return found


def _consents(session: Session, ids: list[int]) -> defaultdict[int, list[dict[str, Any]]]:
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for person, *act in session.execute(
        select(_consent.c.subscriber_id, *(_consent.c[name] for name in _ACT))
        .where(_consent.c.subscriber_id.in_(ids))
        .order_by(_consent.c.id)
    ):
        found[person].append(dict(zip(_ACT, act, strict=True)))
    return found
