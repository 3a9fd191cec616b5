"""A command of the newsletter, run in a world that is worse than ours.

    python -m tests.chaos.process [--clock S] [--jumps SEED] [--die before:commit:3] -- serve

``--clock`` shifts the wall clock by so many seconds for good, ``--jumps`` lets it jump to
and fro, ``--die`` ends the process with SIGKILL at one exact point. The product knows
nothing of it: what is wrapped is Python's clock, SQLAlchemy's commit and http.client.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from typing import Any, Final

import time_machine
from sqlalchemy.engine.default import DefaultDialect

from newsletter.cli.main import run
from tests.forking import settle

#: How far the wall clock jumps at most from the true time, in seconds.
FARTHEST: Final = 2 * 3600.0
#: Seconds between two jumps.
_PAUSES: Final = (0.1, 0.7)

#: What can be cut: each is one call, before which and after which the process may end.
POINTS: Final[Mapping[str, tuple[type[Any], str]]] = {
    # A transaction becomes durable.
    "commit": (DefaultDialect, "do_commit"),
    # A request's bytes go to the system; after it they have left, and no answer was read.
    "request": (HTTPConnection, "request"),
    # The first line and the headers of the answer are read.
    "answer": (HTTPConnection, "getresponse"),
}


def die_at(point: str) -> None:
    """Arm one crash: ``before:commit:3`` is just before the third commit of this process."""
    when, what, number = point.split(":")
    owner, name = POINTS[what]
    original, calls, fatal = getattr(owner, name), itertools.count(1), int(number)

    def wrapped(*args: Any, **values: Any) -> Any:
        mine = next(calls) == fatal
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **values)
        if mine and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def move_clock(seconds: float, jumps: int | None) -> None:
    """Shift this process's wall clock; monotonic clocks run on, as they do on a real machine."""
    base = time.time() + seconds
    clock = time_machine.travel(base, tick=True).start()
    if jumps is None:
        return
    # Not the process's own generator: the product's dice stay as they are.
    dice = random.Random(jumps)

    def jump() -> None:
        offset = 0.0
        while True:
            time.sleep(dice.uniform(*_PAUSES))
            # Home every third time, so that short steps and long ones both come up.
            target = 0.0 if dice.random() < 1 / 3 else dice.uniform(-FARTHEST, FARTHEST)
            clock.shift(target - offset)
            offset = target

    threading.Thread(target=jump, name="jumps", daemon=True).start()


def main(words: Sequence[str]) -> None:
    """Arm what was asked for, then be the command."""
    parser = argparse.ArgumentParser(prog="tests.chaos.process")
    parser.add_argument("--clock", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--jumps", type=int, metavar="SEED")
    parser.add_argument("--die", metavar="before|after:commit|request|answer:N")
    parser.add_argument("command", nargs="+", help="newsletter's words, behind --")
    asked = parser.parse_args(words)
    if asked.die:
        die_at(asked.die)
    if asked.clock or asked.jumps is not None:
        move_clock(asked.clock, asked.jumps)
    sys.argv = ["newsletter", *asked.command]
    run()


def forked(words: Sequence[str], environment: Mapping[str, str], folder: str, log: str) -> None:
    """``main`` in a process that was forked with everything imported: that starts at once."""
    settle(environment, folder, log, log)
    main(words)


if __name__ == "__main__":
    main(sys.argv[1:])
