"""The checklist of the overview: the steps to the first issue, until they are done."""

from dataclasses import dataclass

from newsletter.container import Container
from newsletter.db.orm import Session
from newsletter.operations.first_steps import first_steps


@dataclass(frozen=True, slots=True)
class Step:
    """One step, with the page where it is done; empty if it is done outside the console."""

    what: str
    why: str
    path: str
    done: bool


def steps(session: Session, parts: Container) -> list[Step]:
    """All steps; empty once everything is done that every publication needs."""
    done = first_steps(session)
    if done.complete:
        return []
    base_url = parts.settings.site.base_url
    return [
        Step(
            "The provider accepts your sender",
            f"The first accepted email from {parts.publication.from_email} shows it. Verify its "
            "domain in SendGrid: Settings, Sender Authentication.",
            "",
            done.sender,
        ),
        Step(
            "Events arrive",
            f"The provider posts them to {base_url}/webhooks/sendgrid/events.",
            "",
            done.webhook,
        ),
        Step(
            "First topic (optional)",
            "Subscribers choose topics; without any, everybody gets every issue.",
            "/console/subscribers/topics",
            done.topic,
        ),
        Step(
            "First subscribers",
            f"Import a list, or send people to {base_url}/subscribe.",
            "/console/subscribers/import",
            done.subscriber,
        ),
        Step(
            "First issue sent",
            "Write it, approve it, and send it to a segment.",
            "/console/issues",
            done.issue,
        ),
    ]
