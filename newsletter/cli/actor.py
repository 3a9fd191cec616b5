"""The user of the command line: their name in the audit log, and signals that stop a command."""

import getpass
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from newsletter.accounts.audit import Actor


#: Sent by Ctrl-C, by a service manager, and when a terminal is closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


#: Seconds in which a stop signal is noticed.
_LONGEST_SLEEP: Final = 0.2


class StoppedError(Exception):
    """A signal has stopped a command, which has already printed what the user needs to know."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Stop:
    """Whether a stop signal came, and which was the first.

    It is no threading.Event: a signal's handler may interrupt the thread that holds the Event's
    lock, and setting the Event would wait for that lock for ever.
    """

    signal: int = signal.SIGINT

    def __init__(self) -> None:
        self._is_set = False

    def set(self, number: int) -> None:
        """Note a signal. A handler may call this at any moment."""
        if not self._is_set:
            self.signal, self._is_set = number, True

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self._is_set

    def wait(self, timeout: float = math.inf) -> bool:
        """Wait for a signal, ``timeout`` seconds at most; returns whether one came.

        A signal that arrives just before a thread blocks does not wake it, and its handler runs
        only when the thread goes on. Thus a long wait is made of short sleeps.
        """
        end = time.monotonic() + timeout
        while not self._is_set and (left := end - time.monotonic()) > 0:
            time.sleep(min(_LONGEST_SLEEP, left))
        return self._is_set


@contextmanager
def stopping() -> Iterator[Stop]:
    """In this block, stop signals only set the event, so that work in progress can finish.

    An ignored signal stays ignored, as SIGHUP under nohup.
    """
    stop = Stop()

    def note(number: int, _frame: FrameType | None) -> None:
        stop.set(number)

    numbers = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def who() -> "Actor":
    """The operating system's user, as the actor of the audit log."""
    from newsletter.accounts.audit import Actor  # noqa: PLC0415 (help needs no database)

    try:
        return Actor(None, f"command line ({getpass.getuser()})")
    except (OSError, KeyError):
        return Actor(None, "command line")
