"""Signing up: nothing unproved enters the audience, and nobody learns who is in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from subscribers.consent import records as consent_records
from subscribers.consent import suppression
from subscribers.email_address import address_key, hash_address, parse
from subscribers.models import (
    Confirmation,
    Subscriber,
    Subscription,
    Suppression,
    SuppressionReason,
    Topic,
)
from subscribers.signup import double_opt_in
from subscribers.signup.double_opt_in import ConfirmationEmail, SignupLinkError, SignupResult
from subscribers.signup.form import Signup
from tests.conftest import ADDRESS_KEY, NOW, add_person

KEY = address_key(ADDRESS_KEY)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
ADA = Signup(
    parse("Ada@Example.org"),
    name="Ada",
    topics=("engineering",),
    attributes={"company": "R&D"},
    language="de-AT",
    timezone="Europe/Vienna",
    form="footer",
    wording="I want it.",
    ip="192.0.2.1",
    user_agent="Browser/1",
)
PLAIN = Signup(parse("ada@example.org"))
WENT = [SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED, SuppressionReason.ERASED]


@pytest.fixture(autouse=True)
def _topics(database: Engine) -> None:
    with transaction(database) as session:
        session.add_all([Topic(slug="engineering", name="E"), Topic(slug="product", name="P")])


def ask(
    engine: Engine, wish: Signup = PLAIN, *, now: datetime = NOW, **options: Any
) -> SignupResult:
    options = {"confirm_within": 7 * DAY, "per_address": 3, **options}
    with transaction(engine) as session:
        return double_opt_in.request(session, wish, address_key=KEY, now=now, **options)


def confirm(engine: Engine, asked: SignupResult, *, now: datetime = NOW + MINUTE) -> int:
    with transaction(engine) as session:
        return double_opt_in.confirm(
            session, asked.confirmation_id, now=now, ip="192.0.2.9", user_agent="Phone/2"
        ).subscriber_id


def suppress(
    engine: Engine, reason: SuppressionReason, *, at: datetime = NOW, email: str = "ada@example.org"
) -> None:
    with transaction(engine) as session:
        hashed = hash_address(KEY, parse(email))
        suppression.add_addresses(session, [hashed], reason, at=at, evidence="test")


def count(engine: Engine, model: type) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(table_of(model))) or 0


def person(engine: Engine, number: int) -> Subscriber:
    with reading(engine) as session:
        found = session.get_one(Subscriber, number)
        session.expunge(found)
        return found


def topics_of(engine: Engine, number: int) -> set[str]:
    topic, subscription = table_of(Topic), table_of(Subscription)
    with reading(engine) as session:
        return set(
            session.scalars(
                select(topic.c.slug)
                .join(subscription)
                .where(subscription.c.subscriber_id == number)
            )
        )


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What is said to the database meanwhile: the first words of each statement."""
    said: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(" ".join(statement.split()[:3]).split("(", maxsplit=1)[0])

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", note)


# Asking


def test_nobody_is_in_the_audience_before_they_prove_it(database: Engine) -> None:
    asked = ask(database, ADA)
    assert (asked.mail, asked.send, asked.subscriber_id) == (ConfirmationEmail.CONFIRM, True, None)
    assert count(database, Subscriber) == 0
    with reading(database) as session:
        waiting = double_opt_in.find(session, asked.confirmation_id, now=NOW)
        assert waiting.email == "Ada@example.org"
        assert waiting.asked["attributes"] == {"company": "R&D"}


def test_confirming_brings_the_person_in_with_all_they_asked_for(database: Engine) -> None:
    ada = confirm(database, ask(database, ADA))
    found = person(database, ada)
    assert (found.email, found.name, found.language) == ("Ada@example.org", "Ada", "de-AT")
    assert (found.timezone, found.source) == ("Europe/Vienna", "form:footer")
    assert found.attributes == {"company": "R&D"}
    assert found.confirmed_at == NOW + MINUTE
    assert topics_of(database, ada) == {"engineering"}


def test_the_record_of_consent_says_when_where_and_in_which_words(database: Engine) -> None:
    ada = confirm(database, ask(database, ADA))
    with reading(database) as session:
        assert consent_records.of_subscriber(session, ada) == [
            consent_records.Act(
                NOW, "requested", "form:footer", "I want it.", "192.0.2.1", "Browser/1"
            ),
            consent_records.Act(
                NOW + MINUTE, "confirmed", "form:footer", "I want it.", "192.0.2.9", "Phone/2"
            ),
        ]


def test_a_second_click_changes_nothing(database: Engine) -> None:
    asked = ask(database, ADA)
    ada = confirm(database, asked)
    with transaction(database) as session:
        changed = session.get_one(Subscriber, ada)
        changed.name = "Ada Lovelace"
        session.add(changed)
    assert confirm(database, asked, now=NOW + DAY) == ada
    assert person(database, ada).name == "Ada Lovelace"
    with reading(database) as session:
        assert len(consent_records.of_subscriber(session, ada)) == 2


def test_a_second_click_does_not_bring_back_who_left_after_the_first(database: Engine) -> None:
    asked = ask(database)
    confirm(database, asked)
    suppress(database, SuppressionReason.UNSUBSCRIBED, at=NOW + DAY)
    with pytest.raises(SignupLinkError, match="you unsubscribed"):
        confirm(database, asked, now=NOW + 2 * DAY)
    assert count(database, Suppression) == 1


def test_a_link_that_expired_or_is_about_nothing_says_so(database: Engine) -> None:
    asked = ask(database)
    with pytest.raises(SignupLinkError, match="expired"):
        confirm(database, asked, now=NOW + 7 * DAY)
    with transaction(database) as session, pytest.raises(SignupLinkError, match="nothing"):
        double_opt_in.confirm(session, 4711, now=NOW, ip=None, user_agent=None)
    assert count(database, Subscriber) == 0


def test_another_kind_of_confirmation_subscribes_nobody(database: Engine) -> None:
    with transaction(database) as session:
        other = Confirmation(
            kind="erase",
            email="x@example.org",
            address_hash=b"x" * 16,
            created_at=NOW,
            expires_at=NOW + DAY,
        )
        session.add(other)
        session.flush()
        with pytest.raises(SignupLinkError):
            double_opt_in.confirm(session, other.id, now=NOW, ip=None, user_agent=None)


def test_a_subscriber_who_asks_again_is_told_so_and_nothing_changes(database: Engine) -> None:
    with transaction(database) as session:
        known = add_person(session, "ada@example.org", name="Ada")
    asked = ask(database, Signup(parse("ADA@example.org"), name="Mallory"))
    assert (asked.mail, asked.send, asked.subscriber_id) == (ConfirmationEmail.KNOWN, True, known)
    assert person(database, known).name == "Ada"
    with pytest.raises(SignupLinkError):  # nor by guessing the number of the request
        confirm(database, asked)


def test_what_is_asked_twice_adds_up(database: Engine) -> None:
    first, second = (
        ask(database, ADA),
        ask(database, Signup(ADA.address, topics=("product",), attributes={"role": "CTO"})),
    )
    ada = confirm(database, first)
    assert confirm(database, second) == ada
    assert topics_of(database, ada) == {"engineering", "product"}
    found = person(database, ada)
    assert found.attributes == {"company": "R&D", "role": "CTO"}
    assert (found.name, found.source, found.confirmed_at) == ("Ada", "form:footer", NOW + MINUTE)


def test_somebody_imported_and_not_yet_confirmed_is_asked(database: Engine) -> None:
    with transaction(database) as session:
        known = add_person(session, "ada@example.org", confirmed_at=None)
    asked = ask(database)
    assert asked.mail is ConfirmationEmail.CONFIRM
    assert confirm(database, asked) == known
    assert person(database, known).confirmed_at == NOW + MINUTE


def test_a_topic_that_went_while_the_mail_lay_is_passed_over(database: Engine) -> None:
    asked = ask(database, ADA)
    with transaction(database) as session:
        session.execute(table_of(Topic).delete().where(table_of(Topic).c.slug == "engineering"))
    assert topics_of(database, confirm(database, asked)) == set()


# Coming back


@pytest.mark.parametrize("reason", [*WENT, SuppressionReason.BOUNCED])
def test_who_comes_back_by_their_own_proof_is_mailed_again(
    database: Engine, reason: SuppressionReason
) -> None:
    with transaction(database) as session:
        known = add_person(session, "ada@example.org", paused_until=NOW + 90 * DAY)
    suppress(database, reason, at=NOW - DAY)
    asked = ask(database)
    assert (asked.mail, asked.send) == (ConfirmationEmail.CONFIRM, True)
    assert count(database, Suppression) == 1  # asking alone lifts nothing
    assert confirm(database, asked) == known
    assert count(database, Suppression) == 0
    found = person(database, known)
    assert (found.confirmed_at, found.paused_until) == (NOW + MINUTE, None)


@pytest.mark.parametrize("reason", WENT)
def test_a_link_from_before_they_left_brings_nobody_back(
    database: Engine, reason: SuppressionReason
) -> None:
    asked = ask(database)
    suppress(database, reason, at=NOW + MINUTE)
    with pytest.raises(SignupLinkError, match="you unsubscribed"):
        confirm(database, asked, now=NOW + DAY)
    assert count(database, Suppression) == 1
    assert count(database, Subscriber) == 0


@pytest.mark.parametrize("before", [*WENT[:2], SuppressionReason.BOUNCED])
def test_a_link_from_before_they_left_again_brings_nobody_back(
    database: Engine, before: SuppressionReason
) -> None:
    suppress(database, before, at=NOW - DAY)
    asked = ask(database)
    for email in ("ada@example.org", "bob@example.org"):
        suppress(database, SuppressionReason.UNSUBSCRIBED, at=NOW, email=email)
    hashes = [hash_address(KEY, parse(f"{name}@example.org")) for name in ("ada", "bob")]
    with transaction(database) as session:
        left = SuppressionReason.UNSUBSCRIBED
        suppression.add_addresses(session, hashes, left, at=NOW + MINUTE, evidence="again")
    with pytest.raises(SignupLinkError, match="you unsubscribed"):
        confirm(database, asked, now=NOW + DAY)
    assert count(database, Suppression) == 2


def test_whom_an_operator_barred_gets_no_mail_and_no_way_in(database: Engine) -> None:
    early = ask(database)
    suppress(database, SuppressionReason.MANUAL)
    late = ask(database)
    assert (late.mail, late.send) == (ConfirmationEmail.CONFIRM, False)
    for asked in (early, late):
        with pytest.raises(SignupLinkError):
            confirm(database, asked)
    assert count(database, Suppression) == 1


# Floods, and what may be learned


@pytest.mark.parametrize("known", [False, True])
def test_a_flood_of_signups_mails_its_victim_a_few_times_a_day(
    database: Engine, known: bool
) -> None:
    if known:
        with transaction(database) as session:
            add_person(session, "victim@example.org")
    spellings = ["victim@example.org", "VICTIM@EXAMPLE.ORG", "Victim@Example.Org"]
    sent = [
        ask(database, Signup(parse(spellings[n % 3])), now=NOW + n * MINUTE).send for n in range(60)
    ]
    assert sum(sent) == 3
    assert ask(database, Signup(parse("victim@example.org")), now=NOW + 31 * 60 * MINUTE).send
    assert ask(database, Signup(parse("other@example.org"))).send


@pytest.mark.parametrize("double_opt_in", [True, False])
def test_every_signup_says_the_same_to_the_database(database: Engine, double_opt_in: bool) -> None:
    with transaction(database) as session:
        add_person(session, "known@example.org")
        add_person(session, "left@example.org")
        add_person(session, "unproved@example.org", confirmed_at=None)
    suppress(database, SuppressionReason.UNSUBSCRIBED, email="left@example.org")
    suppress(database, SuppressionReason.ERASED, email="erased@example.org")
    suppress(database, SuppressionReason.MANUAL, email="barred@example.org")
    ask(database, Signup(parse("tired@example.org")), per_address=1, double_opt_in=double_opt_in)
    said = {}
    for name in ("new", "known", "left", "unproved", "erased", "barred", "tired"):
        wish = Signup(parse(f"{name}@example.org"))
        with statements(database) as list_:
            ask(database, wish, per_address=1, double_opt_in=double_opt_in)
        said[name] = [s for s in list_ if not s.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK"))]
        assert len(list_) - len(said[name]) == (0 if double_opt_in else 2)
    assert all(list_ == said["new"] for list_ in said.values()), said


# Without double opt-in


def test_without_double_opt_in_somebody_new_is_in_at_once(database: Engine) -> None:
    asked = ask(database, ADA, double_opt_in=False)
    assert (asked.mail, asked.send) == (ConfirmationEmail.WELCOME, True)
    assert asked.subscriber_id is not None
    assert person(database, asked.subscriber_id).confirmed_at == NOW
    with reading(database) as session:
        # It was asked for and not proved; the record does not claim more.
        assert [act.act for act in consent_records.of_subscriber(session, asked.subscriber_id)] == [
            "requested"
        ]


def test_without_double_opt_in_nobody_can_change_a_subscriber(database: Engine) -> None:
    with transaction(database) as session:
        known = add_person(session, "ada@example.org", name="Ada")
    asked = ask(database, Signup(PLAIN.address, name="Mallory"), double_opt_in=False)
    assert (asked.mail, asked.subscriber_id) == (ConfirmationEmail.KNOWN, known)
    assert person(database, known).name == "Ada"
    with reading(database) as session:
        assert consent_records.of_subscriber(session, known) == []


@pytest.mark.parametrize("reason", list(SuppressionReason))
def test_without_double_opt_in_who_left_still_has_to_prove_it(
    database: Engine, reason: SuppressionReason
) -> None:
    suppress(database, reason, at=NOW - DAY)
    asked = ask(database, double_opt_in=False)
    assert (asked.mail, asked.subscriber_id) == (ConfirmationEmail.CONFIRM, None)
    assert asked.send == (reason is not SuppressionReason.MANUAL)
    assert count(database, Subscriber) == 0
    assert count(database, Suppression) == 1


def test_signups_whose_time_is_over_are_forgotten(database: Engine) -> None:
    old, new = ask(database), ask(database, now=NOW + 5 * DAY)
    confirm(database, old)
    with transaction(database) as session:
        assert double_opt_in.sweep(session, now=NOW + 8 * DAY) == 1
    assert confirm(database, new, now=NOW + 8 * DAY)
