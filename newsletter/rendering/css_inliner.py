"""Adapter for premailer: copies the style sheet of the Markdown body into style attributes.

Email clients drop style sheets or parts of them, but keep style attributes. MJML inlines its own
styles.
"""

import logging
import re
from xml.dom import DOMException

from newsletter.errors import TemplateError

_PICTURE = re.compile(r"<img\s[^<>]*>")
#: HTML allows sizes of images in whole pixels only; MJML writes height="auto".
_NO_SIZE = re.compile(r'\s(?:width|height)="(?!\d+")[^"]*"')


def inline_css(html: str, css: str, *, name: str) -> str:
    """The page with the rules of ``css`` in style attributes; its own style sheets stay.

    ``name`` is the sheet's file name in errors. Invalid rules are skipped; raises TemplateError
    for a sheet or page that cannot be parsed.
    """
    # Imported here: they take 10 MB, and most processes never render.
    from lxml.etree import LxmlError  # noqa: PLC0415
    from premailer import Premailer  # noqa: PLC0415

    # Otherwise MJML's reset would be copied into every cell: a quarter more bytes.
    page = html.replace("<style ", '<style data-premailer="ignore" ')
    try:
        made = Premailer(
            page,
            css_text=css,
            keep_style_tags=True,
            # The default breaks dark mode, where the sheet has to override attributes.
            strip_important=False,
            # The width of columns depends on classes.
            remove_classes=False,
            disable_validation=True,
            cssutils_logging_level=logging.CRITICAL,
            preserve_internal_links=True,
            allow_network=False,
            # It doubles the time, for floating images, which we do not use.
            align_floating_images=False,
            # Otherwise it copies rules into attributes: height="auto", bgcolor on a paragraph, and
            # it changes the logo's width in pixels, which Outlook uses, to 100%.
            disable_basic_attributes=["align", "valign", "bgcolor", "width", "height"],
        ).transform(pretty_print=False)
    except (DOMException, LxmlError, ValueError) as error:
        raise TemplateError(f"premailer: {error}", place=name) from error
    # It keeps the sheet as well, which is not needed any more.
    html = str(made).replace(f'<style type="text/css">{css}</style>', "", 1)
    return _PICTURE.sub(lambda tag: _NO_SIZE.sub("", tag[0]), html)
