"""Tests of variants: a sample gets them first, the rest gets the one that did best.

Who gets what is settled by the plan and never drawn again: a person's place follows from
the issue and the person alone, so that a plan made anew draws the same sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, select, update

from newsletter.db.orm import Session, table_of
from newsletter.errors import IssueError, SendError
from newsletter.issues.parsing.issue_file import Draft
from newsletter.issues.parsing.tracking_flags import Tracked
from newsletter.rendering.rendered import Rendered
from newsletter.sending.models import Batch, Part, Send, Variant

_send, _batch, _variant = table_of(Send), table_of(Batch), table_of(Variant)

#: Labels in the order in which variants are given.
LABELS = "ABCDEFGH"
#: A prime below 2**31: squares of smaller numbers fit both databases' integers.
_PRIME = 2_147_483_647
#: Keys of front matter that a send has once, for all of its variants.
_SHARED = ("tracking", "archive", "topics", "series")


class Measure(StrEnum):
    """By what the winner is chosen."""

    OPENS = "opens"
    CLICKS = "clicks"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class ABTest:
    """How a send tests its variants."""

    __test__ = False  # not one of pytest's

    #: The part of the audience that is in the sample, shared equally by the variants.
    share: float
    by: Measure
    #: From when the sample has left until the winner is chosen and the rest goes out.
    wait: timedelta

    def to_json(self) -> dict[str, Any]:
        """For the send's row."""
        return {"share": self.share, "by": self.by.value, "wait": self.wait.total_seconds()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ABTest | None":
        """The test of a send's row; None where there is none."""
        if not stored:
            return None
        wait = timedelta(seconds=stored["wait"])
        return cls(share=stored["share"], by=Measure(stored["by"]), wait=wait)

    def require(self, tracked: Tracked) -> None:
        """Raise SendError where the winner is chosen by what is not measured."""
        measured = {Measure.OPENS: tracked.opens, Measure.CLICKS: tracked.clicks}
        if measured.get(self.by, True):
            return
        others = [one.value for one in Measure if measured.get(one, True)]
        ways = ["me" if one == Measure.OPERATOR.value else one for one in others]
        raise SendError(
            f"no winner can be chosen by {self.by}: {self.by} are not measured in this send",
            place="test of variants",
            hint=f"Choose it by {' or '.join(ways)} (--winner), or have them measured: "
            f"--{self.by}.",
        )

    def sizes(self, people: int, variants: int) -> list[int]:
        """How many of so many people get each variant in the sample: equal but for one."""
        sample = min(people, max(variants, round(people * self.share)))
        return [sample // variants + (n < sample % variants) for n in range(variants)]


def require_alike(issue: Draft, others: Sequence[Draft]) -> None:
    """Raise IssueError, with file and key, for a variant that says what its send would not do.

    A send measures, reaches and shows by what the issue says; a variant has words of its own.
    """
    for other in others:
        for key in _SHARED:
            if getattr(other, key) != getattr(issue, key):
                lines = other.source.split("\n")[: other.body_line]
                at = next((n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1)
                raise IssueError(
                    f"{key} of this variant differs from that of the issue, {issue.name}",
                    place=f"{other.name}:{at}",
                    hint="Variants differ in their words. What is measured, who gets it, what it "
                    f"is the next of and whether all may read it is one for all: let {key} "
                    "say the same in both files, or leave it out of both.",
                )


def sample_rank(issue_id: int, person: ColumnElement[int]) -> ColumnElement[int]:
    """The person's place in the draw for this issue's sample: scattered, and always the same.

    Squaring modulo a prime scatters numbers that follow each other; ties are few, and whoever
    orders by this orders by the person's id after it.
    """
    shifted = (person + issue_id % 1_000_003 * 7_919) % _PRIME
    return (shifted * shifted) % _PRIME * 48_271 % _PRIME


def write(session: Session, send_id: int, words: Sequence[Rendered]) -> None:
    """Write down what a send says, the first variant first."""
    for label, one in zip(LABELS, words, strict=False):
        session.add(
            Variant(
                send_id=send_id,
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
    """Give the rest of a send the variant of this label; returns how many people that are.

    Raises SendError when there is no such variant, or the winner is chosen already.
    """
    rows = session.execute(
        select(_variant.c.label, _variant.c.id).where(_variant.c.send_id == send_id)
    )
    labels = {row.label: row.id for row in rows}
    if label not in labels:
        raise SendError(
            f"there is no variant {label}",
            place=f"send {send_id}",
            hint=f"There are: {', '.join(sorted(labels))}.",
        )
    chosen = session.execute(
        update(_send)
        .where(_send.c.id == send_id, _send.c.winner.is_(None), _send.c.started_at.is_not(None))
        .values(winner=label)
        .returning(_send.c.id)
    ).one_or_none()
    if chosen is None:
        raise SendError(
            "the winner of its test is chosen already, or it has not started",
            place=f"send {send_id}",
        )
    sizes = session.scalars(
        update(_batch)
        .where(_batch.c.send_id == send_id, _batch.c.part == Part.REST)
        .values(part=Part.WINNER, variant_id=labels[label])
        .returning(_batch.c.size)
    )
    return sum(sizes)
