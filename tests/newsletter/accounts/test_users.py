"""Who works with the console: never without an owner, never with too many."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, func, select

from newsletter.accounts import sessions, two_factor, users
from newsletter.accounts.models import Factor, RecoveryCode, Role, SignInStage, UserSession
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import AccountError, AddressError
from tests.conftest import NOW
from tests.newsletter.accounts.conftest import AddUser


def roles(database: Engine) -> dict[str, str]:
    with reading(database) as session:
        return {one.email: one.role.value for one in users.listing(session, now=NOW)}


def at_the_same_moment(database: Engine, *changes: Callable[[Session], object]) -> list[str]:
    """Run each change in a transaction of its own, all begun before any ends; what was refused."""
    together, refused = threading.Barrier(len(changes)), []

    def run(change: Callable[[Session], object]) -> None:
        together.wait()
        try:
            with transaction(database) as session:
                change(session)
        except AccountError as error:
            refused.append(error.message)

    threads = [threading.Thread(target=run, args=(change,)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def test_each_role_covers_those_below_it() -> None:
    order = [Role.VIEWER, Role.EDITOR, Role.APPROVER, Role.OWNER]
    assert order == list(Role)
    for height, role in enumerate(order):
        assert [role.covers(least) for least in order] == [n <= height for n in range(4)]


def test_there_are_no_more_owners_than_allowed(database: Engine, add_user: AddUser) -> None:
    for number in range(3):
        add_user(f"owner{number}@example.org", Role.OWNER)
    editor = add_user("editor@example.org", Role.EDITOR)
    with pytest.raises(AccountError, match="3 owners, and no more than 3"):
        add_user("more@example.org", Role.OWNER)
    with pytest.raises(AccountError, match="3 owners"), transaction(database) as session:
        users.change_role(session, editor, Role.OWNER, max_owners=3)
    assert "more@example.org" not in roles(database)
    with transaction(database) as session:
        # Who is one already stays one; a larger limit lets more in.
        assert users.change_role(session, 1, Role.OWNER, max_owners=3) == Role.OWNER
        assert users.change_role(session, editor, Role.OWNER, max_owners=4) == Role.EDITOR


def test_the_last_owner_is_neither_demoted_nor_removed(database: Engine, add_user: AddUser) -> None:
    owner = add_user("owner@example.org", Role.OWNER)
    with pytest.raises(AccountError, match="last owner"), transaction(database) as session:
        users.change_role(session, owner, Role.APPROVER, max_owners=3)
    with pytest.raises(AccountError, match="last owner"), transaction(database) as session:
        users.remove(session, owner)
    assert roles(database) == {"owner@example.org": "owner"}


@pytest.mark.parametrize("_again", range(5))
def test_two_owners_who_demote_each_other_leave_one(
    database: Engine, add_user: AddUser, _again: int
) -> None:
    one = add_user("one@example.org", Role.OWNER)
    two = add_user("two@example.org", Role.OWNER)
    refused = at_the_same_moment(
        database,
        lambda session: users.change_role(session, one, Role.VIEWER, max_owners=3),
        lambda session: users.remove(session, two),
    )
    assert refused == ["this is the last owner"]
    assert list(roles(database).values()).count("owner") == 1


def test_who_waits_for_the_other_sees_what_they_decided(
    database: Engine, add_user: AddUser
) -> None:
    one = add_user("one@example.org", Role.OWNER)
    two = add_user("two@example.org", Role.OWNER)
    refused: list[str] = []

    def demote_two() -> None:
        try:
            with transaction(database) as session:
                users.change_role(session, two, Role.VIEWER, max_owners=3)
        except AccountError as error:
            refused.append(error.message)

    waiting = threading.Thread(target=demote_two)
    with transaction(database) as session:
        users.change_role(session, one, Role.VIEWER, max_owners=3)
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive(), "nobody waits for the transaction that goes on"
    waiting.join()
    assert refused == ["this is the last owner"]
    assert roles(database) == {"one@example.org": "viewer", "two@example.org": "owner"}


def test_two_who_take_the_last_place_of_an_owner_do_not_both_get_it(
    database: Engine, add_user: AddUser
) -> None:
    add_user("owner@example.org", Role.OWNER)
    people = [add_user(f"{name}@example.org") for name in ("one", "two")]
    refused = at_the_same_moment(
        database,
        *(
            lambda session, who=who: users.change_role(session, who, Role.OWNER, max_owners=2)
            for who in people
        ),
    )
    assert len(refused) == 1
    assert list(roles(database).values()).count("owner") == 2


def test_two_spellings_of_an_address_are_one_person(database: Engine, add_user: AddUser) -> None:
    number = add_user("Alice@Example.ORG")
    with pytest.raises(AccountError, match="another user has this address already"):
        add_user("alice@example.org")
    with reading(database) as session:
        assert users.by_email(session, " ALICE@example.org").id == number
        with pytest.raises(AccountError, match="no such user"):
            users.by_email(session, "bob@example.org")
        with pytest.raises(AccountError, match="no such user"):
            users.by_email(session, "no address")
        assert users.credentials(session, "no address") is None
    for email in ("", "no address", "a@b.example\r\nBcc: c@d.example"):
        with pytest.raises(AddressError):
            add_user(email)


def test_names_are_one_line(database: Engine, add_user: AddUser) -> None:
    number = add_user("alice@example.org")
    with transaction(database) as session:
        users.rename(session, number, " A\r\nB\x00\u202eC" + "x" * 300)
    with reading(database) as session:
        assert users.find(session, number).name == ("ABC" + "x" * 300)[:200].rstrip()


def test_a_link_to_a_new_password_works_once_and_ends_all_sessions(
    database: Engine, add_user: AddUser
) -> None:
    number = add_user("alice@example.org", hashed="old")
    with transaction(database) as session:
        stamp = users.find(session, number).stamp
        token = begin(session, number)
    with transaction(database) as session:
        assert not users.set_password_by_link(session, number, stamp + 1, "forged")
        assert users.set_password_by_link(session, number, stamp, "new")
        assert not users.set_password_by_link(session, number, stamp, "again")
    with reading(database) as session:
        known = users.credentials(session, "alice@example.org")
        assert known is not None
        assert known.hashed == "new"
        assert known.stamp != stamp
        assert sessions.find(session, token, idle=sessions._HALFWAY, now=NOW) is None


def test_a_password_that_changed_meanwhile_lets_nobody_in(
    database: Engine, add_user: AddUser
) -> None:
    number = add_user("alice@example.org", hashed="old")
    with reading(database) as session:
        known = users.credentials(session, "alice@example.org")
        assert known is not None
        assert users.still(session, known)
    with transaction(database) as session:
        users.set_password(session, number, "new")
    with transaction(database) as session:
        assert not users.still(session, known)
        # The old password by new parameters must not replace the new one.
        users.rehash(session, known, "old, hashed anew")
        found = users.credentials(session, "alice@example.org")
        assert found is not None
        assert found.hashed == "new"
        with pytest.raises(AccountError, match="no such user"):
            users.set_password(session, 999, "new")


def test_who_is_removed_leaves_no_session_and_no_factor(
    database: Engine, add_user: AddUser
) -> None:
    add_user("owner@example.org", Role.OWNER)
    number = add_user("alice@example.org")
    with transaction(database) as session:
        begin(session, number)
        two_factor.begin(session, number)
        session.execute(
            table_of(RecoveryCode).insert().values(user_id=number, code=b"x" * 32, used_at=None)
        )
    with transaction(database) as session:
        users.remove(session, number)
        with pytest.raises(AccountError, match="no such user"):
            users.remove(session, number)
    with reading(database) as session:
        for model in (UserSession, Factor, RecoveryCode):
            assert session.scalar(select(func.count()).select_from(table_of(model))) == 0


def test_the_list_says_who_has_what(database: Engine, add_user: AddUser) -> None:
    add_user("b@example.org", Role.OWNER, hashed="x")
    number = add_user("a@example.org")
    with transaction(database) as session:
        begin(session, number)
    with reading(database) as session:
        first, second = users.listing(session, now=NOW)
    assert (first.email, first.role, first.joined, first.sessions) == (
        "b@example.org",
        Role.OWNER,
        True,
        0,
    )
    assert (second.email, second.joined, second.has_factor, second.sessions) == (
        "a@example.org",
        False,
        False,
        1,
    )


def begin(session: Session, number: int) -> str:
    return sessions.begin(
        session, number, SignInStage.FULL, lasts=sessions._HALFWAY, now=NOW, ip=None, browser=None
    )
