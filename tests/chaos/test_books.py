"""The judge of the chaos is tried first: it has to see what it is there to see."""

from collections import Counter

from tests.chaos.books import Audience, Books, Finding, Line, compare


def found(
    taken: dict[int, int], *, final: bool = True, send: str = "sent", **batches: str
) -> Finding:
    """Person 1 stands in batch 1 and so on; each batch is given as state:delivery."""
    states = [one.split(":") for one in batches.values()]
    people = {
        n: Line(n, delivery, "why" if delivery in {"rejected", "skipped"} else None)
        for n, (_, delivery) in enumerate(states, 1)
    }
    books = Books(
        send, len(people), 0, people, {n: batch for n, (batch, _) in enumerate(states, 1)}
    )
    return compare(books, Counter(taken), Audience(set(people)), final=final)


def test_everybody_once_or_listed_is_sound() -> None:
    finding = found(
        {1: 1}, send="cancelled", a="accepted:accepted", b="rejected:rejected",
        c="skipped:skipped", d="uncertain:planned",
    )  # fmt: skip
    assert finding.sound, finding
    assert (finding.rejected, finding.skipped, finding.doubtful) == (1, 1, 1)


def test_a_second_copy_is_seen() -> None:
    assert found({1: 2}, a="accepted:accepted").duplicates == [1]


def test_who_is_called_accepted_and_was_not_is_missing() -> None:
    assert found({}, a="accepted:accepted").missing == [1]
    assert found({}, a="accepted:delivered").missing == [1]


def test_who_is_planned_for_ever_is_missing() -> None:
    assert found({}, send="cancelled", a="pending:planned").missing == [1]
    assert found({}, a="accepted:planned").missing == [1]
    assert found({}, final=False, send="sending", a="pending:planned").sound


def test_who_waits_and_has_it_would_get_it_twice() -> None:
    assert "twice" in str(found({1: 1}, final=False, send="sending", a="pending:planned"))
    assert found({1: 1}, final=False, send="sending", a="in_flight:planned").sound


def test_who_is_listed_and_has_it_is_listed_wrongly() -> None:
    assert not found({1: 1}, a="rejected:rejected").sound


def test_who_stands_in_no_plan_is_missing_unless_they_had_left() -> None:
    books = Books("sent", 1, 1, {1: Line(1, "accepted", None)}, {1: "accepted"})
    taken = Counter({1: 1})
    assert compare(books, taken, Audience({1, 2}), final=True).missing == [2]
    assert compare(books, taken, Audience({1, 2}, {2}), final=True).sound


def test_nobody_is_missing_in_a_send_that_was_cancelled_before_it_was_planned() -> None:
    never = Books("cancelled", 0, 0, {}, {})
    judged = compare(never, Counter(), Audience({1, 2}), final=True)
    assert (judged.sound, judged.left_out) == (True, 2)
    assert not compare(never, Counter({1: 1}), Audience({1, 2}), final=True).sound
    assert compare(Books("sent", 0, 0, {}, {}), Counter(), Audience({1}), final=True).missing == [1]
