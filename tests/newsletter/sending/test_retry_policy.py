"""Only what was surely not accepted is tried again."""

from datetime import timedelta

import pytest

from newsletter.provider.gateway import Accepted, NotSent, Refused, Unknown
from newsletter.sending.reasons import PauseCause, remedy
from newsletter.sending.retry_policy import (
    RejectBatch,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
    Uncertain,
    decide,
)


def test_an_accepted_request_is_settled_with_its_id() -> None:
    assert decide(Accepted("abc"), attempt=1, size=1000, jitter=0) == Settled("abc")


def test_a_rate_limit_waits_for_its_reset() -> None:
    decision = decide(NotSent("429", timedelta(seconds=17)), attempt=1, size=1000, jitter=0)
    assert decision == TryAgain(timedelta(seconds=17), "429", set_by_provider=True)


@pytest.mark.parametrize("reset", [timedelta(0), timedelta(milliseconds=3)])
def test_a_reset_that_is_past_by_our_clock_is_not_tried_at_once(reset: timedelta) -> None:
    decision = decide(NotSent("429", reset), attempt=1, size=1000, jitter=0)
    assert decision == TryAgain(timedelta(seconds=1), "429", set_by_provider=True)


def test_a_refused_connection_waits_longer_each_time_up_to_five_minutes() -> None:
    waits = [decide(NotSent("refused"), attempt=n, size=1000, jitter=0).wait for n in range(1, 20)]  # type: ignore[union-attr]
    assert waits == sorted(waits)
    assert waits[0] == timedelta(seconds=1)
    assert max(waits) == timedelta(minutes=2.5)
    assert decide(NotSent("refused"), attempt=19, size=1000, jitter=1).wait == timedelta(minutes=5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("status", "cause", "what_to_do"),
    [(401, PauseCause.API_KEY, "sendgrid.api_key"), (403, PauseCause.PERMISSION, "Mail Send")],
)
def test_a_wrong_key_or_sender_stops_the_send_and_says_what_to_do(
    status: int, cause: PauseCause, what_to_do: str
) -> None:
    decision = decide(Refused(status, "their words"), attempt=1, size=1000, jitter=0)
    assert isinstance(decision, StopSend)
    assert (decision.cause, what_to_do in remedy(decision.cause)) == (cause, True)
    assert "their words" in decision.reason


def test_every_cause_of_a_pause_has_a_remedy_without_commands() -> None:
    for cause in PauseCause:
        assert remedy(cause).endswith(".")
        assert "`" not in remedy(cause)
    assert remedy(None) == ""


@pytest.mark.parametrize("status", [404, 405, 415])
def test_what_is_no_sendgrid_stops_the_send(status: int) -> None:
    decision = decide(Refused(status, "no"), attempt=1, size=1000, jitter=0)
    assert isinstance(decision, StopSend)
    assert "sendgrid.host" in remedy(decision.cause)


def test_a_complaint_about_one_person_costs_nobody_else_the_issue() -> None:
    refusal = Refused(400, "bad address", recipient=7)
    said = "SendGrid refused it (400): bad address"
    assert decide(refusal, attempt=1, size=1000, jitter=0) == RejectOne(7, said)


def test_a_complaint_about_what_all_share_stops_the_send() -> None:
    decision = decide(Refused(400, "bad", shared="subject"), attempt=1, size=1000, jitter=0)
    assert isinstance(decision, StopSend)
    assert "subject" in decision.reason


@pytest.mark.parametrize("status", [400, 413])
def test_a_refusal_of_unknown_cause_halves_the_batch_down_to_one_person(status: int) -> None:
    refusal, said = Refused(status, "bad"), f"SendGrid refused it ({status}): bad"
    assert decide(refusal, attempt=1, size=2, jitter=0) == Split(said)
    assert decide(refusal, attempt=1, size=1, jitter=0) == RejectBatch(said)


def test_a_lost_answer_is_doubt() -> None:
    assert decide(Unknown("timed out"), attempt=1, size=1000, jitter=0) == Uncertain("timed out")
