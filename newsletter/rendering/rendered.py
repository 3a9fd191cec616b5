"""Input and output of rendering: plain data, without imports of the rendering libraries."""

from dataclasses import dataclass

from newsletter.rendering.placeholders import Placeholders


@dataclass(frozen=True, slots=True)
class Publication:
    """The values that all issues of a publication share. ``base_url`` has no trailing slash."""

    name: str
    base_url: str
    postal_address: str
    from_email: str
    from_name: str
    reply_to: str | None
    language: str
    logo_url: str | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """One rendered issue. ``subject``, ``html`` and ``text`` hold the tags of ``placeholders``.

    ``preheader`` and ``title`` are the same for everybody: their placeholders have defaults.
    """

    slug: str
    title: str
    language: str
    subject: str
    preheader: str
    from_email: str
    from_name: str
    reply_to: str | None
    html: str
    text: str
    placeholders: Placeholders

    @property
    def html_size(self) -> int:
        """Bytes of the HTML part in UTF-8; Gmail clips at 102,400."""
        return len(self.html.encode())

    @property
    def text_size(self) -> int:
        """Bytes of the text part in UTF-8."""
        return len(self.text.encode())
