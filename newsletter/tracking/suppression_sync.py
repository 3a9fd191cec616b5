"""Reconciles our suppressions with SendGrid's suppression lists.

An address on SendGrid's lists is suppressed here, too. If its owner opted in here after
SendGrid's entry, the address is taken off SendGrid's list. A run lifts no suppression here.

A run reads the lists over HTTP page by page, with one transaction for each page. Every step may
be repeated. After a run that was stopped, the next one continues with the list at which it
stopped, and not with the page, because pages shift when entries come and go.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, delete, insert, select, update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import ProviderError
from newsletter.provider.account import (
    PAGE,
    Account,
    Ask,
    ListEntry,
    SuppressionListing,
    Wait,
    patient,
)
from newsletter.tracking import list_removal
from newsletter.tracking.events.attribution import HashOf
from newsletter.tracking.list_removal import CLOCK_TOLERANCE
from newsletter.tracking.models import Reconciliation
from subscribers.consent import records as consent_records
from subscribers.consent import suppression
from subscribers.consent.suppression import Proof
from subscribers.email_address import without_addresses
from subscribers.models import Consent, Subscriber, Suppression, SuppressionReason

_run, _suppression = table_of(Reconciliation), table_of(Suppression)
_subscriber, _consent = table_of(Subscriber), table_of(Consent)

#: The reason of suppression for each list; a block concerns one email, so it is only counted.
REASONS: Final[Mapping[SuppressionListing, SuppressionReason | None]] = {
    SuppressionListing.BOUNCES: SuppressionReason.BOUNCED,
    SuppressionListing.INVALID: SuppressionReason.BOUNCED,
    SuppressionListing.SPAM_REPORTS: SuppressionReason.COMPLAINED,
    SuppressionListing.UNSUBSCRIBES: SuppressionReason.UNSUBSCRIBED,
    SuppressionListing.GROUPS: SuppressionReason.UNSUBSCRIBED,
    SuppressionListing.BLOCKS: None,
}
#: Suppressions that are pushed to SendGrid. It knows of bounces and complaints already.
_PUSHED = (SuppressionReason.UNSUBSCRIBED, SuppressionReason.MANUAL)
#: An entry may come onto a list later than its time says, so a run reads this far back.
_OVERLAP = timedelta(days=2)
#: The wait after a run that did not finish, if it is shorter than the regular interval.
_RETRY_AFTER = timedelta(hours=1)
#: A run that did not finish need not be repeated for the lists that it read this recently: the
#: overlap covers the time since then.
_READ_IS_VALID_FOR = _OVERLAP / 2
_KEEP = timedelta(days=400)
#: More differences than this are told to the operators. A few are normal: an event may be late.
_TOLERATED = 10
_EVIDENCE = "SendGrid's list of"


@dataclass(slots=True)
class ReconcileFindings:
    """The entries of one list, by what the run did with them."""

    listed: int = 0
    #: Suppressed on both sides already.
    known: int = 0
    #: Suppressed here from now on, or for a stronger reason.
    new_here: int = 0
    #: Taken off SendGrid's list, because the subscriber opted in here after the entry.
    removed_there: int = 0
    #: Not a valid email address.
    unreadable: int = 0


@dataclass(slots=True)
class ReconcileReport:
    """The differences that a run found, and repaired unless it was a dry run."""

    started_at: datetime
    #: The run compared the entries from this time on; None for all of them.
    since: datetime | None
    dry_run: bool
    lists: dict[SuppressionListing, ReconcileFindings] = field(default_factory=dict)
    #: The lists that were read completely, and up to which time.
    read: dict[SuppressionListing, datetime] = field(default_factory=dict)
    #: Addresses that were pushed to SendGrid as unsubscribed; None where that is switched off.
    pushed: int | None = None

    @property
    def repaired(self) -> int:
        """The differences that the run found."""
        return sum(one.new_here + one.removed_there for one in self.lists.values())

    def as_json(self) -> dict[str, Any]:
        """The report as Reconciliation.report stores it."""
        return {
            "lists": {str(listing): asdict(findings) for listing, findings in self.lists.items()},
            "read": {str(listing): until.isoformat() for listing, until in self.read.items()},
            "told": self.pushed,
        }


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Compares our suppressions with SendGrid's lists, and repairs the differences."""

    database: Engine
    ask: Ask
    hash_of: HashOf
    #: The interval between runs; zero for never.
    every: timedelta
    #: Whether unsubscribes here are pushed to SendGrid's list of unsubscribes.
    push_suppressions: bool = False

    def due(self, *, now: datetime) -> bool:
        """Whether the next run is due; an hour after a run that did not finish."""
        if not self.every:
            return False
        last = select(_run.c.started_at, _run.c.finished_at).order_by(_run.c.id.desc()).limit(1)
        with reading(self.database) as session:
            row = session.execute(last).one_or_none()
        if row is None:
            return True
        wait = self.every if row.finished_at else min(self.every, _RETRY_AFTER)
        return bool(row.started_at + wait <= now)

    def run(
        self, *, now: datetime, wait: Wait, whole: bool = False, dry_run: bool = False
    ) -> ReconcileReport:
        """Compare and repair. Raises ProviderError after recording why the run did not finish."""
        with reading(self.database) as session:
            since = None if whole else _since(session)
            report = ReconcileReport(now, since, dry_run)
            if not (whole or dry_run):
                _continue_last_run(session, report)
        if dry_run:
            self._compare(report, wait, lambda: None)
            return report
        with transaction(self.database) as session:
            # The lists of an account that was in use before are no difference.
            is_first = last_runs(session)[1] is None
            session.execute(delete(_run).where(_run.c.started_at < now - _KEEP))
            started = insert(_run).values(started_at=now, since=since, report={}, error="")
            run_id = session.execute(started.returning(_run.c.id)).scalar_one()

        def save(**values: Any) -> None:  # noqa: ANN401 (columns)
            with transaction(self.database) as session:
                this = update(_run).where(_run.c.id == run_id)
                session.execute(this.values(report=report.as_json(), **values))
                if "finished_at" in values and not is_first:
                    _tell(session, run_id, report)

        values: dict[str, Any] = {"error": "it was stopped"}
        try:
            self._compare(report, wait, save)
            values = {"finished_at": now}
        except ProviderError as error:
            values = {"error": str(error)[:1000]}
            raise
        finally:
            save(**values)
        return report

    def _compare(self, report: ReconcileReport, wait: Wait, save: Callable[[], None]) -> None:
        account = Account(patient(self.ask, wait))
        for listing in REASONS:
            if listing in report.read:
                continue
            findings = report.lists[listing] = ReconcileFindings()
            outdated: list[ListEntry] = []
            for page in account.pages(listing, since=report.since, until=report.started_at):
                with self._session(report) as session:
                    outdated += self._apply_page(
                        session, listing, page, findings, dry_run=report.dry_run
                    )
            # Only after the last page: a removal moves up the entries of the pages after it.
            for begin in range(0, len(outdated), PAGE):
                for entry in self._still_outdated(report, outdated[begin : begin + PAGE]):
                    findings.removed_there += 1
                    if not report.dry_run:
                        account.remove(listing, entry)
            report.read[listing] = report.started_at
            save()
        if self.push_suppressions:
            report.pushed = self._push(account, report)

    def _session(self, report: ReconcileReport) -> AbstractContextManager[Session]:
        return reading(self.database) if report.dry_run else transaction(self.database)

    def _apply_page(
        self,
        session: Session,
        listing: SuppressionListing,
        page: Sequence[ListEntry],
        findings: ReconcileFindings,
        *,
        dry_run: bool,
    ) -> list[ListEntry]:
        """Suppress the addresses of a page; returns the entries that have to leave the list."""
        reason = REASONS[listing]
        hashed_entries = [
            (hashed, entry) for entry in page if (hashed := self.hash_of(entry.email)) is not None
        ]
        findings.listed += len(page)
        findings.unreadable += len(page) - len(hashed_entries)
        hashes = [hashed for hashed, _ in hashed_entries]
        suppressed = suppression.reasons_of(session, hashes)
        opted_in = consent_records.latest_opt_ins(session, hashes, lock=not dry_run)
        removals = list_removal.removals(session, hashes)
        outdated, proofs = [], {}
        for hashed, entry in hashed_entries:
            is_outdated = hashed in opted_in and opted_in[hashed] > entry.at + CLOCK_TOLERANCE
            removal = removals.get(hashed)
            if reason is not None and removal is not None:
                is_outdated = is_outdated or removal.overrides(reason, entry.at, listed=True)
            if is_outdated and hashed not in suppressed:
                outdated.append(entry)
            elif is_outdated or reason is None:
                findings.known += hashed in suppressed
            elif hashed not in suppressed or suppression.is_stronger(reason, suppressed[hashed]):
                proofs[hashed] = Proof(entry.at, _evidence(listing, entry))
            else:
                findings.known += 1
        findings.new_here += len(proofs)
        if reason is not None and not dry_run:
            suppression.add_with_proofs(session, proofs, reason)
        return outdated

    def _still_outdated(
        self, report: ReconcileReport, entries: Sequence[ListEntry]
    ) -> list[ListEntry]:
        """The entries whose addresses were not suppressed while the list was read."""
        hashes = {entry: self.hash_of(entry.email) for entry in entries}
        with self._session(report) as session:
            suppressed = suppression.reasons_of(session, [h for h in hashes.values() if h])
        return [entry for entry, hashed in hashes.items() if hashed not in suppressed]

    def _push(self, account: Account, report: ReconcileReport) -> int:
        """Push the unsubscribes since the last run to SendGrid's list; returns how many."""
        pushed, after = 0, b""
        same_address = _subscriber.c.address_hash == _suppression.c.address_hash
        unsubscribed = select(_suppression.c.address_hash, _subscriber.c.email)
        unsubscribed = unsubscribed.join(_subscriber, same_address).where(
            _suppression.c.reason.in_(_PUSHED), ~_suppression.c.evidence.startswith(_EVIDENCE)
        )
        if report.since is not None:
            unsubscribed = unsubscribed.where(_suppression.c.at >= report.since)
        unsubscribed = unsubscribed.order_by(_suppression.c.address_hash).limit(PAGE)
        while True:
            following = unsubscribed.where(_suppression.c.address_hash > after)
            with reading(self.database) as session:
                rows = session.execute(following).all()
            if not rows:
                return pushed
            if not report.dry_run:
                account.suppress([row.email for row in rows])
            pushed, after = pushed + len(rows), rows[-1].address_hash


def _tell(session: Session, run_id: int, report: ReconcileReport) -> None:
    """Write a message to the operators if the run found more differences than usual."""
    if report.repaired <= _TOLERATED:
        return
    new = sum(one.new_here for one in report.lists.values())
    operator_messages.post(
        session,
        MessageKind.SUPPRESSIONS_DIFFERED,
        run_id,
        now=report.started_at,
        detail=f"{new:,} addresses were suppressed only at the provider, and "
        f"{report.repaired - new:,} were on its lists although they opted in again.",
    )


def last_runs(session: Session) -> tuple[Reconciliation | None, Reconciliation | None]:
    """The last run and the last one that finished."""
    newest = select(Reconciliation).order_by(_run.c.id.desc()).limit(1)
    finished = newest.where(_run.c.finished_at.is_not(None))
    return session.scalar(newest), session.scalar(finished)


def _continue_last_run(session: Session, report: ReconcileReport) -> None:
    """Copy into the report the lists that the last run read recently, if it did not finish."""
    last, _ = last_runs(session)
    if last is None or last.finished_at:
        return
    if last.since is not None and (report.since is None or report.since < last.since):
        return
    for name, stored in last.report.get("read", {}).items():
        until = datetime.fromisoformat(stored)
        if until >= report.started_at - _READ_IS_VALID_FOR:
            report.read[SuppressionListing(name)] = until
            report.lists[SuppressionListing(name)] = ReconcileFindings(**last.report["lists"][name])


def _since(session: Session) -> datetime | None:
    """The time from which on the lists have to be read; None for the beginning.

    If a known subscriber opted in again since the last run, all of the lists are read, because
    their entry may be old. ``created_at`` is the time of the first request, so it is before the
    opt-in also for a new subscriber.
    """
    _, finished = last_runs(session)
    if finished is None:
        return None
    since = finished.started_at - _OVERLAP
    opted_in_again = (
        select(_consent.c.id)
        .join(_subscriber, _subscriber.c.id == _consent.c.subscriber_id)
        .where(
            *consent_records.IS_OPT_IN,
            _consent.c.at >= since,
            _subscriber.c.created_at < _consent.c.at,
        )
        .limit(1)
    )
    return since if session.scalar(opted_in_again) is None else None


def _evidence(listing: SuppressionListing, entry: ListEntry) -> str:
    reason = without_addresses(entry.reason).strip()
    source = f"{_EVIDENCE} {listing.replace('_', ' ')}"
    return f"{source}: {reason}" if reason else source
