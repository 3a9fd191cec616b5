"""Imports subscribers from a file: reads rows, stages them, and merges them, in flat memory.

One thread reads the file and stages batches of 20,000 rows. Another merges each batch in a
short transaction of its own, so that sending goes on meanwhile. An interrupted import is run
again: rows that were merged before are found unchanged.

A file that may say who unsubscribed is staged as a whole first: a subscriber on its first line
may unsubscribe on its last, and a send may begin between two transactions. "All or nothing" also
stages the whole file, and then merges it in one transaction.
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

from sqlalchemy import Connection, Engine

from newsletter.db.orm import Session
from newsletter.errors import UserError
from subscribers.consent import topics
from subscribers.list_files.file_reader import Reading, SubscriberFile, unanswered
from subscribers.list_files.inspection import MOST_TOPICS, Question
from subscribers.list_files.rejects import Rejects, open_rejects
from subscribers.list_files.row import RejectedRow
from subscribers.transfer.insert_new import NewRowInserter
from subscribers.transfer.row_batches import RowBatches
from subscribers.transfer.staging import Batch, RowRange, StagingTable, open_stage
from subscribers.transfer.update_existing import ExistingRowUpdater

#: Rows of a transaction: about a fifth of a second of SQLite's only write lock. Smaller batches
#: write more in all, since each transaction touches most pages of the index on address hashes.
_BATCH = 20_000
#: Rows that are compared one by one take longer, suppressed ones the longest.
_SLICE = 2_000
#: Seconds between two transactions. A writer that waits for SQLite's lock polls it every 25 to
#: 100 ms; without a pause it might fail to get it for seconds.
_PAUSE = 0.04

Progress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The operator's options of an import."""

    #: Report what an import would do, and change nothing.
    dry_run: bool = False
    #: Write nothing unless all rows can be read; then in one transaction.
    all_or_nothing: bool = False
    #: Topics for all subscribers of the file, by slug or name.
    topics: tuple[str, ...] = ()
    #: Create the topics that the file names and that do not exist.
    create_topics: bool = False
    #: The operator confirms that these people opted in; they are emailed without a confirmation.
    confirmed: bool = False
    #: What the people agreed to, in the operator's words; kept with their consent records.
    wording: str = ""
    #: Update subscribers who exist already.
    update: bool = True
    #: The file's encoding, where detection is wrong.
    encoding: str | None = None
    #: Column → meaning, as the operator says: column_mapping.MEANINGS.
    mapping: tuple[tuple[str, str], ...] = ()
    #: A word of a status column → its meaning: column_mapping.WORD_MEANINGS.
    words: tuple[tuple[str, str], ...] = ()
    #: The status of all rows that have no stronger one: subscribed, unsubscribed, bounced …
    everybody: str | None = None
    #: How dates with slashes are written: ``dmy`` or ``mdy``.
    dates: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import. The counts of rows add up to ``read``."""

    #: The detected format: CSV, JSON Lines, Mailchimp, listmonk, Substack, Ghost or newsletter.
    kind: str
    encoding: str
    #: A remark for the operator on how the file was read.
    note: str | None
    read: int
    added: int
    updated: int
    unchanged: int
    #: People who left or bounced elsewhere, by reason; they are suppressed here too.
    left: Mapping[str, int]
    #: People that the file would add again, by the reason that excludes them.
    refused: Mapping[str, int]
    #: Rows whose address is on an earlier line, which counts.
    duplicates: int
    rejected: int
    #: The first rejected rows.
    examples: tuple[RejectedRow, ...]
    new_topics: tuple[str, ...]
    #: Each column of the file and its meaning; an empty meaning if it is ignored.
    columns: tuple[tuple[str, str], ...]
    seconds: float
    #: The name of each column in a mapping.
    references: tuple[str, ...] = ()
    #: People of the file who get emails afterwards, existing subscribers included.
    mailed: int = 0
    #: How many would, if the operator vouched for the file.
    mailed_if_vouched: int = 0
    #: Topic → people of the file who have it; people without any; and words that are no topic.
    topics: Mapping[str, int] = field(default_factory=dict)
    without_topic: int = 0
    unknown_topics: Mapping[str, int] = field(default_factory=dict)
    #: Tags that are no topic; they are kept as tags.
    other_tags: Mapping[str, int] = field(default_factory=dict)
    #: Whether any topic exists: otherwise nobody lacks one.
    has_topics: bool = False
    #: Open questions about the file. Only a dry run reports them.
    questions: tuple[Question, ...] = ()
    #: Whether anything was written: not in a dry run, nor if "all or nothing" failed.
    written: bool = field(default=True)

    @property
    def unconfirmed(self) -> int:
        """People who are added or kept but get no emails: without consent, or not confirmed."""
        people = self.added + self.updated + self.unchanged
        return max(people - self.mailed, 0)


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
    filename: str | None = None,
) -> ImportReport:
    """Import a file of people; ``name`` becomes their source (``import:NAME``).

    ``filename`` is the file's name, where that is neither ``name`` nor the path's. A file that
    leaves open who may be emailed is refused with all its questions. A dry run returns them, and
    counts nobody as emailed whom they concern.

    ``rejects`` becomes a CSV file of the rejected rows. ``progress`` is called regularly with the
    number of rows read and the share of the file, 0 to 1. Raises UserError if the file cannot be
    read at all.
    """
    options = options or ImportOptions()
    now = now.astimezone(UTC)
    began = time.perf_counter()
    known, for_all = _topics(engine, options.topics)
    with (
        _opened(source) as file,
        open_rejects(rejects) as out,
        open_stage(engine) as (stage, connection),
    ):
        reading = _reading(options, filename or (source.name if isinstance(source, Path) else None))
        people = SubscriberFile(file, name, reading=reading)
        questions = [
            *people.questions,
            *_topic_questions(people, known, create=options.create_topics),
        ]
        if questions and not options.dry_run:
            raise unanswered(questions, name)
        if not people.can_be_read:
            return _unread(people, questions, time.perf_counter() - began)
        email = people.layout.find("email")
        out.begin(people.header, people.delimiter, email.place if email else None)
        inserter = NewRowInserter(
            stage.tables,
            now=now,
            source=f"import:{name}"[:100],
            wording=options.wording[:2000],
            topics=for_all,
            apply=not options.dry_run,
            topic_names=known.new,
        )
        batches = RowBatches(
            people,
            out,
            address_key=address_key,
            now=now,
            source=inserter.source,
            vouched=options.confirmed,
            size=_BATCH,
            topics=known,
        )

        def merged() -> None:
            if progress:
                progress(batches.read, 1.0)

        run = _Run(connection, stage, ExistingRowUpdater(inserter, options.update), out, merged)
        reported = _with_progress(batches, file, progress)
        if options.all_or_nothing:
            done = run.at_once(reported)
        else:
            done = run.by_batch(reported, stage_first=people.may_exclude)
        merged()
    counts = inserter.counts
    return ImportReport(
        kind=people.kind,
        encoding=people.encoding.codec,
        note=people.encoding.note,
        read=batches.read,
        added=counts.added,
        updated=counts.updated,
        unchanged=counts.unchanged,
        left=dict(counts.left),
        refused=dict(counts.refused),
        duplicates=counts.duplicates,
        rejected=out.count,
        examples=tuple(out.examples),
        new_topics=tuple(counts.new_topics),
        columns=tuple(people.columns),
        references=tuple(people.layout.references),
        seconds=time.perf_counter() - began,
        mailed=counts.mailed,
        mailed_if_vouched=counts.mailed_if_vouched,
        topics=dict(batches.topics),
        without_topic=0 if for_all else batches.without_topic,
        unknown_topics=dict(batches.unknown_topics),
        other_tags=dict(batches.other_tags),
        has_topics=bool(known.slugs or known.new),
        questions=tuple(questions),
        written=done and not options.dry_run,
    )


class _Run:
    """Moves batches through the staging tables into the audience."""

    def __init__(
        self,
        connection: Connection,
        stage: StagingTable,
        updater: ExistingRowUpdater,
        rejects: Rejects,
        merged: Callable[[], None],
    ) -> None:
        # SQLite's BEGIN IMMEDIATE would also lock the attached staging file, which the reading
        # thread writes. ``NewRowInserter.lock`` locks the audience; a dry run needs no lock.
        self._connection = connection.execution_options(reading=True)
        self._stage = stage
        self._updater = updater
        self._inserter = updater.inserter
        self._rejects = rejects
        #: Called between the transactions after the last row was read.
        self._merged = merged
        with self._transaction() as session:
            self._inserter.create_tables(session)

    def by_batch(self, batches: Iterator[Batch], *, stage_first: bool) -> bool:
        """Merge each batch in its own transaction, while the next is read or afterwards."""
        if stage_first:
            row_ranges = self._staged(batches, self._load)
            self._in_slices(self._updater.suppress_existing)
            for row_range in row_ranges:
                self._merge(row_range)
                self._merged()
        else:
            self._staged(batches, self._load_and_merge)
        self._in_slices(self._update)
        return True

    def at_once(self, batches: Iterator[Batch]) -> bool:
        """Merge everything in one transaction, or nothing if a row was rejected."""
        row_ranges = self._staged(batches, self._load)
        if self._rejects.count:
            return False
        with self._transaction() as session:
            for row_range in row_ranges:
                self._inserter.insert(session, row_range)
            after: int | None = 0
            while after is not None:
                after = self._update(session, after, _SLICE)
        return True

    def _staged(self, batches: Iterator[Batch], then: Callable[[Batch], None]) -> list[RowRange]:
        """Stage all batches, and run ``then`` with each while the next is read."""
        row_ranges: list[RowRange] = []
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import") as worker:
            doing: Future[None] | None = None
            for batch in batches:
                self._stage.write(batch)
                if doing:
                    doing.result()
                doing = worker.submit(then, batch)
                row_ranges.append(batch.row_range)
            if doing:
                doing.result()
        return row_ranges

    def _load(self, batch: Batch) -> None:
        with self._transaction() as session:
            self._stage.load(session.connection(), batch)
            self._inserter.index_rows(session, batch.row_range)

    def _load_and_merge(self, batch: Batch) -> None:
        self._merge(batch.row_range, batch)

    def _merge(self, row_range: RowRange, unloaded: Batch | None = None) -> None:
        with self._transaction() as session:
            if unloaded:
                self._stage.load(session.connection(), unloaded)
                self._inserter.index_rows(session, row_range)
            self._inserter.insert(session, row_range)
        if self._inserter.apply and row_range.last - row_range.first + 1 == _BATCH:
            time.sleep(_PAUSE)

    def _in_slices(self, step: Callable[[Session, int, int], int | None]) -> None:
        """Process rows in slices, each in a transaction of its own."""
        after: int | None = 0
        while after is not None:
            with self._transaction() as session:
                after = step(session, after, _SLICE)
            if after is not None:
                self._merged()
                time.sleep(_PAUSE)

    def _update(self, session: Session, after: int, limit: int) -> int | None:
        next_row, duplicates = self._updater.update_slice(session, after, limit)
        for row in duplicates:
            reason = f"the address is on line {row.first} already, which counts"
            self._rejects.note(row.line, reason, row.email)
        return next_row

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self._connection) as session, session.begin():
            yield session


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The source as a file that can be read twice: first to inspect it, then for its rows."""
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


def _with_progress(
    batches: RowBatches, file: BinaryIO, progress: Progress | None
) -> Iterator[Batch]:
    here = file.tell()
    size = max(file.seek(0, 2), 1)
    file.seek(here)
    for batch in batches:
        if progress:
            progress(batches.read, min(file.tell() / size, 1.0))
        yield batch


def _reading(options: ImportOptions, filename: str | None) -> Reading:
    return Reading(
        encoding=options.encoding,
        mapping=options.mapping,
        words=options.words,
        everybody=options.everybody,
        dates=options.dates,
        filename=filename,
    )


def _topics(engine: Engine, for_all: Sequence[str]) -> tuple[topics.Matcher, tuple[str, ...]]:
    """The existing topics, and the slugs of those that all rows get."""
    with Session(engine.execution_options(reading=True)) as session:
        return topics.matcher(session), topics.named(session, for_all) if for_all else ()


def _topic_questions(
    people: SubscriberFile, known: topics.Matcher, *, create: bool
) -> list[Question]:
    """Questions about words in the file's topic columns that are no topic."""
    asked = []
    if len(people.topics) >= MOST_TOPICS:
        raise UserError(
            f"the file names more than {MOST_TOPICS:,} topics",
            hint="Map the column to an attribute instead of topics.",
        )
    for word, line in sorted(people.topics.items(), key=lambda item: item[1]):
        if people.kind == "newsletter":
            # Our own export is imported unchanged.
            known.keep(word)
            continue
        if known.find(word) is not None or (create and known.make(word)):
            continue
        asked.append(
            Question(
                "topic",
                word,
                f"there is no topic “{word[:64]}” (line {line})",
                "Create it with newsletter topic create, or all missing ones with "
                "--create-topics; or keep the column as an attribute: --map COLUMN=attribute",
                line=line,
            )
        )
    return asked


def _unread(people: SubscriberFile, questions: Sequence[Question], seconds: float) -> ImportReport:
    """The report on a file whose rows cannot be read before its questions are answered."""
    return ImportReport(
        kind=people.kind,
        encoding=people.encoding.codec,
        note=people.encoding.note,
        read=0,
        added=0,
        updated=0,
        unchanged=0,
        left={},
        refused={},
        duplicates=0,
        rejected=0,
        examples=(),
        new_topics=(),
        columns=tuple(people.columns),
        references=tuple(people.layout.references),
        seconds=seconds,
        questions=tuple(questions),
        written=False,
    )
