"""What a person decides about their own subscription, and what needs a further mail."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from io import BytesIO

import pytest
from sqlalchemy import Engine, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from subscribers.consent import suppression
from subscribers.directory import edit as subscriber_edit
from subscribers.directory.edit import Details, EditError
from subscribers.email_address import address_key, hash_address, parse
from subscribers.models import (
    Confirmation,
    Consent,
    FormerAddress,
    Subscriber,
    Subscription,
    SuppressionReason,
    Topic,
)
from subscribers.self_service import confirmed_requests, erasure, preferences
from subscribers.self_service.confirmed_requests import (
    AddressChange,
    RequestKind,
    RequestResult,
    TooManyRequestsError,
)
from subscribers.self_service.preferences import PreferenceChoice, PreferenceError
from subscribers.signup import double_opt_in
from subscribers.signup.form import Signup
from subscribers.transfer.import_run import ImportOptions, ImportReport, import_people
from tests.conftest import ADDRESS_KEY, NOW

WEEK = timedelta(days=7)


@pytest.fixture(autouse=True)
def _topics(database: Engine) -> None:
    with transaction(database) as session:
        for slug in ("engineering", "product", "events"):
            session.add(Topic(slug=slug, name=slug.capitalize()))


def hashed(email: str) -> bytes:
    return hash_address(address_key(ADDRESS_KEY), parse(email))


def save(database: Engine, person: int, *topics: str, now: datetime = NOW, **values) -> bool:
    choice = PreferenceChoice(topics, values.pop("language", None), **values)
    with transaction(database) as session:
        return preferences.save(session, person, choice, now=now)


def chosen(database: Engine, person: int) -> set[str]:
    with reading(database) as session:
        found = preferences.view(session, person, now=NOW)
        assert found is not None
        return {offer.slug for offer in found.topics if offer.chosen}


def consents(database: Engine, person: int) -> list[tuple[str, str]]:
    consent = table_of(Consent)
    with reading(database) as session:
        rows = session.execute(
            select(consent.c.act, consent.c.wording)
            .where(consent.c.subscriber_id == person)
            .order_by(consent.c.id)
        )
        return [(row[0], row[1]) for row in rows]


def ask(database: Engine, person: int, kind: RequestKind, *, now: datetime = NOW) -> RequestResult:
    with transaction(database) as session:
        asked = confirmed_requests.request(session, person, kind, now=now, expires=now + WEEK)
        assert asked is not None
        return asked


def ask_address(database: Engine, person: int, email: str, *, now: datetime = NOW) -> RequestResult:
    with transaction(database) as session:
        asked = confirmed_requests.request_address_change(
            session, person, parse(email), hashed(email), now=now, expires=now + WEEK
        )
        assert asked is not None
        return asked


def confirm(database: Engine, asked: RequestResult, *, now: datetime = NOW) -> AddressChange | None:
    with transaction(database) as session:
        taken = confirmed_requests.find_and_lock(session, asked.confirmation_id, now=now)
        return confirmed_requests.change_address(session, taken, now=now) if taken else None


def email_of(database: Engine, person: int) -> str:
    with reading(database) as session:
        found = session.get_one(Subscriber, person)
        assert found.address_hash == hashed(found.email)
        return found.email


def leave(database: Engine, person: int, reason: SuppressionReason) -> None:
    with transaction(database) as session:
        suppression.add(session, [person], reason, at=NOW, evidence="x")


def test_topics_are_chosen_and_dropped_and_each_change_is_on_record(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    assert save(database, alice, "engineering", "product")
    assert chosen(database, alice) == {"engineering", "product"}
    assert save(database, alice, "product", "events")
    assert chosen(database, alice) == {"product", "events"}
    assert consents(database, alice) == [
        ("confirmed", "Topics: Engineering, Product"),
        ("confirmed", "Topics: Events"),
        ("withdrawn", "Topics: Engineering"),
    ]
    assert chosen(database, cast["bob"]) == set()


def test_saving_twice_is_saving_once(database: Engine, cast: dict[str, int]) -> None:
    alice = cast["alice"]
    for _ in range(2):
        assert save(database, alice, "product", pause_weeks=4, language="de")
    assert consents(database, alice) == [("confirmed", "Topics: Product")]
    with reading(database) as session:
        found = preferences.view(session, alice, now=NOW)
        assert found is not None
        assert (found.paused_until, found.language) == (NOW + 4 * WEEK, "de")


def test_a_list_chooses_no_topic_again_that_somebody_gave_up(
    database: Engine, cast: dict[str, int]
) -> None:
    for slugs in (["engineering", "product"], ["product"]):
        save(database, cast["alice"], *slugs)
    for text, for_all in (
        ("email\nalice@example.org\nbob@example.org\n", ("engineering",)),
        ("email,topics\nalice@example.org,engineering;events\n", ()),
    ):
        import_people(
            database,
            BytesIO(text.encode()),
            address_key=address_key(ADDRESS_KEY),
            now=NOW,
            name="crm",
            options=ImportOptions(topics=for_all),
        )
    assert chosen(database, cast["alice"]) == {"product", "events"}
    assert chosen(database, cast["bob"]) == {"engineering"}
    # By their own choice it comes back, and with later lists.
    save(database, cast["alice"], "engineering")
    assert chosen(database, cast["alice"]) == {"engineering"}


def test_a_topic_that_is_no_longer_offered_is_passed_over(
    database: Engine, cast: dict[str, int]
) -> None:
    assert save(database, cast["alice"], "gone", "\0", "product")
    assert chosen(database, cast["alice"]) == {"product"}


def test_a_pause_ends_by_itself_or_at_the_persons_word(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    save(database, alice, pause_weeks=2)
    save(database, alice)
    with reading(database) as session:
        for now, until in ((NOW, NOW + 2 * WEEK), (NOW + 3 * WEEK, None)):
            found = preferences.view(session, alice, now=now)
            assert found is not None
            assert found.paused_until == until
    save(database, alice, pause_weeks=0)
    with reading(database) as session:
        assert session.get_one(Subscriber, alice).paused_until is None


@pytest.mark.parametrize("weeks", [-1, 27, 10_000])
def test_a_pause_beyond_half_a_year_is_refused(weeks: int) -> None:
    with pytest.raises(PreferenceError, match="26 weeks"):
        PreferenceChoice((), None, weeks)


@pytest.mark.parametrize("reason", [r for r in SuppressionReason if r != "bounced"])
def test_somebody_who_left_has_nothing_to_choose_and_nothing_to_ask(
    database: Engine, cast: dict[str, int], reason: SuppressionReason
) -> None:
    alice = cast["alice"]
    leave(database, alice, reason)
    assert not save(database, alice, "product")
    with transaction(database) as session:
        assert preferences.view(session, alice, now=NOW) is None
        assert (
            confirmed_requests.request(
                session, alice, RequestKind.DATA, now=NOW, expires=NOW + WEEK
            )
            is None
        )
        new = parse("new@example.org")
        asked = confirmed_requests.request_address_change(
            session, alice, new, hashed("new@example.org"), now=NOW, expires=NOW + WEEK
        )
        assert asked is None
        assert session.scalar(select(table_of(Subscription).c.topic_id)) is None


def test_nobody_by_that_number_is_nobody(database: Engine) -> None:
    assert not save(database, 12345, "product")
    with transaction(database) as session:
        assert preferences.view(session, 12345, now=NOW) is None
        preferences.record(session, 12345, "withdrawn", wording="x", now=NOW)
        assert confirmed_requests.find_and_lock(session, 12345, now=NOW) is None


def test_somebody_whose_mail_came_back_can_give_another_address_and_nothing_else(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    leave(database, alice, SuppressionReason.BOUNCED)
    with reading(database) as session:
        found = preferences.view(session, alice, now=NOW)
        assert found is not None
        assert found.bounced
    with pytest.raises(PreferenceError, match="bounced"):
        ask(database, alice, RequestKind.DATA)
    assert (
        confirm(database, ask_address(database, alice, "new@example.org")) is AddressChange.CHANGED
    )
    with reading(database) as session:
        found = preferences.view(session, alice, now=NOW)
        assert found is not None
        assert not found.bounced


def test_a_new_address_counts_only_when_it_is_confirmed_and_keeps_the_person(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    asked = ask_address(database, alice, "New@Example.org")
    assert (asked.email, asked.current, asked.send) == (
        "New@example.org",
        "alice@example.org",
        True,
    )
    assert email_of(database, alice) == "alice@example.org"
    for _ in range(2):
        assert confirm(database, asked) is AddressChange.CHANGED
    assert email_of(database, alice) == "New@example.org"
    assert consents(database, alice) == [("confirmed", "Address changed")]


def test_another_spelling_of_the_same_address_is_a_change_too(
    database: Engine, cast: dict[str, int]
) -> None:
    asked = ask_address(database, cast["alice"], "Alice@example.org")
    assert asked.send
    assert confirm(database, asked) is AddressChange.CHANGED
    assert email_of(database, cast["alice"]) == "Alice@example.org"
    with pytest.raises(PreferenceError, match="current address"):
        ask_address(database, cast["alice"], "Alice@EXAMPLE.org")


def test_an_address_of_somebody_else_is_refused_only_to_who_reads_its_mail(
    database: Engine, cast: dict[str, int]
) -> None:
    asked = ask_address(database, cast["alice"], "BOB@example.org")
    assert asked.send
    assert confirm(database, asked) is AddressChange.TAKEN
    assert email_of(database, cast["alice"]) == "alice@example.org"
    assert email_of(database, cast["bob"]) == "bob@example.org"
    assert consents(database, cast["alice"]) == []


@pytest.mark.parametrize("reason", list(SuppressionReason))
def test_a_suppressed_address_gets_no_mail_and_takes_nobody_in(
    database: Engine, cast: dict[str, int], reason: SuppressionReason
) -> None:
    with transaction(database) as session:
        suppression.add_addresses(
            session, [hashed("new@example.org")], reason, at=NOW, evidence="x"
        )
    asked = ask_address(database, cast["alice"], "new@example.org")
    assert not asked.send
    assert confirm(database, asked) is AddressChange.SUPPRESSED
    assert email_of(database, cast["alice"]) == "alice@example.org"


def test_who_leaves_before_confirming_stays_out(database: Engine, cast: dict[str, int]) -> None:
    asked = ask_address(database, cast["alice"], "new@example.org")
    leave(database, cast["alice"], SuppressionReason.UNSUBSCRIBED)
    assert confirm(database, asked) is AddressChange.LEFT
    assert email_of(database, cast["alice"]) == "alice@example.org"


def test_a_change_can_be_taken_back_before_and_after_it_happened(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    for confirmed in (False, True):
        asked = ask_address(database, alice, f"new{confirmed}@example.org")
        if confirmed:
            confirm(database, asked, now=NOW + timedelta(days=6))
        with transaction(database) as session:
            taken = confirmed_requests.find_and_lock(
                session, asked.confirmation_id, now=NOW + timedelta(days=6)
            )
            assert taken is not None
            moment = NOW + timedelta(days=6, hours=1)
            assert (
                confirmed_requests.undo_address_change(session, taken, now=moment)
                is AddressChange.CHANGED
            )
        assert email_of(database, alice) == "alice@example.org"
        assert confirm(database, asked, now=NOW + timedelta(days=6, hours=1)) is None


def test_data_cannot_be_asked_for_soon_after_a_change_of_address(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    confirm(database, ask_address(database, alice, "new@example.org"))
    for kind in (RequestKind.DATA, RequestKind.ERASE):
        with pytest.raises(PreferenceError, match="changed a few days ago"):
            ask(database, alice, kind, now=NOW + timedelta(days=6))
        asked = ask(database, alice, kind, now=NOW + timedelta(days=8))
        assert (asked.email, asked.send) == ("new@example.org", True)


def test_a_second_press_writes_nothing_new(database: Engine, cast: dict[str, int]) -> None:
    first = ask(database, cast["alice"], RequestKind.DATA)
    again = ask(database, cast["alice"], RequestKind.DATA, now=NOW + timedelta(minutes=2))
    assert (again.confirmation_id, again.repeated, again.send) == (
        first.confirmation_id,
        True,
        False,
    )
    later = ask(database, cast["alice"], RequestKind.DATA, now=NOW + timedelta(minutes=10))
    assert later.confirmation_id != first.confirmation_id


def test_a_person_causes_at_most_three_mails_a_day(database: Engine, cast: dict[str, int]) -> None:
    alice = cast["alice"]
    ask(database, alice, RequestKind.DATA)
    ask(database, alice, RequestKind.ERASE)
    ask_address(database, alice, "new@example.org")
    for kind in (RequestKind.DATA, RequestKind.ERASE):
        with pytest.raises(TooManyRequestsError):
            ask(database, alice, kind, now=NOW + timedelta(hours=23))
    with pytest.raises(TooManyRequestsError):
        ask_address(database, alice, "other@example.org", now=NOW + timedelta(hours=23))
    assert ask(database, alice, RequestKind.DATA, now=NOW + timedelta(hours=25)).send
    assert ask(database, cast["bob"], RequestKind.DATA).send


def test_many_people_cannot_flood_one_address(database: Engine, cast: dict[str, int]) -> None:
    victim = hashed("victim@example.org")
    with transaction(database) as session:
        for _ in range(2):
            session.add(
                Confirmation(
                    kind="signup",
                    email="victim@example.org",
                    address_hash=victim,
                    created_at=NOW,
                    expires_at=NOW + WEEK,
                )
            )
    mailed = [ask_address(database, cast[n], "victim@example.org").send for n in ("alice", "bob")]
    assert mailed == [True, False]


def test_what_is_over_or_a_signup_is_not_found(database: Engine, cast: dict[str, int]) -> None:
    asked = ask(database, cast["alice"], RequestKind.ERASE)
    with transaction(database) as session:
        assert confirmed_requests.find_and_lock(session, asked.confirmation_id, now=NOW) is not None
        assert (
            confirmed_requests.find_and_lock(session, asked.confirmation_id, now=NOW + WEEK) is None
        )
        signup = Confirmation(
            kind="signup",
            email="x@example.org",
            address_hash=b"x" * 16,
            created_at=NOW,
            expires_at=NOW + WEEK,
        )
        session.add(signup)
        session.flush()
        assert confirmed_requests.find(session, signup.id, now=NOW) is None
        assert confirmed_requests.find_and_lock(session, signup.id, now=NOW) is None


def test_of_two_who_confirm_the_same_address_at_once_one_gets_it(
    database: Engine, cast: dict[str, int]
) -> None:
    asked = [ask_address(database, cast[name], "new@example.org") for name in ("alice", "bob")]
    with ThreadPoolExecutor() as pool:
        moves = list(pool.map(lambda wish: confirm(database, wish), asked))
    assert set(moves) == {AddressChange.CHANGED, AddressChange.TAKEN}


# Addresses that were given up.

ALICE = "alice@example.org"


def bring(database: Engine, *lines: str, dry_run: bool = False) -> ImportReport:
    text = "email,name,status\n" + "".join(f"{line}\n" for line in lines)
    return import_people(
        database,
        BytesIO(text.encode()),
        address_key=address_key(ADDRESS_KEY),
        now=NOW,
        name="crm",
        options=ImportOptions(confirmed=True, dry_run=dry_run),
    )


def everybody(database: Engine) -> dict[str, str]:
    people = table_of(Subscriber).c
    with reading(database) as session:
        return {row.email: row.name for row in session.execute(select(people.email, people.name))}


def add_by_hand(database: Engine, email: str) -> None:
    with transaction(database) as session:
        key = address_key(ADDRESS_KEY)
        subscriber_edit.add(session, email, Details(), address_key=key, wording="by phone", now=NOW)


def sign_up(database: Engine, email: str, **options: bool) -> double_opt_in.SignupResult:
    with transaction(database) as session:
        return double_opt_in.request(
            session,
            Signup(parse(email)),
            address_key=address_key(ADDRESS_KEY),
            now=NOW,
            confirm_within=WEEK,
            per_address=3,
            **options,
        )


@pytest.mark.parametrize("end", ["stays", "leaves", "erased"])
def test_a_list_with_a_former_address_adds_and_changes_nobody(
    database: Engine, cast: dict[str, int], end: str
) -> None:
    confirm(database, ask_address(database, cast["alice"], "new@example.org"))
    with transaction(database) as session:
        if end == "leaves":
            people = [cast["alice"]]
            left = SuppressionReason.UNSUBSCRIBED
            suppression.add(session, people, left, at=NOW, evidence="x")
        elif end == "erased":
            erasure.erase(session, cast["alice"], now=NOW)
    before = everybody(database)
    for dry_run in (True, False):
        report = bring(database, "ALICE@example.org,Other,active", dry_run=dry_run)
        assert (report.read, report.refused) == (1, {"changed address": 1})
    assert everybody(database) == before
    with pytest.raises(EditError, match="changed to another one"):
        add_by_hand(database, ALICE)
    assert everybody(database) == before


def test_who_left_by_a_list_under_a_former_address_keeps_the_new_one(
    database: Engine, cast: dict[str, int]
) -> None:
    confirm(database, ask_address(database, cast["alice"], "new@example.org"))
    assert bring(database, f"{ALICE},A,unsubscribed").left == {"unsubscribed": 1}
    with reading(database) as session:
        assert preferences.view(session, cast["alice"], now=NOW) is not None


def test_only_the_hash_of_a_former_address_outlives_its_person(
    database: Engine, cast: dict[str, int]
) -> None:
    alice = cast["alice"]
    confirm(database, ask_address(database, alice, "new@example.org"))
    kept = {"address_hash": hashed(ALICE), "subscriber_id": alice, "at": NOW}
    told = kept | {"address_hash": hashed(ALICE).hex(), "at": NOW.isoformat()}
    with transaction(database) as session:
        assert erasure.data_of(session, alice)["former_addresses"] == [told]
        assert erasure.data_of(session, cast["bob"])["former_addresses"] == []
        erasure.erase(session, alice, now=NOW)
    with reading(database) as session:
        (row,) = session.execute(select(table_of(FormerAddress)))
        assert row._asdict() == kept | {"subscriber_id": None}


def test_who_proves_that_they_want_mail_at_a_former_address_gets_it(
    database: Engine, cast: dict[str, int]
) -> None:
    confirm(database, ask_address(database, cast["alice"], "new@example.org"))
    # Somebody's word alone is not enough, as with an address that left.
    asked = sign_up(database, ALICE, double_opt_in=False)
    assert (asked.mail, asked.subscriber_id) == (double_opt_in.ConfirmationEmail.CONFIRM, None)
    assert ALICE not in everybody(database)
    with transaction(database) as session:
        double_opt_in.confirm(session, asked.confirmation_id, now=NOW, ip=None, user_agent=None)
    assert bring(database, f"{ALICE},Alice,").refused == {}
    assert everybody(database)[ALICE] == "Alice"


def test_a_change_that_is_taken_back_leaves_no_former_address(
    database: Engine, cast: dict[str, int]
) -> None:
    asked = ask_address(database, cast["alice"], "new@example.org")
    confirm(database, asked)
    with transaction(database) as session:
        taken = confirmed_requests.find_and_lock(session, asked.confirmation_id, now=NOW)
        assert taken is not None
        assert (
            confirmed_requests.undo_address_change(session, taken, now=NOW) is AddressChange.CHANGED
        )
    assert bring(database, f"{ALICE},Alice,", "new@example.org,New,").refused == {}
    assert {ALICE: "Alice", "new@example.org": "New"}.items() <= everybody(database).items()


def test_a_former_address_is_free_for_who_changes_to_it(
    database: Engine, cast: dict[str, int]
) -> None:
    confirm(database, ask_address(database, cast["alice"], "new@example.org"))
    confirm(database, ask_address(database, cast["bob"], ALICE))
    assert bring(database, f"{ALICE},Bob,", "bob@example.org,B,").refused == {"changed address": 1}
    assert everybody(database)[ALICE] == "Bob"


def test_another_spelling_makes_no_former_address(database: Engine, cast: dict[str, int]) -> None:
    confirm(database, ask_address(database, cast["alice"], "Alice@example.org"))
    assert bring(database, f"{ALICE},Alice,").refused == {}
    add_by_hand(database, "new@example.org")
