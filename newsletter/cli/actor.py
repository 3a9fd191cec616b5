"""Who sits at the terminal: whose name stands in logs, and how they stop a command."""

import getpass
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newsletter.accounts.audit import Actor


#: Ctrl-C, a service manager, and a terminal that was closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """A signal ended a command orderly, and what there was to say of it has been said."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Stop(threading.Event):
    """Set by the first signal that asks for an end."""

    signal: int = signal.SIGINT


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within the block a signal does not break off what is under way: it sets the event.

    A command under nohup goes on when its terminal is closed, as is asked for there.
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
    """The machine's user, which is all that a command knows of them."""
    from newsletter.accounts.audit import Actor  # noqa: PLC0415 (help needs no database)

    try:
        return Actor(None, f"command line ({getpass.getuser()})")
    except (OSError, KeyError):
        return Actor(None, "command line")
