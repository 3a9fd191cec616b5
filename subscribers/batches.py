"""Rows of a file as batches for the stage: addresses are checked, values put as stored.

This runs in Python for every row, so it is where an import spends its time.
"""

from collections.abc import Iterator
from datetime import datetime

import orjson

from subscribers.address import hash_address, parse
from subscribers.errors import AddressError
from subscribers.formats import People
from subscribers.rejects import Rejects
from subscribers.rows import SUBSCRIBED, Row
from subscribers.staging import Batch


class Batches:
    """The batches of a file, when it is iterated over; ``read`` counts the rows so far."""

    def __init__(
        self,
        people: People,
        rejects: Rejects,
        *,
        address_key: bytes,
        now: datetime,
        source: str,
        vouched: bool,
        size: int,
    ) -> None:
        self.read = 0
        self._people = people
        self._rejects = rejects
        self._key = address_key
        self._now = _moment(now)
        self._source = source
        self._vouched = self._now if vouched else None
        self._size = size

    def __iter__(self) -> Iterator[Batch]:
        batch = Batch()
        key, number = self._key, 0
        for item in self._people:
            self.read += 1
            if type(item) is not Row:
                self._rejects.add(*item)
                continue
            try:
                address = parse(item.email)
            except AddressError as error:
                reason = error.message if item.email.strip() else "no address"
                self._rejects.add(item.line, reason, self._people.text)
                continue
            number += 1
            self._stage(batch, number, item, hash_address(key, address), address.email)
            # Numbers count from 1 without a gap.
            if number % self._size == 0:
                yield batch
                batch = Batch()
        if len(batch):
            yield batch

    def _stage(self, batch: Batch, number: int, row: Row, hashed: bytes, email: str) -> None:
        confirmed = _moment(row.confirmed_at)
        vouched = None
        if confirmed is None and row.status == SUBSCRIBED:
            confirmed = vouched = self._vouched
        usual = (
            number,
            row.line,
            hashed,
            email,
            row.name,
            orjson.dumps(row.attributes).decode(),
            row.language,
            row.timezone,
            row.source or self._source,
            _moment(row.created_at) or self._now,
            confirmed,
            row.status,
        )
        kept = row.kept
        if kept or row.ip or row.status_at:
            rare = (
                _moment(row.status_at),
                kept.evidence if kept else "",
                row.ip,
                kept is not None,
                kept is not None and not vouched,
                *((_moment(at) for at in kept[:3]) if kept else (None, None, None)),
            )
            batch.long_rows.append((*usual, *rare))
        else:
            batch.rows.append(usual)
        if row.topics or row.tags:
            self._choose(batch, number, row)
        if kept:
            batch.consents.extend(
                (number, place, _moment(act.at), *act[1:])
                for place, act in enumerate(kept.consents)
            )

    def _choose(self, batch: Batch, number: int, row: Row) -> None:
        batch.topics.extend((number, slug, True) for slug in row.topics)
        batch.topics.extend((number, tag, False) for tag in row.tags if tag not in row.topics)


def _moment(value: datetime | None) -> str | None:
    """A moment in UTC, as SQLAlchemy stores it in SQLite; PostgreSQL's COPY reads it too."""
    return None if value is None else value.isoformat(" ", "microseconds")[:26]
