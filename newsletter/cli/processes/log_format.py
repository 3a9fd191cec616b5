"""The format of the log: text for people, or one JSON object per line for programs."""

import logging
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

from newsletter import tracing
from newsletter.cli.output import err
from newsletter.cli.processes import log_rate_limit
from subscribers.email_address import without_addresses

_log = logging.getLogger(__name__)
#: What log calls add to a line by ``extra``, and what becomes a field of the same name.
_FIELDS: Final = ("send", "batch")


class JsonFormatter(logging.Formatter):
    """Writes a line as one JSON object. No text in it contains an email address."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_addresses(record.getMessage()),
            "process": record.process,
            "thread": record.threadName,
        }
        line |= {name: value for name in _FIELDS if (value := getattr(record, name, None))}
        if (trace_id := tracing.trace_id(line.get("send"))) is not None:
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = without_addresses(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def say(text: str) -> None:
    """Tell the operator something: as text, or as a line of the log where that is JSON."""
    if any(isinstance(one.formatter, JsonFormatter) for one in logging.getLogger().handlers):
        _log.info("%s", text)
    else:
        err.print(text)


def install(style: Literal["text", "json"]) -> None:
    """Set up the log of a long-running command: its levels, its format, and fewer repeats."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("newsletter").setLevel(logging.INFO)
    if style == "json":
        logging.captureWarnings(capture=True)
        for handler in root.handlers:
            handler.setFormatter(JsonFormatter())
    log_rate_limit.install()
