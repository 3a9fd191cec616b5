"""Importing people from a file: read, stage, merge, in flat memory.

One thread reads the file and stages rows by the twenty thousand; another merges
each batch in a short transaction of its own, so that sending goes on. An import
that was interrupted is run again: what is there already is found unchanged. A file that
may tell who left is staged whole first, for somebody on its first line may leave on its
last, and a send may begin between two transactions. All or nothing stages the whole
file, too, and then merges it in one transaction.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from sqlalchemy import Connection, Engine, select

from subscribers.batches import Batches
from subscribers.errors import UserError
from subscribers.formats import People
from subscribers.merging import Merger
from subscribers.models import Topic
from subscribers.rejects import Rejects, open_rejects
from subscribers.rows import Reject
from subscribers.schema import Session, table_of
from subscribers.settling import Settler
from subscribers.staging import Batch, Span, Stage, open_stage

#: Rows of a transaction: about a fifth of a second of SQLite's only write lock. Fewer would
#: write more: each transaction touches most pages of the index over address hashes.
_BATCH = 20_000
#: Rows looked at one by one take longer, people who left the longest.
_SLICE = 2_000
#: Seconds between two transactions. Who waits for SQLite's write lock looks for it every
#: 25 to 100 ms; without a pause they might look in vain for seconds.
_PAUSE = 0.04

Progress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the operator decides about an import."""

    #: Find out what would come of it, and change nothing.
    dry_run: bool = False
    #: Write nothing unless every row can be read; then in one transaction.
    all_or_nothing: bool = False
    #: Topics (slugs) that everybody in the file gets.
    topics: tuple[str, ...] = ()
    #: The operator vouches that these people opted in; they are mailed without being asked.
    confirmed: bool = False
    #: What the people agreed to, in the operator's words; kept with their consent.
    wording: str = ""
    #: Change people who are known already.
    update: bool = True
    #: The file's encoding, where the guess is wrong.
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of an import. The counts of rows add up to ``read``."""

    #: Whose export it is: CSV, JSON Lines, Mailchimp, listmonk, Substack or newsletter.
    kind: str
    encoding: str
    #: What the operator should know about how the file was read.
    note: str | None
    read: int
    added: int
    updated: int
    unchanged: int
    #: People who left or bounced elsewhere, by how: suppressed here too.
    left: Mapping[str, int]
    #: People whom the file would have revived, by the reason why they stay out.
    refused: Mapping[str, int]
    #: Rows whose address stands in the file before; the first counts.
    duplicates: int
    rejected: int
    #: The first of the rejected rows.
    examples: tuple[Reject, ...]
    new_topics: tuple[str, ...]
    #: Each column of the file and what it was taken for; nothing where it was left out.
    columns: tuple[tuple[str, str], ...]
    seconds: float
    #: Whether anything was written: no in a dry run, or when all or nothing became nothing.
    written: bool = field(default=True)


def import_people(
    engine: Engine,
    source: Path | BinaryIO,
    *,
    address_key: bytes,
    now: datetime,
    name: str,
    options: ImportOptions | None = None,
    rejects: Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a file of people; ``name`` says where they come from (``import:NAME``).

    ``rejects`` becomes a CSV file of the rows that were not taken. ``progress`` is
    called now and then with the rows read so far and the part of the file, 0 to 1.
    Raises UserError when the file cannot be read at all.
    """
    options = options or ImportOptions()
    now = now.astimezone(UTC)
    began = time.perf_counter()
    _check_topics(engine, options.topics)
    with (
        _opened(source) as file,
        open_rejects(rejects) as out,
        open_stage(engine) as (stage, connection),
    ):
        people = People(file, name, encoding=options.encoding)
        merger = Merger(
            stage.tables,
            now=now,
            source=f"import:{name}"[:100],
            wording=options.wording[:2000],
            topics=options.topics,
            apply=not options.dry_run,
        )
        batches = Batches(
            people,
            out,
            address_key=address_key,
            now=now,
            source=merger.source,
            vouched=options.confirmed,
            size=_BATCH,
        )

        def settled() -> None:
            if progress:
                progress(batches.read, 1.0)

        run = _Run(connection, stage, Settler(merger, options.update), out, settled)
        watched = _watched(batches, file, progress)
        if options.all_or_nothing:
            done = run.whole(watched)
        else:
            done = run.piecemeal(watched, whole_first=people.tells_who_left)
        settled()
    tally = merger.tally
    return ImportReport(
        kind=people.kind,
        encoding=people.encoding.codec,
        note=people.encoding.note,
        read=batches.read,
        added=tally.added,
        updated=tally.updated,
        unchanged=tally.unchanged,
        left=dict(tally.left),
        refused=dict(tally.refused),
        duplicates=tally.duplicates,
        rejected=out.count,
        examples=tuple(out.examples),
        new_topics=tuple(tally.new_topics),
        columns=tuple(people.columns),
        seconds=time.perf_counter() - began,
        written=done and not options.dry_run,
    )


class _Run:
    """Moves batches through the stage into the audience."""

    def __init__(
        self,
        connection: Connection,
        stage: Stage,
        settler: Settler,
        rejects: Rejects,
        settled: Callable[[], None],
    ) -> None:
        # SQLite's BEGIN IMMEDIATE would lock the attached stage too, which the reading
        # thread writes. ``Merger.lock`` locks the audience; a dry run needs no lock.
        self._connection = connection.execution_options(reading=True)
        self._stage = stage
        self._settler = settler
        self._merger = settler.merger
        self._rejects = rejects
        #: Called between the transactions after the last row was read.
        self._settled = settled
        with self._transaction() as session:
            self._merger.prepare(session)

    def piecemeal(self, batches: Iterator[Batch], *, whole_first: bool) -> bool:
        """Each batch in a transaction of its own, while the next is being read or afterwards."""
        if whole_first:
            spans = self._staged(batches, self._put_by)
            self._slices(self._settler.suppress_known)
            for span in spans:
                self._merge(span)
                self._settled()
        else:
            self._staged(batches, self._put_in)
        self._slices(self._settle)
        return True

    def whole(self, batches: Iterator[Batch]) -> bool:
        """Everything in one transaction, or nothing when a row was rejected."""
        spans = self._staged(batches, self._put_by)
        if self._rejects.count:
            return False
        with self._transaction() as session:
            for span in spans:
                self._merger.batch(session, span)
            after: int | None = 0
            while after is not None:
                after = self._settle(session, after, _SLICE)
        return True

    def _staged(self, batches: Iterator[Batch], then: Callable[[Batch], None]) -> list[Span]:
        """Stage all batches and do something with each while the next is being read."""
        spans: list[Span] = []
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import") as worker:
            doing: Future[None] | None = None
            for batch in batches:
                self._stage.write(batch)
                if doing:
                    doing.result()
                doing = worker.submit(then, batch)
                spans.append(batch.span)
            if doing:
                doing.result()
        return spans

    def _put_by(self, batch: Batch) -> None:
        with self._transaction() as session:
            self._stage.take(session.connection(), batch)
            self._merger.look(session, batch.span)

    def _put_in(self, batch: Batch) -> None:
        self._merge(batch.span, batch)

    def _merge(self, span: Span, untaken: Batch | None = None) -> None:
        with self._transaction() as session:
            if untaken:
                self._stage.take(session.connection(), untaken)
                self._merger.look(session, span)
            self._merger.batch(session, span)
        if self._merger.apply and span.last - span.first + 1 == _BATCH:
            time.sleep(_PAUSE)

    def _slices(self, deal: Callable[[Session, int, int], int | None]) -> None:
        """Deal with rows by slices, each in a transaction of its own."""
        after: int | None = 0
        while after is not None:
            with self._transaction() as session:
                after = deal(session, after, _SLICE)
            if after is not None:
                self._settled()
                time.sleep(_PAUSE)

    def _settle(self, session: Session, after: int, limit: int) -> int | None:
        further, again = self._settler.slice(session, after, limit)
        for row in again:
            reason = f"the address stands on line {row.first} already, which counts"
            self._rejects.note(row.line, reason, row.email)
        return further

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self._connection) as session, session.begin():
            yield session


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The source, such that it can be read twice: once for its encoding, once for its rows."""
    if isinstance(source, Path):
        try:
            file = source.open("rb")
        except OSError as error:
            raise UserError(
                f"the file cannot be read: {error.strerror}", place=str(source)
            ) from None
        with file:
            yield file
    elif source.seekable():
        yield source
    else:
        with TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            yield copy


def _watched(batches: Batches, file: BinaryIO, progress: Progress | None) -> Iterator[Batch]:
    here = file.tell()
    size = max(file.seek(0, 2), 1)
    file.seek(here)
    for batch in batches:
        if progress:
            progress(batches.read, min(file.tell() / size, 1.0))
        yield batch


def _check_topics(engine: Engine, topics: Sequence[str]) -> None:
    if not topics:
        return
    with engine.connect().execution_options(reading=True) as connection:
        known = set(connection.scalars(select(table_of(Topic).c.slug)))
    for slug in topics:
        if slug not in known:
            raise UserError(
                "there is no topic of this name",
                place=slug,
                hint=f"There are: {', '.join(sorted(known)[:20]) or 'none yet'}.",
            )
