"""Bringing a restored database up to what this machine remembers of its departures.

The journal tells of each batch who was in its request and what came of it. Whatever part
of the plan the database has lost is written again from there, so that a plan made anew
leaves these people out.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, or_, select, update

from newsletter.sending import evidence, ledger, oversight
from newsletter.sending.journal import BACK, TAKEN, Journal
from newsletter.sending.ledger import Barred
from newsletter.sending.models import Batch, Delivery, Part, Send
from newsletter.sending.states import MISSED, BatchState, DeliveryState, SendState
from subscribers import consent, suppression
from subscribers.models import Suppression, SuppressionReason
from subscribers.schema import Session, insert_into, table_of
from subscribers.suppression import Proof, Suppressed

_log = logging.getLogger(__name__)
_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_suppression = table_of(Suppression)

_TAKEN = "by the journal, the provider took it"
_UNANSWERED = (
    "by the journal it left unanswered; the database, restored from a backup, did not know"
)
_LEFT = "by the journal; the database, restored from a backup, did not know"
#: Addresses looked up at once.
_CHUNK = 1000
#: Deliveries that a line of the journal may say more about.
_OPEN = frozenset({DeliveryState.PLANNED, *MISSED})


@dataclass(slots=True)
class Recalled:
    """What the journal knew better than the database, in batches."""

    accepted: int = 0
    doubtful: int = 0
    #: Sends that the database has lost as a whole.
    unknown_sends: int = 0
    #: People who had left, or whose address had failed.
    suppressed: int = 0


def compare(session: Session, journal: Journal, *, now: datetime) -> Recalled:
    """Write down what this machine knows it has handed over and the database does not.

    Batches that were taken become accepted, those that left unanswered uncertain; people
    whom it suppressed are suppressed.
    """
    recalled, known = Recalled(), journal.entries()
    who = list(journal.suppressions().items())
    for begin in range(0, len(who), _CHUNK):
        recalled.suppressed += _suppress_again(session, dict(who[begin : begin + _CHUNK]))
    ids = sorted({send_id for send_id, _ in known})
    rows = session.execute(select(_send).where(_send.c.id.in_(ids))).all() if ids else []
    sends = {(row.id, row.created_at.astimezone(UTC).isoformat()): row for row in rows}
    for key, lines in known.items():
        send = sends.get(key)
        if send is None:
            recalled.unknown_sends += 1
            _log.warning("the journal knows send %s, made %s; this database does not", *key)
        elif send.folded_at is None:
            _recall(session, send, lines, recalled, now)
    oversight.finish(session, now=now)
    return recalled


def _suppress_again(session: Session, who: Mapping[bytes, Sequence[Suppressed]]) -> int:
    """Suppress these unless they are, or have opted in again since; returns how many."""
    rows = session.execute(select(_suppression).where(_suppression.c.address_hash.in_(who)))
    here = {row.address_hash: row for row in rows}
    lost = {
        hashed: missing
        for hashed, words in who.items()
        if (missing := [one for one in words if _is_lost(one, here.get(hashed))])
    }
    back = consent.opted_in(session, list(lost)) if lost else {}
    proofs: dict[SuppressionReason, dict[bytes, Proof]] = defaultdict(dict)
    for hashed, missing in lost.items():
        for one in missing:
            if hashed not in back or back[hashed] <= one.at:
                proofs[SuppressionReason(one.reason)][hashed] = Proof(one.at, _LEFT)
    # The weakest first, so that an operator's word has the others beneath it.
    for reason in SuppressionReason:
        suppression.add_proved(session, proofs[reason], reason)
    return len(set().union(*proofs.values()))


def _is_lost(one: Suppressed, here: Row[Any] | None) -> bool:
    reason = SuppressionReason(one.reason)
    if here is None or suppression.is_stronger(reason, here.reason):
        return True
    hides = here.reason == SuppressionReason.MANUAL and reason != SuppressionReason.MANUAL
    return hides and (here.beneath is None or suppression.is_stronger(reason, here.beneath))


def _recall(
    session: Session,
    send: Row[Any],
    lines: dict[int, dict[str, Any]],
    recalled: Recalled,
    now: datetime,
) -> None:
    rows = {
        row.number: row
        for row in session.execute(select(_batch).where(_batch.c.send_id == send.id))
    }
    before = recalled.accepted + recalled.doubtful
    for number, line in sorted(lines.items()):
        row = rows.get(number)
        if line["what"] == BACK or (row is not None and not _behind(row, line)):
            continue
        _rewrite(session, send, number, line, row, beyond=max(lines))
        if line["what"] == TAKEN:
            evidence.prove(session, [(send.id, number)], now=now, detail=_TAKEN, finish=False)
            recalled.accepted += 1
        else:
            evidence.left_unanswered(session, send.id, [number], now=now, detail=_UNANSWERED)
            recalled.doubtful += 1
    if recalled.accepted + recalled.doubtful > before:
        _count_again(session, send)
        if send.state == SendState.SENT:
            # It was retried since the backup: it is sent once more when all of that adds up.
            oversight.move_send(session, send.id, SendState.SENDING, finished_at=None)


def _rewrite(
    session: Session,
    send: Row[Any],
    number: int,
    line: dict[str, Any],
    row: Row[Any] | None,
    *,
    beyond: int,
) -> None:
    """Let the batch hold those who were in its request, and nobody else who is planned."""
    people, barred = line["people"], [Barred(person=p, why=why) for p, why in line["skip"]]
    members = [*people, *(one["person"] for one in barred)]
    if row is None:
        session.execute(insert(_batch).values(**_lost(send, number, line)))
    else:
        _move_others(session, send, row, members, beyond=beyond)
    written = insert_into(session, _delivery)
    session.connection().execute(
        written.on_conflict_do_update(
            index_elements=["issue_id", "subscriber_id"],
            set_={
                "send_id": written.excluded.send_id,
                "batch": written.excluded.batch,
                "state": written.excluded.state,
                "reason": None,
            },
            # Comparisons one by one: a statement for many rows takes no list.
            where=or_(*(_delivery.c.state == state for state in sorted(_OPEN))),
        ),
        [
            {
                "issue_id": send.issue_id,
                "subscriber_id": person,
                "send_id": send.id,
                "batch": number,
                "state": DeliveryState.PLANNED,
            }
            for person in members
        ],
    )
    ledger.skip(session, send.issue_id, barred)


def _lost(send: Row[Any], number: int, line: dict[str, Any]) -> dict[str, Any]:
    left_at = datetime.fromisoformat(line["at"])
    return {
        "send_id": send.id,
        "number": number,
        "variant_id": line["variant"],
        "part": Part.SAMPLE if send.test else Part.WHOLE,
        "zone": "",
        "state": BatchState.CLAIMED,
        "size": len(line["people"]),
        "not_before": left_at,
        "attempt": line["attempt"],
        "departed_at": left_at,
        "detail": "",
    }


def _move_others(
    session: Session, send: Row[Any], row: Row[Any], members: Sequence[int], *, beyond: int
) -> None:
    """Whoever was planned here and was not in the request gets a batch of their own."""
    others = session.scalars(
        select(_delivery.c.subscriber_id).where(
            _delivery.c.send_id == send.id,
            _delivery.c.batch == row.number,
            _delivery.c.state == DeliveryState.PLANNED,
            _delivery.c.subscriber_id.not_in(members),
        )
    ).all()
    if not others:
        return
    last = select(func.max(_batch.c.number)).where(_batch.c.send_id == send.id)
    # The journal may know batches that the database has lost, under numbers that follow.
    number = max(session.execute(last).scalar_one(), beyond) + 1
    fresh = {"number": number, "state": BatchState.PENDING, "size": len(others)}
    session.execute(
        insert(_batch).values(**{**row._mapping, **fresh, "attempt": 0, "resent": False})
    )
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == send.issue_id, _delivery.c.subscriber_id.in_(others))
        .values(batch=number)
    )


def _count_again(session: Session, send: Row[Any]) -> None:
    """Sizes and the plan's sum, after people were written again or moved."""
    mine = select(func.count()).where(_delivery.c.send_id == send.id)
    sizes = mine.where(_delivery.c.batch == _batch.c.number).scalar_subquery()
    session.execute(update(_batch).where(_batch.c.send_id == send.id).values(size=sizes))
    if send.started_at is not None:
        session.execute(
            update(_send)
            .where(_send.c.id == send.id)
            .values(planned=mine.scalar_subquery() + _send.c.handed_on)
        )


def _behind(row: Row[Any], line: dict[str, Any]) -> bool:
    """Whether the database stands before the moment that the line tells of."""
    if row.state in {BatchState.ACCEPTED, BatchState.REJECTED, BatchState.SKIPPED}:
        return False
    if row.attempt != line["attempt"]:
        return bool(row.attempt < line["attempt"])
    # A crash between the answer and its settlement, too.
    return bool(line["what"] == TAKEN or row.state == BatchState.CLAIMED)
