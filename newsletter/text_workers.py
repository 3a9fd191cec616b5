"""A process that reads, renders and checks what authors write, apart from the service.

Python runs one thread at a time, and some libraries let no other run until they are done. A text
that takes long must not keep anybody from leaving, nor the provider from posting events. So
whatever runs for long does such work in a process of its own, started when it is first needed. It
has a time limit and a memory limit, and is killed and replaced when it passes one. Commands that
end by themselves do the same work where they are: there is nobody whom they could keep waiting.

Child and parent speak over a socket, in pickles: both are ours. What the child needs is told it
with the text, and its environment has no setting, so it is given no key of the provider or of
links. It is no sandbox: it runs as the same user.
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

#: Seconds of processor time that one text may take. Prose of the greatest length takes five.
TIME_LIMIT: Final = 20.0
#: So many times as long it may take by the clock, on a machine that has other work as well.
_PATIENCE: Final = 2
#: Bytes of address space of a process; rendering takes a quarter of it.
MEMORY_LIMIT: Final = 1_500_000_000
#: Seconds for a process to start and import, on a machine that is busy.
_START_LIMIT: Final = 60.0
#: Seconds after which a process without work ends, to give its memory back.
_IDLE: Final = 300.0
#: How often it is looked whether the service was told to stop, in seconds.
_LOOK: Final = 0.1
#: Seconds for a process to be gone once it has closed its end of the socket.
_GOING: Final = 5.0
#: What a child takes over of our environment: where programs and libraries are, and the language.
_KEPT: Final = frozenset({"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ"})
_KEPT_BEGIN: Final = ("LC_", "PYTHON")
#: With these others end processes orderly, as a service manager does with all at once.
_TOLD: Final = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
#: What a child says when it has started, and when it begins with a text.
_HERE: Final = b"here"
_LATER: Final = "Try again in a minute."
_SHORTEN: Final = "Shorten it, or take out what repeats a sign very often."


class TooMuchWorkError(UserError):
    """A text takes more time or memory than one may, or breaks the process that works on it."""


@dataclass(slots=True)
class _Process:
    """A running child, and our end of its socket."""

    process: subprocess.Popen[bytes]
    connection: Connection

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def ended_with(self) -> int:
        """The exit status of one that has closed its end of the socket."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GOING)
        self.kill()
        return self.process.returncode


@dataclass
class TextWorkers:
    """Up to ``processes`` children, and ``waiting`` callers beside those that are served.

    With no process at all the work is done where it is asked for. ``stopping`` says whether the
    service was told to stop: whoever waits gives up then, as after ``stop``.
    """

    processes: int = 1
    waiting: int = 6
    time_limit: float = TIME_LIMIT
    memory_limit: int = MEMORY_LIMIT
    stopping: Callable[[], bool] = lambda: False
    _free: list[_Process] = field(default_factory=list)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._turn = threading.Semaphore(self.processes)
        self._room = threading.Semaphore(self.processes + self.waiting)
        self._lock = threading.Lock()

    def __call__(
        self, function: Callable[_Given, _Result], *args: _Given.args, **named: _Given.kwargs
    ) -> _Result:
        """``function(*args, **named)``, done by a child; it and all that it takes can be pickled.

        Raises the UserError that it raises; TooMuchWorkError for what passes a limit; and
        BusyError where it was not tried, or not to its end, and may be a moment later.
        """
        if not self.processes:
            return function(*args, **named)
        if not self._room.acquire(blocking=False):
            raise BusyError(
                f"{self.processes + self.waiting} texts are being worked on or wait for it, "
                "and no more may",
                hint=_LATER,
            )
        try:
            self._wait_for_turn()
            try:
                return cast("_Result", self._done(pickle.dumps((function, args, named))))
            finally:
                self._turn.release()
        finally:
            self._room.release()

    def stop(self) -> None:
        """End all children; whoever waits for one gives up, and ends it, within a moment."""
        with self._lock:
            self._stopped = True
            free, self._free = self._free, []
        for child in free:
            child.kill()

    def _wait_for_turn(self) -> None:
        limit = _PATIENCE * self.time_limit
        deadline = time.monotonic() + limit
        while not self._turn.acquire(timeout=_LOOK):
            self._give_up_if_over()
            if time.monotonic() > deadline:
                raise BusyError(
                    f"texts before this one took longer than {limit:g} seconds", hint=_LATER
                )

    def _done(self, work: bytes) -> object:
        # At most so many were free, and ended before they read it: the next is a new one.
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
        raise RuntimeError(f"a text could not be worked on:\n{value}")

    def _answer(self, child: _Process, work: bytes) -> tuple[str, object] | None:
        """What a child says; None if it ended before it began, as after long without work."""
        is_begun = is_sound = False
        try:
            child.connection.send_bytes(work)
            is_begun = self._is_heard(child, _START_LIMIT) and bool(child.connection.recv_bytes())
            if not is_begun:
                return None
            if not self._is_heard(child, _PATIENCE * self.time_limit):
                raise _not_done(self.time_limit)
            answer: tuple[str, object] = pickle.loads(child.connection.recv_bytes())  # noqa: S301 (our child)
            # One that ran out of memory once may be left with little.
            is_sound = answer[0] != "memory" and not self._is_over()
        except (EOFError, OSError):
            self._give_up_if_over()
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

    def _is_heard(self, child: _Process, limit: float) -> bool:
        """Wait until the child says something; False where it takes longer than the limit."""
        deadline = time.monotonic() + limit
        while not child.connection.poll(_LOOK):
            self._give_up_if_over()
            if time.monotonic() > deadline:
                return False
        return True

    def _child(self) -> _Process:
        """One that is free and lives, or a new one."""
        with self._lock:
            while self._free:
                child = self._free.pop()
                if child.process.poll() is None:
                    return child
                child.kill()
        child = _started(self.memory_limit, self.time_limit)
        try:
            is_ready = self._is_heard(child, _START_LIMIT) and child.connection.recv_bytes()
        except (EOFError, OSError):
            is_ready = False
        except BaseException:
            child.kill()
            raise
        if not is_ready:
            child.kill()
            self._give_up_if_over()
            raise _not_started()
        return child

    def _is_over(self) -> bool:
        return self._stopped or self.stopping()

    def _give_up_if_over(self) -> None:
        if self._is_over():
            raise BusyError("the service is stopping", hint="Try again when it runs.")


def _started(memory_limit: int, time_limit: float) -> _Process:
    ours, theirs = socket.socketpair()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_BEGIN)
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
            # Ctrl-C and a terminal that is closed are for the service, which ends us.
            start_new_session=True,
        )
    return _Process(process, Connection(ours.detach()))


def _not_started() -> UserError:
    return MachineError(
        "the process that works on texts does not start",
        hint="Memory may be short on this machine.",
    )


def _too_long(limit: float) -> UserError:
    said = f"this text takes more than {limit:g} seconds of processor time, and was given up"
    _log.warning("%s", said)
    return TooMuchWorkError(said, hint=_SHORTEN)


def _not_done(limit: float) -> UserError:
    """What to say where the clock ran out, and not the processor time."""
    said = (
        f"this text was given up after {_PATIENCE * limit:g} seconds: "
        f"it may take {limit:g} of processor time, and this machine is busy"
    )
    _log.warning("%s", said)
    return BusyError(said, hint=f"{_LATER} If it stays so, shorten the text.")


def _too_large(limit: int) -> UserError:
    said = f"this text takes more than {limit / 1e9:g} GB of memory, and was given up"
    _log.warning("%s", said)
    return TooMuchWorkError(said, hint=_SHORTEN)


def _broken(status: int, time_limit: float) -> UserError:
    """What to say of a child that ended in the middle of its work, and by what."""
    if -status == signal.SIGXCPU:
        return _too_long(time_limit)
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if -status in _TOLD:
        return BusyError(f"the process that worked on this text was ended ({how})", hint=_LATER)
    said = f"the process that worked on this text was ended or broke ({how})"
    _log.warning("%s", said)
    hint = "Try again. If that happens each time, shorten it: memory of the machine may be short."
    return TooMuchWorkError(said, hint=hint)


def work(handle: int, memory_limit: int, time_limit: float) -> None:
    """What a child does until its parent is gone, or has had nothing to do for long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where memory is short the system ends this process before the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Imported before the first text comes, so that its time is its own.
    from newsletter.checking import checker  # noqa: F401, PLC0415

    _limit(resource.RLIMIT_AS, memory_limit)
    _limit(resource.RLIMIT_CORE, 0)
    connection = Connection(handle)
    # The parent may be gone at any moment; then there is nobody left to tell.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
        connection.send_bytes(_HERE)
        while connection.poll(_IDLE):
            text = connection.recv_bytes()
            connection.send_bytes(_HERE)
            # The system keeps this limit, also of code that lets no other run, and if the parent
            # is gone. It counts whole seconds.
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            _limit(resource.RLIMIT_CPU, math.ceil(used + time_limit))
            connection.send_bytes(_worked(text))


def _worked(text: bytes) -> bytes:
    """The answer to one text."""
    try:
        function, args, named = pickle.loads(text)  # noqa: S301 (our parent)
        return pickle.dumps(("done", function(*args, **named)))
    except UserError as error:
        return pickle.dumps(("refused", error))
    except MemoryError:
        return pickle.dumps(("memory", None))
    except Exception as error:  # noqa: BLE001 (told to the parent, which tells the log)
        return pickle.dumps(("failed", "".join(traceback.format_exception(error))))


def _limit(kind: int, most: int) -> None:
    """Set a limit of this process, unless the system has set a lower one."""
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        most = min(most, highest)
    resource.setrlimit(kind, (most, highest))


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
