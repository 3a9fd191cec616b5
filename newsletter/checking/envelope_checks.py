"""What every mail needs around its words: a subject that fits, a way out, who sends it."""

import html
from collections.abc import Iterator

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.manuscript import line_of
from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.rendering.placeholders import fill


def size(case: CheckContext) -> Iterator[CheckFinding]:
    """Gmail cuts a mail off at 102 KB of HTML, and shows the rest behind a link.

    The measure is what the person with the longest values gets.
    """
    rendered = case.rendered
    most = rendered.placeholders.most_bytes(rendered.html)
    if most > case.rules.size.most:
        longest = "" if most == rendered.html_size else ", for whoever has the longest values"
        yield CheckFinding(
            f"the HTML part has {most:,} bytes{longest}; Gmail clips at {case.rules.size.most:,}, "
            "and hides the link to unsubscribe with the rest",
            "Shorten the issue, or move a part of it to a web page.",
            case.draft.body_line,
        )


def subject(case: CheckContext) -> Iterator[CheckFinding]:
    """Inboxes show the beginning of a subject; on phones some 40 characters of it."""
    rules, values = case.rules.subject, case.rendered.placeholders.substitutions({}, "")
    words = fill(case.rendered.subject, values).strip()
    line = line_of(case.draft, "subject")
    if not words:
        yield CheckFinding(
            "the subject is empty for people who lack a value",
            'Write words beside the placeholder, or a default: {{ name | default("reader") }}.',
            line,
        )
    elif len(words) > rules.longest:
        yield CheckFinding(
            f"the subject has {len(words)} characters, and inboxes cut it off",
            f"Up to {rules.longest} are read; begin with what matters.",
            line,
        )


def preheader(case: CheckContext) -> Iterator[CheckFinding]:
    """What inboxes show behind the subject; without one, the first words of the mail."""
    rules, words = case.rules.preheader, case.rendered.preheader
    line = line_of(case.draft, "preheader")
    if not words:
        yield CheckFinding(
            "there is no preheader: inboxes show “Read on the web” instead",
            "Add a line “preheader: …” that goes on where the subject ends.",
            line or 1,
        )
    elif len(words) > rules.longest:
        yield CheckFinding(
            f"the preheader has {len(words)} characters, and inboxes cut it off",
            f"Up to {rules.longest} are read.",
            line,
        )
    elif len(words) < rules.shortest:
        yield CheckFinding(
            f"the preheader has {len(words)} characters, and leaves room in most inboxes",
            f"Write {rules.shortest} or more.",
            line,
        )


def unsubscribe(case: CheckContext) -> Iterator[CheckFinding]:
    """Each part has the person's own link to leave; the law and large receivers want it."""
    rendered = case.rendered
    link = f"{case.publication.base_url}/{LINKS['unsubscribe_url']}/{rendered.placeholders.token}"
    for part, there in (
        ("HTML", f'href="{html.escape(link)}"' in rendered.html),
        ("text", link in rendered.text),
    ):
        if not rendered.placeholders.token or not there:
            yield CheckFinding(
                f"the {part} part has no link to unsubscribe",
                "Put {{ unsubscribe_url }} into the issue, or "
                "{{ links.unsubscribe }} into the template's footer.",
            )


def postal_address(case: CheckContext) -> Iterator[CheckFinding]:
    """Each part says where the sender can be found; most countries' law wants it."""
    address = " ".join(case.publication.postal_address.split())
    for part, words in (("HTML", html.unescape(case.rendered.html)), ("text", case.rendered.text)):
        if not address or address not in " ".join(words.split()):
            yield CheckFinding(
                f"the {part} part does not say the sender's postal address",
                "Set site.postal_address, and keep "
                "{{ publication.postal_address }} in the template.",
            )


def text_part(case: CheckContext) -> Iterator[CheckFinding]:
    """Watches, screen readers and filters read the text part."""
    manuscript = case.manuscript
    if not case.rendered.text.strip():
        yield CheckFinding("there is no text part", "Write words, not only pictures.")
    elif manuscript.images and not any(words.text.strip() for words in manuscript.words):
        yield CheckFinding(
            "there are pictures alone: the text part says nothing",
            "Write what they show.",
            case.draft.body_line,
        )
