"""Checks what every email needs: subject, preheader, size, unsubscribe link, postal address."""

import html
from collections.abc import Iterator

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.parsed_body import line_of
from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.rendering.placeholders import fill


def size(case: CheckContext) -> Iterator[CheckFinding]:
    """Report an HTML part that Gmail would clip: it shows the rest behind a link.

    The size is that for the recipient with the longest values.
    """
    rendered = case.rendered
    most = rendered.placeholders.most_bytes(rendered.html)
    if most > case.rules.size.most:
        longest = "" if most == rendered.html_size else " for the recipient with the longest values"
        yield CheckFinding(
            f"the HTML part has {most:,} bytes{longest}; Gmail clips at {case.rules.size.most:,}, "
            "which hides the unsubscribe link",
            "Shorten the issue, or move a part of it to a web page.",
            case.draft.body_line,
        )


def subject(case: CheckContext) -> Iterator[CheckFinding]:
    """Report an empty or long subject: inboxes show its beginning, phones some 40 characters."""
    rules, values = case.rules.subject, case.rendered.placeholders.substitutions({}, "")
    words = fill(case.rendered.subject, values).strip()
    line = line_of(case.draft, "subject")
    if not words:
        yield CheckFinding(
            "the subject is empty for recipients who lack a value",
            'Write text beside the placeholder, or a default: {{ name | default("reader") }}.',
            line,
        )
    elif len(words) > rules.longest:
        yield CheckFinding(
            f"the subject has {len(words)} characters, so inboxes cut it off",
            f"Use at most {rules.longest}, and begin with what matters.",
            line,
        )


def preheader(case: CheckContext) -> Iterator[CheckFinding]:
    """Report a missing, long or short preheader, which inboxes show after the subject."""
    rules, words = case.rules.preheader, case.rendered.preheader
    line = line_of(case.draft, "preheader")
    if not words:
        yield CheckFinding(
            "there is no preheader: inboxes show “Read on the web” instead",
            "Add a line “preheader: …” that continues the subject.",
            line or 1,
        )
    elif len(words) > rules.longest:
        yield CheckFinding(
            f"the preheader has {len(words)} characters, so inboxes cut it off",
            f"Use at most {rules.longest}.",
            line,
        )
    elif len(words) < rules.shortest:
        yield CheckFinding(
            f"the preheader has only {len(words)} characters",
            f"Use at least {rules.shortest}.",
            line,
        )


def unsubscribe(case: CheckContext) -> Iterator[CheckFinding]:
    """Report parts without unsubscribe link, which the law and large receivers require."""
    rendered = case.rendered
    link = f"{case.publication.base_url}/{LINKS['unsubscribe_url']}/{rendered.placeholders.token}"
    for part, there in (
        ("HTML", f'href="{html.escape(link)}"' in rendered.html),
        ("text", link in rendered.text),
    ):
        if not rendered.placeholders.token or not there:
            yield CheckFinding(
                f"the {part} part has no unsubscribe link",
                "Put {{ unsubscribe_url }} into the issue, or "
                "{{ links.unsubscribe }} into the template's footer.",
            )


def postal_address(case: CheckContext) -> Iterator[CheckFinding]:
    """Report parts without the sender's postal address, which most countries' law requires."""
    address = " ".join(case.publication.postal_address.split())
    for part, words in (("HTML", html.unescape(case.rendered.html)), ("text", case.rendered.text)):
        if not address or address not in " ".join(words.split()):
            yield CheckFinding(
                f"the {part} part does not have the sender's postal address",
                "Set site.postal_address, and keep "
                "{{ publication.postal_address }} in the template.",
            )


def text_part(case: CheckContext) -> Iterator[CheckFinding]:
    """Report an empty text part: watches, screen readers and spam filters read it."""
    body = case.body
    if not case.rendered.text.strip():
        yield CheckFinding("there is no text part", "Write text, not only images.")
    elif body.images and not any(words.text.strip() for words in body.words):
        yield CheckFinding(
            "the issue has only images, so the text part is empty",
            "Describe them in text.",
            case.draft.body_line,
        )
