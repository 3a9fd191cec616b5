"""Commands in copies of one process that has imported everything: they start at once.

A command imports what it needs when it is called, which takes most of a second. Where tests
call hundreds, each is forked from a process that has done so; tests/walks start it as
operators do.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

from newsletter.cli.main import COMMANDS, run

_ALSO = (
    "newsletter.checking.checker",
    "newsletter.scheduling.trigger",
    "newsletter.rendering.render",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
)


@cache
def server() -> ForkServerContext:
    """What starts processes of module-level functions; one for each process that asks."""
    context = multiprocessing.get_context("forkserver")
    preload = ["tests.forking", "tests.chaos.process"]
    preload += sorted({f"newsletter.cli.{module}" for _, module, _, _ in COMMANDS})
    context.set_forkserver_preload([*preload, *_ALSO])
    return context


def settle(environment: Mapping[str, str], folder: str, out: str, err: str) -> None:
    """Make this process one that was started in that folder, with its output in these files."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((1, out), (2, err)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(target, stream)
        os.close(target)
    open_streams()


def open_streams() -> None:
    """Make sys.stdout and sys.stderr of what stands behind 1 and 2 now, as a start does."""
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def command(
    words: Sequence[str], *, environment: Mapping[str, str], folder: Path, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """``newsletter WORDS`` to its end; TimeoutExpired if that does not come."""
    with tempfile.TemporaryDirectory() as said:
        out, err = Path(said) / "out", Path(said) / "err"
        child = server().Process(
            target=_become, args=(list(words), dict(environment), str(folder), str(out), str(err))
        )
        child.start()
        child.join(seconds)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(["newsletter", *words], seconds)
        told = [path.read_text("utf-8") if path.exists() else "" for path in (out, err)]
        return subprocess.CompletedProcess(["newsletter", *words], child.exitcode, *told)


def _become(
    words: Sequence[str], environment: Mapping[str, str], folder: str, out: str, err: str
) -> None:
    settle(environment, folder, out, err)
    sys.argv = ["newsletter", *words]
    run()
