"""What deploy/ and the Dockerfile say is checked against the program: variables, commands, ports.

No builder of images runs here, so the steps of the Dockerfile run in a bare directory.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from newsletter.cli.main import application
from newsletter.settings.load import Settings, load
from tests.conftest import ADDRESS_KEY, LINK_KEY

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose.*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: The port of the service, and of a worker in a container.
PORT = load({}).web.port


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions and their arguments, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").strip().splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def require_settings(environment: dict[str, str]) -> None:
    """Each variable names a setting, directly or by a file, and each value is valid."""
    plain = {}
    for name, value in environment.items():
        if name == "NEWSLETTER_CONFIG" or not name.startswith("NEWSLETTER_"):
            continue
        path = name.removeprefix("NEWSLETTER_").lower().split("__")
        if path[-1].endswith("_file"):
            path[-1] = path[-1].removesuffix("_file")
        else:
            plain[name] = value
        model: Any = Settings
        for key in path:
            assert issubclass(model, BaseModel), name
            assert key in model.model_fields, name
            model = model.model_fields[key].annotation
    load(plain)


def require_command(words: list[str]) -> None:
    """The program has this command, with these options and arguments."""
    command: Any = typer.main.get_command(application())
    context = typer.Context(command)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands
        command = command.commands[name]
    command.make_context("newsletter", list(words), parent=context)


def services() -> Iterator[Any]:
    for path in COMPOSE:
        content = yaml.safe_load(path.read_text())
        for name, service in content["services"].items():
            yield pytest.param(content, service, id=f"{path.stem}-{name}")


@pytest.mark.parametrize(("content", "service"), list(services()))
def test_a_compose_service_fits_the_program(content: Any, service: Any) -> None:
    for kind in ("secrets", "configs"):
        for one in service.get(kind, ()):
            name = one if isinstance(one, str) else one["source"]
            assert content[kind][name]["file"].startswith("./")
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        assert source in content["volumes"] or (DEPLOY / source).exists()
    for other in service.get("depends_on", ()):
        assert other in content["services"]
    assert "no-new-privileges:true" in service["security_opt"]
    if "build" not in service:
        # An image without a registry's host is one of the default registry.
        assert re.fullmatch(r"[a-z]+:\d+", service["image"])
        return
    assert (DEPLOY / service["build"]).resolve() == ROOT
    require_command(list(service["command"]))
    environment = service["environment"]
    require_settings(environment)
    for name, value in environment.items():
        if name.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in service["secrets"]
    # A secret is never a value in the file.
    secret = re.compile("(key|keys|token|password)$", re.IGNORECASE)
    assert not [name for name in environment if secret.search(name)]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "data:/data" in service["volumes"]
    for port in service.get("ports", ()):
        assert int(port.rpartition(":")[2]) == PORT
    if "--health-port" in service["command"]:
        assert int(service["command"][-1]) == PORT  # where the HEALTHCHECK asks


def test_only_the_proxy_of_compose_may_report_addresses() -> None:
    content = yaml.safe_load((DEPLOY / "compose.postgresql.yaml").read_text())
    subnet = content["networks"]["default"]["ipam"]["config"][0]["subnet"]
    web = content["services"]["web"]
    assert web["environment"]["NEWSLETTER_WEB__TRUSTED_PROXIES"] == subnet
    assert f"reverse_proxy web:{PORT}" in (DEPLOY / "Caddyfile").read_text()
    assert "ports" not in web
    workers = [name for name in content["services"] if name.startswith("worker")]
    assert len(workers) == 2


def test_caddy_understands_its_file() -> None:
    caddy = shutil.which("caddy", path="/usr/local/bin:/usr/bin:/bin")
    if caddy is None:
        pytest.skip("caddy is not installed")
    done = subprocess.run(
        [caddy, "adapt", "--config", DEPLOY / "Caddyfile", "--adapter", "caddyfile"],
        env={"SITE_HOST": "news.example.com", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "news.example.com" in json.dumps(json.loads(done.stdout))


def test_the_image_runs_as_a_user_without_rights_and_says_when_it_is_alive() -> None:
    steps = dockerfile()
    values = dict(steps)  # of the final stage, where an instruction is repeated
    bases = [rest.split()[0] for word, rest in steps if word == "FROM"]
    # No registry's host: none of them has a dot or a slash before its tag.
    assert all(re.fullmatch(r"python:3\.\d+-slim", base) for base in bases)
    assert values["USER"].isdigit()
    assert values["USER"] != "0"
    assert values["STOPSIGNAL"] == "SIGTERM"
    assert values["VOLUME"] == values["WORKDIR"] == "/data"
    assert int(values["EXPOSE"]) == PORT
    assert f"127.0.0.1:{PORT}/healthz" in values["HEALTHCHECK"]
    require_command(json.loads(values["CMD"]))
    assert json.loads(values["ENTRYPOINT"]) == ["newsletter"]
    require_settings(dict(word.partition("=")[::2] for word in shlex.split(values["ENV"])))
    pip = [part for _, rest in steps for part in rest.split("&&") if "pip install" in part]
    assert all("--require-hashes" in part or "--no-deps" in part for part in pip)


def context_files() -> list[str]:
    """What .dockerignore lets into the build, by the names at the top."""
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    return [rule[1:] for rule in rules if rule.startswith("!")]


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    copied = [
        name
        for word, rest in dockerfile()
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    ]
    assert sorted(copied) == sorted(context_files())
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_build_a_service_that_is_alive(tmp_path: Path) -> None:
    """The steps that install; the rest of them needs a container."""
    build, target = tmp_path / "build", tmp_path / "opt" / "newsletter"
    build.mkdir()
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
    for word, rest in dockerfile():
        if word == "USER":
            break
        if word == "ARG":
            argument, _, default = rest.partition("=")
            environment[argument] = default
        elif word == "COPY" and not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                _copy(ROOT / name, build / name)
        elif word == "RUN" and "useradd" not in rest:
            step = rest.replace("/opt/newsletter", str(target)).replace("--no-cache-dir", "")
            done = subprocess.run(
                step, shell=True, cwd=build, env=environment, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr.decode()[-3000:]
    shutil.rmtree(build)
    data = tmp_path / "data"
    data.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = subprocess.Popen(
        [
            *read_only_except(data),
            target / "bin" / "newsletter",
            *json.loads(dict(dockerfile())["CMD"]),
        ],
        cwd=data,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NEWSLETTER_DATABASE_URL": f"sqlite:///{data}/newsletter.db",
            "NEWSLETTER_WEB__PORT": str(port),
            "NEWSLETTER_LINKS__KEYS": LINK_KEY,
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
            "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
        },
    )
    try:
        command = json.loads(dict(dockerfile())["HEALTHCHECK"].partition("CMD ")[2])
        command[0] = str(target / "bin" / "python")
        command[-1] = command[-1].replace(f":{PORT}/", f":{port}/")
        deadline = time.monotonic() + 60
        while subprocess.run(command, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            assert service.poll() is None
            time.sleep(0.3)
        url = f"http://127.0.0.1:{port}/static/site.css"
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
    finally:
        service.terminate()
        assert service.wait(60) == 0
    assert {path.name for path in data.iterdir()} >= {"newsletter.db", "departures"}


def read_only_except(folder: Path) -> list[str]:
    """Starts a program that can write to this folder alone; nothing without the right to mount."""
    script = (
        f"mount --make-rprivate / && mount --bind {folder} {folder} "
        f'&& mount -o remount,bind,ro / && cd {folder} && exec "$@"'
    )
    words = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else []


#: Starts a program that may make no memory executable (Linux, PR_SET_MDWE); 77 where it cannot.
_NO_EXECUTABLE_MEMORY = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) and sys.exit(77); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.slow
def test_the_program_needs_no_executable_memory(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute of the units: the demo renders, hashes, sends and receives events."""
    newsletter = Path(sys.executable).with_name("newsletter")
    done = subprocess.run(
        [sys.executable, "-c", _NO_EXECUTABLE_MEMORY, newsletter, "demo", "--once"],
        env={"PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this kernel cannot forbid it")
    assert done.returncode == 0, done.stderr


def _copy(source: Path, target: Path) -> None:
    """Copy what .dockerignore lets through."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy(source, target)


def unit(path: Path) -> dict[str, list[str]]:
    """The values of each key of a unit."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_fits_the_program_and_gives_no_rights(path: Path) -> None:
    found = unit(path)
    program, *words = found["ExecStart"][0].replace("%i", "9102").split()
    assert fnmatch(program, "/*/bin/newsletter")
    require_command(words)
    environment = dict(one.partition("=")[::2] for one in found["Environment"])
    require_settings(environment)
    credentials = {one.partition(":")[0] for one in found["LoadCredential"]}
    files = {v.removeprefix("%d/") for k, v in environment.items() if k.endswith("_FILE")}
    assert files == credentials
    assert int(found["TimeoutStopSec"][0]) > 2 * load({}).sendgrid.timeout.total_seconds()
    for key, value in {
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "CapabilityBoundingSet": "",
        "SystemCallFilter": "@system-service",
        "MemoryDenyWriteExecute": "yes",
        "User": "newsletter",
    }.items():
        assert found[key] == [value]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_a_unit_safe(path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    # 20 means 2.0 of 10, where 0 is the safest.
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", "--threshold=20", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_units_differ_only_in_what_they_run() -> None:
    first, second = (unit(path) for path in UNITS)
    own = {"Description", "ExecStart", "After", "Environment"}
    assert {key for key in first | second if first.get(key) != second.get(key)} == own
