"""Our suppressions and the provider's lists are made to agree, and nobody who left is let in."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from newsletter.accounts import operator_messages
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import ProviderError
from newsletter.provider.account import Account, StoppedError, SuppressionListing, TryAgainError
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.scheduling import tasks
from newsletter.scheduling.leader_clock import Clock
from newsletter.settings.load import load
from newsletter.tracking.people import privacy
from newsletter.tracking.suppression_sync import Reconciler, last_runs
from subscribers.consent import suppression
from subscribers.consent.records import Act, record
from subscribers.email_address import address_key, hash_address, parse
from subscribers.models import Suppression, SuppressionReason
from tests.conftest import ADDRESS_KEY, NOW, add_person
from tests.newsletter.scheduling.test_leader_clock import wakeups
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import comes_back, take

pytestmark = pytest.mark.both_databases

__all__ = ["five"]

_suppression = table_of(Suppression)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KINDS = [*SuppressionListing]


@pytest.fixture(scope="module")
def _running() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as running:
        yield running


@pytest.fixture
def sandbox(_running: RunningSandbox) -> RunningSandbox:
    _running.store.reset()
    return _running


@pytest.fixture
def reconciler(environment: dict[str, str], sandbox: RunningSandbox) -> Iterator[Reconciler]:
    parts = Container(load({**environment, "NEWSLETTER_SENDGRID__HOST": sandbox.url}))
    yield parts.reconciler
    parts.database.dispose()


def listed(
    sandbox: RunningSandbox, kind: str, email: str, reason: str = "", at: datetime = NOW
) -> None:
    kind = "group" if kind == SuppressionListing.GROUPS else kind
    sandbox.store.suppress(kind, email, reason, at.timestamp())


def stands(sandbox: RunningSandbox, kind: str) -> list[str]:
    kind = "group" if kind == SuppressionListing.GROUPS else kind
    rows = sandbox.store.suppressions(kind, email="", begin=0, end=2**40, limit=-1, offset=0)
    return sorted(row[0] for row in rows)


def run(reconciler: Reconciler, now: datetime = NOW + HOUR, **terms: Any) -> Any:
    return reconciler.run(now=now, wait=lambda _: False, **terms)


def hashed(email: str) -> bytes:
    return hash_address(address_key(ADDRESS_KEY), parse(email))


def suppressed(database: Engine, email: str) -> Suppression | None:
    with reading(database) as session:
        return session.get(Suppression, hashed(email))


def opts_in(database: Engine, person: int, at: datetime, source: str = "form:site") -> None:
    with transaction(database) as session:
        record(session, person, [Act(at, "confirmed", source)])


def leaves(database: Engine, email: str, at: datetime = NOW, **values: Any) -> None:
    reason = values.get("reason", SuppressionReason.UNSUBSCRIBED)
    with transaction(database) as session:
        suppression.add_addresses(session, [hashed(email)], reason, at=at, evidence="one-click")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bounces", "bounced"),
        ("invalid_emails", "bounced"),
        ("spam_reports", "complained"),
        ("unsubscribes", "unsubscribed"),
        ("group_unsubscribes", "unsubscribed"),
    ],
)
def test_who_stands_on_a_list_there_is_suppressed_here(
    reconciler, sandbox, database, cast, kind: str, reason: str
) -> None:
    listed(sandbox, kind, "Alice@Example.org", "550 <alice@example.org>: no such user", NOW - DAY)
    report = run(reconciler)
    row = suppressed(database, "alice@example.org")
    assert row is not None
    assert (row.reason, row.at) == (reason, NOW - DAY)
    assert row.evidence.startswith(f"SendGrid's list of {kind.replace('_', ' ')}")
    assert "alice" not in row.evidence
    found = report.lists[SuppressionListing(kind)]
    assert (found.listed, found.new_here, found.known, found.removed_there) == (1, 1, 0, 0)
    again = run(reconciler, whole=True).lists[SuppressionListing(kind)]
    assert (again.new_here, again.known) == (0, 1)


def test_the_words_of_a_bounce_are_the_evidence(reconciler, sandbox, database) -> None:
    listed(sandbox, "bounces", "gone@example.org", "550 <gone@example.org>: no such user")
    run(reconciler)
    row = suppressed(database, "gone@example.org")
    assert row is not None
    assert row.evidence == "SendGrid's list of bounces: 550 <…>: no such user"


def test_a_block_is_counted_and_suppresses_nobody(reconciler, sandbox, database, cast) -> None:
    listed(sandbox, "blocks", "alice@example.org", "421 later")
    found = run(reconciler).lists[SuppressionListing.BLOCKS]
    assert (found.listed, found.new_here, found.removed_there) == (1, 0, 0)
    assert suppressed(database, "alice@example.org") is None


def test_a_stronger_reason_there_replaces_a_weaker_one_here(
    reconciler, sandbox, database, cast
) -> None:
    leaves(database, "alice@example.org")
    listed(sandbox, "spam_reports", "alice@example.org")
    listed(sandbox, "bounces", "alice@example.org")
    report = run(reconciler)
    assert suppressed(database, "alice@example.org").reason == "complained"
    assert report.lists[SuppressionListing.SPAM_REPORTS].new_here == 1


def test_what_is_no_address_is_counted_and_loses_nobody_else(reconciler, sandbox, database) -> None:
    listed(sandbox, "invalid_emails", "no-address")
    listed(sandbox, "invalid_emails", "bob@example.org")
    found = run(reconciler).lists[SuppressionListing.INVALID]
    assert (found.listed, found.new_here, found.unreadable) == (2, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_who_opted_in_again_later_is_taken_off_the_list_there(
    reconciler, sandbox, database, cast, kind: str
) -> None:
    listed(sandbox, kind, "alice@example.org", at=NOW)
    listed(sandbox, kind, "bob@example.org", at=NOW)
    opts_in(database, cast["alice"], NOW + timedelta(minutes=10))
    found = run(reconciler).lists[SuppressionListing(kind)]
    assert stands(sandbox, kind) == ["bob@example.org"]
    assert suppressed(database, "alice@example.org") is None
    assert found.removed_there == 1


@pytest.mark.parametrize(
    ("minutes", "source"),
    [
        pytest.param(-10, "form:site", id="opted in before the entry"),
        pytest.param(0.5, "form:site", id="so close that the clocks may differ"),
        pytest.param(10, "preferences", id="a link in a mail, which may have been passed on"),
        pytest.param(10, "import:list", id="an import is nobody's own act"),
    ],
)
def test_nothing_less_than_a_later_signup_takes_anybody_off(
    reconciler, sandbox, database, cast, minutes: float, source: str
) -> None:
    listed(sandbox, "unsubscribes", "alice@example.org", at=NOW)
    opts_in(database, cast["alice"], NOW + timedelta(minutes=minutes), source)
    run(reconciler)
    assert stands(sandbox, "unsubscribes") == ["alice@example.org"]
    assert suppressed(database, "alice@example.org").reason == "unsubscribed"


def test_who_came_back_and_left_once_more_stays_on_both_lists(
    reconciler, sandbox, database, cast
) -> None:
    listed(sandbox, "unsubscribes", "alice@example.org", at=NOW)
    opts_in(database, cast["alice"], NOW + HOUR)
    leaves(database, "alice@example.org", NOW + 2 * HOUR)
    found = run(reconciler, NOW + 3 * HOUR).lists[SuppressionListing.UNSUBSCRIBES]
    assert stands(sandbox, "unsubscribes") == ["alice@example.org"]
    assert suppressed(database, "alice@example.org") is not None
    assert (found.known, found.removed_there) == (1, 0)


def test_who_leaves_while_the_list_is_read_is_not_taken_off_it(
    reconciler, sandbox, database, cast
) -> None:
    listed(sandbox, "unsubscribes", "alice@example.org", at=NOW)
    opts_in(database, cast["alice"], NOW + HOUR)

    def ask(method: str, path: str, **more: Any) -> Any:
        if path == "suppression/unsubscribes" and more["query"]["offset"]:
            leaves(database, "alice@example.org", NOW + 2 * HOUR)
        return reconciler.ask(method, path, **more)

    run(replace(reconciler, ask=ask), NOW + 2 * HOUR)
    assert stands(sandbox, "unsubscribes") == ["alice@example.org"]


def test_a_dry_run_counts_and_changes_nothing(reconciler, sandbox, database, cast) -> None:
    listed(sandbox, "bounces", "bob@example.org")
    listed(sandbox, "unsubscribes", "alice@example.org", at=NOW)
    opts_in(database, cast["alice"], NOW + timedelta(minutes=10))
    leaves(database, "charlie@example.org")
    report = run(replace(reconciler, push_suppressions=True), dry_run=True)
    assert report.lists[SuppressionListing.BOUNCES].new_here == 1
    assert report.lists[SuppressionListing.UNSUBSCRIBES].removed_there == 1
    assert report.pushed == 1
    assert suppressed(database, "bob@example.org") is None
    assert stands(sandbox, "unsubscribes") == ["alice@example.org"]
    with reading(database) as session:
        assert last_runs(session) == (None, None)


def test_those_who_left_here_are_told_only_when_switched_on(
    reconciler, sandbox, database, cast
) -> None:
    leaves(database, "alice@example.org")
    leaves(database, "bob@example.org", reason=SuppressionReason.BOUNCED)
    leaves(database, "stranger@example.org")  # only the hash is known: there is nothing to tell
    assert run(reconciler).pushed is None
    assert stands(sandbox, "unsubscribes") == []
    assert run(replace(reconciler, push_suppressions=True), whole=True).pushed == 1
    assert stands(sandbox, "unsubscribes") == ["alice@example.org"]


def test_long_lists_are_read_to_their_end_though_some_are_taken_off(
    reconciler, sandbox, database
) -> None:
    with transaction(database) as session:
        people = {f"p{n:04}@example.org": None for n in range(1100)}
        for email in people:
            listed(sandbox, "unsubscribes", email, at=NOW)
        for email in [*people][::100]:
            person = add_person(session, email)
            record(session, person, [Act(NOW + HOUR, "confirmed", "form:site")])
    found = run(reconciler, NOW + 2 * HOUR).lists[SuppressionListing.UNSUBSCRIBES]
    assert (found.listed, found.new_here, found.removed_there) == (1100, 1089, 11)
    assert len(stands(sandbox, "unsubscribes")) == 1089
    with reading(database) as session:
        assert session.scalar(select(func.count()).select_from(_suppression)) == 1089


def test_a_second_run_reads_only_what_is_new(reconciler, sandbox, database, cast) -> None:
    listed(sandbox, "bounces", "old@example.org", at=NOW - 10 * DAY)
    run(reconciler, NOW)
    listed(sandbox, "bounces", "late@example.org", at=NOW - DAY)  # late, as SendGrid may be
    listed(sandbox, "bounces", "new@example.org", at=NOW + HOUR)
    report = run(reconciler, NOW + DAY)
    assert report.since == NOW - 2 * DAY
    assert report.lists[SuppressionListing.BOUNCES].listed == 2
    assert suppressed(database, "late@example.org") is not None
    assert suppressed(database, "new@example.org") is not None


def test_after_somebody_came_back_the_lists_are_read_from_their_beginning(
    reconciler, sandbox, database, cast
) -> None:
    leaves(database, "alice@example.org", NOW - 100 * DAY)
    listed(sandbox, "unsubscribes", "alice@example.org", at=NOW - 100 * DAY)
    run(reconciler, NOW)
    assert stands(sandbox, "unsubscribes") == ["alice@example.org"]
    with transaction(database) as session:
        suppression.lift(session, [hashed("alice@example.org")])
    opts_in(database, cast["alice"], NOW + HOUR)
    report = run(reconciler, NOW + DAY)
    assert report.since is None
    assert stands(sandbox, "unsubscribes") == []


@pytest.mark.parametrize("erased", [True, False])
def test_so_they_are_after_somebody_came_back_as_somebody_new(
    reconciler, sandbox, database, cast, erased: bool
) -> None:
    email = "alice@example.org" if erased else "unknown@example.org"
    listed(sandbox, "unsubscribes", email, at=NOW - 30 * DAY)
    run(reconciler, NOW)
    if erased:
        with transaction(database) as session:
            privacy.erase(session, cast["alice"], now=NOW + HOUR)
    comes_back(database, NOW + DAY, asked=NOW + DAY - HOUR, email=email)
    assert run(reconciler, NOW + 2 * DAY).since is None
    assert stands(sandbox, "unsubscribes") == []
    assert suppressed(database, email) is None


def test_newcomers_do_not_make_it_read_everything(reconciler, sandbox, database) -> None:
    run(reconciler, NOW)
    comes_back(database, NOW + HOUR, asked=NOW, email="newcomer@example.org")
    assert run(reconciler, NOW + DAY).since == NOW - 2 * DAY


def test_who_is_dropped_before_the_list_is_read_is_taken_off_it(
    reconciler, sandbox, database, five
) -> None:
    listed(sandbox, "unsubscribes", "p1@example.org", at=NOW - 30 * DAY)
    run(reconciler, NOW)
    comes_back(database, NOW + DAY, asked=NOW + HOUR)
    drop = {"event": "dropped", "email": "p1@example.org", "reason": "Unsubscribed Address"}
    take(database, {**drop, "timestamp": int((NOW + DAY + HOUR).timestamp())})
    run(reconciler, NOW + 2 * DAY)
    assert stands(sandbox, "unsubscribes") == []
    assert suppressed(database, "p1@example.org") is None


def test_a_run_that_failed_is_written_down_and_taken_up_again(
    reconciler, sandbox, database, cast
) -> None:
    listed(sandbox, "bounces", "alice@example.org")
    listed(sandbox, "unsubscribes", "bob@example.org")

    def broken(method: str, path: str, **more: Any) -> Any:
        if path.endswith("unsubscribes"):
            raise ProviderError("it broke", place=path)
        return reconciler.ask(method, path, **more)

    with pytest.raises(ProviderError, match="it broke"):
        run(replace(reconciler, ask=broken))
    with reading(database) as session:
        last, finished = last_runs(session)
    assert last is not None
    assert (last.finished_at, finished) == (None, None)
    assert "it broke" in last.error
    assert last.report["lists"]["bounces"]["new_here"] == 1
    assert suppressed(database, "alice@example.org") is not None
    assert run(reconciler, NOW + 2 * HOUR).since is None
    assert suppressed(database, "bob@example.org") is not None


def stopped(reconciler: Reconciler) -> tuple[Reconciler, list[str]]:
    """A reconciler that has stopped at its third question, and the three."""
    asked: list[str] = []

    def watched(method: str, path: str, **more: Any) -> Any:
        asked.append(path)
        if len(asked) == 3:
            raise ProviderError("it broke", place=path)
        return reconciler.ask(method, path, **more)

    watching = replace(reconciler, ask=watched)
    with pytest.raises(ProviderError, match="it broke"):
        run(watching, NOW)
    return watching, asked


@pytest.mark.slow
def test_the_next_run_goes_on_with_the_list_at_which_the_last_one_stopped(
    reconciler, sandbox, database, cast
) -> None:
    listed(sandbox, "bounces", "alice@example.org")
    watching, asked = stopped(reconciler)
    report = run(watching, NOW + HOUR)
    # The third question is asked anew, those before it are not.
    assert asked[3] == asked[2]
    assert not set(asked[:2]) & set(asked[3:])
    assert report.lists[SuppressionListing.BOUNCES].new_here == 1
    assert set(report.lists) == set(report.read) == set(SuppressionListing)
    before = len(asked)
    run(watching, NOW + 2 * HOUR)
    assert set(asked[:3]) <= set(asked[before:])


@pytest.mark.parametrize(("later", "whole"), [(2 * DAY, False), (HOUR, True)])
def test_what_was_read_long_ago_is_read_again_and_all_of_it_where_that_is_asked_for(
    reconciler, sandbox, database, later: timedelta, whole: bool
) -> None:
    watching, asked = stopped(reconciler)
    run(watching, NOW + later, whole=whole)
    assert set(asked[:3]) <= set(asked[3:])


def test_what_was_read_before_days_of_failures_is_read_again(
    reconciler, sandbox, database, cast
) -> None:
    _, asked = stopped(reconciler)
    # It came onto a list that has been read, and no event told us.
    listed(sandbox, "bounces", "alice@example.org", at=NOW + HOUR)

    def broken(method: str, path: str, **more: Any) -> Any:
        if path == asked[2]:
            raise ProviderError("it broke", place=path)
        return reconciler.ask(method, path, **more)

    for n in range(1, 80):
        with pytest.raises(ProviderError, match="it broke"):
            run(replace(reconciler, ask=broken), NOW + n * HOUR)
    run(reconciler, NOW + 80 * HOUR)
    run(reconciler, NOW + 104 * HOUR)
    assert suppressed(database, "alice@example.org") is not None


def test_it_is_due_each_day_and_an_hour_after_a_failure(reconciler, database) -> None:
    assert reconciler.due(now=NOW)
    assert not replace(reconciler, every=timedelta()).due(now=NOW)
    run(reconciler, NOW)
    assert not reconciler.due(now=NOW + 23 * HOUR)
    assert reconciler.due(now=NOW + DAY)

    def broken(method: str, path: str, **more: Any) -> Any:
        raise ProviderError("it broke", place=path)

    with pytest.raises(ProviderError):
        run(replace(reconciler, ask=broken), NOW + DAY)
    assert not reconciler.due(now=NOW + DAY + timedelta(minutes=59))
    assert reconciler.due(now=NOW + DAY + HOUR)


def trouble(times: int, error: Callable[[], ProviderError], real: Any) -> Any:
    left = [times]

    def ask(method: str, path: str, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error()
        return real(method, path, **more)

    return ask


def limited() -> ProviderError:
    error = TryAgainError("too many requests", place="bounces")
    error.retry_after = timedelta(seconds=7)
    return error


def test_rate_limits_and_passing_faults_are_waited_for(reconciler, sandbox, database) -> None:
    listed(sandbox, "bounces", "alice@example.org")
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    patient = replace(reconciler, ask=trouble(3, limited, reconciler.ask))
    patient.run(now=NOW + HOUR, wait=wait)
    assert [w for w in waits if w] == [7, 7, 7]
    assert suppressed(database, "alice@example.org") is not None
    waits.clear()
    fault = trouble(9, lambda: TryAgainError("503", place="bounces"), reconciler.ask)
    with pytest.raises(TryAgainError, match="503"):
        replace(reconciler, ask=fault).run(now=NOW + HOUR, wait=wait)
    assert [w for w in waits if w] == [2, 4, 8, 16]


def test_a_wait_without_reason_is_an_error(reconciler) -> None:
    def hours() -> ProviderError:
        error = TryAgainError("too many requests", place="bounces")
        error.retry_after = HOUR
        return error

    with pytest.raises(TryAgainError):
        run(replace(reconciler, ask=trouble(1, hours, reconciler.ask)))


def test_a_process_that_is_to_end_does_not_wait_for_the_lists(reconciler, database) -> None:
    with pytest.raises(StoppedError):
        reconciler.run(now=NOW, wait=lambda _: True)
    with reading(database) as session:
        last, _ = last_runs(session)
    assert last is not None
    assert last.finished_at is None


def test_a_provider_that_repeats_itself_is_no_endless_list() -> None:
    def ask(method: str, path: str, **more: Any) -> Any:
        return [{"email": "a@example.org", "created": 1}]

    pages = Account(ask).pages(SuppressionListing.BOUNCES, since=None, until=NOW)
    with pytest.raises(ProviderError, match="every page is equal"):
        list(pages)


@pytest.mark.parametrize("answer", [{}, None, "x", {"errors": []}])
def test_an_answer_that_is_no_list_is_an_error_and_not_an_empty_list(answer: Any) -> None:
    pages = Account(lambda *_, **__: answer).pages(SuppressionListing.GROUPS, since=None, until=NOW)
    with pytest.raises(ProviderError, match="not a list"):
        list(pages)


def task_context(one: Reconciler) -> tasks.TaskContext:
    return tasks.TaskContext(
        one.database,
        batch_size=2,
        late_limit=HOUR,
        uncertain_grace=HOUR,
        uncertain_policy="hold",
        keep_network_data=DAY,
        reconciler=one,
    )


def test_the_clocks_job_repairs_and_never_dies_silently(
    reconciler, sandbox, database, cast, caplog
) -> None:
    tasks.stopping.clear()
    listed(sandbox, "bounces", "alice@example.org", at=datetime.now(UTC) - HOUR)
    fault = trouble(1, lambda: ProviderError("the key was taken back"), reconciler.ask)
    tasks.configure_tasks(task_context(replace(reconciler, ask=fault)))
    with caplog.at_level(logging.ERROR):
        tasks.reconcile()
    assert "the key was taken back" in caplog.text
    assert suppressed(database, "alice@example.org") is None
    tasks.configure_tasks(task_context(replace(reconciler, every=timedelta(microseconds=1))))
    tasks.reconcile()
    assert suppressed(database, "alice@example.org") is not None


def test_a_clock_that_stops_does_not_wait_for_a_rate_limit(reconciler, database) -> None:
    asked = threading.Event()

    def ask(method: str, path: str, **more: Any) -> Any:
        asked.set()
        error = TryAgainError("too many requests", place=path)
        error.retry_after = timedelta(minutes=9)
        raise error

    clock = Clock(
        reconciler.database,
        task_context(replace(reconciler, ask=ask)),
        wakeups(reconciler.database),
    )
    clock.start()
    while not clock.is_leader:
        time.sleep(0.01)
    job = threading.Thread(target=tasks.reconcile)
    job.start()
    assert asked.wait(20)
    clock.stop()
    job.join(20)
    assert not job.is_alive()
    with reading(database) as session:
        last, finished = last_runs(session)
    assert last is not None
    assert ("stopped half-way" in last.error, finished) == (True, None)


def test_many_differences_are_told_but_not_those_of_the_first_run(
    reconciler, sandbox, database
) -> None:
    def told() -> list[str]:
        with reading(database) as session:
            return [one.detail for one in operator_messages.latest(session, limit=9)]

    def list_many(name: str, count: int, at: datetime) -> None:
        for number in range(count):
            listed(sandbox, "unsubscribes", f"{name}{number}@example.org", at=at)

    list_many("old", 11, NOW)
    run(reconciler, NOW + HOUR)
    list_many("few", 10, NOW + 2 * HOUR)
    run(reconciler, NOW + 3 * HOUR)
    list_many("many", 11, NOW + 4 * HOUR)
    run(reconciler, NOW + 5 * HOUR, dry_run=True)
    assert told() == []
    run(reconciler, NOW + 5 * HOUR)
    run(reconciler, NOW + 6 * HOUR)
    assert told() == [
        (
            "11 addresses were suppressed only at the provider, and 0 were on its lists although "
            "they opted in again."
        )
    ]
