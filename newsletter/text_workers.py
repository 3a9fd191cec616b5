"""Processes that read, render and check what authors write, apart from the service.

Python runs one thread at a time, and some libraries let no other run until they are done. A text
that takes long must not keep anybody from leaving, nor the provider from posting events. So in
the service such work is done by a process of its own, started when it is first needed. It has a
time limit and a memory limit, and is killed and replaced when it passes one. Commands of the
operator do the same work in their own process: there is nobody whom they could keep waiting.

Child and parent speak over a socket, in pickles: both are ours. The child gets no settings from
the environment, so it knows no key of the provider or of links.
"""

import contextlib
import logging
import os
import pickle
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final, TypeVar, cast

from newsletter import errors
from newsletter.errors import MachineError, UserError

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

#: Seconds that one text may take. The longest issue allowed takes a few.
TIME_LIMIT: Final = 20.0
#: Bytes of address space of a process; rendering takes a third of it.
MEMORY_LIMIT: Final = 1_500_000_000
#: Seconds for a process to start and import, on a machine that is busy.
_START_LIMIT: Final = 60.0
#: Seconds after which a process without work ends, to give its memory back.
_IDLE: Final = 300.0
#: How often it is looked whether the service was told to stop, in seconds.
_LOOK: Final = 0.1


class TooMuchWorkError(UserError):
    """A text takes longer or more memory than one may, or too many others are waiting."""


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


@dataclass
class TextWorkers:
    """Up to ``processes`` children, and ``waiting`` callers beside those that are served.

    ``stopping`` says whether the service was told to stop: whoever waits gives up then.
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

    def __call__(self, function: Callable[..., _Result], *args: object, **named: object) -> _Result:
        """``function(*args, **named)``, done by a child; it and all that it takes can be pickled.

        Raises the UserError that it raises, and TooMuchWorkError.
        """
        if not self._room.acquire(blocking=False):
            raise TooMuchWorkError(
                "too many texts are being worked on at this moment", hint="Try again in a minute."
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
        """End all children, also in the middle of their work."""
        with self._lock:
            self._stopped = True
            free, self._free = self._free, []
        for child in free:
            child.kill()

    def _wait_for_turn(self) -> None:
        deadline = time.monotonic() + 2 * self.time_limit
        while not self._turn.acquire(timeout=_LOOK):
            if self._is_over() or time.monotonic() > deadline:
                raise _over() if self._is_over() else _too_long(self.time_limit)

    def _done(self, work: bytes) -> object:
        child = self._given(work)
        is_sound = False
        try:
            self._wait_for(child, self.time_limit)
            outcome, value = pickle.loads(child.connection.recv_bytes())  # noqa: S301 (our child)
            is_sound = True
        except (EOFError, OSError) as error:
            raise _too_large() from error
        finally:
            if is_sound and not self._is_over():
                with self._lock:
                    self._free.append(child)
            else:
                child.kill()
        if outcome == "done":
            return value
        if outcome == "refused":
            raise _error_of(value)
        raise RuntimeError(f"a text could not be worked on:\n{value}")

    def _given(self, work: bytes) -> _Process:
        """A child that has the work; one may just have ended that had none for long."""
        while True:
            child = self._child()
            try:
                child.connection.send_bytes(work)
            except OSError:
                child.kill()
                continue
            return child

    def _wait_for(self, child: _Process, limit: float) -> None:
        """Return when the child has something to say; raise where it takes too long."""
        deadline = time.monotonic() + limit
        while not child.connection.poll(_LOOK):
            if self._is_over():
                raise _over()
            if time.monotonic() > deadline:
                _log.warning("a text took longer than %s seconds, and was given up", limit)
                raise _too_long(limit)

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
            self._wait_for(child, _START_LIMIT)
            child.connection.recv_bytes()
        except BaseException as error:
            child.kill()
            if isinstance(error, EOFError | OSError):
                hint = "Memory may be short on this machine."
                message = "a process to work on texts does not start"
                raise MachineError(message, hint=hint) from error
            raise
        return child

    def _is_over(self) -> bool:
        return self._stopped or self.stopping()


def here(function: Callable[..., _Result], *args: object, **named: object) -> _Result:
    """The same without a process: for commands."""
    return function(*args, **named)


def _started(memory_limit: int, time_limit: float) -> _Process:
    ours, theirs = socket.socketpair()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NEWSLETTER_")}
    with theirs:
        process = subprocess.Popen(  # noqa: S603 (ourselves)
            [
                *(sys.executable, "-m", __name__),
                *(str(theirs.fileno()), str(memory_limit), str(time_limit)),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            # Ctrl-C is for the service, which ends us.
            start_new_session=True,
        )
    return _Process(process, Connection(ours.detach()))


def _over() -> UserError:
    return TooMuchWorkError("the service is stopping", hint="Try again when it runs.")


def _too_long(limit: float) -> UserError:
    return TooMuchWorkError(
        f"this text takes longer than {limit:g} seconds to work on, and was given up",
        hint="Shorten it, or take out what repeats a sign very often.",
    )


def _too_large() -> UserError:
    return TooMuchWorkError(
        "this text takes more memory than one may, and was given up",
        hint="Shorten it, or take out what repeats a sign very often.",
    )


def _error_of(told: tuple[str, str, str | None, str | None]) -> UserError:
    kind, message, place, hint = told
    made = getattr(errors, kind, UserError)
    error: UserError = made(message, place=place, hint=hint)
    return error


def work(handle: int, memory_limit: int, time_limit: float) -> None:
    """What a child does until its parent is gone, or has had nothing to do for long."""
    # Imported before the first text comes, so that its time is its own.
    from newsletter.checking import checker  # noqa: F401, PLC0415

    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    connection = Connection(handle)
    connection.send_bytes(b"ready")
    while connection.poll(_IDLE):
        try:
            text = connection.recv_bytes()
        except EOFError:
            return
        # Even if the parent was killed meanwhile and nobody ends us.
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + 2 * time_limit) + 1, hard))
        try:
            function, args, named = pickle.loads(text)  # noqa: S301 (our parent)
            answer = ("done", function(*args, **named))
        except UserError as error:
            kind = type(error).__name__
            answer = ("refused", (kind, error.message, error.place, error.hint))
        except MemoryError:
            return
        except Exception as error:  # noqa: BLE001 (told to the parent, which tells the log)
            import traceback  # noqa: PLC0415

            answer = ("failed", "".join(traceback.format_exception(error)))
        with contextlib.suppress(BrokenPipeError):
            connection.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
