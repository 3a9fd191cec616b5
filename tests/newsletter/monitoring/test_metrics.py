"""/metrics: who may read it, what a send and its events do to it, and what it costs."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event, text
from starlette.testclient import TestClient

from newsletter import metrics
from newsletter.container import Container
from newsletter.monitoring import database_gauges
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import load
from newsletter.web.app import create_app
from tests.newsletter.sending.conftest import five, planned
from tests.newsletter.web.hooks.test_sendgrid_events import EVENT, PATH, PUBLIC, body_of, signed

__all__ = ["five"]

TOKEN = "a token of a test, 32 characters and more"
BEARER = {"authorization": f"Bearer {TOKEN}"}
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
def sandbox(environment: dict[str, str]) -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as running:
        environment |= {
            "NEWSLETTER_SENDGRID__HOST": running.url,
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": PUBLIC,
            "NEWSLETTER_METRICS__TOKEN": TOKEN,
        }
        yield running


@pytest.fixture
def parts(environment: dict[str, str], sandbox: RunningSandbox) -> Iterator[Container]:
    container = Container(load(environment))
    yield container
    container.database.dispose()


@pytest.fixture
def client(parts: Container) -> Iterator[TestClient]:
    with TestClient(create_app(parts, background=False)) as client:
        yield client


def samples(page: str) -> dict[Sample, float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(page)
        for one in family.samples
    }


def grown(
    before: dict[Sample, float], after: dict[Sample, float], name: str, **labels: str
) -> float:
    key = name, tuple(sorted(labels.items()))
    return after[key] - before.get(key, 0)


def test_the_page_does_not_exist_without_a_token_in_the_settings(container: Container) -> None:
    client = TestClient(create_app(container, background=False))
    for headers in ({}, BEARER, {"authorization": "Bearer "}):
        assert client.get("/metrics", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xff"]
)
def test_only_the_token_opens_it(client: TestClient, given: str) -> None:
    answer = client.get("/metrics", headers={"authorization": given.encode("latin-1")})
    assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
    assert "newsletter_" not in answer.text


@pytest.mark.both_databases
def test_a_send_its_requests_and_its_events_are_counted(
    client: TestClient, parts: Container, database: Engine, five
) -> None:
    before = samples(client.get("/metrics", headers=BEARER).text)
    planned(database, size=2)
    assert before["newsletter_database_up", ()] == 1
    gauges = database_gauges.read(database, now=datetime.now(UTC))
    assert gauges[metrics.BATCHES]["pending",] == 3
    assert gauges[metrics.OLDEST_DUE_BATCH][()] > 0
    dispatcher = parts.dispatcher(parts.workers(alone=True)._heartbeat)
    while dispatcher.send_next():
        pass
    event_of_now = {**EVENT, "timestamp": int(time.time()) - 5}
    body = body_of(event_of_now)
    client.post(PATH, content=body, headers=signed(body))
    client.post(PATH, content=body, headers=signed(body))
    client.post(PATH, content=body)
    client.get("/unsubscribe/a-token-of-somebody")
    client.get("/nowhere/somebody@example.org")
    client.get("/static/site.css")
    client.request("BREW", "/healthz")
    page = client.get("/metrics", headers=BEARER).text
    after = samples(page)
    assert grown(before, after, "newsletter_recipients_total", outcome="accepted") == 5
    requests = "newsletter_provider_request_duration_seconds_count"
    assert grown(before, after, requests, outcome="accepted") == 3
    assert grown(before, after, "newsletter_webhook_posts_total", result="accepted") == 2
    assert grown(before, after, "newsletter_webhook_posts_total", result="bad_signature") == 1
    assert grown(before, after, "newsletter_webhook_events_total", kind="delivered") == 1
    assert grown(before, after, "newsletter_webhook_lag_seconds_count") == 1
    assert 4 <= grown(before, after, "newsletter_webhook_lag_seconds_sum") < 60
    http = {(labels, value) for (name, labels), value in after.items() if "http_requests" in name}
    routes = {dict(labels)["route"] for labels, _ in http}
    assert {PATH, "/unsubscribe/{token}", "/static", "none"} <= routes
    assert "OTHER" in {dict(labels)["method"] for labels, _ in http}
    assert "BREW" not in page
    assert "somebody" not in page
    assert "@" not in page


@pytest.mark.slow
@pytest.mark.both_databases
def test_a_scrape_is_answered_while_the_database_hangs(
    client: TestClient, database: Engine
) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("readers of SQLite wait for nobody")
    with database.connect() as other, other.begin():
        other.execute(text("LOCK TABLE send IN ACCESS EXCLUSIVE MODE"))
        answer = client.get("/metrics", headers=BEARER)
        assert answer.status_code == 200
        found = samples(answer.text)
        assert found["newsletter_database_up", ()] == 0
        assert ("newsletter_outbox_emails", ()) not in found
        assert ("process_cpu_seconds_total", ()) in found
        assert client.get("/healthz").status_code == 200
    deadline = time.monotonic() + 20
    while "newsletter_database_up 1.0" not in client.get("/metrics", headers=BEARER).text:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.both_databases
def test_the_gauges_are_read_in_a_few_statements_and_never_from_deliveries(
    database: Engine, five
) -> None:
    planned(database)
    statements: list[str] = []
    event.listen(
        database,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    database_gauges.read(database, now=datetime.now(UTC))
    selects = [one for one in statements if one.lstrip().startswith("SELECT")]
    assert len(selects) <= 9
    for table in ("delivery", "event ", "subscriber"):
        assert not any(f"FROM {table}" in one for one in selects)


def test_every_metric_follows_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in metrics.ALL]
    assert len(names) == len(set(names))
    for metric in metrics.ALL:
        assert metric.name.startswith("newsletter_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
        assert metric.meaning.endswith(".")
