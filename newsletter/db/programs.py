"""Runs other programs: PostgreSQL's tools, and the operator's own after a backup."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

#: Seconds between two looks whether the program should be stopped.
_POLL: Final = 0.2
#: Seconds that a program has to end by itself once it is told to.
_GRACE: Final = 5.0


def run(
    words: Sequence[str],
    *,
    stopped: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run a program to its end, without a shell; returns its exit code and its lines on stderr.

    ``environment`` is added to this process's own. Once ``stopped``, the program is terminated,
    and killed if it goes on. Raises OSError if it cannot be started.
    """
    with subprocess.Popen(  # noqa: S603 (the callers' programs, without a shell)
        words,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # A group of its own, so that what the program has started is ended with it.
        start_new_session=True,
    ) as process:
        deadline: float | None = None
        try:
            while True:
                try:
                    _, said = process.communicate(timeout=_POLL)
                    return process.returncode, said.strip().splitlines()
                except subprocess.TimeoutExpired:
                    if deadline is None and stopped():
                        deadline = time.monotonic() + _GRACE
                        _signal(process, signal.SIGTERM)
                    elif deadline is not None and time.monotonic() > deadline:
                        _signal(process, signal.SIGKILL)
        finally:
            if process.poll() is None:
                _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # It has just ended.
        os.killpg(process.pid, number)
