"""The one door to APScheduler: a clock, kept in the database, that one process holds at a time.

Two APSchedulers on one job store run jobs twice and break each other, so a process
starts its own only while it holds the lease, and another takes over when the lease
ends. What is due stands in our own rows: a tick that is missed or doubled is harmless.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine, delete
from sqlalchemy.exc import SQLAlchemyError

from newsletter.db.dialect import insert_into
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.scheduling import tasks
from newsletter.scheduling.models import Lease

_log = logging.getLogger(__name__)
_lease = table_of(Lease)

_NAME = "clock"
_LEASE = timedelta(seconds=10)
_RENEW = 3.0  # seconds
#: Smaller corrections of the machine's clock are slept through.
_STEP = timedelta(seconds=2)
_TROUBLED = 1.0  # seconds, after the jobs could not be written

#: Job id, function, seconds between ticks.
_JOBS: tuple[tuple[str, Callable[[], None], int], ...] = (
    ("fire-schedules", tasks.fire_schedules, 1),
    ("start-due-sends", tasks.start_due_sends, 1),
    ("feed-workers", tasks.queue_due_batches, 1),
    ("decide-tests", tasks.decide_tests, 1),
    ("watch-alarms", tasks.check_circuit_breakers, 5),
    ("look-after-doubt", tasks.settle_uncertain, 5),
    ("count-people", tasks.count_people, 60),
    ("tidy-up", tasks.delete_expired, 3600),
    ("fold-old", tasks.prune_old_data, 3600),
    ("reconcile", tasks.reconcile, 300),
    ("leave-lists", tasks.remove_from_provider_lists, 5),
    ("tell-operators", tasks.tell_operators, 5),
)
#: Asks the provider: a process that starts over and over does not do so each time.
_NOT_AT_ONCE = frozenset({"reconcile"})


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no types
    """Goes on when a job's next time cannot be written: APScheduler's own thread ends of it."""

    def _main_loop(self) -> None:
        while True:
            try:
                super()._main_loop()
            except Exception:  # noqa: BLE001 (else this process would hold the clock and not tick)
                _log.exception("the clock's jobs cannot be written; trying again")
                time.sleep(_TROUBLED)
                # It waits for this, and looks at once for what has come due meanwhile.
                self.wakeup()
            else:
                return


class Clock:
    """Runs the jobs while this process holds the lease, and waits for it while it does not."""

    def __init__(self, database: Engine, desk: tasks.TaskContext) -> None:
        self._database = database
        self._desk = desk
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="clock")
        self._scheduler: _Scheduler | None = None

    def start(self) -> None:
        """Begin to hold, or to wait for, the lease."""
        tasks.configure_tasks(self._desk)
        self._keeper.start()

    def stop(self) -> None:
        """End the running job, give the lease back, and return."""
        self._stopping.set()
        self._keeper.join()

    @property
    def holding(self) -> bool:
        """Whether this process is the one that ticks."""
        return self._scheduler is not None

    def _keep(self) -> None:
        while True:
            try:
                held = self._hold()
            except Exception:  # noqa: BLE001 (whatever it is, the next renewal may succeed)
                _log.exception("the clock's lease cannot be renewed")
                held = False
            try:
                if held and self._scheduler is None:
                    self._begin()
                elif not held and self._scheduler is not None:
                    self._end()
                elif self._scheduler is not None:
                    self._wake(self._scheduler)
            except Exception:  # noqa: BLE001 (else no process would tick while this one lives)
                _log.exception("the clock cannot begin, end or be put right; trying again")
            if self._stopping.wait(_RENEW):
                break
        if self._scheduler is not None:
            self._end()
            try:
                with transaction(self._database) as session:
                    session.execute(delete(_lease).where(_lease.c.holder == self._holder))
            except Exception as error:  # noqa: BLE001 (a thread's end has nobody to tell)
                _log.warning("the clock is not given back, its lease ends by itself: %s", error)

    def _hold(self) -> bool:
        """Take or renew the lease; False while another process holds it."""
        now = datetime.now(UTC)
        with transaction(self._database) as session:
            insert = insert_into(session, _lease).values(
                name=_NAME, holder=self._holder, until=now + _LEASE
            )
            statement = insert.on_conflict_do_update(
                index_elements=["name"],
                set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
                where=(_lease.c.holder == self._holder) | (_lease.c.until < now),
            ).returning(_lease.c.holder)
            return bool(session.scalar(statement) == self._holder)

    def _begin(self) -> None:
        tasks.leaving.clear()
        scheduler = _Scheduler(
            jobstores={"default": SQLAlchemyJobStore(engine=self._database, tablename="clock_job")},
            executors={"default": ThreadPoolExecutor(3)},
            # Late ticks are run once, however many were missed: what is due stands in our rows.
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
            timezone=UTC,
        )
        _write_jobs(scheduler)
        scheduler.start()
        self._scheduler = scheduler
        _log.info("this process holds the clock")

    def _wake(self, scheduler: BackgroundScheduler) -> None:
        """Begin the jobs anew if one would come later than its interval allows.

        The machine's clock was ahead then and was put right: until it came there again nothing
        would tick, and nobody else could, for this process holds the lease.
        """
        now = datetime.now(UTC)
        late = [
            job.id
            for job in scheduler.get_jobs()
            if job.next_run_time - now > job.trigger.interval + _STEP
        ]
        if late:
            _write_jobs(scheduler)
            _log.warning("the clock was set back: jobs begin anew (%s)", ", ".join(late))

    def _end(self) -> None:
        assert self._scheduler is not None
        tasks.leaving.set()
        try:
            # APScheduler looks for due jobs once more after its executors have ended, and would
            # report each as an error. Whoever begins next writes them again.
            self._scheduler.remove_all_jobs()
        except SQLAlchemyError:
            _log.exception("the clock's jobs stay in the database; the next holder replaces them")
        self._scheduler.shutdown(wait=True)
        self._scheduler = None


def _write_jobs(scheduler: BackgroundScheduler) -> None:
    for job_id, function, seconds in _JOBS:
        scheduler.add_job(
            function,
            "interval",
            seconds=seconds,
            id=job_id,
            replace_existing=True,
            next_run_time=datetime.now(UTC)
            + timedelta(seconds=seconds if job_id in _NOT_AT_ONCE else 0),
        )
