"""Parses the body of a sign-up, from an HTML form or from a program, into fields.

The body is not trusted: size, type, encoding and repeated names are checked before a field is
used. A body that cannot be parsed raises HTTPException.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

_MAX_FIELDS = 200
_TEXTS = (
    "email", "name", "language", "timezone", "form", "next", "opened", "altcha", "homepage",
)  # fmt: skip
_TOPICS = "topics"
_ATTRIBUTES = "attributes"
#: The prefix of form fields such as ``attributes.company``.
_DOTTED = _ATTRIBUTES + "."


@dataclass(frozen=True, slots=True)
class Post:
    """The fields of a request. Values of a form are text; values of JSON can have any type."""

    fields: Mapping[str, Any]
    #: Whether the body was JSON, so that the answer is JSON too.
    json: bool

    def text(self, name: str) -> str:
        """A field's text; empty if there is none."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""


async def read_post(request: Request) -> Post:
    """Read a request's body."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind not in _READERS:
        raise HTTPException(
            415, "Send application/x-www-form-urlencoded, multipart/form-data or application/json."
        )
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "').lower()
    if charset not in {"", "utf-8", "utf8", "us-ascii"}:
        raise HTTPException(415, "Use UTF-8.")
    body = await request.body()
    try:
        return _READERS[kind](body, request.headers["content-type"])
    except UnicodeError:
        raise HTTPException(400, "The body is not valid UTF-8.") from None
    except (ValueError, RecursionError, FormParserError):
        raise HTTPException(400, "The body cannot be parsed.") from None


def _from_json(body: bytes, _content_type: str) -> Post:
    fields = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    if not isinstance(fields, dict):
        raise HTTPException(400, "The body must be an object with the field “email”.")
    # JSON can contain half a surrogate pair, which UTF-8 cannot encode.
    json.dumps(fields, ensure_ascii=False).encode()
    known = {*_TEXTS, _TOPICS, _ATTRIBUTES}
    if unknown := sorted(fields.keys() - known):
        raise HTTPException(
            400, f"Unknown field “{unknown[0][:40]}”. Known: {', '.join(sorted(known))}."
        )
    return Post(fields, json=True)


def _from_urlencoded(body: bytes, _content_type: str) -> Post:
    pairs = parse_qsl(
        body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
    )
    return Post(_fields(pairs), json=False)


def _from_multipart(body: bytes, content_type: str) -> Post:
    found: list[tuple[str, str]] = []

    def keep(field: Field) -> None:
        if len(found) >= _MAX_FIELDS:
            raise ValueError("too many fields")
        found.append(((field.field_name or b"").decode(), (field.value or b"").decode()))

    def refuse(_file: File) -> None:
        raise HTTPException(400, "File uploads are not allowed.")

    parse_form({"Content-Type": content_type.encode()}, BytesIO(body), keep, refuse)
    return Post(_fields(found), json=False)


_READERS = {
    "application/json": _from_json,
    "application/x-www-form-urlencoded": _from_urlencoded,
    "multipart/form-data": _from_multipart,
}


def _fields(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The known fields of a form; other fields, such as names of buttons, are ignored."""
    topics: list[str] = []
    attributes: dict[str, str] = {}
    fields: dict[str, Any] = {_TOPICS: topics, _ATTRIBUTES: attributes}
    for name, value in pairs:
        if name == _TOPICS:
            topics.append(value)
        elif name.startswith(_DOTTED):
            _add(attributes, name.removeprefix(_DOTTED), value)
        elif name in _TEXTS:
            _add(fields, name, value)
    return fields


def _add(into: dict[str, Any], name: str, value: str) -> None:
    if name in into:
        raise HTTPException(400, f"The field “{name[:40]}” occurs twice.")
    into[name] = value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        _add(fields, name, value)
    return fields


def _no_number(_text: str) -> NoReturn:
    raise ValueError("not a number")
