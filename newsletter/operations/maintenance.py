"""Operations that an operator can start and the service runs regularly: pruning, reconciling.

Each takes many transactions, so the audit entry is written when the work has ended.
"""

from datetime import datetime

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.provider.account import Wait
from newsletter.tracking.retention.prune import PruneReport, prune
from newsletter.tracking.suppression_sync import ReconcileReport


def prune_now(parts: Container, *, by: Actor, now: datetime) -> PruneReport:
    """Delete events and deliveries that are past their retention time."""
    report = prune(parts.database, parts.retention, now=now)
    with transaction(parts.database) as session:
        audit.record(
            session,
            by,
            "old data pruned",
            now=now,
            events=report.events,
            issues=report.issues,
            deliveries=report.deliveries,
        )
    return report


def reconcile(
    parts: Container, *, by: Actor, now: datetime, wait: Wait, whole: bool, dry_run: bool
) -> ReconcileReport:
    """Compare our suppressions with the provider's lists, and repair both.

    ``whole`` reads the lists from their beginning. A ``dry_run`` changes nothing and writes no
    audit entry. Raises ProviderError if the provider did not answer.
    """
    report = parts.reconciler.run(now=now, wait=wait, whole=whole, dry_run=dry_run)
    if not dry_run:
        with transaction(parts.database) as session:
            audit.record(
                session,
                by,
                "suppressions reconciled",
                now=now,
                suppressed=sum(one.new_here for one in report.lists.values()),
                removed_there=sum(one.removed_there for one in report.lists.values()),
            )
    return report
