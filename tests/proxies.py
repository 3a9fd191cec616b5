"""Reverse proxies before a service below a path: one in Python, and nginx and Caddy.

The real ones run with the configuration that docs/guides/reverse-proxy.md shows.
"""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

#: Where the service of docs/guides/reverse-proxy.md stands, and where it listens.
PATH = "/news"
_SERVICE = "127.0.0.1:8000"
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NGINX = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
    uwsgi_temp_path t4; scgi_temp_path t5;
    server {{ listen 127.0.0.1:{port}; {block} }}
}}
"""
_CADDY = "{{\n admin off\n auto_https off\n}}\n{block}"


class Proxy:
    """A reverse proxy as a browser meets it: below the path we are, and nowhere else."""

    def __init__(self, app: ASGIApp, *, strips: bool) -> None:
        self.app, self.strips = app, strips

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path != PATH and not path.startswith(f"{PATH}/"):
                nothing = PlainTextResponse(f"{path} is somebody else's", 404)
                await nothing(scope, receive, send)
                return
            if self.strips:
                rest = path.removeprefix(PATH) or "/"
                scope = {**scope, "path": rest, "raw_path": rest.encode()}
        await self.app(scope, receive, send)


def blocks(kind: str) -> dict[bool, str]:
    """What docs/guides/reverse-proxy.md shows: with the path removed, and with it kept."""
    page = (Path(__file__).parents[1] / "docs" / "guides" / "reverse-proxy.md").read_text()
    section = page.split("## Below a path")[1].split("\n## ")[0]
    shown = re.findall(r"```(?:nginx|caddyfile)\n(.*?)```", section, re.DOTALL)
    words = {"nginx": (f"{_SERVICE}/;", f"{_SERVICE};"), "caddy": ("handle_path ", "handle ")}
    taken, left = words[kind]
    return {
        strips: next(one for one in shown if word in one)
        for strips, word in ((True, taken), (False, left))
    }


@contextmanager
def real_proxy(kind: str, folder: Path, *, service: int, strips: bool, port: int) -> Iterator[None]:
    """nginx or Caddy on a port, before the service on another; skipped where there is none."""
    program = shutil.which(kind, path=_PROGRAMS)
    if program is None:
        pytest.skip(f"{kind} is not on this machine")
    block = blocks(kind)[strips].replace(_SERVICE, f"127.0.0.1:{service}")
    config = folder / f"{kind}.conf"
    if kind == "nginx":
        config.write_text(_NGINX.format(port=port, block=block))
        command = [program, "-p", str(folder), "-c", str(config)]
    else:
        block = block.replace("example.com", f"http://127.0.0.1:{port}")
        config.write_text(_CADDY.format(block=block))
        command = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    said = folder / f"{kind}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"PATH": _PROGRAMS, "HOME": str(folder)}
        )
    try:
        _wait(process, port, said)
        yield
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        found: int = free.getsockname()[1]
    return found


def _wait(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.1)
        else:
            return
