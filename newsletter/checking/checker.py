"""Every check by its id, and what is done with them: the one way in.

A check is a function of a Case that yields what it found. Its level is a matter of
config/checks.toml, not of the check.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from newsletter.checking import audience_checks, envelope_checks, link_checks, markup_checks
from newsletter.checking.context import AskDns, CheckContext
from newsletter.checking.design import client_support, contrast
from newsletter.checking.finding import CheckFinding, Finding, Level, blocking
from newsletter.checking.manuscript import Manuscript, line_of
from newsletter.checking.network import dead_links, sender_dns
from newsletter.checking.planned_send import Plan
from newsletter.checking.rules import CheckRule, CheckRules
from newsletter.db.engine import reading
from newsletter.db.orm import Session
from newsletter.errors import IssueError, TemplateError, UserError
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.numbers import whole_number
from newsletter.readiness import SettingProblem, is_example
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication, Rendered

#: In the order in which they are told.
CHECKS: Final[Mapping[str, Callable[[CheckContext], Iterator[CheckFinding]]]] = {
    "unsubscribe": envelope_checks.unsubscribe,
    "postal_address": envelope_checks.postal_address,
    "text_part": envelope_checks.text_part,
    "subject": envelope_checks.subject,
    "preheader": envelope_checks.preheader,
    "size": envelope_checks.size,
    "links": link_checks.well_formed,
    "dead_links": dead_links.dead_links_of,
    "images": link_checks.images,
    "markup": markup_checks.markup,
    "contrast": contrast.contrast,
    "clients": client_support.clients,
    "placeholders": audience_checks.placeholders,
    "audience": audience_checks.audience,
    "had_it": audience_checks.had_it,
    "duration": audience_checks.duration,
    "cost": audience_checks.cost,
    "sender_domain": sender_dns.sender_domain,
}
#: Those that look at the issue alone: they ask neither people nor DNS nor the web.
ALONE: Final = frozenset(
    {"unsubscribe", "postal_address", "text_part", "subject", "preheader", "size", "links"}
    | {"images", "markup", "contrast", "clients"}
)
#: The id of what keeps an issue from being read or rendered at all; it always blocks.
FILE = "file"
#: The id of settings with which no mail may leave to people; it always blocks.
SETTINGS = "settings"
#: No check of ``ALONE`` asks what time it is.
_AT_ANY_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GRAVEST = (Level.BLOCK, Level.WARN, Level.NOTE)


@dataclass(frozen=True, slots=True)
class ExaminedIssue:
    """All of an issue that depends on it alone, which one process can make for another."""

    draft: Draft
    rendered: Rendered
    manuscript: Manuscript
    #: What each check of ``ALONE`` found that is not switched off.
    found: Mapping[str, Sequence[CheckFinding]]


@dataclass(frozen=True)
class Checker:
    """Checks issues of one publication by its rules."""

    publication: Publication
    templates: Path
    rules: CheckRules
    #: Whether mail leaves this machine: then no issue has an example's sender.
    sends_real_email: bool = False
    #: What of the settings keeps mail from leaving.
    unfit: tuple[SettingProblem, ...] = ()

    def examine(self, draft: Draft) -> ExaminedIssue:
        """Render a draft and run the checks that ask nobody; IssueError, TemplateError."""
        rendered = render(draft, self.publication, templates=self.templates)
        case = CheckContext(draft, rendered, self.publication, self.rules, _AT_ANY_TIME)
        wanted = [name for name in CHECKS if name in ALONE and self._level(name) != "off"]
        found = {name: list(CHECKS[name](case)) for name in wanted}
        return ExaminedIssue(draft, rendered, case.manuscript, found)

    def examine_text(self, text: str, *, name: str) -> ExaminedIssue:
        """The same of a text; ``name`` is what errors call its file."""
        return self.examine(parse_issue(text, name=name))

    def _level(self, check: str) -> str:
        rule: CheckRule = getattr(self.rules, check)
        return rule.level

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
        examined: ExaminedIssue | None = None,
    ) -> list[Finding]:
        """What is to be said of an issue, the gravest first; ``rendered`` is made of ``draft``.

        Without a ``plan`` nothing is asked of the audience, without ``dns`` nothing of the
        sender's domain, and without ``ask_links`` no link is tried out: the rest takes
        milliseconds. ``blocking_only`` runs no check but those that may block; what another
        process has ``examined`` is not done again.

        Raises SegmentError for a segment of the plan that there is not.
        """
        findings = list(self._settings(draft))
        read = examined.manuscript if examined else None
        known = examined.found if examined else {}
        case = CheckContext(
            draft, rendered, self.publication, self.rules, now, plan, dns, ask_links, read
        )
        for check, find in CHECKS.items():
            wanted = self._level(check)
            if wanted == "off" or (blocking_only and wanted != "block"):
                continue
            for found in known[check] if check in known else find(case):
                level = Level.NOTE if found.is_note else Level(wanted)
                findings.append(Finding(check, level, found.message, found.line, found.hint))
        return sorted(findings, key=lambda finding: _GRAVEST.index(finding.level))

    def _settings(self, draft: Draft) -> Iterator[Finding]:
        """What no rule can switch off: mail would go out that nobody can answer or leave."""
        for lack in self.unfit:
            yield Finding(SETTINGS, Level.BLOCK, f"{lack.key} {lack.what}", None, lack.remedy)
        for key, address in (("from", draft.from_email), ("reply_to", draft.reply_to)):
            if self.sends_real_email and address and is_example(address):
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
        examined: ExaminedIssue | None = None,
    ) -> list[Finding]:
        """What keeps the issue from being sent, links and DNS among it if they may block."""
        check = partial(self.check, draft, rendered, now=now, blocking_only=True, examined=examined)
        with reading(database) as session:
            found = check(plan=plan(session))
        # Nobody outside is asked while the database waits.
        return blocking(found) or blocking(check(dns=dns, ask_links=True))

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
            one = self.examine_text(text, name=name)
        except (IssueError, TemplateError) as error:
            return [refused(error, name)]
        return self.check(
            one.draft,
            one.rendered,
            now=now,
            plan=plan,
            dns=dns,
            ask_links=ask_links,
            examined=one,
        )


def refused(error: UserError, name: str) -> Finding:
    """What an issue is refused for that cannot be read or rendered; ``name`` is its file's."""
    place = error.place or ""
    line = place.removeprefix(f"{name}:")
    number = whole_number(line)
    if place.startswith(f"{name}:") and number is not None:
        return Finding(FILE, Level.BLOCK, error.message, number, error.hint or "")
    said = f"{place}: {error.message}" if place else error.message
    return Finding(FILE, Level.BLOCK, said, None, error.hint or "")
