"""Whatever happens in whatever order: nobody is handed over twice, and every sum holds."""

import contextlib
import os
import shutil
import tempfile
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, update

from newsletter.accounts.audit import Actor
from newsletter.db.engine import open_database, reading, transaction, upgrade
from newsletter.db.orm import table_of
from newsletter.errors import NothingToDoError, SendError
from newsletter.provider.gateway import Accepted, MailRequest, NotSent, Outcome, Refused, Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.ledger.batches import mark_accepted
from newsletter.sending.models import ProviderBackoff
from newsletter.sending.models import Worker as WorkerRow
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import uncertain_batches
from newsletter.sending.states import MISSED, UNSETTLED, BatchState, DeliveryState
from subscribers.consent import suppression
from subscribers.models import SuppressionReason
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, batches, dispatcher, make_plan, make_send

_PEOPLE = 7
_WORKERS = 3
_MEMORY = "/dev/shm"
#: Answers that say that the provider has not taken it.
NOT_TAKEN: list[Outcome] = [
    NotSent("busy", timedelta(seconds=5)),
    NotSent("refused"),
    Refused(400, "bad", recipient=0),
    Refused(400, "bad"),
    Refused(401, "key"),
]
_HANDED = {"accepted", "delivered", "bounced", "complained"}


class Crash(BaseException):
    """The process ends here."""


class Provider(FakeGateway):
    """Answers as the rule says, and knows what it has truly taken."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = Counter[str]()
        self.answer: Outcome | None = Accepted("id")
        self.takes = True

    def take(self, request: MailRequest) -> None:
        if self.takes:
            self.taken.update(recipient.email for recipient in request.recipients)

    def send(self, request: MailRequest) -> Outcome:
        self.take(request)
        if self.answer is None:
            raise Crash
        return self.answer


class Worker(FakeGateway):
    """A worker that stands still while its request is under way: whatever may happen meanwhile.

    A thread of its own, which runs only while it is waited for: a step is a step.
    """

    def __init__(self, database: Engine, provider: Provider) -> None:
        super().__init__()
        self.provider = provider
        self.dispatcher = dispatcher(database, self)
        #: Whether the provider has what is under way; None when nothing is.
        self.took: bool | None = None
        #: Its send and number.
        self.at = (0, 0)
        self._answers = SimpleQueue[Outcome | None]()
        self._stops = SimpleQueue[BaseException | None]()

    def begin(self, *, more: bool = False, only: tuple[int, int] | None = None) -> None:
        """Let it work until its request is under way, or nothing is due."""

        def run() -> None:
            try:
                if only:
                    self.dispatcher.send_batch(*only)
                else:
                    self.dispatcher.send_next(more=lambda: more)
            except BaseException as error:  # noqa: BLE001 (whoever waits raises it)
                self._stops.put(error)
            else:
                self._stops.put(None)

        threading.Thread(target=run, daemon=True).start()
        self._wait()

    def send(self, request: MailRequest) -> Outcome:
        self.provider.take(request)
        self.took = self.provider.takes
        self.at = int(request.custom_args["nl_send"]), int(request.custom_args["nl_batch"])
        self._stops.put(None)
        answer = self._answers.get()
        if answer is None:
            raise Crash
        return answer

    def answered(self, outcome: Outcome | None) -> None:
        """The answer comes, or the process ends."""
        self.took = None
        self._answers.put(outcome)
        self._wait()

    def _wait(self) -> None:
        error = self._stops.get(timeout=60)
        if error is not None and not isinstance(error, Crash):
            raise error


@cache
def template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="newsletter-machine-")) / "template.db"
    engine = open_database(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


class Ledger(RuleBasedStateMachine):
    """One issue, several sends of it, a provider that may do anything, and an operator."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size: int) -> None:
        self.size = size
        # In memory where that is possible: thousands of commits, none of which has to last.
        self.folder = tempfile.TemporaryDirectory(
            prefix="newsletter-machine-", dir=_MEMORY if Path(_MEMORY).is_dir() else None
        )
        path = Path(self.folder.name) / "ledger.db"
        shutil.copy(template(), path)
        self.database = open_database(f"sqlite:///{path}")
        self.provider = Provider()
        self.left: dict[int, int] = {}
        with transaction(self.database) as session:
            self.people = [add_person(session, f"p{n}@example.org") for n in range(_PEOPLE)]
        self.sends: list[int] = []
        self.workers = [Worker(self.database, self.provider) for _ in range(_WORKERS)]
        self.another_send()

    def _step(self, answer: Outcome | None, *, takes: bool) -> None:
        self.provider.answer, self.provider.takes = answer, takes
        with contextlib.suppress(Crash):
            dispatcher(self.database, self.provider).send_next()

    @precondition(lambda self: len(self.sends) < 3)
    @rule()
    def another_send(self) -> None:
        try:
            send = make_send(self.database)
        except NothingToDoError:
            return
        make_plan(self.database, send, batch_size=self.size)
        self.sends.append(send)

    @rule()
    def accepted(self) -> None:
        self._step(Accepted("id"), takes=True)

    @rule(takes=st.booleans(), crash=st.booleans())
    def no_answer(self, takes: bool, crash: bool) -> None:
        self._step(None if crash else Unknown("lost"), takes=takes)

    @rule(outcome=st.sampled_from(NOT_TAKEN))
    def surely_not_taken(self, outcome: Outcome) -> None:
        self._step(outcome, takes=False)

    # Whoever looks after doubt takes these for dead, as none of them has a heartbeat: an
    # answer may come late, when others have settled, split or sent what it is about.

    @rule(n=st.integers(0, _WORKERS - 1), takes=st.booleans(), more=st.booleans())
    def a_request_leaves(self, n: int, takes: bool, more: bool) -> None:
        if self.workers[n].took is None:
            self.provider.takes = takes
            self.workers[n].begin(more=more)

    @precondition(lambda self: self._under_way())
    @rule(data=st.data())
    def its_answer_comes(self, data: st.DataObject) -> None:
        self._answer(data.draw(st.sampled_from(self._under_way())), data)

    @precondition(lambda self: len(self._idle()) > 1)
    @rule(data=st.data(), took=st.booleans(), took_again=st.booleans(), far=st.integers(1, 4))
    def an_answer_comes_late(
        self, data: st.DataObject, took: bool, took_again: bool, far: int
    ) -> None:
        """What chance alone would seldom put into this order: given up, settled by the operator,
        sent by another, whose answer comes first or has not come yet."""
        one, other = self._idle()[:2]
        self.provider.takes = took
        one.begin()
        self.look_after_doubt()
        if far > 1:
            self.resolve_by_the_truth()
        if far > 2 and one.took is not None:
            self.provider.takes = took_again
            other.begin(only=one.at)
        if far > 3 and other.took is not None:
            self._answer(other, data)
        if one.took is not None:
            self._answer(one, data)

    def _answer(self, worker: Worker, data: st.DataObject) -> None:
        said = [Unknown("lost"), *([Accepted("late")] if worker.took else NOT_TAKEN)]
        worker.answered(data.draw(st.sampled_from(said)))

    @rule(n=st.integers(0, _WORKERS - 1))
    def a_worker_is_killed(self, n: int) -> None:
        """With its request under way, or with a claim in its hands."""
        if self.workers[n].took is not None:
            self.workers[n].answered(None)
        self.workers[n] = Worker(self.database, self.provider)

    @rule(n=st.integers(0, _WORKERS - 1))
    def a_worker_ends(self, n: int) -> None:
        if self.workers[n].took is None:
            self.workers[n].dispatcher.release()

    def _under_way(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.took is not None]

    def _idle(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.took is None]

    @rule()
    def look_after_doubt(self) -> None:
        with transaction(self.database) as session:
            # No worker counts as alive: its claim was its last heartbeat.
            session.execute(table_of(WorkerRow).delete())
            # The wait is over; probes go on.
            session.execute(update(table_of(ProviderBackoff)).values(until=NOW))
            uncertain_batches.recover(
                session, now=datetime.now(UTC), grace=timedelta(hours=1), policy="hold"
            )

    @rule()
    def events_come(self) -> None:
        """Evidence of whatever was taken, for all batches, again and again."""
        for send, number in self._taken_batches():
            with transaction(self.database) as session:
                mark_accepted(session, [(send, number)], now=NOW, detail="an event")

    @precondition(lambda self: self.sends)
    @rule(data=st.data(), word=st.sampled_from(["pause", "resume", "cancel", "retry"]))
    def operate(self, data: st.DataObject, word: str) -> None:
        send, now = data.draw(st.sampled_from(self.sends)), datetime.now(UTC)
        try:
            with transaction(self.database) as session:
                match word:
                    case "pause":
                        send_lifecycle.pause(
                            session, send, by=Actor(None, "operator"), reason="wait", now=now
                        )
                    case "resume":
                        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=now)
                    case "cancel":
                        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=now)
                    case _:
                        send_lifecycle.retry(
                            session, send, by=Actor(None, "operator"), now=now, batch_size=self.size
                        )
        except (SendError, NothingToDoError):
            return  # it does not stand where that is possible, and nothing was changed

    @precondition(lambda self: self.sends)
    @rule()
    def resolve_by_the_truth(self) -> None:
        for send in self.sends:
            for batch in batches(self.database, send):
                if batch.state == BatchState.UNCERTAIN:
                    sent = (send, batch.number) in self._taken_batches()
                    with transaction(self.database) as session:
                        uncertain_batches.resolve(
                            session,
                            send,
                            batch.number,
                            by=Actor(None, "operator"),
                            sent=sent,
                            now=datetime.now(UTC),
                        )

    @rule(data=st.data())
    def somebody_leaves(self, data: st.DataObject) -> None:
        person = data.draw(st.sampled_from(self.people))
        email = f"p{self.people.index(person)}@example.org"
        self.left.setdefault(person, self.provider.taken[email])
        with transaction(self.database) as session:
            suppression.add(session, [person], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="")

    def _taken_batches(self) -> set[tuple[int, int]]:
        """Open batches of which the provider has somebody who is still planned."""
        found = set()
        for send in self.sends:
            with reading(self.database) as session:
                for row in send_status.stream_recipients(session, send, state="planned"):
                    if self.provider.taken[row.email]:
                        found.add((send, row.batch))
        return found

    def _all_over(self) -> bool:
        with reading(self.database) as session:
            stands = [send_status.get_status(session, send) for send in self.sends]
        return all(
            one.send.state in {"sent", "cancelled"} and "planned" not in one.recipients
            for one in stands
        )

    @invariant()
    def nobody_has_it_twice_or_after_leaving(self) -> None:
        if not hasattr(self, "provider"):
            return
        assert all(times <= 1 for times in self.provider.taken.values())
        for person, times in self.left.items():
            assert self.provider.taken[f"p{self.people.index(person)}@example.org"] == times

    @invariant()
    def sums_hold(self) -> None:
        for send in getattr(self, "sends", ()):
            with reading(self.database) as session:
                stands = send_status.get_status(session, send)
                people = list(send_status.stream_recipients(session, send))
            assert stands.adds_up
            rows = {batch.number: batch for batch in batches(self.database, send)}
            sizes = Counter(row.batch for row in people)
            for number, batch in rows.items():
                if batch.state in UNSETTLED:
                    assert batch.size == sizes[number]
            for row in people:
                if row.state == "planned":
                    assert rows[row.batch].state in UNSETTLED
                    # Whoever has it is planned only where that is under way or in doubt.
                    if self.provider.taken[row.email]:
                        assert rows[row.batch].state in {"in_flight", "uncertain"}
                elif row.state in _HANDED:
                    assert self.provider.taken[row.email] == 1
                else:
                    assert not self.provider.taken[row.email]
                    assert DeliveryState(row.state) in MISSED
                    assert row.reason
            if stands.send.state == "sent":
                assert not any(batch.state in UNSETTLED for batch in rows.values())

    def teardown(self) -> None:
        """In the end everybody who is in a send has it or stands there with a reason."""
        if not hasattr(self, "provider"):
            return
        for worker in self.workers:
            if worker.took is not None:
                worker.answered(Accepted("late") if worker.took else NotSent("refused"))
            worker.dispatcher.release()
        for _ in range(3 * _PEOPLE):
            self.look_after_doubt()
            self.resolve_by_the_truth()
            for send in self.sends:
                with reading(self.database) as session:
                    paused = send_status.find(session, send).state == "paused"
                if paused:
                    with transaction(self.database) as session:
                        send_lifecycle.resume(
                            session, send, by=Actor(None, "operator"), now=datetime.now(UTC)
                        )
            self._step(Accepted("id"), takes=True)
            if self._all_over():
                break
        for send in self.sends:
            with reading(self.database) as session:
                stands = send_status.get_status(session, send)
            assert stands.send.state in {"sent", "cancelled"}
            assert stands.adds_up
            assert "planned" not in stands.recipients
        self.nobody_has_it_twice_or_after_leaving()
        self.sums_hold()
        self.database.dispose()
        self.folder.cleanup()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_sequence_of_operations_breaks_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    # Batches of two to four people are cut in two for a probe.
    monkeypatch.setattr(provider_backoff, "PROBE_SIZE", 1)
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            # LEDGER_EXAMPLES=2000 is the long run.
            max_examples=int(os.environ.get("LEDGER_EXAMPLES", "40")),
            stateful_step_count=25,
            phases=[Phase.generate],
            deadline=None,
            derandomize="LEDGER_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
