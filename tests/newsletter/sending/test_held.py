"""What the provider holds until its time has reached nobody: its send can be stopped till then."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, select, update

from newsletter.cli.sending import sends
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import NothingToDoError, ProviderError, SendError
from newsletter.issues.models import Issue
from newsletter.provider.gateway import Outcome, Unknown
from newsletter.sending import held
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import Batch, Send
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.recovery import uncertain_batches
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    drain,
    make_plan,
    make_send,
    send_state,
    states,
)

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_PEOPLE = [f"p{n}@example.org" for n in range(1, 6)]


class Provider(FakeGateway):
    """Holds what it takes under a name, as SendGrid does: until its time, or for ever."""

    def __init__(self, *outcomes: Outcome) -> None:
        super().__init__(*outcomes)
        self.stopped: dict[str | None, str] = {}
        self.is_deaf = False
        self.names = ["hold-3", "hold-2"]

    def new_hold(self) -> str:
        return self.names.pop()

    def cancel_held(self, hold_id: str) -> None:
        self._told(hold_id, "cancel")

    def pause_held(self, hold_id: str) -> None:
        self._told(hold_id, "pause")

    def release_held(self, hold_id: str) -> None:
        self._told(hold_id, "")

    def _told(self, hold_id: str, what: str) -> None:
        if self.is_deaf:
            raise ProviderError("no answer", place=f"hold {hold_id}", hint="Do it once more.")
        self.stopped[hold_id] = what

    @property
    def reached(self) -> list[str]:
        """Whoever gets it in the end."""
        return sorted(
            recipient.email
            for request in self.requests
            if not self.stopped.get(request.hold_id)
            for recipient in request.recipients
        )


@pytest.fixture
def provider(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The provider of the commands, too."""
    made = Provider()
    size = SimpleNamespace(sending=SimpleNamespace(batch_size=5))
    parts = SimpleNamespace(
        database=database,
        gateway=made,
        provider=made,
        links=None,
        warm_up=None,
        settings=size,
        compare_departures=lambda: None,
        journaling=lambda **_: nullcontext(),
    )
    monkeypatch.setattr(sends, "Assembly", lambda _settings: parts)
    monkeypatch.setattr(sends, "load", lambda: None)
    # The tests do the workers' work.
    for name in ("run_to_rest", "summary", "exit_by"):
        monkeypatch.setattr(sends, name, lambda *_: None)
    return made


def ahead_send(database: Engine, *, wait: timedelta = _DAY) -> int:
    """A send to five in one batch, to be held for so long from now on."""
    now = datetime.now(UTC)
    at = now + wait
    timetable = Timetable(
        local_time=at.time().replace(second=0, microsecond=0),
        local_date=at.date(),
        ahead=timedelta(hours=30),
    )
    send = make_send(database, timetable=timetable, at=now)
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(hold_id="hold-1"))
    make_plan(database, send, batch_size=5, now=now)
    return send


def handed_over(database: Engine, provider: Provider) -> int:
    """The same, with the provider by now."""
    send = ahead_send(database)
    drain(database, provider)
    return send


def its_time_comes(database: Engine) -> None:
    batch = table_of(Batch)
    past = datetime.now(UTC) - timedelta(seconds=1)
    with transaction(database) as session:
        session.execute(
            update(batch).where(batch.c.hold_until.is_not(None)).values(hold_until=past)
        )


def is_published(database: Engine) -> bool:
    with reading(database) as session:
        return session.scalar(select(table_of(Issue).c.published_at)) is not None


def sweep(database: Engine) -> None:
    with transaction(database) as session:
        uncertain_batches.sweep(session, now=datetime.now(UTC), grace=_HOUR, policy="hold")


def test_a_send_is_over_when_the_time_of_what_is_held_has_come(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    assert provider.reached == _PEOPLE
    assert (send_state(database, send), is_published(database)) == ("sending", False)
    with reading(database) as session:
        there = held.of(session, send, now=datetime.now(UTC))
    assert there is not None
    assert (there.people, there.stopped) == (5, False)
    its_time_comes(database)
    sweep(database)
    assert (send_state(database, send), is_published(database)) == ("sent", True)


def test_what_is_held_can_be_cancelled_until_its_time(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    sends.cancel(send)
    assert {state for state, _ in states(database, send).values()} == {"rejected"}
    assert provider.reached == []
    assert not is_published(database)


def test_a_retry_of_what_was_called_back_is_held_under_another_name(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    sends.cancel(send)
    sends.retry(send)
    drain(database, provider)
    assert provider.requests[-1].hold_id == "hold-2"
    assert provider.reached == _PEOPLE
    assert {state for state, _ in states(database, send).values()} == {"accepted"}


def test_there_is_no_retry_while_the_provider_may_still_send_it(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    provider.is_deaf = True
    with pytest.raises(ProviderError):
        sends.cancel(send)
    with pytest.raises(SendError, match="SendGrid holds some of it until"):
        sends.retry(send)
    provider.is_deaf = False
    sends.cancel(send)
    sends.retry(send)
    drain(database, provider)
    assert provider.reached == _PEOPLE


@pytest.mark.parametrize("answers", [[], [Unknown("lost")]], ids=["taken", "lost"])
def test_whatever_is_under_way_while_it_is_called_back_is_missed(
    database: Engine, five: list[int], provider: Provider, answers: list[Outcome]
) -> None:
    send = ahead_send(database)
    provider.outcomes = answers
    provider.during = lambda: sends.cancel(send)
    drain(database, provider)
    sweep(database)
    assert {state for state, _ in states(database, send).values()} == {"rejected"}
    provider.during = lambda: None
    with transaction(database) as session:
        provider_backoff.lift(session)
    sends.retry(send)
    drain(database, provider)
    assert provider.reached == _PEOPLE


def test_a_doubt_about_what_is_called_back_is_none(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = ahead_send(database)
    provider.outcomes = [Unknown("lost")]
    drain(database, provider)
    sends.cancel(send)
    assert [batch.state for batch in batches(database, send)] == ["rejected"]


def test_what_is_about_to_leave_may_have_left(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    with transaction(database) as session:
        soon = datetime.now(UTC) + timedelta(minutes=5)
        session.execute(update(table_of(Batch)).values(hold_until=soon))
    sends.cancel(send)
    assert {state for state, _ in states(database, send).values()} == {"accepted"}
    with pytest.raises(SendError, match="SendGrid holds some of it until"):
        sends.retry(send)


def test_what_is_held_can_be_paused_and_goes_on(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    sends.pause(send)
    assert (send_state(database, send), provider.reached) == ("paused", [])
    its_time_comes(database)
    sweep(database)
    assert send_state(database, send) == "paused"
    sends.resume(send)
    assert (send_state(database, send), provider.reached) == ("sent", _PEOPLE)


def test_a_pause_that_the_provider_did_not_hear_can_be_repeated(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    provider.is_deaf = True
    with pytest.raises(ProviderError):
        sends.pause(send)
    provider.is_deaf = False
    sends.pause(send)
    assert provider.stopped == {"hold-1": "pause"}


def test_a_resume_that_the_provider_did_not_hear_can_be_repeated(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    sends.pause(send)
    its_time_comes(database)
    provider.is_deaf = True
    with pytest.raises(ProviderError):
        sends.resume(send)
    # It is kept back there, whatever its time is: the send is not over.
    sweep(database)
    assert (send_state(database, send), is_published(database)) == ("sending", False)
    provider.is_deaf = False
    sends.resume(send)
    assert (send_state(database, send), provider.reached) == ("sent", _PEOPLE)


def test_what_is_kept_back_beyond_its_time_is_called_back(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    sends.pause(send)
    its_time_comes(database)
    sends.cancel(send)
    assert {state for state, _ in states(database, send).values()} == {"rejected"}


def test_what_may_have_been_let_go_is_not_called_back(
    database: Engine, five: list[int], provider: Provider
) -> None:
    send = handed_over(database, provider)
    sends.pause(send)
    its_time_comes(database)
    provider.is_deaf = True
    with pytest.raises(ProviderError):
        sends.resume(send)
    provider.is_deaf = False
    sends.cancel(send)
    assert {state for state, _ in states(database, send).values()} == {"accepted"}
    with pytest.raises(NothingToDoError):
        sends.retry(send)
