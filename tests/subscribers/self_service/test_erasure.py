"""A person's rights over their data, on both databases."""

from datetime import UTC, datetime
from io import BytesIO

import orjson
import pytest
from sqlalchemy import Engine, func, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import UserError
from subscribers.models import Consent, Subscriber, Subscription, Suppression
from subscribers.self_service.erasure import data_of, erase, find
from subscribers.transfer.import_run import ImportOptions, import_people

pytestmark = pytest.mark.both_databases

KEY = b"an address key of a test, 32 octs"
NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
FILE = (
    b'{"email": "Alice@example.org", "name": "Alice", "plan": "pro", "topics": ["news"],'
    b' "created_at": "2024-01-02"}\n{"email": "bob@example.org", "topics": ["news"]}\n'
)


def load(engine: Engine) -> None:
    import_people(
        engine,
        BytesIO(FILE),
        address_key=KEY,
        now=NOW,
        name="shop",
        options=ImportOptions(confirmed=True, wording="Yes, please", create_topics=True),
    )


def test_all_that_is_kept_of_a_person_is_told(database: Engine) -> None:
    load(database)
    with reading(database) as session:
        alice = find(session, "ALICE@example.org", address_key=KEY)
        data = data_of(
            session, alice, more={"deliveries": [{"issue": "may", "at": NOW, "batch": b"\1"}]}
        )
    data["subscriber"].pop("address_hash")
    data["consent"][0].pop("id")
    at = "2026-03-27T07:00:00+00:00"
    assert data == {
        "subscriber": {
            "id": alice,
            "email": "Alice@example.org",
            "name": "Alice",
            "attributes": {"plan": "pro"},
            "language": None,
            "timezone": None,
            "source": "import:shop",
            "created_at": "2024-01-02T00:00:00+00:00",
            "confirmed_at": at,
            "paused_until": None,
            "last_open_at": None,
            "last_click_at": None,
        },
        "topics": [{"slug": "news", "name": "news", "since": at}],
        "consent": [
            {
                "subscriber_id": alice,
                "at": at,
                "act": "imported",
                "source": "import:shop",
                "wording": "Yes, please",
                "ip": None,
                "user_agent": None,
            }
        ],
        "suppression": None,
        "former_addresses": [],
        "deliveries": [{"issue": "may", "at": at, "batch": "01"}],
    }
    assert orjson.loads(orjson.dumps(data)) == data


def test_only_a_keyed_hash_stays_of_an_erased_person(database: Engine) -> None:
    load(database)
    with transaction(database) as session:
        alice = find(session, "alice@example.org", address_key=KEY)
        person = table_of(Subscriber).c
        hashed = session.scalar(select(person.address_hash).where(person.id == alice))
        erase(session, alice, now=NOW)
    with reading(database) as session:
        for model in (Subscriber, Consent, Subscription):
            assert session.scalar(select(func.count()).select_from(table_of(model))) == 1  # Bob's
        (kept,) = session.execute(select(table_of(Suppression)))
    # Nothing stands beneath: no reason that was there before.
    assert tuple(kept) == (hashed, "erased", NOW, "erased on request", None, None)


def test_no_import_brings_an_erased_person_back(database: Engine) -> None:
    load(database)
    with transaction(database) as session:
        erase(session, find(session, "alice@example.org", address_key=KEY), now=NOW)
    report = import_people(database, BytesIO(FILE), address_key=KEY, now=NOW, name="shop")
    assert report.refused == {"erased": 1}
    assert report.unchanged == 1
    with reading(database) as session, pytest.raises(UserError, match="no subscriber") as caught:
        find(session, "alice@example.org", address_key=KEY)
    assert "erased" in str(caught.value.hint)


def test_a_weaker_reason_does_not_hide_the_erasure(database: Engine) -> None:
    load(database)
    with transaction(database) as session:
        erase(session, find(session, "alice@example.org", address_key=KEY), now=NOW)
    text = b"email,status\nalice@example.org,complained\n"
    import_people(database, BytesIO(text), address_key=KEY, now=NOW, name="shop")
    with reading(database) as session:
        assert session.scalar(select(table_of(Suppression).c.reason)) == "erased"


def test_nobody_of_a_number_is_said_so(database: Engine) -> None:
    with transaction(database) as session:
        for act in (lambda: erase(session, 7, now=NOW), lambda: data_of(session, 7)):
            with pytest.raises(UserError, match="no subscriber with this id"):
                act()
