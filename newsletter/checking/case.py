"""What the checks are given: one issue as written and as rendered, and whom they may ask."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from newsletter.checking.manuscript import Manuscript, read_manuscript
from newsletter.checking.rules import Rules
from newsletter.issues.personal import LINKS
from newsletter.issues.reading import Draft
from newsletter.provider.account import Domain
from newsletter.provider.lookups import Lookup
from newsletter.rendering.rendered import House, Rendered
from newsletter.sending.timetable import Timetable
from subscribers.schema import Session


@dataclass(frozen=True, slots=True)
class Plan:
    """To whom and how fast the issue is to go: names of segments, as for a send."""

    session: Session
    segments: Sequence[str]
    excluded: Sequence[str] = ()
    timetable: Timetable = field(default_factory=Timetable)


@dataclass(frozen=True, slots=True)
class Dns:
    """Who answers questions of DNS, and what the provider says of the sender's domain."""

    lookup: Lookup
    authenticated: Domain | None = None


@dataclass(frozen=True)
class Case:
    """One issue to be checked. What is None is not asked, and its checks find nothing."""

    draft: Draft
    rendered: Rendered
    house: House
    rules: Rules
    now: datetime
    plan: Plan | None = None
    dns: Dns | None = None
    ask_links: bool = False

    @cached_property
    def manuscript(self) -> Manuscript:
        """The body's parts with their lines."""
        links = {name: f"{self.house.base_url}/{path}/" for name, path in LINKS.items()}
        return read_manuscript(self.draft, links)
