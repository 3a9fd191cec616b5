"""Send raw bytes to a running service, and see that nothing of it is a fault of ours.

``python -m tests.fuzz --requests 20000 --seed 1`` (``make fuzz``). The same seed sends the same
bytes, but for sessions and tokens. Ends with 1 when there was an answer of 5xx, a traceback in
the log, a health check without an answer, or a log or memory that grew with the requests.
"""

import argparse
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.requests import is_whole, stream
from tests.fuzz.service import Service, running
from tests.fuzz.slow_clients import health

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
#: Requests after which another session is begun: some end their own.
_A_SESSION = 200
#: Bytes of log, and of memory above what the first thousand requests took.
_MOST_LOG, _MOST_MEMORY = 2_000_000, 60_000_000


@dataclass
class Found:
    """What came of all requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    sent: int = 0
    unanswered: int = 0
    memory: list[int] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    lost: int = 0
    log: int = 0
    tracebacks: int = 0
    seconds: float = 0.0

    def problems(self) -> list[str]:
        """What must not be; empty when all is well."""
        grown = self.memory[-1] - self.memory[min(2, len(self.memory) - 1)]
        found = {
            "answers of 5xx": len(self.faults),
            "tracebacks in the log": self.tracebacks,
            "health checks without an answer": self.lost,
            f"bytes of log, more than {_MOST_LOG:,}": self.log if self.log > _MOST_LOG else 0,
            "bytes that memory grew": grown if grown > _MOST_MEMORY else 0,
        }
        return [f"{number:,} {what}" for what, number in found.items() if number]


def fuzz(service: Service, *, requests: int, seed: int, workers: int = 4) -> Found:
    """Send so many requests."""
    found, over, lock = Found(), threading.Event(), threading.Lock()
    began = time.monotonic()
    sessions = _sessions(service)
    watch = threading.Thread(target=_watch, args=(service, found, over), daemon=True)
    watch.start()

    pending = stream(service, requests, seed, lambda: next(sessions))

    def work() -> None:
        while True:
            with lock:
                what, data = next(pending, ("", b""))
                found.sent += 1
                if found.sent % max(1, requests // 20) == 0:
                    found.memory.append(service.memory)
            if not what:
                return
            statuses = send(service.address, data)
            with lock:
                found.statuses.update(statuses)
                found.unanswered += not statuses
                if any(status >= 500 for status in statuses):
                    found.faults.append(f"{what}: {statuses} {data[:500]!r}")

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()
    over.set()
    watch.join(60)
    found.memory.append(service.memory)
    found.seconds = time.monotonic() - began
    found.log = service.log.stat().st_size
    found.tracebacks = service.log.read_text(errors="replace").count("Traceback")
    return found


def send(address: tuple[str, int], data: bytes) -> list[int]:
    """Send the bytes as they are; the statuses that came back."""
    said = b""
    try:
        with socket.create_connection(address, timeout=60) as one:
            one.sendall(data)
            if not is_whole(data):
                one.shutdown(socket.SHUT_WR)
            # All answers of what was pipelined come at once, or the rest is not waited for.
            while len(said) < 500_000 and (got := one.recv(65536)):
                said += got
                if said.count(b"HTTP/1.1 ") >= 1:
                    one.settimeout(0.05)
    except OSError:
        pass
    return [int(status) for status in _STATUS.findall(said)]


def _sessions(service: Service) -> Iterator[tuple[str, str]]:
    while True:
        session = service.sign_in()
        for _ in range(_A_SESSION):
            yield session


def _watch(service: Service, found: Found, over: threading.Event) -> None:
    while not over.is_set():
        status, seconds = health(service.address)
        found.health.append(seconds)
        found.lost += status != 200
        over.wait(0.2)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    wanted = parser.parse_args()
    limits = {
        "NEWSLETTER_SIGNUP__PER_IP": "1000000",
        "NEWSLETTER_SIGNUP__PER_ADDRESS": "1000000",
        "NEWSLETTER_CONSOLE__PER_NETWORK": "1000000",
    }
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), **limits) as service:
        found = fuzz(service, requests=wanted.requests, seed=wanted.seed, workers=wanted.workers)
    print(_table(found, wanted.requests, wanted.seed))
    problems = found.problems()
    print("\n".join(problems + sorted(found.faults)[:20]) or "No fault of ours.")
    return 1 if problems else 0


def _table(found: Found, requests: int, seed: int) -> str:
    checks = sorted(found.health)
    slow = sum(one > 1 for one in checks)
    rows = {
        "requests, seed": f"{requests:,}, {seed}",
        "seconds": f"{found.seconds:,.0f}",
        "answers": ", ".join(f"{n:,} × {status}" for status, n in sorted(found.statuses.items())),
        "closed without an answer": f"{found.unanswered:,}",
        "answers of 5xx": f"{len(found.faults):,}",
        "memory in MB, over time": " ".join(f"{one / 1e6:.0f}" for one in found.memory),
        "health checks, above a second": f"{len(checks):,}, {slow:,}",
        "health check, median and worst": f"{checks[len(checks) // 2]:.3f} s, {checks[-1]:.3f} s",
        "log": f"{found.log:,} bytes, {found.tracebacks} tracebacks",
    }
    return "\n".join(f"{name:32} {value}" for name, value in rows.items())


if __name__ == "__main__":
    sys.exit(main())
