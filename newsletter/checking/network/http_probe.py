"""The door to httpcore: whether something answers at a web address, asked with care.

An issue is written by others, so its links are hostile. A name is resolved here, and the
connection goes to the very address that was looked at: an answer that changes meanwhile,
or a redirect, leads into no private network. No body is read, nothing is sent along.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urljoin

import httpcore

from newsletter.provider.public_addresses import is_public

_REDIRECTS: Final = 5
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
#: What may stand unescaped in an address (RFC 3986).
_SAFE: Final = "%:/?#[]@!$&'()*+,;=~"

#: A host's name to its addresses; OSError when there are none.
Resolve = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one address: a status, or why there is none."""

    status: int | None
    why: str = ""
    content_type: str = ""


class PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to addresses that everybody can reach, and to no others."""

    def __init__(
        self, *, inner: httpcore.AsyncNetworkBackend | None = None, resolve: Resolve | None = None
    ) -> None:
        self._inner = inner or httpcore.AnyIOBackend()
        self._resolve = resolve or _resolved

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Called by httpcore for each connection, also of a redirect."""
        try:
            addresses = await self._resolve(host)
        except OSError:
            raise httpcore.ConnectError("there is no such host") from None
        if not addresses:
            raise httpcore.ConnectError("there is no such host")
        if not all(is_public(address) for address in addresses):
            raise httpcore.ConnectError("it leads into a private network, and is not asked")
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """No web address leads to one."""
        raise httpcore.ConnectError(f"{path} is not on the web")

    async def sleep(self, seconds: float) -> None:
        """Called by httpcore between tries."""
        await self._inner.sleep(seconds)


def ask(
    urls: Sequence[str],
    *,
    patience: timedelta,
    at_once: int,
    private_networks: bool = False,
    backend: httpcore.AsyncNetworkBackend | None = None,
) -> dict[str, Answer]:
    """Every address once, so many at a time, none for longer than ``patience``.

    ``backend`` makes the connections, unless it is one of httpcore's own that asks
    ``private_networks`` as well. Not to be called from within an event loop.
    """
    chosen = backend or (httpcore.AnyIOBackend() if private_networks else PublicOnly())
    return asyncio.run(_ask(urls, patience, at_once, chosen))


async def _ask(
    urls: Sequence[str],
    patience: timedelta,
    at_once: int,
    backend: httpcore.AsyncNetworkBackend,
) -> dict[str, Answer]:
    turn = asyncio.Semaphore(at_once)
    pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=at_once,
        network_backend=backend,
    )

    async def one(url: str) -> Answer:
        async with turn:
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    return await _followed(pool, url)
            except TimeoutError:
                seconds = f"{patience.total_seconds():g}"
                return Answer(None, f"it does not answer within {seconds} seconds")
            except (
                httpcore.NetworkError,
                httpcore.ProtocolError,
                httpcore.UnsupportedProtocol,
            ) as e:
                return Answer(None, str(e) or "the connection breaks off")
            except ValueError:
                return Answer(None, "it is not a web address")

    async with pool:
        return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))


async def _followed(pool: httpcore.AsyncConnectionPool, url: str) -> Answer:
    for _ in range(_REDIRECTS + 1):
        target = quote(url.partition("#")[0], safe=_SAFE)
        headers = [("User-Agent", "newsletter-check"), ("Accept", "*/*")]
        async with pool.stream("GET", target, headers=headers) as response:
            found = {name.lower(): value for name, value in response.headers}
            location = found.get(b"location", b"").decode(errors="replace").strip()
            if response.status not in _MOVED or not location:
                kind = found.get(b"content-type", b"").decode(errors="replace")
                return Answer(response.status, content_type=kind.partition(";")[0].strip().lower())
        url = urljoin(url, location)
    return Answer(None, f"it is redirected more than {_REDIRECTS} times")


async def _resolved(host: str) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError(str(error)) from None
    return [str(address[0]) for *_, address in found]
