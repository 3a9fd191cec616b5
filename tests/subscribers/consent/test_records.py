"""The record of consent: whole, in order, and without network data once its time is over."""

from datetime import timedelta

from sqlalchemy import Engine

from newsletter.db.engine import reading, transaction
from subscribers.consent.records import Act, erase_network_data, of_subscriber, record
from tests.conftest import NOW, add_person

DAY = timedelta(days=1)


def test_the_record_is_kept_as_it_was_and_told_in_order(database: Engine) -> None:
    later = Act(NOW + DAY, "confirmed", "form:x", "I want it <b>", "2001:db8::1", "Browser/1")
    earlier = Act(NOW, "requested", "form:x", "I want it <b>", "192.0.2.1", "Browser/1")
    with transaction(database) as session:
        alice, bob = add_person(session, "a@example.org"), add_person(session, "b@example.org")
        record(session, alice, [later, earlier])
        record(session, bob, [Act(NOW, "imported")])
    with reading(database) as session:
        assert of_subscriber(session, alice) == [earlier, later]
        assert of_subscriber(session, bob) == [Act(NOW, "imported")]
        assert of_subscriber(session, 0) == []


def test_long_words_are_cut_to_what_is_kept(database: Engine) -> None:
    with transaction(database) as session:
        alice = add_person(session, "a@example.org")
        record(session, alice, [Act(NOW, "requested", "s" * 200, "w" * 3000, None, "u" * 900)])
    with reading(database) as session:
        [act] = of_subscriber(session, alice)
    assert (len(act.source), len(act.wording), len(act.user_agent or "")) == (100, 2000, 500)


def test_network_data_is_forgotten_after_its_time_and_nothing_else(database: Engine) -> None:
    old = Act(NOW - 400 * DAY, "confirmed", "form:x", "words", "192.0.2.1", "Browser/1")
    new = Act(NOW, "confirmed", "form:x", "words", "192.0.2.1", "Browser/1")
    with transaction(database) as session:
        alice = add_person(session, "a@example.org")
        record(session, alice, [old, new])
        assert erase_network_data(session, before=NOW - 364 * DAY) == 1
        assert erase_network_data(session, before=NOW - 364 * DAY) == 0
    with reading(database) as session:
        assert of_subscriber(session, alice) == [Act(old.at, "confirmed", "form:x", "words"), new]
