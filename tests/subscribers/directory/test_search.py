"""Looking people up: by address, by a beginning, by segment and state, page after page."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from newsletter.db.engine import reading, transaction
from subscribers.consent import suppression
from subscribers.directory import search as subscriber_search
from subscribers.directory.search import SearchPage, SearchPosition, SearchQuery
from subscribers.directory.status_counts import SubscriberStatus
from subscribers.email_address import address_key
from subscribers.models import SuppressionReason
from tests.conftest import ADDRESS_KEY, NOW, add_person

KEY = address_key(ADDRESS_KEY)


@pytest.fixture
def people(database: Engine) -> dict[str, int]:
    with transaction(database) as session:
        made = {
            "anna": add_person(session, "Anna.K@example.org", name="Zoë Quinn"),
            "annabel": add_person(session, "annabel@example.org", name="anna belle"),
            "bert": add_person(session, "bert@example.org", name="Anna's Bert", confirmed_at=None),
            "emile": add_person(session, "e1@example.org", name="Émile Zola"),
            "dora": add_person(session, "dora@example.org", paused_until=NOW + timedelta(days=9)),
            "eve": add_person(session, "eve@example.org", attributes={"plan": "pro"}),
        }
        suppression.add(session, [made["eve"]], SuppressionReason.BOUNCED, at=NOW, evidence="x")
    return made


def found(
    database: Engine, wanted: SearchQuery, after: SearchPosition | None = None, size: int = 50
) -> SearchPage:
    with reading(database) as session:
        return subscriber_search.page(
            session, wanted, address_key=KEY, now=NOW, after=after, size=size
        )


def names(page: SearchPage) -> list[str]:
    return [row.email.partition("@")[0].lower() for row in page.people]


def test_everybody_comes_newest_first(database: Engine, people: dict[str, int]) -> None:
    assert names(found(database, SearchQuery())) == [
        "eve",
        "dora",
        "e1",
        "bert",
        "annabel",
        "anna.k",
    ]


def test_a_whole_address_finds_its_owner_however_it_is_spelt(
    database: Engine, people: dict[str, int]
) -> None:
    assert names(found(database, SearchQuery("ANNA.k@Example.ORG"))) == ["anna.k"]


def test_a_beginning_finds_addresses_and_then_names_and_nobody_twice(
    database: Engine, people: dict[str, int]
) -> None:
    assert names(found(database, SearchQuery("ANNA"))) == ["anna.k", "annabel", "bert"]
    assert names(found(database, SearchQuery("zoë"))) == ["anna.k"]
    assert names(found(database, SearchQuery("émile"))) == ["e1"]
    assert names(found(database, SearchQuery("Émile Z"))) == ["e1"]
    assert names(found(database, SearchQuery("quinn"))) == []


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("text", ["", "anna", "e"])
def test_pages_together_are_the_whole(
    database: Engine, people: dict[str, int], text: str, size: int
) -> None:
    whole = names(found(database, SearchQuery(text)))
    seen: list[str] = []
    after: SearchPosition | None = None
    for _ in range(20):
        page = found(database, SearchQuery(text), after, size)
        seen += names(page)
        if page.next is None:
            break
        after = SearchPosition.read(str(page.next))
        assert after == page.next
    assert seen == whole


def test_states_and_segments_narrow_it_down(database: Engine, people: dict[str, int]) -> None:
    assert names(found(database, SearchQuery(status=SubscriberStatus.SUPPRESSED))) == ["eve"]
    assert names(found(database, SearchQuery(status=SubscriberStatus.UNCONFIRMED))) == ["bert"]
    assert names(found(database, SearchQuery(status=SubscriberStatus.PAUSED))) == ["dora"]
    active = SubscriberStatus.ACTIVE
    assert names(found(database, SearchQuery("anna", status=active))) == [
        "anna.k",
        "annabel",
    ]
    assert names(found(database, SearchQuery(rule='plan == "pro"'))) == ["eve"]
    assert (
        names(found(database, SearchQuery("eve@example.org", status=SubscriberStatus.ACTIVE))) == []
    )


def test_a_long_stretch_without_a_match_says_where_to_look_further(
    database: Engine, people: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_search, "_AT_ONCE", 2)
    first = found(database, SearchQuery(rule='plan == "none"'))
    assert (names(first), first.incomplete) == ([], True)
    page, steps = first, 0
    while page.next is not None:
        page, steps = found(database, SearchQuery(rule='plan == "none"'), page.next), steps + 1
    assert steps == 3
    assert not page.incomplete


@pytest.mark.parametrize(
    "text", ["", "x", "newest:", "newest:x:", "newest:9" + "9" * 30 + ":", "email:1:\0", "é:1:"]
)
def test_a_place_that_nobody_wrote_is_none(text: str) -> None:
    assert SearchPosition.read(text) is None


@pytest.mark.parametrize("text", ["%", "_", "'", "q\\ud800", "ß", "x" * 5000])
def test_whatever_is_typed_is_looked_for(
    database: Engine, people: dict[str, int], text: str
) -> None:
    assert found(database, SearchQuery(text)).people == []
