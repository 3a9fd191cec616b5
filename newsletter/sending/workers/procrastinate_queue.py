"""The one door to procrastinate: on PostgreSQL it carries batch jobs between processes.

A job is a hint, the ledger is the truth. A job says "look at this batch"; whoever gets it
claims the batch there and goes on with whatever else is due, or finds that nothing is to be
done. So a job may be lost, doubled or late without harm, and the whole queue may be thrown
away: it is fed again.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, func, select, text

from newsletter.db.dialect import lock
from newsletter.db.engine import transaction
from newsletter.db.orm import Session
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.dispatcher import Dispatcher
from newsletter.sending.ledger import provider_backoff, sends
from newsletter.sending.workers.thread_pool import spare_the_collector

_log = logging.getLogger(__name__)
#: The PostgreSQL schema of procrastinate's tables, apart from ours.
_APART = "procrastinate"
_QUEUE, _BATCH_JOB, _NOTICES_JOB = "newsletter", "send-batch", "send-notices"
#: Jobs that wait at most: more than all machines take until the next tick, and few enough
#: to run through when their send is paused.
_WAITING = 2000
#: Seconds between two looks for jobs that the database did not tell of.
_LOOK = 15.0
#: Seconds between two beats: an idle process is to write nothing. The rows of one that was killed
#: are in nobody's way until they are swept.
_BEAT = 3600.0
_TROUBLED = 2.0  # seconds, after the database or anything else failed

# What ledger.claim would take, unless a job for it waits already.
_TO_FEED = text("""
    SELECT batch.send_id, batch.number
    FROM batch JOIN send ON send.id = batch.send_id
    WHERE batch.state = 'pending' AND batch.not_before <= :now AND batch.part <> 'rest'
      AND send.state = 'sending'
      AND NOT EXISTS (SELECT 1 FROM provider_backoff WHERE provider_backoff.until > :now)
      AND NOT EXISTS (SELECT 1 FROM departure_log WHERE state NOT IN ('current', 'set aside'))
      AND NOT EXISTS (
        SELECT 1 FROM procrastinate.procrastinate_jobs AS job
        WHERE job.status = 'todo' AND job.queueing_lock = batch.send_id || '/' || batch.number)
    ORDER BY batch.not_before, batch.send_id, batch.number
    LIMIT :room
""")
_WAITING_NOW = text("""
    SELECT count(*) AS jobs, count(*) FILTER (WHERE queueing_lock = :notices) AS notices
    FROM procrastinate.procrastinate_jobs WHERE status = 'todo'
""")
_FORGET_SILENT = text("""
    DELETE FROM procrastinate.procrastinate_workers
    WHERE last_heartbeat < now() - interval '3 hours'
""")
_REMOVE_LEFT_BEHIND = text("""
    DELETE FROM procrastinate.procrastinate_jobs
    WHERE (status = 'doing' AND worker_id IS NULL) OR status NOT IN ('todo', 'doing')
    RETURNING id
""")
#: Has no connection of its own: jobs are written in the caller's transaction.
_manager = JobManager(SyncPsycopgConnector())


def install(engine: Engine) -> bool:
    """Make procrastinate's tables unless they are there; False when nothing was to be done.

    Those of another release are thrown away with what waits in them: the ledger feeds it again.
    """
    mark = sha256(SchemaManager.get_schema().encode()).hexdigest()
    with transaction(engine) as session:
        # Two that start at once: the second waits here, and finds it done.
        lock(session, _APART)
        found = func.obj_description(func.to_regnamespace(_APART), "pg_namespace")
        if session.scalar(select(found)) == mark:
            return False
        session.execute(text(f"DROP SCHEMA IF EXISTS {_APART} CASCADE"))
        session.execute(text(f"CREATE SCHEMA {_APART}"))
        _look_there_first(session)
        # Many statements at once, which only psycopg itself takes.
        session.connection().connection.cursor().execute(SchemaManager.get_schema())
        session.execute(text(f"COMMENT ON SCHEMA {_APART} IS '{mark}'"))
    _log.info("the tables of procrastinate are installed")
    return True


def feed(session: Session, *, now: datetime) -> int:
    """Give the workers a job for each batch that is due, and one for single mails; how many.

    A batch has at most one job that waits. Sends that add up are called sent on the way.
    """
    sends.finish(session, now=now)
    if not _installed(session):
        return 0
    waiting = session.execute(_WAITING_NOW, {"notices": _NOTICES_JOB}).one()
    # Where only a probe may leave, whoever comes for this one job looks for it.
    most = 1 if provider_backoff.is_stopped(session) else _WAITING
    asked = {"now": now, "room": min(most, max(0, _WAITING - waiting.jobs))}
    jobs = [
        _job(_BATCH_JOB, f"{send_id}/{number}", send_id=send_id, number=number)
        for send_id, number in session.execute(_TO_FEED, asked)
    ]
    if not waiting.notices and outbox.any_due(session, now=now):
        jobs.append(_job(_NOTICES_JOB, _NOTICES_JOB))
    if not jobs:
        return 0
    _look_there_first(session)
    try:
        with session.begin_nested():
            connection = session.connection().connection.driver_connection
            return len(_manager.batch_defer_jobs(jobs, connection=connection))
    except AlreadyEnqueued:
        # Another process took the clock over just now, and fed them.
        return 0


def sweep(session: Session) -> int:
    """Remove the jobs that killed processes left behind, and whatever has ended; how many.

    Nothing is lost with them: what is unfinished stands in the ledger and is fed again.
    """
    if not _installed(session):
        return 0
    _look_there_first(session)
    session.execute(_FORGET_SILENT)
    return len(session.execute(_REMOVE_LEFT_BEHIND).all())


class DistributedWorkers:
    """Workers of one process among many: for each job that comes, one batch is sent."""

    def __init__(
        self, database: Engine, dispatcher: Callable[[], Dispatcher], *, concurrency: int
    ) -> None:
        self._database = database
        self._dispatchers = [dispatcher() for _ in range(concurrency)]
        self._idle = queue.SimpleQueue[Dispatcher]()
        for one in self._dispatchers:
            self._idle.put(one)
        self._begun, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="jobs")

    def start(self) -> None:
        """Begin to send."""
        install(self._database)
        spare_the_collector()
        self._thread.start()
        self._begun.wait()

    def stop(self) -> None:
        """Finish the requests under way, begin no more, and return when all is written down."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._loop.call_soon_threadsafe(self._fetching.cancel)
        self._thread.join()
        for dispatcher in self._dispatchers:
            _let_go(dispatcher)

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(len(self._dispatchers), "dispatch"))
        self._fetching = self._loop.create_task(self._fetch())
        self._begun.set()
        await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        connector = PsycopgConnector(conninfo=conninfo(self._database), min_size=1, max_size=4)
        app = App(connector=connector)
        app.task(name=_BATCH_JOB)(self._send_batch)
        app.task(name=_NOTICES_JOB)(self._send_notices)
        while not self._stopping.is_set():
            try:
                async with app.open_async():
                    # Cancelled, it fetches no more and returns when the running jobs have ended.
                    await app.run_worker_async(
                        queues=[_QUEUE],
                        concurrency=len(self._dispatchers),
                        fetch_job_polling_interval=_LOOK,
                        update_heartbeat_interval=_BEAT,
                        stalled_worker_timeout=3 * _BEAT,
                        # Nothing is kept: what became of a batch stands in the ledger.
                        delete_jobs="always",
                        install_signal_handlers=False,
                    )
            except Exception:  # noqa: BLE001 (whatever it is, this process must not idle for ever)
                _log.exception("jobs cannot be fetched; trying again")
            # It ended, with or without an exception, because the database is away.
            await asyncio.sleep(_TROUBLED)

    def _send_batch(self, send_id: int, number: int) -> None:
        with self._dispatcher() as dispatcher:
            dispatcher.send_batch(send_id, number)
            # Asked for one by one, jobs take a fifth of the time: whoever works asks the ledger.
            while self._going_on() and dispatcher.send_next(more=self._going_on):
                pass

    def _going_on(self) -> bool:
        return not self._stopping.is_set()

    def _send_notices(self) -> None:
        with self._dispatcher() as dispatcher:
            while not self._stopping.is_set() and dispatcher.send_notice():
                pass

    @contextmanager
    def _dispatcher(self) -> Iterator[Dispatcher]:
        """One that nobody else uses meanwhile."""
        dispatcher = self._idle.get()
        try:
            yield dispatcher
        except Exception:  # noqa: BLE001 (whatever it is, an answer in hand must be kept)
            _log.exception("a batch could not be dealt with; trying again")
            # An answer that came is kept until it is written: it must not turn into doubt.
            while not self._stopping.wait(_TROUBLED) and not _let_go(dispatcher):
                pass
        finally:
            self._idle.put(dispatcher)


def _let_go(dispatcher: Dispatcher) -> bool:
    try:
        dispatcher.let_go()
    except Exception:  # noqa: BLE001 (it is tried again, or looked into by others)
        _log.exception("what was under way cannot be written down; it is looked into later")
        return False
    return True


def _job(task: str, name: str, **ids: int) -> Job:
    return Job(
        queue=_QUEUE,
        task_name=task,
        task_kwargs=dict(ids),
        lock=None,
        queueing_lock=name,
        # Before batches: somebody waits for a confirmation.
        priority=int(task == _NOTICES_JOB),
    )


def _installed(session: Session) -> bool:
    """Whether any worker has been here yet."""
    there = func.to_regclass(f"{_APART}.procrastinate_jobs")
    return session.scalar(select(there.is_not(None))) is True


def _look_there_first(session: Session) -> None:
    """Let procrastinate's statements find its tables, until the transaction ends."""
    path = func.concat(_APART, ",", func.current_setting("search_path"))
    session.execute(select(func.set_config("search_path", path, True)))  # noqa: FBT003


def conninfo(engine: Engine) -> str:
    """What SQLAlchemy would tell psycopg, and where procrastinate's tables are."""
    _, told = engine.dialect.create_connect_args(engine.url)
    told.pop("context", None)
    told["options"] = f"{told.get('options', '')} -c search_path={_APART}".strip()
    return make_conninfo(**told)
