"""Adapter for Jinja: renders templates to MJML in a sandbox, and records the source of each line.

MJML's errors point into the text that Jinja made of several files. So every line of a template is
marked with its file and number before rendering; afterwards the marks are removed and recorded.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from newsletter.errors import TemplateError

#: Noncharacters of Unicode; an issue that contains them is refused.
_MARK = re.compile("\ufdd0([^\ufdd1]*)\ufdd1")


@dataclass(frozen=True, slots=True)
class Mjml:
    """MJML text and its sources: the offset where each part starts, and its ``file:line``."""

    text: str
    starts: tuple[int, ...]
    places: tuple[str, ...]

    def place(self, offset: int) -> str:
        """``file:line`` in the template of the character at ``offset``."""
        return self.places[max(0, bisect_right(self.starts, offset) - 1)]


_FOLDER = (
    "templates.directory has to be a folder with digest.mjml, letter.mjml, partials/ and body.css. "
    "Begin with a copy of the built-in templates."
)


def to_mjml(name: str, values: Mapping[str, object], *, templates: Path) -> Mjml:
    """Render the template ``name`` of the folder with these values, each escaped unless ``Markup``.

    Raises TemplateError with the template's file and line.
    """
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=[_Places],
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    try:
        marked = environment.get_template(name).render(values)
    except TemplateSyntaxError as error:
        place = f"{templates / (error.name or name)}:{error.lineno}"
        raise TemplateError(f"Jinja: {error.message}", place=place) from error
    except TemplateNotFound as error:
        missing = error.name or name
        place = _line_of(error.__traceback__, templates) or str(templates / missing)
        raise TemplateError(f"there is no template {missing}", place=place, hint=_FOLDER) from error
    except RecursionError as error:
        place = _line_of(error.__traceback__, templates) or str(templates / name)
        raise TemplateError("this template includes itself", place=place) from error
    except UnicodeDecodeError as error:
        raise TemplateError("a template is not UTF-8", place=str(templates)) from error
    except (JinjaError, ArithmeticError, LookupError, TypeError, ValueError, OSError) as error:
        place = _line_of(error.__traceback__, templates) or str(templates / name)
        raise TemplateError(f"Jinja: {error}", place=place, hint=_FOLDER) from error
    return _unmarked(marked, str(templates / name), templates)


def clean(html: str) -> Markup:
    """Mark HTML as safe for templates; nh3 has to have sanitized it."""
    return Markup(html)  # noqa: S704 (the only call)


def read_sheet(templates: Path) -> str:
    """The style sheet of the Markdown body; TemplateError when it cannot be read."""
    path = templates / "body.css"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"cannot be read: {error}", place=str(path), hint=_FOLDER) from None


class _Places(Extension):
    """Puts a mark before each line of template text, but not within Jinja's tags."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        """Called by Jinja with every template's tokens."""
        for token in stream:
            if token.type == "data":
                lines = token.value.split("\n")
                marked = "\n".join(
                    f"\ufdd0{stream.name}:{number}\ufdd1{line}"
                    for number, line in enumerate(lines, token.lineno)
                )
                yield Token(token.lineno, "data", marked)
            else:
                yield token


def _unmarked(marked: str, whole: str, templates: Path) -> Mjml:
    parts: list[str] = []
    starts, places = [0], [f"{whole}:1"]
    end = length = 0
    for mark in _MARK.finditer(marked):
        parts.append(marked[end : mark.start()])
        length += len(parts[-1])
        end = mark.end()
        starts.append(length)
        places.append(str(templates / mark[1]))
    parts.append(marked[end:])
    return Mjml("".join(parts), tuple(starts), tuple(places))


def _line_of(traceback: TracebackType | None, templates: Path) -> str | None:
    """``file:line`` of an error in a template, from the traceback, which Jinja rewrites."""
    place = None
    while traceback:
        file = traceback.tb_frame.f_code.co_filename
        if Path(file).is_relative_to(templates):
            place = f"{file}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
