"""The input of checks: an issue as written and as rendered, the plan, and access to DNS."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from newsletter.checking.audience_counts import AudienceStats, count_audience
from newsletter.checking.parsed_body import ParsedBody, parse_body
from newsletter.checking.planned_send import Plan
from newsletter.checking.rules import CheckRules
from newsletter.checking.styles import StyledPage
from newsletter.issues.parsing.issue_file import Draft
from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.provider.account import Domain
from newsletter.provider.dns_lookups import Lookup
from newsletter.rendering.rendered import Publication, Rendered


@dataclass(frozen=True, slots=True)
class Dns:
    """The DNS lookup, and the authenticated domain of the provider's account."""

    lookup: Lookup
    authenticated: Domain | None = None


#: Returns the DNS access for the domain of a sender's address; None turns these checks off.
AskDns = Callable[[str], Dns | None]


@dataclass(frozen=True)
class CheckContext:
    """One issue to check. Checks that need a value that is None find nothing."""

    draft: Draft
    rendered: Rendered
    publication: Publication
    rules: CheckRules
    now: datetime
    plan: Plan | None = None
    ask_dns: AskDns | None = None
    ask_links: bool = False
    #: The parsed body, if another process has parsed it already.
    read: ParsedBody | None = None

    @cached_property
    def dns(self) -> Dns | None:
        """DNS access. Computed when a check first needs it, because it may take seconds."""
        return self.ask_dns(self.rendered.from_email) if self.ask_dns else None

    @cached_property
    def body(self) -> ParsedBody:
        """The parts of the body with their lines."""
        if self.read is not None:
            return self.read
        links = {name: f"{self.publication.base_url}/{path}/" for name, path in LINKS.items()}
        return parse_body(self.draft, links)

    @cached_property
    def page(self) -> StyledPage:
        """The HTML part as a tree with its styles."""
        return StyledPage.of(self.rendered.html)

    @cached_property
    def values_without_default(self) -> list[str]:
        """Names of values that are used without a default at least once and may be missing."""
        used = (used.placeholder for used in self.body.placeholders)
        names = (one.name for one in used if not (one.is_link or one.default))
        return [name for name in dict.fromkeys(names) if name != "email"]

    @cached_property
    def people(self) -> AudienceStats | None:
        """The counted audience; None without a plan. Raises SegmentError for an unknown segment."""
        if self.plan is None:
            return None
        if self.plan.counted is not None and not self.values_without_default:
            return AudienceStats(self.plan.counted, {})
        return count_audience(
            self.plan.session,
            self.draft,
            segment_names=self.plan.segments,
            excluded_names=self.plan.excluded,
            values=self.values_without_default,
            split=self.plan.timetable.by_zone,
            now=self.now,
        )
