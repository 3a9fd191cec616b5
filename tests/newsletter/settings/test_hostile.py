"""Every setting with values that it cannot have: a place and a hint, or it is taken and shown."""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from newsletter.container import Container
from newsletter.errors import SettingsError, UserError
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.rendering.render import render
from newsletter.scheduling import tasks
from newsletter.settings.load import Settings, load, load_with_origins
from tests.forking import command
from tests.newsletter.rendering.conftest import PUBLICATION


def every(model: type[BaseModel] = Settings, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted key of each setting, by the schema."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from every(kind, (*above, name))
        else:
            yield ".".join((*above, name))


KEYS = sorted(every())
#: Wrong kinds, units, places, characters and sizes, as an environment has them: text.
TEXTS = [
    "",
    " ",
    "x",
    "0",
    "-1",
    "-1s",
    "1.5h",
    "30",
    "0s",
    "999999999w",
    "1 fortnight",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "9" * 30,
    "9" * 5000,
    "١٢",
    "Mars/Base",
    "Europe",
    "../../etc/passwd",
    "/dev/null",
    "a\0b",
    "\n",
    "a\r\nBcc: b@example.org",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\ud800",
    "😀" * 300,
    "x" * 100_000,
    "[",
    "[1",
    "[[1]]",
    "[null]",
    "[1, 2",
    "[" * 50_000,
    "{}",
    "null",
    "true",
    "1,2,,3",
    "-5,3",
    "2026-13-40",
    "2026-12-01T00:00",
    "99999-01-01",
    "25:00-26:00",
    "http://[",
    "http://[::1",
    "http://a b",
    "http://x:0",
    "https://x:99999",
    "http://me:secret@host/",
    "ftp://x",
    "http://",
    f"https://{'a' * 300}.example",
    "https://example.org/?a=b",
    "a@b@c",
    "@",
    "a@",
    "Me <me@x.example>",
    "mysql://host/name",
    "sqlite://",
    "sqlite:///:memory:",
    "postgresql://host:port/name",
    "%",
    "%s",
    "{0}",
]
#: The same, as TOML has them.
TOML = [
    "true",
    "0",
    "1",
    "-1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    str(2**63),
    "9" * 30,
    "9" * 5000,
    "[]",
    "[1]",
    "[-1]",
    "[true]",
    "[nan]",
    "[[]]",
    "[[1], [2]]",
    "['']",
    "['a', 1]",
    "[" * 3000,
    "{}",
    "{ a = 1 }",
    "2026-01-01",
    "0001-01-01",
    "2026-01-01T00:00:00Z",
    "07:00:00",
    '""',
    '"x"',
    r'"\u0000"',
    r'"\n"',
    r'"\u2029"',
    '"0s"',
    '"999999999w"',
    f'"{"x" * 100_000}"',
    "'30 s'",
    "",
]


def variable(key: str) -> str:
    return "NEWSLETTER_" + key.replace(".", "__").upper()


def taken_or_refused(environment: Mapping[str, str], key: str, *, file: str = "") -> bool:
    """Whether it is taken, and then shown; else it is refused as a mistake of a user is."""
    try:
        _, origins = load_with_origins(environment)
    except SettingsError as error:
        # What is no TOML at all has no key; the message names the line.
        assert key in (error.place or "") or error.place == file
        assert error.hint
        assert error.exit_code == 2
        assert len(str(error)) < 1500
        return False
    shown = {origin.key: origin.shown for origin in origins}
    assert shown[key]
    json.dumps(shown).encode()
    return True


@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_the_environment_is_a_traceback(key: str) -> None:
    for text in TEXTS:
        taken_or_refused({variable(key): text}, key)


@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_a_file_is_a_traceback(key: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    section, _, name = key.rpartition(".")
    for text in TOML:
        file.write_text(f"[{section}]\n{name} = {text}\n" if section else f"{name} = {text}\n")
        taken_or_refused({"NEWSLETTER_CONFIG": str(file)}, key, file=str(file))


@pytest.mark.slow
@given(st.sampled_from(KEYS), st.text(max_size=60))
@example("site.timezone", "Mars/Base")
@hypothesis_settings(deadline=None)
def test_any_text_is_taken_and_shown_or_refused(key: str, text: str) -> None:
    taken_or_refused({variable(key): text}, key)


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(max_size=20)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    ),
    max_leaves=5,
)


def as_toml(value: object) -> str:
    match value:
        case None:
            return "[]"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        case int() | float():
            return repr(value)
        case date():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(as_toml, value))}]"
        case dict():
            return f"{{ {', '.join(f'{k} = {as_toml(v)}' for k, v in value.items())} }}"
        case _:
            return '"' + "".join(f"\\U{ord(c):08X}" for c in str(value)) + '"'


@given(st.sampled_from(KEYS), _VALUES)
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_toml_is_taken_and_shown_or_refused(
    tmp_path: Path, key: str, value: object
) -> None:
    file = tmp_path / "mine.toml"
    section, _, name = key.rpartition(".")
    line = f"{name} = {as_toml(value)}\n"
    file.write_text(f"[{section}]\n{line}" if section else line, encoding="utf-8")
    taken_or_refused({"NEWSLETTER_CONFIG": str(file)}, key, file=str(file))


SECTIONS = sorted({key.partition(".")[0] for key in KEYS if "." in key})


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("text", ['{} = "x"', "{} = []", "[[{}]]", "{} = 1"])
def test_a_section_is_not_a_value(section: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text.format(section) + "\n")
    with pytest.raises(SettingsError) as caught:
        load({"NEWSLETTER_CONFIG": str(file)})
    assert caught.value.place == f"{file}: {section}"
    with pytest.raises(SettingsError) as caught:
        load({f"NEWSLETTER_{section.upper()}": "x"})
    assert caught.value.place == f"NEWSLETTER_{section.upper()}: {section}"


@pytest.mark.parametrize(
    "name", ["NEWSLETTER_", "NEWSLETTER___", "NEWSLETTER_SITE__NAME__X", "NEWSLETTER_SITE__"]
)
def test_a_variable_that_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: "x"})
    assert (caught.value.place or "").startswith(name)
    assert caught.value.hint


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\0", b"a = 1\n" * 400_000, b'x = "\xe9"', b"a.b.c"])
def test_a_file_that_is_no_toml_is_named(raw: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(raw)
    for name in (str(file), str(tmp_path), "/dev/zero", "a\0b", "x" * 3000):
        with pytest.raises(SettingsError) as caught:
            load({"NEWSLETTER_CONFIG": name})
        assert caught.value.place == name
        assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("site.timezone", "Mars/Base", "Europe/Berlin"),
        ("sendgrid.timeout", "0s", "1s or more"),
        ("sending.late_limit", "999999w", "days at most"),
        ("signup.per_ip", "9" * 30, "1000000000"),
        ("sending.warm_up_from", "0", "2026-12-01"),
        ("site.base_url", "https://me:secret@news.example", "without a user"),
        ("web.host", "", "0.0.0.0"),
        ("database_url", "mysql://host/name", "postgresql://"),
        ("sender.email", "", "at least 3"),
        ("sending.quiet_hours", "25:00-26:00", "22:00-07:00"),
    ],
)
def test_what_would_fail_later_is_refused_at_the_start(key: str, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable(key): text})
    assert caught.value.place == f"{variable(key)}: {key}"
    assert words in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["site.timezone", "database_url", "web.port"])
def test_the_command_line_says_so_and_ends_with_2(key: str, tmp_path: Path) -> None:
    done = command(["settings"], environment={variable(key): "Mars/Base"}, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {variable(key)}: {key}: ")
    assert "Traceback" not in done.stderr


def kinds(key: str) -> set[object]:
    model: type[BaseModel] = Settings
    *sections, name = key.split(".")
    for section in sections:
        model = model.model_fields[section].annotation  # type: ignore[assignment]
    kind = model.model_fields[name].annotation
    return {kind, *get_args(kind)} - {NoneType}


@pytest.mark.parametrize("length", ["0s", "1s", "3660d"])
@pytest.mark.parametrize("number", ["1", "1000000000"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_clock_s_jobs_run_with_the_least_and_the_most_of_everything(
    length: str, number: str, environment: dict[str, str]
) -> None:
    """No length of time that is taken leads out of the calendar, and no number out of SQL."""
    for key in KEYS:
        for text in [length] * (timedelta in kinds(key)) + [number] * (int in kinds(key)):
            try:
                load({**environment, variable(key): text})
            except SettingsError:
                continue
            environment[variable(key)] = text
    parts = Container(load(environment))
    tasks.configure_tasks(parts.task_context)
    for job in (
        tasks.start_due_sends,
        tasks.run_schedules,
        tasks.choose_winners,
        tasks.check_circuit_breakers,
        tasks.resolve_uncertain,
        tasks.delete_expired,
        tasks.count_subscribers,
        tasks.prune_old_data,
    ):
        job()
    assert parts.warm_up is None
    parts.database.dispose()


PATHS = {
    "checks.file": lambda parts: parts.check_rules,
    "sending.alerts": lambda parts: parts.breaker_rules,
    "sending.departure_log": lambda parts: parts.departure_log,
    "imports.folder": lambda parts: parts.import_worker()._uploads.part(),
    "templates.directory": lambda parts: render(
        _draft(), PUBLICATION, templates=parts.settings.templates_directory
    ),
}


def _draft() -> Draft:
    return parse_issue("---\nsubject: Hello\n---\n\nGood day.\n", name="issue.md")


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    "name", ["nowhere", "/proc/nowhere/x", "folder", "file", "/dev/null", "a" * 250, "a/" * 99]
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_path_is_a_traceback(
    key: str,
    name: str,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"\xff\x00[[")
    parts = Container(load({**environment, variable(key): name}))
    try:
        PATHS[key](parts)  # type: ignore[arg-type]
    except UserError as error:
        assert error.place
        assert error.hint
    finally:
        parts.database.dispose()
