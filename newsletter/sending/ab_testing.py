"""A/B tests: a sample gets the variants first, and the rest gets the winner.

The plan decides which subscriber gets which variant. A subscriber's rank depends only on the
issue and the subscriber, so a repeated plan draws the same sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, select, update

from newsletter import durations
from newsletter.db.orm import Session, table_of
from newsletter.errors import IssueError, SendError
from newsletter.issues.parsing.issue_file import Draft
from newsletter.issues.parsing.tracking_flags import Tracked
from newsletter.rendering.rendered import Rendered
from newsletter.sending.models import Batch, Part, Send, Variant

_send, _batch, _variant = table_of(Send), table_of(Batch), table_of(Variant)

#: The labels of variants, in their order.
LABELS = "ABCDEFGH"
#: A prime below 2**31: the squares of smaller numbers fit 64-bit integers.
_PRIME = 2_147_483_647
#: Front matter keys that must be the same in all variants of a send.
_SHARED = ("tracking", "archive", "topics", "series")


class Measure(StrEnum):
    """What the winner is chosen by."""

    OPENS = "opens"
    CLICKS = "clicks"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class ABTest:
    """The A/B test of a send."""

    __test__ = False  # pytest must not collect it

    #: The share of the audience in the sample, 0 to 1; the variants split it equally.
    share: float
    by: Measure
    #: The time between the sample's departure and the choice of the winner.
    wait: timedelta

    def to_json(self) -> dict[str, Any]:
        """The JSON value of ``send.test``."""
        return {"share": self.share, "by": self.by.value, "wait": self.wait.total_seconds()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ABTest | None":
        """The test stored in ``send.test``; None if there is none."""
        if not stored:
            return None
        wait = timedelta(seconds=stored["wait"])
        return cls(share=stored["share"], by=Measure(stored["by"]), wait=wait)

    def require(self, tracked: Tracked) -> None:
        """Raise SendError if the winner is chosen by a measure that is not tracked."""
        measured = {Measure.OPENS: tracked.opens, Measure.CLICKS: tracked.clicks}
        if measured.get(self.by, True):
            return
        ways = [word for word, one in WINNERS.items() if measured.get(one, True)]
        raise SendError(
            f"no winner can be chosen by {self.by}: {self.by} are not measured in this send",
            place="A/B test",
            hint=f"Choose the winner by {' or '.join(ways)} (--winner), or measure {self.by}: "
            f"--{self.by}.",
        )

    def sizes(self, people: int, variants: int) -> list[int]:
        """How many subscribers of the sample get each variant; sizes differ by one at most."""
        sample = min(people, max(variants, round(people * self.share)))
        return [sample // variants + (n < sample % variants) for n in range(variants)]


#: The defaults of a test's options, as operators write them.
SAMPLE: Final = "20%"
WINNER: Final = "opens"
AFTER: Final = "4h"
#: What operators call the ways to choose the winner.
WINNERS: Final[Mapping[str, Measure]] = {
    "opens": Measure.OPENS,
    "clicks": Measure.CLICKS,
    "me": Measure.OPERATOR,
}


def parse_test(
    others: int, *, names: Mapping[str, str], sample: str, winner: str, after: str
) -> ABTest | None:
    """The A/B test of these options; None if the send has no other variants.

    SendError names a wrong option by its name in ``names``.
    """
    if not others:
        return None
    if others >= len(LABELS):
        raise SendError(
            f"there are {others + 1} variants",
            place=names["subject"],
            hint=f"A test has {len(LABELS)} variants at most, with the issue itself.",
        )
    if winner not in WINNERS:
        raise SendError(
            "unknown way to choose a winner",
            place=names["winner"],
            hint="Write opens, clicks or me.",
        )
    try:
        share = float(sample.strip().removesuffix("%")) / (100 if "%" in sample else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise SendError("not a share", place=names["sample"], hint="Write it like 20%.")
    try:
        wait = durations.parse(after)
    except ValueError as error:
        raise SendError(str(error), place=names["after"]) from None
    return ABTest(share=share, by=WINNERS[winner], wait=wait)


def require_alike(issue: Draft, others: Sequence[Draft]) -> None:
    """Raise IssueError, with file and line, if a variant differs in a shared key.

    A send has one value of each of these keys, that of the issue; variants differ in their text.
    """
    for other in others:
        for key in _SHARED:
            if getattr(other, key) != getattr(issue, key):
                lines = other.source.split("\n")[: other.body_line]
                at = next((n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1)
                raise IssueError(
                    f"{key} of this variant differs from that of the issue, {issue.name}",
                    place=f"{other.name}:{at}",
                    hint="Variants may differ only in their text. Give "
                    f"{key} the same value in both files, or remove it from both.",
                )


def sample_rank(issue_id: int, subscriber_id: ColumnElement[int]) -> ColumnElement[int]:
    """A pseudo-random rank of a subscriber for this issue's sample; it never changes.

    Squaring modulo a prime scatters consecutive ids. Ties are rare: order by the id after it.
    """
    shifted = (subscriber_id + issue_id % 1_000_003 * 7_919) % _PRIME
    return (shifted * shifted) % _PRIME * 48_271 % _PRIME


def write(session: Session, send_id: int, variants: Sequence[tuple[Rendered, int | None]]) -> None:
    """Store the rendered variants of a send, the first variant first.

    Each comes with the id of the other saved issue whose text it is, if there is one.
    """
    for label, (one, issue_id) in zip(LABELS, variants, strict=False):
        session.add(
            Variant(
                send_id=send_id,
                issue_id=issue_id,
                label=label,
                subject=one.subject,
                sender_email=one.from_email,
                sender_name=one.from_name,
                reply_to=one.reply_to,
                html=one.html,
                text=one.text,
                placeholders=one.placeholders.to_json(),
            )
        )
    session.flush()


def set_winner(session: Session, send_id: int, label: str) -> int:
    """Give the rest of a send the variant of this label; returns how many recipients.

    Raises SendError when there is no such variant, when the winner is chosen already, and when
    the send has not started.
    """
    rows = session.execute(
        select(_variant.c.label, _variant.c.id).where(_variant.c.send_id == send_id)
    )
    labels = {row.label: row.id for row in rows}
    if label not in labels:
        raise SendError(
            f"this send has no variant {label}",
            place=f"send {send_id}",
            hint=f"Choose one of: {', '.join(sorted(labels))}.",
        )
    chosen = session.execute(
        update(_send)
        .where(_send.c.id == send_id, _send.c.winner.is_(None), _send.c.started_at.is_not(None))
        .values(winner=label)
        .returning(_send.c.id)
    ).one_or_none()
    if chosen is None:
        raise SendError(
            "the winner is chosen already, or the send has not started",
            place=f"send {send_id}",
        )
    sizes = session.scalars(
        update(_batch)
        .where(_batch.c.send_id == send_id, _batch.c.part == Part.REST)
        .values(part=Part.WINNER, variant_id=labels[label])
        .returning(_batch.c.size)
    )
    return sum(sizes)
