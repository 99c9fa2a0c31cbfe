"""Rules for downloads from the web: which machines are public, who has opted out, and when a host may be asked."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_RESERVED = [ipaddress.ip_network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")]

# `X-Robots-Tag: none` is noindex and nofollow; noai and noimageai are DeviantArt's, of 2022.
_OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


class RefusedAddressError(OSError):
    """A connection to a machine that is not on the public internet; the text is the same for all."""

    def __init__(self) -> None:
        super().__init__("not a public address")


def is_public(address: Address) -> bool:
    """Return whether an address is a single machine on the internet.

    This machine, its network and the metadata services of clouds are not. Addresses that wrap another one (IPv4-mapped,
    6to4, NAT64) count as what they wrap.
    """
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour
        if wrapped is None and address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
        if address.is_site_local:
            return False
    inside = any(address in network for network in _RESERVED)
    return address.is_global and not (inside or address.is_multicast or address.is_reserved)


def open_public_socket(info: tuple[Any, ...], allowed: Iterable[Network] = ()) -> socket.socket:
    """Open a socket for an entry of `socket.getaddrinfo`, for a connection to exactly that address.

    A name may change its address after it was checked (DNS rebinding). So the check is made here, on the address that
    the connection goes to.

    Args:
        info: The entry.
        allowed: Networks that may be reached although they are not public.

    Raises:
        RefusedAddressError: The address is neither public nor allowed.
    """
    family, kind, protocol, _, place = info
    address = ipaddress.ip_address(place[0].partition("%")[0])
    if not (is_public(address) or any(address in network for network in allowed)):
        raise RefusedAddressError
    return socket.socket(family, kind, protocol)


def opted_out(headers: Iterable[tuple[str, str]], agent: str) -> str:
    """Return the header by which the owner keeps an image out of training data, or "".

    Obeyed are `X-Robots-Tag` with noai, noimageai, noindex, noimageindex or none, for every robot or for `agent`;
    `tdm-reservation: 1` (TDM Reservation Protocol, W3C community group, 2024); and `Content-Usage` with train-ai=n
    (draft-ietf-aipref-attach).
    """
    for name, value in headers:
        match name.lower():
            case "x-robots-tag" if _robots(value, agent) & _OPT_OUTS:
                return f"X-Robots-Tag: {value}"
            case "tdm-reservation" if value.strip() == "1":
                return f"tdm-reservation: {value}"
            case "content-usage" if "train-ai=n" in re.split("[,;]", value.replace(" ", "").lower()):
                return f"Content-Usage: {value}"
    return ""


def _robots(value: str, agent: str) -> set[str]:
    """Return the directives of an X-Robots-Tag that are for `agent`: "noindex", or "somebot: noindex, noai"."""
    found, robot = set[str](), "*"
    for part in value.lower().split(","):
        name, colon, directive = (piece.strip() for piece in part.partition(":"))
        if colon and name in _WITH_VALUE:
            continue
        if colon:
            robot = name
        if robot in ("*", agent.lower()):
            found.add(directive if colon else name)
    return found


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that `Retry-After` asks to wait, by a number or a date; None if none can be read."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    # A date without a zone, or with -0000, is UTC (RFC 5322, 3.3).
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


class Host:
    """Keeps when a host may be asked next."""

    def __init__(self, at_once: int, rate: float) -> None:
        self.turns = asyncio.Semaphore(at_once)
        self.waiting = 0  # number of requests that wait for their turn
        self._interval = 1 / rate
        self._free_at = 0.0

    def wait(self) -> float:
        """Return the seconds until the host may be asked; 0 or less means now."""
        return self._free_at - asyncio.get_running_loop().time()

    def take(self) -> bool:
        """Return whether the host may be asked now, and if so, count a request."""
        if self.wait() > 0:
            return False
        self._free_at = asyncio.get_running_loop().time() + self._interval
        return True

    def hold(self, seconds: float) -> None:
        """Ask the host nothing for this many seconds."""
        self._free_at = max(self._free_at, asyncio.get_running_loop().time() + seconds)
