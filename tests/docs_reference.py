"""Writes commands.md, prometheus.md and settings.md in docs/reference from the program itself.

``python -m tests.docs_reference`` renews the files; tests/test_docs.py fails when they are stale.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import typer
import typer.main
from annotated_types import Ge, Le, MaxLen
from pydantic.fields import FieldInfo

from newsletter import metrics
from newsletter.cli.main import application
from newsletter.settings import kinds
from newsletter.settings.load import Settings, resource
from newsletter.settings.sections import Section

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "reference"
#: The words for a kind of value; the first whose rules a setting has all of is taken.
_KINDS: Final[tuple[tuple[Any, str], ...]] = (
    (kinds.SiteAddress, "web address, with or without a path"),
    (kinds.Origin, "web address without a path"),
    (kinds.WebAddress, "web address"),
    (kinds.DatabaseAddress, "database address"),
    (kinds.Mailbox, "email address"),
    (kinds.Zone, "time zone (IANA name)"),
    (kinds.Retention, "duration of 35 days or more, or empty"),
    (kinds.Period, "duration, or empty"),
    (kinds.Lasting, "duration of 1 second or more"),
    (kinds.Duration, "duration"),
    (kinds.Day, "date"),
    (kinds.Hours, "hours"),
    (kinds.PathText, "path"),
    (kinds.Host, "host name or IP address"),
    (kinds.Network, "network"),
    (kinds.FormField, "attribute name"),
    (kinds.Key, "secret, 32 characters or more"),
    (kinds.Token, "secret"),
    (kinds.Line, "text"),
)


_COMMANDS: Final = """# Commands

<!-- Generated: do not edit. `.venv/bin/python -m tests.docs_reference` renews this page. -->

`newsletter COMMAND --help` prints the same text. A setting that an option overrides is in
parentheses; all settings are in [settings](settings.md).

Lists print as a table on a terminal, as tab-separated lines in a pipe, and as JSON Lines with
`--json`. Errors go to standard error and name the place and the remedy.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a problem (`newsletter doctor`), an error (`newsletter check`), a difference (`… verify`) |
| 2 | an argument, a file or a setting is wrong |
| 3 | there is nothing to do |
| 4 | the provider refused |
| 5 | the database does not fit this version |
| 6 | this machine refused: a port, a file, memory |"""
_PROMETHEUS: Final = """# Prometheus metrics

<!-- Generated: do not edit. `.venv/bin/python -m tests.docs_reference` renews this page. -->

[Monitor the service](../guides/monitor.md) says how to switch them on. The figures of a send that
people read are in [metrics](metrics.md).

**Counters and histograms** count in one process, from its start: add up those of all processes,
`sum(rate(…))`. **Gauges** are read when Prometheus asks. Those about sends, batches, the outbox,
the backoff and the clock's holder come from the database, at most every 5 seconds, and are equal in
all processes: take `max(…)`. While the database does not answer, they are missing and
`newsletter_database_up` is 0.

Labels have few values: no metric names an address, a subscriber, a send or an issue. A page also
has the `process_…` metrics of prometheus-client: processor time, memory and open files.

| metric | type | labels | meaning |
|---|---|---|---|"""
_SETTINGS: Final = """# Settings

<!-- Generated: do not edit. `.venv/bin/python -m tests.docs_reference` renews this page. -->

Four sources give a setting its value; the last one wins:

1. [config/default.toml](../../config/default.toml), which ships with the program;
2. `newsletter.toml` in the working directory, which `newsletter init` makes, or the file that the
   environment variable `NEWSLETTER_CONFIG` names. For more than one machine, start from
   [config/production.example.toml](../../config/production.example.toml);
3. `.env` beside that file, with lines like `NEWSLETTER_SITE__NAME='My newsletter'`, for secrets.
   Other users may not be able to read it (`chmod 600 .env`);
4. environment variables: `NEWSLETTER_` and the key in capitals, with two underscores for each
   dot, so `site.base_url` is `NEWSLETTER_SITE__BASE_URL`. A list is written `one, two` or
   `["one", "two"]`.

If `NEWSLETTER_CONFIG` is set but empty, neither file is read. Without it, files in the working
directory that belong to another user than you and root are refused.

A secret may also be in a file of its own, as Docker and systemd hand it over:
`NEWSLETTER_LINKS__KEYS_FILE=/run/secrets/links` reads `links.keys` from there, one key in each
line. This works for `database_url`, `sendgrid.api_key`, `links.keys`, `subscribers.address_key`,
`inbound.key` and `metrics.token`. A line break at the end does not count, and setting both the
value and the file is an error.

The table `[initial]` of your TOML file has settings with which the database of a new publication
begins; the console can change them ([settings](../guides/settings.md#which-value-counts)).

`newsletter settings` prints every value in force and its source. An unknown key or a wrong value
stops the start, with the key and what is allowed.

A **duration** is written `30s`, `15m`, `6h`, `2d` or `1w`."""


def commands() -> str:
    """The page of all commands: what ``--help`` says, in one place."""
    root = typer.main.get_command(application())
    sections = (_command(command, words) for command, words in _all(root, ("newsletter",)))
    return "\n\n".join((_COMMANDS, *sections)) + "\n"


def settings() -> str:
    """The page of all settings, with the meaning that config/default.toml states."""
    text = (resource("config") / "default.toml").read_text(encoding="utf-8")
    defaults = tomllib.loads(text)
    meanings = dict(_meanings(text))
    parts = [_SETTINGS, _table(Settings, defaults, meanings, "")]
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            table = _table(field.annotation, defaults[name], meanings, f"{name}.")
            parts.append(f"## {name}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def prometheus() -> str:
    """The page of all metrics, as newsletter/metrics.py declares them."""
    rows = [
        f"| `{one.name}` | {one.kind} | {_labels(one)} | {_cell(one.meaning)} |"
        for one in metrics.ALL
    ]
    return "\n".join((_PROMETHEUS, *rows)) + "\n"


def _labels(metric: metrics.Metric) -> str:
    return "; ".join(
        f"`{name}`: {', '.join(values)}" if values else f"`{name}`"
        for name, values in metric.labels.items()
    )


PAGES: Final = {"commands.md": commands, "prometheus.md": prometheus, "settings.md": settings}


def _all(command: Any, words: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    yield command, words
    for name, child in getattr(command, "commands", {}).items():
        yield from _all(child, (*words, name))


def _command(command: Any, words: tuple[str, ...]) -> str:
    context = typer.Context(command, info_name=" ".join(words))
    parts = [f"## {' '.join(words)}"]
    parts += [_linked(_sentence(part)) for part in (command.help or "").split("\n\n")]
    records = [
        (_code(names), help_text)
        for parameter in command.params
        if (record := parameter.get_help_record(context))
        for names, help_text in [record]
    ]
    if children := getattr(command, "commands", {}):
        records += [
            (f"[`{name}`](#{'-'.join((*words, name))})", (child.help or "").split("\n\n")[0])
            for name, child in children.items()
        ]
    if records:
        rows = (f"| {name} | {_linked(_cell(help_text))} |" for name, help_text in records)
        parts.append("\n".join(("| argument, option or command | meaning |", "|---|---|", *rows)))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return _sentence(text).replace("|", "\\|")


def _meanings(text: str) -> Iterator[tuple[str, str]]:
    """Each dotted key of a TOML text with the comment above it."""
    section, comment = "", list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
            continue
        if line.startswith("["):
            section = line.strip("[] ") + "."
        elif found := re.match(r"(\w+) = ", line):
            yield section + found[1], " ".join(comment)
        comment = []


def _table(
    model: type[Section], defaults: dict[str, Any], meanings: dict[str, str], prefix: str
) -> str:
    hints = get_type_hints(model, include_extras=True)
    rows = [
        f"| `{prefix}{name}` | {_cell(_type(hints[name]))} | {_default(defaults[name])} "
        f"| {_cell(_linked(meanings[prefix + name]))} |"
        for name in model.model_fields
        if name in defaults and not isinstance(defaults[name], dict)
    ]
    return "\n".join(("| key | type | default | meaning |", "|---|---|---|---|", *rows))


def _linked(meaning: str) -> str:
    """The text with links instead of names of pages, which begin at the project's root."""
    return re.sub(r"docs/((?:[\w-]+/)*)([\w-]+)\.md", r"[\2](../\1\2.md)", meaning)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value not in ("", []) else "empty"


def _type(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        base, *rules = get_args(hint)
    else:
        base, rules = hint, []
    if get_origin(base) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(base))
    if get_origin(base) is list:
        return f"list: {_type(get_args(base)[0])}{_limits(rules)}"
    if base is bool:
        return "`true` or `false`"
    if base is int:
        return f"whole number{_limits(rules)}"
    for alias, words in _KINDS:
        if all(rule in rules for rule in alias.__metadata__):
            return words
    return "text"


def _limits(rules: list[Any]) -> str:
    """The bounds that a value has, the narrowest of each; bounds that nobody reaches are silent."""
    flat = [
        one for rule in rules for one in (rule.metadata if isinstance(rule, FieldInfo) else [rule])
    ]
    least = max((one.ge for one in flat if isinstance(one, Ge)), default=None)
    most = min((one.le for one in flat if isinstance(one, Le)), default=10**9)
    longest = [f", {one.max_length} at most" for one in flat if isinstance(one, MaxLen)]
    bounds = f" from {least}" if least is not None else ""
    return bounds + (f" to {most}" if most < 10**9 else "") + "".join(longest)


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
