"""Turns the rows of a file into batches for staging: checks addresses, converts values.

This is Python code that runs for each row, so it takes most of an import's time.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import orjson

from newsletter.errors import AddressError
from subscribers.consent.topics import Matcher
from subscribers.email_address import Address, hash_address, parse
from subscribers.field_values import InvalidValueError, checked_name
from subscribers.list_files.file_reader import SubscriberFile
from subscribers.list_files.rejects import Rejects
from subscribers.list_files.row import Row
from subscribers.list_files.status_words import LEAVING, SUBSCRIBED, UNCONFIRMED
from subscribers.transfer.staging import Batch

#: Different topic and tag words that are counted, so that memory stays flat.
_COUNTED = 1_000


class RowBatches:
    """The batches of a file, as an iterator; ``read`` counts the rows so far."""

    def __init__(
        self,
        people: SubscriberFile,
        rejects: Rejects,
        *,
        address_key: bytes,
        now: datetime,
        source: str,
        vouched: bool,
        size: int,
        topics: Matcher,
    ) -> None:
        self.read = 0
        #: Topic → people of the file who have it, without those who left.
        self.topics: Counter[str] = Counter()
        #: Words of topic columns, and tags, that are no topic.
        self.unknown_topics: Counter[str] = Counter()
        self.other_tags: Counter[str] = Counter()
        #: People without any topic.
        self.without_topic = 0
        self._matcher = topics
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
                try:
                    address, item = _called(item)  # noqa: PLW2901 (the same person)
                except (AddressError, InvalidValueError):
                    reason = error.message if item.email.strip() else "no address"
                    self._rejects.add(item.line, reason, self._people.text)
                    continue
            number += 1
            self._stage(batch, number, item, hash_address(key, address), address.email)
            # Numbers count from 1 without gaps.
            if number % self._size == 0:
                yield batch
                batch = Batch()
        if len(batch):
            yield batch

    def _stage(self, batch: Batch, number: int, row: Row, hashed: bytes, email: str) -> None:
        # If one column says so and another does not, the person is not confirmed.
        confirmed = None if row.status == UNCONFIRMED else _moment(row.confirmed_at)
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
        exported = row.exported
        if exported or row.ip or row.status_at:
            rare = (
                _moment(row.status_at),
                exported.evidence if exported else "",
                row.ip,
                exported is not None,
                exported is not None and not vouched,
                *((_moment(at) for at in exported[:3]) if exported else (None, None, None)),
            )
            batch.long_rows.append((*usual, *rare))
        else:
            batch.rows.append(usual)
        if row.topics or row.tags:
            self._choose(batch, number, row)
        elif row.status not in LEAVING:
            self.without_topic += 1
        if exported:
            batch.consents.extend(
                (number, place, _moment(act.at), *act[1:])
                for place, act in enumerate(exported.consents)
            )

    def _choose(self, batch: Batch, number: int, row: Row) -> None:
        chosen: dict[str, None] = {}
        stays = row.status not in LEAVING
        for words, unknown in ((row.topics, self.unknown_topics), (row.tags, self.other_tags)):
            for word in words:
                slug = self._matcher.find(word)
                if slug is not None:
                    chosen[slug] = None
                elif stays and (word in unknown or len(unknown) < _COUNTED):
                    unknown[word] += 1
        batch.topics.extend((number, slug) for slug in chosen)
        if stays:
            self.topics.update(chosen.keys())
            self.without_topic += not chosen


def _called(row: Row) -> tuple[Address, Row]:
    """The address in ``Ann <ann@example.org>`` or ``mailto:…``, and the row with that name.

    Raises AddressError, and InvalidValueError for a name that cannot be one.
    """
    text = row.email.strip()
    name, sign, rest = text.rpartition("<")
    if not sign or not rest.endswith(">"):
        return parse(text.removeprefix("mailto:")), row
    name = name.strip().strip("\"'").strip()
    return parse(rest[:-1].removeprefix("mailto:")), row._replace(
        name=row.name or checked_name(name)
    )


def _moment(value: datetime | None) -> str | None:
    """The time in UTC, as SQLAlchemy stores it in SQLite; PostgreSQL's COPY reads it too."""
    return None if value is None else value.isoformat(" ", "microseconds")[:26]
