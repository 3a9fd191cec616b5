"""Adapter for httpcore: requests web addresses without reaching private networks.

Authors may be hostile, and so may their links; webhook endpoints are of other people. This module
resolves each name itself and connects to exactly the address that it checked, so that neither a
changed DNS answer nor a redirect leads into a private network. It sends no credentials.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urljoin

import httpcore

from newsletter.provider.public_addresses import is_public

_REDIRECTS: Final = 5
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
#: Characters that need no escape in a URL (RFC 3986).
_SAFE: Final = "%:/?#[]@!$&'()*+,;=~"

#: Resolves a host name to addresses; OSError when there are none.
Resolve = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer of one address: a status, or why there is none."""

    status: int | None
    why: str = ""
    content_type: str = ""


class PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, and to hosts that are allowed by name."""

    def __init__(
        self,
        *,
        inner: httpcore.AsyncNetworkBackend | None = None,
        resolve: Resolve | None = None,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self._inner = inner or httpcore.AnyIOBackend()
        self._resolve = resolve or _resolved
        self._allow_hosts = allow_hosts

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a public address. httpcore calls it for each connection, also of redirects."""
        try:
            addresses = await self._resolve(host)
        except OSError:
            raise httpcore.ConnectError("there is no such host") from None
        if not addresses:
            raise httpcore.ConnectError("there is no such host")
        if host not in self._allow_hosts and not all(map(is_public, addresses)):
            raise httpcore.ConnectError("it leads into a private network, so it is not requested")
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no web address leads to a Unix socket."""
        raise httpcore.ConnectError(f"{path} is not on the web")

    async def sleep(self, seconds: float) -> None:
        """Sleep. httpcore calls it between attempts."""
        await self._inner.sleep(seconds)


def ask(
    urls: Sequence[str],
    *,
    patience: timedelta,
    at_once: int,
    private_networks: bool = False,
    backend: httpcore.AsyncNetworkBackend | None = None,
) -> dict[str, HttpAnswer]:
    """Request each address once, ``at_once`` in parallel, each for at most ``patience``.

    ``backend`` makes the connections; the default is PublicOnly, or httpcore's own with
    ``private_networks``. Must not be called within an event loop.
    """
    chosen = backend or (httpcore.AnyIOBackend() if private_networks else PublicOnly())
    return asyncio.run(_ask(urls, patience, at_once, chosen))


class Poster:
    """Posts to addresses that outsiders chose, and keeps the connections open."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def post(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        patience: timedelta,
        read: int,
    ) -> tuple[HttpAnswer, bytes]:
        """Post once, for at most ``patience`` in all; redirects are not followed.

        Returns the answer and at most ``read`` bytes of its body.
        """
        try:
            async with asyncio.timeout(patience.total_seconds()):
                async with self._pool.stream(
                    "POST", url, headers=headers, content=body
                ) as response:
                    return HttpAnswer(response.status), await _beginning(response, read)
        except TimeoutError:
            why = f"it did not answer within {patience.total_seconds():g} seconds"
            return HttpAnswer(None, why), b""
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
        ) as error:
            return HttpAnswer(None, str(error) or "the connection broke off"), b""
        except ValueError:
            return HttpAnswer(None, "it is not a web address"), b""


@asynccontextmanager
async def poster(
    *, allow_hosts: Collection[str], backend: httpcore.AsyncNetworkBackend | None = None
) -> AsyncIterator[Poster]:
    """A Poster for one event loop, which connects to public addresses and allowed hosts."""
    pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=1,
        network_backend=backend or PublicOnly(allow_hosts=allow_hosts),
    )
    async with pool:
        yield Poster(pool)


async def _beginning(response: httpcore.Response, most: int) -> bytes:
    found = b""
    async for part in response.aiter_stream():
        found += part
        if len(found) >= most:
            # The rest is not read; the connection is closed.
            break
    return found[:most]


async def _ask(
    urls: Sequence[str],
    patience: timedelta,
    at_once: int,
    backend: httpcore.AsyncNetworkBackend,
) -> dict[str, HttpAnswer]:
    turn = asyncio.Semaphore(at_once)
    pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=at_once,
        network_backend=backend,
    )

    async def one(url: str) -> HttpAnswer:
        async with turn:
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    return await _followed(pool, url)
            except TimeoutError:
                seconds = f"{patience.total_seconds():g}"
                return HttpAnswer(None, f"it does not answer within {seconds} seconds")
            except (
                httpcore.NetworkError,
                httpcore.ProtocolError,
                httpcore.UnsupportedProtocol,
            ) as e:
                return HttpAnswer(None, str(e) or "the connection breaks off")
            except ValueError:
                return HttpAnswer(None, "it is not a web address")

    async with pool:
        return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))


async def _followed(pool: httpcore.AsyncConnectionPool, url: str) -> HttpAnswer:
    for _ in range(_REDIRECTS + 1):
        target = quote(url.partition("#")[0], safe=_SAFE)
        headers = [("User-Agent", "newsletter-check"), ("Accept", "*/*")]
        async with pool.stream("GET", target, headers=headers) as response:
            found = {name.lower(): value for name, value in response.headers}
            location = found.get(b"location", b"").decode(errors="replace").strip()
            if response.status not in _MOVED or not location:
                kind = found.get(b"content-type", b"").decode(errors="replace")
                return HttpAnswer(
                    response.status, content_type=kind.partition(";")[0].strip().lower()
                )
        url = urljoin(url, location)
    return HttpAnswer(None, f"it is redirected more than {_REDIRECTS} times")


async def _resolved(host: str) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError(str(error)) from None
    return [str(address[0]) for *_, address in found]
