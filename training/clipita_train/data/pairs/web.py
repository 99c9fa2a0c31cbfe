"""What a download has to know of the web: which addresses are public, who has opted out, when a host may be asked."""

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
    """A connection to a machine that is not on the public internet. Its text is the same for all of them."""

    def __init__(self) -> None:
        super().__init__("not a public address")


def is_public(address: Address) -> bool:
    """Whether it is a single machine on the internet, and not e.g. this one, its network, or a cloud's metadata.

    Addresses that wrap another (IPv4-mapped, 6to4, NAT64) are what they wrap.
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
    """A socket for an entry of `socket.getaddrinfo`, which is connected to that very address.

    A check of the name, or of an earlier answer for it, could be passed by a name that changes its address (DNS
    rebinding); what is checked here is where the connection goes.

    Raises:
        RefusedAddressError: the address is neither public nor in one of the `allowed` networks.
    """
    family, kind, protocol, _, place = info
    address = ipaddress.ip_address(place[0].partition("%")[0])
    if not (is_public(address) or any(address in network for network in allowed)):
        raise RefusedAddressError
    return socket.socket(family, kind, protocol)


def opted_out(headers: Iterable[tuple[str, str]], agent: str) -> str:
    """The header of an answer by which its owner keeps the image out of training data; "" if there is none.

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
    """The directives of one X-Robots-Tag that are for `agent`: "noindex", or "somebot: noindex, noai"."""
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
    """Seconds that `Retry-After` asks to wait, given in seconds or as a date; None without one that can be read."""
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
    """When a host may be asked next."""

    def __init__(self, at_once: int, rate: float) -> None:
        self.turns = asyncio.Semaphore(at_once)
        self.waiting = 0  # requests that have no turn yet
        self._interval = 1 / rate
        self._free_at = 0.0

    def wait(self) -> float:
        """Seconds until it may be asked."""
        return self._free_at - asyncio.get_running_loop().time()

    def take(self) -> bool:
        """Whether it may be asked now; if so, this is a request."""
        if self.wait() > 0:
            return False
        self._free_at = asyncio.get_running_loop().time() + self._interval
        return True

    def hold(self, seconds: float) -> None:
        """Ask it nothing for so long."""
        self._free_at = max(self._free_at, asyncio.get_running_loop().time() + seconds)
