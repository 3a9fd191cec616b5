"""Signups over HTTP: a service in a process of its own, visitors on keep-alive connections.

Prints requests per second, the median and the 99th percentile of the waiting time, and the ratio
to the health check of the same server, which reads one row. Every signup is committed with its
confirmation email before it is answered.
"""

import argparse
import http.client
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

from bench import setup
from bench.report import table

_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
_Ask = Callable[[http.client.HTTPConnection, int], int]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.signup", description=__doc__)
    parser.add_argument("--requests", type=int, default=4_000)
    parser.add_argument("--visitors", type=int, default=8, help="requests under way at once")
    parser.add_argument(
        "--database", help="a migrated database's URL; a new SQLite file unless given"
    )
    options = parser.parse_args()
    run(options.requests, options.visitors, options.database)


def run(requests: int = 4_000, visitors: int = 8, database_url: str | None = None) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        url = database_url or f"sqlite:///{Path(folder) / 'bench.db'}"
        # All visitors have the same IP address and email domain here.
        signup = {"PER_IP": "1000000000", "PER_DOMAIN": "1000000000", "FIELDS": "company"}
        named = {f"SIGNUP__{name}": value for name, value in signup.items()}
        settings = setup.environment(url, Path(folder), **named)
        with setup.service(settings) as port:
            _measure(port, _signup, 200, visitors, first=10**9)  # warm
            new = _measure(port, _signup, requests, visitors, first=0)
            again = _measure(port, _signup, requests // 4, visitors, first=0)
            health = _measure(port, _health, requests, visitors, first=0)
        commits = _commits(Path(folder))
    rows = [
        _row("signup, address not known", new, requests, health[0]),
        _row("signup, same address again", again, requests // 4, health[0]),
        _row("health check", health, requests, health[0]),
    ]
    columns = ("request", "requests", "a second", "median ms", "p99 ms", "of health check")
    table(f"POST /subscribe, {visitors} visitors at once, {url.partition(':')[0]}", columns, rows)
    table(
        "For comparison",
        ("what", "a second"),
        [("bare appends of 4 kB, each forced to disk (fsync)", commits)],
    )


def _row(
    name: str, measured: tuple[float, list[float]], requests: int, limit: float
) -> tuple[object, ...]:
    rate, waits = measured
    median, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return name, requests, rate, median * 1e3, p99 * 1e3, rate / limit


def _measure(
    port: int, ask: _Ask, requests: int, visitors: int, *, first: int
) -> tuple[float, list[float]]:
    """Requests per second, and the sorted seconds of each."""
    numbers = iter(range(first, first + requests))
    lock = threading.Lock()

    def visit() -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        waits = []
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return waits
            started = time.perf_counter()
            status = ask(connection, number)
            waits.append(time.perf_counter() - started)
            assert status == 200, status

    started = time.perf_counter()
    with ThreadPoolExecutor(visitors) as pool:
        visits = [pool.submit(visit) for _ in range(visitors)]
        waits = sorted(wait for done in visits for wait in done.result())
    return requests / (time.perf_counter() - started), waits


def _signup(connection: http.client.HTTPConnection, number: int) -> int:
    form = {
        "email": f"reader{number}@example.org",
        "name": "Ada Lovelace",
        "attributes.company": "Analytical Engines",
        "language": "en",
        "timezone": "Europe/London",
        "form": "bench",
    }
    connection.request("POST", "/subscribe", urlencode(form), _FORM)
    return _status(connection)


def _health(connection: http.client.HTTPConnection, _number: int) -> int:
    connection.request("GET", "/healthz")
    return _status(connection)


def _status(connection: http.client.HTTPConnection) -> int:
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _commits(folder: Path, times: int = 500) -> float:
    """Appends per second that the disk can force to storage."""
    with (folder / "bare").open("wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(times):
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
        return times / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
