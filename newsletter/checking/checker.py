"""Every check by its id, and what is done with them: the one way in.

A check is a function of a Case that yields what it found. Its level is a matter of
config/checks.toml, not of the check.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from newsletter.checking import clients, contrast, dead_links, domain, frame, links, reach
from newsletter.checking.case import AskDns, Case
from newsletter.checking.finding import Finding, Found, Level, blocking
from newsletter.checking.manuscript import line_of
from newsletter.checking.plan import Plan
from newsletter.checking.rules import Rule, Rules
from newsletter.database import reading
from newsletter.errors import IssueError, TemplateError
from newsletter.issues.reading import Draft, parse_issue
from newsletter.numbers import whole_number
from newsletter.readiness import Lack, is_example
from newsletter.rendering.render import render
from newsletter.rendering.rendered import House, Rendered
from subscribers.schema import Session

#: In the order in which they are told.
CHECKS: Final[Mapping[str, Callable[[Case], Iterator[Found]]]] = {
    "unsubscribe": frame.unsubscribe,
    "postal_address": frame.postal_address,
    "text_part": frame.text_part,
    "subject": frame.subject,
    "preheader": frame.preheader,
    "size": frame.size,
    "links": links.well_formed,
    "dead_links": dead_links.answering,
    "images": links.images,
    "markup": links.markup,
    "contrast": contrast.contrast,
    "clients": clients.clients,
    "placeholders": reach.placeholders,
    "audience": reach.audience,
    "had_it": reach.had_it,
    "duration": reach.duration,
    "cost": reach.cost,
    "sender_domain": domain.sender_domain,
}
#: The id of what keeps an issue from being read or rendered at all; it always blocks.
FILE = "file"
#: The id of settings with which no mail may leave to people; it always blocks.
SETTINGS = "settings"
_GRAVEST = (Level.BLOCK, Level.WARN, Level.NOTE)


@dataclass(frozen=True)
class Checker:
    """Checks issues of one house by its rules."""

    house: House
    templates: Path
    rules: Rules
    #: Whether mail leaves this machine: then no issue has an example's sender.
    leaves: bool = False
    #: What of the settings keeps mail from leaving.
    unfit: tuple[Lack, ...] = ()

    def check(
        self,
        draft: Draft,
        rendered: Rendered,
        *,
        now: datetime,
        plan: Plan | None = None,
        dns: AskDns | None = None,
        ask_links: bool = False,
        blocking_only: bool = False,
    ) -> list[Finding]:
        """What is to be said of an issue, the gravest first; ``rendered`` is made of ``draft``.

        Without a ``plan`` nothing is asked of the audience, without ``dns`` nothing of the
        sender's domain, and without ``ask_links`` no link is tried out: the rest takes
        milliseconds. ``blocking_only`` runs no check but those that may block.

        Raises SegmentError for a segment of the plan that there is not.
        """
        findings = list(self._settings(draft))
        case = Case(draft, rendered, self.house, self.rules, now, plan, dns, ask_links)
        for check, find in CHECKS.items():
            rule: Rule = getattr(self.rules, check)
            if rule.level == "off" or (blocking_only and rule.level != "block"):
                continue
            for found in find(case):
                level = Level.NOTE if found.is_note else Level(rule.level)
                findings.append(Finding(check, level, found.message, found.line, found.hint))
        return sorted(findings, key=lambda finding: _GRAVEST.index(finding.level))

    def _settings(self, draft: Draft) -> Iterator[Finding]:
        """What no rule can switch off: mail would go out that nobody can answer or leave."""
        for lack in self.unfit:
            yield Finding(SETTINGS, Level.BLOCK, f"{lack.key} {lack.what}", None, lack.remedy)
        for key, address in (("from", draft.from_email), ("reply_to", draft.reply_to)):
            if self.leaves and address and is_example(address):
                message = f"{address} is an example's address"
                hint = f"Name a mailbox of your own, or leave the line “{key}” out."
                yield Finding(SETTINGS, Level.BLOCK, message, line_of(draft, key), hint)

    def before_sending(
        self,
        draft: Draft,
        rendered: Rendered,
        database: Engine,
        plan: Callable[[Session], Plan],
        *,
        now: datetime,
        dns: AskDns | None,
    ) -> list[Finding]:
        """What keeps the issue from being sent, links and DNS among it if they may block."""
        with reading(database) as session:
            found = self.check(draft, rendered, now=now, plan=plan(session), blocking_only=True)
        # Nobody outside is asked while the database waits.
        return blocking(found) or blocking(
            self.check(draft, rendered, now=now, dns=dns, ask_links=True, blocking_only=True)
        )

    def check_text(
        self,
        text: str,
        *,
        name: str,
        now: datetime,
        plan: Plan | None = None,
        dns: AskDns | None = None,
        ask_links: bool = False,
    ) -> list[Finding]:
        """The same of a text that may be no issue yet: what it is refused for is a finding."""
        try:
            draft = parse_issue(text, name=name)
            rendered = render(draft, self.house, templates=self.templates)
        except (IssueError, TemplateError) as error:
            return [_refused(error, name)]
        return self.check(draft, rendered, now=now, plan=plan, dns=dns, ask_links=ask_links)


def _refused(error: IssueError | TemplateError, name: str) -> Finding:
    place = error.place or ""
    line = place.removeprefix(f"{name}:")
    number = whole_number(line)
    if place.startswith(f"{name}:") and number is not None:
        return Finding(FILE, Level.BLOCK, error.message, number, error.hint or "")
    return Finding(FILE, Level.BLOCK, f"{place}: {error.message}", None, error.hint or "")
