"""The dashboard and the alert rules of deploy/ fit the metrics of a running service."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from newsletter import metrics
from newsletter.container import Container
from newsletter.sandbox.server import SandboxConfig, start_sandbox
from newsletter.settings.load import load
from newsletter.web.app import create_app
from tests.walks.test_many_workers import BATCH_SIZE, send_now

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
NEWSLETTER = Path(sys.executable).with_name("newsletter")
TOKEN = "a token of a test, 32 characters and more"
#: Labels that Prometheus itself adds, and that of a histogram.
_ADDED = {"job", "instance", "le"}


def expressions() -> list[str]:
    """All expressions of the rules and the dashboard."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    panels = json.loads((DEPLOY / "grafana" / "newsletter.json").read_text())["panels"]
    return [rule["expr"] for rule in rules] + [
        target["expr"] for panel in panels for target in panel["targets"]
    ]


def exposed(container: Container) -> set[str]:
    """The names of the samples that /metrics has, or has as soon as something is counted."""
    client = TestClient(create_app(container, background=False))
    page = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        ends = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        names |= {name + end for end in ends}
    return names


def test_every_metric_of_the_dashboard_and_the_rules_is_exposed(
    environment: dict[str, str],
) -> None:
    container = Container(load(environment | {"NEWSLETTER_METRICS__TOKEN": TOKEN}))
    names = exposed(container)
    labels_of = {one.name: set(one.labels) for one in metrics.ALL}
    assert set(labels_of) <= {re.sub("_(bucket|count|sum)$", "", name) for name in names}
    found = set()
    for expression in expressions():
        for name, matchers in re.findall(
            r"\b((?:newsletter|process)_[a-z_]+)(?:\{([^}]*)\})?", expression
        ):
            found.add(name)
            assert name in names, expression
            base = re.sub("_(bucket|count|sum)$", "", name)
            known = labels_of.get(base, set()) | labels_of.get(name, set()) | _ADDED
            assert set(re.findall(r"([a-z_]+)\s*[!=]", matchers)) <= known, expression
    # Nobody has to search for a metric that is on no panel.
    assert set(labels_of) <= {re.sub("_(bucket|count|sum)$", "", name) for name in found} | {
        "newsletter_sends"
    }
    container.database.dispose()


def test_every_alert_says_what_to_do() -> None:
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert rule["alert"].startswith("Newsletter")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "action"}


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.slow
def test_the_rules_pass_their_unit_tests() -> None:
    folder = DEPLOY / "prometheus"
    for words in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run(
            [tool("promtool"), *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall('alertname="(\\w+)"', (folder / "alerts_test.yml").read_text()))
    assert tested == set(re.findall(r"alert: (\w+)", RULES.read_text()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running(words: list[Any], folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A program, until the end of the block; yields its log."""
    log = folder / f"{Path(words[0]).name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            words,
            env={"PATH": os.environ["PATH"], **environment},
            stderr=file,
            stdout=file,
            cwd=folder,
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


class Prometheus:
    """A Prometheus server that scrapes the service."""

    def __init__(self, folder: Path, target: int) -> None:
        self._url = f"http://127.0.0.1:{free_port()}"
        # The rules as they are, but without the waits.
        rules = re.sub(r"for: \w+", "for: 0s", RULES.read_text())
        (folder / "alerts.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {
                    "job_name": "newsletter",
                    "authorization": {"credentials": TOKEN},
                    "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.words = [
            tool("prometheus"),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={self._url.removeprefix('http://')}",
        ]

    def ask(self, path: str, **query: str) -> Any:
        try:
            url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except OSError:
            return {}

    def value(self, expression: str) -> float | None:
        found = self.ask("query", query=expression).get("result")
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        alerts = self.ask("alerts").get("alerts", ())
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


def until(done: Callable[[], object], *logs: Path) -> None:
    deadline = time.monotonic() + 90
    while not done():
        said = "\n".join(log.read_text()[-3000:] for log in logs)
        assert time.monotonic() < deadline, said
        time.sleep(0.3)


@pytest.mark.slow
def test_a_real_prometheus_sees_a_send_and_alerts_of_an_outage(
    environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    prometheus = Prometheus(tmp_path, port)
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as sandbox:
        sandbox.set_faults(slow={"probability": 1, "seconds": 0.3})
        environment |= {
            "NEWSLETTER_SENDGRID__HOST": sandbox.url,
            "NEWSLETTER_SENDING__BATCH_SIZE": str(BATCH_SIZE),
            "NEWSLETTER_SENDING__CONCURRENCY": "1",
            "NEWSLETTER_METRICS__PORT": str(port),
            "NEWSLETTER_METRICS__TOKEN": TOKEN,
        }
        serve = [NEWSLETTER, "serve", "--port", "0"]
        with (
            running(serve, tmp_path, environment) as log,
            running(prometheus.words, tmp_path, {}) as other,
        ):
            until(lambda: prometheus.value("up") == 1, log, other)
            until(lambda: prometheus.value("newsletter_clock_leader") == 1, log, other)
            parts = Container(load(environment))
            send_now(parts)
            accepted = 'newsletter_recipients_total{outcome="accepted"}'
            until(lambda: (prometheus.value(accepted) or 0) >= 50, log, other)
            until(lambda: prometheus.value('newsletter_batches{state="pending"}'), log, other)
            assert "NewsletterProviderTrouble" not in prometheus.firing()
            # The provider is away, in the middle of the send.
            sandbox.set_faults(refuse=1)
            until(lambda: "NewsletterProviderTrouble" in prometheus.firing(), log, other)
            unknown = 'newsletter_provider_request_duration_seconds_count{outcome="unknown"}'
            until(lambda: prometheus.value(unknown), log, other)
            until(lambda: prometheus.value("newsletter_uncertain_batches"), log, other)
            sandbox.set_faults()
            until(lambda: "NewsletterProviderTrouble" not in prometheus.firing(), log, other)
            parts.database.dispose()
    assert "Traceback" not in log.read_text()
