"""Commands on a terminal of their own: as wide as a test says, closed when a test says so."""

import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from newsletter.cli import output
from newsletter.cli.main import run
from tests.forking import open_streams, server

#: What ECMA-48 calls control sequences, and the shorter ones.
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|.)")

MARK = "=== next ==="


class Terminal:
    """``newsletter WORDS`` on a terminal; use it as a context manager."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        columns: int = 80,
        kind: str = "xterm-256color",
        more: Sequence[Sequence[str]] = (),
    ) -> None:
        """``more`` are commands that the same process goes on with, each behind a ``MARK``."""
        self._master, slave = os.openpty()
        self.columns = columns
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        told = {"TERM": kind, **environment}
        self.process: BaseProcess = server().Process(
            target=_become, args=([words, *more], told, str(folder), os.ttyname(slave))
        )
        self._pieces: list[str] = []
        self.process.start()
        self._slave = slave
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.hang_up()

    @property
    def said(self) -> str:
        """All that was printed so far, with plain line ends."""
        return "".join(self._pieces).replace("\r\n", "\n")

    @property
    def words(self) -> str:
        """The same as one line without escape codes: for sentences that were wrapped."""
        return " ".join(ESCAPE.sub("", self.said).split())

    def end(self, seconds: float = 60) -> int:
        """Wait for the command's end; returns its exit code, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.said
        self._drained()
        return self.process.exitcode

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until this is printed."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            assert self.process.is_alive(), self.said
            time.sleep(0.02)

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        os.write(self._master, f"{line}\n".encode())

    def type_hidden(self, line: str, seconds: float = 60) -> None:
        """Type a line that is not shown, once the command hides what is typed.

        It discards what was typed before that, also after its question.
        """
        deadline = time.monotonic() + seconds
        while termios.tcgetattr(self._slave)[3] & termios.ECHO:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        self.type(line)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def hang_up(self) -> None:
        """Close the terminal, as when a window is closed or a line breaks."""
        if self._master < 0:
            return
        os.close(self._slave)
        self._stop_reading()
        os.close(self._master)
        self._master = -1

    def _stop_reading(self) -> None:
        self._reading = False
        self._reader.join()

    _reading = True

    def _read(self) -> None:
        while self._reading:
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            try:
                piece = os.read(self._master, 65536)
            except OSError:  # the other side has closed it
                return
            self._pieces.append(piece.decode(errors="replace"))

    def _drained(self) -> None:
        while self._master >= 0 and select.select([self._master], [], [], 0)[0]:
            time.sleep(0.01)


def _become(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: str, device: str
) -> None:
    os.setsid()
    terminal = os.open(device, os.O_RDWR)  # which makes it ours, as we have none
    for stream in (0, 1, 2):
        os.dup2(terminal, stream)
    os.close(terminal)
    sys.stdin = os.fdopen(0, closefd=False)
    open_streams()
    # As Python starts on an operator's machine.
    warnings.simplefilter("ignore", ResourceWarning)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # They were made when the command's modules were imported, before there was a terminal.
    for screen in (output.out, output.err):
        output.Screen.__init__(screen, stderr=screen.stderr)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    *first, last = commands
    for words in first:
        sys.argv = ["newsletter", *words]
        with suppress(SystemExit):
            run()
        print(MARK)
    sys.argv = ["newsletter", *last]
    try:
        run()
    except SystemExit as ended:
        with suppress(OSError):
            sys.stdout.flush()
        sys.stdout = sys.__stdout__  # which is not the terminal, and may be flushed at the end
        sys.exit(ended.code)
