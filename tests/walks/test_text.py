"""Any text in any field arrives as text: through a file, the database, a mail, and out again."""

import csv
import html
import itertools
import json
import re
import tempfile
import unicodedata
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.rendering.placeholders import fill
from newsletter.rendering.render import render
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.settings.load import resource
from subscribers.email_address import address_key
from subscribers.segments import parser as segment_parser
from subscribers.segments import store as segment_store
from subscribers.transfer.export import export_people
from subscribers.transfer.import_run import ImportOptions, import_people
from tests.conftest import ADDRESS_KEY
from tests.newsletter.sending.conftest import PUBLICATION, FakeGateway, dispatcher, make_plan

ISSUE = """---
subject: Dear {{ name }}!
slug: issue-%d
---

NAME» {{ name }} «END

NOTE» {{ attributes.note }} «END
"""
_numbers = itertools.count(1)
#: What an import takes into a name: one line of printable text, without blanks around it.
line = (
    st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=60)
    .map(str.strip)
    .filter(lambda text: text and unicodedata.is_normalized("NFC", text) and text.isprintable())
)
hostile = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "=1+1",
        "-nlaaaaaa0u-",
        "{{ name }}",
        "%name% -name- #name#",
        "&lt;b&gt;",
        'O’Neil, "Zoë" & Søn; <a@b>',
        "'; DROP TABLE subscriber; --",
    ]
)
people = st.lists(st.tuples(line | hostile, line | hostile), min_size=1, max_size=8)


def between(mark: str, text: str) -> str:
    found = re.search(rf"{mark}» ?(.*?) ?«END", text, re.DOTALL)
    assert found, text
    return found[1]


@pytest.mark.slow
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=people, as_csv=st.booleans())
def test_text_comes_back_unchanged_from_a_file_through_a_mail_to_a_file(
    database: Engine, rows: list[tuple[str, str]], as_csv: bool
) -> None:
    number = next(_numbers)
    wanted = {f"p{n}.{number}@example.org": row for n, row in enumerate(rows)}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / ("in.csv" if as_csv else "in.jsonl")
        if as_csv:
            with source.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["email", "name", "note"])
                writer.writerows([email, *row] for email, row in wanted.items())
        else:
            source.write_text(
                "".join(
                    json.dumps({"email": email, "name": name, "note": note}) + "\n"
                    for email, (name, note) in wanted.items()
                )
            )
        report = import_people(
            database,
            source,
            address_key=address_key(ADDRESS_KEY),
            now=datetime.now(UTC),
            name="test",
            # Any word may stand in a note: also one that would say elsewhere who has left.
            options=ImportOptions(confirmed=True, mapping=(("note", "attribute"),)),
        )
    assert (report.added, report.rejected) == (len(rows), 0), report.examples
    assert mailed(database, number, set(wanted)) == wanted
    assert exported(database, set(wanted)) == wanted


def mailed(database: Engine, number: int, emails: set[str]) -> dict[str, tuple[str, str]]:
    """What each person reads, in the HTML part; the text part and the subject have to agree."""
    draft = parse_issue(ISSUE % number, name="issue.md")
    rendered = render(draft, PUBLICATION, templates=resource("templates/email"))
    with transaction(database) as session:
        now = datetime.now(UTC)
        if number == 1 or not any(
            one.segment.name == "all" for one in segment_store.listing(session, now=now)
        ):
            segment_store.save(session, "all", "", now=now)
        send = send_lifecycle.create(
            session,
            draft,
            rendered,
            ["all"],
            by=Actor(None, "operator"),
            at=now,
            now=now,
            approved_by=COMMAND_LINE,
        ).id
    make_plan(database, send, batch_size=1000, now=datetime.now(UTC))
    gateway = FakeGateway()
    dispatcher(database, gateway).send_next()
    read = {}
    for request in gateway.requests:
        for person in request.recipients:
            if person.email not in emails:
                continue
            page = fill(request.html, person.substitutions)
            name, note = (html.unescape(between(mark, page)) for mark in ("NAME", "NOTE"))
            assert "<script>alert" not in page
            assert fill(request.subject, person.substitutions) == f"Dear {name}!"
            assert between("NAME", fill(request.text, person.substitutions)) == name
            read[person.email] = (name, note)
    return read


def exported(database: Engine, emails: set[str]) -> dict[str, tuple[str, str]]:
    file = BytesIO()
    with reading(database) as session:
        condition = segment_parser.condition("", now=datetime.now(UTC))
        export_people(session, condition, file, form="jsonl")
    found = map(json.loads, file.getvalue().decode().splitlines())
    return {
        one["email"]: (one["name"], one["attributes"]["note"])
        for one in found
        if one["email"] in emails
    }
