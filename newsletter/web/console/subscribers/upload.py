"""Writes an uploaded file to disk while it is received, without keeping it in memory.

The form's small fields come before its file, so that a forged or unwanted post is refused before
any byte of the file is written.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from newsletter.db import private_files
from newsletter.errors import UserError
from newsletter.numbers import whole_number

#: Bytes of all fields except the file.
_MAX_FIELDS = 10_000
#: Bytes of one write.
_CHUNK = 1 << 20


class UploadError(UserError):
    """An upload that is refused, with its HTTP status."""

    def __init__(self, message: str, *, hint: str | None = None, status: int = 400) -> None:
        super().__init__(message, place="file", hint=hint)
        self.status = status


class Upload:
    """A form with one file. ``name`` is the client's file name, never used as a path."""

    def __init__(self, path: Path, *, most: int, admit: Callable[[dict[str, str]], None]) -> None:
        self.fields: dict[str, str] = {}
        self.name = ""
        self.size = 0
        self._path = path
        self._most = most
        self._admit = admit
        self._file: IO[bytes] | None = None
        self._field: str | None = None
        self._header = [b"", b""]
        self._headers: dict[bytes, bytes] = {}
        self._value = b""
        self._small = 0
        self._body: AsyncIterator[bytes] | None = None

    async def receive(self, request: Request) -> None:
        """Read the request's body; raises UploadError, or what ``admit`` raises for the fields."""
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            await self._refuse_without_file(request)
        length = whole_number(request.headers.get("content-length", "")) or 0
        if length > self._most + 2 * _MAX_FIELDS:
            raise self._too_long()
        self._body = request.stream()
        try:
            parser = MultipartParser(boundary, self._callbacks())  # type: ignore[arg-type]
            waiting = bytearray()
            async for chunk in self._body:
                waiting += chunk
                if len(waiting) >= _CHUNK:
                    await run_in_threadpool(parser.write, bytes(waiting))
                    waiting.clear()
            await run_in_threadpool(parser.write, bytes(waiting))
            parser.finalize()
        except MultipartParseError:
            self._admit(self.fields)
            raise UploadError("the form could not be parsed") from None
        finally:
            if self._file is not None:
                self._file.close()
        self._admit(self.fields)
        if self._file is None or not self.name:
            raise UploadError("choose a file")
        if not self.size:
            raise UploadError("the file is empty")

    async def drain(self) -> None:
        """Read and drop the rest: browsers show an answer only after they have sent everything."""
        if self._body is not None:
            async for _ in self._body:
                pass

    async def _refuse_without_file(self, request: Request) -> None:
        length = whole_number(request.headers.get("content-length", ""))
        if length is not None and length <= _MAX_FIELDS:
            form = await request.form()
            self.fields = {name: v for name, v in form.items() if isinstance(v, str)}
        self._admit(self.fields)
        raise UploadError("choose a file")

    def _callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, a, b: self._grow(0, data[a:b]),
            "on_header_value": lambda data, a, b: self._grow(1, data[a:b]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": lambda data, a, b: self._on_data(data[a:b]),
            "on_part_end": self._on_part_end,
        }

    def _grow(self, place: int, data: bytes) -> None:
        self._count_small(data)
        self._header[place] += data

    def _count_small(self, data: bytes) -> None:
        self._small += len(data)
        if self._small > _MAX_FIELDS:
            raise UploadError("the form's fields are too long", status=413)

    def _on_header_end(self) -> None:
        self._headers[self._header[0].lower()] = self._header[1]
        self._header = [b"", b""]

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode(errors="replace")
        self._value = b""
        if self._field != "file":
            return
        if self._file is not None:
            raise UploadError("one file at a time")
        self._admit(self.fields)
        self.name = _plain_name(options.get(b"filename", b"").decode(errors="replace"))
        self._file = open(self._path, "wb", opener=private_files.opener)  # noqa: SIM115

    def _on_data(self, data: bytes) -> None:
        if self._field == "file" and self._file is not None:
            self.size += len(data)
            if self.size > self._most:
                raise self._too_long()
            self._file.write(data)
            return
        self._count_small(data)
        self._value += data

    def _on_part_end(self) -> None:
        if self._field and self._field != "file":
            self.fields[self._field] = self._value.decode(errors="replace")

    def _too_long(self) -> UploadError:
        return UploadError(
            f"the file is larger than {self._most // 1_000_000:,} MB",
            hint="Split it, or raise the setting imports.max_megabytes.",
            status=413,
        )


def _plain_name(given: str) -> str:
    """The last part of a path, only printable characters."""
    last = given.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable()).strip()[-80:]
