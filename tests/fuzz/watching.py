"""Asks a service again and again how it is, from a process of its own.

In the process that sends hostile requests, to make them would hold the clock up.
"""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.slow_clients import health

_ROOT = Path(__file__).parents[2]
#: Seconds between two questions.
_EVERY = 0.2


@contextmanager
def watched(address: tuple[str, int]) -> Iterator[list[tuple[int, float]]]:
    """A list that has, at the end, the status and seconds of each answer; 0 for none."""
    found: list[tuple[int, float]] = []
    words = [sys.executable, "-m", "tests.fuzz.watching", *map(str, address)]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    assert process.stdout is not None
    # From its first answer on it is there.
    said = [process.stdout.readline()]
    try:
        yield found
    finally:
        # It ends when its input does.
        said += process.communicate()[0].splitlines()
        found += [(int(status), float(seconds)) for status, seconds in map(str.split, said)]


def _ask_until_the_input_ends(address: tuple[str, int]) -> None:
    while not select.select([sys.stdin], [], [], _EVERY)[0]:
        status, seconds = health(address)
        sys.stdout.write(f"{status} {seconds:.4f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _ask_until_the_input_ends((sys.argv[1], int(sys.argv[2])))
