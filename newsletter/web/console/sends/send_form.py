"""The form for a new send: its fields, and the options that they stand for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import Form

from newsletter.errors import SendError
from newsletter.sending import ab_testing
from newsletter.sending.ab_testing import ABTest
from newsletter.sending.pacing.timetable_parsing import parse_start
from newsletter.web.console.sends.pace_form import PACE_FIELDS, PACE_LABELS

_Word = Annotated[str, Form(max_length=100)]
_Names = Annotated[Sequence[str], Form(max_length=200)]

#: What the form calls each option of a send. Errors name an option by its label.
LABELS: Final[Mapping[str, str]] = {
    **PACE_LABELS,
    "issue": "Issue",
    "segment": "Segments",
    "at": "Day and time",
    "subject": "Other subjects",
    "variant": "Other issues",
    "sample": "Sample",
    "winner": "Choose the winner by",
    "after": "Time until the choice",
}
#: The fields of these options, where they have other names.
FIELDS: Final[Mapping[str, str]] = {**PACE_FIELDS, "subject": "subjects"}


@dataclass(frozen=True, slots=True)
class SendForm:
    """What was chosen and typed, besides the pace."""

    issue: _Word = ""
    segment: _Names = ()
    excluded: _Names = ()
    #: ``now`` or ``at``.
    when: _Word = "now"
    #: A time of the site's zone, as <input type=datetime-local> writes it.
    at: _Word = ""
    local_time: _Word = ""
    #: ``yes``, ``no``, or empty: as the issue says.
    clicks: _Word = ""
    opens: _Word = ""
    #: The A/B test: a subject on each line, the slugs of other issues, and how the winner is
    #: chosen. Without subjects and issues there is no test.
    subjects: Annotated[str, Form(max_length=3000)] = ""
    variant: _Names = ()
    sample: _Word = ab_testing.SAMPLE
    winner: _Word = ab_testing.WINNER
    after: _Word = ab_testing.AFTER
    #: ``yes`` for a text that differs from what was sent under the issue's slug before.
    same_issue: _Word = ""
    #: ``yes`` to send although a blocking check reports an error.
    despite_findings: _Word = ""
    #: The revisions of the issue and of its variants, and the issue's latest send, as the preview
    #: of the recipients showed them.
    revision: _Word = ""
    variant_revisions: _Word = ""
    latest: _Word = ""

    def start(self, zone: ZoneInfo, now: datetime) -> tuple[datetime, date | None]:
        """When it starts, and the day of its local time if there is one."""
        at = self.at.strip()
        if self.when != "at":
            at = ""
        elif not at:
            raise SendError("choose a day and a time", place=LABELS["at"])
        elif self.local_time:
            # Recipients get it at the local time of the day in this field.
            at = at.partition("T")[0]
        return parse_start(at, self.local_time, names=LABELS, now=now, zone=zone)

    @property
    def other_subjects(self) -> list[str]:
        """The subjects of variants, in the order of their lines."""
        return [line.strip() for line in self.subjects.splitlines() if line.strip()]

    @property
    def has_test(self) -> bool:
        """Whether there are variants beside the issue itself."""
        return bool(self.other_subjects or self.variant)

    def test(self) -> ABTest | None:
        """The A/B test of these fields; SendError names the field that is wrong."""
        if self.issue in self.variant:
            raise SendError(
                "the issue itself is variant A", place=LABELS["variant"], hint="Choose others."
            )
        return ab_testing.parse_test(
            len(self.other_subjects) + len(self.variant),
            names=LABELS,
            sample=self.sample,
            winner=self.winner,
            after=self.after,
        )


def hidden_fields(*parts: object) -> Iterator[tuple[str, str]]:
    """Names and values of all fields, for a page that carries them on."""
    for part in parts:
        for name, value in asdict(part).items():  # type: ignore[call-overload]
            values = [value] if isinstance(value, str) else value
            yield from ((name, one) for one in values)
