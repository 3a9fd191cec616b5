"""The port of its own: what it answers, also when slow clients hold all its connections."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from newsletter.container import Container
from newsletter.errors import MachineError
from newsletter.monitoring.listener import MonitorListener
from newsletter.monitoring.process_monitor import ProcessMonitor

NEWSLETTER = Path(sys.executable).with_name("newsletter")


@pytest.fixture
def port(container: Container) -> Iterator[int]:
    monitor = ProcessMonitor(container, has_metrics=True)
    with MonitorListener(monitor, "127.0.0.1", 0) as listener:
        yield int(listener.url.rpartition(":")[2])


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_it_answers_health_and_metrics_and_nothing_else(port: int) -> None:
    assert ask(port, "/healthz") == (200, b'{"status":"ok"}')
    assert ask(port, "/healthz", "HEAD") == (200, b"")
    status, body = ask(port, "/readyz")
    assert (status, json.loads(body)["status"]) == (200, "ready")
    status, body = ask(port, "/metrics?x=1")
    assert status == 200
    assert b"newsletter_database_up 1.0" in body
    assert ask(port, "/console")[0] == 404
    assert ask(port, "/metrics", "POST")[0] == 501


def test_slow_clients_do_not_keep_others_out(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    for one in slow:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert ask(port, "/healthz")[0] == 200
    for one in slow:
        one.close()


def test_a_port_in_use_is_a_message_and_not_a_traceback(port: int, container: Container) -> None:
    with pytest.raises(MachineError, match="cannot listen there"):
        MonitorListener(ProcessMonitor(container), "127.0.0.1", port)


@pytest.mark.slow
@pytest.mark.both_databases
def test_a_worker_tells_its_health_and_metrics(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("w") as file:
        worker = subprocess.Popen(
            [NEWSLETTER, "worker", "--health-port", "0"],
            env={"PATH": os.environ["PATH"], **environment},
            stderr=file,
            cwd=tmp_path,
        )
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"metrics: http://127.0.0.1:(\d+)", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        port = int(found[1])
        assert ask(port, "/healthz")[0] == 200
        # It takes the clock over, because there is no service.
        while b"newsletter_clock_leader 1.0" not in ask(port, "/metrics")[1]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        status, body = ask(port, "/readyz")
        assert status == 200, body
        assert json.loads(body)["checks"][0] == {
            "name": "this process",
            "ok": True,
            "text": "all threads run",
        }
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
    assert "Traceback" not in log.read_text()
