"""Test mails go to those named, marked, and leave no trace in the ledger."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import AddressError, ProviderError, SendError
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.provider.gateway import NotSent, Refused, Unknown
from newsletter.rendering.preview import SAMPLE_READER
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Rendered
from newsletter.sending.models import Delivery, Send
from newsletter.sending.operations import test_email
from newsletter.settings.load import resource
from subscribers.consent import suppression
from subscribers.email_address import address_key, hash_address, parse
from subscribers.models import SuppressionReason
from tests.conftest import ADDRESS_KEY, NOW
from tests.newsletter.sending.conftest import PUBLICATION, TEXT, FakeGateway

KEY = address_key(ADDRESS_KEY)


@pytest.fixture
def rendered() -> Rendered:
    draft = parse_issue(TEXT % ("first", ""), name="first.md")
    return render(draft, PUBLICATION, templates=resource("templates/email"))


def send_test(
    database: Engine,
    rendered: Rendered,
    emails: Sequence[str],
    *,
    after: timedelta = timedelta(),
    gateway: FakeGateway | None = None,
) -> list[str]:
    return test_email.send(
        database,
        gateway or FakeGateway(),
        rendered,
        SAMPLE_READER,
        emails,
        by=Actor(None, "operator"),
        now=NOW + after,
        hash_of=lambda email: hash_address(KEY, parse(email)),
        secret=KEY,
        slug="first",
    )


def test_a_test_is_marked_and_carries_nobodys_token(database: Engine, rendered: Rendered) -> None:
    gateway = FakeGateway()
    send_test(database, rendered, ["a@example.org", "b@example.org"], gateway=gateway)
    (request,) = gateway.requests
    assert request.subject.startswith("[Test] Hello ")
    assert request.custom_args == {}
    assert request.headers == {}
    assert request.answers is False
    for recipient in request.recipients:
        assert recipient.custom_args == {}
        assert recipient.headers == {}
        assert recipient.substitutions[rendered.placeholders.token] == "preview"
        assert "Robin Example" in recipient.substitutions.values()


def test_a_test_makes_no_delivery(
    database: Engine, rendered: Rendered, cast: dict[str, int]
) -> None:
    assert send_test(database, rendered, ["alice@example.org"]) == ["alice@example.org"]
    with reading(database) as session:
        for table in (table_of(Send), table_of(Delivery)):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_who_left_gets_no_test_under_any_spelling(
    database: Engine, rendered: Rendered, cast: dict[str, int]
) -> None:
    with transaction(database) as session:
        suppression.add(
            session, [cast["bob"]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="a click"
        )
    with pytest.raises(SendError, match="this address is suppressed") as caught:
        send_test(database, rendered, ["alice@example.org", "BOB@example.org"])
    assert caught.value.place == "BOB@example.org"


def test_a_test_goes_to_few_and_an_hour_has_only_so_many(
    database: Engine, rendered: Rendered
) -> None:
    ten = [f"t{n}@example.org" for n in range(10)]
    assert send_test(database, rendered, [*ten, ten[0]]) == ten
    with pytest.raises(SendError, match="1 to 10"):
        send_test(database, rendered, [*ten, "t11@example.org"])
    with pytest.raises(SendError, match="1 to 10"):
        send_test(database, rendered, [])
    with pytest.raises(AddressError):
        send_test(database, rendered, ["nobody"])
    for _ in range(5):
        send_test(database, rendered, ten)
    with pytest.raises(SendError, match="60 test emails per hour"):
        send_test(database, rendered, ten[:1])
    assert send_test(database, rendered, ten[:1], after=timedelta(hours=2)) == ten[:1]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Refused(401, "bad key"), "refused it \\(401\\): bad key"),
        (NotSent("no route"), "no route"),
        (Unknown("silence"), "did not confirm it: silence"),
    ],
)
def test_a_test_that_is_not_taken_says_why(
    database: Engine, rendered: Rendered, outcome: object, said: str
) -> None:
    with pytest.raises(ProviderError, match=said):
        send_test(database, rendered, ["a@example.org"], gateway=FakeGateway(outcome))
