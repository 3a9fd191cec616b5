"""Adapter for APScheduler: a clock that one process runs at a time (leadership.py).

The database says what is due, so a missed or repeated run does no harm. Jobs are kept in memory and
created at each start. Jobs that look for due work run after a commit or when something becomes due
(wakeups.py), so an idle clock costs nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine

from newsletter.scheduling import tasks
from newsletter.scheduling.leadership import RENEW, leadership
from newsletter.wakeups import Wakeups

_log = logging.getLogger(__name__)
# It warns of each job that is due while it still runs; _missed runs that job again.
logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)

#: Smaller corrections of the machine's clock are ignored.
_MIN_CLOCK_STEP = timedelta(seconds=2)

#: Job id → function, and the least seconds between two runs. They run after a commit, when
#: something becomes due, and at least every half minute.
_WAKEUP_JOBS: dict[str, tuple[Callable[[], None], float]] = {
    "run-schedules": (tasks.run_schedules, 0.5),
    "start-due-sends": (tasks.start_due_sends, 0.5),
    "queue-due-batches": (tasks.queue_due_batches, 0.5),
    "choose-winners": (tasks.choose_winners, 1),
    "check-circuit-breakers": (tasks.check_circuit_breakers, 5),
    "resolve-uncertain": (tasks.resolve_uncertain, 5),
    "remove-from-provider-lists": (tasks.remove_from_provider_lists, 5),
    "tell-operators": (tasks.tell_operators, 5),
}
_MAX_INTERVAL = 30
#: Job id → function, and seconds between two runs, for jobs that only the time starts.
_INTERVAL_JOBS: dict[str, tuple[Callable[[], None], int]] = {
    "count-subscribers": (tasks.count_subscribers, 60),
    "delete-expired": (tasks.delete_expired, 3600),
    "prune-old-data": (tasks.prune_old_data, 3600),
    "reconcile": (tasks.reconcile, 300),
    "post-messages": (tasks.post_messages, 300),
    "back-up": (tasks.back_up, 60),
}
#: Jobs with requests to the provider, which a process that restarts often must not repeat.
_NOT_AT_START = frozenset({"reconcile"})


class Clock:
    """Runs the jobs while this process is the leader, else waits to become it."""

    def __init__(self, database: Engine, context: tasks.TaskContext, wakeups: Wakeups) -> None:
        self._leadership = leadership(database)
        self._context = context
        self._wakeups = wakeups
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock")
        self._scheduler: BackgroundScheduler | None = None
        #: Job id → the time for which it was last requested.
        self._requested: dict[str, datetime] = {}

    def start(self) -> None:
        """Start the thread that becomes the leader, or waits to become it."""
        tasks.configure_tasks(self._context)
        self._wakeups.enter()
        self._thread.start()

    def stop(self) -> None:
        """Wait for the running jobs, and release the leadership."""
        self._stopping.set()
        self._wakeups.wake_all()
        self._thread.join()
        self._wakeups.leave()

    @property
    def is_leader(self) -> bool:
        """Whether this process runs the jobs."""
        return self._scheduler is not None

    def _run(self) -> None:
        renewed, held, handled = -RENEW, False, self._wakeups.count
        while not self._stopping.is_set():
            seen = self._wakeups.count
            if time.monotonic() - renewed >= RENEW:
                held, renewed = self._hold(), time.monotonic()
            try:
                if held and self._scheduler is None:
                    self._begin()
                elif not held and self._scheduler is not None:
                    self._end()
                elif self._scheduler is not None:
                    self._repair_intervals(self._scheduler)
                    if seen != handled:
                        self._request_runs(self._scheduler)
                handled = seen
            except Exception:  # noqa: BLE001 (else no process would run jobs while this one lives)
                _log.exception("the clock could not start, stop or reset its jobs; trying again")
            self._wakeups.wait(seen, self._stopping, RENEW)
        if self._scheduler is not None:
            self._end()
        self._leadership.release()

    def _hold(self) -> bool:
        try:
            return self._leadership.hold()
        except Exception:  # noqa: BLE001 (the next attempt may succeed)
            _log.exception("the leadership of the clock could not be acquired or kept")
            return False

    def _begin(self) -> None:
        tasks.stopping.clear()
        scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(3)},
            # Missed runs are made up by one, because the database says what is due.
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
            timezone=UTC,
        )
        scheduler.add_listener(self._missed, EVENT_JOB_MAX_INSTANCES)
        _write_jobs(scheduler)
        scheduler.start()
        self._requested.clear()
        self._scheduler = scheduler
        _log.info("this process runs the clock")

    def _request_runs(self, scheduler: BackgroundScheduler) -> None:
        """Let the jobs that look for due work run soon."""
        now = datetime.now(UTC)
        for job_id, (_, pause) in _WAKEUP_JOBS.items():
            planned = scheduler.get_job(job_id).next_run_time
            requested = self._requested.get(job_id, now - timedelta(seconds=pause))
            soon = max(now, requested + timedelta(seconds=pause))
            # An earlier planned run stays.
            if planned > soon:
                scheduler.modify_job(job_id, next_run_time=soon)
                self._requested[job_id] = soon

    def _missed(self, event: JobSubmissionEvent) -> None:
        """Run a job again that was still running: something may have become due meanwhile."""
        scheduler = self._scheduler
        if scheduler is not None and event.job_id in _WAKEUP_JOBS:
            soon = datetime.now(UTC) + timedelta(seconds=_WAKEUP_JOBS[event.job_id][1])
            scheduler.modify_job(event.job_id, next_run_time=soon)
            self._requested[event.job_id] = soon

    def _repair_intervals(self, scheduler: BackgroundScheduler) -> None:
        """Create the jobs again if one would run later than its interval allows.

        This happens after the machine's clock was set back. Until the planned time nothing would
        run, and no other process could run it, because this one is the leader.
        """
        now = datetime.now(UTC)
        late = [
            job.id
            for job in scheduler.get_jobs()
            if job.next_run_time - now > job.trigger.interval + _MIN_CLOCK_STEP
        ]
        if late:
            _write_jobs(scheduler)
            self._requested.clear()
            _log.warning("the clock was set back: jobs are restarted (%s)", ", ".join(late))

    def _end(self) -> None:
        assert self._scheduler is not None
        tasks.stopping.set()
        # APScheduler looks for due jobs again after its executors have ended, and would log an
        # error for each.
        self._scheduler.remove_all_jobs()
        self._scheduler.shutdown(wait=True)
        self._scheduler = None


def _write_jobs(scheduler: BackgroundScheduler) -> None:
    woken = {job_id: (function, _MAX_INTERVAL) for job_id, (function, _) in _WAKEUP_JOBS.items()}
    for job_id, (function, seconds) in {**woken, **_INTERVAL_JOBS}.items():
        scheduler.add_job(
            function,
            "interval",
            seconds=seconds,
            id=job_id,
            replace_existing=True,
            next_run_time=datetime.now(UTC)
            + timedelta(seconds=seconds if job_id in _NOT_AT_START else 0),
        )
