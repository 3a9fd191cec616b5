"""Runs the checks of an issue.

A check is a function that takes a CheckContext and yields findings. Its level comes from
config/checks.toml.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from newsletter.checking import audience_checks, envelope_checks, link_checks
from newsletter.checking.context import AskDns, CheckContext
from newsletter.checking.design import client_support, contrast
from newsletter.checking.finding import CheckFinding, Finding, Level, blocking
from newsletter.checking.network import dead_links, sender_dns
from newsletter.checking.parsed_body import ParsedBody, line_of
from newsletter.checking.planned_send import Plan
from newsletter.checking.rules import CheckRule, CheckRules
from newsletter.checking.text import markup_checks, wording_checks
from newsletter.db.engine import reading
from newsletter.db.orm import Session
from newsletter.errors import IssueError, TemplateError, UserError
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.numbers import whole_number
from newsletter.readiness import SettingProblem, is_example
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication, Rendered

#: Every check by its id, in the order in which they are reported.
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
    "unfinished": wording_checks.unfinished,
    "attachment": wording_checks.attachment,
    "shorteners": wording_checks.shorteners,
    "spam_phrases": wording_checks.spam_phrases,
    "contrast": contrast.contrast,
    "clients": client_support.clients,
    "placeholders": audience_checks.placeholders,
    "audience": audience_checks.audience,
    "had_it": audience_checks.had_it,
    "duration": audience_checks.duration,
    "cost": audience_checks.cost,
    "sender_domain": sender_dns.sender_domain,
}
#: Checks that need only the issue: no database, DNS or web.
ALONE: Final = frozenset(
    {"unsubscribe", "postal_address", "text_part", "subject", "preheader", "size", "links"}
    | {"images", "markup", "attachment", "shorteners", "spam_phrases", "contrast", "clients"}
)
#: The check id of an issue that cannot be parsed or rendered. It always blocks.
FILE = "file"
#: The check id of settings with which no email may be sent. It always blocks.
SETTINGS = "settings"
#: No check of ``ALONE`` uses the time.
_AT_ANY_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GRAVEST = (Level.BLOCK, Level.WARN, Level.NOTE)


@dataclass(frozen=True, slots=True)
class ExaminedIssue:
    """All results that depend on the issue alone, so that another process can compute them."""

    draft: Draft
    rendered: Rendered
    body: ParsedBody
    #: The findings of each check of ``ALONE`` that is on.
    found: Mapping[str, Sequence[CheckFinding]]


@dataclass(frozen=True)
class Checker:
    """Checks the issues of a publication by its rules."""

    publication: Publication
    templates: Path
    rules: CheckRules
    #: Whether emails go to a real provider. Then an issue must not have an example's sender.
    sends_real_email: bool = False
    #: The settings that prevent sending.
    unfit: tuple[SettingProblem, ...] = ()

    def examine(self, draft: Draft) -> ExaminedIssue:
        """Render a draft and run the checks of ALONE. Raises IssueError and TemplateError."""
        rendered = render(draft, self.publication, templates=self.templates)
        case = CheckContext(draft, rendered, self.publication, self.rules, _AT_ANY_TIME)
        wanted = [name for name in CHECKS if name in ALONE and self._level(name) != "off"]
        found = {name: list(CHECKS[name](case)) for name in wanted}
        return ExaminedIssue(draft, rendered, case.body, found)

    def examine_text(self, text: str, *, name: str) -> ExaminedIssue:
        """The same for a text; ``name`` is its file name in errors."""
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
        """The findings for an issue, most severe first; ``rendered`` is made of ``draft``.

        Checks of the audience need a ``plan``, those of the sender's domain ``dns``, and those of
        dead links ``ask_links``; the others take milliseconds. ``blocking_only`` runs only checks
        of level BLOCK. Results in ``examined`` are not computed again.

        Raises SegmentError for an unknown segment in the plan.
        """
        findings = list(self._settings(draft))
        read = examined.body if examined else None
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
        """Findings that no rule can turn off: recipients could not reply or unsubscribe."""
        for lack in self.unfit:
            yield Finding(SETTINGS, Level.BLOCK, f"{lack.key} {lack.what}", None, lack.remedy)
        for key, address in (("from", draft.from_email), ("reply_to", draft.reply_to)):
            if self.sends_real_email and address and is_example(address):
                message = f"{address} is an example's address"
                hint = f"Use a mailbox of your own, or remove the line “{key}”."
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
        """The findings that prevent sending. Links and DNS are checked if their level is BLOCK."""
        check = partial(self.check, draft, rendered, now=now, blocking_only=True, examined=examined)
        with reading(database) as session:
            found = check(plan=plan(session))
        # The network is used after the transaction, not during it.
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
        """The same for a text. If it cannot be parsed or rendered, the error is a finding."""
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
    """The finding for an issue that cannot be parsed or rendered; ``name`` is its file name."""
    place = error.place or ""
    line = place.removeprefix(f"{name}:")
    number = whole_number(line)
    if place.startswith(f"{name}:") and number is not None:
        return Finding(FILE, Level.BLOCK, error.message, number, error.hint or "")
    said = f"{place}: {error.message}" if place else error.message
    return Finding(FILE, Level.BLOCK, said, None, error.hint or "")
