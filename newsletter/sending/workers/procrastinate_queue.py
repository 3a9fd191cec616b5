"""Adapter for procrastinate, which distributes batch jobs to processes on PostgreSQL.

A job only names a batch that is due. The worker that fetches the job claims the batch in the
ledger, then sends other due batches, or finds nothing to do. So a lost, duplicate or late job
does no harm, and the whole queue may be deleted: due batches are queued again.
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
from procrastinate.worker import Worker
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, func, select, text

from newsletter.db.dialect import lock
from newsletter.db.engine import transaction
from newsletter.db.orm import Session
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.dispatcher import Dispatcher
from newsletter.sending.ledger import provider_backoff, sends
from newsletter.sending.workers.thread_pool import tune_garbage_collector
from newsletter.wakeups import Wakeups

_log = logging.getLogger(__name__)
#: The PostgreSQL schema of procrastinate's tables.
_SCHEMA = "procrastinate"
_QUEUE, _BATCH_JOB, _OUTBOX_JOB = "newsletter", "send-batch", "send-notices"
#: The most jobs in the queue: more than all machines run until the next tick, and few enough
#: to run without effect when their send is paused.
_MAX_WAITING = 2000
#: Seconds between two polls for jobs, if no wakeup comes.
_POLL_INTERVAL = 60.0
#: Seconds between two heartbeats to procrastinate. They are rare so that an idle process writes
#: almost nothing; the row of a killed process does no harm until it is deleted.
_HEARTBEAT_INTERVAL = 3600.0
_RETRY_DELAY = 2.0  # seconds to wait after an error

# The batches that BatchStore.claim would claim, except those with a waiting job.
_DUE_BATCHES = text("""
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
_COUNT_WAITING = text("""
    SELECT count(*) AS jobs, count(*) FILTER (WHERE queueing_lock = :notices) AS notices
    FROM procrastinate.procrastinate_jobs WHERE status = 'todo'
""")
_DELETE_DEAD_WORKERS = text("""
    DELETE FROM procrastinate.procrastinate_workers
    WHERE last_heartbeat < now() - interval '3 hours'
""")
_DELETE_OLD_JOBS = text("""
    DELETE FROM procrastinate.procrastinate_jobs
    WHERE (status = 'doing' AND worker_id IS NULL) OR status NOT IN ('todo', 'doing')
    RETURNING id
""")
#: Has no connection of its own: jobs are written in the caller's transaction.
_manager = JobManager(SyncPsycopgConnector())


def install(engine: Engine) -> bool:
    """Create procrastinate's tables unless they exist; returns whether it created them.

    The tables of another release are dropped with their jobs, which are queued again later.
    """
    fingerprint = sha256(SchemaManager.get_schema().encode()).hexdigest()
    with transaction(engine) as session:
        # If two processes start at once, the second waits here until the tables exist.
        lock(session, _SCHEMA)
        comment = func.obj_description(func.to_regnamespace(_SCHEMA), "pg_namespace")
        if session.scalar(select(comment)) == fingerprint:
            return False
        session.execute(text(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE"))
        session.execute(text(f"CREATE SCHEMA {_SCHEMA}"))
        _set_search_path(session)
        # Only psycopg itself accepts many statements at once.
        session.connection().connection.cursor().execute(SchemaManager.get_schema())
        session.execute(text(f"COMMENT ON SCHEMA {_SCHEMA} IS '{fingerprint}'"))
    _log.info("the tables of procrastinate are installed")
    return True


def queue_due(session: Session, *, now: datetime) -> int:
    """Queue a job for each due batch, and one for the outbox; returns how many.

    A batch has at most one waiting job. Also marks sends as sent whose batches are all settled.
    """
    sends.finish(session, now=now)
    if not _installed(session):
        return 0
    waiting = session.execute(_COUNT_WAITING, {"notices": _OUTBOX_JOB}).one()
    # During a backoff one job is enough: its worker claims the probe.
    limit = 1 if provider_backoff.is_stopped(session) else _MAX_WAITING
    values = {"now": now, "room": min(limit, max(0, _MAX_WAITING - waiting.jobs))}
    jobs = [
        _job(_BATCH_JOB, f"{send_id}/{number}", send_id=send_id, number=number)
        for send_id, number in session.execute(_DUE_BATCHES, values)
    ]
    if not waiting.notices and outbox.any_due(session, now=now):
        jobs.append(_job(_OUTBOX_JOB, _OUTBOX_JOB))
    if not jobs:
        return 0
    _set_search_path(session)
    try:
        with session.begin_nested():
            connection = session.connection().connection.driver_connection
            return len(_manager.batch_defer_jobs(jobs, connection=connection))
    except AlreadyEnqueued:
        # Another process has become the leader and has queued them.
        return 0


def delete_old_jobs(session: Session) -> int:
    """Delete the jobs of killed processes, and ended jobs; returns how many.

    Nothing is lost: batches that are not finished are queued again.
    """
    if not _installed(session):
        return 0
    _set_search_path(session)
    session.execute(_DELETE_DEAD_WORKERS)
    return len(session.execute(_DELETE_OLD_JOBS).all())


class _Worker(Worker):
    """procrastinate's worker, which looks for jobs when it is told to.

    Its own LISTEN wakes an idle process ten times a second, and misses a notification that comes
    before the LISTEN or while it fetches a job; that job waited for the next poll.
    """

    def look(self) -> None:
        """Fetch jobs now; to be called in the worker's event loop."""
        self._new_job_event.set()


class DistributedWorkers:
    """The workers of one of many processes: they fetch jobs and send the due batches.

    They look for jobs at each wakeup, so within a quarter of a second of a commit. A wakeup that
    comes while a worker fetches a job may be lost; while something is due, the next one comes
    after a second.
    """

    def __init__(
        self,
        database: Engine,
        wakeups: Wakeups,
        make_dispatcher: Callable[[], Dispatcher],
        *,
        concurrency: int,
    ) -> None:
        self._database, self._wakeups = database, wakeups
        self._dispatchers = [make_dispatcher() for _ in range(concurrency)]
        self._idle = queue.SimpleQueue[Dispatcher]()
        for dispatcher in self._dispatchers:
            self._idle.put(dispatcher)
        self._started, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="jobs")
        self._looking = threading.Thread(target=self._look, name="job wakeups")
        self._worker: _Worker | None = None

    def start(self) -> None:
        """Start to send."""
        install(self._database)
        tune_garbage_collector()
        self._wakeups.enter()
        self._thread.start()
        self._started.wait()
        self._looking.start()

    def stop(self) -> None:
        """Stop fetching jobs; return when the requests under way are finished and settled."""
        if not self._stopping.is_set():
            self._stopping.set()
            # First the thread that calls into the event loop, which then may close.
            self._wakeups.wake_all()
            self._looking.join()
            self._wakeups.leave()
            self._loop.call_soon_threadsafe(self._fetching.cancel)
        self._thread.join()
        for dispatcher in self._dispatchers:
            _release(dispatcher)

    @property
    def is_working(self) -> bool:
        """Whether the threads that fetch jobs are running; they start those that send."""
        return self._thread.is_alive() and self._looking.is_alive()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(len(self._dispatchers), "dispatch"))
        self._fetching = self._loop.create_task(self._fetch())
        self._started.set()
        await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        connector = PsycopgConnector(conninfo=conninfo(self._database), min_size=1, max_size=4)
        app = App(connector=connector)
        app.task(name=_BATCH_JOB)(self._send_batch)
        app.task(name=_OUTBOX_JOB)(self._send_outbox)
        while not self._stopping.is_set():
            try:
                async with app.open_async():
                    self._worker = _Worker(
                        app,
                        queues=[_QUEUE],
                        concurrency=len(self._dispatchers),
                        fetch_job_polling_interval=_POLL_INTERVAL,
                        abort_job_polling_interval=_HEARTBEAT_INTERVAL,  # No job is aborted.
                        update_heartbeat_interval=_HEARTBEAT_INTERVAL,
                        stalled_worker_timeout=3 * _HEARTBEAT_INTERVAL,
                        listen_notify=False,
                        # The ledger has the result of a batch, so no ended job is needed.
                        delete_jobs="always",
                        install_signal_handlers=False,
                    )
                    # When it is cancelled, it waits for the running jobs.
                    await self._worker.run()  # type: ignore[no-untyped-call]
            except Exception:  # noqa: BLE001 (this process must go on fetching jobs)
                _log.exception("could not fetch jobs; trying again")
            # The worker returned, with or without an exception: the database is not reachable.
            await asyncio.sleep(_RETRY_DELAY)

    def _look(self) -> None:
        seen = self._wakeups.count
        while not self._stopping.is_set():
            self._wakeups.wait(seen, self._stopping)
            seen = self._wakeups.count
            if self._worker is not None and not self._stopping.is_set():
                self._loop.call_soon_threadsafe(self._worker.look)

    def _send_batch(self, send_id: int, number: int) -> None:
        with self._dispatcher() as dispatcher:
            dispatcher.send_batch(send_id, number)
            # Fetching a job per batch would take a fifth of the time: claim from the ledger.
            while self._may_continue() and dispatcher.send_next(more=self._may_continue):
                pass

    def _may_continue(self) -> bool:
        return not self._stopping.is_set()

    def _send_outbox(self) -> None:
        with self._dispatcher() as dispatcher:
            while not self._stopping.is_set() and dispatcher.send_outbox_email():
                pass

    @contextmanager
    def _dispatcher(self) -> Iterator[Dispatcher]:
        """A dispatcher that no other thread uses meanwhile."""
        dispatcher = self._idle.get()
        try:
            yield dispatcher
        except Exception:  # noqa: BLE001 (whatever it is, the answer must be kept)
            _log.exception("could not send or settle a batch; trying again")
            # An answer is kept until it is settled, so that its batch does not become uncertain.
            while not self._stopping.wait(_RETRY_DELAY) and not _release(dispatcher):
                pass
        finally:
            self._idle.put(dispatcher)


def _release(dispatcher: Dispatcher) -> bool:
    try:
        dispatcher.release()
    except Exception:  # noqa: BLE001 (it is tried again, or another process recovers it)
        _log.exception("could not settle the last batch; it will be recovered later")
        return False
    return True


def _job(task: str, name: str, **ids: int) -> Job:
    return Job(
        queue=_QUEUE,
        task_name=task,
        task_kwargs=dict(ids),
        lock=None,
        queueing_lock=name,
        # Before batches: a subscriber waits for the email.
        priority=int(task == _OUTBOX_JOB),
    )


def _installed(session: Session) -> bool:
    """Whether procrastinate's tables exist."""
    table = func.to_regclass(f"{_SCHEMA}.procrastinate_jobs")
    return session.scalar(select(table.is_not(None))) is True


def _set_search_path(session: Session) -> None:
    """Put procrastinate's schema first in the search path of this transaction."""
    path = func.concat(_SCHEMA, ",", func.current_setting("search_path"))
    session.execute(select(func.set_config("search_path", path, True)))  # noqa: FBT003


def conninfo(engine: Engine) -> str:
    """SQLAlchemy's connection string for psycopg, with procrastinate's schema as search path."""
    _, options = engine.dialect.create_connect_args(engine.url)
    options.pop("context", None)
    options["options"] = f"{options.get('options', '')} -c search_path={_SCHEMA}".strip()
    return make_conninfo(**options)
