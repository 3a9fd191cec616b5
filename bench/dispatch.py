"""Planning and dispatching to a sink, compared with the SDK alone.

Prints recipients per second, the peak memory of all processes, and the ratios to limits that are
measured in the same run with the same requests:

- the SDK alone: ready-made request objects through ``SendGridAPIClient.send``, in one
  process, and in as many processes as there are workers;
- the SDK with ready-made JSON text, which saves it the encoding (docs/adr/0003);
- the same bytes over plain keep-alive connections (for information).

Each worker is a process of ``newsletter worker``, with clock and threads.
"""

import argparse
import http.client
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import sendgrid

from bench import setup
from bench.report import Memory, table
from bench.sink import sink
from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.provider.gateway import Accepted, MailRequest, Outcome
from newsletter.provider.payload import encoded, payload
from newsletter.scheduling.tasks import start_due
from newsletter.sending.delivery.dispatcher import Dispatcher
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.settings.load import load

_CHUNK = 10_000
_SPAWN = multiprocessing.get_context("spawn")
#: Requests that the limits replay: a hundred thousand recipients show the pace of a million.
_REPLAYED = 100
#: Repetitions; the median counts.
_ROUNDS = 5


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.dispatch", description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[100_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args()
    for people in options.people:
        with (
            tempfile.TemporaryDirectory() as folder,
            sink() as host,
            setup.database(options.database, Path(folder)) as url,
        ):
            run(url, host, Path(folder), people, options)


def run(url: str, host: str, folder: Path, people: int, options: argparse.Namespace) -> None:
    """Measure and print: one send to the same audience for each number of workers."""
    workers, threads = options.workers, options.threads
    container = Container(load(_environment(url, host, folder, threads)))
    setup.fill(container, people)
    requests = _requests(container)
    rows: list[list[object]] = []
    alone = _by_processes(host, requests, 1, threads)
    for number in workers:
        planning, dispatching, memory = _send(container, host, folder, threads, number)
        limit = alone if number == 1 else _by_processes(host, requests, number, threads)
        whole = people / (planning + dispatching)
        rows.append(
            [
                f"{number} worker{'s' if number > 1 else ''}",
                people / planning,
                people / dispatching,
                whole,
                people / dispatching / alone,
                whole / alone,
                whole / limit,
                memory,
            ]
        )
    kind = container.database.dialect.name
    container.database.dispose()
    size = sum(len(request) for request in requests) / len(requests) / 1000
    table(
        f"{people:,} recipients, {kind}, {threads} threads each, requests of {size:,.0f} kB; "
        "recipients a second",
        ["", "plan", "dispatch", "both", "dispatch ÷ SDK", "both ÷ SDK",
         "both ÷ SDK in as many processes", "MB in all"],
        rows,
    )  # fmt: skip
    table(
        "Limits, recipients a second",
        ["", ""],
        [
            ["SDK alone, ready-made objects, one process", alone],
            ["SDK alone, ready-made text, one process",
             _median(requests, threads, _by_sdk_text(host), bytes.decode)],
            ["bare keep-alive",
             _median(requests, threads, _by_keep_alive(host), bytes)],
        ],
    )  # fmt: skip


def _environment(url: str, host: str, folder: Path, threads: int) -> dict[str, str]:
    more = {"SENDGRID__HOST": host, "SENDING__CONCURRENCY": str(threads)}
    return setup.environment(url, folder, **more)


def _send(
    container: Container, host: str, folder: Path, threads: int, workers: int
) -> tuple[float, float, float]:
    """Seconds to plan, seconds to dispatch, and the peak memory of all workers together in MB."""
    environment = _environment(container.settings.database_url, host, folder, threads)
    command = [Path(sys.executable).with_name("newsletter"), "worker"]
    team = [
        subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
        for _ in range(workers)
    ]
    send_id = setup.make_send(
        container, f"by-{workers}", at=datetime.now(UTC) + timedelta(seconds=6)
    )
    with Memory([process.pid for process in team]) as memory:
        while True:
            with reading(container.database) as session:
                send = send_status.find(session, send_id)
            if send.finished_at and send.started_at:
                break
            time.sleep(0.1)
    with reading(container.database) as session:
        # The plan's transaction begins when it starts; the first departure follows it.
        first = send_status.first_departure(session, send_id)
    for process in team:
        process.terminate()
    for process in team:
        assert process.wait() == 0
    assert first is not None
    planning, dispatching = first - send.started_at, send.finished_at - first
    return planning.total_seconds(), dispatching.total_seconds(), memory.peak


class _Recorder:
    """A gateway that keeps each request's bytes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def send(self, request: MailRequest) -> Outcome:
        self.requests.append(bytes(encoded(payload(request))))
        return Accepted("recorded")


def _requests(container: Container) -> list[bytes]:
    """The first requests of such a send, as the provider gets them."""
    recorder = _Recorder()
    setup.make_send(container, "recorded", at=datetime.now(UTC))
    start_due(container.task_context)
    dispatcher = Dispatcher(
        container.database,
        recorder,
        container.links,
        worker=Heartbeat(container.database),
        base_url=container.settings.site.base_url,
        sender=container.sender,
        request_timeout=container.settings.sendgrid.timeout,
    )
    while len(recorder.requests) < _REPLAYED and dispatcher.send_next():
        pass
    with transaction(container.database) as session:
        send = send_status.latest_sends(session, limit=1)[0][0]
        if send.state == "sending":
            send_lifecycle.cancel(
                session, send.id, by=Actor(None, "operator"), now=datetime.now(UTC)
            )
    return recorder.requests


def _pace(requests: list[bytes], seconds: float) -> float:
    return len(requests) * 1000 / seconds


def _median(
    requests: list[bytes],
    threads: int,
    post: Callable[[object], None],
    prepare: Callable[[bytes], object],
) -> float:
    """Recipients per second in this process, the median of several rounds."""
    rounds = [_replay(requests, threads, post, prepare) for _ in range(_ROUNDS)]
    return _pace(requests, statistics.median(rounds))


def _by_processes(host: str, requests: list[bytes], processes: int, threads: int) -> float:
    """Recipients per second of the SDK alone, in ``processes`` processes at once."""
    if processes == 1:
        return _median(requests, threads, _by_sdk(host), orjson.loads)
    barrier, seconds = _SPAWN.Barrier(processes), _SPAWN.Queue()
    team = [
        _SPAWN.Process(target=_replay_beside, args=(host, requests, threads, barrier, seconds))
        for _ in range(processes)
    ]
    for process in team:
        process.start()
    paces = [_pace(requests, seconds.get()) for _ in team]
    for process in team:
        process.join()
    return sum(paces)


def _replay_beside(host, requests, threads, barrier, seconds) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    barrier.wait()
    seconds.put(_replay(requests * _ROUNDS, threads, _by_sdk(host), orjson.loads) / _ROUNDS)


def _replay(
    requests: list[bytes],
    concurrency: int,
    post: Callable[[object], None],
    prepare: Callable[[bytes], object],
) -> float:
    seconds = 0.0
    with ThreadPoolExecutor(concurrency) as pool:
        for begin in range(0, len(requests), 100):
            ready = [prepare(request) for request in requests[begin : begin + 100]]
            began = time.perf_counter()
            for _ in pool.map(post, ready):
                pass
            seconds += time.perf_counter() - began
    return seconds


def _by_sdk(host: str) -> Callable[[object], None]:
    local = threading.local()

    def post(body: object) -> None:
        if not hasattr(local, "client"):
            local.client = sendgrid.SendGridAPIClient("SG.bench", host=host)
            local.client.client.timeout = 30
        assert local.client.send(body).status_code == 202

    return post


def _by_sdk_text(host: str) -> Callable[[object], None]:
    local = threading.local()

    def post(body: object) -> None:
        if not hasattr(local, "client"):
            local.client = sendgrid.SendGridAPIClient("SG.bench", host=host).client
            local.client.timeout = 30
            local.client.request_headers["Content-Type"] = "application/json; charset=utf-8"
        assert local.client.mail.send.post(request_body=body).status_code == 202

    return post


def _by_keep_alive(host: str) -> Callable[[object], None]:
    local = threading.local()
    address = urlsplit(host)

    def post(body: object) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(address.hostname or "", address.port)
        local.connection.request("POST", "/v3/mail/send", body)  # type: ignore[arg-type]
        answer = local.connection.getresponse()
        answer.read()
        assert answer.status == 202

    return post


if __name__ == "__main__":
    main()
