"""The one door to APScheduler: a clock that one process runs at a time (leadership.py).

What is due stands in our own rows, so that a tick that is missed or doubled is harmless. The
jobs stand in memory: each start makes them anew. Those that look for due work run when
something was committed or came due (wakeups.py), so that an idle clock costs nothing.
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

#: Smaller corrections of the machine's clock are slept through.
_STEP = timedelta(seconds=2)

#: Job id → function, and seconds between two runs at least. They run after a commit, when
#: something comes due, and every half minute in any case.
_WOKEN: dict[str, tuple[Callable[[], None], float]] = {
    "fire-schedules": (tasks.fire_schedules, 0.5),
    "start-due-sends": (tasks.start_due_sends, 0.5),
    "feed-workers": (tasks.queue_due_batches, 0.5),
    "decide-tests": (tasks.decide_tests, 1),
    "check-circuit-breakers": (tasks.check_circuit_breakers, 5),
    "look-after-doubt": (tasks.settle_uncertain, 5),
    "leave-lists": (tasks.remove_from_provider_lists, 5),
    "tell-operators": (tasks.tell_operators, 5),
}
_AT_LEAST = 30
#: Job id → function, and seconds between two runs.
_STEADY: dict[str, tuple[Callable[[], None], int]] = {
    "count-people": (tasks.count_people, 60),
    "tidy-up": (tasks.delete_expired, 3600),
    "fold-old": (tasks.prune_old_data, 3600),
    "reconcile": (tasks.reconcile, 300),
}
#: Asks the provider: a process that starts over and over does not do so each time.
_NOT_AT_ONCE = frozenset({"reconcile"})


class Clock:
    """Runs the jobs while this process leads, and waits for the lead while it does not."""

    def __init__(self, database: Engine, context: tasks.TaskContext, wakeups: Wakeups) -> None:
        self._leadership = leadership(database)
        self._context = context
        self._wakeups = wakeups
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="clock")
        self._scheduler: BackgroundScheduler | None = None
        #: Job id → when it was last told to run.
        self._told: dict[str, datetime] = {}

    def start(self) -> None:
        """Begin to lead, or to wait for the lead."""
        tasks.configure_tasks(self._context)
        self._wakeups.enter()
        self._keeper.start()

    def stop(self) -> None:
        """End the running job, give the lead back, and return."""
        self._stopping.set()
        self._wakeups.rouse()
        self._keeper.join()
        self._wakeups.leave()

    @property
    def holding(self) -> bool:
        """Whether this process is the one that ticks."""
        return self._scheduler is not None

    def _keep(self) -> None:
        renewed, held, hurried = -RENEW, False, self._wakeups.count
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
                    self._put_right(self._scheduler)
                    if seen != hurried:
                        self._hurry(self._scheduler)
                hurried = seen
            except Exception:  # noqa: BLE001 (else no process would tick while this one lives)
                _log.exception("the clock cannot begin, end or be put right; trying again")
            self._wakeups.wait(seen, self._stopping, RENEW)
        if self._scheduler is not None:
            self._end()
        self._leadership.give_back()

    def _hold(self) -> bool:
        try:
            return self._leadership.hold()
        except Exception:  # noqa: BLE001 (whatever it is, the next try may succeed)
            _log.exception("the lead of the clock cannot be taken or kept")
            return False

    def _begin(self) -> None:
        tasks.leaving.clear()
        scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(3)},
            # Late ticks are run once, however many were missed: what is due stands in our rows.
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
            timezone=UTC,
        )
        scheduler.add_listener(self._missed, EVENT_JOB_MAX_INSTANCES)
        _write_jobs(scheduler)
        scheduler.start()
        self._told.clear()
        self._scheduler = scheduler
        _log.info("this process holds the clock")

    def _hurry(self, scheduler: BackgroundScheduler) -> None:
        """Let the jobs that look for due work run soon: there may be some."""
        now = datetime.now(UTC)
        for job_id, (_, pause) in _WOKEN.items():
            planned = scheduler.get_job(job_id).next_run_time
            told = self._told.get(job_id, now - timedelta(seconds=pause))
            soon = max(now, told + timedelta(seconds=pause))
            # Otherwise a run is still ahead that was told to come soon.
            if planned > soon:
                scheduler.modify_job(job_id, next_run_time=soon)
                self._told[job_id] = soon

    def _missed(self, event: JobSubmissionEvent) -> None:
        """Let a job run again that was still running: something may be due since it looked."""
        scheduler = self._scheduler
        if scheduler is not None and event.job_id in _WOKEN:
            soon = datetime.now(UTC) + timedelta(seconds=_WOKEN[event.job_id][1])
            scheduler.modify_job(event.job_id, next_run_time=soon)
            self._told[event.job_id] = soon

    def _put_right(self, scheduler: BackgroundScheduler) -> None:
        """Begin the jobs anew if one would come later than its interval allows.

        The machine's clock was ahead then and was put right: until it came there again nothing
        would tick, and nobody else could, for this process has the lead.
        """
        now = datetime.now(UTC)
        late = [
            job.id
            for job in scheduler.get_jobs()
            if job.next_run_time - now > job.trigger.interval + _STEP
        ]
        if late:
            _write_jobs(scheduler)
            self._told.clear()
            _log.warning("the clock was set back: jobs begin anew (%s)", ", ".join(late))

    def _end(self) -> None:
        assert self._scheduler is not None
        tasks.leaving.set()
        # APScheduler looks for due jobs once more after its executors have ended, and would
        # report each as an error.
        self._scheduler.remove_all_jobs()
        self._scheduler.shutdown(wait=True)
        self._scheduler = None


def _write_jobs(scheduler: BackgroundScheduler) -> None:
    woken = {job_id: (function, _AT_LEAST) for job_id, (function, _) in _WOKEN.items()}
    for job_id, (function, seconds) in {**woken, **_STEADY}.items():
        scheduler.add_job(
            function,
            "interval",
            seconds=seconds,
            id=job_id,
            replace_existing=True,
            next_run_time=datetime.now(UTC)
            + timedelta(seconds=seconds if job_id in _NOT_AT_ONCE else 0),
        )
