"""The comparison: what the ledger says of each person, against what the sandbox took."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, Row, func, select

from newsletter.db.engine import reading
from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Batch, Delivery, ForgottenRecipient, Send
from newsletter.sending.states import BatchState, DeliveryState
from subscribers.models import Subscriber

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_subscriber, _recipient = table_of(Subscriber), table_of(ForgottenRecipient)

#: States that say that the provider has the mail.
HANDED: Final = frozenset(
    {
        DeliveryState.ACCEPTED,
        DeliveryState.DELIVERED,
        DeliveryState.BOUNCED,
        DeliveryState.DROPPED,
        DeliveryState.COMPLAINED,
    }
)
#: States that say that it has not, with a reason in the row.
WITHOUT: Final = frozenset({DeliveryState.SKIPPED, DeliveryState.REJECTED})
#: Batches that surely have not left: nobody of them may have the mail.
_WAITING: Final = frozenset({BatchState.PENDING, BatchState.CLAIMED})
_OPEN: Final = _WAITING | {BatchState.IN_FLIGHT}


class Line(NamedTuple):
    """One delivery."""

    batch: int
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger of one send, read in one view."""

    #: "" when there is no such send.
    send: str
    planned: int
    #: How many people of the segments the plan left out.
    left_out: int
    people: Mapping[int, Line]
    batches: Mapping[int, str]
    #: Why a batch stands where it stands, in the ledger's words.
    details: Mapping[int, str] = field(default_factory=dict)
    #: Why the send is paused, if it is.
    reason: str = ""
    #: Who was in a request before the database was set back behind the send → whether its answer
    #: came.
    forgotten: Mapping[int, bool] = field(default_factory=dict)

    def of(self, *states: BatchState) -> list[int]:
        """Numbers of the batches in these states."""
        return sorted(number for number, state in self.batches.items() if state in states)

    def within(self, batch: int) -> list[int]:
        """People of a batch."""
        return [person for person, line in self.people.items() if line.batch == batch]

    @property
    def quiet(self) -> bool:
        """Whether nothing more happens by itself: doubt, if any, is all that is open."""
        if self.of(BatchState.CLAIMED, BatchState.IN_FLIGHT):
            return False
        match self.send:
            case "sent" | "paused":
                return True
            case "sending":
                # Without a doubt it has to call itself sent.
                return not self.of(BatchState.PENDING) and bool(self.of(BatchState.UNCERTAIN))
            case "cancelled":
                return not self.of(BatchState.PENDING)
            case _:
                return False

    @property
    def waiting(self) -> bool:
        """Whether there is something left to send."""
        return self.send in {"", "scheduled", "planning"} or (
            self.send in {"sending", "paused"} and bool(self.of(BatchState.PENDING))
        )


def read(database: Engine, send_id: int) -> Books:
    """What the ledger says now."""
    with reading(database) as session:
        found = session.execute(
            select(_send.c.state, _send.c.planned, _send.c.excluded_counts, _send.c.reason).where(
                _send.c.id == send_id
            )
        ).one_or_none()
        people = session.execute(
            select(_delivery.c.subscriber_id, _delivery.c.batch, _delivery.c.state,
                   _delivery.c.reason).where(_delivery.c.send_id == send_id)
        )  # fmt: skip
        batches = session.execute(
            select(_batch.c.number, _batch.c.state, _batch.c.detail).where(
                _batch.c.send_id == send_id
            )
        ).all()
        return Books(
            found.state if found else "",
            found.planned if found else 0,
            sum(found.excluded_counts.values()) if found else 0,
            {row[0]: Line(*row[1:]) for row in people},
            {row[0]: row[1] for row in batches},
            {row[0]: row[2] for row in batches},
            found.reason if found else "",
            {row[0]: row[2] for row in _forgotten(session)},
        )


def _forgotten(session: Session) -> Sequence[Row[Any]]:
    prefix = func.substr(_subscriber.c.address_hash, 1, 8)
    return session.execute(
        select(_subscriber.c.id, _recipient.c.batch, _recipient.c.answered).join(
            _recipient, _recipient.c.address_prefix == prefix
        )
    ).all()


def forgotten_doubts(database: Engine) -> dict[int, list[int]]:
    """Batch of a forgotten send without an answer → its people."""
    found: dict[int, list[int]] = {}
    with reading(database) as session:
        for person, batch, answered in _forgotten(session):
            if not answered:
                found.setdefault(batch, []).append(person)
    return found


def latest(database: Engine) -> int:
    """The number of the latest send; 0 when there is none."""
    with reading(database) as session:
        return session.scalar(select(func.max(_send.c.id))) or 0


@dataclass(slots=True)
class Audience:
    """Who should get the issue, and who of them has left since: these may stand in the plan."""

    meant: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Finding:
    """What a comparison brought to light."""

    accepted: int = 0
    #: People who were handed over more than once.
    duplicates: list[int] = field(default_factory=list)
    #: People whom the provider does not have, though no list says so.
    missing: list[int] = field(default_factory=list)
    #: People in a list that says why not: rejected, skipped, or in a batch in doubt.
    rejected: int = 0
    skipped: int = 0
    left_out: int = 0
    doubtful: int = 0
    #: Whatever else does not hold, in words.
    wrong: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether the promise holds."""
        return not (self.duplicates or self.missing or self.wrong)

    def __str__(self) -> str:
        parts = [f"{len(self.duplicates)} twice {self.duplicates[:10]}"] if self.duplicates else []
        if self.missing:
            parts.append(f"{len(self.missing)} missing {self.missing[:10]}")
        return "; ".join([*parts, *self.wrong[:5]]) or "sound"


def compare(books: Books, taken: Counter[int], audience: Audience, *, final: bool) -> Finding:
    """Hold the ledger against what was taken, person by person, while no process runs.

    ``final`` says that nothing more will happen: then nobody may still be planned, but for
    people of batches in doubt of a cancelled send.
    """
    found = Finding(accepted=sum(taken.values()))
    found.duplicates = sorted(person for person, times in taken.items() if times > 1)
    planned, excluded = bool(books.people), 0
    for person in sorted(audience.meant | set(books.people) | set(taken)):
        line, has = books.people.get(person), taken[person] > 0
        if line is not None:
            _judge(found, person, line, books.batches.get(line.batch), has=has, final=final)
        elif person in books.forgotten:
            excluded += 1
            if not has and books.forgotten[person]:
                found.wrong.append(f"{person} is said to have had it, and has not")
            found.doubtful += not has
        elif has:
            found.wrong.append(f"{person} has it and stands in no plan")
        elif (planned and person in audience.left) or (
            # It was cancelled before it was planned, so nobody was ever in it.
            not planned and books.send == "cancelled"
        ):
            found.left_out += 1
        elif planned or final:
            found.missing.append(person)
    if planned and found.left_out + excluded != books.left_out:
        found.wrong.append(
            f"the plan left out {books.left_out}; {found.left_out} had left, {excluded} had it"
        )
    if planned and books.planned != len(books.people):
        found.wrong.append(f"planned {books.planned}, but there are {len(books.people)} deliveries")
    return found


def _judge(
    found: Finding, person: int, line: Line, batch: str | None, *, has: bool, final: bool
) -> None:
    where = f"{person} (batch {line.batch}, {batch}) is {line.state}"
    if line.state in HANDED:
        if not has:
            found.missing.append(person)
            found.wrong.append(f"{where}, and the provider does not have it")
    elif line.state in WITHOUT:
        found.rejected += line.state == DeliveryState.REJECTED
        found.skipped += line.state == DeliveryState.SKIPPED
        if has:
            found.wrong.append(f"{where} and yet has it")
        elif not line.reason:
            found.wrong.append(f"{where} without a reason")
    elif batch == BatchState.UNCERTAIN:
        found.doubtful += 1
    elif has and batch != BatchState.IN_FLIGHT:
        found.wrong.append(f"{where} and yet has it: will get it twice")
    elif final or batch not in _OPEN:
        # Planned for ever, in a batch that nobody will send and no list names.
        found.missing.append(person)
        found.wrong.append(f"{where} for ever, and stands in no list")
