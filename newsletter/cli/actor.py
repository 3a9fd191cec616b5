"""The user of the command line: their name in the audit log, and signals that stop a command."""

import getpass
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from newsletter.accounts.audit import Actor


#: Sent by Ctrl-C, by a service manager, and when a terminal is closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


#: Seconds after which a thread that waits for a signal runs the handlers of those that it missed.
_LONGEST_WAIT: Final = 0.5


class StoppedError(Exception):
    """A signal has stopped a command, which has already printed what the user needs to know."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Stop(threading.Event):
    """An event that the first stop signal sets."""

    signal: int = signal.SIGINT

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set; without ``timeout``, however long that takes.

        A signal that arrives just before the thread blocks does not interrupt the wait, so that
        its handler would never run. Thus an endless wait is made of short ones.
        """
        if timeout is not None:
            return super().wait(timeout)
        while not super().wait(_LONGEST_WAIT):
            pass
        return True


@contextmanager
def stopping() -> Iterator[Stop]:
    """In this block, stop signals only set the event, so that work in progress can finish.

    An ignored signal stays ignored, as SIGHUP under nohup.
    """
    stop = Stop()

    def note(number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.signal = number
            stop.set()

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
