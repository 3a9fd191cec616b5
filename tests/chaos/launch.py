"""Starting the newsletter's commands as processes of their own, and ending those and no others."""

import multiprocessing.process
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tests.chaos import process
from tests.forking import server

ROOT = Path(__file__).parents[2]
_COMMAND = Path(sys.executable).with_name("newsletter")


class _Child(Protocol):
    """What Popen and multiprocessing's Process have in common, by one set of names."""

    pid: int

    def code(self) -> int | None: ...

    def join(self, seconds: float) -> None: ...


class _Executed:
    """The command as an operator starts it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child, self.pid = child, child.pid

    def code(self) -> int | None:
        return self._child.poll()

    def join(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)


class _Forked:
    """The same command in a copy of a process that has imported it already."""

    def __init__(self, child: multiprocessing.process.BaseProcess) -> None:
        self._child = child
        # The code comes through a pipe, once: two threads that ask together would lose it.
        self._lock = threading.Lock()
        assert child.pid is not None
        self.pid = child.pid

    def code(self) -> int | None:
        with self._lock:
            return self._child.exitcode

    def join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.code() is None and time.monotonic() < deadline:
            time.sleep(0.01)


class Running:
    """A process that this harness started."""

    def __init__(self, child: _Child, log: Path, words: Sequence[str]) -> None:
        self._child, self.log, self.words = child, log, words

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.code() is None

    @property
    def said(self) -> str:
        """Everything that it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def url(self) -> str:
        """Where it serves, once it said so."""
        _, found, rest = self.said.partition("newsletter is at ")
        return rest.split()[0] if found and rest else ""

    def kill(self) -> None:
        """End it with SIGKILL, at whatever instruction it is."""
        self._signal(signal.SIGKILL)
        self.wait(30)

    def terminate(self) -> None:
        """Ask it to end orderly; it may take its time."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        # A child that has ended is not reaped before it is asked, so its number is still its own.
        if self.alive:
            os.kill(self._child.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit code; TimeoutError when it runs on."""
        self._child.join(seconds)
        code = self._child.code()
        if code is None:
            raise TimeoutError(f"{' '.join(self.words)} does not end\n{self.said[-2000:]}")
        return code


class Launcher:
    """Starts commands: executed as an operator would, or forked where many are needed fast."""

    def __init__(self, folder: Path, *, fork: bool) -> None:
        self._folder, self._fork = folder, fork
        self._started: list[Running] = []

    def start(
        self, *words: str, environment: Mapping[str, str], worse: Sequence[str] = ()
    ) -> Running:
        """Start ``newsletter WORDS``; ``worse`` are options of tests.chaos.process."""
        log = self._folder / f"{len(self._started):03d}-{words[0]}.log"
        # Nothing of the user's settings reaches it.
        full = {"PATH": os.environ["PATH"], "HOME": str(self._folder), **environment}
        child: _Child
        if self._fork:
            made = server().Process(
                target=process.forked,
                args=([*worse, "--", *words], full, str(self._folder), str(log)),
            )
            made.start()
            child = _Forked(made)
        else:
            wrapped = [sys.executable, "-m", "tests.chaos.process", *worse, "--", *words]
            with log.open("ab") as file:
                child = _Executed(
                    subprocess.Popen(
                        wrapped if worse else [_COMMAND, *words],
                        cwd=self._folder,
                        env={**full, "PYTHONPATH": str(ROOT)},
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                    )
                )
        running = Running(child, log, words)
        self._started.append(running)
        return running

    def run(self, *words: str, environment: Mapping[str, str], seconds: float = 60) -> str:
        """Run a command to its end; what it said. AssertionError when it fails."""
        done = self.start(*words, environment=environment)
        code = done.wait(seconds)
        assert code == 0, f"newsletter {' '.join(words)}: exit code {code}\n{done.said[-2000:]}"
        return done.said

    def close(self) -> None:
        """End whatever of its own still runs."""
        for running in self._started:
            running.kill()


def until(
    done: Callable[[], bool], *, seconds: float, what: str | Callable[[], str], pause: float = 0.03
) -> None:
    """Wait for something; TimeoutError says what did not happen."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(what if isinstance(what, str) else what())
        time.sleep(pause)
