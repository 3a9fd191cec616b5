"""Runs parsing, rendering and checking of authors' texts in a separate process.

Python runs one thread at a time, and some libraries block all other threads. A slow text must not
delay unsubscribe requests or events of the provider. So long-running processes do this work in a
child process, which starts on first use. It has limits of time and memory, and is killed and
replaced when it exceeds one. Short-lived commands do the work in their own process, because nothing
else waits for it.

Parent and child exchange pickles over a socket. The child gets everything it needs with the text,
and its environment contains no settings, so it has no key of the provider or of links. It is not a
sandbox: it runs as the same user.
"""

import contextlib
import logging
import math
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, ParamSpec, TypeVar, cast

from newsletter.errors import BusyError, MachineError, UserError

_log = logging.getLogger(__name__)
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

#: Seconds of processor time for one text. Prose of the greatest length takes five.
TIME_LIMIT: Final = 20.0
#: The limit of wall clock time, as a multiple of TIME_LIMIT, because the machine may be busy.
_PATIENCE: Final = 2
#: Bytes of address space of a process; rendering takes a quarter of it.
MEMORY_LIMIT: Final = 1_500_000_000
#: Seconds for a process to start and import, on a machine that is busy.
_START_LIMIT: Final = 60.0
#: Seconds after which a process without work ends, to give its memory back.
_IDLE: Final = 300.0
#: Seconds between checks whether the service is stopping.
_POLL: Final = 0.1
#: Seconds for a process to exit after it has closed its end of the socket.
_EXIT_LIMIT: Final = 5.0
#: Environment variables that a child inherits: paths of programs and libraries, and the language.
_INHERITED: Final = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ"}
)
_INHERITED_PREFIXES: Final = ("LC_", "PYTHON")
#: Signals with which service managers end all processes.
_END_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
#: A child sends this when it has started, and when it begins with a text.
_READY: Final = b"ready"
_LATER: Final = "Try again in a minute."
_SHORTEN: Final = "Shorten it, or remove long repetitions of one character."


class TooMuchWorkError(UserError):
    """A text takes too much time or memory, or crashes the process that works on it."""


@dataclass(slots=True)
class _Process:
    """A running child, and our end of its socket."""

    process: subprocess.Popen[bytes]
    connection: Connection

    def kill(self) -> None:
        """Kill the process and wait until it has exited."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def ended_with(self) -> int:
        """The exit status of a process that has closed its end of the socket."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_EXIT_LIMIT)
        self.kill()
        return self.process.returncode


@dataclass
class TextWorkers:
    """Up to ``processes`` children, and up to ``waiting`` callers that wait for one.

    With 0 processes the work is done in the calling process. When ``stopping`` returns True, or
    after ``stop``, waiting callers get BusyError.
    """

    processes: int = 1
    waiting: int = 6
    time_limit: float = TIME_LIMIT
    memory_limit: int = MEMORY_LIMIT
    stopping: Callable[[], bool] = lambda: False
    _free: list[_Process] = field(default_factory=list)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._serving = threading.Semaphore(self.processes)
        self._admitted = threading.Semaphore(self.processes + self.waiting)
        self._lock = threading.Lock()

    def __call__(
        self, function: Callable[_Given, _Result], *args: _Given.args, **named: _Given.kwargs
    ) -> _Result:
        """Call ``function(*args, **named)`` in a child; function and arguments must be picklable.

        Raises the UserError that the function raises, TooMuchWorkError when a limit is exceeded,
        and BusyError when the call was not completed but may succeed later.
        """
        if not self.processes:
            return function(*args, **named)
        if not self._admitted.acquire(blocking=False):
            raise BusyError(
                f"{self.processes + self.waiting} texts are being processed or waiting, which is "
                "the limit",
                hint=_LATER,
            )
        try:
            self._wait_for_turn()
            try:
                return cast("_Result", self._done(pickle.dumps((function, args, named))))
            finally:
                self._serving.release()
        finally:
            self._admitted.release()

    def stop(self) -> None:
        """End all children; waiting callers give up and end theirs within a moment."""
        with self._lock:
            self._stopped = True
            free, self._free = self._free, []
        for child in free:
            child.kill()

    def _wait_for_turn(self) -> None:
        limit = _PATIENCE * self.time_limit
        deadline = time.monotonic() + limit
        while not self._serving.acquire(timeout=_POLL):
            self._raise_if_stopping()
            if time.monotonic() > deadline:
                raise BusyError(
                    f"texts before this one took longer than {limit:g} seconds", hint=_LATER
                )

    def _done(self, work: bytes) -> object:
        # At most ``processes`` idle children may have exited before they read the work.
        for _ in range(self.processes + 1):
            if answer := self._answer(self._child(), work):
                break
        else:
            raise _not_started()
        outcome, value = answer
        if outcome == "done":
            return value
        if outcome == "memory":
            raise _too_large(self.memory_limit)
        if outcome == "refused" and isinstance(value, UserError):
            raise value
        raise RuntimeError(f"a text could not be processed:\n{value}")

    def _answer(self, child: _Process, work: bytes) -> tuple[str, object] | None:
        """The child's answer; None if it exited before it began, as idle children do."""
        is_begun = is_sound = False
        try:
            child.connection.send_bytes(work)
            is_begun = self._has_answered(child, _START_LIMIT) and bool(
                child.connection.recv_bytes()
            )
            if not is_begun:
                return None
            if not self._has_answered(child, _PATIENCE * self.time_limit):
                raise _not_done(self.time_limit)
            answer: tuple[str, object] = pickle.loads(child.connection.recv_bytes())  # noqa: S301 (our child)
            # A child that ran out of memory may have little left.
            is_sound = answer[0] != "memory" and not self._is_stopping()
        except (EOFError, OSError):
            self._raise_if_stopping()
            if not is_begun:
                return None
            raise _broken(child.ended_with(), self.time_limit) from None
        finally:
            if is_sound:
                with self._lock:
                    self._free.append(child)
            else:
                child.kill()
        return answer

    def _has_answered(self, child: _Process, limit: float) -> bool:
        """Wait until the child sends something; False after ``limit`` seconds."""
        deadline = time.monotonic() + limit
        while not child.connection.poll(_POLL):
            self._raise_if_stopping()
            if time.monotonic() > deadline:
                return False
        return True

    def _child(self) -> _Process:
        """An idle child that is alive, or a new one."""
        with self._lock:
            while self._free:
                child = self._free.pop()
                if child.process.poll() is None:
                    return child
                child.kill()
        child = _started(self.memory_limit, self.time_limit)
        try:
            is_ready = self._has_answered(child, _START_LIMIT) and child.connection.recv_bytes()
        except (EOFError, OSError):
            is_ready = False
        except BaseException:
            child.kill()
            raise
        if not is_ready:
            child.kill()
            self._raise_if_stopping()
            raise _not_started()
        return child

    def _is_stopping(self) -> bool:
        return self._stopped or self.stopping()

    def _raise_if_stopping(self) -> None:
        if self._is_stopping():
            raise BusyError("the service is stopping", hint="Try again when it runs.")


def _started(memory_limit: int, time_limit: float) -> _Process:
    ours, theirs = socket.socketpair()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    with theirs:
        process = subprocess.Popen(  # noqa: S603 (ourselves)
            [
                # -P: nothing is imported from the folder where the service happens to run.
                *(sys.executable, "-P", "-m", __name__),
                *(str(theirs.fileno()), str(memory_limit), str(time_limit)),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            # The service handles Ctrl-C and a closed terminal, and ends its children.
            start_new_session=True,
        )
    return _Process(process, Connection(ours.detach()))


def _not_started() -> UserError:
    return MachineError(
        "the process for texts does not start",
        hint="This machine may lack memory.",
    )


def _too_long(limit: float) -> UserError:
    message = f"this text takes more than {limit:g} seconds of processor time, which is the limit"
    _log.warning("%s", message)
    return TooMuchWorkError(message, hint=_SHORTEN)


def _not_done(limit: float) -> UserError:
    """The error when the limit of wall clock time was exceeded, not that of processor time."""
    message = (
        f"this text was not finished within {_PATIENCE * limit:g} seconds: "
        f"it may use {limit:g} of processor time, and this machine is busy"
    )
    _log.warning("%s", message)
    return BusyError(message, hint=f"{_LATER} If this happens again, shorten the text.")


def _too_large(limit: int) -> UserError:
    message = f"this text takes more than {limit / 1e9:g} GB of memory, which is the limit"
    _log.warning("%s", message)
    return TooMuchWorkError(message, hint=_SHORTEN)


def _broken(status: int, time_limit: float) -> UserError:
    """The error for a child that exited during its work."""
    if -status == signal.SIGXCPU:
        return _too_long(time_limit)
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if -status in _END_SIGNALS:
        return BusyError(f"the process for this text was ended ({how})", hint=_LATER)
    message = f"the process for this text was ended or crashed ({how})"
    _log.warning("%s", message)
    hint = "Try again. If it fails again, shorten the text: this machine may lack memory."
    return TooMuchWorkError(message, hint=hint)


def work(handle: int, memory_limit: int, time_limit: float) -> None:
    """The main loop of a child, until its parent has exited or it was idle for too long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # When memory is short, the system kills this process before the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Imported before the first text, so that the import does not count towards its time.
    from newsletter.checking import checker  # noqa: F401, PLC0415

    _limit(resource.RLIMIT_AS, memory_limit)
    _limit(resource.RLIMIT_CORE, 0)
    connection = Connection(handle)
    # The parent may exit at any moment.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
        connection.send_bytes(_READY)
        while connection.poll(_IDLE):
            text = connection.recv_bytes()
            connection.send_bytes(_READY)
            # The system enforces this limit, even for code that blocks all threads, and after the
            # parent has exited. It counts whole seconds.
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            _limit(resource.RLIMIT_CPU, math.ceil(used + time_limit))
            connection.send_bytes(_worked(text))


def _worked(text: bytes) -> bytes:
    """The pickled answer to one text."""
    try:
        function, args, named = pickle.loads(text)  # noqa: S301 (our parent)
        return pickle.dumps(("done", function(*args, **named)))
    except UserError as error:
        return pickle.dumps(("refused", error))
    except MemoryError:
        return pickle.dumps(("memory", None))
    except Exception as error:  # noqa: BLE001 (the parent logs it)
        return pickle.dumps(("failed", "".join(traceback.format_exception(error))))


def _limit(kind: int, most: int) -> None:
    """Set a resource limit of this process, unless the system has set a lower one."""
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        most = min(most, highest)
    resource.setrlimit(kind, (most, highest))


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
