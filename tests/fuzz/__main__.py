"""`python -m tests.fuzz`: raw bytes to every route of a running service, and what came of them.

The same seed sends the same bytes, but for sessions, tokens and signatures.
"""

import argparse
import itertools
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.hostile import HOSTILE, SIGNER
from tests.fuzz.requests import Sent, stream
from tests.fuzz.service import Service, running, until
from tests.fuzz.slow_clients import health
from tests.fuzz.watching import watched

#: A traceback in the log, with the line of log before it.
_TRACEBACK = re.compile(r"[^\n]*\nTraceback \(most.*?\n\S[^\n]*(?=\n)", re.DOTALL)
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
#: Requests after which another session is begun: some end their own.
_A_SESSION = 200
#: Looks at the memory, and how many bytes it may grow from the second quarter to the last one:
#: caches are full by then. A kilobyte that is kept of each of 20,000 requests is more.
_LOOKS, MOST_GROWTH = 40, 10_000_000
#: Requests of which is told that they took longest.
_SLOWEST = 5
#: Bytes of log, however many requests.
_MOST_LOG = 2_000_000
#: Bytes of an answer that are read.
_MOST_READ = 500_000
#: The settings of the run: all that is limited by time is let through, so that it is reached.
SETTINGS = {
    "NEWSLETTER_SITE__BASE_URL": "http://127.0.0.1:8000/news",
    "NEWSLETTER_SIGNUP__PER_IP": "1000000",
    "NEWSLETTER_SIGNUP__PER_ADDRESS": "1000000",
    "NEWSLETTER_SIGNUP__PER_DOMAIN": "1000000",
    "NEWSLETTER_CONSOLE__PER_NETWORK": "1000000",
    "NEWSLETTER_WEB__TRUSTED_PROXIES": "127.0.0.1",
    "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": SIGNER.public_key,
    # glibc keeps freed memory apart for each thread, which would hide what the program keeps.
    "MALLOC_ARENA_MAX": "1",
}


@dataclass
class Found:
    """What came of all requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    #: Requests that ended in the middle: nobody owes them an answer.
    unanswered: int = 0
    memory: list[int] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    lost: int = 0
    log: int = 0
    tracebacks: list[str] = field(default_factory=list)
    #: Seconds that an answer took, and what was asked.
    slowest: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def growth(self) -> int:
        """Bytes that memory grew from the second quarter of the run to its last one."""
        quarter = len(self.memory) // 4
        if not quarter:
            return 0
        last, second = self.memory[-quarter:], self.memory[quarter : 2 * quarter]
        return int(statistics.median(last) - statistics.median(second))

    @property
    def late(self) -> int:
        """Health checks that took longer than a second."""
        return sum(one > 1 for one in self.health)

    def problems(self) -> dict[str, int]:
        """What must not be, whatever the machine; empty when all is well."""
        found = {
            "answers of 5xx, or none": len(self.faults),
            "tracebacks in the log": len(self.tracebacks),
            "health checks without an answer": self.lost,
            f"bytes of log, more than {_MOST_LOG:,}": self.log if self.log > _MOST_LOG else 0,
        }
        return {what: number for what, number in found.items() if number}


def fuzz(service: Service, *, requests: int, seed: int, workers: int = 4) -> Found:
    """Send so many requests."""
    found, lock = Found(), threading.Lock()
    # It says where it listens before it has started.
    until(lambda: health(service.address)[0] == 200)
    began = time.monotonic()
    sessions = _sessions(service)
    pending = enumerate(
        stream(service, HOSTILE, count=requests, seed=seed, session=lambda: next(sessions))
    )

    def work() -> None:
        while True:
            with lock:
                number, sent = next(pending, (0, None))
                if number % max(1, requests // _LOOKS) == 0:
                    found.memory.append(service.memory)
            if sent is None:
                return
            asked = time.monotonic()
            statuses = send(service.address, sent)
            took = time.monotonic() - asked
            with lock:
                _note(found, sent, statuses)
                found.slowest = sorted([*found.slowest, (took, sent.what)])[-_SLOWEST:]

    with watched(service.address) as checks, ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()
    found.health = [seconds for _, seconds in checks]
    found.lost = sum(status != 200 for status, _ in checks)
    found.seconds = time.monotonic() - began
    found.log = service.log.stat().st_size
    found.tracebacks = _TRACEBACK.findall(service.log.read_text(errors="replace"))
    return found


def send(address: tuple[str, int], sent: Sent) -> list[int]:
    """Send the bytes as they are; the statuses that came back."""
    said = b""
    with socket.create_connection(address, timeout=60) as one:
        try:
            one.sendall(sent.data)
            if not sent.whole:
                one.shutdown(socket.SHUT_WR)
        except OSError:
            # It was answered and closed before its end, as what is too long may be.
            one.settimeout(1)
        for got in _pieces(one):
            said += got
            if len(said) > _MOST_READ:
                break
            # What was pipelined is answered at once; where nobody closes, no more is waited for.
            one.settimeout(0.2)
    return [int(status) for status in _STATUS.findall(said)]


def _pieces(one: socket.socket) -> Iterator[bytes]:
    """What comes, until nothing more does."""
    try:
        while got := one.recv(65536):
            yield got
    except OSError:
        return


def _note(found: Found, sent: Sent, statuses: list[int]) -> None:
    found.statuses.update(statuses)
    wrong = [status for status in statuses if status >= 500]
    if wrong or (sent.whole and not statuses):
        found.faults.append(f"{sent.what}: {statuses} {sent.data[:700]!r}")
    found.unanswered += not statuses


def _sessions(service: Service) -> Iterator[tuple[str, str]]:
    while True:
        yield from itertools.repeat(service.sign_in(), _A_SESSION)


def main() -> int:
    """Send, print, and say by the exit code whether the service was sound."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="how many (20,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4, help="how many at once (4)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), **SETTINGS) as service:
        found = fuzz(service, requests=wanted.requests, seed=wanted.seed, workers=wanted.workers)
    print(_table(found, wanted.requests, wanted.seed))
    problems = found.problems() | {
        what: number
        for what, number in {
            f"bytes that memory grew, more than {MOST_GROWTH:,}": (
                found.growth if found.growth > MOST_GROWTH else 0
            ),
            "health checks that took more than a second": found.late,
        }.items()
        if number
    }
    for what, number in problems.items():
        print(f"{number:,} {what}")
    # Of tracebacks one of each kind, which is what the last line says.
    kinds = {one.rsplit("\n", 1)[-1]: one for one in found.tracebacks}
    for one in (*sorted(found.faults)[:30], *kinds.values()):
        print(f"\n{one}")
    print("Not sound." if problems else "Sound.")
    return int(bool(problems))


def _table(found: Found, requests: int, seed: int) -> str:
    checks = sorted(found.health)
    every = len(found.memory) // 10 or 1
    rows = {
        "requests, seed": f"{requests:,}, {seed}",
        "seconds": f"{found.seconds:,.0f}",
        "answers": ", ".join(f"{n:,} × {status}" for status, n in sorted(found.statuses.items())),
        "cut off, without an answer": f"{found.unanswered:,}",
        "answers of 5xx, or none": f"{len(found.faults):,}",
        "memory, MB": " ".join(f"{one / 1e6:.0f}" for one in found.memory[::every]),
        "memory grew by": f"{found.growth / 1e6:.1f} MB (limit {MOST_GROWTH / 1e6:.0f})",
        "health checks, over a second": f"{len(checks):,}, {found.late:,}",
        "health check, median and worst": f"{checks[len(checks) // 2]:.3f} s, {checks[-1]:.3f} s",
        "slowest": ", ".join(f"{took:.1f} s {what}" for took, what in reversed(found.slowest)),
        "log": f"{found.log:,} bytes, {len(found.tracebacks)} tracebacks",
    }
    width = max(map(len, rows))
    return "\n".join(f"| {name:{width}} | {value} |" for name, value in rows.items())


if __name__ == "__main__":
    sys.exit(main())
