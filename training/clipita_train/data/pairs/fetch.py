"""Fetch single addresses: politely to the hosts, and protected from what they answer."""

import asyncio
import os
import random
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network

import aiohttp
from yarl import URL

import clipita
from clipita.images.pixels import DEFAULT_MAX_PIXELS
from clipita_train.data.pairs.web import Host, RefusedAddressError, open_public_socket, opted_out, retry_after

AGENT = "clipita-train"
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = ("http_429", "http_503")  # statuses after which a host is left alone for a while
# Failures that may pass by themselves: tried again after a while, and in the next run (408: RFC 9110, 425: RFC 8470).
PASSING = {"timeout", "dns", "connection", "cut", "rate_limited", *BUSY}
PASSING |= {"http_408", "http_425", "http_500", "http_502", "http_504"}


@dataclass(frozen=True)
class Settings:
    """The settings of downloads.

    Attributes:
        contact: A mail address or web page by which hosts can reach you. It is part of the User-Agent, as Wikimedia
            asks.
        connections: Maximum number of connections at a time, to all hosts.
        per_host: Maximum number of connections at a time to one host.
        rate: Requests a second to one host.
        timeout: Seconds that one request may take, from the connection to the last byte.
        attempts: How often an address is tried if its failure may pass by itself.
        back_off: Seconds to wait before the second attempt, and up to twice as many before each further one. The wait
            is drawn at random from 0 to that, so that addresses that failed together are not tried again together.
        longest_wait: Seconds. A host that asks for a longer wait is left alone for this run.
        redirects: How many redirects are followed.
        max_bytes: Limit of an image, both as sent and unpacked.
        max_pixels: Limit of width x height.
        max_side: Reduce images to this longer side, and keep them as JPEG without EXIF; None keeps them as they came.
        quality: Of that JPEG.
        allowed: Networks that may be reached although they are not public, such as your own server's, "10.1.2.0/24".
    """

    contact: str
    connections: int = 64
    per_host: int = 4
    rate: float = 20.0
    timeout: float = 30.0
    attempts: int = 3
    back_off: float = 1.0
    longest_wait: float = 60.0
    redirects: int = 5
    max_bytes: int = 20_000_000
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_side: int | None = None
    quality: int = 90
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (
            not self.contact.isascii()
            or not self.contact.isprintable()
            or set(self.contact) & set("()")
            or not ("@" in self.contact or self.contact.startswith(("http://", "https://")))
        ):
            raise ValueError(
                f"expected a mail address or the address of a page as contact, not {self.contact!r}: "
                "hosts want to know whom to ask before they block"
            )
        for name in ("connections", "per_host", "rate", "timeout", "attempts", "max_bytes", "max_pixels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, but it is {getattr(self, name)}")
        for network in self.allowed:
            ip_network(network)

    @property
    def user_agent(self) -> str:
        """The User-Agent header."""
        return f"{AGENT}/{clipita.__version__} ({self.contact}) aiohttp/{aiohttp.__version__}"


@dataclass(frozen=True)
class Outcome:
    """The result of an address: a status, details in words, and the sizes of an image that was kept."""

    status: str
    detail: str = ""
    bytes: int = 0  # of the file that is kept
    width: int = 0  # of the image as it came, upright
    height: int = 0


class Fetcher:
    """Fetches addresses over one pool of connections, in one event loop.

    Args:
        settings: How to fetch.
        keep: Called in a thread with an address and the bytes that came, and returns the outcome. It counts as a
            connection, so that only as many answers wait for it as there are connections.
    """

    def __init__(self, settings: Settings, keep: Callable[[str, bytes], Outcome]) -> None:
        self.settings = settings
        self._keep = keep
        allowed = [ip_network(network) for network in settings.allowed]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=2,
                ttl_dns_cache=300,
                socket_factory=partial(open_public_socket, allowed=allowed),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            # Answers are unpacked below, up to the limit: a few compressed bytes may unpack to a gigabyte.
            headers={"User-Agent": settings.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )
        self._connections = asyncio.Semaphore(settings.connections)
        self._threads = asyncio.Semaphore(os.cpu_count() or 1)
        self._hosts: defaultdict[str, Host] = defaultdict(partial(Host, settings.per_host, settings.rate))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def fetch(self, address: str) -> Outcome:
        """Fetch an address, in several attempts if need be, and return the outcome."""
        outcome = Outcome("")
        for attempt in range(self.settings.attempts):
            outcome = await self._follow(address, attempt)
            if outcome.status not in PASSING or outcome.status == "rate_limited":
                break
            if (
                attempt + 1 < self.settings.attempts and outcome.status not in BUSY
            ):  # a busy host makes all its requests wait anyway
                await asyncio.sleep(self._back_off(attempt))
        return outcome

    def _back_off(self, attempt: int) -> float:
        return random.uniform(0, min(self.settings.back_off * 2**attempt, self.settings.longest_wait))

    async def _follow(self, address: str, attempt: int) -> Outcome:
        try:
            url = URL(address)
            for _ in range(self.settings.redirects + 1):
                came = await self._ask(address, url, attempt)
                if isinstance(came, Outcome):
                    return came
                url = url.join(came)
            return Outcome("redirects", f"more than {self.settings.redirects}")
        except TimeoutError:
            return Outcome("timeout", f"after {self.settings.timeout:g} s")
        except aiohttp.ClientConnectorDNSError as error:
            return Outcome("dns", str(error))
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.__cause__, RefusedAddressError)
            return Outcome("blocked" if refused else "connection", str(error.__cause__ or error))
        except aiohttp.ClientPayloadError as error:
            return Outcome("cut", str(error))
        except ValueError as error:  # also InvalidURL of aiohttp, and UnicodeError for names that DNS cannot have
            return Outcome("bad_address", str(error))
        except aiohttp.ClientError as error:
            return Outcome("connection", str(error) or type(error).__name__)

    async def _ask(self, address: str, url: URL, attempt: int) -> Outcome | URL:
        """Make one request, and return its outcome, or the address that it redirects to."""
        if url.scheme not in ("http", "https") or not url.host:
            return Outcome("bad_address", f"not HTTP: {url}"[:200])
        host = self._hosts[url.host]
        async with self._turn(host) as granted:
            if not granted:
                return Outcome("rate_limited", f"{url.host} asks to wait for {host.wait():.0f} s")
            # If no request waits, close the connection: an idle one would count among the open files of the process.
            last = None if host.waiting else {"Connection": "close"}
            async with self._session.get(url, allow_redirects=False, headers=last) as response:
                came = await self._answer(response, host, attempt)
            if isinstance(came, Outcome | URL):
                return came
            async with self._threads:
                return await asyncio.to_thread(self._keep, address, came)

    async def _answer(self, response: aiohttp.ClientResponse, host: Host, attempt: int) -> Outcome | URL | bytes:
        """Return the address of a redirect, the bytes of an image, or another outcome."""
        if response.status in REDIRECTS and "Location" in response.headers:
            return URL(response.headers["Location"])
        status = f"http_{response.status}"
        if status in BUSY:
            asked = retry_after(response.headers)
            host.hold(self._back_off(attempt) if asked is None else asked)
        if response.status != 200:
            return Outcome(status, response.reason or "")
        if header := opted_out(response.headers.items(), AGENT):
            return Outcome("opted_out", header[:200])
        return await self._read(response)

    @asynccontextmanager
    async def _turn(self, host: Host) -> AsyncIterator[bool]:
        """Wait until the host may be asked and a connection is free.

        Yields False if the host asks for a longer wait than the settings allow.
        """
        host.waiting += 1
        async with host.turns:
            while (wait := host.wait()) <= self.settings.longest_wait:
                if wait > 0:
                    await asyncio.sleep(wait)
                async with self._connections:
                    if host.take():
                        host.waiting -= 1
                        yield True
                        return
            host.waiting -= 1
            yield False

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | Outcome:
        limit = self.settings.max_bytes
        too_large = Outcome("too_large", f"more than {limit} bytes")
        if (response.content_length or 0) > limit:
            return too_large
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            return Outcome("not_image", f"Content-Encoding: {coding}"[:200])
        unpack = (
            zlib.decompressobj(wbits=47) if coding not in ("identity", "") else None
        )  # gzip or zlib, found by the header
        body, received = bytearray(), 0
        try:
            async for chunk in response.content.iter_any():
                received += len(chunk)
                body += unpack.decompress(chunk, limit + 1 - len(body)) if unpack else chunk
                if max(received, len(body)) > limit:
                    return too_large
        except zlib.error:
            return Outcome("not_image", f"not the {coding} that it says")
        if unpack and not unpack.eof:
            return Outcome("cut", f"the {coding} ends early")
        return bytes(body)
