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

from sqlalchemy import Connection, Engine

from newsletter.db.orm import Session
from newsletter.errors import UserError
from subscribers.consent import topics
from subscribers.list_files.file_reader import Reading, SubscriberFile, unanswered
from subscribers.list_files.inspection import MOST_TOPICS, Question
from subscribers.list_files.rejects import Rejects, open_rejects
from subscribers.list_files.row import RejectedRow
from subscribers.transfer.insert_new import NewRowInserter
from subscribers.transfer.row_batches import Batches
from subscribers.transfer.staging import Batch, RowRange, StagingTable, open_stage
from subscribers.transfer.update_existing import ExistingRowUpdater

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
    #: Topics that everybody in the file gets, by slug or name.
    topics: tuple[str, ...] = ()
    #: Make the topics that the file names and that there are not.
    create_topics: bool = False
    #: The operator vouches that these people opted in; they are mailed without being asked.
    confirmed: bool = False
    #: What the people agreed to, in the operator's words; kept with their consent.
    wording: str = ""
    #: Change people who are known already.
    update: bool = True
    #: The file's encoding, where the guess is wrong.
    encoding: str | None = None
    #: Column → meaning, as the operator says: columns.MEANINGS.
    mapping: tuple[tuple[str, str], ...] = ()
    #: A word of a column of states → what it means: columns.WORD_MEANINGS.
    words: tuple[tuple[str, str], ...] = ()
    #: What everybody in the file is at least: subscribed, unsubscribed, bounced …
    everybody: str | None = None
    #: How dates with slashes are written: ``dmy`` or ``mdy``.
    dates: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of an import. The counts of rows add up to ``read``."""

    #: Whose export it is: CSV, JSON Lines, Mailchimp, listmonk, Substack, Ghost or newsletter.
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
    examples: tuple[RejectedRow, ...]
    new_topics: tuple[str, ...]
    #: Each column of the file and what it was taken for; nothing where it was left out.
    columns: tuple[tuple[str, str], ...]
    seconds: float
    #: What each of the columns is called in a mapping.
    references: tuple[str, ...] = ()
    #: People of the file who get mail afterwards, known ones included.
    mailed: int = 0
    #: As many would, if the operator vouched for the file.
    mailed_if_vouched: int = 0
    #: Topic → people of the file who have it; those without any; and words that mean no topic.
    topics: Mapping[str, int] = field(default_factory=dict)
    without_topic: int = 0
    unknown_topics: Mapping[str, int] = field(default_factory=dict)
    #: Tags that mean no topic, and are kept as tags.
    other_tags: Mapping[str, int] = field(default_factory=dict)
    #: Whether there is any topic: without one, nobody misses any.
    has_topics: bool = False
    #: What the file leaves open. Only a dry run comes so far.
    questions: tuple[Question, ...] = ()
    #: Whether anything was written: no in a dry run, or when all or nothing became nothing.
    written: bool = field(default=True)

    @property
    def unconfirmed(self) -> int:
        """People who are kept and get no mail: without consent, or not confirmed."""
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
    """Import a file of people; ``name`` says where they come from (``import:NAME``).

    ``filename`` is what the file is called, where that is neither ``name`` nor the path's.
    A file that leaves open who may be mailed is refused with all its questions; a dry run
    returns them, and counts nobody as mailed of whom they are asked.

    ``rejects`` becomes a CSV file of the rows that were not taken. ``progress`` is
    called now and then with the rows read so far and the part of the file, 0 to 1.
    Raises UserError when the file cannot be read at all.
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
        questions = [*people.questions, *_about_topics(people, known, create=options.create_topics)]
        if questions and not options.dry_run:
            raise unanswered(questions, name)
        if not people.can_be_read:
            return _nothing(people, questions, time.perf_counter() - began)
        email = people.layout.find("email")
        out.begin(people.header, people.delimiter, email.place if email else None)
        merger = NewRowInserter(
            stage.tables,
            now=now,
            source=f"import:{name}"[:100],
            wording=options.wording[:2000],
            topics=for_all,
            apply=not options.dry_run,
            topic_names=known.new,
        )
        batches = Batches(
            people,
            out,
            address_key=address_key,
            now=now,
            source=merger.source,
            vouched=options.confirmed,
            size=_BATCH,
            topics=known,
        )

        def settled() -> None:
            if progress:
                progress(batches.read, 1.0)

        run = _Run(connection, stage, ExistingRowUpdater(merger, options.update), out, settled)
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
        references=tuple(people.layout.references),
        seconds=time.perf_counter() - began,
        mailed=tally.mailed,
        mailed_if_vouched=tally.mailed_if_vouched,
        topics=dict(batches.topics),
        without_topic=0 if for_all else batches.without_topic,
        unknown_topics=dict(batches.unknown_topics),
        other_tags=dict(batches.other_tags),
        has_topics=bool(known.slugs or known.new),
        questions=tuple(questions),
        written=done and not options.dry_run,
    )


class _Run:
    """Moves batches through the stage into the audience."""

    def __init__(
        self,
        connection: Connection,
        stage: StagingTable,
        settler: ExistingRowUpdater,
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

    def _staged(self, batches: Iterator[Batch], then: Callable[[Batch], None]) -> list[RowRange]:
        """Stage all batches and do something with each while the next is being read."""
        spans: list[RowRange] = []
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

    def _merge(self, span: RowRange, untaken: Batch | None = None) -> None:
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
    """The topics that there are, and the slugs of those that everybody gets."""
    with Session(engine.execution_options(reading=True)) as session:
        return topics.matcher(session), topics.named(session, for_all) if for_all else ()


def _about_topics(people: SubscriberFile, known: topics.Matcher, *, create: bool) -> list[Question]:
    """Words in the file's columns of topics that mean no topic."""
    asked = []
    if len(people.topics) >= MOST_TOPICS:
        raise UserError(
            f"the file names more than {MOST_TOPICS:,} topics",
            hint="Keep the column as an attribute: --map COLUMN=attribute",
        )
    for word, line in sorted(people.topics.items(), key=lambda item: item[1]):
        if people.kind == "newsletter":
            # Our own export comes back as it was.
            known.keep(word)
            continue
        if known.find(word) is not None or (create and known.make(word)):
            continue
        asked.append(
            Question(
                "topic",
                word,
                f"there is no topic “{word[:64]}” (line {line})",
                "Make it with newsletter topic create, or all that are missing with "
                "--create-topics; or keep the column as an attribute: --map COLUMN=attribute",
                line=line,
            )
        )
    return asked


def _nothing(people: SubscriberFile, questions: Sequence[Question], seconds: float) -> ImportReport:
    """The report on a file whose people cannot be looked at yet."""
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
