"""The door to premailer: the style sheet of the Markdown body into style attributes.

Mail clients drop style sheets, or parts of them; what is in the attributes stays.
MJML has inlined its own styles already.
"""

import logging
import re
from xml.dom import DOMException

from newsletter.errors import TemplateError

_PICTURE = re.compile(r"<img\s[^<>]*>")
#: HTML knows a picture's size in whole pixels only; MJML writes height="auto".
_NO_SIZE = re.compile(r'\s(?:width|height)="(?!\d+")[^"]*"')


def inline_css(html: str, css: str, *, name: str) -> str:
    """The page with the rules of ``css`` in style attributes; its own style sheets stay.

    ``name`` is what errors call the sheet. Rules that are no CSS are left out; raises
    TemplateError for a sheet or page that cannot be read at all.
    """
    # 10 MB, for processes of which most never render.
    from lxml.etree import LxmlError  # noqa: PLC0415
    from premailer import Premailer  # noqa: PLC0415

    # MJML's reset would be copied into every cell otherwise: a quarter more bytes.
    page = html.replace("<style ", '<style data-premailer="ignore" ')
    try:
        made = Premailer(
            page,
            css_text=css,
            keep_style_tags=True,
            # Its default breaks dark mode, where the sheet must win over attributes.
            strip_important=False,
            # Columns find their width by class.
            remove_classes=False,
            disable_validation=True,
            cssutils_logging_level=logging.CRITICAL,
            preserve_internal_links=True,
            allow_network=False,
            # Doubles the time, for images that float; ours do not.
            align_floating_images=False,
            # It would make attributes of rules: height="auto", bgcolor on a paragraph, and the
            # logo's width in pixels, by which Outlook goes, into 100%.
            disable_basic_attributes=["align", "valign", "bgcolor", "width", "height"],
        ).transform(pretty_print=False)
    except (DOMException, LxmlError, ValueError) as error:
        raise TemplateError(f"premailer: {error}", place=name) from error
    # It keeps the sheet as well; what stands in the attributes is not needed twice.
    html = str(made).replace(f'<style type="text/css">{css}</style>', "", 1)
    return _PICTURE.sub(lambda tag: _NO_SIZE.sub("", tag[0]), html)
