"""Sessions: what a token opens, and when it ends."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from newsletter.accounts import sessions
from newsletter.accounts.models import Role, SignInStage, UserSession
from newsletter.accounts.sessions import Visitor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from tests.conftest import NOW
from tests.newsletter.accounts.conftest import AddUser

IDLE, LASTS = timedelta(hours=2), timedelta(hours=12)


def begin(
    database: Engine,
    user: int,
    stage: SignInStage = SignInStage.FULL,
    *,
    instead_of: str | None = None,
) -> str:
    with transaction(database) as session:
        return sessions.begin(
            session,
            user,
            stage,
            lasts=LASTS,
            now=NOW,
            ip="192.0.2.1",
            browser="x" * 999,
            instead_of=instead_of,
        )


def find(database: Engine, token: str, *, after: timedelta = timedelta()) -> Visitor | None:
    with reading(database) as session:
        return sessions.find(session, token, idle=IDLE, now=NOW + after)


@pytest.fixture
def alice(add_user: AddUser) -> int:
    return add_user("alice@example.org", Role.EDITOR)


def test_a_token_is_long_random_and_kept_as_a_hash(database: Engine, alice: int) -> None:
    token = begin(database, alice)
    assert len(token) == 43
    assert token != begin(database, alice)
    with reading(database) as session:
        row = session.execute(select(table_of(UserSession)).limit(1)).one()
    assert token.encode() not in row.token
    assert len(row.browser) == 200
    found = find(database, token)
    assert found is not None
    assert (found.email, found.role, found.stage) == (
        "alice@example.org",
        Role.EDITOR,
        SignInStage.FULL,
    )
    assert found.called == "alice"
    for other in ("", token[:-1], token + "x", "é\udcff"):
        assert find(database, other) is None


def test_the_token_that_the_browser_had_opens_nothing_after_the_next_step(
    database: Engine, alice: int
) -> None:
    half = begin(database, alice, SignInStage.CODE)
    full = begin(database, alice, instead_of=half)
    assert find(database, half) is None
    assert find(database, full) is not None


def test_a_session_ends_by_idleness_and_by_age(database: Engine, alice: int) -> None:
    token = begin(database, alice)
    second = timedelta(seconds=1)
    assert find(database, token, after=IDLE - second) is not None
    assert find(database, token, after=IDLE) is None
    at = timedelta()
    while at < LASTS:
        visitor = find(database, token, after=at)
        assert visitor is not None
        with transaction(database) as session:
            sessions.touch(session, visitor.session_id, now=NOW + at)
        at += timedelta(hours=1)
    assert find(database, token, after=LASTS - second) is not None
    assert find(database, token, after=LASTS) is None


def test_halfway_lasts_no_longer_than_it_takes_to_type_a_code(database: Engine, alice: int) -> None:
    for stage in (SignInStage.CODE, SignInStage.ENROL):
        token = begin(database, alice, stage)
        assert find(database, token, after=timedelta(minutes=14)) is not None
        assert find(database, token, after=timedelta(minutes=15)) is None


def test_not_each_look_is_a_write(database: Engine, alice: int) -> None:
    visitor = find(database, begin(database, alice))
    assert visitor is not None
    assert not sessions.is_stale(visitor, now=NOW + timedelta(seconds=59))
    assert sessions.is_stale(visitor, now=NOW + timedelta(seconds=60))


def test_sessions_are_listed_and_ended_by_their_owner_only(
    database: Engine, add_user: AddUser, alice: int
) -> None:
    bob = add_user("bob@example.org")
    first, second, bobs = begin(database, alice), begin(database, alice), begin(database, bob)
    begin(database, alice, SignInStage.CODE)
    with reading(database) as session:
        listed = sessions.listing(session, alice, idle=IDLE, now=NOW)
        assert sessions.listing(session, alice, idle=IDLE, now=NOW + LASTS) == []
    assert len(listed) == 2
    assert listed[0].ip == "192.0.2.1"
    visitor = find(database, first)
    assert visitor is not None
    with transaction(database) as session:
        sessions.end_one(session, bob, visitor.session_id)
    assert find(database, first) is not None
    with transaction(database) as session:
        sessions.end_one(session, alice, visitor.session_id)
    assert find(database, first) is None
    third = find(database, begin(database, alice))
    assert third is not None
    with transaction(database) as session:
        sessions.end_all(session, alice, but=third.session_id)
    assert find(database, second) is None
    assert find(database, bobs) is not None
    with reading(database) as session:
        assert [one.id for one in sessions.listing(session, alice, idle=IDLE, now=NOW)] == [
            third.session_id
        ]


def test_what_ended_by_itself_is_swept_away(database: Engine, alice: int) -> None:
    begin(database, alice)
    with transaction(database) as session:
        sessions.sweep(session, now=NOW + LASTS - timedelta(seconds=1))
        assert len(session.execute(select(table_of(UserSession))).all()) == 1
        sessions.sweep(session, now=NOW + LASTS)
        assert session.execute(select(table_of(UserSession))).all() == []
