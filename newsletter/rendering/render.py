"""Renders a draft once for all recipients, with a tag wherever a personal value goes.

HTML part: Markdown → Jinja → MJML → premailer. Text part: Markdown → text. The same draft,
publication and templates give the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from markdown_it.token import Token
from markupsafe import Markup

from newsletter.errors import IssueError, TemplateError
from newsletter.issues.parsing.digest import SEPARATOR, Digest, DigestEntry, parse_digest
from newsletter.issues.parsing.issue_file import Draft
from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.rendering.css_inliner import inline_css
from newsletter.rendering.markdown import Markdown
from newsletter.rendering.mjml import to_html
from newsletter.rendering.placeholders import MOST_TAGS, Marks
from newsletter.rendering.plaintext import RULE, PlainText, heading, joined, wrapped
from newsletter.rendering.rendered import Publication, Rendered
from newsletter.rendering.template import clean, read_sheet, to_mjml
from newsletter.rendering.untracked_links import mark_untracked
from newsletter.rendering.word_check import first_missing, words_in, words_of

#: Languages written from right to left.
_RIGHT_TO_LEFT = {"ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}


def render(draft: Draft, publication: Publication, *, templates: Path) -> Rendered:
    """Render a draft with the templates of this folder.

    Raises IssueError for a digest with a wrong format, for too many placeholders and for text
    that would be lost, and TemplateError for an error in a template.
    """
    marks = _marks(draft, publication)
    renderer = _DraftRenderer(draft, publication, marks)
    fragments, text = renderer.digest() if draft.template == "digest" else renderer.letter()
    language = draft.language or publication.language
    right_to_left = language.split("-")[0].lower() in _RIGHT_TO_LEFT
    preheader = marks.mark(draft.preheader, name=draft.name, line=1)
    subject = marks.in_text(marks.mark(draft.subject, name=draft.name, line=1))
    words, day = _heading(draft)
    mjml = to_mjml(
        f"{draft.template}.mjml",
        {
            "title": draft.title,
            "heading": words,
            "date": day,
            "preheader": marks.in_html(preheader),
            "language": language,
            "direction": "rtl" if right_to_left else "ltr",
            "start": "right" if right_to_left else "left",
            "end": "left" if right_to_left else "right",
            "publication": publication,
            "links": {name.removesuffix("_url"): marks.link(name) for name in LINKS},
            **fragments,
        },
        templates=templates,
    )
    name = str(templates / f"{draft.template}.mjml")
    html = inline_css(
        to_html(mjml.text, name=name, place=mjml.place),
        read_sheet(templates),
        name=str(templates / "body.css"),
    )
    html = mark_untracked(html, [f"{publication.base_url}/{path}/" for path in LINKS.values()])
    _require_every_word(renderer, fragments, text=text, html=html, template=name)
    text = marks.in_text(renderer.framed(words, day, text))
    placeholders = marks.placeholders(subject, html, text)
    if placeholders.tags > MOST_TAGS:
        raise IssueError(
            f"its placeholders need {placeholders.tags} values for each recipient, and SendGrid "
            f"accepts {MOST_TAGS}",
            place=draft.name,
            hint="Each placeholder counts once for the HTML part, once for text and subject, and "
            "once in links. Use fewer.",
        )
    return Rendered(
        slug=draft.slug,
        title=draft.title,
        language=language,
        subject=subject,
        preheader=marks.in_defaults(preheader),
        from_email=draft.from_email or publication.from_email,
        from_name=draft.from_name or publication.from_name,
        reply_to=draft.reply_to or publication.reply_to,
        html=html,
        text=text,
        placeholders=placeholders,
    )


class _DraftRenderer:
    """Renders a draft as HTML fragments for the template and as text."""

    def __init__(self, draft: Draft, publication: Publication, marks: Marks) -> None:
        self.draft, self._house, self.marks = draft, publication, marks
        self.body = marks.mark(draft.body, name=draft.name, line=draft.body_line)
        self._markdown = Markdown(
            self.body, in_url=marks.in_url, name=draft.name, line=draft.body_line
        )

    def letter(self) -> tuple[dict[str, object], str]:
        """The body as a whole."""
        tokens = self._markdown.blocks(self.body)
        plain = PlainText()
        return {"body": self._html(tokens)}, joined(plain.blocks(tokens), plain.footnotes())

    def digest(self) -> tuple[dict[str, object], str]:
        """Sections and entries."""
        digest: Digest = parse_digest(
            self.body, name=self.draft.name, first_line=self.draft.body_line
        )
        opening, text = self._both(digest.opening)
        sections, texts = [], [text]
        for section in digest.sections:
            title = self._markdown.words(section.title)
            prose, prose_text = self._both(section.prose_markdown)
            entries = [self._entry(entry) for entry in section.entries]
            texts += [
                heading(PlainText().words(title), "="),
                prose_text,
                *(text for _, text in entries),
            ]
            sections.append(
                {
                    "title": self._html(title),
                    "prose": prose,
                    "entries": [entry for entry, _ in entries],
                }
            )
        return {"opening": opening, "sections": sections}, joined(*texts)

    def _entry(self, entry: DigestEntry) -> tuple[dict[str, object], str]:
        words, plain = self._markdown.words, PlainText()
        title, organization = words(entry.title), words(entry.organization)
        label, body = words(entry.source_label), self._markdown.blocks(entry.body_markdown)
        url = self.marks.in_url(entry.source_url) if entry.source_url else None
        source = plain.words(label)
        source = plain.link(source, url) if url else source
        by = f" {SEPARATOR} ".join(filter(None, (plain.words(organization), source)))
        text = joined(
            f"{heading(plain.words(title), '-')}\n{wrapped(by)}",
            plain.blocks(body),
            plain.footnotes(),
        )
        return {
            "title": self._html(title),
            "organization": self._html(organization),
            "source_label": self._html(label),
            "source_url": url,
            "body": self._html(body),
        }, text

    def framed(self, words: str, day: str, text: str) -> str:
        """The text part with heading and footer."""
        publication, link = self._house, self.marks.link
        head = joined(heading(words, "="), day)
        foot = "\n".join(
            (
                RULE,
                wrapped(f"You get {publication.name} because you subscribed to it."),
                "",
                f"Unsubscribe: {link('unsubscribe_url')}",
                f"Preferences: {link('preferences_url')}",
                f"Read on the web: {link('web_view_url')}",
                "",
                wrapped(f"{publication.name}, {publication.postal_address}"),
            )
        )
        return joined(head, text, foot) + "\n"

    def _both(self, markdown: str) -> tuple[Markup, str]:
        tokens, plain = self._markdown.blocks(markdown), PlainText()
        return self._html(tokens), joined(plain.blocks(tokens), plain.footnotes())

    def _html(self, tokens: Sequence[Token]) -> Markup:
        return clean(self.marks.in_html(self._markdown.html(tokens)))


def _require_every_word(
    renderer: _DraftRenderer,
    fragments: Mapping[str, object],
    *,
    text: str,
    html: str,
    template: str,
) -> None:
    """Raise an error when a word of the issue is missing in the HTML or text part.

    First compare the draft's words with the fragments, where no words of the template can replace
    them. Then compare the words of the fragments with the page.
    """
    draft = renderer.draft
    written = words_of(renderer.body, line=draft.body_line, marks=renderer.marks.pattern)
    made = "\n".join(_all_html(fragments))
    if missing := first_missing(written, made, text):
        word, others = missing.word, missing.others
        raise IssueError(
            f"“{word.text}”{f' and {others} other words' if others else ''} would not be shown",
            place=f"{draft.name}:{word.line}",
            hint="Rewrite this line: the email would not show all of it.",
        )
    if missing := first_missing(
        [replace(word, is_in_text=False) for word in words_in(made)], html, ""
    ):
        raise TemplateError(
            f"the template does not show all words of the issue: “{missing.word.text}” is missing",
            place=template,
            hint="Show every part in it, such as {{ body }} or {{ entry.organization }}.",
        )


def _all_html(value: object) -> Iterator[str]:
    """The HTML fragments in the values of a template."""
    if isinstance(value, Markup):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _all_html(part)
    elif isinstance(value, list):
        for part in value:
            yield from _all_html(part)


def _marks(draft: Draft, publication: Publication) -> Marks:
    links = {name: f"{publication.base_url}/{path}/" for name, path in LINKS.items()}
    avoid = (draft.source, draft.name, *(str(value) for value in _values(publication)))
    return Marks(draft.source, avoid=avoid, links=links)


def _values(publication: Publication) -> list[str | None]:
    return [
        publication.name,
        publication.base_url,
        publication.postal_address,
        publication.language,
        publication.logo_url,
    ]


def _heading(draft: Draft) -> tuple[str, str]:
    """Heading and date line; a date at the end of the title moves to the date line."""
    day = draft.date.isoformat() if draft.date else ""
    words = re.sub(rf"\s+[—–-]\s+{re.escape(day)}$", "", draft.title) if day else draft.title
    return words, day
