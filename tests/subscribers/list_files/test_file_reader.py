"""Files of people, read as they come: dialects, encodings, other products' exports, bad input."""

import tracemalloc
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from newsletter.errors import UserError
from subscribers.list_files.file_reader import SubscriberFile
from subscribers.list_files.row import RejectedRow, Row

DATA = Path(__file__).parent / "data"


def read(text: str | bytes, **options: Any) -> list[Row | RejectedRow]:
    data = text.encode() if isinstance(text, str) else text
    return list(SubscriberFile(BytesIO(data), "people.csv", **options))


def one(text: str | bytes) -> Row:
    (row,) = read(text)
    assert isinstance(row, Row), row
    return row


def rejects(text: str | bytes) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read(text) if isinstance(row, RejectedRow)]


def emails(text: str | bytes) -> list[str]:
    return [row.email for row in read(text) if isinstance(row, Row)]


# CSV.


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_found(mark: str) -> None:
    row = one(f'name{mark}e-mail{mark}city\nAlice{mark}alice@example.org{mark}"A, B; C"\n')
    assert (row.email, row.name) == ("alice@example.org", "Alice")
    assert row.attributes == {"city": "A, B; C"}


def test_a_comma_inside_cells_does_not_hide_the_semicolon() -> None:
    text = 'email;name\nalice@example.org;"Liddell, Alice"\nbob@example.org;"Ross, Bob"\n'
    assert [row.name for row in read(text) if isinstance(row, Row)] == [
        "Liddell, Alice",
        "Ross, Bob",
    ]


def test_excels_line_on_the_separator_is_no_header() -> None:
    row = one("sep=;\r\nemail;name\r\nalice@example.org;Alice\r\n")
    assert (row.line, row.name) == (3, "Alice")


@pytest.mark.parametrize(
    "header", ["email", "E-Mail", "Email Address", " EMAIL  address ", "e mail"]
)
def test_the_column_of_addresses_is_known_by_many_names(header: str) -> None:
    assert one(f"{header},x\nalice@example.org,1\n").email == "alice@example.org"


def test_known_columns_become_fields_and_the_others_attributes() -> None:
    row = one(
        "Email,First name,Last name,Language,Time zone,Topics,Created at,Confirmed at,Status,"
        "Favourite Café!,2nd line,\n"
        "alice@example.org,Alice,Liddell,de_AT,Europe/Vienna,news; tech ,2024-01-02,"
        "2024-01-03T10:00:00+02:00,Subscribed,Zartl,x,y\n"
    )
    assert row == Row(
        line=2,
        email="alice@example.org",
        name="Alice Liddell",
        attributes={
            "favourite_cafe": "Zartl",
            "column_2nd_line": "x",
            "column_12": "y",
            # For greetings.
            "first_name": "Alice",
            "last_name": "Liddell",
        },
        language="de-AT",
        timezone="Europe/Vienna",
        topics=("news", "tech"),
        created_at=datetime(2024, 1, 2, tzinfo=UTC),
        confirmed_at=datetime(2024, 1, 3, 8, tzinfo=UTC),
    )


def test_an_empty_cell_is_no_attribute() -> None:
    assert one("email,plan\nalice@example.org,\n").attributes == {}


def test_two_columns_of_one_name_are_both_kept() -> None:
    row = one("email,Plan,plan,E-mail\nalice@example.org,pro,free,other@example.org\n")
    assert row.attributes == {"plan": "pro", "plan_2": "free", "e_mail": "other@example.org"}


def test_line_breaks_inside_quotes_belong_to_the_cell() -> None:
    rows = read('email,note\r\nalice@example.org,"one\r\ntwo\nthree"\r\nbob@example.org,x\r\n')
    assert [(row.line, row.attributes["note"]) for row in rows if isinstance(row, Row)] == [
        (2, "one\r\ntwo\nthree"),
        (5, "x"),
    ]


def test_empty_lines_and_lines_of_empty_cells_are_nobody() -> None:
    assert emails("email,name\n\nalice@example.org,\n,\n\n") == ["alice@example.org"]


def test_a_row_with_too_many_or_too_few_cells_is_rejected() -> None:
    text = "email,name\na@example.org,A,1\nb@example.org\nc@example.org,C,,\n"
    assert rejects(text) == [
        (2, "3 cells, but the first line has 2"),
        (3, "1 cells, but the first line has 2"),
    ]
    assert emails(text) == ["c@example.org"]


def test_old_macs_ended_lines_otherwise() -> None:
    assert emails(b"email,name\ra@example.org,A\rb@example.org,B\r") == [
        "a@example.org",
        "b@example.org",
    ]


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    text = 'email,name\na@example.org,"A\nb@example.org,B\nc@example.org,"C"\nd@example.org,D\n'
    found = read(text)
    assert isinstance(found[0], RejectedRow)
    assert (found[0].line, found[0].text) == (2, 'a@example.org,"A')
    assert found[0].reason.startswith("not CSV")
    assert emails(text) == ["b@example.org", "c@example.org", "d@example.org"]


def test_a_quote_left_open_at_the_end_costs_one_row() -> None:
    text = 'email,name\na@example.org,"A\n' + "".join(f"b{n}@example.org,B\n" for n in range(50))
    assert [line for line, _ in rejects(text)] == [2]
    assert len(emails(text)) == 50


def test_an_unknown_status_is_rejected_rather_than_mailed() -> None:
    assert rejects("email,status\na@example.org,gone fishing\n") == [
        (2, "the status “gone fishing” is unknown")
    ]


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("created_at", "yesterday", "“yesterday” is not a date"),
        ("created_at", "31/31/2024", "“31/31/2024” is not a date"),
        ("confirmed_at", "0001-01-01T00:00:00+14:00", "is not a date"),
        ("timezone", "Middle-earth/Shire", "is not a time zone"),
        ("language", "English, mostly", "is not a language tag"),
        ("attributes", "[1]", "not a JSON object"),
        ("attributes", "{", "not an object in JSON"),
        ("topics", "x" * 65, "is longer than 64 characters"),
        ("name", "x" * 201, "longer than 200"),
        ("name", "Al\x07ice", "control characters"),
        ("name", "Al\tice", "control characters"),
        ("name", "Alice\x85Bcc: x", "control characters"),
        ("name", "Alice\nBcc: x", "control characters"),
    ],
)
def test_a_cell_that_cannot_be_taken_names_its_reason(column: str, cell: str, reason: str) -> None:
    quoted = cell.replace('"', '""')
    ((line, found),) = rejects(f'email,{column}\na@example.org,"{quoted}"\n')
    assert line == 2
    assert reason in found


def test_joined_emoji_and_foreign_spaces_are_fine_in_names() -> None:
    for name in ("👩‍💻 Ada", "Anne\u00a0Marie", "王\u3000小明", "=HYPERLINK()", "<b>{{name}}</b>"):
        assert one(f"email,name\na@example.org,{name}\n").name == name


# Encodings.


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        row = one("email,name\r\na@example.org,Zoë 👋\r\n".encode(encoding))
        assert (row.email, row.name) == ("a@example.org", "Zoë 👋")


def test_what_is_not_utf8_anywhere_is_windows_1252_and_says_so() -> None:
    people = SubscriberFile(
        BytesIO("email,name\na@example.org,Zoë “X”\n".encode("cp1252")), "x.csv"
    )
    (row,) = people
    assert isinstance(row, Row)
    assert row.name == "Zoë “X”"
    assert people.encoding.note
    assert "Windows-1252" in people.encoding.note


def test_the_first_foreign_byte_may_come_late() -> None:
    plain = "".join(f"reader{n}@example.org,R\n" for n in range(20_000))
    text = f"email,name\n{plain}z@example.org,Zoë\n"
    assert [r.name for r in read(text.encode("cp1252")) if isinstance(r, Row)][-1] == "Zoë"
    assert [r.name for r in read(text.encode()) if isinstance(r, Row)][-1] == "Zoë"


def test_mixed_encodings_cost_the_rows_that_are_out_of_line() -> None:
    text = (
        b"email,name\na@example.org,Zo\xc3\xab\nb@example.org,Zo\xeb\n"
        b'c@example.org,"two\nlin\xebs"\nd@example.org,D\n'
    )
    reason = "not in the encoding of the rest of the file"
    assert rejects(text) == [(3, reason), (4, reason)]
    assert emails(text) == ["a@example.org", "d@example.org"]
    texts = [row.text for row in read(text) if isinstance(row, RejectedRow)]
    assert texts[0] == r"b@example.org,Zo\xeb"


def test_bytes_that_windows_1252_lacks_cost_their_row() -> None:
    text = b"email,name\na@example.org,Zo\xeb\nb@example.org,\x81\n"
    assert [line for line, _ in rejects(text)] == [3]


def test_broken_utf16_costs_its_row() -> None:
    text = (
        "email,name\na@example.org,".encode("utf-16")
        + b"\x00\xd8"
        + "\nb@example.org,B\n".encode("utf-16-le")
    )
    assert [line for line, _ in rejects(text)] == [2]
    assert emails(text) == ["b@example.org"]


def test_the_operator_may_name_the_encoding() -> None:
    (row,) = read("email,name\na@example.org,Žižek\n".encode("cp1250"), encoding="cp1250")
    assert isinstance(row, Row)
    assert row.name == "Žižek"


def test_an_encoding_that_there_is_not_is_the_operators_mistake() -> None:
    with pytest.raises(UserError, match="no encoding called utf-88"):
        read("email\n", encoding="utf-88")


# Bad input.


def test_nul_bytes_cost_their_row() -> None:
    text = b"email,name\na@example.org,A\0A\nb@example.org,B\n"
    assert rejects(text) == [(2, "a NUL byte")]
    assert emails(text) == ["b@example.org"]


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_line_of_many_megabytes_costs_its_row_and_no_memory(quote: bytes) -> None:
    long = b"a@example.org," + quote + b"x" * 30_000_000 + quote
    text = b"email,note\n" + long + b"\nb@example.org,B\n"
    file = BytesIO(text)
    tracemalloc.start()
    try:
        found = list(SubscriberFile(file, "x.csv"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert isinstance(found[0], RejectedRow)
    assert (found[0].line, found[0].reason) == (2, "the line is longer than 1,000,000 bytes")
    assert len(found[0].text) < 1000
    assert isinstance(found[1], Row)
    assert (found[1].line, found[1].email) == (3, "b@example.org")


def test_a_field_over_many_lines_is_bounded_too() -> None:
    text = 'email,note\na@example.org,"' + "x" * 99 + ("y" * 99 + "\n") * 20_000
    found = read(text + "b@example.org,B\n")
    assert isinstance(found[0], RejectedRow)
    assert found[0].line == 2
    assert isinstance(found[-1], Row)


def test_a_field_of_half_a_megabyte_is_taken() -> None:
    assert len(one(f'email,note\na@example.org,"{"x" * 500_000}"\n').attributes["note"]) == 500_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf \n", "the file is empty"),
        (b"name,city\nAlice,Wien\n", "no column has addresses: “name”, “city”"),
        (b"alice@example.org\nbob@example.org\n", "no column has addresses"),
        (b'{"name": "Alice"}\n', "no key has addresses: “name”"),
        (b'[{"email": "a@example.org"}]', "this is one JSON list"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        ("email\na@example.org\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b'email,"na\nme', "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_people_is_explained(text: bytes, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert words in caught.value.message
    assert caught.value.place == "people.csv"
    assert caught.value.hint


# JSON Lines.


def test_json_lines_keep_typed_values() -> None:
    row = one(
        '{"E-mail": "a@example.org", "name": "A", "Age": 31, "vip": true, "none": null,'
        ' "score": 1.5, "tags": ["x", "y"], "topics": "news, tech", "attributes": {"Keep Me": [1]},'
        ' "nested": {"deep": {"er": null}}, "confirmed_at": "2024-01-02T03:04:05Z"}\n'
    )
    assert row.attributes == {
        "Keep Me": [1],
        "age": 31,
        "vip": True,
        "none": None,
        "score": 1.5,
        "tags": ["x", "y"],
        "nested": {"deep": {"er": None}},
    }
    assert row.topics == ("news", "tech")
    assert row.tags == ("x", "y")
    assert row.confirmed_at == row.created_at == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not an object in JSON"),
        ("[1]", "not a JSON object"),
        ('{"email": 1}', "email must be a text"),
        ('{"email": "b@example.org", "name": ["B"]}', "name must be a text"),
        ('{"email": "b@example.org", "x": "\\u0000"}', "a NUL character"),
        ('{"email": "b@example.org", "x": "\\ud800"}', "not an object in JSON"),
        ('{"email": "b@example.org", "created_at": 1700000000}', "created_at must be a text"),
        ('{"email": "b@example.org", "topics": [1]}', "topics and tags must be a list of strings"),
        ('{"email": "b@example.org", "attributes": []}', "attributes must be a JSON object"),
        ('{"email": "b@example.org", "x": ' + "[" * 2000 + "]" * 2000 + "}", "not an object"),
    ],
)
def test_a_line_that_is_no_person_is_rejected(line: str, reason: str) -> None:
    ((number, found),) = rejects('{"email": "a@example.org"}\n\n' + line + "\n")
    assert number == 3
    assert reason in found


# Other products.


def rows_of(name: str) -> tuple[str, list[Row]]:
    with (DATA / name).open("rb") as file:
        people = SubscriberFile(file, name)
        rows = list(people)
    assert all(isinstance(row, Row) for row in rows), rows
    return people.kind, rows  # type: ignore[return-value]


def test_mailchimps_subscribed_members() -> None:
    kind, (alice, bob) = rows_of("mailchimp_subscribed.csv")
    assert kind == "Mailchimp"
    assert alice == Row(
        line=2,
        email="alice@example.org",
        name="Alice Ångström",
        attributes={
            "first_name": "Alice",
            "last_name": "Ångström",
            "zip_code": "10115",
            "member_rating": 4,
            "country": "DE",
            "region": "BE",
            "notes": "Met at the fair, twice",
            "tags": ["VIP", "engineering"],
        },
        timezone="Europe/Berlin",
        tags=("VIP", "engineering"),
        created_at=datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC),
        confirmed_at=datetime(2020, 2, 3, 4, 6, tzinfo=UTC),
        ip="192.0.2.2",
    )
    assert (bob.name, bob.attributes, bob.created_at) == (
        "",
        {"member_rating": 2},
        bob.confirmed_at,
    )


def test_mailchimps_members_who_left_or_bounced() -> None:
    _, (carol, dan) = rows_of("mailchimp_unsubscribed.csv")
    assert (carol.status, carol.status_at) == (
        "unsubscribed",
        datetime(2022, 3, 4, 5, 6, 7, tzinfo=UTC),
    )
    assert dan.status == "complained"
    _, (erin,) = rows_of("mailchimp_cleaned.csv")
    assert (erin.status, erin.status_at) == ("bounced", datetime(2022, 3, 6, 5, 6, 7, tzinfo=UTC))


def test_listmonks_export() -> None:
    kind, (alice, bob, carol) = rows_of("listmonk.csv")
    assert kind == "listmonk"
    assert alice == Row(
        line=2,
        email="alice@example.org",
        name="Alice",
        attributes={"city": "Bengaluru", "good": True, "projects": 3},
        created_at=datetime(2023, 5, 1, 10, 0, 0, 123456, tzinfo=UTC),
    )
    assert (bob.status, carol.status) == ("manual", "unsubscribed")


def test_substacks_export() -> None:
    kind, (alice, bob, carol) = rows_of("substack.csv")
    assert kind == "Substack"
    assert alice.attributes == {
        "active_subscription": True,
        "expiry": "2026-12-01T00:00:00.000Z",
        "plan": "yearly",
        "first_payment_at": "2024-02-01T10:00:00.000Z",
    }
    assert alice.created_at == datetime(2024, 2, 1, 10, tzinfo=UTC)
    assert (alice.status, bob.status, carol.status) == ("subscribed", "subscribed", "unsubscribed")
