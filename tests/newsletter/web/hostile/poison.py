"""A database in which every text is hostile, and every page of the service asked for with it.

Made from the tables and from the route table, so that a new column or a new page is in it by
itself. Where a stranger is met (a column that the program reads as more than text, a part of
an address) the tests stop and ask for a line here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import product
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx2 import Response
from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy import insert as insert_row

from newsletter.accounts import sessions
from newsletter.accounts.models import Role, SignInStage
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import Model, Session
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.links import Purpose
from newsletter.rendering.render import render
from newsletter.settings.load import resource
from subscribers.list_files.inspection import Question
from subscribers.list_files.row import RejectedRow
from subscribers.transfer.import_run import ImportReport
from tests.newsletter.web.conftest import Browser, Office

#: Ends an attribute and a tag, begins a tag, and is an attribute where nobody wrote quotes.
MARKUP = "<zz\"'> onzz=1"
#: Is a program wherever it stands as an address.
PROGRAM = "javascript:zz()"

#: So many rows in each table: as many as anything has states, so that each state is shown.
ROWS = 8
FIRST = 101
STAMP = 77

#: Columns of text that the program reads as more than text, and what may stand there.
READ: dict[str, list[str]] = {
    # Made by us, and put into a picture.
    "console_factor.secret": ["JBSWY3DPEHPK3PXP" * 2],
    "console_factor.pending": ["JBSWY3DPEHPK3PXP" * 2],
    "subscriber.timezone": ["Europe/Berlin"],
    "batch.zone": ["Europe/Berlin"],
    "schedule.zone": ["Europe/Berlin"],
    "schedule.rule": ["daily 07:00", "2026-12-01 09:00"],
    # A key: a day for each row.
    "audience_day.day": [f"2026-03-{n:02}" for n in range(1, ROWS + 1)],
    "publication_setting.key": ["site.name", "sender.name", "site.postal_address"],
    "event.kind": ["delivered", "open", "click", "bounce"],
    "operator_message.kind": ["review_asked", "send_finished", "schedule_failed", "disk_low"],
    "part_count.part": ["day", "domain", "link"],
    "part_count.what": ["delivered", "click", "open"],
    "person_count.what": ["click", "open"],
    "send_count.what": ["delivered", "open", "click", "bounce"],
}
#: Moments that lie ahead, for what is shown only while they do.
AHEAD = {"expires_at", "until", "alive_until", "lease_until", "paused_until"}


def source(payload: str) -> str:
    """An issue file that says it wherever words may stand."""
    quoted = payload.replace("'", "''")
    return (
        f"---\nsubject: 'Subject {quoted}'\ntitle: 'Title {quoted}'\n"
        f"preheader: 'Pre {quoted}'\n---\n\n# {payload}\n\nDear {{{{ name }}}} of "
        f"{{{{ attributes.company }}}}, {payload} [link](https://example.org/{{{{ email }}}})\n\n"
        f"`{payload}` ![picture {payload}](https://example.org/x.png)\n"
    )


def fill(session: Session, parts: Container, payload: str) -> None:
    """Put the payload into every column of text of every table."""
    rendered = render(
        parse_issue(source(payload), name="poisoned-0.md"),
        parts.publication,
        templates=resource("templates/email"),
    )
    texts = {
        "segment.expression": f'name == "{payload.replace(chr(34), "")}"',
        "revision.source": source(payload),
        "variant.html": rendered.html,
        "variant.subject": rendered.subject,
        "variant.text": rendered.text,
        "event.raw": json.dumps({"reason": payload, payload: payload}),
    }
    named = [{"name": payload, "expression": payload}]
    report = ImportReport(
        kind=payload,
        encoding=payload,
        note=payload,
        read=3,
        added=1,
        updated=1,
        unchanged=1,
        left={payload: 1},
        refused={payload: 1},
        duplicates=1,
        rejected=1,
        examples=(RejectedRow(1, payload, payload),),
        references=("#1",),
        topics={payload: 1},
        unknown_topics={payload: 1},
        other_tags={payload: 1},
        has_topics=True,
        questions=tuple(Question(kind, payload, payload, payload) for kind in ("word", "column")),
        new_topics=(payload,),
        columns=((payload, payload),),
        seconds=1.0,
    )
    told = asdict(report) | {"examples": [list(one) for one in report.examples]}
    values: dict[str, Any] = {
        "import_job.options": {"topics": [payload], "wording": payload, "encoding": ""},
        "import_job.found": told,
        "import_job.report": told,
        "audit_entry.detail": {"why": payload, payload: 1},
        "subscriber.attributes": {"company": payload, "tags": [payload], payload: payload},
        "reconciliation.report": {"note": payload},
        "confirmation.asked": {"email": payload, "topics": [payload], "name": payload},
        "send.segments": named,
        "send.excluded": named,
        "send.topics": [payload],
        "send.timetable": {},
        "send.test": {},
        "send.breaker_baseline": {},
        "send.excluded_counts": {payload: 3},
        "send.final_counts": {payload: 3},
        "schedule.skips": ["2026-12-25"],
        "schedule.timetable": {},
        "departure_log.read": {payload: 1},
        "send.occasion": {payload: payload},
        "console_user.notify": ["send_paused", payload],
        "publication_setting.value": payload,
        "webhook_delivery.data": {"asked_by": payload, payload: payload},
        "variant.placeholders": rendered.placeholders.to_json(),
    }
    for table in Model.metadata.sorted_tables:
        words = _words(table)
        rows = []
        for n in range(ROWS):
            row: dict[str, Any] = {}
            for column in table.columns:
                name = f"{table.name}.{column.name}"
                if isinstance(column.type, JSON):
                    assert name in values, (
                        f"tests/newsletter/web/hostile/poison.py: what is in {name}?"
                    )
                    row[column.name] = values[name]
                elif isinstance(_kind(column), String):
                    allowed = words.get(column.name) or READ.get(name)
                    text = allowed[n % len(allowed)] if allowed else texts.get(name, payload)
                    mark = str(n) if _is_unique(table, column) and not allowed else ""
                    length = (_kind(column).length or 10**6) - len(mark)
                    row[column.name] = text[:length] + mark
                else:
                    row[column.name] = _value(column, n)
            rows.append(row)
        session.execute(insert_row(table), rows)


def _words(table: Table) -> dict[str, list[str]]:
    """Column → the words that its constraint allows."""
    found = {}
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint):
            column = str(constraint.name).removeprefix(f"ck_{table.name}_")
            found[column] = re.findall(r"'([^']*)'", str(constraint.sqltext))
    return found


def _is_unique(table: Table, column: Column[Any]) -> bool:
    """Whether rows have to differ here: a name, or a key of one column."""
    kinds = UniqueConstraint, PrimaryKeyConstraint
    return [column.name] in [
        one.columns.keys() for one in table.constraints if isinstance(one, kinds)
    ]


def _kind(column: Column[Any]) -> Any:
    """The column's type, without what the models put around it."""
    return column.type.impl if isinstance(column.type, TypeDecorator) else column.type


def _value(column: Column[Any], n: int) -> Any:
    now = datetime.now(UTC)
    kind = _kind(column)
    if isinstance(kind, LargeBinary):
        # The first person is not suppressed: their links still lead somewhere.
        first = 2 if column.table.name == "suppression" else 1
        return bytes([n + first]) * (kind.length or 16)
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, DateTime):
        return now + timedelta(days=1) if column.name in AHEAD else now - timedelta(minutes=n)
    if column.name == "id" or column.name.endswith("_id") or column.name == "published_send":
        return FIRST + n
    return STAMP if column.name == "stamp" else 1


@dataclass(frozen=True)
class Places:
    """Every route of a service over such a database, and what stands in its addresses."""

    parts: Container
    app: FastAPI
    payload: str

    @property
    def routes(self) -> list[APIRoute]:
        """Everything that answers."""
        found = [one.original_route for one in iter_route_contexts(self.app.routes)]
        return [route for route in found if isinstance(route, APIRoute)]

    def paths(self, route: APIRoute) -> Iterator[str]:
        """Addresses of a route: of what there is, in each of its states, and of what is hostile."""
        names = [part.split("}")[0] for part in route.path.split("{")[1:]]
        for values in product(*(self._candidates(name, route.path) for name in names)):
            path = route.path
            for name, value in zip(names, values, strict=True):
                path = path.replace(f"{{{name}}}", value)
            yield path

    def _candidates(self, name: str, path: str) -> list[str]:
        kind = name.removesuffix(":int").removesuffix(":path")
        links = self.parts.links
        if kind == "token":
            later = datetime.now(UTC) + timedelta(hours=1)
            return [
                *(links.token(Purpose.RECIPIENT, FIRST + n, FIRST + n) for n in range(2)),
                *(links.token(Purpose.CONFIRM, FIRST + n, expires=later) for n in range(ROWS)),
                *(links.token(Purpose.VIEW, FIRST + n) for n in range(2)),
                links.token(Purpose.PASSWORD, FIRST, STAMP, expires=later),
                quote(self.payload, safe=""),
            ]
        if name.endswith(":int"):
            # Users and their sessions have no states of their own.
            some = 1 if kind in {"user_id", "session_id"} else ROWS
            return [*(str(FIRST + n) for n in range(some)), "1"]
        if kind in {"slug", "name", "label"}:
            return [quote(self.payload + end, safe="") for end in ("0", "1", "")]
        if kind == "key":
            return ["k" * 32]
        raise AssertionError(
            f"tests/newsletter/web/hostile/poison.py: what stands for {name} in {path}?"
        )


@dataclass
class World:
    """A service over such a database, and visitors who have come differently far."""

    office: Office
    payload: str
    visitors: dict[str, Browser] = field(default_factory=dict)

    def __post_init__(self) -> None:
        office = self.office
        self.places = Places(office.parts, office.app, self.payload)
        self.visitors = {"nobody": office.browser(), "owner": office.signed_in(Role.OWNER)}
        with transaction(office.parts.database) as session:
            fill(session, office.parts, self.payload)
            for stage in (SignInStage.CODE, SignInStage.ENROL):
                browser = self.visitors[stage] = office.browser()
                browser.token = sessions.begin(
                    session,
                    FIRST,
                    stage,
                    lasts=timedelta(hours=1),
                    now=datetime.now(UTC),
                    ip=None,
                    browser=None,
                )


_ADDRESSES = {"href", "src", "action", "formaction", "data", "poster"}


class _Reader(HTMLParser):
    """Finds what the payload would have made of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag.startswith("zz"):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            text = (value or "").strip().lower()
            if "zz" in name:
                self.found.append(f"{tag} {name}")
            if name in {"href", "src", "action", "formaction", "srcdoc"} and text.startswith(
                "java"
            ):
                self.found.append(f"{tag} {name}={value}")
            if name.startswith("on"):
                self.found.append(f"{tag} {name}")


def damage(answer: Response) -> list[str]:
    """What of a payload came to life in an answer; nothing where nothing is shown as a page."""
    kind = answer.headers.get("content-type", "")
    if not re.search("html|xml|svg|event-stream", kind):
        return []
    reader = _Reader()
    reader.feed(answer.text)
    reader.close()
    raw = ["<zz"] if "<zz" in answer.text else []
    return [*raw, *reader.found]
