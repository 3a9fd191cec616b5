"""Server time of each page of the console, with a million subscribers and a hundred past sends.

Requests every page of the route table over HTTP, one after the other, as an owner. Prints the
median, the 95th percentile, and its ratio to the limit of 200 ms.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import case, cast, false, func, insert, literal, select, text

from bench import setup
from bench.report import table
from newsletter.accounts import audit, sessions, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role, SignInStage
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.issues import approval, store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import tasks
from newsletter.sending.models import Batch, Delivery, Send, Variant
from newsletter.settings.load import load
from newsletter.tracking.models import EventRow, SendCounter, VariantCounter
from newsletter.web.app import create_app
from newsletter.web.console.base.session_cookie import form_token
from newsletter.webhooks import endpoints
from subscribers.models import AudienceDay, Subscriber

LIMIT = 200.0
#: Sends that have deliveries; the others are summarized.
_WHOLE = 3
_DOMAINS, _LINKS, _DAYS = 2_000, 40, 14
_BATCH = 1_000
#: Values for the parameters of paths. A page with another parameter needs an entry here.
EXAMPLES = {
    "send_id": "{last}",
    "user_id": "1",
    "session_id": "1",
    "person_id": "500000",
    "subscriber_id": "500000",
    "slug": "letter-1",
    "number": "1",
    "name": "everybody",
    "segment_id": "1",
    "schedule_id": "1",
    "job_id": "1",
    "endpoint_id": "1",
    "token": "x",
}
#: Streams, which never end, and a download of a million rows, which bench.recipients measures.
_ENDLESS = {"/console/sends/{send_id:int}/live", "/console/sends/{send_id:int}/activity.csv"}
#: Further requests of pages, with a query.
MORE = (
    "/console/sends?q=letter&phase=over",
    "/console/sends?before=50",
    "/console/sends/{last}/people?state=bounced",
    "/console/sends/{last}/people?state=planned",
    "/console/sends/{last}/people?q=reader777%40example27.com",
    "/console/sends/{last}/people?after=700-699999",
    "/console/deliverability?days=365",
    "/console/subscribers?q=reader77",
)
#: Forms that change nothing: the preview of a send, and of a segment.
POSTED = {
    "/console/sends/new": {"issue": "coming-0", "segment": "everybody", "step": "check"},
    "/console/segments/try": {"expression": 'plan == "pro" and topic("engineering")'},
}
_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_person, _variant = table_of(Subscriber), table_of(Variant)
_issue, _revision = table_of(Issue), table_of(Revision)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--sends", type=int, default=100)
    parser.add_argument("--requests", type=int, default=20, help="for each page")
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    for kind in options.database:
        with tempfile.TemporaryDirectory() as folder, setup.database(kind, Path(folder)) as url:
            run(kind, url, Path(folder), options)


def run(kind: str, url: str, folder: Path, options: argparse.Namespace) -> None:
    """Fill a database, request each page, and print."""
    settings = setup.environment(url, folder, SITE__BASE_URL="http://127.0.0.1")
    parts = Container(load(settings))
    began = time.perf_counter()
    setup.fill(parts, options.people)
    last = _history(parts, options.people, options.sends)
    cookie = _sign_in(parts)
    seconds = time.perf_counter() - began
    paths = list(_paths(parts, last))
    parts.database.dispose()
    with (
        setup.service(settings) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies={"console": cookie}) as client,
    ):
        rows = [[path, *_timed(client, path, options.requests)] for path in paths]
        for path, form in POSTED.items():
            data = {**form, "csrf": form_token(parts.form_keys, cookie)}
            rows.append([f"POST {path}", *_timed(client, path, options.requests, data)])
    table(
        f"Pages of the console, {options.people:,} people, {options.sends} past sends, {kind} "
        f"(filled in {seconds:.0f} s)",
        ["page", "status", "median, ms", "95th percentile, ms", f"to the limit of {LIMIT:.0f} ms"],
        rows,
    )


def _timed(
    client: httpx.Client, path: str, requests: int, form: dict[str, str] | None = None
) -> tuple[int, float, float, float]:
    """The status, the median and 95th percentile in milliseconds, and its ratio to the limit.

    The first request does not count.
    """
    method, head = "POST" if form else "GET", {"accept": "text/html"}
    status = client.request(method, path, headers=head, data=form, timeout=300).status_code
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        client.request(method, path, headers=head, data=form, timeout=300)
        times.append((time.perf_counter() - began) * 1000)
    p95 = statistics.quantiles(times, n=20)[-1]
    return status, statistics.median(times), p95, p95 / LIMIT


def _paths(parts: Container, last: int) -> Iterator[str]:
    """The paths of all pages, and those of ``MORE``."""
    app = create_app(parts, background=False)
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if (
            isinstance(route, APIRoute)
            and "GET" in (route.methods or ())
            and route.path.startswith("/console")
            and route.path not in _ENDLESS
        ):
            values = {name: EXAMPLES[name] for name in route.param_convertors}
            yield route.path_format.format(**values).replace("{last}", str(last))
    for path in MORE:
        yield path.replace("{last}", str(last))


def _sign_in(parts: Container) -> str:
    """The token of an owner's session."""
    now = datetime.now(UTC)
    with transaction(parts.database) as session:
        owner = users.add(
            session, "owner@example.org", name="", role=Role.OWNER, max_owners=3, now=now
        )
        for n in range(200):
            audit.record(session, Actor(owner.id, owner.email), "signed in", now=now, by=str(n))
        lasts = parts.settings.console.absolute_time
        return sessions.begin(
            session,
            owner.id,
            SignInStage.FULL,
            lasts=lasts,
            now=now,
            ip="192.0.2.1",
            browser="bench",
        )


def _history(parts: Container, people: int, sends: int) -> int:
    """Create past sends with their counters, and a running one; returns the ID of the last."""
    now = datetime.now(UTC)
    first = setup.make_send(parts, "letter-1", at=now)
    with transaction(parts.database) as session:
        _issues(session, sends, now)
        _sends(session, first, people, sends, now)
        _batches(session, people, sends)
    for send in range(max(1, sends - _WHOLE + 1), sends + 1):
        with transaction(parts.database) as session:
            _deliveries(
                session, send, waiting_from=people // _BATCH // 2 if send == sends else None
            )
    with transaction(parts.database) as session:
        _figures(session, people, sends, now)
        _events(session, sends, now)
        for n in range(180):
            day = (now - timedelta(days=n)).date().isoformat()
            count = people - 300 * n
            session.add(AudienceDay(day=day, people=count, active=count, counted_at=now))
        by, url = Actor(None, "operator"), "https://hooks.example.com/"
        endpoints.create(session, url, [WebhookEvent.SEND_PAUSED], by=by, now=now)
    # The clock and the database would do this in the background.
    tasks.configure_tasks(parts.task_context)
    tasks.count_subscribers()
    with parts.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("VACUUM ANALYZE" if parts.database.dialect.name == "postgresql" else "ANALYZE")
        )
    return sends


def _issues(session: Session, sends: int, now: datetime) -> None:
    """An issue for each send, an approved one, and a few in review."""
    known = session.execute(select(_issue)).one()._asdict()
    words = session.execute(select(_revision)).one()._asdict()
    issues, revisions = [], []
    for n in range(2, sends + 1):
        issues.append({**known, "id": n, "slug": f"letter-{n}", "title": f"Letter {n}"})
        revisions.append({**words, "id": n, "issue_id": n})
    session.execute(insert(_issue), issues)
    session.execute(insert(_revision), revisions)
    if session.get_bind().dialect.name == "postgresql":
        for name in ("issue", "revision", "send", "variant"):
            session.execute(text(f"SELECT setval('{name}_id_seq', {sends + 1})"))
    draft = store.draft_from("letter-1", words["source"])
    for n in range(3):
        fields = {name: getattr(draft, name) for name in draft.__slots__}  # type: ignore[attr-defined]
        again = type(draft)(**{**fields, "slug": f"coming-{n}"})
        store.save(session, again, by=COMMAND_LINE, now=now)
        approval.request(session, f"coming-{n}", by=COMMAND_LINE, now=now)
    approval.approve(session, "coming-0", revision=1, by=COMMAND_LINE, now=now)


def _sends(session: Session, first: int, people: int, sends: int, now: datetime) -> None:
    """A send for each day; the last is running, the one before is paused, the others are sent."""
    row = session.execute(select(_send).where(_send.c.id == first)).one()._asdict()
    words = session.execute(select(_variant).where(_variant.c.send_id == first)).one()._asdict()
    variants, rows = [], []
    for n in range(1, sends + 1):
        began = now - timedelta(days=sends - n)
        state = {sends: "sending", sends - 1: "paused"}.get(n, "sent")
        done = {"finished_at": began if state == "sent" else None, "planned": people}
        done["accepted_count"] = people if state == "sent" else None
        rows.append({**row, "id": n, "issue_id": n, "revision_id": n, "state": state, **done})
        rows[-1] |= {
            "started_at": began,
            "reason": "the circuit breaker" if state == "paused" else "",
        }
        variants.append({**words, "id": n, "send_id": n})
    session.execute(_variant.delete())
    session.execute(_send.delete())
    session.execute(insert(_send), rows)
    session.execute(insert(_variant), variants)


def _batches(session: Session, people: int, sends: int) -> None:
    """Batches of a thousand recipients; the last send is half done, with an uncertain batch."""
    now = datetime.now(UTC)
    for send in range(1, sends + 1):
        rows = []
        for batch in range(1, people // _BATCH + 1):
            half = batch > people // _BATCH // 2
            state = "pending" if send == sends and half else "accepted"
            if send == sends and batch == 7:
                state = "uncertain"
            rows.append(
                {
                    "send_id": send,
                    "number": batch,
                    "variant_id": send,
                    "state": state,
                    "size": _BATCH,
                    "not_before": now,
                    "departed_at": None if state == "pending" else now,
                    "settled_at": now if state == "accepted" else None,
                }
            )
        session.connection().execute(insert(_batch), rows)


def _deliveries(session: Session, send: int, *, waiting_from: int | None) -> None:
    """A delivery for each subscriber, one in a hundred bounced, in one statement."""
    batch = (_person.c.id - 1) // _BATCH + 1
    waits = batch > waiting_from if waiting_from is not None else false()
    bounced = (_person.c.id % 100 == 0) & ~waits
    state = case((waits, "planned"), (bounced, "bounced"), else_="delivered")
    rows = select(
        literal(send),
        _person.c.id,
        literal(send),
        batch,
        state,
        case((bounced, "550 5.1.1 no such user here"), else_=None),
    )
    columns = ["issue_id", "subscriber_id", "send_id", "batch", "state", "reason"]
    session.execute(insert(_delivery).from_select(columns, rows))


def _figures(session: Session, people: int, sends: int, now: datetime) -> None:
    """Counters of each send, in all and by domain, link and day."""
    whole = {"delivered": 0.98, "bounce": 0.01, "opened": 0.4, "open": 0.7, "clicked": 0.1}
    whole |= {"click": 0.15, "complained": 0.001, "left": 0.002, "machine_open": 0.2}
    connection = session.connection()
    for send in range(1, sends + 1):
        counts = [{"send_id": send, "what": w, "count": int(people * s)} for w, s in whole.items()]
        connection.execute(insert(table_of(SendCounter)), counts)
        parts: list[dict[str, Any]] = []
        for part, values in (
            ("domain", [f"example{n}.com" for n in range(_DOMAINS)]),
            ("link", [f"https://example.com/{n}" for n in range(_LINKS)]),
            ("day", [(now - timedelta(days=n)).date().isoformat() for n in range(_DAYS)]),
        ):
            parts += [
                {"send_id": send, "part": part, "value": value, "what": what, "count": n + 1}
                for n, value in enumerate(values)
                for what in whole
            ]
        connection.execute(insert(table_of(VariantCounter)), parts)


def _events(session: Session, send: int, now: datetime) -> None:
    """Events of the last send for a fifth of its recipients."""
    event = table_of(EventRow)
    hashed = (
        func.randomblob(16)
        if session.get_bind().dialect.name == "sqlite"
        else func.decode(func.md5(cast(_person.c.id, _person.c.email.type)), "hex")
    )
    rows = select(
        literal(now, event.c.at.type),
        hashed,
        literal("delivered"),
        literal(now, event.c.at.type),
        literal(send),
        literal(send),
        literal(1),
        _person.c.id,
        literal("example1.com"),
        literal(""),
        literal(False),
        literal("{}"),
    ).where(_person.c.id % 5 == 0)
    columns = ["at", "key", "kind", "received_at", "issue_id", "send_id", "batch"]
    columns += ["subscriber_id", "domain", "link", "by_machine", "raw"]
    session.execute(insert(event).from_select(columns, rows))


if __name__ == "__main__":
    main()
