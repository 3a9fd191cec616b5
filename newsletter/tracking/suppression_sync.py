"""Our suppressions and the provider's lists, made to agree.

Who stands on SendGrid's lists is suppressed here, too. Who opted in again here, later than
SendGrid's entry, is taken off its list. Never the reverse: no entry here is lifted.

Reads over HTTP page by page, so it has a transaction for each page instead of one for all.
Everything may be repeated: after a run that was stopped, the next one goes on with the list
at which it stopped. Not with the page, for pages move when entries come and go.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, delete, insert, select, update

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
from newsletter.tracking.events.resubscription import CLOCKS
from newsletter.tracking.models_reconcile import Reconciliation
from subscribers.consent import records as consent_records
from subscribers.consent import suppression
from subscribers.consent.suppression import Proof
from subscribers.email_address import without_addresses
from subscribers.models import Consent, Subscriber, Suppression, SuppressionReason

_run, _suppression = table_of(Reconciliation), table_of(Suppression)
_subscriber, _consent = table_of(Subscriber), table_of(Consent)

#: What standing on a list means; blocks concern one mail, so they are only counted.
REASONS: Final[Mapping[SuppressionListing, SuppressionReason | None]] = {
    SuppressionListing.BOUNCES: SuppressionReason.BOUNCED,
    SuppressionListing.INVALID: SuppressionReason.BOUNCED,
    SuppressionListing.SPAM_REPORTS: SuppressionReason.COMPLAINED,
    SuppressionListing.UNSUBSCRIBES: SuppressionReason.UNSUBSCRIBED,
    SuppressionListing.GROUPS: SuppressionReason.UNSUBSCRIBED,
    SuppressionListing.BLOCKS: None,
}
#: Whoever left is told to SendGrid; what bounced or complained SendGrid has told us.
_TOLD = (SuppressionReason.UNSUBSCRIBED, SuppressionReason.MANUAL)
#: An entry may come onto a list later than its time says.
_OVERLAP = timedelta(days=2)
#: After a failure the next try does not wait for its regular turn.
_SOON = timedelta(hours=1)
#: A list that was read before its run failed counts for so long: the overlap covers it, however
#: often the runs after it fail.
_COUNTS = _OVERLAP / 2
_KEEP = timedelta(days=400)
_EVIDENCE = "SendGrid's list of"


@dataclass(slots=True)
class ReconcileFindings:
    """What was found on one list, in entries."""

    listed: int = 0
    #: Suppressed on both sides already.
    known: int = 0
    #: Suppressed here from now on, or for a stronger reason.
    new_here: int = 0
    #: Taken off SendGrid's list: they opted in here after that.
    removed_there: int = 0
    #: Nobody's address, as we read addresses.
    unreadable: int = 0


@dataclass(slots=True)
class ReconcileReport:
    """The drift that a run found, and repaired unless it was a dry run."""

    started_at: datetime
    #: What came onto the lists since then; None for all of it.
    since: datetime | None
    dry_run: bool
    lists: dict[SuppressionListing, ReconcileFindings] = field(default_factory=dict)
    #: Those that were read to their end, and up to which moment.
    read: dict[SuppressionListing, datetime] = field(default_factory=dict)
    #: Told to SendGrid as unsubscribed; None where that is switched off.
    told: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Figures by list, as they are kept."""
        return {
            "lists": {str(listing): asdict(found) for listing, found in self.lists.items()},
            "read": {str(listing): until.isoformat() for listing, until in self.read.items()},
            "told": self.told,
        }


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What a comparison needs to know."""

    database: Engine
    ask: Ask
    hash_of: HashOf
    #: How often; zero for never.
    every: timedelta
    #: Whether those who left here are put onto SendGrid's list of unsubscribes.
    tell: bool = False

    def due(self, *, now: datetime) -> bool:
        """Whether it is time to compare; one hour after a run that did not finish."""
        if not self.every:
            return False
        last = select(_run.c.started_at, _run.c.finished_at).order_by(_run.c.id.desc()).limit(1)
        with reading(self.database) as session:
            row = session.execute(last).one_or_none()
        if row is None:
            return True
        wait = self.every if row.finished_at else min(self.every, _SOON)
        return bool(row.started_at + wait <= now)

    def run(
        self, *, now: datetime, wait: Wait, whole: bool = False, dry_run: bool = False
    ) -> ReconcileReport:
        """Compare and repair. Raises ProviderError, after writing down that it did not finish."""
        with reading(self.database) as session:
            since = None if whole else _since(session)
            report = ReconcileReport(now, since, dry_run)
            if not (whole or dry_run):
                _go_on(session, report)
        if dry_run:
            self._compare(report, wait, lambda: None)
            return report
        with transaction(self.database) as session:
            session.execute(delete(_run).where(_run.c.started_at < now - _KEEP))
            begun = insert(_run).values(started_at=now, since=since, report={}, error="")
            number = session.execute(begun.returning(_run.c.id)).scalar_one()

        def note(**values: Any) -> None:  # noqa: ANN401 (columns)
            with transaction(self.database) as session:
                this = update(_run).where(_run.c.id == number)
                session.execute(this.values(report=report.as_json(), **values))

        values: dict[str, Any] = {"error": "it stopped without a word"}
        try:
            self._compare(report, wait, note)
            values = {"finished_at": now}
        except ProviderError as error:
            values = {"error": str(error)[:1000]}
            raise
        finally:
            note(**values)
        return report

    def _compare(self, report: ReconcileReport, wait: Wait, note: Callable[[], None]) -> None:
        account = Account(patient(self.ask, wait))
        for listing in REASONS:
            if listing in report.read:
                continue
            found = report.lists[listing] = ReconcileFindings()
            back: list[ListEntry] = []
            for page in account.pages(listing, since=report.since, until=report.started_at):
                with self._session(report) as session:
                    back += self._settle(session, listing, page, found, dry_run=report.dry_run)
            # Only now: what is removed from a list moves up what stands behind it.
            for begin in range(0, len(back), PAGE):
                for entry in self._still_back(report, back[begin : begin + PAGE]):
                    found.removed_there += 1
                    if not report.dry_run:
                        account.remove(listing, entry)
            report.read[listing] = report.started_at
            note()
        if self.tell:
            report.told = self._tell(account, report)

    def _session(self, report: ReconcileReport) -> AbstractContextManager[Session]:
        return reading(self.database) if report.dry_run else transaction(self.database)

    def _settle(
        self,
        session: Session,
        listing: SuppressionListing,
        page: Sequence[ListEntry],
        found: ReconcileFindings,
        *,
        dry_run: bool,
    ) -> list[ListEntry]:
        """Suppress whom a page names; returns those who are back."""
        reason = REASONS[listing]
        named = [(hashed, e) for e in page if (hashed := self.hash_of(e.email)) is not None]
        found.listed += len(page)
        found.unreadable += len(page) - len(named)
        hashes = [hashed for hashed, _ in named]
        here = suppression.reasons_of(session, hashes)
        opted_in = consent_records.latest_opt_ins(session, hashes, lock=not dry_run)
        removals = list_removal.removals(session, hashes)
        back, proofs = [], {}
        for hashed, entry in named:
            later = hashed in opted_in and opted_in[hashed] > entry.at + CLOCKS
            removal = removals.get(hashed)
            if reason is not None and removal is not None:
                later = later or removal.ends(reason, entry.at, listed=True)
            if later and hashed not in here:
                back.append(entry)
            elif later or reason is None:
                found.known += hashed in here
            elif hashed not in here or suppression.is_stronger(reason, here[hashed]):
                proofs[hashed] = Proof(entry.at, _evidence(listing, entry))
            else:
                found.known += 1
        found.new_here += len(proofs)
        if reason is not None and not dry_run:
            suppression.add_with_proofs(session, proofs, reason)
        return back

    def _still_back(self, report: ReconcileReport, entries: Sequence[ListEntry]) -> list[ListEntry]:
        """Those who have not left again while the list was read."""
        hashes = {entry: self.hash_of(entry.email) for entry in entries}
        with self._session(report) as session:
            here = suppression.reasons_of(session, [hashed for hashed in hashes.values() if hashed])
        return [entry for entry, hashed in hashes.items() if hashed not in here]

    def _tell(self, account: Account, report: ReconcileReport) -> int:
        """Put onto SendGrid's list who left here since the last run; returns how many."""
        told, after = 0, b""
        person = _subscriber.c.address_hash == _suppression.c.address_hash
        leavers = select(_suppression.c.address_hash, _subscriber.c.email).join(_subscriber, person)
        leavers = leavers.where(
            _suppression.c.reason.in_(_TOLD), ~_suppression.c.evidence.startswith(_EVIDENCE)
        )
        if report.since is not None:
            leavers = leavers.where(_suppression.c.at >= report.since)
        leavers = leavers.order_by(_suppression.c.address_hash).limit(PAGE)
        while True:
            with reading(self.database) as session:
                rows = session.execute(leavers.where(_suppression.c.address_hash > after)).all()
            if not rows:
                return told
            if not report.dry_run:
                account.suppress([row.email for row in rows])
            told, after = told + len(rows), rows[-1].address_hash


def last_runs(session: Session) -> tuple[Reconciliation | None, Reconciliation | None]:
    """The last run and the last one that finished."""
    newest = select(Reconciliation).order_by(_run.c.id.desc()).limit(1)
    finished = newest.where(_run.c.finished_at.is_not(None))
    return session.scalar(newest), session.scalar(finished)


def _go_on(session: Session, report: ReconcileReport) -> None:
    """Take over what was read lately, if the last run did not finish."""
    last, _ = last_runs(session)
    if last is None or last.finished_at:
        return
    if last.since is not None and (report.since is None or report.since < last.since):
        return
    for name, moment in last.report.get("read", {}).items():
        until = datetime.fromisoformat(moment)
        if until >= report.started_at - _COUNTS:
            report.read[SuppressionListing(name)] = until
            report.lists[SuppressionListing(name)] = ReconcileFindings(**last.report["lists"][name])


def _since(session: Session) -> datetime | None:
    """From when on the lists have to be read; None for the beginning.

    Somebody who came back may stand on a list since long ago: then all of it is read. Their
    row is older than their opting in, also where it is new: it dates from when they asked.
    """
    _, finished = last_runs(session)
    if finished is None:
        return None
    since = finished.started_at - _OVERLAP
    back = (
        select(_consent.c.id)
        .join(_subscriber, _subscriber.c.id == _consent.c.subscriber_id)
        .where(
            *consent_records.IS_OPT_IN,
            _consent.c.at >= since,
            _subscriber.c.created_at < _consent.c.at,
        )
        .limit(1)
    )
    return since if session.scalar(back) is None else None


def _evidence(listing: SuppressionListing, entry: ListEntry) -> str:
    reason = without_addresses(entry.reason).strip()
    said = f"{_EVIDENCE} {listing.replace('_', ' ')}"
    return f"{said}: {reason}" if reason else said
